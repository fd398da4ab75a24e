package client_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/api/client"
	"github.com/openmep/mep/api/mm5"
	"github.com/openmep/mep/api/mp1"
)

const (
	hello      = ": mep\nretry: 2000\nid: 39\n\n"
	appCreated = "id: 40-0\nevent: app\n" + `data: {"appInstanceId":"app-1","appName":"abc","lifecycle":"STARTED","generation":1,"change":"CREATED"}` + "\n\n"
	ruleAdded  = "id: 40-1\nevent: rule\n" + `data: {"appInstanceId":"app-1","kind":"DNS","ruleId":"d","state":"ACTIVE","inForce":true,"change":"ADDED"}` + "\n\n"
	reported   = "id: 41-0\nevent: ruleStatus\n" + `data: {"appInstanceId":"app-1","reconciler":"dns","generation":42,"applied":["d"],"failed":[{"ruleId":"e","reason":"no"}]}` + "\n\n"
	operated   = "id: 42-0\nevent: operation\n" + `data: {"operationId":"` + opID + `","appInstanceId":"app-1","lcmOperation":"CONFIGURE","operationState":"FAILED","detail":"no"}` + "\n\n"
	served     = "id: 43-0\nevent: service\n" + `data: {"appInstanceId":"app-1","serInstanceId":"s","serName":"n","state":"ACTIVE","changeType":"ADDED"}` + "\n\n"
	wasReset   = "id: 62\nevent: reset\n" + `data: {"reason":"FUTURE","revision":62}` + "\n\n"
	newer      = "id: 63-0\nevent: weather\n" + `data: {"sun":true}` + "\n\n"
	place      = ":\nid: 44\n\n"
	idle       = ":\n\n"
)

// pipes answers each request with its next stream, without a network.
type pipes struct {
	// streams write to the client until they return; the returned error ends the stream.
	streams []func(ctx context.Context, w io.Writer) error
	// instead, if not nil, may answer a request differently; returning nil means that it does not.
	instead func(n int) func(http.ResponseWriter)

	asked  []asked
	closed int
}

// RoundTrip starts a stream.
func (p *pipes) RoundTrip(r *http.Request) (*http.Response, error) {
	n := len(p.asked)
	p.asked = append(p.asked, asked{r.Method, r.URL.RequestURI(), r.Header, "", time.Now()})
	if p.instead != nil {
		if other := p.instead(n); other != nil {
			rec := httptest.NewRecorder()
			other(rec)
			resp := rec.Result()
			resp.Request = r
			return resp, nil
		}
	}
	out, in := io.Pipe()
	stop := context.AfterFunc(r.Context(), func() { _ = in.CloseWithError(context.Canceled) })
	stream := p.streams[min(n, len(p.streams)-1)]
	go func() { _ = in.CloseWithError(stream(r.Context(), in)) }()
	return &http.Response{
		StatusCode: 200, Status: "200 OK", Header: http.Header{"Content-Type": {"text/event-stream"}}, Request: r,
		Body: &closing{out, func() { stop(); p.closed++; _ = out.Close() }},
	}, nil
}

type closing struct {
	io.Reader
	close func()
}

// Close implements io.Closer.
func (c *closing) Close() error { c.close(); return nil }

// sends returns a stream that ends after some texts.
func sends(texts ...string) func(context.Context, io.Writer) error {
	return func(_ context.Context, w io.Writer) error {
		for _, t := range texts {
			if _, err := io.WriteString(w, t); err != nil {
				return err
			}
		}
		return io.EOF
	}
}

// stays returns a stream that falls silent after some texts.
func stays(texts ...string) func(context.Context, io.Writer) error {
	return func(ctx context.Context, w io.Writer) error {
		if err := sends(texts...)(ctx, w); !errors.Is(err, io.EOF) {
			return err
		}
		<-ctx.Done()
		return ctx.Err()
	}
}

