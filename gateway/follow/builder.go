package follow

import (
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/openmep/mep/api/gateway"
	"github.com/openmep/mep/api/mp1"
	"github.com/openmep/mep/api/problem"
	"github.com/openmep/mep/api/state"
	"github.com/openmep/mep/gateway/table"
	"github.com/openmep/mep/gateway/upstream"
	"github.com/openmep/mep/kit/errs"
)

// Platform is a route of the platform itself.
type Platform struct {
	// ID is gateway.RouteAuth, gateway.RouteMp1 or another name that begins with "platform.".
	ID string
	// Paths are patterns as in gateway.Route.Paths.
	Paths []string
	// Local answers calls within this process. Otherwise calls go to URLs, through Upstream.
	Local http.Handler
	// Guarded says that callers must authenticate before a call gets there. Otherwise the target decides whether they must.
	Guarded  bool
	URLs     []string
	Upstream *upstream.Manager
}

// builder makes one table after another. It is confined to the goroutine of the feed.
type builder struct {
	feed *Feed
	cfg  *Config
	edit *table.Edit
	now  *table.Table

	policies map[string]*table.Policy
	anyone   *table.Policy
	statics  map[string]*static // by id
	platform []*static
	refused  map[string]gateway.RefusedDefinition // by kind and id

	drop []*upstream.Endpoint // endpoints of the previous table
}

func newBuilder(f *Feed) *builder {
	return &builder{feed: f, now: &table.Table{}, statics: make(map[string]*static), refused: make(map[string]gateway.RefusedDefinition)}
}

// restart sets another configuration, from which everything is rebuilt.
func (b *builder) restart(cfg *Config) { b.cfg = cfg }

// next returns the next table.
func (b *builder) next(dirty [sources]map[string]bool, all bool, revision int64) *table.Table {
	b.edit = b.now.Edit()
	if all {
		b.edit.SetDomain(b.cfg.Domain)
	}
	touched := b.setPolicies(dirty[policies], all)
	if all || len(touched) > 0 || len(dirty[routes]) > 0 {
		b.setRoutes(dirty[routes], touched, all)
	}
	for key := range dirty[apps] {
		b.setApp(key)
	}
	b.reach(b.setServices(dirty[services], touched, all))
	b.edit.SetRefused(slices.SortedFunc(maps.Values(b.refused), func(x, y gateway.RefusedDefinition) int {
		return strings.Compare(x.Kind+" "+x.ID, y.Kind+" "+y.ID)
	}))
	b.now = b.edit.Done(revision)
	return b.now
}

// retired releases the endpoints of former tables.
func (b *builder) retired() {
	for _, e := range b.drop {
		e.Release()
	}
	b.drop = b.drop[:0]
}

// release releases all endpoints.
func (b *builder) release() {
	b.retired()
	for i := range b.now.Instances {
		b.drop = append(b.drop, i.Endpoints...)
	}
	for _, r := range b.now.Routes() {
		b.drop = append(b.drop, r.Endpoints...)
		if r.Group != nil {
			b.drop = append(b.drop, r.Group.Endpoints...)
		}
	}
	b.retired()
}

func (b *builder) refuse(kind, id, source string, err error) {
	key := kind + " " + id
	if err == nil {
		delete(b.refused, key)
		return
	}
	if _, known := b.refused[key]; !known {
		b.feed.log.Warn("definition cannot be used: the one before it stays in force, or there is none and its calls are refused", "kind", kind, "id", id, "reason", err)
	}
	b.refused[key] = gateway.RefusedDefinition{Kind: kind, ID: id, Source: source, Reason: err.Error()}
}

func (b *builder) setApp(key string) {
	id := strings.TrimPrefix(key, state.PrefixApps)
	if item, ok := b.feed.apps.Snapshot().Get(key); ok {
		b.edit.SetApp(id, item.Value)
		return
	}
	b.edit.SetApp(id, nil)
}

// everyService stands for all services.
const everyService = gateway.AnyService

