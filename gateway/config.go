package gateway

import (
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/openmep/mep/api/gateway"
	"github.com/openmep/mep/api/problem"
	"github.com/openmep/mep/gateway/front"
	"github.com/openmep/mep/gateway/match"
	"github.com/openmep/mep/gateway/record"
	"github.com/openmep/mep/gateway/rule"
	"github.com/openmep/mep/gateway/table"
	"github.com/openmep/mep/gateway/upstream"
	"github.com/openmep/mep/kit/daemon"
	"github.com/openmep/mep/kit/netguard"
)

// Config holds the settings of the gateway.
type Config struct {
	Listen           string `name:"gateway.listen" default:":8443" dev:"127.0.0.1:8000" usage:"address of the gateway; off: there is none"`
	ManagementListen string `name:"gateway.managementListen" default:"127.0.0.1:8444" usage:"address of the management of the gateway"`

	Routes         []gateway.Route           `name:"gateway.routes" reload:"true" usage:"static routes, beside those of the management (see the guide)"`
	Policies       map[string]gateway.Policy `name:"gateway.policies" reload:"true" usage:"policies by serName, beside those of the management; \"*\" is for services without one"`
	Filters        []FilterConfig            `name:"gateway.filters" reload:"true" usage:"filters that calls run through, in their order: name, config, and exclude with patterns of paths"`
	Certificates   []CertificateConfig       `name:"gateway.clientCertificates" reload:"true" usage:"client certificates that policies name: name, cert and key (PEM files)"`
	Mp1URLs        []string                  `name:"gateway.mp1Urls" reload:"true" usage:"where the daemon gateway finds Mp1 (mep: in the same process)"`
	AuthURLs       []string                  `name:"gateway.authUrls" reload:"true" usage:"where the daemon gateway finds mepauth (mep: in the same process)"`
	PlatformCA     string                    `name:"gateway.platformCa" reload:"true" usage:"PEM file of the CAs of their certificates (default: that of the data directory, and those of the system)"`
	AllowLoopback  bool                      `name:"gateway.allowLoopback" default:"false" dev:"true" reload:"true" usage:"whether services and routes may lead to loopback addresses"`
	AllowPrivate   bool                      `name:"gateway.allowPrivate" default:"true" reload:"true" usage:"whether services and routes may lead to private addresses"`
	DenyTargets    []string                  `name:"gateway.denyTargets" reload:"true" usage:"networks and addresses that services and routes may not lead to, as CIDR or address:port"`
	LocalNetworks  []string                  `name:"gateway.localNetworks" default:"127.0.0.0/8,::1/128" reload:"true" usage:"networks whose clients count as local to this MEC host, besides its app instances (consumedLocalOnly)"`
	ServiceDomain  string                    `name:"gateway.serviceDomain" reload:"true" usage:"domain below which services are reached by host name, such as mec.example: {serName}.mec.example, {serInstanceId}.instances.mec.example (default: none)"`
	KeyHeader      string                    `name:"gateway.apiKey.header" default:"x-api-key" reload:"true" usage:"header field of API keys; off: none"`
	KeyQuery       string                    `name:"gateway.apiKey.query" default:"x-api-key" reload:"true" usage:"query parameter of API keys; off: none"`
	HeaderFields   []string                  `name:"gateway.headers" default:"forwarded,x-forwarded,via,x-request-id" reload:"true" usage:"fields that are added to what is passed on"`
	TrustRequestID bool                      `name:"gateway.trustRequestId" default:"true" reload:"true" usage:"whether clients may name their requests with X-Request-Id"`
	Underscores    bool                      `name:"gateway.underscores" default:"false" reload:"true" usage:"whether header fields with \"_\" in their names are passed on; servers may take them for those with \"-\""`

	Connections           int           `name:"gateway.connections" default:"10000" reload:"true" usage:"connections from which on calls get 429"`
	ConnectionsHard       int           `name:"gateway.connectionsHard" default:"12000" reload:"true" usage:"connections from which on further ones are closed at once"`
	ConnectionsPerAddress int           `name:"gateway.connectionsPerAddress" default:"2500" reload:"true" usage:"connections from which on further ones of one client (an IPv4 address, or a /64 of IPv6) are closed at once; 0: any number. This machine and trusted proxies may have more"`
	Streams               int           `name:"gateway.streams" default:"250" reload:"true" usage:"calls of one HTTP/2 connection that are answered at a time"`
	MaxBody               int64         `name:"gateway.maxBody" default:"104857600" reload:"true" usage:"largest request body in bytes where the policy does not say; -1: any"`
	MaxHeader             int           `name:"gateway.maxHeader" default:"32768" reload:"true" usage:"largest request header in bytes"`
	MaxURI                int           `name:"gateway.maxUri" default:"8192" reload:"true" usage:"longest request target in bytes"`
	HeaderTimeout         time.Duration `name:"gateway.headerTimeout" default:"15s" reload:"true" usage:"how long the header of a request may take"`
	BodyIdle              time.Duration `name:"gateway.bodyIdle" default:"60s" reload:"true" usage:"how long a client may be silent in the middle of a body, or take nothing of an answer"`
	Idle                  time.Duration `name:"gateway.idle" default:"2m" reload:"true" usage:"how long a connection may be without a call"`

	UpstreamIdle        int      `name:"gateway.upstream.idle" default:"256" reload:"true" usage:"idle connections that are kept to one address"`
	UpstreamConnections int      `name:"gateway.upstream.connections" default:"0" reload:"true" usage:"connections to one address at most; 0: any number"`
	Proxy               string   `name:"gateway.proxy" reload:"true" usage:"URL of an HTTP proxy that calls go through (default: none)"`
	NoProxy             []string `name:"gateway.noProxy" reload:"true" usage:"hosts, domains and networks that are called without it"`
	ProxyEnvironment    bool     `name:"gateway.proxyFromEnvironment" default:"false" reload:"true" usage:"whether HTTP_PROXY, HTTPS_PROXY and NO_PROXY say the same where gateway.proxy is empty"`

	RecordsFile     string   `name:"gateway.records.file" reload:"true" usage:"file of the access records; off: none (default: access/access.jsonl in the data directory)"`
	RecordsMaxBytes int64    `name:"gateway.records.maxBytes" default:"67108864" reload:"true" usage:"size in bytes at which a new file begins; less than 0 leaves that to others"`
	RecordsKeep     int      `name:"gateway.records.keep" default:"5" reload:"true" usage:"old files that are kept"`
	RecordsStdout   bool     `name:"gateway.records.stdout" default:"false" reload:"true" usage:"whether access records go to the standard output"`
	MaskPaths       []string `name:"gateway.records.maskPaths" reload:"true" usage:"patterns of paths whose * are not written down"`
	MaskQuery       []string `name:"gateway.records.maskQuery" reload:"true" usage:"query parameters whose values are not written down, besides those that look like secrets"`
	Statistics      bool     `name:"gateway.statistics" default:"true" reload:"true" usage:"whether calls are counted for the statistics"`
	SeriesServices  int      `name:"gateway.metrics.services" default:"500" reload:"true" usage:"services with metrics of their own"`
	SeriesConsumers int      `name:"gateway.metrics.consumers" default:"500" reload:"true" usage:"consumers with metrics of their own"`
}

