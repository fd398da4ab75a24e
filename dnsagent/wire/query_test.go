package wire_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/miekg/dns"
	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/dnsagent/wire"
)

func message(tb testing.TB, change func(m *dns.Msg)) []byte {
	tb.Helper()
	m := new(dns.Msg).SetQuestion("WWW.Mec.Example.", dns.TypeAAAA)
	m.Id = 0x1234
	if change != nil {
		change(m)
	}
	b, err := m.Pack()
	require.NoError(tb, err)
	return b
}

func TestParse(t *testing.T) {
	label63 := strings.Repeat("a", 63)
	for name, c := range map[string]struct {
		msg     []byte
		verdict wire.Verdict
		check   func(t *testing.T, q *wire.Query)
	}{
		"a question": {msg: message(t, nil), check: func(t *testing.T, q *wire.Query) {
			require.Equal(t, uint16(0x1234), q.ID)
			require.Equal(t, "www.mec.example.", q.Name().String())
			require.Equal(t, dns.TypeAAAA, q.Type)
			require.Equal(t, uint16(dns.ClassINET), q.Class)
			require.True(t, q.RD)
			require.False(t, q.EDNS)
		}},
		"EDNS with a cookie": {
			msg: message(t, func(m *dns.Msg) {
				m.SetEdns0(1400, true).Extra[0].(*dns.OPT).Option = []dns.EDNS0{
					&dns.EDNS0_NSID{Code: dns.EDNS0NSID}, &dns.EDNS0_COOKIE{Code: dns.EDNS0COOKIE, Cookie: "0102030405060708"},
				}
				m.CheckingDisabled = true
			}),
			check: func(t *testing.T, q *wire.Query) {
				require.True(t, q.EDNS && q.DO && q.CD)
				require.Equal(t, uint16(1400), q.UDPSize)
				require.Equal(t, []byte{1, 2, 3, 4, 5, 6, 7, 8}, q.Cookie)
			},
		},
		"EDNS of a later version": {
			msg:   message(t, func(m *dns.Msg) { m.SetEdns0(1400, false).Extra[0].(*dns.OPT).SetVersion(3) }),
			check: func(t *testing.T, q *wire.Query) { require.Equal(t, uint8(3), q.Version) },
		},
		"no question but a cookie": {
			msg: message(t, func(m *dns.Msg) {
				m.Question = nil
				m.SetEdns0(1400, false).Extra[0].(*dns.OPT).Option = []dns.EDNS0{&dns.EDNS0_COOKIE{Code: dns.EDNS0COOKIE, Cookie: "0102030405060708"}}
			}),
			check: func(t *testing.T, q *wire.Query) { require.False(t, q.HasQuestion()) },
		},
		"IXFR with its SOA": {
			msg: message(t, func(m *dns.Msg) {
				m.Question[0].Qtype = dns.TypeIXFR
				m.Ns = []dns.RR{&dns.SOA{Hdr: dns.RR_Header{Name: "mec.example.", Rrtype: dns.TypeSOA, Class: dns.ClassINET}, Ns: "ns.", Mbox: "x."}}
			}),
			check: func(t *testing.T, q *wire.Query) { require.Equal(t, dns.TypeIXFR, q.Type) },
		},
		"a name of 255 octets": {
			msg: message(t, func(m *dns.Msg) {
				m.Question[0].Name = strings.Repeat(label63+".", 3) + strings.Repeat("b", 61) + "."
			}),
			check: func(t *testing.T, q *wire.Query) { require.Len(t, string(q.Name()), wire.MaxName) },
		},
		"another opcode": {
			msg:   message(t, func(m *dns.Msg) { m.Opcode = dns.OpcodeNotify }),
			check: func(t *testing.T, q *wire.Query) { require.Equal(t, uint8(dns.OpcodeNotify), q.Opcode) },
		},
		"a response":             {msg: message(t, func(m *dns.Msg) { m.Response = true }), verdict: wire.Ignored},
		"half a header":          {msg: message(t, nil)[:11], verdict: wire.Ignored},
		"nothing":                {verdict: wire.Ignored},
		"only a header":          {msg: message(t, nil)[:12], verdict: wire.Malformed},
		"half a question":        {msg: message(t, nil)[:30], verdict: wire.Malformed},
		"no question":            {msg: message(t, func(m *dns.Msg) { m.Question = nil }), verdict: wire.Malformed},
		"two questions":          {msg: message(t, func(m *dns.Msg) { m.Question = append(m.Question, m.Question[0]) }), verdict: wire.Malformed},
		"a compressed question":  {msg: append(message(t, nil)[:12:12], 0xc0, 0x0c, 0, 1, 0, 1), verdict: wire.Malformed},
		"a label of 64":          {msg: append(append(message(t, nil)[:12:12], 64), bytes.Repeat([]byte("a"), 80)...), verdict: wire.Malformed},
		"a name of 256 octets":   {msg: append(append(message(t, nil)[:12:12], bytes.Repeat([]byte("\x3f"+label63), 4)...), 0, 0, 1, 0, 1), verdict: wire.Malformed},
		"OPT twice":              {msg: message(t, func(m *dns.Msg) { m.SetEdns0(1232, false).SetEdns0(1232, false) }), verdict: wire.Malformed},
		"OPT in the answers":     {msg: message(t, func(m *dns.Msg) { m.SetEdns0(1232, false); m.Answer, m.Extra = m.Extra, nil }), verdict: wire.Malformed},
		"OPT of a name":          {msg: message(t, func(m *dns.Msg) { m.SetEdns0(1232, false).Extra[0].Header().Name = "a." }), verdict: wire.Malformed},
		"half an OPT":            {msg: cut(message(t, func(m *dns.Msg) { m.SetEdns0(1232, false) }), 3), verdict: wire.Malformed},
		"half an option":         {msg: append(cut(message(t, func(m *dns.Msg) { m.SetEdns0(1232, false) }), 2), 0, 3, 0, 10, 0), verdict: wire.Malformed},
		"an option that is long": {msg: append(cut(message(t, func(m *dns.Msg) { m.SetEdns0(1232, false) }), 2), 0, 4, 0, 10, 0, 9), verdict: wire.Malformed},
		"records without end": {msg: func() []byte {
			b := message(t, nil)
			b[6] = 0xff
			return b
		}(), verdict: wire.Malformed},
	} {
		t.Run(name, func(t *testing.T) {
			var q wire.Query
			require.Equal(t, c.verdict, q.Parse(c.msg))
			if c.check != nil {
				c.check(t, &q)
			}
		})
	}
}

