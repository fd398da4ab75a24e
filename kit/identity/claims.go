package identity

import (
	"strings"

	"github.com/golang-jwt/jwt/v5"
)

// Claims holds the claims of a token of the platform (RFC 7519, RFC 9068).
type Claims struct {
	jwt.RegisteredClaims
	// Scope lists the scopes of the token, separated by spaces.
	Scope string `json:"scope,omitempty"`
	// ClientID is the access key the token was issued for.
	ClientID string `json:"client_id,omitempty"`
	// Epoch is the epoch of the credential when the token was issued.
	Epoch string `json:"epoch,omitempty"`
	// ClientAddress is the only address the token may be used from.
	ClientAddress string `json:"clientip,omitempty"`
}

// Scopes returns the claim scope as a list.
func (c *Claims) Scopes() []string { return strings.Fields(c.Scope) }
