package mm5_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/api/mm5"
	"github.com/openmep/mep/api/mp1"
	"github.com/openmep/mep/api/problem"
)

// fromMEPM is a configuration as sent by EdgeGallery's MEPM: with its spellings, with all members of every object whether they
// have a value or not, and without states.
const fromMEPM = `{
	"appName": "video", "appSupportMp1": true, "tenantId": "t1", "origin": "meo",
	"appTrafficRule": [{
		"trafficRuleId": "rule1", "filterType": "FLOW", "priority": 1, "action": "DUPLICATED_DECAPSULATED",
		"trafficFilter": [{
			"trafficFilterId": "", "srcAddress": ["192.168.1.1/28"], "srcPort": ["8080"], "dstAddress": ["10.2.3.0/24"], "dstPort": ["443"], "protocol": ["TCP"],
			"qCI": 0, "dSCP": 0, "tC": 0, "tag": null, "srcTunnelAddress": ["192.0.2.1"], "srcTunnelPort": null, "dstTunnelPort": ["2152"]
		}],
		"dstInterface": [{
			"dstInterfaceId": "", "interfaceType": "TUNNEL", "srcMacAddress": "", "dstMacAddress": "", "dstIpAddress": "",
			"TunnelInfo": {"tunnelInfoId": "", "tunnelType": "GTP_U", "tunnelDstAddress": "192.0.2.2", "tunnelSrcAddress": "192.0.2.1", "tunnelSpecificData": ""}
		}, {
			"dstInterfaceId": "", "interfaceType": "", "srcMacAddress": "", "dstMacAddress": "", "dstIpAddress": "",
			"TunnelInfo": {"tunnelInfoId": "", "tunnelType": "", "tunnelDstAddress": "", "tunnelSrcAddress": "", "tunnelSpecificData": ""}
		}]
	}],
	"appDnsRule": [{"dnsRuleId": "dns1", "domainName": "www.example.com", "ipAddressType": "IP_V4", "ipAddress": "192.0.2.5", "ttl": 0}]
}`

func TestAConfigurationOfEdgeGallerysMEPMIsTranslated(t *testing.T) {
	var d mm5.AppDConfig
	read(t, fromMEPM, &d)
	require.Empty(t, faultsOf(d.Check))
	one := 1
	require.Equal(t, mm5.ConfigPlatformForAppRequest{
		AppName: "video",
		AppTrafficRule: []mp1.TrafficRule{{
			TrafficRuleID: "rule1", FilterType: mp1.FilterFlow, Priority: &one, Action: mp1.ActionDuplicateDecapsulated, State: mp1.RuleActive,
			TrafficFilter: []mp1.TrafficFilter{{
				SrcAddress: []string{"192.168.1.0/28"}, SrcPort: []string{"8080"}, DstAddress: []string{"10.2.3.0/24"}, DstPort: []string{"443"},
				Protocol: []string{"TCP"}, SrcTunnelAddress: []string{"192.0.2.1"}, DstTunnelPort: []string{"2152"},
			}},
			DstInterface: []mp1.DestinationInterface{{
				InterfaceType: mp1.InterfaceTunnel,
				TunnelInfo: &mp1.TunnelInfo{
					TunnelType: "GTP_U", TunnelDstAddress: "192.0.2.2", TunnelSrcAddress: "192.0.2.1", TunnelSpecificData: json.RawMessage(`""`),
				},
			}},
		}},
		AppDNSRule: []mp1.DNSRule{{
			DNSRuleID: "dns1", DomainName: "www.example.com", IPAddressType: mp1.IPv4, IPAddress: "192.0.2.5", State: mp1.RuleActive,
		}},
	}, d.Request())
}

func TestTranslationLeavesTheOriginalAlone(t *testing.T) {
	var d, before mm5.AppDConfig
	read(t, fromMEPM, &d)
	read(t, fromMEPM, &before)
	r := d.Request()
	r.AppTrafficRule[0].TrafficFilter[0].SrcAddress[0] = "changed"
	r.AppDNSRule[0].DomainName = "changed"
	require.Equal(t, before, d)

	request := mm5.ConfigPlatformForAppRequest{AppTrafficRule: []mp1.TrafficRule{{Action: mp1.ActionForwardEncapsulated}}}
	mm5.AppDConfigOf(request, false)
	require.Equal(t, mp1.ActionForwardEncapsulated, request.AppTrafficRule[0].Action)
}

