package forward

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"

	"github.com/openmep/mep/dnsagent/wire"
)

const (
	// failuresToDown is the number of failures in a row after which an upstream is down. Failures by silence must also spread over at
	// least half the timeout of a question: slow names that are asked for at once are no sign. Nor is a single name, however often it is
	// asked for: the upstream is then down only if it does not answer a probe either.
	failuresToDown = 3
	// probeFirst and probeMost bound the time between probes of an upstream that is down, which doubles from the first to the second.
	probeFirst, probeMost = 500 * time.Millisecond, 30 * time.Second
)

// upstream is an upstream of one zone, with its health.
//
// An upstream that is down is asked after the others, so that being down costs it nothing when it is alone or all are down: an attacker
// who makes it fail, by asking for slow names, gains little. An upstream that leads back to this server is not asked.
type upstream struct {
	Upstream
	zone, label string // for display
	probeName   wire.Name
	pool        *pool // nil without TLS
	wake        chan struct{}
	stop        context.CancelFunc // stops the goroutine that watches the upstream; nil before there is one

	mu       sync.Mutex
	failures int       // in a row
	failing  time.Time // when the first of them began
	failed   wire.Name // name of the first of them
	several  bool      // they concern other names too
	suspect  bool      // a probe is to decide whether the upstream is down
	state    health
	reason   string // why the last question was not answered; empty once one is
	since    time.Time
	rest     time.Duration // until the next probe
	retired  bool          // no longer in the settings; its requests are not counted any more
	nonce    string        // of the last probe
	returned bool          // the last probe came back to this server
	latency  time.Duration // smoothed
	casing   casing
	asked    uint64
	unheard  uint64
}

type health uint8

const (
	healthy health = iota
	down
	looping
)

// newUpstream creates the upstream of a zone. Its number is part of the names of its probes.
func (f *Forwarder) newUpstream(z Zone, u Upstream) *upstream {
	f.numbered++
	name := z.Name
	for _, label := range []string{"mep-loop", f.process, fmt.Sprint(f.numbered)} {
		name, _ = name.Child(label) // zone names are short enough
	}
	up := &upstream{
		Upstream: u, zone: z.Name.String(), label: u.String(), probeName: name, wake: make(chan struct{}, 1), since: f.now(),
	}
	if u.TLS {
		up.pool = f.newPool(u)
	}
	return up
}

// inOrder returns the upstreams to ask, in the order in which to ask them.
func inOrder(upstreams []*upstream) []*upstream {
	var up, rest []*upstream
	for _, u := range upstreams {
		switch u.health() {
		case healthy:
			up = append(up, u)
		case down:
			rest = append(rest, u)
		}
	}
	return append(up, rest...)
}

func (u *upstream) health() health {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.state
}

// note records the outcome of asking an upstream for a name; err is what went wrong if it had no answer.
func (f *Forwarder) note(u *upstream, name wire.Name, outcome string, took time.Duration, err error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.retired {
		return
	}
	f.metrics.requests.WithLabelValues(u.zone, u.label, outcome).Inc()
	u.asked++
	switch {
	case u.state == looping: // the loop remains the reason
	case err == nil:
		u.reason = ""
	default:
		u.reason = err.Error()
	}
	if outcome == outcomeTimeout || outcome == outcomeNetwork {
		u.unheard++
		f.noteFailure(u, name, outcome, took)
		return
	}
	f.metrics.duration.WithLabelValues(u.zone, u.label).Observe(took.Seconds())
	u.failures, u.suspect, u.rest = 0, false, 0
	if u.latency == 0 {
		u.latency = took
	}
	u.latency += (took - u.latency) / 8
	if u.state == down {
		f.changeState(u, healthy, u.reason)
	}
}

// noteFailure records that an upstream did not respond. It is called with the lock of the upstream held.
func (f *Forwarder) noteFailure(u *upstream, name wire.Name, outcome string, took time.Duration) {
	if u.failures == 0 {
		u.failing = f.now().Add(-took)
	}
	u.failures++
	u.countName(name)
	if u.state != healthy || u.failures < failuresToDown {
		return
	}
	switch {
	case outcome == outcomeNetwork:
		f.changeState(u, down, u.reason)
	case f.now().Sub(u.failing) < f.settings.Load().Timeout/2:
	case u.several:
		f.changeState(u, down, u.reason)
	case !u.suspect:
		u.suspect = true
		u.awaken()
	}
}

