package match

import (
	"github.com/openmep/mep/api/gateway"
	"github.com/openmep/mep/kit/errs"
)

// Pattern is a pattern of paths, ready to be compared. It does not change.
type Pattern struct {
	gateway.Pattern
	stars []int // which segments are "*"
}

// NewPattern reads a pattern of Route.Paths or Rule.Paths. The error, of kind errs.Invalid, ends a sentence that starts with what holds
// the pattern.
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

// Match reports whether a path has these segments. To compare what is passed on by a route with Strip, leave the first segments out.
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

// Star is what the n-th "*", counted from 1, matched in a path, as it came; "" when there is none.
func (p *Pattern) Star(path *Path, n int) string {
	if n < 1 || n > len(p.stars) || p.stars[n-1] >= len(path.segments) {
		return ""
	}
	return path.segments[p.stars[n-1]].Raw
}

// RestOf is what "**" matched in a path, as it came: "", or something that begins with a slash.
func (p *Pattern) RestOf(path *Path) string {
	if !p.Rest {
		return ""
	}
	if len(p.Literals) == 0 && path.raw == "/" {
		return "/"
	}
	return path.After(len(p.Literals))
}
