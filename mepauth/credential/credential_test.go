package credential_test

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/openmep/mep/api/state"
	"github.com/openmep/mep/kit/errs"
	"github.com/openmep/mep/kit/watched"
	"github.com/openmep/mep/mepauth/authtest"
	"github.com/openmep/mep/mepauth/credential"
)

// shop is a book and a vault on one etcd.
type shop struct {
	*authtest.World
	*credential.Book
	vault *credential.Vault
	ended *watched.Collection[state.Ended]
}

func open(t *testing.T) *shop {
	t.Helper()
	w := authtest.New(t)
	s := &shop{World: w, Book: credential.NewBook(w.Store, w.Seal), vault: credential.NewVault(w.Private, w.Directory, w.Seal), ended: credential.WatchEnded(w.Public)}
	w.Start(t)
	return s
}

func (s *shop) put(t *testing.T, w credential.Wanted) *credential.Made {
	t.Helper()
	w.Scopes = []string{state.ScopeMp1}
	made, err := s.PutApp(t.Context(), w)
	require.NoError(t, err)
	s.Settle(t)
	return made
}

// takes reports whether the secret is one of the access key's.
func (s *shop) takes(accessKeyID, secret string) bool {
	cred, _ := s.vault.Check(accessKeyID, func(b []byte) bool { return string(b) == secret })
	return cred != nil
}

func ak(c string) string { return strings.Repeat(c, 20) }
func sk(c string) string { return strings.Repeat(c, 64) }

func TestGeneratedCredentialsWork(t *testing.T) {
	s := open(t)
	app := uuid.NewString()
	made := s.put(t, credential.Wanted{Subject: app, Name: "a"})
	require.True(t, made.Created)
	require.Len(t, made.AccessKeyID, 20)
	require.Len(t, made.SecretKey, 64)
	require.True(t, s.takes(made.AccessKeyID, made.SecretKey))
	require.False(t, s.takes(made.AccessKeyID, sk("x")))
	require.False(t, s.takes(ak("u"), made.SecretKey))

	again := s.put(t, credential.Wanted{Subject: app, Name: "a"})
	require.Empty(t, again.SecretKey, "what exists is not made again, and not shown")
	require.Equal(t, made.AccessKeyID, again.AccessKeyID)
	require.Equal(t, made.Credential, again.Credential)
	require.True(t, s.takes(made.AccessKeyID, made.SecretKey))
}

func TestSuppliedCredentialsReplaceOthers(t *testing.T) {
	s := open(t)
	app := uuid.NewString()
	first := s.put(t, credential.Wanted{Subject: app, AccessKeyID: ak("a"), SecretKey: sk("1")})
	require.Empty(t, first.SecretKey)
	same := s.put(t, credential.Wanted{Subject: app, AccessKeyID: ak("a"), SecretKey: sk("1")})
	require.Equal(t, first.Credential.Epoch, same.Credential.Epoch, "the same again changes nothing")

	other := s.put(t, credential.Wanted{Subject: app, AccessKeyID: ak("a"), SecretKey: sk("2")})
	require.NotEqual(t, first.Credential.Epoch, other.Credential.Epoch, "tokens issued for the former secret are revoked")
	require.False(t, s.takes(ak("a"), sk("1")))
	require.True(t, s.takes(ak("a"), sk("2")))

	s.put(t, credential.Wanted{Subject: app, AccessKeyID: ak("b"), SecretKey: sk("3")})
	require.False(t, s.takes(ak("a"), sk("2")), "an app has one access key")
	require.True(t, s.takes(ak("b"), sk("3")))
	list, err := s.List(t.Context())
	require.NoError(t, err)
	require.Len(t, list, 1)
}

func TestAccessKeyBelongsToOneSubject(t *testing.T) {
	s := open(t)
	s.put(t, credential.Wanted{Subject: uuid.NewString(), AccessKeyID: ak("a")})
	_, err := s.PutApp(t.Context(), credential.Wanted{Subject: uuid.NewString(), AccessKeyID: ak("a")})
	require.ErrorIs(t, err, errs.Conflict)
	_, err = s.AddManager(t.Context(), credential.Wanted{Subject: "mepm", AccessKeyID: ak("a")})
	require.ErrorIs(t, err, errs.Conflict)

	var won, lost atomic.Int64
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			_, err := s.PutApp(t.Context(), credential.Wanted{Subject: uuid.NewString(), AccessKeyID: ak("r")})
			switch errs.KindOf(err) {
			case errs.Conflict:
				lost.Add(1)
			default:
				if err != nil {
					t.Error(err)
				}
				won.Add(1)
			}
		})
	}
	all.Wait()
	require.EqualValues(t, 1, won.Load())
	require.EqualValues(t, 7, lost.Load())
}

