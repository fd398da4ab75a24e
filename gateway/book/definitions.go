package book

import (
	"context"
	"fmt"
	"strings"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/openmep/mep/api/gateway"
	"github.com/openmep/mep/api/state"
	"github.com/openmep/mep/kit/errs"
	"github.com/openmep/mep/kit/watched"
)

// Definition is a static route or a policy as stored.
type Definition[V any] struct {
	// ID is the id of the route or the name of the policy.
	ID string
	// Value is the route or policy. It is shared and must not be changed.
	Value V
	// Revision is the etcd revision at which it was last written.
	Revision int64
}

// ETag returns the entity-tag of the definition, with quotes.
func (d *Definition[V]) ETag() string { return ETag(d.Revision) }

// Definitions holds the static routes or the policies.
type Definitions[V any] struct {
	*ledger
	what   string // the singular
	prefix string
	encode func(id string, v V) (string, error)
	items  *watched.Collection[*Definition[V]]
	room   *room
}

type (
	// Routes are the static routes.
	Routes = Definitions[gateway.Route]
	// Policies are the policies of services and of the platform's own routes.
	Policies = Definitions[gateway.Policy]
)

func newRoutes(l *ledger) *Routes {
	return newDefinitions(l, "route", "routes", state.PrefixGatewayRoutes, MaxRoutes,
		func(_ string, route gateway.Route) (string, error) {
			route.ID = "" // it is in the key
			return state.Encode(state.GatewayRoute{Version: state.Current(), Route: route})
		},
		func(id string, value []byte) (gateway.Route, error) {
			rec, err := state.Decode[state.GatewayRoute](value)
			rec.Route.ID = id
			return rec.Route, err
		})
}

func newPolicies(l *ledger) *Policies {
	return newDefinitions(l, "policy", "policies", state.PrefixGatewayPolicies, MaxPolicies,
		func(name string, policy gateway.Policy) (string, error) {
			return state.Encode(state.GatewayPolicy{Version: state.Current(), Name: name, Policy: policy})
		},
		func(name string, value []byte) (gateway.Policy, error) {
			rec, err := state.Decode[state.GatewayPolicy](value)
			if err == nil && rec.Name != name {
				err = fmt.Errorf("the policy %q is below the key of %q", rec.Name, name)
			}
			return rec.Policy, err
		})
}

func newDefinitions[V any](l *ledger, what, plural, prefix string, limit int, encode func(string, V) (string, error), decode func(string, []byte) (V, error)) *Definitions[V] {
	d := &Definitions[V]{ledger: l, what: what, prefix: prefix, encode: encode, room: newRoom(plural, limit, 0)}
	d.items = watched.Add(l.mirror, "gateway_"+plural, prefix, func(key string, value []byte, revision int64) (*Definition[V], error) {
		id := state.TextOf(strings.TrimPrefix(key, prefix))
		if id == "" || d.key(id) != key {
			return nil, fmt.Errorf("%q is not the key of a %s", key, what)
		}
		v, err := decode(id, value)
		return &Definition[V]{ID: id, Value: v, Revision: revision}, err
	})
	d.items.Observe(func(c watched.Change[*Definition[V]]) {
		switch {
		case c.Old == nil:
			d.room.added("", c.Key)
		case c.New == nil:
			d.room.removed("")
		}
	})
	return d
}

func (d *Definitions[V]) key(id string) string { return d.prefix + state.KeyPart(id) }

// Collection returns the watched copy, in the order of the ids as encoded in keys.
func (d *Definitions[V]) Collection() *watched.Collection[*Definition[V]] { return d.items }

// Get returns a definition. The error is of the kind errs.NotFound.
func (d *Definitions[V]) Get(id string) (*Definition[V], error) {
	if item, ok := d.items.Snapshot().Get(d.key(id)); ok {
		return item.Value, nil
	}
	return nil, errs.New(errs.NotFound, "no %s %q is managed here", d.what, id)
}

// Precondition returns an error to refuse the current state of a definition, as If-Match does; nil stands for no definition.
type Precondition[V any] func(*Definition[V]) error

// find returns the item to be changed, nil if there is none, or an error if it must not be changed.
func (d *Definitions[V]) find(ctx context.Context, id string, pre Precondition[V]) (*watched.Item[*Definition[V]], error) {
	return settled(ctx, d.ledger, func() (*watched.Item[*Definition[V]], error) {
		item, ok := d.items.Snapshot().Get(d.key(id))
		var present *Definition[V]
		if ok {
			present = item.Value
		}
		if pre != nil {
			if err := pre(present); err != nil {
				return nil, err
			}
		}
		return item, nil
	})
}

// Put creates or replaces a definition and returns it as stored. The definition must have passed Check and be in its normal form.
// Replacing a definition with an identical one changes nothing. Errors are those of pre, which may be nil, of the kind errs.Forbidden, if
// there is no room for another definition, and those of etcd.Store.Txn.
func (d *Definitions[V]) Put(ctx context.Context, id string, v V, pre Precondition[V]) (def *Definition[V], created bool, err error) {
	key := d.key(id)
	value, err := d.encode(id, v)
	if err != nil {
		return nil, false, err
	}
	for range maxTries {
		item, err := d.find(ctx, id, pre)
		if err != nil {
			return nil, false, err
		}
		release := func() {}
		if item == nil {
			if release, err = d.room.claim("", key); err != nil {
				return nil, false, err
			}
		} else if present, err := d.encode(id, item.Value.Value); err == nil && present == value {
			return item.Value, false, nil
		}
		revision, done, err := d.put(ctx, unchanged(key, item), clientv3.OpPut(key, value))
		release()
		if err != nil {
			return nil, false, err
		}
		if done {
			return &Definition[V]{ID: id, Value: v, Revision: revision}, item == nil, nil
		}
	}
	return nil, false, errContended()
}

// Delete removes a definition and returns the revision of the deletion. Errors are of the kind errs.NotFound, those of pre, which may be
// nil, and those of etcd.Store.Txn.
func (d *Definitions[V]) Delete(ctx context.Context, id string, pre Precondition[V]) (revision int64, err error) {
	present := func(def *Definition[V]) error {
		if def == nil {
			return errs.New(errs.NotFound, "no %s %q is managed here", d.what, id)
		}
		if pre != nil {
			return pre(def)
		}
		return nil
	}
	for range maxTries {
		item, err := d.find(ctx, id, present)
		if err != nil {
			return 0, err
		}
		revision, done, err := d.put(ctx, item.Unchanged(), clientv3.OpDelete(item.Key))
		if done || err != nil {
			return revision, err
		}
	}
	return 0, errContended()
}
