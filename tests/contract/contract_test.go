package contract_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/api/openapi"
	"github.com/openmep/mep/tests/contract"
)

const (
	services = "/mec_service_mgmt/v1/applications/5abe4782-2c70-4e47-9a4e-0ee3a1a0fd1f/services"
	service  = services + "/e0deee2b"
	liveness = service + "/liveness"
	subs     = "/mec_service_mgmt/v1/applications/5abe4782-2c70-4e47-9a4e-0ee3a1a0fd1f/subscriptions"

	transport = `{"id":"t","name":"REST","type":"REST_HTTP","protocol":"HTTP","version":"2.0",
		"endpoint":{"uris":["http://10.0.0.1/rnis/v2"]},"security":{}}`
	asked    = `{"serName":"rnis","version":"2.1.0","state":"ACTIVE","serializer":"JSON","transportId":"t"}`
	answered = `{"serInstanceId":"e0deee2b","serName":"rnis","version":"2.1.0","state":"ACTIVE","serializer":"JSON",
		"transportInfo":` + transport + `,"_links":{"self":{"href":"http://mep` + service + `"}}}`
	monitored = `{"serInstanceId":"e0deee2b","serName":"rnis","version":"2.1.0","state":"ACTIVE","serializer":"JSON",
		"transportInfo":` + transport + `,"livenessInterval":60,
		"_links":{"self":{"href":"http://mep` + service + `"},"liveness":{"href":"http://mep` + liveness + `"}}}`
	subscription = `{"subscriptionType":"SerAvailabilityNotificationSubscription","callbackReference":"http://app/cb"}`
	subscribed   = `{"subscriptionType":"SerAvailabilityNotificationSubscription","callbackReference":"http://app/cb",
		"_links":{"self":{"href":"http://mep` + subs + `/1"}}}`
)

// recorder stands for a test that is expected to fail.
type recorder struct {
	testing.TB
	mu       sync.Mutex
	messages []string
}

func (r *recorder) Errorf(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.messages = append(r.messages, fmt.Sprintf(format, args...))
}

// answer is what a server says to anything.
type answer struct {
	status int
	header map[string]string
	body   string
}

func jsonAnswer(status int, body string, header ...string) answer {
	a := answer{status: status, body: body, header: map[string]string{"Content-Type": "application/json"}}
	for i := 0; i < len(header); i += 2 {
		a.header[header[i]] = header[i+1]
	}
	return a
}

func problemAnswer(status int, header ...string) answer {
	body := fmt.Sprintf(`{"type":"about:blank","title":%q,"status":%d,"detail":"because"}`, http.StatusText(status), status)
	return jsonAnswer(status, body, append(header, "Content-Type", "application/problem+json")...)
}

func created(body string) answer {
	return jsonAnswer(http.StatusCreated, body, "ETag", `"7"`, "Location", "http://mep"+service)
}

// call is a request; body "" means none.
type call struct {
	method, path, contentType, body string
}

// exchange performs one exchange through a validator and returns what the validator reported.
func exchange(t *testing.T, document string, c call, a answer, mark ...func(context.Context) context.Context) []string {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, err := io.Copy(io.Discard, r.Body)
		if err != nil {
			t.Errorf("read the request: %v", err)
		}
		w.Header().Set("X-Request-Id", "r-1")
		for name, value := range a.header {
			w.Header().Set(name, value)
		}
		w.WriteHeader(a.status)
		_, _ = io.WriteString(w, a.body)
	}))
	defer server.Close()

	ctx := t.Context()
	for _, m := range mark {
		ctx = m(ctx)
	}
	req, err := http.NewRequestWithContext(ctx, c.method, server.URL+c.path, strings.NewReader(c.body))
	require.NoError(t, err)
	if c.contentType != "" {
		req.Header.Set("Content-Type", c.contentType)
	}
	r := &recorder{TB: t}
	client := &http.Client{Transport: contract.New(r, document).Transport(server.Client().Transport)}
	resp, err := client.Do(req)
	require.NoError(t, err)
	defer func() { require.NoError(t, resp.Body.Close()) }()
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	if c.method != http.MethodHead && a.status != http.StatusNoContent && a.status != http.StatusNotModified {
		require.Equal(t, a.body, string(body), "the validator must hand the body on as it was")
	}
	return r.messages
}

