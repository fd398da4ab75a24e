package mp1_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/api/mp1"
	"github.com/openmep/mep/api/problem"
)

// faultsOf returns the faults that check finds, one per line.
func faultsOf(check func(*problem.InvalidParams)) []string {
	var faults problem.InvalidParams
	check(&faults)
	lines := make([]string, len(faults))
	for i, f := range faults {
		lines[i] = f.Name + " " + f.Reason
	}
	return lines
}

func trafficRule(t *testing.T, text string) mp1.TrafficRule {
	t.Helper()
	var r mp1.TrafficRule
	require.NoError(t, json.Unmarshal([]byte(text), &r))
	return r
}

// changed returns the JSON object text with some members replaced; null stands for an absent member.
func changed(t *testing.T, text, members string) string {
	t.Helper()
	var object, with map[string]json.RawMessage
	require.NoError(t, json.Unmarshal([]byte(text), &object))
	require.NoError(t, json.Unmarshal([]byte(members), &with))
	maps.Copy(object, with)
	b, err := json.Marshal(object)
	require.NoError(t, err)
	return string(b)
}

const goodTrafficRule = `{
	"trafficRuleId": "r1", "filterType": "FLOW", "priority": 0, "action": "PASSTHROUGH", "state": "ACTIVE",
	"trafficFilter": [{
		"srcAddress": ["10.0.0.0/8", "2001:db8::/32"], "dstAddress": ["192.0.2.1-192.0.2.9"], "srcPort": ["1024-65535"], "dstPort": ["80", "443"],
		"protocol": ["tcp", "17"], "tag": ["gold"], "srcTunnelAddress": ["198.51.100.1"], "tgtTunnelAddress": ["198.51.100.0/24"],
		"srcTunnelPort": ["2152"], "dstTunnelPort": ["2152"], "qCI": 9, "dSCP": 46, "tC": 184, "uri": ["https://example.com/"], "packetLabel": ["x"]
	}],
	"dstInterface": [{"interfaceType": "IP", "dstIpAddress": "192.0.2.7"}]
}`

func TestTrafficRulesThatAreGood(t *testing.T) {
	for name, members := range map[string]string{
		"every member":               `{}`,
		"inactive":                   `{"state": "INACTIVE"}`,
		"packets, lowest priority":   `{"filterType": "PACKET", "priority": 255}`,
		"no id, as in a PUT":         `{"trafficRuleId": null}`,
		"longest id":                 `{"trafficRuleId": "` + strings.Repeat("é", 63) + `"}`,
		"awkward id":                 `{"trafficRuleId": "../a b?c#d%2F;\"<ü>"}`,
		"a filter for all packets":   `{"trafficFilter": [{}]}`,
		"several filters":            `{"trafficFilter": [{}, {"dstPort": ["53"]}]}`,
		"bounds of markings":         `{"trafficFilter": [{"qCI": 1, "dSCP": 0, "tC": 0}, {"qCI": 254, "dSCP": 63, "tC": 255}]}`,
		"no interface":               `{"dstInterface": null}`,
		"no interface, decapsulated": `{"action": "FORWARD_DECAPSULATED", "dstInterface": []}`,
		"dropped with an interface":  `{"action": "DROP"}`,
		"two interfaces":             `{"action": "DUPLICATE_DECAPSULATED", "dstInterface": [{"interfaceType": "MAC", "dstMacAddress": "00:00:5e:00:53:01"}, {"interfaceType": "MAC", "srcMacAddress": "00-00-5e-00-53-02"}]}`,
		"GTP tunnel":                 `{"dstInterface": [{"interfaceType": "TUNNEL", "tunnelInfo": {"tunnelType": "GTP_U", "tunnelDstAddress": "192.0.2.1", "tunnelSrcAddress": "2001:db8::1", "tunnelSpecificData": {"teid": 1}}}]}`,
		"other tunnel":               `{"dstInterface": [{"interfaceType": "TUNNEL", "tunnelInfo": {"tunnelType": "VXLAN_2"}}]}`,
		"members of other types":     `{"dstInterface": [{"interfaceType": "IP", "dstIpAddress": "2001:db8::1", "srcMacAddress": "", "dstMacAddress": "00:00:5e:00:53:01", "tunnelInfo": {"tunnelType": "", "tunnelSpecificData": ""}}]}`,
		"families that match":        `{"trafficFilter": [{"srcAddress": ["10.0.0.1", "2001:db8::1"], "dstAddress": ["2001:db8::2"]}]}`,
		"families apart by filter":   `{"trafficFilter": [{"srcAddress": ["10.0.0.1"]}, {"dstAddress": ["2001:db8::2"]}]}`,
	} {
		t.Run(name, func(t *testing.T) {
			r := trafficRule(t, changed(t, goodTrafficRule, members))
			require.Empty(t, faultsOf(r.Check))
			r.TrafficRuleID = "r1"
			require.Empty(t, faultsOf(func(faults *problem.InvalidParams) {
				mp1.CheckTrafficRules("rules", []mp1.TrafficRule{r}, mp1.RuleLimits{TrafficRules: 1, Filters: 2}, faults)
			}))
		})
	}
}

