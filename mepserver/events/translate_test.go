package events

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/openmep/mep/api/mm5"
	"github.com/openmep/mep/api/mp1"
	"github.com/openmep/mep/api/state"
)

// changeOf returns a change in etcd from one record to another; nil stands for no record.
func changeOf(t *testing.T, key string, was, now any) *clientv3.Event {
	t.Helper()
	value := func(v any) []byte {
		if s, ok := v.(string); ok {
			return []byte(s)
		}
		b, err := json.Marshal(v)
		require.NoError(t, err)
		return b
	}
	ev := &clientv3.Event{Type: mvccpb.Event_PUT, Kv: &mvccpb.KeyValue{Key: []byte(key), CreateRevision: 7, ModRevision: 7}}
	if was != nil {
		ev.Kv.CreateRevision = 3
		ev.PrevKv = &mvccpb.KeyValue{Key: []byte(key), Value: value(was), CreateRevision: 3, ModRevision: 3}
	}
	if now == nil {
		ev.Type, ev.Kv.CreateRevision = mvccpb.Event_DELETE, 0
	} else {
		ev.Kv.Value = value(now)
	}
	return ev
}

// told returns the events of a change as JSON.
func told(t *testing.T, key string, was, now any) []string {
	t.Helper()
	events, err := translate(changeOf(t, key, was, now))
	require.NoError(t, err)
	list := []string{}
	for _, e := range events {
		b, err := json.Marshal(e.data)
		require.NoError(t, err)
		list = append(list, string(e.name)+" "+string(b))
	}
	return list
}

func TestAppEvents(t *testing.T) {
	record := func(change func(*state.App)) state.App {
		a := state.App{Version: state.Current(), Name: "n", Origin: state.OriginMm5, Lifecycle: mm5.LifecycleStarted, Generation: 2}
		if change != nil {
			change(&a)
		}
		return a
	}
	known := state.App{Version: state.Current()}
	ending := func(step state.EndingStep) func(*state.App) {
		return func(a *state.App) {
			a.Lifecycle, a.Ending = mm5.LifecycleStopping, &state.Ending{Step: step, Operation: "o"}
		}
	}
	for name, c := range map[string]struct {
		was, now any
		want     string
	}{
		"created": {nil, record(nil), `{"appInstanceId":"a","appName":"n","lifecycle":"STARTED","generation":2,"change":"CREATED"}`},
		"created without a configuration": {
			nil, known, `{"appInstanceId":"a","lifecycle":"NOT_CONFIGURED","generation":0,"change":"CREATED"}`,
		},
		"configured": {
			known, record(func(a *state.App) { a.Lifecycle = mm5.LifecycleConfigured }),
			`{"appInstanceId":"a","appName":"n","lifecycle":"CONFIGURED","previousLifecycle":"NOT_CONFIGURED","generation":2,"change":"CHANGED"}`,
		},
		"configured again": {
			record(nil), record(func(a *state.App) { a.Generation = 3 }),
			`{"appInstanceId":"a","appName":"n","lifecycle":"STARTED","previousLifecycle":"STARTED","generation":3,"change":"CHANGED"}`,
		},
		"renamed": {
			record(nil), record(func(a *state.App) { a.Name = "" }),
			`{"appInstanceId":"a","lifecycle":"STARTED","previousLifecycle":"STARTED","generation":2,"change":"CHANGED"}`,
		},
		"stopping": {
			record(nil), record(ending(state.StepNotice)),
			`{"appInstanceId":"a","appName":"n","lifecycle":"STOPPING","previousLifecycle":"STARTED","generation":2,"change":"CHANGED","step":"NOTICE"}`,
		},
		"a step further": {
			record(ending(state.StepNotice)), record(ending(state.StepRules)),
			`{"appInstanceId":"a","appName":"n","lifecycle":"STOPPING","previousLifecycle":"STOPPING","generation":2,"change":"CHANGED","step":"RULES"}`,
		},
		"removed": {
			record(ending(state.StepEnd)), nil,
			`{"appInstanceId":"a","appName":"n","previousLifecycle":"STOPPING","generation":2,"change":"REMOVED"}`,
		},
		"readable again":     {`{`, record(nil), `{"appInstanceId":"a","appName":"n","lifecycle":"STARTED","generation":2,"change":"CHANGED"}`},
		"only said ready":    {record(nil), record(func(a *state.App) { a.Ready = time.Unix(1, 0) }), ""},
		"other requirements": {record(nil), record(func(a *state.App) { a.Requires = []string{"s"} }), ""},
		"termination confirmed": {
			record(ending(state.StepNotice)), record(func(a *state.App) { ending(state.StepNotice)(a); a.Ending.Confirmed = time.Unix(1, 0) }), "",
		},
	} {
		t.Run(name, func(t *testing.T) {
			got := told(t, state.AppKey("a"), c.was, c.now)
			if c.want == "" {
				require.Empty(t, got)
				return
			}
			require.Equal(t, []string{"app " + c.want}, got)
		})
	}
}

