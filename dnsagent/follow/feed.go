package follow

import (
	"context"
	"log/slog"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/openmep/mep/api/state"
	"github.com/openmep/mep/dnsagent/table"
	"github.com/openmep/mep/kit/watched"
)

// Feed keeps a table up to date.
type Feed struct {
	mirror  *watched.Mirror
	sources []source
	publish func(*table.Table, *Config)
	log     *slog.Logger
	metrics *metrics

	mu       sync.Mutex
	cfg      *Config
	replaced bool               // cfg is not the one the table was made with
	dirty    map[string]*source // etcd keys whose origins must be made again
	revision int64              // of the latest change
	served   map[string]*Served
	observer func(app string)

	// made holds the rules of app instances as if no other record kept them from being answered. Only the goroutine of Run uses it.
	made map[string]*Served
	// current is the latest table with the configuration it was made with.
	current atomic.Pointer[current]

	progress *watched.Progress
	wake     chan struct{}
}

// How the origins of rules and records begin, before the part that tells them apart.
const (
	sourceRules  = "rules of"
	sourceRecord = "record"
)

// source is an etcd prefix whose values become records of the table.
type source struct {
	name, prefix string
	raw          *watched.Collection[[]byte]
	make         func(cfg *Config, id string, value []byte) (made, error)
}

// New returns a Feed. One goroutine calls publish with every table and the configuration the table was made with.
func New(m *watched.Mirror, cfg *Config, publish func(*table.Table, *Config), log *slog.Logger, reg prometheus.Registerer) *Feed {
	f := &Feed{
		mirror: m, cfg: cfg, publish: publish, log: log, metrics: newMetrics(reg),
		dirty: make(map[string]*source), served: make(map[string]*Served), progress: watched.NewProgress(m),
		wake: make(chan struct{}, 1), made: make(map[string]*Served),
		sources: []source{
			{name: sourceRules, prefix: state.PrefixDNSRules, make: makeRules},
			{name: sourceRecord, prefix: state.PrefixDNSRecords, make: makeRecord},
			{name: "service", prefix: state.PrefixServices, make: func(cfg *Config, id string, value []byte) (made, error) {
				if cfg.ServiceZone == "" {
					return made{}, nil
				}
				return makeService(cfg, id[strings.LastIndexByte(id, '/')+1:], value)
			}},
		},
	}
	for i := range f.sources {
		// The feed's own goroutines decode the values; doing it here would hold up the whole mirror.
		f.sources[i].raw = watched.Add(m, "dns_"+strings.Fields(f.sources[i].name)[0], f.sources[i].prefix,
			func(_ string, value []byte, _ int64) ([]byte, error) { return value, nil })
	}
	return f
}

// Observe makes the feed call fn with each app instance whose served rules may have changed. It must be called before Run.
func (f *Feed) Observe(fn func(appInstanceID string)) { f.observer = fn }

// Served returns which rules of an app instance are being answered, or nil if the app instance has none.
func (f *Feed) Served(appInstanceID string) *Served {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.served[appInstanceID]
}

// Apps returns the app instances that have rules.
func (f *Feed) Apps() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	apps := make([]string, 0, len(f.served))
	for app := range f.served {
		apps = append(apps, app)
	}
	return apps
}

// Set replaces the configuration, which rebuilds everything.
func (f *Feed) Set(cfg *Config) {
	f.mu.Lock()
	f.cfg, f.replaced = cfg, true
	f.progress.Mark()
	f.mu.Unlock()
	f.ring()
}

