package export

import (
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/openmep/mep/api/gateway"
)

// virtualHost holds the routes of one host. Envoy uses the first that matches.
type virtualHost struct {
	routes []envoyRoute
	// whole is the route of the service that the host is a name of. It gets the requests that no route for the host matches.
	whole tree
}

// envoyRoute is a route with its sort criteria.
type envoyRoute struct {
	id       string
	priority int
	pattern  gateway.Pattern
	specific int // number of conditions in addition to the path
	route    tree
}

// before compares routes: by priority, then segment by segment with literals first, then by the number of conditions, then by id.
func before(a, b envoyRoute) int {
	if a.priority != b.priority {
		return b.priority - a.priority
	}
	x, y := a.pattern.Literals, b.pattern.Literals
	for i := range min(len(x), len(y)) {
		if (x[i] == "") != (y[i] == "") {
			if x[i] == "" {
				return 1
			}
			return -1
		}
	}
	switch {
	case len(x) != len(y):
		return len(y) - len(x)
	case a.pattern.Rest != b.pattern.Rest:
		if a.pattern.Rest {
			return 1
		}
		return -1
	case a.specific != b.specific:
		return b.specific - a.specific
	}
	return strings.Compare(a.id, b.id)
}

// virtualHosts returns the virtual hosts: one for each named host, and one for all others. Envoy searches a single virtual host for a
// request, so each one also has the routes for wider names and for any host.
func (e *envoy) virtualHosts() []any {
	list := []any{}
	for _, host := range slices.Sorted(maps.Keys(e.hosts)) {
		routes := []any{}
		for _, h := range e.wider(host) {
			own := slices.Clone(e.hosts[h].routes)
			slices.SortStableFunc(own, before)
			for _, r := range own {
				routes = append(routes, r.route)
			}
		}
		if whole := e.hosts[host].whole; whole != nil {
			routes = append(routes, whole)
		}
		name := "any"
		if host != "*" {
			name = "host." + strings.TrimPrefix(host, "*.")
		}
		list = append(list, tree{"name": e.names.of(name), "domains": []string{host}, "routes": routes})
	}
	return list
}

// wider returns the host and the wildcards whose routes its requests may match, longest first, and "*" at the end. "*" is omitted for the
// name of a service: the service has all paths.
func (e *envoy) wider(host string) []string {
	hosts := []string{host}
	for rest, more := strings.TrimPrefix(host, "*."), true; more; {
		_, rest, more = strings.Cut(rest, ".")
		if e.hosts["*."+rest] != nil {
			hosts = append(hosts, "*."+rest)
		}
	}
	if host != "*" && e.hosts[host].whole == nil && e.hosts["*"] != nil {
		hosts = append(hosts, "*")
	}
	return hosts
}

// routes adds the ways of a route that can be exported, and returns their number.
func (e *envoy) routes(r *gateway.RouteView, name string, to targets, p *gateway.Policy) int {
	n := 0
	for _, w := range waysOf(r, &e.notes) {
		const most = 9
		if stars := w.pattern.Stars(); !w.same && !w.stripped && stars >= most {
			e.notes.add(r.ID, "the path %s, which has more than a rewrite here can name", &w.pattern)
			continue
		}
		n++
		route := tree{"match": e.match(r, &w.pattern), "route": e.action(r, name, to, p, &w)}
		e.fields(p, route)
		if config := e.perRoute(r, p); len(config) > 0 {
			route["typed_per_filter_config"] = config
		}
		one := envoyRoute{id: r.ID, pattern: w.pattern, specific: len(r.Methods) + len(r.Headers), route: route}
		if r.Definition != nil {
			one.priority = r.Definition.Priority
		}
		hosts := w.hosts
		if len(hosts) == 0 {
			hosts = []string{"*"}
		}
		for _, host := range hosts {
			if e.hosts[host] == nil {
				e.hosts[host] = &virtualHost{}
			}
			if w.byName {
				e.hosts[host].whole = route
				continue
			}
			e.hosts[host].routes = append(e.hosts[host].routes, one)
		}
	}
	return n
}

func (e *envoy) match(r *gateway.RouteView, p *gateway.Pattern) tree {
	var m tree
	switch path, ok := literal(p); {
	case ok && p.Rest && path == "":
		m = tree{"prefix": "/"}
	case ok && p.Rest:
		m = tree{"path_separated_prefix": path}
	default:
		m = tree{"safe_regex": tree{"regex": expression(p, envoyGroup)}}
	}
	var conditions []any
	if len(r.Methods) > 0 {
		conditions = append(conditions, tree{"name": ":method", "string_match": tree{"safe_regex": tree{"regex": strings.Join(r.Methods, "|")}}})
	}
	for _, name := range slices.Sorted(maps.Keys(r.Headers)) {
		if value := r.Headers[name]; value == "*" {
			conditions = append(conditions, tree{"name": name, "present_match": true})
		} else {
			conditions = append(conditions, tree{"name": name, "string_match": tree{"exact": value}})
		}
	}
	if conditions != nil {
		m["headers"] = conditions
	}
	return m
}

