package identity

import (
	"context"
	"slices"

	"github.com/golang-jwt/jwt/v5"

	"github.com/openmep/mep/api/state"
)

// Trust returns a value that identifies who is trusted besides the platform: it differs after a reload that changed this.
func (v *Verifier) Trust() any { return v.trust.Load() }

// Trusts reports whether an issuer is one of those trusted besides the platform.
func (v *Verifier) Trusts(issuer string) bool { return v.trust.Load().issuers[issuer] != nil }

// Again judges a token of another issuer once more, by how that issuer is trusted now, for something that began while the token was valid
// and still goes on. It does not check whether the token has become valid or has expired, and remembers nothing. With signed, the token's
// key must still be one of the issuer's. Without, the signature is not checked, so the token must have been verified before. The error is
// a *Refusal, or of the kind errs.Unavailable when the token cannot be judged at present.
func (v *Verifier) Again(ctx context.Context, token string, signed bool) (*Caller, error) {
	for {
		by := v.trust.Load()
		c, err := v.again(ctx, token, signed, by)
		if v.trust.Load() == by {
			return c, err
		}
	}
}

func (v *Verifier) again(ctx context.Context, token string, signed bool, by *trust) (*Caller, error) {
	claims := &Claims{}
	parsed, _, err := v.parser.ParseUnverified(token, claims)
	if err != nil {
		return nil, unverified(err)
	}
	i := by.issuers[claims.Issuer]
	if _, own := v.dir.issuers.Snapshot().Get(state.IssuerKey(claims.Issuer)); own || i == nil {
		return nil, refuse(codeToken, "the token was issued by "+claims.Issuer+", which is not trusted here any more")
	}
	if signed {
		key := func(t *jwt.Token) (any, error) { return i.key(ctx, t) }
		if parsed, err = v.parser.ParseWithClaims(token, claims, key); err != nil {
			return nil, unverified(err)
		}
	}
	switch {
	case claims.ExpiresAt == nil:
		return nil, refuse(codeToken, "the token has no expiry (exp)")
	case !slices.Contains(claims.Audience, i.Audience):
		return nil, refuse(codeToken, "the token is not for the audience "+i.Audience)
	}
	payload, err := payloadOf(parsed)
	if err != nil {
		return nil, err
	}
	c, err := i.caller(claims, payload)
	if err != nil {
		return nil, err
	}
	c.describe(claims)
	c.payload = payloadPart(token)
	return c, nil
}
