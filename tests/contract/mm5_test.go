package contract_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const (
	instances = "/mm5/v1/app_instances"
	instance  = instances + "/5abe4782-2c70-4e47-9a4e-0ee3a1a0fd1f"
	operation = "/mm5/v1/app_lcm_op_occs/o-1"
	appd      = "/mepcfg/app_lcm/v1/applications/a-1/appd_configuration"

	occurred = `{"id":"o-1","appInstanceId":"a-1","lcmOperation":"CONFIGURE","operationState":"COMPLETED","percentage":100,
		"ruleResults":[{"kind":"DNS","ruleId":"d1","result":"INACTIVE"}],"startTime":"2026-11-22T23:26:01.251328201Z","stateEnteredTime":"2026-11-22T23:26:02Z",
		"endTime":"2026-11-22T23:26:02Z","_links":{"self":{"href":"http://mep/o/1"},"appInstance":{"href":"http://mep/a/1"}}}`
	seen = `{"appInstanceId":"a-1","lifecycle":"STARTED","generation":1,"created":"2026-11-22T23:26:01Z","services":[],
		"rules":[{"kind":"TRAFFIC","ruleId":"t1","result":"FAILED","reason":"no","reconciler":"dataplane"}],
		"deliveries":[{"subscriptionId":"s","subscriptionType":"AppTerminationNotificationSubscription","callbackReference":"http://app/cb","pending":1,
		"failingSince":"2026-11-22T23:26:01Z","lastError":"refused"}],"_links":{"self":{"href":"http://mep/a/1"}}}`
	able = `{"version":"dev","features":[],"transports":[` + transport + `],"reconcilers":[{"kind":"TRAFFIC","name":"","driver":"none","pending":0}],
		"limits":{"trafficRules":64,"dnsRules":128,"trafficFilters":16,"ruleIdLength":63},"services":[]}`
	differs = `{"appInstanceId":"a-1","changed":true,"creates":true,"trafficRules":{"added":["t1"],"changed":[],"removed":[],"unchanged":[],"reset":[]},
		"dnsRules":{"added":[],"changed":[],"removed":[],"unchanged":[],"reset":[]},"members":["appName"]}`
	configured = `{"appName":"video","appTrafficRule":[` + trafficRule + `],"appDNSRule":[` + dnsRule + `]`
	task       = `{"taskId":"o-1","appInstanceId":"a-1","configResult":"SUCCESS","configPhase":"100","Detailed":""}`

	// What EdgeGallery's MEPM sends has members without a value, too.
	appdRequest = `{"appTrafficRule":[{"trafficRuleId":"a","filterType":"FLOW","priority":3,"trafficFilter":[{"srcAddress":["10.1.2.3/8"],"dstTunnelAddress":null,
		"qCI":0,"dSCP":0,"tC":0}],"action":"DUPLICATED_DECAPSULATED","dstInterface":[{"interfaceType":"","tunnelInfo":{"tunnelType":"","tunnelDstAddress":"",
		"tunnelSrcAddress":"","tunnelSpecificData":""},"srcMACAddress":"","dstMACAddress":"","dstIPAddress":""}]}],"appDnsRule":[{"dnsRuleId":"d",
		"domainName":"a.example","ipAddressType":"IPv6","ipAddress":"2001:db8::1","ttl":0}],"appSupportMp1":true,"appName":"abc"}`
	appdAnswer = `{"appTrafficRule":[{"trafficRuleId":"a","filterType":"FLOW","priority":3,"trafficFilter":[{}],"action":"FORWARD_AS_IS","state":"ACTIVE"}],
		"appDNSRule":[],"appSupportMp1":false,"appName":"abc"}`
)

// accepted is the answer to what begins an operation.
func accepted() answer {
	return answer{202, map[string]string{"Location": "http://mep" + operation}, ""}
}

