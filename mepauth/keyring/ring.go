package keyring

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"

	"github.com/openmep/mep/api/state"
	"github.com/openmep/mep/kit/errs"
	"github.com/openmep/mep/kit/identity"
	"github.com/openmep/mep/kit/watched"
	"github.com/openmep/mep/mepauth/seal"
)

// Ring signs with the keys of a running mepauth.
type Ring struct {
	admin   *Admin
	dir     *identity.Directory
	private *watched.Collection[*state.PrivateKey]
	seal    *seal.Key
	policy  func() Policy
	log     *slog.Logger
	now     func() time.Time
	made    *prometheus.CounterVec

	changed chan struct{}
	current atomic.Pointer[Signer]
	mu      sync.Mutex
	opened  map[string]crypto.Signer
}

// Signer signs tokens.
type Signer struct {
	// ID is the key id (kid).
	ID string

	method jwt.SigningMethod
	key    crypto.Signer
	header string // encoded header of every token
	until  time.Time
}

// New returns a ring. It adds the private keys as a collection to private, the mirror of state.AuthRoot.
func New(private *watched.Mirror, dir *identity.Directory, admin *Admin, key *seal.Key, policy func() Policy,
	log *slog.Logger, reg prometheus.Registerer,
) *Ring {
	r := &Ring{
		admin: admin, dir: dir, seal: key, policy: policy, log: log, now: time.Now,
		changed: make(chan struct{}, 1), opened: make(map[string]crypto.Signer),
		private: watched.Add(private, "private keys", state.PrefixPrivateKeys,
			func(_ string, value []byte, _ int64) (*state.PrivateKey, error) {
				rec, err := state.Decode[state.PrivateKey](value)
				return &rec, err
			}),
		made: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "mep_auth_signing_keys_made_total", Help: "Signing keys this process made, by algorithm.",
		}, []string{"algorithm"}),
	}
	r.private.Observe(func(watched.Change[*state.PrivateKey]) { r.kick() })
	dir.Keys().Observe(func(watched.Change[*identity.Key]) { r.kick() })
	reg.MustRegister(r.made, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "mep_auth_signing_key_age_seconds", Help: "Time since the key that signs began to.",
	}, r.age), prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "mep_auth_signing_keys", Help: "Signing keys that sign, verify or are about to.",
	}, func() float64 { return float64(dir.Keys().Snapshot().Len()) }))
	return r
}

func (r *Ring) age() float64 {
	s := r.current.Load()
	if s == nil {
		return 0
	}
	item, ok := r.dir.Keys().Snapshot().Get(state.SigningKeyKey(s.ID))
	if !ok {
		return 0
	}
	return r.now().Sub(item.Value.Record.NotBefore).Seconds()
}

// kick is called when the keys have changed: the current signer may no longer be the right one.
func (r *Ring) kick() {
	r.current.Store(nil)
	select {
	case r.changed <- struct{}{}:
	default:
	}
}

// reconsider is the longest time between two checks of the keys.
const reconsider = time.Minute

// Run makes keys when they are due and keeps the current signer cached, until ctx ends.
func (r *Ring) Run(ctx context.Context) error {
	for ctx.Err() == nil {
		wait := reconsider
		if err := r.tend(ctx); err != nil && ctx.Err() == nil {
			r.log.Error("the signing keys could not be looked after", "error", err)
			wait = time.Second
		}
		r.current.Store(nil)
		if s, err := r.Signer(); err == nil {
			wait = min(wait, max(s.until.Sub(r.now()), 10*time.Millisecond))
		}
		timer := time.NewTimer(wait)
		select {
		case <-r.changed:
		case <-timer.C:
		case <-ctx.Done():
		}
		timer.Stop()
	}
	return nil
}

func (r *Ring) tend(ctx context.Context) error {
	policy := r.policy()
	kid, err := r.admin.Ensure(ctx, policy)
	if err != nil {
		return err
	}
	if kid != "" {
		r.made.WithLabelValues(policy.Algorithm).Inc()
		r.log.Info("made a signing key", "kid", kid, "algorithm", policy.Algorithm)
	}
	if err := r.admin.Extend(ctx, policy); err != nil {
		return err
	}
	return r.admin.Clean(ctx)
}