func envoyGroup(int) string { return "(" }

// action returns the target of calls, and how it is reached.
func (e *envoy) action(r *gateway.RouteView, cluster string, to targets, p *gateway.Policy, w *way) tree {
	a := tree{"cluster": cluster, "timeout": seconds(p.Timeouts.Total.Or(0)), "idle_timeout": seconds(p.Timeouts.Idle.Or(5 * time.Minute))}
	if p.Timeouts.Response != "" {
		e.notes.add(r.ID, "how long the header of a response may take")
	}
	if r.Definition == nil || !r.Definition.KeepHost {
		a["auto_host_rewrite"] = true
	}
	if n := retries(p); n > 0 {
		a["retry_policy"] = tree{"retry_on": "connect-failure,refused-stream", "num_retries": n}
	}
	switch {
	case w.same && to.path == "":
	case w.same:
		a["regex_rewrite"] = rewriting("^(/.*)$", substitution(to.path)+`\1`)
	case w.stripped:
		path, _ := literal(&w.pattern)
		anchored := gateway.Pattern{Literals: w.pattern.Literals}
		prefix := strings.TrimSuffix(expression(&anchored, envoyGroup), "/?")
		if path == "" {
			prefix = ""
		}
		a["regex_rewrite"] = rewriting("^"+prefix+"/?(.*)$", substitution(to.path)+`/\1`)
	default:
		stars := w.pattern.Stars()
		a["regex_rewrite"] = rewriting("^"+expression(&w.pattern, envoyGroup)+"$", passed(to.path, &w.rewrite, substitution, func(n int) string {
			if n == 0 {
				n = stars + 1 // the last group
			}
			return `\` + strconv.Itoa(n)
		}))
	}
	return a
}

func rewriting(expression, substitution string) tree {
	return tree{"pattern": tree{"regex": expression}, "substitution": substitution}
}

// substitution escapes text for use in the replacement of a match.
func substitution(text string) string { return strings.ReplaceAll(text, `\`, `\\`) }

// fields adds the changes to header fields.
func (e *envoy) fields(p *gateway.Policy, route tree) {
	h := &p.Headers
	for name, value := range map[string]any{
		"request_headers_to_add": set(h.Set), "request_headers_to_remove": removed(p),
		"response_headers_to_add": set(h.SetResponse), "response_headers_to_remove": h.RemoveResponse,
	} {
		switch v := value.(type) {
		case []any:
			if len(v) > 0 {
				route[name] = v
			}
		case []string:
			if len(v) > 0 {
				route[name] = v
			}
		}
	}
}

func set(fields map[string]string) []any {
	var list []any
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		// A percent sign would begin a variable.
		value := strings.ReplaceAll(fields[name], "%", "%%")
		list = append(list, tree{"header": tree{"key": name, "value": value}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"})
	}
	return list
}

// perRoute returns the configuration of filters for one route.
func (e *envoy) perRoute(r *gateway.RouteView, p *gateway.Policy) tree {
	config := tree{}
	if p.MaxBody > 0 {
		e.buffered = true
		e.notes.add(r.ID, "that request bodies are passed on while they come: with a bound they are read to their end first")
		config["envoy.filters.http.buffer"] = tree{"@type": envoyBuffer + "BufferPerRoute", "buffer": tree{"max_request_bytes": p.MaxBody}}
	}
	if rules := e.rules(r, p); rules != nil {
		e.ruled = true
		config["envoy.filters.http.rbac"] = tree{"@type": envoyRBAC + "RBACPerRoute", "rbac": tree{"rules": rules}}
	}
	return config
}

// rules exports rules only if they are a plain list of addresses: Envoy does not know the caller without an additional filter.
func (e *envoy) rules(r *gateway.RouteView, p *gateway.Policy) tree {
	if len(p.Rules) == 0 && p.Default != gateway.Deny {
		return nil
	}
	otherwise := gateway.Allow
	if p.Default == gateway.Deny {
		otherwise = gateway.Deny
	}
	none := tree{"action": "ALLOW", "policies": tree{}} // admits nobody
	var principals []any
	for i := range p.Rules {
		rule := &p.Rules[i]
		if rule.Effect == otherwise || len(rule.Sources) == 0 || len(rule.Scopes)+len(rule.Methods)+len(rule.Paths)+len(rule.Consumers) > 0 {
			e.notes.add(r.ID, "its rules, which are more than a list of addresses: all calls are refused until they are replaced")
			return none
		}
		for _, source := range rule.Sources {
			prefix, err := gateway.ParseSource(source)
			if err != nil {
				return none
			}
			principals = append(principals, tree{"remote_ip": tree{"address_prefix": prefix.Addr().String(), "prefix_len": prefix.Bits()}})
		}
	}
	if principals == nil {
		return none
	}
	action := "DENY"
	if otherwise == gateway.Deny {
		action = "ALLOW"
	}
	return tree{"action": action, "policies": tree{"sources": tree{"permissions": []any{tree{"any": true}}, "principals": principals}}}
}
