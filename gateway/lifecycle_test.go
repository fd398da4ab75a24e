package gateway_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"

	api "github.com/openmep/mep/api/gateway"
	"github.com/openmep/mep/api/mp1"
	"github.com/openmep/mep/api/state"
	"github.com/openmep/mep/gateway"
)

func TestServicesLeaveAtOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	g := w.gate()
	up := mirrorOf(t).URL
	owner := w.app()
	token := bearer(w.token(w.app()))
	id, other := w.service(owner, "hello", up), w.service(owner, "hello", up+"/other")
	byID := func() int { return g.status("/instances/"+id+"/", token) }
	in := func(s mp1.ServiceState) func(*mp1.ServiceInfo) { return func(i *mp1.ServiceInfo) { i.State = s } }
	for range 3 {
		for _, s := range []mp1.ServiceState{mp1.StateInactive, mp1.StateSuspended} {
			w.setService(owner, id, "hello", up, in(s))
			require.Equal(t, http.StatusNotFound, byID(), s)
			for range 4 {
				require.Equal(t, "/other/", g.get("/services/hello/", token).seen(t).Target, s)
			}
			w.setService(owner, id, "hello", up)
			require.Equal(t, http.StatusOK, byID())
		}
	}
	w.setService(owner, id, "renamed", up)
	require.Equal(t, http.StatusOK, g.status("/services/renamed/", token))
	require.Equal(t, "/other/", g.get("/services/hello/", token).seen(t).Target)
	w.delete(state.ServiceKey(owner, id))
	require.Equal(t, http.StatusNotFound, byID())
	require.Equal(t, http.StatusNotFound, g.status("/services/renamed/", token))
	w.delete(state.ServiceKey(owner, other))
	require.Equal(t, http.StatusNotFound, g.status("/services/hello/", token))
	w.route("r", api.Route{Paths: []string{"/r"}, Service: "hello"})
	require.Equal(t, http.StatusServiceUnavailable, g.status("/r", token), "the route is there, the service is not")
	w.service(owner, "hello", "mqtt://broker:1883")
	require.Equal(t, http.StatusServiceUnavailable, g.status("/services/hello/", token), "it has no address that is called over HTTP")
}

func TestTwoThousandServices(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	up := mirrorOf(t).URL
	owner := w.app()
	token := bearer(w.token(w.app()))
	const services = 2000
	ids := make([]string, services)
	put := func(i int, state mp1.ServiceState) clientv3.Op {
		everywhere := false
		info := mp1.ServiceInfo{
			SerInstanceID: ids[i], SerName: fmt.Sprintf("s%d", i), Version: "1", State: state, Serializer: mp1.SerializerJSON, ConsumedLocalOnly: &everywhere,
			TransportInfo: &mp1.TransportInfo{
				ID: "t", Name: "REST", Type: mp1.TransportRESTHTTP, Protocol: "HTTP", Version: "1.1",
				Endpoint: &mp1.EndPointInfo{URIs: []string{fmt.Sprintf("%s/%d", up, i)}}, Security: &mp1.SecurityInfo{},
			},
		}
		return clientv3.OpPut(serviceKey(owner, ids[i]), string(marshal(w, serviceRecord(info))))
	}
	for i := 0; i < services; i += 100 {
		var ops []clientv3.Op
		for j := i; j < i+100; j++ {
			ids[j] = uuid.NewString()
			ops = append(ops, put(j, mp1.StateActive))
		}
		_, err := w.store.Txn(t.Context(), nil, ops, nil)
		require.NoError(t, err)
	}
	g := w.gate()
	for _, i := range []int{0, 1, 999, 1999} {
		require.Equal(t, fmt.Sprintf("/%d/x", i), g.get(fmt.Sprintf("/services/s%d/x", i), token).seen(t).Target)
	}
	var s api.Status
	g.manage(http.MethodGet, "/status", nil, &s)
	require.Equal(t, services, s.Services)
	w.do(put(999, mp1.StateInactive))
	require.Equal(t, http.StatusNotFound, g.status("/services/s999/x", token))
	require.Equal(t, http.StatusOK, g.status("/services/s998/x", token))
	g.manage(http.MethodGet, "/status", nil, &s)
	require.Equal(t, services-1, s.Services)
}

func serviceKey(owner, id string) string { return state.ServiceKey(owner, id) }

func serviceRecord(info mp1.ServiceInfo) state.Service {
	return state.Service{Version: state.Current(), Info: info, Beat: time.Now()}
}

