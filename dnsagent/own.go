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

// reached reports whether whoever asks at an address reaches a listener, as far as that can be told without looking at interfaces.
func reached(listener, addr netip.AddrPort) bool {
	if !listener.IsValid() || addr.Port() != listener.Port() {
		return false
	}
	own, a := listener.Addr(), addr.Addr()
	return a == own || own.IsUnspecified() && (a.IsLoopback() || a.IsUnspecified())
}

// others returns an error when a forwarder is a listener of this server, by what the settings say of it. Where sockets were handed over they
// say nothing, and what has been bound is looked at later.
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

// configured is the address a setting has a listener bound to; false when only binding it shows that.
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
