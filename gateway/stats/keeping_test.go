package stats

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/api/gateway"
	"github.com/openmep/mep/api/state"
	"github.com/openmep/mep/kit/etcdtest"
)

func TestWhileEtcdIsAwayCountsAreKept(t *testing.T) {
	c, server := newClock(), etcdtest.Start(t)
	r := newReplica(t, server, "r", c)
	r.Count("s", "c", ok(time.Millisecond))
	r.write()
	server.Stop()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	for range 3 {
		r.Count("s", "c", ok(time.Millisecond))
		c.pass(time.Hour)
		r.tick(ctx)
	}
	want := []gateway.Point{point(start, 2), point(start.Add(time.Hour), 1), point(start.Add(2*time.Hour), 1)}
	require.Equal(t, want, r.points(Query{}), "what is not written is told of")
	require.Positive(t, r.unwritten())
	server.StartAgain(t)
	require.Eventually(t, func() bool { r.tick(t.Context()); return r.unwritten() == 0 }, 20*time.Second, 10*time.Millisecond)
	r.see()
	require.Equal(t, want, r.points(Query{}))
	require.Equal(t, want, newReplica(t, server, "other", c).points(Query{}))
}

func TestWhatWaitsIsBounded(t *testing.T) {
	c, server := newClock(), etcdtest.Start(t)
	r := newReplica(t, server, "r", c)
	r.mostHeld = 5
	for range 9 {
		r.Count("s", "c", ok(0))
		c.pass(span)
		r.collect()
	}
	require.Equal(t, int64(5), total(r.read(Query{})), "the newest are kept")
	families, err := r.reg.Gather()
	require.NoError(t, err)
	for _, f := range families {
		if f.GetName() == "mep_gateway_statistics_lost_total" {
			require.InDelta(t, 4, f.GetMetric()[0].GetCounter().GetValue(), 0)
		}
	}
	r.write()
	r.settle()
	require.Empty(t, r.blocks, "what is in etcd and over is not kept")
	require.Zero(t, r.buckets)
	require.Equal(t, int64(5), total(r.read(Query{})))
}

func TestAClockThatJumpsLosesNothing(t *testing.T) {
	c := newClock()
	r := newReplica(t, etcdtest.Start(t), "r", c)
	random := rand.New(rand.NewPCG(1, 2))
	counted := int64(0)
	for range 200 {
		counted++
		r.Count("s", fmt.Sprint(random.IntN(3)), ok(0))
		c.set(start.Add(time.Duration(random.Int64N(int64(6 * time.Hour)))))
		if random.IntN(3) == 0 {
			r.write()
		}
	}
	c.set(start.Add(6 * time.Hour))
	require.Equal(t, counted, total(r.read(Query{})))
	r.write()
	require.Equal(t, counted, total(r.read(Query{})))
	require.Equal(t, counted, total(r.read(minutes(Query{From: start}))))
}

func TestAClockThatWasSetDoesNotRemoveAtOnce(t *testing.T) {
	var w sweeper
	now, due := start, 0
	step := func() bool { now = now.Add(interval); return w.due(now) }
	require.True(t, step())
	times(3*sweepEvery, func() {
		if step() {
			due++
		}
	})
	require.Equal(t, 3, due)
	for _, by := range []time.Duration{30 * 24 * time.Hour, -time.Hour} {
		now, due = now.Add(by), 0
		times(steady-1, func() {
			if step() {
				due++
			}
		})
		require.Zero(t, due)
		require.True(t, step())
	}
}

func TestAWeekIsKept(t *testing.T) {
	c, server := newClock(), etcdtest.Start(t)
	r := newReplica(t, server, "r", c)
	dead := newReplica(t, server, "dead", c)
	dead.Count("s", "c", ok(time.Millisecond))
	dead.write()
	c.set(day(0))
	const days = 10
	for range days * 24 {
		// Twice an hour, in different records.
		times(2, func() {
			r.Count("s", "c", ok(time.Millisecond))
			c.pass(30 * time.Minute)
			r.collect()
		})
		r.sweeper = sweeper{}
		r.write()
	}
	now := c.now()
	require.Equal(t, day(days), now)
	got := r.points(Query{Resolution: gateway.StatDay})
	require.Len(t, got, 7)
	for i, p := range got {
		require.Equal(t, point(day(days-7+i), 48), p)
	}
	require.Len(t, r.points(Query{}), 24)
	require.Len(t, r.points(Query{From: now.Add(-8 * 24 * time.Hour)}), 8*24, "and one more, by the hour as well")
	byMinute := r.points(minutes(Query{From: now.Add(-8 * 24 * time.Hour)}))
	require.Len(t, byMinute, 8*48)
	for i, p := range byMinute {
		require.Equal(t, point(now.Add(-8*24*time.Hour+time.Duration(i)*30*time.Minute), 1), p)
	}
	require.Len(t, r.points(minutes(Query{From: now.Add(-4 * time.Hour), To: now.Add(-time.Hour)})), 6, "from both places, once")

	oldest := state.StatisticsHour(now.Add(-8 * 24 * time.Hour))
	require.True(t, strings.HasPrefix(keys(t, r.store)[0], oldest), "what is older is removed, whoever wrote it")
	require.True(t, strings.HasPrefix(state.PrefixStatistics+strings.TrimPrefix(minuteKeys(t, r.store)[0], state.MinutesRoot), oldest))
	unfolded := 0
	for item := range r.records.Snapshot().All() {
		hour, _, err := state.SplitStatisticsKey(item.Key)
		require.NoError(t, err)
		require.Equal(t, now.Sub(hour) >= keepRecent+time.Hour, item.Value.Folded, hour)
		require.Equal(t, item.Value.Folded, item.Value.Minutes > 0)
		if !item.Value.Folded {
			unfolded++
		}
	}
	require.Equal(t, 4, unfolded)
	require.Len(t, minuteKeys(t, r.store), len(keys(t, r.store))-unfolded)
}

