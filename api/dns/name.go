package dns

import "strings"

// maxName is how many characters a domain name has at most without the dot at its end: 255 octets on the wire, of which two are the
// length of its first label and its end (RFC 1035 2.3.4).
const maxName = 253

// CanonicalName returns a domain name in lower case with the dot at its end; wildcard says whether its first label may be "*" (RFC
// 4592 2.1.1). ok is false when s is no domain name: labels of 1 to 63 letters, digits, hyphens (not at the ends) and underscores, 253
// characters without the dot at the end at most. The root is none either.
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

// CanonicalZone does for the zone of a record what CanonicalName does for its name. Empty and "." are the root.
func CanonicalZone(s string) (zone string, ok bool) {
	if s == "" || s == "." {
		return ".", true
	}
	return CanonicalName(s, false)
}

// Within reports whether a canonical name is zone, a canonical zone, or below it.
func Within(name, zone string) bool {
	return zone == "." || name == zone || strings.HasSuffix(name, "."+zone)
}

// wireSize is how many octets a canonical name has on the wire.
func wireSize(name string) int {
	if name == "." {
		return 1
	}
	return len(name) + 1
}

// ValidView reports whether s may be the name of a view: 1 to 63 letters, digits, dots, underscores and hyphens, the first of which is
// a letter or digit.
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
