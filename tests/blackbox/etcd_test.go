package blackbox

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/openmep/mep/kit/etcdtest"
	"github.com/openmep/mep/tests/harness"
)

// refusedForNow checks that a change was refused because etcd is away.
func refusedForNow(t *testing.T, answer *harness.Answer) {
	t.Helper()
	answer.Problem(503)
	seconds, err := strconv.Atoi(answer.Header.Get("Retry-After"))
	require.NoError(t, err)
	require.Positive(t, seconds)
}

// degraded waits until the state is degraded, or no longer is.
func degraded(t *testing.T, p *harness.Process, want bool) {
	t.Helper()
	harness.EventuallyWithin(t, 2*harness.Patience, fmt.Sprintf("degraded is %t", want), func() error {
		status, r, err := p.Ready()
		if err != nil {
			return err
		}
		require.Equal(t, 200, status, "what works with restrictions is ready")
		return harness.Not(r.IsDegraded("state") == want, "%+v", r)
	})
}

// eventuallyRegister registers a service as soon as changes are accepted again.
func (a app) eventuallyRegister(info object) registered {
	a.TB().Helper()
	var answer *harness.Answer
	harness.EventuallyWithin(a.TB(), 2*harness.Patience, "registrations are accepted again", func() error {
		answer = a.Post(a.services(), info)
		return harness.Not(answer.Status == 201, "answered %d: %s", answer.Status, answer.Body)
	})
	return a.read(answer)
}

func TestWhileEtcdIsAwayReadsGoOnAndChangesAreRefused(t *testing.T) {
	t.Parallel()
	etcd := etcdtest.Start(t)
	p := harness.StartMepserver(t, etcd.Endpoint(), harness.Args("--etcd-timeout=500ms"))
	a := newApp(p.Client(t))
	cb := harness.NewSubscriber(t)
	sub := a.subscribe(cb.URL("/cb"), nil)
	svc := a.register(monitored("x", 60))
	off := a.register(but(own("off"), "state", "INACTIVE"))
	cb.AwaitChange(t, "/cb", "ADDED off INACTIVE")

	etcd.Stop()
	for range 2 { // at once, and when it is known to be away
		require.Len(t, a.Get(services).Is(200).Array(), 2)
		require.Equal(t, []string{"x"}, names(a.Get(services+"?ser_name=x").Is(200).Array(), "serName"))
		same(t, svc.info, a.Get(services+"/"+svc.id).Is(200).Object())
		require.Equal(t, svc.etag, a.Get(a.service(svc.id)).Is(200).ETag())
		require.Len(t, a.Get(a.services()).Is(200).Array(), 2)
		a.Get(a.subscription(sub)).Is(200)
		require.Len(t, links(a), 1)
		a.Get(root + "/transports").Is(200)
		a.Get(a.liveness(svc.id)).Is(200)
		a.Get(services + "/x").Problem(404)
		a.beat(svc.id).Is(204) // costs no write

		refusedForNow(t, a.Post(a.services(), own("new")))
		refusedForNow(t, a.Put(a.service(svc.id), own("changed")))
		refusedForNow(t, a.Delete(a.service(off.id)))
		refusedForNow(t, a.Post(a.subscriptions(), subscription("http://10.0.0.1/")))
		refusedForNow(t, a.Delete(a.subscription(sub)))
		a.Post(a.services(), object{}).Problem(400)
		degraded(t, p, true)
	}
	out := harness.Run(t, "mepserver", []string{"healthcheck", "--ops-listen", p.Addr("ops")})
	require.Zero(t, out.Code, "it can do without for a while")
	require.Contains(t, out.Output, "degraded")

	etcd.StartAgain(t)
	later := a.eventuallyRegister(own("later"))
	degraded(t, p, false)
	cb.AwaitChange(t, "/cb", "ADDED later ACTIVE")
	a.remove(off.id)
	cb.AwaitChange(t, "/cb", "REMOVED off INACTIVE")
	// What was refused may have come to be (its answer said so), but never in part.
	for _, info := range a.Get(a.services()).Array() {
		require.Contains(t, []string{"x", "changed", "new", "later"}, info["serName"])
	}
	require.Equal(t, later.etag, a.Get(a.service(later.id)).ETag())
}

