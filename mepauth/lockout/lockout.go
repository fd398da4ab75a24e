// Package lockout prevents the guessing of secret keys.
//
// By default three failures in five minutes lock an access key for the client address they came from, for a quarter of an hour.
// Failures from many addresses together lock the key for all addresses except those it was used from successfully before, so that
// somebody who merely knows an access key cannot lock its holder out. The failures are recorded in etcd, so they survive a restart
// and are known to all replicas.
//
// Access keys that do not exist are treated like those that do, so that an attacker cannot tell them apart. Their number is
// unlimited, so at most MaxStrangers are remembered in etcd, and MaxMemory of the others in this process.
package lockout

import (
	"context"
	"hash/maphash"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/prometheus/client_golang/prometheus"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/openmep/mep/api/state"
	"github.com/openmep/mep/kit/errs"
	"github.com/openmep/mep/kit/etcd"
	"github.com/openmep/mep/kit/watched"
)

// Policy holds the operator's settings for failures.
type Policy struct {
	// Failures within Window lock an access key for their source for Duration.
	Failures int
	Window   time.Duration
	Duration time.Duration
	// KeyFailures within Window, from all sources, lock the key for all sources that are not trusted.
	KeyFailures int
}

const (
	// MaxStrangers is how many access keys that were never used successfully are remembered in etcd, in about 3 MB, before
	// failures of access keys that do not exist are remembered in memory only. (In memory, locks for everybody are not
	// remembered.)
	MaxStrangers = 10000
	// MaxMemory is how many of the others are remembered, at less than 512 bytes each, 8 MiB together.
	MaxMemory = 16384
	// MaxKeyFailures is the maximum of Policy.KeyFailures: this many addresses fit into a record.
	MaxKeyFailures = 50
	// maxSources is the maximum number of addresses in a record, maxTrusted that of trusted ones.
	maxSources = 64
	maxTrusted = 8
)

// Book records failures.
type Book struct {
	store    *etcd.Store
	mirror   *watched.Mirror
	attempts *watched.Collection[state.Attempts]
	policy   func() Policy
	log      *slog.Logger
	now      func() time.Time
	locked   *prometheus.CounterVec
	leases   *etcd.Leases

	strangers atomic.Int64

	seed    maphash.Seed
	turns   turns // serialise attempts
	changes turns // serialise changes of a record
	mu      sync.Mutex
	memory  *lru.Cache[uint64, state.Failures]
}

// New returns a book. It adds the collection of attempts to the mirror of state.AuthRoot.
func New(private *watched.Mirror, store *etcd.Store, policy func() Policy, log *slog.Logger, reg prometheus.Registerer) *Book {
	b := &Book{
		store: store.Urgent(), mirror: private, policy: policy, log: log, now: time.Now, seed: maphash.MakeSeed(),
		leases: etcd.NewLeases(store, leaseSpan),
		attempts: watched.Add(private, "attempts", state.PrefixAttempts, func(_ string, value []byte, _ int64) (state.Attempts, error) {
			return state.Decode[state.Attempts](value)
		}),
		locked: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "mep_auth_lockouts_total", Help: "Access keys that were locked, by extent: source or everybody.",
		}, []string{"extent"}),
	}
	for i := range b.turns {
		b.turns[i], b.changes[i] = make(chan struct{}, 1), make(chan struct{}, 1)
	}
	b.attempts.Observe(b.countStrangers)
	b.memory, _ = lru.New[uint64, state.Failures](MaxMemory) // fails only for sizes below 1
	reg.MustRegister(b.locked, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "mep_auth_attempts_remembered", Help: "Access keys whose failures are remembered in memory because too many are in etcd.",
	}, func() float64 { return float64(b.memory.Len()) }))
	return b
}

func (b *Book) memoryKey(accessKeyID, source string) uint64 {
	var h maphash.Hash
	h.SetSeed(b.seed)
	_, _ = h.WriteString(accessKeyID)
	_ = h.WriteByte(0)
	_, _ = h.WriteString(source)
	return h.Sum64()
}

// turns serialises work by the hash of a key. Each channel has a capacity of one, for whoever has the turn.
type turns [1024]chan struct{}

// maxWait is the longest wait for a turn.
const maxWait = 5 * time.Second

func (t *turns) take(ctx context.Context, key uint64) (done func(), err error) {
	turn := t[key%uint64(len(t))]
	select {
	case turn <- struct{}{}:
		return func() { <-turn }, nil
	default:
	}
	wait := time.NewTimer(maxWait)
	defer wait.Stop()
	select {
	case turn <- struct{}{}:
		return func() { <-turn }, nil
	case <-wait.C:
		return nil, errs.New(errs.Unavailable, "too many attempts with the same access key at a time").After(time.Second)
	case <-ctx.Done():
		return nil, errs.Wrap(errs.Unavailable, ctx.Err(), "the request was given up").After(time.Second)
	}
}

