package reconcile

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"time"

	"github.com/openmep/mep/api/state"
	"github.com/openmep/mep/kit/errs"
	"github.com/openmep/mep/kit/fault"
)

// serve does what is to be done about an app instance: it tells the other side what is to be in force, unless it was told just
// that and nothing says that it should be told again, and records what came of it.
func (t *tenure) serve(ctx context.Context, e *entry, force bool) {
	at := t.statuses.mirror.Revision() // before the set is looked at: what comes after it has a later generation
	set, ok := t.src.Set(t.cfg.Kind, e.app)
	status, touched := t.look(e)
	gone := !ok || set.Generation == 0 && set.size() == 0
	if gone && !e.tried && status == nil && !e.record.begun {
		t.queue.finish(e, time.Time{}, true) // nothing of it was ever in force
		return
	}
	if gone {
		set = Set{Kind: t.cfg.Kind, AppInstanceID: e.app, AppName: set.AppName}
	}
	sum := fingerprint(&set)
	due := !e.retry.IsZero() && !t.cfg.now().Before(e.retry)
	if force || touched || due || !e.tried || sum != e.sum {
		ok, probe := t.queue.gate.admit(t.cfg.now())
		if !ok {
			t.queue.park(e)
			return
		}
		if touched {
			e.record = record{known: true, last: status}
		}
		if set.size() > 0 && status == nil {
			// From here on the record says that there may be something to take back.
			if err := t.record(ctx, e, &state.Status{Version: state.Current()}); err != nil {
				t.queue.gate.abandon(probe)
				t.queue.finishForced(e, t.savedLater(e))
				return
			}
			fault.Point("reconcile.announced")
		}
		if gone {
			// Later than whatever was told of the app instance, and earlier than what will be when it starts anew: generations are
			// at most the revision of the store that they are written at, and rules are written anew after they were removed.
			// What a predecessor told is not known; then it is later than all that was written.
			if set.Generation = e.gone; e.gone == 0 {
				if set.Generation = e.told + 1; e.told == 0 {
					set.Generation = at + 1
				}
				t.queue.update(e, func() { e.gone = set.Generation })
			}
		}
		t.tell(ctx, e, &set, sum, probe)
		fault.Point("reconcile.told")
	}
	if e.achieved == nil || ctx.Err() != nil {
		t.queue.finish(e, e.retry, false)
		return
	}
	want := e.achieved
	if gone {
		want = nil
	}
	status, touched = t.look(e)
	switch {
	case touched:
		// Somebody changed it since the first look. That marks the app instance, and next time it is told again.
		t.queue.finish(e, e.retry, false)
		return
	case e.record.begun || !same(status, want):
		if err := t.record(ctx, e, want); err != nil {
			t.queue.finish(e, sooner(e.retry, t.savedLater(e)), false)
			return
		}
	case !e.record.known:
		e.record = record{known: true, last: status}
	}
	fault.Point("reconcile.recorded")
	t.queue.finish(e, e.retry, gone)
}

// fingerprint tells sets apart. Encoding cannot fail: sets are made from JSON.
func fingerprint(set *Set) [sha256.Size]byte {
	b, _ := json.Marshal(set)
	return sha256.Sum256(b)
}

