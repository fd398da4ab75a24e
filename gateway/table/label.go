package table

import (
	"maps"
	"slices"
	"strings"

	"github.com/openmep/mep/api/gateway"
)

// Label is what a label of the domain of services stands for: exactly one spelling of a serName. Apps choose serNames, and might choose one
// that differs only in case from another app's. A Label is immutable.
type Label struct {
	// Name is the serName the label stands for; "" if it is ambiguous.
	Name string
	// Group holds the instances the label leads to; nil if there are none.
	Group *Group
	// Groups and Policies are the spellings used by services and by policies, sorted.
	Groups, Policies []string

	groups []*Group
}

// Leads reports whether the label leads to g. The label may be nil.
func (l *Label) Leads(g *Group) bool { return l != nil && l.Group == g }

// newLabel decides what a label in lower case stands for: a service or policy with exactly this spelling if there is one, otherwise the
// only spelling there is. If policies use some spellings, services with other spellings are not reached: they would benefit from a policy
// that was meant for the name, including its owners.
func newLabel(label string, groups []*Group, policies []string) *Label {
	l := &Label{Policies: policies, groups: groups}
	for _, g := range groups {
		l.Groups = append(l.Groups, g.Name)
	}
	spellings := slices.Compact(slices.Sorted(slices.Values(slices.Concat(l.Groups, policies))))
	switch {
	case slices.Contains(policies, label), slices.Contains(l.Groups, label) && len(policies) == 0:
		l.Name = label
	case len(spellings) == 1:
		l.Name = spellings[0]
	}
	for _, g := range groups {
		if g.Name == l.Name {
			l.Group = g
		}
	}
	return l
}

// setLabel sets the group of a serName under its label, if the serName can be a label of a host name; nil removes it.
func (e *Edit) setLabel(serName string, g *Group) {
	e.relabel(serName, func(groups []*Group, policies []string) ([]*Group, []string) {
		groups = slices.DeleteFunc(slices.Clone(groups), func(o *Group) bool { return o.Name == serName })
		if g != nil {
			groups = append(groups, g)
			slices.SortFunc(groups, func(x, y *Group) int { return strings.Compare(x.Name, y.Name) })
		}
		return groups, policies
	})
}

// namePolicy records whether there is a policy for a serName.
func (e *Edit) namePolicy(serName string, there bool) {
	e.relabel(serName, func(groups []*Group, policies []string) ([]*Group, []string) {
		policies = slices.DeleteFunc(slices.Clone(policies), func(o string) bool { return o == serName })
		if there {
			policies = append(policies, serName)
			slices.Sort(policies)
		}
		return groups, policies
	})
}

// namePolicies records which serNames have policies. Only policies that were added or removed cost more than a lookup.
func (e *Edit) namePolicies(was, now map[string]*Policy) {
	for name := range was {
		if _, still := now[name]; !still {
			e.namePolicy(name, false)
		}
	}
	for name := range now {
		if _, had := was[name]; !had {
			e.namePolicy(name, true)
		}
	}
}

// relabel changes the entry for the label of a serName, if the serName can be a label.
func (e *Edit) relabel(serName string, change func([]*Group, []string) ([]*Group, []string)) {
	if !gateway.IsLabel(serName) {
		return
	}
	if e.labels == nil {
		e.labels = e.next.labels.edit()
	}
	label := strings.ToLower(serName)
	var groups []*Group
	var policies []string
	if was := e.labels.next.get(label); was != nil {
		groups, policies = was.groups, was.Policies
	}
	if groups, policies = change(groups, policies); len(groups)+len(policies) == 0 {
		e.labels.remove(label)
		return
	}
	e.labels.put(label, newLabel(label, groups, policies))
}

// labelAll records all serNames in the table.
func (e *Edit) labelAll() {
	groups := &e.next.groups
	if e.groups != nil {
		groups = &e.groups.next
	}
	for g := range groups.all {
		e.setLabel(g.Name, g)
	}
	for name := range maps.Keys(e.next.policies) {
		e.namePolicy(name, true)
	}
}
