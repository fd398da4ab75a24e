package blackbox

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/tests/harness"
)

// appd is the configuration of an app instance as EdgeGallery's MEPM knows it, task one of its tasks.
func appd(id string) string { return "/mepcfg/app_lcm/v1/applications/" + id + "/appd_configuration" }
func task(id string) string { return "/mepcfg/app_lcm/v1/tasks/" + id + "/appd_configuration" }

// termination is how its lcmcontroller ends an app instance.
func termination(id string) string {
	return "/mep/mec_app_support/v1/applications/" + id + "/AppInstanceTermination"
}

// appDConfig is a configuration in EdgeGallery's form.
func appDConfig(name string) object {
	return object{"appName": name, "appSupportMp1": true, "appTrafficRule": []any{traffic("t1")}, "appDNSRule": []any{but(dns("d1"), "domainName", name+".example")}}
}

// asTheirs makes a request what apprulemgr sends: it says nothing of the type of its body, and allows compression.
func asTheirs(r *http.Request) {
	r.Header.Del("Content-Type")
	r.Header.Set("Accept-Encoding", "gzip")
	r.Header.Set("User-Agent", "Go-http-client/1.1")
}

// progress is what apprulemgr reads of an answer; names match whatever their case is.
type progress struct {
	TaskID        string `json:"taskId"`
	AppInstanceID string `json:"appInstanceId"`
	ConfigResult  string `json:"configResult"`
	ConfigPhase   string `json:"configPhase"`
	Detailed      string `json:"detailed"`
}

// apprulemgr asks for something as EdgeGallery's rule manager does, and polls until the task has ended.
func apprulemgr(m mepm, method, id string, body any) progress {
	m.TB().Helper()
	read := func(answer *harness.Answer) progress {
		m.TB().Helper()
		var p progress
		answer.Is(200).Into(&p)
		for _, key := range []string{"taskId", "appInstanceId", "configResult", "configPhase", "Detailed"} {
			require.IsType(m.TB(), "", answer.Object()[key], "%s in %s", key, answer.Body)
		}
		require.Equal(m.TB(), id, p.AppInstanceID)
		require.NoError(m.TB(), uuid.Validate(p.TaskID))
		require.Regexp(m.TB(), `^(0|[1-9][0-9]?|100)$`, p.ConfigPhase)
		require.Contains(m.TB(), []string{"PROCESSING", "SUCCESS", "FAILURE"}, p.ConfigResult)
		return p
	}
	p := read(m.Do(method, appd(id), body, asTheirs))
	harness.Eventually(m.TB(), "the task ends", func() error {
		if p.ConfigResult == "PROCESSING" {
			p = read(m.Get(task(p.TaskID), asTheirs))
		}
		return harness.Not(p.ConfigResult != "PROCESSING", "%+v", p)
	})
	return p
}

func succeeded(t *testing.T, p progress) {
	t.Helper()
	require.Equal(t, []string{"SUCCESS", "100"}, []string{p.ConfigResult, p.ConfigPhase}, p.Detailed)
}

// What apprulemgr sends, member for member: lists it has nothing for are null, numbers 0, texts empty.
const theirRules = `{"tenantId":"18db0283-3c67-4042-a708-a8e4a10c6b32","appInstanceId":"%[1]s","appName":"%[2]s","appSupportMp1":true,"appTrafficRule":[` +
	`{"trafficRuleId":"TrafficRule1","filterType":"FLOW","priority":1,"action":"DROP","trafficFilter":[{"trafficFilterId":"","srcAddress":["192.168.1.1/28"],"srcPort":["8080"],"dstAddress":["192.168.1.1/28"],"dstPort":["8080"],"protocol":["TCP"],"qCI":1,"dSCP":0,"tC":1,"tag":["tag"],"srcTunnelAddress":["1.1.1.1"],"dstTunnelAddress":["1.1.1.2"],"srcTunnelPort":["65"],"dstTunnelPort":["66"]}],"dstInterface":[{"dstInterfaceId":"","interfaceType":"TUNNEL","srcMacAddress":"02-00-00-00-00-00","dstMacAddress":"02-00-00-00-00-01","dstIpAddress":"192.0.2.0","TunnelInfo":{"tunnelInfoId":"","tunnelType":"GTP_U","tunnelDstAddress":"8.8.8.8","tunnelSrcAddress":"8.8.4.4","tunnelSpecificData":""}}]},` +
	`{"trafficRuleId":"TrafficRule2","filterType":"PACKET","priority":255,"action":"DUPLICATED_DECAPSULATED","trafficFilter":[],"dstInterface":[{"dstInterfaceId":"","interfaceType":"","srcMacAddress":"","dstMacAddress":"","dstIpAddress":"","TunnelInfo":{"tunnelInfoId":"","tunnelType":"","tunnelDstAddress":"","tunnelSrcAddress":"","tunnelSpecificData":""}}]},` +
	`{"trafficRuleId":"TrafficRule3","filterType":"FLOW","priority":9,"action":"FORWARD_AS_IS","trafficFilter":[{"trafficFilterId":"","srcAddress":null,"srcPort":null,"dstAddress":null,"dstPort":null,"protocol":null,"qCI":0,"dSCP":0,"tC":0,"tag":null,"srcTunnelAddress":null,"dstTunnelAddress":null,"srcTunnelPort":null,"dstTunnelPort":null}],"dstInterface":null}],` +
	`"appDnsRule":[{"dnsRuleId":"dnsRule1","domainName":"www.%[2]s.example","ipAddressType":"IP_V4","ipAddress":"192.0.2.0","ttl":86400},{"dnsRuleId":"dnsRule2","domainName":"www6.%[2]s.example","ipAddressType":"IP_V6","ipAddress":"2001:db8::1","ttl":0}],"origin":"MEPM"}`

