package credential

import (
	"context"
	"slices"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/openmep/mep/api/signing"
	"github.com/openmep/mep/api/state"
	"github.com/openmep/mep/kit/errs"
)

// Change edits the credential of a subject: edit gets a copy of the record. Disabling a credential revokes its tokens for
// good. Errors are of the kinds errs.NotFound, errs.Conflict (the instance is being terminated), and those of
// etcd.Store.Txn.
func (b *Book) Change(ctx context.Context, subject, accessKeyID string, edit func(*state.Credential)) (*Known, error) {
	for range maxTries {
		v, err := b.look(ctx, subject, accessKeyID)
		if err != nil {
			return nil, err
		}
		ak, err := v.found(subject)
		if err == nil {
			err = v.stays(subject)
		}
		if err != nil {
			return nil, err
		}
		now := b.now().UTC()
		rec := v.cred.value
		edit(&rec)
		if rec.Disabled && !v.cred.value.Disabled {
			rec.Epoch = newEpoch()
		}
		k := known(ak, rec, v.secrets.value, v.app.value.Requires, now)
		was := v.cred.value
		if rec.Disabled == was.Disabled && rec.RefreshTokens == was.RefreshTokens && rec.BindClientAddress == was.BindClientAddress {
			return &k, nil
		}
		rec.Changed, k.Credential.Changed = now, now
		v.secrets.value.Epoch = rec.Epoch
		ops, err := appendPut(nil, v.cred.key, rec)
		if err == nil {
			ops, err = appendPut(ops, v.secrets.key, v.secrets.value)
		}
		if err != nil {
			return nil, err
		}
		// Disabling a credential must be possible even when the database is almost full.
		resp, err := b.store.Urgent().Txn(ctx, []clientv3.Cmp{v.cred.same(), v.secrets.same(), v.app.same()}, ops, nil)
		if err != nil {
			return nil, err
		}
		if resp.Succeeded {
			return &k, nil
		}
	}
	return nil, errContended()
}

// Rotate gives the credential of a subject a new secret key, which is generated when secretKey is empty. The present one
// stays valid for the overlap. One that was already being replaced expires now, so that there are at most two.
func (b *Book) Rotate(ctx context.Context, subject, accessKeyID, secretKey string, overlap time.Duration) (*Made, error) {
	for range maxTries {
		v, err := b.look(ctx, subject, accessKeyID)
		if err != nil {
			return nil, err
		}
		ak, err := v.found(subject)
		if err == nil {
			err = v.stays(subject)
		}
		if err != nil {
			return nil, err
		}
		now := b.now().UTC()
		made := &Made{}
		secret := secretKey
		if secret == "" {
			secret = generate(signing.SecretKeyLength)
			made.SecretKey = secret
		} else if same, err := b.holds(ak, v.secrets.value, secret, now); err != nil {
			return nil, err
		} else if same {
			return nil, errs.New(errs.Conflict, "this is the present secret key already: give another one, or none")
		}
		next := state.Secrets{Version: state.Current(), Epoch: v.cred.value.Epoch, Secrets: []state.Secret{b.secret(ak, secret, now)}}
		if len(v.secrets.value.Secrets) > 0 && overlap > 0 {
			old := v.secrets.value.Secrets[0]
			old.Expires = now.Add(overlap)
			next.Secrets = append(next.Secrets, old)
		}
		v.cred.value.Changed = now
		ops, err := appendPut(nil, state.SecretKey(ak), next)
		if err == nil {
			ops, err = appendPut(ops, v.cred.key, v.cred.value)
		}
		if err != nil {
			return nil, err
		}
		resp, err := b.store.Txn(ctx, []clientv3.Cmp{
			v.cred.same(), v.app.same(), clientv3.Compare(clientv3.ModRevision(state.SecretKey(ak)), "=", v.secrets.rev),
		}, ops, nil)
		if err != nil {
			return nil, err
		}
		if resp.Succeeded {
			made.Known = known(ak, v.cred.value, next, v.app.value.Requires, now)
			return made, nil
		}
	}
	return nil, errContended()
}

// Delete removes the credentials of a subject, all of them when accessKeyID is empty, and returns their access keys. Their
// tokens are no longer valid. The application instance itself stays known.
func (b *Book) Delete(ctx context.Context, subject, accessKeyID string) ([]string, error) {
	for range maxTries {
		v, err := b.look(ctx, subject, accessKeyID)
		if err != nil {
			return nil, err
		}
		gone := v.holders
		if accessKeyID != "" {
			gone = slices.DeleteFunc(slices.Clone(v.holders), func(ak string) bool { return ak != accessKeyID })
		}
		if len(gone) == 0 {
			return nil, errNone(subject)
		}
		var ops []clientv3.Op
		for _, ak := range gone {
			ops = append(ops, removal(subject, ak)...)
		}
		resp, err := b.store.Txn(ctx, v.unchanged(subject), ops, nil)
		if err != nil {
			return nil, err
		}
		if resp.Succeeded {
			return gone, nil
		}
	}
	return nil, errContended()
}
