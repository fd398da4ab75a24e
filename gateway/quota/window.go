package quota

import (
	"time"

	"github.com/openmep/mep/api/gateway"
)

// kind is a length of windows; it is an index.
type kind int

const (
	minute kind = iota
	hour
	day
	month
	kinds
)

var names = [kinds]string{gateway.PerMinute, gateway.PerHour, gateway.PerDay, gateway.PerMonth}

// kindOf is the kind of a name. A name nobody should have let in stands for the longest one: a limit is never left out.
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

// bounds are when the window that a time falls into begins and ends, in nanoseconds since 1970.
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

// linger is how long calls may be held that nobody asks for, in nanoseconds.
func (k kind) linger() int64 {
	if k == minute {
		return int64(3 * time.Second)
	}
	return int64(30 * time.Second)
}

const (
	// early is how long before its beginning a window is still used that was begun already, so that a clock which is set back by a
	// little at the turn of a window does not change it twice.
	early = int64(time.Second)
	// again is after what time the record of a quota that was used up is looked at again: another replica may have given back.
	again = int64(time.Second)
	// few is how many calls are taken at a time for a consumer that is not known to make many.
	few = 64
	// shortest is the shortest time a rate is measured over.
	shortest = int64(100 * time.Millisecond)
)

// window is what this replica knows and holds of one quota in one window. The lock of its account guards it.
type window struct {
	kind       kind
	start, end int64
	limit      int64 // as asked for last
	held       int64 // calls taken and neither admitted nor given back yet
	back       int64 // calls taken that must be given back with the next transaction: the limit was lowered
	spent      int64 // calls admitted
	used       int64 // when the last call was admitted, or refused for another quota; of the time for spans

	// The record as last seen; unsure says that it may have changed by this replica's own doing, without an answer.
	revision, taken int64
	unsure          bool
	// look is when the record is looked at again, while everything was taken when it was seen; 0 otherwise.
	look int64
	// level is how many calls the last transaction aimed to have at hand.
	level int64
	// mark is what had been spent at the last transaction, and markedAt when that was.
	mark, markedAt int64

	waiting int64
	busy    chan struct{} // closed when the transaction under way ends; nil when there is none
}

// covers reports whether the window is the one to use at a time.
func (w *window) covers(now int64) bool { return now < w.end && now >= w.start-early }

// own is how many calls of the window went to this replica, as far as they are not lost.
func (w *window) own() int64 { return w.spent + w.held + w.back }

// low reports whether calls are to be taken before those at hand are used up.
func (w *window) low() bool { return w.busy == nil && w.look == 0 && 2*w.held < w.level && w.level > 1 }

// remaining is how many calls there are still, as far as is known here.
func (w *window) remaining() int64 {
	return max(0, min(w.limit, w.limit-w.taken+w.held+w.back))
}

// aim is how many calls to have at hand when so many are free: as many as were made in the last second, or are waiting, but at
// least a few; and never more than half of what would be this replica's share of the free ones.
func (w *window) aim(free, replicas, mono int64) int64 {
	share := free / (2 * replicas)
	elapsed := max(shortest, mono-w.markedAt)
	perSecond := int64(float64(w.spent-w.mark) * float64(time.Second) / float64(elapsed))
	return max(1, min(share, max(perSecond, w.waiting, min(few, share/4))))
}
