package reconcile

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"iter"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/goleak"

	"github.com/openmep/mep/api/mm5"
	"github.com/openmep/mep/api/mp1"
	"github.com/openmep/mep/api/state"
	"github.com/openmep/mep/kit/etcd"
	"github.com/openmep/mep/kit/etcdtest"
	"github.com/openmep/mep/kit/leader"
	"github.com/openmep/mep/kit/watched"
)

func TestMain(m *testing.M) {
	_ = flag.Set("rapid.checks", "20") // each restarts reconcilers on a real etcd
	goleak.VerifyTestMain(m,
		// etcd's own background work, left over from closed servers.
		goleak.IgnoreAnyFunction("go.etcd.io/etcd/pkg/v3/logutil.(*MergeLogger).outputLoop"),
		goleak.IgnoreAnyFunction("go.etcd.io/etcd/client/pkg/v3/fileutil.purgeFile.func1"),
		goleak.IgnoreAnyFunction("github.com/golang/glog.(*fileSink).flushDaemon"),
		goleak.IgnoreAnyFunction("gopkg.in/natefinch/lumberjack%2ev2.(*Logger).millRun"),
	)
}

// testingT is *testing.T or *rapid.T.
type testingT interface {
	require.TestingT
	Helper()
}

// patience is how long a test waits for something that must happen.
const patience = 30 * time.Second

func await(t testingT, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			require.Fail(t, "never happened: "+what)
		}
	}
}

// side is the other side of a driver: it holds the sets it was sent, and can be made to fail.
type side struct {
	mu       sync.Mutex
	sets     map[string]Set // by app; those without rules are not kept
	told     map[string]int // calls that arrived, by app
	calls    int
	current  int
	most     int // the most concurrent calls
	working  map[string]bool
	overlaps int // calls for an app while another was in flight
	state    string
	epoch    int
	down     error
	stateErr error
	poison   map[string]error  // by app
	refuses  map[string]string // reasons by rule id
	hold     chan struct{}     // calls wait for it if it is not nil
	arrived  chan string       // receives the apps of held calls
	answered func(app string)  // called after a set was accepted, before it is acknowledged
}

func newSide() *side {
	return &side{
		sets: make(map[string]Set), told: make(map[string]int), working: make(map[string]bool), refuses: make(map[string]string),
		poison: make(map[string]error), state: "epoch-0", arrived: make(chan string, 1024),
	}
}

func (s *side) Name() string { return "fake" }

func (s *side) Apply(ctx context.Context, set Set) (Report, error) {
	app := set.AppInstanceID
	s.mu.Lock()
	s.calls++
	s.told[app]++
	s.current++
	s.most = max(s.most, s.current)
	if s.working[app] {
		s.overlaps++
	}
	s.working[app] = true
	hold := s.hold
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.current--
		delete(s.working, app)
	}()
	if hold != nil {
		s.arrived <- app
		select {
		case <-hold:
		case <-ctx.Done():
			return Report{}, ctx.Err()
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := errors.Join(s.down, s.poison[app]); err != nil {
		return Report{}, err
	}
	report := Report{Failed: make(map[string]string)}
	held := set
	held.Traffic, held.DNS = nil, nil
	for _, rule := range set.Traffic {
		if reason, no := s.refuses[rule.TrafficRuleID]; no {
			report.Failed[rule.TrafficRuleID] = reason
		} else {
			held.Traffic = append(held.Traffic, rule)
		}
	}
	for _, rule := range set.DNS {
		if reason, no := s.refuses[rule.DNSRuleID]; no {
			report.Failed[rule.DNSRuleID] = reason
		} else {
			held.DNS = append(held.DNS, rule)
		}
	}
	if held.size() > 0 {
		s.sets[app] = held
	} else {
		delete(s.sets, app)
	}
	if s.answered != nil {
		s.answered(app)
	}
	return report, nil
}

func (s *side) State(context.Context) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state, errors.Join(s.down, s.stateErr)
}

// set changes the behaviour of the side.
func (s *side) set(change func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change()
}

