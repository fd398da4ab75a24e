// Package refresh keeps refresh tokens (RFC 6749 6). Each is good once: its use gives the next one of its family, and a second
// use, by whoever stole it or was stolen from, ends the family (RFC 9700 4.14.2).
package refresh

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"time"

	"github.com/google/uuid"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/openmep/mep/api/state"
	"github.com/openmep/mep/kit/errs"
	"github.com/openmep/mep/kit/etcd"
)

// Store keeps refresh tokens.
type Store struct {
	store    *etcd.Store
	lifetime func() time.Duration
	now      func() time.Time
}

// New makes a store; lifetime is how long a token that is not used is good.
func New(store *etcd.Store, lifetime func() time.Duration) *Store {
	return &Store{store: store, lifetime: lifetime, now: time.Now}
}

// ErrInvalid says that a refresh token is not good, without saying why.
var ErrInvalid = errs.New(errs.Invalid, "the refresh token is unknown, expired or used, or its credentials are not in force any more")

// familyPrefix is where the tokens of a family stand.
func familyPrefix(family string) string { return state.PrefixRefresh + family + "/" }

// keyOf is where a token stands. A token is FAMILY.SECRET; what is stored is a hash of it.
func keyOf(token string) (key, family string, ok bool) {
	if len(token) != 36+1+43 || token[36] != '.' || uuid.Validate(token[:36]) != nil {
		return "", "", false
	}
	sum := sha256.Sum256([]byte(token))
	return familyPrefix(token[:36]) + base64.RawURLEncoding.EncodeToString(sum[:]), token[:36], true
}

// Issue makes the first token of a family. Errors are those of etcd.Store.Txn.
func (s *Store) Issue(ctx context.Context, rec state.Refresh) (string, error) {
	rec.Family = uuid.NewString()
	token, put, err := s.next(ctx, rec)
	if err != nil {
		return "", err
	}
	_, err = s.store.Do(ctx, put)
	return token, err
}

func (s *Store) next(ctx context.Context, rec state.Refresh) (string, clientv3.Op, error) {
	secret := make([]byte, 32)
	_, _ = rand.Read(secret) // never fails
	token := rec.Family + "." + base64.RawURLEncoding.EncodeToString(secret)
	key, _, _ := keyOf(token)
	life := s.lifetime()
	rec.Version, rec.Expires, rec.Used = state.Current(), s.now().Add(life).UTC(), false
	value, err := state.Encode(rec)
	if err != nil {
		return "", clientv3.Op{}, err
	}
	lease, err := s.store.Grant(ctx, life)
	return token, clientv3.OpPut(key, value, clientv3.WithLease(lease)), err
}

// Use exchanges a token of an access key for the next one of its family. good says whether what the token was issued for still
// holds. The error is ErrInvalid, or one of those of etcd.Store.Txn.
func (s *Store) Use(ctx context.Context, token, accessKeyID string, good func(state.Refresh) bool) (string, state.Refresh, error) {
	key, family, ok := keyOf(token)
	if !ok {
		return "", state.Refresh{}, ErrInvalid
	}
	resp, err := s.store.Do(ctx, clientv3.OpGet(key))
	if err != nil {
		return "", state.Refresh{}, err
	}
	kvs := resp.Get().Kvs
	if len(kvs) == 0 {
		return "", state.Refresh{}, ErrInvalid
	}
	rec, err := state.Decode[state.Refresh](kvs[0].Value)
	if err != nil {
		return "", rec, err
	}
	if rec.AccessKeyID != accessKeyID || s.now().After(rec.Expires) || !good(rec) {
		return "", rec, ErrInvalid
	}
	if rec.Used {
		return "", rec, s.end(ctx, family)
	}
	used := rec
	used.Used = true
	value, err := state.Encode(used)
	if err != nil {
		return "", rec, err
	}
	next, put, err := s.next(ctx, rec)
	if err != nil {
		return "", rec, err
	}
	done, err := s.store.Txn(ctx, []clientv3.Cmp{clientv3.Compare(clientv3.ModRevision(key), "=", kvs[0].ModRevision)},
		[]clientv3.Op{clientv3.OpPut(key, value, clientv3.WithIgnoreLease()), put}, nil)
	switch {
	case err != nil:
		return "", rec, err
	case !done.Succeeded:
		return "", rec, s.end(ctx, family) // somebody else used it meanwhile
	}
	return next, rec, nil
}

// end revokes a family whose token was used twice.
func (s *Store) end(ctx context.Context, family string) error {
	if _, err := s.store.Do(ctx, clientv3.OpDelete(familyPrefix(family), clientv3.WithPrefix())); err != nil {
		return err
	}
	return ErrInvalid
}

// Revoke ends the family of a token of the access key. It reports whether there was one.
func (s *Store) Revoke(ctx context.Context, token, accessKeyID string) (bool, error) {
	rec, err := s.Look(ctx, token)
	if err != nil || rec == nil || rec.AccessKeyID != accessKeyID {
		return false, err
	}
	_, err = s.store.Do(ctx, clientv3.OpDelete(familyPrefix(rec.Family), clientv3.WithPrefix()))
	return err == nil, err
}

// Look returns the record of a token that is good, nil for others.
func (s *Store) Look(ctx context.Context, token string) (*state.Refresh, error) {
	key, _, ok := keyOf(token)
	if !ok {
		return nil, nil
	}
	resp, err := s.store.Do(ctx, clientv3.OpGet(key))
	if err != nil || len(resp.Get().Kvs) == 0 {
		return nil, err
	}
	rec, err := state.Decode[state.Refresh](resp.Get().Kvs[0].Value)
	if err != nil || rec.Used || s.now().After(rec.Expires) {
		return nil, err
	}
	return &rec, nil
}
