package blackbox

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"

	rr "github.com/miekg/dns"
	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/tests/harness"
)

const (
	dnsRoot = "/mep/dns_server_mgmt/v1"
	rrecord = dnsRoot + "/rrecord"
)

// record is a record of the DNS management.
func record(name, rrtype string, values ...any) object {
	return object{"name": name, "type": rrtype, "ttl": 60, "rData": values}
}

// recordPath is where a record is.
func recordPath(name, rrtype string) string { return rrecord + "/" + name + "/" + rrtype }

func TestADNSRecordLivesFromItsCreationToItsRemoval(t *testing.T) {
	t.Parallel()
	p := harness.Start(t, owning())
	c, d := p.DNSManagement(t), p.DNS(t)
	for _, x := range []struct {
		rrtype        string
		given, stored []any
		answer        []string
	}{
		{"A", []any{"192.0.2.1", "192.0.2.2"}, []any{"192.0.2.1", "192.0.2.2"}, []string{"A 192.0.2.1", "A 192.0.2.2"}},
		{"AAAA", []any{"2001:DB8:0:0::1"}, []any{"2001:db8::1"}, []string{"AAAA 2001:db8::1"}},
		{"CNAME", []any{"Target.Example"}, []any{"target.example."}, []string{"CNAME target.example."}},
		{"SRV", []any{"1 2 443 Target.Example", "010 0 80 ."}, []any{"1 2 443 target.example.", "10 0 80 ."}, []string{"SRV 1 2 443 target.example.", "SRV 10 0 80 ."}},
		{"TXT", []any{"a b", "ü\\\"", ""}, []any{"a b", "ü\\\"", ""}, []string{`TXT "\195\188\\\""`, `TXT "a b"`, `TXT ""`}},
		{"PTR", []any{"Target.Example"}, []any{"target.example."}, []string{"PTR target.example."}},
	} {
		t.Run(x.rrtype, func(t *testing.T) {
			name := strings.ToLower(x.rrtype) + ".records.mec.example"
			c, d := p.DNSManagement(t), d.For(t)
			c.Get(recordPath(name, x.rrtype)).Problem(404)
			require.Equal(t, "created: 1\n", string(c.Post(rrecord, record(strings.ToUpper(name), x.rrtype, x.given...)).Is(200).Body))
			stored := object{"name": name + ".", "type": x.rrtype, "ttl": 60, "rData": x.stored, "zone": "."}
			answer := c.Get(recordPath(name, x.rrtype)).Is(200)
			same(t, stored, answer.Object())
			same(t, stored, c.Get(recordPath(strings.ToUpper(name)+".", x.rrtype)).Object())
			d.Ask(name, x.rrtype).Holds("NOERROR", x.answer...).Local()
			c.Get(recordPath(name, x.rrtype), harness.Header("If-None-Match", answer.ETag())).Is(304)

			conflict := c.Post(rrecord, record(name, x.rrtype, x.given...)).Problem(409)
			require.Contains(t, conflict.Detail, "exists already")
			same := c.Put(recordPath(name, x.rrtype), record(name, x.rrtype, x.given...)).Is(200)
			require.Equal(t, answer.ETag(), same.ETag(), "what changes nothing changes nothing")
			changed := c.Put(recordPath(name, x.rrtype), but(record(name, x.rrtype, x.given[0]), "ttl", 61, "zone", "mec.example"), harness.Header("If-Match", same.ETag())).Is(200)
			require.NotEqual(t, same.ETag(), changed.ETag())
			require.Equal(t, "replaced\n", string(changed.Body))
			c.Put(recordPath(name, x.rrtype), record(name, x.rrtype, x.given...), harness.Header("If-Match", same.ETag())).Problem(412)
			c.Delete(recordPath(name, x.rrtype), harness.Header("If-Match", same.ETag())).Problem(412)
			require.Len(t, d.Ask(name, x.rrtype).Answer, 1)
			require.EqualValues(t, 61, d.Ask(name, x.rrtype).Answer[0].Header().Ttl)

			c.Delete(recordPath(name, x.rrtype) + "?zone=other.example").Problem(404)
			require.Equal(t, "deleted\n", string(c.Delete(recordPath(name, x.rrtype)+"?zone=MEC.example").Is(200).Body))
			d.Ask(name, x.rrtype).Is("NXDOMAIN")
			c.Delete(recordPath(name, x.rrtype)).Problem(404)
			c.Put(recordPath(name, x.rrtype), record(name, x.rrtype, x.given...)).Problem(404)
		})
	}
	require.Equal(t, "[]", strings.TrimSpace(string(c.Get(rrecord).Is(200).Body)))
	c.Post(rrecord, record("kept.mec.example", "A", "192.0.2.1")).Is(200)
	p.Kill()
	p.Restart()
	p.DNS(t).Ask("kept.mec.example", "A").Holds("NOERROR", "A 192.0.2.1")
	require.Len(t, c.Get(rrecord).Is(200).Array(), 1)
}

