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

// Run writes what was counted every ten seconds and when ctx ends, and takes care of what is old. What it had not written yet is lost
// with a process that is killed. It returns nil.
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

// tick does what there is to do every ten seconds.
func (s *Stats) tick(ctx context.Context) {
	s.collect()
	s.write(ctx)
	s.settle()
	s.sweep(ctx)
}

// write writes the parts that changed. What cannot be written is kept and written later: a record has all that was ever counted in
// it, so that it does not matter which of the writes before arrived.
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
			return // the others would have to wait as long, and for nothing
		}
		s.mu.Lock()
		p.written, p.revision = version, resp.Put().Header.Revision
		s.mu.Unlock()
	}
}

// changed lists the parts that etcd does not have as they are, the oldest first.
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

// tell counts writes and logs when they begin to fail and when they work again.
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
