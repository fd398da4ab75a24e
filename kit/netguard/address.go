package netguard

import (
	"net"
	"net/netip"
	"sync"
	"time"
)

var (
	broadcast   = netip.AddrFrom4([4]byte{255, 255, 255, 255})
	thisNetwork = netip.MustParsePrefix("0.0.0.0/8") // RFC 1122 3.2.1.3
)

// never holds ranges in which no service can be: reserved ranges, those of protocols, and Teredo (RFC 4380), whose embedded addresses
// nobody can check.
var never = []netip.Prefix{
	netip.MustParsePrefix("240.0.0.0/4"), netip.MustParsePrefix("192.0.0.0/24"), netip.MustParsePrefix("2001::/32"),
}

// shared holds ranges that are used like the private ones of RFC 1918 and RFC 4193: RFC 6598, RFC 2544, RFC 3879.
var shared = []netip.Prefix{
	netip.MustParsePrefix("100.64.0.0/10"), netip.MustParsePrefix("198.18.0.0/15"), netip.MustParsePrefix("fec0::/10"),
}

func in(a netip.Addr, nets []netip.Prefix) bool {
	for _, n := range nets {
		if n.Contains(a) {
			return true
		}
	}
	return false
}

// isMetadata reports whether a is the address of a cloud's metadata service, other than a link-local one.
func isMetadata(a netip.Addr) bool {
	switch a {
	case metadataAWS, metadataGCP, metadataAlibaba, metadataAzure:
		return true
	}
	return false
}

var (
	metadataAWS     = netip.MustParseAddr("fd00:ec2::254")
	metadataGCP     = netip.MustParseAddr("fd20:ce::254")
	metadataAlibaba = netip.MustParseAddr("100.100.100.200")
	metadataAzure   = netip.MustParseAddr("168.63.129.16")
)

// carriers holds the ranges of IPv6 addresses that embed an IPv4 address, and where it begins.
var carriers = []struct {
	prefix netip.Prefix
	at     int
}{
	{netip.MustParsePrefix("64:ff9b::/96"), 12},    // NAT64, RFC 6052
	{netip.MustParsePrefix("64:ff9b:1::/48"), 12},  // NAT64 with a local prefix, RFC 8215
	{netip.MustParsePrefix("2002::/16"), 2},        // 6to4, RFC 3056
	{netip.MustParsePrefix("::ffff:0:0:0/96"), 12}, // IPv4-translated, RFC 2765
	{netip.MustParsePrefix("::/96"), 12},           // IPv4-compatible, RFC 4291 2.5.5.1
}

// embedded returns the IPv4 address embedded in an IPv6 address.
func embedded(a netip.Addr) (netip.Addr, bool) {
	if a.Is4() || a.IsLoopback() {
		return netip.Addr{}, false
	}
	for _, c := range carriers {
		if c.prefix.Contains(a) {
			b := a.As16()
			return netip.AddrFrom4([4]byte(b[c.at : c.at+4])), true
		}
	}
	return netip.Addr{}, false
}

// interfaces caches the addresses of this machine for a short time, because every connection is checked.
var interfaces struct {
	sync.Mutex
	at    time.Time
	addrs map[netip.Addr]struct{}
}

// isOwnAddr reports whether a is an address of this machine.
func isOwnAddr(a netip.Addr) bool {
	if a.IsLoopback() {
		return true
	}
	interfaces.Lock()
	defer interfaces.Unlock()
	if time.Since(interfaces.at) > 10*time.Second {
		interfaces.addrs = make(map[netip.Addr]struct{})
		list, _ := net.InterfaceAddrs() // without a list, only loopback counts as own
		for _, n := range list {
			if p, err := netip.ParsePrefix(n.String()); err == nil {
				interfaces.addrs[p.Addr().Unmap()] = struct{}{}
			}
		}
		interfaces.at = time.Now()
	}
	_, own := interfaces.addrs[a]
	return own
}
