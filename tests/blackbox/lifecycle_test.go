package blackbox

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/tests/harness"
)

// brought is an app instance that was brought to a state of its life. It has a service where it has services in that state.
func brought(t *testing.T, p *harness.Process, state string) (a app, svc string) {
	t.Helper()
	a, m := newApp(p.Unchecked(t)), mepm{p.UncheckedMm5(t)}
	svc = a.register(own("x")).id
	if state == "NOT_CONFIGURED" {
		return a, svc
	}
	m.done(m.configure(a.id, configuration("x", 1, 1)))
	switch state {
	case "CONFIGURED":
		return a, svc
	case "STOPPED":
		m.done(m.operate(a.id, stopped))
		return a, svc
	}
	a.isReady()
	switch state {
	case "STOPPING":
		m.operate(a.id, gracefulStop(600))
	case "TERMINATING":
		m.terminate(a.id, graceful(600))
	}
	require.Equal(t, state, m.state(a.id))
	return a, svc
}

func TestWhatIsPossibleInEachStateOfLife(t *testing.T) {
	t.Parallel()
	p := harness.Start(t)
	states := []string{"NOT_CONFIGURED", "CONFIGURED", "STARTED", "STOPPING", "STOPPED", "TERMINATING"}
	cfg := configuration("x", 1, 1)
	for name, x := range map[string]struct {
		do   func(a app, m mepm, svc string) *harness.Answer
		want []int // by state
	}{
		"configure": {func(a app, m mepm, _ string) *harness.Answer {
			return m.Put(instance(a.id), but(cfg, "appTrafficRule[0].priority", 5))
		}, []int{202, 202, 202, 409, 202, 409}},
		"configure without a change": {func(a app, m mepm, _ string) *harness.Answer { return m.Put(instance(a.id), cfg) }, []int{202, 202, 202, 409, 202, 409}},
		"dry run":                    {func(a app, m mepm, _ string) *harness.Answer { return m.Put(instance(a.id)+"?dryRun=true", cfg) }, []int{200, 200, 200, 409, 200, 409}},
		"unconfigure":                {func(a app, m mepm, _ string) *harness.Answer { return m.Delete(instance(a.id)) }, []int{404, 202, 202, 409, 202, 409}},
		"start":                      {func(a app, m mepm, _ string) *harness.Answer { return m.Post(instance(a.id)+"/operate", started) }, []int{409, 202, 202, 409, 202, 409}},
		"stop":                       {func(a app, m mepm, _ string) *harness.Answer { return m.Post(instance(a.id)+"/operate", stopped) }, []int{409, 202, 202, 202, 202, 409}},
		"stop with grace": {func(a app, m mepm, _ string) *harness.Answer {
			return m.Post(instance(a.id)+"/operate", gracefulStop(600))
		}, []int{409, 202, 202, 202, 202, 409}},
		"terminate": {func(a app, m mepm, _ string) *harness.Answer { return m.Post(instance(a.id)+"/terminate", forceful) }, []int{202, 202, 202, 202, 202, 202}},
		"terminate with grace": {func(a app, m mepm, _ string) *harness.Answer {
			return m.Post(instance(a.id)+"/terminate", graceful(600))
		}, []int{202, 202, 202, 202, 202, 202}},
		"confirm_ready": {func(a app, _ mepm, _ string) *harness.Answer {
			return a.Post(a.ready(), object{"indication": "READY"})
		}, []int{409, 204, 204, 409, 409, 409}},
		"confirm STOPPING":     {func(a app, _ mepm, _ string) *harness.Answer { return a.confirm("STOPPING") }, []int{409, 409, 409, 204, 409, 400}},
		"confirm STOPPPING":    {func(a app, _ mepm, _ string) *harness.Answer { return a.confirm("STOPPPING") }, []int{409, 409, 409, 204, 409, 400}},
		"confirm TERMINATING":  {func(a app, _ mepm, _ string) *harness.Answer { return a.confirm("TERMINATING") }, []int{409, 409, 409, 400, 409, 204}},
		"confirm what is none": {func(a app, _ mepm, _ string) *harness.Answer { return a.confirm("LEAVING") }, []int{400, 400, 400, 400, 400, 400}},
		"register a service":   {func(a app, _ mepm, _ string) *harness.Answer { return a.Post(a.services(), own("y")) }, []int{201, 201, 201, 403, 403, 403}},
		"remove a service":     {func(a app, _ mepm, svc string) *harness.Answer { return a.Delete(a.service(svc)) }, []int{204, 204, 204, 204, 404, 204}},
		"subscribe": {func(a app, _ mepm, _ string) *harness.Answer {
			return a.Post(a.subscriptions(), subscription("http://10.0.0.1/"))
		}, []int{201, 201, 201, 403, 403, 403}},
		"subscribe to the end": {func(a app, _ mepm, _ string) *harness.Answer {
			return a.Post(a.endings(), a.ending("http://10.0.0.1/"))
		}, []int{201, 201, 201, 403, 403, 403}},
		"register itself": {func(a app, _ mepm, _ string) *harness.Answer { return a.Post(a.registrations(), registration(a.id)) }, []int{201, 201, 201, 403, 403, 403}},
		"read the rules":  {func(a app, _ mepm, _ string) *harness.Answer { return a.Get(a.trafficRules()) }, []int{200, 200, 200, 200, 200, 200}},
		"read one rule":   {func(a app, _ mepm, _ string) *harness.Answer { return a.Get(a.trafficRule("t1")) }, []int{404, 200, 200, 200, 200, 200}},
		"change a rule": {func(a app, _ mepm, _ string) *harness.Answer {
			return a.Put(a.trafficRule("t1"), but(traffic("t1"), "priority", 3, "state", "ACTIVE"))
		}, []int{404, 200, 200, 200, 200, 200}},
		"read the services": {func(a app, _ mepm, _ string) *harness.Answer { return a.Get(services) }, []int{200, 200, 200, 200, 200, 200}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for i, state := range states {
				a, svc := brought(t, p, state)
				m := mepmOf(t, p)
				answer := x.do(a.with(p.Client(t)), m, svc)
				require.Equal(t, x.want[i], answer.Status, "%s when %s: %s", name, state, answer.Body)
				if answer.Status >= 400 {
					answer.Problem(answer.Status)
				}
				if answer.Status == http.StatusAccepted && !strings.Contains(name, "grace") {
					m.done(m.begun(answer))
				}
			}
		})
	}
}

