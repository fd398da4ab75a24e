package watched_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"github.com/openmep/mep/kit/etcd"
	"github.com/openmep/mep/kit/etcdtest"
	"github.com/openmep/mep/kit/watched"
)

func TestMain(m *testing.M) {
	// etcd takes up to 100 ms to bring a resumed watch up to date, which makes a run of the property test slow.
	_ = flag.Set("rapid.checks", "20")
	goleak.VerifyTestMain(m,
		// Background work of closed etcd servers.
		goleak.IgnoreAnyFunction("go.etcd.io/etcd/pkg/v3/logutil.(*MergeLogger).outputLoop"),
		goleak.IgnoreAnyFunction("github.com/golang/glog.(*fileSink).flushDaemon"),
	)
}

// follower is a mirror with two collections, the first of which is indexed by the words of its values.
type follower struct {
	mirror       *watched.Mirror
	fruit, tools *watched.Collection[string]
	byWord       watched.Index[string]
	stop         func()

	mu      sync.Mutex
	changes []watched.Change[string]
}

func text(_ string, value []byte, _ int64) (string, error) {
	if strings.Contains(string(value), "unreadable") {
		return "", errors.New("unreadable")
	}
	return string(value), nil
}

func follow(tb testing.TB, store *etcd.Store, snapshot string) *follower {
	tb.Helper()
	f := &follower{}
	f.mirror = watched.New(watched.Config{
		Source: store.Source, Prefix: "/t/", PageSize: 7, ProbeInterval: 50 * time.Millisecond,
		SnapshotFile: snapshot, SnapshotInterval: 20 * time.Millisecond, Registerer: prometheus.NewRegistry(),
		Logger: slog.New(slog.DiscardHandler),
	})
	f.fruit = watched.Add(f.mirror, "fruit", "/t/fruit/", text)
	f.tools = watched.Add(f.mirror, "tools", "/t/tools/", text)
	f.byWord = watched.NewIndex(f.fruit, func(it *watched.Item[string]) []string {
		words := strings.Fields(it.Value)
		slices.Sort(words)
		return slices.Compact(words)
	})
	note := func(c watched.Change[string]) {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.changes = append(f.changes, c)
	}
	f.fruit.Observe(note)
	f.tools.Observe(note)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = f.mirror.Run(ctx)
	}()
	f.stop = sync.OnceFunc(func() { cancel(); <-done })
	tb.Cleanup(f.stop)
	return f
}

func (f *follower) awaitReady(tb testing.TB) {
	tb.Helper()
	select {
	case <-f.mirror.Ready():
	case <-time.After(20 * time.Second):
		tb.Fatal("the mirror was not ready in time")
	}
}

func (f *follower) await(tb rapidOrTest, revision int64) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	require.NoError(tb, f.mirror.WaitRevision(ctx, revision))
}

type rapidOrTest interface {
	require.TestingT
	Helper()
}

func contents(c *watched.Collection[string]) map[string]string {
	m := make(map[string]string)
	for it := range c.Snapshot().All() {
		m[it.Key] = it.Value
	}
	return m
}

func put(tb rapidOrTest, s *etcd.Store, key, value string) int64 {
	tb.Helper()
	r, err := s.Client.Put(context.Background(), key, value)
	require.NoError(tb, err)
	return r.Header.Revision
}

func TestReadsWhatWasThereAndWhatComes(t *testing.T) {
	store := etcdtest.Start(t).Store(t)
	for i := range 30 {
		put(t, store, fmt.Sprintf("/t/fruit/%02d", i), "old")
	}
	put(t, store, "/t/elsewhere", "not of any collection")
	f := follow(t, store, "")
	f.awaitReady(t)
	require.Equal(t, 30, f.fruit.Snapshot().Len(), "several pages are listed")

	before := f.fruit.Snapshot()
	rev := put(t, store, "/t/fruit/30", "red apple")
	f.await(t, rev)
	require.Equal(t, 30, before.Len(), "a snapshot does not change")
	it, ok := f.fruit.Snapshot().Get("/t/fruit/30")
	require.True(t, ok)
	require.Equal(t, rev, it.ModRevision)
	require.Equal(t, rev, it.CreateRevision)
	require.Len(t, slices.Collect(f.fruit.Snapshot().Find(f.byWord, "apple")), 1)
	require.Len(t, slices.Collect(f.fruit.Snapshot().Find(f.byWord, "old")), 30)
	require.Len(t, slices.Collect(f.fruit.Snapshot().Prefix("/t/fruit/1")), 10)
}

