package blackbox

import (
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/kit/etcdtest"
	"github.com/openmep/mep/tests/harness"
)

const events = mm5 + "/events"

// said are events in short, such as "app CREATED CONFIGURED" or "rule TRAFFIC t1 ADDED".
func said(list []harness.Event) []string {
	short := []string{}
	for _, e := range list {
		d := e.Data
		var words []any
		switch e.Type {
		case "app":
			words = []any{d["change"], d["lifecycle"], d["step"]}
		case "service":
			words = []any{d["changeType"], d["serName"], d["state"]}
		case "rule":
			words = []any{d["kind"], d["ruleId"], d["change"], d["state"], d["inForce"]}
		case "ruleStatus":
			words = []any{d["reconciler"], d["applied"], len(objects(d["failed"]))}
		case "operation":
			words = []any{d["lcmOperation"], d["operationState"]}
		case "reset":
			words = []any{d["reason"]}
		}
		text := strings.ReplaceAll(fmt.Sprintln(append([]any{e.Type}, words...)...), "<nil>", "")
		short = append(short, strings.Join(strings.Fields(text), " "))
	}
	return short
}

func TestEventsTellWhatHappens(t *testing.T) {
	t.Parallel()
	p := harness.Start(t)
	m, a := mepmOf(t, p), newApp(p.Client(t))
	// What is reported of rules, when it comes, has tests of its own.
	all := harness.Follow(p.UncheckedMm5(t), events+"?types=app,rule,service,operation")
	tell := func(last string, want ...string) {
		t.Helper()
		n := len(want)
		var got []string
		all.Await(t, last, func(harness.Event) bool {
			got = said(all.All())
			return slices.Contains(got[max(0, len(got)-n):], last) && len(got) >= n
		})
		got = said(all.All())
		require.ElementsMatch(t, want, got[len(got)-n:])
	}
	op := m.configure(a.id, but(configuration("x", 1, 1), "appDNSRule[0].state", "INACTIVE"))
	tell("operation CONFIGURE COMPLETED", "app CREATED CONFIGURED", "rule TRAFFIC t1 ADDED ACTIVE false", "rule DNS d1 ADDED INACTIVE false", "operation CONFIGURE COMPLETED")
	first := all.All()[0]
	require.Equal(t, a.id, first.Data["appInstanceId"])
	require.Regexp(t, `^[1-9][0-9]*-[0-9]+$`, first.ID)
	require.Equal(t, op, mm5+"/app_lcm_op_occs/"+fmt.Sprint(all.All("operation")[0].Data["operationId"]))
	a.isReady()
	tell("app CHANGED STARTED", "app CHANGED STARTED", "rule TRAFFIC t1 CHANGED ACTIVE true")
	a.Put(a.dnsRule("d1"), object{"state": "ACTIVE"}).Is(200)
	tell("rule DNS d1 CHANGED ACTIVE true", "rule DNS d1 CHANGED ACTIVE true")
	svc := a.register(own("cam"))
	tell("service ADDED cam ACTIVE", "service ADDED cam ACTIVE")
	a.replace(svc.id, but(own("cam"), "state", "INACTIVE"))
	tell("service STATE_CHANGED cam INACTIVE", "service STATE_CHANGED cam INACTIVE")
	a.replace(svc.id, but(own("cam"), "state", "INACTIVE", "version", "9"))
	tell("service ATTRIBUTES_CHANGED cam INACTIVE", "service ATTRIBUTES_CHANGED cam INACTIVE")
	m.configure(a.id, configuration("x", 2, 0))
	tell("operation CONFIGURE COMPLETED", "app CHANGED STARTED", "rule TRAFFIC t2 ADDED ACTIVE true", "rule DNS d1 REMOVED ACTIVE false", "operation CONFIGURE PROCESSING",
		"operation CONFIGURE COMPLETED")
	m.terminate(a.id, forceful)
	tell("operation TERMINATE COMPLETED",
		"app CHANGED TERMINATING NOTICE", "operation TERMINATE PROCESSING", "app CHANGED TERMINATING RULES", "rule TRAFFIC t1 CHANGED ACTIVE false",
		"rule TRAFFIC t2 CHANGED ACTIVE false", "app CHANGED TERMINATING SERVICES", "service REMOVED cam INACTIVE", "app CHANGED TERMINATING SUBSCRIPTIONS",
		"app CHANGED TERMINATING CREDENTIALS", "app CHANGED TERMINATING END", "app REMOVED", "rule TRAFFIC t1 REMOVED ACTIVE false",
		"rule TRAFFIC t2 REMOVED ACTIVE false", "operation TERMINATE COMPLETED")

	ids := map[string]bool{}
	for _, e := range all.All() {
		require.False(t, ids[e.ID], "id %s occurs twice", e.ID)
		ids[e.ID] = true
		require.Equal(t, a.id, e.Data["appInstanceId"])
	}
}

