package listen_test

import (
	"context"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/dnsagent/listen"
)

// short is a timeout for tests that have to wait until it expires.
const short = 50 * time.Millisecond

func TestMessagesInAStream(t *testing.T) {
	s := start(t, listen.Config{Addr: loopback}, newEcho())
	long := strings.Repeat("x", 65535)
	t.Run("in one packet", func(t *testing.T) {
		c := dial(t, "tcp", s.Addr())
		_, err := c.Write(append(framed("a"), append(framed(long), framed("b")...)...))
		require.NoError(t, err)
		require.Equal(t, []string{"a", long, "b"}, []string{c.receive(), c.receive(), c.receive()})
	})
	t.Run("in pieces", func(t *testing.T) {
		c := dial(t, "tcp", s.Addr())
		for _, octet := range append(framed("first"), framed("second")...) {
			_, err := c.Write([]byte{octet})
			require.NoError(t, err)
		}
		require.Equal(t, []string{"first", "second"}, []string{c.receive(), c.receive()})
	})
	t.Run("an answer longer than a length can say is not sent", func(t *testing.T) {
		c := dial(t, "tcp", s.Addr())
		c.send("long:65536")
		require.Len(t, c.ask("long:65535"), 65535)
		require.InDelta(t, 1, s.metric(t, "mep_dns_dropped_total", "reason=too_long", "transport=tcp"), 0)
	})
	t.Run("a message of no length ends it", func(t *testing.T) {
		c := dial(t, "tcp", s.Addr())
		require.Equal(t, "x", c.ask("x"))
		c.send("")
		c.closed()
		s.becomes(t, 1, "mep_dns_connections_ended_total", "reason=malformed")
	})
	t.Run("half a message ends with the connection", func(t *testing.T) {
		c := dial(t, "tcp", s.Addr())
		_, err := c.Write(framed("cut off")[:4])
		require.NoError(t, err)
		require.NoError(t, c.Conn.(*net.TCPConn).CloseWrite())
		c.closed()
	})
}

func TestAnswersAreSentAfterTheClientClosedItsHalf(t *testing.T) {
	h := newEcho()
	s := start(t, listen.Config{Addr: loopback}, h)
	c := dial(t, "tcp", s.Addr())
	c.send("wait: a")
	require.NoError(t, c.Conn.(*net.TCPConn).CloseWrite())
	require.Equal(t, "wait: a", <-h.entered)
	h.release <- struct{}{}
	require.Equal(t, "wait: a", c.receive())
	c.closed()
	s.becomes(t, 1, "mep_dns_connections_ended_total", "reason=client")
	s.becomes(t, 0, "mep_dns_connections")
}

func TestPipelinedMessagesComeBackInAnyOrder(t *testing.T) {
	h := newEcho()
	s := start(t, listen.Config{Addr: loopback, PerConnection: 100}, h)
	c := dial(t, "tcp", s.Addr())
	want := map[string]bool{}
	for i := range 200 {
		msg := []string{"", "wait: "}[rand.IntN(2)] + strconv.Itoa(i)
		want[msg] = true
		c.send(msg)
		if i%2 == 1 {
			h.release <- struct{}{}
		}
	}
	for range 100 {
		h.release <- struct{}{}
	}
	for range len(want) {
		got := c.receive()
		require.True(t, want[got], "%q is no answer, or comes again", got)
		delete(want, got)
	}
}

// TestAConnectionWaitsForAFew counts how many messages of a connection are in Resolve.
func TestAConnectionWaitsForAFew(t *testing.T) {
	const few = 3
	h := &counting{echo: newEcho()}
	s := start(t, listen.Config{Addr: loopback, PerConnection: few}, h)
	c := dial(t, "tcp", s.Addr())
	const messages = 60
	for i := range messages {
		c.send("wait: " + strconv.Itoa(i))
	}
	for range few {
		<-h.entered
	}
	for range messages {
		h.release <- struct{}{}
		c.receive()
	}
	require.LessOrEqual(t, h.most.Load(), int64(few))
	require.Zero(t, s.metric(t, "mep_dns_overloaded_total"), "the client is slowed down rather than refused")
}

func TestSlowClientsAreCutOff(t *testing.T) {
	t.Run("one that begins a message", func(t *testing.T) {
		s := start(t, listen.Config{Addr: loopback, ReadTimeout: short, Idle: time.Hour}, newEcho())
		c := dial(t, "tcp", s.Addr())
		_, err := c.Write([]byte{0})
		require.NoError(t, err)
		c.closed()
		s.becomes(t, 1, "mep_dns_connections_ended_total", "reason=timeout")
	})
	t.Run("one that goes on octet by octet", func(t *testing.T) {
		s := start(t, listen.Config{Addr: loopback, ReadTimeout: short, Idle: time.Hour}, newEcho())
		c := dial(t, "tcp", s.Addr())
		require.Equal(t, "x", c.ask("x"))
		_, err := c.Write([]byte{255, 255})
		for until := time.Now().Add(patience); err == nil; time.Sleep(short / 10) {
			require.True(t, time.Now().Before(until), "the connection stays open")
			_, err = c.Write([]byte{'x'})
		}
		s.becomes(t, 1, "mep_dns_connections_ended_total", "transport=tcp")
	})
	t.Run("one that does not take its answers", func(t *testing.T) {
		s := start(t, listen.Config{Addr: loopback, ReadTimeout: short}, newEcho())
		c := dial(t, "tcp", s.Addr())
		for err := error(nil); err == nil; {
			_, err = c.Write(framed("long:60000"))
		}
		s.becomes(t, 0, "mep_dns_connections")
		require.Positive(t, s.metric(t, "mep_dns_dropped_total", "reason=write"))
		require.Equal(t, "x", dial(t, "tcp", s.Addr()).ask("x"), "others are served")
	})
	t.Run("one that says nothing", func(t *testing.T) {
		s := start(t, listen.Config{Addr: loopback, Idle: short}, newEcho())
		dial(t, "tcp", s.Addr()).closed()
		c := dial(t, "tcp", s.Addr())
		require.Equal(t, "x", c.ask("x"))
		c.closed()
		s.becomes(t, 2, "mep_dns_connections_ended_total", "reason=idle")
	})
	t.Run("but not one that waits for an answer", func(t *testing.T) {
		h := newEcho()
		s := start(t, listen.Config{Addr: loopback, Idle: short}, h)
		c := dial(t, "tcp", s.Addr())
		c.send("wait: long")
		<-h.entered
		dial(t, "tcp", s.Addr()).closed() // by now, c has waited longer than Idle
		require.Equal(t, "x", c.ask("x"))
		h.release <- struct{}{}
		require.Equal(t, "wait: long", c.receive())
		c.closed()
		s.becomes(t, 2, "mep_dns_connections_ended_total", "reason=idle")
	})
}

