package front

import (
	"log/slog"
	"net"
	"net/netip"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
)

func TestConnectionsOfOneClientHaveABound(t *testing.T) {
	most, perAddress := 10, 2
	l := newListener(nil, &ServerConfig{
		Connections: func() int { return most }, PerAddress: func() int { return perAddress },
		Exempt: func(a netip.Addr) bool { return a == netip.MustParseAddr("192.0.2.9") },
		Log:    slog.New(slog.DiscardHandler), Registerer: prometheus.NewRegistry(),
	})
	enter := func(addr string) (string, bool) {
		return l.enter(net.TCPAddrFromAddrPort(netip.MustParseAddrPort(addr)))
	}
	first, ok := enter("192.0.2.1:1000")
	require.True(t, ok)
	_, ok = enter("192.0.2.1:1001")
	require.True(t, ok)
	_, ok = enter("192.0.2.1:1002")
	require.False(t, ok, "a third one")
	_, ok = enter("192.0.2.2:1000")
	require.True(t, ok, "another client")
	l.leave(first)
	_, ok = enter("192.0.2.1:1003")
	require.True(t, ok, "one has gone")
	require.EqualValues(t, 3, l.open.Load())

	for i, addr := range []string{"[2001:db8::1]:1", "[2001:db8::2]:1", "[2001:db8::3]:1"} {
		_, ok = enter(addr)
		require.Equal(t, i < 2, ok, "a /64 is one client")
	}
	for _, addr := range []string{"127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3", "192.0.2.9:1", "192.0.2.9:2"} {
		_, ok = enter(addr)
		require.True(t, ok, addr)
	}
	_, ok = enter("127.0.0.1:4")
	require.False(t, ok, "that would be more than there may be in all")
	require.EqualValues(t, 10, l.open.Load())
	perAddress = 0
	most = 100
	for range 5 {
		_, ok = enter("192.0.2.1:2000")
		require.True(t, ok, "there is no bound")
	}
}
