package upstream

import (
	"context"
	"crypto/tls"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/api/gateway"
)

func (w *world) reload(cfg Config) {
	w.t.Helper()
	if cfg.Guard == nil {
		cfg.Guard = open
	}
	apply, err := w.Prepare(cfg)
	require.NoError(w.t, err)
	apply()
}

// TestReloadUnderLoad repeatedly changes all settings that make connections new while requests are sent. None may fail.
func TestReloadUnderLoad(t *testing.T) {
	ca := newAuthority(t)
	plain := named(t, "plain")
	secured := serveTLS(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "secured") }, func(c *tls.Config) {
		c.Certificates = []tls.Certificate{ca.issue(t, "x")}
		c.ClientAuth, c.ClientCAs = tls.RequireAndVerifyClientCert, poolOf(ca.cert)
	})
	config := func(idle int) Config {
		return Config{
			RootCAs: poolOf(ca.cert), MaxIdlePerHost: idle,
			ClientCertificates: map[string]tls.Certificate{"mine": ca.issue(t, "gateway")},
		}
	}
	w := newWorld(t, config(1))
	p := w.profile(gateway.Upstream{ClientCertificate: "mine", Retries: -1}, gateway.Timeouts{})
	eps := w.endpoints(p, plain.URL, secured.URL)
	var stop atomic.Bool
	var sent atomic.Int64
	var senders sync.WaitGroup
	for range 8 {
		senders.Go(func() {
			for !stop.Load() {
				_, err := w.send(p, eps, request(t, http.MethodPost, "/", strings.NewReader("body")))
				if err != nil {
					t.Error(err)
					return
				}
				sent.Add(1)
			}
		})
	}
	for i := range 50 {
		before := sent.Load()
		w.reload(config(1 + i%3))
		eventually(t, func() bool { return sent.Load() > before+5 || t.Failed() }, "requests go on")
	}
	stop.Store(true)
	senders.Wait()
	require.Equal(t, eps, w.endpoints(p, plain.URL, secured.URL), "endpoints survive")
	require.Equal(t, sent.Load(), eps[0].View().Calls+eps[1].View().Calls)
}

func TestConnectionsSurviveAReloadThatDoesNotConcernThem(t *testing.T) {
	w := idle(t, nil)
	p := w.profile(gateway.Upstream{}, gateway.Timeouts{})
	e := w.endpoints(p, "http://cam.example")[0]
	before := e.lanes.Load()
	w.reload(Config{ClientCertificates: map[string]tls.Certificate{"other": newAuthority(t).issue(t, "x")}})
	require.Same(t, before, e.lanes.Load())
	w.reload(Config{Proxy: "http://192.0.2.1:3128"})
	require.NotSame(t, before, e.lanes.Load())
	require.True(t, e.lanes.Load().proxied)
	w.reload(Config{Proxy: "http://192.0.2.1:3128", NoProxy: []string{"cam.example"}})
	require.False(t, e.lanes.Load().proxied)
}

func TestARequestUnderWaySurvivesAReload(t *testing.T) {
	half := make(chan struct{})
	s := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "first ")
		_ = http.NewResponseController(w).Flush()
		<-half
		_, _ = io.WriteString(w, "second")
	})
	w := newWorld(t, Config{})
	p := w.profile(gateway.Upstream{}, gateway.Timeouts{})
	var a Attempt
	resp, err := w.RoundTrip(request(t, http.MethodGet, "/", nil), p, w.endpoints(p, s.URL), &a)
	require.NoError(t, err)
	w.reload(Config{MaxIdlePerHost: 7})
	close(half)
	all, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.Equal(t, "first second", string(all))
	require.NoError(t, resp.Body.Close())
}

