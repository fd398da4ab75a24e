package blackbox

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/tests/harness"
)

// told waits until a subscriber was told the last of the changes on a path, and compares all of them. Because delivery is in
// order, nothing else can come between them later.
func told(t *testing.T, cb *harness.Subscriber, path string, want ...string) {
	t.Helper()
	last, first := want[len(want)-1], slices.Index(want, want[len(want)-1])
	require.Equal(t, len(want)-1, first, "the last change must be distinct to be waited for")
	cb.AwaitChange(t, path, last)
	require.Equal(t, want, cb.Changes(path))
}

func TestEachChangeIsOneNotification(t *testing.T) {
	t.Parallel()
	p := harness.Start(t)
	cb := harness.NewSubscriber(t)
	a := newApp(p.Client(t))
	a.register(own("before"))
	sub := a.subscribe(cb.URL("/all"), nil)

	svc := a.register(own("x"))
	a.replace(svc.id, but(own("x"), "state", "INACTIVE"))
	a.replace(svc.id, but(own("x"), "state", "INACTIVE"))                                       // the same again
	a.replace(svc.id, but(own("x"), "state", "INACTIVE", "isLocal", false, "_links", object{})) // and again
	a.replace(svc.id, but(own("x"), "state", "INACTIVE", "scopeOfLocality", "MEC_HOST"))        // the default, made explicit
	a.replace(svc.id, but(own("x"), "state", "ACTIVE", "version", "2"))
	a.replace(svc.id, but(own("x"), "version", "2", "serCategory", category("c")))
	a.replace(svc.id, but(own("x"), "version", "2", "livenessInterval", 60))
	a.beat(svc.id).Is(204)
	a.Put(a.service(svc.id), but(own("x"), "version", 5)).Is(400)
	a.Put(a.service(svc.id), own("x"), harness.Header("If-Match", `"no.1"`)).Is(412)
	a.replace(svc.id, but(own("y"), "version", "2", "livenessInterval", 60))
	a.remove(svc.id)
	a.register(own("end"))

	told(t, cb, "/all",
		"ADDED x ACTIVE", "STATE_CHANGED x INACTIVE", "ATTRIBUTES_CHANGED x ACTIVE", "ATTRIBUTES_CHANGED x ACTIVE",
		"ATTRIBUTES_CHANGED x ACTIVE", "ATTRIBUTES_CHANGED y ACTIVE", "REMOVED y ACTIVE", "ADDED end ACTIVE")
	seen := map[string]bool{}
	for _, d := range cb.All() {
		require.Equal(t, 1, d.Attempt)
		require.False(t, seen[d.ID], "every event has an id of its own")
		seen[d.ID] = true
		require.Equal(t, p.URL("mp1")+a.subscription(sub), d.Subscription)
		if d.Change.SerName == "end" {
			continue
		}
		require.Equal(t, svc.id, d.Change.SerInstanceID)
		if d.Change.ChangeType == "REMOVED" {
			require.Nil(t, d.Change.Link)
		} else {
			require.Equal(t, p.URL("mp1")+a.service(svc.id), d.Change.Link.Href)
		}
	}
}