func (f *Feed) ring() {
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

func (f *Feed) mark(s *source, key string, revision int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if s.prefix == state.PrefixServices && f.cfg.ServiceZone == "" {
		return
	}
	f.dirty[key] = s
	f.revision = max(f.revision, revision)
	f.progress.Mark()
	f.ring()
}

// CatchUp waits until the table holds what etcd held at the revision. It returns the context's error if that ends first.
func (f *Feed) CatchUp(ctx context.Context, revision int64) error {
	return f.progress.CatchUp(ctx, revision)
}

// Run builds tables until ctx ends.
func (f *Feed) Run(ctx context.Context) error {
	select {
	case <-f.mirror.Ready():
	case <-ctx.Done():
		return nil
	}
	for i := range f.sources {
		s := &f.sources[i]
		_, stop := s.raw.Observe(func(c watched.Change[[]byte]) { f.mark(s, c.Key, c.Revision) })
		defer stop()
	}
	f.mu.Lock()
	f.replaced = true
	f.revision = f.mirror.Revision()
	f.mu.Unlock()
	var w *table.Writer
	for f.ring(); ; {
		select {
		case <-f.wake:
			w = f.step(w)
		case <-ctx.Done():
			return nil
		}
	}
}

// step builds and publishes the next table.
func (f *Feed) step(w *table.Writer) *table.Writer {
	start := time.Now()
	f.mu.Lock()
	cfg, replaced, dirty, marked, revision := f.cfg, f.replaced, f.dirty, f.progress.Marked(), f.revision
	f.replaced, f.dirty = false, make(map[string]*source)
	f.mu.Unlock()
	if replaced || w == nil {
		w = table.NewWriter(cfg.Table)
		w.Put("configuration", cfg.Static)
		// Keys removed in the meantime are among the dirty ones already.
		for i := range f.sources {
			for item := range f.sources[i].raw.Snapshot().All() {
				dirty[item.Key] = &f.sources[i]
			}
		}
	}
	changed := make(map[string]*Served)
	keys := make([]place, 0, len(dirty))
	for key, s := range dirty {
		keys = append(keys, place{s, key})
	}
	f.put(w, cfg, keys, changed)
	t := w.Publish(revision)
	f.publish(t, cfg)
	f.current.Store(&current{t, cfg})
	f.judge(w, changed)

	f.mu.Lock()
	for app, s := range changed {
		if s == nil {
			delete(f.served, app)
		} else {
			f.served[app] = s
		}
	}
	f.progress.Settle(marked)
	f.mu.Unlock()
	f.metrics.published(t, w.Lost(), time.Since(start))
	if f.observer != nil {
		for app := range changed {
			f.observer(app)
		}
	}
	return w
}

// maxBatch is how many origins are written to the table before the changes are settled.
const maxBatch = 256

// batch is a number of origins and what was made of them.
type batch struct {
	keys    []place
	results []made
}

// put writes the records at the keys to the table, making one batch while it writes another. It stores in changed which rules of app
// instances are served.
func (f *Feed) put(w *table.Writer, cfg *Config, keys []place, changed map[string]*Served) {
	batches := make(chan batch, 1)
	go func() {
		defer close(batches)
		for chunk := range slices.Chunk(keys, maxBatch) {
			batches <- batch{chunk, f.makeAll(cfg, chunk)}
		}
	}()
	for b := range batches {
		for i, key := range b.keys {
			w.Put(key.origin(), b.results[i].records)
			if app, ok := strings.CutPrefix(key.key, state.PrefixDNSRules); ok {
				changed[app] = b.results[i].served
			}
		}
		w.Settle()
	}
}

// makeAll makes the records at the keys, using several goroutines if there are many keys.
func (f *Feed) makeAll(cfg *Config, keys []place) []made {
	results := make([]made, len(keys))
	var next atomic.Int64
	work := func() {
		for i := next.Add(1) - 1; int(i) < len(keys); i = next.Add(1) - 1 {
			results[i] = f.make(cfg, keys[i])
		}
	}
	if len(keys) < 16 {
		work()
	} else {
		var workers sync.WaitGroup
		for range runtime.GOMAXPROCS(0) {
			workers.Go(work)
		}
		workers.Wait()
	}
	return results
}

// make returns the current records at a key. The result is empty if the key is absent or its value unreadable.
func (f *Feed) make(cfg *Config, at place) made {
	item, ok := at.raw.Snapshot().Get(at.key)
	if !ok {
		return made{}
	}
	m, err := at.make(cfg, at.id(), item.Value)
	if err != nil {
		f.metrics.unreadable.Inc()
		f.log.Error("record ignored", "key", at.key, "revision", item.ModRevision, "error", err)
		return made{}
	}
	return m
}

// place is a key with the source it belongs to.
type place struct {
	*source
	key string
}

func (p place) id() string { return strings.TrimPrefix(p.key, p.prefix) }

// origin returns the origin of a record as it is shown to people.
func (p place) origin() string { return p.name + " " + strings.TrimSuffix(p.id(), "/") }
