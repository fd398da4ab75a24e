package quota

import (
	"context"
	"flag"
	"log/slog"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/goleak"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/openmep/mep/api/gateway"
	"github.com/openmep/mep/api/state"
	"github.com/openmep/mep/kit/etcd"
	"github.com/openmep/mep/kit/etcdtest"
)

func TestMain(m *testing.M) {
	_ = flag.Set("rapid.checks", "60") // each runs a few hundred transactions
	goleak.VerifyTestMain(m,
		// Background work of closed etcd servers.
		goleak.IgnoreAnyFunction("go.etcd.io/etcd/pkg/v3/logutil.(*MergeLogger).outputLoop"),
		goleak.IgnoreAnyFunction("github.com/golang/glog.(*fileSink).flushDaemon"),
	)
}

// noon is in the middle of an hour, a day and a month.
var noon = time.Date(2026, 5, 15, 12, 30, 0, 0, time.UTC)

// clockwork is the clock of a replica, which advances only when told to.
type clockwork struct{ wall, mono atomic.Int64 }

func newClockwork(at time.Time) *clockwork {
	c := &clockwork{}
	c.wall.Store(at.UnixNano())
	return c
}

func (c *clockwork) read() (wall, mono int64) { return c.wall.Load(), c.mono.Load() }

func (c *clockwork) pass(d time.Duration) {
	c.wall.Add(int64(d))
	c.mono.Add(int64(d))
}

// set steps the clock, as an operator does.
func (c *clockwork) set(d time.Duration) { c.wall.Add(int64(d)) }

// faulty is a connection to etcd that loses some of the transactions, or the responses to them.
type faulty struct {
	clientv3.KV
	percent atomic.Int64 // percentage of transactions that fail
	deliver atomic.Bool  // always lose only the responses
	count   atomic.Int64
	before  atomic.Pointer[func(key string)] // runs before a transaction, with the key it writes
}

func (f *faulty) Txn(ctx context.Context) clientv3.Txn {
	return &faultyTxn{Txn: f.KV.Txn(ctx), faults: f}
}

type faultyTxn struct {
	clientv3.Txn
	faults *faulty
	key    string
}

func (t *faultyTxn) If(c ...clientv3.Cmp) clientv3.Txn { t.Txn = t.Txn.If(c...); return t }
func (t *faultyTxn) Then(o ...clientv3.Op) clientv3.Txn {
	t.Txn, t.key = t.Txn.Then(o...), string(o[0].KeyBytes())
	return t
}
func (t *faultyTxn) Else(o ...clientv3.Op) clientv3.Txn { t.Txn = t.Txn.Else(o...); return t }
func (t *faultyTxn) Commit() (*clientv3.TxnResponse, error) {
	t.faults.count.Add(1)
	if before := t.faults.before.Load(); before != nil {
		(*before)(t.key)
	}
	gone := status.Error(codes.Unavailable, "the connection was lost")
	if rand.Int64N(100) < t.faults.percent.Load() {
		if t.faults.deliver.Load() || rand.IntN(2) == 0 {
			_, _ = t.Txn.Commit()
		}
		return nil, gone
	}
	return t.Txn.Commit()
}

// replica holds the quotas of one process.
type replica struct {
	*Quotas
	clock  *clockwork
	faults *faulty
}

// cluster is a set of replicas that share one etcd.
type cluster struct {
	server *etcdtest.Server
	store  *etcd.Store
	size   int
	keys   int
}

func newCluster(tb testing.TB, size int) *cluster {
	server := etcdtest.Start(tb)
	return &cluster{server: server, store: server.Store(tb), size: size}
}

// start creates a replica. The test decides whether to call its Run.
func (c *cluster) start(at time.Time) *replica {
	r := &replica{clock: newClockwork(at), faults: &faulty{KV: c.store.Client.KV}}
	r.Quotas = newQuotas(Config{
		Store:    etcd.NewStore(c.store.Client, r.faults, c.store.Source, time.Minute),
		Replicas: func() int { return c.size }, Keys: c.keys,
		Log: slog.New(slog.DiscardHandler), Registerer: prometheus.NewRegistry(),
	}, r.clock.read)
	r.patience, r.bound = time.Minute, time.Minute // a busy machine is no reason for a test to fail
	return r
}

// replicas creates replicas that are stopped when the test ends.
func (c *cluster) replicas(tb testing.TB, n int, at time.Time) []*replica {
	list := make([]*replica, n)
	for i := range list {
		list[i] = c.start(at)
		tb.Cleanup(list[i].close)
	}
	return list
}

// settle waits for the transactions in flight.
func (r *replica) settle() { r.working.Wait() }

func per(window string, calls int64) []gateway.Quota {
	return []gateway.Quota{{Calls: calls, Per: window}}
}

// calls makes at most most calls, one after another, until one is refused, and returns how many were allowed.
func (r *replica) calls(tb testing.TB, most int, quotas []gateway.Quota) int {
	for n := range most {
		if !r.Take(tb.Context(), "route", "app", quotas, "").Allowed {
			return n
		}
	}
	return most
}

// held returns how many calls the replica holds of a quota.
func (r *replica) held(k kind, consumer string) int64 {
	a := r.accounts.lock(pair{"route", consumer})
	defer a.mu.Unlock()
	if a.windows[k] == nil {
		return 0
	}
	return a.windows[k].held
}

// taken returns how many calls have been taken according to etcd.
func (c *cluster) taken(tb testing.TB, window string, begin time.Time) int64 {
	resp, err := c.store.Do(tb.Context(), clientv3.OpGet(state.QuotaKey("route", "app", window, begin)))
	require.NoError(tb, err)
	r, err := decode(resp.Get())
	require.NoError(tb, err)
	return r.taken
}
