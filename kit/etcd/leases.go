package etcd

import (
	"context"
	"errors"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// Leases hands out leases that are shared by all keys which end at about the same time: a lease of its own for every key would
// double the writes.
type Leases struct {
	store *Store
	span  time.Duration
	now   func() time.Time

	turn  chan struct{} // has room for the one who asks for a lease
	mu    sync.Mutex
	known map[int64]clientv3.LeaseID // by the end of their span
}

// NewLeases makes leases that last one to two spans longer than asked for. A span is whole seconds.
func NewLeases(store *Store, span time.Duration) *Leases {
	return &Leases{
		store: store, span: span, now: time.Now, turn: make(chan struct{}, 1), known: make(map[int64]clientv3.LeaseID),
	}
}

// Until returns a lease that lasts until after the time. Errors are those of Store.Grant.
func (l *Leases) Until(ctx context.Context, until time.Time) (clientv3.LeaseID, error) {
	return l.UntilAt(ctx, until, l.now())
}

// UntilAt is Until for who goes by a clock of its own, which is at now.
func (l *Leases) UntilAt(ctx context.Context, until, now time.Time) (clientv3.LeaseID, error) {
	seconds := int64(l.span / time.Second)
	end := until.Unix()/seconds + 1
	if id, ok := l.get(end); ok {
		return id, nil
	}
	// Who comes at the same time gets the same lease. While etcd is away nobody waits for the failures of others.
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

// Lost reports whether a write failed because its lease had ended early, as after a jump of the clock or when etcd was restored.
// All leases are forgotten then, and the write may be tried again.
func (l *Leases) Lost(err error) bool {
	if !errors.Is(err, rpctypes.ErrLeaseNotFound) {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	clear(l.known)
	return true
}
