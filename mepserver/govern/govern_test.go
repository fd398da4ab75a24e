package govern

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/openmep/mep/api/mm5"
	"github.com/openmep/mep/api/mp1"
	"github.com/openmep/mep/api/state"
	"github.com/openmep/mep/kit/etcd"
	"github.com/openmep/mep/kit/etcdtest"
	"github.com/openmep/mep/kit/watched"
	"github.com/openmep/mep/mepserver/apps"
	"github.com/openmep/mep/mepserver/registry"
	"github.com/openmep/mep/mepserver/subscription"
)

func TestMain(m *testing.M) {
	gin.SetMode(gin.TestMode)
	goleak.VerifyTestMain(m,
		// Background goroutines that etcd servers leave behind when closed.
		goleak.IgnoreAnyFunction("go.etcd.io/etcd/pkg/v3/logutil.(*MergeLogger).outputLoop"),
		goleak.IgnoreAnyFunction("github.com/golang/glog.(*fileSink).flushDaemon"),
	)
}

var now = time.Date(2026, 11, 23, 0, 30, 0, 0, time.UTC)

// world is the API on its own etcd.
type world struct {
	*API
	t      *testing.T
	store  *etcd.Store
	mirror *watched.Mirror
	router *gin.Engine
}

func newWorld(t *testing.T) *world {
	t.Helper()
	store := etcdtest.Start(t).Store(t)
	m := watched.New(watched.Config{Source: store.Client, Prefix: state.Root, Logger: slog.New(slog.DiscardHandler)})
	dir := apps.New(m, true)
	reg := registry.New(m, store, dir, func() registry.Policy {
		return registry.Policy{MaxServices: 10, MinInterval: 1, MaxInterval: 60, DefaultInterval: 60}
	})
	book := subscription.New(m, store, dir, func() subscription.Policy { return subscription.Policy{Max: 10} })
	w := &world{API: New(m, reg, book, func() registry.View { return registry.View{Base: "http://mep/x"} }), t: t, store: store, mirror: m, router: gin.New()}
	w.now = func() time.Time { return now }
	w.Mount(w.router)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { _ = m.Run(ctx) })
	t.Cleanup(func() { cancel(); wg.Wait() })
	select {
	case <-m.Ready():
	case <-time.After(20 * time.Second):
		t.Fatal("the state was not read in time")
	}
	return w
}

func (w *world) get(method, path string) *httptest.ResponseRecorder {
	w.t.Helper()
	rec := httptest.NewRecorder()
	w.router.ServeHTTP(rec, httptest.NewRequestWithContext(w.t.Context(), method, root+path, nil))
	return rec
}

// data decodes the data in the envelope of a response.
func data[T any](w *world, path string) T {
	w.t.Helper()
	rec := w.get(http.MethodGet, path)
	require.Equal(w.t, http.StatusOK, rec.Code)
	var v mm5.Wrapped[T]
	d := json.NewDecoder(rec.Body)
	d.DisallowUnknownFields()
	require.NoError(w.t, d.Decode(&v))
	require.Zero(w.t, v.RetCode)
	require.Empty(w.t, v.Message+v.Params)
	return v.Data
}

func (w *world) register(name string) string {
	w.t.Helper()
	item, err := w.services.Register(w.t.Context(), uuid.NewString(), mp1.ServiceInfo{
		SerName: name, Version: "1", State: mp1.StateActive, Serializer: mp1.SerializerJSON,
		TransportInfo: &mp1.TransportInfo{
			ID: "t", Name: "n", Type: mp1.TransportRESTHTTP, Protocol: "HTTP", Version: "2", Endpoint: &mp1.EndPointInfo{URIs: []string{"http://192.0.2.1/"}},
			Security: &mp1.SecurityInfo{},
		},
	})
	require.NoError(w.t, err)
	return item.Value.ID
}

func (w *world) subscribe(app string, filter *mp1.FilteringCriteria) {
	w.t.Helper()
	value, err := state.Encode(state.Subscription{Version: state.Current(), CallbackReference: "http://192.0.2.1/cb", Filter: filter})
	require.NoError(w.t, err)
	w.put(state.PrefixAvailSubs+app+"/"+uuid.NewString(), value)
}

// count writes a record and waits until the mirror shows it.
func (w *world) count(at time.Time, part int, folded bool, calls map[string]int64) {
	w.t.Helper()
	s := state.CallStatistics{}
	for name, n := range calls {
		s.Pairs = append(s.Pairs, state.CallPair{Service: name, Consumer: "c", Buckets: []state.CallBucket{{Minute: 3, Calls: n - 1}, {Minute: 4, Calls: 1}}})
	}
	if folded {
		s = s.Fold()
	}
	packed, err := s.Pack()
	require.NoError(w.t, err)
	value, err := state.Encode(packed)
	require.NoError(w.t, err)
	w.put(state.StatisticsKey(at, "r", part), value)
}

