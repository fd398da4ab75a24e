// Package auth defines the data types of the platform's token service, and a source of tokens for its clients.
//
// A program with a credentials file reads it with [LoadCredentials] and makes a [Source] of it, whose method Token is a
// client.TokenSource for package client. The other types are for direct clients of the service: those of OAuth2, and those with
// which a MEPM manages the credentials of app instances.
package auth

import (
	"encoding/json"
	"errors"
	"time"
)

// TokenTypeBearer is the type of every token (RFC 6750).
const TokenTypeBearer = "Bearer"

// The grants of the token endpoint.
const (
	// GrantClientCredentials exchanges an access key id and its secret key for a token (RFC 6749 4.4).
	GrantClientCredentials = "client_credentials"
	// GrantRefreshToken exchanges a refresh token for a token (RFC 6749 6).
	GrantRefreshToken = "refresh_token"
)

// TokenResponse is the answer to a request for a token (RFC 6749 5.1).
type TokenResponse struct {
	// AccessToken is the token.
	AccessToken string `json:"access_token"`
	// TokenType is "Bearer".
	TokenType string `json:"token_type"`
	// ExpiresIn is how long the token is valid, in seconds.
	ExpiresIn int `json:"expires_in"`
	// Scope lists the scopes of the token, separated by spaces.
	Scope string `json:"scope,omitempty"`
	// RefreshToken can be exchanged for the next token; only for credentials that allow it.
	RefreshToken string `json:"refresh_token,omitempty"`
}

// The error codes. Servers may use others.
const (
	// CodeInvalidRequest: the request is malformed, or lacks a parameter (RFC 6749 5.2).
	CodeInvalidRequest = "invalid_request"
	// CodeInvalidClient: client authentication failed (RFC 6749 5.2).
	CodeInvalidClient = "invalid_client"
	// CodeInvalidGrant: the refresh token is no longer valid, or belongs to another client (RFC 6749 5.2).
	CodeInvalidGrant = "invalid_grant"
	// CodeUnauthorizedClient: the client may not use this grant (RFC 6749 5.2).
	CodeUnauthorizedClient = "unauthorized_client" //nolint:misspell // the spelling of the standard
	// CodeUnsupportedGrantType: the service does not support this grant (RFC 6749 5.2).
	CodeUnsupportedGrantType = "unsupported_grant_type"
	// CodeInvalidScope: the scope is unknown, or exceeds what the client may have (RFC 6749 5.2).
	CodeInvalidScope = "invalid_scope"
	// CodeUnsupportedTokenType: tokens of this type cannot be revoked (RFC 7009 2.2.1).
	CodeUnsupportedTokenType = "unsupported_token_type"
	// CodeAccessDenied: the access key is temporarily locked.
	CodeAccessDenied = "access_denied"
	// CodeServerError: the service failed.
	CodeServerError = "server_error"
	// CodeTemporarilyUnavailable: the service is overloaded, or something it depends on is unavailable.
	CodeTemporarilyUnavailable = "temporarily_unavailable"
)

// Error is an error response of the token service (RFC 6749 5.2).
type Error struct {
	// Code is one of the codes above, or another.
	Code string `json:"error"`
	// Description says what was wrong and how to fix it.
	Description string `json:"error_description,omitempty"`
	// Status is the HTTP status.
	Status int `json:"-"`
	// RetryAfter is how long the service asks the client to wait before a retry, 0 when it does not say.
	RetryAfter time.Duration `json:"-"`
}

// Error returns the code and the description.
func (e *Error) Error() string {
	if e.Description == "" {
		return e.Code
	}
	return e.Code + ": " + e.Description
}

// Introspection is what the token service reports about a token (RFC 7662 2.2). Only active tokens have fields other than Active.
type Introspection struct {
	// Active reports whether the token is valid now.
	Active bool `json:"active"`
	// Scope lists the scopes of the token, separated by spaces.
	Scope string `json:"scope,omitempty"`
	// ClientID is the access key id the token was issued for.
	ClientID string `json:"client_id,omitempty"`
	// TokenType is "Bearer", or "refresh_token".
	TokenType string `json:"token_type,omitempty"`
	// ExpiresAt is when the token expires, in seconds since 1970.
	ExpiresAt int64 `json:"exp,omitempty"`
	// IssuedAt is when the token was issued, in seconds since 1970.
	IssuedAt int64 `json:"iat,omitempty"`
	// NotBefore is when the token becomes valid, in seconds since 1970.
	NotBefore int64 `json:"nbf,omitempty"`
	// Subject is the principal of the token: the appInstanceId of an app.
	Subject string `json:"sub,omitempty"`
	// Audience lists the intended recipients of the token.
	Audience Audience `json:"aud,omitempty"`
	// Issuer is the issuer of the token.
	Issuer string `json:"iss,omitempty"`
	// TokenID is the unique id of the token.
	TokenID string `json:"jti,omitempty"`
}

// MarshalJSON omits everything about a token that is not active, as RFC 7662 2.2 requires.
func (i Introspection) MarshalJSON() ([]byte, error) {
	if !i.Active {
		return []byte(`{"active":false}`), nil
	}
	type plain Introspection
	return json.Marshal(plain(i))
}

// Audience lists the intended recipients of a token. In JSON it is an array; a single string is also accepted (RFC 7519 4.1.3).
type Audience []string

// UnmarshalJSON accepts a string or an array of strings.
func (a *Audience) UnmarshalJSON(data []byte) error {
	var one string
	if json.Unmarshal(data, &one) == nil && string(data) != "null" {
		*a = Audience{one}
		return nil
	}
	var many []string
	if err := json.Unmarshal(data, &many); err != nil {
		return errors.New("aud must be a string or an array of strings")
	}
	*a = many
	return nil
}

// Metadata describes the token service (RFC 8414 2).
type Metadata struct {
	// Issuer is the URL that tokens name as their issuer.
	Issuer string `json:"issuer"`
	// TokenEndpoint is the URL of POST /oauth2/token.
	TokenEndpoint string `json:"token_endpoint"`
	// JWKSURI is the URL of the keys that verify tokens.
	JWKSURI string `json:"jwks_uri"`
	// RevocationEndpoint is the URL of POST /oauth2/revoke (RFC 7009).
	RevocationEndpoint string `json:"revocation_endpoint"`
	// IntrospectionEndpoint is the URL of POST /oauth2/introspect (RFC 7662).
	IntrospectionEndpoint string `json:"introspection_endpoint"`
	// ScopesSupported lists the supported scopes.
	ScopesSupported []string `json:"scopes_supported"`
	// ResponseTypesSupported is empty but not nil: there is no authorization endpoint.
	ResponseTypesSupported []string `json:"response_types_supported"`
	// GrantTypesSupported lists the grants of the token endpoint.
	GrantTypesSupported []string `json:"grant_types_supported"`
	// TokenEndpointAuthMethodsSupported lists the ways a client may authenticate at the token endpoint: client_secret_basic,
	// client_secret_post.
	TokenEndpointAuthMethodsSupported []string `json:"token_endpoint_auth_methods_supported"`
	// RevocationEndpointAuthMethodsSupported lists the same for revocation.
	RevocationEndpointAuthMethodsSupported []string `json:"revocation_endpoint_auth_methods_supported"`
	// IntrospectionEndpointAuthMethodsSupported lists the same for introspection.
	IntrospectionEndpointAuthMethodsSupported []string `json:"introspection_endpoint_auth_methods_supported"`
	// ServiceDocumentation is the URL of human-readable documentation.
	ServiceDocumentation string `json:"service_documentation,omitempty"`
}
