package contract_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/api/mm5"
	"github.com/openmep/mep/api/mp1"
	"github.com/openmep/mep/tests/contract"
)

const events = "/mm5/v1/events"

func stream(body string) answer {
	return answer{200, map[string]string{"Content-Type": "text/event-stream", "Cache-Control": "no-store", "X-Accel-Buffering": "no"}, body}
}

// event is one event of a stream.
func event(kind, data string) string { return "id: 7-0\nevent: " + kind + "\ndata: " + data + "\n\n" }

func TestGoodStreamsPass(t *testing.T) {
	doc, _ := document(t, "mm5")
	content := doc.Paths.Value(events).Get.Responses.Status(http.StatusOK).Value.Content.Get("text/event-stream")
	example, ok := content.Example.(string)
	require.True(t, ok)
	for name, body := range map[string]string{
		"nothing":             "",
		"the document's own":  example,
		"a comment":           ":\n\n",
		"a place":             ":\nid: 44\n\n",
		"what was cut off":    event("operation", `{"operationId":"o","appInstanceId":"a","lcmOperation":"STOP","operationState":"COMPLETED"}`) + "id: 8\nevent: ap",
		"another beginning":   ": mep\nretry: 100\nid: 8\n\n",
		"a service":           event("service", `{"appInstanceId":"a","serInstanceId":"s","serName":"n","state":"SUSPENDED","changeType":"STATE_CHANGED"}`),
		"a report of nothing": event("ruleStatus", `{"appInstanceId":"a","reconciler":"r","generation":1,"applied":[],"failed":[]}`),
		"a reset":             event("reset", `{"reason":"COMPACTED","revision":9}`),
	} {
		t.Run(name, func(t *testing.T) {
			require.Empty(t, exchange(t, "mm5", call{method: "GET", path: events}, stream(body)))
		})
	}
}

func TestBadStreamsAreReported(t *testing.T) {
	good := event("reset", `{"reason":"COMPACTED","revision":9}`)
	for name, x := range map[string]struct {
		answer answer
		reason string
	}{
		"an event nobody knows":  {stream(good + event("weather", `{}`)), `no event "weather"`},
		"an event without a id":  {stream("event: reset\ndata: {\"reason\":\"FUTURE\",\"revision\":9}\n\n"), "no id"},
		"data without a type":    {stream("id: 7\ndata: {}\n\n"), "both a type and data"},
		"a type without data":    {stream("id: 7\nevent: app\n\n"), "both a type and data"},
		"a missing member":       {stream(event("reset", `{"reason":"COMPACTED"}`)), "revision"},
		"a wrong value":          {stream(event("reset", `{"reason":"WHY","revision":9}`)), "/reason"},
		"no JSON":                {stream(event("reset", `{`)), `"reset" is not as documented`},
		"null for absent":        {stream(event("app", `{"appInstanceId":"a","generation":0,"change":"REMOVED","lifecycle":null}`)), "/lifecycle"},
		"an unknown field":       {stream("id: 7\nfoo: bar\n\n"), `no field "foo"`},
		"a field twice":          {stream("id: 7\nid: 8\n\n"), "no line"},
		"what is no line":        {stream("id 7\n\n"), "no line"},
		"retry without a number": {stream("retry: soon\n\n"), "no number"},
		"no X-Accel-Buffering":   {answer{200, map[string]string{"Content-Type": "text/event-stream", "Cache-Control": "no-store"}, good}, "X-Accel-Buffering"},
		"another type":           {jsonAnswer(200, "{}", "Cache-Control", "no-store", "X-Accel-Buffering", "no"), "application/json"},
	} {
		t.Run(name, func(t *testing.T) {
			messages := exchange(t, "mm5", call{method: "GET", path: events}, x.answer)
			require.Len(t, messages, 1)
			require.Contains(t, messages[0], x.reason)
		})
	}
}

