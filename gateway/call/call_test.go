package call_test

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/gateway/call"
	"github.com/openmep/mep/gateway/filter"
)

func TestACallIsTheContextOfItsRequest(t *testing.T) {
	t.Parallel()
	type key struct{}
	parent, cancel := context.WithCancel(context.WithValue(t.Context(), key{}, "value"))
	c := &call.Call{Context: parent}
	c.Info.Consumer = "me"
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	require.Nil(t, call.Of(r))
	r = r.WithContext(c)
	require.Same(t, c, call.Of(r))
	derived, stop := context.WithTimeout(r.Context(), time.Hour)
	defer stop()
	require.Same(t, c, call.Of(r.WithContext(derived)))
	require.Equal(t, "me", filter.CallOf(derived).Consumer)
	require.Equal(t, "value", derived.Value(key{}))
	cancel()
	<-derived.Done()
	require.ErrorIs(t, context.Cause(derived), context.Canceled)
}

func TestWhatIsAnsweredIsCounted(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		answer func(http.ResponseWriter)
		status int
		bytes  int64
	}{
		"nothing":           {func(http.ResponseWriter) {}, 0, 0},
		"a body alone":      {func(w http.ResponseWriter) { _, _ = io.WriteString(w, "abc"); _, _ = io.WriteString(w, "de") }, 200, 5},
		"a status":          {func(w http.ResponseWriter) { w.WriteHeader(204) }, 204, 0},
		"two":               {func(w http.ResponseWriter) { w.WriteHeader(404); w.WriteHeader(200) }, 404, 0},
		"something interim": {func(w http.ResponseWriter) { w.WriteHeader(103); w.WriteHeader(100); w.WriteHeader(201) }, 201, 0},
		"interim alone":     {func(w http.ResponseWriter) { w.WriteHeader(103) }, 0, 0},
		"an upgrade":        {func(w http.ResponseWriter) { w.WriteHeader(101) }, 101, 0},
	} {
		t.Run(name, func(t *testing.T) {
			k := new(call.Call)
			k.Writer.Reset(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/", nil), time.Second)
			c.answer(&k.Writer)
			require.Equal(t, c.status, k.Writer.Status)
			require.Equal(t, c.bytes, k.Writer.Bytes)
			require.NoError(t, http.NewResponseController(&k.Writer).Flush(), "its abilities are passed on")
		})
	}
}

func TestWhatIsReadIsCounted(t *testing.T) {
	t.Parallel()
	k := new(call.Call)
	r := httptest.NewRequest(http.MethodPost, "/", strings.NewReader("some text"))
	k.Body.Reset(r, httptest.NewRecorder(), time.Second)
	r.Body = &k.Body
	buffer := make([]byte, 4)
	_, err := io.ReadFull(r.Body, buffer)
	require.NoError(t, err)
	require.EqualValues(t, 4, k.Received())
	_, err = io.Copy(io.Discard, r.Body)
	require.NoError(t, err)
	require.EqualValues(t, 9, k.Received())
	require.NoError(t, r.Body.Close())
}

// TestUpgradedConnectionsAreCounted hijacks a connection and writes to it.
func TestUpgradedConnectionsAreCounted(t *testing.T) {
	t.Parallel()
	counted := make(chan [2]int64, 1)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		k := new(call.Call)
		k.Writer.Reset(w, r, time.Second)
		conn, rw, err := http.NewResponseController(&k.Writer).Hijack()
		if err != nil {
			return
		}
		defer conn.Close()
		_ = rw.Flush()
		_, _ = io.WriteString(conn, "hello")
		_, _ = io.ReadFull(conn, make([]byte, 3))
		k.Writer.End()
		counted <- [2]int64{k.Writer.Bytes, k.Received()}
	}))
	defer s.Close()
	conn, err := net.Dial("tcp", s.Listener.Addr().String())
	require.NoError(t, err)
	defer conn.Close()
	_, err = io.WriteString(conn, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	require.NoError(t, err)
	_, err = io.ReadFull(conn, make([]byte, 5))
	require.NoError(t, err)
	_, err = io.WriteString(conn, "abc")
	require.NoError(t, err)
	require.Equal(t, [2]int64{5, 3}, <-counted)
}
