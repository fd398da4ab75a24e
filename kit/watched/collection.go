package watched

import (
	"iter"
	"strings"
	"sync/atomic"

	"github.com/google/btree"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// Item is one record of a collection. Items are shared and must not be changed.
type Item[V any] struct {
	// Key is the full etcd key.
	Key string
	// Value is the decoded record.
	Value V
	// CreateRevision is when the key was created, ModRevision when it was last written.
	CreateRevision, ModRevision int64

	raw []byte // kept only for snapshots on disk
}

// Unchanged returns a comparison that holds as long as the record is the one in the item.
func (it *Item[V]) Unchanged() clientv3.Cmp {
	return clientv3.Compare(clientv3.ModRevision(it.Key), "=", it.ModRevision)
}

// Change is one change of a record. Old is nil if the record is new, New is nil if it was removed.
type Change[V any] struct {
	Key      string
	Old, New *Item[V]
	// Revision is when the change was committed. For a removal detected by a new list, Listed is true and Revision is the
	// earliest possible one.
	Revision int64
	Listed   bool
}

// Decoder decodes an etcd value into a record.
type Decoder[V any] func(key string, value []byte, modRevision int64) (V, error)

// Collection is a typed copy of one prefix.
type Collection[V any] struct {
	mirror  *Mirror
	pre     string
	name    string
	decode  Decoder[V]
	indexes []func(*Item[V]) []string

	// The fields below are guarded by mirror.applying once the mirror runs.
	items     *btree.BTreeG[*Item[V]]
	byIndex   []*btree.BTreeG[indexEntry[V]]
	changed   bool
	pending   []Change[V]
	observers []*observer[V]

	current atomic.Pointer[Snapshot[V]]
}

type observer[V any] struct{ fn func(Change[V]) }

type indexEntry[V any] struct {
	key  string
	item *Item[V]
}

const degree = 32

// Add makes the mirror keep the records below prefix, which must end in a slash. Records that decode fails on are logged and
// left out. Call it before Run.
func Add[V any](m *Mirror, name, prefix string, decode Decoder[V]) *Collection[V] {
	c := &Collection[V]{
		mirror: m, pre: prefix, name: name, decode: decode,
		items: btree.NewG(degree, func(a, b *Item[V]) bool { return a.Key < b.Key }),
	}
	c.current.Store(&Snapshot[V]{items: c.items.Clone()})
	m.add(c)
	return c
}

// Index finds the records of a collection by something other than their key.
type Index[V any] struct{ n int }

// NewIndex adds an index to a collection; of returns the index keys of a record. Call it before Run.
func NewIndex[V any](c *Collection[V], of func(*Item[V]) []string) Index[V] {
	c.indexes = append(c.indexes, of)
	c.byIndex = append(c.byIndex, btree.NewG(degree, func(a, b indexEntry[V]) bool {
		if a.key != b.key {
			return a.key < b.key
		}
		return a.item.Key < b.item.Key
	}))
	c.publishNow(0)
	return Index[V]{n: len(c.indexes) - 1}
}

// Snapshot is the state of a collection at one revision. It never changes.
type Snapshot[V any] struct {
	revision int64
	items    *btree.BTreeG[*Item[V]]
	byIndex  []*btree.BTreeG[indexEntry[V]]
}

// Snapshot returns the current state. It costs one atomic load.
func (c *Collection[V]) Snapshot() *Snapshot[V] { return c.current.Load() }

// Revision returns the revision of the mirror at which the snapshot was published, which is no earlier than its last change.
func (s *Snapshot[V]) Revision() int64 { return s.revision }

// Len returns the number of records.
func (s *Snapshot[V]) Len() int { return s.items.Len() }

// Get returns the record with the key.
func (s *Snapshot[V]) Get(key string) (*Item[V], bool) {
	return s.items.Get(&Item[V]{Key: key})
}

// All iterates over all records in the order of their keys.
func (s *Snapshot[V]) All() iter.Seq[*Item[V]] {
	return func(yield func(*Item[V]) bool) { s.items.Ascend(yield) }
}

// From iterates over the records whose keys are not below key, in the order of their keys.
func (s *Snapshot[V]) From(key string) iter.Seq[*Item[V]] {
	return func(yield func(*Item[V]) bool) { s.items.AscendGreaterOrEqual(&Item[V]{Key: key}, yield) }
}

// Prefix iterates over the records whose keys start with prefix, in the order of their keys.
func (s *Snapshot[V]) Prefix(prefix string) iter.Seq[*Item[V]] {
	return func(yield func(*Item[V]) bool) {
		s.items.AscendGreaterOrEqual(&Item[V]{Key: prefix}, func(it *Item[V]) bool {
			return strings.HasPrefix(it.Key, prefix) && yield(it)
		})
	}
}

// Find iterates over the records that have key in the index, in the order of their own keys.
func (s *Snapshot[V]) Find(ix Index[V], key string) iter.Seq[*Item[V]] {
	return func(yield func(*Item[V]) bool) {
		from := indexEntry[V]{key: key, item: &Item[V]{}}
		s.byIndex[ix.n].AscendGreaterOrEqual(from, func(e indexEntry[V]) bool {
			return e.key == key && yield(e.item)
		})
	}
}

// Observe calls fn for every change after the returned revision, in commit order across all collections of the mirror. fn
// runs on a goroutine of the mirror: it must be quick and must not wait for the mirror.
func (c *Collection[V]) Observe(fn func(Change[V])) (revision int64, stop func()) {
	o := &observer[V]{fn: fn}
	c.mirror.applying.Lock()
	defer c.mirror.applying.Unlock()
	c.observers = append(c.observers, o)
	return c.mirror.revision.Load(), func() {
		c.mirror.applying.Lock()
		defer c.mirror.applying.Unlock()
		kept := make([]*observer[V], 0, len(c.observers))
		for _, other := range c.observers {
			if other != o {
				kept = append(kept, other)
			}
		}
		c.observers = kept
	}
}

func (c *Collection[V]) prefix() string { return c.pre }

// apply changes the working trees. Every call adds exactly one pending change, so that flush can be called once for each
// event.
func (c *Collection[V]) apply(ev event) {
	old, had := c.items.Get(&Item[V]{Key: ev.key})
	if !had {
		old = nil
	}
	var item *Item[V]
	if !ev.deleted {
		v, err := c.decode(ev.key, ev.value, ev.revision)
		if err != nil {
			c.mirror.log.Error("record ignored", "key", ev.key, "revision", ev.revision, "error", err)
			c.mirror.metrics.undecodable.WithLabelValues(c.name).Inc()
		} else {
			item = &Item[V]{Key: ev.key, Value: v, CreateRevision: ev.createRevision, ModRevision: ev.revision}
			if c.mirror.cfg.SnapshotFile != "" {
				item.raw = ev.value
			}
		}
	}
	c.pending = append(c.pending, Change[V]{Key: ev.key, Old: old, New: item, Revision: ev.revision, Listed: ev.listed})
	if old == nil && item == nil {
		return
	}
	c.changed = true
	if old != nil {
		for n, of := range c.indexes {
			for _, k := range of(old) {
				c.byIndex[n].Delete(indexEntry[V]{key: k, item: old})
			}
		}
	}
	if item == nil {
		c.items.Delete(old)
	} else {
		c.items.ReplaceOrInsert(item)
		for n, of := range c.indexes {
			for _, k := range of(item) {
				c.byIndex[n].ReplaceOrInsert(indexEntry[V]{key: k, item: item})
			}
		}
	}
	c.mirror.metrics.changes.WithLabelValues(c.name).Inc()
}

func (c *Collection[V]) publish(revision int64) {
	if !c.changed && c.current.Load().revision != 0 {
		return
	}
	c.changed = false
	c.publishNow(revision)
	c.mirror.metrics.items.WithLabelValues(c.name).Set(float64(c.items.Len()))
}

func (c *Collection[V]) publishNow(revision int64) {
	s := &Snapshot[V]{revision: revision, items: c.items.Clone(), byIndex: make([]*btree.BTreeG[indexEntry[V]], len(c.byIndex))}
	for i, t := range c.byIndex {
		s.byIndex[i] = t.Clone()
	}
	c.current.Store(s)
}

// flush reports the oldest pending change to the observers.
func (c *Collection[V]) flush() {
	ch := c.pending[0]
	c.pending[0] = Change[V]{}
	if c.pending = c.pending[1:]; len(c.pending) == 0 {
		c.pending = nil
	}
	if ch.Old == nil && ch.New == nil {
		return
	}
	for _, o := range c.observers {
		o.fn(ch)
	}
}

// diff returns the events that turn the current state into a complete list of the prefix. Keys that are no longer listed
// were removed at the revision earliest or later.
func (c *Collection[V]) diff(kvs []*mvccpb.KeyValue, earliest int64) []event {
	var events []event
	listed := make(map[string]struct{}, len(kvs))
	for _, kv := range kvs {
		key := string(kv.Key)
		listed[key] = struct{}{}
		if it, ok := c.items.Get(&Item[V]{Key: key}); ok &&
			it.ModRevision == kv.ModRevision && it.CreateRevision == kv.CreateRevision {
			continue
		}
		events = append(events, event{
			key: key, value: kv.Value, createRevision: kv.CreateRevision, revision: kv.ModRevision, src: c,
		})
	}
	c.items.Ascend(func(it *Item[V]) bool {
		if _, ok := listed[it.Key]; !ok {
			events = append(events, event{key: it.Key, revision: earliest, deleted: true, listed: true, src: c})
		}
		return true
	})
	return events
}
