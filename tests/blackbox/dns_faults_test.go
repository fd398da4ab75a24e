package blackbox

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/kit/etcdtest"
	"github.com/openmep/mep/tests/harness"
)

func TestNoDNSRuleIsLostWhenThePlatformIsKilled(t *testing.T) {
	t.Parallel()
	p := harness.Start(t, owning())
	m, a := mepm{p.UncheckedMm5(t)}, newApp(p.Unchecked(t))
	c := p.UncheckedDNSManagement(t)
	m.done(m.configure(a.id, ruled(rule("d", "app.mec.example", "10.0.0.1"))))
	a.isReady()
	c.Post(rrecord, record("managed.mec.example", "A", "10.0.0.1")).Is(200)
	address := func(n int) string { return fmt.Sprintf("10.0.%d.%d", n>>8, n&255) }
	rng := rand.New(rand.NewPCG(3, 4))
	rule, managed := 1, 1         // the last values that were acknowledged
	var acknowledged atomic.Int64 // how many were
	for round := range int64(4) {
		var changing sync.WaitGroup
		change := func(last *int, try func(address string) (*harness.Answer, error)) {
			changing.Go(func() {
				for {
					answer, err := try(address(*last + 1))
					if err != nil {
						return
					}
					if answer.Status != 200 {
						t.Errorf("answered %d: %s", answer.Status, answer.Body)
						return
					}
					*last++
					acknowledged.Add(1)
				}
			})
		}
		change(&rule, func(address string) (*harness.Answer, error) {
			return a.Try("PUT", a.dnsRule("d"), object{"state": "ACTIVE", "ipAddress": address})
		})
		change(&managed, func(address string) (*harness.Answer, error) {
			return c.Try("PUT", recordPath("managed.mec.example", "A"), record("managed.mec.example", "A", address))
		})
		harness.Eventually(t, "there are changes", func() error {
			return harness.Not(acknowledged.Load() > 6*round, "%d", acknowledged.Load())
		})
		time.Sleep(time.Duration(50+rng.IntN(200)) * time.Millisecond)
		p.Kill()
		changing.Wait()
		p.Restart()
		for name, last := range map[string]*int{"app.mec.example": &rule, "managed.mec.example": &managed} {
			// The change that was not answered had its whole effect or none.
			reply := p.DNS(t).Ask(name, "A")
			if reply.Lacks("NOERROR", "A "+address(*last+1)) == nil {
				*last++
			}
			reply.Holds("NOERROR", "A "+address(*last))
		}
	}
	m.awaitRules(a.id, "DNS d APPLIED")
}

// What is to be answered does not depend on when the DNS server ended while it reported.
func TestWhereverTheDNSServerIsKilledItGoesOn(t *testing.T) {
	t.Parallel()
	for _, point := range []string{"dns.reporting", "dns.reported"} {
		t.Run(point, func(t *testing.T) {
			t.Parallel()
			p := harness.Start(t, owning(), harness.Fault(point))
			s := &story{T: t, p: p, app: app{Client: p.Unchecked(t), id: newApp(p.Unchecked(t)).id}, m: mepm{p.UncheckedMm5(t)}}
			cfg := ruled(rule("d", "www.mec.example", "192.0.2.1"))
			s.operation("PUT", instance(s.app.id), cfg)
			s.operation("POST", instance(s.app.id)+"/operate", started)
			require.Equal(t, 1, s.ended)
			p.DNS(t).Ask("www.mec.example", "A").Holds("NOERROR", "A 192.0.2.1")
			s.m.awaitRules(s.app.id, "DNS d APPLIED")
			s.operation("POST", instance(s.app.id)+"/terminate", forceful)
			p.DNS(t).Ask("www.mec.example", "A").Is("NXDOMAIN")
		})
	}
}

// cluster is an etcd, a mepserver whose DNS rules are for a DNS server, and such servers.
func cluster(t *testing.T, servers int) (etcd *etcdtest.Server, m *harness.Process, agents []*harness.Process) {
	t.Helper()
	etcd = etcdtest.Start(t)
	m = harness.StartMepserver(t, etcd.Endpoint(), harness.Args("--dns-driver=agent", "--etcd-timeout=500ms"))
	for range servers {
		agents = append(agents, harness.StartDNSAgent(t, etcd.Endpoint(), owning(), harness.Args("--etcd-timeout=500ms")))
	}
	return etcd, m, agents
}