func TestEveryDocumentIsValid(t *testing.T) {
	require.Subset(t, openapi.Documents(), []string{"mec_app_support", "mec_service_mgmt", "mep_auth", "mep_gateway", "mm5", "ops"})
	require.IsIncreasing(t, openapi.Documents())
	for _, name := range openapi.Documents() {
		t.Run(name, func(t *testing.T) {
			contract.New(t, name)
		})
	}
	_, ok := openapi.YAML("nothing")
	require.False(t, ok)
}

func TestGoodExchangesPass(t *testing.T) {
	const asJSON, asPatch = "application/json", "application/merge-patch+json"
	for name, x := range map[string]struct {
		call   call
		answer answer
	}{
		"discovery": {
			call{"GET", "/mec_service_mgmt/v1/services?ser_name=a&ser_name=b&is_local=true", "", ""},
			jsonAnswer(200, "["+answered+","+monitored+"]"),
		},
		"nothing found": {
			call{"GET", "/mec_service_mgmt/v1/services?scope_of_locality=MEC_HOST", "", ""},
			jsonAnswer(200, "[]", "Content-Type", "application/json; charset=utf-8"),
		},
		"alias prefix": {call{"GET", "/mep/mec_service_mgmt/v1/transports", "", ""}, jsonAnswer(200, "["+transport+"]")},
		"registration": {call{"POST", services, asJSON, asked}, created(answered)},
		"with heartbeats": {
			call{"POST", services, asJSON, strings.Replace(asked, "{", `{"livenessInterval":0,`, 1)},
			created(monitored),
		},
		"no content type": {call{"POST", services, "", asked}, created(answered)},
		"null is absence": {
			call{"POST", services, asJSON, strings.Replace(asked, "{", `{"serInstanceId":null,"serCategory":null,`, 1)},
			created(answered),
		},
		"replacement": {call{"PUT", service, asJSON, answered}, jsonAnswer(200, answered, "ETag", `"8"`)},
		"head": {
			call{"HEAD", service, "", ""},
			answer{200, map[string]string{"ETag": `W/"8"`, "Content-Type": asJSON}, ""},
		},
		"head not found": {
			call{"HEAD", service, "", ""},
			answer{404, map[string]string{"Content-Type": "application/problem+json"}, ""},
		},
		"not modified":   {call{"GET", service, "", ""}, answer{304, map[string]string{"ETag": `"8"`}, ""}},
		"deregistration": {call{"DELETE", service, "", ""}, answer{204, nil, ""}},
		"heartbeat":      {call{"PATCH", liveness, asPatch, `{"state":"ACTIVE"}`}, answer{204, nil, ""}},
		"heartbeat JSON": {
			call{"PATCH", liveness, asJSON, `{"state":"ACTIVE"}`},
			jsonAnswer(200, `{"state":"ACTIVE","timeStamp":{"seconds":1,"nanoSeconds":2},"interval":30}`),
		},
		"heartbeat by PUT": {call{"PUT", liveness, asJSON, `{"state":"ACTIVE"}`}, answer{204, nil, ""}},
		"liveness": {
			call{"GET", liveness, "", ""},
			jsonAnswer(200, `{"state":"SUSPENDED","timeStamp":{"seconds":1,"nanoSeconds":2},"interval":30}`, "ETag", `"1"`),
		},
		"subscription": {call{"POST", subs, asJSON, subscription}, created(subscribed)},
		"filter": {
			call{"POST", subs, asJSON, strings.Replace(subscription, "{", `{"filteringCriteria":{"serNames":["a"],"serInstanceIds":[],"states":["ACTIVE"]},`, 1)},
			created(subscribed),
		},
		"links": {call{"GET", subs, "", ""}, jsonAnswer(200, `{"_links":{"self":{"href":"http://mep/s"},"subscriptions":[{"href":"http://mep/s/1",
			"subscriptionType":"SerAvailabilityNotificationSubscription","rel":"SerAvailabilityNotificationSubscription"}]}}`)},
		"refusal":             {call{"POST", services, asJSON, `{"serName":17}`}, problemAnswer(400)},
		"refused media type":  {call{"POST", services, "text/xml", "<a/>"}, problemAnswer(415)},
		"no token":            {call{"GET", service, "", ""}, problemAnswer(401, "WWW-Authenticate", "Bearer")},
		"too many requests":   {call{"GET", service, "", ""}, problemAnswer(429, "Retry-After", "3")},
		"no such method":      {call{"PATCH", service, asJSON, "{}"}, problemAnswer(405, "Allow", "GET, HEAD, PUT, DELETE")},
		"no such path":        {call{"GET", "/mec_service_mgmt/v1/nothing", "", ""}, problemAnswer(404)},
		"someone else's path": {call{"GET", "/mm5/v1/app_instances", "", ""}, answer{418, nil, "teapot"}},
	} {
		t.Run(name, func(t *testing.T) {
			require.Empty(t, exchange(t, "mec_service_mgmt", x.call, x.answer))
		})
	}
}

