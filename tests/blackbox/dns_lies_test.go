package blackbox

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	rr "github.com/miekg/dns"
	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/tests/harness"
)

// forged is where every lie leads.
const forged = "6.6.6.6"

// liars makes a platform that asks an upstream of its own for each of some zones, which are called z0.example, z1.example and so on
// in the order of the names of the behaviours.
func liars(t *testing.T, behaviours map[string]func(x *harness.Exchange)) (d *harness.Resolver, zones map[string]string, upstreams map[string]*harness.Upstream) {
	t.Helper()
	zones, upstreams = map[string]string{}, map[string]*harness.Upstream{}
	config := "dns:\n  zones: [mec.example]\n  forwardTimeout: 8s\n  forwardZones:\n"
	for i, name := range slices.Sorted(maps.Keys(behaviours)) {
		up := harness.NewUpstream(t)
		up.Behave(behaviours[name])
		zones[name], upstreams[name] = fmt.Sprintf("z%d.example", i), up
		config += fmt.Sprintf("  - {zone: %s, forward: [%q]}\n", zones[name], up.Addr())
	}
	return harness.Start(t, harness.Config(config)).DNS(t), zones, upstreams
}

func packed(m *rr.Msg) []byte {
	raw, err := m.Pack()
	if err != nil {
		panic(err)
	}
	return raw
}

// Whatever comes before the answer of the upstream is not believed, and the answer is heard all the same.
func TestForgedAnswersAreNotBelieved(t *testing.T) {
	t.Parallel()
	lie := func(x *harness.Exchange) *rr.Msg { return x.Answer("@ 300 A " + forged) }
	changed := func(change func(m *rr.Msg)) func(x *harness.Exchange) {
		return func(x *harness.Exchange) {
			m := lie(x)
			change(m)
			x.Send(m)
		}
	}
	raw := func(change func(raw []byte) []byte) func(x *harness.Exchange) {
		return func(x *harness.Exchange) { x.Raw(change(packed(lie(x)))) }
	}
	forgeries := map[string]func(x *harness.Exchange){
		"another id":      changed(func(m *rr.Msg) { m.Id++ }),
		"another port":    func(x *harness.Exchange) { x.RawFrom(packed(lie(x))) },
		"another name":    changed(func(m *rr.Msg) { m.Question[0].Name = "other.example." }),
		"a longer name":   changed(func(m *rr.Msg) { m.Question[0].Name += "org." }),
		"another type":    changed(func(m *rr.Msg) { m.Question[0].Qtype = rr.TypeAAAA }),
		"another class":   changed(func(m *rr.Msg) { m.Question[0].Qclass = rr.ClassCHAOS }),
		"another case":    changed(func(m *rr.Msg) { m.Question[0].Name = strings.ToLower(m.Question[0].Name) }),
		"no question":     changed(func(m *rr.Msg) { m.Question = nil }),
		"two questions":   changed(func(m *rr.Msg) { m.Question = append(m.Question, m.Question[0]) }),
		"a question":      changed(func(m *rr.Msg) { m.Response = false }),
		"another opcode":  changed(func(m *rr.Msg) { m.Opcode = rr.OpcodeNotify }),
		"garbage":         raw(func([]byte) []byte { return []byte(strings.Repeat("\x00\xff", 100)) }),
		"nothing":         raw(func([]byte) []byte { return nil }),
		"half a header":   raw(func(raw []byte) []byte { return raw[:7] }),
		"a half":          raw(func(raw []byte) []byte { return raw[:len(raw)-2] }),
		"too few records": raw(func(raw []byte) []byte { raw[7] = 9; return raw }),
		"a name in a circle": raw(func(raw []byte) []byte {
			at := len(raw) - 16
			raw[at], raw[at+1] = 0xc0, byte(at)
			return raw
		}),
		"more than was asked for": changed(func(m *rr.Msg) {
			for range 400 {
				m.Answer = append(m.Answer, m.Answer[0])
			}
		}),
		"a flood": func(x *harness.Exchange) {
			for i := range 300 {
				m := lie(x)
				m.Id = x.ID + 1 + uint16(i)
				x.Send(m)
			}
		},
	}
	behaviours := map[string]func(x *harness.Exchange){}
	for name, forge := range forgeries {
		behaviours[name] = func(x *harness.Exchange) {
			if x.Network == "udp" {
				forge(x)
				x.Sleep(2 * time.Millisecond)
			}
			x.Send(x.Answer("@ 300 A 192.0.2.53"))
		}
	}
	d, zones, _ := liars(t, behaviours)
	for name, zone := range zones {
		t.Run(name, func(t *testing.T) {
			d := d.For(t)
			for i := range 3 {
				// With capitals of its own a name is never the same in lower case.
				d.Ask(fmt.Sprintf("a-name-of-many-letters-%d.%s", i, zone), "A").Holds("NOERROR", "A 192.0.2.53").Forwarded()
			}
		})
	}
}

