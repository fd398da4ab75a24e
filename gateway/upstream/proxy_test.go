package upstream

import (
	"bytes"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/api/gateway"
	"github.com/openmep/mep/kit/netguard"
)

// proxy passes everything on to one address, whatever name is requested, and records the requests.
type proxy struct {
	*httptest.Server
	to     string
	status int // of the response to CONNECT; 0: 200

	mu    sync.Mutex
	asked []string
	auth  string
}

func newProxy(t *testing.T, to string, secured *tls.Config) *proxy {
	_, to, _ = strings.Cut(to, "://")
	p := &proxy{to: to}
	p.Server = httptest.NewUnstartedServer(p)
	if secured != nil {
		p.TLS = secured
		p.StartTLS()
	} else {
		p.Start()
	}
	t.Cleanup(p.Close)
	return p
}

func (p *proxy) log() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	asked := p.asked
	p.asked = nil
	return asked
}

func (p *proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	p.asked = append(p.asked, r.Method+" "+r.RequestURI)
	p.auth = r.Header.Get("Proxy-Authorization")
	p.mu.Unlock()
	if p.status != 0 {
		w.WriteHeader(p.status)
		return
	}
	to, err := net.Dial("tcp", p.to)
	if err != nil {
		w.WriteHeader(http.StatusBadGateway)
		return
	}
	defer to.Close()
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer conn.Close()
	if r.Method == http.MethodConnect {
		_, _ = io.WriteString(conn, "HTTP/1.1 200 Connection established\r\n\r\n")
	} else {
		r.Header.Set("Via", "1.1 proxy")
		r.Header.Set("Connection", "close")
		_ = r.Write(to)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_, _ = io.Copy(to, conn)
		_ = to.(*net.TCPConn).CloseWrite()
	}()
	_, _ = io.Copy(conn, to)
	_ = conn.Close()
	<-ended
}

func TestThroughAProxy(t *testing.T) {
	ca := newAuthority(t)
	via := func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") != "" {
			upgradeTo(w, r)
			return
		}
		_, _ = io.WriteString(w, r.Proto+" "+r.Host+" "+r.Header.Get("Via"))
	}
	plain := serveH2C(t, true, via)
	secured := serveTLS(t, via, func(c *tls.Config) { c.Certificates = []tls.Certificate{ca.issue(t, "cam.example")} })
	for name, proxyTLS := range map[string]*tls.Config{
		"http": nil, "https": {MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{ca.issue(t, "proxy.example")}},
	} {
		toPlain, toSecured := newProxy(t, plain.URL, proxyTLS), newProxy(t, secured.URL, proxyTLS)
		t.Run(name, func(t *testing.T) {
			// The policy refuses the addresses of the proxies, but only applies to targets.
			w := newWorld(t, Config{
				RootCAs: poolOf(ca.cert), Proxy: withUser(toPlain.URL), NoProxy: []string{"10.0.0.0/8", ".direct.example"},
				Guard: func() *netguard.Policy { return &netguard.Policy{} },
			})
			p := w.profile(gateway.Upstream{}, gateway.Timeouts{})
			q := w.profile(gateway.Upstream{Proxy: toSecured.URL}, gateway.Timeouts{})

			require.Equal(t, "HTTP/1.1 cam.example 1.1 proxy", w.get(p, w.endpoints(p, "http://cam.example/"), "/x").body)
			require.Equal(t, []string{"GET http://cam.example/x"}, toPlain.log(), "the proxy gets the request")
			require.Equal(t, "Basic dXNlcjpzZWNyZXQ=", toPlain.auth)

			require.Equal(t, "HTTP/2.0 cam.example:82 ", w.get(p, w.endpoints(p, "h2c://cam.example:82/"), "/x").body)
			require.Equal(t, []string{"CONNECT cam.example:82"}, toPlain.log(), "HTTP/2 needs a tunnel")
			require.Equal(t, "Basic dXNlcjpzZWNyZXQ=", toPlain.auth)

			require.Equal(t, "HTTP/2.0 cam.example ", w.get(q, w.endpoints(q, "https://cam.example/"), "/x").body)
			require.Equal(t, []string{"CONNECT cam.example:443"}, toSecured.log())
			require.Empty(t, toSecured.auth)

			for target, there := range map[string]*proxy{"ws://cam.example/": toPlain, "wss://cam.example/": toSecured} {
				profile := p
				if there == toSecured {
					profile = q
				}
				var a Attempt
				resp, err := w.RoundTrip(upgrade(t), profile, w.endpoints(profile, target), &a)
				require.NoError(t, err)
				require.Equal(t, http.StatusSwitchingProtocols, resp.StatusCode, target)
				require.NoError(t, resp.Body.Close())
				require.Len(t, there.log(), 1)
			}
		})
	}
}

func withUser(raw string) string { return strings.Replace(raw, "://", "://user:secret@", 1) }

