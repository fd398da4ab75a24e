package lifecycle

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/openmep/mep/api/mm5"
	"github.com/openmep/mep/api/state"
	"github.com/openmep/mep/kit/fault"
	"github.com/openmep/mep/kit/leader"
	"github.com/openmep/mep/kit/watched"
	"github.com/openmep/mep/mepserver/apps"
	"github.com/openmep/mep/mepserver/operation"
	"github.com/openmep/mep/mepserver/termination"
)

// Engine does the work that takes time: it carries stops and terminations through and records the end of operations. Only the
// leading process runs it.
type Engine struct {
	manager *Manager
	teller  *termination.Teller
	watch   func(func(reconciler, appInstanceID string)) (stop func())
	log     *slog.Logger
	metrics *metrics

	mu      sync.Mutex
	ctx     context.Context // of the current term
	fence   []clientv3.Cmp
	endings map[string]chan struct{} // wakes the worker that ends an app instance
	workers sync.WaitGroup
	slots   chan struct{}
	dirty   map[string]struct{} // app instances whose operations must be checked
	look    chan struct{}
}

// NewEngine returns an engine; watch registers a function to call whenever a reconciler has reported.
func NewEngine(m *Manager, teller *termination.Teller, watch func(func(reconciler, appInstanceID string)) (stop func()),
	log *slog.Logger, reg prometheus.Registerer,
) *Engine {
	return &Engine{
		manager: m, teller: teller, watch: watch, log: log, metrics: newMetrics(m, reg), slots: make(chan struct{}, 64), look: make(chan struct{}, 1),
		dirty: make(map[string]struct{}), endings: make(map[string]chan struct{}),
	}
}

// How often all open operations are checked, and old ones removed.
const (
	lookInterval  = time.Second
	sweepInterval = time.Minute
)

// Run works for one term of leadership.
func (e *Engine) Run(ctx context.Context, term leader.Term) error {
	m := e.manager
	e.mu.Lock()
	e.ctx, e.fence, e.endings = ctx, term.Fence(), make(map[string]chan struct{})
	e.mu.Unlock()
	_, stopApps := m.Apps.Collection().Observe(func(c watched.Change[*apps.App]) {
		switch {
		case c.New != nil && c.New.Value.Record.Ending != nil:
			e.wake(c.New.Value.ID, true)
			e.changed(c.New.Value.ID)
		case c.New != nil:
			e.wake(c.New.Value.ID, false)
		default:
			e.wake(c.Old.Value.ID, false)
		}
	})
	defer stopApps()
	_, stopOps := m.Operations.Collection().Observe(func(c watched.Change[*operation.Operation]) {
		e.metrics.count(c)
		if c.New != nil && !c.New.Value.Record.State.Done() {
			e.changed(c.New.Value.Record.AppInstanceID)
		}
	})
	defer stopOps()
	_, stopCredentials := m.Identities.Credentials().Observe(func(c watched.Change[*state.Credential]) {
		if c.New == nil {
			e.wake(c.Old.Value.Subject, false)
		}
	})
	defer stopCredentials()
	defer e.watch(func(_, appInstanceID string) {
		e.changed(appInstanceID)
		e.wake(appInstanceID, false)
	})()
	for item := range m.Apps.Collection().Snapshot().All() {
		if item.Value.Record.Ending != nil {
			e.wake(item.Value.ID, true)
		}
	}
	e.operations(ctx)
	e.workers.Wait()
	return nil
}

// wake tells the worker that ends an app instance that something changed. If there is none, begin starts one.
func (e *Engine) wake(appInstanceID string, begin bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	ch := e.endings[appInstanceID]
	if ch == nil {
		if !begin || e.ctx.Err() != nil {
			return
		}
		ch = make(chan struct{}, 1)
		e.endings[appInstanceID] = ch
		ctx := e.ctx
		e.workers.Go(func() { e.bring(ctx, appInstanceID, ch) })
	}
	select {
	case ch <- struct{}{}:
	default:
	}
}

// changed marks the operations of an app instance to be checked.
func (e *Engine) changed(appInstanceID string) {
	e.mu.Lock()
	e.dirty[appInstanceID] = struct{}{}
	e.mu.Unlock()
	select {
	case e.look <- struct{}{}:
	default:
	}
}

