package blackbox

import (
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/kit/etcdtest"
	"github.com/openmep/mep/tests/harness"
)

// replicas are two daemons on one etcd; leader is the one that leads.
func replicas(t *testing.T, options ...harness.Option) (leader, follower *harness.Process) {
	t.Helper()
	etcd := etcdtest.Start(t)
	leader, follower = harness.StartMepserver(t, etcd.Endpoint(), options...), harness.StartMepserver(t, etcd.Endpoint(), options...)
	harness.Eventually(t, "one of them leads", func() error { return harness.Not(leads(leader) || leads(follower), "none does") })
	if leads(follower) {
		leader, follower = follower, leader
	}
	return leader, follower
}

func TestALeaderThatIsKilledDuringATerminationIsSucceeded(t *testing.T) {
	t.Parallel()
	for _, when := range []string{"while the app is waited for", "while the rules are taken back"} {
		t.Run(when, func(t *testing.T) {
			t.Parallel()
			c := harness.NewController(t)
			leader, follower := replicas(t, c.Option())
			cb := harness.NewSubscriber(t)
			m, a := mepmOf(t, follower), newApp(follower.Client(t))
			consumer := newApp(follower.Client(t))
			consumer.subscribe(cb.URL("/consumer"), nil)
			a.mind(cb.URL("/end"))
			a.register(own("cam"))
			op := m.configure(a.id, configuration("x", 2, 2))
			m.done(op)
			a.isReady()
			c.AwaitRules(t, harness.Traffic, a.id, "t1", "t2") // by the other one
			c.AwaitRules(t, harness.DNS, a.id, "d1", "d2")
			harness.Eventually(t, "both see what was reported", func() error {
				rules := m.rules(a.id)
				return harness.Not(slices.Equal([]string{"DNS d1 APPLIED", "DNS d2 APPLIED", "TRAFFIC t1 APPLIED", "TRAFFIC t2 APPLIED"}, rules), "%v", rules)
			})
			events := harness.Follow(follower.UncheckedMm5(t), events+"?types=operation,service")

			reached := make(chan struct{}, 8)
			if when == "while the rules are taken back" {
				c.Before(func(harness.RuleSet) int {
					reached <- struct{}{}
					return http.StatusServiceUnavailable
				})
			}
			end := m.terminate(a.id, graceful(3600))
			first := noticed(t, cb, "/end", "TERMINATING")
			if when == "while the rules are taken back" {
				a.confirm("TERMINATING").Is(204)
				<-reached
				leader.Kill()
				c.Before(nil)
			} else {
				leader.Kill()
				a.confirm("TERMINATING").Is(204)
			}
			m.done(end)
			require.Empty(t, m.state(a.id))
			harness.EventuallyWithin(t, 2*harness.Patience, "nothing is left", func() error { return harness.Not(len(c.Apps()) == 0, "%v", c.Apps()) })
			cb.AwaitChange(t, "/consumer", "REMOVED cam ACTIVE")
			for _, d := range cb.All("/end") {
				require.Equal(t, first.ID, d.ID, "whoever tells it, it is one notification")
			}
			events.Await(t, "the end is an event at the other one", func(e harness.Event) bool {
				return e.Data["lcmOperation"] == "TERMINATE" && e.Data["operationState"] == "COMPLETED"
			})
			require.Len(t, events.All("service"), 1)

			leader.Restart()
			back := mepmOf(t, leader)
			harness.Eventually(t, "the one that comes back knows", func() error {
				got := back.Get(end).Object()["operationState"]
				return harness.Not(got == "COMPLETED", "%v", got)
			})
			back.done(back.configure(a.id, configuration("x", 1, 0)))
		})
	}
}

