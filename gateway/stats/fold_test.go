package stats

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/openmep/mep/api/gateway"
	"github.com/openmep/mep/kit/etcd"
	"github.com/openmep/mep/kit/etcdtest"
)

func TestAnHourOfAReplicaBecomesAsManyRecordsAsItHasPairsFor(t *testing.T) {
	c, server := newClock(), etcdtest.Start(t)
	r := newReplica(t, server, "r", c)
	const pairs = 2*partPairs + 10
	for minute := range 60 {
		for k := range pairs {
			if k%7 != minute%7 { // not every pair in every minute
				r.Count("s", fmt.Sprintf("consumer-%03d", k), ok(time.Millisecond))
			}
		}
		c.pass(time.Minute)
		r.write()
	}
	byMinute, byHour := minutes(Query{From: start, To: start.Add(time.Hour)}), Query{From: start, To: start.Add(time.Hour)}
	wantMinutes, wantHours := r.read(byMinute), r.read(byHour)
	require.Len(t, keys(t, r.store), 6*3)
	c.pass(keepRecent)
	r.sweepNow()
	require.Len(t, keys(t, r.store), 3)
	require.Len(t, minuteKeys(t, r.store), 3)
	require.Equal(t, wantMinutes, r.read(byMinute))
	require.Equal(t, wantHours, r.read(byHour))
	require.Equal(t, wantMinutes, newReplica(t, server, "other", c).read(byMinute))
}

func TestWhatMayBeWrittenOnceMoreIsNotFolded(t *testing.T) {
	c := newClock()
	r := newReplica(t, etcdtest.Start(t), "r", c)
	for range 3 {
		r.Count("s", "c", ok(time.Millisecond))
		c.pass(span)
		r.collect()
		r.tick(t.Context()) // settles nothing: the mirror need not have caught up
	}
	r.see()
	r.mu.Lock()
	r.since = start.Add(time.Hour + keepRecent)
	r.mu.Unlock()
	c.set(start.Add(time.Hour + keepRecent))
	held := r.heldKeys()
	folded := 0
	for _, group := range r.unfolded(c.now()) {
		for _, src := range group {
			require.NotContains(t, held, src.item.Key)
			folded++
		}
	}
	require.Equal(t, 3, folded+len(held))
	r.settle()
	require.Empty(t, r.heldKeys())
	r.sweepNow()
	want := []gateway.Point{point(start, 1), point(start.Add(span), 1), point(start.Add(2*span), 1)}
	require.Equal(t, want, r.points(minutes(Query{From: start})))
}

func TestRecordsThatGoTogether(t *testing.T) {
	hour := func(n int) time.Time { return start.Add(time.Duration(n) * time.Hour) }
	list := []source{ // hour, span, part
		{hour: hour(1), span: 0, part: 21}, {hour: hour(0), span: 2, part: 11}, {hour: hour(0), span: 0, part: 2}, {hour: hour(0), span: 0, part: 1},
		{hour: hour(0), span: 2, part: 9}, {hour: hour(0), span: 2, part: 10}, {hour: hour(1), span: 5, part: 30}, {hour: hour(0), span: 1, part: 8},
	}
	var got [][]int
	for _, group := range together(list) {
		var parts []int
		for _, s := range group {
			parts = append(parts, s.part)
		}
		got = append(got, parts)
	}
	require.Equal(t, [][]int{{1, 8, 9}, {2, 10}, {11}, {21, 30}}, got)
	require.Empty(t, together(nil))
}

// narrow is an etcd that rejects transactions of more than two operations as too large.
type narrow struct{ clientv3.KV }

func (n narrow) Txn(ctx context.Context) clientv3.Txn { return &narrowTxn{Txn: n.KV.Txn(ctx)} }

type narrowTxn struct {
	clientv3.Txn
	refused bool
}

func (n *narrowTxn) If(cmps ...clientv3.Cmp) clientv3.Txn { n.Txn = n.Txn.If(cmps...); return n }
func (n *narrowTxn) Else(ops ...clientv3.Op) clientv3.Txn { n.Txn = n.Txn.Else(ops...); return n }

func (n *narrowTxn) Then(ops ...clientv3.Op) clientv3.Txn {
	n.Txn, n.refused = n.Txn.Then(ops...), len(ops) > 2
	return n
}

func (n *narrowTxn) Commit() (*clientv3.TxnResponse, error) {
	if n.refused {
		return nil, rpctypes.ErrRequestTooLarge
	}
	return n.Txn.Commit()
}

func TestRecordsThatAreTooLargeTogetherAreFoldedOneByOne(t *testing.T) {
	c := newClock()
	r := newReplica(t, etcdtest.Start(t), "r", c)
	for range 3 {
		r.Count("s", "c", ok(time.Millisecond))
		c.pass(span)
		r.write()
	}
	r.Stats.store = etcd.NewStore(r.store.Client, narrow{r.store.Client.KV}, r.store.Client, 0)
	c.set(start.Add(time.Hour + keepRecent))
	r.sweepNow()
	require.Len(t, keys(t, r.store), 3)
	require.Len(t, minuteKeys(t, r.store), 3)
	want := []gateway.Point{point(start, 1), point(start.Add(span), 1), point(start.Add(2*span), 1)}
	require.Equal(t, want, r.points(minutes(Query{From: start})))
}