// operations records the end of operations until the term is over.
func (e *Engine) operations(ctx context.Context) {
	tick := time.NewTicker(lookInterval)
	defer tick.Stop()
	lastSweep := time.Now()
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
			return
		case <-e.look:
			e.mu.Lock()
			dirty := e.dirty
			e.dirty = make(map[string]struct{})
			e.mu.Unlock()
			for app := range dirty {
				e.finishAll(ctx, e.manager.Operations.OpenOf(app))
			}
		case <-tick.C:
			e.finishAll(ctx, e.manager.Operations.Open())
			if time.Since(lastSweep) >= sweepInterval || e.manager.Operations.Collection().Snapshot().Len() > e.manager.Policy().MaxOperations {
				lastSweep = time.Now()
				e.sweep(ctx)
			}
		}
	}
}

// finish records the end of an operation if it has ended.
func (e *Engine) finish(ctx context.Context, item *operation.Item) error {
	m := e.manager
	// What was stored together with the operation must be known, too.
	if m.Mirror.WaitRevision(ctx, item.ModRevision) != nil {
		return nil
	}
	p, done := item.Value.Progress(m, m.now())
	if !done {
		return nil
	}
	fault.Point("operation.reported")
	cmps, ops, err := operation.End(item, m.now(), p.State, p.Detail, p.Outcomes)
	if err == nil && len(ops) > 0 {
		_, err = m.Store.Urgent().Txn(ctx, append(cmps, e.fence...), ops, nil)
	}
	return err
}

// finishAll records the ends of operations, and logs once if that fails.
func (e *Engine) finishAll(ctx context.Context, items []*operation.Item) {
	var failed error
	for _, item := range items {
		if err := e.finish(ctx, item); err != nil {
			failed = err
		}
	}
	if failed != nil && ctx.Err() == nil {
		e.log.Warn("the end of an operation is not written down yet, trying again", "error", failed)
	}
}

// sweep removes the operations that ended long ago, and the oldest ended ones if there are too many.
func (e *Engine) sweep(ctx context.Context) {
	m := e.manager
	policy, now := m.Policy(), m.now()
	var ended []*operation.Item
	total := 0
	for item := range m.Operations.Collection().Snapshot().All() {
		total++
		if item.Value.Record.State.Done() {
			ended = append(ended, item)
		}
	}
	slices.SortFunc(ended, func(a, b *operation.Item) int { return a.Value.Record.Ended.Compare(b.Value.Record.Ended) })
	var ops []clientv3.Op
	for _, item := range ended {
		if total <= policy.MaxOperations && now.Sub(item.Value.Record.Ended) < policy.Retention {
			break
		}
		total--
		ops = append(ops, clientv3.OpDelete(item.Key))
	}
	for chunk := range slices.Chunk(ops, opsPerTxn) {
		if _, err := m.Store.Txn(ctx, e.fence, chunk, nil); err != nil {
			if ctx.Err() == nil {
				e.log.Warn("old operations are not cleared away yet, trying again", "error", err)
			}
			return
		}
	}
}

// opsPerTxn is the maximum number of operations in one transaction: etcd accepts 128 by default.
const opsPerTxn = 100

// bytesPerTxn is the maximum number of bytes one transaction writes: etcd accepts 1.5 MiB by default.
const bytesPerTxn = 512 << 10

// fits reports whether a transaction has room for more operations. The first ones always fit.
func (c *change) fits(more ...clientv3.Op) bool {
	if len(c.ops) == 0 {
		return true
	}
	size := 0
	for _, op := range append(more, c.ops...) {
		size += len(op.ValueBytes())
	}
	return len(c.ops)+len(more) <= opsPerTxn && len(c.cmps)+len(more) <= opsPerTxn && size <= bytesPerTxn
}

// after returns the time left until a moment, at most the given time however the clock was changed meanwhile.
func after(now, until time.Time, most time.Duration) time.Duration {
	return max(0, min(until.Sub(now), most))
}

// waiting returns the names of the reconcilers that have not reported yet on the current rules of an app instance.
func (e *Engine) waiting(appInstanceID string) []string {
	var list []string
	for _, kind := range []mm5.RuleKind{mm5.TrafficRules, mm5.DNSRules} {
		if _, reported, by := e.manager.Outcome(kind, appInstanceID, 0); !reported && !slices.Contains(list, by) {
			list = append(list, by)
		}
	}
	return list
}

// The steps, in order.
var stepOrder = []state.EndingStep{
	state.StepNotice, state.StepRules, state.StepServices, state.StepSubscriptions, state.StepCredentials, state.StepEnd,
}

// order returns the index of a step, -1 for none.
func order(s state.EndingStep) int { return slices.Index(stepOrder, s) }

// following returns the step after another one.
func following(s state.EndingStep) state.EndingStep {
	return stepOrder[min(order(s)+1, len(stepOrder)-1)]
}
