package gateway_test

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/websocket"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	api "github.com/openmep/mep/api/gateway"
	"github.com/openmep/mep/api/mp1"
	"github.com/openmep/mep/api/state"
	"github.com/openmep/mep/gateway"
	"github.com/openmep/mep/gateway/filter"
)

// domain gives services host names below mec.example.
func domain(s *setup) { s.Gateway.ServiceDomain = "MEC.example." }

// host sets the host of a call.
func host(name string) func(*http.Request) { return func(r *http.Request) { r.Host = name } }

func TestAServiceIsReachedByTheHost(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	g := w.gate(domain)
	up := mirrorOf(t).URL
	_, id := w.named("Hello", up+"/base/")
	_, other := w.named("my_service", up+"/other")
	caller := bearer(w.token(w.app()))
	for _, c := range []struct{ host, path, target string }{
		{"hello.mec.example", "/", "/base/"},
		{"hello.mec.example", "/a/b?x=1&y", "/base/a/b?x=1&y"},
		{"HELLO.Mec.Example.:8443", "/a%20b/", "/base/a%20b/"},
		{"hello.mec.example", "/%C3%BC;v=1?q=%2F..%2F", "/base/%C3%BC;v=1?q=%2F..%2F"},
		{"hello.mec.example", "/services/other/x", "/base/services/other/x"},
		{"hello.mec.example", "/instances/" + other, "/base/instances/" + other},
		{"hello.mec.example", "/mep/mec_service_mgmt/v1/services", "/base/mep/mec_service_mgmt/v1/services"},
		{"hello.mec.example", "/gateway/v1/access_requests", "/base/gateway/v1/access_requests"},
		{id + ".instances.mec.example", "/z", "/base/z"},
		{strings.ToUpper(id) + ".INSTANCES.mec.example:1", "/", "/base/"},
		{other + ".instances.mec.example", "/z", "/other/z"},
		// The domain itself and all other hosts belong to the gateway.
		{"mec.example", "/services/Hello/a", "/base/a"},
		{"edge1.example.net:8443", "/services/Hello/a", "/base/a"},
		{"[::1]:8443", "/instances/" + id + "/a", "/base/a"},
		{"hello.mec.example.net", "/services/my_service/a", "/other/a"},
	} {
		a := g.get(c.path, caller, host(c.host))
		require.Equal(t, http.StatusOK, a.StatusCode, "%v: %s", c, a.body)
		require.Equal(t, c.target, a.seen(t).Target, "%v", c)
	}
	for _, h := range []string{
		"none.mec.example", "my_service.mec.example", "my-service.mec.example", id + ".mec.example", "x.instances.mec.example", "instances.mec.example",
		".mec.example", "a.hello.mec.example", "hello.instances.mec.example", "hello.mec.example:x",
	} {
		for _, path := range []string{"/", "/services/Hello/a", "/instances/" + id, "/gateway/v1/access_requests", "/.well-known/x"} {
			a := g.get(path, caller, host(h))
			require.Equal(t, http.StatusNotFound, a.StatusCode, "%s%s: %s", h, path, a.body)
			require.Equal(t, "application/problem+json", a.Header.Get("Content-Type"))
		}
	}
	require.Equal(t, http.StatusUnauthorized, g.status("/", host("hello.mec.example")))
	require.Equal(t, http.StatusUnauthorized, g.status("/", host("none.mec.example")), "who proves nothing is not told which services there are")
	a := g.get("/x", caller, host("hello.mec.example:8443")).seen(t)
	require.Equal(t, "hello.mec.example:8443", a.Header.Get("X-Forwarded-Host"))
	require.Equal(t, strings.TrimPrefix(up, "http://"), a.Host)

	require.NoError(t, g.reload(func(c *gateway.Config) { c.ServiceDomain = "" }))
	require.Equal(t, http.StatusNotFound, g.status("/", caller, host("hello.mec.example")))
	require.Equal(t, http.StatusOK, g.status("/services/Hello/", caller, host("hello.mec.example")))
	require.NoError(t, g.reload(func(c *gateway.Config) { c.ServiceDomain = "svc.example" }))
	require.Equal(t, http.StatusOK, g.status("/", caller, host("hello.svc.example")))
	require.Error(t, g.reload(func(c *gateway.Config) { c.ServiceDomain = "*.svc.example" }))
	require.Equal(t, http.StatusOK, g.status("/", caller, host("hello.svc.example")), "what is wrong changes nothing")
}

