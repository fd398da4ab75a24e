// Package dnsagent is the MEC platform's DNS server. It answers from the DNS rules of apps and the records of the management
// API, and forwards all other queries.
package dnsagent

import (
	"errors"
	"fmt"
	"math"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/openmep/mep/dnsagent/follow"
	"github.com/openmep/mep/dnsagent/forward"
	"github.com/openmep/mep/dnsagent/protect"
	"github.com/openmep/mep/dnsagent/table"
	"github.com/openmep/mep/dnsagent/wire"
	"github.com/openmep/mep/kit/daemon"
)

// Config holds the settings of the DNS server.
type Config struct {
	Listen           string `name:"dns.listen" default:":53" dev:"127.0.0.1:8053" usage:"address of the DNS server, UDP and TCP; off: there is none"`
	TLSListen        string `name:"dns.tlsListen" usage:"address of DNS over TLS, such as :853 (default: none)"`
	ManagementListen string `name:"dns.managementListen" default:"127.0.0.1:8081" usage:"address of the management of DNS records"`

	PublicURL string `name:"dns.publicUrl" usage:"URL at which managers reach the management of DNS records (default: that of the listener)"`

	Zones       []string      `name:"dns.zones" reload:"true" usage:"zones the platform owns: names in them that have no record do not exist; reverse zones such as 2.0.192.in-addr.arpa get PTR records"`
	ServiceZone string        `name:"dns.serviceZone" reload:"true" usage:"zone in which registered services are found by their names, such as svc.mec.example (default: none)"`
	Nameservers []string      `name:"dns.nameservers" reload:"true" usage:"name servers of the zones, as name or name=address (default: ns in each zone)"`
	Hostmaster  string        `name:"dns.hostmaster" reload:"true" usage:"mailbox of those who run the zones, as a domain name (default: hostmaster in each zone)"`
	TTL         time.Duration `name:"dns.ttl" default:"30s" reload:"true" usage:"TTL of rules that have none, and of services and name servers"`
	NegativeTTL time.Duration `name:"dns.negativeTtl" default:"10s" reload:"true" usage:"how long resolvers may remember that there is no such name or record"`
	Rotate      bool          `name:"dns.rotate" default:"false" reload:"true" usage:"let the records of one name and type take turns in being the first"`
	UDPSize     int           `name:"dns.udpSize" default:"1232" reload:"true" usage:"largest answer over UDP in octets, 512 to 4096"`
	Views       []View        `name:"dns.views" reload:"true" usage:"rules and records that only clients of some networks see"`
	MaxRecords  int           `name:"dns.maxRecords" default:"100000" reload:"true" usage:"names and types the management may hold records for"`

	Forward        []string      `name:"dns.forward" reload:"true" usage:"where questions go that are not for the platform: addresses, tls://address#name, or the path of a resolv.conf (default: nowhere, they are refused)"`
	ForwardZones   []ForwardZone `name:"dns.forwardZones" reload:"true" usage:"zones with forwarders of their own, or none"`
	ForwardTimeout time.Duration `name:"dns.forwardTimeout" default:"4s" reload:"true" usage:"how long all forwarders together may take to answer, 500ms to 30s"`
	ForwardPending int           `name:"dns.forwardPending" default:"4096" usage:"questions that wait for forwarders at most"`
	RandomCase     bool          `name:"dns.randomCase" default:"true" reload:"true" usage:"ask forwarders in random upper and lower case, which makes answers hard to forge"`
	CacheBytes     int           `name:"dns.cache.bytes" default:"33554432" reload:"true" usage:"memory for answers of forwarders in bytes; 0: none are kept"`
	CacheMaxTTL    time.Duration `name:"dns.cache.maxTtl" default:"24h" reload:"true" usage:"how long they are kept at most"`
	CacheStale     time.Duration `name:"dns.cache.stale" default:"24h" reload:"true" usage:"how long after that they may be used while no forwarder answers (RFC 8767); 0s: not at all"`

	AllowQuery     []string `name:"dns.allowQuery" default:"0.0.0.0/0,::/0" reload:"true" usage:"networks whose clients may ask; an empty list: none, 0.0.0.0/0 and ::/0: all"`
	AllowRecursion []string `name:"dns.allowRecursion" default:"127.0.0.0/8,::1/128,10.0.0.0/8,172.16.0.0/12,192.168.0.0/16,100.64.0.0/10,169.254.0.0/16,fc00::/7,fe80::/10" reload:"true" usage:"networks whose questions are forwarded; an empty list: none, 0.0.0.0/0 and ::/0: all"`
	RateLimit      int      `name:"dns.rate.responses" default:"100" reload:"true" usage:"equal responses over UDP a second to a network of clients (a /24 or /56) outside dns.rate.exempt; 0: no limit"`
	RateSlip       int      `name:"dns.rate.slip" default:"2" reload:"true" usage:"of responses over the limit, every how manyth is sent truncated, so that a client can come back over TCP; 0: none"`
	RateExempt     []string `name:"dns.rate.exempt" default:"dns.allowRecursion" reload:"true" usage:"networks that are not limited, dns.allowRecursion for those of that setting; an empty list: none"`
	Cookies        bool     `name:"dns.cookies" default:"true" usage:"give clients DNS cookies (RFC 7873), which exempt from the limit"`
	CookieSecret   string   `name:"dns.cookieSecretFile" usage:"file with the secret of the cookies, 32 hexadecimal digits, the same for all replicas (default: a random one)"`

	Sockets     int           `name:"dns.sockets" default:"0" usage:"UDP sockets; 0: as many as the CPUs call for"`
	Connections int           `name:"dns.connections" default:"1024" usage:"connections over TCP and TLS at most"`
	Idle        time.Duration `name:"dns.idle" default:"10s" usage:"how long a connection may be idle"`
	LameDuck    time.Duration `name:"dns.lameDuck" default:"1s" dev:"0s" reload:"true" usage:"how long questions are still answered when the process stops, so that others can take over; at most as long as drain"`
}

