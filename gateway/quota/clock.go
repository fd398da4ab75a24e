package quota

import (
	"sync/atomic"
	"time"
)

// slack is how far the clocks of replicas may be apart, and how far the clock of one may be set back, so that quotas stay exact:
// records are kept for so long after their window.
const slack = 5 * time.Minute

// clock is the time quotas go by: that of the wall, as long as it is not set back by more than slack. What is beyond that is not
// followed until the process starts again, because the records of windows so long ago may be gone.
type clock struct {
	// read returns the time of the wall since 1970, and a time that only goes forward at its pace, both in nanoseconds.
	read func() (wall, mono int64)
	lead atomic.Int64 // the most the wall was ahead of mono
}

// tolerance keeps the lead from being written on every call while a clock is slewed.
const tolerance = int64(time.Millisecond)

func newClock(read func() (wall, mono int64)) *clock {
	c := &clock{read: read}
	wall, mono := read()
	c.lead.Store(wall - mono)
	return c
}

// systemTime reads the clock of the system.
func systemTime() func() (wall, mono int64) {
	began := time.Now()
	return func() (wall, mono int64) {
		t := time.Now()
		return t.UnixNano(), int64(t.Sub(began))
	}
}

// now returns the time quotas go by, since 1970, and the one for spans, both in nanoseconds.
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

// ahead is how far the time quotas go by is ahead of the wall.
func (c *clock) ahead() time.Duration {
	now, mono := c.now()
	wall, later := c.read()
	return max(0, time.Duration(now-wall+later-mono))
}
