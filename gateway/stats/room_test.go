package stats

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/openmep/mep/api/gateway"
	"github.com/openmep/mep/api/state"
	"github.com/openmep/mep/kit/errs"
	"github.com/openmep/mep/kit/etcdtest"
)

// hours counts a call of each consumer in the first minutes of each of n hours, and returns once all hours are folded.
func (r *replica) hours(c *clock, n, consumers, minutes int) {
	r.t.Helper()
	for range n {
		for m := range minutes {
			for k := range consumers {
				r.Count("s", fmt.Sprint("consumer-", k), Outcome{Status: 200, Took: time.Millisecond, Bytes: int64(100 + m*k*k)})
			}
			c.pass(time.Minute)
			r.collect()
		}
		c.pass(time.Hour - time.Duration(minutes)*time.Minute)
		r.write()
	}
	c.pass(keepRecent)
	r.sweepNow()
}

// sweepNow sweeps and waits until the replica sees the result.
func (r *replica) sweepNow() {
	r.t.Helper()
	r.sweeper = sweeper{}
	r.write()
}

func TestTheOldestMinutesGoWhenThereIsNoRoom(t *testing.T) {
	c := newClock()
	r := newReplica(t, etcdtest.Start(t), "r", c)
	r.hours(c, 20, 100, 8)
	of := minutes(Query{Consumer: "consumer-3", From: start})
	require.Len(t, r.points(of), 8*20)
	uses := r.uses()
	require.Len(t, uses, 20)
	one := uses[0].minutes
	require.Greater(t, one, uses[0].records)

	r.mostKept = 12*one + one/2
	r.sweepNow()
	require.Len(t, minuteKeys(t, r.store), 12)
	from := start.Add(8 * time.Hour)
	_, err := r.Find(context.Background(), of)
	require.ErrorIs(t, err, errs.Invalid, "what is not kept is not said to be nothing")
	require.ErrorContains(t, err, from.Format(time.RFC3339))
	of.From = from
	require.Len(t, r.points(of), 12*8)
	require.Len(t, r.points(Query{Consumer: "consumer-3", From: start}), 20, "hours stay")

	r.hours(c, 3, 100, 8)
	r.sweepNow()
	require.Len(t, minuteKeys(t, r.store), 12, "the newest stay")
	families, err := r.reg.Gather()
	require.NoError(t, err)
	stored := make(map[string]float64)
	for _, f := range families {
		if f.GetName() == "mep_gateway_statistics_stored_bytes" {
			for _, m := range f.GetMetric() {
				stored[m.GetLabel()[0].GetValue()] = m.GetGauge().GetValue()
			}
		}
	}
	require.InDelta(t, float64(12*one), stored["minutes"], float64(one))
	require.Positive(t, stored["records"])
}

func TestTheOldestHoursGoWhenThereIsNoRoom(t *testing.T) {
	c := newClock()
	r := newReplica(t, etcdtest.Start(t), "r", c)
	r.hours(c, 10, 10, 1)
	r.mostKept = 4 * r.uses()[0].records
	r.sweepNow()
	require.Len(t, keys(t, r.store), 4)
	require.LessOrEqual(t, len(minuteKeys(t, r.store)), 4, "minutes do not outlast their records")
	require.Len(t, r.points(Query{Consumer: "consumer-3", From: start}), 4)

	r.mostKept = 0
	c.pass(time.Hour)
	r.Count("s", "new", ok(time.Millisecond))
	r.sweepNow()
	require.Len(t, keys(t, r.store), 1)
	r.sweepNow()
	require.Equal(t, int64(1), total(r.read(Query{Consumer: "new"})), "what is recent stays whatever there is room for")
}

func TestRoomIsAPartOfTheQuota(t *testing.T) {
	c, server := newClock(), etcdtest.Start(t)
	r := newReplica(t, server, "r", c)
	status, err := r.store.Client.Status(t.Context(), server.Endpoint())
	require.NoError(t, err)
	for name, x := range map[string]struct{ most, want int64 }{
		"enough":       {most: 1 << 20, want: 1 << 20},
		"a small disk": {most: 1 << 40, want: status.DbSizeQuota / partOfQuota},
	} {
		t.Run(name, func(t *testing.T) {
			r.mostKept = x.most
			r.measure(t.Context())
			require.Equal(t, x.want, r.room)
		})
	}
}

