package main

import (
	"context"
	"encoding/json"
	"net/http"

	"github.com/miekg/dns"

	"github.com/openmep/mep/api/auth"
	"github.com/openmep/mep/api/mm5"
)

// The traffic rule of the app that is configured in EdgeGallery's format, and the name of its DNS rule.
const (
	videoRule = "rule1"
	videoName = "video.mec.example."
)

// The request bodies of EdgeGallery's manager: some values have its own spelling, members without a value are present anyway,
// and no rule has a state.
const (
	videoConfs = `{
		"authInfo": {"credentials": {"accessKeyId": "", "secretKey": "", "appName": "video"}},
		"appInfo": {"appName": "video", "requiredServices": ["location"]}}`
	videoConfig = `{
		"appName": "video", "appSupportMp1": true,
		"appTrafficRule": [{
			"trafficRuleId": "rule1", "filterType": "PACKET", "priority": 40, "action": "FORWARD_AS_IS",
			"trafficFilter": [{"srcAddress": ["198.51.100.77/28"], "protocol": ["TCP"], "qCI": 0, "dSCP": 0, "tC": 0, "tag": null}],
			"dstInterface": [{"interfaceType": "IP", "srcMacAddress": "", "dstMacAddress": "", "dstIpAddress": "192.0.2.12"}]
		}],
		"appDnsRule": [{
			"dnsRuleId": "dns1", "domainName": "video.mec.example", "ipAddressType": "IPv4", "ipAddress": "192.0.2.12", "ttl": 0
		}]}`
)

// serveEdgeGallery makes EdgeGallery's manager manage an app with its own requests.
func (s *story) serveEdgeGallery(ctx context.Context) {
	m := s.manager.as(s.screen, "EdgeGallery's MEPM")
	appD := "/mepcfg/app_lcm/v1/applications/" + videoID + "/appd_configuration"
	s.step("EdgeGallery's MEPM finds its own requests here. It gives an app its credentials and configures the platform for it.")
	var made auth.Confs
	m.call(ctx, request{method: http.MethodPut, path: confs(videoID), body: json.RawMessage(videoConfs)}, http.StatusOK, &made)
	expect(made.AuthInfo.Credentials.SecretKey != "", "the platform made no secret key")
	var task mm5.TaskProgress
	m.call(ctx, request{method: http.MethodPost, path: appD, body: json.RawMessage(videoConfig)}, http.StatusOK, &task)
	s.controller.hears(ctx, videoID, videoRule)
	s.device.learns(ctx, dns.TypeA, videoName, known("A 192.0.2.12"))

	s.step("The rules are in force at once, as it is used to. It asks how the task went, and reads the configuration.")
	s.events.sees(ctx, s.screen, "operation video CONFIGURE COMPLETED")
	m.poll(ctx, "/mepcfg/app_lcm/v1/tasks/"+task.TaskID+"/appd_configuration", &task, func() bool {
		return task.ConfigResult != mm5.ConfigProcessing
	})
	expect(task.ConfigResult == mm5.ConfigSuccess && task.ConfigPhase == "100", "the task is %+v", task)
	var present mm5.AppDConfig
	m.call(ctx, request{method: http.MethodGet, path: appD}, http.StatusOK, &present)
	expect(present.AppName == "video" && len(present.AppTrafficRule) == 1 && len(present.AppDNSRule) == 1, "the configuration is %+v", present)

	s.step("It asks for the platform's capabilities: the services, and who consumes them.")
	var offers []mm5.PlatformCapability
	m.call(ctx, request{method: http.MethodGet, path: "/mepcfg/mec_platform_config/v1/capabilities"}, http.StatusOK, &offers)
	expect(len(offers) == 1 && offers[0].CapabilityName == location && len(offers[0].Consumers) == 2, "the capabilities are %+v", offers)
	var offer mm5.PlatformCapability
	m.call(ctx, request{method: http.MethodGet, path: "/mepcfg/mec_platform_config/v1/capabilities/" + offers[0].CapabilityID}, http.StatusOK, &offer)
	expect(offer.CapabilityID == offers[0].CapabilityID, "the capability is %+v", offer)

	s.step("It replaces the configuration with one that has no traffic rules, takes that back, too, and ends the app.")
	present.AppTrafficRule = nil
	m.call(ctx, request{method: http.MethodPut, path: appD, body: present}, http.StatusOK, &task)
	s.controller.hears(ctx, videoID)
	s.events.sees(ctx, s.screen, "rule video TRAFFIC rule1 REMOVED, ACTIVE, not in force", "operation video CONFIGURE COMPLETED")
	m.call(ctx, request{method: http.MethodDelete, path: appD}, http.StatusOK, &task)
	s.events.sees(ctx, s.screen, "rule video DNS dns1 REMOVED, ACTIVE, not in force", "operation video UNCONFIGURE COMPLETED")
	m.call(ctx, request{method: http.MethodDelete, path: "/mep/mec_app_support/v1/applications/" + videoID + "/AppInstanceTermination"}, http.StatusOK, nil)
	s.events.sees(ctx, s.screen, "app video REMOVED", "operation video TERMINATE COMPLETED")
	s.device.learns(ctx, dns.TypeA, videoName, noSuchName)
	s.manager.call(ctx, request{method: http.MethodGet, path: confs(videoID)}, http.StatusNotFound, nil)
}
