package identity

import (
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"log/slog"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/kit/errs"
)

const otherIssuer = "https://idp.test"

// reload changes the settings of the world's verifier.
func (w *world) reload(edit func(*Config)) {
	w.tb.Helper()
	apply, err := w.prepared(edit)
	require.NoError(w.tb, err)
	apply()
}

func (w *world) prepared(edit func(*Config)) (apply func(), err error) {
	cfg := w.cfg
	edit(&cfg)
	return w.verifier.Prepare(&cfg)
}

func trusting(issuers ...TrustedIssuer) func(*Config) {
	return func(c *Config) { c.Issuers = issuers }
}

// token returns a token of the external issuer, a different one each time.
func (e *external) token(t *testing.T) string {
	t.Helper()
	return signed(t, jwt.SigningMethodES256, "x1", e.key, jwt.MapClaims{
		"iss": otherIssuer, "sub": uuid.NewString(), "aud": "mep", "scope": "mp1 mm5", "jti": uuid.NewString(),
		"exp": time.Now().Add(time.Hour).Unix(),
	})
}

// file returns a file with the issuer's key set.
func (e *external) file(t *testing.T) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "keys.json")
	require.NoError(t, os.WriteFile(name, *e.keys.Load(), 0o600))
	return name
}

// remembered verifies a token and checks that it is remembered.
func (w *world) remembered(token string) {
	w.tb.Helper()
	_, err := w.verify(token)
	require.NoError(w.tb, err)
	caller, err := w.verifier.Recall(token)
	require.NoError(w.tb, err)
	require.NotNil(w.tb, caller)
}

func (w *world) refused(token, why string) {
	w.tb.Helper()
	caller, err := w.verify(token)
	require.Nil(w.tb, caller)
	refusal := &Refusal{}
	require.ErrorAs(w.tb, err, &refusal)
	require.ErrorContains(w.tb, err, why)
}

func TestIssuersComeAndGoWithReloads(t *testing.T) {
	e := newExternal(t)
	w := newWorld(t, Config{})
	own, theirs := w.token(nil), e.token(t)
	w.remembered(own)
	for round := range 3 {
		w.refused(theirs, "not trusted")
		w.reload(trusting(TrustedIssuer{Issuer: otherIssuer, JWKSURL: e.url}))
		var all sync.WaitGroup // all wait for keys that are not there yet
		for range 8 {
			all.Go(func() {
				if _, err := w.verifier.Verify(t.Context(), theirs); err != nil {
					t.Errorf("a new issuer: %v", err)
				}
			})
		}
		all.Wait()
		w.remembered(theirs)
		require.EqualValues(t, round+1, e.asked.Load(), "they are fetched once")
		w.reload(trusting())
		require.EqualValues(t, 1, w.verifier.cache.size.Load(), "what is remembered of it takes no room")
		caller, err := w.verifier.Recall(theirs)
		require.NoError(t, err)
		require.Nil(t, caller, "what was remembered of it is gone with it")
		w.refused(theirs, "not trusted")
		caller, err = w.verifier.Recall(own)
		require.NoError(t, err)
		require.NotNil(t, caller, "the platform's own tokens stay remembered")
	}
}

func TestAnIssuerThatIsTrustedInAnotherWayStartsAnew(t *testing.T) {
	e, next := newExternal(t), newExternal(t)
	was := TrustedIssuer{Issuer: otherIssuer, JWKSURL: e.url, Scopes: []string{ScopeMp1, ScopeMm5}}
	for name, c := range map[string]struct {
		change func(*TrustedIssuer)
		check  func(w *world, token string)
	}{
		"keys elsewhere": {func(i *TrustedIssuer) { i.JWKSURL = next.url }, func(w *world, token string) {
			w.refused(token, "signature is wrong")
			w.remembered(next.token(t))
		}},
		"keys in a file": {func(i *TrustedIssuer) { i.JWKSURL, i.JWKSFile = "", next.file(t) }, func(w *world, token string) {
			w.refused(token, "signature is wrong")
			w.remembered(next.token(t))
		}},
		"another audience": {func(i *TrustedIssuer) { i.Audience = "edge" }, func(w *world, token string) { w.refused(token, "not for edge") }},
		"other algorithms": {func(i *TrustedIssuer) { i.Algorithms = []string{"RS256"} }, func(w *world, token string) {
			w.refused(token, "must not be signed with ES256")
		}},
		"fewer scopes": {func(i *TrustedIssuer) { i.Scopes = []string{ScopeMp1} }, func(w *world, token string) {
			caller, err := w.verify(token)
			require.NoError(t, err)
			require.Equal(t, []string{ScopeMp1}, caller.Scopes)
		}},
		"the claim of another subject": {func(i *TrustedIssuer) { i.SubjectClaim = "azp" }, func(w *world, token string) { w.refused(token, "no claim azp") }},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, Config{Issuers: []TrustedIssuer{was}})
			token := e.token(t)
			w.remembered(token)
			is := was
			c.change(&is)
			w.reload(trusting(is))
			c.check(w, token)
		})
	}
}

