package lifecycle_test

import (
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/openmep/mep/api/mm5"
	"github.com/openmep/mep/api/mp1"
	"github.com/openmep/mep/api/state"
	"github.com/openmep/mep/kit/errs"
	"github.com/openmep/mep/kit/etcdtest"
	"github.com/openmep/mep/mepserver/lifecycle"
	"github.com/openmep/mep/mepserver/rules"
)

func setState(r *mp1.TrafficRule, s mp1.RuleState) { r.State = s }

func TestAConfigurationIsOneEffectHoweverOftenItIsAskedFor(t *testing.T) {
	p := start(t, etcdtest.Start(t), options{})
	first := p.configure(t, app, config("a", 3))
	require.Equal(t, mm5.OperationCompleted, p.op(t, first).OperationState)
	require.Equal(t, mm5.LifecycleConfigured, p.state(app))
	revision := p.Mirror.Revision()
	require.Equal(t, first, p.configure(t, app, config("a", 3)))
	require.Equal(t, revision, p.Mirror.Revision(), "the same request again writes nothing")

	second := p.configure(t, app, config("b", 2))
	require.NotEqual(t, first, second)
	item, _ := p.Apps.Get(app)
	require.EqualValues(t, 2, item.Value.Record.Generation)
	_, declared, ok := p.Declared(app)
	require.True(t, ok)
	require.Equal(t, config("b", 2), declared)
}

func TestADryRunSaysWhatWouldChangeAndChangesNothing(t *testing.T) {
	p := start(t, etcdtest.Start(t), options{})
	ask := func(r mm5.ConfigPlatformForAppRequest) *mm5.ConfigurationDiff {
		d, err := p.Diff(lifecycle.Configure{AppInstanceID: app, Request: r})
		require.NoError(t, err)
		return d
	}
	d := ask(config("a", 2))
	require.True(t, d.Creates && d.Changed)
	require.Equal(t, []string{"t0", "t1"}, d.TrafficRules.Added)
	require.Empty(t, keys(t, p.Store.Client, app))

	p.configure(t, app, config("a", 3))
	require.NoError(t, p.Ready(t.Context(), app))
	_, err := p.Traffic.Change(t.Context(), app, "t1", setState, func(r mp1.TrafficRule, _ *rules.View[mp1.TrafficRule]) (mp1.TrafficRule, error) {
		r.State = mp1.RuleInactive
		return r, nil
	})
	require.NoError(t, err)
	require.False(t, ask(config("a", 3)).Changed, "what the app changed is not a change of the declaration")

	next := config("a", 2)
	next.AppTrafficRule[1].Action = mp1.ActionPassthrough
	next.AppTrafficRule = append(next.AppTrafficRule, trafficRule("new"))
	next.AppName = "other"
	d = ask(next)
	require.Equal(t, mm5.RuleDiff{
		Added: []string{"new"}, Changed: []string{"t1"}, Removed: []string{"t2"}, Unchanged: []string{"t0"}, Reset: []string{"t1"},
	}, d.TrafficRules)
	require.Equal(t, []string{"appName"}, d.Members)
}

func TestARuleKeepsItsAppsChangeUntilItsDeclarationChanges(t *testing.T) {
	p := start(t, etcdtest.Start(t), options{})
	p.configure(t, app, config("a", 2))
	require.NoError(t, p.Ready(t.Context(), app))
	deactivate := func(r mp1.TrafficRule, _ *rules.View[mp1.TrafficRule]) (mp1.TrafficRule, error) {
		r.State = mp1.RuleInactive
		return r, nil
	}
	for _, id := range []string{"t0", "t1"} {
		_, err := p.Traffic.Change(t.Context(), app, id, setState, deactivate)
		require.NoError(t, err)
	}
	next := config("a", 2)
	next.AppTrafficRule[1].Action = mp1.ActionPassthrough
	p.configure(t, app, next)
	got := p.Traffic.Views(app, setState)
	require.Equal(t, mp1.RuleInactive, got[0].State)
	require.Equal(t, mp1.RuleActive, got[1].State)
	require.Equal(t, mp1.ActionPassthrough, got[1].Action)
}

