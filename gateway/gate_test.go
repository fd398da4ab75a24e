package gateway_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	api "github.com/openmep/mep/api/gateway"
	"github.com/openmep/mep/gateway"
	"github.com/openmep/mep/kit/daemon"
	"github.com/openmep/mep/kit/etcd"
	"github.com/openmep/mep/kit/node"
	"github.com/openmep/mep/kit/settings"
)

// gate is a running gateway.
type gate struct {
	*gateway.Gateway
	testing.TB
	*world
	cfg     *setup
	reg     *prometheus.Registry
	client  *http.Client
	manager string
	stop    func()
}

// setup is what a test may change about a gateway before it starts.
type setup struct {
	gateway.DaemonConfig
	gateway.Options
	// Encrypted makes the listeners use TLS, as they do except in development.
	Encrypted bool
	// Store is the connection to etcd; nil: the gateway gets its own.
	Store *etcd.Store
	Log   *slog.Logger
}

// gate starts a gateway and waits until it works by what is in etcd. The gateway is as closed as in production, except that it does not use
// TLS, so that tests can send anything, and that it may call upstreams of the test on loopback addresses.
func (w *world) gate(changes ...func(*setup)) *gate {
	w.Helper()
	s := &setup{}
	require.NoError(w, settings.Load(&s.DaemonConfig, settings.Sources{Flags: map[string]string{
		"data-dir": w.TempDir(), "gateway-listen": "127.0.0.1:0", "gateway-management-listen": "127.0.0.1:0", "etcd-endpoints": w.etcd.Endpoint(),
		"gateway-allow-loopback": "true", "gateway-records-file": "off", "drain": "500ms",
	}}, nil))
	s.Log = slog.New(slog.DiscardHandler)
	for _, change := range changes {
		change(s)
	}
	require.NoError(w, s.Common.Validate())
	require.NoError(w, s.Gateway.Validate(&s.Common))
	if s.Store == nil {
		s.Store = w.etcd.Store(w)
	}
	return w.begin(s)
}

