// Package seal encrypts the secrets that mepauth keeps in etcd: the clients' secret keys and the private signing keys.
//
// The encryption key is derived from a key file that never leaves the machine, so that a copy of the database alone is
// worthless.
package seal

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/openmep/mep/api/state"
	"github.com/openmep/mep/kit/durable"
	"github.com/openmep/mep/kit/etcd"
)

// MinKeyBytes is the minimum length of a key file, which alone protects the secrets in the database.
const MinKeyBytes = 32

// Key encrypts and decrypts. It is safe for concurrent use.
type Key struct {
	aead cipher.AEAD
	file string
}

// New derives a key from the contents of a key file. The key is derived once, not for every use.
func New(material []byte) (*Key, error) {
	if len(material) < MinKeyBytes {
		return nil, fmt.Errorf("the key file must hold at least %d bytes, not %d", MinKeyBytes, len(material))
	}
	derived, err := hkdf.Key(sha256.New, material, nil, "openmep mepauth seal v1", 32)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(derived)
	if err != nil {
		return nil, err
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return nil, err
	}
	return &Key{aead: aead}, nil
}

// Open reads the key file and verifies that the database was sealed with it. A missing file is created, with mode 0600,
// unless the database was already sealed.
func Open(ctx context.Context, file string, store *etcd.Store) (*Key, error) {
	known, err := proof(ctx, store)
	if err != nil {
		return nil, err
	}
	material, err := os.ReadFile(file)
	switch {
	case errors.Is(err, fs.ErrNotExist) && known != nil:
		return nil, errMissing(file)
	case errors.Is(err, fs.ErrNotExist):
		if material, err = create(file); err != nil {
			return nil, err
		}
	case err != nil:
		return nil, fmt.Errorf("key file: %w", err)
	}
	k, err := New(material)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	k.file = file
	if known != nil {
		return k, k.check(known)
	}
	return k, k.prove(ctx, store)
}

// OpenKnown is like Open, for commands: it creates no key file, and does not seal a database that is not sealed yet.
func OpenKnown(ctx context.Context, file string, store *etcd.Store) (*Key, error) {
	if proven, err := Verify(ctx, file, store); err != nil {
		return nil, err
	} else if !proven {
		return nil, errors.New("the database holds no secrets yet: start the platform once, or look whether this is the right one")
	}
	return Open(ctx, file, store)
}

// Verify checks whether Open would accept the key file, without changing anything. It reports whether the database was sealed
// with the file. When the database is not sealed yet, there is no error and the file may be missing. Errors are those of
// Open.
func Verify(ctx context.Context, file string, store *etcd.Store) (proven bool, err error) {
	known, err := proof(ctx, store)
	if err != nil {
		return false, err
	}
	material, err := os.ReadFile(file)
	switch {
	case errors.Is(err, fs.ErrNotExist) && known != nil:
		return false, errMissing(file)
	case errors.Is(err, fs.ErrNotExist):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("key file: %w", err)
	}
	k, err := New(material)
	if err != nil {
		return false, fmt.Errorf("%s: %w", file, err)
	}
	k.file = file
	if known == nil {
		return false, nil
	}
	return true, k.check(known)
}

// proof returns the value in the database that identifies the key, nil when the database is not sealed yet.
func proof(ctx context.Context, store *etcd.Store) ([]byte, error) {
	resp, err := store.Do(ctx, clientv3.OpGet(state.KeySeal))
	if err != nil || len(resp.Get().Kvs) == 0 {
		return nil, err
	}
	return append([]byte{}, resp.Get().Kvs[0].Value...), nil
}

func errMissing(file string) error {
	return fmt.Errorf("the key file %s is missing, but the database holds secrets that were sealed with it: "+
		"put it back from a backup, or copy it from another replica of mepauth", file)
}

// create creates the key file. When another process comes first, create returns the contents of that file.
func create(file string) ([]byte, error) {
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return nil, fmt.Errorf("key file: %w", err)
	}
	secret := make([]byte, 32)
	_, _ = rand.Read(secret) // never fails
	material := []byte(base64.StdEncoding.EncodeToString(secret) + "\n")
	tmp, err := os.CreateTemp(filepath.Dir(file), ".seal-*")
	if err != nil {
		return nil, fmt.Errorf("key file: %w", err)
	}
	defer func() { _ = os.Remove(tmp.Name()) }()
	_, err = tmp.Write(material)
	if err = errors.Join(err, tmp.Sync(), tmp.Close()); err != nil {
		return nil, fmt.Errorf("key file: %w", err)
	}
	if err := os.Link(tmp.Name(), file); errors.Is(err, fs.ErrExist) {
		return os.ReadFile(file)
	} else if err != nil {
		return nil, fmt.Errorf("key file: %w", err)
	}
	return material, durable.SyncDir(filepath.Dir(file))
}

// checkText is the plaintext of the proof.
const checkText = "this is the key"

// prove verifies that the database was sealed with this key, and writes the proof if there is none.
func (k *Key) prove(ctx context.Context, store *etcd.Store) error {
	mine := k.Seal(state.KeySeal, []byte(checkText))
	resp, err := store.Urgent().Txn(ctx, []clientv3.Cmp{clientv3.Compare(clientv3.CreateRevision(state.KeySeal), "=", 0)},
		[]clientv3.Op{clientv3.OpPut(state.KeySeal, string(mine))}, []clientv3.Op{clientv3.OpGet(state.KeySeal)})
	if err != nil || resp.Succeeded {
		return err
	}
	kvs := resp.Responses[0].GetResponseRange().Kvs
	if len(kvs) == 0 {
		return errors.New("the proof of the key file went away while it was read: start again")
	}
	return k.check(kvs[0].Value)
}

// check returns an error when the proof was made with another key.
func (k *Key) check(proof []byte) error {
	if _, err := k.Open(state.KeySeal, proof); err != nil {
		return fmt.Errorf("the key file %s is not the one the secrets in the database were sealed with: "+
			"every replica of mepauth needs the same file", k.file)
	}
	return nil
}

// Seal encrypts plain (AES-256-GCM, with a fresh nonce in front). name is the etcd key of the result, which opens under no
// other name.
func (k *Key) Seal(name string, plain []byte) []byte {
	nonce := make([]byte, k.aead.NonceSize(), k.aead.NonceSize()+len(plain)+k.aead.Overhead())
	_, _ = rand.Read(nonce) // never fails
	return k.aead.Seal(nonce, nonce, plain, []byte(name))
}

// Open decrypts a result of Seal for the same name.
func (k *Key) Open(name string, sealed []byte) ([]byte, error) {
	return k.AppendOpen(nil, name, sealed)
}

// AppendOpen is like Open, and appends the plaintext to dst.
func (k *Key) AppendOpen(dst []byte, name string, sealed []byte) ([]byte, error) {
	n := k.aead.NonceSize()
	if len(sealed) < n+k.aead.Overhead() {
		return nil, errors.New("what is sealed is too short")
	}
	plain, err := k.aead.Open(dst, sealed[:n], sealed[n:], []byte(name))
	if err != nil {
		return nil, errors.New("what is sealed was changed, or sealed with another key or for another place")
	}
	return plain, nil
}