// What an upstream says besides the answer is not kept for those who ask for it.
func TestWhatNobodyAskedForIsNotKept(t *testing.T) {
	t.Parallel()
	// Each gets the zone, and adds lies about victim.{zone} and www.mec.example to the answer for liar.{zone}.
	lies := map[string]func(x *harness.Exchange, m *rr.Msg, zone string){
		"additional": func(x *harness.Exchange, m *rr.Msg, zone string) {
			m.Extra = append(m.Extra, x.Records("victim."+zone+" 300 A "+forged, "www.mec.example. 300 A "+forged)...)
		},
		"authority": func(x *harness.Exchange, m *rr.Msg, zone string) {
			m.Ns = x.Records(zone+" 300 NS victim."+zone, "victim."+zone+" 300 A "+forged, "mec.example. 300 NS ns.evil.example.")
			m.Extra = append(m.Extra, x.Records("victim."+zone+" 300 A "+forged)...)
		},
		"answer": func(x *harness.Exchange, m *rr.Msg, zone string) {
			m.Answer = append(m.Answer, x.Records("victim."+zone+" 300 A "+forged, "www.mec.example. 300 A "+forged)...)
		},
		"answer before": func(x *harness.Exchange, m *rr.Msg, zone string) {
			m.Answer = append(x.Records("victim."+zone+" 300 A "+forged), m.Answer...)
		},
		"DNAME above": func(x *harness.Exchange, m *rr.Msg, _ string) {
			m.Answer = append(x.Records("example. 300 DNAME evil.example."), m.Answer...)
		},
		"SOA": func(x *harness.Exchange, m *rr.Msg, zone string) {
			m.Ns = x.Records("victim."+zone+" 300 SOA a. b. 1 2 3 4 300", "mec.example. 300 SOA a. b. 1 2 3 4 300")
		},
	}
	behaviours := map[string]func(x *harness.Exchange){}
	for name, add := range lies {
		behaviours[name] = func(x *harness.Exchange) {
			m := x.Answer("@ 300 A 192.0.2.53")
			if rest, lying := strings.CutPrefix(x.Name, "liar."); lying {
				add(x, m, rest)
			}
			x.Send(m)
		}
	}
	behaviours["alias"] = func(x *harness.Exchange) {
		if rest, lying := strings.CutPrefix(x.Name, "liar."); lying {
			x.Send(x.Answer("@ 300 CNAME victim."+rest, "victim."+rest+" 300 A "+forged))
		} else {
			x.Send(x.Answer("@ 300 A 192.0.2.53"))
		}
	}
	behaviours["alias of ours"] = func(x *harness.Exchange) {
		if strings.HasPrefix(x.Name, "liar.") {
			x.Send(x.Answer("@ 300 CNAME www.mec.example.", "www.mec.example. 300 A "+forged))
		} else {
			x.Send(x.Answer("@ 300 A 192.0.2.53"))
		}
	}
	d, zones, upstreams := liars(t, behaviours)
	for name, zone := range zones {
		t.Run(name, func(t *testing.T) {
			d := d.For(t)
			reply := d.Ask("liar."+zone, "A")
			if !strings.HasPrefix(name, "alias") {
				reply.Holds("NOERROR", "A 192.0.2.53")
				require.Empty(t, reply.Ns)
			}
			d.Ask("victim."+zone, "A").Holds("NOERROR", "A 192.0.2.53").Forwarded()
			require.Len(t, upstreams[name].Asked("victim."+zone+"."), 1)
			d.Ask("www.mec.example", "A").Is("NXDOMAIN").Local()
		})
	}
}

