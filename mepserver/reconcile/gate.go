package reconcile

import (
	"sync"
	"time"
)

// several is how many app instances must fail in a row, with no answer in between, before the other side as a whole is taken to
// be at fault.
const several = 3

// gate keeps the workers from hammering a system that does not answer. While closed, it lets one call through from time to time;
// the first answer opens it.
type gate struct {
	least, most time.Duration

	mu       sync.Mutex
	failing  map[string]struct{} // app instances that failed since the last answer; kept only while open
	closed   bool
	until    time.Time // when the next call is let through
	attempts int       // failed calls, including the one that closed the gate
	probing  bool      // a call that was let through is in flight
}

func newGate(least, most time.Duration) *gate {
	return &gate{least: least, most: most, failing: make(map[string]struct{})}
}

// admit reports whether a call may be made. probe is true if it is the only call that the closed gate lets through.
func (g *gate) admit(now time.Time) (ok, probe bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.closed {
		return true, false
	}
	if g.probing || now.Before(g.until) {
		return false, false
	}
	g.probing = true
	return true, true
}

// next returns when a call is let through, and false if the gate is open or such a call is in flight.
func (g *gate) next() (time.Time, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.until, g.closed && !g.probing
}

// open reports whether the gate is open.
func (g *gate) open() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return !g.closed
}

// abandon records that an admitted call was not made, or that its outcome does not count.
func (g *gate) abandon(probe bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if probe {
		g.probing = false
	}
}

// answered records an answer and reports whether it opened the gate.
func (g *gate) answered() (opened bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	opened = g.closed
	g.closed, g.probing, g.attempts = false, false, 0
	clear(g.failing)
	return opened
}

// failed records a call without an answer and reports whether it closed the gate. leave is how long the other side asked to be
// left alone, 0 if it did not ask.
func (g *gate) failed(app string, probe bool, now time.Time, leave time.Duration) (closed bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case g.closed && probe:
		g.probing = false
	case g.closed:
		g.until = later(g.until, now.Add(leave))
		return false
	default:
		g.failing[app] = struct{}{}
		if leave == 0 && len(g.failing) < several {
			return false
		}
		clear(g.failing)
		g.closed, closed = true, true
	}
	g.attempts++
	g.until = now.Add(max(leave, backoff(g.attempts, g.least, g.most)))
	return closed
}

// hurry lets a call through at once: there is reason to expect an answer.
func (g *gate) hurry(now time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.until = now
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
