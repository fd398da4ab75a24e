package etcd

import (
	"context"
	"errors"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// Leases hands out leases that are shared by all keys that end at about the same time: one lease per key would double the
// writes.
type Leases struct {
	store *Store
	span  time.Duration
	now   func() time.Time

	turn  chan struct{} // held by the caller that requests a lease from etcd
	mu    sync.Mutex
	known map[int64]clientv3.LeaseID // by the end of their span
}

// NewLeases returns Leases whose leases last one to two spans longer than asked for. A span is a whole number of seconds.
func NewLeases(store *Store, span time.Duration) *Leases {
	return &Leases{
		store: store, span: span, now: time.Now, turn: make(chan struct{}, 1), known: make(map[int64]clientv3.LeaseID),
	}
}

// Until returns a lease that lasts beyond until. Errors are those of Store.Grant.
func (l *Leases) Until(ctx context.Context, until time.Time) (clientv3.LeaseID, error) {
	return l.UntilAt(ctx, until, l.now())
}

// UntilAt is Until for callers with a clock of their own, which shows now.
func (l *Leases) UntilAt(ctx context.Context, until, now time.Time) (clientv3.LeaseID, error) {
	seconds := int64(l.span / time.Second)
	end := until.Unix()/seconds + 1
	if id, ok := l.get(end); ok {
		return id, nil
	}
	// Concurrent callers with the same end share one lease. While etcd is away, nobody waits for the failures of others.
	ctx, cancel := context.WithTimeout(ctx, l.store.wait)
	defer cancel()
	select {
	case l.turn <- struct{}{}:
		defer func() { <-l.turn }()
	case <-ctx.Done():
		return 0, Error(ctx.Err())
	}
	if id, ok := l.get(end); ok {
		return id, nil
	}
	id, err := l.store.Grant(ctx, time.Unix(end*seconds, 0).Sub(now)+l.span)
	if err != nil {
		return 0, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for e := range l.known {
		if e*seconds < now.Unix() {
			delete(l.known, e)
		}
	}
	l.known[end] = id
	return id, nil
}

func (l *Leases) get(end int64) (clientv3.LeaseID, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	id, ok := l.known[end]
	return id, ok
}

// Lost reports whether a write failed because its lease had ended early, as after a clock jump or a restore of etcd. If so, Lost
// forgets all leases, and the write may be retried.
func (l *Leases) Lost(err error) bool {
	if !errors.Is(err, rpctypes.ErrLeaseNotFound) {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	clear(l.known)
	return true
}
