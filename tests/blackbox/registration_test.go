package blackbox

import (
	"slices"
	"strings"
	"testing"

	"github.com/golang-jwt/jwt/v5"
	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/tests/harness"
)

// fullRegistration is one with every member that an app which MEC management did not start may have.
func fullRegistration(id string) object {
	return object{
		"appName": "camera", "appProvider": "acme", "appCategory": object{"href": "/c", "id": "c", "name": "n", "version": "1"},
		"appDId": "d-1", "appInstanceId": id, "endpoint": object{"addresses": []any{object{"host": "10.0.0.1", "port": 80}}},
		"appServiceRequired": []any{object{"serName": "rni", "version": "2", "serTransportDependencies": []any{dependency("REST_HTTP", "HTTP", "a")}}},
		"appServiceOptional": []any{object{"serName": "loc", "version": "2"}}, "appFeatureRequired": []any{object{"featureName": "f", "version": "1"}},
		"appFeatureOptional": []any{object{"featureName": "g", "version": "1"}}, "appProfile": object{"easId": "x", "anything": []any{1, nil, "y"}},
	}
}

func managed(id string) object {
	return object{"appName": "x", "appInstanceId": id, "appDId": "d-1", "isInsByMec": true}
}

func TestAnAppRegistersItself(t *testing.T) {
	t.Parallel()
	p := harness.Start(t)
	for name, info := range map[string]func(id string) object{"everything": fullRegistration, "the least": registration, "started by MEC management": managed} {
		t.Run(name, func(t *testing.T) {
			a := newApp(p.Client(t))
			a.Get(a.registration()).Problem(404)
			posted := a.Post(a.registrations(), info(a.id)).Is(201)
			same(t, info(a.id), posted.Object())
			require.Equal(t, p.URL("mp1")+a.registration(), posted.Header.Get("Location"))
			got := a.Get(a.registration()).Is(200)
			same(t, info(a.id), got.Object())
			require.Equal(t, posted.ETag(), got.ETag())
			require.Contains(t, a.Post(a.registrations(), info(a.id)).Problem(409).Detail, a.id)

			put := a.Put(a.registration(), but(info(a.id), "appName", "renamed", "appInstanceId", nil, "isInsByMec", nil, "endpoint", object{"fqdn": []any{"a.example"}})).Is(204)
			require.Empty(t, put.Body)
			require.Equal(t, put.ETag(), a.Get(a.registration()).ETag())
			require.Equal(t, "renamed", a.Get(a.registration()).Object()["appName"])
			require.Equal(t, a.id, a.Get(a.registration()).Object()["appInstanceId"])
			a.Put(a.registration(), registration(a.id)).Is(204)
			same(t, registration(a.id), a.Get(a.registration()).Object(), "a replacement keeps nothing of what was")
			p.Kill()
			p.Restart()
			same(t, registration(a.id), a.Get(a.registration()).Is(200).Object())
			require.Empty(t, a.Delete(a.registration()).Is(204).Body)
			a.Get(a.registration()).Problem(404)
			a.Delete(a.registration()).Problem(404)
			a.Put(a.registration(), registration(a.id)).Problem(404)
			a.Post(a.registrations(), info(a.id)).Is(201)
		})
	}
	t.Run("the platform gives it an id", func(t *testing.T) {
		c := p.Client(t)
		info := c.Post(supportRoot+"/registrations", without(registration(""), "appInstanceId")).Is(201)
		id := info.Object()["appInstanceId"].(string)
		require.NoError(t, uuid.Validate(id))
		require.True(t, strings.HasSuffix(info.Header.Get("Location"), "/registrations/"+id))
		a := app{Client: c, id: id}
		a.register(own("x"))
		a.mind("http://10.0.0.1/")
		require.Empty(t, a.states(), "it is an app instance with empty sets of rules")
	})
	t.Run("in upper case it is the same", func(t *testing.T) {
		a := newApp(p.Client(t))
		a.Post(a.registrations(), registration(strings.ToUpper(a.id))).Is(201)
		require.Equal(t, a.id, a.Get(a.registration()).Is(200).Object()["appInstanceId"])
		a.Get(strings.Replace(a.registration(), a.id, strings.ToUpper(a.id), 1)).Is(200)
	})
}

