package rest_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"iter"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/api/gateway"
	"github.com/openmep/mep/api/problem"
	"github.com/openmep/mep/api/state"
	"github.com/openmep/mep/gateway/book"
	"github.com/openmep/mep/gateway/rest"
	"github.com/openmep/mep/kit/audit"
	"github.com/openmep/mep/kit/errs"
	"github.com/openmep/mep/kit/etcdtest"
	"github.com/openmep/mep/kit/httpx"
	"github.com/openmep/mep/kit/identity"
	"github.com/openmep/mep/kit/watched"
)

// server stands in for the gateway: it has the stored definitions and some of its own, and records what it is asked.
type server struct {
	book      *book.Book
	own       map[string]*gateway.RouteView
	policies  map[string]*gateway.PolicyView
	quotas    []gateway.QuotaUse
	targets   []gateway.TargetView
	served    int64
	behind    bool
	forgetful bool // does not know the stored definitions
	explained gateway.ExplainRequest
	asked     any
}

func (s *server) all() map[string]*gateway.RouteView {
	all := maps.Clone(s.own)
	for item := range s.book.Routes.Collection().Snapshot().All() {
		def := item.Value
		if s.forgetful || all[def.ID] != nil {
			continue
		}
		view := &gateway.RouteView{ID: def.ID, Kind: gateway.KindStatic, Source: "management", Paths: def.Value.Paths, Service: def.Value.Service, Revision: def.Revision, Definition: &def.Value}
		for _, url := range def.Value.URLs {
			view.Targets = append(view.Targets, gateway.TargetView{URL: url, State: "up"})
		}
		if def.Value.Service == "refused" {
			view.Refused = "there is no filter of that name"
		}
		all[def.ID] = view
	}
	return all
}

func (s *server) Routes(after string) iter.Seq[*gateway.RouteView] {
	all := s.all()
	return func(yield func(*gateway.RouteView) bool) {
		for _, id := range slices.Sorted(maps.Keys(all)) {
			if id > after && !yield(all[id]) {
				return
			}
		}
	}
}

func (s *server) Route(id string) (*gateway.RouteView, bool) {
	view, ok := s.all()[id]
	return view, ok
}

func (s *server) Policies() []gateway.PolicyView {
	var list []gateway.PolicyView
	for _, p := range s.policies {
		list = append(list, *p)
	}
	for item := range s.book.Policies.Collection().Snapshot().All() {
		if s.policies[item.Value.ID] == nil && !s.forgetful {
			list = append(list, gateway.PolicyView{Name: item.Value.ID, Source: "management", Policy: item.Value.Value})
		}
	}
	return list
}

func (s *server) Policy(name string) (*gateway.PolicyView, bool) {
	for _, p := range s.Policies() {
		if p.Name == name {
			return &p, true
		}
	}
	return nil, false
}

func (s *server) Upstreams() []gateway.TargetView { return s.targets }

func (s *server) Explain(_ context.Context, req gateway.ExplainRequest) (*gateway.Explanation, error) {
	s.explained = req
	if req.Method == "FAIL" {
		return nil, errors.New("no table")
	}
	return &gateway.Explanation{Status: 404, Reason: "there is no route", Steps: []gateway.ExplainStep{{Name: "route", Result: "none"}}}, nil
}

func (s *server) Status() gateway.Status {
	return gateway.Status{Revision: 7, Routes: 2, Loaded: time.Date(2026, 11, 23, 5, 0, 0, 0, time.UTC)}
}

func (s *server) Statistics(_ context.Context, q rest.StatisticsQuery) (*gateway.Statistics, error) {
	s.asked = q
	return &gateway.Statistics{Resolution: q.Resolution, From: q.From, To: q.To, Series: []gateway.Series{}}, nil
}

func (s *server) Quotas(_ context.Context, route, consumer string) ([]gateway.QuotaUse, error) {
	s.asked = [2]string{route, consumer}
	return s.quotas, nil
}

func (s *server) Served(ctx context.Context, revision int64) error {
	if s.behind {
		return context.DeadlineExceeded
	}
	if _, limited := ctx.Deadline(); !limited {
		return errors.New("a wait without an end")
	}
	s.served = revision
	return nil
}

// registry stands in for the service registry: "several" is offered twice, the others by the app "owner".
type registry struct{}

func (registry) Offers(_, serName string) []book.Offer {
	switch serName {
	case "none":
		return nil
	case "several":
		return []book.Offer{{Owner: "owner", SerName: serName}, {Owner: "other", SerName: serName}}
	}
	return []book.Offer{{Owner: "owner", SerName: serName}}
}

