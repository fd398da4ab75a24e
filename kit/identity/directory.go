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

// Key is a key that verifies the platform's tokens.
type Key struct {
	// ID is the key id (kid).
	ID string
	// Record is the record in etcd.
	Record state.SigningKey
	// Public is the key itself.
	Public crypto.PublicKey
}

// Directory is the state in etcd that tokens are checked against.
type Directory struct {
	mirror      *watched.Mirror
	keys        *watched.Collection[*Key]
	credentials *watched.Collection[*state.Credential]
	issuers     *watched.Collection[state.Issuer]
	revoked     *watched.Collection[state.Revoked]
	holders     watched.Index[*state.Credential]
}

// NewDirectory returns a directory with its collections added to the mirror.
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

// record returns a decoder for a function that decodes only the value.
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

// Keys returns the keys that verify tokens, in the order of their ids.
func (d *Directory) Keys() *watched.Collection[*Key] { return d.keys }

// Credentials returns the known access keys, without secrets.
func (d *Directory) Credentials() *watched.Collection[*state.Credential] { return d.credentials }

// AppCredentials iterates over the credentials of an application instance, not those of a manager of that name.
func (d *Directory) AppCredentials(appInstanceID string) iter.Seq[*watched.Item[*state.Credential]] {
	return func(yield func(*watched.Item[*state.Credential]) bool) {
		for item := range d.credentials.Snapshot().Find(d.holders, appInstanceID) {
			if !manages(item.Value) && !yield(item) {
				return
			}
		}
	}
}

// Manager reports whether a subject has credentials with a scope that apps do not have.
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

// Issuers returns the names the platform issues tokens under.
func (d *Directory) Issuers() *watched.Collection[state.Issuer] { return d.issuers }

// Revoked returns the tokens that were revoked before they expired, keyed by state.RevokedKey of their ids.
func (d *Directory) Revoked() *watched.Collection[state.Revoked] { return d.revoked }

// Mirror returns the mirror that keeps the directory.
func (d *Directory) Mirror() *watched.Mirror { return d.mirror }

// Credential returns the credential of an access key.
func (d *Directory) Credential(accessKeyID string) (*watched.Item[*state.Credential], bool) {
	return d.credentials.Snapshot().Get(state.CredentialKey(accessKeyID))
}

// ready reports whether the mirror is ready.
func (d *Directory) ready() bool {
	select {
	case <-d.mirror.Ready():
		return true
	default:
		return false
	}
}

// version identifies a state of the directory.
type version struct{ keys, credentials, issuers, revoked int64 }

func (d *Directory) version() version {
	return version{
		d.keys.Snapshot().Revision(), d.credentials.Snapshot().Revision(), d.issuers.Snapshot().Revision(),
		d.revoked.Snapshot().Revision(),
	}
}

// keyFor returns the key that verifies tokens with the kid at the time now.
func (d *Directory) keyFor(kid string, now time.Time) (*Key, bool) {
	item, ok := d.keys.Snapshot().Get(state.SigningKeyKey(kid))
	if !ok || !item.Value.Record.Expires.IsZero() && now.After(item.Value.Record.Expires) {
		return nil, false
	}
	return item.Value, true
}

// retract returns a *Refusal if a token of the platform that was valid once no longer is.
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
