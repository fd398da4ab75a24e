package main

import (
	"context"
	"net/http"
	"slices"
	"time"

	"github.com/openmep/mep/api/mm5"
	"github.com/openmep/mep/api/mp1"
)

// The rules of the apps.
const (
	usersRule    = "users"
	testRule     = "test"
	consumerRule = "tiles"
)

// trafficRule returns a rule for packets to an address.
func trafficRule(id string, priority int, action mp1.TrafficAction, to string, out ...mp1.DestinationInterface) mp1.TrafficRule {
	return mp1.TrafficRule{
		TrafficRuleID: id, FilterType: mp1.FilterFlow, Priority: &priority, Action: action, State: mp1.RuleActive, DstInterface: out,
		TrafficFilter: []mp1.TrafficFilter{{DstAddress: []string{to}, DstPort: []string{"443"}, Protocol: []string{"TCP"}}},
	}
}

// toHost is a destination interface that sends packets to a local machine.
func toHost(address string) mp1.DestinationInterface {
	return mp1.DestinationInterface{InterfaceType: mp1.InterfaceIP, DstIPAddress: address}
}

// beReadyTooEarly makes an app confirm that it is ready before it has been configured.
func (s *story) beReadyTooEarly(ctx context.Context) {
	s.step("The producer says that it is ready. It is too early: the MEPM has not configured the platform for it.")
	s.producer.support.refused(ctx, ready, http.StatusConflict)
}

// ready is the request with which an app confirms that it is running.
var ready = request{method: http.MethodPost, path: "/confirm_ready", body: mp1.AppReadyConfirmation{Indication: mp1.IndicationReady}}

// configure makes the MEPM configure the platform for both apps.
func (s *story) configure(ctx context.Context) {
	wanted := mm5.ConfigPlatformForAppRequest{
		AppName:            "producer",
		AppServiceProduced: []mp1.ServiceDescriptor{{SerName: location, Version: "2.1.1"}},
		AppTrafficRule: []mp1.TrafficRule{
			trafficRule(usersRule, 10, mp1.ActionForwardDecapsulated, "198.51.100.7", toHost("192.0.2.10")),
			trafficRule(testRule, 20, mp1.ActionDrop, "198.51.100.8"),
		},
		AppDNSRule: dnsRules(),
	}
	s.step("The MEPM asks what it would change to configure the platform for the producer. That is a dry run, and does nothing.")
	var diff mm5.ConfigurationDiff
	path := instance(producerID) + "/configure_platform_for_app"
	s.manager.call(ctx, request{method: http.MethodPost, path: path + "?dryRun=true", body: wanted}, http.StatusOK, &diff)
	expect(diff.Changed && diff.Creates && slices.Equal(diff.TrafficRules.Added, []string{usersRule, testRule}) &&
		slices.Equal(diff.DNSRules.Added, []string{nameRule, name6Rule, overrideRule}), "the dry run says %+v", diff)
	s.manager.call(ctx, request{method: http.MethodGet, path: instance(producerID)}, http.StatusNotFound, nil)

	s.step("It begins to follow the platform's events (server-sent, over Mm5), and does what it asked about.")
	s.text("MEPM -> GET /mm5/v1/events", "(here, what comes is shown from time to time)\n")
	s.events = s.manager.watch(ctx)
	operation := s.manager.configure(ctx, producerID, wanted)
	s.events.sees(ctx, s.screen, "app producer NOT_CONFIGURED -> CONFIGURED", "operation producer CONFIGURE COMPLETED",
		"rule producer TRAFFIC users ADDED, ACTIVE, not in force")

	s.step("The operation has ended. The rules are known, and wait for the app.")
	op := s.manager.look(ctx, operation, mm5.OperationCompleted)
	expectResults(op, mm5.RuleNotApplied, usersRule, testRule, nameRule, name6Rule, overrideRule)

	s.step("The same request again is the same operation.")
	again := s.manager.configure(ctx, producerID, wanted)
	expect(again == operation, "the same request was the operation %s, then %s", operation, again)

	s.step("The consumer gets its configuration. It needs the service of the producer: that, and its own, is all it will see.")
	operation = s.manager.configure(ctx, consumerID, mm5.ConfigPlatformForAppRequest{
		AppName:            "consumer",
		AppServiceRequired: []mp1.ServiceDependency{{SerName: location, Version: "2.1.1"}},
		AppTrafficRule:     []mp1.TrafficRule{trafficRule(consumerRule, 30, mp1.ActionForwardDecapsulated, "198.51.100.9", toHost("192.0.2.11"))},
	})
	s.events.sees(ctx, s.screen, "operation consumer CONFIGURE COMPLETED")
	expectResults(s.manager.look(ctx, operation, mm5.OperationCompleted), mm5.RuleNotApplied, consumerRule)
}

