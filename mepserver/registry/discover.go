package registry

import (
	"iter"
	"slices"

	"github.com/openmep/mep/api/mp1"
)

// Query narrows a discovery (MEC 011 8.2.3.3.1). At most one of InstanceIDs, Names and CategoryID is given.
type Query struct {
	InstanceIDs []string
	Names       []string
	CategoryID  string
	Scope       mp1.LocalityType
	// ConsumedLocalOnly and IsLocal are nil when they do not matter.
	ConsumedLocalOnly, IsLocal *bool
}

// All reports whether q asks for every service.
func (q Query) All() bool {
	return len(q.InstanceIDs)+len(q.Names) == 0 && q.CategoryID == "" && q.Scope == "" && q.ConsumedLocalOnly == nil && q.IsLocal == nil
}

// Discover walks over the services of a snapshot that match q and may be consumed: ACTIVE and INACTIVE ones.
func (r *Registry) Discover(snap *Snapshot, q Query) iter.Seq[*Item] {
	return func(yield func(*Item) bool) {
		for item := range r.candidates(snap, q) {
			if item.Value.State != mp1.StateSuspended && q.matches(item.Value) && !yield(item) {
				return
			}
		}
	}
}

// DiscoverOwn walks over the services of one app that match q, in any state.
func (r *Registry) DiscoverOwn(appInstanceID string, q Query) iter.Seq[*Item] {
	return func(yield func(*Item) bool) {
		for item := range r.records.Of(appInstanceID) {
			if q.selects(item.Value) && q.matches(item.Value) && !yield(item) {
				return
			}
		}
	}
}

// candidates uses the narrowest index there is for q.
func (r *Registry) candidates(snap *Snapshot, q Query) iter.Seq[*Item] {
	var ix = r.byName
	keys := q.Names
	switch {
	case len(q.InstanceIDs) > 0:
		ix, keys = r.byID, q.InstanceIDs
	case q.CategoryID != "":
		ix, keys = r.byCategory, []string{q.CategoryID}
	case len(q.Names) == 0:
		return snap.All()
	}
	if len(keys) == 1 {
		return snap.Find(ix, keys[0])
	}
	distinct := slices.Compact(slices.Sorted(slices.Values(keys)))
	return func(yield func(*Item) bool) {
		for _, k := range distinct {
			for item := range snap.Find(ix, k) {
				if !yield(item) {
					return
				}
			}
		}
	}
}

// selects applies the members of q that candidates finds by index.
func (q Query) selects(s *Service) bool {
	switch {
	case len(q.InstanceIDs) > 0:
		return slices.Contains(q.InstanceIDs, s.ID)
	case len(q.Names) > 0:
		return slices.Contains(q.Names, s.Name)
	case q.CategoryID != "":
		return s.CategoryID == q.CategoryID
	}
	return true
}

// matches applies the other members of q.
func (q Query) matches(s *Service) bool {
	if q.Scope != "" && s.Scope != q.Scope {
		return false
	}
	if q.ConsumedLocalOnly != nil && s.ConsumedLocalOnly != *q.ConsumedLocalOnly {
		return false
	}
	// Every service in this host's store is local to every reader on this host.
	return q.IsLocal == nil || *q.IsLocal
}
