package forward

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/miekg/dns"
)

// Default ports of upstreams.
const (
	portDNS = 53
	portTLS = 853
)

// Upstream is a server to ask.
type Upstream struct {
	Addr netip.AddrPort
	// TLS means that the server is asked over TLS only (RFC 7858). Its certificate must be for ServerName, or for the address if that is
	// empty, and issued by one of CAs, or by one that the operating system trusts if CAs is nil.
	TLS        bool
	ServerName string
	CAs        *x509.CertPool
}

// String returns the upstream in the form that ParseUpstreams reads.
func (u Upstream) String() string {
	switch {
	case !u.TLS:
		return u.Addr.String()
	case u.ServerName == "":
		return "tls://" + u.Addr.String()
	default:
		return "tls://" + u.Addr.String() + "#" + u.ServerName
	}
}

func (u Upstream) same(other Upstream) bool {
	sameCAs := u.CAs == other.CAs || u.CAs != nil && other.CAs != nil && u.CAs.Equal(other.CAs)
	return u.Addr == other.Addr && u.TLS == other.TLS && u.ServerName == other.ServerName && sameCAs
}

func (u Upstream) check() error {
	addr := u.Addr.Addr()
	switch {
	case !u.Addr.IsValid():
		return errors.New("an upstream has no address")
	case addr.IsUnspecified(), addr.IsMulticast(), addr == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return fmt.Errorf("upstream %s: a server cannot be asked at such an address", u)
	case u.Addr.Port() == 0:
		return fmt.Errorf("upstream %s: port 0 is none", u)
	default:
		return nil
	}
}

// ParseUpstreams parses a list of upstreams. Each is one of
//
//   - an address, with or without a port: 192.0.2.1, 192.0.2.1:5353, 2001:db8::1, [2001:db8::1]:5353
//   - the same for TLS, with the name in the server's certificate unless that is its address: tls://192.0.2.1#dns.example
//   - the path of a file in the format of resolv.conf, for the servers it names: /etc/resolv.conf
func ParseUpstreams(list []string) ([]Upstream, error) {
	var upstreams []Upstream
	var faults []error
	for _, s := range list {
		if strings.HasPrefix(s, "/") {
			named, err := readResolvConf(s)
			upstreams, faults = append(upstreams, named...), append(faults, err)
			continue
		}
		u, err := parseUpstream(s)
		upstreams, faults = append(upstreams, u), append(faults, err)
	}
	if err := errors.Join(faults...); err != nil {
		return nil, err
	}
	return upstreams, nil
}

func parseUpstream(s string) (Upstream, error) {
	var u Upstream
	port := uint16(portDNS)
	rest, ok := strings.CutPrefix(s, "tls://")
	if ok {
		u.TLS, port = true, portTLS
		var named bool
		rest, u.ServerName, named = strings.Cut(rest, "#")
		if _, isName := dns.IsDomainName(u.ServerName); named && (u.ServerName == "" || !isName) {
			return u, fmt.Errorf("upstream %q: what follows # must be the name of the server", s)
		}
	}
	addr, err := parseAddrPort(rest, port)
	if err != nil {
		return u, fmt.Errorf("upstream %q: %w", s, err)
	}
	u.Addr = addr
	return u, u.check()
}

func parseAddrPort(s string, port uint16) (netip.AddrPort, error) {
	if addr, err := netip.ParseAddr(s); err == nil {
		return netip.AddrPortFrom(addr.Unmap(), port), nil
	}
	if inner, ok := strings.CutPrefix(s, "["); ok {
		if inner, ok = strings.CutSuffix(inner, "]"); ok {
			if addr, err := netip.ParseAddr(inner); err == nil && addr.Is6() {
				return netip.AddrPortFrom(addr.Unmap(), port), nil
			}
		}
	}
	if both, err := netip.ParseAddrPort(s); err == nil {
		return netip.AddrPortFrom(both.Addr().Unmap(), both.Port()), nil
	}
	return netip.AddrPort{}, errors.New(`an address is needed, such as 192.0.2.1, 192.0.2.1:53 or [2001:db8::1]:53`)
}

func readResolvConf(path string) ([]Upstream, error) {
	conf, err := dns.ClientConfigFromFile(path)
	if err != nil {
		return nil, fmt.Errorf("upstreams of a file: %w", err)
	}
	if len(conf.Servers) == 0 {
		return nil, fmt.Errorf("upstreams of a file: %s names no server", path)
	}
	var upstreams []Upstream
	for _, server := range conf.Servers {
		addr, err := netip.ParseAddr(server)
		if err != nil {
			return nil, fmt.Errorf("upstreams of a file: %s: %w", path, err)
		}
		u := Upstream{Addr: netip.AddrPortFrom(addr.Unmap(), portDNS)}
		if err := u.check(); err != nil {
			return nil, fmt.Errorf("upstreams of a file: %s: %w", path, err)
		}
		upstreams = append(upstreams, u)
	}
	return upstreams, nil
}