func TestValuesOfEdgeGalleryAreTranslated(t *testing.T) {
	for given, want := range map[mp1.TrafficAction]struct{ native, back mp1.TrafficAction }{
		"DROP":                    {mp1.ActionDrop, "DROP"},
		"PASSTHROUGH":             {mp1.ActionPassthrough, "PASSTHROUGH"},
		"FORWARD_DECAPSULATED":    {mp1.ActionForwardDecapsulated, "FORWARD_DECAPSULATED"},
		"FORWARD_AS_IS":           {mp1.ActionForwardEncapsulated, "FORWARD_AS_IS"},
		"FORWARD_ENCAPSULATED":    {mp1.ActionForwardEncapsulated, "FORWARD_AS_IS"},
		"DUPLICATE_DECAPSULATED":  {mp1.ActionDuplicateDecapsulated, "DUPLICATE_DECAPSULATED"},
		"DUPLICATED_DECAPSULATED": {mp1.ActionDuplicateDecapsulated, "DUPLICATE_DECAPSULATED"},
		"DUPLICATE_AS_IS":         {mp1.ActionDuplicateEncapsulated, "DUPLICATE_AS_IS"},
		"DUPLICATE_ENCAPSULATED":  {mp1.ActionDuplicateEncapsulated, "DUPLICATE_AS_IS"},
		"ANOTHER":                 {"ANOTHER", "ANOTHER"},
	} {
		d := mm5.AppDConfig{AppTrafficRule: []mp1.TrafficRule{{Action: given}}}
		r := d.Request()
		require.Equal(t, want.native, r.AppTrafficRule[0].Action, given)
		require.Equal(t, want.back, mm5.AppDConfigOf(r, false).AppTrafficRule[0].Action, given)
	}
	for given, want := range map[mp1.IPAddressType]mp1.IPAddressType{
		"IPv4": mp1.IPv4, "IPv6": mp1.IPv6, "IP_V4": mp1.IPv4, "IP_V6": mp1.IPv6, "ipv4": "ipv4",
	} {
		d := mm5.AppDConfig{AppDNSRule: []mp1.DNSRule{{IPAddressType: given}}}
		require.Equal(t, want, d.Request().AppDNSRule[0].IPAddressType, given)
	}
}

func TestAConfigurationIsTranslatedBack(t *testing.T) {
	var d mm5.AppDConfig
	read(t, fromMEPM, &d)
	r := d.Request()
	back := mm5.AppDConfigOf(r, d.AppSupportMp1)
	require.Equal(t, r, back.Request())
	text, err := json.Marshal(back)
	require.NoError(t, err)
	require.JSONEq(t, `{
		"appName": "video", "appSupportMp1": true,
		"appTrafficRule": [{
			"trafficRuleId": "rule1", "filterType": "FLOW", "priority": 1, "action": "DUPLICATE_DECAPSULATED", "state": "ACTIVE",
			"trafficFilter": [{
				"srcAddress": ["192.168.1.0/28"], "srcPort": ["8080"], "dstAddress": ["10.2.3.0/24"], "dstPort": ["443"], "protocol": ["TCP"],
				"srcTunnelAddress": ["192.0.2.1"], "dstTunnelPort": ["2152"]
			}],
			"dstInterface": [{
				"interfaceType": "TUNNEL",
				"tunnelInfo": {"tunnelType": "GTP_U", "tunnelDstAddress": "192.0.2.2", "tunnelSrcAddress": "192.0.2.1", "tunnelSpecificData": ""}
			}]
		}],
		"appDNSRule": [{"dnsRuleId": "dns1", "domainName": "www.example.com", "ipAddressType": "IP_V4", "ipAddress": "192.0.2.5", "state": "ACTIVE"}]
	}`, string(text))

	empty, err := json.Marshal(mm5.AppDConfigOf(mm5.ConfigPlatformForAppRequest{AppName: "a"}, false))
	require.NoError(t, err)
	require.JSONEq(t, `{"appTrafficRule": [], "appDNSRule": [], "appSupportMp1": false, "appName": "a"}`, string(empty))
}

