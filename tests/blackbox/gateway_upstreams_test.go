package blackbox

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/tests/harness"
)

func TestTargetsAreReachedWithTLS(t *testing.T) {
	t.Parallel()
	ours, theirs, others := newAuthority(t, "gateways"), newAuthority(t, "producers"), newAuthority(t, "others")
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = fmt.Fprintf(w, "%s %s", r.TLS.ServerName, r.TLS.PeerCertificates[0].Subject.CommonName)
	}))
	pool := x509.NewCertPool()
	pool.AddCert(ours.cert)
	certificate := theirs.pair(t, "producer", func(c *x509.Certificate) { c.DNSNames, c.IPAddresses = []string{"producer.example"}, nil })
	server.TLS = &tls.Config{ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool, Certificates: []tls.Certificate{certificate.load(t)}}
	server.Config.ErrorLog = log.New(io.Discard, "", 0) // refused handshakes are what it is about
	server.StartTLS()
	t.Cleanup(server.Close)
	mine := ours.pair(t, "edge-7", nil)
	p := harness.Start(t, harness.Config(fmt.Sprintf("gateway: {clientCertificates: [{name: mine, cert: %s, key: %s}]}\n", mine.cert, mine.key)))
	m, c := p.GatewayManagement(t), p.Gateway(t)
	to := func(upstream object) {
		route(m, "tls", object{"paths": []any{"/tls"}, "urls": []any{server.URL}, "policy": object{"upstream": but(upstream, "ejectAfter", -1)}})
	}
	good := object{"ca": string(written(t, theirs.file)), "clientCertificate": "mine", "serverName": "producer.example"}
	to(good)
	require.Equal(t, "producer.example edge-7", string(c.Get("/tls").Is(200).Body))
	for name, bad := range map[string]object{
		"by the system's CAs":       but(good, "ca", nil),
		"by another CA":             but(good, "ca", string(written(t, others.file))),
		"of another name":           but(good, "serverName", "other.example"),
		"of the URL":                but(good, "serverName", nil),
		"without one of the client": but(good, "clientCertificate", nil),
	} {
		t.Run(name, func(t *testing.T) {
			to(bad)
			require.NotContains(t, p.Gateway(t).Get("/tls").Problem(502).Detail, "127.0.0.1")
		})
	}
	unknown := m.Put(gatewayRoot+"/routes/unknown", object{"paths": []any{"/u"}, "urls": []any{server.URL}, "policy": object{"upstream": object{"clientCertificate": "nobody's"}}})
	if unknown.Status < 300 {
		require.Contains(t, unknown.Object()["refused"], "nobody's", "it is stored, but not used")
	}
	to(good)
	require.Equal(t, "producer.example edge-7", string(c.Get("/tls").Is(200).Body))
}

func TestTargetsAreReachedThroughAProxy(t *testing.T) {
	t.Parallel()
	producer := harness.NewProducer(t, "hello", nil)
	secure := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "through a tunnel") }))
	t.Cleanup(secure.Close)
	ca := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: secure.Certificate().Raw}))
	var asked atomic.Int64
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		if r.Method != http.MethodConnect { // of a request without TLS
			if !r.URL.IsAbs() {
				w.WriteHeader(400)
				return
			}
			r.RequestURI, r.URL.Host = "", producer.Listener.Addr().String()
			resp, err := http.DefaultTransport.RoundTrip(r)
			if err != nil {
				w.WriteHeader(502)
				return
			}
			defer resp.Body.Close()
			w.WriteHeader(resp.StatusCode)
			_, _ = io.Copy(w, resp.Body)
			return
		}
		up, err := net.Dial("tcp", secure.Listener.Addr().String())
		if err != nil {
			w.WriteHeader(502)
			return
		}
		defer up.Close()
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer conn.Close()
		_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\n\r\n")
		go func() { _, _ = io.Copy(up, conn) }()
		_, _ = io.Copy(conn, up)
	}))
	t.Cleanup(proxy.Close)
	p := harness.Start(t, harness.Config("gateway: {proxy: \""+proxy.URL+"\", noProxy: [bypassed.example]}\n"))
	m, c := p.GatewayManagement(t), p.Gateway(t)
	const far = "http://producer.example:8080"
	route(m, "through", object{"paths": []any{"/through"}, "urls": []any{far}})
	route(m, "tunnel", object{"paths": []any{"/tunnel"}, "urls": []any{"https://example.com"}, "policy": object{"upstream": object{"ca": ca}}})
	route(m, "bypassed", object{"paths": []any{"/bypassed"}, "urls": []any{"http://bypassed.example"}})
	route(m, "direct", object{"paths": []any{"/direct"}, "urls": []any{far}, "policy": object{"upstream": object{"proxy": "none"}}})
	route(m, "local", object{"paths": []any{"/local"}, "urls": []any{producer.URL}})
	c.Get("/through").Seen()
	require.EqualValues(t, 1, asked.Load())
	require.Equal(t, "through a tunnel", string(c.Get("/tunnel").Is(200).Body))
	require.EqualValues(t, 2, asked.Load())
	c.Get("/bypassed").Problem(502)
	c.Get("/direct").Problem(502)
	c.Get("/local").Seen() // what is on this machine is not reached through another one
	route(m, "self", object{"paths": []any{"/self"}, "urls": []any{p.URL("gateway-management")}})
	c.Get("/self").Problem(502) // nor does a proxy lead to the platform itself
	require.EqualValues(t, 2, asked.Load())
	proxy.CloseClientConnections()
	proxy.Close()
	c.Get("/through").Problem(502)
	c.Get("/local").Seen()
}

