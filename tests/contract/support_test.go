package contract_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const (
	support     = "/mec_app_support/v2"
	supportApp  = support + "/applications/5abe4782-2c70-4e47-9a4e-0ee3a1a0fd1f"
	supportRegs = support + "/registrations"

	trafficRule = `{"trafficRuleId":"t1","filterType":"FLOW","priority":1,"trafficFilter":[{"srcAddress":["10.0.0.0/8"],"dstPort":["80","8000-8100"],
		"protocol":["tcp"],"qCI":3}],"action":"FORWARD_DECAPSULATED","dstInterface":[{"interfaceType":"IP","dstIpAddress":"192.0.2.1"}],"state":"ACTIVE"}`
	dnsRule       = `{"dnsRuleId":"d1","domainName":"*.video.example","ipAddressType":"IP_V4","ipAddress":"192.0.2.1","ttl":60,"state":"INACTIVE"}`
	asksToBeTold  = `{"subscriptionType":"AppTerminationNotificationSubscription","callbackReference":"http://app/cb"}`
	willBeTold    = `{"subscriptionType":"AppTerminationNotificationSubscription","callbackReference":"http://app/cb","appInstanceId":"a","_links":{"self":{"href":"http://mep/s/1"}}}`
	registers     = `{"appName":"video","endpoint":{"uris":["http://192.0.2.1/"]}}`
	hasRegistered = `{"appName":"video","appInstanceId":"a","endpoint":{"uris":["http://192.0.2.1/"]}}`
)

func tagged(body string) answer { return jsonAnswer(200, body, "ETag", `"7"`) }

func TestGoodExchangesOfApplicationSupportPass(t *testing.T) {
	timed := func(body string) answer { return jsonAnswer(200, body, "Cache-Control", "no-store") }
	for name, x := range map[string]struct {
		call   call
		answer answer
	}{
		"ready":                    {call{"POST", supportApp + "/confirm_ready", "", `{"indication":"READY"}`}, answer{204, nil, ""}},
		"ready too early":          {call{"POST", supportApp + "/confirm_ready", "", `{"indication":"READY"}`}, problemAnswer(409, "Retry-After", "1")},
		"ready too late":           {call{"POST", supportApp + "/confirm_ready", "", `{"indication":"READY"}`}, problemAnswer(409)},
		"confirmation":             {call{"POST", supportApp + "/confirm_termination", "", `{"operationAction":"TERMINATING"}`}, answer{204, nil, ""}},
		"as the standard spells":   {call{"POST", supportApp + "/confirm_termination", "", `{"operationAction":"STOPPPING"}`}, answer{204, nil, ""}},
		"older version and prefix": {call{"POST", "/mep" + strings.Replace(supportApp, "v2", "v1", 1) + "/confirm_ready", "", `{"indication":"READY"}`}, answer{204, nil, ""}},
		"subscription": {
			call{"POST", supportApp + "/subscriptions", "", asksToBeTold},
			jsonAnswer(201, willBeTold, "ETag", `"7"`, "Location", "http://mep/s/1"),
		},
		"links": {call{"GET", supportApp + "/subscriptions", "", ""}, jsonAnswer(200, `{"_links":{"self":{"href":"http://mep/s"},"subscriptions":[{"href":"http://mep/s/1",
			"subscriptionType":"AppTerminationNotificationSubscription","rel":"AppTerminationNotificationSubscription"}]}}`)},
		"traffic rules":            {call{"GET", supportApp + "/traffic_rules", "", ""}, jsonAnswer(200, "["+trafficRule+"]")},
		"headers of traffic rules": {call{"HEAD", supportApp + "/traffic_rules", "", ""}, answer{200, nil, ""}},
		"traffic rule":             {call{"GET", supportApp + "/traffic_rules/t1", "", ""}, tagged(trafficRule)},
		"traffic rule, not new":    {call{"GET", supportApp + "/traffic_rules/t1", "", ""}, answer{304, map[string]string{"ETag": `"7"`}, ""}},
		"change of a traffic rule": {call{"PUT", supportApp + "/traffic_rules/t1", "", strings.Replace(trafficRule, `"trafficRuleId":"t1",`, "", 1)}, tagged(trafficRule)},
		"a packet of any kind":     {call{"PUT", supportApp + "/traffic_rules/t1", "", `{"filterType":"PACKET","priority":0,"trafficFilter":[{}],"action":"DROP","state":"ACTIVE"}`}, tagged(trafficRule)},
		"other spellings": {call{"PUT", supportApp + "/traffic_rules/t1", "", `{"filterType":"PACKET","priority":255,"trafficFilter":[{"dstTunnelAddress":["2001:db8::/32-2001:db8:ff::/48"]}],
			"action":"DUPLICATE_ENCAPSULATED","dstInterface":[{"interfaceType":"MAC","dstMACAddress":"00-00-5e-00-53-01","tunnelInfo":{},"dstIpAddress":""},
			{"interfaceType":"TUNNEL","TunnelInfo":{"tunnelType":"GTP_U"}}],"state":"INACTIVE"}`}, tagged(trafficRule)},
		"DNS rules":             {call{"GET", supportApp + "/dns_rules", "", ""}, jsonAnswer(200, "["+dnsRule+"]")},
		"change of a DNS rule":  {call{"PUT", supportApp + "/dns_rules/d1", "", `{"state":"ACTIVE"}`}, tagged(dnsRule)},
		"DNS rule, sent back":   {call{"PUT", supportApp + "/dns_rules/d1", "", dnsRule}, tagged(dnsRule)},
		"time":                  {call{"GET", support + "/timing/current_time", "", ""}, timed(`{"seconds":1,"nanoSeconds":2,"timeSourceStatus":"NONTRACEABLE"}`)},
		"no time services":      {call{"GET", support + "/timing/timing_caps", "", ""}, timed(`{"timeStamp":{"seconds":1,"nanoSeconds":2}}`)},
		"registration":          {call{"POST", supportRegs, "", registers}, jsonAnswer(201, hasRegistered, "ETag", `"7"`, "Location", "http://mep/r/a")},
		"registered before":     {call{"POST", supportRegs, "", registers}, problemAnswer(409)},
		"managed":               {call{"PUT", supportRegs + "/a", "", `{"appName":"v","isInsByMec":true,"appDId":"d","appInstanceId":"a","appServiceRequired":[]}`}, answer{204, map[string]string{"ETag": `"7"`}, ""}},
		"end of a registration": {call{"DELETE", supportRegs + "/a", "", ""}, answer{204, nil, ""}},
	} {
		t.Run(name, func(t *testing.T) {
			require.Empty(t, exchange(t, "mec_app_support", x.call, x.answer))
		})
	}
}

