package follow

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	"github.com/openmep/mep/api/gateway"
	"github.com/openmep/mep/api/state"
	"github.com/openmep/mep/gateway/match"
	"github.com/openmep/mep/gateway/table"
)

// The kinds of definitions.
const (
	kindPolicy = "policy"
	kindRoute  = "route"
)

type definition[V any] struct {
	value    V
	source   string
	revision int64
}

// definedPolicies returns all defined policies. Those of the configuration take precedence.
func (b *builder) definedPolicies() map[string]definition[gateway.Policy] {
	all := make(map[string]definition[gateway.Policy])
	for item := range b.feed.book.Policies.Collection().Snapshot().All() {
		all[item.Value.ID] = definition[gateway.Policy]{item.Value.Value, table.FromManagement, item.ModRevision}
	}
	for name, p := range b.cfg.Policies {
		all[name] = definition[gateway.Policy]{p, table.FromConfiguration, 0}
	}
	return all
}

// setPolicies rebuilds policies and returns the names of those that changed. The names include everyService if the policy that all others
// are built on changed.
func (b *builder) setPolicies(keys map[string]bool, all bool) (touched map[string]bool) {
	touched = make(map[string]bool)
	for key := range keys {
		touched[state.TextOf(strings.TrimPrefix(key, state.PrefixGatewayPolicies))] = true
	}
	if len(touched) == 0 && !all {
		return touched
	}
	if all || touched[gateway.AnyService] {
		touched[everyService] = true
		all = true
	}
	defined := b.definedPolicies()
	former := b.policies
	b.policies = maps.Clone(former)
	if b.policies == nil {
		b.policies = make(map[string]*table.Policy)
	}
	if all {
		base := defined[gateway.AnyService]
		if base.source == "" {
			base.source = table.FromDefaults
		}
		was := b.anyone
		if was != nil && was.Source == table.FromDefaults && base.source != table.FromDefaults {
			was = nil // nobody had defined it
		}
		b.anyone = b.compile(gateway.AnyService, base, nil, was)
	}
	for name := range former {
		if _, still := defined[name]; !still {
			delete(b.policies, name)
			b.refuse(kindPolicy, name, "", nil)
		}
	}
	for name, d := range defined {
		if name == gateway.AnyService || isPlatform(name) || !all && !touched[name] {
			continue
		}
		b.policies[name] = b.compile(name, d, b.anyone, former[name])
	}
	b.edit.SetPolicies(b.policies, b.anyone)
	return touched
}

// isPlatform reports whether a policy is for a route of the platform.
func isPlatform(name string) bool { return strings.HasPrefix(name, "platform.") }

// compile compiles the definition of a policy. If the definition cannot be used, the former policy stays in force.
func (b *builder) compile(name string, d definition[gateway.Policy], base, former *table.Policy) *table.Policy {
	err := checked(d.value.Check)
	var p *table.Policy
	if err == nil {
		p, err = b.cfg.Compiler.Policy(name, d.source, d.value, specOf(base))
	}
	b.refuse(kindPolicy, name, d.source, err)
	switch {
	case base != nil && base.Closed:
		return b.closed(name, d.source)
	case err == nil:
		return p
	case former != nil:
		return former
	}
	return b.closed(name, d.source)
}

// specOf returns the specification of a base policy, or nil if there is none.
func specOf(p *table.Policy) *gateway.Policy {
	if p == nil {
		return nil
	}
	return &p.Spec
}

// static is a static route and its entry in the router.
type static struct {
	route *table.Route
	entry *match.Entry[*table.Route]
	// reached says that route.Group is up to date.
	reached bool
}

// setRoutes rebuilds the static routes whose definitions, or the policies they are built on, changed.
func (b *builder) setRoutes(keys, touched map[string]bool, all bool) {
	defined := make(map[string]definition[gateway.Route])
	for item := range b.feed.book.Routes.Collection().Snapshot().All() {
		defined[item.Value.ID] = definition[gateway.Route]{item.Value.Value, table.FromManagement, item.ModRevision}
	}
	for _, r := range b.cfg.Routes {
		defined[r.ID] = definition[gateway.Route]{r, table.FromConfiguration, 0}
	}
	for id, s := range b.statics {
		if _, still := defined[id]; !still {
			b.forget(s)
			delete(b.statics, id)
		}
	}
	for key, r := range b.refused {
		if _, still := defined[r.ID]; r.Kind == kindRoute && !still {
			delete(b.refused, key)
		}
	}
	for id, d := range defined {
		concerned := all || keys[state.GatewayRouteKey(id)] || touched[everyService] || d.value.Service != "" && touched[d.value.Service]
		if !concerned {
			continue
		}
		s, err := b.static(id, d)
		b.refuse(kindRoute, id, d.source, err)
		was := b.statics[id]
		switch {
		case err == nil:
			if was != nil {
				b.forget(was)
			}
			b.statics[id] = s
		case was != nil && !was.route.Policy.Closed:
			b.statics[id] = b.refusedRoute(was, err)
		default:
			// Its calls must not fall to a wider route.
			if s := b.closedRoute(id, d, err); s != nil {
				b.statics[id] = s
			}
		}
	}
	b.setPlatform(touched, all)
	b.publishRoutes()
}

