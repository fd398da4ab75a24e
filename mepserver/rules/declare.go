package rules

import (
	"maps"
	"reflect"
	"slices"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/openmep/mep/api/mm5"
	"github.com/openmep/mep/api/state"
)

// Plan is a change to all rules of one kind of an app instance, meant as part of a larger transaction.
type Plan struct {
	// Cmps hold as long as the rules are those the plan was made for; Ops carry it out, and are empty if nothing changes.
	Cmps []clientv3.Cmp
	Ops  []clientv3.Op
	// Generation is the generation of the rules afterwards; 0 if none have ever been in force.
	Generation int64
	// Diff lists what changes.
	Diff mm5.RuleDiff
	// Active and Inactive are the ids of the rules that are, and are not, to be in force afterwards.
	Active, Inactive []string
	// Removes reports that the rules are deleted.
	Removes bool
}

// Declare plans to replace the rules of an app instance with the declared ones. A rule whose declaration stays the same
// keeps the changes made by its app.
func (t *Table[R]) Declare(appInstanceID string, declared []R, running bool) (*Plan, error) {
	item := t.Of(appInstanceID)
	next := state.Rules[R]{Running: running, Rules: make([]state.Rule[R], len(declared))}
	diff := mm5.RuleDiff{Added: []string{}, Changed: []string{}, Removed: []string{}, Unchanged: []string{}, Reset: []string{}}
	var was []state.Rule[R]
	if item != nil {
		was = item.Value.Record.Rules
	}
	before := make(map[string]*state.Rule[R], len(was))
	for i := range was {
		before[t.kind.ID(&was[i].Declared)] = &was[i]
	}
	for i := range declared {
		id := t.kind.ID(&declared[i])
		next.Rules[i].Declared = declared[i]
		switch old := before[id]; {
		case old == nil:
			diff.Added = append(diff.Added, id)
		case equal(&old.Declared, &declared[i]):
			next.Rules[i] = *old
			diff.Unchanged = append(diff.Unchanged, id)
		default:
			diff.Changed = append(diff.Changed, id)
			if old.Changed != nil {
				diff.Reset = append(diff.Reset, id)
			}
		}
		delete(before, id)
	}
	diff.Removed = append(diff.Removed, slices.Sorted(maps.Keys(before))...)
	p, err := t.plan(appInstanceID, item, next)
	if err != nil {
		return nil, err
	}
	p.Diff = diff
	return p, nil
}

// Run plans to put the ACTIVE rules of an app instance in force, or to take them out of force.
func (t *Table[R]) Run(appInstanceID string, running bool) (*Plan, error) {
	item := t.Of(appInstanceID)
	if item == nil {
		return t.plan(appInstanceID, nil, state.Rules[R]{})
	}
	next := item.Value.Record
	next.Running = running
	return t.plan(appInstanceID, item, next)
}

// plan compares the stored rules with next. If there is no record, an empty set is not stored.
func (t *Table[R]) plan(appInstanceID string, item *Item[R], next state.Rules[R]) (*Plan, error) {
	key := t.kind.Prefix + appInstanceID
	p := &Plan{}
	var was *state.Rules[R]
	if item == nil {
		p.Cmps = []clientv3.Cmp{clientv3.Compare(clientv3.CreateRevision(key), "=", 0)}
	} else {
		was = &item.Value.Record
		p.Cmps = []clientv3.Cmp{item.Unchanged()}
	}
	t.count(was, &next)
	p.Generation = next.Generation
	active := t.byID(&next)
	for i := range next.Rules {
		id := t.kind.ID(&next.Rules[i].Declared)
		if _, ok := active[id]; ok {
			p.Active = append(p.Active, id)
		} else {
			p.Inactive = append(p.Inactive, id)
		}
	}
	if was == nil && len(next.Rules) == 0 {
		return p, nil
	}
	if was != nil && was.Running == next.Running && reflect.DeepEqual(was.Rules, next.Rules) {
		return p, nil
	}
	op, err := t.put(appInstanceID, next)
	if err != nil {
		return nil, err
	}
	p.Ops = []clientv3.Op{op}
	return p, nil
}

// Remove plans to delete the rules of an app instance. The reconcilers withdraw those in force.
func (t *Table[R]) Remove(appInstanceID string) *Plan {
	key := t.kind.Prefix + appInstanceID
	item := t.Of(appInstanceID)
	if item == nil {
		return &Plan{Cmps: []clientv3.Cmp{clientv3.Compare(clientv3.CreateRevision(key), "=", 0)}, Removes: true}
	}
	return &Plan{
		Cmps: []clientv3.Cmp{item.Unchanged()}, Ops: []clientv3.Op{clientv3.OpDelete(key)}, Generation: item.Value.Record.Generation,
		Removes: true,
	}
}
