package blackbox

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/tests/harness"
)

func TestOneRuleOfTenIsRefusedUntilItIsNot(t *testing.T) {
	t.Parallel()
	c := harness.NewController(t)
	p := harness.Start(t, c.Option())
	m, a := mepmOf(t, p), newApp(p.Client(t))
	const reason = `no port "eth7" 🚀 <here>`
	c.Refuse(func(kind, id string) string {
		if kind == harness.Traffic && id == "t7" {
			return reason
		}
		return ""
	})
	m.done(m.configure(a.id, configuration("x", 10, 1)))
	op := m.failed(m.operate(a.id, started))
	require.Contains(t, op["detail"], "t7")
	require.Contains(t, op["detail"], reason)
	applied := 0
	for _, r := range objects(op["ruleResults"]) {
		if r["ruleId"] == "t7" {
			require.Equal(t, []any{"FAILED", reason, "dataplane"}, []any{r["result"], r["reason"], r["reconciler"]})
			continue
		}
		require.Equal(t, "APPLIED", r["result"], "%v", r)
		applied++
	}
	require.Equal(t, 10, applied)
	require.Equal(t, "STARTED", m.state(a.id), "the others are in force")
	c.AwaitRules(t, harness.Traffic, a.id, "t1", "t10", "t2", "t3", "t4", "t5", "t6", "t8", "t9")
	require.Contains(t, m.rules(a.id), "TRAFFIC t7 FAILED")

	c.Refuse(nil)
	harness.EventuallyWithin(t, 2*harness.Patience, "the rule is tried again", func() error {
		rules := m.rules(a.id)
		return harness.Not(slices.Contains(rules, "TRAFFIC t7 APPLIED"), "%v", rules)
	})
	require.Equal(t, "FAILED", m.final(m.Get(mm5 + "/app_lcm_op_occs?app_instance_id=" + a.id).Array()[0]["_links"].(object)["self"].(object)["href"].(string))["operationState"],
		"what was reported of the operation stays")
	m.done(m.operate(a.id, started))
	m.done(m.terminate(a.id, forceful))
	require.Empty(t, c.Apps())
}

func TestAConfigurationThatTheControllerRefusesAltogether(t *testing.T) {
	t.Parallel()
	c := harness.NewController(t)
	c.Before(func(set harness.RuleSet) int {
		if set.Kind == harness.DNS && len(set.DNSRules) > 0 {
			return http.StatusUnprocessableEntity
		}
		return 0
	})
	p := harness.Start(t, c.Option())
	m, a := mepmOf(t, p), newApp(p.Client(t))
	m.done(m.configure(a.id, configuration("x", 1, 2)))
	op := m.failed(m.operate(a.id, started))
	require.Equal(t, []string{"DNS d1 FAILED", "DNS d2 FAILED", "TRAFFIC t1 APPLIED"}, results(op["ruleResults"]))
	require.Contains(t, op["detail"], "422")
	m.done(m.terminate(a.id, forceful))
	require.Empty(t, c.Apps())
}

// A controller that is away delays what is to be in force, and loses nothing of it.
func TestAControllerThatIsAwayForAWhile(t *testing.T) {
	t.Parallel()
	for name, status := range map[string]int{"answers 503": 503, "answers 500": 500, "asks for patience": 429, "redirects": 307} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := harness.NewController(t)
			var away atomic.Bool
			away.Store(true)
			var calls atomic.Int64
			c.Before(func(harness.RuleSet) int {
				calls.Add(1)
				if away.Load() {
					return status
				}
				return 0
			})
			p := harness.Start(t, c.Option())
			m, a := mepmOf(t, p), newApp(p.Client(t))
			m.done(m.configure(a.id, configuration("x", 2, 2)))
			op := m.operate(a.id, started)
			harness.Eventually(t, "it is tried again", func() error { return harness.Not(calls.Load() > 3, "%d calls", calls.Load()) })
			now := m.Get(op).Object()
			require.Equal(t, "PROCESSING", now["operationState"])
			require.Less(t, now["percentage"], 100.0)
			require.Equal(t, []string{"DNS d1 PENDING", "DNS d2 PENDING", "TRAFFIC t1 PENDING", "TRAFFIC t2 PENDING"}, m.rules(a.id))
			require.Equal(t, map[string]string{"t1": "ACTIVE", "t2": "ACTIVE", "d1": "ACTIVE", "d2": "ACTIVE"}, a.states(), "what is to be is what the app reads")
			for _, r := range objects(m.Get(mm5 + "/capabilities").Object()["reconcilers"]) {
				require.Equal(t, "webhook", r["driver"])
				require.NotEmpty(t, r["failingSince"], "%v", r)
				require.Contains(t, r["lastError"], fmt.Sprint(status))
			}
			a.Put(a.trafficRule("t2"), but(traffic("t2"), "state", "INACTIVE")).Is(200)
			away.Store(false)
			m.done(op)
			c.AwaitRules(t, harness.Traffic, a.id, "t1")
			for _, set := range c.Calls() {
				if set.Kind == harness.DNS {
					require.Equal(t, c.Calls()[slices.IndexFunc(c.Calls(), func(s harness.RuleSet) bool { return s.Kind == harness.DNS })].RequestID, set.RequestID,
						"the same set is the same request")
				}
			}
		})
	}
}

