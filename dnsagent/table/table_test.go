package table_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"
	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/dnsagent/table"
	"github.com/openmep/mep/dnsagent/wire"
)

func name(s string) wire.Name {
	n, err := wire.ParseName(s)
	if err != nil {
		panic(err)
	}
	return n
}

func record(owner, rrtype, data string) table.Record {
	rr, err := dns.NewRR(fmt.Sprintf("%s 60 IN %s %s", owner, rrtype, data))
	if err != nil {
		panic(err)
	}
	buf := make([]byte, 1024)
	end, err := dns.PackRR(rr, buf, 0, nil, false)
	if err != nil {
		panic(err)
	}
	return table.Record{
		Name: name(owner), Type: rr.Header().Rrtype, TTL: 60, Data: string(buf[end-int(rr.Header().Rdlength) : end]), ID: owner + " " + rrtype,
	}
}

func in(view table.View, r table.Record) table.Record { r.View = view; return r }

func zones(names ...string) table.Config {
	cfg := table.Config{NegativeTTL: 10, NameserverTTL: 30}
	for _, n := range names {
		cfg.Zones = append(cfg.Zones, table.ZoneConfig{Name: name(n), Nameservers: []wire.Name{name("ns." + n)}})
	}
	return cfg
}

// unpack returns the records of an RRset, with the given owner name.
func unpack(tb testing.TB, set *table.Set, owner wire.Name) []dns.RR {
	tb.Helper()
	msg := append(make([]byte, wire.HeaderSize), owner...)
	end := len(msg)
	msg = set.Append(append(msg, 0, 1, 0, 1), wire.QuestionPointer, 0)
	var list []dns.RR
	for off := end + 4; off < len(msg); {
		rr, next, err := dns.UnpackRR(msg, off)
		require.NoError(tb, err)
		list, off = append(list, rr), next
	}
	require.Len(tb, list, int(set.Count))
	return list
}

func values(tb testing.TB, a table.Answer, owner wire.Name) []string {
	tb.Helper()
	if a.Set == nil {
		return nil
	}
	var list []string
	for _, rr := range unpack(tb, a.Set, owner) {
		require.Equal(tb, owner.String(), rr.Header().Name)
		list = append(list, strings.TrimPrefix(rr.String(), rr.Header().String()))
	}
	return list
}

