package pki

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
)

// maxAddresses is how many interface addresses a certificate covers. A node that balances the load of a cluster may have
// thousands, and every handshake sends the certificate.
const maxAddresses = 64

// Names returns the host names and IP addresses that a server certificate must cover, sorted: the host of each listener, given as
// host:port, and the extra names. A listener on all addresses stands for the host name of the machine, localhost, 127.0.0.1, ::1
// and the first 64 addresses of its interfaces; one on a loopback address also for localhost, 127.0.0.1 and ::1. An extra name may
// begin with "*." and must not have a port.
func Names(listeners, extra []string) ([]string, error) {
	return namesOf(listeners, extra, machine)
}

func namesOf(listeners, extra []string, machine func() []string) ([]string, error) {
	loopback := []string{"localhost", "127.0.0.1", "::1"}
	var names []string
	for _, l := range listeners {
		host, _, err := net.SplitHostPort(l)
		if err != nil {
			return nil, fmt.Errorf("listener %q: an address is host:port or :port", l)
		}
		ip, isIP := address(host)
		switch {
		case host == "" || isIP && ip.IsUnspecified():
			names = append(append(names, loopback...), machine()...)
			continue
		case strings.EqualFold(host, "localhost") || isIP && ip.IsLoopback():
			names = append(names, loopback...)
		}
		name, ok := canonical(host)
		if !ok || strings.HasPrefix(name, "*") {
			return nil, fmt.Errorf("listener %q: %q is neither a host name nor an IP address", l, host)
		}
		names = append(names, name)
	}
	for _, e := range extra {
		name, ok := canonical(e)
		if !ok {
			return nil, fmt.Errorf("%q is neither a host name nor an IP address: write it without scheme, port and brackets, "+
				"international names in their xn-- form", e)
		}
		names = append(names, name)
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

// canonical returns the form of a name in a certificate, if it is valid.
func canonical(name string) (string, bool) {
	if ip, ok := address(name); ok {
		return ip.String(), !ip.IsUnspecified()
	}
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	return name, isHostName(strings.TrimPrefix(name, "*."))
}

// address parses an IP address. It drops a zone and turns IPv4 in IPv6 into IPv4: certificates know neither.
func address(s string) (netip.Addr, bool) {
	ip, err := netip.ParseAddr(s)
	return ip.Unmap().WithZone(""), err == nil
}

// isHostName reports whether s is a DNS name according to RFC 1123 2.1. Underscores are allowed: they are in use, and clients
// accept them.
func isHostName(s string) bool {
	if s == "" || len(s) > 253 {
		return false
	}
	numeric := false
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		numeric = true
		for i := range len(label) {
			switch c := label[i]; {
			case '0' <= c && c <= '9':
			case 'a' <= c && c <= 'z', c == '-', c == '_':
				numeric = false
			default:
				return false
			}
		}
	}
	// 10.0.0.256 is a mistake, not a name.
	return !numeric
}

// machine returns the host name of this machine, if a certificate can cover it, and its addresses.
func machine() []string {
	var names []string
	if host, err := os.Hostname(); err == nil {
		if name, ok := canonical(host); ok {
			names = append(names, name)
		}
	}
	// An interface may go away while they are listed; a partial list is better than none.
	addrs, _ := net.InterfaceAddrs()
	return append(names, global(addrs)...)
}

// global returns the first maxAddresses global unicast addresses, private ones included, in the order of the interfaces.
func global(addrs []net.Addr) []string {
	var list []string
	for _, a := range addrs {
		prefix, err := netip.ParsePrefix(a.String())
		if ip := prefix.Addr().Unmap(); err == nil && ip.IsGlobalUnicast() && len(list) < maxAddresses {
			list = append(list, ip.String())
		}
	}
	return list
}