func cut(b []byte, n int) []byte { return b[:len(b)-n] }

func TestAQueryIsParsedAgainWithoutTraces(t *testing.T) {
	var q wire.Query
	require.Equal(t, wire.Fine, q.Parse(message(t, func(m *dns.Msg) { m.SetEdns0(1232, true) })))
	require.Equal(t, wire.Fine, q.Parse(message(t, func(m *dns.Msg) { m.Question[0].Name = "b." })))
	require.Equal(t, "b.", q.Name().String())
	require.False(t, q.EDNS || q.DO)
}

func TestFinish(t *testing.T) {
	var q wire.Query
	require.Equal(t, wire.Fine, q.Parse(message(t, func(m *dns.Msg) { m.SetEdns0(1232, true).CheckingDisabled = true })))
	r := wire.Response{
		RCode: dns.RcodeBadVers, AA: true, TC: true, RA: true, AD: true, UDPSize: 1400, Cookie: bytes.Repeat([]byte{7}, 24),
		Info: int(dns.ExtendedErrorCodeProhibited), Text: "no",
	}
	body := q.Begin(nil)
	resp := q.Finish(body, &r)
	require.Len(t, resp, q.BodySize()+q.OPTSize(&r))
	var m dns.Msg
	require.NoError(t, m.Unpack(resp))
	require.Equal(t, uint16(0x1234), m.Id)
	require.True(t, m.Response && m.Authoritative && m.Truncated && m.RecursionAvailable && m.AuthenticatedData && m.CheckingDisabled && m.RecursionDesired)
	require.Equal(t, dns.RcodeBadVers, m.Rcode)
	require.Equal(t, "WWW.Mec.Example.", m.Question[0].Name, "as it was asked")
	opt := m.IsEdns0()
	require.True(t, opt.Do())
	require.Equal(t, uint16(1400), opt.UDPSize())
	require.Equal(t, strings.Repeat("07", 24), opt.Option[0].(*dns.EDNS0_COOKIE).Cookie)
	require.Equal(t, "no", opt.Option[1].(*dns.EDNS0_EDE).ExtraText)
}

