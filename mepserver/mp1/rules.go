package mp1

import (
	"fmt"
	"net/http"
	"strings"

	"github.com/gin-gonic/gin"

	"github.com/openmep/mep/api/mp1"
	"github.com/openmep/mep/api/problem"
	"github.com/openmep/mep/kit/errs"
	"github.com/openmep/mep/kit/httpx"
	"github.com/openmep/mep/mepserver/rules"
)

func setTrafficState(r *mp1.TrafficRule, s mp1.RuleState) { r.State = s }
func setDNSState(r *mp1.DNSRule, s mp1.RuleState)         { r.State = s }

func (s *support) trafficRules(c *gin.Context) error {
	if err := httpx.NoQuery(c); err != nil {
		return err
	}
	return httpx.JSON(c, http.StatusOK, s.Lifecycle.Traffic.Views(appID(c), setTrafficState))
}

func (s *support) dnsRules(c *gin.Context) error {
	if err := httpx.NoQuery(c); err != nil {
		return err
	}
	return httpx.JSON(c, http.StatusOK, s.Lifecycle.DNS.Views(appID(c), setDNSState))
}

func (s *support) trafficRule(c *gin.Context) error {
	if err := httpx.NoQuery(c); err != nil {
		return err
	}
	v, err := s.Lifecycle.Traffic.View(appID(c), c.Param("ruleId"), setTrafficState)
	if err != nil {
		return err
	}
	return tagged(c, v.ETag, v.Rule)
}

func (s *support) dnsRule(c *gin.Context) error {
	if err := httpx.NoQuery(c); err != nil {
		return err
	}
	v, err := s.Lifecycle.DNS.View(appID(c), c.Param("ruleId"), setDNSState)
	if err != nil {
		return err
	}
	return tagged(c, v.ETag, v.Rule)
}

// sameID rejects a body whose id, if present, differs from the one in the path.
func sameID(name, in, path string) error {
	if in == "" || in == path {
		return nil
	}
	var p problem.InvalidParams
	p.Add(name, "must be absent or the id in the path")
	return errs.Params(p)
}

// changeTrafficRule replaces a rule of the app (MEC 011 7.2.8.3.2): anything but the id may change.
func (s *support) changeTrafficRule(c *gin.Context) error {
	if err := httpx.NoQuery(c); err != nil {
		return err
	}
	id := c.Param("ruleId")
	if _, err := s.Lifecycle.Traffic.View(appID(c), id, setTrafficState); err != nil {
		return err
	}
	var rule mp1.TrafficRule
	err := httpx.BodyFunc(c, &rule, func(faults *problem.InvalidParams) { rule.Validate(s.Lifecycle.Policy().Limits, faults) })
	if err == nil {
		err = sameID("trafficRuleId", rule.TrafficRuleID, id)
	}
	if err != nil {
		return err
	}
	rule.TrafficRuleID = id
	v, err := s.Lifecycle.Traffic.Change(c.Request.Context(), appID(c), id, setTrafficState,
		func(_ mp1.TrafficRule, shown *rules.View[mp1.TrafficRule]) (mp1.TrafficRule, error) {
			return rule, httpx.IfMatch(c, shown.ETag)
		})
	if err != nil {
		return err
	}
	httpx.SetETag(c, v.ETag)
	return httpx.JSON(c, http.StatusOK, v.Rule)
}

// changeDNSRule changes the state, the address or the time to live of a rule of the app (MEC 011 7.2.10.3.2).
func (s *support) changeDNSRule(c *gin.Context) error {
	if err := httpx.NoQuery(c); err != nil {
		return err
	}
	id := c.Param("ruleId")
	if _, err := s.Lifecycle.DNS.View(appID(c), id, setDNSState); err != nil {
		return err
	}
	var update mp1.DNSRuleUpdate
	err := httpx.Body(c, &update)
	if err == nil {
		err = sameID("dnsRuleId", update.DNSRuleID, id)
	}
	if err != nil {
		return err
	}
	v, err := s.Lifecycle.DNS.Change(c.Request.Context(), appID(c), id, setDNSState,
		func(rule mp1.DNSRule, shown *rules.View[mp1.DNSRule]) (mp1.DNSRule, error) {
			if err := httpx.IfMatch(c, shown.ETag); err != nil {
				return rule, err
			}
			err := updateDNS(&rule, &update)
			return rule, err
		})
	if err != nil {
		return err
	}
	httpx.SetETag(c, v.ETag)
	return httpx.JSON(c, http.StatusOK, v.Rule)
}

// updateDNS applies an update, which has passed its Check, to a rule.
func updateDNS(rule *mp1.DNSRule, update *mp1.DNSRuleUpdate) error {
	var faults problem.InvalidParams
	if update.DomainName != "" && !strings.EqualFold(update.DomainName, rule.DomainName) {
		faults.Add("domainName", fmt.Sprintf("must be absent or that of the rule, %q: only the MEC platform manager changes it", rule.DomainName))
	}
	if update.IPAddressType != "" {
		rule.IPAddressType = update.IPAddressType
	}
	if update.IPAddress != "" {
		rule.IPAddress = update.IPAddress
	}
	if update.TTL != nil {
		rule.TTL = update.TTL
	}
	rule.State = update.State
	rule.Check(&faults)
	return errs.Params(faults)
}
