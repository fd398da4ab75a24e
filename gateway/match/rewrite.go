package match

import (
	"strings"

	"github.com/openmep/mep/api/gateway"
	"github.com/openmep/mep/kit/errs"
)

// Rewriter turns the path of a request into the path that is forwarded. It is immutable.
type Rewriter struct {
	strip   int
	rewrite *gateway.Rewrite
}

// NewRewriter returns the rewriter of a route. It returns errs.Invalid if the Rewrite of the route is not a path or refers to something
// that its Paths do not have.
func NewRewriter(route *gateway.Route) (*Rewriter, error) {
	w := &Rewriter{strip: route.Strip}
	if route.Rewrite == "" {
		return w, nil
	}
	patterns := make([]gateway.Pattern, len(route.Paths))
	for i, s := range route.Paths {
		p, err := gateway.ParsePattern(s)
		if err != nil {
			return nil, errs.New(errs.Invalid, "paths[%d] %s", i, err)
		}
		patterns[i] = p
	}
	rewrite, err := gateway.ParseRewrite(route.Rewrite, patterns...)
	if err != nil {
		return nil, errs.New(errs.Invalid, "rewrite %s", err)
	}
	w.rewrite = &rewrite
	return w, nil
}

// Apply returns the path to forward for a path that p, one of the patterns of the route, has matched. What was escaped stays escaped. The
// result is "" or begins with a slash, and is valid input for Parse.
func (w *Rewriter) Apply(path *Path, p *Pattern) string {
	if w.rewrite == nil {
		return path.After(w.strip)
	}
	rest := ""
	if w.rewrite.Rest {
		rest = p.RestOf(path)
	}
	if len(w.rewrite.Parts) == 0 {
		return rest
	}
	size := len(rest)
	for _, part := range w.rewrite.Parts {
		size += len(part.Text)
		if part.Star > 0 {
			size += 1 + len(p.Star(path, part.Star))
		}
	}
	var b strings.Builder
	b.Grow(size)
	for _, part := range w.rewrite.Parts {
		b.WriteString(part.Text)
		if part.Star > 0 {
			b.WriteByte('/')
			b.WriteString(p.Star(path, part.Star))
		}
	}
	b.WriteString(rest)
	return b.String()
}
