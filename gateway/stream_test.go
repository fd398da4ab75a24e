package gateway_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	api "github.com/openmep/mep/api/gateway"
)

// noise is a long body that is not kept in memory.
type noise struct{ left int64 }

func (n *noise) Read(p []byte) (int, error) {
	if n.left == 0 {
		return 0, io.EOF
	}
	p = p[:min(int64(len(p)), n.left)]
	for i := range p {
		p[i] = byte(n.left - int64(i))
	}
	n.left -= int64(len(p))
	return len(p), nil
}

func sum(h hash.Hash) string { return hex.EncodeToString(h.Sum(nil)) }

// protocols returns clients of the gateway, one for each version of HTTP.
func protocols() map[string]func(*gate) *http.Transport {
	return map[string]func(*gate) *http.Transport{
		"HTTP/1.1":        func(*gate) *http.Transport { return &http.Transport{} },
		"HTTP/2 by prior": func(*gate) *http.Transport { return &http.Transport{Protocols: unencrypted()} },
		"HTTP/1.1 over TLS": func(g *gate) *http.Transport {
			return &http.Transport{TLSClientConfig: g.trust(), TLSNextProto: map[string]func(string, *tls.Conn) http.RoundTripper{}}
		},
		"HTTP/2 over TLS": func(g *gate) *http.Transport {
			return &http.Transport{TLSClientConfig: g.trust(), ForceAttemptHTTP2: true}
		},
	}
}

func unencrypted() *http.Protocols {
	p := new(http.Protocols)
	p.SetUnencryptedHTTP2(true)
	return p
}

// serveH2C serves HTTP/2 without TLS.
func serveH2C(tb testing.TB, h http.HandlerFunc) string {
	tb.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(tb, err)
	s := &http.Server{Handler: h, Protocols: unencrypted(), ReadHeaderTimeout: time.Second}
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ln) }()
	tb.Cleanup(func() {
		_ = s.Close()
		require.ErrorIs(tb, <-ended, http.ErrServerClosed)
	})
	return "h2c://" + ln.Addr().String()
}

func TestEveryVersionOfHTTPOnBothSides(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	secure := serveTLS(t, reflect)
	for name, uri := range map[string]string{"plain": mirrorOf(t).URL, "secure": secure.URL, "h2c": serveH2C(t, reflect)} {
		w.named(name, uri)
		p := anybody
		p.Upstream.CA = caOf(secure)
		w.policy(name, p)
	}
	plainGate, secureGate := w.gate(), w.gate(encrypted)
	for name, make := range protocols() {
		g := plainGate
		if strings.Contains(name, "TLS") {
			g = secureGate
		}
		transport := make(g)
		defer transport.CloseIdleConnections()
		g.client.Transport = transport
		for service, proto := range map[string]string{"plain": "HTTP/1.1", "secure": "HTTP/2.0", "h2c": "HTTP/2.0"} {
			a := g.do(http.MethodPost, "/services/"+service+"/a?b", "some text", field("Cookie", "a=1; b=2"))
			require.Equal(t, http.StatusOK, a.StatusCode, "%s %s", name, a.body)
			require.Equal(t, strings.Contains(name, "HTTP/2"), a.ProtoMajor == 2, name)
			got := a.seen(t)
			require.Equal(t, proto, got.Proto)
			require.Equal(t, "some text", got.Body)
			require.Equal(t, "/a?b", got.Target)
			require.Equal(t, []string{"a=1; b=2"}, got.Header["Cookie"])
			require.Equal(t, g.cfg.Encrypted, got.Header.Get("X-Forwarded-Proto") == "https")
			require.Equal(t, map[bool]string{true: "2 mep", false: "1.1 mep"}[a.ProtoMajor == 2], got.Header.Get("Via"))
		}
	}
}

