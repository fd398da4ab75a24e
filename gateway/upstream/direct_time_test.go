package upstream

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/api/gateway"
)

func TestTheTimeToRespond(t *testing.T) {
	for name, answer := range map[string]func(c net.Conn){
		"silence":                   func(net.Conn) {},
		"a part of a header":        func(c net.Conn) { _, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent") },
		"a byte now and then":       drip(okay[:20], true),
		"interim responses forever": drip("HTTP/1.1 100 Continue\r\n\r\n", false),
	} {
		t.Run(name, func(t *testing.T) {
			k := talk(t, func(c net.Conn, r *http.Request) bool {
				if r.URL.Path == "/fast" {
					_, _ = io.WriteString(c, okay)
					return true
				}
				answer(c)
				_, _ = io.Copy(io.Discard, c)
				return false
			})
			w := newWorld(t, Config{})
			p, eps, _ := directTo(w, gateway.Upstream{}, gateway.Timeouts{Response: "100ms"}, k.url)
			for _, path := range []string{"/slow", "/fast", "/slow"} { // over a new connection and a reused one
				a, err := w.send(p, eps, request(t, http.MethodGet, path, nil))
				if path == "/fast" {
					require.NoError(t, err)
					continue
				}
				var failed *Error
				require.ErrorAs(t, err, &failed)
				require.Equal(t, http.StatusGatewayTimeout, failed.Status)
				require.Equal(t, 1, a.Attempts)
			}
			require.EqualValues(t, 3, k.served.Load(), "what takes too long is not sent again")
			require.EqualValues(t, 2, eps[0].View().Failures)
		})
	}
}

// drip writes a text, either once byte by byte or as a whole again and again, until a write fails.
func drip(text string, bytes bool) func(c net.Conn) {
	return func(c net.Conn) {
		for i := 0; ; i++ {
			part := text
			if bytes {
				part = text[i%len(text):][:1]
				if i >= len(text) {
					return
				}
			}
			if _, err := io.WriteString(c, part); err != nil {
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
}

// TestTheTimeToRespondIsNotThatOfTheBody has bodies take longer than headers may.
func TestTheTimeToRespondIsNotThatOfTheBody(t *testing.T) {
	k := talk(t, func(c net.Conn, _ *http.Request) bool {
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nok")
		time.Sleep(300 * time.Millisecond)
		_, _ = io.WriteString(c, "ok")
		return true
	})
	w := newWorld(t, Config{})
	p, eps, _ := directTo(w, gateway.Upstream{}, gateway.Timeouts{Response: "200ms"}, k.url)
	require.Equal(t, "okok", w.get(p, eps, "/").body)
	time.Sleep(300 * time.Millisecond) // time between calls does not count either
	require.Equal(t, "okok", w.get(p, eps, "/").body)
	require.EqualValues(t, 1, k.connections.Load())
}

func TestCallsThatAreGivenUpCloseTheirConnection(t *testing.T) {
	for name, part := range map[string]string{
		"before the header": "", "within the header": "HTTP/1.1 200 OK\r\nConten",
		"within the body": "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf", "within a chunk": "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\na\r\nhalf",
	} {
		t.Run(name, func(t *testing.T) {
			said := make(chan struct{}, 1)
			k := talk(t, func(c net.Conn, _ *http.Request) bool {
				_, _ = io.WriteString(c, part)
				said <- struct{}{}
				_, _ = io.Copy(io.Discard, c)
				return false
			})
			w := newWorld(t, Config{})
			p, eps, d := directTo(w, gateway.Upstream{}, gateway.Timeouts{}, k.url)
			why := errors.New("why")
			ctx, cancel := context.WithCancelCause(t.Context())
			go func() {
				<-said
				cancel(why)
			}()
			resp, err := w.RoundTrip(request(t, http.MethodGet, "/", nil).WithContext(ctx), p, eps, new(Attempt))
			if err == nil {
				_, err = io.ReadAll(resp.Body)
				require.ErrorIs(t, err, why)
				require.NoError(t, resp.Body.Close())
			} else {
				require.Equal(t, context.Canceled, err)
			}
			<-k.ended
			require.Zero(t, d.waiting(eps[0].target.address))
			require.Zero(t, eps[0].View().Active)
			require.Zero(t, eps[0].View().Failures)
		})
	}
}
