package client_test

import (
	"context"
	"iter"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/api/client"
	"github.com/openmep/mep/api/gateway"
)

// newGateway connects a client to a gateway without a network.
func newGateway(t *testing.T, p *platform) *client.Gateway {
	t.Helper()
	g, err := client.NewGateway("http://mep.example/", client.WithHTTPClient(&http.Client{Transport: p}))
	require.NoError(t, err)
	return g
}

// first returns the first element of a list.
func first[T any](list iter.Seq2[T, error]) (T, error) {
	for element, err := range list {
		return element, err
	}
	var none T
	return none, nil
}

func TestRequestsToTheGatewayHaveTheirForm(t *testing.T) {
	route := gateway.Route{ID: "a", Paths: []string{"/x"}, Service: "s"}
	at := time.Date(2026, 11, 23, 6, 0, 0, 0, time.FixedZone("", 3600))
	const access = `{"id":"1","consumer":"c","serName":"s","owner":"o","state":"PENDING","created":"2026-11-23T05:00:00Z"}`
	tests := map[string]struct {
		call         func(context.Context, *client.Gateway) error
		answer       func(http.ResponseWriter)
		method, path string
		body         string
	}{
		"routes": {func(ctx context.Context, g *client.Gateway) error {
			r, err := first(g.Routes(ctx, client.RouteFilter{Kind: "static", Service: "s", Source: "management"}))
			require.Equal(t, "a", r.ID)
			return err
		}, answer(200, `[{"id":"a"}]`), "GET", "/routes?kind=static&limit=1000&service=s&source=management", ""},
		"route": {func(ctx context.Context, g *client.Gateway) error {
			r, err := g.Route(ctx, "service:a b")
			require.Equal(t, `"7"`, r.ETag)
			return err
		}, answer(200, `{"id":"a"}`, "ETag", `"7"`), "GET", "/routes/service:a%20b", ""},
		"put route": {func(ctx context.Context, g *client.Gateway) error {
			r, err := g.PutRoute(ctx, route)
			require.Equal(t, "no filter", r.Info.Refused)
			require.Equal(t, `"8"`, r.ETag)
			return err
		}, answer(201, `{"id":"a","refused":"no filter"}`, "ETag", `"8"`), "PUT", "/routes/a", `{"id":"a","paths":["/x"],"service":"s"}`},
		"delete route": {func(ctx context.Context, g *client.Gateway) error { return g.DeleteRoute(ctx, "a") }, answer(204, ""), "DELETE", "/routes/a", ""},
		"policies": {func(ctx context.Context, g *client.Gateway) error {
			p, err := first(g.Policies(ctx))
			require.Equal(t, "*", p.Name)
			return err
		}, answer(200, `[{"name":"*"}]`), "GET", "/policies?limit=1000", ""},
		"policy": {func(ctx context.Context, g *client.Gateway) error { _, err := g.Policy(ctx, "a/b"); return err },
			answer(200, `{"name":"a/b"}`), "GET", "/policies/a%2Fb", ""},
		"put policy": {func(ctx context.Context, g *client.Gateway) error {
			_, err := g.PutPolicy(ctx, gateway.AnyService, gateway.Policy{Concurrent: 2})
			return err
		}, answer(200, `{"name":"*"}`), "PUT", "/policies/%2A", `{"concurrent":2}`},
		"delete policy": {func(ctx context.Context, g *client.Gateway) error { return g.DeletePolicy(ctx, "*") }, answer(204, ""), "DELETE", "/policies/%2A", ""},
		"create key": {func(ctx context.Context, g *client.Gateway) error {
			k, err := g.CreateAPIKey(ctx, gateway.APIKeyRequest{Consumer: "c", Lifetime: "1h"})
			require.Equal(t, "mepk_x", k.Key)
			return err
		}, answer(201, `{"id":"1","key":"mepk_x"}`), "POST", "/api_keys", `{"consumer":"c","lifetime":"1h"}`},
		"keys": {func(ctx context.Context, g *client.Gateway) error {
			k, err := first(g.APIKeys(ctx, "c"))
			require.Equal(t, "1", k.ID)
			return err
		}, answer(200, `[{"id":"1"}]`), "GET", "/api_keys?consumer=c&limit=1000", ""},
		"key":        {func(ctx context.Context, g *client.Gateway) error { _, err := g.APIKey(ctx, "1"); return err }, answer(200, `{}`), "GET", "/api_keys/1", ""},
		"delete key": {func(ctx context.Context, g *client.Gateway) error { return g.DeleteAPIKey(ctx, "1") }, answer(204, ""), "DELETE", "/api_keys/1", ""},
		"apply": {func(ctx context.Context, g *client.Gateway) error {
			r, err := g.Apply(ctx, gateway.AccessApplication{SerName: "s"})
			require.Equal(t, gateway.AccessPending, r.Info.State)
			return err
		}, answer(201, access, "ETag", `"1"`), "POST", "/access_requests", `{"serName":"s"}`},
		"access requests": {func(ctx context.Context, g *client.Gateway) error {
			r, err := first(g.AccessRequests(ctx, client.AccessFilter{State: gateway.AccessPending, Consumer: "c", Owner: "o"}))
			require.Equal(t, "1", r.ID)
			return err
		}, answer(200, "["+access+"]"), "GET", "/access_requests?consumer=c&limit=1000&owner=o&state=PENDING", ""},
		"access request": {func(ctx context.Context, g *client.Gateway) error { _, err := g.AccessRequest(ctx, "1"); return err },
			answer(200, access), "GET", "/access_requests/1", ""},
		"decide": {func(ctx context.Context, g *client.Gateway) error {
			_, err := g.Decide(ctx, "1", gateway.AccessDecision{State: gateway.AccessRefused, Reason: "no"})
			return err
		}, answer(200, access), "PUT", "/access_requests/1", `{"state":"REFUSED","reason":"no"}`},
		"revoke": {func(ctx context.Context, g *client.Gateway) error { return g.DeleteAccessRequest(ctx, "1") },
			answer(204, ""), "DELETE", "/access_requests/1", ""},
		"explain": {func(ctx context.Context, g *client.Gateway) error {
			e, err := g.Explain(ctx, gateway.ExplainRequest{Method: "GET", URL: "/"})
			require.Equal(t, "no route", e.Reason)
			return err
		}, answer(200, `{"reason":"no route","steps":[]}`), "POST", "/explain", `{"method":"GET","url":"/"}`},
		"status": {func(ctx context.Context, g *client.Gateway) error {
			s, err := g.Status(ctx)
			require.Equal(t, 3, s.Routes)
			return err
		}, answer(200, `{"routes":3}`), "GET", "/status", ""},
		"upstreams": {func(ctx context.Context, g *client.Gateway) error {
			u, err := first(g.Upstreams(ctx))
			require.Equal(t, "http://h", u.URL)
			return err
		}, answer(200, `[{"url":"http://h","state":"up"}]`), "GET", "/upstreams?limit=1000", ""},
		"statistics": {func(ctx context.Context, g *client.Gateway) error {
			s, err := g.Statistics(ctx, client.StatisticsFilter{Service: "s", Consumer: "c", Resolution: "day", From: at, To: at.Add(time.Hour)})
			require.Len(t, s.Series, 1)
			return err
		}, answer(200, `{"series":[{}]}`), "GET", "/statistics?consumer=c&from=2026-11-23T05%3A00%3A00Z&resolution=day&service=s&to=2026-11-23T06%3A00%3A00Z", ""},
		"quotas": {func(ctx context.Context, g *client.Gateway) error {
			q, err := first(g.Quotas(ctx, "r", "c"))
			require.Equal(t, int64(4), q.Taken)
			return err
		}, answer(200, `[{"taken":4}]`), "GET", "/quotas?consumer=c&limit=1000&route=r", ""},
		"export": {func(ctx context.Context, g *client.Gateway) error {
			text, err := g.Export(ctx, "kong")
			require.Equal(t, "a: b\n", string(text))
			return err
		}, answer(200, "a: b\n", "Content-Type", "application/yaml"), "GET", "/export?format=kong", ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			p := &platform{answers: []func(http.ResponseWriter){tt.answer}}
			require.NoError(t, tt.call(t.Context(), newGateway(t, p)))
			require.Len(t, p.asked, 1)
			require.Equal(t, tt.method, p.asked[0].method)
			require.Equal(t, gateway.Base+tt.path, p.asked[0].target)
			require.Equal(t, tt.body, p.asked[0].body)
		})
	}
}

