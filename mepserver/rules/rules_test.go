package rules_test

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/api/mm5"
	"github.com/openmep/mep/api/mp1"
	"github.com/openmep/mep/api/state"
	"github.com/openmep/mep/kit/errs"
	"github.com/openmep/mep/kit/etcd"
	"github.com/openmep/mep/kit/etcdtest"
	"github.com/openmep/mep/kit/watched"
	"github.com/openmep/mep/mepserver/rules"
)

type table struct {
	*rules.Table[mp1.DNSRule]
	store  *etcd.Store
	mirror *watched.Mirror
}

func open(t *testing.T) *table {
	t.Helper()
	store := etcdtest.Start(t).Store(t)
	m := watched.New(watched.Config{Source: store.Source, Prefix: state.Root, Logger: slog.New(slog.DiscardHandler)})
	tab := &table{Table: rules.New(m, store, rules.DNS), store: store, mirror: m}
	ctx, cancel := context.WithCancel(context.Background())
	var done sync.WaitGroup
	done.Go(func() { _ = m.Run(ctx) })
	t.Cleanup(func() { cancel(); done.Wait() })
	<-m.Ready()
	return tab
}

// carry carries out a plan and reports whether it succeeded.
func (tab *table) carry(t *testing.T, p *rules.Plan, err error) bool {
	t.Helper()
	require.NoError(t, err)
	if len(p.Ops) == 0 {
		return true
	}
	resp, err := tab.store.Txn(t.Context(), p.Cmps, p.Ops, nil)
	require.NoError(t, err)
	require.NoError(t, tab.mirror.WaitRevision(t.Context(), resp.Header.Revision))
	return resp.Succeeded
}

func rule(id, address string) mp1.DNSRule {
	return mp1.DNSRule{DNSRuleID: id, DomainName: id + ".example", IPAddressType: mp1.IPv4, IPAddress: address, State: mp1.RuleActive}
}

func setState(r *mp1.DNSRule, s mp1.RuleState) { r.State = s }

func (tab *table) change(t *testing.T, app, id string, edit func(*mp1.DNSRule)) error {
	t.Helper()
	_, err := tab.Change(t.Context(), app, id, setState, func(r mp1.DNSRule, _ *rules.View[mp1.DNSRule]) (mp1.DNSRule, error) {
		edit(&r)
		return r, nil
	})
	return err
}

// inForce lists the rules in force with their addresses.
func (tab *table) inForce(app string) map[string]string {
	m := map[string]string{}
	if item := tab.Of(app); item != nil {
		for r := range tab.InForce(&item.Value.Record) {
			m[r.DNSRuleID] = r.IPAddress
		}
	}
	return m
}

func (tab *table) generation(app string) int64 {
	if item := tab.Of(app); item != nil {
		return item.Value.Record.Generation
	}
	return 0
}

func TestRulesAreInForceWhileTheAppRuns(t *testing.T) {
	tab := open(t)
	p, err := tab.Declare("a", []mp1.DNSRule{rule("x", "10.0.0.1"), rule("y", "10.0.0.2")}, false)
	require.True(t, tab.carry(t, p, err))
	require.Empty(t, tab.inForce("a"))
	require.Zero(t, tab.generation("a"), "nothing has ever been in force")
	v, err := tab.View("a", "x", setState)
	require.NoError(t, err)
	require.Equal(t, mp1.RuleInactive, v.Rule.State)

	p, err = tab.Run("a", true)
	require.True(t, tab.carry(t, p, err))
	require.Equal(t, map[string]string{"x": "10.0.0.1", "y": "10.0.0.2"}, tab.inForce("a"))
	require.Equal(t, []string{"x", "y"}, p.Active)
	first := tab.generation("a")
	require.Positive(t, first)
	running, err := tab.View("a", "x", setState)
	require.NoError(t, err)
	require.Equal(t, mp1.RuleActive, running.Rule.State)
	require.NotEqual(t, v.ETag, running.ETag)

	require.NoError(t, tab.change(t, "a", "x", func(r *mp1.DNSRule) { r.State = mp1.RuleInactive }))
	require.Equal(t, map[string]string{"y": "10.0.0.2"}, tab.inForce("a"))
	second := tab.generation("a")
	require.Greater(t, second, first)

	require.NoError(t, tab.change(t, "a", "x", func(r *mp1.DNSRule) { r.IPAddress = "10.0.0.9" }))
	require.Equal(t, second, tab.generation("a"), "what is not in force is no change of what is")

	require.True(t, tab.carry(t, tab.Remove("a"), nil))
	require.Nil(t, tab.Of("a"))
	p, err = tab.Declare("a", []mp1.DNSRule{rule("x", "10.0.0.1")}, true)
	require.True(t, tab.carry(t, p, err))
	require.Greater(t, tab.generation("a"), second, "one that comes back is not taken for what was before")
}