func TestRulesAreInForceWhileTheAppRuns(t *testing.T) {
	t.Parallel()
	c := harness.NewController(t)
	p := harness.Start(t, c.Option())
	m, a := mepmOf(t, p), newApp(p.Client(t))
	cfg := but(configuration("x", 2, 2), "appTrafficRule[1].state", "INACTIVE", "appDNSRule[1].state", "INACTIVE")
	inForce := func(on bool) {
		t.Helper()
		states := map[string]string{"t1": "INACTIVE", "t2": "INACTIVE", "d1": "INACTIVE", "d2": "INACTIVE"}
		var ts, ds []string
		if on {
			states["t1"], states["d1"], ts, ds = "ACTIVE", "ACTIVE", []string{"t1"}, []string{"d1"}
		}
		require.Equal(t, states, a.states())
		c.AwaitRules(t, harness.Traffic, a.id, ts...)
		c.AwaitRules(t, harness.DNS, a.id, ds...)
	}
	m.done(m.configure(a.id, cfg))
	inForce(false)
	require.Empty(t, c.Calls(), "a controller hears nothing of an app whose rules were never in force")
	a.isReady()
	inForce(true)
	m.done(m.operate(a.id, stopped))
	inForce(false)
	require.Equal(t, "STOPPED", m.state(a.id))
	m.Get(instance(a.id)).Is(200)
	m.done(m.configure(a.id, but(cfg, "appName", "y")))
	inForce(false)
	op := m.done(m.operate(a.id, started))
	require.Equal(t, "START", op["lcmOperation"])
	require.Equal(t, []string{"DNS d1 APPLIED", "DNS d2 INACTIVE", "TRAFFIC t1 APPLIED", "TRAFFIC t2 INACTIVE"}, results(op["ruleResults"]))
	inForce(true)
	a.isReady()
	m.done(m.configure(a.id, cfg))
	require.Equal(t, []string{"DNS d1 APPLIED", "DNS d2 INACTIVE", "TRAFFIC t1 APPLIED", "TRAFFIC t2 INACTIVE"}, m.rules(a.id))
	inForce(true)
	require.Equal(t, "x", c.Calls()[0].AppName)
	m.done(m.unconfigure(a.id))
	require.Empty(t, c.Apps())
	m.done(m.configure(a.id, cfg))
	m.done(m.operate(a.id, started))
	inForce(true)
	m.done(m.terminate(a.id, forceful))
	require.Empty(t, c.Apps())
	require.Empty(t, m.state(a.id))
}

