package blackbox

import (
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/tests/harness"
)

// monitored is a registration that asks for heartbeats.
func monitored(name string, interval int) object { return but(own(name), "livenessInterval", interval) }

type livenessInfo struct {
	State     string
	TimeStamp struct{ Seconds, NanoSeconds uint32 }
	Interval  int
}

func (i livenessInfo) at() time.Time {
	return time.Unix(int64(i.TimeStamp.Seconds), int64(i.TimeStamp.NanoSeconds))
}

func (a app) livenessInfo(id string) (info livenessInfo) {
	a.TB().Helper()
	a.Get(a.liveness(id)).Is(200).Into(&info)
	return info
}

func (a app) state(id string) string {
	a.TB().Helper()
	state, _ := a.Get(services + "/" + id).Is(200).Object()["state"].(string)
	return state
}

func TestTheHeartbeatIntervalIsKeptWithinBounds(t *testing.T) {
	t.Parallel()
	type row struct{ asked, imposed int }
	for name, x := range map[string]struct {
		args []string
		rows []row
	}{
		"the default ones": {nil, []row{{0, 60}, {1, 1}, {2, 2}, {60, 60}, {3600, 3600}, {3601, 3600}, {1 << 40, 3600}}},
		"others": {
			[]string{"--liveness-min=2s", "--liveness-max=10s", "--liveness-default=5s"},
			[]row{{0, 5}, {1, 2}, {2, 2}, {7, 7}, {10, 10}, {11, 10}, {100, 10}},
		},
		"a default outside of them": {
			[]string{"--liveness-min=90s", "--liveness-max=100s"}, []row{{0, 90}, {1, 90}, {95, 95}, {101, 100}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := harness.Start(t, harness.Args(x.args...))
			a := newApp(p.Client(t))
			for _, r := range x.rows {
				svc := a.register(monitored("x", r.asked))
				require.EqualValues(t, r.imposed, svc.info["livenessInterval"], "asked for %d", r.asked)
				href := p.URL("mp1") + a.liveness(svc.id)
				same(t, object{"href": href}, svc.info["_links"].(object)["liveness"])
				require.Equal(t, r.imposed, a.livenessInfo(svc.id).Interval)
				put := a.replace(svc.id, own("x"))
				require.NotContains(t, put.info, "livenessInterval")
				require.NotContains(t, put.info["_links"], "liveness")
				require.EqualValues(t, r.imposed, a.replace(svc.id, monitored("x", r.asked)).info["livenessInterval"])
			}
		})
	}
}

func TestAServiceThatDoesNotAskIsNotMonitored(t *testing.T) {
	t.Parallel()
	p := harness.Start(t)
	a := newApp(p.Client(t))
	svc := a.register(own("x"))
	for _, info := range []object{svc.info, a.Get(a.service(svc.id)).Object(), a.Get(services).Array()[0]} {
		require.NotContains(t, info, "livenessInterval")
		require.NotContains(t, info["_links"], "liveness")
	}
	a.Get(a.liveness(svc.id)).Problem(404)
	a.Head(a.liveness(svc.id)).Is(404)
	a.beat(svc.id).Problem(404)
	a.Put(a.liveness(svc.id), object{"state": "ACTIVE"}).Problem(404)
}

