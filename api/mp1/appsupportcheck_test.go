package mp1_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/api/mp1"
	"github.com/openmep/mep/api/problem"
)

type checked interface{ Check(*problem.InvalidParams) }

// requireFaults decodes text into v and compares its faults with the expected ones.
func requireFaults(t *testing.T, v checked, text string, faults []string) {
	t.Helper()
	require.NoError(t, json.Unmarshal([]byte(text), v))
	require.Equal(t, faults, faultsOf(v.Check))
}

func TestTerminationSubscriptions(t *testing.T) {
	for name, x := range map[string]struct {
		text   string
		faults []string
	}{
		"all": {`{"subscriptionType": "AppTerminationNotificationSubscription", "callbackReference": "http://a/b", "appInstanceId": "x"}`, []string{}},
		"without the instance, which the path names": {
			`{"subscriptionType": "AppTerminationNotificationSubscription", "callbackReference": "http://a/b"}`, []string{},
		},
		"nothing": {`{}`, []string{
			"subscriptionType must be AppTerminationNotificationSubscription", "callbackReference is required",
		}},
		"another type": {
			`{"subscriptionType": "SerAvailabilityNotificationSubscription", "callbackReference": "http://a/ b", "appInstanceId": "` + strings.Repeat("x", 256) + `"}`,
			[]string{
				"subscriptionType must be AppTerminationNotificationSubscription",
				"callbackReference is not a URI: it contains white space or control characters", "appInstanceId is longer than 255 characters",
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			requireFaults(t, new(mp1.AppTerminationNotificationSubscription), x.text, x.faults)
		})
	}
}

func TestTerminationConfirmations(t *testing.T) {
	for given, want := range map[mp1.OperationAction]mp1.OperationAction{
		"STOPPING": mp1.ActionStopping, "STOPPPING": mp1.ActionStopping, "TERMINATING": mp1.ActionTerminating,
	} {
		c := mp1.AppTerminationConfirmation{OperationAction: given}
		require.Empty(t, faultsOf(c.Check), given)
		require.Equal(t, want, c.OperationAction, given)
	}
	require.Equal(t, []string{"operationAction is required"}, faultsOf(new(mp1.AppTerminationConfirmation).Check))
	for _, given := range []mp1.OperationAction{"STOPPPPING", "stopping", "TERMINATED"} {
		c := mp1.AppTerminationConfirmation{OperationAction: given}
		require.Equal(t, []string{"operationAction must be one of STOPPING, TERMINATING"}, faultsOf(c.Check), given)
		require.Equal(t, given, c.OperationAction)
	}
}

func TestReadyConfirmations(t *testing.T) {
	for indication, faults := range map[string][]string{
		"READY": {}, "": {"indication must be READY"}, "ready": {"indication must be READY"},
	} {
		c := mp1.AppReadyConfirmation{Indication: indication}
		require.Equal(t, faults, faultsOf(c.Check), indication)
	}
}

const (
	goodTransport = `{"type": "REST_HTTP", "protocol": "HTTP", "version": "2.0", "security": {"oAuth2Info": {"grantTypes": ["OAUTH2_CLIENT_CREDENTIALS"], "tokenEndpoint": "/t"}}}`
	goodService   = `{"serName": "s", "version": "1", "serCategory": {"href": "/c", "id": "c", "name": "C", "version": "1"},
		"serTransportDependencies": [{"transport": ` + goodTransport + `, "serializers": ["JSON"], "labels": ["a"]}]}`
	goodAppInfo = `{"appName": "a", "appProvider": "p", "appCategory": {"href": "/c", "id": "c", "name": "C", "version": "1"},
		"endpoint": {"uris": ["http://a/"]}, "appServiceRequired": [` + goodService + `], "appServiceOptional": [{"serName": "s", "version": "1"}],
		"appFeatureRequired": [{"featureName": "f", "version": "1"}], "appFeatureOptional": [{"featureName": "g", "version": "1"}], "appProfile": {"easId": "x"}}`
)

