package watched_test

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/openmep/mep/kit/etcd"
	"github.com/openmep/mep/kit/etcdtest"
	"github.com/openmep/mep/kit/watched"
)

// sharers are collections with overlapping prefixes, as different parts of one program have them.
type sharers struct {
	mirror            *watched.Mirror
	all, again, lower *watched.Collection[string]
}

func share(store *etcd.Store, snapshot string) *sharers {
	s := &sharers{mirror: watched.New(watched.Config{
		Source: store.Source, Prefix: "/t/", ProbeInterval: 50 * time.Millisecond, Registerer: prometheus.NewRegistry(),
		SnapshotFile: snapshot, SnapshotInterval: 10 * time.Millisecond, Logger: slog.New(slog.DiscardHandler),
	})}
	s.all = watched.Add(s.mirror, "all", "/t/status/", text)
	s.lower = watched.Add(s.mirror, "lower", "/t/status/dns/", text)
	s.again = watched.Add(s.mirror, "again", "/t/status/", text)
	return s
}

func (s *sharers) run(t *testing.T) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.mirror.Run(ctx) }()
	<-s.mirror.Ready()
	return func() { cancel(); require.NoError(t, <-done) }
}

func (s *sharers) lengths() [3]int {
	return [3]int{s.all.Snapshot().Len(), s.again.Snapshot().Len(), s.lower.Snapshot().Len()}
}

func TestCollectionsMayHavePrefixesInCommon(t *testing.T) {
	server := etcdtest.Start(t)
	store := server.Store(t)
	ctx := t.Context()
	put := func(key, value string) int64 {
		resp, err := store.Client.Put(ctx, key, value)
		require.NoError(t, err)
		return resp.Header.Revision
	}
	put("/t/status/dns/a", "listed")
	put("/t/status/dataplane/a", "listed")

	file := filepath.Join(t.TempDir(), "snapshot")
	s := share(store, file)
	stop := s.run(t)
	require.Equal(t, [3]int{2, 2, 1}, s.lengths(), "from the list")
	require.NoError(t, s.mirror.WaitRevision(ctx, put("/t/status/dns/b", "watched")))
	require.Equal(t, [3]int{3, 3, 2}, s.lengths(), "from the watch")
	stop()

	server.Stop()
	s = share(store, file)
	defer s.run(t)()
	require.True(t, s.mirror.Status().Restored)
	require.Equal(t, [3]int{3, 3, 2}, s.lengths(), "from the disk")
}

func TestLargeRecordsAreListedAndWatched(t *testing.T) {
	server := etcdtest.Start(t)
	store := server.Store(t)
	large := strings.Repeat("x", 400<<10)
	put := func(from, to int) (revision int64) {
		for i := from; i < to; i++ {
			resp, err := store.Client.Put(t.Context(), fmt.Sprintf("/t/status/%d", i), large)
			require.NoError(t, err)
			revision = resp.Header.Revision
		}
		return revision
	}
	// Together more than one message may hold, and more than one page may.
	put(0, 300)
	s := share(store, "")
	stop := s.run(t)
	require.Equal(t, 300, s.all.Snapshot().Len())
	stop()
	s = share(store, "")
	defer s.run(t)()
	s.mirror.CutWatch()
	require.NoError(t, s.mirror.WaitRevision(t.Context(), put(300, 400)))
	require.Equal(t, 400, s.all.Snapshot().Len())
}

func TestWhatOneTransactionWroteIsSeenTogether(t *testing.T) {
	store := etcdtest.Start(t).Store(t)
	s := share(store, "")
	defer s.run(t)()
	keys := map[*watched.Collection[string]]string{s.all: "/t/status/a", s.again: "/t/status/b", s.lower: "/t/status/dns/a"}
	over := make(chan struct{})
	var readers sync.WaitGroup
	for range 2 {
		readers.Go(func() {
			for {
				select {
				case <-over:
					return
				default:
				}
				seen := make(map[string]int)
				s.mirror.Together(func() {
					clear(seen)
					for c, key := range keys {
						if item, ok := c.Snapshot().Get(key); ok {
							seen[item.Value]++
						}
					}
				})
				if len(seen) > 1 {
					t.Errorf("parts of several transactions were seen: %v", seen)
					return
				}
			}
		})
	}
	for i := range 1000 {
		var ops []clientv3.Op
		for _, key := range keys {
			ops = append(ops, clientv3.OpPut(key, fmt.Sprint(i)))
		}
		_, err := store.Client.Txn(t.Context()).Then(ops...).Commit()
		require.NoError(t, err)
	}
	close(over)
	readers.Wait()
}
