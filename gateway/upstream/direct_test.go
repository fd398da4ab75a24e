package upstream

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/api/gateway"
)

// talker is a target that answers with the exact bytes a test provides.
type talker struct {
	url                 string
	connections, served atomic.Int32
	ended               chan struct{} // receives once per connection that ended
}

// talk starts a talker. answer gets each request with its connection, and reports whether the connection stays open.
func talk(t testing.TB, answer func(c net.Conn, r *http.Request) bool) *talker {
	k := &talker{ended: make(chan struct{}, 1000)}
	k.url = acceptor(t, func(c net.Conn) {
		k.connections.Add(1)
		go func() {
			defer func() {
				_ = c.Close()
				k.ended <- struct{}{}
			}()
			in := bufio.NewReader(c)
			for {
				r, err := http.ReadRequest(in)
				if err != nil {
					return
				}
				_, _ = io.Copy(io.Discard, r.Body)
				k.served.Add(1)
				if !answer(c, r) {
					return
				}
			}
		}()
	})
	return k
}

// says returns a talker that answers each request with the same bytes.
func says(t testing.TB, text string, goesOn bool) *talker {
	return talk(t, func(c net.Conn, _ *http.Request) bool {
		_, _ = io.WriteString(c, text)
		return goesOn
	})
}

const okay = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

// directTo returns an endpoint that is called directly.
func directTo(w *world, u gateway.Upstream, t gateway.Timeouts, target string) (*Profile, []*Endpoint, *direct) {
	w.t.Helper()
	p := w.profile(u, t)
	eps := w.endpoints(p, target)
	d := eps[0].lanes.Load().direct
	require.NotNil(w.t, d)
	return p, eps, d
}

func (d *direct) waiting(addr string) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.idle[addr])
}

