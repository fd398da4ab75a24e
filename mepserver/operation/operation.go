// Package operation stores the operations requested by the MEPM (MEC 010-2 6.2.2.14).
//
// The progress of an operation is not stored: until the operation ends, it is computed on request from the reports of
// the reconcilers and the step the app instance is at. Only the result is stored.
package operation

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/openmep/mep/api/mm5"
	"github.com/openmep/mep/api/state"
	"github.com/openmep/mep/kit/errs"
	"github.com/openmep/mep/kit/watched"
)

// Operation is the in-memory form of an operation. It is shared and must not be modified.
type Operation struct {
	ID     string
	Record state.Operation
}

// Item is an operation with its revisions.
type Item = watched.Item[*Operation]

// Log holds the operations.
type Log struct {
	items *watched.Collection[*Operation]
	byApp watched.Index[*Operation]
	open  watched.Index[*Operation]
}

const openKey = "open"

// NewLog adds the log's collection to the mirror.
func NewLog(m *watched.Mirror) *Log {
	l := &Log{items: watched.Add(m, "operations", state.PrefixOperations, func(key string, value []byte, _ int64) (*Operation, error) {
		rec, err := state.Decode[state.Operation](value)
		if err != nil {
			return nil, err
		}
		return &Operation{ID: strings.TrimPrefix(key, state.PrefixOperations), Record: rec}, nil
	})}
	l.byApp = watched.NewIndex(l.items, func(it *Item) []string { return []string{it.Value.Record.AppInstanceID} })
	l.open = watched.NewIndex(l.items, func(it *Item) []string {
		if it.Value.Record.State.Done() {
			return nil
		}
		return []string{openKey}
	})
	return l
}

// Collection returns the watched copy.
func (l *Log) Collection() *watched.Collection[*Operation] { return l.items }

// Get returns an operation. The error is of the kind errs.NotFound.
func (l *Log) Get(id string) (*Item, error) {
	if item, ok := l.items.Snapshot().Get(state.OperationKey(id)); ok {
		return item, nil
	}
	return nil, errs.New(errs.NotFound, "there is no operation %q: it never was, or ended so long ago that it is no longer kept", id)
}

// Of returns the operations of an app instance, or all operations if appInstanceID is empty, newest first.
func (l *Log) Of(appInstanceID string) []*Item {
	snap := l.items.Snapshot()
	list := slices.Collect(snap.All())
	if appInstanceID != "" {
		list = slices.Collect(snap.Find(l.byApp, appInstanceID))
	}
	slices.SortFunc(list, func(a, b *Item) int {
		return cmp.Or(b.Value.Record.Started.Compare(a.Value.Record.Started), strings.Compare(a.Value.ID, b.Value.ID))
	})
	return list
}

// Open returns the operations that have not ended.
func (l *Log) Open() []*Item {
	return slices.Collect(l.items.Snapshot().Find(l.open, openKey))
}

// OpenOf returns the operations of an app instance that have not ended.
func (l *Log) OpenOf(appInstanceID string) []*Item {
	var list []*Item
	for item := range l.items.Snapshot().Find(l.byApp, appInstanceID) {
		if !item.Value.Record.State.Done() {
			list = append(list, item)
		}
	}
	return list
}

// NewID returns a new operation id, a UUID.
func NewID() string { return uuid.NewString() }

// Put returns the etcd operation that stores a record.
func Put(id string, rec state.Operation) (clientv3.Op, error) {
	rec.Version = state.Current()
	value, err := state.Encode(rec)
	if err != nil {
		return clientv3.Op{}, err
	}
	return clientv3.OpPut(state.OperationKey(id), value), nil
}

