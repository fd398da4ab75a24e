package blackbox

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/tests/harness"
)

func TestAPolicyIsInForceWhenItIsAnswered(t *testing.T) {
	t.Parallel()
	producer := harness.NewProducer(t, "hello", nil)
	p := harness.Start(t)
	m, c := p.GatewayManagement(t), p.Gateway(t)
	newApp(p.Client(t)).register(served("hello", producer.URL))
	reached(t, c, "/services/hello/")
	path := gatewayRoot + "/policies/hello"
	m.Get(path).Problem(404)
	m.Delete(path).Problem(404)
	for range 20 {
		created := m.Put(path, object{"rules": []any{object{"effect": "deny"}}}).Is(201)
		require.Equal(t, path, harness.Path(t, p.URL("gateway-management")+created.Header.Get("Location")))
		c.Get("/services/hello/").Problem(403)
		changed := m.Put(path, object{"rules": []any{object{"effect": "deny", "methods": []any{"POST"}}}}, harness.Header("If-Match", created.ETag())).Is(200)
		c.Get("/services/hello/").Seen()
		c.Post("/services/hello/", nil).Problem(403)
		require.Equal(t, changed.ETag(), m.Get(path).Is(200).ETag())
		m.Put(path, object{}, harness.Header("If-None-Match", "*")).Problem(412)
		m.Put(path, object{}, harness.Header("If-Match", created.ETag())).Problem(412)
		m.Delete(path, harness.Header("If-Match", created.ETag())).Problem(412)
		c.Post("/services/hello/", nil).Problem(403)
		m.Delete(path).Is(204)
		c.Post("/services/hello/", nil).Seen()
	}
	policy(m, "*", object{"default": "deny"})
	c.Get("/services/hello/").Problem(403)
	policy(m, "hello", object{"maxBody": 100})
	c.Get("/services/hello/").Problem(403) // what it leaves open is as "*" says
	policy(m, "hello", object{"default": "allow", "maxBody": 3})
	c.Post("/services/hello/", "abc").Seen()
	c.Post("/services/hello/", "abcd").Problem(413)
	names := []any{}
	for _, v := range m.Get(gatewayRoot + "/policies").Is(200).Array() {
		if v["source"] != "platform" {
			names = append(names, v["name"], v["source"])
		}
	}
	require.Equal(t, []any{"*", "management", "hello", "management"}, names)
	p.Kill()
	p.Restart()
	c.Post("/services/hello/", "abcd").Problem(413)
}

