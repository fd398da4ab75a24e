package match_test

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/api/gateway"
	"github.com/openmep/mep/gateway/match"
	"github.com/openmep/mep/kit/errs"
)

// router returns a router whose routes stand for their ids.
func router(t testing.TB, routes ...gateway.Route) *match.Router[string] {
	t.Helper()
	entries := make([]*match.Entry[string], len(routes))
	for i := range routes {
		e, err := match.NewEntry(&routes[i], routes[i].ID)
		require.NoError(t, err)
		entries[i] = e
	}
	return match.NewRouter(entries)
}

func TestWhichRouteWins(t *testing.T) {
	r := router(t,
		gateway.Route{ID: "any", Paths: []string{"/**"}},
		gateway.Route{ID: "any-team", Paths: []string{"/team/*"}},
		gateway.Route{ID: "any-team-me", Paths: []string{"/team/me"}},
		gateway.Route{ID: "any-team-rest", Paths: []string{"/team/**"}},
		gateway.Route{ID: "any-team-members", Paths: []string{"/team/*/members"}},
		gateway.Route{ID: "any-team-members-rest", Paths: []string{"/team/*/members/**"}},
		gateway.Route{ID: "me-rest", Paths: []string{"/team/me/**"}},
		gateway.Route{ID: "wild", Hosts: []string{"*.example.com"}, Paths: []string{"/team/*"}},
		gateway.Route{ID: "wilder", Hosts: []string{"*.b.Example.com."}, Paths: []string{"/x"}},
		gateway.Route{ID: "exact", Hosts: []string{"www.example.com", "2001:DB8::1", "192.0.2.1"}, Paths: []string{"/exact/**"}},
		gateway.Route{ID: "post", Paths: []string{"/m"}, Methods: []string{"POST", "PUT"}},
		gateway.Route{ID: "header", Paths: []string{"/m"}, Methods: []string{"PUT"}, Headers: map[string]string{"x-version": "2"}},
		gateway.Route{ID: "high", Paths: []string{"/p"}, Priority: 5},
		gateway.Route{ID: "low", Paths: []string{"/p"}, Priority: -5},
		gateway.Route{ID: "b", Paths: []string{"/id"}},
		gateway.Route{ID: "a", Paths: []string{"/id"}},
		gateway.Route{ID: "methods", Paths: []string{"/s"}, Methods: []string{"GET"}},
		gateway.Route{ID: "headers", Paths: []string{"/s"}, Headers: map[string]string{"A": "*", "B": "*"}, Priority: 9},
		gateway.Route{ID: "one-header", Paths: []string{"/s"}, Headers: map[string]string{"A": "*"}, Priority: 10},
		gateway.Route{ID: "none", Paths: []string{"/s"}, Priority: 11},
		gateway.Route{ID: "encoded", Paths: []string{"/%61%20b"}},
	)
	for _, x := range []struct {
		host, method, path string
		header             http.Header
		want               string
	}{
		{"a", "GET", "/", nil, "any"},
		{"a", "GET", "/other/x", nil, "any"},
		{"a", "GET", "/team", nil, "any-team-rest"},
		{"a", "GET", "/team/", nil, "any-team-rest"},
		{"a", "GET", "/team/you", nil, "any-team"},
		{"a", "GET", "/team/you/", nil, "any-team"},
		{"a", "GET", "/team/me", nil, "any-team-me"},
		{"a", "GET", "/team/me;v=1", nil, "any-team-me"},
		{"a", "GET", "/team/me/x", nil, "me-rest"},
		{"a", "GET", "/team/me/members", nil, "me-rest"},
		{"a", "GET", "/team/you/members", nil, "any-team-members"},
		{"a", "GET", "/team/you/members/1/2", nil, "any-team-members-rest"},
		{"a", "GET", "/team/you/others", nil, "any-team-rest"},
		{"a", "GET", "/TEAM/me", nil, "any"},
		{"x.example.com", "GET", "/team/me", nil, "wild"},
		{"X.Example.COM:8443", "GET", "/team/me", nil, "wild"},
		{"x.y.example.com.", "GET", "/team/me", nil, "wild"},
		{"x.y.example.com.:80", "GET", "/team/me/x", nil, "me-rest"},
		{"example.com", "GET", "/team/me", nil, "any-team-me"},
		{"anexample.com", "GET", "/team/me", nil, "any-team-me"},
		{"a.b.example.com", "GET", "/x", nil, "wilder"},
		{"a.b.example.com", "GET", "/team/me", nil, "wild"},
		{"b.example.com", "GET", "/x", nil, "any"},
		{"www.example.com", "GET", "/exact", nil, "exact"},
		{"www.example.com", "GET", "/team/me", nil, "wild"},
		{"[2001:db8:0::1]:8443", "GET", "/exact/1", nil, "exact"},
		{"[2001:db8::1]", "GET", "/exact/1", nil, "exact"},
		{"2001:db8::1", "GET", "/exact/1", nil, "exact"},
		{"[2001:db8::2]:8443", "GET", "/exact/1", nil, "any"},
		{"192.0.2.1:1", "GET", "/exact/1", nil, "exact"},
		{"[::ffff:192.0.2.1]", "GET", "/exact/1", nil, "exact"},
		{"", "GET", "/exact/1", nil, "any"},
		{"[", "GET", "/exact/1", nil, "any"},
		{strings.Repeat("a.", 200) + "example.com", "GET", "/team/me", nil, "any-team-me"},
		{"a", "GET", "/m", nil, "any"},
		{"a", "PUT", "/m", nil, "post"},
		{"a", "PUT", "/m", http.Header{"X-Version": {"1", "2"}}, "header"},
		{"a", "PUT", "/m", http.Header{"X-Version": {"22"}}, "post"},
		{"a", "POST", "/m", http.Header{"X-Version": {"2"}}, "post"},
		{"a", "post", "/m", nil, "any"},
		{"a", "GET", "/p", nil, "high"},
		{"a", "GET", "/id", nil, "a"},
		{"a", "GET", "/s", http.Header{"A": {"1"}, "B": {""}}, "methods"},
		{"a", "PUT", "/s", http.Header{"A": {"1"}, "B": {""}}, "headers"},
		{"a", "PUT", "/s", http.Header{"A": {"1"}}, "one-header"},
		{"a", "PUT", "/s", nil, "none"},
		{"a", "GET", "/a%20%62", nil, "encoded"},
	} {
		t.Run(x.host+" "+x.method+" "+x.path, func(t *testing.T) {
			value, p, outcome := r.Find(x.host, x.method, clean(t, x.path), x.header)
			require.Equal(t, match.Found, outcome)
			require.Equal(t, x.want, value)
			require.True(t, p.Match(clean(t, x.path).Segments()))
		})
	}
}