func TestConfigurationsOfEdgeGallery(t *testing.T) {
	const (
		rule = `{"trafficRuleId": "t", "filterType": "PACKET", "priority": 255, "action": "FORWARD_AS_IS", "trafficFilter": [], "dstInterface": null}`
		dns  = `{"dnsRuleId": "d", "domainName": "a.example", "ipAddressType": "IPv6", "ipAddress": "2001:db8::1", "ttl": 30}`
	)
	id63 := strings.Repeat("i", 63)
	for name, x := range map[string]struct {
		text   string
		limits mp1.RuleLimits
		faults []string
	}{
		"name alone":        {`{"appName": "a"}`, mp1.RuleLimits{}, []string{}},
		"longest name":      {`{"appName": "` + strings.Repeat("é", 63) + `"}`, mp1.RuleLimits{}, []string{}},
		"rules":             {`{"appName": "a", "appTrafficRule": [` + rule + `], "appDNSRule": [` + dns + `]}`, mp1.RuleLimits{TrafficRules: 1, DNSRules: 1, Filters: 1}, []string{}},
		"ids of 63":         {`{"appName": "a", "appDNSRule": [` + strings.Replace(dns, `"d"`, `"`+id63+`"`, 1) + `]}`, mp1.RuleLimits{}, []string{}},
		"two rules, a name": {`{"appName": "a", "appDNSRule": [` + dns + `, ` + strings.Replace(dns, `"d"`, `"e"`, 1) + `]}`, mp1.RuleLimits{}, []string{}},

		"no name":        {`{}`, mp1.RuleLimits{}, []string{"appName is required"}},
		"long name":      {`{"appName": "` + strings.Repeat("a", 64) + `"}`, mp1.RuleLimits{}, []string{"appName is longer than 63 characters"}},
		"very long name": {`{"appName": "` + strings.Repeat("a", 129) + `"}`, mp1.RuleLimits{}, []string{"appName is longer than 63 characters"}},
		"limits": {
			`{"appName": "a", "appTrafficRule": [` + rule + `, ` + rule + `], "appDNSRule": [` + dns + `, ` + dns + `]}`, mp1.RuleLimits{TrafficRules: 1, DNSRules: 1},
			[]string{"appTrafficRule has more than 1 elements", "appDNSRule has more than 1 elements"},
		},
		"id of 64": {
			`{"appName": "a", "appDNSRule": [` + strings.Replace(dns, `"d"`, `"`+id63+`i"`, 1) + `]}`, mp1.RuleLimits{},
			[]string{"appDNSRule[0].dnsRuleId is longer than 63 characters"},
		},
		"family of another type": {
			`{"appName": "a", "appDNSRule": [` + strings.Replace(dns, "IPv6", "IPv4", 1) + `]}`, mp1.RuleLimits{},
			[]string{`appDNSRule[0].ipAddress must be an IPv4 address as ipAddressType is IP_V4, not "2001:db8::1"`},
		},
		"ttl too large": {
			`{"appName": "a", "appDNSRule": [` + strings.Replace(dns, "30", "4294967295", 1) + `]}`, mp1.RuleLimits{},
			[]string{"appDNSRule[0].ttl must be 0 to 2147483647 seconds, not 4294967295"},
		},
		"no list of filters": {
			`{"appName": "a", "appTrafficRule": [` + strings.Replace(rule, "[]", "null", 1) + `]}`, mp1.RuleLimits{},
			[]string{"appTrafficRule[0].trafficFilter must have at least one element; an empty object matches all packets"},
		},
		"port": {
			`{"appName": "a", "appTrafficRule": [` + strings.Replace(rule, "[]", `[{"dstPort": ["70000"], "srcAddress": ["10.0.0.1/33"], "qCI": -1}]`, 1) + `]}`, mp1.RuleLimits{},
			[]string{
				`appTrafficRule[0].trafficFilter[0].srcAddress[0] must be a prefix with a length of 0 to 32 or a mask of leading ones, not "10.0.0.1/33"`,
				`appTrafficRule[0].trafficFilter[0].dstPort[0] must be a port of 1 to 65535 or a range of ports, not "70000"`,
				"appTrafficRule[0].trafficFilter[0].qCI must be 1 to 254, not -1",
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			var d mm5.AppDConfig
			read(t, x.text, &d)
			require.Equal(t, x.faults, faultsOf(func(faults *problem.InvalidParams) { d.Validate(x.limits, faults) }))
			if x.limits == (mp1.RuleLimits{}) {
				require.Equal(t, x.faults, faultsOf(d.Check))
			}
		})
	}
}

