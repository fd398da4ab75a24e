package credential_test

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/openmep/mep/api/mm5"
	"github.com/openmep/mep/api/state"
	"github.com/openmep/mep/kit/errs"
	"github.com/openmep/mep/mepauth/credential"
)

// private counts the records of an access key that only mepauth reads.
func (s *shop) private(t *testing.T, subject, accessKeyID string) int {
	t.Helper()
	n := 0
	for _, key := range []string{
		state.SecretKey(accessKeyID), state.AttemptsKey(accessKeyID), state.HolderKey(subject, accessKeyID), state.RefreshKeys(accessKeyID) + "family",
	} {
		resp, err := s.Store.Client.Get(t.Context(), key)
		require.NoError(t, err)
		n += len(resp.Kvs)
	}
	return n
}

func (s *shop) sweep(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Sweep(ctx, s.Directory, s.ended, nil, slog.New(slog.DiscardHandler)) }()
	t.Cleanup(func() {
		cancel()
		require.NoError(t, <-done)
	})
}

func (s *shop) fill(t *testing.T, subject string) string {
	t.Helper()
	ak := s.put(t, credential.Wanted{Subject: subject, Name: "a"}).AccessKeyID
	for _, key := range []string{state.AttemptsKey(ak), state.RefreshKeys(ak) + "family"} {
		_, err := s.Store.Client.Put(t.Context(), key, `{"v":1}`)
		require.NoError(t, err)
	}
	require.Equal(t, 4, s.private(t, subject, ak))
	return ak
}

func TestRemainsOfACredentialAreClearedAway(t *testing.T) {
	for name, before := range map[string]bool{"removed while sweeping": false, "removed before": true} {
		t.Run(name, func(t *testing.T) {
			s := open(t)
			stays, goes := uuid.NewString(), uuid.NewString()
			kept, gone := s.fill(t, stays), s.fill(t, goes)
			if !before {
				s.sweep(t)
			}
			_, err := s.Store.Client.Delete(t.Context(), state.CredentialKey(gone))
			require.NoError(t, err)
			s.Settle(t)
			if before {
				s.sweep(t)
			}
			require.Eventually(t, func() bool { return s.private(t, goes, gone) == 0 }, 10*time.Second, 10*time.Millisecond)
			require.Equal(t, 4, s.private(t, stays, kept))
		})
	}
}

func TestAnAppThatIsBackKeepsItsNewCredential(t *testing.T) {
	s := open(t)
	app := uuid.NewString()
	old := s.fill(t, app)
	_, err := s.Store.Client.Delete(t.Context(), state.CredentialKey(old))
	require.NoError(t, err)
	s.Settle(t)
	// Nobody has swept yet.
	made := s.put(t, credential.Wanted{Subject: app, Name: "again", AccessKeyID: ak("n"), SecretKey: sk("n")})
	s.sweep(t)
	require.Eventually(t, func() bool {
		resp, err := s.Store.Client.Get(t.Context(), state.HolderKeys(app), clientv3.WithPrefix(), clientv3.WithKeysOnly())
		return err == nil && len(resp.Kvs) == 1 && string(resp.Kvs[0].Key) == state.HolderKey(app, made.AccessKeyID)
	}, 10*time.Second, 10*time.Millisecond)
	s.Settle(t)
	require.True(t, s.takes(ak("n"), sk("n")))
	require.False(t, s.takes(old, made.SecretKey))
}

func TestATerminatedAppLosesItsCredentialsButNotThoseOfItsNextLife(t *testing.T) {
	for name, before := range map[string]bool{"terminated while sweeping": false, "terminated before": true} {
		t.Run(name, func(t *testing.T) {
			s := open(t)
			stays, goes, back := uuid.NewString(), uuid.NewString(), uuid.NewString()
			kept, gone, old := s.fill(t, stays), s.fill(t, goes), s.fill(t, back)
			if !before {
				s.sweep(t)
			}
			value, err := state.Encode(state.Ended{Version: state.Current(), At: time.Now()})
			require.NoError(t, err)
			for _, app := range []string{goes, back} {
				_, err = s.Store.Client.Put(t.Context(), state.EndedKey(app), value)
				require.NoError(t, err)
			}
			s.Settle(t)
			s.put(t, credential.Wanted{Subject: back, Name: "again", AccessKeyID: ak("n"), SecretKey: sk("n")})
			if before {
				s.sweep(t)
			}
			require.Eventually(t, func() bool {
				resp, err := s.Store.Client.Get(t.Context(), state.PrefixEnded, clientv3.WithPrefix(), clientv3.WithCountOnly())
				return err == nil && resp.Count == 0 && s.private(t, goes, gone) == 0
			}, 10*time.Second, 10*time.Millisecond)
			s.Settle(t)
			require.Equal(t, 4, s.private(t, stays, kept))
			require.True(t, s.takes(ak("n"), sk("n")))
			resp, err := s.Store.Client.Get(t.Context(), state.SecretKey(old))
			require.NoError(t, err)
			require.Empty(t, resp.Kvs)
		})
	}
}

func TestCredentialsOfAnAppThatIsBeingTerminatedDoNotChange(t *testing.T) {
	s := open(t)
	app := uuid.NewString()
	s.fill(t, app)
	value, err := state.Encode(state.App{Version: state.Current(), Origin: state.OriginCredentials, Lifecycle: mm5.LifecycleTerminating})
	require.NoError(t, err)
	_, err = s.Store.Client.Put(t.Context(), state.AppKey(app), value)
	require.NoError(t, err)
	_, err = s.PutApp(t.Context(), credential.Wanted{Subject: app, Name: "b", Scopes: []string{state.ScopeMp1}})
	require.ErrorIs(t, err, errs.Conflict)
	_, err = s.Rotate(t.Context(), app, "", "", 0)
	require.ErrorIs(t, err, errs.Conflict)
	_, err = s.Change(t.Context(), app, "", func(c *state.Credential) { c.RefreshTokens = true })
	require.ErrorIs(t, err, errs.Conflict)
}
