package lockout

import (
	"context"
	"fmt"
	"log/slog"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/openmep/mep/api/state"
	"github.com/openmep/mep/kit/errs"
	"github.com/openmep/mep/mepauth/authtest"
)

var usual = Policy{Failures: 3, Window: 5 * time.Minute, Duration: 15 * time.Minute, KeyFailures: 20}

const (
	key  = "AAAAAAAAAAAAAAAAAAAA"
	here = "10.0.0.1"
)

type clock struct {
	mu sync.Mutex
	t  time.Time
}

func (c *clock) now() time.Time { c.mu.Lock(); defer c.mu.Unlock(); return c.t }
func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
}

func newBook(t *testing.T, w *authtest.World, c *clock) *Book {
	t.Helper()
	b := New(w.Private, w.Store, func() Policy { return usual }, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	b.now = c.now
	w.Start(t)
	return b
}

func (b *Book) fails(t *testing.T, n int, accessKeyID, source string) (lock time.Duration) {
	t.Helper()
	for range n {
		var err error
		lock, err = b.Failed(t.Context(), accessKeyID, source, true)
		require.NoError(t, err)
	}
	return lock
}

func TestThreeFailuresLockTheKeyForTheirSource(t *testing.T) {
	c := &clock{t: time.Now()}
	b := newBook(t, authtest.New(t), c)
	require.Zero(t, b.fails(t, 2, key, here))
	require.Zero(t, b.Locked(key, here))
	require.Equal(t, usual.Duration, b.fails(t, 1, key, here))
	require.Equal(t, usual.Duration, b.Locked(key, here))
	require.Zero(t, b.Locked(key, "10.0.0.2"), "another source")
	require.Zero(t, b.Locked("BBBBBBBBBBBBBBBBBBBB", here), "another key")

	c.add(usual.Duration - time.Second)
	require.Equal(t, time.Second, b.Locked(key, here))
	c.add(2 * time.Second)
	require.Zero(t, b.Locked(key, here))
	require.Zero(t, b.fails(t, 2, key, here), "counting begins anew")
	require.NotZero(t, b.fails(t, 1, key, here))
}

func TestFailuresCountWithinTheirWindowOnly(t *testing.T) {
	c := &clock{t: time.Now()}
	b := newBook(t, authtest.New(t), c)
	for range 4 {
		require.Zero(t, b.fails(t, 2, key, here))
		c.add(usual.Window + time.Second)
	}
}

func TestSuccessForgetsFailures(t *testing.T) {
	c := &clock{t: time.Now()}
	b := newBook(t, authtest.New(t), c)
	for range 3 {
		require.Zero(t, b.fails(t, 2, key, here))
		b.Succeeded(t.Context(), key, here)
	}
}

func TestFailuresFromManyAddressesLockOutStrangersOnly(t *testing.T) {
	c := &clock{t: time.Now()}
	b := newBook(t, authtest.New(t), c)
	b.Succeeded(t.Context(), key, here)
	for i := range usual.KeyFailures {
		b.fails(t, 1, key, fmt.Sprintf("10.1.0.%d", i))
	}
	require.NotZero(t, b.Locked(key, "10.2.0.1"), "an address nobody has seen yet")
	require.Zero(t, b.Locked(key, here), "where the key is used from")
	require.Zero(t, b.fails(t, 2, key, here))
	require.NotZero(t, b.fails(t, 1, key, here), "failures there count for themselves")
}

func TestRestartsAndReplicasRemember(t *testing.T) {
	c := &clock{t: time.Now()}
	w := authtest.New(t)
	b := newBook(t, w, c)
	w2 := w.Another(t)
	other := newBook(t, w2, c)
	b.fails(t, 1, key, here)
	w2.Settle(t)
	other.fails(t, 1, key, here)
	w.Settle(t)
	require.NotZero(t, b.fails(t, 1, key, here))
	w2.Settle(t)
	require.NotZero(t, other.Locked(key, here))
	later := newBook(t, w.Another(t), c)
	require.NotZero(t, later.Locked(key, here))
}

func TestRacingFailuresAreAllCounted(t *testing.T) {
	c := &clock{t: time.Now()}
	w := authtest.New(t)
	books := []*Book{newBook(t, w, c), newBook(t, w.Another(t), c)}
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			_, err := books[i%2].Failed(t.Context(), key, fmt.Sprint("10.0.1.", i), true)
			if err != nil && errs.KindOf(err) != errs.Unavailable {
				t.Error(err)
			}
		})
	}
	all.Wait()
	w.Settle(t)
	item, ok := books[0].attempts.Snapshot().Get(state.AttemptsKey(key))
	require.True(t, ok)
	require.Equal(t, 8, item.Value.All.Count)
}

