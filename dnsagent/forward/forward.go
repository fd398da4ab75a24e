package forward

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/openmep/mep/dnsagent/cache"
	"github.com/openmep/mep/dnsagent/wire"
)

const (
	// sweepInterval is how often useless answers are removed from the cache. The size of the cache is bounded at all times.
	sweepInterval = time.Minute
	// idleSweepInterval is how often unused connections are closed.
	idleSweepInterval = idleTime / 2
)

// Forwarder answers questions by asking upstreams.
type Forwarder struct {
	log      *slog.Logger
	metrics  *metrics
	now      func() time.Time
	patience time.Duration

	settings atomic.Pointer[settings]
	cache    *cache.Cache[*Answer]
	flights  flights
	life     context.Context // of all requests to upstreams
	end      context.CancelFunc

	process    string // identifies this process in probes
	loopLabels string

	mu       sync.Mutex // guards the fields below, and changes of settings
	numbered int        // number of upstreams created
	watching context.Context
	watchers sync.WaitGroup
	streams  sync.WaitGroup // goroutines of TLS connections
}

// New returns a Forwarder that answers at once. Run is needed for upstreams that were down to be used first again, to detect loops, and
// to end. Without a logger or a registerer there are no messages or metrics.
func New(cfg Config, log *slog.Logger, reg prometheus.Registerer) (*Forwarder, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	var random [16]byte
	_, _ = rand.Read(random[:]) // it does not fail
	f := &Forwarder{
		log: log, now: time.Now, patience: patience,
		cache:   cache.New[*Answer](cfg.CacheBytes),
		process: hex.EncodeToString(random[:]),
	}
	f.flights.under = make(map[Question]*flight)
	loops, _ := wire.Name("").Child("mep-loop")
	loops, _ = loops.Child(f.process)
	f.loopLabels = string(loops)
	f.life, f.end = context.WithCancel(context.Background())
	f.metrics = newMetrics(f, reg)
	f.settings.Store(&settings{})
	f.apply(cfg)
	return f, nil
}

// Prepare checks new settings; apply brings them into force. Answers are kept, except those at or below zones whose upstreams have
// changed (for the root: unless one of its upstreams stays). What is known about upstreams that stay in their zone is kept as well.
func (f *Forwarder) Prepare(cfg Config) (apply func(), err error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	return func() { f.apply(cfg) }, nil
}

func (f *Forwarder) apply(cfg Config) {
	f.mu.Lock()
	defer f.mu.Unlock()
	old := f.settings.Load()
	next := &settings{Config: cfg, zones: make(map[wire.Name]*zone, len(cfg.Zones))}
	for _, z := range cfg.Zones {
		next.longest = max(next.longest, len(z.Name))
		made := &zone{name: z.Name}
		for _, u := range z.Upstreams {
			up := old.find(z.Name, u)
			if up == nil {
				up = f.newUpstream(z, u)
			}
			made.upstreams = append(made.upstreams, up)
		}
		if next.zones[z.Name] = made; z.Name == wire.Root {
			next.root = made
		}
	}
	for _, u := range old.upstreams() {
		if !slices.Contains(next.upstreams(), u) {
			f.retire(u)
		}
	}
	for _, u := range next.upstreams() {
		f.introduce(u)
		f.startWatching(u)
	}
	f.settings.Store(next)
	f.cache.Resize(cfg.CacheBytes)
	f.flushChanged(old, next)
}

// flushChanged forgets answers learnt from upstreams other than those asked now. Upstreams of the root serve the same public tree, so
// their answers are kept as long as one of them stays: an operator who replaces all of them may want other answers.
func (f *Forwarder) flushChanged(old, next *settings) {
	changed := make(map[wire.Name]bool)
	for _, s := range []*settings{old, next} {
		for name := range s.zones {
			before, after := old.zones[name], next.zones[name]
			if !before.same(after) && (name != wire.Root || !before.shares(after)) {
				changed[name] = true
			}
		}
	}
	if len(changed) == 0 {
		return
	}
	f.flush(func(name wire.Name) bool {
		for zone := range changed {
			if name.Within(zone) {
				return true
			}
		}
		return false
	})
}

// find returns the upstream of a zone that equals u, or nil.
func (s *settings) find(name wire.Name, u Upstream) *upstream {
	if z := s.zones[name]; z != nil {
		for _, known := range z.upstreams {
			if known.same(u) {
				return known
			}
		}
	}
	return nil
}

func (s *settings) upstreams() []*upstream {
	var all []*upstream
	for _, z := range s.zones {
		all = append(all, z.upstreams...)
	}
	return all
}

// introduce adds an upstream to the metrics.
func (f *Forwarder) introduce(u *upstream) {
	u.mu.Lock()
	defer u.mu.Unlock()
	f.metrics.setUp(u)
	f.metrics.setCase(u)
}

// retire is called with the forwarder's lock held.
func (f *Forwarder) retire(u *upstream) {
	if u.stop != nil {
		u.stop()
	}
	if u.pool != nil {
		u.pool.close()
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.retired = true
	f.metrics.forget(u)
}

// startWatching is called with the lock held. Before Run it does nothing.
func (f *Forwarder) startWatching(u *upstream) {
	if f.watching == nil || f.watching.Err() != nil || u.stop != nil {
		return
	}
	ctx, stop := context.WithCancel(f.watching)
	u.stop = stop
	f.watchers.Go(func() { f.watch(ctx, u) })
}

// Run maintains the upstreams and the cache until ctx ends; then it ends everything in flight and waits for it. It is called once, and
// returns nil.
func (f *Forwarder) Run(ctx context.Context) error {
	defer f.close()
	f.mu.Lock()
	watching, stop := context.WithCancel(ctx)
	defer stop()
	f.watching = watching
	for _, u := range f.settings.Load().upstreams() {
		f.startWatching(u)
	}
	f.mu.Unlock()

	sweep, idle := time.NewTicker(sweepInterval), time.NewTicker(idleSweepInterval)
	defer sweep.Stop()
	defer idle.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-sweep.C:
			f.sweep()
		case now := <-idle.C:
			for _, u := range f.settings.Load().upstreams() {
				if u.pool != nil {
					u.pool.drop(now.Add(-idleTime))
				}
			}
		}
	}
}

// sweep removes answers that are no longer of use.
func (f *Forwarder) sweep() {
	now, stale := f.now(), f.settings.Load().Stale
	f.cache.DeleteFunc(func(_ *Question, a *Answer) bool { return !a.fresh(now) && !a.usable(now, stale) })
}

func (f *Forwarder) close() {
	f.end()
	f.flights.close()
	f.mu.Lock()
	defer f.mu.Unlock()
	f.watchers.Wait()
	for _, u := range f.settings.Load().upstreams() {
		if u.pool != nil {
			u.pool.close()
		}
	}
	f.streams.Wait()
}

// Handles reports whether there are upstreams for a name, which must be in lower case. It does not allocate.
func (f *Forwarder) Handles(name wire.Name) bool {
	z := f.settings.Load().zoneOf(name)
	return z != nil && len(z.upstreams) > 0
}
