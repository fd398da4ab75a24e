package match_test

import (
	"encoding/json"
	"net/netip"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/api/gateway"
	"github.com/openmep/mep/api/problem"
	"github.com/openmep/mep/gateway/match"
	"github.com/openmep/mep/kit/bind"
)

// FuzzCheck checks that no definition makes the checks panic, and that the gateway can use every definition that passes.
func FuzzCheck(f *testing.F) {
	for _, s := range []string{
		`{"id":"a","paths":["/a/*/**"],"service":"s","rewrite":"/b/{1}/{rest}"}`,
		`{"id":"a","hosts":["*.example.com","::1"],"paths":["/**","/%61"],"urls":["https://a/b"],"methods":["GET"],"headers":{"A":"*"},"strip":3}`,
		`{"id":"a","paths":["/a"],"service":"s","policy":{"rules":[{"effect":"deny","paths":["/x/*"],"sources":["10.0.0.0/8","::1"]}],
			"externalAuth":{"url":"http://a"},"quotas":[{"calls":1,"per":"day"}],"timeouts":{"connect":"1s"},"upstream":{"ca":"x","healthCheck":{"path":"/"}},
			"headers":{"set":{"A":"b"},"remove":["C"]},"claims":{"X":"y"},"spikeArrest":{"calls":1,"per":"second"}}}`,
		`{"qoutas":1,"policy":{"quotes":1},"":0}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		var (
			faults problem.InvalidParams
			route  gateway.Route
		)
		if bind.JSON(body, &route, &faults) != nil {
			return
		}
		read := len(faults)
		route.Check(&faults)
		for _, other := range []interface{ Check(*problem.InvalidParams) }{
			new(gateway.APIKeyRequest), new(gateway.AccessApplication), new(gateway.AccessDecision), new(gateway.ExplainRequest),
		} {
			var ignored problem.InvalidParams
			_ = bind.JSON(body, other, &ignored)
			other.Check(&ignored)
		}
		if len(faults) > 0 {
			require.LessOrEqual(t, len(faults), max(50, read))
			for _, fault := range faults {
				require.NotEmpty(t, fault.Name)
				require.NotEmpty(t, fault.Reason)
			}
			return
		}
		entry, err := match.NewEntry(&route, route.ID)
		require.NoError(t, err)
		match.NewRouter([]*match.Entry[string]{entry})
		_, err = match.NewRewriter(&route)
		require.NoError(t, err)
		for _, rule := range route.Policy.Rules {
			for _, s := range rule.Paths {
				_, err := match.NewPattern(s)
				require.NoError(t, err)
			}
			for _, s := range rule.Sources {
				p, err := gateway.ParseSource(s)
				require.NoError(t, err)
				require.NotEqual(t, netip.Prefix{}, p)
			}
		}
		again, err := json.Marshal(&route)
		require.NoError(t, err)
		var same gateway.Route
		require.NoError(t, bind.JSON(again, &same, &faults))
		same.Check(&faults)
		require.Empty(t, faults, "what is stored passes again: %s", again)
	})
}

// FuzzHost checks that any request host can be looked up, and that a route with a host is found however the host is spelt.
func FuzzHost(f *testing.F) {
	for _, s := range []string{"a.example", "A.b.", "*.example.com", "192.0.2.1", "[2001:db8::1]:80", "::1", "[::ffff:192.0.2.1]", "[", ":", "a:b:c", "fe80::1%eth0"} {
		f.Add(s)
	}
	all := router(f, gateway.Route{ID: "h", Hosts: []string{"a.b", "*.c.d", "::1"}, Paths: []string{"/x"}}, gateway.Route{ID: "any", Paths: []string{"/**"}})
	root := clean(f, "/")
	f.Fuzz(func(t *testing.T, s string) {
		value, _, _ := all.Find(s, "GET", root, nil)
		require.Equal(t, "any", value)
		host, ok := gateway.CanonicalHost(s)
		if !ok {
			return
		}
		again, ok := gateway.CanonicalHost(host)
		require.True(t, ok)
		require.Equal(t, host, again)
		r := router(t, gateway.Route{ID: "h", Hosts: []string{s}, Paths: []string{"/"}})
		asked := strings.Replace(host, "*.", "x.y.", 1)
		if a, err := netip.ParseAddr(asked); err == nil {
			asked = strings.TrimSuffix(netip.AddrPortFrom(a, 80).String(), ":80")
		}
		for _, spelt := range []string{asked, asked + ":80", strings.ToUpper(asked), strings.ToUpper(asked) + ":8443"} {
			value, _, outcome := r.Find(spelt, "GET", root, nil)
			require.Equal(t, match.Found, outcome, "%q", spelt)
			require.Equal(t, "h", value)
		}
	})
}
