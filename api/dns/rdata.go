package dns

import (
	"errors"
	"net/netip"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/openmep/mep/api/mp1"
)

// ParseAddress reads a value of A or AAAA: an address of the family that can be a host's. The error ends a sentence that starts with
// the name of the member.
func ParseAddress(rrtype, s string) (netip.Addr, error) {
	a, err := mp1.ParseAddress(s)
	switch {
	case err != nil:
		return netip.Addr{}, err
	case rrtype == TypeA && !a.Is4():
		return netip.Addr{}, refused("an IPv4 address as the type is A", s)
	case rrtype == TypeAAAA && !a.Is6():
		return netip.Addr{}, refused("an IPv6 address as the type is AAAA", s)
	case a.IsUnspecified() || a.IsMulticast() || a == broadcast:
		return netip.Addr{}, refused("the address of a host", s)
	}
	return a, nil
}

var broadcast = netip.AddrFrom4([4]byte{255, 255, 255, 255})

// SRV is a value of the type SRV (RFC 2782).
type SRV struct {
	// Priority, Weight and Port are 0 to 65535.
	Priority, Weight, Port uint16
	// Target is a canonical name, "." when the service is not available.
	Target string
}

// ParseSRV reads "priority weight port target". The error ends a sentence that starts with the name of the member.
func ParseSRV(s string) (SRV, error) {
	f := strings.Fields(s)
	if len(f) != 4 {
		return SRV{}, refused(`"priority weight port target"`, s)
	}
	var numbers [3]uint16
	for i := range numbers {
		n, err := strconv.ParseUint(f[i], 10, 16)
		if err != nil {
			return SRV{}, refused(`"priority weight port target" with numbers from 0 to 65535`, s)
		}
		numbers[i] = uint16(n)
	}
	target, ok := CanonicalName(f[3], false)
	if f[3] == "." {
		target, ok = ".", true
	}
	if !ok {
		return SRV{}, refused(`"priority weight port target" with a domain name, or ".", as its target`, s)
	}
	return SRV{Priority: numbers[0], Weight: numbers[1], Port: numbers[2], Target: target}, nil
}

// String is the value as it is written.
func (s SRV) String() string {
	b := strconv.AppendUint(nil, uint64(s.Priority), 10)
	b = strconv.AppendUint(append(b, ' '), uint64(s.Weight), 10)
	b = strconv.AppendUint(append(b, ' '), uint64(s.Port), 10)
	return string(append(append(b, ' '), s.Target...))
}

// maxString is how many octets a character-string of a TXT record has at most (RFC 1035 3.3): longer texts are several.
const maxString = 255

// canonicalValue returns a value of a type in the one form it is stored in, and how many octets it has in a DNS message. The error
// ends a sentence that starts with the name of the member.
func canonicalValue(rrtype, s string) (value string, size int, err error) {
	switch rrtype {
	case TypeA, TypeAAAA:
		a, err := ParseAddress(rrtype, s)
		return a.String(), a.BitLen() / 8, err
	case TypeCNAME, TypePTR:
		name, ok := CanonicalName(s, false)
		if !ok {
			return "", 0, refused("a domain name", s)
		}
		return name, wireSize(name), nil
	case TypeSRV:
		srv, err := ParseSRV(s)
		return srv.String(), 6 + wireSize(srv.Target), err
	}
	if !utf8.ValidString(s) {
		return "", 0, refused("text in UTF-8", s)
	}
	return s, len(s) + max(1, (len(s)+maxString-1)/maxString), nil
}

// maxQuoted is how many octets of a refused value are repeated, about.
const maxQuoted = 64

// refused says what a value must be and what it is.
func refused(want, value string) error {
	return errors.New("must be " + want + ", not " + quote(value))
}

// quote shows a value of the request, shortened and without anything that could upset a terminal or a log.
func quote(value string) string {
	if len(value) > maxQuoted {
		value = strings.ToValidUTF8(value[:maxQuoted], "") + "…"
	}
	return strconv.Quote(value)
}