// Whoever has the answer 200 may ask at once.
func TestAChangeOfADNSRecordIsAnsweredByWhenItIsAnswered(t *testing.T) {
	t.Parallel()
	p := harness.Start(t, owning())
	c, d := p.UncheckedDNSManagement(t), p.DNS(t)
	s, err := d.Session()
	require.NoError(t, err)
	defer s.Close()
	ask := func(name string) *harness.Reply {
		t.Helper()
		reply, err := s.Try(harness.Question(name, "A"), harness.Patience)
		require.NoError(t, err)
		return reply
	}
	var busy sync.WaitGroup
	stop := make(chan struct{})
	busy.Go(func() { // others change things meanwhile
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			if _, err := c.Try("POST", rrecord, record(fmt.Sprintf("busy%d.mec.example", i), "A", "192.0.2.9")); err != nil {
				t.Error(err)
				return
			}
		}
	})
	for i := range 100 { // three times each
		name, address := fmt.Sprintf("n%d.mec.example", i%5), fmt.Sprintf("192.0.2.%d", i+1)
		c.Post(rrecord, record(name, "A", address)).Is(200)
		ask(name).Is("NOERROR", at(name, 60, "A", address))
		c.Put(recordPath(name, "A"), but(record(name, "A", address), "ttl", 5)).Is(200)
		ask(name).Is("NOERROR", at(name, 5, "A", address))
		if i%2 == 0 {
			c.Delete(recordPath(name, "A")).Is(200)
		} else {
			c.Delete(rrecord + "?name=" + name).Is(200)
		}
		ask(name).Is("NXDOMAIN")
	}
	close(stop)
	busy.Wait()
}

