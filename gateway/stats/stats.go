// Package stats counts the calls of every consumer to every service and keeps the counts in etcd for a week: by the minute, and summed by
// the hour and the day.
//
// Each replica writes its counts to records that all replicas watch; records of the last hours have counts by the minute. Later the records
// are folded: each keeps one sum, and its minutes move to keys that are not watched and are read only on demand.
package stats

import (
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/openmep/mep/api/state"
	"github.com/openmep/mep/kit/etcd"
	"github.com/openmep/mep/kit/watched"
)

// MaxPairs is how many pairs of service and consumer a replica counts separately in an hour. Calls of further consumers count as calls of
// state.Others and, if there are too many services as well, as calls to state.Others.
const MaxPairs = 4096

const (
	// interval is how often counts are written.
	interval = 10 * time.Second
	// span is the length of the parts of an hour: each part is rewritten as long as its span lasts.
	span = 10 * time.Minute
	// keepRecent is how long records keep minutes; keep is how long counts are kept at all: at least seven whole days.
	keepRecent = 2 * time.Hour
	keep       = 8 * 24 * time.Hour
)

// Outcome is the result of a call.
type Outcome struct {
	// Status is the status of the response, 0 if there was none.
	Status int
	// Refused says that the gateway itself answered.
	Refused bool
	// Took is how long the call took; Bytes is the length of the response body.
	Took  time.Duration
	Bytes int64
}

// Stats counts calls.
type Stats struct {
	store   *etcd.Store
	mirror  *watched.Mirror
	records *watched.Collection[state.PackedStatistics]
	log     *slog.Logger
	metrics *metrics
	now     func() time.Time
	// replica identifies this process and no other, not even the same one after a restart: what it wrote before must stay.
	replica string

	current atomic.Pointer[generation]

	mu       sync.Mutex
	past     *generation // of the previous hour; a concurrent Count may still add to it
	hour     time.Time   // of current
	since    time.Time   // the last collection; calls not collected yet ended after it
	blocks   map[int64]*block
	parts    int // the number of parts ever created
	buckets  int // in blocks
	mostHeld int // limit of buckets

	turn chan struct{} // semaphore: one query at a time reads minutes from etcd

	// Only Run uses the fields below.
	failing bool
	sweeper sweeper
	// room is how many bytes older minutes and records may each take; mostKept is the value of room when etcd has enough.
	room, mostKept int64
	tight          bool      // counts are being removed before their time
	cleared        time.Time // minutes before this time have been removed
}

// New returns the statistics of a replica and adds their collection to the mirror, which must not be running yet. It registers the
// metrics with reg, unless reg is nil.
func New(store *etcd.Store, m *watched.Mirror, replica string, log *slog.Logger, reg prometheus.Registerer) *Stats {
	return newStats(store, m, replica, log, reg, time.Now)
}

func newStats(store *etcd.Store, m *watched.Mirror, replica string, log *slog.Logger, reg prometheus.Registerer, now func() time.Time) *Stats {
	s := &Stats{
		store: store, mirror: m, log: log, metrics: newMetrics(), now: now,
		replica:  fmt.Sprintf("%s-%08x", replica, rand.Uint32()),
		past:     newGeneration(),
		since:    now(),
		blocks:   make(map[int64]*block),
		mostHeld: maxBuckets,
		sweeper:  sweeper{wait: sweepEvery},
		room:     maxRoom,
		mostKept: maxRoom,
		turn:     make(chan struct{}, 1),
		records: watched.Add(m, "statistics", state.PrefixStatistics, func(_ string, value []byte, _ int64) (state.PackedStatistics, error) {
			return state.Decode[state.PackedStatistics](value)
		}),
	}
	s.hour = s.since.UTC().Truncate(time.Hour)
	s.current.Store(newGeneration())
	s.metrics.register(reg, func() float64 { return float64(s.current.Load().apart.Load()) }, s.unwritten)
	return s
}

// Count counts a call that has ended. An empty consumer counts as state.Anonymous.
func (s *Stats) Count(service, consumer string, o Outcome) {
	if consumer == "" {
		consumer = state.Anonymous
	}
	s.current.Load().find(service, consumer).add(o)
}
