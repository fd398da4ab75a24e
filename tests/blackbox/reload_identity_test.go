package blackbox

import (
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"sync/atomic"
	"testing"

	"github.com/golang-jwt/jwt/v5"
	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/kit/etcdtest"
	"github.com/openmep/mep/tests/harness"
)

// published is an issuer whose keys are at a URL.
func published(t *testing.T, i *issuer, more string) (config string, fetches *atomic.Int64) {
	t.Helper()
	fetches = new(atomic.Int64)
	keys := i.jwks(t)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fetches.Add(1)
		_, _ = w.Write(keys)
	}))
	t.Cleanup(server.Close)
	return fmt.Sprintf("auth: {issuers: [{issuer: %q, jwksUrl: %q%s}]}\n", i.name, server.URL, more), fetches
}

const noIssuers = "auth: {issuers: []}\n"

func TestIssuersComeAndGoWithoutARestart(t *testing.T) {
	t.Parallel()
	i, next := newIssuer(t), newIssuer(t)
	config, fetches := published(t, i, "")
	changed, _ := published(t, next, "")
	p := harness.Start(t, harness.Secure(), toLoopback(), harness.Config(noIssuers))
	offers, _ := appOf(t, p)
	offers.register(served("hello", harness.NewProducer(t, "hello", nil).URL))
	id := harness.Provision(p.Manager(t), nil).AppInstanceID
	token := i.sign(t, jwt.SigningMethodES256, i.ec, i.good(id), object{"kid": "ec"})
	a := app{Client: p.Client(t).With(token), id: id}
	mp1, service := p.Mp1AtGateway(t).With(token), p.Gateway(t).With(token)
	refused := func() {
		t.Helper()
		unauthenticated(t, a.Get(a.services()), "invalid_token")
		unauthenticated(t, mp1.Get(services), "invalid_token")
		unauthenticated(t, service.Get("/services/hello/"), "invalid_token")
		offers.Get(offers.services()).Is(200)
	}
	taken := func() {
		t.Helper()
		a.Get(a.services()).Is(200)
		mp1.Get(services).Is(200)
		require.Equal(t, []string{id}, service.Get("/services/hello/").Seen().Names("X-AppInstanceID"))
		offers.Get(offers.services()).Is(200)
	}
	refused()
	for round := range 3 {
		require.True(t, p.Reload(config))
		taken()
		require.True(t, p.Reload(config+"limits: {services: 7}\n"))
		taken()
		require.EqualValues(t, round+1, fetches.Load(), "an issuer that stays keeps its keys")
		require.True(t, p.Reload(noIssuers))
		refused()
	}
	require.True(t, p.Reload(config))
	taken()
	require.True(t, p.Reload(changed), "the same issuer, with other keys")
	refused()
	token = next.sign(t, jwt.SigningMethodES256, next.ec, next.good(id), object{"kid": "ec"})
	a.Client, mp1, service = p.Client(t).With(token), p.Mp1AtGateway(t).With(token), p.Gateway(t).With(token)
	taken()

	own := claims(t, p.NewApp(t).Token.AccessToken)["iss"].(string)
	for says, bad := range map[string]string{
		"auth.issuers[0]: keys of the issuer x: open /nonexistent/jwks.json": "auth: {issuers: [{issuer: x, jwksFile: /nonexistent/jwks.json}]}\n",
		"is not a JWK set":                   "auth: {issuers: [{issuer: x, jwksFile: " + file(t, "jwks.json", "hello") + "}]}\n",
		"the name of the platform's own":     "auth: {issuers: [{issuer: '" + own + "', jwksUrl: 'https://127.0.0.1:1/'}]}\n",
		"auth.leeway must be":                noIssuers + "auth.leeway: 1h\n",
		"proxies: \\\"here\\\" is not a net": noIssuers + "proxies: [here]\n",
		"gateway.denyTargets":                noIssuers + "gateway: {denyTargets: [nowhere]}\n",
	} {
		require.False(t, p.Reload(bad), says)
		require.Contains(t, p.Log(), says)
		taken()
	}
}

