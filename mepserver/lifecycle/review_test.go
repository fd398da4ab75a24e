package lifecycle_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/openmep/mep/api/mm5"
	"github.com/openmep/mep/api/mp1"
	"github.com/openmep/mep/api/state"
	"github.com/openmep/mep/kit/errs"
	"github.com/openmep/mep/kit/etcdtest"
	"github.com/openmep/mep/mepserver/lifecycle"
	"github.com/openmep/mep/mepserver/rules"
)

// listener receives what is logged.
type listener struct {
	slog.Handler
	hear func(message string)
}

func (l *listener) Enabled(context.Context, slog.Level) bool { return true }

func (l *listener) Handle(_ context.Context, r slog.Record) error {
	l.hear(r.Message)
	return nil
}

func TestATerminationRightAfterAStopDoesEverything(t *testing.T) {
	var p *process
	var once sync.Once
	done := make(chan string, 1)
	log := slog.New(&listener{Handler: slog.DiscardHandler, hear: func(message string) {
		if message == "app instance has ended" {
			once.Do(func() { // before the engine looks again
				id, err := p.Terminate(context.Background(), app, lifecycle.Grace{}, false)
				if err != nil {
					id = err.Error()
				}
				done <- id
			})
		}
	}})
	p = start(t, etcdtest.Start(t), options{log: log})
	furnish(t, p, app)
	_, err := p.Stop(t.Context(), app, lifecycle.Grace{})
	require.NoError(t, err)
	require.Equal(t, mm5.OperationCompleted, p.ends(t, <-done).OperationState)
	nothingLeft(t, p, app)
}

func TestATerminationTakesOverAStopAtAnyStep(t *testing.T) {
	server := etcdtest.Start(t)
	p := start(t, server, options{idle: true})
	steps := []state.EndingStep{
		state.StepNotice, state.StepRules, state.StepServices, state.StepSubscriptions, state.StepCredentials, state.StepEnd,
	}
	ops := map[string]string{}
	for _, step := range steps {
		id := "app-" + string(step)
		furnish(t, p, id)
		_, err := p.Stop(t.Context(), id, lifecycle.Grace{})
		require.NoError(t, err)
		item, _ := p.Apps.Get(id)
		rec, ending := item.Value.Record, *item.Value.Record.Ending
		ending.Step = step
		rec.Ending = &ending
		value, err := state.Encode(rec)
		require.NoError(t, err)
		resp, err := p.Store.Client.Put(t.Context(), item.Key, value)
		require.NoError(t, err)
		require.NoError(t, p.Mirror.WaitRevision(t.Context(), resp.Header.Revision))
		ops[id], err = p.Terminate(t.Context(), id, lifecycle.Grace{}, false)
		require.NoError(t, err)
	}
	next := start(t, server, options{})
	for id, op := range ops {
		require.Equal(t, mm5.OperationCompleted, next.ends(t, op).OperationState)
		require.False(t, next.HasCredentials(id))
	}
}

// full is an etcd without free space.
type full struct {
	clientv3.KV
	on atomic.Bool
}

func (f *full) Txn(ctx context.Context) clientv3.Txn { return &fullTxn{Txn: f.KV.Txn(ctx), f: f} }

type fullTxn struct {
	clientv3.Txn
	f    *full
	puts bool
}

func (t *fullTxn) If(c ...clientv3.Cmp) clientv3.Txn  { t.Txn = t.Txn.If(c...); return t }
func (t *fullTxn) Else(o ...clientv3.Op) clientv3.Txn { t.Txn = t.Txn.Else(o...); return t }

func (t *fullTxn) Then(o ...clientv3.Op) clientv3.Txn {
	for _, op := range o {
		t.puts = t.puts || op.IsPut()
	}
	t.Txn = t.Txn.Then(o...)
	return t
}

func (t *fullTxn) Commit() (*clientv3.TxnResponse, error) {
	if t.puts && t.f.on.Load() {
		return nil, rpctypes.ErrNoSpace
	}
	return t.Txn.Commit()
}

func TestWithoutRoomATerminationEndsAndAStopWaits(t *testing.T) {
	server := etcdtest.Start(t)
	p := start(t, server, options{idle: true})
	f := &full{}
	ops := map[string]string{}
	for _, id := range []string{"stops", "ends"} {
		p.configure(t, id, config("a", 1))
		require.NoError(t, p.Ready(t.Context(), id))
	}
	var err error
	ops["stops"], err = p.Stop(t.Context(), "stops", lifecycle.Grace{})
	require.NoError(t, err)
	ops["ends"], err = p.Terminate(t.Context(), "ends", lifecycle.Grace{}, false)
	require.NoError(t, err)
	f.on.Store(true)
	next := start(t, server, options{wrap: func(kv clientv3.KV) clientv3.KV { f.KV = kv; return f }})
	require.Eventually(t, func() bool { return next.state("ends") == "GONE" }, 20*time.Second, 5*time.Millisecond)
	require.Equal(t, mm5.LifecycleStopping, next.state("stops"))
	f.on.Store(false)
	for _, op := range ops {
		require.Equal(t, mm5.OperationCompleted, next.ends(t, op).OperationState)
	}
	require.Equal(t, mm5.LifecycleStopped, next.state("stops"))
	require.False(t, next.Traffic.Of("stops").Value.Record.Running)
}

