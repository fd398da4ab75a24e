package mp1

import (
	"fmt"
	"math/bits"
	"net"
	"net/netip"
	"strconv"
	"strings"
)

// ParseAddress parses one IPv4 or IPv6 address. It refuses zones, which have no meaning beyond one host, and IPv4-mapped IPv6
// addresses, which would not compare equal to their IPv4 form. The error text completes a sentence that begins with the member
// name.
func ParseAddress(s string) (netip.Addr, error) {
	a, err := netip.ParseAddr(s)
	if err != nil {
		return netip.Addr{}, refused("an IPv4 or IPv6 address", s)
	}
	if want := notPlain(a); want != "" {
		return netip.Addr{}, refused(want, s)
	}
	return a, nil
}

// notPlain returns what a must be if it has a zone or is IPv4-mapped, and "" otherwise.
func notPlain(a netip.Addr) (want string) {
	switch {
	case a.Zone() != "":
		return "without a zone"
	case a.Is4In6():
		return "in the notation of IPv4 (" + a.Unmap().String() + ")"
	}
	return ""
}

// AddressRange is an inclusive range of addresses of one family.
type AddressRange struct {
	// From is the first address, To the last; From is not after To.
	From, To netip.Addr
}

// ParseAddressRange parses an element of the address members of a TrafficFilter (MEC 011 7.1.5.2):
//
//   - an address: 10.0.0.1, 2001:db8::1;
//   - a prefix: 10.0.0.0/8, 2001:db8::/32, or for IPv4 with a mask: 10.0.0.0/255.0.0.0;
//   - a range: 10.0.0.1-10.0.0.9, 2001:db8::/32-2001:db8:ff::/48. Either end is an address or a prefix; the range extends from
//     the first address of the first end to the last address of the second.
//
// A prefix with bits set beyond its length is refused, because it is ambiguous. The error text completes a sentence that begins
// with the member name.
func ParseAddressRange(s string) (AddressRange, error) {
	first, last, isRange := strings.Cut(s, "-")
	r, want := parseBlock(first)
	if want == "" && isRange {
		var end AddressRange
		if end, want = parseBlock(last); want == "" {
			r, want = join(r, end)
		}
	}
	if want != "" {
		return AddressRange{}, refused(want, s)
	}
	return r, nil
}

// join returns the range from the start of first to the end of last. If they do not form a range, want says what is required.
func join(first, last AddressRange) (r AddressRange, want string) {
	r = AddressRange{From: first.From, To: last.To}
	switch {
	case r.From.BitLen() != r.To.BitLen():
		return AddressRange{}, "a range within IPv4 or within IPv6"
	case r.To.Less(r.From):
		return AddressRange{}, "a range that does not end before it starts"
	case r.To.Is4In6():
		return AddressRange{}, "a range that does not end among the IPv4 addresses in the notation of IPv6"
	}
	return r, ""
}

// parseBlock parses an address or a prefix. If s is neither, want says what is required.
func parseBlock(s string) (r AddressRange, want string) {
	addr, length, isPrefix := strings.Cut(s, "/")
	a, err := netip.ParseAddr(addr)
	if err != nil {
		return AddressRange{}, "an address, a prefix or a range of addresses"
	}
	if want = notPlain(a); want != "" || !isPrefix {
		return AddressRange{From: a, To: a}, want
	}
	n, ok := prefixLength(a, length)
	if !ok {
		if a.Is4() {
			return AddressRange{}, "a prefix with a length of 0 to 32 or a mask of leading ones"
		}
		return AddressRange{}, "a prefix with a length of 0 to 128"
	}
	p := netip.PrefixFrom(a, n)
	if masked := p.Masked(); masked != p {
		return AddressRange{}, quote(masked.String()) + " (no bits may be set beyond the length of a prefix)"
	}
	return AddressRange{From: a, To: lastOf(p)}, ""
}

// prefixLength parses the part after the slash: a length, or for IPv4 a mask.
func prefixLength(a netip.Addr, s string) (n int, ok bool) {
	if a.Is4() && strings.Contains(s, ".") {
		mask, err := netip.ParseAddr(s)
		if err != nil || !mask.Is4() {
			return 0, false
		}
		b := mask.As4()
		m := uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])
		n = bits.LeadingZeros32(^m)
		return n, m<<n == 0
	}
	v, ok := decimal(s, a.BitLen())
	return v, ok
}

// decimal parses a number of at most limit that consists of digits without leading zeros.
func decimal(s string, limit int) (n int, ok bool) {
	if s == "" || len(s) > 5 || (s[0] == '0' && len(s) > 1) {
		return 0, false
	}
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return 0, false
		}
		n = 10*n + int(s[i]-'0')
	}
	return n, n <= limit
}