func TestSettingsOfTheDomain(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	g := w.gate()
	for name, c := range map[string]struct {
		change func(*gateway.Config)
		want   string
	}{
		"an address":              {func(c *gateway.Config) { c.ServiceDomain = "10.0.0.7" }, "gateway.serviceDomain must be a domain"},
		"a wildcard":              {func(c *gateway.Config) { c.ServiceDomain = "*.mec.example" }, "gateway.serviceDomain must be a domain"},
		"wrong where there is no": {func(c *gateway.Config) { c.ServiceDomain, c.Listen = "a b", "off" }, "gateway.serviceDomain must be a domain"},
		"a listener within": {
			func(c *gateway.Config) { c.ServiceDomain, c.Listen = "mec.example", "Edge1.mec.example:8443" }, "gateway.listen: its host is below",
		},
	} {
		cfg := g.cfg.Gateway
		c.change(&cfg)
		require.ErrorContains(t, cfg.Validate(&g.cfg.Common), c.want, name)
	}
	cfg := g.cfg.Gateway
	cfg.ServiceDomain, cfg.Listen = "mec.example", "mec.example:8443"
	require.NoError(t, cfg.Validate(&g.cfg.Common))
}

// TestNamesThatDifferInCaseOnly checks that a host stands for the name in lower case, or for the only one; of several other names, none is
// called.
func TestNamesThatDifferInCaseOnly(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	g := w.gate(domain)
	up := mirrorOf(t).URL
	caller := bearer(w.token(w.app()))
	owner, id := w.named("Chat", up+"/upper")
	require.Equal(t, "/upper/x", g.get("/x", caller, host("chat.mec.example")).seen(t).Target)
	// shown lists the services that the list of routes shows with a host name.
	shown := func() (ids []string) {
		var routes []api.RouteView
		require.Equal(t, http.StatusOK, g.manage("GET", "/routes?kind=service", nil, &routes))
		for _, r := range routes {
			if len(r.HostNames) > 0 {
				require.Equal(t, []string{"chat.mec.example"}, r.HostNames)
				ids = append(ids, r.ID)
			}
		}
		return ids
	}
	require.Equal(t, []string{"service:Chat"}, shown())
	other, shout := w.named("CHAT", up+"/shout")
	for _, h := range []string{"chat.mec.example", "Chat.mec.example", "CHAT.mec.example"} {
		require.Equal(t, http.StatusNotFound, g.status("/x", caller, host(h)), h)
	}
	require.Empty(t, shown())
	require.Equal(t, "/upper/x", g.get("/services/Chat/x", caller).seen(t).Target, "by their paths they are")
	require.Equal(t, "/upper/x", g.get("/x", caller, host(id+".instances.mec.example")).seen(t).Target)
	explain := func() (int, string) {
		e := g.explain(api.ExplainRequest{Method: "GET", URL: "https://chat.mec.example/x", Consumer: w.app()})
		return e.Status, stepsOf(e)
	}
	status, steps := explain()
	require.Equal(t, http.StatusNotFound, status)
	require.Contains(t, steps, "host: chat.mec.example is that of no service: names differ in case only; there are services that are not reached by it, with the spelling CHAT, Chat\n")
	w.named("chat", up+"/lower")
	for _, h := range []string{"chat.mec.example", "Chat.mec.example", "CHAT.mec.example"} {
		require.Equal(t, "/lower/x", g.get("/x", caller, host(h)).seen(t).Target, h)
	}
	require.Equal(t, []string{"service:chat"}, shown())
	_, steps = explain()
	require.Contains(t, steps, "host: chat.mec.example is that of the service chat; there are services that are not reached by it, with the spelling CHAT, Chat\n")
	w.setService(owner, id, "Chat", up, func(s *mp1.ServiceInfo) { s.State = mp1.StateInactive })
	w.setService(other, shout, "CHAT", up, func(s *mp1.ServiceInfo) { s.State = mp1.StateInactive })
	_, steps = explain()
	require.Contains(t, steps, "host: chat.mec.example is that of the service chat\n")
}

