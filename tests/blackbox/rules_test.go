package blackbox

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/tests/harness"
)

// running is an app instance whose rules t1, t2 and d1, d2 are in force.
func running(t *testing.T, p *harness.Process) (app, mepm) {
	t.Helper()
	a, m := newApp(p.Client(t)), mepmOf(t, p)
	m.done(m.configure(a.id, configuration("x", 2, 2)))
	a.isReady()
	return a, m
}

func TestAnAppChangesItsTrafficRules(t *testing.T) {
	t.Parallel()
	c := harness.NewController(t)
	p := harness.Start(t, c.Option())
	a, m := running(t, p)
	declared := a.Get(a.trafficRule("t1")).Is(200)
	same(t, but(traffic("t1"), "priority", 0, "state", "ACTIVE"), declared.Object())
	same(t, declared.Object(), a.Get(a.trafficRules()).Array()[0])

	changed := a.Put(a.trafficRule("t1"), fullTraffic("t1"), harness.Header("If-Match", declared.ETag())).Is(200)
	same(t, fullTraffic("t1"), changed.Object(), "any member may change but the id")
	same(t, fullTraffic("t1"), a.Get(a.trafficRule("t1")).Is(200).Object())
	harness.Eventually(t, "the data plane is told all of it", func() error {
		r := c.Rule(harness.Traffic, a.id, "t1")
		return harness.Not(r["priority"] == 255.0, "%v", r)
	})
	same(t, fullTraffic("t1"), c.Rule(harness.Traffic, a.id, "t1"), "D-27: the destination reaches the data plane, too")
	require.Equal(t, changed.ETag(), a.Put(a.trafficRule("t1"), without(fullTraffic("t1"), "trafficRuleId")).Is(200).ETag(), "the id may be absent")

	// D-17: the entity-tag of the answer is that of the rule, and a state that is left out takes nothing back.
	again := a.Put(a.trafficRule("t1"), but(fullTraffic("t1"), "priority", 4), harness.Header("If-Match", changed.ETag())).Is(200)
	a.Put(a.trafficRule("t1"), but(fullTraffic("t1"), "priority", 5), harness.Header("If-Match", again.ETag())).Is(200)
	require.Contains(t, a.Put(a.trafficRule("t1"), but(fullTraffic("t1"), "state", nil)).Problem(400).Names(), "state")
	c.AwaitRules(t, harness.Traffic, a.id, "t1", "t2")

	a.Put(a.trafficRule("t1"), but(fullTraffic("t1"), "state", "INACTIVE")).Is(200)
	c.AwaitRules(t, harness.Traffic, a.id, "t2")
	require.Equal(t, "INACTIVE", a.states()["t1"])
	a.Put(a.trafficRule("t1"), fullTraffic("t1")).Is(200)
	c.AwaitRules(t, harness.Traffic, a.id, "t1", "t2")
	require.EqualValues(t, 0, m.Get(instance(a.id)).Object()["appTrafficRule"].([]any)[0].(object)["priority"], "what was declared stays what it is")

	for name, x := range map[string]struct {
		rule  object
		about string
	}{
		"another id":      {fullTraffic("t2"), "trafficRuleId"},
		"an id too long":  {fullTraffic(strings.Repeat("x", 64)), "trafficRuleId"},
		"no priority":     {but(fullTraffic("t1"), "priority", nil), "priority"},
		"no filter":       {but(fullTraffic("t1"), "trafficFilter", []any{}), "trafficFilter"},
		"a wrong address": {but(fullTraffic("t1"), "trafficFilter[0].srcAddress", []any{"10.0.0.300"}), "trafficFilter[0].srcAddress[0]"},
		"a wrong port":    {but(fullTraffic("t1"), "trafficFilter[0].dstPort", []any{"70000"}), "trafficFilter[0].dstPort[0]"},
		"a wrong MAC":     {but(fullTraffic("t1"), "dstInterface[1].srcMacAddress", "00:00"), "dstInterface[1].srcMacAddress"},
	} {
		require.Contains(t, a.Put(a.trafficRule("t1"), x.rule).Problem(400).Names(), x.about, name)
	}
	same(t, fullTraffic("t1"), a.Get(a.trafficRule("t1")).Object())
	p.Kill()
	p.Restart()
	same(t, fullTraffic("t1"), a.Get(a.trafficRule("t1")).Is(200).Object())
}

