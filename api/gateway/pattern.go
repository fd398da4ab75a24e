package gateway

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// Bounds on patterns and rewritten paths.
const (
	// MaxPattern is the maximum length of a pattern in bytes.
	MaxPattern = 1024
	// MaxSegments is the maximum number of segments of a pattern.
	MaxSegments = 32
	// MaxStars is the maximum number of "*" in a pattern whose route has a Rewrite: there are no placeholders for more.
	MaxStars = 9
)

// The faults of a path segment. Each error completes a sentence that begins with the name of the member.
var (
	errEncoding   = errors.New(`must not have a "%" that two hexadecimal digits do not follow`)
	errControl    = errors.New("must not have control characters, plain or encoded")
	errOverlong   = errors.New("must not have bytes that no UTF-8 has, which some servers read as other characters")
	errBackslash  = errors.New("must not have a backslash, plain or encoded")
	errSlash      = errors.New("must not have an encoded slash")
	errDot        = errors.New(`must not have the segments "." and "..", plain, encoded or with parameters`)
	errParameters = errors.New("must not have a segment of parameters alone")
	errTwice      = errors.New("must not have dot segments, slashes, backslashes or control characters that are encoded twice")
	errEmpty      = errors.New("must not have an empty segment")
)

// ParseSegment decodes one non-empty path segment of a request. The name is the text up to the parameters, which begin with ";" (RFC 3986
// 3.3). Servers differ in whether parameters count, so all decisions about paths compare names.
//
// It refuses anything that servers are known to interpret differently: dot segments, encoded slashes and backslashes, control characters,
// broken encodings, and anything that becomes one of these when decoded once more. The error completes a sentence that begins with the name
// of the member.
func ParseSegment(raw string) (text, name string, err error) {
	text, whole := decode(raw)
	if !whole {
		return "", "", errEncoding
	}
	if name, err = nameOf(text); err != nil {
		return "", "", err
	}
	for again, n := text, 0; strings.Contains(again, "%"); n++ {
		before := again
		if again, _ = decode(again); again == before {
			break
		}
		if _, err := nameOf(again); err != nil || n == maxDecoded {
			return "", "", errTwice
		}
	}
	return text, name, nil
}

// maxDecoded is how often decoding a text again may change it: nobody encodes a path five times by accident.
const maxDecoded = 3

// overlong reports whether the byte at the index never occurs in UTF-8 or begins an overlong encoding (RFC 3629 3, 10): a server that
// accepts it nevertheless may read a dot or a slash. Encodings other than UTF-8 pass.
func overlong(text string, at int) bool {
	switch c := text[at]; {
	case c == 0xc0 || c == 0xc1 || c > 0xf4:
		return true
	case c == 0xe0:
		return at+1 < len(text) && 0x80 <= text[at+1] && text[at+1] < 0xa0
	case c == 0xf0:
		return at+1 < len(text) && 0x80 <= text[at+1] && text[at+1] < 0x90
	}
	return false
}

// nameOf returns the name of a decoded segment.
func nameOf(text string) (string, error) {
	for i, c := range []byte(text) {
		switch {
		case overlong(text, i):
			return "", errOverlong
		case c < ' ' || c == 0x7f:
			return "", errControl
		case c == '/':
			return "", errSlash
		case c == '\\':
			return "", errBackslash
		}
	}
	name, _, _ := strings.Cut(text, ";")
	switch name {
	case ".", "..":
		return "", errDot
	case "":
		return "", errParameters
	}
	return name, nil
}

// decode resolves percent-encodings. whole is false if a "%" does not begin an encoding.
func decode(s string) (text string, whole bool) {
	if !strings.Contains(s, "%") {
		return s, true
	}
	whole = true
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] != '%':
			b = append(b, s[i])
		case i+2 < len(s) && isHex(s[i+1]) && isHex(s[i+2]):
			n, _ := strconv.ParseUint(s[i+1:i+3], 16, 8) // two hexadecimal digits
			b = append(b, byte(n))
			i += 2
		default:
			whole = false
			b = append(b, '%')
		}
	}
	return string(b), whole
}

func isHex(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F'
}

// Pattern is a parsed element of Route.Paths. It is compared with paths segment by segment, by name (see ParseSegment). A trailing slash of
// a path does not count.
type Pattern struct {
	// Literals are the decoded segments; "" stands for "*", any one non-empty segment.
	Literals []string
	// Rest reports whether any number of segments may follow.
	Rest bool
}

// ParsePattern parses a pattern: "/", or segments that each begin with a slash, where "*" is any segment and "**", at the end only, any
// number of segments. Literal segments are written as in a URL. The error completes a sentence that begins with the name of the member.
func ParsePattern(s string) (Pattern, error) {
	switch {
	case len(s) > MaxPattern:
		return Pattern{}, fmt.Errorf("must be at most %d bytes long", MaxPattern)
	case !strings.HasPrefix(s, "/"):
		return Pattern{}, refused(`a path that begins with "/"`, s)
	case s == "/":
		return Pattern{}, nil
	case strings.HasSuffix(s, "/"):
		return Pattern{}, errors.New(`must not end with "/": a slash at the end of a path does not count, and "**" stands for what follows`)
	}
	var p Pattern
	for segment := range strings.SplitSeq(s[1:], "/") {
		switch {
		case p.Rest:
			return Pattern{}, errors.New(`must have "**" at its end only`)
		case segment == "**":
			p.Rest = true
			continue
		case segment == "*":
			p.Literals = append(p.Literals, "")
		default:
			literal, err := parseLiteral(segment)
			if err != nil {
				return Pattern{}, err
			}
			p.Literals = append(p.Literals, literal)
		}
		if len(p.Literals) > MaxSegments {
			return Pattern{}, fmt.Errorf("must have at most %d segments", MaxSegments)
		}
	}
	return p, nil
}

