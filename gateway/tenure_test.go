package gateway_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	api "github.com/openmep/mep/api/gateway"
	"github.com/openmep/mep/api/mp1"
	"github.com/openmep/mep/api/state"
	"github.com/openmep/mep/gateway"
)

// scene holds calls of every kind in flight: those of a consumer that is about to lose the right to them, and those of another consumer.
type scene struct {
	*world
	*testing.T
	gate                   *gate
	kinds                  []kind
	owner, consumer, other string
	ids                    []string
	token                  string
	calls, bystanders      []*held
}

func conditional(s *mp1.ServiceInfo) {
	s.TransportInfo.ImplSpecificInfo = json.RawMessage(`{"gateway":{"sharing":"conditional"}}`)
}

func (w *world) grant(owner, service, consumer, decision string) {
	w.Helper()
	w.put(state.AccessKey(owner, service, consumer), state.Access{Version: state.Current(), Request: api.AccessRequest{
		ID: owner + service + consumer, Consumer: consumer, Owner: owner, SerName: service, State: api.AccessState(decision), Created: time.Now(),
	}})
}

// TestCallsUnderWayEndWithTheRightToThem withdraws what calls depend on, in every possible way.
func TestCallsUnderWayEndWithTheRightToThem(t *testing.T) {
	t.Parallel()
	each := func(s *scene, do func(n int, service string)) {
		for n := range s.kinds {
			do(n, fmt.Sprint("kind-", n))
		}
	}
	for name, c := range map[string]struct {
		changes []func(*mp1.ServiceInfo)
		key     bool // the consumer has an API key and no token
		before  func(*scene)
		take    func(*scene)
		all     bool // the other consumer loses the right, too
		gone    bool
		reason  string
	}{
		"a grant is revoked": {changes: []func(*mp1.ServiceInfo){conditional}, before: func(s *scene) {
			each(s, func(_ int, service string) {
				s.grant(s.owner, service, s.consumer, "GRANTED")
				s.grant(s.owner, service, s.other, "GRANTED")
			})
		}, take: func(s *scene) {
			each(s, func(_ int, service string) { s.grant(s.owner, service, s.consumer, "REFUSED") })
		}, reason: "access"},
		"a policy denies now": {take: func(s *scene) {
			each(s, func(_ int, service string) {
				s.policy(service, api.Policy{Rules: []api.Rule{{Effect: api.Deny, Consumers: []string{s.consumer}}}})
			})
		}, reason: "access"},
		"a policy asks for another proof": {key: true, take: func(s *scene) {
			each(s, func(_ int, service string) { s.policy(service, api.Policy{Authentication: []api.Method{api.ByToken}}) })
		}, reason: "access"},
		"the consumer declares something else": {take: func(s *scene) {
			s.put(state.AppKey(s.consumer), state.App{Version: state.Current(), Name: "app", Requires: []string{"else"}, Created: time.Now()})
		}, reason: "access"},
		"the consumer is gone":      {take: func(s *scene) { s.delete(state.AppKey(s.consumer)) }, reason: "access"},
		"the API key is deleted":    {key: true, take: func(s *scene) { s.deleteKey() }, reason: "credential"},
		"the token is revoked":      {take: func(s *scene) { s.revoke(s.token) }, reason: "credential"},
		"the credential is deleted": {take: func(s *scene) { s.delete(state.CredentialKey("ak-" + s.consumer)) }, reason: "credential"},
		"the credential is disabled": {take: func(s *scene) {
			s.put(state.CredentialKey("ak-"+s.consumer), state.Credential{
				Version: state.Current(), Subject: s.consumer, Scopes: []string{"mp1"}, Epoch: "e", Disabled: true,
			})
		}, reason: "credential"},
		"the signing key is retired": {take: func(s *scene) { s.delete(state.SigningKeyKey(kid)) }, all: true, reason: "credential"},
		"the service is suspended": {take: func(s *scene) {
			each(s, func(n int, service string) {
				s.setService(s.owner, s.ids[n], service, "http://127.0.0.1:1", func(i *mp1.ServiceInfo) { i.State = mp1.StateSuspended })
			})
		}, all: true, gone: true, reason: "instance"},
		"the service is removed": {take: func(s *scene) {
			each(s, func(n int, _ string) { s.delete(state.ServiceKey(s.owner, s.ids[n])) })
		}, all: true, gone: true, reason: "instance"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.TB = t
			file := filepath.Join(t.TempDir(), "access.jsonl")
			s := &scene{world: w, T: t, kinds: kinds(), owner: w.app(), consumer: w.app(), other: w.app()}
			s.ids = w.offering(t, s.owner, s.kinds, c.changes...)
			s.gate = w.gate(func(s *setup) { s.Gateway.RecordsFile = file })
			if c.before != nil {
				c.before(s)
			}
			var proof [2]string
			if c.key {
				s.token = s.gate.apiKey(s.consumer)
				proof = asKey(s.token)
			} else {
				s.token = w.token(s.consumer)
				proof = asToken(s.token)
			}
			s.bystanders = s.gate.hold(t, s.kinds, asToken(w.token(s.other)))
			s.calls = s.gate.hold(t, s.kinds, proof)
			c.take(s)
			see := func(calls []*held) {
				for n, h := range calls {
					want := s.kinds[n].denied
					if c.gone {
						want = s.kinds[n].gone
					}
					require.Equal(t, want, h.over(), h.name)
				}
			}
			see(s.calls)
			if c.all {
				see(s.bystanders)
			} else {
				working(t, s.bystanders, "when others had lost the right")
			}
			ends := float64(len(s.kinds))
			if c.all {
				ends *= 2
			}
			require.InDelta(t, ends, s.gate.metric("mep_gateway_calls_ended_total", c.reason), 0)
			s.gate.stop()
			data, err := os.ReadFile(file)
			require.NoError(t, err)
			require.Equal(t, int(ends), strings.Count(string(data), `"reason":"ended-`+c.reason+`"`), string(data))
			data, err = os.ReadFile(filepath.Join(s.gate.cfg.Common.DataDir, "audit", "audit.log"))
			require.NoError(t, err)
			require.Equal(t, int(ends), strings.Count(string(data), `"action":"access.end"`), string(data))
			require.NotContains(t, string(data), s.token)
		})
	}
}

