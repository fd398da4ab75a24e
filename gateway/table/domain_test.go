package table_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/openmep/mep/gateway/match"
	"github.com/openmep/mep/gateway/table"
)

// namesOf are the names of services that a label stands for.
func namesOf(t *table.Table, label string) []string {
	var names []string
	for _, g := range t.Labelled(label) {
		names = append(names, g.Name)
	}
	return names
}

func TestServicesByLabel(t *testing.T) {
	e := new(table.Table).Edit()
	for _, name := range []string{"hello", "Clock", "chat", "Chat", "my_service", "a.b", "bücher", strings.Repeat("L", 63), strings.Repeat("l", 64)} {
		e.SetGroup(name, &table.Group{Name: name})
	}
	e.SetInstance("375602e6-dbac-40f3-8939-63c3819308df", &table.Instance{ID: "375602e6-dbac-40f3-8939-63c3819308df"})
	e.SetDomain("mec.example")
	now := e.Done(1)
	require.Equal(t, match.Domain("mec.example"), now.Domain())
	for label, want := range map[string][]string{
		"hello": {"hello"}, "HELLO": {"hello"}, "clock": {"Clock"}, "CLOCK": {"Clock"}, "chat": {"Chat", "chat"}, "cHAT": {"Chat", "chat"},
		strings.Repeat("l", 63): {strings.Repeat("L", 63)},
		"my_service":            nil, "a.b": nil, "bücher": nil, "none": nil, "": nil, strings.Repeat("l", 64): nil, strings.Repeat("l", 65): nil,
	} {
		require.Equal(t, want, namesOf(now, label), label)
	}
	require.NotNil(t, now.LabelledInstance("375602E6-dbac-40f3-8939-63c3819308df"))
	require.Nil(t, now.LabelledInstance("375602e6-dbac-40f3-8939-63c3819308d"))
	require.Nil(t, new(table.Table).LabelledInstance("a"))
	require.Zero(t, testing.AllocsPerRun(100, func() { _ = now.Labelled("HELLO") }))

	e = now.Edit()
	e.SetGroup("Chat", nil)
	next := e.Done(2)
	require.Equal(t, []string{"chat"}, namesOf(next, "chat"), "there is no doubt any more")
	require.Equal(t, []string{"Chat", "chat"}, namesOf(now, "chat"))
	e = next.Edit()
	e.SetDomain("")
	off := e.Done(3)
	require.Empty(t, off.Labelled("hello"))
	require.Empty(t, off.Domain())
}

// TestLabelsAgainstNames edits tables at random, with and without a domain, and compares with a search through all names.
func TestLabelsAgainstNames(t *testing.T) {
	t.Parallel()
	names := []string{"a", "A", "b", "B", "aB", "Ab", "AB", "c_", "d.e", "f"}
	rapid.Check(t, func(rt *rapid.T) {
		now, want := &table.Table{}, make(map[string]*table.Group)
		domain := match.Domain("")
		for revision := range int64(rapid.IntRange(1, 8).Draw(rt, "edits")) {
			e := now.Edit()
			for range rapid.IntRange(0, 8).Draw(rt, "changes") {
				name := rapid.SampledFrom(names).Draw(rt, "name")
				switch rapid.IntRange(0, 3).Draw(rt, "change") {
				case 0:
					delete(want, name)
					e.SetGroup(name, nil)
				case 1:
					domain = match.Domain(rapid.SampledFrom([]string{"", "x.example", "y.example"}).Draw(rt, "domain"))
					e.SetDomain(domain)
				default:
					want[name] = &table.Group{Name: name, Instances: []*table.Instance{{ID: fmt.Sprint(revision)}}}
					e.SetGroup(name, want[name])
				}
			}
			now = e.Done(revision)
			for _, label := range []string{"a", "B", "ab", "AB", "c_", "d.e", "F"} {
				var expected []*table.Group
				for _, name := range slices.Sorted(slices.Values(names)) {
					if g := want[name]; g != nil && domain != "" && strings.EqualFold(name, label) && !strings.ContainsAny(name, "_.") {
						expected = append(expected, g)
					}
				}
				require.Equal(rt, expected, now.Labelled(label), label)
			}
		}
	})
}
