package mepserver

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/openmep/mep/api/auth"
	"github.com/openmep/mep/api/mp1"
	"github.com/openmep/mep/api/problem"
	"github.com/openmep/mep/kit/daemon"
	"github.com/openmep/mep/mepserver/lifecycle"
	"github.com/openmep/mep/mepserver/reconcile"
	"github.com/openmep/mep/mepserver/timing"
)

// Mm5Config holds the settings of Mm5 and of the functions behind it.
type Mm5Config struct {
	Listen    string `name:"mm5.listen" default:":8089" usage:"address of Mm5"`
	PublicURL string `name:"mm5.publicUrl" usage:"base of the URLs in answers over Mm5 (default: that of the request)"`

	OperationTimeout   time.Duration `name:"mm5.operationTimeout" default:"1m" reload:"true" usage:"how long an operation waits for those that apply rules before it fails; they go on trying"`
	OperationRetention time.Duration `name:"mm5.operationRetention" default:"24h" reload:"true" usage:"how long operations that have ended are kept"`
	Features           []string      `name:"mm5.features" reload:"true" usage:"features an app may require; none: they are not checked"`

	MaxTrafficRules   int `name:"limits.trafficRules" default:"64" reload:"true" usage:"traffic rules an application instance may have, at most 1000"`
	MaxDNSRules       int `name:"limits.dnsRules" default:"128" reload:"true" usage:"DNS rules an application instance may have, at most 1000"`
	MaxTrafficFilters int `name:"limits.trafficFilters" default:"16" reload:"true" usage:"filters a traffic rule may have, at most 1000"`
	MaxOperations     int `name:"limits.operations" default:"10000" reload:"true" usage:"operations that are kept; the oldest that have ended give way"`

	GracefulTimeout time.Duration `name:"lifecycle.gracefulTimeout" default:"1m" reload:"true" usage:"how long an app may take to stop where the MEPM does not say, whole seconds"`
	RuleTimeout     time.Duration `name:"lifecycle.ruleTimeout" default:"10s" reload:"true" usage:"how long a stop or termination waits for rules to be taken back before it goes on"`

	Resync    time.Duration `name:"reconcile.resync" default:"10m" usage:"how often those that apply rules are told all of them again; 0s: only when they lost them"`
	Dataplane DataplaneConfig
	DNS       DNSConfig
	Timing    TimingConfig
}

// DataplaneConfig selects the driver that applies traffic rules (Mp2).
type DataplaneConfig struct {
	Driver     string `name:"dataplane.driver" default:"none" usage:"who applies traffic rules: none, webhook"`
	URL        string `name:"dataplane.url" usage:"where the webhook is called: https, or http on loopback"`
	SecretFile string `name:"dataplane.secretFile" usage:"file with the secret that signs calls of the webhook, at least 16 bytes"`
	CA         string `name:"dataplane.ca" usage:"PEM file of the CAs of the webhook's certificate (default: those of the system)"`
	Cert       string `name:"dataplane.cert" usage:"PEM file of the certificate to show to the webhook"`
	Key        string `name:"dataplane.key" usage:"PEM file of the key of that certificate"`
}

// DNSConfig selects the driver that applies DNS rules.
type DNSConfig struct {
	Driver     string `name:"dns.driver" usage:"who applies DNS rules: agent (the platform's DNS server), webhook, none (default: agent in mep, none in mepserver)"`
	URL        string `name:"dns.url" usage:"where the webhook is called: https, or http on loopback"`
	SecretFile string `name:"dns.secretFile" usage:"file with the secret that signs calls of the webhook, at least 16 bytes"`
	CA         string `name:"dns.ca" usage:"PEM file of the CAs of the webhook's certificate (default: those of the system)"`
	Cert       string `name:"dns.cert" usage:"PEM file of the certificate to show to the webhook"`
	Key        string `name:"dns.key" usage:"PEM file of the key of that certificate"`
}

// TimingConfig says what the platform's clock is compared with and which time services apps are offered.
type TimingConfig struct {
	NTPServer  string          `name:"timing.ntpServer" reload:"true" usage:"NTP server, host or host:port, the platform's clock is compared with (default: what the kernel knows)"`
	Interval   time.Duration   `name:"timing.interval" default:"64s" reload:"true" usage:"how often it is asked, at least 8s"`
	MaxOffset  time.Duration   `name:"timing.maxOffset" default:"1s" reload:"true" usage:"how far the platform's clock may be from it and still count as traceable"`
	NTPServers []mp1.NTPServer `name:"timing.ntpServers" reload:"true" usage:"NTP servers offered to apps (MEC 011 TimingCaps); default: timing.ntpServer, if any"`
	PTPMasters []mp1.PTPMaster `name:"timing.ptpMasters" reload:"true" usage:"PTP masters offered to apps (MEC 011 TimingCaps)"`
}

// Drivers that apply rules.
const (
	driverNone    = "none"
	driverWebhook = "webhook"
	// DriverAgent is the platform's own DNS server, which reports on its own.
	DriverAgent = "agent"
)

