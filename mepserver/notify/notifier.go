// Package notify notifies subscribers of changes in the registry (MEC 011 5.2.4, 8.1.4.2).
//
// Delivery is at least once and in order for each subscriber. Progress is kept in etcd as one position for all subscribers
// and a cursor for each one that lags, so that a crash or a change of leader loses nothing: the history since then is read
// from etcd again. If that history was compacted, the subscriber gets the difference between what it was last told and now,
// found by comparing revisions; services removed meanwhile are still known from the records of removed services, which stay
// until every subscriber has been notified.
package notify

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/openmep/mep/api/mp1"
	"github.com/openmep/mep/api/state"
	"github.com/openmep/mep/kit/etcd"
	"github.com/openmep/mep/kit/leader"
	"github.com/openmep/mep/kit/watched"
	"github.com/openmep/mep/mepserver/callback"
	"github.com/openmep/mep/mepserver/registry"
	"github.com/openmep/mep/mepserver/subscription"
)

// Policy holds the operator's settings for delivery.
type Policy struct {
	// GiveUpAfter is how long delivery of a notification is tried.
	GiveUpAfter time.Duration
	// Queue is how many notifications may wait for one subscriber before changes are merged.
	Queue int
}

// Notifier delivers service availability notifications while this process leads.
type Notifier struct {
	store   *etcd.Store
	mirror  *watched.Mirror
	reg     *registry.Registry
	book    *subscription.Book
	client  *callback.Client
	base    func() string
	policy  func() Policy
	log     *slog.Logger
	metrics *metrics

	removed     *watched.Collection[*registry.Service]
	cursors     *watched.Collection[state.Cursor]
	deadLetters *watched.Collection[state.DeadLetter]

	inbox        inbox
	slots        chan struct{}
	failingSlots chan struct{}

	mu       sync.Mutex
	ctx      context.Context // of the current term
	workers  sync.WaitGroup
	feeds    map[string]*feed // by subscription id
	position int64            // changes up to here were handed to the feeds
	saved    int64            // the position in etcd
	leading  bool
}

// The limits on concurrent calls: maxFailingCalls to subscribers that failed last time, maxCalls to all others.
const (
	maxCalls        = 2048
	maxFailingCalls = 128
)

// New adds the notifier's collections to the mirror. base returns the start of the hrefs in notifications.
func New(m *watched.Mirror, store *etcd.Store, reg *registry.Registry, book *subscription.Book, client *callback.Client,
	base func() string, policy func() Policy, log *slog.Logger, metrics prometheus.Registerer,
) *Notifier {
	n := &Notifier{
		store: store, mirror: m, reg: reg, book: book, client: client, base: base, policy: policy, log: log,
		metrics: newMetrics(metrics), slots: make(chan struct{}, maxCalls), failingSlots: make(chan struct{}, maxFailingCalls),
		feeds: make(map[string]*feed),
	}
	n.inbox.ready = make(chan struct{}, 1)
	n.removed = watched.Add(m, "removed_services", state.PrefixRemoved, func(key string, value []byte, mod int64) (*registry.Service, error) {
		return registry.Decode(state.PrefixRemoved, key, value, mod)
	})
	n.cursors = watched.Add(m, "cursors", state.PrefixCursors, func(_ string, value []byte, _ int64) (state.Cursor, error) {
		return state.Decode[state.Cursor](value)
	})
	n.deadLetters = watched.Add(m, "dead_letters", state.PrefixDeadLetters, func(_ string, value []byte, _ int64) (state.DeadLetter, error) {
		return state.Decode[state.DeadLetter](value)
	})
	return n
}

// inbox hands changes from the mirror to the notifier. If it overflows, the changes are dropped and every subscriber is
// brought up to date by comparing.
type inbox struct {
	mu       sync.Mutex
	changes  []registry.Change
	overflow bool
	ready    chan struct{}
}

// inboxLimit is how many changes may wait to be handed out.
const inboxLimit = 1 << 16

func (b *inbox) put(c registry.Change) {
	b.mu.Lock()
	if len(b.changes) >= inboxLimit {
		b.overflow = true
		b.changes = nil
	}
	if !b.overflow {
		b.changes = append(b.changes, c)
	}
	b.mu.Unlock()
	select {
	case b.ready <- struct{}{}:
	default:
	}
}

func (b *inbox) take() (changes []registry.Change, overflow bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	changes, overflow = b.changes, b.overflow
	b.changes, b.overflow = nil, false
	return changes, overflow
}