func TestFilters(t *testing.T) {
	t.Parallel()
	p := harness.Start(t)
	cb := harness.NewSubscriber(t)
	c := p.Client(t)
	producer, consumer := newApp(c), newApp(c)
	known := producer.register(but(own("known"), "state", "INACTIVE"))
	cat := func(id string) object { return object{"href": "/other", "id": id, "name": "other", "version": "9"} }
	filters := map[string]object{
		"all": nil, "empty": {}, "emptylists": {"serNames": []any{}, "states": []any{}, "serInstanceIds": []any{}, "serCategories": []any{}},
		"instance":  {"serInstanceIds": []any{known.id, "other"}},
		"name":      {"serNames": []any{"a", "nothing"}},
		"names":     {"serNames": []any{"a", "b"}},
		"category":  {"serCategories": []any{cat("c1")}},
		"active":    {"states": []any{"ACTIVE"}},
		"inactive":  {"states": []any{"INACTIVE", "SUSPENDED"}},
		"suspended": {"states": []any{"SUSPENDED"}},
		"local":     {"isLocal": true},
		"remote":    {"isLocal": false},
		"anded":     {"serNames": []any{"a"}, "states": []any{"INACTIVE"}, "isLocal": true},
		"nothing":   {"serNames": []any{"a"}, "states": []any{"ACTIVE"}, "isLocal": false},
	}
	for path, filter := range filters {
		consumer.subscribe(cb.URL("/"+path), filter)
	}
	a := producer.register(but(own("a"), "serCategory", category("c1")))
	b := producer.register(but(own("b"), "state", "INACTIVE"))
	producer.replace(known.id, but(own("known"), "state", "ACTIVE"))
	producer.replace(a.id, but(own("a"), "serCategory", category("c1"), "state", "INACTIVE"))
	producer.replace(b.id, but(own("b"), "state", "INACTIVE", "serCategory", category("c1")))
	producer.remove(a.id)
	producer.remove(b.id)
	producer.remove(known.id)

	everything := []string{
		"ADDED a ACTIVE", "ADDED b INACTIVE", "STATE_CHANGED known ACTIVE", "STATE_CHANGED a INACTIVE", "ATTRIBUTES_CHANGED b INACTIVE",
		"REMOVED a INACTIVE", "REMOVED b INACTIVE", "REMOVED known ACTIVE",
	}
	for path, want := range map[string][]string{
		"all": everything, "empty": everything, "emptylists": everything, "local": everything,
		"instance": {"STATE_CHANGED known ACTIVE", "REMOVED known ACTIVE"},
		"name":     {"ADDED a ACTIVE", "STATE_CHANGED a INACTIVE", "REMOVED a INACTIVE"},
		"names": {"ADDED a ACTIVE", "ADDED b INACTIVE", "STATE_CHANGED a INACTIVE", "ATTRIBUTES_CHANGED b INACTIVE",
			"REMOVED a INACTIVE", "REMOVED b INACTIVE"},
		"category": {"ADDED a ACTIVE", "STATE_CHANGED a INACTIVE", "ATTRIBUTES_CHANGED b INACTIVE", "REMOVED a INACTIVE", "REMOVED b INACTIVE"},
		// The state after the change counts.
		"active":   {"ADDED a ACTIVE", "STATE_CHANGED known ACTIVE", "REMOVED known ACTIVE"},
		"inactive": {"ADDED b INACTIVE", "STATE_CHANGED a INACTIVE", "ATTRIBUTES_CHANGED b INACTIVE", "REMOVED a INACTIVE", "REMOVED b INACTIVE"},
		"anded":    {"STATE_CHANGED a INACTIVE", "REMOVED a INACTIVE"},
	} {
		t.Run(path, func(t *testing.T) { told(t, cb, "/"+path, want...) })
	}
	// All that was due has been handed out by now, because those who hear of the last change have.
	harness.Eventually(t, "nothing is pending", func() error {
		for _, d := range deliveries(t, p) {
			if d.Pending > 0 {
				return fmt.Errorf("%+v", d)
			}
		}
		return nil
	})
	for _, path := range []string{"/suspended", "/remote", "/nothing"} {
		require.Empty(t, cb.Changes(path), path)
	}
}

