// Package leader elects one of several processes to do work that must be done once.
package leader

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
)

// Term is one period of leadership.
type Term struct {
	key string
	rev int64
}

// Fence returns a comparison for a transaction that must succeed only while the term lasts. It is nil if there are no competitors.
func (t Term) Fence() []clientv3.Cmp {
	if t.key == "" {
		return nil
	}
	return []clientv3.Cmp{clientv3.Compare(clientv3.CreateRevision(t.key), "=", t.rev)}
}

// Elector runs work while this process is the leader.
type Elector struct {
	client  *clientv3.Client
	prefix  string
	id      string
	ttl     int
	log     *slog.Logger
	leading atomic.Bool
}

// New returns an elector. prefix is the etcd prefix of the election, and id names this process in it. A leader that dies
// is replaced within ttl.
func New(client *clientv3.Client, prefix, id string, ttl time.Duration, log *slog.Logger) *Elector {
	return &Elector{client: client, prefix: prefix, id: id, ttl: max(1, int(ttl.Seconds())), log: log}
}

// Alone returns an elector for a process that has no competitors: it always leads.
func Alone() *Elector { return &Elector{} }

// Leading reports whether this process leads at present.
func (e *Elector) Leading() bool { return e.leading.Load() }

// Run calls work for every term this process leads, with a context that ends with the term. It returns when ctx ends
// (nil) or when work fails during a term.
func (e *Elector) Run(ctx context.Context, work func(context.Context, Term) error) error {
	if e.client == nil {
		e.leading.Store(true)
		defer e.leading.Store(false)
		return work(ctx, Term{})
	}
	for ctx.Err() == nil {
		if err := e.term(ctx, work); err != nil {
			if failed, ok := errors.AsType[*workError](err); ok {
				return failed.err
			}
			if ctx.Err() == nil {
				e.log.Warn("election interrupted, standing again", "election", e.prefix, "error", err)
			}
		}
		select {
		case <-ctx.Done():
		case <-time.After(500 * time.Millisecond):
		}
	}
	return nil
}

type workError struct{ err error }

func (e *workError) Error() string { return e.err.Error() }

func (e *Elector) term(ctx context.Context, work func(context.Context, Term) error) error {
	session, err := concurrency.NewSession(e.client, concurrency.WithTTL(e.ttl), concurrency.WithContext(ctx))
	if err != nil {
		return fmt.Errorf("open a session: %w", err)
	}
	defer session.Close() // otherwise the lease would last until it expires
	election := concurrency.NewElection(session, e.prefix)
	if err = election.Campaign(ctx, e.id); err != nil {
		return fmt.Errorf("campaign: %w", err)
	}
	tctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() {
		select {
		case <-session.Done():
			cancel(errors.New("the session was lost"))
		case <-tctx.Done():
		}
	}()
	e.leading.Store(true)
	e.log.Info("leading", "election", e.prefix)
	err = work(tctx, Term{key: election.Key(), rev: election.Rev()})
	e.leading.Store(false)
	e.log.Info("no longer leading", "election", e.prefix)
	if err != nil && tctx.Err() == nil {
		return &workError{err}
	}
	rctx, done := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer done()
	return election.Resign(rctx)
}
