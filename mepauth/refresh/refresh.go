// Package refresh manages refresh tokens (RFC 6749 6). Each token is valid for one use, which yields the next token of its
// family. A second use, be it by a thief or by the rightful client, ends the family (RFC 9700 4.14.2).
package refresh

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"time"

	"github.com/google/uuid"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/openmep/mep/api/state"
	"github.com/openmep/mep/kit/errs"
	"github.com/openmep/mep/kit/etcd"
)

const (
	// MaxFamilies is the maximum number of families of an access key; one more ends the oldest.
	MaxFamilies = 16
	// span is how far apart the expiry times of families that share a lease may be.
	span = 5 * time.Minute
)

// Store manages refresh tokens.
type Store struct {
	store    *etcd.Store
	leases   *etcd.Leases
	lifetime func() time.Duration
	now      func() time.Time
}

// New returns a store; lifetime returns how long an unused token is valid.
func New(store *etcd.Store, lifetime func() time.Duration) *Store {
	return &Store{store: store, leases: etcd.NewLeases(store, span), lifetime: lifetime, now: time.Now}
}

// ErrInvalid means that a refresh token is not valid, without saying why.
var ErrInvalid = errs.New(errs.Invalid, "the refresh token is unknown, expired or used, or its credentials are not in force any more")

// familyOf returns the family of a token of the form FAMILY.SECRET.
func familyOf(token string) (family string, ok bool) {
	if len(token) != 36+1+43 || token[36] != '.' || uuid.Validate(token[:36]) != nil {
		return "", false
	}
	return token[:36], true
}

func hash(token string) string {
	sum := sha256.Sum256([]byte(token))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// Issue returns the first token of a new family. Errors are those of etcd.Store.Txn.
func (s *Store) Issue(ctx context.Context, rec state.Refresh) (string, error) {
	family, prefix := uuid.NewString(), state.RefreshKeys(rec.AccessKeyID)
	token, put, err := s.next(ctx, prefix+family, family, rec)
	if err != nil {
		return "", err
	}
	oldest, err := s.store.Do(ctx, clientv3.OpGet(prefix, clientv3.WithPrefix(), clientv3.WithKeysOnly(),
		clientv3.WithSort(clientv3.SortByCreateRevision, clientv3.SortAscend), clientv3.WithLimit(1)))
	if err != nil {
		return "", err
	}
	ops := []clientv3.Op{put}
	if got := oldest.Get(); got.Count >= MaxFamilies {
		ops = append(ops, clientv3.OpDelete(string(got.Kvs[0].Key)))
	}
	_, err = s.store.Txn(ctx, nil, ops, nil)
	return token, err
}

// next returns a new token, and the operation that makes it the valid one of its family.
func (s *Store) next(ctx context.Context, key, family string, rec state.Refresh) (string, clientv3.Op, error) {
	secret := make([]byte, 32)
	_, _ = rand.Read(secret) // never fails
	token := family + "." + base64.RawURLEncoding.EncodeToString(secret)
	rec.Version, rec.Current, rec.Expires = state.Current(), hash(token), s.now().Add(s.lifetime()).UTC()
	value, err := state.Encode(rec)
	if err != nil {
		return "", clientv3.Op{}, err
	}
	lease, err := s.leases.Until(ctx, rec.Expires)
	return token, clientv3.OpPut(key, value, clientv3.WithLease(lease)), err
}

// find reads the family of a token. revision is 0 when there is none.
func (s *Store) find(ctx context.Context, token, accessKeyID string) (key string, rec state.Refresh, revision int64, err error) {
	family, ok := familyOf(token)
	if !ok {
		return "", rec, 0, nil
	}
	key = state.RefreshKeys(accessKeyID) + family
	resp, err := s.store.Do(ctx, clientv3.OpGet(key))
	if err != nil || len(resp.Get().Kvs) == 0 {
		return key, rec, 0, err
	}
	rec, err = state.Decode[state.Refresh](resp.Get().Kvs[0].Value)
	return key, rec, resp.Get().Kvs[0].ModRevision, err
}

// Use exchanges a token of an access key for the next one of its family. good reports whether the conditions under which the
// token was issued still hold. The error is ErrInvalid, or one of those of etcd.Store.Txn.
func (s *Store) Use(ctx context.Context, token, accessKeyID string, good func(state.Refresh) bool) (string, error) {
	key, rec, revision, err := s.find(ctx, token, accessKeyID)
	switch {
	case err != nil:
		return "", err
	case revision == 0:
		return "", ErrInvalid
	case subtle.ConstantTimeCompare([]byte(rec.Current), []byte(hash(token))) != 1:
		return "", s.end(ctx, key) // it was used before
	case s.now().After(rec.Expires), !good(rec):
		return "", ErrInvalid
	}
	next, put, err := s.next(ctx, key, token[:36], rec)
	if err != nil {
		return "", err
	}
	done, err := s.store.Txn(ctx, []clientv3.Cmp{clientv3.Compare(clientv3.ModRevision(key), "=", revision)}, []clientv3.Op{put}, nil)
	switch {
	case s.leases.Lost(err):
		return "", errs.Wrap(errs.Unavailable, err, "try again").After(time.Second)
	case err != nil:
		return "", err
	case !done.Succeeded:
		return "", s.end(ctx, key) // it was used concurrently
	}
	return next, nil
}

// end ends a family whose token was used twice.
func (s *Store) end(ctx context.Context, key string) error {
	if _, err := s.store.Do(ctx, clientv3.OpDelete(key)); err != nil {
		return err
	}
	return ErrInvalid
}

// Revoke ends the family of a token of the access key. It reports whether the token was valid.
func (s *Store) Revoke(ctx context.Context, token, accessKeyID string) (bool, error) {
	rec, err := s.Look(ctx, token, accessKeyID)
	if err != nil || rec == nil {
		return false, err
	}
	_, err = s.store.Do(ctx, clientv3.OpDelete(state.RefreshKeys(accessKeyID)+token[:36]))
	return err == nil, err
}

// Look returns the record of a valid token of the access key, or nil.
func (s *Store) Look(ctx context.Context, token, accessKeyID string) (*state.Refresh, error) {
	_, rec, revision, err := s.find(ctx, token, accessKeyID)
	if err != nil || revision == 0 || s.now().After(rec.Expires) ||
		subtle.ConstantTimeCompare([]byte(rec.Current), []byte(hash(token))) != 1 {
		return nil, err
	}
	return &rec, nil
}
