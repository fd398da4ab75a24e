package stats

import (
	"context"
	"time"
)

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

// sweep folds records of more than two hours ago, and removes what is older than a week or too much. Every replica does it, for all.
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
