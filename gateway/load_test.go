package gateway_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	api "github.com/openmep/mep/api/gateway"
)

// closed waits until the gateway closes the connection, and returns what it sent before that.
func (l *line) closed() (answered string) {
	l.Helper()
	b, err := io.ReadAll(l.in)
	if ne, ok := err.(net.Error); ok && ne.Timeout() { //nolint:errorlint // as it comes from the connection
		require.Fail(l, "the gateway waits on")
	}
	return string(b)
}

func TestClientsThatAreSlow(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	g := w.gate(func(s *setup) {
		c := &s.Gateway
		c.HeaderTimeout, c.BodyIdle, c.Idle = 150*time.Millisecond, 150*time.Millisecond, 150*time.Millisecond
	})
	var whole atomic.Int64
	w.named("hello", serve(t, func(w http.ResponseWriter, r *http.Request) {
		if n, err := io.Copy(io.Discard, r.Body); err == nil {
			whole.Add(n)
		}
		if r.URL.Path == "/large" {
			_, _ = io.Copy(w, &noise{64 << 20})
		}
	}).URL)
	w.policy("hello", anybody)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	trickle := func(l *line, text string) {
		for ctx.Err() == nil {
			if _, err := io.WriteString(l.Conn, text); err != nil {
				return
			}
			time.Sleep(20 * time.Millisecond) // less than any bound: what counts is that the request makes no progress
		}
	}
	var writers sync.WaitGroup
	defer writers.Wait()
	defer cancel()
	t.Run("a header that does not end", func(t *testing.T) {
		g := g.in(t)
		l := g.dial()
		l.send("GET /services/hello/ HTTP/1.1\nHost: a\n")
		writers.Go(func() { trickle(l, "X: y\r\n") })
		require.NotContains(t, l.closed(), " 200 ")
	})
	t.Run("a connection that says nothing", func(t *testing.T) { require.Empty(t, g.in(t).dial().closed()) })
	t.Run("a connection that says nothing more", func(t *testing.T) {
		g := g.in(t)
		l := g.dial()
		l.send("GET /none HTTP/1.1\nHost: a\n\n")
		require.Contains(t, l.closed(), " 404 ")
	})
	t.Run("a body that does not come", func(t *testing.T) {
		g := g.in(t)
		l := g.dial()
		l.send("POST /services/hello/ HTTP/1.1\nHost: a\nContent-Length: 1000\n\nabc")
		require.NotContains(t, l.closed(), " 200 ")
		require.Zero(t, whole.Load())
	})
	t.Run("an answer that is not taken", func(t *testing.T) {
		g := g.in(t)
		l := g.dial()
		require.NoError(t, l.Conn.(*net.TCPConn).SetReadBuffer(4096))
		l.send("GET /services/hello/large HTTP/1.1\nHost: a\n\n")
		_, err := l.in.ReadByte()
		require.NoError(t, err)
		eventually(t, func() bool { return g.Open() == 0 }, "the connection is given up")
	})
	t.Run("a body that is slow but comes", func(t *testing.T) {
		g := g.in(t)
		l := g.dial()
		l.send("POST /services/hello/ HTTP/1.1\nHost: a\nContent-Length: 12\n\n")
		for range 12 {
			l.write("x")
			time.Sleep(25 * time.Millisecond) // in total more than the bound on silence
		}
		require.Equal(t, http.StatusOK, l.answer().StatusCode)
	})
}

func TestHeaderFloods(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	g := w.gate()
	w.named("hello", mirrorOf(t).URL)
	w.policy("hello", anybody)
	for name, c := range map[string]struct {
		target, header string
		status         string
	}{
		"a long target":        {"/services/hello/" + strings.Repeat("a", 9000), "", "414"},
		"a long query":         {"/services/hello/?" + strings.Repeat("a", 9000), "", "414"},
		"many segments":        {"/services/hello" + strings.Repeat("/a", 300), "", "400"},
		"one long field":       {"/services/hello/", "X: " + strings.Repeat("a", 40000) + "\n", "431"},
		"many fields":          {"/services/hello/", strings.Repeat("X-A: b\n", 6000), "431"},
		"many names":           {"/services/hello/", names(3000), "431"},
		"far too much":         {"/services/hello/", "X: " + strings.Repeat("a", 2<<20) + "\n", "431|"},
		"as much as there may": {"/services/hello/", "X: " + strings.Repeat("a", 30000) + "\n", "200"},
		"a long method":        {"/services/hello/", "", "400|405|431|200"},
	} {
		t.Run(name, func(t *testing.T) {
			g := g.in(t)
			method := "GET"
			if name == "a long method" {
				method = strings.Repeat("A", 20000)
			}
			l := g.dial()
			l.send(method + " " + c.target + " HTTP/1.1\nHost: a\n" + c.header + "\n")
			a, err := l.response(http.MethodGet)
			got := ""
			if err == nil {
				got = fmt.Sprint(a.StatusCode)
			}
			require.Contains(t, strings.Split(c.status, "|"), got)
		})
	}
}

