package registry

import (
	"iter"
	"slices"

	"github.com/openmep/mep/api/mp1"
	"github.com/openmep/mep/api/state"
	"github.com/openmep/mep/kit/watched"
	"github.com/openmep/mep/mepserver/apps"
)

// Query narrows a discovery (MEC 011 8.2.3.3.1). At most one of InstanceIDs, Names and CategoryID is set.
type Query struct {
	InstanceIDs []string
	Names       []string
	CategoryID  string
	Scope       mp1.LocalityType
	// ConsumedLocalOnly and IsLocal are nil if they do not matter.
	ConsumedLocalOnly, IsLocal *bool
}

// All reports whether q asks for every service.
func (q Query) All() bool {
	return len(q.InstanceIDs)+len(q.Names) == 0 && q.CategoryID == "" && q.Scope == "" && q.ConsumedLocalOnly == nil && q.IsLocal == nil
}

// Discover iterates over the services of a snapshot that match q, that the reader may see, and that may be consumed: ACTIVE
// and INACTIVE ones.
func (r *Registry) Discover(snap *Snapshot, by apps.Reader, q Query) iter.Seq[*Item] {
	return func(yield func(*Item) bool) {
		for item := range r.candidates(snap, by, q) {
			svc := item.Value
			if svc.State != mp1.StateSuspended && by.Sees(svc.AppInstanceID, svc.Name) && q.matches(svc) && !yield(item) {
				return
			}
		}
	}
}

// DiscoverOwn iterates over the services of one app that match q, in any state.
func (r *Registry) DiscoverOwn(appInstanceID string, q Query) iter.Seq[*Item] {
	return func(yield func(*Item) bool) {
		for item := range r.records.Of(appInstanceID) {
			if q.selects(item.Value) && q.matches(item.Value) && !yield(item) {
				return
			}
		}
	}
}

// candidates uses the narrowest index available for q.
func (r *Registry) candidates(snap *Snapshot, by apps.Reader, q Query) iter.Seq[*Item] {
	var ix = r.byName
	keys := q.Names
	switch {
	case len(q.InstanceIDs) > 0:
		ix, keys = r.byID, q.InstanceIDs
	case q.CategoryID != "":
		ix, keys = r.byCategory, []string{q.CategoryID}
	case len(q.Names) == 0 && by.SeesAll():
		return snap.All()
	case len(q.Names) == 0:
		return r.entitled(snap, by)
	}
	if len(keys) == 1 {
		return snap.Find(ix, keys[0])
	}
	return findAll(snap, ix, keys)
}

// entitled iterates over the services visible to a reader that may not see all: those it declared, then the rest of its own.
func (r *Registry) entitled(snap *Snapshot, by apps.Reader) iter.Seq[*Item] {
	return func(yield func(*Item) bool) {
		for item := range findAll(snap, r.byName, by.Requires) {
			if !yield(item) {
				return
			}
		}
		for item := range snap.Prefix(state.AppServices(by.AppInstanceID)) {
			if _, declared := slices.BinarySearch(by.Requires, item.Value.Name); !declared && !yield(item) {
				return
			}
		}
	}
}

// findAll iterates over the services that have one of the keys in the index, each once.
func findAll(snap *Snapshot, ix watched.Index[*Service], keys []string) iter.Seq[*Item] {
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

// selects applies the members of q for which candidates uses an index.
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
