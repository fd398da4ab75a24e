package main

import (
	"net/http"
	"os"
	"testing"

	"github.com/stretchr/testify/require"
)

func newTestScreen(t *testing.T) *screen {
	t.Helper()
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, null.Close()) })
	return newScreen(null)
}

func TestJSONIsShownWithoutSecrets(t *testing.T) {
	for _, tc := range []struct {
		name, body, want string
		secrets          []string
	}{
		{"no JSON", "<html>", "", nil},
		{"nothing to hide", `{"n": 1.50, "l": [], "none": null}`, `      {"n": 1.50, "l": [], "none": null}` + "\n", nil},
		{
			"secret key", `{"credentials": {"accessKeyId": "AK", "secretKey": "SK-1"}}`,
			`      {"credentials": {"accessKeyId": "AK", "secretKey": "••••"}}` + "\n",
			[]string{"SK-1"},
		},
		{
			"token, of which only the signature is a secret", `{"access_token": "head.claims.proof", "expires_in": 60}`,
			`      {"access_token": "••••", "expires_in": 60}` + "\n",
			[]string{"proof"},
		},
		{"no secret in its place", `{"secretKey": ""}`, `      {"secretKey": ""}` + "\n", nil},
		{"below a secret member", `[{"refresh_token": ["a", {"b": "c"}]}]`, `      [{"refresh_token": ["••••", {"b": "••••"}]}]` + "\n", []string{"a", "c"}},
		{"id", `"5abe4782-2c70-4e47-9a4e-0ee3a1a0fd1f"`, `      "5abe4782…"` + "\n", nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := newTestScreen(t)
			require.Equal(t, tc.want, s.pretty([]byte(tc.body)))
			require.Len(t, s.secrets, len(tc.secrets))
			for _, secret := range tc.secrets {
				require.Contains(t, s.secrets, secret)
			}
		})
	}
}

func TestALongBodyIsShownOnce(t *testing.T) {
	s := newTestScreen(t)
	const body = `["` + producerID + ` and more", {"a": "0123456789012345678901234567890123456789", "b": "0123456789012345678901234567890123456789",
		"c": "0123456789012345678901234567890123456789", "d": {"e": "0123456789012345678901234567890123456789", "f": "0123456789012345678901234567890123456789",
		"g": "0123456789012345678901234567890123456789"}}]`
	s.steps = 3
	require.Contains(t, s.pretty([]byte(body)), "and more")
	s.steps = 5
	require.Equal(t, "      (the same as in step 3)\n", s.pretty([]byte(body)))
	require.Equal(t, "      [1]\n", s.pretty([]byte("[1]")))
	require.Equal(t, "      [1]\n", s.pretty([]byte("[1]")))
}

func TestHeadersAreShownWithoutProofs(t *testing.T) {
	for _, tc := range []struct{ name, authorization, want, secret string }{
		{"token", "Bearer head.claims.proof", "", ""},
		{"client credentials", "Basic QUs6U0s=", "      Authorization: Basic ••••\n", "QUs6U0s="},
		{
			"signed request", "SDK-HMAC-SHA256 Access=AK, SignedHeaders=host;x-sdk-date, Signature=0123abcd",
			"      Authorization: SDK-HMAC-SHA256 Access=AK, SignedHeaders=host;x-sdk-date, Signature=••••\n", "0123abcd",
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := newTestScreen(t)
			s.headers(http.Header{"Authorization": {tc.authorization}}, "Authorization")
			require.Equal(t, tc.want, s.shown.String())
			require.Equal(t, tc.secret != "", s.secrets[tc.secret])
		})
	}
}

func TestTheSecretsThatWentByAreFound(t *testing.T) {
	const secret = "0123456789012345678901234567890123456789"
	s := &story{screen: newTestScreen(t)}
	s.secret("head.claims." + secret)
	require.NotPanics(t, func() { s.expectNoSecret("a text", "nothing of the kind") })
	require.Panics(t, func() { s.expectNoSecret("a text", "token="+secret) })
}