// View is the configuration of a view.
type View struct {
	// Name is 1 to 63 of the characters a-z 0-9 . _ -.
	Name string `json:"name"`
	// Clients are the networks whose clients are in the view. The smallest network of all views that matches applies.
	Clients []string `json:"clients"`
	// Apps are app instances, and Names domain names with all names below them, whose rules only this view sees.
	Apps  []string `json:"apps,omitempty"`
	Names []string `json:"names,omitempty"`
}

// ForwardZone is a zone with forwarders of its own.
type ForwardZone struct {
	// Zone is the name of the zone.
	Zone string `json:"zone"`
	// Forward lists its forwarders, in the form of dns.forward. If empty, the zone is not forwarded.
	Forward []string `json:"forward,omitempty"`
}

// Off is the value of dns.listen that disables the DNS server.
const Off = "off"

// Enabled reports whether the DNS server is enabled.
func (c *Config) Enabled() bool { return c.Listen != Off }

// Validate checks the settings.
func (c *Config) Validate(common *daemon.Config) error {
	if !c.Enabled() {
		return nil
	}
	var faults []error
	bad := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	for name, addr := range map[string]string{
		"dns.listen": c.Listen, "dns.tlsListen": c.TLSListen, "dns.managementListen": c.ManagementListen,
	} {
		if addr == "" && name == "dns.tlsListen" {
			continue
		}
		if _, err := common.Listen(name, addr); err != nil {
			faults = append(faults, err)
		}
	}
	if u, err := url.Parse(c.PublicURL); c.PublicURL != "" && (err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http") {
		bad("dns.publicUrl: %q is not an absolute http or https URL", c.PublicURL)
	}
	if c.TLSListen != "" && common.Dev {
		bad("dns.tlsListen needs certificates, which --dev has none of")
	}
	for _, b := range []struct {
		name          string
		d, least, max time.Duration
	}{
		{"dns.ttl", c.TTL, 0, math.MaxInt32 * time.Second},
		{"dns.negativeTtl", c.NegativeTTL, 0, 3 * time.Hour},
		{"dns.forwardTimeout", c.ForwardTimeout, 500 * time.Millisecond, 30 * time.Second},
		{"dns.cache.maxTtl", c.CacheMaxTTL, time.Second, 7 * 24 * time.Hour},
		{"dns.cache.stale", c.CacheStale, 0, 7 * 24 * time.Hour},
		{"dns.idle", c.Idle, time.Second, 10 * time.Minute},
		{"dns.lameDuck", c.LameDuck, 0, 3 * time.Second},
	} {
		if b.d < b.least || b.d > b.max {
			bad("%s must be %s to %s, not %s", b.name, b.least, b.max, b.d)
		}
	}
	for _, b := range []struct {
		name          string
		n, least, max int
	}{
		{"dns.udpSize", c.UDPSize, 512, 4096},
		{"dns.maxRecords", c.MaxRecords, 0, 10_000_000},
		{"dns.forwardPending", c.ForwardPending, 1, 1_000_000},
		{"dns.cache.bytes", c.CacheBytes, 0, math.MaxInt32},
		{"dns.rate.responses", c.RateLimit, 0, 1_000_000},
		{"dns.rate.slip", c.RateSlip, 0, 100},
		{"dns.sockets", c.Sockets, 0, 256},
		{"dns.connections", c.Connections, 1, 1_000_000},
	} {
		if b.n < b.least || b.n > b.max {
			bad("%s must be %d to %d, not %d", b.name, b.least, b.max, b.n)
		}
	}
	if c.CookieSecret != "" {
		if _, _, err := protect.LoadSecret(c.CookieSecret); err != nil {
			bad("dns.cookieSecretFile: %w", err)
		}
	}
	rc, err := c.records()
	fc, ferr := c.forwarding()
	if faults = append(faults, err, ferr); err == nil && ferr == nil {
		faults = append(faults, c.apart(rc, &fc), c.others(common, &fc))
	}
	_, err = c.clients()
	return errors.Join(append(faults, err)...)
}