func TestBadResponsesAreReported(t *testing.T) {
	get := call{"GET", service, "", ""}
	ok := func(body string) answer { return jsonAnswer(200, body, "ETag", `"7"`) }
	for name, x := range map[string]struct {
		call   call
		answer answer
		reason string
	}{
		"missing member":        {get, ok(strings.Replace(answered, `"serInstanceId":"e0deee2b",`, "", 1)), "serInstanceId"},
		"wrong type":            {get, ok(strings.Replace(answered, `"2.1.0"`, `2`, 1)), "/version"},
		"unknown enum value":    {get, ok(strings.Replace(answered, `"ACTIVE"`, `"active"`, 1)), "/state"},
		"transportId":           {get, ok(strings.Replace(answered, "{", `{"transportId":"t",`, 1)), "not"},
		"relative link":         {get, ok(strings.Replace(answered, "http://mep", "", 1)), "/_links/self/href"},
		"null for absent":       {get, ok(strings.Replace(answered, "{", `{"serCategory":null,`, 1)), "/serCategory"},
		"interval without link": {get, ok(strings.Replace(monitored, `,"liveness"`, `,"other"`, 1)), "liveness"},
		"link without interval": {get, ok(strings.Replace(monitored, `"livenessInterval":60,`, ``, 1)), "_links"},
		"two kinds of endpoint": {
			get,
			ok(strings.Replace(answered, `"uris"`, `"fqdn":["a.example"],"uris"`, 1)),
			"/transportInfo/endpoint",
		},
		"no token endpoint": {get, ok(strings.Replace(answered, `"security":{}`,
			`"security":{"oAuth2Info":{"grantTypes":["OAUTH2_CLIENT_CREDENTIALS"]}}`, 1)), "tokenEndpoint"},
		"wrapped":             {get, ok(`{"ServiceInfo":` + answered + `}`), "serName"},
		"object, not array":   {call{"GET", "/mec_service_mgmt/v1/services", "", ""}, jsonAnswer(200, answered), "array"},
		"null, not array":     {call{"GET", "/mec_service_mgmt/v1/services", "", ""}, jsonAnswer(200, "null"), "array"},
		"no JSON":             {get, ok(`{`), "decode"},
		"no body":             {get, ok(``), "decode"},
		"no content type":     {get, answer{200, map[string]string{"ETag": `"7"`, "Content-Type": ""}, answered}, "Content-Type"},
		"no ETag":             {get, jsonAnswer(200, answered), "ETag"},
		"no ETag on HEAD":     {call{"HEAD", service, "", ""}, answer{200, nil, ""}, "ETag"},
		"no ETag on 304":      {get, answer{304, nil, ""}, "ETag"},
		"ETag without quotes": {get, jsonAnswer(200, answered, "ETag", "7"), "ETag"},
		"no Location":         {call{"POST", services, "", asked}, jsonAnswer(201, answered, "ETag", `"7"`), "Location"},
		"slash after Location": {
			call{"POST", services, "", asked},
			jsonAnswer(201, answered, "ETag", `"7"`, "Location", "http://mep/s/"),
			"Location",
		},
		"no X-Request-Id":        {get, jsonAnswer(200, answered, "ETag", `"7"`, "X-Request-Id", ""), "X-Request-Id"},
		"undocumented status":    {get, problemAnswer(418), "status code"},
		"created by PUT":         {call{"PUT", service, "", answered}, created(answered), "status code"},
		"problem as plain JSON":  {get, jsonAnswer(404, problemAnswer(404).body), "Content-Type"},
		"problem of other code":  {get, answer{404, problemAnswer(400).header, problemAnswer(400).body}, "/status"},
		"problem without detail": {get, answer{404, problemAnswer(404).header, `{"title":"Not Found","status":404}`}, "detail"},
		"405 without Allow":      {call{"PATCH", service, "", "{}"}, problemAnswer(405), "Allow"},
		"429 without time":       {get, problemAnswer(429), "Retry-After"},
		"text for unknown path": {
			call{"GET", "/mec_service_mgmt/v1/nothing", "", ""},
			answer{404, map[string]string{"Content-Type": "text/plain"}, "404 page not found"},
			"Content-Type",
		},
	} {
		t.Run(name, func(t *testing.T) {
			messages := exchange(t, "mec_service_mgmt", x.call, x.answer)
			require.Len(t, messages, 1)
			require.Contains(t, messages[0], x.call.method+" http://")
			require.Contains(t, messages[0], x.call.path)
			require.Contains(t, messages[0], fmt.Sprintf("answered %d", x.answer.status))
			require.Contains(t, messages[0], x.reason)
		})
	}
}

