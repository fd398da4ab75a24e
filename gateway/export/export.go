// Package export converts the routes of the gateway into configurations of other gateways. What has no counterpart there is listed at the
// beginning of the file.
package export

import (
	"bytes"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/openmep/mep/api/gateway"
	"github.com/openmep/mep/gateway/pipeline"
)

// Table is the data to export.
type Table struct {
	// Routes are the routes of the gateway.
	Routes []*gateway.RouteView
	// Policies are the policies of the gateway.
	Policies []gateway.PolicyView
}

// policy returns the policy that decides about the calls of a route, completed as the gateway completes it, without defaults.
func (t *Table) policy(r *gateway.RouteView) gateway.Policy {
	if r.Kind == gateway.KindPlatform {
		return t.defined(r.Policy)
	}
	base := t.defined(gateway.AnyService)
	d := r.Definition
	if d == nil {
		return pipeline.Merge(t.defined(r.Policy), base)
	}
	if d.Service != "" {
		base = pipeline.Merge(t.defined(d.Service), base)
	}
	return pipeline.Merge(d.Policy, base)
}

// defined returns the policy of a name as it was defined; an empty one if there is none.
func (t *Table) defined(name string) gateway.Policy {
	for i := range t.Policies {
		if t.Policies[i].Name == name {
			return t.Policies[i].Policy
		}
	}
	return gateway.Policy{}
}

// notes lists the features that have no counterpart, in the order of their occurrence.
type notes struct{ list []string }

func (n *notes) add(route, format string, args ...any) {
	line := fmt.Sprintf("%s: %s", route, fmt.Sprintf(format, args...))
	if !slices.Contains(n.list, line) {
		n.list = append(n.list, line)
	}
}

// document encodes a configuration, preceded by a comment.
func document(title string, about []string, n *notes, config any) ([]byte, error) {
	var b bytes.Buffer
	fmt.Fprintf(&b, "# %s, made of the routes of the mep gateway.\n#\n", title)
	for _, line := range about {
		comment(&b, line)
	}
	if len(n.list) > 0 {
		b.WriteString("#\n# These have no counterpart here and are left out:\n")
		for _, line := range n.list {
			comment(&b, "- "+line)
		}
	}
	enc := yaml.NewEncoder(&b)
	enc.SetIndent(2)
	if err := enc.Encode(config); err != nil {
		return nil, fmt.Errorf("export: %w", err)
	}
	err := enc.Close()
	return b.Bytes(), err
}

// comment writes a comment line. Line breaks and control characters in line cannot end the comment.
func comment(b *bytes.Buffer, line string) {
	b.WriteString("# ")
	b.WriteString(strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r == 0x85 || r == 0x2028 || r == 0x2029 {
			return ' '
		}
		return r
	}, line))
	b.WriteByte('\n')
}

// names makes distinct names of ids, from letters, digits, "-", "_" and ".".
type names map[string]bool

func (n names) of(id string) string {
	name := strings.Map(func(r rune) rune {
		switch {
		case 'a' <= r && r <= 'z', 'A' <= r && r <= 'Z', '0' <= r && r <= '9', r == '-', r == '_', r == '.':
			return r
		case r == ':':
			return '.'
		}
		return '_'
	}, id)
	free := name
	for i := 2; n[free]; i++ {
		free = fmt.Sprintf("%s-%d", name, i)
	}
	n[free] = true
	return free
}

// targets are the targets of a route that other gateways can balance between: all have the same scheme and path.
type targets struct {
	scheme, path string
	hosts        []string // host:port
}

// targetsOf returns the targets of a route. ok is false if there are none.
func targetsOf(r *gateway.RouteView, n *notes) (t targets, ok bool) {
	for _, view := range r.Targets {
		u, err := url.Parse(view.URL)
		if err != nil || u.Host == "" {
			n.add(r.ID, "the target %s", view.URL)
			continue
		}
		host, path := u.Host, strings.TrimRight(u.EscapedPath(), "/")
		if u.Port() == "" {
			host += ":" + map[bool]string{true: "443", false: "80"}[u.Scheme == "https" || u.Scheme == "wss"]
		}
		switch {
		case t.hosts == nil:
			t.scheme, t.path = u.Scheme, path
		case t.scheme != u.Scheme || t.path != path:
			n.add(r.ID, "the target %s: its scheme and path have to be those of the first one", view.URL)
			continue
		}
		if !slices.Contains(t.hosts, host) {
			t.hosts = append(t.hosts, host)
		}
	}
	return t, len(t.hosts) > 0
}

func (t *targets) secure() bool { return t.scheme == "https" || t.scheme == "wss" }

// exported calls each for the routes that can be exported, in the order of their ids.
func (t *Table) exported(n *notes, each func(r *gateway.RouteView, to targets, p gateway.Policy)) {
	routes := slices.SortedFunc(slices.Values(t.Routes), func(a, b *gateway.RouteView) int { return strings.Compare(a.ID, b.ID) })
	for _, r := range routes {
		if r.Kind == gateway.KindPlatform {
			n.add(r.ID, "a route of the platform's own: it stays with the platform")
			continue
		}
		if r.Refused != "" {
			n.add(r.ID, "its latest definition, which the gateway does not use either")
		}
		to, ok := targetsOf(r, n)
		if !ok {
			n.add(r.ID, "the route: there is nothing it leads to at present")
			continue
		}
		each(r, to, t.policy(r))
	}
}

// unsupported notes the features that neither gateway has a counterpart for.
func unsupported(r *gateway.RouteView, p *gateway.Policy, n *notes) {
	if p.ExternalAuth != nil {
		n.add(r.ID, "external authorisation at %s, whose questions have a form of their own", p.ExternalAuth.URL)
	}
	if p.SpikeArrest != nil {
		n.add(r.ID, "spike arrest, which smoothes the calls of each consumer")
	}
	if p.Concurrent > 0 {
		n.add(r.ID, "at most %d calls of one consumer at a time", p.Concurrent)
	}
	if len(p.Claims) > 0 {
		n.add(r.ID, "claims of the token that are passed on")
	}
	if p.Upstream.ClientCertificate != "" {
		n.add(r.ID, "the client certificate %s, which the gateway's configuration names", p.Upstream.ClientCertificate)
	}
	if p.Upstream.Proxy != "" && p.Upstream.Proxy != "none" {
		n.add(r.ID, "the HTTP proxy to the target")
	}
	if p.Upstream.SlowStart.Or(0) > 0 {
		n.add(r.ID, "the slow start of new targets")
	}
	if len(p.ExcludeFilters) > 0 {
		n.add(r.ID, "the filters it is excluded from: filters of the gateway are not exported")
	}
	if t := p.Timeouts; t.Total.Or(0) > 0 && t.Idle != "" {
		n.add(r.ID, "the longest silence of bodies beside the bound on the whole call")
	}
}

// removed returns the header fields that are not forwarded: those that the policy removes, Authorization unless the policy keeps it, and
// the fields that identify the caller, which targets would believe if a client sent them.
func removed(p *gateway.Policy) []string {
	list := slices.Clone(p.Headers.Remove)
	add := func(name string) {
		if !slices.ContainsFunc(list, func(other string) bool { return strings.EqualFold(other, name) }) {
			list = append(list, name)
		}
	}
	if !p.KeepAuthorization {
		add("Authorization")
	}
	add("X-AppInstanceID")
	add("X-Consumer-Scopes")
	return list
}

func millis(d gateway.Duration, otherwise time.Duration) int64 { return d.Or(otherwise).Milliseconds() }
