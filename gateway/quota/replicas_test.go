package quota

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
)

// TestReplicasThatAllAskAdmitEverything calls the replicas in turn and concurrently.
func TestReplicasThatAllAskAdmitEverything(t *testing.T) {
	for _, n := range []int{2, 3, 5} {
		for _, limit := range []int64{1, 7, 100, 1000, 5000} {
			t.Run(fmt.Sprintf("%d calls at %d replicas", limit, n), func(t *testing.T) {
				t.Parallel()
				list := newCluster(t, n).replicas(t, n, noon)
				var admitted atomic.Int64
				var all sync.WaitGroup
				for _, r := range list {
					for range 3 {
						all.Go(func() { admitted.Add(int64(r.calls(t, int(limit)+1, per("hour", limit)))) })
					}
				}
				all.Wait()
				// A replica may have been refused before others took their last calls: call all of them again.
				for _, r := range list {
					admitted.Add(int64(r.calls(t, int(limit)+1, per("hour", limit))))
				}
				require.Equal(t, limit, admitted.Load())
			})
		}
	}
}

func TestReplicaHoldsNoMoreThanSaid(t *testing.T) {
	for _, limit := range []int64{1, 10, 100, 1000, 1e6} {
		const n = 4
		c := newCluster(t, n)
		list := c.replicas(t, n, noon)
		before := int64(0)
		for i, r := range list {
			if !r.Take(t.Context(), "route", "app", per("hour", limit), "").Allowed {
				break
			}
			free := limit - before
			before = c.taken(t, "hour", noon.Truncate(time.Hour))
			require.LessOrEqual(t, r.held(hour, "app"), max(1, min(few, free/(8*n))), "replica %d, limit %d", i, limit)
		}
	}
}

func TestWhatIsIdleIsGivenBack(t *testing.T) {
	c := newCluster(t, 2)
	list := c.replicas(t, 2, noon)
	require.Equal(t, 1, list[0].calls(t, 1, per("hour", 1000)))
	held := list[0].held(hour, "app")
	require.Equal(t, int64(61), held)
	require.EqualValues(t, 1000-1-held, list[1].calls(t, 2000, per("hour", 1000)))

	list[0].clock.pass(29 * time.Second)
	list[0].sweep()
	list[0].settle()
	require.Equal(t, held, list[0].held(hour, "app"), "not yet")
	list[0].clock.pass(2 * time.Second)
	list[0].sweep()
	list[0].settle()
	require.Zero(t, list[0].held(hour, "app"))
	require.Zero(t, list[1].calls(t, 2000, per("hour", 1000)), "another replica looks again after a second")
	list[1].clock.pass(time.Second)
	require.EqualValues(t, held, list[1].calls(t, 2000, per("hour", 1000)))
}

func TestStopGivesEverythingBack(t *testing.T) {
	c := newCluster(t, 2)
	r := c.start(noon)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx) }()
	require.Equal(t, 3, r.calls(t, 3, per("day", 5000)))
	for i := range 500 {
		require.True(t, r.Take(t.Context(), "route", fmt.Sprint(i), per("day", 5000), "").Allowed)
	}
	cancel()
	require.NoError(t, <-ended)
	require.EqualValues(t, 3, c.taken(t, "day", noon.Truncate(24*time.Hour)))
	v := r.Take(t.Context(), "route", "app", per("day", 5000), "")
	require.True(t, v.Away)
	require.False(t, v.Allowed)
	require.InDelta(t, 0, testutil.ToFloat64(r.metrics.lost), 0)
}

func TestKilledReplicaCostsWhatItHeld(t *testing.T) {
	c := newCluster(t, 2)
	killed := c.start(noon)
	require.Equal(t, 5, killed.calls(t, 5, per("hour", 1000)))
	killed.settle()
	held := killed.held(hour, "app")
	require.Positive(t, held)
	r := c.replicas(t, 1, noon)[0]
	require.EqualValues(t, 1000-5-held, r.calls(t, 2000, per("hour", 1000)))
}

func TestRestartRemembers(t *testing.T) {
	c := newCluster(t, 1)
	r := c.start(noon)
	require.Equal(t, 20, r.calls(t, 20, per("hour", 50)))
	r.close()
	require.Equal(t, 30, c.replicas(t, 1, noon.Add(time.Minute))[0].calls(t, 100, per("hour", 50)))
}

