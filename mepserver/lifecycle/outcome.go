package lifecycle

import (
	"context"
	"time"

	"github.com/openmep/mep/api/mm5"
	"github.com/openmep/mep/api/state"
	"github.com/openmep/mep/mepserver/operation"
	"github.com/openmep/mep/mepserver/rules"
)

// Outcome returns how the rules of a kind of an app instance fare, whether rules of the generation or a later one have been
// reported on, and the reconciler that applies them; see operation.Reports.
func (m *Manager) Outcome(kind mm5.RuleKind, appInstanceID string, generation int64) (state.Outcome, bool, string) {
	if kind == mm5.TrafficRules {
		return outcome(m, m.Traffic, appInstanceID, generation)
	}
	return outcome(m, m.DNS, appInstanceID, generation)
}

func outcome[R any](m *Manager, t *rules.Table[R], appInstanceID string, generation int64) (o state.Outcome, reported bool, by string) {
	by = m.Appliers[t.Kind().Kind]
	var status state.Status
	has := false
	if by != "" {
		status, has = m.Statuses.Of(by, appInstanceID)
	}
	item := t.Of(appInstanceID)
	if item == nil {
		return o, by == "" || !has, by // the status is removed once the rules have been withdrawn
	}
	set := &item.Value.Record
	// Either nothing was ever in force, or the report is on exactly the current rules: a later generation than theirs is left
	// over from a former life of the app instance.
	reported = by == "" || told(has, &status, set.Generation) && set.Generation >= generation
	inForce := make(map[string]bool)
	for r := range t.InForce(set) {
		inForce[t.Kind().ID(r)] = true
	}
	for i := range set.Rules {
		id := t.Kind().ID(&set.Rules[i].Declared)
		reason, failed := status.Failed[id]
		switch {
		case !inForce[id]:
			o.Inactive = append(o.Inactive, id)
		case failed && reported:
			if o.Failed == nil {
				o.Failed = make(map[string]string)
			}
			o.Failed[id] = reason
		case reported:
			o.Applied = append(o.Applied, id)
		default:
			o.Pending = append(o.Pending, id)
		}
	}
	return o, reported, by
}

// Step returns the step of the stop or termination that an operation requested; see operation.Reports.
func (m *Manager) Step(appInstanceID, operationID string) state.EndingStep {
	if item, ok := m.Apps.Get(appInstanceID); ok {
		if e := item.Value.Record.Ending; e != nil && e.Operation == operationID {
			return e.Step
		}
	}
	return ""
}

// View returns an operation as Mm5 shows it, with hrefs that start with base.
func (m *Manager) View(item *operation.Item, base string) mm5.AppLcmOpOcc {
	p, _ := item.Value.Progress(m, m.now())
	return item.Value.View(p, base, m.Appliers)
}

// RuleResults returns how every rule of an app instance fares.
func (m *Manager) RuleResults(appInstanceID string) []mm5.RuleResult {
	outcomes := make(map[mm5.RuleKind]state.Outcome, 2)
	for _, kind := range []mm5.RuleKind{mm5.TrafficRules, mm5.DNSRules} {
		outcomes[kind], _, _ = m.Outcome(kind, appInstanceID, 0)
	}
	return operation.Results(outcomes, m.Appliers)
}

// begin adds the record of a new operation to a change; the operation has ended already if there is nothing to wait for. An
// operation that overtakes ends those still open; one that changes nothing overtakes nothing.
func (m *Manager) begin(ctx context.Context, c *change, id string, rec state.Operation, overtakes bool, plans map[mm5.RuleKind]*rules.Plan) error {
	now := m.now().UTC()
	rec.Started = now
	if plans != nil {
		rec.Deadline = now.Add(m.Policy().OperationTimeout)
		rec.Generations = make(map[mm5.RuleKind]int64, len(plans))
		outcomes := make(map[mm5.RuleKind]state.Outcome, len(plans))
		all := true
		for kind, plan := range plans {
			rec.Generations[kind] = plan.Generation
			outcomes[kind] = state.Outcome{Applied: plan.Active, Inactive: plan.Inactive}
			all = all && m.settled(kind, rec.AppInstanceID, plan)
		}
		if all {
			rec.State, rec.Ended, rec.Outcomes, rec.Generations, rec.Deadline = mm5.OperationCompleted, now, outcomes, nil, time.Time{}
		}
	}
	op, err := operation.Put(id, rec)
	if err != nil {
		return err
	}
	c.ops = append(c.ops, op)
	if !overtakes {
		return nil
	}
	// Open operations were stored together with the record of the app instance.
	if err := m.Mirror.CatchUp(ctx, c.of); err != nil {
		return err
	}
	for _, open := range m.Operations.OpenOf(rec.AppInstanceID) {
		cmps, ops, err := operation.End(open, now, mm5.OperationFailed, "overtaken by operation "+id, nil)
		if err != nil {
			return err
		}
		if c.fits(ops...) {
			c.add(cmps, ops)
		}
	}
	return nil
}

// settled reports whether there is nothing left to wait for once a plan is carried out.
func (m *Manager) settled(kind mm5.RuleKind, appInstanceID string, plan *rules.Plan) bool {
	by := m.Appliers[kind]
	if by == "" {
		return true
	}
	status, has := m.Statuses.Of(by, appInstanceID)
	if plan.Removes {
		return !has
	}
	return told(has, &status, plan.Generation) && len(status.Failed) == 0
}

// told reports whether a reconciler has nothing to do for a generation of rules: it has reported that generation, or there
// was never anything in force.
func told(has bool, status *state.Status, generation int64) bool {
	if generation == 0 {
		return !has
	}
	return has && status.Generation == generation
}
