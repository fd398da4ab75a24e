package quota

import (
	"sync/atomic"
	"time"
)

// circuit keeps those who ask from waiting for an etcd that does not answer.
type circuit struct {
	broken  atomic.Bool
	probing atomic.Bool
	next    atomic.Int64 // when to try again; of the time for spans
}

// retry is after what time etcd is tried again after it did not answer.
const retry = int64(250 * time.Millisecond)

// open reports whether etcd did not answer last time.
func (c *circuit) open() bool { return c.broken.Load() }

// enter reports whether a transaction may begin: all may while etcd answers, and then one at a time, which finds out whether it
// does again.
func (c *circuit) enter(mono int64) (ok, probe bool) {
	if !c.broken.Load() {
		return true, false
	}
	probe = mono >= c.next.Load() && c.probing.CompareAndSwap(false, true)
	return probe, probe
}

// leave says how a transaction ended, and returns whether that changed anything.
func (c *circuit) leave(ok, probe bool, mono int64) (changed bool) {
	if !ok {
		c.next.Store(mono + retry)
	}
	changed = c.broken.Swap(!ok) == ok
	if probe {
		c.probing.Store(false)
	}
	return changed
}
