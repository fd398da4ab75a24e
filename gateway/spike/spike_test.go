package spike

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"github.com/openmep/mep/api/gateway"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// bubble runs a test with a fake clock.
func bubble(t *testing.T, keys int, test func(t *testing.T, a *Arrest)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { test(t, New(keys, prometheus.NewRegistry())) })
}

func perSecond(calls, buffer int) *gateway.SpikeArrest {
	return &gateway.SpikeArrest{Calls: calls, Per: gateway.PerSecond, Buffer: buffer}
}

// come makes concurrent calls. It returns after what times calls went on, in order, and the retry times that refused calls got.
func come(ctx context.Context, a *Arrest, consumer string, calls int, s *gateway.SpikeArrest) (went, refused []time.Duration) {
	var mu sync.Mutex
	var all sync.WaitGroup
	began := time.Now()
	for range calls {
		all.Go(func() {
			ok, after, err := a.Wait(ctx, "route", consumer, s)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case ok:
				went = append(went, time.Since(began))
			case err == nil:
				refused = append(refused, after)
			}
		})
	}
	all.Wait()
	slices.Sort(went)
	return went, refused
}

func TestCallsGoOnAtAnEvenPace(t *testing.T) {
	const ms = time.Millisecond
	for name, c := range map[string]struct {
		arrest  *gateway.SpikeArrest
		calls   int
		went    []time.Duration
		refused time.Duration
	}{
		"without a buffer one goes on":   {perSecond(10, 0), 3, []time.Duration{0}, 100 * ms},
		"the buffer holds the others":    {perSecond(10, 3), 4, []time.Duration{0, 100 * ms, 200 * ms, 300 * ms}, 0},
		"as long as it has room":         {perSecond(10, 2), 6, []time.Duration{0, 100 * ms, 200 * ms}, 100 * ms},
		"per minute":                     {&gateway.SpikeArrest{Calls: 30, Per: gateway.PerMinute, Buffer: 1}, 3, []time.Duration{0, 2 * time.Second}, 2 * time.Second},
		"no calls count as one":          {perSecond(0, 0), 2, []time.Duration{0}, time.Second},
		"a negative buffer is none":      {perSecond(1, -7), 2, []time.Duration{0}, time.Second},
		"a buffer of any size is usable": {&gateway.SpikeArrest{Calls: 1, Per: gateway.PerMinute, Buffer: 1 << 62}, 2, []time.Duration{0, time.Minute}, 0},
		"nothing is no arrest":           {nil, 3, []time.Duration{0, 0, 0}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, 0, func(t *testing.T, a *Arrest) {
				went, refused := come(t.Context(), a, "app", c.calls, c.arrest)
				require.Equal(t, c.went, went)
				require.Len(t, refused, c.calls-len(c.went))
				for _, after := range refused {
					require.Equal(t, c.refused, after)
				}
				require.InDelta(t, len(refused), testutil.ToFloat64(a.refused), 0)
				require.Zero(t, a.waiting.Load())
			})
		})
	}
}

func TestAdviceToComeAgainIsRight(t *testing.T) {
	bubble(t, 0, func(t *testing.T, a *Arrest) {
		s := perSecond(10, 0)
		went, _ := come(t.Context(), a, "app", 1, s)
		require.Len(t, went, 1)
		time.Sleep(30 * time.Millisecond)
		ok, after, err := a.Wait(t.Context(), "route", "app", s)
		require.NoError(t, err)
		require.False(t, ok)
		require.Equal(t, 70*time.Millisecond, after)
		time.Sleep(after - time.Nanosecond)
		ok, _, _ = a.Wait(t.Context(), "route", "app", s)
		require.False(t, ok)
		time.Sleep(time.Nanosecond)
		ok, _, _ = a.Wait(t.Context(), "route", "app", s)
		require.True(t, ok)
	})
}

func TestARestEarnsNoBurst(t *testing.T) {
	bubble(t, 0, func(t *testing.T, a *Arrest) {
		time.Sleep(time.Hour)
		went, _ := come(t.Context(), a, "app", 5, perSecond(10, 0))
		require.Len(t, went, 1)
		time.Sleep(time.Hour)
		went, _ = come(t.Context(), a, "app", 5, perSecond(10, 0))
		require.Len(t, went, 1)
	})
}

func TestPairsDoNotDisturbEachOther(t *testing.T) {
	bubble(t, 0, func(t *testing.T, a *Arrest) {
		for _, consumer := range []string{"x", "y", ""} {
			went, _ := come(t.Context(), a, consumer, 5, perSecond(1, 0))
			require.Len(t, went, 1, consumer)
		}
		ok, _, _ := a.Wait(t.Context(), "other", "x", perSecond(1, 0))
		require.True(t, ok)
	})
}

func TestTurnThatIsGivenUpIsHadByAnother(t *testing.T) {
	bubble(t, 0, func(t *testing.T, a *Arrest) {
		s := perSecond(1, 3)
		went, _ := come(t.Context(), a, "app", 1, s)
		require.Len(t, went, 1)
		ctx, cancel := context.WithCancel(t.Context())
		var all sync.WaitGroup
		var others []time.Duration
		all.Go(func() {
			_, _, err := a.Wait(ctx, "route", "app", s) // gets the turn in a second
			if err == nil {
				t.Error("a call whose caller is gone went on")
			}
		})
		synctest.Wait()
		all.Go(func() { others, _ = come(t.Context(), a, "app", 2, s) }) // get those in two and three seconds
		synctest.Wait()
		require.EqualValues(t, 3, a.waiting.Load())
		_, refused := come(t.Context(), a, "app", 1, s)
		require.Equal(t, []time.Duration{time.Second}, refused)
		cancel()
		synctest.Wait()
		require.EqualValues(t, 2, a.waiting.Load())
		went, refused = come(t.Context(), a, "app", 2, s)
		require.Equal(t, []time.Duration{time.Second}, went)
		require.Len(t, refused, 1)
		all.Wait()
		require.Equal(t, []time.Duration{2 * time.Second, 3 * time.Second}, others)
	})
}

