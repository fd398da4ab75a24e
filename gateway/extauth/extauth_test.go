package extauth_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/openmep/mep/api/gateway"
	"github.com/openmep/mep/gateway/extauth"
	"github.com/openmep/mep/kit/errs"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is an authoriser and its metrics.
type world struct {
	*extauth.Authoriser
	registry *prometheus.Registry
}

func newWorld(t *testing.T, policy gateway.ExternalAuth, transport http.RoundTripper) world {
	t.Helper()
	if transport == nil {
		own := &http.Transport{DisableCompression: true, MaxResponseHeaderBytes: 64 << 10}
		t.Cleanup(own.CloseIdleConnections)
		transport = own
	}
	registry := prometheus.NewRegistry()
	a, err := extauth.New(&policy, transport, slog.New(slog.DiscardHandler), extauth.NewMetrics(registry))
	require.NoError(t, err)
	return world{Authoriser: a, registry: registry}
}

// requireCounts checks the counts of all results; results that are not named must be 0.
func (w world) requireCounts(t *testing.T, want map[string]int) {
	t.Helper()
	var b strings.Builder
	b.WriteString("# HELP mep_gateway_external_auth_total Questions to external authorisations by result: allowed, refused, remembered (from an equal question), timeout, failed (no usable answer), cancelled.\n# TYPE mep_gateway_external_auth_total counter\n")
	for _, result := range []string{"allowed", "cancelled", "failed", "refused", "remembered", "timeout"} {
		fmt.Fprintf(&b, "mep_gateway_external_auth_total{result=%q} %d\n", result, want[result])
	}
	require.NoError(t, testutil.GatherAndCompare(w.registry, strings.NewReader(b.String()), "mep_gateway_external_auth_total"))
}

func serve(t *testing.T, handler http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewServer(handler)
	t.Cleanup(s.Close)
	return s.URL
}

// speak starts a server that sends the same answer on every connection, whatever the request, and closes it.
func speak(t *testing.T, answer string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = conn.Read(make([]byte, 16<<10))
			_, _ = io.WriteString(conn, answer)
			conn.Close()
		}
	}()
	t.Cleanup(func() {
		l.Close()
		<-ended
	})
	return "http://" + l.Addr().String()
}

func question() *gateway.ExternalAuthRequest {
	return &gateway.ExternalAuthRequest{
		RequestID: "r1", Method: "GET", Host: "a.example", Path: "/a%20b", Query: "x=1", Client: "192.0.2.1", Consumer: "app",
		Scopes: []string{"mp1"}, Route: "service:s", Service: "s", Headers: map[string][]string{"Accept": {"*/*"}},
	}
}

func TestTheQuestionIsAPostOfJSON(t *testing.T) {
	asked := question()
	asked.Body = []byte("hello")
	w := newWorld(t, gateway.ExternalAuth{URL: serve(t, func(rw http.ResponseWriter, r *http.Request) {
		var got gateway.ExternalAuthRequest
		if r.Method != http.MethodPost || r.Header.Get("Content-Type") != "application/json" || r.URL.String() != "/check?a=b" ||
			json.NewDecoder(r.Body).Decode(&got) != nil || !equal(&got, asked) {
			rw.WriteHeader(http.StatusTeapot)
		}
	}) + "/check?a=b"}, nil)
	d, err := w.Decide(t.Context(), asked)
	require.NoError(t, err)
	require.True(t, d.Allowed)
	require.False(t, d.Unanswered)
}

func equal(a, b *gateway.ExternalAuthRequest) bool {
	x, _ := json.Marshal(a)
	y, _ := json.Marshal(b)
	return string(x) == string(y)
}

func TestHeaderFieldsOfAnAnswerReplaceThoseOfTheClient(t *testing.T) {
	w := newWorld(t, gateway.ExternalAuth{Return: []string{"x-user", "X-Roles", "X-None"}, URL: serve(t, func(rw http.ResponseWriter, _ *http.Request) {
		rw.Header().Set("X-User", "alice")
		rw.Header()["X-Roles"] = []string{"a", "b"}
		rw.Header().Set("X-Other", "not asked for")
		rw.WriteHeader(http.StatusNoContent)
	})}, nil)
	d, err := w.Decide(t.Context(), question())
	require.NoError(t, err)
	h := http.Header{"X-User": {"root", "admin"}, "X-None": {"forged"}, "X-Other": {"own"}, "Accept": {"*/*"}}
	d.Apply(h)
	require.Equal(t, http.Header{"X-User": {"alice"}, "X-Roles": {"a", "b"}, "X-Other": {"own"}, "Accept": {"*/*"}}, h)
}

func TestHeaderFieldsOfTheClientDoNotStandInForAnAnswer(t *testing.T) {
	w := newWorld(t, gateway.ExternalAuth{URL: speak(t, ""), Return: []string{"X-User"}, FailOpen: true}, nil)
	d, err := w.Decide(t.Context(), question())
	require.NoError(t, err)
	h := http.Header{"X-User": {"root"}}
	d.Apply(h)
	require.Empty(t, h)
}