// countName records a name that was not answered. It is called with the lock held, after the failure has been counted.
func (u *upstream) countName(name wire.Name) {
	if u.failures == 1 || u.failed == "" {
		u.failed, u.several = name, false
	}
	u.several = u.several || name != u.failed
}

// awaken wakes the goroutine that watches the upstream.
func (u *upstream) awaken() {
	select {
	case u.wake <- struct{}{}:
	default:
	}
}

// changeState is called with the lock held.
func (f *Forwarder) changeState(u *upstream, state health, reason string) {
	log := f.log.With("zone", u.zone, "upstream", u.label)
	switch state {
	case healthy:
		log.Info("an upstream answers again")
	case down:
		log.Warn("an upstream does not answer", "reason", reason)
	case looping:
		log.Error("an upstream asks this server in turn and is not used: take one of the two out of the configuration")
	}
	u.state, u.reason, u.since, u.suspect = state, reason, f.now(), false
	f.metrics.setUp(u)
	u.awaken()
}

// watch monitors an upstream until ctx ends: it probes once whether the upstream leads back to this server, and whenever the upstream is
// in doubt, until it is well again.
func (f *Forwarder) watch(ctx context.Context, u *upstream) {
	f.probe(ctx, u)
	for {
		select {
		case <-ctx.Done():
			return
		case <-u.wake:
		}
		for u.inDoubt() {
			timer := time.NewTimer(u.nextRest())
			select {
			case <-ctx.Done():
				timer.Stop()
				return
			case <-timer.C:
				f.probe(ctx, u)
			}
		}
	}
}

// inDoubt reports whether the upstream is to be probed.
func (u *upstream) inDoubt() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.state != healthy || u.suspect
}

// nextRest returns how long to wait before the next probe: not at all for the first, then longer and longer. It starts over only after
// the upstream has answered a question: one that answers nothing but probes is not soon trusted again.
func (u *upstream) nextRest() time.Duration {
	u.mu.Lock()
	defer u.mu.Unlock()
	rest := u.rest
	u.rest = min(max(2*rest, probeFirst), probeMost)
	return rest
}

// probe asks for a name that does not exist, below the zone because the upstream may know no others.
func (f *Forwarder) probe(ctx context.Context, u *upstream) {
	var random [4]byte
	_, _ = rand.Read(random[:]) // it does not fail
	nonce := hex.EncodeToString(random[:])
	name, _ := u.probeName.Child(nonce)
	u.mu.Lock()
	u.nonce, u.returned = nonce, false
	u.mu.Unlock()

	s := f.settings.Load()
	x := exchanger{
		upstream: u, question: &Question{Name: name, Type: dns.TypeA, Class: dns.ClassINET},
		udpSize: s.UDPSize, randomCase: f.randomCase(s, u), limit: s.Timeout, metrics: f.metrics,
	}
	resp, err := x.do(ctx)
	if err == nil {
		f.noteCase(u, resp.capitals)
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	switch {
	case ctx.Err() != nil || u.retired:
	case u.returned: // LoopProbe has changed the state
	case err != nil && u.suspect:
		f.changeState(u, down, err.Error())
	case err != nil:
		if u.reason = err.Error(); u.state == healthy {
			u.failures++
			u.countName(u.probeName)
		}
	case u.state != healthy:
		u.failures, u.failed = failuresToDown-1, "" // on probation
		f.changeState(u, healthy, "")
	case u.suspect: // the name is slow, not the upstream
		u.failures, u.suspect = 0, false
	}
}

// LoopProbe reports whether a query that came to this server is one that the forwarder sent to detect loops. The upstream it was sent to
// is not asked any more, until a later probe does not come back. The name must be in lower case. The response to such a query does not
// matter.
func (f *Forwarder) LoopProbe(name wire.Name) bool {
	if !strings.Contains(string(name), f.loopLabels) {
		return false
	}
	nonce, parent := string(name[1:1+name[0]]), name.Parent()
	for _, z := range f.settings.Load().zones {
		i := slices.IndexFunc(z.upstreams, func(u *upstream) bool { return u.probeName == parent })
		if i < 0 {
			continue
		}
		u := z.upstreams[i]
		u.mu.Lock()
		defer u.mu.Unlock()
		if u.nonce == nonce {
			u.returned = true
			if u.state != looping {
				f.changeState(u, looping, ErrLoop.Error())
			}
		}
		return true
	}
	return false
}
