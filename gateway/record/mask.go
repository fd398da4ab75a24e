package record

import (
	"fmt"
	"math"
	"strings"
)

// mask replaces what must not be written.
const mask = "***"

// DefaultMaskQuery lists the names of query parameters whose values are never written.
var DefaultMaskQuery = []string{
	"token", "access_token", "id_token", "refresh_token", "jwt", "bearer", "authorization", "auth", "api_key", "x-api-key", "key", "secret",
	"client_secret", "assertion", "client_assertion", "saml_request", "saml_response", "password", "passwd", "pwd", "passphrase", "pin",
	"otp", "credential", "credentials", "session", "session_id", "sid", "sig", "signature", "x-amz-signature", "x-amz-security-token",
	"x-goog-signature", "code",
}

// The first path segments of services and of instances.
const (
	servicesSegment  = "services"
	instancesSegment = "instances"
)

// maxSegments is the maximum number of segments of a path to be masked.
const maxSegments = 64

// maxName is the maximum length of the name of a query parameter to be masked.
const maxName = 64

// masks says which parts of paths and queries are not written.
type masks struct {
	paths []pathMask
	query map[string]struct{}
}

// pathMask is a path with segments that are not written.
type pathMask struct {
	segments []string // "*" is a masked segment
	rest     bool     // all further segments are masked, too
}

func compile(paths, query []string) (*masks, error) {
	m := &masks{query: make(map[string]struct{})}
	for _, p := range paths {
		rest, ok := strings.CutPrefix(p, "/")
		if !ok {
			return nil, fmt.Errorf("a path to be masked begins with a slash: %q does not", p)
		}
		var pm pathMask
		for s := range strings.SplitSeq(rest, "/") {
			if pm.rest || strings.Contains(s, "*") && s != "*" && s != "**" {
				return nil, fmt.Errorf("in a path to be masked * is a segment, and ** the last one: %q", p)
			}
			if pm.rest = s == "**"; !pm.rest && s != "" {
				pm.segments = append(pm.segments, s)
			}
		}
		if len(pm.segments) > maxSegments {
			return nil, fmt.Errorf("a path to be masked has at most %d segments: %q has more", maxSegments, p)
		}
		if !strings.Contains(p, "*") {
			return nil, fmt.Errorf("a path to be masked has a segment * or **: %q does not", p)
		}
		m.paths = append(m.paths, pm)
	}
	for _, list := range [][]string{DefaultMaskQuery, query} {
		for _, name := range list {
			var plain [maxName]byte
			n := plainName(&plain, []byte(name))
			if n <= 0 {
				return nil, fmt.Errorf("a name of a query member to be masked has 1 to %d letters or digits: %q has not", maxName, name)
			}
			m.query[string(plain[:n])] = struct{}{}
		}
	}
	return m, nil
}

// plainName writes a name to to, in lower case and without "-" and "_", and returns its length, or -1 if it is too long.
func plainName(to *[maxName]byte, name []byte) int {
	n := 0
	for _, c := range name {
		if c == '-' || c == '_' {
			continue
		}
		if n == len(to) {
			return -1
		}
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		to[n] = c
		n++
	}
	return n
}

// path appends the path, with masked segments and segments that look like secrets replaced. Paths of calls to an instance are masked like
// those of its service.
func (w *line) path(b []byte, m *masks, path, service string) []byte {
	if path == "" {
		return b
	}
	b = append(b, `,"path":"`...)
	t := text{b: b, room: maxPath}
	if !w.careful && len(m.paths) == 0 && strings.IndexByte(path, '%') < 0 {
		t.add(path)
		return append(t.end(), '"')
	}
	hidden := w.hidden(m, path, service)
	n := 0
	for rest, more := path, true; more; {
		var segment string
		segment, rest, more = strings.Cut(rest, "/")
		switch {
		case segment == "":
		case hidden.has(n) || secret(w.decode(segment)):
			t.add(mask)
			n++
		default:
			t.add(segment)
			n++
		}
		if more {
			t.add("/")
		}
	}
	return append(t.end(), '"')
}

