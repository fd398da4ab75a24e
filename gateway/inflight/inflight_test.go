package inflight

import (
	"strconv"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"pgregory.net/rapid"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func (c *Counts) pairs() (n int) {
	for i := range c.all {
		n += len(c.all[i].calls)
	}
	return n
}

func TestCallsUnderWayAreLimited(t *testing.T) {
	c := New(prometheus.NewRegistry())
	one, ok := c.Enter("route", "app", 2)
	require.True(t, ok)
	_, ok = c.Enter("route", "app", 2)
	require.True(t, ok)
	none, ok := c.Enter("route", "app", 2)
	require.False(t, ok)
	none.Leave()
	require.Equal(t, 2, c.Calls("route", "app"), "who was refused leaves nothing")
	require.InDelta(t, 1, testutil.ToFloat64(c.refused), 0)
	_, ok = c.Enter("route", "other", 2)
	require.True(t, ok)
	_, ok = c.Enter("other", "app", 2)
	require.True(t, ok)
	one.Leave()
	_, ok = c.Enter("route", "app", 2)
	require.True(t, ok)
	_, ok = c.Enter("route", "app", 1)
	require.False(t, ok, "the limit was lowered")
}

func TestNoLimitCountsNothing(t *testing.T) {
	c := New(prometheus.NewRegistry())
	for _, most := range []int{0, -1} {
		place, ok := c.Enter("route", "app", most)
		require.True(t, ok)
		require.Zero(t, c.Calls("route", "app"))
		place.Leave()
	}
	require.Zero(t, c.pairs())
}

// TestCountsAreRight compares the counts with a list of the places not left yet.
func TestCountsAreRight(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := New(prometheus.NewRegistry())
		name := rapid.SampledFrom([]string{"", "a", "b", "ab"})
		under := make(map[pair][]Place)
		sum := 0
		t.Repeat(map[string]func(*rapid.T){
			"enter": func(t *rapid.T) {
				p, most := pair{name.Draw(t, "route"), name.Draw(t, "consumer")}, rapid.IntRange(1, 4).Draw(t, "most")
				place, ok := c.Enter(p.route, p.consumer, most)
				require.Equal(t, len(under[p]) < most, ok)
				if ok {
					under[p] = append(under[p], place)
					sum++
				}
			},
			"leave": func(t *rapid.T) {
				p := pair{name.Draw(t, "route"), name.Draw(t, "consumer")}
				if n := len(under[p]); n > 0 {
					under[p][n-1].Leave()
					under[p] = under[p][:n-1]
					sum--
				}
			},
			"": func(t *rapid.T) {
				pairs := 0
				for p, places := range under {
					require.Equal(t, len(places), c.Calls(p.route, p.consumer))
					if len(places) > 0 {
						pairs++
					}
				}
				require.Equal(t, pairs, c.pairs(), "pairs without calls take no memory")
				require.InDelta(t, sum, c.sum(), 0)
			},
		})
	})
}

func TestManyCallersStayBelowTheLimit(t *testing.T) {
	const most = 3
	c := New(prometheus.NewRegistry())
	var under, entered atomic.Int64
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 5000 {
				place, ok := c.Enter("route", "app", most)
				if !ok {
					continue
				}
				entered.Add(1)
				if n := under.Add(1); n > most {
					t.Errorf("%d calls are under way", n)
				}
				under.Add(-1)
				place.Leave()
			}
		})
	}
	all.Wait()
	require.Positive(t, entered.Load())
	require.Zero(t, c.pairs())
}

func BenchmarkEnterAndLeave(b *testing.B) {
	c := New(prometheus.NewRegistry())
	names := make([]string, 1000)
	for i := range names {
		names[i] = strconv.Itoa(i)
	}
	var n atomic.Int64
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for i := n.Add(337); pb.Next(); i++ {
			place, _ := c.Enter("route", names[i%1000], 100)
			place.Leave()
		}
	})
}
