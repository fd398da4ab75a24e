package reconcile

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/openmep/mep/api/mm5"
	"github.com/openmep/mep/api/mp1"
	"github.com/openmep/mep/api/state"
	"github.com/openmep/mep/kit/errs"
	"github.com/openmep/mep/kit/etcd"
	"github.com/openmep/mep/kit/leader"
)

func ids(n int) []string {
	list := make([]string, n)
	for i := range list {
		list[i] = fmt.Sprintf("rule-%02d", i)
	}
	return list
}

func TestRulesAreBroughtOverAndReportedOnce(t *testing.T) {
	p, other := newPlatform(t), newSide()
	p.declare(t, "a", 1, ids(2)...)
	r := p.reconciler(quick(), other)
	lead(t, r, leader.Term{})
	status := p.awaitReport(t, "a", 1)
	require.Equal(t, ids(2), status.Applied)
	require.Empty(t, status.Failed)
	require.Equal(t, ids(2), other.holds("a"))

	p.declare(t, "a", 2, ids(3)...)
	p.awaitReport(t, "a", 2)
	require.Equal(t, ids(3), other.holds("a"))

	p.declare(t, "a", 3)
	require.Empty(t, p.awaitReport(t, "a", 3).Applied)
	require.Empty(t, other.apps())
	require.Equal(t, 3, other.toldSoFar("a"))
	_, writes := p.reported(t, "a")
	require.EqualValues(t, 4, writes, "the intention, and each generation once")
	await(t, "nothing is pending", func() bool { return r.Health().Pending == 0 })
}

func TestDNSRulesHaveTheirOwnReconciler(t *testing.T) {
	p, plane, dns := newPlatform(t), newSide(), newSide()
	reg := prometheus.NewRegistry()
	cfg := quick()
	lead(t, New(cfg, plane, p.src, p.statuses, p.store, slog.New(slog.DiscardHandler), reg), leader.Term{})
	cfg.Kind, cfg.Name = mm5.DNSRules, "dns"
	lead(t, New(cfg, dns, p.src, p.statuses, p.store, slog.New(slog.DiscardHandler), reg), leader.Term{})
	p.declare(t, "a", 1, "t")
	p.put(t, state.DNSRulesKey("a"), state.DNSRules{
		Version: state.Current(), Generation: 7, Running: true, Rules: []state.Rule[mp1.DNSRule]{
			{Declared: mp1.DNSRule{DNSRuleID: "d", State: mp1.RuleActive}},
			{Declared: mp1.DNSRule{DNSRuleID: "off", State: mp1.RuleInactive}},
		},
	})
	await(t, "both are reported", func() bool {
		traffic, _ := p.statuses.Of(name, "a")
		names, _ := p.statuses.Of("dns", "a")
		return traffic.Generation == 1 && names.Generation == 7
	})
	require.Equal(t, []string{"t"}, plane.holds("a"))
	require.Equal(t, []string{"d"}, dns.holds("a"))
}

func TestAConfiguredAppThatHasNotRunCostsNothing(t *testing.T) {
	p, other := newPlatform(t), newSide()
	p.put(t, state.TrafficRulesKey("idle"), state.TrafficRules{Version: state.Current(), Rules: traffic("r")})
	lead(t, p.reconciler(quick(), other), leader.Term{})
	p.declare(t, "busy", 1, "r")
	p.awaitReport(t, "busy", 1)
	require.Zero(t, other.toldSoFar("idle"))
	status, _ := p.reported(t, "idle")
	require.Nil(t, status)
}

func TestARunningAppWithoutActiveRulesIsReported(t *testing.T) {
	p, other := newPlatform(t), newSide()
	p.declare(t, "a", 1)
	lead(t, p.reconciler(quick(), other), leader.Term{})
	status := p.awaitReport(t, "a", 1)
	require.Empty(t, status.Applied)
	_, writes := p.reported(t, "a")
	require.EqualValues(t, 1, writes, "there was nothing that could have to be taken back")
}