func TestAppInfo(t *testing.T) {
	long := strings.Repeat("x", 256)
	for name, x := range map[string]struct {
		text, members string
		faults        []string
	}{
		"every member":                {goodAppInfo, `{}`, []string{}},
		"the least":                   {`{"appName": "a", "endpoint": {"fqdn": ["a.example"]}}`, `{}`, []string{}},
		"with ids of its own":         {goodAppInfo, `{"appDId": "d", "appInstanceId": "i", "isInsByMec": false}`, []string{}},
		"started by MEC management":   {`{"appName": "a", "isInsByMec": true, "appDId": "d", "appInstanceId": "i"}`, `{}`, []string{}},
		"started, with an endpoint":   {`{"appName": "a", "isInsByMec": true, "appDId": "d", "appInstanceId": "i", "endpoint": {"uris": ["http://a/"]}}`, `{}`, []string{}},
		"nothing":                     {`{}`, `{}`, []string{"appName is required", "endpoint is required unless isInsByMec is true"}},
		"the name alone, with its id": {`{"appName": "a", "appInstanceId": "i"}`, `{}`, []string{"endpoint is required unless isInsByMec is true"}},
		"started without ids":         {`{"appName": "a", "isInsByMec": true}`, `{}`, []string{"appDId is required as isInsByMec is true", "appInstanceId is required as isInsByMec is true"}},
		"started with what it depends": {goodAppInfo, `{"isInsByMec": true, "appDId": "d", "appInstanceId": "i"}`, []string{
			"appServiceRequired must be absent as isInsByMec is true: the app's descriptor has it",
			"appServiceOptional must be absent as isInsByMec is true: the app's descriptor has it",
			"appFeatureRequired must be absent as isInsByMec is true: the app's descriptor has it",
			"appFeatureOptional must be absent as isInsByMec is true: the app's descriptor has it",
		}},
		"texts that are too long": {goodAppInfo, `{"appName": "` + long + `", "appProvider": "` + long + `", "appDId": "` + long + `", "appInstanceId": "` + long + `"}`, []string{
			"appName is longer than 255 characters", "appProvider is longer than 255 characters", "appDId is longer than 255 characters",
			"appInstanceId is longer than 255 characters",
		}},
		"category":    {goodAppInfo, `{"appCategory": {"href": "/c"}}`, []string{"appCategory.id is required", "appCategory.name is required", "appCategory.version is required"}},
		"endpoint":    {goodAppInfo, `{"endpoint": {}}`, []string{"endpoint must have exactly one of uris, fqdn, addresses and alternative, and it must not be empty"}},
		"big profile": {goodAppInfo, `{"appProfile": "` + strings.Repeat("x", mp1.MaxOpaque) + `"}`, []string{"appProfile is larger than 16384 bytes"}},
		"features": {goodAppInfo, `{"appFeatureRequired": [{"featureName": "f"}], "appFeatureOptional": [{"version": "1"}]}`, []string{
			"appFeatureRequired[0].version is required", "appFeatureOptional[0].featureName is required",
		}},
		"too many services": {goodAppInfo, `{"appServiceRequired": [` + strings.Repeat("{},", 256) + `{}]}`, []string{"appServiceRequired has more than 256 elements"}},
		"services": {
			goodAppInfo,
			`{"appServiceRequired": [{}, {"serName": "s", "version": "1", "serCategory": {}, "requestedPermissions": "` + strings.Repeat("x", mp1.MaxOpaque) + `",
				"serTransportDependencies": [{}, {"transport": {"security": {"oAuth2Info": {}}, "implSpecificInfo": "` + strings.Repeat("x", mp1.MaxOpaque) + `"}, "serializers": [""], "labels": [""]}]}]}`,
			[]string{
				"appServiceRequired[0].serName is required", "appServiceRequired[0].version is required",
				"appServiceRequired[1].serCategory.href is required", "appServiceRequired[1].serCategory.id is required",
				"appServiceRequired[1].serCategory.name is required", "appServiceRequired[1].serCategory.version is required",
				"appServiceRequired[1].serTransportDependencies[0].transport is required",
				"appServiceRequired[1].serTransportDependencies[0].serializers must have at least one element",
				"appServiceRequired[1].serTransportDependencies[0].labels must have at least one element",
				"appServiceRequired[1].serTransportDependencies[1].transport.type is required",
				"appServiceRequired[1].serTransportDependencies[1].transport.protocol is required",
				"appServiceRequired[1].serTransportDependencies[1].transport.version is required",
				"appServiceRequired[1].serTransportDependencies[1].transport.security.oAuth2Info.grantTypes must have 1 to 4 elements",
				"appServiceRequired[1].serTransportDependencies[1].transport.security.oAuth2Info.tokenEndpoint is required unless OAUTH2_IMPLICIT_GRANT is the only grant",
				"appServiceRequired[1].serTransportDependencies[1].transport.implSpecificInfo is larger than 16384 bytes",
				"appServiceRequired[1].serTransportDependencies[1].serializers[0] is required",
				"appServiceRequired[1].serTransportDependencies[1].labels[0] is required",
				"appServiceRequired[1].requestedPermissions is larger than 16384 bytes",
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			requireFaults(t, new(mp1.AppInfo), changed(t, x.text, x.members), x.faults)
		})
	}
}

