package blackbox

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/MicahParks/jwkset"
	"github.com/golang-jwt/jwt/v5"
	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/tests/harness"
)

// issuer signs whatever a test wants.
type issuer struct {
	name string
	ec   *ecdsa.PrivateKey
	rsa  *rsa.PrivateKey
	ed   ed25519.PrivateKey
}

const ourIssuer = "https://issuer.example/realms/mec"

func newIssuer(t *testing.T) *issuer {
	t.Helper()
	i := &issuer{name: ourIssuer}
	var err error
	i.ec, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	i.rsa, err = rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(t, err)
	_, i.ed, err = ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	return i
}

// jwks is the set of its public keys: ec, rsa and ed.
func (i *issuer) jwks(t *testing.T) []byte {
	t.Helper()
	set := struct {
		Keys []any `json:"keys"`
	}{}
	for _, k := range []struct {
		kid, alg string
		key      crypto.Signer
	}{{"ec", "ES256", i.ec}, {"rsa", "RS256", i.rsa}, {"ed", "EdDSA", i.ed}} {
		jwk, err := jwkset.NewJWKFromKey(k.key.Public(), jwkset.JWKOptions{
			Metadata: jwkset.JWKMetadataOptions{ALG: jwkset.ALG(k.alg), KID: k.kid, USE: jwkset.UseSig},
		})
		require.NoError(t, err)
		set.Keys = append(set.Keys, jwk.Marshal())
	}
	data, err := json.Marshal(set)
	require.NoError(t, err)
	return data
}

// good are the claims of a token that is taken.
func (i *issuer) good(subject string) jwt.MapClaims {
	now := time.Now()
	return jwt.MapClaims{
		"iss": i.name, "sub": subject, "aud": "mep", "exp": now.Add(time.Hour).Unix(), "iat": now.Unix(), "nbf": now.Unix(),
		"scope": "mp1", "jti": uuid.NewString(),
	}
}

// sign makes a token. header are further members of its header; those that are nil are left out.
func (i *issuer) sign(t *testing.T, method jwt.SigningMethod, key any, payload jwt.MapClaims, header object) string {
	t.Helper()
	token := jwt.NewWithClaims(method, payload)
	for name, v := range header {
		if v == nil {
			delete(token.Header, name)
		} else {
			token.Header[name] = v
		}
	}
	signed, err := token.SignedString(key)
	require.NoError(t, err)
	return signed
}

// trusting is a configuration with the issuer, whose keys are in a file.
func (i *issuer) trusting(t *testing.T, more string) harness.Option {
	t.Helper()
	return harness.Config(fmt.Sprintf("auth:\n  issuers:\n  - issuer: %s\n    jwksFile: %s\n%s", i.name, file(t, "jwks.json", string(i.jwks(t))), more))
}

func with(c jwt.MapClaims, name string, v any) jwt.MapClaims {
	c = maps.Clone(c)
	if c[name] = v; v == nil {
		delete(c, name)
	}
	return c
}

func TestATokenOfATrustedIssuerIsTakenForWhatItIs(t *testing.T) {
	t.Parallel()
	i := newIssuer(t)
	p := harness.Start(t, harness.Secure(), i.trusting(t, ""))
	id := harness.Provision(p.Manager(t), nil).AppInstanceID // an instance has to be known, whoever vouches for it
	for name, token := range map[string]string{
		"ES256":             i.sign(t, jwt.SigningMethodES256, i.ec, i.good(id), object{"kid": "ec"}),
		"RS256":             i.sign(t, jwt.SigningMethodRS256, i.rsa, i.good(id), object{"kid": "rsa"}),
		"EdDSA":             i.sign(t, jwt.SigningMethodEdDSA, i.ed, i.good(id), object{"kid": "ed"}),
		"several audiences": i.sign(t, jwt.SigningMethodES256, i.ec, with(i.good(id), "aud", []string{"x", "mep"}), object{"kid": "ec"}),
		"upper-case UUID":   i.sign(t, jwt.SigningMethodES256, i.ec, with(i.good(id), "sub", strings.ToUpper(id)), object{"kid": "ec"}),
	} {
		t.Run(name, func(t *testing.T) {
			a := app{Client: p.Client(t).With(token), id: id}
			a.Get(a.services()).Is(200)
			other := app{Client: a.Client, id: uuid.NewString()}
			other.Get(other.services()).Problem(403)
		})
	}
	t.Run("its scopes are those that are configured", func(t *testing.T) {
		token := i.sign(t, jwt.SigningMethodES256, i.ec, with(i.good("mepm"), "scope", "mp1 mm5 ops"), object{"kid": "ec"})
		p.Auth(t).With(token).Get("/mep/appMng/v1/applications").Problem(403)
		token = i.sign(t, jwt.SigningMethodES256, i.ec, with(i.good(id), "scope", "mm5"), object{"kid": "ec"})
		p.Client(t).With(token).Get(services).Problem(403)
		token = i.sign(t, jwt.SigningMethodES256, i.ec, with(i.good(id), "scope", nil), object{"kid": "ec"})
		p.Client(t).With(token).Get(services).Problem(403)
	})
}

