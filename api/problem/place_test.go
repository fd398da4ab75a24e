package problem_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/api/problem"
)

func TestPlacesOfFaults(t *testing.T) {
	whole := problem.Place{Faults: &problem.InvalidParams{}}
	list := whole.In("transportInfo").In("endpoint").Item("uris", 1)
	for want, got := range map[string]string{
		"":                                     whole.Path(""),
		"name":                                 whole.Path("name"),
		"transportInfo.endpoint.uris[1]":       list.Path(""),
		"transportInfo.endpoint.uris[1].port":  list.Path("port"),
		"rules[0]":                             whole.Item("rules", 0).At,
		"rules[2].filter[0]":                   whole.Item("rules", 2).Item("filter", 0).At,
		"transportInfo.endpoint.uris[1][0].id": list.Item("", 0).Path("id"),
	} {
		require.Equal(t, want, got)
	}
}

func TestAMemberHasOneFault(t *testing.T) {
	faults := problem.InvalidParams{{Name: "list[3].id", Reason: "must be a number"}, {Name: "name", Reason: "must be a string"}}
	p := problem.Place{Faults: &faults}
	p.Fault("name", "is required")
	p.Fault("list", "is required")
	p.In("list").Fault("", "is required")
	require.Len(t, faults, 2, "whose type was refused is not missing")
	p.Fault("names", "is required")
	p.In("name").Fault("first", "is required")
	p.Check("other", nil)
	p.Check("other", errors.New("is wrong"))
	require.Equal(t, []string{"names", "name.first", "other"}, []string{faults[2].Name, faults[3].Name, faults[4].Name})
	require.Equal(t, "is wrong", faults[4].Reason)
}

func TestFaultsAreBounded(t *testing.T) {
	for most, want := range map[int]int{0: 10, 3: 3, 20: 10} {
		p := problem.Place{Faults: &problem.InvalidParams{}, Most: most}
		for i := range 10 {
			p.In(fmt.Sprint("member", i)).Fault("", "is wrong")
		}
		require.Len(t, *p.Faults, want)
		require.Equal(t, most == 3, p.Full())
	}
}

func TestARefusedValueIsShownShortened(t *testing.T) {
	require.EqualError(t, problem.Refused("a number", "x\ny"), `must be a number, not "x\ny"`)
	require.Equal(t, `"`+strings.Repeat("ä", problem.MaxQuoted)+`"`, problem.Quote(strings.Repeat("ä", problem.MaxQuoted)))
	require.Equal(t, `"`+strings.Repeat("ä", problem.MaxQuoted)+`…"`, problem.Quote(strings.Repeat("ä", problem.MaxQuoted+1)))
	require.Equal(t, `"\xff"`, problem.Quote("\xff"))
}