// revoke revokes a token, as the token service does.
func (w *world) revoke(token string) {
	w.Helper()
	w.put(state.RevokedKey(claimsOf(w, token)["jti"].(string)), state.Revoked{Version: state.Current(), Expires: time.Now().Add(time.Hour)})
}

func (s *scene) deleteKey() {
	s.T.Helper()
	require.Equal(s.T, http.StatusNoContent, s.gate.manage(http.MethodDelete, "/api_keys/"+strings.Split(s.token, "_")[1], nil, nil))
}

// claimsOf returns the claims of a token.
func claimsOf(tb testing.TB, token string) (claims map[string]any) {
	tb.Helper()
	data, err := base64.RawURLEncoding.DecodeString(strings.Split(token, ".")[1])
	require.NoError(tb, err)
	require.NoError(tb, json.Unmarshal(data, &claims))
	return claims
}

// metric returns the value of the series of a metric that has a label with the given value; "" selects one without labels.
func (g *gate) metric(name, label string) float64 {
	g.Helper()
	families, err := g.reg.Gather()
	require.NoError(g, err)
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == name && (label == "" || len(m.GetLabel()) == 1 && m.GetLabel()[0].GetValue() == label) {
				if m.GetHistogram() != nil {
					return float64(m.GetHistogram().GetSampleCount())
				}
				return m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	return 0
}

// settled checks that a call has ended, or that it goes on after all calls were judged again.
func (g *gate) settled(t *testing.T, h *held, ended bool) {
	t.Helper()
	if ended {
		require.Equal(t, "cut", h.over())
		return
	}
	g.judged()
	require.NoError(t, h.talk())
}

// judged waits until all calls have been judged again.
func (g *gate) judged() {
	g.Helper()
	const rounds = "mep_gateway_calls_review_seconds"
	before := g.metric(rounds, "")
	eventually(g, func() bool {
		g.Lasting().Changed()
		return g.metric(rounds, "") >= before+2 // one may have been running
	})
}

// TestCallsUnderWayGoOn changes what calls do not depend on, and what they depend on in ways that leave them their right.
func TestCallsUnderWayGoOn(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	all := kinds()
	owner, me := w.app(), w.app()
	ids := w.offering(t, owner, all)
	g := w.gate()
	key := g.apiKey(me)
	short := w.sign(w.key, kid, func() map[string]any {
		claims := claimsOf(t, w.token(me))
		claims["exp"] = time.Now().Add(2 * time.Second).Unix()
		return claims
	}())
	calls := append(g.hold(t, all, asToken(w.token(me))), g.hold(t, all, asKey(key))...)
	calls = append(calls, g.hold(t, all, asToken(short))...)
	elsewhere := w.app()
	allowing := func() {
		for n := range all {
			w.policy(fmt.Sprint("kind-", n), api.Policy{Rules: []api.Rule{{Effect: api.Allow, Consumers: []string{me}}}, Default: api.Deny})
		}
	}
	for _, c := range []struct {
		name   string
		change func()
	}{
		{"what concerns others", func() {
			w.delete(state.ServiceKey(elsewhere, w.service(elsewhere, "else", "http://127.0.0.1:1")))
			w.policy("else", api.Policy{Default: api.Deny})
			w.route("else", api.Route{Paths: []string{"/else"}, URLs: []string{"http://127.0.0.1:1"}})
			gone := g.apiKey(elsewhere)
			g.manage(http.MethodDelete, "/api_keys/"+strings.Split(gone, "_")[1], nil, nil)
			w.revoke(w.token(elsewhere))
			w.delete(state.AppKey(elsewhere))
		}},
		{"the policy of the service", allowing},
		{"the same policy once more", allowing},
		{"what cannot be used, another instance, and another address", func() {
			w.policy("kind-0", unusable(api.Policy{}))
			w.delete(state.ServiceKey(elsewhere, w.service(elsewhere, "kind-0", "http://127.0.0.1:1")))
			for n := range all {
				w.setService(owner, ids[n], fmt.Sprint("kind-", n), "http://127.0.0.1:1")
			}
		}},
		{"the configuration", func() { require.NoError(t, g.reload(func(*gateway.Config) {})) }},
		{"the time", func() { time.Sleep(time.Until(time.Unix(int64(claimsOf(t, short)["exp"].(float64)), 0))) }},
	} {
		c.change()
		g.judged()
		working(t, calls, "after "+c.name)
	}
	require.InDelta(t, len(calls), g.metric("mep_gateway_calls_lasting", ""), 0)
	for _, reason := range []string{"access", "credential", "instance"} {
		require.Zero(t, g.metric("mep_gateway_calls_ended_total", reason))
	}
	w.delete(state.CredentialKey("ak-" + me))
	for n, h := range calls {
		if k := n / len(all); k != 1 { // those with the key go on
			require.Equal(t, all[n%len(all)].denied, h.over(), h.name)
		}
	}
	working(t, calls[len(all):2*len(all)], "with the key")
}

// TestStaticRoutesEndTheirCalls removes routes, and points them elsewhere.
func TestStaticRoutesEndTheirCalls(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		route  api.Route
		change func(w *world, r api.Route, owner, id string)
		ends   bool
	}{
		"the route is removed": {api.Route{}, func(w *world, _ api.Route, _, _ string) { w.delete(state.GatewayRouteKey("r")) }, true},
		"the route denies": {api.Route{}, func(w *world, r api.Route, _, _ string) {
			r.Policy.Default = api.Deny
			w.route("r", r)
		}, true},
		"the route stays": {api.Route{}, func(w *world, r api.Route, _, _ string) {
			r.Priority = 7
			w.route("r", r)
		}, false},
		"the route takes other paths": {api.Route{}, func(w *world, r api.Route, _, _ string) {
			r.Paths = []string{"/r/else/**", "/q/**"}
			w.route("r", r)
		}, true},
		"the route takes fewer paths": {api.Route{}, func(w *world, r api.Route, _, _ string) {
			r.Paths = []string{"/r/events"}
			w.route("r", r)
		}, false},
		"the route takes another method": {api.Route{}, func(w *world, r api.Route, _, _ string) {
			r.Methods = []string{http.MethodPost}
			w.route("r", r)
		}, true},
		"the route takes the method": {api.Route{}, func(w *world, r api.Route, _, _ string) {
			r.Methods = []string{http.MethodGet}
			w.route("r", r)
		}, false},
		"the route takes another host": {api.Route{Service: "kind-1"}, func(w *world, r api.Route, _, _ string) {
			r.Hosts = []string{"else.example"}
			w.route("r", r)
		}, true},
		"the route wants a header field": {api.Route{}, func(w *world, r api.Route, _, _ string) {
			r.Headers = map[string]string{"X-Any": "*"}
			w.route("r", r)
		}, false},
		"its service is removed": {api.Route{Service: "kind-1"}, func(w *world, _ api.Route, owner, id string) { w.delete(state.ServiceKey(owner, id)) }, true},
		"its service is another": {api.Route{Service: "kind-1"}, func(w *world, r api.Route, _, _ string) {
			r.Service = "kind-2"
			w.route("r", r)
		}, true},
		"its service denies": {api.Route{Service: "kind-1"}, func(w *world, _ api.Route, _, _ string) { w.policy("kind-1", api.Policy{Default: api.Deny}) }, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			all := kinds()[:3]
			owner, me := w.app(), w.app()
			ids := w.offering(t, owner, all)
			c.route.Paths, c.route.Strip = []string{"/r/**"}, 1
			if c.route.Service == "" {
				c.route.URLs = []string{serve(t, ticks).URL}
			}
			w.route("r", c.route)
			g := w.gate()
			h := all[1].open(t, g, "/r", asToken(w.token(me)))
			require.NoError(t, h.talk())
			c.change(w, c.route, owner, ids[1])
			g.settled(t, h, c.ends)
		})
	}
}

