// Package liveness monitors the heartbeats of services (MEC 011 5.2.12).
//
// A heartbeat is recorded in memory and costs no write. The leader suspends a service whose heartbeats stop; a
// heartbeat revives it. After a restart every service gets a full interval to be heard.
package liveness

import (
	"container/heap"
	"sync"
	"time"

	"github.com/openmep/mep/api/mp1"
	"github.com/openmep/mep/mepserver/registry"
)

// Grace returns how long a silent service is given after its interval: a tenth of the interval, at least 1 s, at most 5 s.
func Grace(interval time.Duration) time.Duration {
	return min(max(interval/10, time.Second), 5*time.Second)
}

// massMinimum is the number of services that must fall silent together before the platform suspects itself.
const massMinimum = 20

// tracker knows when each monitored service was last heard and which are due. It does no I/O.
type tracker struct {
	mu          sync.Mutex
	entries     map[string]*entry // by serInstanceId
	queue       deadlines
	active      int // entries whose service is ACTIVE
	removeAfter time.Duration
	leading     bool // only the leader has a queue
	wake        chan struct{}
	pausedUntil time.Time
}

type entry struct {
	app, id   string
	interval  time.Duration
	state     mp1.ServiceState
	last      time.Time // when it was last heard, by this process's clock
	suspended time.Time // when this process first saw it SUSPENDED
	place     time.Time // its place in the queue; older places left behind there do not count
}

// deadline returns when the entry is due to be suspended or removed if nothing is heard of it. ok is false if it is never due.
func (e *entry) deadline(removeAfter time.Duration) (at time.Time, ok bool) {
	switch e.state {
	case mp1.StateActive:
		return e.last.Add(e.interval + Grace(e.interval)), true
	case mp1.StateSuspended:
		return e.suspended.Add(removeAfter), removeAfter > 0
	}
	return time.Time{}, false
}

// waiting is an entry's place in the queue. A heartbeat does not move the entry: when its place comes up, the present
// deadline decides whether it is queued again.
type waiting struct {
	at time.Time
	e  *entry
}

type deadlines []waiting

// Len implements heap.Interface.
func (d deadlines) Len() int { return len(d) }

// Less implements heap.Interface.
func (d deadlines) Less(i, j int) bool { return d[i].at.Before(d[j].at) }

// Swap implements heap.Interface.
func (d deadlines) Swap(i, j int) { d[i], d[j] = d[j], d[i] }

// Push implements heap.Interface.
func (d *deadlines) Push(x any) { *d = append(*d, x.(waiting)) }

// Pop implements heap.Interface.
func (d *deadlines) Pop() any {
	old := *d
	x := old[len(old)-1]
	old[len(old)-1] = waiting{}
	*d = old[:len(old)-1]
	return x
}

func newTracker() *tracker {
	return &tracker{entries: make(map[string]*entry), wake: make(chan struct{}, 1)}
}

// changed applies a change in the registry.
func (t *tracker) changed(c registry.Change) {
	if c.New == nil {
		t.drop(c.Old.Value.ID)
		return
	}
	svc := c.New.Value
	if !svc.Monitored() {
		t.drop(svc.ID)
		return
	}
	now := time.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	e := t.entries[svc.ID]
	known := e != nil
	if !known {
		e = &entry{app: svc.AppInstanceID, id: svc.ID}
		t.entries[svc.ID] = e
	}
	heard := !known || c.Old != nil && c.Old.Value.Beat.Before(svc.Beat)
	interval := time.Duration(svc.Interval) * time.Second
	sooner := interval < e.interval
	was := e.state
	e.interval, e.state = interval, svc.State
	t.count(was, e.state)
	if heard {
		e.last = now
	}
	if e.state == mp1.StateSuspended && was != mp1.StateSuspended {
		// The time in the record may be by another machine's clock, and time when no process was listening must not count.
		e.suspended = now
	}
	if !known || was != e.state || sooner {
		t.enqueue(e)
	}
}

func (t *tracker) count(was, is mp1.ServiceState) {
	if was == mp1.StateActive {
		t.active--
	}
	if is == mp1.StateActive {
		t.active++
	}
}

