// Package replay accepts every signature only once.
//
// Used signatures are recorded in etcd until they are no longer acceptable, so that neither a restart nor another replica
// accepts them again. A record holds the signatures that were waiting when it was written: a record for each would limit the
// rate of tokens to that of etcd. Every process keeps all signatures in memory. It writes a record only on condition that no
// other process has written one that it does not know yet. It learns that from a key, the fence, which changes with every
// record.
package replay

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/openmep/mep/api/state"
	"github.com/openmep/mep/kit/errs"
	"github.com/openmep/mep/kit/etcd"
	"github.com/openmep/mep/kit/watched"
)

const (
	// MaxSignatures is how many signatures are remembered, in about 64 bytes each. At the limit no signed request is
	// accepted until some of them have expired.
	MaxSignatures = 1 << 20
	// MaxPerKey is how many of them may be of the same access key, so that nobody can use up the shared space.
	MaxPerKey = MaxSignatures / 64
	// maxBatch is the maximum number of signatures in a record, queue the maximum number waiting.
	maxBatch = 1024
	queue    = 4096
	// span is how far apart the expiry times of signatures that share a lease may be.
	span = 5 * time.Minute
	// maxTries limits the attempts to write a record when other processes come first.
	maxTries = 20
)

// digest identifies a signature: the first keyBytes bytes are a hash of its access key, the others of the signature.
type digest [16]byte

// keyBytes is the number of bytes of a digest that identify the access key.
const keyBytes = 4

func (d digest) key() [keyBytes]byte { return [keyBytes]byte(d[:keyBytes]) }

func digestOf(accessKeyID string, signature []byte) digest {
	key := sha256.Sum256([]byte(accessKeyID))
	h := sha256.New()
	_, _ = h.Write(key[:])
	_, _ = h.Write(signature)
	var sum [sha256.Size]byte
	var d digest
	copy(d[:], key[:keyBytes])
	copy(d[keyBytes:], h.Sum(sum[:0]))
	return d
}

// batch is the decoded form of a record.
type batch []digest

func decode(_ string, value []byte, _ int64) (batch, error) {
	if len(value)%len(digest{}) != 0 {
		return nil, fmt.Errorf("decode signatures: %d bytes are no multiple of %d", len(value), len(digest{}))
	}
	b := make(batch, 0, len(value)/len(digest{}))
	for ; len(value) > 0; value = value[len(digest{}):] {
		b = append(b, digest(value[:len(digest{})]))
	}
	return b, nil
}

// Register records used signatures.
type Register struct {
	store    *etcd.Store
	mirror   *watched.Mirror
	log      *slog.Logger
	incoming chan *entry
	refused  prometheus.Counter
	batches  prometheus.Histogram

	mu     sync.Mutex
	used   map[digest]struct{}
	perKey map[[keyBytes]byte]int

	// The fields below are owned by Run.
	fence  int64 // revision of the fence; all records up to it are known
	leases *etcd.Leases
}

type entry struct {
	digest  digest
	expires time.Time
	done    chan error // buffered for the one result
}

// New returns a register. It adds its records to the mirror of state.AuthRoot.
func New(private *watched.Mirror, store *etcd.Store, log *slog.Logger, reg prometheus.Registerer) *Register {
	r := &Register{
		store: store.Urgent(), mirror: private, log: log, incoming: make(chan *entry, queue),
		used: make(map[digest]struct{}), perKey: make(map[[keyBytes]byte]int), leases: etcd.NewLeases(store, span),
		refused: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "mep_auth_replays_refused_total", Help: "Signatures that were refused because they had been used before.",
		}),
		batches: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "mep_auth_replay_batch_size", Help: "Signatures in a record.", Buckets: prometheus.ExponentialBuckets(1, 2, 11),
		}),
	}
	watched.Add(private, "signatures", state.PrefixReplays, decode).Observe(r.changed)
	reg.MustRegister(r.refused, r.batches, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "mep_auth_signatures_remembered", Help: "Signatures that will not be taken again.",
	}, func() float64 { return float64(r.len()) }))
	return r
}

func (r *Register) len() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.used)
}

// changed applies changes of the records of all processes.
func (r *Register) changed(c watched.Change[batch]) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if c.Old != nil {
		for _, d := range c.Old.Value {
			r.forget(d)
		}
	}
	if c.New != nil {
		for _, d := range c.New.Value {
			r.remember(d)
		}
	}
}

// remember and forget must be called with mu held.
func (r *Register) remember(d digest) {
	if _, known := r.used[d]; !known {
		r.used[d] = struct{}{}
		r.perKey[d.key()]++
	}
}

func (r *Register) forget(d digest) {
	if _, known := r.used[d]; !known {
		return
	}
	delete(r.used, d)
	if r.perKey[d.key()]--; r.perKey[d.key()] == 0 {
		delete(r.perKey, d.key())
	}
}

func (r *Register) add(list []*entry) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range list {
		r.remember(e.digest)
	}
}

// ErrUsed means that a signature was used before.
var ErrUsed = errs.New(errs.Unauthenticated, "the signature was used before: sign every request anew")

