package events

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/goleak"

	"github.com/openmep/mep/api/mm5"
	"github.com/openmep/mep/api/mp1"
	"github.com/openmep/mep/api/problem"
	"github.com/openmep/mep/api/state"
	"github.com/openmep/mep/kit/etcd"
	"github.com/openmep/mep/kit/etcdtest"
	"github.com/openmep/mep/kit/httpx"
	"github.com/openmep/mep/kit/identity"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		// etcd's own background work, left over from closed servers.
		goleak.IgnoreAnyFunction("go.etcd.io/etcd/pkg/v3/logutil.(*MergeLogger).outputLoop"),
		goleak.IgnoreAnyFunction("github.com/golang/glog.(*fileSink).flushDaemon"),
	)
}

// waitTime is how long a test waits for something that must happen.
const waitTime = time.Minute

// node is a stream behind a real listener, on a real etcd.
type node struct {
	*Stream
	etcd    *etcdtest.Server
	store   *etcd.Store
	reg     *prometheus.Registry
	server  *httptest.Server
	url     string
	http    *http.Client
	log     *lockedBuffer
	caller  *identity.Caller // of the next requests
	handler http.Handler
}

// lockedBuffer is a log that can be read while it is written.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// newNode makes a node whose stream is not served yet.
func newNode(t *testing.T) *node {
	t.Helper()
	n := &node{etcd: etcdtest.Start(t), reg: prometheus.NewRegistry(), log: &lockedBuffer{}}
	store, err := etcd.Dial(etcd.Config{Endpoints: []string{n.etcd.Endpoint()}, Timeout: 10 * time.Second}) // for busy machines
	require.NoError(t, err)
	t.Cleanup(func() { _ = store.Close() })
	n.store = store
	log := slog.New(slog.NewTextHandler(n.log, nil))
	n.Stream = New(n.store, log, n.reg)
	r := httpx.NewRouter("mm5", slog.New(slog.DiscardHandler), httpx.NewMetrics(prometheus.NewRegistry()),
		func() httpx.Limits { return httpx.Limits{}.WithDefaults() })
	r.Use(func(c *gin.Context) {
		if n.caller != nil {
			c.Set(httpx.CallerKey, n.caller)
		}
	})
	r.GET("/events", httpx.Handle(n.Handler()))
	r.HEAD("/events", httpx.Handle(n.Handler()))
	n.handler = r
	return n
}

// serve starts the listener; change may modify it first.
func (n *node) serve(t *testing.T, change func(*httptest.Server)) {
	t.Helper()
	n.server = httptest.NewUnstartedServer(n.handler)
	if change != nil {
		change(n.server)
	}
	if n.server.EnableHTTP2 {
		n.server.StartTLS()
	} else {
		n.server.Start()
	}
	n.url, n.http = n.server.URL, n.server.Client()
	t.Cleanup(func() {
		n.Close()
		n.server.Close()
	})
}

func start(t *testing.T) *node {
	t.Helper()
	n := newNode(t)
	n.serve(t, nil)
	return n
}

// put writes records in one transaction and returns its revision. A nil value removes the key.
func (n *node) put(t *testing.T, kvs ...any) int64 {
	t.Helper()
	var ops []clientv3.Op
	for i := 0; i < len(kvs); i += 2 {
		key := kvs[i].(string)
		switch v := kvs[i+1].(type) {
		case nil:
			ops = append(ops, clientv3.OpDelete(key))
		case string:
			ops = append(ops, clientv3.OpPut(key, v))
		default:
			b, err := json.Marshal(v)
			require.NoError(t, err)
			ops = append(ops, clientv3.OpPut(key, string(b)))
		}
	}
	var revision int64
	require.Eventually(t, func() bool {
		resp, err := n.store.Txn(t.Context(), nil, ops, nil)
		if err == nil {
			revision = resp.Header.Revision
		}
		return err == nil
	}, waitTime, 10*time.Millisecond)
	return revision
}

func app(name string) state.App {
	return state.App{Version: state.Current(), Name: name, Origin: state.OriginMm5}
}

// message is an event as a client sees it.
type message struct{ id, name, data string }

func (m message) decode(t *testing.T, dst any) {
	t.Helper()
	require.NoError(t, json.Unmarshal([]byte(m.data), dst), m.data)
}