func TestTheDNSServerGoesOnWithoutEtcd(t *testing.T) {
	t.Parallel()
	for how, x := range map[string]struct {
		end    func(t *testing.T, agent *harness.Process)
		damage func(data []byte) []byte // of the snapshot; nil: none
	}{
		"without interruption": {nil, nil},
		"after a stop":         {func(_ *testing.T, agent *harness.Process) { agent.Stop() }, nil},
		"after a kill": {func(t *testing.T, agent *harness.Process) {
			harness.Eventually(t, "the snapshot is written", func() error {
				found, err := inFiles(filepath.Join(agent.DataDir, "snapshots"), "managed.mec.example")
				if err != nil {
					return err
				}
				return harness.Not(found, "it is not")
			})
			agent.Kill()
		}, nil},
		"but not from a snapshot that is cut off": {func(_ *testing.T, agent *harness.Process) { agent.Stop() }, func(data []byte) []byte { return data[:len(data)/2] }},
		"nor from one that was changed": {
			func(_ *testing.T, agent *harness.Process) { agent.Stop() },
			func(data []byte) []byte { return []byte(strings.Replace(string(data), `"m":`, `"m":1`, 1)) },
		},
		"nor from nothing": {func(_ *testing.T, agent *harness.Process) { agent.Stop() }, func([]byte) []byte { return nil }},
	} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			etcd, server, agents := cluster(t, 1)
			agent := agents[0]
			a, m := withRules(t, server, rule("d", "www.mec.example", "192.0.2.1"))
			c := agent.DNSManagement(t)
			c.Post(rrecord, record("managed.mec.example", "A", "192.0.2.2")).Is(200)
			d := agent.DNS(t)
			right := func() {
				t.Helper()
				d.Ask("www.mec.example", "A").Is("NOERROR", at("www.mec.example", defaultTTL, "A", "192.0.2.1"))
				d.Ask("managed.mec.example", "A").Is("NOERROR", at("managed.mec.example", 60, "A", "192.0.2.2"))
				d.Ask("none.mec.example", "A").Is("NXDOMAIN").Local()
			}
			right()
			if x.end != nil {
				x.end(t, agent)
			}
			etcd.Stop()
			if x.damage != nil {
				snapshot := filepath.Join(agent.DataDir, "snapshots", "dnsagent.jsonl")
				require.NoError(t, os.WriteFile(snapshot, x.damage(written(t, snapshot)), 0o600))
				agent.Restart(harness.Unready())
				status, r, err := agent.Ready()
				require.NoError(t, err)
				require.Equal(t, 503, status, "%+v", r)
				d.Ask("www.mec.example", "A").Is("SERVFAIL") // nothing is made up
				c.Get(rrecord).Problem(503)
				require.Contains(t, agent.Log(), "snapshot on disk is not usable and is set aside")
				require.FileExists(t, snapshot+".damaged")
			} else {
				if x.end != nil {
					agent.Restart()
				}
				right()
				refusedAtOnce(t, []asked{ // which takes as long as is waited for etcd
					{c, "POST", rrecord, record("new.mec.example", "A", "192.0.2.3")}, {c, "DELETE", recordPath("managed.mec.example", "A"), nil},
					{c, "PUT", recordPath("managed.mec.example", "A"), record("managed.mec.example", "A", "192.0.2.3")}, {c, "DELETE", rrecord + "?below=.", nil},
				})
				require.Len(t, c.Get(rrecord).Is(200).Array(), 1)
				degraded(t, agent, true)
				right()
			}
			etcd.StartAgain(t)
			d.AwaitData("www.mec.example", "A", "NOERROR", "A 192.0.2.1")
			harness.EventuallyWithin(t, 2*harness.Patience, "changes are accepted again", func() error {
				answer, err := a.Try("PUT", a.dnsRule("d"), object{"state": "ACTIVE", "ipAddress": "192.0.2.9"})
				if err != nil {
					return err
				}
				return harness.Not(answer.Status == 200, "answered %d", answer.Status)
			})
			d.AwaitData("www.mec.example", "A", "NOERROR", "A 192.0.2.9")
			degraded(t, agent, false)
			harness.EventuallyWithin(t, 2*harness.Patience, "it is reported", func() error {
				rules := m.rules(a.id)
				return harness.Not(slices.Equal([]string{"DNS d APPLIED"}, rules), "%v", rules)
			})
			m.done(m.terminate(a.id, forceful))
			d.Ask("www.mec.example", "A").Is("NXDOMAIN")
		})
	}
}

