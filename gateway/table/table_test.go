package table_test

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/openmep/mep/api/gateway"
	"github.com/openmep/mep/gateway/match"
	"github.com/openmep/mep/gateway/table"
	"github.com/openmep/mep/gateway/upstream"
)

// world is what a table should hold.
type world struct {
	groups    map[string]*table.Group
	instances map[string]*table.Instance
	apps      map[string]*table.App
}

func (w world) clone() world {
	return world{maps.Clone(w.groups), maps.Clone(w.instances), maps.Clone(w.apps)}
}

func check(rt *rapid.T, want world, t *table.Table, names []string) {
	for _, n := range names {
		require.Same(rt, want.groups[n], t.Group(n))
		require.Same(rt, want.instances[n], t.Instance(n))
		require.Same(rt, want.apps[n], t.App(n))
	}
	require.Equal(rt, len(want.groups), t.Services())
	seen := 0
	for g := range t.Groups {
		require.Same(rt, want.groups[g.Name], g)
		seen++
	}
	require.Equal(rt, len(want.groups), seen)
	seen = 0
	for i := range t.Instances {
		require.Same(rt, want.instances[i.ID], i)
		seen++
	}
	require.Equal(rt, len(want.instances), seen)
}

// TestEditsAgainstMaps edits tables at random and compares them with maps. Former tables must not change.
func TestEditsAgainstMaps(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		var names []string
		for i := range rapid.IntRange(1, 40).Draw(rt, "names") {
			names = append(names, fmt.Sprintf("name-%d", i))
		}
		name := rapid.SampledFrom(append(names, ""))
		now, want := &table.Table{}, world{make(map[string]*table.Group), make(map[string]*table.Instance), make(map[string]*table.App)}
		type version struct {
			table *table.Table
			want  world
		}
		var former []version
		for revision := range int64(rapid.IntRange(1, 8).Draw(rt, "edits")) {
			former = append(former, version{now, want.clone()})
			e := now.Edit()
			for range rapid.IntRange(0, 12).Draw(rt, "changes") {
				n, remove := name.Draw(rt, "name"), rapid.Bool().Draw(rt, "remove")
				switch rapid.IntRange(0, 2).Draw(rt, "kind") {
				case 0:
					if remove {
						delete(want.groups, n)
						e.SetGroup(n, nil)
					} else {
						want.groups[n] = &table.Group{Name: n}
						e.SetGroup(n, want.groups[n])
					}
				case 1:
					if remove {
						delete(want.instances, n)
						e.SetInstance(n, nil)
					} else {
						want.instances[n] = &table.Instance{ID: n}
						e.SetInstance(n, want.instances[n])
					}
				case 2:
					if remove {
						delete(want.apps, n)
						e.SetApp(n, nil)
					} else {
						want.apps[n] = &table.App{}
						e.SetApp(n, want.apps[n])
					}
				}
			}
			now = e.Done(revision)
			require.Equal(rt, revision, now.Revision)
			check(rt, want, now, append(names, ""))
		}
		for _, v := range former {
			check(rt, v.want, v.table, append(names, ""))
		}
	})
}

func TestWalksCanBeBrokenOff(t *testing.T) {
	t.Parallel()
	e := new(table.Table).Edit()
	for i := range 1000 {
		n := fmt.Sprint(i)
		e.SetGroup(n, &table.Group{Name: n})
		e.SetInstance(n, &table.Instance{ID: n})
	}
	now := e.Done(1)
	seen := 0
	for range now.Groups {
		if seen++; seen == 3 {
			break
		}
	}
	for range now.Instances {
		if seen++; seen == 5 {
			break
		}
	}
	require.Equal(t, 5, seen)
	for range new(table.Table).Groups {
		require.Fail(t, "there is nothing")
	}
}