// Take records a signature of an access key. It returns ErrUsed when the signature was used before, or an error of the kinds
// of etcd.Store.Txn when that is unknown; the signature must then not be accepted.
func (r *Register) Take(ctx context.Context, accessKeyID string, signature []byte, expires time.Time) error {
	e := &entry{digest: digestOf(accessKeyID, signature), expires: expires, done: make(chan error, 1)}
	select {
	case r.incoming <- e:
	default:
		return errs.New(errs.Unavailable, "too many requests for tokens are waiting").After(time.Second)
	}
	select {
	case err := <-e.done:
		if errors.Is(err, ErrUsed) {
			r.refused.Inc()
		}
		return err
	case <-ctx.Done():
		return errs.Wrap(errs.Unavailable, ctx.Err(), "the request was given up").After(time.Second)
	}
}

// Run records signatures until ctx ends.
func (r *Register) Run(ctx context.Context) error {
	waiting := make([]*entry, 0, maxBatch)
	for {
		waiting = waiting[:0]
		select {
		case e := <-r.incoming:
			waiting = append(waiting, e)
		case <-ctx.Done():
			r.drain()
			return nil
		}
	gather:
		for len(waiting) < maxBatch {
			select {
			case e := <-r.incoming:
				waiting = append(waiting, e)
			default:
				break gather
			}
		}
		r.record(ctx, waiting)
	}
}

// drain fails the entries that will no longer be recorded.
func (r *Register) drain() {
	for {
		select {
		case e := <-r.incoming:
			e.done <- errs.New(errs.Unavailable, "the platform is stopping").After(time.Second)
		default:
			return
		}
	}
}

// fresh returns the entries that are new and fails the others: used before, twice in the list, or over MaxPerKey.
func (r *Register) fresh(list []*entry) []*entry {
	r.mu.Lock()
	defer r.mu.Unlock()
	kept := list[:0]
	seen := make(map[digest]struct{}, len(list))
	for _, e := range list {
		_, used := r.used[e.digest]
		_, twice := seen[e.digest]
		if used || twice {
			e.done <- ErrUsed
			continue
		}
		if r.perKey[e.digest.key()] >= MaxPerKey {
			e.done <- errs.New(errs.TooManyRequests, "the access key has signed too many requests: keep a token until shortly before it expires").After(span)
			continue
		}
		seen[e.digest] = struct{}{}
		kept = append(kept, e)
	}
	return kept
}

// record records the entries that are new, and answers all of them.
func (r *Register) record(ctx context.Context, list []*entry) {
	if r.len()+len(list) > MaxSignatures {
		r.answer(list, errs.New(errs.Unavailable, "too many signatures are remembered: ask with the secret itself, or later").After(span))
		return
	}
	for range maxTries {
		if list = r.fresh(list); len(list) == 0 {
			return
		}
		done, err := r.commit(ctx, list)
		switch {
		case r.leases.Lost(err):
		case err != nil:
			r.answer(list, err)
			return
		case done:
			r.batches.Observe(float64(len(list)))
			r.add(list)
			r.answer(list, nil)
			return
		}
	}
	r.answer(list, errs.New(errs.Unavailable, "other replicas keep coming first: try again").After(time.Second))
}

func (r *Register) answer(list []*entry, err error) {
	if err != nil {
		if _, ok := errors.AsType[*errs.Error](err); !ok {
			r.log.Error("signatures could not be recorded", "error", err)
			err = errs.Wrap(errs.Unavailable, err, "the platform's store does not answer at present").After(time.Second)
		}
	}
	for _, e := range list {
		e.done <- err
	}
}

// commit writes a record, unless another process has written one that is not known here; then it waits until that one is.
func (r *Register) commit(ctx context.Context, list []*entry) (bool, error) {
	until := list[0].expires
	value := make([]byte, 0, len(list)*len(digest{}))
	for _, e := range list {
		value = append(value, e.digest[:]...)
		if e.expires.After(until) {
			until = e.expires
		}
	}
	lease, err := r.leases.Until(ctx, until)
	if err != nil {
		return false, err
	}
	resp, err := r.store.Txn(ctx,
		[]clientv3.Cmp{clientv3.Compare(clientv3.ModRevision(state.KeyReplayFence), "=", r.fence)},
		[]clientv3.Op{
			clientv3.OpPut(state.PrefixReplays+uuid.NewString(), string(value), clientv3.WithLease(lease)),
			clientv3.OpPut(state.KeyReplayFence, ""),
		},
		[]clientv3.Op{clientv3.OpGet(state.KeyReplayFence)})
	if err != nil {
		return false, err
	}
	if resp.Succeeded {
		r.fence = resp.Header.Revision
		return true, nil
	}
	fence := int64(0)
	if kvs := resp.Responses[0].GetResponseRange().Kvs; len(kvs) > 0 {
		fence = kvs[0].ModRevision
	}
	wait, cancel := context.WithTimeout(ctx, etcd.DefaultTimeout)
	defer cancel()
	if err := r.mirror.WaitRevision(wait, fence); err != nil {
		return false, etcd.Error(err)
	}
	r.fence = fence
	return false, nil
}
