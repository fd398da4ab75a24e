package reconcile

import (
	"container/heap"
	"crypto/sha256"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/openmep/mep/api/state"
)

// queue tracks which app instances must be looked at, and when. It holds each at most once and never gives one to two workers at
// a time. It does no I/O.
type queue struct {
	workers int
	gate    *gate

	mu      sync.Mutex
	entries map[string]*entry // by appInstanceId
	ready   []*entry
	parked  map[*entry]struct{} // waiting for the gate
	delayed delays
	running int
	pending int
	refused int
	wake    chan struct{}
	changed func(pending, refused int)
}

// entry is an app instance. The first group of fields belongs to the queue. The second belongs to the worker that has the entry,
// which changes it while holding the queue's lock, except for record, which the queue does not read.
type entry struct {
	app     string
	queued  bool
	running bool
	again   bool      // changed while a worker had it
	force   bool      // the next worker sends the set, whatever was sent before
	due     time.Time // zero if not delayed
	place   int       // index among the delayed
	counted bool      // included in pending
	refused int       // rules it adds to refused

	told     int64             // highest generation sent in this term
	gone     int64             // generation of the removal, if that was sent last
	tried    bool              // the set with the sum below was sent in this term
	sum      [sha256.Size]byte // of the set
	achieved *state.Status     // the outcome; nil if unknown
	failures int               // consecutive errors of the driver
	refusals int               // consecutive answers with refused rules
	retry    time.Time         // when to send the set again; zero if not needed
	record   record            // the status record as this process left it
	unsaved  int               // consecutive failed writes of the record
}

func newQueue(workers int, gate *gate, changed func(pending, refused int)) *queue {
	return &queue{
		workers: workers, gate: gate, changed: changed,
		entries: make(map[string]*entry), parked: make(map[*entry]struct{}), wake: make(chan struct{}, 1),
	}
}

// mark adds an app instance to the queue.
func (q *queue) mark(app string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.markEntry(q.entry(app), false)
}

// markAll adds the given app instances, and all known ones, to the queue. The set of each is sent once, whatever was sent before.
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

// count updates the numbers for an entry. The caller holds the lock.
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

// numbers returns the number of pending app instances and of refused rules.
func (q *queue) numbers() (pending, refused int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.pending, q.refused
}

// idle is how long to wait when nothing is due.
const idle = time.Hour

// take returns the next entry for a worker and whether its set must be sent in any case. If no entry is ready, take returns how
// long to wait, unless the queue signals wake earlier.
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

// candidate returns the parked entry that is most likely to be answered: the one with the fewest failures. The caller holds the
// lock.
func (q *queue) candidate() *entry {
	var best *entry
	for e := range q.parked {
		if best == nil || e.failures < best.failures {
			best = e
		}
	}
	return best
}

// finish takes an entry back from its worker. An entry that changed meanwhile is queued again. Otherwise it is forgotten if
// forget is set, and else queued again at due, unless due is zero.
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

// finishForced is finish for an entry whose set must be sent next time, whatever was sent before.
func (q *queue) finishForced(e *entry, due time.Time) {
	q.update(e, func() { e.force = true })
	q.finish(e, due, false)
}

// park takes an entry back from its worker and holds it until the gate lets it through.
func (q *queue) park(e *entry) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.running--
	e.running, e.force = false, true
	if e.again || q.gate.open() { // the gate may have opened meanwhile and released the entries parked by then
		e.again = false
		q.push(e)
	} else {
		q.parked[e] = struct{}{}
		q.count(e)
	}
	q.signal()
}

// release queues all entries that wait because of errors.
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

// hurry lets a call through the gate at once if the gate is closed.
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

// delay adds an entry to the delayed ones, unless due is zero. The caller holds the lock.
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

// delays is a heap of entries ordered by due time.
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

// backoff returns a delay that doubles from least to most, less a random part of up to half, so that retries do not coincide.
// attempts counts from 1.
func backoff(attempts int, least, most time.Duration) time.Duration {
	d := least
	for i := 1; i < attempts && d < most; i++ {
		d *= 2
	}
	d = min(d, most)
	return d/2 + rand.N(d/2+1)
}