func TestSeveralDNSRecordsAreCreatedTogetherOrNotAtAll(t *testing.T) {
	t.Parallel()
	p := harness.Start(t, owning(), harness.Args("--dns-max-records=150"))
	c, d := p.DNSManagement(t), p.DNS(t)
	c.Post(rrecord, record("taken.mec.example", "A", "192.0.2.1")).Is(200)
	c.Post(rrecord, record("alias.mec.example", "CNAME", "www.mec.example")).Is(200)
	batch := func(records ...object) []object {
		return append([]object{record("one.mec.example", "A", "192.0.2.2"), record("one.mec.example", "TXT", "one")}, records...)
	}
	hundred := []object{}
	for i := range 99 {
		hundred = append(hundred, record(fmt.Sprintf("h%d.h.mec.example", i), "A", "192.0.2.3"))
	}
	for name, x := range map[string]struct {
		records []object
		status  int
		about   string
	}{
		"one that exists":               {batch(record("TAKEN.mec.example.", "A", "192.0.2.3")), 409, "taken.mec.example. A exists already"},
		"one beside an alias":           {batch(record("alias.mec.example", "TXT", "x")), 409, "CNAME"},
		"an alias beside one":           {batch(record("taken.mec.example", "CNAME", "x.example")), 409, "CNAME"},
		"an alias and another":          {batch(record("new.mec.example", "CNAME", "x.example"), record("new.mec.example", "A", "192.0.2.3")), 409, "CNAME"},
		"the same twice":                {batch(record("ONE.mec.example", "A", "192.0.2.3")), 409, "more than once"},
		"one that is wrong":             {batch(record("bad.mec.example", "A", "2001:db8::1"), but(record("bad2.mec.example", "A", "192.0.2.3"), "ttl", 0)), 400, "[2].rData[0] [3].ttl"},
		"one of a view there is not":    {batch(but(record("bad.mec.example", "A", "192.0.2.3"), "view", "nobody")), 400, "[2].view"},
		"none":                          {[]object{}, 400, "1 to 100"},
		"too many":                      {append(batch(), hundred...), 400, "1 to 100"},
		"more than there is room for":   {nil, 403, ""},
		"records of the view of no one": {nil, 400, ""},
	} {
		t.Run(name, func(t *testing.T) {
			c, d := p.DNSManagement(t), d.For(t)
			switch name {
			case "more than there is room for":
				c.Post(rrecord, hundred[:98]).Is(200)
				x.records = []object{}
				for i := range 51 {
					x.records = append(x.records, record(fmt.Sprintf("x%d.mec.example", i), "A", "192.0.2.3"))
				}
				defer c.Delete(rrecord + "?below=h.mec.example")
			case "records of the view of no one":
				c.Post(rrecord+"?view=nobody", batch()).Problem(400)
				return
			}
			before := c.Get(rrecord + "?limit=1000").Is(200).Body
			answer := c.Post(rrecord, x.records)
			problem := answer.Problem(x.status)
			text := problem.Detail + " " + strings.Join(problem.Names(), " ")
			require.Contains(t, text, x.about)
			require.Equal(t, string(before), string(c.Get(rrecord+"?limit=1000").Is(200).Body))
			d.Ask("one.mec.example", "A").Is("NXDOMAIN")
		})
	}
	require.Equal(t, "created: 2\n", string(c.Post(rrecord, batch()).Is(200).Body))
	d.Ask("one.mec.example", "A").Holds("NOERROR", "A 192.0.2.2")
	d.Ask("one.mec.example", "TXT").Holds("NOERROR", `TXT "one"`)
	d.Ask("alias.mec.example", "TXT").Is("NXDOMAIN", at("alias.mec.example", 60, "CNAME", "www.mec.example."))
}

