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

// verdict holds what calls are judged by at one moment.
type verdict struct {
	*Calls
	ctx    context.Context //nolint:containedctx // of the round, or of the call
	table  *table.Table
	rules  Judge
	now    time.Time
	probe  call.Call // the call being judged: as it began, updated with what has changed since
	to     []*table.Instance
	routes narrowed
	spent  time.Duration // on tokens of other issuers
}

// verdict returns what is in force at present; nil while nothing is.
func (t *Calls) verdict(ctx context.Context) *verdict {
	now := t.cfg.Table()
	if now == nil || now.Default() == nil {
		return nil
	}
	return &verdict{Calls: t, ctx: ctx, table: now, rules: t.cfg.Judge(), now: time.Now()}
}

// judge judges a call. The error says why the right to it has ended, reason says so in one word.
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

// find looks up the present target of a call, records it in v, and reports whether it still exists.
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
	// Instances that had the address when the call began may have moved, and others may have taken the address over.
	v.offering(c.Group, ep)
	if now := reached(p); now != c.Group {
		v.offering(now, ep)
	}
	return len(v.to) > 0
}

// reached returns the group of a call's service that holds its endpoints.
func reached(c *call.Call) *table.Group {
	if c.Route != nil && c.Route.Group != nil {
		return c.Route.Group
	}
	return c.Group
}

// offering adds the instances of a group that have an endpoint, as they are now, to the instances that a call goes to.
func (v *verdict) offering(g *table.Group, ep *upstream.Endpoint) {
	for id := range g.InstancesOf(ep) {
		if i := v.table.Instance(id); i != nil && i.Service == g.Name {
			v.to = append(v.to, i)
		}
	}
}

// leadsTo returns the service that a static route leads to; "" for none.
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

// narrowed holds routers for single static routes: those that were redefined while they had calls in flight.
type narrowed struct {
	table *table.Table
	by    map[string]*match.Router[string] // by route id
}

// of returns n if its routers are those of t, and an empty set for t otherwise.
func (n narrowed) of(t *table.Table) narrowed {
	if n.table != t || n.by == nil {
		return narrowed{t, make(map[string]*match.Router[string])}
	}
	return n
}

// takes reports whether a static route still takes the host, the path and the method of a call that began before the route became what it
// is now. Conditions on header fields are not checked, because the fields may be gone. Whether another route would take the call now is not
// asked.
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
			return false // does not happen: the route was compiled before
		}
		router = match.NewRouter([]*match.Entry[string]{entry})
		v.routes.by[now.ID] = router
	}
	return routed(router, s.request)
}

func routed(router *match.Router[string], r *http.Request) bool {
	var path match.Path
	if err := path.Parse(r.URL.EscapedPath()); err != nil {
		return false // does not happen: the path was valid when the call began
	}
	_, _, outcome := router.Find(r.Host, r.Method, &path, nil)
	return outcome == match.Found
}
