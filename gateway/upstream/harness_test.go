package upstream

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/openmep/mep/api/gateway"
	"github.com/openmep/mep/kit/netguard"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var all = &netguard.Policy{AllowLoopback: true, AllowPrivate: true}

// open returns a policy that allows loopback addresses, on which the tests listen.
func open() *netguard.Policy { return all }

// world is a Manager with the test it is for.
type world struct {
	*Manager
	t testing.TB
}

func newWorld(t testing.TB, cfg Config) *world {
	t.Helper()
	if cfg.Guard == nil {
		cfg.Guard = open
	}
	m, err := New(cfg, slog.New(slog.DiscardHandler), nil)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- m.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		require.NoError(t, <-ended)
	})
	return &world{Manager: m, t: t}
}

func (w *world) profile(u gateway.Upstream, t gateway.Timeouts) *Profile {
	w.t.Helper()
	p, err := w.Profile(u, t)
	require.NoError(w.t, err)
	return p
}

// endpoints returns endpoints that are released when the test ends.
func (w *world) endpoints(p *Profile, urls ...string) []*Endpoint {
	w.t.Helper()
	list := make([]*Endpoint, len(urls))
	for i, u := range urls {
		e, err := w.Endpoint(p, u)
		require.NoError(w.t, err)
		w.t.Cleanup(e.Release)
		list[i] = e
	}
	return list
}

// request returns a request as a reverse proxy passes it on.
func request(t testing.TB, method, path string, body io.Reader) *http.Request {
	t.Helper()
	u, err := url.ParseRequestURI(path)
	require.NoError(t, err)
	r, err := http.NewRequestWithContext(t.Context(), method, "http://ignored", body)
	require.NoError(t, err)
	r.URL, r.Host = u, ""
	r.GetBody = nil // requests that are passed on have none
	return r
}

// answer is a response whose body was read.
type answer struct {
	*http.Response
	body string
	Attempt
}

// send makes a call and reads the response.
func (w *world) send(p *Profile, eps []*Endpoint, r *http.Request) (*answer, error) {
	a := &answer{}
	resp, err := w.RoundTrip(r, p, eps, &a.Attempt)
	if err != nil {
		return a, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	a.Response, a.body = resp, string(b)
	return a, err
}

// get makes a call that must succeed.
func (w *world) get(p *Profile, eps []*Endpoint, path string) *answer {
	w.t.Helper()
	a, err := w.send(p, eps, request(w.t, http.MethodGet, path, nil))
	require.NoError(w.t, err)
	return a
}

// serve starts a server that runs until the test ends.
func serve(t testing.TB, h http.HandlerFunc) *httptest.Server {
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s
}

func named(t testing.TB, name string) *httptest.Server {
	return serve(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, name) })
}

// nobody returns a URL on which no server listens.
func nobody(t testing.TB) string {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, ln.Close())
	return "http://" + ln.Addr().String()
}

// acceptor listens, and hands connections to the test.
func acceptor(t testing.TB, each func(net.Conn)) string {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			each(conn)
		}
	}()
	t.Cleanup(func() {
		require.NoError(t, ln.Close())
		<-ended
	})
	return "http://" + ln.Addr().String()
}

// caOf returns the certificate of a server in PEM.
func caOf(s *httptest.Server) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}))
}

// serveTLS starts a server with TLS and HTTP/2.
func serveTLS(t testing.TB, h http.HandlerFunc, change func(*tls.Config)) *httptest.Server {
	s := httptest.NewUnstartedServer(h)
	s.EnableHTTP2 = true
	s.TLS = &tls.Config{MinVersion: tls.VersionTLS12}
	if change != nil {
		change(s.TLS)
	}
	s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	s.StartTLS()
	t.Cleanup(s.Close)
	return s
}

func poolOf(cert *x509.Certificate) *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	return pool
}

func eventually(t testing.TB, holds func() bool, what string) {
	t.Helper()
	require.Eventually(t, holds, 10*time.Second, 2*time.Millisecond, what)
}

// at returns a URL with another host.
func at(raw, host string) string { return strings.Replace(raw, "127.0.0.1", host, 1) }
