package leader_test

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/openmep/mep/kit/etcdtest"
	"github.com/openmep/mep/kit/leader"
)

func elector(tb testing.TB, s *etcdtest.Server, id string) (*leader.Elector, *clientv3.Client) {
	c := s.Client(tb)
	return leader.New(c, "/election", id, time.Second, slog.New(slog.DiscardHandler)), c
}

func TestOneLeadsAndTheOtherTakesOver(t *testing.T) {
	server := etcdtest.Start(t)
	a, ac := elector(t, server, "a")
	b, _ := elector(t, server, "b")
	terms := make(chan string, 4)
	lead := func(id string) func(context.Context, leader.Term) error {
		return func(ctx context.Context, _ leader.Term) error {
			terms <- id
			<-ctx.Done()
			return nil
		}
	}
	actx, stopA := context.WithCancel(t.Context())
	aDone := make(chan error, 1)
	go func() { aDone <- a.Run(actx, lead("a")) }()
	require.Equal(t, "a", <-terms)
	bctx, stopB := context.WithCancel(t.Context())
	bDone := make(chan error, 1)
	go func() { bDone <- b.Run(bctx, lead("b")) }()
	require.True(t, a.Leading())
	require.False(t, b.Leading())

	_ = ac // its process ends cleanly
	stopA()
	require.NoError(t, <-aDone)
	select {
	case id := <-terms:
		require.Equal(t, "b", id)
	case <-time.After(10 * time.Second):
		t.Fatal("nobody took over")
	}
	stopB()
	require.NoError(t, <-bDone)
}

func TestFenceFailsOnceTheTermIsOver(t *testing.T) {
	server := etcdtest.Start(t)
	a, c := elector(t, server, "a")
	var fence []clientv3.Cmp
	ctx, cancel := context.WithCancel(t.Context())
	require.NoError(t, a.Run(ctx, func(_ context.Context, term leader.Term) error {
		fence = term.Fence()
		r, err := c.Txn(t.Context()).If(fence...).Then(clientv3.OpPut("x", "1")).Commit()
		require.NoError(t, err)
		require.True(t, r.Succeeded)
		cancel()
		return nil
	}))
	r, err := c.Txn(t.Context()).If(fence...).Then(clientv3.OpPut("x", "2")).Commit()
	require.NoError(t, err)
	require.False(t, r.Succeeded)
}

func TestFailureOfTheWorkEndsTheElector(t *testing.T) {
	broken := errors.New("broken")
	a, _ := elector(t, etcdtest.Start(t), "a")
	require.ErrorIs(t, a.Run(t.Context(), func(context.Context, leader.Term) error { return broken }), broken)
	require.ErrorIs(t, leader.Alone().Run(t.Context(), func(context.Context, leader.Term) error { return broken }), broken)
}