func TestTrafficRulesThatAreRefused(t *testing.T) {
	for name, x := range map[string]struct {
		members string
		faults  []string
	}{
		"no members at all": {
			`{"trafficRuleId": null, "filterType": null, "priority": null, "action": null, "state": null, "trafficFilter": null, "dstInterface": null}`,
			[]string{
				"filterType is required", "priority is required", "trafficFilter must have at least one element; an empty object matches all packets",
				"action is required", "state is required",
			},
		},
		"long id":         {`{"trafficRuleId": "` + strings.Repeat("é", 64) + `"}`, []string{"trafficRuleId is longer than 63 characters"}},
		"dot as id":       {`{"trafficRuleId": "."}`, []string{`trafficRuleId must not be "."`}},
		"dots as id":      {`{"trafficRuleId": ".."}`, []string{`trafficRuleId must not be ".."`}},
		"line in id":      {`{"trafficRuleId": "a\nb"}`, []string{`trafficRuleId has characters that cannot be printed: "a\nb"`}},
		"direction in id": {`{"trafficRuleId": "a\u202eb"}`, []string{`trafficRuleId has characters that cannot be printed: "a\u202eb"`}},
		"enumerations": {
			`{"filterType": "flow", "action": "FORWARD_AS_IS", "state": "SUSPENDED"}`,
			[]string{
				"filterType must be one of FLOW, PACKET",
				"action must be one of DROP, FORWARD_DECAPSULATED, FORWARD_ENCAPSULATED, PASSTHROUGH, DUPLICATE_DECAPSULATED, DUPLICATE_ENCAPSULATED",
				"state must be one of ACTIVE, INACTIVE",
			},
		},
		"priority too high":  {`{"priority": -1}`, []string{"priority must be 0 to 255, not -1"}},
		"priority too low":   {`{"priority": 256}`, []string{"priority must be 0 to 255, not 256"}},
		"no filter":          {`{"trafficFilter": []}`, []string{"trafficFilter must have at least one element; an empty object matches all packets"}},
		"two to forward to":  {`{"action": "FORWARD_ENCAPSULATED", "dstInterface": [{}, {}]}`, []string{"dstInterface must have at most 1 element with FORWARD_ENCAPSULATED"}},
		"three to duplicate": {`{"action": "DUPLICATE_ENCAPSULATED", "dstInterface": [{}, {}, {}]}`, []string{"dstInterface has more than 2 elements"}},
		"every element of a filter": {
			`{"trafficFilter": [{}, {"srcAddress": ["10.0.0.0/8", "10.0.0.1/8"], "dstAddress": ["fe80::1%eth0"], "srcPort": ["0"], "dstPort": ["80", "90-80"],
				"protocol": ["ipx"], "tag": [""], "srcTunnelAddress": ["a"], "tgtTunnelAddress": ["b"], "srcTunnelPort": ["c"], "dstTunnelPort": ["d"],
				"qCI": 0, "dSCP": 64, "tC": 256, "uri": ["a\tb"], "packetLabel": [""]}]}`,
			[]string{
				`trafficFilter[1].srcAddress[1] must be "10.0.0.0/8" (no bits may be set beyond the length of a prefix), not "10.0.0.1/8"`,
				`trafficFilter[1].dstAddress[0] must be without a zone, not "fe80::1%eth0"`,
				`trafficFilter[1].srcTunnelAddress[0] must be an address, a prefix or a range of addresses, not "a"`,
				`trafficFilter[1].tgtTunnelAddress[0] must be an address, a prefix or a range of addresses, not "b"`,
				`trafficFilter[1].srcPort[0] must be a port of 1 to 65535 or a range of ports, not "0"`,
				`trafficFilter[1].dstPort[1] must be a range that does not end before it starts, not "90-80"`,
				`trafficFilter[1].srcTunnelPort[0] must be a port of 1 to 65535 or a range of ports, not "c"`,
				`trafficFilter[1].dstTunnelPort[0] must be a port of 1 to 65535 or a range of ports, not "d"`,
				`trafficFilter[1].protocol[0] must be the number of an IP protocol, 0 to 255, or a name such as tcp, udp, sctp or icmp, not "ipx"`,
				"trafficFilter[1].tag[0] is required",
				"trafficFilter[1].uri[0] contains a control character",
				"trafficFilter[1].packetLabel[0] is required",
				"trafficFilter[1].qCI must be 1 to 254, not 0",
				"trafficFilter[1].dSCP must be 0 to 63, not 64",
				"trafficFilter[1].tC must be 0 to 255, not 256",
			},
		},
		"long tag": {`{"trafficFilter": [{"tag": ["` + strings.Repeat("x", 65) + `"]}]}`, []string{"trafficFilter[0].tag[0] is longer than 64 characters"}},
		"families that never meet": {
			`{"trafficFilter": [{"srcAddress": ["10.0.0.1", "10.0.0.2"], "dstAddress": ["2001:db8::1"], "srcTunnelAddress": ["2001:db8::1"], "tgtTunnelAddress": ["10.0.0.1"]}]}`,
			[]string{
				"trafficFilter[0].dstAddress has no address of the family of srcAddress: no packet can match both",
				"trafficFilter[0].tgtTunnelAddress has no address of the family of srcTunnelAddress: no packet can match both",
			},
		},
		"families while an address is wrong": {
			`{"trafficFilter": [{"srcAddress": ["10.0.0.1", "x"], "dstAddress": ["2001:db8::1"]}]}`,
			[]string{`trafficFilter[0].srcAddress[1] must be an address, a prefix or a range of addresses, not "x"`},
		},
		"long list": {
			`{"trafficFilter": [{"dstPort": [` + strings.Repeat(`"80",`, 100) + `"x"]}]}`,
			[]string{"trafficFilter[0].dstPort has more than 100 elements"},
		},
		"interface without a type": {`{"dstInterface": [{}]}`, []string{"dstInterface[0].interfaceType is required"}},
		"interface of no type":     {`{"dstInterface": [{"interfaceType": "VLAN"}]}`, []string{"dstInterface[0].interfaceType must be one of TUNNEL, MAC, IP"}},
		"tunnel without a tunnel":  {`{"dstInterface": [{"interfaceType": "TUNNEL"}]}`, []string{"dstInterface[0].tunnelInfo is required with TUNNEL"}},
		"MAC without an address":   {`{"dstInterface": [{"interfaceType": "MAC", "dstIpAddress": "10.0.0.1"}]}`, []string{"dstInterface[0].dstMacAddress or srcMacAddress is required with MAC"}},
		"IP without an address":    {`{"dstInterface": [{"interfaceType": "IP"}]}`, []string{"dstInterface[0].dstIpAddress is required with IP"}},
		"interface with wrong addresses": {
			`{"dstInterface": [{"interfaceType": "MAC", "srcMacAddress": "1", "dstMacAddress": "0000.5e00.5301", "dstIpAddress": "10.0.0.0/8", "tunnelInfo": {"tunnelSrcAddress": "x"}}]}`,
			[]string{
				"dstInterface[0].tunnelInfo.tunnelType is required",
				`dstInterface[0].tunnelInfo.tunnelSrcAddress must be an IPv4 or IPv6 address, not "x"`,
				`dstInterface[0].srcMacAddress must be a MAC address such as 00:00:5e:00:53:01, not "1"`,
				`dstInterface[0].dstMacAddress must be a MAC address such as 00:00:5e:00:53:01, not "0000.5e00.5301"`,
				`dstInterface[0].dstIpAddress must be an IPv4 or IPv6 address, not "10.0.0.0/8"`,
			},
		},
		"tunnel with wrong members": {
			`{"dstInterface": [{"interfaceType": "TUNNEL", "tunnelInfo": {"tunnelType": "gre", "tunnelDstAddress": "host", "tunnelSpecificData": "` + strings.Repeat("x", mp1.MaxOpaque) + `"}}]}`,
			[]string{
				`dstInterface[0].tunnelInfo.tunnelType must be GTP_U, GRE or another name of up to 32 capitals, digits and underscores, not "gre"`,
				`dstInterface[0].tunnelInfo.tunnelDstAddress must be an IPv4 or IPv6 address, not "host"`,
				"dstInterface[0].tunnelInfo.tunnelSpecificData is larger than 16384 bytes",
			},
		},
		"long tunnel type": {
			`{"dstInterface": [{"interfaceType": "TUNNEL", "tunnelInfo": {"tunnelType": "` + strings.Repeat("A", 33) + `"}}]}`,
			[]string{`dstInterface[0].tunnelInfo.tunnelType must be GTP_U, GRE or another name of up to 32 capitals, digits and underscores, not "` + strings.Repeat("A", 33) + `"`},
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := trafficRule(t, changed(t, goodTrafficRule, x.members))
			require.Equal(t, x.faults, faultsOf(r.Check))
		})
	}
}

