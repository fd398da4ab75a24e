package blackbox

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/api/gateway"
	"github.com/openmep/mep/api/state"
	"github.com/openmep/mep/kit/etcdtest"
	"github.com/openmep/mep/tests/harness"
)

func TestTheGatewayWorksWhileEtcdIsAwayAndStartsWithoutIt(t *testing.T) {
	t.Parallel()
	etcd := etcdtest.Start(t)
	server := harness.StartMepserver(t, etcd.Endpoint())
	producer := harness.NewProducer(t, "hello", nil)
	a := newApp(server.Client(t))
	a.register(served("hello", producer.URL))
	a.register(served("strict", producer.URL))
	a.register(served("lax", producer.URL))
	g := harness.StartGateway(t, etcd.Endpoint(), harness.Args("--etcd-timeout=500ms"))
	m, c := g.GatewayManagement(t), g.Gateway(t)
	_, key := apiKey(m, "c", nil)
	route(m, "static", object{"paths": []any{"/static/**"}, "urls": []any{producer.URL}})
	policy(m, "strict", object{"quotas": []any{object{"calls": 200, "per": "month"}}})
	policy(m, "lax", object{"quotas": []any{object{"calls": 200, "per": "month"}}, "whenStoreAway": "allow"})
	reached(t, c, "/services/strict/", keyed(key))
	reached(t, c, "/services/lax/", keyed(key))
	harness.Eventually(t, "a snapshot is kept", func() error {
		return harness.Not(len(holding(t, g.DataDir, "static")) > 0, "there is none")
	})

	etcd.Stop()
	still := func() {
		t.Helper()
		require.Equal(t, "c", c.Get("/services/hello/", keyed(key)).Seen().Names("X-AppInstanceID")[0])
		c.Get("/static/x").Seen()
		c.Get("/services/nothing/").Problem(404)
	}
	still()
	harness.Eventually(t, "it says that it is out of date", func() error {
		return harness.Not(m.Get(gatewayRoot + "/status").Is(200).Object()["stale"] == true, "it does not")
	})
	harness.Eventually(t, "what it held of the quota is used up", func() error {
		answer := c.Get("/services/strict/", keyed(key))
		if answer.Status == 200 {
			return harness.Not(false, "it is not")
		}
		require.NotEmpty(t, answer.Problem(503).Detail)
		require.NotEmpty(t, answer.Header.Get("Retry-After"))
		return nil
	})
	require.Less(t, len(producer.Seen()), 200)
	for range 120 {
		c.Get("/services/lax/", keyed(key)).Seen()
	}
	m.Put(gatewayRoot+"/policies/hello", object{}).Problem(503)
	status, r, err := g.Ready()
	require.NoError(t, err)
	require.Equal(t, 200, status)
	require.NotEmpty(t, r.Degraded)

	g.Kill()
	g.Restart()
	still()
	c.Get("/services/strict/", keyed(key)).Problem(503)
	c.Get("/services/lax/", keyed(key)).Seen()

	etcd.StartAgain(t)
	harness.EventuallyWithin(t, 2*harness.Patience, "what changed meanwhile is known", func() error {
		answer, err := c.Try("GET", "/services/strict/", nil, keyed(key))
		if err != nil {
			return err
		}
		return harness.Not(answer.Status != 503, "%d %s", answer.Status, answer.Body)
	})
	a.register(served("new", producer.URL))
	reached(t, c, "/services/new/")
}