func TestServiceEvents(t *testing.T) {
	record := func(change func(*state.Service)) state.Service {
		s := state.Service{
			Version: state.Current(), Info: mp1.ServiceInfo{SerInstanceID: "s", SerName: "n", Version: "1", State: mp1.StateActive},
			Beat: time.Unix(1, 0),
		}
		if change != nil {
			change(&s)
		}
		return s
	}
	suspended := func(s *state.Service) { s.Info.State, s.Suspended = mp1.StateSuspended, time.Unix(2, 0) }
	for name, c := range map[string]struct {
		was, now any
		want     string
	}{
		"registered":         {nil, record(nil), `"state":"ACTIVE","changeType":"ADDED"`},
		"suspended":          {record(nil), record(suspended), `"state":"SUSPENDED","changeType":"STATE_CHANGED"`},
		"another version":    {record(nil), record(func(s *state.Service) { s.Info.Version = "2" }), `"state":"ACTIVE","changeType":"ATTRIBUTES_CHANGED"`},
		"both":               {record(nil), record(func(s *state.Service) { s.Info.Version = "2"; suspended(s) }), `"state":"SUSPENDED","changeType":"ATTRIBUTES_CHANGED"`},
		"removed":            {record(suspended), nil, `"state":"SUSPENDED","changeType":"REMOVED"`},
		"readable again":     {`{`, record(nil), `"state":"ACTIVE","changeType":"ATTRIBUTES_CHANGED"`},
		"a heartbeat":        {record(nil), record(func(s *state.Service) { s.Beat = time.Unix(9, 0) }), ""},
		"written once again": {record(nil), record(nil), ""},
	} {
		t.Run(name, func(t *testing.T) {
			got := told(t, state.ServiceKey("a", "s"), c.was, c.now)
			if c.want == "" {
				require.Empty(t, got)
				return
			}
			require.Equal(t, []string{`service {"appInstanceId":"a","serInstanceId":"s","serName":"n",` + c.want + `}`}, got)
		})
	}
}