func TestNotificationsComeInOrder(t *testing.T) {
	t.Parallel()
	p := harness.Start(t)
	cb := harness.NewSubscriber(t)
	var calls atomic.Int64
	cb.Behave(func(w http.ResponseWriter, _ *http.Request, d harness.Delivery) {
		// A subscriber that fails now and then gets everything in order all the same.
		if n := calls.Add(1); n%10 == 3 && d.Attempt == 1 && n < 40 {
			w.WriteHeader(503)
			return
		}
		w.WriteHeader(204)
	})
	consumer := newApp(p.Client(t))
	consumer.subscribe(cb.URL("/cb"), nil)
	producer := newApp(p.Unchecked(t))
	var want []string
	svc := producer.register(own("x"))
	want = append(want, "ADDED x ACTIVE")
	for i := range 60 {
		info := but(own("x"), "version", fmt.Sprint(i))
		if i%3 == 0 {
			info["state"] = "INACTIVE"
		}
		producer.replace(svc.id, info)
		want = append(want, fmt.Sprintf("ATTRIBUTES_CHANGED x %s", info["state"]))
	}
	producer.remove(svc.id)
	want = append(want, "REMOVED x ACTIVE")
	told(t, cb, "/cb", want...)
}

func TestAnIDIsStableOverRetries(t *testing.T) {
	t.Parallel()
	p := harness.Start(t)
	cb := harness.NewSubscriber(t)
	cb.Behave(func(w http.ResponseWriter, _ *http.Request, d harness.Delivery) {
		if d.Attempt < 3 {
			w.WriteHeader([]int{500, 404}[d.Attempt-1])
			_, _ = io.WriteString(w, "not yet")
			return
		}
		w.WriteHeader(200)
	})
	a := newApp(p.Client(t))
	a.subscribe(cb.URL("/cb"), nil)
	a.register(own("x"))
	cb.Await(t, "the third attempt", func(d harness.Delivery) bool { return d.Attempt == 3 && d.Status == 200 })
	all := cb.All()
	require.Len(t, all, 3)
	for i, d := range all {
		require.Equal(t, all[0].ID, d.ID)
		require.Equal(t, string(all[0].Body), string(d.Body))
		if i > 0 {
			// Half of the back-off of 0.5 s is jitter.
			require.GreaterOrEqual(t, d.At.Sub(all[i-1].At), 250*time.Millisecond, "there is a pause before each retry")
		}
	}
	a.register(own("y"))
	require.NotEqual(t, all[0].ID, cb.AwaitChange(t, "/cb", "ADDED y ACTIVE").ID)
}

func TestACallThatTakesLongIsGivenUpAndRepeated(t *testing.T) {
	t.Parallel()
	p := harness.Start(t)
	cb := harness.NewSubscriber(t)
	hang := cb.Hang()
	cb.Behave(func(w http.ResponseWriter, r *http.Request, d harness.Delivery) {
		if d.Attempt == 1 {
			hang(w, r, d)
			return
		}
		w.WriteHeader(204)
	})
	a := newApp(p.Client(t))
	a.subscribe(cb.URL("/cb"), nil)
	a.register(own("x"))
	second := cb.Await(t, "the second attempt", func(d harness.Delivery) bool { return d.Status == 204 })
	first := cb.All()[0]
	require.Equal(t, first.ID, second.ID)
	require.GreaterOrEqual(t, second.At.Sub(first.At), 5*time.Second)
}

func TestASubscriberMayStartLater(t *testing.T) {
	t.Parallel()
	p := harness.Start(t)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	addr := ln.Addr().String()
	require.NoError(t, ln.Close())
	a := newApp(p.Client(t))
	a.subscribe("http://"+addr+"/cb", nil)
	a.register(own("x"))
	require.Contains(t, lastError(t, p, "refused"), "refused")
	ln, err = net.Listen("tcp", addr)
	require.NoError(t, err)
	called := make(chan string, 10)
	srv := &http.Server{ReadHeaderTimeout: harness.Patience, Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		called <- r.Header.Get("X-Notification-Id")
	})}
	go func() { _ = srv.Serve(ln) }()
	t.Cleanup(func() { _ = srv.Close() })
	select {
	case id := <-called:
		require.NotEmpty(t, id)
	case <-time.After(harness.Patience):
		t.Fatal("the subscriber was not called")
	}
}

