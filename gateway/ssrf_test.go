package gateway_test

import (
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	api "github.com/openmep/mep/api/gateway"
	"github.com/openmep/mep/gateway"
)

func portOf(tb testing.TB, raw string) string {
	tb.Helper()
	u, err := url.Parse(raw)
	require.NoError(tb, err)
	return u.Port()
}

// TestServicesDoNotLeadInside registers services whose addresses are the platform's own listeners, or others that must not be reachable.
func TestServicesDoNotLeadInside(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var reached atomic.Int64
	inside := serve(t, func(http.ResponseWriter, *http.Request) { reached.Add(1) })
	shut := w.gate(func(s *setup) { s.Gateway.AllowLoopback = false })
	open := w.gate()
	wide := w.gate(func(s *setup) {
		s.Gateway.Listen, s.Gateway.ManagementListen = ":0", ":0"
	})
	token := bearer(w.token(w.app()))
	owner := w.app()
	id := w.service(owner, "in", inside.URL)
	status := func(g *gate, uri string) int {
		w.setService(owner, id, "in", uri)
		a := g.get("/services/in/", token)
		if a.StatusCode != http.StatusOK {
			require.NotContains(t, a.body, "127.0.0.1", "who calls is not told addresses")
		}
		return a.StatusCode
	}
	require.Equal(t, http.StatusOK, status(open, inside.URL))
	reached.Store(0)
	p := portOf(t, inside.URL)
	for _, uri := range []string{
		"http://127.0.0.1:" + p, "http://localhost:" + p, "http://LOCALHOST:" + p, "http://a.localhost:" + p, "http://localhost.:" + p, "http://127.1:" + p,
		"http://2130706433:" + p, "http://0x7f000001:" + p, "http://0177.0.0.1:" + p, "http://127.9.9.9:" + p, "http://[::1]:" + p, "http://[::ffff:127.0.0.1]:" + p,
		"http://[::ffff:7f00:1]:" + p, "http://0.0.0.0:" + p, "http://[::]:" + p, "http://0:" + p, "http://[64:ff9b::7f00:1]:" + p, "ws://127.0.0.1:" + p, "h2c://127.0.0.1:" + p,
	} {
		require.Contains(t, []int{502, 503, 504}, status(shut, uri), uri)
	}
	for _, uri := range []string{
		"http://169.254.169.254/", "http://[fe80::1]/", "http://[::ffff:169.254.169.254]/", "http://224.0.0.1/", "http://255.255.255.255/", "http://100.100.100.200/",
		"http://0.0.0.0:" + p, "http://[::]:" + p,
	} {
		require.Contains(t, []int{502, 503}, status(open, uri), uri)
	}
	require.Zero(t, reached.Load())
	for _, g := range []*gate{open, wide} {
		for _, own := range []string{g.URL(), g.ManagementURL()} {
			port := portOf(t, own)
			hosts := []string{"127.0.0.1", "localhost", "LocalHost.", "[::ffff:127.0.0.1]", "127.1"}
			if g == wide { // on every address
				hosts = append(hosts, "[::1]", "127.0.0.2")
				addrs, err := net.InterfaceAddrs()
				require.NoError(t, err)
				for _, a := range addrs {
					if n, ok := a.(*net.IPNet); ok && n.IP.To4() != nil && !n.IP.IsLoopback() {
						hosts = append(hosts, n.IP.String())
					}
				}
			}
			for _, host := range hosts {
				got := status(g, fmt.Sprintf("http://%s:%s/gateway/v1/status", host, port))
				require.Contains(t, []int{502, 503}, got, "its own listener as %s:%s", host, port)
			}
		}
	}
}

// TestNamesAreCheckedWhenTheyAreCalled uses a name that is harmless as text but resolves to loopback.
func TestNamesAreCheckedWhenTheyAreCalled(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	g := w.gate()
	token := bearer(w.token(w.app()))
	up := mirrorOf(t)
	port := portOf(t, up.URL)
	w.named("hello", "http://localhost:"+port)
	w.route("static", api.Route{Paths: []string{"/static"}, URLs: []string{"http://localhost:" + port}})
	require.Equal(t, http.StatusOK, g.status("/services/hello/", token))
	// The connection is open already. A target that is no longer allowed is not called over it either.
	require.NoError(t, g.reload(func(c *gateway.Config) { c.AllowLoopback = false }))
	for _, path := range []string{"/services/hello/", "/static"} {
		a := g.get(path, token)
		require.Contains(t, []int{502, 503}, a.StatusCode, "%s: %s", path, a.body)
	}
	require.NoError(t, g.reload(func(c *gateway.Config) { c.DenyTargets = []string{"127.0.0.1:" + port} }))
	require.Contains(t, []int{502, 503}, g.status("/services/hello/", token))
	require.NoError(t, g.reload(func(c *gateway.Config) { c.DenyTargets = []string{"127.0.0.1:1"} }))
	require.Equal(t, http.StatusOK, g.status("/services/hello/", token))
	require.Error(t, g.reload(func(c *gateway.Config) { c.DenyTargets = []string{"nonsense"} }), "and what is wrong changes nothing")
	require.Equal(t, http.StatusOK, g.status("/services/hello/", token))
}

func TestAnExternalAuthorisationIsNotAWayInside(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	g := w.gate()
	w.named("hello", mirrorOf(t).URL)
	for _, raw := range []string{g.ManagementURL(), g.URL(), strings.Replace(g.ManagementURL(), "127.0.0.1", "localhost", 1), "http://169.254.169.254"} {
		p := anybody
		p.ExternalAuth = &api.ExternalAuth{URL: raw + "/gateway/v1/status", Timeout: "300ms"}
		w.policy("hello", p)
		require.Equal(t, http.StatusServiceUnavailable, g.status("/services/hello/"), raw)
	}
	p := anybody
	p.ExternalAuth = &api.ExternalAuth{URL: "http://169.254.169.254/", FailOpen: true, Timeout: "300ms"}
	w.policy("hello", p)
	require.Equal(t, http.StatusOK, g.status("/services/hello/"), "who wants it open has it open")
}