func TestWaitRevisionReachesRevisionsOfOtherKeys(t *testing.T) {
	store := etcdtest.Start(t).Store(t)
	f := follow(t, store, "")
	f.awaitReady(t)
	f.await(t, put(t, store, "/unrelated", "x"))
}

func TestWaitRevisionEndsWithItsContext(t *testing.T) {
	store := etcdtest.Start(t).Store(t)
	f := follow(t, store, "")
	f.awaitReady(t)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	require.ErrorIs(t, f.mirror.WaitRevision(ctx, 1<<40), context.DeadlineExceeded)
}

func TestUnreadableRecordIsLeftOut(t *testing.T) {
	store := etcdtest.Start(t).Store(t)
	f := follow(t, store, "")
	f.awaitReady(t)
	put(t, store, "/t/fruit/a", "fine")
	f.await(t, put(t, store, "/t/fruit/a", "unreadable"))
	require.Empty(t, contents(f.fruit), "what it was before is not shown either")
	f.await(t, put(t, store, "/t/fruit/a", "fine again"))
	require.Equal(t, map[string]string{"/t/fruit/a": "fine again"}, contents(f.fruit))
}

func TestReadsGoOnWhileEtcdIsAwayAndRecover(t *testing.T) {
	server := etcdtest.Start(t)
	store := server.Store(t)
	put(t, store, "/t/fruit/a", "apple")
	f := follow(t, store, "")
	f.awaitReady(t)
	server.Stop()
	require.Eventually(t, func() bool { return !f.mirror.Status().Connected }, 20*time.Second, 10*time.Millisecond)
	require.Equal(t, map[string]string{"/t/fruit/a": "apple"}, contents(f.fruit))
	server.StartAgain(t)
	var rev int64
	require.Eventually(t, func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		r, err := store.Client.Put(ctx, "/t/fruit/b", "banana")
		if err == nil {
			rev = r.Header.Revision
		}
		return err == nil
	}, 20*time.Second, 50*time.Millisecond)
	f.await(t, rev)
	require.Len(t, contents(f.fruit), 2)
	require.Eventually(t, func() bool { return f.mirror.Status().Connected }, 20*time.Second, 10*time.Millisecond)
}

// TestFollowsWhateverHappens compares the collections with a plain map while keys are written and removed at random, history is
// compacted, watches are cut and etcd restarts. The observed changes must lead to the same state, each starting from the result
// of the one before, in the order of their revisions.
func TestFollowsWhateverHappens(t *testing.T) {
	server := etcdtest.Start(t)
	store := server.Store(t)
	run := 0
	rapid.Check(t, func(rt *rapid.T) {
		run++
		_, err := store.Client.Delete(context.Background(), "/t/", clientv3.WithPrefix())
		require.NoError(rt, err)
		f := follow(t, store, "")
		defer f.stop()
		f.awaitReady(t)
		f.mu.Lock()
		f.changes = nil
		f.mu.Unlock()
		model := make(map[string]string)
		var last int64
		key := rapid.Custom(func(rt *rapid.T) string {
			return rapid.SampledFrom([]string{"/t/fruit/", "/t/tools/"}).Draw(rt, "collection") +
				rapid.StringMatching(`[a-c][a-c]?`).Draw(rt, "id")
		})
		value := rapid.SampledFrom([]string{"red", "green", "red green", "blue red blue", ""})
		rt.Repeat(map[string]func(*rapid.T){
			"put": func(rt *rapid.T) {
				k, v := key.Draw(rt, "key"), value.Draw(rt, "value")
				last = put(rt, store, k, v)
				model[k] = v
			},
			"transaction": func(rt *rapid.T) {
				var ops []clientv3.Op
				for _, k := range rapid.SliceOfNDistinct(key, 1, 4, rapid.ID[string]).Draw(rt, "keys") {
					if _, there := model[k]; there && rapid.Bool().Draw(rt, "delete") {
						ops = append(ops, clientv3.OpDelete(k))
						delete(model, k)
						continue
					}
					v := value.Draw(rt, "value")
					ops = append(ops, clientv3.OpPut(k, v))
					model[k] = v
				}
				r, err := store.Client.Txn(context.Background()).Then(ops...).Commit()
				require.NoError(rt, err)
				last = r.Header.Revision
			},
			"delete prefix": func(rt *rapid.T) {
				p := rapid.SampledFrom([]string{"/t/fruit/a", "/t/tools/", "/t/fruit/b"}).Draw(rt, "prefix")
				r, err := store.Client.Delete(context.Background(), p, clientv3.WithPrefix())
				require.NoError(rt, err)
				last = r.Header.Revision
				maps.DeleteFunc(model, func(k, _ string) bool { return strings.HasPrefix(k, p) })
			},
			"cut the watch": func(*rapid.T) { f.mirror.CutWatch() },
			"cut the watch and compact": func(rt *rapid.T) {
				f.mirror.CutWatch()
				if last > 0 {
					_, err := store.Client.Compact(context.Background(), last)
					if err != nil {
						require.ErrorContains(rt, err, "compacted")
					}
				}
			},
			"": func(rt *rapid.T) {
				if !rapid.Bool().Draw(rt, "look") {
					return
				}
				f.await(rt, last)
				checkAgainst(rt, f, model)
			},
		})
		f.await(rt, last)
		checkAgainst(rt, f, model)
		f.mu.Lock()
		defer f.mu.Unlock()
		checkChanges(rt, f.changes, model)
	})
	require.Positive(t, run)
}

