package gateway

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// isToken reports whether s is a token of RFC 9110 5.6.2, the syntax of field names and methods.
func isToken(s string) bool {
	for _, c := range []byte(s) {
		if !alphanumeric(c) && strings.IndexByte("!#$%&'*+-.^_`|~", c) < 0 {
			return false
		}
	}
	return s != ""
}

func checkFieldName(s string) error {
	if !isToken(s) || len(s) > maxFieldName {
		return refused(fmt.Sprintf("the name of a header field of at most %d characters", maxFieldName), s)
	}
	return nil
}

// checkFieldValue accepts header field values that are transmitted unchanged (RFC 9110 5.5).
func checkFieldValue(s string) error {
	if len(s) > maxFieldValue {
		return fmt.Errorf("must be at most %d bytes long", maxFieldValue)
	}
	for _, c := range []byte(s) {
		if c < ' ' && c != '\t' || c == 0x7f {
			return errors.New("must not have control characters")
		}
	}
	if strings.Trim(s, " \t") != s {
		return errors.New("must not begin or end with white space")
	}
	return nil
}

// IsHopByHop reports whether a header field, in any case, concerns a single connection and is never forwarded (RFC 9110 7.6.1).
func IsHopByHop(field string) bool {
	switch strings.ToLower(field) {
	case "connection", "proxy-connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade", "http2-settings",
		"proxy-authenticate", "proxy-authorization":
		return true
	}
	return false
}

// IsIdentity reports whether a header field, in any case, identifies the caller. Only the gateway sets such fields.
func IsIdentity(field string) bool {
	const prefix = "x-consumer-"
	return strings.EqualFold(field, "X-AppInstanceID") || len(field) >= len(prefix) && strings.EqualFold(field[:len(prefix)], prefix)
}

// isFraming reports whether a header field determines the destination or the length of a message.
func isFraming(field string) bool {
	return strings.EqualFold(field, "Host") || strings.EqualFold(field, "Content-Length") || strings.EqualFold(field, "Transfer-Encoding")
}

// CheckSettable returns an error if a policy must not set the header field in requests. The error completes a sentence that begins with the
// name of the field. Pseudo-header fields need no check: their names are not field names.
func CheckSettable(field string) error {
	switch {
	case isFraming(field):
		return errors.New("must not be set: it says where the message goes or ends")
	case IsHopByHop(field):
		return errors.New("must not be set: it is about the connection")
	case IsIdentity(field):
		return errors.New("must not be set: it says who the caller is, which the gateway alone does")
	}
	return nil
}

// checkSettableName is CheckSettable for the elements of a list; it also checks the syntax of the name.
func checkSettableName(s string) error {
	if err := checkFieldName(s); err != nil {
		return err
	}
	return CheckSettable(s)
}

// checkRemovable accepts header fields that a message does not need.
func checkRemovable(s string) error {
	if err := checkFieldName(s); err != nil {
		return err
	}
	if isFraming(s) {
		return errors.New("must not be " + s + ": it says where the message goes or ends")
	}
	return nil
}

// checkMethod accepts methods in upper case (RFC 9110 9.1).
func checkMethod(s string) error {
	switch {
	case !isToken(s) || len(s) > maxMethod || strings.ToUpper(s) != s:
		return refused("a method in capitals", s)
	case s == "CONNECT":
		return errors.New("must not be CONNECT: the gateway opens no tunnels")
	}
	return nil
}

// checkScope accepts a scope-token of RFC 6749 3.3.
func checkScope(s string) error {
	for _, c := range []byte(s) {
		if c <= ' ' || c >= 0x7f || c == '"' || c == '\\' {
			return refused("a scope: printable ASCII without white space, quotation marks and backslashes", s)
		}
	}
	if s == "" || len(s) > maxScope {
		return fmt.Errorf("must be a scope of 1 to %d characters", maxScope)
	}
	return nil
}

