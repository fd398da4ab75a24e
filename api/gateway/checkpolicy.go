package gateway

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/openmep/mep/api/problem"
)

const (
	maxPace        = 1_000_000
	maxBuffer      = 10_000
	maxConcurrent  = 1_000_000
	maxBody        = 1 << 50
	maxCA          = 256 << 10
	maxRetries     = 10
	maxInARow      = 1000
	maxWait        = 24 * time.Hour
	maxAuthTimeout = time.Minute
)

// Check records every fault of p. It cannot know whether the filters and client certificates that p names exist.
func (p *Policy) Check(faults *problem.InvalidParams) { p.check(newChecker(faults)) }

// CheckFor is Check for the policy with the given name. It also refuses members that have no effect on routes of the platform: the platform
// itself decides who may call RouteMp1 and RouteAuth, and no app owns RouteAccess.
func (p *Policy) CheckFor(name string, faults *problem.InvalidParams) {
	p.Check(faults)
	var why string
	switch name {
	case RouteMp1, RouteAuth:
		why = "the platform decides by itself who may call"
	case RouteAccess:
		why = "it belongs to no app"
	default:
		return
	}
	for member, given := range map[string]bool{
		"authentication": len(p.Authentication) > 0 && name != RouteAccess, "sharing": p.Sharing != "", "owners": len(p.Owners) > 0,
	} {
		if given {
			faults.Add(member, "has no effect on "+name+": "+why)
		}
	}
}

func (p *Policy) check(c checker) {
	list(c, "authentication", p.Authentication, 4, func(s string) error {
		return valueOf(Method(s), ByToken, ByAPIKey, ByCertificate, Anonymous)
	})
	list(c, "scopes", p.Scopes, maxList, checkScope)
	fields(c, "claims", p.Claims, maxConditions, func(field, claim string) error {
		if err := CheckSettable(field); err != nil {
			return err
		}
		return checkName(claim)
	})
	if len(p.Rules) > MaxRules {
		c.Fault("rules", fmt.Sprintf("must have at most %d elements, not %d", MaxRules, len(p.Rules)))
	} else {
		for i := range p.Rules {
			p.Rules[i].check(c.item("rules", i))
		}
	}
	oneOf(c, "default", p.Default, Allow, Deny)
	oneOf(c, "sharing", p.Sharing, SharingOpen, SharingConditional)
	if p.ExternalAuth != nil {
		p.ExternalAuth.check(c.in("externalAuth"))
	}
	checkQuotas(c, p.Quotas)
	if p.SpikeArrest != nil {
		p.SpikeArrest.check(c.in("spikeArrest"))
	}
	number(c, "concurrent", p.Concurrent, 0, maxConcurrent)
	oneOf(c, "whenStoreAway", p.WhenStoreAway, AwayRefuse, AwayAllow)
	number(c, "maxBody", p.MaxBody, -1, maxBody)
	p.Timeouts.check(c.in("timeouts"))
	p.Upstream.check(c.in("upstream"))
	p.Headers.check(c.in("headers"))
	list(c, "owners", p.Owners, maxList, checkName)
	list(c, "excludeFilters", p.ExcludeFilters, maxList, checkID)
	unknown(c, *p, p.Unknown)
}

// valueOf is oneOf for the elements of a list.
func valueOf[T ~string](value T, among ...T) error {
	if slices.Contains(among, value) {
		return nil
	}
	return refused(either(among), string(value))
}

func checkID(s string) error {
	if !isID(s) {
		return refused(fmt.Sprintf(`1 to %d letters, digits, "-", "_" and "."`, maxID), s)
	}
	return nil
}

func (r *Rule) check(c checker) {
	requiredOf(c, "effect", r.Effect, Allow, Deny)
	list(c, "consumers", r.Consumers, maxList, checkName)
	list(c, "scopes", r.Scopes, maxList, checkScope)
	list(c, "sources", r.Sources, maxList, checkSource)
	list(c, "methods", r.Methods, maxMethods, checkMethod)
	list(c, "paths", r.Paths, MaxPaths, func(s string) error {
		_, err := ParsePattern(s)
		return err
	})
	unknown(c, *r, r.Unknown)
}

func (e *ExternalAuth) check(c checker) {
	if e.URL == "" {
		c.Fault("url", "is required")
	} else {
		c.Check("url", CheckURL(e.URL, "http", "https"))
	}
	list(c, "headers", e.Headers, maxFields, checkFieldName)
	number(c, "body", e.Body, 0, MaxAuthBody)
	list(c, "return", e.Return, maxFields, checkSettableName)
	c.duration("timeout", e.Timeout, time.Millisecond, maxAuthTimeout)
	c.duration("cache", e.Cache, 0, maxWait)
	unknown(c, *e, e.Unknown)
}

