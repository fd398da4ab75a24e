package watched_test

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/openmep/mep/kit/etcd"
	"github.com/openmep/mep/kit/etcdtest"
	"github.com/openmep/mep/kit/watched"
)

func TestStartsFromDiskWithoutEtcdAndTellsTheDifferenceLater(t *testing.T) {
	server := etcdtest.Start(t)
	store := server.Store(t)
	file := filepath.Join(t.TempDir(), "state", "snapshot")
	put(t, store, "/t/fruit/a", "apple")
	put(t, store, "/t/fruit/b", "banana")
	first := follow(t, store, file)
	first.awaitReady(t)
	first.stop()
	put(t, store, "/t/fruit/a", "apricot")
	_, err := store.Client.Delete(t.Context(), "/t/fruit/b")
	require.NoError(t, err)
	rev := put(t, store, "/t/fruit/c", "cherry")
	_, err = store.Client.Compact(t.Context(), rev)
	require.NoError(t, err)
	server.Stop()

	second := follow(t, store, file)
	second.awaitReady(t)
	require.True(t, second.mirror.Status().Restored)
	require.Equal(t, map[string]string{"/t/fruit/a": "apple", "/t/fruit/b": "banana"}, contents(second.fruit))

	server.StartAgain(t)
	second.await(t, rev)
	require.False(t, second.mirror.Status().Restored)
	require.Equal(t, map[string]string{"/t/fruit/a": "apricot", "/t/fruit/c": "cherry"}, contents(second.fruit))
}

// slowSource answers once a receive from may succeeds.
type slowSource struct {
	etcd.Source
	may <-chan struct{}
}

func (s slowSource) Get(ctx context.Context, key string, opts ...clientv3.OpOption) (*clientv3.GetResponse, error) {
	select {
	case <-s.may:
		return s.Source.Get(ctx, key, opts...)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func TestTheStateOnDiskIsForAnEtcdThatIsAway(t *testing.T) {
	server := etcdtest.Start(t)
	store := server.Store(t)
	file := filepath.Join(t.TempDir(), "snapshot")
	put(t, store, "/t/fruit/a", "apple")
	first := follow(t, store, file)
	first.awaitReady(t)
	first.stop()
	put(t, store, "/t/fruit/a", "apricot")
	start := func(delay time.Duration, may <-chan struct{}, options ...func(*watched.Mirror)) (*watched.Mirror, *watched.Collection[string]) {
		m := watched.New(watched.Config{
			Source: slowSource{store.Source, may}, Prefix: "/t/", SnapshotFile: file, SnapshotDelay: delay, SnapshotInterval: time.Hour,
			Logger: slog.New(slog.DiscardHandler),
		})
		for _, o := range options {
			o(m)
		}
		fruit := watched.Add(m, "fruit", "/t/fruit/", text)
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan struct{})
		go func() {
			defer close(done)
			_ = m.Run(ctx)
		}()
		t.Cleanup(func() { cancel(); <-done })
		return m, fruit
	}
	await := func(m *watched.Mirror) {
		select {
		case <-m.Ready():
		case <-time.After(20 * time.Second):
			t.Fatal("nothing was loaded")
		}
	}
	may := make(chan struct{})
	slow, fruit := start(time.Hour, may)
	silent, old := start(time.Millisecond, nil)
	hasty, _ := start(time.Hour, nil, (*watched.Mirror).PreferDisk)
	await(hasty)
	require.True(t, hasty.Status().Restored)
	await(silent)
	require.True(t, silent.Status().Restored)
	require.Equal(t, map[string]string{"/t/fruit/a": "apple"}, contents(old))
	select {
	case <-slow.Ready():
		t.Fatal("it took the state on disk")
	default:
	}
	close(may)
	await(slow)
	require.Equal(t, map[string]string{"/t/fruit/a": "apricot"}, contents(fruit), "nobody sees what was before")
	require.False(t, slow.Status().Restored)
}

func TestDamagedSnapshotIsSetAside(t *testing.T) {
	for name, damage := range map[string]func([]byte) []byte{
		"cut short":      func(b []byte) []byte { return b[:len(b)/2] },
		"a byte changed": func(b []byte) []byte { b[10] ^= 1; return b },
		"emptied":        func([]byte) []byte { return nil },
		"something else": func([]byte) []byte { return []byte("hello\nworld\n") },
		"line removed":   func(b []byte) []byte { return b[strings.Index(string(b), "\n")+1:] },
		"trailer repeated": func(b []byte) []byte {
			return append(b, b[strings.LastIndex(strings.TrimSpace(string(b)), "\n")+1:]...)
		},
	} {
		t.Run(name, func(t *testing.T) {
			server := etcdtest.Start(t)
			store := server.Store(t)
			file := filepath.Join(t.TempDir(), "snapshot")
			put(t, store, "/t/fruit/a", "apple")
			put(t, store, "/t/fruit/b", "banana")
			first := follow(t, store, file)
			first.awaitReady(t)
			first.stop()
			data, err := os.ReadFile(file)
			require.NoError(t, err)
			require.NoError(t, os.WriteFile(file, damage(data), 0o600))

			second := follow(t, store, file)
			second.awaitReady(t)
			require.Len(t, contents(second.fruit), 2, "the state comes from etcd")
			require.Eventually(t, func() bool {
				_, err := os.Stat(file + ".damaged")
				return err == nil
			}, 20*time.Second, time.Millisecond)
		})
	}
}
