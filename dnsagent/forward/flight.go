package forward

import (
	"sync"

	"github.com/openmep/mep/dnsagent/wire"
)

// flights holds the questions in flight. Callers with the same question wait for the same answer.
type flights struct {
	mu     sync.Mutex
	under  map[Question]*flight
	count  int               // including forgotten flights
	zones  map[wire.Name]int // count by zone
	closed bool
	work   sync.WaitGroup
}

// flight is one question in flight. It belongs to none of the callers waiting for it.
type flight struct {
	question  Question
	zone      wire.Name
	forgotten bool          // its answer is not kept; guarded by the lock of flights
	done      chan struct{} // closed when answer and failure are set
	answer    *Answer
	failure   *Failure
}

// join returns the flight of a question. If there is none, join starts one, which calls run, unless the maximum is in flight, in all or
// for one zone.
func (f *flights) join(q *Question, s *settings, run func(*flight)) (*flight, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if fl := f.under[*q]; fl != nil {
		return fl, nil
	}
	if f.closed {
		return nil, ErrClosed
	}
	var zone wire.Name
	if z := s.zoneOf(q.Name); z != nil {
		zone = z.name
	}
	if f.count >= s.Pending || f.zones[zone] >= s.perZone() {
		return nil, ErrOverload
	}
	fl := &flight{question: *q, zone: zone, done: make(chan struct{})}
	fl.question.Name = cloneName(q.Name)
	f.under[fl.question] = fl
	f.count++
	if f.zones == nil {
		f.zones = make(map[wire.Name]int)
	}
	f.zones[zone]++
	f.work.Go(func() { run(fl) })
	return fl, nil
}

// land ends a flight. It calls keep to keep the answer, unless the flight was forgotten meanwhile.
func (f *flights) land(fl *flight, keep func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !fl.forgotten {
		keep()
		delete(f.under, fl.question)
	}
	f.count--
	if f.zones[fl.zone]--; f.zones[fl.zone] == 0 {
		delete(f.zones, fl.zone)
	}
	close(fl.done)
}

// forget makes flights for matching names forgotten: their answers are not kept, and no further caller joins them.
func (f *flights) forget(which func(wire.Name) bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for q, fl := range f.under {
		if which(q.Name) {
			fl.forgotten = true
			delete(f.under, q)
		}
	}
}

func (f *flights) len() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.count
}

// close prevents further flights and waits for those under way.
func (f *flights) close() {
	f.mu.Lock()
	f.closed = true
	f.mu.Unlock()
	f.work.Wait()
}
