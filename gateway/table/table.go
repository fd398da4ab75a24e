// Package table is what the gateway routes by: an immutable picture of the services, app instances, policies and static routes, which
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

// Where definitions come from.
const (
	FromConfiguration = "configuration"
	FromManagement    = "management"
	FromRegistry      = "registry"
	FromPlatform      = "platform"
	FromDefaults      = "defaults"
)

// Policy is a policy that can be applied.
type Policy struct {
	// Name is the serName it is for, gateway.AnyService, or the id of a route; Source is where it comes from.
	Name, Source string
	// Closed says that the policy cannot be applied and that there is none before it: it refuses all calls, as does what is built on it.
	Closed bool
	// Definition is what was defined, Spec what holds: the definition, with what it leaves open filled in.
	Definition, Spec gateway.Policy
	// Rules are its rules, compiled.
	Rules []rule.Rule
	// Profile says how targets are reached.
	Profile *upstream.Profile
	// Upstream makes the calls.
	Upstream *upstream.Manager
	// Headers says what becomes of header fields.
	Headers Plan
	// Handler takes the calls that were routed, Filters names what they run through.
	Handler http.Handler
	Filters []string
}

// Instance is a service instance that calls may go to.
type Instance struct {
	// ID is its serInstanceId, Owner the app instance that offers it, Service its serName.
	ID, Owner, Service string
	// LocalOnly says that only local consumers may use it, Conditional that the app wants to be asked.
	LocalOnly, Conditional bool
	// Revision is that of the record.
	Revision int64
	// Endpoints are where it is reached, Refused the URIs the gateway cannot or will not call.
	Endpoints []*upstream.Endpoint
	Refused   []gateway.TargetView
}

// Group is the instances of one serName.
type Group struct {
	Name string
	// Instances are in the order of their ids.
	Instances []*Instance
	// Endpoints are those of all instances.
	Endpoints []*upstream.Endpoint
	// Uniform says that who may use one of the instances may use all.
	Uniform bool

	of     map[*upstream.Endpoint]string   // the ids of the instances
	shared map[*upstream.Endpoint][]string // those of the further ones that have an endpoint, too
}

// NewGroup makes the group of some instances; nil when there are none.
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
			case first != i.ID: // several may have the same address
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

// Route is a static route, or one of the platform's own.
type Route struct {
	// ID names it; Kind is gateway.KindStatic or gateway.KindPlatform.
	ID, Kind, Source string
	Revision         int64
	// Refused says why a later definition is not in use.
	Refused string
	// Definition is what is in use; nil for routes of the platform.
	Definition *gateway.Route
	// Paths are the paths of a route of the platform, for people.
	Paths []string
	// Rewriter makes the path that is passed on.
	Rewriter *match.Rewriter
	// Endpoints are where it leads, unless it leads to a service, or to Local.
	Endpoints []*upstream.Endpoint
	// Group is the service the route leads to, as its own policy reaches it; nil when that is as the policy of the service does.
	Group *Group
	// Local answers within this process.
	Local  http.Handler
	Policy *Policy
	Series *meter.Route
}

// App is what matters of an app instance.
type App struct {
	// Declared are the services it said it uses, sorted; none when it said nothing.
	Declared []string
}

// Declares reports whether the app may see a service by what it declared (decision 14).
func (a *App) Declares(serName string) bool {
	if len(a.Declared) == 0 {
		return true
	}
	_, ok := slices.BinarySearch(a.Declared, serName)
	return ok
}

// Table is the picture. The zero Table has nothing in it.
type Table struct {
	// Revision is the revision of etcd it shows.
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
	labels shards[*Label] // by the labels in lower case; empty while there is no domain
}

// Group returns the instances of a serName; nil when there are none.
func (t *Table) Group(serName string) *Group { return t.groups.get(serName) }

// Instance finds an instance by its id; nil when there is none.
func (t *Table) Instance(serInstanceID string) *Instance { return t.instances.get(serInstanceID) }

// Domain is the domain below which services and instances have host names; "" when they have none.
func (t *Table) Domain() match.Domain { return t.domain }

// Labelled is what a label of the domain stands for, in whatever case it is; nil when nothing is called so.
func (t *Table) Labelled(label string) *Label { return t.labels.folded(label) }

// LabelledInstance finds an instance by its id as a label of the domain, in whatever case; nil when there is none.
func (t *Table) LabelledInstance(label string) *Instance { return t.instances.folded(label) }

// App finds an app instance; nil when there is none.
func (t *Table) App(appInstanceID string) *App { return t.apps.get(appInstanceID) }

// Policy is the policy of a service.
func (t *Table) Policy(serName string) *Policy {
	if p := t.policies[serName]; p != nil {
		return p
	}
	return t.anyone
}

// Policies are all policies, in no order.
func (t *Table) Policies() map[string]*Policy { return t.policies }

// Default is the policy of services without one of their own.
func (t *Table) Default() *Policy { return t.anyone }

// Static matches static routes and those of the platform; nil when there are none.
func (t *Table) Static() *match.Router[*Route] { return t.static }

// Hosted reports whether there are routes that are for some hosts only.
func (t *Table) Hosted() bool { return t.hosted }

// Routes are the static routes and those of the platform, in the order of their ids.
func (t *Table) Routes() []*Route { return t.routes }

// Refused lists the definitions that are not in use.
func (t *Table) Refused() []gateway.RefusedDefinition { return t.refused }

// Groups walks over the services, in no order.
func (t *Table) Groups(yield func(*Group) bool) { t.groups.all(yield) }

// Instances walks over the instances, in no order.
func (t *Table) Instances(yield func(*Instance) bool) { t.instances.all(yield) }

// Services is the number of services.
func (t *Table) Services() int { return t.groups.count }

// InstanceOf is the id of the instance an endpoint belongs to, of the first when there are several; "" when it belongs to none of the
// group.
func (g *Group) InstanceOf(ep *upstream.Endpoint) string {
	return g.of[ep]
}

// InstancesOf walks over the ids of all instances an endpoint belongs to: those with the same address share one.
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
