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
	// failuresToDown is after how many failures in a row an upstream is down. When it is silent they must be spread over at least half
	// the time a question may take, too: names that take long, asked for at once, are no sign. Nor is a single name, however often it is
	// asked for: then it is down when it does not answer a probe either.
	failuresToDown = 3
	// probeFirst and probeMost are the times between probes of an upstream that is down: they double from one to the other.
	probeFirst, probeMost = 500 * time.Millisecond, 30 * time.Second
)

// upstream is an upstream of one zone, with its health.
//
// One that is down is asked after the others, so that being down costs it nothing when it is alone or all are down: whoever can make it
// fail, by asking for names that take long, wins little. One that leads back here is not asked.
type upstream struct {
	Upstream
	zone, label string // for people
	probeName   wire.Name
	pool        *pool // with TLS
	wake        chan struct{}
	stop        context.CancelFunc // ends the goroutine that watches it; nil before there is one

	mu       sync.Mutex
	failures int       // in a row
	failing  time.Time // since when
	failed   wire.Name // the name asked for first of these
	several  bool      // it was not the only one
	suspect  bool      // a probe is to say whether it is down
	state    health
	reason   string // why the last question was not answered; empty once one is
	since    time.Time
	rest     time.Duration // until the next probe
	retired  bool          // it is not in the settings any more; who asks it still is not counted
	nonce    string        // of the last probe
	returned bool          // the last probe came back here
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

// newUpstream makes the upstream of a zone. Its number is that in the names of its probes.
func (f *Forwarder) newUpstream(z Zone, u Upstream) *upstream {
	f.numbered++
	name := z.Name
	for _, label := range []string{"mep-loop", f.process, fmt.Sprint(f.numbered)} {
		name, _ = name.Child(label) // the names of zones are short enough
	}
	up := &upstream{
		Upstream: u, zone: z.Name.String(), label: u.String(), probeName: name, wake: make(chan struct{}, 1), since: f.now(),
	}
	if u.TLS {
		up.pool = f.newPool(u)
	}
	return up
}

// inOrder is the upstreams in the order they are to be asked in.
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

// note takes note of what came of asking an upstream for a name; err is what went wrong when it had no answer.
func (f *Forwarder) note(u *upstream, name wire.Name, outcome string, took time.Duration, err error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.retired {
		return
	}
	f.metrics.requests.WithLabelValues(u.zone, u.label, outcome).Inc()
	u.asked++
	switch {
	case u.state == looping: // which is the reason
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

// noteFailure takes note that an upstream did not respond. It is called with the lock of the upstream held.
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

// countName takes note of a name that was not answered. It is called with the lock held, when the failure has been counted.
func (u *upstream) countName(name wire.Name) {
	if u.failures == 1 || u.failed == "" {
		u.failed, u.several = name, false
	}
	u.several = u.several || name != u.failed
}

// awaken has whoever watches the upstream look at it.
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

// watch looks after an upstream until the context ends: it looks once whether it leads back here, and whenever it is not well, when it
// is again.
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

// nextRest is how long to wait for the next probe: not at all for the first, then longer and longer. It begins anew when the upstream
// has answered a question: one that answers probes and nothing else is not believed so soon again.
func (u *upstream) nextRest() time.Duration {
	u.mu.Lock()
	defer u.mu.Unlock()
	rest := u.rest
	u.rest = min(max(2*rest, probeFirst), probeMost)
	return rest
}

// probe asks for a name that does not exist, below the zone, because there may be no upstream for others.
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
	case u.returned: // LoopProbe has seen to it
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
	case u.suspect: // it is the name that takes long
		u.failures, u.suspect = 0, false
	}
}

// LoopProbe reports whether a query that came to this server is one of those by which a forwarder looks for loops. The upstream it was
// sent to is not asked any more, until a later probe does not come back. The name is in lower case. Answer such a query as you like.
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