func TestRacingChangesOfOneAppLeaveOneAccessKey(t *testing.T) {
	s := open(t)
	app := uuid.NewString()
	var all sync.WaitGroup
	for i := range 6 {
		all.Go(func() {
			_, err := s.PutApp(t.Context(), credential.Wanted{Subject: app, AccessKeyID: ak(fmt.Sprint(i))})
			if err != nil && errs.KindOf(err) != errs.Unavailable {
				t.Error(err)
			}
		})
	}
	all.Wait()
	s.Settle(t)
	list, err := s.List(t.Context())
	require.NoError(t, err)
	require.Len(t, list, 1)
	for _, prefix := range []string{state.PrefixSecrets, state.HolderKeys(app)} {
		resp, err := s.Store.Do(t.Context(), clientv3.OpGet(prefix, clientv3.WithPrefix(), clientv3.WithCountOnly()))
		require.NoError(t, err)
		require.EqualValues(t, 1, resp.Get().Count, prefix)
	}
}

func TestRotationOverlaps(t *testing.T) {
	s := open(t)
	app := uuid.NewString()
	first := s.put(t, credential.Wanted{Subject: app})
	second, err := s.Rotate(t.Context(), app, "", "", 500*time.Millisecond)
	require.NoError(t, err)
	s.Settle(t)
	require.Len(t, second.Secrets, 2)
	require.True(t, s.takes(first.AccessKeyID, first.SecretKey))
	require.True(t, s.takes(first.AccessKeyID, second.SecretKey))
	require.Eventually(t, func() bool { return !s.takes(first.AccessKeyID, first.SecretKey) }, 20*time.Second, 10*time.Millisecond)
	require.True(t, s.takes(first.AccessKeyID, second.SecretKey))

	third, err := s.Rotate(t.Context(), app, "", sk("3"), time.Hour)
	require.NoError(t, err)
	require.Empty(t, third.SecretKey, "it was supplied")
	_, err = s.Rotate(t.Context(), app, "", sk("3"), time.Hour)
	require.ErrorIs(t, err, errs.Conflict)
	fourth, err := s.Rotate(t.Context(), app, "", "", time.Hour)
	require.NoError(t, err)
	s.Settle(t)
	require.False(t, s.takes(first.AccessKeyID, second.SecretKey), "two are good at most")
	require.True(t, s.takes(first.AccessKeyID, sk("3")))
	require.True(t, s.takes(first.AccessKeyID, fourth.SecretKey))
	require.Equal(t, first.Credential.Epoch, fourth.Credential.Epoch, "tokens stay good")

	_, err = s.Rotate(t.Context(), app, "", "", 0)
	require.NoError(t, err)
	s.Settle(t)
	require.False(t, s.takes(first.AccessKeyID, fourth.SecretKey), "no overlap")
}

func TestDisablingRevokesForGood(t *testing.T) {
	s := open(t)
	app := uuid.NewString()
	made := s.put(t, credential.Wanted{Subject: app})
	off, err := s.Change(t.Context(), app, "", func(c *state.Credential) { c.Disabled = true })
	require.NoError(t, err)
	require.NotEqual(t, made.Credential.Epoch, off.Credential.Epoch)
	on, err := s.Change(t.Context(), app, "", func(c *state.Credential) { c.Disabled = false })
	require.NoError(t, err)
	require.Equal(t, off.Credential.Epoch, on.Credential.Epoch)
	_, err = s.Change(t.Context(), uuid.NewString(), "", func(*state.Credential) {})
	require.ErrorIs(t, err, errs.NotFound)
}

