package protect_test

import (
	"encoding/binary"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/openmep/mep/dnsagent/protect"
)

var victim = netip.MustParseAddr("192.0.2.1")

func newRates(t require.TestingT, cfg protect.RatesConfig) *protect.Rates {
	r, err := protect.NewRates(cfg)
	require.NoError(t, err)
	return r
}

// sent returns how many of n responses are sent.
func sent(r *protect.Rates, n int, client netip.Addr, kind protect.Kind, name uint64, now time.Time) int {
	count := 0
	for range n {
		if r.Allow(client, kind, name, now) == protect.Send {
			count++
		}
	}
	return count
}

func TestTheFirstOfAFloodPass(t *testing.T) {
	r, now := newRates(t, protect.RatesConfig{PerSecond: 5}), time.Now()
	require.Equal(t, 5, sent(r, 100, victim, protect.Answers, 1, now))
	require.Equal(t, 5, sent(r, 100, victim, protect.Answers, 2, now), "another answer has another account")
	require.Zero(t, sent(r, 100, netip.MustParseAddr("192.0.2.255"), protect.Answers, 1, now), "of all the prefix")
	require.Zero(t, sent(r, 100, netip.MustParseAddr("::ffff:192.0.2.7"), protect.Answers, 1, now), "however it is written")
	require.Equal(t, 5, sent(r, 100, netip.MustParseAddr("192.0.3.1"), protect.Answers, 1, now), "but not of others")
	require.Equal(t, 5, sent(r, 100, victim, protect.Negatives, 1, now), "and another kind is something else")

	require.Equal(t, 5, sent(r, 9, netip.MustParseAddr("2001:db8::1"), protect.Answers, 1, now))
	require.Zero(t, sent(r, 9, netip.MustParseAddr("2001:db8:0:ff::1"), protect.Answers, 1, now))
	require.Equal(t, 5, sent(r, 9, netip.MustParseAddr("2001:db8:0:100::1"), protect.Answers, 1, now))

	require.Equal(t, 5, sent(r, 50, victim, protect.Errors, 1, now))
	require.Zero(t, sent(r, 50, victim, protect.Errors, 2, now), "errors are all the same")
}

func TestAFloodThatGoesOnGetsNothing(t *testing.T) {
	r, now := newRates(t, protect.RatesConfig{PerSecond: 10, Window: 4 * time.Second}), time.Now()
	require.Equal(t, 10, sent(r, 1000, victim, protect.Answers, 1, now))
	for range 100 {
		now = now.Add(50 * time.Millisecond)
		require.Zero(t, sent(r, 10, victim, protect.Answers, 1, now))
	}
	require.Zero(t, sent(r, 1, victim, protect.Answers, 1, now.Add(4*time.Second-time.Millisecond)))
	require.Equal(t, 1, sent(r, 1, victim, protect.Answers, 1, now.Add(4*time.Second+200*time.Millisecond)), "no longer than the window")
	require.Equal(t, 10, sent(r, 100, victim, protect.Answers, 1, now.Add(time.Minute)))
}

func TestWithinTheRateAllIsSent(t *testing.T) {
	r, now := newRates(t, protect.RatesConfig{PerSecond: 10}), time.Now()
	for range 1000 {
		require.Equal(t, protect.Send, r.Allow(victim, protect.Answers, 1, now))
		now = now.Add(100 * time.Millisecond)
	}
	slow := newRates(t, protect.RatesConfig{PerSecond: 0.1})
	require.Equal(t, 1, sent(slow, 1, victim, protect.Answers, 1, now))
	require.Zero(t, sent(slow, 1, victim, protect.Answers, 1, now.Add(9*time.Second)))
	require.Equal(t, 1, sent(slow, 1, victim, protect.Answers, 1, now.Add(20*time.Second)))
}

func TestSlip(t *testing.T) {
	for slip, want := range map[int]int{0: 0, 1: 100, 2: 50, 10: 10} {
		r, now := newRates(t, protect.RatesConfig{PerSecond: 5, Slip: slip}), time.Now()
		require.Equal(t, 5, sent(r, 5, victim, protect.Answers, 1, now))
		truncated := 0
		for range 100 {
			switch r.Allow(victim, protect.Answers, 1, now) {
			case protect.Truncate:
				truncated++
			case protect.Send:
				t.Error("a response over the limit is sent")
			}
		}
		require.Equal(t, want, truncated)
	}
}

func TestLimitsOfKinds(t *testing.T) {
	now := time.Now()
	r := newRates(t, protect.RatesConfig{PerSecond: 7, Negatives: 3, Errors: -1, Slip: 1})
	require.Equal(t, 7, sent(r, 100, victim, protect.Answers, 1, now))
	require.Equal(t, 3, sent(r, 100, victim, protect.Negatives, 1, now))
	require.Equal(t, 100, sent(r, 100, victim, protect.Errors, 1, now))

	r = newRates(t, protect.RatesConfig{All: 20, PerSecond: 5, Slip: 1})
	require.Equal(t, 5, sent(r, 100, victim, protect.Answers, 0, now))
	for name := range uint64(3) {
		require.Equal(t, 5, sent(r, 100, victim, protect.Answers, 1+name, now), "what was not sent does not count")
	}
	require.Equal(t, protect.Drop, r.Allow(victim, protect.Answers, 9, now), "over all there is no slip")
	require.Equal(t, 5, sent(r, 100, netip.MustParseAddr("198.51.100.1"), protect.Answers, 0, now))

	for name, cfg := range map[string]protect.RatesConfig{"off": {}, "off, for each": {PerSecond: -1, Errors: -1, All: -1}} {
		r := newRates(t, cfg)
		require.Nil(t, r, name)
		require.Equal(t, 1000, sent(r, 1000, victim, protect.Answers, 1, now))
	}
}