func TestAnUnmodifiedApprulemgrConfiguresAnApp(t *testing.T) {
	t.Parallel()
	c := harness.NewController(t)
	p := harness.Start(t, c.Option())
	m, a := mepmOf(t, p), newApp(p.Client(t))
	m.Get(appd(a.id), asTheirs).Problem(404)
	succeeded(t, apprulemgr(m, "POST", a.id, fmt.Sprintf(theirRules, a.id, "demo")))
	// Its rules are in force at once; no app of EdgeGallery says that it is ready.
	c.AwaitRules(t, harness.Traffic, a.id, "TrafficRule1", "TrafficRule2", "TrafficRule3")
	c.AwaitRules(t, harness.DNS, a.id, "dnsRule1", "dnsRule2")
	require.Equal(t, map[string]string{"TrafficRule1": "ACTIVE", "TrafficRule2": "ACTIVE", "TrafficRule3": "ACTIVE", "dnsRule1": "ACTIVE", "dnsRule2": "ACTIVE"}, a.states())
	one := c.Rule(harness.Traffic, a.id, "TrafficRule1")
	same(t, []any{object{
		"srcAddress": []any{"192.168.1.0/28"}, "srcPort": []any{"8080"}, "dstAddress": []any{"192.168.1.0/28"}, "dstPort": []any{"8080"}, "protocol": []any{"TCP"},
		"qCI": 1, "tC": 1, "tag": []any{"tag"}, "srcTunnelAddress": []any{"1.1.1.1"}, "tgtTunnelAddress": []any{"1.1.1.2"}, "srcTunnelPort": []any{"65"}, "dstTunnelPort": []any{"66"},
	}}, one["trafficFilter"])
	require.Equal(t, "8.8.8.8", one["dstInterface"].([]any)[0].(object)["tunnelInfo"].(object)["tunnelDstAddress"])
	require.Equal(t, "DUPLICATE_DECAPSULATED", c.Rule(harness.Traffic, a.id, "TrafficRule2")["action"])
	require.Equal(t, "FORWARD_ENCAPSULATED", c.Rule(harness.Traffic, a.id, "TrafficRule3")["action"])
	require.Nil(t, c.Rule(harness.DNS, a.id, "dnsRule2")["ttl"])

	// What it reads is what it can read.
	var read struct {
		AppName        string
		AppSupportMp1  bool
		AppTrafficRule []struct {
			TrafficRuleID, FilterType, Action string
			Priority                          int
			TrafficFilter                     []struct {
				SrcAddress, SrcPort, Protocol []string
				QCI, DSCP, TC                 int
			}
			DstInterface []struct {
				InterfaceType string
				TunnelInfo    struct{ TunnelType, TunnelDstAddress, TunnelSpecificData string }
			}
		}
		AppDNSRule []struct {
			DNSRuleID, DomainName, IPAddressType, IPAddress string
			TTL                                             int
		}
	}
	answer := m.Get(appd(a.id), asTheirs).Is(200)
	require.NoError(t, json.Unmarshal(answer.Body, &read))
	require.Equal(t, "demo", read.AppName)
	require.True(t, read.AppSupportMp1)
	require.Equal(t, []string{"DROP", "DUPLICATE_DECAPSULATED", "FORWARD_AS_IS"}, []string{read.AppTrafficRule[0].Action, read.AppTrafficRule[1].Action, read.AppTrafficRule[2].Action})
	require.Equal(t, "GTP_U", read.AppTrafficRule[0].DstInterface[0].TunnelInfo.TunnelType)
	require.Equal(t, 86400, read.AppDNSRule[0].TTL)

	require.Contains(t, m.Post(appd(a.id), fmt.Sprintf(theirRules, a.id, "demo"), asTheirs).Problem(400).Detail, "PUT")
	succeeded(t, apprulemgr(m, "PUT", a.id, fmt.Sprintf(theirRules, a.id, "demo"))) // without a difference, too
	less := strings.Replace(fmt.Sprintf(theirRules, a.id, "demo"), `"appDnsRule":[{"dnsRuleId":"dnsRule1",`, `"appDnsRule":[{"dnsRuleId":"dnsRule3",`, 1)
	succeeded(t, apprulemgr(m, "PUT", a.id, less))
	c.AwaitRules(t, harness.DNS, a.id, "dnsRule2", "dnsRule3")
	require.Contains(t, m.Put(appd(a.id), fmt.Sprintf(theirRules, a.id, "other"), asTheirs).Problem(400).Detail, "demo")
	succeeded(t, apprulemgr(m, "DELETE", a.id, nil))
	require.Empty(t, c.Apps())
	m.Get(appd(a.id), asTheirs).Problem(404)
	succeeded(t, apprulemgr(m, "DELETE", a.id, nil)) // once more
	m.Put(appd(a.id), fmt.Sprintf(theirRules, a.id, "demo"), asTheirs).Problem(404)
	m.Delete(appd(uuid.NewString()), asTheirs).Problem(404)
	m.Get(task(uuid.NewString()), asTheirs).Problem(404)
	m.Get(task("x"), asTheirs).Problem(404)
}

