package netguard_test

import (
	"net"
	"net/netip"
	"net/url"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/kit/netguard"
)

func ap(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

func TestAddressesThatAreNeverCalled(t *testing.T) {
	open := &netguard.Policy{
		AllowLoopback: true, AllowPrivate: true, Own: []netip.AddrPort{ap("127.0.0.1:8088"), ap("[::]:9090"), ap("192.0.2.1:7")},
	}
	for name, c := range map[string]struct{ addr, says string }{
		"unspecified":                                   {"0.0.0.0:80", "unspecified"},
		"unspecified, IPv6":                             {"[::]:80", "unspecified"},
		"unspecified, IPv4 in IPv6":                     {"[::ffff:0.0.0.0]:80", "unspecified"},
		"this network":                                  {"0.1.2.3:80", "unspecified"},
		"multicast":                                     {"224.0.0.1:80", "multicast"},
		"multicast, IPv6":                               {"[ff02::1]:80", "multicast"},
		"broadcast":                                     {"255.255.255.255:80", "broadcast"},
		"link-local":                                    {"169.254.1.1:80", "link-local"},
		"the metadata service of a cloud":               {"169.254.169.254:80", "link-local"},
		"link-local, IPv6 with a zone":                  {"[fe80::1%eth0]:80", "link-local"},
		"link-local, IPv4 in IPv6":                      {"[::ffff:169.254.169.254]:80", "link-local"},
		"link-local, IPv4 in IPv6 with a zone":          {"[::ffff:169.254.169.254%1]:80", "link-local"},
		"link-local, translated":                        {"[64:ff9b::a9fe:a9fe]:80", "link-local"},
		"link-local, translated with one's own":         {"[64:ff9b:1::a9fe:a9fe]:80", "link-local"},
		"link-local, 6to4":                              {"[2002:a9fe:a9fe::1]:80", "link-local"},
		"link-local, IPv4-compatible":                   {"[::169.254.169.254]:80", "link-local"},
		"the metadata service of AWS, IPv6":             {"[fd00:ec2::254]:80", "metadata"},
		"the metadata service of Google, IPv6":          {"[fd20:ce::254]:80", "metadata"},
		"the metadata service of Alibaba":               {"100.100.100.200:80", "metadata"},
		"the metadata service of Alibaba, as IPv6":      {"[::ffff:100.100.100.200]:80", "metadata"},
		"an own listener":                               {"127.0.0.1:8088", "own listeners"},
		"an own listener, IPv4 in IPv6":                 {"[::ffff:127.0.0.1]:8088", "own listeners"},
		"an own listener, translated":                   {"[64:ff9b::c000:201]:7", "own listeners"},
		"a listener on any address by loopback":         {"127.0.0.1:9090", "own listeners"},
		"a listener on any address by another loopback": {"127.7.7.7:9090", "own listeners"},
		"a listener on any address by IPv6 loopback":    {"[::1]:9090", "own listeners"},
	} {
		t.Run(name, func(t *testing.T) { require.ErrorContains(t, open.CheckAddr(ap(c.addr)), c.says) })
	}
}

func TestAListenerOnAnyAddressIsReachedByEachAddressOfTheMachine(t *testing.T) {
	p := &netguard.Policy{AllowLoopback: true, AllowPrivate: true, Own: []netip.AddrPort{ap("0.0.0.0:9090")}}
	list, err := net.InterfaceAddrs()
	require.NoError(t, err)
	for _, n := range list {
		prefix, err := netip.ParsePrefix(n.String())
		require.NoError(t, err)
		require.Error(t, p.CheckAddr(netip.AddrPortFrom(prefix.Addr(), 9090)), prefix)
	}
	require.NoError(t, p.CheckAddr(ap("192.0.2.1:9090")), "an address of another machine")
	require.NoError(t, p.CheckAddr(ap("127.0.0.1:9091")), "another port")
}

func TestWhatTheSettingsAllow(t *testing.T) {
	shut := &netguard.Policy{LoopbackSetting: "x.allowLoopback", PrivateSetting: "x.allowPrivate"}
	open := &netguard.Policy{AllowLoopback: true, AllowPrivate: true}
	for name, c := range map[string]struct{ addr, says string }{
		"loopback":            {"127.0.0.1:80", "loopback address (x.allowLoopback is off)"},
		"loopback, IPv6":      {"[::1]:80", "loopback address (x.allowLoopback is off)"},
		"10.0.0.0/8":          {"10.1.2.3:80", "private address (x.allowPrivate is off)"},
		"172.16.0.0/12":       {"172.31.0.1:80", "private address (x.allowPrivate is off)"},
		"192.168.0.0/16":      {"192.168.0.1:80", "private address (x.allowPrivate is off)"},
		"fc00::/7":            {"[fd00::1]:80", "private address (x.allowPrivate is off)"},
		"private, translated": {"[64:ff9b::a00:1]:80", "private address (x.allowPrivate is off)"},
	} {
		t.Run(name, func(t *testing.T) {
			require.ErrorContains(t, shut.CheckAddr(ap(c.addr)), c.says)
			require.NoError(t, open.CheckAddr(ap(c.addr)))
		})
	}
	require.EqualError(t, new(netguard.Policy).CheckAddr(ap("127.0.0.1:1")), "must not be a loopback address")
	for _, addr := range []string{"93.184.216.34:80", "[2001:db8::1]:80", "[64:ff9b::5db8:d822]:80"} {
		require.NoError(t, shut.CheckAddr(ap(addr)), addr)
	}
	require.Error(t, open.CheckAddr(netip.AddrPort{}))
}

func TestListenersAreAskedForAtEveryCheck(t *testing.T) {
	var later []netip.AddrPort
	p := &netguard.Policy{AllowLoopback: true, Listeners: func() []netip.AddrPort { return later }}
	require.NoError(t, p.CheckAddr(ap("127.0.0.1:8443")))
	later = netguard.ParseListeners(map[string]string{"gateway": "https://127.0.0.1:8443", "dns": "127.0.0.1:53", "socket": "unix:///x"})
	require.Len(t, later, 2)
	require.Error(t, p.CheckAddr(ap("127.0.0.1:8443")))
	require.Error(t, p.CheckAddr(ap("127.0.0.1:53")))
}

func TestHostsAreCheckedAsFarAsTheyAreAddresses(t *testing.T) {
	p := &netguard.Policy{}
	for host, refused := range map[string]bool{
		"127.0.0.1": true, "[::1]": true, "::1": true, "fe80::1%eth0": true, "localhost": false, "example.com": false, "127.1": false,
	} {
		require.Equal(t, refused, p.CheckHost(host, 80) != nil, host)
	}
}

func TestThePortOfAURL(t *testing.T) {
	for raw, port := range map[string]uint16{
		"http://h": 80, "https://h": 443, "ws://h": 80, "wss://h": 443, "grpc://h": 80, "grpcs://h": 443, "h2c://h:1": 1, "http://h:": 80,
	} {
		u, err := url.Parse(raw)
		require.NoError(t, err)
		got, err := netguard.PortOf(u)
		require.NoError(t, err)
		require.Equal(t, port, got, raw)
	}
	for _, raw := range []string{"http://h:0", "http://h:65536"} {
		u, err := url.Parse(raw)
		require.NoError(t, err)
		_, err = netguard.PortOf(u)
		require.Error(t, err, raw)
	}
}

func TestTheDialerChecksWhatNamesResolveTo(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer ln.Close()
	policy := &netguard.Policy{}
	d := netguard.Dialer(func() *netguard.Policy { return policy }, time.Second)
	_, port, err := net.SplitHostPort(ln.Addr().String())
	require.NoError(t, err)
	for _, host := range []string{"localhost", "127.0.0.1"} {
		_, err = d.DialContext(t.Context(), "tcp4", net.JoinHostPort(host, port))
		var refused *netguard.RefusedError
		require.ErrorAs(t, err, &refused, host)
		require.ErrorContains(t, err, "loopback")
		require.Equal(t, ln.Addr().String(), refused.Addr)
	}
	policy = &netguard.Policy{AllowLoopback: true, Own: []netip.AddrPort{ln.Addr().(*net.TCPAddr).AddrPort()}}
	_, err = d.DialContext(t.Context(), "tcp4", "localhost:"+port)
	require.ErrorContains(t, err, "own listeners")

	policy = &netguard.Policy{AllowLoopback: true}
	conn, err := d.DialContext(t.Context(), "tcp4", "localhost:"+port)
	require.NoError(t, err, "the policy is asked for every connection")
	require.NoError(t, conn.Close())
}

func TestWithoutAPolicyNothingIsRefused(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer ln.Close()
	for _, policy := range []func() *netguard.Policy{nil, func() *netguard.Policy { return nil }} {
		conn, err := netguard.Dialer(policy, time.Second).DialContext(t.Context(), "tcp", ln.Addr().String())
		require.NoError(t, err)
		require.NoError(t, conn.Close())
	}
}

// FuzzCheckURI looks for references that pass although Go's dialler takes them to name a refused address.
func FuzzCheckURI(f *testing.F) {
	for _, s := range []string{"http://127.0.0.1/", "http://[::ffff:127.0.0.1]:80/", "http://[fe80::1%25eth0]/", "https://h:1/x", "//x", "http://[64:ff9b::7f00:1]"} {
		f.Add(s)
	}
	p := &netguard.Policy{}
	f.Fuzz(func(t *testing.T, ref string) {
		if p.CheckURI(ref) != nil {
			return
		}
		u, err := url.Parse(ref)
		require.NoError(t, err)
		if ip := net.ParseIP(u.Hostname()); ip != nil {
			require.False(t, ip.IsLoopback() || ip.IsUnspecified() || ip.IsLinkLocalUnicast() || ip.IsPrivate() || ip.IsMulticast(), ref)
		}
	})
}

func TestRangesThatAreNoServices(t *testing.T) {
	everything := &netguard.Policy{AllowLoopback: true, AllowPrivate: true}
	public := &netguard.Policy{}
	for addr, where := range map[string]struct{ everything, public bool }{
		"240.0.0.1": {}, "192.0.0.8": {}, "2001::1": {}, "168.63.129.16": {}, "::ffff:0:169.254.169.254": {}, "::ffff:0:127.0.0.1": {everything: true},
		"100.64.0.1": {everything: true}, "198.18.0.1": {everything: true}, "fec0::1": {everything: true},
		"203.0.113.1": {everything: true, public: true}, "2a00::1": {everything: true, public: true},
	} {
		ap := netip.AddrPortFrom(netip.MustParseAddr(addr), 80)
		require.Equal(t, where.everything, everything.CheckAddr(ap) == nil, "%s: %v", addr, everything.CheckAddr(ap))
		require.Equal(t, where.public, public.CheckAddr(ap) == nil, "%s: %v", addr, public.CheckAddr(ap))
	}
}
