// Package credential manages the access keys of apps and managers: their holders, their scopes, and their secrets.
//
// A Book changes credentials. It works on etcd alone and reads from etcd what it changes, so that it can also be used without a
// running mepauth. A Vault checks secrets against the mirrored copy, as every token request does.
package credential

import (
	"context"
	"crypto/subtle"
	"fmt"
	"slices"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/openmep/mep/api/mm5"
	"github.com/openmep/mep/api/signing"
	"github.com/openmep/mep/api/state"
	"github.com/openmep/mep/kit/errs"
	"github.com/openmep/mep/kit/etcd"
	"github.com/openmep/mep/mepauth/seal"
)

// Book changes credentials.
type Book struct {
	store *etcd.Store
	key   *seal.Key
	now   func() time.Time
}

// NewBook returns a book.
func NewBook(store *etcd.Store, key *seal.Key) *Book {
	return &Book{store: store, key: key, now: time.Now}
}

// Wanted describes the desired state of a credential.
type Wanted struct {
	// Subject is the appInstanceId in canonical form, or the name of a manager.
	Subject string
	// Name is a display name.
	Name string
	// Scopes are the scopes its tokens may have.
	Scopes []string
	// AccessKeyID and SecretKey are the keys of the holder. An empty one stays as it is, or is generated.
	AccessKeyID, SecretKey string
	// Requires lists the services the app declared; empty means no declaration. Only for apps.
	Requires []string
	// RefreshTokens and BindClientAddress are as in state.Credential.
	RefreshTokens, BindClientAddress bool
}

// Known is a stored credential, without secrets.
type Known struct {
	AccessKeyID string
	Credential  state.Credential
	Secrets     []SecretInfo
	// Requires lists the services the app declared.
	Requires []string
}

// SecretInfo is the public information about a secret.
type SecretInfo struct {
	ID      string
	Created time.Time
	// Expires is zero for a secret that does not expire.
	Expires time.Time
}

// Made is the result of a change.
type Made struct {
	Known
	// SecretKey is the secret key if the change generated it, otherwise empty.
	SecretKey string
	// Created reports whether the credential is new.
	Created bool
}

// maxTries limits the attempts of a change that conflicts with others.
const maxTries = 8

// newEpoch returns a new epoch. It is short, because every token contains it, yet long enough that a credential never repeats
// one.
func newEpoch() string { return generate(12) }

func errContended() error {
	return errs.New(errs.Unavailable, "others keep changing the same credentials: try again").After(time.Second)
}

// record is a decoded value with its key and revision.
type record[R any] struct {
	key   string
	rev   int64 // 0 if the record does not exist
	value R
}

func (r record[R]) exists() bool { return r.rev != 0 }

// same returns the condition that the record has not changed since it was read.
func (r record[R]) same() clientv3.Cmp {
	return clientv3.Compare(clientv3.ModRevision(r.key), "=", r.rev)
}

func decode[R any](key string, kvs []*mvccpb.KeyValue, dec func([]byte) (R, error)) (record[R], error) {
	r := record[R]{key: key}
	if len(kvs) == 0 {
		return r, nil
	}
	var err error
	r.rev = kvs[0].ModRevision
	r.value, err = dec(kvs[0].Value)
	return r, err
}

// view is the state that the change of one subject's credential depends on.
type view struct {
	revision int64
	app      record[state.App]
	holders  []string // access keys of the subject
	held     []clientv3.Cmp
	cred     record[state.Credential]
	secrets  record[state.Secrets]
}