// static builds a static route from its definition.
func (b *builder) static(id string, d definition[gateway.Route]) (*static, error) {
	if err := checked(d.value.Check); err != nil {
		return nil, err
	}
	def := d.value
	def.ID = id
	base := b.anyone
	if def.Service != "" {
		base = b.policy(def.Service)
	}
	policy, err := b.cfg.Compiler.Policy(id, d.source, def.Policy, specOf(base))
	if err != nil {
		return nil, err
	}
	if base.Closed {
		policy = b.closed(id, d.source)
	}
	r := &table.Route{
		ID: id, Kind: gateway.KindStatic, Source: d.source, Revision: d.revision, Definition: &def, Policy: policy,
		Series: b.feed.meter.Route(id),
	}
	if r.Rewriter, err = match.NewRewriter(&def); err != nil {
		return nil, err
	}
	entry, err := match.NewEntry(&def, r)
	if err != nil {
		return nil, err
	}
	for _, u := range def.URLs {
		ep, err := policy.Upstream.Endpoint(policy.Profile, u)
		if err != nil {
			for _, e := range r.Endpoints {
				e.Release()
			}
			return nil, err
		}
		r.Endpoints = append(r.Endpoints, ep)
	}
	return &static{route: r, entry: entry}, nil
}

// forget marks the endpoints of a route for release.
func (b *builder) forget(s *static) {
	b.drop = append(b.drop, s.route.Endpoints...)
	if s.route.Group != nil {
		b.drop = append(b.drop, s.route.Group.Endpoints...)
	}
}

// closedRoute returns a route that refuses its calls, for one that cannot be used and has no former version; nil if even its calls cannot
// be determined.
func (b *builder) closedRoute(id string, d definition[gateway.Route], reason error) *static {
	def := d.value
	def.ID = id
	r := &table.Route{
		ID: id, Kind: gateway.KindStatic, Source: d.source, Revision: d.revision, Definition: &def, Policy: b.closed(id, d.source),
		Refused: reason.Error(), Series: b.feed.meter.Route(id),
	}
	entry, err := match.NewEntry(&def, r)
	if err != nil {
		return nil
	}
	return &static{route: r, entry: entry}
}

// refusedRoute returns the route with the reason why a later definition is refused.
func (b *builder) refusedRoute(was *static, err error) *static {
	r := *was.route
	r.Refused = err.Error()
	entry, eerr := match.NewEntry(r.Definition, &r)
	if eerr != nil {
		return was // the definition was valid before
	}
	return &static{route: &r, entry: entry, reached: was.reached}
}

func (b *builder) setPlatform(touched map[string]bool, all bool) {
	if !all && !slices.ContainsFunc(b.cfg.Platform, func(p Platform) bool { return touched[p.ID] }) {
		return
	}
	defined := b.definedPolicies()
	former := b.platform
	b.platform = nil
	for i := range b.cfg.Platform {
		p := &b.cfg.Platform[i]
		s, err := b.platformRoute(p, defined[p.ID])
		b.refuse(kindPolicy, p.ID, defined[p.ID].source, err)
		if err == nil {
			b.platform = append(b.platform, s)
			continue
		}
		at := slices.IndexFunc(former, func(was *static) bool {
			return was.route.ID == p.ID && was.route.Policy.Source != table.FromPlatform
		})
		if at >= 0 {
			b.platform = append(b.platform, former[at])
			continue
		}
		if s, err = b.platformEntry(p, b.closed(p.ID, defined[p.ID].source), 0); err == nil {
			b.platform = append(b.platform, s)
		}
	}
	for _, was := range former {
		if !slices.Contains(b.platform, was) {
			b.drop = append(b.drop, was.route.Endpoints...)
		}
	}
}

func (b *builder) platformRoute(p *Platform, d definition[gateway.Policy]) (*static, error) {
	if err := checked(d.value.Check); err != nil {
		return nil, err
	}
	compiler := *b.cfg.Compiler
	if p.Upstream != nil {
		compiler.Upstream = p.Upstream
	}
	policy, err := compiler.Platform(p.ID, cmp.Or(d.source, table.FromPlatform), d.value, p.Local, p.Guarded)
	if err != nil {
		return nil, err
	}
	return b.platformEntry(p, policy, d.revision)
}

// platformEntry returns a route of the platform with the given policy.
func (b *builder) platformEntry(p *Platform, policy *table.Policy, revision int64) (*static, error) {
	r := &table.Route{
		ID: p.ID, Kind: gateway.KindPlatform, Source: table.FromPlatform, Paths: p.Paths, Local: p.Local, Policy: policy,
		Series: b.feed.meter.Route(p.ID), Revision: revision,
	}
	entry, err := match.NewEntry(&gateway.Route{ID: p.ID, Paths: p.Paths}, r)
	if err != nil {
		return nil, err
	}
	for _, u := range p.URLs {
		ep, err := policy.Upstream.Endpoint(policy.Profile, u)
		if err != nil {
			for _, e := range r.Endpoints {
				e.Release()
			}
			return nil, err
		}
		r.Endpoints = append(r.Endpoints, ep)
	}
	return &static{route: r, entry: entry}, nil
}

// publishRoutes puts all static routes into the next table.
func (b *builder) publishRoutes() {
	var entries []*match.Entry[*table.Route]
	var list []*table.Route
	for _, s := range b.platform {
		entries, list = append(entries, s.entry), append(list, s.route)
	}
	for _, id := range slices.Sorted(maps.Keys(b.statics)) {
		entries, list = append(entries, b.statics[id].entry), append(list, b.statics[id].route)
	}
	slices.SortFunc(list, func(x, y *table.Route) int { return strings.Compare(x.ID, y.ID) })
	b.edit.SetRoutes(match.NewRouter(entries), list)
}
