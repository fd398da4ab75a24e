// Package records stores the DNS records that arrive over the DNS server's management API.
//
// A record holds all values of a name and type, for everybody or for the clients of one view. Reads come from the watched copy. A write
// is one transaction that succeeds only if nothing it was based on has changed. It returns once this process's own copy shows it.
package records

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/openmep/mep/api/dns"
	"github.com/openmep/mep/api/problem"
	"github.com/openmep/mep/api/state"
	"github.com/openmep/mep/kit/errs"
	"github.com/openmep/mep/kit/etcd"
	"github.com/openmep/mep/kit/watched"
)

// DefaultMaxRecords is the maximum number of records unless the policy says otherwise.
const DefaultMaxRecords = 1_000_000

// Policy holds the operator's decisions about records. It may change while the book is in use.
type Policy struct {
	// MaxRecords is the maximum number of records; 0 means DefaultMaxRecords.
	MaxRecords int
	// Views are the names of the configured views.
	Views []string
}

// Item is a record in normal form, with its revisions.
type Item = watched.Item[*dns.Record]

// ETag returns the entity-tag of a record, with quotes.
func ETag(item *Item) string { return `"` + strconv.FormatInt(item.ModRevision, 36) + `"` }

// Book holds the records.
type Book struct {
	mirror *watched.Mirror
	store  *etcd.Store
	policy func() Policy
	items  *watched.Collection[*dns.Record]
	served Served

	mu     sync.Mutex
	stored int
	// pending holds the keys of records being created that stored does not count yet.
	pending map[string]struct{}
}

// New returns a Book and adds its collection to the mirror. Call it before the mirror runs.
func New(m *watched.Mirror, store *etcd.Store, policy func() Policy) *Book {
	b := &Book{
		mirror: m, store: store, policy: policy, items: watched.Add(m, "dns_records", state.PrefixDNSRecords, Decode),
		pending: make(map[string]struct{}),
	}
	b.items.Observe(b.count)
	return b
}

// Served is what the DNS server answers from: the records of the book and the rules of app instances.
type Served interface {
	// Displaced returns a sentence for each record that would not, or no longer, be answered if recs, in normal form, took the place of
	// the records of their names, types and views.
	Displaced(recs []dns.Record) []string
	// CatchUp waits until Served is up to date with a revision of etcd.
	CatchUp(ctx context.Context, revision int64) error
}

// Beside makes the book refuse records that could not be answered beside what is served, as far as is known. Call it before using the
// book.
func (b *Book) Beside(served Served) { b.served = served }

// Collection returns the watched copy.
func (b *Book) Collection() *watched.Collection[*dns.Record] { return b.items }

func (b *Book) count(c watched.Change[*dns.Record]) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case c.Old == nil:
		b.stored++
		delete(b.pending, c.Key)
	case c.New == nil:
		b.stored--
	}
}

// reserve claims room for new records until release is called. The error is of the kind errs.Forbidden.
func (b *Book) reserve(keys []string) (release func(), err error) {
	limit := b.policy().MaxRecords
	if limit == 0 {
		limit = DefaultMaxRecords
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.stored+len(b.pending)+len(keys) > limit {
		return nil, errs.New(errs.Forbidden, "the DNS server has room for %d records and has %d: remove some first", limit, b.stored)
	}
	for _, key := range keys {
		b.pending[key] = struct{}{}
	}
	return func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		for _, key := range keys {
			delete(b.pending, key)
		}
	}, nil
}

// Check adds to faults everything that is wrong with a record.
func (b *Book) Check(rec *dns.Record, faults *problem.InvalidParams) {
	before := len(*faults)
	rec.Check(faults)
	if rec.View == "" || slices.ContainsFunc((*faults)[before:], func(f problem.InvalidParam) bool { return f.Name == "view" }) {
		return
	}
	if views := b.policy().Views; !slices.Contains(views, rec.View) {
		known := "none is configured"
		if len(views) > 0 {
			known = "there is " + strings.Join(views, ", ")
		}
		faults.Add("view", "must be a view of the DNS server's configuration: "+known)
	}
}

// maxTries bounds how often a write is attempted when other writes overtake it.
const maxTries = 16

// errContended returns the error of a write whose every attempt was overtaken.
func errContended() error {
	return errs.New(errs.Unavailable, "others keep changing the same names: try again").After(time.Second)
}

// fresh waits until the copy, and what is served, hold everything that any process committed before the call.
func (b *Book) fresh(ctx context.Context) error {
	revision, err := b.store.Revision(ctx, state.PrefixDNSRecords)
	if err != nil {
		return err
	}
	if err := b.mirror.CatchUp(ctx, revision); err != nil || b.served == nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, etcd.DefaultTimeout)
	defer cancel()
	return etcd.Error(b.served.CatchUp(ctx, revision))
}

// txn runs a transaction and waits until the copy shows it. If the comparisons fail, done is false and the copy shows why.
func (b *Book) txn(ctx context.Context, cmps []clientv3.Cmp, ops []clientv3.Op) (revision int64, done bool, err error) {
	resp, err := b.store.Txn(ctx, cmps, ops, nil)
	if err != nil {
		return 0, false, err
	}
	revision = resp.Header.Revision
	err = b.mirror.CatchUp(ctx, revision)
	if resp.Succeeded {
		return revision, true, nil // the write is durable, although the copy may lag behind
	}
	return revision, false, err
}