func TestALimitOnFiltersIsKept(t *testing.T) {
	r := trafficRule(t, changed(t, goodTrafficRule, `{"trafficFilter": [{}, {}, {"dstPort": ["x"]}]}`))
	validate := func(filters int) []string {
		return faultsOf(func(faults *problem.InvalidParams) { r.Validate(mp1.RuleLimits{Filters: filters}, faults) })
	}
	require.Equal(t, []string{"trafficFilter has more than 2 elements"}, validate(2))
	wrong := []string{`trafficFilter[2].dstPort[0] must be a port of 1 to 65535 or a range of ports, not "x"`}
	require.Equal(t, wrong, validate(3))
	require.Equal(t, wrong, validate(0), "no limit")
}

func TestCheckTrafficRules(t *testing.T) {
	good := trafficRule(t, goodTrafficRule)
	with := func(ids ...string) []mp1.TrafficRule {
		rules := make([]mp1.TrafficRule, len(ids))
		for i, id := range ids {
			rules[i] = good
			rules[i].TrafficRuleID = id
		}
		return rules
	}
	stateless := with("a")
	stateless[0].State = ""
	for name, x := range map[string]struct {
		rules  []mp1.TrafficRule
		limits mp1.RuleLimits
		faults []string
	}{
		"none":             {nil, mp1.RuleLimits{TrafficRules: 1}, []string{}},
		"as many as may":   {with("a", "b"), mp1.RuleLimits{TrafficRules: 2}, []string{}},
		"one too many":     {with("a", "b", ""), mp1.RuleLimits{TrafficRules: 2}, []string{"x.rules has more than 2 elements"}},
		"other bounds":     {with("a", "b"), mp1.RuleLimits{DNSRules: 1}, []string{}},
		"case matters":     {with("a", "A"), mp1.RuleLimits{}, []string{}},
		"ids are required": {with("a", "", ""), mp1.RuleLimits{}, []string{"x.rules[1].trafficRuleId is required", "x.rules[2].trafficRuleId is required"}},
		"an id thrice": {with("a", "b", "a", "a"), mp1.RuleLimits{}, []string{
			`x.rules[2].trafficRuleId must differ from that of x.rules[0]: "a"`, `x.rules[3].trafficRuleId must differ from that of x.rules[0]: "a"`,
		}},
		"limits of a rule":    {with("a"), mp1.RuleLimits{Filters: 1}, []string{}},
		"a state is required": {stateless, mp1.RuleLimits{}, []string{"x.rules[0].state is required"}},
	} {
		t.Run(name, func(t *testing.T) {
			require.Equal(t, x.faults, faultsOf(func(faults *problem.InvalidParams) {
				mp1.CheckTrafficRules("x.rules", x.rules, x.limits, faults)
			}))
		})
	}
}

