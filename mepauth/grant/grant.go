// Package grant decides who gets a token.
//
// A client proves that it holds an access key, with a signature or with the secret key itself. Either way the checks have
// the same order: the rate of the client address, the rate of the key, a lock of the key, the proof. An unknown access key
// and a wrong proof are indistinguishable and take the same time.
package grant

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/openmep/mep/api/auth"
	"github.com/openmep/mep/api/signing"
	"github.com/openmep/mep/api/state"
	"github.com/openmep/mep/kit/audit"
	"github.com/openmep/mep/kit/errs"
	"github.com/openmep/mep/kit/etcd"
	"github.com/openmep/mep/kit/identity"
	"github.com/openmep/mep/kit/limit"
	"github.com/openmep/mep/mepauth/credential"
	"github.com/openmep/mep/mepauth/keyring"
	"github.com/openmep/mep/mepauth/lockout"
	"github.com/openmep/mep/mepauth/refresh"
	"github.com/openmep/mep/mepauth/replay"
)

// Policy holds the operator's settings for tokens.
type Policy struct {
	// Issuer and Audience are the claims iss and aud.
	Issuer, Audience string
	// Lifetime is how long a token is valid.
	Lifetime time.Duration
	// SignatureWindow is how far the date of a signature may be from now; 0 accepts any date.
	SignatureWindow time.Duration
}

// keepSignatures is how long a signature is remembered when any date is accepted.
const keepSignatures = 24 * time.Hour

// Service grants tokens.
type Service struct {
	// Dir, Vault, Lockout, Replay, Refresh and Ring are the state on which decisions are based.
	Dir     *identity.Directory
	Vault   *credential.Vault
	Lockout *lockout.Book
	Replay  *replay.Register
	Refresh *refresh.Store
	Ring    *keyring.Ring
	// Store is where revoked tokens are recorded.
	Store *etcd.Store
	// Verifier checks tokens that are to be revoked or introspected.
	Verifier *identity.Verifier
	// Policy returns the policy in force.
	Policy func() Policy
	// PerSource and PerKey limit the rates of client addresses and access keys.
	PerSource, PerKey *limit.Limiter
	// Failures limits the rate of wrong proofs of all clients together, because each of them is recorded. Above that rate
	// only clients that have used the access key from the same address before are served.
	Failures *limit.Limiter
	// Audit records what was granted and refused.
	Audit *audit.Log

	now    func() time.Time
	calm   atomic.Int64 // until when untrusted sources are refused, in Unix nanoseconds
	tokens *prometheus.CounterVec
	issued map[string]prometheus.Counter // by grant
}

// Init completes a service whose fields are set.
func (s *Service) Init(reg prometheus.Registerer) *Service {
	s.now = time.Now
	s.tokens = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "mep_auth_token_requests_total",
		Help: "Requests for tokens, by grant (signature, client_credentials, refresh_token) and result: issued, limited, locked, refused, unavailable.",
	}, []string{"grant", "result"})
	reg.MustRegister(s.tokens)
	s.issued = make(map[string]prometheus.Counter)
	for _, by := range []string{bySignature, bySecret, byRefresh} {
		s.issued[by] = s.tokens.WithLabelValues(by, "issued")
	}
	return s
}

// Origin identifies where a request comes from.
type Origin struct {
	// Address is the client address.
	Address netip.Addr
	// RequestID is the id of the request.
	RequestID string
}

// The grants, as named in metrics and the audit log.
const (
	bySignature = "signature"
	bySecret    = "client_credentials"
	byRefresh   = "refresh_token"
)

