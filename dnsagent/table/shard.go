package table

import (
	"hash/maphash"
	"unsafe"

	"github.com/openmep/mep/dnsagent/wire"
)

// Names are spread over shards behind two levels of arrays. A shard is small enough to be copied when one of its names changes.
const (
	fanout = 128
	shards = fanout * fanout
)

type branch = [fanout]shard

// seed is random in each process, so that names that share a shard cannot be chosen from outside.
var seed = maphash.MakeSeed()

func hashOf(name wire.Name) uint64 { return maphash.String(seed, string(name)) }

// place splits a hash into the indexes of a branch and of a shard in it. The rest determines the position in the shard.
func place(hash uint64) (branch, shard int) { return int(hash % fanout), int(hash / fanout % fanout) }

// shard is a hash table with open addressing and linear probing. Names are compared in the nodes, which also hold the answers:
// among a million names, every further access to memory costs as much as all the rest.
type shard struct {
	slots []slot // a power of two, at most three quarters of them in use; nil until the first write
	used  int
}

type slot struct {
	hash uint64
	node *node // nil if the slot is free
}

// home returns the index of the slot in which a name belongs, if that is free.
func (s *shard) home(hash uint64) int { return int(hash / shards % uint64(len(s.slots))) } //nolint:gosec // an index of slots

// find returns the index of the slot of a name, or of the free slot where it would go.
func (s *shard) find(hash uint64, name wire.Name) int {
	i := s.home(hash)
	for {
		at := &s.slots[i]
		if at.node == nil || at.hash == hash && at.node.is(name) {
			return i
		}
		if i++; i == len(s.slots) {
			i = 0
		}
	}
}

func (s *shard) get(hash uint64, name wire.Name) *node {
	if len(s.slots) == 0 {
		return nil
	}
	return s.slots[s.find(hash, name)].node
}

// copied returns a copy with room for one more name.
func (s *shard) copied() shard {
	if (s.used+1)*4 <= len(s.slots)*3 {
		return shard{slots: append([]slot(nil), s.slots...), used: s.used}
	}
	larger := shard{slots: make([]slot, max(4, 2*len(s.slots))), used: s.used}
	for _, at := range s.slots {
		if at.node == nil {
			continue
		}
		i := larger.home(at.hash)
		for larger.slots[i].node != nil {
			i = (i + 1) % len(larger.slots)
		}
		larger.slots[i] = at
	}
	return larger
}

// set stores the node of a name, or removes it if n is nil. There must be room for it.
func (s *shard) set(hash uint64, name wire.Name, n *node) {
	i := s.find(hash, name)
	switch was := s.slots[i].node; {
	case n != nil:
		if was == nil {
			s.used++
		}
		s.slots[i] = slot{hash, n}
	case was != nil:
		s.used--
		s.free(i)
	}
}

// free empties a slot, and fills the gap with nodes that were placed further on because of it.
func (s *shard) free(i int) {
	s.slots[i] = slot{}
	for j := (i + 1) % len(s.slots); s.slots[j].node != nil; j = (j + 1) % len(s.slots) {
		// Whether probing from its home to j passes i.
		if home := s.home(s.slots[j].hash); (j-home+len(s.slots))%len(s.slots) >= (j-i+len(s.slots))%len(s.slots) {
			s.slots[i], s.slots[j] = s.slots[j], slot{}
			i = j
		}
	}
}

// shortName is the maximum length of names that are stored in their nodes.
const shortName = 39

// named sets the name of a new node.
func (n *node) named(name wire.Name) {
	if len(name) > shortName {
		n.long = name
		return
	}
	n.length = uint8(copy(n.short[:], name)) //nolint:gosec // at most shortName
}

func (n *node) is(name wire.Name) bool {
	if n.length > 0 {
		return string(n.short[:n.length]) == string(name)
	}
	return n.long == name
}

// get returns the node of a name in branches, or nil.
func get(branches *[fanout]*branch, name wire.Name) *node {
	hash := hashOf(name)
	b, s := place(hash)
	if branches[b] == nil {
		return nil
	}
	return branches[b][s].get(hash, name)
}

// starred calls fn with the wildcard below a name. fn must not keep it.
func starred[T any](above wire.Name, fn func(wire.Name) T) T {
	var buf [wire.MaxName]byte
	buf[0], buf[1] = 1, '*'
	n := copy(buf[2:], above) + 2
	return fn(wire.Name(unsafe.String(&buf[0], n))) //nolint:gosec // fn does not keep it, see above
}