func TestAnUnmodifiedLcmcontrollerBringsAnAppAndEndsIt(t *testing.T) {
	t.Parallel()
	c := harness.NewController(t)
	p := harness.Start(t, c.Option())
	m, a := mepmOf(t, p), newApp(p.Client(t))
	cb := harness.NewSubscriber(t)
	proxied := func(r *http.Request) { asTheirs(r); r.Header.Set("X-Real-Ip", "119.8.47.5") }
	theirs := func(r *http.Request) { proxied(r); r.Header.Set("X-AppinstanceID", a.id) }
	ak, sk := characters(19)+"=", characters(64)
	confs := fmt.Sprintf(`{"authInfo":{"credentials":{"accessKeyId":%q,"secretKey":%q,"appName":"demo"}},"appInfo":{"appName":"demo","requiredServices":null}}`, ak, sk)
	require.NotContains(t, string(p.Auth(t).Put(harness.ConfsPath(a.id), confs, proxied).Is(200).Body), sk)
	m.Put(harness.ConfsPath(a.id), confs, proxied).Is(200) // at Mm5, too
	keys := harness.Keys{AppInstanceID: a.id, AccessKeyID: ak, SecretKey: sk}
	keys.Fetch(p.Auth(t))
	succeeded(t, apprulemgr(m, "POST", a.id, fmt.Sprintf(theirRules, a.id, "demo")))
	consumer := newApp(p.Client(t))
	consumer.subscribe(cb.URL("/consumer"), object{"serNames": []any{"cam"}})
	svc := a.register(own("cam"))

	same(t, []any{object{
		"capabilityId": svc.id, "capabilityName": "cam", "status": "ACTIVE", "version": "1.0", "consumers": []any{object{"applicationInstanceId": consumer.id}},
	}}, m.Get("/mepcfg/mec_platform_config/v1/capabilities", asTheirs).Is(200).Array())
	require.Equal(t, svc.id, m.Get("/mepcfg/mec_platform_config/v1/capabilities/"+svc.id, asTheirs).Is(200).Object()["capabilityId"])
	m.Get("/mepcfg/mec_platform_config/v1/capabilities/"+uuid.NewString(), asTheirs).Problem(404)

	ended := m.Delete(termination(a.id), theirs).Is(200)
	require.Equal(t, `""`, strings.TrimSpace(string(ended.Body)))
	require.Empty(t, m.state(a.id), "nobody was to be told, so it is over with the answer")
	require.Empty(t, c.Apps())
	cb.AwaitChange(t, "/consumer", "REMOVED cam ACTIVE")
	oauthError(t, keys.Ask(p.Auth(t)), 401, "invalid_client")
	require.Equal(t, "[]", strings.TrimSpace(string(m.Get("/mepcfg/mec_platform_config/v1/capabilities", asTheirs).Is(200).Body)))
	for _, id := range []string{a.id, uuid.NewString(), "none"} {
		m.Delete(termination(id), asTheirs).Is(200) // one that is not known has ended, too
	}

	t.Run("an app that wants to be told is told first", func(t *testing.T) {
		// P-8: in EdgeGallery its services and keys are gone before it hears of it.
		a := newApp(p.Client(t))
		m := mepmOf(t, p)
		succeeded(t, apprulemgr(m, "POST", a.id, fmt.Sprintf(theirRules, a.id, "told")))
		svc := a.register(own("told"))
		a.mind(cb.URL("/told"))
		m.Delete(termination(a.id), asTheirs).Is(200)
		notice := noticed(t, cb, "/told", "TERMINATING")
		require.Greater(t, notice.Termination.MaxGracefulTimeout, 5)
		a.Get(a.service(svc.id)).Is(200)
		require.Len(t, c.Holds(harness.Traffic, a.id), 3)
		m.Delete(termination(a.id), asTheirs).Is(200)
		require.Equal(t, "TERMINATING", m.state(a.id))
		a.Post(v1(a.prefix+"/mep"+a.confirmation()), object{"operationAction": "TERMINATING"}).Is(204)
		m.becomes(a.id, "")
		harness.Eventually(t, "its rules are gone", func() error { return harness.Not(len(c.Apps()) == 0, "%v", c.Apps()) })
	})
}

