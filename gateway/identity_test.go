package gateway_test

import (
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	api "github.com/openmep/mep/api/gateway"
	"github.com/openmep/mep/api/state"
	"github.com/openmep/mep/kit/identity"
)

// other is a trusted issuer besides the platform.
type other struct {
	*world
	server *httptest.Server
	keys   atomic.Pointer[string]
	asked  atomic.Int64
}

const otherKid = "other-1"

// issuer starts an issuer whose tokens are signed with w.key.
func (w *world) issuer() *other {
	w.Helper()
	o := &other{world: w}
	o.publish(fmt.Sprintf(`{"keys":[%s]}`, jwkOf(w, otherKid, w.key)))
	o.server = serve(w, func(rw http.ResponseWriter, _ *http.Request) {
		o.asked.Add(1)
		if keys := *o.keys.Load(); keys != "" {
			_, _ = fmt.Fprint(rw, keys)
			return
		}
		rw.WriteHeader(http.StatusInternalServerError)
	})
	return o
}

// publish changes the keys; "" is an outage.
func (o *other) publish(keys string) { o.keys.Store(&keys) }

func (o *other) trusted(s *setup) {
	s.Common.Identity.Issuers = []identity.TrustedIssuer{{Issuer: "https://other.test", JWKSURL: o.server.URL, Scopes: []string{"mp1"}}}
	s.Common.Identity.Leeway = 10 * time.Second
}

func (o *other) claims(more map[string]any) map[string]any {
	c := map[string]any{"iss": "https://other.test", "sub": "consumer", "aud": "mep", "exp": time.Now().Add(time.Hour).Unix(), "scope": "mp1"}
	maps.Copy(c, more)
	return c
}

func TestTokensOfAnotherIssuer(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	o := w.issuer()
	g := w.gate(o.trusted)
	up := mirrorOf(t)
	w.named("hello", up.URL)
	w.policy("hello", api.Policy{Rules: []api.Rule{{Effect: api.Allow, Scopes: []string{"mp1"}}}})
	at := func(d time.Duration) int64 { return time.Now().Add(d).Unix() }
	for name, c := range map[string]struct {
		claims map[string]any
		status int
	}{
		"in force":                   {nil, 200},
		"expired within the leeway":  {map[string]any{"exp": at(-5 * time.Second)}, 200},
		"expired":                    {map[string]any{"exp": at(-15 * time.Second)}, 401},
		"early within the leeway":    {map[string]any{"nbf": at(5 * time.Second), "iat": at(5 * time.Second)}, 200},
		"too early":                  {map[string]any{"nbf": at(time.Minute)}, 401},
		"issued in the future":       {map[string]any{"iat": at(time.Minute)}, 401},
		"without expiry":             {map[string]any{"exp": nil}, 401},
		"for others":                 {map[string]any{"aud": "others"}, 401},
		"without subject":            {map[string]any{"sub": ""}, 401},
		"without the scope":          {map[string]any{"scope": "read"}, 403},
		"bound to another client":    {map[string]any{"clientip": "192.0.2.1"}, 401},
		"bound to this client":       {map[string]any{"clientip": "127.0.0.1"}, 200},
		"in the platform's name":     {map[string]any{"iss": issuer}, 401},
		"of somebody nobody trusts":  {map[string]any{"iss": "https://evil.test"}, 401},
		"with scopes nobody knows":   {map[string]any{"scope": "mp1 calendar"}, 200},
		"subject of many characters": {map[string]any{"sub": "a b/ü"}, 200},
	} {
		t.Run(name, func(t *testing.T) {
			g := g.in(t)
			a := g.get("/services/hello/", bearer(w.sign(w.key, otherKid, o.claims(c.claims))))
			require.Equal(t, c.status, a.StatusCode, a.body)
			if c.status == http.StatusUnauthorized {
				require.Contains(t, a.Header.Get("WWW-Authenticate"), "Bearer")
			}
		})
	}
}