// lastOf returns the last address of a prefix.
func lastOf(p netip.Prefix) netip.Addr {
	b := p.Addr().As16()
	for i := 128 - p.Addr().BitLen() + p.Bits(); i < 128; i++ {
		b[i/8] |= 1 << (7 - i%8)
	}
	if p.Addr().Is4() {
		return netip.AddrFrom16(b).Unmap()
	}
	return netip.AddrFrom16(b)
}

// Prefix returns the range as a prefix and reports whether it is one; a single address is.
func (r AddressRange) Prefix() (netip.Prefix, bool) {
	if !r.From.IsValid() || r.From.BitLen() != r.To.BitLen() {
		return netip.Prefix{}, false
	}
	from, to := r.From.As16(), r.To.As16()
	same := 0
	for same < 128 && (from[same/8]^to[same/8])>>(7-same%8)&1 == 0 {
		same++
	}
	p := netip.PrefixFrom(r.From, same-(128-r.From.BitLen()))
	if p.Masked() != p || lastOf(p) != r.To {
		return netip.Prefix{}, false
	}
	return p, true
}

// Contains reports whether a lies within the range. As with netip.Prefix, an address with a zone lies in no range, and an
// IPv4-mapped IPv6 address does not lie in an IPv4 range.
func (r AddressRange) Contains(a netip.Addr) bool {
	return a.IsValid() && a.Zone() == "" && a.BitLen() == r.From.BitLen() && !a.Less(r.From) && !r.To.Less(a)
}

// String returns the shortest form that ParseAddressRange parses to the same range.
func (r AddressRange) String() string {
	if r.From == r.To {
		return r.From.String()
	}
	if p, ok := r.Prefix(); ok {
		return p.String()
	}
	return r.From.String() + "-" + r.To.String()
}

// PortRange is an inclusive range of ports.
type PortRange struct {
	// From is the first port, at least 1; To is the last, not less than From.
	From, To uint16
}

// ParsePortRange parses an element of the port members of a TrafficFilter: a port, such as 80, or a range, such as 8000-8100,
// of ports from 1 to 65535. The error text completes a sentence that begins with the member name.
func ParsePortRange(s string) (PortRange, error) {
	first, last, isRange := strings.Cut(s, "-")
	if !isRange {
		last = first
	}
	from, ok := parsePort(first)
	to, also := parsePort(last)
	switch {
	case !ok || !also:
		return PortRange{}, refused("a port of 1 to 65535 or a range of ports", s)
	case to < from:
		return PortRange{}, refused("a range that does not end before it starts", s)
	}
	return PortRange{From: from, To: to}, nil
}

func parsePort(s string) (port uint16, ok bool) {
	n, ok := decimal(s, 65535)
	return uint16(n), ok && n > 0 //nolint:gosec // what does not fit is not ok
}

// Contains reports whether port lies within the range.
func (r PortRange) Contains(port uint16) bool { return r.From <= port && port <= r.To }

// String returns the shortest form that ParsePortRange parses to the same range.
func (r PortRange) String() string {
	if r.From == r.To {
		return strconv.Itoa(int(r.From))
	}
	return fmt.Sprintf("%d-%d", r.From, r.To)
}

// protocols maps the names that ParseProtocol accepts, in lower case, to the numbers assigned by IANA.
var protocols = map[string]uint8{
	"icmp": 1, "igmp": 2, "ipip": 4, "tcp": 6, "udp": 17, "ipv6": 41, "gre": 47, "esp": 50, "ah": 51,
	"icmpv6": 58, "ipv6-icmp": 58, "ospf": 89, "sctp": 132, "udplite": 136,
}

// ParseProtocol parses an element of the protocol member of a TrafficFilter: the number of an IP protocol from 0 to 255, or one
// of the names icmp, igmp, ipip, tcp, udp, ipv6, gre, esp, ah, icmpv6 (or ipv6-icmp), ospf, sctp and udplite,
// case-insensitively. The error text completes a sentence that begins with the member name.
func ParseProtocol(s string) (uint8, error) {
	if n, ok := decimal(s, 255); ok {
		return uint8(n), nil //nolint:gosec // it is at most 255
	}
	if len(s) <= len("ipv6-icmp") {
		if n, ok := protocols[strings.ToLower(s)]; ok {
			return n, nil
		}
	}
	return 0, refused("the number of an IP protocol, 0 to 255, or a name such as tcp, udp, sctp or icmp", s)
}

// ParseMAC parses a 48-bit MAC address: six pairs of hexadecimal digits separated by colons or hyphens. The error text
// completes a sentence that begins with the member name.
func ParseMAC(s string) (net.HardwareAddr, error) {
	// Of the forms that net.ParseMAC accepts, only those two have this length.
	if len(s) == len("00:00:5e:00:53:01") {
		if mac, err := net.ParseMAC(s); err == nil {
			return mac, nil
		}
	}
	return nil, refused("a MAC address such as 00:00:5e:00:53:01", s)
}