func TestDeletionLeavesNothingButTheApp(t *testing.T) {
	s := open(t)
	app := uuid.NewString()
	made := s.put(t, credential.Wanted{Subject: app, Name: "a", Requires: []string{"location"}})
	gone, err := s.Delete(t.Context(), app, "")
	require.NoError(t, err)
	require.Equal(t, []string{made.AccessKeyID}, gone)
	s.Settle(t)
	require.False(t, s.takes(made.AccessKeyID, made.SecretKey))
	_, err = s.Of(t.Context(), app, "")
	require.ErrorIs(t, err, errs.NotFound)
	_, err = s.Delete(t.Context(), app, "")
	require.ErrorIs(t, err, errs.NotFound)
	for _, prefix := range []string{state.PrefixCredentials, state.PrefixSecrets, state.PrefixHolders} {
		resp, err := s.Store.Do(t.Context(), clientv3.OpGet(prefix, clientv3.WithPrefix(), clientv3.WithCountOnly()))
		require.NoError(t, err)
		require.Zero(t, resp.Get().Count, prefix)
	}
	resp, err := s.Store.Do(t.Context(), clientv3.OpGet(state.AppKey(app)))
	require.NoError(t, err)
	rec, err := state.Decode[state.App](resp.Get().Kvs[0].Value)
	require.NoError(t, err)
	require.Equal(t, state.OriginCredentials, rec.Origin)
	require.Equal(t, []string{"location"}, rec.Requires)
}

func TestManagersMayHaveSeveralAccessKeys(t *testing.T) {
	s := open(t)
	w := credential.Wanted{Subject: "mepm", Scopes: []string{state.ScopeMm5}}
	one, err := s.AddManager(t.Context(), w)
	require.NoError(t, err)
	two, err := s.AddManager(t.Context(), w)
	require.NoError(t, err)
	require.NotEqual(t, one.AccessKeyID, two.AccessKeyID)
	_, err = s.Delete(t.Context(), "mepm", one.AccessKeyID)
	require.NoError(t, err)
	list, err := s.List(t.Context())
	require.NoError(t, err)
	require.Len(t, list, 1)
	require.Equal(t, two.AccessKeyID, list[0].AccessKeyID)
}

func TestBootstrapHappensOnce(t *testing.T) {
	s := open(t)
	var won atomic.Int64
	var all sync.WaitGroup
	for i := range 4 {
		all.Go(func() {
			mine, err := s.Bootstrap(t.Context(), credential.Wanted{Subject: "mepm", AccessKeyID: ak(fmt.Sprint(i)), SecretKey: sk("1")})
			if err != nil {
				t.Error(err)
			}
			if mine {
				won.Add(1)
			}
		})
	}
	all.Wait()
	require.EqualValues(t, 1, won.Load())
	done, err := s.Bootstrapped(t.Context())
	require.NoError(t, err)
	require.True(t, done)
}

func TestListReadsPageByPage(t *testing.T) {
	s := open(t)
	const n = 1100
	var ops []clientv3.Op
	for i := range n {
		value, err := state.Encode(state.Credential{Version: state.Current(), Subject: fmt.Sprint("m", i)})
		require.NoError(t, err)
		ops = append(ops, clientv3.OpPut(state.CredentialKey(fmt.Sprintf("%020d", i)), value))
		if len(ops) == 100 {
			_, err := s.Store.Txn(t.Context(), nil, ops, nil)
			require.NoError(t, err)
			ops = nil
		}
	}
	list, err := s.List(t.Context())
	require.NoError(t, err)
	require.Len(t, list, n)
	require.Equal(t, fmt.Sprintf("%020d", n-1), list[n-1].AccessKeyID)
}

// TestUnknownAndWrongTakeTheSameWork counts the secrets tried for an unknown access key and for a known one with a wrong
// secret.
func TestUnknownAndWrongTakeTheSameWork(t *testing.T) {
	s := open(t)
	made := s.put(t, credential.Wanted{Subject: uuid.NewString()})
	count := func(accessKeyID string) (tries int) {
		_, err := s.vault.Check(accessKeyID, func(secret []byte) bool { tries++; require.Len(t, secret, 64); return false })
		require.NoError(t, err)
		return tries
	}
	require.Equal(t, 2, count(made.AccessKeyID))
	require.Equal(t, 2, count(ak("u")))
	cred, err := s.vault.Check(ak("u"), func([]byte) bool { return true })
	require.NoError(t, err)
	require.Nil(t, cred, "nobody's secret opens nothing")
}
