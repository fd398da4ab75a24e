package quota

import (
	"sync/atomic"
	"time"
)

// circuit keeps calls from waiting for an etcd that does not answer.
type circuit struct {
	broken  atomic.Bool
	probing atomic.Bool
	next    atomic.Int64 // when to try again, in monotonic time
}

// retry is how long after a failure etcd is tried again.
const retry = int64(250 * time.Millisecond)

// open reports whether etcd did not answer last time.
func (c *circuit) open() bool { return c.broken.Load() }

// enter reports whether a transaction may begin. While etcd answers, all may; after a failure, one at a time may, as a probe.
func (c *circuit) enter(mono int64) (ok, probe bool) {
	if !c.broken.Load() {
		return true, false
	}
	probe = mono >= c.next.Load() && c.probing.CompareAndSwap(false, true)
	return probe, probe
}

// leave records how a transaction ended, and reports whether that changed the state of the circuit.
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