func TestStreamsNobodyMayHaveAreReported(t *testing.T) {
	for name, x := range map[string]struct {
		call   call
		reason string
	}{
		"elsewhere":         {call{method: "GET", path: "/mm5/v1/capabilities"}, "no stream of events for this operation"},
		"with no operation": {call{method: "POST", path: events}, "no such operation"},
		"unknown parameter": {call{method: "GET", path: events + "?kind=app"}, `"kind"`},
		"unknown type":      {call{method: "GET", path: events + "?types=app,weather"}, "types"},
		"what is no id":     {call{method: "GET", path: events + "?last_event_id=a"}, "last_event_id"},
	} {
		t.Run(name, func(t *testing.T) {
			messages := exchange(t, "mm5", x.call, stream(""))
			require.Len(t, messages, 1)
			require.Contains(t, messages[0], x.reason)
		})
	}
	require.Empty(t, exchange(t, "mm5", call{method: "GET", path: events + "?types=app,rule&types=operation&app_instance_id=a,b&last_event_id=7-0"}, stream("")))
	require.Empty(t, exchange(t, "mm5", call{method: "GET", path: events + "?kind=app"}, stream(""), contract.Tolerated))
	require.Empty(t, exchange(t, "mm5", call{method: "HEAD", path: events}, stream("")))
}

func TestEventsArriveWhileTheStreamLasts(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for name, value := range stream("").header {
			w.Header().Set(name, value)
		}
		w.Header().Set("X-Request-Id", "r-1")
		_, _ = io.WriteString(w, event("reset", `{"reason":"WHY","revision":9}`))
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	}))
	defer server.Close()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, server.URL+events, nil)
	require.NoError(t, err)
	r := &recorder{TB: t}
	resp, err := (&http.Client{Transport: contract.New(r, "mm5").Transport(server.Client().Transport)}).Do(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	require.Empty(t, r.messages, "what was not read was not checked")
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() && lines.Text() != "" {
		continue
	}
	require.NoError(t, lines.Err())
	require.Len(t, r.messages, 1)
	require.Contains(t, r.messages[0], "/reason")
}

// What the document says of an event and what the client makes of it are the same.
func TestTheClientKnowsEveryEvent(t *testing.T) {
	doc, _ := document(t, "mm5")
	known := map[mm5.EventType]any{
		mm5.EventApp: mm5.AppEvent{
			AppInstanceID: "a", AppName: "n", Lifecycle: mm5.LifecycleStopping, PreviousLifecycle: mm5.LifecycleStarted, Generation: 1,
			Change: mm5.Changed, Step: "NOTICE",
		},
		mm5.EventService: mm5.ServiceEvent{
			AppInstanceID: "a", SerInstanceID: "s", SerName: "n", State: mp1.StateActive, ChangeType: mp1.ChangeAdded,
		},
		mm5.EventRule: mm5.RuleEvent{
			AppInstanceID: "a", Kind: mm5.DNSRules, RuleID: "r", State: mp1.RuleActive, InForce: true, Change: mm5.Removed,
		},
		mm5.EventRuleStatus: mm5.RuleStatusEvent{
			AppInstanceID: "a", Reconciler: "dns", Generation: 1, Applied: []string{"r"}, Failed: []mm5.FailedRule{{RuleID: "q", Reason: "no"}},
		},
		mm5.EventOperation: mm5.OperationEvent{
			OperationID: "o", AppInstanceID: "a", LcmOperation: mm5.OperationStop, OperationState: mm5.OperationFailed, Detail: "no",
		},
		mm5.EventReset: mm5.ResetEvent{Reason: "FUTURE", Revision: 1},
	}
	schemas := eventSchemas(doc)
	require.Len(t, known, len(schemas))
	for kind, data := range known {
		text, err := json.Marshal(data)
		require.NoError(t, err)
		name := fmt.Sprint(schemas[string(kind)])
		schema := doc.Components.Schemas[name]
		require.NotNil(t, schema, "%s", kind)
		require.True(t, accepts(t, schema, string(text)), "%s: %s", kind, text)
		var members map[string]any
		require.NoError(t, json.Unmarshal(text, &members))
		for member := range schema.Value.Properties {
			require.Contains(t, members, member, "%s has %s", name, member)
		}
		require.Len(t, members, len(schema.Value.Properties), name)
	}
}
