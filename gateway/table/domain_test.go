package table_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/openmep/mep/gateway/match"
	"github.com/openmep/mep/gateway/table"
)

// reached returns the name of the service that a label leads to, or "" if there is none.
func reached(t *table.Table, label string) string {
	if l := t.Labelled(label); l != nil && l.Group != nil {
		return l.Group.Name
	}
	return ""
}

func named(names ...string) map[string]*table.Policy {
	policies := make(map[string]*table.Policy)
	for _, name := range names {
		policies[name] = &table.Policy{Name: name}
	}
	return policies
}

func TestServicesByLabel(t *testing.T) {
	e := new(table.Table).Edit()
	for _, name := range []string{"hello", "Clock", "chat", "Chat", "Talk", "TALK", "my_service", "a.b", "bücher", strings.Repeat("L", 63), strings.Repeat("l", 64)} {
		e.SetGroup(name, &table.Group{Name: name})
	}
	e.SetInstance("375602e6-dbac-40f3-8939-63c3819308df", &table.Instance{ID: "375602e6-dbac-40f3-8939-63c3819308df"})
	e.SetDomain("mec.example")
	now := e.Done(1)
	require.Equal(t, match.Domain("mec.example"), now.Domain())
	for label, want := range map[string]string{
		"hello": "hello", "HELLO": "hello", "clock": "Clock", "CLOCK": "Clock", "chat": "chat", "cHAT": "chat", "Chat": "chat", "talk": "", "TALK": "",
		strings.Repeat("l", 63): strings.Repeat("L", 63),
		"my_service":            "", "a.b": "", "bücher": "", "none": "", "": "", strings.Repeat("l", 64): "", strings.Repeat("l", 65): "",
	} {
		require.Equal(t, want, reached(now, label), label)
	}
	require.Equal(t, []string{"TALK", "Talk"}, now.Labelled("talk").Groups)
	require.Empty(t, now.Labelled("talk").Name)
	require.NotNil(t, now.LabelledInstance("375602E6-dbac-40f3-8939-63c3819308df"))
	require.Nil(t, now.LabelledInstance("375602e6-dbac-40f3-8939-63c3819308d"))
	require.Nil(t, new(table.Table).LabelledInstance("a"))
	require.Zero(t, testing.AllocsPerRun(100, func() { _ = now.Labelled("HELLO") }))

	e = now.Edit()
	e.SetGroup("TALK", nil)
	next := e.Done(2)
	require.Equal(t, "Talk", reached(next, "talk"), "there is no doubt any more")
	require.Empty(t, reached(now, "talk"))
	e = next.Edit()
	e.SetDomain("")
	off := e.Done(3)
	require.Nil(t, off.Labelled("hello"))
	require.Empty(t, off.Domain())
}

// TestALabelStandsForOneSpelling: nobody gets or takes over a name by registering it in another case.
func TestALabelStandsForOneSpelling(t *testing.T) {
	for name, x := range map[string]struct {
		groups, policies []string
		label, reached   string // the name it stands for, and the service it leads to
	}{
		"a service":                                      {[]string{"weather"}, nil, "weather", "weather"},
		"a service with a policy":                        {[]string{"weather"}, []string{"weather"}, "weather", "weather"},
		"a variant beside a service":                     {[]string{"WEATHER", "weather"}, nil, "weather", "weather"},
		"a variant with a policy, beside a service":      {[]string{"WEATHER", "weather"}, []string{"WEATHER"}, "", ""},
		"a variant of what has a policy and is away":     {[]string{"WEATHER"}, []string{"weather"}, "weather", ""},
		"several variants of it":                         {[]string{"WEATHER", "Weather"}, []string{"weather"}, "weather", ""},
		"a variant beside what has a policy":             {[]string{"WEATHER", "weather"}, []string{"weather"}, "weather", "weather"},
		"both with policies":                             {[]string{"WEATHER", "weather"}, []string{"WEATHER", "weather"}, "weather", "weather"},
		"a variant alone":                                {[]string{"Weather"}, nil, "Weather", "Weather"},
		"a variant with a policy":                        {[]string{"Weather"}, []string{"Weather"}, "Weather", "Weather"},
		"a variant with a policy, away":                  {nil, []string{"Weather"}, "Weather", ""},
		"two variants":                                   {[]string{"WEATHER", "Weather"}, nil, "", ""},
		"two variants, one with a policy":                {[]string{"WEATHER", "Weather"}, []string{"Weather"}, "", ""},
		"another spelling than that of the policy":       {[]string{"WEATHER"}, []string{"Weather"}, "", ""},
		"in lower case where the policy is not":          {[]string{"weather"}, []string{"Weather"}, "", ""},
		"policies with two spellings":                    {nil, []string{"WEATHER", "Weather"}, "", ""},
		"policies with two spellings, one in lower case": {nil, []string{"WEATHER", "weather"}, "weather", ""},
	} {
		t.Run(name, func(t *testing.T) {
			set := func(e *table.Edit) {
				for _, g := range x.groups {
					e.SetGroup(g, &table.Group{Name: g})
				}
			}
			orders := map[string]func(e *table.Edit){
				"the domain first": func(e *table.Edit) { e.SetDomain("mec.example"); set(e); e.SetPolicies(named(x.policies...), nil) },
				"the domain last":  func(e *table.Edit) { e.SetPolicies(named(x.policies...), nil); set(e); e.SetDomain("mec.example") },
				"with others meanwhile": func(e *table.Edit) {
					e.SetDomain("mec.example")
					e.SetPolicies(named("WeatheR", "weather"), nil)
					e.SetGroup("wEATHER", &table.Group{Name: "wEATHER"})
					set(e)
					e.SetPolicies(named(append([]string{"*", "other"}, x.policies...)...), nil)
					e.SetGroup("wEATHER", nil)
				},
			}
			for order, edit := range orders {
				e := new(table.Table).Edit()
				edit(e)
				now := e.Done(1)
				l := now.Labelled("weather")
				require.NotNil(t, l, order)
				require.Equal(t, x.label, l.Name, order)
				require.Equal(t, x.reached, reached(now, "weather"), order)
				require.True(t, slices.Equal(x.groups, l.Groups), "%s: %v", order, l.Groups)
				require.True(t, slices.Equal(x.policies, l.Policies), "%s: %v", order, l.Policies)
			}
		})
	}
}

