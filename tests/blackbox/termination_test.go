package blackbox

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/tests/harness"
)

// noticed waits until a path was told that an app is to end.
func noticed(t *testing.T, cb *harness.Subscriber, path, action string) harness.Delivery {
	t.Helper()
	return cb.Await(t, action+" on "+path, func(d harness.Delivery) bool {
		return d.Path == path && d.Termination != nil && d.Termination.OperationAction == action
	})
}

func TestATerminationSubscriptionLivesUntilItIsDeleted(t *testing.T) {
	t.Parallel()
	p := harness.Start(t)
	for _, prefix := range []string{"", "/mep"} {
		a := newApp(p.Client(t)).under(prefix)
		const kind = "AppTerminationNotificationSubscription"
		posted := a.Post(a.endings(), a.ending("http://10.0.0.1:8080/cb?x=1")).Is(201)
		href := posted.Header.Get("Location")
		require.True(t, strings.HasPrefix(href, p.URL("mp1")+a.endings()+"/"), href)
		want := but(a.ending("http://10.0.0.1:8080/cb?x=1"), "_links", object{"self": object{"href": href}})
		same(t, want, posted.Object())
		got := a.Get(href).Is(200)
		same(t, want, got.Object())
		require.Equal(t, posted.ETag(), got.ETag())
		list := a.Get(a.endings()).Is(200).Object()["_links"].(object)
		same(t, []any{object{"href": href, "subscriptionType": kind, "rel": kind}}, list["subscriptions"])
		require.Empty(t, links(a), "the service subscriptions are others")
		a.Get(strings.Replace(href, supportRoot, root, 1)).Problem(404)
		p.Kill()
		p.Restart()
		path := harness.Path(t, href)
		a.Get(path).Is(200)
		require.Empty(t, a.Delete(path).Is(204).Body)
		a.Get(path).Problem(404)
		a.Delete(path).Problem(404)
		same(t, []any{}, a.Get(a.endings()).Object()["_links"].(object)["subscriptions"])
		a.Post(a.endings(), without(a.ending("http://10.0.0.1/"), "appInstanceId")).Is(201)
		a.Post(a.endings(), but(a.ending("http://10.0.0.1/"), "appInstanceId", strings.ToUpper(a.id), "_links", object{"self": object{"href": "x"}})).Is(201)
	}
	limited := harness.Start(t, harness.Args("--limits-subscriptions=2"))
	a := newApp(limited.Client(t))
	a.mind("http://10.0.0.1/")
	a.mind("http://10.0.0.1/")
	require.Contains(t, a.Post(a.endings(), a.ending("http://10.0.0.1/")).Problem(403).Detail, "2")
	a.subscribe("http://10.0.0.1/", nil)
}

func TestTerminationSubscriptionsThatAreRefused(t *testing.T) {
	t.Parallel()
	p := harness.Start(t)
	a := newApp(p.Client(t))
	good := a.ending("http://10.0.0.1/")
	for name, x := range map[string]struct {
		body  object
		about string
	}{
		"no type":               {but(good, "subscriptionType", nil), "subscriptionType"},
		"another type":          {but(good, "subscriptionType", "SerAvailabilityNotificationSubscription"), "subscriptionType"},
		"the notification type": {but(good, "subscriptionType", "AppTerminationNotification"), "subscriptionType"},
		"no call-back":          {but(good, "callbackReference", nil), "callbackReference"},
		"a call-back of 5":      {but(good, "callbackReference", 5), "callbackReference"},
		"relative":              {but(good, "callbackReference", "/cb"), "callbackReference"},
		"ftp":                   {but(good, "callbackReference", "ftp://10.0.0.1/"), "callbackReference"},
		"link-local":            {but(good, "callbackReference", "http://169.254.169.254/latest"), "callbackReference"},
		"the platform itself":   {but(good, "callbackReference", p.URL("mp1")+"/x"), "callbackReference"},
		"the platform's Mm5":    {but(good, "callbackReference", p.URL("mm5")+instances), "callbackReference"},
		"another app":           {but(good, "appInstanceId", uuid.NewString()), "appInstanceId"},
		"an app that is 5":      {but(good, "appInstanceId", 5), "appInstanceId"},
	} {
		require.Contains(t, a.Post(a.endings(), x.body).Problem(400).Names(), x.about, name)
	}
	same(t, []any{}, a.Get(a.endings()).Object()["_links"].(object)["subscriptions"])
}

