package records

import (
	"context"
	"reflect"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/openmep/mep/api/dns"
	"github.com/openmep/mep/api/state"
	"github.com/openmep/mep/kit/errs"
)

// Get returns the record with a canonical name, a type and a view, which may be empty. The error is of the kind errs.NotFound.
func (b *Book) Get(name, rrtype, view string) (*Item, error) {
	if item, ok := b.items.Snapshot().Get(state.DNSRecordKey(name, rrtype, view)); ok {
		return item, nil
	}
	return nil, errs.New(errs.NotFound, "there is no record %s", what(name, rrtype, view))
}

// Precondition checks the current state of a record and returns an error to refuse it, as If-Match does.
type Precondition func(*Item) error

// find returns the record to be changed, or why it may not be. Before it refuses, it checks again with a copy that holds the earlier
// changes of other processes.
func (b *Book) find(ctx context.Context, name, rrtype, view string, pre Precondition) (*Item, error) {
	look := func() (*Item, error) {
		item, err := b.Get(name, rrtype, view)
		if err == nil && pre != nil {
			err = pre(item)
		}
		return item, err
	}
	item, err := look()
	if err == nil {
		return item, nil
	}
	if err := b.fresh(ctx); err != nil {
		return nil, err
	}
	return look()
}

// Replace replaces the record of the same name, type and view with rec, which must have passed Check, and returns it as stored.
// Replacing a record with itself changes nothing. Errors are of the kinds errs.NotFound, if there is no such record, and errs.Conflict,
// if rec could not be answered beside what is served, and those of pre, which may be nil, and of etcd.Store.Txn.
func (b *Book) Replace(ctx context.Context, rec dns.Record, pre Precondition) (*Item, error) {
	rec.Normalise()
	value, err := state.Encode(state.DNSRecord{Version: state.Current(), Record: rec})
	if err != nil {
		return nil, err
	}
	for try := range maxTries {
		item, err := b.find(ctx, rec.Name, rec.Type, rec.View, pre)
		if err != nil || reflect.DeepEqual(*item.Value, rec) {
			return item, err
		}
		if conflict := b.displaced([]dns.Record{rec}); conflict != nil {
			if try > 0 {
				return nil, conflict
			}
			if err := b.fresh(ctx); err != nil { // as in Create
				return nil, err
			}
			continue
		}
		revision, done, err := b.txn(ctx, []clientv3.Cmp{item.Unchanged()}, []clientv3.Op{clientv3.OpPut(item.Key, value)})
		if err != nil {
			return nil, err
		}
		if done {
			return &Item{Key: item.Key, Value: &rec, CreateRevision: item.CreateRevision, ModRevision: revision}, nil
		}
	}
	return nil, errContended()
}

// Delete removes a record and returns the revision of the removal. Errors are those of Replace.
func (b *Book) Delete(ctx context.Context, name, rrtype, view string, pre Precondition) (revision int64, err error) {
	for range maxTries {
		item, err := b.find(ctx, name, rrtype, view, pre)
		if err != nil {
			return 0, err
		}
		revision, done, err := b.txn(ctx, []clientv3.Cmp{item.Unchanged()}, []clientv3.Op{clientv3.OpDelete(item.Key)})
		if done || err != nil {
			return revision, err
		}
	}
	return 0, errContended()
}

// DeleteAll removes the records that match the filter, up to dns.MaxBatch in one transaction. It returns their number and the revision
// of the last transaction. Records created in the meantime may stay. Errors are those of etcd.Store.Txn; the number is valid even then.
func (b *Book) DeleteAll(ctx context.Context, f Filter) (n int, revision int64, err error) {
	if err := b.fresh(ctx); err != nil {
		return 0, 0, err
	}
	var items []*Item
	for item := range b.List(f) {
		items = append(items, item)
	}
	for len(items) > 0 {
		some := items[:min(len(items), dns.MaxBatch)]
		items = items[len(some):]
		gone, at, err := b.deleteSome(ctx, f, some)
		n += gone
		revision = max(revision, at)
		if err != nil {
			return n, revision, err
		}
	}
	return n, revision, nil
}

// deleteSome removes items in one transaction or, if one of them has changed in the meantime, one by one.
func (b *Book) deleteSome(ctx context.Context, f Filter, items []*Item) (n int, revision int64, err error) {
	cmps, ops := make([]clientv3.Cmp, len(items)), make([]clientv3.Op, len(items))
	for i, item := range items {
		cmps[i], ops[i] = item.Unchanged(), clientv3.OpDelete(item.Key)
	}
	revision, done, err := b.txn(ctx, cmps, ops)
	if err != nil {
		return 0, 0, err
	}
	if done {
		return len(items), revision, nil
	}
	for _, item := range items {
		rec := item.Value
		at, err := b.Delete(ctx, rec.Name, rec.Type, rec.View, func(now *Item) error {
			if !f.Matches(now.Value) {
				return errs.New(errs.PreconditionFailed, "the record does not match any more")
			}
			return nil
		})
		switch errs.KindOf(err) {
		case errs.NotFound, errs.PreconditionFailed:
			continue
		}
		if err != nil {
			return n, revision, err
		}
		n++
		revision = max(revision, at)
	}
	return n, revision, nil
}