// TestRacingManagersLeaveOneWholeConfiguration has several processes configure an app concurrently, while the app changes a
// rule.
func TestRacingManagersLeaveOneWholeConfiguration(t *testing.T) {
	server := etcdtest.Start(t)
	managers := []*process{start(t, server, options{}), start(t, server, options{idle: true})}
	managers[0].configure(t, app, config("start", 8))
	require.NoError(t, managers[0].Ready(t.Context(), app))
	require.NoError(t, managers[1].Mirror.WaitRevision(t.Context(), managers[0].Mirror.Revision()))
	var all sync.WaitGroup
	for i, p := range managers {
		for worker := range 3 {
			all.Go(func() {
				for n := range 10 {
					r := config(fmt.Sprintf("m%d-%d-%d", i, worker, n), 8)
					_, err := p.Configure(t.Context(), lifecycle.Configure{AppInstanceID: app, Request: r})
					if err != nil {
						require.ErrorIs(t, err, errs.Unavailable)
					}
				}
			})
		}
		all.Go(func() {
			for n := range 20 {
				_, err := p.Traffic.Change(t.Context(), app, "t3", setState, func(r mp1.TrafficRule, _ *rules.View[mp1.TrafficRule]) (mp1.TrafficRule, error) {
					r.State = mp1.RuleInactive
					if n%2 == 0 {
						r.State = mp1.RuleActive
					}
					return r, nil
				})
				if err != nil {
					require.ErrorIs(t, err, errs.Unavailable)
				}
			}
		})
	}
	var readers sync.WaitGroup
	over := make(chan struct{})
	for _, p := range managers {
		readers.Go(func() {
			for {
				select {
				case <-over:
					return
				default:
				}
				if _, got, _ := p.Declared(app); !assert.Equal(t, config(got.AppName, 8), got, "a reader sees one request") {
					return
				}
			}
		})
	}
	all.Wait()
	close(over)
	readers.Wait()
	revision, err := managers[0].Store.Revision(t.Context(), state.Root)
	require.NoError(t, err)
	for _, p := range managers {
		require.NoError(t, p.Mirror.WaitRevision(t.Context(), revision))
		_, got, _ := p.Declared(app)
		require.Equal(t, config(got.AppName, 8), got, "every rule and every member is of the same request")
	}
	for _, item := range managers[0].Operations.Of(app) {
		require.True(t, managers[0].ends(t, item.Value.ID).OperationState.Done())
	}
}

func TestWhatIsAllowedInWhichState(t *testing.T) {
	server := etcdtest.Start(t)
	p := start(t, server, options{})
	ctx := t.Context()
	grace := lifecycle.Grace{Graceful: true, Timeout: time.Hour}
	actions := map[string]func(id string) error{
		"configure": func(id string) error {
			_, err := p.Configure(ctx, lifecycle.Configure{AppInstanceID: id, Request: config("x", 1)})
			return err
		},
		"unconfigure": func(id string) error { _, err := p.Unconfigure(ctx, id, false, nil); return err },
		"start":       func(id string) error { _, err := p.Start(ctx, id); return err },
		"stop":        func(id string) error { _, err := p.Stop(ctx, id, grace); return err },
		"terminate":   func(id string) error { _, err := p.Terminate(ctx, id, grace, false); return err },
		"ready":       func(id string) error { return p.Ready(ctx, id) },
		"confirm":     func(id string) error { return p.Confirm(ctx, id, mp1.ActionStopping) },
		"subscribe": func(id string) error {
			_, err := p.Termination.Create(ctx, id, mp1.AppTerminationNotificationSubscription{CallbackReference: "http://127.0.0.1:9/"})
			return err
		},
	}
	type outcome map[string]errs.Kind // of the actions that are refused
	for name, tc := range map[string]struct {
		make    func(id string)
		refused outcome
	}{
		"unknown": {func(string) {}, outcome{
			"unconfigure": errs.NotFound, "start": errs.NotFound, "stop": errs.NotFound, "terminate": errs.NotFound,
			"ready": errs.NotFound, "confirm": errs.NotFound, "subscribe": errs.NotFound,
		}},
		"known": {func(id string) { p.known(t, id) }, outcome{
			"unconfigure": errs.NotFound, "start": errs.Conflict, "stop": errs.Conflict, "ready": errs.Conflict, "confirm": errs.Conflict,
		}},
		"configured": {func(id string) { p.configure(t, id, config("a", 1)) }, outcome{"confirm": errs.Conflict}},
		"started": {func(id string) {
			p.configure(t, id, config("a", 1))
			require.NoError(t, p.Ready(ctx, id))
		}, outcome{"confirm": errs.Conflict}},
		"stopping": {func(id string) {
			p.configure(t, id, config("a", 1))
			_, err := p.Stop(ctx, id, grace)
			require.NoError(t, err)
		}, outcome{
			"configure": errs.Conflict, "unconfigure": errs.Conflict, "start": errs.Conflict, "ready": errs.Conflict, "subscribe": errs.Forbidden,
		}},
		"stopped": {func(id string) {
			p.configure(t, id, config("a", 1))
			op, err := p.Stop(ctx, id, lifecycle.Grace{})
			require.NoError(t, err)
			require.Equal(t, mm5.OperationCompleted, p.ends(t, op).OperationState)
			require.Equal(t, mm5.LifecycleStopped, p.state(id))
		}, outcome{"ready": errs.Conflict, "confirm": errs.Conflict, "subscribe": errs.Forbidden}},
		"terminating": {func(id string) {
			p.configure(t, id, config("a", 1))
			_, err := p.Terminate(ctx, id, grace, false)
			require.NoError(t, err)
		}, outcome{
			"configure": errs.Conflict, "unconfigure": errs.Conflict, "start": errs.Conflict, "stop": errs.Conflict, "ready": errs.Conflict,
			"confirm": errs.Invalid, "subscribe": errs.Forbidden,
		}},
	} {
		for what, do := range actions {
			t.Run(name+"/"+what, func(t *testing.T) {
				id := "app-" + name + "-" + what
				tc.make(id)
				err := do(id)
				if kind, refused := tc.refused[what]; refused {
					require.ErrorIs(t, err, kind)
					return
				}
				require.NoError(t, err)
			})
		}
	}
}

