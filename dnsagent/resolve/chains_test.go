package resolve_test

import (
	"fmt"
	"maps"
	"net/netip"
	"strings"
	"testing"

	"github.com/miekg/dns"
	"github.com/stretchr/testify/require"

	api "github.com/openmep/mep/api/dns"
	"github.com/openmep/mep/dnsagent/listen"
	"github.com/openmep/mep/dnsagent/protect"
	"github.com/openmep/mep/dnsagent/resolve"
	"github.com/openmep/mep/dnsagent/table"
	"github.com/openmep/mep/dnsagent/wire"
)

// chains are a forwarder's answers for names that lead to others.
var chains = map[string][]string{
	"www.cdn.test. A": {
		"www.cdn.test. 300 IN CNAME a.edge.test.", "a.edge.test. 200 IN CNAME b.edge.test.", "b.edge.test. 100 IN A 198.51.100.1",
	},
	"www.cdn.test. AAAA":  {"www.cdn.test. 300 IN CNAME a.edge.test.", "a.edge.test. 200 IN CNAME b.edge.test."},
	"www.cdn.test. CNAME": {"www.cdn.test. 300 IN CNAME a.edge.test."},
	"own.cdn.test. A":     {"own.cdn.test. 300 IN CNAME nobody.mec.cdn.test."},
	"round.cdn.test. A":   {"round.cdn.test. 300 IN CNAME back.edge.test.", "back.edge.test. 300 IN A 198.51.100.2"},
	"signed.cdn.test. A": {
		"signed.cdn.test. 300 IN CNAME b.edge.test.",
		"signed.cdn.test. 300 IN RRSIG CNAME 13 3 300 20300101000000 20200101000000 1 cdn.test. AAAA",
		"b.edge.test. 100 IN A 198.51.100.1", "b.edge.test. 100 IN RRSIG A 13 3 100 20300101000000 20200101000000 1 edge.test. AAAA",
	},
}

// chained returns a fixture whose forwarder has chains, and a function that puts local records into use.
func chained(tb testing.TB) (f *fixture, put func(records ...string)) {
	tb.Helper()
	f = newFixture(tb, nil)
	f.up.mu.Lock()
	maps.Copy(f.up.zone, chains)
	f.up.mu.Unlock()
	views, err := protect.NewMap([]protect.Entry[table.View]{{Prefix: netip.MustParsePrefix("10.1.0.0/16"), Value: 1}})
	require.NoError(tb, err)
	return f, func(records ...string) {
		w := table.NewWriter(table.Config{
			Zones:       []table.ZoneConfig{{Name: name("mec.cdn.test."), Nameservers: []wire.Name{name("ns.mec.cdn.test.")}}},
			NegativeTTL: 10, NameserverTTL: 30,
		})
		var list []table.Record
		for _, text := range records {
			text, viewed := strings.CutPrefix(text, "view ")
			r := record(text)
			if viewed {
				r.View = 1
			}
			list = append(list, r)
		}
		w.Put("rules of app", list)
		f.r.SetRecords(&resolve.Records{Table: w.Publish(7), Clients: views, Views: []string{"pool"}})
	}
}

