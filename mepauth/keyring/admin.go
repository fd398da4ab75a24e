// Package keyring manages the keys that sign tokens. One key signs, its predecessors verify until the last token they signed has
// expired, and its successor is published before it starts signing.
//
// An Admin changes the keys. It works on etcd alone, so that it can also be used without a running mepauth. A Ring signs for a
// running mepauth.
package keyring

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/MicahParks/jwkset"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/openmep/mep/api/state"
	"github.com/openmep/mep/kit/errs"
	"github.com/openmep/mep/kit/etcd"
	"github.com/openmep/mep/mepauth/seal"
)

// Policy determines what keys are made and how long they are used.
type Policy struct {
	// Algorithm is the algorithm of new keys, one of identity.Algorithms.
	Algorithm string
	// RotateAfter is the age at which a key gets a successor; 0 disables automatic rotation.
	RotateAfter time.Duration
	// Delay is how long a key is published before it signs.
	Delay time.Duration
	// Verify is how long a key verifies after it stops signing: the token lifetime plus a margin for clock differences.
	Verify time.Duration
}

// Info is the public information about a key.
type Info struct {
	// ID is the key id (kid).
	ID string
	// Record is its public part.
	Record state.SigningKey
	rev    int64
}

// Phase returns what the key does at now: "published", "signing", "verifying" or "expired".
func (i *Info) Phase(all []Info, now time.Time) string {
	switch r := &i.Record; {
	case !r.Expires.IsZero() && now.After(r.Expires):
		return "expired"
	case choose(all, now) == i.ID:
		return "signing"
	case now.Before(r.NotBefore):
		return "published"
	}
	return "verifying"
}

// choose returns the id of the key that signs: the one that started last. When none has started, as after a clock jumped back,
// it returns the one that starts next, so that there is always a key. Keys that have stopped signing are not chosen.
func choose(all []Info, now time.Time) string {
	var best, next *Info
	for n := range all {
		i := &all[n]
		if !i.Record.Expires.IsZero() && now.After(i.Record.Expires) {
			continue
		}
		if !i.Record.Retired.IsZero() && !now.Before(i.Record.Retired) {
			continue
		}
		if now.Before(i.Record.NotBefore) {
			if next == nil || i.Record.NotBefore.Before(next.Record.NotBefore) {
				next = i
			}
			continue
		}
		if best == nil || i.Record.NotBefore.After(best.Record.NotBefore) {
			best = i
		}
	}
	switch {
	case best != nil:
		return best.ID
	case next != nil:
		return next.ID
	}
	return ""
}

// Admin changes the keys.
type Admin struct {
	store *etcd.Store
	seal  *seal.Key
	now   func() time.Time
}

// NewAdmin returns an Admin.
func NewAdmin(store *etcd.Store, key *seal.Key) *Admin {
	// Without a signing key nobody can log in, not even to free space.
	return &Admin{store: store.Urgent(), seal: key, now: time.Now}
}

// List returns the keys in the order in which they sign.
func (a *Admin) List(ctx context.Context) ([]Info, error) {
	list, _, err := a.list(ctx)
	return list, err
}

func (a *Admin) list(ctx context.Context) ([]Info, int64, error) {
	resp, err := a.store.Do(ctx, clientv3.OpGet(state.PrefixSigningKeys, clientv3.WithPrefix()))
	if err != nil {
		return nil, 0, err
	}
	var list []Info
	for _, kv := range resp.Get().Kvs {
		rec, err := state.Decode[state.SigningKey](kv.Value)
		if err != nil {
			return nil, 0, err
		}
		list = append(list, Info{ID: strings.TrimPrefix(string(kv.Key), state.PrefixSigningKeys), Record: rec, rev: kv.ModRevision})
	}
	slices.SortFunc(list, func(a, b Info) int { return a.Record.NotBefore.Compare(b.Record.NotBefore) })
	return list, resp.Get().Header.Revision, nil
}

// Ensure makes the first key, or a successor to one that has reached its age or has another algorithm than the policy. It
// returns the id of the key it made, or "". Several processes may call it concurrently; one of them makes the key.
func (a *Admin) Ensure(ctx context.Context, p Policy) (made string, err error) {
	list, rev, err := a.list(ctx)
	if err != nil {
		return "", err
	}
	now := a.now().UTC()
	signing := choose(list, now)
	if signing == "" {
		return a.add(ctx, list, rev, p, now, now)
	}
	for _, i := range list {
		if now.Before(i.Record.NotBefore) && i.ID != signing {
			return "", nil // a successor is waiting for its turn
		}
	}
	for _, i := range list {
		if i.ID != signing {
			continue
		}
		old := p.RotateAfter > 0 && !now.Before(i.Record.NotBefore.Add(p.RotateAfter-p.Delay))
		if old || i.Record.Algorithm != p.Algorithm {
			return a.add(ctx, list, rev, p, now, now.Add(p.Delay))
		}
	}
	return "", nil
}