func TestRulesAreActiveUnlessTheySayOtherwise(t *testing.T) {
	for given, want := range map[mp1.RuleState]mp1.RuleState{
		"": mp1.RuleActive, mp1.RuleActive: mp1.RuleActive, mp1.RuleInactive: mp1.RuleInactive, "OTHER": "OTHER",
	} {
		traffic, dns := mp1.TrafficRule{State: given}, mp1.DNSRule{State: given}
		traffic.SetDefaults()
		dns.SetDefaults()
		require.Equal(t, mp1.TrafficRule{State: want}, traffic)
		require.Equal(t, mp1.DNSRule{State: want}, dns)
	}
}

func TestFaultsAreListedUpToABound(t *testing.T) {
	filter := mp1.TrafficFilter{DstPort: make([]string, mp1.MaxList), Tag: make([]string, mp1.MaxList)}
	rule := mp1.TrafficRule{TrafficFilter: []mp1.TrafficFilter{filter, filter, filter}}
	traffic := make([]mp1.TrafficRule, 1000)
	for i := range traffic {
		traffic[i] = rule
	}
	require.Less(t, len(faultsOf(func(faults *problem.InvalidParams) {
		mp1.CheckTrafficRules("rules", traffic, mp1.RuleLimits{}, faults)
	})), 70)
	require.Less(t, len(faultsOf(func(faults *problem.InvalidParams) {
		mp1.CheckDNSRules("rules", make([]mp1.DNSRule, 1000), mp1.RuleLimits{}, faults)
	})), 70)
}

