package quota

import (
	"fmt"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/openmep/mep/api/state"
)

func TestWindows(t *testing.T) {
	at := func(s string) time.Time {
		v, err := time.Parse(time.RFC3339, s)
		require.NoError(t, err)
		return v
	}
	for name, c := range map[string]struct {
		kind            kind
		now, start, end string
	}{
		"minute":                {minute, "2026-05-15T12:30:59Z", "2026-05-15T12:30:00Z", "2026-05-15T12:31:00Z"},
		"hour":                  {hour, "2026-05-15T12:00:00Z", "2026-05-15T12:00:00Z", "2026-05-15T13:00:00Z"},
		"day":                   {day, "2026-05-15T23:59:59Z", "2026-05-15T00:00:00Z", "2026-05-16T00:00:00Z"},
		"month of 31 days":      {month, "2026-12-31T23:59:59Z", "2026-12-01T00:00:00Z", "2027-01-01T00:00:00Z"},
		"February":              {month, "2026-02-14T00:00:00Z", "2026-02-01T00:00:00Z", "2026-03-01T00:00:00Z"},
		"February of leap year": {month, "2028-02-29T00:00:00Z", "2028-02-01T00:00:00Z", "2028-03-01T00:00:00Z"},
		"windows are of UTC":    {day, "2026-05-15T23:30:00-02:00", "2026-05-16T00:00:00Z", "2026-05-17T00:00:00Z"},
	} {
		t.Run(name, func(t *testing.T) {
			start, end := c.kind.bounds(at(c.now).UnixNano())
			require.Equal(t, at(c.start), time.Unix(0, start).UTC())
			require.Equal(t, at(c.end), time.Unix(0, end).UTC())
		})
	}
}

func TestQuotaBeginsAnewWithItsWindow(t *testing.T) {
	for _, window := range names {
		t.Run(window, func(t *testing.T) {
			r := newCluster(t, 1).replicas(t, 1, noon)[0]
			_, end := kindOf(window).bounds(noon.UnixNano())
			require.Equal(t, 20, r.calls(t, 50, per(window, 20)))
			r.clock.pass(time.Duration(end-noon.UnixNano()) - 1)
			require.Zero(t, r.calls(t, 50, per(window, 20)))
			r.clock.pass(1)
			require.Equal(t, 20, r.calls(t, 50, per(window, 20)), "what is not used does not carry over, what is used neither")
		})
	}
}

func TestClocksOfReplicasMayDiffer(t *testing.T) {
	c := newCluster(t, 2)
	ahead, behind := c.replicas(t, 1, noon.Add(slack))[0], c.replicas(t, 1, noon)[0]
	limit := per("minute", 100)
	require.Equal(t, 100, behind.calls(t, 200, limit))
	require.Equal(t, 100, ahead.calls(t, 200, limit), "in its own window")
	behind.clock.pass(slack)
	require.Zero(t, behind.calls(t, 200, limit), "of which nothing is left when the other one gets there")
}

func TestClockThatIsSetBackAdmitsNothingAgain(t *testing.T) {
	limit := per("minute", 100)
	for name, back := range map[string]time.Duration{"by a window": time.Minute, "as far as records are kept": slack} {
		t.Run(name, func(t *testing.T) {
			r := newCluster(t, 1).replicas(t, 1, noon)[0]
			for range int(back / time.Minute) {
				require.Equal(t, 100, r.calls(t, 200, limit))
				r.clock.pass(time.Minute)
			}
			r.clock.set(-back)
			require.Zero(t, r.calls(t, 200, limit))
			require.Zero(t, r.Quotas.clock.ahead())
			r.clock.pass(back)
			require.Equal(t, 100, r.calls(t, 200, limit))
		})
	}
	t.Run("further is not followed", func(t *testing.T) {
		r := newCluster(t, 1).replicas(t, 1, noon)[0]
		require.Equal(t, 100, r.calls(t, 200, limit))
		r.clock.set(-time.Hour)
		now, _ := r.Quotas.clock.now()
		require.Equal(t, noon.Add(-slack), time.Unix(0, now).UTC())
		require.Equal(t, time.Hour-slack, r.Quotas.clock.ahead())
		r.clock.pass(slack)
		require.Zero(t, r.calls(t, 200, limit))
		r.clock.pass(time.Minute)
		require.Equal(t, 100, r.calls(t, 200, limit), "time goes on")
	})
	t.Run("by a moment at the turn of a window", func(t *testing.T) {
		r := newCluster(t, 1).replicas(t, 1, noon)[0]
		require.Equal(t, 1, r.calls(t, 1, limit))
		r.clock.set(-time.Millisecond)
		require.Equal(t, 99, r.calls(t, 200, limit), "the window stays")
		require.InDelta(t, 0, testutil.ToFloat64(r.metrics.lost), 0)
	})
}

func TestRecordsOutlastTheirWindowsAndShareLeases(t *testing.T) {
	c := newCluster(t, 1)
	r := c.replicas(t, 1, noon)[0]
	for i := range 50 {
		require.True(t, r.Take(t.Context(), "route", fmt.Sprint(i), per("minute", 10), "").Allowed)
		require.True(t, r.Take(t.Context(), "route", fmt.Sprint(i), per("month", 10), "").Allowed)
	}
	leases, err := c.store.Client.Leases(t.Context())
	require.NoError(t, err)
	require.Len(t, leases.Leases, 2)
	for _, k := range []kind{minute, month} {
		start, end := k.bounds(noon.UnixNano())
		resp, err := c.store.Do(t.Context(), clientv3.OpGet(state.QuotaKey("route", "7", names[k], time.Unix(0, start))))
		require.NoError(t, err)
		lease, err := c.store.Client.TimeToLive(t.Context(), clientv3.LeaseID(resp.Get().Kvs[0].Lease))
		require.NoError(t, err)
		lasts := time.Duration(lease.GrantedTTL) * time.Second
		require.GreaterOrEqual(t, lasts, time.Duration(end-noon.UnixNano())+slack)
		require.LessOrEqual(t, lasts, time.Duration(end-noon.UnixNano())+2*slack)
	}
}