func TestWhatIsCalledWithoutTheProxy(t *testing.T) {
	target := named(t, "direct")
	there := newProxy(t, named(t, "by proxy").URL, nil)
	w := newWorld(t, Config{Proxy: there.URL, NoProxy: []string{"192.0.2.0/24", ".near.example", "one.example"}})
	p := w.profile(gateway.Upstream{}, gateway.Timeouts{})
	for url, direct := range map[string]bool{
		"http://192.0.2.1/": true, "http://192.0.3.1/": false, "http://a.near.example/": true, "http://near.example/": false,
		"http://one.example/": true, "http://a.one.example/": true, "http://two.example/": false, "https://two.example/": false,
		"http://127.0.0.1:1/": true, "http://localhost:1/": true,
	} {
		require.Equal(t, !direct, w.endpoints(p, url)[0].lanes.Load().proxied, url)
	}
	require.Equal(t, "by proxy", w.get(p, w.endpoints(p, "http://two.example/"), "/").body)
	require.Equal(t, "direct", w.get(p, w.endpoints(p, target.URL), "/").body)

	none := w.profile(gateway.Upstream{Proxy: "none"}, gateway.Timeouts{})
	require.False(t, w.endpoints(none, "http://two.example/")[0].lanes.Load().proxied)
}

func TestTheProxyOfTheEnvironment(t *testing.T) {
	t.Setenv("HTTP_PROXY", "http://192.0.2.1:3128")
	t.Setenv("HTTPS_PROXY", "192.0.2.2:3128")
	t.Setenv("NO_PROXY", "near.example")
	w := newWorld(t, Config{ProxyFromEnvironment: true})
	p := w.profile(gateway.Upstream{}, gateway.Timeouts{})
	for url, want := range map[string]string{
		"http://a.example/": "http://192.0.2.1:3128", "https://a.example/": "http://192.0.2.2:3128", "http://near.example/": "",
	} {
		l := w.endpoints(p, url)[0].lanes.Load()
		require.Same(t, p.wiring.lanes[want], l, url)
	}
	w = newWorld(t, Config{})
	p = w.profile(gateway.Upstream{}, gateway.Timeouts{})
	require.False(t, w.endpoints(p, "http://a.example/")[0].lanes.Load().proxied, "only if the settings say so")

	t.Setenv("HTTP_PROXY", "socks5://192.0.2.1")
	_, err := New(Config{ProxyFromEnvironment: true}, nil, nil)
	require.ErrorContains(t, err, "environment")
}

func TestTargetsThatAreNotCalledThroughAProxyEither(t *testing.T) {
	there := newProxy(t, named(t, "reached").URL, nil)
	w := newWorld(t, Config{Guard: func() *netguard.Policy { return &netguard.Policy{} }})
	p := w.profile(gateway.Upstream{Proxy: there.URL, Retries: -1, HealthCheck: &gateway.HealthCheck{Path: "/", Interval: "100ms"}}, gateway.Timeouts{})
	for _, url := range []string{
		"http://169.254.169.254/", "https://169.254.169.254/", "h2c://127.0.0.1/", "http://localhost/", "http://a.localhost./", "http://[::1]/",
	} {
		_, err := w.send(p, w.endpoints(p, url), request(t, http.MethodGet, "/", nil))
		var refused *netguard.RefusedError
		require.ErrorAs(t, err, &refused, url)
	}
	eps := w.endpoints(p, "http://169.254.169.254/checked")
	eventually(t, eps[0].unhealthy.Load, "health checks are refused, too")
	require.Empty(t, there.log())
}

func TestAProxyThatDoesNotServe(t *testing.T) {
	refusing := newProxy(t, "http://127.0.0.1:1", nil)
	refusing.status = http.StatusProxyAuthRequired
	silent := acceptor(t, func(c net.Conn) { t.Cleanup(func() { _ = c.Close() }) })
	tells := acceptor(t, func(c net.Conn) {
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\n")
		_ = c.Close()
	})
	endless := acceptor(t, func(c net.Conn) {
		go func() {
			defer c.Close()
			_, _ = c.Write(bytes.Repeat([]byte("x"), maxHeader*2))
		}()
	})
	for name, c := range map[string]struct {
		proxy  string
		status int
		says   string
	}{
		"it refuses the tunnel":         {refusing.URL, http.StatusBadGateway, "407"},
		"nobody is there":               {nobody(t), http.StatusBadGateway, "refused"},
		"it says nothing":               {silent, http.StatusGatewayTimeout, "deadline"},
		"it goes away":                  {tells, http.StatusBadGateway, ""},
		"it sends a header for ever":    {endless, http.StatusBadGateway, ""},
		"it should use TLS, but no TLS": {strings.Replace(refusing.URL, "http", "https", 1), http.StatusBadGateway, "tls"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, Config{})
			p := w.profile(gateway.Upstream{Proxy: c.proxy, Retries: -1}, gateway.Timeouts{Connect: "500ms"})
			body := strings.NewReader("not sent")
			_, err := w.send(p, w.endpoints(p, "https://cam.example/"), request(t, http.MethodPost, "/", body))
			var failed *Error
			require.ErrorAs(t, err, &failed)
			require.Equal(t, c.status, failed.Status, err)
			require.ErrorContains(t, err, c.says)
			require.Equal(t, 8, body.Len(), "nothing was read of the body")
		})
	}
}