func TestSince(t *testing.T) {
	hour := func(n int) time.Time { return start.Add(time.Duration(n) * time.Hour) }
	uses := []use{{hour: hour(0), minutes: 5}, {hour: hour(1), minutes: 7}, {hour: hour(5), minutes: 1}}
	for name, x := range map[string]struct {
		room int64
		want time.Time
	}{
		"all fit":     {room: 13, want: time.Time{}},
		"not all":     {room: 12, want: hour(1)},
		"the newest":  {room: 7, want: hour(2)},
		"none of all": {room: 0, want: hour(6)},
	} {
		t.Run(name, func(t *testing.T) { require.Equal(t, x.want, since(uses, use.ofMinutes, x.room)) })
	}
	require.Zero(t, since(nil, use.ofMinutes, 0))
}

func TestMinutesInManyRecords(t *testing.T) {
	c, server := newClock(), etcdtest.Start(t)
	dead := newReplica(t, server, "dead", c)
	for range 2*minutesPage + 1 {
		dead.Count("s", "c", ok(time.Millisecond))
		c.pass(span)
		dead.collect()
	}
	dead.tick(t.Context())
	c.pass(keepRecent + foldOthers + time.Hour)
	r := newReplica(t, server, "r", c)
	r.sweepNow()
	require.Len(t, minuteKeys(t, r.store), maxFolds)
	r.sweepNow()
	require.Len(t, minuteKeys(t, r.store), 2*minutesPage+1)
	require.Len(t, r.points(minutes(Query{From: start})), 2*minutesPage+1)
}

func TestWhileEtcdIsAwayRecentMinutesAndHoursAreTold(t *testing.T) {
	c, server := newClock(), etcdtest.Start(t)
	r := newReplica(t, server, "r", c)
	r.hours(c, 3, 1, 1)
	r.Count("s", "consumer-0", ok(time.Millisecond))
	r.write()
	server.Stop()
	_, err := r.Find(context.Background(), minutes(Query{From: start}))
	require.ErrorIs(t, err, errs.Unavailable)
	require.Len(t, r.points(minutes(Query{})), 1)
	require.Len(t, r.points(Query{}), 4)

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	r.turn <- struct{}{} // another query is reading
	_, err = r.Find(ctx, minutes(Query{From: start}))
	require.ErrorIs(t, err, errs.Unavailable, "nobody waits longer than for the answer")
}

func TestDamagedMinutesAreLeftOut(t *testing.T) {
	c := newClock()
	r := newReplica(t, etcdtest.Start(t), "r", c)
	r.hours(c, 3, 1, 1)
	_, err := r.store.Client.Put(t.Context(), minuteKeys(t, r.store)[1], "x")
	require.NoError(t, err)
	_, err = r.store.Client.Put(t.Context(), state.MinutesRoot+"2026112304/unknown/1", "x")
	require.NoError(t, err)
	require.Equal(t, []gateway.Point{point(start, 1), point(start.Add(2*time.Hour), 1)}, r.points(minutes(Query{From: start})))
}

// TestRecordsOfTheReleaseBefore has records of the previous release: of the last day by the minute, before that only by the hour.
func TestRecordsOfTheReleaseBefore(t *testing.T) {
	c := newClock()
	r := newReplica(t, etcdtest.Start(t), "r", c)
	put := func(hour time.Time, fold bool) {
		calls := state.CallStatistics{Pairs: []state.CallPair{{Service: "s", Consumer: "c", Buckets: []state.CallBucket{{Minute: 7, Calls: 1, Micros: 1000, Bytes: 100}}}}}
		if fold {
			calls = calls.Fold()
		}
		packed, err := calls.Pack()
		require.NoError(t, err)
		value, err := state.Encode(packed)
		require.NoError(t, err)
		_, err = r.store.Client.Put(t.Context(), state.StatisticsKey(hour, "old", 0), value, clientv3.WithPrevKV())
		require.NoError(t, err)
	}
	for h := range 48 {
		put(start.Add(-time.Duration(48-h)*time.Hour), h < 24)
	}
	r.see()
	r.sweepNow()
	require.Len(t, r.points(Query{From: start.Add(-48 * time.Hour)}), 48)
	require.Len(t, r.points(minutes(Query{From: start.Add(-48 * time.Hour)})), 24)
	require.Len(t, minuteKeys(t, r.store), 21, "three hours are recent, of somebody else")
}