// lose drops everything, as a restart without a disk does.
func (s *side) lose() {
	s.set(func() {
		clear(s.sets)
		s.epoch++
		if s.state != "" {
			s.state = fmt.Sprintf("epoch-%d", s.epoch)
		}
	})
}

// holds returns the ids of the rules of an app that the side holds, sorted.
func (s *side) holds(app string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	set := s.sets[app]
	ids := set.RuleIDs()
	slices.Sort(ids)
	return ids
}

func (s *side) apps() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Sorted(maps.Keys(s.sets))
}

func (s *side) callsSoFar() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.calls
}

func (s *side) toldSoFar(app string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.told[app]
}

// records is a source over the records of traffic rules and DNS rules.
type records struct {
	traffic *watched.Collection[state.TrafficRules]
	dns     *watched.Collection[state.DNSRules]
}

func newRecords(m *watched.Mirror) *records {
	return &records{
		traffic: watched.Add(m, "traffic_rules", state.PrefixTrafficRules, decode[state.TrafficRules]),
		dns:     watched.Add(m, "dns_rules", state.PrefixDNSRules, decode[state.DNSRules]),
	}
}

func decode[R state.Record](_ string, value []byte, _ int64) (R, error) {
	return state.Decode[R](value)
}

func trafficSet(key string, rec *state.TrafficRules) Set {
	set := Set{
		Kind: mm5.TrafficRules, AppInstanceID: strings.TrimPrefix(key, state.PrefixTrafficRules), Generation: rec.Generation,
	}
	for i := range rec.Rules {
		if rule := rec.Rules[i].Present(); rec.Running && rule.State == mp1.RuleActive {
			set.Traffic = append(set.Traffic, *rule)
		}
	}
	return set
}

func dnsSet(key string, rec *state.DNSRules) Set {
	set := Set{
		Kind: mm5.DNSRules, AppInstanceID: strings.TrimPrefix(key, state.PrefixDNSRules), Generation: rec.Generation,
	}
	for i := range rec.Rules {
		if rule := rec.Rules[i].Present(); rec.Running && rule.State == mp1.RuleActive {
			set.DNS = append(set.DNS, *rule)
		}
	}
	return set
}

func (r *records) Sets(kind mm5.RuleKind) iter.Seq[Set] {
	return func(yield func(Set) bool) {
		if kind == mm5.DNSRules {
			for item := range r.dns.Snapshot().All() {
				if !yield(dnsSet(item.Key, &item.Value)) {
					return
				}
			}
			return
		}
		for item := range r.traffic.Snapshot().All() {
			if !yield(trafficSet(item.Key, &item.Value)) {
				return
			}
		}
	}
}

func (r *records) Set(kind mm5.RuleKind, app string) (Set, bool) {
	if kind == mm5.DNSRules {
		item, ok := r.dns.Snapshot().Get(state.DNSRulesKey(app))
		if !ok {
			return Set{}, false
		}
		return dnsSet(item.Key, &item.Value), true
	}
	item, ok := r.traffic.Snapshot().Get(state.TrafficRulesKey(app))
	if !ok {
		return Set{}, false
	}
	return trafficSet(item.Key, &item.Value), true
}

func (r *records) Observe(kind mm5.RuleKind, fn func(string)) (stop func()) {
	if kind == mm5.DNSRules {
		_, stop = r.dns.Observe(func(c watched.Change[state.DNSRules]) { fn(strings.TrimPrefix(c.Key, state.PrefixDNSRules)) })
		return stop
	}
	_, stop = r.traffic.Observe(func(c watched.Change[state.TrafficRules]) {
		fn(strings.TrimPrefix(c.Key, state.PrefixTrafficRules))
	})
	return stop
}

// platform is an etcd with a copy of its rules and statuses.
type platform struct {
	server   *etcdtest.Server
	store    *etcd.Store
	mirror   *watched.Mirror
	src      *records
	statuses *Statuses
}