func TestADaemonThatStartsWhileEtcdIsAwayServesItsSnapshot(t *testing.T) {
	t.Parallel()
	for how, end := range map[string]func(t *testing.T, p *harness.Process, id string){
		"stopped": func(_ *testing.T, p *harness.Process, _ string) { p.Stop() },
		"killed": func(t *testing.T, p *harness.Process, id string) {
			harness.Eventually(t, "the snapshot is written", func() error {
				found, err := inFiles(p.DataDir, id)
				if err != nil {
					return err
				}
				return harness.Not(found, "%s is in no file", id)
			})
			p.Kill()
		},
	} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			etcd := etcdtest.Start(t)
			p := harness.StartMepserver(t, etcd.Endpoint(), harness.Args("--etcd-timeout=500ms"))
			a := newApp(p.Client(t))
			cb := harness.NewSubscriber(t)
			sub := a.subscribe(cb.URL("/cb"), nil)
			svc := a.register(but(full("x"), "state", "ACTIVE"))
			cb.AwaitChange(t, "/cb", "ADDED x ACTIVE")
			end(t, p, svc.id)
			etcd.Stop()
			p.Restart()

			degraded(t, p, true)
			got := a.Get(services + "/" + svc.id).Is(200)
			same(t, without(svc.info, "_links"), without(got.Object(), "_links"))
			require.Equal(t, svc.etag, got.ETag())
			require.Equal(t, []string{"x"}, names(a.Get(services+"?ser_category_id=cat-rni").Array(), "serName"))
			a.Get(a.subscription(sub)).Is(200)
			a.beat(svc.id).Is(204)
			refusedForNow(t, a.Post(a.services(), own("y")))
			refusedForNow(t, a.Delete(a.service(svc.id)))

			etcd.StartAgain(t)
			a.eventuallyRegister(own("y"))
			degraded(t, p, false)
			cb.AwaitChange(t, "/cb", "ADDED y ACTIVE")
			require.Equal(t, svc.etag, a.Get(a.service(svc.id)).ETag())
		})
	}
	for how, damage := range map[string]func([]byte) []byte{
		"cut off":        func(data []byte) []byte { return data[:len(data)*2/3] },
		"changed":        func(data []byte) []byte { return []byte(strings.Replace(string(data), `"m":`, `"m":1`, 1)) },
		"empty":          func([]byte) []byte { return nil },
		"something else": func([]byte) []byte { return []byte("hello\n") },
	} {
		t.Run("but not one that is "+how, func(t *testing.T) {
			t.Parallel()
			etcd := etcdtest.Start(t)
			p := harness.StartMepserver(t, etcd.Endpoint())
			a := newApp(p.Client(t))
			svc := a.register(own("x"))
			p.Stop()
			etcd.Stop()
			err := filepath.WalkDir(p.DataDir, func(path string, d fs.DirEntry, err error) error {
				if err != nil || d.IsDir() {
					return err
				}
				data, err := os.ReadFile(path)
				if err != nil {
					return err
				}
				return os.WriteFile(path, damage(data), 0o600)
			})
			require.NoError(t, err)
			p.Restart(harness.Unready())
			status, _, err := p.Ready()
			require.NoError(t, err)
			require.Equal(t, 503, status)
			answer := a.Get(services)
			answer.Problem(503)
			require.NotEmpty(t, answer.Header.Get("Retry-After"))
			etcd.StartAgain(t)
			harness.EventuallyWithin(t, 2*harness.Patience, "the service is back", func() error {
				answer := a.Get(services + "/" + svc.id)
				return harness.Not(answer.Status == 200, "answered %d", answer.Status)
			})
		})
	}
}

// inFiles reports whether a text is in a file below a directory.
func inFiles(dir, text string) (found bool, err error) {
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || strings.HasPrefix(d.Name(), ".") {
			return err
		}
		data, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil // replaced meanwhile
		}
		found = found || strings.Contains(string(data), text)
		return err
	})
	return found, err
}

// compact takes the history away from etcd up to the present.
func compact(t *testing.T, etcd *etcdtest.Server) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), harness.Patience)
	defer cancel()
	client := etcd.Client(t)
	now, err := client.Get(ctx, "x")
	require.NoError(t, err)
	_, err = client.Compact(ctx, now.Header.Revision, clientv3.WithCompactPhysical())
	require.NoError(t, err)
}

