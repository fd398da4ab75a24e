package blackbox

import (
	"crypto/tls"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/tests/harness"
)

// gatewayRoot is the path of the gateway's management.
const gatewayRoot = "/gateway/v1"

// served is the registration of a service that is reached by HTTP at some URLs, and that consumers of any locality may use.
func served(name string, urls ...string) object {
	uris := make([]any, len(urls))
	for i, u := range urls {
		uris[i] = u
	}
	return but(own(name), "consumedLocalOnly", false, "transportInfo", but(transport(), "endpoint", object{"uris": uris}))
}

// toLoopback lets a gateway call the producers of tests where it would not by itself.
func toLoopback() harness.Option { return harness.Args("--gateway-allow-loopback") }

// policy puts a policy, which has to work.
func policy(m *harness.Client, name string, body object) *harness.Answer {
	m.TB().Helper()
	answer := m.Put(gatewayRoot+"/policies/"+url.PathEscape(name), body)
	require.Contains(m.TB(), []int{200, 201}, answer.Status, "%s", answer.Body)
	require.NotContains(m.TB(), answer.Object(), "refused")
	return answer
}

// route puts a static route, which has to work.
func route(m *harness.Client, id string, body object) *harness.Answer {
	m.TB().Helper()
	answer := m.Put(gatewayRoot+"/routes/"+id, body)
	require.Contains(m.TB(), []int{200, 201}, answer.Status, "%s", answer.Body)
	require.NotContains(m.TB(), answer.Object(), "refused")
	return answer
}

// apiKey makes an API key and returns its id and the key.
func apiKey(m *harness.Client, consumer string, more object) (id, key string) {
	m.TB().Helper()
	body := object{"consumer": consumer}
	maps.Copy(body, more)
	made := m.Post(gatewayRoot+"/api_keys", body).Is(201).Object()
	return made["id"].(string), made["key"].(string)
}

// keyed sends an API key.
func keyed(key string) harness.RequestOption { return harness.Header("X-Api-Key", key) }

// reached waits until a path of the gateway is answered by a producer, and returns what that got.
func reached(t *testing.T, c *harness.Client, path string, options ...harness.RequestOption) harness.Seen {
	t.Helper()
	var answer *harness.Answer
	harness.Eventually(t, path+" leads to a producer", func() error {
		var err error
		if answer, err = c.Try("GET", path, nil, options...); err != nil {
			return err
		}
		return harness.Not(answer.Status == 200, "%d %s", answer.Status, answer.Body)
	})
	return answer.Seen()
}

// answered waits until a path of the gateway is answered with a status.
func answered(t *testing.T, c *harness.Client, status int, path string, options ...harness.RequestOption) *harness.Answer {
	t.Helper()
	var answer *harness.Answer
	harness.Eventually(t, fmt.Sprintf("%s is answered with %d", path, status), func() error {
		var err error
		if answer, err = c.Try("GET", path, nil, options...); err != nil {
			return err
		}
		return harness.Not(answer.Status == status, "%d %s", answer.Status, answer.Body)
	})
	return answer
}

