package listen_test

import (
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/dnsagent/listen"
)

// TestAnswersLeaveFromWhereTheQueryCame uses client sockets that accept packets only from the queried address. Otherwise
// the kernel would send from another one: that of the client, which is local, too.
func TestAnswersLeaveFromWhereTheQueryCame(t *testing.T) {
	cases := map[string]struct{ bind, client, server string }{
		"one address":            {"127.0.0.3:0", "127.0.0.1", "127.0.0.3"},
		"one IPv6 address":       {"[::1]:0", "::1", "::1"},
		"all of IPv4":            {"0.0.0.0:0", "127.0.0.1", "127.0.0.2"},
		"all, asked over IPv4":   {":0", "127.0.0.1", "127.0.0.2"},
		"all, asked over IPv6":   {":0", "::1", "::1"},
		"all of IPv6":            {"[::]:0", "::1", "::1"},
		"all, other than client": {":0", "::1", globalIPv6()},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			if c.server == "" {
				t.Skip("this machine has no IPv6 address besides that of the loopback interface")
			}
			h := newEcho()
			s := start(t, listen.Config{Addr: c.bind, Sockets: 2}, h)
			conn, err := net.DialUDP("udp",
				net.UDPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(c.client), 0)),
				net.UDPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(c.server), s.Addr().Port())))
			require.NoError(t, err)
			client := newClient(t, conn, false)
			require.Equal(t, "x", client.ask("x"))
			h.release <- struct{}{}
			require.Equal(t, "wait: y", client.ask("wait: y"), "an answer that took its time, too")
		})
	}
}

func globalIPv6() string {
	addrs, _ := net.InterfaceAddrs()
	for _, a := range addrs {
		p, err := netip.ParsePrefix(a.String())
		if err == nil && p.Addr().Is6() && p.Addr().IsGlobalUnicast() {
			return p.Addr().String()
		}
	}
	return ""
}

func TestAllOfIPv4IsNotIPv6(t *testing.T) {
	s := start(t, listen.Config{Addr: "0.0.0.0:0"}, newEcho())
	_, err := net.DialTimeout("tcp", netip.AddrPortFrom(netip.IPv6Loopback(), s.Addr().Port()).String(), patience)
	require.Error(t, err)
}

func TestWhatCannotBeSentEndsNothing(t *testing.T) {
	s := start(t, listen.Config{Addr: loopback, Sockets: 1}, newEcho())
	c := dial(t, "udp", s.Addr())
	c.send("long:66000")
	require.Equal(t, "x", c.ask("x"))
	require.InDelta(t, 1, s.metric(t, "mep_dns_dropped_total", "reason=write"), 0)

	gone := dial(t, "udp", s.Addr())
	gone.send("to nobody")
	require.NoError(t, gone.Close())
	for range 10 {
		require.Equal(t, "y", c.ask("y"))
	}
}

func TestMessagesTooLongAreNotTaken(t *testing.T) {
	s := start(t, listen.Config{Addr: loopback, Sockets: 1}, newEcho())
	c := dial(t, "udp", s.Addr())
	c.send(strings.Repeat("x", 4097))
	long := strings.Repeat("y", 4096)
	require.Equal(t, long, c.ask(long))
	require.InDelta(t, 1, s.metric(t, "mep_dns_dropped_total", "reason=too_long"), 0)
}

// asker sends queries over UDP without allocating.
type asker struct {
	conn *net.UDPConn
	buf  [512]byte
}

func newAsker(tb testing.TB, addr netip.AddrPort) *asker {
	tb.Helper()
	conn, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(addr))
	require.NoError(tb, err)
	require.NoError(tb, conn.SetDeadline(time.Now().Add(patience)))
	tb.Cleanup(func() { _ = conn.Close() })
	return &asker{conn: conn}
}

func (a *asker) ask(tb testing.TB, msg []byte) {
	if _, err := a.conn.Write(msg); err != nil {
		tb.Fatal(err)
	}
	if n, err := a.conn.Read(a.buf[:]); err != nil || n != len(msg) {
		tb.Fatal(n, err)
	}
}

func TestAnswersAtHandAllocateNothing(t *testing.T) {
	for name, bind := range map[string]string{"one address": loopback, "all addresses": ":0", "all of IPv4": "0.0.0.0:0"} {
		t.Run(name, func(t *testing.T) {
			s := start(t, listen.Config{Addr: bind}, newEcho())
			a := newAsker(t, netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), s.Addr().Port()))
			msg := []byte("as long as most queries are")
			require.Zero(t, testing.AllocsPerRun(500, func() { a.ask(t, msg) }))
		})
	}
}

func BenchmarkUDP(b *testing.B) {
	s := start(b, listen.Config{Addr: loopback}, newEcho())
	a := newAsker(b, s.Addr())
	msg := []byte("as long as most queries are")
	b.ReportAllocs()
	for b.Loop() {
		a.ask(b, msg)
	}
}
