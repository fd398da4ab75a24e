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

// read decodes text, in which "LONG" stands for a value that is too long.
func read(t *testing.T, text string, v any) {
	t.Helper()
	text = strings.ReplaceAll(text, "LONG", strings.Repeat("x", mp1.MaxOpaque))
	require.NoError(t, json.Unmarshal([]byte(text), v))
}

const (
	trafficRule = `{"trafficRuleId": "t", "filterType": "FLOW", "priority": 1, "trafficFilter": [{}], "action": "DROP"}`
	dnsRule     = `{"dnsRuleId": "d", "domainName": "a.example", "ipAddressType": "IP_V4", "ipAddress": "192.0.2.1"}`
	transport   = `{"transport": {"type": "REST_HTTP", "protocol": "HTTP", "version": "2.0"}, "serializers": ["JSON"], "labels": ["l"]}`
)

func TestConfigurations(t *testing.T) {
	for name, x := range map[string]struct {
		text   string
		limits mp1.RuleLimits
		faults []string
	}{
		"nothing": {`{}`, mp1.RuleLimits{}, []string{}},
		"everything": {
			`{"appName": "a", "appDId": "d", "appServiceRequired": [{"serName": "s", "version": "1"}], "appServiceOptional": [{"serName": "s", "version": "1"}],
				"appServiceProduced": [{"serName": "s", "version": "1"}], "appFeatureRequired": [{"featureName": "f", "version": "1"}],
				"appFeatureOptional": [{"featureName": "f", "version": "1"}], "transportDependencies": [` + transport + `],
				"appTrafficRule": [` + trafficRule + `], "appDNSRule": [` + dnsRule + `], "appLatency": {"maxLatency": 1},
				"userContextTransferCapability": {}, "appNetworkPolicy": {}}`,
			mp1.RuleLimits{TrafficRules: 1, DNSRules: 1, Filters: 1}, []string{},
		},
		"longest name": {`{"appName": "` + strings.Repeat("é", 64) + `"}`, mp1.RuleLimits{}, []string{}},
		"name of too many bytes": {
			`{"appName": "` + strings.Repeat("é", 64) + `a"}`, mp1.RuleLimits{}, []string{"appName is longer than 128 bytes"},
		},
		"name of too many characters": {
			`{"appName": "` + strings.Repeat("a", 129) + `"}`, mp1.RuleLimits{}, []string{"appName is longer than 128 bytes"},
		},
		"name of more than a line": {`{"appName": "a\nb"}`, mp1.RuleLimits{}, []string{"appName contains a control character"}},
		"every list has something wrong": {
			`{"appDId": "LONG", "appServiceRequired": [{"serName": "s"}], "appServiceOptional": [{"version": "1"}], "appServiceProduced": [{"serName": "s"}],
				"appFeatureRequired": [{"version": "1"}], "appFeatureOptional": [{"featureName": "f"}],
				"transportDependencies": [{"transport": {"type": "REST_HTTP", "protocol": "HTTP", "version": "2.0"}, "serializers": ["JSON"]}],
				"appTrafficRule": [` + trafficRule + `, ` + trafficRule + `], "appDNSRule": [` + dnsRule + `, ` + dnsRule + `],
				"appLatency": "LONG", "userContextTransferCapability": "LONG", "appNetworkPolicy": "LONG"}`,
			mp1.RuleLimits{},
			[]string{
				"appDId is longer than 255 characters", "appServiceRequired[0].version is required", "appServiceOptional[0].serName is required",
				"appServiceProduced[0].version is required", "appFeatureRequired[0].featureName is required", "appFeatureOptional[0].version is required",
				"transportDependencies[0].labels must have at least one element",
				`appTrafficRule[1].trafficRuleId must differ from that of appTrafficRule[0]: "t"`,
				`appDNSRule[1].dnsRuleId must differ from that of appDNSRule[0]: "d"`,
				"appLatency is larger than 16384 bytes", "userContextTransferCapability is larger than 16384 bytes",
				"appNetworkPolicy is larger than 16384 bytes",
			},
		},
		"limits": {
			`{"appTrafficRule": [` + trafficRule + `, ` + trafficRule + `], "appDNSRule": [` + dnsRule + `, ` + dnsRule + `]}`,
			mp1.RuleLimits{TrafficRules: 1, DNSRules: 1},
			[]string{"appTrafficRule has more than 1 elements", "appDNSRule has more than 1 elements"},
		},
		"limit on filters": {
			`{"appTrafficRule": [` + strings.Replace(trafficRule, "[{}]", "[{}, {}]", 1) + `]}`, mp1.RuleLimits{Filters: 1},
			[]string{"appTrafficRule[0].trafficFilter has more than 1 elements"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			var r mm5.ConfigPlatformForAppRequest
			read(t, x.text, &r)
			require.Equal(t, x.faults, faultsOf(func(faults *problem.InvalidParams) { r.Validate(x.limits, faults) }))
			if x.limits == (mp1.RuleLimits{}) {
				require.Equal(t, x.faults, faultsOf(r.Check))
			}
		})
	}
}

func TestRulesOfAConfigurationAreActiveUnlessTheySayOtherwise(t *testing.T) {
	var r mm5.ConfigPlatformForAppRequest
	inactive := func(rule string) string { return strings.TrimSuffix(rule, "}") + `, "state": "INACTIVE"}` }
	read(t, `{"appTrafficRule": [`+trafficRule+`, `+inactive(strings.Replace(trafficRule, `"t"`, `"u"`, 1))+`],
		"appDNSRule": [`+dnsRule+`, `+inactive(strings.Replace(dnsRule, `"d"`, `"e"`, 1))+`]}`, &r)
	require.Empty(t, faultsOf(r.Check))
	require.Equal(t, mp1.RuleActive, r.AppTrafficRule[0].State)
	require.Equal(t, mp1.RuleInactive, r.AppTrafficRule[1].State)
	require.Equal(t, mp1.RuleActive, r.AppDNSRule[0].State)
	require.Equal(t, mp1.RuleInactive, r.AppDNSRule[1].State)
}