func TestEveryProgramFollowsItsIssuersWithoutARestart(t *testing.T) {
	t.Parallel()
	i := newIssuer(t)
	config, _ := published(t, i, ", scopes: [mp1, mm5]")
	etcd := etcdtest.Start(t)
	token := i.sign(t, jwt.SigningMethodES256, i.ec, with(i.good("mepm"), "scope", "mp1 mm5"), object{"kid": "ec"})
	for name, x := range map[string]struct {
		start func(testing.TB, string, ...harness.Option) *harness.Process
		call  func(*testing.T, *harness.Process) *harness.Answer
	}{
		"mepserver": {harness.StartMepserver, func(t *testing.T, p *harness.Process) *harness.Answer { return p.Client(t).With(token).Get(services) }},
		"mepauth": {harness.StartMepauth, func(t *testing.T, p *harness.Process) *harness.Answer {
			return p.Auth(t).With(token).Get("/mep/appMng/v1/applications")
		}},
		"dnsagent": {harness.StartDNSAgent, func(t *testing.T, p *harness.Process) *harness.Answer {
			return p.DNSManagement(t).With(token).Get(dnsRoot + "/upstreams")
		}},
		"gateway": {harness.StartGateway, func(t *testing.T, p *harness.Process) *harness.Answer {
			return p.GatewayManagement(t).With(token).Get(gatewayRoot + "/status")
		}},
	} {
		t.Run(name, func(t *testing.T) {
			p := x.start(t, etcd.Endpoint(), harness.Config(noIssuers))
			require.Equal(t, 401, x.call(t, p).Status)
			require.True(t, p.Reload(config))
			x.call(t, p).Is(200)
			require.True(t, p.Reload(noIssuers))
			require.Equal(t, 401, x.call(t, p).Status)
		})
	}
}

func TestRulesForCertificatesChangeOnConnectionsThatAreOpen(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t, "apps")
	config := func(uri string) string {
		return fmt.Sprintf("tls: {clientCAs: [%s]}\nauth: {clientCertificates: [{uri: '%s', scopes: [mp1]}]}\n", ca.file, uri)
	}
	const ours = "spiffe://mep.example/app/{caller}"
	p := harness.Start(t, harness.Secure(), harness.Config(config(ours)))
	id := harness.Provision(p.Manager(t), nil).AppInstanceID
	for _, listener := range []string{"mp1", "gateway"} {
		settings, err := p.TLS()
		require.NoError(t, err)
		settings.Certificates = []tls.Certificate{ca.pair(t, "app", named(t, "spiffe://mep.example/app/"+id)).load(t)}
		transport := &http.Transport{TLSClientConfig: settings}
		t.Cleanup(transport.CloseIdleConnections)
		c := &http.Client{Transport: transport, Timeout: harness.Patience}
		first := true
		call := func(want int) {
			t.Helper()
			reused := false
			ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{GotConn: func(i httptrace.GotConnInfo) { reused = i.Reused }})
			r, err := http.NewRequestWithContext(ctx, http.MethodGet, p.URL(listener)+root+"/applications/"+id+"/services", nil)
			require.NoError(t, err)
			resp, err := c.Do(r)
			require.NoError(t, err)
			rest, err := io.ReadAll(resp.Body) // so that the connection can be used again
			require.NoError(t, err)
			require.NoError(t, resp.Body.Close())
			require.Equal(t, want, resp.StatusCode, "%s: %s", listener, rest)
			require.Equal(t, !first, reused)
			first = false
		}
		call(200)
		require.True(t, p.Reload(config("spiffe://mep.example/other/{caller}")))
		call(401)
		require.True(t, p.Reload(config(ours)))
		call(200)
	}
}

func TestProxiesChangeWithoutARestart(t *testing.T) {
	t.Parallel()
	config := func(proxy string) string { return "proxies: [" + proxy + "/32]\n" }
	p := harness.Start(t, harness.Secure(), generous(), harness.Config(config("127.0.0.98")))
	keys := harness.Provision(p.Manager(t), object{"authInfo": object{"bindClientAddress": true}})
	token := keys.Fetch(p.AuthFrom(t, "127.0.0.5")).AccessToken
	said := harness.Header("X-Forwarded-For", "127.0.0.5")
	bound := func(c *harness.Client) any {
		var made harness.Token
		c.Post("/oauth2/token", harness.Form("grant_type", "client_credentials"), harness.AsForm(), keys.Basic(), said).Is(200).Into(&made)
		return claims(t, made.AccessToken)["clientip"]
	}
	believed := func(proxy string) map[string]bool {
		return map[string]bool{
			"mp1":     p.ClientFrom(t, proxy).With(token).Get(services, said).Status == 200,
			"gateway": p.GatewayFrom(t, proxy).With(token).Get(services, said).Status == 200,
			"auth":    bound(p.AuthFrom(t, proxy)) == "127.0.0.5",
		}
	}
	all, none := map[string]bool{"mp1": true, "gateway": true, "auth": true}, map[string]bool{"mp1": false, "gateway": false, "auth": false}
	require.Equal(t, all, believed("127.0.0.98"))
	require.Equal(t, none, believed("127.0.0.99"))
	for range 2 {
		require.True(t, p.Reload(config("127.0.0.99")))
		require.Equal(t, none, believed("127.0.0.98"))
		require.Equal(t, all, believed("127.0.0.99"))
		require.True(t, p.Reload(config("127.0.0.98")))
		require.Equal(t, all, believed("127.0.0.98"))
		require.Equal(t, none, believed("127.0.0.99"))
	}
	require.False(t, p.Reload(config("127.0.0.99")+"gateway: {denyTargets: [nowhere]}\n"))
	require.Equal(t, all, believed("127.0.0.98"), "all or nothing")
	require.Equal(t, none, believed("127.0.0.99"))
}
