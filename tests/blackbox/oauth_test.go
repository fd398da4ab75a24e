package blackbox

import (
	"encoding/base64"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/MicahParks/keyfunc/v3"
	"github.com/golang-jwt/jwt/v5"
	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/kit/etcdtest"
	"github.com/openmep/mep/tests/harness"
)

// unauthorisedClient says that a client may not use a grant (RFC 6749 5.2).
const unauthorisedClient = "unauthorized_client" //nolint:misspell // the spelling of the standard

// credentialsIn sends the keys in the form, together with more parameters.
func credentialsIn(k harness.Keys, pairs ...string) string {
	return harness.Form(append([]string{"client_id", k.AccessKeyID, "client_secret", k.SecretKey}, pairs...)...)
}

func TestClientCredentialsAreTakenInEveryFormOfTheStandard(t *testing.T) {
	t.Parallel()
	p := harness.Start(t, harness.Secure(), generous())
	// The characters that have a meaning in forms and in HTTP Basic.
	keys := harness.Provision(p.Manager(t), object{"authInfo": object{"credentials": object{
		"accessKeyId": characters(16) + "_+/=", "secretKey": characters(60) + "_+/=",
	}}})
	c := p.Auth(t)
	const grant = "grant_type=client_credentials"
	for name, send := range map[string]func() *harness.Answer{
		"HTTP Basic, escaped": func() *harness.Answer { return c.Post("/oauth2/token", grant, harness.AsForm(), keys.Basic()) },
		"HTTP Basic, as most clients do": func() *harness.Answer {
			return c.Post("/oauth2/token", grant, harness.AsForm(), func(r *http.Request) { r.SetBasicAuth(keys.AccessKeyID, keys.SecretKey) })
		},
		"a form": func() *harness.Answer {
			return c.Post("/oauth2/token", credentialsIn(keys, "grant_type", "client_credentials"), harness.AsForm())
		},
		"a form with a charset": func() *harness.Answer {
			return c.Post("/oauth2/token", credentialsIn(keys, "grant_type", "client_credentials"), harness.Header("Content-Type", "application/x-www-form-urlencoded; charset=UTF-8"))
		},
		"HTTP Basic and client_id": func() *harness.Answer {
			return c.Post("/oauth2/token", grant+"&client_id="+url.QueryEscape(keys.AccessKeyID), harness.AsForm(), keys.Basic())
		},
		"with parameters nobody knows": func() *harness.Answer {
			return c.Post("/oauth2/token", grant+"&resource=x&audience=y", harness.AsForm(), keys.Basic())
		},
	} {
		t.Run(name, func(t *testing.T) {
			var token harness.Token
			a := send().Is(200)
			a.Into(&token)
			require.Equal(t, "no-store", a.Header.Get("Cache-Control"))
			require.Equal(t, []any{"Bearer", 3600, "mp1", ""}, []any{token.TokenType, token.ExpiresIn, token.Scope, token.RefreshToken})
			p.Client(t).With(token.AccessToken).Get(services).Is(200)
			header, payload := tokenPart(t, token.AccessToken, 0), claims(t, token.AccessToken)
			require.Equal(t, "ES256", header["alg"])
			require.Equal(t, "JWT", header["typ"])
			require.NotEmpty(t, header["kid"])
			require.Equal(t, keys.AppInstanceID, payload["sub"])
			for _, name := range []string{"iss", "aud", "exp", "iat", "nbf", "jti", "scope"} {
				require.Contains(t, payload, name)
			}
			require.InDelta(t, payload["iat"].(float64)+3600, payload["exp"].(float64), 0)
		})
	}
}