// TestAnIssuerHasNoMoreScopesThanItIsGiven checks that further scopes in its tokens count nowhere, and that no service sees them.
func TestAnIssuerHasNoMoreScopesThanItIsGiven(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		given, says []string
		passes      map[string]string // the services that a token reaches, and the scopes they see
	}{
		{nil, []string{"mp1", "mm5", "calendar"}, map[string]string{"plain": "mp1 calendar", "calendars": "mp1 calendar"}},
		{[]string{"ops"}, []string{"mp1", "mm5", "calendar"}, map[string]string{"calendars": "calendar"}},
		{[]string{"mm5"}, []string{"mm5"}, map[string]string{"managers": "mm5", "ruled": "mm5"}},
	} {
		t.Run(strings.Join(append(c.given, c.says...), " "), func(t *testing.T) {
			w := newWorld(t)
			o := w.issuer()
			g := w.gate(o.trusted, func(s *setup) { s.Common.Identity.Issuers[0].Scopes = c.given })
			up := mirrorOf(t).URL
			for _, name := range []string{"plain", "managers", "ruled", "calendars"} {
				w.named(name, up)
			}
			who := []api.Rule{{Effect: api.Allow, Consumers: []string{"consumer"}}}
			w.policy("plain", api.Policy{Rules: who})
			w.policy("managers", api.Policy{Scopes: []string{"mm5"}, Rules: who})
			w.policy("ruled", api.Policy{Scopes: []string{}, Default: api.Deny, Rules: []api.Rule{{Effect: api.Allow, Consumers: []string{"consumer"}, Scopes: []string{"mm5"}}}})
			w.policy("calendars", api.Policy{Scopes: []string{"calendar"}, Rules: who})
			token := bearer(w.sign(w.key, otherKid, o.claims(map[string]any{"scope": strings.Join(c.says, " ")})))
			for _, name := range []string{"plain", "managers", "ruled", "calendars"} {
				a := g.get("/services/"+name+"/", token)
				told, passes := c.passes[name]
				if !passes {
					require.Equal(t, http.StatusForbidden, a.StatusCode, "%s: %s", name, a.body)
					continue
				}
				require.Equal(t, http.StatusOK, a.StatusCode, "%s: %s", name, a.body)
				require.Equal(t, told, a.seen(t).Header.Get("X-Consumer-Scopes"), name)
			}
		})
	}
}

// TestResponsesAreNotSplit puts line breaks wherever a caller influences header fields.
func TestResponsesAreNotSplit(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	o := w.issuer()
	g := w.gate(o.trusted)
	w.named("hello", mirrorOf(t).URL)
	asked := serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Echo", "a\r\nX-Injected: 1") // net/http turns line breaks into blanks
		w.Header().Set("WWW-Authenticate", "Custom x\r\nX-Injected: 1")
		if strings.Contains(r.URL.Path, "refuse") {
			w.WriteHeader(http.StatusUnauthorized)
		}
	})
	p := api.Policy{
		Rules: []api.Rule{{Effect: api.Allow, Scopes: []string{"mp1"}}}, Claims: map[string]string{"X-Name": "name"},
		ExternalAuth: &api.ExternalAuth{URL: asked.URL, Return: []string{"X-Echo"}},
	}
	w.policy("hello", p)
	w.named("refuse", mirrorOf(t).URL)
	p.ExternalAuth = &api.ExternalAuth{URL: asked.URL + "/refuse"}
	w.policy("refuse", p)
	for name, claims := range map[string]map[string]any{
		"line breaks in a claim":       {"name": "a\r\nX-Injected: 1"},
		"line breaks in the subject":   {"sub": "a\r\nX-Injected: 1"},
		"control characters in it":     {"sub": "a\x00b"},
		"line breaks in the scope":     {"scope": "mp1 a\r\nX-Injected:1"},
		"control characters in scopes": {"scope": "mp1 a\x01b"},
		"nothing":                      {},
	} {
		token := bearer(w.sign(w.key, otherKid, o.claims(claims)))
		for range 7 { // more than it takes to eject a target
			a := g.get("/services/hello/", token)
			require.NotContains(t, a.Header, "X-Injected", name)
			switch a.StatusCode {
			case http.StatusOK:
				require.Empty(t, a.seen(t).Header["X-Injected"], name)
				require.Empty(t, a.seen(t).Header["X-Name"], name)
			default:
				require.Contains(t, []int{400, 401, 403}, a.StatusCode, "%s: it is the caller's fault and not the service's: %s", name, a.body)
			}
		}
		a := g.get("/services/refuse/", token)
		require.NotContains(t, a.Header, "X-Injected", name)
	}
	require.Equal(t, http.StatusOK, g.status("/services/hello/", bearer(w.sign(w.key, otherKid, o.claims(nil)))))
}

func TestAnOutageOfAnIssuer(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	o := w.issuer()
	w.named("hello", mirrorOf(t).URL)
	w.policy("hello", api.Policy{Rules: []api.Rule{{Effect: api.Allow, Scopes: []string{"mp1"}}}})
	token := bearer(w.sign(w.key, otherKid, o.claims(nil)))

	g := w.gate(o.trusted)
	require.Equal(t, http.StatusOK, g.status("/services/hello/", token))
	o.publish("")
	require.Equal(t, http.StatusOK, g.status("/services/hello/", token), "a token that was seen before")
	require.Equal(t, http.StatusOK, g.status("/services/hello/", bearer(w.sign(w.key, otherKid, o.claims(map[string]any{"sub": "new"})))),
		"a new token of a key that is known")

	fresh := w.gate(o.trusted)
	require.Equal(t, http.StatusServiceUnavailable, fresh.status("/services/hello/", token), "nothing is known of its keys")
	require.Equal(t, http.StatusOK, fresh.status("/services/hello/", bearer(w.token(w.app()))), "the platform's own tokens do not suffer")
	require.Equal(t, http.StatusUnauthorized, fresh.status("/services/hello/"))
}