func TestDNSRecordsAreFound(t *testing.T) {
	t.Parallel()
	p := harness.Start(t, owning(), harness.Config("dns: {views: [{name: ue, clients: [127.0.60.0/24]}]}\n"))
	c := p.DNSManagement(t)
	var all []object
	for i := range 12 {
		all = append(all, record(fmt.Sprintf("n%02d.a.mec.example", i), "A", "192.0.2.1"), record(fmt.Sprintf("n%02d.b.mec.example", i), "TXT", "x"))
	}
	c.Post(rrecord+"?zone=mec.example", all).Is(200)
	c.Post(rrecord, []object{record("a.mec.example", "AAAA", "2001:db8::1"), record("xa.mec.example", "A", "192.0.2.1")}).Is(200)
	c.Post(rrecord+"?view=ue", record("a.mec.example", "AAAA", "2001:db8::2")).Is(200)
	count := func(query string) int { return len(c.Get(rrecord + "?limit=1000" + query).Is(200).Array()) }
	for query, want := range map[string]int{
		"": 27, "&type=A": 13, "&type=PTR": 0, "&name=N03.A.mec.example": 1, "&below=a.mec.example": 14, "&below=.": 27, "&zone=mec.example.": 24, "&zone=.": 3,
		"&view=ue": 1, "&view=": 26, "&name=a.mec.example.": 2, "&name=a.mec.example&view=": 1, "&below=a.mec.example&type=A": 12, "&name=none.example": 0,
	} {
		require.Equal(t, want, count(query), query)
	}
	// A page after the other has all of them, each once.
	var found []string
	next := rrecord + "?limit=5&below=mec.example"
	for pages := 0; next != ""; pages++ {
		require.Less(t, pages, 10)
		answer := c.Get(next).Is(200)
		for _, o := range answer.Array() {
			found = append(found, fmt.Sprint(o["name"], " ", o["type"], " ", o["view"]))
		}
		next = ""
		if link := answer.Header.Get("Link"); link != "" {
			next, _, _ = strings.Cut(strings.TrimPrefix(link, "<"), ">")
		}
	}
	require.Len(t, found, 27)
	require.Len(t, slices.Compact(slices.Sorted(slices.Values(found))), 27)
	for query, about := range map[string]string{
		"limit=0": "limit", "limit=1001": "limit", "limit=x": "limit", "name=a..b": "name", "below=*.x": "below", "type=MX": "type", "zone=-": "zone", "view=%20": "view",
		"after=%21": "after", "nothing=1": "nothing", "name=a&name=b": "name",
	} {
		require.Contains(t, c.Get(rrecord+"?"+query).Problem(400).Names(), about, query)
	}
	c.Delete(rrecord).Problem(400)
	c.Delete(rrecord + "?type=A").Problem(400)
	require.Equal(t, 27, count(""))
	for _, x := range []struct {
		query   string
		removed int
	}{{"below=b.mec.example", 12}, {"below=mec.example&view=ue", 1}, {"zone=mec.example&type=TXT", 0}, {"name=xa.mec.example&type=AAAA", 0}, {"below=.", 14}} {
		require.EqualValues(t, x.removed, c.Delete(rrecord + "?" + x.query).Is(200).Object()["records"], x.query)
	}
	require.Zero(t, count(""))
	p.DNS(t).Ask("n03.a.mec.example", "A").Is("NXDOMAIN")
}

func TestTheDNSManagementIsForManagersOnly(t *testing.T) {
	t.Parallel()
	p := harness.Start(t, harness.Secure(), owning())
	a, _ := appOf(t, p)
	manager := p.DNSManagement(t)
	manager.Post(rrecord, record("www.mec.example", "A", "192.0.2.1")).Is(200)
	stranger := manager.With("")
	watcher := printed(t, mepCLI(t, p, "credentials", "create", "--scope", "ops", "--name", "watcher"))
	for name, x := range map[string]struct {
		method, path string
		body         any
	}{
		"create": {"POST", rrecord, record("new.mec.example", "A", "192.0.2.1")}, "replace": {"PUT", recordPath("www.mec.example", "A"), record("www.mec.example", "A", "192.0.2.2")},
		"remove": {"DELETE", recordPath("www.mec.example", "A"), nil}, "remove all": {"DELETE", rrecord + "?below=.", nil}, "list": {"GET", rrecord, nil},
		"read": {"GET", recordPath("www.mec.example", "A"), nil}, "zones": {"GET", dnsRoot + "/zones", nil}, "upstreams": {"GET", dnsRoot + "/upstreams", nil},
		"flush": {"POST", dnsRoot + "/cache/flush", nil}, "trace": {"GET", dnsRoot + "/trace?name=a", nil}, "garbage": {"POST", rrecord, "{"},
	} {
		t.Run(name, func(t *testing.T) {
			unauthenticated(t, stranger.Do(x.method, x.path, x.body), "")
			unauthenticated(t, stranger.With("x").Do(x.method, x.path, x.body), "invalid_token")
			stranger.With(tokenOf(t, a)).Do(x.method, x.path, x.body).Problem(403)
			stranger.With(watcher.Fetch(p.Auth(t)).AccessToken).Do(x.method, x.path, x.body).Problem(403)
		})
	}
	require.Equal(t, "OK", string(stranger.Get("/health").Is(200).Body))
	p.DNS(t).Ask("www.mec.example", "A").Holds("NOERROR", "A 192.0.2.1")
	manager.Delete(recordPath("www.mec.example", "A")).Is(200)
	auditOf(t, p, "the removal of a record", func(e object) bool {
		return e["action"] == "dns.record.delete" && strings.Contains(fmt.Sprint(e), "www.mec.example") && e["result"] == "success" && e["client"] == p.Bootstrap(t).AccessKeyID
	})
	auditOf(t, p, "what was refused", func(e object) bool {
		return e["action"] == "access.deny" && e["target"] == "DELETE "+recordPath("www.mec.example", "A") && e["caller"] == a.id
	})
}