func TestAPolicyThatIsWrongIsRefused(t *testing.T) {
	t.Parallel()
	p := harness.Start(t)
	m := p.GatewayManagement(t)
	put := func(t *testing.T, path string, body any) []string {
		t.Helper()
		return p.GatewayManagement(t).Put(gatewayRoot+path, body).Problem(400).Names()
	}
	for about, body := range map[string]object{
		"quotaz":                        {"quotaz": []any{}},
		"authentication[0]":             {"authentication": []any{"password"}},
		"rules[0].effect":               {"rules": []any{object{"effect": "maybe"}}},
		"rules[0].sources[0]":           {"rules": []any{object{"effect": "deny", "sources": []any{"300.0.0.0/8"}}}},
		"rules[0].source":               {"rules": []any{object{"effect": "deny", "source": []any{"10.0.0.0/8"}}}},
		"rules[1].paths[0]":             {"rules": []any{object{"effect": "deny"}, object{"effect": "deny", "paths": []any{"a"}}}},
		"quotas[0].per":                 {"quotas": []any{object{"calls": 1, "per": "week"}}},
		"quotas[0].calls":               {"quotas": []any{object{"calls": 0, "per": "day"}}},
		"spikeArrest.per":               {"spikeArrest": object{"calls": 1, "per": "day"}},
		"concurrent":                    {"concurrent": -1},
		"whenStoreAway":                 {"whenStoreAway": "panic"},
		"sharing":                       {"sharing": "secret"},
		"timeouts.total":                {"timeouts": object{"total": "soon"}},
		"externalAuth.url":              {"externalAuth": object{"url": "ftp://a.example/"}},
		"upstream.ca":                   {"upstream": object{"ca": "none"}},
		"upstream.healthCheck.interval": {"upstream": object{"healthCheck": object{"path": "/", "interval": "1ms"}}},
		"headers.set.X-AppInstanceID":   {"headers": object{"set": object{"X-AppInstanceID": "me"}}},
		"claims.X-AppInstanceID":        {"claims": object{"X-AppInstanceID": "email"}},
		"default":                       {"default": "Deny"},
	} {
		t.Run(about, func(t *testing.T) {
			require.Contains(t, put(t, "/policies/x", body), about)
			require.Contains(t, put(t, "/routes/x", object{"paths": []any{"/x"}, "urls": []any{"http://192.0.2.1"}, "policy": body}), "policy."+about)
			p.GatewayManagement(t).Get(gatewayRoot + "/policies/x").Problem(404)
		})
	}
	m.Put(gatewayRoot+"/policies/x", `{"rules":[`).Problem(400)
	m.Put(gatewayRoot+"/policies/x", `[]`).Problem(400)
	m.Put(gatewayRoot+"/policies/x", `{"default":"deny","default":"allow"}`, harness.Header("Content-Type", "text/plain")).Problem(415)
	m.Put(gatewayRoot+"/policies/x?force=1", object{}).Problem(400)
	m.Patch(gatewayRoot+"/policies/x", object{}).Problem(405)
	for about, body := range map[string]object{
		"id":         {"id": "other", "paths": []any{"/x"}, "urls": []any{"http://192.0.2.1"}},
		"paths[0]":   {"paths": []any{"/mep/x"}, "urls": []any{"http://192.0.2.1"}},
		"paths[1]":   {"paths": []any{"/x", "/x/../y"}, "urls": []any{"http://192.0.2.1"}},
		"paths":      {"urls": []any{"http://192.0.2.1"}},
		"service":    {"paths": []any{"/x"}},
		"urls[0]":    {"paths": []any{"/x"}, "urls": []any{"gopher://192.0.2.1"}},
		"strip":      {"paths": []any{"/x"}, "urls": []any{"http://192.0.2.1"}, "strip": 100},
		"rewrite":    {"paths": []any{"/x/*"}, "urls": []any{"http://192.0.2.1"}, "rewrite": "/{2}"},
		"methods[0]": {"paths": []any{"/x"}, "urls": []any{"http://192.0.2.1"}, "methods": []any{"get"}},
		"hosts[0]":   {"paths": []any{"/x"}, "urls": []any{"http://192.0.2.1"}, "hosts": []any{"a.example:80"}},
		"path":       {"paths": []any{"/x"}, "path": "/y", "urls": []any{"http://192.0.2.1"}},
	} {
		t.Run("route "+about, func(t *testing.T) {
			require.Contains(t, put(t, "/routes/x", body), about)
			p.GatewayManagement(t).Get(gatewayRoot + "/routes/x").Problem(404)
		})
	}
}

