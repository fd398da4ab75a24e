package upstream

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/openmep/mep/api/gateway"
)

// reading is what a caller sees of a response.
type reading struct {
	Failed     bool // there was no response
	Status     string
	Proto      string
	Header     http.Header
	Length     int64
	Encoding   []string
	Close      bool
	Body       string
	BodyFailed bool
	Trailer    http.Header
	Interim    []string
}

// pair makes calls in both ways to one target, which sends what it is given and closes the connection.
type pair struct {
	w     *world
	eps   []*Endpoint
	mu    sync.Mutex
	texts map[string]string
	next  int
}

func newPair(t testing.TB) *pair {
	x := &pair{texts: make(map[string]string)}
	url := acceptor(t, func(c net.Conn) {
		go func() {
			defer c.Close()
			r, err := http.ReadRequest(bufio.NewReader(c))
			if err != nil {
				return
			}
			x.mu.Lock()
			text := x.texts[r.URL.RawQuery]
			x.mu.Unlock()
			_, _ = io.WriteString(c, text)
			_ = c.(*net.TCPConn).CloseWrite()
			_, _ = io.Copy(io.Discard, c) // avoids a reset before everything was read
		}()
	})
	x.w = newWorld(t, Config{})
	x.eps = x.w.endpoints(x.w.profile(gateway.Upstream{}, gateway.Timeouts{}), url)
	return x
}

// read makes a call in one of the ways.
func (x *pair) read(t require.TestingT, method, text string, directly bool) reading {
	x.mu.Lock()
	x.next++
	key := strconv.Itoa(x.next)
	x.texts[key] = text
	x.mu.Unlock()
	var v reading
	ctx, cancel := context.WithCancel(httptrace.WithClientTrace(context.Background(), &httptrace.ClientTrace{
		Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
			v.Interim = append(v.Interim, fmt.Sprint(code, h))
			return nil
		},
	}))
	defer cancel()
	// Each call uses a connection of its own: the target closes the connection, but maybe too late.
	e := x.eps[0]
	r, err := http.NewRequestWithContext(ctx, method, e.key.url+"/?"+key, nil)
	require.NoError(t, err)
	l := e.lanes.Load()
	var resp *http.Response
	if directly {
		require.True(t, takes(r))
		defer func() { l.direct.sweep(time.Now().Add(idleFor)) }()
		resp, err = l.direct.roundTrip(r, e.target.address)
	} else {
		defer l.plain.CloseIdleConnections()
		resp, err = l.plain.RoundTrip(r)
	}
	if err != nil {
		return reading{Failed: true}
	}
	body, err := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	v.Status, v.Proto, v.Header, v.Length = resp.Status, resp.Proto, resp.Header, resp.ContentLength
	v.Encoding, v.Close, v.Body, v.BodyFailed, v.Trailer = resp.TransferEncoding, resp.Close, string(body), err != nil, resp.Trailer
	return v
}

// agree makes a call in both ways, which must have the same result. A 101 response to a request that asked for no other protocol is an
// error of direct calls, whereas net/http returns it and leaves the check to the caller.
func (x *pair) agree(t require.TestingT, method, text string) {
	want, got := x.read(t, method, text, false), x.read(t, method, text, true)
	if strings.HasPrefix(want.Status, "101") {
		require.True(t, got.Failed)
		return
	}
	if got.Failed && want.Failed {
		return
	}
	require.Equal(t, want, got, "%s %q", method, text)
}