// difference checks that a subscriber was told what changed between two states, not necessarily how.
func difference(t *testing.T, cb *harness.Subscriber, before int) {
	t.Helper()
	harness.EventuallyWithin(t, 2*harness.Patience, "the subscriber is told the difference", func() error {
		var ok []string
		for _, d := range cb.All("/cb")[before:] {
			if d.Status == 204 && !slices.Contains(ok, d.Change.String()) {
				ok = append(ok, d.Change.String())
			}
		}
		for _, want := range []string{"ATTRIBUTES_CHANGED changed ACTIVE", "REMOVED removed ACTIVE", "ADDED added ACTIVE"} {
			if !slices.Contains(ok, want) {
				return fmt.Errorf("%s is missing: %v", want, ok)
			}
		}
		state := []string{"STATE_CHANGED switched INACTIVE", "ATTRIBUTES_CHANGED switched INACTIVE"}
		if !slices.Contains(ok, state[0]) && !slices.Contains(ok, state[1]) {
			return fmt.Errorf("the change of switched is missing: %v", ok)
		}
		for _, change := range ok {
			if strings.Contains(change, " kept ") {
				t.Fatalf("there was nothing to tell of %s", change)
			}
		}
		// It came and went: to be told of neither, of its end, or of both is right.
		return harness.Not(!slices.Contains(ok, "ADDED brief ACTIVE") || slices.Contains(ok, "REMOVED brief ACTIVE"), "the end of brief is missing: %v", ok)
	})
}

// behind changes services while a subscriber cannot be told.
type behind struct{ kept, changed, switched, removed registered }

func (b *behind) before(a app) {
	b.kept, b.changed = a.register(own("kept")), a.register(own("changed"))
	b.switched, b.removed = a.register(own("switched")), a.register(own("removed"))
}

func (b *behind) meanwhile(a app) {
	a.replace(b.changed.id, but(own("changed"), "version", "2"))
	a.replace(b.switched.id, but(own("switched"), "state", "INACTIVE"))
	a.remove(b.removed.id)
	a.remove(a.register(own("brief")).id)
	a.register(own("added"))
}

func TestTheDifferenceIsSentWhenHistoryWasCompactedWhileTheDaemonWasAway(t *testing.T) {
	t.Parallel()
	etcd := etcdtest.Start(t)
	p := harness.StartMepserver(t, etcd.Endpoint())
	a := newApp(p.Client(t))
	cb := harness.NewSubscriber(t)
	a.subscribe(cb.URL("/cb"), nil)
	a.subscribe(cb.URL("/filtered"), object{"serNames": []any{"removed"}})
	var b behind
	b.before(a)
	told(t, cb, "/cb", "ADDED kept ACTIVE", "ADDED changed ACTIVE", "ADDED switched ACTIVE", "ADDED removed ACTIVE")
	cb.AwaitChange(t, "/filtered", "ADDED removed ACTIVE")
	saved(t, etcd, p)

	cb.Behave(harness.Status(500))
	b.meanwhile(a)
	p.Kill()
	compact(t, etcd)
	cb.Behave(harness.Status(204))
	before := len(cb.All("/cb"))
	p.Restart()
	difference(t, cb, before)
	cb.AwaitChange(t, "/filtered", "REMOVED removed ACTIVE")
	a.register(own("after"))
	cb.AwaitChange(t, "/cb", "ADDED after ACTIVE")
	require.Equal(t, []string{"ADDED removed ACTIVE", "REMOVED removed ACTIVE"}, cb.Changes("/filtered"))
}

// saved waits until no cursor is behind what was delivered.
func saved(t *testing.T, etcd *etcdtest.Server, p *harness.Process) {
	t.Helper()
	client := etcd.Client(t)
	harness.Eventually(t, "the cursors are saved", func() error {
		highest := int64(0)
		for _, d := range deliveries(t, p) {
			if d.Pending > 0 {
				return fmt.Errorf("%d pending", d.Pending)
			}
			highest = max(highest, d.Cursor)
		}
		resp, err := client.Get(t.Context(), "/mep/v1/cursors/", clientv3.WithPrefix())
		if err != nil {
			return err
		}
		for _, kv := range resp.Kvs {
			if strings.Contains(string(kv.Value), strconv.FormatInt(highest, 10)) {
				return nil
			}
		}
		return fmt.Errorf("%d is in none of %d cursors", highest, len(resp.Kvs))
	})
}

