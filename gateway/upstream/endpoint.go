package upstream

import (
	"net/http"
	"sync/atomic"
	"time"

	"golang.org/x/net/http/httpguts"

	"github.com/openmep/mep/api/gateway"
)

// The states of gateway.TargetView.
const (
	StateUp        = "up"
	StateEjected   = "ejected"
	StateUnhealthy = "unhealthy"
	StateRefused   = "refused"
)

// maxGrowth bounds the length of an ejection, as a multiple of that of the first one.
const maxGrowth = 10

// endpointKey identifies an endpoint.
type endpointKey struct {
	profile *Profile
	url     string
}

// Endpoint is one URL that is called as a Profile says. Manager.Endpoint returns it.
type Endpoint struct {
	manager *Manager
	profile *Profile
	target  *target
	key     endpointKey
	lanes   atomic.Pointer[lanes]

	active, calls, failures atomic.Int64

	// failing counts consecutive failures, and ejections consecutive ejections. ejectedUntil is when the current ejection ends (0:
	// there is none), and since is when slow start began, both as the time since the start of the Manager.
	failing, ejections  atomic.Int32
	ejectedUntil, since atomic.Int64
	unhealthy           atomic.Bool
	// refused says why the endpoint is refused, and reason why it was ejected or found unhealthy. Both are for people.
	refused, reason atomic.Pointer[string]

	// Guarded by Manager.mu.
	references int
	released   time.Time
}

// Release says that the caller no longer needs the endpoint. The endpoint is remembered for a while.
func (e *Endpoint) Release() {
	m := e.manager
	m.mu.Lock()
	defer m.mu.Unlock()
	e.references--
	e.released = time.Now()
}

// View describes the endpoint. It fills in URL, State, Reason, Active, Calls and Failures.
func (e *Endpoint) View() gateway.TargetView {
	v := gateway.TargetView{
		URL: e.key.url, Active: e.active.Load(), Calls: e.calls.Load(), Failures: e.failures.Load(),
	}
	v.State, v.Reason = e.state()
	return v
}

// state returns the state and the reason for it.
func (e *Endpoint) state() (state, reason string) {
	if p := e.manager.policy(); p != nil && e.target.literal.IsValid() {
		if err := p.CheckAddr(e.target.literal); err != nil {
			return StateRefused, "the address " + err.Error()
		}
	} else if why := e.refused.Load(); why != nil {
		return StateRefused, *why
	}
	state = StateUp
	switch {
	case e.unhealthy.Load():
		state = StateUnhealthy
	case e.ejectedUntil.Load() > e.manager.now():
		state = StateEjected
	default:
		return state, ""
	}
	if why := e.reason.Load(); why != nil {
		reason = *why
	}
	return state, reason
}

// usable reports whether the endpoint is neither ejected nor unhealthy. It ends an ejection whose time is over.
func (e *Endpoint) usable() bool {
	if e.unhealthy.Load() {
		return false
	}
	until := e.ejectedUntil.Load()
	if until == 0 {
		return true
	}
	now := e.manager.now()
	if now < until {
		return false
	}
	e.takeBack(until, now)
	return true
}

// takeBack ends the ejection that ends at until, unless another one has replaced it.
func (e *Endpoint) takeBack(until, now int64) {
	if e.ejectedUntil.CompareAndSwap(until, 0) {
		e.since.Store(now)
		e.manager.log.Info("endpoint is no longer avoided", "url", e.key.url)
	}
}

// transport returns the transport for a request. For http, the URL alone decides on the version of HTTP, not a client that claims
// to be gRPC.
func (e *Endpoint) transport(l *lanes, h http.Header) *http.Transport {
	switch {
	case isUpgrade(h):
		return l.h1
	case e.target.scheme == "https":
		return l.main
	case e.target.h2c:
		return l.h2c
	}
	return l.plain
}

// isUpgrade reports whether a request asks for another protocol, such as WebSocket. HTTP/2 has no such mechanism.
func isUpgrade(h http.Header) bool {
	return len(h["Upgrade"]) > 0 && httpguts.HeaderValuesContainsToken(h["Connection"], "upgrade")
}

// responded records a response. The statuses of a proxy in front of a broken server count as failures.
func (e *Endpoint) responded(status int, ejectedBefore int64) {
	if e.refused.Load() != nil {
		e.refused.Store(nil)
	}
	switch status {
	case http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		e.failed(statusText(status))
		return
	}
	if e.failing.Load() != 0 {
		e.failing.Store(0)
	}
	if ejectedBefore != 0 {
		// The endpoint was called although ejected, because none was usable.
		e.takeBack(ejectedBefore, e.manager.now())
	}
	if e.ejections.Load() != 0 && e.manager.now()-e.since.Load() > int64(e.profile.ejectFor) {
		e.ejections.Store(0)
	}
}

// failed records a failure and ejects the endpoint after too many in a row.
func (e *Endpoint) failed(why string) {
	e.failures.Add(1)
	after := e.profile.ejectAfter
	if e.failing.Add(1) < after || after == 0 {
		return
	}
	now := e.manager.now()
	until := e.ejectedUntil.Load()
	if until > now {
		return
	}
	times := min(e.ejections.Load()+1, maxGrowth)
	span := e.profile.ejectFor * time.Duration(times)
	if !e.ejectedUntil.CompareAndSwap(until, now+int64(span)) {
		return
	}
	e.ejections.Store(times)
	e.reason.Store(&why)
	e.manager.metrics.ejections.Inc()
	e.manager.log.Warn("endpoint is avoided for a while", "url", e.key.url, "span", span, "reason", why)
}

// weight returns the share of an endpoint in slow start, more than 0 and at most 1.
func (e *Endpoint) weight(now int64) float64 {
	elapsed := now - e.since.Load()
	if elapsed >= int64(e.profile.slowStart) {
		return 1
	}
	return max(float64(elapsed)/float64(e.profile.slowStart), minWeight)
}

// minWeight is the share of an endpoint when its slow start begins.
const minWeight = 0.05
