package refresh

import (
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/api/state"
	"github.com/openmep/mep/mepauth/authtest"
)

const key = "AAAAAAAAAAAAAAAAAAAA"

func always(state.Refresh) bool { return true }

func newStore(t *testing.T) *Store {
	t.Helper()
	return New(authtest.New(t).Store, func() time.Duration { return time.Hour })
}

func issue(t *testing.T, s *Store) string {
	t.Helper()
	token, err := s.Issue(t.Context(), state.Refresh{AccessKeyID: key, Epoch: "e", Scopes: []string{"mp1"}})
	require.NoError(t, err)
	return token
}

func TestEachTokenGivesTheNext(t *testing.T) {
	s := newStore(t)
	token := issue(t, s)
	for range 3 {
		next, err := s.Use(t.Context(), token, key, func(rec state.Refresh) bool { return len(rec.Scopes) == 1 })
		require.NoError(t, err)
		require.NotEqual(t, token, next)
		token = next
	}
}

func TestSecondUseEndsTheFamily(t *testing.T) {
	s := newStore(t)
	first := issue(t, s)
	other := issue(t, s)
	second, err := s.Use(t.Context(), first, key, always)
	require.NoError(t, err)
	_, err = s.Use(t.Context(), first, key, always)
	require.ErrorIs(t, err, ErrInvalid)
	_, err = s.Use(t.Context(), second, key, always)
	require.ErrorIs(t, err, ErrInvalid, "the thief's successor is good no longer either")
	_, err = s.Use(t.Context(), other, key, always)
	require.NoError(t, err, "another family")
}

func TestRacersGetOneSuccessorAtMost(t *testing.T) {
	s := newStore(t)
	token := issue(t, s)
	var won atomic.Int64
	var all sync.WaitGroup
	for range 6 {
		all.Go(func() {
			if _, err := s.Use(t.Context(), token, key, always); err == nil {
				won.Add(1)
			}
		})
	}
	all.Wait()
	require.LessOrEqual(t, won.Load(), int64(1))
}

func TestBadTokensAreRefusedAlike(t *testing.T) {
	s := newStore(t)
	token := issue(t, s)
	for name, c := range map[string]struct {
		token, key string
		good       func(state.Refresh) bool
	}{
		"empty":          {"", key, always},
		"no token":       {"x", key, always},
		"unknown":        {uuid.NewString() + token[36:], key, always},
		"path":           {"../../../../../../../../../../../../" + token[36:], key, always},
		"another client": {token, "BBBBBBBBBBBBBBBBBBBB", always},
		"epoch is over":  {token, key, func(state.Refresh) bool { return false }},
	} {
		_, err := s.Use(t.Context(), c.token, c.key, c.good)
		require.ErrorIs(t, err, ErrInvalid, name)
	}
	_, err := s.Use(t.Context(), token, key, always)
	require.NoError(t, err, "none of this used it up")

	late := issue(t, s)
	s.now = func() time.Time { return time.Now().Add(2 * time.Hour) }
	_, err = s.Use(t.Context(), late, key, always)
	require.ErrorIs(t, err, ErrInvalid, "expired")
}

func TestRevocationIsTheHolders(t *testing.T) {
	s := newStore(t)
	token := issue(t, s)
	revoked, err := s.Revoke(t.Context(), token, "BBBBBBBBBBBBBBBBBBBB")
	require.NoError(t, err)
	require.False(t, revoked)
	rec, err := s.Look(t.Context(), token, key)
	require.NoError(t, err)
	require.Equal(t, key, rec.AccessKeyID)
	revoked, err = s.Revoke(t.Context(), token, key)
	require.NoError(t, err)
	require.True(t, revoked)
	rec, err = s.Look(t.Context(), token, key)
	require.NoError(t, err)
	require.Nil(t, rec)
}

func TestFamiliesOfAnAccessKeyAreBounded(t *testing.T) {
	s := newStore(t)
	var tokens []string
	for range MaxFamilies + 3 {
		tokens = append(tokens, issue(t, s))
	}
	for i, token := range tokens {
		_, err := s.Use(t.Context(), token, key, always)
		if i < 3 {
			require.ErrorIs(t, err, ErrInvalid, "the oldest end")
		} else {
			require.NoError(t, err)
		}
	}
}
