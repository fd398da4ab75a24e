package reconcile

import (
	"context"
	"iter"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/openmep/mep/api/mm5"
	"github.com/openmep/mep/api/mp1"
	"github.com/openmep/mep/kit/etcd"
	"github.com/openmep/mep/kit/leader"
)

// Set is what is to be in force for an app instance: the whole of it, of one kind. Sets are shared and must not be changed.
type Set struct {
	Kind          mm5.RuleKind
	AppInstanceID string
	AppName       string
	// Generation is that of the rules; 0 when nothing of the app instance was ever to be in force.
	Generation int64
	// Traffic holds the rules when Kind is mm5.TrafficRules, DNS those when it is mm5.DNSRules. All of them are ACTIVE.
	Traffic []mp1.TrafficRule
	DNS     []mp1.DNSRule
}

// RuleIDs lists the ids of the rules, in their order.
func (s *Set) RuleIDs() []string {
	ids := make([]string, 0, s.size())
	if s.Kind == mm5.DNSRules {
		for i := range s.DNS {
			ids = append(ids, s.DNS[i].DNSRuleID)
		}
		return ids
	}
	for i := range s.Traffic {
		ids = append(ids, s.Traffic[i].TrafficRuleID)
	}
	return ids
}

func (s *Set) size() int {
	if s.Kind == mm5.DNSRules {
		return len(s.DNS)
	}
	return len(s.Traffic)
}

// Report is what a driver achieved: rules that are not named in Failed are in force.
type Report struct {
	// Failed says why rules are not in force, by their ids. Ids that are not in the set do not count.
	Failed map[string]string
}

// Driver brings sets to the other side. Its methods are called from several goroutines, but never for the same app instance at
// the same time.
type Driver interface {
	// Name is how the other side is reached, such as "webhook".
	Name() string
	// Apply makes the other side hold exactly the set for its app instance; a set without rules removes the app instance. An
	// error means that nothing is known: it is tried again. When an *errs.Error in its chain has a RetryAfter, nothing at all is
	// sent before that, but for at most MaxBackoff.
	Apply(ctx context.Context, set Set) (Report, error)
	// State names the state the other side holds; a change means that it lost what it was told. Empty: it does not say.
	State(ctx context.Context) (string, error)
}

// Source is where the sets come from.
type Source interface {
	// Sets walks over the app instances that have rules of the kind.
	Sets(kind mm5.RuleKind) iter.Seq[Set]
	// Set returns the set of an app instance; false when it has no rules of the kind.
	Set(kind mm5.RuleKind, appInstanceID string) (Set, bool)
	// Observe calls fn with the id of an app instance whose set may have changed, on the mirror's goroutine: fn must be quick.
	Observe(kind mm5.RuleKind, fn func(appInstanceID string)) (stop func())
}

// Config says how a reconciler works. The zero value of each duration and number means its default, but for Resync.
type Config struct {
	// Kind is the kind of rules.
	Kind mm5.RuleKind
	// Name is that of the reconciler in its status records, metrics and logs, such as "dataplane". It has no slash.
	Name string
	// Resync is how often the other side is told everything again; 0: only when it must be.
	Resync time.Duration
	// Probe is how often the other side is asked for its state; default 15 s.
	Probe time.Duration
	// Timeout bounds one call of the driver; default 10 s.
	Timeout time.Duration
	// Workers is how many app instances are served at a time; default 4.
	Workers int
	// MinBackoff and MaxBackoff bound the time between two tries after an error; defaults 500 ms and 60 s.
	MinBackoff, MaxBackoff time.Duration

	// minRefused and maxRefused bound the time between two tries of rules that were refused.
	minRefused, maxRefused time.Duration
	now                    func() time.Time
}

func (c *Config) setDefaults() {
	for _, d := range []struct {
		of    *time.Duration
		value time.Duration
	}{
		{&c.Probe, 15 * time.Second},
		{&c.Timeout, 10 * time.Second},
		{&c.MinBackoff, 500 * time.Millisecond},
		{&c.MaxBackoff, time.Minute},
		{&c.minRefused, 5 * time.Second},
		{&c.maxRefused, 5 * time.Minute},
	} {
		if *d.of <= 0 {
			*d.of = d.value
		}
	}
	c.MaxBackoff, c.maxRefused = max(c.MaxBackoff, c.MinBackoff), max(c.maxRefused, c.minRefused)
	if c.Workers <= 0 {
		c.Workers = 4
	}
	if c.now == nil {
		c.now = time.Now
	}
}

// Reconciler keeps the other side of a driver at what is to be in force while this process leads.
type Reconciler struct {
	cfg      Config
	driver   Driver
	src      Source
	statuses *Statuses
	store    *etcd.Store
	log      *slog.Logger
	metrics  *metrics

	mu      sync.Mutex
	current *tenure // nil between two terms
}

// New makes a reconciler. Several may share a registerer.
func New(cfg Config, driver Driver, src Source, statuses *Statuses, store *etcd.Store, log *slog.Logger, reg prometheus.Registerer,
) *Reconciler {
	cfg.setDefaults()
	return &Reconciler{
		cfg: cfg, driver: driver, src: src, statuses: statuses, store: store,
		log: log.With("reconciler", cfg.Name), metrics: newMetrics(reg, cfg.Name),
	}
}

// Kind is the kind of rules the reconciler works for.
func (r *Reconciler) Kind() mm5.RuleKind { return r.cfg.Kind }

// Name is that of the reconciler in its status records.
func (r *Reconciler) Name() string { return r.cfg.Name }

// Driver is the name of the driver.
func (r *Reconciler) Driver() string { return r.driver.Name() }

// Health is how a reconciler stands in the present term.
type Health struct {
	// Leading says that this process does the work. It knows nothing else when it does not.
	Leading bool
	// Pending is the number of app instances whose rules it has not brought over and reported on yet.
	Pending int
	// Refused is the number of rules that the other side does not put in force.
	Refused int
	// FailingSince is since when the other side has not answered; zero while it does. LastError is why.
	FailingSince time.Time
	LastError    string
	// LastContact is when the other side last answered; zero before it did.
	LastContact time.Time
	// Resyncs counts how often the other side was told everything, the start of the term included.
	Resyncs int
}

// Health returns how the reconciler stands.
func (r *Reconciler) Health() Health {
	r.mu.Lock()
	t := r.current
	r.mu.Unlock()
	if t == nil {
		return Health{}
	}
	return t.health()
}

// Run works for one term of leadership. It returns nil when ctx ends, or when a successor turns out to have taken over.
func (r *Reconciler) Run(ctx context.Context, term leader.Term) error {
	t := newTenure(r, term)
	r.mu.Lock()
	r.current = t
	r.mu.Unlock()
	t.run(ctx)
	r.mu.Lock()
	r.current = nil
	r.mu.Unlock()
	r.metrics.rest()
	return nil
}
