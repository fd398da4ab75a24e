package mp1

import (
	"fmt"
	"net/netip"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/openmep/mep/api/problem"
)

// Bounds on the members of rules.
const (
	// MaxRuleID is the maximum length of a rule id, in characters.
	MaxRuleID = 63
	// MaxPriority is the largest priority value of a traffic rule, which is the lowest priority.
	MaxPriority = 255
	// MaxTTL is the maximum time to live of a DNS rule, in seconds (RFC 2181 section 8).
	MaxTTL = 1<<31 - 1

	maxTag          = 64
	maxTunnelType   = 32
	maxInterfaces   = 2
	maxQCI, maxDSCP = 254, 63
	// maxFaults is the maximum number of faults collected: a body may contain so many that listing them all would be a means to
	// overload the platform.
	maxFaults = 50
)

var (
	ruleStates   = []RuleState{RuleActive, RuleInactive}
	filterTypes  = []FilterType{FilterFlow, FilterPacket}
	ifTypes      = []InterfaceType{InterfaceTunnel, InterfaceMAC, InterfaceIP}
	addressTypes = []IPAddressType{IPv4, IPv6}
	actions      = []TrafficAction{
		ActionDrop, ActionForwardDecapsulated, ActionForwardEncapsulated, ActionPassthrough, ActionDuplicateDecapsulated,
		ActionDuplicateEncapsulated,
	}
)

// RuleLimits are the operator's bounds on the rules of an app instance. 0 means no bound.
type RuleLimits struct {
	// TrafficRules and DNSRules are the maximum numbers of rules of an app instance.
	TrafficRules, DNSRules int
	// Filters is the maximum number of filters of a traffic rule.
	Filters int
}

func (c checker) full() bool { return len(*c.Faults) >= maxFaults }

// atMost reports whether a list is within a limit, if there is one, and records a fault if not.
func (c checker) atMost(name string, n, limit int) bool {
	if limit > 0 && n > limit {
		c.Fault(name, fmt.Sprintf("has more than %d elements", limit))
		return false
	}
	return true
}

// parsed records the error that parse returns for value, if any.
func parsed[T any](c checker, name, value string, parse func(string) (T, error)) {
	if _, err := parse(value); err != nil {
		c.Fault(name, err.Error())
	}
}

// eachParsed calls seen for each element that parses, records the errors of the others, and reports whether all elements
// parsed.
func eachParsed[T any](c checker, name string, values []string, parse func(string) (T, error), seen func(T)) bool {
	c.listLen(name, len(values))
	good := true
	for i, v := range values {
		if i == MaxList || c.full() {
			return false
		}
		switch t, err := parse(v); {
		case err != nil:
			good = false
			c.item(name, i).Fault("", err.Error())
		case seen != nil:
			seen(t)
		}
	}
	return good
}

func (c checker) eachText(name string, values []string, limit int) {
	c.listLen(name, len(values))
	for i, v := range values {
		if i == MaxList || c.full() {
			return
		}
		c.item(name, i).required("", v, limit)
	}
}

func (c checker) within(name string, n *int, low, high int) {
	if n != nil && (*n < low || *n > high) {
		c.Fault(name, fmt.Sprintf("must be %d to %d, not %d", low, high, *n))
	}
}

// ruleID checks the id of a rule. It refuses "." and "..", which cannot be requested as path segments; all else is escaped in
// paths.
func (c checker) ruleID(name, id string) {
	switch {
	case id == "":
		c.Fault(name, "is required")
	case utf8.RuneCountInString(id) > MaxRuleID:
		c.Fault(name, fmt.Sprintf("is longer than %d characters", MaxRuleID))
	case id == "." || id == "..":
		c.Fault(name, "must not be "+quote(id))
	case !utf8.ValidString(id) || strings.ContainsFunc(id, func(r rune) bool { return !unicode.IsPrint(r) }):
		c.Fault(name, "has characters that cannot be printed: "+quote(id))
	}
}

// unique finds duplicate ids; it maps each id to the index of its first rule.
type unique map[string]int

