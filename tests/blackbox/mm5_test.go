package blackbox

import (
	"fmt"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/tests/harness"
)

func TestAConfigurationIsReadAsItWasDeclared(t *testing.T) {
	t.Parallel()
	p := harness.Start(t)
	m := mepmOf(t, p)
	everything := object{
		"appName": "everything", "appDId": "d-1",
		"appServiceRequired": []any{object{
			"serName": "rni", "version": "2", "serCategory": object{"href": "/c", "id": "c", "name": "n", "version": "1"},
			"serTransportDependencies": []any{dependency("REST_HTTP", "HTTP", "a")}, "requestedPermissions": object{"x": []any{1, "y"}},
		}},
		"appServiceOptional": []any{object{"serName": "loc", "version": "2"}},
		"appServiceProduced": []any{object{"serName": "cam", "version": "1", "transportsSupported": []any{object{
			"transport": object{"type": "REST_HTTP", "protocol": "HTTP", "version": "1.1"}, "serializers": []any{"JSON", "XML"},
		}}}},
		"appFeatureRequired": []any{object{"featureName": "f", "version": "1"}}, "appFeatureOptional": []any{object{"featureName": "g", "version": "1"}},
		"transportDependencies": []any{dependency("REST_HTTP", "HTTP", "a"), dependency("RPC", "GRPC", "b")},
		"appTrafficRule":        []any{fullTraffic("t1"), traffic("t2")},
		"appDNSRule":            []any{but(dns("d1"), "ttl", 0, "state", "INACTIVE"), but(dns("d2"), "ipAddressType", "IP_V6", "ipAddress", "2001:db8::1", "domainName", "*.a.example.")},
		"appLatency":            object{"maxLatency": 1000000}, "userContextTransferCapability": object{"statefulApplication": true}, "appNetworkPolicy": object{"x": 1.5},
	}
	id := uuid.NewString()
	op := m.done(m.configure(id, everything))
	require.Equal(t, "CONFIGURE", op["lcmOperation"])
	require.Equal(t, []string{"DNS d1 INACTIVE", "DNS d2 INACTIVE", "TRAFFIC t1 INACTIVE", "TRAFFIC t2 INACTIVE"}, results(op["ruleResults"]))
	got := m.Get(instance(id)).Is(200)
	want := but(everything, "appInstanceId", id, "generation", 1, "appTrafficRule[1].state", "ACTIVE", "appDNSRule[1].state", "ACTIVE")
	same(t, want, got.Object())
	require.Equal(t, got.ETag(), m.Head(instance(id)).Is(200).ETag())

	for name, x := range map[string]struct {
		cfg  object
		want object
	}{
		"nothing at all": {object{}, object{}},
		"other spellings of members": {
			object{
				"appDnsRule": []any{dns("d")},
				"appTrafficRule": []any{but(traffic("t"), "trafficFilter", []any{object{"dstTunnelAddress": []any{"10.0.0.1"}}}, "action", "PASSTHROUGH",
					"dstInterface", []any{object{"interfaceType": "MAC", "srcMACAddress": "00:00:5e:00:53:01", "dstMACAddress": "00:00:5e:00:53:02"}})},
			},
			object{
				"appDNSRule": []any{but(dns("d"), "state", "ACTIVE")},
				"appTrafficRule": []any{but(traffic("t"), "state", "ACTIVE", "trafficFilter", []any{object{"tgtTunnelAddress": []any{"10.0.0.1"}}}, "action", "PASSTHROUGH",
					"dstInterface", []any{object{"interfaceType": "MAC", "srcMacAddress": "00:00:5e:00:53:01", "dstMacAddress": "00:00:5e:00:53:02"}})},
			},
		},
		"null for what is absent": {object{"appName": nil, "appTrafficRule": nil, "appDNSRule": []any{but(dns("d"), "ttl", null)}}, object{"appDNSRule": []any{but(dns("d"), "state", "ACTIVE")}}},
		"members nobody knows":    {object{"x": 1, "appDNSRule": []any{but(dns("d"), "x", object{})}}, object{"appDNSRule": []any{but(dns("d"), "state", "ACTIVE")}}},
	} {
		t.Run(name, func(t *testing.T) {
			m, id := mepmOf(t, p), uuid.NewString()
			m.done(m.configure(id, x.cfg))
			same(t, but(x.want, "appInstanceId", id, "generation", 1), m.Get(instance(id)).Is(200).Object())
			m.done(m.configure(id, m.Get(instance(id)).Object())) // what was read may be sent back
			same(t, but(x.want, "appInstanceId", id, "generation", 1), m.Get(instance(id)).Is(200).Object())
		})
	}
}