func TestOnlyNamedHeaderFieldsAreInTheQuestion(t *testing.T) {
	w := newWorld(t, gateway.ExternalAuth{URL: "http://a", Headers: []string{"accept", "X-A", "X-None"}}, nil)
	require.Equal(t, map[string][]string{"Accept": {"*/*"}, "X-A": {"1", "2"}}, w.Headers(http.Header{
		"Accept": {"*/*"}, "X-A": {"1", "2"}, "Authorization": {"Bearer x"}, "Cookie": {"a=b"},
	}))
	require.Nil(t, w.Headers(http.Header{"Authorization": {"Bearer x"}}))
}

func TestRefusalsSayWhatTheAnswerSays(t *testing.T) {
	large := strings.Repeat("x", extauth.MaxAnswer)
	for name, x := range map[string]struct {
		handler http.HandlerFunc
		status  int
		body    string
		header  http.Header
	}{
		"401": {func(rw http.ResponseWriter, _ *http.Request) {
			rw.Header()["Www-Authenticate"] = []string{"Basic realm=a", "Bearer"}
			rw.Header().Set("Content-Type", "application/problem+json")
			rw.Header().Set("Set-Cookie", "a=b")
			rw.WriteHeader(401)
			_, _ = io.WriteString(rw, `{"title":"who are you?"}`)
		}, 401, `{"title":"who are you?"}`, http.Header{"Www-Authenticate": {"Basic realm=a", "Bearer"}, "Content-Type": {"application/problem+json"}}},
		"402":           {func(rw http.ResponseWriter, _ *http.Request) { rw.WriteHeader(402) }, 402, "", http.Header{}},
		"largest":       {func(rw http.ResponseWriter, _ *http.Request) { plain(rw, 403, large) }, 403, large, http.Header{"Content-Type": {"text/plain"}}},
		"too large":     {func(rw http.ResponseWriter, _ *http.Request) { plain(rw, 403, large+"x") }, 403, "", http.Header{}},
		"endless":       {func(rw http.ResponseWriter, r *http.Request) { endless(rw, r, 403) }, 403, "", http.Header{}},
		"never ends":    {func(rw http.ResponseWriter, r *http.Request) { stuck(rw, r, 403) }, 403, "", http.Header{}},
		"ends too soon": {func(rw http.ResponseWriter, _ *http.Request) { cut(rw) }, 403, "", http.Header{}},
		"compressed": {func(rw http.ResponseWriter, _ *http.Request) {
			rw.Header().Set("Content-Encoding", "gzip")
			plain(rw, 403, "\x1f\x8b")
		}, 403, "", http.Header{}},
		"of no type": {func(rw http.ResponseWriter, _ *http.Request) {
			rw.Header()["Content-Type"] = nil
			rw.WriteHeader(403)
			_, _ = io.WriteString(rw, "<script>")
		}, 403, "<script>", http.Header{"Content-Type": {"text/plain; charset=utf-8"}}},
		"of no type and no text": {func(rw http.ResponseWriter, _ *http.Request) {
			rw.Header()["Content-Type"] = nil
			rw.WriteHeader(403)
			_, _ = io.WriteString(rw, "a\x00")
		}, 403, "", http.Header{}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, gateway.ExternalAuth{URL: serve(t, x.handler), FailOpen: true, Timeout: "500ms", Return: []string{"Set-Cookie"}}, nil)
			d, err := w.Decide(t.Context(), question())
			require.NoError(t, err)
			require.False(t, d.Allowed, "a refusal is one whatever becomes of its body")
			require.Equal(t, x.status, d.Status)
			require.Equal(t, x.body, string(d.Body))
			require.Equal(t, x.header, d.Header)
			w.requireCounts(t, map[string]int{"refused": 1})
		})
	}
}

func plain(rw http.ResponseWriter, status int, body string) {
	rw.Header().Set("Content-Type", "text/plain")
	rw.WriteHeader(status)
	_, _ = io.WriteString(rw, body)
}

func endless(rw http.ResponseWriter, r *http.Request, status int) {
	rw.WriteHeader(status)
	for r.Context().Err() == nil {
		if _, err := rw.Write(make([]byte, 4096)); err != nil {
			return
		}
	}
}

func stuck(rw http.ResponseWriter, r *http.Request, status int) {
	_, _ = io.Copy(io.Discard, r.Body) // otherwise the server does not see that the client has gone
	plain(rw, status, "the beginning")
	rw.(http.Flusher).Flush()
	<-r.Context().Done()
}

func cut(rw http.ResponseWriter) {
	conn, out, err := rw.(http.Hijacker).Hijack()
	if err != nil {
		return
	}
	_, _ = out.WriteString("HTTP/1.1 403 Forbidden\r\nContent-Type: text/plain\r\nContent-Length: 100\r\n\r\nabc")
	_ = out.Flush()
	conn.Close()
}

