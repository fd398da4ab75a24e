// Package credential keeps the access keys of apps and managers: who holds them, what they are good for, and their
// secrets.
//
// A Book changes them. It works on etcd alone and reads what it changes from there, so that it can be used without a
// running mepauth, too. A Vault checks secrets against the watched copy, which is what every request for a token does.
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

// NewBook makes a book.
func NewBook(store *etcd.Store, key *seal.Key) *Book {
	return &Book{store: store, key: key, now: time.Now}
}

// Wanted says what a credential is to be.
type Wanted struct {
	// Subject is the appInstanceId in canonical form, or the name of a manager.
	Subject string
	// Name is for people.
	Name string
	// Scopes are what its tokens may be good for.
	Scopes []string
	// AccessKeyID and SecretKey are what the holder uses. What is empty stays as it is, or is generated.
	AccessKeyID, SecretKey string
	// Requires are the services the app declared; nil or empty: no declaration. Only for apps.
	Requires []string
	// RefreshTokens and BindClientAddress are those of state.Credential.
	RefreshTokens, BindClientAddress bool
}

// Known is a credential as it stands, without secrets.
type Known struct {
	AccessKeyID string
	Credential  state.Credential
	Secrets     []SecretInfo
	// Requires are the services the app declared.
	Requires []string
}

// SecretInfo is what may be shown of a secret.
type SecretInfo struct {
	ID      string
	Created time.Time
	// Expires is zero for one that does not.
	Expires time.Time
}

// Made is the outcome of a change.
type Made struct {
	Known
	// SecretKey is the secret key if the change generated it, else empty.
	SecretKey string
	// Created says that the credential is new.
	Created bool
}

// maxTries bounds the repetition of changes that others came before.
const maxTries = 8

// newEpoch makes an epoch. It stands in every token, so it is short: enough that no two of a credential are the same.
func newEpoch() string { return generate(12) }

func errContended() error {
	return errs.New(errs.Unavailable, "others keep changing the same credentials: try again").After(time.Second)
}

// record is a decoded value with its key and revision.
type record[R any] struct {
	key   string
	rev   int64 // 0: there is none
	value R
}

func (r record[R]) exists() bool { return r.rev != 0 }

// same holds as long as the record is what was read.
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

// view is what the change of one subject's credential depends on, read at one revision.
type view struct {
	revision int64
	app      record[state.App]
	holders  []string // access keys of the subject
	held     []clientv3.Cmp
	cred     record[state.Credential]
	secrets  record[state.Secrets]
}

// look reads the view of a subject and an access key, which may be empty: then that of the subject's only one is taken.
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

// unchanged holds as long as the subject has the access keys that were seen, and no others.
func (v *view) unchanged(subject string) []clientv3.Cmp {
	return append(slices.Clone(v.held), clientv3.Compare(clientv3.ModRevision(state.HolderKeys(subject)), "<", v.revision+1).WithPrefix())
}

// stays refuses changes of the credentials of an application instance that is being terminated: they are about to go.
func (v *view) stays(subject string) error {
	if v.app.value.State() == mm5.LifecycleTerminating {
		return errs.New(errs.Conflict, "application instance %s is being terminated: try again when that is over", subject).After(time.Second)
	}
	return nil
}

// PutApp makes the credential of an application instance what is wanted, and the instance known to the platform. An app has one
// access key: another one it had is deleted, with its tokens. A secret key that differs from the present ones replaces them, and
// the tokens issued so far are revoked. The same call twice changes nothing. Errors are of the kinds errs.Conflict (the access
// key belongs to another subject, or the instance is being terminated) and those of etcd.Store.Txn.
func (b *Book) PutApp(ctx context.Context, w Wanted) (*Made, error) {
	return b.put(ctx, w, true)
}

// AddManager adds an access key for a manager, who may have several. The error is of the kind errs.Conflict when there is such
// an access key.
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

// plan makes the operations that lead from the view to what is wanted.
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

// appendApp makes the application instance known, with what it requires. A new credential changes its record in any case: so
// whoever forgets an instance that has nothing hears of it.
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

// holds reports whether the secret, or any when it is empty, is the newest of the secrets.
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

// Of returns the credential of a subject; accessKeyID may be empty when it has one. The error is of the kind errs.NotFound when
// there is none.
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

// found is the access key the view is about.
func (v *view) found(subject string) (string, error) {
	if !v.cred.exists() || v.cred.value.Subject != subject {
		return "", errNone(subject)
	}
	return state.AccessKeyID(state.PrefixCredentials, v.cred.key)
}

// SubjectOf finds the holder of an access key, with an error of the kind errs.NotFound.
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
