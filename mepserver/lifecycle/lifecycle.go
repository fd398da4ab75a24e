// Package lifecycle carries out what the MEPM requests over Mm5 and what apps report about themselves: configuration, start,
// stop, termination and readiness.
//
// A request is one transaction that stores the desired state. The resulting work is done by the reconcilers and by the
// Engine, which runs in the leading process and resumes from the stored state after a crash at any instant.
package lifecycle

import (
	"context"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/openmep/mep/api/mm5"
	"github.com/openmep/mep/api/mp1"
	"github.com/openmep/mep/api/state"
	"github.com/openmep/mep/kit/errs"
	"github.com/openmep/mep/kit/etcd"
	"github.com/openmep/mep/kit/identity"
	"github.com/openmep/mep/kit/striped"
	"github.com/openmep/mep/kit/watched"
	"github.com/openmep/mep/mepserver/apps"
	"github.com/openmep/mep/mepserver/operation"
	"github.com/openmep/mep/mepserver/registry"
	"github.com/openmep/mep/mepserver/rules"
	"github.com/openmep/mep/mepserver/subscription"
	"github.com/openmep/mep/mepserver/termination"
)

// Policy holds the operator's settings for the life cycle.
type Policy struct {
	// Limits are the bounds of configurations.
	Limits mp1.RuleLimits
	// GracefulTimeout is how long an app may take if the MEPM does not say.
	GracefulTimeout time.Duration
	// RuleTimeout is how long a stop or termination waits for rules to be withdrawn before it goes on.
	RuleTimeout time.Duration
	// OperationTimeout is how long an operation waits for reports before it fails.
	OperationTimeout time.Duration
	// Retention is how long ended operations are kept, MaxOperations how many.
	Retention     time.Duration
	MaxOperations int
	// Features are the features an app may require; if empty, they are not checked. Transports are those of the platform.
	Features   []mp1.FeatureDependency
	Transports []mp1.TransportInfo
}

// Statuses provides the reports of reconcilers.
type Statuses interface {
	// Of returns the last report of a reconciler on an app instance.
	Of(reconciler, appInstanceID string) (state.Status, bool)
}

// Configuration is a configuration as this process holds it, without its rules.
type Configuration = watched.Item[state.Configuration]

// Manager carries out requests.
type Manager struct {
	Store  *etcd.Store
	Mirror *watched.Mirror
	Apps   *apps.Directory
	// Traffic and DNS hold the rules, Operations the requested operations.
	Traffic    *rules.Table[mp1.TrafficRule]
	DNS        *rules.Table[mp1.DNSRule]
	Operations *operation.Log
	Statuses   Statuses
	// Appliers names the reconciler that applies the rules of a kind; rules of a kind without one are only recorded.
	Appliers map[mm5.RuleKind]string
	// What else an app instance has.
	Registry     *registry.Registry
	Availability *subscription.Book
	Termination  *termination.Book
	Identities   *identity.Directory
	// Registered reports whether an app instance has registered itself.
	Registered func(appInstanceID string) bool
	Policy     func() Policy

	configurations *watched.Collection[state.Configuration]
	now            func() time.Time
	locks          striped.Locks // of app instances: keeps transactions of this process from overtaking each other
}

// Init adds the manager's collections to the mirror.
func (m *Manager) Init() *Manager {
	m.now = time.Now
	m.configurations = watched.Add(m.Mirror, "configurations", state.PrefixConfigurations,
		func(_ string, value []byte, _ int64) (state.Configuration, error) {
			return state.Decode[state.Configuration](value)
		})
	return m
}

// Configuration returns the configuration of an app instance, if there is one.
func (m *Manager) Configuration(appInstanceID string) (*Configuration, bool) {
	return m.configurations.Snapshot().Get(state.ConfigurationKey(appInstanceID))
}

// maxTries bounds how often a request is tried when other writes come first.
const maxTries = 32

func errContended(appInstanceID string) error {
	return errs.New(errs.Unavailable, "others keep changing application instance %s: try again", appInstanceID).After(time.Second)
}

// change is a transaction on an app instance.
type change struct {
	cmps []clientv3.Cmp
	ops  []clientv3.Op
	// of is the revision of the app instance's record that the change is based on.
	of int64
}

func (c *change) add(cmps []clientv3.Cmp, ops []clientv3.Op) {
	c.cmps, c.ops = append(c.cmps, cmps...), append(c.ops, ops...)
}

// app adds a write of the record of an app instance; item is nil if the instance is new.
func (c *change) app(id string, item *apps.Item, rec state.App) error {
	key := state.AppKey(id)
	if item != nil {
		c.of = item.ModRevision
	}
	rec.Version = state.Current()
	value, err := state.Encode(rec)
	if err != nil {
		return err
	}
	c.add([]clientv3.Cmp{same(key, item)}, []clientv3.Op{clientv3.OpPut(key, value)})
	return nil
}

// same returns a comparison that holds as long as a record is as in item, or as long as there is none if item is nil.
func same[V any](key string, item *watched.Item[V]) clientv3.Cmp {
	if item == nil {
		return clientv3.Compare(clientv3.CreateRevision(key), "=", 0)
	}
	return item.Unchanged()
}

// commit runs a transaction and waits until the copy shows its outcome. It reports whether the comparisons held.
func (m *Manager) commit(ctx context.Context, store *etcd.Store, c *change) (bool, error) {
	resp, err := store.Txn(ctx, c.cmps, c.ops, nil)
	if err != nil {
		return false, err
	}
	err = m.Mirror.CatchUp(ctx, resp.Header.Revision)
	if resp.Succeeded {
		return true, nil // the copy may lag, but what is stored is stored
	}
	return false, err
}

// holds reports whether comparisons hold, and waits until the copy shows what they were compared with.
func (m *Manager) holds(ctx context.Context, cmps []clientv3.Cmp) (bool, error) {
	return m.commit(ctx, m.Store, &change{cmps: cmps})
}

// find returns a known app instance.
func (m *Manager) find(appInstanceID string) (*apps.Item, error) {
	item, ok := m.Apps.Get(appInstanceID)
	if !ok {
		return nil, errs.New(errs.NotFound, "there is no application instance %q", apps.Clip(appInstanceID))
	}
	return item, nil
}

// record returns the record of an app instance, or a new record if the instance is not known.
func (m *Manager) record(appInstanceID string, origin state.AppOrigin) (item *apps.Item, rec state.App) {
	if item, ok := m.Apps.Get(appInstanceID); ok {
		return item, item.Value.Record
	}
	return nil, state.App{Origin: origin, Created: m.now().UTC()}
}