func TestServiceDescriptors(t *testing.T) {
	for name, x := range map[string]struct {
		text   string
		faults []string
	}{
		"every member": {`[{"serName": "s", "version": "1", "transportsSupported": [{"transport": ` + goodTransport + `, "serializers": ["JSON", "MINE"]}]}]`, []string{}},
		"nothing in it": {`[{"serCategory": {"href": "/", "id": "i", "name": "n"}, "transportsSupported": [{}]}]`, []string{
			"list[0].serName is required", "list[0].serCategory.version is required", "list[0].version is required",
			"list[0].transportsSupported[0].transport is required", "list[0].transportsSupported[0].serializers must have at least one element",
		}},
		"too many serializers": {
			`[{"serName": "s", "version": "1", "transportsSupported": [{"transport": ` + goodTransport + `, "serializers": ["JSON"` + strings.Repeat(`, "JSON"`, 100) + `]}]}]`,
			[]string{"list[0].transportsSupported[0].serializers has more than 100 elements"},
		},
		"too many": {`[{}` + strings.Repeat(`, {}`, 256) + `]`, []string{"list has more than 256 elements"}},
	} {
		t.Run(name, func(t *testing.T) {
			var list []mp1.ServiceDescriptor
			require.NoError(t, json.Unmarshal([]byte(x.text), &list))
			require.Equal(t, x.faults, faultsOf(func(faults *problem.InvalidParams) { mp1.CheckServiceDescriptors("list", list, faults) }))
		})
	}
}

func TestFaultsOfDependenciesAreListedUpToABound(t *testing.T) {
	for name, check := range map[string]func(*problem.InvalidParams){
		"services": func(f *problem.InvalidParams) {
			mp1.CheckServiceDependencies("x", make([]mp1.ServiceDependency, 256), f)
		},
		"descriptors": func(f *problem.InvalidParams) {
			mp1.CheckServiceDescriptors("x", make([]mp1.ServiceDescriptor, 256), f)
		},
		"features": func(f *problem.InvalidParams) {
			mp1.CheckFeatureDependencies("x", make([]mp1.FeatureDependency, 256), f)
		},
		"transports": func(f *problem.InvalidParams) {
			mp1.CheckTransportDependencies("x", make([]mp1.TransportDependency, 256), f)
		},
	} {
		faults := faultsOf(check)
		require.GreaterOrEqual(t, len(faults), 50, name)
		require.Less(t, len(faults), 60, name)
	}
}

const goodNTPServer = `{"ntpServerAddrType": "IP_ADDRESS", "ntpServerAddr": "192.0.2.1", "minPollingInterval": 3, "maxPollingInterval": 17, "localPriority": 1, "authenticationOption": "NONE"}`

