package events

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/openmep/mep/api/mm5"
	"github.com/openmep/mep/api/mp1"
	"github.com/openmep/mep/api/state"
	"github.com/openmep/mep/mepserver/registry"
)

// translators make events from the changes below a prefix. Changes below any other prefix, such as that of credentials, make
// none.
var translators = []struct {
	prefix string
	events func(change) ([]event, error)
}{
	{state.PrefixApps, appEvents},
	{state.PrefixServices, serviceEvents},
	{state.PrefixTrafficRules, ruleEvents(mm5.TrafficRules, trafficRule)},
	{state.PrefixDNSRules, ruleEvents(mm5.DNSRules, dnsRule)},
	{state.PrefixStatus, statusEvents},
	{state.PrefixOperations, operationEvents},
}

// change is one change of one key.
type change struct {
	// id is the key without its prefix.
	key, id string
	// now is nil for a removal, was for a creation.
	now, was *mvccpb.KeyValue
}

// translate makes the events of one change in etcd, always the same ones for the same change. The error is ResetCompacted if the
// value before the change is no longer known, otherwise that of a record this release cannot read.
func translate(ev *clientv3.Event) ([]event, error) {
	for _, t := range translators {
		id, ok := strings.CutPrefix(string(ev.Kv.Key), t.prefix)
		if !ok {
			continue
		}
		if ev.PrevKv == nil && !ev.IsCreate() {
			return nil, ResetCompacted
		}
		c := change{key: string(ev.Kv.Key), id: id, was: ev.PrevKv}
		if ev.Type == mvccpb.Event_PUT {
			c.now = ev.Kv
		}
		return t.events(c)
	}
	return nil, nil
}

// plainID returns the id, and an error if it is empty or contains a slash.
func (c *change) plainID() (string, error) {
	if c.id == "" || strings.Contains(c.id, "/") {
		return "", fmt.Errorf("key %q does not end in an id", c.key)
	}
	return c.id, nil
}

// records decodes the records after and before a change. A record is nil if there was none. The one before is also nil if it
// cannot be read but the one after can: nobody was told of it.
func records[R state.Record](c change) (now, was *R, err error) {
	if c.was != nil {
		if was, err = decode[R](c.was); err != nil && c.now == nil {
			return nil, nil, err
		}
	}
	if c.now != nil {
		if now, err = decode[R](c.now); err != nil {
			return nil, nil, err
		}
	}
	return now, was, nil
}

func decode[R state.Record](kv *mvccpb.KeyValue) (*R, error) {
	r, err := state.Decode[R](kv.Value)
	if err != nil {
		return nil, err
	}
	return &r, nil
}

func appEvents(c change) ([]event, error) {
	id, err := c.plainID()
	if err != nil {
		return nil, err
	}
	now, was, err := records[state.App](c)
	if err != nil {
		return nil, err
	}
	e := mm5.AppEvent{AppInstanceID: id, Change: mm5.Changed}
	if was != nil {
		e.AppName, e.PreviousLifecycle, e.Generation = was.Name, was.State(), was.Generation
	}
	if now == nil {
		e.Change = mm5.Removed
		return []event{{mm5.EventApp, id, e}}, nil
	}
	if c.was == nil {
		e.Change = mm5.Created
	}
	e.AppName, e.Lifecycle, e.Generation, e.Step = now.Name, now.State(), now.Generation, step(now)
	if was != nil && was.Name == now.Name && was.State() == now.State() && was.Generation == now.Generation && step(was) == e.Step {
		return nil, nil
	}
	return []event{{mm5.EventApp, id, e}}, nil
}

func step(a *state.App) string {
	if a.Ending == nil {
		return ""
	}
	return string(a.Ending.Step)
}

// serviceEvents classifies a change as notifications do (MEC 011 8.1.4.2).
func serviceEvents(c change) ([]event, error) {
	var now, was *registry.Service
	var err error
	if c.was != nil {
		if was, err = service(c.was); err != nil && c.now == nil {
			return nil, err
		}
	}
	if c.now != nil {
		if now, err = service(c.now); err != nil {
			return nil, err
		}
	}
	told, kind := now, mp1.ChangeAttributes
	switch {
	case now == nil:
		told, kind = was, mp1.ChangeRemoved
	case c.was == nil:
		kind = mp1.ChangeAdded
	case was != nil:
		switch attributes, stateChanged := now.Differs(was); {
		case attributes:
		case stateChanged:
			kind = mp1.ChangeState
		default: // only a heartbeat was recorded
			return nil, nil
		}
	}
	return []event{{mm5.EventService, told.AppInstanceID, mm5.ServiceEvent{
		AppInstanceID: told.AppInstanceID, SerInstanceID: told.ID, SerName: told.Name, State: told.State, ChangeType: kind,
	}}}, nil
}

