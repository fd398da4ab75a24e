package limit_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/kit/limit"
)

// taken returns how many requests of the key pass at this moment.
func taken(l *limit.Limiter, key string) int {
	for n := 0; ; n++ {
		if ok, _ := l.Allow(key); !ok {
			return n
		}
	}
}

// flood makes one request with each of n keys that nobody else uses.
func flood(l *limit.Limiter, n int) {
	for i := range n {
		l.Allow("stranger " + strconv.Itoa(i))
	}
}

func TestAKeyHasItsBurstThenItsRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := limit.New(limit.Config{Rate: 4, Burst: 3})
		require.Equal(t, 3, taken(l, "a"))
		require.Equal(t, 3, taken(l, "b"), "another key has its own bucket")
		ok, after := l.Allow("a")
		require.False(t, ok)
		require.Equal(t, 250*time.Millisecond, after)
		time.Sleep(after - time.Microsecond)
		require.Zero(t, taken(l, "a"))
		time.Sleep(time.Microsecond)
		require.Equal(t, 1, taken(l, "a"))
		time.Sleep(time.Minute)
		require.Equal(t, 3, taken(l, "a"), "a rest earns no more than the burst")
	})
}

// TestRetryAfterIsEnoughAndNotTooMuch tries rates from one in a quarter of an hour to thousands, and any state of the bucket.
func TestRetryAfterIsEnoughAndNotTooMuch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		random := rand.New(rand.NewPCG(1, 2))
		for range 200 {
			rate := math.Pow(10, random.Float64()*7-3)
			l := limit.New(limit.Config{Rate: rate, Burst: random.IntN(20)})
			for range 20 {
				time.Sleep(time.Duration(random.Int64N(int64(time.Second))))
				taken(l, "a")
				ok, after := l.Allow("a")
				require.False(t, ok)
				require.Positive(t, after)
				early := after / 100
				time.Sleep(after - early)
				ok, _ = l.Allow("a")
				require.Equal(t, early == 0, ok, "the advice %s is too long at a rate of %g", after, rate)
				time.Sleep(early)
				ok, _ = l.Allow("a")
				require.True(t, ok || early == 0, "the advice %s is too short at a rate of %g", after, rate)
			}
		}
	})
}

func TestRatesAtTheEdge(t *testing.T) {
	for name, rate := range map[string]float64{
		"zero": 0, "negative": -1, "not a number": math.NaN(), "infinite": math.Inf(1), "greatest": math.MaxFloat64,
	} {
		t.Run(name+" is no limit", func(t *testing.T) {
			l := limit.New(limit.Config{Rate: rate, Burst: 1})
			for range 1000 {
				ok, after := l.Allow("a")
				require.True(t, ok)
				require.Zero(t, after)
			}
			require.Zero(t, l.Len(), "nothing is remembered")
		})
	}
	t.Run("tiny", func(t *testing.T) {
		l := limit.New(limit.Config{Rate: math.SmallestNonzeroFloat64, Burst: 2, Keys: 1})
		require.Equal(t, 2, taken(l, "a"))
		_, after := l.Allow("a")
		require.Equal(t, time.Hour, after)
		require.Equal(t, 1, taken(l, "b"))
		require.Equal(t, 1, taken(l, "a"))
	})
	t.Run("a burst below one is one", func(t *testing.T) {
		l := limit.New(limit.Config{Rate: 0.001})
		require.Equal(t, 1, taken(l, "a"))
	})
}

func TestSettingsChangeForKnownKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := limit.New(limit.Config{Rate: 1, Burst: 10})
		require.Equal(t, 10, taken(l, "spent"))
		ok, _ := l.Allow("fresh")
		require.True(t, ok)

		l.Set(100, 5)
		require.Equal(t, 5, taken(l, "fresh"))
		time.Sleep(20 * time.Millisecond)
		require.Equal(t, 2, taken(l, "spent"))

		l.Set(0, 5)
		require.Zero(t, l.Len())
		ok, _ = l.Allow("spent")
		require.True(t, ok)

		l.Set(1, 5)
		require.Equal(t, 5, taken(l, "spent"), "what was before it was off does not count")
	})
}