// segments is a set of path segments: some of the first maxSegments, and all from an index on.
type segments struct {
	some uint64
	from int
}

func (s segments) has(n int) bool { return n >= s.from || n < maxSegments && s.some&(1<<n) != 0 }

// hidden returns the segments to be masked. Empty segments are not counted.
func (w *line) hidden(m *masks, path, service string) segments {
	all := segments{from: math.MaxInt}
next:
	for i := range m.paths {
		p := &m.paths[i]
		rest, at, ofInstance := path, 0, false
		var some uint64
		for at < len(p.segments) && rest != "" {
			var segment string
			if segment, rest, _ = strings.Cut(rest, "/"); segment == "" {
				continue
			}
			switch want := p.segments[at]; {
			case want == "*":
				some |= 1 << at
			case string(w.decode(segment)) == want:
			case at == 0 && want == servicesSegment && service != "" && string(w.decoded) == instancesSegment:
				ofInstance = true
			case at == 1 && ofInstance && want == service:
			default:
				continue next
			}
			at++
		}
		if at < len(p.segments) {
			continue
		}
		all.some |= some
		if p.rest {
			all.from = min(all.from, at)
		}
	}
	return all
}

// query appends the query, with the values of masked parameters and whatever looks like a secret replaced.
func (w *line) query(b []byte, m *masks, query string) []byte {
	if query == "" {
		return b
	}
	b = append(b, `,"query":"`...)
	t := text{b: b, room: maxPath}
	for query != "" {
		member, separator := query, ""
		if i := strings.IndexAny(query, "&;"); i >= 0 {
			member, separator = query[:i], query[i:i+1]
		}
		query = query[len(member)+len(separator):]
		name, value, valued := strings.Cut(member, "=")
		var plain [maxName]byte
		decoded := w.decode(name)
		n := plainName(&plain, decoded)
		if secret(decoded) {
			name = mask
		}
		t.add(name)
		if valued {
			t.add("=")
			known := false
			if n > 0 {
				_, known = m.query[string(plain[:n])]
			}
			if value != "" && (known || secret(w.decode(value))) {
				value = mask
			}
			t.add(value)
		}
		t.add(separator)
	}
	return append(t.end(), '"')
}

// decode percent-decodes s where its encoding is valid. The result is valid until the next call.
func (w *line) decode(s string) []byte {
	b := w.decoded[:0]
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c == '%' && i+2 < len(s) {
			if hi, lo := unhex(s[i+1]), unhex(s[i+2]); hi <= 0xf && lo <= 0xf {
				c = hi<<4 | lo
				i += 2
			}
		}
		b = append(b, c)
	}
	w.decoded = b
	return b
}

// unhex returns the value of a hexadecimal digit, or more than 15 if c is none.
func unhex(c byte) byte {
	switch {
	case '0' <= c && c <= '9':
		return c - '0'
	case 'a' <= c && c <= 'f':
		return c - 'a' + 10
	case 'A' <= c && c <= 'F':
		return c - 'A' + 10
	}
	return 0xff
}

// secret reports whether s contains what looks like an API key of the platform, or like a JWT: three parts in base64url, the first of
// which begins like a JSON object.
func secret[T string | []byte](s T) bool {
	for i := 0; i+4 < len(s); i++ {
		switch {
		case s[i] == 'm' && s[i+1] == 'e' && s[i+2] == 'p' && s[i+3] == 'k' && s[i+4] == '_':
			return true
		case s[i] == 'e' && s[i+1] == 'y' && s[i+2] == 'J' && isToken(s[i+3:]):
			return true
		}
	}
	return false
}

// isToken reports whether s, which follows the first three characters of a token, continues as a token does.
func isToken[T string | []byte](s T) bool {
	dots := 0
	for i := range len(s) {
		c := s[i]
		switch {
		case c == '.':
			if dots++; dots == 2 {
				return true
			}
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '_':
		default:
			return false
		}
	}
	return false
}
