package match

import (
	"net/http"
	"net/url"
	"strings"

	"github.com/openmep/mep/api/gateway"
	"github.com/openmep/mep/kit/errs"
)

// MaxSegments is how many segments the path of a request may have.
const MaxSegments = 256

// Segment is one segment of a path.
type Segment struct {
	// Raw is the segment as it came, Text what it is decoded.
	Raw, Text string
	// Name is the text up to its parameters: what is compared.
	Name string

	end int // in the path, of what stands before the next slash
}

// Path is the path of a request, clean and cut into segments. It may be used for one request after the other, and then takes no memory
// for normal paths. The zero value is the path "", with no segments.
type Path struct {
	raw      string
	segments []Segment
	asterisk bool
}

// Clean reads the target of a request. It refuses with errs.Invalid, saying why:
//
//   - targets that are not a path, such as http://host/path, other than * with OPTIONS (RFC 9112 3.2);
//   - dot segments in whatever spelling: ".", "..", "%2e", "..;a=b";
//   - backslashes, plain or encoded, and encoded slashes;
//   - control characters, plain or encoded;
//   - empty segments other than the one after a slash at the end, and segments of parameters alone;
//   - percent-encodings that are none, and what becomes one of these when it is decoded once more;
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

// Parse reads a path as it stands in a URL, within the same bounds as Clean. "" has no segments, as has "/".
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

// specials are the bytes that make a segment something else than its text.
var specials = func() (t [256]bool) {
	for c := range 0x20 {
		t[c] = true
	}
	t[0x7f], t['%'], t['\\'], t[';'] = true, true, true, true
	return t
}()

// scan returns where the segment that starts at a position ends, and whether it has to be looked at closely.
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

// Segments are the segments. They hold until the path is used for another request.
func (p *Path) Segments() []Segment { return p.segments }

// Raw is the whole path as it came, "*" for the target of an OPTIONS request that is for the server itself.
func (p *Path) Raw() string {
	if p.asterisk {
		return "*"
	}
	return p.raw
}

// Asterisk reports whether the target is *. There are no segments then, and no route.
func (p *Path) Asterisk() bool { return p.asterisk }

// After is the path as it came without its first n segments: "", or something that begins with a slash. A slash at the end stays.
func (p *Path) After(n int) string {
	switch {
	case n <= 0 || len(p.segments) == 0:
		return p.raw
	case n >= len(p.segments):
		n = len(p.segments)
	}
	return p.raw[p.segments[n-1].end:]
}

// Reset makes the path "" and lets go of what it held, but not of the memory for segments.
func (p *Path) Reset() {
	clear(p.segments)
	p.raw, p.segments, p.asterisk = "", p.segments[:0], false
}

// SetPath makes raw, which has been read by Parse, the path of a URL so that it is sent as it is.
func SetPath(u *url.URL, raw string) {
	u.Path, u.RawPath = raw, raw
	if strings.Contains(raw, "%") {
		u.Path, _ = url.PathUnescape(raw) // its encodings have been looked at
	}
}