func TestLargeBodiesPassInBothDirections(t *testing.T) {
	t.Parallel()
	const size = 100 << 20
	w := newWorld(t)
	g := w.gate()
	w.named("up", serve(t, func(w http.ResponseWriter, r *http.Request) {
		h := sha256.New()
		n, err := io.Copy(h, r.Body)
		_, _ = fmt.Fprintf(w, "%d %s %v", n, sum(h), err)
	}).URL)
	w.named("down", serve(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.Copy(w, &noise{size}) }).URL)
	p := anybody
	p.MaxBody = -1
	w.policy("up", p)
	w.policy("down", p)
	want := sha256.New()
	_, _ = io.Copy(want, &noise{size})

	var peak atomic.Uint64
	ctx, cancel := context.WithCancel(t.Context())
	watched := make(chan struct{})
	var before runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	go func() {
		defer close(watched)
		for ctx.Err() == nil {
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			peak.Store(max(peak.Load(), m.HeapAlloc))
			select {
			case <-time.After(20 * time.Millisecond):
			case <-ctx.Done():
			}
		}
	}()
	a, err := g.try(http.MethodPost, "/services/up/", &noise{size})
	require.NoError(t, err)
	require.Equal(t, fmt.Sprintf("%d %s <nil>", size, sum(want)), a.body)
	resp, err := g.client.Get(g.URL() + "/services/down/")
	require.NoError(t, err)
	got := sha256.New()
	_, err = io.Copy(got, resp.Body)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	require.Equal(t, sum(want), sum(got))
	cancel()
	<-watched
	require.Less(t, int64(peak.Load())-int64(before.HeapAlloc), int64(64<<20), "bodies are not held in memory")
}

// TestABodyCanBeAnsweredWhileItIsSent lets an upstream answer before it has read the whole body.
func TestABodyCanBeAnsweredWhileItIsSent(t *testing.T) {
	t.Parallel()
	const size = 4 << 20
	w := newWorld(t)
	h := func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).EnableFullDuplex() // HTTP/2 is always full-duplex
		w.WriteHeader(http.StatusOK)
		_ = http.NewResponseController(w).Flush()
		h := sha256.New()
		n, err := io.Copy(h, r.Body)
		_, _ = fmt.Fprintf(w, "%d %s %v", n, sum(h), err)
	}
	w.named("plain", serve(t, h).URL)
	w.named("h2c", serveH2C(t, h))
	for _, name := range []string{"plain", "h2c"} {
		w.policy(name, anybody)
	}
	want := sha256.New()
	_, _ = io.Copy(want, &noise{size})
	g := w.gate()
	for name, client := range map[string]*http.Transport{"HTTP/1.1": {}, "HTTP/2": {Protocols: unencrypted()}} {
		defer client.CloseIdleConnections()
		for _, service := range []string{"plain", "h2c"} {
			for _, length := range []int64{-1, size} {
				t.Run(fmt.Sprintf("%s to %s, length %d", name, service, length), func(t *testing.T) {
					body, in := io.Pipe()
					r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, g.URL()+"/services/"+service+"/", body)
					require.NoError(t, err)
					r.ContentLength = length
					begun := make(chan struct{})
					written := make(chan struct{})
					go func() {
						n := &noise{size}
						_, err := io.CopyN(in, n, 100)
						<-begun // the header of the answer has arrived, most of the body has not been sent
						if err == nil {
							_, _ = io.Copy(in, n)
						}
						_ = in.Close()
						close(written) // the outcome shows in what arrived
					}()
					resp, err := client.RoundTrip(r)
					if err != nil {
						close(begun)
						_ = body.Close()
						<-written
						require.NoError(t, err)
					}
					close(begun)
					answer := readUpTo(resp.Body, 1000)
					_ = resp.Body.Close()
					_ = body.Close()
					<-written
					require.Equal(t, fmt.Sprintf("%d %s <nil>", size, sum(want)), string(answer))
				})
			}
		}
	}
}

func TestEventsComeAtOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	g := w.gate()
	for name, transport := range map[string]*http.Transport{"one": {}, "two": {Protocols: unencrypted()}} {
		next := make(chan string)
		w.named(name, serve(t, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "text/event-stream")
			for {
				select {
				case text := <-next:
					_, _ = io.WriteString(w, "data: "+text+"\n\n")
					_ = http.NewResponseController(w).Flush()
				case <-r.Context().Done():
					return
				}
			}
		}).URL)
		w.policy(name, anybody)
		defer transport.CloseIdleConnections()
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, g.URL()+"/services/"+name+"/", nil)
		require.NoError(t, err)
		go func() { next <- "0" }()
		resp, err := transport.RoundTrip(r)
		require.NoError(t, err)
		in := bufio.NewReader(resp.Body)
		for i := range 3 {
			if i > 0 {
				next <- fmt.Sprint(i) // sent only now: what came before did not wait for it
			}
			line, err := in.ReadString('\n')
			require.NoError(t, err)
			require.Equal(t, fmt.Sprintf("data: %d\n", i), line)
			_, err = in.Discard(1)
			require.NoError(t, err)
		}
		cancel()
		_ = resp.Body.Close()
	}
}

