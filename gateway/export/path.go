package export

import (
	"regexp"
	"strings"

	"github.com/openmep/mep/api/gateway"
)

// way is one path of a route, and how it is forwarded.
type way struct {
	pattern gateway.Pattern
	// hosts are the hosts that the path applies to; none: all. byName reports whether they are names of the service itself.
	hosts  []string
	byName bool
	// same reports whether the path is forwarded unchanged, below the path of the target.
	same bool
	// stripped reports whether the pattern is literal segments and "**", and only what "**" matched is forwarded.
	stripped bool
	// rewrite is the path to forward if neither same nor stripped is set.
	rewrite gateway.Rewrite
}

// prefixSegments is the number of leading segments of the paths of services and instances. They are not forwarded.
const prefixSegments = 2

// waysOf returns the ways of the paths and of the host names of a route.
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

// remaining returns the rewrite that omits leading segments.
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

// segments returns the segments of a pattern as written in URLs; "" for "*".
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

// literal returns the path of a pattern without its "**"; ok is false if the pattern has a "*".
func literal(p *gateway.Pattern) (path string, ok bool) {
	for _, segment := range segments(p) {
		if segment == "" {
			return "", false
		}
		path += "/" + segment
	}
	return path, true
}

// expression returns a regular expression for the whole path, with one group for each "*" and one for "**", which includes the slash before
// it. group returns the beginning of the group with the given number, from 1; the group of "**" is number 0.
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

// passed returns the path that is forwarded: literal parts as text returns them, and what group returns for the groups of expression.
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