// follow collects n events, or all until the stream ends.
func follow(t *testing.T, p *pipes, q client.EventQuery, n int) ([]client.Event, error) {
	t.Helper()
	var list []client.Event
	for e, err := range newManager(t, p).Events(t.Context(), q) {
		if err != nil {
			return list, err
		}
		if list = append(list, e); len(list) == n {
			break
		}
	}
	return list, nil
}

func ids(list []client.Event) []string {
	all := make([]string, len(list))
	for i, e := range list {
		all[i] = e.ID + " " + string(e.Type)
	}
	return all
}

func TestEventsAreWhatThePlatformSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &pipes{streams: []func(context.Context, io.Writer) error{
			stays(hello, appCreated, ruleAdded, reported, idle, operated, served, wasReset, newer),
		}}
		got, err := follow(t, p, client.EventQuery{
			Types: []mm5.EventType{mm5.EventApp, mm5.EventRule}, AppInstanceIDs: []string{"app-1", "a,b"},
		}, 8)
		require.NoError(t, err)
		require.Equal(t, []client.Event{
			{ID: "39", Type: client.EventBegun},
			{ID: "40-0", Type: mm5.EventApp, Data: mm5.AppEvent{
				AppInstanceID: "app-1", AppName: "abc", Lifecycle: mm5.LifecycleStarted, Generation: 1, Change: mm5.Created,
			}},
			{ID: "40-1", Type: mm5.EventRule, Data: mm5.RuleEvent{
				AppInstanceID: "app-1", Kind: mm5.DNSRules, RuleID: "d", State: mp1.RuleActive, InForce: true, Change: mm5.Added,
			}},
			{ID: "41-0", Type: mm5.EventRuleStatus, Data: mm5.RuleStatusEvent{
				AppInstanceID: "app-1", Reconciler: "dns", Generation: 42, Applied: []string{"d"}, Failed: []mm5.FailedRule{{RuleID: "e", Reason: "no"}},
			}},
			{ID: "42-0", Type: mm5.EventOperation, Data: mm5.OperationEvent{
				OperationID: opID, AppInstanceID: "app-1", LcmOperation: mm5.OperationConfigure, OperationState: mm5.OperationFailed, Detail: "no",
			}},
			{ID: "43-0", Type: mm5.EventService, Data: mm5.ServiceEvent{
				AppInstanceID: "app-1", SerInstanceID: "s", SerName: "n", State: mp1.StateActive, ChangeType: mp1.ChangeAdded,
			}},
			{ID: "62", Type: mm5.EventReset, Data: mm5.ResetEvent{Reason: "FUTURE", Revision: 62}},
			{ID: "63-0", Type: "weather", Data: json.RawMessage(`{"sun":true}`)},
		}, got)
		require.Equal(t, "GET", p.asked[0].method)
		require.Equal(t, mm5Root+"/events?app_instance_id=app-1&app_instance_id=a%2Cb&types=app&types=rule", p.asked[0].target)
		require.Equal(t, "text/event-stream", p.asked[0].header.Get("Accept"))
		require.Empty(t, p.asked[0].header.Values("Last-Event-ID"))
		require.Equal(t, 1, p.closed, "who wants no more events ends the stream")
	})
}

func TestALostStreamIsTakenUpWhereItWas(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var lost []string
		p := &pipes{streams: []func(context.Context, io.Writer) error{
			sends(hello),
			sends(hello[len(": mep\n"):], appCreated, ruleAdded[:len(ruleAdded)-1]), // the last line ending is missing
			sends(ruleAdded, place),
			func(_ context.Context, w io.Writer) error {
				_, _ = io.WriteString(w, idle+"id: 45-0\nevent: wea")
				return io.ErrUnexpectedEOF
			},
			stays(served),
		}}
		got, err := follow(t, p, client.EventQuery{Interrupted: func(err error) { lost = append(lost, err.Error()) }}, 4)
		require.NoError(t, err)
		require.Equal(t, []string{"39 begun", "40-0 app", "40-1 rule", "43-0 service"}, ids(got), "each event once")
		var after []string
		for i, a := range p.asked {
			after = append(after, a.header.Get("Last-Event-ID"))
			if i > 0 {
				wait := a.at.Sub(p.asked[i-1].at)
				require.GreaterOrEqual(t, wait, time.Second)
				require.LessOrEqual(t, wait, 2*time.Second, "as the platform asks for")
			}
		}
		require.Equal(t, []string{"", "39", "40-0", "44", "44"}, after)
		require.Len(t, lost, 4)
		require.Equal(t, "the platform has ended the stream", lost[0])
		require.Equal(t, "unexpected EOF", lost[3])
		require.Equal(t, 5, p.closed)
	})
}

