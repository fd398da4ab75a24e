// Package table holds what the gateway routes by: an immutable snapshot of the services, app instances, policies and static routes, which
// is replaced as a whole whenever something changes.
package table

import (
	"iter"
	"net/http"
	"slices"

	"github.com/openmep/mep/api/gateway"
	"github.com/openmep/mep/gateway/match"
	"github.com/openmep/mep/gateway/meter"
	"github.com/openmep/mep/gateway/rule"
	"github.com/openmep/mep/gateway/upstream"
)

// The sources of definitions.
const (
	FromConfiguration = "configuration"
	FromManagement    = "management"
	FromRegistry      = "registry"
	FromPlatform      = "platform"
	FromDefaults      = "defaults"
)

// Policy is a compiled policy, ready to be applied.
type Policy struct {
	// Name is the serName the policy is for, gateway.AnyService, or the ID of a route. Source is where the policy comes from.
	Name, Source string
	// Closed says that the policy cannot be applied and has no predecessor. It refuses all calls, as do the policies built on it.
	Closed bool
	// Definition is the policy as defined. Spec is the policy in effect: the definition with what it leaves open filled in.
	Definition, Spec gateway.Policy
	// Rules are the compiled rules.
	Rules []rule.Rule
	// Profile says how targets are reached.
	Profile *upstream.Profile
	// Upstream makes the calls.
	Upstream *upstream.Manager
	// Headers says how header fields are changed.
	Headers Plan
	// Handler handles the routed calls. Filters names the filters they pass through.
	Handler http.Handler
	Filters []string
}

// Instance is a service instance to which calls may be routed.
type Instance struct {
	// ID is the serInstanceId, Owner the app instance that offers the service, and Service the serName.
	ID, Owner, Service string
	// LocalOnly says that only local consumers may use the instance, and Conditional that the app wants to be asked.
	LocalOnly, Conditional bool
	// Revision is the revision of the service record.
	Revision int64
	// Endpoints are the endpoints of the instance. Refused lists the URIs that the gateway cannot or will not call.
	Endpoints []*upstream.Endpoint
	Refused   []gateway.TargetView
}

// Group holds the instances of one serName.
type Group struct {
	Name string
	// Instances are sorted by ID.
	Instances []*Instance
	// Endpoints are the endpoints of all instances.
	Endpoints []*upstream.Endpoint
	// Uniform says that a caller who may use one of the instances may use all.
	Uniform bool

	of     map[*upstream.Endpoint]string   // the ID of the first instance with the endpoint
	shared map[*upstream.Endpoint][]string // the IDs of further instances with the endpoint
}

// NewGroup returns the group of some instances, or nil if there are none.
func NewGroup(name string, instances []*Instance) *Group {
	if len(instances) == 0 {
		return nil
	}
	g := &Group{Name: name, Instances: instances, Uniform: true, of: make(map[*upstream.Endpoint]string, len(instances))}
	for _, i := range instances {
		first := instances[0]
		if i.Owner != first.Owner || i.LocalOnly != first.LocalOnly || i.Conditional != first.Conditional {
			g.Uniform = false
		}
		g.Endpoints = append(g.Endpoints, i.Endpoints...)
		for _, e := range i.Endpoints {
			switch first, taken := g.of[e]; {
			case !taken:
				g.of[e] = i.ID
			case first != i.ID: // several instances may have the same address
				if g.shared == nil {
					g.shared = make(map[*upstream.Endpoint][]string)
				}
				if list := g.shared[e]; len(list) == 0 || list[len(list)-1] != i.ID {
					g.shared[e] = append(list, i.ID)
				}
			}
		}
	}
	return g
}

// Route is a static route, or a route of the platform itself.
type Route struct {
	// ID names the route. Kind is gateway.KindStatic or gateway.KindPlatform.
	ID, Kind, Source string
	Revision         int64
	// Refused says why a later definition is not in use.
	Refused string
	// Definition is the definition in use; nil for routes of the platform.
	Definition *gateway.Route
	// Paths are the paths of a route of the platform, for display.
	Paths []string
	// Rewriter rewrites the path that is passed on.
	Rewriter *match.Rewriter
	// Endpoints are the endpoints the route leads to, unless it leads to a service or to Local.
	Endpoints []*upstream.Endpoint
	// Group is the service the route leads to, as the route's own policy reaches it; nil if the service's policy reaches it the same way.
	Group *Group
	// Local answers calls within this process.
	Local  http.Handler
	Policy *Policy
	Series *meter.Route
}

