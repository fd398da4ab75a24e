// Package lifecycle does what the MEPM asks for over Mm5 and what apps say about themselves: configuration, start, stop,
// termination, readiness.
//
// A request is one transaction: it says what is to be. What must happen because of it is done by the reconcilers and by the
// Engine, which the leading process runs, and which goes on from what is stored after a crash at any instant.
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

// Policy is what an operator decides about the life cycle.
type Policy struct {
	// Limits are the bounds of configurations.
	Limits mp1.RuleLimits
	// GracefulTimeout is how long an app may take where the MEPM does not say.
	GracefulTimeout time.Duration
	// RuleTimeout is how long a stop or termination waits for rules to be taken back before it goes on.
	RuleTimeout time.Duration
	// OperationTimeout is how long an operation waits for reports before it fails.
	OperationTimeout time.Duration
	// Retention is how long operations are kept that have ended, MaxOperations how many.
	Retention     time.Duration
	MaxOperations int
	// Features are those an app may require; empty: not checked. Transports are those of the platform.
	Features   []mp1.FeatureDependency
	Transports []mp1.TransportInfo
}

// Statuses is where to learn what reconcilers reported.
type Statuses interface {
	// Of returns what a reconciler last reported of an app instance.
	Of(reconciler, appInstanceID string) (state.Status, bool)
}

// Configuration is a configuration as this process holds it, apart from its rules.
type Configuration = watched.Item[state.Configuration]

// Manager does what is asked for.
type Manager struct {
	Store  *etcd.Store
	Mirror *watched.Mirror
	Apps   *apps.Directory
	// Traffic and DNS are the rules, Operations what was asked for.
	Traffic    *rules.Table[mp1.TrafficRule]
	DNS        *rules.Table[mp1.DNSRule]
	Operations *operation.Log
	Statuses   Statuses
	// Appliers names the reconciler that applies the rules of a kind; a kind without one is only recorded.
	Appliers map[mm5.RuleKind]string
	// What an app instance has besides.
	Registry     *registry.Registry
	Availability *subscription.Book
	Termination  *termination.Book
	Identities   *identity.Directory
	// Registered says whether an app instance has registered itself.
	Registered func(appInstanceID string) bool
	Policy     func() Policy

	configurations *watched.Collection[state.Configuration]
	now            func() time.Time
	locks          striped.Locks // of app instances: spares this process transactions that overtake each other
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

// Configuration finds the configuration of an app instance.
func (m *Manager) Configuration(appInstanceID string) (*Configuration, bool) {
	return m.configurations.Snapshot().Get(state.ConfigurationKey(appInstanceID))
}

// maxTries bounds how often a request is repeated because another one came first.
const maxTries = 32

func errContended(appInstanceID string) error {
	return errs.New(errs.Unavailable, "others keep changing application instance %s: try again", appInstanceID).After(time.Second)
}

// change is a transaction on an app instance.
type change struct {
	cmps []clientv3.Cmp
	ops  []clientv3.Op
	// of is the revision of the app instance's record the change is made of.
	of int64
}

func (c *change) add(cmps []clientv3.Cmp, ops []clientv3.Op) {
	c.cmps, c.ops = append(c.cmps, cmps...), append(c.ops, ops...)
}

// app adds the record of an app instance; item is nil when it is new.
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

// same holds as long as a record is what the item says, or as long as there is none.
func same[V any](key string, item *watched.Item[V]) clientv3.Cmp {
	if item == nil {
		return clientv3.Compare(clientv3.CreateRevision(key), "=", 0)
	}
	return item.Unchanged()
}

// commit runs a transaction and waits until this process knows its outcome, too. It reports whether the comparisons held.
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

// holds reports whether comparisons hold, and waits until this process knows better if they do not.
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

// record is the record of an app instance that may be new.
func (m *Manager) record(appInstanceID string, origin state.AppOrigin) (item *apps.Item, rec state.App) {
	if item, ok := m.Apps.Get(appInstanceID); ok {
		return item, item.Value.Record
	}
	return nil, state.App{Origin: origin, Created: m.now().UTC()}
}
