package extauth_test

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/api/gateway"
	"github.com/openmep/mep/kit/errs"
)

// tracked is a body that records whether it was read and closed.
type tracked struct {
	io.Reader
	read, closed bool
}

func (b *tracked) Read(p []byte) (int, error) {
	b.read = true
	return b.Reader.Read(p)
}

func (b *tracked) Close() error {
	b.closed = true
	return nil
}

func TestTheBodyIsReadAndPutBack(t *testing.T) {
	w := newWorld(t, gateway.ExternalAuth{URL: "http://a", Body: 10}, nil)
	for name, length := range map[string]int64{"of known length": 10, "of unknown length": -1} {
		t.Run(name, func(t *testing.T) {
			body := &tracked{Reader: strings.NewReader("0123456789")}
			r := httptest.NewRequest(http.MethodPost, "/", body)
			r.ContentLength = length
			data, err := w.Body(r)
			require.NoError(t, err)
			require.Equal(t, "0123456789", string(data))
			require.Equal(t, length, r.ContentLength)
			require.False(t, body.closed)
			for range 2 {
				again, err := r.GetBody()
				require.NoError(t, err)
				all, err := io.ReadAll(again)
				require.NoError(t, err)
				require.Equal(t, "0123456789", string(all))
			}
			all, err := io.ReadAll(r.Body)
			require.NoError(t, err)
			require.Equal(t, "0123456789", string(all))
			require.NoError(t, r.Body.Close())
			require.True(t, body.closed)
		})
	}
}

func TestBodiesThatAreNotPassedAreNotRead(t *testing.T) {
	body := &tracked{Reader: strings.NewReader("x")}
	r := httptest.NewRequest(http.MethodPost, "/", body)
	data, err := newWorld(t, gateway.ExternalAuth{URL: "http://a"}, nil).Body(r)
	require.NoError(t, err)
	require.Nil(t, data)
	require.False(t, body.read)

	w := newWorld(t, gateway.ExternalAuth{URL: "http://a", Body: 5}, nil)
	for _, none := range []io.ReadCloser{nil, http.NoBody} {
		r.Body = none
		data, err = w.Body(r)
		require.NoError(t, err)
		require.Nil(t, data)
		require.Equal(t, none, r.Body)
	}
}

func TestBodiesThatAreTooLargeAreRefused(t *testing.T) {
	w := newWorld(t, gateway.ExternalAuth{URL: "http://a", Body: 5}, nil)
	body := &tracked{Reader: strings.NewReader("123456")}
	r := httptest.NewRequest(http.MethodPost, "/", body)
	r.ContentLength = 6
	_, err := w.Body(r)
	require.ErrorIs(t, err, errs.TooLarge)
	require.False(t, body.read, "when its length says so")

	endless := &tracked{Reader: io.MultiReader(bytes.NewReader(make([]byte, 6)), neverRead{t})}
	r = httptest.NewRequest(http.MethodPost, "/", endless)
	r.ContentLength = -1
	_, err = w.Body(r)
	require.ErrorIs(t, err, errs.TooLarge, "and not read further than it takes to see it")
}

type neverRead struct{ t *testing.T }

func (n neverRead) Read([]byte) (int, error) {
	n.t.Error("was read")
	return 0, io.EOF
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

func TestBodiesThatCannotBeRead(t *testing.T) {
	w := newWorld(t, gateway.ExternalAuth{URL: "http://a", Body: 5}, nil)
	r := httptest.NewRequest(http.MethodPost, "/", failing{errors.New("reset")})
	_, err := w.Body(r)
	require.ErrorIs(t, err, errs.Invalid)

	r = httptest.NewRequest(http.MethodPost, "/", strings.NewReader("12345"))
	r.ContentLength = -1
	r.Body = http.MaxBytesReader(httptest.NewRecorder(), r.Body, 3)
	_, err = w.Body(r)
	require.ErrorIs(t, err, errs.TooLarge)
}

func TestTrailersArriveBehindABodyThatWasPutBack(t *testing.T) {
	w := newWorld(t, gateway.ExternalAuth{URL: "http://a", Body: 100}, nil)
	url := serve(t, func(rw http.ResponseWriter, r *http.Request) {
		data, err := w.Body(r)
		rest, err2 := io.ReadAll(r.Body)
		if err != nil || err2 != nil || !bytes.Equal(data, rest) {
			rw.WriteHeader(http.StatusTeapot)
		}
		_, _ = io.WriteString(rw, string(rest)+" "+r.Trailer.Get("X-Sum"))
	})
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, io.NopCloser(strings.NewReader("body")))
	require.NoError(t, err)
	r.Trailer = http.Header{"X-Sum": {"42"}}
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	resp, err := client.Do(r)
	require.NoError(t, err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.Equal(t, "body 42", string(text))
	require.Equal(t, 200, resp.StatusCode)
}