func TestGoodExchangesOfMm5Pass(t *testing.T) {
	fresh := func(body string) answer { return jsonAnswer(200, body, "Cache-Control", "no-store") }
	for name, x := range map[string]struct {
		call   call
		answer answer
	}{
		"configuration":            {call{"PUT", instance, "", configured + "}"}, accepted()},
		"empty configuration":      {call{"POST", instance + "/configure_platform_for_app", "", "{}"}, accepted()},
		"rules without a state":    {call{"PUT", instance, "", strings.NewReplacer(`,"state":"ACTIVE"`, "", `,"state":"INACTIVE"`, "", "appDNSRule", "appDnsRule").Replace(configured) + "}"}, accepted()},
		"dry run":                  {call{"PUT", instance + "?dryRun=true", "", "{}"}, jsonAnswer(200, differs)},
		"what is configured":       {call{"GET", instance, "", ""}, tagged(configured + `,"appInstanceId":"a-1","generation":1}`)},
		"end of a configuration":   {call{"DELETE", instance, "", ""}, accepted()},
		"start":                    {call{"POST", instance + "/operate", "", `{"changeStateTo":"STARTED"}`}, accepted()},
		"stop":                     {call{"POST", instance + "/operate", "", `{"changeStateTo":"STOPPED","stopType":"GRACEFUL","gracefulStopTimeout":30}`}, accepted()},
		"stop with no time-out":    {call{"POST", instance + "/operate", "", `{"changeStateTo":"STOPPED","gracefulStopTimeout":0}`}, accepted()},
		"termination":              {call{"POST", instance + "/terminate", "", `{"terminationType":"FORCEFUL","gracefulTerminationTimeout":0}`}, accepted()},
		"conflict":                 {call{"POST", instance + "/operate", "", `{"changeStateTo":"STARTED"}`}, problemAnswer(409, "Retry-After", "1")},
		"state":                    {call{"GET", instance + "/status", "", ""}, fresh(seen)},
		"states":                   {call{"GET", instances + "?lifecycle=STARTED", "", ""}, jsonAnswer(200, "["+seen+"]")},
		"operation":                {call{"GET", operation, "", ""}, fresh(occurred)},
		"operations":               {call{"GET", "/mm5/v1/app_lcm_op_occs?app_instance_id=a-1", "", ""}, jsonAnswer(200, "["+occurred+"]")},
		"capabilities":             {call{"GET", "/mm5/v1/capabilities", "", ""}, jsonAnswer(200, able)},
		"EdgeGallery configures":   {call{"POST", appd, "", appdRequest}, jsonAnswer(200, task)},
		"EdgeGallery's rules":      {call{"GET", appd, "", ""}, jsonAnswer(200, appdAnswer)},
		"EdgeGallery's task":       {call{"GET", "/mepcfg/app_lcm/v1/tasks/o-1/appd_configuration", "", ""}, jsonAnswer(200, task)},
		"EdgeGallery's services":   {call{"GET", "/mepcfg/mec_platform_config/v1/capabilities", "", ""}, jsonAnswer(200, `[{"capabilityId":"s","capabilityName":"n","status":"ACTIVE","version":"1","consumers":[{"applicationInstanceId":"a"}]}]`)},
		"EdgeGallery terminates":   {call{"DELETE", "/mep/mec_app_support/v1/applications/a-1/AppInstanceTermination", "", ""}, jsonAnswer(200, `""`)},
		"the listener's other one": {call{"PUT", "/mep/appMng/v1/applications/a-1/confs", "", "{}"}, jsonAnswer(200, "{}")},
	} {
		t.Run(name, func(t *testing.T) {
			require.Empty(t, exchange(t, "mm5", x.call, x.answer))
		})
	}
}