// known makes an app instance known as its credentials would.
func (p *process) known(t *testing.T, id string) {
	t.Helper()
	value, err := state.Encode(state.App{Version: state.Current(), Origin: state.OriginCredentials, Created: time.Now()})
	require.NoError(t, err)
	resp, err := p.Store.Client.Put(t.Context(), state.AppKey(id), value)
	require.NoError(t, err)
	require.NoError(t, p.Mirror.WaitRevision(t.Context(), resp.Header.Revision))
}

func TestWhatCannotBeAnIDIsNotFound(t *testing.T) {
	p := start(t, etcdtest.Start(t), options{})
	for _, id := range []string{"", ".", "..", "a/b", "a b", "a%2Fb", "ä", "a\x00", string(make([]byte, 64))} {
		_, err := p.Configure(t.Context(), lifecycle.Configure{AppInstanceID: id, Request: config("x", 1)})
		require.ErrorIs(t, err, errs.NotFound, "%q", id)
	}
}

func TestAnOperationWaitsForThoseWhoApplyRules(t *testing.T) {
	p := start(t, etcdtest.Start(t), options{appliers: map[mm5.RuleKind]string{mm5.TrafficRules: "dataplane"}})
	op := p.configure(t, app, config("a", 2))
	require.Equal(t, mm5.OperationCompleted, p.ends(t, op).OperationState, "nothing is in force before the app runs")

	begun, err := p.Start(t.Context(), app)
	require.NoError(t, err)
	v := p.op(t, begun)
	require.Equal(t, mm5.OperationProcessing, v.OperationState)
	require.Contains(t, v.Step, "dataplane")
	again, err := p.Start(t.Context(), app)
	require.NoError(t, err)
	require.Equal(t, begun, again)

	generation := p.Traffic.Of(app).Value.Record.Generation
	p.report(t, "dataplane", app, generation-1, nil)
	require.Equal(t, mm5.OperationProcessing, p.op(t, begun).OperationState, "an older generation says nothing")
	p.report(t, "dataplane", app, generation, map[string]string{"t1": "no such interface"})
	v = p.ends(t, begun)
	require.Equal(t, mm5.OperationFailed, v.OperationState)
	require.Equal(t, `traffic rule "t1": no such interface`, v.Detail)
	require.Contains(t, v.RuleResults, mm5.RuleResult{
		Kind: mm5.TrafficRules, RuleID: "t1", Result: mm5.RuleFailed, Reason: "no such interface", Reconciler: "dataplane",
	})
	require.Contains(t, v.RuleResults, mm5.RuleResult{Kind: mm5.TrafficRules, RuleID: "t0", Result: mm5.RuleApplied, Reconciler: "dataplane"})

	p.report(t, "dataplane", app, generation, nil)
	require.Contains(t, p.RuleResults(app), mm5.RuleResult{Kind: mm5.TrafficRules, RuleID: "t1", Result: mm5.RuleApplied, Reconciler: "dataplane"})
}

