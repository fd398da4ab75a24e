package tenure

import (
	"context"
	"time"

	"github.com/openmep/mep/kit/errs"
)

// round is one pass over all calls.
type round struct {
	*verdict
	ended map[string]int
}

// round judges all calls.
func (t *Calls) round(ctx context.Context) {
	v := t.verdict(ctx)
	if v == nil {
		return
	}
	v.routes = t.routes.of(v.table)
	r := &round{verdict: v, ended: make(map[string]int)}
	var list []*stay
	first, spent := t.resume, false
	for i := range stripes {
		n := (first + i) % stripes
		list = t.all[n].copied(list[:0])
		for _, s := range list {
			if ctx.Err() != nil {
				return
			}
			if reason, err := r.judge(s); err != nil {
				r.end(s, reason, err)
			}
		}
		if !spent && r.spent >= looks {
			t.resume, spent = n, true
		}
	}
	t.routes = v.routes
	t.metrics.took.Observe(time.Since(r.now).Seconds())
	r.tell()
}

// end ends a call, unless it is about to end by itself.
func (r *round) end(s *stay, reason string, why error) {
	if !s.end(ending(reason, why), &r.ending) {
		return
	}
	r.metrics.ended[reason].Inc()
	r.ended[reason]++
	r.trail.add(s.call, s.request.Method, why)
}

// tell logs how many calls were ended, and wakes the trail.
func (r *round) tell() {
	if len(r.ended) == 0 {
		return
	}
	r.trail.ring()
	r.cfg.Log.Info("calls under way were ended", access, r.ended[access], credential, r.ended[credential], instance, r.ended[instance])
}

func errGone() error {
	return errs.New(errs.Unavailable, "what the call leads to is not offered here any more")
}
