package reconcile

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/openmep/mep/kit/leader"
)

// The reasons for sending everything.
const (
	resyncStart    = "start"
	resyncInterval = "interval"
	resyncState    = "state"
)

// tenure is the work of one term of leadership.
type tenure struct {
	*Reconciler
	term  leader.Term
	queue *queue
	end   context.CancelFunc

	unsaved atomic.Bool // the last write of a status record failed

	// The state of the other side, used by one goroutine at a time.
	state string
	asked bool // the other side has answered a request for its state

	mu      sync.Mutex
	apply   contact
	probe   contact
	resyncs int
}

// contact records how calls of one kind fare.
type contact struct {
	last, failingSince time.Time
	err                string
}

// note records the outcome of a call and reports whether it differs from the previous outcome.
func (c *contact) note(now time.Time, err error) (turned bool) {
	now = now.UTC()
	turned = (err != nil) == c.failingSince.IsZero()
	if err == nil {
		c.last, c.failingSince, c.err = now, time.Time{}, ""
		return turned
	}
	c.err = err.Error()
	if turned {
		c.failingSince = now
	}
	return turned
}

func newTenure(r *Reconciler, term leader.Term) *tenure {
	t := &tenure{Reconciler: r, term: term}
	t.queue = newQueue(r.cfg.Workers, newGate(r.cfg.MinBackoff, r.cfg.MaxBackoff), func(pending, refused int) {
		r.metrics.pending.Set(float64(pending))
		r.metrics.rulesRefused.Set(float64(refused))
	})
	return t
}

// run works until ctx ends or a successor has taken over. It returns once all its goroutines have ended.
func (t *tenure) run(ctx context.Context) {
	ctx, t.end = context.WithCancel(ctx)
	defer t.end()
	if !t.catchUp(ctx) {
		return
	}
	defer t.src.Observe(t.cfg.Kind, func(app string) { t.queue.mark(app) })()
	defer t.statuses.Observe(func(reconciler, app string) {
		if reconciler == t.cfg.Name {
			t.queue.mark(app)
		}
	})()
	// Ask before anything is sent, so that a loss of state in the meantime is noticed.
	t.askState(ctx)
	t.resync(resyncStart)
	var others sync.WaitGroup
	others.Go(func() { t.watch(ctx) })
	t.dispatch(ctx)
	others.Wait()
}

// catchUp waits until this process knows what its predecessor knew: going back to older rules, even for a moment, would break
// connections.
func (t *tenure) catchUp(ctx context.Context) bool {
	for attempt := 1; ; attempt++ {
		err := t.statuses.catchUp(ctx, t.store)
		if err == nil {
			return true
		}
		if ctx.Err() != nil {
			return false
		}
		if attempt == 1 {
			t.log.Warn("rules wait for etcd", "error", err)
		}
		select {
		case <-ctx.Done():
			return false
		case <-time.After(500 * time.Millisecond):
		}
	}
}

// watch polls the state of the other side, and sends everything again when that is due.
func (t *tenure) watch(ctx context.Context) {
	probe := time.NewTicker(t.cfg.Probe)
	defer probe.Stop()
	var resync <-chan time.Time
	if t.cfg.Resync > 0 {
		ticker := time.NewTicker(t.cfg.Resync)
		defer ticker.Stop()
		resync = ticker.C
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-resync:
			t.resync(resyncInterval)
		case <-probe.C:
			if t.askState(ctx) {
				t.log.Warn("the other side lost what it was told, it is told everything again", "driver", t.driver.Name())
				t.resync(resyncState)
			}
		}
	}
}

// askState asks the other side for its state and reports whether it lost what it was sent.
func (t *tenure) askState(ctx context.Context) (lost bool) {
	call, cancel := context.WithTimeout(ctx, t.cfg.Timeout)
	defer cancel()
	state, err := t.driver.State(call)
	if ctx.Err() != nil {
		return false
	}
	now := t.cfg.now()
	t.mu.Lock()
	turned := t.probe.note(now, err)
	answeredBefore := !t.apply.last.IsZero()
	t.mu.Unlock()
	if err != nil {
		if turned {
			t.log.Warn("the state of the other side is not known, asking again", "driver", t.driver.Name(), "error", err)
		}
		return false
	}
	if turned {
		t.queue.hurry(now)
	}
	if state != "" {
		// The first state counts as changed if it could not be obtained before something was sent.
		lost = t.state != state && (t.state != "" || !t.asked && answeredBefore)
		t.state = state
	}
	t.asked = true
	return lost
}

// resync has everything sent once: for all app instances that have rules, a status report or an entry in the queue.
func (t *tenure) resync(reason string) {
	apps := slices.Collect(t.statuses.Apps(t.cfg.Name))
	for set := range t.src.Sets(t.cfg.Kind) {
		apps = append(apps, set.AppInstanceID)
	}
	t.queue.markAll(apps)
	t.metrics.resyncs.WithLabelValues(reason).Inc()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.resyncs++
}

// dispatch hands workers the entries that are due.
func (t *tenure) dispatch(ctx context.Context) {
	var workers sync.WaitGroup
	defer workers.Wait()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for ctx.Err() == nil {
		e, force, wait := t.queue.take(t.cfg.now())
		if e != nil {
			workers.Go(func() { t.serve(ctx, e, force) })
			continue
		}
		timer.Reset(wait)
		select {
		case <-ctx.Done():
		case <-t.queue.wake:
		case <-timer.C:
		}
	}
}

func (t *tenure) health() Health {
	h := t.contacts()
	h.Pending, h.Refused = t.queue.numbers() // read after Resyncs, so that it includes what those resyncs queued
	return h
}

func (t *tenure) contacts() Health {
	t.mu.Lock()
	defer t.mu.Unlock()
	h := Health{Leading: true, Resyncs: t.resyncs, LastContact: later(t.apply.last, t.probe.last)}
	for _, c := range []*contact{&t.apply, &t.probe} {
		if !c.failingSince.IsZero() && (h.FailingSince.IsZero() || c.failingSince.Before(h.FailingSince)) {
			h.FailingSince, h.LastError = c.failingSince, c.err
		}
	}
	return h
}
