package stats

import (
	"context"
	"time"
)

const (
	// sweepEvery is the number of writes between sweeps. steady is the number of writes until the next sweep once the clock has been set,
	// as it must not be trusted at once with what to remove.
	sweepEvery = 30
	steady     = 360
	// jump is how far apart writes may be without a suspicion that the clock was set.
	jump = 10 * time.Minute
	// foldOthers is how much longer a replica waits before it folds records of other replicas.
	foldOthers = time.Hour
	// maxFolds is the maximum number of records folded at a time.
	maxFolds = 200
)

// sweeper decides when to sweep.
type sweeper struct {
	last time.Time
	wait int // writes until the next sweep
}

// due notes a write and reports whether to sweep.
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

// sweep folds records older than two hours, and removes those older than a week or for want of room. Every replica does so, for all.
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
	s.makeRoom(ctx, now)
	for _, group := range s.unfolded(now) {
		if !s.fold(ctx, group) {
			return
		}
	}
}
