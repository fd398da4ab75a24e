// Package cache keeps answers to DNS questions in a bounded number of octets.
//
// The cache knows nothing of time: a value has to know its own lifetime, and its reader has to check it. When room is needed, SIEVE
// (Zhang et al., NSDI 2024) chooses the entries to evict: those read since they were last examined stay, and a scan through names that
// nobody asks for again does not displace names in demand.
package cache

import (
	"hash/maphash"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/openmep/mep/dnsagent/wire"
)

// Question is what is asked, and so the key of the cache. Questions that differ in DO or CD have separate answers.
type Question struct {
	// Name is in lower case.
	Name wire.Name
	// Type and Class are those of the question.
	Type, Class uint16
	// DO asks for DNSSEC records (RFC 4035 3.2.1), CD for answers that were not validated (RFC 4035 3.2.2).
	DO, CD bool
}

const (
	// maxShards is the maximum number of shards of a cache. Each has its own lock.
	maxShards = 64
	// minShardBytes is the minimum size of a shard, unless the cache is smaller: an entry larger than its shard is not kept.
	minShardBytes = 128 << 10
	// entryOverhead is the cost of an entry besides its name and its value: the entry itself, and its slot in a map that is a little over
	// half full. A test compares it with the growth of the heap.
	entryOverhead = 160
)

// Cache maps questions to values. It is safe for concurrent use; readers share a lock.
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
	// The entries form a ring, newest first; hand is the entry to examine next when room is needed.
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

// New returns a cache for maxBytes octets. At 0 or less nothing is kept.
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

// Get returns the value of a question. It does not allocate and retains nothing of q.
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

// Put stores a value that costs cost octets, replacing the previous one. It makes room first; a value larger than a shard is not kept.
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

// shrink makes room for room octets and returns the number of entries evicted for it. It never evicts spared.
func (s *shard[V]) shrink(room int64, spared *entry[V]) (evicted uint64) {
	for s.bytes+room > s.max && s.root.next != s.root {
		e := s.hand
		if e == s.root { // the hand moves from the oldest to the newest, then starts over
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

// DeleteFunc removes the entries for which del returns true, and returns their number. It locks one shard after the other.
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

// Resize changes the maximum number of octets, which means the same as in New. It evicts what is too much at once.
func (c *Cache[V]) Resize(maxBytes int64) {
	for i := range c.shards {
		s := &c.shards[i]
		s.mu.Lock()
		s.max = maxBytes / int64(len(c.shards))
		c.evictions.Add(s.shrink(0, nil))
		s.mu.Unlock()
	}
}

// Size returns the number of entries and the octets they count as.
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

// Evictions returns the number of entries evicted to make room.
func (c *Cache[V]) Evictions() uint64 { return c.evictions.Load() }