func from(t *testing.T, local string, to netip.AddrPort) *client {
	t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(local)}, Timeout: patience}
	conn, err := d.DialContext(t.Context(), "tcp", to.String())
	require.NoError(t, err)
	return newClient(t, conn, true)
}

func TestConnectionsAreLimited(t *testing.T) {
	t.Run("the one longest idle makes room", func(t *testing.T) {
		s := start(t, listen.Config{Addr: loopback, Connections: 2}, newEcho())
		a, b := dial(t, "tcp", s.Addr()), dial(t, "tcp", s.Addr())
		require.Equal(t, "x", b.ask("x"))
		require.Equal(t, "x", a.ask("x"))
		c := dial(t, "tcp", s.Addr())
		require.Equal(t, "x", c.ask("x"))
		b.closed()
		require.Equal(t, "x", a.ask("x"))
		s.becomes(t, 2, "mep_dns_connections", "transport=tcp")
		s.becomes(t, 1, "mep_dns_connections_ended_total", "reason=evicted")
	})
	t.Run("half a message is idle", func(t *testing.T) {
		s := start(t, listen.Config{Addr: loopback, Connections: 1, ReadTimeout: time.Hour}, newEcho())
		slow := dial(t, "tcp", s.Addr())
		_, err := slow.Write(framed("slow loris")[:5])
		require.NoError(t, err)
		require.Equal(t, "x", dial(t, "tcp", s.Addr()).ask("x"))
		slow.closed()
	})
	t.Run("one that waits for an answer stays", func(t *testing.T) {
		h := newEcho()
		s := start(t, listen.Config{Addr: loopback, Connections: 1}, h)
		a := dial(t, "tcp", s.Addr())
		a.send("wait: a")
		<-h.entered
		dial(t, "tcp", s.Addr()).closed()
		h.release <- struct{}{}
		require.Equal(t, "wait: a", a.receive())
		s.becomes(t, 1, "mep_dns_connections_ended_total", "reason=limit")
	})
	t.Run("for each address", func(t *testing.T) {
		h := newEcho()
		s := start(t, listen.Config{Addr: "0.0.0.0:0", ConnectionsPerAddr: 1}, h)
		server := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), s.Addr().Port())
		a, b := from(t, "127.0.0.1", server), from(t, "127.0.0.2", server)
		a.send("wait: a")
		<-h.entered
		require.Equal(t, "x", b.ask("x"))
		from(t, "127.0.0.1", server).closed()
		s.becomes(t, 1, "mep_dns_connections_ended_total", "reason=address_limit")
		require.Equal(t, "y", from(t, "127.0.0.2", server).ask("y"))
		b.closed()
		h.release <- struct{}{}
		require.Equal(t, "wait: a", a.receive())
	})
}

func TestManyConnectionsComeAndGo(t *testing.T) {
	s := start(t, listen.Config{Addr: loopback, Connections: 20}, newEcho())
	for range 200 {
		conn, err := net.DialTimeout("tcp", s.Addr().String(), patience)
		require.NoError(t, err)
		switch rand.IntN(3) {
		case 0:
			_, _ = conn.Write(framed("x"))
			_, _ = io.ReadFull(conn, make([]byte, 3))
		case 1:
			_, _ = conn.Write(framed("wait: gone")[:rand.IntN(12)])
		}
		if rand.IntN(4) > 0 {
			_ = conn.Close()
		} else {
			t.Cleanup(func() { _ = conn.Close() })
		}
	}
	require.Eventually(t, func() bool { return s.metric(t, "mep_dns_connections") <= 20 }, patience, time.Millisecond)
	require.Equal(t, "x", dial(t, "tcp", s.Addr()).ask("x"))
}

// counting counts the messages in Resolve, and records their maximum.
type counting struct {
	*echo
	now, most atomic.Int64
}

// Resolve implements listen.Handler.
func (c *counting) Resolve(ctx context.Context, buf, msg []byte, peer *listen.Peer) []byte {
	n := c.now.Add(1)
	defer c.now.Add(-1)
	for {
		most := c.most.Load()
		if n <= most || c.most.CompareAndSwap(most, n) {
			return c.echo.Resolve(ctx, buf, msg, peer)
		}
	}
}