// CanonicalHost returns the host of a request or a route in the form used for comparison: in lower case, without a trailing dot; IPv6
// addresses in the notation of RFC 5952, without brackets. A wildcard is "*." followed by a name. ok is false if s is not a host.
func CanonicalHost(s string) (host string, ok bool) {
	if strings.Contains(s, ":") {
		bare := strings.TrimSuffix(strings.TrimPrefix(s, "["), "]")
		a, err := netip.ParseAddr(bare)
		if err != nil || a.Zone() != "" || len(s)-len(bare) == 1 {
			return "", false
		}
		return a.Unmap().String(), true
	}
	s = strings.ToLower(strings.TrimSuffix(s, "."))
	if len(s) > maxHost {
		return "", false
	}
	for label := range strings.SplitSeq(strings.TrimPrefix(s, "*."), ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return "", false
		}
		for _, c := range []byte(label) {
			if !alphanumeric(c) && c != '-' && c != '_' {
				return "", false
			}
		}
	}
	return s, true
}

func checkHost(s string) error {
	if strings.Contains(s, "*") && !strings.HasPrefix(s, "*.") {
		return refused(`a host name, or "*." and a name`, s)
	}
	if _, ok := CanonicalHost(s); !ok {
		return refused(`a host name without a port, "*." and a name, or an IP address`, s)
	}
	return nil
}

// ParseSource parses a client network: a prefix or a single address. The error completes a sentence that begins with the name of the
// member.
func ParseSource(s string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(s)
	if err != nil {
		a, err := netip.ParseAddr(s)
		if err != nil || a.Zone() != "" {
			return netip.Prefix{}, refused("a network such as 192.0.2.0/24 or 2001:db8::/32, or an address", s)
		}
		p = netip.PrefixFrom(a, a.BitLen())
	}
	switch {
	case p.Addr().Is4In6():
		return netip.Prefix{}, refused("in the notation of IPv4", s)
	case p.Masked() != p:
		return netip.Prefix{}, refused(p.Masked().String()+" (no bits may be set beyond the length of a prefix)", s)
	}
	return p, nil
}

func checkSource(s string) error {
	_, err := ParseSource(s)
	return err
}

// CheckURL returns an error unless s is an absolute URL that can be called: one of the schemes, a host, optionally a port from 1 to 65535,
// no user information and no fragment. The error completes a sentence that begins with the name of the member.
func CheckURL(s string, schemes ...string) error {
	if len(s) > maxURL {
		return fmt.Errorf("must be at most %d bytes long", maxURL)
	}
	u, err := url.Parse(s)
	if err != nil || u.Opaque != "" {
		return refused("a URL", s)
	}
	switch _, ok := CanonicalHost(u.Hostname()); {
	case u.User != nil:
		return errors.New("must not have a user name or password")
	case !slices.Contains(schemes, u.Scheme):
		return refused("an absolute URL of "+either(schemes), s)
	case !ok || strings.HasPrefix(u.Hostname(), "*"):
		return refused("a URL with a host", s)
	case strings.Contains(s, "#"):
		return errors.New("must not have a fragment")
	case u.Path != "":
		if err := checkPath(u.EscapedPath()); err != nil {
			return err
		}
	}
	if strings.ContainsFunc(u.RawQuery, func(r rune) bool { return r <= ' ' || r == 0x7f }) {
		return refused("a URL", s)
	}
	if port := u.Port(); port != "" || strings.HasSuffix(u.Host, ":") {
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return errors.New("must have a port of 1 to 65535")
		}
	}
	return nil
}

// isID reports whether s is the id of a route: 1 to 63 letters, digits, "-", "_" and ".", with a letter or digit first.
func isID(s string) bool {
	for _, c := range []byte(s) {
		if !alphanumeric(c) && c != '-' && c != '_' && c != '.' {
			return false
		}
	}
	return s != "" && len(s) <= maxID && alphanumeric(s[0])
}

// checkConsumer accepts the name of a consumer that an API key may be issued for.
func checkConsumer(s string) error {
	for _, c := range []byte(s) {
		if !alphanumeric(c) && strings.IndexByte("-_.~:@", c) < 0 {
			return refused(fmt.Sprintf(`1 to %d letters, digits and characters of "-_.~:@"`, maxID), s)
		}
	}
	if s == "" || len(s) > maxID {
		return fmt.Errorf(`must be 1 to %d letters, digits and characters of "-_.~:@"`, maxID)
	}
	return nil
}