func (w *world) put(key, value string) {
	w.t.Helper()
	resp, err := w.store.Client.Put(w.t.Context(), key, value)
	require.NoError(w.t, err)
	require.NoError(w.t, w.mirror.WaitRevision(w.t.Context(), resp.Header.Revision))
}

func TestCallsOfAWeek(t *testing.T) {
	w := newWorld(t)
	none := [mm5.CallDays]int64{}
	require.Equal(t, mm5.CallLog{AppServices: []mm5.ServiceCalls{}, MEPServices: []mm5.ServiceCalls{
		{Name: "serviceRegister", CallTimes: none}, {Name: "serviceDiscovery", CallTimes: none},
	}}, data[mm5.CallLog](w, "/kong_log"))

	w.register("video")
	w.register("video")
	w.register("vid")
	for i, at := range []time.Time{
		now, now.Add(-time.Hour), now.Add(-31 * time.Minute), now.Add(-6 * 24 * time.Hour), now.Add(-7 * 24 * time.Hour), now.Add(25 * time.Hour),
	} {
		n := int64(10 * (i + 1))
		w.count(at, i, i%2 == 0, map[string]int64{"video": n, "gone": n, state.ServiceRegister: n + 1, state.ServiceDiscovery: n + 2})
	}
	w.put(state.StatisticsKey(now, "damaged", 0), `{"v":1,"body":"////"}`)
	w.put(state.StatisticsKey(now, "newer", 0), `{"v":9}`)
	w.put(state.PrefixStatistics+"x", `{"v":1}`)
	require.Equal(t, mm5.CallLog{
		AppServices: []mm5.ServiceCalls{{Name: "vid", CallTimes: none}, {Name: "video", CallTimes: [7]int64{10, 50, 0, 0, 0, 0, 40}}},
		MEPServices: []mm5.ServiceCalls{
			{Name: "serviceRegister", CallTimes: [7]int64{11, 52, 0, 0, 0, 0, 41}}, {Name: "serviceDiscovery", CallTimes: [7]int64{12, 54, 0, 0, 0, 0, 42}},
		},
	}, data[mm5.CallLog](w, "/kong_log"))
}

func TestSubscriptions(t *testing.T) {
	w := newWorld(t)
	require.Equal(t, mm5.SubscribeStatistic{SubscribeRelations: []mm5.SubscribeRelation{}}, data[mm5.SubscribeStatistic](w, "/subscribe_statistic"))
	a, b, c := w.register("a"), w.register("a"), w.register("b")
	const first, second, all = "00000000-0000-4000-8000-000000000001", "00000000-0000-4000-8000-000000000002", "00000000-0000-4000-8000-000000000003"
	w.subscribe(second, &mp1.FilteringCriteria{SerInstanceIDs: []string{c}})
	w.subscribe(first, &mp1.FilteringCriteria{SerNames: []string{"a", "none"}})
	w.subscribe(first, &mp1.FilteringCriteria{SerInstanceIDs: []string{a}})
	w.subscribe(all, nil)
	w.subscribe("00000000-0000-4000-8000-000000000004", &mp1.FilteringCriteria{SerNames: []string{"none"}})
	got := data[mm5.SubscribeStatistic](w, "/subscribe_statistic")
	require.Equal(t, mm5.SubscribeNum{AppSubscribeNum: 2, ServiceSubscribedNum: 2}, got.SubscribeNum)
	require.Len(t, got.SubscribeRelations, 2)
	require.Equal(t, first, got.SubscribeRelations[0].SubscribeAppID)
	require.Len(t, got.SubscribeRelations[0].ServiceList, 2)
	require.ElementsMatch(t, []string{a, b}, got.SubscribeRelations[0].ServiceList)
	require.Equal(t, mm5.SubscribeRelation{SubscribeAppID: second, ServiceList: []string{c}}, got.SubscribeRelations[1])
}

func TestServices(t *testing.T) {
	w := newWorld(t)
	require.Empty(t, data[[]mp1.ServiceInfo](w, "/services"))
	ids := []string{w.register("a"), w.register("b")}
	list := data[[]mp1.ServiceInfo](w, "/services")
	require.ElementsMatch(t, ids, []string{list[0].SerInstanceID, list[1].SerInstanceID})
	for _, s := range list {
		require.Contains(t, s.Links.Self.Href, "http://mep/x/")
		require.Equal(t, []string{"http://192.0.2.1/"}, s.TransportInfo.Endpoint.URIs)
	}
}

func TestMethodsAndParameters(t *testing.T) {
	w := newWorld(t)
	w.router.HandleMethodNotAllowed = true
	for _, path := range []string{"/kong_log", "/subscribe_statistic", "/services"} {
		require.Equal(t, http.StatusOK, w.get(http.MethodHead, path).Code, path)
		require.Equal(t, http.StatusMethodNotAllowed, w.get(http.MethodPost, path).Code, path)
		require.Equal(t, http.StatusBadRequest, w.get(http.MethodGet, path+"?x=1").Code, path)
	}
}
