package lifecycle_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/goleak"

	"github.com/openmep/mep/api/mm5"
	"github.com/openmep/mep/api/mp1"
	"github.com/openmep/mep/api/state"
	"github.com/openmep/mep/kit/etcd"
	"github.com/openmep/mep/kit/etcdtest"
	"github.com/openmep/mep/kit/identity"
	"github.com/openmep/mep/kit/leader"
	"github.com/openmep/mep/kit/watched"
	"github.com/openmep/mep/mepserver/apps"
	"github.com/openmep/mep/mepserver/callback"
	"github.com/openmep/mep/mepserver/lifecycle"
	"github.com/openmep/mep/mepserver/operation"
	"github.com/openmep/mep/mepserver/reconcile"
	"github.com/openmep/mep/mepserver/registry"
	"github.com/openmep/mep/mepserver/rules"
	"github.com/openmep/mep/mepserver/subscription"
	"github.com/openmep/mep/mepserver/termination"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("go.etcd.io/etcd/server/v3/etcdserver/api/v3rpc.(*serverWatchStream).recvLoop"))
}

// process holds what belongs to one process: a manager on its own copy of the state, and an engine.
type process struct {
	*lifecycle.Manager
	engine *lifecycle.Engine
	stop   func()
}

// options are the options of a process.
type options struct {
	appliers map[mm5.RuleKind]string
	policy   *lifecycle.Policy
	wrap     func(clientv3.KV) clientv3.KV
	idle     bool // the engine does not run
	log      *slog.Logger
}

func policy() *lifecycle.Policy {
	return &lifecycle.Policy{
		Limits: mp1.RuleLimits{TrafficRules: 64, DNSRules: 128, Filters: 16}, GracefulTimeout: time.Minute,
		RuleTimeout: time.Second, OperationTimeout: time.Minute, Retention: time.Hour, MaxOperations: 1000,
	}
}

func start(t *testing.T, server *etcdtest.Server, o options) *process {
	t.Helper()
	client := server.Client(t)
	kv := clientv3.KV(client)
	if o.wrap != nil {
		kv = o.wrap(kv)
	}
	if o.policy == nil {
		o.policy = policy()
	}
	if o.log == nil {
		o.log = slog.New(slog.DiscardHandler)
	}
	store := etcd.NewStore(client, kv, client, 5*time.Second)
	m := watched.New(watched.Config{Source: client, Prefix: state.Root, Logger: slog.New(slog.DiscardHandler)})
	dir := apps.New(m, false)
	targets := &callback.Policy{AllowLoopback: true}
	regPolicy := func() registry.Policy {
		return registry.Policy{MaxServices: 1000, MinInterval: 1, MaxInterval: 60, DefaultInterval: 60}
	}
	book := termination.New(m, store, dir, func() subscription.Policy { return subscription.Policy{Max: 100, Targets: targets} })
	statuses := reconcile.NewStatuses(m)
	p := &process{Manager: (&lifecycle.Manager{
		Store: store, Mirror: m, Apps: dir, Traffic: rules.New(m, store, rules.Traffic), DNS: rules.New(m, store, rules.DNS),
		Operations: operation.NewLog(m), Statuses: statuses, Appliers: o.appliers, Registry: registry.New(m, store, dir, regPolicy),
		Availability: subscription.New(m, store, dir, func() subscription.Policy { return subscription.Policy{Max: 100, Targets: targets} }),
		Termination:  book, Identities: identity.NewDirectory(m), Registered: func(string) bool { return false }, Policy: func() lifecycle.Policy { return *o.policy },
	}).Init()}
	callbacks := callback.NewClient(func() *callback.Policy { return targets })
	teller := termination.NewTeller(book, callbacks, func() string { return "http://mep" }, slog.New(slog.DiscardHandler), nil)
	p.engine = lifecycle.NewEngine(p.Manager, teller, statuses.Observe, o.log, nil)
	ctx, cancel := context.WithCancel(context.Background())
	var workers sync.WaitGroup
	workers.Go(func() { _ = m.Run(ctx) })
	select {
	case <-m.Ready():
	case <-time.After(20 * time.Second):
		t.Fatal("the state was not read in time")
	}
	if !o.idle {
		workers.Go(func() { p.removeCredentials(ctx) })
		workers.Go(func() { _ = p.engine.Run(ctx, leader.Term{}) })
	}
	p.stop = sync.OnceFunc(func() { cancel(); workers.Wait(); callbacks.CloseIdle() })
	t.Cleanup(p.stop)
	return p
}

// removeCredentials does mepauth's part.
func (p *process) removeCredentials(ctx context.Context) {
	for resp := range p.Store.Client.Watch(ctx, state.PrefixEnded, clientv3.WithPrefix(), clientv3.WithRev(1)) {
		for _, ev := range resp.Events {
			if ev.IsCreate() {
				_, _ = p.Store.Client.Delete(ctx, state.CredentialKey("ak-"+strings.TrimPrefix(string(ev.Kv.Key), state.PrefixEnded)))
				_, _ = p.Store.Client.Delete(ctx, string(ev.Kv.Key))
			}
		}
	}
}

const app = "5abe4782-2c70-4e47-9a4e-0ee3a1a0fd1f"

func trafficRule(id string) mp1.TrafficRule {
	priority := 1
	return mp1.TrafficRule{
		TrafficRuleID: id, FilterType: mp1.FilterFlow, Priority: &priority, Action: mp1.ActionDrop, State: mp1.RuleActive,
		TrafficFilter: []mp1.TrafficFilter{{SrcAddress: []string{"10.0.0.0/8"}}},
	}
}

