package records

import (
	"context"
	"fmt"
	"slices"
	"strings"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/openmep/mep/api/dns"
	"github.com/openmep/mep/api/state"
	"github.com/openmep/mep/kit/errs"
	"github.com/openmep/mep/kit/watched"
)

// Create stores 1 to dns.MaxBatch new records, all or none, and returns their revision. They must have passed Check. Errors are of the
// kinds errs.Conflict, if a record exists already, would stand beside a CNAME of the same name and view (RFC 1034 3.6.2) or could not be
// answered beside what is served, errs.Forbidden, if there is no room for them, errs.Invalid, if the number of records is out of range, and
// those of etcd.Store.Txn.
func (b *Book) Create(ctx context.Context, recs ...dns.Record) (revision int64, err error) {
	if len(recs) < 1 || len(recs) > dns.MaxBatch {
		return 0, errs.New(errs.Invalid, "1 to %d records are created at a time, not %d", dns.MaxBatch, len(recs))
	}
	recs = slices.Clone(recs)
	keys, ops := make([]string, len(recs)), make([]clientv3.Op, len(recs))
	for i := range recs {
		recs[i].Normalise()
		rec := recs[i]
		value, err := state.Encode(state.DNSRecord{Version: state.Current(), Record: rec})
		if err != nil {
			return 0, err
		}
		keys[i] = state.DNSRecordKey(rec.Name, rec.Type, rec.View)
		ops[i] = clientv3.OpPut(keys[i], value)
	}
	for try := range maxTries {
		at := b.mirror.Revision() // read before the copy, which is then at least as new
		conflict, err := b.conflict(keys)
		if err == nil && conflict == nil {
			conflict = b.displaced(recs)
		}
		if err != nil {
			return 0, err
		}
		if conflict != nil {
			// The copy may not show another process's removals yet, and the table may lag behind the copy.
			if try > 0 {
				return 0, conflict
			}
			if err := b.fresh(ctx); err != nil {
				return 0, err
			}
			continue
		}
		release, err := b.reserve(keys)
		if err != nil {
			return 0, err
		}
		revision, done, err := b.txn(ctx, untouched(keys, at), ops)
		release()
		if done || err != nil {
			return revision, err
		}
	}
	return 0, errContended()
}

// untouched returns comparisons that hold as long as nothing has been written to the names of the keys after a revision.
func untouched(keys []string, revision int64) []clientv3.Cmp {
	var cmps []clientv3.Cmp
	seen := make(map[string]struct{}, len(keys))
	for _, key := range keys {
		// One per name, not per key: a transaction may have 128.
		name := key[:len(state.PrefixDNSRecords)+strings.IndexByte(key[len(state.PrefixDNSRecords):], '/')+1]
		if _, twice := seen[name]; twice {
			continue
		}
		seen[name] = struct{}{}
		cmps = append(cmps, clientv3.Compare(clientv3.ModRevision(name), "<", revision+1).WithPrefix())
	}
	return cmps
}

// maxConflicts is the maximum number of conflicts that an error names.
const maxConflicts = 10

// conflict returns an error of the kind errs.Conflict if records with the keys cannot be created beside those that exist and beside each
// other.
func (b *Book) conflict(keys []string) (conflict, err error) {
	snapshot := b.items.Snapshot()
	wanted := make(map[string]struct{}, len(keys))
	for _, key := range keys {
		wanted[key] = struct{}{}
	}
	if len(wanted) < len(keys) {
		return errs.New(errs.Conflict, "the request has a name and type more than once: give all values of a name and type in one record"), nil
	}
	var reasons []string
	for _, key := range keys {
		reason, err := conflictOf(snapshot, wanted, key)
		if err != nil {
			return nil, err
		}
		if reason != "" {
			reasons = append(reasons, reason)
		}
	}
	return conflictFor(reasons), nil
}

// displaced returns an error of the kind errs.Conflict that names the records that would not be answered if recs were stored.
func (b *Book) displaced(recs []dns.Record) error {
	if b.served == nil {
		return nil
	}
	return conflictFor(b.served.Displaced(recs))
}

// conflictFor returns an error with the reasons, or nil if there are none.
func conflictFor(reasons []string) error {
	switch n := len(reasons); {
	case n == 0:
		return nil
	case n > maxConflicts:
		reasons = append(reasons[:maxConflicts:maxConflicts], "and more")
	}
	return errs.New(errs.Conflict, "%s; nothing was changed", strings.Join(reasons, "; "))
}

func conflictOf(snapshot *watched.Snapshot[*dns.Record], wanted map[string]struct{}, key string) (reason string, err error) {
	name, rrtype, view, err := state.SplitDNSRecordKey(key)
	if err != nil {
		return "", err
	}
	if _, exists := snapshot.Get(key); exists {
		return what(name, rrtype, view) + " exists already", nil
	}
	for _, other := range dns.Types {
		if other == rrtype || other != dns.TypeCNAME && rrtype != dns.TypeCNAME {
			continue
		}
		beside := state.DNSRecordKey(name, other, view)
		_, exists := snapshot.Get(beside)
		if _, also := wanted[beside]; exists || also {
			return fmt.Sprintf("%s cannot stand beside %s: a name with a CNAME has nothing else", what(name, rrtype, view), what(name, other, view)), nil
		}
	}
	return "", nil
}

// what names a record in messages.
func what(name, rrtype, view string) string {
	if view == "" {
		return name + " " + rrtype
	}
	return name + " " + rrtype + " of the view " + view
}
