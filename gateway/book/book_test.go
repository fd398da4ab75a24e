package book

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/goleak"

	"github.com/openmep/mep/api/gateway"
	"github.com/openmep/mep/api/state"
	"github.com/openmep/mep/kit/errs"
	"github.com/openmep/mep/kit/etcd"
	"github.com/openmep/mep/kit/etcdtest"
	"github.com/openmep/mep/kit/watched"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		// Background work of closed etcd servers.
		goleak.IgnoreAnyFunction("go.etcd.io/etcd/pkg/v3/logutil.(*MergeLogger).outputLoop"),
		goleak.IgnoreAnyFunction("github.com/golang/glog.(*fileSink).flushDaemon"),
		goleak.IgnoreTopFunction("go.etcd.io/etcd/client/pkg/v3/fileutil.purgeFile.func1"),
		goleak.IgnoreTopFunction("gopkg.in/natefinch/lumberjack%2ev2.(*Logger).millRun"))
}

// registry stands in for the registered services: the owners by serName.
type registry map[string][]string

func (r registry) Offers(consumer, serName string) []Offer {
	var list []Offer
	for _, owner := range r[serName] {
		if consumer != "stranger" {
			list = append(list, Offer{owner, serName})
		}
	}
	return list
}

// Instance finds instances with ids of the form OWNER/NAME.
func (r registry) Instance(_, serInstanceID string) (Offer, bool) {
	for serName, owners := range r {
		for _, owner := range owners {
			if serInstanceID == owner+"/"+serName {
				return Offer{owner, serName}, true
			}
		}
	}
	return Offer{}, false
}

// open opens a Book on a store, with its own mirror, as every process has.
func open(tb testing.TB, store *etcd.Store, services Services) *Book {
	tb.Helper()
	m := watched.New(watched.Config{Source: store.Source, Prefix: state.Root, Logger: slog.New(slog.DiscardHandler)})
	b := New(m, store, services)
	ctx, cancel := context.WithCancel(context.Background())
	var done sync.WaitGroup
	done.Go(func() { _ = m.Run(ctx) })
	tb.Cleanup(func() { cancel(); done.Wait() })
	<-m.Ready()
	return b
}

func errOf[T any](_ T, err error) error { return err }

func route(service string) gateway.Route {
	return gateway.Route{Paths: []string{"/team/*"}, Service: service}
}

func TestRoutesAreStoredReplacedAndDeleted(t *testing.T) {
	store := etcdtest.Start(t).Store(t)
	b := open(t, store, nil)
	routes, ctx := b.Routes, t.Context()

	made, created, err := routes.Put(ctx, "a", route("x"), nil)
	require.NoError(t, err)
	require.True(t, created)
	got, err := routes.Get("a")
	require.NoError(t, err)
	require.Equal(t, made.Revision, got.Revision)
	require.Equal(t, "a", got.Value.ID, "the id is that of the key")
	require.Equal(t, "x", got.Value.Service)

	same, created, err := routes.Put(ctx, "a", route("x"), nil)
	require.NoError(t, err)
	require.False(t, created)
	require.Equal(t, made.ETag(), same.ETag(), "what changes nothing keeps the entity-tag")
	other, created, err := routes.Put(ctx, "a", route("y"), nil)
	require.NoError(t, err)
	require.False(t, created)
	require.Greater(t, other.Revision, made.Revision)

	stale := func(def *Definition[gateway.Route]) error {
		if def == nil || def.ETag() != made.ETag() {
			return errs.New(errs.PreconditionFailed, "it has changed")
		}
		return nil
	}
	_, _, err = routes.Put(ctx, "a", route("z"), stale)
	require.ErrorIs(t, err, errs.PreconditionFailed)
	_, _, err = routes.Put(ctx, "b", route("z"), stale)
	require.ErrorIs(t, err, errs.PreconditionFailed, "there is none")
	require.ErrorIs(t, errOf(routes.Delete(ctx, "a", stale)), errs.PreconditionFailed)

	revision, err := routes.Delete(ctx, "a", nil)
	require.NoError(t, err)
	require.Greater(t, revision, other.Revision)
	require.ErrorIs(t, errOf(routes.Get("a")), errs.NotFound)
	require.ErrorIs(t, errOf(routes.Delete(ctx, "a", nil)), errs.NotFound)
}

func TestPoliciesHaveNamesOfAnyCharacters(t *testing.T) {
	store := etcdtest.Start(t).Store(t)
	b, other := open(t, store, nil), open(t, store, nil)
	names := []string{"*", "a/b", "100%", "%2F", "übung 7", "platform.auth", "..", "a:b"}
	var revision int64
	for i, name := range names {
		def, created, err := b.Policies.Put(t.Context(), name, gateway.Policy{Concurrent: i + 1}, nil)
		require.NoError(t, err)
		require.True(t, created)
		revision = def.Revision
	}
	require.NoError(t, other.Policies.mirror.WaitRevision(t.Context(), revision))
	for i, name := range names {
		def, err := other.Policies.Get(name)
		require.NoError(t, err, name)
		require.Equal(t, name, def.ID)
		require.Equal(t, i+1, def.Value.Concurrent)
	}
	require.Equal(t, len(names), other.Policies.Collection().Snapshot().Len())
}