// records returns the configuration of the table.
func (c *Config) records() (*follow.Config, error) {
	cfg := &follow.Config{
		Table: table.Config{NegativeTTL: uint32(c.NegativeTTL.Seconds()), NameserverTTL: uint32(c.TTL.Seconds())},
		TTL:   uint32(c.TTL.Seconds()),
	}
	var faults []error
	name := func(setting, s string) wire.Name {
		n, err := wire.ParseName(s)
		if err != nil {
			faults = append(faults, fmt.Errorf("%s: %w", setting, err))
		}
		return n
	}
	if c.Hostmaster != "" {
		cfg.Table.Hostmaster = name("dns.hostmaster", c.Hostmaster)
	}
	zones := c.Zones
	if c.ServiceZone != "" {
		cfg.ServiceZone = name("dns.serviceZone", c.ServiceZone)
		zones = append(slices.Clone(zones), c.ServiceZone)
	}
	var nameservers []wire.Name
	for _, s := range c.Nameservers {
		host, addr, given := strings.Cut(s, "=")
		ns := name("dns.nameservers", host)
		if !slices.Contains(nameservers, ns) {
			nameservers = append(nameservers, ns)
		}
		if !given {
			continue
		}
		a, err := netip.ParseAddr(addr)
		if err != nil {
			faults = append(faults, fmt.Errorf("dns.nameservers: %q is not name=address", s))
			continue
		}
		cfg.Static = append(cfg.Static, follow.Address(ns, a.Unmap(), cfg.TTL, "dns.nameservers"))
	}
	for _, z := range zones {
		zone := table.ZoneConfig{Name: name("dns.zones", z), Nameservers: nameservers}
		if len(zone.Name) > maxZone {
			faults = append(faults, fmt.Errorf("dns.zones: %q is too long for a zone: at most %d octets", z, maxZone))
		}
		if zone.Name == "" || slices.ContainsFunc(cfg.Table.Zones, func(other table.ZoneConfig) bool { return other.Name == zone.Name }) {
			continue
		}
		if len(nameservers) == 0 {
			ns, _ := zone.Name.Child("ns")
			zone.Nameservers = []wire.Name{ns}
		}
		cfg.Table.Zones = append(cfg.Table.Zones, zone)
	}
	for _, v := range c.Views {
		view := follow.View{Name: v.Name, Apps: v.Apps}
		for _, n := range v.Names {
			view.Names = append(view.Names, name("dns.views: names", strings.TrimPrefix(n, "*.")))
		}
		cfg.Views = append(cfg.Views, view)
	}
	var err error
	if cfg.Clients, err = c.views(); err != nil {
		faults = append(faults, err)
	}
	return cfg, errors.Join(faults...)
}

