package blackbox

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/api/gateway"
	"github.com/openmep/mep/tests/harness"
)

func TestEveryCallIsWrittenDown(t *testing.T) {
	t.Parallel()
	producer := harness.NewProducer(t, "hello", nil)
	p := harness.Start(t, harness.Secure(), toLoopback(), harness.Config(`
gateway:
  records: {maskPaths: [/services/hello/patients/*], maskQuery: [name], stdout: true}
`))
	a, _ := appOf(t, p)
	consumer, keys := appOf(t, p)
	svc := a.register(served("hello", producer.URL))
	c := p.Gateway(t).With(keys.Fetch(p.Auth(t)).AccessToken)
	named := func(id string) harness.RequestOption { return harness.Header("X-Request-Id", id) }
	c.Post("/services/hello/patients/4711/x?name=Smith&a=1&token=abcdef&NA-ME=Jones", "body", named("call-1")).Seen()
	c.Get("/instances/"+svc.id+"/y", named("call-2")).Seen()
	c.Get("/services/nothing/", named("call-3")).Problem(404)
	p.Gateway(t).Get("/services/hello/", named("call-4")).Problem(401)
	c.Get("/mec_service_mgmt/v1/services", named("call-5")).Is(200)
	c.Get("/services/hello/%0aforged\":1", named("call 6")).Problem(400)
	of := func(id string) object {
		return p.AccessRecords(t, 1, func(r object) bool { return r["requestId"] == id })[0]
	}
	first := of("call-1")
	for member, want := range map[string]any{
		"consumer": consumer.id, "via": "token", "service": "hello", "instance": svc.id, "route": "services", "method": "POST",
		"path": "/services/hello/patients/***/x", "status": 200.0, "upstream": producer.Listener.Addr().String(), "attempts": 1.0, "bytesIn": 4.0,
		"client": "127.0.0.1", "proto": "HTTP/2.0",
	} {
		require.Equal(t, want, first[member], "%s in %v", member, first)
	}
	for _, member := range []string{"authMillis", "firstByteMillis", "totalMillis", "bytesOut"} {
		require.Positive(t, first[member], "%s in %v", member, first)
	}
	require.Equal(t, "name=***&a=1&token=***&NA-ME=***", first["query"])
	require.Equal(t, "instances", of("call-2")["route"])
	require.Equal(t, []any{"no-service", 404.0}, []any{of("call-3")["reason"], of("call-3")["status"]})
	require.Equal(t, []any{"unauthenticated", 401.0, nil}, []any{of("call-4")["reason"], of("call-4")["status"], of("call-4")["consumer"]})
	require.Equal(t, "platform.mp1", of("call-5")["route"])
	for _, r := range p.AccessRecords(t, 1, func(r object) bool { return r["status"] == 400.0 }) {
		require.NotEqual(t, "call 6", r["requestId"])
		require.Contains(t, r["path"], "%0A")
	}
	harness.Eventually(t, "it goes to the standard output as well", func() error {
		return harness.Not(strings.Contains(p.Log(), `"requestId":"call-1"`), "it does not")
	})
	info, err := os.Stat(filepath.Join(p.DataDir, "access", "access.jsonl"))
	require.NoError(t, err)
	require.Zero(t, info.Mode().Perm()&0o077, "others do not read it")
}

func TestAccessRecordsRotate(t *testing.T) {
	t.Parallel()
	p, _ := offering(t, nil, harness.Args("--gateway-records-max-bytes=65536", "--gateway-records-keep=2"))
	c := p.Gateway(t)
	long := strings.Repeat("x", 900)
	for i := range 260 {
		c.Get(fmt.Sprintf("/services/hello/%s?n=%d", long, i)).Is(200)
	}
	dir := filepath.Join(p.DataDir, "access")
	harness.Eventually(t, "old files are kept, but not too many", func() error {
		files, err := filepath.Glob(filepath.Join(dir, "*"))
		if err != nil {
			return err
		}
		return harness.Not(len(files) == 3, "%v", files)
	})
	last := -1
	for _, name := range []string{"access.jsonl.2", "access.jsonl.1", "access.jsonl"} {
		data := written(t, filepath.Join(dir, name))
		require.LessOrEqual(t, len(data), 65536)
		for line := range strings.Lines(string(data)) {
			var r object
			require.NoError(t, json.Unmarshal([]byte(line), &r), "no line is cut: %q", line)
			n, err := strconv.Atoi(strings.TrimPrefix(fmt.Sprint(r["query"]), "n="))
			if err != nil {
				continue // of the start
			}
			require.Greater(t, n, last)
			last = n
		}
	}
	require.NoError(t, os.Rename(filepath.Join(dir, "access.jsonl"), filepath.Join(dir, "mine")))
	p.Hangup()
	harness.Eventually(t, "a file that was taken away is begun anew", func() error {
		c.Get("/services/hello/")
		_, err := os.Stat(filepath.Join(dir, "access.jsonl"))
		return err
	})
}