// look reads the view of a subject and an access key. When accessKeyID is empty, look uses the subject's first access key.
func (b *Book) look(ctx context.Context, subject, accessKeyID string) (*view, error) {
	v := &view{}
	prefix := state.HolderKeys(subject)
	resp, err := b.store.Txn(ctx, nil, []clientv3.Op{
		clientv3.OpGet(prefix, clientv3.WithPrefix(), clientv3.WithKeysOnly()),
		clientv3.OpGet(state.AppKey(subject)),
	}, nil)
	if err != nil {
		return nil, err
	}
	v.revision = resp.Header.Revision
	for _, kv := range resp.Responses[0].GetResponseRange().Kvs {
		ak, err := state.AccessKeyID(prefix, string(kv.Key))
		if err != nil {
			return nil, err
		}
		v.holders = append(v.holders, ak)
		v.held = append(v.held, clientv3.Compare(clientv3.CreateRevision(string(kv.Key)), "=", kv.CreateRevision))
	}
	if v.app, err = decode(state.AppKey(subject), resp.Responses[1].GetResponseRange().Kvs, state.Decode[state.App]); err != nil {
		return nil, err
	}
	if accessKeyID == "" && len(v.holders) > 0 {
		accessKeyID = v.holders[0]
	}
	return v, b.lookAt(ctx, v, accessKeyID)
}

func (b *Book) lookAt(ctx context.Context, v *view, accessKeyID string) error {
	if accessKeyID == "" {
		return nil
	}
	resp, err := b.store.Txn(ctx, nil, []clientv3.Op{
		clientv3.OpGet(state.CredentialKey(accessKeyID)), clientv3.OpGet(state.SecretKey(accessKeyID)),
	}, nil)
	if err != nil {
		return err
	}
	v.cred, err = decode(state.CredentialKey(accessKeyID), resp.Responses[0].GetResponseRange().Kvs, state.Decode[state.Credential])
	if err != nil {
		return err
	}
	v.secrets, err = decode(state.SecretKey(accessKeyID), resp.Responses[1].GetResponseRange().Kvs, state.Decode[state.Secrets])
	return err
}

// unchanged returns the conditions that the subject still has the same access keys, and no others.
func (v *view) unchanged(subject string) []clientv3.Cmp {
	return append(slices.Clone(v.held), clientv3.Compare(clientv3.ModRevision(state.HolderKeys(subject)), "<", v.revision+1).WithPrefix())
}

// stays returns an error when the application instance is being terminated: its credentials are about to be deleted.
func (v *view) stays(subject string) error {
	if v.app.value.State() == mm5.LifecycleTerminating {
		return errs.New(errs.Conflict, "application instance %s is being terminated: try again when that is over", subject).After(time.Second)
	}
	return nil
}

// PutApp gives the credential of an application instance the wanted state, and makes the instance known to the platform. An app
// has one access key; PutApp deletes any other one with its tokens. A secret key that differs from the newest one replaces all
// present ones and revokes the tokens issued so far. Repeating a call changes nothing. Errors are of the kinds errs.Conflict
// (the access key belongs to another subject, or the instance is being terminated) and those of etcd.Store.Txn.
func (b *Book) PutApp(ctx context.Context, w Wanted) (*Made, error) {
	return b.put(ctx, w, true)
}

// AddManager adds an access key for a manager, who may have several. The error is of the kind errs.Conflict when the access key
// exists.
func (b *Book) AddManager(ctx context.Context, w Wanted) (*Made, error) {
	if w.AccessKeyID == "" {
		w.AccessKeyID = generate(signing.AccessKeyIDLength)
	}
	return b.put(ctx, w, false)
}

// Bootstrapped reports whether the database has had its first manager.
func (b *Book) Bootstrapped(ctx context.Context) (bool, error) {
	resp, err := b.store.Do(ctx, clientv3.OpGet(state.KeyBootstrap, clientv3.WithCountOnly()))
	if err != nil {
		return false, err
	}
	return resp.Get().Count > 0, nil
}

// Bootstrap adds the first manager of a database. It reports false when there has been one.
func (b *Book) Bootstrap(ctx context.Context, w Wanted) (bool, error) {
	v := &view{}
	if err := b.lookAt(ctx, v, w.AccessKeyID); err != nil {
		return false, err
	}
	if v.cred.exists() {
		return false, nil
	}
	_, ops, err := b.plan(v, w, false)
	if err != nil {
		return false, err
	}
	resp, err := b.store.Urgent().Txn(ctx, []clientv3.Cmp{
		clientv3.Compare(clientv3.CreateRevision(state.KeyBootstrap), "=", 0),
		clientv3.Compare(clientv3.CreateRevision(state.CredentialKey(w.AccessKeyID)), "=", 0),
	}, append(ops, clientv3.OpPut(state.KeyBootstrap, w.AccessKeyID)), nil)
	if err != nil {
		return false, err
	}
	return resp.Succeeded, nil
}

