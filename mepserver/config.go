// Package mepserver is the MEC platform's Mp1 and Mm5 server: it wires the registry, liveness, subscriptions,
// notifications and the application life cycle to their HTTP interfaces.
package mepserver

import (
	"cmp"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/openmep/mep/api/gateway"
	"github.com/openmep/mep/api/mp1"
	"github.com/openmep/mep/api/problem"
	"github.com/openmep/mep/kit/daemon"
	"github.com/openmep/mep/kit/httpx"
	"github.com/openmep/mep/kit/netguard"
	"github.com/openmep/mep/mepserver/lifecycle"
	"github.com/openmep/mep/mepserver/notify"
	"github.com/openmep/mep/mepserver/registry"
	"github.com/openmep/mep/mepserver/subscription"
)

// Config holds the settings of the server.
type Config struct {
	Mp1Listen string   `name:"mp1.listen" default:":8088" usage:"address of Mp1"`
	PublicURL string   `name:"publicUrl" usage:"base of the URLs in answers and notifications (default: that of the request, and of the listener)"`
	Prefixes  []string `name:"mp1.prefixes" default:",/mep" usage:"paths the Mp1 APIs are mounted below; an empty one is the root"`

	Advertise  bool   `name:"gateway.advertise" default:"false" reload:"true" usage:"whether consumers are shown the gateway in place of the endpoints of services; their own apps see what they registered"`
	GatewayURL string `name:"gateway.publicUrl" reload:"true" usage:"base of the URLs at which consumers reach the gateway (default in mep: that of its listener)"`

	// ServiceDomain is the program's setting gateway.serviceDomain; the program's gateway, or the daemon, validates it.
	ServiceDomain string

	MaxServices      int   `name:"limits.services" default:"1000" reload:"true" usage:"services an application instance may have"`
	MaxSubscriptions int   `name:"limits.subscriptions" default:"1000" reload:"true" usage:"service availability subscriptions an application instance may have"`
	MaxBody          int64 `name:"limits.body" default:"1048576" reload:"true" usage:"largest request body in bytes"`
	MaxURI           int   `name:"limits.uri" default:"8192" reload:"true" usage:"longest request target in bytes"`
	MaxHeader        int   `name:"limits.header" default:"32768" usage:"largest request header in bytes"`
	MaxConnections   int   `name:"limits.connections" default:"10000" usage:"connections served at a time; more wait"`

	LivenessMin         time.Duration `name:"liveness.min" default:"1s" reload:"true" usage:"shortest heartbeat interval, whole seconds"`
	LivenessMax         time.Duration `name:"liveness.max" default:"1h" reload:"true" usage:"longest heartbeat interval, whole seconds"`
	LivenessDefault     time.Duration `name:"liveness.default" default:"1m" reload:"true" usage:"heartbeat interval of a service without a preference, whole seconds"`
	LivenessRemoveAfter time.Duration `name:"liveness.removeAfter" default:"0s" usage:"how long a service may stay SUSPENDED before it is removed; 0s: for ever"`

	CallbacksAllowLoopback bool `name:"callbacks.allowLoopback" default:"false" dev:"true" reload:"true" usage:"whether notifications may go to loopback addresses"`
	CallbacksAllowPrivate  bool `name:"callbacks.allowPrivate" default:"true" reload:"true" usage:"whether notifications may go to private addresses"`

	NotifyGiveUpAfter time.Duration `name:"notifications.giveUpAfter" default:"1h" reload:"true" usage:"how long a notification is tried before it becomes a dead letter"`
	NotifyQueue       int           `name:"notifications.queue" default:"1024" reload:"true" usage:"notifications that may wait for one subscriber before changes are merged"`

	Mm5 Mm5Config

	Transports []mp1.TransportInfo `name:"transports" reload:"true" usage:"transports the platform offers (MEC 011 TransportInfo); default: one REST transport with id rest-http"`
}