func TestRegistrationsThatAreRefused(t *testing.T) {
	t.Parallel()
	p := harness.Start(t)
	a := newApp(p.Client(t))
	good := fullRegistration(a.id)
	for name, x := range map[string]struct {
		info  object
		about string
	}{
		"no name":                        {but(good, "appName", nil), "appName"},
		"an empty name":                  {but(good, "appName", ""), "appName"},
		"a name that is long":            {but(good, "appName", strings.Repeat("a", 300)), "appName"},
		"no end point":                   {without(good, "endpoint"), "endpoint"},
		"no end point, said so":          {but(without(good, "endpoint"), "isInsByMec", false), "endpoint"},
		"only name and id":               {object{"appName": "x", "appInstanceId": a.id}, "endpoint"},
		"an end point of two kinds":      {but(good, "endpoint", object{"uris": []any{"http://10.0.0.1/"}, "fqdn": []any{"a.example"}}), "endpoint"},
		"an end point of none":           {but(good, "endpoint", object{}), "endpoint"},
		"an end point that is none":      {but(good, "endpoint.addresses[0].port", 70000), "endpoint.addresses[0].port"},
		"managed, without descriptor":    {without(managed(a.id), "appDId"), "appDId"},
		"managed, without id":            {without(managed(a.id), "appInstanceId"), "appInstanceId"},
		"managed, and says what it does": {but(managed(a.id), "appServiceRequired", good["appServiceRequired"]), "appServiceRequired"},
		"managed, and names features":    {but(managed(a.id), "appFeatureOptional", good["appFeatureOptional"]), "appFeatureOptional"},
		"a service without a name":       {but(good, "appServiceRequired[0].serName", nil), "appServiceRequired[0].serName"},
		"a feature without a version":    {but(good, "appFeatureRequired[0].version", nil), "appFeatureRequired[0].version"},
		"half a category":                {but(good, "appCategory.id", nil), "appCategory.id"},
		"an id that is no UUID":          {but(good, "appInstanceId", "mine"), "appInstanceId"},
		"isInsByMec is text":             {but(good, "isInsByMec", "true"), "isInsByMec"},
		"a profile that is large":        {but(good, "appProfile", strings.Repeat("x", 20_000)), "appProfile"},
	} {
		require.Contains(t, a.Post(a.registrations(), x.info).Problem(400).Names(), x.about, name)
	}
	a.Get(a.registration()).Problem(404)
	require.Empty(t, mepmOf(t, p).state(a.id), "what was refused made nothing known")
	a.Post(a.registrations(), good).Is(201)
	for name, x := range map[string]struct {
		info  object
		about string
	}{
		"another id":   {fullRegistration(uuid.NewString()), "appInstanceId"},
		"no end point": {without(good, "endpoint"), "endpoint"},
		"no name":      {but(good, "appName", nil), "appName"},
	} {
		require.Contains(t, a.Put(a.registration(), x.info).Problem(400).Names(), x.about, name)
	}
	same(t, good, a.Get(a.registration()).Object())
}

// Decision 8: in operation an app instance is known once it has credentials, a configuration, or a registration.
func TestWhoIsKnown(t *testing.T) {
	t.Parallel()
	p := harness.Start(t, harness.Secure(), generous())
	m := mepmOf(t, p)
	a, keys := appOf(t, p)
	require.Equal(t, "NOT_CONFIGURED", m.state(a.id))
	require.Empty(t, a.states())
	registered := a.Post(a.registrations(), without(registration(""), "appInstanceId")).Is(201)
	require.Equal(t, a.id, registered.Object()["appInstanceId"], "an app registers itself and nobody else")
	a.register(own("x"))
	m.done(m.configure(a.id, configuration("x", 1, 1)))
	a.Delete(a.registration()).Is(204)
	require.Equal(t, "CONFIGURED", m.state(a.id), "it is known for more than its registration")
	require.Len(t, a.Get(a.services()).Is(200).Array(), 1)
	m.done(m.unconfigure(a.id))
	require.Equal(t, "NOT_CONFIGURED", m.state(a.id))
	keys.Ask(p.Auth(t)).Is(200)

	// One that was configured before it got credentials is one and the same.
	id := uuid.NewString()
	m.done(m.configure(id, configuration("y", 1, 1)))
	later := harness.ProvisionAs(p.Manager(t), id, nil)
	b := app{Client: p.Client(t).With(later.Fetch(p.Auth(t)).AccessToken), id: id}
	b.isReady()
	require.Equal(t, map[string]string{"t1": "ACTIVE", "d1": "ACTIVE"}, b.states())
	require.Len(t, m.Get(instances).Array(), 2)
	p.Manager(t).Delete(harness.ConfsPath(id)).Is(200)
	require.Equal(t, "STARTED", m.state(id), "it is known for its configuration")
	unauthenticated(t, b.Get(b.trafficRules()), "invalid_token")
}

