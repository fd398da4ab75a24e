package stats

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/goleak"

	"github.com/openmep/mep/api/gateway"
	"github.com/openmep/mep/api/state"
	"github.com/openmep/mep/kit/errs"
	"github.com/openmep/mep/kit/etcd"
	"github.com/openmep/mep/kit/etcdtest"
	"github.com/openmep/mep/kit/watched"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		// Background work of closed etcd servers.
		goleak.IgnoreAnyFunction("go.etcd.io/etcd/pkg/v3/logutil.(*MergeLogger).outputLoop"),
		goleak.IgnoreAnyFunction("github.com/golang/glog.(*fileSink).flushDaemon"),
	)
}

var start = time.Date(2026, 11, 23, 4, 0, 0, 0, time.UTC)

// clock is a clock that a test sets.
type clock struct{ at atomic.Int64 }

func newClock() *clock {
	c := &clock{}
	c.set(start)
	return c
}

func (c *clock) now() time.Time       { return time.Unix(0, c.at.Load()).UTC() }
func (c *clock) set(t time.Time)      { c.at.Store(t.UnixNano()) }
func (c *clock) pass(d time.Duration) { c.at.Add(int64(d)) }
func quiet() *slog.Logger             { return slog.New(slog.DiscardHandler) }
func times(n int, do func()) {
	for range n {
		do()
	}
}
func ok(took time.Duration) Outcome { return Outcome{Status: 200, Took: took, Bytes: 100} }
func minutes(q Query) Query         { q.Resolution = gateway.StatMinute; return q }
func day(d int) time.Time           { return start.Truncate(24*time.Hour).AddDate(0, 0, d) }
func point(at time.Time, n int64) gateway.Point {
	return gateway.Point{Time: at, Calls: n, Millis: n, Bytes: 100 * n}
}

// replica is a gateway with a mirror of its own.
type replica struct {
	*Stats
	t     testing.TB
	store *etcd.Store
	reg   *prometheus.Registry
	end   context.CancelFunc
}

func newReplica(t testing.TB, server *etcdtest.Server, name string, c *clock) *replica {
	t.Helper()
	r := &replica{t: t, store: server.Store(t), reg: prometheus.NewRegistry()}
	m := watched.New(watched.Config{Source: r.store.Client, Prefix: state.Root, Logger: quiet(), ProbeInterval: 50 * time.Millisecond})
	r.Stats = newStats(r.store, m, name, quiet(), r.reg, c.now)
	ctx, end := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { _ = m.Run(ctx) })
	r.end = func() { end(); wg.Wait() }
	t.Cleanup(r.end)
	select {
	case <-m.Ready():
	case <-time.After(10 * time.Second):
		t.Fatal("the mirror was not ready in time")
	}
	return r
}

// write ticks and waits until the replica sees what it has written.
func (r *replica) write() {
	r.t.Helper()
	r.tick(r.t.Context())
	r.see()
}

// see waits until the replica sees the current state of etcd.
func (r *replica) see() {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), 10*time.Second)
	defer cancel()
	revision, err := r.store.Revision(ctx, state.PrefixStatistics)
	require.NoError(r.t, err)
	require.NoError(r.t, r.mirror.WaitRevision(ctx, revision))
}

func (r *replica) read(q Query) gateway.Statistics {
	r.t.Helper()
	got, err := r.Find(context.Background(), q)
	require.NoError(r.t, err)
	return got
}

// points returns the points of the only series of an answer.
func (r *replica) points(q Query) []gateway.Point {
	r.t.Helper()
	got := r.read(q)
	require.Len(r.t, got.Series, 1)
	return got.Series[0].Points
}

func keys(t testing.TB, store *etcd.Store) []string       { return below(t, store, state.PrefixStatistics) }
func minuteKeys(t testing.TB, store *etcd.Store) []string { return below(t, store, state.MinutesRoot) }

func below(t testing.TB, store *etcd.Store, prefix string) []string {
	t.Helper()
	resp, err := store.Client.Get(t.Context(), prefix, clientv3.WithPrefix(), clientv3.WithKeysOnly())
	require.NoError(t, err)
	var list []string
	for _, kv := range resp.Kvs {
		list = append(list, string(kv.Key))
	}
	return list
}

