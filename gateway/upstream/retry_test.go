package upstream

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/api/gateway"
	"github.com/openmep/mep/kit/errs"
)

// resets starts a server that reads requests and then breaks the connection off.
func resets(t *testing.T) (url string, seen *atomic.Int32) {
	seen = new(atomic.Int32)
	return acceptor(t, func(c net.Conn) {
		go func() {
			defer c.Close()
			r, err := http.ReadRequest(bufio.NewReader(c))
			if err == nil {
				_, _ = io.Copy(io.Discard, r.Body)
				seen.Add(1)
			}
		}()
	}), seen
}

func TestWhatCouldNotBeConnectedToIsSentElsewhere(t *testing.T) {
	good := named(t, "good")
	w := newWorld(t, Config{})
	p := w.profile(gateway.Upstream{EjectAfter: -1}, gateway.Timeouts{})
	eps := w.endpoints(p, nobody(t), nobody(t), good.URL)
	for _, method := range []string{http.MethodGet, http.MethodPost, http.MethodPatch, http.MethodPut} {
		for range 20 {
			a, err := w.send(p, eps, request(t, method, "/", strings.NewReader("body")))
			require.NoError(t, err, method)
			require.Equal(t, "good", a.body)
			require.Equal(t, eps[2], a.Endpoint)
			require.LessOrEqual(t, a.Attempts, 3)
			require.Positive(t, a.FirstByte)
		}
	}
	require.Positive(t, eps[0].View().Failures)
	require.Zero(t, eps[0].View().Active)
}

func TestTheSameEndpointIsTriedAgainWhenThereIsNoOther(t *testing.T) {
	w := newWorld(t, Config{})
	for retries, attempts := range map[int]int{-1: 1, 0: 3, 1: 2, 4: 5} {
		p := w.profile(gateway.Upstream{Retries: retries}, gateway.Timeouts{})
		eps := w.endpoints(p, nobody(t))
		a, err := w.send(p, eps, request(t, http.MethodPost, "/", strings.NewReader("body")))
		var failed *Error
		require.ErrorAs(t, err, &failed)
		require.Equal(t, http.StatusBadGateway, failed.Status)
		require.Equal(t, attempts, a.Attempts)
		require.EqualValues(t, attempts, eps[0].View().Calls)
	}
}

func TestWhatWasSentIsRepeatedOnlyIfTheMethodIsIdempotent(t *testing.T) {
	url, seen := resets(t)
	good := named(t, "good")
	w := newWorld(t, Config{})
	p := w.profile(gateway.Upstream{EjectAfter: -1}, gateway.Timeouts{})
	eps := w.endpoints(p, url, good.URL)
	for _, method := range []string{http.MethodGet, http.MethodHead, http.MethodDelete, http.MethodOptions} {
		for before := seen.Load(); seen.Load() == before; {
			_, err := w.send(p, eps, request(t, method, "/", nil))
			require.NoError(t, err, method)
		}
	}
	for _, method := range []string{http.MethodPost, http.MethodPatch} {
		before := seen.Load()
		var a *answer
		var err error
		for err == nil { // until the endpoint that breaks off is chosen
			a, err = w.send(p, eps, request(t, method, "/", nil))
		}
		var failed *Error
		require.ErrorAs(t, err, &failed, method)
		require.Equal(t, http.StatusBadGateway, failed.Status)
		require.Equal(t, 1, a.Attempts)
		require.Equal(t, before+1, seen.Load(), "it was delivered once")
	}
}

func TestABodyThatWasReadIsRepeatedOnlyIfItCanBeHadAgain(t *testing.T) {
	url, _ := resets(t)
	good := serve(t, func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(w, r.Body) })
	w := newWorld(t, Config{})
	p := w.profile(gateway.Upstream{EjectAfter: -1}, gateway.Timeouts{})
	eps := w.endpoints(p, url, good.URL)
	failures := 0
	for range 40 {
		a, err := w.send(p, eps, request(t, http.MethodPut, "/", strings.NewReader("body")))
		if err != nil {
			failures++
			require.Equal(t, 1, a.Attempts)
		}
	}
	require.Positive(t, failures)
	for range 40 {
		r := request(t, http.MethodPut, "/", strings.NewReader("body"))
		r.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader("body")), nil }
		a, err := w.send(p, eps, r)
		require.NoError(t, err)
		require.Equal(t, "body", a.body)
	}
}