func TestAcceptedBadRequestsAreReported(t *testing.T) {
	const asJSON = "application/json"
	post := func(body string) call { return call{"POST", services, asJSON, body} }
	list := func(query string) call { return call{"GET", "/mec_service_mgmt/v1/services?" + query, "", ""} }
	for name, x := range map[string]struct {
		call   call
		reason string
	}{
		"missing member":         {post(strings.Replace(asked, `"serName":"rnis",`, "", 1)), "serName"},
		"null for required":      {post(strings.Replace(asked, `"rnis"`, "null", 1)), "serName"},
		"empty name":             {post(strings.Replace(asked, `"rnis"`, `""`, 1)), "/serName"},
		"name too long":          {post(strings.Replace(asked, `rnis`, strings.Repeat("n", 256), 1)), "/serName"},
		"serInstanceId":          {post(strings.Replace(asked, "{", `{"serInstanceId":"mine",`, 1)), "not"},
		"no transport":           {post(strings.Replace(asked, `,"transportId":"t"`, "", 1)), "transportId"},
		"two transports":         {post(strings.Replace(asked, "{", `{"transportInfo":`+transport+`,`, 1)), "oneOf"},
		"negative interval":      {post(strings.Replace(asked, "{", `{"livenessInterval":-1,`, 1)), "/livenessInterval"},
		"text after the body":    {post(asked + "}"), "one JSON value"},
		"no body":                {post(""), "required"},
		"other media type":       {call{"POST", services, "text/plain", asked}, "Content-Type"},
		"PUT without transport":  {call{"PUT", service, asJSON, asked}, "transportInfo"},
		"heartbeat of another":   {call{"PATCH", liveness, asJSON, `{"state":"INACTIVE"}`}, "/state"},
		"heartbeat that removes": {call{"PATCH", liveness, asJSON, `{"state":null}`}, "state"},
		"type of subscription":   {call{"POST", subs, asJSON, strings.Replace(subscription, "SerA", "A", 1)}, "/subscriptionType"},
		"two kinds of filter": {call{"POST", subs, asJSON, strings.Replace(subscription, "{",
			`{"filteringCriteria":{"serNames":["a"],"serInstanceIds":["b"]},`, 1)}, "/filteringCriteria"},
		"unknown parameter":    {list("instance_id=a"), `"instance_id"`},
		"exclusive parameters": {list("ser_name=a&ser_category_id=b"), "exclude each other"},
		"repeated parameter":   {list("is_local=true&is_local=false"), "repeated"},
		"empty parameter":      {list("ser_name="), "ser_name"},
		"not a boolean":        {list("is_local=maybe"), "is_local"},
		"not a locality":       {list("scope_of_locality=EVERYWHERE"), "scope_of_locality"},
	} {
		t.Run(name, func(t *testing.T) {
			good := map[string]answer{
				"GET":   jsonAnswer(200, "[]"),
				"POST":  created(answered),
				"PUT":   jsonAnswer(200, answered, "ETag", `"8"`),
				"PATCH": {204, nil, ""},
			}[x.call.method]
			if x.call.path == subs {
				good = created(subscribed)
			}
			messages := exchange(t, "mec_service_mgmt", x.call, good)
			require.Len(t, messages, 1)
			require.Contains(t, messages[0], "the request was accepted")
			require.Contains(t, messages[0], x.reason)

			require.Empty(t, exchange(t, "mec_service_mgmt", x.call, problemAnswer(400)), "a refusal is right")
			require.Empty(t, exchange(t, "mec_service_mgmt", x.call, good, contract.Tolerated), "a stated divergence is right")
		})
	}
}