func dependency(kind, protocol, label string) object {
	return object{
		"transport": object{"type": kind, "protocol": protocol, "version": "1"}, "serializers": []any{"JSON"}, "labels": []any{label},
	}
}

func TestAConfigurationIsReplacedAndRemoved(t *testing.T) {
	t.Parallel()
	p := harness.Start(t)
	m, id := mepmOf(t, p), uuid.NewString()
	m.Get(instance(id)).Problem(404)
	m.Delete(instance(id)).Problem(404)
	m.done(m.begun(m.Put(instance(id), configuration("x", 2, 2))))
	first := m.Get(instance(id)).ETag()
	m.Get(instance(id), harness.Header("If-None-Match", first)).Is(304)

	diff := m.Put(instance(id)+"?dryRun=true", but(configuration("y", 3, 1), "appTrafficRule[0].priority", 9)).Is(200).Object()
	same(t, object{
		"appInstanceId": id, "changed": true, "creates": false, "members": []any{"appName"},
		"trafficRules": object{"added": []any{"t3"}, "changed": []any{"t1"}, "removed": []any{}, "unchanged": []any{"t2"}, "reset": []any{}},
		"dnsRules":     object{"added": []any{}, "changed": []any{"d1"}, "removed": []any{"d2"}, "unchanged": []any{}, "reset": []any{}},
	}, diff)
	require.Equal(t, first, m.Get(instance(id)).ETag(), "a dry run changes nothing")

	for _, stale := range []string{`"no"`, "W/" + first, ""} {
		for _, answer := range []*harness.Answer{
			m.Put(instance(id), configuration("y", 1, 0), harness.Headers("If-Match", stale)),
			m.Post(instance(id)+"/configure_platform_for_app", configuration("y", 1, 0), harness.Headers("If-Match", stale)),
			m.Put(instance(id)+"?dryRun=true", configuration("y", 1, 0), harness.Headers("If-Match", stale)),
			m.Delete(instance(id), harness.Headers("If-Match", stale)),
		} {
			answer.Problem(412)
		}
	}
	m.done(m.begun(m.Put(instance(id), configuration("y", 1, 0), harness.Header("If-Match", first))))
	second := m.Get(instance(id))
	require.NotEqual(t, first, second.ETag())
	require.EqualValues(t, 2, second.Object()["generation"])
	require.Equal(t, []string{"TRAFFIC t1 INACTIVE"}, m.rules(id))
	m.Put(instance(uuid.NewString()), configuration("z", 0, 0), harness.Header("If-Match", "*")).Problem(412)

	removal := m.unconfigure(id)
	m.done(removal)
	m.Get(instance(id)).Problem(404)
	require.Empty(t, m.state(id), "nothing else made it known")
	require.Equal(t, removal, m.unconfigure(id), "the same again is the same operation")
	m.done(m.configure(id, configuration("x", 2, 2)))
	require.NotEqual(t, first, m.Get(instance(id)).ETag(), "it is another one, whose entity-tag is never that of an earlier one")

	t.Run("the app stays known when it has something", func(t *testing.T) {
		a := newApp(p.Client(t))
		m.done(m.configure(a.id, configuration("x", 1, 1)))
		a.register(own("x"))
		m.done(m.unconfigure(a.id))
		require.Equal(t, "NOT_CONFIGURED", m.state(a.id))
		require.Empty(t, a.states())
		require.Len(t, a.Get(a.services()).Array(), 1)
	})
}

