package blackbox

import (
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/tests/harness"
)

// ownAddress is an address of this machine that is not on loopback.
func ownAddress(t *testing.T) string {
	t.Helper()
	addrs, err := net.InterfaceAddrs()
	require.NoError(t, err)
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok && n.IP.To4() != nil && !n.IP.IsLoopback() {
			return n.IP.String()
		}
	}
	t.Skip("this machine has no address besides loopback")
	return ""
}

// opsPaths are the resources of the operations listener that tell more than health and metrics.
var opsPaths = []string{"/notifications", "/debug/pprof/", "/debug/pprof/heap", "/openapi/ops.yaml", "/", "/x"}

func TestOnLoopbackHealthAndMetricsAreOpenAndTheRestIsNot(t *testing.T) {
	t.Parallel()
	p := harness.Start(t, harness.Secure(), harness.Config("log: {level: debug}\n"))
	require.True(t, strings.HasPrefix(p.URL("ops"), "http://127.0.0.1:"), p.URL("ops"))
	ops := p.Unchecked(t)
	at := func(path string) string { return p.URL("ops") + path }
	for _, path := range []string{"/healthz", "/readyz", "/metrics"} {
		ops.Get(at(path)).Is(200)
	}
	for _, path := range append(opsPaths, "/healthz/", "//readyz", "/metrics/x", "/readyz/../notifications", "/healthz%2f..%2fnotifications") {
		a := ops.Get(at(path))
		require.Equal(t, 401, a.Status, path)
		require.Contains(t, a.Header.Get("WWW-Authenticate"), `scope="ops"`)
	}
	app := p.NewApp(t)
	manager := p.Bootstrap(t).Keys
	for _, path := range opsPaths {
		ops.With(app.Token.AccessToken).Get(at(path)).Is(403)
		ops.With(manager.Fetch(p.Auth(t), "mm5").AccessToken).Get(at(path)).Is(403)
	}
	for _, path := range []string{"/debug/pprof/", "/debug/pprof/heap", "/debug/pprof/cmdline"} {
		ops.With(manager.Fetch(p.Auth(t), "ops").AccessToken).Get(at(path)).Is(404)
	}
	for path, listener := range map[string]string{"/metrics": "mp1", "/readyz": "mp1", "/healthz": "auth"} {
		require.NotEqual(t, 200, ops.Get(p.URL(listener)+path).Status)
	}
}

func TestFromElsewhereTheOperationsListenerNeedsAToken(t *testing.T) {
	t.Parallel()
	host := ownAddress(t)
	p := harness.Start(t, harness.Secure(), harness.Args("--ops-listen=0.0.0.0:0", "--tls-names="+host))
	require.True(t, strings.HasPrefix(p.URL("ops"), "https://"), p.URL("ops"))
	_, port, err := net.SplitHostPort(p.Addr("ops"))
	require.NoError(t, err)
	remote := "https://" + net.JoinHostPort(host, port)
	c := p.Unchecked(t)
	app := p.NewApp(t)
	ops := p.Bootstrap(t).Fetch(p.Auth(t), "ops").AccessToken
	for _, path := range append([]string{"/healthz", "/readyz", "/metrics"}, opsPaths...) {
		a := c.Get(remote + path)
		require.Equal(t, 401, a.Status, path)
		for _, name := range []string{"X-Forwarded-For", "X-Real-IP", "Forwarded"} {
			require.Equal(t, 401, c.Get(remote+path, harness.Header(name, "127.0.0.1")).Status, path)
		}
		require.Equal(t, 401, c.Get(remote+path, func(r *http.Request) { r.Host = "localhost" }).Status)
		require.Equal(t, 403, c.With(app.Token.AccessToken).Get(remote+path).Status, path)
	}
	for _, path := range []string{"/healthz", "/readyz", "/metrics"} {
		c.With(ops).Get(remote + path).Is(200)
		c.Get(p.URL("ops") + path).Is(200) // by way of loopback
	}
	out := harness.Run(t, "mep", []string{"healthcheck", "--ops-listen", "0.0.0.0:" + port})
	require.Zero(t, out.Code, out.Output)
}