// What EdgeGallery's mepserver sends to its DNS server, byte by byte.
func TestRequestsOfEdgeGalleryToItsDNSServer(t *testing.T) {
	t.Parallel()
	p := harness.Start(t)
	d := p.DNS(t)
	send := func(method, target, body string) *harness.Answer {
		t.Helper()
		request := fmt.Sprintf("%s %s HTTP/1.1\r\nHost: localhost:8080\r\nUser-Agent: Go-http-client/1.1\r\nContent-Length: %d\r\nContent-Type: application/json\r\nAccept-Encoding: gzip\r\n\r\n%s", method, target, len(body), body)
		answer, ok := p.Exchange(t, "dns-management", method, []byte(request))
		require.True(t, ok)
		return answer
	}
	const one = `{"name":"www.example.com.","type":"A","class":"IN","ttl":30,"rData":["179.138.147.240"]}`
	const path = rrecord + "/www.example.com./A"
	created := send("POST", rrecord+"?zone=.", one).Is(http.StatusOK)
	require.True(t, strings.HasPrefix(created.Header.Get("Content-Type"), "text/plain"))
	d.Ask("www.example.com", "A").Is("NOERROR", "www.example.com. 30 A 179.138.147.240").Local()
	send("POST", rrecord+"?zone=.", one).Is(http.StatusConflict) // 400 there
	send("PUT", path+"?zone=.", strings.Replace(one, "147.240", "147.241", 1)).Is(http.StatusOK)
	d.Ask("www.example.com", "A").Holds("NOERROR", "A 179.138.147.241")
	send("PUT", rrecord+"/none.example.com./A?zone=.", strings.Replace(one, "www", "none", 1)).Is(http.StatusNotFound) // 400 there
	send("PUT", rrecord+"/other.example.com./A", one).Is(http.StatusBadRequest)
	six := `{"name":"www.example.com.","type":"AAAA","class":"IN","ttl":86400,"rData":["2001:db8::1","2001:db8::2"]}`
	send("POST", rrecord, six).Is(http.StatusOK)
	d.Ask("www.example.com", "AAAA").Holds("NOERROR", "AAAA 2001:db8::1", "AAAA 2001:db8::2")
	send("DELETE", path+"?zone=.", "").Is(http.StatusOK)
	send("DELETE", path, "").Is(http.StatusNotFound) // 500 there
	d.Ask("www.example.com", "A").Is("NOERROR").Local()
	require.Equal(t, "OK", string(send("GET", "/health", "").Is(http.StatusOK).Body))
	for name, body := range map[string]string{
		"a TTL of 0":       strings.Replace(one, `"ttl":30`, `"ttl":0`, 1),
		"another class":    strings.Replace(one, "IN", "CH", 1),
		"no data":          strings.Replace(one, `"179.138.147.240"`, "", 1),
		"another family":   strings.Replace(one, `"179.138.147.240"`, `"2001:db8::1"`, 1),
		"an unknown type":  strings.Replace(one, `"A"`, `"MX"`, 1),
		"no name":          strings.Replace(one, "www.example.com.", "", 1),
		"a multicast host": strings.Replace(one, "179.138.147.240", "224.0.0.1", 1),
	} {
		require.Equal(t, http.StatusBadRequest, send("POST", rrecord, body).Status, name)
	}
}