func TestBadAnswersOfApplicationSupportAreReported(t *testing.T) {
	rule := func(old, now string) answer { return tagged(strings.Replace(trafficRule, old, now, 1)) }
	get := call{method: "GET", path: supportApp + "/traffic_rules/t1"}
	dns := call{method: "GET", path: supportApp + "/dns_rules/d1"}
	clock := call{method: "GET", path: support + "/timing/timing_caps"}
	for name, x := range map[string]struct {
		call   call
		answer answer
		reason string
	}{
		"no entity-tag":          {get, jsonAnswer(200, trafficRule), "ETag"},
		"rule without an id":     {get, rule(`"trafficRuleId":"t1",`, ""), "trafficRuleId"},
		"rule without a state":   {get, rule(`,"state":"ACTIVE"`, ""), "state"},
		"id that is too long":    {get, rule(`"t1"`, `"`+strings.Repeat("t", 64)+`"`), "/trafficRuleId"},
		"one interface too many": {get, rule(`"dstInterface":[`, `"dstInterface":[{"interfaceType":"IP","dstIpAddress":"192.0.2.1"},`), "/dstInterface"},
		"interface without one":  {get, rule(`"dstIpAddress":"192.0.2.1"`, `"dstIpAddress":""`), "/dstInterface/0"},
		"priority":               {get, rule(`"priority":1`, `"priority":256`), "/priority"},
		"wildcard in the middle": {dns, tagged(strings.Replace(dnsRule, "*.video", "video.*", 1)), "/domainName"},
		"DNS rule with half":     {dns, tagged(`{"dnsRuleId":"d1","state":"ACTIVE"}`), "domainName"},
		"time that is kept":      {clock, jsonAnswer(200, `{}`), "Cache-Control"},
		"key of no key":          {clock, jsonAnswer(200, `{"ntpServers":[{"ntpServerAddrType":"DNS_NAME","ntpServerAddr":"a","minPollingInterval":3,"maxPollingInterval":17,"localPriority":1,"authenticationOption":"NONE","authenticationKeyNum":1}]}`, "Cache-Control", "no-store"), "/ntpServers/0"},
		"subscription of nobody": {call{method: "GET", path: supportApp + "/subscriptions/1"}, tagged(strings.Replace(willBeTold, `"appInstanceId":"a",`, "", 1)), "appInstanceId"},
		"ready with a body":      {call{"POST", supportApp + "/confirm_ready", "", `{"indication":"READY"}`}, jsonAnswer(200, "{}"), "status code"},
	} {
		t.Run(name, func(t *testing.T) {
			messages := exchange(t, "mec_app_support", x.call, x.answer)
			require.Len(t, messages, 1)
			require.Contains(t, messages[0], x.reason)
		})
	}
}

