package reconcile

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"
	"pgregory.net/rapid"

	"github.com/openmep/mep/api/mp1"
	"github.com/openmep/mep/api/state"
	"github.com/openmep/mep/kit/leader"
)

// Whatever happens, once the other side answers again and refuses nothing, it holds exactly what should be in force, and the
// reports say so.
func TestTheOtherSideEndsUpWithWhatIsToBeInForce(t *testing.T) {
	p := newPlatform(t)
	rapid.Check(t, func(rt *rapid.T) {
		p.do(rt, clientv3.OpDelete(state.Root, clientv3.WithPrefix()))
		w := &world{platform: p, side: newSide(), want: make(map[string]*state.TrafficRules)}
		w.start()
		defer func() { w.stop() }()
		rt.Repeat(map[string]func(*rapid.T){
			"declare": w.declareSome,
			"remove":  func(rt *rapid.T) { w.forget(rt, anApp(rt)) },
			"stop":    w.stopApp,
			"down":    func(*rapid.T) { w.side.set(func() { w.side.down = errors.New("down") }) },
			"up":      func(*rapid.T) { w.side.set(func() { w.side.down = nil }) },
			"poison":  func(rt *rapid.T) { app := anApp(rt); w.side.set(func() { w.side.poison[app] = errors.New("no") }) },
			"refuse":  func(rt *rapid.T) { rule := aRule(rt); w.side.set(func() { w.side.refuses[rule] = "no" }) },
			"accept": func(*rapid.T) {
				w.side.set(func() { clear(w.side.refuses); clear(w.side.poison) })
			},
			"lose":    func(*rapid.T) { w.side.lose() },
			"restart": func(*rapid.T) { w.stop(); w.start() },
			"kill":    w.kill,
			"meddle": func(rt *rapid.T) {
				p.do(rt, clientv3.OpPut(state.StatusKey(name, anApp(rt)), `{"v":1,"generation":77,"reported":"2026-01-01T00:00:00Z"}`))
			},
		})
		w.side.set(func() {
			w.side.down, w.side.answered = nil, nil
			clear(w.side.refuses)
			clear(w.side.poison)
		})
		w.check(rt)
	})
}

const someApps, someRules = 5, 4

func anApp(rt *rapid.T) string { return appName(rapid.IntRange(0, someApps-1).Draw(rt, "app")) }

func aRule(rt *rapid.T) string {
	return fmt.Sprintf("rule-%02d", rapid.IntRange(0, someRules-1).Draw(rt, "rule"))
}

// world is what should be in force, and the reconciler that puts it in force.
type world struct {
	*platform
	side       *side
	want       map[string]*state.TrafficRules
	reconciler *Reconciler
	stop       func()
}

func (w *world) start() {
	w.reconciler = w.platform.reconciler(quick(), w.side)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	w.side.set(func() { w.side.answered = nil })
	go func() {
		defer close(done)
		_ = w.reconciler.Run(ctx, leader.Term{})
	}()
	w.stop = func() { cancel(); <-done }
}

// kill ends the process right after the other side accepted a set, and starts another one.
func (w *world) kill(rt *rapid.T) {
	w.stop()
	r := w.platform.reconciler(quick(), w.side)
	ctx, cancel := context.WithCancel(context.Background())
	w.side.set(func() { w.side.answered = func(string) { cancel() } })
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = r.Run(ctx, leader.Term{})
	}()
	w.declareSome(rt)
	if rapid.Bool().Draw(rt, "wait for an answer") {
		w.side.mu.Lock()
		answers := w.side.down == nil && len(w.side.poison) == 0
		w.side.mu.Unlock()
		if answers {
			<-ctx.Done()
		}
	}
	cancel()
	<-done
	w.start()
}

func (w *world) declareSome(rt *rapid.T) {
	app := anApp(rt)
	rules := rapid.SliceOfNDistinct(rapid.IntRange(0, someRules-1), 0, someRules, rapid.ID).Draw(rt, "rules")
	rec := &state.TrafficRules{Version: state.Current(), Generation: 1, Running: true}
	if was := w.want[app]; was != nil {
		rec.Generation = was.Generation + 1
	}
	for _, n := range rules {
		rec.Rules = append(rec.Rules, traffic(fmt.Sprintf("rule-%02d", n))...)
	}
	w.want[app] = rec
	w.put(rt, state.TrafficRulesKey(app), *rec)
}

func (w *world) forget(rt *rapid.T, app string) {
	delete(w.want, app)
	w.remove(rt, app)
}

func (w *world) stopApp(rt *rapid.T) {
	app := anApp(rt)
	if rec := w.want[app]; rec != nil && rec.Running {
		stopped := *rec
		stopped.Running = false
		stopped.Generation++
		w.want[app] = &stopped
		w.put(rt, state.TrafficRulesKey(app), stopped)
	}
}

func (w *world) inForce(app string) []string {
	ids := []string{}
	if rec := w.want[app]; rec != nil && rec.Running {
		for i := range rec.Rules {
			if rule := rec.Rules[i].Present(); rule.State == mp1.RuleActive {
				ids = append(ids, rule.TrafficRuleID)
			}
		}
	}
	slices.Sort(ids)
	return ids
}

func (w *world) check(rt *rapid.T) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	resp, err := w.store.Client.Get(ctx, state.Root)
	require.NoError(rt, err)
	require.NoError(rt, w.mirror.WaitRevision(ctx, resp.Header.Revision))
	await(rt, "the reconciler is at rest", func() bool {
		h := w.reconciler.Health()
		return h.Resyncs > 0 && h.Pending == 0 && h.Refused == 0
	})
	for i := range someApps {
		app := appName(i)
		want := w.inForce(app)
		// The reconciler may not have noticed yet that the other side lost something.
		await(rt, fmt.Sprintf("%s has %v in force", app, want), func() bool { return slices.Equal(w.side.holds(app), want) })
		rec := w.want[app]
		s, _ := w.reported(rt, app)
		if rec == nil {
			require.Nil(rt, s, "what is reported of %s", app)
			continue
		}
		require.NotNil(rt, s, "what is reported of %s", app)
		require.Equal(rt, rec.Generation, s.Generation)
		require.ElementsMatch(rt, want, s.Applied)
		require.Empty(rt, s.Failed)
	}
	require.Zero(rt, w.side.overlaps)
	require.Subset(rt, slices.Collect(maps.Keys(w.want)), w.side.apps())
}
