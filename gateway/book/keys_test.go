package book

import (
	"crypto/sha256"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/openmep/mep/api/gateway"
	"github.com/openmep/mep/api/state"
	"github.com/openmep/mep/kit/errs"
	"github.com/openmep/mep/kit/etcdtest"
	"github.com/openmep/mep/kit/identity"
)

func TestAnAPIKeyProvesWhoItsHolderIs(t *testing.T) {
	store := etcdtest.Start(t).Store(t)
	b := open(t, store, nil)
	made, err := b.Keys.Create(t.Context(), gateway.APIKeyRequest{
		Consumer: "billing", Description: "nightly", Scopes: []string{"mp1", "read"}, Services: []string{"telemetry"},
	})
	require.NoError(t, err)
	require.Regexp(t, `^mepk_`+made.ID+`_[a-z2-7]{52}$`, made.Key)
	require.Len(t, made.ID, 16)
	require.Len(t, made.Key, keyLength)

	key, err := b.Keys.Authenticate(made.Key)
	require.NoError(t, err)
	want := *made
	want.Key = ""
	require.Equal(t, want, key.Info)
	require.Equal(t, &identity.Caller{Subject: "billing", ClientID: made.ID, Scopes: []string{"mp1", "read"}, Via: "apiKey"}, key.Caller)

	resp, err := store.Do(t.Context(), clientv3.OpGet(state.APIKeyKey(made.ID)))
	require.NoError(t, err)
	stored := string(resp.Get().Kvs[0].Value)
	secret := made.Key[len(made.Key)-secretLength:]
	require.NotContains(t, stored, secret)
	rec, err := state.Decode[state.APIKey]([]byte(stored))
	require.NoError(t, err)
	hash := sha256.Sum256([]byte(secret))
	require.Equal(t, hash[:], rec.Hash)

	swap := func(s string, i int) string {
		c := byte('a')
		if s[i] == c {
			c = 'b'
		}
		return s[:i] + string(c) + s[i+1:]
	}
	for name, shown := range map[string]string{
		"nothing": "", "another secret": swap(made.Key, len(made.Key)-1), "first character of the secret": swap(made.Key, len(made.Key)-secretLength),
		"another id": swap(made.Key, len(keyPrefix)+3), "upper case": strings.ToUpper(made.Key), "id in upper case": made.Key[:5] + "ABCDEFABCDEFABCD" + made.Key[21:],
		"the id alone": made.ID, "cut": made.Key[:len(made.Key)-1], "longer": made.Key + "a", "another prefix": "mepx_" + made.Key[5:],
		"no separator": made.Key[:21] + "-" + made.Key[22:], "the hash": keyPrefix + made.ID + "_" + strings.Repeat("a", secretLength),
	} {
		_, err := b.Keys.Authenticate(shown)
		require.ErrorIs(t, err, ErrUnknownKey, name)
		require.ErrorIs(t, err, errs.Unauthenticated, name)
	}

	gone, err := b.Keys.Delete(t.Context(), made.ID)
	require.NoError(t, err)
	require.Equal(t, "billing", gone.Info.Consumer)
	require.ErrorIs(t, errOf(b.Keys.Authenticate(made.Key)), ErrUnknownKey, "at once")
	require.ErrorIs(t, errOf(b.Keys.Get(made.ID)), errs.NotFound)
	require.ErrorIs(t, errOf(b.Keys.Delete(t.Context(), made.ID)), errs.NotFound)
	require.ErrorIs(t, errOf(b.Keys.Get("../x")), errs.NotFound)
}

func TestAnAPIKeyHasItsTime(t *testing.T) {
	store := etcdtest.Start(t).Store(t)
	b := open(t, store, nil)
	now := time.Date(2026, 11, 23, 4, 0, 0, 0, time.UTC)
	b.Keys.now = func() time.Time { return now }
	made, err := b.Keys.Create(t.Context(), gateway.APIKeyRequest{Consumer: "a", Lifetime: "90m"})
	require.NoError(t, err)
	require.Equal(t, []string{"mp1"}, made.Scopes)
	require.Equal(t, now.Add(90*time.Minute), made.Expires)
	ever, err := b.Keys.Create(t.Context(), gateway.APIKeyRequest{Consumer: "a", Lifetime: gateway.Duration((200 * 365 * 24 * time.Hour).String())})
	require.NoError(t, err, "longer than a lease may be")
	require.NoError(t, errOf(b.Keys.Authenticate(ever.Key)))
	require.NoError(t, errOf(b.Keys.Authenticate(made.Key)))
	now = now.Add(90*time.Minute - 1)
	require.NoError(t, errOf(b.Keys.Authenticate(made.Key)))
	now = now.Add(1)
	require.ErrorIs(t, errOf(b.Keys.Authenticate(made.Key)), ErrExpiredKey)
	require.ErrorIs(t, errOf(b.Keys.Authenticate(made.Key[:len(made.Key)-1]+"8")), ErrUnknownKey, "who does not know it learns nothing of its time")

	resp, err := store.Do(t.Context(), clientv3.OpGet(state.APIKeyKey(made.ID)))
	require.NoError(t, err)
	require.NotZero(t, resp.Get().Kvs[0].Lease, "it is cleared away some time after that")
}