// TestAnotherSpellingDoesNotGetTheName checks that the policy of a name holds for its host, too, whichever services exist.
func TestAnotherSpellingDoesNotGetTheName(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	g := w.gate(domain, func(s *setup) {
		s.Gateway.Policies = map[string]api.Policy{"radar": {}}
	})
	owner, evil := w.app(), w.app()
	good, bad := mirrorOf(t).URL, mirrorOf(t).URL
	caller := bearer(w.token(w.app()))
	byHost := host("weather.mec.example")
	id := w.service(owner, "weather", good+"/good")
	policy := api.Policy{Owners: []string{owner}, Default: api.Deny, Rules: []api.Rule{{Effect: api.Allow, Methods: []string{"GET"}}}}

	w.service(evil, "WEATHER", bad+"/evil")
	require.Equal(t, "/good/x", g.get("/x", caller, byHost).seen(t).Target, "without a policy the service keeps its name while it is there")
	w.policy("weather", policy)
	require.Equal(t, "/good/x", g.get("/x", caller, byHost).seen(t).Target)
	w.service(evil, "Weather", bad+"/evil")
	require.Equal(t, "/good/x", g.get("/x", caller, byHost).seen(t).Target)

	w.setService(owner, id, "weather", good, func(s *mp1.ServiceInfo) { s.State = mp1.StateSuspended })
	require.Equal(t, http.StatusNotFound, g.status("/x", caller, byHost))
	require.Equal(t, g.status("/services/weather/x", caller), g.status("/x", caller, byHost), "as by its path")
	require.Equal(t, http.StatusForbidden, g.do(http.MethodPost, "/x", "secret", caller, byHost).StatusCode, "by its own policy")
	e := g.explain(api.ExplainRequest{Method: "GET", URL: "https://weather.mec.example/x", Consumer: w.app()})
	require.Equal(t, http.StatusNotFound, e.Status)
	require.Contains(t, stepsOf(e), "host: weather.mec.example would be that of the service weather, which has a policy and no active instance; "+
		"there are services that are not reached by it, with the spelling WEATHER, Weather\n")

	w.service(evil, "Radar", bad+"/evil")
	require.Equal(t, "/evil/x", g.get("/services/Radar/x", caller).seen(t).Target)
	require.Equal(t, http.StatusNotFound, g.status("/x", caller, host("radar.mec.example")), "policies of the configuration count, too")

	w.policy("Map", api.Policy{})
	w.service(evil, "map", bad+"/evil")
	require.Equal(t, "/evil/x", g.get("/services/map/x", caller).seen(t).Target)
	require.Equal(t, http.StatusNotFound, g.status("/x", caller, host("map.mec.example")))
	e = g.explain(api.ExplainRequest{Method: "GET", URL: "https://map.mec.example/x", Consumer: w.app()})
	require.Contains(t, stepsOf(e), "is that of no service: names differ in case only; there are services that are not reached by it, with the spelling map; there are policies with the spelling Map\n")
	w.delete(state.GatewayPolicyKey("Map"))
	require.Equal(t, "/evil/x", g.get("/x", caller, host("map.mec.example")).seen(t).Target)
}

func stepsOf(e api.Explanation) string {
	var b strings.Builder
	for _, s := range e.Steps {
		b.WriteString(s.Name + ": " + s.Result + "\n")
	}
	return b.String()
}