// TestAnInstanceEndsItsOwnCallsAlone suspends one of two instances that offer a service.
func TestAnInstanceEndsItsOwnCallsAlone(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	owner, me := w.app(), w.app()
	first := w.service(owner, "two", serve(t, ticks).URL)
	g := w.gate()
	token := asToken(w.token(me))
	open := reading("/events", false)
	one, named := open(t, g, "/services/two", token), open(t, g, "/instances/"+first, token)
	sending := upload(t, g, "/services/two", token)
	require.NoError(t, sending.talk())
	require.NoError(t, sending.talk(), "the first was passed on")
	w.service(owner, "two", serve(t, ticks).URL)
	w.policy("two", api.Policy{})
	second := w.service(owner, "three", serve(t, ticks).URL)
	other := open(t, g, "/instances/"+second, token)
	w.delete(state.ServiceKey(owner, first))
	require.Equal(t, "cut", one.over())
	require.Equal(t, "cut", named.over())
	require.Equal(t, "503", sending.over(), "though another instance is there")
	require.NoError(t, other.talk())
}

// TestTheRightEndsUnderLoad withdraws a right while the table keeps changing and short calls come and go.
func TestTheRightEndsUnderLoad(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	owner, me, other := w.app(), w.app(), w.app()
	w.service(owner, "hello", serve(t, func(rw http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/events" {
			ticks(rw, r)
			return
		}
		_ = http.NewResponseController(rw).Flush() // sends no length
	}).URL)
	g := w.gate()
	mine, others := asToken(w.token(me)), asToken(w.token(other))
	stop := make(chan struct{})
	var busy sync.WaitGroup
	for range 4 {
		busy.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if a, err := g.try(http.MethodGet, "/services/hello/", nil, field(others[0], others[1])); err != nil || a.StatusCode != http.StatusOK {
					t.Error("a short call failed: ", err)
					return
				}
			}
		})
	}
	open := reading("/events", false)
	var kept, lost []*held
	for range 20 {
		kept, lost = append(kept, open(t, g, "/services/hello", others)), append(lost, open(t, g, "/services/hello", mine))
	}
	for n := range 100 {
		w.policy("hello", api.Policy{Rules: []api.Rule{{Effect: api.Deny, Consumers: []string{fmt.Sprint("nobody-", n)}}}})
	}
	w.policy("hello", api.Policy{Rules: []api.Rule{{Effect: api.Deny, Consumers: []string{me}}}})
	for range 20 {
		w.named(fmt.Sprint("else-", len(lost)), "http://127.0.0.1:1")
	}
	for _, h := range lost {
		require.Equal(t, "cut", h.over())
	}
	working(t, kept, "at the end")
	close(stop)
	busy.Wait()
	require.InDelta(t, len(lost), g.metric("mep_gateway_calls_ended_total", "access"), 0)
}

