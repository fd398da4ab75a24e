package stats

import (
	"cmp"
	"maps"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/openmep/mep/api/state"
	"github.com/openmep/mep/kit/jsonline"
)

// maxName is how many bytes of a name are kept.
const maxName = 256

// maxOthers is how many services may have consumers that are not counted apart.
const maxOthers = 256

// pair is what calls are counted by.
type pair struct{ service, consumer string }

// generation is the pairs of about an hour and their counts. Finding a pair that is known takes no lock.
type generation struct {
	shards [16]shard
	apart  atomic.Int64 // pairs that are counted apart
	others atomic.Int64 // services with others
}

// shard is some of the pairs. The map is replaced when there is another one.
type shard struct {
	known atomic.Pointer[map[pair]*counters]
	mu    sync.Mutex
	_     [48]byte // or neighbours would be slowed down by each other
}

func newGeneration() *generation {
	g := &generation{}
	for i := range g.shards {
		g.shards[i].known.Store(&map[pair]*counters{})
	}
	return g
}

// find returns the counts of a pair, or of what it counts as.
func (g *generation) find(service, consumer string) *counters {
	p := pair{service, consumer}
	if c, ok := (*g.shard(p).known.Load())[p]; ok {
		return c
	}
	p = pair{jsonline.Clip(service, maxName), jsonline.Clip(consumer, maxName)}
	if c := g.insert(p, &g.apart, MaxPairs); c != nil {
		return c
	}
	if c := g.insert(pair{p.service, state.Others}, &g.others, maxOthers); c != nil {
		return c
	}
	return g.insert(pair{state.Others, state.Others}, nil, 0)
}

// shard is where a pair is. Ids of consumers end in a random digit.
func (g *generation) shard(p pair) *shard {
	n := uint(len(p.service))
	if p.service != "" {
		n += uint(p.service[len(p.service)-1])
	}
	if p.consumer != "" {
		n += uint(p.consumer[len(p.consumer)-1])
	}
	return &g.shards[n%uint(len(g.shards))]
}

// insert returns the counts of a pair and makes them when there are none, unless that would be more than most of their kind.
func (g *generation) insert(p pair, count *atomic.Int64, most int64) *counters {
	s := g.shard(p)
	known := *s.known.Load()
	if c, ok := known[p]; ok {
		return c
	}
	if count != nil && count.Load() >= most {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	known = *s.known.Load()
	if c, ok := known[p]; ok {
		return c
	}
	if count != nil && count.Add(1) > most {
		count.Add(-1)
		return nil
	}
	c := &counters{stripes: make([]stripe, stripes)}
	// What the names are part of, a request, is not to be kept.
	p = pair{strings.Clone(p.service), strings.Clone(p.consumer)}
	next := maps.Clone(known)
	next[p] = c
	s.known.Store(&next)
	return c
}

// drain takes all counts away, in an order that is always the same: so that records of one span after the other are of the same pairs.
func (g *generation) drain(each func(pair, state.CallBucket)) {
	type count struct {
		of pair
		n  state.CallBucket
	}
	var counts []count
	for i := range g.shards {
		for p, c := range *g.shards[i].known.Load() {
			if b := c.take(); b != (state.CallBucket{}) {
				counts = append(counts, count{p, b})
			}
		}
	}
	slices.SortFunc(counts, func(a, b count) int {
		return cmp.Or(cmp.Compare(a.of.service, b.of.service), cmp.Compare(a.of.consumer, b.of.consumer))
	})
	for _, c := range counts {
		each(c.of, c.n)
	}
}

// stripes is over how many places each count is spread, so that processors do not wait for each other: a power of two.
var stripes = func() int {
	n := 1
	for n < min(8, runtime.GOMAXPROCS(0)) {
		n *= 2
	}
	return n
}()

// counters are the counts of a pair since they were last taken.
type counters struct{ stripes []stripe }

type stripe struct {
	calls, refused, failed, micros, bytes atomic.Int64
	_                                     [24]byte // a cache line each
}

// The most that one call adds, so that no sum runs over.
const (
	maxTook  = 366 * 24 * time.Hour
	maxBytes = 1 << 50
)

func (c *counters) add(o Outcome) {
	s := &c.stripes[0]
	if len(c.stripes) > 1 {
		s = &c.stripes[int(rand.Uint32())&(len(c.stripes)-1)]
	}
	s.calls.Add(1)
	switch {
	case o.Status >= 500:
		s.failed.Add(1)
	case o.Status >= 400 && o.Refused:
		s.refused.Add(1)
	}
	if o.Took > 0 {
		s.micros.Add(int64(min(o.Took, maxTook) / time.Microsecond))
	}
	if o.Bytes > 0 {
		s.bytes.Add(min(o.Bytes, maxBytes))
	}
}

func (c *counters) take() state.CallBucket {
	var sum state.CallBucket
	for i := range c.stripes {
		s := &c.stripes[i]
		sum.Add(state.CallBucket{
			Calls: s.calls.Swap(0), Refused: s.refused.Swap(0), Failed: s.failed.Swap(0), Micros: s.micros.Swap(0), Bytes: s.bytes.Swap(0),
		})
	}
	return sum
}
