package reconcile

import (
	"container/heap"
	"crypto/sha256"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/openmep/mep/api/state"
)

// queue knows which app instances have to be looked at, and when. It holds each at most once, and none is given to two workers
// at a time. It does no I/O.
type queue struct {
	workers int
	gate    *gate

	mu      sync.Mutex
	entries map[string]*entry // by appInstanceId
	ready   []*entry
	parked  map[*entry]struct{} // wait for the gate
	delayed delays
	running int
	pending int
	refused int
	wake    chan struct{}
	changed func(pending, refused int)
}

// entry is an app instance. The first group of fields belongs to the queue; the second to the worker that has the entry, which
// changes it while it holds the queue's lock.
type entry struct {
	app     string
	queued  bool
	running bool
	again   bool      // it changed while a worker had it
	force   bool      // the next worker is to tell the other side whatever it was told before
	due     time.Time // zero when it is not delayed
	place   int       // its place among the delayed
	counted bool      // it is among the pending
	refused int       // rules it adds to those that are refused

	told     int64             // the greatest generation the other side was told of in this term
	gone     int64             // that of its being gone, when that is what it was told last
	tried    bool              // the other side was told of the set with this sum in this term
	sum      [sha256.Size]byte // of the set
	achieved *state.Status     // what came of it; nil when nothing is known
	failures int               // errors of the driver in a row
	refusals int               // answers in a row with rules that are refused
	retry    time.Time         // when the other side is told again; zero when that need not be
	record   record            // the status record as this process left it
	unsaved  int               // writes of it that failed in a row
}

func newQueue(workers int, gate *gate, changed func(pending, refused int)) *queue {
	return &queue{
		workers: workers, gate: gate, changed: changed,
		entries: make(map[string]*entry), parked: make(map[*entry]struct{}), wake: make(chan struct{}, 1),
	}
}

// mark puts an app instance into the queue.
func (q *queue) mark(app string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.markEntry(q.entry(app), false)
}

// markAll puts these app instances, and those that are known, into the queue: the other side is told of each once, whatever it was
// told before.
func (q *queue) markAll(apps []string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, app := range apps {
		q.markEntry(q.entry(app), true)
	}
	for _, e := range q.entries {
		q.markEntry(e, true)
	}
}

func (q *queue) entry(app string) *entry {
	e := q.entries[app]
	if e == nil {
		e = &entry{app: app}
		q.entries[app] = e
	}
	return e
}

func (q *queue) markEntry(e *entry, force bool) {
	e.force = e.force || force
	if e.running {
		e.again = true
		return
	}
	q.push(e)
}

// push makes an entry ready. The caller holds the lock, and no worker has the entry.
func (q *queue) push(e *entry) {
	if e.queued {
		return
	}
	e.queued = true
	delete(q.parked, e)
	q.undelay(e)
	q.ready = append(q.ready, e)
	q.count(e)
	q.signal()
}

func (q *queue) signal() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// count keeps the numbers up to date. The caller holds the lock.
func (q *queue) count(e *entry) {
	_, parked := q.parked[e]
	known := q.entries[e.app] == e
	pending := known && (e.queued || e.running || parked || e.achieved == nil || e.unsaved > 0)
	if pending != e.counted {
		e.counted = pending
		if pending {
			q.pending++
		} else {
			q.pending--
		}
	}
	refused := 0
	if known && e.achieved != nil {
		refused = len(e.achieved.Failed)
	}
	q.refused += refused - e.refused
	e.refused = refused
	q.changed(q.pending, q.refused)
}

// numbers returns how many app instances are pending and how many rules are refused.
func (q *queue) numbers() (pending, refused int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.pending, q.refused
}

// idle is how long the queue may be left alone when nothing is due.
const idle = time.Hour

