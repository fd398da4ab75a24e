package gateway_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	api "github.com/openmep/mep/api/gateway"
)

// TestARouteToAServiceReachesItInItsOwnWay checks that a route that says how its service is reached overrides the policy of the service.
func TestARouteToAServiceReachesItInItsOwnWay(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	slow := serve(t, func(rw http.ResponseWriter, r *http.Request) {
		select {
		case <-time.After(500 * time.Millisecond):
		case <-r.Context().Done():
		}
		rw.WriteHeader(http.StatusNoContent)
	})
	owner, id := w.named("slow", slow.URL)
	w.policy("slow", anybody)
	impatient := anybody
	impatient.Timeouts.Response = "50ms"
	w.route("impatient", api.Route{Paths: []string{"/impatient/**"}, Service: "slow", Strip: 1, Policy: impatient})
	w.route("patient", api.Route{Paths: []string{"/patient/**"}, Service: "slow", Strip: 1})
	g := w.gate()
	require.Equal(t, http.StatusNoContent, g.status("/services/slow/x"))
	require.Equal(t, http.StatusNoContent, g.status("/patient/x"))
	require.Equal(t, http.StatusGatewayTimeout, g.status("/impatient/x"))

	// The route follows the service.
	quick := mirrorOf(t)
	w.setService(owner, id, "slow", quick.URL)
	eventually(t, func() bool { return g.status("/impatient/x") == http.StatusOK })
	w.delete("/mep/v1/services/" + owner + "/" + id)
	eventually(t, func() bool { return g.status("/impatient/x") == http.StatusServiceUnavailable })
	w.setService(owner, id, "slow", slow.URL)
	eventually(t, func() bool { return g.status("/impatient/x") == http.StatusGatewayTimeout })
}

// TestEveryPolicyIsBuiltOnTheOneForAll checks that all policies are built on "*": those of services, and those of routes that lead
// elsewhere.
func TestEveryPolicyIsBuiltOnTheOneForAll(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	up := mirrorOf(t)
	w.named("hello", up.URL)
	w.route("elsewhere", api.Route{Paths: []string{"/elsewhere/**"}, URLs: []string{up.URL}})
	open := anybody
	open.Quotas = []api.Quota{{Calls: 1, Per: api.PerDay}}
	w.policy("*", open)
	g := w.gate()
	for _, path := range []string{"/services/hello/", "/elsewhere/"} {
		require.Equal(t, http.StatusOK, g.status(path), path)
		require.Equal(t, http.StatusTooManyRequests, g.status(path), path)
	}
	// An empty list inherits nothing.
	w.policy("hello", api.Policy{Quotas: []api.Quota{}})
	eventually(t, func() bool { return g.status("/services/hello/") == http.StatusOK })
	require.Equal(t, http.StatusOK, g.status("/services/hello/"))
	require.Equal(t, http.StatusTooManyRequests, g.status("/elsewhere/"))
	// What is denied to all stays denied unless something else is said.
	open.Quotas, open.Default = nil, api.Deny
	w.policy("*", open)
	eventually(t, func() bool { return g.status("/elsewhere/") == http.StatusForbidden })
	require.Equal(t, http.StatusForbidden, g.status("/services/hello/"))
}

// TestAServiceIsOfThoseThatItsPolicyNames checks that a name that other apps register, too, leads to the owners that the policy names.
func TestAServiceIsOfThoseThatItsPolicyNames(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	provider, squatter := serve(t, func(rw http.ResponseWriter, _ *http.Request) { rw.WriteHeader(http.StatusOK) }),
		serve(t, func(rw http.ResponseWriter, _ *http.Request) { rw.WriteHeader(http.StatusTeapot) })
	owner, _ := w.named("pay", provider.URL)
	_, other := w.named("pay", squatter.URL)
	p := anybody
	p.Owners = []string{owner}
	w.policy("pay", p)
	g := w.gate()
	for range 20 {
		require.Equal(t, http.StatusOK, g.status("/services/pay/"))
	}
	require.Equal(t, http.StatusForbidden, g.status("/instances/"+other+"/"))
}

// TestKeysStayInTheGateway checks that no API key reaches an upstream, whatever else is wrong with the credentials of a request.
func TestKeysStayInTheGateway(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.named("hello", mirrorOf(t).URL)
	w.policy("hello", api.Policy{Authentication: []api.Method{api.Anonymous}})
	g := w.gate()
	key := g.apiKey("somebody")
	for name, authorization := range map[string][]string{"none": nil, "two": {"Bearer a", "Bearer b"}, "empty": {"Bearer "}, "wrong": {"Bearer x.y.z"}} {
		a := g.get("/services/hello/?a=1&x-api-key="+key, func(r *http.Request) {
			r.Header["Authorization"] = authorization
			r.Header.Set("X-Api-Key", key)
		})
		require.Equal(t, http.StatusOK, a.StatusCode, name)
		require.NotContains(t, a.body, key, name)
	}
}