func TestARefusedRuleIsAnEvent(t *testing.T) {
	t.Parallel()
	c := harness.NewController(t)
	c.Refuse(func(_, id string) string { return map[string]string{"t2": "no such port"}[id] })
	p := harness.Start(t, c.Option())
	m, a := mepmOf(t, p), newApp(p.Client(t))
	stream := harness.Follow(p.UncheckedMm5(t), events+"?types=ruleStatus,operation")
	m.done(m.configure(a.id, configuration("x", 2, 0)))
	op := m.operate(a.id, started)
	status := stream.Await(t, "the refusal", func(e harness.Event) bool { return len(objects(e.Data["failed"])) > 0 })
	same(t, []any{object{"ruleId": "t2", "reason": "no such port"}}, status.Data["failed"])
	same(t, []any{"t1"}, status.Data["applied"])
	failed := stream.Await(t, "the failure", func(e harness.Event) bool { return e.Data["operationState"] == "FAILED" })
	require.Contains(t, failed.Data["detail"], "no such port")
	require.Equal(t, "FAILED", m.Get(op).Object()["operationState"], "who reads because of an event finds what it told of")
}

func TestEventsAreFiltered(t *testing.T) {
	t.Parallel()
	p := harness.Start(t)
	m, a, b := mepmOf(t, p), newApp(p.Client(t)), newApp(p.Client(t))
	c := p.UncheckedMm5(t)
	streams := map[string]*harness.Stream{}
	for _, query := range []string{
		"", "?types=service", "?types=service&types=app", "?types=rule,operation", "?app_instance_id=" + a.id, "?app_instance_id=" + strings.ToUpper(a.id) + "&types=service",
		"?app_instance_id=" + a.id + "," + b.id + "&types=app", "?app_instance_id=" + uuid.NewString(),
	} {
		streams[query] = harness.Follow(c, events+query)
	}
	for _, x := range []app{a, b} {
		m.done(m.configure(x.id, configuration("x", 1, 0)))
		x.remove(x.register(own("cam")).id)
	}
	streams[""].Await(t, "the last event", func(e harness.Event) bool {
		return e.Data["changeType"] == "REMOVED" && e.Data["appInstanceId"] == b.id
	})
	every := streams[""].All()
	for query, s := range streams {
		want := []string{}
		for _, e := range every {
			ofTypes := !strings.Contains(query, "types=") || strings.Contains(query, "="+e.Type) || strings.Contains(query, ","+e.Type)
			ofApps := !strings.Contains(query, "app_instance_id") || strings.Contains(strings.ToLower(query), e.Data["appInstanceId"].(string))
			if ofTypes && ofApps {
				want = append(want, e.ID+" "+e.Type)
			}
		}
		var got []string
		harness.Eventually(t, "the events of "+query, func() error {
			got = []string{}
			for _, e := range s.All() {
				got = append(got, e.ID+" "+e.Type)
			}
			return harness.Not(slices.Equal(want, got), "want %v, got %v", want, got)
		})
	}
	for _, query := range []string{
		"?types=all", "?types=", "?types=app,", "?type=app", "?app_instance_id=", "?last_event_id=", "?last_event_id=x", "?last_event_id=0", "?last_event_id=-1",
		"?last_event_id=1-", "?last_event_id=01", "?last_event_id=99999999999999999999", "?last_event_id=1&last_event_id=2", "?types=reset", "?x", "?types=%zz",
	} {
		m.Get(events + query).Problem(400)
		m.Head(events + query).Is(400)
	}
	for _, id := range []string{"x", "1.5", "0-0", "1-x", "1-99999999999"} {
		require.Contains(t, m.Get(events, harness.Header("Last-Event-ID", id)).Problem(400).Detail, "Last-Event-ID")
	}
	require.Equal(t, "text/event-stream", m.Head(events).Is(200).Header.Get("Content-Type"))
}

// A client that comes back with the id it saw last misses nothing and hears nothing twice, whatever happened meanwhile.
func TestAStreamIsResumedWhereItEnded(t *testing.T) {
	t.Parallel()
	p := harness.Start(t)
	m, a := mepm{p.UncheckedMm5(t)}, newApp(p.Unchecked(t))
	c := p.UncheckedMm5(t)
	stream := harness.Follow(c, events)
	beginning := stream.LastID()
	require.NotEmpty(t, beginning, "a client that saw nothing yet can come back, too")
	var heard []harness.Event
	work := func(n int) {
		t.Helper()
		m.done(m.configure(a.id, configuration("x", 1+n%3, n%2)))
		a.register(own(fmt.Sprint("s", n)))
	}
	for n := range 4 {
		work(n)
		stream.Await(t, "some of it is heard", func(harness.Event) bool { return true })
		if n%2 == 0 {
			p.Kill()
			p.Restart()
		}
		stream.Close()
		heard = append(heard, stream.All()...)
		last := stream.LastID()
		work(10 + n)
		if n == 1 {
			stream = harness.Follow(c, events+"?last_event_id="+last)
		} else {
			stream = harness.Follow(c, events+"?last_event_id=1", harness.Header("Last-Event-ID", last)) // which counts more
		}
	}
	m.done(m.terminate(a.id, forceful))
	end := func(e harness.Event) bool {
		return e.Type == "operation" && e.Data["lcmOperation"] == "TERMINATE" && e.Data["operationState"] == "COMPLETED"
	}
	stream.Await(t, "the end", end)
	heard = append(heard, stream.All()...)
	replay := harness.Follow(c, events, harness.Header("Last-Event-ID", beginning))
	replay.Await(t, "the end", end)
	require.Equal(t, replay.All(), heard, "the same history has the same events with the same ids")
	require.Empty(t, replay.All("reset"))
	// Part of what happened in one instant.
	i := slices.IndexFunc(replay.All(), func(e harness.Event) bool { return strings.HasSuffix(e.ID, "-1") })
	part := harness.Follow(c, events, harness.Header("Last-Event-ID", replay.All()[i].ID))
	part.Await(t, "the end", end)
	require.Equal(t, replay.All()[i+1:], part.All())
}

