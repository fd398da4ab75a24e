package tenure

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/openmep/mep/api/gateway"
	"github.com/openmep/mep/gateway/call"
	"github.com/openmep/mep/gateway/match"
	"github.com/openmep/mep/gateway/table"
	"github.com/openmep/mep/gateway/upstream"
	"github.com/openmep/mep/kit/errs"
)

// verdict is what calls are judged by at one time.
type verdict struct {
	*Calls
	ctx    context.Context //nolint:containedctx // of the round, or of the call
	table  *table.Table
	rules  Judge
	now    time.Time
	probe  call.Call // the call that is judged: as it began, but for what has changed since
	to     []*table.Instance
	routes narrowed
	spent  time.Duration // on tokens of other issuers
}

// verdict is what holds at present; nil while nothing does.
func (t *Calls) verdict(ctx context.Context) *verdict {
	now := t.cfg.Table()
	if now == nil || now.Default() == nil {
		return nil
	}
	return &verdict{Calls: t, ctx: ctx, table: now, rules: t.cfg.Judge(), now: time.Now()}
}

// judge judges a call. The error says why the right to it has ended, the reason in one word.
func (v *verdict) judge(s *stay) (reason string, err error) {
	c, p := s.call, &v.probe
	p.Table, p.Policy, p.Route, p.Group, p.Instance = v.table, nil, nil, nil, nil
	p.Caller, p.Token, p.Key, p.Services, p.Path = c.Caller, c.Token, c.Key, c.Services, c.Path
	p.Info.Client, p.Info.Service = c.Info.Client, c.Info.Service
	there := v.find(s)
	if s.app && v.table.App(c.Caller.Subject) == nil {
		return access, errs.New(errs.Forbidden, "the application instance that makes the call has ended")
	}
	withdrawn := v.withdrawn(s)
	if !there {
		if withdrawn != nil {
			return credential, withdrawn
		}
		return instance, errGone()
	}
	if err := v.rules.Again(p, s.request.Method, v.to, withdrawn); err != nil {
		if withdrawn != nil {
			return credential, err
		}
		return access, err
	}
	return "", nil
}

// find finds what a call leads to as it is now, and writes it down. It reports whether it is still there.
func (v *verdict) find(s *stay) bool {
	c, p := s.call, &v.probe
	v.to = v.to[:0]
	switch {
	case c.Route != nil:
		if p.Route = routeOf(v.table, c.Route.ID); p.Route == nil || leadsTo(p.Route) != leadsTo(c.Route) || !v.takes(p.Route, s) {
			return false
		}
		p.Policy = p.Route.Policy
		if leadsTo(c.Route) == "" {
			return true
		}
	case c.Instance != nil:
		i := v.table.Instance(c.Instance.ID)
		if i == nil || i.Service != c.Instance.Service {
			return false
		}
		p.Instance, p.Policy, v.to = i, v.table.Policy(i.Service), append(v.to, i)
		return true
	default:
		p.Policy = v.table.Policy(c.Info.Service)
	}
	if p.Group = v.table.Group(c.Info.Service); p.Group == nil {
		return false
	}
	ep := c.Attempt.Present()
	if ep == nil || c.Group == nil {
		return true
	}
	// Those that had the address when the call began may have another one by now, others may have got it.
	v.offering(c.Group, ep)
	if now := reached(p); now != c.Group {
		v.offering(now, ep)
	}
	return len(v.to) > 0
}

// reached is the group of a call's service in which its endpoints are.
func reached(c *call.Call) *table.Group {
	if c.Route != nil && c.Route.Group != nil {
		return c.Route.Group
	}
	return c.Group
}

// offering adds the instances of a group that have an endpoint to those a call goes to, as they are now.
func (v *verdict) offering(g *table.Group, ep *upstream.Endpoint) {
	for id := range g.InstancesOf(ep) {
		if i := v.table.Instance(id); i != nil && i.Service == g.Name {
			v.to = append(v.to, i)
		}
	}
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

// narrowed are routers of single static routes, of those that were defined anew while calls of theirs were under way.
type narrowed struct {
	table *table.Table
	by    map[string]*match.Router[string] // their ids
}

// of returns the routers that hold for a table.
func (n narrowed) of(t *table.Table) narrowed {
	if n.table != t || n.by == nil {
		return narrowed{t, make(map[string]*match.Router[string])}
	}
	return n
}

// takes reports whether a static route takes the host, the path and the method of a call of its that began before it became what it is
// now. The conditions for header fields are not looked at, which may not be there any more. Whether another route would have the call now
// is not asked.
func (v *verdict) takes(now *table.Route, s *stay) bool {
	is, was := now.Definition, s.call.Route.Definition
	if is == was || is == nil || was == nil ||
		slices.Equal(is.Paths, was.Paths) && slices.Equal(is.Hosts, was.Hosts) && slices.Equal(is.Methods, was.Methods) {
		return true
	}
	v.routes = v.routes.of(v.table)
	router := v.routes.by[now.ID]
	if router == nil {
		entry, err := match.NewEntry(&gateway.Route{ID: now.ID, Paths: is.Paths, Hosts: is.Hosts, Methods: is.Methods}, now.ID)
		if err != nil {
			return false // it could be made before
		}
		router = match.NewRouter([]*match.Entry[string]{entry})
		v.routes.by[now.ID] = router
	}
	return routed(router, s.request)
}

func routed(router *match.Router[string], r *http.Request) bool {
	var path match.Path
	if err := path.Parse(r.URL.EscapedPath()); err != nil {
		return false // it was good when the call began
	}
	_, _, outcome := router.Find(r.Host, r.Method, &path, nil)
	return outcome == match.Found
}