// TestReloadsLoseNoCall changes everything that can change while calls arrive.
func TestReloadsLoseNoCall(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	g := w.gate()
	up := mirrorOf(t).URL
	owner := w.app()
	id := w.service(owner, "hello", up)
	w.service(owner, "hello", up)
	w.route("r", api.Route{Paths: []string{"/r/**"}, URLs: []string{up}})
	token := bearer(w.token(w.app()))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var calls atomic.Int64
	var callers sync.WaitGroup
	faults := make(chan string, 16)
	for i := range 6 {
		callers.Go(func() {
			for ctx.Err() == nil {
				a, err := g.try(http.MethodPost, []string{"/services/hello/", "/r/x"}[i%2], nil, token)
				calls.Add(1)
				if err == nil && a.StatusCode == http.StatusOK {
					continue
				}
				select {
				case faults <- fmt.Sprint(a, err):
				default:
				}
			}
		})
	}
	for i := range 40 {
		require.NoError(t, g.reload(func(c *gateway.Config) {
			c.MaxURI, c.Connections = 8000+i, 5000+i
			c.UpstreamIdle = 100 + i%3
			c.MaxHeader, c.Streams, c.Statistics = 16<<10+i, 100+i%3, i%2 == 0
			c.HeaderFields = [][]string{nil, {"via"}, {"forwarded", "x-forwarded"}}[i%3]
			c.KeyHeader = []string{"x-api-key", "x-other"}[i%2]
			c.Policies = map[string]api.Policy{"hello": {MaxBody: int64(1000 + i)}}
			c.Routes = []api.Route{{ID: "c", Paths: []string{fmt.Sprintf("/c%d", i)}, URLs: []string{up}}}
		}))
		require.Error(t, g.reload(func(c *gateway.Config) { c.Filters = []gateway.FilterConfig{{Name: "none"}} }), "and what is wrong changes nothing")
		w.setService(owner, id, "hello", fmt.Sprintf("%s/%d", up, i))
		w.policy("*", api.Policy{Timeouts: api.Timeouts{Response: api.Duration(fmt.Sprintf("%ds", 10+i))}})
		w.route("r", api.Route{Paths: []string{"/r/**"}, URLs: []string{fmt.Sprintf("%s/r%d", up, i)}})
		require.Equal(t, http.StatusOK, g.status(fmt.Sprintf("/c%d", i), token))
	}
	cancel()
	callers.Wait()
	select {
	case fault := <-faults:
		require.Fail(t, "a call was lost", fault)
	default:
	}
	require.Greater(t, calls.Load(), int64(100))
}

func TestAGatewayStartsWithoutEtcd(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	dir := t.TempDir()
	in := func(s *setup) { s.Common.DataDir = dir }
	w.named("hello", mirrorOf(t).URL)
	w.route("r", api.Route{Paths: []string{"/r"}, Service: "hello"})
	w.policy("hello", api.Policy{Rules: []api.Rule{{Effect: api.Deny, Methods: []string{"DELETE"}}}})
	me := w.app()
	token := bearer(w.token(me))
	first := w.gate(in)
	key := first.apiKey(me)
	require.Equal(t, http.StatusOK, first.status("/r", token))
	w.etcd.Stop()
	require.Equal(t, http.StatusOK, first.status("/r", token), "what is known holds while etcd is away")
	first.stop()
	g := w.gate(in)
	for _, path := range []string{"/r", "/services/hello/"} {
		require.Equal(t, http.StatusOK, g.status(path, token))
		require.Equal(t, http.StatusOK, g.status(path, field("X-Api-Key", key)))
		require.Equal(t, http.StatusForbidden, g.do(http.MethodDelete, path, "", token).StatusCode)
	}
	require.Equal(t, http.StatusUnauthorized, g.status("/r"))
	g.manager = w.sign(w.key, kid, map[string]any{"iss": issuer, "sub": me, "aud": "mep", "exp": 4e9, "scope": "mm5", "client_id": "ak-" + me, "epoch": "e"})
	var s api.Status
	g.manage(http.MethodGet, "/status", nil, &s)
	require.True(t, s.Stale)
	w.etcd.StartAgain(t)
	w.store = w.etcd.Store(t)
	id := w.service(w.app(), "later", mirrorOf(t).URL)
	require.NotEmpty(t, id)
	eventually(t, func() bool { return g.status("/services/later/", token) == http.StatusOK }, "and it goes on")
}

