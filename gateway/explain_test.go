package gateway_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	api "github.com/openmep/mep/api/gateway"
	"github.com/openmep/mep/api/mp1"
)

// TestExplainAgreesWithWhatCallsGet asks about random calls under random policies, and makes the same calls.
func TestExplainAgreesWithWhatCallsGet(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	g := w.gate(func(s *setup) { s.Gateway.LocalNetworks = []string{"192.0.2.0/24"} })
	up := mirrorOf(t).URL
	apps := []string{w.app(), w.app("a"), w.app("a", "b")}
	const stranger = "5f0e8b5a-0000-4000-8000-000000000000"
	callers := append([]string{"", stranger}, apps...)
	w.service(apps[0], "a", up)
	w.service(apps[1], "b", up, local)
	w.service(apps[2], "b", up)
	w.service(apps[2], "c", up, local, func(s *mp1.ServiceInfo) {
		s.TransportInfo.ImplSpecificInfo = []byte(`{"gateway":{"sharing":"conditional"}}`)
	})
	tokens := make(map[string]string)
	for _, c := range callers {
		for _, scope := range []string{"mp1", "mm5"} {
			if c != "" {
				tokens[c+scope] = w.token(c, scope)
			}
		}
	}
	g.manage(http.MethodGet, "/status", nil, nil)
	pick := func(rt *rapid.T, name string, from ...string) string { return rapid.SampledFrom(from).Draw(rt, name) }
	some := func(rt *rapid.T, name string, from ...string) []string {
		return rapid.SliceOfNDistinct(rapid.SampledFrom(from), 0, 2, rapid.ID[string]).Draw(rt, name)
	}
	policy := func(rt *rapid.T) api.Policy {
		p := api.Policy{Default: api.Effect(pick(rt, "default", "", "allow", "deny")), Sharing: pick(rt, "sharing", "", "open", "conditional")}
		p.Authentication = rapid.SampledFrom([][]api.Method{nil, {api.ByToken}, {api.ByToken, api.Anonymous}, {api.ByAPIKey, api.ByToken}}).Draw(rt, "authentication")
		if rapid.Bool().Draw(rt, "scopes") {
			p.Scopes = some(rt, "scope", "mp1", "mm5")
		}
		for range rapid.IntRange(0, 2).Draw(rt, "rules") {
			p.Rules = append(p.Rules, api.Rule{
				Effect: api.Effect(pick(rt, "effect", "allow", "deny")), Consumers: some(rt, "consumers", callers[1:]...), Scopes: some(rt, "rule scopes", "mp1", "mm5"),
				Sources: some(rt, "sources", "127.0.0.1", "192.0.2.0/24", "0.0.0.0/0"), Methods: some(rt, "methods", "GET", "POST"), Paths: some(rt, "paths", "/", "/**", "/x/*", "/x"),
			})
		}
		return p
	}
	check := func(rt *rapid.T, method, path, caller, scope string) {
		req := api.ExplainRequest{Method: method, URL: path, Consumer: caller}
		if caller != "" {
			req.Scopes = []string{scope}
		}
		e := api.Explanation{Status: g.manage(http.MethodPost, "/explain", req, nil)}
		if e.Status == http.StatusOK {
			e = g.explain(req)
		} // otherwise the management rejects the URL as the gateway would
		l := g.dial()
		defer l.Close()
		proof := ""
		if caller != "" {
			proof = "Authorization: Bearer " + tokens[caller+scope] + "\n"
		}
		l.send(fmt.Sprintf("%s %s HTTP/1.1\nHost: localhost\n%s\n", method, path, proof))
		a, err := l.response(method)
		require.NoError(rt, err)
		want := e.Status
		if want == 0 {
			want = http.StatusOK
			require.NotEmpty(rt, e.Targets, "%s %s", path, e.Reason)
			require.Equal(rt, want, a.StatusCode, "%s %s by %q with %s: %s, and it got %s", method, path, caller, scope, e.Reason, a.body)
			if method != http.MethodHead {
				got := a.seen(t).Target
				if e.Path == "" {
					e.Path = "/"
				}
				target := e.Path // and the query, as it came
				if _, query, ok := strings.Cut(path, "?"); ok {
					target += "?" + query
				}
				require.Equal(rt, target, got)
			}
		}
		require.Equal(rt, want, a.StatusCode, "%s %s by %q with %s: %s, and it got %s", method, path, caller, scope, e.Reason, a.body)
	}
	t.Run("policies", func(t *testing.T) {
		rapid.Check(t, func(rt *rapid.T) {
			for _, name := range []string{"*", "a", "b", "c"} {
				if rapid.Bool().Draw(rt, "change "+name) {
					w.policy(name, policy(rt))
				}
			}
			w.route("r", api.Route{Paths: []string{"/r/**"}, Service: pick(rt, "service", "a", "b", "c", "none"), Strip: 1, Policy: policy(rt)})
			w.route("u", api.Route{Paths: []string{"/u/**"}, URLs: []string{up}, Methods: []string{"GET"}, Strip: 1, Policy: policy(rt)})
			for range 6 {
				check(rt, pick(rt, "method", "GET", "POST", "DELETE"),
					pick(rt, "path", "/services/a", "/services/b/x", "/services/b/x/y", "/services/c/", "/services/none", "/r/x", "/r", "/u/x", "/u/x/y", "/nowhere"),
					pick(rt, "caller", callers...), pick(rt, "scope", "mp1", "mm5"))
			}
		})
	})
	t.Run("paths", func(t *testing.T) {
		rapid.Check(t, func(rt *rapid.T) {
			path := "/" + pick(rt, "first", "services", "r", "u", "", "%73ervices", "instances")
			for range rapid.IntRange(0, 3).Draw(rt, "length") {
				path += pick(rt, "segment", "/", "/a", "/..", "/%2e", "/a%2fb", "/;x", "/a;x=1", "//", "/%41", "/a%20b", "/%zz", "/a?x=1", "/\\", "/%00")
			}
			check(rt, pick(rt, "method", "GET", "HEAD", "OPTIONS", "TRACE"), path, callers[2], "mp1")
		})
	})
}