func total(s gateway.Statistics) int64 {
	var n int64
	for _, series := range s.Series {
		for _, p := range series.Points {
			n += p.Calls
		}
	}
	return n
}

func TestWhatIsCounted(t *testing.T) {
	c := newClock()
	r := newReplica(t, etcdtest.Start(t), "r", c)
	for _, o := range []Outcome{
		{Status: 200, Took: 1500 * time.Microsecond, Bytes: 10}, {Status: 404, Took: 600 * time.Microsecond}, {Status: 401, Refused: true},
		{Status: 429, Refused: true, Bytes: 5}, {Status: 503, Refused: true}, {Status: 500}, {}, {Took: -time.Hour, Bytes: -1},
	} {
		r.Count("video", "app-1", o)
	}
	r.Count("video", "", ok(0))
	r.Count("audio", "app-1", ok(0))
	want := gateway.Statistics{
		Resolution: gateway.StatHour, From: start.Add(-24 * time.Hour), To: start.Add(time.Hour),
		Series: []gateway.Series{
			{Service: "audio", Consumer: "app-1", Points: []gateway.Point{{Time: start, Calls: 1, Bytes: 100}}},
			{Service: "video", Consumer: state.Anonymous, Points: []gateway.Point{{Time: start, Calls: 1, Bytes: 100}}},
			{Service: "video", Consumer: "app-1", Points: []gateway.Point{{Time: start, Calls: 8, Refused: 2, Failed: 2, Millis: 2, Bytes: 15}}},
		},
	}
	c.pass(time.Minute)
	require.Equal(t, want, r.read(Query{}), "before it is written")
	r.write()
	require.Equal(t, want, r.read(Query{}), "after it is written, once")
	want.Series = want.Series[1:2]
	require.Equal(t, want, r.read(Query{Service: "video", Consumer: state.Anonymous}))
	require.Empty(t, r.read(Query{Service: "none"}).Series)
}

func TestCallsAreInTheirMinuteHourAndDay(t *testing.T) {
	c := newClock()
	r := newReplica(t, etcdtest.Start(t), "r", c)
	c.set(day(0).Add(23*time.Hour + 58*time.Minute))
	r.write()
	for n := range 4 { // 23:58, 23:59, 0:00, 0:01
		times(n+1, func() { r.Count("s", "c", ok(time.Millisecond)) })
		times(6, func() { c.pass(10 * time.Second); r.write() })
	}
	midnight := day(1)
	for name, x := range map[string]struct {
		query Query
		want  []gateway.Point
	}{
		"minutes": {minutes(Query{}), []gateway.Point{
			point(midnight.Add(-2*time.Minute), 1), point(midnight.Add(-time.Minute), 2), point(midnight, 3), point(midnight.Add(time.Minute), 4),
		}},
		"hours":                 {Query{}, []gateway.Point{point(midnight.Add(-time.Hour), 3), point(midnight, 7)}},
		"days":                  {Query{Resolution: gateway.StatDay}, []gateway.Point{point(day(0), 3), point(midnight, 7)}},
		"some of them":          {minutes(Query{From: midnight.Add(-time.Minute), To: midnight.Add(time.Minute)}), []gateway.Point{point(midnight.Add(-time.Minute), 2), point(midnight, 3)}},
		"times between buckets": {minutes(Query{From: midnight.Add(-time.Second), To: midnight.Add(time.Second)}), []gateway.Point{point(midnight.Add(-time.Minute), 2), point(midnight, 3)}},
		"other zones":           {Query{From: midnight.In(time.FixedZone("", 3600)), To: midnight.Add(1)}, []gateway.Point{point(midnight, 7)}},
	} {
		t.Run(name, func(t *testing.T) { require.Equal(t, x.want, r.points(x.query)) })
	}
}