func TestListsOfTheGatewayAreReadPageByPage(t *testing.T) {
	next := func(after string) string {
		return `<` + gateway.Base + `/routes?after=` + after + `&limit=1000>; rel="next"`
	}
	pages := []func(http.ResponseWriter){
		answer(200, `[{"id":"a"},{"id":"b"}]`, "Link", next("x")), answer(200, `[{"id":"c"}]`, "Link", next("y")), answer(200, `[{"id":"d"}]`),
	}
	p := &platform{answers: pages}
	var ids []string
	for r, err := range newGateway(t, p).Routes(t.Context(), client.RouteFilter{}) {
		require.NoError(t, err)
		ids = append(ids, r.ID)
	}
	require.Equal(t, []string{"a", "b", "c", "d"}, ids)
	require.Equal(t, gateway.Base+"/routes?after=y&limit=1000", p.asked[2].target)

	for name, answers := range map[string][]func(http.ResponseWriter){
		"refused":         {refusal(403)},
		"refused in time": {pages[0], refusal(403)},
		"without an end":  {pages[0]},
		"something else":  {answer(200, "{}")},
	} {
		failures := 0
		for _, err := range newGateway(t, &platform{answers: answers}).Routes(t.Context(), client.RouteFilter{}) {
			if err != nil {
				failures++
			}
		}
		require.Equal(t, 1, failures, name)
	}
}