func TestTheNameOfAnAppThatIsNoTextIsReportedOnce(t *testing.T) {
	r := mm5.ConfigPlatformForAppRequest{AppName: strings.Repeat("a", 129)}
	faults := problem.InvalidParams{{Name: "appName", Reason: "must be a string, not a number"}}
	r.Check(&faults)
	require.Len(t, faults, 1)
}

func TestTerminateRequests(t *testing.T) {
	for name, x := range map[string]struct {
		text, same string
		faults     []string
	}{
		"forceful":                    {`{"terminationType": "FORCEFUL"}`, "", []string{}},
		"graceful":                    {`{"terminationType": "GRACEFUL", "gracefulTerminationTimeout": 30}`, "", []string{}},
		"longest":                     {`{"terminationType": "GRACEFUL", "gracefulTerminationTimeout": 86400}`, "", []string{}},
		"graceful, default":           {`{"terminationType": "GRACEFUL"}`, "", []string{}},
		"0 is as none":                {`{"terminationType": "GRACEFUL", "gracefulTerminationTimeout": 0}`, `{"terminationType": "GRACEFUL"}`, []string{}},
		"0 is as none, forceful":      {`{"terminationType": "FORCEFUL", "gracefulTerminationTimeout": 0}`, `{"terminationType": "FORCEFUL"}`, []string{}},
		"nothing":                     {`{}`, "", []string{"terminationType is required"}},
		"another type":                {`{"terminationType": "KILL"}`, "", []string{"terminationType must be one of FORCEFUL, GRACEFUL"}},
		"time-out for what is forced": {`{"terminationType": "FORCEFUL", "gracefulTerminationTimeout": 1}`, "", []string{"gracefulTerminationTimeout must be absent unless terminationType is GRACEFUL"}},
		"negative":                    {`{"terminationType": "GRACEFUL", "gracefulTerminationTimeout": -1}`, "", []string{"gracefulTerminationTimeout must be 1 to 86400 seconds, or absent for the platform's default, not -1"}},
		"too long":                    {`{"terminationType": "GRACEFUL", "gracefulTerminationTimeout": 86401}`, "", []string{"gracefulTerminationTimeout must be 1 to 86400 seconds, or absent for the platform's default, not 86401"}},
	} {
		t.Run(name, func(t *testing.T) {
			var r, same mm5.TerminateAppRequest
			read(t, x.text, &r)
			require.Equal(t, x.faults, faultsOf(r.Check))
			if x.same == "" {
				x.same = x.text
			}
			read(t, x.same, &same)
			require.Equal(t, same, r)
		})
	}
}

func TestOperateRequests(t *testing.T) {
	for name, x := range map[string]struct {
		text, same string
		faults     []string
	}{
		"start":                     {`{"changeStateTo": "STARTED"}`, "", []string{}},
		"start, time-out of 0":      {`{"changeStateTo": "STARTED", "gracefulStopTimeout": 0}`, `{"changeStateTo": "STARTED"}`, []string{}},
		"stop":                      {`{"changeStateTo": "STOPPED", "stopType": "FORCEFUL"}`, "", []string{}},
		"stop without a type":       {`{"changeStateTo": "STOPPED"}`, `{"changeStateTo": "STOPPED", "stopType": "FORCEFUL"}`, []string{}},
		"graceful":                  {`{"changeStateTo": "STOPPED", "stopType": "GRACEFUL", "gracefulStopTimeout": 1}`, "", []string{}},
		"graceful, time-out of 0":   {`{"changeStateTo": "STOPPED", "stopType": "GRACEFUL", "gracefulStopTimeout": 0}`, `{"changeStateTo": "STOPPED", "stopType": "GRACEFUL"}`, []string{}},
		"nothing":                   {`{}`, "", []string{"changeStateTo is required"}},
		"another state":             {`{"changeStateTo": "PAUSED"}`, "", []string{"changeStateTo must be one of STARTED, STOPPED"}},
		"another type":              {`{"changeStateTo": "STOPPED", "stopType": "KILL"}`, "", []string{"stopType must be one of FORCEFUL, GRACEFUL"}},
		"start with a type":         {`{"changeStateTo": "STARTED", "stopType": "FORCEFUL"}`, "", []string{"stopType must be absent unless changeStateTo is STOPPED"}},
		"start with a time-out":     {`{"changeStateTo": "STARTED", "gracefulStopTimeout": 5}`, "", []string{"gracefulStopTimeout must be absent unless stopType is GRACEFUL"}},
		"time-out without a type":   {`{"changeStateTo": "STOPPED", "gracefulStopTimeout": 5}`, `{"changeStateTo": "STOPPED", "stopType": "FORCEFUL", "gracefulStopTimeout": 5}`, []string{"gracefulStopTimeout must be absent unless stopType is GRACEFUL"}},
		"time-out that is too long": {`{"changeStateTo": "STOPPED", "stopType": "GRACEFUL", "gracefulStopTimeout": 100000}`, "", []string{"gracefulStopTimeout must be 1 to 86400 seconds, or absent for the platform's default, not 100000"}},
	} {
		t.Run(name, func(t *testing.T) {
			var r, same mm5.OperateAppRequest
			read(t, x.text, &r)
			require.Equal(t, x.faults, faultsOf(r.Check))
			if x.same == "" {
				x.same = x.text
			}
			read(t, x.same, &same)
			require.Equal(t, same, r)
		})
	}
}