func TestAny2xxIsSuccess(t *testing.T) {
	t.Parallel()
	p := harness.Start(t)
	a := newApp(p.Client(t))
	cb := harness.NewSubscriber(t)
	cb.Behave(func(w http.ResponseWriter, r *http.Request, _ harness.Delivery) {
		var status int
		_, _ = fmt.Sscanf(r.URL.Path, "/%d", &status)
		w.WriteHeader(status)
	})
	for _, status := range []string{"200", "201", "202", "204", "299"} {
		a.subscribe(cb.URL("/"+status), nil)
	}
	a.register(own("x"))
	a.register(own("y"))
	for _, status := range []string{"200", "201", "202", "204", "299"} {
		told(t, cb, "/"+status, "ADDED x ACTIVE", "ADDED y ACTIVE")
	}
	require.Len(t, cb.All(), 10, "nothing was sent twice")
}

func TestARedirectIsNotFollowedAndRetried(t *testing.T) {
	t.Parallel()
	p := harness.Start(t)
	var followed atomic.Int64
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { followed.Add(1) }))
	t.Cleanup(elsewhere.Close)
	cb := harness.NewSubscriber(t)
	cb.Behave(func(w http.ResponseWriter, r *http.Request, d harness.Delivery) {
		statuses := []int{301, 302, 307}
		if d.Attempt <= len(statuses) {
			http.Redirect(w, r, elsewhere.URL, statuses[d.Attempt-1])
			return
		}
		w.WriteHeader(204)
	})
	a := newApp(p.Client(t))
	a.subscribe(cb.URL("/cb"), nil)
	a.register(own("x"))
	cb.Await(t, "success after redirects", func(d harness.Delivery) bool { return d.Status == 204 })
	require.Len(t, cb.All(), 4)
	require.Zero(t, followed.Load())
}

func TestASubscriberThatMisbehavesDelaysNobody(t *testing.T) {
	t.Parallel()
	for name, behave := range map[string]func(*harness.Subscriber) harness.Behaviour{
		"it never answers": (*harness.Subscriber).Hang,
		"it streams an endless body": func(*harness.Subscriber) harness.Behaviour {
			return func(w http.ResponseWriter, r *http.Request, _ harness.Delivery) {
				w.WriteHeader(200)
				junk := make([]byte, 16<<10)
				for r.Context().Err() == nil {
					if _, err := w.Write(junk); err != nil {
						return
					}
				}
			}
		},
		"it trickles an endless body": func(cb *harness.Subscriber) harness.Behaviour {
			return func(w http.ResponseWriter, r *http.Request, _ harness.Delivery) {
				w.WriteHeader(200)
				tick := time.NewTicker(50 * time.Millisecond)
				defer tick.Stop()
				for {
					select {
					case <-tick.C:
						if _, err := io.WriteString(w, "."); err != nil {
							return
						}
						_ = http.NewResponseController(w).Flush()
					case <-r.Context().Done():
						return
					case <-cb.Ended():
						return
					}
				}
			}
		},
		"it cuts the connection": func(*harness.Subscriber) harness.Behaviour {
			return func(http.ResponseWriter, *http.Request, harness.Delivery) { panic(http.ErrAbortHandler) }
		},
		"it sends endless headers": func(*harness.Subscriber) harness.Behaviour {
			return func(w http.ResponseWriter, _ *http.Request, _ harness.Delivery) {
				conn, _, err := http.NewResponseController(w).Hijack()
				if err != nil {
					return
				}
				defer conn.Close()
				_, err = io.WriteString(conn, "HTTP/1.1 200 OK\r\n")
				for err == nil {
					_, err = io.WriteString(conn, "X-Junk: "+strings.Repeat("x", 4000)+"\r\n")
				}
			}
		},
		"it answers no HTTP": func(*harness.Subscriber) harness.Behaviour {
			return func(w http.ResponseWriter, _ *http.Request, _ harness.Delivery) {
				if conn, _, err := http.NewResponseController(w).Hijack(); err == nil {
					_, _ = io.WriteString(conn, "\x00\x01 SSH-2.0-OpenSSH\r\n")
					_ = conn.Close()
				}
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := harness.Start(t)
			good, bad := harness.NewSubscriber(t), harness.NewSubscriber(t)
			bad.Behave(behave(bad))
			a := newApp(p.Client(t))
			// More of them than might share a few workers. Those that do not sleep are work for this machine, too.
			count := 5
			if slow := name == "it never answers" || name == "it trickles an endless body"; slow {
				count = 40
			}
			quick := a.with(p.Unchecked(t))
			for i := range count {
				quick.subscribe(bad.URL(fmt.Sprintf("/%d", i)), nil)
			}
			a.subscribe(good.URL("/cb"), nil)
			begin := time.Now()
			var want []string
			for i := range 10 {
				quick.register(own(fmt.Sprint("s", i)))
				want = append(want, fmt.Sprintf("ADDED s%d ACTIVE", i))
			}
			told(t, good, "/cb", want...)
			if count == 40 {
				// Each call to one of the others takes 5 s. Whoever waited for a few of them would come much later.
				require.Less(t, time.Since(begin), 10*time.Second)
			}
			harness.Eventually(t, "the others were called", func() error {
				return harness.Not(len(bad.All()) >= count, "%d calls", len(bad.All()))
			})
		})
	}
}