func TestContinueIsAskedForBeforeABodyIsSent(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	g := w.gate()
	w.named("hello", mirrorOf(t).URL)
	w.named("no", serve(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusExpectationFailed) }).URL)
	for _, name := range []string{"hello", "no"} {
		w.policy(name, anybody)
	}
	head := func(path string) string {
		return "POST " + path + " HTTP/1.1\nHost: a\nContent-Length: 4\nExpect: 100-continue\nX-Request-Id: mine\n\n"
	}
	l := g.dial()
	l.send(head("/services/hello/"))
	a := l.answer()
	require.Equal(t, http.StatusContinue, a.StatusCode)
	l.write("body")
	for a = l.answer(); a.StatusCode == http.StatusContinue; a = l.answer() { // that of the upstream may arrive, too
		continue
	}
	require.Equal(t, http.StatusOK, a.StatusCode)
	require.Equal(t, "body", a.seen(t).Body)
	require.Equal(t, "mine", a.Header.Get("X-Request-Id"))
	// A refusal comes before the body is sent.
	for path, status := range map[string]int{"/services/no/": 417, "/services/none/": 401, "/none": 404, "/services/..": 400} {
		l := g.dial()
		l.send(head(path))
		require.Equal(t, status, l.answer().StatusCode, path)
	}
}

func TestTrailers(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	g := w.gate()
	h := func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Trailer", "X-Sum")
		_, _ = io.Copy(w, r.Body)
		w.Header().Set("X-Sum", "12")
		w.Header().Set(http.TrailerPrefix+"X-Late", "1")
	}
	w.named("plain", serve(t, h).URL)
	w.named("h2c", serveH2C(t, h))
	for _, name := range []string{"plain", "h2c"} {
		w.policy(name, anybody)
	}
	for _, transport := range []*http.Transport{{}, {Protocols: unencrypted()}} {
		defer transport.CloseIdleConnections()
		for _, name := range []string{"plain", "h2c"} {
			r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, g.URL()+"/services/"+name+"/", strings.NewReader("a body"))
			require.NoError(t, err)
			resp, err := transport.RoundTrip(r)
			require.NoError(t, err)
			require.Equal(t, "a body", string(readUpTo(resp.Body, 100)))
			_ = resp.Body.Close()
			require.Equal(t, "12", resp.Trailer.Get("X-Sum"), name)
			require.Equal(t, "1", resp.Trailer.Get("X-Late"), name)
		}
	}
}

// TestTrailersThatAreFarTooLong sends endless trailers in requests and in answers.
func TestTrailersThatAreFarTooLong(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	g := w.gate()
	w.named("hello", serve(t, func(w http.ResponseWriter, r *http.Request) {
		_, err := io.Copy(io.Discard, r.Body)
		_, _ = fmt.Fprint(w, err == nil)
	}).URL)
	w.named("huge", acceptor(t, func(c net.Conn) {
		if _, err := http.ReadRequest(bufio.NewReader(c)); err != nil {
			return
		}
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n")
		for {
			if _, err := io.WriteString(c, "X: "+strings.Repeat("x", 4000)+"\r\n"); err != nil {
				return
			}
		}
	}))
	for _, name := range []string{"hello", "huge"} {
		w.policy(name, anybody)
	}
	l := g.dial()
	l.send("GET /services/huge/ HTTP/1.1\nHost: a\n\n")
	_, err := l.response(http.MethodGet)
	require.Error(t, err)

	l = g.dial()
	l.send("POST /services/hello/ HTTP/1.1\nHost: a\nTransfer-Encoding: chunked\n\n2\nok\n0\n")
	go func() {
		for {
			if _, err := io.WriteString(l.Conn, "X: "+strings.Repeat("x", 4000)+"\r\n"); err != nil {
				return
			}
		}
	}()
	a, err := l.response(http.MethodPost)
	if err == nil {
		require.NotEqual(t, http.StatusOK, a.StatusCode)
	}
	require.NoError(t, l.Close())
}

