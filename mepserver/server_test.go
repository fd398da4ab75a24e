package mepserver

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	mp1types "github.com/openmep/mep/api/mp1"
	"github.com/openmep/mep/api/state"
	"github.com/openmep/mep/kit/daemon"
	"github.com/openmep/mep/kit/errs"
	"github.com/openmep/mep/kit/etcd"
	"github.com/openmep/mep/kit/etcdtest"
	"github.com/openmep/mep/kit/node"
	"github.com/openmep/mep/kit/settings"
	"github.com/openmep/mep/kit/telemetry"
	"github.com/openmep/mep/mepserver/apps"
	"github.com/openmep/mep/mepserver/owned"
	"github.com/openmep/mep/mepserver/registry"
	"github.com/openmep/mep/mepserver/subscription"
)

// testNode is a server wired to a real etcd, with direct access to its handlers.
type testNode struct {
	*Server
	mp1, mm5, ops http.Handler
	serving       daemon.Part
}

func startNode(tb testing.TB, store *etcd.Store, alone bool, flags map[string]string) *testNode {
	tb.Helper()
	cfg := new(DaemonConfig)
	given := map[string]string{
		"dev": "true", "mp1-listen": ":0", "mm5-listen": ":0", "data-dir": tb.TempDir(), "etcd-endpoints": "unused", "etcd-timeout": "1s",
	}
	maps.Copy(given, flags)
	require.NoError(tb, settings.Load(cfg, settings.Sources{Flags: given}, func() bool { return true }))
	require.NoError(tb, cfg.Server.Validate(&cfg.Common))
	env, err := daemon.NewEnv(tb.Context(), &cfg.Common, "mepserver", nil, slog.New(slog.DiscardHandler), telemetry.NewRegistry("test"))
	require.NoError(tb, err)
	shared, err := node.New(store, alone, env)
	require.NoError(tb, err)
	s, err := New(&cfg.Server, shared, env, Also{})
	require.NoError(tb, err)
	serving := daemon.Listeners(s.Listeners())
	parts := []daemon.Part{daemon.Closer("audit stream", env.Audit.Close), shared.Part(), s.Part(), serving}
	for _, p := range parts {
		p.Start(tb.Context())
	}
	tb.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		for _, p := range slices.Backward(parts) {
			require.NoError(tb, p.Stop(ctx))
		}
	})
	select {
	case <-shared.Mirror.Ready():
	case <-time.After(20 * time.Second):
		tb.Fatal("the server was not ready in time")
	}
	return &testNode{Server: s, mp1: s.listener.Handler(), mm5: s.mm5.Handler(), ops: env.Ops, serving: serving}
}

// call sends a request directly to the handlers.
func (n *testNode) call(tb testing.TB, method, path, body string) *httptest.ResponseRecorder {
	tb.Helper()
	var r io.Reader
	if body != "" {
		r = strings.NewReader(body)
	}
	req := httptest.NewRequestWithContext(tb.Context(), method, path, r)
	rec := httptest.NewRecorder()
	n.mp1.ServeHTTP(rec, req)
	return rec
}

const transport = `"transportInfo":{"id":"t","name":"REST","type":"REST_HTTP","protocol":"HTTP","version":"2.0",` +
	`"endpoint":{"uris":["http://10.0.0.1/x"]},"security":{}}`

func serviceJSON(name, state string, more string) string {
	return fmt.Sprintf(`{"serName":%q,"version":"1","state":%q,"serializer":"JSON",%s%s}`, name, state, transport, more)
}

// discard is a ResponseWriter that discards the response.
type discard struct{ h http.Header }

func (d *discard) Header() http.Header         { return d.h }
func (d *discard) Write(p []byte) (int, error) { return len(p), nil }
func (d *discard) WriteHeader(int)             {}

func (n *testNode) register(tb testing.TB, count int) {
	tb.Helper()
	var app string
	for i := range count {
		if i%500 == 0 {
			app = uuid.NewString()
		}
		rec := n.call(tb, http.MethodPost, "/mec_service_mgmt/v1/applications/"+app+"/services", serviceJSON(fmt.Sprintf("svc-%d", i), "ACTIVE", ""))
		require.Equal(tb, http.StatusCreated, rec.Code, rec.Body.String())
	}
}

func BenchmarkDiscoverByName(b *testing.B) {
	n := startNode(b, etcdtest.Start(b).Store(b), true, nil)
	n.register(b, 1000)
	req := httptest.NewRequestWithContext(b.Context(), http.MethodGet, "/mec_service_mgmt/v1/services?ser_name=svc-77", nil)
	b.ReportAllocs()
	for b.Loop() {
		n.mp1.ServeHTTP(&discard{h: make(http.Header)}, req)
	}
}