func TestTurnThatIsGivenUpTooLateIsNotHadTwice(t *testing.T) {
	bubble(t, 0, func(t *testing.T, a *Arrest) {
		s := perSecond(1, 5)
		come(t.Context(), a, "app", 1, s)
		ctx, cancel := context.WithTimeout(t.Context(), 1500*time.Millisecond)
		defer cancel()
		went, _ := come(ctx, a, "app", 3, s)
		require.Equal(t, []time.Duration{time.Second}, went)
		time.Sleep(time.Second) // the turn at two seconds has passed
		went, _ = come(t.Context(), a, "app", 2, s)
		require.Equal(t, []time.Duration{500 * time.Millisecond, 1500 * time.Millisecond}, went, "the pace is kept")
	})
}

func TestSettingsChangeForThoseWhoAreKnown(t *testing.T) {
	bubble(t, 0, func(t *testing.T, a *Arrest) {
		come(t.Context(), a, "app", 1, perSecond(1, 0))
		time.Sleep(time.Second)
		went, _ := come(t.Context(), a, "app", 3, perSecond(100, 2))
		require.Equal(t, []time.Duration{0, 10 * time.Millisecond, 20 * time.Millisecond}, went)
	})
}

// TestPaceIsKept makes calls at random times, with random timeouts.
func TestPaceIsKept(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		calls, buffer := rapid.IntRange(1, 200).Draw(r, "calls"), rapid.IntRange(0, 10).Draw(r, "buffer")
		type call struct{ comes, goes time.Duration }
		plan := rapid.SliceOfN(rapid.Custom(func(r *rapid.T) call {
			return call{time.Duration(rapid.Int64Range(0, 1e9).Draw(r, "comes")), time.Duration(rapid.Int64Range(0, 3e8).Draw(r, "goes"))}
		}), 1, 60).Draw(r, "plan")
		bubble(t, 0, func(t *testing.T, a *Arrest) {
			s := perSecond(calls, buffer)
			var mu sync.Mutex
			var went []time.Time
			var most int64
			var all sync.WaitGroup
			for _, c := range plan {
				all.Go(func() {
					time.Sleep(c.comes)
					ctx, cancel := context.WithTimeout(t.Context(), c.goes)
					defer cancel()
					ok, _, _ := a.Wait(ctx, "route", "app", s)
					mu.Lock()
					defer mu.Unlock()
					if most = max(most, a.waiting.Load()); ok {
						went = append(went, time.Now())
					}
				})
			}
			all.Wait()
			slices.SortFunc(went, time.Time.Compare)
			for i := 1; i < len(went); i++ {
				require.GreaterOrEqual(r, went[i].Sub(went[i-1]), interval(s), "two calls within an interval")
			}
			require.NotEmpty(r, went)
			require.LessOrEqual(r, most, int64(buffer))
			require.Zero(r, a.waiting.Load())
		})
	})
}

func TestFloodOfKeys(t *testing.T) {
	flood := func(a *Arrest, n int) (refused int) {
		for i := range n {
			if ok, _, _ := a.Wait(context.Background(), "route", "stranger "+strconv.Itoa(i), perSecond(1, 0)); !ok {
				refused++
			}
		}
		return refused
	}
	t.Run("buys one call that is early", func(t *testing.T) {
		bubble(t, shards, func(t *testing.T, a *Arrest) {
			for range 10 {
				went, _ := come(t.Context(), a, "victim", 5, perSecond(1, 0))
				require.Len(t, went, 1)
				flood(a, 50*shards)
			}
		})
	})
	t.Run("does not touch those whose calls wait", func(t *testing.T) {
		bubble(t, shards, func(t *testing.T, a *Arrest) {
			var went []time.Duration
			var all sync.WaitGroup
			all.Go(func() { went, _ = come(t.Context(), a, "victim", 4, perSecond(1, 3)) })
			synctest.Wait()
			require.Positive(t, flood(a, 50*shards), "there is no room beside them")
			_, refused := come(t.Context(), a, "victim", 1, perSecond(1, 3))
			require.Equal(t, []time.Duration{time.Second}, refused)
			all.Wait()
			require.Len(t, went, 4)
			require.Zero(t, flood(a, 50*shards))
		})
	})
}

func TestMemoryIsBounded(t *testing.T) {
	heap := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	a := New(0, prometheus.NewRegistry())
	for i := range 300_000 {
		token := strings.Repeat("x", 1000) + strconv.Itoa(i)
		_, _, _ = a.Wait(t.Context(), "route", token[1000:], perSecond(1, 0))
	}
	known := 0
	for i := range a.all {
		known += len(a.all[i].known)
	}
	require.LessOrEqual(t, known, DefaultKeys)
	require.Less(t, int64(heap())-int64(before), int64(known*512))
	runtime.KeepAlive(a)
}

func BenchmarkWait(b *testing.B) {
	for _, n := range []int{1, 1000} {
		b.Run(fmt.Sprint(n, " consumers"), func(b *testing.B) {
			a := New(0, prometheus.NewRegistry())
			names := make([]string, n)
			for i := range names {
				names[i] = strconv.Itoa(i)
			}
			s := perSecond(1e9, 1e6)
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for i := 0; pb.Next(); i++ {
					_, _, _ = a.Wait(b.Context(), "route", names[i%n], s)
				}
			})
		})
	}
}
