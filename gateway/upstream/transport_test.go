package upstream

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/api/gateway"
)

func TestTLSIsVerifiedWithTheCAOfTheProfile(t *testing.T) {
	s := serveTLS(t, func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.Proto) }, nil)
	w := newWorld(t, Config{})
	p := w.profile(gateway.Upstream{CA: caOf(s)}, gateway.Timeouts{})
	require.Equal(t, "HTTP/2.0", w.get(p, w.endpoints(p, s.URL), "/").body)

	for name, cfg := range map[string]Config{"the system's": {}, "another one": {RootCAs: poolOf(newAuthority(t).cert)}} {
		w := newWorld(t, cfg)
		p := w.profile(gateway.Upstream{Retries: -1}, gateway.Timeouts{})
		_, err := w.send(p, w.endpoints(p, s.URL), request(t, http.MethodGet, "/", nil))
		var failed *Error
		require.ErrorAs(t, err, &failed, name)
		require.Equal(t, http.StatusBadGateway, failed.Status)
		require.NotContains(t, failed.Detail, "127.0.0.1")
		require.ErrorContains(t, err, "certificate")
	}

	w = newWorld(t, Config{RootCAs: poolOf(s.Certificate())})
	p = w.profile(gateway.Upstream{}, gateway.Timeouts{})
	require.Equal(t, "HTTP/2.0", w.get(p, w.endpoints(p, s.URL), "/").body, "the CAs of the settings")
}

func TestTheNameOfTheServer(t *testing.T) {
	ca := newAuthority(t)
	heard := make(chan string, 8)
	s := serveTLS(t, func(http.ResponseWriter, *http.Request) {}, func(c *tls.Config) {
		c.Certificates = []tls.Certificate{ca.issue(t, "cam.example", "localhost")}
		c.GetConfigForClient = func(h *tls.ClientHelloInfo) (*tls.Config, error) {
			heard <- h.ServerName
			return nil, nil
		}
	})
	w := newWorld(t, Config{RootCAs: poolOf(ca.cert)})
	p := w.profile(gateway.Upstream{}, gateway.Timeouts{})
	w.get(p, w.endpoints(p, at(s.URL, "localhost")), "/")
	require.Equal(t, "localhost", <-heard)

	p = w.profile(gateway.Upstream{ServerName: "cam.example"}, gateway.Timeouts{})
	w.get(p, w.endpoints(p, s.URL), "/")
	require.Equal(t, "cam.example", <-heard)

	p = w.profile(gateway.Upstream{ServerName: "other.example", Retries: -1}, gateway.Timeouts{})
	_, err := w.send(p, w.endpoints(p, s.URL), request(t, http.MethodGet, "/", nil))
	require.ErrorContains(t, err, "other.example")
}

func TestAClientCertificateIsShown(t *testing.T) {
	ca := newAuthority(t)
	s := serveTLS(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, r.TLS.PeerCertificates[0].Subject.CommonName)
	}, func(c *tls.Config) {
		c.ClientAuth, c.ClientCAs = tls.RequireAndVerifyClientCert, poolOf(ca.cert)
	})
	w := newWorld(t, Config{
		RootCAs: poolOf(s.Certificate()), ClientCertificates: map[string]tls.Certificate{"mine": ca.issue(t, "gateway")},
	})
	p := w.profile(gateway.Upstream{ClientCertificate: "mine"}, gateway.Timeouts{})
	require.Equal(t, "gateway", w.get(p, w.endpoints(p, s.URL), "/").body)

	p = w.profile(gateway.Upstream{Retries: -1}, gateway.Timeouts{})
	_, err := w.send(p, w.endpoints(p, s.URL), request(t, http.MethodGet, "/", nil))
	require.Error(t, err)
}

// serveH2C starts a server for HTTP/2 without TLS, and optionally for HTTP/1.1.
func serveH2C(t *testing.T, http1 bool, h http.HandlerFunc) *httptest.Server {
	s := httptest.NewUnstartedServer(h)
	s.Config.Protocols = new(http.Protocols)
	s.Config.Protocols.SetUnencryptedHTTP2(true)
	s.Config.Protocols.SetHTTP1(http1)
	s.Start()
	t.Cleanup(s.Close)
	return s
}

func TestHTTP2WithoutTLS(t *testing.T) {
	s := serveH2C(t, true, func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.Proto+" "+r.Host+r.URL.Path) })
	host := strings.TrimPrefix(s.URL, "http://")
	w := newWorld(t, Config{})
	p := w.profile(gateway.Upstream{}, gateway.Timeouts{})
	for scheme, proto := range map[string]string{"http": "HTTP/1.1", "ws": "HTTP/1.1", "h2c": "HTTP/2.0", "grpc": "HTTP/2.0"} {
		require.Equal(t, proto+" "+host+"/base/x", w.get(p, w.endpoints(p, scheme+"://"+host+"/base"), "/x").body, scheme)
	}
	r := request(t, http.MethodPost, "/pkg.Service/Method", nil)
	r.Header.Set("Content-Type", "application/grpc+proto")
	a, err := w.send(p, w.endpoints(p, s.URL), r)
	require.NoError(t, err)
	require.Equal(t, "HTTP/1.1 "+host+"/pkg.Service/Method", a.body, "the URL says what is spoken, and not the client")
}

