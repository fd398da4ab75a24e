package follow_test

import (
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	api "github.com/openmep/mep/api/dns"
	"github.com/openmep/mep/api/mp1"
	"github.com/openmep/mep/api/state"
	"github.com/openmep/mep/dnsagent/follow"
	"github.com/openmep/mep/dnsagent/table"
	"github.com/openmep/mep/dnsagent/wire"
	"github.com/openmep/mep/kit/etcd"
	"github.com/openmep/mep/kit/etcdtest"
	"github.com/openmep/mep/kit/watched"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		// Background work of closed etcd servers.
		goleak.IgnoreAnyFunction("go.etcd.io/etcd/pkg/v3/logutil.(*MergeLogger).outputLoop"),
		goleak.IgnoreAnyFunction("github.com/golang/glog.(*fileSink).flushDaemon"),
	)
}

const (
	app1 = "5abe4782-2c70-4e47-9a4e-0ee3a1a0fd1f"
	app2 = "6abe4782-2c70-4e47-9a4e-0ee3a1a0fd1f"
)

func name(tb testing.TB, s string) wire.Name {
	tb.Helper()
	n, err := wire.ParseName(s)
	require.NoError(tb, err)
	return n
}

// fixture is a feed on a real etcd.
type fixture struct {
	tb    testing.TB
	store *etcd.Store
	feed  *follow.Feed
	table atomic.Pointer[table.Table]
}

func config(tb testing.TB) *follow.Config {
	zone := name(tb, "mec.example.")
	return &follow.Config{
		Table: table.Config{Zones: []table.ZoneConfig{{Name: zone, Nameservers: []wire.Name{name(tb, "ns.mec.example.")}}}, NegativeTTL: 10},
		TTL:   30,
	}
}

func start(tb testing.TB, store *etcd.Store, cfg *follow.Config) *fixture {
	tb.Helper()
	f := &fixture{tb: tb, store: store}
	log := slog.New(slog.DiscardHandler)
	m := watched.New(watched.Config{Source: store.Source, Prefix: state.Root, Logger: log})
	f.feed = follow.New(m, cfg, func(t *table.Table, _ *follow.Config) { f.table.Store(t) }, log, prometheus.NewRegistry())
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 2)
	go func() { done <- m.Run(ctx) }()
	go func() { done <- f.feed.Run(ctx) }()
	tb.Cleanup(func() {
		cancel()
		require.NoError(tb, <-done)
		require.NoError(tb, <-done)
	})
	require.Eventually(tb, func() bool { return f.table.Load() != nil }, 10*time.Second, time.Millisecond)
	return f
}

// put stores a value, or removes the key if value is empty, and waits until the table shows it.
func (f *fixture) put(key string, value string) {
	f.tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	var revision int64
	if value == "" {
		resp, err := f.store.Client.Delete(ctx, key)
		require.NoError(f.tb, err)
		revision = resp.Header.Revision
	} else {
		resp, err := f.store.Client.Put(ctx, key, value)
		require.NoError(f.tb, err)
		revision = resp.Header.Revision
	}
	require.NoError(f.tb, f.feed.CatchUp(ctx, revision))
}

func encode[R state.Record](tb testing.TB, r R) string {
	tb.Helper()
	s, err := state.Encode(r)
	require.NoError(tb, err)
	return s
}

func rule(id, domain, address string, ttl int64, st mp1.RuleState) state.Rule[mp1.DNSRule] {
	r := mp1.DNSRule{DNSRuleID: id, DomainName: domain, IPAddressType: "IP_V4", IPAddress: address, State: st}
	if ttl >= 0 {
		r.TTL = &ttl
	}
	return state.Rule[mp1.DNSRule]{Declared: r}
}

func rules(tb testing.TB, generation int64, running bool, list ...state.Rule[mp1.DNSRule]) string {
	return encode(tb, state.DNSRules{Version: state.Current(), Generation: generation, Running: running, Rules: list})
}

// ask returns the table's answer as its kind, its TTL and its number of records.
func (f *fixture) ask(domain string, rrtype uint16, view table.View) (table.Kind, uint32, int) {
	f.tb.Helper()
	a := f.table.Load().Lookup(name(f.tb, domain), rrtype, view)
	if a.Set == nil {
		return a.Kind, 0, 0
	}
	return a.Kind, a.Set.TTL, int(a.Set.Count)
}

func (f *fixture) found(domain string, rrtype uint16) bool {
	kind, _, _ := f.ask(domain, rrtype, table.Everyone)
	return kind == table.Found
}