func TestWithoutUsableAnswerThePolicyDecides(t *testing.T) {
	dead, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, dead.Close())
	status := func(code int) string {
		return serve(t, func(rw http.ResponseWriter, _ *http.Request) {
			rw.Header().Set("Location", "/elsewhere")
			rw.WriteHeader(code)
		})
	}
	for name, x := range map[string]struct{ url, result string }{
		"dead":         {"http://" + dead.Addr().String(), "failed"},
		"closes":       {speak(t, ""), "failed"},
		"garbage":      {speak(t, "SSH-2.0-OpenSSH\r\n"), "failed"},
		"half":         {speak(t, "HTTP/1.1 200 OK\r\nX-A"), "failed"},
		"no TLS":       {strings.Replace(status(200), "http", "https", 1), "failed"},
		"redirect":     {status(307), "failed"},
		"not modified": {status(304), "failed"},
		"bad request":  {status(400), "failed"},
		"not found":    {status(404), "failed"},
		"too many":     {status(429), "failed"},
		"server error": {status(500), "failed"},
		"slow": {serve(t, func(_ http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			<-r.Context().Done()
		}), "timeout"},
		"huge header":  {speak(t, "HTTP/1.1 200 OK\r\nX-A: "+strings.Repeat("x", 128<<10)+"\r\n\r\n"), "failed"},
		"large return": {speak(t, "HTTP/1.1 200 OK\r\nX-User: "+strings.Repeat("x", extauth.MaxReturn)+"\r\n\r\n"), "failed"},
	} {
		t.Run(name, func(t *testing.T) {
			policy := gateway.ExternalAuth{URL: x.url, Timeout: "200ms", Return: []string{"X-User"}}
			closed := newWorld(t, policy, nil)
			_, err := closed.Decide(t.Context(), question())
			require.ErrorIs(t, err, errs.Unavailable)
			require.NotContains(t, detail(t, err), "127.0.0.1", "the client is not told where the gateway asks")
			closed.requireCounts(t, map[string]int{x.result: 1})

			policy.FailOpen = true
			open := newWorld(t, policy, nil)
			d, err := open.Decide(t.Context(), question())
			require.NoError(t, err)
			require.True(t, d.Allowed && d.Unanswered)
			open.requireCounts(t, map[string]int{x.result: 1})
		})
	}
}

func detail(t *testing.T, err error) string {
	t.Helper()
	var e *errs.Error
	require.ErrorAs(t, err, &e)
	require.Positive(t, e.RetryAfter)
	return e.Detail
}

func TestAnEndlessAnswerThatAllowsIsNotWaitedFor(t *testing.T) {
	w := newWorld(t, gateway.ExternalAuth{URL: serve(t, func(rw http.ResponseWriter, r *http.Request) { endless(rw, r, 200) })}, nil)
	d, err := w.Decide(t.Context(), question())
	require.NoError(t, err)
	require.True(t, d.Allowed)
}

func TestACallerThatGoesAwayIsNoFailure(t *testing.T) {
	for name, cache := range map[string]gateway.Duration{"asked alone": "", "asked for all": "1m"} {
		t.Run(name, func(t *testing.T) {
			ctx, leave := context.WithCancel(t.Context())
			defer leave()
			url := serve(t, func(_ http.ResponseWriter, r *http.Request) {
				_, _ = io.Copy(io.Discard, r.Body)
				leave()
				<-r.Context().Done()
			})
			w := newWorld(t, gateway.ExternalAuth{URL: url, FailOpen: true, Timeout: "1m", Cache: cache}, nil)
			_, err := w.Decide(ctx, question())
			require.ErrorIs(t, err, context.Canceled, "and does not let the call pass")
			w.requireCounts(t, map[string]int{"cancelled": 1})
		})
	}
}

func TestPoliciesThatCannotBeUsed(t *testing.T) {
	for _, url := range []string{"", "a", "ftp://a", "http://u:p@a", "http://a#b"} {
		_, err := extauth.New(&gateway.ExternalAuth{URL: url}, http.DefaultTransport, slog.Default(), nil)
		require.ErrorIs(t, err, errs.Invalid, url)
		require.ErrorContains(t, err, "externalAuth.url must")
	}
}

func TestTroubleIsLoggedOnceAndItsEndToo(t *testing.T) {
	var log strings.Builder
	status := make(chan int, 5)
	for _, s := range []int{500, 502, 200, 403, 500} {
		status <- s
	}
	url := serve(t, func(rw http.ResponseWriter, _ *http.Request) { rw.WriteHeader(<-status) })
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	a, err := extauth.New(&gateway.ExternalAuth{URL: url, Timeout: "30s"}, transport, slog.New(slog.NewTextHandler(&log, nil)),
		extauth.NewMetrics(prometheus.NewRegistry()))
	require.NoError(t, err)
	for range cap(status) {
		_, _ = a.Decide(t.Context(), question())
	}
	require.Equal(t, 2, strings.Count(log.String(), "gives no usable answer"))
	require.Equal(t, 1, strings.Count(log.String(), "answers again"))
	require.Contains(t, log.String(), `reason="status 500"`)
}
