package identity

import (
	"maps"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/stretchr/testify/require"
)

// TestTokensOfOthersAreJudgedAgain judges tokens that are not valid yet or have expired, of an issuer that changes.
func TestTokensOfOthersAreJudgedAgain(t *testing.T) {
	t.Parallel()
	e := newExternal(t)
	other := newECKey(t)
	trusted := TrustedIssuer{Issuer: otherIssuer, JWKSURL: e.url, Scopes: []string{ScopeMp1}}
	w := newWorld(t, Config{Issuers: []TrustedIssuer{trusted}})
	for name, c := range map[string]struct {
		change  jwt.MapClaims
		foreign bool // signed by a key that is not the issuer's
		signed  bool
		refused string
	}{
		"in force":                       {signed: true},
		"expired":                        {change: jwt.MapClaims{"exp": time.Now().Add(-time.Hour).Unix()}, signed: true},
		"not begun, by a clock set back": {change: jwt.MapClaims{"nbf": time.Now().Add(time.Hour).Unix(), "iat": time.Now().Add(time.Hour).Unix()}, signed: true},
		"with a key that is gone":        {foreign: true, signed: true, refused: "the token's signature is wrong"},
		"whose key is not asked for":     {foreign: true},
		"for others":                     {change: jwt.MapClaims{"aud": "else"}, refused: "not for the audience"},
		"without an end":                 {change: jwt.MapClaims{"exp": nil}, refused: "no expiry"},
		"of nobody":                      {change: jwt.MapClaims{"sub": ""}, refused: "no claim sub"},
		"of another issuer":              {change: jwt.MapClaims{"iss": "https://else.test"}, signed: true, refused: "not trusted here any more"},
		"of the platform":                {change: jwt.MapClaims{"iss": testIssuer}, refused: "not trusted here any more"},
	} {
		t.Run(name, func(t *testing.T) {
			claims := jwt.MapClaims{"iss": otherIssuer, "sub": "me", "aud": "mep", "scope": "mp1", "exp": time.Now().Add(time.Hour).Unix()}
			maps.Copy(claims, c.change)
			key := e.key
			if c.foreign {
				key = other
			}
			token := signed(t, jwt.SigningMethodES256, "x1", key, claims)
			caller, err := w.verifier.Again(t.Context(), token, c.signed)
			if c.refused != "" {
				require.ErrorAs(t, err, new(*Refusal))
				require.ErrorContains(t, err, c.refused)
				return
			}
			require.NoError(t, err)
			require.Equal(t, "me", caller.Subject)
			require.Equal(t, []string{ScopeMp1}, caller.Scopes)
			require.Equal(t, "me", caller.Claims()["sub"])
			require.Nil(t, w.verifier.cache.get(token), "nothing is remembered")
		})
	}
	_, err := w.verifier.Again(t.Context(), "no token", false)
	require.ErrorAs(t, err, new(*Refusal))
	before := w.verifier.Trust()
	require.True(t, w.verifier.Trusts(otherIssuer))
	require.Same(t, before, w.verifier.Trust())
	w.reload(trusting())
	require.False(t, w.verifier.Trusts(otherIssuer))
	require.NotSame(t, before, w.verifier.Trust())
}
