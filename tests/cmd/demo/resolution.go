package main

import (
	"context"
	"net"
	"net/http"
	"os/exec"
	"strings"
	"time"

	"github.com/miekg/dns"

	api "github.com/openmep/mep/api/dns"
	"github.com/openmep/mep/api/mp1"
)

// The DNS rules of the producer and their names. The last name is outside the platform's zones.
const (
	nameRule     = "name"
	name6Rule    = "name6"
	overrideRule = "override"
	locationName = "location.mec.example."
	mapsName     = "maps.mec.example."
)

// The answers to queries for these names while the rules are in force.
var (
	here     = known("A 192.0.2.10")
	here6    = known("AAAA 2001:db8::10")
	override = known("A 192.0.2.20")
	// alias is the answer for the record added through the management API.
	alias = known("CNAME "+locationName, "A 192.0.2.10")
)

// dnsRule returns a rule that resolves a name to an address.
func dnsRule(id, name, address string) mp1.DNSRule {
	ttl, family := int64(60), mp1.IPv4
	if strings.Contains(address, ":") {
		family = mp1.IPv6
	}
	return mp1.DNSRule{
		DNSRuleID: id, DomainName: strings.TrimSuffix(name, "."), IPAddressType: family, IPAddress: address, TTL: &ttl, State: mp1.RuleActive,
	}
}

// dnsRules returns the rules of the producer.
func dnsRules() []mp1.DNSRule {
	return []mp1.DNSRule{
		dnsRule(nameRule, locationName, "192.0.2.10"), dnsRule(name6Rule, locationName, "2001:db8::10"), dnsRule(overrideRule, cdnName, "192.0.2.20"),
	}
}

// askTooEarly makes a device query names whose rules are not in force.
func (s *story) askTooEarly(ctx context.Context) {
	s.step("A device asks the platform's DNS server. The producer does not run: its name, in a zone of the platform, does not exist.")
	_, server, _ := strings.Cut(s.platform.running.URL("dns"), "://")
	s.device = newDevice(s.screen, server)
	s.device.learns(ctx, dns.TypeA, locationName, noSuchName)

	s.step("What is not in its zones it has others answer, once: the second answer is from its cache.")
	s.device.learns(ctx, dns.TypeA, cdnName, passedOn("A "+cdnAddress))
	s.device.learns(ctx, dns.TypeA, cdnName, passedOn("A "+cdnAddress))
	expect(s.upstream.count(cdnName) == 1, "the upstream was asked %d times", s.upstream.count(cdnName))
}

// askInTime makes the device query them again once they are in force.
func (s *story) askInTime(ctx context.Context, since time.Time) {
	s.device.learns(ctx, dns.TypeA, locationName, here)
	s.note("%.1f ms after the answer to the producer", time.Since(since).Seconds()*1e3)

	s.step("The name has an IPv6 address as well, and the address a name. A rule overrides a name outside the zones, and none beside it.")
	s.device.learns(ctx, dns.TypeAAAA, locationName, here6)
	s.device.learns(ctx, dns.TypePTR, "10.2.0.192.in-addr.arpa.", known("PTR "+locationName))
	s.device.learns(ctx, dns.TypeA, cdnName, override)
	s.device.learns(ctx, dns.TypeA, newsName, passedOn("A "+newsAddress))
	s.dig(ctx)
}

// dig queries with the program dig, if it is installed.
func (s *story) dig(ctx context.Context) {
	program, err := exec.LookPath("dig")
	if err != nil {
		return
	}
	host, port, err := net.SplitHostPort(s.device.server)
	must(err)
	args := []string{"+noall", "+answer", "+tcp", "Location.MEC.example", "AAAA"}
	printed, err := exec.CommandContext(ctx, program, append([]string{"@" + host, "-p", port}, args...)...).CombinedOutput()
	must(err)
	s.text("device $ dig @"+host+" -p "+port+" "+strings.Join(args, " "), string(printed))
	expect(strings.Contains(string(printed), "Location.MEC.example.") && strings.Contains(string(printed), "2001:db8::10"), "dig did not find the address")
}

