package identity

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/MicahParks/jwkset"
	"github.com/gin-gonic/gin"
	"github.com/golang-jwt/jwt/v5"
	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/goleak"

	"github.com/openmep/mep/api/state"
	"github.com/openmep/mep/kit/errs"
	"github.com/openmep/mep/kit/etcd"
	"github.com/openmep/mep/kit/etcdtest"
	"github.com/openmep/mep/kit/httpx"
	"github.com/openmep/mep/kit/watched"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		goleak.IgnoreTopFunction("go.etcd.io/etcd/client/pkg/v3/fileutil.purgeFile.func1"),
		goleak.IgnoreTopFunction("gopkg.in/natefinch/lumberjack%2ev2.(*Logger).millRun"))
}

const (
	testIssuer = "https://mep.test"
	testClient = "AAAAAAAAAAAAAAAAAAAA"
	testEpoch  = "epoch-1"
)

// world is the etcd of a platform with one app, one credential and one signing key, and a verifier.
type world struct {
	tb       testing.TB
	store    *etcd.Store
	dir      *Directory
	verifier *Verifier
	cfg      Config
	app      string
	key      *ecdsa.PrivateKey
}

func newWorld(tb testing.TB, cfg Config) *world {
	tb.Helper()
	store := etcdtest.Start(tb).Store(tb)
	w := &world{tb: tb, store: store, app: uuid.NewString(), key: newECKey(tb)}
	mirror := watched.New(watched.Config{Source: store.Source, Prefix: state.Root, Logger: slog.New(slog.DiscardHandler)})
	w.dir = NewDirectory(mirror)
	if cfg.Audience == "" {
		cfg.Audience = "mep"
	}
	cfg.Leeway, cfg.TokenCache = 2*time.Second, max(cfg.TokenCache, 16)
	w.cfg = cfg
	var err error
	w.verifier, err = NewVerifier(&cfg, w.dir, slog.New(slog.DiscardHandler))
	require.NoError(tb, err)
	ctx, cancel := context.WithCancel(tb.Context())
	done := make(chan struct{})
	go func() { defer close(done); _ = mirror.Run(ctx) }()
	keys := make(chan struct{})
	go func() { defer close(keys); _ = w.verifier.Run(ctx) }()
	tb.Cleanup(func() { cancel(); <-done; <-keys })
	w.putKey("k1", w.key.Public(), state.SigningKey{Version: state.Current(), Algorithm: "ES256", NotBefore: time.Now()})
	w.put(state.IssuerKey(testIssuer), state.Issuer{Version: state.Current(), Issuer: testIssuer})
	w.putCredential(testEpoch, false)
	return w
}

func newECKey(tb testing.TB) *ecdsa.PrivateKey {
	tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(tb, err)
	return key
}

// put writes a record and waits until the directory shows it.
func (w *world) put(key string, rec any) {
	w.tb.Helper()
	value, err := json.Marshal(rec)
	require.NoError(w.tb, err)
	w.do(clientv3.OpPut(key, string(value)))
}

func (w *world) do(op clientv3.Op) {
	w.tb.Helper()
	_, err := w.store.Do(w.tb.Context(), op)
	require.NoError(w.tb, err)
	rev, err := w.store.Revision(w.tb.Context(), state.Root)
	require.NoError(w.tb, err)
	require.NoError(w.tb, w.dir.Mirror().WaitRevision(w.tb.Context(), rev))
}

func (w *world) putKey(kid string, public crypto.PublicKey, rec state.SigningKey) {
	w.tb.Helper()
	rec.JWK = jwkOf(w.tb, kid, public)
	w.put(state.SigningKeyKey(kid), rec)
}

func jwkOf(tb testing.TB, kid string, public crypto.PublicKey) json.RawMessage {
	tb.Helper()
	jwk, err := jwkset.NewJWKFromKey(public, jwkset.JWKOptions{Metadata: jwkset.JWKMetadataOptions{KID: kid, USE: jwkset.UseSig}})
	require.NoError(tb, err)
	raw, err := json.Marshal(jwk.Marshal())
	require.NoError(tb, err)
	return raw
}

func (w *world) putCredential(epoch string, disabled bool) {
	w.tb.Helper()
	w.put(state.CredentialKey(testClient), state.Credential{
		Version: state.Current(), Subject: w.app, Scopes: []string{ScopeMp1}, Epoch: epoch, Disabled: disabled,
	})
}

