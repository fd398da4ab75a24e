// Package identity decides who makes a request and what they may do: once, at the edge of a listener, before any handler.
//
// A caller proves who it is with a bearer token (RFC 6750) that mepauth or a trusted issuer signed, or with a client
// certificate. What tokens are checked against is watched in etcd: a key that is retired or a credential that is deleted
// counts everywhere as soon as the change arrives, and no request asks anybody.
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

// Caller is who makes a request. It is shared and must not be changed.
type Caller struct {
	// Subject is the appInstanceId of an app, or the name of a manager.
	Subject string
	// ClientID is the access key the token was issued for, empty for others.
	ClientID string
	// Scopes is what the caller may do.
	Scopes []string
	// Granted are Scopes and those of its token that mean nothing to the platform; nil when these are Scopes.
	Granted []string
	// Via is how it proved who it is: "token" or "certificate".
	Via string
	// Issuer issued the token or the certificate.
	Issuer string
	// TokenID is the id (jti) of the token; may be empty.
	TokenID string
	// Expires is when the proof ends.
	Expires time.Time
	// ClientAddress is the only address the caller may come from, empty for any.
	ClientAddress string

	payload string // of the token, in base64url
}

// Holds reports whether the scope is among all those the caller was granted.
func (c *Caller) Holds(scope string) bool {
	return slices.Contains(c.Scopes, scope) || slices.Contains(c.Granted, scope)
}

// Claims decodes what the caller's token says; nil for a caller without token.
func (c *Caller) Claims() map[string]any {
	data, err := base64.RawURLEncoding.DecodeString(c.payload)
	if err != nil || len(data) == 0 {
		return nil
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber() // a number is passed on as it stands
	var claims map[string]any
	if dec.Decode(&claims) != nil {
		return nil
	}
	return claims
}

// Has reports whether the caller holds the scope.
func (c *Caller) Has(scope string) bool { return slices.Contains(c.Scopes, scope) }

// String is the subject.
func (c *Caller) String() string { return c.Subject }

// CanonicalID is the form of an appInstanceId that is stored and compared: a UUID in lower case. Anything else stays as it
// is.
func CanonicalID(id string) string {
	if len(id) == 36 && strings.ContainsAny(id, "ABCDEF") && uuid.Validate(id) == nil {
		return strings.ToLower(id)
	}
	return id
}

// Refusal says why a caller is not let in, as RFC 6750 3.1 words it.
type Refusal struct {
	// Code is invalid_request, invalid_token or insufficient_scope; empty when there was no token.
	Code string
	// Description is for people.
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

// Of returns who makes the request, nil when nobody had to say: in development mode without a token.
func Of(c *gin.Context) *Caller {
	if v, ok := c.Get(httpx.CallerKey); ok {
		return v.(*Caller)
	}
	return nil
}

// Subject returns whom the request is made for, "" when nobody had to say.
func Subject(c *gin.Context) string {
	if caller := Of(c); caller != nil {
		return caller.Subject
	}
	return ""
}

// challenge answers a request that proved nothing, with the header field RFC 6750 3 asks for.
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

// Challenge is the value of WWW-Authenticate for a caller that is not let in (RFC 6750 3); scope is what it needs.
func (r *Refusal) Challenge(scope string) string {
	var b strings.Builder
	b.WriteString(`Bearer realm="mep"`)
	if r.Code != "" {
		b.WriteString(`, error="` + r.Code + `"`)
	}
	b.WriteString(`, error_description="` + quotable(r.Description) + `", scope="` + scope + `"`)
	return b.String()
}

// quotable leaves out what an error_description must not hold (RFC 6750 3).
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