func TestTokensThatAreNoProof(t *testing.T) {
	t.Parallel()
	i := newIssuer(t)
	p := harness.Start(t, harness.Secure(), i.trusting(t, ""))
	a, keys := appOf(t, p)
	platform := keys.Fetch(p.Auth(t)).AccessToken
	platformIssuer, platformKid := claims(t, platform)["iss"].(string), tokenPart(t, platform, 0)["kid"].(string)
	id := keys.AppInstanceID
	good := i.good(id)
	stranger, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	der, err := x509.MarshalPKIXPublicKey(i.rsa.Public())
	require.NoError(t, err)
	publicPEM := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
	es := func(c jwt.MapClaims, header object) string { return i.sign(t, jwt.SigningMethodES256, i.ec, c, header) }
	kid := object{"kid": "ec"}
	enc := base64.RawURLEncoding
	parts := strings.Split(platform, ".")
	ofPlatform := func(change func(object)) string {
		payload := claims(t, platform)
		change(payload)
		data, err := json.Marshal(payload)
		require.NoError(t, err)
		return parts[0] + "." + enc.EncodeToString(data) + "." + parts[2]
	}
	at := func(d time.Duration) int64 { return time.Now().Add(d).Unix() }
	for name, token := range map[string]string{
		"alg none":                   i.sign(t, jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, good, kid),
		"alg None":                   enc.EncodeToString([]byte(`{"alg":"None","kid":"ec"}`)) + "." + strings.Split(es(good, kid), ".")[1] + ".",
		"no signature":               strings.Join(strings.Split(es(good, kid), ".")[:2], ".") + ".",
		"HS256 with the public key":  i.sign(t, jwt.SigningMethodHS256, publicPEM, good, object{"kid": "rsa"}),
		"HS256 with its DER":         i.sign(t, jwt.SigningMethodHS256, der, good, object{"kid": "rsa"}),
		"HS256 with the JWKS":        i.sign(t, jwt.SigningMethodHS256, i.jwks(t), good, object{"kid": "ec"}),
		"no kid":                     es(good, nil),
		"an empty kid":               es(good, object{"kid": ""}),
		"a number for kid":           es(good, object{"kid": 1}),
		"a kid nobody has":           es(good, object{"kid": "nobody"}),
		"a kid that is a path":       es(good, object{"kid": "../../../../etc/passwd"}),
		"a kid of /dev/null":         i.sign(t, jwt.SigningMethodHS256, []byte{}, good, object{"kid": "/dev/null"}),
		"a kid with SQL":             es(good, object{"kid": "x' UNION SELECT 'key"}),
		"a very long kid":            es(good, object{"kid": strings.Repeat("k", 4000)}),
		"the kid of another key":     es(good, object{"kid": "ed"}),
		"another alg than the key's": i.sign(t, jwt.SigningMethodRS512, i.rsa, good, object{"kid": "rsa"}),
		"PS256 with an RS256 key":    i.sign(t, jwt.SigningMethodPS256, i.rsa, good, object{"kid": "rsa"}),
		"a stranger's key":           i.sign(t, jwt.SigningMethodES256, stranger, good, kid),
		"a key in the header":        i.sign(t, jwt.SigningMethodES256, stranger, good, object{"kid": "ec", "jwk": object{"kty": "EC", "crv": "P-256", "x": enc.EncodeToString(stranger.X.Bytes()), "y": enc.EncodeToString(stranger.Y.Bytes())}}),
		"a URL of keys in the header": i.sign(t, jwt.SigningMethodES256, stranger, good,
			object{"kid": "x", "jku": p.URL("auth") + "/.well-known/jwks.json", "x5u": "http://127.0.0.1:1/"}),
		"an extension nobody knows (crit)": es(good, object{"kid": "ec", "crit": []string{"exp2"}, "exp2": 1}),

		"expired":           es(with(good, "exp", at(-time.Hour)), kid),
		"no expiry":         es(with(good, "exp", nil), kid),
		"an expiry as text": es(with(good, "exp", "tomorrow"), kid),
		"not yet valid":     es(with(good, "nbf", at(time.Hour)), kid),
		"from the future":   es(with(good, "iat", at(time.Hour)), kid),
		"another audience":  es(with(good, "aud", "other"), kid),
		"no audience":       es(with(good, "aud", nil), kid),
		"a longer audience": es(with(good, "aud", "mep2"), kid),
		"another issuer":    es(with(good, "iss", "https://evil.example"), kid),
		"no issuer":         es(with(good, "iss", nil), kid),
		"a longer issuer":   es(with(good, "iss", i.name+"/"), kid),
		"no subject":        es(with(good, "sub", nil), kid),
		"an object subject": es(with(good, "sub", object{"a": 1}), kid),

		"one that claims the platform's issuer":         es(with(good, "iss", platformIssuer), kid),
		"one that claims the platform's issuer and key": es(with(good, "iss", platformIssuer), object{"kid": platformKid}),
		"one with the platform's client and epoch": es(with(with(with(good, "iss", platformIssuer), "client_id", claims(t, platform)["client_id"]), "epoch", claims(t, platform)["epoch"]),
			object{"kid": platformKid}),
		"the platform's with another subject": ofPlatform(func(o object) { o["sub"] = uuid.NewString() }),
		"the platform's with another scope":   ofPlatform(func(o object) { o["scope"] = "mp1 mm5 ops" }),
		"the platform's, later":               ofPlatform(func(o object) { o["exp"] = at(24 * time.Hour) }),
		"the platform's for the other issuer": ofPlatform(func(o object) { o["iss"] = i.name }),
		"the platform's, cut off":             platform[:len(platform)-3],
		"the platform's, with more":           platform + "AA",
		"the platform's, padded":              platform + "=",
		"the platform's, four parts":          platform + "." + parts[2],
		"one bit of its signature changed":    parts[0] + "." + parts[1] + "." + malleated(t, parts[2]),
		"two parts":                           parts[0] + "." + parts[1],
		"dots":                                "..",
		"a huge one":                          es(with(good, "x", strings.Repeat("a", 20000)), kid),
		"JSON":                                enc.EncodeToString([]byte("{}")) + "." + enc.EncodeToString([]byte("{}")) + "." + parts[2],
		"a JWE":                               "eyJhbGciOiJkaXIiLCJlbmMiOiJBMTI4R0NNIn0..aaaaaaaaaaaaaaaa.aaaa.aaaaaaaaaaaaaaaaaaaaaa",
	} {
		t.Run(name, func(t *testing.T) {
			for range 2 { // what is remembered of it does not help either
				challenge := unauthenticated(t, p.Client(t).With(token).Get(a.services()), "invalid_token")
				require.NotContains(t, challenge, token)
				require.Less(t, len(challenge), 1000)
			}
		})
	}
	p.Client(t).With(es(good, kid)).Get(a.services()).Is(200)
	a.Get(a.services()).Is(200)
}

