package gateway

import (
	"cmp"
	"context"
	"iter"
	"slices"
	"strings"

	"github.com/openmep/mep/api/gateway"
	"github.com/openmep/mep/gateway/front"
	"github.com/openmep/mep/gateway/rest"
	"github.com/openmep/mep/gateway/stats"
	"github.com/openmep/mep/gateway/table"
	"github.com/openmep/mep/gateway/upstream"
	"github.com/openmep/mep/kit/errs"
)

// server is the management's view of the gateway.
type server struct{ *Gateway }

// The prefixes of the ids of routes of the registry.
const (
	servicePrefix  = "service:"
	instancePrefix = "instance:"
)

func (s *server) table() *table.Table { return s.handler.Table.Load() }

// Routes implements rest.Server.
func (s *server) Routes(after string) iter.Seq[*gateway.RouteView] {
	t := s.table()
	type place struct {
		id   string
		view func() *gateway.RouteView
	}
	var list []place
	add := func(id string, view func() *gateway.RouteView) {
		if id > after {
			list = append(list, place{id, view})
		}
	}
	for _, r := range t.Routes() {
		add(r.ID, func() *gateway.RouteView { return routeView(t, r) })
	}
	for g := range t.Groups {
		add(servicePrefix+g.Name, func() *gateway.RouteView { return groupView(t, g) })
	}
	for i := range t.Instances {
		add(instancePrefix+i.ID, func() *gateway.RouteView { return instanceView(t, i) })
	}
	for _, r := range t.Refused() {
		if r.Kind == "route" && !slices.ContainsFunc(t.Routes(), func(o *table.Route) bool { return o.ID == r.ID }) {
			add(r.ID, func() *gateway.RouteView { return refusedView(r) })
		}
	}
	slices.SortFunc(list, func(a, b place) int { return cmp.Compare(a.id, b.id) })
	return func(yield func(*gateway.RouteView) bool) {
		for _, p := range list {
			if !yield(p.view()) {
				return
			}
		}
	}
}

// Route implements rest.Server.
func (s *server) Route(id string) (*gateway.RouteView, bool) {
	t := s.table()
	if name, ok := strings.CutPrefix(id, servicePrefix); ok {
		if g := t.Group(name); g != nil {
			return groupView(t, g), true
		}
	}
	if name, ok := strings.CutPrefix(id, instancePrefix); ok {
		if i := t.Instance(name); i != nil {
			return instanceView(t, i), true
		}
	}
	for _, r := range t.Routes() {
		if r.ID == id {
			return routeView(t, r), true
		}
	}
	for _, r := range t.Refused() {
		if r.Kind == "route" && r.ID == id {
			return refusedView(r), true
		}
	}
	return nil, false
}

func refusedView(r gateway.RefusedDefinition) *gateway.RouteView {
	return &gateway.RouteView{ID: r.ID, Kind: gateway.KindStatic, Source: r.Source, Paths: []string{}, Refused: r.Reason}
}

func routeView(t *table.Table, r *table.Route) *gateway.RouteView {
	v := &gateway.RouteView{
		ID: r.ID, Kind: r.Kind, Source: r.Source, Paths: r.Paths, Policy: r.Policy.Name, Revision: r.Revision, Refused: r.Refused,
		Definition: r.Definition,
	}
	if d := r.Definition; d != nil {
		v.Hosts, v.Paths, v.Methods, v.Headers, v.Service = d.Hosts, d.Paths, d.Methods, d.Headers, d.Service
		if g := t.Group(d.Service); d.Service != "" && g != nil {
			for _, i := range g.Instances {
				v.Targets = append(v.Targets, targets(i)...)
			}
		}
	}
	for _, e := range r.Endpoints {
		v.Targets = append(v.Targets, e.View())
	}
	return v
}

func groupView(t *table.Table, g *table.Group) *gateway.RouteView {
	v := &gateway.RouteView{
		ID: servicePrefix + g.Name, Kind: gateway.KindService, Source: table.FromRegistry, Service: g.Name,
		Paths: []string{"/" + front.ServicesPath + "/" + escaped(g.Name) + "/**"}, Policy: t.Policy(g.Name).Name,
	}
	if label := strings.ToLower(g.Name); t.Domain() != "" && t.Labelled(label).Leads(g) {
		v.HostNames = []string{t.Domain().Service(label)}
	}
	for _, i := range g.Instances {
		v.Targets = append(v.Targets, targets(i)...)
		v.Revision = max(v.Revision, i.Revision)
	}
	return v
}

