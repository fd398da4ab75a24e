package upstream

import (
	"errors"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/api/gateway"
)

// idle returns a world whose Manager is not running.
func idle(t testing.TB, reg prometheus.Registerer) *world {
	m, err := New(Config{Guard: open}, slog.New(slog.DiscardHandler), reg)
	require.NoError(t, err)
	return &world{Manager: m, t: t}
}

func (w *world) some(n int, u gateway.Upstream) []*Endpoint {
	urls := make([]string, n)
	for i := range urls {
		urls[i] = "http://192.0.2." + strconv.Itoa(i+1)
	}
	return w.endpoints(w.profile(u, gateway.Timeouts{}), urls...)
}

// share counts how often each endpoint is chosen in the given number of cases.
func share(eps []*Endpoint, cases int) map[*Endpoint]int {
	chosen := make(map[*Endpoint]int)
	for range cases {
		chosen[choose(eps, new(Attempt))]++
	}
	return chosen
}

func TestTheLessLoadedOfTwoIsChosen(t *testing.T) {
	w := idle(t, nil)
	eps := w.some(3, gateway.Upstream{})
	for _, e := range eps {
		require.InDelta(t, 1000, share(eps, 3000)[e], 200, "alike when they are as loaded")
	}
	eps[1].active.Store(5)
	require.Zero(t, share(eps, 1000)[eps[1]], "the most loaded one loses against any")
	eps[0].active.Store(4)
	chosen := share(eps, 3000)
	require.InDelta(t, 2000, chosen[eps[2]], 200, "the least loaded one is among two of three in two cases of three")
	require.InDelta(t, 1000, chosen[eps[0]], 200)
	require.Equal(t, eps[0], choose(eps[:1], new(Attempt)))
}

func TestCallsUnderWayFollowTheLoad(t *testing.T) {
	w := idle(t, nil)
	eps := w.some(10, gateway.Upstream{})
	for range 1000 {
		choose(eps, new(Attempt)).active.Add(1)
	}
	for _, e := range eps {
		require.InDelta(t, 100, e.active.Load(), 10)
	}
}

func TestEndpointsThatWereTriedComeLast(t *testing.T) {
	w := idle(t, nil)
	eps := w.some(4, gateway.Upstream{})
	for range 200 {
		var a Attempt
		seen := make(map[*Endpoint]bool)
		for range eps {
			e := choose(eps, &a)
			require.False(t, seen[e])
			seen[e] = true
			a.note(e)
		}
		require.NotNil(t, choose(eps, &a), "all were tried")
	}
	eps[3].unhealthy.Store(true)
	var a Attempt
	a.note(eps[0])
	a.note(eps[1])
	a.note(eps[2])
	for range 100 {
		require.NotEqual(t, eps[3], choose(eps, &a), "a usable one is tried again before one that is not")
	}
}

func TestEjectionAndRecovery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := idle(t, nil)
		eps := w.some(3, gateway.Upstream{EjectAfter: 3, EjectFor: "10s"})
		bad := eps[0]
		bad.failed("once")
		bad.failed("twice")
		bad.responded(http.StatusOK, 0)
		bad.failed("once")
		bad.failed("twice")
		require.Equal(t, StateUp, bad.View().State, "failures count in a row")
		bad.failed("it answered 503")
		require.Equal(t, StateEjected, bad.View().State)
		require.Equal(t, "it answered 503", bad.View().Reason)
		require.Zero(t, share(eps, 500)[bad])

		time.Sleep(10*time.Second - time.Millisecond)
		require.Zero(t, share(eps, 500)[bad])
		time.Sleep(time.Millisecond)
		require.Equal(t, StateUp, bad.View().State)
		require.Positive(t, share(eps, 500)[bad], "it gets calls again")

		for times := 2; times < 15; times++ {
			bad.failed("again")
			require.Equal(t, StateEjected, bad.View().State, "one more failure is enough")
			span := time.Duration(min(times, maxGrowth)) * 10 * time.Second
			time.Sleep(span - time.Millisecond)
			require.False(t, bad.usable(), "the time grows, up to ten times")
			time.Sleep(time.Millisecond)
			require.True(t, bad.usable())
		}

		time.Sleep(time.Minute)
		bad.responded(http.StatusOK, 0)
		for range 3 {
			bad.failed("new")
		}
		time.Sleep(10 * time.Second)
		require.True(t, bad.usable(), "after a good time it begins anew")
	})
}

func TestWhatCountsAsAFailure(t *testing.T) {
	w := idle(t, nil)
	e := w.some(1, gateway.Upstream{EjectAfter: 1})[0]
	for _, status := range []int{200, 302, 404, 429, 500, 501, 505} {
		e.responded(status, 0)
		require.Equal(t, StateUp, e.View().State, status)
	}
	for i, status := range []int{502, 503, 504} {
		e := w.some(4, gateway.Upstream{EjectAfter: 1})[i+1]
		e.responded(status, 0)
		require.Equal(t, StateEjected, e.View().State, status)
		require.Contains(t, e.View().Reason, strconv.Itoa(status))
	}
	never := w.some(1, gateway.Upstream{EjectAfter: -1})[0]
	for range 100 {
		never.failed("whatever")
	}
	require.Equal(t, StateUp, never.View().State)
	require.EqualValues(t, 100, never.View().Failures)
}

