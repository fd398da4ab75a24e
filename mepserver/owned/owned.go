// Package owned stores records that belong to an app instance: services, subscriptions, rules.
//
// The key of such a record is PREFIX{appInstanceId}/{id}. Reads come from the watched copy. A write is one transaction
// that succeeds only if nothing it was based on has changed; it returns when this process's own copy shows it.
package owned

import (
	"context"
	"errors"
	"iter"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/openmep/mep/api/state"
	"github.com/openmep/mep/kit/errs"
	"github.com/openmep/mep/kit/etcd"
	"github.com/openmep/mep/kit/watched"
	"github.com/openmep/mep/mepserver/apps"
)

// Kind describes one kind of record.
type Kind[V any] struct {
	// Name is the name of the collection, in the plural, as in metrics and messages.
	Name string
	// Noun names one record in messages.
	Noun string
	// Prefix is the etcd prefix; it ends in a slash.
	Prefix string
	// Decode decodes a record.
	Decode watched.Decoder[V]
}

// Records holds the records of one kind.
type Records[V any] struct {
	kind   Kind[V]
	store  *etcd.Store
	mirror *watched.Mirror
	apps   *apps.Directory
	items  *watched.Collection[V]

	mu    sync.Mutex
	usage map[string]*usage // by app
}

// usage counts the stored records of an app and holds the keys of those being created, which are not yet counted.
type usage struct {
	stored  int
	pending map[string]struct{}
}

// New adds the collection of the kind to the mirror.
func New[V any](m *watched.Mirror, store *etcd.Store, dir *apps.Directory, kind Kind[V]) *Records[V] {
	r := &Records[V]{
		kind: kind, store: store, mirror: m, apps: dir,
		items: watched.Add(m, kind.Name, kind.Prefix, kind.Decode),
		usage: make(map[string]*usage),
	}
	r.items.Observe(r.count)
	return r
}

// count keeps usage up to date.
func (r *Records[V]) count(c watched.Change[V]) {
	app, _, err := state.SplitKey(r.kind.Prefix, c.Key)
	if err != nil || c.Old != nil && c.New != nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	u := r.usageOf(app)
	if c.New != nil {
		u.stored++
		delete(u.pending, c.Key)
	} else {
		u.stored--
	}
	r.forgetUnused(app, u)
}

func (r *Records[V]) usageOf(appInstanceID string) *usage {
	u := r.usage[appInstanceID]
	if u == nil {
		u = &usage{pending: make(map[string]struct{})}
		r.usage[appInstanceID] = u
	}
	return u
}

func (r *Records[V]) forgetUnused(appInstanceID string, u *usage) {
	if u.stored == 0 && len(u.pending) == 0 && r.usage[appInstanceID] == u {
		delete(r.usage, appInstanceID)
	}
}

// Collection returns the watched copy.
func (r *Records[V]) Collection() *watched.Collection[V] { return r.items }

// Key returns the etcd key of a record.
func (r *Records[V]) Key(appInstanceID, id string) string { return r.of(appInstanceID) + id }

func (r *Records[V]) of(appInstanceID string) string { return r.kind.Prefix + appInstanceID + "/" }

// Of iterates over the records of an app.
func (r *Records[V]) Of(appInstanceID string) iter.Seq[*watched.Item[V]] {
	return r.items.Snapshot().Prefix(r.of(appInstanceID))
}

// Get returns a record of an app. The error is of the kind errs.NotFound.
func (r *Records[V]) Get(appInstanceID, id string) (*watched.Item[V], error) {
	if item, ok := r.items.Snapshot().Get(r.Key(appInstanceID, id)); ok {
		return item, nil
	}
	return nil, errs.New(errs.NotFound, "application instance %s has no %s %q", appInstanceID, r.kind.Noun, id)
}

// maxTries bounds how often a write is attempted when other writes keep coming first.
const maxTries = 16

// errContended returns the error for a write of which every attempt was overtaken.
func errContended() error {
	return errs.New(errs.Unavailable, "others keep changing the same resource: try again").After(time.Second)
}

// Create stores a new record of an app that may have at most limit of them, and returns it. Errors are of the kinds
// errs.NotFound (no such app), errs.Forbidden (over the limit, or the app is stopped or ending) and those of
// etcd.Store.Txn.
func (r *Records[V]) Create(ctx context.Context, appInstanceID, id, value string, limit int) (*watched.Item[V], error) {
	key := r.Key(appInstanceID, id)
	for range maxTries {
		pin, onboard, err := r.apps.Pin(appInstanceID, time.Now())
		if err != nil {
			return nil, err
		}
		unchanged, release, err := r.reserve(appInstanceID, key, limit)
		if err != nil {
			return nil, err
		}
		cmps := append(append(pin, clientv3.Compare(clientv3.CreateRevision(key), "=", 0)), unchanged...)
		item, err := r.commit(ctx, key, value, cmps, append(onboard, clientv3.OpPut(key, value)))
		release()
		if item != nil || err != nil {
			return item, err
		}
	}
	return nil, errContended()
}

// replicaSlack is how many creations for one app the other processes of a cluster may have in flight. Nearer to the
// limit than this, the transaction itself verifies that nothing was added since the records were counted.
const replicaSlack = 512