func TestReplicasAreAddedUp(t *testing.T) {
	c, server := newClock(), etcdtest.Start(t)
	a, b := newReplica(t, server, "same name", c), newReplica(t, server, "same name", c)
	for n := range 5 {
		a.Count("s", "c", ok(time.Millisecond))
		times(2, func() { b.Count("s", "c", ok(time.Millisecond)) })
		a.write()
		b.write()
		a.see()
		for _, r := range []*replica{a, b} {
			require.Equal(t, []gateway.Point{point(start, int64(3*(n+1)))}, r.points(Query{}))
		}
		c.pass(10 * time.Second)
	}
	require.Len(t, keys(t, a.store), 2, "a record is written again")
}

func TestAfterARestartNothingIsMissing(t *testing.T) {
	c, server := newClock(), etcdtest.Start(t)
	for n := range 3 {
		r := newReplica(t, server, "r", c)
		ctx, end := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- r.Run(ctx) }()
		times(10, func() { r.Count("s", "c", ok(time.Millisecond)) })
		end()
		require.NoError(t, <-done)
		r.see()
		require.Equal(t, []gateway.Point{point(start, int64(10*(n+1)))}, r.points(Query{}))
		r.end()
	}
}

func TestAKilledReplicaLosesWhatItHadNotWritten(t *testing.T) {
	c, server := newClock(), etcdtest.Start(t)
	killed := newReplica(t, server, "r", c)
	times(10, func() { killed.Count("s", "c", ok(time.Millisecond)) })
	killed.write()
	times(7, func() { killed.Count("s", "c", ok(time.Millisecond)) })
	killed.end()
	r := newReplica(t, server, "r", c)
	times(2, func() { r.Count("s", "c", ok(time.Millisecond)) })
	r.write()
	require.Equal(t, []gateway.Point{point(start, 12)}, r.points(Query{}))
}

func TestRunWritesByItself(t *testing.T) {
	c := newClock()
	c.set(start.Add(interval - 20*time.Millisecond))
	r := newReplica(t, etcdtest.Start(t), "r", c)
	ctx, end := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- r.Run(ctx) }()
	r.Count("s", "c", ok(0))
	require.Eventually(t, func() bool { return len(keys(t, r.store)) == 1 }, 10*time.Second, time.Millisecond)
	end()
	require.NoError(t, <-done)
}

func TestTooManyPairs(t *testing.T) {
	c := newClock()
	r := newReplica(t, etcdtest.Start(t), "r", c)
	const services, consumers = 2 * maxOthers, 20
	for s := range services {
		for k := range consumers {
			r.Count(fmt.Sprint("service-", s), fmt.Sprint("consumer-", k), ok(0))
		}
	}
	got := r.read(Query{})
	require.Equal(t, int64(services*consumers), total(got))
	apart, others := 0, 0
	for _, s := range got.Series {
		switch {
		case s.Consumer != state.Others:
			apart++
		case s.Service == state.Others:
			require.Positive(t, s.Points[0].Calls)
		default:
			others++
		}
	}
	require.Equal(t, MaxPairs, apart)
	require.Equal(t, maxOthers, others)
	r.write()
	require.Equal(t, got, r.read(Query{}))
	resp, err := r.store.Client.Get(t.Context(), state.PrefixStatistics, clientv3.WithPrefix())
	require.NoError(t, err)
	require.Len(t, resp.Kvs, (MaxPairs+maxOthers)/partPairs+1)
	for _, kv := range resp.Kvs {
		require.Less(t, len(kv.Value), 64<<10)
	}
	c.pass(time.Hour)
	r.collect()
	r.Count("new", "consumer", ok(0))
	require.Equal(t, int64(1), total(r.read(Query{Service: "new", Consumer: "consumer"})), "in the next hour there is room")
}

func TestTheLargestRecord(t *testing.T) {
	c := newClock()
	r := newReplica(t, etcdtest.Start(t), "r", c)
	random := rand.New(rand.NewPCG(3, 4))
	name := func() string { // random bytes that do not compress
		b := make([]byte, 2*maxName)
		for i := range b {
			b[i] = byte(random.Uint32())
		}
		return string(b)
	}
	names := make([]string, 2*partPairs)
	for i := range names {
		names[i] = name()
	}
	for range 10 {
		for i := range partPairs {
			r.Count(names[2*i], names[2*i+1], Outcome{Status: 500 + i%2, Took: time.Duration(random.Int64()), Bytes: random.Int64()})
		}
		c.pass(time.Minute)
		r.collect()
	}
	r.write()
	resp, err := r.store.Client.Get(t.Context(), state.PrefixStatistics, clientv3.WithPrefix())
	require.NoError(t, err)
	require.Len(t, resp.Kvs, 1)
	require.Less(t, len(resp.Kvs[0].Value), 256<<10)
	require.Len(t, r.read(minutes(Query{})).Series, partPairs)
}