func (t *tracker) drop(id string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if e := t.entries[id]; e != nil {
		t.count(e.state, "")
		e.state = "" // invalidates its place in the queue
		delete(t.entries, id)
	}
}

func (t *tracker) push(e *entry, at time.Time) {
	if !t.leading {
		return
	}
	e.place = at
	heap.Push(&t.queue, waiting{at, e})
}

func (t *tracker) enqueue(e *entry) {
	if at, ok := e.deadline(t.removeAfter); ok {
		t.push(e, at)
		if len(t.queue) > 0 && t.queue[0].e == e {
			select {
			case t.wake <- struct{}{}:
			default:
			}
		}
	}
}

// heard records that a service was heard at the given time.
func (t *tracker) heard(id string, at time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if e := t.entries[id]; e != nil && at.After(e.last) {
		e.last = at
	}
}

// last returns when the service was last heard, the zero time if it is not monitored.
func (t *tracker) last(id string) time.Time {
	t.mu.Lock()
	defer t.mu.Unlock()
	if e := t.entries[id]; e != nil {
		return e.last
	}
	return time.Time{}
}

// restart builds the queue of a process that becomes the leader. Because the process may not have heard all heartbeats
// so far, every ACTIVE service gets a full interval from now.
func (t *tracker) restart(removeAfter time.Duration) {
	now := time.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.removeAfter, t.leading, t.queue = removeAfter, true, nil
	for _, e := range t.entries {
		if e.state == mp1.StateActive {
			e.last = now
		}
		if at, ok := e.deadline(removeAfter); ok {
			e.place = at
			t.queue = append(t.queue, waiting{at, e})
		}
	}
	heap.Init(&t.queue)
}

// rest drops the queue of a process that no longer leads.
func (t *tracker) rest() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.leading, t.queue = false, nil
}

// due takes the services that are due by now from the queue and returns those to suspend, those to remove, and when to
// look again. The caller must settle each service or put it back with again.
func (t *tracker) due(now time.Time) (suspend, remove []*entry, next time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for len(t.queue) > 0 && !t.queue[0].at.After(now) {
		w := heap.Pop(&t.queue).(waiting)
		e := w.e
		at, ok := e.deadline(t.removeAfter)
		switch {
		case !ok || !w.at.Equal(e.place):
		case at.After(now):
			t.push(e, at)
		case e.state == mp1.StateActive:
			suspend = append(suspend, e)
		default:
			remove = append(remove, e)
		}
	}
	suspend = t.doubt(suspend, now)
	next = now.Add(time.Hour)
	if len(t.queue) > 0 {
		next = t.queue[0].at
	}
	return suspend, remove, next
}

// doubt postpones candidates by one interval when more than half of the ACTIVE services, and at least massMinimum,
// would expire within one grace period: the platform is then more likely at fault than the apps. Services that have
// already been silent through such a pause are not postponed again. The caller holds t.mu.
func (t *tracker) doubt(candidates []*entry, now time.Time) []*entry {
	if len(candidates) == 0 {
		return nil
	}
	silent := 0
	for _, e := range t.entries {
		if at, ok := e.deadline(0); ok && e.state == mp1.StateActive &&
			!at.After(now.Add(Grace(e.interval))) && now.Before(at.Add(e.interval)) {
			silent++
		}
	}
	if silent < massMinimum || silent*2 <= t.active {
		return candidates
	}
	kept := candidates[:0]
	for _, e := range candidates {
		at, _ := e.deadline(0)
		if resume := at.Add(e.interval); now.Before(resume) {
			t.push(e, resume)
			if resume.After(t.pausedUntil) {
				t.pausedUntil = resume
			}
		} else {
			kept = append(kept, e)
		}
	}
	return kept
}

// again puts a service back into the queue for a later attempt.
func (t *tracker) again(e *entry, at time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.entries[e.id] == e {
		t.push(e, at)
	}
}

// silent reports whether a service is still monitored and due at now.
func (t *tracker) silent(e *entry, now time.Time) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	at, ok := e.deadline(t.removeAfter)
	return ok && t.entries[e.id] == e && !at.After(now)
}

func (t *tracker) paused(now time.Time) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return now.Before(t.pausedUntil)
}

func (t *tracker) monitored() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.entries)
}
