package blackbox

import (
	"fmt"
	"slices"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/tests/harness"
)

// Credentials that come while an app ends are either its next life's, or end with this one.
func TestCredentialsThatComeWhileAnAppEnds(t *testing.T) {
	t.Parallel()
	c := harness.NewController(t)
	p := harness.Start(t, harness.Secure(), generous(), c.Option(), harness.Args("--lifecycle-rule-timeout=30s"))
	m := mepmOf(t, p)
	for name, confs := range map[string]object{"other keys": {}, "the same keys": nil} {
		t.Run(name, func(t *testing.T) {
			a, keys := appOf(t, p)
			m.done(m.configure(a.id, configuration("x", 1, 0)))
			a.isReady()
			c.AwaitRules(t, harness.Traffic, a.id, "t1")
			reached, hold := make(chan struct{}, 8), make(chan struct{})
			c.Before(func(harness.RuleSet) int {
				reached <- struct{}{}
				select {
				case <-hold:
				case <-c.Ended():
				}
				return 0
			})
			op := m.terminate(a.id, forceful)
			<-reached
			if confs == nil {
				confs = object{"authInfo": object{"credentials": object{"accessKeyId": keys.AccessKeyID, "secretKey": keys.SecretKey}}}
			}
			put := p.Manager(t).Put(harness.ConfsPath(a.id), confs)
			c.Before(nil)
			close(hold)
			m.done(op)
			require.Contains(t, []int{200, 403, 409}, put.Status, "%s", put.Body)
			known := m.state(a.id) != ""
			listed := slices.ContainsFunc(p.Manager(t).Get("/mep/appMng/v1/applications").Is(200).Array(), func(o object) bool { return o["app_ins_id"] == a.id })
			require.Equal(t, known, listed, "there are no credentials of an app instance that is not known")
			a.Get(a.services()).Is(401)
		})
	}
}

func TestEverythingAnAppOffersIsRemoved(t *testing.T) {
	t.Parallel()
	p := harness.Start(t)
	m, a, consumer := mepmOf(t, p), newApp(p.Unchecked(t)), newApp(p.Client(t))
	cb := harness.NewSubscriber(t)
	const many = 230 // more than one transaction holds
	for i := range many {
		a.register(own(fmt.Sprint("s", i)))
		if i%4 == 0 {
			a.mind("http://10.0.0.1/")
			a.subscribe("http://10.0.0.1/", object{"serNames": []any{"none"}})
		}
	}
	consumer.subscribe(cb.URL("/cb"), nil)
	op := m.terminate(a.id, forceful)
	p.Signal(syscall.SIGKILL) // before, while or after it is done
	p.Kill()
	p.Restart()
	harness.EventuallyWithin(t, 2*harness.Patience, "the app is gone", func() error {
		state := m.state(a.id)
		if state == "NOT_CONFIGURED" { // the answer came before the platform could be killed, or never
			op = m.terminate(a.id, forceful)
		}
		return harness.Not(state == "", "it is %s", state)
	})
	m.done(op)
	require.Empty(t, consumer.Get(services).Array())
	harness.EventuallyWithin(t, 2*harness.Patience, "every removal is told", func() error {
		told := map[string]bool{}
		for _, d := range cb.Distinct("/cb") {
			told[d.Change.String()] = true
		}
		return harness.Not(len(told) == many, "%d of %d", len(told), many)
	})
	require.Empty(t, links(a))
}

// To end an app makes room: it is possible where there is none, with all that belongs to it.
func TestAnAppEndsWhereThereIsNoRoom(t *testing.T) {
	t.Parallel()
	c, cb := harness.NewController(t), harness.NewSubscriber(t)
	p := harness.Start(t, c.Option())
	m, consumer := mepmOf(t, p), newApp(p.Client(t))
	consumer.subscribe(cb.URL("/cb"), nil)
	var ends, stops app
	for _, a := range []*app{&ends, &stops} {
		*a, _ = running(t, p)
		a.register(own("cam"))
		a.mind(cb.URL("/" + a.id))
		p.Auth(t).Put(harness.ConfsPath(a.id), object{}).Is(200)
		c.AwaitRules(t, harness.DNS, a.id, "d1", "d2")
	}
	p.Restart(harness.Args(fmt.Sprint("--storage-reserve=", int64(1)<<60), "--lifecycle-rule-timeout=1s"))
	other := newApp(p.Client(t))
	for _, answer := range []*harness.Answer{
		m.Put(instance(ends.id), configuration("y", 1, 0)), m.Put(instance(other.id), configuration("y", 1, 0)),
		ends.Put(ends.trafficRule("t1"), but(traffic("t1"), "priority", 9, "state", "ACTIVE")), ends.Put(ends.dnsRule("d1"), object{"state": "INACTIVE"}),
		other.Post(other.registrations(), registration(other.id)), other.Post(other.endings(), other.ending("http://10.0.0.1/")),
	} {
		require.Contains(t, answer.Problem(507).Detail, "disk")
	}
	m.Put(instance(ends.id)+"?dryRun=true", configuration("y", 1, 0)).Is(200)
	op := m.terminate(ends.id, graceful(3600))
	noticed(t, cb, "/"+ends.id, "TERMINATING")
	ends.confirm("TERMINATING").Is(204)
	m.becomes(ends.id, "")
	stop := m.operate(stops.id, stopped)
	m.becomes(stops.id, "STOPPED")
	harness.EventuallyWithin(t, 2*harness.Patience, "no rule is left over", func() error { return harness.Not(len(c.Apps()) == 0, "%v", c.Apps()) })
	require.Empty(t, consumer.Get(services).Array())
	listed := func() []string {
		return names(p.Auth(t).Get("/mep/appMng/v1/applications").Is(200).Array(), "app_ins_id")
	}
	harness.Eventually(t, "the credentials went with it", func() error { return harness.Not(slices.Equal([]string{stops.id}, listed()), "%v", listed()) })
	p.Restart(harness.Args("--storage-reserve=1"))
	m.done(op)
	m.done(stop)
	harness.EventuallyWithin(t, 2*harness.Patience, "both removals are told, at the latest when there is room", func() error {
		told := slices.DeleteFunc(cb.Distinct("/cb"), func(d harness.Delivery) bool { return d.Change.ChangeType != "REMOVED" })
		return harness.Not(len(told) >= 2, "%d", len(told))
	})
	m.done(m.operate(stops.id, started))
	c.AwaitRules(t, harness.Traffic, stops.id, "t1", "t2")
}
