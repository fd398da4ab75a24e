package table_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"
	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/dnsagent/table"
)

// texts returns n TXT records of a name, each of which takes size octets in a message.
func texts(owner string, n, size int) []table.Record {
	list := make([]table.Record, 0, n)
	for i := range n {
		r := record(owner, "TXT", `"x"`)
		r.Data = fmt.Sprintf("%03d", i) + strings.Repeat("x", size-12-3)
		r.ID = fmt.Sprint(i)
		list = append(list, r)
	}
	return list
}

func TestWhatIsNotAnsweredIsKnown(t *testing.T) {
	alias := record("a.out.", "CNAME", "target.")
	address := record("a.out.", "A", "192.0.2.1")
	const beside = "a name with a CNAME has nothing else, and there is the A of rules"
	const large = "the records of the type TXT of this name take more than 64000 octets of an answer"
	for what, c := range map[string]struct {
		origins map[string][]table.Record
		lost    map[string]string // by origin
	}{
		"nothing in the way":        {map[string][]table.Record{"rules": {address}, "record": {record("a.out.", "TXT", `"x"`)}}, nil},
		"an alias alone":            {map[string][]table.Record{"record": {alias}}, nil},
		"an alias and a rule":       {map[string][]table.Record{"record": {alias}, "rules": {address}}, map[string]string{"record": beside}},
		"a rule of a view":          {map[string][]table.Record{"record": {alias}, "rules": {in(1, address)}}, nil},
		"an alias of a view":        {map[string][]table.Record{"record": {in(1, alias)}, "rules": {address}}, map[string]string{"record": beside}},
		"of different views":        {map[string][]table.Record{"record": {in(1, alias)}, "rules": {in(2, address)}}, nil},
		"an alias in place of one":  {map[string][]table.Record{"record": {in(1, alias)}, "all": {record("a.out.", "CNAME", "other.")}}, nil},
		"a service gives way":       {map[string][]table.Record{"record": {alias}, "service": {weak(address)}}, nil},
		"an alias of a zone's name": {map[string][]table.Record{"record": {record("zone.", "CNAME", "target.")}}, map[string]string{"record": "a name with a CNAME has nothing else, and there is the NS of the zone"}},
		"as large as may be":        {map[string][]table.Record{"record": texts("a.out.", 64, 1000)}, nil},
		"too large":                 {map[string][]table.Record{"record": texts("a.out.", 65, 1000)}, map[string]string{"record": large}},
		"too large in one view": {
			map[string][]table.Record{"record": texts("a.out.", 40, 1000), "pool": {in(1, texts("a.out.", 1, 30_000)[0])}},
			map[string]string{"record": large},
		},
		"equal ones count once": {map[string][]table.Record{"record": texts("a.out.", 40, 1000), "other": texts("a.out.", 40, 1000)}, nil},
	} {
		t.Run(what, func(t *testing.T) {
			w := table.NewWriter(zones("zone."))
			for origin, list := range c.origins {
				w.Put(origin, list)
			}
			tab := w.Publish(1)
			got := make(map[string]string)
			for origin, list := range c.origins {
				if why := tab.Unanswered(origin, list[0].Name); why != "" {
					got[origin] = why
				}
			}
			if c.lost == nil {
				c.lost = map[string]string{}
			}
			require.Equal(t, c.lost, got)
			require.Equal(t, len(c.lost) > 0, w.Lost() > 0)
			for _, shown := range tab.At(name("a.out.")) {
				if shown.Type == dns.TypeCNAME {
					require.Equal(t, c.lost[shown.Origin], shown.Unanswered)
				}
			}
			changed := w.Changed()
			require.Len(t, changed, len(c.lost))
			for origin := range c.lost {
				require.Contains(t, changed, origin)
			}
			require.Empty(t, w.Changed(), "it is told once")
		})
	}
}

func weak(r table.Record) table.Record { r.Weak = true; return r }

func TestWhatIsNotAnsweredIsAnsweredAgain(t *testing.T) {
	w := table.NewWriter(zones("zone."))
	w.Put("record", []table.Record{record("a.out.", "CNAME", "target.")})
	w.Put("rules", []table.Record{record("a.out.", "A", "192.0.2.1"), record("b.out.", "A", "192.0.2.1")})
	tab := w.Publish(1)
	require.Equal(t, dns.TypeA, tab.Lookup(name("a.out."), dns.TypeA, 0).Set.Type, "the rule wins")
	require.Equal(t, []string{"record"}, w.Changed())
	require.Equal(t, []string{"a.out. CNAME"}, keys(w.LostOf("record")))
	require.Nil(t, w.LostOf("rules"))

	w.Put("rules", []table.Record{record("b.out.", "A", "192.0.2.1")})
	tab = w.Publish(2)
	require.Equal(t, dns.TypeCNAME, tab.Lookup(name("a.out."), dns.TypeA, 0).Set.Type)
	require.Equal(t, []string{"record"}, w.Changed())
	require.Nil(t, w.LostOf("record"))
	require.Zero(t, w.Lost())
}

