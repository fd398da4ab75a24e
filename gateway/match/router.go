package match

import (
	"cmp"
	"net/http"
	"net/netip"
	"slices"
	"strings"

	"github.com/openmep/mep/api/gateway"
	"github.com/openmep/mep/kit/errs"
)

// Outcome is the result of the search for a route.
type Outcome int

// The outcomes of a search.
const (
	// None means that no route matches the host, the path and the header fields.
	None Outcome = iota
	// WrongMethod means that routes match, but none of them accepts the method: 405 (RFC 9110 15.5.6).
	WrongMethod
	// Found means that a route matches.
	Found
)

// Entry is a route prepared for a Router, with the value it stands for. It is immutable and may be part of several routers.
type Entry[T any] struct {
	id       string
	hosts    []string
	patterns []*Pattern
	methods  []string
	headers  []condition
	priority int
	value    T
}

// condition is a condition on a header field.
type condition struct {
	name, value string // the name in canonical form
	any         bool
}

// NewEntry prepares a route that has passed its Check. For any other route it returns errs.Invalid with the reason.
func NewEntry[T any](route *gateway.Route, value T) (*Entry[T], error) {
	e := &Entry[T]{id: route.ID, methods: route.Methods, priority: route.Priority, value: value}
	for i, s := range route.Hosts {
		host, ok := gateway.CanonicalHost(s)
		if !ok {
			return nil, errs.New(errs.Invalid, "hosts[%d] must be a host name", i)
		}
		e.hosts = append(e.hosts, host)
	}
	if len(route.Paths) == 0 {
		return nil, errs.New(errs.Invalid, "paths must have at least one path")
	}
	for i, s := range route.Paths {
		p, err := NewPattern(s)
		if err != nil {
			return nil, errs.New(errs.Invalid, "paths[%d] %s", i, err)
		}
		e.patterns = append(e.patterns, p)
	}
	for name, value := range route.Headers {
		e.headers = append(e.headers, condition{name: http.CanonicalHeaderKey(name), value: value, any: value == "*"})
	}
	return e, nil
}

// Router finds routes. It is immutable.
type Router[T any] struct {
	names     map[string]*node[T]
	addresses map[netip.Addr]*node[T]
	wildcards map[string]*node[T] // by the name after "*."
	others    *node[T]
}

// node is the end of a sequence of segments, in a tree of patterns.
type node[T any] struct {
	literals map[string]*node[T]
	star     *node[T]
	exact    []candidate[T] // patterns that end here, best first
	rest     []candidate[T] // patterns that continue with "**"
}

type candidate[T any] struct {
	*Entry[T]
	pattern *Pattern
}

// NewRouter returns a router for routes, whose ids should be distinct.
func NewRouter[T any](entries []*Entry[T]) *Router[T] {
	r := &Router[T]{
		names: make(map[string]*node[T]), addresses: make(map[netip.Addr]*node[T]), wildcards: make(map[string]*node[T]),
		others: new(node[T]),
	}
	sorted := slices.SortedStableFunc(slices.Values(entries), compare)
	for _, e := range sorted {
		if len(e.hosts) == 0 {
			r.others.add(e)
		}
		for _, host := range e.hosts {
			r.tree(host).add(e)
		}
	}
	return r
}

// compare orders entries by the precedence of routes that have the same host and path.
func compare[T any](a, b *Entry[T]) int {
	named := func(e *Entry[T]) int { return min(len(e.methods), 1) }
	return cmp.Or(cmp.Compare(named(b), named(a)), cmp.Compare(len(b.headers), len(a.headers)),
		cmp.Compare(b.priority, a.priority), strings.Compare(a.id, b.id))
}

// tree returns the tree of paths of a canonical host, and creates it if there is none.
func (r *Router[T]) tree(host string) *node[T] {
	if a, err := netip.ParseAddr(host); err == nil {
		return under(r.addresses, a)
	}
	if name, wildcard := strings.CutPrefix(host, "*."); wildcard {
		return under(r.wildcards, name)
	}
	return under(r.names, host)
}

func under[K comparable, T any](m map[K]*node[T], key K) *node[T] {
	n, ok := m[key]
	if !ok {
		n = new(node[T])
		m[key] = n
	}
	return n
}

func (n *node[T]) add(e *Entry[T]) {
	for _, p := range e.patterns {
		at := n
		for _, literal := range p.Literals {
			switch {
			case literal != "":
				if at.literals == nil {
					at.literals = make(map[string]*node[T])
				}
				at = under(at.literals, literal)
			case at.star == nil:
				at.star = new(node[T])
				at = at.star
			default:
				at = at.star
			}
		}
		if p.Rest {
			at.rest = append(at.rest, candidate[T]{e, p})
		} else {
			at.exact = append(at.exact, candidate[T]{e, p})
		}
	}
}

// question is one request, and what the search has found out about it.
type question struct {
	method      string
	header      http.Header
	hosted      bool // search only routes that name hosts
	wrongMethod bool
	allowed     *[]string // if not nil, collects the methods of the routes that match otherwise
}

