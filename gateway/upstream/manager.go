package upstream

import (
	"context"
	"log/slog"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/openmep/mep/api/gateway"
	"github.com/openmep/mep/kit/netguard"
)

const (
	// sweepEvery is how often the Manager looks for what is no longer needed.
	sweepEvery = 5 * time.Second
	// keepReleased is how long an unused endpoint or profile is remembered: what disappears from a route table often comes back,
	// and what is known of it is still valid.
	keepReleased = 30 * time.Second
	// keepRetired is how long the connections of former settings are still looked after.
	keepRetired = 2 * idleFor
)

// Manager holds all profiles and endpoints.
type Manager struct {
	log      *slog.Logger
	metrics  *metrics
	start    time.Time
	settings atomic.Pointer[settings]
	wake     chan struct{}

	connections connections

	mu        sync.Mutex
	profiles  map[spec]*Profile
	endpoints map[endpointKey]*Endpoint
	retired   []retirement
	unchecked []*Endpoint // endpoints whose health checks have not started
}

// retirement records lanes that get no new requests.
type retirement struct {
	lanes *lanes
	at    time.Time
}

// New returns a Manager. The error says which setting is invalid.
func New(cfg Config, log *slog.Logger, reg prometheus.Registerer) (*Manager, error) {
	s, err := newSettings(cfg)
	if err != nil {
		return nil, err
	}
	m := &Manager{
		log: log, start: time.Now(), wake: make(chan struct{}, 1),
		profiles: make(map[spec]*Profile), endpoints: make(map[endpointKey]*Endpoint),
	}
	m.settings.Store(s)
	m.metrics = newMetrics(m, reg)
	return m, nil
}

// Prepare checks settings that are to replace the current ones; apply puts them into effect. Endpoints, their state and requests in
// flight survive, except requests to addresses that the guard now refuses. Connections survive if nothing they depend on changed. A
// profile whose client certificate is gone keeps the one it had, until the profile is asked for again.
func (m *Manager) Prepare(cfg Config) (apply func(), err error) {
	s, err := newSettings(cfg)
	if err != nil {
		return nil, err
	}
	return func() { m.apply(s) }, nil
}

func (m *Manager) apply(s *settings) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.settings.Store(s)
	inUse := make(map[*lanes]bool)
	former := make(map[*lanes]bool)
	for _, p := range m.profiles {
		certificate, err := s.certificateOf(p)
		if err != nil {
			certificate = p.wiring.certificate
			m.log.Warn("client certificate is gone from the configuration, still using it", "name", p.certificate)
		}
		for _, l := range p.wiring.lanes {
			former[l] = true
		}
		p.wiring = m.wire(p, s, certificate)
	}
	for _, e := range m.endpoints {
		l := m.lanesOf(e.profile, e.target, s)
		e.lanes.Store(l)
		inUse[l] = true
	}
	for _, p := range m.profiles {
		for key, l := range p.wiring.lanes {
			if !inUse[l] {
				delete(p.wiring.lanes, key)
			}
		}
	}
	for l := range former {
		if !inUse[l] {
			m.retire(l)
		}
	}
	m.connections.judge(s.policy())
}

// retire closes idle connections of lanes, and the others later. m.mu must be held.
func (m *Manager) retire(l *lanes) {
	l.closeIdle()
	m.retired = append(m.retired, retirement{l, time.Now()})
}

// policy returns the current policy of the guard.
func (m *Manager) policy() *netguard.Policy { return m.settings.Load().policy() }

// now returns the time since the start in nanoseconds, at least 1.
func (m *Manager) now() int64 { return int64(time.Since(m.start)) + 1 }

// Profile returns the Profile for these settings; equal settings share one. The error says what is wrong: a duration, the PEM, a
// client certificate that does not exist, or the URL of the proxy.
func (m *Manager) Profile(u gateway.Upstream, t gateway.Timeouts) (*Profile, error) {
	s, err := newSpec(u, t)
	if err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	now := m.settings.Load()
	if p := m.profiles[s]; p != nil {
		if _, err := now.certificateOf(p); err != nil {
			return nil, err
		}
		return p, nil
	}
	p, err := newProfile(s)
	if err != nil {
		return nil, err
	}
	certificate, err := now.certificateOf(p)
	if err != nil {
		return nil, err
	}
	p.wiring = m.wire(p, now, certificate)
	p.unused = time.Now()
	m.profiles[s] = p
	return p, nil
}