// client follows the events.
type client struct {
	resp     *http.Response
	messages chan message // closed at the end of the stream
	comments chan string
	places   chan string // ids without an event
	end      context.CancelFunc
}

// request sends a GET.
func (n *node) request(t *testing.T, ctx context.Context, method, query, lastID string) *http.Response { //nolint:revive // the test comes first
	t.Helper()
	req, err := http.NewRequestWithContext(ctx, method, n.url+"/events"+query, nil)
	require.NoError(t, err)
	if lastID != "" {
		req.Header.Set(lastEventID, lastID)
	}
	resp, err := n.http.Do(req)
	require.NoError(t, err)
	return resp
}

// follow opens a stream and returns when it has begun.
func (n *node) follow(t *testing.T, query, lastID string) *client {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	c := &client{messages: make(chan message, 20000), comments: make(chan string, 20000), places: make(chan string, 20000), end: cancel}
	c.resp = n.request(t, ctx, http.MethodGet, query, lastID) //nolint:bodyclose // is when the test ends
	require.Equal(t, http.StatusOK, c.resp.StatusCode)
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer close(c.messages)
		parse(c.resp.Body, c)
	}()
	t.Cleanup(func() {
		cancel()
		_ = c.resp.Body.Close()
		<-done
	})
	require.Equal(t, " mep", receive(t, c.comments))
	first := receive(t, c.places)
	if lastID != "" {
		require.Equal(t, lastID, first)
	}
	return c
}

// parse parses server-sent events as specified in WHATWG HTML 9.2.6.
func parse(r io.Reader, c *client) {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 8<<20)
	var m message
	var data []string
	for lines.Scan() {
		field, value, _ := strings.Cut(lines.Text(), ":")
		switch {
		case lines.Text() == "" && data != nil:
			m.data = strings.Join(data, "\n")
			c.messages <- m
			m, data = message{}, nil
		case lines.Text() == "" && m.id != "":
			c.places <- m.id
			m = message{}
		case lines.Text() == "":
		case field == "":
			c.comments <- value
		case field == "id":
			m.id = strings.TrimPrefix(value, " ")
		case field == "event":
			m.name = strings.TrimPrefix(value, " ")
		case field == "data":
			data = append(data, strings.TrimPrefix(value, " "))
		}
	}
}

func receive[T any](t *testing.T, ch <-chan T) T {
	t.Helper()
	select {
	case v, ok := <-ch:
		if !ok {
			t.Fatal("the stream has ended")
		}
		return v
	case <-time.After(waitTime):
		t.Fatal("nothing came in time")
	}
	panic("not reached")
}

func (c *client) next(t *testing.T) message {
	t.Helper()
	return receive(t, c.messages)
}

// ended waits for the end of the stream.
func (c *client) ended(t *testing.T) {
	t.Helper()
	for deadline := time.After(waitTime); ; {
		select {
		case _, ok := <-c.messages:
			if !ok {
				return
			}
		case <-deadline:
			t.Fatal("the stream did not end")
		}
	}
}

// upTo reads events up to the one about the app, which it does not return.
func (c *client) upTo(t *testing.T, appID string) []message {
	t.Helper()
	var got []message
	for {
		m := c.next(t)
		if m.name == string(mm5.EventApp) && strings.Contains(m.data, `"appInstanceId":"`+appID+`"`) {
			return got
		}
		got = append(got, m)
	}
}

func metric(t *testing.T, reg *prometheus.Registry, name, label string) float64 {
	t.Helper()
	families, err := reg.Gather()
	require.NoError(t, err)
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() != name || label != "" && m.GetLabel()[0].GetValue() != label {
				continue
			}
			if m.GetGauge() != nil {
				return m.GetGauge().GetValue()
			}
			return m.GetCounter().GetValue()
		}
	}
	t.Fatalf("no metric %s %s", name, label)
	return 0
}

func TestStreamBeginsAtOnceWithItsHeader(t *testing.T) {
	n := start(t)
	c := n.follow(t, "", "")
	h := c.resp.Header
	require.Equal(t, "text/event-stream", h.Get("Content-Type"))
	require.Equal(t, "no-store", h.Get("Cache-Control"))
	require.Equal(t, "no", h.Get("X-Accel-Buffering"))
	require.InDelta(t, 1, metric(t, n.reg, "mep_events_clients", ""), 0)
}

