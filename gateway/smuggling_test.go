package gateway_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// acceptor listens, and calls each for every connection, in a goroutine of its own.
func acceptor(tb testing.TB, each func(net.Conn)) string {
	tb.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(tb, err)
	var all sync.WaitGroup
	var mu sync.Mutex
	var conns []net.Conn
	all.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			conns = append(conns, conn)
			mu.Unlock()
			all.Go(func() {
				defer conn.Close()
				each(conn)
			})
		}
	})
	tb.Cleanup(func() {
		_ = ln.Close()
		mu.Lock()
		for _, c := range conns {
			_ = c.Close()
		}
		mu.Unlock()
		all.Wait()
	})
	return "http://" + ln.Addr().String()
}

// TestRequestsAreNotSmuggled sends requests whose ends servers disagree about. However the gateway reads them, it must not pass on a
// request for /smuggled.
func TestRequestsAreNotSmuggled(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	g := w.gate()
	var smuggled atomic.Int64
	up := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.RequestURI, "smuggled") {
			smuggled.Add(1)
		}
		_, _ = io.Copy(io.Discard, r.Body)
		_, _ = fmt.Fprintf(w, "%s %d %v", r.RequestURI, r.ContentLength, r.TransferEncoding)
	})
	w.named("hello", up.URL)
	w.policy("hello", anybody)
	const inner = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
	const head = "POST /services/hello/x HTTP/1.1\r\nHost: a\r\n"
	for name, c := range map[string]struct {
		request string
		status  string // of the first response; "" is none
	}{
		"CL and TE":                     {head + "Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + inner, "200|400"},
		"TE and CL":                     {head + "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n23\r\n" + inner + "\r\n0\r\n\r\n", "200|400"},
		"two TE":                        {head + "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n" + inner, "400|501"},
		"TE: xchunked":                  {head + "Content-Length: 5\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" + inner, "400|501"},
		"TE: chunked, identity":         {head + "Content-Length: 5\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n" + inner, "400|501"},
		"TE: identity, chunked":         {head + "Content-Length: 5\r\nTransfer-Encoding: identity, chunked\r\n\r\n0\r\n\r\n" + inner, "400|501"},
		"TE with a tab":                 {head + "Content-Length: 5\r\nTransfer-Encoding:\tchunked\r\n\r\n0\r\n\r\n", "200|400|501"},
		"TE with a vertical tab":        {head + "Content-Length: 5\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n" + inner, "400|501"},
		"TE with a blank before colon":  {head + "Content-Length: 5\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n" + inner, "400"},
		"TE in quotes":                  {head + "Content-Length: 5\r\nTransfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n" + inner, "400|501"},
		"TE with underscore":            {head + "Transfer_Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n", "200"},
		"two CL that differ":            {head + "Content-Length: 0\r\nContent-Length: 35\r\n\r\n" + inner, "400"},
		"CL list":                       {head + "Content-Length: 0, 35\r\n\r\n" + inner, "400"},
		"CL with a sign":                {head + "Content-Length: +0\r\n\r\n" + inner, "400"},
		"CL that is negative":           {head + "Content-Length: -1\r\n\r\n" + inner, "400"},
		"CL in hexadecimal":             {head + "Content-Length: 0x23\r\n\r\n" + inner, "400"},
		"CL that is too long":           {head + "Content-Length: 18446744073709551616\r\n\r\n" + inner, "400"},
		"folded TE":                     {head + "Content-Length: 5\r\nTransfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n", "200|400|501"},
		"folded field":                  {head + "X-A: b\r\n Content-Length: 35\r\n\r\n" + inner, "400|200"},
		"a field without name":          {head + ": 1\r\n\r\n", "400"},
		"a blank first line of fields":  {"GET /services/hello/ HTTP/1.1\r\n X: y\r\nHost: a\r\n\r\n", "400"},
		"bare CR in a field":            {head + "X-A: b\rTransfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n", "400"},
		"NUL in a field":                {head + "X-A: b\x00c\r\nContent-Length: 0\r\n\r\n", "400"},
		"bare LF in the chunk's size":   {head + "Transfer-Encoding: chunked\r\n\r\n5\nAAAAA\r\n0\r\n\r\n", "400|502|200"},
		"chunk extension with bare LF":  {head + "Transfer-Encoding: chunked\r\n\r\n2;\nxx\r\n23\r\n" + inner + "0\r\n\r\n", "400|502|"},
		"chunk extensions":              {head + "Transfer-Encoding: chunked\r\n\r\n2;a=\"b\"\r\nxx\r\n0\r\n\r\n", "200"},
		"chunk size with blank":         {head + "Transfer-Encoding: chunked\r\n\r\n2 \r\nxx\r\n0\r\n\r\n", "200|400|502"},
		"chunk size with 0x":            {head + "Transfer-Encoding: chunked\r\n\r\n0x2\r\nxx\r\n0\r\n\r\n" + inner, "400|502"},
		"chunk size that is too long":   {head + "Transfer-Encoding: chunked\r\n\r\n10000000000000002\r\nxx\r\n0\r\n\r\n" + inner, "400|502"},
		"chunk longer than its size":    {head + "Transfer-Encoding: chunked\r\n\r\n2\r\nxxxx\r\n0\r\n\r\n" + inner, "400|502"},
		"GET with a body":               {"GET /services/hello/x HTTP/1.1\r\nHost: a\r\nContent-Length: 35\r\n\r\n" + inner, "200"},
		"HTTP/1.0 with TE":              {"POST /services/hello/x HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + inner, "200|400|501"},
		"HTTP/0.9":                      {"GET /services/hello/x\r\n\r\n" + inner, "400"},
		"HTTP/2.0 without preface":      {"GET /services/hello/x HTTP/2.0\r\nHost: a\r\n\r\n", "400|505"},
		"HTTP/1.2":                      {"GET /services/hello/x HTTP/1.2\r\nHost: a\r\nContent-Length: 0\r\n\r\n", "200|505"},
		"a line break in the target":    {"GET /services/hello/x\nX: y HTTP/1.1\r\nHost: a\r\n\r\n", "400"},
		"a tab in the request line":     {"GET\t/services/hello/x\tHTTP/1.1\r\nHost: a\r\n\r\n", "400"},
		"two blanks in the line":        {"GET  /services/hello/x HTTP/1.1\r\nHost: a\r\n\r\n", "400"},
		"a method that is none":         {"G@T /services/hello/x HTTP/1.1\r\nHost: a\r\n\r\n", "400"},
		"CONNECT":                       {"CONNECT 127.0.0.1:80 HTTP/1.1\r\nHost: a\r\n\r\n", "405|400"},
		"TRACE":                         {"TRACE /services/hello/x HTTP/1.1\r\nHost: a\r\n\r\n", "405"},
		"PRI":                           {"PRI * HTTP/1.1\r\nHost: a\r\n\r\n", "400|404|405"},
		"Expect that nobody understand": {head + "Expect: magic\r\nContent-Length: 0\r\n\r\n", "200|417"},
		"Trailer: Content-Length":       {head + "Trailer: Content-Length\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nContent-Length: 9\r\n\r\n", "200|400|502"},
		"trailer that says who calls":   {head + "Trailer: X-AppInstanceID\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX-AppInstanceID: me\r\n\r\n", "200"},
	} {
		t.Run(name, func(t *testing.T) {
			g := g.in(t)
			l := g.dial()
			l.write(c.request)
			require.NoError(t, l.SetDeadline(time.Now().Add(3*time.Second)))
			first := ""
			for i := range 3 {
				a, err := l.response(http.MethodPost)
				if err != nil {
					break
				}
				if i == 0 {
					first = fmt.Sprint(a.StatusCode)
					_ = l.Conn.(*net.TCPConn).CloseWrite() // nothing more is sent
				}
				require.NotEqual(t, http.StatusOK, map[bool]int{true: a.StatusCode}[strings.Contains(a.body, "smuggled")], a.body)
			}
			require.Contains(t, strings.Split(c.status, "|"), first)
		})
	}
	require.Zero(t, smuggled.Load())
}

// TestUpstreamsGetOneRequestEach checks on the wire that a request that is passed on has one length, whatever the client said.
func TestUpstreamsGetOneRequestEach(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	g := w.gate()
	heads := make(chan string, 16)
	w.named("raw", acceptor(t, func(c net.Conn) {
		in := bufio.NewReader(c)
		var head strings.Builder
		for line := ""; line != "\r\n"; {
			var err error
			if line, err = in.ReadString('\n'); err != nil {
				return
			}
			head.WriteString(line)
		}
		heads <- head.String()
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
	}))
	w.policy("raw", anybody)
	for _, framing := range []string{"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "Content-Length: 2\r\n\r\nxx", "\r\n"} {
		l := g.dial()
		l.write("POST /services/raw/x HTTP/1.1\r\nHost: a\r\nX-A: b\r\n" + framing)
		_, _ = l.response(http.MethodPost)
		select {
		case head := <-heads:
			lower := strings.ToLower(head)
			require.LessOrEqual(t, strings.Count(lower, "content-length:")+strings.Count(lower, "transfer-encoding:"), 1, head)
			require.Equal(t, 1, strings.Count(lower, "\r\nhost:"), head)
		case <-time.After(10 * time.Second):
			require.Fail(t, "nothing arrived")
		}
	}
}

// TestUpstreamsThatLie answers with malformed responses, or with ones that do not end where they say.
func TestUpstreamsThatLie(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	g := w.gate()
	responses := map[string]struct {
		response string
		status   int  // 0: no answer that is complete
		whole    bool // the body is complete
	}{
		"less than promised":        {"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc", 200, false},
		"more than promised":        {"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabcHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx", 200, true},
		"two lengths":               {"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd", 502, true},
		"a length and chunks":       {"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", 200, true},
		"chunks without end":        {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", 200, false},
		"chunks that are none":      {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nzz\r\n", 200, false},
		"no HTTP":                   {"SSH-2.0-OpenSSH_9\r\n", 502, true},
		"nothing":                   {"", 502, true},
		"half a header":             {"HTTP/1.1 200 OK\r\nX: y", 502, true},
		"a status that is none":     {"HTTP/1.1 99 What\r\nContent-Length: 0\r\n\r\n", 502, true},
		"a status of four digits":   {"HTTP/1.1 2000 What\r\nContent-Length: 0\r\n\r\n", 502, true},
		"a field that is none":      {"HTTP/1.1 200 OK\r\nbad field\r\n\r\n", 502, true},
		"a header without end":      {"HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", 2<<20), 502, true},
		"101 that nobody asked for": {"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nraw", 502, true},
		"101 to another protocol":   {"HTTP/1.1 101 Switching Protocols\r\n\r\nraw", 502, true},
		"a body without length":     {"HTTP/1.0 200 OK\r\n\r\nabc", 200, true},
		"204 with a body":           {"HTTP/1.1 204 No Content\r\nContent-Length: 3\r\n\r\nabc", 204, true},
	}
	for name, c := range responses {
		t.Run(name, func(t *testing.T) {
			g := g.in(t)
			service := strings.ReplaceAll(name, " ", "-")
			w.named(service, acceptor(t, func(conn net.Conn) {
				if _, err := http.ReadRequest(bufio.NewReader(conn)); err != nil {
					return
				}
				_, _ = io.WriteString(conn, c.response)
			}))
			w.policy(service, anybody)
			l := g.dial()
			l.send("GET /services/" + service + "/ HTTP/1.1\nHost: a\n\n")
			if !c.whole {
				resp, err := http.ReadResponse(l.in, nil)
				require.NoError(t, err, "what came is passed on")
				defer resp.Body.Close()
				require.Equal(t, c.status, resp.StatusCode)
				body, err := io.ReadAll(resp.Body)
				require.Error(t, err, "a body that was cut off must not look complete")
				require.Equal(t, "abc", string(body))
				return
			}
			a, err := l.response(http.MethodGet)
			require.NoError(t, err)
			require.Equal(t, c.status, a.StatusCode, a.body)
			// The connection to the client is still usable, and nothing of the lie is left in it.
			l.send("GET /none HTTP/1.1\nHost: a\nConnection: close\n\n")
			if a.Close {
				return
			}
			require.Equal(t, http.StatusNotFound, l.answer().StatusCode)
		})
	}
}

// TestAFloodOfInterimResponsesEnds lets an upstream send 103 responses without end.
func TestAFloodOfInterimResponsesEnds(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	g := w.gate()
	w.named("flood", acceptor(t, func(conn net.Conn) {
		if _, err := http.ReadRequest(bufio.NewReader(conn)); err != nil {
			return
		}
		for {
			if _, err := io.WriteString(conn, "HTTP/1.1 103 Early Hints\r\nLink: <"+strings.Repeat("x", 500)+">\r\n\r\n"); err != nil {
				return
			}
		}
	}))
	p := anybody
	p.Timeouts.Response = "300ms"
	w.policy("flood", p)
	l := g.dial()
	l.send("GET /services/flood/ HTTP/1.1\nHost: a\n\n")
	for {
		a, err := l.response(http.MethodGet)
		if err != nil {
			require.Fail(t, "no final response", err.Error())
		}
		if a.StatusCode != http.StatusEarlyHints {
			require.Contains(t, []int{502, 504}, a.StatusCode)
			return
		}
	}
}