func TestAnEmptyListOfFiltersMatchesAllPackets(t *testing.T) {
	d := mm5.AppDConfig{AppTrafficRule: []mp1.TrafficRule{{TrafficFilter: []mp1.TrafficFilter{}}, {}}}
	r := d.Request()
	require.Equal(t, []mp1.TrafficFilter{{}}, r.AppTrafficRule[0].TrafficFilter)
	require.Empty(t, r.AppTrafficRule[1].TrafficFilter)
}

func TestTaskProgressIsSpeltAsEdgeGalleryDoes(t *testing.T) {
	for name, x := range map[string]struct {
		state      mm5.OperationState
		percentage int
		want       string
	}{
		"starting":   {mm5.OperationStarting, 0, `"configResult": "PROCESSING", "configPhase": "0"`},
		"processing": {mm5.OperationProcessing, 42, `"configResult": "PROCESSING", "configPhase": "42"`},
		"completed":  {mm5.OperationCompleted, 100, `"configResult": "SUCCESS", "configPhase": "100"`},
		"failed":     {mm5.OperationFailed, 80, `"configResult": "FAILURE", "configPhase": "0"`},
	} {
		t.Run(name, func(t *testing.T) {
			text, err := json.Marshal(mm5.TaskProgressOf(mm5.AppLcmOpOcc{
				ID: "op", AppInstanceID: "app", OperationState: x.state, Percentage: x.percentage, Detail: "because",
			}))
			require.NoError(t, err)
			require.JSONEq(t, `{"taskId": "op", "appInstanceId": "app", "Detailed": "because", `+x.want+`}`, string(text))
		})
	}
}

func TestCapabilitiesAreSpeltAsEdgeGalleryDoes(t *testing.T) {
	text, err := json.Marshal(mm5.PlatformCapability{
		CapabilityID: "i", CapabilityName: "n", Status: mp1.StateActive, Version: "1", Consumers: []mm5.CapabilityConsumer{{ApplicationInstanceID: "app"}},
	})
	require.NoError(t, err)
	require.JSONEq(t, `{"capabilityId": "i", "capabilityName": "n", "status": "ACTIVE", "version": "1", "consumers": [{"applicationInstanceId": "app"}]}`, string(text))
}

// FuzzAppDConfig checks that no configuration makes the translation panic, and that a valid one keeps its meaning when
// translated back and forth.
func FuzzAppDConfig(f *testing.F) {
	f.Add(fromMEPM)
	f.Add(`{"appName": "a", "appTrafficRule": [{"trafficFilter": []}], "appDNSRule": [{"ttl": 0, "ipAddressType": "IPv4"}]}`)
	f.Fuzz(func(t *testing.T, text string) {
		var d mm5.AppDConfig
		if json.Unmarshal([]byte(text), &d) != nil {
			return
		}
		faults := faultsOf(d.Check)
		require.Less(t, len(faults), 100)
		if len(faults) > 0 {
			return
		}
		r := d.Request()
		require.Empty(t, faultsOf(r.Check))
		back := mm5.AppDConfigOf(r, d.AppSupportMp1)
		require.Empty(t, faultsOf(back.Check))
		require.Equal(t, r, back.Request())
	})
}
