package upstream

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/api/gateway"
)

// failing is a body that ends with an error after part of it was read.
func failing(part string, err error) io.ReadCloser {
	return io.NopCloser(io.MultiReader(strings.NewReader(part), errorReader{err}))
}

type errorReader struct{ err error }

func (r errorReader) Read([]byte) (int, error) { return 0, r.err }

// sinks are targets that read everything they get, over HTTP/1.1 and HTTP/2.
func sinks(t *testing.T) map[string]string {
	swallow := func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		_, _ = io.WriteString(w, "ok")
	}
	h2c := serveH2C(t, false, swallow)
	return map[string]string{"HTTP/1.1": serve(t, swallow).URL, "HTTP/2": strings.Replace(h2c.URL, "http", "h2c", 1)}
}

// TestABodyThatDoesNotComeIsNotTheTargetsFault sends bodies as the front's server provides them.
func TestABodyThatDoesNotComeIsNotTheTargetsFault(t *testing.T) {
	_, malformed := http.ReadRequest(bufio.NewReader(strings.NewReader("nonsense")))
	require.Error(t, malformed)
	for proto, url := range sinks(t) {
		for name, c := range map[string]struct {
			cause  error
			length int64
		}{
			"a bad chunk":                 {malformed, -1},
			"a bad chunk, length known":   {malformed, 1000},
			"no byte in time":             {os.ErrDeadlineExceeded, 1000},
			"the client went away":        {io.ErrUnexpectedEOF, 1000},
			"it is longer than it may be": {&http.MaxBytesError{Limit: 3}, -1},
		} {
			t.Run(proto+", "+name, func(t *testing.T) {
				w := newWorld(t, Config{})
				p := w.profile(gateway.Upstream{EjectAfter: 1}, gateway.Timeouts{})
				eps := w.endpoints(p, url)
				for _, method := range []string{http.MethodPost, http.MethodPut} {
					r := request(t, method, "/", failing("abc", c.cause))
					r.ContentLength = c.length
					a, err := w.send(p, eps, r)
					var fault *ClientError
					require.ErrorAs(t, err, &fault)
					require.ErrorIs(t, err, c.cause)
					var failed *Error
					require.NotErrorAs(t, err, &failed)
					require.Equal(t, 1, a.Attempts, "it is not repeated")
				}
				v := eps[0].View()
				require.Zero(t, v.Failures)
				require.Zero(t, v.Active)
				require.Equal(t, StateUp, v.State)
				require.Equal(t, "ok", w.get(p, eps, "/").body)
			})
		}
	}
}

func TestATooLargeBodyCanBeTold(t *testing.T) {
	for proto, url := range sinks(t) {
		w := newWorld(t, Config{})
		p := w.profile(gateway.Upstream{}, gateway.Timeouts{})
		body := http.MaxBytesReader(httptest.NewRecorder(), io.NopCloser(strings.NewReader("too much")), 4)
		_, err := w.send(p, w.endpoints(p, url), request(t, http.MethodPost, "/", body))
		var large *http.MaxBytesError
		require.ErrorAs(t, err, &large, proto)
		require.EqualValues(t, 4, large.Limit)
	}
}

func TestHeaderFieldsThatCannotBeSentAreNotTheTargetsFault(t *testing.T) {
	for proto, url := range sinks(t) {
		for name, spoil := range map[string]func(r *http.Request){
			"a line break in a value":   func(r *http.Request) { r.Header["X-Role"] = []string{"a\r\nInjected: 1"} },
			"a control character":       func(r *http.Request) { r.Header["X-Role"] = []string{"a\x00"} },
			"a line break in a name":    func(r *http.Request) { r.Header["X\r\nInjected"] = []string{"1"} },
			"a space in a name":         func(r *http.Request) { r.Header["X Role"] = []string{"1"} },
			"an empty name":             func(r *http.Request) { r.Header[""] = []string{"1"} },
			"a trailer":                 func(r *http.Request) { r.Trailer = http.Header{"X": {"\n"}} },
			"a line break in the query": func(r *http.Request) { r.URL.RawQuery = "a\r\nInjected: 1" },
			"a space in the query":      func(r *http.Request) { r.URL.RawQuery = "a HTTP/1.1" },
			"a method that is none":     func(r *http.Request) { r.Method = "GET / HTTP/1.1\r\nInjected: 1\r\n\r\nGET" },
		} {
			t.Run(proto+", "+name, func(t *testing.T) {
				w := newWorld(t, Config{})
				p := w.profile(gateway.Upstream{EjectAfter: 1}, gateway.Timeouts{})
				eps := w.endpoints(p, url)
				require.Equal(t, "ok", w.get(p, eps, "/").body)
				for _, body := range []io.Reader{nil, strings.NewReader("body")} {
					r := request(t, http.MethodGet, "/", body)
					spoil(r)
					a, err := w.send(p, eps, r)
					var fault *ClientError
					require.ErrorAs(t, err, &fault)
					require.NotContains(t, err.Error(), "\n")
					require.LessOrEqual(t, a.Attempts, 1)
				}
				require.Zero(t, eps[0].View().Failures)
				require.Zero(t, eps[0].View().Active)
				require.Equal(t, "ok", w.get(p, eps, "/").body)
			})
		}
	}
}

