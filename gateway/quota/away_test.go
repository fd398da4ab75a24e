package quota

import (
	"context"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/openmep/mep/api/gateway"
	"github.com/openmep/mep/api/state"
)

func TestLeaseThatEndedEarlyIsReplaced(t *testing.T) {
	c := newCluster(t, 1)
	r := c.replicas(t, 1, noon)[0]
	require.Equal(t, 3, r.calls(t, 3, per("hour", 10)))
	leases, err := c.store.Client.Leases(t.Context())
	require.NoError(t, err)
	for _, l := range leases.Leases {
		_, err := c.store.Client.Revoke(t.Context(), l.ID)
		require.NoError(t, err)
	}
	require.Equal(t, 7, r.calls(t, 20, per("hour", 10)), "what was admitted is remembered although the record vanished")
}

func TestEtcdAway(t *testing.T) {
	c := newCluster(t, 1)
	r := c.replicas(t, 1, noon)[0]
	limit := per("hour", 1000)
	require.Equal(t, 1, r.calls(t, 1, limit))
	held := r.held(hour, "app")
	require.Equal(t, 10, r.calls(t, 20, per("day", 10)))
	r.settle()
	c.server.Stop()
	r.patience, r.bound = 100*time.Millisecond, 200*time.Millisecond
	require.EqualValues(t, held, r.calls(t, 2000, limit), "what is held is used up")
	r.settle()
	tried := r.faults.count.Load()
	for range 10000 {
		v := r.Take(t.Context(), "route", "app", limit, gateway.AwayRefuse)
		require.False(t, v.Allowed)
		require.True(t, v.Away)
		require.Equal(t, time.Second, v.RetryAfter())
		v = r.Take(t.Context(), "route", "app", limit, gateway.AwayAllow)
		require.True(t, v.Allowed)
		require.True(t, v.Away)
		require.Zero(t, v.RetryAfter())
	}
	r.settle()
	require.LessOrEqual(t, r.faults.count.Load(), tried+1, "nobody asks an etcd that did not answer a moment ago")
	v := r.Take(t.Context(), "route", "app", per("day", 10), gateway.AwayAllow)
	require.False(t, v.Allowed, "a quota that is known to be used up refuses")
	require.False(t, v.Away)
	require.InDelta(t, 10000, testutil.ToFloat64(r.metrics.awayLet), 0)

	r.patience, r.bound = time.Minute, time.Minute
	c.server.StartAgain(t)
	require.Eventually(t, func() bool {
		r.clock.pass(time.Duration(retry))
		return r.Take(t.Context(), "route", "app", limit, "").Allowed
	}, 20*time.Second, 10*time.Millisecond)
	lost := int(testutil.ToFloat64(r.metrics.lost))
	rest := r.calls(t, 2000, limit)
	require.GreaterOrEqual(t, int(held)+2+rest+lost, 1000)
	require.LessOrEqual(t, int(held)+2+rest, 1000)
}

func TestTheFirstCallAfterEtcdIsBackIsCounted(t *testing.T) {
	c := newCluster(t, 1)
	r := c.replicas(t, 1, noon)[0]
	two := append(per("minute", 10), per("hour", 100)...)
	r.faults.percent.Store(100)
	require.True(t, r.Take(t.Context(), "route", "app", two, "").Away)
	r.settle()
	require.True(t, r.circuit.open())
	require.True(t, r.Take(t.Context(), "route", "app", two, "").Away, "it was asked a moment ago")
	r.clock.pass(time.Duration(retry))
	require.True(t, r.Take(t.Context(), "route", "app", two, "").Away, "it is away still")
	r.settle()
	r.faults.percent.Store(0)
	r.clock.pass(time.Duration(retry))
	require.True(t, r.Take(t.Context(), "route", "app", two, "").Allowed)
}

func TestLostAnswers(t *testing.T) {
	limit := per("hour", 1000)
	begin := noon.Truncate(time.Hour)
	t.Run("what may have been taken is not at hand", func(t *testing.T) {
		c := newCluster(t, 2)
		list := c.replicas(t, 2, noon)
		list[0].faults.percent.Store(100)
		list[0].faults.deliver.Store(true)
		require.True(t, list[0].Take(t.Context(), "route", "app", limit, "").Away)
		list[0].settle()
		taken := c.taken(t, "hour", begin)
		require.Positive(t, taken)
		require.Zero(t, list[0].held(hour, "app"))
		require.InDelta(t, taken, testutil.ToFloat64(list[0].metrics.lost), 0)
		require.EqualValues(t, 1000-taken, list[1].calls(t, 2000, limit))
	})
	t.Run("what may have been given back is not given back again", func(t *testing.T) {
		c := newCluster(t, 2)
		list := c.replicas(t, 2, noon)
		require.Equal(t, 100, list[1].calls(t, 100, limit))
		list[1].settle()
		used := 100 + list[1].held(hour, "app")
		require.Equal(t, 1, list[0].calls(t, 1, limit))
		list[0].faults.percent.Store(100)
		list[0].faults.deliver.Store(true)
		for range 3 {
			list[0].clock.pass(31 * time.Second)
			list[0].sweep()
			list[0].settle()
			list[0].faults.percent.Store(0)
		}
		require.Equal(t, used+1, c.taken(t, "hour", begin))
		require.Zero(t, list[0].held(hour, "app"))
	})
}

func TestWaitEndsWithTheCaller(t *testing.T) {
	c := newCluster(t, 1)
	r := c.replicas(t, 1, noon)[0]
	for range cap(r.tickets) {
		r.tickets <- struct{}{} // slow transactions
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	v := r.Take(ctx, "route", "app", per("hour", 10), gateway.AwayAllow)
	require.False(t, v.Allowed)
	r.patience = time.Millisecond
	v = r.Take(t.Context(), "route", "app", per("hour", 10), gateway.AwayRefuse)
	require.False(t, v.Allowed, "nor does it last long")
	require.True(t, v.Away)
	for range cap(r.tickets) {
		<-r.tickets
	}
	r.settle()
	r.patience = time.Minute
	require.Equal(t, 10, r.calls(t, 20, per("hour", 10)), "what others were given up for is there")
}

func TestDamagedRecordIsNotCountedOn(t *testing.T) {
	c := newCluster(t, 1)
	r := c.replicas(t, 1, noon)[0]
	_, err := c.store.Do(t.Context(), clientv3.OpPut(state.QuotaKey("route", "app", "hour", noon.Truncate(time.Hour)), "{"))
	require.NoError(t, err)
	v := r.Take(t.Context(), "route", "app", per("hour", 10), "")
	require.False(t, v.Allowed)
	require.True(t, v.Away)
}