// The order of the steps, seen from outside (MEC 011 5.2.3).
func TestATerminationGoesStepByStep(t *testing.T) {
	t.Parallel()
	c := harness.NewController(t)
	hold := make(chan struct{})
	var holding atomic.Bool
	c.Before(func(harness.RuleSet) int {
		if holding.Load() {
			select {
			case <-hold:
			case <-c.Ended():
			}
		}
		return 0
	})
	p := harness.Start(t, harness.Secure(), generous(), c.Option(), harness.Args("--callbacks-allow-loopback"))
	m, cb := mepmOf(t, p), harness.NewSubscriber(t)
	a, keys := appOf(t, p)
	consumer, _ := appOf(t, p)
	consumer.subscribe(cb.URL("/consumer"), nil)
	m.done(m.configure(a.id, configuration("x", 2, 2)))
	a.isReady()
	svc, svc2 := a.register(own("first")), a.register(own("second"))
	sub := a.subscribe(cb.URL("/app"), nil)
	a.Post(a.registrations(), registration(a.id)).Is(201)
	end := a.mind(cb.URL("/end"))
	cb.AwaitChange(t, "/consumer", "ADDED second ACTIVE")
	c.AwaitRules(t, harness.DNS, a.id, "d1", "d2")

	// 1. The app is told and waited for. All it has is there, and it may remove but add nothing.
	holding.Store(true)
	op := m.terminate(a.id, graceful(600))
	notice := noticed(t, cb, "/end", "TERMINATING")
	require.LessOrEqual(t, notice.Termination.MaxGracefulTimeout, 600)
	require.Greater(t, notice.Termination.MaxGracefulTimeout, 500)
	require.Equal(t, p.URL("mp1")+end, notice.Subscription)
	require.Equal(t, "TERMINATING", m.state(a.id))
	require.Equal(t, []string{"t1", "t2"}, c.Holds(harness.Traffic, a.id))
	require.Equal(t, map[string]string{"t1": "ACTIVE", "t2": "ACTIVE", "d1": "ACTIVE", "d2": "ACTIVE"}, a.states())
	a.remove(svc.id)
	cb.AwaitChange(t, "/consumer", "REMOVED first ACTIVE")
	a.Post(a.services(), own("x")).Problem(403)
	keys.Ask(p.Auth(t)).Is(200)
	now := m.Get(op).Object()
	require.Equal(t, []any{"PROCESSING", "TERMINATE"}, []any{now["operationState"], now["lcmOperation"]})

	// 2. The rules are taken back, and nothing else happens until they are.
	confirm, err := url.Parse(notice.Termination.Links.ConfirmTermination.Href)
	require.NoError(t, err)
	a.Post(confirm.String(), object{"operationAction": "TERMINATING"}).Is(204)
	a.confirm("TERMINATING").Is(204)
	harness.Eventually(t, "the app reads that its rules are not in force", func() error {
		states := a.states()
		return harness.Not(states["t1"] == "INACTIVE", "%v", states)
	})
	consumer.Get(services + "/" + svc2.id).Is(200)
	a.Get(a.subscription(sub)).Is(200)
	require.Equal(t, []string{"t1", "t2"}, c.Holds(harness.Traffic, a.id))

	// 3. to 6. Services with REMOVED to their consumers, subscriptions, credentials and tokens, the app.
	holding.Store(false)
	close(hold)
	m.done(op)
	removed := cb.AwaitChange(t, "/consumer", "REMOVED second ACTIVE")
	for _, kind := range []string{harness.Traffic, harness.DNS} {
		calls := c.Calls()
		taken := slices.IndexFunc(calls, func(s harness.RuleSet) bool { return s.Kind == kind && len(s.Rules()) == 0 })
		require.True(t, calls[taken].At.Before(removed.At), "rules first, then services")
	}
	require.Empty(t, c.Apps())
	unauthenticated(t, a.Get(a.services()), "invalid_token")
	unauthenticated(t, a.confirm("TERMINATING"), "invalid_token")
	oauthError(t, keys.Ask(p.Auth(t)), 401, "invalid_client")
	consumer.Get(services + "/" + svc2.id).Problem(404)
	require.Empty(t, consumer.Get(services).Array())
	require.Empty(t, m.state(a.id))
	m.Get(instance(a.id)).Problem(404)
	require.NotContains(t, p.Manager(t).Get("/mep/appMng/v1/applications").Is(200).Array(), a.id)
	again := harness.ProvisionAs(p.Manager(t), a.id, nil)
	reborn := app{Client: p.Client(t).With(again.Fetch(p.Auth(t)).AccessToken), id: a.id}
	require.Empty(t, reborn.Get(reborn.services()).Is(200).Array(), "nothing of its last life is left")
	require.Empty(t, links(reborn))
	require.Empty(t, reborn.states())
	reborn.Get(reborn.registration()).Problem(404)
	reborn.Get(end).Problem(404)
	require.NotEqual(t, op, m.terminate(a.id, forceful), "and its next life ends by itself")
}

