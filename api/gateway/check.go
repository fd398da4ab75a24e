package gateway

import (
	"fmt"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"github.com/openmep/mep/api/problem"
)

// Bounds on the members of requests, in characters, in elements, or in the unit that the name says.
const (
	// MaxPaths and MaxURLs are the maximum numbers of paths and URLs of a route.
	MaxPaths = 16
	MaxURLs  = 64
	// MaxRules and MaxQuotas are the maximum numbers of rules and quotas of a policy.
	MaxRules  = 100
	MaxQuotas = 4
	// MaxCalls is the largest quota.
	MaxCalls = 1_000_000_000_000
	// MaxAuthBody is the maximum of ExternalAuth.Body in bytes.
	MaxAuthBody = 1 << 20
	// MaxWords is the maximum length of the texts of access requests.
	MaxWords = 1000

	maxID         = 63
	maxName       = 255
	maxList       = 100
	maxHosts      = 16
	maxMethods    = 16
	maxConditions = 16
	maxFields     = 64
	maxMethod     = 32
	maxScope      = 128
	maxFieldName  = 128
	maxFieldValue = 4096
	maxHost       = 253
	maxURL        = 2048
	maxStrip      = MaxSegments
	maxPriority   = 1_000_000
	maxTarget     = 8192
	maxLifetime   = 200 * 365 * 24 * time.Hour
)

// platform lists the first path segments of the platform's own routes.
var platform = []string{
	"mep", "oauth2", ".well-known", "mec_service_mgmt", "mec_app_support", "services", "instances", "gateway",
}

// Check records every fault of r, whose ID must be set. It cannot know whether the service, the filters and the client certificates that r
// names exist.
func (r *Route) Check(faults *problem.InvalidParams) {
	c := newChecker(faults)
	switch {
	case r.ID == "":
		c.Fault("id", "is required")
	case !isID(r.ID):
		c.Fault("id", refused(fmt.Sprintf(`1 to %d letters, digits, "-", "_" and ".", a letter or digit first`, maxID), r.ID).Error())
	case strings.HasPrefix(r.ID, "platform."):
		c.Fault("id", `must not begin with "platform."`)
	}
	list(c, "hosts", r.Hosts, maxHosts, checkHost)
	patterns := r.checkPaths(c)
	list(c, "methods", r.Methods, maxMethods, checkMethod)
	fields(c, "headers", r.Headers, maxConditions, checkCondition)
	r.checkTarget(c)
	number(c, "strip", r.Strip, 0, maxStrip)
	if r.Rewrite != "" {
		_, err := ParseRewrite(r.Rewrite, patterns...)
		c.Check("rewrite", err)
		if r.Strip != 0 {
			c.Fault("strip", "must be absent where rewrite is given")
		}
	}
	number(c, "priority", r.Priority, -maxPriority, maxPriority)
	unknown(c, *r, r.Unknown)
	r.Policy.check(c.in("policy"))
}

// checkPaths returns the valid patterns.
func (r *Route) checkPaths(c checker) []Pattern {
	if len(r.Paths) == 0 {
		c.Fault("paths", "must have at least one path")
		return nil
	}
	patterns := make([]Pattern, 0, min(len(r.Paths), MaxPaths))
	list(c, "paths", r.Paths, MaxPaths, func(s string) error {
		p, err := ParsePattern(s)
		if err == nil && len(r.Hosts) == 0 {
			err = p.checkBesidePlatform()
		}
		if err == nil {
			patterns = append(patterns, p)
		}
		return err
	})
	return patterns
}

// checkBesidePlatform refuses patterns for any host that would match the platform's own paths.
func (p *Pattern) checkBesidePlatform() error {
	switch {
	case len(p.Literals) == 0 && p.Rest, len(p.Literals) > 0 && p.Literals[0] == "":
		return fmt.Errorf("must begin with a literal segment in a route without hosts: other paths are the platform's, %s", ownPaths())
	case len(p.Literals) == 0:
		return nil
	}
	for _, own := range platform {
		// Compare without regard to case: a proxy in front may change the case of paths.
		if strings.EqualFold(p.Literals[0], own) {
			return fmt.Errorf("must not begin with %q in a route without hosts: such paths are the platform's", "/"+own)
		}
	}
	return nil
}

func ownPaths() string {
	return "/" + strings.Join(platform[:len(platform)-1], ", /") + " and /" + platform[len(platform)-1]
}