func names(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "X-Name-%d: x\n", i)
	}
	return b.String()
}

func TestConnectionsHaveBounds(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	g := w.gate(func(s *setup) { s.Gateway.Connections, s.Gateway.ConnectionsHard = 3, 5 })
	w.named("hello", mirrorOf(t).URL)
	w.policy("hello", anybody)
	var lines []*line
	call := func(l *line) (int, bool) {
		l.send("GET /services/hello/ HTTP/1.1\nHost: a\n\n")
		a, err := l.response(http.MethodGet)
		if err != nil {
			return 0, false
		}
		if a.StatusCode == http.StatusTooManyRequests {
			require.NotEmpty(t, a.Header.Get("Retry-After"))
		}
		return a.StatusCode, a.Close
	}
	for i := range 3 {
		lines = append(lines, g.dial())
		status, _ := call(lines[i])
		require.Equal(t, http.StatusOK, status)
	}
	idle := g.dial()
	eventually(t, func() bool { return g.Open() == 4 })
	status, closing := call(lines[0])
	require.Equal(t, http.StatusTooManyRequests, status, "there are more than the soft bound")
	require.True(t, closing)
	eventually(t, func() bool { return g.Open() == 3 })
	more := []*line{g.dial(), g.dial()}
	eventually(t, func() bool { return g.Open() == 5 })
	if conn, err := net.Dial("tcp", g.addr()); err == nil { // it may be reset first
		require.Empty(t, allOf(conn), "there are more than the hard bound")
	}
	for _, l := range append(more, idle) {
		require.NoError(t, l.Close())
	}
	eventually(t, func() bool { return g.Open() == 2 })
	status, _ = call(lines[1])
	require.Equal(t, http.StatusOK, status)
}

// allOf reads until the connection ends, in whatever way.
func allOf(conn net.Conn) string {
	defer conn.Close()
	b, _ := io.ReadAll(conn) // a reset is an end, too
	return string(b)
}

// consumersOf is the environment variable that turns a copy of the test binary into the clients of a gateway.
const consumersOf = "MEP_TEST_CONSUMERS_OF"

func TestTenThousandConnections(t *testing.T) {
	const connections = 10000
	if addr := os.Getenv(consumersOf); addr != "" {
		consume(t, addr, connections)
		return
	}
	var limit syscall.Rlimit
	require.NoError(t, syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit))
	if limit.Cur < connections+1000 {
		t.Skipf("10,000 connections need ulimit -n 11000, and it is %d", limit.Cur)
	}
	w := newWorld(t)
	g := w.gate(func(s *setup) { s.Gateway.HeaderTimeout = 5 * time.Minute })
	w.named("hello", mirrorOf(t).URL)
	w.policy("hello", anybody)
	// The clients are another process, because they need as many open files as the gateway.
	program, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.CommandContext(t.Context(), program, "-test.run=^TestTenThousandConnections$")
	cmd.Env = append(os.Environ(), consumersOf+"="+g.addr())
	in, err := cmd.StdinPipe()
	require.NoError(t, err)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	said, err := bufio.NewReader(out).ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, "0 failed\n", said)
	eventually(t, func() bool { return g.Open() == connections })
	require.NoError(t, in.Close())
	_ = cmd.Wait() // its output has been read
	eventually(t, func() bool { return g.Open() == 0 })
	require.Equal(t, http.StatusOK, g.status("/services/hello/"))
}

// consume opens many connections, makes a call on every eighth, and keeps them open until standard input ends.
func consume(t *testing.T, addr string, connections int) {
	conns := make([]net.Conn, connections)
	var dialled sync.WaitGroup
	var failed atomic.Int64
	for part := range 50 {
		dialled.Go(func() {
			for i := part; i < connections; i += 50 {
				c, err := net.Dial("tcp", addr)
				if err != nil {
					failed.Add(1)
					continue
				}
				conns[i] = c
				if i%8 != 0 {
					continue // being open is enough
				}
				_, _ = io.WriteString(c, "GET /services/hello/ HTTP/1.1\r\nHost: a\r\n\r\n")
				resp, err := http.ReadResponse(bufio.NewReader(c), nil)
				if err != nil {
					failed.Add(1)
					continue
				}
				if resp.StatusCode != http.StatusOK {
					failed.Add(1)
				}
				_ = resp.Body.Close()
			}
		})
	}
	dialled.Wait()
	_, err := fmt.Printf("%d failed\n", failed.Load())
	require.NoError(t, err)
	_, _ = io.Copy(io.Discard, os.Stdin)
	for _, c := range conns {
		if c != nil {
			_ = c.Close()
		}
	}
}

