package identity

import (
	"strings"

	"github.com/golang-jwt/jwt/v5"
)

// Claims is what a token of the platform says (RFC 7519, RFC 9068).
type Claims struct {
	jwt.RegisteredClaims
	// Scope lists what the token is good for, separated by spaces.
	Scope string `json:"scope,omitempty"`
	// ClientID is the access key the token was issued for.
	ClientID string `json:"client_id,omitempty"`
	// Epoch is the epoch of the credential when the token was issued.
	Epoch string `json:"epoch,omitempty"`
	// ClientAddress is the only address the token may be used from.
	ClientAddress string `json:"clientip,omitempty"`
}

// Scopes is the claim scope as a list.
func (c *Claims) Scopes() []string { return strings.Fields(c.Scope) }