// A process that is frozen for a while, as by a network partition, finds its watch compacted and its leadership lost.
func TestTheDifferenceIsSentByADaemonThatWasCutOff(t *testing.T) {
	t.Parallel()
	etcd := etcdtest.Start(t)
	p := harness.StartMepserver(t, etcd.Endpoint())
	a := newApp(p.Client(t))
	cb := harness.NewSubscriber(t)
	a.subscribe(cb.URL("/cb"), nil)
	var b behind
	b.before(a)
	told(t, cb, "/cb", "ADDED kept ACTIVE", "ADDED changed ACTIVE", "ADDED switched ACTIVE", "ADDED removed ACTIVE")
	saved(t, etcd, p)

	p.Signal(syscall.SIGSTOP)
	t.Cleanup(func() { _ = syscall.Kill(p.Pid(), syscall.SIGCONT) })
	cb.Behave(harness.Status(500))
	other := harness.StartMepserver(t, etcd.Endpoint())
	b.meanwhile(a.with(other.Client(t)))
	// The other daemon takes over as soon as the first one's lease has run out.
	harness.Eventually(t, "the other daemon leads", func() error { return harness.Not(strings.Contains(other.Log(), "msg=leading"), "not yet") })
	harness.Eventually(t, "it tries to deliver", func() error { return harness.Not(len(cb.All("/cb")) > 4, "not yet") })
	other.Kill()
	compact(t, etcd)
	before := len(cb.All("/cb"))
	cb.Behave(harness.Status(204))
	p.Signal(syscall.SIGCONT)
	difference(t, cb, before)
	harness.Eventually(t, "reads are up to date", func() error {
		got := names(a.Get(services).Array(), "serName")
		return harness.Not(slices.Equal(got, []string{"added", "changed", "kept", "switched"}), "%v", got)
	})
	degraded(t, p, false)
	a.eventuallyRegister(own("after"))
	cb.AwaitChange(t, "/cb", "ADDED after ACTIVE")
}

func leads(p *harness.Process) bool {
	log := p.Log()
	return strings.Count(log, "msg=leading ") > strings.Count(log, `msg="no longer leading"`)
}

func TestTwoDaemonsShareTheWork(t *testing.T) {
	t.Parallel()
	etcd := etcdtest.Start(t)
	leader, follower := harness.StartMepserver(t, etcd.Endpoint()), harness.StartMepserver(t, etcd.Endpoint())
	harness.Eventually(t, "one of them leads", func() error { return harness.Not(leads(leader) || leads(follower), "none does") })
	if leads(follower) {
		leader, follower = follower, leader
	}
	require.False(t, leads(follower))
	cb := harness.NewSubscriber(t)
	at := newApp(leader.Client(t)) // the same app at one
	af := at.with(follower.Client(t))
	sub := af.subscribe(cb.URL("/cb"), nil)
	seen := func(a app, id string) {
		t.Helper()
		harness.Eventually(t, "the other daemon knows the service", func() error {
			answer := a.Get(a.service(id))
			return harness.Not(answer.Status == 200, "answered %d", answer.Status)
		})
	}

	// Whichever one is asked, subscribers are told once.
	var want []string
	for i := range 6 {
		a, other := at, af
		if i%2 == 1 {
			a, other = af, at
		}
		svc := a.register(own(fmt.Sprint("s", i)))
		seen(other, svc.id)
		require.Equal(t, svc.etag, other.Get(other.service(svc.id)).ETag())
		other.remove(svc.id)
		want = append(want, fmt.Sprintf("ADDED s%d ACTIVE", i), fmt.Sprintf("REMOVED s%d ACTIVE", i))
	}
	told(t, cb, "/cb", want...)
	require.Len(t, cb.All(), len(want), "nothing was sent twice")
	require.Equal(t, sub, deliveries(t, leader)[0].SubscriptionID)
	require.Equal(t, sub, deliveries(t, follower)[0].SubscriptionID)

	// A heartbeat to any of them keeps a service alive.
	alive := at.register(monitored("alive", 2))
	seen(af, alive.id)
	beating(t, follower, at, alive.id)
	control := at.register(monitored("control1", 2))
	cb.AwaitChange(t, "/cb", "STATE_CHANGED control1 SUSPENDED")
	require.Equal(t, "ACTIVE", at.state(alive.id))
	require.Equal(t, alive.etag, at.Get(at.service(alive.id)).ETag())
	// One to any of them ends a suspension.
	seen(af, control.id)
	harness.Eventually(t, "the other daemon knows of the suspension", func() error { return harness.Not(af.state(control.id) == "SUSPENDED", "no") })
	af.beat(control.id).Is(204)
	cb.AwaitChange(t, "/cb", "STATE_CHANGED control1 ACTIVE")
	at.remove(control.id)

	leader.Kill()
	var after []string
	for i := range 10 {
		af.register(own(fmt.Sprint("n", i)))
		after = append(after, fmt.Sprintf("ADDED n%d ACTIVE", i))
	}
	cb.AwaitChange(t, "/cb", "ADDED n9 ACTIVE")
	got := cb.Changes("/cb")
	require.Equal(t, after, got[len(got)-10:], "in order and without loss")
	harness.Eventually(t, "the follower leads", func() error { return harness.Not(leads(follower), "its log does not say so") })
	af.register(monitored("control2", 2))
	cb.AwaitChange(t, "/cb", "STATE_CHANGED control2 SUSPENDED")
	require.Equal(t, "ACTIVE", af.state(alive.id), "the new leader knows of the heartbeats, too")
	require.Equal(t, alive.etag, af.Get(af.service(alive.id)).ETag())

	// The one that was killed comes back and takes over when the other one stops.
	leader.Restart()
	seen(at, alive.id)
	follower2 := at.register(own("back"))
	seen(af, follower2.id)
	cb.AwaitChange(t, "/cb", "ADDED back ACTIVE")
}