// Signed exchanges a signed request for a token with all the scopes of the access key. Errors are *auth.Error.
func (s *Service) Signed(ctx context.Context, from Origin, a signing.Authorization, m *signing.Message) (*auth.TokenResponse, error) {
	now, window := s.now(), s.Policy().SignatureWindow
	stamp := m.Header.Get(signing.DateHeader)
	date, err := time.Parse(signing.DateLayout, stamp)
	switch {
	case err != nil, len(stamp) != len(signing.DateLayout): // time.Parse also accepts fractions of a second
		return s.count(bySignature, nil, invalid("%s must have the form %s", signing.DateHeader, signing.DateLayout))
	case window > 0 && (now.Sub(date) > window || date.Sub(now) > window):
		return s.count(bySignature, nil, unproven(fmt.Sprintf(
			"the request was signed at %s, which is more than %s from this server's time, %s: set the client's clock, in UTC",
			date.Format(time.RFC3339), window, now.UTC().Format(time.RFC3339))))
	}
	given, err := hex.DecodeString(a.Signature)
	if err != nil {
		return s.count(bySignature, nil, invalid("the signature must be hexadecimal"))
	}
	cred, err := s.prove(ctx, from, a.AccessKeyID, func(secret []byte) bool {
		return hmac.Equal(m.Signature(secret, a.SignedHeaders), given)
	})
	if err != nil {
		return s.count(bySignature, nil, err)
	}
	expires := date.Add(window)
	if window <= 0 {
		expires = now.Add(keepSignatures)
	}
	if err := s.Replay.Take(ctx, a.AccessKeyID, given, expires); errors.Is(err, replay.ErrUsed) {
		s.record(from, "token.issue", audit.Denied, cred, a.AccessKeyID, bySignature, "", "the signature was used before")
		return s.count(bySignature, nil, unproven(replay.ErrUsed.Detail))
	} else if err != nil {
		return s.count(bySignature, nil, err)
	}
	// Not earlier: a client that replays somebody else's signature has proved nothing.
	if err := s.accept(ctx, from, a.AccessKeyID, cred); err != nil {
		return s.count(bySignature, nil, err)
	}
	return s.issue(ctx, from, bySignature, a.AccessKeyID, cred, cred.Scopes)
}

// Secret exchanges a client's secret for a token with the requested scopes, or all (RFC 6749 4.4). Errors are *auth.Error.
func (s *Service) Secret(ctx context.Context, from Origin, clientID, secret string, asked []string) (*auth.TokenResponse, error) {
	cred, err := s.Client(ctx, from, clientID, secret)
	if err != nil {
		return s.count(bySecret, nil, err)
	}
	scopes, err := narrow(cred.Scopes, asked)
	if err != nil {
		return s.count(bySecret, nil, err)
	}
	return s.issue(ctx, from, bySecret, clientID, cred, scopes)
}

// Refreshed exchanges a refresh token for a new token (RFC 6749 6). Errors are *auth.Error.
func (s *Service) Refreshed(ctx context.Context, from Origin, clientID, secret, token string, asked []string) (*auth.TokenResponse, error) {
	cred, err := s.Client(ctx, from, clientID, secret)
	if err != nil {
		return s.count(byRefresh, nil, err)
	}
	if !cred.RefreshTokens {
		return s.count(byRefresh, nil, &auth.Error{
			Code: auth.CodeUnauthorizedClient, Description: "refresh tokens are switched off for this client", Status: http.StatusBadRequest,
		})
	}
	if _, err := s.Ring.Signer(); err != nil {
		return s.count(byRefresh, nil, err) // before the refresh token is used up
	}
	var scopes []string
	var scopeErr error
	next, err := s.Refresh.Use(ctx, token, clientID, func(rec state.Refresh) bool {
		if rec.Epoch != cred.Epoch || rec.ClientAddress != "" && rec.ClientAddress != from.Address.String() {
			return false
		}
		// An invalid scope in the request must not consume the refresh token.
		if scopes, scopeErr = narrow(rec.Scopes, asked); scopeErr == nil {
			scopes, scopeErr = narrow(cred.Scopes, scopes)
		}
		return scopeErr == nil
	})
	if scopeErr != nil {
		return s.count(byRefresh, nil, scopeErr)
	}
	if errors.Is(err, refresh.ErrInvalid) {
		s.record(from, "token.refresh", audit.Denied, cred, clientID, bySecret, "", "the refresh token is not good")
		return s.count(byRefresh, nil, &auth.Error{
			Code: auth.CodeInvalidGrant, Description: refresh.ErrInvalid.Detail, Status: http.StatusBadRequest,
		})
	}
	if err != nil {
		return s.count(byRefresh, nil, err)
	}
	resp, err := s.mint(from, byRefresh, clientID, cred, scopes)
	if err == nil {
		resp.RefreshToken = next
	}
	return s.count(byRefresh, resp, err)
}