func instanceView(t *table.Table, i *table.Instance) *gateway.RouteView {
	v := &gateway.RouteView{
		ID: instancePrefix + i.ID, Kind: gateway.KindInstance, Source: table.FromRegistry, Service: i.Service,
		Paths: []string{"/" + front.InstancesPath + "/" + i.ID + "/**"}, Policy: t.Policy(i.Service).Name, Revision: i.Revision,
		Targets: targets(i),
	}
	if t.Domain() != "" {
		v.HostNames = []string{t.Domain().Instance(i.ID)}
	}
	return v
}

func targets(i *table.Instance) []gateway.TargetView {
	list := make([]gateway.TargetView, 0, len(i.Endpoints)+len(i.Refused))
	for _, e := range i.Endpoints {
		v := e.View()
		v.Instance, v.Owner = i.ID, i.Owner
		list = append(list, v)
	}
	return append(list, i.Refused...)
}

// Policies implements rest.Server.
func (s *server) Policies() []gateway.PolicyView {
	t := s.table()
	var list []gateway.PolicyView
	if t.Default() != nil {
		list = append(list, policyView(t, t.Default()))
	}
	for _, p := range t.Policies() {
		list = append(list, policyView(t, p))
	}
	for _, r := range t.Routes() {
		if r.Kind == gateway.KindPlatform {
			list = append(list, policyView(t, r.Policy))
		}
	}
	slices.SortFunc(list, func(a, b gateway.PolicyView) int { return cmp.Compare(a.Name, b.Name) })
	return list
}

// Policy implements rest.Server.
func (s *server) Policy(name string) (*gateway.PolicyView, bool) {
	for _, p := range s.Policies() {
		if p.Name == name {
			return &p, true
		}
	}
	return nil, false
}

func policyView(t *table.Table, p *table.Policy) gateway.PolicyView {
	v := gateway.PolicyView{Name: p.Name, Source: p.Source, Policy: p.Definition, Effective: &p.Spec}
	for _, r := range t.Refused() {
		if r.Kind == "policy" && r.ID == p.Name {
			v.Refused = r.Reason
		}
	}
	return v
}

// Upstreams implements rest.Server.
func (s *server) Upstreams() []gateway.TargetView {
	t := s.table()
	var list []gateway.TargetView
	for i := range t.Instances {
		list = append(list, targets(i)...)
	}
	seen := make(map[*upstream.Endpoint]bool)
	for _, r := range t.Routes() {
		for _, e := range r.Endpoints {
			if !seen[e] {
				seen[e] = true
				list = append(list, e.View())
			}
		}
	}
	return list
}

// Status implements rest.Server.
func (s *server) Status() gateway.Status {
	t, l := s.table(), s.loaded.Load()
	st := s.node.Mirror.Status()
	v := gateway.Status{
		Revision: t.Revision, Routes: len(t.Routes()), Services: t.Services(), Policies: len(t.Policies()), Refused: t.Refused(),
		Loaded: l.at.UTC(), Reloads: l.reloads, Stale: st.Restored || !st.Connected,
	}
	if last := s.env.LastReload(); last != nil && last.Err != nil {
		v.NotReloaded = &gateway.FailedReload{Time: last.At.UTC(), Reason: last.Err.Error()}
	}
	for _, f := range s.compiler.Load().Filters {
		v.Filters = append(v.Filters, f.Name)
	}
	return v
}

// Statistics implements rest.Server.
func (s *server) Statistics(ctx context.Context, q rest.StatisticsQuery) (*gateway.Statistics, error) {
	if !s.cfg.Load().Statistics {
		return nil, errs.New(errs.NotFound, "calls are not counted here: gateway.statistics is off")
	}
	r, err := s.stats.Find(ctx, stats.Query{Service: q.Service, Consumer: q.Consumer, Resolution: q.Resolution, From: q.From, To: q.To})
	return &r, err
}

// Quotas implements rest.Server.
func (s *server) Quotas(ctx context.Context, route, consumer string) ([]gateway.QuotaUse, error) {
	return s.quotas.List(ctx, route, consumer)
}

// Served implements rest.Server.
func (s *server) Served(ctx context.Context, revision int64) error {
	return s.feed.CatchUp(ctx, revision)
}
