package blackbox

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/tests/harness"
)

const (
	mm5         = "/mm5/v1"
	instances   = mm5 + "/app_instances"
	supportRoot = "/mec_app_support/v2"
)

// The resources of an app in the application support API.
func (a app) support() string       { return a.prefix + supportRoot + "/applications/" + a.id }
func (a app) ready() string         { return a.support() + "/confirm_ready" }
func (a app) confirmation() string  { return a.support() + "/confirm_termination" }
func (a app) endings() string       { return a.support() + "/subscriptions" }
func (a app) trafficRules() string  { return a.support() + "/traffic_rules" }
func (a app) dnsRules() string      { return a.support() + "/dns_rules" }
func (a app) registration() string  { return a.prefix + supportRoot + "/registrations/" + a.id }
func (a app) registrations() string { return a.prefix + supportRoot + "/registrations" }

// A rule's id stands in a path as any text does.
func (a app) trafficRule(id string) string { return a.trafficRules() + "/" + url.PathEscape(id) }
func (a app) dnsRule(id string) string     { return a.dnsRules() + "/" + url.PathEscape(id) }

// isReady says that the app runs, which has to work.
func (a app) isReady() {
	a.TB().Helper()
	a.Post(a.ready(), object{"indication": "READY"}).Is(204)
}

// confirm says that the app is ready to be stopped or terminated.
func (a app) confirm(action string) *harness.Answer {
	a.TB().Helper()
	return a.Post(a.confirmation(), object{"operationAction": action})
}

// mind makes a termination subscription, which has to work, and returns its path.
func (a app) mind(callback string) string {
	a.TB().Helper()
	answer := a.Post(a.endings(), a.ending(callback)).Is(201)
	return harness.Path(a.TB(), answer.Header.Get("Location"))
}

func (a app) ending(callback string) object {
	return object{
		"subscriptionType": "AppTerminationNotificationSubscription", "callbackReference": callback, "appInstanceId": a.id,
	}
}

// states are the states of the rules of both kinds as the app reads them, by id.
func (a app) states() map[string]string {
	a.TB().Helper()
	states := map[string]string{}
	for _, r := range a.Get(a.trafficRules()).Is(200).Array() {
		states[r["trafficRuleId"].(string)] = r["state"].(string)
	}
	for _, r := range a.Get(a.dnsRules()).Is(200).Array() {
		states[r["dnsRuleId"].(string)] = r["state"].(string)
	}
	return states
}

// mepm is the MEC platform manager.
type mepm struct{ *harness.Client }

func mepmOf(t *testing.T, p *harness.Process) mepm {
	t.Helper()
	return mepm{p.MEPM(t)}
}

func instance(id string) string { return instances + "/" + url.PathEscape(id) }

// configure configures an app instance, which has to be accepted, and returns the path of the operation.
func (m mepm) configure(id string, cfg object, options ...harness.RequestOption) string {
	m.TB().Helper()
	return m.begun(m.Post(instance(id)+"/configure_platform_for_app", cfg, options...))
}

// unconfigure takes the configuration away, operate starts or stops, and terminate terminates. They work like configure.
func (m mepm) unconfigure(id string) string {
	m.TB().Helper()
	return m.begun(m.Delete(instance(id)))
}

func (m mepm) operate(id string, body object) string {
	m.TB().Helper()
	return m.begun(m.Post(instance(id)+"/operate", body))
}

func (m mepm) terminate(id string, body object) string {
	m.TB().Helper()
	return m.begun(m.Post(instance(id)+"/terminate", body))
}

// begun is the path of the operation of a request that has to have been accepted.
func (m mepm) begun(answer *harness.Answer) string {
	m.TB().Helper()
	answer.Is(http.StatusAccepted)
	require.Empty(m.TB(), answer.Body)
	return harness.Path(m.TB(), answer.Header.Get("Location"))
}

// final waits until an operation has ended.
func (m mepm) final(operation string) object {
	m.TB().Helper()
	var op object
	harness.EventuallyWithin(m.TB(), 2*harness.Patience, "the operation ends", func() error {
		op = m.Get(operation).Is(200).Object()
		return harness.Not(op["operationState"] == "COMPLETED" || op["operationState"] == "FAILED", "it is %v", op)
	})
	require.NotEmpty(m.TB(), op["endTime"])
	require.EqualValues(m.TB(), 100, op["percentage"], "%v", op)
	return op
}

// done waits until an operation has ended well.
func (m mepm) done(operation string) object {
	m.TB().Helper()
	op := m.final(operation)
	require.Equal(m.TB(), "COMPLETED", op["operationState"], "%v", op)
	return op
}

// failed waits until an operation has failed.
func (m mepm) failed(operation string) object {
	m.TB().Helper()
	op := m.final(operation)
	require.Equal(m.TB(), "FAILED", op["operationState"], "%v", op)
	require.NotEmpty(m.TB(), op["detail"])
	return op
}

