package rest_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/api/gateway"
)

func TestAppsDealWithAccessRequestsAtTheGateway(t *testing.T) {
	m := start(t)
	app := func(who, method, path, body string, header ...string) answer {
		return ask(m.apps, method, "/access_requests"+path, body, append(header, "X-Test-Caller", who)...)
	}
	got := app("c", "POST", "", `{"serName":"s","purpose":"dashboards"}`)
	var r gateway.AccessRequest
	got.json(t, 201, &r)
	require.Equal(t, gateway.AccessPending, r.State)
	require.Equal(t, "c", r.Consumer)
	require.Equal(t, "owner", r.Owner)
	require.Equal(t, gateway.Base+"/access_requests/"+r.ID, got.header.Get("Location"))
	etag := got.header.Get("ETag")
	require.Equal(t, 304, app("c", "GET", "/"+r.ID, "", "If-None-Match", etag).status)

	app("somebody", "GET", "/"+r.ID, "").refused(t, 404)
	app("somebody", "PUT", "/"+r.ID, `{"state":"GRANTED"}`).refused(t, 404)
	app("somebody", "DELETE", "/"+r.ID, "").refused(t, 404)
	app("c", "PUT", "/"+r.ID, `{"state":"GRANTED"}`).refused(t, 403)
	app("owner", "PUT", "/"+r.ID, `{"state":"GRANTED"}`, "If-Match", `"other"`).refused(t, 412)
	got = app("owner", "PUT", "/"+r.ID, `{"state":"GRANTED","reason":"fine"}`, "If-Match", etag)
	got.json(t, 200, &r)
	require.NotEqual(t, etag, got.header.Get("ETag"))
	require.Equal(t, "owner", r.DecidedBy)
	require.True(t, m.book.Access.Granted("owner", "s", "c"))
	app("c", "GET", "/"+r.ID, "").json(t, 200, &r)
	require.Equal(t, "fine", r.Reason)

	app("d", "POST", "", `{"serName":"s"}`).json(t, 201, &gateway.AccessRequest{})
	for who, n := range map[string]int{"c": 1, "d": 1, "owner": 2, "somebody": 0} {
		require.Len(t, pages[gateway.AccessRequest](t, m.apps, "/access_requests?limit=1", "X-Test-Caller", who), n, who)
	}
	require.Len(t, pages[gateway.AccessRequest](t, m.apps, "/access_requests?state=GRANTED&owner=owner", "X-Test-Caller", "owner"), 1)
	require.Len(t, pages[gateway.AccessRequest](t, m.mepm, "/access_requests?consumer=d"), 1)

	app("c", "DELETE", "/"+r.ID, "", "If-Match", `"other"`).refused(t, 412)
	app("c", "DELETE", "/"+r.ID, "").gone(t)
	require.False(t, m.book.Access.Granted("owner", "s", "c"))
	app("c", "DELETE", "/"+r.ID, "").refused(t, 404)

	for name, x := range map[string]struct {
		who, method, path, body string
		status                  int
	}{
		"nobody":               {"", "POST", "", `{"serName":"s"}`, 401},
		"nobody's list":        {"", "GET", "", "", 401},
		"nobody reads":         {"", "GET", "/x", "", 401},
		"nobody decides":       {"", "PUT", "/x", `{"state":"GRANTED"}`, 401},
		"nobody deletes":       {"", "DELETE", "/x", "", 401},
		"for somebody else":    {"c", "POST", "", `{"serName":"s","consumer":"d"}`, 403},
		"no such service":      {"c", "POST", "", `{"serName":"none"}`, 404},
		"no such instance":     {"c", "POST", "", `{"serInstanceId":"none"}`, 404},
		"several owners":       {"c", "POST", "", `{"serName":"several"}`, 400},
		"neither":              {"c", "POST", "", `{}`, 400},
		"already there":        {"d", "POST", "", `{"serName":"s"}`, 409},
		"one's own":            {"owner", "POST", "", `{"serName":"s"}`, 409},
		"no such request":      {"owner", "PUT", "/x", `{"state":"GRANTED"}`, 404},
		"no decision":          {"owner", "PUT", "/x", `{"state":"PENDING"}`, 400},
		"misspelt":             {"owner", "PUT", "/x", `{"state":"GRANTED","reasons":"x"}`, 400},
		"query of a decision":  {"owner", "PUT", "/x?force=1", `{"state":"GRANTED"}`, 400},
		"query of a request":   {"owner", "GET", "/x?a=1", "", 400},
		"query of a removal":   {"owner", "DELETE", "/x?a=1", "", 400},
		"query of application": {"owner", "POST", "?a=1", `{"serName":"s"}`, 400},
		"unknown state":        {"owner", "GET", "?state=OPEN", "", 400},
		"unknown parameter":    {"owner", "GET", "?service=s", "", 400},
		"wrong method":         {"owner", "PATCH", "/x", "{}", 405},
	} {
		t.Run(name, func(t *testing.T) {
			got := app(x.who, x.method, x.path, x.body)
			got.refused(t, x.status)
			require.Equal(t, x.status == 401, got.header.Get("WWW-Authenticate") != "")
		})
	}
	app("c", "POST", "", `{"serInstanceId":"known","consumer":"c"}`).json(t, 201, &r)
	require.Equal(t, "other", r.Owner)
	ask(m.apps, "GET", "/routes", "").refused(t, 404)
}

func TestAManagerDealsWithAllAccessRequests(t *testing.T) {
	m := start(t)
	require.Equal(t, "consumer", m.ask("POST", "/access_requests", `{"serName":"s"}`).refused(t, 400).InvalidParams[0].Name)
	var r gateway.AccessRequest
	m.ask("POST", "/access_requests", `{"serName":"s","consumer":"0B8CE5B4-4F5C-4A3A-9D0E-5A2F2C2F3F10"}`).json(t, 201, &r)
	require.Equal(t, "0b8ce5b4-4f5c-4a3a-9d0e-5a2f2c2f3f10", r.Consumer)
	m.ask("PUT", "/access_requests/"+r.ID, `{"state":"GRANTED"}`, "X-Test-Caller", "mepm").json(t, 200, &r)
	require.Equal(t, "mepm", r.DecidedBy)
	m.ask("PUT", "/access_requests/"+r.ID, `{"state":"REFUSED","reason":"misused"}`).json(t, 200, &r)
	require.False(t, m.book.Access.Granted("owner", "s", r.Consumer))
	m.ask("DELETE", "/access_requests/"+r.ID, "").gone(t)
}