func TestAStreamThatGoesOnAfterAnEventDoesNotBegin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &pipes{streams: []func(context.Context, io.Writer) error{stays("id: 40-0\n\n", ruleAdded)}}
		got, err := follow(t, p, client.EventQuery{After: "40-0"}, 1)
		require.NoError(t, err)
		require.Equal(t, []string{"40-1 rule"}, ids(got))
		require.Equal(t, "40-0", p.asked[0].header.Get("Last-Event-ID"))
	})
}

func TestAStreamThatHasGoneSilentIsReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var lost error
		p := &pipes{streams: []func(context.Context, io.Writer) error{
			func(ctx context.Context, w io.Writer) error {
				for range 4 { // comments count as activity
					if err := sends(idle)(ctx, w); !errors.Is(err, io.EOF) {
						return err
					}
					time.Sleep(30 * time.Second)
				}
				<-ctx.Done()
				return ctx.Err()
			},
			stays(appCreated),
		}}
		start := time.Now()
		_, err := follow(t, p, client.EventQuery{Interrupted: func(err error) { lost = err }}, 2)
		require.NoError(t, err)
		require.EqualError(t, lost, "the platform has sent nothing for 45s")
		require.Len(t, p.asked, 2)
		took := p.asked[1].at.Sub(start)
		require.GreaterOrEqual(t, took, 135*time.Second)
		require.Less(t, took, 138*time.Second)
	})
}

func TestAServerThatDoesNotAnswerIsNotWaitedForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, err := client.NewManager("http://mep.example", client.WithHTTPClient(&http.Client{Transport: unreachable{}}))
		require.NoError(t, err)
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
		defer cancel()
		lost := 0
		for e, err := range m.Events(ctx, client.EventQuery{Interrupted: func(error) { lost++ }}) {
			t.Errorf("there is nobody who could send %v, %v", e, err)
		}
		require.GreaterOrEqual(t, lost, 5)
		require.Less(t, lost, 7)
	})
}

func TestTheTimeTheLoopTakesIsNoSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &pipes{streams: []func(context.Context, io.Writer) error{stays(hello, appCreated, ruleAdded)}}
		n := 0
		for _, err := range newManager(t, p).Events(t.Context(), client.EventQuery{}) {
			require.NoError(t, err)
			time.Sleep(time.Hour)
			if n++; n == 3 {
				break
			}
		}
		require.Len(t, p.asked, 1)
	})
}

func TestEventsComeAgainWhenThePlatformIsWellAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		answers := []func(http.ResponseWriter){
			refusal(503, "Retry-After", "10"), refusal(500), refusal(401), answer(502, "<html>", "Content-Type", "text/html"),
		}
		p := &pipes{
			streams: []func(context.Context, io.Writer) error{stays(hello)},
			instead: func(n int) func(http.ResponseWriter) {
				if n < len(answers) {
					return answers[n]
				}
				return nil
			},
		}
		var statuses []int
		got, err := follow(t, p, client.EventQuery{Interrupted: func(err error) {
			if e, ok := errors.AsType[*client.Error](err); ok {
				statuses = append(statuses, e.Status())
			}
		}}, 1)
		require.NoError(t, err)
		require.Equal(t, []string{"39 begun"}, ids(got))
		require.Equal(t, []int{503, 500, 401, 502}, statuses)
		require.GreaterOrEqual(t, p.asked[1].at.Sub(p.asked[0].at), 10*time.Second, "the platform asks for it")
	})
}