func (u unique) check(c checker, list, name, id string, i int) {
	first, twice := u[id]
	switch {
	case twice:
		c.item(list, i).Fault(name, fmt.Sprintf("must differ from that of %s: %s", c.item(list, first).At, quote(id)))
	case id != "":
		u[id] = i
	}
}

// CheckTrafficRules records all faults of the traffic rules of an app instance, a list called path: faults of each rule and its
// id, duplicate ids, and exceeded limits. Where rules may lack a state, call SetDefaults first.
func CheckTrafficRules(path string, rules []TrafficRule, limits RuleLimits, faults *problem.InvalidParams) {
	c := newChecker(faults)
	if !c.atMost(path, len(rules), limits.TrafficRules) {
		return
	}
	ids := make(unique, len(rules))
	for i := range rules {
		if c.full() {
			return
		}
		ci := c.item(path, i)
		ci.ruleID("trafficRuleId", rules[i].TrafficRuleID)
		ids.check(c, path, "trafficRuleId", rules[i].TrafficRuleID, i)
		rules[i].check(ci, limits)
	}
}

// CheckDNSRules records all faults of the DNS rules of an app instance, as CheckTrafficRules does.
func CheckDNSRules(path string, rules []DNSRule, limits RuleLimits, faults *problem.InvalidParams) {
	c := newChecker(faults)
	if !c.atMost(path, len(rules), limits.DNSRules) {
		return
	}
	ids := make(unique, len(rules))
	for i := range rules {
		if c.full() {
			return
		}
		ids.check(c, path, "dnsRuleId", rules[i].DNSRuleID, i)
		rules[i].check(c.item(path, i))
	}
}

// SetDefaults fills in what a rule may lack that the MEPM declares: without a state it is ACTIVE.
func (r *TrafficRule) SetDefaults() {
	if r.State == "" {
		r.State = RuleActive
	}
}

// Check records all faults of r as the body of a replacement by the app, which may omit the id. It does not apply limits; see
// Validate.
func (r *TrafficRule) Check(faults *problem.InvalidParams) { r.Validate(RuleLimits{}, faults) }

// Validate is like Check but also applies limits.
func (r *TrafficRule) Validate(limits RuleLimits, faults *problem.InvalidParams) {
	c := newChecker(faults)
	if r.TrafficRuleID != "" {
		c.ruleID("trafficRuleId", r.TrafficRuleID)
	}
	r.check(c, limits)
}

func (r *TrafficRule) check(c checker, limits RuleLimits) {
	checkEnum(c, "filterType", r.FilterType, filterTypes)
	if r.Priority == nil {
		c.Fault("priority", "is required")
	}
	c.within("priority", r.Priority, 0, MaxPriority)
	if len(r.TrafficFilter) == 0 {
		c.Fault("trafficFilter", "must have at least one element; an empty object matches all packets")
	}
	if c.atMost("trafficFilter", len(r.TrafficFilter), limits.Filters) {
		for i := range r.TrafficFilter {
			if c.full() {
				return
			}
			r.TrafficFilter[i].check(c.item("trafficFilter", i))
		}
	}
	checkEnum(c, "action", r.Action, actions)
	r.checkInterfaces(c)
	checkEnum(c, "state", r.State, ruleStates)
}

// checkInterfaces checks that there are no more interfaces than the action can use (MEC 011 7.1.2.2). Without interfaces, the
// data plane chooses; for DROP, interfaces have no effect.
func (r *TrafficRule) checkInterfaces(c checker) {
	n := len(r.DstInterface)
	switch r.Action {
	case ActionForwardDecapsulated, ActionForwardEncapsulated, ActionPassthrough:
		if n > 1 {
			c.Fault("dstInterface", "must have at most 1 element with "+string(r.Action))
			return
		}
	default:
		if !c.atMost("dstInterface", n, maxInterfaces) {
			return
		}
	}
	for i := range r.DstInterface {
		r.DstInterface[i].check(c.item("dstInterface", i))
	}
}