func TestDryRuns(t *testing.T) {
	t.Parallel()
	p := harness.Start(t)
	m, id := mepmOf(t, p), uuid.NewString()
	path := instance(id) + "/configure_platform_for_app"
	diff := m.Post(path+"?dryRun=true", configuration("x", 1, 1)).Is(200).Object()
	require.Equal(t, []any{true, true}, []any{diff["changed"], diff["creates"]})
	m.Get(instance(id)).Problem(404)
	require.Empty(t, m.state(id))
	require.Empty(t, m.Get(mm5+"/app_lcm_op_occs?app_instance_id="+id).Array())
	m.Post(path+"?dryRun=true", but(configuration("x", 1, 0), "appTrafficRule[0].priority", 256)).Problem(400)
	for _, query := range []string{"?dryRun", "?dryRun=", "?dryRun=yes", "?dryRun=2", "?dryrun=true", "?dryRun=true&x=1", "?dryRun=true&dryRun=false", "?dryRun=false&dryRun=true", "?dryRun=%zz"} {
		m.Post(path+query, configuration("x", 1, 1)).Problem(400)
		m.Put(instance(id)+query, configuration("x", 1, 1)).Problem(400)
	}
	require.Empty(t, m.state(id), "who asks for a dry run in a wrong way gets none, but no change either")
	m.done(m.begun(m.Post(path+"?dryRun=false", configuration("x", 1, 1))))
	diff = m.Post(path+"?dryRun=true", configuration("x", 1, 1)).Is(200).Object()
	require.Equal(t, []any{false, false}, []any{diff["changed"], diff["creates"]})
	m.Post(instance(id)+"/terminate?dryRun=true", forceful).Problem(400)
	m.Post(instance(id)+"/operate?dryRun=true", started).Problem(400)
	m.Delete(instance(id) + "?dryRun=true").Problem(400)
	require.Equal(t, "CONFIGURED", m.state(id))
}

func TestMethodsAndPathsOfMm5(t *testing.T) {
	t.Parallel()
	p := harness.Start(t)
	m, id := mepmOf(t, p), uuid.NewString()
	op := m.configure(id, configuration("x", 1, 1))
	const eg = "/mepcfg/app_lcm/v1/applications/"
	for path, has := range map[string][]string{
		instances:                       {"GET", "HEAD"},
		instance(id):                    {"GET", "HEAD", "PUT", "DELETE"},
		instance(id) + "/status":        {"GET", "HEAD"},
		instance(id) + "/operate":       {"POST"},
		instance(id) + "/terminate":     {"POST"},
		mm5 + "/app_lcm_op_occs":        {"GET", "HEAD"},
		op:                              {"GET", "HEAD"},
		mm5 + "/capabilities":           {"GET", "HEAD"},
		mm5 + "/events":                 {"GET", "HEAD"},
		eg + id + "/appd_configuration": {"GET", "HEAD", "POST", "PUT", "DELETE"},
		instance(id) + "/configure_platform_for_app":                               {"POST"},
		"/mepcfg/mec_platform_config/v1/capabilities":                              {"GET", "HEAD"},
		"/mepcfg/app_lcm/v1/tasks/" + id + "/appd_configuration":                   {"GET", "HEAD"},
		"/mep/mec_app_support/v1/applications/" + id + "/AppInstanceTermination":   {"DELETE"},
		"/mepcfg/mec_platform_config/v1/capabilities/0123456789abcdef0123456789ab": {"GET", "HEAD"},
	} {
		for _, method := range []string{"GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "HEAD"} {
			if slices.Contains(has, method) {
				if method == "HEAD" && path != mm5+"/events" {
					require.Equal(t, m.Get(path).Status, m.Head(path).Status, path)
				}
				continue
			}
			answer := m.Do(method, path, nil).Is(405)
			allow := strings.Split(strings.ReplaceAll(answer.Header.Get("Allow"), " ", ""), ",")
			require.ElementsMatch(t, has, allow, "%s %s", method, path)
		}
		if slices.Contains(has, "GET") {
			m.Get(path + "?x=1").Problem(400)
		}
	}
	for _, path := range []string{
		"/", "/mm5", mm5, mm5 + "/", mm5 + "/nothing", "/mm5/v2/app_instances", "/mep" + instances, instances + "/", instance(id) + "/nothing",
		instance(id) + "/status/x", op + "/x", mm5 + "/app_lcm_op_occs/" + id, mm5 + "/app_lcm_op_occs/..%2F", services, supportRoot + "/timing/current_time",
		"/mepcfg", eg + id, eg + id + "/nothing", "/mepcfg/app_lcm/v1/tasks/" + id + "/appd_configuration", instance(uuid.NewString()) + "/status",
	} {
		m.Get(path).Problem(404)
	}
	a := newApp(p.Client(t))
	for _, path := range []string{instances, op, mm5 + "/events", eg + id + "/appd_configuration", a.support() + "/AppInstanceTermination"} {
		a.Get(path).Problem(404)
		a.Delete(path).Problem(404) // S-9: what the MEPM may do is nothing to be found at Mp1
	}
	ghost := uuid.NewString()
	for path, body := range map[string]any{"/terminate": forceful, "/operate": started} {
		m.Post(instance(ghost)+path, body).Problem(404)
	}
	require.Empty(t, m.state(ghost))
}

