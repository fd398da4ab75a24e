package front

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestTheClientBehindProxies(t *testing.T) {
	t.Parallel()
	proxies := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("2001:db8::/32")}
	for name, c := range map[string]struct {
		fields []string
		client string
	}{
		"nothing is said":              {nil, "10.0.0.1"},
		"one client":                   {[]string{"192.0.2.1"}, "192.0.2.1"},
		"a chain of proxies":           {[]string{"192.0.2.1, 10.0.0.3, 10.0.0.2"}, "192.0.2.1"},
		"several fields":               {[]string{"192.0.2.1", "10.0.0.3", "2001:db8::9"}, "192.0.2.1"},
		"what the client itself said":  {[]string{"10.9.9.9, 127.0.0.1, 192.0.2.1"}, "192.0.2.1"},
		"proxies only":                 {[]string{"10.0.0.4, 10.0.0.3"}, "10.0.0.4"},
		"no address":                   {[]string{"unknown"}, "10.0.0.1"},
		"no address before a proxy":    {[]string{"192.0.2.1, unknown, 10.0.0.3"}, "10.0.0.3"},
		"nothing between commas":       {[]string{"192.0.2.1,,10.0.0.3"}, "10.0.0.3"},
		"IPv6":                         {[]string{"2001:dead::1"}, "2001:dead::1"},
		"IPv4 in IPv6":                 {[]string{"::ffff:192.0.2.1"}, "192.0.2.1"},
		"a zone":                       {[]string{"fe80::1%eth0"}, "fe80::1"},
		"a proxy that is IPv4 in IPv6": {[]string{"192.0.2.1, ::ffff:10.0.0.3"}, "192.0.2.1"},
	} {
		t.Run(name, func(t *testing.T) {
			require.Equal(t, c.client, clientBehind(c.fields, netip.MustParseAddr("10.0.0.1"), proxies).String())
		})
	}
}

func TestAddressesOfConnections(t *testing.T) {
	t.Parallel()
	for remote, want := range map[string]string{
		"192.0.2.1:80": "192.0.2.1", "[::ffff:192.0.2.1]:80": "192.0.2.1", "[fe80::1%eth0]:80": "fe80::1", "@": "::", "": "::",
	} {
		require.Equal(t, want, addrOf(remote).String(), remote)
	}
}