func TestWhenAllAreEjectedAllAreCalled(t *testing.T) {
	var broken atomic.Bool
	broken.Store(true)
	h := func(w http.ResponseWriter, _ *http.Request) {
		if broken.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}
	w := newWorld(t, Config{})
	p := w.profile(gateway.Upstream{EjectAfter: 2, EjectFor: "1h"}, gateway.Timeouts{})
	eps := w.endpoints(p, serve(t, h).URL, serve(t, h).URL)
	ejected := func() bool { return eps[0].View().State == StateEjected && eps[1].View().State == StateEjected }
	for range 100 {
		require.Equal(t, http.StatusServiceUnavailable, w.get(p, eps, "/").StatusCode)
	}
	require.True(t, ejected())
	broken.Store(false)
	require.Equal(t, http.StatusOK, w.get(p, eps, "/").StatusCode)
	require.False(t, ejected(), "who answers well is not avoided any more")
}

func TestSlowStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := idle(t, nil)
		u := gateway.Upstream{SlowStart: "100s", EjectAfter: 1, EjectFor: "10s"}
		old := w.some(1, u)
		time.Sleep(time.Hour)
		eps := w.some(2, u)
		require.Equal(t, old[0], eps[0])
		for elapsed, want := range []float64{0: minWeight, 1: .25, 2: .5, 3: .75, 4: 1} {
			require.InDelta(t, want, eps[1].weight(w.now()), 1e-6)
			// The new endpoint is considered in this share of the cases, and chosen in half of those.
			require.InDelta(t, 5000*want, share(eps, 10000)[eps[1]], 400, "after %d quarters", elapsed)
			time.Sleep(25 * time.Second)
		}
		eps[1].failed("")
		time.Sleep(10 * time.Second)
		require.True(t, eps[1].usable())
		require.InDelta(t, minWeight, eps[1].weight(w.now()), 1e-6, "one that comes back begins slowly, too")

		fresh := w.some(5, u)[2:]
		for _, e := range fresh {
			require.InDelta(t, 1000, share(fresh, 3000)[e], 200, "those that are as new share alike")
		}
	})
}

func TestSlowStartUnderLoad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := idle(t, nil)
		u := gateway.Upstream{SlowStart: "100s"}
		w.some(1, u)
		time.Sleep(time.Hour)
		eps := w.some(2, u)
		time.Sleep(50 * time.Second)
		eps[0].active.Store(100)
		eps[1].active.Store(60)
		require.Zero(t, share(eps, 500)[eps[1]], "60 are more for it than 100 for the other")
		eps[1].active.Store(10)
		require.InDelta(t, 500, share(eps, 1000)[eps[1]], 100)
	})
}

func TestMetrics(t *testing.T) {
	reg := prometheus.NewRegistry()
	w := idle(t, reg)
	eps := w.some(5, gateway.Upstream{EjectAfter: 1})
	eps[0].failed("x")
	eps[1].unhealthy.Store(true)
	w.endpoints(eps[0].profile, "http://169.254.1.1/")
	eps[0].noteFailure(failReset, errors.New("x"))
	w.metrics.failed(failRefused)
	w.metrics.responded(http.StatusOK)
	w.metrics.responded(http.StatusBadGateway)
	require.NoError(t, testutil.GatherAndCompare(reg, strings.NewReader(`
		# HELP mep_gateway_upstream_attempts_total Attempts to call an endpoint, by result.
		# TYPE mep_gateway_upstream_attempts_total counter
		mep_gateway_upstream_attempts_total{result="bad_status"} 1
		mep_gateway_upstream_attempts_total{result="cancelled"} 0
		mep_gateway_upstream_attempts_total{result="client_fault"} 0
		mep_gateway_upstream_attempts_total{result="connect_failed"} 0
		mep_gateway_upstream_attempts_total{result="connect_timeout"} 0
		mep_gateway_upstream_attempts_total{result="ok"} 1
		mep_gateway_upstream_attempts_total{result="refused"} 1
		mep_gateway_upstream_attempts_total{result="reset"} 0
		mep_gateway_upstream_attempts_total{result="timeout"} 0
		# HELP mep_gateway_upstream_ejections_total Endpoints that were left out after failures.
		# TYPE mep_gateway_upstream_ejections_total counter
		mep_gateway_upstream_ejections_total 1
		# HELP mep_gateway_upstream_endpoints Endpoints that calls may go to, by state.
		# TYPE mep_gateway_upstream_endpoints gauge
		mep_gateway_upstream_endpoints{state="ejected"} 1
		mep_gateway_upstream_endpoints{state="refused"} 1
		mep_gateway_upstream_endpoints{state="unhealthy"} 1
		mep_gateway_upstream_endpoints{state="up"} 3
		# HELP mep_gateway_upstream_refusals_total Attempts that ended because the address may not be called.
		# TYPE mep_gateway_upstream_refusals_total counter
		mep_gateway_upstream_refusals_total 1
		# HELP mep_gateway_upstream_retries_total Requests that were sent again because they could not be delivered.
		# TYPE mep_gateway_upstream_retries_total counter
		mep_gateway_upstream_retries_total 0
	`)))
}

func TestTheViewOfAnEndpoint(t *testing.T) {
	w := idle(t, nil)
	e := w.some(1, gateway.Upstream{})[0]
	e.active.Store(2)
	e.calls.Store(7)
	e.failures.Store(1)
	require.Equal(t, gateway.TargetView{URL: "http://192.0.2.1", State: StateUp, Active: 2, Calls: 7, Failures: 1}, e.View())
}
