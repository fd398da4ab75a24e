package upstream

import (
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/api/gateway"
)

func TestACallIsUnderWayUntilItsBodyEnds(t *testing.T) {
	lengths := map[string]func(http.ResponseWriter){
		"short":   func(w http.ResponseWriter) { _, _ = io.WriteString(w, "short") },
		"long":    func(w http.ResponseWriter) { _, _ = io.WriteString(w, strings.Repeat("x", 2*shortBody)) },
		"unknown": func(w http.ResponseWriter) { _ = http.NewResponseController(w).Flush(); _, _ = io.WriteString(w, "x") },
	}
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if f := lengths[r.URL.Query().Get("body")]; f != nil {
			f(w)
		}
	})
	w := newWorld(t, Config{})
	p := w.profile(gateway.Upstream{}, gateway.Timeouts{})
	eps := w.endpoints(p, s.URL)
	active := func() int64 { return eps[0].View().Active }
	for kind := range lengths {
		for _, end := range []func(io.ReadCloser) error{
			io.ReadCloser.Close,
			func(b io.ReadCloser) error {
				_, err := io.Copy(io.Discard, b)
				return err
			},
		} {
			var a Attempt
			resp, err := w.RoundTrip(request(t, http.MethodGet, "/?body="+kind, nil), p, eps, &a)
			require.NoError(t, err)
			require.EqualValues(t, 1, active(), kind)
			require.NoError(t, end(resp.Body))
			require.Zero(t, active(), kind)
			require.NoError(t, resp.Body.Close())
			require.Zero(t, active(), "it ends once")
		}
	}
	var a Attempt
	resp, err := w.RoundTrip(request(t, http.MethodGet, "/", nil), p, eps, &a)
	require.NoError(t, err)
	require.Zero(t, active(), "there is no body")
	require.NoError(t, resp.Body.Close())
}

func TestABodyThatIsSilent(t *testing.T) {
	ended := make(chan struct{})
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, "first")
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
		close(ended)
	})
	w := newWorld(t, Config{})
	p := w.profile(gateway.Upstream{}, gateway.Timeouts{Idle: "50ms"})
	_, err := w.send(p, w.endpoints(p, s.URL), request(t, http.MethodGet, "/", nil))
	var failed *Error
	require.ErrorAs(t, err, &failed)
	require.Equal(t, http.StatusGatewayTimeout, failed.Status)
	<-ended
}

func TestAConnectionThatIsSilentAfterAnUpgrade(t *testing.T) {
	s := serve(t, upgradeTo)
	w := newWorld(t, Config{})
	p := w.profile(gateway.Upstream{}, gateway.Timeouts{Idle: "200ms"})
	var a Attempt
	resp, err := w.RoundTrip(upgrade(t), p, w.endpoints(p, s.URL), &a) //nolint:bodyclose // as a connection
	require.NoError(t, err)
	conn := resp.Body.(io.ReadWriteCloser)
	start := time.Now()
	for range 10 {
		_, err := io.WriteString(conn, "x")
		require.NoError(t, err)
		_, err = io.ReadFull(conn, make([]byte, 1))
		require.NoError(t, err)
		time.Sleep(30 * time.Millisecond) // each pause is shorter than the limit, all together are longer
	}
	require.Greater(t, time.Since(start), 200*time.Millisecond)
	_, err = conn.Read(make([]byte, 1))
	var failed *Error
	require.ErrorAs(t, err, &failed)
	require.Equal(t, http.StatusGatewayTimeout, failed.Status)
	require.Error(t, conn.Close(), "it is closed already")
}

// TestASlowReaderIsNotSilence reads an available body slowly.
func TestASlowReaderIsNotSilence(t *testing.T) {
	s := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		_ = http.NewResponseController(w).Flush()
		_, _ = io.WriteString(w, "0123456789")
	})
	w := newWorld(t, Config{})
	p := w.profile(gateway.Upstream{}, gateway.Timeouts{Idle: "30ms"})
	var a Attempt
	resp, err := w.RoundTrip(request(t, http.MethodGet, "/", nil), p, w.endpoints(p, s.URL), &a)
	require.NoError(t, err)
	for i := range 3 {
		time.Sleep(60 * time.Millisecond)
		got := make([]byte, 1)
		_, err := io.ReadFull(resp.Body, got)
		require.NoError(t, err, i)
	}
	require.NoError(t, resp.Body.Close())
}

// byManager is an http.RoundTripper like that of the gateway.
type byManager struct {
	*world
	p   *Profile
	eps []*Endpoint
}

func (b *byManager) RoundTrip(r *http.Request) (*http.Response, error) {
	var a Attempt
	return b.world.RoundTrip(r, b.p, b.eps, &a)
}

func TestInsideAReverseProxy(t *testing.T) {
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/base/echo":
			_ = http.NewResponseController(w).EnableFullDuplex()
			w.Header().Set("Trailer", "X-Sum")
			_, _ = io.Copy(w, r.Body)
			w.Header().Set("X-Sum", "1")
		case "/base/early":
			w.Header().Set("Link", "</x>")
			w.WriteHeader(http.StatusEarlyHints)
		case "/base/refuse":
			w.WriteHeader(http.StatusExpectationFailed)
		default:
			upgradeTo(w, r)
		}
	})
	w := newWorld(t, Config{})
	p := w.profile(gateway.Upstream{}, gateway.Timeouts{})
	eps := w.endpoints(p, s.URL+"/base")
	proxy := &httputil.ReverseProxy{
		Rewrite:   func(r *httputil.ProxyRequest) { r.Out.Host = "" },
		Transport: &byManager{w, p, eps},
	}
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// The response may begin before the request body ends.
		_ = http.NewResponseController(w).EnableFullDuplex()
		proxy.ServeHTTP(w, r)
	}))
	defer front.Close()
	client := front.Client()
	defer client.CloseIdleConnections()

	body := strings.Repeat("0123456789", 100_000)
	resp, err := client.Post(front.URL+"/echo", "text/plain", io.MultiReader(strings.NewReader(body)))
	require.NoError(t, err)
	got, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	require.Len(t, got, len(body), "a large body comes back whole")
	require.Equal(t, "1", resp.Trailer.Get("X-Sum"))

	for path, status := range map[string]int{"/early": http.StatusOK, "/refuse": http.StatusExpectationFailed} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPut, front.URL+path, strings.NewReader("body"))
		require.NoError(t, err)
		r.Header.Set("Expect", "100-continue")
		resp, err := client.Do(r)
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		require.Equal(t, status, resp.StatusCode, path)
	}

	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, front.URL, nil)
	require.NoError(t, err)
	r.Header = upgrade(t).Header
	resp, err = client.Do(r) //nolint:bodyclose // as a connection
	require.NoError(t, err)
	require.Equal(t, http.StatusSwitchingProtocols, resp.StatusCode)
	conn := resp.Body.(io.ReadWriteCloser)
	_, err = io.WriteString(conn, "hello")
	require.NoError(t, err)
	got = make([]byte, 5)
	_, err = io.ReadFull(conn, got)
	require.NoError(t, err)
	require.Equal(t, "hello", string(got))
	require.EqualValues(t, 1, eps[0].View().Active)
	require.NoError(t, conn.Close())
	eventually(t, func() bool { return eps[0].View().Active == 0 }, "the call ends with the connection")
}