func TestAcceptedUndocumentedOperationsAreReported(t *testing.T) {
	for name, c := range map[string]call{
		"method": {"PATCH", service, "application/json", "{}"},
		"path":   {"GET", "/mep/mec_service_mgmt/v1/nothing", "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			messages := exchange(t, "mec_service_mgmt", c, jsonAnswer(200, answered))
			require.Len(t, messages, 1)
			require.Contains(t, messages[0], "no such operation")
		})
	}
}

func TestOperations(t *testing.T) {
	const (
		ready    = `{"ready":true,"listeners":{"mp1":"http://127.0.0.1:1"},"notReady":[],"degraded":[]}`
		notReady = `{"ready":false,"listeners":{},"notReady":[{"name":"etcd","reason":"unreachable"}],"degraded":[]}`
		state    = `{"subscriptionId":"s","appInstanceId":"a","callbackReference":"http://app/cb","pending":0,"cursor":12,"attempts":0}`
		dead     = `{"id":"1","subscriptionId":"s","appInstanceId":"a","callbackReference":"http://app/cb","revision":12,"changeType":"ADDED",
			"serInstanceId":"i","serName":"n","attempts":9,"firstAttempt":"2026-07-25T10:00:00Z","givenUp":"2026-07-25T11:00:00.5+02:00","lastError":"refused"}`
	)
	text := func(body string) answer {
		return answer{200, map[string]string{"Content-Type": "text/plain; version=0.0.4; charset=utf-8"}, body}
	}
	for name, x := range map[string]struct {
		path   string
		answer answer
		reason string // "" when the exchange is good
	}{
		"alive":           {"/healthz", text("ok\n"), ""},
		"alive otherwise": {"/healthz", text("fine"), "pattern"},
		"ready":           {"/readyz", jsonAnswer(200, ready), ""},
		"not ready":       {"/readyz", jsonAnswer(503, notReady), ""},
		"ready, tersely":  {"/readyz", jsonAnswer(200, `{"ready":true,"listeners":{}}`), ""},
		"no reason":       {"/readyz", jsonAnswer(503, `{"ready":false,"listeners":{}}`), "notReady"},
		"ready with 503":  {"/readyz", jsonAnswer(503, ready), "/ready"},
		"null list":       {"/readyz", jsonAnswer(200, strings.Replace(ready, "[]", "null", 1)), "/notReady"},
		"metrics":         {"/metrics", text("up 1\n"), ""},
		"OpenMetrics": {
			"/metrics",
			answer{200, map[string]string{"Content-Type": "application/openmetrics-text; version=1.0.0"}, "# EOF\n"},
			"",
		},
		"subscriptions": {"/notifications/subscriptions", jsonAnswer(200, "["+state+"]"), ""},
		"zero time": {
			"/notifications/subscriptions",
			jsonAnswer(200, "["+strings.Replace(state, "{", `{"lastAttempt":"0001-01-01T00:00:00Z",`, 1)+"]"),
			"/0/lastAttempt",
		},
		"dead letters":    {"/notifications/dead_letters", jsonAnswer(200, "["+dead+"]"), ""},
		"no dead letters": {"/notifications/dead_letters", jsonAnswer(200, "[]"), ""},
		"numeric time": {
			"/notifications/dead_letters",
			jsonAnswer(200, "["+strings.Replace(dead, `"2026-07-25T10:00:00Z"`, "1", 1)+"]"),
			"/0/firstAttempt",
		},
		"not ours":         {"/debug/pprof/", text("profiles"), ""},
		"another document": {services, text("whatever"), ""},
	} {
		t.Run(name, func(t *testing.T) {
			messages := exchange(t, "ops", call{method: "GET", path: x.path}, x.answer)
			if x.reason == "" {
				require.Empty(t, messages)
				return
			}
			require.Len(t, messages, 1)
			require.Contains(t, messages[0], x.reason)
		})
	}
}

