package export

import (
	"fmt"
	"strings"
	"time"

	"github.com/openmep/mep/api/gateway"
)

// The parts of Kong's declarative configuration that the export uses.
type (
	kongConfig struct {
		Version   string         `yaml:"_format_version"`
		Services  []kongService  `yaml:"services"`
		Upstreams []kongUpstream `yaml:"upstreams,omitempty"`
		Consumers []kongConsumer `yaml:"consumers,omitempty"`
	}
	kongService struct {
		Name           string       `yaml:"name"`
		Protocol       string       `yaml:"protocol"`
		Host           string       `yaml:"host"`
		Port           int          `yaml:"port"`
		Path           string       `yaml:"path,omitempty"`
		Retries        int          `yaml:"retries"`
		ConnectTimeout int64        `yaml:"connect_timeout"`
		ReadTimeout    int64        `yaml:"read_timeout"`
		WriteTimeout   int64        `yaml:"write_timeout"`
		Routes         []kongRoute  `yaml:"routes"`
		Plugins        []kongPlugin `yaml:"plugins,omitempty"`
	}
	kongRoute struct {
		Name          string              `yaml:"name"`
		Protocols     []string            `yaml:"protocols"`
		Hosts         []string            `yaml:"hosts,omitempty"`
		Paths         []string            `yaml:"paths"`
		Methods       []string            `yaml:"methods,omitempty"`
		Headers       map[string][]string `yaml:"headers,omitempty"`
		StripPath     bool                `yaml:"strip_path"`
		PreserveHost  bool                `yaml:"preserve_host"`
		RegexPriority int                 `yaml:"regex_priority,omitempty"`
		Plugins       []kongPlugin        `yaml:"plugins,omitempty"`
	}
	kongPlugin struct {
		Name   string         `yaml:"name"`
		Config map[string]any `yaml:"config,omitempty"`
	}
	kongUpstream struct {
		Name         string         `yaml:"name"`
		Algorithm    string         `yaml:"algorithm"`
		Targets      []kongTarget   `yaml:"targets"`
		HealthChecks map[string]any `yaml:"healthchecks,omitempty"`
	}
	kongTarget struct {
		Target string `yaml:"target"`
	}
	kongConsumer struct {
		Username string       `yaml:"username"`
		Plugins  []kongPlugin `yaml:"plugins,omitempty"`
	}
)

// Kong returns the routes as a declarative configuration for Kong Gateway 3 (format 3.0).
func Kong(t Table) ([]byte, error) {
	k := &kong{config: kongConfig{Version: "3.0", Services: []kongService{}}, names: names{}, consumers: make(map[string]bool)}
	t.exported(&k.notes, k.route)
	return document("Declarative configuration of Kong Gateway 3", []string{
		"Consumers, their keys and the keys of token issuers are not in it: the gateway keeps no API keys, only hashes of them. Add consumers",
		"with keyauth_credentials, jwt_secrets and, where a plugin acl is, the groups it names. X-AppInstanceID and X-Consumer-Scopes are taken",
		"out of requests and not set: services learn who calls from Kong's X-Consumer-Custom-ID and X-Credential-Identifier.",
	}, &k.notes, k.config)
}

type kong struct {
	config    kongConfig
	names     names
	notes     notes
	consumers map[string]bool
}

func (k *kong) route(r *gateway.RouteView, to targets, p gateway.Policy) {
	unsupported(r, &p, &k.notes)
	name := k.names.of(r.ID)
	s := kongService{
		Name: name, Protocol: to.scheme, Path: to.path, Retries: retries(&p), ConnectTimeout: millis(p.Timeouts.Connect, 5*time.Second),
		ReadTimeout: millis(p.Timeouts.Response, 60*time.Second), WriteTimeout: millis(p.Timeouts.Response, 60*time.Second),
	}
	switch to.scheme {
	case "h2c":
		s.Protocol = "http"
		k.notes.add(r.ID, "HTTP/2 without TLS to the target, except for routes of the protocol grpc")
	case "ws":
		s.Protocol = "http"
	case "wss":
		s.Protocol = "https"
	}
	k.timeouts(r, &p, &s)
	k.targets(r, to, &p, &s)
	s.Plugins = k.plugins(r, &p)
	if s.Routes = k.routes(r, name, to.path, &p); len(s.Routes) == 0 {
		k.notes.add(r.ID, "the route: it has no path that could be exported")
		return
	}
	k.config.Services = append(k.config.Services, s)
}

func retries(p *gateway.Policy) int {
	switch p.Upstream.Retries {
	case 0:
		return 2
	case -1:
		return 0
	}
	return p.Upstream.Retries
}

// timeouts replaces timeouts that Kong does not accept by the longest one: Kong cannot express an unbounded wait.
func (k *kong) timeouts(r *gateway.RouteView, p *gateway.Policy, s *kongService) {
	const longest = 1<<31 - 2
	for _, t := range []*int64{&s.ConnectTimeout, &s.ReadTimeout, &s.WriteTimeout} {
		if *t <= 0 || *t > longest {
			*t = longest
		}
	}
	if p.Timeouts.Total.Or(0) > 0 {
		k.notes.add(r.ID, "a bound on the whole call")
	} else if p.Timeouts.Idle != "" {
		k.notes.add(r.ID, "the longest silence of bodies: read_timeout and write_timeout bound it, too")
	}
}