func dnsRule(id, address string) mp1.DNSRule {
	return mp1.DNSRule{DNSRuleID: id, DomainName: id + ".example", IPAddressType: mp1.IPv4, IPAddress: address, State: mp1.RuleActive}
}

// config returns a configuration in which every rule carries the mark.
func config(mark string, count int) mm5.ConfigPlatformForAppRequest {
	r := mm5.ConfigPlatformForAppRequest{AppName: mark}
	for i := range count {
		t := trafficRule(fmt.Sprintf("t%d", i))
		t.TrafficFilter[0].Tag = []string{mark}
		r.AppTrafficRule = append(r.AppTrafficRule, t)
		d := dnsRule(fmt.Sprintf("d%d", i), "10.0.0.1")
		d.DomainName = mark + ".example"
		r.AppDNSRule = append(r.AppDNSRule, d)
	}
	return r
}

func (p *process) configure(t *testing.T, id string, r mm5.ConfigPlatformForAppRequest) string {
	t.Helper()
	op, err := p.Configure(t.Context(), lifecycle.Configure{AppInstanceID: id, Request: r})
	require.NoError(t, err)
	return op
}

func (p *process) op(t *testing.T, id string) mm5.AppLcmOpOcc {
	t.Helper()
	item, err := p.Operations.Get(id)
	require.NoError(t, err)
	return p.View(item, "")
}

// ends waits for the end of an operation.
func (p *process) ends(t *testing.T, id string) mm5.AppLcmOpOcc {
	t.Helper()
	var v mm5.AppLcmOpOcc
	require.Eventually(t, func() bool { v = p.op(t, id); return v.OperationState.Done() }, 20*time.Second, 5*time.Millisecond)
	return v
}

func (p *process) state(id string) mm5.Lifecycle {
	item, ok := p.Apps.Get(id)
	if !ok {
		return "GONE"
	}
	return item.Value.Record.State()
}

// report writes what a reconciler would report.
func (p *process) report(t *testing.T, reconciler, id string, generation int64, failed map[string]string) {
	t.Helper()
	value, err := state.Encode(state.Status{Version: state.Current(), Generation: generation, Failed: failed, Reported: time.Now()})
	require.NoError(t, err)
	resp, err := p.Store.Client.Put(t.Context(), state.StatusKey(reconciler, id), value)
	require.NoError(t, err)
	require.NoError(t, p.Mirror.WaitRevision(t.Context(), resp.Header.Revision))
}

// keys returns the keys below the root that contain the text.
func keys(t *testing.T, client *clientv3.Client, text string) []string {
	t.Helper()
	resp, err := client.Get(t.Context(), "/mep/", clientv3.WithPrefix(), clientv3.WithKeysOnly())
	require.NoError(t, err)
	list := []string{}
	for _, kv := range resp.Kvs {
		if strings.Contains(string(kv.Key), text) {
			list = append(list, string(kv.Key))
		}
	}
	return list
}

// subscriber receives termination notices.
type subscriber struct {
	*httptest.Server
	mu     sync.Mutex
	took   []mp1.AppTerminationNotification
	ids    []string
	answer func(n int) int
}

func newSubscriber(t *testing.T, answer func(n int) int) *subscriber {
	t.Helper()
	s := &subscriber{answer: answer}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var n mp1.AppTerminationNotification
		if json.NewDecoder(r.Body).Decode(&n) != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		s.mu.Lock()
		s.took, s.ids = append(s.took, n), append(s.ids, r.Header.Get("X-Notification-Id"))
		count := len(s.took)
		s.mu.Unlock()
		w.WriteHeader(s.answer(count))
	}))
	t.Cleanup(s.Close)
	return s
}

func (s *subscriber) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.took)
}

func always(status int) func(int) int { return func(int) int { return status } }

func (p *process) subscribe(t *testing.T, id, url string) {
	t.Helper()
	_, err := p.Termination.Create(t.Context(), id, mp1.AppTerminationNotificationSubscription{CallbackReference: url})
	require.NoError(t, err)
}

// errCrashed is what etcd calls return to a process after it was killed.
var errCrashed = errors.New("the process was killed")

// mortal is a connection to etcd that dies with, or just after, its n-th transaction.
type mortal struct {
	clientv3.KV
	mu    sync.Mutex
	left  int
	after bool // the last transaction is committed, but its response is lost
}

func (m *mortal) Txn(ctx context.Context) clientv3.Txn { return &mortalTxn{Txn: m.KV.Txn(ctx), m: m} }

type mortalTxn struct {
	clientv3.Txn
	m *mortal
}

func (t *mortalTxn) If(c ...clientv3.Cmp) clientv3.Txn  { t.Txn = t.Txn.If(c...); return t }
func (t *mortalTxn) Then(o ...clientv3.Op) clientv3.Txn { t.Txn = t.Txn.Then(o...); return t }
func (t *mortalTxn) Else(o ...clientv3.Op) clientv3.Txn { t.Txn = t.Txn.Else(o...); return t }

func (t *mortalTxn) Commit() (*clientv3.TxnResponse, error) {
	t.m.mu.Lock()
	t.m.left--
	left := t.m.left
	t.m.mu.Unlock()
	if left > 0 {
		return t.Txn.Commit()
	}
	if left == 0 && t.m.after {
		_, _ = t.Txn.Commit()
	}
	return nil, errCrashed
}

// dead reports whether the process has died.
func (m *mortal) dead() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.left <= 0
}
