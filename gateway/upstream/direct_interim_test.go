package upstream

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/http/httputil"
	"net/textproto"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/api/gateway"
)

// TestInterimResponsesArePassedOn sends interim responses through a reverse proxy, as the gateway does.
func TestInterimResponsesArePassedOn(t *testing.T) {
	k := says(t, "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"+okay, true)
	w := newWorld(t, Config{})
	p, eps, _ := directTo(w, gateway.Upstream{}, gateway.Timeouts{}, k.url)
	front := httptest.NewServer(&httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) { r.Out.Host = "" },
		Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
			return w.RoundTrip(r, p, eps, new(Attempt))
		}),
	})
	defer front.Close()
	var heard []string
	ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
		heard = append(heard, fmt.Sprint(code, h.Get("Link")))
		return nil
	}})
	for range 2 {
		heard = nil
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, front.URL, nil)
		require.NoError(t, err)
		resp, err := front.Client().Do(r)
		require.NoError(t, err)
		body, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		require.Equal(t, "ok", string(body))
		require.Equal(t, []string{"100", "103</a>"}, heard)
	}
	require.EqualValues(t, 1, k.connections.Load())
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestWhoeverRefusesAnInterimResponseEndsTheCall(t *testing.T) {
	k := says(t, "HTTP/1.1 103 Early Hints\r\n\r\n"+okay, true)
	w := newWorld(t, Config{})
	p, eps, d := directTo(w, gateway.Upstream{Retries: -1}, gateway.Timeouts{}, k.url)
	enough := errors.New("enough")
	ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{
		Got1xxResponse: func(int, textproto.MIMEHeader) error { return enough },
	})
	_, err := w.send(p, eps, request(t, http.MethodGet, "/", nil).WithContext(ctx))
	require.ErrorIs(t, err, enough)
	require.Zero(t, d.waiting(eps[0].target.address))
}

// TestTheBoundOfAHeaderHoldsForInterimResponses: all of them count if nobody listens to them.
func TestTheBoundOfAHeaderHoldsForInterimResponses(t *testing.T) {
	interim := "HTTP/1.1 103 Early Hints\r\nX: " + strings.Repeat("x", 4000) + "\r\n\r\n"
	k := says(t, strings.Repeat(interim, maxHeader/len(interim)+1)+okay, true)
	w := newWorld(t, Config{})
	p, eps, _ := directTo(w, gateway.Upstream{Retries: -1}, gateway.Timeouts{}, k.url)
	_, err := w.send(p, eps, request(t, http.MethodGet, "/", nil))
	require.ErrorIs(t, err, errLongHeader)

	ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{
		Got1xxResponse: func(int, textproto.MIMEHeader) error { return nil },
	})
	a, err := w.send(p, eps, request(t, http.MethodGet, "/", nil).WithContext(ctx))
	require.NoError(t, err, "each alone counts for who passes them on")
	require.Equal(t, "ok", a.body)
}