func TestBadRequestsOfApplicationSupportAreReported(t *testing.T) {
	rule := func(old, now string) call {
		return call{"PUT", supportApp + "/traffic_rules/t1", "", strings.Replace(trafficRule, old, now, 1)}
	}
	for name, x := range map[string]struct {
		call   call
		reason string
	}{
		"not ready":               {call{"POST", supportApp + "/confirm_ready", "", `{"indication":"NOT"}`}, "/indication"},
		"query":                   {call{"GET", supportApp + "/traffic_rules?state=ACTIVE", "", ""}, `"state"`},
		"another's subscription":  {call{"POST", supportApp + "/subscriptions", "", subscription}, "/subscriptionType"},
		"rule without a filter":   {rule(`"trafficFilter":[{"srcAddress":["10.0.0.0/8"],"dstPort":["80","8000-8100"],`+"\n\t\t"+`"protocol":["tcp"],"qCI":3}]`, `"trafficFilter":[]`), "/trafficFilter"},
		"rule without a state":    {rule(`,"state":"ACTIVE"`, ""), "state"},
		"EdgeGallery's action":    {rule("FORWARD_DECAPSULATED", "FORWARD_AS_IS"), "/action"},
		"port 0":                  {rule(`"80"`, `"0"`), "/trafficFilter/0/dstPort/0"},
		"name for an address":     {rule("10.0.0.0/8", "host.example"), "/trafficFilter/0/srcAddress/0"},
		"QoS class":               {rule(`"qCI":3`, `"qCI":255`), "/trafficFilter/0/qCI"},
		"tunnel without a tunnel": {rule(`{"interfaceType":"IP"`, `{"interfaceType":"TUNNEL"`), "/dstInterface/0"},
		"MAC address":             {rule(`"interfaceType":"IP"`, `"interfaceType":"MAC","dstMacAddress":"00:00:5e"`), "/dstMacAddress"},
		"DNS rule without state":  {call{"PUT", supportApp + "/dns_rules/d1", "", `{"ttl":1}`}, "state"},
		"time to live":            {call{"PUT", supportApp + "/dns_rules/d1", "", `{"state":"ACTIVE","ttl":2147483648}`}, "/ttl"},
		"app without an endpoint": {call{"POST", supportRegs, "", `{"appName":"v"}`}, "endpoint"},
		"managed, with services": {call{"POST", supportRegs, "", `{"appName":"v","isInsByMec":true,"appDId":"d","appInstanceId":"a",
			"appServiceRequired":[{"serName":"s","version":"1"}]}`}, "/appServiceRequired"},
		"managed, without an id": {call{"POST", supportRegs, "", `{"appName":"v","isInsByMec":true,"appDId":"d"}`}, "appInstanceId"},
	} {
		t.Run(name, func(t *testing.T) {
			good := map[string]answer{
				supportApp + "/confirm_ready":    {204, nil, ""},
				supportApp + "/subscriptions":    jsonAnswer(201, willBeTold, "ETag", `"7"`, "Location", "http://mep/s/1"),
				supportApp + "/dns_rules/d1":     tagged(dnsRule),
				supportApp + "/traffic_rules/t1": tagged(trafficRule),
				supportRegs:                      jsonAnswer(201, hasRegistered, "ETag", `"7"`, "Location", "http://mep/r/a"),
			}[x.call.path]
			if x.call.method == http.MethodGet {
				good = jsonAnswer(200, "[]")
			}
			messages := exchange(t, "mec_app_support", x.call, good)
			require.Len(t, messages, 1)
			require.Contains(t, messages[0], "the request was accepted")
			require.Contains(t, messages[0], x.reason)
			require.Empty(t, exchange(t, "mec_app_support", x.call, problemAnswer(400)), "a refusal is right")
		})
	}
}
