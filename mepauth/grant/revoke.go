package grant

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/openmep/mep/api/auth"
	"github.com/openmep/mep/api/state"
	"github.com/openmep/mep/kit/audit"
	"github.com/openmep/mep/kit/errs"
	"github.com/openmep/mep/kit/etcd"
	"github.com/openmep/mep/kit/identity"
)

// Revoke revokes a token, or the family of a refresh token, that was issued to the client (RFC 7009). A token that is unknown,
// no longer valid or another client's is left unchanged and is not an error. Errors are *auth.Error.
func (s *Service) Revoke(ctx context.Context, from Origin, clientID, secret, token string) error {
	cred, err := s.Client(ctx, from, clientID, secret)
	if err != nil {
		return asAuthError(err)
	}
	if revoked, err := s.Refresh.Revoke(ctx, token, clientID); err != nil {
		return asAuthError(err)
	} else if revoked {
		s.record(from, "token.revoke", audit.Success, cred, clientID, bySecret, "", "a refresh token and its successors")
		return nil
	}
	caller, err := s.verify(ctx, token)
	if err != nil {
		return asAuthError(err)
	}
	if caller == nil || caller.ClientID != clientID || caller.TokenID == "" {
		return nil
	}
	if err := s.revoke(ctx, caller); err != nil {
		return asAuthError(err)
	}
	s.record(from, "token.revoke", audit.Success, cred, clientID, bySecret, caller.TokenID, "")
	return nil
}

// verify returns the caller of a valid token, or nil for an invalid one.
func (s *Service) verify(ctx context.Context, token string) (*identity.Caller, error) {
	caller, err := s.Verifier.Recall(token)
	if caller == nil && err == nil {
		caller, err = s.Verifier.Verify(ctx, token)
	}
	if _, refused := errors.AsType[*identity.Refusal](err); refused {
		return nil, nil
	}
	return caller, err
}

// leeway is how long after its expiry a token might still be accepted somewhere.
const leeway = 5 * time.Minute

// revoke records the revocation of a token for as long as the token could be used.
func (s *Service) revoke(ctx context.Context, caller *identity.Caller) error {
	value, err := state.Encode(state.Revoked{Version: state.Current(), Expires: caller.Expires.UTC()})
	if err != nil {
		return err
	}
	lease, err := s.Store.Grant(ctx, caller.Expires.Add(leeway).Sub(s.now()))
	if err != nil {
		return err
	}
	resp, err := s.Store.Urgent().Do(ctx, clientv3.OpPut(state.RevokedKey(caller.TokenID), value, clientv3.WithLease(lease)))
	if err != nil {
		return err
	}
	wait, cancel := context.WithTimeout(ctx, etcd.DefaultTimeout)
	defer cancel()
	// The token is revoked already; this process learns of it within milliseconds.
	_ = s.Dir.Mirror().WaitRevision(wait, resp.Put().Header.Revision)
	return nil
}

// Introspect describes a token to a client (RFC 7662). Errors are *auth.Error.
func (s *Service) Introspect(ctx context.Context, from Origin, clientID, secret, token string) (*auth.Introspection, error) {
	if _, err := s.Client(ctx, from, clientID, secret); err != nil {
		return nil, asAuthError(err)
	}
	caller, err := s.verify(ctx, token)
	if err != nil {
		return nil, asAuthError(err)
	}
	if caller == nil {
		rec, err := s.Refresh.Look(ctx, token, clientID)
		if err != nil {
			return nil, asAuthError(err)
		}
		if rec == nil { // also for a refresh token of another client
			return &auth.Introspection{}, nil
		}
		return &auth.Introspection{
			Active: true, Scope: strings.Join(rec.Scopes, " "), ClientID: rec.AccessKeyID, ExpiresAt: rec.Expires.Unix(),
			TokenType: auth.GrantRefreshToken,
		}, nil
	}
	var c identity.Claims
	if _, _, err := jwt.NewParser().ParseUnverified(token, &c); err != nil { // verified above
		return nil, asAuthError(errs.Wrap(errs.Internal, err, "read a token that was verified"))
	}
	i := &auth.Introspection{
		Active: true, Scope: strings.Join(caller.Scopes, " "), ClientID: caller.ClientID, TokenType: auth.TokenTypeBearer,
		ExpiresAt: caller.Expires.Unix(), Subject: caller.Subject, Audience: auth.Audience(c.Audience), Issuer: caller.Issuer,
		TokenID: caller.TokenID,
	}
	if c.IssuedAt != nil {
		i.IssuedAt = c.IssuedAt.Unix()
	}
	if c.NotBefore != nil {
		i.NotBefore = c.NotBefore.Unix()
	}
	return i, nil
}
