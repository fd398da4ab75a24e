package gateway_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	api "github.com/openmep/mep/api/gateway"
	"github.com/openmep/mep/api/state"
	"github.com/openmep/mep/gateway"
)

// unusable returns a policy that passes every check and that no replica can apply.
func unusable(p api.Policy) api.Policy {
	p.Upstream.ClientCertificate = "missing"
	return p
}

func (g *gate) refusals() map[string]string {
	g.Helper()
	var s api.Status
	g.manage(http.MethodGet, "/status", nil, &s)
	m := make(map[string]string)
	for _, r := range s.Refused {
		m[r.Kind+" "+r.ID] = r.Reason
	}
	return m
}

func TestARefusedDefinitionLeavesTheOneBeforeIt(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	g := w.gate()
	up := mirrorOf(t).URL
	w.named("hello", up)
	token := bearer(w.token(w.app()))
	w.policy("hello", api.Policy{Rules: []api.Rule{{Effect: api.Deny, Methods: []string{"POST"}}}})
	w.route("r", api.Route{Paths: []string{"/r/**"}, URLs: []string{up + "/one"}})
	status := func(method, path string) int { return g.do(method, path, "", token).StatusCode }
	require.Equal(t, http.StatusForbidden, status("POST", "/services/hello/"))

	w.policy("hello", unusable(api.Policy{}))
	require.Equal(t, http.StatusOK, status("GET", "/services/hello/"))
	require.Equal(t, http.StatusForbidden, status("POST", "/services/hello/"), "the one before it is in force")
	require.Contains(t, g.refusals()["policy hello"], "missing")
	var view api.PolicyView
	g.manage(http.MethodGet, "/policies/hello", nil, &view)
	require.Contains(t, view.Refused, "missing")

	w.route("r", api.Route{Paths: []string{"/r/**"}, URLs: []string{up + "/two"}, Policy: unusable(api.Policy{})})
	require.Equal(t, "/one/r/x", g.get("/r/x", token).seen(t).Target)
	require.Contains(t, g.refusals()["route r"], "missing")
	for _, bad := range []api.Route{{Paths: []string{"/services/hello"}, URLs: []string{up}}, {Paths: []string{"r"}}, {Paths: []string{"/r/**"}, URLs: []string{"gopher://x"}}} {
		w.route("r", bad)
		require.Equal(t, "/one/r/x", g.get("/r/x", token).seen(t).Target, "also what an older release may have stored")
	}
	w.route("new", api.Route{Paths: []string{"/new"}, URLs: []string{up}, Policy: unusable(api.Policy{})})
	require.Equal(t, http.StatusServiceUnavailable, status("GET", "/new"), "there is none before it: it is closed, and no other route takes its calls")
	require.Len(t, g.refusals(), 3)

	w.policy("hello", api.Policy{})
	w.route("r", api.Route{Paths: []string{"/r/**"}, URLs: []string{up + "/three"}})
	w.delete(state.GatewayRouteKey("new"))
	require.Equal(t, http.StatusOK, status("POST", "/services/hello/"))
	require.Equal(t, "/three/r/x", g.get("/r/x", token).seen(t).Target)
	require.Empty(t, g.refusals())
}

// TestWhatCannotBeAppliedClosesItsRoutes starts without an earlier policy to keep in place of one that cannot be applied.
func TestWhatCannotBeAppliedClosesItsRoutes(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	up := mirrorOf(t).URL
	owner := w.app()
	token := bearer(w.token(w.app()))
	for _, name := range []string{"hello", "free", "own"} {
		w.service(owner, name, up)
	}
	shut := api.Policy{Default: api.Deny}
	w.policy("hello", unusable(shut))
	w.route("way", api.Route{Paths: []string{"/way"}, Service: "hello"})
	g := w.gate()
	require.Equal(t, http.StatusServiceUnavailable, g.status("/services/hello/", token))
	require.Equal(t, http.StatusServiceUnavailable, g.status("/way", token), "a route to the service is no way around its policy")
	require.Equal(t, http.StatusOK, g.status("/services/free/", token))

	w.policy("own", api.Policy{Concurrent: 5})
	w.policy(api.AnyService, unusable(shut))
	late := w.gate()
	require.Equal(t, http.StatusServiceUnavailable, late.status("/services/free/", token))
	require.Equal(t, http.StatusServiceUnavailable, late.status("/services/own/", token), "its policy is built on the one that cannot be used")
	require.Equal(t, http.StatusServiceUnavailable, g.status("/services/free/", token), "the defaults are no version of it that was before")
	w.policy(api.AnyService, api.Policy{Rules: []api.Rule{{Effect: api.Deny, Methods: []string{"POST"}}}})
	require.Equal(t, http.StatusOK, g.status("/services/free/", token))
	w.policy(api.AnyService, unusable(shut))
	require.Equal(t, http.StatusOK, g.status("/services/free/", token), "the one before it is in force")
	require.Equal(t, http.StatusForbidden, g.do(http.MethodPost, "/services/free/", "", token).StatusCode)
	require.Equal(t, http.StatusServiceUnavailable, w.gate().status("/services/free/", token), "which a gateway that starts has not seen")

	w.delete(state.GatewayPolicyKey(api.AnyService))
	w.delete(state.GatewayPolicyKey("hello"))
	for _, path := range []string{"/services/hello/", "/services/free/", "/services/own/", "/way"} {
		require.Equal(t, http.StatusOK, late.status(path, token), path)
	}
	require.Empty(t, late.refusals())
}

