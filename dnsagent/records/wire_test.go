package records_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	rr "github.com/miekg/dns"
	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/api/dns"
	"github.com/openmep/mep/api/problem"
	"github.com/openmep/mep/api/state"
	"github.com/openmep/mep/dnsagent/records"
	"github.com/openmep/mep/dnsagent/table"
)

// independently returns the record that miekg/dns makes of a value.
func independently(t *testing.T, rec *dns.Record, value string) rr.RR {
	t.Helper()
	if rec.Type == dns.TypeTXT {
		txt := &rr.TXT{Hdr: rr.RR_Header{Name: rec.Name, Rrtype: rr.TypeTXT, Class: rr.ClassINET, Ttl: rec.TTL}}
		for rest := []byte(value); ; {
			n := min(len(rest), 255)
			txt.Txt = append(txt.Txt, escaped(rest[:n]))
			if rest = rest[n:]; len(rest) == 0 {
				return txt
			}
		}
	}
	r, err := rr.NewRR(fmt.Sprintf("%s %d IN %s %s", rec.Name, rec.TTL, rec.Type, value))
	require.NoError(t, err)
	return r
}

// escaped returns octets in the notation of zone files and miekg/dns (RFC 1035 5.1).
func escaped(octets []byte) string {
	var b strings.Builder
	for _, c := range octets {
		if c == '"' || c == '\\' || c < ' ' || c > '~' {
			fmt.Fprintf(&b, `\%03d`, c)
			continue
		}
		b.WriteByte(c)
	}
	return b.String()
}

// rdata returns the value of a record in wire format.
func rdata(t *testing.T, r rr.RR) string {
	t.Helper()
	buf := make([]byte, 70000)
	end, err := rr.PackRR(r, buf, 0, nil, false)
	require.NoError(t, err)
	head := &rr.ANY{Hdr: *r.Header()}
	start, err := rr.PackRR(head, make([]byte, 512), 0, nil, false)
	require.NoError(t, err)
	return string(buf[start:end])
}

func TestRecordsInWireForm(t *testing.T) {
	for rrtype, values := range map[string][]string{
		"A":     {"192.0.2.1", "127.0.0.1"},
		"AAAA":  {"2001:db8::1", "::1", "fe80::1"},
		"CNAME": {"a.Example."},
		"PTR":   {"a.example.", "_b-1.example."},
		"SRV":   {"0 0 0 .", "65535 1 443 h.example."},
		"TXT": {
			"", "plain", `quotes " and \ and ; ( )`, "ü\x00\x7f\n", strings.Repeat("x", 255), strings.Repeat("x", 256), strings.Repeat("x", 510),
			strings.Repeat("\\", 1000),
		},
	} {
		rec := &dns.Record{Name: "*.H.example", Type: rrtype, TTL: 77, RData: values}
		var faults problem.InvalidParams
		rec.Check(&faults)
		require.Empty(t, faults, rrtype)
		rec.Normalise()
		list, err := records.Wire(rec, 3)
		require.NoError(t, err, rrtype)
		require.Len(t, list, len(values))
		for i, r := range list {
			want := independently(t, rec, rec.RData[i])
			require.Equal(t, rdata(t, want), r.Data, "%s %q", rrtype, values[i])
			require.Equal(t, table.Record{
				Name: "\x01*\x01h\x07example\x00", Type: want.Header().Rrtype, Data: r.Data, TTL: 77, View: 3,
			}, r)
		}
	}
}

func TestRecordsThatHaveNoWireForm(t *testing.T) {
	for name, rec := range map[string]dns.Record{
		"name":        rec("a..b", "A", "192.0.2.1"),
		"type":        rec("a.example.", "MX", "10 a.example."),
		"type of EDE": rec("a.example.", "OPT", ""),
		"address":     rec("a.example.", "A", "host"),
		"family":      rec("a.example.", "AAAA", "192.0.2.1"),
		"alias":       rec("a.example.", "CNAME", ""),
		"pointer":     rec("a.example.", "PTR", "a..b"),
		"service":     rec("a.example.", "SRV", "1 2 a.example."),
	} {
		list, err := records.Wire(&rec, table.Everyone)
		require.Error(t, err, name)
		require.Empty(t, list, name)
	}
}

