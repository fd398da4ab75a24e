package gateway_test

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	api "github.com/openmep/mep/api/gateway"
	"github.com/openmep/mep/gateway"
)

// plain returns the name of a header field as servers behind a gateway may read it.
func plain(name string) string { return strings.ToLower(strings.ReplaceAll(name, "_", "-")) }

// values returns the values of a header field, however it is spelt.
func values(h http.Header, name string) []string {
	var list []string
	for n, v := range h {
		if plain(n) == plain(name) {
			list = append(list, v...)
		}
	}
	return list
}

// TestNobodyPassesForSomebodyElse sends what S-1 and its relatives send: credentials and claims that contradict each other.
func TestNobodyPassesForSomebodyElse(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	g := w.gate()
	w.named("hello", mirrorOf(t).URL)
	me, victim := w.app(), w.app()
	token, stranger := w.token(me), newKey(t)
	forged := w.sign(stranger, kid, map[string]any{"iss": issuer, "sub": victim, "aud": "mep", "exp": 4e9, "client_id": "ak-" + victim, "epoch": "e", "scope": "mp1"})
	none := "eyJhbGciOiJub25lIiwia2lkIjoiazEifQ." + strings.Split(forged, ".")[1] + "."
	key := g.apiKey(victim)

	for name, c := range map[string]struct {
		request string // after the request line
		query   string
		status  int
	}{
		"own token in the query, forged one in the header": {"Authorization: Bearer " + forged + "\n", "?jwt=" + token, 401},
		"own token in the query, unsigned one":             {"Authorization: Bearer " + none + "\n", "?jwt=" + token, 401},
		"own token in the query alone":                     {"", "?jwt=" + token + "&access_token=" + token, 401},
		"own token in a cookie":                            {"Cookie: jwt=" + token + "\n", "", 401},
		"two Authorization fields":                         {"Authorization: Bearer " + token + "\nAuthorization: Bearer " + forged + "\n", "", 400},
		"own token and another's key":                      {"Authorization: Bearer " + token + "\nX-Api-Key: " + key + "\n", "", 401},
		"own token and another's key in the query":         {"Authorization: Bearer " + token + "\n", "?x-api-key=" + key, 401},
		"two keys": {"X-Api-Key: " + key + "\nX-Api-Key: " + key + "\n", "", 400},
		"a key in the header and one in the query": {"X-Api-Key: " + key + "\n", "?x-api-key=" + key, 400},
		"an empty key":                    {"X-Api-Key: \n", "", 401},
		"a key that is cut short":         {"X-Api-Key: " + key[:len(key)-1] + "\n", "", 401},
		"a key in capitals":               {"X-Api-Key: " + strings.ToUpper(key) + "\n", "", 401},
		"an empty token":                  {"Authorization: Bearer \n", "", 400},
		"Connection takes the proof away": {"Connection: Authorization\nAuthorization: Bearer " + forged + "\n", "", 401},
		"a proof for the proxy":           {"Proxy-Authorization: Bearer " + token + "\n", "", 401},
		"Basic":                           {"Authorization: Basic " + token + "\n", "", 401},
		"own token, said to be another":   {"Authorization: Bearer " + token + "\nX-AppInstanceID: " + victim + "\n", "", 200},
		"own token, and own again by a folded field's name": {"Authorization: bearer  " + token + "\nX_AppInstanceID: " + victim + "\n", "", 200},
	} {
		t.Run(name, func(t *testing.T) {
			g := g.in(t)
			l := g.dial()
			l.send("GET /services/hello/" + c.query + " HTTP/1.1\nHost: a\n" + c.request + "\n")
			a := l.answer()
			require.Equal(t, c.status, a.StatusCode, a.body)
			require.NotContains(t, a.body, forged)
			if a.StatusCode == http.StatusOK {
				require.Equal(t, []string{me}, values(a.seen(t).Header, "X-AppInstanceID"))
				require.Empty(t, values(a.seen(t).Header, "Authorization"))
			} else {
				require.Contains(t, a.Header.Get("Content-Type"), "application/problem+json")
			}
		})
	}
}

