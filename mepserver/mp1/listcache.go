package mp1

import (
	"sync"

	"github.com/openmep/mep/mepserver/registry"
)

// maxCachedList is the size in bytes of the largest list that is cached; larger ones are written in chunks.
const maxCachedList = 8 << 20

// listCache caches the list of all services for the state last requested. The list is built on the second request for
// the same state and dropped with it, so that a registry that changes all the time does not build lists nobody reads twice.
type listCache struct {
	mu     sync.Mutex
	missed listKey
	key    listKey
	body   []byte
}

// listKey identifies a list by everything it depends on.
type listKey struct {
	state *registry.Snapshot
	view  registry.View
}

// find returns the list for key, nil if it is not cached.
func (l *listCache) find(key listKey) []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.key != key {
		return nil
	}
	return l.body
}

// keep builds, caches and returns the list for key, or returns nil when the caller should write it out itself.
func (l *listCache) keep(key listKey, size int, build func([]byte) []byte) []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.missed != key || size > maxCachedList {
		l.missed, l.key, l.body = key, listKey{}, nil
		return nil
	}
	l.key, l.body = key, build(make([]byte, 0, size))
	l.missed = listKey{}
	return l.body
}
