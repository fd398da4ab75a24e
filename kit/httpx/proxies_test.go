package httpx_test

import (
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"github.com/gin-gonic/gin"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/kit/httpx"
)

// telling returns a router that responds with the address of the client.
func telling(p *httpx.Proxies) http.Handler {
	limits := httpx.Limits{}.WithDefaults()
	r := httpx.NewRouter("test", slog.New(slog.DiscardHandler), httpx.NewMetrics(prometheus.NewRegistry()), func() httpx.Limits { return limits })
	if p != nil {
		httpx.TrustProxies(r, p)
	}
	r.GET("/", func(c *gin.Context) { c.String(http.StatusOK, httpx.ClientAddr(c).String()) })
	return r
}

func trusting(tb testing.TB, networks ...string) *httpx.Proxies {
	tb.Helper()
	p := &httpx.Proxies{}
	apply, err := p.Prepare(networks)
	require.NoError(tb, err)
	apply()
	return p
}

// clientOf returns the address that the router takes for the client's.
func clientOf(tb testing.TB, h http.Handler, remote string, fields http.Header) string {
	tb.Helper()
	req := httptest.NewRequestWithContext(tb.Context(), http.MethodGet, "/", nil)
	req.RemoteAddr = remote
	maps.Copy(req.Header, fields)
	rec := httptest.NewRecorder()
	h.ServeHTTP(rec, req)
	require.Equal(tb, http.StatusOK, rec.Code)
	return rec.Body.String()
}

func TestProxiesSayWhoTheClientIs(t *testing.T) {
	h := telling(trusting(t, "10.0.0.0/8", "fd00::/8", "::ffff:192.168.0.0/112"))
	forwarded := func(values ...string) http.Header { return http.Header{"X-Forwarded-For": values} }
	for name, c := range map[string]struct {
		remote string
		fields http.Header
		want   string
	}{
		"who is no proxy":                  {"192.0.2.1:1", forwarded("198.51.100.1"), "192.0.2.1"},
		"who is no proxy, real IP":         {"192.0.2.1:1", http.Header{"X-Real-Ip": {"198.51.100.1"}}, "192.0.2.1"},
		"a proxy":                          {"10.0.0.1:1", forwarded("198.51.100.1"), "198.51.100.1"},
		"a proxy in IPv6":                  {"[fd00::1]:1", forwarded("2001:db8::1"), "2001:db8::1"},
		"a proxy as a mapped address":      {"[::ffff:10.0.0.1]:1", forwarded("198.51.100.1"), "198.51.100.1"},
		"a proxy of a mapped network":      {"192.168.0.1:1", forwarded("198.51.100.1"), "198.51.100.1"},
		"a proxy that says nothing":        {"10.0.0.1:1", nil, "10.0.0.1"},
		"what the client made up":          {"10.0.0.1:1", forwarded("203.0.113.9, 198.51.100.1"), "198.51.100.1"},
		"what the client made up, a proxy": {"10.0.0.1:1", forwarded("10.9.9.9, 198.51.100.1"), "198.51.100.1"},
		"a chain of proxies":               {"10.0.0.1:1", forwarded("203.0.113.9, 198.51.100.1, 10.0.0.3,10.0.0.2"), "198.51.100.1"},
		"a chain in several fields":        {"10.0.0.1:1", forwarded("203.0.113.9", "198.51.100.1, 10.0.0.3", "10.0.0.2"), "198.51.100.1"},
		"nobody but proxies":               {"10.0.0.1:1", forwarded("10.0.0.4, 10.0.0.3"), "10.0.0.4"},
		"with a port":                      {"10.0.0.1:1", forwarded("198.51.100.1:4711"), "198.51.100.1"},
		"with a port in IPv6":              {"10.0.0.1:1", forwarded("[2001:db8::1]:4711"), "2001:db8::1"},
		"with a zone":                      {"10.0.0.1:1", forwarded("fe80::1%eth0"), "fe80::1"},
		"a mapped address":                 {"10.0.0.1:1", forwarded("::ffff:198.51.100.1"), "198.51.100.1"},
		"no address":                       {"10.0.0.1:1", forwarded("unknown"), "10.0.0.1"},
		"no address before a proxy":        {"10.0.0.1:1", forwarded("198.51.100.1, unknown, 10.0.0.2"), "10.0.0.2"},
		"real IP":                          {"10.0.0.1:1", http.Header{"X-Real-Ip": {"198.51.100.1"}}, "198.51.100.1"},
		"real IP beside no address":        {"10.0.0.1:1", http.Header{"X-Forwarded-For": {"unknown"}, "X-Real-Ip": {"198.51.100.1"}}, "198.51.100.1"},
		"real IP beside an address":        {"10.0.0.1:1", http.Header{"X-Forwarded-For": {"198.51.100.1"}, "X-Real-Ip": {"203.0.113.9"}}, "198.51.100.1"},
		"real IP that is none":             {"10.0.0.1:1", http.Header{"X-Real-Ip": {"me"}}, "10.0.0.1"},
		"a connection with a zone":         {"[fe80::1%eth0]:1", nil, "fe80::1"},
		"a connection without an address":  {"@", nil, "::"},
	} {
		t.Run(name, func(t *testing.T) { require.Equal(t, c.want, clientOf(t, h, c.remote, c.fields)) })
	}
	for name, h := range map[string]http.Handler{"none were named": telling(nil), "the zero value": telling(&httpx.Proxies{}), "an empty list": telling(trusting(t))} {
		require.Equal(t, "10.0.0.1", clientOf(t, h, "10.0.0.1:1", forwarded("198.51.100.1")), name)
	}
}