// current returns the Profile to use in place of p, which may have been forgotten since it was returned. m.mu must be held.
func (m *Manager) current(p *Profile) *Profile {
	if known := m.profiles[p.spec]; known != nil {
		return known
	}
	m.profiles[p.spec] = p
	s := m.settings.Load()
	certificate, err := s.certificateOf(p)
	if err != nil {
		certificate = p.wiring.certificate
	}
	p.wiring = m.wire(p, s, certificate)
	return p
}

// Endpoint returns the Endpoint for a URL of the scheme http, https, h2c, ws (http), wss (https), grpc (h2c) or grpcs (https);
// equal ones are shared. Every call of Endpoint needs a call of Release. The error says what is wrong with the URL.
func (m *Manager) Endpoint(p *Profile, rawURL string) (*Endpoint, error) {
	t, err := parseTarget(rawURL)
	if err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	p = m.current(p)
	key := endpointKey{p, t.String()}
	e := m.endpoints[key]
	if e == nil {
		e = &Endpoint{manager: m, profile: p, target: t, key: key}
		e.since.Store(m.now())
		e.lanes.Store(m.lanesOf(p, t, m.settings.Load()))
		m.endpoints[key] = e
		p.endpoints++
		if p.health.path != "" {
			m.unchecked = append(m.unchecked, e)
			m.awake()
		}
	}
	e.references++
	return e, nil
}

// lanesOf returns the lanes to a target. m.mu must be held.
func (m *Manager) lanesOf(p *Profile, t *target, s *settings) *lanes {
	proxy := p.proxy
	if p.proxyURL == "" && s.proxyFor != nil {
		// The only possible error is an invalid proxy URL, and proxy URLs were checked.
		proxy, _ = s.proxyFor(&url.URL{Scheme: t.scheme, Host: t.host})
	}
	return m.lanesFor(p, p.wiring, proxy)
}

func (m *Manager) awake() {
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

// Run checks the health of endpoints, closes unneeded connections and forgets released endpoints until ctx is done.
func (m *Manager) Run(ctx context.Context) error {
	checks := newChecks(ctx, m)
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		m.mu.Lock()
		begin := m.unchecked
		m.unchecked = nil
		m.mu.Unlock()
		for _, e := range begin {
			checks.begin(e)
		}
		select {
		case <-ctx.Done():
			checks.wait()
			m.closeIdle()
			return nil
		case <-m.wake:
		case <-tick.C:
			for _, e := range m.sweep(time.Now()) {
				checks.end(e)
			}
			m.connections.judge(m.policy()) // what it refuses may depend on listeners opened since then
		}
	}
}

// sweep closes connections that have been idle for too long, forgets endpoints and profiles released some time ago, and returns
// these endpoints.
func (m *Manager) sweep(now time.Time) []*Endpoint {
	m.mu.Lock()
	defer m.mu.Unlock()
	var gone []*Endpoint
	for key, e := range m.endpoints {
		if e.references > 0 || now.Sub(e.released) < keepReleased {
			continue
		}
		delete(m.endpoints, key)
		gone = append(gone, e)
		if e.profile.endpoints--; e.profile.endpoints == 0 {
			e.profile.unused = now
		}
	}
	for s, p := range m.profiles {
		if p.endpoints > 0 || now.Sub(p.unused) < keepReleased {
			for _, l := range p.wiring.lanes {
				l.sweep(now)
			}
			continue
		}
		delete(m.profiles, s)
		for _, l := range p.wiring.lanes {
			m.retire(l)
		}
		clear(p.wiring.lanes)
	}
	kept := m.retired[:0]
	for _, r := range m.retired {
		r.lanes.closeIdle() // a request that was about to be sent may have opened a connection
		if now.Sub(r.at) < keepRetired {
			kept = append(kept, r)
		}
	}
	clear(m.retired[len(kept):])
	m.retired = kept
	return gone
}

func (m *Manager) closeIdle() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, p := range m.profiles {
		for _, l := range p.wiring.lanes {
			l.closeIdle()
		}
	}
	for _, r := range m.retired {
		r.lanes.closeIdle()
	}
}