func TestRequestsWithoutRoute(t *testing.T) {
	r := router(t,
		gateway.Route{ID: "get", Paths: []string{"/a", "/b/*"}, Methods: []string{"GET", "HEAD"}},
		gateway.Route{ID: "put", Paths: []string{"/a"}, Methods: []string{"PUT", "GET"}},
		gateway.Route{ID: "host", Hosts: []string{"h"}, Paths: []string{"/a"}, Methods: []string{"DELETE"}},
		gateway.Route{ID: "header", Paths: []string{"/c"}, Methods: []string{"GET"}, Headers: map[string]string{"X": "1"}},
	)
	for _, x := range []struct {
		host, method, path string
		want               match.Outcome
		allowed            []string
	}{
		{"a", "POST", "/a", match.WrongMethod, []string{"GET", "HEAD", "PUT"}},
		{"h", "POST", "/a", match.WrongMethod, []string{"DELETE", "GET", "HEAD", "PUT"}},
		{"a", "POST", "/b/c", match.WrongMethod, []string{"GET", "HEAD"}},
		{"a", "GET", "/b", match.None, nil},
		{"a", "GET", "/", match.None, nil},
		{"a", "POST", "/c", match.None, nil},
	} {
		_, p, outcome := r.Find(x.host, x.method, clean(t, x.path), nil)
		require.Equal(t, x.want, outcome, "%+v", x)
		require.Nil(t, p)
		require.Equal(t, x.allowed, r.Allowed(x.host, clean(t, x.path), nil))
	}
	var asterisk match.Path
	require.NoError(t, asterisk.Clean(http.MethodOptions, request(t, "OPTIONS *").URL))
	_, _, outcome := router(t, gateway.Route{ID: "all", Paths: []string{"/**"}}).Find("a", "OPTIONS", &asterisk, nil)
	require.Equal(t, match.None, outcome)
	_, _, outcome = match.NewRouter[int](nil).Find("a", "GET", clean(t, "/"), nil)
	require.Equal(t, match.None, outcome)
}

