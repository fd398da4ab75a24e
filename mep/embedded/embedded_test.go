package embedded_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/openmep/mep/kit/errs"
	"github.com/openmep/mep/kit/watched"
	"github.com/openmep/mep/mep/embedded"
)

var silent = slog.New(slog.DiscardHandler)

func start(t *testing.T, dir string, quota int64) *embedded.Server {
	t.Helper()
	s, err := embedded.Start(t.Context(), embedded.Config{Dir: dir, Timeout: 5 * time.Second, Quota: quota, OnFatal: func(err error) { t.Error(err) }})
	require.NoError(t, err)
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func put(t *testing.T, s *embedded.Server, key, value string) int64 {
	t.Helper()
	r, err := s.Store().Do(t.Context(), clientv3.OpPut(key, value))
	require.NoError(t, err)
	return r.Put().Header.Revision
}

func TestKeepsItsDataOverRestarts(t *testing.T) {
	dir := t.TempDir()
	s := start(t, dir, 1<<30)
	put(t, s, "k", "v")
	require.NoError(t, s.Close())
	require.NoError(t, s.Close(), "closing twice is harmless")
	s = start(t, dir, 1<<30)
	r, err := s.Store().Client.Get(t.Context(), "k")
	require.NoError(t, err)
	require.Equal(t, "v", string(r.Kvs[0].Value))
}

func TestOnlyThisUserCanReachIt(t *testing.T) {
	s := start(t, t.TempDir(), 1<<30)
	socket := strings.TrimPrefix(s.Store().Client.Endpoints()[0], "unix://")
	info, err := os.Stat(socket[:strings.LastIndex(socket, "/")])
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o700), info.Mode().Perm())
}

func TestWorksInADirectoryWithALongName(t *testing.T) {
	dir := t.TempDir() + strings.Repeat("/a-rather-long-name", 10)
	put(t, start(t, dir, 1<<30), "k", "v")
}

// TestMirrorFollowsTheEventStream keeps a mirror on the in-process stream through cuts and compactions, with writers that
// wait for their own writes.
func TestMirrorFollowsTheEventStream(t *testing.T) {
	s := start(t, t.TempDir(), 1<<30)
	m := watched.New(watched.Config{Source: s.Store().Source, Prefix: "/t/", ProbeInterval: 50 * time.Millisecond, Logger: silent, Registerer: prometheus.NewRegistry()})
	c := watched.Add(m, "t", "/t/", func(_ string, v []byte, _ int64) (string, error) { return string(v), nil })
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- m.Run(ctx) }()
	<-m.Ready()
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for i := range 100 {
				key := fmt.Sprintf("/t/%d", w)
				rev := put(t, s, key, fmt.Sprint(i))
				if w == 0 && i%10 == 5 {
					m.CutWatch()
				}
				if w == 1 && i%20 == 7 {
					_, _ = s.Store().Client.Compact(t.Context(), rev)
				}
				wctx, stop := context.WithTimeout(t.Context(), 20*time.Second)
				err := m.WaitRevision(wctx, rev)
				stop()
				if err != nil {
					t.Error(err)
					return
				}
				it, ok := c.Snapshot().Get(key)
				if !ok || it.Value != fmt.Sprint(i) {
					t.Errorf("writer %d does not see its write %d", w, i)
				}
			}
		})
	}
	wg.Wait()
	wctx, stop := context.WithTimeout(t.Context(), 20*time.Second)
	defer stop()
	require.NoError(t, m.WaitRevision(wctx, put(t, s, "/elsewhere", "x")), "a progress report brings revisions of other keys")
	cancel()
	require.NoError(t, <-done)
}

func TestDiskGuardRefusesWhileThereIsLittleRoom(t *testing.T) {
	g := embedded.NewDiskGuard(t.TempDir(), 1<<60, silent, prometheus.NewRegistry())
	require.ErrorIs(t, g.Check(), errs.InsufficientStorage)
	require.ErrorContains(t, g.Check(), "storage.reserve")
	g = embedded.NewDiskGuard(t.TempDir(), 0, silent, prometheus.NewRegistry())
	require.NoError(t, g.Check())
}

func TestDatabaseAtItsQuotaHelpsItself(t *testing.T) {
	s := start(t, t.TempDir(), 16<<20)
	value := strings.Repeat("x", 512<<10)
	var err error
	for range 200 {
		if _, err = s.Store().Do(t.Context(), clientv3.OpPut("same", value)); err != nil {
			break
		}
	}
	require.ErrorIs(t, err, errs.InsufficientStorage, "old revisions fill the database")
	require.Eventually(t, func() bool { return s.Full() != "" }, 20*time.Second, 10*time.Millisecond)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.KeepRoom(ctx, 16<<20, func() int64 { return 0 }, silent) }()
	require.Eventually(t, func() bool {
		_, err := s.Store().Do(t.Context(), clientv3.OpPut("same", value))
		return err == nil
	}, 30*time.Second, 100*time.Millisecond)
	require.Empty(t, s.Full())
	cancel()
	require.NoError(t, <-done)
}

func TestBackupCanBeTakenThroughTheSocketWhileItRuns(t *testing.T) {
	dir := t.TempDir()
	s := start(t, dir, 1<<30)
	put(t, s, "k", "v")
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{"unix://" + dir + "/sockets/client"}, DialTimeout: 5 * time.Second})
	if len(dir) > 80 {
		t.Skip("the test's directory is too long for a socket")
	}
	require.NoError(t, err)
	defer c.Close()
	r, err := c.Snapshot(t.Context())
	require.NoError(t, err)
	n, err := io.Copy(io.Discard, r)
	require.NoError(t, err)
	require.Greater(t, n, int64(10_000))
}