func TestPaddingMakesResponsesOfOneSize(t *testing.T) {
	for name, c := range map[string]struct {
		body, block, want int
	}{
		"none":                      {body: 100, want: 111},
		"a small one":               {body: 100, block: 468, want: 468},
		"just a block":              {body: 468 - 11 - 4, block: 468, want: 468},
		"one octet more":            {body: 468 - 11 - 3, block: 468, want: 936},
		"no larger than a message":  {body: 65510, block: 468, want: 65535},
		"no room for any":           {body: 65522, block: 468, want: 65533},
		"room for the option alone": {body: 65520, block: 468, want: 65535},
	} {
		t.Run(name, func(t *testing.T) {
			var q wire.Query
			require.Equal(t, wire.Fine, q.Parse(message(t, func(m *dns.Msg) {
				m.SetEdns0(1232, false).IsEdns0().Option = []dns.EDNS0{&dns.EDNS0_PADDING{Padding: make([]byte, 20)}}
			})))
			require.True(t, q.Padded)
			buf := append(q.Begin(nil), make([]byte, c.body-q.BodySize())...)
			require.Equal(t, c.want, len(q.Finish(buf, &wire.Response{Info: wire.NoInfo, Block: c.block})), "octets") //nolint:testifylint // require.Len would print them all
		})
	}
	var q wire.Query
	require.Equal(t, wire.Fine, q.Parse(message(t, func(m *dns.Msg) { m.SetEdns0(1232, false) })))
	require.False(t, q.Padded)
}

// FuzzParse compares the result of Parse with that of miekg/dns.
func FuzzParse(f *testing.F) {
	f.Add(message(f, nil))
	f.Add(message(f, func(m *dns.Msg) { m.SetEdns0(1400, true) }))
	f.Add(message(f, func(m *dns.Msg) { m.Question[0].Name = `a\.b\000.` }))
	f.Fuzz(func(t *testing.T, msg []byte) {
		var q wire.Query
		if q.Parse(msg) != wire.Fine || q.Opcode != dns.OpcodeQuery || !q.HasQuestion() {
			return
		}
		var m dns.Msg
		if m.Unpack(msg) != nil {
			return // miekg/dns also parses record data, which Parse skips
		}
		require.Len(t, m.Question, 1)
		require.Equal(t, dns.CanonicalName(m.Question[0].Name), q.Name().String())
		require.Equal(t, m.Question[0].Qtype, q.Type)
		require.Equal(t, m.Question[0].Qclass, q.Class)
		opt := m.IsEdns0()
		require.Equal(t, opt != nil, q.EDNS)
		if opt != nil {
			require.Equal(t, opt.UDPSize(), q.UDPSize)
			require.Equal(t, opt.Do(), q.DO)
			require.Equal(t, opt.Version(), q.Version)
		}
		var back dns.Msg
		require.NoError(t, back.Unpack(q.Finish(q.Begin(nil), &wire.Response{Info: wire.NoInfo})))
		require.Equal(t, m.Question, back.Question)
	})
}

func TestNames(t *testing.T) {
	name := func(s string) wire.Name {
		n, err := wire.ParseName(s)
		require.NoError(t, err, s)
		return n
	}
	require.Equal(t, "www.mec.example.", name("WWW.mec.Example").String())
	require.Equal(t, wire.Root, name("."))
	require.Equal(t, `a\..example.`, name(`a\.`+".example").String(), "a dot within a label")
	require.Equal(t, name(`a\..example.`), name(name(`a\..example.`).String()))
	require.Equal(t, name("mec.example."), name("www.mec.example.").Parent())
	require.Equal(t, wire.Root, wire.Root.Parent())
	require.Equal(t, 3, name("www.mec.example").Labels())
	require.True(t, name("www.mec.example").Within(name("mec.example")))
	require.True(t, name("mec.example").Within(name("mec.example")))
	require.True(t, name("mec.example").Within(wire.Root))
	require.False(t, name("notmec.example").Within(name("mec.example")))
	require.False(t, name("example").Within(name("mec.example")))
	require.True(t, name("*.mec.example").IsWildcard())
	require.False(t, name("a.*.example").IsWildcard())
	child, ok := name("example").Child("WWW")
	require.True(t, ok)
	require.Equal(t, name("www.example"), child)
	for _, bad := range []string{"", "a..b", strings.Repeat("a", 64) + ".b", strings.Repeat("a.", 128), `a\`} {
		_, err := wire.ParseName(bad)
		require.Error(t, err, bad)
	}
	_, ok = name(strings.Repeat("a.", 127)).Child("b")
	require.False(t, ok)
	_, ok = name(strings.Repeat("a.", 127)).Wildcard()
	require.False(t, ok)
}

func BenchmarkParse(b *testing.B) {
	msg := message(b, func(m *dns.Msg) { m.SetEdns0(1232, false) })
	var q wire.Query
	buf := make([]byte, 0, 512)
	b.ReportAllocs()
	for b.Loop() {
		q.Parse(msg)
		buf = q.Finish(q.Begin(buf[:0]), &wire.Response{Info: wire.NoInfo, UDPSize: 1232})
	}
}
