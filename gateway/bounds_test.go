package gateway_test

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	api "github.com/openmep/mep/api/gateway"
	"github.com/openmep/mep/gateway"
)

// TestBoundsOfConnectionsMayChange changes the bounds that net/http does not let change while a server runs.
func TestBoundsOfConnectionsMayChange(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	g := w.gate()
	w.named("hello", mirrorOf(t).URL)
	token := bearer(w.token(w.app()))
	large := field("X-Large", strings.Repeat("x", 8000))
	before := g.dial()
	require.Equal(t, http.StatusOK, g.status("/services/hello/", token, large))

	require.NoError(t, g.reload(func(c *gateway.Config) {
		c.MaxHeader, c.Idle, c.HeaderTimeout = 4096, 50*time.Millisecond, 100*time.Millisecond
	}))
	require.Equal(t, http.StatusRequestHeaderFieldsTooLarge, g.status("/services/hello/", token, large), "at once, on every connection")
	require.Equal(t, http.StatusOK, g.status("/services/hello/", token))

	for name, sent := range map[string]string{"a header that does not end": "GET / HTTP/1.1\r\nHost: a\r\n", "nothing after an answer": "GET / HTTP/1.1\r\nHost: a\r\n\r\n"} {
		c, err := net.Dial("tcp", g.addr())
		require.NoError(t, err)
		_, err = io.WriteString(c, sent)
		require.NoError(t, err)
		require.NoError(t, c.SetReadDeadline(time.Now().Add(10*time.Second)))
		_, err = io.Copy(io.Discard, c)
		require.NoError(t, err, name+": it is closed by the gateway")
		require.NoError(t, c.Close())
	}
	// An older connection keeps its time limits.
	before.send("GET /services/hello/ HTTP/1.1\nHost: a\n")
	time.Sleep(300 * time.Millisecond)
	before.send("\n")
	require.Equal(t, http.StatusUnauthorized, before.answer().StatusCode)
}

func TestAStopLetsCallsOfFormerBoundsFinish(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	g := w.gate(func(s *setup) { s.Common.Drain = 4 * time.Second })
	arrived, goOn := make(chan struct{}, 8), make(chan struct{})
	slow := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		arrived <- struct{}{}
		<-goOn
		_, _ = io.WriteString(w, "finished")
	}))
	t.Cleanup(slow.Close)
	w.named("slow", slow.URL)
	token := bearer(w.token(w.app()))
	answers := make(chan string, 8)
	const turns = 4
	for i := range turns {
		go func() {
			a, err := g.try(http.MethodGet, "/services/slow/", nil, token, func(r *http.Request) { r.Close = true })
			if err != nil {
				answers <- err.Error()
				return
			}
			answers <- a.body
		}()
		<-arrived
		require.NoError(t, g.reload(func(c *gateway.Config) { c.Streams = 10 + i }))
	}
	stopped := make(chan struct{})
	go func() {
		g.stop()
		close(stopped)
	}()
	eventually(t, func() bool {
		c, err := net.Dial("tcp", g.addr())
		if err == nil {
			_ = c.Close()
		}
		return err != nil
	}, "nobody is let in any more")
	close(goOn)
	for range turns {
		require.Equal(t, "finished", <-answers)
	}
	<-stopped
}

func TestStatisticsMayBeSwitchedOffAndOn(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	g := w.gate()
	w.named("hello", mirrorOf(t).URL)
	token := bearer(w.token(w.app()))
	calls := func() (n int64) {
		var s api.Statistics
		require.Equal(t, http.StatusOK, g.manage(http.MethodGet, "/statistics?service=hello", nil, &s))
		for _, x := range s.Series {
			for _, p := range x.Points {
				n += p.Calls
			}
		}
		return n
	}
	require.Equal(t, http.StatusOK, g.status("/services/hello/", token))
	require.EqualValues(t, 1, calls())
	require.NoError(t, g.reload(func(c *gateway.Config) { c.Statistics = false }))
	require.Equal(t, http.StatusOK, g.status("/services/hello/", token))
	require.Equal(t, http.StatusNotFound, g.manage(http.MethodGet, "/statistics", nil, nil))
	require.NoError(t, g.reload(func(c *gateway.Config) { c.Statistics = true }))
	require.Equal(t, http.StatusOK, g.status("/services/hello/", token))
	require.EqualValues(t, 2, calls(), "what came meanwhile was not counted")
}

func TestThePlatformMayMove(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	one, two := mirrorOf(t).URL, mirrorOf(t).URL
	g := w.gate(func(s *setup) { s.Gateway.Mp1URLs = []string{one + "/one"} })
	const path = "/mep/mec_service_mgmt/v1/services"
	require.Equal(t, "/one"+path, g.get(path).seen(t).Target)
	require.NoError(t, g.reload(func(c *gateway.Config) { c.Mp1URLs, c.AuthURLs = []string{two + "/two"}, []string{one} }))
	require.Equal(t, "/two"+path, g.get(path).seen(t).Target)
	require.Equal(t, "/mep/token", g.get("/mep/token").seen(t).Target)
	require.ErrorContains(t, g.reload(func(c *gateway.Config) { c.PlatformCA, c.Mp1URLs = "/nowhere/ca.crt", []string{one} }), "gateway.platformCa")
	require.Equal(t, "/two"+path, g.get(path).seen(t).Target, "what is wrong changes nothing")
}
