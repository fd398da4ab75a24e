package pki

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// follower holds the last value read from disk that could be used. A value that cannot be used never replaces it.
type follower[T any] struct {
	// name is the label in metrics.
	name string
	// fetch returns what is on disk, or the previous value if it is unchanged. With an error it may still return a value that can be used.
	fetch func(now time.Time) (*T, error)
	// expires returns when the value can no longer be used.
	expires func(*T) time.Time
	now     func() time.Time
	log     *slog.Logger
	metrics *metrics

	current atomic.Pointer[T]
	fault   atomic.Pointer[error]

	mu sync.Mutex
	// told is the fault that was reported, suspect one that was seen once.
	told, suspect string
}

// open reads for the first time, and must get a value.
func (f *follower[T]) open() error {
	f.metrics.reloads.WithLabelValues(f.name, "ok")
	f.metrics.reloads.WithLabelValues(f.name, "failed")
	f.metrics.bad.WithLabelValues(f.name).Set(0)
	first, err := f.fetch(f.now())
	if first == nil {
		return err
	}
	f.adopt(first)
	if err != nil {
		f.report(err, false)
	}
	return nil
}

// check reads again. A patient check reports a fault only if the check before saw it too: several files are not replaced in one
// instant, so a certificate may be read before its key is there.
func (f *follower[T]) check(patient bool) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	next, err := f.fetch(f.now())
	if next != nil && next != f.current.Load() {
		f.adopt(next)
		f.metrics.reloads.WithLabelValues(f.name, "ok").Inc()
		f.log.Info("certificate reloaded", "name", f.name, "not_after", f.expires(next).UTC())
	}
	if err != nil {
		f.report(err, patient)
		return err
	}
	f.suspect = ""
	if f.told != "" {
		f.told = ""
		f.fault.Store(nil)
		f.metrics.bad.WithLabelValues(f.name).Set(0)
		f.log.Info("certificate on disk is in order again", "name", f.name)
	}
	return nil
}

func (f *follower[T]) adopt(next *T) {
	f.current.Store(next)
	f.metrics.expiry.WithLabelValues(f.name).Set(float64(f.expires(next).Unix()))
}

// report reports a fault once.
func (f *follower[T]) report(err error, patient bool) {
	text := err.Error()
	if text == f.told {
		return
	}
	if patient && text != f.suspect {
		f.suspect = text
		return
	}
	f.told = text
	f.fault.Store(&err)
	f.metrics.bad.WithLabelValues(f.name).Set(1)
	f.metrics.reloads.WithLabelValues(f.name, "failed").Inc()
	f.log.Error("certificate on disk is not in order, the one in force stays", "name", f.name, "error", err)
}

// err returns the fault that was reported last and persists.
func (f *follower[T]) err() error {
	if err := f.fault.Load(); err != nil {
		return *err
	}
	return nil
}

// every calls check until ctx ends.
func every(ctx context.Context, interval time.Duration, check func()) {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			check()
		case <-ctx.Done():
			return
		}
	}
}

// env is what the package needs of its surroundings.
type env struct {
	log     *slog.Logger
	now     func() time.Time
	metrics *metrics
}

func newEnv(log *slog.Logger, now func() time.Time, reg prometheus.Registerer) *env {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	if now == nil {
		now = time.Now
	}
	return &env{log: log, now: now, metrics: newMetrics(reg)}
}

// followPair returns a follower of a certificate and a key that somebody else keeps.
func followPair(name, certFile, keyFile string, e *env) *follower[pair] {
	var last *pair
	return newPairFollower(name, e, func(now time.Time) (*pair, error) {
		certPEM, err := readFile(certFile)
		if err != nil {
			return nil, err
		}
		keyPEM, err := readFile(keyFile)
		if err != nil {
			return nil, err
		}
		if last.same(certPEM, keyPEM) {
			return last, valid(certFile, last.cert.Leaf, now)
		}
		next, err := parsePair(certFile, certPEM, keyFile, keyPEM, now)
		if err != nil {
			return nil, err
		}
		if err := exposed(keyFile); err != nil {
			e.log.Warn("private key is not protected", "name", name, "error", err)
		}
		last = next
		return next, nil
	})
}

func newPairFollower(name string, e *env, fetch func(time.Time) (*pair, error)) *follower[pair] {
	return &follower[pair]{
		name: name, fetch: fetch, expires: func(p *pair) time.Time { return p.cert.Leaf.NotAfter },
		now: e.now, log: e.log, metrics: e.metrics,
	}
}