func TestAMemberOfAWrongTypeIsReportedOnce(t *testing.T) {
	r := trafficRule(t, changed(t, goodTrafficRule, `{"priority": null, "trafficFilter": [{"dstPort": [""]}]}`))
	faults := problem.InvalidParams{
		{Name: "priority", Reason: "must be a number, not a string"},
		{Name: "trafficFilter[0].dstPort[0]", Reason: "must be a string, not a number"},
	}
	r.Check(&faults)
	require.Len(t, faults, 2)
}

const goodDNSRule = `{"dnsRuleId": "d1", "domainName": "www.example.com", "ipAddressType": "IP_V4", "ipAddress": "192.0.2.1", "ttl": 300, "state": "ACTIVE"}`

func TestDNSRules(t *testing.T) {
	label := strings.Repeat("a", 63)
	longest := strings.Join([]string{label, label, label, strings.Repeat("a", 61)}, ".")
	const notAName = `domainName must be a domain name, whose first label may be "*", not `
	for name, x := range map[string]struct {
		members string
		faults  []string
	}{
		"every member":         {`{}`, []string{}},
		"no ttl":               {`{"ttl": null}`, []string{}},
		"ttl of 0":             {`{"ttl": 0}`, []string{}},
		"longest ttl":          {`{"ttl": 2147483647}`, []string{}},
		"IPv6":                 {`{"ipAddressType": "IP_V6", "ipAddress": "2001:db8::1"}`, []string{}},
		"private address":      {`{"ipAddress": "10.0.0.1"}`, []string{}},
		"one label":            {`{"domainName": "gateway"}`, []string{}},
		"trailing dot":         {`{"domainName": "www.example.com."}`, []string{}},
		"underscores":          {`{"domainName": "_sip._udp.example.com"}`, []string{}},
		"digits and hyphens":   {`{"domainName": "xn--bcher-kva.1-2.3"}`, []string{}},
		"wildcard":             {`{"domainName": "*.example.com"}`, []string{}},
		"longest name":         {`{"domainName": "` + longest + `"}`, []string{}},
		"longest name, dotted": {`{"domainName": "` + longest + `."}`, []string{}},
		"longest wildcard":     {`{"domainName": "*.` + longest[2:] + `"}`, []string{}},

		"no members at all": {
			`{"dnsRuleId": null, "domainName": null, "ipAddressType": null, "ipAddress": null, "ttl": null, "state": null}`,
			[]string{"dnsRuleId is required", "domainName is required", "ipAddressType is required", "ipAddress is required", "state is required"},
		},
		"dots as id":         {`{"dnsRuleId": ".."}`, []string{`dnsRuleId must not be ".."`}},
		"name too long":      {`{"domainName": "` + longest + `a"}`, []string{notAName + `"` + longest[:64] + `…"`}},
		"wildcard too long":  {`{"domainName": "*.` + longest[1:] + `"}`, []string{notAName + `"*.` + longest[1:63] + `…"`}},
		"label too long":     {`{"domainName": "` + label + `a.b"}`, []string{notAName + `"` + label + `a…"`}},
		"no label":           {`{"domainName": "a..b"}`, []string{notAName + `"a..b"`}},
		"leading dot":        {`{"domainName": ".a"}`, []string{notAName + `".a"`}},
		"root":               {`{"domainName": "."}`, []string{notAName + `"."`}},
		"wildcard of all":    {`{"domainName": "*"}`, []string{notAName + `"*"`}},
		"wildcard of root":   {`{"domainName": "*."}`, []string{notAName + `"*."`}},
		"two wildcards":      {`{"domainName": "*.*.a"}`, []string{notAName + `"*.*.a"`}},
		"wildcard inside":    {`{"domainName": "a.*.b"}`, []string{notAName + `"a.*.b"`}},
		"wildcard in label":  {`{"domainName": "a*.b"}`, []string{notAName + `"a*.b"`}},
		"hyphen first":       {`{"domainName": "-a.b"}`, []string{notAName + `"-a.b"`}},
		"hyphen last":        {`{"domainName": "a-.b"}`, []string{notAName + `"a-.b"`}},
		"letters of Unicode": {`{"domainName": "bücher.example"}`, []string{notAName + `"bücher.example"`}},
		"space":              {`{"domainName": "a b"}`, []string{notAName + `"a b"`}},
		"URL":                {`{"domainName": "https://a/"}`, []string{notAName + `"https://a/"`}},

		"unknown type":          {`{"ipAddressType": "IPv4"}`, []string{"ipAddressType must be one of IP_V4, IP_V6"}},
		"IPv6 for IPv4":         {`{"ipAddress": "2001:db8::1"}`, []string{`ipAddress must be an IPv4 address as ipAddressType is IP_V4, not "2001:db8::1"`}},
		"IPv4 for IPv6":         {`{"ipAddressType": "IP_V6"}`, []string{`ipAddress must be an IPv6 address as ipAddressType is IP_V6, not "192.0.2.1"`}},
		"IPv4 in IPv6":          {`{"ipAddressType": "IP_V6", "ipAddress": "::ffff:192.0.2.1"}`, []string{`ipAddress must be in the notation of IPv4 (192.0.2.1), not "::ffff:192.0.2.1"`}},
		"no address":            {`{"ipAddress": "192.0.2.256"}`, []string{`ipAddress must be an IPv4 or IPv6 address, not "192.0.2.256"`}},
		"prefix":                {`{"ipAddress": "192.0.2.1/32"}`, []string{`ipAddress must be an IPv4 or IPv6 address, not "192.0.2.1/32"`}},
		"zone":                  {`{"ipAddressType": "IP_V6", "ipAddress": "fe80::1%eth0"}`, []string{`ipAddress must be without a zone, not "fe80::1%eth0"`}},
		"unspecified":           {`{"ipAddress": "0.0.0.0"}`, []string{`ipAddress must be the address of a host, not "0.0.0.0"`}},
		"unspecified IPv6":      {`{"ipAddressType": "IP_V6", "ipAddress": "::"}`, []string{`ipAddress must be the address of a host, not "::"`}},
		"multicast":             {`{"ipAddress": "224.0.0.1"}`, []string{`ipAddress must be the address of a host, not "224.0.0.1"`}},
		"multicast IPv6":        {`{"ipAddressType": "IP_V6", "ipAddress": "ff02::1"}`, []string{`ipAddress must be the address of a host, not "ff02::1"`}},
		"broadcast":             {`{"ipAddress": "255.255.255.255"}`, []string{`ipAddress must be the address of a host, not "255.255.255.255"`}},
		"ttl below 0":           {`{"ttl": -1}`, []string{"ttl must be 0 to 2147483647 seconds, not -1"}},
		"ttl of more than 2^31": {`{"ttl": 2147483648}`, []string{"ttl must be 0 to 2147483647 seconds, not 2147483648"}},
		"unknown state":         {`{"state": "active"}`, []string{"state must be one of ACTIVE, INACTIVE"}},
	} {
		t.Run(name, func(t *testing.T) {
			var r mp1.DNSRule
			require.NoError(t, json.Unmarshal([]byte(changed(t, goodDNSRule, x.members)), &r))
			require.Equal(t, x.faults, faultsOf(r.Check))
			for i, f := range x.faults {
				x.faults[i] = "rules[0]." + f
			}
			require.Equal(t, x.faults, faultsOf(func(faults *problem.InvalidParams) {
				mp1.CheckDNSRules("rules", []mp1.DNSRule{r}, mp1.RuleLimits{DNSRules: 1}, faults)
			}))
		})
	}
}