func narrow(held, asked []string) ([]string, error) {
	if len(asked) == 0 {
		return held, nil
	}
	for _, scope := range asked {
		if !slices.Contains(held, scope) {
			what := "one it asks for"
			if slices.Contains(identity.Scopes, scope) { // anything else may be a secret in the wrong place
				what = scope
			}
			return nil, &auth.Error{
				Code: auth.CodeInvalidScope, Status: http.StatusBadRequest,
				Description: fmt.Sprintf("the client may not have the scope %s, only %s", what, strings.Join(held, " ")),
			}
		}
	}
	return slices.Compact(slices.Sorted(slices.Values(asked))), nil
}

// Client authenticates a client by its secret. Errors are *auth.Error.
func (s *Service) Client(ctx context.Context, from Origin, clientID, secret string) (*state.Credential, error) {
	if !signing.ValidAccessKeyID(clientID) {
		// No such client can exist, but the rate limit of the address still applies.
		if err := s.admit(from, ""); err != nil {
			return nil, err
		}
		return nil, unproven(descWrong)
	}
	// Hashes have the same length whatever the secret is.
	given := sha256.Sum256([]byte(secret))
	cred, err := s.prove(ctx, from, clientID, func(secret []byte) bool {
		want := sha256.Sum256(secret)
		return hmac.Equal(given[:], want[:])
	})
	if err == nil {
		err = s.accept(ctx, from, clientID, cred)
	}
	return cred, err
}

// descWrong describes both an unknown access key and a wrong proof.
const descWrong = "the access key or its secret is wrong"

// prove checks a client's proof that it holds an access key.
func (s *Service) prove(ctx context.Context, from Origin, accessKeyID string, proves func([]byte) bool) (*state.Credential, error) {
	if err := s.admit(from, accessKeyID); err != nil {
		return nil, err
	}
	return s.judge(ctx, from, accessKeyID, limit.Source(from.Address), proves)
}

// accept records a correct proof: its source is trusted from now on.
func (s *Service) accept(ctx context.Context, from Origin, accessKeyID string, cred *state.Credential) error {
	s.Lockout.Succeeded(ctx, accessKeyID, limit.Source(from.Address))
	if !cred.Disabled {
		return nil
	}
	s.record(from, "token.issue", audit.Denied, cred, accessKeyID, "", "", "the credentials are disabled")
	return &auth.Error{
		Code: auth.CodeInvalidClient, Description: "the credentials are disabled: ask whoever provisioned them", Status: http.StatusUnauthorized,
	}
}

// judge checks a proof, unless the access key is locked, and records a failure. Proofs with the same access key from the
// same address are checked one after another.
func (s *Service) judge(ctx context.Context, from Origin, accessKeyID, source string, proves func([]byte) bool) (*state.Credential, error) {
	done, err := s.Lockout.Attempt(ctx, accessKeyID, source)
	if err != nil {
		return nil, err
	}
	defer done()
	if wait := s.Lockout.Locked(accessKeyID, source); wait > 0 {
		s.record(from, "token.issue", audit.Denied, nil, accessKeyID, "", "", "the access key is locked")
		return nil, locked(wait)
	}
	if cred, err := s.Vault.Check(accessKeyID, proves); cred != nil || err != nil {
		return cred, err
	}
	_, exists := s.Dir.Credential(accessKeyID)
	s.record(from, "token.issue", audit.Denied, nil, accessKeyID, "", "", descWrong)
	if _, err := s.Lockout.Failed(ctx, accessKeyID, source, exists); err != nil {
		return nil, err
	}
	if ok, wait := s.Failures.Allow(""); !ok {
		s.calm.Store(s.now().Add(wait).UnixNano())
	}
	return nil, unproven(descWrong)
}