// TestPoliciesThatChangeLeaveLabelsAlone: only added and removed policies affect labels.
func TestPoliciesThatChangeLeaveLabelsAlone(t *testing.T) {
	e := new(table.Table).Edit()
	e.SetDomain("mec.example")
	e.SetGroup("hello", &table.Group{Name: "hello"})
	e.SetPolicies(named("hello", "other"), nil)
	now := e.Done(1)
	e = now.Edit()
	e.SetPolicies(named("hello"), nil)
	next := e.Done(2)
	require.Same(t, now.Labelled("hello"), next.Labelled("hello"))
	require.NotNil(t, now.Labelled("other"))
	require.Nil(t, next.Labelled("other"))
}

// TestLabelsAgainstNames edits tables at random, with and without a domain, and compares them with a search through all names.
func TestLabelsAgainstNames(t *testing.T) {
	t.Parallel()
	names := []string{"a", "A", "b", "B", "aB", "Ab", "AB", "c_", "d.e", "f"}
	rapid.Check(t, func(rt *rapid.T) {
		now, groups, policies := &table.Table{}, make(map[string]*table.Group), make(map[string]*table.Policy)
		domain := match.Domain("")
		for revision := range int64(rapid.IntRange(1, 8).Draw(rt, "edits")) {
			e := now.Edit()
			for range rapid.IntRange(0, 8).Draw(rt, "changes") {
				name := rapid.SampledFrom(names).Draw(rt, "name")
				switch rapid.IntRange(0, 5).Draw(rt, "change") {
				case 0:
					delete(groups, name)
					e.SetGroup(name, nil)
				case 1:
					domain = match.Domain(rapid.SampledFrom([]string{"", "x.example", "y.example"}).Draw(rt, "domain"))
					e.SetDomain(domain)
				case 2:
					policies = maps.Clone(policies)
					delete(policies, name)
					e.SetPolicies(policies, nil)
				case 3:
					policies = maps.Clone(policies)
					policies[name] = &table.Policy{Name: name}
					e.SetPolicies(policies, nil)
				default:
					groups[name] = &table.Group{Name: name, Instances: []*table.Instance{{ID: fmt.Sprint(revision)}}}
					e.SetGroup(name, groups[name])
				}
			}
			now = e.Done(revision)
			for _, label := range []string{"a", "B", "ab", "AB", "c_", "d.e", "F"} {
				of, by := alike(label, slices.Sorted(maps.Keys(groups))), alike(label, slices.Sorted(maps.Keys(policies)))
				l := now.Labelled(label)
				if domain == "" || strings.ContainsAny(label, "_.") || len(of)+len(by) == 0 {
					require.Nil(rt, l, label)
					continue
				}
				require.True(rt, slices.Equal(of, l.Groups), "%s: %v", label, l.Groups)
				require.True(rt, slices.Equal(by, l.Policies), "%s: %v", label, l.Policies)
				if l.Group == nil {
					require.False(rt, slices.Contains(of, l.Name), label)
					continue
				}
				require.Same(rt, groups[l.Name], l.Group, label)
				require.True(rt, l.Name == strings.ToLower(label) || len(of) == 1, "%s: %s of %v", label, l.Name, of)
				require.True(rt, len(by) == 0 || slices.Contains(by, l.Name), "%s: %s of the policies %v", label, l.Name, by)
			}
		}
	})
}

// alike returns the names that equal a label except for case.
func alike(label string, names []string) []string {
	var list []string
	for _, name := range names {
		if strings.EqualFold(name, label) {
			list = append(list, name)
		}
	}
	return list
}