// switchNames makes the producer switch its DNS rules.
func (s *story) switchNames(ctx context.Context) {
	s.step("The producer switches its IPv4 address off, over Mp1, then the other one. A name without addresses does not exist.")
	s.switchName(ctx, nameRule, mp1.RuleInactive)
	s.device.learns(ctx, dns.TypeA, locationName, noSuchRecord)
	s.device.learns(ctx, dns.TypeAAAA, locationName, here6)
	s.switchName(ctx, name6Rule, mp1.RuleInactive)
	s.device.learns(ctx, dns.TypeAAAA, locationName, noSuchName)

	s.step("It switches both on again. The MEPM sees from the reports of the DNS server what is really answered.")
	s.switchName(ctx, nameRule, mp1.RuleActive)
	s.switchName(ctx, name6Rule, mp1.RuleActive)
	s.device.learns(ctx, dns.TypeA, locationName, here)
	s.device.learns(ctx, dns.TypeAAAA, locationName, here6)
	s.events.sees(ctx, s.screen, "rule producer DNS name CHANGED, INACTIVE, not in force", "rule producer DNS name6 CHANGED, ACTIVE, to be in force",
		"ruleStatus producer dnsagent applied [name name6 override], 0 failed")
}

func (s *story) switchName(ctx context.Context, ruleID string, state mp1.RuleState) {
	path := "/dns_rules/" + ruleID
	var rule mp1.DNSRule
	s.producer.support.call(ctx, request{method: http.MethodPut, path: path, body: map[string]mp1.RuleState{"state": state}}, http.StatusOK, &rule)
	expect(rule.State == state, "the rule is %+v", rule)
}

// manageNames makes the MEPM add a record, and the operator inspect it.
func (s *story) manageNames(ctx context.Context) {
	s.step("The MEPM adds a record of its own over the management of the DNS server: another name for the same.")
	management := s.manager.caller
	management.url = s.manager.creds.URLs["dns"]
	management.call(ctx, request{method: http.MethodPost, path: api.Base + "/rrecord", body: api.Record{
		Name: mapsName, Type: api.TypeCNAME, TTL: 60, RData: []string{locationName},
	}}, http.StatusOK, nil)
	s.device.learns(ctx, dns.TypeA, mapsName, alias)

	s.step("The operator has the answer explained.")
	printed := s.mep(ctx, "dns", "trace", strings.TrimSuffix(mapsName, "."))
	expect(strings.Contains(printed, nameRule) && strings.Contains(printed, producerID), "the trace does not say where the answer comes from")
}

// askForService makes a device discover the producer's service by its name.
func (s *story) askForService(ctx context.Context, serInstanceID string) {
	const zone = "." + location + ".svc.mec.example."
	s.step("The DNS server has a name for the service, too, with the port it is at.")
	_, port, err := net.SplitHostPort(strings.TrimPrefix(s.producer.url, "http://"))
	must(err)
	s.device.learns(ctx, dns.TypeSRV, zone[1:], known("SRV 0 0 "+port+" "+serInstanceID+zone))
	s.device.learns(ctx, dns.TypeA, serInstanceID+zone, known("A 127.0.0.1"))
}

// askAgain expects the same answers as before.
func (s *story) askAgain(ctx context.Context) {
	s.step("The DNS server answers as it did.")
	s.device.learns(ctx, dns.TypeA, mapsName, alias)
	s.device.learns(ctx, dns.TypeAAAA, locationName, here6)
	s.device.learns(ctx, dns.TypeA, cdnName, override)
}

// askTooLate expects the producer's names to be gone.
func (s *story) askTooLate(ctx context.Context) {
	s.step("Its names are gone: what the record of the MEPM leads to does not exist, and the overridden name is again what it is elsewhere.")
	s.device.learns(ctx, dns.TypeA, mapsName, reply{dns.RcodeNameError, true, []string{"CNAME " + locationName}})
	s.device.learns(ctx, dns.TypePTR, "10.2.0.192.in-addr.arpa.", noSuchName)
	s.device.learns(ctx, dns.TypeA, cdnName, passedOn("A "+cdnAddress))
}
