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

	mu    sync.Mutex
	known map[int64]clientv3.LeaseID // by the end of their span
}

// NewLeases makes leases that last up to two spans longer than asked for.
func NewLeases(store *Store, span time.Duration) *Leases {
	return &Leases{store: store, span: span, now: time.Now, known: make(map[int64]clientv3.LeaseID)}
}

// Until returns a lease that lasts until after the time. Errors are those of Store.Grant.
func (l *Leases) Until(ctx context.Context, until time.Time) (clientv3.LeaseID, error) {
	seconds := int64(l.span / time.Second)
	end := until.Unix()/seconds + 1
	l.mu.Lock()
	id, ok := l.known[end]
	l.mu.Unlock()
	if ok {
		return id, nil
	}
	now := l.now()
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