func TestOneOfTenRulesIsRefused(t *testing.T) {
	p, other := newPlatform(t), newSide()
	other.refuses["rule-03"] = "no  such\ninterface"
	other.refuses["rule-of-another-app"] = "not asked for"
	r := p.reconciler(quick(), other)
	lead(t, r, leader.Term{})
	p.declare(t, "a", 4, ids(10)...)
	status := p.awaitReport(t, "a", 4)
	require.Len(t, status.Applied, 9)
	require.Equal(t, map[string]string{"rule-03": "no such interface"}, status.Failed)
	require.Equal(t, 1, r.Health().Refused)
	require.True(t, r.Health().FailingSince.IsZero(), "a refusal is an answer")

	before := other.callsSoFar()
	await(t, "it is tried again", func() bool { return other.callsSoFar() >= before+3 })
	_, writes := p.reported(t, "a")
	require.EqualValues(t, 2, writes, "the same outcome is not written again")

	other.set(func() { delete(other.refuses, "rule-03") })
	await(t, "all are in force", func() bool {
		s, _ := p.reported(t, "a")
		return len(s.Applied) == 10 && len(s.Failed) == 0
	})
	await(t, "no rule is refused", func() bool { return r.Health().Refused == 0 })
}

func TestReasonsAreFitToBeStored(t *testing.T) {
	for _, c := range []struct{ name, given, kept string }{
		{"empty", "", "no reason was given"},
		{"only spaces", " \n\t ", "no reason was given"},
		{"control characters", "red \x1b[31malert\x00", "red [31malert"},
		{"not UTF-8", "caf\xe9", "caf\uFFFD"},
		{"long", strings.Repeat("ü", 300), strings.Repeat("ü", 128)},
	} {
		t.Run(c.name, func(t *testing.T) {
			set := &Set{Kind: mm5.DNSRules, DNS: []mp1.DNSRule{{DNSRuleID: "d"}}}
			require.Equal(t, map[string]string{"d": c.kept}, outcome(set, Report{Failed: map[string]string{"d": c.given}}).Failed)
		})
	}
}

func TestTheDriverIsDownAndComesBack(t *testing.T) {
	p, other := newPlatform(t), newSide()
	other.down = errors.New("no route to host")
	cfg := quick()
	cfg.MinBackoff, cfg.MaxBackoff = 20*time.Millisecond, 50*time.Millisecond
	const apps = 50
	for i := range apps {
		p.declare(t, appName(i), 1, "r")
	}
	r := p.reconciler(cfg, other)
	lead(t, r, leader.Term{})
	await(t, "the gate is closed", func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.current == nil {
			return false
		}
		_, closed := r.current.queue.gate.next()
		return closed
	})
	h := r.Health()
	require.True(t, h.Leading)
	require.Equal(t, apps, h.Pending)
	require.False(t, h.FailingSince.IsZero())
	require.Equal(t, "no route to host", h.LastError)
	require.True(t, h.LastContact.IsZero())
	require.Less(t, other.callsSoFar(), apps, "not every app has to find out for itself")
	begun := len(slices.Collect(p.statuses.Apps(name)))
	require.Less(t, begun, apps, "nothing was begun for those that wait")

	other.set(func() { other.down = nil })
	for i := range apps {
		p.awaitReport(t, appName(i), 1)
	}
	require.Len(t, other.apps(), apps)
	await(t, "nothing is pending", func() bool { return r.Health().Pending == 0 })
	h = r.Health()
	require.True(t, h.FailingSince.IsZero())
	require.Empty(t, h.LastError)
	require.False(t, h.LastContact.IsZero())
}

func TestOneAppThatAlwaysFailsDelaysNoOther(t *testing.T) {
	p, other := newPlatform(t), newSide()
	for i := range several {
		other.poison[appName(i)] = errors.New("cannot digest it")
		p.declare(t, appName(i), 1, "r")
	}
	lead(t, p.reconciler(quick(), other), leader.Term{})
	await(t, "all of them failed", func() bool { return other.callsSoFar() >= 2*several })
	p.declare(t, "healthy", 1, "r")
	p.awaitReport(t, "healthy", 1)
	other.set(func() { clear(other.poison) })
	for i := range several {
		p.awaitReport(t, appName(i), 1)
	}
}