func parseLiteral(segment string) (string, error) {
	if segment == "" {
		return "", errEmpty
	}
	if strings.ContainsAny(segment, "*{}") {
		return "", refused(`a path whose segments are literal, "*", or at the end "**"`, segment)
	}
	if err := plain(segment); err != nil {
		return "", err
	}
	text, name, err := ParseSegment(segment)
	if err != nil {
		return "", err
	}
	if name != text {
		return "", errors.New(`must not have parameters (";"): they are not compared`)
	}
	return text, nil
}

// plain refuses characters that must be percent-encoded in the path of a URL (RFC 3986 3.3).
func plain(segment string) error {
	for _, c := range []byte(segment) {
		if !alphanumeric(c) && strings.IndexByte("-._~!$&'()*+,;=:@%", c) < 0 {
			return fmt.Errorf("must be written as in a URL: %q is to be percent-encoded", rune(c))
		}
	}
	return nil
}

func alphanumeric(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
}

// Stars returns the number of "*" in the pattern.
func (p *Pattern) Stars() int {
	n := 0
	for _, literal := range p.Literals {
		if literal == "" {
			n++
		}
	}
	return n
}

// String returns the pattern in the syntax of ParsePattern.
func (p *Pattern) String() string {
	var b strings.Builder
	for _, literal := range p.Literals {
		b.WriteByte('/')
		if literal == "" {
			b.WriteByte('*')
		}
		for _, c := range []byte(literal) {
			if alphanumeric(c) || strings.IndexByte("-._~!$&'()+,=:@", c) >= 0 {
				b.WriteByte(c)
			} else {
				fmt.Fprintf(&b, "%%%02X", c)
			}
		}
	}
	switch {
	case p.Rest:
		b.WriteString("/**")
	case b.Len() == 0:
		return "/"
	}
	return b.String()
}

// RewritePart is a part of a Rewrite: literal text that begins with a slash, or a segment that a "*" matched.
type RewritePart struct {
	Text string
	// Star is 1 to MaxStars; 0 for text.
	Star int
}

// Rewrite is a parsed Route.Rewrite.
type Rewrite struct {
	Parts []RewritePart
	// Rest reports whether the path ends with what "**" matched, preceded by a slash unless it is empty.
	Rest bool
}

// ParseRewrite parses a path in which segments may be "{1}" to "{9}" and the last one "{rest}". All patterns must have what these stand
// for. Placeholders are whole segments: text that is safe on its own may not be safe next to other text. The error completes a sentence
// that begins with the name of the member.
func ParseRewrite(s string, patterns ...Pattern) (Rewrite, error) {
	switch {
	case len(s) > MaxPattern:
		return Rewrite{}, fmt.Errorf("must be at most %d bytes long", MaxPattern)
	case !strings.HasPrefix(s, "/"):
		return Rewrite{}, refused(`a path that begins with "/"`, s)
	}
	var r Rewrite
	path, rested := strings.CutSuffix(s, "/{rest}")
	r.Rest = rested
	filled, text := "", ""
	for rest := path; rest != ""; {
		segment, after, more := strings.Cut(rest[1:], "/")
		rest = ""
		if more {
			rest = "/" + after
		}
		star := len(segment) == 3 && segment[0] == '{' && '1' <= segment[1] && segment[1] <= '9' && segment[2] == '}'
		switch {
		case star:
			if text != "" {
				r.Parts = append(r.Parts, RewritePart{Text: text})
			}
			r.Parts = append(r.Parts, RewritePart{Star: int(segment[1] - '0')})
			text, segment = "", "x" // a "*" matches clean segments only
		case strings.ContainsAny(segment, "{}"):
			return Rewrite{}, refused(`a path whose segments are literal, "{1}" to "{9}", or at the end "{rest}"`, s)
		default:
			text += "/" + segment
		}
		filled += "/" + segment
	}
	if text != "" {
		r.Parts = append(r.Parts, RewritePart{Text: text})
	}
	if r.Rest && strings.HasSuffix(filled, "/") {
		return Rewrite{}, errEmpty
	}
	if filled != "" {
		if err := checkPath(filled); err != nil {
			return Rewrite{}, err
		}
	}
	return r, r.fits(patterns)
}

// checkPath checks a path of literal segments. A trailing slash is allowed.
func checkPath(path string) error {
	if path == "/" {
		return nil
	}
	for segment := range strings.SplitSeq(strings.TrimSuffix(strings.TrimPrefix(path, "/"), "/"), "/") {
		if segment == "" {
			return errEmpty
		}
		if err := plain(segment); err != nil {
			return err
		}
		if _, _, err := ParseSegment(segment); err != nil {
			return err
		}
	}
	return nil
}

// fits checks that every pattern has everything that the rewritten path refers to.
func (r *Rewrite) fits(patterns []Pattern) error {
	for i := range patterns {
		p := &patterns[i]
		if r.Rest && !p.Rest {
			return fmt.Errorf(`must not have {rest}: the path %s does not end with "**"`, p)
		}
		for _, part := range r.Parts {
			if part.Star > p.Stars() {
				return fmt.Errorf(`must not have {%d}: the path %s has %d "*"`, part.Star, p, p.Stars())
			}
		}
	}
	return nil
}