func newPlatform(tb testing.TB) *platform {
	tb.Helper()
	p := &platform{server: etcdtest.Start(tb)}
	p.store = p.server.Store(tb)
	p.mirror = watched.New(watched.Config{
		Source: p.store.Source, Prefix: state.Root, ProbeInterval: 50 * time.Millisecond, Logger: slog.New(slog.DiscardHandler),
	})
	p.src, p.statuses = newRecords(p.mirror), NewStatuses(p.mirror)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = p.mirror.Run(ctx)
	}()
	tb.Cleanup(func() { cancel(); <-done })
	<-p.mirror.Ready()
	return p
}

const name = "dataplane"

// quick is a configuration that does not make a test wait.
func quick() Config {
	return Config{
		Kind: mm5.TrafficRules, Name: name, Probe: 5 * time.Millisecond, Timeout: 10 * time.Second,
		MinBackoff: time.Millisecond, MaxBackoff: 10 * time.Millisecond,
		minRefused: time.Millisecond, maxRefused: 5 * time.Millisecond,
	}
}

func (p *platform) reconciler(cfg Config, driver Driver) *Reconciler {
	return New(cfg, driver, p.src, p.statuses, p.store, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
}

// lead runs a reconciler for one term, until stop is called or the test ends.
func lead(tb testing.TB, r *Reconciler, term leader.Term) (stop func()) {
	tb.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx, term) }()
	stop = sync.OnceFunc(func() {
		cancel()
		require.NoError(tb, <-done)
	})
	tb.Cleanup(stop)
	return stop
}

func appName(i int) string { return fmt.Sprintf("app-%04d", i) }

func traffic(ids ...string) []state.Rule[mp1.TrafficRule] {
	rules := []state.Rule[mp1.TrafficRule]{}
	for i, id := range ids {
		rules = append(rules, state.Rule[mp1.TrafficRule]{Declared: mp1.TrafficRule{
			TrafficRuleID: id, FilterType: mp1.FilterFlow, Priority: &i, Action: mp1.ActionDrop, State: mp1.RuleActive,
			TrafficFilter: []mp1.TrafficFilter{{SrcAddress: []string{"10.0.0.1"}}},
		}})
	}
	return rules
}

// declare puts rules of a running app in force.
func (p *platform) declare(t testingT, app string, generation int64, ids ...string) {
	t.Helper()
	p.put(t, state.TrafficRulesKey(app), state.TrafficRules{
		Version: state.Current(), Generation: generation, Running: true, Rules: traffic(ids...),
	})
}

func (p *platform) put(t testingT, key string, record state.Record) {
	t.Helper()
	value, err := state.Encode(record)
	require.NoError(t, err)
	p.do(t, clientv3.OpPut(key, value))
}

// remove ends an app: its rules are gone.
func (p *platform) remove(t testingT, app string) {
	t.Helper()
	p.do(t, clientv3.OpDelete(state.TrafficRulesKey(app)))
}

func (p *platform) do(t testingT, ops ...clientv3.Op) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	_, err := p.store.Client.Txn(ctx).Then(ops...).Commit()
	require.NoError(t, err)
}

// reported returns the status record of an app as etcd holds it, nil if there is none, and how often it was written.
func (p *platform) reported(t testingT, app string) (status *state.Status, writes int64) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	resp, err := p.store.Client.Get(ctx, state.StatusKey(name, app))
	require.NoError(t, err)
	if len(resp.Kvs) == 0 {
		return nil, 0
	}
	kv := resp.Kvs[0]
	s, err := state.Decode[state.Status](kv.Value)
	require.NoError(t, err)
	return &s, kv.Version
}

// awaitReport waits for a status of the generation and returns it.
func (p *platform) awaitReport(t testingT, app string, generation int64) *state.Status {
	t.Helper()
	var last *state.Status
	await(t, fmt.Sprintf("a report on generation %d of %s", generation, app), func() bool {
		last, _ = p.reported(t, app)
		return last != nil && last.Generation == generation
	})
	return last
}

func (p *platform) awaitNoReport(t testingT, app string) {
	t.Helper()
	await(t, "the report on "+app+" is removed", func() bool {
		s, _ := p.reported(t, app)
		return s == nil
	})
}