// TestAConnectionThatWasClosedWhileIdle has the target close connections after each response without announcing it.
func TestAConnectionThatWasClosedWhileIdle(t *testing.T) {
	var served atomic.Int32
	url := acceptor(t, func(c net.Conn) {
		go func() {
			defer c.Close()
			if r, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
				_, _ = io.Copy(io.Discard, r.Body)
				served.Add(1)
				_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
			}
		}()
	})
	w := newWorld(t, Config{})
	p := w.profile(gateway.Upstream{}, gateway.Timeouts{})
	eps := w.endpoints(p, url)
	for i := range 200 {
		require.Equal(t, "ok", w.get(p, eps, "/").body)
		require.EqualValues(t, i+1, served.Load(), "each request is served once")
	}
}

// TestAResetOnAConnectionThatWasUsedBefore has the target serve one request per connection and break off at the next.
func TestAResetOnAConnectionThatWasUsedBefore(t *testing.T) {
	var broken atomic.Int32
	url := acceptor(t, func(c net.Conn) {
		go func() {
			defer c.Close()
			in := bufio.NewReader(c)
			for range 2 {
				r, err := http.ReadRequest(in)
				if err != nil {
					return
				}
				_, _ = io.Copy(io.Discard, r.Body)
				if r.Header.Get("Break") != "" {
					broken.Add(1)
					return
				}
				_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
			}
		}()
	})
	w := newWorld(t, Config{})
	p := w.profile(gateway.Upstream{Retries: -1}, gateway.Timeouts{})
	eps := w.endpoints(p, url)
	breaking := func(method string) error {
		require.Equal(t, "ok", w.get(p, eps, "/").body)
		before := broken.Load()
		r := request(t, method, "/", strings.NewReader("body"))
		if isSafe := method == http.MethodGet; isSafe {
			r.Body, r.ContentLength = nil, 0
		}
		r.Header.Set("Break", "1")
		_, err := w.send(p, eps, r)
		if method == http.MethodPost {
			require.Equal(t, before+1, broken.Load(), "a POST that was sent is not sent again")
		} else {
			require.Equal(t, before+2, broken.Load(), "a GET is, over a new connection")
		}
		return err
	}
	require.Error(t, breaking(http.MethodGet))
	require.Error(t, breaking(http.MethodPost))
}

func TestAResponseThatBreaksOff(t *testing.T) {
	url := acceptor(t, func(c net.Conn) {
		go func() {
			defer c.Close()
			if _, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
				_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
			}
		}()
	})
	w := newWorld(t, Config{})
	p := w.profile(gateway.Upstream{}, gateway.Timeouts{})
	eps := w.endpoints(p, url)
	a, err := w.send(p, eps, request(t, http.MethodGet, "/", nil))
	require.ErrorIs(t, err, io.ErrUnexpectedEOF)
	require.Equal(t, "half", a.body, "it is not repeated: the client has a part of it")
	require.Equal(t, 1, a.Attempts)
	require.Zero(t, eps[0].View().Active)
}

func TestTimeoutsAreNotRepeated(t *testing.T) {
	release := make(chan struct{})
	var served atomic.Int32
	s := serve(t, func(http.ResponseWriter, *http.Request) {
		served.Add(1)
		<-release
	})
	defer close(release)
	w := newWorld(t, Config{})
	p := w.profile(gateway.Upstream{}, gateway.Timeouts{Response: "50ms"})
	_, err := w.send(p, w.endpoints(p, s.URL), request(t, http.MethodGet, "/", nil))
	var failed *Error
	require.ErrorAs(t, err, &failed)
	require.Equal(t, http.StatusGatewayTimeout, failed.Status)
	require.Equal(t, "the service did not respond in time", failed.Detail)
	require.EqualValues(t, 1, served.Load())
}