func TestAControllerThatWantsToBeLeftAloneIs(t *testing.T) {
	p, other := newPlatform(t), newSide()
	other.down = errs.New(errs.Unavailable, "too many calls").After(time.Hour)
	cfg := quick()
	cfg.Workers, cfg.MaxBackoff = 1, 30*time.Second
	for i := range 10 {
		p.declare(t, appName(i), 1, "r")
	}
	r := p.reconciler(cfg, other)
	lead(t, r, leader.Term{})
	await(t, "the others wait", func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.current == nil {
			return false
		}
		r.current.queue.mu.Lock()
		defer r.current.queue.mu.Unlock()
		return len(r.current.queue.parked) == 9
	})
	require.Equal(t, 1, other.callsSoFar())
	until, closed := r.current.queue.gate.next()
	require.True(t, closed)
	require.LessOrEqual(t, time.Until(until), 30*time.Second, "an hour is more than the longest wait")
	require.Greater(t, time.Until(until), 15*time.Second)
}

func TestTheOtherSideLosesItsState(t *testing.T) {
	p, other := newPlatform(t), newSide()
	for i := range 20 {
		p.declare(t, appName(i), 1, ids(2)...)
	}
	reg := prometheus.NewRegistry()
	r := New(quick(), other, p.src, p.statuses, p.store, slog.New(slog.DiscardHandler), reg)
	lead(t, r, leader.Term{})
	for i := range 20 {
		p.awaitReport(t, appName(i), 1)
	}
	other.lose()
	await(t, "it is told everything again", func() bool { return len(other.apps()) == 20 })
	await(t, "the loss is counted", func() bool { return r.Health().Resyncs == 2 })
	require.InDelta(t, 1, testutil.ToFloat64(r.metrics.resyncs.WithLabelValues(resyncState)), 0)
	for i := range 20 {
		_, writes := p.reported(t, appName(i))
		require.EqualValues(t, 2, writes, "nothing new was to be reported")
	}
}

func TestALossBeforeTheFirstAnswerIsNoticed(t *testing.T) {
	p, other := newPlatform(t), newSide()
	other.stateErr = errors.New("not yet")
	p.declare(t, "a", 1, "r")
	lead(t, p.reconciler(quick(), other), leader.Term{})
	p.awaitReport(t, "a", 1)
	other.lose()
	other.set(func() { other.stateErr = nil })
	await(t, "it is told again", func() bool { return len(other.holds("a")) == 1 })
}

func TestADriverThatDoesNotNameItsStateIsToldEverythingFromTimeToTime(t *testing.T) {
	p, other := newPlatform(t), newSide()
	other.state = ""
	p.declare(t, "a", 1, "r")
	cfg := quick()
	cfg.Resync = 10 * time.Millisecond
	lead(t, p.reconciler(cfg, other), leader.Term{})
	p.awaitReport(t, "a", 1)
	other.lose()
	await(t, "it is told again", func() bool { return len(other.holds("a")) == 1 })
}

func TestARestartTellsEverythingOnceAndWritesNothing(t *testing.T) {
	p, other := newPlatform(t), newSide()
	p.declare(t, "a", 1, ids(2)...)
	p.declare(t, "b", 1, "r")
	stop := lead(t, p.reconciler(quick(), other), leader.Term{})
	p.awaitReport(t, "a", 1)
	p.awaitReport(t, "b", 1)
	stop()
	other.lose()
	r := p.reconciler(quick(), other)
	require.Equal(t, Health{}, r.Health(), "it does not lead")
	lead(t, r, leader.Term{})
	await(t, "it is told everything", func() bool { return len(other.apps()) == 2 })
	await(t, "nothing is pending", func() bool { return r.Health().Leading && r.Health().Pending == 0 })
	require.Equal(t, 2, other.toldSoFar("a"))
	for _, app := range []string{"a", "b"} {
		_, writes := p.reported(t, app)
		require.EqualValues(t, 2, writes)
	}
}

