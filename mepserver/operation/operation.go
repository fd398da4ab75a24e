// Package operation keeps the operations the MEPM asked for (MEC 010-2 6.2.2.14).
//
// How far an operation is that has not ended is computed whenever somebody asks, from what the reconcilers reported and the
// step an app instance is at; only its end is written down.
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

// Operation is an operation as this process holds it. It is shared and must not be changed.
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

// Collection is the watched copy.
func (l *Log) Collection() *watched.Collection[*Operation] { return l.items }

// Get finds an operation. The error is of the kind errs.NotFound.
func (l *Log) Get(id string) (*Item, error) {
	if item, ok := l.items.Snapshot().Get(state.OperationKey(id)); ok {
		return item, nil
	}
	return nil, errs.New(errs.NotFound, "there is no operation %q: it never was, or ended so long ago that it is no longer kept", id)
}

// Of lists the operations of an app instance, all of them when it is empty; the newest first.
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

// Open lists the operations that have not ended.
func (l *Log) Open() []*Item {
	return slices.Collect(l.items.Snapshot().Find(l.open, openKey))
}

// OpenOf lists the operations of an app instance that have not ended.
func (l *Log) OpenOf(appInstanceID string) []*Item {
	var list []*Item
	for item := range l.items.Snapshot().Find(l.byApp, appInstanceID) {
		if !item.Value.Record.State.Done() {
			list = append(list, item)
		}
	}
	return list
}

// NewID makes the id of an operation: a UUID.
func NewID() string { return uuid.NewString() }

// Put makes the operation that stores a new record.
func Put(id string, rec state.Operation) (clientv3.Op, error) {
	rec.Version = state.Current()
	value, err := state.Encode(rec)
	if err != nil {
		return clientv3.Op{}, err
	}
	return clientv3.OpPut(state.OperationKey(id), value), nil
}

// End makes what ends an operation that has not ended: nothing when item is nil or it has.
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

// Bounds on what is kept of an operation that has ended.
const (
	maxReason  = 128
	maxReasons = 200
)

// shorten bounds what is kept of outcomes: of long reasons the start, and of many of them only those of some rules.
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

// Progress is how far an operation is.
type Progress struct {
	State mm5.OperationState
	// Percentage is 0 to 100.
	Percentage int
	// Step says what is being done at present.
	Step     string
	Detail   string
	Outcomes map[mm5.RuleKind]state.Outcome
}

// Reports is where to learn what was reported of the rules of an app instance.
type Reports interface {
	// Outcome says how the rules of a kind fare, given the generation to be reported, and whether everybody reported it who
	// applies rules of the kind. by names who that is; empty when nobody does.
	Outcome(kind mm5.RuleKind, appInstanceID string, generation int64) (o state.Outcome, reported bool, by string)
	// Step is the step the stop or termination is at that the operation asked for, empty when there is none.
	Step(appInstanceID, operationID string) state.EndingStep
}

// steps say how far a stop or termination is.
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

// Progress computes how far an operation is. done reports whether it has ended, or is to be ended with what is returned.
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

// summary keeps a detail readable however many rules failed.
func summary(failed []string) string {
	const most = 5
	if len(failed) <= most {
		return strings.Join(failed, "; ")
	}
	return strings.Join(failed[:most], "; ") + fmt.Sprintf("; and %d more", len(failed)-most)
}

// View is the operation as Mm5 shows it, with hrefs that start with base.
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
		v.OperationState, v.Percentage = mm5.OperationProcessing, 99 // until the end is written down
	}
	v.Links.Self.Href = base + Path(o.ID)
	v.Links.AppInstance.Href = base + AppPath(rec.AppInstanceID)
	return v
}

// Root is where Mm5 is.
const Root = "/mm5/v1"

// Path is the path of an operation, AppPath that of an app instance.
func Path(id string) string { return Root + "/app_lcm_op_occs/" + id }

// AppPath is the path of an app instance.
func AppPath(appInstanceID string) string { return Root + "/app_instances/" + appInstanceID }

// Results lists outcomes rule by rule. reconcilers names who applies the rules of a kind.
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

// Fingerprint identifies a request, so that the same request is recognised.
func Fingerprint(kind mm5.OperationType, request any) string {
	b, err := json.Marshal(request)
	if err != nil {
		return ""
	}
	return uuid.NewSHA1(uuid.NameSpaceOID, append([]byte(kind+" "), b...)).String()
}
