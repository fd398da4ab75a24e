package notify

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/http"
	"time"

	"github.com/openmep/mep/mepserver/callback"
	"github.com/openmep/mep/mepserver/subscription"
)

// feed is what one subscriber still has to be notified of. Its fields are guarded by the notifier's lock.
type feed struct {
	sub    *subscription.Item
	cancel context.CancelFunc

	queue []event
	// behind means that changes after tail were not queued for want of room; they are found by comparing once there is room
	// again. since is the revision that such a comparison covered.
	behind      bool
	tail, since int64

	working     bool      // a worker is delivering
	laggingFrom time.Time // when the feed began to lag
	saved       int64     // the cursor in etcd, 0 if there is none
	unsure      bool      // a change of the cursor was begun and is not known to have succeeded

	// What operators see.
	delivered, attempted, failingSince time.Time
	lastError                          string
	attempts                           int // of the event at the head
	firstAttempt                       time.Time
}

func (f *feed) lagging() bool { return len(f.queue) > 0 || f.behind }

// cursor returns the revision up to which the subscriber has been served, given the revision up to which changes were
// handed out.
func (f *feed) cursor(position int64) int64 {
	switch {
	case len(f.queue) > 0:
		return f.queue[0].revision - 1
	case f.behind:
		return f.tail
	}
	return position
}

// offer queues an event. The caller holds the lock.
func (n *Notifier) offer(f *feed, e event) {
	if f.behind || e.revision <= f.since || !e.listed && e.revision <= f.sub.CreateRevision {
		return
	}
	if len(f.queue) >= n.policy().Queue {
		f.behind, f.tail = true, e.revision-1
		n.metrics.overflows.Inc()
		return
	}
	n.push(f, e)
}

func (n *Notifier) push(f *feed, e event) {
	e.queued = time.Now()
	if !f.lagging() {
		f.laggingFrom = e.queued
	}
	f.queue = append(f.queue, e)
	n.metrics.pending.Inc()
	n.work(f)
}

// work starts a worker to deliver unless there is one. The caller holds the lock.
func (n *Notifier) work(f *feed) {
	if f.working || n.ctx.Err() != nil {
		return
	}
	f.working = true
	ctx, cancel := context.WithCancel(n.ctx)
	f.cancel = cancel
	n.workers.Go(func() {
		defer cancel()
		n.deliverAll(ctx, f)
	})
}

// deliverAll delivers the queue of a feed and returns when it is empty.
func (n *Notifier) deliverAll(ctx context.Context, f *feed) {
	for {
		n.mu.Lock()
		if len(f.queue) == 0 && f.behind {
			n.compare(f)
		}
		if len(f.queue) == 0 || ctx.Err() != nil {
			f.working = false
			f.queue = shrink(f.queue)
			n.mu.Unlock()
			return
		}
		e, sub := f.queue[0], f.sub.Value
		failing := !f.failingSince.IsZero()
		n.mu.Unlock()

		err := n.send(ctx, failing, sub, &e)
		if ctx.Err() != nil && err != nil {
			continue // ends above
		}
		wait, gone := n.settle(ctx, f, &e, err)
		if gone {
			n.unsubscribe(ctx, sub)
			return
		}
		if wait > 0 {
			select {
			case <-ctx.Done():
			case <-time.After(wait):
			}
		}
	}
}

// shrink releases the memory of a long queue once it is empty.
func shrink(q []event) []event {
	if len(q) == 0 && cap(q) > 64 {
		return nil
	}
	return q
}

// send makes one attempt. Subscribers that failed last time share a few slots of their own, so that they delay nobody else.
func (n *Notifier) send(ctx context.Context, failing bool, sub *subscription.Subscription, e *event) error {
	slots := n.slots
	if failing {
		slots = n.failingSlots
	}
	select {
	case slots <- struct{}{}:
		defer func() { <-slots }()
	case <-ctx.Done():
		return ctx.Err()
	}
	body, err := e.body(sub, n.base())
	if err != nil {
		return err
	}
	start := time.Now()
	err = n.client.Post(ctx, sub.Record.CallbackReference, e.id(sub.ID), body)
	n.metrics.duration.Observe(time.Since(start).Seconds())
	n.metrics.attempt(err)
	return err
}

// settle records the outcome of an attempt and returns how long to wait before the next one. gone is true if the subscriber
// wants no more.
func (n *Notifier) settle(ctx context.Context, f *feed, e *event, err error) (wait time.Duration, gone bool) {
	now := time.Now()
	n.mu.Lock()
	f.attempted = now
	f.attempts++
	if f.firstAttempt.IsZero() {
		f.firstAttempt = now
	}
	if err == nil {
		f.delivered, f.failingSince, f.lastError = now, time.Time{}, ""
		n.metrics.delay.Observe(now.Sub(e.queued).Seconds())
		n.pop(f, 1)
		n.mu.Unlock()
		return 0, false
	}
	if len(f.queue) == 0 { // forgotten meanwhile
		n.mu.Unlock()
		return 0, false
	}
	f.lastError = err.Error()
	if f.failingSince.IsZero() {
		f.failingSince = now
	}
	if status, ok := errors.AsType[*callback.StatusError](err); ok && status.Status == http.StatusGone {
		n.mu.Unlock()
		return 0, true
	}
	policy := n.policy()
	if now.Sub(f.firstAttempt) < policy.GiveUpAfter {
		attempts := f.attempts
		n.mu.Unlock()
		return backoff(attempts), false
	}
	// The events behind it that have waited as long have expired, too.
	expired := 1
	for expired < len(f.queue) && now.Sub(f.queue[expired].queued) >= policy.GiveUpAfter {
		expired++
	}
	letters := n.letters(f, f.queue[:expired], now)
	attempts := f.attempts
	n.mu.Unlock()
	if err := n.bury(ctx, letters); err != nil {
		n.log.Warn("dead letters not recorded yet, trying again", "subscription", f.sub.Value.ID, "error", err)
		return backoff(attempts), false
	}
	n.log.Warn("notifications given up", "subscription", f.sub.Value.ID, "notifications", expired, "error", f.lastError)
	n.mu.Lock()
	n.pop(f, expired)
	n.mu.Unlock()
	return backoff(attempts), false
}

// pop removes settled events from the head. The caller holds the lock.
func (n *Notifier) pop(f *feed, count int) {
	count = min(count, len(f.queue))
	clear(f.queue[:count])
	f.queue = f.queue[count:]
	f.attempts, f.firstAttempt = 0, time.Time{}
	n.metrics.pending.Sub(float64(count))
}

// The bounds of the delay between two attempts.
const (
	firstBackoff = 500 * time.Millisecond
	maxBackoff   = 60 * time.Second
)

// backoff returns a delay that doubles from firstBackoff to maxBackoff, less a random part of up to half, so that many
// subscribers on one failed host do not come back at once.
func backoff(attempts int) time.Duration {
	d := maxBackoff
	if attempts < 8 {
		d = min(firstBackoff<<(attempts-1), maxBackoff)
	}
	return d/2 + rand.N(d/2+1)
}