func TestAnAppThatIsGoneIsTakenBack(t *testing.T) {
	for _, c := range []struct {
		name string
		end  func(p *platform, t *testing.T)
	}{
		{"its rules are removed", func(p *platform, t *testing.T) { p.remove(t, "a") }},
		{"it is configured anew, and has not run", func(p *platform, t *testing.T) {
			p.put(t, state.TrafficRulesKey("a"), state.TrafficRules{Version: state.Current(), Rules: traffic("r")})
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, other := newPlatform(t), newSide()
			p.declare(t, "a", 1, "r")
			r := p.reconciler(quick(), other)
			lead(t, r, leader.Term{})
			p.awaitReport(t, "a", 1)
			other.set(func() { other.poison["a"] = errors.New("not now") })
			c.end(p, t)
			await(t, "it was tried", func() bool { return other.toldSoFar("a") >= 3 })
			status, _ := p.reported(t, "a")
			require.NotNil(t, status, "the report stays while rules may be in force")
			other.set(func() { clear(other.poison) })
			p.awaitNoReport(t, "a")
			require.Empty(t, other.apps())
			await(t, "it is forgotten", func() bool {
				q := r.current.queue
				q.mu.Lock()
				defer q.mu.Unlock()
				return len(q.entries) == 0 && q.pending == 0 && len(q.delayed) == 0
			})
		})
	}
}

func TestAnAppThatWentWhileNobodyLedIsTakenBack(t *testing.T) {
	p, other := newPlatform(t), newSide()
	p.declare(t, "a", 1, "r")
	stop := lead(t, p.reconciler(quick(), other), leader.Term{})
	p.awaitReport(t, "a", 1)
	stop()
	p.remove(t, "a")
	lead(t, p.reconciler(quick(), other), leader.Term{})
	p.awaitNoReport(t, "a")
	require.Empty(t, other.apps())
}

func TestAnAppThatWentAfterACrashIsTakenBack(t *testing.T) {
	p, other := newPlatform(t), newSide()
	ctx, kill := context.WithCancel(t.Context())
	other.answered = func(string) { kill() } // the process ends between the answer and the report
	p.declare(t, "a", 1, "r")
	require.NoError(t, p.reconciler(quick(), other).Run(ctx, leader.Term{}))
	require.Equal(t, []string{"r"}, other.holds("a"))
	p.remove(t, "a")
	lead(t, p.reconciler(quick(), other), leader.Term{})
	p.awaitNoReport(t, "a")
	require.Empty(t, other.apps())
}

func TestAReturnUnderTheSameGenerationIsNoticed(t *testing.T) {
	p, other := newPlatform(t), newSide()
	p.declare(t, "a", 1, "old")
	lead(t, p.reconciler(quick(), other), leader.Term{})
	p.awaitReport(t, "a", 1)
	p.do(t, clientv3.OpDelete(state.TrafficRulesKey("a")))
	p.declare(t, "a", 1, "new")
	await(t, "the new rule is in force", func() bool { return fmt.Sprint(other.holds("a")) == "[new]" })
	await(t, "and reported", func() bool {
		s, _ := p.reported(t, "a")
		return s != nil && fmt.Sprint(s.Applied) == "[new]"
	})
}

func TestAChangeWhileItsPredecessorIsBroughtOver(t *testing.T) {
	p, other := newPlatform(t), newSide()
	hold := make(chan struct{})
	other.hold = hold
	lead(t, p.reconciler(quick(), other), leader.Term{})
	p.declare(t, "a", 1, "r1")
	require.Equal(t, "a", <-other.arrived)
	p.declare(t, "a", 2, "r1", "r2")
	p.declare(t, "b", 1, "r")
	require.Equal(t, "b", <-other.arrived, "another app does not wait")
	close(hold)
	p.awaitReport(t, "a", 2)
	require.Equal(t, []string{"r1", "r2"}, other.holds("a"))
	require.Equal(t, 2, other.toldSoFar("a"))
	require.Zero(t, other.overlaps)
}

func TestAReportThatSomebodyChangedIsMade(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(p *platform, t *testing.T)
	}{
		{"removed", func(p *platform, t *testing.T) { p.do(t, clientv3.OpDelete(state.StatusKey(name, "a"))) }},
		{"replaced", func(p *platform, t *testing.T) {
			p.put(t, state.StatusKey(name, "a"), state.Status{Version: state.Current(), Generation: 99})
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, other := newPlatform(t), newSide()
			p.declare(t, "a", 1, "r")
			lead(t, p.reconciler(quick(), other), leader.Term{})
			p.awaitReport(t, "a", 1)
			c.change(p, t)
			await(t, "it is told again", func() bool { return other.toldSoFar("a") == 2 })
			require.Equal(t, []string{"r"}, p.awaitReport(t, "a", 1).Applied)
		})
	}
}

