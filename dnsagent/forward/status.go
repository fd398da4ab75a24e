package forward

import (
	"cmp"
	"slices"
	"time"
)

// States of an upstream.
const (
	StateUp      = "up"
	StateDown    = "down"
	StateLooping = "looping"
)

// Status is what is known about an upstream of a zone.
type Status struct {
	// Zone and Upstream are the text forms of the zone and the upstream.
	Zone, Upstream string
	// State is one of the states. Reason is why it is not StateUp or, if it is, why the last question was not answered; empty if it was.
	State, Reason string
	// Since is when the upstream entered this state.
	Since time.Time
	// Asked is how often the upstream was asked, Unanswered how often it did not respond.
	Asked, Unanswered uint64
	// Latency is about how long recent responses took; 0 before the first.
	Latency time.Duration
	// CaseLost says that the upstream does not preserve the capitals of names, and is asked without.
	CaseLost bool
}

// Upstreams lists the upstreams ordered by zone, and within a zone in the order of the settings.
func (f *Forwarder) Upstreams() []Status {
	var list []Status
	for _, u := range f.settings.Load().upstreams() {
		list = append(list, u.status())
	}
	slices.SortStableFunc(list, func(a, b Status) int { return cmp.Compare(a.Zone, b.Zone) })
	return list
}

func (u *upstream) status() Status {
	u.mu.Lock()
	defer u.mu.Unlock()
	return Status{
		Zone: u.zone, Upstream: u.label, State: [...]string{StateUp, StateDown, StateLooping}[u.state], Reason: u.reason, Since: u.since,
		Asked: u.asked, Unanswered: u.unheard, Latency: u.latency, CaseLost: u.casing.losses >= caseLosses,
	}
}