func TestQueriesThatAreRefused(t *testing.T) {
	c := newClock()
	r := newReplica(t, etcdtest.Start(t), "r", c)
	for name, q := range map[string]Query{
		"resolution":        {Resolution: "week"},
		"from after to":     {From: start, To: start.Add(-time.Hour)},
		"from is to":        {From: start, To: start},
		"too old":           {From: start.Add(-9 * 24 * time.Hour)},
		"minutes too old":   minutes(Query{From: start.Add(-9 * 24 * time.Hour)}),
		"far in the future": {To: start.Add(100 * 24 * time.Hour)},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := r.Find(context.Background(), q)
			require.ErrorIs(t, err, errs.Invalid)
		})
	}
}

func TestAnAnswerIsBounded(t *testing.T) {
	c := newClock()
	r := newReplica(t, etcdtest.Start(t), "r", c)
	for range MaxPoints/1000 + 1 {
		for k := range 1000 {
			r.Count("s", fmt.Sprint(k), ok(0))
		}
		c.pass(time.Minute)
		r.collect()
	}
	_, err := r.Find(context.Background(), minutes(Query{}))
	require.ErrorIs(t, err, errs.Invalid)
	require.Contains(t, err.Error(), "points")
	require.Len(t, r.points(minutes(Query{Consumer: "7"})), MaxPoints/1000+1)
	require.Len(t, r.read(Query{}).Series, 1000)
}

// TestNothingIsLostBetweenManyCallers concurrently counts, collects, writes, reads and changes the hour.
func TestNothingIsLostBetweenManyCallers(t *testing.T) {
	c := newClock()
	r := newReplica(t, etcdtest.Start(t), "r", c)
	const callers, each = 8, 6000
	var counting, working sync.WaitGroup
	stop := make(chan struct{})
	working.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				c.pass(2 * time.Minute)
				r.tick(t.Context())
				if _, err := r.Find(context.Background(), Query{}); err != nil {
					t.Error(err)
				}
			}
			time.Sleep(5 * time.Millisecond) // calls to Count that began before one change of the hour end before the next
		}
	})
	for k := range callers {
		counting.Go(func() {
			for n := range each {
				r.Count(fmt.Sprint("s", n%7), fmt.Sprint("c", (n+k)%50), ok(time.Millisecond))
				if n%100 == 0 {
					time.Sleep(time.Millisecond)
				}
			}
		})
	}
	counting.Wait()
	close(stop)
	working.Wait()
	require.Equal(t, int64(callers*each), total(r.read(Query{From: start.Add(-time.Hour), To: c.now().Add(time.Hour)})))
}

func TestNamesAreNotPartsOfRequests(t *testing.T) {
	g := newGeneration()
	long := strings.Repeat("x", 10*maxName)
	require.Same(t, g.find("s", long), g.find("s", long+"y"), "of long names the beginning counts")
	require.Same(t, g.find("s", long[:maxName]), g.find("s", long))
	require.NotSame(t, g.find("s", "a"), g.find("s", "b"))
	require.NotSame(t, g.find("", "s"), g.find("s", ""))
}

func BenchmarkCount(b *testing.B) {
	g := newGeneration()
	s := &Stats{}
	s.current.Store(g)
	consumers := make([]string, 64)
	for i := range consumers {
		consumers[i] = fmt.Sprintf("f81d4fae-7dec-41d0-a765-00a0c91e6b%02x", i)
		s.Count("video", consumers[i], ok(0))
	}
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for i := 0; pb.Next(); i++ {
			s.Count("video", consumers[i%len(consumers)], Outcome{Status: 200, Took: time.Millisecond, Bytes: 2048})
		}
	})
}
