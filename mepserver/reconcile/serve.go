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

// serve brings an app instance up to date: it sends the set that should be in force, unless exactly that was sent and nothing
// calls for sending it again, and records the outcome.
func (t *tenure) serve(ctx context.Context, e *entry, force bool) {
	at := t.statuses.mirror.Revision() // read before the set: whatever comes after the set has a later generation
	set, ok := t.src.Set(t.cfg.Kind, e.app)
	status, touched := t.look(e)
	gone := !ok || set.Generation == 0 && set.size() == 0
	if gone && !e.tried && status == nil && !e.record.begun {
		t.queue.finish(e, time.Time{}, true) // nothing was ever in force
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
			// From here on, the record shows that there may be something to remove.
			if err := t.record(ctx, e, &state.Status{Version: state.Current()}); err != nil {
				t.queue.gate.abandon(probe)
				t.queue.finishForced(e, t.savedLater(e))
				return
			}
			fault.Point("reconcile.announced")
		}
		if gone {
			// The generation must be later than any sent for the app instance, and earlier than those sent when it starts anew.
			// Generations are at most the revision of the store at which they are written, and rules are written anew after they
			// were removed. If nothing was sent in this term, what a predecessor sent is not known; the generation is then later
			// than everything written.
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
		// The record changed since the first look. The change marks the app instance, and the set is sent again next time.
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

// fingerprint returns a hash that tells sets apart. Encoding cannot fail: sets are made from JSON.
func fingerprint(set *Set) [sha256.Size]byte {
	b, _ := json.Marshal(set)
	return sha256.Sum256(b)
}

// tell makes one call of the driver and records its outcome.
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
		return // the term is over, and the successor sends everything again
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

// failed records a call without an answer.
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

// record writes the status record, or removes it if status is nil. If another process leads, record ends the term.
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

// maxUnsaved bounds the delay between two attempts to write a status record: operations wait for it.
const maxUnsaved = 5 * time.Second

// savedLater counts a failed write of the status record and returns when to repeat it.
func (t *tenure) savedLater(e *entry) time.Time {
	t.queue.update(e, func() { e.unsaved++ })
	return t.cfg.now().Add(backoff(e.unsaved, t.cfg.MinBackoff, min(t.cfg.MaxBackoff, maxUnsaved)))
}

// look returns the status record of an app instance, nil if there is none, and whether it differs from what this process left.
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

// sooner returns the earlier of two times, where zero means never.
func sooner(a, b time.Time) time.Time {
	if b.IsZero() || !a.IsZero() && a.Before(b) {
		return a
	}
	return b
}