func (k *kong) targets(r *gateway.RouteView, to targets, p *gateway.Policy, s *kongService) {
	if p.Upstream.CA != "" {
		k.notes.add(r.ID, "the CA of the target: add it to ca_certificates and name it in the service")
	}
	if p.Upstream.ServerName != "" {
		k.notes.add(r.ID, "the name %s that the certificate of the target must be for", p.Upstream.ServerName)
	}
	if len(to.hosts) == 1 && p.Upstream.HealthCheck == nil {
		s.Host, s.Port = split(to.hosts[0])
		return
	}
	s.Host, s.Port = s.Name+".upstream", 80
	up := kongUpstream{Name: s.Host, Algorithm: "least-connections"}
	for _, host := range to.hosts {
		up.Targets = append(up.Targets, kongTarget{host})
	}
	if h := p.Upstream.HealthCheck; h != nil {
		up.HealthChecks = map[string]any{"active": map[string]any{
			"type": s.Protocol, "http_path": to.path + h.Path, "timeout": h.Timeout.Or(time.Second).Seconds(),
			"healthy":   map[string]any{"interval": h.Interval.Or(5 * time.Second).Seconds(), "successes": max(1, h.Healthy)},
			"unhealthy": map[string]any{"interval": h.Interval.Or(5 * time.Second).Seconds(), "http_failures": orTwo(h.Unhealthy), "tcp_failures": orTwo(h.Unhealthy), "timeouts": orTwo(h.Unhealthy)},
		}}
	}
	k.config.Upstreams = append(k.config.Upstreams, up)
}

func orTwo(n int) int {
	if n == 0 {
		return 2
	}
	return n
}

// split splits host:port. targetsOf ensures that there is a port.
func split(host string) (name string, port int) {
	at := strings.LastIndexByte(host, ':')
	_, _ = fmt.Sscan(host[at+1:], &port)
	return strings.Trim(host[:at], "[]"), port
}

// routes returns one route for all paths that are forwarded alike, and one for each path that is rewritten.
func (k *kong) routes(r *gateway.RouteView, name, base string, p *gateway.Policy) []kongRoute {
	model := kongRoute{Protocols: []string{"http", "https"}, Methods: r.Methods}
	for field, value := range r.Headers {
		if model.Headers == nil {
			model.Headers = make(map[string][]string)
		}
		if value == "*" {
			value = "~*.+" // a regular expression
		}
		model.Headers[field] = []string{value}
	}
	if d := r.Definition; d != nil {
		model.PreserveHost, model.RegexPriority = d.KeepHost, max(0, d.Priority)
		if d.Priority < 0 {
			k.notes.add(r.ID, "its priority below that of others")
		}
	}
	var routes []kongRoute
	at := make(map[string]int) // index in routes, by what paths that are forwarded alike for the same hosts have in common
	for _, w := range waysOf(r, &k.notes) {
		model.Hosts = w.hosts
		if !w.same && !w.stripped {
			one := model
			one.Paths, one.Plugins = []string{"~" + expression(&w.pattern, kongGroup) + "$"}, []kongPlugin{{"request-transformer", transformation(p, kongURI(&w, base))}}
			routes = append(routes, one)
			continue
		}
		alike := fmt.Sprint(w.stripped, w.hosts)
		i, ok := at[alike]
		if !ok {
			i = len(routes)
			at[alike] = i
			one := model
			one.StripPath = w.stripped
			routes = append(routes, one)
		}
		routes[i].Paths = append(routes[i].Paths, kongPaths(&w.pattern)...)
	}
	for i := range routes {
		routes[i].Name = name
		if i > 0 {
			routes[i].Name = k.names.of(fmt.Sprintf("%s.%d", name, i+1))
		}
	}
	return routes
}

// kongPaths returns the paths for a pattern. In Kong, a path is a prefix unless it begins with "~", which makes it a regular expression.
func kongPaths(p *gateway.Pattern) []string {
	path, ok := literal(p)
	switch {
	case ok && p.Rest && path == "":
		return []string{"/"}
	case ok && p.Rest:
		return []string{path + "/", "~" + expression(&gateway.Pattern{Literals: p.Literals}, kongGroup) + "$"}
	}
	return []string{"~" + expression(p, kongGroup) + "$"}
}

func kongGroup(n int) string {
	if n == 0 {
		return "(?<rest>"
	}
	return fmt.Sprintf("(?<s%d>", n)
}

// kongURI returns the replacement for the path.
func kongURI(w *way, base string) string {
	return passed(base, &w.rewrite, func(s string) string { return s }, func(n int) string {
		if n == 0 {
			return "$(uri_captures['rest'] or '')"
		}
		return fmt.Sprintf("$(uri_captures['s%d'])", n)
	})
}