// Rotate publishes a successor of the key that signs, and returns the successor's id and when it starts signing. The error is of
// the kind errs.Conflict when a successor has already been published.
func (a *Admin) Rotate(ctx context.Context, p Policy) (string, time.Time, error) {
	for range maxTries {
		list, rev, err := a.list(ctx)
		if err != nil {
			return "", time.Time{}, err
		}
		now := a.now().UTC()
		from := now.Add(p.Delay)
		signing := choose(list, now)
		if signing == "" {
			from = now
		}
		for _, i := range list {
			if now.Before(i.Record.NotBefore) && i.ID != signing {
				return "", time.Time{}, errs.New(errs.Conflict, "the key %s is published already and begins to sign at %s",
					i.ID, i.Record.NotBefore.Format(time.RFC3339))
			}
		}
		kid, err := a.add(ctx, list, rev, p, now, from)
		if err != nil || kid != "" {
			return kid, from, err
		}
	}
	return "", time.Time{}, errContended()
}

const maxTries = 8

func errContended() error {
	return errs.New(errs.Unavailable, "others keep changing the keys: try again").After(time.Second)
}

// add stores a new key that starts signing at from, when its predecessors stop. It returns "" when the keys were changed
// concurrently.
func (a *Admin) add(ctx context.Context, list []Info, rev int64, p Policy, now, from time.Time) (string, error) {
	kid, ops, err := a.generate(p, now, from)
	if err != nil {
		return "", err
	}
	for _, i := range list {
		if !i.Record.Retired.IsZero() {
			continue
		}
		i.Record.Retired, i.Record.Expires = from, from.Add(verifies(i.Record, p))
		put, err := putKey(i.ID, i.Record)
		if err != nil {
			return "", err
		}
		ops = append(ops, put)
	}
	return a.commit(ctx, list, rev, ops, kid)
}

// commit stores changes if the keys are still those of list at revision rev. Otherwise it returns "".
func (a *Admin) commit(ctx context.Context, list []Info, rev int64, ops []clientv3.Op, kid string) (string, error) {
	cmps := []clientv3.Cmp{clientv3.Compare(clientv3.ModRevision(state.PrefixSigningKeys), "<", rev+1).WithPrefix()}
	for _, i := range list { // the comparison above does not notice deletions
		cmps = append(cmps, clientv3.Compare(clientv3.ModRevision(state.SigningKeyKey(i.ID)), "=", i.rev))
	}
	resp, err := a.store.Txn(ctx, cmps, ops, nil)
	if err != nil || !resp.Succeeded {
		return "", err
	}
	return kid, nil
}

func putKey(kid string, rec state.SigningKey) (clientv3.Op, error) {
	value, err := state.Encode(rec)
	return clientv3.OpPut(state.SigningKeyKey(kid), value), err
}

// generate returns the id of a new key and the operations that store the key.
func (a *Admin) generate(p Policy, now, from time.Time) (string, []clientv3.Op, error) {
	private, err := newKey(p.Algorithm)
	if err != nil {
		return "", nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return "", nil, err
	}
	id := make([]byte, 8)
	_, _ = rand.Read(id) // never fails
	kid := hex.EncodeToString(id)
	jwk, err := jwkset.NewJWKFromKey(private.Public(), jwkset.JWKOptions{
		Metadata: jwkset.JWKMetadataOptions{ALG: jwkset.ALG(p.Algorithm), KID: kid, USE: jwkset.UseSig},
	})
	if err != nil {
		return "", nil, err
	}
	public, err := json.Marshal(jwk.Marshal())
	if err != nil {
		return "", nil, err
	}
	put, err := putKey(kid, state.SigningKey{
		Version: state.Current(), Algorithm: p.Algorithm, JWK: public, Created: now, NotBefore: from,
		Verify: int64(p.Verify / time.Second),
	})
	if err != nil {
		return "", nil, err
	}
	sealed, err := state.Encode(state.PrivateKey{
		Version: state.Current(), Sealed: a.seal.Seal(state.PrivateKeyKey(kid), der),
	})
	return kid, []clientv3.Op{put, clientv3.OpPut(state.PrivateKeyKey(kid), sealed)}, err
}

// rsaBits is the size of RSA keys.
const rsaBits = 3072

