// Package book stores what comes over the management of the gateway: static routes, policies, API keys, and requests for access to
// services that are shared on conditions.
//
// Reads come from the watched copy. A write is one transaction that only succeeds if nothing it was decided on has changed, and returns
// when this process's own copy shows it.
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

// How many there may be of each. Those that several replicas make at the same moment may go beyond.
const (
	MaxRoutes   = 10_000
	MaxPolicies = 10_000
	MaxAPIKeys  = 100_000
	// MaxKeysOf is how many API keys a consumer may have.
	MaxKeysOf   = 16
	MaxRequests = 100_000
	// MaxRequestsOf is how many access requests a consumer may have made.
	MaxRequestsOf = 1000
)

const (
	// maxTries bounds how often a write is repeated because another one came first.
	maxTries = 16
	// leaseSpan is how far the ends of API keys may lie apart that share a lease.
	leaseSpan = time.Hour
)

// Book holds all of it.
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

// New adds the collections to the mirror, whose root has to be state.Root. Call it before the mirror runs. services says what consumers
// may ask access to.
func New(m *watched.Mirror, store *etcd.Store, services Services) *Book {
	l := &ledger{mirror: m, store: store}
	return &Book{Routes: newRoutes(l), Policies: newPolicies(l), Keys: newKeys(l), Access: newAccess(l, services)}
}

// ETag is the entity-tag of a record that was last written at the revision, with quotes.
func ETag(revision int64) string { return `"` + strconv.FormatInt(revision, 36) + `"` }

// ledger writes.
type ledger struct {
	mirror *watched.Mirror
	store  *etcd.Store
}

func errContended() error {
	return errs.New(errs.Unavailable, "others keep changing the same: try again").After(time.Second)
}

// fresh waits until the copy holds what was committed before the call, in any process.
func (l *ledger) fresh(ctx context.Context) error {
	revision, err := l.store.Revision(ctx, state.GatewayRoot)
	if err != nil {
		return err
	}
	return l.mirror.CatchUp(ctx, revision)
}

// put writes a value if the comparison holds, and waits until the copy shows it, or what came in its way when it did not hold: done is
// false then.
func (l *ledger) put(ctx context.Context, cmp clientv3.Cmp, op clientv3.Op) (revision int64, done bool, err error) {
	resp, err := l.store.Txn(ctx, []clientv3.Cmp{cmp}, []clientv3.Op{op}, nil)
	if err != nil {
		return 0, false, err
	}
	revision = resp.Header.Revision
	err = l.mirror.CatchUp(ctx, revision)
	if resp.Succeeded {
		return revision, true, nil // what is durable is done, though the copy may lag behind it
	}
	return revision, false, err
}

// unchanged holds as long as the record of a key is what the item says; nil says that there is none.
func unchanged[V any](key string, item *watched.Item[V]) clientv3.Cmp {
	if item == nil {
		return clientv3.Compare(clientv3.CreateRevision(key), "=", 0)
	}
	return item.Unchanged()
}

// settled decides by what the copy holds and, when that is refused, once more by what it holds after everything was read that other
// processes did before.
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
