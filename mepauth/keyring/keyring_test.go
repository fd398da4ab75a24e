package keyring

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/api/state"
	"github.com/openmep/mep/kit/errs"
	"github.com/openmep/mep/kit/identity"
	"github.com/openmep/mep/mepauth/authtest"
)

var policy = Policy{Algorithm: "ES256", RotateAfter: 30 * 24 * time.Hour, Delay: 5 * time.Minute, Verify: time.Hour}

// clock is a clock that tests control.
type clock struct {
	mu sync.Mutex
	t  time.Time
}

func (c *clock) now() time.Time { c.mu.Lock(); defer c.mu.Unlock(); return c.t }
func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
}

func newAdmin(t *testing.T) (*authtest.World, *Admin, *clock) {
	t.Helper()
	w := authtest.New(t)
	a := NewAdmin(w.Store, w.Seal)
	c := &clock{t: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}
	a.now = c.now
	return w, a, c
}

// phases maps the ids of the keys to their phases.
func phases(t *testing.T, a *Admin) map[string]string {
	t.Helper()
	list, err := a.List(t.Context())
	require.NoError(t, err)
	m := make(map[string]string)
	for i := range list {
		m[list[i].ID] = list[i].Phase(list, a.now())
	}
	return m
}

func ensure(t *testing.T, a *Admin, p Policy) string {
	t.Helper()
	kid, err := a.Ensure(t.Context(), p)
	require.NoError(t, err)
	return kid
}

func TestKeysLiveInTurn(t *testing.T) {
	_, a, c := newAdmin(t)
	first := ensure(t, a, policy)
	require.Equal(t, map[string]string{first: "signing"}, phases(t, a), "the first key signs at once")
	require.Empty(t, ensure(t, a, policy))

	c.add(policy.RotateAfter - policy.Delay - time.Second)
	require.Empty(t, ensure(t, a, policy))
	c.add(2 * time.Second)
	second := ensure(t, a, policy)
	require.NotEmpty(t, second)
	require.Equal(t, map[string]string{first: "signing", second: "published"}, phases(t, a))
	require.Empty(t, ensure(t, a, policy), "one successor is enough")

	c.add(policy.Delay)
	require.Equal(t, map[string]string{first: "verifying", second: "signing"}, phases(t, a))
	c.add(policy.Verify - time.Second)
	require.Equal(t, "verifying", phases(t, a)[first], "until the last token it signed has expired")
	c.add(2 * time.Second)
	require.Equal(t, "expired", phases(t, a)[first])
	require.NoError(t, a.Clean(t.Context()))
	require.Contains(t, phases(t, a), first, "an expired key can be looked at for a while")
	c.add(cleanAfter)
	require.NoError(t, a.Clean(t.Context()))
	require.Equal(t, map[string]string{second: "signing"}, phases(t, a))
}

func TestRotationByHand(t *testing.T) {
	_, a, c := newAdmin(t)
	first := ensure(t, a, policy)
	second, from, err := a.Rotate(t.Context(), policy)
	require.NoError(t, err)
	require.Equal(t, c.now().Add(policy.Delay), from)
	_, _, err = a.Rotate(t.Context(), policy)
	require.ErrorIs(t, err, errs.Conflict)
	require.ErrorContains(t, err, second)
	c.add(policy.Delay)
	require.Equal(t, map[string]string{first: "verifying", second: "signing"}, phases(t, a))
}

func TestAnotherAlgorithmMakesASuccessor(t *testing.T) {
	_, a, c := newAdmin(t)
	ensure(t, a, policy)
	for _, algorithm := range []string{"EdDSA", "RS256"} {
		other := policy
		other.Algorithm = algorithm
		kid := ensure(t, a, other)
		require.NotEmpty(t, kid, algorithm)
		c.add(policy.Delay)
		require.Equal(t, "signing", phases(t, a)[kid])
	}
}

func TestRetiredKeyGetsASuccessorAtOnce(t *testing.T) {
	_, a, c := newAdmin(t)
	first := ensure(t, a, policy)
	second, err := a.Retire(t.Context(), first, false, policy)
	require.NoError(t, err)
	require.Equal(t, map[string]string{first: "verifying", second: "signing"}, phases(t, a))

	third, _, err := a.Rotate(t.Context(), policy)
	require.NoError(t, err)
	promoted, err := a.Retire(t.Context(), second, true, policy)
	require.NoError(t, err)
	require.Equal(t, third, promoted, "the published successor signs at once")
	require.Equal(t, map[string]string{first: "verifying", third: "signing"}, phases(t, a), "what is revoked is gone")

	successor, err := a.Retire(t.Context(), first, false, policy)
	require.NoError(t, err)
	require.Empty(t, successor, "it did not sign any more")
	_, err = a.Retire(t.Context(), "nobody", false, policy)
	require.ErrorIs(t, err, errs.NotFound)
	c.add(2 * policy.Verify)
	require.Equal(t, "expired", phases(t, a)[first])
}

func TestClockThatJumpsLeavesAKeyThatSigns(t *testing.T) {
	_, a, c := newAdmin(t)
	first := ensure(t, a, policy)
	c.add(-365 * 24 * time.Hour)
	require.Equal(t, map[string]string{first: "signing"}, phases(t, a), "the only key signs before its time")
	require.Empty(t, ensure(t, a, policy))
	c.add(2 * 365 * 24 * time.Hour)
	second := ensure(t, a, policy)
	require.NotEmpty(t, second)
	c.add(-365 * 24 * time.Hour)
	require.Equal(t, "signing", phases(t, a)[first], "the successor's time has not come after all")
}

