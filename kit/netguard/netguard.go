// Package netguard decides which addresses the platform may dial on behalf of apps.
//
// A call-back reference or the endpoint of a service comes from an app, which could use it to make the platform call addresses
// of the app's choosing. An address is checked when it is given. A name is checked after resolution, for every connection,
// because its addresses may change.
package netguard

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
)

// Policy says which addresses are allowed. The platform's own listeners, and unspecified, multicast, broadcast, link-local and
// metadata service addresses never are. Fields must not change after first use; replace the whole Policy instead.
type Policy struct {
	// AllowLoopback admits 127.0.0.0/8 and ::1.
	AllowLoopback bool
	// AllowPrivate admits the private ranges of RFC 1918 and RFC 4193, and those used like them (RFC 6598, RFC 2544, RFC 3879).
	AllowPrivate bool
	// Deny lists further networks that are refused.
	Deny []netip.Prefix
	// Own lists the platform's own listeners. A listener bound to an unspecified address is reached at any address of this
	// machine.
	Own []netip.AddrPort
	// Listeners returns further listeners. It is called for every check because listeners may open later. Nil means none.
	Listeners func() []netip.AddrPort
	// LoopbackSetting and PrivateSetting name the settings behind AllowLoopback and AllowPrivate in messages.
	LoopbackSetting, PrivateSetting string
}

// CheckURI returns why an absolute http or https URI is refused. The error completes a sentence that starts with the URI's
// name.
func (p *Policy) CheckURI(ref string) error {
	u, err := url.Parse(ref)
	switch {
	case err != nil:
		return errors.New("is not a URI")
	case u.Scheme != "http" && u.Scheme != "https":
		return errors.New("must be an absolute http or https URI")
	case u.Hostname() == "":
		return errors.New("must name a host")
	case u.User != nil:
		return errors.New("must not carry a user name or password")
	case u.Fragment != "":
		return errors.New("must not have a fragment")
	}
	port, err := PortOf(u)
	if err != nil {
		return err
	}
	return p.CheckHost(u.Hostname(), port)
}

// PortOf returns the port of a URL. If the URL has none, that is 443 for https, wss and grpcs and 80 for other schemes. The
// error completes a sentence that starts with the name of the URL.
func PortOf(u *url.URL) (uint16, error) {
	s := u.Port()
	if s == "" {
		switch u.Scheme {
		case "https", "wss", "grpcs":
			return 443, nil
		}
		return 80, nil
	}
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil || n == 0 {
		return 0, errors.New("must have a port of 1 to 65535")
	}
	return uint16(n), nil
}

// CheckHost returns why a host is refused, if it is an address, which may be in brackets. The addresses of a name are checked
// on every connection.
func (p *Policy) CheckHost(host string, port uint16) error {
	addr, err := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(host, "["), "]"))
	if err != nil {
		return nil
	}
	return p.CheckAddr(netip.AddrPortFrom(addr, port))
}

// CheckAddr returns why an address is refused. The error completes a sentence that starts with the name of the address. An IPv6
// address that embeds an IPv4 address must pass as that address, too.
func (p *Policy) CheckAddr(ap netip.AddrPort) error {
	a := ap.Addr().Unmap().WithZone("")
	if err := p.checkRange(a); err != nil {
		return err
	}
	if p.isOwn(a, ap.Port()) {
		return errors.New("must not be one of the platform's own listeners")
	}
	if v4, ok := embedded(a); ok {
		return p.CheckAddr(netip.AddrPortFrom(v4, ap.Port()))
	}
	return nil
}

func (p *Policy) checkRange(a netip.Addr) error {
	switch {
	case !a.IsValid():
		return errors.New("must be an address")
	case a.IsUnspecified(), thisNetwork.Contains(a):
		return errors.New("must not be an unspecified address")
	case a.IsMulticast(), a == broadcast:
		return errors.New("must not be a multicast or broadcast address")
	case a.IsLinkLocalUnicast():
		return errors.New("must not be a link-local address")
	case isMetadata(a):
		return errors.New("must not be the address of a metadata service")
	case a.IsLoopback() && !p.AllowLoopback:
		return errors.New("must not be a loopback address" + off(p.LoopbackSetting))
	case in(a, never):
		return errors.New("must not be an address that no service has")
	case (a.IsPrivate() || in(a, shared)) && !p.AllowPrivate:
		return errors.New("must not be a private address" + off(p.PrivateSetting))
	}
	for _, n := range p.Deny {
		if n.Contains(a) {
			return errors.New("must not be an address of " + n.String() + ", which the configuration denies")
		}
	}
	return nil
}

func off(setting string) string {
	if setting == "" {
		return ""
	}
	return " (" + setting + " is off)"
}

func (p *Policy) isOwn(a netip.Addr, port uint16) bool {
	if among(p.Own, a, port) {
		return true
	}
	return p.Listeners != nil && among(p.Listeners(), a, port)
}

func among(own []netip.AddrPort, a netip.Addr, port uint16) bool {
	for _, o := range own {
		if o.Port() != port {
			continue
		}
		if bound := o.Addr().Unmap().WithZone(""); bound == a || bound.IsUnspecified() && isOwnAddr(a) {
			return true
		}
	}
	return false
}

// ParseListeners parses the addresses of listeners, with or without a URL scheme. It omits anything else.
func ParseListeners[M ~map[string]string](urls M) []netip.AddrPort {
	list := make([]netip.AddrPort, 0, len(urls))
	for _, u := range urls {
		_, addr, found := strings.Cut(u, "://")
		if !found {
			addr = u
		}
		if ap, err := netip.ParseAddrPort(addr); err == nil {
			list = append(list, ap)
		}
	}
	return list
}

// RefusedError reports that the resolved address of a target is not allowed.
type RefusedError struct {
	// Addr is the address with its port.
	Addr string
	// Reason completes a sentence that starts with the address.
	Reason error
}

// Error implements error.
func (e *RefusedError) Error() string {
	return fmt.Sprintf("the target resolves to %s, which %s", e.Addr, e.Reason)
}

// Unwrap returns the reason.
func (e *RefusedError) Unwrap() error { return e.Reason }

// checkDial checks the address of a connection that is about to be made. A nil Policy refuses nothing.
func checkDial(p *Policy, address string) error {
	if p == nil {
		return nil
	}
	ap, err := netip.ParseAddrPort(address)
	if err != nil {
		return &net.AddrError{Err: "not an address with a port", Addr: address}
	}
	if err := p.CheckAddr(ap); err != nil {
		return &RefusedError{Addr: address, Reason: err}
	}
	return nil
}