// TestListAllocatesTheSameForFewAndManyServices compares the allocations for a list of 10 and one of 1,000 services.
func TestListAllocatesTheSameForFewAndManyServices(t *testing.T) {
	measure := func(count int) float64 {
		n := startNode(t, etcdtest.Start(t).Store(t), true, nil)
		n.register(t, count)
		req := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/mec_service_mgmt/v1/services", nil)
		return testing.AllocsPerRun(200, func() { n.mp1.ServeHTTP(&discard{h: make(http.Header)}, req) })
	}
	few, many := measure(10), measure(1000)
	require.InDelta(t, few, many, 3, "allocations: %v for 10 services, %v for 1,000", few, many)
}

// TestListIsRightWhetherKeptOrNot repeatedly requests the list of all services while the registry changes.
func TestListIsRightWhetherKeptOrNot(t *testing.T) {
	n := startNode(t, etcdtest.Start(t).Store(t), true, nil)
	names := func(host string) []string {
		req := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/mec_service_mgmt/v1/services", nil)
		req.Host = host
		rec := httptest.NewRecorder()
		n.mp1.ServeHTTP(rec, req)
		require.Equal(t, strconv.Itoa(rec.Body.Len()), rec.Header().Get("Content-Length"))
		var list []mp1types.ServiceInfo
		require.NoError(t, json.Unmarshal(rec.Body.Bytes(), &list))
		var names []string
		for _, s := range list {
			require.Contains(t, s.Links.Self.Href, "http://"+host+"/")
			names = append(names, s.SerName)
		}
		slices.Sort(names)
		return names
	}
	app := uuid.NewString()
	var want []string
	for i := range 6 {
		for range 3 {
			require.Equal(t, want, names("a.example"))
		}
		require.Equal(t, want, names("b.example"), "another host, other links")
		n.add(t, app, fmt.Sprint("s", i))
		want = append(want, fmt.Sprint("s", i))
	}
}

// TestAppSeesWhatItDeclaredAndItsOwn sends requests as an app that declared what it requires, and as one that declared nothing.
func TestAppSeesWhatItDeclaredAndItsOwn(t *testing.T) {
	store := etcdtest.Start(t).Store(t)
	n := startNode(t, store, true, nil)
	offerer, declared, open := uuid.NewString(), uuid.NewString(), uuid.NewString()
	ids := make(map[string]string)
	for _, name := range []string{"location", "radio", "video"} {
		ids[name] = n.add(t, offerer, name)
	}
	ids["own"], ids["own location"] = n.add(t, declared, "own"), n.add(t, declared, "location")
	value, err := state.Encode(state.App{Version: state.Current(), Origin: state.OriginCredentials, Requires: []string{"video", "location"}})
	require.NoError(t, err)
	resp, err := store.Client.Put(t.Context(), state.AppKey(declared), value)
	require.NoError(t, err)
	require.NoError(t, n.node.Mirror.WaitRevision(t.Context(), resp.Header.Revision))

	reg, dir := n.support.manager.Registry, n.support.manager.Apps
	seen := func(app string, q registry.Query) (found []string) {
		for item := range reg.Discover(reg.Services().Snapshot(), dir.Reader(app), q) {
			found = append(found, item.Value.ID)
		}
		return found
	}
	require.ElementsMatch(t, []string{ids["location"], ids["video"], ids["own"], ids["own location"]}, seen(declared, registry.Query{}))
	require.ElementsMatch(t, []string{ids["location"], ids["own location"]}, seen(declared, registry.Query{Names: []string{"location", "radio"}}))
	require.Empty(t, seen(declared, registry.Query{InstanceIDs: []string{ids["radio"]}}))
	require.Len(t, seen(open, registry.Query{}), 5)

	_, err = reg.Get(dir.Reader(declared), ids["radio"])
	require.ErrorIs(t, err, errs.NotFound)
	_, err = reg.Get(dir.Reader(declared), ids["video"])
	require.NoError(t, err)
	_, err = reg.ForWrite(declared, ids["video"])
	require.ErrorIs(t, err, errs.Forbidden, "it may know of it, but not change it")
	_, err = reg.ForWrite(declared, ids["radio"])
	require.ErrorIs(t, err, errs.NotFound, "it may not even know of it")

	sub := &subscription.Subscription{Entry: owned.Entry[state.Subscription]{AppInstanceID: declared}}
	for name, want := range map[string]bool{"location": true, "radio": false, "video": true, "own": true} {
		item, err := reg.Get(apps.Reader{}, ids[name])
		require.NoError(t, err)
		require.Equal(t, want, n.support.manager.Availability.Concerns(sub, item.Value), name)
	}
}
