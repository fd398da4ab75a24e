package quota

import (
	"context"
	"errors"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/openmep/mep/kit/etcd"
)

// leases are what records end with. Records of windows that end within the same slack share one, so that there are about as many
// as there are kinds of windows. They differ from etcd.Leases in that they go by the time of quotas, and outlast the windows by
// at least slack.
type leases struct {
	store *etcd.Store

	turn  chan struct{} // has room for the one who asks for a lease
	mu    sync.Mutex
	known map[int64]clientv3.LeaseID // by the end of the windows
}

func newLeases(store *etcd.Store) *leases {
	return &leases{store: store, turn: make(chan struct{}, 1), known: make(map[int64]clientv3.LeaseID)}
}

// until returns the lease for the records of windows with an end.
func (l *leases) until(ctx context.Context, end, now int64) (clientv3.LeaseID, error) {
	end += int64(slack) - end%int64(slack)
	if id, ok := l.get(end); ok {
		return id, nil
	}
	select {
	case l.turn <- struct{}{}:
		defer func() { <-l.turn }()
	case <-ctx.Done():
		return 0, etcd.Error(ctx.Err())
	}
	if id, ok := l.get(end); ok {
		return id, nil
	}
	id, err := l.store.Grant(ctx, time.Duration(end-now)+slack)
	if err != nil {
		return 0, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for e := range l.known {
		if e < now {
			delete(l.known, e)
		}
	}
	l.known[end] = id
	return id, nil
}

func (l *leases) get(end int64) (clientv3.LeaseID, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	id, ok := l.known[end]
	return id, ok
}

// lost reports whether a transaction failed because its lease had ended early, as when etcd was restored. All are forgotten then,
// and the transaction, which was not made, may be tried again.
func (l *leases) lost(err error) bool {
	if !errors.Is(err, rpctypes.ErrLeaseNotFound) {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	clear(l.known)
	return true
}
