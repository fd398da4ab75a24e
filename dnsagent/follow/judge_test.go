package follow_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"
	"github.com/stretchr/testify/require"

	api "github.com/openmep/mep/api/dns"
	"github.com/openmep/mep/api/mp1"
	"github.com/openmep/mep/api/state"
	"github.com/openmep/mep/dnsagent/follow"
	"github.com/openmep/mep/dnsagent/table"
	"github.com/openmep/mep/kit/etcdtest"
)

// record stores a record of the management API.
func (f *fixture) record(r api.Record) {
	f.tb.Helper()
	f.put(state.DNSRecordKey(r.Name, r.Type, r.View), encode(f.tb, state.DNSRecord{Version: state.Current(), Record: r}))
}

func TestARuleWinsOverAnAliasOfItsName(t *testing.T) {
	store := etcdtest.Start(t).Store(t)
	f := start(t, store, config(t))
	alias := api.Record{Name: "www.example.", Type: "CNAME", TTL: 5, RData: []string{"other.example."}}
	f.record(alias)
	require.Empty(t, f.feed.Unanswered(&alias))

	f.put(state.DNSRulesKey(app1), rules(t, 1, true, rule("a", "www.example", "192.0.2.1", 1, mp1.RuleActive)))
	require.Equal(t, "a name with a CNAME has nothing else, and there is the A of rules of "+app1, f.feed.Unanswered(&alias))
	require.Equal(t, []string{"a"}, f.feed.Served(app1).Applied)
	a := f.table.Load().Lookup(name(t, "www.example"), dns.TypeA, table.Everyone)
	require.Equal(t, dns.TypeA, a.Set.Type)

	require.Equal(t, []string{"www.example. CNAME would not be answered: a name with a CNAME has nothing else, and there is the A of rules of " + app1},
		f.feed.Displaced([]api.Record{alias}))
	require.Empty(t, f.feed.Displaced([]api.Record{{Name: "www.example.", Type: "TXT", TTL: 5, RData: []string{"x"}}}), "an alias that is lost is in nobody's way")
	require.Empty(t, f.feed.Displaced([]api.Record{{Name: "x.example.", Type: "CNAME", TTL: 5, RData: []string{"www.example."}}}))

	f.put(state.DNSRulesKey(app1), rules(t, 2, true, rule("a", "www.example", "192.0.2.1", 1, mp1.RuleInactive)))
	require.Empty(t, f.feed.Unanswered(&alias))
}

func TestARecordOfNoViewIsNotAnswered(t *testing.T) {
	store := etcdtest.Start(t).Store(t)
	cfg := config(t)
	cfg.Views = []follow.View{{Name: "pool"}}
	f := start(t, store, cfg)
	lost := api.Record{Name: "www.example.", Type: "A", TTL: 5, RData: []string{"192.0.2.1"}, View: "gone"}
	f.record(lost)
	require.Equal(t, "the view gone is not configured: nobody sees the record", f.feed.Unanswered(&lost))
	lost.View = "pool"
	f.record(lost)
	require.Empty(t, f.feed.Unanswered(&lost))
}

// If there are too many addresses, the same ones are answered in whatever order the apps come, and the others are reported
// as long as they are not answered.
func TestRulesThatDoNotFitAreReported(t *testing.T) {
	store := etcdtest.Start(t).Store(t)
	f := start(t, store, config(t))
	const fitting = 4000 // of 16 octets each
	some := func(app string, from, to int) {
		var list []state.Rule[mp1.DNSRule]
		for i := from; i < to; i++ {
			list = append(list, rule(fmt.Sprint(i), "many.example", fmt.Sprintf("10.0.%d.%d", i/250, i%250+1), 1, mp1.RuleActive))
		}
		f.put(state.DNSRulesKey(app), rules(t, int64(to), true, list...))
	}
	some(app1, 1000, fitting+10)
	require.Len(t, f.feed.Served(app1).Applied, fitting-990)
	require.Empty(t, f.feed.Served(app1).Failed)

	some(app2, 0, 1000)
	_, _, n := f.ask("many.example", dns.TypeA, table.Everyone)
	require.Equal(t, fitting, n)
	require.Len(t, f.feed.Served(app2).Applied, 1000)
	served := f.feed.Served(app1)
	require.Len(t, served.Applied, fitting-1000)
	require.Len(t, served.Failed, 10)
	require.Equal(t, "the records of the type A of this name take more than 64000 octets of an answer", served.Failed["4009"])
	require.False(t, slices.Contains(served.Applied, "4009"))
	require.Equal(t, int64(fitting+10), served.Generation)

	require.Contains(t, strings.Join(f.feed.Displaced([]api.Record{{Name: "many.example.", Type: "A", TTL: 5, RData: []string{"10.0.0.0"}}}), ""),
		"many.example. A of rules of "+app1+" would not be answered: the records of the type A")

	some(app2, 0, 500)
	require.Len(t, f.feed.Served(app1).Applied, fitting-990)
	require.Empty(t, f.feed.Served(app1).Failed)

	some(app2, 0, 1000)
	require.Len(t, f.feed.Served(app1).Failed, 10)
	f.feed.Set(config(t))
	require.NoError(t, f.feed.CatchUp(t.Context(), 0))
	require.Len(t, f.feed.Served(app1).Failed, 10, "everything was made anew")
}