func TestEventsEndWhereToGoOnIsOfNoUse(t *testing.T) {
	large := "data: " + strings.Repeat("x", 5<<20)
	tests := map[string]struct {
		after   string
		instead func(http.ResponseWriter)
		stream  string
		want    string
		event   client.Event
	}{
		"refused":               {instead: refusal(400), want: "400 Bad Request: because"},
		"not allowed":           {instead: refusal(403), want: "403 Forbidden: because"},
		"something else":        {instead: answer(200, "<html>", "Content-Type", "text/html"), want: "without a stream of events: is a MEC platform there?"},
		"nothing":               {instead: answer(204, ""), want: "without a stream of events"},
		"no id":                 {after: "40\n", want: "is no id of an event"},
		"an event like no such": {stream: "id: 1-0\nevent: rule\ndata: {\"inForce\":3}\n\n", want: "event 1-0 of the type rule cannot be read", event: client.Event{ID: "1-0", Type: mm5.EventRule, Data: json.RawMessage(`{"inForce":3}`)}},
		"an event without end":  {stream: large, want: "too large"},
		"events without end":    {stream: strings.Repeat("data: "+strings.Repeat("x", 1<<20)+"\n", 5), want: "too large"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := &pipes{streams: []func(context.Context, io.Writer) error{sends(hello, tt.stream)}}
				if tt.instead != nil {
					p.instead = func(int) func(http.ResponseWriter) { return tt.instead }
				}
				var errs []error
				var last client.Event
				for e, err := range newManager(t, p).Events(t.Context(), client.EventQuery{After: tt.after}) {
					if err != nil {
						errs, last = append(errs, err), e
					}
				}
				require.Len(t, errs, 1)
				require.ErrorContains(t, errs[0], tt.want)
				require.Equal(t, tt.event, last)
				require.LessOrEqual(t, len(p.asked), 1)
			})
		})
	}
}

func TestEventsEndWithTheirContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &pipes{streams: []func(context.Context, io.Writer) error{stays(hello)}}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		events := newManager(t, p).Events(ctx, client.EventQuery{})
		begun := 0
		count := func(e client.Event, err error) {
			require.NoError(t, err)
			require.Equal(t, client.EventBegun, e.Type)
			begun++
		}
		for e, err := range events {
			count(e, err)
			break
		}
		time.AfterFunc(time.Second, cancel)
		for e, err := range events { // from the beginning
			count(e, err)
		}
		for e, err := range events {
			count(e, err)
		}
		require.Equal(t, 2, begun)
		require.Len(t, p.asked, 2)
		require.Equal(t, 2, p.closed)
	})
}

func TestARefusedTokenIsReplacedForEventsToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &pipes{streams: []func(context.Context, io.Writer) error{stays(hello)}}
		p.instead = func(n int) func(http.ResponseWriter) {
			if p.asked[n].header.Get("Authorization") != "Bearer t1" {
				return refusal(401)
			}
			return nil
		}
		for _, err := range newManager(t, p, client.WithTokens(&rotating{})).Events(t.Context(), client.EventQuery{
			Interrupted: func(err error) { t.Errorf("interrupted: %v", err) },
		}) {
			require.NoError(t, err)
			break
		}
		require.Len(t, p.asked, 2)
	})
}

func TestTheTimeOutOfRequestsIsNotThatOfEvents(t *testing.T) {
	const timeout = 50 * time.Millisecond
	requests := 0
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		requests++
		w.Header().Set("Content-Type", "text/event-stream")
		for _, text := range []string{hello, appCreated} {
			_, _ = io.WriteString(w, text)
			w.(http.Flusher).Flush()
			select {
			case <-time.After(4 * timeout):
			case <-r.Context().Done():
			}
		}
	}))
	t.Cleanup(srv.Close)
	m, err := client.NewManager(srv.URL, client.WithHTTPClient(&http.Client{Timeout: timeout}))
	require.NoError(t, err)
	n := 0
	for _, err := range m.Events(t.Context(), client.EventQuery{}) {
		require.NoError(t, err)
		if n++; n == 2 {
			break
		}
	}
	require.Equal(t, 1, requests)
}
