package identity

import (
	"context"
	"encoding/base64"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/openmep/mep/api/state"
	"github.com/openmep/mep/kit/errs"
)

// MaxToken is the maximum length of a token in bytes.
const MaxToken = 8 << 10

// recheck is how long a token of another issuer is accepted before it is verified against that issuer's keys again.
const recheck = time.Minute

// Verifier checks tokens.
type Verifier struct {
	audience string
	dir      *Directory
	trust    atomic.Pointer[trust]
	changed  chan struct{} // signals that trust was replaced
	parser   *jwt.Parser
	cache    *cache
	log      *slog.Logger
	now      func() time.Time
}

// NewVerifier returns a verifier of the platform's own tokens and those of the trusted issuers.
func NewVerifier(cfg *Config, dir *Directory, log *slog.Logger) (*Verifier, error) {
	v := &Verifier{
		audience: cfg.Audience, dir: dir, changed: make(chan struct{}, 1), cache: newCache(cfg.TokenCache), log: log, now: time.Now,
		parser: jwt.NewParser(jwt.WithValidMethods(externalAlgorithms), jwt.WithoutClaimsValidation(), jwt.WithStrictDecoding()),
	}
	t, err := newTrust(cfg, v.audience, nil, log)
	if err != nil {
		return nil, err
	}
	v.trust.Store(t)
	return v, nil
}

// Directory returns what the platform's own tokens are checked against.
func (v *Verifier) Directory() *Directory { return v.dir }

// verified is a token that passed verification.
type verified struct {
	caller *Caller
	kid    string
	claims *Claims
	// issuer is the issuer of the token; nil for the platform.
	issuer *issuer
	// at is when it was verified.
	at time.Time
	// until is when the token must be verified again.
	until time.Time
	// by and seen are the trust and the directory's version that the token was last checked against.
	by   *trust
	seen version
}

// lasts returns the time until which a token need not be verified again.
func (e *verified) lasts(leeway time.Duration) time.Time {
	until := e.claims.ExpiresAt.Add(leeway)
	if again := e.at.Add(recheck); e.issuer != nil && again.Before(until) {
		return again
	}
	return until
}

// Recall returns the caller of a token that was verified before; nil, nil if the token is not remembered. The error is a *Refusal
// if the token is no longer valid.
func (v *Verifier) Recall(token string) (*Caller, error) {
	now := v.now()
	e := v.cache.get(token)
	if e == nil {
		return nil, nil
	}
	if !now.Before(e.until) {
		v.cache.drop(token)
		return nil, nil
	}
	by, seen := v.trust.Load(), v.dir.version()
	if e.by == by && (e.issuer != nil || e.seen == seen) {
		return e.caller, nil
	}
	fresh, err := v.renewed(e, by, seen, now)
	if fresh == nil {
		v.cache.drop(token)
		return nil, err
	}
	v.cache.put(token, fresh)
	return e.caller, nil
}

// renewed checks a remembered token against what has changed since. It returns nil if the token is no longer valid or must be
// verified again.
func (v *Verifier) renewed(e *verified, by *trust, seen version, now time.Time) (*verified, error) {
	fresh := *e
	fresh.by, fresh.seen = by, seen
	if e.by != by {
		if !by.holds(e) {
			return nil, nil
		}
		if err := inForce(e.claims, v.audienceOf(e.issuer), by.leeway, now); err != nil {
			return nil, err
		}
		fresh.until = fresh.lasts(by.leeway)
	}
	if e.issuer == nil {
		if err := v.dir.retract(e.kid, e.claims, now); err != nil {
			return nil, err
		}
	}
	return &fresh, nil
}

// audienceOf returns the audience that tokens of an issuer must have; a nil issuer is the platform.
func (v *Verifier) audienceOf(i *issuer) string {
	if i == nil {
		return v.audience
	}
	return i.Audience
}

// Verify returns the caller that a token stands for. The error is a *Refusal, or of the kind errs.Unavailable when the token cannot
// be judged at present.
func (v *Verifier) Verify(ctx context.Context, token string) (*Caller, error) {
	token = strings.Clone(token) // the cache must not keep the request's memory alive
	e, err := v.judge(ctx, token)
	if err != nil {
		return nil, err
	}
	e.caller.payload = payloadPart(token)
	v.cache.put(token, e)
	return e.caller, nil
}

// judge checks a token in full, and again if the trust was replaced meanwhile: keys may have to be waited for.
func (v *Verifier) judge(ctx context.Context, token string) (*verified, error) {
	for {
		by := v.trust.Load()
		e, err := v.verify(ctx, token, by, v.now())
		if v.trust.Load() == by {
			return e, err
		}
	}
}

