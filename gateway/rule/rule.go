// Package rule evaluates the rules of policies: who calls, from where, and what for.
package rule

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/openmep/mep/api/gateway"
	"github.com/openmep/mep/gateway/match"
	"github.com/openmep/mep/kit/identity"
)

// Rule is a compiled gateway.Rule.
type Rule struct {
	effect    gateway.Effect
	consumers map[string]bool
	scopes    []string
	sources   []netip.Prefix
	methods   []string
	paths     []*match.Pattern
}

// Compile compiles rules that have passed their Check.
func Compile(rules []gateway.Rule) ([]Rule, error) {
	list := make([]Rule, 0, len(rules))
	for i := range rules {
		r, err := compile(&rules[i])
		if err != nil {
			return nil, fmt.Errorf("rules[%d]: %w", i, err)
		}
		list = append(list, r)
	}
	return list, nil
}

func compile(g *gateway.Rule) (Rule, error) {
	r := Rule{effect: g.Effect, scopes: g.Scopes, methods: g.Methods}
	if len(g.Consumers) > 0 {
		r.consumers = make(map[string]bool, len(g.Consumers))
		for _, c := range g.Consumers {
			r.consumers[identity.CanonicalID(c)] = true
		}
	}
	var err error
	if r.sources, err = Networks(g.Sources); err != nil {
		return r, err
	}
	for _, p := range g.Paths {
		pattern, err := match.NewPattern(p)
		if err != nil {
			return r, err
		}
		r.paths = append(r.paths, pattern)
	}
	return r, nil
}

// Networks parses networks in CIDR notation and single addresses.
func Networks(list []string) ([]netip.Prefix, error) {
	var nets []netip.Prefix
	for _, s := range list {
		if p, err := netip.ParsePrefix(s); err == nil {
			if p.Addr().Is4In6() && p.Bits() >= 96 {
				p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96) // addresses are compared unmapped
			}
			nets = append(nets, p.Masked())
			continue
		}
		a, err := netip.ParseAddr(s)
		if err != nil {
			return nil, fmt.Errorf("%q is neither a network such as 10.0.0.0/8 nor an address", s)
		}
		nets = append(nets, netip.PrefixFrom(a.Unmap(), a.Unmap().BitLen()))
	}
	return nets, nil
}

// Within reports whether an address is in one of the networks.
func Within(a netip.Addr, nets []netip.Prefix) bool {
	for _, n := range nets {
		if n.Contains(a) {
			return true
		}
	}
	return false
}

// Names reports whether the rule restricts who may call: by consumers, scopes or networks.
func (r *Rule) Names() bool { return r.consumers != nil || len(r.scopes) > 0 || len(r.sources) > 0 }

// Subject is what rules are evaluated for.
type Subject struct {
	// Caller is the caller; nil for an anonymous caller.
	Caller *identity.Caller
	// Client is the address of the client, without zone and unmapped.
	Client netip.Addr
	Method string
	// Path is the path that is forwarded, escaped.
	Path string

	parsed *match.Path // Path, once a rule needs it
}

// segments returns the segments of the path; none if it is invalid, which it should never be: a route made it from a path that Clean
// accepted.
func (s *Subject) segments() []match.Segment {
	if s.parsed == nil {
		s.parsed = &match.Path{}
		_ = s.parsed.Parse(s.Path) // see above
	}
	return s.parsed.Segments()
}

// Decide returns the effect and the index of the first rule that matches; "" and -1 if none does.
func Decide(rules []Rule, s *Subject) (effect gateway.Effect, number int) {
	for i := range rules {
		if rules[i].matches(s) {
			return rules[i].effect, i
		}
	}
	return "", -1
}

func (r *Rule) matches(s *Subject) bool {
	if r.consumers != nil && (s.Caller == nil || !r.consumers[s.Caller.Subject]) {
		return false
	}
	if len(r.scopes) > 0 && (s.Caller == nil || !slices.ContainsFunc(r.scopes, s.Caller.Holds)) {
		return false
	}
	if len(r.sources) > 0 && !Within(s.Client, r.sources) {
		return false
	}
	if len(r.methods) > 0 && !slices.Contains(r.methods, s.Method) {
		return false
	}
	return len(r.paths) == 0 || slices.ContainsFunc(r.paths, func(p *match.Pattern) bool { return p.Match(s.segments()) })
}