func TestAStreamThatCannotBeResumedSaysSo(t *testing.T) {
	t.Parallel()
	etcd := etcdtest.Start(t)
	p := harness.StartMepserver(t, etcd.Endpoint())
	m, a := mepmOf(t, p), newApp(p.Client(t))
	c := p.UncheckedMm5(t)
	first := harness.Follow(c, events).LastID()
	for n := range 3 {
		m.done(m.configure(a.id, configuration("x", n, 0)))
	}
	future := harness.Follow(c, events, harness.Header("Last-Event-ID", "999999999-3"))
	require.Equal(t, "FUTURE", future.Await(t, "a reset", func(e harness.Event) bool { return e.Type == "reset" }).Data["reason"])

	client := etcd.Client(t)
	now, err := client.Get(t.Context(), "x")
	require.NoError(t, err)
	_, err = client.Compact(t.Context(), now.Header.Revision)
	require.NoError(t, err)
	old := harness.Follow(c, events+"?types=app", harness.Header("Last-Event-ID", first))
	reset := old.Await(t, "a reset", func(e harness.Event) bool { return e.Type == "reset" })
	require.Equal(t, "COMPACTED", reset.Data["reason"])
	revision, err := strconv.ParseInt(strings.SplitN(reset.ID, "-", 2)[0], 10, 64)
	require.NoError(t, err)
	require.EqualValues(t, revision, reset.Data["revision"])
	m.done(m.configure(a.id, configuration("y", 1, 0)))
	for _, s := range []*harness.Stream{future, old} {
		s.Await(t, "it goes on", func(e harness.Event) bool { return e.Type == "app" && e.Data["appName"] == "y" })
		require.Equal(t, "reset", s.All()[0].Type, "first of all")
	}
}

func TestStreamsEndWithThePlatform(t *testing.T) {
	t.Parallel()
	p := harness.Start(t)
	c := p.UncheckedMm5(t)
	var streams []*harness.Stream
	for range 32 {
		streams = append(streams, harness.Follow(c, events))
	}
	full := p.Mm5(t).Get(events)
	full.Problem(http.StatusServiceUnavailable)
	require.NotEmpty(t, full.Header.Get("Retry-After"))
	streams[0].Close()
	harness.Eventually(t, "there is room again", func() error {
		// The answer to a stream that begins does not end.
		return harness.Not(p.Mm5(t).Head(events).Status == 200, "no")
	})
	streams[0] = harness.Follow(c, events)
	deaf := p.Dial(t, "mm5") // asks for events and never reads them
	_, err := fmt.Fprintf(deaf, "GET %s HTTP/1.1\r\nHost: mep\r\n\r\n", events)
	require.NoError(t, err)
	m := mepmOf(t, p)
	m.done(m.configure(uuid.NewString(), configuration("x", 64, 64)))
	streams[1].Await(t, "the others hear", func(e harness.Event) bool { return e.Type == "operation" })

	p.Stop() // in time, or the test fails
	for _, s := range streams {
		require.NoError(t, s.Ended(t), "the end of a stream is an end, not a break")
	}
}

// A stream lasts as long as what its reader showed to get it.
func TestAStreamEndsWithItsToken(t *testing.T) {
	t.Parallel()
	p := harness.Start(t, harness.Secure(), generous())
	keys := p.Bootstrap(t).Keys
	token, other := keys.Fetch(p.Auth(t)).AccessToken, keys.Fetch(p.Auth(t)).AccessToken
	revoked, stays := harness.Follow(p.UncheckedMm5(t).With(token), events), harness.Follow(p.UncheckedMm5(t).With(other), events)
	p.Auth(t).Post("/oauth2/revoke", harness.Form("token", token), harness.AsForm(), keys.Basic()).Is(200)
	require.NoError(t, revoked.Ended(t))
	unauthenticated(t, p.Mm5(t).With(token).Get(events), "invalid_token")
	m := mepmOf(t, p)
	m.done(m.configure(uuid.NewString(), object{}))
	stays.Await(t, "the other goes on", func(e harness.Event) bool { return e.Type == "app" })
}