func TestRoutesForTheHostComeBeforeItsService(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	g := w.gate(domain, func(s *setup) {
		s.Mp1 = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) })
	})
	up := mirrorOf(t).URL
	w.named("hello", up+"/hello")
	w.policy("*", anybody)
	w.route("any", api.Route{Paths: []string{"/any/**"}, URLs: []string{up + "/any"}})
	w.route("mine", api.Route{Hosts: []string{"hello.mec.example"}, Paths: []string{"/mine", "/mep/mine"}, Methods: []string{"GET"}, URLs: []string{up + "/route"}})
	w.route("wild", api.Route{Hosts: []string{"*.mec.example"}, Paths: []string{"/wild"}, URLs: []string{up + "/wild"}})
	for _, c := range []struct{ method, host, path, target string }{
		{"GET", "hello.mec.example", "/mine", "/route/mine"},
		{"GET", "hello.mec.example", "/mep/mine", "/route/mep/mine"},
		{"POST", "hello.mec.example", "/mine/x", "/hello/mine/x"},
		{"GET", "hello.mec.example", "/wild", "/wild/wild"},
		{"GET", "none.mec.example", "/wild", "/wild/wild"},
		{"GET", "hello.mec.example", "/any/x", "/hello/any/x"},
		{"GET", "hello.mec.example", "/mep/mec_service_mgmt/v1/services", "/hello/mep/mec_service_mgmt/v1/services"},
		{"GET", "edge", "/any/x", "/any/any/x"},
	} {
		a := g.do(c.method, c.path, "", host(c.host))
		require.Equal(t, http.StatusOK, a.StatusCode, "%v: %s", c, a.body)
		require.Equal(t, c.target, a.seen(t).Target, "%v", c)
	}
	a := g.do(http.MethodPost, "/mine", "", host("hello.mec.example"))
	require.Equal(t, http.StatusMethodNotAllowed, a.StatusCode, "what the route is for does not come to the service by another method")
	require.Equal(t, "GET", a.Header.Get("Allow"))
	e := g.explain(api.ExplainRequest{Method: "POST", URL: "https://hello.mec.example/mine"})
	require.Equal(t, http.StatusMethodNotAllowed, e.Status)
	require.Contains(t, e.Reason, "use GET")
	require.Equal(t, http.StatusNotFound, g.status("/any/x", host("none.mec.example")), "it falls to nobody else")
	require.Equal(t, http.StatusTeapot, g.status("/mep/mec_service_mgmt/v1/services", host("mec.example")))
	require.Equal(t, http.StatusTeapot, g.status("/mep/mec_service_mgmt/v1/services"))
}

// TestHostsAreNotConfused sends requests that name the host and the path in several places.
func TestHostsAreNotConfused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	g := w.gate(domain)
	up := mirrorOf(t).URL
	w.named("hello", up+"/hello")
	w.named("secret", up+"/secret")
	w.policy("hello", anybody)
	for name, c := range map[string]struct {
		request string
		target  string // "" if no service answers
		status  int
	}{
		"the path of another service": {"GET /services/secret/x HTTP/1.1\nHost: hello.mec.example\n\n", "/hello/services/secret/x", 200},
		"the whole URL, and a Host": {
			"GET http://hello.mec.example/x HTTP/1.1\nHost: secret.mec.example\n\n", "/hello/x", 200, // RFC 9112 3.2.2
		},
		"the whole URL of what is refused":   {"GET http://secret.mec.example/x HTTP/1.1\nHost: hello.mec.example\n\n", "", 401},
		"the whole URL, with a path":         {"GET http://secret.mec.example/services/hello/x HTTP/1.1\nHost: hello.mec.example\n\n", "", 401},
		"the whole URL without a path":       {"GET http://hello.mec.example HTTP/1.1\nHost: secret.mec.example\n\n", "/hello/", 200},
		"the whole URL with somebody in it":  {"GET http://hello.mec.example@secret.mec.example/x HTTP/1.1\nHost: hello.mec.example\n\n", "", 400},
		"somebody in the Host":               {"GET /x HTTP/1.1\nHost: secret@hello.mec.example\n\n", "", 400},
		"X-Forwarded-Host":                   {"GET /x HTTP/1.1\nHost: hello.mec.example\nX-Forwarded-Host: secret.mec.example\nForwarded: host=secret.mec.example\n\n", "/hello/x", 200},
		"X-Forwarded-Host of what is let in": {"GET /x HTTP/1.1\nHost: secret.mec.example\nX-Forwarded-Host: hello.mec.example\nX-Host: hello.mec.example\n\n", "", 401},
		"two Hosts":                          {"GET /x HTTP/1.1\nHost: hello.mec.example\nHost: secret.mec.example\n\n", "", 400},
		"two Hosts in one":                   {"GET /x HTTP/1.1\nHost: hello.mec.example, secret.mec.example\n\n", "", 400},
		"a Host that is folded":              {"GET /x HTTP/1.1\nHost: hello.mec.example\n secret.mec.example\n\n", "", 400},
		"no Host":                            {"GET /x HTTP/1.0\n\n", "", 404},
		"no Host in HTTP/1.1":                {"GET /x HTTP/1.1\n\n", "", 400},
		"a Host that is empty":               {"GET /x HTTP/1.1\nHost:\n\n", "", 404},
		"dot segments":                       {"GET /../services/secret/x HTTP/1.1\nHost: hello.mec.example\n\n", "", 400},
		"encoded dot segments":               {"GET /%2e%2e/x HTTP/1.1\nHost: hello.mec.example\n\n", "", 400},
		"two slashes":                        {"GET //secret.mec.example/x HTTP/1.1\nHost: hello.mec.example\n\n", "", 400},
		"an authority alone":                 {"CONNECT secret.mec.example:443 HTTP/1.1\nHost: hello.mec.example\n\n", "", 405},
		"nothing but *":                      {"OPTIONS * HTTP/1.1\nHost: hello.mec.example\n\n", "", 404},
	} {
		t.Run(name, func(t *testing.T) {
			l := g.in(t).dial()
			l.send(c.request)
			a := l.answer()
			require.Equal(t, c.status, a.StatusCode, a.body)
			if c.target != "" {
				require.Equal(t, c.target, a.seen(t).Target)
			}
		})
	}
}