func TestThreeGatewaysShareAQuota(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var served atomic.Int64
	w.named("hello", serve(t, func(http.ResponseWriter, *http.Request) { served.Add(1) }).URL)
	const calls = 200
	p := anybody
	p.Quotas = []api.Quota{{Calls: calls, Per: "month"}}
	w.policy("hello", p)
	gates := []*gate{w.gate(), w.gate(), w.gate()}
	token := bearer(w.token(w.app()))
	var callers sync.WaitGroup
	var admitted, refused, unknown atomic.Int64
	for i := range 6 {
		callers.Go(func() {
			for range calls {
				a, err := gates[i%3].try(http.MethodGet, "/services/hello/", nil, token)
				switch {
				case err != nil:
					t.Error(err)
				case a.StatusCode == http.StatusServiceUnavailable:
					unknown.Add(1) // etcd was too slow on a busy machine
				case a.StatusCode == http.StatusOK:
					admitted.Add(1)
				default:
					refused.Add(1)
					if a.Header.Get("Retry-After") == "" || a.Header.Get("RateLimit") == "" {
						t.Error("a refusal says when to come back", a.Header)
					}
				}
			}
		})
	}
	callers.Wait()
	require.Equal(t, admitted.Load(), served.Load())
	require.LessOrEqual(t, admitted.Load(), int64(calls), "never more than the quota")
	require.Equal(t, int64(6*calls), admitted.Load()+refused.Load()+unknown.Load())
	if unknown.Load() == 0 {
		require.Equal(t, int64(calls), admitted.Load(), "and no less, once all have asked")
	}
	for _, g := range gates {
		require.Equal(t, http.StatusOK, g.status("/services/hello/", bearer(w.token(w.app()))), "each consumer has its own")
	}
}

func TestLimitsOfOneConsumer(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	g := w.gate()
	came, finish := make(chan struct{}, 4), make(chan struct{})
	w.named("slow", serve(t, func(http.ResponseWriter, *http.Request) {
		came <- struct{}{}
		<-finish
	}).URL)
	p := api.Policy{Concurrent: 1}
	w.policy("slow", p)
	me, you := bearer(w.token(w.app())), bearer(w.token(w.app()))
	ended := make(chan int, 2)
	call := func(who func(*http.Request)) {
		a, err := g.try(http.MethodGet, "/services/slow/", nil, who)
		if err != nil {
			ended <- 0
			return
		}
		ended <- a.StatusCode
	}
	go call(me)
	<-came
	require.Equal(t, http.StatusTooManyRequests, g.status("/services/slow/", me))
	go call(you)
	<-came
	close(finish)
	require.Equal(t, http.StatusOK, <-ended)
	require.Equal(t, http.StatusOK, <-ended)

	w.named("spiky", mirrorOf(t).URL)
	w.policy("spiky", api.Policy{SpikeArrest: &api.SpikeArrest{Calls: 1, Per: api.PerMinute}})
	require.Equal(t, http.StatusOK, g.status("/services/spiky/", me))
	a := g.get("/services/spiky/", me)
	require.Equal(t, http.StatusTooManyRequests, a.StatusCode)
	require.NotEmpty(t, a.Header.Get("Retry-After"))
	require.Equal(t, http.StatusOK, g.status("/services/spiky/", you))
}

func TestQuotasWhileEtcdIsAway(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	owner := w.app()
	for name, away := range map[string]string{"strict": api.AwayRefuse, "lenient": api.AwayAllow} {
		w.service(owner, name, mirrorOf(t).URL)
		p := anybody
		p.Quotas, p.WhenStoreAway = []api.Quota{{Calls: 1000, Per: "month"}}, away
		w.policy(name, p)
	}
	g := w.gate(func(s *setup) { s.Common.EtcdTimeout = 200 * time.Millisecond })
	w.etcd.Stop()
	require.Equal(t, http.StatusOK, g.status("/services/lenient/"))
	require.Equal(t, http.StatusServiceUnavailable, g.status("/services/strict/"))
}