func TestRecordsOfADeadReplicaAreFoldedByAnother(t *testing.T) {
	c, server := newClock(), etcdtest.Start(t)
	dead := newReplica(t, server, "dead", c)
	times(3, func() { dead.Count("s", "c", ok(time.Millisecond)); c.pass(time.Minute); dead.write() })
	r := newReplica(t, server, "r", c)
	folded := func() bool {
		r.see()
		for item := range r.records.Snapshot().All() {
			return item.Value.Folded
		}
		return false
	}
	c.set(start.Add(keepRecent + time.Hour))
	r.sweeper = sweeper{}
	r.write()
	require.False(t, folded(), "it has time to do it itself")
	c.pass(foldOthers)
	r.sweeper = sweeper{}
	r.write()
	require.True(t, folded())
	require.Equal(t, []gateway.Point{point(start, 3)}, r.points(Query{From: start}))
	byMinute := minutes(Query{From: start, To: start.Add(time.Hour)})
	require.Equal(t, []gateway.Point{point(start, 1), point(start.Add(time.Minute), 1), point(start.Add(2*time.Minute), 1)}, r.points(byMinute))

	// The replica was not dead after all: it writes its record late, as it was before, and the record is folded again.
	c.set(start.Add(30 * time.Second))
	dead.Count("s", "c", ok(time.Millisecond))
	dead.since = c.now()
	dead.write()
	c.set(start.Add(keepRecent + 2*time.Hour))
	once := []gateway.Point{point(start, 2), point(start.Add(time.Minute), 1), point(start.Add(2*time.Minute), 1)}
	require.False(t, folded())
	require.Equal(t, []gateway.Point{point(start, 4)}, r.points(Query{From: start}))
	require.Equal(t, once, r.points(byMinute), "and not what stands elsewhere of it")
	r.sweeper = sweeper{}
	r.write()
	require.True(t, folded())
	require.Equal(t, []gateway.Point{point(start, 4)}, r.points(Query{From: start}))
	require.Equal(t, once, r.points(byMinute))
}

func TestDamagedRecordsAreLeftOut(t *testing.T) {
	c, server := newClock(), etcdtest.Start(t)
	r := newReplica(t, server, "r", c)
	r.Count("s", "c", ok(time.Millisecond))
	for i, value := range []string{``, `{}`, `{"v":1}`, `{"v":2,"body":"AA=="}`, `{"v":1,"body":"AA=="}`, `{"v":1,"body":"////"}`, `{"v":1,"body":7}`} {
		_, err := r.store.Client.Put(t.Context(), state.StatisticsKey(start, "x", i), value)
		require.NoError(t, err)
	}
	for _, key := range []string{"x", "2026112304/a", "2026112304/a/1/2"} {
		_, err := r.store.Client.Put(t.Context(), state.PrefixStatistics+key, `{"v":1,"body":"AwA="}`)
		require.NoError(t, err)
	}
	r.write()
	require.Equal(t, []gateway.Point{point(start, 1)}, r.points(Query{}))
	c.set(start.Add(26 * time.Hour))
	r.sweeper = sweeper{}
	r.write()
	require.Len(t, minuteKeys(t, r.store), 1, "and do not stop others from being folded")
	require.Equal(t, []gateway.Point{point(start, 1)}, r.points(Query{From: start}))
	c.set(start.Add(9 * 24 * time.Hour))
	r.sweeper = sweeper{}
	r.write()
	require.Equal(t, []string{state.PrefixStatistics + "x"}, keys(t, r.store), "they go with their hour")
}
