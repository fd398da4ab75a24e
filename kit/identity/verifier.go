package identity

import (
	"context"
	"encoding/base64"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/openmep/mep/api/state"
	"github.com/openmep/mep/kit/errs"
)

// MaxToken is the longest token that is looked at, in bytes.
const MaxToken = 8 << 10

// recheck is how long a token of another issuer is taken without looking at that issuer's keys again.
const recheck = time.Minute

// Verifier checks tokens.
type Verifier struct {
	cfg     *Config
	dir     *Directory
	issuers map[string]*issuer
	parser  *jwt.Parser
	cache   *cache
	now     func() time.Time
}

// NewVerifier makes a verifier of the platform's own tokens and those of the trusted issuers.
func NewVerifier(cfg *Config, dir *Directory, log *slog.Logger) (*Verifier, error) {
	v := &Verifier{
		cfg: cfg, dir: dir, issuers: make(map[string]*issuer, len(cfg.Issuers)), cache: newCache(cfg.TokenCache), now: time.Now,
		parser: jwt.NewParser(jwt.WithValidMethods(externalAlgorithms), jwt.WithoutClaimsValidation(), jwt.WithStrictDecoding()),
	}
	for _, t := range cfg.Issuers {
		i, err := newIssuer(t, cfg.Audience, log)
		if err != nil {
			return nil, err
		}
		v.issuers[t.Issuer] = i
	}
	return v, nil
}

// Run keeps the keys of the trusted issuers fresh until the context ends.
func (v *Verifier) Run(ctx context.Context) error { return runAll(ctx, v.issuers) }

// Directory is what the platform's own tokens are checked against.
func (v *Verifier) Directory() *Directory { return v.dir }

// verified is a token that was good when it was looked at.
type verified struct {
	caller *Caller
	kid    string
	claims *Claims // nil for another issuer's
	// until is when the token has to be verified again.
	until time.Time
	// seen is the state of the directory the token was checked against last.
	seen version
}

// Recall returns the caller of a token that was verified before; nil, nil when the token is not remembered. The error is a
// *Refusal for one that is no longer good.
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
	at := v.dir.version()
	if e.claims == nil || e.seen == at {
		return e.caller, nil
	}
	if err := v.dir.retract(e.kid, e.claims, now); err != nil {
		v.cache.drop(token)
		return nil, err
	}
	fresh := *e
	fresh.seen = at
	v.cache.put(token, &fresh)
	return e.caller, nil
}

// Verify returns the caller a token stands for. The error is a *Refusal, or of the kind errs.Unavailable when the token
// cannot be judged at present.
func (v *Verifier) Verify(ctx context.Context, token string) (*Caller, error) {
	token = strings.Clone(token) // which is remembered, without the request it came with
	e, err := v.verify(ctx, token, v.now())
	if err != nil {
		return nil, err
	}
	_, rest, _ := strings.Cut(token, ".")
	e.caller.payload, _, _ = strings.Cut(rest, ".")
	v.cache.put(token, e)
	return e.caller, nil
}

// verify checks a token in full.
func (v *Verifier) verify(ctx context.Context, token string, now time.Time) (*verified, error) {
	if len(token) > MaxToken {
		return nil, refuse(codeToken, "the token is too long")
	}
	e := &verified{seen: v.dir.version()}
	claims := &Claims{}
	var other *issuer
	parsed, err := v.parser.ParseWithClaims(token, claims, func(t *jwt.Token) (any, error) {
		if _, ok := t.Header["crit"]; ok {
			return nil, refuse(codeToken, "the token's header asks for extensions (crit), and none are known here")
		}
		if e.kid, _ = t.Header["kid"].(string); e.kid == "" {
			return nil, refuse(codeToken, "the token's header has no kid")
		}
		// The platform's own name is nobody else's, whatever was configured.
		if _, own := v.dir.issuers.Snapshot().Get(state.IssuerKey(claims.Issuer)); !own {
			if other = v.issuers[claims.Issuer]; other != nil {
				return other.key(ctx, t)
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
	audience := v.cfg.Audience
	if other != nil {
		audience = other.Audience
	}
	if err := v.inForce(claims, audience, now); err != nil {
		return nil, err
	}
	e.until = claims.ExpiresAt.Add(v.cfg.Leeway)
	if other == nil {
		if err := v.dir.retract(e.kid, claims, now); err != nil {
			return nil, err
		}
		e.claims = claims
		e.caller = &Caller{Subject: claims.Subject, ClientID: claims.ClientID, Scopes: claims.Scopes()}
	} else {
		payload, err := payloadOf(parsed)
		if err != nil {
			return nil, err
		}
		if e.caller, err = other.caller(claims, payload); err != nil {
			return nil, err
		}
		if again := now.Add(recheck); again.Before(e.until) {
			e.until = again
		}
	}
	e.caller.Via, e.caller.Issuer, e.caller.TokenID = "token", claims.Issuer, claims.ID
	e.caller.Expires, e.caller.ClientAddress = claims.ExpiresAt.Time, claims.ClientAddress
	return e, nil
}

func payloadOf(t *jwt.Token) ([]byte, error) {
	parts := strings.Split(t.Raw, ".")
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return nil, refuse(codeToken, "the token is malformed")
	}
	return payload, nil
}

// inForce checks what a token says about itself.
func (v *Verifier) inForce(c *Claims, audience string, now time.Time) error {
	const form = "2006-01-02T15:04:05Z"
	switch {
	case c.ExpiresAt == nil:
		return refuse(codeToken, "the token has no expiry (exp)")
	case !now.Before(c.ExpiresAt.Add(v.cfg.Leeway)):
		return refuse(codeToken, "the token expired at "+c.ExpiresAt.UTC().Format(form))
	case c.NotBefore != nil && now.Add(v.cfg.Leeway).Before(c.NotBefore.Time):
		return refuse(codeToken, "the token is not valid before "+c.NotBefore.UTC().Format(form))
	case c.IssuedAt != nil && now.Add(v.cfg.Leeway).Before(c.IssuedAt.Time):
		return refuse(codeToken, "the token was issued in the future, at "+c.IssuedAt.UTC().Format(form)+": compare the clocks")
	case !slices.Contains(c.Audience, audience):
		return refuse(codeToken, "the token is for the audience "+strings.Join(c.Audience, " ")+", not for "+audience)
	case c.Subject == "":
		return refuse(codeToken, "the token has no subject (sub)")
	}
	return nil
}

// unverified words the parser's errors.
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
