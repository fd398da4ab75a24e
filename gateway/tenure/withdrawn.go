package tenure

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"strings"
	"time"

	"github.com/openmep/mep/api/state"
	"github.com/openmep/mep/gateway/authn"
	"github.com/openmep/mep/kit/errs"
	"github.com/openmep/mep/kit/identity"
)

// Tokens of other issuers have to be verified now and then, which takes a while for each: a round does so for as long as looks, and for
// the rest of them the next rounds do. patience is how long one may wait for keys.
const (
	looks    = 20 * time.Millisecond
	patience = 200 * time.Millisecond
)

// withdrawn says why what the caller proved itself with does not count any more; nil when it does, or has merely expired. What the caller
// may do by it is written down in the probe anew.
func (r *round) withdrawn(s *stay) error {
	c := s.call
	if key := c.Key; key != nil && !r.expired(key) {
		if _, err := r.cfg.Book.Keys.Get(key.ClientID); err != nil {
			return errWithdrawn("the API key was deleted")
		}
	}
	switch {
	case c.Token != "":
		return r.token(s)
	case c.Caller != nil && c.Caller.Via == authn.ViaCertificate && !r.expired(c.Caller):
		fresh, err := r.cfg.Guard.Certificate(s.request.TLS)
		if err != nil || fresh == nil || fresh.Subject != c.Caller.Subject {
			return errWithdrawn("the client certificate does not stand for the caller any more")
		}
		r.probe.Caller = fresh
	}
	return nil
}

func errWithdrawn(why string) error { return errs.New(errs.Unauthenticated, "%s", why) }

func (r *round) expired(c *identity.Caller) bool {
	return !c.Expires.IsZero() && !r.now.Before(c.Expires)
}

// token is withdrawn for callers with a token.
func (r *round) token(s *stay) error {
	c := s.call.Caller
	dir := r.cfg.Guard.Verifier().Directory()
	if s.rests == nil {
		s.rests = restsOn(string(s.call.Token), c)
	}
	if _, own := dir.Issuers().Snapshot().Get(s.rests.issuer); !own {
		return r.others(s)
	}
	// Its signature was good when the call began.
	switch item, ok := dir.Credentials().Snapshot().Get(s.rests.credential); {
	case !ok, item.Value.Epoch != s.rests.epoch, item.Value.Subject != c.Subject:
		return errWithdrawn("the credentials the token was issued for are not in force any more")
	case item.Value.Disabled:
		return errWithdrawn("the credentials the token was issued for are disabled")
	}
	if r.expired(c) {
		return nil
	}
	if _, revoked := r.revoked.Snapshot().Get(s.rests.revoked); revoked {
		return errWithdrawn("the token was revoked")
	}
	key, ok := dir.Keys().Snapshot().Get(s.rests.key)
	if !ok || !key.Value.Record.Expires.IsZero() && r.now.After(key.Value.Record.Expires) {
		return errWithdrawn("the key the token was signed with is no longer in use")
	}
	return nil
}

// others is withdrawn for callers with a token of another issuer. One that cannot be judged at present still counts.
func (r *round) others(s *stay) error {
	if r.expired(s.call.Caller) {
		return nil
	}
	v, token := r.cfg.Guard.Verifier(), string(s.call.Token)
	caller, err := v.Recall(token)
	if caller == nil && err == nil {
		if r.spent >= looks {
			return nil
		}
		start := time.Now()
		ctx, cancel := context.WithTimeout(r.ctx, patience)
		caller, err = v.Verify(ctx, token)
		cancel()
		r.spent += time.Since(start)
	}
	if refusal, ok := errors.AsType[*identity.Refusal](err); ok {
		if time.Now().Before(s.call.Caller.Expires) {
			return errWithdrawn(refusal.Description)
		}
		return nil
	}
	if caller != nil {
		if caller.Subject != s.call.Caller.Subject {
			return errWithdrawn("the token stands for somebody else by now")
		}
		r.probe.Caller = caller
	}
	return nil
}

// rests is what a token of the platform rests on: keys of records, and the epoch of its credential.
type rests struct{ issuer, credential, revoked, key, epoch string }

// restsOn reads a token that was verified before.
func restsOn(token string, c *identity.Caller) *rests {
	var says struct {
		KeyID string `json:"kid"`
		Epoch string `json:"epoch"`
	}
	head, rest, _ := strings.Cut(token, ".")
	payload, _, _ := strings.Cut(rest, ".")
	for _, part := range []string{head, payload} {
		if data, err := base64.RawURLEncoding.DecodeString(part); err == nil {
			_ = json.Unmarshal(data, &says) // what cannot be read matches no credential
		}
	}
	return &rests{
		issuer: state.IssuerKey(c.Issuer), credential: state.CredentialKey(c.ClientID), revoked: state.RevokedKey(c.TokenID),
		key: state.SigningKeyKey(says.KeyID), epoch: says.Epoch,
	}
}