func keys(m map[string]string) []string {
	var list []string
	for k := range m {
		list = append(list, k)
	}
	return list
}

// Servers that learnt of records in different orders give the same answers.
func TestWhichRecordsFitDoesNotDependOnTheirOrder(t *testing.T) {
	answer := func(list []table.Record) []byte {
		w := table.NewWriter(zones("zone."))
		w.Put("record", list)
		return w.Publish(1).Lookup(name("a.out."), dns.TypeTXT, 0).Set.Wire
	}
	list := texts("a.out.", 100, 1000)
	first := answer(list)
	require.Len(t, first, 64_000)
	slices.Reverse(list)
	require.Equal(t, first, answer(list))
}

func TestTheAliasOfAViewComesFirst(t *testing.T) {
	everyone, viewed := record("a.out.", "CNAME", "a-first.out."), in(1, record("a.out.", "CNAME", "b-second.out."))
	for _, list := range [][]table.Record{{everyone, viewed}, {viewed, everyone}} {
		w := table.NewWriter(zones("zone."))
		w.Put("record", list)
		tab := w.Publish(1)
		require.Equal(t, name("b-second.out."), tab.Lookup(name("a.out."), dns.TypeA, 1).Set.Target())
		require.Equal(t, name("a-first.out."), tab.Lookup(name("a.out."), dns.TypeA, 0).Set.Target())
	}
}

func TestWhatWouldNotBeAnsweredIsFound(t *testing.T) {
	const alias = "a name with a CNAME has nothing else, and there is the "
	const large = "the records of the type TXT of this name take more than 64000 octets of an answer"
	w := table.NewWriter(zones("zone."))
	w.Put("rules of app", []table.Record{record("a.out.", "A", "192.0.2.1"), in(2, record("v.out.", "A", "192.0.2.1"))})
	w.Put("record b.out./CNAME", []table.Record{record("b.out.", "CNAME", "target.")})
	w.Put("record t.out./TXT", texts("t.out.", 40, 1000))
	w.Put("record lost.out./CNAME", []table.Record{record("lost.out.", "CNAME", "target.")})
	w.Put("rules of other", []table.Record{record("lost.out.", "A", "192.0.2.1")})
	tab := w.Publish(1)
	for what, c := range map[string]struct {
		next map[string][]table.Record
		want []string
	}{
		"an address beside a rule":    {map[string][]table.Record{"record a.out./A": {record("a.out.", "A", "192.0.2.2")}}, nil},
		"an alias beside a rule":      {map[string][]table.Record{"record a.out./CNAME": {record("a.out.", "CNAME", "x.")}}, []string{"a.out. CNAME would not be answered: " + alias + "A of rules of app"}},
		"an alias in another view":    {map[string][]table.Record{"record v.out./CNAME/x": {in(1, record("v.out.", "CNAME", "x."))}}, nil},
		"an address beside an alias":  {map[string][]table.Record{"record b.out./A": {record("b.out.", "A", "192.0.2.2")}}, []string{"b.out. CNAME of record b.out./CNAME would not be answered: " + alias + "A of record b.out./A"}},
		"the same alias, replaced":    {map[string][]table.Record{"record b.out./CNAME": {record("b.out.", "CNAME", "y.")}}, nil},
		"the name of a zone":          {map[string][]table.Record{"record zone./CNAME": {record("zone.", "CNAME", "y.")}}, []string{"zone. CNAME would not be answered: " + alias + "NS of the zone"}},
		"texts that fit":              {map[string][]table.Record{"record t.out./TXT/v": viewed(1, texts("t.out.", 1, 24_000))}, nil},
		"texts that do not":           {map[string][]table.Record{"record t.out./TXT/v": viewed(1, texts("t.out.", 2, 13_000))}, []string{"t.out. TXT of record t.out./TXT would not be answered: " + large}},
		"more texts in place of some": {map[string][]table.Record{"record t.out./TXT": texts("t.out.", 64, 1000)}, nil},
		"too many at once": {
			map[string][]table.Record{"record n.out./TXT": texts("n.out.", 33, 1000), "record n.out./TXT/v": viewed(1, texts("n.out.", 33, 1001))},
			[]string{"n.out. TXT would not be answered: " + large},
		},
		"beside what is lost already": {map[string][]table.Record{"record lost.out./TXT": texts("lost.out.", 1, 100)}, nil},
	} {
		t.Run(what, func(t *testing.T) { require.Equal(t, c.want, tab.Displaced(c.next)) })
	}
}

func viewed(view table.View, list []table.Record) []table.Record {
	for i := range list {
		list[i].View = view
	}
	return list
}