// verify checks a token against the given trust.
func (v *Verifier) verify(ctx context.Context, token string, by *trust, now time.Time) (*verified, error) {
	if len(token) > MaxToken {
		return nil, refuse(codeToken, "the token is too long")
	}
	claims := &Claims{}
	e := &verified{by: by, seen: v.dir.version(), at: now, claims: claims}
	parsed, err := v.parser.ParseWithClaims(token, claims, func(t *jwt.Token) (any, error) {
		if _, ok := t.Header["crit"]; ok {
			return nil, refuse(codeToken, "the token's header asks for extensions (crit), and none are known here")
		}
		if e.kid, _ = t.Header["kid"].(string); e.kid == "" {
			return nil, refuse(codeToken, "the token's header has no kid")
		}
		// The platform's own names take precedence over configured issuers.
		if _, own := v.dir.issuers.Snapshot().Get(state.IssuerKey(claims.Issuer)); !own {
			if e.issuer = by.issuers[claims.Issuer]; e.issuer != nil {
				return e.issuer.key(ctx, t)
			}
		}
		key, ok := v.dir.keyFor(e.kid, now)
		switch {
		case !ok:
			return nil, refuse(codeToken, "the token was signed with a key that is not known here, or by an issuer that is not trusted")
		case key.Record.Algorithm != t.Method.Alg():
			return nil, refuse(codeToken, "the token's algorithm is not that of its key")
		}
		return key.Public, nil
	})
	if err != nil {
		return nil, unverified(err)
	}
	if err := inForce(claims, v.audienceOf(e.issuer), by.leeway, now); err != nil {
		return nil, err
	}
	e.until = e.lasts(by.leeway)
	if e.issuer == nil {
		if err := v.dir.retract(e.kid, claims, now); err != nil {
			return nil, err
		}
		e.caller = &Caller{Subject: claims.Subject, ClientID: claims.ClientID, Scopes: claims.Scopes()}
	} else {
		payload, err := payloadOf(parsed)
		if err != nil {
			return nil, err
		}
		if e.caller, err = e.issuer.caller(claims, payload); err != nil {
			return nil, err
		}
	}
	e.caller.describe(claims)
	return e, nil
}

// describe sets what the claims say besides the identity of the caller.
func (c *Caller) describe(claims *Claims) {
	c.Via, c.Issuer, c.TokenID = "token", claims.Issuer, claims.ID
	c.Expires, c.ClientAddress = claims.ExpiresAt.Time, claims.ClientAddress
}

// payloadPart returns the payload of a token, in base64url.
func payloadPart(token string) string {
	_, rest, _ := strings.Cut(token, ".")
	payload, _, _ := strings.Cut(rest, ".")
	return payload
}

func payloadOf(t *jwt.Token) ([]byte, error) {
	parts := strings.Split(t.Raw, ".")
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return nil, refuse(codeToken, "the token is malformed")
	}
	return payload, nil
}

// inForce checks the times, audience and subject of a token.
func inForce(c *Claims, audience string, leeway time.Duration, now time.Time) error {
	const form = "2006-01-02T15:04:05Z"
	switch {
	case c.ExpiresAt == nil:
		return refuse(codeToken, "the token has no expiry (exp)")
	case !now.Before(c.ExpiresAt.Add(leeway)):
		return refuse(codeToken, "the token expired at "+c.ExpiresAt.UTC().Format(form))
	case c.NotBefore != nil && now.Add(leeway).Before(c.NotBefore.Time):
		return refuse(codeToken, "the token is not valid before "+c.NotBefore.UTC().Format(form))
	case c.IssuedAt != nil && now.Add(leeway).Before(c.IssuedAt.Time):
		return refuse(codeToken, "the token was issued in the future, at "+c.IssuedAt.UTC().Format(form)+": compare the clocks")
	case !slices.Contains(c.Audience, audience):
		return refuse(codeToken, "the token is for the audience "+strings.Join(c.Audience, " ")+", not for "+audience)
	case c.Subject == "":
		return refuse(codeToken, "the token has no subject (sub)")
	}
	return nil
}

// unverified converts the parser's errors for the client.
func unverified(err error) error {
	if r, ok := errors.AsType[*Refusal](err); ok {
		return r
	}
	if e, ok := errors.AsType[*errs.Error](err); ok {
		return e
	}
	switch {
	case errors.Is(err, jwt.ErrTokenMalformed):
		return refuse(codeToken, "the token is malformed: it is not a JWT in the compact form")
	case errors.Is(err, jwt.ErrTokenSignatureInvalid) && strings.Contains(err.Error(), "signing method"):
		return refuse(codeToken, "the token's algorithm is not one of "+strings.Join(externalAlgorithms, ", "))
	case errors.Is(err, jwt.ErrTokenSignatureInvalid):
		return refuse(codeToken, "the token's signature is wrong")
	}
	return refuse(codeToken, "the token cannot be verified")
}