// check requires the members that the interface type needs. Other members are accepted, because some MEPMs always send all of
// them, but they must be valid too.
func (d *DestinationInterface) check(c checker) {
	checkEnum(c, "interfaceType", d.InterfaceType, ifTypes)
	switch {
	case d.InterfaceType == InterfaceTunnel && d.TunnelInfo == nil:
		c.Fault("tunnelInfo", "is required with TUNNEL")
	case d.InterfaceType == InterfaceMAC && d.DstMACAddress == "" && d.SrcMACAddress == "":
		c.Fault("dstMacAddress", "or srcMacAddress is required with MAC")
	case d.InterfaceType == InterfaceIP && d.DstIPAddress == "":
		c.Fault("dstIpAddress", "is required with IP")
	}
	if t := d.TunnelInfo; t != nil && (d.InterfaceType == InterfaceTunnel || !t.Empty()) {
		t.check(c.in("tunnelInfo"))
	}
	if d.SrcMACAddress != "" {
		parsed(c, "srcMacAddress", d.SrcMACAddress, ParseMAC)
	}
	if d.DstMACAddress != "" {
		parsed(c, "dstMacAddress", d.DstMACAddress, ParseMAC)
	}
	if d.DstIPAddress != "" {
		parsed(c, "dstIpAddress", d.DstIPAddress, ParseAddress)
	}
}

// Empty reports whether t describes no tunnel. Some MEPMs send an empty tunnelInfo with every interface.
func (t *TunnelInfo) Empty() bool {
	return t.TunnelType == "" && t.TunnelDstAddress == "" && t.TunnelSrcAddress == ""
}