func TestRecordsOfStrangersEndByThemselves(t *testing.T) {
	c := &clock{t: time.Now()}
	w := authtest.New(t)
	b := newBook(t, w, c)
	b.fails(t, 1, key, here)
	resp, err := w.Store.Do(t.Context(), clientv3.OpGet(state.AttemptsKey(key)))
	require.NoError(t, err)
	require.NotZero(t, resp.Get().Kvs[0].Lease)
	b.Succeeded(t.Context(), key, here)
	resp, err = w.Store.Do(t.Context(), clientv3.OpGet(state.AttemptsKey(key)))
	require.NoError(t, err)
	require.Zero(t, resp.Get().Kvs[0].Lease, "where a key is used from is remembered")
}

func TestFailureThatCannotBeRecordedIsNoAnswer(t *testing.T) {
	w := authtest.New(t)
	b := newBook(t, w, &clock{t: time.Now()})
	w.Server.Stop()
	_, err := b.Failed(t.Context(), key, here, true)
	require.ErrorIs(t, err, errs.Unavailable)
	w.Server.StartAgain(t)
}

// TestMemoryIsBoundedUnderAMillionUnknownKeys checks the figure in the documentation.
func TestMemoryIsBoundedUnderAMillionUnknownKeys(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	w := authtest.New(t)
	b := New(w.Private, w.Store, func() Policy { return usual }, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	for i := range 1_000_000 {
		require.Zero(t, b.remember(fmt.Sprintf("%020d", i), here))
	}
	after := heap()
	require.LessOrEqual(t, b.memory.Len(), MaxMemory)
	require.Less(t, int64(after)-int64(before), int64(8<<20))
	require.Zero(t, b.remember("zzzzzzzzzzzzzzzzzzzz", here))
	require.Zero(t, b.remember("zzzzzzzzzzzzzzzzzzzz", here))
	require.Equal(t, usual.Duration, b.remember("zzzzzzzzzzzzzzzzzzzz", here).Round(time.Second), "those in memory are locked, too")
	runtime.KeepAlive(b)
}

// TestStrangersBeyondTheBoundStayInMemory fills the share in etcd and checks where the next one is
// recorded.
func TestStrangersBeyondTheBoundStayInMemory(t *testing.T) {
	w := authtest.New(t)
	value, err := state.Encode(state.Attempts{Version: state.Current()})
	require.NoError(t, err)
	var ops []clientv3.Op
	for i := range MaxStrangers {
		ops = append(ops, clientv3.OpPut(state.AttemptsKey(fmt.Sprintf("%020d", i)), value))
		if len(ops) == 100 {
			_, err := w.Store.Client.Txn(context.Background()).Then(ops...).Commit()
			require.NoError(t, err)
			ops = ops[:0]
		}
	}
	b := newBook(t, w, &clock{t: time.Now()})
	w.Settle(t)
	stranger := strings.Repeat("s", 20)
	for range 3 {
		_, err := b.Failed(t.Context(), stranger, here, false)
		require.NoError(t, err)
	}
	require.NotZero(t, b.Locked(stranger, here), "looks like any other key")
	w.Settle(t)
	require.Equal(t, MaxStrangers, b.attempts.Snapshot().Len())
	b.fails(t, 1, key, here)
	w.Settle(t)
	require.Equal(t, MaxStrangers+1, b.attempts.Snapshot().Len(), "keys that exist always count")
}