// Whatever callers send, and wherever: nobody who reads files of the platform can call in their name.
func TestNoTokenOrKeyIsWrittenDownByTheGateway(t *testing.T) {
	t.Parallel()
	producer := harness.NewProducer(t, "hello", nil)
	p := harness.Start(t, harness.Secure(), toLoopback(), harness.Args("--log-level=debug", "--gateway-records-stdout"))
	m, manager := p.GatewayManagement(t), p.Manager(t)
	a, _ := appOf(t, p)
	a.register(served("hello", producer.URL))
	keys := harness.Provision(manager, nil)
	token := keys.Fetch(p.AuthAtGateway(t)).AccessToken
	_, key := apiKey(m, "c", nil)
	hidden := make(secrets)
	hidden.add("token", token, strings.Split(token, ".")[2])
	hidden.add("secret key", keys.SecretKey)
	hidden.add("API key", key, key[len(key)-32:])
	signed := signature{Keys: keys}
	signed.ask(p.AuthAtGateway(t)).Is(200)
	c := p.Gateway(t)
	for _, path := range []string{"/services/hello/", "/services/nothing/", "/mep/token", "/oauth2/token", "/mec_service_mgmt/v1/services", "/", "/gateway/v1/access_requests"} {
		for _, secret := range []string{token, key, keys.SecretKey} {
			for _, at := range []string{
				"?x-api-key=" + secret, "?jwt=" + secret, "?access_token=" + secret, "?client_secret=" + secret, "?x%2Dapi%2Dkey=" + secret, "?token=" + secret,
				"?X-API-KEY=" + secret + "&a=b;key=" + secret,
			} {
				for _, method := range []string{"GET", "POST"} {
					c.Do(method, path+at, nil)
					c.Do(method, path+at, nil, keyed(secret), harness.Header("Authorization", "Bearer "+secret), harness.Header("X-Forwarded-For", secret))
				}
			}
			if secret != keys.SecretKey { // which looks like anything
				c.Get(path, harness.Header("User-Agent", "curl Bearer "+secret), harness.Header("X-Request-Id", secret))
			}
		}
	}
	for _, secret := range []string{token, key} {
		c.Get("/services/hello/" + secret + "?q=" + secret)
		c.Get("/services/" + secret + "/")
		c.Get("/instances/"+secret+"/", func(r *http.Request) { r.Host = secret })
		c.Get("/"+secret, harness.Header("Cookie", secret))
	}
	m.Get(gatewayRoot + "/api_keys/" + key[:16]) // somebody takes the one for the other
	m.Delete(gatewayRoot + "/api_keys/" + strings.ReplaceAll(key, "_", "%5F"))
	mepCLI(t, p, "apikey", "delete", key)
	p.Hangup()
	harness.Eventually(t, "it is written down", func() error {
		return harness.Not(len(holding(t, filepath.Join(p.DataDir, "access"), "services/hello")) > 0, "nothing is")
	})
	p.Stop()
	for text, what := range hidden {
		for line := range strings.Lines(p.Log()) {
			require.NotContains(t, line, text, "the log has a %s", what)
		}
		for _, name := range holding(t, p.DataDir, text) {
			require.Equal(t, "etcd", strings.Split(strings.TrimPrefix(name, p.DataDir+"/"), "/")[0], "%s has a %s", name, what)
		}
	}
	require.Empty(t, holding(t, p.DataDir, key))
	require.Empty(t, holding(t, p.DataDir, token))
}

