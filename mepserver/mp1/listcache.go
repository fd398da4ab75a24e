package mp1

import (
	"sync"

	"github.com/openmep/mep/mepserver/registry"
)

// maxCachedList is the largest list that is kept; longer ones are written piece by piece.
const maxCachedList = 8 << 20

// listCache keeps the list of all services as it was last asked for. It is made on the second request for the same state and
// thrown away with it, so that a registry that changes all the time does not make lists nobody reads twice.
type listCache struct {
	mu     sync.Mutex
	missed listKey
	key    listKey
	body   []byte
}

// listKey is what a list depends on.
type listKey struct {
	state *registry.Snapshot
	view  registry.View
}

// find returns the list for key, nil when it is not there.
func (l *listCache) find(key listKey) []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.key != key {
		return nil
	}
	return l.body
}

// keep makes the list for key and returns it, or returns nil when the caller should write it out itself.
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