// The gateway is one of many who go in and out of a machine: nobody but the platform's own proxies is believed where a call comes from.
func TestProxiesThatAreTrustedSayWhereCallsComeFrom(t *testing.T) {
	t.Parallel()
	p, _ := offering(t, nil, harness.Args("--proxies=127.0.0.8/32"))
	policy(p.GatewayManagement(t), "hello", object{"rules": []any{object{"effect": "deny", "sources": []any{"192.0.2.0/24"}}}})
	from := func(address, chain string) *harness.Answer {
		return p.GatewayFrom(t, address).Get("/services/hello/", harness.Header("X-Forwarded-For", chain), harness.Header("X-Forwarded-Proto", "https"))
	}
	from("127.0.0.8", "192.0.2.7").Problem(403)
	from("127.0.0.8", "198.51.100.1, 192.0.2.7, 127.0.0.8").Problem(403)
	from("127.0.0.8", "192.0.2.7, 198.51.100.1").Seen() // what is said before the last one that is trusted may be made up
	from("127.0.0.9", "192.0.2.7").Seen()
	seen := from("127.0.0.8", "198.51.100.1").Seen()
	require.Equal(t, []string{"198.51.100.1, 127.0.0.8"}, seen.Names("X-Forwarded-For"))
	require.True(t, strings.HasPrefix(seen.Names("X-Real-IP")[0], "198.51.100.1"))
	require.Equal(t, []string{"127.0.0.9"}, from("127.0.0.9", "192.0.2.7").Seen().Names("X-Forwarded-For"))
}

func TestServicesOfAllNamesAndEndpointsAreReached(t *testing.T) {
	t.Parallel()
	producer := harness.NewProducer(t, "hello", nil)
	p := harness.Start(t)
	c, a := p.Gateway(t), newApp(p.Client(t))
	m := p.GatewayManagement(t)
	for i, name := range []string{"my service", "grüße", "a+b", "a?b=c", "a;b=c", "a:b@c", "100%", "a&b", "~!$'()*,", "..a", "\"quoted\"", "日本"} {
		a.register(served(name, fmt.Sprintf("%s/%d", producer.URL, i)))
		require.Equal(t, fmt.Sprintf("/%d/x", i), reached(t, c, "/services/"+url.PathEscape(name)+"/x").Path, name)
		policy(m, name, object{"default": "deny"})
		c.Get("/services/" + url.PathEscape(name) + "/x").Problem(403)
		m.Delete(gatewayRoot + "/policies/" + url.PathEscape(name)).Is(204)
		c.Get("/services/" + url.PathEscape(name) + "/x").Seen()
	}
	for _, name := range []string{"a/b", "..", ".", `a\b`} { // in no path of a URL can they be told from what they are not
		svc := a.register(served(name, producer.URL))
		reached(t, c, "/instances/"+svc.id+"/")
		c.Get("/services/" + url.PathEscape(name) + "/").Problem(400)
	}
	host, port, err := net.SplitHostPort(producer.Listener.Addr().String())
	require.NoError(t, err)
	number, err := strconv.Atoi(port)
	require.NoError(t, err)
	with := func(members object) object {
		info := served("endpoint", producer.URL)
		t := info["transportInfo"].(object)
		for name, value := range members {
			t = but(t, name, value)
		}
		return but(info, "transportInfo", t)
	}
	for name, x := range map[string]struct {
		members object
		status  int
		path    string
	}{
		"addresses":            {object{"endpoint": object{"addresses": []any{object{"host": host, "port": number}}}}, 200, "/x"},
		"several URIs":         {object{"endpoint": object{"uris": []any{producer.URL + "/a", producer.URL + "/a/"}}}, 200, "/a/x"},
		"one of them unusable": {object{"endpoint": object{"uris": []any{"ftp://192.0.2.1/", producer.URL}}}, 200, "/x"},
		"a queue":              {object{"type": "MB_TOPIC_BASED", "protocol": "AMQP", "endpoint": object{"addresses": []any{object{"host": host, "port": number}}}}, 404, ""},
		"something else":       {object{"endpoint": object{"alternative": object{"how": "by mail"}}}, 404, ""},
	} {
		t.Run(name, func(t *testing.T) {
			a, c := newApp(p.Client(t)), p.Gateway(t)
			svc := a.register(with(x.members))
			answer := answered(t, c, x.status, "/instances/"+svc.id+"/x")
			if x.status == 200 {
				require.Equal(t, x.path, answer.Seen().Path)
			}
			a.remove(svc.id)
			answered(t, c, 404, "/instances/"+svc.id+"/x")
		})
	}
	for name, uri := range map[string]string{
		"a password": strings.Replace(producer.URL, "://", "://user:secret@", 1), "a query": producer.URL + "/?key=secret", "a fragment": producer.URL + "/#x",
	} {
		t.Run(name, func(t *testing.T) {
			a, c := newApp(p.Client(t)), p.Gateway(t)
			answer := a.Post(a.services(), served("strange", uri))
			if answer.Status != 201 {
				answer.Problem(400)
				return
			}
			id := answer.Object()["serInstanceId"].(string)
			harness.Eventually(t, "the gateway knows the service", func() error {
				got := c.Get("/instances/" + id + "/x?a=b")
				if got.Status == 404 {
					return harness.Not(false, "it does not")
				}
				if got.Status == 200 {
					require.Contains(t, got.Seen().Query, "a=b")
				}
				return nil
			})
			defer a.remove(id)
			require.NotContains(t, string(p.GatewayManagement(t).Get(gatewayRoot+"/upstreams").Is(200).Body), "user:secret")
		})
	}
}