func TestRuleEvents(t *testing.T) {
	type rule = state.Rule[mp1.TrafficRule]
	one := func(id string, s mp1.RuleState) rule {
		return rule{Declared: mp1.TrafficRule{TrafficRuleID: id, State: s}}
	}
	a, b, idle := one("a", mp1.RuleActive), one("b", mp1.RuleActive), one("idle", mp1.RuleInactive)
	changed := func(r rule, change func(*mp1.TrafficRule)) rule {
		c := r.Declared
		change(&c)
		r.Changed = &c
		return r
	}
	set := func(running bool, rules ...rule) state.TrafficRules {
		return state.TrafficRules{Version: state.Current(), Generation: 1, Running: running, Rules: rules}
	}
	priority := 5
	ev := func(id, members string) string {
		return `rule {"appInstanceId":"app","kind":"TRAFFIC","ruleId":"` + id + `",` + members + `}`
	}
	for name, c := range map[string]struct {
		was, now any
		want     []string
	}{
		"configured": {nil, set(false, a, idle), []string{
			ev("a", `"state":"ACTIVE","inForce":false,"change":"ADDED"`), ev("idle", `"state":"INACTIVE","inForce":false,"change":"ADDED"`),
		}},
		"configured while it runs": {nil, set(true, a), []string{ev("a", `"state":"ACTIVE","inForce":true,"change":"ADDED"`)}},
		"the app runs": {set(false, a, idle, b), set(true, a, idle, b), []string{
			ev("a", `"state":"ACTIVE","inForce":true,"change":"CHANGED"`), ev("b", `"state":"ACTIVE","inForce":true,"change":"CHANGED"`),
		}},
		"the app stops": {set(true, a, idle), set(false, a, idle), []string{ev("a", `"state":"ACTIVE","inForce":false,"change":"CHANGED"`)}},
		"the app deactivates one": {
			set(true, a, b), set(true, a, changed(b, func(r *mp1.TrafficRule) { r.State = mp1.RuleInactive })),
			[]string{ev("b", `"state":"INACTIVE","inForce":false,"change":"CHANGED"`)},
		},
		"the app changes another member": {
			set(true, a, b), set(true, changed(a, func(r *mp1.TrafficRule) { r.Priority = &priority }), b),
			[]string{ev("a", `"state":"ACTIVE","inForce":true,"change":"CHANGED"`)},
		},
		"the app changes nothing": {set(true, a), set(true, changed(a, func(*mp1.TrafficRule) {})), []string{}},
		"replaced":                {set(true, a, idle), set(true, b), []string{ev("b", `"state":"ACTIVE","inForce":true,"change":"ADDED"`), ev("a", `"state":"ACTIVE","inForce":false,"change":"REMOVED"`), ev("idle", `"state":"INACTIVE","inForce":false,"change":"REMOVED"`)}},
		"in another order":        {set(true, a, b), set(true, b, a), []string{}},
		"another generation":      {set(true, a), state.TrafficRules{Version: state.Current(), Generation: 9, Running: true, Rules: []rule{a}}, []string{}},
		"removed":                 {set(true, a), nil, []string{ev("a", `"state":"ACTIVE","inForce":false,"change":"REMOVED"`)}},
		"none before and after":   {set(false), set(true), []string{}},
		"twice the same id":       {set(false, a, a), set(true, a, a), []string{ev("a", `"state":"ACTIVE","inForce":true,"change":"CHANGED"`)}},
		"twice the same id, gone": {set(false, a, a), nil, []string{ev("a", `"state":"ACTIVE","inForce":false,"change":"REMOVED"`)}},
	} {
		t.Run(name, func(t *testing.T) {
			require.Equal(t, c.want, told(t, state.TrafficRulesKey("app"), c.was, c.now))
		})
	}
	var dns state.DNSRules
	dns.Version = state.Current()
	dns.Rules = []state.Rule[mp1.DNSRule]{{Declared: mp1.DNSRule{DNSRuleID: "d", State: mp1.RuleActive}}}
	require.Equal(t, []string{
		`rule {"appInstanceId":"app","kind":"DNS","ruleId":"d","state":"ACTIVE","inForce":false,"change":"ADDED"}`,
	}, told(t, state.DNSRulesKey("app"), nil, dns))
}

