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
	// maxTransactions is how many transactions there are at a time, maxPending how many there are or wait for their turn.
	maxTransactions = 128
	maxPending      = 1 << 14
	// maxTries bounds how often a transaction is tried that others come before.
	maxTries = 16
)

// begin begins the transaction of a window, unless etcd is away or too many are under way. With give everything is given back,
// otherwise there will be calls at hand. The lock of the account is held, and the window has no transaction under way. probe says that
// it finds out whether etcd answers again.
func (q *Quotas) begin(a *account, w *window, mono int64, give bool) (probe bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed || q.pending.Load() >= maxPending {
		return false
	}
	return q.beginIn(&q.working, a, w, mono, give)
}

// beginIn is begin for a group of transactions somebody waits for.
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

// work runs the transaction of a window, and one that gives back when the account was forgotten meanwhile.
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

// guarded runs a transaction unless etcd went away while it waited for its turn, and says how it ended.
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

// lose gives up what a window holds. The lock of the account is held.
func (q *Quotas) lose(w *window) {
	q.metrics.lost.Add(float64(w.held + w.back))
	w.held, w.back = 0, 0
}

// record is what stands in etcd: how many calls were taken, and the revision of the key, 0 when there is none.
type record struct{ revision, taken int64 }

// plan is what one transaction is to change.
type plan struct {
	seen       record
	limit      int64
	back, take int64
	now, mono  int64
	spent      int64
}

// exchange gives back what a window has to give back, or all it holds, and otherwise takes what it should have at hand.
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

// plan says what to change of a record as it was seen.
func (q *Quotas) plan(a *account, w *window, seen record, give bool) plan {
	replicas := int64(max(1, q.replicas()))
	now, mono := q.clock.now()
	a.mu.Lock()
	defer a.mu.Unlock()
	p := plan{limit: w.limit, now: now, mono: mono, spent: w.spent}
	// A record that vanished, or came from a backup, is mended with what is known here.
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

// settle takes in how a transaction ended.
func (q *Quotas) settle(a *account, w *window, p plan, after record, done bool, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case err != nil:
		// It may have been made all the same, or be made yet: neither what was to be taken nor what was to be given back is there.
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

// commit runs one transaction. It returns the record after it, or the record as it is when another replica came first.
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

// read reads a record.
func (q *Quotas) read(ctx context.Context, key string) (record, error) {
	resp, err := q.store.Do(ctx, clientv3.OpGet(key))
	if err != nil {
		return record{}, err
	}
	return decode(resp.Get())
}

// decode takes a record out of an answer.
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
