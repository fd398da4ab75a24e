package registry

import (
	"bytes"
	"context"
	"fmt"
	"iter"
	"time"

	"github.com/google/uuid"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/openmep/mep/api/mp1"
	"github.com/openmep/mep/api/problem"
	"github.com/openmep/mep/api/state"
	"github.com/openmep/mep/kit/errs"
	"github.com/openmep/mep/kit/etcd"
	"github.com/openmep/mep/kit/netguard"
	"github.com/openmep/mep/kit/watched"
	"github.com/openmep/mep/mepserver/apps"
	"github.com/openmep/mep/mepserver/owned"
)

// Policy holds the operator's settings for registrations. It may change while the registry runs.
type Policy struct {
	// MaxServices is how many services one app may have.
	MaxServices int
	// MinInterval and MaxInterval bound the heartbeat interval in seconds; DefaultInterval applies if the app has no
	// preference.
	MinInterval, MaxInterval, DefaultInterval int
	// Transports are what the platform offers, by id in the order of the configuration.
	Transports []mp1.TransportInfo
	// Targets says which addresses an endpoint may not have, because the platform calls endpoints on behalf of others. If
	// nil, any address is allowed.
	Targets *netguard.Policy
}

// Interval returns the heartbeat interval that applies when the app asked for asked seconds (decision: the nearest bound is
// imposed).
func (p Policy) Interval(asked int) int {
	if asked == 0 {
		asked = p.DefaultInterval
	}
	return min(max(asked, p.MinInterval), p.MaxInterval)
}

func (p Policy) transport(id string) (*mp1.TransportInfo, bool) {
	for i := range p.Transports {
		if p.Transports[i].ID == id {
			return &p.Transports[i], true
		}
	}
	return nil, false
}

// Registry registers and finds services.
type Registry struct {
	records *owned.Records[*Service]
	apps    *apps.Directory
	policy  func() Policy
	now     func() time.Time

	byID, byName, byCategory watched.Index[*Service]
}

// New adds the registry's collection to the mirror.
func New(m *watched.Mirror, store *etcd.Store, dir *apps.Directory, policy func() Policy) *Registry {
	r := &Registry{apps: dir, policy: policy, now: time.Now}
	r.records = owned.New(m, store, dir, owned.Kind[*Service]{
		Name: "services", Noun: "service", Prefix: state.PrefixServices, Decode: decode,
	})
	c := r.records.Collection()
	r.byID = watched.NewIndex(c, func(it *Item) []string { return []string{it.Value.ID} })
	r.byName = watched.NewIndex(c, func(it *Item) []string { return []string{it.Value.Name} })
	r.byCategory = watched.NewIndex(c, func(it *Item) []string {
		if it.Value.CategoryID == "" {
			return nil
		}
		return []string{it.Value.CategoryID}
	})
	return r
}

// Services returns the watched copy.
func (r *Registry) Services() *watched.Collection[*Service] { return r.records.Collection() }

// Get returns a service by its id, whatever its state. The error is of the kind errs.NotFound, also for a service that the
// reader may not see.
func (r *Registry) Get(by apps.Reader, serInstanceID string) (*Item, error) {
	for item := range r.Services().Snapshot().Find(r.byID, serInstanceID) {
		if by.Sees(item.Value.AppInstanceID, item.Value.Name) {
			return item, nil
		}
	}
	return nil, errs.New(errs.NotFound, "there is no service %q", serInstanceID)
}

// GetOwn returns a service of the app. The error is of the kind errs.NotFound if the app has no such service.
func (r *Registry) GetOwn(appInstanceID, serInstanceID string) (*Item, error) {
	return r.records.Get(appInstanceID, serInstanceID)
}

// ForWrite returns a service that the app wants to change. The error is of the kind errs.Forbidden if the service belongs to
// another app, and errs.NotFound if there is none that the app may see.
func (r *Registry) ForWrite(appInstanceID, serInstanceID string) (*Item, error) {
	item, err := r.GetOwn(appInstanceID, serInstanceID)
	if err == nil {
		return item, nil
	}
	if _, other := r.Get(r.apps.Reader(appInstanceID), serInstanceID); other == nil {
		return nil, errs.New(errs.Forbidden,
			"service %s belongs to another application instance: only its owner may change or remove it", serInstanceID)
	}
	return nil, err
}