func (registry) Instance(_, serInstanceID string) (book.Offer, bool) {
	return book.Offer{Owner: "other", SerName: "several"}, serInstanceID == "known"
}

// management is the management API of a gateway, and its listener for apps.
type management struct {
	server *server
	book   *book.Book
	mepm   http.Handler
	apps   http.Handler
	trail  string
}

const maxBody = 1 << 18

func start(t testing.TB) *management {
	t.Helper()
	store := etcdtest.Start(t).Store(t)
	m := &management{trail: filepath.Join(t.TempDir(), "audit.log")}
	mirror := watched.New(watched.Config{Source: store.Source, Prefix: state.Root, Logger: slog.New(slog.DiscardHandler)})
	m.book = book.New(mirror, store, registry{})
	m.server = &server{book: m.book, own: map[string]*gateway.RouteView{
		"platform.mp1":      {ID: "platform.mp1", Kind: gateway.KindPlatform, Source: "platform", Paths: []string{"/mep/**"}},
		"service:telemetry": {ID: "service:telemetry", Kind: gateway.KindService, Source: "registry", Service: "telemetry", Paths: []string{"/services/telemetry/**"}},
		"fixed":             {ID: "fixed", Kind: gateway.KindStatic, Source: "configuration", Paths: []string{"/fixed"}},
	}, policies: map[string]*gateway.PolicyView{"fixed": {Name: "fixed", Source: "configuration"}}}
	ctx, cancel := context.WithCancel(context.Background())
	var done sync.WaitGroup
	done.Go(func() { _ = mirror.Run(ctx) })
	t.Cleanup(func() { cancel(); done.Wait() })
	<-mirror.Ready()
	trail, err := audit.Open(audit.Config{File: m.trail})
	require.NoError(t, err)
	t.Cleanup(func() { _ = trail.Close() })
	api := &rest.API{Book: m.book, Server: m.server, Audit: trail}
	router := func(name string, mount func(gin.IRouter)) http.Handler {
		r := httpx.NewRouter(name, slog.New(slog.DiscardHandler), httpx.NewMetrics(prometheus.NewRegistry()), func() httpx.Limits {
			return httpx.Limits{Body: maxBody}.WithDefaults()
		})
		// A header field names the caller here.
		r.Use(func(c *gin.Context) {
			if caller := c.GetHeader("X-Test-Caller"); caller != "" {
				c.Set(httpx.CallerKey, &identity.Caller{Subject: caller})
			}
		})
		mount(r)
		return r
	}
	m.mepm = router("management", api.Mount)
	m.apps = router("apps", func(r gin.IRouter) {
		api.MountAccess(r, func(c *gin.Context) (string, bool) { return identity.Subject(c), false })
	})
	return m
}

type answer struct {
	status int
	header http.Header
	body   string
}

// ask sends a request; header alternates names and values.
func ask(h http.Handler, method, path, body string, header ...string) answer {
	var r io.Reader
	if body != "" {
		r = strings.NewReader(body)
	}
	req := httptest.NewRequest(method, gateway.Base+path, r)
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	rec := httptest.NewRecorder()
	h.ServeHTTP(rec, req)
	return answer{rec.Code, rec.Header(), rec.Body.String()}
}

func (m *management) ask(method, path, body string, header ...string) answer {
	return ask(m.mepm, method, path, body, header...)
}

// refused checks that an answer is a problem document with the given status, and returns it.
func (x answer) refused(t *testing.T, status int) problem.Details {
	t.Helper()
	require.Equal(t, status, x.status, x.body)
	require.Equal(t, problem.ContentType, x.header.Get("Content-Type"))
	var p problem.Details
	require.NoError(t, json.Unmarshal([]byte(x.body), &p))
	require.Equal(t, status, p.Status)
	return p
}

func (x answer) json(t *testing.T, status int, into any) {
	t.Helper()
	require.Equal(t, status, x.status, x.body)
	require.Equal(t, "application/json", x.header.Get("Content-Type"))
	require.NoError(t, json.Unmarshal([]byte(x.body), into))
}

func (x answer) gone(t *testing.T) {
	t.Helper()
	require.Equal(t, http.StatusNoContent, x.status, x.body)
	require.Empty(t, x.body)
}