func TestFirstBytesAreThePreamble(t *testing.T) {
	n := start(t)
	at := n.put(t, state.AppKey("a"), app("a"))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	resp := n.request(t, ctx, http.MethodGet, "", "")
	defer resp.Body.Close()
	want := fmt.Sprintf(": mep\nretry: 2000\nid: %d\n\n", at)
	got := make([]byte, len(want))
	_, err := io.ReadFull(resp.Body, got)
	require.NoError(t, err)
	require.Equal(t, want, string(got))
}

func TestHeadAnswersTheHeaderAlone(t *testing.T) {
	n := start(t)
	resp := n.request(t, t.Context(), http.MethodHead, "?types=app", "1-0")
	defer resp.Body.Close()
	require.Equal(t, http.StatusOK, resp.StatusCode)
	require.Equal(t, "text/event-stream", resp.Header.Get("Content-Type"))
	require.Zero(t, metric(t, n.reg, "mep_events_clients", ""))
}

func TestMalformedRequestsAreRefused(t *testing.T) {
	n := start(t)
	for name, c := range map[string]struct{ query, id, fault string }{
		"id that is no number":     {id: "abc", fault: "Last-Event-ID"},
		"id of revision 0":         {id: "0-0", fault: "Last-Event-ID"},
		"id with a sign":           {id: "+1-0", fault: "Last-Event-ID"},
		"id with leading zeros":    {id: "01-0", fault: "Last-Event-ID"},
		"id with an empty index":   {id: "1-", fault: "Last-Event-ID"},
		"id with a negative index": {id: "1--1", fault: "Last-Event-ID"},
		"id that is too large":     {id: "9223372036854775808-0", fault: "Last-Event-ID"},
		"index that is too large":  {id: "1-2147483647", fault: "Last-Event-ID"},
		"id in the query":          {query: "?last_event_id=x", fault: "last_event_id"},
		"two ids in the query":     {query: "?last_event_id=1-0&last_event_id=2-0", fault: "last_event_id"},
		"empty id in the query":    {query: "?last_event_id=", fault: "last_event_id"},
		"unknown type":             {query: "?types=app,apps", fault: "types"},
		"reset as a type":          {query: "?types=reset", fault: "types"},
		"empty type":               {query: "?types=app,", fault: "types"},
		"malformed app":            {query: "?app_instance_id=%zz", fault: "app_instance_id"},
		"too many apps":            {query: "?app_instance_id=" + strings.Repeat("a,", 100) + "a", fault: "app_instance_id"},
		"unknown parameter":        {query: "?type=app", fault: "type"},
		"malformed name":           {query: "?%zz=app", fault: "…"},
	} {
		t.Run(name, func(t *testing.T) {
			resp := n.request(t, t.Context(), http.MethodGet, c.query, c.id)
			defer resp.Body.Close()
			require.Equal(t, http.StatusBadRequest, resp.StatusCode)
			var p problem.Details
			require.NoError(t, json.NewDecoder(resp.Body).Decode(&p))
			require.Len(t, p.InvalidParams, 1)
			require.Equal(t, c.fault, p.InvalidParams[0].Name)
		})
	}
	require.Zero(t, metric(t, n.reg, "mep_events_clients", ""))
}

func TestChangesArriveLive(t *testing.T) {
	n := start(t)
	c := n.follow(t, "", "")
	for i := range 10 {
		id := fmt.Sprint(i)
		revision := n.put(t, state.AppKey(id), app("name"))
		m := c.next(t)
		require.Equal(t, fmt.Sprintf("%d-0", revision), m.id)
		require.Equal(t, "app", m.name)
		require.JSONEq(t, `{"appInstanceId":"`+id+`","appName":"name","lifecycle":"NOT_CONFIGURED","generation":0,"change":"CREATED"}`, m.data)
	}
	require.Eventually(t, func() bool { return metric(t, n.reg, "mep_events_sent_total", "app") == 10 }, waitTime, time.Millisecond)
}