// The same request is one effect, however often it comes.
func TestTheSameRequestTwiceIsOneOperation(t *testing.T) {
	t.Parallel()
	p := harness.Start(t)
	m, a := mepmOf(t, p), newApp(p.Client(t))
	again := func(do func() string) string {
		t.Helper()
		first := do()
		require.Equal(t, first, do())
		p.Kill()
		p.Restart()
		require.Equal(t, first, do(), "after the platform was killed, too")
		m.done(first)
		require.Equal(t, first, do())
		return first
	}
	ops := []string{
		again(func() string { return m.configure(a.id, configuration("x", 2, 2)) }),
		again(func() string { return m.operate(a.id, started) }),
		again(func() string { return m.operate(a.id, stopped) }),
		again(func() string { return m.terminate(a.id, forceful) }),
	}
	slices.Reverse(ops)
	var listed []string
	for _, op := range m.Get(mm5 + "/app_lcm_op_occs?app_instance_id=" + a.id).Array() {
		listed = append(listed, harness.Path(t, self(op)))
		require.Equal(t, a.id, op["appInstanceId"])
	}
	require.Equal(t, ops, listed, "the newest first")
	require.Len(t, m.Get(mm5+"/app_lcm_op_occs").Array(), 4)
	require.Empty(t, m.Get(mm5+"/app_lcm_op_occs?app_instance_id="+uuid.NewString()).Array())

	second := m.configure(a.id, configuration("x", 2, 2))
	require.NotContains(t, ops, second, "it is another life")
	m.done(second)
	require.EqualValues(t, 1, m.Get(instance(a.id)).Object()["generation"])
	third := m.configure(a.id, configuration("x", 2, 1))
	require.NotEqual(t, second, third)
	m.done(third)
	require.NotEqual(t, second, m.configure(a.id, configuration("x", 2, 2)), "to go back is a change")
}

