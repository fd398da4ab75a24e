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

// maxOthers is how many services may have consumers that are not counted separately.
const maxOthers = 256

// pair is the key that calls are counted by.
type pair struct{ service, consumer string }

// generation holds the pairs of about an hour and their counts. Finding a known pair takes no lock.
type generation struct {
	shards [16]shard
	apart  atomic.Int64 // pairs counted separately
	others atomic.Int64 // services with a pair for state.Others
}

// shard holds some of the pairs. The map is replaced when a pair is added.
type shard struct {
	known atomic.Pointer[map[pair]*counters]
	mu    sync.Mutex
	_     [48]byte // keeps shards on separate cache lines
}

func newGeneration() *generation {
	g := &generation{}
	for i := range g.shards {
		g.shards[i].known.Store(&map[pair]*counters{})
	}
	return g
}

// find returns the counts of a pair, or of the pair it is counted as.
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

// shard returns the shard of a pair. Consumer ids end in a random digit.
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

// insert returns the counts of a pair, creating them if necessary. If count has reached most, it returns nil instead of creating them.
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
	// Clone the names so as not to retain the request they are part of.
	p = pair{strings.Clone(p.service), strings.Clone(p.consumer)}
	next := maps.Clone(known)
	next[p] = c
	s.known.Store(&next)
	return c
}

// drain takes all counts, always in the same order, so that the records of successive spans have the same pairs.
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

// stripes is how many places each count is spread over, so that processors do not wait for each other; a power of two.
var stripes = func() int {
	n := 1
	for n < min(8, runtime.GOMAXPROCS(0)) {
		n *= 2
	}
	return n
}()

// counters holds the counts of a pair since they were last taken.
type counters struct{ stripes []stripe }

type stripe struct {
	calls, refused, failed, micros, bytes atomic.Int64
	_                                     [24]byte // fills a cache line
}

// The most that one call adds, so that no sum overflows.
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
