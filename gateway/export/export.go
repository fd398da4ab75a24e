// Package export writes the routes of the gateway as configuration of other gateways: what they have a counterpart for, and a list of the
// rest at the head of the file.
package export

import (
	"bytes"
	"fmt"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/openmep/mep/api/gateway"
)

// Table is what is exported.
type Table struct {
	// Routes are the routes the gateway has.
	Routes []*gateway.RouteView
	// Policies are its policies.
	Policies []gateway.PolicyView
}

// policy is what holds for the calls of a route: its own policy, or that of its service over that of all services.
func (t *Table) policy(r *gateway.RouteView) gateway.Policy {
	if r.Definition != nil {
		return r.Definition.Policy
	}
	var p gateway.Policy
	for _, name := range []string{r.Policy, gateway.AnyService} {
		if r.Kind == gateway.KindPlatform && name == gateway.AnyService {
			break
		}
		for i := range t.Policies {
			if t.Policies[i].Name == name {
				fill(reflect.ValueOf(&p).Elem(), reflect.ValueOf(t.Policies[i].Policy))
			}
		}
	}
	return p
}

// fill sets the members that are absent.
func fill(to, from reflect.Value) {
	for i := range to.NumField() {
		switch member := to.Field(i); {
		case member.Kind() == reflect.Struct:
			fill(member, from.Field(i))
		case member.IsZero():
			member.Set(from.Field(i))
		}
	}
}

// notes are what has no counterpart, in the order in which it was met.
type notes struct{ list []string }

func (n *notes) add(route, format string, args ...any) {
	line := fmt.Sprintf("%s: %s", route, fmt.Sprintf(format, args...))
	if !slices.Contains(n.list, line) {
		n.list = append(n.list, line)
	}
}

// document writes a configuration below a comment.
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

// comment writes a line of which nothing can get out of the comment.
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

// names makes names of ids that differ, of letters, digits, "-", "_" and ".".
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

// targets are those of a route that other gateways can share load between: of one scheme and path.
type targets struct {
	scheme, path string
	hosts        []string // host:port
}

// targetsOf reads the targets of a route. ok is false when there are none.
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

// exported walks over the routes that can be exported, in the order of their ids.
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

// unsupported notes what neither gateway has a counterpart for.
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

// removed are the header fields that are not passed on: those of the policy, what proved who calls, and those by which the gateway says who
// calls. From a client they would be believed.
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

// millis is a time-out in milliseconds.
func millis(d gateway.Duration, otherwise time.Duration) int64 { return d.Or(otherwise).Milliseconds() }