// TestRefusalsAreAudited makes calls that are refused because of who makes them.
func TestRefusalsAreAudited(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.named("hello", mirrorOf(t).URL)
	w.policy("hello", api.Policy{Rules: []api.Rule{{Effect: api.Deny, Paths: []string{"/secret/**"}}}})
	g := w.gate()
	me := w.app()
	token := w.token(me)
	require.Equal(t, http.StatusForbidden, g.status("/services/hello/secret/place", bearer(token)))
	require.Equal(t, http.StatusUnauthorized, g.status("/services/hello/", bearer(token+"x")))
	require.Equal(t, http.StatusUnauthorized, g.status("/services/hello/", field("X-Api-Key", "mepk_none")))
	require.Equal(t, http.StatusUnauthorized, g.status("/services/hello/"), "which is no news")
	require.Equal(t, http.StatusOK, g.status("/services/hello/", bearer(token)))
	g.stop()
	data, err := os.ReadFile(filepath.Join(g.cfg.Common.DataDir, "audit", "audit.log"))
	require.NoError(t, err)
	lines := strings.Split(strings.TrimSpace(string(data)), "\n")
	require.Len(t, lines, 3, string(data))
	for _, line := range lines {
		require.Contains(t, line, `"action":"access.deny","result":"denied"`)
		require.Contains(t, line, `"target":"GET /services/hello"`)
	}
	require.Contains(t, lines[0], me)
	require.NotContains(t, string(data), "secret")
	require.NotContains(t, string(data), "mepk_none")
}

// TestClientsAreToldThatTheGatewayStops checks that clients that can be told are told before their connections are closed.
func TestClientsAreToldThatTheGatewayStops(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	g := w.gate()
	consumer := w.app()
	all := slices.DeleteFunc(kinds(), func(k kind) bool { return k.name != "WebSocket" && k.name != "gRPC" })
	w.offering(t, w.app(), all)
	held := g.hold(t, all, asToken(w.token(consumer)))
	stopped := make(chan struct{})
	go func() { defer close(stopped); g.stop() }()
	for n, h := range held {
		require.Equal(t, all[n].gone, h.over(), h.name)
	}
	<-stopped
	require.InDelta(t, 2, g.metric("mep_gateway_calls_ended_total", "stopping"), 0)
}
