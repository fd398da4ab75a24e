package auth_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/api/auth"
)

func requireJSON(t *testing.T, want string, value any) {
	t.Helper()
	got, err := json.Marshal(value)
	require.NoError(t, err)
	require.JSONEq(t, want, string(got))
}

func TestAnInactiveTokenSaysNothingMore(t *testing.T) {
	i := auth.Introspection{Subject: "app", Scope: "mp1", ExpiresAt: 1, Audience: auth.Audience{"mep"}}
	requireJSON(t, `{"active":false}`, i)
	requireJSON(t, `{"active":false}`, &i)
	requireJSON(t, `{"active":false}`, auth.Introspection{})
}

func TestAnActiveTokenIsDescribed(t *testing.T) {
	full := auth.Introspection{
		Active: true, Scope: "mp1 mm5", ClientID: "c", TokenType: auth.TokenTypeBearer, ExpiresAt: 3, IssuedAt: 1, NotBefore: 2,
		Subject: "s", Audience: auth.Audience{"a", "b"}, Issuer: "i", TokenID: "j",
	}
	text := `{"active":true,"scope":"mp1 mm5","client_id":"c","token_type":"Bearer","exp":3,"iat":1,"nbf":2,"sub":"s",
		"aud":["a","b"],"iss":"i","jti":"j"}`
	requireJSON(t, text, full)
	requireJSON(t, `{"active":true}`, auth.Introspection{Active: true})

	var read auth.Introspection
	require.NoError(t, json.Unmarshal([]byte(text), &read))
	require.Equal(t, full, read)
}

func TestAnAudienceIsAStringOrAnArray(t *testing.T) {
	for text, want := range map[string]auth.Audience{
		`"mep"`: {"mep"}, `["a","b"]`: {"a", "b"}, `[]`: {}, `null`: nil, `""`: {""},
	} {
		var got auth.Audience
		require.NoError(t, json.Unmarshal([]byte(text), &got), text)
		require.Equal(t, want, got, text)
	}
	for _, text := range []string{`1`, `{}`, `["a",1]`, `true`} {
		var got auth.Audience
		require.ErrorContains(t, json.Unmarshal([]byte(text), &got), "aud must be a string or an array of strings", text)
	}
}

func TestTheOAuth2TypesHaveTheNamesOfTheStandards(t *testing.T) {
	requireJSON(t, `{"access_token":"a","token_type":"Bearer","expires_in":3600}`,
		auth.TokenResponse{AccessToken: "a", TokenType: "Bearer", ExpiresIn: 3600})
	requireJSON(t, `{"access_token":"a","token_type":"Bearer","expires_in":3600,"scope":"mp1","refresh_token":"r"}`,
		auth.TokenResponse{AccessToken: "a", TokenType: "Bearer", ExpiresIn: 3600, Scope: "mp1", RefreshToken: "r"})
	requireJSON(t, `{"error":"invalid_client","error_description":"d"}`,
		auth.Error{Code: auth.CodeInvalidClient, Description: "d", Status: 401, RetryAfter: time.Second})
	requireJSON(t, `{"issuer":"i","token_endpoint":"t","jwks_uri":"j","revocation_endpoint":"r","introspection_endpoint":"n",
		"scopes_supported":["mp1"],"response_types_supported":[],"grant_types_supported":["client_credentials"],
		"token_endpoint_auth_methods_supported":["client_secret_basic"],
		"revocation_endpoint_auth_methods_supported":["client_secret_basic"],
		"introspection_endpoint_auth_methods_supported":["client_secret_basic"]}`,
		auth.Metadata{
			Issuer: "i", TokenEndpoint: "t", JWKSURI: "j", RevocationEndpoint: "r", IntrospectionEndpoint: "n",
			ScopesSupported: []string{"mp1"}, ResponseTypesSupported: []string{},
			GrantTypesSupported:                       []string{auth.GrantClientCredentials},
			TokenEndpointAuthMethodsSupported:         []string{"client_secret_basic"},
			RevocationEndpointAuthMethodsSupported:    []string{"client_secret_basic"},
			IntrospectionEndpointAuthMethodsSupported: []string{"client_secret_basic"},
		})
}

func TestAnErrorReadsAsASentence(t *testing.T) {
	require.EqualError(t, &auth.Error{Code: "invalid_scope"}, "invalid_scope")
	err := fmt.Errorf("wrapped: %w", &auth.Error{Code: "invalid_scope", Description: "ops is not yours", Status: 400})
	require.EqualError(t, err, "wrapped: invalid_scope: ops is not yours")
	e, ok := errors.AsType[*auth.Error](err)
	require.True(t, ok)
	require.Equal(t, 400, e.Status)
}
