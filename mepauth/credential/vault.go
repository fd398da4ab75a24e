package credential

import (
	"sync"
	"time"

	"github.com/openmep/mep/api/signing"
	"github.com/openmep/mep/api/state"
	"github.com/openmep/mep/kit/errs"
	"github.com/openmep/mep/kit/identity"
	"github.com/openmep/mep/kit/watched"
	"github.com/openmep/mep/mepauth/seal"
)

// Vault checks secrets.
type Vault struct {
	dir     *identity.Directory
	secrets *watched.Collection[state.Secrets]
	key     *seal.Key
	nobody  []byte // a sealed secret nobody has
	buffers sync.Pool
	now     func() time.Time
}

// NewVault returns a vault. It adds the collection of secrets to the mirror of state.AuthRoot.
func NewVault(private *watched.Mirror, dir *identity.Directory, key *seal.Key) *Vault {
	return &Vault{
		dir: dir, key: key, now: time.Now,
		secrets: watched.Add(private, "secrets", state.PrefixSecrets, func(_ string, value []byte, _ int64) (state.Secrets, error) {
			return state.Decode[state.Secrets](value)
		}),
		nobody:  key.Seal(nobodyKey, []byte(generate(signing.SecretKeyLength))),
		buffers: sync.Pool{New: func() any { b := make([]byte, 0, 2*signing.SecretKeyLength); return &b }},
	}
}

// nobodyKey is the key under which Vault.nobody is sealed.
const nobodyKey = state.PrefixSecrets

// Check returns the credential of an access key if proves returns true for one of its secrets, and nil if not, or if there
// is no such access key. Both take the same time, because the same number of secrets is tried. proves must not keep the
// secret, and must compare in constant time. The error is of the kind errs.Unavailable while only half of a change of the
// credential is known here.
func (v *Vault) Check(accessKeyID string, proves func(secret []byte) bool) (*state.Credential, error) {
	item, found := v.dir.Credential(accessKeyID)
	key := state.SecretKey(accessKeyID)
	secrets, ok := v.secrets.Snapshot().Get(key)
	if found && ok && secrets.Value.Epoch != item.Value.Epoch {
		// The two mirrors may be a moment apart: an old secret must not get a token of the new epoch.
		return nil, errs.New(errs.Unavailable, "the credentials are being changed").After(time.Second)
	}
	var tries [2][]byte
	if found && ok {
		n, now := 0, v.now()
		for _, s := range secrets.Value.Secrets {
			if n < len(tries) && (s.Expires.IsZero() || now.Before(s.Expires)) {
				tries[n] = s.Sealed
				n++
			}
		}
	}
	for _, sealed := range tries {
		name := key
		if sealed == nil {
			name, sealed = nobodyKey, v.nobody
		}
		// Nobody's secret proves nothing, whatever proves returns.
		if v.try(name, sealed, proves) && name == key {
			return item.Value, nil
		}
	}
	return nil, nil
}

func (v *Vault) try(name string, sealed []byte, proves func([]byte) bool) bool {
	b := v.buffers.Get().(*[]byte)
	defer func() {
		clear((*b)[:cap(*b)])
		v.buffers.Put(b)
	}()
	plain, err := v.key.AppendOpen((*b)[:0], name, sealed)
	return err == nil && proves(plain)
}