func TestAnAppChangesItsDNSRules(t *testing.T) {
	t.Parallel()
	c := harness.NewController(t)
	p := harness.Start(t, c.Option())
	a, _ := running(t, p)
	d1 := but(dns("d1"), "domainName", "d1.x.example", "state", "ACTIVE")
	same(t, d1, a.Get(a.dnsRule("d1")).Is(200).Object())
	for _, x := range []struct {
		update, want object
	}{
		{object{"state": "ACTIVE"}, d1},
		{object{"state": "ACTIVE", "ttl": 30}, but(d1, "ttl", 30)},
		{object{"state": "ACTIVE", "ttl": 0, "dnsRuleId": "d1", "domainName": "D1.X.example"}, but(d1, "ttl", 0)},
		{object{"state": "ACTIVE", "ipAddress": "10.0.0.2"}, but(d1, "ttl", 0, "ipAddress", "10.0.0.2")},
		{object{"state": "ACTIVE", "ipAddressType": "IP_V6", "ipAddress": "2001:db8::2"}, but(d1, "ttl", 0, "ipAddressType", "IP_V6", "ipAddress", "2001:db8::2")},
		{but(d1, "ttl", 2147483647), but(d1, "ttl", 2147483647)},
	} {
		tag := a.Get(a.dnsRule("d1")).ETag()
		put := a.Put(a.dnsRule("d1"), x.update, harness.Header("If-Match", tag)).Is(200)
		same(t, x.want, put.Object(), x.update)
		require.Equal(t, put.ETag(), a.Get(a.dnsRule("d1")).ETag())
		harness.Eventually(t, "the DNS server is told", func() error {
			r := c.Rule(harness.DNS, a.id, "d1")
			return harness.Not(r["ttl"] == put.Object()["ttl"] && r["ipAddress"] == put.Object()["ipAddress"], "%v", r)
		})
	}
	a.Put(a.dnsRule("d1"), object{"state": "INACTIVE"}).Is(200)
	c.AwaitRules(t, harness.DNS, a.id, "d2")
	before := a.Get(a.dnsRule("d1")).ETag()
	for name, x := range map[string]struct {
		update object
		about  string
	}{
		"no state":              {object{}, "state"},
		"an unknown state":      {object{"state": "ON"}, "state"},
		"another id":            {object{"state": "ACTIVE", "dnsRuleId": "d2"}, "dnsRuleId"},
		"another name":          {object{"state": "ACTIVE", "domainName": "d2.x.example"}, "domainName"},
		"the other family":      {object{"state": "ACTIVE", "ipAddress": "2001:db8::2"}, "ipAddress"},
		"half of another":       {object{"state": "ACTIVE", "ipAddressType": "IP_V6"}, "ipAddress"},
		"no address":            {object{"state": "ACTIVE", "ipAddress": "d2.x.example"}, "ipAddress"},
		"a TTL below 0":         {object{"state": "ACTIVE", "ttl": -1}, "ttl"},
		"a TTL of half seconds": {object{"state": "ACTIVE", "ttl": 0.5}, "ttl"},
	} {
		require.Contains(t, a.Put(a.dnsRule("d1"), x.update).Problem(400).Names(), x.about, name)
	}
	require.Equal(t, before, a.Get(a.dnsRule("d1")).ETag())
}

func TestARuleOfAnAppThatDoesNotRunIsChangedForLater(t *testing.T) {
	t.Parallel()
	c := harness.NewController(t)
	p := harness.Start(t, c.Option())
	m, a := mepmOf(t, p), newApp(p.Client(t))
	m.done(m.configure(a.id, configuration("x", 2, 1)))
	shown := a.Put(a.trafficRule("t1"), but(traffic("t1"), "priority", 9, "state", "ACTIVE")).Is(200).Object()
	require.Equal(t, "INACTIVE", shown["state"], "it reads INACTIVE until the app runs")
	a.Put(a.trafficRule("t2"), but(traffic("t2"), "state", "INACTIVE")).Is(200)
	a.Put(a.dnsRule("d1"), object{"state": "INACTIVE"}).Is(200)
	a.isReady()
	require.Equal(t, map[string]string{"t1": "ACTIVE", "t2": "INACTIVE", "d1": "INACTIVE"}, a.states())
	c.AwaitRules(t, harness.Traffic, a.id, "t1")
	require.EqualValues(t, 9, c.Rule(harness.Traffic, a.id, "t1")["priority"])
}