// admit enforces the rate limits of a client.
func (s *Service) admit(from Origin, accessKeyID string) error {
	source := limit.Source(from.Address)
	ok, wait := s.PerSource.Allow(source)
	what := "from this address"
	if ok && accessKeyID != "" {
		// All untrusted sources share one bucket of the key, so that they cannot use up the allowance of its holder.
		bucket, trusted := accessKeyID, s.Lockout.Trusts(accessKeyID, source)
		if trusted {
			bucket += " " + source
		} else if wait = time.Duration(s.calm.Load() - s.now().UnixNano()); wait > 0 {
			ok, what = false, "that fail, from all addresses"
		}
		if ok {
			ok, wait = s.PerKey.Allow(bucket)
			what = "for this access key"
		}
	}
	if ok {
		return nil
	}
	return &auth.Error{
		Code: auth.CodeTemporarilyUnavailable, Status: http.StatusTooManyRequests, RetryAfter: wait,
		Description: "too many requests " + what + ": keep a token until shortly before it expires",
	}
}

func locked(wait time.Duration) *auth.Error {
	return &auth.Error{
		Code: auth.CodeAccessDenied, Status: http.StatusForbidden, RetryAfter: wait,
		Description: fmt.Sprintf("the access key is locked after failed attempts: try again in %d s", int(math.Ceil(wait.Seconds()))),
	}
}

func invalid(format string, args ...any) *auth.Error {
	return &auth.Error{Code: auth.CodeInvalidRequest, Description: fmt.Sprintf(format, args...), Status: http.StatusBadRequest}
}

func unproven(description string) *auth.Error {
	return &auth.Error{Code: auth.CodeInvalidClient, Description: description, Status: http.StatusUnauthorized}
}

// issue returns a token and, if the credential allows it, a refresh token.
func (s *Service) issue(ctx context.Context, from Origin, by, accessKeyID string, cred *state.Credential, scopes []string) (*auth.TokenResponse, error) {
	resp, err := s.mint(from, by, accessKeyID, cred, scopes)
	if err == nil && cred.RefreshTokens {
		rec := state.Refresh{AccessKeyID: accessKeyID, Epoch: cred.Epoch, Scopes: scopes}
		if cred.BindClientAddress {
			rec.ClientAddress = from.Address.String()
		}
		resp.RefreshToken, err = s.Refresh.Issue(ctx, rec)
	}
	return s.count(by, resp, err)
}

// count counts the result and converts err to *auth.Error.
func (s *Service) count(by string, resp *auth.TokenResponse, err error) (*auth.TokenResponse, error) {
	if err == nil {
		s.issued[by].Inc()
		return resp, nil
	}
	e := asAuthError(err)
	result := "refused"
	switch {
	case e.Status == http.StatusTooManyRequests:
		result = "limited"
	case e.Status == http.StatusForbidden:
		result = "locked"
	case e.Status >= http.StatusInternalServerError:
		result = "unavailable"
	}
	s.tokens.WithLabelValues(by, result).Inc()
	return nil, e
}

// asAuthError converts an error of the store to the form of RFC 6749. Errors without a kind are not disclosed.
func asAuthError(err error) *auth.Error {
	if e, ok := errors.AsType[*auth.Error](err); ok {
		return e
	}
	e := &auth.Error{Code: auth.CodeServerError, Description: "something went wrong inside the platform", Status: http.StatusInternalServerError}
	if kinded, ok := errors.AsType[*errs.Error](err); ok && kinded.Kind != errs.Internal {
		e.Code, e.Description, e.Status = auth.CodeTemporarilyUnavailable, kinded.Detail, kinded.Kind.Status()
		e.RetryAfter = kinded.RetryAfter
	}
	return e
}

func (s *Service) record(from Origin, action, result string, cred *state.Credential, accessKeyID, via, target, detail string) {
	e := audit.Entry{
		Action: action, Result: result, Client: accessKeyID, Via: via, Source: from.Address.String(), Target: target,
		RequestID: from.RequestID, Detail: detail,
	}
	if result == audit.Denied {
		e.Listener = auth.AuthListener // also for requests through the gateway, so that its other denials do not hide guessing
	}
	if cred != nil {
		e.Caller = cred.Subject
	}
	s.Audit.Busy(e)
}