// An EdgeGallery mep-agent knows one address, that of Kong, and finds everything below /mep there.
func TestAnAppNeedsTheAddressOfTheGatewayAlone(t *testing.T) {
	t.Parallel()
	producer := harness.NewProducer(t, "hello", nil)
	p := harness.Start(t, harness.Secure(), toLoopback())
	m := p.Manager(t)
	agent, consumer := harness.Provision(m, nil), harness.Provision(m, nil)

	var signed harness.Token
	signature{Keys: agent}.ask(p.AuthAtGateway(t)).Is(200).Into(&signed)
	a := app{Client: p.Mp1AtGateway(t).With(signed.AccessToken), id: agent.AppInstanceID, prefix: "/mep"}
	svc := a.register(but(served("hello", producer.URL+"/base"), "livenessInterval", 60))
	for _, link := range []string{"self", "liveness"} {
		href := svc.info["_links"].(object)[link].(object)["href"].(string)
		require.Equal(t, "/mep", harness.Path(t, href)[:4], "it is reached at the same address again: %s", href)
		a.Get(harness.Path(t, href)).Is(200)
	}
	a.beat(svc.id).Is(204)
	require.Equal(t, "ACTIVE", a.livenessInfo(svc.id).State)
	location := a.subscribe("http://192.0.2.1:1/notify", nil)
	a.Get(a.subscription(location)).Is(200)
	a.Get("/mep/mec_app_support/v1/timing/current_time").Is(200)
	a.Get("/mec_app_support/v1/timing/current_time").Is(200)

	// A consumer of another make: OAuth2.
	token := consumer.Fetch(p.AuthAtGateway(t))
	c := p.Gateway(t).With(token.AccessToken)
	other := app{Client: p.Mp1AtGateway(t).With(token.AccessToken), id: consumer.AppInstanceID}
	found := other.Get(services + "?ser_name=hello").Is(200).Array()
	require.Len(t, found, 1)
	for _, path := range []string{"/services/hello/a/b?x=1&y=%2F", "/instances/" + svc.id + "/a/b?x=1&y=%2F"} {
		seen := c.Post(path, "question", harness.Header("X-AppInstanceID", agent.AppInstanceID)).Seen()
		require.Equal(t, []string{"POST", "/base/a/b", "x=1&y=%2F", "question"}, []string{seen.Method, seen.Path, seen.Query, seen.Body})
		require.Equal(t, []string{consumer.AppInstanceID}, seen.Names("X-AppInstanceID"))
		require.Equal(t, []string{"mp1"}, seen.Names("X-Consumer-Scopes"))
		require.Empty(t, seen.Names("Authorization"), "the service cannot act as the consumer")
	}
	for name, options := range map[string][]harness.RequestOption{
		"nobody":              nil,
		"a token that is not": {harness.Header("Authorization", "Bearer "+token.AccessToken[:len(token.AccessToken)-4])},
		"a forged identity":   {harness.Header("X-AppInstanceID", agent.AppInstanceID)},
		"a key that is not":   {keyed("mepk_0123456789abcdef_0123456789abcdef0123456789abcdef")},
		"a token as a key":    {keyed(token.AccessToken)},
		"in the query": {func(r *http.Request) {
			r.URL.RawQuery = "access_token=" + token.AccessToken + "&jwt=" + token.AccessToken
		}},
	} {
		t.Run(name, func(t *testing.T) {
			producer.Forget()
			c := p.Gateway(t)
			refused := c.Get("/services/hello/a", options...)
			require.NotEmpty(t, refused.Problem(401).Detail)
			require.True(t, strings.HasPrefix(refused.Header.Get("WWW-Authenticate"), "Bearer realm="))
			c.Get("/services/nothing/a", options...).Problem(401) // what there is, is nobody's business either
			c.Get("/mep/mec_service_mgmt/v1/services", options...).Problem(401)
			require.Empty(t, producer.Seen())
		})
	}
	c.Get("/services/nothing/a").Problem(404)
	c.Get("/instances/" + uuid.NewString() + "/a").Problem(404)
	c.Get("/nowhere").Problem(404)
	c.Get(gatewayRoot + "/routes").Problem(404) // the management is not for apps
	p.UncheckedGatewayManagement(t).With(token.AccessToken).Get(gatewayRoot + "/routes").Problem(403)
	p.UncheckedGatewayManagement(t).Get(gatewayRoot + "/routes").Problem(401)

	a.Patch(a.liveness(svc.id), object{"state": "ACTIVE"}).Is(204)
	a.remove(svc.id)
	c.Get("/services/hello/a").Problem(404)
	c.Get("/instances/" + svc.id + "/a").Problem(404)
}