// Run delivers for one term of leadership.
func (n *Notifier) Run(ctx context.Context, term leader.Term) error {
	cursors, err := n.loadCursors(ctx)
	if err != nil {
		return nil // the term is over; there is no other failure
	}
	n.mu.Lock()
	n.ctx, n.feeds, n.leading = ctx, make(map[string]*feed), true
	n.position, n.saved = cursors.position, cursors.position
	n.mu.Unlock()
	n.inbox.take()
	now, stop := n.reg.Services().Observe(n.inbox.put)
	defer stop()
	_, stopSubs := n.book.Collection().Observe(n.subscriptionChanged)
	defer stopSubs()

	if !n.resume(ctx, cursors, now) {
		n.workers.Wait()
		n.mu.Lock()
		n.leading = false
		n.mu.Unlock()
		return nil
	}
	flush := time.NewTicker(flushInterval)
	defer flush.Stop()
	unsaved := false
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-n.inbox.ready:
			n.handOut()
		case <-flush.C:
			err := n.saveCursors(ctx, term, time.Now())
			if failed := err != nil; failed != unsaved && ctx.Err() == nil {
				if unsaved = failed; failed {
					n.log.Warn("delivery cursors cannot be saved at present, trying again", "error", err)
				} else {
					n.log.Info("delivery cursors are saved again")
				}
			}
		}
	}
	n.workers.Wait()
	n.mu.Lock()
	n.leading = false
	n.mu.Unlock()
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	if err := n.saveCursors(last, term, time.Time{}); err != nil {
		n.log.Info("delivery cursors not saved at the end of the term, some notifications may be sent twice", "error", err)
	}
	n.client.CloseIdle()
	n.metrics.pending.Set(0)
	return nil
}

// handOut queues the changes in the inbox for the subscribers.
func (n *Notifier) handOut() {
	changes, overflow := n.inbox.take()
	n.mu.Lock()
	defer n.mu.Unlock()
	if overflow {
		n.log.Warn("too many changes at once, subscribers are brought up to date by comparing", "position", n.position)
		n.metrics.overflows.Inc()
		position := n.mirror.Revision()
		for item := range n.book.Collection().Snapshot().All() {
			f := n.feed(item)
			if !f.behind {
				f.behind, f.tail = true, n.position
			}
			if !f.working {
				f.laggingFrom = time.Now()
				n.work(f)
			}
		}
		n.position = position
		return
	}
	for _, c := range changes {
		n.dispatch(c, nil)
	}
}

// dispatch queues one change for every subscriber it concerns; served, if not nil, says how far each subscriber was served
// before. The caller holds the lock.
func (n *Notifier) dispatch(c registry.Change, served *startCursors) {
	svc, change, ok := classify(c)
	if ok {
		e := event{revision: c.Revision, svc: svc, change: change, listed: c.Listed}
		for item := range n.book.Interested(svc) {
			if served != nil && c.Revision <= served.of(item.Value.ID) {
				continue
			}
			n.offer(n.feed(item), e)
		}
	}
	n.position = max(n.position, c.Revision)
}

// feed returns the feed of a subscription, and creates it if there is none. The caller holds the lock.
func (n *Notifier) feed(item *subscription.Item) *feed {
	f := n.feeds[item.Value.ID]
	if f == nil {
		f = &feed{sub: item}
		n.feeds[item.Value.ID] = f
	}
	return f
}

// subscriptionChanged forgets a deleted subscription.
func (n *Notifier) subscriptionChanged(c watched.Change[*subscription.Subscription]) {
	if c.New != nil {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.forget(c.Old.Value.ID)
}

func (n *Notifier) forget(id string) {
	f := n.feeds[id]
	if f == nil {
		return
	}
	delete(n.feeds, id)
	n.metrics.pending.Sub(float64(len(f.queue)))
	f.queue, f.behind = nil, false
	if f.cancel != nil {
		f.cancel()
	}
}

// unsubscribe ends a subscription whose subscriber answered 410 Gone.
func (n *Notifier) unsubscribe(ctx context.Context, sub *subscription.Subscription) {
	n.log.Info("subscriber is gone, its subscription ends", "subscription", sub.ID, "app", sub.AppInstanceID)
	for ctx.Err() == nil {
		err := n.book.Delete(ctx, sub.AppInstanceID, sub.ID, nil)
		if err == nil || errors.Is(err, notFound) {
			break
		}
		n.log.Warn("subscription not ended yet", "subscription", sub.ID, "error", err)
		select {
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.forget(sub.ID)
}

// compare queues the difference between what a subscriber was last told and now. The caller holds the lock, and the queue
// is empty.
func (n *Notifier) compare(f *feed) {
	upTo := n.mirror.Revision() // read before the snapshots, which are then at least as new
	since := max(f.tail, f.sub.CreateRevision)
	sub := f.sub.Value
	var events []event
	for item := range n.reg.Services().Snapshot().All() {
		if item.ModRevision > since && n.book.Concerns(sub, item.Value) {
			change := mp1.ChangeAttributes
			if item.CreateRevision > since {
				change = mp1.ChangeAdded
			}
			events = append(events, event{revision: item.ModRevision, svc: item.Value, change: change})
		}
	}
	for item := range n.removed.Snapshot().All() {
		if item.ModRevision > since && n.book.Concerns(sub, item.Value) {
			events = append(events, event{revision: item.ModRevision, svc: item.Value, change: mp1.ChangeRemoved})
		}
	}
	slices.SortStableFunc(events, func(a, b event) int { return int(a.revision - b.revision) })
	limit := len(events)
	if most := n.policy().Queue; limit > most {
		// The events of a revision stay together: the next comparison starts after the last revision that is queued.
		for limit = most; limit < len(events) && events[limit].revision == events[limit-1].revision; limit++ {
		}
	}
	if limit < len(events) {
		f.tail = events[limit-1].revision
	} else {
		f.behind, f.since = false, upTo
	}
	for _, e := range events[:limit] {
		e.queued = time.Now()
		f.queue = append(f.queue, e)
		n.metrics.pending.Inc()
	}
}