func TestLookup(t *testing.T) {
	w := table.NewWriter(zones("mec.example.", "2.0.192.in-addr.arpa.", "deep.down.mec.example."))
	w.Put("app", []table.Record{
		record("www.mec.example.", "A", "192.0.2.1"), record("www.mec.example.", "A", "192.0.2.2"), record("www.mec.example.", "AAAA", "2001:db8::1"),
		record("*.wild.mec.example.", "A", "192.0.2.3"), record("is.wild.mec.example.", "TXT", `"here"`),
		record("a.b.wild.mec.example.", "A", "192.0.2.4"), record("x.y.z.mec.example.", "A", "192.0.2.5"),
		record("alias.mec.example.", "CNAME", "www.mec.example."), record("both.mec.example.", "CNAME", "www.mec.example."),
		record("both.mec.example.", "A", "192.0.2.6"), record("mec.example.", "A", "192.0.2.7"),
		record("cdn.example.com.", "A", "198.51.100.1"), record("*.app.example.com.", "A", "198.51.100.2"),
		record("only.app.example.com.", "AAAA", "2001:db8::2"),
		in(1, record("pool.mec.example.", "A", "192.0.2.8")), in(2, record("pool.mec.example.", "A", "192.0.2.9")),
		in(1, record("www.mec.example.", "TXT", `"first"`)), in(1, record("mine.ent.mec.example.", "A", "192.0.2.10")),
	})
	w.Put("other app", []table.Record{record("www.mec.example.", "A", "192.0.2.2"), record("www.mec.example.", "A", "192.0.2.11")})
	w.Put("management", []table.Record{record("9.2.0.192.in-addr.arpa.", "PTR", "given.mec.example.")})
	tab := w.Publish(77)
	require.Equal(t, 21, tab.Records)

	for _, c := range []struct {
		what, name, rrtype string
		view               table.View
		kind               table.Kind
		values             []string
	}{
		{"several origins add up, what is there twice counts once", "www.mec.example.", "A", 0, table.Found, []string{"192.0.2.1", "192.0.2.2", "192.0.2.11"}},
		{"another type", "www.mec.example.", "AAAA", 0, table.Found, []string{"2001:db8::1"}},
		{"no record of the type", "www.mec.example.", "MX", 0, table.NoData, nil},
		{"a record of a view", "www.mec.example.", "TXT", 1, table.Found, []string{`"first"`}},
		{"everyone's records in a view", "www.mec.example.", "AAAA", 1, table.Found, []string{"2001:db8::1"}},
		{"another view's record", "www.mec.example.", "TXT", 2, table.NoData, nil},
		{"records of two views, one", "pool.mec.example.", "A", 1, table.Found, []string{"192.0.2.8"}},
		{"records of two views, the other", "pool.mec.example.", "A", 2, table.Found, []string{"192.0.2.9"}},
		{"a name of views only", "pool.mec.example.", "A", 0, table.NXDomain, nil},
		{"an empty non-terminal of a view", "ent.mec.example.", "A", 1, table.NoData, nil},
		{"the same for others", "ent.mec.example.", "A", 2, table.NXDomain, nil},
		{"a wildcard", "new.wild.mec.example.", "A", 0, table.Found, []string{"192.0.2.3"}},
		{"a wildcard, deeper", "more.new.wild.mec.example.", "A", 0, table.Found, []string{"192.0.2.3"}},
		{"a wildcard without the type", "new.wild.mec.example.", "AAAA", 0, table.NoData, nil},
		{"the wildcard itself", "*.wild.mec.example.", "A", 0, table.Found, []string{"192.0.2.3"}},
		{"a name hides the wildcard", "is.wild.mec.example.", "A", 0, table.NoData, nil},
		{"and so below itself", "below.is.wild.mec.example.", "A", 0, table.NXDomain, nil},
		{"an empty non-terminal hides it, too", "b.wild.mec.example.", "A", 0, table.NoData, nil},
		{"and so below itself", "c.b.wild.mec.example.", "A", 0, table.NXDomain, nil},
		{"the name above the wildcard", "wild.mec.example.", "A", 0, table.NoData, nil},
		{"empty non-terminals", "y.z.mec.example.", "A", 0, table.NoData, nil},
		{"below a name", "a.www.mec.example.", "A", 0, table.NXDomain, nil},
		{"no such name", "nobody.mec.example.", "A", 0, table.NXDomain, nil},
		{"an alias", "alias.mec.example.", "A", 0, table.Found, []string{"www.mec.example."}},
		{"an alias asked for", "alias.mec.example.", "CNAME", 0, table.Found, []string{"www.mec.example."}},
		{"an alias of a name with records is none", "both.mec.example.", "A", 0, table.Found, []string{"192.0.2.6"}},
		{"nor is it seen", "both.mec.example.", "CNAME", 0, table.NoData, nil},
		{"the apex", "mec.example.", "A", 0, table.Found, []string{"192.0.2.7"}},
		{"name servers", "mec.example.", "NS", 0, table.Found, []string{"ns.mec.example."}},
		{"the start of authority", "mec.example.", "SOA", 0, table.Found, []string{"ns.mec.example. hostmaster.mec.example. 77 3600 600 86400 10"}},
		{"apex without the type", "mec.example.", "MX", 0, table.NoData, nil},
		{"a zone within a zone", "deep.down.mec.example.", "NS", 0, table.Found, []string{"ns.deep.down.mec.example."}},
		{"makes the names between", "down.mec.example.", "A", 0, table.NoData, nil},
		{"reverse names are made", "1.2.0.192.in-addr.arpa.", "PTR", 0, table.Found, []string{"www.mec.example."}},
		{"for several names of an address", "2.2.0.192.in-addr.arpa.", "PTR", 0, table.Found, []string{"www.mec.example."}},
		{"not for wildcards", "3.2.0.192.in-addr.arpa.", "PTR", 0, table.NXDomain, nil},
		{"in the view of their record", "8.2.0.192.in-addr.arpa.", "PTR", 1, table.Found, []string{"pool.mec.example."}},
		{"and in no other", "8.2.0.192.in-addr.arpa.", "PTR", 2, table.NXDomain, nil},
		{"they give way to given ones", "9.2.0.192.in-addr.arpa.", "PTR", 2, table.Found, []string{"given.mec.example."}},
		{"an override", "cdn.example.com.", "A", 0, table.Found, []string{"198.51.100.1"}},
		{"an override without the type", "cdn.example.com.", "AAAA", 0, table.NoData, nil},
		{"the neighbour of an override", "www.example.com.", "A", 0, table.NotLocal, nil},
		{"below an override", "a.cdn.example.com.", "A", 0, table.NotLocal, nil},
		{"above an override", "example.com.", "A", 0, table.NotLocal, nil},
		{"a wildcard override", "x.app.example.com.", "A", 0, table.Found, []string{"198.51.100.2"}},
		{"a wildcard override, deeper", "y.x.app.example.com.", "A", 0, table.Found, []string{"198.51.100.2"}},
		{"not itself", "app.example.com.", "A", 0, table.NotLocal, nil},
		{"hidden by a name", "only.app.example.com.", "A", 0, table.NoData, nil},
		{"and so below it", "x.only.app.example.com.", "A", 0, table.NotLocal, nil},
		{"reverse names outside zones", "1.100.51.198.in-addr.arpa.", "PTR", 0, table.NotLocal, nil},
		{"the root", ".", "NS", 0, table.NotLocal, nil},
	} {
		t.Run(c.what, func(t *testing.T) {
			n := name(c.name)
			a := tab.Lookup(n, dns.StringToType[c.rrtype], c.view)
			require.Equal(t, c.kind, a.Kind)
			require.ElementsMatch(t, c.values, values(t, a, n))
			require.Equal(t, c.kind == table.NoData || c.kind == table.NXDomain, a.SOA != nil)
		})
	}
}