func TestReplicasAgreeOnWhatIsAsked(t *testing.T) {
	t.Parallel()
	leader, follower := replicas(t)
	m, n := mepmOf(t, leader), mepmOf(t, follower)
	id := uuid.NewString()
	op := m.configure(id, configuration("x", 1, 1))
	require.Equal(t, op, n.configure(id, configuration("x", 1, 1)), "the same request at another replica is the same operation")
	n.done(op)
	tag := n.Get(instance(id)).ETag()
	require.Equal(t, tag, m.Get(instance(id)).ETag())
	n.done(n.begun(n.Put(instance(id), configuration("y", 1, 0), harness.Header("If-Match", tag))))
	m.Put(instance(id), configuration("z", 1, 0), harness.Header("If-Match", tag)).Problem(412)
	end := m.terminate(id, graceful(3600))
	require.Equal(t, end, n.terminate(id, forceful))
	n.done(end)
	m.done(end)
}

func TestWhileEtcdIsAwayAnAppIsSupportedAsFarAsThatGoes(t *testing.T) {
	t.Parallel()
	etcd := etcdtest.Start(t)
	c := harness.NewController(t)
	p := harness.StartMepserver(t, etcd.Endpoint(), c.Option(), harness.Args("--etcd-timeout=500ms"))
	a, m := running(t, p)
	b, _ := running(t, p)
	cb := harness.NewSubscriber(t)
	sub := b.mind(cb.URL("/end"))
	a.Post(a.registrations(), registration(a.id)).Is(201)
	c.AwaitRules(t, harness.DNS, b.id, "d1", "d2")
	tag := a.Get(a.trafficRule("t1")).ETag()
	stream := harness.Follow(p.UncheckedMm5(t), events)
	late, _ := running(t, p)
	end, other := m.terminate(b.id, graceful(3600)), m.terminate(late.id, graceful(2)) // which may be over before etcd is away, or meanwhile
	noticed(t, cb, "/end", "TERMINATING")
	stream.Await(t, "the termination is an event", func(e harness.Event) bool { return e.Data["lcmOperation"] == "TERMINATE" })

	etcd.Stop()
	for range 2 {
		require.Equal(t, tag, a.Get(a.trafficRule("t1")).Is(200).ETag())
		a.Get(a.dnsRules()).Is(200)
		a.Get(a.registration()).Is(200)
		b.Get(sub).Is(200)
		a.Get(supportRoot + "/timing/current_time").Is(200)
		m.Get(instance(a.id)).Is(200)
		m.Get(instances).Is(200)
		require.Equal(t, "PROCESSING", m.Get(end).Is(200).Object()["operationState"])
		refusedAtOnce(t, []asked{
			{a.Client, "PUT", a.trafficRule("t1"), but(traffic("t1"), "priority", 7, "state", "ACTIVE")}, {a.Client, "PUT", a.dnsRule("d1"), object{"state": "INACTIVE"}},
			{a.Client, "POST", a.endings(), a.ending("http://10.0.0.1/")}, {a.Client, "DELETE", a.registration(), nil},
			{a.Client, "PUT", a.registration(), but(registration(a.id), "appName", "y")}, {b.Client, "POST", b.confirmation(), object{"operationAction": "TERMINATING"}},
			{m.Client, "PUT", instance(a.id), configuration("y", 1, 0)}, {m.Client, "DELETE", instance(a.id), nil}, {m.Client, "POST", instance(a.id) + "/operate", stopped},
			{m.Client, "POST", instance(a.id) + "/terminate", forceful}, {m.Client, "PUT", instance(uuid.NewString()), configuration("z", 1, 0)},
		})
		m.Put(instance(a.id)+"?dryRun=true", configuration("y", 1, 0)).Is(200)
		m.Put(instance(a.id), object{"appName": 5}).Problem(400)
	}
	etcd.StartAgain(t)
	m.done(other)
	harness.EventuallyWithin(t, 2*harness.Patience, "the app can confirm", func() error {
		answer := b.confirm("TERMINATING")
		return harness.Not(answer.Status == 204, "answered %d: %s", answer.Status, answer.Body)
	})
	m.done(end)
	require.Empty(t, m.state(b.id))
	require.Empty(t, m.state(late.id))
	harness.EventuallyWithin(t, 2*harness.Patience, "changes are accepted again", func() error {
		answer := m.Post(instance(a.id)+"/terminate", forceful)
		return harness.Not(answer.Status == 202, "answered %d: %s", answer.Status, answer.Body)
	})
	m.becomes(a.id, "")
	harness.EventuallyWithin(t, 2*harness.Patience, "nothing is left", func() error { return harness.Not(len(c.Apps()) == 0, "%v", c.Apps()) })
	harness.EventuallyWithin(t, 2*harness.Patience, "the stream goes on where it was", func() error {
		ends := 0
		for _, e := range stream.All("app") {
			if e.Data["change"] == "REMOVED" {
				ends++
			}
		}
		return harness.Not(ends == 3, "%d ends", ends)
	})
}