func checkAgainst(rt *rapid.T, f *follower, model map[string]string) {
	got := contents(f.fruit)
	maps.Copy(got, contents(f.tools))
	require.Equal(rt, model, got)
	for _, word := range []string{"red", "green", "blue"} {
		var want, found []string
		for k, v := range model {
			if strings.HasPrefix(k, "/t/fruit/") && slices.Contains(strings.Fields(v), word) {
				want = append(want, k)
			}
		}
		slices.Sort(want)
		for it := range f.fruit.Snapshot().Find(f.byWord, word) {
			found = append(found, it.Key)
		}
		require.Equal(rt, want, found, "index of %q", word)
	}
}

func checkChanges(rt *rapid.T, changes []watched.Change[string], model map[string]string) {
	state := make(map[string]*watched.Item[string])
	var last int64
	for _, c := range changes {
		require.GreaterOrEqual(rt, c.Revision, last, "changes come in the order of their revisions")
		last = c.Revision
		require.Equal(rt, state[c.Key], c.Old, "a change starts from what the one before it led to")
		if c.New == nil {
			delete(state, c.Key)
		} else {
			state[c.Key] = c.New
		}
	}
	got := make(map[string]string)
	for k, it := range state {
		got[k] = it.Value
	}
	require.Equal(rt, model, got)
}

func TestObserveStartsAtTheRevisionItReturns(t *testing.T) {
	store := etcdtest.Start(t).Store(t)
	f := follow(t, store, "")
	f.awaitReady(t)
	stopWriting := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stopWriting:
				return
			default:
				put(t, store, "/t/fruit/a", fmt.Sprint(i))
			}
		}
	})
	for range 20 {
		var first int64
		var mu sync.Mutex
		at, stop := f.fruit.Observe(func(c watched.Change[string]) {
			mu.Lock()
			defer mu.Unlock()
			if first == 0 {
				first = c.Revision
			}
		})
		require.Eventually(t, func() bool {
			mu.Lock()
			defer mu.Unlock()
			return first != 0
		}, 10*time.Second, time.Millisecond)
		stop()
		require.Equal(t, at+1, first, "every write is a revision: the first change seen is the next one")
	}
	close(stopWriting)
	wg.Wait()
}

func TestManyWritersReadTheirWrites(t *testing.T) {
	store := etcdtest.Start(t).Store(t)
	f := follow(t, store, "")
	f.awaitReady(t)
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for i := range 50 {
				key, value := fmt.Sprintf("/t/fruit/%d", w), fmt.Sprint(i)
				rev := put(t, store, key, value)
				f.await(t, rev)
				it, ok := f.fruit.Snapshot().Get(key)
				if !ok || it.Value != value {
					t.Errorf("writer %d does not see its own write %d", w, i)
				}
			}
		})
	}
	wg.Wait()
}

func TestIdleMirrorStaysConnected(t *testing.T) {
	store := etcdtest.Start(t).Store(t)
	f := follow(t, store, "")
	f.awaitReady(t)
	first := f.mirror.Status().LastContact
	require.Eventually(t, func() bool { return f.mirror.Status().LastContact.Sub(first) > time.Second }, 20*time.Second, 10*time.Millisecond,
		"etcd gives signs of life although nobody writes")
	require.True(t, f.mirror.Status().Connected)
}