func TestIdentityHeadersComeFromTheGatewayAlone(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	g := w.gate()
	w.named("hello", mirrorOf(t).URL)
	w.policy("hello", anybody)
	me := w.app()
	spellings := []string{
		"X-AppInstanceID", "x-appinstanceid", "X_AppInstanceID", "X-APPINSTANCEID", "x_appinstanceid", "X-AppInstanceId-2",
		"X-Consumer-Scopes", "X_Consumer_Scopes", "X-Consumer_Scopes", "x_consumer-id", "X-Consumer-Username", "X-Consumer-Custom-ID",
		"X-Credential-Identifier", "X_Credential_Username", "X-Authenticated-Userid", "X-Authenticated-Scope", "X-Anonymous-Consumer",
		"X_Forwarded_For", "X-Forwarded_For", "X_Real_IP", "X-Real_IP", "X_Forwarded-Proto",
	}
	for who, proof := range map[string]string{"nobody": "", me: "Authorization: Bearer " + w.token(me) + "\n"} {
		for _, connection := range []string{"", "Connection: X-AppInstanceID, X-Consumer-Scopes, X-Forwarded-For, X-Request-Id, Via, Forwarded\n"} {
			var b strings.Builder
			for _, name := range spellings {
				fmt.Fprintf(&b, "%s: forged\n%s: forged too\n", name, name)
			}
			l := g.dial()
			l.send("GET /services/hello/ HTTP/1.1\nHost: a\n" + b.String() + proof + connection + "\n")
			a := l.answer()
			require.Equal(t, http.StatusOK, a.StatusCode, a.body)
			got := a.seen(t)
			require.NotContains(t, a.body, "forged")
			wantID, wantScopes := []string{me}, []string{"mp1"}
			if who == "nobody" {
				wantID, wantScopes = nil, nil
			}
			require.Equal(t, wantID, values(got.Header, "X-AppInstanceID"), "Connection must not take away what the gateway says")
			require.Equal(t, wantScopes, values(got.Header, "X-Consumer-Scopes"))
			require.Equal(t, []string{"127.0.0.1"}, values(got.Header, "X-Forwarded-For"))
			require.Len(t, values(got.Header, "X-Request-Id"), 1)
			require.Equal(t, []string{"1.1 mep"}, values(got.Header, "Via"))
			require.Equal(t, []string{`for=127.0.0.1;host="a";proto=http`}, values(got.Header, "Forwarded"))
			require.Empty(t, values(got.Header, "Connection"))
		}
	}
}

// TestFieldsAPolicySetsCannotBeForged checks other spellings of the names that claims and policies fill.
func TestFieldsAPolicySetsCannotBeForged(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	g := w.gate()
	w.named("hello", mirrorOf(t).URL)
	p := anybody
	p.Claims = map[string]string{"X-User-Role": "role"}
	p.Headers.Set = map[string]string{"X-Zone": "edge"}
	w.policy("hello", p)
	for _, name := range []string{"X-User-Role", "x_user_role", "X-User_Role", "X_Zone", "X-Zone"} {
		a := g.get("/services/hello/", bearer(w.token(w.app())), field(name, "admin"), field("Connection", "X-User-Role, X-Zone"))
		require.Equal(t, http.StatusOK, a.StatusCode, a.body)
		require.Empty(t, values(a.seen(t).Header, "X-User-Role"), name)
		require.Equal(t, []string{"edge"}, values(a.seen(t).Header, "X-Zone"), name)
	}
}

