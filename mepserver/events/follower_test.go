package events

import (
	"context"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"
	"go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/openmep/mep/api/mm5"
	"github.com/openmep/mep/api/state"
	"github.com/openmep/mep/kit/errs"
)

func TestStoreThatIsNotTheOneFollowedIsNoticed(t *testing.T) {
	n := newNode(t)
	revision := n.put(t, state.AppKey("a"), app("x"))
	from := func(cluster uint64, revision int64) *clientv3.WatchResponse {
		return &clientv3.WatchResponse{Created: true, Header: &etcdserverpb.ResponseHeader{ClusterId: cluster, Revision: revision}}
	}
	for name, c := range map[string]struct {
		cluster uint64
		at      int64
		resp    *clientv3.WatchResponse
		want    error
	}{
		"the first answer":             {0, revision, from(5, revision), nil},
		"the same store":               {5, revision, from(5, revision), nil},
		"another store":                {5, revision, from(6, revision), ResetReplaced},
		"a member that lags behind":    {5, revision, from(5, revision-1), nil},
		"a store that was turned back": {5, revision + 10, from(5, revision), ResetFuture},
	} {
		t.Run(name, func(t *testing.T) {
			f := &follower{store: n.store, cluster: c.cluster, at: position{c.at, 0}}
			err := f.receive(t.Context(), c.resp)
			if c.want == nil {
				require.NoError(t, err)
				require.Equal(t, uint64(5), f.cluster)
				return
			}
			require.ErrorIs(t, err, c.want)
		})
	}
	n.etcd.Stop()
	f := &follower{store: n.store, cluster: 5, at: position{revision + 10, 0}}
	require.ErrorIs(t, f.receive(t.Context(), from(5, revision)), errs.Unavailable, "whether it was turned back is not known")
}

func TestResetIsTriedUntilTheBeginningIsKnown(t *testing.T) {
	n := newNode(t)
	first := n.put(t, state.AppKey("a"), app("x"))
	last := n.put(t, state.AppKey("b"), app("x"))
	_, err := n.store.Client.Compact(t.Context(), last)
	require.NoError(t, err)
	n.pace.retry = 1
	failures := 3
	f := &follower{
		store: n.store, pace: n.pace, skipped: &n.skipped, out: make(chan batch), at: position{first, 0}, watch: "test",
		begin: func(context.Context) (int64, error) {
			if failures--; failures >= 0 {
				return 0, errors.New("not yet")
			}
			return last, nil
		},
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- f.run(ctx) }()
	got := receive(t, f.out)
	require.Equal(t, map[mm5.EventType]int{mm5.EventReset: 1}, got.sent)
	require.Negative(t, failures)
	next := n.put(t, state.AppKey("c"), app("x"))
	require.Contains(t, string(receive(t, f.out).frames), position{next, 0}.String())
	cancel()
	require.NoError(t, <-done)
}