func TestPairsThatMakeRoomGiveBack(t *testing.T) {
	c := newCluster(t, 1)
	c.keys = shards // one per shard
	r := c.replicas(t, 1, noon)[0]
	require.Equal(t, 5, r.calls(t, 5, per("hour", 1000)))
	for i := range 20 * shards {
		require.True(t, r.Take(t.Context(), "route", fmt.Sprint("stranger ", i), per("hour", 1000), "").Allowed)
	}
	r.settle()
	require.LessOrEqual(t, r.accounts.len(), shards)
	require.EqualValues(t, 5, c.taken(t, "hour", noon.Truncate(time.Hour)))
	require.InDelta(t, 0, testutil.ToFloat64(r.metrics.lost), 0)
	require.Equal(t, 995, r.calls(t, 2000, per("hour", 1000)))
}

func TestPairsWithoutCallsAreForgotten(t *testing.T) {
	c := newCluster(t, 1)
	r := c.replicas(t, 1, noon)[0]
	for i := range 100 {
		r.Take(t.Context(), "route", fmt.Sprint(i), per("minute", 1000), "")
		r.Take(t.Context(), "route", fmt.Sprint(i), per("month", 1000), "")
	}
	r.sweep()
	require.Equal(t, 100, r.accounts.len())
	r.clock.pass(time.Duration(idle) + time.Second)
	for range 2 {
		r.sweep() // the first sweep gives back what is held of the month
		r.settle()
	}
	require.Zero(t, r.accounts.len())
}

func TestFewWritesAtAnyRate(t *testing.T) {
	const n, seconds, rate = 2, 20, 5000
	list := newCluster(t, n).replicas(t, n, noon)
	for s := range seconds * 10 {
		for _, r := range list {
			require.Equal(t, rate/10, r.calls(t, rate/10, per("hour", 1e9)), "second %d", s/10)
			r.settle()
			r.clock.pass(100 * time.Millisecond)
		}
	}
	for _, r := range list {
		require.Less(t, r.faults.count.Load(), int64(5*seconds))
	}
}

// TestManyCallersOfManyPairs runs replicas as in production, with more pairs than they remember.
func TestManyCallersOfManyPairs(t *testing.T) {
	const n, callers, each, limit = 2, 4, 150, 100
	c := newCluster(t, n)
	c.keys = shards
	ctx, cancel := context.WithCancel(t.Context())
	var running, calling sync.WaitGroup
	var admitted [3 * shards]atomic.Int64
	var list []*replica
	for range n {
		r := c.start(noon)
		list = append(list, r)
		running.Go(func() { _ = r.Run(ctx) })
		for caller := range callers {
			calling.Go(func() {
				for i := range each {
					who := (i*7 + caller) % len(admitted)
					if i%3 == 0 {
						who = 0 // a pair that all callers use
					}
					if r.Take(ctx, "route", fmt.Sprint(who), per("hour", limit), "").Allowed {
						admitted[who].Add(1)
					}
				}
			})
		}
	}
	calling.Wait()
	cancel()
	running.Wait()
	for _, r := range list {
		require.InDelta(t, 0, testutil.ToFloat64(r.metrics.lost), 0)
	}
	for who := range admitted {
		use, err := list[0].Use(t.Context(), "route", fmt.Sprint(who))
		require.NoError(t, err)
		require.Len(t, use, 1)
		require.LessOrEqual(t, admitted[who].Load(), int64(limit))
		require.Equal(t, admitted[who].Load(), use[0].Taken, "everything that was not admitted was given back")
	}
}

// TestMemoryIsBounded checks the memory per pair against the documentation.
func TestMemoryIsBounded(t *testing.T) {
	heap := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	c := newCluster(t, 1)
	c.keys = DefaultKeys / 4
	r := c.replicas(t, 1, noon)[0]
	now, mono := r.Quotas.clock.now()
	before := heap()
	for i := range 2 * c.keys {
		token := fmt.Sprintf("%01000d app-%036d", 0, i)
		a := r.accounts.lock(pair{"service:position", token[1001:]})
		for k := range kinds {
			r.turn(a, k, 1000, now, mono)
		}
		a.mu.Unlock()
	}
	require.LessOrEqual(t, r.accounts.len(), c.keys)
	require.Less(t, int64(heap())-int64(before), int64(r.accounts.len())<<10)
	t.Logf("%d bytes each", (int64(heap())-int64(before))/int64(r.accounts.len()))
	runtime.KeepAlive(r)
}
