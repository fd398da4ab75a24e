package mepserver

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/openmep/mep/api/mp1"
	"github.com/openmep/mep/api/state"
	"github.com/openmep/mep/kit/errs"
	"github.com/openmep/mep/kit/etcdtest"
	"github.com/openmep/mep/kit/leader"
	"github.com/openmep/mep/mepserver/notify"
)

// listener is a subscriber whose responses a test determines.
type listener struct {
	*httptest.Server
	mu     sync.Mutex
	answer func(n int) int // the status of the n-th call, from 0
	calls  int
	heard  []string // "ADDED name", as acknowledged
	ids    []string
}

func listen(t *testing.T, answer func(int) int) *listener {
	l := &listener{answer: answer}
	l.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		l.mu.Lock()
		defer l.mu.Unlock()
		status := http.StatusNoContent
		if l.answer != nil {
			status = l.answer(l.calls)
		}
		l.calls++
		l.ids = append(l.ids, r.Header.Get("X-Notification-Id"))
		if status == http.StatusNoContent {
			var n mp1.ServiceAvailabilityNotification
			if err := json.Unmarshal(body, &n); err != nil {
				l.heard = append(l.heard, err.Error())
			}
			for _, s := range n.ServiceReferences {
				l.heard = append(l.heard, string(s.ChangeType)+" "+s.SerName)
			}
		}
		w.WriteHeader(status)
	}))
	t.Cleanup(l.Close)
	return l
}

func (l *listener) all() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.heard)
}

func (l *listener) setAnswer(f func(int) int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.answer = f
}

func (l *listener) awaitHeard(t *testing.T, want ...string) {
	t.Helper()
	require.EventuallyWithT(t, func(c *assert.CollectT) { require.Equal(c, want, l.all()) }, 30*time.Second, 5*time.Millisecond)
}

func (n *testNode) mustCall(t *testing.T, status int, method, path, body string) *httptest.ResponseRecorder {
	t.Helper()
	rec := n.call(t, method, path, body)
	require.Equal(t, status, rec.Code, rec.Body.String())
	return rec
}

const root = "/mec_service_mgmt/v1"

func (n *testNode) subscribe(t *testing.T, app, target, filter string) string {
	t.Helper()
	rec := n.mustCall(t, 201, http.MethodPost, root+"/applications/"+app+"/subscriptions",
		fmt.Sprintf(`{"subscriptionType":"SerAvailabilityNotificationSubscription","callbackReference":%q%s}`, target, filter))
	loc := rec.Header().Get("Location")
	return loc[len(loc)-36:]
}

func (n *testNode) add(t *testing.T, app, name string) string {
	t.Helper()
	rec := n.mustCall(t, 201, http.MethodPost, root+"/applications/"+app+"/services", serviceJSON(name, "ACTIVE", ""))
	var s mp1.ServiceInfo
	require.NoError(t, json.Unmarshal(rec.Body.Bytes(), &s))
	return s.SerInstanceID
}

func (n *testNode) remove(t *testing.T, app, id string) {
	t.Helper()
	n.mustCall(t, 204, http.MethodDelete, root+"/applications/"+app+"/services/"+id, "")
}

func (n *testNode) stopNow(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	require.NoError(t, n.serving.Stop(ctx))
	require.NoError(t, n.workers.Stop(ctx))
}

func TestLimitHoldsOverSeveralReplicas(t *testing.T) {
	server := etcdtest.Start(t)
	flags := map[string]string{"limits-services": "5", "limits-subscriptions": "5"}
	nodes := []*testNode{startNode(t, server.Store(t), false, flags), startNode(t, server.Store(t), false, flags)}
	app := uuid.NewString()
	var mu sync.Mutex
	codes := make(map[int]int)
	var wg sync.WaitGroup
	for i := range 40 {
		wg.Go(func() {
			rec := nodes[i%2].call(t, http.MethodPost, root+"/applications/"+app+"/services", serviceJSON("s", "ACTIVE", ""))
			mu.Lock()
			defer mu.Unlock()
			codes[rec.Code]++
		})
	}
	wg.Wait()
	require.Equal(t, 5, codes[http.StatusCreated], "%v", codes)
	require.Equal(t, 35, codes[http.StatusForbidden]+codes[http.StatusServiceUnavailable], "%v", codes)
	var list []mp1.ServiceInfo
	require.NoError(t, json.Unmarshal(nodes[0].mustCall(t, 200, http.MethodGet, root+"/applications/"+app+"/services", "").Body.Bytes(), &list))
	require.Len(t, list, 5)
}