// pages reads a list page by page.
func pages[T any](t *testing.T, h http.Handler, path string, header ...string) []T {
	t.Helper()
	var all []T
	for n := 0; path != ""; n++ {
		require.Less(t, n, 50)
		got := ask(h, "GET", path, "", header...)
		var list []T
		got.json(t, 200, &list)
		all = append(all, list...)
		next, _, _ := strings.Cut(strings.TrimPrefix(got.header.Get("Link"), "<"), `>; rel="next"`)
		path = strings.TrimPrefix(next, gateway.Base)
	}
	return all
}

const good = `{"paths":["/team/*"],"service":"members"}`

func TestARouteIsManaged(t *testing.T) {
	m := start(t)
	got := m.ask("PUT", "/routes/team-a", good)
	var view gateway.RouteView
	got.json(t, 201, &view)
	require.Equal(t, "team-a", view.ID)
	require.Equal(t, "members", view.Service)
	require.Equal(t, gateway.Base+"/routes/team-a", got.header.Get("Location"))
	etag := got.header.Get("ETag")
	require.NotEmpty(t, etag)
	require.Equal(t, m.book.Routes.Collection().Snapshot().Revision(), m.server.served)

	got = m.ask("PUT", "/routes/team-a", `{"id":"team-a",`+good[1:])
	got.json(t, 200, &view)
	require.Equal(t, etag, got.header.Get("ETag"), "what changes nothing keeps the entity-tag")
	got = m.ask("PUT", "/routes/team-a", strings.Replace(good, "members", "others", 1), "If-Match", etag)
	got.json(t, 200, &view)
	require.NotEqual(t, etag, got.header.Get("ETag"))
	require.Empty(t, got.header.Get("Location"))
	m.ask("PUT", "/routes/team-a", good, "If-Match", etag).refused(t, 412)
	m.ask("PUT", "/routes/team-b", good, "If-Match", etag).refused(t, 412)
	m.ask("PUT", "/routes/team-b", good, "If-Match", "*").refused(t, 412)
	m.ask("PUT", "/routes/team-a", good, "If-None-Match", "*").refused(t, 412)
	m.ask("DELETE", "/routes/team-a", "", "If-Match", etag).refused(t, 412)

	got = m.ask("GET", "/routes/team-a", "")
	got.json(t, 200, &view)
	require.Equal(t, "others", view.Service)
	m.ask("DELETE", "/routes/team-a", "", "If-Match", got.header.Get("ETag")).gone(t)
	require.Equal(t, m.book.Routes.Collection().Snapshot().Revision(), m.server.served)
	m.ask("GET", "/routes/team-a", "").refused(t, 404)
	m.ask("DELETE", "/routes/team-a", "").refused(t, 404)
	m.ask("PUT", "/routes/team-a", good, "If-None-Match", "*").json(t, 201, &view)
}

func TestWhatTheGatewayRefusesShows(t *testing.T) {
	m := start(t)
	var view gateway.RouteView
	m.ask("PUT", "/routes/a", strings.Replace(good, "members", "refused", 1)).json(t, 201, &view)
	require.Equal(t, "there is no filter of that name", view.Refused)
	m.server.forgetful = true
	m.ask("GET", "/routes/a", "").json(t, 200, &view)
	require.Equal(t, []string{"/team/*"}, view.Paths)
	require.NotEmpty(t, view.Refused)
	var policy gateway.PolicyView
	m.ask("PUT", "/policies/x", `{"concurrent":3}`).json(t, 201, &policy)
	require.Equal(t, 3, policy.Policy.Concurrent)
	require.NotEmpty(t, policy.Refused)
}

func TestRoutesThatAreNotManagedHere(t *testing.T) {
	m := start(t)
	got := m.ask("GET", "/routes/service:telemetry", "")
	var view gateway.RouteView
	got.json(t, 200, &view)
	require.Equal(t, "registry", view.Source)
	require.Empty(t, got.header.Get("ETag"))
	require.Contains(t, m.ask("PUT", "/routes/fixed", good).refused(t, 409).Detail, "is one of the gateway's configuration")
	require.Contains(t, m.ask("PUT", "/policies/fixed", `{}`).refused(t, 409).Detail, "is one of the gateway's configuration")
	m.ask("DELETE", "/routes/fixed", "").refused(t, 404)
	m.ask("PUT", "/routes/platform.mp1", good).refused(t, 400)
	m.ask("PUT", "/routes/service:telemetry", good).refused(t, 400)
	require.Zero(t, m.book.Routes.Collection().Snapshot().Len())
}