func TestBadSettingsChangeNothing(t *testing.T) {
	w := idle(t, nil)
	for name, c := range map[string]struct {
		cfg  Config
		says string
	}{
		"a proxy of another scheme":       {Config{Proxy: "socks5://x"}, "socks5"},
		"a proxy without a host":          {Config{Proxy: "http://"}, "host"},
		"a proxy with a path":             {Config{Proxy: "http://x/y"}, "path"},
		"a proxy with a bad port":         {Config{Proxy: "http://x:0"}, "port"},
		"a proxy that is not a URL":       {Config{Proxy: "http://user:secret@x:y"}, "not a URL"},
		"a certificate without a key":     {Config{ClientCertificates: map[string]tls.Certificate{"c": {Certificate: [][]byte{{1}}}}}, `"c"`},
		"a certificate without substance": {Config{ClientCertificates: map[string]tls.Certificate{"c": {}}}, `"c"`},
	} {
		t.Run(name, func(t *testing.T) {
			before := w.settings.Load()
			apply, err := w.Prepare(c.cfg)
			require.ErrorContains(t, err, c.says)
			require.NotContains(t, err.Error(), "secret")
			require.Nil(t, apply)
			require.Same(t, before, w.settings.Load())
			_, err = New(c.cfg, slog.New(slog.DiscardHandler), nil)
			require.ErrorContains(t, err, c.says)
		})
	}
}

func TestACertificateThatIsGoneIsKeptInUse(t *testing.T) {
	ca := newAuthority(t)
	s := serveTLS(t, func(http.ResponseWriter, *http.Request) {}, func(c *tls.Config) {
		c.ClientAuth, c.ClientCAs = tls.RequireAndVerifyClientCert, poolOf(ca.cert)
	})
	roots := poolOf(s.Certificate())
	w := newWorld(t, Config{RootCAs: roots, ClientCertificates: map[string]tls.Certificate{"mine": ca.issue(t, "gateway")}})
	u := gateway.Upstream{ClientCertificate: "mine"}
	p := w.profile(u, gateway.Timeouts{})
	eps := w.endpoints(p, s.URL)
	w.reload(Config{RootCAs: roots, MaxIdlePerHost: 3})
	require.Equal(t, http.StatusOK, w.get(p, eps, "/").StatusCode)
	_, err := w.Profile(u, gateway.Timeouts{})
	require.ErrorContains(t, err, `"mine"`, "who asks for it again is told")
}

func TestWhatWasReleasedIsForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := idle(t, nil)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- w.Run(ctx) }()
		p := w.profile(gateway.Upstream{}, gateway.Timeouts{})
		a, err := w.Endpoint(p, "http://192.0.2.1/")
		require.NoError(t, err)
		b, err := w.Endpoint(p, "HTTP://192.0.2.1/")
		require.NoError(t, err)
		require.Same(t, a, b)
		a.Release()
		time.Sleep(time.Hour)
		require.Len(t, w.inUse(), 1, "each call of Endpoint needs one of Release")
		b.Release()
		require.Empty(t, w.inUse())

		a.failed("remembered")
		time.Sleep(keepReleased / 2)
		again, err := w.Endpoint(p, "http://192.0.2.1/")
		require.NoError(t, err)
		require.Same(t, a, again, "it came back soon")
		again.Release()
		time.Sleep(keepReleased + 2*sweepEvery)
		again, err = w.Endpoint(p, "http://192.0.2.1/")
		require.NoError(t, err)
		require.NotSame(t, a, again, "it came back late")
		again.Release()

		time.Sleep(3 * keepReleased)
		require.Empty(t, w.endpoints(p))
		w.mu.Lock()
		require.Empty(t, w.profiles, "nor is its profile remembered")
		require.NotEmpty(t, w.retired)
		w.mu.Unlock()
		again, err = w.Endpoint(p, "http://192.0.2.1/")
		require.NoError(t, err, "who has it may use it nevertheless")
		require.Same(t, p, w.profile(gateway.Upstream{}, gateway.Timeouts{}))
		again.Release()
		time.Sleep(keepRetired + keepReleased*3)
		w.mu.Lock()
		require.Empty(t, w.Manager.endpoints)
		w.mu.Unlock()
		cancel()
		require.NoError(t, <-ended)
	})
}
