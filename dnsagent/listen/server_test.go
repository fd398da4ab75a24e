package listen_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/openmep/mep/dnsagent/listen"
)

func TestMain(m *testing.M) {
	if os.Getenv(asChild) != "" {
		os.Exit(child())
	}
	goleak.VerifyTestMain(m)
}

// patience is how long tests wait for what must happen.
const patience = 20 * time.Second

// echo answers a message with the message itself. A prefix up to a colon selects another behaviour.
type echo struct {
	entered chan string   // receives each message that enters Resolve
	release chan struct{} // ends one call of Resolve
	seen    func(peer listen.Peer)
}

func newEcho() *echo {
	return &echo{entered: make(chan string, 1000), release: make(chan struct{}, 1000)}
}

// Answer implements listen.Handler.
func (e *echo) Answer(buf, msg []byte, peer *listen.Peer) ([]byte, bool) {
	if e.seen != nil {
		e.seen(*peer)
	}
	how, what, _ := bytes.Cut(msg, []byte(":"))
	switch string(how) {
	case "wait", "stuck", "late panic":
		return nil, true
	case "panic":
		panic("as asked for")
	case "silent":
		return nil, false
	case "long":
		n, _ := strconv.Atoi(string(what))
		return append(buf, make([]byte, n)...), false
	}
	return append(buf, msg...), false
}

// Resolve implements listen.Handler.
func (e *echo) Resolve(ctx context.Context, buf, msg []byte, _ *listen.Peer) []byte {
	e.entered <- string(msg)
	if bytes.HasPrefix(msg, []byte("stuck")) {
		ctx = context.Background()
	}
	select {
	case <-e.release:
	case <-ctx.Done():
		return nil
	}
	if bytes.HasPrefix(msg, []byte("late panic")) {
		panic("as asked for, later")
	}
	return append(buf, msg...)
}

// Overloaded implements listen.Handler.
func (e *echo) Overloaded(buf, msg []byte, _ *listen.Peer) []byte {
	if bytes.HasSuffix(msg, []byte("panic")) {
		panic("as asked for, when overloaded")
	}
	return append(append(buf, "overloaded "...), msg...)
}

// server is a running server.
type server struct {
	*listen.Server
	metrics *prometheus.Registry
	log     *lines
	stop    func()
	ended   chan error
}

// lines collects a log.
type lines struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

// Write implements io.Writer.
func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

func open(tb testing.TB, cfg listen.Config) (*server, error) {
	tb.Helper()
	s := &server{metrics: prometheus.NewRegistry(), log: new(lines), ended: make(chan error, 1)}
	cfg.Registerer, cfg.Log = s.metrics, slog.New(slog.NewTextHandler(s.log, nil))
	var err error
	s.Server, err = listen.Open(cfg)
	return s, err
}

// start runs a server until the end of the test.
func start(tb testing.TB, cfg listen.Config, h listen.Handler) *server {
	tb.Helper()
	s, err := open(tb, cfg)
	require.NoError(tb, err)
	s.run(tb, h)
	return s
}

func (s *server) run(tb testing.TB, h listen.Handler) {
	tb.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	s.stop = cancel
	go func() { s.ended <- s.Run(ctx, h) }()
	tb.Cleanup(func() {
		cancel()
		select {
		case err := <-s.ended:
			require.NoError(tb, err)
		case <-time.After(patience):
			tb.Error("the server does not end")
		}
	})
}