func TestAConsumerMayHaveSeveralAPIKeys(t *testing.T) {
	store := etcdtest.Start(t).Store(t)
	b := open(t, store, nil)
	ids := map[string]bool{}
	var first string
	for range MaxKeysOf {
		made, err := b.Keys.Create(t.Context(), gateway.APIKeyRequest{Consumer: "a"})
		require.NoError(t, err)
		ids[made.ID] = true
		first = made.ID
	}
	require.Len(t, ids, MaxKeysOf)
	require.ErrorIs(t, errOf(b.Keys.Create(t.Context(), gateway.APIKeyRequest{Consumer: "a"})), errs.Forbidden)
	require.NoError(t, errOf(b.Keys.Create(t.Context(), gateway.APIKeyRequest{Consumer: "b"})))
	require.NoError(t, errOf(b.Keys.Delete(t.Context(), first)))
	require.NoError(t, errOf(b.Keys.Create(t.Context(), gateway.APIKeyRequest{Consumer: "a"})))

	var listed []string
	after := ""
	for key := range b.Keys.Of("a", after) {
		require.Greater(t, key.Info.ID, after)
		after = key.Info.ID
		listed = append(listed, after)
	}
	require.Len(t, listed, MaxKeysOf)
	n := 0
	for key := range b.Keys.Of("a", listed[3]) {
		require.Equal(t, listed[4+n], key.Info.ID)
		n++
	}
	require.Equal(t, MaxKeysOf-4, n)
	n = 0
	for range b.Keys.Of("", "") {
		n++
	}
	require.Equal(t, MaxKeysOf+1, n)
}

// FuzzAuthenticate checks that only the key itself is accepted.
func FuzzAuthenticate(f *testing.F) {
	store := etcdtest.Start(f).Store(f)
	b := open(f, store, nil)
	made, err := b.Keys.Create(f.Context(), gateway.APIKeyRequest{Consumer: "a"})
	require.NoError(f, err)
	f.Add(made.Key)
	f.Add(made.Key[:len(made.Key)-1])
	f.Add(fmt.Sprintf("mepk_%016x_%052d", 7, 7))
	f.Add("")
	f.Fuzz(func(t *testing.T, shown string) {
		_, err := b.Keys.Authenticate(shown)
		require.Equal(t, shown == made.Key, err == nil)
	})
}

func TestNothingIsAllocatedForACall(t *testing.T) {
	store := etcdtest.Start(t).Store(t)
	b := open(t, store, registry{"s": {"o"}})
	made, err := b.Keys.Create(t.Context(), gateway.APIKeyRequest{Consumer: "a"})
	require.NoError(t, err)
	unknown := keyPrefix + "0000000000000000" + made.Key[len(keyPrefix)+idLength:]
	for name, call := range map[string]func(){
		"key":         func() { _, _ = b.Keys.Authenticate(made.Key) },
		"unknown key": func() { _, _ = b.Keys.Authenticate(unknown) },
		"access":      func() { _ = b.Access.Granted("o", "s", "a") },
	} {
		require.Zero(t, testing.AllocsPerRun(100, call), name)
	}
}

func BenchmarkAuthenticate(b *testing.B) {
	store := etcdtest.Start(b).Store(b)
	keys := open(b, store, nil).Keys
	made, err := keys.Create(b.Context(), gateway.APIKeyRequest{Consumer: "a"})
	require.NoError(b, err)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := keys.Authenticate(made.Key); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkGranted(b *testing.B) {
	store := etcdtest.Start(b).Store(b)
	access := open(b, store, registry{"telemetry": {"0b8ce5b4-4f5c-4a3a-9d0e-5a2f2c2f3f10"}}).Access
	r, err := access.Apply(b.Context(), "6a0f64a3-0fb3-4ea0-8a8c-5f8f6e0f2a11", gateway.AccessApplication{SerName: "telemetry"})
	require.NoError(b, err)
	_, err = access.Decide(b.Context(), r.Info.ID, Party{Manager: true}, gateway.AccessDecision{State: gateway.AccessGranted}, nil)
	require.NoError(b, err)
	b.ReportAllocs()
	for b.Loop() {
		if !access.Granted(r.Info.Owner, r.Info.SerName, r.Info.Consumer) {
			b.Fatal("not granted")
		}
	}
}