func TestASubscriberThatIsBackGetsWhatItMissed(t *testing.T) {
	t.Parallel()
	p := harness.Start(t)
	cb := harness.NewSubscriber(t)
	cb.Behave(harness.Status(500))
	a := newApp(p.Client(t))
	sub := a.subscribe(cb.URL("/cb"), nil)
	one := a.register(own("one"))
	two := a.register(own("two"))
	a.remove(one.id)
	harness.Eventually(t, "operators see that delivery fails", func() error {
		list := deliveries(t, p)
		require.Len(t, list, 1)
		d := list[0]
		if d.Pending != 3 || d.LastError == "" || d.Attempts == 0 {
			return fmt.Errorf("%+v", d)
		}
		require.Equal(t, sub, d.SubscriptionID)
		require.Equal(t, a.id, d.AppInstanceID)
		require.Equal(t, cb.URL("/cb"), d.CallbackReference)
		require.Contains(t, d.LastError, "500")
		require.NotEmpty(t, d.LastAttempt)
		require.NotEmpty(t, d.FailingSince)
		require.Empty(t, d.LastDelivered)
		return nil
	})
	cb.Behave(harness.Status(204))
	a.replace(two.id, but(own("two"), "state", "INACTIVE"))
	told(t, cb, "/cb", "ADDED one ACTIVE", "ADDED two ACTIVE", "REMOVED one ACTIVE", "STATE_CHANGED two INACTIVE")
	harness.Eventually(t, "operators see that all is delivered", func() error {
		d := deliveries(t, p)[0]
		return harness.Not(d.Pending == 0 && d.LastError == "" && d.FailingSince == "" && d.LastDelivered != "", "%+v", d)
	})
	a.Delete(a.subscription(sub)).Is(204)
	require.Empty(t, deliveries(t, p))
}

func TestAnswer410EndsTheSubscription(t *testing.T) {
	t.Parallel()
	p := harness.Start(t)
	cb := harness.NewSubscriber(t)
	a := newApp(p.Client(t))
	gone := a.subscribe(cb.URL("/gone"), nil)
	a.subscribe(cb.URL("/stays"), nil)
	cb.Behave(func(w http.ResponseWriter, _ *http.Request, d harness.Delivery) {
		if d.Path == "/gone" {
			w.WriteHeader(410)
			return
		}
		w.WriteHeader(204)
	})
	a.register(own("x"))
	harness.Eventually(t, "the subscription is gone", func() error {
		answer := a.Get(a.subscription(gone))
		return harness.Not(answer.Status == 404, "answered %d", answer.Status)
	})
	require.Len(t, links(a), 1)
	a.register(own("y"))
	told(t, cb, "/stays", "ADDED x ACTIVE", "ADDED y ACTIVE")
	require.Len(t, cb.All("/gone"), 1)
}