func TestConcurrentReplacementsWithTheSameETagSucceedOnce(t *testing.T) {
	n := startNode(t, etcdtest.Start(t).Store(t), true, nil)
	app := uuid.NewString()
	id := n.add(t, app, "s")
	path := root + "/applications/" + app + "/services/" + id
	etag := n.mustCall(t, 200, http.MethodGet, path, "").Header().Get("ETag")
	var mu sync.Mutex
	codes := make(map[int]int)
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			req := httptest.NewRequestWithContext(t.Context(), http.MethodPut, path, strings.NewReader(serviceJSON(fmt.Sprint("s", i), "ACTIVE", "")))
			req.Header.Set("If-Match", etag)
			rec := httptest.NewRecorder()
			n.mp1.ServeHTTP(rec, req)
			mu.Lock()
			defer mu.Unlock()
			codes[rec.Code]++
		})
	}
	wg.Wait()
	require.Equal(t, map[int]int{200: 1, 412: 19}, codes)
}

func TestSubscriberThatWasAwayGetsTheHistoryInOrder(t *testing.T) {
	server := etcdtest.Start(t)
	n := startNode(t, server.Store(t), true, nil)
	l := listen(t, func(int) int { return 500 })
	app := uuid.NewString()
	n.subscribe(t, uuid.NewString(), l.URL, "")
	a := n.add(t, app, "a")
	n.add(t, app, "b")
	n.remove(t, app, a)
	n.stopNow(t)
	l.setAnswer(nil)
	startNode(t, server.Store(t), true, nil)
	l.awaitHeard(t, "ADDED a", "ADDED b", "REMOVED a")
}

func TestCompactedHistoryBecomesTheDifference(t *testing.T) {
	server := etcdtest.Start(t)
	store := server.Store(t)
	n := startNode(t, store, true, nil)
	l := listen(t, nil)
	app := uuid.NewString()
	gone := n.add(t, app, "gone")
	changed := n.add(t, app, "changed")
	n.add(t, app, "same")
	n.subscribe(t, uuid.NewString(), l.URL, "")
	n.add(t, app, "known")
	l.awaitHeard(t, "ADDED known")
	l.setAnswer(func(int) int { return 503 })
	n.mustCall(t, 200, http.MethodPut, root+"/applications/"+app+"/services/"+changed, serviceJSON("changed", "INACTIVE", ""))
	n.remove(t, app, gone)
	n.add(t, app, "new")
	n.stopNow(t)
	now, err := store.Client.Put(t.Context(), "/later", "x")
	require.NoError(t, err)
	_, err = store.Client.Compact(t.Context(), now.Header.Revision)
	require.NoError(t, err)
	l.setAnswer(nil)
	startNode(t, store, true, nil)
	l.awaitHeard(t, "ADDED known", "ATTRIBUTES_CHANGED changed", "REMOVED gone", "ADDED new")
}

func TestFullQueueMergesChanges(t *testing.T) {
	n := startNode(t, etcdtest.Start(t).Store(t), true, map[string]string{"notifications-queue": "2"})
	l := listen(t, func(int) int { return 500 })
	n.subscribe(t, uuid.NewString(), l.URL, "")
	app := uuid.NewString()
	var want []string
	for i := range 8 {
		n.add(t, app, fmt.Sprint("s", i))
		want = append(want, fmt.Sprint("ADDED s", i))
	}
	brief := n.add(t, app, "brief")
	n.remove(t, app, brief)
	require.Eventually(t, func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		return l.calls > 1
	}, 20*time.Second, 5*time.Millisecond)
	l.setAnswer(nil)
	// A service that came and went while the queue was full is only reported as gone.
	l.awaitHeard(t, append(want, "REMOVED brief")...)
}