func (t *TunnelInfo) check(c checker) {
	switch {
	case t.TunnelType == "":
		c.Fault("tunnelType", "is required")
	case len(t.TunnelType) > maxTunnelType || strings.ContainsFunc(t.TunnelType, func(r rune) bool {
		return (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '_'
	}):
		c.Fault("tunnelType", fmt.Sprintf("must be GTP_U, GRE or another name of up to %d capitals, digits and underscores, not %s",
			maxTunnelType, quote(t.TunnelType)))
	}
	if t.TunnelDstAddress != "" {
		parsed(c, "tunnelDstAddress", t.TunnelDstAddress, ParseAddress)
	}
	if t.TunnelSrcAddress != "" {
		parsed(c, "tunnelSrcAddress", t.TunnelSrcAddress, ParseAddress)
	}
	c.opaque("tunnelSpecificData", t.TunnelSpecificData)
}

func (f *TrafficFilter) check(c checker) {
	c.addressPair("srcAddress", f.SrcAddress, "dstAddress", f.DstAddress)
	c.addressPair("srcTunnelAddress", f.SrcTunnelAddress, "tgtTunnelAddress", f.TgtTunnelAddress)
	eachParsed(c, "srcPort", f.SrcPort, ParsePortRange, nil)
	eachParsed(c, "dstPort", f.DstPort, ParsePortRange, nil)
	eachParsed(c, "srcTunnelPort", f.SrcTunnelPort, ParsePortRange, nil)
	eachParsed(c, "dstTunnelPort", f.DstTunnelPort, ParsePortRange, nil)
	eachParsed(c, "protocol", f.Protocol, ParseProtocol, nil)
	c.eachText("tag", f.Tag, maxTag)
	c.eachText("uri", f.URI, MaxURI)
	c.eachText("packetLabel", f.PacketLabel, MaxName)
	c.within("qCI", f.QCI, 1, maxQCI)
	c.within("dSCP", f.DSCP, 0, maxDSCP)
	c.within("tC", f.TC, 0, 255)
}

// addressPair checks source and destination addresses. No packet goes from IPv4 to IPv6, so a filter without a family common to
// both would never match.
func (c checker) addressPair(srcName string, src []string, dstName string, dst []string) {
	var from, to families
	good := eachParsed(c, srcName, src, ParseAddressRange, from.add)
	good = eachParsed(c, dstName, dst, ParseAddressRange, to.add) && good
	if good && from.disjoint(to) {
		c.Fault(dstName, "has no address of the family of "+srcName+": no packet can match both")
	}
}

// families is a set of address families.
type families uint8

const (
	familyIPv4 families = 1 << iota
	familyIPv6
)

func (f *families) add(r AddressRange) {
	if r.From.Is4() {
		*f |= familyIPv4
	} else {
		*f |= familyIPv6
	}
}

// disjoint reports whether f and g are both non-empty and have no family in common.
func (f families) disjoint(g families) bool { return f != 0 && g != 0 && f&g == 0 }

// SetDefaults fills in what a rule may lack that the MEPM declares: without a state it is ACTIVE.
func (r *DNSRule) SetDefaults() {
	if r.State == "" {
		r.State = RuleActive
	}
}

// Check records all faults of r.
func (r *DNSRule) Check(faults *problem.InvalidParams) { r.check(newChecker(faults)) }

func (r *DNSRule) check(c checker) {
	c.ruleID("dnsRuleId", r.DNSRuleID)
	c.ruleDomain("domainName", r.DomainName)
	checkEnum(c, "ipAddressType", r.IPAddressType, addressTypes)
	if r.IPAddress == "" {
		c.Fault("ipAddress", "is required")
	} else {
		c.answer("ipAddress", r.IPAddress, r.IPAddressType)
	}
	c.ttl("ttl", r.TTL)
	checkEnum(c, "state", r.State, ruleStates)
}

// Check records all faults of u by itself. Whether it fits the rule is checked on the changed rule.
func (u *DNSRuleUpdate) Check(faults *problem.InvalidParams) {
	c := newChecker(faults)
	if u.DNSRuleID != "" {
		c.ruleID("dnsRuleId", u.DNSRuleID)
	}
	if u.DomainName != "" {
		c.ruleDomain("domainName", u.DomainName)
	}
	if u.IPAddressType != "" {
		checkEnum(c, "ipAddressType", u.IPAddressType, addressTypes)
	}
	if u.IPAddress != "" {
		c.answer("ipAddress", u.IPAddress, u.IPAddressType)
	}
	c.ttl("ttl", u.TTL)
	checkEnum(c, "state", u.State, ruleStates)
}

func (c checker) ruleDomain(name, value string) {
	switch {
	case value == "":
		c.Fault(name, "is required")
	case !isRuleDomain(value):
		c.Fault(name, `must be a domain name, whose first label may be "*", not `+quote(value))
	}
}

// isRuleDomain reports whether s is a domain name of RFC 1035, which here may contain underscores and end with a dot, or a
// wildcard (RFC 4592).
func isRuleDomain(s string) bool {
	return len(strings.TrimSuffix(s, ".")) <= 253 && isDomainName(strings.TrimPrefix(s, "*."))
}

// answer checks an address that a name is to resolve to; family is empty when it is unknown.
func (c checker) answer(name, value string, family IPAddressType) {
	a, err := ParseAddress(value)
	switch {
	case err != nil:
		c.Fault(name, err.Error())
	case family == IPv4 && !a.Is4():
		c.Fault(name, "must be an IPv4 address as ipAddressType is IP_V4, not "+quote(value))
	case family == IPv6 && !a.Is6():
		c.Fault(name, "must be an IPv6 address as ipAddressType is IP_V6, not "+quote(value))
	case !reachable(a):
		c.Fault(name, "must be the address of a host, not "+quote(value))
	}
}

// reachable reports whether a may be the address of a host.
func reachable(a netip.Addr) bool {
	return !a.IsUnspecified() && !a.IsMulticast() && a != netip.AddrFrom4([4]byte{255, 255, 255, 255})
}

func (c checker) ttl(name string, seconds *int64) {
	if seconds != nil && (*seconds < 0 || *seconds > MaxTTL) {
		c.Fault(name, fmt.Sprintf("must be 0 to %d seconds, not %d", MaxTTL, *seconds))
	}
}