// claims returns the claims of a valid token; edit changes them.
func (w *world) claims(edit func(*Claims)) *Claims {
	now := time.Now()
	c := &Claims{
		RegisteredClaims: jwt.RegisteredClaims{
			Issuer: testIssuer, Subject: w.app, Audience: jwt.ClaimStrings{"mep"}, ID: uuid.NewString(),
			ExpiresAt: jwt.NewNumericDate(now.Add(time.Hour)), IssuedAt: jwt.NewNumericDate(now), NotBefore: jwt.NewNumericDate(now),
		},
		Scope: ScopeMp1, ClientID: testClient, Epoch: testEpoch,
	}
	if edit != nil {
		edit(c)
	}
	return c
}

func (w *world) token(edit func(*Claims)) string {
	w.tb.Helper()
	return signed(w.tb, jwt.SigningMethodES256, "k1", w.key, w.claims(edit))
}

func signed(tb testing.TB, method jwt.SigningMethod, kid string, key any, claims jwt.Claims) string {
	tb.Helper()
	t := jwt.NewWithClaims(method, claims)
	if kid != "" {
		t.Header["kid"] = kid
	}
	s, err := t.SignedString(key)
	require.NoError(tb, err)
	return s
}

// verify checks a token as the guard does.
func (w *world) verify(token string) (*Caller, error) {
	caller, err := w.verifier.Recall(token)
	if caller == nil && err == nil {
		caller, err = w.verifier.Verify(w.tb.Context(), token)
	}
	return caller, err
}

func TestGoodTokenNamesItsCaller(t *testing.T) {
	w := newWorld(t, Config{})
	token := w.token(func(c *Claims) { c.ClientAddress = "10.0.0.1" })
	for range 2 { // verified, then recalled
		caller, err := w.verify(token)
		require.NoError(t, err)
		require.Equal(t, w.app, caller.Subject)
		require.Equal(t, testClient, caller.ClientID)
		require.Equal(t, []string{ScopeMp1}, caller.Scopes)
		require.Equal(t, "10.0.0.1", caller.ClientAddress)
		require.Equal(t, "token", caller.Via)
	}
}