func TestAnIssuerThatStaysKeepsItsKeys(t *testing.T) {
	e, another := newExternal(t), newExternal(t)
	stays := TrustedIssuer{Issuer: otherIssuer, JWKSURL: e.url}
	w := newWorld(t, Config{Issuers: []TrustedIssuer{stays}})
	token := e.token(t)
	w.remembered(token)
	first, err := w.verifier.Recall(token)
	require.NoError(t, err)
	asked, kept := e.asked.Load(), w.verifier.trust.Load().issuers[otherIssuer]
	another.publish(t, "y1", another.key.Public())
	w.reload(func(c *Config) {
		c.Issuers = []TrustedIssuer{{Issuer: "https://another.test", JWKSURL: another.url}, stays}
		c.Leeway, c.Certificates = time.Second, []CertRule{{DNS: "{caller}", Scopes: []string{ScopeMp1}}}
	})
	require.Eventually(t, func() bool { return another.asked.Load() > 0 }, 20*time.Second, time.Millisecond, "the other one is followed")
	again, err := w.verifier.Recall(token)
	require.NoError(t, err)
	require.Same(t, first, again, "what was remembered of it stays")
	w.remembered(e.token(t))
	require.Same(t, kept, w.verifier.trust.Load().issuers[otherIssuer])
	require.Equal(t, asked, e.asked.Load(), "nothing is fetched again")

	now := w.verifier.trust.Load()
	w.reload(func(c *Config) {
		c.Issuers = []TrustedIssuer{{Issuer: "https://another.test", JWKSURL: another.url}, stays}
		c.Leeway, c.Certificates = time.Second, []CertRule{{DNS: "{caller}", Scopes: []string{ScopeMp1}}}
	})
	require.Same(t, now, w.verifier.trust.Load(), "settings that are the same change nothing")
}

func TestAnotherCAForTheKeysOfAnIssuerIsAnotherIssuer(t *testing.T) {
	e := newExternal(t)
	srv := httptest.NewTLSServer(http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) { _, _ = rw.Write(*e.keys.Load()) }))
	t.Cleanup(srv.Close)
	srv.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	good := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw})
	ca := filepath.Join(t.TempDir(), "ca.crt")
	require.NoError(t, os.WriteFile(ca, good, 0o600))
	trusted := trusting(TrustedIssuer{Issuer: otherIssuer, JWKSURL: srv.URL, CAFile: ca})
	w := newWorld(t, Config{})
	w.reload(trusted)
	token := e.token(t)
	w.remembered(token)
	kept := w.verifier.trust.Load()
	w.reload(trusted)
	require.Same(t, kept, w.verifier.trust.Load())

	stranger := certificateOf(t)
	require.NoError(t, os.WriteFile(ca, stranger, 0o600))
	w.reload(trusted)
	_, err := w.verify(token)
	require.ErrorIs(t, err, errs.Unavailable, "its server is not trusted any more, nor are the keys it gave")
	require.NoError(t, os.WriteFile(ca, append(stranger, good...), 0o600))
	w.reload(trusted)
	w.remembered(token)
}

