package table

import (
	"hash/maphash"
	"maps"
)

// shards is an immutable map. Changing an entry costs copying one of its fanout parts.
type shards[V any] struct {
	parts *[fanout]map[string]V
	count int
}

const fanout = 512

var seed = maphash.MakeSeed()

func part(key string) int { return int(maphash.String(seed, key) % fanout) }

func (s *shards[V]) get(key string) V {
	if s.parts == nil {
		var none V
		return none
	}
	return s.parts[part(key)][key]
}

// folded looks up the lower-case form of a label of a host name. It does not allocate.
func (s *shards[V]) folded(label string) V {
	var none V
	var key [64]byte // a label has at most 63 bytes
	if s.parts == nil || len(label) > len(key) {
		return none
	}
	for i := range len(label) {
		c := label[i]
		if 'A' <= c && c <= 'Z' {
			c |= 0x20
		}
		key[i] = c
	}
	k := key[:len(label)]
	return s.parts[maphash.Bytes(seed, k)%fanout][string(k)]
}

func (s *shards[V]) all(yield func(V) bool) {
	if s.parts == nil {
		return
	}
	for _, m := range s.parts {
		for _, v := range m {
			if !yield(v) {
				return
			}
		}
	}
}

type editor[V any] struct {
	next  shards[V]
	owned [fanout]bool // parts that have been copied
}

func (s shards[V]) edit() *editor[V] {
	e := &editor[V]{next: shards[V]{parts: new([fanout]map[string]V), count: s.count}}
	if s.parts != nil {
		*e.next.parts = *s.parts
	}
	return e
}

func (e *editor[V]) own(n int) map[string]V {
	if !e.owned[n] {
		e.owned[n] = true
		if m := e.next.parts[n]; m == nil {
			e.next.parts[n] = make(map[string]V)
		} else {
			e.next.parts[n] = maps.Clone(m)
		}
	}
	return e.next.parts[n]
}

func (e *editor[V]) put(key string, v V) {
	m := e.own(part(key))
	if _, had := m[key]; !had {
		e.next.count++
	}
	m[key] = v
}

func (e *editor[V]) remove(key string) {
	n := part(key)
	if _, had := e.next.parts[n][key]; !had {
		return
	}
	delete(e.own(n), key)
	e.next.count--
}