func checkQuotas(c checker, quotas []Quota) {
	if len(quotas) > MaxQuotas {
		c.Fault("quotas", fmt.Sprintf("must have at most %d elements, not %d", MaxQuotas, len(quotas)))
		return
	}
	first := make(map[string]int, len(quotas))
	for i := range quotas {
		q, at := &quotas[i], c.item("quotas", i)
		number(at, "calls", q.Calls, 1, MaxCalls)
		requiredOf(at, "per", q.Per, PerMinute, PerHour, PerDay, PerMonth)
		if before, twice := first[q.Per]; twice {
			at.Fault("per", fmt.Sprintf("must differ from that of quotas[%d]", before))
		} else {
			first[q.Per] = i
		}
		unknown(at, *q, q.Unknown)
	}
}

func (s *SpikeArrest) check(c checker) {
	number(c, "calls", s.Calls, 1, maxPace)
	requiredOf(c, "per", s.Per, PerSecond, PerMinute)
	number(c, "buffer", s.Buffer, 0, maxBuffer)
	unknown(c, *s, s.Unknown)
}

func (t *Timeouts) check(c checker) {
	c.duration("connect", t.Connect, 0, maxWait)
	c.duration("response", t.Response, 0, maxWait)
	c.duration("idle", t.Idle, 0, maxWait)
	c.duration("total", t.Total, 0, maxWait)
	unknown(c, *t, t.Unknown)
}

func (u *Upstream) check(c checker) {
	if u.CA != "" {
		c.Check("ca", checkCA(u.CA))
	}
	if u.ClientCertificate != "" {
		c.Check("clientCertificate", checkID(u.ClientCertificate))
	}
	if u.ServerName != "" {
		if _, ok := CanonicalHost(u.ServerName); !ok || strings.HasPrefix(u.ServerName, "*") {
			c.Fault("serverName", refused("a host name or an IP address", u.ServerName).Error())
		}
	}
	if u.Proxy != "" && u.Proxy != "none" {
		c.Check("proxy", CheckURL(u.Proxy, "http", "https"))
	}
	number(c, "retries", u.Retries, -1, maxRetries)
	if h := u.HealthCheck; h != nil {
		h.check(c.in("healthCheck"))
	}
	number(c, "ejectAfter", u.EjectAfter, -1, maxInARow)
	c.duration("ejectFor", u.EjectFor, time.Millisecond, maxWait)
	c.duration("slowStart", u.SlowStart, 0, maxWait)
	unknown(c, *u, u.Unknown)
}

// checkCA accepts one or more PEM certificates, and text between them as tools write it.
func checkCA(text string) error {
	if len(text) > maxCA {
		return fmt.Errorf("must be at most %d bytes long", maxCA)
	}
	n := 0
	for rest := []byte(text); ; n++ {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			return fmt.Errorf("must have certificates only, not a %s", quote(block.Type))
		}
		if _, err := x509.ParseCertificate(block.Bytes); err != nil {
			return fmt.Errorf("must have certificates, which number %d is not", n+1)
		}
	}
	if n == 0 {
		return errors.New("must have certificates in PEM")
	}
	return nil
}

func (h *HealthCheck) check(c checker) {
	switch {
	case h.Path == "":
		c.Fault("path", "is required")
	case len(h.Path) > MaxPattern || !strings.HasPrefix(h.Path, "/"):
		c.Fault("path", refused(fmt.Sprintf(`a path of at most %d bytes that begins with "/"`, MaxPattern), h.Path).Error())
	default:
		c.Check("path", checkPath(h.Path))
	}
	c.duration("interval", h.Interval, 100*time.Millisecond, maxWait)
	c.duration("timeout", h.Timeout, time.Millisecond, maxAuthTimeout)
	number(c, "healthy", h.Healthy, 0, maxInARow)
	number(c, "unhealthy", h.Unhealthy, 0, maxInARow)
	unknown(c, *h, h.Unknown)
}

func (h *Headers) check(c checker) {
	fields(c, "set", h.Set, maxFields, func(field, value string) error {
		if err := CheckSettable(field); err != nil {
			return err
		}
		return checkFieldValue(value)
	})
	list(c, "remove", h.Remove, maxFields, notIn("set", h.Set))
	fields(c, "setResponse", h.SetResponse, maxFields, func(field, value string) error {
		if isFraming(field) || IsHopByHop(field) {
			return errors.New("must not be set: it says where the message ends, or is about the connection")
		}
		return checkFieldValue(value)
	})
	list(c, "removeResponse", h.RemoveResponse, maxFields, notIn("setResponse", h.SetResponse))
	unknown(c, *h, h.Unknown)
}

// notIn accepts header fields that can be removed and are not set as well: the result would depend on the order of the two.
func notIn(name string, set map[string]string) func(string) error {
	return func(s string) error {
		for field := range set {
			if strings.EqualFold(field, s) {
				return fmt.Errorf("must not be in %s, too: %s", name, quote(s))
			}
		}
		return checkRemovable(s)
	}
}