func TestResponsesThatAreReadDirectly(t *testing.T) {
	for name, c := range map[string]struct {
		method  string
		says    string
		status  int
		body    string
		trailer http.Header
		again   bool // the connection can be reused
		closes  bool // the target closes the connection
	}{
		"of known length":      {says: okay, status: 200, body: "ok", again: true},
		"empty":                {says: "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", status: 200, again: true},
		"longer than a buffer": {says: "HTTP/1.1 200 OK\r\nContent-Length: 9000\r\n\r\n" + strings.Repeat("x", 9000), status: 200, body: strings.Repeat("x", 9000), again: true},
		"chunked":              {says: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", status: 200, body: "ok", again: true},
		"chunked and empty":    {says: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", status: 200, again: true},
		"with trailers": {
			says:   "HTTP/1.1 200 OK\r\nTrailer: Sum\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nSum: 7\r\nMore: 8\r\n\r\n",
			status: 200, body: "ok", trailer: http.Header{"Sum": {"7"}, "More": {"8"}}, again: true,
		},
		"to HEAD":                     {method: http.MethodHead, says: "HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n", status: 200, again: true},
		"to HEAD, chunked":            {method: http.MethodHead, says: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", status: 200, again: true},
		"to HEAD, without length":     {method: http.MethodHead, says: "HTTP/1.1 200 OK\r\n\r\n", status: 200, again: true},
		"to POST":                     {method: http.MethodPost, says: okay, status: 200, body: "ok", again: true},
		"204":                         {says: "HTTP/1.1 204 No Content\r\n\r\n", status: 204, again: true},
		"204 with a length":           {says: "HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n", status: 204, again: true},
		"304 with a length":           {says: "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", status: 304, again: true},
		"after 100":                   {says: "HTTP/1.1 100 Continue\r\n\r\n" + okay, status: 200, body: "ok", again: true},
		"after 103, twice":            {says: "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 103 Early Hints\r\n\r\n" + okay, status: 200, body: "ok", again: true},
		"which says it is the last":   {says: "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok", status: 200, body: "ok"},
		"without length":              {says: "HTTP/1.1 200 OK\r\n\r\nuntil the end", status: 200, body: "until the end", closes: true},
		"of HTTP/1.0":                 {says: "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", status: 200, body: "ok"},
		"of HTTP/1.0, without length": {says: "HTTP/1.0 200 OK\r\n\r\nuntil the end", status: 200, body: "until the end", closes: true},
		"of HTTP/1.0, kept":           {says: "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok", status: 200, body: "ok", again: true},
		"with more after it":          {says: okay + "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged", status: 200, body: "ok"},
		"without body, more after":    {says: "HTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged", status: 204},
		"404":                         {says: "HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nno", status: 404, body: "no", again: true},
	} {
		t.Run(name, func(t *testing.T) {
			k := says(t, c.says, !c.closes)
			w := newWorld(t, Config{})
			p, eps, d := directTo(w, gateway.Upstream{Retries: -1}, gateway.Timeouts{}, k.url)
			if c.method == "" {
				c.method = http.MethodGet
			}
			for range 3 {
				a, err := w.send(p, eps, request(t, c.method, "/", nil))
				require.NoError(t, err)
				require.Equal(t, c.status, a.StatusCode)
				require.Equal(t, c.body, a.body)
				require.Equal(t, c.trailer, a.Trailer)
				require.Zero(t, eps[0].View().Active)
			}
			if c.again {
				require.EqualValues(t, 1, k.connections.Load())
				require.Equal(t, 1, d.waiting(eps[0].target.address))
			} else {
				require.EqualValues(t, 3, k.connections.Load())
				require.Zero(t, d.waiting(eps[0].target.address))
			}
			require.Zero(t, eps[0].View().Failures)
		})
	}
}

func TestResponsesThatAreNone(t *testing.T) {
	for name, text := range map[string]string{
		"nothing":                 "",
		"a part of a header":      "HTTP/1.1 200 OK\r\nContent-Le",
		"no HTTP":                 "SSH-2.0-OpenSSH\r\n\r\n",
		"a bad field":             "HTTP/1.1 200 OK\r\nbad\r\n\r\n",
		"two lengths":             "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nok",
		"another encoding":        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
		"a protocol of its own":   "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n",
		"only an interim one":     "HTTP/1.1 100 Continue\r\n\r\n",
		"a header without end":    "HTTP/1.1 200 OK\r\n" + strings.Repeat("X: "+strings.Repeat("x", 1000)+"\r\n", 300),
		"a field without end":     "HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", maxHeader),
		"a status line that long": "HTTP/1.1 200 " + strings.Repeat("x", maxHeader),
	} {
		t.Run(name, func(t *testing.T) {
			k := says(t, text, false)
			w := newWorld(t, Config{})
			p, eps, d := directTo(w, gateway.Upstream{Retries: -1}, gateway.Timeouts{}, k.url)
			_, err := w.send(p, eps, request(t, http.MethodGet, "/", nil))
			var failed *Error
			require.ErrorAs(t, err, &failed)
			require.Equal(t, http.StatusBadGateway, failed.Status)
			require.EqualValues(t, 1, eps[0].View().Failures)
			require.Zero(t, d.waiting(eps[0].target.address))
		})
	}
}

func TestBodiesThatBreakOff(t *testing.T) {
	for name, text := range map[string]string{
		"of known length":         "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf",
		"chunked":                 "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
		"chunked, before the end": "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n0\r\n",
		"a chunk of no length":    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\nzz\r\n",
		"a trailer without end":   "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n0\r\n" + strings.Repeat("X: x\r\n", wireBuffer),
	} {
		t.Run(name, func(t *testing.T) {
			k := says(t, text, false)
			w := newWorld(t, Config{})
			p, eps, d := directTo(w, gateway.Upstream{}, gateway.Timeouts{}, k.url)
			a, err := w.send(p, eps, request(t, http.MethodGet, "/", nil))
			require.Error(t, err)
			require.Equal(t, "half", a.body)
			require.Zero(t, d.waiting(eps[0].target.address))
			require.Zero(t, eps[0].View().Active)
		})
	}
}

// TestAResponseBeforeItsRequest has the target answer before it reads anything.
func TestAResponseBeforeItsRequest(t *testing.T) {
	var kept []net.Conn
	target := acceptor(t, func(c net.Conn) {
		kept = append(kept, c)
		_, _ = io.WriteString(c, okay)
	})
	t.Cleanup(func() {
		for _, c := range kept {
			_ = c.Close()
		}
	})
	w := newWorld(t, Config{})
	p, eps, _ := directTo(w, gateway.Upstream{}, gateway.Timeouts{}, target)
	require.Equal(t, "ok", w.get(p, eps, "/").body)
}

func TestConnectionsThatWereClosedOrSpokeUpAreNotUsed(t *testing.T) {
	for name, more := range map[string]string{"closed": "", "spoke up": "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged"} {
		t.Run(name, func(t *testing.T) {
			read, ready := make(chan struct{}), make(chan struct{})
			k := talk(t, func(c net.Conn, _ *http.Request) bool {
				_, _ = io.WriteString(c, okay)
				<-read
				if more == "" {
					_ = c.Close()
				} else {
					_, _ = io.WriteString(c, more)
				}
				ready <- struct{}{}
				return more != ""
			})
			w := newWorld(t, Config{})
			p, eps, _ := directTo(w, gateway.Upstream{Retries: -1}, gateway.Timeouts{}, k.url)
			for i, method := range []string{http.MethodGet, http.MethodPost, http.MethodPatch, http.MethodDelete} {
				a, err := w.send(p, eps, request(t, method, "/", nil))
				require.NoError(t, err, method)
				require.Equal(t, "ok", a.body)
				require.EqualValues(t, i+1, k.connections.Load())
				read <- struct{}{}
				<-ready
			}
			require.Zero(t, eps[0].View().Failures)
		})
	}
}

// TestWhatMayHaveArrivedIsSentAgainByTheRulesOfNetHTTP has the target close a reused connection when it reads a request.
func TestWhatMayHaveArrivedIsSentAgainByTheRulesOfNetHTTP(t *testing.T) {
	for method, again := range map[string]bool{
		http.MethodGet: true, http.MethodHead: true, http.MethodOptions: true, http.MethodPost: false, http.MethodDelete: false,
		http.MethodPut: false, http.MethodPatch: false, "POST with a key": true,
	} {
		t.Run(method, func(t *testing.T) {
			var first atomic.Bool
			k := talk(t, func(c net.Conn, r *http.Request) bool {
				if r.Header.Get("Break") != "" && first.CompareAndSwap(false, true) {
					return false
				}
				text := okay
				if r.Method == http.MethodHead {
					text = "HTTP/1.1 204 No Content\r\n\r\n"
				}
				_, _ = io.WriteString(c, text)
				return true
			})
			w := newWorld(t, Config{})
			p, eps, _ := directTo(w, gateway.Upstream{Retries: -1}, gateway.Timeouts{}, k.url)
			w.get(p, eps, "/")
			r := request(t, strings.Fields(method)[0], "/", nil)
			if strings.HasSuffix(method, "key") {
				r.Header.Set("Idempotency-Key", "1")
			}
			r.Header.Set("Break", "1")
			_, err := w.send(p, eps, r)
			if again {
				require.NoError(t, err)
				require.EqualValues(t, 3, k.served.Load())
				require.EqualValues(t, 2, k.connections.Load())
				return
			}
			var failed *Error
			require.ErrorAs(t, err, &failed)
			require.EqualValues(t, 2, k.served.Load(), "it is not sent twice")
		})
	}
}

// TestWhatWasNotSentIsSentOverAnotherConnection breaks a connection after it was found to be open.
func TestWhatWasNotSentIsSentOverAnotherConnection(t *testing.T) {
	k := says(t, okay, true)
	for name, bound := range map[string]gateway.Duration{"with a bound": "1m", "without": "0s"} {
		w := newWorld(t, Config{})
		_, eps, d := directTo(w, gateway.Upstream{}, gateway.Timeouts{Response: bound}, k.url)
		addr := eps[0].target.address
		for _, old := range []bool{true, false} {
			conn, err := d.dial(t.Context(), addr)
			require.NoError(t, err)
			broken, err := newWire(conn, addr)
			require.NoError(t, err)
			broken.old = old
			require.True(t, broken.quiet())
			require.NoError(t, broken.Close())
			require.False(t, broken.quiet())
			o := newOutgoing(request(t, http.MethodPost, "/", nil), eps[0], nil)
			_, again, err := d.exchange(t.Context(), broken, &o.req) //nolint:bodyclose // there is no body
			require.ErrorIs(t, err, net.ErrClosed, name)
			require.Equal(t, old, again, "%s: a new connection that breaks says something of the target", name)
		}
	}
}