func TestAControllerThatDoesNotReportInTime(t *testing.T) {
	t.Parallel()
	c := harness.NewController(t)
	release := make(chan struct{})
	c.Before(func(set harness.RuleSet) int {
		if set.Kind == harness.Traffic {
			select {
			case <-release:
			case <-c.Ended():
			}
		}
		return 0
	})
	p := harness.Start(t, c.Option(), harness.Args("--mm5-operation-timeout=1s", "--lifecycle-rule-timeout=1s"))
	m, a := mepmOf(t, p), newApp(p.Client(t))
	m.done(m.configure(a.id, configuration("x", 1, 1)))
	op := m.failed(m.operate(a.id, started))
	require.Contains(t, op["detail"], "dataplane")
	require.Equal(t, []string{"DNS d1 APPLIED", "TRAFFIC t1 PENDING"}, results(op["ruleResults"]))
	// An app can end all the same; its rules are taken back when that is possible.
	end := m.done(m.terminate(a.id, forceful))
	require.Contains(t, end["detail"], "dataplane")
	require.Empty(t, m.state(a.id))
	p.Kill()
	p.Restart()
	close(release)
	harness.EventuallyWithin(t, 2*harness.Patience, "the controller is told that nothing is to be in force", func() error {
		calls := c.Calls()
		i := slices.IndexFunc(calls, func(s harness.RuleSet) bool { return s.Kind == harness.Traffic && len(s.TrafficRules) == 0 })
		return harness.Not(i >= 0 && len(c.Apps()) == 0, "it holds %v", c.Apps())
	})
}

// A configuration is replaced while the one before is being applied: the one before ends, the last one is what is in force.
func TestAConfigurationIsReplacedWhileTheLastIsBeingApplied(t *testing.T) {
	t.Parallel()
	c := harness.NewController(t)
	var busy atomic.Bool
	idle := make(chan struct{})
	c.Before(func(harness.RuleSet) int {
		if busy.Load() {
			select {
			case <-idle:
			case <-c.Ended():
			}
		}
		return 0
	})
	p := harness.Start(t, c.Option())
	m, a := mepmOf(t, p), newApp(p.Client(t))
	m.done(m.configure(a.id, configuration("x", 1, 1)))
	a.isReady()
	c.AwaitRules(t, harness.Traffic, a.id, "t1")
	c.AwaitRules(t, harness.DNS, a.id, "d1")
	busy.Store(true)
	var ops []string
	for i := range 4 {
		before := len(c.Calls())
		ops = append(ops, m.configure(a.id, configuration("x", 2+i, 2+i)))
		if i == 0 {
			harness.Eventually(t, "it is being applied", func() error { return harness.Not(len(c.Calls()) > before, "no call") })
		}
	}
	for _, op := range ops[:3] {
		require.Contains(t, m.failed(op)["detail"], "overtaken by operation")
	}
	close(idle)
	m.done(ops[3])
	c.AwaitRules(t, harness.Traffic, a.id, "t1", "t2", "t3", "t4", "t5")
	c.AwaitRules(t, harness.DNS, a.id, "d1", "d2", "d3", "d4", "d5")
	p.Kill()
	p.Restart()
	m.done(m.configure(a.id, configuration("x", 1, 0)))
	c.AwaitRules(t, harness.Traffic, a.id, "t1")
	c.AwaitRules(t, harness.DNS, a.id)
}

// D-28: a controller that lost its state is given it again, whenever that happened.
func TestAControllerThatLostItsStateGetsItAgain(t *testing.T) {
	t.Parallel()
	c := harness.NewController(t)
	p := harness.Start(t, c.Option())
	var apps []app
	for range 3 {
		a, _ := running(t, p)
		apps = append(apps, a)
	}
	inForce := func() {
		t.Helper()
		harness.EventuallyWithin(t, 2*harness.Patience, "everything is in force", func() error {
			for _, a := range apps {
				if got := append(c.Holds(harness.Traffic, a.id), c.Holds(harness.DNS, a.id)...); !slices.Equal([]string{"t1", "t2", "d1", "d2"}, got) {
					return fmt.Errorf("of %s in force are %v", a.id, got)
				}
			}
			return nil
		})
	}
	inForce()
	c.Lose()
	inForce()
	p.Kill()
	c.Lose() // while the platform was away
	p.Restart()
	inForce()
	require.Len(t, c.Apps(), 3)
}