func TestInstancesAndCapabilitiesAreListed(t *testing.T) {
	t.Parallel()
	p := harness.Start(t, harness.Args("--mm5-features=slicing,edge-video", "--limits-traffic-rules=7", "--limits-dns-rules=8", "--limits-traffic-filters=9"))
	m := mepmOf(t, p)
	require.Equal(t, "[]", strings.TrimSpace(string(m.Get(instances).Is(200).Body)))
	producer, needs, hears := newApp(p.Client(t)), newApp(p.Client(t)), newApp(p.Client(t))
	svc := producer.register(own("cam"))
	m.done(m.configure(needs.id, object{"appName": "needs", "appServiceOptional": []any{object{"serName": "cam", "version": "1"}}}))
	hears.subscribe("http://127.0.0.1:9/", object{"serNames": []any{"cam"}})
	hears.mind("http://10.0.0.1/")
	newApp(p.Client(t)).subscribe("http://127.0.0.1:9/", nil) // is interested in everything, and no consumer of anything in particular

	consumers := []any{hears.id, needs.id}
	slices.SortFunc(consumers, func(a, b any) int { return strings.Compare(a.(string), b.(string)) })
	service := object{"serInstanceId": svc.id, "serName": "cam", "version": "1.0", "state": "ACTIVE", "consumers": consumers, "consumerCount": 2}
	status := m.Get(instance(producer.id) + "/status").Is(200)
	same(t, []any{service}, status.Object()["services"])
	require.Equal(t, "no-store", status.Header.Get("Cache-Control"))
	require.Equal(t, p.URL("mm5")+instance(producer.id)+"/status", self(status.Object()))

	capabilities := m.Get(mm5 + "/capabilities").Is(200).Object()
	same(t, []any{service}, capabilities["services"])
	same(t, object{"trafficRules": 7, "dnsRules": 8, "trafficFilters": 9, "ruleIdLength": 63}, capabilities["limits"])
	require.Equal(t, []string{"edge-video", "slicing"}, names(objects(capabilities["features"]), "featureName"))
	require.Equal(t, []string{"rest-http"}, names(objects(capabilities["transports"]), "id"))
	same(t, []any{object{"kind": "TRAFFIC", "name": "", "driver": "none", "pending": 0}, object{"kind": "DNS", "name": "dnsagent", "driver": "agent", "pending": 0}}, capabilities["reconcilers"])

	require.Len(t, m.Get(instances).Array(), 4)
	require.Equal(t, []string{needs.id}, names(m.Get(instances+"?lifecycle=CONFIGURED").Array(), "appInstanceId"))
	require.Len(t, m.Get(instances+"?lifecycle=NOT_CONFIGURED").Array(), 3)
	require.Empty(t, m.Get(instances+"?lifecycle=STOPPED").Array())
	m.Get(instances + "?lifecycle=BROKEN").Problem(400)
	one := m.Get(instances + "?lifecycle=CONFIGURED").Array()[0]
	require.Equal(t, "needs", one["appName"])
	links := one["_links"].(object)
	require.Equal(t, p.URL("mm5")+instance(needs.id), links["configuration"].(object)["href"])
	m.Get(links["operation"].(object)["href"].(string)).Is(200)

	deliveries := objects(m.Get(instance(hears.id) + "/status").Object()["deliveries"])
	require.Equal(t, []string{"AppTerminationNotificationSubscription", "SerAvailabilityNotificationSubscription"}, names(deliveries, "subscriptionType"))
	producer.register(own("cam"))
	harness.Eventually(t, "the MEPM sees that deliveries fail", func() error {
		d := objects(m.Get(instance(hears.id) + "/status").Object()["deliveries"])
		i := slices.IndexFunc(d, func(d object) bool { return d["pending"] == 1.0 && d["lastError"] != nil && d["failingSince"] != nil })
		return harness.Not(i >= 0, "%v", d)
	})

	for _, x := range []struct {
		feature string
		status  int
	}{{"slicing", 202}, {"teleport", 400}} {
		cfg := object{"appFeatureRequired": []any{object{"featureName": x.feature, "version": "1"}}}
		answer := m.Post(instance(uuid.NewString())+"/configure_platform_for_app", cfg).Is(x.status)
		require.Equal(t, x.status == 400, strings.Contains(string(answer.Body), "teleport"))
	}
	for name, x := range map[string]struct {
		deps   []any
		status int
	}{
		"one":                   {[]any{dependency("REST_HTTP", "HTTP", "a")}, 202},
		"one of two groups":     {[]any{dependency("REST_HTTP", "http", "a"), dependency("RPC", "GRPC", "b")}, 202},
		"one that is not there": {[]any{dependency("MB_PUBSUB", "AMQP", "a")}, 400},
		"half a group":          {[]any{dependency("REST_HTTP", "HTTP", "a"), dependency("MB_PUBSUB", "AMQP", "a")}, 400},
	} {
		answer := m.Post(instance(uuid.NewString())+"/configure_platform_for_app", object{"transportDependencies": x.deps}).Is(x.status)
		require.Equal(t, x.status == 400, strings.Contains(string(answer.Body), "AMQP"), name)
	}
}