// metric returns the sum of the values of a metric that have all the given labels, each as name=value.
func (s *server) metric(tb testing.TB, name string, labels ...string) float64 {
	tb.Helper()
	families, err := s.metrics.Gather()
	require.NoError(tb, err)
	sum := 0.0
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			all := ""
			for _, l := range m.GetLabel() {
				all += "," + l.GetName() + "=" + l.GetValue() + ","
			}
			fits := true
			for _, l := range labels {
				fits = fits && strings.Contains(all, ","+l+",")
			}
			if fits {
				sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	return sum
}

// becomes waits until a metric has the wanted value.
func (s *server) becomes(tb testing.TB, want float64, name string, labels ...string) {
	tb.Helper()
	require.Eventually(tb, func() bool { return s.metric(tb, name, labels...) == want }, patience, time.Millisecond,
		"%s%v never was %g", name, labels, want)
}

// client is the client end of a UDP socket or a connection.
type client struct {
	tb testing.TB
	net.Conn
	stream bool
}

func dial(tb testing.TB, network string, addr netip.AddrPort) *client {
	tb.Helper()
	conn, err := net.DialTimeout(network, addr.String(), patience)
	require.NoError(tb, err)
	return newClient(tb, conn, network == "tcp")
}

func newClient(tb testing.TB, conn net.Conn, stream bool) *client {
	tb.Cleanup(func() { _ = conn.Close() })
	require.NoError(tb, conn.SetDeadline(time.Now().Add(patience)))
	return &client{tb, conn, stream}
}

func framed(msg string) []byte {
	return append(binary.BigEndian.AppendUint16(nil, uint16(len(msg))), msg...)
}

func (c *client) send(msg string) {
	c.tb.Helper()
	out := []byte(msg)
	if c.stream {
		out = framed(msg)
	}
	_, err := c.Write(out)
	require.NoError(c.tb, err)
}

func (c *client) receive() string {
	c.tb.Helper()
	buf := make([]byte, 1<<16)
	if !c.stream {
		n, err := c.Read(buf)
		require.NoError(c.tb, err)
		return string(buf[:n])
	}
	_, err := io.ReadFull(c, buf[:2])
	require.NoError(c.tb, err)
	n, err := io.ReadFull(c, buf[:binary.BigEndian.Uint16(buf)])
	require.NoError(c.tb, err)
	return string(buf[:n])
}

func (c *client) ask(msg string) string {
	c.tb.Helper()
	c.send(msg)
	return c.receive()
}

// closed waits until the server closes the connection.
func (c *client) closed() {
	c.tb.Helper()
	_, err := c.Read(make([]byte, 1))
	require.Error(c.tb, err)
	require.NotErrorIs(c.tb, err, os.ErrDeadlineExceeded, "the connection stays open")
}

// both runs a test over UDP and TCP.
func both(t *testing.T, test func(t *testing.T, network string)) {
	t.Helper()
	for _, network := range []string{"udp", "tcp"} {
		t.Run(network, func(t *testing.T) { test(t, network) })
	}
}

const loopback = "127.0.0.1:0"

func TestManyClientsHaveTheirOwnAnswers(t *testing.T) {
	s := start(t, listen.Config{Addr: loopback}, newEcho())
	const clients, queries = 6, 500
	both(t, func(t *testing.T, network string) {
		var all sync.WaitGroup
		for i := range clients {
			c := dial(t, network, s.Addr())
			all.Go(func() {
				for n := range queries {
					msg := strconv.Itoa(i) + " asks " + strconv.Itoa(n)
					if got := c.ask(msg); got != msg {
						t.Errorf("%q instead of %q", got, msg)
						return
					}
				}
			})
		}
		all.Wait()
		s.becomes(t, clients*queries, "mep_dns_packets_total", "transport="+network)
		s.becomes(t, clients*queries, "mep_dns_sent_total", "transport="+network)
		require.Zero(t, s.metric(t, "mep_dns_dropped_total", "transport="+network))
	})
}

func TestThePeerIsWhoAsked(t *testing.T) {
	peers := make(chan listen.Peer, 1)
	h := newEcho()
	h.seen = func(p listen.Peer) { peers <- p }
	s := start(t, listen.Config{Addr: ":0"}, h)
	for network, transport := range map[string]listen.Transport{"udp": listen.UDP, "tcp": listen.TCP} {
		for _, host := range []string{"127.0.0.1", "::1"} {
			c := dial(t, network, netip.AddrPortFrom(netip.MustParseAddr(host), s.Addr().Port()))
			c.ask("x")
			require.Equal(t, listen.Peer{AddrPort: netip.MustParseAddrPort(c.LocalAddr().String()), Transport: transport}, <-peers,
				"an IPv4 address is not mapped into IPv6")
		}
	}
}

func TestWhatWaitsIsAnsweredLater(t *testing.T) {
	both(t, func(t *testing.T, network string) {
		h := newEcho()
		s := start(t, listen.Config{Addr: loopback}, h)
		c := dial(t, network, s.Addr())
		c.send("wait: a")
		require.Equal(t, "wait: a", <-h.entered)
		require.InDelta(t, 1, s.metric(t, "mep_dns_pending"), 0)
		require.Equal(t, "b", c.ask("b"), "what is at hand does not wait for what is not")
		h.release <- struct{}{}
		require.Equal(t, "wait: a", c.receive())
		s.becomes(t, 0, "mep_dns_pending")
	})
}

func TestOverload(t *testing.T) {
	both(t, func(t *testing.T, network string) {
		h := newEcho()
		s := start(t, listen.Config{Addr: loopback, Pending: 2}, h)
		c := dial(t, network, s.Addr())
		c.send("wait: a")
		c.send("wait: b")
		require.ElementsMatch(t, []string{"wait: a", "wait: b"}, []string{<-h.entered, <-h.entered})
		require.Equal(t, "overloaded wait: c", c.ask("wait: c"))
		require.Equal(t, "d", c.ask("d"), "what is at hand is answered all the same")
		require.InDelta(t, 1, s.metric(t, "mep_dns_overloaded_total", "transport="+network), 0)
		h.release <- struct{}{}
		c.receive()
		s.becomes(t, 1, "mep_dns_pending")
		c.send("wait: e")
		require.Equal(t, "wait: e", <-h.entered)
		h.release <- struct{}{}
		h.release <- struct{}{}
		received := []string{c.receive(), c.receive()}
		require.Contains(t, received, "wait: e", "there is room again")
	})
}

func TestOneClientLeavesRoomForOthers(t *testing.T) {
	h := newEcho()
	s := start(t, listen.Config{Addr: ":0", Pending: 3, PendingPerAddr: 2}, h)
	one := dial(t, "udp", netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), s.Addr().Port()))
	one.send("wait: a")
	one.send("wait: b")
	require.ElementsMatch(t, []string{"wait: a", "wait: b"}, []string{<-h.entered, <-h.entered})
	require.Equal(t, "overloaded wait: c", one.ask("wait: c"))
	other := dial(t, "tcp", netip.AddrPortFrom(netip.MustParseAddr("::1"), s.Addr().Port()))
	other.send("wait: d")
	require.Equal(t, "wait: d", <-h.entered)
	for range 3 {
		h.release <- struct{}{}
	}
	require.Equal(t, "wait: d", other.receive())
	s.becomes(t, 0, "mep_dns_pending")
	one.receive()
	one.receive()
	one.send("wait: e")
	require.Equal(t, "wait: e", <-h.entered)
	h.release <- struct{}{}
	require.Equal(t, "wait: e", one.receive())
}