// Every character that an id may have is an id, and stands in every path that names it.
func TestIDsWithAwkwardCharacters(t *testing.T) {
	t.Parallel()
	c := harness.NewController(t)
	p := harness.Start(t, c.Option())
	m, a := mepmOf(t, p), newApp(p.Unchecked(t))
	ids := []string{
		"a/b", "/", "//", "../x", "a/../b", "...", "a%2Fb", "%", "100%", "%zz", " ", "a b", `"`, "'", `\`, "?a=b&c=d", "#x", ";", "a;b=c", "+", ":", "@", "*",
		"{id}", ":ruleId", "*any", "<script>", "a,b", "ü", "日本語", "🚀", "e\u0301", strings.Repeat("🚀", 63), "~!$&'()*+,;=:@-._", "[1]", "|", "^", "`", "\uFFFD",
		"constructor", "null", "0", "-", "traffic_rules",
	}
	cfg := object{"appName": `a "name" / 🚀`}
	var ts, ds []any
	for i, id := range ids {
		ts, ds = append(ts, traffic(id)), append(ds, but(dns(id), "domainName", fmt.Sprintf("n%d.example", i)))
	}
	cfg["appTrafficRule"], cfg["appDNSRule"] = ts, ds
	m.done(m.configure(a.id, cfg))
	a.isReady()
	c.AwaitRules(t, harness.Traffic, a.id, slices.Clone(ids)...)
	c.AwaitRules(t, harness.DNS, a.id, slices.Clone(ids)...)
	require.Len(t, a.states(), len(ids))
	for _, id := range ids {
		got := a.Get(a.trafficRule(id)).Is(200)
		require.Equal(t, id, got.Object()["trafficRuleId"])
		put := a.Put(a.trafficRule(id), but(traffic(id), "state", "INACTIVE"), harness.Header("If-Match", got.ETag())).Is(200)
		require.Equal(t, id, put.Object()["trafficRuleId"])
		require.Equal(t, id, a.Put(a.dnsRule(id), object{"dnsRuleId": id, "state": "INACTIVE"}).Is(200).Object()["dnsRuleId"])
		var every strings.Builder // with every byte escaped it is the same id
		for _, b := range []byte(id) {
			fmt.Fprintf(&every, "%%%02X", b)
		}
		require.Equal(t, put.ETag(), a.Get(a.trafficRules()+"/"+every.String()).Is(200).ETag())
	}
	c.AwaitRules(t, harness.Traffic, a.id)
	c.AwaitRules(t, harness.DNS, a.id)
	for _, r := range objects(m.Get(instance(a.id) + "/status").Object()["rules"]) {
		require.Contains(t, ids, r["ruleId"])
	}
	m.done(m.terminate(a.id, forceful))
}

func TestAppInstanceIDsThatAreNoUUID(t *testing.T) {
	t.Parallel()
	p := harness.Start(t)
	m := mepmOf(t, p)
	for _, id := range []string{"a", "App_1.site-7~x:y@z", strings.Repeat("a", 63), "...a", "0", "null", "configure_platform_for_app", "status"} {
		m.done(m.configure(id, configuration("x", 1, 1)))
		a := app{Client: p.Client(t), id: url.PathEscape(id)}
		a.isReady()
		require.Equal(t, "STARTED", m.state(id))
		require.Equal(t, map[string]string{"t1": "ACTIVE", "d1": "ACTIVE"}, a.states())
		m.done(m.terminate(id, forceful))
		require.Empty(t, m.state(id))
	}
	for _, id := range []string{
		"a b", "a/b", "%", "..", ".", "...", "ü", "🚀", "a?b", "a#b", `"`, strings.Repeat("a", 64), strings.Repeat("a", 4000), "\x00", "a\nb", "*", "<b>", "a+b",
	} {
		path := instances + "/" + strings.ReplaceAll(url.PathEscape(id), ".", "%2E")
		for _, answer := range []*harness.Answer{
			m.Post(path+"/configure_platform_for_app", configuration("x", 0, 0)), m.Put(path, configuration("x", 0, 0)), m.Get(path), m.Delete(path),
			m.Put(path+"?dryRun=true", configuration("x", 0, 0)), m.Get(path + "/status"), m.Post(path+"/terminate", forceful), m.Post(path+"/operate", started),
		} {
			answer.Problem(404)
		}
	}
	upper := strings.ToUpper(uuid.NewString())
	m.done(m.configure(upper, configuration("x", 1, 1)))
	m.Get(instance(strings.ToLower(upper))).Is(200)
	require.Len(t, m.Get(mm5+"/app_lcm_op_occs?app_instance_id="+upper).Array(), 1)
	require.Len(t, m.Get(instances).Array(), 1)
}

