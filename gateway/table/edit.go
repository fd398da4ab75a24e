package table

import (
	"slices"

	"github.com/openmep/mep/api/gateway"
	"github.com/openmep/mep/gateway/match"
)

// Edit builds the next table from a former one. It is not safe for concurrent use.
type Edit struct {
	next      Table
	groups    *editor[*Group]
	instances *editor[*Instance]
	apps      *editor[*App]
	labels    *editor[*Label]
}

// Edit returns an Edit for the next table.
func (t *Table) Edit() *Edit { return &Edit{next: *t} }

// SetGroup sets the group of a serName; nil removes it.
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

// SetDomain sets the domain of services; "" means none.
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

// SetInstance sets an instance; nil removes it.
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

// SetApp sets an app instance; nil removes it.
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

// SetPolicies sets all policies, and the one for services without a policy of their own.
func (e *Edit) SetPolicies(policies map[string]*Policy, anyone *Policy) {
	if e.next.domain != "" {
		e.namePolicies(e.next.policies, policies)
	}
	e.next.policies, e.next.anyone = policies, anyone
}

// SetRoutes sets the static routes and those of the platform.
func (e *Edit) SetRoutes(static *match.Router[*Route], routes []*Route) {
	e.next.static, e.next.routes = static, routes
	e.next.hosted = slices.ContainsFunc(routes, func(r *Route) bool { return r.Definition != nil && len(r.Definition.Hosts) > 0 })
}

// SetRefused sets the list of definitions that are not in use.
func (e *Edit) SetRefused(list []gateway.RefusedDefinition) { e.next.refused = list }

// Done returns the table as of a revision.
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