func TestBadTokensAreRefusedWithAReason(t *testing.T) {
	w := newWorld(t, Config{})
	w.putKey("k2", newECKey(t).Public(), state.SigningKey{
		Version: state.Current(), Algorithm: "ES256", NotBefore: time.Now().Add(-time.Hour), Expires: time.Now().Add(-time.Minute),
	})
	at := func(d time.Duration) *jwt.NumericDate { return jwt.NewNumericDate(time.Now().Add(d)) }
	der, err := x509.MarshalPKIXPublicKey(w.key.Public())
	require.NoError(t, err)
	good := w.token(nil)
	parts := strings.Split(good, ".")
	critical := jwt.NewWithClaims(jwt.SigningMethodES256, w.claims(nil))
	critical.Header["kid"], critical.Header["crit"] = "k1", []string{"exp"}
	extended, err := critical.SignedString(w.key)
	require.NoError(t, err)
	for name, c := range map[string]struct{ token, want string }{
		"expired":             {w.token(func(c *Claims) { c.ExpiresAt = at(-time.Minute) }), "expired at"},
		"no expiry":           {w.token(func(c *Claims) { c.ExpiresAt = nil }), "no expiry"},
		"not yet valid":       {w.token(func(c *Claims) { c.NotBefore = at(time.Minute) }), "not valid before"},
		"issued in future":    {w.token(func(c *Claims) { c.IssuedAt = at(time.Minute) }), "issued in the future"},
		"other audience":      {w.token(func(c *Claims) { c.Audience = jwt.ClaimStrings{"other"} }), "for the audience other"},
		"other issuer":        {w.token(func(c *Claims) { c.Issuer = "https://evil.test" }), "not trusted"},
		"no subject":          {w.token(func(c *Claims) { c.Subject = "" }), "no subject"},
		"other subject":       {w.token(func(c *Claims) { c.Subject = uuid.NewString() }), "revoked"},
		"unknown client":      {w.token(func(c *Claims) { c.ClientID = "BBBBBBBBBBBBBBBBBBBB" }), "revoked"},
		"former epoch":        {w.token(func(c *Claims) { c.Epoch = "epoch-0" }), "revoked"},
		"no kid":              {signed(t, jwt.SigningMethodES256, "", w.key, w.claims(nil)), "no kid"},
		"unknown kid":         {signed(t, jwt.SigningMethodES256, "k9", w.key, w.claims(nil)), "not known"},
		"expired key":         {signed(t, jwt.SigningMethodES256, "k2", w.key, w.claims(nil)), "not known"},
		"other key":           {signed(t, jwt.SigningMethodES256, "k1", newECKey(t), w.claims(nil)), "signature is wrong"},
		"algorithm none":      {signed(t, jwt.SigningMethodNone, "k1", jwt.UnsafeAllowNoneSignatureType, w.claims(nil)), "algorithm"},
		"public key as HMAC":  {signed(t, jwt.SigningMethodHS256, "k1", der, w.claims(nil)), "algorithm"},
		"other algorithm":     {base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"ES384","kid":"k1"}`)) + "." + parts[1] + "." + parts[2], "algorithm"},
		"changed payload":     {parts[0] + "." + base64.RawURLEncoding.EncodeToString([]byte(`{"sub":"x"}`)) + "." + parts[2], "signature is wrong"},
		"no signature":        {parts[0] + "." + parts[1] + ".", "signature is wrong"},
		"critical extension":  {extended, "crit"},
		"two parts":           {parts[0] + "." + parts[1], "malformed"},
		"five parts":          {good + ".x.y", "malformed"},
		"not base64":          {"%%%.%%%.%%%", "malformed"},
		"no JSON":             {"YQ.YQ.YQ", "malformed"},
		"empty":               {"", "malformed"},
		"longer than allowed": {strings.Repeat("a", MaxToken+1), "too long"},
	} {
		t.Run(name, func(t *testing.T) {
			caller, err := w.verify(c.token)
			require.Nil(t, caller)
			refusal := &Refusal{}
			require.ErrorAs(t, err, &refusal)
			require.Equal(t, codeToken, refusal.Code)
			require.ErrorContains(t, err, c.want)
		})
	}
}

func TestClocksMayDifferByTheLeeway(t *testing.T) {
	w := newWorld(t, Config{})
	for name, edit := range map[string]func(*Claims){
		"just expired":       func(c *Claims) { c.ExpiresAt = jwt.NewNumericDate(time.Now().Add(-time.Second)) },
		"valid in a second":  func(c *Claims) { c.NotBefore = jwt.NewNumericDate(time.Now().Add(time.Second)) },
		"issued in a second": func(c *Claims) { c.IssuedAt = jwt.NewNumericDate(time.Now().Add(time.Second)) },
	} {
		_, err := w.verify(w.token(edit))
		require.NoError(t, err, name)
	}
}

// TestVerifiedTokenIsRefusedOnceItIsRetracted verifies a token first, and then changes what the token depends on.
func TestVerifiedTokenIsRefusedOnceItIsRetracted(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*world, *Claims)
		want   string
	}{
		"credential deleted":  {func(w *world, _ *Claims) { w.do(clientv3.OpDelete(state.CredentialKey(testClient))) }, "revoked"},
		"credential replaced": {func(w *world, _ *Claims) { w.putCredential("epoch-2", false) }, "revoked"},
		"credential disabled": {func(w *world, _ *Claims) { w.putCredential(testEpoch, true) }, "disabled"},
		"token revoked": {func(w *world, c *Claims) {
			w.put(state.RevokedKey(c.ID), state.Revoked{Version: state.Current(), Expires: time.Now()})
		}, "revoked"},
		"key deleted":    {func(w *world, _ *Claims) { w.do(clientv3.OpDelete(state.SigningKeyKey("k1"))) }, "no longer in use"},
		"issuer unknown": {func(w *world, _ *Claims) { w.do(clientv3.OpDelete(state.IssuerKey(testIssuer))) }, "not trusted"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, Config{})
			claims := w.claims(nil)
			token := signed(t, jwt.SigningMethodES256, "k1", w.key, claims)
			_, err := w.verify(token)
			require.NoError(t, err)
			c.change(w, claims)
			_, err = w.verifier.Recall(token)
			require.ErrorContains(t, err, c.want)
			_, err = w.verifier.Verify(t.Context(), token)
			require.Error(t, err)
		})
	}
}

func TestChangeThatDoesNotConcernATokenLeavesItGood(t *testing.T) {
	w := newWorld(t, Config{})
	token := w.token(nil)
	first, err := w.verify(token)
	require.NoError(t, err)
	w.put(state.RevokedKey("another"), state.Revoked{Version: state.Current(), Expires: time.Now()})
	again, err := w.verifier.Recall(token)
	require.NoError(t, err)
	require.Same(t, first, again)
}

func TestCacheForgetsWhatExpiresAndNeverGrowsOverItsBound(t *testing.T) {
	w := newWorld(t, Config{TokenCache: 32})
	for range 200 {
		_, err := w.verify(w.token(nil))
		require.NoError(t, err)
		require.LessOrEqual(t, w.verifier.cache.size.Load(), int64(32))
	}
	kept := 0
	w.verifier.cache.known.Range(func(any, any) bool { kept++; return true })
	require.EqualValues(t, w.verifier.cache.size.Load(), kept)

	short := w.token(func(c *Claims) { c.ExpiresAt = jwt.NewNumericDate(time.Now().Add(time.Minute)) })
	_, err := w.verify(short)
	require.NoError(t, err)
	w.verifier.now = func() time.Time { return time.Now().Add(2 * time.Minute) }
	caller, err := w.verifier.Recall(short)
	require.Nil(t, caller)
	require.NoError(t, err)
	_, err = w.verify(short)
	require.ErrorContains(t, err, "expired")
}

// external is an issuer besides the platform.
type external struct {
	key   *ecdsa.PrivateKey
	keys  atomic.Pointer[[]byte]
	asked atomic.Int64
	url   string
}

func newExternal(t *testing.T) *external {
	t.Helper()
	e := &external{key: newECKey(t)}
	e.publish(t, "x1", e.key.Public())
	srv := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
		e.asked.Add(1)
		_, _ = rw.Write(*e.keys.Load())
	}))
	t.Cleanup(srv.Close)
	e.url = srv.URL
	return e
}

func (e *external) publish(t *testing.T, kid string, public crypto.PublicKey) {
	t.Helper()
	set, err := json.Marshal(map[string]any{"keys": []json.RawMessage{jwkOf(t, kid, public)}})
	require.NoError(t, err)
	e.keys.Store(&set)
}

func TestTrustedIssuerSpeaksForItsCallers(t *testing.T) {
	e := newExternal(t)
	const issuer = "https://idp.test/realms/edge"
	w := newWorld(t, Config{Issuers: []TrustedIssuer{{
		Issuer: issuer, Audience: "edge", JWKSURL: e.url, Scopes: []string{ScopeMp1}, Grant: []string{ScopeOps}, SubjectClaim: "azp",
	}}})
	app := strings.ToUpper(uuid.NewString())
	claims := func(edit func(jwt.MapClaims)) string {
		c := jwt.MapClaims{
			"iss": issuer, "sub": "service-account", "azp": app, "aud": []string{"account", "edge"},
			"exp": time.Now().Add(time.Hour).Unix(), "scope": "email mp1 mm5",
		}
		edit(c)
		return signed(t, jwt.SigningMethodES256, "x1", e.key, c)
	}
	require.Eventually(t, func() bool {
		_, err := w.verify(claims(func(jwt.MapClaims) {}))
		return err == nil
	}, 20*time.Second, 10*time.Millisecond, "the keys are fetched")
	caller, err := w.verify(claims(func(jwt.MapClaims) {}))
	require.NoError(t, err)
	require.Equal(t, strings.ToLower(app), caller.Subject)
	require.ElementsMatch(t, []string{ScopeMp1, ScopeOps}, caller.Scopes, "mm5 is not among the scopes that count")
	require.ElementsMatch(t, []string{ScopeMp1, ScopeOps, "email"}, caller.Granted, "those that mean nothing here are kept")
	for scope, holds := range map[string]bool{ScopeMp1: true, ScopeOps: true, "email": true, ScopeMm5: false, "calendar": false} {
		require.Equal(t, holds, caller.Holds(scope), scope)
	}

	for name, c := range map[string]struct {
		edit func(jwt.MapClaims)
		want string
	}{
		"the platform's audience": {func(c jwt.MapClaims) { c["aud"] = "mep" }, "audience"},
		"no subject claim":        {func(c jwt.MapClaims) { delete(c, "azp") }, "no claim azp"},
		"subject claim no text":   {func(c jwt.MapClaims) { c["azp"] = 1 }, "no claim azp"},
		"the platform's issuer":   {func(c jwt.MapClaims) { c["iss"] = testIssuer; c["aud"] = "mep" }, "not known"},
	} {
		_, err := w.verify(claims(c.edit))
		require.ErrorContains(t, err, c.want, name)
	}
	_, err = w.verify(w.token(func(c *Claims) { c.Issuer = issuer; c.Audience = jwt.ClaimStrings{"edge"} }))
	require.Error(t, err, "the platform's key does not speak for the issuer")
}

func TestUnknownKeysOfAnIssuerAreFetchedButNotAgainAndAgain(t *testing.T) {
	e := newExternal(t)
	const issuer = "https://idp.test"
	w := newWorld(t, Config{Issuers: []TrustedIssuer{{Issuer: issuer, JWKSURL: e.url}}})
	next := newECKey(t)
	claims := jwt.MapClaims{"iss": issuer, "sub": uuid.NewString(), "aud": "mep", "exp": time.Now().Add(time.Hour).Unix()}
	require.Eventually(t, func() bool { return e.asked.Load() > 0 }, 20*time.Second, 5*time.Millisecond)
	e.publish(t, "x2", next.Public())
	require.Eventually(t, func() bool {
		_, err := w.verify(signed(t, jwt.SigningMethodES256, "x2", next, claims))
		return err == nil
	}, 20*time.Second, 5*time.Millisecond, "a key it has since published is fetched")
	before := e.asked.Load()
	for range 50 {
		_, err := w.verify(signed(t, jwt.SigningMethodES256, "x"+uuid.NewString(), next, claims))
		require.ErrorContains(t, err, "kid")
	}
	require.LessOrEqual(t, e.asked.Load()-before, int64(1), "50 unknown keys")
}

func TestKeysInAFileMustBeReadable(t *testing.T) {
	file := filepath.Join(t.TempDir(), "keys.json")
	cfg := &Config{Audience: "mep", TokenCache: 1, Issuers: []TrustedIssuer{{Issuer: "https://idp.test", JWKSFile: file}}}
	_, err := NewVerifier(cfg, nil, slog.New(slog.DiscardHandler))
	require.ErrorContains(t, err, "keys.json")
	require.NoError(t, os.WriteFile(file, []byte("{"), 0o600))
	_, err = NewVerifier(cfg, nil, slog.New(slog.DiscardHandler))
	require.ErrorContains(t, err, "not a JWK set")
	require.NoError(t, os.WriteFile(file, []byte(`{"keys":[`+string(jwkOf(t, "f", newECKey(t).Public()))+`]}`), 0o600))
	_, err = NewVerifier(cfg, nil, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
}

func TestIssuerThatIsAwayIsNoRefusal(t *testing.T) {
	e := newExternal(t)
	var away atomic.Bool
	away.Store(true)
	srv := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
		if away.Load() {
			rw.WriteHeader(http.StatusBadGateway)
			return
		}
		_, _ = rw.Write(*e.keys.Load())
	}))
	t.Cleanup(srv.Close)
	w := newWorld(t, Config{Issuers: []TrustedIssuer{{Issuer: "https://idp.test", JWKSURL: srv.URL}}})
	claims := jwt.MapClaims{"iss": "https://idp.test", "sub": "x", "aud": "mep", "exp": time.Now().Add(time.Hour).Unix()}
	token := signed(t, jwt.SigningMethodES256, "x1", e.key, claims)
	for range 3 {
		_, err := w.verify(token)
		require.ErrorIs(t, err, errs.Unavailable)
	}
	away.Store(false)
	require.Eventually(t, func() bool {
		_, err := w.verify(token)
		return err == nil
	}, 10*time.Second, 20*time.Millisecond, "it is tried again soon")
}

func TestPlatformsOwnNameIsNobodyElses(t *testing.T) {
	e := newExternal(t)
	w := newWorld(t, Config{Issuers: []TrustedIssuer{{Issuer: testIssuer, JWKSURL: e.url}}})
	_, err := w.verify(signed(t, jwt.SigningMethodES256, "x1", e.key, w.claims(nil)))
	require.ErrorContains(t, err, "not known")
	_, err = w.verify(w.token(nil))
	require.NoError(t, err)
	w.putCredential("epoch-2", false)
	_, err = w.verify(w.token(nil))
	require.ErrorContains(t, err, "revoked")
}

func TestRulesForCertificates(t *testing.T) {
	app := uuid.NewString()
	uri := func(s string) []*url.URL {
		u, err := url.Parse(s)
		require.NoError(t, err)
		return []*url.URL{u}
	}
	cert := &x509.Certificate{
		URIs: uri("spiffe://edge/app/" + strings.ToUpper(app)), DNSNames: []string{"mepm.example"}, EmailAddresses: []string{"ops@example"},
	}
	cert.Subject.CommonName = "node-7"
	for name, c := range map[string]struct {
		rule CertRule
		want string
	}{
		"placeholder in a URI":   {CertRule{URI: "spiffe://edge/app/{caller}"}, strings.ToUpper(app)},
		"another URI":            {CertRule{URI: "spiffe://edge/other/{caller}"}, ""},
		"more than one segment":  {CertRule{URI: "spiffe://edge/{caller}"}, ""},
		"placeholder in a name":  {CertRule{DNS: "{caller}.example"}, "mepm"},
		"literal name":           {CertRule{DNS: "mepm.example", Caller: "mepm"}, "mepm"},
		"literal name, other":    {CertRule{DNS: "mepm.exampl", Caller: "mepm"}, ""},
		"email":                  {CertRule{Email: "{caller}@example"}, "ops"},
		"common name":            {CertRule{CommonName: "node-{caller}"}, "7"},
		"placeholder for nobody": {CertRule{CommonName: "node-7{caller}"}, ""},
	} {
		got, _ := c.rule.match(cert)
		require.Equal(t, c.want, got, name)
	}
}

func TestConfigurationFaultsAreNamed(t *testing.T) {
	for want, cfg := range map[string]Config{
		"auth.leeway must be":                                  {Leeway: time.Hour},
		"proxies: \"10\" is not a network":                     {Proxies: []string{"10"}},
		"auth.issuers[0].issuer is required":                   {Issuers: []TrustedIssuer{{JWKSFile: "f"}}},
		"jwksUrl: give either":                                 {Issuers: []TrustedIssuer{{Issuer: "i"}}},
		"must be https":                                        {Issuers: []TrustedIssuer{{Issuer: "i", JWKSURL: "http://idp.test/"}}},
		"algorithms: \"HS256\" is not":                         {Issuers: []TrustedIssuer{{Issuer: "i", JWKSFile: "f", Algorithms: []string{"HS256"}}}},
		"scopes: \"root\" is not":                              {Issuers: []TrustedIssuer{{Issuer: "i", JWKSFile: "f", Scopes: []string{"root"}}}},
		"occurs twice":                                         {Issuers: []TrustedIssuer{{Issuer: "i", JWKSFile: "f"}, {Issuer: "i", JWKSFile: "f"}}},
		"clientCertificates[0]: give one of":                   {Certificates: []CertRule{{Scopes: []string{ScopeMp1}}}},
		"clientCertificates[0].scopes is required":             {Certificates: []CertRule{{DNS: "{caller}"}}},
		"say who the caller is":                                {Certificates: []CertRule{{DNS: "a", Scopes: []string{ScopeMp1}}}},
		"clientCertificates[0]: {caller} may occur once":       {Certificates: []CertRule{{DNS: "{caller}{caller}", Scopes: []string{ScopeMp1}}}},
		"clientCertificates[0].scopes: \"root\" is not one of": {Certificates: []CertRule{{DNS: "{caller}", Scopes: []string{"root"}}}},
	} {
		cfg.Audience, cfg.TokenCache = "mep", 1
		require.ErrorContains(t, cfg.Validate(), want)
	}
	require.NoError(t, (&Config{Audience: "mep", TokenCache: 1, Issuers: []TrustedIssuer{{Issuer: "i", JWKSURL: "http://localhost/k"}}}).Validate())
}

// guarded returns a router with a guard in front of one application's resources.
func guarded(t *testing.T, w *world, open bool) (http.Handler, *prometheus.Registry) {
	t.Helper()
	reg := prometheus.NewRegistry()
	g, err := NewGuard(&w.cfg, w.dir, open, nil, slog.New(slog.DiscardHandler), reg)
	require.NoError(t, err)
	limits := httpx.Limits{}.WithDefaults()
	r := httpx.NewRouter("mp1", slog.New(slog.DiscardHandler), httpx.NewMetrics(prometheus.NewRegistry()), func() httpx.Limits { return limits })
	r.Use(g.Require("mp1", ScopeMp1))
	r.GET("/who", func(c *gin.Context) { c.String(http.StatusOK, Subject(c)) })
	r.GET("/applications/:id/x", g.Own("mp1", "id"), func(c *gin.Context) { c.String(http.StatusOK, "own") })
	return r, reg
}

func TestGuardLetsInWhomItShould(t *testing.T) {
	w := newWorld(t, Config{})
	secure, _ := guarded(t, w, false)
	open, _ := guarded(t, w, true)
	good := "Bearer " + w.token(nil)
	mm5 := "Bearer " + w.token(func(c *Claims) { c.Scope = "mm5 ops" })
	bound := "Bearer " + w.token(func(c *Claims) { c.ClientAddress = "10.9.9.9" })
	for name, c := range map[string]struct {
		handler http.Handler
		path    string
		auth    []string
		status  int
		says    string
	}{
		"good token":                 {secure, "/who", []string{good}, 200, w.app},
		"scheme in another case":     {secure, "/who", []string{"bEARER" + good[6:]}, 200, w.app},
		"no token":                   {secure, "/who", nil, 401, "there is no token"},
		"no token, open":             {open, "/who", nil, 200, ""},
		"bad token, open":            {open, "/who", []string{"Bearer x.y.z"}, 401, "malformed"},
		"Basic":                      {secure, "/who", []string{"Basic eDp5"}, 401, "must be: Bearer"},
		"two headers":                {secure, "/who", []string{good, good}, 400, "several"},
		"token in the query":         {secure, "/who?access_token=" + good[7:], nil, 401, "there is no token"},
		"empty token":                {secure, "/who", []string{"Bearer "}, 401, "malformed"},
		"blanks within":              {secure, "/who", []string{good + " " + good[7:]}, 401, "malformed"},
		"scope missing":              {secure, "/who", []string{mm5}, 403, "needs the scope mp1"},
		"bound to another address":   {secure, "/who", []string{bound}, 401, "another client address"},
		"own resource":               {secure, "/applications/" + w.app + "/x", []string{good}, 200, "own"},
		"own resource in upper case": {secure, "/applications/" + strings.ToUpper(w.app) + "/x", []string{good}, 200, "own"},
		"somebody else's":            {secure, "/applications/" + uuid.NewString() + "/x", []string{good}, 403, "its own"},
		"somebody else's, open":      {open, "/applications/" + uuid.NewString() + "/x", nil, 200, "own"},
	} {
		t.Run(name, func(t *testing.T) {
			req := httptest.NewRequestWithContext(t.Context(), http.MethodGet, c.path, nil)
			req.Header["Authorization"] = c.auth
			if c.auth == nil {
				delete(req.Header, "Authorization")
			}
			rec := httptest.NewRecorder()
			c.handler.ServeHTTP(rec, req)
			require.Equal(t, c.status, rec.Code, rec.Body)
			require.Contains(t, rec.Body.String(), c.says)
			if c.status == http.StatusUnauthorized {
				challenge := rec.Header().Get("WWW-Authenticate")
				require.True(t, strings.HasPrefix(challenge, `Bearer realm="mep"`), challenge)
				require.Contains(t, challenge, `error_description="`)
				require.Contains(t, challenge, `scope="mp1"`)
			}
		})
	}
}

func FuzzTokens(f *testing.F) {
	w := newWorld(f, Config{})
	f.Add(w.token(nil))
	f.Add("a.b.c")
	f.Add(base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"ES256","kid":{}}`)) + ".e30.AA")
	good := w.token(nil)
	f.Fuzz(func(t *testing.T, token string) {
		caller, err := w.verifier.Verify(t.Context(), token)
		if err == nil {
			require.Equal(t, w.app, caller.Subject)
			require.Equal(t, good[:20], token[:20], "only what was signed is taken")
		}
	})
}

func BenchmarkRecall(b *testing.B) {
	w := newWorld(b, Config{})
	token := w.token(nil)
	_, err := w.verify(token)
	require.NoError(b, err)
	b.ReportAllocs()
	for b.Loop() {
		if c, err := w.verifier.Recall(token); c == nil || err != nil {
			b.Fatal("forgotten")
		}
	}
}