// TestAFloodOfKeyIDs sends tokens with ever new key ids, and checks that the issuer is not asked for each.
func TestAFloodOfKeyIDs(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	o := w.issuer()
	g := w.gate(o.trusted)
	w.named("hello", mirrorOf(t).URL)
	w.policy("hello", api.Policy{Rules: []api.Rule{{Effect: api.Allow, Scopes: []string{"mp1"}}}})
	stranger := newKey(t)
	for range 200 {
		status := g.status("/services/hello/", bearer(w.sign(stranger, uuid.NewString(), o.claims(nil))))
		require.Contains(t, []int{401, 429, 503}, status)
	}
	require.LessOrEqual(t, o.asked.Load(), int64(3))
	require.Equal(t, http.StatusOK, g.status("/services/hello/", bearer(w.sign(w.key, otherKid, o.claims(nil)))))
}

func TestWhatIsTakenBackEndsAtOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	g := w.gate()
	w.named("hello", mirrorOf(t).URL)
	app := w.app()
	token := bearer(w.token(app))
	require.Equal(t, http.StatusOK, g.status("/services/hello/", token))
	w.delete(state.CredentialKey("ak-" + app))
	require.Equal(t, http.StatusUnauthorized, g.status("/services/hello/", token), "the credentials are deleted")

	second := w.app()
	token = bearer(w.token(second))
	require.Equal(t, http.StatusOK, g.status("/services/hello/", token))
	w.delete(state.SigningKeyKey(kid))
	require.Equal(t, http.StatusUnauthorized, g.status("/services/hello/", token), "the key is not in use any more")
}

func TestAPIKeys(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	g := w.gate()
	me := w.app()
	up := mirrorOf(t).URL
	w.service(me, "mine", up)
	w.named("hello", up)
	w.named("other", up)
	for _, name := range []string{"mine", "hello", "other"} {
		w.policy(name, api.Policy{})
	}
	w.named("tokens", up)
	w.policy("tokens", api.Policy{Authentication: []api.Method{api.ByToken}})
	w.route("static", api.Route{Paths: []string{"/static"}, URLs: []string{up}})
	all, some, outside := g.apiKey(me), g.apiKey(me, "hello"), g.apiKey("partner", "hello")
	for name, c := range map[string]struct {
		key, service string
		status       int
	}{
		"any service":                         {all, "/services/hello/", 200},
		"another one":                         {all, "/services/other/", 200},
		"a service the key is for":            {some, "/services/hello/", 200},
		"a service the key is not for":        {some, "/services/other/", 403},
		"its holder's own, which it is not":   {some, "/services/mine/", 403},
		"somebody who is no app":              {outside, "/services/hello/", 200},
		"somebody who is no app, elsewhere":   {outside, "/services/other/", 403},
		"a policy that wants a token":         {all, "/services/tokens/", 401},
		"a static route, any service":         {all, "/static", 200},
		"a static route, to none of its":      {some, "/static", 403},
		"a key nobody has":                    {all[:len(all)-1] + map[bool]string{true: "b", false: "a"}[strings.HasSuffix(all, "a")], "/services/hello/", 401},
		"the platform, which takes no key":    {all, "/gateway/v1/access_requests", 200},
		"the platform, with a key for others": {some, "/gateway/v1/access_requests", 403},
	} {
		t.Run(name, func(t *testing.T) {
			g := g.in(t)
			a := g.get(c.service, field("X-Api-Key", c.key))
			require.Equal(t, c.status, a.StatusCode, a.body)
			require.NotContains(t, a.body, c.key)
			if a.StatusCode == http.StatusOK && strings.HasPrefix(c.service, "/services") {
				require.NotEmpty(t, a.seen(t).Header.Get("X-AppInstanceID"))
			}
		})
	}
	id := strings.Split(all, "_")[1]
	require.Equal(t, http.StatusNoContent, g.manage(http.MethodDelete, "/api_keys/"+id, nil, nil))
	require.Equal(t, http.StatusUnauthorized, g.status("/services/hello/", field("X-Api-Key", all)), "deleting works at once")
}