func (b *Book) put(ctx context.Context, w Wanted, app bool) (*Made, error) {
	for range maxTries {
		v, err := b.look(ctx, w.Subject, w.AccessKeyID)
		if err != nil {
			return nil, err
		}
		if err := v.stays(w.Subject); err != nil && app {
			return nil, err
		}
		made, ops, err := b.plan(v, w, app)
		if err != nil {
			return nil, err
		}
		if len(ops) == 0 {
			return made, nil
		}
		cmps := append(v.unchanged(w.Subject),
			clientv3.Compare(clientv3.ModRevision(state.CredentialKey(made.AccessKeyID)), "=", v.cred.rev),
			clientv3.Compare(clientv3.ModRevision(state.SecretKey(made.AccessKeyID)), "=", v.secrets.rev),
		)
		if app {
			cmps = append(cmps, v.app.same())
		}
		resp, err := b.store.Txn(ctx, cmps, ops, nil)
		if err != nil {
			return nil, err
		}
		if resp.Succeeded {
			return made, nil
		}
	}
	return nil, errContended()
}

// plan returns the operations that turn the view into the wanted state.
func (b *Book) plan(v *view, w Wanted, app bool) (*Made, []clientv3.Op, error) {
	ak := w.AccessKeyID
	if ak == "" && len(v.holders) > 0 {
		ak = v.holders[0]
	}
	if ak == "" {
		ak = generate(signing.AccessKeyIDLength)
	}
	switch {
	case v.cred.exists() && v.cred.value.Subject != w.Subject:
		return nil, nil, errs.New(errs.Conflict, "the access key %s belongs to another subject: choose another one", ak)
	case v.cred.exists() && !app:
		return nil, nil, errs.New(errs.Conflict, "the access key %s exists already", ak)
	}
	now := b.now().UTC()
	made := &Made{Created: !v.cred.exists()}
	rec := state.Credential{
		Version: state.Current(), Subject: w.Subject, Name: w.Name, Scopes: w.Scopes, Epoch: newEpoch(),
		RefreshTokens: w.RefreshTokens, BindClientAddress: w.BindClientAddress, Created: now, Changed: now,
	}
	if v.cred.exists() {
		rec.Created, rec.Epoch, rec.Disabled = v.cred.value.Created, v.cred.value.Epoch, v.cred.value.Disabled
	}
	var ops []clientv3.Op
	secrets := v.secrets.value
	current, err := b.holds(ak, secrets, w.SecretKey, now)
	if err != nil {
		return nil, nil, err
	}
	if !current {
		secret := w.SecretKey
		if secret == "" {
			secret = generate(signing.SecretKeyLength)
			made.SecretKey = secret
		}
		rec.Epoch = newEpoch()
		secrets = state.Secrets{Version: state.Current(), Epoch: rec.Epoch, Secrets: []state.Secret{b.secret(ak, secret, now)}}
		if ops, err = appendPut(ops, state.SecretKey(ak), secrets); err != nil {
			return nil, nil, err
		}
	}
	if was := v.cred.value; !v.cred.exists() || was.Epoch != rec.Epoch || was.Name != rec.Name || !slices.Equal(was.Scopes, rec.Scopes) ||
		was.RefreshTokens != rec.RefreshTokens || was.BindClientAddress != rec.BindClientAddress {
		if ops, err = appendPut(ops, state.CredentialKey(ak), rec); err != nil {
			return nil, nil, err
		}
	} else {
		rec = was
	}
	if made.Created {
		ops = append(ops, clientv3.OpPut(state.HolderKey(w.Subject, ak), ""), clientv3.OpDelete(state.AttemptsKey(ak)))
	}
	if app {
		for _, other := range v.holders {
			if other != ak {
				ops = append(ops, removal(w.Subject, other)...)
			}
		}
		if ops, err = appendApp(ops, v, w, now); err != nil {
			return nil, nil, err
		}
	}
	made.Known = known(ak, rec, secrets, w.Requires, now)
	return made, ops, nil
}

