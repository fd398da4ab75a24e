// Package rules stores the traffic and DNS rules of the app instances (MEC 011 7.2.7 to 7.2.10).
//
// All rules of one kind of an app instance form one record, so that they change together and a reader never sees half a
// configuration. A rule is as the MEPM declared it until its app changes it; it is in force while it is ACTIVE and the
// app runs. The generation of a record changes whenever the set of rules in force changes; reconcilers report generations.
package rules

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/openmep/mep/api/mm5"
	"github.com/openmep/mep/api/mp1"
	"github.com/openmep/mep/api/state"
	"github.com/openmep/mep/kit/errs"
	"github.com/openmep/mep/kit/etcd"
	"github.com/openmep/mep/kit/striped"
	"github.com/openmep/mep/kit/watched"
)

// Set holds the rules of one kind of an app instance. It is shared and must not be modified.
type Set[R any] struct {
	AppInstanceID string
	Record        state.Rules[R]
}

// Item is a Set with its revisions.
type Item[R any] = watched.Item[*Set[R]]

// Kind describes a kind of rules.
type Kind[R any] struct {
	// Kind and Noun name the kind in responses and messages.
	Kind mm5.RuleKind
	Noun string
	// Prefix is the etcd prefix of the records.
	Prefix string
	// ID and State return the id and the state of a rule.
	ID    func(*R) string
	State func(*R) mp1.RuleState
}

// Traffic describes traffic rules.
var Traffic = Kind[mp1.TrafficRule]{
	Kind: mm5.TrafficRules, Noun: "traffic rule", Prefix: state.PrefixTrafficRules,
	ID:    func(r *mp1.TrafficRule) string { return r.TrafficRuleID },
	State: func(r *mp1.TrafficRule) mp1.RuleState { return r.State },
}

// DNS describes DNS rules.
var DNS = Kind[mp1.DNSRule]{
	Kind: mm5.DNSRules, Noun: "DNS rule", Prefix: state.PrefixDNSRules,
	ID:    func(r *mp1.DNSRule) string { return r.DNSRuleID },
	State: func(r *mp1.DNSRule) mp1.RuleState { return r.State },
}

// Table holds the rules of one kind of all app instances.
type Table[R any] struct {
	kind   Kind[R]
	mirror *watched.Mirror
	store  *etcd.Store
	items  *watched.Collection[*Set[R]]
	mine   own[R]
	locks  striped.Locks // keeps transactions of this process from overtaking each other
}

// New adds the table's collection to the mirror.
func New[R any](m *watched.Mirror, store *etcd.Store, kind Kind[R]) *Table[R] {
	t := &Table[R]{kind: kind, mirror: m, store: store}
	t.items = watched.Add(m, strings.ToLower(string(kind.Kind))+"_rules", kind.Prefix, func(key string, value []byte, _ int64) (*Set[R], error) {
		rec, known := t.mine.take(key, value)
		if !known {
			var err error
			if rec, err = state.Decode[state.Rules[R]](value); err != nil {
				return nil, err
			}
		}
		return &Set[R]{AppInstanceID: strings.TrimPrefix(key, kind.Prefix), Record: rec}, nil
	})
	return t
}

// Kind returns the kind of the table's rules.
func (t *Table[R]) Kind() *Kind[R] { return &t.kind }

// Collection returns the watched copy.
func (t *Table[R]) Collection() *watched.Collection[*Set[R]] { return t.items }

// Of returns the rules of an app instance, nil if it has none.
func (t *Table[R]) Of(appInstanceID string) *Item[R] {
	item, _ := t.items.Snapshot().Get(t.kind.Prefix + appInstanceID)
	return item
}

// View is a rule as Mp1 shows it: a rule of an app that does not run reads INACTIVE.
type View[R any] struct {
	Rule R
	// ETag is the entity-tag of the resource, with quotes.
	ETag string
}

// Views returns the rules of an app instance as Mp1 shows them; setState changes the state of a copy.
func (t *Table[R]) Views(appInstanceID string, setState func(*R, mp1.RuleState)) []R {
	list := []R{}
	if item := t.Of(appInstanceID); item != nil {
		for i := range item.Value.Record.Rules {
			list = append(list, t.shown(&item.Value.Record, &item.Value.Record.Rules[i], setState))
		}
	}
	return list
}

func (t *Table[R]) shown(set *state.Rules[R], rule *state.Rule[R], setState func(*R, mp1.RuleState)) R {
	shown := *rule.Present()
	if !set.Running {
		setState(&shown, mp1.RuleInactive)
	}
	return shown
}

// View returns a rule as Mp1 shows it. The error is of the kind errs.NotFound.
func (t *Table[R]) View(appInstanceID, ruleID string, setState func(*R, mp1.RuleState)) (*View[R], error) {
	if item := t.Of(appInstanceID); item != nil {
		if i := t.index(&item.Value.Record, ruleID); i >= 0 {
			return t.view(&item.Value.Record, i, setState)
		}
	}
	return nil, t.notFound(appInstanceID, ruleID)
}

func (t *Table[R]) view(set *state.Rules[R], i int, setState func(*R, mp1.RuleState)) (*View[R], error) {
	v := &View[R]{Rule: t.shown(set, &set.Rules[i], setState)}
	b, err := json.Marshal(v.Rule)
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", t.kind.Noun, err)
	}
	sum := sha256.Sum256(b)
	v.ETag = `"` + hex.EncodeToString(sum[:12]) + `"`
	return v, nil
}

