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

// Tokens of other issuers have to be verified now and then, which takes a while for each: a round does so for as long as looks, and for
// the rest of them the next rounds do. patience is how long one may wait for keys, recheck how long what was found holds.
const (
	looks    = 20 * time.Millisecond
	patience = 200 * time.Millisecond
	recheck  = time.Minute
)

// withdrawn says why what the caller proved itself with does not count any more; nil when it does, or has merely expired. What the caller
// may do by it is written down in the probe anew.
func (v *verdict) withdrawn(s *stay) error {
	c := s.call
	if key := c.Key; key != nil {
		if _, err := v.cfg.Book.Keys.Get(key.ClientID); err != nil && !expired(key, time.Now()) { // those that expire are deleted, too
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
	// The names that the platform had before go when all tokens have expired that were issued under them.
	if _, own := dir.Issuers().Snapshot().Get(s.rests.issuer); own {
		s.rests.own = true
	} else if !s.rests.own || !expired(c, v.now) {
		return v.others(s)
	}
	// Its signature was good when the call began.
	switch item, ok := dir.Credentials().Snapshot().Get(s.rests.credential); {
	case !ok, item.Value.Epoch != s.rests.epoch, item.Value.Subject != c.Subject:
		return errWithdrawn("the credentials the token was issued for are not in force any more")
	case item.Value.Disabled:
		return errWithdrawn("the credentials the token was issued for are disabled")
	}
	if _, revoked := dir.Revoked().Snapshot().Get(s.rests.revoked); revoked {
		return errWithdrawn("the token was revoked")
	}
	// Keys go when all tokens have expired that they signed: of those that have expired it matters whether the key went before that.
	key, there := dir.Keys().Snapshot().Get(s.rests.key)
	inUse := there && (key.Value.Record.Expires.IsZero() || !v.now.After(key.Value.Record.Expires))
	if _, retired := v.retired.Load(s.rests.key); retired || !inUse && !expired(c, time.Now()) {
		return errWithdrawn("the key the token was signed with is no longer in use")
	}
	return nil
}

// noteKey notes whether a signing key was taken back before its time.
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

// foreign is how a token of another issuer was judged last.
type foreign struct {
	trust  any              // who was trusted then; nil: it was not judged since the call began
	until  time.Time        // until when that holds
	caller *identity.Caller // who it stands for
}

// others is withdrawn for callers with a token of another issuer. One that cannot be judged at present still counts. The keys of issuers
// come and go, so that those of tokens that have expired are not asked for.
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

// rests is what a token of the platform rests on: keys of records, and the epoch of its credential.
type rests struct {
	issuer, credential, revoked, key, epoch string

	own bool // the issuer is a name of the platform, or was one
}

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
