package export

import (
	"regexp"
	"strings"

	"github.com/openmep/mep/api/gateway"
)

// way is one path of a route, and what becomes of it.
type way struct {
	pattern gateway.Pattern
	// hosts are those it is for; none: all. byName says that they are names of the service itself.
	hosts  []string
	byName bool
	// same says that the path is passed on as it is, below the path of the target.
	same bool
	// stripped says that of a path with literal segments alone nothing but what follows them is passed on.
	stripped bool
	// rewrite is what is passed on when it is neither.
	rewrite gateway.Rewrite
}

// prefixSegments is how many segments lead to a service or an instance: they are not passed on.
const prefixSegments = 2

// waysOf reads the paths of a route, and of its host names.
func waysOf(r *gateway.RouteView, n *notes) []way {
	strip, rewrite := 0, ""
	switch {
	case r.Definition != nil:
		strip, rewrite = r.Definition.Strip, r.Definition.Rewrite
	case r.Kind == gateway.KindService || r.Kind == gateway.KindInstance:
		strip = prefixSegments
	}
	var ways []way
	for _, path := range r.Paths {
		p, err := gateway.ParsePattern(path)
		if err != nil {
			n.add(r.ID, "the path %s", path)
			continue
		}
		w := way{pattern: p, hosts: r.Hosts}
		switch {
		case rewrite != "":
			if w.rewrite, err = gateway.ParseRewrite(rewrite, p); err != nil {
				n.add(r.ID, "the path %s with the rewrite %s", path, rewrite)
				continue
			}
		case strip == 0:
			w.same = true
		case strip > len(p.Literals) && p.Rest:
			n.add(r.ID, "the path %s, of which %d segments are not passed on", path, strip)
			continue
		case strip == len(p.Literals) && p.Rest && p.Stars() == 0:
			w.stripped = true
		default:
			w.rewrite = remaining(&p, strip)
		}
		ways = append(ways, w)
	}
	if len(r.HostNames) > 0 {
		ways = append(ways, way{pattern: gateway.Pattern{Rest: true}, hosts: r.HostNames, byName: true, same: true})
	}
	return ways
}

// remaining is the rewrite that leaves out leading segments.
func remaining(p *gateway.Pattern, strip int) gateway.Rewrite {
	r := gateway.Rewrite{Rest: p.Rest}
	star := 0
	for i, segment := range segments(p) {
		if segment == "" {
			star++
		}
		switch {
		case i < strip:
		case segment == "":
			r.Parts = append(r.Parts, gateway.RewritePart{Star: star})
		default:
			r.Parts = append(r.Parts, gateway.RewritePart{Text: "/" + segment})
		}
	}
	if len(r.Parts) == 0 && !r.Rest {
		r.Parts = []gateway.RewritePart{{Text: "/"}}
	}
	return r
}

// segments are those of a pattern as they are written in URLs, "" for "*".
func segments(p *gateway.Pattern) []string {
	list := make([]string, len(p.Literals))
	for i, literal := range p.Literals {
		if literal != "" {
			one := gateway.Pattern{Literals: []string{literal}}
			list[i] = one.String()[1:]
		}
	}
	return list
}

// literal is the path of a pattern without "*" and "**"; ok is false when it has a "*".
func literal(p *gateway.Pattern) (path string, ok bool) {
	for _, segment := range segments(p) {
		if segment == "" {
			return "", false
		}
		path += "/" + segment
	}
	return path, true
}

// expression is a regular expression for the whole path, with one group for each "*" and one for "**", which holds the slash before it.
// group begins the group of a number, from 1 on; that of "**" is number 0.
func expression(p *gateway.Pattern, group func(int) string) string {
	var b strings.Builder
	star := 0
	for _, segment := range segments(p) {
		if segment == "" {
			star++
			b.WriteString("/" + group(star) + "[^/]+)")
			continue
		}
		b.WriteString("/" + regexp.QuoteMeta(segment))
	}
	switch {
	case p.Rest:
		b.WriteString(group(0) + "/.*)?")
	case len(p.Literals) == 0:
		b.WriteString("/")
	default:
		b.WriteString("/?")
	}
	return b.String()
}

// passed is the path that is passed on: of texts, and of what group returns for the groups of expression.
func passed(base string, r *gateway.Rewrite, text func(string) string, group func(int) string) string {
	var b strings.Builder
	b.WriteString(text(base))
	for _, part := range r.Parts {
		if part.Star > 0 {
			b.WriteString("/" + group(part.Star)) // a whole segment
		} else {
			b.WriteString(text(part.Text))
		}
	}
	if r.Rest {
		b.WriteString(group(0))
	}
	return b.String()
}
