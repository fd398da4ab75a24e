package table_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/openmep/mep/dnsagent/table"
	"github.com/openmep/mep/dnsagent/wire"
)

// model looks up names by walking through all records.
type model struct {
	zones   []wire.Name
	origins map[string][]table.Record
}

func (m *model) zoneOf(n wire.Name) (zone wire.Name, ok bool) {
	for _, z := range m.zones {
		if n.Within(z) && (!ok || len(z) > len(zone)) {
			zone, ok = z, true
		}
	}
	return zone, ok
}

// at returns the records of a name that a view sees, and whether a name below it in its zone has any.
func (m *model) at(n wire.Name, view table.View) (types map[uint16][]string, below bool) {
	types = make(map[uint16][]string)
	zone, inZone := m.zoneOf(n)
	add := func(r table.Record) {
		if r.View != table.Everyone && r.View != view {
			return
		}
		if r.Name == n {
			if !slices.Contains(types[r.Type], r.Data) {
				types[r.Type] = append(types[r.Type], r.Data)
			}
		} else if other, ok := m.zoneOf(r.Name); ok && inZone && other == zone && r.Name.Within(n) {
			below = true
		}
	}
	for _, z := range m.zones {
		ns, _ := z.Child("ns")
		add(table.Record{Name: z, Type: dns.TypeNS, Data: string(ns)})
	}
	for _, list := range m.origins {
		for _, r := range list {
			add(r)
		}
	}
	if len(types) > 1 {
		delete(types, dns.TypeCNAME)
	}
	return types, below
}

func (m *model) lookup(n wire.Name, rrtype uint16, view table.View) (table.Kind, []string) {
	answer := func(types map[uint16][]string) (table.Kind, []string) {
		if cname := types[dns.TypeCNAME]; cname != nil {
			return table.Found, cname
		}
		if list := types[rrtype]; list != nil {
			return table.Found, list
		}
		return table.NoData, nil
	}
	types, below := m.at(n, view)
	zone, inZone := m.zoneOf(n)
	switch {
	case len(types) > 0:
		return answer(types)
	case inZone && below:
		return table.NoData, nil
	case !inZone && len(n) <= 1:
		return table.NotLocal, nil
	}
	for above := n.Parent(); ; above = above.Parent() {
		star, _ := above.Wildcard()
		wild, _ := m.at(star, view)
		exists, below := m.at(above, view)
		if inZone {
			if above != zone && len(exists) == 0 && !below {
				continue
			}
			if len(wild) > 0 {
				return answer(wild)
			}
			return table.NXDomain, nil
		}
		if len(wild) > 0 {
			return answer(wild)
		}
		if len(exists) > 0 || above == wire.Root {
			return table.NotLocal, nil
		}
	}
}

func TestAnswersAsTheModelDoes(t *testing.T) {
	labels := []string{"a", "b", "*", "c"}
	rapid.Check(t, func(t *rapid.T) {
		names := rapid.Custom(func(t *rapid.T) wire.Name {
			list := rapid.SliceOfN(rapid.SampledFrom(labels), 0, 4).Draw(t, "labels")
			return name(strings.Join(append(list, rapid.SampledFrom([]string{"zone.", "in.zone.", "out.", "b."}).Draw(t, "under")), "."))
		})
		m := &model{zones: []wire.Name{name("zone."), name("b.zone.")}, origins: make(map[string][]table.Record)}
		w := table.NewWriter(zones("zone.", "b.zone."))
		for step := range rapid.IntRange(1, 12).Draw(t, "steps") {
			origin := rapid.SampledFrom([]string{"1", "2", "3"}).Draw(t, "origin")
			var list []table.Record
			for range rapid.IntRange(0, 4).Draw(t, "records") {
				r := record("x.", "A", fmt.Sprintf("10.0.0.%d", rapid.IntRange(1, 3).Draw(t, "address")))
				switch rapid.IntRange(0, 3).Draw(t, "type") {
				case 0:
					r = record("x.", "TXT", `"t"`)
				case 1:
					r = record("x.", "CNAME", "target.")
				}
				r.Name, r.View = names.Draw(t, "name"), table.View(rapid.IntRange(0, 2).Draw(t, "view"))
				list = append(list, r)
			}
			w.Put(origin, list)
			m.origins[origin] = list
			if rapid.Bool().Draw(t, "publish") {
				w.Publish(int64(step)) // later changes must not be lost in shared branches or shards
			}
		}
		tab := w.Publish(99)
		total := 0
		for _, list := range m.origins {
			total += len(list)
		}
		require.Equal(t, total, tab.Records)
		for range 30 {
			n, view := names.Draw(t, "asked"), table.View(rapid.IntRange(0, 3).Draw(t, "as"))
			rrtype := rapid.SampledFrom([]uint16{dns.TypeA, dns.TypeTXT, dns.TypeCNAME, dns.TypeNS}).Draw(t, "for")
			kind, data := m.lookup(n, rrtype, view)
			a := tab.Lookup(n, rrtype, view)
			require.Equal(t, kind, a.Kind, "%s %d as %d", n, rrtype, view)
			if rrtype == dns.TypeCNAME && len(data) > 1 {
				data = data[:1]
			}
			if kind == table.Found {
				require.NotNil(t, a.Set)
				if a.Set.Type != dns.TypeCNAME {
					require.Len(t, data, int(a.Set.Count))
				}
			}
		}
	})
}

// Once everything is removed, nothing of it is left.
func TestWhatIsTakenBackLeavesNothing(t *testing.T) {
	w := table.NewWriter(zones("zone."))
	before := w.Publish(1)
	for i := range 50 {
		w.Put(fmt.Sprint(i), []table.Record{
			record(fmt.Sprintf("%d.a.b.zone.", i), "A", "192.0.2.1"), in(3, record(fmt.Sprintf("*.%d.out.", i), "A", "192.0.2.1")),
		})
		w.Publish(int64(i))
	}
	for i := range 50 {
		w.Put(fmt.Sprint(i), nil)
	}
	after := w.Publish(100)
	require.Equal(t, before.Names, after.Names)
	require.Equal(t, before.Records, after.Records)
	require.Zero(t, w.Origins())
	for _, n := range []string{"b.zone.", "a.b.zone.", "1.a.b.zone."} {
		require.Equal(t, table.NXDomain, after.Lookup(name(n), dns.TypeA, 0).Kind, n)
	}
	require.Equal(t, table.NotLocal, after.Lookup(name("x.1.out."), dns.TypeA, 3).Kind)
}
