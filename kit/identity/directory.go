package identity

import (
	"crypto"
	"fmt"
	"iter"
	"slices"
	"strings"
	"time"

	"github.com/MicahParks/jwkset"

	"github.com/openmep/mep/api/state"
	"github.com/openmep/mep/kit/watched"
)

// Key is a key that verifies tokens of the platform.
type Key struct {
	// ID is the key id (kid).
	ID string
	// Record is what stands in etcd.
	Record state.SigningKey
	// Public is the key itself.
	Public crypto.PublicKey
}

// Directory is what tokens are checked against, as it stands in etcd.
type Directory struct {
	mirror      *watched.Mirror
	keys        *watched.Collection[*Key]
	credentials *watched.Collection[*state.Credential]
	issuers     *watched.Collection[state.Issuer]
	revoked     *watched.Collection[state.Revoked]
	holders     watched.Index[*state.Credential]
}

// NewDirectory adds the collections to the mirror.
func NewDirectory(m *watched.Mirror) *Directory {
	d := &Directory{
		mirror:      m,
		keys:        watched.Add(m, "signing keys", state.PrefixSigningKeys, decodeKey),
		credentials: watched.Add(m, "credentials", state.PrefixCredentials, record(decodeCredential)),
		issuers:     watched.Add(m, "issuers", state.PrefixIssuers, record(state.Decode[state.Issuer])),
		revoked:     watched.Add(m, "revoked tokens", state.PrefixRevoked, record(state.Decode[state.Revoked])),
	}
	d.holders = watched.NewIndex(d.credentials, func(it *watched.Item[*state.Credential]) []string { return []string{it.Value.Subject} })
	return d
}

// record makes a decoder of a function that decodes values alone.
func record[R any](decode func([]byte) (R, error)) watched.Decoder[R] {
	return func(_ string, value []byte, _ int64) (R, error) { return decode(value) }
}

func decodeCredential(value []byte) (*state.Credential, error) {
	rec, err := state.Decode[state.Credential](value)
	return &rec, err
}

func decodeKey(key string, value []byte, _ int64) (*Key, error) {
	rec, err := state.Decode[state.SigningKey](value)
	if err != nil {
		return nil, err
	}
	jwk, err := jwkset.NewJWKFromRawJSON(rec.JWK, jwkset.JWKMarshalOptions{}, jwkset.JWKValidateOptions{})
	if err != nil {
		return nil, fmt.Errorf("decode signing key: %w", err)
	}
	return &Key{ID: strings.TrimPrefix(key, state.PrefixSigningKeys), Record: rec, Public: jwk.Key()}, nil
}

// Keys are the keys that verify tokens, by the ids in the order of the ids.
func (d *Directory) Keys() *watched.Collection[*Key] { return d.keys }

// Credentials are the known access keys, without secrets.
func (d *Directory) Credentials() *watched.Collection[*state.Credential] { return d.credentials }

// AppCredentials walks over the credentials of an application instance. Those of a manager of that name are not among them.
func (d *Directory) AppCredentials(appInstanceID string) iter.Seq[*watched.Item[*state.Credential]] {
	return func(yield func(*watched.Item[*state.Credential]) bool) {
		for item := range d.credentials.Snapshot().Find(d.holders, appInstanceID) {
			if !manages(item.Value) && !yield(item) {
				return
			}
		}
	}
}

// Manager reports whether a subject has credentials for more than what apps do.
func (d *Directory) Manager(subject string) bool {
	for item := range d.credentials.Snapshot().Find(d.holders, subject) {
		if manages(item.Value) {
			return true
		}
	}
	return false
}

func manages(c *state.Credential) bool {
	return slices.ContainsFunc(c.Scopes, func(s string) bool { return s != state.ScopeMp1 })
}

// Issuers are the names tokens are issued under.
func (d *Directory) Issuers() *watched.Collection[state.Issuer] { return d.issuers }

// Revoked are the tokens that were revoked before they expired, under state.RevokedKey of their ids.
func (d *Directory) Revoked() *watched.Collection[state.Revoked] { return d.revoked }

// Mirror is what keeps the directory.
func (d *Directory) Mirror() *watched.Mirror { return d.mirror }

// Credential finds an access key.
func (d *Directory) Credential(accessKeyID string) (*watched.Item[*state.Credential], bool) {
	return d.credentials.Snapshot().Get(state.CredentialKey(accessKeyID))
}

// ready reports whether there is a state to decide by.
func (d *Directory) ready() bool {
	select {
	case <-d.mirror.Ready():
		return true
	default:
		return false
	}
}

// version tells two states of the directory apart.
type version struct{ keys, credentials, issuers, revoked int64 }

func (d *Directory) version() version {
	return version{
		d.keys.Snapshot().Revision(), d.credentials.Snapshot().Revision(), d.issuers.Snapshot().Revision(),
		d.revoked.Snapshot().Revision(),
	}
}

// keyFor finds the key that verifies tokens with the kid at present.
func (d *Directory) keyFor(kid string, now time.Time) (*Key, bool) {
	item, ok := d.keys.Snapshot().Get(state.SigningKeyKey(kid))
	if !ok || !item.Value.Record.Expires.IsZero() && now.After(item.Value.Record.Expires) {
		return nil, false
	}
	return item.Value, true
}

// retract says why a token of the platform is no longer good, although it was when it was issued.
func (d *Directory) retract(kid string, claims *Claims, now time.Time) error {
	if _, ok := d.keyFor(kid, now); !ok {
		return refuse(codeToken, "the key the token was signed with is no longer in use")
	}
	if _, ok := d.issuers.Snapshot().Get(state.IssuerKey(claims.Issuer)); !ok {
		return refuse(codeToken, "the token was issued by "+claims.Issuer+", which is not trusted here")
	}
	if _, ok := d.revoked.Snapshot().Get(state.RevokedKey(claims.ID)); ok {
		return refuse(codeToken, "the token was revoked")
	}
	item, ok := d.Credential(claims.ClientID)
	switch {
	case !ok, item.Value.Epoch != claims.Epoch, item.Value.Subject != claims.Subject:
		return refuse(codeToken, "the token was revoked: the credentials it was issued for are not in force any more")
	case item.Value.Disabled:
		return refuse(codeToken, "the credentials the token was issued for are disabled")
	}
	return nil
}