// reserve claims a place for key among the app's records until the returned function is called.
func (r *Records[V]) reserve(appInstanceID, key string, limit int) ([]clientv3.Cmp, func(), error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	revision := r.mirror.Revision() // before the count, which is then at least as new
	u := r.usageOf(appInstanceID)
	have := u.stored + len(u.pending)
	if have >= limit {
		r.forgetUnused(appInstanceID, u)
		return nil, nil, errs.New(errs.Forbidden, "the application instance has its maximum of %d %s: remove one first", limit, r.kind.Name)
	}
	var unchanged []clientv3.Cmp
	if have+replicaSlack >= limit {
		unchanged = []clientv3.Cmp{
			clientv3.Compare(clientv3.CreateRevision(r.of(appInstanceID)), "<", revision+1).WithPrefix(),
		}
	}
	u.pending[key] = struct{}{}
	return unchanged, func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(u.pending, key)
		r.forgetUnused(appInstanceID, u)
	}, nil
}

// commit runs a transaction that writes value under key. It returns nil, nil when the comparisons did not hold and the
// caller should try again.
func (r *Records[V]) commit(ctx context.Context, key, value string, cmps []clientv3.Cmp, ops []clientv3.Op) (*watched.Item[V], error) {
	resp, err := r.store.Txn(ctx, cmps, ops, nil)
	if err != nil {
		return nil, err
	}
	revision := resp.Header.Revision
	if !resp.Succeeded {
		return nil, r.mirror.CatchUp(ctx, revision)
	}
	if r.mirror.CatchUp(ctx, revision) == nil {
		if item, ok := r.items.Snapshot().Get(key); ok && item.ModRevision == revision {
			return item, nil
		}
	}
	// The write is durable, but the watched copy lags behind it or has already moved on. Return the record as written.
	v, err := r.kind.Decode(key, []byte(value), revision)
	if err != nil {
		return nil, err
	}
	return &watched.Item[V]{Key: key, Value: v, ModRevision: revision}, nil
}

// Update changes a record. find returns the present record, or an error if it may not be changed; edit returns the new
// value, or false to leave the record as it is. Both are called again when another write came first. Errors are those
// of find and edit, and those of etcd.Store.Txn.
func (r *Records[V]) Update(ctx context.Context, find func() (*watched.Item[V], error),
	edit func(*watched.Item[V]) (value string, change bool, err error),
) (*watched.Item[V], error) {
	for range maxTries {
		item, err := find()
		if err != nil {
			return nil, err
		}
		value, change, err := edit(item)
		if err != nil || !change {
			return item, err
		}
		updated, err := r.commit(ctx, item.Key, value, []clientv3.Cmp{item.Unchanged()}, []clientv3.Op{clientv3.OpPut(item.Key, value)})
		if updated != nil || err != nil {
			return updated, err
		}
	}
	return nil, errContended()
}

// Remove deletes a record. find is as for Update; also returns operations for the same transaction. If the store has no
// space for them, Remove deletes the record without them.
func (r *Records[V]) Remove(ctx context.Context, find func() (*watched.Item[V], error),
	also func(*watched.Item[V]) ([]clientv3.Op, error),
) error {
	for range maxTries {
		item, err := find()
		if err != nil {
			return err
		}
		ops, err := also(item)
		if err != nil {
			return err
		}
		gone := clientv3.OpDelete(item.Key)
		resp, err := r.store.Txn(ctx, []clientv3.Cmp{item.Unchanged()}, append(ops, gone), nil)
		if errors.Is(err, errs.InsufficientStorage) {
			resp, err = r.store.Txn(ctx, []clientv3.Cmp{item.Unchanged()}, []clientv3.Op{gone}, nil)
		}
		if err != nil {
			return err
		}
		err = r.mirror.CatchUp(ctx, resp.Header.Revision)
		if resp.Succeeded {
			return nil // the copy may lag, but the record is deleted
		}
		if err != nil {
			return err
		}
	}
	return errContended()
}

// Delete removes a record of an app unless pre, which may be nil, returns an error. The operations also are part of the
// same transaction. Errors are of the kind errs.NotFound, those of pre and those of etcd.Store.Txn.
func (r *Records[V]) Delete(ctx context.Context, appInstanceID, id string, pre func(*watched.Item[V]) error, also ...clientv3.Op) error {
	return r.Remove(ctx, func() (*watched.Item[V], error) {
		item, err := r.Get(appInstanceID, id)
		if err == nil && pre != nil {
			err = pre(item)
		}
		return item, err
	}, func(*watched.Item[V]) ([]clientv3.Op, error) { return also, nil })
}

// Apply runs a transaction over several records and waits until the watched copy shows it. It reports whether the
// comparisons held.
func (r *Records[V]) Apply(ctx context.Context, cmps []clientv3.Cmp, ops []clientv3.Op) (bool, error) {
	resp, err := r.store.Txn(ctx, cmps, ops, nil)
	if err != nil {
		return false, err
	}
	return resp.Succeeded, r.mirror.CatchUp(ctx, resp.Header.Revision)
}
