package contract_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const (
	gatewayRoute  = "/gateway/v1/routes/team"
	gatewayPolicy = "/gateway/v1/policies/hello"
	gatewayKeys   = "/gateway/v1/api_keys"
	gatewayAccess = "/gateway/v1/access_requests"

	routeGiven = `{"paths":["/team/*/members"],"urls":["http://192.0.2.1:8080"],"strip":1,"policy":{"quotas":[{"calls":5,"per":"hour"}]}}`
	routeSeen  = `{"id":"team","kind":"static","source":"management","paths":["/team/*/members"],"policy":"team","revision":7,
		"targets":[{"url":"http://192.0.2.1:8080","state":"up","active":0,"calls":1,"failures":0}],
		"definition":{"id":"team","paths":["/team/*/members"],"urls":["http://192.0.2.1:8080"]}}`
	keyMade     = `{"id":"9f86d081884c7d65","consumer":"camera","scopes":["mp1"],"created":"2026-11-22T23:26:01Z","key":"mepk_9f86d081884c7d65_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"}`
	accessGiven = `{"id":"a1","consumer":"c","serName":"hello","owner":"o","state":"PENDING","created":"2026-11-22T23:26:01Z"}`
	explained   = `{"reason":"allowed","steps":[{"name":"route","result":"service:hello"}],"path":"/x"}`
)

func TestGoodExchangesOfTheGatewaysManagementPass(t *testing.T) {
	for name, x := range map[string]struct {
		call   call
		answer answer
	}{
		"route":           {call{"PUT", gatewayRoute, "", routeGiven}, jsonAnswer(200, routeSeen, "ETag", `"7"`)},
		"new route":       {call{"PUT", gatewayRoute, "", routeGiven}, jsonAnswer(201, routeSeen, "ETag", `"7"`, "Location", gatewayRoute)},
		"routes":          {call{"GET", "/gateway/v1/routes?kind=static&limit=5", "", ""}, jsonAnswer(200, "["+routeSeen+"]")},
		"no route":        {call{"GET", gatewayRoute, "", ""}, problemAnswer(404)},
		"removed":         {call{"DELETE", gatewayRoute, "", ""}, answer{204, nil, ""}},
		"key":             {call{"POST", gatewayKeys, "", `{"consumer":"camera","lifetime":"1h"}`}, jsonAnswer(201, keyMade, "Location", gatewayKeys+"/9f86d081884c7d65", "Cache-Control", "no-store")},
		"application":     {call{"POST", gatewayAccess, "", `{"serName":"hello"}`}, jsonAnswer(201, accessGiven, "Location", gatewayAccess+"/a1", "ETag", `"7"`)},
		"decision":        {call{"PUT", gatewayAccess + "/a1", "", `{"state":"GRANTED"}`}, jsonAnswer(200, strings.Replace(accessGiven, "PENDING", "GRANTED", 1), "ETag", `"8"`)},
		"explanation":     {call{"POST", "/gateway/v1/explain", "", `{"method":"GET","url":"/services/hello/x"}`}, jsonAnswer(200, explained)},
		"etcd is away":    {call{"PUT", gatewayPolicy, "", "{}"}, problemAnswer(503, "Retry-After", "1")},
		"changed by then": {call{"DELETE", gatewayPolicy, "", ""}, problemAnswer(412)},
	} {
		t.Run(name, func(t *testing.T) {
			require.Empty(t, exchange(t, "mep_gateway", x.call, x.answer))
		})
	}
}

func TestBadAnswersOfTheGatewaysManagementAreReported(t *testing.T) {
	get := call{method: "GET", path: gatewayRoute}
	seen := func(old, now string) answer {
		return jsonAnswer(200, strings.Replace(routeSeen, old, now, 1), "ETag", `"7"`)
	}
	key := call{"POST", gatewayKeys, "", `{"consumer":"camera"}`}
	for name, x := range map[string]struct {
		call   call
		answer answer
		reason string
	}{
		"unknown kind":           {get, seen(`"kind":"static"`, `"kind":"dynamic"`), "/kind"},
		"no state":               {get, seen(`"state":"up",`, ""), "state"},
		"no paths":               {get, seen(`"paths":["/team/*/members"],"policy"`, `"policy"`), "paths"},
		"a key that may be kept": {key, jsonAnswer(201, keyMade, "Location", gatewayKeys+"/9f86d081884c7d65"), "Cache-Control"},
		"no place":               {key, jsonAnswer(201, keyMade, "Cache-Control", "no-store"), "Location"},
		"the key shown again":    {call{method: "GET", path: gatewayKeys + "/9f86d081884c7d65"}, jsonAnswer(200, keyMade, "ETag", `"7"`), "key"},
		"a decision by nobody":   {call{method: "GET", path: gatewayAccess + "/a1"}, jsonAnswer(200, strings.Replace(accessGiven, "PENDING", "ALLOWED", 1), "ETag", `"7"`), "/state"},
		"no steps":               {call{"POST", "/gateway/v1/explain", "", `{"method":"GET","url":"/x"}`}, jsonAnswer(200, `{"reason":"x"}`), "steps"},
	} {
		t.Run(name, func(t *testing.T) {
			messages := exchange(t, "mep_gateway", x.call, x.answer)
			require.Len(t, messages, 1)
			require.Contains(t, messages[0], x.reason)
		})
	}
}

func TestBadRequestsOfTheGatewaysManagementAreReported(t *testing.T) {
	put := func(old, now string) call {
		return call{"PUT", gatewayRoute, "", strings.Replace(routeGiven, old, now, 1)}
	}
	for name, x := range map[string]struct {
		call   call
		reason string
	}{
		"a misspelt member":     {put(`"strip"`, `"stripp"`), "stripp"},
		"a misspelt policy":     {put(`"quotas"`, `"quota"`), "quota"},
		"a week":                {put(`"hour"`, `"week"`), "/per"},
		"no calls":              {put(`"calls":5`, `"calls":0`), "/calls"},
		"no paths":              {put(`"paths":["/team/*/members"],`, ""), "paths"},
		"a key of nobody":       {call{"POST", gatewayKeys, "", `{}`}, "consumer"},
		"a decision of nothing": {call{"PUT", gatewayAccess + "/a1", "", `{"state":"PENDING"}`}, "/state"},
		"a call of no method":   {call{"POST", "/gateway/v1/explain", "", `{"url":"/x"}`}, "method"},
	} {
		t.Run(name, func(t *testing.T) {
			good := map[string]answer{
				gatewayRoute: jsonAnswer(200, routeSeen, "ETag", `"7"`), gatewayKeys: jsonAnswer(201, keyMade, "Location", gatewayKeys+"/9f86d081884c7d65", "Cache-Control", "no-store"),
				gatewayAccess + "/a1": jsonAnswer(200, accessGiven, "ETag", `"8"`), "/gateway/v1/explain": jsonAnswer(200, explained),
			}[x.call.path]
			messages := exchange(t, "mep_gateway", x.call, good)
			require.Len(t, messages, 1)
			require.Contains(t, messages[0], "the request was accepted")
			require.Contains(t, messages[0], x.reason)
			require.Empty(t, exchange(t, "mep_gateway", x.call, problemAnswer(400)), "a refusal is right")
		})
	}
}