// Attempt makes the caller the only one in this process who tries the access key from the source, until the caller calls done.
// Guesses sent concurrently are thus checked no more often than guesses sent one after another. The error is of the kind
// errs.Unavailable when earlier attempts take too long.
func (b *Book) Attempt(ctx context.Context, accessKeyID, source string) (done func(), err error) {
	return b.turns.take(ctx, b.memoryKey(accessKeyID, source))
}

// Trusts reports whether the access key was used successfully from the source.
func (b *Book) Trusts(accessKeyID, source string) bool {
	item, ok := b.attempts.Snapshot().Get(state.AttemptsKey(accessKeyID))
	return ok && slices.Contains(item.Value.Trusted, source)
}

// Locked returns how long the access key remains locked for the source; 0 when it is not locked.
func (b *Book) Locked(accessKeyID, source string) time.Duration {
	now := b.now()
	if f, ok := b.memory.Peek(b.memoryKey(accessKeyID, source)); ok && now.Before(f.Until) {
		return f.Until.Sub(now)
	}
	item, ok := b.attempts.Snapshot().Get(state.AttemptsKey(accessKeyID))
	if !ok {
		return 0
	}
	return b.lockedFor(item.Value, source, now)
}

func (b *Book) lockedFor(a state.Attempts, source string, now time.Time) time.Duration {
	if left := b.left(a.Sources[source], now); left > 0 {
		return left
	}
	if slices.Contains(a.Trusted, source) {
		return 0
	}
	return b.left(a.All, now)
}

// left returns how long a lock remains. It ignores a lock longer than the policy's Duration, as one set while the clock was ahead.
func (b *Book) left(f state.Failures, now time.Time) time.Duration {
	left := f.Until.Sub(now)
	if left <= 0 || left > b.policy().Duration {
		return 0
	}
	return left
}

// Failed records a failure to use the access key from the source. exists reports whether the access key exists. Failed returns how
// long the key is locked now, 0 when it is not. It returns an error only when the failure could not be recorded; the caller must
// then not reveal whether the secret was right.
func (b *Book) Failed(ctx context.Context, accessKeyID, source string, exists bool) (time.Duration, error) {
	if !exists && b.strangers.Load() >= MaxStrangers {
		// Write anyway, otherwise the response time would tell existing access keys from others.
		_, err := b.write(ctx, state.KeyOverflow, state.Attempts{Version: state.Current(), All: state.Failures{First: b.now().UTC(), Count: 1}}, 0)
		return b.remember(accessKeyID, source), err
	}
	var lock time.Duration
	err := b.change(ctx, accessKeyID, func(a *state.Attempts, now time.Time) bool {
		b.fail(a, source, now)
		lock = b.lockedFor(*a, source, now)
		return true
	})
	if err != nil {
		// While etcd is unavailable, this process still counts the guesses it receives.
		return b.remember(accessKeyID, source), err
	}
	return lock, nil
}

// countStrangers counts the records of access keys that were never used successfully.
func (b *Book) countStrangers(c watched.Change[state.Attempts]) {
	if c.Old != nil && len(c.Old.Value.Trusted) == 0 {
		b.strangers.Add(-1)
	}
	if c.New != nil && len(c.New.Value.Trusted) == 0 {
		b.strangers.Add(1)
	}
}

// leaseSpan is how far apart the expiry times of records that share a lease may be.
const leaseSpan = 5 * time.Minute

// lease returns the lease of a record that holds only failures.
func (b *Book) lease(ctx context.Context) (clientv3.LeaseID, error) {
	p := b.policy()
	return b.leases.Until(ctx, b.now().Add(p.Window+p.Duration))
}

// remember counts a failure in memory, and returns how long the lock lasts.
func (b *Book) remember(accessKeyID, source string) time.Duration {
	key, now := b.memoryKey(accessKeyID, source), b.now()
	b.mu.Lock()
	defer b.mu.Unlock()
	f, _ := b.memory.Get(key)
	p := b.policy()
	f = count(f, p.Failures, p, now)
	b.memory.Add(key, f)
	return max(0, f.Until.Sub(now))
}

// count adds a failure to the window, and sets a lock when there are most failures in it.
func count(f state.Failures, most int, p Policy, now time.Time) state.Failures {
	if f.Count == 0 || now.Sub(f.First) >= p.Window || now.Before(f.First) {
		f = state.Failures{First: now, Until: f.Until}
	}
	f.Count++
	if f.Count >= most {
		f.Until = now.Add(p.Duration)
		f.First, f.Count = time.Time{}, 0
	}
	return f
}