func TestStaticRoutesLeadWhereTheySay(t *testing.T) {
	t.Parallel()
	producer, other := harness.NewProducer(t, "one", nil), harness.NewProducer(t, "two", nil)
	p := harness.Start(t)
	m, c := p.GatewayManagement(t), p.Gateway(t)
	newApp(p.Client(t)).register(served("hello", other.URL+"/svc"))
	one := []any{producer.URL}
	route(m, "members", object{"paths": []any{"/team/*/members", "/team/*/members/**"}, "methods": []any{"GET", "PUT"}, "urls": one, "strip": 1})
	route(m, "rewritten", object{"paths": []any{"/v1/*/of/*/**"}, "urls": []any{producer.URL + "/base"}, "rewrite": "/{2}/{1}/{rest}"})
	route(m, "hosted", object{"hosts": []any{"cam.example", "*.cam.example"}, "paths": []any{"/**"}, "urls": one, "keepHost": true})
	route(m, "service", object{"paths": []any{"/by-name/**"}, "service": "hello", "strip": 1})
	route(m, "special", object{"paths": []any{"/team/red/members"}, "headers": object{"X-Version": "2"}, "service": "hello"})
	reached(t, c, "/by-name/x")
	host := func(name string) harness.RequestOption {
		return func(r *http.Request) { r.Host = name }
	}
	for name, x := range map[string]struct {
		method, path string
		option       harness.RequestOption
		want         string
	}{
		"a star":                   {"GET", "/team/red/members?x=%20", nil, "one /red/members?x=%20"},
		"a rest":                   {"PUT", "/team/red/members/a%20b/c", nil, "one /red/members/a%20b/c?"},
		"of two segments":          {"GET", "/team/red/blue/members", nil, "404"},
		"another method":           {"DELETE", "/team/red/members", nil, "405"},
		"rewritten":                {"GET", "/v1/a%2Cb/of/c/d/e", nil, "one /base/c/a%2Cb/d/e?"},
		"rewritten without a rest": {"POST", "/v1/a/of/c", nil, "one /base/c/a?"},
		"a host":                   {"GET", "/any/thing", host("CAM.example:8443"), "one /any/thing?"},
		"a host below":             {"GET", "/services/hello/x", host("a.b.cam.example."), "one /services/hello/x?"},
		"the platform at the host": {"GET", "/mec_service_mgmt/v1/services", host("cam.example"), "one /mec_service_mgmt/v1/services?"},
		"another host":             {"GET", "/any/thing", host("xcam.example"), "404"},
		"a service":                {"GET", "/by-name/a/b", nil, "two /svc/a/b?"},
		"a header":                 {"GET", "/team/red/members", harness.Header("x-version", "2"), "two /svc/team/red/members?"},
		"another header":           {"GET", "/team/red/members", harness.Header("x-version", "1"), "one /red/members?"},
	} {
		t.Run(name, func(t *testing.T) {
			var options []harness.RequestOption
			if x.option != nil {
				options = append(options, x.option)
			}
			answer := p.Gateway(t).Do(x.method, x.path, nil, options...)
			got := fmt.Sprint(answer.Status)
			if answer.Status == 200 {
				s := answer.Seen()
				got = s.Producer + " " + s.Path + "?" + s.Query
			}
			require.Equal(t, x.want, got, "%s", answer.Body)
		})
	}
	notAllowed := c.Delete("/team/red/members")
	notAllowed.Problem(405)
	require.Equal(t, "GET, PUT", notAllowed.Header.Get("Allow"))
	require.Equal(t, "cam.example", c.Get("/x", host("cam.example")).Seen().Host)
	require.NotEqual(t, "gw.example", c.Get("/team/red/members", host("gw.example")).Seen().Host)

	list := m.Get(gatewayRoot + "/routes?kind=static").Is(200).Array()
	ids := []any{}
	for _, r := range list {
		ids = append(ids, r["id"])
	}
	require.Equal(t, []any{"hosted", "members", "rewritten", "service", "special"}, ids)
	m.Delete(gatewayRoot + "/routes/members").Is(204)
	c.Get("/team/blue/members").Problem(404)
	m.Get(gatewayRoot + "/routes/members").Problem(404)
	m.Delete(gatewayRoot + "/routes/platform.mp1").Problem(404)
	c.Get(services).Is(200)
}

func TestHeadersAreDealtWithAsThePolicySays(t *testing.T) {
	t.Parallel()
	producer := harness.NewProducer(t, "hello", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Server", "secret/1.0")
		w.Header().Set("X-Internal", "db7")
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(harness.Seen{Producer: "hello", Header: r.Header, Host: r.Host, Path: r.URL.Path})
	})
	p := harness.Start(t, harness.Secure(), toLoopback())
	m := p.GatewayManagement(t)
	a, keys := appOf(t, p)
	a.register(served("hello", producer.URL))
	token := keys.Fetch(p.Auth(t)).AccessToken
	c := p.Gateway(t).With(token)
	seen := reached(t, c, "/services/hello/", harness.Header("X-Forwarded-For", "192.0.2.66"), harness.Header("Forwarded", "for=192.0.2.66"),
		harness.Header("X-Real-IP", "192.0.2.66"), harness.Header("X-Request-Id", "mine-1"), harness.Header("Via", "1.0 fred"))
	require.Equal(t, []string{"127.0.0.1"}, seen.Names("X-Forwarded-For"), "who is no trusted proxy does not say where calls come from")
	require.Equal(t, []string{"127.0.0.1"}, seen.Names("X-Real-IP"))
	require.Equal(t, []string{"https"}, seen.Names("X-Forwarded-Proto"))
	require.Equal(t, []string{p.Addr("gateway")}, seen.Names("X-Forwarded-Host"))
	require.Equal(t, []string{fmt.Sprintf(`for=127.0.0.1;host="%s";proto=https`, p.Addr("gateway"))}, seen.Names("Forwarded"))
	require.Equal(t, []string{"mine-1"}, seen.Names("X-Request-Id"))
	require.Equal(t, []string{"1.0 fred, 2 mep"}, seen.Names("Via"))

	policy(m, "hello", object{
		"keepAuthorization": true, "claims": object{"X-Who": "sub", "X-None": "nothing"},
		"headers": object{
			"forwarded": false, "xForwarded": false, "via": false, "requestId": false, "set": object{"X-Edge": "7"}, "remove": []any{"cookie"},
			"setResponse": object{"X-Node": "n1"}, "removeResponse": []any{"server", "x-internal"},
		},
	})
	answer := c.Get("/services/hello/", harness.Header("Cookie", "a=b"), harness.Header("X-Edge", "8"), harness.Header("X-Who", "somebody"), harness.Header("X-None", "x"))
	seen = answer.Seen()
	for _, name := range []string{"Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "Via", "X-Request-Id", "Cookie", "X-None"} {
		require.Empty(t, seen.Names(name), name)
	}
	require.Equal(t, []string{"7"}, seen.Names("X-Edge"))
	require.Equal(t, []string{a.id}, seen.Names("X-Who"))
	require.Equal(t, []string{"Bearer " + token}, seen.Names("Authorization"))
	require.Equal(t, "n1", answer.Header.Get("X-Node"))
	require.Empty(t, answer.Header.Get("Server"))
	require.Empty(t, answer.Header.Get("X-Internal"))
	require.NotEmpty(t, answer.Header.Get("X-Request-Id"), "the client knows how to ask about its call")
}

