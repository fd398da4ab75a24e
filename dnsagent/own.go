package dnsagent

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/openmep/mep/dnsagent/forward"
	"github.com/openmep/mep/dnsagent/listen"
	"github.com/openmep/mep/kit/daemon"
)

// reached reports whether a query to addr reaches a listener, as far as that can be told without looking at the interfaces.
func reached(listener, addr netip.AddrPort) bool {
	if !listener.IsValid() || addr.Port() != listener.Port() {
		return false
	}
	own, a := listener.Addr(), addr.Addr()
	return a == own || own.IsUnspecified() && (a.IsLoopback() || a.IsUnspecified())
}

// others returns an error if, by the settings, a forwarder is a listener of this server. It skips listeners with inherited sockets, which
// the settings do not describe: their addresses are checked later.
func (c *Config) others(common *daemon.Config, fc *forward.Config) error {
	var faults []error
	for _, l := range []struct{ setting, addr, socket string }{
		{"dns.listen", c.Listen, listen.SocketDNS}, {"dns.tlsListen", c.TLSListen, listen.SocketTLS},
	} {
		own, ok := configured(common, l.setting, l.addr)
		if !ok || listen.Inherits(l.socket) {
			continue
		}
		for _, z := range fc.Zones {
			for _, u := range z.Upstreams {
				if reached(own, u.Addr) {
					faults = append(faults, fmt.Errorf("zone %s: upstream %s is this server itself, which listens there by %s", z.Name, u, l.setting))
				}
			}
		}
	}
	return errors.Join(faults...)
}

// configured returns the address that a setting binds a listener to. It returns false if only binding the listener shows the address.
func configured(common *daemon.Config, setting, addr string) (netip.AddrPort, bool) {
	addr, err := common.Listen(setting, addr)
	if err != nil {
		return netip.AddrPort{}, false
	}
	host, service, err := net.SplitHostPort(addr)
	if err != nil {
		return netip.AddrPort{}, false
	}
	switch host {
	case "":
		host = "::"
	case "localhost":
		host = "127.0.0.1"
	}
	ip, err := netip.ParseAddr(host)
	port, errPort := net.LookupPort("tcp", service)
	if err != nil || errPort != nil || port == 0 {
		return netip.AddrPort{}, false
	}
	return netip.AddrPortFrom(ip.Unmap(), uint16(port)), true //nolint:gosec // a port
}
