package tenure

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/openmep/mep/gateway/call"
	"github.com/openmep/mep/gateway/table"
	"github.com/openmep/mep/kit/audit"
	"github.com/openmep/mep/kit/errs"
)

// round is one time that all calls are judged.
type round struct {
	*Calls
	ctx   context.Context //nolint:containedctx // of the round
	table *table.Table
	judge Judge
	now   time.Time
	probe call.Call     // the call that is judged: as it began, but for what has changed since
	spent time.Duration // on tokens of other issuers
	ended map[string]int
}

// round judges all calls.
func (t *Calls) round(ctx context.Context) {
	now := t.cfg.Table()
	if now == nil || now.Default() == nil {
		return
	}
	r := &round{Calls: t, ctx: ctx, table: now, judge: t.cfg.Judge(), now: time.Now(), ended: make(map[string]int)}
	var list []*stay
	first, spent := t.resume, false
	for i := range stripes {
		n := (first + i) % stripes
		list = t.all[n].copied(list[:0])
		for _, s := range list {
			if ctx.Err() != nil {
				return
			}
			r.look(s)
		}
		if !spent && r.spent >= looks {
			t.resume, spent = n, true
		}
	}
	t.metrics.took.Observe(time.Since(r.now).Seconds())
	r.tell()
}

// look judges a call, and ends it when the right to it has ended.
func (r *round) look(s *stay) {
	c, p := s.call, &r.probe
	p.Table, p.Policy, p.Route, p.Group, p.Instance = r.table, nil, nil, nil, nil
	p.Caller, p.Token, p.Key, p.Services, p.Path = c.Caller, c.Token, c.Key, c.Services, c.Path
	p.Info.Client, p.Info.Service = c.Info.Client, c.Info.Service
	i, ok := r.find(c)
	if !ok {
		r.end(s, instance, errs.New(errs.Unavailable, "what the call leads to is not offered here any more"))
		return
	}
	if s.app && r.table.App(c.Caller.Subject) == nil {
		r.end(s, access, errs.New(errs.Forbidden, "the application instance that makes the call has ended"))
		return
	}
	withdrawn := r.withdrawn(s)
	if err := r.judge.Again(p, s.request.Method, i, withdrawn); err != nil {
		reason := access
		if withdrawn != nil {
			reason = credential
		}
		r.end(s, reason, err)
	}
}

// find finds what a call leads to as it is now, and writes it down in the probe. It reports whether it is still there.
func (r *round) find(c *call.Call) (*table.Instance, bool) {
	p := &r.probe
	switch {
	case c.Route != nil:
		if p.Route = routeOf(r.table, c.Route.ID); p.Route == nil || leadsTo(p.Route) != leadsTo(c.Route) {
			return nil, false
		}
		p.Policy = p.Route.Policy
		if leadsTo(c.Route) == "" {
			return nil, true
		}
	case c.Instance != nil:
		i := r.table.Instance(c.Instance.ID)
		if i == nil || i.Service != c.Instance.Service {
			return nil, false
		}
		p.Instance, p.Policy = i, r.table.Policy(i.Service)
		return i, true
	default:
		p.Policy = r.table.Policy(c.Info.Service)
	}
	if p.Group = r.table.Group(c.Info.Service); p.Group == nil {
		return nil, false
	}
	ep := c.Attempt.Present()
	if ep == nil || c.Group == nil {
		return nil, true
	}
	i := r.table.Instance(c.Group.InstanceOf(ep))
	return i, i != nil && i.Service == c.Info.Service
}

// leadsTo is the service a static route leads to; "" for none.
func leadsTo(r *table.Route) string {
	if r.Definition == nil {
		return ""
	}
	return r.Definition.Service
}

func routeOf(t *table.Table, id string) *table.Route {
	routes := t.Routes()
	n, ok := slices.BinarySearchFunc(routes, id, func(r *table.Route, id string) int { return strings.Compare(r.ID, id) })
	if !ok {
		return nil
	}
	return routes[n]
}

// lines is how many calls of a round have lines of their own in the audit stream. Who can end calls of its own could fill it otherwise.
const lines = 25

// end ends a call, unless it is about to end by itself.
func (r *round) end(s *stay, reason string, why error) {
	if !s.end(&call.Ending{Reason: "ended-" + reason, Err: why}, &r.ending) {
		return
	}
	r.metrics.ended[reason].Inc()
	r.ended[reason]++
	if r.total() > lines {
		return
	}
	c := s.call
	e := audit.Entry{
		Action: actionEnd, Result: audit.Denied, Source: c.Info.Client.String(), Target: c.Target(s.request.Method),
		RequestID: c.Info.RequestID, Detail: why.Error(),
	}
	if c.Caller != nil {
		e.Caller, e.Client, e.Via = c.Caller.Subject, c.Caller.ClientID, c.Caller.Via
	}
	r.cfg.Audit.Write(e)
}

// actionEnd is the action of lines of the audit stream about calls that were ended.
const actionEnd = "access.end"

func (r *round) total() int { return r.ended[access] + r.ended[credential] + r.ended[instance] }

// tell says how many calls were ended.
func (r *round) tell() {
	n := r.total()
	if n == 0 {
		return
	}
	if n > lines {
		r.cfg.Audit.Write(audit.Entry{
			Action: actionEnd, Result: audit.Denied, Caller: "platform", Detail: fmt.Sprintf("and %d more calls", n-lines),
		})
	}
	r.cfg.Log.Info("calls under way were ended", access, r.ended[access], credential, r.ended[credential], instance, r.ended[instance])
}
