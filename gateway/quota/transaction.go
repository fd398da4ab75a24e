package quota

import (
	"context"
	"fmt"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/openmep/mep/api/state"
)

const (
	// maxTransactions limits how many transactions run at a time; maxPending limits how many run or wait for their turn.
	maxTransactions = 128
	maxPending      = 1 << 14
	// maxTries limits the attempts at a transaction that loses to other replicas.
	maxTries = 16
)

// begin starts a transaction for w, unless q is closed, etcd is unavailable or too many transactions are pending. If give is set, the
// transaction gives everything back; otherwise it takes calls, so that some are at hand. The caller holds the lock of the account, and w
// has no transaction in flight. probe reports whether the transaction finds out if etcd answers again.
func (q *Quotas) begin(a *account, w *window, mono int64, give bool) (probe bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed || q.pending.Load() >= maxPending {
		return false
	}
	return q.beginIn(&q.working, a, w, mono, give)
}

// beginIn is begin for a group of transactions somebody waits for. It does not check whether q is closed or too many are pending.
func (q *Quotas) beginIn(group *sync.WaitGroup, a *account, w *window, mono int64, give bool) (probe bool) {
	ok, probe := q.circuit.enter(mono)
	if !ok {
		return false
	}
	w.busy = make(chan struct{})
	q.pending.Add(1)
	group.Go(func() {
		defer q.pending.Add(-1)
		q.tickets <- struct{}{}
		defer func() { <-q.tickets }()
		q.work(a, w, probe, give)
	})
	return probe
}

// work runs the transaction of a window. If the account was forgotten meanwhile, another transaction gives back what the window holds.
func (q *Quotas) work(a *account, w *window, probe, give bool) {
	for again := true; again; give = true {
		ok := q.guarded(a, w, probe, give)
		a.mu.Lock()
		again = ok && a.gone && !give && w.held+w.back > 0
		if !again {
			if a.gone {
				q.lose(w)
			}
			close(w.busy)
			w.busy, w.waiting = nil, 0
		}
		a.mu.Unlock()
	}
}

// guarded runs a transaction, unless etcd became unavailable while the transaction waited for its turn, and reports whether it succeeded.
func (q *Quotas) guarded(a *account, w *window, probe, give bool) (ok bool) {
	if q.circuit.open() && !probe {
		return false
	}
	err := q.exchange(a, w, give)
	_, mono := q.clock.now()
	switch changed := q.circuit.leave(err == nil, probe, mono); {
	case changed && err != nil:
		q.log.Warn("quotas cannot be counted in etcd", "error", err)
	case changed:
		q.log.Info("quotas are counted in etcd again")
	}
	return err == nil
}

// lose writes off what a window holds. The caller holds the lock of the account.
func (q *Quotas) lose(w *window) {
	q.metrics.lost.Add(float64(w.held + w.back))
	w.held, w.back = 0, 0
}

// record is the state in etcd: the number of calls taken, and the revision of the key, which is 0 if there is no key.
type record struct{ revision, taken int64 }

// plan is the change one transaction is to make.
type plan struct {
	seen       record
	limit      int64
	back, take int64
	now, mono  int64
	spent      int64
}

// exchange gives back the calls in w.back and takes as many as the window should have at hand. If give is set, it gives back all calls
// held and takes none.
func (q *Quotas) exchange(a *account, w *window, give bool) error {
	ctx, cancel := context.WithTimeout(q.alive, q.bound)
	defer cancel()
	key := state.QuotaKey(a.pair.route, a.pair.consumer, names[w.kind], time.Unix(0, w.start))
	a.mu.Lock()
	if give {
		w.back += w.held
		w.held = 0
	}
	seen, ask := record{w.revision, w.taken}, w.unsure || w.look != 0
	a.mu.Unlock()
	for range maxTries {
		if ask {
			var err error
			if seen, err = q.read(ctx, key); err != nil {
				q.metrics.transactions["failed"].Inc()
				return err
			}
		}
		p := q.plan(a, w, seen, give)
		if p.back+p.take == 0 {
			return nil
		}
		after, done, err := q.commit(ctx, key, w, p)
		q.settle(a, w, p, after, done, err)
		if done || err != nil {
			return err
		}
		seen, ask = after, false
	}
	return nil
}