// certificateOf returns a certificate of nobody.
func certificateOf(t *testing.T) []byte {
	t.Helper()
	key := newECKey(t)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	require.NoError(t, err)
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// TestAnIssuerThatGoesWhileItsTokenIsVerified checks that a verification by a former trust does not count.
func TestAnIssuerThatGoesWhileItsTokenIsVerified(t *testing.T) {
	e := newExternal(t)
	t.Run("between two steps", func(t *testing.T) {
		w := newWorld(t, Config{Issuers: []TrustedIssuer{{Issuer: otherIssuer, JWKSFile: e.file(t)}}})
		apply, err := w.prepared(trusting())
		require.NoError(t, err)
		token := e.token(t)
		begun := sync.OnceFunc(apply)
		w.verifier.now = func() time.Time { begun(); return time.Now() } // called once the trust has been loaded
		_, err = w.verifier.Verify(t.Context(), token)
		require.ErrorContains(t, err, "not trusted")
		require.Zero(t, w.verifier.cache.size.Load())
	})
	t.Run("one that comes", func(t *testing.T) {
		w := newWorld(t, Config{})
		apply, err := w.prepared(trusting(TrustedIssuer{Issuer: otherIssuer, JWKSFile: e.file(t)}))
		require.NoError(t, err)
		begun := sync.OnceFunc(apply)
		w.verifier.now = func() time.Time { begun(); return time.Now() }
		_, err = w.verifier.Verify(t.Context(), e.token(t))
		require.NoError(t, err)
	})
	t.Run("after it was verified", func(t *testing.T) {
		w := newWorld(t, Config{Issuers: []TrustedIssuer{{Issuer: otherIssuer, JWKSFile: e.file(t)}}})
		token := e.token(t)
		w.remembered(token)
		late := w.verifier.cache.get(token)
		w.reload(trusting())
		w.verifier.cache.put(token, late)
		w.refused(token, "not trusted")
	})
	t.Run("while its keys are fetched", func(t *testing.T) {
		fetching := make(chan struct{}, 1)
		srv := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			fetching <- struct{}{}
			<-r.Context().Done()
		}))
		t.Cleanup(srv.Close)
		w := newWorld(t, Config{Issuers: []TrustedIssuer{{Issuer: otherIssuer, JWKSURL: srv.URL}}})
		verdict, token := make(chan error, 1), e.token(t)
		go func() {
			_, err := w.verifier.Verify(t.Context(), token)
			verdict <- err
		}()
		<-fetching
		w.reload(trusting())
		require.ErrorContains(t, <-verdict, "not trusted")
	})
}

func TestAnIssuerThatIsGoneIsNotFollowed(t *testing.T) {
	e := newExternal(t)
	w := newWorld(t, Config{Issuers: []TrustedIssuer{{Issuer: otherIssuer, JWKSURL: e.url}}})
	w.remembered(e.token(t))
	gone := w.verifier.trust.Load().issuers[otherIssuer]
	w.reload(trusting())
	require.Eventually(t, func() bool {
		gone.mu.Lock()
		defer gone.mu.Unlock()
		return gone.failed // its last fetch had succeeded
	}, 20*time.Second, time.Millisecond)
}

func TestReloadsDisturbNoVerification(t *testing.T) {
	e := newExternal(t)
	with := trusting(TrustedIssuer{Issuer: otherIssuer, JWKSFile: e.file(t)})
	w := newWorld(t, Config{TokenCache: 64})
	tokens := make([]string, 16)
	for i := range tokens {
		tokens[i] = e.token(t)
	}
	var ended atomic.Bool
	var busy sync.WaitGroup
	for n := range 4 {
		own := w.token(nil)
		busy.Go(func() {
			for i := n; !ended.Load(); i++ {
				if _, err := w.verify(own); err != nil {
					t.Errorf("the platform's own token: %v", err)
					return
				}
				_, _ = w.verify(tokens[i%len(tokens)]) // good or not, as it happens
			}
		})
	}
	for range 50 {
		w.reload(with)
		for _, token := range tokens {
			if _, err := w.verify(token); err != nil {
				t.Errorf("of a trusted issuer: %v", err)
			}
		}
		w.reload(trusting())
		for _, token := range tokens {
			if caller, err := w.verify(token); err == nil || caller != nil {
				t.Error("a token of an issuer that is not trusted any more is taken")
			}
		}
	}
	ended.Store(true)
	busy.Wait()
}

func TestSettingsThatCannotBeUsedChangeNothing(t *testing.T) {
	e := newExternal(t)
	dir := t.TempDir()
	write := func(name, text string) string {
		name = filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(name, []byte(text), 0o600))
		return name
	}
	stays := TrustedIssuer{Issuer: otherIssuer, JWKSFile: e.file(t)}
	w := newWorld(t, Config{Issuers: []TrustedIssuer{stays}})
	token := e.token(t)
	w.remembered(token)
	before := w.verifier.trust.Load()
	for name, c := range map[string]struct {
		bad  TrustedIssuer
		want string
	}{
		"no file":             {TrustedIssuer{Issuer: "i", JWKSFile: filepath.Join(dir, "nowhere.json")}, "auth.issuers[1]: keys of the issuer i: open"},
		"no key set":          {TrustedIssuer{Issuer: "i", JWKSFile: write("bad.json", "{")}, "is not a JWK set"},
		"no CA":               {TrustedIssuer{Issuer: "i", JWKSURL: e.url, CAFile: write("bad.crt", "x")}, "bad.crt holds no certificate"},
		"the platform's name": {TrustedIssuer{Issuer: testIssuer, JWKSURL: e.url}, "is the name of the platform's own tokens"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := w.prepared(func(cfg *Config) { cfg.Issuers, cfg.Leeway, cfg.TokenCache = []TrustedIssuer{stays, c.bad}, 0, 1 })
			require.ErrorContains(t, err, c.want)
			require.Same(t, before, w.verifier.trust.Load())
			w.remembered(token)
		})
	}
	_, err := w.prepared(trusting())
	require.NoError(t, err)
	w.remembered(token) // preparing without applying drops nothing either
}

