// Package identity authenticates and authorises requests once, at the edge of a listener, before any handler.
//
// A caller authenticates with a bearer token (RFC 6750) signed by mepauth or a trusted issuer, or with a client
// certificate. What tokens are checked against is watched in etcd: retiring a key or deleting a credential takes effect
// everywhere as soon as the change arrives, and no request asks another process.
package identity

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"slices"
	"strings"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/google/uuid"

	"github.com/openmep/mep/kit/errs"
	"github.com/openmep/mep/kit/httpx"
)

// Caller is the caller of a request. It is shared and must not be changed.
type Caller struct {
	// Subject is the appInstanceId of an app, or the name of a manager.
	Subject string
	// ClientID is the access key the token was issued for; empty for other callers.
	ClientID string
	// Scopes lists what the caller may do.
	Scopes []string
	// Granted lists Scopes and the scopes of the token that mean nothing to the platform; nil means the same as Scopes.
	Granted []string
	// Via is how the caller authenticated: "token" or "certificate".
	Via string
	// Issuer is the issuer of the token or the certificate.
	Issuer string
	// TokenID is the id (jti) of the token; it may be empty.
	TokenID string
	// Expires is when the token or certificate expires.
	Expires time.Time
	// ClientAddress is the only address the caller may connect from; empty for any.
	ClientAddress string

	payload string // of the token, in base64url
}

// Holds reports whether the scope is in Scopes or Granted.
func (c *Caller) Holds(scope string) bool {
	return slices.Contains(c.Scopes, scope) || slices.Contains(c.Granted, scope)
}

// Claims returns the claims of the caller's token; nil for a caller without a token.
func (c *Caller) Claims() map[string]any {
	data, err := base64.RawURLEncoding.DecodeString(c.payload)
	if err != nil || len(data) == 0 {
		return nil
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber() // keeps numbers as they are written
	var claims map[string]any
	if dec.Decode(&claims) != nil {
		return nil
	}
	return claims
}

// Has reports whether the scope is in Scopes.
func (c *Caller) Has(scope string) bool { return slices.Contains(c.Scopes, scope) }

// String returns the subject.
func (c *Caller) String() string { return c.Subject }

// CanonicalID returns the form of an appInstanceId that is stored and compared: a UUID in lower case. Other ids are returned unchanged.
func CanonicalID(id string) string {
	if len(id) == 36 && strings.ContainsAny(id, "ABCDEF") && uuid.Validate(id) == nil {
		return strings.ToLower(id)
	}
	return id
}

// Refusal says why a caller is refused, in the terms of RFC 6750 3.1.
type Refusal struct {
	// Code is invalid_request, invalid_token or insufficient_scope; empty if there was no token.
	Code string
	// Description is a text for people.
	Description string
}

// Error implements error.
func (r *Refusal) Error() string { return r.Description }

func refuse(code, description string) *Refusal { return &Refusal{Code: code, Description: description} }

const (
	codeRequest = "invalid_request"
	codeToken   = "invalid_token"
	codeScope   = "insufficient_scope"
)

// Of returns the caller of the request; nil if it need not be known, in development mode without a token.
func Of(c *gin.Context) *Caller {
	if v, ok := c.Get(httpx.CallerKey); ok {
		return v.(*Caller)
	}
	return nil
}

// Subject returns the subject of the caller; "" if the caller need not be known.
func Subject(c *gin.Context) string {
	if caller := Of(c); caller != nil {
		return caller.Subject
	}
	return ""
}

// challenge responds to a refused caller with the header field that RFC 6750 3 requires.
func challenge(c *gin.Context, scope string, r *Refusal) {
	c.Header("WWW-Authenticate", r.Challenge(scope))
	kind := errs.Unauthenticated
	switch r.Code {
	case codeScope:
		kind = errs.Forbidden
	case codeRequest:
		kind = errs.Invalid
	}
	httpx.Fail(c, errs.New(kind, "%s", r.Description))
}

// Challenge returns the value of WWW-Authenticate for a refused caller (RFC 6750 3); scope is the scope that the caller needs.
func (r *Refusal) Challenge(scope string) string {
	var b strings.Builder
	b.WriteString(`Bearer realm="mep"`)
	if r.Code != "" {
		b.WriteString(`, error="` + r.Code + `"`)
	}
	b.WriteString(`, error_description="` + quotable(r.Description) + `", scope="` + scope + `"`)
	return b.String()
}

// quotable returns s without what an error_description must not contain (RFC 6750 3).
func quotable(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '"':
			return '\''
		case r < 0x20 || r > 0x7e || r == '\\':
			return -1
		}
		return r
	}, s)
}