func TestChainsOfForwardersLeadIntoOurNames(t *testing.T) {
	const zoneSOA = "mec.cdn.test.\t10\tIN\tSOA\tns.mec.cdn.test. hostmaster.mec.cdn.test. 7 3600 600 86400 10"
	www := "www.cdn.test.\t300\tIN\tCNAME\ta.edge.test."
	a := "a.edge.test.\t200\tIN\tCNAME\tb.edge.test."
	for what, c := range map[string]struct {
		ours      []string
		q         *dns.Msg
		from      string
		rcode     int
		aa        bool
		answer    []string
		authority []string
	}{
		"no name of ours": {
			ours: []string{"c.edge.test. 60 IN A 192.0.2.1"}, q: query("www.cdn.test.", dns.TypeA),
			answer: []string{www, a, "b.edge.test.\t100\tIN\tA\t198.51.100.1"},
		},
		"the last name": {
			ours: []string{"b.edge.test. 60 IN A 192.0.2.1", "b.edge.test. 60 IN A 192.0.2.2"}, q: query("www.cdn.test.", dns.TypeA),
			answer: []string{www, a, "b.edge.test.\t60\tIN\tA\t192.0.2.1", "b.edge.test.\t60\tIN\tA\t192.0.2.2"},
		},
		"the case of the question": {
			ours: []string{"b.edge.test. 60 IN A 192.0.2.1"}, q: query("WWW.cdn.test.", dns.TypeA),
			answer: []string{strings.Replace(www, "www", "WWW", 1), a, "b.edge.test.\t60\tIN\tA\t192.0.2.1"},
		},
		"a name in between": {
			ours: []string{"a.edge.test. 60 IN A 192.0.2.1"}, q: query("www.cdn.test.", dns.TypeA),
			answer: []string{www, "a.edge.test.\t60\tIN\tA\t192.0.2.1"},
		},
		"the first name": {
			ours: []string{"www.cdn.test. 60 IN A 192.0.2.1"}, q: query("www.cdn.test.", dns.TypeA), aa: true,
			answer: []string{"www.cdn.test.\t60\tIN\tA\t192.0.2.1"},
		},
		"a wildcard": {
			ours: []string{"*.edge.test. 60 IN A 192.0.2.1"}, q: query("www.cdn.test.", dns.TypeA), answer: []string{www, "a.edge.test.\t60\tIN\tA\t192.0.2.1"},
		},
		"a name without the type": {
			ours: []string{"b.edge.test. 60 IN A 192.0.2.1"}, q: query("www.cdn.test.", dns.TypeAAAA), answer: []string{www, a},
			authority: []string{strings.Replace(zoneSOA, "mec.cdn.test.", "b.edge.test.", 1)},
		},
		"a zone of ours": {
			q: query("own.cdn.test.", dns.TypeA), rcode: dns.RcodeNameError, answer: []string{"own.cdn.test.\t300\tIN\tCNAME\tnobody.mec.cdn.test."},
			authority: []string{zoneSOA},
		},
		"a wildcard of a zone of ours": {
			ours: []string{"*.mec.cdn.test. 60 IN A 192.0.2.1"}, q: query("own.cdn.test.", dns.TypeA),
			answer: []string{"own.cdn.test.\t300\tIN\tCNAME\tnobody.mec.cdn.test.", "nobody.mec.cdn.test.\t60\tIN\tA\t192.0.2.1"},
		},
		"the alias itself": {
			ours: []string{"a.edge.test. 60 IN A 192.0.2.1"}, q: query("www.cdn.test.", dns.TypeCNAME), answer: []string{www},
		},
		"a view": {
			ours: []string{"view b.edge.test. 60 IN A 192.0.2.1"}, q: query("www.cdn.test.", dns.TypeA), from: "10.1.0.1",
			answer: []string{www, a, "b.edge.test.\t60\tIN\tA\t192.0.2.1"},
		},
		"another view": {
			ours: []string{"view b.edge.test. 60 IN A 192.0.2.1"}, q: query("www.cdn.test.", dns.TypeA),
			answer: []string{www, a, "b.edge.test.\t100\tIN\tA\t198.51.100.1"},
		},
		"out and in": {
			ours: []string{"start.test. 60 IN CNAME www.cdn.test.", "b.edge.test. 60 IN A 192.0.2.1"}, q: query("start.test.", dns.TypeA), aa: true,
			answer: []string{"start.test.\t60\tIN\tCNAME\twww.cdn.test.", www, a, "b.edge.test.\t60\tIN\tA\t192.0.2.1"},
		},
		"in and out": {
			ours: []string{"a.edge.test. 60 IN CNAME www.example.org."}, q: query("www.cdn.test.", dns.TypeA),
			answer: []string{www, "a.edge.test.\t60\tIN\tCNAME\twww.example.org.", "www.example.org.\t300\tIN\tA\t198.51.100.7"},
		},
		"in a circle": {
			ours: []string{"back.edge.test. 60 IN CNAME round.cdn.test."}, q: query("round.cdn.test.", dns.TypeA),
			answer: []string{"round.cdn.test.\t300\tIN\tCNAME\tback.edge.test.", "back.edge.test.\t60\tIN\tCNAME\tround.cdn.test."},
		},
		"signatures": {
			ours: []string{"b.edge.test. 60 IN A 192.0.2.1"}, q: query("signed.cdn.test.", dns.TypeA).SetEdns0(1232, true),
			answer: []string{
				"signed.cdn.test.\t300\tIN\tCNAME\tb.edge.test.",
				"signed.cdn.test.\t300\tIN\tRRSIG\tCNAME 13 3 300 20300101000000 20200101000000 1 cdn.test. AAAA", "b.edge.test.\t60\tIN\tA\t192.0.2.1",
			},
		},
	} {
		t.Run(what, func(t *testing.T) {
			f, put := chained(t)
			put(c.ours...)
			if c.from == "" {
				c.from = "10.0.0.1"
			}
			for _, try := range []string{"asked", "kept", "known"} {
				var m *dns.Msg
				if try == "known" {
					m = new(dns.Msg)
					peer := &listen.Peer{AddrPort: netip.AddrPortFrom(netip.MustParseAddr(c.from), 5), Transport: listen.TCP}
					if c.aa {
						continue // chains that begin in the table are not answered any faster
					}
					require.NoError(t, m.Unpack(f.r.Overloaded(nil, must(c.q.Pack()), peer)))
				} else {
					m = f.ask(c.from, listen.TCP, c.q)
				}
				require.Equal(t, dns.RcodeToString[c.rcode], dns.RcodeToString[m.Rcode], try)
				require.Equal(t, c.aa, m.Authoritative, try)
				require.Equal(t, c.answer, texts(m.Answer), try)
				require.Equal(t, c.authority, texts(m.Ns), try)
			}
		})
	}
}