func TestRoutesThatCannotBePrepared(t *testing.T) {
	for want, r := range map[string]gateway.Route{
		"hosts[1] must be a host name":     {Hosts: []string{"a", "a:1"}, Paths: []string{"/a"}},
		"paths must have at least one":     {},
		`paths[0] must be a path that beg`: {Paths: []string{"a"}},
	} {
		_, err := match.NewEntry(&r, 0)
		require.ErrorIs(t, err, errs.Invalid)
		require.ErrorContains(t, err, want)
	}
}

// many returns a router with many routes of several shapes.
func many(t testing.TB, n int) *match.Router[string] {
	t.Helper()
	routes := make([]gateway.Route, 0, n)
	for i := range n {
		r := gateway.Route{ID: fmt.Sprint(i), Paths: []string{fmt.Sprintf("/team/%d/members/*", i)}, Methods: []string{"GET"}}
		switch i % 4 {
		case 1:
			r.Paths = []string{fmt.Sprintf("/team/*/x%d/**", i)}
		case 2:
			r.Hosts = []string{fmt.Sprintf("h%d.example.com", i)}
		case 3:
			r.Hosts, r.Headers = []string{fmt.Sprintf("*.w%d.example.com", i)}, map[string]string{"X": "*"}
		}
		routes = append(routes, r)
	}
	return router(t, routes...)
}

func TestFindingAllocatesNothing(t *testing.T) {
	r := many(t, 1000)
	path := clean(t, "/team/602/members/5")
	header := http.Header{"X": {"1"}}
	for _, host := range []string{"h602.example.com:8443", "a.b.w603.example.com", "[2001:db8::1]:80", "192.0.2.1", "node1"} {
		require.Zero(t, testing.AllocsPerRun(100, func() { r.Find(host, "GET", path, header) }), host)
	}
	value, _, _ := r.Find("h602.example.com:8443", "GET", path, header)
	require.Equal(t, "602", value)
}

func BenchmarkFind(b *testing.B) {
	r := many(b, 10_000)
	header := http.Header{"X": {"1"}, "Accept": {"*/*"}}
	for name, x := range map[string]struct{ host, path string }{
		"literal":  {"gateway.example.com", "/team/8000/members/5"},
		"star":     {"gateway.example.com", "/team/any/x8001/a/b/c"},
		"host":     {"h8002.example.com:8443", "/team/8002/members/5"},
		"wildcard": {"a.b.w8003.example.com", "/team/8003/members/5"},
		"none":     {"gateway.example.com", "/services/weather/v1/forecast"},
	} {
		b.Run(name, func(b *testing.B) {
			path := clean(b, x.path)
			b.ReportAllocs()
			for b.Loop() {
				r.Find(x.host, "GET", path, header)
			}
		})
	}
}

func BenchmarkClean(b *testing.B) {
	var p match.Path
	u := &url.URL{Path: "/services/weather/v1/forecast/today"}
	b.ReportAllocs()
	for b.Loop() {
		_ = p.Clean(http.MethodGet, u)
	}
}