// Precondition refuses a service in its present state, as If-Match does.
type Precondition func(*Item) error

// found returns the lookup that owned.Records needs to change a service of the app.
func (r *Registry) found(appInstanceID, serInstanceID string, pre Precondition) func() (*Item, error) {
	return func() (*Item, error) {
		item, err := r.ForWrite(appInstanceID, serInstanceID)
		if err == nil && pre != nil {
			err = pre(item)
		}
		return item, err
	}
}

// Register stores a new service of the app and returns it. info has passed its Check. Errors are of the kinds errs.NotFound
// (no such app), errs.Invalid (unknown transport, SUSPENDED, an endpoint that Policy.Targets refuses), errs.Forbidden (over
// the app's limit) and those of etcd.Store.Txn.
func (r *Registry) Register(ctx context.Context, appInstanceID string, info mp1.ServiceInfo) (*Item, error) {
	if info.State == mp1.StateSuspended {
		return nil, errSuspended()
	}
	policy := r.policy()
	id := uuid.NewString()
	rec, err := r.record(policy, id, info)
	if err != nil {
		return nil, err
	}
	value, err := state.Encode(rec)
	if err != nil {
		return nil, err
	}
	return r.records.Create(ctx, appInstanceID, id, value, policy.MaxServices)
}

func errSuspended() error {
	var p problem.InvalidParams
	p.Add("state", "must be ACTIVE or INACTIVE: only the platform suspends a service")
	return errs.Params(p)
}

// record returns the record to store for a registration or replacement.
func (r *Registry) record(policy Policy, id string, info mp1.ServiceInfo) (state.Service, error) {
	if info.TransportInfo == nil {
		t, ok := policy.transport(info.TransportID)
		if !ok {
			var p problem.InvalidParams
			p.Add("transportId", fmt.Sprintf("%q is not a transport of this platform: GET %s/transports lists them", info.TransportID, APIRoot))
			return state.Service{}, errs.Params(p)
		}
		info.TransportInfo = t
	} else if err := policy.checkEndpoint(info.TransportInfo); err != nil {
		return state.Service{}, err
	}
	info.SerInstanceID, info.TransportID, info.IsLocal, info.Links = id, "", nil, nil
	if info.ScopeOfLocality == "" {
		info.ScopeOfLocality = mp1.LocalityMECHost
	}
	if info.ConsumedLocalOnly == nil {
		yes := true
		info.ConsumedLocalOnly = &yes
	}
	rec := state.Service{Version: state.Current(), Asked: info.LivenessInterval, Beat: r.now().UTC()}
	if info.LivenessInterval != nil {
		interval := policy.Interval(*info.LivenessInterval)
		info.LivenessInterval = &interval
	}
	rec.Info = info
	return rec, nil
}

// Edit changes a service: it gets the present item and returns the record to store in its place, or nil to leave it
// unchanged. It is called again if another write came first.
type Edit func(*Item) (*state.Service, error)

// Update applies an edit to a service of the app and returns the result. Errors are those of ForWrite, of edit and of
// etcd.Store.Txn.
func (r *Registry) Update(ctx context.Context, appInstanceID, serInstanceID string, edit Edit) (*Item, error) {
	return r.records.Update(ctx, r.found(appInstanceID, serInstanceID, nil), func(item *Item) (string, bool, error) {
		rec, err := edit(item)
		if err != nil || rec == nil {
			return "", false, err
		}
		value, err := state.Encode(*rec)
		return value, true, err
	})
}