func TestLargeServicesAreRemovedInSeveralTransactions(t *testing.T) {
	p := start(t, etcdtest.Start(t), options{})
	p.configure(t, app, config("a", 1))
	var uris []string
	for range 100 {
		uris = append(uris, "http://s/"+strings.Repeat("x", 1900))
	}
	for i := range 12 {
		_, err := p.Registry.Register(t.Context(), app, mp1.ServiceInfo{
			SerName: fmt.Sprint("s", i), Version: "1", State: mp1.StateActive, Serializer: "JSON",
			TransportInfo: &mp1.TransportInfo{ID: "t", Name: "t", Type: "REST_HTTP", Protocol: "HTTP", Version: "1", Endpoint: &mp1.EndPointInfo{URIs: uris}, Security: &mp1.SecurityInfo{}},
		})
		require.NoError(t, err)
	}
	op, err := p.Terminate(t.Context(), app, lifecycle.Grace{}, false)
	require.NoError(t, err)
	require.Equal(t, mm5.OperationCompleted, p.ends(t, op).OperationState)
}

func TestAManagersNameIsNoAppInstance(t *testing.T) {
	p := start(t, etcdtest.Start(t), options{})
	value, err := state.Encode(state.Credential{Version: state.Current(), Subject: "mepm", Scopes: []string{"mm5"}})
	require.NoError(t, err)
	resp, err := p.Store.Client.Put(t.Context(), state.CredentialKey("ak-mepm"), value)
	require.NoError(t, err)
	require.NoError(t, p.Mirror.WaitRevision(t.Context(), resp.Header.Revision))
	_, err = p.Configure(t.Context(), lifecycle.Configure{AppInstanceID: "mepm", Request: config("a", 1)})
	require.ErrorIs(t, err, errs.Conflict)
	require.False(t, p.HasCredentials("mepm"))
}

func TestAReportOfAFormerLifeSaysNothing(t *testing.T) {
	p := start(t, etcdtest.Start(t), options{appliers: map[mm5.RuleKind]string{mm5.TrafficRules: "dataplane"}})
	p.configure(t, app, config("a", 1))
	require.NoError(t, p.Ready(t.Context(), app))
	p.report(t, "dataplane", app, p.Traffic.Of(app).Value.Record.Generation, nil)
	op, err := p.Terminate(t.Context(), app, lifecycle.Grace{}, false)
	require.NoError(t, err)
	p.ends(t, op) // without the reconciler: the rules are still in force on the other side
	op = p.configure(t, app, config("b", 1))
	require.Equal(t, mm5.OperationProcessing, p.op(t, op).OperationState)
	_, err = p.Store.Client.Delete(t.Context(), state.StatusKey("dataplane", app)) // it withdrew them
	require.NoError(t, err)
	require.Equal(t, mm5.OperationCompleted, p.ends(t, op).OperationState)
}

func TestAnAppThatIsForgottenLeavesNoService(t *testing.T) {
	server := etcdtest.Start(t)
	p, q := start(t, server, options{}), start(t, server, options{idle: true})
	for i := range 100 {
		id := fmt.Sprint("app", i)
		p.configure(t, id, config("a", 1))
		require.NoError(t, q.Mirror.WaitRevision(t.Context(), p.Mirror.Revision()))
		registered := make(chan error, 1)
		go func() {
			_, err := q.Registry.Register(context.Background(), id, mp1.ServiceInfo{
				SerName: "s", Version: "1", State: mp1.StateActive, Serializer: "JSON", TransportInfo: &mp1.TransportInfo{ID: "t"},
			})
			registered <- err
		}()
		time.Sleep(time.Duration(i%20) * 50 * time.Microsecond)
		op, err := p.Unconfigure(t.Context(), id, false, nil)
		require.NoError(t, err)
		p.ends(t, op)
		rerr := <-registered
		revision, err := p.Store.Revision(t.Context(), state.Root)
		require.NoError(t, err)
		require.NoError(t, p.Mirror.WaitRevision(t.Context(), revision))
		if p.state(id) == "GONE" {
			require.Empty(t, keys(t, p.Store.Client, state.PrefixServices+id+"/"), "registered: %v", rerr)
		}
	}
}