func TestADeletedSubscriptionHearsNothingMore(t *testing.T) {
	t.Parallel()
	p := harness.Start(t)
	cb := harness.NewSubscriber(t)
	a := newApp(p.Client(t))
	sub := a.subscribe(cb.URL("/one"), nil)
	a.subscribe(cb.URL("/two"), nil)
	a.register(own("x"))
	told(t, cb, "/one", "ADDED x ACTIVE")
	a.Delete(a.subscription(sub)).Is(204)
	a.register(own("y"))
	told(t, cb, "/two", "ADDED x ACTIVE", "ADDED y ACTIVE")
	require.Equal(t, []string{"ADDED x ACTIVE"}, cb.Changes("/one"))
	require.Len(t, deliveries(t, p), 1)
}

func TestACallbackMayCallMp1BeforeItAnswers(t *testing.T) {
	t.Parallel()
	p := harness.Start(t)
	cb := harness.NewSubscriber(t)
	consumer, producer := newApp(p.Client(t)), newApp(p.Client(t))
	var sub string
	failures := make(chan error, 10)
	ready := make(chan struct{})
	cb.Behave(func(w http.ResponseWriter, _ *http.Request, d harness.Delivery) {
		<-ready
		call := func(method, path string, body any, want int) {
			answer, err := consumer.Try(method, path, body)
			if err == nil && answer.Status != want {
				err = fmt.Errorf("%s %s answered %d: %s", method, path, answer.Status, answer.Body)
			}
			if err != nil {
				failures <- err
			}
		}
		call("GET", d.Change.Link.Href, nil, 200)
		call("GET", services, nil, 200)
		call("POST", consumer.services(), own("answer"), 201)
		call("PUT", producer.service(d.Change.SerInstanceID), but(own("x"), "version", "2"), 200)
		call("DELETE", producer.service(d.Change.SerInstanceID), nil, 204)
		call("DELETE", consumer.subscription(sub), nil, 204)
		w.WriteHeader(204)
	})
	sub = consumer.subscribe(cb.URL("/cb"), object{"serNames": []any{"x"}})
	close(ready)
	svc := producer.register(own("x"))
	d := cb.Await(t, "the call-back has answered", func(d harness.Delivery) bool { return d.Status == 204 })
	require.Equal(t, svc.id, d.Change.SerInstanceID)
	close(failures)
	for err := range failures {
		require.NoError(t, err)
	}
	require.Empty(t, links(consumer))
	producer.Get(producer.service(svc.id)).Problem(404)
	require.Len(t, consumer.Get(consumer.services()).Array(), 1)
}

type deadLetter struct {
	ID, SubscriptionID, AppInstanceID, CallbackReference, ChangeType, SerInstanceID, SerName string
	Attempts                                                                                 int
	FirstAttempt, GivenUp                                                                    time.Time
	LastError                                                                                string
}