func TestAPlanIsGoodForWhatItWasMadeFor(t *testing.T) {
	tab := open(t)
	p, err := tab.Declare("a", []mp1.DNSRule{rule("x", "10.0.0.1")}, true)
	require.True(t, tab.carry(t, p, err))
	stale, err := tab.Declare("a", []mp1.DNSRule{rule("z", "10.0.0.3")}, true)
	require.NoError(t, err)
	require.NoError(t, tab.change(t, "a", "x", func(r *mp1.DNSRule) { r.IPAddress = "10.0.0.8" }))
	require.False(t, tab.carry(t, stale, nil))
	require.False(t, tab.carry(t, p, nil), "nor is one that was carried out already")
	require.Equal(t, map[string]string{"x": "10.0.0.8"}, tab.inForce("a"))
}

func TestRulesThatTakeTooMuchRoomAreRefused(t *testing.T) {
	tab := open(t)
	var many []mp1.DNSRule
	for i := range 3000 {
		r := rule(fmt.Sprint("r", i), "10.0.0.1")
		r.DomainName = strings.Repeat("a.", 120) + "example"
		many = append(many, r)
	}
	_, err := tab.Declare("a", many, false)
	require.ErrorIs(t, err, errs.Invalid)
}

func TestChangesOfOneAppDoNotLoseEachOther(t *testing.T) {
	tab := open(t)
	var declared []mp1.DNSRule
	for i := range 16 {
		declared = append(declared, rule(fmt.Sprint("r", i), "10.0.0.1"))
	}
	p, err := tab.Declare("a", declared, true)
	require.True(t, tab.carry(t, p, err))
	var all sync.WaitGroup
	for i := range declared {
		all.Go(func() {
			for n := range 10 {
				require.NoError(t, tab.change(t, "a", fmt.Sprint("r", i), func(r *mp1.DNSRule) { r.IPAddress = fmt.Sprintf("10.0.%d.%d", i, n) }))
			}
		})
	}
	all.Wait()
	for id, address := range tab.inForce("a") {
		require.Equal(t, "10.0."+strings.TrimPrefix(id, "r")+".9", address)
	}
	require.ErrorIs(t, tab.change(t, "a", "none", func(*mp1.DNSRule) {}), errs.NotFound)
	require.ErrorIs(t, tab.change(t, "nobody", "r1", func(*mp1.DNSRule) {}), errs.NotFound)
}

func TestTheSourceShowsWhatIsInForce(t *testing.T) {
	tab := open(t)
	src := &rules.Source{Traffic: nil, DNS: tab.Table, AppName: strings.ToUpper}
	heard := make(chan string, 100)
	stop := src.Observe(mm5.DNSRules, func(app string) { heard <- app })
	defer stop()
	for _, app := range []string{"a", "b"} {
		p, err := tab.Declare(app, []mp1.DNSRule{rule("x", "10.0.0.1"), rule("y", "10.0.0.2")}, app == "a")
		require.True(t, tab.carry(t, p, err))
		select {
		case got := <-heard:
			require.Equal(t, app, got)
		case <-time.After(10 * time.Second):
			t.Fatal("the change was not heard of")
		}
	}
	sets := map[string][]string{}
	for set := range src.Sets(mm5.DNSRules) {
		sets[set.AppName] = set.RuleIDs()
	}
	require.Equal(t, map[string][]string{"A": {"x", "y"}, "B": {}}, sets)
	_, ok := src.Set(mm5.DNSRules, "c")
	require.False(t, ok)
	require.Equal(t, []string{"A", "B"}, slices.Sorted(maps.Keys(sets)))
}
