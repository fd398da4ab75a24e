package quota

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/api/gateway"
)

func TestQuotaAdmitsWhatItSays(t *testing.T) {
	for _, limit := range []int64{1, 2, 3, 10, 64, 65, 1000, 10007} {
		t.Run(fmt.Sprint(limit), func(t *testing.T) {
			t.Parallel()
			r := newCluster(t, 1).replicas(t, 1, noon)[0]
			require.EqualValues(t, limit, r.calls(t, int(limit)+10, per("hour", limit)))
			v := r.Take(t.Context(), "route", "app", per("hour", limit), "")
			require.False(t, v.Allowed)
			require.False(t, v.Away)
			require.Zero(t, v.Remaining)
			require.Equal(t, 30*time.Minute, v.Reset)
			require.Equal(t, 30*time.Minute, v.RetryAfter())
			require.InDelta(t, 2, testutil.ToFloat64(r.metrics.refused[hour]), 0)
		})
	}
}

func TestPairsHaveTheirOwnQuotas(t *testing.T) {
	r := newCluster(t, 1).replicas(t, 1, noon)[0]
	for _, p := range []pair{{"a", "x"}, {"a", "y"}, {"b", "x"}, {"a/x", ""}, {"a", ""}, {"", "a"}} {
		require.True(t, r.Take(t.Context(), p.route, p.consumer, per("hour", 1), "").Allowed, p)
		require.False(t, r.Take(t.Context(), p.route, p.consumer, per("hour", 1), "").Allowed, p)
	}
}

func TestNothingIsTakenFromAnyQuotaWhenOneRefuses(t *testing.T) {
	r := newCluster(t, 1).replicas(t, 1, noon)[0]
	quotas := []gateway.Quota{{Calls: 5, Per: "minute"}, {Calls: 12, Per: "hour"}, {Calls: 100, Per: "day"}}
	require.Equal(t, 5, r.calls(t, 50, quotas))
	for range 100 {
		v := r.Take(t.Context(), "route", "app", quotas, "")
		require.False(t, v.Allowed)
		require.Equal(t, "minute", v.Per)
		require.EqualValues(t, 5, v.Limit)
	}
	r.clock.pass(time.Minute)
	require.Equal(t, 5, r.calls(t, 50, quotas))
	r.clock.pass(time.Minute)
	require.Equal(t, 2, r.calls(t, 50, quotas))
	v := r.Take(t.Context(), "route", "app", quotas, "")
	require.Equal(t, "hour", v.Per)
	require.Equal(t, 28*time.Minute, v.Reset)
	r.clock.pass(time.Hour)
	require.Equal(t, 5, r.calls(t, 50, quotas))
}

// TestCallWaitsForAllOfItsQuotas makes the transaction of one quota end after that of the other.
func TestCallWaitsForAllOfItsQuotas(t *testing.T) {
	r := newCluster(t, 1).replicas(t, 1, noon)[0]
	release := make(chan struct{})
	slow := func(key string) {
		if strings.Contains(key, "/hour/") {
			<-release
		}
	}
	r.faults.before.Store(&slow)
	verdict := make(chan Verdict, 1)
	go func() {
		verdict <- r.Take(t.Context(), "route", "app", []gateway.Quota{{Calls: 1, Per: "minute"}, {Calls: 1, Per: "hour"}}, "")
	}()
	require.Eventually(t, func() bool {
		a := r.accounts.lock(pair{"route", "app"})
		defer a.mu.Unlock()
		return a.windows[hour] != nil && a.windows[hour].waiting == 2 || len(verdict) > 0
	}, 20*time.Second, time.Millisecond)
	close(release)
	require.True(t, (<-verdict).Allowed)
}

func TestLowestOfQuotasWithTheSameWindowCounts(t *testing.T) {
	r := newCluster(t, 1).replicas(t, 1, noon)[0]
	require.Equal(t, 3, r.calls(t, 50, []gateway.Quota{{Calls: 7, Per: "hour"}, {Calls: 3, Per: "hour"}, {Calls: 9, Per: "hour"}}))
}

func TestQuotasAtTheEdge(t *testing.T) {
	r := newCluster(t, 1).replicas(t, 1, noon)[0]
	require.True(t, r.Take(t.Context(), "none", "app", nil, "").Allowed)
	require.False(t, r.Take(t.Context(), "zero", "app", per("hour", 0), "").Allowed)
	require.False(t, r.Take(t.Context(), "negative", "app", per("hour", -5), "").Allowed)
	require.True(t, r.Take(t.Context(), "huge", "app", per("month", 1e12), "").Allowed)
	require.True(t, r.Take(t.Context(), "unknown", "app", per("year", 1), "").Allowed)
	require.False(t, r.Take(t.Context(), "unknown", "app", per("year", 1), "").Allowed, "a limit is never left out")
}

func TestLimitOfARunningWindowChanges(t *testing.T) {
	c := newCluster(t, 2)
	list := c.replicas(t, 2, noon)
	require.Equal(t, 30, list[0].calls(t, 30, per("hour", 100)))
	list[0].settle()
	require.Positive(t, list[0].held(hour, "app"))
	require.Equal(t, 10, list[0].calls(t, 100, per("hour", 40)), "lowered")
	require.Zero(t, list[1].calls(t, 100, per("hour", 40)))
	require.Zero(t, list[0].calls(t, 100, per("hour", 7)), "lowered below what was used")
	require.Equal(t, 20, list[1].calls(t, 100, per("hour", 60)), "raised")
	require.Equal(t, 40, list[0].calls(t, 100, per("hour", 100)), "raised")
}

func TestUse(t *testing.T) {
	c := newCluster(t, 1)
	r := c.replicas(t, 1, noon)[0]
	use, err := r.Use(t.Context(), "route", "app")
	require.NoError(t, err)
	require.Empty(t, use)
	require.Equal(t, 4, r.calls(t, 4, []gateway.Quota{{Calls: 7, Per: "month"}, {Calls: 5, Per: "hour"}}))
	r.settle()
	use, err = r.Use(t.Context(), "route", "app")
	require.NoError(t, err)
	require.Len(t, use, 2)
	require.Equal(t, gateway.QuotaUse{
		Route: "route", Consumer: "app", Per: "hour", Limit: 5, Taken: 4,
		Window: noon.Truncate(time.Hour), Resets: noon.Truncate(time.Hour).Add(time.Hour),
	}, use[0])
	require.Equal(t, "month", use[1].Per)
	require.Equal(t, time.Date(2026, 6, 1, 0, 0, 0, 0, time.UTC), use[1].Resets)
	c.server.Stop()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	_, err = r.Use(ctx, "route", "app")
	require.Error(t, err)
}