// Decision 14: what the configuration declares is what the app discovers.
func TestAnAppDiscoversWhatItsConfigurationDeclares(t *testing.T) {
	t.Parallel()
	p := harness.Start(t, harness.Secure(), generous())
	m := mepmOf(t, p)
	producer, _ := appOf(t, p)
	consumer, keys := appOf(t, p)
	other, _ := appOf(t, p)
	rni, secret := producer.register(own("rni")), producer.register(own("secret"))
	consumer.register(own("mine"))
	sees := func(want ...string) {
		t.Helper()
		require.Equal(t, want, names(consumer.Get(services).Is(200).Array(), "serName"))
	}
	sees("mine", "rni", "secret")
	require.Len(t, other.Get(services).Array(), 3)
	m.done(m.configure(consumer.id, object{"appServiceRequired": []any{object{"serName": "rni", "version": "1"}}, "appServiceOptional": []any{object{"serName": "loc", "version": "1"}}}))
	sees("mine", "rni")
	consumer.Get(services + "/" + rni.id).Is(200)
	consumer.Get(services + "/" + secret.id).Problem(404)
	require.Empty(t, consumer.Get(services+"?ser_name=secret").Array())
	producer.register(own("loc"))
	sees("loc", "mine", "rni")
	for _, svc := range objects(m.Get(mm5 + "/capabilities").Object()["services"]) {
		want := []any{}
		if svc["serName"] == "rni" || svc["serName"] == "loc" {
			want = []any{consumer.id}
		}
		require.Equal(t, want, svc["consumers"], svc["serName"])
	}
	m.done(m.configure(consumer.id, object{"appServiceRequired": []any{object{"serName": "secret", "version": "1"}}}))
	sees("mine", "secret")
	m.done(m.configure(consumer.id, object{}))
	sees("loc", "mine", "rni", "secret")
	m.done(m.configure(consumer.id, object{"appServiceOptional": []any{object{"serName": "rni", "version": "1"}}}))
	m.done(m.unconfigure(consumer.id))
	sees("loc", "mine", "rni", "secret")
	// What was declared with its credentials counts, too.
	credentials := object{"authInfo": object{"credentials": object{"accessKeyId": keys.AccessKeyID, "secretKey": keys.SecretKey}}, "appInfo": object{"requiredServices": []any{"secret"}}}
	p.Manager(t).Put(harness.ConfsPath(consumer.id), credentials).Is(200)
	sees("mine", "secret")
	m.done(m.configure(consumer.id, object{"appServiceRequired": []any{object{"serName": "rni", "version": "1"}}}))
	sees("mine", "rni", "secret")
}

func TestSubscriptionsCoverWhatTheConfigurationDeclares(t *testing.T) {
	t.Parallel()
	p := harness.Start(t)
	m, producer, consumer := mepmOf(t, p), newApp(p.Client(t)), newApp(p.Client(t))
	cb := harness.NewSubscriber(t)
	m.done(m.configure(consumer.id, object{"appServiceRequired": []any{object{"serName": "rni", "version": "1"}}}))
	consumer.subscribe(cb.URL("/cb"), nil)
	producer.register(own("secret"))
	producer.register(own("rni"))
	cb.AwaitChange(t, "/cb", "ADDED rni ACTIVE")
	require.Equal(t, []string{"ADDED rni ACTIVE"}, cb.Changes("/cb"))
}

func TestOperationsDoNotPileUp(t *testing.T) {
	t.Parallel()
	p := harness.Start(t, harness.Args("--limits-operations=10"))
	m := mepm{p.UncheckedMm5(t)}
	id := uuid.NewString()
	var ops []string
	kept := func() int { return len(m.Get(mm5 + "/app_lcm_op_occs").Is(200).Array()) }
	for i := range 40 {
		var answer *harness.Answer
		harness.Eventually(t, "there is room for an operation", func() error {
			answer = m.Put(instance(id), configuration("x", i, 0))
			if answer.Status == http.StatusTooManyRequests {
				require.NotEmpty(t, answer.Header.Get("Retry-After"))
			}
			return harness.Not(answer.Status == 202, "answered %d: %s", answer.Status, answer.Body)
		})
		ops = append(ops, m.begun(answer))
		m.done(ops[i])
		require.LessOrEqual(t, kept(), 17)
	}
	harness.Eventually(t, "the oldest give way", func() error { return harness.Not(kept() <= 10, "%d are kept", kept()) })
	m.Get(ops[0]).Problem(404)
	m.Get(ops[len(ops)-1]).Is(200)
	m.done(m.terminate(id, forceful))
}
