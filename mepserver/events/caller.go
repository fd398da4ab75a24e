package events

import (
	"errors"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/openmep/mep/api/state"
	"github.com/openmep/mep/kit/identity"
)

// errRevoked ends the stream of a caller whose token is no longer valid.
var errRevoked = errors.New("the caller's token or credentials were taken back")

// caller is the client that follows the events. A stream lasts longer than any other response, so the stream checks that the
// caller's proof of identity stays valid throughout.
type caller struct {
	expires time.Time
	// credential and token are the keys whose change revokes the proof, empty if nothing does.
	credential, token string
	// verified is the revision at which the proof was valid; 0 if not known yet.
	verified int64
}

// newCaller returns the caller for an identity that was let in, which may be nil.
func newCaller(c *identity.Caller) caller {
	if c == nil {
		return caller{}
	}
	w := caller{expires: c.Expires}
	if c.ClientID != "" {
		w.credential = state.CredentialKey(c.ClientID)
	}
	if c.TokenID != "" {
		w.token = state.RevokedKey(c.TokenID)
	}
	return w
}

// expiry returns a channel that receives when the proof expires; nil if it does not expire.
func (c *caller) expiry() (expired <-chan time.Time, stop func()) {
	if c.expires.IsZero() {
		return nil, func() {}
	}
	t := time.NewTimer(time.Until(c.expires))
	return t.C, func() { t.Stop() }
}

// revokedBy reports whether a change revokes the proof. A change from before the caller was let in does not.
func (c *caller) revokedBy(ev *clientv3.Event) bool {
	if ev.Kv.ModRevision <= c.verified {
		return false
	}
	switch key := string(ev.Kv.Key); {
	case key == "":
		return false
	case key == c.token:
		return ev.Type == mvccpb.Event_PUT
	case key != c.credential:
		return false
	}
	if ev.Type == mvccpb.Event_DELETE || ev.PrevKv == nil {
		return true
	}
	now, err := state.Decode[state.Credential](ev.Kv.Value)
	was, werr := state.Decode[state.Credential](ev.PrevKv.Value)
	return err != nil || werr != nil || now.Disabled || now.Epoch != was.Epoch || now.Subject != was.Subject
}