func TestThereIsRoomForSoManyDefinitions(t *testing.T) {
	store := etcdtest.Start(t).Store(t)
	b := open(t, store, nil)
	b.Routes.room.limit = 2
	for _, id := range []string{"a", "b"} {
		require.NoError(t, errOf2(b.Routes.Put(t.Context(), id, route(id), nil)))
	}
	require.ErrorIs(t, errOf2(b.Routes.Put(t.Context(), "c", route("c"), nil)), errs.Forbidden)
	require.NoError(t, errOf2(b.Routes.Put(t.Context(), "a", route("other"), nil)), "replacing takes no room")
	require.NoError(t, errOf(b.Routes.Delete(t.Context(), "a", nil)))
	require.NoError(t, errOf2(b.Routes.Put(t.Context(), "c", route("c"), nil)))
	require.Empty(t, b.Routes.room.pending)
}

func errOf2[A, B any](_ A, _ B, err error) error { return err }

// Concurrent writers in two processes increment a number in the same route: no increment is lost.
func TestChangesAtTheSameTimeAreMadeOneAfterTheOther(t *testing.T) {
	store := etcdtest.Start(t).Store(t)
	books := []*Book{open(t, store, nil), open(t, store, nil)}
	var busy sync.WaitGroup
	const each = 5
	for i := range 4 {
		b := books[i%2]
		busy.Go(func() {
			for done := 0; done < each; {
				var seen *Definition[gateway.Route]
				now, _ := b.Routes.Get("n")
				n := 0
				if now != nil {
					n = now.Value.Priority
				}
				r := route("x")
				r.Priority = n + 1
				_, _, err := b.Routes.Put(context.Background(), "n", r, func(def *Definition[gateway.Route]) error {
					seen = def
					if (seen == nil) != (now == nil) || seen != nil && seen.Revision != now.Revision {
						return errs.New(errs.PreconditionFailed, "it has changed")
					}
					return nil
				})
				if err == nil {
					done++
				}
			}
		})
	}
	busy.Wait()
	revision, err := store.Revision(t.Context(), state.GatewayRoot)
	require.NoError(t, err)
	require.NoError(t, books[0].Routes.mirror.WaitRevision(t.Context(), revision))
	def, err := books[0].Routes.Get("n")
	require.NoError(t, err)
	require.Equal(t, 4*each, def.Value.Priority)
}

func TestRecordsThatCannotBeReadAreLeftOut(t *testing.T) {
	store := etcdtest.Start(t).Store(t)
	b := open(t, store, nil)
	hash := `"` + "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=" + `"`
	request := `{"v":1,"request":{"id":"1","consumer":"c","serName":"s","owner":"o","state":"GRANTED"}}`
	var last int64
	for key, value := range map[string]string{
		state.GatewayRouteKey("good"):       `{"v":1,"route":{"paths":["/a"]}}`,
		state.GatewayRouteKey("newer"):      `{"v":2,"route":{"paths":["/a"]}}`,
		state.GatewayRouteKey("broken"):     `{"v":1,`,
		state.PrefixGatewayRoutes + "a/b":   `{"v":1,"route":{"paths":["/a"]}}`,
		state.PrefixGatewayRoutes:           `{"v":1,"route":{"paths":["/a"]}}`,
		state.GatewayPolicyKey("good"):      `{"v":1,"name":"good","policy":{}}`,
		state.GatewayPolicyKey("other"):     `{"v":1,"name":"good","policy":{}}`,
		state.APIKeyKey("0123456789abcdef"): `{"v":1,"hash":` + hash + `,"key":{"id":"0123456789abcdef","consumer":"c"}}`,
		state.APIKeyKey("0123456789abcdee"): `{"v":1,"hash":` + hash + `,"key":{"id":"0123456789abcdef","consumer":"c"}}`,
		state.APIKeyKey("0123456789abcded"): `{"v":1,"hash":"AAAA","key":{"id":"0123456789abcded","consumer":"c"}}`,
		state.APIKeyKey("0123456789abcdec"): `{"v":1,"hash":` + hash + `,"key":{"id":"0123456789abcdec"}}`,
		state.APIKeyKey("0123456789ABCDEF"): `{"v":1,"hash":` + hash + `,"key":{"id":"0123456789ABCDEF","consumer":"c"}}`,
		state.APIKeyKey("x"):                `{"v":3}`,
		state.AccessKey("o", "s", "c"):      request,
		state.AccessKey("o", "s", "d"):      request,
		state.AccessKey("o", "t", "c"):      `{}`,
	} {
		resp, err := store.Do(t.Context(), clientv3.OpPut(key, value))
		require.NoError(t, err)
		last = resp.Put().Header.Revision
	}
	require.NoError(t, b.Routes.mirror.WaitRevision(t.Context(), last))
	require.Equal(t, 1, b.Routes.Collection().Snapshot().Len())
	require.Equal(t, 1, b.Policies.Collection().Snapshot().Len())
	require.Equal(t, 1, b.Keys.Collection().Snapshot().Len())
	require.Equal(t, 1, b.Access.Collection().Snapshot().Len())
	require.True(t, b.Access.Granted("o", "s", "c"))
	require.False(t, b.Access.Granted("o", "s", "d"))
}