// Validate checks the settings; common says whether development mode is on.
func (c *Config) Validate(common *daemon.Config) error {
	var faults []error
	bad := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	if _, err := common.Listen("mp1.listen", c.Mp1Listen); err != nil {
		faults = append(faults, err)
	}
	if err := checkBase("publicUrl", c.PublicURL); err != nil {
		faults = append(faults, err)
	}
	if err := checkBase("gateway.publicUrl", c.GatewayURL); err != nil {
		faults = append(faults, err)
	}
	faults = append(faults, gateway.CheckOutside("publicUrl", c.PublicURL, c.ServiceDomain),
		gateway.CheckOutside("gateway.publicUrl", c.GatewayURL, c.ServiceDomain))
	faults = append(faults, c.Mm5.validate(common)...)
	if len(c.Prefixes) == 0 {
		c.Prefixes = []string{""}
	}
	for _, p := range c.Prefixes {
		if p != "" && (!strings.HasPrefix(p, "/") || strings.HasSuffix(p, "/") || strings.ContainsAny(p, "?#:* ")) {
			bad("mp1.prefixes: %q must be empty or start with a slash and not end in one", p)
		}
	}
	if len(slices.Compact(slices.Sorted(slices.Values(c.Prefixes)))) != len(c.Prefixes) {
		bad("mp1.prefixes: every prefix may occur once")
	}
	for name, v := range map[string]int64{
		"limits.services": int64(c.MaxServices), "limits.subscriptions": int64(c.MaxSubscriptions), "limits.body": c.MaxBody,
		"limits.uri": int64(c.MaxURI), "limits.header": int64(c.MaxHeader), "limits.connections": int64(c.MaxConnections),
		"notifications.queue": int64(c.NotifyQueue),
	} {
		if v < 1 {
			bad("%s must be at least 1, not %d", name, v)
		}
	}
	for name, d := range map[string]time.Duration{
		"liveness.min": c.LivenessMin, "liveness.max": c.LivenessMax, "liveness.default": c.LivenessDefault,
	} {
		if d < time.Second || d%time.Second != 0 {
			bad("%s must be a whole number of seconds, at least 1s, not %s", name, d)
		}
	}
	if c.LivenessMin > c.LivenessMax {
		bad("liveness.min (%s) must not be more than liveness.max (%s)", c.LivenessMin, c.LivenessMax)
	}
	if c.NotifyGiveUpAfter < time.Second {
		bad("notifications.giveUpAfter must be at least 1s, not %s", c.NotifyGiveUpAfter)
	}
	faults = append(faults, c.validateTransports()...)
	return errors.Join(faults...)
}

// checkBase checks a setting that is a base URL or empty.
func checkBase(setting, value string) error {
	if value == "" {
		return nil
	}
	u, err := url.Parse(value)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.RawQuery != "" || u.Fragment != "" {
		return fmt.Errorf("%s: %q is not an absolute http or https URL without query and fragment", setting, value)
	}
	return nil
}

func (c *Config) validateTransports() []error {
	var faults []error
	seen := make(map[string]bool)
	for i := range c.Transports {
		t := &c.Transports[i]
		var p problem.InvalidParams
		t.Check(&p)
		for _, f := range p {
			faults = append(faults, fmt.Errorf("transports[%d].%s %s", i, f.Name, f.Reason))
		}
		if seen[t.ID] {
			faults = append(faults, fmt.Errorf("transports[%d].id: %q occurs twice", i, t.ID))
		}
		seen[t.ID] = true
	}
	return faults
}

// policies holds the policies derived from the settings. A reload replaces it as a whole.
type policies struct {
	registry     registry.Policy
	subscription subscription.Policy
	notify       notify.Policy
	lifecycle    lifecycle.Policy
	limits       httpx.Limits
	// gateway is shown to consumers in place of service endpoints; the zero value shows the endpoints.
	gateway registry.Gateway
}

// RESTTransportID is the id of the default transport, which exists unless others are configured.
const RESTTransportID = "rest-http"

func (c *Config) policies(own netguard.Policy, publicURL, gatewayURL string) *policies {
	// Apps may offer endpoints on this machine and in private networks; the gateway decides which of them it calls.
	endpoints := own
	endpoints.AllowLoopback, endpoints.AllowPrivate = true, true
	p := &policies{
		registry: registry.Policy{
			MaxServices: c.MaxServices,
			MinInterval: int(c.LivenessMin / time.Second), MaxInterval: int(c.LivenessMax / time.Second),
			DefaultInterval: int(c.LivenessDefault / time.Second),
			Transports:      c.Transports, Targets: &endpoints,
		},
		notify: notify.Policy{GiveUpAfter: c.NotifyGiveUpAfter, Queue: c.NotifyQueue},
		limits: httpx.Limits{Body: c.MaxBody, URI: c.MaxURI, Header: c.MaxHeader, Connections: c.MaxConnections},
	}
	own.AllowLoopback, own.AllowPrivate = c.CallbacksAllowLoopback, c.CallbacksAllowPrivate
	own.LoopbackSetting, own.PrivateSetting = "callbacks.allowLoopback", "callbacks.allowPrivate"
	p.subscription = subscription.Policy{Max: c.MaxSubscriptions, Targets: &own}
	if len(p.registry.Transports) == 0 {
		p.registry.Transports = []mp1.TransportInfo{{
			ID: RESTTransportID, Name: "REST", Description: "REST over HTTP", Type: mp1.TransportRESTHTTP,
			Protocol: "HTTP", Version: "1.1",
			Endpoint: &mp1.EndPointInfo{URIs: []string{publicURL}},
			Security: &mp1.SecurityInfo{},
		}}
	}
	if c.Advertise {
		p.gateway = registry.NewGateway(cmp.Or(c.GatewayURL, gatewayURL), c.ServiceDomain)
	}
	p.lifecycle = c.Mm5.lifecycle(p.registry.Transports)
	return p
}