// TestWhatHoldsForPathsHoldsForHosts checks that the same policy, limits, filters and records apply however a service is called.
func TestWhatHoldsForPathsHoldsForHosts(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var made atomic.Int64
	file := filepath.Join(t.TempDir(), "access.jsonl")
	asked := make(chan api.ExternalAuthRequest, 8)
	judge := serve(t, func(w http.ResponseWriter, r *http.Request) {
		var q api.ExternalAuthRequest
		if json.NewDecoder(r.Body).Decode(&q) == nil {
			asked <- q
		}
		w.WriteHeader(http.StatusNoContent)
	})
	g := w.gate(domain, func(s *setup) {
		s.Filters = []filter.Definition{stamp(&made)}
		s.Gateway.Filters = []gateway.FilterConfig{
			{Name: "stamp", Config: json.RawMessage(`{"word":"one"}`), Exclude: []string{"/services/Weather/health", "/services/judged/**"}},
		}
		s.Gateway.RecordsFile = file
		s.Gateway.MaskPaths = []string{"/services/Weather/users/*"}
	})
	up := mirrorOf(t).URL
	_, id := w.named("Weather", up)
	w.named("other", up)
	w.named("judged", up)
	w.policy("Weather", api.Policy{
		Rules:  []api.Rule{{Effect: api.Deny, Paths: []string{"/private/**"}}},
		Quotas: []api.Quota{{Calls: 6, Per: "month"}},
	})
	w.policy("judged", api.Policy{ExternalAuth: &api.ExternalAuth{URL: judge.URL}})
	me := w.app()
	caller := bearer(w.token(me))
	byHost, byID := host("weather.mec.example"), host(id+".instances.mec.example")
	stamps := func(path string, changes ...func(*http.Request)) string {
		return g.get(path, append(changes, caller)...).seen(t).Header.Get("X-Stamps")
	}

	require.Equal(t, http.StatusForbidden, g.status("/private/x", caller, byHost))
	require.Equal(t, http.StatusForbidden, g.status("/private/x", caller, byID))
	require.Empty(t, stamps("/services/Weather/health"))
	require.Empty(t, stamps("/health", byHost))
	require.Equal(t, "one", stamps("/users/me", byHost))
	require.Equal(t, "one", stamps("/services/Weather/health", byHost), "that is another path of the service")
	require.Equal(t, "one", stamps("/services/Weather/health", host("other.mec.example")), "and this another service")
	require.Equal(t, "one", stamps("/users/me", byID))
	require.Equal(t, http.StatusOK, g.status("/services/Weather/", caller))
	require.Equal(t, http.StatusTooManyRequests, g.status("/", caller, byHost), "the quota is that of the service")
	require.Equal(t, http.StatusTooManyRequests, g.status("/", caller, byID))
	require.Equal(t, http.StatusTooManyRequests, g.status("/services/Weather/", caller))

	// External authorisation is asked the same for both.
	for range 2 {
		require.Equal(t, http.StatusOK, g.status("/services/judged/a%20b", caller))
		require.Equal(t, http.StatusOK, g.status("/a%20b", caller, host("judged.mec.example:1")))
	}
	for range 4 {
		q := <-asked
		require.Equal(t, "judged", q.Service)
		require.Equal(t, "/services/judged/a%20b", q.Path)
	}

	g.stop()
	data, err := os.ReadFile(file)
	require.NoError(t, err)
	seen := make(map[string]int)
	for line := range strings.Lines(string(data)) {
		var e map[string]any
		require.NoError(t, json.Unmarshal([]byte(line), &e))
		require.Equal(t, me, e["consumer"])
		text, _ := e["path"].(string)
		h, _ := e["host"].(string)
		if !strings.HasSuffix(h, "mec.example") {
			h = "gateway"
		}
		seen[h+text]++
		require.Equal(t, strings.HasPrefix(text, "/instances/"), e["route"] == "instances", line)
	}
	require.Equal(t, 1, seen["weather.mec.example/services/Weather/users/***"], "what is masked is masked by host, too: %v", seen)
	require.Equal(t, 1, seen["weather.mec.example/services/Weather/services/Weather/health"], "%v", seen)
	require.Equal(t, 1, seen[id+".instances.mec.example/instances/"+id+"/users/***"], "%v", seen)
}