func TestExplainKnowsAPIKeys(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	g := w.gate()
	for _, name := range []string{"a", "b"} {
		w.named(name, mirrorOf(t).URL)
	}
	app := w.app()
	bound := g.apiKey("partner", "a")
	open := g.apiKey("other")
	g.apiKey(app, "b")
	explain := func(consumer, path string, scopes ...string) api.Explanation {
		return g.explain(api.ExplainRequest{Method: http.MethodGet, URL: path, Consumer: consumer, Scopes: scopes})
	}
	for _, c := range []struct{ consumer, key, path string }{
		{"partner", bound, "/services/a"}, {"partner", bound, "/services/b"}, {"other", open, "/services/a"}, {"other", open, "/services/b"},
		{"nobody", "", "/services/a"},
	} {
		e := explain(c.consumer, c.path)
		want := http.StatusForbidden // what a token of an unknown consumer would get
		if c.key != "" {
			want = g.status(c.path, field("X-Api-Key", c.key))
			require.Contains(t, stepsOf(e), "authentication: "+c.consumer+", with the API key "+strings.Split(c.key, "_")[1]+" and the scopes mp1\n")
		}
		require.Equal(t, want, max(e.Status, http.StatusOK), "%+v: %s", c, e.Reason)
	}
	require.NotContains(t, stepsOf(explain(app, "/services/a")), "API key", "apps show their token where they may")
	require.Contains(t, stepsOf(explain("other", "/services/a", "mm5")), "and the scopes mm5\n", "whoever asks may say which")
	w.policy("a", api.Policy{Authentication: []api.Method{api.ByAPIKey}})
	e := explain(app, "/services/a")
	require.Contains(t, stepsOf(e), "with the API key", "they have to")
	require.Equal(t, http.StatusForbidden, e.Status, "it is good for another service")
}