// malleated changes one bit of a signature.
func malleated(t *testing.T, signature string) string {
	t.Helper()
	data, err := base64.RawURLEncoding.DecodeString(signature)
	require.NoError(t, err)
	data[40] ^= 1
	return base64.RawURLEncoding.EncodeToString(data)
}

func TestAFloodOfUnknownKeyIDsDoesNotReachTheIssuer(t *testing.T) {
	t.Parallel()
	i := newIssuer(t)
	var fetches atomic.Int64
	keys := i.jwks(t)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fetches.Add(1)
		_, _ = w.Write(keys)
	}))
	t.Cleanup(server.Close)
	p := harness.Start(t, harness.Secure(), harness.Config(fmt.Sprintf("auth:\n  issuers:\n  - {issuer: %q, jwksUrl: %q}\n", i.name, server.URL)))
	id := harness.Provision(p.Manager(t), nil).AppInstanceID
	a := app{Client: p.Client(t).With(i.sign(t, jwt.SigningMethodES256, i.ec, i.good(id), object{"kid": "ec"})), id: id}
	harness.Eventually(t, "the keys are fetched", func() error {
		answer := a.Get(a.services())
		return harness.Not(answer.Status == 200, "answered %d", answer.Status)
	})
	before := fetches.Load()
	var all sync.WaitGroup
	var refused atomic.Int64
	for w := range 4 {
		all.Go(func() {
			for n := range 50 {
				token := i.sign(t, jwt.SigningMethodES256, i.ec, i.good(id), object{"kid": fmt.Sprint("x", w, "-", n)})
				if answer, err := p.Client(t).With(token).Try("GET", services, nil); err == nil && answer.Status == 401 {
					refused.Add(1)
				}
			}
		})
	}
	all.Wait()
	require.EqualValues(t, 200, refused.Load())
	require.LessOrEqual(t, fetches.Load()-before, int64(2))
	a.Get(a.services()).Is(200)
}

