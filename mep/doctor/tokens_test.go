package doctor

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/openmep/mep/api/state"
	"github.com/openmep/mep/kit/identity"
)

func TestTokens(t *testing.T) {
	issuer := func(change func(*testing.T, *identity.TrustedIssuer)) func(*testing.T, *fixture) {
		return func(t *testing.T, f *fixture) {
			one := identity.TrustedIssuer{Issuer: "https://other.example", JWKSFile: filepath.Join(t.TempDir(), "jwks.json")}
			change(t, &one)
			f.Common.Identity.Issuers = []identity.TrustedIssuer{one}
		}
	}
	set := func(text string) func(*testing.T, *fixture) {
		return issuer(func(t *testing.T, i *identity.TrustedIssuer) {
			require.NoError(t, os.WriteFile(i.JWKSFile, []byte(text), 0o600))
		})
	}
	at := func(h http.HandlerFunc) func(*testing.T, *fixture) {
		return issuer(func(t *testing.T, i *identity.TrustedIssuer) {
			server := httptest.NewServer(h)
			t.Cleanup(server.Close)
			i.JWKSFile, i.JWKSURL = "", server.URL
		})
	}
	each(t, checkTokens, map[string]broken{
		"the key file of another database": {
			of: running, by: func(t *testing.T, f *fixture) {
				f.write(t, "auth/seal.key", "another key, which is long enough to be one")
			},
			finding: "is not the one the secrets in the database were sealed with", remedy: "put back the file",
		},
		"the same with etcd beside it": {
			of: outside, by: func(t *testing.T, f *fixture) {
				f.write(t, "auth/seal.key", "another key, which is long enough to be one")
			},
			finding: "is not the one the secrets in the database were sealed with", remedy: "from another replica",
		},
		"the key file is missing while it runs": {
			of: running, by: func(t *testing.T, f *fixture) { f.remove(t, "auth/seal.key") },
			finding: "seal.key is missing", remedy: "put back the file",
		},
		"the key file is missing": {
			by:      func(t *testing.T, f *fixture) { f.remove(t, "auth/seal.key") },
			finding: "is missing, while there is a database", remedy: "from a backup",
		},
		"the key file is cut": {
			by:      func(t *testing.T, f *fixture) { f.write(t, "auth/seal.key", "short") },
			finding: "has 5 bytes, of at least 32", remedy: "from a backup",
		},
		"no signing key": {
			of: running, by: func(t *testing.T, f *fixture) {
				for _, prefix := range []string{state.PrefixSigningKeys, state.PrefixPrivateKeys} {
					_, err := f.etcd.Client(t).Delete(t.Context(), prefix, clientv3.WithPrefix())
					require.NoError(t, err)
				}
			},
			finding: "there are none that sign", remedy: "log",
		},
		"a signing key that should have been replaced": {
			of: running, by: func(_ *testing.T, f *fixture) { f.later(31 * day) },
			level: Warn, finding: "longer than auth.keys.rotateAfter (720h0m0s)", remedy: "mep keys rotate",
		},
		"tokens have a name that a service might have": {
			of: outside, by: func(t *testing.T, f *fixture) {
				f.services(t, "mec.example")
				for _, rec := range []state.Issuer{
					{Issuer: "https://edge1.mec.example:10443"}, {Issuer: "https://edge2.mec.example:10443", Replaced: time.Now()}, {Issuer: "https://edge3.example"},
				} {
					rec.Version = state.Current()
					value, err := state.Encode(rec)
					require.NoError(t, err)
					_, err = f.etcd.Client(t).Put(t.Context(), state.IssuerKey(rec.Issuer), value)
					require.NoError(t, err)
				}
			},
			level: Warn, finding: "the issuer https://edge1.mec.example:10443 is at edge1.mec.example, below gateway.serviceDomain", remedy: "not below mec.example",
		},
		"an issuer's file is missing": {
			by: issuer(func(*testing.T, *identity.TrustedIssuer) {}), finding: "cannot be read", remedy: "jwksFile",
		},
		"an issuer's file is no JSON":        {by: set("hello"), finding: "are not a JWK set", remedy: "RFC 7517"},
		"an issuer's file has no keys":       {by: set(`{"keys":[]}`), finding: "without a key that can verify", remedy: "public keys"},
		"an issuer's keys are shared ones":   {by: set(`{"keys":[{"kty":"oct","k":"AQ"}]}`), finding: "without a key that can verify", remedy: "public keys"},
		"an issuer's keys are for secrecy":   {by: set(`{"keys":[{"kty":"OKP","x":"AQ","use":"enc"}]}`), finding: "without a key that can verify", remedy: "public keys"},
		"an issuer's keys are private":       {by: set(`{"keys":[{"kty":"OKP","x":"AQ","d":"AQ"}]}`), finding: "private keys", remedy: "new keys"},
		"an issuer's keys are not there":     {by: at(http.NotFound), finding: "404 Not Found", remedy: "correct jwksUrl"},
		"an issuer's keys are not JSON":      {by: at(func(http.ResponseWriter, *http.Request) {}), finding: "are not a JWK set", remedy: "right file or URL"},
		"an issuer's keys have moved":        {by: at(http.RedirectHandler("/there", http.StatusFound).ServeHTTP), finding: `redirects to "/there"`, remedy: "the place itself"},
		"an issuer's server does not answer": {by: issuer(func(t *testing.T, i *identity.TrustedIssuer) { i.JWKSFile, i.JWKSURL = "", "http://"+free(t) }), finding: "refuses connections", remedy: "correct jwksUrl"},
		"an issuer's server is not trusted": {
			by: issuer(func(t *testing.T, i *identity.TrustedIssuer) {
				server := httptest.NewTLSServer(http.NotFoundHandler())
				t.Cleanup(server.Close)
				i.JWKSFile, i.JWKSURL, i.CAFile = "", server.URL, newCA(t).file
			}),
			finding: "a CA that is not trusted here", remedy: "set caFile",
		},
		"an issuer's CA is missing": {
			by: issuer(func(_ *testing.T, i *identity.TrustedIssuer) {
				i.JWKSFile, i.JWKSURL, i.CAFile = "", "https://127.0.0.1:1", "/nowhere/ca.crt"
			}),
			finding: "/nowhere/ca.crt does not exist", remedy: "correct the path",
		},
	})
	t.Run("an issuer in order", func(t *testing.T) {
		f := stopped(t)
		set(keys)(t, f)
		require.Contains(t, examine(t.Context(), f.Installation, f.host), Finding{
			Check: checkTokens, Level: OK, Subject: "https://other.example", Finding: "has 1 keys its tokens are verified with",
		})
	})
}