// FilterConfig configures one filter of the sequence.
type FilterConfig struct {
	// Name is the name of its definition.
	Name string `json:"name"`
	// Config is passed to the filter.
	Config json.RawMessage `json:"config,omitempty"`
	// Exclude are patterns of paths; the filter does not see requests for them.
	Exclude []string `json:"exclude,omitempty"`
}

// CertificateConfig is a client certificate that policies name.
type CertificateConfig struct {
	Name string `json:"name"`
	// Cert and Key are PEM files.
	Cert string `json:"cert"`
	Key  string `json:"key"`
}

const off = "off"

// Enabled reports whether there is a gateway.
func (c *Config) Enabled() bool { return c.Listen != off }

var headerFields = []string{"forwarded", "x-forwarded", "via", "x-request-id"}

var fieldName = regexp.MustCompile("^[A-Za-z0-9!#$%&'*+.^_`|~-]+$")

// Validate checks the settings.
func (c *Config) Validate(common *daemon.Config) error {
	var faults []error
	bad := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	domain, err := c.domain()
	if err != nil {
		faults = append(faults, err)
	}
	if !c.Enabled() {
		return errors.Join(faults...)
	}
	if _, below := domain.Below(c.Listen); below {
		bad("gateway.listen: its host is below gateway.serviceDomain (%s), where all names are those of services", domain)
	}
	for name, addr := range map[string]string{"gateway.listen": c.Listen, "gateway.managementListen": c.ManagementListen} {
		if _, err := common.Listen(name, addr); err != nil {
			faults = append(faults, err)
		}
	}
	for name, v := range map[string]int64{
		"gateway.connections": int64(c.Connections), "gateway.streams": int64(c.Streams),
		"gateway.maxHeader": int64(c.MaxHeader), "gateway.maxUri": int64(c.MaxURI), "gateway.upstream.idle": int64(c.UpstreamIdle),
		"gateway.headerTimeout": int64(c.HeaderTimeout), "gateway.bodyIdle": int64(c.BodyIdle), "gateway.idle": int64(c.Idle),
	} {
		if v < 1 {
			bad("%s must be more than 0", name)
		}
	}
	if c.ConnectionsHard < c.Connections {
		bad("gateway.connectionsHard must be at least gateway.connections (%d), not %d", c.Connections, c.ConnectionsHard)
	}
	if c.MaxBody < 1 && c.MaxBody != -1 {
		bad("gateway.maxBody must be at least 1, or -1 for any size")
	}
	for _, f := range c.HeaderFields {
		if !slices.Contains(headerFields, f) {
			bad("gateway.headers: %q is not one of %s", f, strings.Join(headerFields, ", "))
		}
	}
	if h := c.KeyHeader; h != "" && h != off && !fieldName.MatchString(h) {
		bad("gateway.apiKey.header: %q is not the name of a header field", h)
	}
	seen := make(map[string]bool)
	for i := range c.Routes {
		if id := c.Routes[i].ID; id == "" || seen[id] {
			bad("gateway.routes[%d].id: every route needs an id of its own, not %q", i, id)
		} else {
			seen[id] = true
		}
	}
	for _, list := range []struct {
		name string
		urls []string
	}{{"gateway.mp1Urls", c.Mp1URLs}, {"gateway.authUrls", c.AuthURLs}} {
		for _, s := range list.urls {
			if u, err := url.Parse(s); err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
				bad("%s: %q is not an absolute http or https URL", list.name, s)
			}
		}
	}
	for _, err := range []error{c.proxied().Check(), c.records(common).Check()} {
		if err != nil {
			bad("gateway: %w", err)
		}
	}
	_, err = c.judged()
	_, gerr := c.denied()
	return errors.Join(append(faults, err, gerr)...)
}

