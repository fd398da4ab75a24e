package spike

import (
	"container/list"
	"slices"
	"time"
)

// maxBuffer is the largest buffer, so that no turn is further ahead than can be counted.
const maxBuffer = 1 << 20

// queue is the turns of one pair. Times are since the Arrest was made.
type queue struct {
	pair    pair
	next    time.Duration   // the first turn that nobody had yet
	free    []time.Duration // turns ahead that were given up, the first one first
	pace    time.Duration   // the interval turns were given at last
	waiting int
	place   *list.Element // among those nobody waits in; nil while somebody does
}

// take takes the first turn there is. It fails when that is further ahead than the buffer has room for, and returns after what time
// it will not be. (GCRA with a tolerance of the buffer, where what is early is delayed.)
func (q *queue) take(now, interval time.Duration, buffer int) (turn time.Duration, ok bool) {
	if interval != q.pace {
		q.next, q.pace = min(q.next, now+interval), interval // what was counted at another pace does not hold calls up at this one
	}
	past := func(t time.Duration) bool { return t <= now }
	q.free = slices.DeleteFunc(q.free, past)
	turn = max(q.next, now)
	given := len(q.free) > 0
	if given {
		turn = q.free[0] // before all that nobody had yet
	}
	// As many calls have a turn ahead as there are intervals until the next one.
	if room := time.Duration(min(buffer, maxBuffer)) * interval; turn-now > room {
		return turn - now - room, false
	}
	if given {
		q.free = slices.Delete(q.free, 0, 1)
	} else {
		q.next = turn + interval
	}
	return turn, true
}

// giveBack gives up a turn that did not come.
func (q *queue) giveBack(turn, now time.Duration) {
	if turn <= now {
		return
	}
	i, _ := slices.BinarySearch(q.free, turn)
	q.free = slices.Insert(q.free, i, turn)
}
