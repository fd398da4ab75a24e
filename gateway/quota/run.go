package quota

import (
	"context"
	"sync"
	"time"
)

const (
	// round is the time between two looks at what is held.
	round = time.Second
	// stopTime bounds giving everything back at the end.
	stopTime = 3 * time.Second
	// idle is after what time a pair is forgotten of which nothing is held.
	idle = int64(10 * time.Minute)
)

// Run gives back what nobody asks for and forgets what is over, until ctx ends. Then it gives back everything, for which it takes
// three seconds at most; calls that are asked for after that are refused, or allowed, as when etcd is away. Its error is nil.
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

// sweep gives back what is idle and forgets what is over.
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

// dropped gives back what was held of an account that made room for another one.
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

// close gives back everything.
func (q *Quotas) close() {
	q.mu.Lock()
	q.closed = true
	q.mu.Unlock()
	timer := time.AfterFunc(stopTime, q.kill)
	defer timer.Stop()
	// What is under way has to end first: it may yet take something.
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