// plan returns the change to make, given the record as last seen.
func (q *Quotas) plan(a *account, w *window, seen record, give bool) plan {
	replicas := int64(max(1, q.replicas()))
	now, mono := q.clock.now()
	a.mu.Lock()
	defer a.mu.Unlock()
	p := plan{limit: w.limit, now: now, mono: mono, spent: w.spent}
	// A record that vanished or was restored from a backup is repaired from what this replica knows.
	seen.taken = max(seen.taken, w.own())
	p.seen = seen
	w.revision, w.taken, w.unsure = seen.revision, seen.taken, false
	if now >= w.end {
		w.held, w.back, w.look = 0, 0, 0 // nothing carries over
		return p
	}
	p.back, w.back = w.back, 0
	free := p.limit - (seen.taken - p.back)
	w.look = 0
	if !give {
		w.level = w.aim(max(0, free), replicas, mono)
		p.take = max(0, min(w.level-w.held, free))
		if free <= 0 {
			w.look = mono + again
		}
	}
	return p
}

// settle applies the outcome of a transaction to the window.
func (q *Quotas) settle(a *account, w *window, p plan, after record, done bool, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case err != nil:
		// etcd may have committed the transaction, or may still do so: count both the calls taken and those given back as lost.
		w.unsure = true
		q.metrics.lost.Add(float64(p.back + p.take))
		q.metrics.transactions["failed"].Inc()
	case !done:
		w.back += p.back
		q.metrics.transactions["contended"].Inc()
	default:
		w.revision, w.taken = after.revision, after.taken
		w.mark, w.markedAt = p.spent, p.mono
		if w.limit < p.limit {
			w.back += p.take // the limit was lowered meanwhile
		} else {
			w.held += p.take
		}
		if p.take > 0 && after.taken >= p.limit && w.limit == p.limit {
			w.look = p.mono + again
		}
		q.metrics.transactions["done"].Inc()
	}
}

// commit runs one transaction. It returns the record after it or, if another replica came first, the current record.
func (q *Quotas) commit(ctx context.Context, key string, w *window, p plan) (after record, done bool, err error) {
	after.taken = p.seen.taken - p.back + p.take
	value, err := state.Encode(state.QuotaTaken{Version: state.Current(), Taken: after.taken, Limit: p.limit})
	if err != nil {
		return record{}, false, err
	}
	for range 2 {
		lease, err := q.leases.UntilAt(ctx, time.Unix(0, w.end), time.Unix(0, p.now))
		if err != nil {
			return record{}, false, err
		}
		resp, err := q.store.Txn(ctx, []clientv3.Cmp{clientv3.Compare(clientv3.ModRevision(key), "=", p.seen.revision)},
			[]clientv3.Op{clientv3.OpPut(key, value, clientv3.WithLease(lease))}, []clientv3.Op{clientv3.OpGet(key)})
		switch {
		case q.leases.Lost(err):
		case err != nil:
			return record{}, false, err
		case resp.Succeeded:
			after.revision = resp.Header.Revision
			return after, true, nil
		default:
			after, err = decode((*clientv3.GetResponse)(resp.Responses[0].GetResponseRange()))
			return after, false, err
		}
	}
	return record{}, false, fmt.Errorf("leases of quotas keep ending early")
}

// read returns the record of a key.
func (q *Quotas) read(ctx context.Context, key string) (record, error) {
	resp, err := q.store.Do(ctx, clientv3.OpGet(key))
	if err != nil {
		return record{}, err
	}
	return decode(resp.Get())
}

// decode returns the record in a response; the zero record if the response is empty.
func decode(resp *clientv3.GetResponse) (record, error) {
	if len(resp.Kvs) == 0 {
		return record{}, nil
	}
	kv := resp.Kvs[0]
	r, err := state.Decode[state.QuotaTaken](kv.Value)
	if err != nil {
		return record{}, fmt.Errorf("%s: %w", kv.Key, err)
	}
	return record{revision: kv.ModRevision, taken: max(0, r.Taken)}, nil
}