func TestBodiesOfTheDNSManagementThatAreNone(t *testing.T) {
	t.Parallel()
	p := harness.Start(t, owning())
	c := p.DNSManagement(t)
	const good = `{"name":"www.mec.example","type":"A","ttl":60,"rData":["192.0.2.1"]}`
	for name, x := range map[string]struct {
		body   any
		status int
	}{
		"nothing": {"", 400}, "half": {good[:30], 400}, "more behind": {good + "x", 400}, "two": {good + good, 400}, "null": {"null", 400}, "a string": {`"x"`, 400},
		"a number": {"5", 400}, "half a list": {"[" + good, 400}, "a list with a hole": {"[" + good + ",]", 400}, "a list of null": {"[null]", 400}, "a list of lists": {"[[" + good + "]]", 400},
		"a list and more": {"[" + good + "]]", 400}, "no UTF-8": {strings.Replace(good, "www", "w\xffw", 1), 400}, "a TTL of text": {strings.Replace(good, "60", `"60"`, 1), 400},
		"a TTL of half": {strings.Replace(good, "60", "60.5", 1), 400}, "a TTL below 0": {strings.Replace(good, "60", "-1", 1), 400}, "a TTL without end": {strings.Replace(good, "60", "1e999", 1), 400},
		"values that are none": {strings.Replace(good, `["192.0.2.1"]`, `"192.0.2.1"`, 1), 400}, "numbers for values": {strings.Replace(good, `"192.0.2.1"`, "1", 1), 400},
		"a member twice": {strings.Replace(good, "{", `{"ttl":1,`, 1), 400}, "very deep": {strings.Repeat(`[`, 100000), 400}, "a name with NUL": {strings.Replace(good, "www", `w\u0000w`, 1), 400},
		"a name of a path": {strings.Replace(good, "www", "../../w", 1), 400}, "too much": {`{"name":"` + strings.Repeat("a", 2<<20) + `"}`, 413}, "too much in a list": {"[" + strings.Repeat(good+",", 20000) + good + "]", 413},
		"unknown members": {strings.Replace(good, "{", `{"x":{"y":[1]},`, 1), 200},
	} {
		t.Run(name, func(t *testing.T) {
			c := p.DNSManagement(t)
			answer := c.Post(rrecord, x.body)
			if x.status == 200 {
				answer.Is(200)
				c.Delete(recordPath("www.mec.example", "A")).Is(200)
				return
			}
			answer.Problem(x.status)
			require.Equal(t, "[]", strings.TrimSpace(string(c.Get(rrecord).Is(200).Body)))
		})
	}
	c.Post(rrecord, good, harness.Header("Content-Type", "text/plain")).Problem(415)
	c.Post(rrecord, "name=x", harness.AsForm()).Problem(415)
	for path, allow := range map[string][]string{rrecord: {"PUT", "PATCH"}, recordPath("a", "A"): {"POST", "PATCH"}, dnsRoot + "/zones": {"POST", "DELETE"}, dnsRoot + "/cache/flush": {"GET"}, dnsRoot + "/trace": {"POST"}} {
		for _, method := range allow {
			answer := c.Do(method, path, nil)
			answer.Problem(405)
			require.NotEmpty(t, answer.Header.Get("Allow"))
		}
	}
	for _, path := range []string{dnsRoot, dnsRoot + "/nothing", rrecord + "/a", recordPath("a", "A") + "/x", "/", services, "/metrics"} {
		c.Get(path).Problem(404)
	}
	for _, path := range []string{recordPath("a..b", "A"), recordPath("www.mec.example", "MX"), recordPath("www.mec.example", "a"), rrecord + "/%2e%2e%2fx/A", recordPath(strings.Repeat("a", 300), "A")} {
		require.Contains(t, []int{400, 404}, c.Get(path).Status, path)
	}
	c.Get(recordPath("www.mec.example", "A") + "?view=" + url.QueryEscape(strings.Repeat("v", 100))).Problem(400)
}