func TestAllDaemonsTogetherAreOneAddress(t *testing.T) {
	t.Parallel()
	etcd := etcdtest.Start(t)
	ca := newAuthority(t, "operator")
	cert := ca.pair(t, "platform", nil)
	tls := harness.Args("--tls-cert", cert.cert, "--tls-key", cert.key)
	auth := harness.StartMepauth(t, etcd.Endpoint(), harness.Secure(), harness.Trust(ca.file), tls, generous())
	server := harness.StartMepserver(t, etcd.Endpoint(), harness.Secure(), harness.Trust(ca.file), tls)
	g := harness.StartGateway(t, etcd.Endpoint(), harness.Secure(), harness.Trust(ca.file), tls, toLoopback(),
		harness.Args("--gateway-mp1-urls", server.URL("mp1"), "--gateway-auth-urls", auth.URL("auth")),
		harness.Config("gateway: {platformCa: "+ca.file+"}\n"))
	producer := harness.NewProducer(t, "hello", nil)
	keys := harness.Provision(auth.Manager(t), nil)
	consumer := harness.Provision(auth.Manager(t), nil)

	token := consumer.Fetch(g.AuthAtGateway(t))
	var signed harness.Token
	signature{Keys: keys}.ask(g.AuthAtGateway(t)).Is(200).Into(&signed)
	g.AuthAtGateway(t).Get("/.well-known/jwks.json").Is(200)
	a := app{Client: g.Mp1AtGateway(t).With(signed.AccessToken), id: keys.AppInstanceID, prefix: "/mep"}
	svc := a.register(but(served("hello", producer.URL), "livenessInterval", 60))
	a.beat(svc.id).Is(204)
	c := g.Gateway(t).With(token.AccessToken)
	require.Equal(t, []string{consumer.AppInstanceID}, reached(t, c, "/services/hello/").Names("X-AppInstanceID"))
	g.Mp1AtGateway(t).Get(services, harness.Header("X-AppInstanceID", keys.AppInstanceID)).Problem(401)
	a.remove(svc.id)
	answered(t, c, 404, "/services/hello/")

	server.Stop()
	c.Get(services).Problem(502)
	server.Restart(harness.Args("--mp1-listen", server.Addr("mp1")))
	harness.Eventually(t, "Mp1 is back", func() error {
		answer, err := c.Try("GET", services, nil)
		if err != nil {
			return err
		}
		return harness.Not(answer.Status == 200, "%d", answer.Status)
	})
}

// S-5: everybody comes through the gateway, and nobody is to pay for what another one does there.
func TestWhoGuessesKeysThroughTheGatewayLocksOutNobodyElse(t *testing.T) {
	t.Parallel()
	etcd := etcdtest.Start(t)
	ca := newAuthority(t, "operator")
	cert := ca.pair(t, "platform", nil)
	tls := harness.Args("--tls-cert", cert.cert, "--tls-key", cert.key)
	auth := harness.StartMepauth(t, etcd.Endpoint(), harness.Secure(), harness.Trust(ca.file), tls, generous(), harness.Args("--proxies=127.0.0.1/32"))
	g := harness.StartGateway(t, etcd.Endpoint(), harness.Secure(), harness.Trust(ca.file), tls,
		harness.Config("gateway: {platformCa: "+ca.file+", authUrls: [\""+auth.URL("auth")+"\"]}\n"))
	together := harness.Start(t, harness.Secure(), generous())
	for name, x := range map[string]struct{ auth, gateway *harness.Process }{"as daemons": {auth, g}, "in one process": {together, together}} {
		t.Run(name, func(t *testing.T) {
			keys := harness.Provision(x.auth.Manager(t), nil)
			ask := func(address string, k harness.Keys) *harness.Answer {
				return x.gateway.GatewayFrom(t, address).Post("/oauth2/token", harness.Form("grant_type", "client_credentials"), harness.AsForm(), k.Basic(),
					harness.Header("X-Forwarded-For", "127.0.0.5"), harness.Header("X-Real-IP", "127.0.0.5"), harness.Header("Forwarded", "for=127.0.0.5"))
			}
			ask("127.0.0.5", keys).Is(200)
			guess := keys
			guess.SecretKey = characters(64)
			for range 3 {
				ask("127.0.0.66", guess).Is(401)
			}
			require.NotEqual(t, 200, ask("127.0.0.66", keys).Status, "whoever guesses is locked out")
			ask("127.0.0.5", keys).Is(200)
		})
	}
}