func TestABodyThatCannotBeReplayedIsSentAndChecked(t *testing.T) {
	var got []byte
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got, _ = io.ReadAll(r.Body)
		w.Header().Set("X-Request-Id", "r-1")
		w.WriteHeader(http.StatusNoContent)
	}))
	defer server.Close()
	r := &recorder{TB: t}
	client := &http.Client{Transport: contract.New(r, "mec_service_mgmt").Transport(nil)}
	defer client.CloseIdleConnections()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPatch, server.URL+liveness,
		io.LimitReader(bytes.NewReader([]byte(`{"state":"SUSPENDED"}`)), 100))
	require.NoError(t, err)
	resp, err := client.Do(req)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	require.JSONEq(t, `{"state":"SUSPENDED"}`, string(got))
	require.Len(t, r.messages, 1)
	require.Contains(t, r.messages[0], "/state")
}

func TestConcurrentExchanges(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("X-Request-Id", "r-1")
		w.Header().Set("ETag", `"7"`)
		w.Header().Set("Location", "http://mep"+service)
		w.WriteHeader(http.StatusCreated)
		_, _ = io.WriteString(w, answered)
	}))
	defer server.Close()
	client := &http.Client{Transport: contract.New(t, "mec_service_mgmt").Transport(server.Client().Transport)}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 10 {
				resp, err := client.Post(server.URL+services, "application/json", strings.NewReader(asked))
				if err != nil {
					t.Errorf("post: %v", err)
					return
				}
				_ = resp.Body.Close()
			}
		})
	}
	wg.Wait()
}

func BenchmarkExchange(b *testing.B) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("X-Request-Id", "r-1")
		w.Header().Set("ETag", `"7"`)
		w.Header().Set("Location", "http://mep"+service)
		w.WriteHeader(http.StatusCreated)
		_, _ = io.WriteString(w, answered)
	}))
	defer server.Close()
	client := &http.Client{Transport: contract.New(b, "mec_service_mgmt").Transport(server.Client().Transport)}
	for b.Loop() {
		resp, err := client.Post(server.URL+services, "application/json", strings.NewReader(asked))
		if err != nil {
			b.Fatal(err)
		}
		_ = resp.Body.Close()
	}
}