func (t *Table[R]) index(set *state.Rules[R], ruleID string) int {
	return slices.IndexFunc(set.Rules, func(r state.Rule[R]) bool { return t.kind.ID(&r.Declared) == ruleID })
}

func (t *Table[R]) notFound(appInstanceID, ruleID string) error {
	return errs.New(errs.NotFound, "application instance %s has no %s %q", appInstanceID, t.kind.Noun, ruleID)
}

// maxTries bounds how often a change is attempted when other changes keep coming first.
const maxTries = 32

// MaxRecord is the size of the largest record in bytes. An etcd transaction has room for two of them.
const MaxRecord = 512 << 10

// Change lets an app change one of its rules. edit gets the present rule and the rule as Mp1 shows it, and returns the
// replacement; it is called again when another change came first. Errors are those of edit, of the kind errs.NotFound,
// and those of etcd.Store.Txn.
func (t *Table[R]) Change(ctx context.Context, appInstanceID, ruleID string, setState func(*R, mp1.RuleState),
	edit func(present R, shown *View[R]) (R, error),
) (*View[R], error) {
	unlock, err := t.locks.Lock(ctx, appInstanceID)
	if err != nil {
		return nil, err
	}
	defer unlock()
	for range maxTries {
		item := t.Of(appInstanceID)
		if item == nil {
			return nil, t.notFound(appInstanceID, ruleID)
		}
		rec := item.Value.Record
		i := t.index(&rec, ruleID)
		if i < 0 {
			return nil, t.notFound(appInstanceID, ruleID)
		}
		shown, err := t.view(&rec, i, setState)
		if err != nil {
			return nil, err
		}
		next, err := edit(*rec.Rules[i].Present(), shown)
		if err != nil {
			return nil, err
		}
		if equal(&next, rec.Rules[i].Present()) {
			resp, err := t.store.Txn(ctx, []clientv3.Cmp{item.Unchanged()}, nil, nil)
			if err != nil {
				return nil, err
			}
			if resp.Succeeded {
				return shown, nil
			}
			if err := t.mirror.CatchUp(ctx, resp.Header.Revision); err != nil {
				return nil, err
			}
			continue
		}
		rec.Rules = slices.Clone(rec.Rules)
		rec.Rules[i].Changed = &next
		if equal(&next, &rec.Rules[i].Declared) {
			rec.Rules[i].Changed = nil
		}
		t.count(&item.Value.Record, &rec)
		op, err := t.put(appInstanceID, rec)
		if err != nil {
			return nil, err
		}
		resp, err := t.store.Txn(ctx, []clientv3.Cmp{item.Unchanged()}, []clientv3.Op{op}, nil)
		if err != nil {
			return nil, err
		}
		if err := t.mirror.CatchUp(ctx, resp.Header.Revision); err != nil && !resp.Succeeded {
			return nil, err
		}
		if resp.Succeeded {
			return t.view(&rec, i, setState)
		}
	}
	return nil, errs.New(errs.Unavailable, "others keep changing the rules of %s: try again", appInstanceID).After(time.Second)
}

// put returns the etcd operation that stores the rules of an app instance. The error is of the kind errs.Invalid if
// they are too large.
func (t *Table[R]) put(appInstanceID string, rec state.Rules[R]) (clientv3.Op, error) {
	rec.Version = state.Current()
	value, err := state.Encode(rec)
	if err != nil {
		return clientv3.Op{}, err
	}
	if len(value) > MaxRecord {
		return clientv3.Op{}, errs.New(errs.Invalid, "the %ss of an application instance may take %d bytes together, these take %d",
			t.kind.Noun, MaxRecord, len(value))
	}
	key := t.kind.Prefix + appInstanceID
	t.mine.keep(key, value, rec)
	return clientv3.OpPut(key, value), nil
}

// count gives the rules a new generation if those in force differ from was. Generations grow with the revision of the
// store, so that an app instance that returns under the same id gets higher ones than ever before.
func (t *Table[R]) count(was, now *state.Rules[R]) {
	if was == nil {
		was = &state.Rules[R]{}
	}
	now.Generation = was.Generation
	if !maps.EqualFunc(t.byID(was), t.byID(now), equal[R]) {
		now.Generation = max(was.Generation, t.mirror.Revision()) + 1
	}
}

func (t *Table[R]) byID(set *state.Rules[R]) map[string]*R {
	m := make(map[string]*R)
	for r := range t.InForce(set) {
		m[t.kind.ID(r)] = r
	}
	return m
}

// InForce iterates over the rules of a set that are to be in force.
func (t *Table[R]) InForce(set *state.Rules[R]) func(yield func(*R) bool) {
	return func(yield func(*R) bool) {
		if !set.Running {
			return
		}
		for i := range set.Rules {
			if r := set.Rules[i].Present(); t.kind.State(r) == mp1.RuleActive && !yield(r) {
				return
			}
		}
	}
}

// equal reports whether two rules are the same when encoded: an empty list equals an absent one.
func equal[R any](a, b *R) bool {
	if reflect.DeepEqual(a, b) {
		return true
	}
	x, errX := json.Marshal(a)
	y, errY := json.Marshal(b)
	return errX == nil && errY == nil && bytes.Equal(x, y)
}