func TestADefinitionThatCannotBeUsedIsRefusedAlone(t *testing.T) {
	t.Parallel()
	etcd := etcdtest.Start(t)
	producer := harness.NewProducer(t, "hello", nil)
	g := harness.StartGateway(t, etcd.Endpoint())
	m, c := g.GatewayManagement(t), g.Gateway(t)
	good := gateway.Route{Paths: []string{"/a/**"}, URLs: []string{producer.URL}}
	put := func(key string, text string, err error) {
		t.Helper()
		require.NoError(t, err)
		_, err = etcd.Client(t).Put(t.Context(), key, text)
		require.NoError(t, err)
	}
	putRoute := func(id string, r gateway.Route) {
		t.Helper()
		text, err := state.Encode(state.GatewayRoute{Version: state.Version{V: 1}, Route: r})
		put(state.GatewayRouteKey(id), text, err)
	}
	putRoute("a", good)
	reached(t, c, "/a/x")
	bad := good
	bad.Rewrite = "/{7}"
	putRoute("a", bad)
	putRoute("b", gateway.Route{Paths: []string{"/b/**"}, URLs: []string{producer.URL}})
	put(state.GatewayRouteKey("c"), "{", nil)
	reached(t, c, "/b/x")
	c.Get("/a/x").Seen() // as before
	refused := fmt.Sprint(m.Get(gatewayRoot + "/status").Is(200).Object()["refused"])
	require.Contains(t, refused, "route")
	view := m.Get(gatewayRoot + "/routes/a").Is(200).Object()
	require.Contains(t, view["refused"], "rewrite")
	_, r, err := g.Ready()
	require.NoError(t, err)
	require.True(t, r.IsDegraded("gateway"), "%+v", r)
	// A policy that nobody can read must not let callers in who would have been refused.
	policy(m, "hello", object{"default": "deny"})
	newApp(harness.StartMepserver(t, etcd.Endpoint()).Client(t)).register(served("hello", producer.URL))
	answered(t, c, 403, "/services/hello/")
	text, err := state.Encode(state.GatewayPolicy{Version: state.Version{V: 1}, Name: "hello", Policy: gateway.Policy{Default: "maybe"}})
	put(state.GatewayPolicyKey("hello"), text, err)
	putRoute("a", good)
	harness.Eventually(t, "the route is in order again", func() error {
		view := m.Get(gatewayRoot + "/routes/a").Is(200).Object()
		return harness.Not(view["refused"] == nil, "%v", view["refused"])
	})
	c.Get("/services/hello/").Problem(403)
	g.Kill()
	g.Restart() // there is nothing before it any more
	answered(t, c, 503, "/services/hello/")
	route(m, "a", object{"paths": []any{"/a/**"}, "urls": []any{producer.URL + "/new"}})
	require.Equal(t, "/new/a/x", c.Get("/a/x").Seen().Path)
}

func TestStatisticsSurviveWhatHappensToTheGateway(t *testing.T) {
	t.Parallel()
	etcd := etcdtest.Start(t)
	server := harness.StartMepserver(t, etcd.Endpoint())
	producer := harness.NewProducer(t, "hello", nil)
	newApp(server.Client(t)).register(served("hello", producer.URL))
	g := harness.StartGateway(t, etcd.Endpoint())
	other := harness.StartGateway(t, etcd.Endpoint())
	m := other.GatewayManagement(t)
	_, key := apiKey(m, "c", nil)
	calls := func() (n, refused int) {
		answer := m.Get(gatewayRoot + "/statistics?service=hello&consumer=c&resolution=hour").Is(200)
		var s gateway.Statistics
		answer.Into(&s)
		for _, series := range s.Series {
			require.Equal(t, []string{"hello", "c"}, []string{series.Service, series.Consumer})
			for _, p := range series.Points {
				n += int(p.Calls)
				refused += int(p.Refused)
			}
		}
		return n, refused
	}
	reached(t, g.Gateway(t), "/services/hello/", keyed(key))
	for range 9 {
		g.Gateway(t).Get("/services/hello/", keyed(key)).Seen()
	}
	policy(g.GatewayManagement(t), "hello", object{"rules": []any{object{"effect": "deny", "methods": []any{"DELETE"}}}})
	for range 3 {
		g.Gateway(t).Delete("/services/hello/", keyed(key)).Problem(403)
	}
	g.Stop() // what was counted is written
	harness.Eventually(t, "the other one knows of all calls", func() error {
		n, refused := calls()
		return harness.Not(n >= 13 && refused >= 3, "%d, %d", n, refused)
	})
	g.Restart()
	before, _ := calls()
	// With kill -9, what was counted within the last 10 s may be missing, and nothing is counted twice.
	var made atomic.Int64
	stop := make(chan struct{})
	var busy sync.WaitGroup
	busy.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			if answer, err := g.Gateway(t).Try(http.MethodGet, "/services/hello/", nil, keyed(key)); err == nil && answer.Status == 200 {
				made.Add(1)
			}
			time.Sleep(2 * time.Millisecond)
		}
	})
	harness.Eventually(t, "there are calls", func() error { return harness.Not(made.Load() > 20, "%d", made.Load()) })
	known := int(made.Load())
	harness.Eventually(t, "they are written", func() error { n, _ := calls(); return harness.Not(n-before >= known, "%d, %d", n, known) })
	g.Kill()
	close(stop)
	busy.Wait()
	n, _ := calls()
	require.GreaterOrEqual(t, n-before, known)
	require.LessOrEqual(t, n-before, int(made.Load())+1)
}