// Find returns the value of the route that matches a request, and the pattern that matched. host is the host of the request, with or
// without a port. Find does not allocate unless the host has upper-case letters.
func (r *Router[T]) Find(host, method string, path *Path, header http.Header) (value T, p *Pattern, outcome Outcome) {
	q := question{method: method, header: header}
	return r.result(r.find(host, path, &q), &q)
}

// FindHost is Find restricted to routes that name hosts.
func (r *Router[T]) FindHost(host, method string, path *Path, header http.Header) (value T, p *Pattern, outcome Outcome) {
	q := question{method: method, header: header, hosted: true}
	return r.result(r.find(host, path, &q), &q)
}

// result returns the results of Find for a candidate; c is nil if there is none.
func (r *Router[T]) result(c *candidate[T], q *question) (value T, p *Pattern, outcome Outcome) {
	switch {
	case c != nil:
		return c.value, c.pattern, Found
	case q.wrongMethod:
		outcome = WrongMethod
	}
	return value, nil, outcome
}

// Allowed returns the sorted methods of the routes that match the host, path and header fields of a request, for the Allow field of the
// response when Find returns WrongMethod.
func (r *Router[T]) Allowed(host string, path *Path, header http.Header) []string {
	return r.methods(host, path, &question{header: header})
}

// AllowedHost is Allowed for FindHost.
func (r *Router[T]) AllowedHost(host string, path *Path, header http.Header) []string {
	return r.methods(host, path, &question{header: header, hosted: true})
}

func (r *Router[T]) methods(host string, path *Path, q *question) []string {
	var methods []string
	q.allowed = &methods
	r.find(host, path, q)
	slices.Sort(methods)
	return slices.Compact(methods)
}

// find searches the trees that apply to the host, the most specific one first.
func (r *Router[T]) find(host string, path *Path, q *question) *candidate[T] {
	if path.asterisk {
		return nil
	}
	if len(r.names)+len(r.addresses)+len(r.wildcards) > 0 {
		if c := r.findHost(host, path, q); c != nil {
			return c
		}
	}
	if q.hosted {
		return nil
	}
	return r.others.find(path.segments, q)
}

func (r *Router[T]) findHost(host string, path *Path, q *question) *candidate[T] {
	name, addr := splitHost(host)
	if addr.IsValid() {
		return r.addresses[addr].find(path.segments, q)
	}
	if c := r.names[name].find(path.segments, q); c != nil {
		return c
	}
	if len(r.wildcards) == 0 || len(name) > maxHost {
		return nil
	}
	for {
		_, parent, found := strings.Cut(name, ".")
		if !found {
			return nil
		}
		if c := r.wildcards[parent].find(path.segments, q); c != nil {
			return c
		}
		name = parent
	}
}

// maxHost is the maximum length of a host name (RFC 1035 2.3.4).
const maxHost = 253

// splitHost parses the host of a request into a lower-case name without a trailing dot, or an address.
func splitHost(host string) (name string, addr netip.Addr) {
	switch colon := strings.LastIndexByte(host, ':'); {
	case strings.HasPrefix(host, "["):
		host, _, _ = strings.Cut(host[1:], "]")
	case colon >= 0 && strings.IndexByte(host, ':') == colon:
		host = host[:colon]
	}
	if looksLikeAddress(host) {
		if a, err := netip.ParseAddr(host); err == nil {
			return "", a.Unmap().WithZone("")
		}
	}
	return strings.ToLower(strings.TrimSuffix(host, ".")), addr
}

// looksLikeAddress keeps names away from netip.ParseAddr, whose errors allocate.
func looksLikeAddress(host string) bool {
	return strings.Contains(host, ":") || strings.Trim(host, ".0123456789") == ""
}

// find descends the tree: a literal segment first, then "*", then "**".
func (n *node[T]) find(segments []Segment, q *question) *candidate[T] {
	if n == nil {
		return nil
	}
	if len(segments) == 0 {
		if c := pick(n.exact, q); c != nil {
			return c
		}
		return pick(n.rest, q)
	}
	if n.literals != nil {
		if c := n.literals[segments[0].Name].find(segments[1:], q); c != nil {
			return c
		}
	}
	if c := n.star.find(segments[1:], q); c != nil {
		return c
	}
	return pick(n.rest, q)
}

// pick returns the first candidate that matches the method and the header fields.
func pick[T any](candidates []candidate[T], q *question) *candidate[T] {
	for i := range candidates {
		c := &candidates[i]
		switch {
		case len(c.headers) > 0 && !meets(q.header, c.headers):
		case len(c.methods) == 0 && q.allowed == nil, q.allowed == nil && slices.Contains(c.methods, q.method):
			return c
		case q.allowed != nil:
			*q.allowed = append(*q.allowed, c.methods...)
		default:
			q.wrongMethod = true
		}
	}
	return nil
}

// meets reports whether a header meets all conditions: each field must be present, with the value in one of its lines.
func meets(header http.Header, conditions []condition) bool {
	for i := range conditions {
		c := &conditions[i]
		values := header[c.name]
		if len(values) == 0 || !c.any && !slices.Contains(values, c.value) {
			return false
		}
	}
	return true
}