// TestHostsThatCannotBeSent is about HTTP/2: over HTTP/1.1, net/http sends no host in place of such a host.
func TestHostsThatCannotBeSent(t *testing.T) {
	w := newWorld(t, Config{})
	p := w.profile(gateway.Upstream{EjectAfter: 1}, gateway.Timeouts{})
	eps := w.endpoints(p, sinks(t)["HTTP/2"])
	for _, host := range []string{"a\r\nb", "a b", "xn--\u00fc"} {
		r := request(t, http.MethodGet, "/", nil)
		r.Host = host
		a, err := w.send(p, eps, r)
		var fault *ClientError
		require.ErrorAs(t, err, &fault, host)
		require.Equal(t, 1, a.Attempts)
	}
	require.Zero(t, eps[0].View().Failures)
}

func TestAHeaderThatIsTooLongForTheTarget(t *testing.T) {
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok") }))
	s.Config.Protocols = new(http.Protocols)
	s.Config.Protocols.SetUnencryptedHTTP2(true)
	s.Config.MaxHeaderBytes = 1000
	s.Start()
	t.Cleanup(s.Close)
	w := newWorld(t, Config{})
	p := w.profile(gateway.Upstream{EjectAfter: 1}, gateway.Timeouts{})
	eps := w.endpoints(p, strings.Replace(s.URL, "http", "h2c", 1))
	require.Equal(t, "ok", w.get(p, eps, "/").body, "now it is known what the target takes")
	r := request(t, http.MethodGet, "/", nil)
	r.Header.Set("X", strings.Repeat("x", 10000))
	a, err := w.send(p, eps, r)
	var fault *ClientError
	require.ErrorAs(t, err, &fault)
	require.Equal(t, 1, a.Attempts)
	require.Zero(t, eps[0].View().Failures)
}

// TestTheTargetIsBlamedForWhatItDoes has the target break off while an endless body is being sent.
func TestTheTargetIsBlamedForWhatItDoes(t *testing.T) {
	url := acceptor(t, func(c net.Conn) {
		go func() {
			defer c.Close()
			_, _ = http.ReadRequest(bufio.NewReader(c))
		}()
	})
	w := newWorld(t, Config{})
	p := w.profile(gateway.Upstream{Retries: -1}, gateway.Timeouts{})
	eps := w.endpoints(p, url)
	body := &endless{}
	_, err := w.send(p, eps, request(t, http.MethodPost, "/", body))
	var failed *Error
	require.ErrorAs(t, err, &failed)
	require.Equal(t, http.StatusBadGateway, failed.Status)
	require.EqualValues(t, 1, eps[0].View().Failures)
}

// endless is an endless body that fails once it is closed, like that of a server.
type endless struct{ closed atomic.Bool }

func (e *endless) Read(p []byte) (int, error) {
	if e.closed.Load() {
		return 0, http.ErrBodyReadAfterClose
	}
	return len(p), nil
}

func (e *endless) Close() error {
	e.closed.Store(true)
	return nil
}

func TestErrorsOfABodyThatIsNotNeededAnyMoreTellNothing(t *testing.T) {
	why := errors.New("why")
	for name, end := range map[string]func(*requestBody){
		"closed":  func(b *requestBody) { require.NoError(t, b.Close()) },
		"revoked": func(b *requestBody) { require.True(t, b.revoke()) },
	} {
		b := &requestBody{from: failing("", why)}
		end(b)
		_, err := b.Read(make([]byte, 1))
		require.Error(t, err, name)
		require.Nil(t, b.fault.Load(), name)
	}
	b := &requestBody{from: failing("", why)}
	for range 2 {
		_, err := b.Read(make([]byte, 1))
		require.ErrorIs(t, err, why)
	}
	require.Equal(t, why, *b.fault.Load())
}