func TestAStopLetsCallsFinish(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	came, finish := make(chan struct{}, 4), make(chan struct{})
	w.named("slow", serve(t, func(w http.ResponseWriter, _ *http.Request) {
		came <- struct{}{}
		<-finish
		_, _ = io.WriteString(w, "done")
	}).URL)
	w.named("echo", serve(t, echo.ServeHTTP).URL)
	for _, name := range []string{"slow", "echo"} {
		w.policy(name, anybody)
	}
	g := w.gate(func(s *setup) { s.Common.Drain = 4 * time.Second })
	l := g.dial()
	l.send("GET /services/echo/ HTTP/1.1\nHost: a\n" + handshake + "\n")
	resp, err := http.ReadResponse(l.in, nil)
	require.NoError(t, err)
	defer resp.Body.Close()
	require.Equal(t, http.StatusSwitchingProtocols, resp.StatusCode)
	answers := make(chan string, 1)
	go func() {
		a, err := g.try(http.MethodGet, "/services/slow/", nil)
		answers <- fmt.Sprint(a != nil && a.body == "done", err)
	}()
	<-came
	addr := g.addr()
	stopped := make(chan struct{})
	go func() {
		g.stop()
		close(stopped)
	}()
	eventually(t, func() bool {
		c, err := net.Dial("tcp", addr)
		if err == nil {
			_ = c.Close()
		}
		return err != nil
	}, "no new connections are taken")
	close(finish)
	require.Equal(t, "true <nil>", <-answers, "a call under way finishes")
	<-stopped
	rest, err := io.ReadAll(l.in)
	require.NoError(t, err, "a WebSocket is closed")
	require.Equal(t, "\x88", string(rest[:1]), "and told so")
}

// TestCallsThatOutliveTheDrainAreNotAnsweredAsIfTheyWereGood stops a gateway in the middle of a call that does not end.
func TestCallsThatOutliveTheDrainAreNotAnsweredAsIfTheyWereGood(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	came := make(chan struct{}, 4)
	w.named("slow", serve(t, func(_ http.ResponseWriter, r *http.Request) {
		came <- struct{}{}
		<-r.Context().Done()
	}).URL)
	w.policy("slow", anybody)
	for i := range 5 {
		g := w.gate(func(s *setup) { s.Common.Drain = 20 * time.Millisecond })
		transport := &http.Transport{}
		if i%2 == 1 {
			transport.Protocols = unencrypted()
		}
		g.client.Transport = transport
		status := make(chan int, 1)
		go func() {
			a, err := g.try(http.MethodGet, "/services/slow/", nil)
			if err != nil {
				status <- 0
				return
			}
			status <- a.StatusCode
		}()
		<-came
		g.stop()
		require.Contains(t, []int{0, 502, 503, 504}, <-status)
		transport.CloseIdleConnections()
	}
}

func TestCallsGoToWhatIsThere(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	g := w.gate()
	owner := w.app()
	token := bearer(w.token(w.app()))
	gone := serve(t, reflect)
	gone.Close()
	alive := serve(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "alive") })
	w.service(owner, "hello", gone.URL)
	w.service(owner, "hello", alive.URL)
	for range 30 {
		a := g.do(http.MethodPost, "/services/hello/", "a body", token)
		require.Equal(t, http.StatusOK, a.StatusCode, "what could not be connected to is tried elsewhere: %s", a.body)
	}
	w.policy("hello", api.Policy{Upstream: api.Upstream{Retries: -1, EjectAfter: -1}})
	failed := 0
	for range 60 {
		if g.status("/services/hello/", token) == http.StatusBadGateway {
			failed++
		}
	}
	require.Positive(t, failed, "unless the policy does not want it")
	require.Less(t, failed, 60)
	var sent atomic.Int64
	w.service(owner, "break", acceptorOnce(t, &sent))
	require.Equal(t, http.StatusBadGateway, g.do(http.MethodPost, "/services/break/", "x", token).StatusCode)
	require.Equal(t, int64(1), sent.Load(), "what may have had an effect is not repeated")
	require.Equal(t, http.StatusBadGateway, g.status("/services/break/", token))
	require.Equal(t, int64(4), sent.Load(), "what has none is")
}

// acceptorOnce breaks off every connection after one request.
func acceptorOnce(tb testing.TB, sent *atomic.Int64) string {
	return acceptor(tb, func(c net.Conn) {
		if _, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
			sent.Add(1)
		}
	})
}
