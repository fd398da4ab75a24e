package report_test

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/openmep/mep/api/mp1"
	"github.com/openmep/mep/api/state"
	"github.com/openmep/mep/dnsagent/follow"
	"github.com/openmep/mep/dnsagent/report"
	"github.com/openmep/mep/dnsagent/table"
	"github.com/openmep/mep/kit/etcd"
	"github.com/openmep/mep/kit/etcdtest"
	"github.com/openmep/mep/kit/leader"
	"github.com/openmep/mep/kit/watched"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		// Background work of closed etcd servers.
		goleak.IgnoreAnyFunction("go.etcd.io/etcd/pkg/v3/logutil.(*MergeLogger).outputLoop"),
		goleak.IgnoreAnyFunction("github.com/golang/glog.(*fileSink).flushDaemon"),
	)
}

const app = "5abe4782-2c70-4e47-9a4e-0ee3a1a0fd1f"

// run runs a reporter for one term on an etcd, and returns a function that stops it.
func run(tb testing.TB, store *etcd.Store, elector *leader.Elector) (stop func()) {
	tb.Helper()
	log := slog.New(slog.DiscardHandler)
	m := watched.New(watched.Config{Source: store.Source, Prefix: state.Root, Logger: log})
	feed := follow.New(m, &follow.Config{TTL: 30}, func(*table.Table, *follow.Config) {}, log, prometheus.NewRegistry())
	r := report.New(feed, m, store, log, prometheus.NewRegistry())
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 3)
	go func() { done <- m.Run(ctx) }()
	go func() { done <- feed.Run(ctx) }()
	go func() { <-m.Ready(); done <- elector.Run(ctx, r.Run) }()
	return func() {
		cancel()
		for range 3 {
			require.NoError(tb, <-done)
		}
	}
}

func put(tb testing.TB, store *etcd.Store, key, value string) {
	tb.Helper()
	_, err := store.Client.Put(tb.Context(), key, value)
	require.NoError(tb, err)
}

func rules(tb testing.TB, generation int64, running bool, ids ...string) string {
	tb.Helper()
	set := state.DNSRules{Version: state.Current(), Generation: generation, Running: running}
	for _, id := range ids {
		set.Rules = append(set.Rules, state.Rule[mp1.DNSRule]{Declared: mp1.DNSRule{
			DNSRuleID: id, DomainName: id + ".example", IPAddressType: "IP_V4", IPAddress: "192.0.2.1", State: mp1.RuleActive,
		}})
	}
	s, err := state.Encode(set)
	require.NoError(tb, err)
	return s
}

// says waits until the status record of an app has the generation and these rules; generation 0 means until there is no
// record.
func says(tb testing.TB, store *etcd.Store, app string, generation int64, applied ...string) {
	tb.Helper()
	var last string
	require.Eventually(tb, func() bool {
		resp, err := store.Client.Get(tb.Context(), state.StatusKey(report.Name, app))
		require.NoError(tb, err)
		if len(resp.Kvs) == 0 {
			last = "none"
			return generation == 0
		}
		last = string(resp.Kvs[0].Value)
		status, err := state.Decode[state.Status](resp.Kvs[0].Value)
		return err == nil && status.Generation == generation && fmt.Sprint(status.Applied) == fmt.Sprint(applied)
	}, 10*time.Second, 2*time.Millisecond, "want %d %v", generation, applied)
	_ = last
}