// checkCondition accepts the conditions of a route on header fields.
func checkCondition(field, value string) error {
	switch {
	case strings.EqualFold(field, "Host"):
		return fmt.Errorf("must not be a condition: hosts is for that")
	case IsIdentity(field):
		return fmt.Errorf("must not be a condition: what callers say about who they are does not count")
	case value == "":
		return fmt.Errorf(`must have a value, or "*" for any`)
	}
	return checkFieldValue(value)
}

func (r *Route) checkTarget(c checker) {
	switch {
	case r.Service == "" && len(r.URLs) == 0:
		c.Fault("service", "is required, or urls instead: exactly one of them")
	case r.Service != "" && len(r.URLs) > 0:
		c.Fault("service", "and urls must not both be present: exactly one of them")
	}
	c.text("service", r.Service, maxName)
	list(c, "urls", r.URLs, MaxURLs, func(s string) error { return CheckURL(s, "http", "https", "h2c") })
}

// Check records every fault of k.
func (k *APIKeyRequest) Check(faults *problem.InvalidParams) {
	c := newChecker(faults)
	if k.Consumer == "" {
		c.Fault("consumer", "is required")
	}
	c.Check("consumer", checkConsumer(k.Consumer))
	c.text("description", k.Description, maxName)
	list(c, "scopes", k.Scopes, maxList, checkScope)
	list(c, "services", k.Services, maxList, checkName)
	c.duration("lifetime", k.Lifetime, time.Second, maxLifetime)
	unknown(c, *k, k.Unknown)
}

// checkName accepts the serName of a service or the name of a caller.
func checkName(s string) error {
	var faults problem.InvalidParams
	newChecker(&faults).required("", s, maxName)
	if len(faults) > 0 {
		return fmt.Errorf("%s", faults[0].Reason)
	}
	return nil
}

// Check records every fault of a.
func (a *AccessApplication) Check(faults *problem.InvalidParams) {
	c := newChecker(faults)
	switch {
	case a.SerName == "" && a.SerInstanceID == "":
		c.Fault("serName", "is required, or serInstanceId instead: exactly one of them")
	case a.SerName != "" && a.SerInstanceID != "":
		c.Fault("serName", "and serInstanceId must not both be present: exactly one of them")
	}
	c.text("serName", a.SerName, maxName)
	c.text("serInstanceId", a.SerInstanceID, maxName)
	c.words("purpose", a.Purpose, MaxWords)
	c.text("consumer", a.Consumer, maxName)
	unknown(c, *a, a.Unknown)
}

// Check records every fault of d.
func (d *AccessDecision) Check(faults *problem.InvalidParams) {
	c := newChecker(faults)
	requiredOf(c, "state", d.State, AccessGranted, AccessRefused)
	c.words("reason", d.Reason, MaxWords)
	unknown(c, *d, d.Unknown)
}

// Check records every fault of e. The path of the URL may be anything: Explain says what the gateway would make of it.
func (e *ExplainRequest) Check(faults *problem.InvalidParams) {
	c := newChecker(faults)
	if e.Method == "" {
		c.Fault("method", "is required")
	} else if !isToken(e.Method) || len(e.Method) > maxMethod {
		c.Fault("method", refused("a method", e.Method).Error())
	}
	c.Check("url", checkTargetURL(e.URL))
	c.text("consumer", e.Consumer, maxName)
	list(c, "scopes", e.Scopes, maxList, checkScope)
	if e.Source != "" {
		if a, err := netip.ParseAddr(e.Source); err != nil || a.Zone() != "" {
			c.Fault("source", refused("an IP address", e.Source).Error())
		}
	}
	fields(c, "headers", e.Headers, maxFields, func(_, value string) error { return checkFieldValue(value) })
	unknown(c, *e, e.Unknown)
}

// checkTargetURL accepts the path and query of a request, with or without the scheme and host of the gateway.
func checkTargetURL(s string) error {
	switch {
	case s == "":
		return fmt.Errorf("is required")
	case len(s) > maxTarget:
		return fmt.Errorf("must be at most %d bytes long", maxTarget)
	}
	parse := url.Parse
	if strings.HasPrefix(s, "/") {
		parse = url.ParseRequestURI // "//" begins a path here, not a host
	}
	u, err := parse(s)
	if err != nil {
		return refused("a URL, or a path with an optional query", s)
	}
	if !strings.HasPrefix(s, "/") && (u.Scheme != "http" && u.Scheme != "https" || u.Host == "") {
		return refused(`an http or https URL, or a path that begins with "/"`, s)
	}
	return nil
}