func TestTheLimitsOfAnAppHoldAcrossDaemons(t *testing.T) {
	t.Parallel()
	etcd := etcdtest.Start(t)
	args := harness.Args("--limits-services=5", "--limits-subscriptions=5")
	daemons := []*harness.Process{harness.StartMepserver(t, etcd.Endpoint(), args), harness.StartMepserver(t, etcd.Endpoint(), args)}
	a := newApp(daemons[0].Client(t))
	type outcome struct {
		status int
		err    error
	}
	for path, body := range map[string]object{a.services(): own("x"), a.subscriptions(): subscription("http://10.0.0.1/")} {
		outcomes := make(chan outcome, 16)
		for i := range cap(outcomes) {
			c := daemons[i%2].Client(t)
			go func() {
				answer, err := c.Try("POST", path, body)
				if err != nil {
					outcomes <- outcome{0, err}
					return
				}
				outcomes <- outcome{answer.Status, nil}
			}()
		}
		count := map[int]int{}
		for range cap(outcomes) {
			o := <-outcomes
			require.NoError(t, o.err)
			count[o.status]++
		}
		require.Equal(t, map[int]int{201: 5, 403: cap(outcomes) - 5}, count, path)
	}
	require.Len(t, a.Get(a.services()).Array(), 5)
	require.Len(t, links(a), 5)
}

func TestALeaderThatStopsHandsOverAtOnce(t *testing.T) {
	t.Parallel()
	etcd := etcdtest.Start(t)
	one, two := harness.StartMepserver(t, etcd.Endpoint()), harness.StartMepserver(t, etcd.Endpoint())
	harness.Eventually(t, "one of them leads", func() error { return harness.Not(leads(one) || leads(two), "none does") })
	if leads(two) {
		one, two = two, one
	}
	cb := harness.NewSubscriber(t)
	cb.Behave(harness.Status(500))
	a := newApp(two.Client(t))
	a.subscribe(cb.URL("/cb"), nil)
	a.register(own("x"))
	first := cb.Await(t, "the leader tries to deliver", func(harness.Delivery) bool { return true })
	one.Stop()
	a.register(own("y"))
	cb.Behave(harness.Status(204))
	told(t, cb, "/cb", "ADDED x ACTIVE", "ADDED y ACTIVE")
	require.Equal(t, first.ID, cb.AwaitChange(t, "/cb", "ADDED x ACTIVE").ID, "the id does not depend on who sends it")
}

func TestThePlatformOnAnEtcdOfOthers(t *testing.T) {
	t.Parallel()
	etcd := etcdtest.Start(t)
	p := harness.Start(t, harness.Args("--etcd-endpoints", etcd.Endpoint()))
	a := newApp(p.Client(t))
	cb := harness.NewSubscriber(t)
	a.subscribe(cb.URL("/cb"), nil)
	svc := a.register(own("x"))
	cb.AwaitChange(t, "/cb", "ADDED x ACTIVE")
	daemon := harness.StartMepserver(t, etcd.Endpoint())
	require.Equal(t, svc.etag, a.with(daemon.Client(t)).Get(a.service(svc.id)).ETag())
	p.Stop()
	b := a.with(daemon.Client(t))
	b.remove(svc.id)
	told(t, cb, "/cb", "ADDED x ACTIVE", "REMOVED x ACTIVE")
}