func TestAStopKeepsTheConfiguration(t *testing.T) {
	t.Parallel()
	c := harness.NewController(t)
	p := harness.Start(t, harness.Secure(), generous(), c.Option(), harness.Args("--callbacks-allow-loopback"))
	m, cb := mepmOf(t, p), harness.NewSubscriber(t)
	a, keys := appOf(t, p)
	consumer, _ := appOf(t, p)
	consumer.subscribe(cb.URL("/consumer"), nil)
	m.done(m.configure(a.id, configuration("x", 2, 1)))
	a.isReady()
	a.register(own("svc"))
	a.mind(cb.URL("/end"))
	a.Post(a.registrations(), registration(a.id)).Is(201)
	a.Put(a.trafficRule("t1"), but(traffic("t1"), "priority", 9, "state", "ACTIVE")).Is(200)
	tag := m.Get(instance(a.id)).ETag()
	c.AwaitRules(t, harness.Traffic, a.id, "t1", "t2")

	op := m.operate(a.id, gracefulStop(300))
	noticed(t, cb, "/end", "STOPPING")
	a.Post(a.confirmation(), object{"operationAction": "STOPPPING"}).Is(204) // as the standard prints it
	m.done(op)
	cb.AwaitChange(t, "/consumer", "REMOVED svc ACTIVE")
	require.Equal(t, "STOPPED", m.state(a.id))
	require.Empty(t, c.Apps())
	require.Equal(t, tag, m.Get(instance(a.id)).ETag())
	require.Equal(t, map[string]string{"t1": "INACTIVE", "t2": "INACTIVE", "d1": "INACTIVE"}, a.states())
	a.Get(a.registration()).Is(200)
	same(t, []any{}, a.Get(a.endings()).Object()["_links"].(object)["subscriptions"])
	keys.Ask(p.Auth(t)).Is(200)
	require.Contains(t, a.Post(a.ready(), object{"indication": "READY"}).Problem(409).Detail, "stopped")

	p.Kill()
	p.Restart()
	require.Equal(t, "STOPPED", m.state(a.id))
	m.done(m.operate(a.id, started))
	c.AwaitRules(t, harness.Traffic, a.id, "t1", "t2")
	require.EqualValues(t, 9, c.Rule(harness.Traffic, a.id, "t1")["priority"], "what the app had changed is kept")
	a.isReady()
	a.register(own("svc"))
	cb.AwaitChange(t, "/consumer", "ADDED svc ACTIVE")
}