func TestReverseNames(t *testing.T) {
	for _, addr := range []string{"192.0.2.1", "10.20.130.255", "2001:db8::abcd", "::1"} {
		want, err := dns.ReverseAddr(addr)
		require.NoError(t, err)
		require.Equal(t, want, table.ReverseName(string(netip.MustParseAddr(addr).AsSlice())).String())
	}
}

func TestTTLOfASetIsTheLeast(t *testing.T) {
	w := table.NewWriter(zones("mec.example."))
	long, short := record("www.mec.example.", "A", "192.0.2.1"), record("www.mec.example.", "A", "192.0.2.2")
	short.TTL = 5
	w.Put("a", []table.Record{long, short})
	a := w.Publish(1).Lookup(name("www.mec.example."), dns.TypeA, table.Everyone)
	require.Equal(t, uint32(5), a.Set.TTL)
	for _, rr := range unpack(t, a.Set, name("www.mec.example.")) {
		require.Equal(t, uint32(5), rr.Header().Ttl)
	}
}

func TestEqualRecordsCountOnceHoweverMany(t *testing.T) {
	w := table.NewWriter(zones("2.0.192.in-addr.arpa."))
	var list []table.Record
	for i := range 3000 {
		r := record("www.example.", "A", netip.AddrFrom4([4]byte{10, 0, byte(i % 1000 >> 8), byte(i % 1000)}).String())
		r.TTL = uint32(5000 - i)
		list = append(list, r)
	}
	w.Put("a", list)
	a := w.Publish(1).Lookup(name("www.example."), dns.TypeA, table.Everyone)
	require.Equal(t, uint16(1000), a.Set.Count)
	require.Equal(t, uint32(2001), a.Set.TTL)
}

func TestAnAddressWithManyNamesHasThoseThatComeFirst(t *testing.T) {
	w := table.NewWriter(zones("2.0.192.in-addr.arpa."))
	for i := range 1000 {
		w.Put(fmt.Sprint(i), []table.Record{record(fmt.Sprintf("n%03d.example.", 999-i), "A", "192.0.2.1")})
	}
	ptr := name("1.2.0.192.in-addr.arpa.")
	got := values(t, w.Publish(1).Lookup(ptr, dns.TypePTR, table.Everyone), ptr)
	require.Len(t, got, 16)
	require.Equal(t, []string{"n000.example.", "n015.example."}, []string{got[0], got[15]})
}

func TestWeakRecordsGiveWay(t *testing.T) {
	w := table.NewWriter(zones("mec.example.", "2.0.192.in-addr.arpa."))
	weak := record("www.mec.example.", "A", "192.0.2.66")
	weak.Weak = true
	w.Put("service", []table.Record{weak, weak})
	ask := func(n string, rrtype uint16) []string {
		return values(t, w.Publish(1).Lookup(name(n), rrtype, table.Everyone), name(n))
	}
	require.Equal(t, []string{"192.0.2.66"}, ask("www.mec.example.", dns.TypeA))
	require.Empty(t, ask("66.2.0.192.in-addr.arpa.", dns.TypePTR))
	w.Put("rules", []table.Record{record("www.mec.example.", "AAAA", "2001:db8::1")})
	require.Empty(t, ask("www.mec.example.", dns.TypeA))
	w.Put("rules", nil)
	require.Equal(t, []string{"192.0.2.66"}, ask("www.mec.example.", dns.TypeA))
}

