package table

import (
	"slices"

	"github.com/openmep/mep/api/gateway"
	"github.com/openmep/mep/gateway/match"
)

// Edit makes the next table from one. It is for one goroutine.
type Edit struct {
	next      Table
	groups    *editor[*Group]
	instances *editor[*Instance]
	apps      *editor[*App]
	labels    *editor[*Label]
}

// Edit begins the next table.
func (t *Table) Edit() *Edit { return &Edit{next: *t} }

// SetGroup puts the group of a serName in place; nil removes it.
func (e *Edit) SetGroup(serName string, g *Group) {
	if e.groups == nil {
		e.groups = e.next.groups.edit()
	}
	if e.next.domain != "" {
		e.setLabel(serName, g)
	}
	if g == nil {
		e.groups.remove(serName)
		return
	}
	e.groups.put(serName, g)
}

// SetDomain puts the domain of services in place; "" for none.
func (e *Edit) SetDomain(d match.Domain) {
	had := e.next.domain != ""
	e.next.domain = d
	switch {
	case d == "":
		e.next.labels, e.labels = shards[*Label]{}, nil
	case !had:
		e.labelAll()
	}
}

// SetInstance puts an instance in place; nil removes it.
func (e *Edit) SetInstance(serInstanceID string, i *Instance) {
	if e.instances == nil {
		e.instances = e.next.instances.edit()
	}
	if i == nil {
		e.instances.remove(serInstanceID)
		return
	}
	e.instances.put(serInstanceID, i)
}

// SetApp puts an app instance in place; nil removes it.
func (e *Edit) SetApp(appInstanceID string, a *App) {
	if e.apps == nil {
		e.apps = e.next.apps.edit()
	}
	if a == nil {
		e.apps.remove(appInstanceID)
		return
	}
	e.apps.put(appInstanceID, a)
}

// SetPolicies puts all policies in place, and the one of services without.
func (e *Edit) SetPolicies(policies map[string]*Policy, anyone *Policy) {
	if e.next.domain != "" {
		e.namePolicies(e.next.policies, policies)
	}
	e.next.policies, e.next.anyone = policies, anyone
}

// SetRoutes puts the static routes and those of the platform in place.
func (e *Edit) SetRoutes(static *match.Router[*Route], routes []*Route) {
	e.next.static, e.next.routes = static, routes
	e.next.hosted = slices.ContainsFunc(routes, func(r *Route) bool { return r.Definition != nil && len(r.Definition.Hosts) > 0 })
}

// SetRefused lists the definitions that are not in use.
func (e *Edit) SetRefused(list []gateway.RefusedDefinition) { e.next.refused = list }

// Done returns the table, as of a revision.
func (e *Edit) Done(revision int64) *Table {
	t := e.next
	t.Revision = revision
	if e.groups != nil {
		t.groups = e.groups.next
	}
	if e.instances != nil {
		t.instances = e.instances.next
	}
	if e.apps != nil {
		t.apps = e.apps.next
	}
	if e.labels != nil {
		t.labels = e.labels.next
	}
	return &t
}