// FuzzDirect compares direct calls with those of an http.Transport.
func FuzzDirect(f *testing.F) {
	for _, text := range []string{
		okay, "", "HTTP/1.1 200 OK\r\n\r\nall", "HTTP/1.0 200 OK\r\n\r\nall", "HTTP/1.1 204 No Content\r\n\r\n", "HTTP/1.1 304 x\r\nContent-Length: 5\r\n\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: A\r\n\r\n2\r\nok\r\n0\r\nA: 1\r\nB: 2\r\n\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n2;x=y\r\nok\r\n0\r\n\r\n", "HTTP/1.1 100 Continue\r\n\r\n" + okay,
		"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + okay, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf", okay + okay,
		"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok", "HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\nok",
		"HTTP/1.1 042 x\r\n\r\n", "HTTP/1.1 101 x\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n", "HTTP/1.1 101 x\r\n\r\n", "HTTP/9.9 200 OK\r\n\r\n",
		"HTTP/1.1 200 OK\nContent-Length: 2\n\nok", "HTTP/1.1 200 OK\r\n folded: 1\r\n\r\n", "HTTP/1.1 200 OK\r\nA: 1\r\n 2\r\n\r\n", "HTTP/1.1 200\r\n\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nContent-Length: 1\r\n\r\n", "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\nok", "HTTP/1.1 408 Request Timeout\r\n\r\n", "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n",
	} {
		for method := range byte(4) {
			f.Add(method, text)
		}
	}
	x := newPair(f)
	methods := []string{http.MethodGet, http.MethodHead, http.MethodPost, http.MethodOptions}
	f.Fuzz(func(t *testing.T, method byte, text string) { x.agree(t, methods[int(method)%len(methods)], text) })
}

// TestDirectCallsAreAsThoseOfNetHTTP composes random responses of valid and invalid parts.
func TestDirectCallsAreAsThoseOfNetHTTP(t *testing.T) {
	x := newPair(t)
	field := rapid.SampledFrom([]string{
		"A: 1", "A: 2", "Content-Length: 5", "Content-Length: 0", "Content-Length: 9000", "Content-Length: x", "Transfer-Encoding: chunked",
		"Transfer-Encoding: identity", "Connection: close", "Connection: keep-alive", "Trailer: T", "Trailer: Content-Length", "Pragma: no-cache",
		"bad", ": bad", "Set-Cookie: a=b", "X: " + strings.Repeat("x", 5000), " folded", "Date:", "Keep-Alive: timeout=5", "A : 1",
	})
	body := rapid.SampledFrom([]string{
		"", "12345", "123456789", strings.Repeat("y", 9000), "5\r\n12345\r\n0\r\n\r\n", "5\r\n12345\r\n0\r\nT: 1\r\nU: 2\r\n\r\n", "5\r\n12345\r\n0\r\n",
		"5\r\n12345", "z\r\n", "5\r\n1234567\r\n0\r\n\r\n", "2328\r\n" + strings.Repeat("z", 9000) + "\r\n0\r\n\r\n", "0\r\n\r\n", "0\r\nT: 1\r\n\r\nmore",
	})
	rapid.Check(t, func(t *rapid.T) {
		var b strings.Builder
		for range rapid.IntRange(0, 2).Draw(t, "interim") {
			b.WriteString("HTTP/1.1 " + rapid.SampledFrom([]string{"100 Continue", "102 Processing", "103 Early Hints"}).Draw(t, "status") + "\r\n")
			for _, f := range rapid.SliceOfN(field, 0, 1).Draw(t, "field") {
				b.WriteString(f + "\r\n")
			}
			b.WriteString("\r\n")
		}
		b.WriteString(rapid.SampledFrom([]string{"HTTP/1.1 ", "HTTP/1.1 ", "HTTP/1.0 ", "HTTP/2.0 ", "http/1.1 "}).Draw(t, "version"))
		b.WriteString(rapid.SampledFrom([]string{"200 OK", "200 OK", "204 No Content", "304 Not Modified", "500", "999 x", "20", "1000 x"}).Draw(t, "status"))
		b.WriteString("\r\n")
		for _, f := range rapid.SliceOfN(field, 0, 4).Draw(t, "fields") {
			b.WriteString(f + "\r\n")
		}
		b.WriteString("\r\n" + body.Draw(t, "body"))
		text := b.String()
		if rapid.IntRange(0, 9).Draw(t, "cut") == 0 {
			text = text[:rapid.IntRange(0, len(text)).Draw(t, "at")]
		}
		x.agree(t, rapid.SampledFrom([]string{http.MethodGet, http.MethodHead, http.MethodPost}).Draw(t, "method"), text)
	})
}