func TestBadAnswersOfMm5AreReported(t *testing.T) {
	get := call{method: "GET", path: operation}
	fresh := func(body, old, now string) answer {
		return jsonAnswer(200, strings.Replace(body, old, now, 1), "Cache-Control", "no-store")
	}
	for name, x := range map[string]struct {
		call   call
		answer answer
		reason string
	}{
		"operation without a place": {call{"PUT", instance, "", "{}"}, answer{202, nil, ""}, "Location"},
		"operation somewhere else":  {call{"PUT", instance, "", "{}"}, answer{202, map[string]string{"Location": "http://mep/o/1"}, ""}, "Location"},
		"accepted with a body":      {call{"PUT", instance, "", "{}"}, answer{202, map[string]string{"Location": "http://mep" + operation}, "{}"}, "has a body"},
		"operation without an end":  {get, fresh(occurred, `"endTime":"2026-11-22T23:26:02Z",`, ""), "endTime"},
		"an end before the end":     {get, fresh(occurred, "COMPLETED", "PROCESSING"), "not"},
		"a zero time":               {get, fresh(occurred, "2026-11-22T23:26:01.251328201Z", "0001-01-01T00:00:00Z"), "/startTime"},
		"no results as a list":      {get, fresh(occurred, `{"kind":"DNS","ruleId":"d1","result":"INACTIVE"}`, ""), "/ruleResults"},
		"null for a list":           {call{method: "GET", path: instance + "/status"}, fresh(seen, `"services":[]`, `"services":null`), "/services"},
		"unknown state":             {call{method: "GET", path: instance + "/status"}, fresh(seen, "STARTED", "RUNNING"), "/lifecycle"},
		"declared without a state":  {call{method: "GET", path: instance}, tagged(strings.Replace(configured, `,"state":"ACTIVE"`, "", 1) + `,"appInstanceId":"a-1","generation":1}`), "state"},
		"EdgeGallery's actions":     {call{method: "GET", path: appd}, jsonAnswer(200, strings.Replace(appdAnswer, "FORWARD_AS_IS", "FORWARD_ENCAPSULATED", 1)), "/action"},
		"EdgeGallery's percentage":  {call{method: "GET", path: "/mepcfg/app_lcm/v1/tasks/o-1/appd_configuration"}, jsonAnswer(200, strings.Replace(task, `"100"`, `100`, 1)), "/configPhase"},
		"EdgeGallery's goodbye":     {call{method: "DELETE", path: "/mec_app_support/v1/applications/a-1/AppInstanceTermination"}, answer{200, map[string]string{"Content-Type": "application/json"}, "{}"}, "string"},
	} {
		t.Run(name, func(t *testing.T) {
			messages := exchange(t, "mm5", x.call, x.answer)
			require.Len(t, messages, 1)
			require.Contains(t, messages[0], x.reason)
		})
	}
}

func TestBadRequestsOfMm5AreReported(t *testing.T) {
	operate := func(body string) call { return call{"POST", instance + "/operate", "", body} }
	for name, x := range map[string]struct {
		call   call
		reason string
	}{
		"start with a type":       {operate(`{"changeStateTo":"STARTED","stopType":"FORCEFUL"}`), "not"},
		"stop in no time":         {operate(`{"changeStateTo":"STOPPED","gracefulStopTimeout":1}`), "stopType"},
		"forced, with a time-out": {operate(`{"changeStateTo":"STOPPED","stopType":"FORCEFUL","gracefulStopTimeout":1}`), "/stopType"},
		"more than a day":         {operate(`{"changeStateTo":"STOPPED","stopType":"GRACEFUL","gracefulStopTimeout":86401}`), "/gracefulStopTimeout"},
		"termination of no type":  {call{"POST", instance + "/terminate", "", `{}`}, "terminationType"},
		"forced termination":      {call{"POST", instance + "/terminate", "", `{"terminationType":"FORCEFUL","gracefulTerminationTimeout":1}`}, "/terminationType"},
		"rule without an id":      {call{"PUT", instance, "", strings.Replace(configured, `"trafficRuleId":"t1",`, "", 1) + "}"}, "trafficRuleId"},
		"rule that is a dot":      {call{"PUT", instance, "", strings.Replace(configured, `"d1"`, `".."`, 1) + "}"}, "/dnsRuleId"},
		"not a boolean":           {call{"PUT", instance + "?dryRun=perhaps", "", "{}"}, "dryRun"},
		"no name for EdgeGallery": {call{"POST", appd, "", strings.Replace(appdRequest, `,"appName":"abc"`, "", 1)}, "appName"},
		"a filter that is absent": {call{"POST", appd, "", strings.Replace(appdRequest, `"trafficFilter":[`, `"filters":[`, 1)}, "trafficFilter"},
	} {
		t.Run(name, func(t *testing.T) {
			good := accepted()
			if x.call.path == appd {
				good = jsonAnswer(200, task)
			}
			messages := exchange(t, "mm5", x.call, good)
			require.Len(t, messages, 1)
			require.Contains(t, messages[0], "the request was accepted")
			require.Contains(t, messages[0], x.reason)
			require.Empty(t, exchange(t, "mm5", x.call, problemAnswer(400)), "a refusal is right")
		})
	}
}