func TestRecordsOfRemovedServicesGoOnceEveryoneKnows(t *testing.T) {
	store := etcdtest.Start(t).Store(t)
	n := startNode(t, store, true, nil)
	l := listen(t, func(int) int { return 500 })
	n.subscribe(t, uuid.NewString(), l.URL, "")
	app := uuid.NewString()
	n.remove(t, app, n.add(t, app, "a"))
	count := func(prefix string) int64 {
		r, err := store.Client.Get(t.Context(), prefix, clientv3.WithPrefix(), clientv3.WithCountOnly())
		require.NoError(t, err)
		return r.Count
	}
	require.Eventually(t, func() bool { return count(state.PrefixCursors) == 2 }, 20*time.Second, 20*time.Millisecond,
		"a subscriber that lags gets a cursor of its own beside the common position")
	require.EqualValues(t, 1, count(state.PrefixRemoved))
	l.setAnswer(nil)
	l.awaitHeard(t, "ADDED a", "REMOVED a")
	require.Eventually(t, func() bool { return count(state.PrefixRemoved) == 0 && count(state.PrefixCursors) == 1 }, 20*time.Second, 20*time.Millisecond)
}

func TestGivenUpNotificationsAreListedAndTheNextOnesAreTried(t *testing.T) {
	n := startNode(t, etcdtest.Start(t).Store(t), true, map[string]string{"notifications-give-up-after": "1s"})
	l := listen(t, func(int) int { return 500 })
	sub := n.subscribe(t, uuid.NewString(), l.URL, "")
	app := uuid.NewString()
	n.add(t, app, "a")
	var letters []notify.DeadLetter
	require.Eventually(t, func() bool {
		rec := httptest.NewRecorder()
		n.ops.ServeHTTP(rec, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/notifications/dead_letters", nil))
		return json.Unmarshal(rec.Body.Bytes(), &letters) == nil && len(letters) == 1
	}, 30*time.Second, 20*time.Millisecond)
	require.Equal(t, sub, letters[0].SubscriptionID)
	require.Equal(t, "a", letters[0].SerName)
	require.Equal(t, "the subscriber answered 500", letters[0].LastError)
	require.Greater(t, letters[0].Attempts, 1)
	l.setAnswer(nil)
	n.add(t, app, "b")
	l.awaitHeard(t, "ADDED b")
}

func TestNotificationIDStaysTheSameOverRetries(t *testing.T) {
	n := startNode(t, etcdtest.Start(t).Store(t), true, nil)
	l := listen(t, func(call int) int {
		if call < 2 {
			return 500
		}
		return http.StatusNoContent
	})
	n.subscribe(t, uuid.NewString(), l.URL, "")
	app := uuid.NewString()
	n.add(t, app, "a")
	n.add(t, app, "b")
	l.awaitHeard(t, "ADDED a", "ADDED b")
	l.mu.Lock()
	defer l.mu.Unlock()
	require.Equal(t, l.ids[0], l.ids[1])
	require.Equal(t, l.ids[0], l.ids[2])
	require.NotEqual(t, l.ids[0], l.ids[3])
}

func TestWritesAreRefusedButReadsGoOnWhileEtcdIsAway(t *testing.T) {
	server := etcdtest.Start(t)
	n := startNode(t, server.Store(t), false, nil)
	app := uuid.NewString()
	id := n.add(t, app, "a")
	server.Stop()
	n.mustCall(t, 200, http.MethodGet, root+"/services/"+id, "")
	rec := n.mustCall(t, 503, http.MethodPost, root+"/applications/"+app+"/services", serviceJSON("b", "ACTIVE", ""))
	require.NotEmpty(t, rec.Header().Get("Retry-After"))
	server.StartAgain(t)
	require.Eventually(t, func() bool {
		return n.call(t, http.MethodPost, root+"/applications/"+app+"/services", serviceJSON("c", "ACTIVE", "")).Code == 201
	}, 30*time.Second, 100*time.Millisecond)
}

func TestGuardOfTheDiskRefusesWrites(t *testing.T) {
	store := etcdtest.Start(t).Store(t)
	full := false
	store.SetGuard(func() error {
		if full {
			return errs.New(errs.InsufficientStorage, "the disk is full")
		}
		return nil
	})
	n := startNode(t, store, true, nil)
	app := uuid.NewString()
	id := n.add(t, app, "a")
	full = true
	n.mustCall(t, 507, http.MethodPost, root+"/applications/"+app+"/services", serviceJSON("b", "ACTIVE", ""))
	n.mustCall(t, 200, http.MethodGet, root+"/services/"+id, "")
	n.remove(t, app, id) // makes room
}

func TestLeadWithEndsAllOnTheFirstFailure(t *testing.T) {
	broken := errors.New("broken")
	err := leadWith(t.Context(), leader.Term{},
		func(ctx context.Context, _ leader.Term) error { <-ctx.Done(); return nil },
		func(context.Context, leader.Term) error { return broken })
	require.ErrorIs(t, err, broken)
}
