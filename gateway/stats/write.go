package stats

import (
	"context"
	"slices"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/openmep/mep/api/state"
	"github.com/openmep/mep/kit/watched"
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

const (
	// sweepEvery is every how many writes what is old is looked for, and steady after how many when the clock was set: it is not to be
	// trusted at once with what to remove.
	sweepEvery = 30
	steady     = 360
	// jump is how far apart writes may be without anybody having set the clock.
	jump = 10 * time.Minute
	// foldOthers is how much longer is waited before records of other replicas are folded.
	foldOthers = time.Hour
	// maxFolds is how many records are folded at a time.
	maxFolds = 200
)

// sweeper says when what is old is looked for.
type sweeper struct {
	last time.Time
	wait int // how many writes until then
}

// due notes a write and reports whether what is old is to be looked for.
func (w *sweeper) due(now time.Time) bool {
	if passed := now.Sub(w.last); !w.last.IsZero() && (passed < -jump || passed > jump) {
		w.wait = steady
	}
	w.last = now
	if w.wait--; w.wait > 0 {
		return false
	}
	w.wait = sweepEvery
	return true
}

// sweep folds records of more than a day ago, and removes those of more than a week ago. Every replica does it, for all.
func (s *Stats) sweep(ctx context.Context) {
	select {
	case <-s.mirror.Ready():
	default:
		return
	}
	now := s.now()
	if !s.sweeper.due(now) || !s.mirror.Status().Connected {
		return
	}
	s.remove(ctx, now.Add(-keep))
	folds := 0
	for item := range s.records.Snapshot().All() {
		hour, replica, err := state.SplitStatisticsKey(item.Key)
		if err != nil || item.Value.Folded {
			continue
		}
		age := now.Sub(hour.Add(time.Hour))
		if age < keepMinutes {
			return
		}
		if replica != s.replica && age < keepMinutes+foldOthers {
			continue
		}
		minutes, err := item.Value.Unpack()
		if err != nil {
			continue // it goes when it is a week old
		}
		if folds++; folds > maxFolds || !s.fold(ctx, item, minutes.Fold()) {
			return
		}
	}
}

// remove removes what is older than an hour that was.
func (s *Stats) remove(ctx context.Context, before time.Time) {
	end := state.StatisticsHour(before.UTC().Truncate(time.Hour))
	stale := 0
	for item := range s.records.Snapshot().All() {
		if item.Key >= end {
			break
		}
		stale++
	}
	if stale == 0 {
		return
	}
	resp, err := s.store.Do(ctx, clientv3.OpDelete(state.PrefixStatistics, clientv3.WithRange(end)))
	if err != nil {
		s.log.Warn("old call statistics were not removed", "error", err)
		return
	}
	s.metrics.swept.WithLabelValues("removed").Add(float64(resp.Del().Deleted))
}

// fold writes a record by the hour, unless it was changed since. It reports whether there is a point in going on.
func (s *Stats) fold(ctx context.Context, item *watched.Item[state.PackedStatistics], folded state.CallStatistics) bool {
	packed, err := folded.Pack()
	var value string
	if err == nil {
		value, err = state.Encode(packed)
	}
	if err == nil {
		var resp *clientv3.TxnResponse
		resp, err = s.store.Txn(ctx, []clientv3.Cmp{item.Unchanged()}, []clientv3.Op{clientv3.OpPut(item.Key, value)}, nil)
		if err == nil && resp.Succeeded {
			s.metrics.swept.WithLabelValues("folded").Inc()
		}
	}
	if err != nil {
		s.log.Warn("call statistics were not folded", "key", item.Key, "error", err)
	}
	return err == nil
}
