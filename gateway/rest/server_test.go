package rest_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/api/gateway"
	"github.com/openmep/mep/gateway/rest"
)

func TestACallIsExplained(t *testing.T) {
	m := start(t)
	var e gateway.Explanation
	m.ask("POST", "/explain", `{"method":"GET","url":"/services/x/a?b=c","consumer":"0B8CE5B4-4F5C-4A3A-9D0E-5A2F2C2F3F10"}`).json(t, 200, &e)
	require.Equal(t, "there is no route", e.Reason)
	require.Equal(t, "/services/x/a?b=c", m.server.explained.URL)
	require.Equal(t, "0b8ce5b4-4f5c-4a3a-9d0e-5a2f2c2f3f10", m.server.explained.Consumer)
	for _, body := range []string{`{}`, `{"method":"GET"}`, `{"method":"GET","url":"x"}`, `{"method":"GET","url":"/","who":"x"}`, `[]`, ``} {
		m.ask("POST", "/explain", body).refused(t, 400)
	}
	m.ask("POST", "/explain?x=1", `{"method":"GET","url":"/"}`).refused(t, 400)
	m.ask("POST", "/explain", `{"method":"FAIL","url":"/"}`).refused(t, 500)
}

func TestCallsAreCounted(t *testing.T) {
	m := start(t)
	at := time.Date(2026, 11, 23, 5, 0, 0, 0, time.UTC)
	for query, want := range map[string]rest.StatisticsQuery{
		"?to=2026-11-23T05:00:00Z":                                                                         {Resolution: "hour", From: at.Add(-24 * time.Hour), To: at},
		"?to=2026-11-23T06:00:00%2B01:00&resolution=minute":                                                {Resolution: "minute", From: at.Add(-time.Hour), To: at},
		"?to=2026-11-23T05:00:00Z&resolution=day&service=s&consumer=c":                                     {Resolution: "day", From: at.Add(-7 * 24 * time.Hour), To: at, Service: "s", Consumer: "c"},
		"?from=2026-11-23T04:59:59Z&to=2026-11-23T05:00:00Z&consumer=0B8CE5B4-4F5C-4A3A-9D0E-5A2F2C2F3F10": {Resolution: "hour", From: at.Add(-time.Second), To: at, Consumer: "0b8ce5b4-4f5c-4a3a-9d0e-5a2f2c2f3f10"},
	} {
		var s gateway.Statistics
		m.ask("GET", "/statistics"+query, "").json(t, 200, &s)
		require.Equal(t, want, m.server.asked, query)
	}
	before := time.Now()
	m.ask("GET", "/statistics", "").json(t, 200, &gateway.Statistics{})
	q := m.server.asked.(rest.StatisticsQuery)
	require.False(t, q.To.Before(before.Truncate(time.Second)))
	require.Equal(t, 24*time.Hour, q.To.Sub(q.From))
	for _, query := range []string{
		"?resolution=second", "?resolution=", "?from=yesterday", "?to=1", "?from=2026-11-23T05:00:00Z&to=2026-11-23T05:00:00Z", "?service=a&service=b", "?owner=a", "?service=",
	} {
		m.ask("GET", "/statistics"+query, "").refused(t, 400)
	}
}

func TestTheUseOfQuotasIsListed(t *testing.T) {
	m := start(t)
	require.Equal(t, "[]", m.ask("GET", "/quotas", "").body)
	window := time.Date(2026, 11, 23, 5, 0, 0, 0, time.UTC)
	for _, x := range [][3]string{{"b", "c", "hour"}, {"a", "d", "hour"}, {"a", "c", "minute"}, {"a", "c", "day"}} {
		m.server.quotas = append(m.server.quotas, gateway.QuotaUse{Route: x[0], Consumer: x[1], Per: x[2], Limit: 5, Window: window, Resets: window.Add(time.Hour)})
	}
	var list []string
	for _, u := range pages[gateway.QuotaUse](t, m.mepm, "/quotas?limit=1&route=a&consumer=c") {
		list = append(list, u.Route+u.Consumer+u.Per)
	}
	require.Equal(t, []string{"acday", "acminute", "adhour", "bchour"}, list)
	require.Equal(t, [2]string{"a", "c"}, m.server.asked)
	m.ask("GET", "/quotas?service=x", "").refused(t, 400)
}