// FuzzWire checks that an accepted record has a wire format, that miekg/dns decodes it to the same values, and that an answer with all
// its values fits into a message.
func FuzzWire(f *testing.F) {
	f.Add(`{"name":"www.example","type":"A","ttl":30,"rData":["192.0.2.1","192.0.2.2"]}`)
	f.Add(`{"name":"*.example.","type":"SRV","ttl":1,"rData":["1 2 3 a.example","0 0 0 ."],"zone":"example"}`)
	f.Add(`{"name":"t.example","type":"TXT","ttl":1,"rData":["","a\\\u0000\"","ü` + strings.Repeat("x", 300) + `"]}`)
	f.Add(`{"name":"x-1._a.b","type":"PTR","ttl":1,"rData":["A.B"]}`)
	f.Fuzz(func(t *testing.T, text string) {
		var rec dns.Record
		if json.Unmarshal([]byte(text), &rec) != nil {
			return
		}
		var faults problem.InvalidParams
		if rec.Check(&faults); len(faults) > 0 {
			return
		}
		rec.Normalise()
		list, err := records.Wire(&rec, table.Everyone)
		require.NoError(t, err)
		m := &rr.Msg{Compress: true}
		m.SetQuestion(rec.Name, list[0].Type)
		m.SetEdns0(rr.MaxMsgSize, true)
		for i, r := range list {
			require.Equal(t, rec.Name, r.Name.String())
			buf := append([]byte(r.Name), byte(r.Type>>8), byte(r.Type), 0, 1, 0, 0, 0, 1, byte(len(r.Data)>>8), byte(len(r.Data)))
			got, end, err := rr.UnpackRR(append(buf, r.Data...), 0)
			require.NoError(t, err)
			require.Equal(t, len(buf)+len(r.Data), end)
			want := independently(t, &rec, rec.RData[i])
			require.Equal(t, rdata(t, want), r.Data)
			require.Equal(t, rdata(t, want), rdata(t, got))
			m.Answer = append(m.Answer, got)
		}
		packed, err := m.Pack()
		require.NoError(t, err)
		require.Less(t, len(packed), rr.MaxMsgSize-500, "there is room for the rest of an answer")
	})
}

// FuzzDecode checks that Decode accepts the same records as package json and returns the same values.
func FuzzDecode(f *testing.F) {
	f.Add("a.example.", "A", "", `{"v":1,"record":{"name":"a.example.","type":"A","ttl":30,"rData":["192.0.2.1"],"zone":"."}}`)
	f.Add("a.example.", "TXT", "ue", `{"v":1,"record":{"name":"a.example.","type":"TXT","ttl":30,"rData":["a","","\"ü"],"zone":"example.","view":"ue"}}`)
	f.Add("a.example.", "A", "", `{"v":1,"record":{"name":"a.example.","type":"A","ttl":030,"rData":["192.0.2.1"],"zone":"."}}`)
	f.Add("a.example.", "A", "", `{"v":1,"record":{"name":"a.example.","type":"A","ttl":4294967296,"rData":["192.0.2.1"],"zone":"."}} `)
	f.Fuzz(func(t *testing.T, name, rrtype, view, value string) {
		key := state.DNSRecordKey(name, rrtype, view)
		got, gotErr := records.Decode(key, []byte(value), 1)
		want, wantErr := state.Decode[state.DNSRecord]([]byte(value))
		if wantErr != nil {
			require.Error(t, gotErr)
			return
		}
		r := want.Record
		if name, rrtype, view, err := state.SplitDNSRecordKey(key); err != nil || r.Name != name || r.Type != rrtype || r.View != view {
			require.Error(t, gotErr)
			return
		}
		require.NoError(t, gotErr)
		require.Equal(t, r, *got)
	})
}

func TestMostRecordsAreReadWithoutPackageJSON(t *testing.T) {
	const value = `{"v":1,"record":{"name":"h1.example.","type":"A","ttl":30,"rData":["192.0.2.1"],"zone":"."}}`
	key := state.DNSRecordKey("h1.example.", "A", "")
	quick := testing.AllocsPerRun(100, func() { _, _ = records.Decode(key, []byte(value), 1) })
	slow := testing.AllocsPerRun(100, func() { _, _ = state.Decode[state.DNSRecord]([]byte(value)) })
	require.Less(t, quick, slow)
}

func BenchmarkDecode(b *testing.B) {
	value := []byte(`{"v":1,"record":{"name":"h123456.mec.example.","type":"A","ttl":30,"rData":["10.0.0.1"],"zone":"."}}`)
	key := state.DNSRecordKey("h123456.mec.example.", "A", "")
	b.ReportAllocs()
	for b.Loop() {
		if _, err := records.Decode(key, value, 1); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkWire(b *testing.B) {
	r := rec("h123456.mec.example.", "A", "10.0.0.1")
	b.ReportAllocs()
	for b.Loop() {
		if _, err := records.Wire(&r, table.Everyone); err != nil {
			b.Fatal(err)
		}
	}
}
