package stats

import (
	"context"
	"slices"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/openmep/mep/api/state"
)

// lastWrite is how long the last write may take.
const lastWrite = 5 * time.Second

// Run writes the counts every ten seconds and when ctx ends, and folds and removes old records. Counts not written yet are lost if the
// process is killed. Run always returns nil.
func (s *Stats) Run(ctx context.Context) error {
	// Writes coincide with the ends of minutes.
	next := func() time.Duration {
		now := s.now()
		return now.Truncate(interval).Add(interval).Sub(now)
	}
	timer := time.NewTimer(next())
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
			s.tick(ctx)
			timer.Reset(next())
		case <-ctx.Done():
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastWrite)
			defer cancel()
			s.collect()
			s.write(ctx)
			return nil
		}
	}
}

// tick does the work of every ten seconds.
func (s *Stats) tick(ctx context.Context) {
	s.collect()
	s.write(ctx)
	s.settle()
	s.sweep(ctx)
}

// write writes the parts that changed. Parts that cannot be written are kept and written later: a record contains all that was ever
// counted in it, so it does not matter which earlier writes succeeded.
func (s *Stats) write(ctx context.Context) {
	for _, p := range s.changed() {
		s.mu.Lock()
		version := p.version
		packed, err := (&state.CallStatistics{Pairs: p.pairs}).Pack()
		s.mu.Unlock()
		var value string
		if err == nil {
			value, err = state.Encode(packed)
		}
		var resp clientv3.OpResponse
		if err == nil {
			resp, err = s.store.Do(ctx, clientv3.OpPut(p.key, value))
		}
		s.tell(err)
		if err != nil {
			return // the other writes would take as long, in vain
		}
		s.mu.Lock()
		p.written, p.revision = version, resp.Put().Header.Revision
		s.mu.Unlock()
	}
}

// changed returns the parts that differ from their records in etcd, oldest first.
func (s *Stats) changed() []*part {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []*part
	for _, b := range s.blocks {
		for _, p := range b.parts {
			if p.version != p.written {
				list = append(list, p)
			}
		}
	}
	slices.SortFunc(list, func(a, b *part) int { return strings.Compare(a.key, b.key) })
	return list
}

// tell counts a write, and logs when writes start to fail and when they work again.
func (s *Stats) tell(err error) {
	result := "success"
	if err != nil {
		result = "failed"
	}
	s.metrics.writes.WithLabelValues(result).Inc()
	switch {
	case err != nil && !s.failing:
		s.log.Warn("call statistics cannot be written, and are kept", "error", err)
	case err == nil && s.failing:
		s.log.Info("call statistics are written again")
	}
	s.failing = err != nil
}