// TestStreamsInBothDirections answers each message before the next one is sent, and ends with trailers, as gRPC does.
func TestStreamsInBothDirections(t *testing.T) {
	echo := func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Trailer", "Grpc-Status")
		w.WriteHeader(http.StatusOK)
		flush := http.NewResponseController(w)
		_ = flush.Flush()
		lines := bufio.NewScanner(r.Body)
		for lines.Scan() {
			_, _ = fmt.Fprintf(w, "%s %s\n", r.Proto, lines.Text())
			_ = flush.Flush()
		}
		w.Header().Set("Grpc-Status", "0")
	}
	plain := serveH2C(t, false, echo)
	secured := serveTLS(t, echo, nil)
	w := newWorld(t, Config{RootCAs: poolOf(secured.Certificate())})
	p := w.profile(gateway.Upstream{}, gateway.Timeouts{})
	for name, target := range map[string]string{"without TLS": strings.Replace(plain.URL, "http", "h2c", 1), "with TLS": strings.Replace(secured.URL, "https", "grpcs", 1)} {
		t.Run(name, func(t *testing.T) {
			body, out := io.Pipe()
			r := request(t, http.MethodPost, "/s/m", body)
			r.Header.Set("Content-Type", "application/grpc")
			eps := w.endpoints(p, target)
			var a Attempt
			resp, err := w.RoundTrip(r, p, eps, &a)
			require.NoError(t, err)
			require.EqualValues(t, 1, eps[0].View().Active)
			in := bufio.NewReader(resp.Body)
			for i := range 10 {
				_, err := fmt.Fprintf(out, "message %d\n", i)
				require.NoError(t, err)
				line, err := in.ReadString('\n')
				require.NoError(t, err)
				require.Equal(t, fmt.Sprintf("HTTP/2.0 message %d\n", i), line)
			}
			require.NoError(t, out.Close())
			_, err = in.ReadByte()
			require.ErrorIs(t, err, io.EOF)
			require.Equal(t, "0", resp.Trailer.Get("Grpc-Status"))
			require.NoError(t, resp.Body.Close())
			require.Zero(t, eps[0].View().Active)
		})
	}
}

// upgradeTo accepts an upgrade and answers the client in the new protocol.
func upgradeTo(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Upgrade") != "echo" {
		_, _ = io.WriteString(w, r.Proto)
		return
	}
	conn, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		w.WriteHeader(http.StatusHTTPVersionNotSupported)
		return
	}
	defer conn.Close()
	_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
	_, _ = io.Copy(conn, rw)
}

func upgrade(t *testing.T) *http.Request {
	r := request(t, http.MethodGet, "/", nil)
	r.Header.Set("Connection", "Upgrade")
	r.Header.Set("Upgrade", "echo")
	return r
}

func TestUpgrades(t *testing.T) {
	plain := serve(t, upgradeTo)
	secured := serveTLS(t, upgradeTo, nil)
	h2c := serveH2C(t, true, upgradeTo)
	w := newWorld(t, Config{RootCAs: poolOf(secured.Certificate())})
	p := w.profile(gateway.Upstream{}, gateway.Timeouts{})
	require.Equal(t, "HTTP/2.0", w.get(p, w.endpoints(p, secured.URL), "/").body, "there is a connection with HTTP/2")
	for _, target := range []string{
		plain.URL, strings.Replace(plain.URL, "http", "ws", 1), secured.URL, strings.Replace(secured.URL, "https", "wss", 1),
		strings.Replace(h2c.URL, "http", "h2c", 1),
	} {
		eps := w.endpoints(p, target)
		var a Attempt
		resp, err := w.RoundTrip(upgrade(t), p, eps, &a) //nolint:bodyclose // as a connection
		require.NoError(t, err, target)
		require.Equal(t, http.StatusSwitchingProtocols, resp.StatusCode, target)
		require.EqualValues(t, 1, eps[0].View().Active)
		conn := resp.Body.(io.ReadWriteCloser)
		_, err = io.WriteString(conn, "hello")
		require.NoError(t, err)
		got := make([]byte, 5)
		_, err = io.ReadFull(conn, got)
		require.NoError(t, err)
		require.Equal(t, "hello", string(got))
		require.NoError(t, conn.(interface{ CloseWrite() error }).CloseWrite(), "one direction can end first")
		_, err = conn.Read(got)
		require.ErrorIs(t, err, io.EOF)
		require.NoError(t, conn.Close())
		require.Zero(t, eps[0].View().Active)
	}
}

func TestAHeaderThatIsTooLargeIsRefused(t *testing.T) {
	s := serve(t, func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("X", strings.Repeat("x", maxHeader+1)) })
	w := newWorld(t, Config{})
	p := w.profile(gateway.Upstream{Retries: -1}, gateway.Timeouts{})
	_, err := w.send(p, w.endpoints(p, s.URL), request(t, http.MethodGet, "/", nil))
	var failed *Error
	require.ErrorAs(t, err, &failed)
	require.Equal(t, http.StatusBadGateway, failed.Status)
}

func TestBodiesAreNotUnpacked(t *testing.T) {
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		_, _ = io.WriteString(w, "not gzip, and asked for: "+r.Header.Get("Accept-Encoding"))
	})
	w := newWorld(t, Config{})
	p := w.profile(gateway.Upstream{}, gateway.Timeouts{})
	require.Equal(t, "not gzip, and asked for: ", w.get(p, w.endpoints(p, s.URL), "/").body)
}
