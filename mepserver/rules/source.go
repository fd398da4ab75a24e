package rules

import (
	"iter"

	"github.com/openmep/mep/api/mm5"
	"github.com/openmep/mep/api/mp1"
	"github.com/openmep/mep/kit/watched"
	"github.com/openmep/mep/mepserver/reconcile"
)

// Source presents the rules to reconcilers: those that are to be in force.
type Source struct {
	Traffic *Table[mp1.TrafficRule]
	DNS     *Table[mp1.DNSRule]
	// AppName returns the human-readable name of an app instance.
	AppName func(appInstanceID string) string
}

// Sets iterates over the app instances that have rules of a kind.
func (s *Source) Sets(kind mm5.RuleKind) iter.Seq[reconcile.Set] {
	if kind == mm5.TrafficRules {
		return sets(s, s.Traffic, fillTraffic)
	}
	return sets(s, s.DNS, fillDNS)
}

// Set returns the rules to be in force for an app instance; false if it has no rules of the kind.
func (s *Source) Set(kind mm5.RuleKind, appInstanceID string) (reconcile.Set, bool) {
	if kind == mm5.TrafficRules {
		return set(s, s.Traffic, appInstanceID, fillTraffic)
	}
	return set(s, s.DNS, appInstanceID, fillDNS)
}

// Observe calls fn with each app instance whose rules of a kind may have changed.
func (s *Source) Observe(kind mm5.RuleKind, fn func(appInstanceID string)) (stop func()) {
	if kind == mm5.TrafficRules {
		return observe(s.Traffic, fn)
	}
	return observe(s.DNS, fn)
}

func fillTraffic(set *reconcile.Set, r *mp1.TrafficRule) { set.Traffic = append(set.Traffic, *r) }
func fillDNS(set *reconcile.Set, r *mp1.DNSRule)         { set.DNS = append(set.DNS, *r) }

func sets[R any](s *Source, t *Table[R], fill func(*reconcile.Set, *R)) iter.Seq[reconcile.Set] {
	return func(yield func(reconcile.Set) bool) {
		for item := range t.items.Snapshot().All() {
			if !yield(inForce(s, t, item, fill)) {
				return
			}
		}
	}
}

func set[R any](s *Source, t *Table[R], appInstanceID string, fill func(*reconcile.Set, *R)) (reconcile.Set, bool) {
	item := t.Of(appInstanceID)
	if item == nil {
		return reconcile.Set{}, false
	}
	return inForce(s, t, item, fill), true
}

func inForce[R any](s *Source, t *Table[R], item *Item[R], fill func(*reconcile.Set, *R)) reconcile.Set {
	set := reconcile.Set{
		Kind: t.kind.Kind, AppInstanceID: item.Value.AppInstanceID, AppName: s.AppName(item.Value.AppInstanceID),
		Generation: item.Value.Record.Generation,
	}
	for r := range t.InForce(&item.Value.Record) {
		fill(&set, r)
	}
	return set
}

func observe[R any](t *Table[R], fn func(string)) (stop func()) {
	_, stop = t.items.Observe(func(c watched.Change[*Set[R]]) {
		if c.New != nil {
			fn(c.New.Value.AppInstanceID)
		} else {
			fn(c.Old.Value.AppInstanceID)
		}
	})
	return stop
}