func TestRulesAreReportedOnceEtcdIsBack(t *testing.T) {
	p, other := newPlatform(t), newSide()
	p.declare(t, "a", 1, "r1")
	r := p.reconciler(quick(), other)
	lead(t, r, leader.Term{})
	p.awaitReport(t, "a", 1)
	hold := make(chan struct{})
	other.set(func() { other.hold = hold })
	p.declare(t, "a", 2, "r1", "r2")
	<-other.arrived
	p.server.Stop()
	close(hold)
	await(t, "a write has failed", func() bool { return r.current.unsaved.Load() })
	require.Equal(t, []string{"r1", "r2"}, other.holds("a"))
	require.Equal(t, 1, r.Health().Pending)
	p.server.StartAgain(t)
	await(t, "it is reported", func() bool {
		s, ok := p.statuses.Of(name, "a")
		return ok && s.Generation == 2
	})
	require.Equal(t, 2, other.toldSoFar("a"), "it is not told again only because the report failed")
}

func TestRulesWaitForRoomInTheStore(t *testing.T) {
	p, other := newPlatform(t), newSide()
	full := make(chan struct{})
	guarded := *p.store
	guarded.SetGuard(func() error {
		select {
		case <-full:
			return nil
		default:
			return errs.New(errs.InsufficientStorage, "full")
		}
	})
	r := New(quick(), other, p.src, p.statuses, &guarded, slog.New(slog.DiscardHandler), nil)
	lead(t, r, leader.Term{})
	p.declare(t, "a", 1, "r")
	await(t, "a write has failed", func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		return r.current != nil && r.current.unsaved.Load()
	})
	require.Zero(t, other.callsSoFar(), "nothing is in force that nobody would know of")
	close(full)
	p.awaitReport(t, "a", 1)
}

// terms returns a term that is over and one that lasts until the test ends.
func terms(t *testing.T, p *platform) (old, present leader.Term) {
	t.Helper()
	elect := func(ctx context.Context, work func(context.Context, leader.Term) error) error {
		return leader.New(p.server.Client(t), "/election", "id", time.Second, slog.New(slog.DiscardHandler)).Run(ctx, work)
	}
	ctx, cancel := context.WithCancel(t.Context())
	require.NoError(t, elect(ctx, func(_ context.Context, term leader.Term) error {
		old = term
		cancel()
		return nil
	}))
	ctx, cancel = context.WithCancel(t.Context())
	began, done := make(chan struct{}), make(chan error, 1)
	go func() {
		done <- elect(ctx, func(ctx context.Context, term leader.Term) error {
			present = term
			close(began)
			<-ctx.Done()
			return nil
		})
	}()
	<-began
	t.Cleanup(func() { cancel(); require.NoError(t, <-done) })
	return old, present
}

func TestATermThatIsOverChangesNothing(t *testing.T) {
	p, other := newPlatform(t), newSide()
	old, present := terms(t, p)
	p.declare(t, "a", 1, "r")

	// For a new app, it does not even begin.
	require.NoError(t, p.reconciler(quick(), other).Run(t.Context(), old), "it ends by itself")
	require.Zero(t, other.callsSoFar())
	status, _ := p.reported(t, "a")
	require.Nil(t, status)

	stop := lead(t, p.reconciler(quick(), other), present)
	p.awaitReport(t, "a", 1)
	stop()
	_, writes := p.reported(t, "a")

	// For a known app, it may still send the set, but not report on it.
	p.declare(t, "a", 2, "r", "s")
	require.NoError(t, p.reconciler(quick(), other).Run(t.Context(), old))
	status, after := p.reported(t, "a")
	require.EqualValues(t, 1, status.Generation)
	require.Equal(t, writes, after)
}

func TestTheEndOfATermWaitsForNobody(t *testing.T) {
	p, other := newPlatform(t), newSide()
	other.hold = make(chan struct{}) // never closed: only the end of the term ends the call
	p.declare(t, "a", 1, "r")
	stop := lead(t, p.reconciler(quick(), other), leader.Term{})
	<-other.arrived
	stop()
	status, _ := p.reported(t, "a")
	require.Zero(t, status.Generation)
}

