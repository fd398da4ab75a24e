package blackbox

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/tests/harness"
)

func TestAManagerSeesWhichDNSRulesAreAnswered(t *testing.T) {
	t.Parallel()
	p := harness.Start(t, owning())
	m, a := mepmOf(t, p), newApp(p.Client(t))
	stream := harness.Follow(p.UncheckedMm5(t), events)
	m.done(m.configure(a.id, ruled(rule("d1", "www.mec.example", "192.0.2.1"), but(rule("d2", "off.mec.example", "192.0.2.2"), "state", "INACTIVE"))))
	op := m.done(m.operate(a.id, started))
	require.Equal(t, []string{"DNS d1 APPLIED", "DNS d2 INACTIVE"}, results(op["ruleResults"]))
	for _, r := range objects(op["ruleResults"]) {
		if r["ruleId"] == "d1" {
			require.Equal(t, "dnsagent", r["reconciler"], "%v", r)
		}
	}
	status := func(ids ...any) func(harness.Event) bool {
		return func(e harness.Event) bool {
			return e.Type == "ruleStatus" && e.Data["appInstanceId"] == a.id && e.Data["reconciler"] == "dnsagent" && slices.Equal(e.Data["applied"].([]any), ids)
		}
	}
	stream.Await(t, "that the rule is answered is an event", status("d1"))
	a.Put(a.dnsRule("d2"), object{"state": "ACTIVE"}).Is(200)
	stream.Await(t, "that another one is, too", status("d1", "d2"))
	p.DNS(t).Ask("off.mec.example", "A").Holds("NOERROR", "A 192.0.2.2")
	require.Equal(t, []string{"DNS d1 APPLIED", "DNS d2 APPLIED"}, m.rules(a.id))
	i := slices.IndexFunc(objects(m.Get(mm5 + "/capabilities").Is(200).Object()["reconcilers"]), func(r object) bool { return r["kind"] == "DNS" })
	reconciler := objects(m.Get(mm5 + "/capabilities").Object()["reconcilers"])[i]
	require.Equal(t, "agent", reconciler["driver"])
	require.EqualValues(t, 0, reconciler["pending"])
}

// Names that Mp1 and Mm5 take are names that the DNS server answers for.
func TestWhateverIsTakenForADomainNameIsAnswered(t *testing.T) {
	t.Parallel()
	p := harness.Start(t, owning())
	m, d := mepmOf(t, p), p.DNS(t)
	var taken []object
	for i, name := range []string{
		"a", "a.b", "x.mec.example.", "Y.MEC.example", "_x._tcp.mec.example", "xn--bcher-kva.example", "1.2.3.4", "0", "*.mec.example", "*.a", "*", "a.*.example",
		"-a.example", "a-.example", "a..b", ".a", "a b.example", "bücher.example", "a/b.example", `a\.b.example`, `a\046b.example`, "a@b.example", "localhost", "arpa",
		fmt.Sprintf("%s.example", long(63)), fmt.Sprintf("%s.example", long(64)), fmt.Sprintf("%s.%s.%s.%s", long(63), long(63), long(63), long(61)),
		fmt.Sprintf("%s.%s.%s.%s", long(63), long(63), long(63), long(62)), "ns.mec.example", "mec.example", "example", "",
	} {
		r := rule(fmt.Sprint("d", i), name, fmt.Sprintf("192.0.2.%d", i+1))
		answer := m.Put(instance(newApp(p.Client(t)).id)+"?dryRun=true", ruled(r))
		if answer.Status != 200 {
			answer.Problem(400)
			continue
		}
		taken = append(taken, r)
	}
	require.Greater(t, len(taken), 10)
	a, _ := withRules(t, p, taken...)
	require.Len(t, m.rules(a.id), len(taken))
	for _, r := range taken {
		require.Contains(t, m.rules(a.id), fmt.Sprintf("DNS %s APPLIED", r["dnsRuleId"]))
		d.Ask(r["domainName"].(string), "A").Holds("NOERROR", fmt.Sprint("A ", r["ipAddress"])).Local()
	}
}

func long(n int) string {
	label := make([]byte, n)
	for i := range label {
		label[i] = 'l'
	}
	return string(label)
}

// A DNS server of somebody else is told of the rules by a webhook, whether the platform answers by them, too, or not.
func TestWhoAppliesDNSRulesIsAMatterOfConfiguration(t *testing.T) {
	t.Parallel()
	t.Run("a webhook beside the platform's own server", func(t *testing.T) {
		t.Parallel()
		c := harness.NewController(t)
		p := harness.Start(t, c.Option(), owning())
		c.Refuse(func(_, id string) string {
			if id == "d2" {
				return "no room"
			}
			return ""
		})
		m, a := mepmOf(t, p), newApp(p.Client(t))
		m.done(m.configure(a.id, ruled(rule("d1", "www.mec.example", "192.0.2.1"), rule("d2", "two.mec.example", "192.0.2.2"))))
		op := m.failed(m.operate(a.id, started))
		require.Equal(t, []string{"DNS d1 APPLIED", "DNS d2 FAILED"}, results(op["ruleResults"]), "what counts is what the webhook says")
		p.DNS(t).AwaitData("two.mec.example", "A", "NOERROR", "A 192.0.2.2")
		calls := len(c.Calls())
		for range 40 { // nobody else writes what came of it
			time.Sleep(10 * time.Millisecond)
			require.Equal(t, []string{"DNS d1 APPLIED", "DNS d2 FAILED"}, m.rules(a.id))
		}
		require.LessOrEqual(t, len(c.Calls())-calls, 5, "it is not told again and again")
		m.done(m.terminate(a.id, forceful))
		require.Empty(t, c.Apps())
		p.DNS(t).AwaitAnswer("www.mec.example", "A", "NXDOMAIN")
	})
	t.Run("nobody", func(t *testing.T) {
		t.Parallel()
		p := harness.Start(t, owning(), harness.Args("--dns-driver=none"))
		m, a := mepmOf(t, p), newApp(p.Client(t))
		m.done(m.configure(a.id, ruled(rule("d1", "www.mec.example", "192.0.2.1"))))
		m.done(m.operate(a.id, started))
		p.DNS(t).AwaitData("www.mec.example", "A", "NOERROR", "A 192.0.2.1")
		m.done(m.terminate(a.id, forceful))
	})
	t.Run("no DNS server at all", func(t *testing.T) {
		t.Parallel()
		out := harness.Run(t, "mep", harness.Development("mep", "--data-dir", "d", "--dns-listen=off", "--dns-driver=agent"))
		require.Equal(t, 1, out.Code, out.Output)
		require.Contains(t, out.Output, "dns.driver")
		require.Equal(t, 1, harness.Run(t, "dnsagent", []string{"run", "--dev", "--etcd-endpoints=127.0.0.1:1", "--dns-listen=off"}).Code)
		require.Zero(t, harness.Run(t, "mep", []string{"validate", "--dns-listen=off"}).Code)
	})
}
