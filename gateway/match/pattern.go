package match

import (
	"github.com/openmep/mep/api/gateway"
	"github.com/openmep/mep/kit/errs"
)

// Pattern is a compiled path pattern. It is immutable.
type Pattern struct {
	gateway.Pattern
	stars []int // indexes of the segments that are "*"
}

// NewPattern compiles an element of Route.Paths or Rule.Paths. The error is of kind errs.Invalid; it completes a sentence that begins with
// the name of the member.
func NewPattern(s string) (*Pattern, error) {
	parsed, err := gateway.ParsePattern(s)
	if err != nil {
		return nil, errs.New(errs.Invalid, "%s", err)
	}
	p := &Pattern{Pattern: parsed}
	for i, literal := range parsed.Literals {
		if literal == "" {
			p.stars = append(p.stars, i)
		}
	}
	return p, nil
}

// Match reports whether the segments match the pattern. For the path that a route with Strip forwards, omit the leading segments.
func (p *Pattern) Match(segments []Segment) bool {
	if len(segments) < len(p.Literals) || len(segments) > len(p.Literals) && !p.Rest {
		return false
	}
	for i, literal := range p.Literals {
		if literal != "" && literal != segments[i].Name {
			return false
		}
	}
	return true
}

// Star returns what the n-th "*", counted from 1, matched in a path, as received; "" if there is none.
func (p *Pattern) Star(path *Path, n int) string {
	if n < 1 || n > len(p.stars) || p.stars[n-1] >= len(path.segments) {
		return ""
	}
	return path.segments[p.stars[n-1]].Raw
}

// RestOf returns what "**" matched in a path, as received: "", or text that begins with a slash.
func (p *Pattern) RestOf(path *Path) string {
	if !p.Rest {
		return ""
	}
	if len(p.Literals) == 0 && path.raw == "/" {
		return "/"
	}
	return path.After(len(p.Literals))
}
