package upstream

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"net/textproto"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/api/gateway"
)

func TestTheRequestIsWrittenAsNetHTTPDoes(t *testing.T) {
	var seen atomic.Pointer[string]
	target := acceptor(t, func(c net.Conn) {
		go func() {
			defer c.Close()
			in := textproto.NewReader(bufio.NewReader(c))
			var lines []string
			for {
				line, err := in.ReadLine()
				if err != nil || line == "" {
					break
				}
				lines = append(lines, line)
			}
			text := strings.Join(lines, "\n")
			seen.Store(&text)
			_, _ = io.WriteString(c, okay)
		}()
	})
	w := newWorld(t, Config{})
	p, eps, _ := directTo(w, gateway.Upstream{}, gateway.Timeouts{}, target+"/base")
	host := strings.TrimPrefix(target, "http://")
	for name, c := range map[string]struct {
		method, path string
		header       http.Header
		want         string
	}{
		"GET":  {http.MethodGet, "/a%2Fb?c=%20d", http.Header{"User-Agent": {"x"}, "B": {"1", "2"}}, "GET /base/a%2Fb?c=%20d HTTP/1.1\nHost: " + host + "\nUser-Agent: x\nB: 1\nB: 2"},
		"POST": {http.MethodPost, "/x", http.Header{"User-Agent": {""}}, "POST /base/x HTTP/1.1\nHost: " + host + "\nContent-Length: 0"},
	} {
		r := request(t, c.method, c.path, nil)
		r.Header = c.header
		_, err := w.send(p, eps, r)
		require.NoError(t, err)
		require.Equal(t, c.want, *seen.Load(), name)
	}
}

// TestRequestsAreNotSplit tries to make two requests out of one, with and without a body.
func TestRequestsAreNotSplit(t *testing.T) {
	k := talk(t, func(c net.Conn, r *http.Request) bool {
		if r.URL.Path == "/injected" || len(r.Header["Injected"]) > 0 {
			t.Error("something was injected")
		}
		_, _ = io.WriteString(c, okay)
		return true
	})
	w := newWorld(t, Config{})
	p, eps, _ := directTo(w, gateway.Upstream{Retries: -1}, gateway.Timeouts{}, k.url)
	const more = "\r\nInjected: 1\r\n\r\nGET /injected HTTP/1.1\r\nHost: x\r\n\r\n"
	for name, spoil := range map[string]func(r *http.Request){
		"value":          func(r *http.Request) { r.Header["X"] = []string{"1" + more} },
		"value, LF only": func(r *http.Request) { r.Header["X"] = []string{strings.ReplaceAll("1"+more, "\r", "")} },
		"name":           func(r *http.Request) { r.Header["X: 1"+more] = []string{"1"} },
		"user agent":     func(r *http.Request) { r.Header["User-Agent"] = []string{"x" + more} },
		"path":           func(r *http.Request) { r.URL.Path = "/x HTTP/1.1" + more },
		"raw path":       func(r *http.Request) { r.URL.Path, r.URL.RawPath = "/x HTTP/1.1"+more, "/x HTTP/1.1"+more },
		"query":          func(r *http.Request) { r.URL.RawQuery = "x HTTP/1.1" + more },
		"host":           func(r *http.Request) { r.Host = "x" + more },
		"method":         func(r *http.Request) { r.Method = "GET /x HTTP/1.1" + more + "GET" },
	} {
		before := k.served.Load()
		r := request(t, http.MethodGet, "/", nil)
		spoil(r)
		_, err := w.send(p, eps, r)
		sent := k.served.Load() - before
		if err != nil {
			var fault *ClientError
			require.ErrorAs(t, err, &fault, name)
			require.Zero(t, sent, name)
		} else {
			require.EqualValues(t, 1, sent, name)
		}
	}
	require.Zero(t, eps[0].View().Failures)
}

func TestWhatIsNotCalledDirectly(t *testing.T) {
	plain := func(change func(r *http.Request)) *http.Request {
		r := request(t, http.MethodGet, "/", nil)
		change(r)
		return r
	}
	require.True(t, takes(plain(func(*http.Request) {})))
	require.True(t, takes(plain(func(r *http.Request) { r.Body = http.NoBody })))
	for name, change := range map[string]func(r *http.Request){
		"a body":              func(r *http.Request) { r.Body = io.NopCloser(strings.NewReader("x")) },
		"a length only":       func(r *http.Request) { r.ContentLength = 1 },
		"another method":      func(r *http.Request) { r.Method = "PROPFIND" },
		"CONNECT":             func(r *http.Request) { r.Method = http.MethodConnect },
		"an upgrade":          func(r *http.Request) { r.Header = http.Header{"Connection": {"Upgrade"}, "Upgrade": {"websocket"}} },
		"an expectation":      func(r *http.Request) { r.Header.Set("Expect", "100-continue") },
		"trailers":            func(r *http.Request) { r.Trailer = http.Header{"X": nil} },
		"an encoding":         func(r *http.Request) { r.TransferEncoding = []string{"chunked"} },
		"the last request":    func(r *http.Request) { r.Close = true },
		"a long header":       func(r *http.Request) { r.Header.Set("X", strings.Repeat("x", maxDirectHeader)) },
		"a long query":        func(r *http.Request) { r.URL.RawQuery = strings.Repeat("x", maxDirectHeader+1) },
		"a header of nothing": func(r *http.Request) { r.Header["X"] = make([]string, maxDirectHeader) },
		"what cannot be sent": func(r *http.Request) { r.Header["X"] = []string{"\x00"} },
	} {
		require.False(t, takes(plain(change)), name)
	}
	w := newWorld(t, Config{MaxPerHost: 1})
	p := w.profile(gateway.Upstream{}, gateway.Timeouts{})
	require.Nil(t, w.endpoints(p, "http://192.0.2.1")[0].lanes.Load().direct, "net/http counts connections")
	w.reload(Config{Proxy: "http://192.0.2.2:3128"})
	require.Nil(t, w.endpoints(p, "http://192.0.2.1")[0].lanes.Load().direct)
	w.reload(Config{})
	require.NotNil(t, w.endpoints(p, "http://192.0.2.1")[0].lanes.Load().direct)
}