func TestFilters(t *testing.T) {
	n := start(t)
	upper := "A0000000-0000-4000-8000-000000000000"
	lower := strings.ToLower(upper)
	status := state.Status{Version: state.Current(), Generation: 1, Applied: []string{"r"}}
	for query, want := range map[string][]string{
		"":                                      {"app a", "app " + lower, "ruleStatus a", "operation a", "app end"},
		"?types=app":                            {"app a", "app " + lower, "app end"},
		"?types=operation,ruleStatus":           {"ruleStatus a", "operation a"},
		"?types=operation&types=app":            {"app a", "app " + lower, "operation a", "app end"},
		"?app_instance_id=a":                    {"app a", "ruleStatus a", "operation a"},
		"?app_instance_id=" + upper + ",nobody": {"app " + lower},
		"?app_instance_id=a&types=app":          {"app a"},
		"?app_instance_id=nobody":               nil,
	} {
		t.Run(query, func(t *testing.T) {
			c := n.follow(t, query, "")
			all := n.follow(t, "", "")
			n.put(t, state.AppKey("a"), app("x"), state.AppKey(lower), app("x"))
			n.put(t, state.StatusKey("dns", "a"), status)
			n.put(t, state.OperationKey("o"), state.Operation{Version: state.Current(), AppInstanceID: "a", Type: "START"})
			n.put(t, state.AppKey("end"), app("x"))
			var ids []string
			for _, m := range append(all.upTo(t, "end"), message{}) {
				ids = append(ids, m.id)
			}
			var got []string
			for range want {
				m := c.next(t)
				var d struct{ AppInstanceID string }
				m.decode(t, &d)
				got = append(got, m.name+" "+d.AppInstanceID)
				if d.AppInstanceID != "end" {
					require.Contains(t, ids, m.id, "a filter does not change the ids")
				}
			}
			require.Equal(t, want, got)
			for _, key := range []string{
				state.AppKey("a"), state.AppKey(lower), state.StatusKey("dns", "a"), state.OperationKey("o"), state.AppKey("end"),
			} {
				n.put(t, key, nil)
			}
		})
	}
}

func TestResumeInTheMiddleOfARevision(t *testing.T) {
	n := start(t)
	c := n.follow(t, "", "")
	rules := state.DNSRules{Version: state.Current(), Generation: 1, Running: true}
	for i := range 5 {
		var r state.Rule[mp1.DNSRule]
		r.Declared.DNSRuleID, r.Declared.State = fmt.Sprint("rule", i), "ACTIVE"
		rules.Rules = append(rules.Rules, r)
	}
	n.put(t, state.AppKey("before"), app("x"))
	revision := n.put(t, state.AppKey("a"), app("x"), state.DNSRulesKey("a"), rules, state.AppKey("b"), app("x"))
	n.put(t, state.AppKey("c"), app("x"))
	n.put(t, state.AppKey("end"), app("x"))
	all := c.upTo(t, "end")
	require.Len(t, all, 9)
	for i, m := range all[1:8] {
		require.Equal(t, fmt.Sprintf("%d-%d", revision, i), m.id)
	}
	for i, m := range all {
		t.Run("after "+m.id, func(t *testing.T) {
			again := n.follow(t, "", m.id)
			require.Equal(t, all[i+1:], append([]message{}, again.upTo(t, "end")...))
		})
	}
	t.Run("by the query", func(t *testing.T) {
		q := n.follow(t, "?last_event_id="+all[3].id, "")
		require.Equal(t, all[4:], q.upTo(t, "end"))
	})
	t.Run("the header counts more", func(t *testing.T) {
		q := n.follow(t, "?last_event_id="+all[0].id, all[3].id)
		require.Equal(t, all[4:], q.upTo(t, "end"))
	})
	t.Run("after the whole revision", func(t *testing.T) {
		q := n.follow(t, "", fmt.Sprint(revision))
		require.Equal(t, all[8:], q.upTo(t, "end"))
	})
	t.Run("with a filter", func(t *testing.T) {
		q := n.follow(t, "?types=app", all[2].id)
		require.Equal(t, all[7:], q.upTo(t, "end"))
	})
	t.Run("by another process", func(t *testing.T) {
		other := &node{etcd: n.etcd, store: n.etcd.Store(t), reg: prometheus.NewRegistry()}
		other.Stream = New(other.store, slog.New(slog.DiscardHandler), other.reg)
		r := gin.New()
		r.GET("/events", httpx.Handle(other.Handler()))
		other.handler = r
		other.serve(t, nil)
		require.Equal(t, all[4:], other.follow(t, "", all[3].id).upTo(t, "end"))
	})
}

