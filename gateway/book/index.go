package book

import (
	"hash/maphash"
	"maps"
	"sync"
	"sync/atomic"
)

// index finds values without locking or allocating, as every call uses it. It consists of small maps; a change replaces one of them.
type index[K comparable, V any] struct {
	seed    maphash.Seed
	writing sync.Mutex
	buckets [buckets]atomic.Pointer[map[K]V]
}

const buckets = 1024

func newIndex[K comparable, V any]() *index[K, V] { return &index[K, V]{seed: maphash.MakeSeed()} }

func (x *index[K, V]) bucket(k K) *atomic.Pointer[map[K]V] {
	return &x.buckets[maphash.Comparable(x.seed, k)%buckets]
}

func (x *index[K, V]) get(k K) (v V, ok bool) {
	if m := x.bucket(k).Load(); m != nil {
		v, ok = (*m)[k]
	}
	return v, ok
}

func (x *index[K, V]) change(k K, change func(map[K]V)) {
	x.writing.Lock()
	defer x.writing.Unlock()
	b := x.bucket(k)
	m := make(map[K]V)
	if old := b.Load(); old != nil {
		maps.Copy(m, *old)
	}
	change(m)
	b.Store(&m)
}

func (x *index[K, V]) set(k K, v V) { x.change(k, func(m map[K]V) { m[k] = v }) }

func (x *index[K, V]) remove(k K) { x.change(k, func(m map[K]V) { delete(m, k) }) }
