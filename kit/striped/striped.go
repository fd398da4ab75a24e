// Package striped locks by key with a fixed number of locks. Two keys may share a lock, which costs only time.
package striped

import (
	"context"
	"hash/maphash"
	"sync"
	"time"

	"github.com/openmep/mep/kit/errs"
)

// Locks is a set of locks. The zero value is ready for use.
type Locks struct {
	once  sync.Once
	locks [64]chan struct{}
}

var seed = maphash.MakeSeed()

// maxWait bounds the wait for a lock: a longer one is behind others that wait for an unreachable store.
const maxWait = 5 * time.Second

// Lock acquires the lock of a key and returns a function that releases it. The error is of the kind errs.Unavailable if
// that takes too long.
func (l *Locks) Lock(ctx context.Context, key string) (unlock func(), err error) {
	l.once.Do(func() {
		for i := range l.locks {
			l.locks[i] = make(chan struct{}, 1)
		}
	})
	lock := l.locks[maphash.String(seed, key)%uint64(len(l.locks))]
	select {
	case lock <- struct{}{}:
		return func() { <-lock }, nil
	default:
	}
	timer := time.NewTimer(maxWait)
	defer timer.Stop()
	select {
	case lock <- struct{}{}:
		return func() { <-lock }, nil
	case <-ctx.Done():
		return nil, errs.Wrap(errs.Unavailable, ctx.Err(), "the request was given up").After(time.Second)
	case <-timer.C:
		return nil, errs.New(errs.Unavailable, "too many requests about the same application instance wait: try again").After(2 * time.Second)
	}
}