// App is what routing needs of an app instance.
type App struct {
	// Declared lists the services the app declared it uses, sorted; empty if it declared none.
	Declared []string
}

// Declares reports whether the app may see a service, by what the app declared (decision 14).
func (a *App) Declares(serName string) bool {
	if len(a.Declared) == 0 {
		return true
	}
	_, ok := slices.BinarySearch(a.Declared, serName)
	return ok
}

// Table is an immutable snapshot. The zero Table is empty.
type Table struct {
	// Revision is the etcd revision of the snapshot.
	Revision int64

	groups    shards[*Group]
	instances shards[*Instance]
	apps      shards[*App]
	policies  map[string]*Policy
	anyone    *Policy
	static    *match.Router[*Route]
	hosted    bool
	routes    []*Route
	refused   []gateway.RefusedDefinition

	domain match.Domain
	labels shards[*Label] // by label in lower case; empty while there is no domain
}

// Group returns the instances of a serName, or nil if there are none.
func (t *Table) Group(serName string) *Group { return t.groups.get(serName) }

// Instance returns the instance with the given ID, or nil if there is none.
func (t *Table) Instance(serInstanceID string) *Instance { return t.instances.get(serInstanceID) }

// Domain returns the domain below which services and instances have host names, or "" if they have none.
func (t *Table) Domain() match.Domain { return t.domain }

// Labelled returns what a label of the domain stands for, ignoring case, or nil if nothing has this name.
func (t *Table) Labelled(label string) *Label { return t.labels.folded(label) }

// LabelledInstance returns the instance whose ID is a label of the domain, ignoring the case of the label, or nil if there is none.
func (t *Table) LabelledInstance(label string) *Instance { return t.instances.folded(label) }

// App returns an app instance, or nil if there is none.
func (t *Table) App(appInstanceID string) *App { return t.apps.get(appInstanceID) }

// Policy returns the policy of a service.
func (t *Table) Policy(serName string) *Policy {
	if p := t.policies[serName]; p != nil {
		return p
	}
	return t.anyone
}

// Policies returns all policies by name.
func (t *Table) Policies() map[string]*Policy { return t.policies }

// Default returns the policy of services without one of their own.
func (t *Table) Default() *Policy { return t.anyone }

// Static returns the router of the static routes and those of the platform, or nil if there are none.
func (t *Table) Static() *match.Router[*Route] { return t.static }

// Hosted reports whether any route applies to certain hosts only.
func (t *Table) Hosted() bool { return t.hosted }

// Routes returns the static routes and those of the platform, sorted by ID.
func (t *Table) Routes() []*Route { return t.routes }

// Refused returns the definitions that are not in use.
func (t *Table) Refused() []gateway.RefusedDefinition { return t.refused }

// Groups iterates over the services in no particular order.
func (t *Table) Groups(yield func(*Group) bool) { t.groups.all(yield) }

// Instances iterates over the instances in no particular order.
func (t *Table) Instances(yield func(*Instance) bool) { t.instances.all(yield) }

// Services returns the number of services.
func (t *Table) Services() int { return t.groups.count }

// InstanceOf returns the ID of the instance an endpoint belongs to, the first if there are several, or "" if it belongs to none of the
// group.
func (g *Group) InstanceOf(ep *upstream.Endpoint) string {
	return g.of[ep]
}

// InstancesOf iterates over the IDs of all instances an endpoint belongs to. Instances with the same address share an endpoint.
func (g *Group) InstancesOf(ep *upstream.Endpoint) iter.Seq[string] {
	return func(yield func(string) bool) {
		first, ok := g.of[ep]
		if !ok || !yield(first) {
			return
		}
		for _, id := range g.shared[ep] {
			if !yield(id) {
				return
			}
		}
	}
}