// take returns the next entry for a worker, and whether it is to tell the other side in any case; else how long to wait, unless
// the queue says earlier that there is something.
func (q *queue) take(now time.Time) (e *entry, force bool, wait time.Duration) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.delayed) > 0 && !q.delayed[0].due.After(now) {
		q.push(q.delayed[0])
	}
	if q.running >= q.workers {
		return nil, false, idle
	}
	opens, closed := q.gate.next()
	closed = closed && len(q.parked) > 0
	if closed && len(q.ready) == 0 && !opens.After(now) {
		q.push(q.candidate())
	}
	if len(q.ready) > 0 {
		e = q.ready[0]
		q.ready[0] = nil
		q.ready = q.ready[1:]
		e.queued, e.running = false, true
		q.running++
		force, e.force = e.force, false
		return e, force, 0
	}
	wait = idle
	if len(q.delayed) > 0 {
		wait = min(wait, q.delayed[0].due.Sub(now))
	}
	if closed {
		wait = min(wait, opens.Sub(now))
	}
	return nil, false, wait
}

// candidate is the parked entry that is the likeliest to be answered: one that the other side has nothing against. The caller
// holds the lock.
func (q *queue) candidate() *entry {
	var best *entry
	for e := range q.parked {
		if best == nil || e.failures < best.failures {
			best = e
		}
	}
	return best
}

// finish takes an entry back from its worker. It is looked at again when it changed meanwhile, else at the time due unless that
// is zero. An entry with nothing left to know of is forgotten.
func (q *queue) finish(e *entry, due time.Time, forget bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.running--
	e.running = false
	switch {
	case e.again:
		e.again = false
		q.push(e)
	case forget:
		delete(q.entries, e.app)
		q.count(e)
	default:
		q.delay(e, due)
		q.count(e)
	}
	q.signal()
}

// finishForced is finish for an entry that is to be told whatever it was told before.
func (q *queue) finishForced(e *entry, due time.Time) {
	q.update(e, func() { e.force = true })
	q.finish(e, due, false)
}

// park takes an entry back from its worker until the gate lets it through.
func (q *queue) park(e *entry) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.running--
	e.running, e.force = false, true
	if e.again || q.gate.open() { // it may have opened meanwhile, and released those parked by then
		e.again = false
		q.push(e)
	} else {
		q.parked[e] = struct{}{}
		q.count(e)
	}
	q.signal()
}

// release lets everything go on that waits because of errors.
func (q *queue) release() {
	q.mu.Lock()
	defer q.mu.Unlock()
	for e := range q.parked {
		q.push(e)
	}
	for _, e := range q.entries {
		if e.failures > 0 && !e.running {
			e.force = true
			q.push(e)
		}
	}
}

// hurry lets a call through the gate at once, if it is closed.
func (q *queue) hurry(now time.Time) {
	q.gate.hurry(now)
	q.signal()
}

// update changes the worker's part of an entry.
func (q *queue) update(e *entry, change func()) {
	q.mu.Lock()
	defer q.mu.Unlock()
	change()
	q.count(e)
}

// delay puts an entry among the delayed. The caller holds the lock.
func (q *queue) delay(e *entry, due time.Time) {
	q.undelay(e)
	if !due.IsZero() {
		e.due = due
		heap.Push(&q.delayed, e)
	}
}

func (q *queue) undelay(e *entry) {
	if !e.due.IsZero() {
		heap.Remove(&q.delayed, e.place)
		e.due = time.Time{}
	}
}

// delays is a heap of entries by the time they are due.
type delays []*entry

// Len implements heap.Interface.
func (d delays) Len() int { return len(d) }

// Less implements heap.Interface.
func (d delays) Less(i, j int) bool { return d[i].due.Before(d[j].due) }

// Swap implements heap.Interface.
func (d delays) Swap(i, j int) {
	d[i], d[j] = d[j], d[i]
	d[i].place, d[j].place = i, j
}

// Push implements heap.Interface.
func (d *delays) Push(x any) {
	e := x.(*entry)
	e.place = len(*d)
	*d = append(*d, e)
}

// Pop implements heap.Interface.
func (d *delays) Pop() any {
	old := *d
	e := old[len(old)-1]
	old[len(old)-1] = nil
	*d = old[:len(old)-1]
	return e
}

// backoff doubles from least to most and takes a random half off, so that not everyone comes back at once. attempts counts
// from 1.
func backoff(attempts int, least, most time.Duration) time.Duration {
	d := least
	for i := 1; i < attempts && d < most; i++ {
		d *= 2
	}
	d = min(d, most)
	return d/2 + rand.N(d/2+1)
}
