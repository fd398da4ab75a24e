// Package auth has the data types of the platform's token service and a source of tokens for its clients.
//
// A program that was given credentials reads them with [LoadCredentials] and makes a [Source] of them; its method Token is a
// client.TokenSource for package client. What a client of the service itself needs are the other types: those of OAuth2, and those
// with which a MEPM manages the credentials of app instances.
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
	// RefreshToken is what the next token can be had for; only for credentials that allow it.
	RefreshToken string `json:"refresh_token,omitempty"`
}

// The codes of errors. Servers may use others.
const (
	// CodeInvalidRequest: the request is malformed, or lacks a parameter (RFC 6749 5.2).
	CodeInvalidRequest = "invalid_request"
	// CodeInvalidClient: the client did not prove who it is (RFC 6749 5.2).
	CodeInvalidClient = "invalid_client"
	// CodeInvalidGrant: the refresh token is not valid any more, or not this client's (RFC 6749 5.2).
	CodeInvalidGrant = "invalid_grant"
	// CodeUnauthorizedClient: the client may not use this grant (RFC 6749 5.2).
	CodeUnauthorizedClient = "unauthorized_client" //nolint:misspell // the spelling of the standard
	// CodeUnsupportedGrantType: the service does not have this grant (RFC 6749 5.2).
	CodeUnsupportedGrantType = "unsupported_grant_type"
	// CodeInvalidScope: the scope is unknown, or more than the client may have (RFC 6749 5.2).
	CodeInvalidScope = "invalid_scope"
	// CodeUnsupportedTokenType: tokens of this type cannot be revoked (RFC 7009 2.2.1).
	CodeUnsupportedTokenType = "unsupported_token_type"
	// CodeAccessDenied: the access key is locked for a while.
	CodeAccessDenied = "access_denied"
	// CodeServerError: the service failed.
	CodeServerError = "server_error"
	// CodeTemporarilyUnavailable: the service is overloaded, or cannot do without something that is away.
	CodeTemporarilyUnavailable = "temporarily_unavailable"
)

// Error is how the token service says no (RFC 6749 5.2).
type Error struct {
	// Code is one of the codes above, or another.
	Code string `json:"error"`
	// Description says what was wrong and what to do about it.
	Description string `json:"error_description,omitempty"`
	// Status is the HTTP status.
	Status int `json:"-"`
	// RetryAfter is how long the service asks to wait before the request is repeated, 0 when it says nothing.
	RetryAfter time.Duration `json:"-"`
}

// Error joins the code and the description.
func (e *Error) Error() string {
	if e.Description == "" {
		return e.Code
	}
	return e.Code + ": " + e.Description
}

// Introspection is what the token service knows of a token (RFC 7662 2.2). All but Active is there for active tokens only.
type Introspection struct {
	// Active says whether the token is valid now.
	Active bool `json:"active"`
	// Scope lists the scopes of the token, separated by spaces.
	Scope string `json:"scope,omitempty"`
	// ClientID is the access key id for which the token was issued.
	ClientID string `json:"client_id,omitempty"`
	// TokenType is "Bearer", or "refresh_token".
	TokenType string `json:"token_type,omitempty"`
	// ExpiresAt is when the token ends, in seconds since 1970.
	ExpiresAt int64 `json:"exp,omitempty"`
	// IssuedAt is when the token was issued, in seconds since 1970.
	IssuedAt int64 `json:"iat,omitempty"`
	// NotBefore is when the token begins, in seconds since 1970.
	NotBefore int64 `json:"nbf,omitempty"`
	// Subject is whom the token stands for: the appInstanceId of an app.
	Subject string `json:"sub,omitempty"`
	// Audience is for whom the token is meant.
	Audience Audience `json:"aud,omitempty"`
	// Issuer is who issued the token.
	Issuer string `json:"iss,omitempty"`
	// TokenID names the token.
	TokenID string `json:"jti,omitempty"`
}

// MarshalJSON leaves out everything about a token that is not active, as RFC 7662 2.2 wants it.
func (i Introspection) MarshalJSON() ([]byte, error) {
	if !i.Active {
		return []byte(`{"active":false}`), nil
	}
	type plain Introspection
	return json.Marshal(plain(i))
}

// Audience lists for whom a token is meant. In JSON it is an array; a single string is read as well (RFC 7519 4.1.3).
type Audience []string

// UnmarshalJSON reads a string or an array of strings.
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
	// ScopesSupported lists the scopes there are.
	ScopesSupported []string `json:"scopes_supported"`
	// ResponseTypesSupported is an empty list, and not nil: there is no authorization endpoint.
	ResponseTypesSupported []string `json:"response_types_supported"`
	// GrantTypesSupported lists the grants of the token endpoint.
	GrantTypesSupported []string `json:"grant_types_supported"`
	// TokenEndpointAuthMethodsSupported lists how a client may authenticate at the token endpoint: client_secret_basic,
	// client_secret_post.
	TokenEndpointAuthMethodsSupported []string `json:"token_endpoint_auth_methods_supported"`
	// RevocationEndpointAuthMethodsSupported lists the same for revocation.
	RevocationEndpointAuthMethodsSupported []string `json:"revocation_endpoint_auth_methods_supported"`
	// IntrospectionEndpointAuthMethodsSupported lists the same for introspection.
	IntrospectionEndpointAuthMethodsSupported []string `json:"introspection_endpoint_auth_methods_supported"`
	// ServiceDocumentation is the URL of a page for people.
	ServiceDocumentation string `json:"service_documentation,omitempty"`
}