func TestTheGatewayIsMeasured(t *testing.T) {
	t.Parallel()
	p, _ := offering(t, nil)
	m, c := p.GatewayManagement(t), p.Gateway(t)
	_, key := apiKey(m, "c", nil)
	metric := func(name string) float64 {
		v, _ := p.Metric(t, name)
		return v
	}
	const ofService, ofConsumer = `mep_gateway_service_requests_total{class="%s",service="hello"}`, `mep_gateway_consumer_requests_total{class="2xx",consumer="c"}`
	before := metric(fmt.Sprintf(ofService, "2xx"))
	for range 7 {
		c.Get("/services/hello/", keyed(key)).Seen()
	}
	policy(m, "hello", object{"default": "deny"})
	c.Get("/services/hello/", keyed(key)).Problem(403)
	require.InDelta(t, 7, metric(fmt.Sprintf(ofService, "2xx"))-before, 0)
	require.InDelta(t, 1, metric(fmt.Sprintf(ofService, "4xx")), 0)
	require.InDelta(t, 7, metric(ofConsumer), 0)
	require.InDelta(t, 1, metric(`mep_gateway_refused_total{reason="rule"}`), 0)
	require.InDelta(t, 0, metric("mep_gateway_requests_in_flight"), 0)
	require.InDelta(t, 1, metric("mep_gateway_services"), 0)
	require.Positive(t, metric("mep_gateway_table_revision"))
	// Strangers choose names; they do not choose how many series there are.
	for i := range 600 {
		c.Get(fmt.Sprintf("/services/none%d/", i)).Problem(404)
	}
	require.NotContains(t, string(p.Ops(t).Get("/metrics").Body), "none599")
	newApp(p.Client(t)).register(served("late", "http://192.0.2.1/"))
	policy(m, "late", object{"default": "deny"})
	answered(t, c, 403, "/services/late/")
	require.Positive(t, metric(`mep_gateway_service_requests_total{class="4xx",service="late"}`), "there is room for those that exist")
	for _, series := range m.Get(gatewayRoot + "/statistics?resolution=minute").Is(200).Object()["series"].([]any) {
		require.NotContains(t, series.(object)["service"], "none")
	}
}