func TestWhatCannotBeDeliveredBecomesADeadLetter(t *testing.T) {
	t.Parallel()
	p := harness.Start(t, harness.Args("--notifications-give-up-after=1s"))
	cb := harness.NewSubscriber(t)
	cb.Behave(harness.Status(500))
	a := newApp(p.Client(t))
	require.Empty(t, p.Ops(t).Get("/notifications/dead_letters").Is(200).Array())
	sub := a.subscribe(cb.URL("/cb"), nil)
	svc := a.register(own("x"))
	a.remove(svc.id)
	letters := func() (list []deadLetter) {
		p.Ops(t).Get("/notifications/dead_letters").Is(200).Into(&list)
		return list
	}
	harness.Eventually(t, "both are given up", func() error { return harness.Not(len(letters()) == 2, "%+v", letters()) })
	for i, l := range letters() {
		require.NotEmpty(t, l.ID)
		require.Equal(t, sub, l.SubscriptionID)
		require.Equal(t, a.id, l.AppInstanceID)
		require.Equal(t, cb.URL("/cb"), l.CallbackReference)
		require.Equal(t, svc.id, l.SerInstanceID)
		require.Equal(t, "x", l.SerName)
		require.Equal(t, []string{"ADDED", "REMOVED"}[i], l.ChangeType)
		require.Contains(t, l.LastError, "500")
		require.GreaterOrEqual(t, l.GivenUp.Sub(l.FirstAttempt), time.Second)
	}
	require.Positive(t, letters()[0].Attempts)

	cb.Behave(harness.Status(204))
	a.register(own("y"))
	cb.AwaitChange(t, "/cb", "ADDED y ACTIVE")
	p.Restart()
	require.Len(t, letters(), 2, "they outlive the process")
	a.register(own("z"))
	cb.AwaitChange(t, "/cb", "ADDED z ACTIVE")
	for _, d := range cb.All() {
		require.False(t, d.Status == 204 && d.Change.SerName == "x", "what was given up is not sent later")
	}
}

// A queue that overflows is replaced by what differs between what the subscriber was last told and now.
func TestAfterTooManyChangesTheDifferenceIsSent(t *testing.T) {
	t.Parallel()
	p := harness.Start(t, harness.Args("--notifications-queue=5"))
	cb := harness.NewSubscriber(t)
	consumer := newApp(p.Client(t))
	producer := newApp(p.Unchecked(t))
	consumer.subscribe(cb.URL("/cb"), nil)
	old := producer.register(own("old"))
	changed := producer.register(own("changed"))
	told(t, cb, "/cb", "ADDED old ACTIVE", "ADDED changed ACTIVE")

	cb.Behave(harness.Status(500))
	for i := range 8 {
		producer.register(own(fmt.Sprint("early", i)))
	}
	for i := range 20 {
		producer.replace(changed.id, but(own("changed"), "version", fmt.Sprint(i+2)))
	}
	producer.remove(old.id)
	producer.register(own("late"))
	cb.Behave(harness.Status(204))
	harness.Eventually(t, "everything is delivered", func() error {
		d := deliveries(t, p)[0]
		return harness.Not(d.Pending == 0 && d.LastDelivered != "" && d.LastError == "" &&
			slices.Contains(cb.Changes("/cb"), "ADDED late ACTIVE"), "%+v", d)
	})
	var got []string
	for _, d := range cb.Distinct("/cb")[2:] {
		got = append(got, d.Change.String())
	}
	for i := range 8 {
		require.Contains(t, got, fmt.Sprintf("ADDED early%d ACTIVE", i))
	}
	require.Contains(t, got, "ATTRIBUTES_CHANGED changed ACTIVE")
	require.Contains(t, got, "REMOVED old ACTIVE")
	require.Less(t, len(got), 8+20, "changes were merged")
	producer.register(own("after"))
	cb.AwaitChange(t, "/cb", "ADDED after ACTIVE")
}

func TestDeliveryGoesOnAfterARestart(t *testing.T) {
	t.Parallel()
	p := harness.Start(t)
	cb := harness.NewSubscriber(t)
	cb.Behave(harness.Status(500))
	a := newApp(p.Client(t))
	a.subscribe(cb.URL("/cb"), nil)
	svc := a.register(own("x"))
	a.replace(svc.id, but(own("x"), "state", "INACTIVE"))
	a.remove(svc.id)
	first := cb.Await(t, "an attempt", func(harness.Delivery) bool { return true })
	p.Restart()
	cb.Behave(harness.Status(204))
	told(t, cb, "/cb", "ADDED x ACTIVE", "STATE_CHANGED x INACTIVE", "REMOVED x INACTIVE")
	again := cb.Await(t, "success", func(d harness.Delivery) bool { return d.Status == 204 })
	require.Equal(t, first.ID, again.ID, "the id is stable over a restart, too")
}