func TestReportsWhatIsAnswered(t *testing.T) {
	store := etcdtest.Start(t).Store(t)
	put(t, store, state.StatusKey(report.Name, "gone"), `{"v":1,"generation":5}`)
	put(t, store, state.DNSRulesKey(app), rules(t, 3, true, "b", "a"))
	defer run(t, store, leader.Alone())()
	says(t, store, app, 3, "a", "b")
	says(t, store, "gone", 0)

	put(t, store, state.DNSRulesKey(app), rules(t, 4, true, "b"))
	says(t, store, app, 4, "b")
	put(t, store, state.DNSRulesKey(app), rules(t, 5, false, "b"))
	says(t, store, app, 5)

	put(t, store, state.StatusKey(report.Name, app), `{"v":1,"generation":99,"applied":["forged"]}`)
	says(t, store, app, 5)

	_, err := store.Client.Delete(t.Context(), state.DNSRulesKey(app))
	require.NoError(t, err)
	says(t, store, app, 0)
	put(t, store, state.DNSRulesKey(app), rules(t, 0, false, "b"))
	put(t, store, state.DNSRulesKey("other"), rules(t, 1, true, "b"))
	says(t, store, "other", 1, "b")
	says(t, store, app, 0)
}

func TestReportsForManyAppsAfterAnotherTookOver(t *testing.T) {
	store := etcdtest.Start(t).Store(t)
	elector := func(id string) *leader.Elector {
		return leader.New(store.Client, state.PrefixElections+"dnsagent", id, 2*time.Second, slog.New(slog.DiscardHandler))
	}
	for i := range 250 {
		put(t, store, state.DNSRulesKey(fmt.Sprint("app", i)), rules(t, 1, true, "r"))
	}
	stop := run(t, store, elector("first"))
	for i := range 250 {
		says(t, store, fmt.Sprint("app", i), 1, "r")
	}
	second := run(t, store, elector("second"))
	defer second()
	stop()
	put(t, store, state.DNSRulesKey("app7"), rules(t, 2, true, "r", "s"))
	says(t, store, "app7", 2, "r", "s")
}

func TestReportsThatAreLargeTogether(t *testing.T) {
	store := etcdtest.Start(t).Store(t)
	var ids []string
	for i := range 128 {
		ids = append(ids, fmt.Sprintf("%03d", i)+strings.Repeat("<", 60)) // six octets each, as JSON
	}
	value := rules(t, 1, true, ids...)
	value = strings.ReplaceAll(value, strings.Repeat(`\u003c`, 60)+".example", "x.example")
	for i := range 150 {
		put(t, store, state.DNSRulesKey(fmt.Sprint("app", i)), value)
	}
	defer run(t, store, leader.Alone())()
	for i := range 150 {
		says(t, store, fmt.Sprint("app", i), 1, ids...)
	}
}

func TestNothingIsTakenBackByARestart(t *testing.T) {
	store := etcdtest.Start(t).Store(t)
	put(t, store, state.DNSRulesKey(app), rules(t, 1, true, "r"))
	stop := run(t, store, leader.Alone())
	says(t, store, app, 1, "r")
	stop()
	first, err := store.Client.Get(t.Context(), state.StatusKey(report.Name, app))
	require.NoError(t, err)
	for range 30 {
		stop = run(t, store, leader.Alone())
		put(t, store, state.DNSRulesKey("other"), rules(t, 1, true, "r"))
		says(t, store, "other", 1, "r")
		_, err := store.Client.Delete(t.Context(), state.DNSRulesKey("other"))
		require.NoError(t, err)
		says(t, store, "other", 0)
		stop()
	}
	last, err := store.Client.Get(t.Context(), state.StatusKey(report.Name, app))
	require.NoError(t, err)
	require.Equal(t, first.Kvs[0].ModRevision, last.Kvs[0].ModRevision, "it was written once")
}

func TestGoesOnWhenEtcdComesBack(t *testing.T) {
	server := etcdtest.Start(t)
	store := server.Store(t)
	defer run(t, store, leader.Alone())()
	put(t, store, state.DNSRulesKey(app), rules(t, 1, true, "r"))
	says(t, store, app, 1, "r")
	server.Stop()
	server.StartAgain(t)
	put(t, store, state.DNSRulesKey(app), rules(t, 2, true, "r"))
	says(t, store, app, 2, "r")
}
