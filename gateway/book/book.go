// Package book stores what is managed at the gateway: static routes, policies, API keys, and requests for access to services that are
// shared on conditions.
//
// Reads come from the watched copy. A write is one transaction that succeeds only if nothing it was decided on has changed, and returns
// once this process's own copy shows the write.
package book

import (
	"context"
	"strconv"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/openmep/mep/api/state"
	"github.com/openmep/mep/kit/errs"
	"github.com/openmep/mep/kit/etcd"
	"github.com/openmep/mep/kit/watched"
)

// The maximum numbers of records. Replicas that create records at the same moment may exceed them.
const (
	MaxRoutes   = 10_000
	MaxPolicies = 10_000
	MaxAPIKeys  = 100_000
	// MaxKeysOf is the maximum number of API keys of a consumer.
	MaxKeysOf   = 16
	MaxRequests = 100_000
	// MaxRequestsOf is the maximum number of access requests of a consumer.
	MaxRequestsOf = 1000
)

const (
	// maxTries limits how often a write is attempted when other writes keep coming first.
	maxTries = 16
	// leaseSpan is how far apart the expiry times of API keys that share a lease may be.
	leaseSpan = time.Hour
)

// Book holds everything that is managed at the gateway.
type Book struct {
	// Routes are the static routes.
	Routes *Routes
	// Policies are the policies.
	Policies *Policies
	// Keys are the API keys.
	Keys *Keys
	// Access are the access requests.
	Access *Access
}

// New returns a Book and adds its collections to the mirror, whose root must be state.Root. Call it before the mirror runs. services says
// which services consumers may ask for access to.
func New(m *watched.Mirror, store *etcd.Store, services Services) *Book {
	l := &ledger{mirror: m, store: store}
	return &Book{Routes: newRoutes(l), Policies: newPolicies(l), Keys: newKeys(l), Access: newAccess(l, services)}
}

// ETag returns the entity-tag, with quotes, of a record last written at the revision.
func ETag(revision int64) string { return `"` + strconv.FormatInt(revision, 36) + `"` }

// ledger writes records to etcd.
type ledger struct {
	mirror *watched.Mirror
	store  *etcd.Store
}

func errContended() error {
	return errs.New(errs.Unavailable, "others keep changing the same: try again").After(time.Second)
}

// fresh waits until the copy holds everything that any process committed before the call.
func (l *ledger) fresh(ctx context.Context) error {
	revision, err := l.store.Revision(ctx, state.GatewayRoot)
	if err != nil {
		return err
	}
	return l.mirror.CatchUp(ctx, revision)
}

// put carries out an operation if the comparison holds, and waits until the copy shows it. If the comparison does not hold, done is
// false, and put waits until the copy shows the conflicting write.
func (l *ledger) put(ctx context.Context, cmp clientv3.Cmp, op clientv3.Op) (revision int64, done bool, err error) {
	resp, err := l.store.Txn(ctx, []clientv3.Cmp{cmp}, []clientv3.Op{op}, nil)
	if err != nil {
		return 0, false, err
	}
	revision = resp.Header.Revision
	err = l.mirror.CatchUp(ctx, revision)
	if resp.Succeeded {
		return revision, true, nil // the write is durable, even if the copy lags behind
	}
	return revision, false, err
}

// unchanged returns a comparison that holds as long as the record of a key is the item; a nil item means that there is no record.
func unchanged[V any](key string, item *watched.Item[V]) clientv3.Cmp {
	if item == nil {
		return clientv3.Compare(clientv3.CreateRevision(key), "=", 0)
	}
	return item.Unchanged()
}

// settled decides on the basis of the copy. If decide fails, settled calls it again once the copy has caught up with all earlier writes
// of other processes.
func settled[T any](ctx context.Context, l *ledger, decide func() (T, error)) (T, error) {
	v, err := decide()
	if err == nil {
		return v, nil
	}
	if err := l.fresh(ctx); err != nil {
		var none T
		return none, err
	}
	return decide()
}