func TestAReplacementKeepsWhatTheAppChangedWhereTheDeclarationIsTheSame(t *testing.T) {
	t.Parallel()
	p := harness.Start(t)
	a, m := running(t, p)
	a.Put(a.trafficRule("t1"), but(traffic("t1"), "priority", 99, "state", "INACTIVE")).Is(200)
	a.Put(a.trafficRule("t2"), but(traffic("t2"), "priority", 98, "state", "INACTIVE")).Is(200)
	a.Put(a.dnsRule("d1"), object{"state": "INACTIVE"}).Is(200)
	next := but(configuration("x", 3, 2), "appTrafficRule[1].priority", 50)
	diff := m.Put(instance(a.id)+"?dryRun=true", next).Is(200).Object()
	same(t, object{"added": []any{"t3"}, "changed": []any{"t2"}, "removed": []any{}, "unchanged": []any{"t1"}, "reset": []any{"t2"}}, diff["trafficRules"])
	m.done(m.configure(a.id, next))
	require.Equal(t, map[string]string{"t1": "INACTIVE", "t2": "ACTIVE", "t3": "ACTIVE", "d1": "INACTIVE", "d2": "ACTIVE"}, a.states())
	require.EqualValues(t, 99, a.Get(a.trafficRule("t1")).Object()["priority"])
	require.EqualValues(t, 50, a.Get(a.trafficRule("t2")).Object()["priority"])
	m.done(m.operate(a.id, stopped))
	m.done(m.operate(a.id, started))
	require.Equal(t, "INACTIVE", a.states()["t1"], "a stop forgets nothing")
}

// Both orders of two configurations end in one of them as a whole, never in a mixture.
func TestTwoManagersConfigureTheSameAppAtOnce(t *testing.T) {
	t.Parallel()
	c := harness.NewController(t)
	p := harness.Start(t, c.Option())
	a, m := newApp(p.Client(t)), mepm{p.UncheckedMm5(t)}
	m.done(m.configure(a.id, object{}))
	a.isReady()
	managers := make([]object, 4)
	for i := range managers {
		ts, ds := []any{}, []any{}
		for n := range 5 {
			ts = append(ts, but(traffic(fmt.Sprint("t", n)), "priority", 10*i+n))
			ds = append(ds, but(dns(fmt.Sprint("d", n)), "ttl", i, "domainName", fmt.Sprintf("d%d.example", n)))
		}
		managers[i] = object{"appName": fmt.Sprint("m", i), "appTrafficRule": ts, "appDNSRule": ds, "appServiceRequired": []any{object{"serName": fmt.Sprint("s", i), "version": "1"}}}
	}
	ops := make([][]string, len(managers))
	var working sync.WaitGroup
	for i, cfg := range managers {
		working.Go(func() {
			for range 15 {
				answer, err := m.Try("PUT", instance(a.id), cfg)
				if err != nil || answer.Status != 202 {
					t.Errorf("manager %d: %v %v", i, err, answer)
					return
				}
				ops[i] = append(ops[i], harness.Path(t, answer.Header.Get("Location")))
			}
		})
	}
	readers, stop := sync.WaitGroup{}, make(chan struct{})
	readers.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			answer, err := m.Try("GET", instance(a.id), nil)
			if err != nil {
				t.Error(err)
				return
			}
			if mixed := mixture(answer.Object()); mixed != "" {
				t.Errorf("a reader saw %s: %s", mixed, answer.Body)
				return
			}
		}
	})
	working.Wait()
	close(stop)
	readers.Wait()
	last := m.Get(instance(a.id)).Is(200).Object()
	require.Empty(t, mixture(last))
	for _, list := range ops {
		for _, op := range slices.Compact(list) {
			if o := m.final(op); o["operationState"] == "FAILED" {
				require.Contains(t, o["detail"], "overtaken", "%v", o)
			}
		}
	}
	harness.Eventually(t, "the last one is in force", func() error {
		r := c.Rule(harness.DNS, a.id, "d0")
		return harness.Not("m"+fmt.Sprint(r["ttl"]) == last["appName"], "%v, not %v", r, last["appName"])
	})
	for _, set := range c.Calls() {
		seen := map[any]bool{}
		for _, r := range set.Rules() {
			if set.Kind == harness.DNS {
				seen[r["ttl"]] = true
			} else {
				seen[int(r["priority"].(float64))/10] = true
			}
		}
		require.LessOrEqual(t, len(seen), 1, "the controller was given a mixture: %v", set)
	}
}

