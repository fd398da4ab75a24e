package book

import (
	"context"
	"time"

	"github.com/google/uuid"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/openmep/mep/api/gateway"
	"github.com/openmep/mep/api/state"
	"github.com/openmep/mep/kit/errs"
	"github.com/openmep/mep/kit/watched"
)

// Apply creates an access request of a consumer. The application must have passed Check. A request that was refused may be made again.
// Errors are of the kinds errs.NotFound, if there is no such service, errs.Invalid, if several app instances offer it, errs.Conflict, if
// a request is pending or granted or the service is the consumer's own, errs.Forbidden, if there is no room for another request, and
// those of etcd.Store.Txn.
func (a *Access) Apply(ctx context.Context, consumer string, app gateway.AccessApplication) (*Request, error) {
	offer, err := a.resolve(consumer, &app)
	if err != nil {
		return nil, err
	}
	info := gateway.AccessRequest{
		ID: uuid.NewString(), Consumer: consumer, SerName: offer.SerName, Owner: offer.Owner, Purpose: app.Purpose,
		State: gateway.AccessPending, Created: a.moment(),
	}
	key := state.AccessKey(offer.Owner, offer.SerName, consumer)
	for range maxTries {
		item, err := settled(ctx, a.ledger, func() (*watched.Item[*Request], error) {
			item, ok := a.items.Snapshot().Get(key)
			if ok && item.Value.Info.State != gateway.AccessRefused {
				r := &item.Value.Info
				return nil, errs.New(errs.Conflict, "there is an access request of this consumer for this service already: %s, which is %s", r.ID, r.State)
			}
			return item, nil
		})
		if err != nil {
			return nil, err
		}
		release := func() {}
		if item == nil {
			if release, err = a.room.claim(consumer, key); err != nil {
				return nil, err
			}
		}
		r, err := a.write(ctx, key, item, info)
		release()
		if r != nil || err != nil {
			return r, err
		}
	}
	return nil, errContended()
}

func (a *Access) moment() time.Time { return a.now().UTC().Truncate(time.Millisecond) }

// write replaces an item with a request. It returns nil if another change came first.
func (a *Access) write(ctx context.Context, key string, item *watched.Item[*Request], info gateway.AccessRequest) (*Request, error) {
	value, err := state.Encode(state.Access{Version: state.Current(), Request: info})
	if err != nil {
		return nil, err
	}
	revision, done, err := a.put(ctx, unchanged(key, item), clientv3.OpPut(key, value))
	if err != nil || !done {
		return nil, err
	}
	return &Request{Info: info, Revision: revision}, nil
}

// find returns a request that concerns the party and passes the check.
func (a *Access) find(ctx context.Context, id string, who Party, check func(*Request) error) (*watched.Item[*Request], error) {
	return settled(ctx, a.ledger, func() (*watched.Item[*Request], error) {
		for item := range a.items.Snapshot().Find(a.ids, id) {
			if !who.concerned(&item.Value.Info) {
				break
			}
			if check != nil {
				if err := check(item.Value); err != nil {
					return nil, err
				}
			}
			return item, nil
		}
		return nil, errNoRequest(id)
	})
}

// Decide grants or refuses a request, even one decided before: once refused, the consumer's calls are no longer let through. The decision
// must have passed Check; the party must be the owner of the service or a manager. Errors are of the kinds errs.NotFound, errs.Forbidden,
// if the party is the consumer, those of pre, which may be nil, and those of etcd.Store.Txn.
func (a *Access) Decide(ctx context.Context, id string, who Party, decision gateway.AccessDecision, pre func(*Request) error) (*Request, error) {
	check := func(r *Request) error {
		if !who.owns(&r.Info) {
			return errs.New(errs.Forbidden, "the owner of the service or a manager decides about access requests")
		}
		if pre != nil {
			return pre(r)
		}
		return nil
	}
	for range maxTries {
		item, err := a.find(ctx, id, who, check)
		if err != nil {
			return nil, err
		}
		info := item.Value.Info
		if info.State == decision.State && info.Reason == decision.Reason && info.DecidedBy == who.Subject {
			return item.Value, nil
		}
		info.State, info.Reason, info.DecidedBy, info.Decided = decision.State, decision.Reason, who.Subject, a.moment()
		if r, err := a.write(ctx, item.Key, item, info); r != nil || err != nil {
			return r, err
		}
	}
	return nil, errContended()
}

// Delete removes a request and the access it granted: the consumer withdraws a request, the owner of the service or a manager revokes it.
// Delete returns the removed request. Errors are of the kind errs.NotFound, those of pre, which may be nil, and those of etcd.Store.Txn.
func (a *Access) Delete(ctx context.Context, id string, who Party, pre func(*Request) error) (*Request, error) {
	for range maxTries {
		item, err := a.find(ctx, id, who, pre)
		if err != nil {
			return nil, err
		}
		_, done, err := a.put(ctx, item.Unchanged(), clientv3.OpDelete(item.Key))
		if err != nil {
			return nil, err
		}
		if done {
			return item.Value, nil
		}
	}
	return nil, errContended()
}