func TestWhatTheManagementAnsweredSurvivesKills(t *testing.T) {
	t.Parallel()
	producer := harness.NewProducer(t, "hello", nil)
	p := harness.Start(t)
	acknowledged, keys := make(map[string]bool), make(map[string]string)
	for kill := range 3 {
		m := p.UncheckedGatewayManagement(t)
		var writer sync.WaitGroup
		enough := make(chan struct{})
		writer.Go(func() {
			for i := 0; ; i++ {
				id := fmt.Sprintf("r%d-%d", kill, i)
				made, err := m.Try("PUT", gatewayRoot+"/routes/"+id, object{"paths": []any{"/" + id}, "urls": []any{producer.URL}})
				if err != nil || made.Status != 201 {
					return
				}
				acknowledged[id] = true
				key, err := m.Try("POST", gatewayRoot+"/api_keys", object{"consumer": id})
				if err != nil || key.Status != 201 {
					return
				}
				keys[id] = key.Object()["key"].(string)
				if i == 20 {
					close(enough)
				}
			}
		})
		<-enough
		p.Kill()
		writer.Wait()
		p.Restart()
	}
	c := p.Gateway(t)
	require.Greater(t, len(acknowledged), 60)
	for id := range acknowledged {
		options := []harness.RequestOption{}
		want := []string(nil)
		if key := keys[id]; key != "" {
			options, want = append(options, keyed(key)), []string{id}
		}
		require.Equal(t, want, c.Get("/"+id, options...).Seen().Names("X-AppInstanceID"))
	}
}

func TestConsumersAreShownTheGateway(t *testing.T) {
	t.Parallel()
	producer := harness.NewProducer(t, "hello", nil)
	p := harness.Start(t, harness.Secure(), toLoopback(), harness.Args("--gateway-advertise", "--gateway-public-url=https://edge.example/"))
	a, _ := appOf(t, p)
	consumer, keys := appOf(t, p)
	svc := a.register(served("hello", producer.URL+"/base"))
	uris := func(c app) []any {
		info := c.Get(services + "/" + svc.id).Is(200).Object()
		return info["transportInfo"].(object)["endpoint"].(object)["uris"].([]any)
	}
	require.Equal(t, []any{producer.URL + "/base"}, uris(a), "the producer sees its own")
	shown := uris(consumer)
	require.Len(t, shown, 1)
	target, _ := shown[0].(string)
	path, ok := strings.CutPrefix(target, "https://edge.example/instances/"+svc.id)
	require.True(t, ok, target)
	seen := p.Gateway(t).With(keys.Fetch(p.Auth(t)).AccessToken).Get("/instances/" + svc.id + path + "/x").Seen()
	require.Equal(t, "/base/x", seen.Path)
	require.Equal(t, []string{consumer.id}, seen.Names("X-AppInstanceID"))
}
