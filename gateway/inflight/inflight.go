// Package inflight counts the calls in flight.
//
// It uses memory only for these calls: a pair of route and consumer without any takes no memory.
package inflight

import (
	"hash/maphash"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
)

// pair identifies a consumer on a route, whose calls are counted together.
type pair struct{ route, consumer string }

// shards is the number of locks the pairs are spread over; a power of two.
const shards = 64

// Counts counts calls in flight. Its methods may be called concurrently.
type Counts struct {
	seed    maphash.Seed
	refused prometheus.Counter
	all     [shards]shard
}

type shard struct {
	mu    sync.Mutex
	calls map[pair]int
	_     [64]byte // keeps the locks of shards on separate cache lines
}

// New returns empty Counts.
func New(reg prometheus.Registerer) *Counts {
	c := &Counts{
		seed: maphash.MakeSeed(),
		refused: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "mep_gateway_concurrency_refused_total", Help: "Calls that were refused because too many of the same consumer were under way.",
		}),
	}
	for i := range c.all {
		c.all[i].calls = make(map[pair]int)
	}
	reg.MustRegister(c.refused, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "mep_gateway_concurrency_calls", Help: "Calls under way on routes that limit how many there may be.",
	}, c.sum))
	return c
}

// Place is the place of one call. Leave must be called once. The zero value is no place, and leaving it has no effect.
type Place struct {
	shard *shard
	pair  pair
}

// Enter takes a place for a call of a consumer on a route, unless most or more calls are in flight already. If most is less than 1, any
// number is allowed and nothing is counted.
func (c *Counts) Enter(route, consumer string, most int) (Place, bool) {
	if most < 1 {
		return Place{}, true
	}
	p := pair{route, consumer}
	s := c.shard(p)
	s.mu.Lock()
	n := s.calls[p]
	if n < most {
		s.calls[p] = n + 1
	}
	s.mu.Unlock()
	if n >= most {
		c.refused.Inc()
		return Place{}, false
	}
	return Place{shard: s, pair: p}, true
}

// Leave gives the place back.
func (p Place) Leave() {
	if p.shard == nil {
		return
	}
	p.shard.mu.Lock()
	defer p.shard.mu.Unlock()
	if n := p.shard.calls[p.pair]; n > 1 {
		p.shard.calls[p.pair] = n - 1
	} else {
		delete(p.shard.calls, p.pair)
	}
}

// Calls returns how many calls of a consumer on a route are in flight and counted.
func (c *Counts) Calls(route, consumer string) int {
	p := pair{route, consumer}
	s := c.shard(p)
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.calls[p]
}

func (c *Counts) shard(p pair) *shard { return &c.all[maphash.Comparable(c.seed, p)%shards] }

func (c *Counts) sum() float64 {
	sum := 0
	for i := range c.all {
		c.all[i].mu.Lock()
		for _, n := range c.all[i].calls {
			sum += n
		}
		c.all[i].mu.Unlock()
	}
	return float64(sum)
}