// domain returns the domain of services.
func (c *Config) domain() (match.Domain, error) {
	if c.ServiceDomain == "" {
		return "", nil
	}
	domain, err := gateway.CanonicalDomain(c.ServiceDomain)
	if err != nil {
		return "", fmt.Errorf("gateway.serviceDomain %w", err)
	}
	return match.Domain(domain), nil
}

// Unspecific reports whether the address of the listener does not say how others reach it.
func (c *Config) Unspecific() bool {
	host, _, err := net.SplitHostPort(c.Listen)
	if err != nil || host == "" {
		return true
	}
	a, err := netip.ParseAddr(host)
	return err == nil && (a.IsUnspecified() || a.IsLoopback())
}

// Advise returns faults of routes and policies, of which a running gateway refuses only the faulty ones, keeping their previous versions,
// and faults of files, which a process that only queries the gateway need not be able to read.
func (c *Config) Advise() error {
	var list []error
	if _, err := c.upstreams(nil); err != nil {
		list = append(list, err)
	}
	for i := range c.Routes {
		if err := c.advise("policy.", c.Routes[i].Check, &c.Routes[i].Policy); err != nil {
			list = append(list, fmt.Errorf("gateway.routes: the route %s: %w", c.Routes[i].ID, err))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(c.Policies)) {
		p := c.Policies[name]
		check := func(faults *problem.InvalidParams) { p.CheckFor(name, faults) }
		if err := c.advise("", check, &p); err != nil {
			list = append(list, fmt.Errorf("gateway.policies: the policy %s: %w", name, err))
		}
	}
	return errors.Join(list...)
}

// advise checks a definition that has a policy, and whether what the policy names exists.
func (c *Config) advise(prefix string, check func(*problem.InvalidParams), p *gateway.Policy) error {
	var faults problem.InvalidParams
	check(&faults)
	name := p.Upstream.ClientCertificate
	if name != "" && !slices.ContainsFunc(c.Certificates, func(cert CertificateConfig) bool { return cert.Name == name }) {
		faults.Add(prefix+"upstream.clientCertificate", fmt.Sprintf("%q is none of gateway.clientCertificates", name))
	}
	return faults.Err()
}

// Addresses returns the addresses that listeners will bind, as configured.
func (c *Config) Addresses() []string {
	if !c.Enabled() {
		return nil
	}
	return []string{c.Listen, c.ManagementListen}
}

// judged returns the local networks.
func (c *Config) judged() ([]netip.Prefix, error) {
	nets, err := rule.Networks(c.LocalNetworks)
	if err != nil {
		return nil, fmt.Errorf("gateway.localNetworks: %w", err)
	}
	return nets, nil
}

// deny is what services and routes may not lead to, besides the platform itself.
type deny struct {
	nets  []netip.Prefix
	ports []netip.AddrPort
}

func (c *Config) denied() (*deny, error) {
	d := &deny{}
	for _, s := range c.DenyTargets {
		if ap, err := netip.ParseAddrPort(s); err == nil {
			d.ports = append(d.ports, ap)
			continue
		}
		nets, err := rule.Networks([]string{s})
		if err != nil {
			return nil, fmt.Errorf("gateway.denyTargets: %w, or with a port as 10.0.0.1:80", err)
		}
		d.nets = append(d.nets, nets...)
	}
	return d, nil
}

// plan returns what happens to header fields unless a policy says otherwise.
func (c *Config) plan() table.Plan {
	return table.Plan{
		Forwarded: slices.Contains(c.HeaderFields, "forwarded"), XForwarded: slices.Contains(c.HeaderFields, "x-forwarded"),
		Via: slices.Contains(c.HeaderFields, "via"), RequestID: slices.Contains(c.HeaderFields, "x-request-id"),
	}
}

func (c *Config) records(common *daemon.Config) record.Config {
	file := c.RecordsFile
	switch file {
	case "":
		file = filepath.Join(common.DataDir, "access", "access.jsonl")
	case off:
		file = ""
	}
	return record.Config{
		File: file, MaxBytes: c.RecordsMaxBytes, Keep: c.RecordsKeep, Stdout: c.RecordsStdout, MaskPaths: c.MaskPaths,
		MaskQuery: append(slices.Clone(c.MaskQuery), named(c.KeyQuery)...),
	}
}

// named returns a list of the name; nil when there is none or it is off.
func named(s string) []string {
	if s == "" || s == off {
		return nil
	}
	return []string{s}
}

func keyName(s string) string {
	if s == off {
		return ""
	}
	return s
}

// proxied returns how targets are reached, without client certificates.
func (c *Config) proxied() upstream.Config {
	return upstream.Config{
		MaxIdlePerHost: c.UpstreamIdle, MaxPerHost: c.UpstreamConnections,
		Proxy: c.Proxy, NoProxy: c.NoProxy, ProxyFromEnvironment: c.ProxyEnvironment,
	}
}

// upstreams returns how targets are reached. guard is asked for every connection.
func (c *Config) upstreams(guard func() *netguard.Policy) (upstream.Config, error) {
	u := c.proxied()
	u.Guard, u.ClientCertificates = guard, make(map[string]tls.Certificate, len(c.Certificates))
	for i, cert := range c.Certificates {
		if cert.Name == "" {
			return u, fmt.Errorf("gateway.clientCertificates[%d].name is required", i)
		}
		pair, err := tls.LoadX509KeyPair(cert.Cert, cert.Key)
		if err != nil {
			return u, fmt.Errorf("gateway.clientCertificates[%d]: %w", i, err)
		}
		u.ClientCertificates[cert.Name] = pair
	}
	return u, nil
}

// bounds returns the bounds of client connections.
func (c *Config) bounds() front.Bounds {
	return front.Bounds{HeaderTimeout: c.HeaderTimeout, Idle: c.Idle, Header: c.MaxHeader, Streams: c.Streams}
}

// canonical returns the canonical form of a header field name; "" when it is off.
func canonical(name string) string { return http.CanonicalHeaderKey(keyName(name)) }