func TestFieldsOfAnExternalAuthorisationAreNotTakenAway(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	g := w.gate()
	w.named("hello", mirrorOf(t).URL)
	asked := serve(t, func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("X-Role", "guest") })
	p := anybody
	p.ExternalAuth = &api.ExternalAuth{URL: asked.URL, Return: []string{"X-Role"}}
	w.policy("hello", p)
	for _, change := range []func(*http.Request){
		field("Connection", "close"), field("Connection", "X-Role"), field("X-Role", "admin"), field("X_Role", "admin"),
	} {
		a := g.get("/services/hello/", change)
		require.Equal(t, http.StatusOK, a.StatusCode, a.body)
		require.Equal(t, []string{"guest"}, values(a.seen(t).Header, "X-Role"))
	}
}

func TestWhatIsSaidOfWhereACallComesFrom(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.named("hello", mirrorOf(t).URL)
	w.policy("hello", anybody)
	off := false
	silent := anybody
	silent.Headers = api.Headers{Forwarded: &off, XForwarded: &off, Via: &off, RequestID: &off}
	w.named("silent", mirrorOf(t).URL)
	w.policy("silent", silent)
	direct := w.gate()
	behind := w.gate(func(s *setup) { s.Common.Identity.Proxies = []string{"127.0.0.0/8"} })
	none := w.gate(func(s *setup) {
		s.Gateway.HeaderFields, s.Gateway.TrustRequestID = nil, false
	})
	names := []string{"X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Real-Ip", "Forwarded", "Via"}
	request := "Host: h.example:81\nX-Forwarded-For: 192.0.2.9, 192.0.2.7\nX-Forwarded-For: 127.0.0.9\nX-Forwarded-Host: outside\nX-Forwarded-Proto: https\n" +
		"Forwarded: for=192.0.2.7\nVia: 1.0 before\nX-Real-Ip: 192.0.2.66\nX-Request-Id: mine-1\n\n"
	for name, c := range map[string]struct {
		gate    *gate
		service string
		want    []string
		id      string
	}{
		"no proxy is trusted":      {direct, "hello", []string{"127.0.0.1", "h.example:81", "http", "127.0.0.1", `for=127.0.0.1;host="h.example:81";proto=http`, "1.0 before, 1.1 mep"}, "mine-1"},
		"the proxy is trusted":     {behind, "hello", []string{"192.0.2.9, 192.0.2.7, 127.0.0.9, 127.0.0.1", "outside", "https", "192.0.2.7", `for=192.0.2.7, for=127.0.0.1;host="h.example:81";proto=http`, "1.0 before, 1.1 mep"}, "mine-1"},
		"the policy wants none":    {direct, "silent", []string{"", "", "", "", "", "1.0 before"}, ""},
		"the settings want none":   {none, "hello", []string{"", "", "", "", "", "1.0 before"}, ""},
		"none, and a proxy before": {behind, "silent", []string{"", "", "", "", "", "1.0 before"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			l := c.gate.dial()
			l.send("GET /services/" + c.service + "/ HTTP/1.1\n" + request)
			a := l.answer()
			require.Equal(t, http.StatusOK, a.StatusCode)
			h := a.seen(t).Header
			for i, n := range names {
				require.Equal(t, c.want[i], strings.Join(h[n], " | "), n)
			}
			require.Equal(t, c.id, h.Get("X-Request-Id"))
			if c.gate == none {
				require.NotEqual(t, "mine-1", a.Header.Get("X-Request-Id"), "clients may not name their requests")
			} else {
				require.Equal(t, "mine-1", a.Header.Get("X-Request-Id"))
			}
			require.NotEmpty(t, a.Header.Get("X-Request-Id"))
		})
	}
}