func TestAnOperationNobodyReportsOnFails(t *testing.T) {
	limits := policy()
	limits.OperationTimeout = time.Second
	p := start(t, etcdtest.Start(t), options{appliers: map[mm5.RuleKind]string{mm5.DNSRules: "dns"}, policy: limits})
	p.configure(t, app, config("a", 1))
	op, err := p.Start(t.Context(), app)
	require.NoError(t, err)
	v := p.ends(t, op)
	require.Equal(t, mm5.OperationFailed, v.OperationState)
	require.Contains(t, v.Detail, "dns")
	require.NotNil(t, v.EndTime)
}

func TestAnOperationIsOvertakenByTheNext(t *testing.T) {
	p := start(t, etcdtest.Start(t), options{appliers: map[mm5.RuleKind]string{mm5.TrafficRules: "dataplane"}})
	p.configure(t, app, config("a", 1))
	require.NoError(t, p.Ready(t.Context(), app))
	first := p.configure(t, app, config("b", 1))
	require.Equal(t, mm5.OperationProcessing, p.op(t, first).OperationState)
	second := p.configure(t, app, config("c", 1))
	v := p.ends(t, first)
	require.Equal(t, mm5.OperationFailed, v.OperationState)
	require.Contains(t, v.Detail, second)
	p.report(t, "dataplane", app, p.Traffic.Of(app).Value.Record.Generation, nil)
	require.Equal(t, mm5.OperationCompleted, p.ends(t, second).OperationState)
}

func TestOldOperationsAreClearedAway(t *testing.T) {
	limits := policy()
	limits.MaxOperations = 10
	p := start(t, etcdtest.Start(t), options{policy: limits})
	var last string
	for i := range 14 {
		last = p.configure(t, app, config(fmt.Sprint("c", i), 1))
	}
	require.Eventually(t, func() bool { return p.Operations.Collection().Snapshot().Len() <= 10 }, 20*time.Second, 10*time.Millisecond)
	require.Equal(t, mm5.OperationCompleted, p.op(t, last).OperationState, "the newest stays")
}

func TestOperationsThatEndedLongAgoAreClearedAway(t *testing.T) {
	limits := policy()
	limits.Retention, limits.MaxOperations = time.Millisecond, 10
	p := start(t, etcdtest.Start(t), options{policy: limits, appliers: map[mm5.RuleKind]string{mm5.TrafficRules: "dataplane"}})
	p.configure(t, "open", config("a", 1))
	open, err := p.Start(t.Context(), "open")
	require.NoError(t, err)
	for i := range 12 {
		p.configure(t, app, config(fmt.Sprint("c", i), 1))
	}
	require.Eventually(t, func() bool { return p.Operations.Collection().Snapshot().Len() == 1 }, 20*time.Second, 10*time.Millisecond)
	require.Equal(t, mm5.OperationProcessing, p.op(t, open).OperationState, "one that has not ended stays")
}

func TestRemovingAConfigurationForgetsAnAppThatNothingElseMadeKnown(t *testing.T) {
	p := start(t, etcdtest.Start(t), options{})
	p.configure(t, "only", config("a", 1))
	p.known(t, "other")
	p.configure(t, "other", config("a", 1))
	for id, want := range map[string]mm5.Lifecycle{"only": "GONE", "other": mm5.LifecycleKnown} {
		op, err := p.Unconfigure(t.Context(), id, false, nil)
		require.NoError(t, err)
		require.Equal(t, mm5.OperationCompleted, p.ends(t, op).OperationState)
		require.Equal(t, want, p.state(id))
		_, ok := p.Configuration(id)
		require.False(t, ok)
		require.Nil(t, p.Traffic.Of(id))
	}
	require.Empty(t, keys(t, p.Store.Client, "/only"))
}