func TestPoliciesOfThePlatformCloseItToo(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	answer := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { reflect(w, r) })
	start := func() *gate { return w.gate(func(s *setup) { s.Mp1, s.Auth = answer, answer }) }
	g := start()
	for _, path := range []string{"/mep/token", "/mec_service_mgmt/v1/services", "/mep/mec_app_support/v1/x", "/oauth2/token", "/.well-known/jwks.json"} {
		a := g.get(path, bearer(w.token(w.app())))
		require.Equal(t, http.StatusOK, a.StatusCode, path)
		require.NotEmpty(t, a.seen(t).Header.Get("Authorization"), "the platform decides by itself")
	}
	w.policy(api.RouteMp1, unusable(api.Policy{}))
	require.Equal(t, http.StatusServiceUnavailable, g.status("/mec_service_mgmt/v1/services"), "the defaults are no version of it that was before")
	w.policy(api.RouteMp1, api.Policy{Rules: []api.Rule{{Effect: api.Deny, Sources: []string{"127.0.0.1"}}}})
	require.Equal(t, http.StatusForbidden, g.status("/mec_service_mgmt/v1/services"))
	require.Equal(t, http.StatusOK, g.status("/mep/token"))
	w.policy(api.RouteMp1, unusable(api.Policy{}))
	require.Equal(t, http.StatusForbidden, g.status("/mec_service_mgmt/v1/services"), "the one before it is in force")
	require.Equal(t, http.StatusServiceUnavailable, start().status("/mec_service_mgmt/v1/services"), "there is none before it")
}

func TestTheConfigurationWinsOverTheManagement(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	up := mirrorOf(t).URL
	w.named("hello", up)
	w.policy("hello", api.Policy{Default: api.Deny})
	w.route("r", api.Route{Paths: []string{"/r"}, URLs: []string{up + "/management"}})
	token := bearer(w.token(w.app()))
	g := w.gate(func(s *setup) {
		s.Gateway.Policies = map[string]api.Policy{"hello": {}}
		s.Gateway.Routes = []api.Route{{ID: "r", Paths: []string{"/r"}, URLs: []string{up + "/configuration"}}}
	})
	require.Equal(t, http.StatusOK, g.status("/services/hello/", token))
	require.Equal(t, "/configuration/r", g.get("/r", token).seen(t).Target)
	require.Equal(t, http.StatusConflict, g.manage(http.MethodPut, "/policies/hello", api.Policy{}, nil))
	require.NoError(t, g.reload(func(c *gateway.Config) { c.Policies, c.Routes = nil, nil }))
	require.Equal(t, http.StatusForbidden, g.status("/services/hello/", token))
	require.Equal(t, "/management/r", g.get("/r", token).seen(t).Target)
}

func TestManagementAnswersWhenAChangeIsInForce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	g := w.gate()
	up := mirrorOf(t).URL
	token := bearer(w.token(w.app()))
	for i := range 20 {
		r := api.Route{Paths: []string{"/team/*/members/**"}, URLs: []string{up}, Rewrite: fmt.Sprintf("/v%d/{1}/{rest}", i)}
		require.Less(t, g.manage(http.MethodPut, "/routes/team", r, nil), 300)
		require.Equal(t, fmt.Sprintf("/v%d/red/a/b", i), strings.TrimSuffix(g.get("/team/red/members/a/b", token).seen(t).Target, "/"))
	}
	require.Equal(t, http.StatusBadRequest, g.manage(http.MethodPut, "/routes/bad", map[string]any{"paths": []string{"/a"}, "urls": []string{up}, "metods": []string{"GET"}}, nil),
		"what is misspelt is refused")
	require.Equal(t, http.StatusNoContent, g.manage(http.MethodDelete, "/routes/team", nil, nil))
	require.Equal(t, http.StatusNotFound, g.status("/team/red/members/a", token))
}

func TestMethodsAndConditionsOfRoutes(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	g := w.gate()
	up := mirrorOf(t).URL
	w.route("get", api.Route{Paths: []string{"/a/*"}, Methods: []string{"GET"}, URLs: []string{up}, Strip: 1, Policy: anybody})
	w.route("beta", api.Route{Paths: []string{"/a/*"}, Methods: []string{"GET"}, Headers: map[string]string{"X-Version": "beta"}, URLs: []string{up + "/beta"}, Policy: anybody})
	require.Equal(t, "/x", g.get("/a/x").seen(t).Target)
	require.Equal(t, "/beta/a/x", g.get("/a/x", field("X-Version", "beta")).seen(t).Target)
	a := g.do(http.MethodPost, "/a/x", "")
	require.Equal(t, http.StatusMethodNotAllowed, a.StatusCode)
	require.Contains(t, a.Header.Get("Allow"), "GET")
	require.Equal(t, http.StatusNotFound, g.status("/a/x/y"))
}