func TestOfTwoWhoCreateADNSRecordOneDoes(t *testing.T) {
	t.Parallel()
	p := harness.Start(t, owning())
	c := p.UncheckedDNSManagement(t)
	for i := range 20 {
		name := fmt.Sprintf("n%d.mec.example", i)
		const creators = 8
		statuses := make([]int, creators)
		var creating sync.WaitGroup
		for k := range creators {
			rec := record(name, "A", fmt.Sprintf("192.0.2.%d", k))
			if k%2 == 1 {
				rec = record(name, "CNAME", fmt.Sprintf("c%d.example", k))
			}
			creating.Go(func() {
				if answer, err := c.Try("POST", rrecord, rec); err == nil {
					statuses[k] = answer.Status
				}
			})
		}
		creating.Wait()
		slices.Sort(statuses)
		require.Equal(t, 200, statuses[0])
		require.Equal(t, []int{409}, slices.Compact(statuses[1:]))
		require.Len(t, c.Get(rrecord+"?name="+name).Array(), 1)
	}
}

func TestAnAnswerOfTheDNSServerIsTraced(t *testing.T) {
	t.Parallel()
	up := harness.NewUpstream(t)
	p := harness.Start(t, harness.Config(fmt.Sprintf(`
dns:
  zones: [mec.example]
  forward: [%q]
  allowRecursion: [127.0.0.0/8]
  views: [{name: ue, clients: [10.9.0.0/16]}]
`, up.Addr())))
	c := p.DNSManagement(t)
	c.Post(rrecord, []object{
		record("*.wild.mec.example", "A", "192.0.2.1"), record("alias.mec.example", "CNAME", "x.wild.mec.example"), but(record("view.mec.example", "A", "192.0.2.2"), "view", "ue"),
	}).Is(200)
	withRules(t, p, rule("d1", "app.mec.example", "192.0.2.3"))
	trace := func(query string) object { return c.Get(dnsRoot + "/trace?" + query).Is(200).Object() }
	for query, want := range map[string]object{
		"name=app.mec.example":                             {"source": "table", "rcode": "NOERROR", "zone": "mec.example.", "authoritative": true, "type": "A", "client": "127.0.0.1"},
		"name=APP.mec.example&type=aaaa":                   {"source": "table", "rcode": "NOERROR", "type": "AAAA"},
		"name=a.b.wild.mec.example":                        {"source": "table", "wildcard": "*.wild.mec.example."},
		"name=alias.mec.example":                           {"source": "table", "wildcard": "*.wild.mec.example.", "rcode": "NOERROR"},
		"name=view.mec.example":                            {"source": "table", "rcode": "NXDOMAIN"},
		"name=view.mec.example&client=10.9.8.7":            {"source": "table", "rcode": "NOERROR", "view": "ue", "client": "10.9.8.7"},
		"name=www.example":                                 {"source": "upstream", "rcode": "NOERROR", "authoritative": false},
		"name=www.example&client=198.51.100.1":             {"source": "none", "rcode": "REFUSED"},
		"name=none.mec.example&type=TYPE4711":              {"source": "table", "rcode": "NXDOMAIN", "type": "TYPE4711"},
		"name=app.mec.example&type=ANY&client=2001:db8::1": {"source": "table", "rcode": "NOERROR"},
	} {
		got := trace(query)
		for member, value := range want {
			require.Equal(t, value, got[member], "%s: %v", query, got)
		}
		require.NotEmpty(t, got["steps"], query)
	}
	require.Contains(t, fmt.Sprint(trace("name=app.mec.example")["records"]), "d1", "where it comes from")
	for query, about := range map[string]string{"": "name", "name=a..b": "name", "name=a&type=NOTYPE": "type", "name=a&client=me": "client", "name=a&x=1": "x"} {
		require.Contains(t, c.Get(dnsRoot+"/trace?"+query).Problem(400).Names(), about)
	}
	zones := c.Get(dnsRoot + "/zones").Is(200).Array()
	require.Len(t, zones, 1)
	require.Equal(t, "mec.example.", zones[0]["name"])
	require.EqualValues(t, p.DNS(t).Ask("mec.example", "SOA").Answer[0].(*rr.SOA).Serial, zones[0]["serial"])
	require.Equal(t, []string{up.Addr()}, names(c.Get(dnsRoot+"/upstreams").Is(200).Array(), "address"))
}