func TestAnIssuerWhoseKeysCannotBeHadStopsNobodyElse(t *testing.T) {
	t.Parallel()
	i := newIssuer(t)
	untrusted := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(i.jwks(t)) }))
	t.Cleanup(untrusted.Close)
	for name, url := range map[string]string{"away": "https://127.0.0.1:1/jwks", "with a certificate of nobody known": untrusted.URL} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := harness.Start(t, harness.Secure(), harness.Config(fmt.Sprintf("auth:\n  issuers:\n  - {issuer: %q, jwksUrl: %q}\n", i.name, url)))
			a, _ := appOf(t, p)
			a.Get(a.services()).Is(200)
			answer := p.Client(t).With(i.sign(t, jwt.SigningMethodES256, i.ec, i.good(uuid.NewString()), object{"kid": "ec"})).Get(services)
			require.Contains(t, []int{401, 503}, answer.Status)
			a.Get(a.services()).Is(200)
		})
	}
}

func TestSettingsOfIssuersThatAreRefused(t *testing.T) {
	t.Parallel()
	i := newIssuer(t)
	jwks := file(t, "jwks.json", string(i.jwks(t)))
	for name, x := range map[string]struct{ issuer, says string }{
		"no keys":                 {"{issuer: x}", "jwksUrl"},
		"keys twice":              {"{issuer: x, jwksFile: y, jwksUrl: 'https://z'}", "jwksUrl"},
		"plain HTTP":              {"{issuer: x, jwksUrl: 'http://issuer.example/'}", "https"},
		"no issuer":               {"{jwksFile: " + jwks + "}", "issuer"},
		"alg none":                {"{issuer: x, jwksFile: " + jwks + ", algorithms: [none]}", "none"},
		"alg HS256":               {"{issuer: x, jwksFile: " + jwks + ", algorithms: [HS256]}", "HS256"},
		"an unknown scope":        {"{issuer: x, jwksFile: " + jwks + ", scopes: [root]}", "root"},
		"an unknown member":       {"{issuer: x, jwksFile: " + jwks + ", audiences: [a]}", "audiences"},
		"a file that is missing":  {"{issuer: x, jwksFile: /nonexistent/jwks.json}", "/nonexistent/jwks.json"},
		"a file that is no JWKS":  {"{issuer: x, jwksFile: " + file(t, "x.json", "hello") + "}", "JWK set"},
		"the platform's own name": {"{issuer: 'https://mep.example', jwksFile: " + jwks + "}\n  issuer: https://mep.example", "https://mep.example"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			config := file(t, "config.yaml", "auth:\n  issuers: \n  - "+x.issuer+"\n")
			out := harness.Run(t, "mep", []string{"run", "--config", config, "--data-dir", t.TempDir(), "--mm5-listen", "127.0.0.1:0", "--mp1-listen", "127.0.0.1:0", "--auth-listen", "127.0.0.1:0", "--ops-listen", "127.0.0.1:0"})
			require.Equal(t, 1, out.Code, "%s", out.Output)
			require.Contains(t, out.Output, x.says)
		})
	}
}