// furnish gives an app instance everything it can have.
func furnish(t *testing.T, p *process, id string) {
	t.Helper()
	p.configure(t, id, config("a", 2))
	require.NoError(t, p.Ready(t.Context(), id))
	for i := range 3 {
		_, err := p.Registry.Register(t.Context(), id, mp1.ServiceInfo{
			SerName: fmt.Sprint("s", i), Version: "1", State: mp1.StateActive, Serializer: "JSON",
			TransportInfo: &mp1.TransportInfo{ID: "t", Name: "t", Type: "REST_HTTP", Protocol: "HTTP", Version: "1", Endpoint: &mp1.EndPointInfo{URIs: []string{"http://s/"}}, Security: &mp1.SecurityInfo{}},
		})
		require.NoError(t, err)
	}
	_, err := p.Availability.Create(t.Context(), id, mp1.SerAvailabilityNotificationSubscription{CallbackReference: "http://127.0.0.1:9/"})
	require.NoError(t, err)
	p.subscribe(t, id, "http://127.0.0.1:9/")
	credential, err := state.Encode(state.Credential{Version: state.Current(), Subject: id, Scopes: []string{"mp1"}})
	require.NoError(t, err)
	_, err = p.Store.Client.Put(t.Context(), state.CredentialKey("ak-"+id), credential)
	require.NoError(t, err)
	resp, err := p.Store.Client.Put(t.Context(), state.RegistrationKey(id), `{"v":1,"info":{"appName":"a"}}`)
	require.NoError(t, err)
	require.NoError(t, p.Mirror.WaitRevision(t.Context(), resp.Header.Revision))
}

// nothingLeft waits until everything left of an app instance is for consumers that have not been notified of the removal yet.
func nothingLeft(t *testing.T, p *process, id string) {
	t.Helper()
	require.EventuallyWithT(t, func(c *assert.CollectT) {
		for _, key := range keys(t, p.Store.Client, id) {
			assert.Contains(c, key, state.PrefixRemoved)
		}
	}, 10*time.Second, 5*time.Millisecond)
}

func TestTerminationLeavesNothing(t *testing.T) {
	p := start(t, etcdtest.Start(t), options{})
	furnish(t, p, app)
	op, err := p.Terminate(t.Context(), app, lifecycle.Grace{}, false)
	require.NoError(t, err)
	require.Equal(t, mm5.OperationCompleted, p.ends(t, op).OperationState)
	nothingLeft(t, p, app)
	again, err := p.Terminate(t.Context(), app, lifecycle.Grace{}, false)
	require.NoError(t, err)
	require.Equal(t, op, again, "to terminate what is terminated is no mistake")
}

func TestAStoppedAppKeepsItsConfiguration(t *testing.T) {
	p := start(t, etcdtest.Start(t), options{})
	furnish(t, p, app)
	op, err := p.Stop(t.Context(), app, lifecycle.Grace{})
	require.NoError(t, err)
	p.ends(t, op)
	require.Equal(t, mm5.LifecycleStopped, p.state(app))
	for _, r := range p.RuleResults(app) {
		require.Equal(t, mm5.RuleNotApplied, r.Result)
	}
	require.True(t, p.HasCredentials(app))
	require.NotEmpty(t, keys(t, p.Store.Client, state.PrefixRegistrations))
	require.Empty(t, keys(t, p.Store.Client, state.PrefixServices+app))
	again, err := p.Stop(t.Context(), app, lifecycle.Grace{})
	require.NoError(t, err)
	require.Equal(t, op, again)
	_, err = p.Start(t.Context(), app)
	require.NoError(t, err)
	for _, r := range p.RuleResults(app) {
		require.Equal(t, mm5.RuleApplied, r.Result)
	}
}

// TestTerminationGoesOnAfterACrashAnywhere kills the process at each transaction of a termination, once before it is
// committed and once after.
func TestTerminationGoesOnAfterACrashAnywhere(t *testing.T) {
	server := etcdtest.Start(t)
	helper := start(t, server, options{idle: true})
	for _, after := range []bool{false, true} {
		for n := 1; ; n++ {
			id := fmt.Sprintf("app-%v-%d", after, n)
			furnish(t, helper, id)
			var life *mortal
			p := start(t, server, options{wrap: func(kv clientv3.KV) clientv3.KV {
				life = &mortal{KV: kv, left: n, after: after}
				return life
			}})
			op, err := p.Terminate(t.Context(), id, lifecycle.Grace{}, false)
			if err == nil {
				require.Eventually(t, func() bool { return life.dead() || p.state(id) == "GONE" }, 20*time.Second, time.Millisecond)
			}
			survived := !life.dead()
			p.stop()
			next := start(t, server, options{})
			if err != nil { // the MEPM got no response, and retries
				op, err = next.Terminate(t.Context(), id, lifecycle.Grace{}, false)
				require.NoError(t, err)
			}
			require.Equal(t, mm5.OperationCompleted, next.ends(t, op).OperationState)
			nothingLeft(t, next, id)
			next.stop()
			if survived {
				require.Greater(t, n, 5, "a termination has several steps")
				break
			}
		}
	}
}