func TestRulesAreInTheTableWhileTheyAreInForce(t *testing.T) {
	store := etcdtest.Start(t).Store(t)
	f := start(t, store, config(t))
	require.Nil(t, f.feed.Served(app1))

	declared := []state.Rule[mp1.DNSRule]{
		rule("one", "one.mec.example.", "192.0.2.1", 7, mp1.RuleActive), rule("two", "Two.MEC.example", "192.0.2.2", -1, mp1.RuleActive),
		rule("off", "off.mec.example", "192.0.2.3", -1, mp1.RuleInactive), rule("zero", "zero.example.com", "2001:db8::1", 0, mp1.RuleActive),
	}
	f.put(state.DNSRulesKey(app1), rules(t, 3, false, declared...))
	require.False(t, f.found("one.mec.example", dns.TypeA), "the app does not run")
	require.Equal(t, &follow.Served{Generation: 3}, f.feed.Served(app1))

	f.put(state.DNSRulesKey(app1), rules(t, 4, true, declared...))
	kind, ttl, _ := f.ask("one.mec.example", dns.TypeA, table.Everyone)
	require.Equal(t, table.Found, kind)
	require.Equal(t, uint32(7), ttl)
	_, ttl, _ = f.ask("two.mec.example", dns.TypeA, table.Everyone)
	require.Equal(t, uint32(30), ttl, "a rule without a TTL")
	kind, ttl, _ = f.ask("zero.example.com", dns.TypeAAAA, table.Everyone)
	require.Equal(t, table.Found, kind, "a TTL of 0 is one")
	require.Zero(t, ttl)
	require.False(t, f.found("off.mec.example", dns.TypeA))
	require.Equal(t, &follow.Served{Generation: 4, Applied: []string{"one", "two", "zero"}}, f.feed.Served(app1))

	// Another app adds a rule for the name; the app changes its own.
	f.put(state.DNSRulesKey(app2), rules(t, 9, true, rule("x", "one.mec.example", "192.0.2.9", 5, mp1.RuleActive)))
	_, ttl, n := f.ask("one.mec.example", dns.TypeA, table.Everyone)
	require.Equal(t, 2, n)
	require.Equal(t, uint32(5), ttl)
	changed := declared[0].Declared
	changed.State = mp1.RuleInactive
	declared[0].Changed = &changed
	f.put(state.DNSRulesKey(app1), rules(t, 5, true, declared...))
	_, _, n = f.ask("one.mec.example", dns.TypeA, table.Everyone)
	require.Equal(t, 1, n)

	f.put(state.DNSRulesKey(app1), "")
	f.put(state.DNSRulesKey(app2), "")
	require.False(t, f.found("one.mec.example", dns.TypeA) || f.found("two.mec.example", dns.TypeA))
	require.Nil(t, f.feed.Served(app1))
	require.Empty(t, f.feed.Apps())
}

func TestWhatCannotBeReadIsLeftOutAndSaid(t *testing.T) {
	store := etcdtest.Start(t).Store(t)
	f := start(t, store, config(t))
	f.put(state.DNSRulesKey(app1), rules(t, 1, true,
		rule("bad", "a..b", "192.0.2.1", 1, mp1.RuleActive), rule("good", "good.example", "192.0.2.1", 1, mp1.RuleActive)))
	require.True(t, f.found("good.example", dns.TypeA))
	require.Contains(t, f.feed.Served(app1).Failed["bad"], "not a domain name")
	for _, value := range []string{"{", `{"v":99}`, `{"v":1,"rules":7}`, "null"} {
		f.put(state.DNSRulesKey(app2), value)
		require.True(t, f.found("good.example", dns.TypeA), value)
	}
}

func TestRecordsOfTheManagement(t *testing.T) {
	store := etcdtest.Start(t).Store(t)
	cfg := config(t)
	cfg.Views = []follow.View{{Name: "pool"}}
	f := start(t, store, cfg)
	put := func(r api.Record) {
		f.put(state.DNSRecordKey(r.Name, r.Type, r.View), encode(t, state.DNSRecord{Version: state.Current(), Record: r}))
	}
	put(api.Record{Name: "www.mec.example.", Type: "A", TTL: 5, RData: []string{"192.0.2.1", "192.0.2.2"}})
	put(api.Record{Name: "pool.mec.example.", Type: "A", TTL: 5, RData: []string{"192.0.2.1"}, View: "pool"})
	put(api.Record{Name: "lost.mec.example.", Type: "A", TTL: 5, RData: []string{"192.0.2.1"}, View: "unknown"})
	_, _, n := f.ask("www.mec.example", dns.TypeA, table.Everyone)
	require.Equal(t, 2, n)
	require.False(t, f.found("pool.mec.example", dns.TypeA))
	kind, _, _ := f.ask("pool.mec.example", dns.TypeA, 1)
	require.Equal(t, table.Found, kind)
	kind, _, _ = f.ask("lost.mec.example", dns.TypeA, 1)
	require.Equal(t, table.NXDomain, kind, "a record of a view that is not configured is seen by nobody")
	f.put(state.DNSRecordKey("www.mec.example.", "A", ""), "")
	require.False(t, f.found("www.mec.example", dns.TypeA))
}

