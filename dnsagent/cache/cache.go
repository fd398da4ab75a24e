// Package cache keeps what was answered to DNS questions, in a bounded number of octets.
//
// It knows nothing of time: what is kept has to know for itself how long it is good, and whoever reads it has to ask. What is given
// up when room is needed is chosen by SIEVE (Zhang et al., NSDI 2024): what was asked for since it was last looked at stays, and a
// scan through names that nobody asks for again does not displace those that are.
package cache

import (
	"hash/maphash"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/openmep/mep/dnsagent/wire"
)

// Question is what is asked, and so the key of the cache. Questions that differ in DO or CD have answers of their own.
type Question struct {
	// Name is in lower case.
	Name wire.Name
	// Type and Class are those of the question.
	Type, Class uint16
	// DO asks for DNSSEC records (RFC 4035 3.2.1), CD for answers that were not validated (RFC 4035 3.2.2).
	DO, CD bool
}

const (
	// maxShards is how many parts a cache has at most. Each has a lock of its own.
	maxShards = 64
	// minShardBytes is how large a part is at least, unless the cache is smaller: an entry larger than its part is not kept.
	minShardBytes = 128 << 10
	// entryOverhead is what an entry costs besides its name and its value: the entry, and its place in a map that is a little
	// over half full. A test compares it with the growth of the heap.
	entryOverhead = 160
)

// Cache keeps values by question. It is safe for use by many goroutines; reading takes a lock that readers share.
type Cache[V any] struct {
	seed      maphash.Seed
	shards    []shard[V]
	evictions atomic.Uint64
}

type shard[V any] struct {
	mu      sync.RWMutex
	entries map[Question]*entry[V]
	max     int64
	bytes   int64
	// The entries form a ring with newest first; hand is the one to be looked at next when room is needed.
	root, hand *entry[V]

	_ [64]byte // keeps the locks of two shards out of one cache line
}

type entry[V any] struct {
	question   Question
	value      V
	cost       int64
	visited    atomic.Bool
	prev, next *entry[V]
}

// New makes a cache for so many octets. At 0 or less nothing is kept.
func New[V any](maxBytes int64) *Cache[V] {
	shards := 1
	for shards < maxShards && maxBytes/int64(shards*2) >= minShardBytes {
		shards *= 2
	}
	c := &Cache[V]{seed: maphash.MakeSeed(), shards: make([]shard[V], shards)}
	for i := range c.shards {
		s := &c.shards[i]
		s.entries = make(map[Question]*entry[V])
		s.root = &entry[V]{}
		s.root.prev, s.root.next = s.root, s.root
		s.hand = s.root
		s.max = maxBytes / int64(shards)
	}
	return c
}

func (c *Cache[V]) shard(q *Question) *shard[V] {
	return &c.shards[maphash.Comparable(c.seed, *q)%uint64(len(c.shards))]
}

// Get finds the value of a question. It allocates nothing and keeps nothing of the question.
func (c *Cache[V]) Get(q *Question) (value V, ok bool) {
	s := c.shard(q)
	s.mu.RLock()
	defer s.mu.RUnlock()
	e, ok := s.entries[*q]
	if !ok {
		return value, false
	}
	if !e.visited.Load() { // so that readers of one entry do not write to it all the time
		e.visited.Store(true)
	}
	return e.value, true
}

// Put keeps a value that costs so many octets, in place of the one before. It makes room first; a value that is larger than a part
// of the cache is not kept.
func (c *Cache[V]) Put(q *Question, value V, cost int64) {
	cost += entryOverhead + int64(len(q.Name))
	s := c.shard(q)
	s.mu.Lock()
	defer s.mu.Unlock()
	e, known := s.entries[*q]
	if cost > s.max {
		if known {
			s.remove(e)
		}
		return
	}
	if known {
		s.bytes += cost - e.cost
		e.value, e.cost = value, cost
		c.evictions.Add(s.shrink(0, e))
		return
	}
	c.evictions.Add(s.shrink(cost, nil))
	e = &entry[V]{question: *q, value: value, cost: cost}
	e.question.Name = wire.Name(strings.Clone(string(q.Name)))
	e.prev, e.next = s.root, s.root.next
	e.prev.next, e.next.prev = e, e
	s.entries[e.question] = e
	s.bytes += cost
}

// shrink makes room for so many octets and returns how many entries that took. It spares one entry.
func (s *shard[V]) shrink(room int64, spared *entry[V]) (evicted uint64) {
	for s.bytes+room > s.max && s.root.next != s.root {
		e := s.hand
		if e == s.root { // the hand goes from the oldest to the newest, and begins anew
			e = s.root.prev
		}
		s.hand = e.prev
		if e == spared || e.visited.Swap(false) {
			continue
		}
		s.remove(e)
		evicted++
	}
	return evicted
}

func (s *shard[V]) remove(e *entry[V]) {
	if s.hand == e {
		s.hand = e.prev
	}
	e.prev.next, e.next.prev = e.next, e.prev
	delete(s.entries, e.question)
	s.bytes -= e.cost
}

// Delete removes the value of a question.
func (c *Cache[V]) Delete(q *Question) {
	s := c.shard(q)
	s.mu.Lock()
	defer s.mu.Unlock()
	if e, known := s.entries[*q]; known {
		s.remove(e)
	}
}

// DeleteFunc removes what del says true of, and returns how many entries that were. Parts of the cache are locked one after the other.
func (c *Cache[V]) DeleteFunc(del func(q *Question, value V) bool) int {
	removed := 0
	for i := range c.shards {
		removed += c.shards[i].deleteFunc(del)
	}
	return removed
}

func (s *shard[V]) deleteFunc(del func(*Question, V) bool) (removed int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for e := s.root.next; e != s.root; e = e.next {
		if del(&e.question, e.value) {
			s.remove(e)
			removed++
		}
	}
	return removed
}

// Resize changes how many octets may be kept, with the meaning New gives them. What is too much goes at once.
func (c *Cache[V]) Resize(maxBytes int64) {
	for i := range c.shards {
		s := &c.shards[i]
		s.mu.Lock()
		s.max = maxBytes / int64(len(c.shards))
		c.evictions.Add(s.shrink(0, nil))
		s.mu.Unlock()
	}
}

// Size is the number of entries and the octets they are counted as.
func (c *Cache[V]) Size() (entries int, bytes int64) {
	for i := range c.shards {
		s := &c.shards[i]
		s.mu.RLock()
		entries += len(s.entries)
		bytes += s.bytes
		s.mu.RUnlock()
	}
	return entries, bytes
}

// Evictions is how many entries were given up to make room.
func (c *Cache[V]) Evictions() uint64 { return c.evictions.Load() }