func TestAnAPIKeyIsForItsConsumer(t *testing.T) {
	t.Parallel()
	producer := harness.NewProducer(t, "hello", nil)
	p := harness.Start(t, harness.Secure(), toLoopback())
	m, c := p.GatewayManagement(t), p.Gateway(t)
	a, keys := appOf(t, p)
	a.register(served("hello", producer.URL))
	a.register(served("other", producer.URL))

	made := m.Post(gatewayRoot+"/api_keys", object{"consumer": "camera-7", "description": "in the hall", "services": []any{"hello"}}).Is(201)
	key := made.Object()["key"].(string)
	require.Equal(t, "no-store", made.Header.Get("Cache-Control"))
	id := made.Object()["id"].(string)
	for _, path := range []string{gatewayRoot + "/api_keys", gatewayRoot + "/api_keys?consumer=camera-7", gatewayRoot + "/api_keys/" + id} {
		answer := m.Get(path).Is(200)
		require.Contains(t, string(answer.Body), id)
		require.NotContains(t, string(answer.Body), key, "it is shown once")
	}
	seen := c.Get("/services/hello/x?a=%41&b", keyed(key)).Seen()
	require.Equal(t, []string{"camera-7"}, seen.Names("X-AppInstanceID"))
	require.Empty(t, seen.Names("X-Api-Key"), "the service does not get it")
	require.Equal(t, "a=%41&b", seen.Query)
	seen = c.Get("/services/hello/x?a=%41&x-api-key=" + key + "&b").Seen()
	require.Equal(t, []string{"camera-7"}, seen.Names("X-AppInstanceID"))
	require.Equal(t, "a=%41&b", seen.Query, "nor in the query, of which the rest is as it was")
	require.Empty(t, c.Get("/services/hello/x?x%2Dapi%2Dkey="+key).Seen().Query)

	c.Get("/services/other/x", keyed(key)).Problem(403)
	c.Get("/services/hello/x", keyed(key+"0")).Problem(401)
	c.Get("/services/hello/x", keyed(strings.ToUpper(key))).Problem(401)
	c.Get("/services/hello/x", keyed(id)).Problem(401)
	c.Get("/services/hello/x?x-api-key="+key, keyed(key)).Problem(400)
	c.Get("/services/hello/x", harness.Headers("X-Api-Key", key, key)).Problem(400)
	c.Get("/services/hello/x", keyed(key), harness.Header("Authorization", "Bearer "+keys.Fetch(p.Auth(t)).AccessToken)).Problem(401)
	c.Get("/mep/mec_service_mgmt/v1/services", keyed(key)).Problem(401) // Mp1 is for app instances with tokens
	p.UncheckedGatewayManagement(t).Get(gatewayRoot+"/routes", keyed(key)).Problem(401)

	_, another := apiKey(m, "camera-7", nil)
	c.Get("/services/other/x", keyed(another)).Seen()
	m.Delete(gatewayRoot + "/api_keys/" + id).Is(204)
	c.Get("/services/hello/x", keyed(key)).Problem(401) // at once
	c.Get("/services/hello/x", keyed(another)).Seen()
	m.Delete(gatewayRoot + "/api_keys/" + id).Problem(404)
	_, brief := apiKey(m, "camera-8", object{"lifetime": "1s"})
	answered(t, c, 401, "/services/hello/x", keyed(brief))

	for name, body := range map[string]object{
		"nobody":          {},
		"a misspelling":   {"consumer": "x", "servics": []any{"hello"}},
		"a bad name":      {"consumer": "a b"},
		"a bad lifetime":  {"consumer": "x", "lifetime": "never"},
		"no lifetime":     {"consumer": "x", "lifetime": "0s"},
		"a negative one":  {"consumer": "x", "lifetime": "-1h"},
		"a bad scope":     {"consumer": "x", "scopes": []any{"a b"}},
		"a bad character": {"consumer": "x\n", "description": "x"},
	} {
		t.Run(name, func(t *testing.T) {
			require.NotEmpty(t, p.GatewayManagement(t).Post(gatewayRoot+"/api_keys", body).Problem(400).InvalidParams)
		})
	}
	// It is hashed where it is kept, and survives a restart.
	require.Empty(t, holding(t, p.DataDir, another))
	require.NotContains(t, p.Log(), another)
	p.Kill()
	p.Restart()
	c.Get("/services/other/x", keyed(another)).Seen()
}

