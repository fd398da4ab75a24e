package quota

import (
	"context"
	"sync"
	"time"
)

const (
	// round is the interval between sweeps.
	round = time.Second
	// stopTime limits how long giving everything back may take when Run ends.
	stopTime = 3 * time.Second
	// idle is how long a pair that holds nothing must be unused before it is forgotten.
	idle = int64(10 * time.Minute)
)

// Run gives back calls that nobody asks for, and forgets ended windows and idle pairs, until ctx ends. It then gives everything back, which
// takes three seconds at most; from then on, Take refuses or allows calls as it does while etcd is unavailable. Run returns nil.
func (q *Quotas) Run(ctx context.Context) error {
	ticker := time.NewTicker(round)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			q.sweep()
		case <-ctx.Done():
			q.close()
			return nil
		}
	}
}

// sweep gives back calls that nobody asks for, and forgets ended windows and idle pairs.
func (q *Quotas) sweep() {
	now, mono := q.clock.now()
	q.accounts.each(func(a *account) (keep bool) {
		for k, w := range a.windows {
			switch {
			case w == nil:
			case now >= w.end && w.busy == nil:
				a.windows[k] = nil
			default:
				rest := mono - w.used
				if w.busy == nil && w.held+w.back > 0 && rest >= w.kind.linger() {
					q.begin(a, w, mono, true)
				}
				keep = keep || w.busy != nil || w.held+w.back > 0 || rest < idle
			}
		}
		return keep
	})
}

// dropped gives back what an evicted account held.
func (q *Quotas) dropped(a *account) {
	now, mono := q.clock.now()
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, w := range a.windows {
		if w == nil || w.busy != nil || now >= w.end || w.held+w.back == 0 {
			continue
		}
		if q.begin(a, w, mono, true); w.busy == nil {
			q.lose(w)
		}
	}
	q.metrics.dropped.Inc()
}

// close gives everything back.
func (q *Quotas) close() {
	q.mu.Lock()
	q.closed = true
	q.mu.Unlock()
	timer := time.AfterFunc(stopTime, q.kill)
	defer timer.Stop()
	// Transactions in flight must end first: they may still take calls.
	q.working.Wait()
	_, mono := q.clock.now()
	var giving sync.WaitGroup
	q.accounts.each(func(a *account) bool {
		for _, w := range a.windows {
			if w != nil && w.busy == nil && w.held+w.back > 0 {
				q.beginIn(&giving, a, w, mono, true)
			}
		}
		return true
	})
	giving.Wait()
	q.kill()
}
