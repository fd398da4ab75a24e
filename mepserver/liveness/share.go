package liveness

import (
	"context"
	"log/slog"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/openmep/mep/api/state"
	"github.com/openmep/mep/kit/etcd"
	"github.com/openmep/mep/kit/presence"
	"github.com/openmep/mep/kit/watched"
)

// share passes the heartbeats received here on to the other processes of the cluster: at most one write per second,
// whatever the number of heartbeats, and none when there is no other process.
type share struct {
	store   *etcd.Store
	self    string
	present *presence.Presence
	members *watched.Collection[struct{}]
	log     *slog.Logger

	mu    sync.Mutex
	noted map[string]int64
}

const shareInterval = time.Second

// Share makes the monitor exchange heartbeats with the other members of a cluster. Call it before the mirror runs, and
// run the returned worker.
func (m *Monitor) Share(mirror *watched.Mirror, store *etcd.Store, present *presence.Presence, self, membersPrefix string,
) func(context.Context) error {
	s := &share{store: store, self: self, present: present, log: m.log, noted: make(map[string]int64)}
	s.members = watched.Add(mirror, "members", membersPrefix, func(string, []byte, int64) (struct{}, error) {
		return struct{}{}, nil
	})
	beats := watched.Add(mirror, "heartbeats", state.PrefixHeartbeats, func(_ string, value []byte, _ int64) (state.Heartbeats, error) {
		return state.Decode[state.Heartbeats](value)
	})
	beats.Observe(func(c watched.Change[state.Heartbeats]) {
		if c.New == nil || c.Key == state.PrefixHeartbeats+self {
			return
		}
		// The sender's clock may differ, so the time of arrival counts.
		now := time.Now()
		for id := range c.New.Value.Beats {
			m.tracker.heard(id, now)
		}
	})
	m.share = s
	return s.run
}

func (s *share) note(id string, at time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.noted[id] = at.UnixMilli()
}

// keep puts back heartbeats that could not be shared, for the next attempt.
func (s *share) keep(beats map[string]int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, at := range beats {
		if _, later := s.noted[id]; !later {
			s.noted[id] = at
		}
	}
}

func (s *share) run(ctx context.Context) error {
	tick := time.NewTicker(shareInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		s.mu.Lock()
		beats := s.noted
		s.noted = make(map[string]int64)
		s.mu.Unlock()
		if len(beats) == 0 || s.members.Snapshot().Len() < 2 {
			continue
		}
		lease := s.present.Lease()
		if lease == 0 {
			s.keep(beats)
			continue
		}
		value, err := state.Encode(state.Heartbeats{Version: state.Current(), Beats: beats})
		if err == nil {
			_, err = s.store.Do(ctx, clientv3.OpPut(state.PrefixHeartbeats+s.self, value, clientv3.WithLease(lease)))
		}
		if err != nil {
			s.keep(beats)
		}
		if err != nil && ctx.Err() == nil {
			s.log.Warn("heartbeats not shared with the other members", "heartbeats", len(beats), "error", err)
		}
	}
}