func TestSetsTakeTurnsAndOwners(t *testing.T) {
	w := table.NewWriter(zones("mec.example."))
	w.Put("a", []table.Record{
		record("www.mec.example.", "A", "192.0.2.1"), record("www.mec.example.", "A", "192.0.2.2"), record("www.mec.example.", "A", "192.0.2.3"),
	})
	a := w.Publish(1).Lookup(name("www.mec.example."), dns.TypeA, table.Everyone)
	msg := append(make([]byte, wire.HeaderSize), "\x01x\x00"...)
	at := len(msg)
	msg = a.Set.Append(msg, wire.QuestionPointer, 4)
	var order []string
	for off := at; off < len(msg); {
		rr, next, err := dns.UnpackRR(msg, off)
		require.NoError(t, err)
		require.Equal(t, "x.", rr.Header().Name)
		order, off = append(order, rr.(*dns.A).A.String()), next
	}
	require.Equal(t, []string{"192.0.2.2", "192.0.2.3", "192.0.2.1"}, order)
}

func TestASetThatIsTooLargeIsCut(t *testing.T) {
	w := table.NewWriter(zones("mec.example."))
	var list []table.Record
	for i := range 20_000 {
		list = append(list, record("www.mec.example.", "A", netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}).String()))
	}
	w.Put("a", list)
	set := w.Publish(1).Lookup(name("www.mec.example."), dns.TypeA, table.Everyone).Set
	require.LessOrEqual(t, len(set.Wire), 64_000)
	require.Len(t, unpack(t, set, name("www.mec.example.")), int(set.Count))
}

func TestTablesDoNotChange(t *testing.T) {
	w := table.NewWriter(zones("mec.example."))
	w.Put("a", []table.Record{record("www.mec.example.", "A", "192.0.2.1"), record("a.b.mec.example.", "A", "192.0.2.9")})
	before := w.Publish(1)
	w.Put("a", []table.Record{record("www.mec.example.", "A", "192.0.2.2")})
	after := w.Publish(2)
	w.Put("a", nil)
	end := w.Publish(3)

	at := func(tab *table.Table, n string) []string {
		return values(t, tab.Lookup(name(n), dns.TypeA, 0), name(n))
	}
	require.Equal(t, []string{"192.0.2.1"}, at(before, "www.mec.example."))
	require.Equal(t, []string{"192.0.2.2"}, at(after, "www.mec.example."))
	require.Equal(t, table.NXDomain, end.Lookup(name("www.mec.example."), dns.TypeA, 0).Kind)
	require.Equal(t, table.NoData, before.Lookup(name("b.mec.example."), dns.TypeA, 0).Kind)
	require.Equal(t, table.NXDomain, after.Lookup(name("b.mec.example."), dns.TypeA, 0).Kind)
	require.Equal(t, []int{2, 1, 0}, []int{before.Records, after.Records, end.Records})
}

func TestAtSaysWhereRecordsComeFrom(t *testing.T) {
	w := table.NewWriter(zones("2.0.192.in-addr.arpa."))
	w.Put("rules of app", []table.Record{record("www.example.", "A", "192.0.2.1")})
	tab := w.Publish(1)
	shown := tab.At(name("www.example."))
	require.Len(t, shown, 1)
	require.Equal(t, "rules of app", shown[0].Origin)
	require.Equal(t, "www.example. A", shown[0].ID)
	reverse := tab.At(name("1.2.0.192.in-addr.arpa."))
	require.True(t, reverse[0].Derived)
	require.Empty(t, tab.At(name("nobody.example.")))
	zone := slices.Collect(tab.Zones())
	require.Len(t, zone, 1)
	require.Equal(t, uint32(1), zone[0].Serial)
}

func TestAValueLargerThanASetMayBeIsStillOne(t *testing.T) {
	w := table.NewWriter(zones("mec.example."))
	r := record("big.mec.example.", "TXT", `"x"`)
	r.Data = strings.Repeat("\x03abc", 16_380)
	w.Put("a", []table.Record{r, record("big.mec.example.", "TXT", `"y"`)})
	a := w.Publish(1).Lookup(name("big.mec.example."), dns.TypeTXT, table.Everyone)
	require.Equal(t, uint16(1), a.Set.Count)
}