func TestPoliciesAreManaged(t *testing.T) {
	m := start(t)
	for path, name := range map[string]string{"/policies/*": "*", "/policies/a%2Fb": "a/b", "/policies/100%25": "100%", "/policies/%C3%BCbung%207": "übung 7", "/policies/platform.auth": "platform.auth"} {
		got := m.ask("PUT", path, `{"maxBody":100,"concurrent":5}`)
		var view gateway.PolicyView
		got.json(t, 201, &view)
		require.Equal(t, name, view.Name)
		require.Equal(t, gateway.Base+path, got.header.Get("Location"))
		etag := got.header.Get("ETag")
		got = m.ask("GET", path, "")
		got.json(t, 200, &view)
		require.Equal(t, name, view.Name)
		require.Equal(t, etag, got.header.Get("ETag"))
		m.ask("PUT", path, `{"concurrent":6}`, "If-Match", `"other"`).refused(t, 412)
		m.ask("PUT", path, `{"concurrent":6}`, "If-Match", etag).json(t, 200, &view)
	}
	m.ask("PUT", "/policies/platform.mp1", `{"authentication":["apiKey"]}`).refused(t, 400)
	var names []string
	for _, p := range pages[gateway.PolicyView](t, m.mepm, "/policies?limit=2") {
		names = append(names, p.Name)
	}
	require.Equal(t, []string{"*", "100%", "a/b", "fixed", "platform.auth", "übung 7"}, names)
	m.ask("DELETE", "/policies/a%2Fb", "").gone(t)
	m.ask("GET", "/policies/a%2Fb", "").refused(t, 404)
	m.ask("DELETE", "/policies/a%2Fb", "").refused(t, 404)
	require.Equal(t, "name", m.ask("PUT", "/policies/a%00", `{}`).refused(t, 400).InvalidParams[0].Name)
	m.ask("PUT", "/policies/"+strings.Repeat("a", 256), `{}`).refused(t, 400)
	m.ask("PUT", "/policies/%FF", `{}`).refused(t, 400)
}

func TestListsOfRoutesHavePagesAndFilters(t *testing.T) {
	m := start(t)
	for _, id := range []string{"a", "b", "c", "z"} {
		m.ask("PUT", "/routes/"+id, good)
	}
	for query, want := range map[string]string{
		"":                             "a b c fixed platform.mp1 service:telemetry z",
		"?limit=1":                     "a b c fixed platform.mp1 service:telemetry z",
		"?limit=3&kind=static":         "a b c fixed z",
		"?limit=7":                     "a b c fixed platform.mp1 service:telemetry z",
		"?source=management&limit=2":   "a b c z",
		"?source=configuration":        "fixed",
		"?service=telemetry":           "service:telemetry",
		"?kind=platform":               "platform.mp1",
		"?kind=platform&source=static": "",
	} {
		if strings.Contains(query, "source=static") {
			m.ask("GET", "/routes"+query, "").refused(t, 400)
			continue
		}
		var ids []string
		for _, r := range pages[gateway.RouteView](t, m.mepm, "/routes"+query) {
			ids = append(ids, r.ID)
		}
		require.Equal(t, want, strings.Join(ids, " "), query)
	}
	require.Equal(t, "[]", m.ask("GET", "/routes?service=none", "").body)
}

