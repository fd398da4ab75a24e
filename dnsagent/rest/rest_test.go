package rest_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/api/dns"
	"github.com/openmep/mep/api/problem"
	"github.com/openmep/mep/api/state"
	"github.com/openmep/mep/dnsagent/records"
	"github.com/openmep/mep/dnsagent/rest"
	"github.com/openmep/mep/dnsagent/table"
	"github.com/openmep/mep/kit/audit"
	"github.com/openmep/mep/kit/errs"
	"github.com/openmep/mep/kit/etcdtest"
	"github.com/openmep/mep/kit/httpx"
	"github.com/openmep/mep/kit/watched"
)

// server is a fake DNS server that records its calls.
type server struct {
	zones     []dns.Zone
	upstreams []dns.Upstream
	served    int64
	behind    bool
	flushed   []any
	traced    dns.TraceRequest
	why       string // records are not answered
}

func (s *server) Zones() []dns.Zone         { return s.zones }
func (s *server) Upstreams() []dns.Upstream { return s.upstreams }

func (s *server) Unanswered(*dns.Record) string { return s.why }

func (s *server) Flush(name string, below bool) (int, error) {
	s.flushed = []any{name, below}
	if name == "fails." {
		return 0, errors.New("no cache")
	}
	return 3, nil
}