func TestCombinationsThatAreNoRequestForAToken(t *testing.T) {
	t.Parallel()
	p := harness.Start(t, harness.Secure(), generous(), patient())
	manager := p.Manager(t)
	keys, other := harness.Provision(manager, nil), harness.Provision(manager, nil)
	const grant = "grant_type=client_credentials"
	basic := func(text string) harness.RequestOption {
		return harness.Header("Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(text)))
	}
	for name, x := range map[string]struct {
		body    string
		options []harness.RequestOption
		status  int
		code    string
	}{
		"no client":                      {grant, nil, 401, "invalid_client"},
		"client_id alone":                {grant + "&client_id=" + keys.AccessKeyID, nil, 401, "invalid_client"},
		"a secret alone":                 {grant + "&client_secret=" + keys.SecretKey, nil, 401, "invalid_client"},
		"two ways at a time":             {credentialsIn(keys, "grant_type", "client_credentials"), []harness.RequestOption{keys.Basic()}, 400, "invalid_request"},
		"client_id of another":           {grant + "&client_id=" + other.AccessKeyID, []harness.RequestOption{keys.Basic()}, 400, "invalid_request"},
		"the secret of another":          {grant, []harness.RequestOption{harness.Keys{AccessKeyID: keys.AccessKeyID, SecretKey: other.SecretKey}.Basic()}, 401, "invalid_client"},
		"an empty secret":                {grant, []harness.RequestOption{basic(keys.AccessKeyID + ":")}, 401, "invalid_client"},
		"no colon":                       {grant, []harness.RequestOption{basic(keys.AccessKeyID)}, 401, "invalid_client"},
		"Basic that is no base64":        {grant, []harness.RequestOption{harness.Header("Authorization", "Basic !!!")}, 401, "invalid_client"},
		"another scheme":                 {grant, []harness.RequestOption{harness.Header("Authorization", "Bearer x")}, 401, "invalid_client"},
		"two Authorization headers":      {grant, []harness.RequestOption{harness.Headers("Authorization", "Basic eDp5", "Basic eDp5")}, 400, "invalid_request"},
		"no grant":                       {"scope=mp1", []harness.RequestOption{keys.Basic()}, 400, "invalid_request"},
		"an empty body":                  {"", []harness.RequestOption{keys.Basic()}, 400, "invalid_request"},
		"the grant twice":                {grant + "&" + grant, []harness.RequestOption{keys.Basic()}, 400, "invalid_request"},
		"another grant":                  {"grant_type=password&username=x&password=y", []harness.RequestOption{keys.Basic()}, 400, "unsupported_grant_type"},
		"a scope twice":                  {grant + "&scope=mp1&scope=mp1", []harness.RequestOption{keys.Basic()}, 400, "invalid_request"},
		"a scope the client has not":     {grant + "&scope=mm5", []harness.RequestOption{keys.Basic()}, 400, "invalid_scope"},
		"one it has and one it has not":  {grant + "&scope=mp1+ops", []harness.RequestOption{keys.Basic()}, 400, "invalid_scope"},
		"a scope nobody has":             {grant + "&scope=admin", []harness.RequestOption{keys.Basic()}, 400, "invalid_scope"},
		"JSON":                           {`{"grant_type":"client_credentials"}`, []harness.RequestOption{keys.Basic(), harness.Header("Content-Type", "application/json")}, 400, "invalid_request"},
		"no content type":                {grant, []harness.RequestOption{keys.Basic(), harness.Header("Content-Type", "")}, 400, "invalid_request"},
		"a body that is no form":         {"grant_type=%zz", []harness.RequestOption{keys.Basic()}, 400, "invalid_request"},
		"refresh without a token":        {"grant_type=refresh_token", []harness.RequestOption{keys.Basic()}, 400, unauthorisedClient},
		"a secret with a line feed":      {grant, []harness.RequestOption{basic(keys.AccessKeyID + ":" + keys.SecretKey + "\n")}, 401, "invalid_client"},
		"an access key with a slash":     {grant, []harness.RequestOption{basic(keys.AccessKeyID[:10] + "/../aaaaaa" + ":" + keys.SecretKey)}, 401, "invalid_client"},
		"an access key of other letters": {grant, []harness.RequestOption{basic("ключ:" + keys.SecretKey)}, 401, "invalid_client"},
		"a lower-case access key":        {grant, []harness.RequestOption{basic(strings.ToLower(keys.AccessKeyID) + ":" + keys.SecretKey)}, 401, "invalid_client"},
	} {
		t.Run(name, func(t *testing.T) {
			a := p.Auth(t).Post("/oauth2/token", x.body, append([]harness.RequestOption{harness.AsForm()}, x.options...)...)
			said := oauthError(t, a, x.status, x.code)
			require.NotContains(t, said, keys.SecretKey)
			require.NotContains(t, said, "server_error")
		})
	}
	t.Run("parameters in the URL", func(t *testing.T) {
		a := p.Auth(t).Post("/oauth2/token?"+credentialsIn(keys, "grant_type", "client_credentials"), "", harness.AsForm())
		oauthError(t, a, 400, "invalid_request")
	})
	t.Run("other methods", func(t *testing.T) {
		for _, path := range []string{"/oauth2/token", "/oauth2/revoke", "/oauth2/introspect"} {
			for _, method := range []string{"GET", "PUT", "DELETE"} {
				p.Auth(t).Do(method, path, nil).Problem(405)
			}
		}
	})
}

func TestAManagerMayAskForLessThanItHas(t *testing.T) {
	t.Parallel()
	p := harness.Start(t, harness.Secure())
	keys := p.Bootstrap(t).Keys
	c := p.Auth(t)
	require.Equal(t, "mm5 ops", keys.Fetch(c).Scope)
	for _, asked := range []string{"mm5", "ops", "ops mm5", "mm5 mm5"} {
		token := keys.Fetch(c, strings.Fields(asked)...)
		require.Subset(t, strings.Fields(asked), strings.Fields(token.Scope))
		require.Equal(t, token.Scope, claims(t, token.AccessToken)["scope"])
		a := c.With(token.AccessToken).Get("/mep/appMng/v1/applications")
		if strings.Contains(asked, "mm5") {
			a.Is(200)
		} else {
			a.Problem(403)
			require.Contains(t, a.Header.Get("WWW-Authenticate"), `error="insufficient_scope"`)
		}
		p.Client(t).With(token.AccessToken).Get(services).Problem(403)
	}
	oauthError(t, keys.Ask(c, "mp1"), 400, "invalid_scope")
}

// refresh uses a refresh token.
func refresh(c *harness.Client, k harness.Keys, token string, pairs ...string) *harness.Answer {
	c.TB().Helper()
	return c.Post("/oauth2/token", harness.Form(append([]string{"grant_type", "refresh_token", "refresh_token", token}, pairs...)...), harness.AsForm(), k.Basic())
}

// refreshed is refresh when it has to work.
func refreshed(c *harness.Client, k harness.Keys, token string) harness.Token {
	c.TB().Helper()
	var t harness.Token
	refresh(c, k, token).Is(200).Into(&t)
	return t
}

// refreshing makes an app instance that gets refresh tokens.
func refreshing(t *testing.T, p *harness.Process) harness.Keys {
	t.Helper()
	return harness.Provision(p.Manager(t), object{"authInfo": object{"refreshTokens": true}})
}

func TestARefreshTokenIsGoodOnce(t *testing.T) {
	t.Parallel()
	p := harness.Start(t, harness.Secure(), generous(), patient())
	keys := refreshing(t, p)
	c := p.Auth(t)
	first := keys.Fetch(c)
	require.NotEmpty(t, first.RefreshToken)
	second := refreshed(c, keys, first.RefreshToken)
	require.NotEqual(t, first.RefreshToken, second.RefreshToken)
	require.NotEqual(t, first.AccessToken, second.AccessToken)
	p.Client(t).With(second.AccessToken).Get(services).Is(200)
	p.Kill()
	p.Restart()
	third := refreshed(c, keys, second.RefreshToken)

	t.Run("not for another client", func(t *testing.T) {
		other := refreshing(t, p)
		oauthError(t, refresh(p.Auth(t), other, third.RefreshToken), 400, "invalid_grant")
		third = refreshed(p.Auth(t), keys, third.RefreshToken)
	})
	t.Run("its second use ends the family", func(t *testing.T) {
		oauthError(t, refresh(p.Auth(t), keys, second.RefreshToken), 400, "invalid_grant")
		oauthError(t, refresh(p.Auth(t), keys, third.RefreshToken), 400, "invalid_grant")
		refreshed(p.Auth(t), keys, keys.Fetch(p.Auth(t)).RefreshToken) // another family is another matter
	})
	t.Run("by one of many at the same time", func(t *testing.T) {
		token := keys.Fetch(p.Auth(t)).RefreshToken
		var all sync.WaitGroup
		var mu sync.Mutex
		var got []string
		for range 8 {
			all.Go(func() {
				a, err := p.Auth(t).Try("POST", "/oauth2/token", harness.Form("grant_type", "refresh_token", "refresh_token", token), harness.AsForm(), keys.Basic())
				if err == nil && a.Status == 200 {
					mu.Lock()
					defer mu.Unlock()
					got = append(got, a.Object()["refresh_token"].(string))
				}
			})
		}
		all.Wait()
		require.LessOrEqual(t, len(got), 1)
		for _, next := range got {
			oauthError(t, refresh(p.Auth(t), keys, next), 400, "invalid_grant")
		}
	})
	t.Run("tokens that are none", func(t *testing.T) {
		for _, token := range []string{"x", strings.Repeat("a", 80), "../../../x", third.RefreshToken + "x", third.AccessToken, strings.Repeat("a", 10000)} {
			oauthError(t, refresh(p.Auth(t), keys, token), 400, "invalid_grant")
		}
	})
}

func TestARequestThatIsRefusedDoesNotUseUpTheRefreshToken(t *testing.T) {
	t.Parallel()
	p := harness.Start(t, harness.Secure(), generous(), patient())
	keys := refreshing(t, p)
	c := p.Auth(t)
	token := keys.Fetch(c).RefreshToken
	oauthError(t, refresh(c, keys, token, "scope", "mm5"), 400, "invalid_scope")
	bad := keys
	bad.SecretKey = characters(64)
	oauthError(t, refresh(c, bad, token), 401, "invalid_client")
	refreshed(c, keys, token)
}

func TestARefreshTokenEndsWithItsCredentials(t *testing.T) {
	t.Parallel()
	p := harness.Start(t, harness.Secure(), generous(), patient())
	manager := p.Manager(t)
	for name, x := range map[string]struct {
		change func(*harness.Client, harness.Keys)
		code   string
		status int
	}{
		"switched off": {func(m *harness.Client, k harness.Keys) {
			m.Patch(harness.ConfsPath(k.AppInstanceID), object{"refreshTokens": false}).Is(200)
		}, unauthorisedClient, 400},
		"disabled": {func(m *harness.Client, k harness.Keys) {
			m.Patch(harness.ConfsPath(k.AppInstanceID), object{"enabled": false}).Is(200)
		}, "invalid_client", 401},
		"disabled and enabled": {func(m *harness.Client, k harness.Keys) {
			m.Patch(harness.ConfsPath(k.AppInstanceID), object{"enabled": false}).Is(200)
			m.Patch(harness.ConfsPath(k.AppInstanceID), object{"enabled": true}).Is(200)
		}, "invalid_grant", 400},
		"deleted": {func(m *harness.Client, k harness.Keys) { m.Delete(harness.ConfsPath(k.AppInstanceID)).Is(200) }, "invalid_client", 401},
		"deleted and made anew": {func(m *harness.Client, k harness.Keys) {
			m.Delete(harness.ConfsPath(k.AppInstanceID)).Is(200)
			harness.ProvisionAs(m, k.AppInstanceID, but(confs(k), "authInfo.refreshTokens", true))
		}, "invalid_grant", 400},
	} {
		t.Run(name, func(t *testing.T) {
			keys := refreshing(t, p)
			token := keys.Fetch(p.Auth(t)).RefreshToken
			x.change(manager, keys)
			oauthError(t, refresh(p.Auth(t), keys, token), x.status, x.code)
		})
	}
}

func TestARevokedTokenIsRefusedEverywhereWithinASecond(t *testing.T) {
	t.Parallel()
	etcd := etcdtest.Start(t)
	auth := harness.StartMepauth(t, etcd.Endpoint(), harness.Secure(), generous())
	servers := []*harness.Process{
		harness.StartMepserver(t, etcd.Endpoint(), harness.Secure()), harness.StartMepserver(t, etcd.Endpoint(), harness.Secure()),
	}
	keys := harness.Provision(auth.Manager(t), object{"authInfo": object{"refreshTokens": true}})
	c := auth.Auth(t)
	token, other := keys.Fetch(c), keys.Fetch(c)
	for _, s := range servers {
		harness.Eventually(t, "the token is known", func() error {
			a := s.Client(t).With(token.AccessToken).Get(services)
			return harness.Not(a.Status == 200, "answered %d", a.Status)
		})
	}
	c.Post("/oauth2/revoke", harness.Form("token", token.AccessToken), harness.AsForm(), keys.Basic()).Is(200)
	for _, s := range servers {
		harness.EventuallyWithin(t, time.Second, "the token is refused", func() error {
			a := s.Client(t).With(token.AccessToken).Get(services)
			return harness.Not(a.Status == 401, "answered %d", a.Status)
		})
		s.Client(t).With(other.AccessToken).Get(services).Is(200)
	}
	servers[0].Kill()
	auth.Kill()
	servers[0].Restart()
	auth.Restart()
	unauthenticated(t, servers[0].Client(t).With(token.AccessToken).Get(services), "invalid_token")
	servers[0].Client(t).With(other.AccessToken).Get(services).Is(200)

	// Disabling and deleting are as quick.
	auth.Manager(t).Patch(harness.ConfsPath(keys.AppInstanceID), object{"enabled": false}).Is(200)
	for _, s := range servers {
		harness.EventuallyWithin(t, time.Second, "the token is refused", func() error {
			a := s.Client(t).With(other.AccessToken).Get(services)
			return harness.Not(a.Status == 401, "answered %d", a.Status)
		})
	}
}

func TestRevocation(t *testing.T) {
	t.Parallel()
	p := harness.Start(t, harness.Secure(), generous(), patient())
	keys, other := refreshing(t, p), refreshing(t, p)
	c := p.Auth(t)
	revoke := func(k harness.Keys, pairs ...string) *harness.Answer {
		return c.Post("/oauth2/revoke", harness.Form(pairs...), harness.AsForm(), k.Basic())
	}
	token := keys.Fetch(c)
	works := func(token string) int { return p.Client(t).With(token).Get(services).Status }
	for _, unknown := range []string{"x", strings.Repeat("a", 9000), "a.b.c"} {
		revoke(keys, "token", unknown).Is(200)
	}
	revoke(other, "token", token.AccessToken).Is(200) // and nothing happens
	revoke(other, "token", token.RefreshToken).Is(200)
	require.Equal(t, 200, works(token.AccessToken))
	oauthError(t, revoke(keys), 400, "invalid_request")
	oauthError(t, c.Post("/oauth2/revoke", harness.Form("token", token.AccessToken), harness.AsForm()), 401, "invalid_client")
	bad := keys
	bad.SecretKey = characters(64)
	oauthError(t, revoke(bad, "token", token.AccessToken), 401, "invalid_client")

	next := refreshed(c, keys, token.RefreshToken)
	revoke(keys, "token", next.RefreshToken, "token_type_hint", "access_token").Is(200)
	oauthError(t, refresh(c, keys, next.RefreshToken), 400, "invalid_grant")
	revoke(keys, "token", next.AccessToken).Is(200)
	revoke(keys, "token", next.AccessToken).Is(200)
	require.Equal(t, 401, works(next.AccessToken))
	require.Equal(t, 200, works(token.AccessToken), "another token is another matter")
	require.Equal(t, object{"active": false}, c.Post("/oauth2/introspect", harness.Form("token", next.AccessToken), harness.AsForm(), keys.Basic()).Is(200).Object())
	auditOf(t, p, "the revocation", func(e object) bool {
		return e["action"] == "token.revoke" && e["target"] == claims(t, next.AccessToken)["jti"] && e["result"] == "success"
	})
}

func TestIntrospection(t *testing.T) {
	t.Parallel()
	p := harness.Start(t, harness.Secure(), generous(), patient())
	keys, other := refreshing(t, p), refreshing(t, p)
	c := p.Auth(t)
	ask := func(k harness.Keys, token string) object {
		return c.Post("/oauth2/introspect", harness.Form("token", token), harness.AsForm(), k.Basic()).Is(200).Object()
	}
	token := keys.Fetch(c)
	payload := claims(t, token.AccessToken)
	got := ask(keys, token.AccessToken)
	require.Equal(t, true, got["active"])
	for _, name := range []string{"sub", "iss", "exp", "iat", "nbf", "jti", "scope"} {
		require.Equal(t, payload[name], got[name], name)
	}
	require.Equal(t, keys.AccessKeyID, got["client_id"])
	require.Equal(t, "Bearer", got["token_type"])
	require.Equal(t, true, ask(keys, token.RefreshToken)["active"])
	require.Equal(t, object{"active": false}, ask(other, token.RefreshToken))
	for _, none := range []string{"x", "a.b.c", token.AccessToken + "x", token.AccessToken[:len(token.AccessToken)-4]} {
		require.Equal(t, object{"active": false}, ask(keys, none), "and nothing more")
	}
	oauthError(t, c.Post("/oauth2/introspect", harness.Form("token", token.AccessToken), harness.AsForm()), 401, "invalid_client")
}

func TestATokenIsVerifiedByOthersWithTheMetadataAlone(t *testing.T) {
	t.Parallel()
	for _, algorithm := range []string{"ES256", "RS256", "RS512", "EdDSA"} {
		t.Run(algorithm, func(t *testing.T) {
			t.Parallel()
			p := harness.Start(t, harness.Secure(), harness.Args("--auth-algorithm", algorithm))
			made := p.NewApp(t)
			meta := p.Auth(t).Get("/.well-known/oauth-authorization-server").Is(200).Object()
			require.Equal(t, p.URL("auth"), meta["issuer"])
			require.Equal(t, p.URL("auth")+"/oauth2/token", meta["token_endpoint"])
			jwks := p.Auth(t).Get(meta["jwks_uri"].(string)).Is(200)
			require.NotEmpty(t, jwks.Header.Get("Cache-Control"))
			keys, err := keyfunc.NewJWKSetJSON(jwks.Body)
			require.NoError(t, err)
			verify := func(token string) (*jwt.Token, error) {
				return jwt.Parse(token, keys.Keyfunc, jwt.WithValidMethods([]string{algorithm}), jwt.WithIssuer(meta["issuer"].(string)),
					jwt.WithAudience("mep"), jwt.WithExpirationRequired(), jwt.WithIssuedAt(), jwt.WithLeeway(5*time.Second))
			}
			token, err := verify(made.Token.AccessToken)
			require.NoError(t, err)
			subject, err := token.Claims.GetSubject()
			require.NoError(t, err)
			require.Equal(t, made.AppInstanceID, subject)
			parts := strings.Split(made.Token.AccessToken, ".")
			_, err = verify(parts[0] + "." + base64.RawURLEncoding.EncodeToString([]byte(`{"sub":"x"}`)) + "." + parts[2])
			require.Error(t, err)
			made.Get(services).Is(200)
			for _, path := range []string{"/.well-known/jwks.json", "/.well-known/oauth-authorization-server"} {
				p.Auth(t).Get(path+"?x=1", harness.Tolerated()).Is(200)
				p.Auth(t).Post(path, object{}).Problem(405)
			}
		})
	}
}

func TestATokenMayBeBoundToTheAddressThatAskedForIt(t *testing.T) {
	t.Parallel()
	p := harness.Start(t, harness.Secure(), generous(), harness.Args("--proxies=127.0.0.99/32"))
	keys := harness.Provision(p.Manager(t), object{"authInfo": object{"bindClientAddress": true, "refreshTokens": true}})
	token := keys.Fetch(p.AuthFrom(t, "127.0.0.5"))
	require.Equal(t, "127.0.0.5", claims(t, token.AccessToken)["clientip"])
	p.ClientFrom(t, "127.0.0.5").With(token.AccessToken).Get(services).Is(200)
	thief := p.ClientFrom(t, "127.0.0.66").With(token.AccessToken)
	unauthenticated(t, thief.Get(services), "invalid_token")
	for _, name := range []string{"X-Forwarded-For", "X-Real-IP"} {
		unauthenticated(t, thief.Get(services, harness.Header(name, "127.0.0.5")), "invalid_token")
		p.ClientFrom(t, "127.0.0.99").With(token.AccessToken).Get(services, harness.Header(name, "127.0.0.5")).Is(200)
		unauthenticated(t, p.ClientFrom(t, "127.0.0.99").With(token.AccessToken).Get(services, harness.Header(name, "127.0.0.6")), "invalid_token")
	}
	oauthError(t, refresh(p.AuthFrom(t, "127.0.0.66"), keys, token.RefreshToken), 400, "invalid_grant")
	refreshed(p.AuthFrom(t, "127.0.0.5"), keys, token.RefreshToken)
}