func TestUpstreamsAndStatusAreTold(t *testing.T) {
	m := start(t)
	require.Equal(t, "[]", m.ask("GET", "/upstreams", "").body)
	m.server.targets = []gateway.TargetView{{URL: "http://b", State: "up"}, {URL: "http://a", Instance: "2", State: "up"}, {URL: "http://a", Instance: "1", State: "up"}}
	var list []string
	for _, u := range pages[gateway.TargetView](t, m.mepm, "/upstreams?limit=2") {
		list = append(list, u.URL+u.Instance)
	}
	require.Equal(t, []string{"http://a1", "http://a2", "http://b"}, list)
	var s gateway.Status
	m.ask("GET", "/status", "").json(t, 200, &s)
	require.Equal(t, int64(7), s.Revision)
	m.ask("GET", "/status?x=1", "").refused(t, 400)
	m.ask("GET", "/upstreams?x=1", "").refused(t, 400)
	m.ask("PUT", "/status", "").refused(t, 405)
}

func TestRoutesAreExported(t *testing.T) {
	m := start(t)
	for format, want := range map[string]string{"kong": `_format_version: "3.0"`, "envoy": "static_resources:"} {
		got := m.ask("GET", "/export?format="+format, "")
		require.Equal(t, http.StatusOK, got.status)
		require.Equal(t, "application/yaml", got.header.Get("Content-Type"))
		require.Contains(t, got.body, want)
	}
	for _, query := range []string{"", "?format=", "?format=nginx", "?format=kong&format=kong"} {
		m.ask("GET", "/export"+query, "").refused(t, 400)
	}
}

func TestRequestsThatAreRefused(t *testing.T) {
	m := start(t)
	for name, x := range map[string]struct {
		method, path, contentType, body string
		status                          int
		want                            []string
	}{
		"nothing":                   {"PUT", "/routes/a", "", "", 400, nil},
		"no object":                 {"PUT", "/routes/a", "", "[]", 400, nil},
		"no paths":                  {"PUT", "/routes/a", "", `{"service":"s"}`, 400, []string{"paths"}},
		"another id":                {"PUT", "/routes/a", "", `{"id":"b",` + good[1:], 400, []string{"id"}},
		"no id":                     {"PUT", "/routes/-a", "", good, 400, []string{"id"}},
		"misspelt":                  {"PUT", "/routes/a", "", `{"path":["/x"],` + good[1:], 400, []string{"path"}},
		"misspelt in the policy":    {"PUT", "/routes/a", "", `{"policy":{"scope":["mp1"]},` + good[1:], 400, []string{"policy.scope"}},
		"the platform's own path":   {"PUT", "/routes/a", "", `{"paths":["/mep/x"],"service":"s"}`, 400, []string{"paths[0]"}},
		"form":                      {"PUT", "/routes/a", "application/x-www-form-urlencoded", good, 415, nil},
		"too large":                 {"PUT", "/routes/a", "", `{"service":"` + strings.Repeat("a", maxBody) + `"}`, 413, nil},
		"query of a route":          {"PUT", "/routes/a?x=1", "", good, 400, nil},
		"query of a route to read":  {"GET", "/routes/a?x=1", "", "", 400, nil},
		"query of a removal":        {"DELETE", "/routes/a?x=1", "", "", 400, nil},
		"malformed query":           {"GET", "/routes?kind=%zz", "", "", 400, nil},
		"unknown parameter":         {"GET", "/routes?policy=x", "", "", 400, []string{"policy"}},
		"several faults":            {"GET", "/routes?limit=0&kind=x&after=%25", "", "", 400, []string{"kind", "limit", "after"}},
		"too long a page":           {"GET", "/policies?limit=1001", "", "", 400, []string{"limit"}},
		"policy misspelt":           {"PUT", "/policies/a", "", `{"quota":[]}`, 400, []string{"quota"}},
		"policy of no object":       {"PUT", "/policies/a", "", `3`, 400, nil},
		"query of a policy":         {"PUT", "/policies/a?x=1", "", `{}`, 400, nil},
		"query of a policy to read": {"GET", "/policies/a?x=1", "", "", 400, nil},
		"query of a policy to go":   {"DELETE", "/policies/a?x=1", "", "", 400, nil},
		"key for nobody":            {"POST", "/api_keys", "", `{}`, 400, []string{"consumer"}},
		"key for too short a time":  {"POST", "/api_keys", "", `{"consumer":"c","lifetime":"1ms"}`, 400, []string{"lifetime"}},
		"key with a key":            {"POST", "/api_keys", "", `{"consumer":"c","key":"mine"}`, 400, []string{"key"}},
		"query of a key":            {"POST", "/api_keys?x=1", "", `{"consumer":"c"}`, 400, nil},
		"query of a key to read":    {"GET", "/api_keys/a?x=1", "", "", 400, nil},
		"query of a key to go":      {"DELETE", "/api_keys/a?x=1", "", "", 400, nil},
		"list of keys":              {"GET", "/api_keys?limit=x", "", "", 400, []string{"limit"}},
		"no such resource":          {"GET", "/nothing", "", "", 404, nil},
		"no such method":            {"POST", "/routes", "", good, 405, nil},
	} {
		t.Run(name, func(t *testing.T) {
			p := m.ask(x.method, x.path, x.body, "Content-Type", x.contentType).refused(t, x.status)
			var names []string
			for _, f := range p.InvalidParams {
				names = append(names, f.Name)
			}
			if x.want != nil {
				require.Equal(t, x.want, names, "%v", p.InvalidParams)
			}
		})
	}
	require.Zero(t, m.book.Routes.Collection().Snapshot().Len())
	require.Zero(t, m.book.Policies.Collection().Snapshot().Len())
	require.Zero(t, m.book.Keys.Collection().Snapshot().Len())
}