func TestHeartbeats(t *testing.T) {
	t.Parallel()
	p := harness.Start(t)
	t.Run("are accepted in every form", func(t *testing.T) {
		t.Parallel()
		a := newApp(p.Client(t))
		svc := a.register(monitored("x", 60))
		for _, prefix := range []string{"", "/mep"} {
			for _, method := range []string{"PATCH", "PUT"} {
				for _, mt := range []string{"application/json", "application/merge-patch+json", "", "application/merge-patch+json; charset=utf-8"} {
					before := a.livenessInfo(svc.id)
					answer := a.Do(method, a.under(prefix).liveness(svc.id), object{"state": "ACTIVE", "unknown": 1}, harness.Header("Content-Type", mt))
					require.Empty(t, answer.Is(204).Body)
					after := a.livenessInfo(svc.id)
					require.True(t, after.at().After(before.at()), "%v is not after %v", after.at(), before.at())
					require.Equal(t, "ACTIVE", after.State)
				}
			}
		}
		require.WithinDuration(t, time.Now(), a.livenessInfo(svc.id).at(), time.Minute)
	})
	t.Run("change no entity-tag of the service, but that of the liveness resource", func(t *testing.T) {
		t.Parallel()
		a := newApp(p.Client(t))
		svc := a.register(monitored("x", 60))
		stale := a.Get(a.liveness(svc.id)).ETag()
		a.beat(svc.id, harness.Header("If-Match", stale)).Is(204)
		current := a.Get(a.liveness(svc.id)).ETag()
		require.NotEqual(t, stale, current)
		for _, other := range []string{stale, `"no.1"`, "no.1", svc.etag, "W/" + current} {
			a.beat(svc.id, harness.Header("If-Match", other)).Problem(412)
			require.Equal(t, current, a.Get(a.liveness(svc.id)).ETag(), "a heartbeat that is refused is none")
		}
		a.beat(svc.id, harness.Header("If-Match", "*")).Is(204)
		got := a.Get(services + "/" + svc.id)
		require.Equal(t, svc.etag, got.ETag())
		same(t, svc.info, got.Object())
	})
	t.Run("by PUT are answered with the new entity-tag", func(t *testing.T) {
		t.Parallel()
		a := newApp(p.Client(t))
		svc := a.register(monitored("x", 60))
		put := a.Put(a.liveness(svc.id), object{"state": "ACTIVE"}).Is(204)
		require.Equal(t, a.Get(a.liveness(svc.id)).ETag(), put.ETag()) // decision 6: on every GET, PUT and POST
	})
	t.Run("do not activate what is inactive", func(t *testing.T) {
		t.Parallel()
		a := newApp(p.Client(t))
		svc := a.register(but(monitored("x", 10), "state", "INACTIVE"))
		require.Equal(t, "INACTIVE", a.livenessInfo(svc.id).State)
		a.beat(svc.id).Problem(409)
		a.Put(a.liveness(svc.id), object{"state": "ACTIVE"}).Problem(409)
		require.Equal(t, "INACTIVE", a.state(svc.id))
		require.Equal(t, svc.etag, a.Get(a.service(svc.id)).ETag())
		a.replace(svc.id, monitored("x", 10))
		a.beat(svc.id).Is(204)
	})
	for name, body := range map[string]any{
		"INACTIVE": object{"state": "INACTIVE"}, "SUSPENDED": object{"state": "SUSPENDED"}, "active": object{"state": "active"},
		"a number": object{"state": 1}, "no state": object{}, "null": object{"state": nil}, "an array": []any{}, "nothing": "",
	} {
		t.Run("with "+name+" are refused", func(t *testing.T) {
			t.Parallel()
			a := newApp(p.Client(t))
			svc := a.register(monitored("x", 60))
			before := a.Get(a.liveness(svc.id)).ETag()
			for _, method := range []string{"PATCH", "PUT"} {
				problem := a.Do(method, a.liveness(svc.id), body).Problem(400)
				if _, isObject := body.(object); isObject {
					require.Equal(t, []string{"state"}, problem.Names())
				}
			}
			require.Equal(t, before, a.Get(a.liveness(svc.id)).ETag())
		})
	}
}

// beating keeps a service alive until the test ends.
func beating(t *testing.T, p *harness.Process, a app, ids ...string) {
	t.Helper()
	c := p.Unchecked(t)
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for {
			for _, id := range ids {
				answer, err := c.Try(http.MethodPatch, a.liveness(id), object{"state": "ACTIVE"})
				if err != nil || answer.Status != 204 {
					t.Errorf("heartbeat: %v %+v", err, answer)
					return
				}
			}
			select {
			case <-tick.C:
			case <-stop:
				return
			}
		}
	}()
	t.Cleanup(func() {
		close(stop)
		<-done
	})
}

