package follow

import (
	"maps"
	"slices"

	"github.com/openmep/mep/gateway/match"
	"github.com/openmep/mep/gateway/table"
	"github.com/openmep/mep/gateway/upstream"
)

// reach rebuilds the endpoints of static routes that lead to services but whose profile differs from that of the service's policy, for
// example in timeouts or certificates. It does so for routes that were rebuilt and for services that changed; groups are the latter.
func (b *builder) reach(groups map[string]*table.Group) {
	changed := false
	for _, id := range slices.Sorted(maps.Keys(b.statics)) {
		s := b.statics[id]
		d := s.route.Definition
		if d == nil || d.Service == "" || s.route.Policy.Closed {
			continue
		}
		group, moved := groups[d.Service]
		if !moved {
			if s.reached {
				continue
			}
			group = b.now.Group(d.Service)
		}
		next := b.reached(s, group)
		if next == nil {
			continue
		}
		if s.route.Group != nil {
			b.drop = append(b.drop, s.route.Group.Endpoints...)
		}
		b.statics[id] = next
		changed = true
	}
	if changed {
		b.publishRoutes()
	}
}

// reached returns the route with the endpoints of a group as its own policy reaches them, or nil if nothing changes.
func (b *builder) reached(s *static, group *table.Group) *static {
	s.reached = true
	policy := s.route.Policy
	var own *table.Group
	if group != nil && policy.Profile != b.policy(group.Name).Profile {
		own = b.ownGroup(group, policy)
	}
	if own == nil && s.route.Group == nil {
		return nil
	}
	r := *s.route
	r.Group = own
	entry, err := match.NewEntry(r.Definition, &r)
	if err != nil {
		return nil // the definition was valid before
	}
	return &static{route: &r, entry: entry, reached: true}
}

// ownGroup returns a copy of a group whose endpoints are reached as a policy says.
func (b *builder) ownGroup(group *table.Group, policy *table.Policy) *table.Group {
	instances := make([]*table.Instance, 0, len(group.Instances))
	for _, i := range group.Instances {
		own := *i
		own.Endpoints = make([]*upstream.Endpoint, 0, len(i.Endpoints))
		for _, e := range i.Endpoints {
			if ep, err := policy.Upstream.Endpoint(policy.Profile, e.View().URL); err == nil {
				own.Endpoints = append(own.Endpoints, ep)
			}
		}
		instances = append(instances, &own)
	}
	return table.NewGroup(group.Name, instances)
}