func objects(list any) []object {
	found := []object{}
	elements, _ := list.([]any)
	for _, e := range elements {
		found = append(found, e.(object))
	}
	return found
}

func TestHrefsOfMm5StartWithWhatTheClientAskedFor(t *testing.T) {
	t.Parallel()
	for name, x := range map[string]struct {
		args []string
		host string
		want string // "" is the URL of the listener
	}{
		"the listener's address":   {},
		"the Host header":          {host: "mm5.example:8089", want: "http://mm5.example:8089"},
		"the public URL over Host": {args: []string{"--mm5-public-url=https://mm5.example/site/1/", "--public-url=https://edge.example/"}, host: "x.example", want: "https://mm5.example/site/1"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := harness.Start(t, harness.Args(x.args...))
			m, a, cb := mepmOf(t, p), newApp(p.Client(t)), harness.NewSubscriber(t)
			want := x.want
			if want == "" {
				want = p.URL("mm5")
			}
			host := func(r *http.Request) {
				if x.host != "" {
					r.Host = x.host
				}
			}
			location := m.Put(instance(a.id), configuration("x", 1, 0), host).Is(202).Header.Get("Location")
			path, ok := strings.CutPrefix(location, want)
			require.True(t, ok, location)
			op := m.Get(path, host).Is(200).Object()
			require.Equal(t, location, self(op))
			require.Equal(t, want+instance(a.id), op["_links"].(object)["appInstance"].(object)["href"])
			one := m.Get(instances, host).Array()[0]
			require.Equal(t, want+instance(a.id)+"/status", self(one))
			require.Equal(t, location, one["_links"].(object)["operation"].(object)["href"])

			// Apps are told of Mp1.
			a.isReady()
			sub := a.mind(cb.URL("/end"))
			m.terminate(a.id, graceful(600))
			base := p.URL("mp1")
			if len(x.args) > 0 {
				base = "https://edge.example"
			}
			told := noticed(t, cb, "/end", "TERMINATING")
			require.Equal(t, base+a.confirmation(), told.Termination.Links.ConfirmTermination.Href)
			require.True(t, strings.HasPrefix(told.Subscription, base+a.endings()+"/"), told.Subscription)
			require.True(t, strings.HasSuffix(sub, told.Subscription[strings.LastIndex(told.Subscription, "/"):]))
			m.Post(instance(a.id)+"/terminate", forceful).Is(202)
			m.becomes(a.id, "")
		})
	}
}