func TestAFloodOfKeysBuysNoBurst(t *testing.T) {
	const keys, burst = 100, 20
	limiter := func() *limit.Limiter { return limit.New(limit.Config{Rate: 1, Burst: burst, Keys: keys}) }

	t.Run("a spent key that was forgotten has one request", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			l := limiter()
			require.Equal(t, burst, taken(l, "victim"))
			for range 50 {
				flood(l, keys)
				require.Equal(t, 1, taken(l, "victim"))
			}
		})
	})
	t.Run("what the key would have earned it still has", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			l := limiter()
			require.Equal(t, burst, taken(l, "victim"))
			time.Sleep(3 * time.Second)
			flood(l, keys)
			time.Sleep(4 * time.Second)
			require.Equal(t, 7, taken(l, "victim"))
		})
	})
	t.Run("a key in use is not forgotten", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			l := limiter()
			require.Equal(t, burst, taken(l, "victim"))
			for range 50 {
				flood(l, keys-1)
				require.Zero(t, taken(l, "victim"))
			}
		})
	})
	t.Run("keys used once take one request from the burst of others", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			l := limiter()
			for i := range 50 {
				flood(l, 3*keys)
				require.Equal(t, burst-1, taken(l, "new "+strconv.Itoa(i)), "the debt of strangers does not add up")
				time.Sleep(burst * time.Second) // otherwise the key just used would be the debt
			}
		})
	})
	t.Run("buckets that are full again are given up for nothing", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			l := limiter()
			for i := range 3 * keys {
				require.Equal(t, burst, taken(l, strconv.Itoa(i)))
				time.Sleep(burst * time.Second / keys)
			}
		})
	})
	t.Run("it is over when the last bucket would be full", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			l := limiter()
			require.Equal(t, burst, taken(l, "victim"))
			flood(l, keys)
			require.Equal(t, 1, taken(l, "other"))
			time.Sleep(burst * time.Second)
			require.Equal(t, burst, taken(l, "new"))
		})
	})
}

// TestMemoryIsBounded checks the memory that the documentation of Limiter promises.
func TestMemoryIsBounded(t *testing.T) {
	heap := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	l := limit.New(limit.Config{Rate: 1, Burst: 10})
	long := strings.Repeat("x", 1<<10)
	for i := range 1_000_000 {
		key := strconv.Itoa(i)
		if i%100 == 0 {
			key += long
		}
		ok, _ := l.Allow(key)
		if !ok {
			t.Fatal("a new key is never refused")
		}
	}
	after := heap()
	require.Equal(t, limit.DefaultKeys, l.Len())
	require.Less(t, int64(after)-int64(before), int64(4<<20))
	t.Logf("%d keys hold %d bytes each", l.Len(), (int64(after)-int64(before))/int64(l.Len()))
	runtime.KeepAlive(l)
}

func TestManyCallersShareABucket(t *testing.T) {
	l := limit.New(limit.Config{Rate: 1e-6, Burst: 100, Keys: 64})
	var allowed atomic.Int64
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for i := range 500 {
				if ok, _ := l.Allow("shared"); ok {
					allowed.Add(1)
				}
				l.Allow(fmt.Sprint(w, i%4))
				if i%100 == 0 {
					l.Set(1e-6, 100)
				}
			}
		})
	}
	wg.Wait()
	require.EqualValues(t, 100, allowed.Load())
	require.Equal(t, 33, l.Len())
}

func TestSource(t *testing.T) {
	for name, c := range map[string]struct{ addr, want string }{
		"IPv4":                 {"192.0.2.7", "192.0.2.7"},
		"IPv4 in IPv6":         {"::ffff:192.0.2.7", "192.0.2.7"},
		"IPv6":                 {"2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"},
		"IPv6 loopback":        {"::1", "::/64"},
		"link local with zone": {"fe80::1%eth0", "fe80::/64"},
	} {
		t.Run(name, func(t *testing.T) {
			require.Equal(t, c.want, limit.Source(netip.MustParseAddr(c.addr)))
		})
	}
	require.Equal(t, "unknown", limit.Source(netip.Addr{}))
}

func BenchmarkAllow(b *testing.B) {
	keys := make([]string, 1<<17)
	for i := range keys {
		keys[i] = netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}).String()
	}
	for name, distinct := range map[string]int{"one key": 1, "keys that fit": 1 << 13, "flood of keys": len(keys)} {
		b.Run(name, func(b *testing.B) {
			l := limit.New(limit.Config{Rate: 10, Burst: 20})
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				l.Allow(keys[i%distinct])
			}
		})
	}
}