func TestRequestIDs(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	g := w.gate()
	w.named("hello", mirrorOf(t).URL)
	w.policy("hello", anybody)
	for _, id := range []string{strings.Repeat("x", 300), "a b", "\xff", ""} {
		a := g.get("/services/hello/", field("X-Request-Id", id))
		require.NotEqual(t, id, a.Header.Get("X-Request-Id"))
		require.Len(t, a.Header["X-Request-Id"], 1)
		require.Equal(t, a.Header.Get("X-Request-Id"), a.seen(t).Header.Get("X-Request-Id"))
	}
	early := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Link", "</a>; rel=preload")
		w.Header().Set("X-Request-Id", "the upstream's")
		w.WriteHeader(http.StatusEarlyHints)
		w.WriteHeader(http.StatusOK)
	})
	w.named("early", early.URL)
	p := anybody
	p.Quotas = []api.Quota{{Calls: 100, Per: "hour"}}
	w.policy("early", p)
	a := g.get("/services/early/", field("X-Request-Id", "mine"))
	require.Equal(t, []string{"mine"}, a.Header["X-Request-Id"], "also after 103 Early Hints")
	require.NotEmpty(t, a.Header.Get("RateLimit"), "also after 103 Early Hints: %v", a.Header)
}

func TestPoliciesChangeHeaderFields(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	g := w.gate(func(s *setup) {
		s.Gateway.KeyHeader, s.Gateway.KeyQuery = "X-Secret", "key"
	})
	up := serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Server", "secret/1.0")
		reflect(w, r)
	})
	w.named("hello", up.URL)
	p := api.Policy{
		KeepAuthorization: true, Claims: map[string]string{"X-Token-Id": "jti", "X-Groups": "groups", "X-Age": "age", "X-Deep": "deep", "X-Bad": "bad"},
		Headers: api.Headers{
			Set: map[string]string{"x-zone": "edge"}, Remove: []string{"cookie"},
			SetResponse: map[string]string{"X-Frame-Options": "DENY"}, RemoveResponse: []string{"server"},
		},
	}
	w.policy("hello", p)
	app := w.app()
	w.token(app) // stores its credentials
	token := w.sign(w.key, kid, map[string]any{
		"iss": issuer, "sub": app, "aud": "mep", "exp": 4e9, "jti": "j", "scope": "mp1 other", "client_id": "ak-" + app, "epoch": "e",
		"groups": []any{"a", 1, "b"}, "age": 12345678901234567, "deep": map[string]any{"a": 1}, "bad": "a\r\nX-Injected: 1",
	})
	a := g.get("/services/hello/?a=1", bearer(token), field("Cookie", "c=1"), field("X-Bad", "mine"), field("X-Deep", "mine"))
	require.Equal(t, http.StatusOK, a.StatusCode, a.body)
	h := a.seen(t).Header
	require.Equal(t, "Bearer "+token, h.Get("Authorization"))
	require.Equal(t, "j", h.Get("X-Token-Id"))
	require.Equal(t, "a b", h.Get("X-Groups"))
	require.Equal(t, "12345678901234567", h.Get("X-Age"))
	require.Empty(t, h["X-Deep"])
	require.Empty(t, h["X-Bad"], "a claim that would break the header is not passed on")
	require.Empty(t, h["X-Injected"])
	require.Empty(t, h["Cookie"])
	require.Equal(t, "edge", h.Get("X-Zone"))
	require.Equal(t, "mp1 other", h.Get("X-Consumer-Scopes"))
	require.Equal(t, "DENY", a.Header.Get("X-Frame-Options"))
	require.Empty(t, a.Header["Server"])

	key := g.apiKey(app)
	for _, c := range []struct {
		path, target string
		change       func(*http.Request)
	}{
		{"/services/hello/?a=%2f&key=" + key + "&b=+;&c", "/?a=%2f&b=+;&c", field("A", "")},
		{"/services/hello/?key=" + key, "/", field("A", "")},
		{"/services/hello/?k%65y=" + key, "/", field("A", "")},
		{"/services/hello/?monkey=1", "/?monkey=1", field("X-Secret", key)},
	} {
		a := g.get(c.path, c.change)
		require.Equal(t, http.StatusOK, a.StatusCode, "%s %s", c.path, a.body)
		require.Equal(t, strings.TrimSuffix(c.target, "?"), strings.TrimSuffix(a.seen(t).Target, "?"))
		require.NotContains(t, a.body, key)
	}
	require.NoError(t, g.reload(func(c *gateway.Config) { c.KeyQuery = "off" }))
	require.Equal(t, http.StatusUnauthorized, g.status("/services/hello/?key="+key))
	require.Equal(t, http.StatusOK, g.status("/services/hello/", field("X-Secret", key)))
}