// End returns the comparisons and etcd operations that end an operation. There are none if item is nil or has already ended.
func End(item *Item, now time.Time, result mm5.OperationState, detail string, outcomes map[mm5.RuleKind]state.Outcome) ([]clientv3.Cmp, []clientv3.Op, error) {
	if item == nil || item.Value.Record.State.Done() {
		return nil, nil, nil
	}
	rec := item.Value.Record
	rec.State, rec.Ended, rec.Detail, rec.Outcomes = result, now.UTC(), detail, shorten(outcomes)
	op, err := Put(item.Value.ID, rec)
	if err != nil {
		return nil, nil, err
	}
	return []clientv3.Cmp{item.Unchanged()}, []clientv3.Op{op}, nil
}

// Bounds on the failure reasons of an ended operation: the bytes kept of each, and how many are kept per kind of rules.
const (
	maxReason  = 128
	maxReasons = 200
)

// shorten truncates long failure reasons and drops those beyond the first maxReasons rules of a kind.
func shorten(outcomes map[mm5.RuleKind]state.Outcome) map[mm5.RuleKind]state.Outcome {
	kept := maps.Clone(outcomes)
	for kind, o := range kept {
		if len(o.Failed) == 0 {
			continue
		}
		failed := make(map[string]string, len(o.Failed))
		for i, id := range slices.Sorted(maps.Keys(o.Failed)) {
			reason := o.Failed[id]
			switch {
			case i >= maxReasons:
				reason = ""
			case len(reason) > maxReason:
				reason = strings.ToValidUTF8(reason[:maxReason], "") + "…"
			}
			failed[id] = reason
		}
		o.Failed = failed
		kept[kind] = o
	}
	return kept
}

// Progress is the progress of an operation.
type Progress struct {
	State mm5.OperationState
	// Percentage is 0 to 100.
	Percentage int
	// Step describes the current step.
	Step     string
	Detail   string
	Outcomes map[mm5.RuleKind]state.Outcome
}

// Reports provides what was reported of app instances.
type Reports interface {
	// Outcome returns the outcome of the rules of a kind, and whether the reconciler of that kind, if there is one, has
	// reported the generation. by names the reconciler; it is empty if there is none.
	Outcome(kind mm5.RuleKind, appInstanceID string, generation int64) (o state.Outcome, reported bool, by string)
	// Step returns the current step of the stop or termination that the operation requested, empty if there is none.
	Step(appInstanceID, operationID string) state.EndingStep
}

// steps maps the steps of a stop or termination to the progress shown.
var steps = map[state.EndingStep]struct {
	percentage int
	text       string
}{
	state.StepNotice:        {10, "waiting for the app to confirm, or for the time-out"},
	state.StepRules:         {40, "taking the rules back"},
	state.StepServices:      {60, "removing the services"},
	state.StepSubscriptions: {75, "removing the subscriptions"},
	state.StepCredentials:   {85, "removing the credentials"},
	state.StepEnd:           {95, "removing what is left"},
}

// Progress computes the progress of an operation. done reports whether the operation has ended, or is to be ended with
// the returned progress.
func (o *Operation) Progress(r Reports, now time.Time) (p Progress, done bool) {
	rec := &o.Record
	if rec.State.Done() {
		return Progress{State: rec.State, Percentage: 100, Detail: rec.Detail, Outcomes: rec.Outcomes}, true
	}
	if step := r.Step(rec.AppInstanceID, o.ID); step != "" {
		s := steps[step]
		return Progress{State: mm5.OperationProcessing, Percentage: s.percentage, Step: s.text}, false
	}
	p = Progress{State: mm5.OperationProcessing, Outcomes: make(map[mm5.RuleKind]state.Outcome, len(rec.Generations))}
	total, settled, all := 0, 0, true
	var failed, waiting []string
	for _, kind := range slices.Sorted(maps.Keys(rec.Generations)) {
		outcome, reported, by := r.Outcome(kind, rec.AppInstanceID, rec.Generations[kind])
		p.Outcomes[kind] = outcome
		total += len(outcome.Applied) + len(outcome.Inactive) + len(outcome.Failed) + len(outcome.Pending)
		settled += len(outcome.Applied) + len(outcome.Inactive) + len(outcome.Failed)
		if !reported {
			all = false
			waiting = append(waiting, by)
		}
		for _, id := range slices.Sorted(maps.Keys(outcome.Failed)) {
			failed = append(failed, fmt.Sprintf("%s rule %q: %s", strings.ToLower(string(kind)), id, outcome.Failed[id]))
		}
	}
	switch {
	case all && len(failed) == 0:
		p.State, p.Percentage = mm5.OperationCompleted, 100
		return p, true
	case all:
		p.State, p.Percentage, p.Detail = mm5.OperationFailed, 100, summary(failed)
		return p, true
	case !rec.Deadline.IsZero() && now.After(rec.Deadline):
		p.State, p.Percentage = mm5.OperationFailed, 100
		p.Detail = "no report in time from " + strings.Join(waiting, " and ") + "; it is still tried"
		return p, true
	}
	p.Percentage, p.Step = 10, "waiting for "+strings.Join(waiting, " and ")
	if total > 0 {
		p.Percentage = min(99, max(10, settled*100/total))
	}
	return p, false
}