func TestAConnectionThatIsNotMadeInTime(t *testing.T) {
	silent := acceptor(t, func(c net.Conn) { t.Cleanup(func() { _ = c.Close() }) })
	w := newWorld(t, Config{})
	p := w.profile(gateway.Upstream{}, gateway.Timeouts{Connect: "50ms"})
	a, err := w.send(p, w.endpoints(p, strings.Replace(silent, "http", "https", 1)), request(t, http.MethodPost, "/", strings.NewReader("x")))
	var failed *Error
	require.ErrorAs(t, err, &failed)
	require.Equal(t, http.StatusGatewayTimeout, failed.Status, "the handshake of TLS counts")
	require.Equal(t, 3, a.Attempts)
}

func TestACallThatIsGivenUp(t *testing.T) {
	release := make(chan struct{})
	arrived := make(chan struct{}, 1)
	s := serve(t, func(http.ResponseWriter, *http.Request) {
		arrived <- struct{}{}
		<-release
	})
	defer close(release)
	w := newWorld(t, Config{})
	p := w.profile(gateway.Upstream{}, gateway.Timeouts{})
	eps := w.endpoints(p, s.URL)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-arrived
		cancel()
	}()
	a, err := w.send(p, eps, request(t, http.MethodGet, "/", nil).WithContext(ctx))
	require.Equal(t, context.Canceled, err)
	require.Equal(t, 1, a.Attempts)
	require.Zero(t, eps[0].View().Failures, "that was not the endpoint's fault")
	require.Zero(t, eps[0].View().Active)

	bad := w.endpoints(p, nobody(t))
	_, err = w.send(p, bad, request(t, http.MethodGet, "/", nil).WithContext(ctx))
	require.Equal(t, context.Canceled, err, "also while waiting to try again")
}

type closing struct {
	io.Reader
	closed atomic.Bool
}

func (c *closing) Close() error {
	c.closed.Store(true)
	return nil
}

func TestTheBodyOfTheRequestIsClosed(t *testing.T) {
	good := named(t, "good")
	w := newWorld(t, Config{})
	p := w.profile(gateway.Upstream{Retries: 1}, gateway.Timeouts{})
	for name, eps := range map[string][]*Endpoint{"served": w.endpoints(p, good.URL), "not served": w.endpoints(p, nobody(t)), "nobody": nil} {
		body := &closing{Reader: strings.NewReader("body")}
		r := request(t, http.MethodPost, "/", nil)
		r.Body, r.ContentLength = body, 4
		_, _ = w.send(p, eps, r)
		eventually(t, body.closed.Load, name)
	}
}

func TestWithoutEndpointsTheServiceIsUnavailable(t *testing.T) {
	w := newWorld(t, Config{})
	p := w.profile(gateway.Upstream{}, gateway.Timeouts{})
	a, err := w.send(p, nil, request(t, http.MethodGet, "/", nil))
	require.ErrorIs(t, err, errs.Unavailable)
	require.Nil(t, a.Endpoint)
	require.Zero(t, a.Attempts)
}

func TestABodyOfAnEarlierAttemptIsOutOfReach(t *testing.T) {
	from := &closing{Reader: strings.NewReader("body")}
	first := &requestBody{from: from}
	require.NoError(t, first.Close())
	require.True(t, first.revoke())
	_, err := first.Read(make([]byte, 1))
	require.Error(t, err)
	require.NoError(t, first.Close())
	require.False(t, from.closed.Load())

	second := &requestBody{from: from}
	got, err := io.ReadAll(second)
	require.NoError(t, err)
	require.Equal(t, "body", string(got))
	require.False(t, second.revoke(), "something was read of it")
	require.NoError(t, second.Close())
	require.True(t, from.closed.Load())

	from = &closing{}
	unread := &requestBody{from: from}
	require.NoError(t, unread.Close())
	require.False(t, from.closed.Load(), "another attempt may need it")
	unread.settle()
	require.True(t, from.closed.Load(), "there is none")
}