// apart returns an error if zones conflict with each other.
func (c *Config) apart(rc *follow.Config, fc *forward.Config) error {
	var faults []error
	for _, z := range rc.Table.Zones {
		if rc.ServiceZone != "" && z.Name.Within(rc.ServiceZone) && (z.Name != rc.ServiceZone || c.owns(z.Name)) {
			faults = append(faults, fmt.Errorf("dns.serviceZone: %q must be a zone of its own, with none of dns.zones in it: apps choose the names there", c.ServiceZone))
		}
	}
	for _, f := range fc.Zones {
		for _, z := range rc.Table.Zones {
			if f.Name.Within(z.Name) {
				faults = append(faults, fmt.Errorf("dns.forwardZones: %q lies in the platform's own zone %q and would never be forwarded", f.Name, z.Name))
			}
		}
	}
	return errors.Join(faults...)
}

// owns reports whether zone is one of dns.zones.
func (c *Config) owns(zone wire.Name) bool {
	return slices.ContainsFunc(c.Zones, func(s string) bool {
		name, err := wire.ParseName(s)
		return err == nil && name == zone
	})
}

// maxZone is the maximum length of a zone's name in octets. It leaves room for names within the zone.
const maxZone = 200

var viewName = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,62}$`)

// views returns which clients are in which view.
func (c *Config) views() (*protect.Map[table.View], error) {
	if len(c.Views) == 0 {
		return nil, nil //nolint:nilnil // a nil map: no views
	}
	var faults []error
	bad := func(format string, args ...any) { faults = append(faults, fmt.Errorf("dns.views: "+format, args...)) }
	if len(c.Views) > table.MaxViews {
		bad("there are more than %d", table.MaxViews)
	}
	var entries []protect.Entry[table.View]
	for i, v := range c.Views {
		switch {
		case !viewName.MatchString(v.Name):
			bad("the name %q is not 1 to 63 of the characters a-z 0-9 . _ -, the first a letter or digit", v.Name)
		case slices.ContainsFunc(c.Views[:i], func(o View) bool { return o.Name == v.Name }):
			bad("%q is there twice", v.Name)
		case len(v.Clients) == 0:
			bad("%q has no clients", v.Name)
		}
		for _, app := range v.Apps {
			if uuid.Validate(app) != nil {
				bad("%q: %q is not the UUID of an app instance", v.Name, app)
			}
		}
		for _, s := range v.Clients {
			p, err := network(s)
			if err != nil {
				bad("%q: %w", v.Name, err)
				continue
			}
			entries = append(entries, protect.Entry[table.View]{Prefix: p, Value: table.View(i + 1)})
		}
	}
	if len(faults) > 0 {
		return nil, errors.Join(faults...)
	}
	m, err := protect.NewMap(entries)
	if err != nil {
		return nil, fmt.Errorf("dns.views: %w", err)
	}
	return m, nil
}

// forwarding returns the forwarder's configuration.
func (c *Config) forwarding() (forward.Config, error) {
	cfg := forward.Config{
		Timeout: c.ForwardTimeout, Pending: c.ForwardPending, RandomCase: c.RandomCase, UDPSize: c.UDPSize,
		CacheBytes: int64(c.CacheBytes), MaxTTL: c.CacheMaxTTL, MaxNegativeTTL: min(c.CacheMaxTTL, time.Hour), Stale: c.CacheStale,
	}
	var faults []error
	add := func(setting string, name wire.Name, list []string) {
		upstreams, err := forward.ParseUpstreams(list)
		if err != nil {
			faults = append(faults, fmt.Errorf("%s: %w", setting, err))
		}
		cfg.Zones = append(cfg.Zones, forward.Zone{Name: name, Upstreams: upstreams})
	}
	if len(c.Forward) > 0 {
		add("dns.forward", wire.Root, c.Forward)
	}
	for _, z := range c.ForwardZones {
		name, err := wire.ParseName(z.Zone)
		if err != nil {
			faults = append(faults, fmt.Errorf("dns.forwardZones: %w", err))
			continue
		}
		if slices.ContainsFunc(cfg.Zones, func(o forward.Zone) bool { return o.Name == name }) {
			faults = append(faults, fmt.Errorf("dns.forwardZones: %q is there twice, or is what dns.forward is for", z.Zone))
			continue
		}
		add("dns.forwardZones: "+z.Zone, name, z.Forward)
	}
	return cfg, errors.Join(faults...)
}