func TestSomebodyElseDecides(t *testing.T) {
	t.Parallel()
	var away atomic.Bool
	var asked atomic.Int64
	decider := harness.NewProducer(t, "decider", func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		var q object
		if json.NewDecoder(r.Body).Decode(&q) != nil || away.Load() {
			w.WriteHeader(500)
			return
		}
		path, _ := q["path"].(string)
		switch path {
		case "/services/hello/pay":
			w.WriteHeader(402)
			_, _ = w.Write([]byte("pay first"))
		case "/services/hello/no":
			w.WriteHeader(403)
		default:
			w.Header().Set("X-Tier", fmt.Sprint(q["consumer"]))
			w.Header().Set("X-AppInstanceID", "forged")
			w.WriteHeader(204)
		}
	})
	producer := harness.NewProducer(t, "hello", nil)
	p := harness.Start(t)
	m, c := p.GatewayManagement(t), p.Gateway(t)
	newApp(p.Client(t)).register(served("hello", producer.URL))
	_, key := apiKey(m, "alice", nil)
	external := object{"url": decider.URL + "/ask", "return": []any{"X-Tier"}, "timeout": "2s"}
	policy(m, "hello", object{"externalAuth": external})
	seen := reached(t, c, "/services/hello/x", keyed(key), harness.Header("X-Tier", "gold"))
	require.Equal(t, []string{"alice"}, seen.Names("X-Tier"))
	require.Equal(t, []string{"alice"}, seen.Names("X-AppInstanceID"))
	answer := c.Get("/services/hello/pay").Is(402)
	require.Equal(t, "pay first", string(answer.Body))
	c.Get("/services/hello/no").Is(403)
	producer.Forget()
	away.Store(true)
	c.Get("/services/hello/x").Problem(503)
	require.Empty(t, producer.Seen())
	policy(m, "hello", object{"externalAuth": but(external, "failOpen", true)})
	c.Get("/services/hello/x").Seen()
	away.Store(false)
	policy(m, "hello", object{"externalAuth": but(external, "cache", "1m")})
	before := asked.Load()
	for range 5 {
		c.Get("/services/hello/x", keyed(key)).Seen()
	}
	require.EqualValues(t, 1, asked.Load()-before, "the decision is remembered")
	policy(m, "hello", object{"externalAuth": but(external, "url", p.URL("mp1")+"/mec_service_mgmt/v1/services")})
	c.Get("/services/hello/x").Problem(503) // the platform itself is not asked
}