// Whatever subscribers do, an app ends at the latest when its time is over.
func TestTerminationSubscribersThatMisbehave(t *testing.T) {
	t.Parallel()
	p := harness.Start(t)
	redirect := func(w http.ResponseWriter, r *http.Request, d harness.Delivery) {
		if d.Path == "/elsewhere" {
			t.Error("a redirect was followed")
		}
		http.Redirect(w, r, "/elsewhere", http.StatusTemporaryRedirect)
	}
	for name, behave := range map[string]func(*harness.Subscriber) harness.Behaviour{
		"never answers": (*harness.Subscriber).Hang,
		"answers 500":   func(*harness.Subscriber) harness.Behaviour { return harness.Status(500) },
		"answers 404":   func(*harness.Subscriber) harness.Behaviour { return harness.Status(404) },
		"is gone":       func(*harness.Subscriber) harness.Behaviour { return harness.Status(410) },
		"redirects":     func(*harness.Subscriber) harness.Behaviour { return redirect },
		"hangs up": func(*harness.Subscriber) harness.Behaviour {
			return func(http.ResponseWriter, *http.Request, harness.Delivery) { panic(http.ErrAbortHandler) }
		},
		"is slow": func(s *harness.Subscriber) harness.Behaviour {
			return func(w http.ResponseWriter, _ *http.Request, _ harness.Delivery) {
				select {
				case <-time.After(1500 * time.Millisecond):
				case <-s.Ended():
				}
				w.WriteHeader(204)
			}
		},
		"takes it and does nothing": func(*harness.Subscriber) harness.Behaviour { return harness.Status(204) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cb := harness.NewSubscriber(t)
			cb.Behave(behave(cb))
			a, m := running(t, p)
			a.mind(cb.URL("/end"))
			begin := time.Now()
			op := m.terminate(a.id, graceful(2))
			d := noticed(t, cb, "/end", "TERMINATING")
			require.Positive(t, d.Termination.MaxGracefulTimeout)
			require.LessOrEqual(t, d.Termination.MaxGracefulTimeout, 2)
			done := m.done(op)
			require.GreaterOrEqual(t, time.Since(begin), 2*time.Second, "the app has the time it was promised")
			require.Contains(t, done["detail"], "did not confirm")
			require.Empty(t, m.state(a.id))
			for _, again := range cb.All("/end") {
				require.Equal(t, d.ID, again.ID, "it is one notification, however often it is sent")
			}
		})
		t.Run(name+", and another one confirms", func(t *testing.T) {
			t.Parallel()
			bad, good := harness.NewSubscriber(t), harness.NewSubscriber(t)
			bad.Behave(behave(bad))
			a, m := running(t, p)
			good.Behave(func(w http.ResponseWriter, _ *http.Request, d harness.Delivery) {
				// Before it answers: the platform waits for nobody with anything in its hands.
				answer, err := a.Try("POST", d.Termination.Links.ConfirmTermination.Href, object{"operationAction": d.Termination.OperationAction})
				if err != nil || answer.Status != 204 {
					t.Errorf("confirm: %v %v", err, answer)
				}
				w.WriteHeader(204)
			})
			a.mind(bad.URL("/bad"))
			a.mind(good.URL("/good"))
			done := m.done(m.operate(a.id, gracefulStop(3600)))
			require.Nil(t, done["detail"])
			require.Equal(t, "STOPPED", m.state(a.id))
		})
	}
}

func TestAllSubscribersAreToldAndTheFirstConfirmationCounts(t *testing.T) {
	t.Parallel()
	p := harness.Start(t)
	a, m := running(t, p)
	cb := harness.NewSubscriber(t)
	subs := map[string]string{}
	for _, path := range []string{"/1", "/2", "/3"} {
		subs[path] = p.URL("mp1") + a.mind(cb.URL(path))
	}
	gone := a.mind(cb.URL("/deleted"))
	a.Delete(gone).Is(204)
	other, _ := running(t, p)
	other.mind(cb.URL("/other"))
	op := m.terminate(a.id, graceful(600))
	ids := map[string]bool{}
	for path, sub := range subs {
		d := noticed(t, cb, path, "TERMINATING")
		require.Equal(t, sub, d.Subscription)
		ids[d.ID] = true
	}
	require.Len(t, ids, 3, "each subscriber has its own notification")
	require.Contains(t, a.confirm("STOPPING").Problem(400).Detail, "TERMINATING")
	a.confirm("TERMINATING").Is(204)
	require.Nil(t, m.done(op)["detail"])
	require.Len(t, cb.Distinct("/1", "/2", "/3"), 3, "each is told once, however often a call is repeated")
	require.Empty(t, cb.All("/deleted", "/other"))
	a.confirm("TERMINATING").Problem(409)
}

func TestTheTimeAnAppHas(t *testing.T) {
	t.Parallel()
	p := harness.Start(t, harness.Args("--lifecycle-graceful-timeout=2s"))
	cb := harness.NewSubscriber(t)
	for name, x := range map[string]struct {
		end  func(m mepm, id string) string
		told int // 0: not at all
	}{
		"GRACEFUL without a time-out": {func(m mepm, id string) string { return m.terminate(id, object{"terminationType": "GRACEFUL"}) }, 2},
		"GRACEFUL with 0":             {func(m mepm, id string) string { return m.terminate(id, graceful(0)) }, 2},
		"GRACEFUL with 1":             {func(m mepm, id string) string { return m.terminate(id, graceful(1)) }, 1},
		"a stop": {func(m mepm, id string) string {
			return m.operate(id, object{"changeStateTo": "STOPPED", "stopType": "GRACEFUL"})
		}, 2},
		"FORCEFUL":              {func(m mepm, id string) string { return m.terminate(id, forceful) }, 0},
		"a stop without a type": {func(m mepm, id string) string { return m.operate(id, stopped) }, 0},
		"nobody who is told":    {func(m mepm, id string) string { return m.terminate(id, graceful(2)) }, -2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a, m := running(t, p)
			path := "/" + a.id
			if x.told >= 0 {
				a.mind(cb.URL(path))
			}
			begin := time.Now()
			m.done(x.end(m, a.id))
			switch told := cb.All(path); {
			case x.told == 0:
				require.Empty(t, told)
			case x.told < 0:
				require.GreaterOrEqual(t, time.Since(begin), 2*time.Second, "an app may confirm without a subscription")
			default:
				require.Equal(t, x.told, told[0].Termination.MaxGracefulTimeout)
				require.GreaterOrEqual(t, time.Since(begin), time.Duration(x.told)*time.Second)
			}
		})
	}
}

