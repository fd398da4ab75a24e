package quota

import (
	"sync/atomic"
	"time"
)

// slack is how far the clocks of replicas may differ, and be set back, both together, without quotas losing their exactness: records are
// kept for that long after their windows end.
const slack = 5 * time.Minute

// clock is the time that quotas use: wall clock time, unless the wall clock is set back by more than slack. Beyond that, clock does not
// follow it until the process restarts, because the records of such old windows may be gone.
type clock struct {
	// read returns the wall clock time since 1970 and a monotonic time, both in nanoseconds.
	read func() (wall, mono int64)
	lead atomic.Int64 // the most that the wall clock was ahead of mono
}

// tolerance avoids updating the lead on every call while a clock is slewed.
const tolerance = int64(time.Millisecond)

func newClock(read func() (wall, mono int64)) *clock {
	c := &clock{read: read}
	wall, mono := read()
	c.lead.Store(wall - mono)
	return c
}

// systemTime returns a function that reads the system clock.
func systemTime() func() (wall, mono int64) {
	began := time.Now()
	return func() (wall, mono int64) {
		t := time.Now()
		return t.UnixNano(), int64(t.Sub(began))
	}
}

// now returns the time that quotas use, since 1970, and the monotonic time for durations, both in nanoseconds.
func (c *clock) now() (now, mono int64) {
	wall, mono := c.read()
	lead := c.lead.Load()
	for wall-mono > lead+tolerance {
		if c.lead.CompareAndSwap(lead, wall-mono) {
			lead = wall - mono
			break
		}
		lead = c.lead.Load()
	}
	return max(wall, mono+lead-int64(slack)), mono
}

// ahead returns how far the time that quotas use is ahead of the wall clock.
func (c *clock) ahead() time.Duration {
	now, mono := c.now()
	wall, later := c.read()
	return max(0, time.Duration(now-wall+later-mono))
}