func TestAPIKeysAreManaged(t *testing.T) {
	m := start(t)
	got := m.ask("POST", "/api_keys", `{"consumer":"0B8CE5B4-4F5C-4A3A-9D0E-5A2F2C2F3F10","description":"nightly","lifetime":"1h"}`)
	var key gateway.APIKey
	got.json(t, 201, &key)
	require.Equal(t, "no-store", got.header.Get("Cache-Control"))
	require.Equal(t, gateway.Base+"/api_keys/"+key.ID, got.header.Get("Location"))
	require.Equal(t, "0b8ce5b4-4f5c-4a3a-9d0e-5a2f2c2f3f10", key.Consumer)
	require.Equal(t, time.Hour, key.Expires.Sub(key.Created))
	known, err := m.book.Keys.Authenticate(key.Key)
	require.NoError(t, err)
	require.Equal(t, key.ID, known.Info.ID)

	for _, path := range []string{"/api_keys/" + key.ID, "/api_keys", "/api_keys?consumer=" + strings.ToUpper(key.Consumer)} {
		body := m.ask("GET", path, "").body
		require.Contains(t, body, key.ID, path)
		require.NotContains(t, body, "mepk_", path)
		require.NotContains(t, body, "hash", path)
	}
	for range 15 {
		m.ask("POST", "/api_keys", `{"consumer":"`+key.Consumer+`"}`).json(t, 201, &gateway.APIKey{})
	}
	m.ask("POST", "/api_keys", `{"consumer":"`+key.Consumer+`"}`).refused(t, 403)
	m.ask("POST", "/api_keys", `{"consumer":"other"}`).json(t, 201, &gateway.APIKey{})
	require.Len(t, pages[gateway.APIKey](t, m.mepm, "/api_keys?limit=3"), 17)
	require.Len(t, pages[gateway.APIKey](t, m.mepm, "/api_keys?limit=3&consumer="+key.Consumer), 16)
	require.Equal(t, "[]", m.ask("GET", "/api_keys?consumer=nobody", "").body)

	m.ask("DELETE", "/api_keys/"+key.ID, "").gone(t)
	m.ask("GET", "/api_keys/"+key.ID, "").refused(t, 404)
	m.ask("DELETE", "/api_keys/"+key.ID, "").refused(t, 404)
	require.ErrorIs(t, func() error { _, err := m.book.Keys.Authenticate(key.Key); return err }(), errs.Unauthenticated)
}

func TestAChangeIsAnsweredWhenItIsServed(t *testing.T) {
	m := start(t)
	m.server.behind = true
	got := m.ask("PUT", "/routes/a", good)
	require.Contains(t, got.refused(t, 503).Detail, "the change is stored, but the gateway does not work by it yet")
	require.Equal(t, "1", got.header.Get("Retry-After"))
	m.ask("PUT", "/policies/a", `{}`).refused(t, 503)
	m.ask("DELETE", "/routes/a", "").refused(t, 503)
	m.ask("DELETE", "/policies/a", "").refused(t, 503)
	m.server.behind = false
	m.ask("DELETE", "/routes/a", "").refused(t, 404)
}

func TestChangesAreInTheAuditStream(t *testing.T) {
	m := start(t)
	m.ask("PUT", "/routes/a", good, "X-Test-Caller", "mepm")
	m.ask("PUT", "/routes/b", strings.Replace(good, "members", "refused", 1))
	m.ask("DELETE", "/routes/none", "")
	m.ask("PUT", "/policies/x", `{}`)
	m.ask("DELETE", "/policies/x", "")
	var key gateway.APIKey
	m.ask("POST", "/api_keys", `{"consumer":"c"}`).json(t, 201, &key)
	m.ask("DELETE", "/api_keys/"+key.ID, "")
	var r gateway.AccessRequest
	ask(m.apps, "POST", "/access_requests", `{"serName":"s"}`, "X-Test-Caller", "c").json(t, 201, &r)
	ask(m.apps, "PUT", "/access_requests/"+r.ID, `{"state":"GRANTED"}`, "X-Test-Caller", "owner").json(t, 200, &r)
	ask(m.apps, "DELETE", "/access_requests/"+r.ID, "", "X-Test-Caller", "c").gone(t)
	text, err := os.ReadFile(m.trail)
	require.NoError(t, err)
	require.NotContains(t, string(text), key.Key[22:], "no secret")
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	require.Len(t, lines, 10)
	for i, want := range []string{
		`"action":"gateway.route.put","result":"success","caller":"mepm"|"target":"a"`,
		`"action":"gateway.route.put"|"target":"b"|"detail":"stored, and not used: there is no filter of that name"`,
		`"action":"gateway.route.delete","result":"failed"|"target":"none"|"detail":"Not found"`,
		`"action":"gateway.policy.put"|"target":"x"`,
		`"action":"gateway.policy.delete"|"target":"x"`,
		`"action":"gateway.api_key.create"|"detail":"` + key.ID + ` for c"`,
		`"action":"gateway.api_key.delete"|"target":"` + key.ID + `"|"detail":"of c"`,
		`"action":"gateway.access.apply","result":"success","caller":"c"|"detail":"` + r.ID + `: c for \"s\" of owner"`,
		`"action":"gateway.access.decide","result":"success","caller":"owner"|"target":"` + r.ID + `"|"detail":"GRANTED: c for \"s\" of owner"`,
		`"action":"gateway.access.delete","result":"success","caller":"c"|"detail":"c for \"s\" of owner"`,
	} {
		for part := range strings.SplitSeq(want, "|") {
			require.Contains(t, lines[i], part)
		}
	}
}