// expectResults expects an operation to report the same result for all rules.
func expectResults(op mm5.AppLcmOpOcc, result mm5.RuleProgress, ruleIDs ...string) {
	for _, r := range op.RuleResults {
		expect(r.Result == result, "the rule %s is %s, want %s", r.RuleID, r.Result, result)
	}
	for _, id := range ruleIDs {
		expect(slices.ContainsFunc(op.RuleResults, func(r mm5.RuleResult) bool { return r.RuleID == id }), "nothing is said of the rule %s", id)
	}
	expect(len(op.RuleResults) == len(ruleIDs), "the operation reports on %d rules, want %d", len(op.RuleResults), len(ruleIDs))
}

// becomeReady makes both apps confirm that they are ready: their rules come into force.
func (s *story) becomeReady(ctx context.Context) {
	s.step("Now the producer may be ready. Its name has an address at once.")
	s.producer.support.call(ctx, ready, http.StatusNoContent, nil)
	s.askInTime(ctx, time.Now())

	s.step("The data plane's controller is told of its rules, signed, and checks the signature. The MEPM hears of all that.")
	s.controller.hears(ctx, producerID, usersRule, testRule)
	s.events.sees(ctx, s.screen, "app producer CONFIGURED -> STARTED", "rule producer TRAFFIC users CHANGED, ACTIVE, to be in force",
		"rule producer DNS name CHANGED, ACTIVE, to be in force", "ruleStatus producer dataplane applied [test users], 0 failed",
		"ruleStatus producer dnsagent applied [name name6 override], 0 failed")

	s.step("So is the consumer. The MEPM sees how its rules fare.")
	s.consumer.support.call(ctx, ready, http.StatusNoContent, nil)
	s.controller.hears(ctx, consumerID, consumerRule)
	s.events.sees(ctx, s.screen, "app consumer CONFIGURED -> STARTED", "ruleStatus consumer dataplane applied [tiles], 0 failed")
	var status mm5.AppInstance
	applied := func() bool { return len(status.Rules) == 1 && status.Rules[0].Result == mm5.RuleApplied }
	s.manager.poll(ctx, instance(consumerID)+"/status", &status, applied)
	expect(status.Lifecycle == mm5.LifecycleStarted && applied(), "the consumer is %+v", status)
}

// switchRule makes the producer switch one of its rules off.
func (s *story) switchRule(ctx context.Context) {
	s.step("The producer needs its rule %q no more, and switches it off, if nobody changed it since it was read.", testRule)
	path := "/traffic_rules/" + testRule
	var rule mp1.TrafficRule
	was := s.producer.support.call(ctx, request{method: http.MethodGet, path: path}, http.StatusOK, &rule).Get("ETag")
	expect(was != "" && rule.State == mp1.RuleActive, "the rule is %+v", rule)
	rule.State = mp1.RuleInactive
	off := request{method: http.MethodPut, path: path, ifMatch: was, body: rule}
	is := s.producer.support.call(ctx, off, http.StatusOK, &rule).Get("ETag")
	expect(is != "" && is != was && rule.State == mp1.RuleInactive, "the rule is %+v, its entity-tag %s", rule, is)
	s.controller.hears(ctx, producerID, usersRule)
	s.events.sees(ctx, s.screen, "rule producer TRAFFIC test CHANGED, INACTIVE, not in force", "ruleStatus producer dataplane applied [users], 0 failed")

	s.step("The same change again comes too late: the rule is another one now.")
	s.producer.support.refused(ctx, off, http.StatusPreconditionFailed)

	s.step("Both apps want to be told before they are stopped or terminated.")
	s.producer.subscribeToNotices(ctx)
	s.consumer.subscribeToNotices(ctx)
}