func TestAnEndThatIsHurriedOrTakenOver(t *testing.T) {
	t.Parallel()
	p := harness.Start(t)
	cb := harness.NewSubscriber(t)
	t.Run("FORCEFUL ends the wait of GRACEFUL", func(t *testing.T) {
		t.Parallel()
		a, m := running(t, p)
		op := m.terminate(a.id, graceful(3600))
		require.Equal(t, op, m.terminate(a.id, graceful(1)), "the same again changes nothing")
		require.Equal(t, "PROCESSING", m.Get(op).Object()["operationState"])
		require.Equal(t, op, m.terminate(a.id, forceful))
		m.done(op)
		require.Equal(t, op, m.terminate(a.id, forceful), "and when it is over")
		require.Equal(t, op, m.terminate(a.id, graceful(5)))
	})
	t.Run("a stop, too", func(t *testing.T) {
		t.Parallel()
		a, m := running(t, p)
		op := m.operate(a.id, gracefulStop(3600))
		require.Equal(t, op, m.operate(a.id, stopped))
		m.done(op)
		require.Equal(t, "STOPPED", m.state(a.id))
	})
	t.Run("a termination takes a stop over", func(t *testing.T) {
		t.Parallel()
		a, m := running(t, p)
		a.mind(cb.URL("/taken"))
		stop := m.operate(a.id, gracefulStop(3600))
		noticed(t, cb, "/taken", "STOPPING")
		op := m.terminate(a.id, graceful(3600))
		require.Contains(t, m.failed(stop)["detail"], "overtaken")
		told := noticed(t, cb, "/taken", "TERMINATING")
		require.NotEqual(t, cb.All("/taken")[0].ID, told.ID)
		a.confirm("STOPPING").Problem(400)
		a.confirm("TERMINATING").Is(204)
		m.done(op)
	})
	t.Run("an operation that is not over is", func(t *testing.T) {
		t.Parallel()
		c := harness.NewController(t)
		c.Before(func(harness.RuleSet) int { return 503 })
		p := harness.Start(t, c.Option(), harness.Args("--lifecycle-rule-timeout=1s"))
		m, a := mepmOf(t, p), newApp(p.Client(t))
		m.done(m.configure(a.id, configuration("x", 1, 1)))
		start := m.operate(a.id, started)
		end := m.terminate(a.id, forceful)
		require.Contains(t, m.failed(start)["detail"], "overtaken")
		m.done(end)
	})
}

// The time an app was promised is what it has, also when the platform is killed, or stopped, meanwhile.
func TestTheWaitForAnAppOutlivesThePlatform(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(*harness.Process){
		"killed": (*harness.Process).Kill, "stopped": func(p *harness.Process) { p.Stop() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const seconds = 8
			p := harness.Start(t)
			cb := harness.NewSubscriber(t)
			a, m := running(t, p)
			a.mind(cb.URL("/end"))
			b, _ := running(t, p)
			begin := time.Now()
			op, other := m.terminate(a.id, graceful(seconds)), m.operate(b.id, gracefulStop(seconds))
			first := noticed(t, cb, "/end", "TERMINATING")
			for range 2 {
				time.Sleep(seconds / 4 * time.Second) // a part of the time goes by
				end(p)
				p.Restart()
				require.Equal(t, "PROCESSING", m.Get(op).Object()["operationState"])
				require.Equal(t, "STOPPING", m.state(b.id))
			}
			m.done(op)
			require.GreaterOrEqual(t, time.Since(begin), seconds*time.Second)
			m.done(other)
			require.Equal(t, "STOPPED", m.state(b.id))
			for _, d := range cb.All("/end") {
				require.Equal(t, first.ID, d.ID)
			}
			require.Greater(t, len(cb.All("/end")), 1, "whoever goes on tells it again")
			for _, d := range cb.All("/end")[1:] {
				require.Less(t, d.Termination.MaxGracefulTimeout, seconds, "it is told what is left, not the whole time once more")
			}
		})
	}
}
