package book

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base32"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/openmep/mep/api/gateway"
	"github.com/openmep/mep/api/state"
	"github.com/openmep/mep/kit/errs"
	"github.com/openmep/mep/kit/etcd"
	"github.com/openmep/mep/kit/identity"
	"github.com/openmep/mep/kit/watched"
)

// An API key is mepk_{id}_{secret}: the id has 64 random bits, the secret 256.
const (
	keyPrefix    = "mepk_"
	idLength     = 16 // hexadecimal digits
	secretBytes  = 32
	secretLength = 52 // characters of base32
	keyLength    = len(keyPrefix) + idLength + 1 + secretLength
)

// ViaAPIKey is the identity.Caller.Via of callers authenticated by an API key.
const ViaAPIKey = "apiKey"

// Reasons to reject an API key. Both are of the kind errs.Unauthenticated.
var (
	// ErrUnknownKey means that the key does not exist, or no longer exists.
	ErrUnknownKey error = errs.New(errs.Unauthenticated, "the API key is not known here")
	// ErrExpiredKey means that the key has expired.
	ErrExpiredKey error = errs.New(errs.Unauthenticated, "the API key has expired")
)

// Key is an API key without its secret.
type Key struct {
	// Info is the public part of the key. It is shared and must not be changed.
	Info gateway.APIKey
	// Caller is whoever presents the key: the consumer, with the scopes of the key. ClientID is the id of the key. Caller is shared, too.
	Caller *identity.Caller
	// Revision is the etcd revision at which the key was created.
	Revision int64

	hash [sha256.Size]byte
}

// Keys holds the API keys.
type Keys struct {
	*ledger
	items     *watched.Collection[*Key]
	consumers watched.Index[*Key]
	known     *index[uint64, *Key]
	room      *room
	leases    *etcd.Leases
	nobody    [sha256.Size]byte // the hash of a secret nobody has
	now       func() time.Time
}

func newKeys(l *ledger) *Keys {
	k := &Keys{
		ledger: l, items: watched.Add(l.mirror, "gateway_api_keys", state.PrefixAPIKeys, decodeKey),
		known: newIndex[uint64, *Key](), room: newRoom("API keys", MaxAPIKeys, MaxKeysOf), leases: etcd.NewLeases(l.store, leaseSpan), now: time.Now,
	}
	_, _ = rand.Read(k.nobody[:]) // never fails
	k.consumers = watched.NewIndex(k.items, func(item *watched.Item[*Key]) []string { return []string{item.Value.Info.Consumer} })
	k.items.Observe(k.observe)
	return k
}

func (k *Keys) observe(c watched.Change[*Key]) {
	if c.Old != nil {
		k.room.removed(c.Old.Value.Info.Consumer)
	}
	if c.New == nil {
		if n, ok := number(c.Old.Value.Info.ID); ok {
			k.known.remove(n)
		}
		return
	}
	k.room.added(c.New.Value.Info.Consumer, c.Key)
	if n, ok := number(c.New.Value.Info.ID); ok {
		k.known.set(n, c.New.Value)
	}
}

// number returns the id of a key as a number.
func number(id string) (uint64, bool) {
	if len(id) != idLength {
		return 0, false
	}
	for i := range len(id) {
		if c := id[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return 0, false
		}
	}
	n, err := strconv.ParseUint(id, 16, 64)
	return n, err == nil
}

func decodeKey(key string, value []byte, revision int64) (*Key, error) {
	rec, err := state.Decode[state.APIKey](value)
	if err != nil {
		return nil, err
	}
	id := strings.TrimPrefix(key, state.PrefixAPIKeys)
	if _, ok := number(id); !ok || rec.Key.ID != id {
		return nil, fmt.Errorf("the API key %q is below the key of %q", rec.Key.ID, id)
	}
	if len(rec.Hash) != sha256.Size || rec.Key.Consumer == "" {
		return nil, errors.New("the record of an API key lacks its hash or its consumer")
	}
	k := &Key{Info: rec.Key, Revision: revision, hash: [sha256.Size]byte(rec.Hash)}
	k.Info.Key = "" // never stored
	k.Caller = &identity.Caller{Subject: rec.Key.Consumer, ClientID: id, Scopes: rec.Key.Scopes, Via: ViaAPIKey, Expires: rec.Key.Expires}
	return k, nil
}

// Authenticate finds the key that a consumer presents. It does not allocate, and takes the same time whether or not there is a key with
// that id. Errors are ErrUnknownKey and ErrExpiredKey.
func (k *Keys) Authenticate(key string) (*Key, error) {
	if len(key) != keyLength || key[:len(keyPrefix)] != keyPrefix || key[len(keyPrefix)+idLength] != '_' {
		return nil, ErrUnknownKey
	}
	n, ok := number(key[len(keyPrefix) : len(keyPrefix)+idLength])
	if !ok {
		return nil, ErrUnknownKey
	}
	var secret [secretLength]byte
	copy(secret[:], key[keyLength-secretLength:])
	hash := sha256.Sum256(secret[:])
	known, ok := k.known.get(n)
	want := &k.nobody
	if ok {
		want = &known.hash
	}
	if subtle.ConstantTimeCompare(hash[:], want[:]) != 1 || !ok {
		return nil, ErrUnknownKey
	}
	if expires := known.Info.Expires; !expires.IsZero() && !k.now().Before(expires) {
		return nil, ErrExpiredKey
	}
	return known, nil
}

// generate returns a new id and a new secret.
func generate() (id, secret string) {
	var b [idLength/2 + secretBytes]byte
	_, _ = rand.Read(b[:]) // never fails
	encoded := base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(b[idLength/2:])
	return hex.EncodeToString(b[:idLength/2]), strings.ToLower(encoded)
}