func TestAKeptAnswerFollowsTheTable(t *testing.T) {
	f, put := chained(t)
	last := func() string {
		m := f.ask("10.0.0.1", listen.UDP, query("www.cdn.test.", dns.TypeA))
		return m.Answer[len(m.Answer)-1].(*dns.A).A.String()
	}
	put()
	require.Equal(t, "198.51.100.1", last())
	asked := f.up.asked.Load()
	for i := range 5 {
		put(fmt.Sprintf("b.edge.test. 60 IN A 192.0.2.%d", i))
		require.Equal(t, fmt.Sprintf("192.0.2.%d", i), last())
		put("other.test. 60 IN A 192.0.2.99")
		for range 3 {
			require.Equal(t, "198.51.100.1", last())
		}
	}
	require.Equal(t, asked, f.up.asked.Load(), "the forwarder is not asked again")
}

func TestChainsAreBounded(t *testing.T) {
	f, put := chained(t)
	var ours []string
	f.up.mu.Lock()
	for i := range 20 { // each leads to the next of the other side
		f.up.zone[fmt.Sprintf("theirs%d.test. A", i)] = []string{fmt.Sprintf("theirs%d.test. 60 IN CNAME ours%d.test.", i, i)}
		ours = append(ours, fmt.Sprintf("ours%d.test. 60 IN CNAME theirs%d.test.", i, i+1))
	}
	f.up.mu.Unlock()
	put(ours...)
	m := f.ask("10.0.0.1", listen.TCP, query("theirs0.test.", dns.TypeA))
	require.Equal(t, dns.RcodeSuccess, m.Rcode)
	require.Len(t, m.Answer, 8)
}

func TestTraceOfAChainThatLeadsToOurNames(t *testing.T) {
	f, put := chained(t)
	put("b.edge.test. 60 IN A 192.0.2.1")
	tr, err := f.r.Trace(t.Context(), api.TraceRequest{Name: "www.cdn.test", Type: "A", Client: "10.0.0.1"})
	require.NoError(t, err)
	require.Equal(t, []string{
		"www.cdn.test. is not the platform's", "a forwarder says that it is an alias of a.edge.test.",
		"a.edge.test. is not the platform's", "a forwarder says that it is an alias of b.edge.test.",
		"b.edge.test. is outside the platform's zones, rules or records override it", "b.edge.test. has 1 of the type A",
		"forwarded, answered from the upstream",
	}, tr.Steps)
	require.Equal(t, "upstream", tr.Records[0].Origin)
	require.Equal(t, "rules of app id", tr.Records[2].Origin)
	require.False(t, tr.Authoritative)
}

// FuzzChains checks that no chain in a forwarder's answer leads to an unreadable answer.
func FuzzChains(f *testing.F) {
	fix, put := chained(f)
	put("b.edge.test. 60 IN A 192.0.2.1", "x.mec.cdn.test. 60 IN CNAME other.test.")
	f.Add("www.cdn.test", "b.edge.test", "c.test", uint8(1))
	f.Add("a.test", ".", "b.test", uint8(1))
	f.Add("a.b.c.mec.cdn.test.x", "nobody.mec.cdn.test", "x.mec.cdn.test", uint8(2))
	f.Fuzz(func(t *testing.T, first, second, third string, n uint8) {
		fix.tb = t
		asked, err := wire.ParseName(first)
		if err != nil {
			return
		}
		var list []string
		owner := asked.String()
		for i, s := range []string{second, third}[:n%3] {
			target, err := wire.ParseName(s)
			if err != nil || strings.Contains(target.String(), `\`) || strings.Contains(owner, `\`) {
				return
			}
			list = append(list, fmt.Sprintf("%s %d IN CNAME %s", owner, 100+i, target))
			owner = target.String()
		}
		for _, text := range list {
			if _, err := dns.NewRR(text); err != nil {
				return
			}
		}
		fix.up.mu.Lock()
		fix.up.zone[asked.String()+" A"] = list
		fix.up.mu.Unlock()
		fix.forward.Flush(wire.Root, true)
		q := query(asked.String(), dns.TypeA)
		for range 2 { // asked, kept
			m := fix.ask("10.0.0.1", listen.TCP, q)
			require.True(t, m.Response)
			require.Equal(t, q.Question[0].Name, m.Question[0].Name)
		}
	})
}

func TestTraceSaysWhatIsNotAnswered(t *testing.T) {
	f, put := chained(t)
	put("a.mec.cdn.test. 60 IN CNAME b.test.", "a.mec.cdn.test. 60 IN A 192.0.2.1")
	tr, err := f.r.Trace(t.Context(), api.TraceRequest{Name: "a.mec.cdn.test", Type: "A", Client: "10.0.0.1"})
	require.NoError(t, err)
	require.Equal(t, []string{
		"a.mec.cdn.test. is in the platform's zone mec.cdn.test.",
		"the CNAME of rules of app is not answered: a name with a CNAME has nothing else, and there is the A of rules of app",
		"a.mec.cdn.test. has 1 of the type A",
	}, tr.Steps)
}