func TestWhatIsAskedOfTheGatewayIsRepeatedWhereThatIsSafe(t *testing.T) {
	for name, tt := range map[string]struct {
		call     func(context.Context, *client.Gateway) error
		attempts int
	}{
		"put": {func(ctx context.Context, g *client.Gateway) error {
			_, err := g.PutRoute(ctx, gateway.Route{ID: "a"})
			return err
		}, 4},
		"put what was read": {func(ctx context.Context, g *client.Gateway) error {
			_, err := g.PutRoute(ctx, gateway.Route{ID: "a"}, client.IfMatch(`"1"`))
			return err
		}, 1},
		"create key": {func(ctx context.Context, g *client.Gateway) error {
			_, err := g.CreateAPIKey(ctx, gateway.APIKeyRequest{})
			return err
		}, 1},
		"apply": {func(ctx context.Context, g *client.Gateway) error {
			_, err := g.Apply(ctx, gateway.AccessApplication{})
			return err
		}, 1},
		"delete": {func(ctx context.Context, g *client.Gateway) error { return g.DeleteRoute(ctx, "a") }, 4},
		"explain": {func(ctx context.Context, g *client.Gateway) error {
			_, err := g.Explain(ctx, gateway.ExplainRequest{})
			return err
		}, 4},
		"key":    {func(ctx context.Context, g *client.Gateway) error { _, err := g.APIKey(ctx, "a"); return err }, 4},
		"status": {func(ctx context.Context, g *client.Gateway) error { _, err := g.Status(ctx); return err }, 4},
		"statistics": {func(ctx context.Context, g *client.Gateway) error {
			_, err := g.Statistics(ctx, client.StatisticsFilter{})
			return err
		}, 4},
		"export": {func(ctx context.Context, g *client.Gateway) error { _, err := g.Export(ctx, "kong"); return err }, 1},
		"no id": {func(ctx context.Context, g *client.Gateway) error {
			_, err := g.PutRoute(ctx, gateway.Route{})
			return err
		}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := &platform{answers: []func(http.ResponseWriter){refusal(503, "Retry-After", "1")}}
				require.Error(t, tt.call(t.Context(), newGateway(t, p)))
				require.Len(t, p.asked, tt.attempts)
			})
		})
	}
	_, err := client.NewGateway("mep.example:8444")
	require.ErrorContains(t, err, "base URL of the platform")
}