// An app that is known only for its registration ends with it, in the same order as any other.
func TestTheEndOfARegistrationIsTheEndOfAnAppThatHasNothingElse(t *testing.T) {
	t.Parallel()
	i := newIssuer(t)
	p := harness.Start(t, harness.Secure(), generous(), i.trusting(t, "callbacks: {allowLoopback: true}\n"))
	m, cb := mepmOf(t, p), harness.NewSubscriber(t)
	consumer, _ := appOf(t, p)
	consumer.subscribe(cb.URL("/cb"), nil)
	id := uuid.NewString() // another issuer vouches for it
	a := app{Client: p.Client(t).With(i.sign(t, jwt.SigningMethodES256, i.ec, i.good(id), object{"kid": "ec"})), id: id}
	a.Get(a.services()).Problem(404)
	a.Post(a.services(), own("x")).Problem(404)
	a.Get(a.trafficRules()).Problem(404)
	for range 2 {
		a.Post(a.registrations(), without(registration(""), "appInstanceId")).Is(201)
		require.Equal(t, "NOT_CONFIGURED", m.state(id))
		a.register(own("cam"))
		a.mind(cb.URL("/end"))
		a.Delete(a.registration()).Is(204)
		a.Get(a.registration()).Problem(404)
		m.becomes(id, "")
		a.Get(a.services()).Problem(404)
		require.Empty(t, consumer.Get(services).Array())
	}
	harness.Eventually(t, "both removals are told", func() error {
		told := slices.DeleteFunc(cb.Distinct("/cb"), func(d harness.Delivery) bool { return d.Change.ChangeType != "REMOVED" })
		return harness.Not(len(told) == 2, "%d", len(told))
	})
	require.Empty(t, cb.All("/end"), "who ends it need not be told")
}

func TestARegistrationAndAConfigurationEndByThemselves(t *testing.T) {
	t.Parallel()
	p := harness.Start(t)
	m := mepmOf(t, p)
	consumer := newApp(p.Client(t))
	configured := newApp(p.Client(t))
	m.done(m.configure(configured.id, configuration("x", 1, 0)))
	configured.Post(configured.registrations(), registration(configured.id)).Is(201)
	configured.register(own("stays"))
	configured.Delete(configured.registration()).Is(204)
	m.done(m.unconfigure(configured.id))
	require.Equal(t, "NOT_CONFIGURED", m.state(configured.id), "it has a service")
	require.Equal(t, []string{"stays"}, names(consumer.Get(services).Array(), "serName"))

	// Registered while it is configured, it stays registered when the configuration goes.
	both := newApp(p.Client(t))
	m.done(m.configure(both.id, configuration("x", 1, 0)))
	both.Post(both.registrations(), registration(both.id)).Is(201)
	m.done(m.unconfigure(both.id))
	require.Equal(t, "NOT_CONFIGURED", m.state(both.id))
	both.Get(both.registration()).Is(200)
	both.Delete(both.registration()).Is(204)
	both.Post(both.registrations(), registration(both.id)).Is(201)

	ended := newApp(p.Client(t))
	ended.Post(ended.registrations(), registration(ended.id)).Is(201)
	require.True(t, slices.ContainsFunc(m.Get(instances).Array(), func(o object) bool { return o["appInstanceId"] == ended.id }))
	m.done(m.terminate(ended.id, forceful))
	ended.Get(ended.registration()).Problem(404)
	require.Empty(t, m.state(ended.id))
}
