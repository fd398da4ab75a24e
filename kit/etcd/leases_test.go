package etcd_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/openmep/mep/kit/errs"
	"github.com/openmep/mep/kit/etcd"
	"github.com/openmep/mep/kit/etcdtest"
)

func TestLeasesAreShared(t *testing.T) {
	store := etcdtest.Start(t).Store(t)
	leases := etcd.NewLeases(store, time.Minute)
	now := time.Date(2026, 11, 23, 4, 0, 30, 0, time.UTC)
	const callers = 20
	var wg sync.WaitGroup
	ids := make([]clientv3.LeaseID, callers)
	for i := range callers {
		wg.Go(func() {
			id, err := leases.UntilAt(t.Context(), now.Add(time.Duration(i)*time.Second), now)
			if err != nil {
				t.Error(err)
			}
			ids[i] = id
		})
	}
	wg.Wait()
	for _, id := range ids {
		require.Equal(t, ids[0], id)
	}
	all, err := store.Client.Leases(t.Context())
	require.NoError(t, err)
	require.Len(t, all.Leases, 1, "who comes at the same time gets the same one")
	lasts, err := store.Client.TimeToLive(t.Context(), ids[0])
	require.NoError(t, err)
	require.Equal(t, int64(90), lasts.GrantedTTL, "to the end of the minute, and one more")

	other, err := leases.UntilAt(t.Context(), now.Add(time.Minute), now)
	require.NoError(t, err)
	require.NotEqual(t, ids[0], other)
}

func TestALeaseThatEndedEarlyIsReplaced(t *testing.T) {
	store := etcdtest.Start(t).Store(t)
	leases := etcd.NewLeases(store, time.Minute)
	until := time.Now().Add(time.Hour)
	id, err := leases.Until(t.Context(), until)
	require.NoError(t, err)
	_, err = store.Client.Revoke(t.Context(), id)
	require.NoError(t, err)
	_, err = store.Do(t.Context(), clientv3.OpPut("/k", "v", clientv3.WithLease(id)))
	require.ErrorIs(t, err, rpctypes.ErrLeaseNotFound)
	require.True(t, leases.Lost(err))
	require.False(t, leases.Lost(errs.New(errs.Unavailable, "something else")))
	again, err := leases.Until(t.Context(), until)
	require.NoError(t, err)
	require.NotEqual(t, id, again)
}

func TestNobodyWaitsForTheFailuresOfOthers(t *testing.T) {
	server := etcdtest.Start(t)
	leases := etcd.NewLeases(server.Store(t), time.Minute)
	server.Stop()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second) // too short for 50 timeouts of a second in turn
	defer cancel()
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			if _, err := leases.Until(ctx, time.Now()); errs.KindOf(err) != errs.Unavailable {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	require.NoError(t, ctx.Err())
}