func TestATermThatEndsWhileEtcdIsAway(t *testing.T) {
	p, other := newPlatform(t), newSide()
	away, err := etcd.Dial(etcd.Config{Endpoints: []string{"unix://" + t.TempDir() + "/none"}, Timeout: time.Minute})
	require.NoError(t, err)
	defer away.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	r := New(quick(), other, p.src, p.statuses, away, slog.New(slog.DiscardHandler), nil)
	require.NoError(t, r.Run(ctx, leader.Term{}))
	require.Zero(t, other.callsSoFar())
}

func TestAThousandAppsAreToldWithABoundedNumberOfCalls(t *testing.T) {
	const apps, batch = 1000, 100
	p, other := newPlatform(t), newSide()
	for from := 0; from < apps; from += batch {
		ops := make([]clientv3.Op, batch)
		for i := range ops {
			value, err := state.Encode(state.TrafficRules{Version: state.Current(), Generation: 1, Running: true, Rules: traffic(ids(10)...)})
			require.NoError(t, err)
			ops[i] = clientv3.OpPut(state.TrafficRulesKey(appName(from+i)), value)
		}
		p.do(t, ops...)
	}
	cfg := quick()
	cfg.Workers = 8
	r := p.reconciler(cfg, other)
	lead(t, r, leader.Term{})
	settled := func() bool { return len(other.apps()) == apps && r.Health().Pending == 0 }
	await(t, "everything is told", settled)
	require.Equal(t, apps, other.callsSoFar())
	other.lose()
	await(t, "everything is told again", settled)
	require.Equal(t, 2*apps, other.callsSoFar())
	require.LessOrEqual(t, other.most, 8)
	require.Zero(t, other.overlaps)
	for i := range apps {
		s, ok := p.statuses.Of(name, appName(i))
		require.True(t, ok)
		require.Len(t, s.Applied, 10)
	}
}

func TestMetrics(t *testing.T) {
	p, other := newPlatform(t), newSide()
	other.refuses["bad"] = "no"
	other.poison["c"] = errors.New("down")
	reg := prometheus.NewRegistry()
	cfg := quick()
	cfg.minRefused, cfg.MinBackoff = time.Minute, time.Minute
	r := New(cfg, other, p.src, p.statuses, p.store, slog.New(slog.DiscardHandler), reg)
	p.declare(t, "a", 1, "good")
	p.declare(t, "b", 1, "bad", "good")
	p.declare(t, "c", 1, "good")
	stop := lead(t, r, leader.Term{})
	await(t, "all were told", func() bool { return other.callsSoFar() == 3 && r.Health().Pending == 1 })
	const want = `
# HELP mep_reconcile_applies_total Sets of rules brought over, by result: applied, refused (some of the rules are not in force), failed (no usable answer).
# TYPE mep_reconcile_applies_total counter
mep_reconcile_applies_total{reconciler="dataplane",result="applied"} 1
mep_reconcile_applies_total{reconciler="dataplane",result="failed"} 1
mep_reconcile_applies_total{reconciler="dataplane",result="refused"} 1
# HELP mep_reconcile_failed_rules Rules that the other side does not put in force; 0 where this process does not lead.
# TYPE mep_reconcile_failed_rules gauge
mep_reconcile_failed_rules{reconciler="dataplane"} 1
# HELP mep_reconcile_pending App instances whose rules have not been brought over and reported on yet; 0 where this process does not lead.
# TYPE mep_reconcile_pending gauge
mep_reconcile_pending{reconciler="dataplane"} 1
# HELP mep_reconcile_resyncs_total Times the other side was told everything, by reason: start (of a term), interval, state (it lost what it had been told).
# TYPE mep_reconcile_resyncs_total counter
mep_reconcile_resyncs_total{reason="interval",reconciler="dataplane"} 0
mep_reconcile_resyncs_total{reason="start",reconciler="dataplane"} 1
mep_reconcile_resyncs_total{reason="state",reconciler="dataplane"} 0
`
	await(t, "the metrics say so", func() bool { // an app instance is pending again for a moment when its own report comes back
		return testutil.GatherAndCompare(reg, strings.NewReader(want), "mep_reconcile_applies_total", "mep_reconcile_failed_rules",
			"mep_reconcile_pending", "mep_reconcile_resyncs_total") == nil
	})
	stop()
	require.InDelta(t, 0, testutil.ToFloat64(r.metrics.pending), 0)
	require.InDelta(t, 0, testutil.ToFloat64(r.metrics.rulesRefused), 0)
}
