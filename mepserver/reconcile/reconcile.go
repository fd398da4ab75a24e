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

// Set is the complete set of rules of one kind that should be in force for an app instance. Sets are shared and must not be
// modified.
type Set struct {
	Kind          mm5.RuleKind
	AppInstanceID string
	AppName       string
	// Generation is the generation of the rules; 0 if nothing of the app instance was ever to be in force.
	Generation int64
	// Traffic holds the rules if Kind is mm5.TrafficRules, DNS if it is mm5.DNSRules. All of them are ACTIVE.
	Traffic []mp1.TrafficRule
	DNS     []mp1.DNSRule
}

// RuleIDs returns the ids of the rules, in order.
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

// Report is what a driver achieved. Rules that are not named in Failed are in force.
type Report struct {
	// Failed maps the ids of rules that are not in force to the reasons. Ids that are not in the set are ignored.
	Failed map[string]string
}

// Driver delivers sets to the other side. Its methods are called from several goroutines, but never concurrently for the same app
// instance.
type Driver interface {
	// Name returns how the other side is reached, such as "webhook".
	Name() string
	// Apply makes the other side hold exactly the given set for its app instance; a set without rules removes the app instance.
	// An error means that the outcome is unknown, and the set is sent again. If an *errs.Error in its chain has a RetryAfter, no
	// set of any app instance is sent before then, for at most MaxBackoff.
	Apply(ctx context.Context, set Set) (Report, error)
	// State returns a name for the state that the other side holds. A change means that the other side lost what it was sent. An
	// empty name means that the other side does not report one.
	State(ctx context.Context) (string, error)
}

// Source provides the sets.
type Source interface {
	// Sets iterates over the sets of the app instances that have rules of the kind.
	Sets(kind mm5.RuleKind) iter.Seq[Set]
	// Set returns the set of an app instance, and false if it has no rules of the kind.
	Set(kind mm5.RuleKind, appInstanceID string) (Set, bool)
	// Observe calls fn with the id of each app instance whose set may have changed, on the mirror's goroutine: fn must return
	// quickly.
	Observe(kind mm5.RuleKind, fn func(appInstanceID string)) (stop func())
}

// Config configures a reconciler. The zero value of a duration or number means its default, except for Resync.
type Config struct {
	// Kind is the kind of rules.
	Kind mm5.RuleKind
	// Name identifies the reconciler in status records, metrics and logs, such as "dataplane". It contains no slash.
	Name string
	// Resync is the interval at which everything is sent again; 0 means only when necessary.
	Resync time.Duration
	// Probe is the interval at which the other side is asked for its state; default 15 s.
	Probe time.Duration
	// Timeout bounds one call of the driver; default 10 s.
	Timeout time.Duration
	// Workers is the number of app instances served concurrently; default 4.
	Workers int
	// MinBackoff and MaxBackoff bound the delay between two attempts after an error; defaults 500 ms and 60 s.
	MinBackoff, MaxBackoff time.Duration

	// minRefused and maxRefused bound the delay between two attempts for rules that were refused.
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

// Reconciler keeps the other side of a driver in line with what should be in force, while this process leads.
type Reconciler struct {
	cfg      Config
	driver   Driver
	src      Source
	statuses *Statuses
	store    *etcd.Store
	log      *slog.Logger
	metrics  *metrics

	mu      sync.Mutex
	current *tenure // nil between terms
}

// New returns a reconciler. Several reconcilers may share a registerer.
func New(cfg Config, driver Driver, src Source, statuses *Statuses, store *etcd.Store, log *slog.Logger, reg prometheus.Registerer,
) *Reconciler {
	cfg.setDefaults()
	return &Reconciler{
		cfg: cfg, driver: driver, src: src, statuses: statuses, store: store,
		log: log.With("reconciler", cfg.Name), metrics: newMetrics(reg, cfg.Name),
	}
}

// Kind returns the kind of rules the reconciler handles.
func (r *Reconciler) Kind() mm5.RuleKind { return r.cfg.Kind }

// Name returns the name of the reconciler in its status records.
func (r *Reconciler) Name() string { return r.cfg.Name }

// Driver returns the name of the driver.
func (r *Reconciler) Driver() string { return r.driver.Name() }

// Health is the state of a reconciler in the current term.
type Health struct {
	// Leading is true if this process does the work; otherwise all other fields are zero.
	Leading bool
	// Pending is the number of app instances whose rules have not been delivered and reported on yet.
	Pending int
	// Refused is the number of rules that the other side does not put in force.
	Refused int
	// FailingSince is when the other side stopped answering, zero while it answers. LastError is the reason.
	FailingSince time.Time
	LastError    string
	// LastContact is when the other side last answered, zero before its first answer.
	LastContact time.Time
	// Resyncs counts how often everything was sent, including at the start of the term.
	Resyncs int
}

// Health returns the current state of the reconciler.
func (r *Reconciler) Health() Health {
	r.mu.Lock()
	t := r.current
	r.mu.Unlock()
	if t == nil {
		return Health{}
	}
	return t.health()
}

// Run works for one term of leadership. It returns nil when ctx ends or when a successor turns out to have taken over.
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