func TestAnAPIKeyOfAnAppReachesNoFurtherThanTheApp(t *testing.T) {
	t.Parallel()
	producer := harness.NewProducer(t, "hello", nil)
	p := harness.Start(t, harness.Secure(), toLoopback())
	m, c := p.GatewayManagement(t), p.Gateway(t)
	a, _ := appOf(t, p)
	a.register(served("hello", producer.URL))
	a.register(served("other", producer.URL))
	keys := harness.Provision(p.Manager(t), object{"appInfo": object{"requiredServices": []any{"hello"}}})
	_, key := apiKey(m, strings.ToUpper(keys.AppInstanceID), nil)
	require.Equal(t, []string{keys.AppInstanceID}, c.Get("/services/hello/", keyed(key)).Seen().Names("X-AppInstanceID"))
	c.Get("/services/other/", keyed(key)).Problem(403)
	token := keys.Fetch(p.Auth(t)).AccessToken
	c.With(token).Get("/services/hello/").Seen()
	c.With(token).Get("/services/other/").Problem(403)
	c.With(token).Get("/services/hello/", keyed(key)).Seen()
	harness.Eventually(t, "the key ends with the app", func() error {
		answer, err := p.MEPM(t).Try("DELETE", "/mep/appMng/v1/applications/"+keys.AppInstanceID+"/confs", nil)
		if err != nil {
			return err
		}
		return harness.Not(answer.Status < 300 || answer.Status == 404, "%d %s", answer.Status, answer.Body)
	})
}

func TestAClientCertificateSaysWhoCallsThroughTheGateway(t *testing.T) {
	t.Parallel()
	ca, stranger := newAuthority(t, "apps"), newAuthority(t, "strangers")
	producer := harness.NewProducer(t, "hello", nil)
	p := harness.Start(t, harness.Secure(), toLoopback(), harness.Config(fmt.Sprintf(`
tls:
  clientCAs: [%s]
auth:
  clientCertificates:
  - uri: spiffe://mep.example/app/{caller}
    scopes: [mp1]
  - uri: spiffe://mep.example/thing/{caller}
    scopes: [ops]
`, ca.file)))
	m := p.GatewayManagement(t)
	a, _ := appOf(t, p)
	b, keys := appOf(t, p)
	a.register(served("hello", producer.URL))
	at := func(ca *authority, uri string) *harness.Client {
		return p.WithCertificate(t, "gateway", ca.pair(t, "client", named(t, uri)).load(t))
	}
	mine := at(ca, "spiffe://mep.example/app/"+b.id)
	seen := mine.Get("/services/hello/").Seen()
	require.Equal(t, []string{b.id}, seen.Names("X-AppInstanceID"))
	mine.Get(services).Is(200) // Mp1 knows it as well
	at(ca, "spiffe://mep.example/other/"+b.id).Get("/services/hello/").Problem(401)
	at(ca, "spiffe://mep.example/thing/t1").Get("/services/hello/").Problem(403) // it lacks the scope mp1
	if answer, err := at(stranger, "spiffe://mep.example/app/"+b.id).Try("GET", "/services/hello/", nil); err == nil {
		answer.Problem(401) // or the handshake fails
	}
	_, err := p.WithCertificate(t, "gateway", tls.Certificate{}).Try("GET", "/services/hello/", nil)
	require.NoError(t, err, "a certificate is not required")

	policy(m, "hello", object{"authentication": []any{"token"}})
	mine.Get("/services/hello/").Problem(401)
	mine.With(keys.Fetch(p.Auth(t)).AccessToken).Get("/services/hello/").Seen()
	policy(m, "hello", object{"authentication": []any{"certificate"}, "scopes": []any{"ops"}, "rules": []any{object{"effect": "allow", "consumers": []any{"t1"}}}})
	mine.Get("/services/hello/").Problem(403)
	require.Equal(t, []string{"t1"}, at(ca, "spiffe://mep.example/thing/t1").Get("/services/hello/").Seen().Names("X-AppInstanceID"))
	p.Gateway(t).With(keys.Fetch(p.Auth(t)).AccessToken).Get("/services/hello/").Problem(401)
}