func TestRuleStatusEvents(t *testing.T) {
	key := state.StatusKey("upf", "app")
	was := state.Status{Version: state.Current(), Generation: 1, Applied: []string{"a"}, Failed: map[string]string{"c": "no", "b": "never"}, Reported: time.Unix(1, 0)}
	report := func(change func(*state.Status)) state.Status {
		s := was
		change(&s)
		return s
	}
	full := `ruleStatus {"appInstanceId":"app","reconciler":"upf","generation":1,"applied":["a"],"failed":[{"ruleId":"b","reason":"never"},{"ruleId":"c","reason":"no"}]}`
	require.Equal(t, []string{full}, told(t, key, nil, was))
	require.Equal(t, []string{full}, told(t, key, `{`, was))
	require.Equal(t, []string{`ruleStatus {"appInstanceId":"app","reconciler":"upf","generation":2,"applied":[],"failed":[]}`},
		told(t, key, was, state.Status{Version: state.Current(), Generation: 2}))
	for name, change := range map[string]func(*state.Status){
		"generation": func(s *state.Status) { s.Generation = 2 },
		"applied":    func(s *state.Status) { s.Applied = nil },
		"failed":     func(s *state.Status) { s.Failed = map[string]string{"c": "no", "b": "not yet"} },
	} {
		require.Len(t, told(t, key, was, report(change)), 1, name)
	}
	require.Empty(t, told(t, key, was, report(func(s *state.Status) { s.Reported = time.Unix(9, 0) })), "the same said again")
	require.Empty(t, told(t, key, was, nil))
}

func TestOperationEvents(t *testing.T) {
	key := state.OperationKey("o")
	begun := state.Operation{Version: state.Current(), AppInstanceID: "app", Type: mm5.OperationConfigure}
	ended := begun
	ended.State, ended.Detail = mm5.OperationFailed, "superseded"
	renewed := begun
	renewed.Deadline = time.Unix(9, 0)
	require.Equal(t, []string{`operation {"operationId":"o","appInstanceId":"app","lcmOperation":"CONFIGURE","operationState":"PROCESSING"}`}, told(t, key, nil, begun))
	require.Equal(t, []string{`operation {"operationId":"o","appInstanceId":"app","lcmOperation":"CONFIGURE","operationState":"FAILED","detail":"superseded"}`}, told(t, key, begun, ended))
	require.Len(t, told(t, key, nil, ended), 1, "begun and ended at once")
	require.Empty(t, told(t, key, begun, renewed))
	require.Empty(t, told(t, key, ended, nil), "it is no longer kept")
}

func TestWhatIsNobodysBusinessMakesNoEvents(t *testing.T) {
	for _, key := range []string{
		state.CredentialKey("AK"), state.SigningKeyKey("kid"), state.RevokedKey("t"), state.IssuerKey("i"), state.ConfigurationKey("a"),
		state.RegistrationKey("a"), state.CursorKey("c"), state.RemovedServiceKey("a", "s"), state.PrefixHeartbeats + "x",
		state.PrefixElections + "x", state.PrefixTermSubs + "a/s", state.Root + "appsx/a", state.Root,
	} {
		require.Empty(t, told(t, key, nil, `{"v":1,"secret":"x"}`), key)
		require.Empty(t, told(t, key, `{"v":1}`, nil), key)
	}
}

func TestChangeWhoseBeginningIsGoneIsNoChange(t *testing.T) {
	for _, key := range []string{state.AppKey("a"), state.ServiceKey("a", "s"), state.TrafficRulesKey("a"), state.OperationKey("o")} {
		for _, now := range []any{nil, state.App{Version: state.Current()}} {
			ev := changeOf(t, key, state.App{Version: state.Current()}, now)
			ev.PrevKv = nil
			_, err := translate(ev)
			require.ErrorIs(t, err, ResetCompacted, key)
		}
	}
}

func TestTenThousandRulesAreEventsOfOneRevision(t *testing.T) {
	var was, now state.DNSRules
	was.Version, now.Version = state.Current(), state.Current()
	for i := range 10_000 {
		was.Rules = append(was.Rules, state.Rule[mp1.DNSRule]{Declared: mp1.DNSRule{DNSRuleID: fmt.Sprint(i), State: mp1.RuleActive}})
	}
	now.Rules, now.Running = was.Rules, true
	events, err := translate(changeOf(t, state.DNSRulesKey("a"), was, now))
	require.NoError(t, err)
	require.Len(t, events, 10_000)
	for i, e := range events {
		require.Equal(t, fmt.Sprint(i), e.data.(mm5.RuleEvent).RuleID)
	}
}
