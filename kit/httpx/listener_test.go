package httpx_test

import (
	"net"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/kit/httpx"
)

func TestURLOfAListener(t *testing.T) {
	for want, x := range map[string]struct {
		addr net.TCPAddr
		tls  bool
	}{
		"http://127.0.0.1:8088":    {addr: net.TCPAddr{IP: net.IPv4zero, Port: 8088}},
		"https://127.0.0.1:8443":   {addr: net.TCPAddr{IP: net.IPv6unspecified, Port: 8443}, tls: true},
		"https://192.0.2.1:443":    {addr: net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 443}, tls: true},
		"http://[2001:db8::1]:80":  {addr: net.TCPAddr{IP: net.ParseIP("2001:db8::1"), Port: 80}},
		"http://[fe80::1%eth0]:80": {addr: net.TCPAddr{IP: net.ParseIP("fe80::1"), Port: 80, Zone: "eth0"}},
	} {
		before := x.addr.String()
		require.Equal(t, want, httpx.ListenerURL(&x.addr, x.tls))
		require.Equal(t, before, x.addr.String(), "the address stays")
	}
}