func TestNTPServers(t *testing.T) {
	for name, x := range map[string]struct {
		members string
		faults  []string
	}{
		"an address":      {`{}`, []string{}},
		"an IPv6 address": {`{"ntpServerAddr": "2001:db8::1"}`, []string{}},
		"a name":          {`{"ntpServerAddrType": "DNS_NAME", "ntpServerAddr": "ntp.example.com"}`, []string{}},
		"equal intervals": {`{"minPollingInterval": 6, "maxPollingInterval": 6}`, []string{}},
		"a key":           {`{"authenticationOption": "SYMMETRIC_KEY", "authenticationKeyNum": 0}`, []string{}},
		"automatic keys":  {`{"authenticationOption": "AUTO_KEY"}`, []string{}},
		"nothing": {
			`{"ntpServerAddrType": null, "ntpServerAddr": null, "minPollingInterval": null, "maxPollingInterval": null, "authenticationOption": null}`,
			[]string{
				"ntpServerAddrType is required", "ntpServerAddr is required", "minPollingInterval must be 3 to 17, not 0",
				"maxPollingInterval must be 3 to 17, not 0", "authenticationOption is required",
			},
		},
		"a name as address":      {`{"ntpServerAddr": "ntp.example.com"}`, []string{`ntpServerAddr must be an IPv4 or IPv6 address, not "ntp.example.com"`}},
		"an address as name":     {`{"ntpServerAddrType": "DNS_NAME"}`, []string{`ntpServerAddr must be a domain name as ntpServerAddrType is DNS_NAME, not "192.0.2.1"`}},
		"a wildcard as name":     {`{"ntpServerAddrType": "DNS_NAME", "ntpServerAddr": "*.a"}`, []string{`ntpServerAddr must be a domain name as ntpServerAddrType is DNS_NAME, not "*.a"`}},
		"another type":           {`{"ntpServerAddrType": "URI"}`, []string{"ntpServerAddrType must be one of IP_ADDRESS, DNS_NAME"}},
		"intervals out of range": {`{"minPollingInterval": 2, "maxPollingInterval": 18}`, []string{"minPollingInterval must be 3 to 17, not 2", "maxPollingInterval must be 3 to 17, not 18"}},
		"intervals crossed":      {`{"minPollingInterval": 7, "maxPollingInterval": 6}`, []string{"minPollingInterval must not be more than maxPollingInterval"}},
		"another option":         {`{"authenticationOption": "NTS"}`, []string{"authenticationOption must be one of NONE, SYMMETRIC_KEY, AUTO_KEY"}},
		"a key that is missing":  {`{"authenticationOption": "SYMMETRIC_KEY"}`, []string{"authenticationKeyNum is required with SYMMETRIC_KEY"}},
		"a key too many":         {`{"authenticationKeyNum": 1}`, []string{"authenticationKeyNum must be absent unless authenticationOption is SYMMETRIC_KEY"}},
	} {
		t.Run(name, func(t *testing.T) {
			requireFaults(t, new(mp1.NTPServer), changed(t, goodNTPServer, x.members), x.faults)
		})
	}
}

func TestPTPMasters(t *testing.T) {
	for text, faults := range map[string][]string{
		`{"ptpMasterIpAddress": "192.0.2.1", "ptpMasterLocalPriority": 1, "delayReqMaxRate": 8}`: {},
		`{"ptpMasterIpAddress": "2001:db8::1"}`:                                                  {},
		`{}`:                                                                                     {"ptpMasterIpAddress is required"},
		`{"ptpMasterIpAddress": "ptp.local"}`:                                                    {`ptpMasterIpAddress must be an IPv4 or IPv6 address, not "ptp.local"`},
		`{"ptpMasterIpAddress": "fe80::1%1"}`:                                                    {`ptpMasterIpAddress must be without a zone, not "fe80::1%1"`},
	} {
		requireFaults(t, new(mp1.PTPMaster), text, faults)
	}
}

func TestChecksOfMembersForOtherPackages(t *testing.T) {
	require.Equal(t, []string{
		"a is required", "b is longer than 3 characters", "c contains a control character", "d is larger than 16384 bytes", "e must be one of X", "f is odd",
	}, faultsOf(func(faults *problem.InvalidParams) {
		mp1.CheckRequired("a", "", 3, faults)
		mp1.CheckRequired("b", "1234", 3, faults)
		mp1.CheckRequired("ok", "äöü", 3, faults)
		mp1.CheckText("c", "\x00", 3, faults)
		mp1.CheckText("ok", "", 3, faults)
		mp1.CheckOpaque("d", make([]byte, mp1.MaxOpaque+1), faults)
		mp1.CheckOpaque("ok", make([]byte, mp1.MaxOpaque), faults)
		mp1.CheckEnum("e", "Y", []string{"X"}, faults)
		mp1.CheckEnum("ok", "X", []string{"X"}, faults)
		mp1.Fault("f", "is odd", faults)
		mp1.Fault("f", "is even", faults)
	}))
}
