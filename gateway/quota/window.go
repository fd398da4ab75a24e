package quota

import (
	"time"

	"github.com/openmep/mep/api/gateway"
)

// kind is a window length. It serves as an index.
type kind int

const (
	minute kind = iota
	hour
	day
	month
	kinds
)

var names = [kinds]string{gateway.PerMinute, gateway.PerHour, gateway.PerDay, gateway.PerMonth}

// kindOf returns the kind named per. An invalid name, which should never get here, stands for the longest window: no limit is ignored.
func kindOf(per string) kind {
	switch per {
	case gateway.PerMinute:
		return minute
	case gateway.PerHour:
		return hour
	case gateway.PerDay:
		return day
	}
	return month
}

// bounds returns the start and the end of the window that now falls into, in nanoseconds since 1970.
func (k kind) bounds(now int64) (start, end int64) {
	span := int64(time.Minute)
	switch k {
	case hour:
		span = int64(time.Hour)
	case day:
		span = int64(24 * time.Hour)
	case month:
		t := time.Unix(0, now).UTC()
		first := time.Date(t.Year(), t.Month(), 1, 0, 0, 0, 0, time.UTC)
		return first.UnixNano(), first.AddDate(0, 1, 0).UnixNano()
	}
	start = now - now%span
	return start, start + span
}

// linger returns how long calls that nobody asks for may be held, in nanoseconds.
func (k kind) linger() int64 {
	if k == minute {
		return int64(3 * time.Second)
	}
	return int64(30 * time.Second)
}

const (
	// early is how long before its start a window already in use remains in use, so that a clock set back slightly at a window boundary
	// does not switch windows twice.
	early = int64(time.Second)
	// again is how long after a quota was found used up its record is read again: another replica may have given calls back.
	again = int64(time.Second)
	// few is how many calls are taken at a time for a consumer not known to make many.
	few = 64
	// shortest is the shortest time over which a rate is measured.
	shortest = int64(100 * time.Millisecond)
)

// window is what this replica knows and holds of one quota in one window. The lock of its account guards it.
type window struct {
	kind       kind
	start, end int64
	limit      int64 // as last requested
	held       int64 // calls taken but neither admitted nor given back yet
	back       int64 // calls taken that the next transaction must give back, for example because the limit was lowered
	spent      int64 // calls admitted
	used       int64 // when a call was last admitted or lacked a call at hand; monotonic time

	// The record as last seen. unsure means that a transaction of this replica went unanswered and may have changed it.
	revision, taken int64
	unsure          bool
	// look is when to read the record again if it had no calls left when last seen; otherwise 0.
	look int64
	// level is how many calls the last transaction aimed to have at hand.
	level int64
	// mark is the value of spent at the last transaction, and markedAt the time of that transaction.
	mark, markedAt int64

	waiting int64
	busy    chan struct{} // closed when the transaction in flight ends; nil if there is none
}

// covers reports whether the window is the one to use now.
func (w *window) covers(now int64) bool { return now < w.end && now >= w.start-early }

// own returns how many calls of the window went to this replica, not counting those lost.
func (w *window) own() int64 { return w.spent + w.held + w.back }

// low reports whether to take more calls before those at hand are used up.
func (w *window) low() bool { return w.busy == nil && w.look == 0 && 2*w.held < w.level && w.level > 1 }

// remaining returns how many calls are left, as far as this replica knows.
func (w *window) remaining() int64 {
	return max(0, min(w.limit, w.limit-w.taken+w.held+w.back))
}

// aim returns how many calls to have at hand if free calls are left: as many as were recently made per second, or are waiting, but at
// least a few; never more than half of this replica's share of the free calls, but at least one.
func (w *window) aim(free, replicas, mono int64) int64 {
	share := free / (2 * replicas)
	elapsed := max(shortest, mono-w.markedAt)
	perSecond := int64(float64(w.spent-w.mark) * float64(time.Second) / float64(elapsed))
	return max(1, min(share, max(perSecond, w.waiting, min(few, share/4))))
}