func (w *world) begin(s *setup) *gate {
	w.Helper()
	g := &gate{TB: w.TB, world: w, cfg: s, reg: prometheus.NewRegistry()}
	dev := s.Common.Dev
	s.Common.Dev = !s.Encrypted // so that no certificates are made
	env, err := daemon.NewEnv(w.Context(), &s.Common, "gateway", s.Gateway.Addresses(), s.Log, g.reg)
	require.NoError(w, err)
	s.Common.Dev = dev
	n, err := node.New(s.Store, false, env)
	require.NoError(w, err)
	g.Gateway, err = gateway.New(&s.Gateway, n, env, s.Options)
	require.NoError(w, err)
	parts := []daemon.Part{daemon.Closer("audit", env.Audit.Close), n.Part(), g.Part(), daemon.Listeners(g.Listeners())}
	for _, p := range parts {
		p.Start(context.Background())
	}
	transport := &http.Transport{MaxIdleConnsPerHost: 200, DisableCompression: true}
	g.client = &http.Client{Transport: transport, Timeout: 30 * time.Second, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	stopped := false
	g.stop = func() {
		if stopped {
			return
		}
		stopped = true
		w.mu.Lock()
		w.gates = slices.DeleteFunc(w.gates, func(o *gate) bool { return o == g })
		w.mu.Unlock()
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		for _, p := range slices.Backward(parts) {
			require.NoError(w, p.Stop(ctx))
		}
		transport.CloseIdleConnections()
	}
	w.Cleanup(g.stop)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	require.NoError(w, g.CatchUp(ctx, 0))
	w.mu.Lock()
	w.gates = append(w.gates, g)
	w.mu.Unlock()
	return g
}

// in returns the gate for a subtest.
func (g *gate) in(tb testing.TB) *gate {
	part := *g
	part.TB = tb
	return &part
}

// reload applies changed settings.
func (g *gate) reload(change func(*gateway.Config)) error {
	next := g.cfg.Gateway
	change(&next)
	apply, err := g.Prepare(&next)
	if err != nil {
		return err
	}
	apply()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return g.CatchUp(ctx, 0)
}

func (g *gate) addr() string {
	u, err := url.Parse(g.URL())
	require.NoError(g, err)
	return u.Host
}

// answer is a response that has been read.
type answer struct {
	*http.Response
	body string
}

// seen returns what the upstream received.
func (a *answer) seen(tb testing.TB) seen {
	tb.Helper()
	var s seen
	require.NoError(tb, json.Unmarshal([]byte(a.body), &s), "%d %s", a.StatusCode, a.body)
	return s
}

// try makes a call that may fail.
func (g *gate) try(method, path string, body io.Reader, changes ...func(*http.Request)) (*answer, error) {
	r, err := http.NewRequestWithContext(context.Background(), method, g.URL()+path, body)
	if err != nil {
		return nil, err
	}
	for _, change := range changes {
		change(r)
	}
	resp, err := g.client.Do(r)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return &answer{resp, string(b)}, err
}

func (g *gate) do(method, path, body string, changes ...func(*http.Request)) *answer {
	g.Helper()
	var r io.Reader
	if body != "" {
		r = strings.NewReader(body)
	}
	a, err := g.try(method, path, r, changes...)
	require.NoError(g, err)
	return a
}

func (g *gate) get(path string, changes ...func(*http.Request)) *answer {
	g.Helper()
	return g.do(http.MethodGet, path, "", changes...)
}

// status returns the status of a GET call.
func (g *gate) status(path string, changes ...func(*http.Request)) int {
	g.Helper()
	return g.get(path, changes...).StatusCode
}

// manage makes a management request and decodes the answer into dst, which may be nil.
func (g *gate) manage(method, path string, body, dst any) int {
	g.Helper()
	if g.manager == "" {
		g.manager = g.token("manager", "mm5")
	}
	var r io.Reader
	if body != nil {
		r = bytes.NewReader(marshal(g, body))
	}
	req, err := http.NewRequestWithContext(context.Background(), method, g.ManagementURL()+api.Base+path, r)
	require.NoError(g, err)
	req.Header.Set("Authorization", "Bearer "+g.manager)
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := g.client.Do(req)
	require.NoError(g, err)
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	require.NoError(g, err)
	if dst != nil {
		require.Less(g, resp.StatusCode, 300, string(b))
		require.NoError(g, json.Unmarshal(b, dst), string(b))
	}
	return resp.StatusCode
}

// apiKey issues an API key.
func (g *gate) apiKey(consumer string, services ...string) string {
	g.Helper()
	var key api.APIKey
	g.manage(http.MethodPost, "/api_keys", api.APIKeyRequest{Consumer: consumer, Services: services}, &key)
	return key.Key
}

// explain asks what would become of a call.
func (g *gate) explain(req api.ExplainRequest) api.Explanation {
	g.Helper()
	var e api.Explanation
	g.manage(http.MethodPost, "/explain", req, &e)
	return e
}

// dial opens a connection to the gateway, on which anything may be sent.
func (g *gate) dial() *line {
	g.Helper()
	return dialLine(g, g.addr())
}

// line is a connection on which anything may be sent.
type line struct {
	net.Conn
	testing.TB
	in *bufio.Reader
}

func dialLine(tb testing.TB, addr string) *line {
	tb.Helper()
	conn, err := net.Dial("tcp", addr)
	require.NoError(tb, err)
	tb.Cleanup(func() { _ = conn.Close() })
	require.NoError(tb, conn.SetDeadline(time.Now().Add(20*time.Second)))
	return &line{conn, tb, bufio.NewReader(conn)}
}

// send writes text in which each "\n" stands for the end of a line.
func (l *line) send(text string) { l.write(strings.ReplaceAll(text, "\n", "\r\n")) }

// write writes text as it is. A peer that is gone shows in the next read.
func (l *line) write(text string) { _, _ = io.WriteString(l.Conn, text) }

// response reads the next response.
func (l *line) response(method string) (*answer, error) {
	resp, err := http.ReadResponse(l.in, &http.Request{Method: method})
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return &answer{resp, string(b)}, err
}

// answer reads the next response; there must be one.
func (l *line) answer() *answer {
	l.Helper()
	a, err := l.response(http.MethodGet)
	require.NoError(l, err)
	return a
}

// readUpTo reads at most the given number of bytes.
func readUpTo(r io.Reader, most int64) []byte {
	b, _ := io.ReadAll(io.LimitReader(r, most)) // only what arrived counts
	return b
}

// eventually waits until a condition holds.
func eventually(tb testing.TB, holds func() bool, what ...any) {
	tb.Helper()
	require.Eventually(tb, holds, 15*time.Second, 5*time.Millisecond, what...)
}