func TestAPanicCostsOneAnswer(t *testing.T) {
	both(t, func(t *testing.T, network string) {
		h := newEcho()
		s := start(t, listen.Config{Addr: loopback, Sockets: 1, Pending: 1}, h)
		c := dial(t, network, s.Addr())
		c.send("panic")
		require.Equal(t, "x", c.ask("x"))
		c.send("panic")
		c.send("late panic")
		require.Equal(t, "late panic", <-h.entered)
		c.send("wait: panic")
		require.Equal(t, "y", c.ask("y"))
		h.release <- struct{}{}
		s.becomes(t, 4, "mep_dns_panics_total")
		s.becomes(t, 0, "mep_dns_pending")
		require.Equal(t, "z", c.ask("z"))
		require.Contains(t, s.log.String(), "as asked for")
		require.Contains(t, s.log.String(), "server_test.go", "the log says where it was")
		s.becomes(t, 4, "mep_dns_dropped_total", "reason=silent")
	})
}

func TestNoAnswerIsSent(t *testing.T) {
	both(t, func(t *testing.T, network string) {
		s := start(t, listen.Config{Addr: loopback}, newEcho())
		c := dial(t, network, s.Addr())
		c.send("silent")
		require.Equal(t, "x", c.ask("x"))
		require.InDelta(t, 1, s.metric(t, "mep_dns_dropped_total", "reason=silent", "transport="+network), 0)
	})
}