func TestAServiceWithoutHeartbeatsIsSuspendedUntilOneComes(t *testing.T) {
	t.Parallel()
	p := harness.Start(t)
	a := newApp(p.Client(t))
	cb := harness.NewSubscriber(t)
	a.subscribe(cb.URL("/cb"), nil)
	alive := a.register(monitored("alive", 1))
	beating(t, p, a, alive.id)
	off := a.register(but(monitored("off", 1), "state", "INACTIVE"))
	begin := time.Now()
	svc := a.register(monitored("silent", 1))

	suspended := cb.AwaitChange(t, "/cb", "STATE_CHANGED silent SUSPENDED")
	// The interval and a grace of at least a second.
	require.GreaterOrEqual(t, suspended.At.Sub(begin), 2*time.Second)
	require.Equal(t, svc.id, suspended.Change.SerInstanceID)
	require.Equal(t, "SUSPENDED", a.state(svc.id))
	require.Equal(t, "SUSPENDED", a.livenessInfo(svc.id).State)
	require.Equal(t, []string{"alive", "off"}, names(a.Get(services).Array(), "serName"))
	require.Equal(t, []string{"alive", "off", "silent"}, names(a.Get(a.services()).Array(), "serName"))
	tag := a.Get(a.service(svc.id)).ETag()
	require.NotEqual(t, svc.etag, tag)
	require.Equal(t, "SUSPENDED", a.replace(svc.id, a.Get(a.service(svc.id)).Object()).info["state"], "what was read may be sent back")

	a.beat(svc.id).Is(204)
	require.Equal(t, "ACTIVE", a.state(svc.id), "the heartbeat counts as soon as it is answered")
	require.Contains(t, names(a.Get(services).Array(), "serName"), "silent")
	back := cb.AwaitChange(t, "/cb", "STATE_CHANGED silent ACTIVE")
	require.True(t, back.At.After(suspended.At))
	a.remove(svc.id)
	told(t, cb, "/cb", "ADDED alive ACTIVE", "ADDED off INACTIVE", "ADDED silent ACTIVE",
		"STATE_CHANGED silent SUSPENDED", "STATE_CHANGED silent ACTIVE", "REMOVED silent ACTIVE")
	require.Equal(t, alive.etag, a.Get(a.service(alive.id)).ETag(), "nothing happened to the one that sends heartbeats")
	require.Equal(t, off.etag, a.Get(a.service(off.id)).ETag(), "nor to the one that is inactive")
}

func TestAReplacementEndsASuspension(t *testing.T) {
	t.Parallel()
	p := harness.Start(t)
	a := newApp(p.Client(t))
	cb := harness.NewSubscriber(t)
	a.subscribe(cb.URL("/cb"), nil)
	for state, want := range map[string]string{"ACTIVE": "STATE_CHANGED", "INACTIVE": "STATE_CHANGED"} {
		svc := a.register(monitored(state, 1))
		cb.AwaitChange(t, "/cb", "STATE_CHANGED "+state+" SUSPENDED")
		a.replace(svc.id, but(monitored(state, 1), "state", state))
		require.Equal(t, state, a.state(svc.id))
		require.Equal(t, svc.id, cb.AwaitChange(t, "/cb", want+" "+state+" "+state).Change.SerInstanceID)
		a.remove(svc.id)
	}
}

func TestASuspendedServiceIsRemovedWhereThatIsConfigured(t *testing.T) {
	t.Parallel()
	p := harness.Start(t, harness.Args("--liveness-remove-after=1s"))
	a := newApp(p.Client(t))
	cb := harness.NewSubscriber(t)
	a.subscribe(cb.URL("/cb"), nil)
	begin := time.Now()
	svc := a.register(monitored("x", 1))
	told(t, cb, "/cb", "ADDED x ACTIVE", "STATE_CHANGED x SUSPENDED", "REMOVED x SUSPENDED")
	a.Get(services + "/" + svc.id).Problem(404)
	a.beat(svc.id).Problem(404)
	// The interval, a grace of a second, and what is configured: from one notice to the next is another time, for each has a way of its own.
	require.GreaterOrEqual(t, cb.Distinct()[2].At.Sub(begin), 3*time.Second)
}