func TestExplainKnowsHosts(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	g := w.gate(domain)
	_, id := w.named("hello", mirrorOf(t).URL)
	w.route("mine", api.Route{Hosts: []string{"hello.mec.example"}, Paths: []string{"/mine"}, URLs: []string{"http://192.0.2.1"}})
	me := w.app()
	explain := func(url string) api.Explanation {
		return g.explain(api.ExplainRequest{Method: "GET", URL: url, Consumer: me})
	}
	e := explain("https://Hello.mec.example:8443/services/x?y")
	require.Equal(t, "allowed", e.Reason)
	require.Equal(t, "service:hello", e.Route.ID)
	require.Equal(t, "/services/x", e.Path)
	require.Contains(t, stepsOf(e), "host: Hello.mec.example:8443 is that of the service hello\n")
	e = explain("https://" + id + ".instances.mec.example")
	require.Equal(t, "instance:"+id, e.Route.ID)
	require.Equal(t, []string{id + ".instances.mec.example"}, e.Route.HostNames)
	require.Contains(t, stepsOf(e), "is that of the instance "+id)
	e = explain("https://none.mec.example/services/hello/")
	require.Equal(t, http.StatusNotFound, e.Status)
	require.Contains(t, stepsOf(e), "host: none.mec.example would be that of a service none\n")
	e = explain("https://a.b.mec.example/services/hello/")
	require.Equal(t, http.StatusNotFound, e.Status)
	require.Contains(t, e.Reason, "{serName}.mec.example")
	e = explain("https://hello.mec.example/mine")
	require.Equal(t, "mine", e.Route.ID)
	require.NotContains(t, stepsOf(e), "host:")
	require.Equal(t, "service:hello", explain("/services/hello/x").Route.ID)
}

func TestWebSocketsByHost(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	g := w.gate(domain)
	w.named("chat", strings.Replace(serve(t, echo.ServeHTTP).URL, "http", "ws", 1))
	u, err := url.Parse("ws://chat.mec.example/room")
	require.NoError(t, err)
	open := func(at *url.URL) (*websocket.Conn, error) {
		conn, err := net.Dial("tcp", g.addr())
		require.NoError(t, err)
		t.Cleanup(func() { _ = conn.Close() })
		return websocket.NewClient(&websocket.Config{
			Location: at, Origin: at, Version: websocket.ProtocolVersionHybi13, Protocol: []string{"chat"},
			Header: http.Header{"Authorization": {"Bearer " + w.token(w.app())}},
		}, conn)
	}
	c, err := open(u)
	require.NoError(t, err)
	for _, text := range []string{"hello", strings.Repeat("x", 70_000)} {
		require.NoError(t, websocket.Message.Send(c, text))
		var back string
		require.NoError(t, websocket.Message.Receive(c, &back))
		require.Equal(t, text, back)
	}
	require.NoError(t, c.Close())
	u.Host = "none.mec.example"
	_, err = open(u)
	require.Error(t, err)
}

