package spike

import (
	"container/list"
	"slices"
	"time"
)

// maxBuffer is the largest buffer. It keeps the time of the furthest turn from overflowing.
const maxBuffer = 1 << 20

// queue holds the turns of one pair. Times are relative to the creation of the Arrest.
type queue struct {
	pair    pair
	next    time.Duration   // the first turn not given out yet
	free    []time.Duration // turns ahead that were given up, in ascending order
	pace    time.Duration   // the interval between turns when one was last requested
	waiting int
	place   *list.Element // in shard.resting; nil while a call waits in the queue
}

// take takes the first available turn. If that turn is further ahead than the buffer has room for, take fails and returns how long it
// will be until there is room. (This is GCRA with the buffer as tolerance, but early calls are delayed.)
func (q *queue) take(now, interval time.Duration, buffer int) (turn time.Duration, ok bool) {
	if interval != q.pace {
		q.next, q.pace = min(q.next, now+interval), interval // turns counted at another pace do not delay calls at this one
	}
	past := func(t time.Duration) bool { return t <= now }
	q.free = slices.DeleteFunc(q.free, past)
	turn = max(q.next, now)
	given := len(q.free) > 0
	if given {
		turn = q.free[0] // earlier than any turn not given out yet
	}
	// The number of calls with a turn ahead equals the number of intervals until the next turn.
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

// giveBack gives up a turn that is still ahead.
func (q *queue) giveBack(turn, now time.Duration) {
	if turn <= now {
		return
	}
	i, _ := slices.BinarySearch(q.free, turn)
	q.free = slices.Insert(q.free, i, turn)
}