// When most services fall silent together the platform is the likelier fault (decision 18).
func TestExpiryPausesWhenMostServicesFallSilentTogether(t *testing.T) {
	t.Parallel()
	p := harness.Start(t)
	a := newApp(p.Unchecked(t))
	cb := harness.NewSubscriber(t)
	a.subscribe(cb.URL("/cb"), object{"states": []any{"SUSPENDED"}})
	const count = 25
	var registering sync.WaitGroup
	for i := range count {
		registering.Go(func() {
			if _, err := a.Try("POST", a.services(), monitored(fmt.Sprint("s", i), 3)); err != nil {
				t.Error(err)
			}
		})
	}
	registering.Wait()
	// A start gives everyone a full interval: now all are due at the same time.
	p.Stop()
	begin := time.Now()
	p.Restart()
	paused := func(want string) error {
		metrics := string(p.Ops(t).Get("/metrics").Is(200).Body)
		found := regexp.MustCompile(`(?m)^mep_liveness_\S+ \S+$`).FindAllString(metrics, -1)
		return harness.Not(slices.Contains(found, "mep_liveness_expiry_paused "+want), "%d suspended, %v", len(cb.Distinct()), found)
	}
	harness.Eventually(t, "the alarm is raised", func() error { return paused("1") })
	harness.Eventually(t, "they are suspended after all", func() error {
		return harness.Not(len(cb.Distinct()) == count, "%d are", len(cb.Distinct()))
	})
	// Interval, grace, and one interval more.
	require.GreaterOrEqual(t, cb.All()[0].At.Sub(begin), 7*time.Second)
	harness.Eventually(t, "the alarm is over", func() error { return paused("0") })
}

func TestAnIntervalThatNoLongerHoldsIsImposedAnew(t *testing.T) {
	t.Parallel()
	p := harness.Start(t, harness.Config("liveness: {min: 1s, max: 1h}\n"))
	a := newApp(p.Client(t))
	low, fine, high := a.register(monitored("low", 2)), a.register(monitored("fine", 60)), a.register(monitored("high", 3000))
	unset := a.register(monitored("unset", 0))
	for _, svc := range []registered{low, fine, high, unset} {
		a.beat(svc.id).Is(204)
	}
	require.True(t, p.Reload("liveness: {min: 30s, max: 100s, default: 40s}\n"))
	for svc, want := range map[*registered]int{&low: 30, &high: 100, &unset: 40} {
		answer := a.beat(svc.id).Is(200)
		var info livenessInfo
		answer.Into(&info)
		require.Equal(t, want, info.Interval)
		require.Equal(t, "ACTIVE", info.State)
		require.EqualValues(t, want, a.Get(a.service(svc.id)).Object()["livenessInterval"])
		require.Equal(t, want, a.livenessInfo(svc.id).Interval)
		a.beat(svc.id).Is(204)
	}
	a.beat(fine.id).Is(204)
	require.Equal(t, fine.etag, a.Get(a.service(fine.id)).ETag())

	require.True(t, p.Reload("liveness: {min: 1s}\n"))
	var info livenessInfo
	a.Put(a.liveness(low.id), object{"state": "ACTIVE"}).Is(200).Into(&info)
	require.Equal(t, 2, info.Interval, "what the app asked for is not forgotten")
}

// A replacement asks anew, also when the answer is the same.
func TestTheIntervalThatWasAskedForLastCounts(t *testing.T) {
	t.Parallel()
	p := harness.Start(t, harness.Config("liveness: {default: 60s}\n"))
	a := newApp(p.Client(t))
	svc := a.register(monitored("x", 0))
	require.EqualValues(t, 60, svc.info["livenessInterval"])
	require.EqualValues(t, 60, a.replace(svc.id, monitored("x", 60)).info["livenessInterval"])
	require.True(t, p.Reload("liveness: {default: 40s}\n"))
	a.beat(svc.id).Is(204)
	require.Equal(t, 60, a.livenessInfo(svc.id).Interval)
}

func TestHeartbeatsOutliveARestart(t *testing.T) {
	t.Parallel()
	p := harness.Start(t)
	a := newApp(p.Client(t))
	cb := harness.NewSubscriber(t)
	a.subscribe(cb.URL("/cb"), object{"states": []any{"SUSPENDED"}})
	svc := a.register(monitored("x", 2))
	silent := a.register(monitored("y", 1))
	cb.AwaitChange(t, "/cb", "STATE_CHANGED y SUSPENDED")
	a.beat(svc.id).Is(204)
	p.Kill()
	begin := time.Now()
	p.Restart()
	// Nobody could be heard meanwhile: everyone gets a full interval again.
	require.Equal(t, "ACTIVE", a.state(svc.id))
	require.Equal(t, "SUSPENDED", a.state(silent.id))
	d := cb.AwaitChange(t, "/cb", "STATE_CHANGED x SUSPENDED")
	require.GreaterOrEqual(t, d.At.Sub(begin), 2*time.Second)
	a.beat(silent.id).Is(204)
	require.Equal(t, "ACTIVE", a.state(silent.id))
}