func TestAwkwardUpstreams(t *testing.T) {
	t.Parallel()
	many := func(x *harness.Exchange, n int) *rr.Msg {
		m := x.Answer()
		for i := range n {
			m.Answer = append(m.Answer, x.Records(fmt.Sprintf("@ 300 A 10.0.%d.%d", i/250, i%250))...)
		}
		return m
	}
	overTCP := func(x *harness.Exchange, m *rr.Msg) {
		if x.Network == "udp" {
			m = x.Answer()
			m.Truncated = true
		}
		x.Send(m)
	}
	d, zones, upstreams := liars(t, map[string]func(x *harness.Exchange){
		"truncation":           func(x *harness.Exchange) { overTCP(x, many(x, 60)) },
		"the largest there is": func(x *harness.Exchange) { overTCP(x, many(x, 4000)) },
		"no EDNS": func(x *harness.Exchange) {
			if x.Message.IsEdns0() != nil {
				x.Send(&rr.Msg{MsgHdr: rr.MsgHdr{Id: x.ID, Response: true, Rcode: rr.RcodeFormatError}})
				return
			}
			x.Reply("192.0.2.53")
		},
		"no capitals": func(x *harness.Exchange) {
			m := x.Answer("@ 300 A 192.0.2.53")
			m.Question[0].Name = x.Name
			m.Answer[0].Header().Name = x.Name
			x.Send(m)
		},
		"a circle":           func(x *harness.Exchange) { x.Send(x.Answer("@ 300 CNAME b."+x.Name, "b."+x.Name+" 300 CNAME "+x.Name)) },
		"an alias of itself": func(x *harness.Exchange) { x.Send(x.Answer("@ 300 CNAME " + x.Name)) },
		"a TTL that is no TTL": func(x *harness.Exchange) {
			m := x.Answer("@ 1 A 192.0.2.53")
			m.Answer[0].Header().Ttl = 1 << 31
			x.Send(m)
		},
		"equal records":    func(x *harness.Exchange) { x.Send(x.Answer("@ 300 A 192.0.2.53", "@ 300 A 192.0.2.53")) },
		"TTLs that differ": func(x *harness.Exchange) { x.Send(x.Answer("@ 300 A 192.0.2.53", "@ 200 A 192.0.2.54")) },
		"signatures": func(x *harness.Exchange) {
			m := x.Answer("@ 300 A 192.0.2.53")
			m.AuthenticatedData = !x.Message.CheckingDisabled
			if x.Message.IsEdns0().Do() {
				m.Answer = append(m.Answer, x.Records("@ 300 RRSIG A 13 3 300 20300101000000 20200101000000 1 example. AAAA")...)
			}
			x.Send(m)
		},
		"a SOA of others": func(x *harness.Exchange) {
			m := x.Answer()
			m.Rcode, m.Ns = rr.RcodeNameError, x.Records("mec.example. 3600 SOA a. b. 1 2 3 4 3600")
			x.Send(m)
		},
		"long silence": func(x *harness.Exchange) { x.Sleep(500 * time.Millisecond); x.Reply("192.0.2.53") },
	})
	ask := func(t *testing.T, name, rrtype string, options ...func(*rr.Msg)) *harness.Reply {
		t.Helper()
		return d.For(t).Ask("www."+zones[name], rrtype, options...)
	}
	t.Run("truncation", func(t *testing.T) {
		require.Len(t, ask(t, "truncation", "A").Answer, 60)
		require.True(t, ask(t, "truncation", "A", harness.WithoutEDNS).Truncated)
		require.Len(t, upstreams["truncation"].Asked(), 2)
	})
	t.Run("the largest there is", func(t *testing.T) {
		require.True(t, ask(t, "the largest there is", "A").Truncated)
		require.Len(t, d.For(t).TCP().Ask("www."+zones["the largest there is"], "A").Answer, 4000)
	})
	for name, most := range map[string]uint32{"no EDNS": 300, "no capitals": 300, "long silence": 300, "a TTL that is no TTL": 86400} {
		t.Run(name, func(t *testing.T) {
			for range 2 {
				require.LessOrEqual(t, ask(t, name, "A").Holds("NOERROR", "A 192.0.2.53").Answer[0].Header().Ttl, most)
			}
		})
	}
	t.Run("circles", func(t *testing.T) {
		for _, name := range []string{"a circle", "an alias of itself"} {
			reply := ask(t, name, "A")
			require.Contains(t, []string{"NOERROR", "SERVFAIL"}, reply.RCode())
			require.LessOrEqual(t, len(reply.Answer), 2)
		}
	})
	t.Run("a SOA of others", func(t *testing.T) { // says nothing of how long there is no such name
		for i := range 3 {
			require.Empty(t, ask(t, "a SOA of others", "A").Holds("NXDOMAIN").Ns)
			require.Len(t, upstreams["a SOA of others"].Asked(), i+1)
		}
	})
	t.Run("RRsets that are none", func(t *testing.T) { // that they are RRsets to our clients the harness checks
		ask(t, "equal records", "A")
		ask(t, "TTLs that differ", "A")
	})
	t.Run("signatures", func(t *testing.T) {
		do := func(m *rr.Msg) { m.IsEdns0().SetDo() }
		plain := ask(t, "signatures", "A").Holds("NOERROR", "A 192.0.2.53")
		require.False(t, plain.AuthenticatedData, "nobody asked")
		require.True(t, ask(t, "signatures", "A", func(m *rr.Msg) { m.AuthenticatedData = true }).AuthenticatedData)
		signed := ask(t, "signatures", "A", do)
		require.Len(t, signed.Answer, 2)
		require.True(t, signed.AuthenticatedData)
		unchecked := ask(t, "signatures", "A", do, func(m *rr.Msg) { m.CheckingDisabled = true })
		require.True(t, unchecked.CheckingDisabled)
		require.False(t, unchecked.AuthenticatedData)
		require.Len(t, upstreams["signatures"].Asked(), 3)
	})
}