// summary joins the first few failures and counts the rest.
func summary(failed []string) string {
	const most = 5
	if len(failed) <= most {
		return strings.Join(failed, "; ")
	}
	return strings.Join(failed[:most], "; ") + fmt.Sprintf("; and %d more", len(failed)-most)
}

// View returns the operation as Mm5 shows it, with hrefs that start with base.
func (o *Operation) View(p Progress, base string, reconcilers map[mm5.RuleKind]string) mm5.AppLcmOpOcc {
	rec := &o.Record
	v := mm5.AppLcmOpOcc{
		ID: o.ID, AppInstanceID: rec.AppInstanceID, LcmOperation: rec.Type,
		OperationState: p.State, Percentage: p.Percentage, Step: p.Step, Detail: p.Detail,
		RuleResults: Results(p.Outcomes, reconcilers), StartTime: rec.Started, StateEnteredTime: rec.Started,
	}
	if !rec.Ended.IsZero() {
		v.EndTime, v.StateEnteredTime = &rec.Ended, rec.Ended
	} else if p.State.Done() {
		v.OperationState, v.Percentage = mm5.OperationProcessing, 99 // until the end is stored
	}
	v.Links.Self.Href = base + Path(o.ID)
	v.Links.AppInstance.Href = base + AppPath(rec.AppInstanceID)
	return v
}

// Root is the root path of Mm5.
const Root = "/mm5/v1"

// Path returns the path of an operation.
func Path(id string) string { return Root + "/app_lcm_op_occs/" + id }

// AppPath returns the path of an app instance.
func AppPath(appInstanceID string) string { return Root + "/app_instances/" + appInstanceID }

// Results lists outcomes rule by rule. reconcilers names the reconciler of each kind of rules.
func Results(outcomes map[mm5.RuleKind]state.Outcome, reconcilers map[mm5.RuleKind]string) []mm5.RuleResult {
	list := []mm5.RuleResult{}
	for _, kind := range slices.Sorted(maps.Keys(outcomes)) {
		o, by := outcomes[kind], reconcilers[kind]
		for _, group := range []struct {
			ids    []string
			result mm5.RuleProgress
		}{
			{slices.Sorted(maps.Keys(o.Failed)), mm5.RuleFailed}, {o.Pending, mm5.RulePending},
			{o.Applied, mm5.RuleApplied}, {o.Inactive, mm5.RuleNotApplied},
		} {
			for _, id := range group.ids {
				list = append(list, mm5.RuleResult{Kind: kind, RuleID: id, Result: group.result, Reason: o.Failed[id], Reconciler: by})
			}
		}
	}
	return list
}

// Fingerprint identifies a request, so that its repetition is recognised.
func Fingerprint(kind mm5.OperationType, request any) string {
	b, err := json.Marshal(request)
	if err != nil {
		return ""
	}
	return uuid.NewSHA1(uuid.NameSpaceOID, append([]byte(kind+" "), b...)).String()
}
