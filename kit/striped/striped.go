// Package striped locks by key with a fixed number of locks: two keys may share one, which costs time and nothing else.
package striped

import (
	"hash/maphash"
	"sync"
)

// Locks is a set of locks. The zero value is ready for use.
type Locks struct {
	locks [64]sync.Mutex
}

var seed = maphash.MakeSeed()

// Lock takes the lock of a key and returns what releases it.
func (l *Locks) Lock(key string) (unlock func()) {
	m := &l.locks[maphash.String(seed, key)%uint64(len(l.locks))]
	m.Lock()
	return m.Unlock
}
