// Package presence announces a running process in etcd under a lease, so that its keys vanish when the process does.
package presence

import (
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
)

// Presence keeps one key alive while the process runs.
type Presence struct {
	client *clientv3.Client
	key    string
	value  string
	ttl    int
	log    *slog.Logger
	lease  atomic.Int64
}

// New returns a presence that will hold value under key; the key vanishes within ttl of the process's death.
func New(client *clientv3.Client, key, value string, ttl time.Duration, log *slog.Logger) *Presence {
	return &Presence{client: client, key: key, value: value, ttl: max(1, int(ttl.Seconds())), log: log}
}

// Lease returns the lease that other keys of the process can be attached to; 0 while there is none.
func (p *Presence) Lease() clientv3.LeaseID { return clientv3.LeaseID(p.lease.Load()) }

// Run keeps the key until ctx ends, and then removes it. It outlasts any absence of etcd.
func (p *Presence) Run(ctx context.Context) error {
	for ctx.Err() == nil {
		if err := p.hold(ctx); err != nil && ctx.Err() == nil {
			p.log.Warn("presence interrupted, announcing again", "key", p.key, "error", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(500 * time.Millisecond):
		}
	}
	return nil
}

func (p *Presence) hold(ctx context.Context) error {
	// The session outlives ctx for a moment, so that closing it can still revoke the lease.
	sctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	stop := context.AfterFunc(ctx, func() { time.AfterFunc(time.Second, cancel) })
	defer stop()
	session, err := concurrency.NewSession(p.client, concurrency.WithTTL(p.ttl), concurrency.WithContext(sctx))
	if err != nil {
		return fmt.Errorf("open a session: %w", err)
	}
	defer session.Close() // otherwise the lease would last until it expires
	put, done := context.WithTimeout(sctx, 5*time.Second)
	defer done()
	if _, err := p.client.Put(put, p.key, p.value, clientv3.WithLease(session.Lease())); err != nil {
		return fmt.Errorf("announce: %w", err)
	}
	p.lease.Store(int64(session.Lease()))
	defer p.lease.Store(0)
	select {
	case <-session.Done():
		return fmt.Errorf("the lease was lost")
	case <-ctx.Done():
		return nil
	}
}
