package dns

import (
	"errors"
	"net/netip"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/openmep/mep/api/mp1"
)

// ParseAddress parses a value of an A or AAAA record: an address of that family that a host can have. The error completes a sentence
// that starts with the name of the member.
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

// SRV is the value of an SRV record (RFC 2782).
type SRV struct {
	// Priority, Weight and Port are 0 to 65535.
	Priority, Weight, Port uint16
	// Target is a canonical name, or "." if the service is not available.
	Target string
}

// ParseSRV parses "priority weight port target". The error completes a sentence that starts with the name of the member.
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

// String returns the value as ParseSRV reads it.
func (s SRV) String() string {
	b := strconv.AppendUint(nil, uint64(s.Priority), 10)
	b = strconv.AppendUint(append(b, ' '), uint64(s.Weight), 10)
	b = strconv.AppendUint(append(b, ' '), uint64(s.Port), 10)
	return string(append(append(b, ' '), s.Target...))
}

// maxString is the maximum length in octets of a character-string of a TXT record (RFC 1035 3.3). Longer texts take several.
const maxString = 255

// canonicalValue returns a value in the form in which it is stored, and its length in a DNS message in octets. The error completes a
// sentence that starts with the name of the member.
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

// maxQuoted is roughly how many octets of a refused value an error repeats.
const maxQuoted = 64

// refused returns an error that says what a value must be and what it is.
func refused(want, value string) error {
	return errors.New("must be " + want + ", not " + quote(value))
}

// quote returns a value of the request, shortened and without anything that could upset a terminal or a log.
func quote(value string) string {
	if len(value) > maxQuoted {
		value = strings.ToValidUTF8(value[:maxQuoted], "") + "…"
	}
	return strconv.Quote(value)
}