func TestTasksThatTakeTimeOrFail(t *testing.T) {
	t.Parallel()
	c := harness.NewController(t)
	var slow atomic.Bool
	slow.Store(true)
	c.Before(func(harness.RuleSet) int {
		for slow.Load() {
			select {
			case <-c.Ended():
				return 0
			case <-time.After(10 * time.Millisecond):
			}
		}
		return 0
	})
	c.Refuse(func(_, id string) string { return map[string]string{"bad": "no such port"}[id] })
	p := harness.Start(t, c.Option())
	m, a := mepmOf(t, p), newApp(p.Client(t))
	first := m.Post(appd(a.id), appDConfig("demo"), asTheirs).Is(200).Object()
	require.Equal(t, "PROCESSING", first["configResult"])
	// D-20, P-8: a crash in the middle leaves nothing locked.
	p.Kill()
	p.Restart()
	require.Equal(t, "PROCESSING", m.Get(task(first["taskId"].(string)), asTheirs).Is(200).Object()["configResult"])
	slow.Store(false)
	harness.Eventually(t, "the task goes on", func() error {
		got := m.Get(task(first["taskId"].(string)), asTheirs).Is(200).Object()
		return harness.Not(got["configResult"] == "SUCCESS", "%v", got)
	})
	a.isReady()
	failed := apprulemgr(m, "PUT", a.id, but(appDConfig("demo"), "appTrafficRule", []any{traffic("t1"), traffic("bad")}))
	require.Equal(t, []string{"FAILURE", "0"}, []string{failed.ConfigResult, failed.ConfigPhase})
	require.Contains(t, failed.Detailed, "no such port")
	// D-21, D-22: what failed locks nothing either, and is told.
	succeeded(t, apprulemgr(m, "PUT", a.id, appDConfig("demo")))
	c.AwaitRules(t, harness.Traffic, a.id, "t1")
	succeeded(t, apprulemgr(m, "DELETE", a.id, nil))
}

func TestConfigurationsOfEdgeGalleryThatAreRefused(t *testing.T) {
	t.Parallel()
	p := harness.Start(t)
	m, id := mepmOf(t, p), uuid.NewString()
	good := appDConfig("demo")
	for name, x := range map[string]struct {
		body  object
		about string
	}{
		"no name":                {without(good, "appName"), "appName"},
		"a name of 64":           {but(good, "appName", strings.Repeat("a", 64)), "appName"},
		"an unknown action":      {but(good, "appTrafficRule[0].action", "REFLECT"), "appTrafficRule[0].action"},
		"a wrong address":        {but(good, "appTrafficRule[0].trafficFilter", []any{object{"srcAddress": []any{"10.0.0.0/33"}}}), "appTrafficRule[0].trafficFilter[0].srcAddress[0]"},
		"a wrong port":           {but(good, "appTrafficRule[0].trafficFilter", []any{object{"srcPort": []any{"65536"}}}), "appTrafficRule[0].trafficFilter[0].srcPort[0]"},
		"the family of another":  {but(good, "appDNSRule[0].ipAddressType", "IPv6"), "appDNSRule[0].ipAddress"}, // D-25
		"a priority of 256":      {but(good, "appTrafficRule[0].priority", 256), "appTrafficRule[0].priority"},
		"a rule without filters": {but(good, "appTrafficRule[0].trafficFilter", nil), "appTrafficRule[0].trafficFilter"},
	} {
		require.Contains(t, m.Post(appd(id), x.body, asTheirs).Problem(400).Names(), x.about, name)
	}
	many := configuration("demo", 65, 0) // P-3: limits hold
	require.Contains(t, m.Post(appd(id), many, asTheirs).Problem(400).Detail, "64")
	m.Get(appd(id)).Problem(404)
	m.Post(appd("a b"), good, asTheirs).Problem(404)
}