// tell makes one call of the driver and notes its outcome.
func (t *tenure) tell(ctx context.Context, e *entry, set *Set, sum [sha256.Size]byte, probe bool) {
	t.queue.update(e, func() {
		if e.told = max(e.told, set.Generation); set.Generation != e.gone {
			e.gone = 0
		}
	})
	call, cancel := context.WithTimeout(ctx, t.cfg.Timeout)
	defer cancel()
	start := time.Now()
	report, err := t.driver.Apply(call, *set)
	if ctx.Err() != nil {
		t.queue.gate.abandon(probe)
		return // the term is over, and the successor tells everything again
	}
	t.metrics.duration.Observe(time.Since(start).Seconds())
	now := t.cfg.now()
	t.mu.Lock()
	t.apply.note(now, err)
	t.mu.Unlock()
	if err != nil {
		t.failed(e, sum, probe, now, err)
		return
	}
	achieved := outcome(set, report)
	refused := len(achieved.Failed)
	if refused == 0 {
		t.metrics.applied.Inc()
	} else {
		t.metrics.refused.Inc()
		if e.sum != sum || e.refusals == 0 {
			t.log.Warn("rules are not in force, trying again", "app", e.app, "generation", set.Generation, "rules", refused)
		}
	}
	t.queue.update(e, func() {
		switch {
		case refused == 0:
			e.refusals, e.retry = 0, time.Time{}
		case e.sum != sum:
			e.refusals = 1
		default:
			e.refusals++
		}
		if refused > 0 {
			e.retry = now.Add(backoff(e.refusals, t.cfg.minRefused, t.cfg.maxRefused))
		}
		e.tried, e.sum, e.achieved, e.failures = true, sum, achieved, 0
	})
	if t.queue.gate.answered() {
		t.log.Info("the other side answers again", "driver", t.driver.Name())
		t.queue.release()
	}
}

// failed notes a call without an answer.
func (t *tenure) failed(e *entry, sum [sha256.Size]byte, probe bool, now time.Time, err error) {
	t.metrics.failed.Inc()
	var leave time.Duration
	if asked, ok := errors.AsType[*errs.Error](err); ok {
		leave = min(asked.RetryAfter, t.cfg.MaxBackoff)
	}
	t.queue.update(e, func() {
		if e.sum != sum {
			e.refusals = 0
		}
		e.failures++
		e.tried, e.sum, e.achieved = true, sum, nil
		e.retry = now.Add(max(leave, backoff(e.failures, t.cfg.MinBackoff, t.cfg.MaxBackoff)))
	})
	if e.failures == 1 {
		t.log.Warn("rules were not brought over, trying again", "app", e.app, "driver", t.driver.Name(), "error", err)
	}
	if t.queue.gate.failed(e.app, probe, now, leave) {
		t.log.Warn("the other side does not answer, only one call at a time is tried until it does",
			"driver", t.driver.Name(), "error", err)
	}
}

// record writes the status record, or removes it when status is nil. When another process leads it ends the term.
func (t *tenure) record(ctx context.Context, e *entry, status *state.Status) error {
	if status != nil {
		dated := *status
		dated.Reported = t.cfg.now().UTC()
		status = &dated
	}
	e.record.begun = true
	revision, err := write(ctx, t.store, t.term, state.StatusKey(t.cfg.Name, e.app), status)
	if failed := err != nil; t.unsaved.Swap(failed) != failed && ctx.Err() == nil {
		if failed {
			t.log.Warn("what came of rules cannot be recorded at present, trying again", "app", e.app, "error", err)
		} else {
			t.log.Info("what comes of rules is recorded again")
		}
	}
	if err != nil {
		if errors.Is(err, errSucceeded) {
			t.end()
		}
		return err
	}
	t.queue.update(e, func() {
		e.unsaved = 0
		e.record = record{known: true, last: status, revision: revision}
	})
	return nil
}

// maxUnsaved bounds the time between two tries to write a status record: operations wait for it.
const maxUnsaved = 5 * time.Second

// savedLater is when a write of the status record that failed is tried again.
func (t *tenure) savedLater(e *entry) time.Time {
	t.queue.update(e, func() { e.unsaved++ })
	return t.cfg.now().Add(backoff(e.unsaved, t.cfg.MinBackoff, min(t.cfg.MaxBackoff, maxUnsaved)))
}

// look returns the status record of an app instance, nil when there is none, and whether it is not as this process left it.
func (t *tenure) look(e *entry) (status *state.Status, touched bool) {
	status, shown := t.statuses.at(t.cfg.Name, e.app)
	switch r := &e.record; {
	case !r.known || r.begun:
		return status, false
	case r.revision > shown:
		return r.last, false // the copy does not show it yet
	default:
		return status, !same(status, r.last)
	}
}

// sooner is the earlier of two times, where zero is never.
func sooner(a, b time.Time) time.Time {
	if b.IsZero() || !a.IsZero() && a.Before(b) {
		return a
	}
	return b
}