// setServices rebuilds the instances whose records or policies changed. It returns the changed groups by name, nil for those that are gone.
func (b *builder) setServices(keys, touched map[string]bool, all bool) (groups map[string]*table.Group) {
	next := make(map[string]*table.Instance, len(keys)) // by id; nil if gone
	for key := range keys {
		id := key[strings.LastIndexByte(key, '/')+1:]
		next[id] = b.instance(key, id)
	}
	if !all && len(touched) > 0 {
		for i := range b.now.Instances {
			if _, done := next[i.ID]; !done && (touched[everyService] || touched[i.Service]) {
				next[i.ID] = b.instance(state.ServiceKey(i.Owner, i.ID), i.ID)
			}
		}
	}
	changed := make(map[string]map[string]*table.Instance) // by serName and id
	note := func(name, id string, i *table.Instance) {
		if changed[name] == nil {
			changed[name] = make(map[string]*table.Instance)
		}
		changed[name][id] = i
	}
	for id, i := range next {
		if was := b.now.Instance(id); was != nil {
			b.drop = append(b.drop, was.Endpoints...)
			note(was.Service, id, nil)
		}
		if i != nil {
			note(i.Service, id, i)
		}
		b.edit.SetInstance(id, i)
	}
	groups = make(map[string]*table.Group, len(changed))
	for name, instances := range changed {
		groups[name] = b.setGroup(name, instances)
	}
	return groups
}

// setGroup rebuilds the group of a serName, given the instances that changed.
func (b *builder) setGroup(name string, changed map[string]*table.Instance) *table.Group {
	var list []*table.Instance
	if was := b.now.Group(name); was != nil {
		for _, i := range was.Instances {
			if _, other := changed[i.ID]; !other {
				list = append(list, i)
			}
		}
	}
	for _, i := range changed {
		if i != nil {
			list = append(list, i)
		}
	}
	slices.SortFunc(list, func(x, y *table.Instance) int { return strings.Compare(x.ID, y.ID) })
	group := table.NewGroup(name, list)
	b.edit.SetGroup(name, group)
	return group
}

// instance returns the instance for a service record, or nil if nothing is to be routed.
func (b *builder) instance(key, id string) *table.Instance {
	item, ok := b.feed.services.Snapshot().Get(key)
	if !ok {
		return nil
	}
	rec, err := state.Decode[state.Service](item.Value)
	if err != nil {
		b.feed.metrics.unreadable.Inc()
		b.feed.log.Error("service ignored", "key", key, "revision", item.ModRevision, "error", err)
		return nil
	}
	if rec.Info.State != mp1.StateActive {
		return nil
	}
	owner, _, _ := strings.Cut(strings.TrimPrefix(key, state.PrefixServices), "/")
	i := &table.Instance{
		ID: id, Owner: owner, Service: rec.Info.SerName, Revision: item.ModRevision,
		LocalOnly:   rec.Info.ConsumedLocalOnly == nil || *rec.Info.ConsumedLocalOnly,
		Conditional: rec.Sharing() == gateway.SharingConditional,
	}
	urls, bad := rec.Info.TransportInfo.URLs()
	policy := b.policy(i.Service)
	for _, u := range urls {
		ep, err := policy.Upstream.Endpoint(policy.Profile, u)
		if err != nil {
			if bad == nil {
				bad = make(map[string]string)
			}
			bad[u] = err.Error()
			continue
		}
		i.Endpoints = append(i.Endpoints, ep)
	}
	for _, u := range slices.Sorted(maps.Keys(bad)) {
		i.Refused = append(i.Refused, gateway.TargetView{URL: redacted(u), Instance: id, Owner: owner, State: "refused", Reason: bad[u]})
	}
	if len(i.Endpoints) == 0 && len(i.Refused) == 0 {
		return nil // it is not reached through the gateway
	}
	return i
}

func redacted(raw string) string {
	if u, err := url.Parse(raw); err == nil {
		return u.Redacted()
	}
	return raw
}

func (b *builder) policy(serName string) *table.Policy {
	if p := b.policies[serName]; p != nil {
		return p
	}
	return b.anyone
}

// checked runs the Check of a definition, which may come from an older or newer release.
func checked(check func(*problem.InvalidParams)) error {
	var faults problem.InvalidParams
	check(&faults)
	if len(faults) > 0 {
		return errs.New(errs.Invalid, "%s", faults.Error())
	}
	return nil
}

// closed returns the policy in place of one that cannot be used and has no predecessor: it refuses calls rather than apply a laxer policy.
func (b *builder) closed(name, source string) *table.Policy {
	p := *b.cfg.Compiler.Refusing
	p.Name, p.Source, p.Closed = name, source, true
	return &p
}
