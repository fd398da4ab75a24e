package seal

import (
	"bytes"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/kit/errs"
	"github.com/openmep/mep/kit/etcdtest"
)

func TestWhatIsSealedOpensForItsPlaceAndKeyOnly(t *testing.T) {
	k, err := New(bytes.Repeat([]byte("a"), MinKeyBytes))
	require.NoError(t, err)
	other, err := New(bytes.Repeat([]byte("b"), MinKeyBytes))
	require.NoError(t, err)
	sealed := k.Seal("here", []byte("secret"))
	require.NotContains(t, string(sealed), "secret")
	require.NotEqual(t, sealed, k.Seal("here", []byte("secret")), "a nonce is used once")
	plain, err := k.Open("here", sealed)
	require.NoError(t, err)
	require.Equal(t, "secret", string(plain))
	for name, open := range map[string]func() ([]byte, error){
		"another place": func() ([]byte, error) { return k.Open("there", sealed) },
		"another key":   func() ([]byte, error) { return other.Open("here", sealed) },
		"changed":       func() ([]byte, error) { c := bytes.Clone(sealed); c[len(c)-1] ^= 1; return k.Open("here", c) },
		"cut":           func() ([]byte, error) { return k.Open("here", sealed[:20]) },
		"nothing":       func() ([]byte, error) { return k.Open("here", nil) },
	} {
		_, err := open()
		require.Error(t, err, name)
	}
	_, err = New(make([]byte, MinKeyBytes-1))
	require.ErrorContains(t, err, "at least 32 bytes")
}

func TestKeyFileIsMadeOnceAndProved(t *testing.T) {
	store := etcdtest.Start(t).Store(t)
	file := filepath.Join(t.TempDir(), "auth", "seal.key")
	k, err := Open(t.Context(), file, store)
	require.NoError(t, err)
	info, err := os.Stat(file)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm())

	again, err := Open(t.Context(), file, store)
	require.NoError(t, err)
	plain, err := again.Open("x", k.Seal("x", []byte("y")))
	require.NoError(t, err)
	require.Equal(t, "y", string(plain))

	require.NoError(t, os.Rename(file, file+".away"))
	_, err = Open(t.Context(), file, store)
	require.ErrorContains(t, err, "is missing, but the database holds secrets")
	require.NoFileExists(t, file)

	require.NoError(t, os.WriteFile(file, bytes.Repeat([]byte("z"), 40), 0o600))
	_, err = Open(t.Context(), file, store)
	require.ErrorContains(t, err, "is not the one the secrets in the database were sealed with")

	require.NoError(t, os.WriteFile(file, []byte("short"), 0o600))
	_, err = Open(t.Context(), file, store)
	require.ErrorContains(t, err, "at least 32 bytes")
}

func TestProcessesThatStartTogetherAgreeOnAKeyFile(t *testing.T) {
	store := etcdtest.Start(t).Store(t)
	file := filepath.Join(t.TempDir(), "seal.key")
	keys := make([]*Key, 8)
	var all sync.WaitGroup
	for i := range keys {
		all.Go(func() {
			var err error
			keys[i], err = Open(t.Context(), file, store)
			if err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	sealed := keys[0].Seal("x", []byte("y"))
	for _, k := range keys {
		_, err := k.Open("x", sealed)
		require.NoError(t, err)
	}
}

func TestKeyCannotBeProvedWithoutEtcd(t *testing.T) {
	server := etcdtest.Start(t)
	store := server.Store(t)
	server.Stop()
	file := filepath.Join(t.TempDir(), "seal.key")
	_, err := Open(t.Context(), file, store)
	require.ErrorIs(t, err, errs.Unavailable)
	require.NoFileExists(t, file, "who cannot see the database must not make a key for it")
}