func TestCancellationReachesTheUpstream(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	g := w.gate()
	came, cancelled := make(chan struct{}, 1), make(chan struct{}, 1)
	slow := func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("begin") != "" {
			_, _ = io.WriteString(w, "x")
			_ = http.NewResponseController(w).Flush()
		}
		came <- struct{}{}
		<-r.Context().Done()
		cancelled <- struct{}{}
	}
	w.named("plain", serve(t, slow).URL)
	w.named("h2c", serveH2C(t, slow))
	for _, name := range []string{"plain", "h2c"} {
		w.policy(name, anybody)
	}
	for _, transport := range []*http.Transport{{}, {Protocols: unencrypted()}} {
		defer transport.CloseIdleConnections()
		for _, path := range []string{"plain/", "plain/?begin=1", "h2c/", "h2c/?begin=1"} {
			ctx, cancel := context.WithCancel(t.Context())
			r, err := http.NewRequestWithContext(ctx, http.MethodGet, g.URL()+"/services/"+path, nil)
			require.NoError(t, err)
			go func() {
				<-came
				cancel()
			}()
			resp, err := transport.RoundTrip(r)
			if err == nil {
				_, err = io.ReadAll(resp.Body)
				_ = resp.Body.Close()
			}
			require.ErrorIs(t, err, context.Canceled)
			select {
			case <-cancelled:
			case <-time.After(10 * time.Second):
				require.Fail(t, "the upstream works on", path)
			}
		}
	}
}

func TestAnUpstreamThatBreaksOff(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	g := w.gate()
	reset := func(conn net.Conn, text string) {
		if _, err := http.ReadRequest(bufio.NewReader(conn)); err != nil {
			return
		}
		_, _ = io.WriteString(conn, text)
		_ = conn.(*net.TCPConn).SetLinger(0)
	}
	w.named("before", acceptor(t, func(c net.Conn) { reset(c, "") }))
	w.named("within", acceptor(t, func(c net.Conn) { reset(c, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc") }))
	w.named("chunked", acceptor(t, func(c net.Conn) { reset(c, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n") }))
	w.named("h2c", serveH2C(t, func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "abc")
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	}))
	for _, name := range []string{"before", "within", "chunked", "h2c"} {
		w.policy(name, anybody)
	}
	for _, transport := range []*http.Transport{{}, {Protocols: unencrypted()}} {
		defer transport.CloseIdleConnections()
		g.client.Transport = transport
		require.Equal(t, http.StatusBadGateway, g.do(http.MethodPost, "/services/before/", "x").StatusCode)
		for _, name := range []string{"within", "chunked", "h2c"} {
			_, err := g.try(http.MethodGet, "/services/"+name+"/", nil)
			require.Error(t, err, "%s: what was cut off must not look complete", name)
		}
	}
}

func TestTimeouts(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	g := w.gate()
	hang := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/begin") {
			_, _ = w.Write(bytes.Repeat([]byte("x"), 100<<10))
			_ = http.NewResponseController(w).Flush()
		}
		<-r.Context().Done()
	})
	owner := w.app()
	for name, times := range map[string]api.Timeouts{"response": {Response: "50ms"}, "total": {Total: "50ms"}, "idle": {Idle: "50ms"}} {
		w.service(owner, name, hang.URL)
		p := anybody
		p.Timeouts = times
		w.policy(name, p)
	}
	require.Equal(t, http.StatusGatewayTimeout, g.status("/services/response/"))
	require.Equal(t, http.StatusGatewayTimeout, g.status("/services/total/"))
	for _, name := range []string{"total", "idle"} {
		_, err := g.try(http.MethodGet, "/services/"+name+"/begin", nil)
		require.Error(t, err, "it is cut off in the middle")
		_, isTimeout := errors.AsType[net.Error](err)
		require.False(t, isTimeout && errors.Is(err, context.DeadlineExceeded), "by the gateway, and not by the client's patience")
	}
}

func TestBodiesHaveBounds(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	g := w.gate(func(s *setup) { s.Gateway.MaxBody = 1000 })
	w.named("hello", mirrorOf(t).URL)
	w.policy("hello", anybody)
	w.named("more", mirrorOf(t).URL)
	p := anybody
	p.MaxBody = -1
	w.policy("more", p)
	long := strings.Repeat("x", 1001)
	require.Equal(t, http.StatusOK, g.do(http.MethodPost, "/services/hello/", long[1:]).StatusCode)
	require.Equal(t, http.StatusRequestEntityTooLarge, g.do(http.MethodPost, "/services/hello/", long).StatusCode)
	a, err := g.try(http.MethodPost, "/services/hello/", io.MultiReader(strings.NewReader(long)))
	require.NoError(t, err)
	require.Equal(t, http.StatusRequestEntityTooLarge, a.StatusCode, "also when the length is not said")
	require.Equal(t, http.StatusOK, g.do(http.MethodPost, "/services/more/", long).StatusCode)
}