// mixture says in what a configuration is not one manager's as a whole.
func mixture(cfg object) string {
	name, _ := cfg["appName"].(string)
	if name == "" {
		return ""
	}
	i := float64(name[1] - '0')
	for n, r := range objects(cfg["appTrafficRule"]) {
		if r["priority"] != 10*i+float64(n) {
			return fmt.Sprintf("traffic rule %d with %s", n, name)
		}
	}
	for n, r := range objects(cfg["appDNSRule"]) {
		if r["ttl"] != i {
			return fmt.Sprintf("DNS rule %d with %s", n, name)
		}
	}
	if objects(cfg["appServiceRequired"])[0]["serName"] != fmt.Sprint("s", i) {
		return "services of another with " + name
	}
	return ""
}

func TestAnAppChangesARuleWhileTheManagerReplacesIt(t *testing.T) {
	t.Parallel()
	c := harness.NewController(t)
	p := harness.Start(t, c.Option())
	a, m := newApp(p.Unchecked(t)), mepm{p.UncheckedMm5(t)}
	m.done(m.configure(a.id, configuration("x", 2, 1)))
	a.isReady()
	var puts atomic.Int64
	var working sync.WaitGroup
	stop := make(chan struct{})
	working.Go(func() {
		for n := int64(0); ; n++ {
			select {
			case <-stop:
				return
			default:
			}
			answer, err := a.Try("PUT", a.trafficRule("t1"), but(traffic("t1"), "priority", n%200, "state", "ACTIVE"))
			if err != nil || answer.Status != 200 && answer.Status != 404 {
				t.Errorf("%v %v", err, answer)
				return
			}
			puts.Add(1)
		}
	})
	for i := range 20 {
		n := puts.Load()
		cfg := configuration("x", 2, 1)
		switch i % 3 {
		case 1:
			cfg = configuration("y", 0, 1) // t1 goes …
		case 2:
			cfg = but(cfg, "appTrafficRule[0].priority", 200+i) // … and comes back as another
		}
		m.done(m.configure(a.id, cfg))
		harness.Eventually(t, "the app goes on", func() error { return harness.Not(puts.Load() > n+2, "no put") })
	}
	m.done(m.configure(a.id, configuration("y", 0, 1)))
	m.done(m.configure(a.id, configuration("z", 2, 1)))
	close(stop)
	working.Wait()
	last := a.Put(a.trafficRule("t1"), but(traffic("t1"), "priority", 201, "state", "ACTIVE")).Is(200)
	require.Equal(t, last.ETag(), a.Get(a.trafficRule("t1")).ETag())
	harness.Eventually(t, "the data plane holds what the app reads", func() error {
		r := c.Rule(harness.Traffic, a.id, "t1")
		return harness.Not(r["priority"] == 201.0, "%v", r)
	})
	c.AwaitRules(t, harness.Traffic, a.id, "t1", "t2")
	m.awaitRules(a.id, "DNS d1 APPLIED", "TRAFFIC t1 APPLIED", "TRAFFIC t2 APPLIED")
}

func TestRulesOfOneAppAreNobodyElses(t *testing.T) {
	t.Parallel()
	c := harness.NewController(t)
	p := harness.Start(t, c.Option())
	m := mepmOf(t, p)
	// Ids of which one begins with the other: what is done to one is not done to both.
	short, long := "a", "a1"
	for _, id := range []string{short, long} {
		m.done(m.configure(id, configuration(id, 1, 1)))
		m.done(m.operate(id, started))
	}
	m.done(m.terminate(short, forceful))
	require.Equal(t, []string{long}, c.Apps())
	require.Equal(t, []string{"DNS d1 APPLIED", "TRAFFIC t1 APPLIED"}, m.rules(long))
	other := newApp(p.Client(t))
	other.Get(other.trafficRule("t1")).Problem(404)
	other.Put(other.trafficRule("t1"), but(traffic("t1"), "state", "ACTIVE")).Problem(404)
	require.Empty(t, m.Get(mm5+"/app_lcm_op_occs?app_instance_id="+uuid.NewString()).Array())
}
