// Package stats counts the calls of every consumer to every service and keeps the counts in etcd for a week: by the minute, and added up
// by the hour and the day.
//
// What a replica counts it writes to records that all of them watch, of the last hours by the minute. Later they are folded: the record
// keeps one sum, and the minutes go to where they are read only when somebody asks for them.
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

// MaxPairs is how many pairs of service and consumer a replica counts apart in an hour. The calls of further consumers count as those of
// state.Others, and when there are too many services as well, as calls to that.
const MaxPairs = 4096

const (
	// interval is how often counts are written.
	interval = 10 * time.Second
	// span is how much time the parts of one hour are for: a part is written anew as long as it lasts.
	span = 10 * time.Minute
	// keepRecent is how long records have minutes, keep how long counts are kept at all: seven whole days.
	keepRecent = 2 * time.Hour
	keep       = 8 * 24 * time.Hour
)

// Outcome is what became of a call.
type Outcome struct {
	// Status is that of the answer, 0 when there was none.
	Status int
	// Refused says that the gateway answered by itself.
	Refused bool
	// Took is how long the call took, Bytes what was answered.
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
	// replica names this process and no other one, nor the same after a restart: what it wrote before stays.
	replica string

	current atomic.Pointer[generation]

	mu       sync.Mutex
	past     *generation // what calls may still be counted in that began before the hour
	hour     time.Time   // of current
	since    time.Time   // calls not collected yet ended after it
	blocks   map[int64]*block
	parts    int // how many there were, ever
	buckets  int // in blocks
	mostHeld int // of buckets

	turn chan struct{} // has room for the one who reads minutes from etcd

	// The fields below belong to Run.
	failing bool
	sweeper sweeper
	// room is how many bytes minutes that are not recent, and records, may take each; mostKept what that is when etcd has enough.
	room, mostKept int64
	tight          bool      // something is removed before its time
	cleared        time.Time // up to when minutes were removed
}

// New makes the statistics of a replica and adds their collection to the mirror, which is not to run yet. reg takes the metrics,
// unless it is nil.
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

// Count counts a call that ended. An empty consumer counts as state.Anonymous.
func (s *Stats) Count(service, consumer string, o Outcome) {
	if consumer == "" {
		consumer = state.Anonymous
	}
	s.current.Load().find(service, consumer).add(o)
}
