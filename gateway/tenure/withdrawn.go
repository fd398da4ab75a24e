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
	"github.com/openmep/mep/kit/watched"
)

// Tokens of other issuers have to be verified again now and then, which takes a while for each. Once a round has spent looks on that, it
// leaves the rest to the next rounds. patience is how long one verification may wait for keys, recheck how long its result counts.
const (
	looks    = 20 * time.Millisecond
	patience = 200 * time.Millisecond
	recheck  = time.Minute
)

// withdrawn returns why the caller's proof of identity no longer counts; nil when it does, or has merely expired. It also updates the probe
// with what the proof entitles the caller to now.
func (v *verdict) withdrawn(s *stay) error {
	c := s.call
	if key := c.Key; key != nil {
		if _, err := v.cfg.Book.Keys.Get(key.ClientID); err != nil && !expired(key, time.Now()) { // expired keys are deleted, too
			return errWithdrawn("the API key was deleted")
		}
	}
	switch {
	case c.Token != "":
		return v.token(s)
	case c.Caller != nil && c.Caller.Via == authn.ViaCertificate:
		fresh := v.cfg.Guard.Holder(s.request.TLS)
		if fresh == nil || fresh.Subject != c.Caller.Subject {
			return errWithdrawn("the client certificate does not stand for the caller any more")
		}
		v.probe.Caller = fresh
	}
	return nil
}

func errWithdrawn(why string) error { return errs.New(errs.Unauthenticated, "%s", why) }

func expired(c *identity.Caller, now time.Time) bool {
	return !c.Expires.IsZero() && !now.Before(c.Expires)
}

// token is withdrawn for callers with a token.
func (v *verdict) token(s *stay) error {
	c := s.call.Caller
	dir := v.cfg.Guard.Verifier().Directory()
	if s.rests == nil {
		s.rests = restsOn(string(s.call.Token), c)
	}
	// Former issuer names of the platform are removed once all tokens issued under them have expired.
	if _, own := dir.Issuers().Snapshot().Get(s.rests.issuer); own {
		s.rests.own = true
	} else if !s.rests.own || !expired(c, v.now) {
		return v.others(s)
	}
	// The signature was valid when the call began.
	switch item, ok := dir.Credentials().Snapshot().Get(s.rests.credential); {
	case !ok, item.Value.Epoch != s.rests.epoch, item.Value.Subject != c.Subject:
		return errWithdrawn("the credentials the token was issued for are not in force any more")
	case item.Value.Disabled:
		return errWithdrawn("the credentials the token was issued for are disabled")
	}
	if _, revoked := dir.Revoked().Snapshot().Get(s.rests.revoked); revoked {
		return errWithdrawn("the token was revoked")
	}
	// A key is removed once all tokens that it signed have expired. For an expired token, what matters is whether the key was removed
	// before that.
	key, there := dir.Keys().Snapshot().Get(s.rests.key)
	inUse := there && (key.Value.Record.Expires.IsZero() || !v.now.After(key.Value.Record.Expires))
	if _, retired := v.retired.Load(s.rests.key); retired || !inUse && !expired(c, time.Now()) {
		return errWithdrawn("the key the token was signed with is no longer in use")
	}
	return nil
}

// noteKey records whether a signing key was removed before it expired.
func (t *Calls) noteKey(c watched.Change[*identity.Key]) {
	switch {
	case c.New != nil:
		t.retired.Delete(c.Key)
	case c.Old == nil:
	default:
		if until := c.Old.Value.Record.Expires; until.IsZero() || time.Now().Before(until) {
			t.retired.Store(c.Key, struct{}{})
		}
	}
}

// foreign is the last judgement on a token of another issuer.
type foreign struct {
	trust  any              // who was trusted then; nil: not judged since the call began
	until  time.Time        // how long the judgement counts
	caller *identity.Caller // whom the token stands for
}

// others is withdrawn for callers with a token of another issuer. A token that cannot be judged at present still counts. The keys of
// issuers come and go, so those of expired tokens are not looked up.
func (v *verdict) others(s *stay) error {
	verifier, f := v.cfg.Guard.Verifier(), &s.foreign
	if !verifier.Trusts(s.call.Caller.Issuer) {
		return errWithdrawn("the issuer of the token is not trusted any more")
	}
	trust, past := verifier.Trust(), expired(s.call.Caller, v.now)
	if f.trust != trust || !past && !v.now.Before(f.until) {
		if v.spent >= looks {
			return nil
		}
		start := time.Now()
		ctx, cancel := context.WithTimeout(v.ctx, patience)
		caller, err := verifier.Again(ctx, string(s.call.Token), !past)
		cancel()
		v.spent += time.Since(start)
		if refusal, ok := errors.AsType[*identity.Refusal](err); ok {
			return errWithdrawn(refusal.Description)
		}
		if err != nil {
			return nil
		}
		f.trust, f.until, f.caller = trust, start.Add(recheck), caller
	}
	if f.caller.Subject != s.call.Caller.Subject {
		return errWithdrawn("the token stands for somebody else by now")
	}
	v.probe.Caller = f.caller
	return nil
}

// rests is what a token of the platform depends on: keys of records, and the epoch of its credential.
type rests struct {
	issuer, credential, revoked, key, epoch string

	own bool // the issuer is or was a name of the platform
}

// restsOn reads a token that has been verified before.
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