func TestProcessesAgreeOnOneKey(t *testing.T) {
	w, a, c := newAdmin(t)
	made := func() (n int) {
		var all sync.WaitGroup
		var mu sync.Mutex
		for range 8 {
			all.Go(func() {
				other := NewAdmin(w.Store, w.Seal)
				other.now = c.now
				kid, err := other.Ensure(t.Context(), policy)
				if err != nil {
					t.Error(err)
				}
				if kid != "" {
					mu.Lock()
					n++
					mu.Unlock()
				}
			})
		}
		all.Wait()
		return n
	}
	require.Equal(t, 1, made())
	c.add(policy.RotateAfter)
	require.Equal(t, 1, made())
	require.Len(t, phases(t, a), 2)
}

// newRing starts a ring on a world.
func newRing(t *testing.T, w *authtest.World, p func() Policy) *Ring {
	t.Helper()
	r := New(w.Private, w.Directory, NewAdmin(w.Store, w.Seal), w.Seal, p, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	started := make(chan struct{})
	w.Start(t, func(ctx context.Context) error {
		select {
		case <-started:
		case <-ctx.Done():
			return nil
		}
		return r.Run(ctx)
	})
	close(started)
	return r
}

func (r *Ring) await(t *testing.T) *Signer {
	t.Helper()
	var s *Signer
	require.Eventually(t, func() bool {
		var err error
		s, err = r.Signer()
		return err == nil
	}, 10*time.Second, 5*time.Millisecond)
	return s
}

func TestRingSignsWhatTheDirectoryVerifies(t *testing.T) {
	for _, algorithm := range identity.Algorithms {
		t.Run(algorithm, func(t *testing.T) {
			w := authtest.New(t)
			p := policy
			p.Algorithm = algorithm
			s := newRing(t, w, func() Policy { return p }).await(t)
			token, err := s.Sign([]byte(`{"sub":"x"}`))
			require.NoError(t, err)
			item, ok := w.Directory.Keys().Snapshot().Get(state.SigningKeyKey(s.ID))
			require.True(t, ok)
			parsed, err := jwt.NewParser(jwt.WithValidMethods([]string{algorithm})).Parse(token, func(tk *jwt.Token) (any, error) {
				require.Equal(t, s.ID, tk.Header["kid"])
				return item.Value.Public, nil
			})
			require.NoError(t, err)
			require.Equal(t, jwt.MapClaims{"sub": "x"}, parsed.Claims)
			require.NotContains(t, string(item.Value.Record.JWK), `"d"`, "the private part is not published")
		})
	}
}

// TestRotationIsSeenByAllBeforeTheKeySigns rotates while two processes sign; neither may sign with a key that the other does
// not know.
func TestRotationIsSeenByAllBeforeTheKeySigns(t *testing.T) {
	w := authtest.New(t)
	p := policy
	p.Delay = 300 * time.Millisecond
	other := w.Another(t)
	rings := []*Ring{newRing(t, w, func() Policy { return p }), newRing(t, other, func() Policy { return p })}
	first := rings[0].await(t).ID
	rings[1].await(t)
	second, from, err := NewAdmin(w.Store, w.Seal).Rotate(t.Context(), p)
	require.NoError(t, err)
	seen := map[string]bool{}
	for !seen[second] {
		for i, r := range rings {
			s, err := r.Signer()
			require.NoError(t, err)
			seen[s.ID] = true
			_, known := []*authtest.World{w, other}[1-i].Directory.Keys().Snapshot().Get(state.SigningKeyKey(s.ID))
			require.True(t, known)
			if s.ID == second {
				require.False(t, time.Now().Before(from))
			}
		}
	}
	require.True(t, seen[first])
}

func TestKeyThatDoesNotOpenIsPassedOver(t *testing.T) {
	w := authtest.New(t)
	admin := NewAdmin(w.Store, w.Seal)
	first := ensure(t, admin, policy)
	p := policy
	p.Delay = 0
	second, _, err := admin.Rotate(t.Context(), p)
	require.NoError(t, err)
	list, err := admin.List(t.Context())
	require.NoError(t, err)
	for _, i := range list { // as if the first were still to sign, had the second not come
		i.Record.Retired, i.Record.Expires = time.Time{}, time.Time{}
		put, err := putKey(i.ID, i.Record)
		require.NoError(t, err)
		_, err = w.Store.Do(t.Context(), put)
		require.NoError(t, err)
	}
	value, err := state.Encode(state.PrivateKey{Version: state.Current(), Sealed: []byte(strings.Repeat("x", 64))})
	require.NoError(t, err)
	_, err = w.Store.Client.Put(t.Context(), state.PrivateKeyKey(second), value)
	require.NoError(t, err)
	require.Equal(t, first, newRing(t, w, func() Policy { return policy }).await(t).ID)
}

func BenchmarkSign(b *testing.B) {
	key, err := newKey("ES256")
	require.NoError(b, err)
	s := &Signer{ID: "k", method: jwt.SigningMethodES256, key: key, header: "eyJhbGciOiJFUzI1NiJ9"}
	payload := []byte(`{"iss":"https://mep.example:10443","sub":"b8f6ef5e-1111-4444-9999-c0ffee000001","aud":"mep","exp":1795380547}`)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			_, _ = s.Sign(payload)
		}
	})
}