// fail adds a failure to a record.
func (b *Book) fail(a *state.Attempts, source string, now time.Time) {
	p := b.policy()
	if a.Sources == nil {
		a.Sources = make(map[string]state.Failures)
	}
	if len(a.Sources) < maxSources || a.Sources[source].Count > 0 {
		f := count(a.Sources[source], p.Failures, p, now)
		if f.Until.After(now) {
			b.locked.WithLabelValues("source").Inc()
		}
		a.Sources[source] = f
	}
	if !slices.Contains(a.Trusted, source) {
		was := a.All.Until
		a.All = count(a.All, p.KeyFailures, p, now)
		if a.All.Until.After(was) {
			b.locked.WithLabelValues("everybody").Inc()
			b.log.Warn("an access key fails from many addresses, it is locked for all that it was not used from before")
		}
	}
}

// Succeeded discards the failures of the access key from the source, and trusts the source from now on.
func (b *Book) Succeeded(ctx context.Context, accessKeyID, source string) {
	b.memory.Remove(b.memoryKey(accessKeyID, source))
	item, ok := b.attempts.Snapshot().Get(state.AttemptsKey(accessKeyID))
	if ok && slices.Contains(item.Value.Trusted, source) && item.Value.Sources[source].Count == 0 {
		return
	}
	err := b.change(ctx, accessKeyID, func(a *state.Attempts, _ time.Time) bool {
		had := a.Sources[source].Count > 0
		delete(a.Sources, source)
		if slices.Contains(a.Trusted, source) {
			return had
		}
		a.Trusted = append([]string{source}, a.Trusted...)
		a.Trusted = a.Trusted[:min(len(a.Trusted), maxTrusted)]
		return true
	})
	if err != nil {
		// The token is valid all the same; the next success tries again.
		b.log.Warn("a success was not recorded", "error", err)
	}
}

// change edits the record of an access key. This process makes one change of a record at a time.
func (b *Book) change(ctx context.Context, accessKeyID string, edit func(*state.Attempts, time.Time) bool) error {
	if st := b.mirror.Status(); !st.Connected {
		return errs.New(errs.Unavailable, "the platform's store does not answer at present").After(2 * time.Second)
	}
	done, err := b.changes.take(ctx, b.memoryKey(accessKeyID, ""))
	if err != nil {
		return err
	}
	defer done()
	key := state.AttemptsKey(accessKeyID)
	for range 8 {
		now := b.now().UTC()
		rec, rev := state.Attempts{}, int64(0)
		if item, ok := b.attempts.Snapshot().Get(key); ok {
			rec, rev = item.Value, item.ModRevision
		}
		rec.Version = state.Current()
		rec.Sources, rec.Trusted = maps.Clone(rec.Sources), slices.Clone(rec.Trusted)
		b.prune(&rec, now)
		if !edit(&rec, now) {
			return nil
		}
		written, err := b.write(ctx, key, rec, rev)
		if written || err != nil {
			return err
		}
	}
	return errs.New(errs.Unavailable, "too many attempts with the same access key at a time").After(time.Second)
}

// prune removes the sources whose failures and locks have passed.
func (b *Book) prune(a *state.Attempts, now time.Time) {
	window := b.policy().Window
	maps.DeleteFunc(a.Sources, func(_ string, f state.Failures) bool {
		return now.After(f.Until) && now.Sub(f.First) >= window
	})
}

// write writes a record if it is still at revision rev, and waits until this process's mirror shows it. A record that holds only
// failures expires with them.
func (b *Book) write(ctx context.Context, key string, rec state.Attempts, rev int64) (bool, error) {
	value, err := state.Encode(rec)
	if err != nil {
		return false, err
	}
	var opts []clientv3.OpOption
	if len(rec.Trusted) == 0 {
		lease, err := b.lease(ctx)
		if err != nil {
			return false, err
		}
		opts = append(opts, clientv3.WithLease(lease))
	}
	resp, err := b.store.Txn(ctx, []clientv3.Cmp{clientv3.Compare(clientv3.ModRevision(key), "=", rev)},
		[]clientv3.Op{clientv3.OpPut(key, value, opts...)}, nil)
	if b.leases.Lost(err) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	wait, cancel := context.WithTimeout(ctx, etcd.DefaultTimeout)
	defer cancel()
	if err := b.mirror.WaitRevision(wait, resp.Header.Revision); err != nil && !resp.Succeeded {
		return false, etcd.Error(err)
	}
	return resp.Succeeded, nil
}
