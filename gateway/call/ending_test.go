package call_test

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/gateway/call"
	"github.com/openmep/mep/gateway/table"
	"github.com/openmep/mep/kit/errs"
)

func TestACallIsEndedOnce(t *testing.T) {
	t.Parallel()
	c := new(call.Call)
	require.Nil(t, c.Ending())
	first := &call.Ending{Reason: "first"}
	require.True(t, c.End(first))
	require.False(t, c.End(&call.Ending{Reason: "second"}))
	require.Same(t, first, c.Ending())
}

func TestTargetsHaveNothingOfTheCallers(t *testing.T) {
	t.Parallel()
	for want, change := range map[string]func(*call.Call){
		"GET /services/hello":  func(c *call.Call) { c.Info.Route, c.Info.Service = "services", "hello" },
		"GET route mine":       func(c *call.Call) { c.Info.Route = "mine" },
		"GET /instances/an-id": func(c *call.Call) { c.Info.Service, c.Instance = "hello", &table.Instance{ID: "an-id"} },
	} {
		c := &call.Call{Path: "/secret"}
		change(c)
		require.Equal(t, want, c.Target(http.MethodGet))
	}
}

// TestUpgradedConnectionsAreToldWhyTheyEnd ends connections at every point of what a service may send.
func TestUpgradedConnectionsAreToldWhyTheyEnd(t *testing.T) {
	t.Parallel()
	const told = "\x88\x27\x03\xf0the right to this call was taken back"
	const gone = "\x88\x0c\x03\xe9not served"
	long := "\x88\x7d\x03\xe9" + strings.Repeat("x", 123)
	for name, c := range map[string]struct {
		said  string
		err   error
		after string
	}{
		"after a message":             {"\x81\x02hi", errs.Forbidden, told},
		"after two":                   {"\x81\x02hi\x82\x00", errs.Unauthenticated, told},
		"between fragments":           {"\x01\x02hi", errs.Forbidden, told},
		"of a service that is gone":   {"\x81\x02hi", errs.New(errs.Unavailable, "not served"), gone},
		"for a reason of many words":  {"\x81\x02hi", errs.New(errs.Unavailable, "%s", strings.Repeat("x", 200)), long},
		"within a message":            {"\x81\x03hi", errs.Forbidden, ""},
		"within a header":             {"\x81", errs.Forbidden, ""},
		"within a long header":        {"\x81\x7e\x00", errs.Forbidden, ""},
		"after a message of length":   {"\x82\x7e\x00\x80" + strings.Repeat("x", 128), errs.Forbidden, told},
		"within one of eight octets":  {"\x82\x7f\x00\x00\x00\x00\x00\x01\x00\x00" + strings.Repeat("x", 128), errs.Forbidden, ""},
		"after one of eight octets":   {"\x82\x7f\x00\x00\x00\x00\x00\x00\x00\x80" + strings.Repeat("x", 128), errs.Forbidden, told},
		"after a close frame":         {"\x88\x02\x03\xe8", errs.Forbidden, ""},
		"after what is no frame":      {"\x83\x00", errs.Forbidden, ""},
		"after what no server sends":  {"\x81\x80\x00\x00\x00\x00", errs.Forbidden, ""},
		"before anything was said":    {"", errs.Forbidden, told},
		"after more than one message": {strings.Repeat("\x89\x00", 100), errs.Forbidden, told},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			left := make(chan error, 1)
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				k := new(call.Call)
				k.Writer.Reset(w, r, time.Second)
				conn, rw, err := http.NewResponseController(&k.Writer).Hijack()
				if err != nil {
					left <- err
					return
				}
				_ = rw.Flush()
				_, err = io.WriteString(conn, c.said)
				passed := make(chan string, 1)
				go func() {
					b, _ := io.ReadAll(conn)
					passed <- string(b)
				}()
				k.End(&call.Ending{Err: c.err})
				rest := k.Cut()
				if n, werr := io.WriteString(conn, "\x81\x05after"); n != 7 || werr != nil {
					left <- werr
					return
				}
				rest()
				if <-passed != "" {
					left <- io.ErrShortWrite
					return
				}
				left <- err
			}))
			defer s.Close()
			conn, err := net.Dial("tcp", s.Listener.Addr().String())
			require.NoError(t, err)
			defer conn.Close()
			_, err = io.WriteString(conn, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
			require.NoError(t, err)
			in := bufio.NewReader(conn)
			b := make([]byte, len(c.said)+len(c.after))
			_, err = io.ReadFull(in, b)
			require.NoError(t, err)
			require.Equal(t, c.said+c.after, string(b))
			_, _ = io.WriteString(conn, "something that is not passed on")
			if c.after != "" {
				require.NoError(t, conn.(*net.TCPConn).CloseWrite())
			}
			rest, _ := io.ReadAll(in)
			require.Empty(t, rest)
			require.NoError(t, <-left)
		})
	}
}

// TestConnectionsThatAreEndedBeforeTheyAreUpgraded checks that such connections close at once.
func TestConnectionsThatAreEndedBeforeTheyAreUpgraded(t *testing.T) {
	t.Parallel()
	wrote := make(chan error, 1)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		k := new(call.Call)
		k.Writer.Reset(w, r, time.Second)
		k.End(&call.Ending{Err: errs.Forbidden})
		if k.Cut() != nil {
			wrote <- nil
			return
		}
		conn, _, err := http.NewResponseController(&k.Writer).Hijack()
		if err == nil {
			_, err = io.WriteString(conn, "hello")
		}
		wrote <- err
	}))
	defer s.Close()
	_, err := http.Get(s.URL) //nolint:bodyclose // there is none
	require.Error(t, err)
	require.ErrorIs(t, <-wrote, net.ErrClosed)
}

// TestBodiesAreCut cuts a body that does not arrive.
func TestBodiesAreCut(t *testing.T) {
	t.Parallel()
	for _, idle := range []time.Duration{0, time.Hour} {
		read := make(chan error, 1)
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			k := new(call.Call)
			k.Body.Reset(r, w, idle)
			began := make(chan struct{})
			go func() {
				close(began)
				_, err := k.Body.Read(make([]byte, 1))
				read <- err
			}()
			<-began
			k.Body.Cut()
			if err := <-read; err == nil {
				read <- io.ErrShortWrite
			} else {
				read <- nil
			}
			_ = k.Body.Close()
		}))
		body, in := io.Pipe()
		resp, err := http.Post(s.URL, "text/plain", body)
		if err == nil {
			_ = resp.Body.Close()
		}
		_ = in.Close()
		require.NoError(t, <-read)
		s.Close()
	}
}