func TestProxiesChangeWhileRequestsAreServed(t *testing.T) {
	p := trusting(t, "10.0.0.0/8")
	h := telling(p)
	fields := http.Header{"X-Forwarded-For": {"198.51.100.1"}}
	_, err := p.Prepare([]string{"192.0.2.0/24", "nowhere"})
	require.ErrorContains(t, err, `"nowhere" is not a network`)
	apply, err := p.Prepare([]string{"192.0.2.0/24"})
	require.NoError(t, err)
	require.Equal(t, "198.51.100.1", clientOf(t, h, "10.0.0.1:1", fields), "what is prepared is not in force yet")

	var busy sync.WaitGroup
	for range 4 {
		busy.Go(func() {
			for range 500 {
				req := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)
				req.RemoteAddr, req.Header = "10.0.0.1:1", fields
				rec := httptest.NewRecorder()
				h.ServeHTTP(rec, req)
				if got := rec.Body.String(); got != "198.51.100.1" && got != "10.0.0.1" {
					t.Errorf("the client is %s", got)
				}
			}
		})
	}
	apply()
	require.Equal(t, "10.0.0.1", clientOf(t, h, "10.0.0.1:1", fields))
	require.Equal(t, "198.51.100.1", clientOf(t, h, "192.0.2.1:1", fields))
	busy.Wait()
}

// FuzzForwardedFor checks that the client always has an address, and is the last hop if that is no proxy.
func FuzzForwardedFor(f *testing.F) {
	for _, s := range []string{"198.51.100.1", "10.0.0.1, 198.51.100.1:80", "[fd00::1]:1,10.0.0.2", "::ffff:10.0.0.1", ",,", "fe80::1%x, 10.0.0.1"} {
		f.Add(s, s)
	}
	h := telling(trusting(f, "10.0.0.0/8"))
	own := netip.MustParsePrefix("10.0.0.0/8")
	f.Fuzz(func(t *testing.T, chain, realIP string) {
		got, err := netip.ParseAddr(clientOf(t, h, "10.0.0.1:1", http.Header{"X-Forwarded-For": {chain}, "X-Real-Ip": {realIP}}))
		require.NoError(t, err)
		require.Empty(t, got.Zone())
		require.False(t, got.Is4In6())
		last := chain[strings.LastIndexByte(chain, ',')+1:]
		if a, err := netip.ParseAddr(strings.TrimSpace(last)); err == nil && !own.Contains(a.Unmap()) {
			require.Equal(t, a.WithZone("").Unmap(), got, "the last one that is no proxy")
		}
	})
}