func TestWhatIsTakenBackWhileTheControllerIsAway(t *testing.T) {
	t.Parallel()
	c := harness.NewController(t)
	p := harness.Start(t, c.Option(), harness.Args("--lifecycle-rule-timeout=1s"))
	a, m := running(t, p)
	b, _ := running(t, p)
	c.AwaitRules(t, harness.Traffic, a.id, "t1", "t2")
	c.AwaitRules(t, harness.DNS, b.id, "d1", "d2")
	c.Before(func(harness.RuleSet) int { return 503 })
	m.done(m.terminate(a.id, forceful))
	m.begun(m.Delete(instance(b.id)))
	p.Kill()
	c.Before(nil)
	p.Restart()
	harness.EventuallyWithin(t, 2*harness.Patience, "nothing is left over", func() error { return harness.Not(len(c.Apps()) == 0, "left are %v", c.Apps()) })
	for _, op := range m.Get(mm5 + "/app_lcm_op_occs").Array() {
		m.final(harness.Path(t, self(op)))
	}
}

func TestSettingsOfWebhooksThatAreRefused(t *testing.T) {
	t.Parallel()
	secret, short, empty := filepath.Join(t.TempDir(), "secret"), filepath.Join(t.TempDir(), "short"), filepath.Join(t.TempDir(), "empty")
	for file, text := range map[string]string{secret: "a secret of enough bytes", short: "shorts", empty: "\n"} {
		require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
	}
	for name, x := range map[string]struct {
		args  []string
		about string
	}{
		"an unknown driver":          {[]string{"--dataplane-driver=ovs"}, "dataplane.driver"},
		"no URL":                     {[]string{"--dns-driver=webhook", "--dns-secret-file=" + secret}, "dns.url"},
		"no secret":                  {[]string{"--dns-driver=webhook", "--dns-url=https://a.example/"}, "dns.secretFile"},
		"a secret that is not there": {[]string{"--dataplane-driver=webhook", "--dataplane-url=https://a.example/", "--dataplane-secret-file=/nowhere"}, "dataplane.secretFile"},
		"an empty secret":            {[]string{"--dataplane-driver=webhook", "--dataplane-url=https://a.example/", "--dataplane-secret-file=" + empty}, "dataplane.secretFile"},
		"a short secret":             {[]string{"--dataplane-driver=webhook", "--dataplane-url=https://a.example/", "--dataplane-secret-file=" + short}, "16 bytes"},
		"http to another host":       {[]string{"--dataplane-driver=webhook", "--dataplane-url=http://10.0.0.1/", "--dataplane-secret-file=" + secret}, "https"},
		"a password in the URL":      {[]string{"--dataplane-driver=webhook", "--dataplane-url=https://u:hunter2@a.example/", "--dataplane-secret-file=" + secret}, "password"},
		"another scheme":             {[]string{"--dns-driver=webhook", "--dns-url=ftp://a.example/", "--dns-secret-file=" + secret}, "http"},
		"a CA that is not there":     {[]string{"--dns-driver=webhook", "--dns-url=https://a.example/", "--dns-ca=/nowhere", "--dns-secret-file=" + secret}, "/nowhere"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			args := append(harness.Development("mep", x.args...), "--data-dir", t.TempDir())
			out := harness.Run(t, "mep", args)
			require.NotZero(t, out.Code)
			require.Contains(t, out.Output, x.about)
			require.NotContains(t, out.Output, "hunter2")
			require.NotContains(t, out.Output, "goroutine ")
		})
	}
}

// With nobody to apply them rules are recorded, and are in force as far as anyone can tell.
func TestRulesThatNobodyAppliesAreRecorded(t *testing.T) {
	t.Parallel()
	p := harness.Start(t)
	m, id := mepmOf(t, p), uuid.NewString()
	m.done(m.configure(id, configuration("x", 1, 1)))
	op := m.done(m.operate(id, started))
	require.Equal(t, []string{"DNS d1 APPLIED", "TRAFFIC t1 APPLIED"}, results(op["ruleResults"]))
	require.Equal(t, []string{"DNS d1 APPLIED", "TRAFFIC t1 APPLIED"}, m.rules(id))
}