func TestSettingsOutOfRange(t *testing.T) {
	for want, cfg := range map[string]protect.RatesConfig{
		"window":   {PerSecond: 1, Window: time.Millisecond},
		"slip":     {PerSecond: 1, Slip: -1},
		"prefixes": {PerSecond: 1, IPv4Prefix: 33},
		"to 128":   {PerSecond: 1, IPv6Prefix: -1},
		"accounts": {PerSecond: 1, Entries: 1<<24 + 1},
	} {
		_, err := protect.NewRates(cfg)
		require.ErrorContains(t, err, want)
	}
}

func name(i int) uint64 { return uint64(i) + 1000 }

func address(i int) netip.Addr {
	var a [4]byte
	binary.BigEndian.PutUint32(a[:], 10<<24|uint32(i)<<8)
	return netip.AddrFrom4(a)
}

// TestAFloodOfNamesFreesNobody uses many more names and prefixes than there are accounts.
func TestAFloodOfNamesFreesNobody(t *testing.T) {
	const accounts = 64
	r, now := newRates(t, protect.RatesConfig{PerSecond: 5, Entries: accounts}), time.Now()
	sent(r, 100, victim, protect.Answers, 1, now)
	for i := range 100 * accounts {
		r.Allow(victim, protect.Answers, name(i), now)
		r.Allow(address(i), protect.Answers, 1, now)
		r.Allow(address(i), protect.Negatives, name(i), now)
		require.NotEqual(t, protect.Send, r.Allow(victim, protect.Answers, 1, now))
	}
}

// TestAFloodHarmsFewOthers makes a flood of 2,000 names: on average one in a thousand other responses shares both accounts with it.
func TestAFloodHarmsFewOthers(t *testing.T) {
	r, now := newRates(t, protect.RatesConfig{PerSecond: 5}), time.Now()
	for i := range 2000 {
		sent(r, 100, victim, protect.Answers, name(i), now)
	}
	harmed := 0
	for i := range 5000 {
		if r.Allow(address(i), protect.Answers, 1, now) != protect.Send {
			harmed++
		}
	}
	require.Less(t, harmed, 50)
}

// query is a query of a random sequence.
type query struct {
	client netip.Addr
	kind   protect.Kind
	name   uint64
}

// TestWhatPassesIsBounded checks random traffic against the bound in the documentation of Rates, in tables of all sizes. In a large
// one the result is exactly that of separate accounts.
func TestWhatPassesIsBounded(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rate := rapid.Float64Range(0.2, 50).Draw(t, "rate")
		window := time.Duration(rapid.IntRange(1, 20).Draw(t, "window")) * time.Second
		entries := rapid.SampledFrom([]int{1, 2, 8, 1 << 16}).Draw(t, "entries")
		r := newRates(t, protect.RatesConfig{PerSecond: rate, Window: window, Entries: entries})
		one := time.Duration(float64(time.Second) / rate)
		most := max(one, time.Second)
		passed := map[query][]time.Time{}
		full := map[query]time.Time{}
		now := time.Now()
		for range rapid.IntRange(1, 300).Draw(t, "queries") {
			now = now.Add(time.Duration(rapid.IntRange(0, 3).Draw(t, "pauses")) * one / 2)
			q := query{
				address(rapid.IntRange(0, 1).Draw(t, "client")), protect.Kind(rapid.IntRange(0, 1).Draw(t, "kind")),
				uint64(rapid.IntRange(0, 1).Draw(t, "name")),
			}
			action := r.Allow(q.client, q.kind, q.name, now)
			if action == protect.Send {
				passed[q] = append(passed[q], now)
			}
			if full[q].Before(now) {
				full[q] = now
			}
			full[q] = full[q].Add(one)
			if full[q].Sub(now) > most+window {
				full[q] = now.Add(most + window)
			}
			if entries > 8 {
				require.Equal(t, full[q].Sub(now) <= most, action == protect.Send)
			}
		}
		for _, at := range passed {
			for i := range at {
				for n := 1; i+n <= len(at); n++ {
					require.LessOrEqual(t, time.Duration(n)*one, at[i+n-1].Sub(at[i])+most)
				}
			}
		}
	})
}

func TestManyAtOnceShareAnAccount(t *testing.T) {
	r, now := newRates(t, protect.RatesConfig{PerSecond: 500, All: 800}), time.Now()
	var total [2]atomic.Int64
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for i := range 2000 {
				if r.Allow(victim, protect.Answers, uint64(i%2), now) == protect.Send {
					total[i%2].Add(1)
				}
			}
		})
	}
	all.Wait()
	require.LessOrEqual(t, total[0].Load(), int64(500))
	require.LessOrEqual(t, total[1].Load(), int64(500))
	require.EqualValues(t, 800, total[0].Load()+total[1].Load())
}

func TestLimitingAllocatesNothing(t *testing.T) {
	r, now := newRates(t, protect.RatesConfig{PerSecond: 5, All: 100, Slip: 2}), time.Now()
	v6 := netip.MustParseAddr("2001:db8::1")
	require.Zero(t, testing.AllocsPerRun(100, func() {
		r.Allow(victim, protect.Answers, 1, now)
		r.Allow(v6, protect.Negatives, 1, now)
	}))
}

func BenchmarkRates(b *testing.B) {
	r, now := newRates(b, protect.RatesConfig{PerSecond: 5, All: 100, Slip: 2}), time.Now()
	b.Run("one client", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			r.Allow(victim, protect.Answers, 1, now)
		}
	})
	b.Run("many at once", func(b *testing.B) {
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			for i := 0; pb.Next(); i++ {
				r.Allow(address(i&0xffff), protect.Answers, 1, now)
			}
		})
	})
}