func TestHopByHopFieldsStay(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	g := w.gate()
	up := serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Connection", "X-Private")
		w.Header().Set("X-Private", "1")
		w.Header().Set("Keep-Alive", "timeout=5")
		w.Header().Set("Proxy-Authenticate", "Basic")
		w.Header().Set("X-Public", "1")
		reflect(w, r)
	})
	w.named("hello", up.URL)
	w.policy("hello", anybody)
	l := g.dial()
	l.send("GET /services/hello/ HTTP/1.1\nHost: a\nConnection: keep-alive, X-Hop, ,te\nX-Hop: 1\nKeep-Alive: 1\nTE: trailers, deflate\nProxy-Connection: x\n" +
		"Proxy-Authorization: Basic x\nTrailer: X\nTransfer-Encoding: chunked\nX-End: 1\n\n0\n\n")
	a := l.answer()
	require.Equal(t, http.StatusOK, a.StatusCode)
	h := a.seen(t).Header
	for _, name := range []string{"X-Hop", "Keep-Alive", "Proxy-Connection", "Proxy-Authorization", "Connection", "Transfer-Encoding"} {
		require.Empty(t, h[name], name)
	}
	require.Equal(t, []string{"trailers"}, h["Te"])
	require.Equal(t, "1", h.Get("X-End"))
	for _, name := range []string{"X-Private", "Keep-Alive", "Proxy-Authenticate"} {
		require.Empty(t, a.Header[name], name)
	}
	require.Equal(t, "1", a.Header.Get("X-Public"))
	require.False(t, slices.Contains(a.Header["Connection"], "X-Private"))
}

func TestCallsThatGoInACircleEnd(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	g := w.gate(func(s *setup) { s.Gateway.DenyTargets = nil })
	other := w.gate()
	w.named("hello", other.URL()+"/services/back")
	w.named("back", mirrorOf(t).URL)
	for _, name := range []string{"hello", "back"} {
		w.policy(name, anybody)
	}
	a := g.get("/services/hello/")
	require.Equal(t, http.StatusOK, a.StatusCode, a.body)
	require.Equal(t, []string{"1.1 mep, 1.1 mep"}, a.seen(t).Header["Via"])
	circle := w.app()
	id := w.service(circle, "circle", g.URL()+"/services/circle")
	w.policy("circle", anybody)
	require.Equal(t, http.StatusBadGateway, g.status("/services/circle/"), "a gateway does not call itself")
	require.Equal(t, http.StatusBadGateway, other.status("/services/circle/"), "and what comes back to another ends there")
	w.setService(circle, id, "circle", mirrorOf(t).URL)
	require.Equal(t, http.StatusBadGateway, g.status("/services/circle/", field("Via", strings.Repeat("1.1 mep, ", 8))))
}

// TestNoTypeIsMadeUp checks an answer whose service does not state a type.
func TestNoTypeIsMadeUp(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	g := w.gate()
	w.named("page", serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header()["Content-Type"] = r.Header["X-Type"]
		_, _ = io.WriteString(w, "<html>")
	}).URL)
	token := bearer(w.token(w.app()))
	two := &http.Transport{Protocols: unencrypted()}
	defer two.CloseIdleConnections()
	for _, transport := range []http.RoundTripper{g.client.Transport, two} {
		for _, kind := range [][]string{nil, {"text/x"}} {
			r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, g.URL()+"/services/page/", nil)
			require.NoError(t, err)
			token(r)
			r.Header["X-Type"] = kind
			resp, err := transport.RoundTrip(r)
			require.NoError(t, err)
			require.NoError(t, resp.Body.Close())
			require.Equal(t, http.StatusOK, resp.StatusCode)
			require.Equal(t, kind, resp.Header["Content-Type"], resp.Proto)
		}
	}
}
