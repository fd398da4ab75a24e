package gateway_test

import (
	"encoding/json"
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"

	api "github.com/openmep/mep/api/gateway"
	"github.com/openmep/mep/api/mp1"
	"github.com/openmep/mep/gateway"
)

func TestWhoMayUseAService(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	g := w.gate()
	up := mirrorOf(t).URL
	owner := w.app()
	w.service(owner, "a", up)
	w.service(owner, "b", up)
	everything, declared := w.app(), w.app("a")
	stranger := "5f0e8b5a-0000-4000-8000-000000000000"
	for name, c := range map[string]struct {
		caller, path string
		status       int
	}{
		"an app that declared nothing":        {everything, "/services/b/", 200},
		"an app that declared it":             {declared, "/services/a/", 200},
		"an app that did not declare it":      {declared, "/services/b/", 403},
		"nobody":                              {"", "/services/a/", 401},
		"nobody, asking for what there isn't": {"", "/services/none/", 401},
		"somebody who is no app":              {stranger, "/services/a/", 403},
		"the owner":                           {owner, "/services/b/", 200},
	} {
		t.Run(name, func(t *testing.T) {
			g := g.in(t)
			var changes []func(*http.Request)
			if c.caller != "" {
				changes = append(changes, bearer(w.token(c.caller)))
			}
			require.Equal(t, c.status, g.status(c.path, changes...))
		})
	}
	require.Equal(t, http.StatusForbidden, g.status("/services/a/", bearer(w.token(everything, "ops"))), "the scope is missing")
	w.policy("a", api.Policy{
		Scopes: []string{}, Default: api.Deny,
		Rules: []api.Rule{
			{Effect: api.Deny, Methods: []string{"DELETE"}},
			{Effect: api.Allow, Consumers: []string{stranger}, Sources: []string{"127.0.0.0/8"}, Paths: []string{"/open/**"}},
			{Effect: api.Allow, Consumers: []string{everything}, Sources: []string{"192.0.2.0/24"}},
		},
	})
	require.Equal(t, http.StatusOK, g.status("/services/a/open/x", bearer(w.token(stranger))), "a rule names it")
	require.Equal(t, http.StatusForbidden, g.status("/services/a/shut", bearer(w.token(stranger))))
	require.Equal(t, http.StatusForbidden, g.do(http.MethodDelete, "/services/a/open/x", "", bearer(w.token(stranger))).StatusCode)
	require.Equal(t, http.StatusForbidden, g.status("/services/a/open/x", bearer(w.token(everything))))
}

func TestServicesForLocalConsumers(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	g := w.gate(func(s *setup) { s.Gateway.LocalNetworks = []string{"192.0.2.0/24"} })
	owner := w.app()
	w.service(owner, "local", mirrorOf(t).URL, local)
	w.service(owner, "both", mirrorOf(t).URL, local)
	w.service(owner, "both", mirrorOf(t).URL+"/far")
	for _, name := range []string{"local", "both"} {
		w.policy(name, anybody)
	}
	require.Equal(t, http.StatusForbidden, g.status("/services/local/"))
	require.Equal(t, http.StatusOK, g.status("/services/local/", bearer(w.token(w.app()))), "an app of this host is local")
	for range 10 {
		require.Equal(t, "/far/", g.get("/services/both/").seen(t).Target, "those that it may use")
	}
	require.NoError(t, g.reload(func(c *gateway.Config) { c.LocalNetworks = []string{"127.0.0.1"} }))
	require.Equal(t, http.StatusOK, g.status("/services/local/"))
}

func TestServicesThatAreSharedOnRequest(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	g := w.gate()
	owner, consumer := w.app(), w.app()
	w.service(owner, "shared", mirrorOf(t).URL, func(s *mp1.ServiceInfo) {
		s.TransportInfo.ImplSpecificInfo = json.RawMessage(`{"gateway":{"sharing":"conditional"}}`)
	})
	token := bearer(w.token(consumer))
	require.Equal(t, http.StatusForbidden, g.status("/services/shared/", token))
	require.Equal(t, http.StatusOK, g.status("/services/shared/", bearer(w.token(owner))), "it is its own")
	a := g.do(http.MethodPost, "/gateway/v1/access_requests", `{"serName":"shared"}`, token, field("Content-Type", "application/json"))
	require.Equal(t, http.StatusCreated, a.StatusCode, a.body)
	var requests []api.AccessRequest
	if a.body[0] == '[' {
		require.NoError(t, json.Unmarshal([]byte(a.body), &requests))
	} else {
		requests = make([]api.AccessRequest, 1)
		require.NoError(t, json.Unmarshal([]byte(a.body), &requests[0]))
	}
	require.Equal(t, http.StatusForbidden, g.status("/services/shared/", token), "asking is not enough")
	path := "/gateway/v1/access_requests/" + requests[0].ID
	decide := func(who, state string) int {
		return g.do(http.MethodPut, path, `{"state":"`+state+`"}`, bearer(w.token(who)), field("Content-Type", "application/json")).StatusCode
	}
	require.GreaterOrEqual(t, decide(consumer, "GRANTED"), 400, "nobody grants what is another's")
	require.Less(t, decide(owner, "GRANTED"), 300)
	require.Equal(t, http.StatusOK, g.status("/services/shared/", token))
	require.Equal(t, http.StatusForbidden, g.status("/services/shared/", bearer(w.token(w.app()))), "others have to ask, too")
	require.Less(t, decide(owner, "REFUSED"), 300)
	require.Equal(t, http.StatusForbidden, g.status("/services/shared/", token), "and at once")
	w.policy("shared", api.Policy{Sharing: api.SharingOpen})
	require.Equal(t, http.StatusOK, g.status("/services/shared/", token), "a policy decides above the app")
	require.Equal(t, http.StatusUnauthorized, g.status("/gateway/v1/access_requests"))
}

func TestAnonymousCallers(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	g := w.gate()
	owner, me := w.app(), w.app("other")
	w.service(owner, "hello", mirrorOf(t).URL)
	w.policy("hello", anybody)
	require.Equal(t, http.StatusOK, g.status("/services/hello/"))
	require.Empty(t, g.get("/services/hello/").seen(t).Header["X-Appinstanceid"])
	require.Equal(t, http.StatusForbidden, g.status("/services/hello/", bearer(w.token(me))), "who says who it is, is taken at its word")
	require.Equal(t, http.StatusUnauthorized, g.status("/services/hello/", bearer("nonsense")), "a wrong proof is not none")
	w.policy("hello", api.Policy{Authentication: []api.Method{api.Anonymous}})
	require.Equal(t, http.StatusOK, g.status("/services/hello/"))
	known := w.app()
	require.Equal(t, []string{known}, g.get("/services/hello/", bearer(w.token(known))).seen(t).Header["X-Appinstanceid"],
		"who proves something is known nevertheless")
}