// validate checks the settings.
func (c *Mm5Config) validate(common *daemon.Config) []error {
	var faults []error
	bad := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	if _, err := common.Listen("mm5.listen", c.Listen); err != nil {
		faults = append(faults, err)
	}
	if err := checkBase("mm5.publicUrl", c.PublicURL); err != nil {
		faults = append(faults, err)
	}
	for name, v := range map[string]int{
		"limits.trafficRules": c.MaxTrafficRules, "limits.dnsRules": c.MaxDNSRules, "limits.trafficFilters": c.MaxTrafficFilters,
	} {
		if v < 1 || v > 1000 {
			bad("%s must be 1 to 1000, not %d", name, v)
		}
	}
	if c.MaxOperations < 10 {
		bad("limits.operations must be at least 10, not %d", c.MaxOperations)
	}
	if c.GracefulTimeout < time.Second || c.GracefulTimeout%time.Second != 0 {
		bad("lifecycle.gracefulTimeout must be a whole number of seconds, at least 1s, not %s", c.GracefulTimeout)
	}
	for name, d := range map[string]time.Duration{
		"lifecycle.ruleTimeout": c.RuleTimeout, "mm5.operationRetention": c.OperationRetention, "reconcile.resync": c.Resync,
	} {
		if d < 0 {
			bad("%s must not be negative", name)
		}
	}
	if c.OperationTimeout < time.Second {
		bad("mm5.operationTimeout must be at least 1s, not %s", c.OperationTimeout)
	}
	for _, d := range c.drivers() {
		if !slices.Contains(d.drivers, d.driver) {
			bad("%s.driver must be %s, not %q", d.name, strings.Join(d.drivers, " or "), d.driver)
		}
		if d.driver == driverWebhook && (d.hook.URL == "" || d.secretFile == "") {
			bad("%s.url and %s.secretFile are required with %s.driver webhook", d.name, d.name, d.name)
		}
	}
	return append(faults, c.Timing.validate()...)
}

func (c *TimingConfig) validate() []error {
	var faults []error
	if c.Interval < 8*time.Second {
		faults = append(faults, fmt.Errorf("timing.interval must be at least 8s, not %s", c.Interval))
	}
	if c.MaxOffset <= 0 {
		faults = append(faults, fmt.Errorf("timing.maxOffset must be more than 0s, not %s", c.MaxOffset))
	}
	add := func(name string, i int, p problem.InvalidParams) {
		for _, f := range p {
			faults = append(faults, fmt.Errorf("%s[%d].%s %s", name, i, f.Name, f.Reason))
		}
	}
	for i := range c.NTPServers {
		var p problem.InvalidParams
		c.NTPServers[i].Check(&p)
		add("timing.ntpServers", i, p)
	}
	for i := range c.PTPMasters {
		var p problem.InvalidParams
		c.PTPMasters[i].Check(&p)
		add("timing.ptpMasters", i, p)
	}
	return faults
}

// driver is a configured driver of rules.
type driver struct {
	name, driver, secretFile string
	// drivers lists the allowed values of driver.
	drivers []string
	hook    reconcile.WebhookConfig
}

func (c *Mm5Config) drivers() []driver {
	return []driver{
		{"dataplane", c.Dataplane.Driver, c.Dataplane.SecretFile, []string{driverNone, driverWebhook}, reconcile.WebhookConfig{
			URL: c.Dataplane.URL, CAFile: c.Dataplane.CA, CertFile: c.Dataplane.Cert, KeyFile: c.Dataplane.Key, Name: "dataplane",
		}},
		{"dns", cmp.Or(c.DNS.Driver, driverNone), c.DNS.SecretFile, []string{driverNone, driverWebhook, DriverAgent}, reconcile.WebhookConfig{
			URL: c.DNS.URL, CAFile: c.DNS.CA, CertFile: c.DNS.Cert, KeyFile: c.DNS.Key, Name: "dns",
		}},
	}
}

// secret reads the secret file of a driver.
func (d *driver) secret() (auth.Secret, error) {
	b, err := os.ReadFile(d.secretFile)
	if err != nil {
		return "", fmt.Errorf("%s.secretFile: %w", d.name, err)
	}
	if b = bytes.TrimSpace(b); len(b) == 0 {
		return "", errors.New(d.name + ".secretFile: the file is empty")
	}
	return auth.Secret(b), nil
}

// hostOf returns an address without its port.
func hostOf(addr string) string {
	if host, _, err := net.SplitHostPort(addr); err == nil {
		return host
	}
	return strings.Trim(addr, "[]")
}

// lifecycle returns the policy of the application life cycle.
func (c *Mm5Config) lifecycle(transports []mp1.TransportInfo) lifecycle.Policy {
	p := lifecycle.Policy{
		Limits:          mp1.RuleLimits{TrafficRules: c.MaxTrafficRules, DNSRules: c.MaxDNSRules, Filters: c.MaxTrafficFilters},
		GracefulTimeout: c.GracefulTimeout, RuleTimeout: c.RuleTimeout, OperationTimeout: c.OperationTimeout,
		Retention: c.OperationRetention, MaxOperations: c.MaxOperations, Transports: transports,
	}
	for _, f := range c.Features {
		p.Features = append(p.Features, mp1.FeatureDependency{FeatureName: f, Version: "1"})
	}
	return p
}

// clock returns the configuration of the clock.
func (c *TimingConfig) clock() timing.Config {
	t := timing.Config{
		NTPServer: c.NTPServer, Interval: c.Interval, MaxOffset: c.MaxOffset,
		Caps: mp1.TimingCaps{NTPServers: c.NTPServers, PTPMasters: c.PTPMasters},
	}
	if len(t.Caps.NTPServers) == 0 && c.NTPServer != "" {
		host := hostOf(c.NTPServer)
		kind := "DNS_NAME"
		if _, err := netip.ParseAddr(host); err == nil {
			kind = "IP_ADDRESS"
		}
		t.Caps.NTPServers = []mp1.NTPServer{{
			NTPServerAddrType: kind, NTPServerAddr: host, MinPollingInterval: 6, MaxPollingInterval: 10, LocalPriority: 1,
			AuthenticationOption: "NONE",
		}}
	}
	return t
}