type asked struct {
	*harness.Client
	method, path string
	body         any
}

// refusedAtOnce makes requests at the same time, all of which must be refused because etcd is away.
func refusedAtOnce(t *testing.T, requests []asked) {
	t.Helper()
	answers := make([]*harness.Answer, len(requests))
	var working sync.WaitGroup
	for i, r := range requests {
		working.Go(func() {
			var err error
			if answers[i], err = r.Try(r.method, r.path, r.body); err != nil {
				t.Error(err)
			}
		})
	}
	working.Wait()
	require.False(t, t.Failed())
	for _, answer := range answers {
		refusedForNow(t, answer)
	}
}

// The token service may be another process, and away.
func TestCredentialsEndWithTheAppWhereverTheTokenServiceIs(t *testing.T) {
	t.Parallel()
	etcd := etcdtest.Start(t)
	p, auth := harness.StartMepserver(t, etcd.Endpoint(), harness.Args("--lifecycle-rule-timeout=1s")), harness.StartMepauth(t, etcd.Endpoint())
	m := mepmOf(t, p)
	provisioned := func() (app, harness.Keys) {
		t.Helper()
		a := newApp(p.Client(t))
		var made struct {
			AuthInfo struct{ Credentials harness.Keys }
		}
		auth.Auth(t).Put(harness.ConfsPath(a.id), object{}).Is(200).Into(&made)
		harness.Eventually(t, "the app is known", func() error { return harness.Not(m.state(a.id) != "", "no") })
		return a, made.AuthInfo.Credentials
	}
	a, keys := provisioned()
	keys.Fetch(auth.Auth(t))
	op := m.done(m.terminate(a.id, forceful))
	require.Nil(t, op["detail"])
	oauthError(t, keys.Ask(auth.Auth(t)), 401, "invalid_client")

	b, keys := provisioned()
	m.done(m.configure(b.id, configuration("x", 1, 1)))
	auth.Kill()
	op = m.done(m.terminate(b.id, forceful))
	require.Contains(t, op["detail"], "credentials")
	require.Empty(t, m.state(b.id))
	auth.Restart()
	harness.Eventually(t, "they go when it is back", func() error {
		answer := keys.Ask(auth.Auth(t))
		return harness.Not(answer.Status == 401, "answered %d", answer.Status)
	})
	// New ones of the same app are others.
	var made struct {
		AuthInfo struct{ Credentials harness.Keys }
	}
	auth.Auth(t).Put(harness.ConfsPath(b.id), object{}).Is(200).Into(&made)
	for range 2 {
		made.AuthInfo.Credentials.Fetch(auth.Auth(t))
		auth.Restart()
	}
	harness.Eventually(t, "the app is known again", func() error { return harness.Not(m.state(b.id) == "NOT_CONFIGURED", "it is %q", m.state(b.id)) })
	require.True(t, slices.ContainsFunc(auth.Auth(t).Get("/mep/appMng/v1/applications").Is(200).Array(), func(o object) bool {
		return strings.EqualFold(o["app_ins_id"].(string), b.id)
	}))
	m.done(m.configure(b.id, configuration("x", 1, 1)))
	b.isReady()
}