func service(kv *mvccpb.KeyValue) (*registry.Service, error) {
	return registry.Decode(state.PrefixServices, string(kv.Key), kv.Value, kv.ModRevision)
}

func trafficRule(r *mp1.TrafficRule) (string, mp1.RuleState) { return r.TrafficRuleID, r.State }

func dnsRule(r *mp1.DNSRule) (string, mp1.RuleState) { return r.DNSRuleID, r.State }

// ruleEvents returns the translator for the rules of one kind. It makes one event for each rule that differs, in the order of the
// rules after the change, then one for each rule that is gone.
func ruleEvents[R any](kind mm5.RuleKind, members func(*R) (string, mp1.RuleState)) func(change) ([]event, error) {
	index := func(rules *state.Rules[R]) (map[string]*R, bool) {
		known := make(map[string]*R)
		if rules == nil {
			return known, false
		}
		for i := range rules.Rules {
			r := rules.Rules[i].Present()
			id, _ := members(r)
			known[id] = r
		}
		return known, rules.Running
	}
	return func(c change) ([]event, error) {
		app, err := c.plainID()
		if err != nil {
			return nil, err
		}
		now, was, err := records[state.Rules[R]](c)
		if err != nil {
			return nil, err
		}
		after, running := index(now)
		before, ran := index(was)
		var events []event
		tell := func(r *R, inForce bool, what mm5.Change) {
			id, s := members(r)
			events = append(events, event{mm5.EventRule, app, mm5.RuleEvent{
				AppInstanceID: app, Kind: kind, RuleID: id, State: s, InForce: inForce, Change: what,
			}})
		}
		if now != nil {
			for i := range now.Rules {
				r := now.Rules[i].Present()
				id, s := members(r)
				old, existed := before[id]
				switch inForce := running && s == mp1.RuleActive; {
				case after[id] != r: // one of several with this id
				case !existed:
					tell(r, inForce, mm5.Added)
				case !reflect.DeepEqual(r, old) || inForce != (ran && s == mp1.RuleActive):
					tell(r, inForce, mm5.Changed)
				}
			}
		}
		if was != nil {
			for i := range was.Rules {
				r := was.Rules[i].Present()
				id, _ := members(r)
				if after[id] == nil && before[id] == r {
					tell(r, false, mm5.Removed)
				}
			}
		}
		return events, nil
	}
}

// statusEvents makes events of reports that say something new. The removal of a report says nothing that the rules do not.
func statusEvents(c change) ([]event, error) {
	reconciler, app, err := state.SplitKey(state.PrefixStatus, c.key)
	if err != nil || c.now == nil {
		return nil, err
	}
	now, was, err := records[state.Status](c)
	if err != nil {
		return nil, err
	}
	if was == nil && now.Generation == 0 {
		return nil, nil // only announces a report
	}
	if was != nil && was.Generation == now.Generation && slices.Equal(was.Applied, now.Applied) && maps.Equal(was.Failed, now.Failed) {
		return nil, nil
	}
	e := mm5.RuleStatusEvent{
		AppInstanceID: app, Reconciler: reconciler, Generation: now.Generation,
		Applied: append([]string{}, now.Applied...), Failed: []mm5.FailedRule{},
	}
	for _, id := range slices.Sorted(maps.Keys(now.Failed)) {
		e.Failed = append(e.Failed, mm5.FailedRule{RuleID: id, Reason: now.Failed[id]})
	}
	return []event{{mm5.EventRuleStatus, app, e}}, nil
}

// operationEvents makes events of operations that begin and end. The removal of an operation's record makes none.
func operationEvents(c change) ([]event, error) {
	id, err := c.plainID()
	if err != nil || c.now == nil {
		return nil, err
	}
	now, was, err := records[state.Operation](c)
	if err != nil {
		return nil, err
	}
	if was != nil && was.State == now.State {
		return nil, nil
	}
	e := mm5.OperationEvent{
		OperationID: id, AppInstanceID: now.AppInstanceID, LcmOperation: now.Type, OperationState: now.State, Detail: now.Detail,
	}
	if e.OperationState == "" {
		e.OperationState = mm5.OperationProcessing
	}
	return []event{{mm5.EventOperation, now.AppInstanceID, e}}, nil
}