func TestWithoutTheStoreAllCanBeReadAndNothingChanged(t *testing.T) {
	store := etcdtest.Start(t).Store(t)
	whole := open(t, store, registry{"s": {"o"}})
	require.NoError(t, errOf2(whole.Routes.Put(t.Context(), "a", route("x"), nil)))
	key, err := whole.Keys.Create(t.Context(), gateway.APIKeyRequest{Consumer: "c"})
	require.NoError(t, err)
	r, err := whole.Access.Apply(t.Context(), "c", gateway.AccessApplication{SerName: "s"})
	require.NoError(t, err)

	away, err := etcd.Dial(etcd.Config{Endpoints: []string{"unix://" + filepath.Join(t.TempDir(), "nobody")}, Timeout: 50 * time.Millisecond})
	require.NoError(t, err)
	t.Cleanup(func() { _ = away.Close() })
	away.Source = store.Source
	b := open(t, away, registry{"s": {"o"}})
	require.NoError(t, errOf(b.Routes.Get("a")))
	require.NoError(t, errOf(b.Keys.Authenticate(key.Key)))
	manager := Party{Manager: true}
	for what, err := range map[string]error{
		"put": errOf2(b.Routes.Put(t.Context(), "b", route("x"), nil)), "replace": errOf2(b.Routes.Put(t.Context(), "a", route("y"), nil)),
		"delete": errOf(b.Routes.Delete(t.Context(), "a", nil)), "missing": errOf(b.Routes.Delete(t.Context(), "none", nil)),
		"key": errOf(b.Keys.Create(t.Context(), gateway.APIKeyRequest{Consumer: "c"})), "no key": errOf(b.Keys.Delete(t.Context(), key.ID)),
		"lease":  errOf(b.Keys.Create(t.Context(), gateway.APIKeyRequest{Consumer: "c", Lifetime: "1h"})),
		"apply":  errOf(b.Access.Apply(t.Context(), "d", gateway.AccessApplication{SerName: "s"})),
		"again":  errOf(b.Access.Apply(t.Context(), "c", gateway.AccessApplication{SerName: "s"})),
		"decide": errOf(b.Access.Decide(t.Context(), r.Info.ID, manager, gateway.AccessDecision{State: gateway.AccessGranted}, nil)),
		"revoke": errOf(b.Access.Delete(t.Context(), r.Info.ID, manager, nil)),
	} {
		require.ErrorIs(t, err, errs.Unavailable, what)
	}
}

func TestAnIndexFindsWhatWasPutIntoIt(t *testing.T) {
	x := newIndex[string, int]()
	for i := range 5000 {
		x.set(fmt.Sprint(i), i)
	}
	for i := range 5000 {
		if i%2 == 0 {
			x.remove(fmt.Sprint(i))
		}
	}
	for i := range 5000 {
		v, ok := x.get(fmt.Sprint(i))
		require.Equal(t, i%2 == 1, ok)
		if ok {
			require.Equal(t, i, v)
		}
	}
}

func TestPlacesThatAreClaimedCount(t *testing.T) {
	r := newRoom("things", 3, 2)
	release, err := r.claim("a", "1")
	require.NoError(t, err)
	again, err := r.claim("a", "1")
	require.NoError(t, err, "the same one")
	_, err = r.claim("a", "2")
	require.NoError(t, err)
	require.EqualError(t, errOf(r.claim("a", "3")), "a consumer may have 2 things and this one has 0: remove some first")
	release()
	again()
	release()
	_, err = r.claim("a", "3")
	require.NoError(t, err)
	r.added("a", "3")
	require.ErrorIs(t, errOf(r.claim("a", "4")), errs.Forbidden)
	_, err = r.claim("b", "5")
	require.NoError(t, err)
	require.EqualError(t, errOf(r.claim("b", "6")), "the gateway has room for 3 things and has 1: remove some first")
	r.removed("a")
	_, err = r.claim("b", "6")
	require.NoError(t, err)
}
