package dns

import "strings"

// maxName is the maximum length of a domain name without a trailing dot: 255 octets on the wire less the first length octet and the
// root label (RFC 1035 2.3.4).
const maxName = 253

// CanonicalName returns a domain name in lower case with a trailing dot; wildcard says whether its first label may be "*" (RFC 4592
// 2.1.1). ok is false if s is not a domain name: at most 253 characters without a trailing dot, in labels of 1 to 63 letters, digits,
// hyphens (not at the ends) and underscores. The root is not one.
func CanonicalName(s string, wildcard bool) (name string, ok bool) {
	s = strings.TrimSuffix(s, ".")
	if s == "" || len(s) > maxName {
		return "", false
	}
	rest := s
	if wildcard {
		rest = strings.TrimPrefix(s, "*.")
	}
	for label := range strings.SplitSeq(rest, ".") {
		if !validLabel(label) {
			return "", false
		}
	}
	return strings.ToLower(s) + ".", true
}

func validLabel(label string) bool {
	if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
		return false
	}
	for _, c := range []byte(label) {
		if !alphanumeric(c) && c != '-' && c != '_' {
			return false
		}
	}
	return true
}

func alphanumeric(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
}

// CanonicalZone is CanonicalName for the zone of a record. Empty and "." mean the root.
func CanonicalZone(s string) (zone string, ok bool) {
	if s == "" || s == "." {
		return ".", true
	}
	return CanonicalName(s, false)
}

// Within reports whether a canonical name equals zone, a canonical zone, or is below it.
func Within(name, zone string) bool {
	return zone == "." || name == zone || strings.HasSuffix(name, "."+zone)
}

// wireSize returns the length of a canonical name on the wire in octets.
func wireSize(name string) int {
	if name == "." {
		return 1
	}
	return len(name) + 1
}

// ValidView reports whether s may be the name of a view: 1 to 63 letters, digits, dots, underscores and hyphens, starting with a
// letter or digit.
func ValidView(s string) bool {
	if s == "" || len(s) > 63 || !alphanumeric(s[0]) {
		return false
	}
	for _, c := range []byte(s) {
		if !alphanumeric(c) && c != '.' && c != '_' && c != '-' {
			return false
		}
	}
	return true
}
