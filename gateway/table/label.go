package table

import (
	"maps"
	"slices"
	"strings"

	"github.com/openmep/mep/api/gateway"
)

// Label is what a label of the domain of services stands for: one spelling of a serName, and no other. Apps choose serNames, and might
// choose one that differs from another's in its case only. It does not change.
type Label struct {
	// Name is the serName it stands for; "" when it is not clear which.
	Name string
	// Group are the instances that are reached by it; nil when there are none.
	Group *Group
	// Groups and Policies are the spellings of services and of policies, sorted.
	Groups, Policies []string

	groups []*Group
}

// Leads reports whether the label, of which there may be nothing to say, leads to g.
func (l *Label) Leads(g *Group) bool { return l != nil && l.Group == g }

// newLabel decides what a label in lower case stands for: the service or the policy that is spelt like it, if there is one, otherwise the
// only spelling there is. Where policies have spellings of it, services of another are not reached by it: they would get by a policy that
// was meant for the name, with its owners.
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

// setLabel puts the group of a serName that can be a label of a host name where hosts are looked up; nil removes it.
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

// namePolicy notes that there is a policy of a serName, or that there is none any more.
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

// namePolicies notes which serNames have policies. Only those that had none, or have none any more, cost more than a look.
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

// relabel changes what is known of the label of a serName, if that can be one.
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

// labelAll notes all serNames there are.
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
