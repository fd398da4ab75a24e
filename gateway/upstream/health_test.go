package upstream

import (
	"context"
	"log/slog"
	"net/http"
	"net/netip"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/api/gateway"
	"github.com/openmep/mep/kit/netguard"
)

func TestHealthChecks(t *testing.T) {
	var well atomic.Bool
	well.Store(true)
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path != "/base/health" || r.URL.RawQuery != "deep=1" || r.Header.Get("User-Agent") != "mep-gateway":
			w.WriteHeader(http.StatusTeapot)
		case !well.Load():
			w.WriteHeader(http.StatusInternalServerError)
		default:
			w.WriteHeader(http.StatusFound)
		}
	})
	w := newWorld(t, Config{})
	p := w.profile(gateway.Upstream{HealthCheck: &gateway.HealthCheck{Path: "/health?deep=1", Interval: "100ms"}}, gateway.Timeouts{})
	eps := w.endpoints(p, s.URL+"/base", named(t, "other").URL)
	require.Equal(t, StateUp, eps[0].View().State, "an endpoint is well until it is found not to be")
	well.Store(false)
	eventually(t, func() bool { return eps[0].View().State == StateUnhealthy }, "it is found unhealthy")
	require.Equal(t, "health check: it answered 500 Internal Server Error", eps[0].View().Reason)
	require.Zero(t, share(eps, 200)[eps[0]])
	require.Zero(t, eps[0].View().Calls, "checks are not calls")
	well.Store(true)
	eventually(t, func() bool { return eps[0].View().State == StateUp }, "it is well again")
	require.Empty(t, eps[0].View().Reason)
}

func TestHowManyChecksChangeTheMind(t *testing.T) {
	w := idle(t, nil)
	e := w.some(1, gateway.Upstream{HealthCheck: &gateway.HealthCheck{Path: "/", Healthy: 2, Unhealthy: 3}})[0]
	row := 0
	judge := func(err error) string {
		row = e.judge(err, row)
		return e.View().State
	}
	bad := http.ErrServerClosed
	for i, c := range []struct {
		err  error
		want string
	}{
		{bad, StateUp}, {bad, StateUp}, {nil, StateUp}, {bad, StateUp}, {bad, StateUp}, {bad, StateUnhealthy},
		{nil, StateUnhealthy}, {bad, StateUnhealthy}, {nil, StateUnhealthy}, {nil, StateUp}, {bad, StateUp},
	} {
		require.Equal(t, c.want, judge(c.err), i)
	}
}

// TestAnEndpointThatWasReleasedIsCheckedNoMore uses a refused address, so that no time passes on the network.
func TestAnEndpointThatWasReleasedIsCheckedNoMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked atomic.Int32
		policy := &netguard.Policy{Listeners: func() []netip.AddrPort {
			asked.Add(1)
			return []netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:80")}
		}}
		m, err := New(Config{Guard: func() *netguard.Policy { return policy }}, slog.New(slog.DiscardHandler), nil)
		require.NoError(t, err)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- m.Run(ctx) }()
		p, err := m.Profile(gateway.Upstream{HealthCheck: &gateway.HealthCheck{Path: "/", Interval: "1s"}}, gateway.Timeouts{})
		require.NoError(t, err)
		e, err := m.Endpoint(p, "http://192.0.2.1")
		require.NoError(t, err)
		time.Sleep(10 * time.Second)
		require.True(t, e.unhealthy.Load())
		e.Release()
		time.Sleep(keepReleased + 2*sweepEvery)
		before := asked.Load()
		require.Greater(t, before, int32(10))
		time.Sleep(time.Hour)
		require.Equal(t, before, asked.Load())
		cancel()
		require.NoError(t, <-ended)
	})
}

func TestChecksOfWhatIsNotThere(t *testing.T) {
	w := newWorld(t, Config{})
	p := w.profile(gateway.Upstream{HealthCheck: &gateway.HealthCheck{Path: "/", Interval: "100ms", Unhealthy: 1}}, gateway.Timeouts{})
	eps := w.endpoints(p, nobody(t))
	eventually(t, func() bool { return eps[0].View().State == StateUnhealthy }, "nobody answers")
	require.Contains(t, eps[0].View().Reason, "refused")
}
