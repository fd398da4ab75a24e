package book

import (
	"context"
	"crypto/sha256"
	"iter"
	"slices"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/openmep/mep/api/gateway"
	"github.com/openmep/mep/api/state"
	"github.com/openmep/mep/kit/errs"
	"github.com/openmep/mep/kit/watched"
)

// longestLease is less than the longest lease that etcd grants.
const longestLease = 200 * 365 * 24 * time.Hour

// Collection returns the watched copy of the API keys.
func (k *Keys) Collection() *watched.Collection[*Key] { return k.items }

// Get returns an API key by its id. The error is of the kind errs.NotFound.
func (k *Keys) Get(id string) (*Key, error) {
	if n, ok := number(id); ok {
		if key, ok := k.known.get(n); ok {
			return key, nil
		}
	}
	return nil, errs.New(errs.NotFound, "there is no API key with this id")
}

// Of iterates over the API keys of a consumer, or over all keys if consumer is "", in the order of their ids, starting after the id after.
func (k *Keys) Of(consumer, after string) iter.Seq[*Key] {
	snapshot := k.items.Snapshot()
	from := state.APIKeyKey(after)
	all := snapshot.From(from)
	if consumer != "" {
		all = snapshot.Find(k.consumers, consumer)
	}
	return func(yield func(*Key) bool) {
		for item := range all {
			if item.Key > from && !yield(item.Value) {
				return
			}
		}
	}
}

// Create creates an API key as requested and returns it with the key itself, which nobody else knows from then on. The request must have
// passed Check. Errors are of the kind errs.Forbidden, if the consumer has MaxKeysOf keys or there are MaxAPIKeys, and those of
// etcd.Store.Txn.
func (k *Keys) Create(ctx context.Context, req gateway.APIKeyRequest) (*gateway.APIKey, error) {
	now := k.now().UTC().Truncate(time.Millisecond)
	info := gateway.APIKey{Consumer: req.Consumer, Description: req.Description, Scopes: slices.Clone(req.Scopes), Services: slices.Clone(req.Services), Created: now}
	if len(info.Scopes) == 0 {
		info.Scopes = []string{state.ScopeMp1}
	}
	if life := req.Lifetime.Or(0); life > 0 {
		info.Expires = now.Add(life)
	}
	for range maxTries {
		var secret string
		info.ID, secret = generate()
		done, err := k.create(ctx, info, secret)
		if err != nil {
			return nil, err
		}
		if done {
			info.Key = keyPrefix + info.ID + "_" + secret
			return &info, nil
		}
	}
	return nil, errContended()
}

func (k *Keys) create(ctx context.Context, info gateway.APIKey, secret string) (done bool, err error) {
	hash := sha256.Sum256([]byte(secret))
	value, err := state.Encode(state.APIKey{Version: state.Current(), Hash: hash[:], Key: info})
	if err != nil {
		return false, err
	}
	key := state.APIKeyKey(info.ID)
	release, err := settled(ctx, k.ledger, func() (func(), error) { return k.room.claim(info.Consumer, key) })
	if err != nil {
		return false, err
	}
	defer release()
	var opts []clientv3.OpOption
	if !info.Expires.IsZero() && info.Expires.Sub(info.Created) < longestLease {
		// Authenticate rejects the key once it has expired; the lease removes it after that.
		lease, err := k.leases.Until(ctx, info.Expires)
		if err != nil {
			return false, err
		}
		opts = append(opts, clientv3.WithLease(lease))
	}
	_, done, err = k.put(ctx, unchanged[*Key](key, nil), clientv3.OpPut(key, value, opts...))
	if err != nil && k.leases.Lost(err) {
		return false, nil // the next attempt gets another lease
	}
	return done, err
}

// Delete removes an API key, which is rejected from then on, and returns it. Errors are of the kind errs.NotFound and those of
// etcd.Store.Txn.
func (k *Keys) Delete(ctx context.Context, id string) (*Key, error) {
	for range maxTries {
		key, err := settled(ctx, k.ledger, func() (*Key, error) { return k.Get(id) })
		if err != nil {
			return nil, err
		}
		same := clientv3.Compare(clientv3.ModRevision(state.APIKeyKey(id)), "=", key.Revision)
		_, done, err := k.put(ctx, same, clientv3.OpDelete(state.APIKeyKey(id)))
		if err != nil {
			return nil, err
		}
		if done {
			return key, nil
		}
	}
	return nil, errContended()
}