func TestCheckDNSRules(t *testing.T) {
	rules := make([]mp1.DNSRule, 3)
	for i, id := range []string{"a", "A", "a"} {
		require.NoError(t, json.Unmarshal([]byte(goodDNSRule), &rules[i]))
		rules[i].DNSRuleID = id
	}
	check := func(limits mp1.RuleLimits) []string {
		return faultsOf(func(faults *problem.InvalidParams) { mp1.CheckDNSRules("rules", rules, limits, faults) })
	}
	twice := []string{`rules[2].dnsRuleId must differ from that of rules[0]: "a"`}
	require.Equal(t, twice, check(mp1.RuleLimits{}))
	require.Equal(t, twice, check(mp1.RuleLimits{DNSRules: 3, TrafficRules: 1}), "the same name may have several rules, an id not")
	require.Equal(t, []string{"rules has more than 2 elements"}, check(mp1.RuleLimits{DNSRules: 2}))
}

func TestDNSRuleUpdates(t *testing.T) {
	for name, x := range map[string]struct {
		text   string
		faults []string
	}{
		"state alone":          {`{"state": "INACTIVE"}`, []string{}},
		"the whole rule":       {goodDNSRule, []string{}},
		"an address of either": {`{"state": "ACTIVE", "ipAddress": "2001:db8::1"}`, []string{}},
		"a type alone":         {`{"state": "ACTIVE", "ipAddressType": "IP_V6"}`, []string{}},
		"nothing":              {`{}`, []string{"state is required"}},
		"family and type":      {`{"state": "ACTIVE", "ipAddressType": "IP_V6", "ipAddress": "192.0.2.1"}`, []string{`ipAddress must be an IPv6 address as ipAddressType is IP_V6, not "192.0.2.1"`}},
		"all wrong": {
			`{"dnsRuleId": ".", "domainName": "*", "ipAddressType": "IP", "ipAddress": "::", "ttl": -1, "state": "ON"}`,
			[]string{
				`dnsRuleId must not be "."`, `domainName must be a domain name, whose first label may be "*", not "*"`, "ipAddressType must be one of IP_V4, IP_V6",
				`ipAddress must be the address of a host, not "::"`, "ttl must be 0 to 2147483647 seconds, not -1", "state must be one of ACTIVE, INACTIVE",
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			var u mp1.DNSRuleUpdate
			require.NoError(t, json.Unmarshal([]byte(x.text), &u))
			require.Equal(t, x.faults, faultsOf(u.Check))
		})
	}
}

func BenchmarkCheckTrafficRules(b *testing.B) {
	rules := make([]mp1.TrafficRule, 16)
	for i := range rules {
		if err := json.Unmarshal([]byte(goodTrafficRule), &rules[i]); err != nil {
			b.Fatal(err)
		}
		rules[i].TrafficRuleID = fmt.Sprintf("rule-%d", i)
	}
	b.ReportAllocs()
	for b.Loop() {
		var faults problem.InvalidParams
		mp1.CheckTrafficRules("appTrafficRule", rules, mp1.RuleLimits{}, &faults)
		if len(faults) > 0 {
			b.Fatal(faults)
		}
	}
}