// Signer returns the signer to use now. The error is of the kind errs.Unavailable when there is none yet.
func (r *Ring) Signer() (*Signer, error) {
	now := r.now()
	if s := r.current.Load(); s != nil && now.Before(s.until) {
		return s, nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	keys := r.keys()
	until := now.Add(reconsider)
	for _, i := range keys {
		for _, t := range []time.Time{i.Record.NotBefore, i.Record.Retired} {
			if t.After(now) && t.Before(until) {
				until = t
			}
		}
	}
	// An unusable key must not stop the platform when there is another one.
	for {
		kid := choose(keys, now)
		if kid == "" {
			return nil, errs.New(errs.Unavailable, "there is no key to sign tokens with yet").After(time.Second)
		}
		s, err := r.open(kid)
		if err == nil {
			s.until = until
			r.current.Store(s)
			return s, nil
		}
		level := slog.LevelError
		if errors.Is(err, errArriving) {
			level = slog.LevelDebug
		}
		r.log.Log(context.Background(), level, "a signing key cannot be used", "kid", kid, "error", err)
		keys = slices.DeleteFunc(keys, func(i Info) bool { return i.ID == kid })
	}
}

// arriving is how long the private part of a new key may take to arrive: both parts are written at once, but two mirrors read
// them.
const arriving = 5 * time.Second

var errArriving = errors.New("the private part of a new key has not been read yet")

func (r *Ring) keys() []Info {
	var list []Info
	for item := range r.dir.Keys().Snapshot().All() {
		list = append(list, Info{ID: item.Value.ID, Record: item.Value.Record})
	}
	return list
}

func (r *Ring) open(kid string) (*Signer, error) {
	pub, ok := r.dir.Keys().Snapshot().Get(state.SigningKeyKey(kid))
	if !ok {
		return nil, fmt.Errorf("the key %s is gone", kid)
	}
	algorithm := pub.Value.Record.Algorithm
	s := &Signer{ID: kid, method: jwt.GetSigningMethod(algorithm), key: r.opened[kid]}
	if s.method == nil {
		return nil, fmt.Errorf("the algorithm %q is not known", algorithm)
	}
	if s.key == nil {
		item, ok := r.private.Snapshot().Get(state.PrivateKeyKey(kid))
		if !ok && r.now().Sub(pub.Value.Record.Created) < arriving {
			return nil, errArriving
		}
		if !ok {
			return nil, fmt.Errorf("the private part of the key %s is missing", kid)
		}
		der, err := r.seal.Open(item.Key, item.Value.Sealed)
		if err != nil {
			return nil, err
		}
		defer clear(der)
		key, err := x509.ParsePKCS8PrivateKey(der)
		if err != nil {
			return nil, err
		}
		if s.key, ok = key.(crypto.Signer); !ok {
			return nil, fmt.Errorf("a %T cannot sign", key)
		}
		for old := range r.opened {
			if _, ok := r.dir.Keys().Snapshot().Get(state.SigningKeyKey(old)); !ok {
				delete(r.opened, old)
			}
		}
		r.opened[kid] = s.key
	}
	header, err := json.Marshal(map[string]string{"alg": algorithm, "typ": "JWT", "kid": kid})
	if err != nil {
		return nil, err
	}
	s.header = base64.RawURLEncoding.EncodeToString(header)
	return s, nil
}

// signES256 signs as defined in RFC 7518 3.4, with a nonce derived from the key and the message (RFC 6979, FIPS 186-5 6.3). No
// two tokens are the same, and signing, most of the cost of a token, takes a fifth less time than with a random nonce.
func signES256(message []byte, key *ecdsa.PrivateKey) ([]byte, error) {
	const size = 32 // of each of the two numbers
	sum := sha256.Sum256(message)
	der, err := key.Sign(nil, sum[:], crypto.SHA256)
	if err != nil {
		return nil, err
	}
	var r, s big.Int
	outer := cryptobyte.String(der)
	var inner cryptobyte.String
	if !outer.ReadASN1(&inner, asn1.SEQUENCE) || !inner.ReadASN1Integer(&r) || !inner.ReadASN1Integer(&s) {
		return nil, errors.New("the signature is malformed")
	}
	out := make([]byte, 2*size)
	r.FillBytes(out[:size])
	s.FillBytes(out[size:])
	return out, nil
}

// Sign returns a JWT in compact form with the payload, which must be a JSON object.
func (s *Signer) Sign(payload []byte) (string, error) {
	enc := base64.RawURLEncoding
	out := make([]byte, 0, len(s.header)+2+enc.EncodedLen(len(payload))+enc.EncodedLen(rsaBits/8))
	out = append(append(out, s.header...), '.')
	out = enc.AppendEncode(out, payload)
	var signature []byte
	var err error
	if key, ok := s.key.(*ecdsa.PrivateKey); ok {
		signature, err = signES256(out, key)
	} else {
		signature, err = s.method.Sign(string(out), s.key)
	}
	if err != nil {
		return "", fmt.Errorf("sign a token: %w", err)
	}
	return string(enc.AppendEncode(append(out, '.'), signature)), nil
}