func TestSubscribersAreToldUntilTheAppConfirms(t *testing.T) {
	p := start(t, etcdtest.Start(t), options{})
	p.configure(t, app, config("a", 1))
	good := newSubscriber(t, always(http.StatusNoContent))
	stubborn := newSubscriber(t, func(n int) int {
		if n < 3 {
			return http.StatusInternalServerError
		}
		return http.StatusNoContent
	})
	for _, s := range []*subscriber{good, stubborn} {
		p.subscribe(t, app, s.URL)
	}
	op, err := p.Terminate(t.Context(), app, lifecycle.Grace{Graceful: true, Timeout: time.Hour}, false)
	require.NoError(t, err)
	require.Eventually(t, func() bool { return good.count() == 1 && stubborn.count() == 3 }, 20*time.Second, 5*time.Millisecond)
	n := good.took[0]
	require.Equal(t, mp1.ActionTerminating, n.OperationAction)
	require.EqualValues(t, 3600, n.MaxGracefulTimeout)
	require.Equal(t, "http://mep/mec_app_support/v2/applications/"+app+"/confirm_termination", n.Links.ConfirmTermination.Href)
	require.Equal(t, stubborn.ids[0], stubborn.ids[2], "a notice that is sent again has its id")
	require.NotEqual(t, good.ids[0], stubborn.ids[0])
	require.Equal(t, mm5.OperationProcessing, p.op(t, op).OperationState)

	require.ErrorIs(t, p.Confirm(t.Context(), app, mp1.ActionStopping), errs.Invalid)
	require.NoError(t, p.Confirm(t.Context(), app, mp1.ActionTerminating))
	v := p.ends(t, op)
	require.Equal(t, mm5.OperationCompleted, v.OperationState)
	require.Empty(t, v.Detail)
}

func TestAnAppThatDoesNotConfirmIsWaitedForOnlySoLong(t *testing.T) {
	server := etcdtest.Start(t)
	p := start(t, server, options{})
	p.configure(t, app, config("a", 1))
	silent := newSubscriber(t, always(http.StatusServiceUnavailable))
	p.subscribe(t, app, silent.URL)
	began := time.Now()
	op, err := p.Stop(t.Context(), app, lifecycle.Grace{Graceful: true, Timeout: 2 * time.Second})
	require.NoError(t, err)
	require.Eventually(t, func() bool { return silent.count() > 0 }, 10*time.Second, time.Millisecond)
	p.stop() // and the next process waits no longer than the app was promised
	v := start(t, server, options{}).ends(t, op)
	require.Equal(t, mm5.OperationCompleted, v.OperationState)
	require.Equal(t, "the app did not confirm within 2 s", v.Detail)
	require.GreaterOrEqual(t, time.Since(began), 2*time.Second)
	require.Equal(t, silent.ids[0], silent.ids[len(silent.ids)-1])
}

func TestAForcefulTerminationEndsTheWaitOfAGracefulOne(t *testing.T) {
	p := start(t, etcdtest.Start(t), options{})
	p.configure(t, app, config("a", 1))
	grace := lifecycle.Grace{Graceful: true, Timeout: time.Hour}
	stop, err := p.Stop(t.Context(), app, grace)
	require.NoError(t, err)
	op, err := p.Terminate(t.Context(), app, grace, false)
	require.NoError(t, err)
	v := p.ends(t, stop)
	require.Equal(t, mm5.OperationFailed, v.OperationState)
	require.Contains(t, v.Detail, op)
	again, err := p.Terminate(t.Context(), app, lifecycle.Grace{}, false)
	require.NoError(t, err)
	require.Equal(t, op, again)
	require.Equal(t, mm5.OperationCompleted, p.ends(t, op).OperationState)
	require.Equal(t, mm5.Lifecycle("GONE"), p.state(app))
}

func TestTerminationDoesNotWaitForeverForRulesToBeTakenBack(t *testing.T) {
	p := start(t, etcdtest.Start(t), options{appliers: map[mm5.RuleKind]string{mm5.TrafficRules: "dataplane"}})
	p.configure(t, app, config("a", 1))
	require.NoError(t, p.Ready(t.Context(), app))
	p.report(t, "dataplane", app, p.Traffic.Of(app).Value.Record.Generation, nil)
	op, err := p.Terminate(t.Context(), app, lifecycle.Grace{}, false)
	require.NoError(t, err)
	v := p.ends(t, op)
	require.Equal(t, mm5.OperationCompleted, v.OperationState)
	require.Contains(t, v.Detail, "dataplane did not report in time")
}