func TestOfTwoDNSServersOneReports(t *testing.T) {
	t.Parallel()
	_, server, agents := cluster(t, 2)
	harness.Eventually(t, "one of them leads", func() error { return harness.Not(leads(agents[0]) || leads(agents[1]), "none does") })
	leader, follower := agents[0], agents[1]
	if leads(follower) {
		leader, follower = follower, leader
	}
	a, m := withRules(t, server, rule("d", "www.mec.example", "192.0.2.1"))
	leader.DNS(t).Ask("www.mec.example", "A").Holds("NOERROR", "A 192.0.2.1")
	follower.DNS(t).AwaitData("www.mec.example", "A", "NOERROR", "A 192.0.2.1")
	// What is created at one is answered by it at once, and soon by the other.
	follower.DNSManagement(t).Post(rrecord, record("managed.mec.example", "A", "192.0.2.2")).Is(200)
	follower.DNS(t).Ask("managed.mec.example", "A").Holds("NOERROR", "A 192.0.2.2")
	leader.DNS(t).AwaitData("managed.mec.example", "A", "NOERROR", "A 192.0.2.2")
	leader.DNSManagement(t).Post(rrecord, record("managed.mec.example", "A", "192.0.2.3")).Problem(409)

	leader.Kill()
	op := m.configure(a.id, ruled(rule("d", "www.mec.example", "192.0.2.4")))
	follower.DNS(t).AwaitData("www.mec.example", "A", "NOERROR", "A 192.0.2.4")
	m.done(op) // as soon as the dead one is missed
	harness.Eventually(t, "the other one leads", func() error { return harness.Not(leads(follower), "its log does not say so") })
	leader.Restart()
	leader.DNS(t).Ask("www.mec.example", "A").Holds("NOERROR", "A 192.0.2.4")
	wait := follower.Terminate() // which hands over at once
	m.done(m.configure(a.id, ruled(rule("d", "www.mec.example", "192.0.2.5"))))
	leader.DNS(t).Ask("www.mec.example", "A").Holds("NOERROR", "A 192.0.2.5")
	wait()
	m.done(m.terminate(a.id, forceful))
	leader.DNS(t).Ask("www.mec.example", "A").Is("NXDOMAIN")
}

// Whoever sends questions here shall see that it ends before it does.
func TestQuestionsAreAnsweredForAWhileAfterTheEndWasAnnounced(t *testing.T) {
	t.Parallel()
	etcd := etcdtest.Start(t)
	programs := map[string]*harness.Process{
		"mep":      harness.Start(t, owning(), harness.Args("--dns-lame-duck=1s")),
		"dnsagent": harness.StartDNSAgent(t, etcd.Endpoint(), owning(), harness.Args("--dns-lame-duck=1s")),
	}
	for name, p := range programs {
		t.Run(name, func(t *testing.T) {
			p.DNSManagement(t).Post(rrecord, record("www.mec.example", "A", "192.0.2.1")).Is(200)
			d := p.DNS(t)
			before, err := d.TCP().Session()
			require.NoError(t, err)
			defer before.Close()
			wait := p.Terminate()
			announced := 0
			harness.Eventually(t, "it has ended", func() error {
				status, _, err := p.Ready()
				said := err != nil || status != 200
				for _, r := range []*harness.Resolver{d, d.TCP()} {
					reply, err := r.Try(harness.Question("www.mec.example", "A"), time.Second)
					if err != nil {
						return nil
					}
					reply.Holds("NOERROR", "A 192.0.2.1")
				}
				if said {
					announced++
				}
				return fmt.Errorf("it answers still")
			})
			require.Positive(t, announced, "questions were answered after the end was announced")
			require.Less(t, wait(), harness.StopWithin)
		})
	}
}
