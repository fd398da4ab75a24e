package replay

import (
	"context"
	"encoding/binary"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/openmep/mep/api/state"
	"github.com/openmep/mep/kit/errs"
	"github.com/openmep/mep/mepauth/authtest"
)

const key = "AAAAAAAAAAAAAAAAAAAA"

func newRegister(t testing.TB, w *authtest.World) *Register {
	t.Helper()
	r := New(w.Private, w.Store, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	w.Start(t, r.Run)
	return r
}

func soon() time.Time { return time.Now().Add(time.Minute) }

func TestSignatureIsTakenOnce(t *testing.T) {
	w := authtest.New(t)
	r := newRegister(t, w)
	require.NoError(t, r.Take(t.Context(), key, []byte("one"), soon()))
	require.ErrorIs(t, r.Take(t.Context(), key, []byte("one"), soon()), ErrUsed)
	require.NoError(t, r.Take(t.Context(), key, []byte("two"), soon()))
	require.NoError(t, r.Take(t.Context(), "BBBBBBBBBBBBBBBBBBBB", []byte("one"), soon()), "of another key")
	other := newRegister(t, w.Another(t))
	require.ErrorIs(t, other.Take(t.Context(), key, []byte("two"), soon()), ErrUsed, "another process remembers, too")
}

// TestOneOfManyRacersWins sends every signature from several goroutines and processes concurrently.
func TestOneOfManyRacersWins(t *testing.T) {
	w := authtest.New(t)
	registers := []*Register{newRegister(t, w), newRegister(t, w.Another(t))}
	const signatures, racers = 200, 6
	var won [signatures]atomic.Int64
	var all sync.WaitGroup
	for racer := range racers {
		for s := range signatures {
			all.Go(func() {
				err := registers[racer%2].Take(t.Context(), key, binary.BigEndian.AppendUint64(nil, uint64(s)), soon())
				switch {
				case err == nil:
					won[s].Add(1)
				case !errors.Is(err, ErrUsed):
					t.Error(err)
				}
			})
		}
	}
	all.Wait()
	for s := range won {
		require.EqualValues(t, 1, won[s].Load(), "signature %d", s)
	}
}

func TestTooManySignaturesAreRefusedUntilSomePass(t *testing.T) {
	w := authtest.New(t)
	r := newRegister(t, w)
	require.NoError(t, r.Take(t.Context(), key, []byte("x"), soon()))
	r.mu.Lock()
	for i := range MaxSignatures {
		r.used[digest(binary.BigEndian.AppendUint64(make([]byte, 8), uint64(i)))] = struct{}{}
	}
	r.mu.Unlock()
	require.ErrorIs(t, r.Take(t.Context(), key, []byte("y"), soon()), errs.Unavailable)
	resp, err := w.Store.Do(t.Context(), clientv3.OpDelete(state.PrefixReplays, clientv3.WithPrefix()))
	require.NoError(t, err)
	require.EqualValues(t, 1, resp.Del().Deleted)
	w.Settle(t)
	require.Equal(t, MaxSignatures, r.len(), "what has passed is forgotten")
}

func TestRecordsEndWhenTheSignatureCouldNotBeUsedAnyMore(t *testing.T) {
	w := authtest.New(t)
	r := newRegister(t, w)
	until := time.Now().Add(10 * time.Minute)
	require.NoError(t, r.Take(t.Context(), key, []byte("x"), until))
	resp, err := w.Store.Do(t.Context(), clientv3.OpGet(state.PrefixReplays, clientv3.WithPrefix()))
	require.NoError(t, err)
	require.Len(t, resp.Get().Kvs, 1)
	lease, err := w.Store.Client.TimeToLive(t.Context(), clientv3.LeaseID(resp.Get().Kvs[0].Lease))
	require.NoError(t, err)
	left := time.Duration(lease.TTL) * time.Second
	require.Greater(t, left, time.Until(until))
	require.Less(t, left, time.Until(until)+3*span)
}

func TestLeaseThatEndedEarlyIsReplaced(t *testing.T) {
	w := authtest.New(t)
	r := newRegister(t, w)
	until := soon()
	require.NoError(t, r.Take(t.Context(), key, []byte("x"), until))
	leases, err := w.Store.Client.Leases(t.Context())
	require.NoError(t, err)
	for _, l := range leases.Leases {
		_, err := w.Store.Client.Revoke(t.Context(), l.ID)
		require.NoError(t, err)
	}
	require.NoError(t, r.Take(t.Context(), key, []byte("y"), until))
}

func TestSignatureThatCannotBeRecordedIsNotTaken(t *testing.T) {
	w := authtest.New(t)
	r := newRegister(t, w)
	require.NoError(t, r.Take(t.Context(), key, []byte("x"), soon()))
	w.Server.Stop()
	require.ErrorIs(t, r.Take(t.Context(), key, []byte("y"), soon()), errs.Unavailable)
	w.Server.StartAgain(t)
	require.Eventually(t, func() bool {
		return r.Take(t.Context(), key, []byte("z"+time.Now().String()), soon()) == nil
	}, 10*time.Second, 50*time.Millisecond)
	require.ErrorIs(t, r.Take(t.Context(), key, []byte("x"), soon()), ErrUsed)
}

func TestStopAnswersThoseWhoWait(t *testing.T) {
	w := authtest.New(t)
	r := New(w.Private, w.Store, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	answer := make(chan error, 1)
	go func() { answer <- r.Take(t.Context(), key, []byte("x"), soon()) }()
	require.Eventually(t, func() bool {
		require.NoError(t, r.Run(ctx))
		select {
		case err := <-answer:
			return errors.Is(err, errs.Unavailable) || err == nil
		default:
			return false
		}
	}, 20*time.Second, 5*time.Millisecond)
}

func BenchmarkTake(b *testing.B) {
	r := newRegister(b, authtest.New(b))
	var n atomic.Uint64
	b.SetParallelism(32)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if err := r.Take(b.Context(), key, binary.BigEndian.AppendUint64(nil, n.Add(1)), soon()); err != nil {
				b.Error(err)
			}
		}
	})
}