// appendApp makes the application instance known, with the services it requires. A new credential changes the record in any
// case, so that whoever removes instances that have nothing notices it.
func appendApp(ops []clientv3.Op, v *view, w Wanted, now time.Time) ([]clientv3.Op, error) {
	rec := v.app.value
	if !v.app.exists() {
		rec = state.App{Version: state.Current(), Origin: state.OriginCredentials, Created: now}
	} else if rec.Name == w.Name && slices.Equal(rec.Requires, w.Requires) && v.cred.exists() {
		return ops, nil
	}
	rec.Name, rec.Requires = w.Name, w.Requires
	return appendPut(ops, state.AppKey(w.Subject), rec)
}

func appendPut[R state.Record](ops []clientv3.Op, key string, rec R) ([]clientv3.Op, error) {
	value, err := state.Encode(rec)
	return append(ops, clientv3.OpPut(key, value)), err
}

// holds reports whether secret is the newest of the secrets. An empty secret stands for any.
func (b *Book) holds(accessKeyID string, secrets state.Secrets, secret string, now time.Time) (bool, error) {
	if len(secrets.Secrets) == 0 {
		return false, nil
	}
	if secret == "" {
		return true, nil
	}
	newest := secrets.Secrets[0]
	if !newest.Expires.IsZero() && now.After(newest.Expires) {
		return false, nil
	}
	plain, err := b.key.Open(state.SecretKey(accessKeyID), newest.Sealed)
	if err != nil {
		return false, fmt.Errorf("secret of %s: %w", accessKeyID, err)
	}
	return subtle.ConstantTimeCompare(plain, []byte(secret)) == 1, nil
}

func (b *Book) secret(accessKeyID, secret string, now time.Time) state.Secret {
	return state.Secret{
		ID: generate(8), Sealed: b.key.Seal(state.SecretKey(accessKeyID), []byte(secret)), Created: now,
	}
}

func removal(subject, accessKeyID string) []clientv3.Op {
	return []clientv3.Op{
		clientv3.OpDelete(state.CredentialKey(accessKeyID)), clientv3.OpDelete(state.SecretKey(accessKeyID)),
		clientv3.OpDelete(state.HolderKey(subject, accessKeyID)), clientv3.OpDelete(state.AttemptsKey(accessKeyID)),
	}
}

func known(accessKeyID string, rec state.Credential, secrets state.Secrets, requires []string, now time.Time) Known {
	k := Known{AccessKeyID: accessKeyID, Credential: rec, Requires: requires}
	for _, s := range secrets.Secrets {
		if s.Expires.IsZero() || now.Before(s.Expires) {
			k.Secrets = append(k.Secrets, SecretInfo{ID: s.ID, Created: s.Created, Expires: s.Expires})
		}
	}
	return k
}

func errNone(subject string) error {
	return errs.New(errs.NotFound, "there are no credentials of %q", subject)
}

// Of returns the credential of a subject; accessKeyID may be empty when the subject has only one. The error is of the kind
// errs.NotFound when there is none.
func (b *Book) Of(ctx context.Context, subject, accessKeyID string) (*Known, error) {
	v, err := b.look(ctx, subject, accessKeyID)
	if err != nil {
		return nil, err
	}
	ak, err := v.found(subject)
	if err != nil {
		return nil, err
	}
	k := known(ak, v.cred.value, v.secrets.value, v.app.value.Requires, b.now())
	return &k, nil
}

// found returns the access key of the view, which must belong to the subject.
func (v *view) found(subject string) (string, error) {
	if !v.cred.exists() || v.cred.value.Subject != subject {
		return "", errNone(subject)
	}
	return state.AccessKeyID(state.PrefixCredentials, v.cred.key)
}

// SubjectOf returns the holder of an access key, or an error of the kind errs.NotFound.
func (b *Book) SubjectOf(ctx context.Context, accessKeyID string) (string, error) {
	v := &view{}
	if err := b.lookAt(ctx, v, accessKeyID); err != nil {
		return "", err
	}
	if !v.cred.exists() {
		return "", errs.New(errs.NotFound, "there is no access key %q", accessKeyID)
	}
	return v.cred.value.Subject, nil
}