func TestRulesAreInTheViewsThatNameThem(t *testing.T) {
	store := etcdtest.Start(t).Store(t)
	cfg := config(t)
	cfg.Views = []follow.View{{Name: "apps", Apps: []string{app1}}, {Name: "names", Names: []wire.Name{name(t, "video.example")}}}
	f := start(t, store, cfg)
	f.put(state.DNSRulesKey(app1), rules(t, 1, true, rule("a", "a.example", "192.0.2.1", 1, mp1.RuleActive)))
	f.put(state.DNSRulesKey(app2), rules(t, 1, true, rule("v", "cdn.video.example", "192.0.2.2", 1, mp1.RuleActive), rule("w", "w.example", "192.0.2.3", 1, mp1.RuleActive)))
	seen := func(domain string) (views [3]bool) {
		for v := range views {
			kind, _, _ := f.ask(domain, dns.TypeA, table.View(v))
			views[v] = kind == table.Found
		}
		return views
	}
	require.Equal(t, [3]bool{false, true, false}, seen("a.example"))
	require.Equal(t, [3]bool{false, false, true}, seen("cdn.video.example"))
	require.Equal(t, [3]bool{true, true, true}, seen("w.example"))

	next := config(t)
	next.TTL = 60
	f.feed.Set(next)
	require.NoError(t, f.feed.CatchUp(t.Context(), 0))
	require.Equal(t, [3]bool{true, true, true}, seen("a.example"), "another configuration makes everything anew")
}

func TestWhatIsRemovedWhileEverythingIsMadeAnewIsGone(t *testing.T) {
	store := etcdtest.Start(t).Store(t)
	f := start(t, store, config(t))
	for i := range 50 {
		f.put(state.DNSRulesKey(app1), rules(t, int64(i)+1, true, rule("a", "a.example", "192.0.2.1", 1, mp1.RuleActive)))
		require.NotNil(t, f.feed.Served(app1))
		resp, err := store.Client.Delete(t.Context(), state.DNSRulesKey(app1))
		require.NoError(t, err)
		f.feed.Set(config(t))
		require.NoError(t, f.feed.CatchUp(t.Context(), resp.Header.Revision))
		require.Nil(t, f.feed.Served(app1))
		require.Empty(t, f.feed.Apps())
	}
}

func TestServicesAreFoundByTheirNames(t *testing.T) {
	store := etcdtest.Start(t).Store(t)
	cfg := config(t)
	cfg.ServiceZone = name(t, "mec.example.")
	f := start(t, store, cfg)
	const id = "0fabd19c-70c5-4e7e-8c0c-2c7f1a2f0a11"
	service := func(st mp1.ServiceState, e mp1.EndPointInfo) string {
		return encode(t, state.Service{Version: state.Current(), Info: mp1.ServiceInfo{
			SerInstanceID: id, SerName: "Location", State: st, TransportInfo: &mp1.TransportInfo{Endpoint: &e},
		}})
	}
	e := mp1.EndPointInfo{
		Addresses: []mp1.EndPointAddress{{Host: "192.0.2.1", Port: 8080}, {Host: "2001:db8::1", Port: 8080}},
		URIs:      []string{"https://loc.example.net/api", "http://192.0.2.2:81/", "unix:///run/x"},
	}
	f.put(state.ServiceKey(app1, id), service(mp1.StateActive, e))
	_, _, a := f.ask("location.mec.example", dns.TypeA, 0)
	_, _, aaaa := f.ask("location.mec.example", dns.TypeAAAA, 0)
	_, _, srv := f.ask("location.mec.example", dns.TypeSRV, 0)
	_, _, instance := f.ask(id+".location.mec.example", dns.TypeA, 0)
	_, _, other := f.ask("p81-"+id+".location.mec.example", dns.TypeA, 0)
	require.Equal(t, []int{2, 1, 3, 1, 1}, []int{a, aaaa, srv, instance, other})
	f.put(state.ServiceKey(app1, id), service(mp1.StateSuspended, e))
	require.False(t, f.found("location.mec.example", dns.TypeA))
}

func TestManyRulesAreReadAtTheStart(t *testing.T) {
	store := etcdtest.Start(t).Store(t)
	for i := range 200 {
		key := state.DNSRulesKey(fmt.Sprintf("%08d-0000-4000-8000-000000000000", i))
		var list []state.Rule[mp1.DNSRule]
		for j := range 20 {
			list = append(list, rule(fmt.Sprint(j), fmt.Sprintf("r%d-%d.example", i, j), "192.0.2.1", 1, mp1.RuleActive))
		}
		_, err := store.Client.Put(t.Context(), key, rules(t, 1, true, list...))
		require.NoError(t, err)
	}
	f := start(t, store, config(t))
	require.Equal(t, 4000, f.table.Load().Records)
	require.Len(t, f.feed.Apps(), 200)
}