func newKey(algorithm string) (crypto.Signer, error) {
	switch algorithm {
	case "ES256":
		return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case "RS256", "RS512":
		return rsa.GenerateKey(rand.Reader, rsaBits)
	case "EdDSA":
		_, key, err := ed25519.GenerateKey(rand.Reader)
		return key, err
	}
	return nil, fmt.Errorf("no keys are made for the algorithm %q", algorithm)
}

// Retire takes a key out of service. The key stops signing at once. With revoke it also stops verifying, so that all tokens it
// signed are refused; otherwise it verifies until the last of them has expired. When no other key signs, Retire provides a
// successor that signs at once, and returns its id. The error is of the kind errs.NotFound when there is no such key.
func (a *Admin) Retire(ctx context.Context, kid string, revoke bool, p Policy) (successor string, err error) {
	for range maxTries {
		list, rev, err := a.list(ctx)
		if err != nil {
			return "", err
		}
		before := slices.Clone(list)
		at := slices.IndexFunc(list, func(i Info) bool { return i.ID == kid })
		if at < 0 {
			return "", errs.New(errs.NotFound, "there is no signing key %q", kid)
		}
		now := a.now().UTC()
		rec := &list[at].Record
		if rec.Retired.IsZero() || rec.Retired.After(now) {
			rec.Retired = now
		}
		if until := rec.Retired.Add(verifies(*rec, p)); rec.Expires.IsZero() || until.Before(rec.Expires) {
			rec.Expires = until
		}
		var ops []clientv3.Op
		if revoke {
			rec.Expires = now
			ops = append(ops, clientv3.OpDelete(state.SigningKeyKey(kid)), clientv3.OpDelete(state.PrivateKeyKey(kid)))
			list = slices.Delete(list, at, at+1)
		} else {
			put, err := putKey(kid, *rec)
			if err != nil {
				return "", err
			}
			ops = append(ops, put)
		}
		more, successor, err := a.succeed(list, p, now)
		if err != nil {
			return "", err
		}
		done, err := a.commit(ctx, before, rev, append(ops, more...), kid)
		if err != nil || done != "" {
			return successor, err
		}
	}
	return "", errContended()
}

// succeed makes sure that a key signs now. It returns the id of a key that starts only now.
func (a *Admin) succeed(list []Info, p Policy, now time.Time) (ops []clientv3.Op, kid string, err error) {
	next := choose(list, now)
	if next == "" {
		kid, ops, err = a.generate(p, now, now)
		return ops, kid, err
	}
	for _, i := range list {
		if i.ID == next && i.Record.NotBefore.After(now) {
			i.Record.NotBefore = now
			put, err := putKey(i.ID, i.Record)
			return []clientv3.Op{put}, next, err
		}
	}
	return nil, "", nil
}

// verifies returns how long a key verifies after it stops signing: a command that does not know the token lifetime must not make
// a key expire before the tokens it signed.
func verifies(rec state.SigningKey, p Policy) time.Duration {
	return max(p.Verify, time.Duration(rec.Verify)*time.Second)
}

// Extend prolongs the verification time of keys to that of the policy, where that is longer than the one they were made with.
func (a *Admin) Extend(ctx context.Context, p Policy) error {
	list, rev, err := a.list(ctx)
	if err != nil {
		return err
	}
	var ops []clientv3.Op
	for _, i := range list {
		if time.Duration(i.Record.Verify)*time.Second >= p.Verify {
			continue
		}
		i.Record.Verify = int64(p.Verify / time.Second)
		if !i.Record.Retired.IsZero() {
			i.Record.Expires = i.Record.Retired.Add(p.Verify)
		}
		put, err := putKey(i.ID, i.Record)
		if err != nil {
			return err
		}
		ops = append(ops, put)
	}
	if len(ops) == 0 {
		return nil
	}
	_, err = a.commit(ctx, list, rev, ops, "")
	return err
}

// Clean deletes the keys that expired more than an hour ago.
func (a *Admin) Clean(ctx context.Context) error {
	list, rev, err := a.list(ctx)
	if err != nil {
		return err
	}
	now := a.now()
	var ops []clientv3.Op
	for _, i := range list {
		if !i.Record.Expires.IsZero() && now.After(i.Record.Expires.Add(cleanAfter)) {
			ops = append(ops, clientv3.OpDelete(state.SigningKeyKey(i.ID)), clientv3.OpDelete(state.PrivateKeyKey(i.ID)))
		}
	}
	if len(ops) == 0 {
		return nil
	}
	_, err = a.commit(ctx, list, rev, ops, "")
	return err
}

// cleanAfter is how long an expired key is kept for inspection.
const cleanAfter = time.Hour
