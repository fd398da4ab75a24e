package stats

import (
	"maps"
	"slices"
	"time"

	"github.com/openmep/mep/api/state"
)

// partPairs is the maximum number of pairs in a part. With the longest names and the largest numbers, a part is below 256 KiB in etcd.
const partPairs = 128

// maxBuckets is how many buckets are kept until etcd takes them, some 25 MB.
const maxBuckets = 400_000

// block holds the counts of a span. It is kept until the span is over and the counts are in etcd.
type block struct {
	index map[pair]place
	parts []*part
}

type place struct{ part, pair int }

// part is the content of one record.
type part struct {
	key     string
	pairs   []state.CallPair
	version int // number of changes
	written int // the version in etcd
	// revision is the revision of the last write, 0 before the first.
	revision int64
}

// collect takes the counts since the last collection and adds them to the minute of that collection. This is exact, as there is always a
// collection at the end of a minute.
func (s *Stats) collect() {
	s.mu.Lock()
	defer s.mu.Unlock()
	at := s.since.UTC().Truncate(time.Minute)
	add := func(p pair, b state.CallBucket) { s.add(at, p, b) }
	current := s.current.Load()
	s.past.drain(add)
	current.drain(add)
	s.since = s.now()
	if hour := s.since.UTC().Truncate(time.Hour); !hour.Equal(s.hour) {
		s.hour, s.past = hour, current
		s.current.Store(newGeneration())
	}
	s.bound()
}

// add adds counts to a minute. The caller holds mu.
func (s *Stats) add(minute time.Time, p pair, sum state.CallBucket) {
	start := minute.Truncate(span)
	b := s.blocks[start.Unix()]
	if b == nil {
		b = &block{index: make(map[pair]place)}
		s.blocks[start.Unix()] = b
	}
	at, known := b.index[p]
	if !known {
		if n := len(b.parts); n == 0 || len(b.parts[n-1].pairs) == partPairs {
			b.parts = append(b.parts, &part{key: state.StatisticsKey(start.Truncate(time.Hour), s.replica, s.parts)})
			s.parts++
		}
		last := len(b.parts) - 1
		at = place{last, len(b.parts[last].pairs)}
		b.index[p] = at
		b.parts[last].pairs = append(b.parts[last].pairs, state.CallPair{Service: p.service, Consumer: p.consumer})
	}
	pt := b.parts[at.part]
	pt.version++
	buckets := &pt.pairs[at.pair].Buckets
	sum.Minute = minute.Minute()
	i, found := slices.BinarySearchFunc(*buckets, sum.Minute, func(b state.CallBucket, minute int) int { return b.Minute - minute })
	if found {
		(*buckets)[i].Add(sum)
		return
	}
	*buckets = slices.Insert(*buckets, i, sum)
	s.buckets++
}

// bound drops the oldest blocks if too much waits for etcd. The caller holds mu.
func (s *Stats) bound() {
	for s.buckets > s.mostHeld && len(s.blocks) > 1 {
		oldest := slices.Min(slices.Collect(maps.Keys(s.blocks)))
		lost := int64(0)
		for _, p := range s.blocks[oldest].parts {
			if p.version == p.written {
				continue
			}
			for i := range p.pairs {
				for _, b := range p.pairs[i].Buckets {
					lost += b.Calls
				}
			}
		}
		s.drop(oldest)
		s.metrics.lost.Add(float64(lost))
		s.log.Warn("call statistics lost: the store was away for too long", "of", time.Unix(oldest, 0).UTC(), "calls", lost)
	}
}

// drop forgets a block. The caller holds mu.
func (s *Stats) drop(start int64) {
	for _, p := range s.blocks[start].parts {
		for i := range p.pairs {
			s.buckets -= len(p.pairs[i].Buckets)
		}
	}
	delete(s.blocks, start)
}

// settle forgets blocks that are over and that both etcd and the mirror have.
func (s *Stats) settle() {
	s.mu.Lock()
	defer s.mu.Unlock()
	reached := s.mirror.Revision()
	present := s.since.UTC().Truncate(span).Unix()
	for start, b := range s.blocks {
		if start != present && !slices.ContainsFunc(b.parts, func(p *part) bool { return p.version != p.written || p.revision > reached }) {
			s.drop(start)
		}
	}
}

// unwritten returns how many parts differ from their records in etcd.
func (s *Stats) unwritten() float64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, b := range s.blocks {
		for _, p := range b.parts {
			if p.version != p.written {
				n++
			}
		}
	}
	return float64(n)
}