func TestResumeWhereHistoryIsGoneBeginsAnew(t *testing.T) {
	n := start(t)
	first := n.put(t, state.AppKey("a"), app("x"))
	n.put(t, state.AppKey("b"), app("x"))
	last := n.put(t, state.AppKey("c"), app("x"))
	_, err := n.store.Client.Compact(t.Context(), last)
	require.NoError(t, err)
	for name, c := range map[string]struct {
		id     string
		reason ResetReason
	}{
		"compacted":     {fmt.Sprintf("%d-0", first), ResetCompacted},
		"in the future": {fmt.Sprintf("%d-0", last+1000), ResetFuture},
		"beyond all":    {"9223372036854775807-2147483646", ResetFuture},
	} {
		t.Run(name, func(t *testing.T) {
			// A filter does not suppress a reset.
			s := n.follow(t, "?types=operation,app&app_instance_id=later", c.id)
			m := s.next(t)
			require.Equal(t, "reset", m.name)
			require.Equal(t, fmt.Sprint(last), m.id)
			var r mm5.ResetEvent
			m.decode(t, &r)
			require.Equal(t, mm5.ResetEvent{Reason: string(c.reason), Revision: last}, r)
			revision := n.put(t, state.AppKey("later"), app("x"))
			require.Equal(t, fmt.Sprintf("%d-0", revision), s.next(t).id)
			last = n.put(t, state.AppKey("later"), nil)
			require.Equal(t, fmt.Sprintf("%d-0", last), s.next(t).id)
		})
	}
	t.Run("the last revision that is kept", func(t *testing.T) {
		at := n.put(t, state.AppKey("a"), app("new"), state.AppKey("b"), app("new"))
		_, err := n.store.Client.Compact(t.Context(), at)
		require.NoError(t, err)
		s := n.follow(t, "", fmt.Sprint(at))
		next := n.put(t, state.AppKey("c"), app("new"))
		require.Equal(t, fmt.Sprintf("%d-0", next), s.next(t).id, "nothing is missing")
		// The previous values are gone, and with them the remaining events of the revision.
		half := n.follow(t, "", fmt.Sprintf("%d-0", at))
		require.Equal(t, "reset", half.next(t).name)
	})
}

func TestBurstArrivesWholeAndInOrder(t *testing.T) {
	n := start(t)
	const burst, perTxn = 10_000, 100
	var clients []*client
	for range 3 {
		clients = append(clients, n.follow(t, "", ""))
	}
	for i := 0; i < burst; i += perTxn {
		var kvs []any
		for j := range perTxn {
			kvs = append(kvs, state.AppKey(fmt.Sprintf("app-%05d", i+j)), app("x"))
		}
		n.put(t, kvs...)
	}
	for _, c := range clients {
		var last position
		for i := range burst {
			m := c.next(t)
			var a mm5.AppEvent
			m.decode(t, &a)
			require.Equal(t, fmt.Sprintf("app-%05d", i), a.AppInstanceID)
			p, err := parsePosition(m.id)
			require.NoError(t, err)
			require.True(t, last.before(p))
			last = p
		}
	}
	require.Zero(t, metric(t, n.reg, "mep_events_dropped_total", ""))
}

func TestAsManyClientsAsThereArePlaces(t *testing.T) {
	n := start(t)
	var clients []*client
	for range maxClients {
		clients = append(clients, n.follow(t, "", ""))
	}
	resp := n.request(t, t.Context(), http.MethodGet, "", "")
	defer resp.Body.Close()
	require.Equal(t, http.StatusServiceUnavailable, resp.StatusCode)
	require.Equal(t, "10", resp.Header.Get("Retry-After"))
	n.put(t, state.AppKey("a"), app("x"))
	for _, c := range clients {
		require.Equal(t, "app", c.next(t).name)
	}
	clients[0].end()
	require.Eventually(t, func() bool {
		resp := n.request(t, t.Context(), http.MethodHead, "", "")
		_ = resp.Body.Close()
		return metric(t, n.reg, "mep_events_clients", "") < maxClients
	}, waitTime, 10*time.Millisecond)
	require.Eventually(t, func() bool { return len(n.slots) == 1 }, waitTime, time.Millisecond)
	n.follow(t, "", "")
}

