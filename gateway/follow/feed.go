// Package follow builds the route table from etcd and the configuration, and rebuilds it as they change.
package follow

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/openmep/mep/api/gateway"
	"github.com/openmep/mep/api/state"
	"github.com/openmep/mep/gateway/book"
	"github.com/openmep/mep/gateway/match"
	"github.com/openmep/mep/gateway/meter"
	"github.com/openmep/mep/gateway/pipeline"
	"github.com/openmep/mep/gateway/table"
	"github.com/openmep/mep/kit/watched"
)

// Config is the input that does not come from etcd.
type Config struct {
	// Compiler compiles policies.
	Compiler *pipeline.Compiler
	// Routes and Policies are those defined in the configuration.
	Routes   []gateway.Route
	Policies map[string]gateway.Policy
	// Platform lists the platform's own routes.
	Platform []Platform
	// Domain is the domain of services.
	Domain match.Domain
}

// source is a kind of record.
type source int

const (
	services source = iota
	apps
	policies
	routes
	sources
)

// Feed keeps the table up to date.
type Feed struct {
	mirror   *watched.Mirror
	services *watched.Collection[[]byte]
	apps     *watched.Collection[*table.App]
	book     *book.Book
	meter    *meter.Meter
	publish  func(*table.Table)
	log      *slog.Logger
	metrics  *metrics

	mu       sync.Mutex
	cfg      *Config
	replaced bool // cfg is not yet that of the table
	dirty    [sources]map[string]bool
	revision int64 // that of the last change

	progress *watched.Progress
	wake     chan struct{}
}

// New returns a Feed and adds its collections to the mirror. A single goroutine calls publish with every table.
func New(m *watched.Mirror, b *book.Book, mt *meter.Meter, cfg *Config, publish func(*table.Table), log *slog.Logger, reg prometheus.Registerer) *Feed {
	f := &Feed{
		mirror: m, book: b, meter: mt, publish: publish, log: log, metrics: newMetrics(reg),
		cfg: cfg, progress: watched.NewProgress(m), wake: make(chan struct{}, 1),
	}
	f.clean()
	// Service records are decoded by the feed's own goroutine: decoding them in the mirror would hold up everyone else.
	f.services = watched.Add(m, "gateway_services", state.PrefixServices, func(_ string, value []byte, _ int64) ([]byte, error) { return value, nil })
	f.apps = watched.Add(m, "gateway_apps", state.PrefixApps, func(_ string, value []byte, _ int64) (*table.App, error) {
		rec, err := state.Decode[state.App](value)
		return &table.App{Declared: rec.Declared()}, err
	})
	return f
}

func (f *Feed) clean() {
	for i := range f.dirty {
		f.dirty[i] = make(map[string]bool)
	}
}

// Set replaces the configuration and has everything rebuilt.
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

func (f *Feed) mark(s source, key string, revision int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.dirty[s][key] = true
	f.revision = max(f.revision, revision)
	f.progress.Mark()
	f.ring()
}

// CatchUp waits until the table reflects the configuration and etcd at the given revision, or ctx is done. It returns the error of ctx.
func (f *Feed) CatchUp(ctx context.Context, revision int64) error {
	return f.progress.CatchUp(ctx, revision)
}

// Run builds and publishes tables until ctx is done.
func (f *Feed) Run(ctx context.Context) error {
	select {
	case <-f.mirror.Ready():
	case <-ctx.Done():
		return nil
	}
	for _, stop := range []func(){
		observe(f, services, f.services), observe(f, apps, f.apps),
		observe(f, policies, f.book.Policies.Collection()), observe(f, routes, f.book.Routes.Collection()),
	} {
		defer stop()
	}
	f.mu.Lock()
	f.replaced = true
	f.revision = f.mirror.Revision()
	f.mu.Unlock()
	b := newBuilder(f)
	defer b.release()
	for f.ring(); ; {
		select {
		case <-f.wake:
			f.step(b)
		case <-ctx.Done():
			return nil
		}
	}
}

func observe[V any](f *Feed, s source, c *watched.Collection[V]) (stop func()) {
	_, stop = c.Observe(func(c watched.Change[V]) { f.mark(s, c.Key, c.Revision) })
	return stop
}

// step builds and publishes the next table.
func (f *Feed) step(b *builder) {
	start := time.Now()
	f.mu.Lock()
	cfg, replaced, dirty, marked, revision := f.cfg, f.replaced, f.dirty, f.progress.Marked(), f.revision
	f.replaced = false
	f.clean()
	f.mu.Unlock()
	if replaced {
		b.restart(cfg)
		// Keys that were removed meanwhile are already dirty.
		for item := range f.services.Snapshot().All() {
			dirty[services][item.Key] = true
		}
		for item := range f.apps.Snapshot().All() {
			dirty[apps][item.Key] = true
		}
	}
	t := b.next(dirty, replaced, revision)
	f.publish(t)
	b.retired() // no new call uses the former table
	f.progress.Settle(marked)
	f.metrics.published(t, time.Since(start))
}