// TestWhatALaggingReplicaIsAskedForIsDone asks one replica to undo what another one has just done: its copy may still show
// the desired state.
func TestWhatALaggingReplicaIsAskedForIsDone(t *testing.T) {
	server := etcdtest.Start(t)
	p, q := start(t, server, options{}), start(t, server, options{idle: true})
	settle := func() {
		revision, err := p.Store.Revision(t.Context(), state.Root)
		require.NoError(t, err)
		require.NoError(t, p.Mirror.WaitRevision(t.Context(), revision))
		require.NoError(t, q.Mirror.WaitRevision(t.Context(), revision))
	}
	p.configure(t, app, config("a", 1))
	require.NoError(t, p.Ready(t.Context(), app))
	set := func(x *process, s mp1.RuleState) {
		_, err := x.Traffic.Change(t.Context(), app, "t0", setState, func(r mp1.TrafficRule, _ *rules.View[mp1.TrafficRule]) (mp1.TrafficRule, error) {
			r.State = s
			return r, nil
		})
		require.NoError(t, err)
	}
	for i := range 100 {
		settle()
		p.configure(t, app, config(fmt.Sprint("n", i), 1))
		q.configure(t, app, config("a", 1))
		set(p, mp1.RuleInactive)
		set(q, mp1.RuleActive)
		settle()
		cfg, _ := p.Configuration(app)
		require.Equal(t, "a", cfg.Value.Request.AppName)
		require.Equal(t, mp1.RuleActive, p.Traffic.Views(app, setState)[0].State)
	}
}

func TestAllSubscribersAreToldAlsoAfterTheFirstConfirmation(t *testing.T) {
	p := start(t, etcdtest.Start(t), options{})
	p.configure(t, app, config("a", 1))
	first := newSubscriber(t, func(int) int {
		if p.Confirm(context.Background(), app, mp1.ActionTerminating) != nil {
			return http.StatusInternalServerError
		}
		return http.StatusNoContent
	})
	second := newSubscriber(t, func(n int) int {
		if n == 1 {
			return http.StatusServiceUnavailable
		}
		return http.StatusNoContent
	})
	p.subscribe(t, app, first.URL)
	p.subscribe(t, app, second.URL)
	op, err := p.Terminate(t.Context(), app, lifecycle.Grace{Graceful: true, Timeout: time.Hour}, false)
	require.NoError(t, err)
	require.Equal(t, mm5.OperationCompleted, p.ends(t, op).OperationState)
	require.Eventually(t, func() bool { return second.count() == 2 }, 10*time.Second, 5*time.Millisecond)
}

func TestWhatChangesNothingOvertakesNothing(t *testing.T) {
	p := start(t, etcdtest.Start(t), options{appliers: map[mm5.RuleKind]string{mm5.TrafficRules: "dataplane"}})
	configured := p.configure(t, app, config("a", 1))
	started, err := p.Start(t.Context(), app)
	require.NoError(t, err)
	require.Equal(t, configured, p.configure(t, app, config("a", 1)))
	require.Equal(t, mm5.OperationProcessing, p.op(t, started).OperationState)
	next := p.configure(t, app, config("b", 1))
	require.Equal(t, mm5.OperationFailed, p.ends(t, started).OperationState)
	_, err = p.Start(t.Context(), app)
	require.NoError(t, err)
	require.Equal(t, mm5.OperationProcessing, p.op(t, next).OperationState)
	p.report(t, "dataplane", app, p.Traffic.Of(app).Value.Record.Generation, nil)
	require.Equal(t, mm5.OperationCompleted, p.ends(t, next).OperationState)
}

func TestTheEndOfAnOperationFitsWhateverTheReasons(t *testing.T) {
	limits := policy()
	limits.Limits = mp1.RuleLimits{TrafficRules: 1000, DNSRules: 1000, Filters: 16}
	p := start(t, etcdtest.Start(t), options{policy: limits, appliers: map[mm5.RuleKind]string{mm5.TrafficRules: "dataplane", mm5.DNSRules: "dns"}})
	p.configure(t, app, config("a", 1000))
	op, err := p.Start(t.Context(), app)
	require.NoError(t, err)
	failed := map[string]map[string]string{"t": {}, "d": {}}
	for i := range 1000 {
		for kind, reasons := range failed {
			reasons[fmt.Sprint(kind, i)] = strings.Repeat("<", 128)
		}
	}
	p.report(t, "dataplane", app, p.Traffic.Of(app).Value.Record.Generation, failed["t"])
	p.report(t, "dns", app, p.DNS.Of(app).Value.Record.Generation, failed["d"])
	v := p.ends(t, op)
	require.Equal(t, mm5.OperationFailed, v.OperationState)
	require.Len(t, v.RuleResults, 2000)
}