func TestPoliciesOfServices(t *testing.T) {
	t.Parallel()
	anyone, one, next := &table.Policy{Name: "*"}, &table.Policy{Name: "one"}, &table.Policy{Name: "one"}
	e := new(table.Table).Edit()
	e.SetPolicies(map[string]*table.Policy{"one": one}, anyone)
	e.SetRefused([]gateway.RefusedDefinition{{ID: "x"}})
	first := e.Done(1)
	require.Same(t, one, first.Policy("one"))
	require.Same(t, anyone, first.Policy("two"))
	require.Same(t, anyone, first.Policy(""))
	e = first.Edit()
	e.SetPolicies(map[string]*table.Policy{"one": next}, anyone)
	e.SetRefused(nil)
	second := e.Done(2)
	require.Same(t, next, second.Policy("one"))
	require.Same(t, one, first.Policy("one"))
	require.Len(t, first.Refused(), 1)
	require.Empty(t, second.Refused())
}

func TestTablesKnowWhetherHostsMatter(t *testing.T) {
	t.Parallel()
	route := func(hosts ...string) []*table.Route {
		return []*table.Route{{ID: "platform"}, {ID: "r", Definition: &gateway.Route{Hosts: hosts}}}
	}
	e := new(table.Table).Edit()
	e.SetRoutes(match.NewRouter[*table.Route](nil), route())
	first := e.Done(1)
	require.False(t, first.Hosted())
	e = first.Edit()
	e.SetRoutes(match.NewRouter[*table.Route](nil), route("a"))
	second := e.Done(2)
	require.True(t, second.Hosted())
	e = second.Edit()
	e.SetRoutes(nil, nil)
	require.False(t, e.Done(3).Hosted())
}

func TestGroups(t *testing.T) {
	t.Parallel()
	a, b, c := new(upstream.Endpoint), new(upstream.Endpoint), new(upstream.Endpoint)
	one := &table.Instance{ID: "1", Owner: "x", Endpoints: []*upstream.Endpoint{a}}
	two := &table.Instance{ID: "2", Owner: "x", Endpoints: []*upstream.Endpoint{b, c}}
	g := table.NewGroup("s", []*table.Instance{one, two})
	require.True(t, g.Uniform)
	require.True(t, slices.Equal([]*upstream.Endpoint{a, b, c}, g.Endpoints))
	require.Equal(t, "2", g.InstanceOf(c))
	require.Empty(t, g.InstanceOf(new(upstream.Endpoint)))
	require.Empty(t, slices.Collect(g.InstancesOf(new(upstream.Endpoint))))
	three := &table.Instance{ID: "3", Owner: "x", Endpoints: []*upstream.Endpoint{c, c, a}}
	four := &table.Instance{ID: "4", Owner: "x", Endpoints: []*upstream.Endpoint{c}}
	shared := table.NewGroup("s", []*table.Instance{one, two, three, four})
	require.Equal(t, "2", shared.InstanceOf(c))
	for ep, want := range map[*upstream.Endpoint][]string{a: {"1", "3"}, b: {"2"}, c: {"2", "3", "4"}} {
		require.Equal(t, want, slices.Collect(shared.InstancesOf(ep)))
	}
	for id := range shared.InstancesOf(c) {
		require.Equal(t, "2", id, "the first, and then no more")
		break
	}
	require.Nil(t, table.NewGroup("s", nil))
	for name, other := range map[string]*table.Instance{
		"another owner": {Owner: "y"}, "for local consumers": {Owner: "x", LocalOnly: true}, "shared on request": {Owner: "x", Conditional: true},
	} {
		require.False(t, table.NewGroup("s", []*table.Instance{one, other}).Uniform, name)
	}
}

func TestDeclarations(t *testing.T) {
	t.Parallel()
	require.True(t, new(table.App).Declares("anything"))
	app := &table.App{Declared: []string{"a", "c"}}
	for name, want := range map[string]bool{"a": true, "b": false, "c": true, "": false, "d": false} {
		require.Equal(t, want, app.Declares(name), name)
	}
}