func TestRulesDecideWhoMayCall(t *testing.T) {
	t.Parallel()
	producer := harness.NewProducer(t, "hello", nil)
	p := harness.Start(t, harness.Secure(), toLoopback())
	m := p.GatewayManagement(t)
	owner, _ := appOf(t, p)
	owner.register(served("hello", producer.URL))
	friend, friendKeys := appOf(t, p)
	_, strangerKeys := appOf(t, p)
	at := func(k harness.Keys) *harness.Client { return p.Gateway(t).With(k.Fetch(p.Auth(t)).AccessToken) }
	f, s := at(friendKeys), at(strangerKeys)
	policy(m, "hello", object{"default": "deny", "rules": []any{
		object{"effect": "deny", "paths": []any{"/admin/**"}},
		object{"effect": "allow", "consumers": []any{friend.id}, "methods": []any{"GET"}},
		object{"effect": "allow", "sources": []any{"127.0.0.9"}},
	}})
	f.Get("/services/hello/a").Seen()
	f.Post("/services/hello/a", nil).Problem(403)
	f.Get("/services/hello/admin/x").Problem(403)
	f.Get("/services/hello/%61dmin/x").Problem(403)
	f.Get("/services/hello/admin").Problem(403)
	s.Get("/services/hello/a").Problem(403)
	p.GatewayFrom(t, "127.0.0.9").With(strangerKeys.Fetch(p.Auth(t)).AccessToken).Get("/services/hello/a").Seen()
	s.Get("/services/hello/a", harness.Header("X-Forwarded-For", "127.0.0.9"), harness.Header("X-Real-IP", "127.0.0.9"), harness.Header("Forwarded", "for=127.0.0.9")).Problem(403)

	// Those of the platform's own routes count as well.
	policy(m, "platform.mp1", object{"rules": []any{object{"effect": "deny", "consumers": []any{strangerKeys.AppInstanceID}}}})
	f.Get(services).Is(200)
	s.Get(services).Problem(403)
	policy(m, "platform.auth", object{"rules": []any{object{"effect": "deny", "sources": []any{"127.0.0.9"}}}})
	p.GatewayFrom(t, "127.0.0.9").Post("/oauth2/token", harness.Form("grant_type", "client_credentials"), harness.AsForm(), friendKeys.Basic()).Problem(403)
	friendKeys.Fetch(p.AuthAtGateway(t))
}

// What is read can be written back without changing anything.
func TestAPolicyIsShownAsItWasGiven(t *testing.T) {
	t.Parallel()
	p := harness.Start(t)
	m := p.GatewayManagement(t)
	policy(m, "*", object{"maxBody": 5, "rules": []any{object{"effect": "deny", "methods": []any{"POST"}}}})
	given := object{"concurrent": 3}
	policy(m, "hello", given)
	same(t, given, m.Get(gatewayRoot + "/policies/hello").Is(200).Object()["policy"])
}

// Decision 14 and consumedLocalOnly.
func TestConsumersUseWhatTheyAreEntitledTo(t *testing.T) {
	t.Parallel()
	producer := harness.NewProducer(t, "hello", nil)
	p := harness.Start(t, harness.Secure(), toLoopback(), harness.Config("gateway: {localNetworks: [127.0.0.1/32]}\n"))
	m, c := p.GatewayManagement(t), p.Gateway(t)
	owner, ownerKeys := appOf(t, p)
	owner.register(served("far", producer.URL))
	local := owner.register(but(served("near", producer.URL), "consumedLocalOnly", true))
	owner.register(but(served("mixed", producer.URL+"/local"), "consumedLocalOnly", true))
	declaring := harness.Provision(p.Manager(t), object{"appInfo": object{"requiredServices": []any{"far"}}})
	d := c.With(declaring.Fetch(p.Auth(t)).AccessToken)
	d.Get("/services/far/").Seen()
	d.Get("/services/near/").Problem(403)
	d.Get("/instances/" + local.id + "/").Problem(403)
	c.With(ownerKeys.Fetch(p.Auth(t)).AccessToken).Get("/services/near/").Seen()

	_, key := apiKey(m, "partner", nil)
	away := p.GatewayFrom(t, "127.0.0.5")
	c.Get("/services/near/", keyed(key)).Seen()
	away.Get("/services/near/", keyed(key)).Problem(403)
	away.Get("/services/near/", keyed(key), harness.Header("X-Forwarded-For", "127.0.0.1")).Problem(403)
	away.Get("/services/far/", keyed(key)).Seen()
	other, _ := appOf(t, p)
	other.register(served("mixed", producer.URL+"/anywhere"))
	for range 10 {
		require.Equal(t, "/anywhere/", away.Get("/services/mixed/", keyed(key)).Seen().Path, "of several instances it gets those it may use")
	}
	paths := []string{}
	harness.Eventually(t, "both are used", func() error {
		if path := c.Get("/services/mixed/", keyed(key)).Seen().Path; !slices.Contains(paths, path) {
			paths = append(paths, path)
		}
		return harness.Not(len(paths) == 2, "%v", paths)
	})
	away.Get("/services/"+uuid.NewString()+"/", keyed(key)).Problem(404)
}