func TestRecordsThatCannotBeReadAreSkippedAndSaidOnce(t *testing.T) {
	n := start(t)
	one, two := n.follow(t, "", ""), n.follow(t, "", "")
	for range 3 {
		n.put(t,
			state.AppKey("newer"), `{"v":99}`,
			state.AppKey("broken"), `{`,
			state.AppKey("a/b"), app("x"),
			state.TrafficRulesKey("broken"), `[]`,
			state.PrefixStatus+"alone", `{"v":1}`,
			state.OperationKey("broken"), `"`,
			state.ServiceKey("a", "broken"), `{"v":1}`,
			state.Root+"something/else", `{`,
			state.CredentialKey("key"), `{`,
			state.ConfigurationKey("a"), `{`,
		)
	}
	n.put(t, state.AppKey("end"), app("x"))
	require.Empty(t, one.upTo(t, "end"))
	require.Empty(t, two.upTo(t, "end"))
	require.Equal(t, 7, strings.Count(n.log.String(), "cannot be read makes no event"), n.log.String())
}

func TestStreamOutlivesEtcdsAbsence(t *testing.T) {
	n := newNode(t)
	n.pace.keepAlive = 50 * time.Millisecond
	n.serve(t, nil)
	c := n.follow(t, "", "")
	n.put(t, state.AppKey("a"), app("x"))
	require.Empty(t, c.upTo(t, "a"))
	n.etcd.Stop()
	for range 3 {
		receive(t, c.comments)
	}
	// With an id, a stream can begin even now; without one, its starting revision is unknown.
	resumed := n.follow(t, "", "1-0")
	resp := n.request(t, t.Context(), http.MethodGet, "", "")
	defer resp.Body.Close()
	require.Equal(t, http.StatusServiceUnavailable, resp.StatusCode)
	require.NotEmpty(t, resp.Header.Get("Retry-After"))
	receive(t, resumed.comments)
	n.etcd.StartAgain(t)
	n.put(t, state.AppKey("b"), app("x"), state.AppKey("c"), app("x"))
	require.Empty(t, c.upTo(t, "b"))
	require.Empty(t, c.upTo(t, "c"))
	require.Empty(t, resumed.upTo(t, "a"))
	require.Empty(t, resumed.upTo(t, "b"))
}

func TestIdleStreamIsKeptAliveAndItsPlaceUpToDate(t *testing.T) {
	n := newNode(t)
	n.pace.keepAlive = 20 * time.Millisecond
	n.serve(t, nil)
	c := n.follow(t, "?app_instance_id=nobody", "")
	receive(t, c.comments)
	unwanted := n.put(t, state.AppKey("a"), app("x"))
	elsewhere := n.put(t, "/elsewhere", "x")
	var place string
	for place != fmt.Sprint(elsewhere) {
		place = receive(t, c.places)
		p, err := parsePosition(place)
		require.NoError(t, err)
		require.GreaterOrEqual(t, p.revision, unwanted)
	}
	_, err := n.store.Client.Compact(t.Context(), elsewhere)
	require.NoError(t, err)
	again := n.follow(t, "", place)
	n.put(t, state.AppKey("b"), app("x"))
	require.Empty(t, again.upTo(t, "b"), "nothing is missing")
}

func TestAStreamBeginsWhereTheListsAre(t *testing.T) {
	n := newNode(t)
	at := n.put(t, state.AppKey("a"), app("x"))
	n.Follow(func() int64 { return at }, nil)
	n.serve(t, nil)
	n.put(t, state.AppKey("b"), app("x"))
	require.Empty(t, n.follow(t, "", "").upTo(t, "b"))
	n.etcd.Stop()
	c := n.follow(t, "", "")
	n.etcd.StartAgain(t)
	require.Empty(t, c.upTo(t, "b"), "a stream begins while etcd is away")
}