func (s *server) Trace(_ context.Context, req dns.TraceRequest) (*dns.Trace, error) {
	s.traced = req
	if req.Name == "refused." {
		return nil, errs.New(errs.Invalid, "that cannot be asked")
	}
	return &dns.Trace{
		Name: req.Name, Type: req.Type, Client: req.Client, Source: dns.SourceTable, RCode: "NOERROR", Steps: []string{"found"},
		Records: []dns.TraceRecord{{Record: "a.example.\t30\tIN\tA\t192.0.2.1", Origin: "record"}},
	}, nil
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

// agent is the management API of a DNS server.
type agent struct {
	server  *server
	book    *records.Book
	mirror  *watched.Mirror
	handler http.Handler
	trail   string
}

const maxBody = 1 << 20

func start(t testing.TB) *agent {
	t.Helper()
	store := etcdtest.Start(t).Store(t)
	a := &agent{server: &server{}, trail: filepath.Join(t.TempDir(), "audit.log")}
	a.mirror = watched.New(watched.Config{Source: store.Source, Prefix: state.Root, Logger: slog.New(slog.DiscardHandler)})
	a.book = records.New(a.mirror, store, func() records.Policy { return records.Policy{MaxRecords: 500, Views: []string{"ue"}} })
	ctx, cancel := context.WithCancel(context.Background())
	var done sync.WaitGroup
	done.Go(func() { _ = a.mirror.Run(ctx) })
	t.Cleanup(func() { cancel(); done.Wait() })
	<-a.mirror.Ready()
	trail, err := audit.Open(audit.Config{File: a.trail})
	require.NoError(t, err)
	t.Cleanup(func() { _ = trail.Close() })
	router := httpx.NewRouter("dns", slog.New(slog.DiscardHandler), httpx.NewMetrics(prometheus.NewRegistry()), func() httpx.Limits {
		return httpx.Limits{Body: maxBody}.WithDefaults()
	})
	(&rest.API{Book: a.book, Server: a.server, Audit: trail}).Mount(router)
	a.handler = router
	return a
}

type answer struct {
	status int
	header http.Header
	body   string
}

// ask sends a request; header holds names and values in turn.
func (a *agent) ask(method, path, body string, header ...string) answer {
	var r io.Reader
	if body != "" {
		r = strings.NewReader(body)
	}
	req := httptest.NewRequest(method, path, r)
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	rec := httptest.NewRecorder()
	a.handler.ServeHTTP(rec, req)
	return answer{rec.Code, rec.Header(), rec.Body.String()}
}

func (a *agent) rrecord(method, rest, body string, header ...string) answer {
	return a.ask(method, dns.Base+"/rrecord"+rest, body, header...)
}

// refused checks that an answer is a problem document with status, and returns the document.
func (x answer) refused(t *testing.T, status int) problem.Details {
	t.Helper()
	require.Equal(t, status, x.status, x.body)
	require.Equal(t, problem.ContentType, x.header.Get("Content-Type"))
	var p problem.Details
	require.NoError(t, json.Unmarshal([]byte(x.body), &p))
	require.Equal(t, status, p.Status)
	return p
}

func (x answer) text(t *testing.T) {
	t.Helper()
	require.Equal(t, http.StatusOK, x.status, x.body)
	require.True(t, strings.HasPrefix(x.header.Get("Content-Type"), "text/plain"))
}

func (x answer) json(t *testing.T, into any) {
	t.Helper()
	require.Equal(t, http.StatusOK, x.status, x.body)
	require.Equal(t, "application/json", x.header.Get("Content-Type"))
	require.NoError(t, json.Unmarshal([]byte(x.body), into))
}

// The requests of EdgeGallery's mepserver, as it sends them.
func TestRequestsOfEdgeGallery(t *testing.T) {
	a := start(t)
	const body = `{"name":"www.example.com.","type":"A","class":"IN","ttl":30,"rData":["192.0.2.1"]}`
	const changed = `{"name":"www.example.com.","type":"A","class":"IN","ttl":60,"rData":["192.0.2.2"]}`
	type step struct {
		method, path, body string
		status, before     int // before: what EdgeGallery answers
	}
	for _, x := range []step{
		{"PUT", "/rrecord/www.example.com./A?zone=.", changed, 404, 400},
		{"POST", "/rrecord?zone=.", body, 200, 200},
		{"POST", "/rrecord?zone=.", body, 409, 400},
		{"POST", "/rrecord", body, 409, 400},
		{"PUT", "/rrecord/www.example.com./A?zone=.", changed, 200, 200},
		{"PUT", "/rrecord/www.example.com/A?zone=.", changed, 200, 200},
		{"PUT", "/rrecord/www.example.com./A", changed, 200, 200},
		{"PUT", "/rrecord/www.example.com./AAAA?zone=.", changed, 400, 400},
		{"PUT", "/rrecord/other.example.com./A?zone=.", changed, 400, 400},
		{"PUT", "/rrecord/www.example.com./MX?zone=.", changed, 400, 400},
		{"POST", "/rrecord", strings.Replace(body, `"A"`, `"MX"`, 1), 400, 500},
		{"POST", "/rrecord", strings.Replace(body, `"IN"`, `"CH"`, 1), 400, 200},
		{"POST", "/rrecord", strings.Replace(body, `"IN"`, `"*"`, 1), 400, 400},
		{"POST", "/rrecord", strings.Replace(body, `30`, `0`, 1), 400, 400},
		{"POST", "/rrecord", strings.Replace(body, `"192.0.2.1"`, `"224.0.0.1"`, 1), 400, 400},
		{"POST", "/rrecord", strings.Replace(body, `"192.0.2.1"`, ``, 1), 400, 400},
		{"POST", "/rrecord", "{", 400, 400},
		{"DELETE", "/rrecord/www.example.com./A?zone=.", "", 200, 200},
		{"DELETE", "/rrecord/www.example.com./A?zone=.", "", 404, 500},
	} {
		got := a.ask(x.method, dns.Base+x.path, x.body, "Content-Type", "application/json")
		if x.status == 200 {
			got.text(t)
			continue
		}
		got.refused(t, x.status)
	}
}

func TestARecordIsReadAsItIsStored(t *testing.T) {
	a := start(t)
	a.rrecord("POST", "?zone=Example", `{"name":"WWW.example","type":"AAAA","ttl":30,"rData":["2001:DB8::1"]}`).text(t)
	got := a.rrecord("GET", "/WWW.EXAMPLE/AAAA", "")
	require.JSONEq(t, `{"name":"www.example.","type":"AAAA","ttl":30,"rData":["2001:db8::1"],"zone":"example."}`, got.body)
	tag := got.header.Get("ETag")
	require.NotEmpty(t, tag)
	require.Equal(t, 304, a.rrecord("GET", "/www.example./AAAA", "", "If-None-Match", tag).status)

	body := `{"name":"www.example","type":"AAAA","ttl":30,"rData":["2001:db8::2"],"zone":"example"}`
	a.rrecord("PUT", "/www.example./AAAA", body, "If-Match", `"x"`).refused(t, 412)
	put := a.rrecord("PUT", "/www.example./AAAA", body, "If-Match", tag)
	put.text(t)
	require.NotEqual(t, tag, put.header.Get("ETag"))
	again := a.rrecord("PUT", "/www.example./AAAA", body)
	again.text(t)
	require.Equal(t, put.header.Get("ETag"), again.header.Get("ETag"), "nothing has changed")
	require.Equal(t, put.header.Get("ETag"), a.rrecord("GET", "/www.example./AAAA", "").header.Get("ETag"))

	p := a.rrecord("DELETE", "/www.example./AAAA?zone=.", "").refused(t, 404)
	require.Contains(t, p.Detail, "is in the zone example., not in .")
	a.rrecord("DELETE", "/www.example./AAAA", "", "If-Match", tag).refused(t, 412)
	a.rrecord("DELETE", "/www.example./AAAA?zone=EXAMPLE.", "", "If-Match", put.header.Get("ETag")).text(t)
	a.rrecord("GET", "/www.example./AAAA", "").refused(t, 404)
}

func TestWhyARecordIsNotServedIsTold(t *testing.T) {
	a := start(t)
	const body = `{"name":"h.example","type":"CNAME","ttl":30,"rData":["g.example"],"notServed":"what is given does not count"}`
	a.rrecord("POST", "", body).text(t)
	var rec dns.Record
	a.rrecord("GET", "/h.example/CNAME", "").json(t, &rec)
	require.Empty(t, rec.NotServed)
	served := a.rrecord("GET", "/h.example/CNAME", "").header.Get("ETag")

	a.server.why = "there is a rule"
	a.rrecord("GET", "/h.example/CNAME", "").json(t, &rec)
	require.Equal(t, "there is a rule", rec.NotServed)
	var list []dns.Record
	a.rrecord("GET", "", "").json(t, &list)
	require.Equal(t, []dns.Record{rec}, list)
	require.Equal(t, 200, a.rrecord("GET", "/h.example/CNAME", "", "If-None-Match", served).status, "it is told of otherwise")
	unserved := a.rrecord("GET", "/h.example/CNAME", "").header.Get("ETag")
	require.Equal(t, 304, a.rrecord("GET", "/h.example/CNAME", "", "If-None-Match", unserved).status)

	a.server.why = ""
	a.rrecord("PUT", "/h.example/CNAME", body, "If-Match", unserved).text(t)
	a.rrecord("DELETE", "/h.example/CNAME", "", "If-Match", `"x"`).refused(t, 412)
	a.rrecord("DELETE", "/h.example/CNAME", "", "If-Match", unserved).text(t)
}

func TestRecordsOfAView(t *testing.T) {
	a := start(t)
	a.rrecord("POST", "", `{"name":"h.example","type":"A","ttl":30,"rData":["192.0.2.1"]}`).text(t)
	a.rrecord("POST", "?view=ue", `{"name":"h.example","type":"A","ttl":30,"rData":["192.0.2.2"]}`).text(t)
	a.rrecord("PUT", "/h.example/A", `{"name":"h.example","type":"A","ttl":30,"rData":["192.0.2.3"],"view":"ue"}`).text(t)
	a.rrecord("PUT", "/h.example/A?view=", `{"name":"h.example","type":"A","ttl":30,"rData":["192.0.2.3"],"view":"ue"}`).refused(t, 400)
	var rec dns.Record
	a.rrecord("GET", "/h.example/A", "").json(t, &rec)
	require.Equal(t, []string{"192.0.2.1"}, rec.RData)
	a.rrecord("GET", "/h.example/A?view=ue", "").json(t, &rec)
	require.Equal(t, []string{"192.0.2.3"}, rec.RData)
	var list []dns.Record
	a.rrecord("GET", "?view=", "").json(t, &list)
	require.Len(t, list, 1)
	a.rrecord("GET", "?view=ue", "").json(t, &list)
	require.Equal(t, "ue", list[0].View)
	a.rrecord("DELETE", "/h.example/A?view=ue", "").text(t)
	a.rrecord("GET", "/h.example/A?view=ue", "").refused(t, 404)
	a.rrecord("GET", "/h.example/A", "").json(t, &rec)
}

func TestSeveralRecordsAtOnce(t *testing.T) {
	a := start(t)
	const one = `{"name":"a.example","type":"A","ttl":30,"rData":["192.0.2.1"]}`
	const two = `{"name":"a.example","type":"AAAA","ttl":30,"rData":["2001:db8::1"]}`
	got := a.rrecord("POST", "?zone=example", " \n["+one+","+two+"]")
	got.text(t)
	require.Equal(t, "created: 2\n", got.body)
	var rec dns.Record
	a.rrecord("GET", "/a.example/AAAA", "").json(t, &rec)
	require.Equal(t, "example.", rec.Zone)

	many := func(n int) string {
		list := make([]dns.Record, n)
		for i := range list {
			list[i] = dns.Record{Name: "h" + strings.Repeat("x", i%50) + ".z" + string(rune('a'+i/50)) + ".example", Type: "A", TTL: 1, RData: []string{"192.0.2.1"}}
		}
		b, err := json.Marshal(list)
		require.NoError(t, err)
		return string(b)
	}
	for name, x := range map[string]struct {
		body   string
		status int
		want   []string
	}{
		"one exists":      {"[" + one + "]", 409, nil},
		"none":            {"[]", 400, nil},
		"too many":        {many(dns.MaxBatch + 1), 400, nil},
		"no JSON":         {"[" + one + ",", 400, nil},
		"something after": {"[" + one + "] []", 400, nil},
		"faults of each":  {"[" + one + `,{"name":"-","type":"A","ttl":"x","rData":["192.0.2.1"]},3,null,{"name":"b.example","type":"A","ttl":1,"rData":["?"],"zone":"c"}]`, 400, []string{"[1].ttl", "[1].name", "[2]", "[3]", "[4].zone", "[4].rData[0]"}},
		"member twice":    {`[{"name":"a","name":"b"}]`, 400, []string{"[0]"}},
		"beside itself":   {"[" + strings.Replace(strings.Replace(one, "a.ex", "b.ex", 1), `"A"`, `"TXT"`, 1) + "," + strings.ReplaceAll(strings.ReplaceAll(one, "a.ex", "b.ex"), `"A","ttl":30,"rData":["192.0.2.1"]`, `"CNAME","ttl":30,"rData":["c."]`) + "]", 409, nil},
	} {
		t.Run(name, func(t *testing.T) {
			p := a.rrecord("POST", "", x.body).refused(t, x.status)
			var names []string
			for _, f := range p.InvalidParams {
				names = append(names, f.Name)
			}
			require.Equal(t, x.want, names, "%v", p.InvalidParams)
		})
	}
	a.rrecord("POST", "", many(dns.MaxBatch)).text(t)
	require.Equal(t, dns.MaxBatch+2, a.book.Collection().Snapshot().Len())
}

func TestBodiesThatAreRefused(t *testing.T) {
	a := start(t)
	const body = `{"name":"a.example","type":"A","ttl":30,"rData":["192.0.2.1"],"zone":"example"}`
	for name, x := range map[string]struct {
		query, contentType, body string
		status                   int
		detail                   string
	}{
		"nothing":             {"", "", "", 400, "the body is empty"},
		"a number":            {"", "", "1", 400, "an object is needed"},
		"form":                {"", "application/x-www-form-urlencoded", body, 415, "send application/json"},
		"form of several":     {"", "text/plain", "[" + body + "]", 415, "send application/json"},
		"too large":           {"", "", `{"name":"` + strings.Repeat("a", maxBody) + `"}`, 413, "larger than"},
		"zone of the query":   {"?zone=a.example", "", body, 400, "zone must be that of the query, a.example., or absent"},
		"view of the query":   {"?view=ue", "", strings.Replace(body, `"ttl"`, `"view":"x","ttl"`, 1), 400, `view must be that of the query, "ue", or absent`},
		"unknown view":        {"?view=other", "", body, 400, "view must be a view of the DNS server's configuration: there is ue"},
		"zone that is none":   {"?zone=a..b", "", body, 400, `zone must be a domain name or "."`},
		"view that is none":   {"?view=%20", "", body, 400, "view must be the name of a view"},
		"unknown parameter":   {"?zones=.", "", body, 400, "zones is not a query parameter of this resource: there is zone, view"},
		"parameter twice":     {"?zone=.&zone=.", "", body, 400, "zone must be given once"},
		"malformed query":     {"?zone=%zz", "", body, 400, "the query is malformed"},
		"wrong type of value": {"", "", strings.Replace(body, "30", "-1", 1), 400, "ttl must be a whole number"},
	} {
		t.Run(name, func(t *testing.T) {
			p := a.rrecord("POST", x.query, x.body, "Content-Type", x.contentType).refused(t, x.status)
			require.Contains(t, p.Detail, x.detail)
		})
	}
	require.Zero(t, a.book.Collection().Snapshot().Len())
}

func TestListsHavePages(t *testing.T) {
	a := start(t)
	for i := range 5 {
		a.rrecord("POST", "", `{"name":"h`+string(rune('0'+i))+`.example","type":"A","ttl":30,"rData":["192.0.2.1"]}`).text(t)
	}
	var names []string
	next := dns.Base + "/rrecord?limit=2&below=Example&type=A"
	for pages := 0; next != ""; pages++ {
		require.Less(t, pages, 3)
		got := a.ask("GET", next, "")
		var list []dns.Record
		got.json(t, &list)
		for _, rec := range list {
			names = append(names, rec.Name)
		}
		next, _, _ = strings.Cut(strings.TrimPrefix(got.header.Get("Link"), "<"), `>; rel="next"`)
	}
	require.Equal(t, []string{"h0.example.", "h1.example.", "h2.example.", "h3.example.", "h4.example."}, names)
	require.Equal(t, "[]", a.rrecord("GET", "?name=x.example", "").body)
	var one []dns.Record
	a.rrecord("GET", "?name=H3.example.&zone=.", "").json(t, &one)
	require.Len(t, one, 1)
	for _, query := range []string{
		"?limit=0", "?limit=1001", "?limit=x", "?type=a", "?after=%25", "?type=MX", "?name=", "?name=a..b", "?below=*.example", "?zone=*", "?view=/", "?page=2",
	} {
		a.rrecord("GET", query, "").refused(t, 400)
	}
}

func TestRecordsAreRemovedByAFilter(t *testing.T) {
	a := start(t)
	for _, name := range []string{"a.example", "b.a.example", "c.example", "other"} {
		a.rrecord("POST", "", `[{"name":"`+name+`","type":"A","ttl":30,"rData":["192.0.2.1"]},{"name":"`+name+`","type":"TXT","ttl":30,"rData":["x"]}]`).text(t)
	}
	for _, query := range []string{"", "?type=A", "?view=ue", "?name=", "?limit=2&name=a.example", "?below=a..b"} {
		a.rrecord("DELETE", query, "").refused(t, 400)
	}
	require.Equal(t, 8, a.book.Collection().Snapshot().Len())
	for _, x := range []struct {
		query string
		gone  int
	}{
		{"?name=a.example&type=TXT", 1},
		{"?below=a.example", 3},
		{"?below=a.example", 0},
		{"?zone=example", 0},
		{"?below=.&type=TXT", 2},
		{"?zone=.", 2},
	} {
		var got dns.Deleted
		a.rrecord("DELETE", x.query, "").json(t, &got)
		require.Equal(t, x.gone, got.Records, x.query)
	}
	require.Zero(t, a.book.Collection().Snapshot().Len())
}

func TestAChangeIsAnsweredWhenItIsServed(t *testing.T) {
	a := start(t)
	const body = `{"name":"a.example","type":"A","ttl":30,"rData":["192.0.2.1"]}`
	a.rrecord("POST", "", body).text(t)
	require.Equal(t, a.book.Collection().Snapshot().Revision(), a.server.served)
	a.rrecord("PUT", "/a.example/A", strings.Replace(body, "30", "31", 1)).text(t)
	require.Equal(t, a.book.Collection().Snapshot().Revision(), a.server.served)
	a.rrecord("DELETE", "/a.example/A", "").text(t)
	require.Equal(t, a.book.Collection().Snapshot().Revision(), a.server.served)

	a.server.behind = true
	got := a.rrecord("POST", "", body)
	require.Contains(t, got.refused(t, 503).Detail, "the change is stored, but the DNS server does not answer from it yet")
	require.Equal(t, "1", got.header.Get("Retry-After"))
	require.Equal(t, 200, a.rrecord("GET", "/a.example/A", "").status)
	a.rrecord("PUT", "/a.example/A", body).refused(t, 503)
	a.rrecord("DELETE", "?zone=.", "").refused(t, 503)
	var none dns.Deleted
	a.rrecord("DELETE", "?zone=.", "").json(t, &none)
	require.Zero(t, none.Records, "there is nothing to wait for")
}

func TestChangesAreInTheAuditStream(t *testing.T) {
	a := start(t)
	const body = `{"name":"a.example","type":"A","ttl":30,"rData":["192.0.2.1"]}`
	a.rrecord("POST", "?view=ue", body).text(t)
	a.rrecord("POST", "?view=ue", body).refused(t, 409)
	a.rrecord("PUT", "/a.example/A?view=ue", body).text(t)
	a.rrecord("DELETE", "/a.example/A?view=ue", "").text(t)
	a.rrecord("DELETE", "?below=example", "")
	a.ask("POST", dns.Base+"/cache/flush?below=example", "")
	text, err := os.ReadFile(a.trail)
	require.NoError(t, err)
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	require.Len(t, lines, 6)
	for i, want := range []string{
		`"action":"dns.record.create","result":"success",|"detail":"a.example A of the view ue"`,
		`"action":"dns.record.create","result":"failed",|"detail":"Conflict"`,
		`"action":"dns.record.replace","result":"success",|"target":"a.example",|"detail":"A of the view ue"`,
		`"action":"dns.record.delete","result":"success",|"target":"a.example",|"detail":"A of the view ue"`,
		`"action":"dns.record.delete","result":"success",|"detail":"below=example: 0 records"`,
		`"action":"dns.cache.flush","result":"success",|"detail":"below example.: 3 entries"`,
	} {
		for part := range strings.SplitSeq(want, "|") {
			require.Contains(t, lines[i], part)
		}
	}
}

// FuzzBody checks that no body upsets the management API, and that accepted records can be read back.
func FuzzBody(f *testing.F) {
	f.Add(`{"name":"www.example","type":"A","ttl":30,"rData":["192.0.2.1"]}`)
	f.Add(`[{"name":"*.example.","type":"SRV","class":"IN","ttl":1,"rData":["1 2 3 a.example"],"zone":"example"}, null]`)
	f.Add(`[[]]`)
	a := start(f)
	f.Fuzz(func(t *testing.T, body string) {
		got := a.rrecord("POST", "", body)
		if got.status != http.StatusOK {
			require.Contains(t, []int{400, 409}, got.status, got.body)
			return
		}
		var list []dns.Record
		a.rrecord("GET", "", "").json(t, &list)
		require.NotEmpty(t, list)
		for _, rec := range list {
			_, err := records.Wire(&rec, table.Everyone)
			require.NoError(t, err)
			a.rrecord("DELETE", "/"+rec.Name+"/"+rec.Type, "").text(t)
		}
	})
}