// TestGRPCByHost makes the calls of TestGRPC as clients make them, which cannot put a path in front.
func TestGRPCByHost(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	at := serveTalk(t)
	me := w.app()
	token := w.token(me)
	id := w.service(me, "Talk", at, func(s *mp1.ServiceInfo) { s.TransportInfo.Protocol = "gRPC" })
	plain := w.gate(domain)
	secure := w.gate(domain, encrypted, func(s *setup) { s.Common.TLSNames = []string{"*.mec.example", "*.instances.mec.example"} })
	for name, c := range map[string]struct {
		gate      *gate
		authority string
		creds     credentials.TransportCredentials
	}{
		"h2c":              {plain, "talk.mec.example", insecure.NewCredentials()},
		"h2c, an instance": {plain, id + ".instances.mec.example", insecure.NewCredentials()},
		"TLS":              {secure, "talk.mec.example:8443", credentials.NewTLS(secure.trust())},
		"TLS, an instance": {secure, id + ".instances.mec.example:8443", credentials.NewTLS(secure.trust())},
	} {
		t.Run(name, func(t *testing.T) {
			dial := func(authority string) *grpc.ClientConn {
				conn, err := grpc.NewClient("dns:///"+c.gate.addr(), grpc.WithTransportCredentials(c.creds), grpc.WithAuthority(authority))
				require.NoError(t, err)
				t.Cleanup(func() { require.NoError(t, conn.Close()) })
				return conn
			}
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			proof := metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token)
			conn := dial(c.authority)

			out := new(wrapperspb.StringValue)
			var header, trailer metadata.MD
			require.NoError(t, conn.Invoke(proof, "/mep.test.Talk/Say", wrapperspb.String("hello"), out, grpc.Header(&header), grpc.Trailer(&trailer)))
			require.Equal(t, "hello", out.Value)
			require.Equal(t, []string{"1"}, header.Get("begin"))
			require.Equal(t, []string{me}, trailer.Get("caller"))
			require.Equal(t, []string{"\x00\xff"}, trailer.Get("end-bin"))
			err := conn.Invoke(proof, "/mep.test.Talk/Say", wrapperspb.String("fail"), out)
			require.Equal(t, codes.FailedPrecondition, status.Code(err))
			require.Equal(t, codes.Unauthenticated, status.Code(conn.Invoke(ctx, "/mep.test.Talk/Say", wrapperspb.String("x"), out)))

			s, err := conn.NewStream(proof, &talk.Streams[0], "/mep.test.Talk/Chat")
			require.NoError(t, err)
			for _, text := range []string{"a", "b", "c"} { // each is answered before the next is sent
				require.NoError(t, s.SendMsg(wrapperspb.String(text)))
				require.NoError(t, s.RecvMsg(out))
				require.Equal(t, text, out.Value)
			}
			require.NoError(t, s.CloseSend())
			require.Equal(t, codes.OutOfRange, status.Code(s.RecvMsg(out)))
			require.Equal(t, []string{"1"}, s.Trailer().Get("end"))

			err = dial("none.mec.example").Invoke(proof, "/mep.test.Talk/Say", wrapperspb.String("x"), out)
			require.Equal(t, codes.NotFound, status.Code(err))
			err = dial("a.b.c.mec.example").Invoke(proof, "/mep.test.Talk/Say", wrapperspb.String("x"), out)
			if c.gate == plain { // with TLS no client gets that far
				require.Equal(t, codes.NotFound, status.Code(err))
			} else {
				require.Equal(t, codes.Unavailable, status.Code(err))
			}
		})
	}
}
