package match

import (
	"net/http"
	"net/url"
	"strings"

	"github.com/openmep/mep/api/gateway"
	"github.com/openmep/mep/kit/errs"
)

// MaxSegments is the maximum number of segments of a request path.
const MaxSegments = 256

// Segment is one segment of a path.
type Segment struct {
	// Raw is the segment as received, Text the decoded segment.
	Raw, Text string
	// Name is the text without its parameters. Names are what is compared.
	Name string

	end int // index in the path of the end of the segment, before the next slash
}

// Path is the path of a request, checked and split into segments. It can be reused for one request after another, and then does not
// allocate for ordinary paths. The zero value is the path "", which has no segments.
type Path struct {
	raw      string
	segments []Segment
	asterisk bool
}

// Clean parses the target of a request. It returns errs.Invalid with the reason for:
//
//   - targets that are not a path, such as http://host/path, except * with OPTIONS (RFC 9112 3.2);
//   - dot segments in any spelling: ".", "..", "%2e", "..;a=b";
//   - backslashes, plain or encoded, and encoded slashes;
//   - control characters, plain or encoded;
//   - empty segments, except after a trailing slash, and segments that consist of parameters alone;
//   - invalid percent-encodings, and anything that becomes one of these when decoded once more;
//   - more than MaxSegments segments.
func (p *Path) Clean(method string, u *url.URL) error {
	p.Reset()
	switch {
	case u.Scheme != "" || u.Host != "" || u.Opaque != "" || u.User != nil:
		return errs.New(errs.Invalid, "the target of the request must be a path, without scheme and host")
	case u.Path == "*" && method == http.MethodOptions:
		p.asterisk = true
		return nil
	}
	raw := u.EscapedPath()
	if raw == "" {
		return errs.New(errs.Invalid, "the target of the request must be a path that begins with /")
	}
	return p.Parse(raw)
}

// Parse parses a path as written in a URL. It refuses the same paths as Clean, but accepts "", which has no segments, like "/".
func (p *Path) Parse(raw string) error {
	p.Reset()
	if raw == "" {
		return nil
	}
	if raw[0] != '/' {
		return errs.New(errs.Invalid, "the target of the request must be a path that begins with /")
	}
	for start := 1; start <= len(raw); {
		end, special := scan(raw, start)
		segment := Segment{Raw: raw[start:end], end: end}
		switch {
		case segment.Raw == "" && end == len(raw):
			p.raw = raw
			return nil
		case segment.Raw == "":
			return p.refuse("must not have an empty segment (//)")
		case len(p.segments) == MaxSegments:
			return p.refuse("must have at most 256 segments")
		case special || segment.Raw == "." || segment.Raw == "..":
			var err error
			if segment.Text, segment.Name, err = gateway.ParseSegment(segment.Raw); err != nil {
				return p.refuse(err.Error())
			}
		default:
			segment.Text, segment.Name = segment.Raw, segment.Raw
		}
		p.segments = append(p.segments, segment)
		start = end + 1
	}
	p.raw = raw
	return nil
}

func (p *Path) refuse(reason string) error {
	p.Reset()
	return errs.New(errs.Invalid, "the path of the request %s", reason)
}

// specials are the bytes that make the text or name of a segment differ from the raw segment, or make the segment invalid.
var specials = func() (t [256]bool) {
	for c := range 0x20 {
		t[c] = true
	}
	t[0x7f], t['%'], t['\\'], t[';'] = true, true, true, true
	return t
}()

// scan returns the end of the segment that begins at start, and whether the segment needs a closer look.
func scan(raw string, start int) (end int, special bool) {
	for end = start; end < len(raw); end++ {
		c := raw[end]
		if c == '/' {
			break
		}
		special = special || specials[c]
	}
	return end, special
}

// Segments returns the segments. They are valid until the path is reused for another request.
func (p *Path) Segments() []Segment { return p.segments }

// Raw returns the whole path as received, or "*" for an OPTIONS request to the server itself.
func (p *Path) Raw() string {
	if p.asterisk {
		return "*"
	}
	return p.raw
}

// Asterisk reports whether the target is *. The path then has no segments and matches no route.
func (p *Path) Asterisk() bool { return p.asterisk }

// After returns the path as received without its first n segments: "", or text that begins with a slash. A trailing slash is kept.
func (p *Path) After(n int) string {
	switch {
	case n <= 0 || len(p.segments) == 0:
		return p.raw
	case n >= len(p.segments):
		n = len(p.segments)
	}
	return p.raw[p.segments[n-1].end:]
}

// Reset sets the path to "" and releases everything it refers to, except the memory for segments.
func (p *Path) Reset() {
	clear(p.segments)
	p.raw, p.segments, p.asterisk = "", p.segments[:0], false
}

// SetPath sets the path of a URL to raw, which Parse has accepted, such that it is sent unchanged.
func SetPath(u *url.URL, raw string) {
	u.Path, u.RawPath = raw, raw
	if strings.Contains(raw, "%") {
		u.Path, _ = url.PathUnescape(raw) // Parse has checked the encodings
	}
}
