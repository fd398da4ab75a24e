package identity

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"sync"
	"time"

	"github.com/openmep/mep/api/state"
)

// trust holds the settings for judging callers that a reload can change. It is immutable once in force; a reload replaces it.
type trust struct {
	leeway  time.Duration
	issuers map[string]*issuer // by the claim iss
	rules   []CertRule
}

// newTrust returns the trust that cfg describes. An issuer that before trusts in exactly the same way is taken over with its keys; one with
// keys from the same place starts with the keys of before.
func newTrust(cfg *Config, audience string, before *trust, log *slog.Logger) (*trust, error) {
	t := &trust{leeway: cfg.Leeway, issuers: make(map[string]*issuer, len(cfg.Issuers)), rules: cfg.Certificates}
	for n, c := range cfg.Issuers {
		i, err := newIssuer(c, audience, log)
		if err != nil {
			return nil, fmt.Errorf("auth.issuers[%d]: %w", n, err)
		}
		if before != nil {
			if was := before.issuers[i.Issuer]; was != nil {
				if was.same(i) {
					i = was
				} else if was.sameKeys(i) {
					i.adopt(was)
				}
			}
		}
		t.issuers[i.Issuer] = i
	}
	return t, nil
}

// same reports whether i is trusted as other is: by the same settings, and with the same CA for fetching its keys.
func (i *issuer) same(other *issuer) bool {
	return reflect.DeepEqual(i.TrustedIssuer, other.TrustedIssuer) && bytes.Equal(i.ca, other.ca)
}

// sameKeys reports whether i fetches its keys from the same place as other. Keys in a file are read anew anyway.
func (i *issuer) sameKeys(other *issuer) bool {
	return i.JWKSURL != "" && i.JWKSURL == other.JWKSURL && bytes.Equal(i.ca, other.ca)
}

// adopt takes over the keys of was, the same issuer under other settings: the keys may be unreachable just now.
func (i *issuer) adopt(was *issuer) {
	if keys := was.keys.Load(); keys != nil {
		i.keys.Store(keys)
		i.asked = true // no request waits for the first fetch
	}
}

// same reports whether t and other are equivalent.
func (t *trust) same(other *trust) bool {
	if t.leeway != other.leeway || len(t.issuers) != len(other.issuers) || !reflect.DeepEqual(t.rules, other.rules) {
		return false
	}
	for name, i := range t.issuers {
		if other.issuers[name] != i {
			return false
		}
	}
	return true
}

// holds reports whether a token that was verified before may still be accepted, as far as its issuer is concerned. The platform itself is
// always trusted.
func (t *trust) holds(e *verified) bool {
	return e.issuer == nil || t.issuers[e.issuer.Issuer] == e.issuer
}

// Prepare does all that can fail with new settings, except for the audience, which stays, and returns a function that applies them. After
// that, no token is accepted of an issuer that is gone or is trusted in another way, whether remembered or being verified. Issuers that
// stay keep their keys, and remembered tokens are judged anew with the next request. Only one goroutine may reload, and only apply what it
// prepared last. The error names the issuer at fault.
func (v *Verifier) Prepare(cfg *Config) (apply func(), err error) {
	before := v.trust.Load()
	next, err := newTrust(cfg, v.audience, before, v.log)
	if err != nil {
		return nil, err
	}
	for n, c := range cfg.Issuers {
		item, known := v.dir.issuers.Snapshot().Get(state.IssuerKey(c.Issuer))
		if known && item.Value.Replaced.IsZero() && next.issuers[c.Issuer] != before.issuers[c.Issuer] {
			return nil, fmt.Errorf("auth.issuers[%d]: %q is the name of the platform's own tokens: give others another name, or the platform with auth.issuer",
				n, c.Issuer)
		}
	}
	entries := cfg.TokenCache
	return func() {
		if !next.same(before) {
			v.trust.Store(next)
			v.cache.keep(next.holds) // the others would be refused anyway; drop them now
			select {
			case v.changed <- struct{}{}:
			default:
			}
		}
		v.cache.resize(entries)
	}, nil
}

// Run keeps the keys of the trusted issuers fresh until ctx ends, and then waits for the goroutines it started.
func (v *Verifier) Run(ctx context.Context) error {
	var all sync.WaitGroup
	running := make(map[*issuer]context.CancelFunc)
	for ctx.Err() == nil {
		trusted := v.trust.Load().issuers
		for i, end := range running {
			if trusted[i.Issuer] != i {
				end()
				delete(running, i)
			}
		}
		for _, i := range trusted {
			if running[i] != nil {
				continue
			}
			within, end := context.WithCancel(ctx)
			running[i] = end
			all.Go(func() { i.run(within) })
		}
		select {
		case <-v.changed:
		case <-ctx.Done():
		}
	}
	for _, end := range running {
		end()
	}
	all.Wait()
	if err := ctx.Err(); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}
