// Package replay takes every signature once.
//
// What was taken stands in etcd until it could not be used any more, so that neither a restart nor another replica takes it
// again. One transaction records as many signatures as are waiting: a transaction for each would limit the rate of
// tokens to that of etcd.
package replay

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/openmep/mep/api/state"
	"github.com/openmep/mep/kit/errs"
	"github.com/openmep/mep/kit/etcd"
)

const (
	// maxBatch is how many signatures one transaction records; etcd takes 128 operations.
	maxBatch = 120
	// queue is how many may wait.
	queue = 4096
	// span is how far the ends of signatures that share a lease may be apart.
	span = 5 * time.Minute
	// workers record side by side, so that one prepares while the other waits for the disk.
	workers = 2
)

// Register remembers signatures.
type Register struct {
	store    *etcd.Store
	log      *slog.Logger
	incoming chan *entry
	refused  prometheus.Counter
	batches  prometheus.Histogram
	now      func() time.Time
}

type entry struct {
	key     string
	expires time.Time
	done    chan error // has room for the one answer
}

// New makes a register.
func New(store *etcd.Store, log *slog.Logger, reg prometheus.Registerer) *Register {
	r := &Register{
		store: store, log: log, incoming: make(chan *entry, queue), now: time.Now,
		refused: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "mep_auth_replays_refused_total", Help: "Signatures that were refused because they had been used before.",
		}),
		batches: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "mep_auth_replay_batch_size", Help: "Signatures recorded by one transaction.", Buckets: prometheus.ExponentialBuckets(1, 2, 8),
		}),
	}
	reg.MustRegister(r.refused, r.batches)
	return r
}

// ErrUsed says that a signature was taken before.
var ErrUsed = errs.New(errs.Unauthenticated, "the signature was used before: sign every request anew")

// Take records a signature of an access key. It returns ErrUsed when it was taken before, or an error of the kinds of
// etcd.Store.Txn when that cannot be known; then the signature must not be accepted.
func (r *Register) Take(ctx context.Context, accessKeyID string, signature []byte, expires time.Time) error {
	h := sha256.New()
	_, _ = h.Write([]byte(accessKeyID))
	_, _ = h.Write([]byte{0})
	_, _ = h.Write(signature)
	var sum [sha256.Size]byte
	e := &entry{
		key: state.PrefixReplays + base64.RawURLEncoding.EncodeToString(h.Sum(sum[:0])[:16]), expires: expires,
		done: make(chan error, 1),
	}
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

// Run records signatures until the context ends.
func (r *Register) Run(ctx context.Context) error {
	done := make(chan struct{})
	for range workers {
		go func() {
			w := &worker{Register: r, leases: make(map[int64]clientv3.LeaseID)}
			w.run(ctx)
			done <- struct{}{}
		}()
	}
	for range workers {
		<-done
	}
	return nil
}

type worker struct {
	*Register
	leases map[int64]clientv3.LeaseID // by the end of their span
}

func (w *worker) run(ctx context.Context) {
	batch := make([]*entry, 0, maxBatch)
	for {
		batch = batch[:0]
		select {
		case e := <-w.incoming:
			batch = append(batch, e)
		case <-ctx.Done():
			w.drain()
			return
		}
	gather:
		for len(batch) < maxBatch {
			select {
			case e := <-w.incoming:
				batch = append(batch, e)
			default:
				break gather
			}
		}
		w.batches.Observe(float64(len(batch)))
		w.record(ctx, batch)
	}
}

// drain answers what nobody will record any more.
func (w *worker) drain() {
	for {
		select {
		case e := <-w.incoming:
			e.done <- errs.New(errs.Unavailable, "the platform is stopping").After(time.Second)
		default:
			return
		}
	}
}

// record takes a batch: all that are new in one transaction, or finds out which are not and tries again without those.
func (w *worker) record(ctx context.Context, batch []*entry) {
	seen := make(map[string]struct{}, len(batch))
	fresh := make([]*entry, 0, len(batch))
	for _, e := range batch {
		if _, twice := seen[e.key]; twice {
			e.done <- ErrUsed
			continue
		}
		seen[e.key] = struct{}{}
		fresh = append(fresh, e)
	}
	for tries := 0; len(fresh) > 0; tries++ {
		left, err := w.commit(ctx, fresh)
		switch {
		case errors.Is(err, rpctypes.ErrLeaseNotFound) && tries < 3:
			clear(w.leases) // they ended early: the clock jumped, or etcd was restored
		case err != nil:
			w.answer(fresh, err)
			return
		}
		fresh = left
	}
}

func (w *worker) answer(list []*entry, err error) {
	if _, ok := errors.AsType[*errs.Error](err); !ok {
		w.log.Error("signatures could not be recorded", "error", err)
		err = errs.Wrap(errs.Unavailable, err, "the platform's store does not answer at present").After(time.Second)
	}
	for _, e := range list {
		e.done <- err
	}
}

// commit runs one transaction and returns what is still to be recorded.
func (w *worker) commit(ctx context.Context, list []*entry) ([]*entry, error) {
	cmps := make([]clientv3.Cmp, len(list))
	puts, gets := make([]clientv3.Op, len(list)), make([]clientv3.Op, len(list))
	for i, e := range list {
		lease, err := w.lease(ctx, e.expires)
		if err != nil {
			return list, err
		}
		cmps[i] = clientv3.Compare(clientv3.CreateRevision(e.key), "=", 0)
		puts[i] = clientv3.OpPut(e.key, "", clientv3.WithLease(lease))
		gets[i] = clientv3.OpGet(e.key, clientv3.WithCountOnly())
	}
	resp, err := w.store.Txn(ctx, cmps, puts, gets)
	if err != nil {
		return list, err
	}
	if resp.Succeeded {
		for _, e := range list {
			e.done <- nil
		}
		return nil, nil
	}
	var left []*entry
	for i, e := range list {
		if resp.Responses[i].GetResponseRange().Count > 0 {
			e.done <- ErrUsed
		} else {
			left = append(left, e)
		}
	}
	return left, nil
}

// lease returns a lease that lasts until after the time.
func (w *worker) lease(ctx context.Context, until time.Time) (clientv3.LeaseID, error) {
	end := until.Unix()/int64(span/time.Second) + 1
	if id, ok := w.leases[end]; ok {
		return id, nil
	}
	now := w.now()
	for e := range w.leases {
		if e*int64(span/time.Second) < now.Unix() {
			delete(w.leases, e)
		}
	}
	ttl := time.Unix(end*int64(span/time.Second), 0).Sub(now) + span
	id, err := w.store.Grant(ctx, ttl)
	if err == nil {
		w.leases[end] = id
	}
	return id, err
}