// FuzzBodies checks that no body breaks the management API, and that accepted definitions can be read back and exported.
func FuzzBodies(f *testing.F) {
	f.Add(good, `{"quotas":[{"calls":5,"per":"hour"}]}`, `{"serName":"s"}`)
	f.Add(`{"paths":["/a/**"],"urls":["https://h:1/b"],"rewrite":"/x/{rest}","headers":{"X-A":"*"},"policy":{"rules":[{"effect":"deny","sources":["::/0"]}]}}`,
		`{"headers":{"set":{"X-B":"%"}}}`, `{"serInstanceId":"known"}`)
	f.Add(`{"paths":["/*/b/*"],"hosts":["*.example.com"],"urls":["h2c://[::1]:7"],"strip":1}`, `{"upstream":{"healthCheck":{"path":"/h"}}}`, `null`)
	m := start(f)
	f.Fuzz(func(t *testing.T, route, policy, access string) {
		if got := m.ask("PUT", "/routes/fuzz", route); got.status < 300 {
			var view gateway.RouteView
			m.ask("GET", "/routes/fuzz", "").json(t, 200, &view)
			again := m.ask("PUT", "/routes/fuzz", route)
			require.Equal(t, got.header.Get("ETag"), again.header.Get("ETag"))
		} else {
			got.refused(t, 400)
		}
		if got := m.ask("PUT", "/policies/fuzz", policy); got.status < 300 {
			m.ask("GET", "/policies/fuzz", "").json(t, 200, &gateway.PolicyView{})
		} else {
			got.refused(t, 400)
		}
		got := ask(m.apps, "POST", "/access_requests", access, "X-Test-Caller", "fuzz")
		require.Contains(t, []int{201, 400, 403, 404, 409}, got.status, got.body)
		for _, format := range []string{"kong", "envoy"} {
			require.Equal(t, 200, m.ask("GET", "/export?format="+format, "").status)
		}
	})
}