// state is where an app instance is in its life, "" when there is none.
func (m mepm) state(id string) string {
	m.TB().Helper()
	answer := m.Get(instance(id) + "/status")
	if answer.Status == 404 {
		return ""
	}
	s, _ := answer.Is(200).Object()["lifecycle"].(string)
	return s
}

// becomes waits until an app instance is in a state, "" until it is gone.
func (m mepm) becomes(id, state string) {
	m.TB().Helper()
	harness.EventuallyWithin(m.TB(), 2*harness.Patience, "the app instance is "+state, func() error {
		got := m.state(id)
		return harness.Not(got == state, "it is %q", got)
	})
}

// results are the results of rules, as "KIND id RESULT", sorted.
func results(list any) []string {
	found := []string{}
	rules, _ := list.([]any)
	for _, r := range rules {
		r := r.(object)
		found = append(found, fmt.Sprint(r["kind"], " ", r["ruleId"], " ", r["result"]))
	}
	slices.Sort(found)
	return found
}

// rules are the results of the rules of an app instance as they are.
func (m mepm) rules(id string) []string {
	m.TB().Helper()
	return results(m.Get(instance(id) + "/status").Is(200).Object()["rules"])
}

// awaitRules waits until the results of the rules are as wanted: a change by the app is acknowledged before it is in force.
func (m mepm) awaitRules(id string, want ...string) {
	m.TB().Helper()
	harness.Eventually(m.TB(), "the rules are reported as wanted", func() error {
		got := m.rules(id)
		return harness.Not(slices.Equal(got, want), "want %v, not %v", want, got)
	})
}

var (
	started  = object{"changeStateTo": "STARTED"}
	stopped  = object{"changeStateTo": "STOPPED"}
	forceful = object{"terminationType": "FORCEFUL"}
)

// graceful is a termination, gracefulStop a stop, that waits for the app so many seconds.
func graceful(seconds int) object {
	return object{"terminationType": "GRACEFUL", "gracefulTerminationTimeout": seconds}
}

func gracefulStop(seconds int) object {
	return object{"changeStateTo": "STOPPED", "stopType": "GRACEFUL", "gracefulStopTimeout": seconds}
}

// traffic and dns are rules with nothing but what is required.
func traffic(id string) object {
	return object{
		"trafficRuleId": id, "filterType": "FLOW", "priority": 1, "trafficFilter": []any{object{}}, "action": "DROP",
	}
}

func dns(id string) object {
	return object{"dnsRuleId": id, "domainName": "app.example", "ipAddressType": "IP_V4", "ipAddress": "10.0.0.1"}
}

// configuration is one with some rules of each kind, t1, t2 … and d1, d2 ….
func configuration(name string, trafficRules, dnsRules int) object {
	ts, ds := []any{}, []any{}
	for i := range trafficRules {
		ts = append(ts, but(traffic(fmt.Sprint("t", i+1)), "priority", i%256))
	}
	for i := range dnsRules {
		ds = append(ds, but(dns(fmt.Sprint("d", i+1)), "domainName", fmt.Sprintf("d%d.%s.example", i+1, name)))
	}
	return object{"appName": name, "appTrafficRule": ts, "appDNSRule": ds}
}

// fullTraffic is a traffic rule with every member there is.
func fullTraffic(id string) object {
	return object{
		"trafficRuleId": id, "filterType": "PACKET", "priority": 255, "action": "DUPLICATE_DECAPSULATED", "state": "ACTIVE",
		"trafficFilter": []any{
			object{
				"srcAddress": []any{"10.0.0.0/8", "10.1.0.0/255.255.0.0", "192.0.2.1"}, "dstAddress": []any{"192.0.2.1-192.0.2.9"},
				"srcPort": []any{"80", "8000-8100"}, "dstPort": []any{"65535"}, "protocol": []any{"tcp", "17"}, "tag": []any{"gold"},
				"srcTunnelAddress": []any{"10.9.0.1"}, "tgtTunnelAddress": []any{"10.9.0.2"}, "srcTunnelPort": []any{"2152"},
				"dstTunnelPort": []any{"2152-2153"}, "qCI": 9, "dSCP": 46, "uri": []any{"http://a.example/"}, "packetLabel": []any{"x"},
			},
			object{"srcAddress": []any{"2001:db8::/32"}, "dstAddress": []any{"2001:db8::1-2001:db8::ff"}, "tC": 255},
		},
		"dstInterface": []any{
			object{"interfaceType": "TUNNEL", "tunnelInfo": object{
				"tunnelType": "GTP_U", "tunnelDstAddress": "10.9.0.3", "tunnelSrcAddress": "2001:db8::3", "tunnelSpecificData": object{"teid": 7},
			}},
			object{"interfaceType": "MAC", "srcMacAddress": "00:00:5e:00:53:01", "dstMacAddress": "00:00:5e:00:53:02"},
		},
	}
}
