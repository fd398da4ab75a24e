// Package spike lets calls through at an even pace.
//
// The calls of a consumer on a route get turns, one interval apart: at 10 calls per second, one every 100 milliseconds. A call that
// arrives when no turn is taken proceeds at once; one that arrives too early waits for the next free turn, as long as no more calls wait
// than the buffer has room for. However many calls arrive at a time, the upstream never gets two calls of a consumer within an interval.
//
// Memory does not grow with the number of pairs of route and consumer: only the most recently used pairs are remembered. Someone who can
// make up keys can cause pairs that no call waits for to be forgotten. All that is lost with a pair is when its next call is due, which
// is at most an interval ahead, so a flood of as many new keys as are remembered buys one early call. A pair that calls wait for is never
// forgotten; if that is true of all pairs, new ones are refused.
package spike

import (
	"container/list"
	"context"
	"hash/maphash"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/openmep/mep/api/gateway"
)

const (
	// DefaultKeys is the default number of pairs of route and consumer to remember.
	DefaultKeys = 65536
	// shards is the number of locks the pairs are spread over; a power of two.
	shards = 64
)

// Arrest gives calls their turns. Its methods may be called concurrently.
type Arrest struct {
	seed    maphash.Seed
	began   time.Time
	waiting atomic.Int64
	refused prometheus.Counter
	all     [shards]shard
}

// New returns an Arrest that remembers the given number of pairs, in less than 512 bytes each; 0 or less means DefaultKeys.
func New(keys int, reg prometheus.Registerer) *Arrest {
	if keys <= 0 {
		keys = DefaultKeys
	}
	a := &Arrest{
		seed: maphash.MakeSeed(), began: time.Now(),
		refused: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "mep_gateway_spike_refused_total", Help: "Calls that were refused because too many of the same consumer came at a time.",
		}),
	}
	for i := range a.all {
		a.all[i].most = max(1, keys/shards)
		a.all[i].known = make(map[pair]*queue)
		a.all[i].resting = list.New()
	}
	reg.MustRegister(a.refused, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "mep_gateway_spike_waiting", Help: "Calls that wait for their turn.",
	}, func() float64 { return float64(a.waiting.Load()) }))
	return a
}

// pair identifies a consumer on a route, whose calls share turns.
type pair struct{ route, consumer string }

// shard holds some of the pairs.
type shard struct {
	mu      sync.Mutex
	most    int
	known   map[pair]*queue
	resting *list.List // queues that no call waits in, most recently used first
	_       [64]byte   // keeps the locks of shards on separate cache lines
}

// Wait gives a call of a consumer on a route its turn and waits for it. If too many calls wait already, it returns false and how long it
// will be until there is room for one. If ctx ends before the turn comes, Wait returns the error of ctx, and another call can have the
// turn. A nil s lets every call through.
func (a *Arrest) Wait(ctx context.Context, route, consumer string, s *gateway.SpikeArrest) (ok bool, retryAfter time.Duration, err error) {
	if s == nil {
		return true, 0, nil
	}
	p := pair{route, consumer}
	sh := &a.all[maphash.Comparable(a.seed, p)%shards]
	now := time.Since(a.began)
	sh.mu.Lock()
	q := sh.queue(p, now)
	if q == nil {
		sh.mu.Unlock()
		a.refused.Inc()
		return false, time.Second, nil
	}
	turn, ok := q.take(now, interval(s), max(0, s.Buffer))
	switch {
	case !ok:
		sh.mu.Unlock()
		a.refused.Inc()
		return false, turn, nil
	case turn <= now:
		sh.mu.Unlock()
		return true, 0, nil
	}
	sh.wait(q)
	sh.mu.Unlock()
	a.waiting.Add(1)
	defer a.waiting.Add(-1)
	timer := time.NewTimer(turn - now)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
		err = ctx.Err()
	}
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if err != nil {
		q.giveBack(turn, time.Since(a.began))
	}
	sh.rest(q)
	return err == nil, 0, err
}

// interval returns the time between two calls.
func interval(s *gateway.SpikeArrest) time.Duration {
	unit := time.Second
	if s.Per == gateway.PerMinute {
		unit = time.Minute
	}
	return max(1, unit/time.Duration(max(1, s.Calls)))
}

// queue returns the queue of a pair, creating it if necessary; nil if there is no room for it.
func (sh *shard) queue(p pair, now time.Duration) *queue {
	if q, ok := sh.known[p]; ok {
		if q.place != nil {
			sh.resting.MoveToFront(q.place)
		}
		return q
	}
	if len(sh.known) >= sh.most {
		oldest := sh.resting.Back()
		if oldest == nil {
			return nil
		}
		delete(sh.known, sh.resting.Remove(oldest).(*queue).pair)
	}
	// Clone the strings so as not to retain what they are part of, such as a token.
	q := &queue{pair: pair{strings.Clone(p.route), strings.Clone(p.consumer)}, next: now}
	q.place = sh.resting.PushFront(q)
	sh.known[q.pair] = q
	return q
}

// wait and rest note that a call starts and stops waiting in a queue.
func (sh *shard) wait(q *queue) {
	if q.waiting++; q.place != nil {
		sh.resting.Remove(q.place)
		q.place = nil
	}
}

func (sh *shard) rest(q *queue) {
	if q.waiting--; q.waiting == 0 {
		q.place = sh.resting.PushFront(q)
	}
}