// Replace replaces a service of the app with info, which has passed its Check (MEC 011 8.2.7.3.2). Replacing a service with
// itself changes nothing.
func (r *Registry) Replace(ctx context.Context, appInstanceID, serInstanceID string, info mp1.ServiceInfo, pre Precondition) (*Item, error) {
	policy := r.policy()
	return r.Update(ctx, appInstanceID, serInstanceID, func(item *Item) (*state.Service, error) {
		if err := pre(item); err != nil {
			return nil, err
		}
		was := item.Value
		if info.State == mp1.StateSuspended && was.State != mp1.StateSuspended {
			return nil, errSuspended()
		}
		rec, err := r.record(policy, serInstanceID, info)
		if err != nil {
			return nil, err
		}
		if info.State == mp1.StateSuspended {
			rec.Suspended = was.Suspended
		}
		encoded, err := encodeInfo(&rec.Info)
		if err != nil {
			return nil, err
		}
		if bytes.Equal(encoded, was.infoJSON()) && (rec.Asked == nil || *rec.Asked == was.Asked) {
			return nil, nil
		}
		return &rec, nil
	})
}

// Remove removes a service of the app. Its last state is kept until every subscriber knows of the removal.
func (r *Registry) Remove(ctx context.Context, appInstanceID, serInstanceID string, pre Precondition) error {
	return r.records.Remove(ctx, r.found(appInstanceID, serInstanceID, pre), keepLast)
}

// keepLast returns the operation that keeps the last state of a removed service.
func keepLast(item *Item) ([]clientv3.Op, error) {
	rec, err := item.Value.Record()
	if err != nil {
		return nil, err
	}
	last, err := state.Encode(rec)
	if err != nil {
		return nil, err
	}
	return []clientv3.Op{clientv3.OpPut(state.RemovedServiceKey(item.Value.AppInstanceID, item.Value.ID), last)}, nil
}

// Of iterates over the services of the app.
func (r *Registry) Of(appInstanceID string) iter.Seq[*Item] { return r.records.Of(appInstanceID) }

// Removal returns the operations that remove a service as Remove does, for use in a larger transaction.
func (r *Registry) Removal(item *Item) ([]clientv3.Op, error) {
	ops, err := keepLast(item)
	return append(ops, clientv3.OpDelete(item.Key)), err
}

// maxSuspend is the maximum number of bytes one transaction of Suspend writes: etcd accepts 1.5 MiB by default.
const maxSuspend = 512 << 10

// Suspend marks the ACTIVE services among items as SUSPENDED, as far as they are still what items say, and returns how many
// it marked. fence must hold too. It uses one transaction unless that is too large or an item has changed, and takes at most
// 100 items.
func (r *Registry) Suspend(ctx context.Context, items []*Item, at time.Time, fence []clientv3.Cmp) (int, error) {
	var cmps []clientv3.Cmp
	var ops []clientv3.Op
	for _, item := range items {
		if item.Value.State != mp1.StateActive {
			continue
		}
		rec, err := item.Value.Record()
		if err != nil {
			return 0, err
		}
		rec.Info.State, rec.Suspended = mp1.StateSuspended, at.UTC()
		value, err := state.Encode(rec)
		if err != nil {
			return 0, err
		}
		cmps = append(cmps, clientv3.Compare(clientv3.ModRevision(item.Key), "=", item.ModRevision))
		ops = append(ops, clientv3.OpPut(item.Key, value))
	}
	if len(ops) == 0 {
		return 0, nil
	}
	size := 0
	for _, op := range ops {
		size += len(op.ValueBytes())
	}
	if size > maxSuspend && len(items) > 1 {
		half := len(items) / 2
		n, err := r.Suspend(ctx, items[:half], at, fence)
		if err != nil {
			return n, err
		}
		more, err := r.Suspend(ctx, items[half:], at, fence)
		return n + more, err
	}
	done, err := r.records.Apply(ctx, append(cmps, fence...), ops)
	switch {
	case done:
		return len(ops), err
	case err != nil || len(items) == 1:
		return 0, err
	}
	// One of them changed meanwhile: try them one by one.
	total := 0
	for _, item := range items {
		n, err := r.Suspend(ctx, []*Item{item}, at, fence)
		total += n
		if err != nil {
			return total, err
		}
	}
	return total, nil
}