func TestTheCommandsOfTheGateway(t *testing.T) {
	t.Parallel()
	producer := harness.NewProducer(t, "hello", nil)
	p := harness.Start(t, harness.Secure(), toLoopback())
	a, keys := appOf(t, p)
	svc := a.register(served("hello", producer.URL))
	mep := func(args ...string) string {
		t.Helper()
		out := mepCLI(t, p, append(args, "--url", p.URL("gateway-management"))...)
		require.Zero(t, out.Code, "%v: %s", args, out.Output)
		return out.Output
	}
	made := mep("apikey", "create", "--consumer=camera", "--service=hello", "--lifetime=1h")
	key := regexp.MustCompile(`(?m)^mepk_\S+$`).FindString(made)
	require.NotEmpty(t, key, made)
	require.Equal(t, "camera", reached(t, p.Gateway(t), "/services/hello/", keyed(key)).Names("X-AppInstanceID")[0])
	list := mep("apikey", "list")
	require.Contains(t, list, "camera")
	require.NotContains(t, list, key)
	routes := mep("gateway", "routes")
	for _, text := range []string{"service:hello", "instance:" + svc.id, "platform.mp1", "platform.auth", producer.URL, "up"} {
		require.Contains(t, routes, text)
	}
	require.NotContains(t, mep("gateway", "routes", "--kind=platform"), "service:hello")
	var views []gateway.RouteView
	require.NoError(t, json.Unmarshal([]byte(mep("gateway", "routes", "--json", "--service=hello")), &views))
	require.Len(t, views, 2)

	id := regexp.MustCompile(`(?m)^([0-9a-f]{16}) +camera`).FindStringSubmatch(list)[1]
	// What is explained is what happens.
	token := keys.Fetch(p.Auth(t)).AccessToken
	policy(p.GatewayManagement(t), "hello", object{"rules": []any{object{"effect": "deny", "paths": []any{"/secret/**"}}}, "quotas": []any{object{"calls": 100, "per": "day"}}})
	for _, x := range []struct {
		method, path, consumer string
		calls                  *harness.Client
	}{
		{"GET", "/services/hello/a", keys.AppInstanceID, p.Gateway(t).With(token)}, {"GET", "/services/hello/secret/a", keys.AppInstanceID, p.Gateway(t).With(token)},
		{"GET", "/services/hello/a", "", p.Gateway(t)}, {"GET", "/services/none/a", keys.AppInstanceID, p.Gateway(t).With(token)},
		{"GET", "/nowhere", "", p.Gateway(t)}, {"GET", "/services/hello/%2e%2e/a", keys.AppInstanceID, p.Gateway(t).With(token)},
		{"POST", "/instances/" + svc.id + "/b?x=1", keys.AppInstanceID, p.Gateway(t).With(token)},
	} {
		var e gateway.Explanation
		require.NoError(t, json.Unmarshal([]byte(mep("gateway", "explain", x.method, x.path, "--json", "--consumer="+x.consumer)), &e))
		answer := x.calls.Do(x.method, x.path, nil)
		want := answer.Status
		if want == 200 {
			want = 0
			require.Equal(t, answer.Seen().Path, e.Path)
			require.Equal(t, []string{"authentication", "authorization", "quota", "body"}, e.Filters[:4])
			require.Len(t, e.Targets, 1)
		}
		if e.Status == 200 {
			e.Status = 0
		}
		require.Equal(t, want, e.Status, "%s %s of %q: %+v", x.method, x.path, x.consumer, e)
		require.NotEmpty(t, e.Reason)
	}
	require.Contains(t, mep("gateway", "explain", "get", "https://edge.example/services/hello/a", "--consumer", keys.AppInstanceID), "hello")
	require.Contains(t, mep("gateway", "status"), "reloads since the start: 0")
	for format, text := range map[string]string{"kong": "_format_version", "envoy": "static_resources"} {
		out := mep("gateway", "export", "--format="+format)
		require.Contains(t, out, text)
		require.Contains(t, out, "hello")
	}
	harness.Eventually(t, "calls are counted", func() error {
		out := mep("gateway", "stats", "--service=hello", "--resolution=minute")
		return harness.Not(strings.Contains(out, "camera") && strings.Contains(out, keys.AppInstanceID), "%s", out)
	})
	require.Contains(t, mep("apikey", "delete", id), id)
	p.Gateway(t).Get("/services/hello/", keyed(key)).Problem(401)
	for _, args := range [][]string{
		{"gateway", "export"}, {"gateway", "export", "--format=nginx"}, {"gateway", "explain", "GET"}, {"gateway", "routes", "--kind=x"}, {"apikey", "create"},
		{"apikey", "delete", id}, {"apikey", "create", "--consumer=a b"}, {"gateway", "stats", "--resolution=week"}, {"gateway", "explain", "GET", "://"},
	} {
		out := mepCLI(t, p, append(args, "--url", p.URL("gateway-management"))...)
		require.Equal(t, 1, out.Code, "%v: %s", args, out.Output)
		require.NotContains(t, out.Output, "panic")
	}
	out := harness.Run(t, "mep", []string{"gateway", "routes", "--dev", "--url", "http://127.0.0.1:1"})
	require.Equal(t, 1, out.Code)
	require.Contains(t, out.Output, "does not answer")
}

// EdgeGallery's MEPM asks Mm5 how often services were called, which Kong and Elasticsearch counted.
func TestCallsThroughTheGatewayAreCountedForEdgeGallery(t *testing.T) {
	t.Parallel()
	p, _ := offering(t, nil)
	m, c := mepmOf(t, p), p.Gateway(t)
	consumer := newApp(p.Mp1AtGateway(t))
	for range 4 {
		c.Get("/services/hello/").Seen()
	}
	for range 3 {
		consumer.Get("/mep" + services).Is(200)
	}
	consumer.under("/mep").register(served("other", "http://192.0.2.1/"))
	want := map[string]int{"hello": 4, "serviceDiscovery": 3, "serviceRegister": 1}
	harness.EventuallyWithin(t, 2*harness.Patience, "the calls are counted", func() error {
		got := make(map[string]int)
		data := m.Get(govern+"/kong_log", asTheirs).Is(200).Object()["data"].(object)
		for _, kind := range []string{"appServices", "mepServices"} {
			for _, entry := range data[kind].([]any) {
				for _, n := range entry.(object)["callTimes"].([]any) {
					got[entry.(object)["name"].(string)] += int(n.(float64))
				}
			}
		}
		delete(got, "other")
		return harness.Not(maps.Equal(want, got), "%v", got)
	})
}