func TestLeewayOfAReloadIsThatOfRememberedTokensToo(t *testing.T) {
	w := newWorld(t, Config{})
	w.reload(func(c *Config) { c.Leeway = time.Minute })
	late := w.token(func(c *Claims) { c.ExpiresAt = jwt.NewNumericDate(time.Now().Add(-30 * time.Second)) })
	early := w.token(func(c *Claims) { c.NotBefore = jwt.NewNumericDate(time.Now().Add(30 * time.Second)) })
	w.remembered(late)
	w.remembered(early)
	w.reload(func(c *Config) { c.Leeway = time.Second })
	w.refused(late, "expired")
	w.refused(early, "not valid before")
	w.reload(func(c *Config) { c.Leeway = time.Minute })
	w.remembered(late)
	w.remembered(early)
	w.reload(func(c *Config) { c.Leeway = 45 * time.Second })
	w.remembered(late)
	w.verifier.now = func() time.Time { return time.Now().Add(20 * time.Second) }
	w.refused(late, "expired")
}

func TestTheCacheOfTokensIsResized(t *testing.T) {
	w := newWorld(t, Config{TokenCache: 64})
	tokens := make([]string, 64)
	for i := range tokens {
		tokens[i] = w.token(nil)
		w.remembered(tokens[i])
	}
	remembered := func() (n int) {
		for _, token := range tokens {
			if caller, err := w.verifier.Recall(token); err == nil && caller != nil {
				n++
			}
		}
		return n
	}
	w.reload(func(c *Config) { c.TokenCache = 128 })
	require.Equal(t, 64, remembered(), "a larger one loses nothing")
	w.reload(func(c *Config) { c.TokenCache = 32 })
	require.Equal(t, 30, remembered(), "a smaller one keeps what there is room for, less a sixteenth")
	for _, token := range tokens {
		_, err := w.verify(token)
		require.NoError(t, err)
		require.LessOrEqual(t, w.verifier.cache.size.Load(), int64(32))
	}
}

func TestRulesForCertificatesCountFromTheNextRequestOn(t *testing.T) {
	w := newWorld(t, Config{})
	w.cfg.Certificates = []CertRule{{DNS: "{caller}.example", Scopes: []string{ScopeMm5}}}
	g, err := NewGuard(&w.cfg, w.dir, false, nil, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	require.NoError(t, err)
	cert := &x509.Certificate{DNSNames: []string{"mepm.example"}, NotAfter: time.Now().Add(time.Hour)}
	conn := &tls.ConnectionState{VerifiedChains: [][]*x509.Certificate{{cert}}} // stays open throughout
	scopes := func() []string {
		caller, err := g.Certificate(conn)
		require.NoError(t, err)
		if caller == nil {
			return nil
		}
		return caller.Scopes
	}
	require.Equal(t, []string{ScopeMm5}, scopes())
	for name, c := range map[string]struct {
		rules []CertRule
		want  []string
	}{
		"less": {[]CertRule{{DNS: "{caller}.example", Scopes: []string{ScopeMp1}}}, []string{ScopeMp1}},
		"none": {nil, nil},
	} {
		cfg := w.cfg
		cfg.Certificates = c.rules
		apply, err := g.Prepare(&cfg)
		require.NoError(t, err, name)
		apply()
		require.Equal(t, c.want, scopes(), name)
	}
}

func TestKeysFromTheSamePlaceAreKeptWhileItIsAway(t *testing.T) {
	e := newExternal(t)
	was := TrustedIssuer{Issuer: otherIssuer, JWKSURL: e.url, Scopes: []string{ScopeMp1, ScopeMm5}}
	w := newWorld(t, Config{Issuers: []TrustedIssuer{was}})
	token := e.token(t)
	w.remembered(token)
	asked := e.asked.Load()
	e.keys.Store(new([]byte))
	is := was
	is.Scopes = []string{ScopeMp1}
	w.reload(trusting(is))
	caller, err := w.verify(token)
	require.NoError(t, err)
	require.Equal(t, []string{ScopeMp1}, caller.Scopes)
	require.Eventually(t, func() bool { return e.asked.Load() > asked }, 20*time.Second, time.Millisecond, "they are asked for again all the same")
	w.remembered(e.token(t))
}
