package wire

import (
	"fmt"
	"strings"

	"github.com/miekg/dns"
)

// Name is a domain name in wire form (RFC 1035 3.1): labels, each preceded by its length, and the root label. Names used as keys
// are in lower case.
type Name string

// Root is the root name.
const Root Name = "\x00"

// ParseName converts a name in presentation format, with or without the trailing dot, into a key. It returns an error if s is
// not a domain name or is longer than 255 octets.
func ParseName(s string) (Name, error) {
	var buf [256]byte
	n, err := dns.PackDomainName(dns.CanonicalName(s), buf[:], 0, nil, false)
	if err != nil || s == "" {
		return "", fmt.Errorf("%q is not a domain name", s)
	}
	if n > MaxName {
		return "", fmt.Errorf("%q is longer than a domain name may be", s)
	}
	return Name(buf[:n]), nil
}

// MaxName is the maximum length of a name in octets (RFC 1035 2.3.4).
const MaxName = 255

// String returns the name in presentation format, with the trailing dot.
func (n Name) String() string {
	s, _, err := dns.UnpackDomainName([]byte(n), 0)
	if err != nil {
		return "<" + err.Error() + ">"
	}
	return s
}

// Parent returns the name without its first label. The parent of the root is the root.
func (n Name) Parent() Name {
	if len(n) <= 1 {
		return Root
	}
	return n[1+int(n[0]):]
}

// Labels returns the number of labels, without the root label.
func (n Name) Labels() int {
	labels := 0
	for len(n) > 1 {
		n, labels = n.Parent(), labels+1
	}
	return labels
}

// Within reports whether the name is zone or below zone.
func (n Name) Within(zone Name) bool {
	for len(n) > len(zone) {
		n = n.Parent()
	}
	return n == zone
}

// IsWildcard reports whether the first label is an asterisk (RFC 4592 2.1.1).
func (n Name) IsWildcard() bool { return len(n) > 2 && n[0] == 1 && n[1] == '*' }

// Wildcard returns the wildcard below the name, or false if it would be too long.
func (n Name) Wildcard() (Name, bool) {
	if len(n)+2 > MaxName {
		return "", false
	}
	return "\x01*" + n, true
}

// Child returns the name with a label prepended in lower case, or false if label is empty, or if it or the result is too long.
func (n Name) Child(label string) (Name, bool) {
	if label == "" || len(label) > 63 || len(n)+1+len(label) > MaxName {
		return "", false
	}
	return Name(append(append([]byte{byte(len(label))}, lower(label)...), n...)), true //nolint:gosec // at most 63
}

func lower(label string) string {
	return strings.Map(func(r rune) rune {
		if 'A' <= r && r <= 'Z' {
			return r + 'a' - 'A'
		}
		return r
	}, label)
}