// S-3: Mm5 is for who has the scope, and for nobody else.
func TestMm5NeedsItsScope(t *testing.T) {
	t.Parallel()
	p := harness.Start(t, harness.Secure(), generous())
	a, keys := appOf(t, p)
	m := mepmOf(t, p)
	mp1 := keys.Fetch(p.Auth(t)).AccessToken
	ops := p.Bootstrap(t).Keys.Fetch(p.Auth(t), "ops").AccessToken
	narrow := p.Bootstrap(t).Keys.Fetch(p.Auth(t), "mm5").AccessToken
	op := m.configure(a.id, configuration("x", 1, 1))
	for _, x := range []struct {
		method, path string
		body         any
	}{
		{"GET", instances, nil}, {"GET", instance(a.id), nil}, {"PUT", instance(a.id), configuration("y", 0, 0)}, {"DELETE", instance(a.id), nil},
		{"GET", instance(a.id) + "/status", nil}, {"POST", instance(a.id) + "/configure_platform_for_app", configuration("y", 0, 0)},
		{"POST", instance(a.id) + "/operate", started}, {"POST", instance(a.id) + "/terminate", forceful}, {"GET", mm5 + "/app_lcm_op_occs", nil},
		{"GET", op, nil}, {"GET", mm5 + "/capabilities", nil}, {"GET", mm5 + "/events", nil}, {"GET", mm5 + "/nothing", nil},
		{"POST", appd(a.id), appDConfig("x")}, {"PUT", appd(a.id), appDConfig("x")}, {"GET", appd(a.id), nil}, {"DELETE", appd(a.id), nil},
		{"DELETE", "/mep/mec_app_support/v1/applications/" + a.id + "/AppInstanceTermination", nil},
		{"GET", "/mepcfg/mec_platform_config/v1/capabilities", nil}, {"PUT", harness.ConfsPath(a.id), object{}}, {"DELETE", harness.ConfsPath(a.id), nil},
	} {
		t.Run(x.method+" "+strings.ReplaceAll(strings.ReplaceAll(x.path, a.id, "A"), op, "operation"), func(t *testing.T) {
			c := p.Mm5(t)
			unauthenticated(t, c.Do(x.method, x.path, x.body), "")
			unauthenticated(t, c.With("x.y.z").Do(x.method, x.path, x.body), "invalid_token")
			for _, token := range []string{mp1, ops} {
				c.With(token).Do(x.method, x.path, x.body, harness.Header("X-AppinstanceID", a.id)).Problem(403)
			}
		})
	}
	require.Equal(t, "CONFIGURED", m.state(a.id))
	require.EqualValues(t, 1, m.Get(instance(a.id)).Object()["generation"], "nothing was changed")
	p.Mm5(t).With(narrow).Get(instances).Is(200)
	mepm{p.Mm5(t).With(narrow)}.done(op)
	require.Equal(t, p.URL("mm5"), p.Bootstrap(t).URLs["mm5"])
	for i, want := range []string{"app.configure", "app.unconfigure", "app.operate", "app.terminate"} {
		text, err := inFiles(filepath.Join(p.DataDir, "audit"), fmt.Sprintf("%q", want))
		require.NoError(t, err)
		require.Equal(t, i == 0, text, "who was refused did nothing: %s", want)
	}
	// Credentials of a manager are nothing that an app instance of the same name could take with it.
	manager := claims(t, narrow)["sub"].(string)
	m.Put(instance(manager), configuration("y", 0, 0)).Problem(409)
	m.Post(instance(manager)+"/terminate", forceful).Problem(404)
	m.Delete(termination(manager)).Is(200)
	p.Bootstrap(t).Fetch(p.Auth(t))
}
