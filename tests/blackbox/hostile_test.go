package blackbox

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/tests/harness"
)

// unharmed checks at the end of a test that a platform took no harm from it.
func unharmed(t *testing.T, p *harness.Process) {
	t.Helper()
	pid := p.Pid()
	t.Cleanup(func() {
		require.True(t, p.Running())
		require.Equal(t, pid, p.Pid())
		status, ready, err := p.Ready()
		require.NoError(t, err)
		require.Equal(t, 200, status)
		require.Empty(t, ready.Degraded)
		require.NotContains(t, p.Log(), "handler panicked")
		require.Contains(t, string(p.Ops(t).Get("/metrics").Is(200).Body), "\nmep_http_panics_total 0\n")
		a := newApp(p.Client(t))
		a.remove(a.register(own("still working")).id)
		require.Less(t, p.PeakMemory(), int64(256<<20), "memory is bounded")
	})
}

const mebibyte = 1 << 20

func TestBodiesOverTheLimit(t *testing.T) {
	t.Parallel()
	p := harness.Start(t)
	unharmed(t, p)
	a := newApp(p.Client(t))
	svc := a.register(monitored("x", 60))
	body, err := json.Marshal(own("big"))
	require.NoError(t, err)
	padded := func(size int) []byte { return append(bytes.Repeat([]byte(" "), size-len(body)), body...) }
	targets := []struct{ method, path string }{
		{"POST", a.services()}, {"PUT", a.service(svc.id)}, {"POST", a.subscriptions()}, {"PATCH", a.liveness(svc.id)}, {"PUT", a.liveness(svc.id)},
	}
	t.Run("as large as is allowed", func(t *testing.T) {
		c := p.Client(t)
		c.Post(a.services(), padded(mebibyte)).Is(201)
		c.Post(a.services(), bytes.NewReader(padded(mebibyte))).Is(201)
	})
	for _, x := range targets {
		t.Run(x.method+" one byte over", func(t *testing.T) {
			p.Client(t).Do(x.method, x.path, padded(mebibyte+1)).Problem(413)
		})
		t.Run(x.method+" in chunks", func(t *testing.T) {
			p.Client(t).Do(x.method, x.path, bytes.NewReader(padded(mebibyte+1))).Problem(413)
		})
		t.Run(x.method+" announced but not sent", func(t *testing.T) {
			answer, ok := p.Exchange(t, "mp1", x.method, fmt.Appendf(nil,
				"%s %s HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 99999999999\r\n\r\n{", x.method, x.path))
			require.True(t, ok)
			answer.Problem(413)
		})
	}
	t.Run("endless, in chunks", func(t *testing.T) {
		conn := p.Dial(t, "mp1")
		_, err := fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", a.services())
		require.NoError(t, err)
		chunk := append([]byte("10000\r\n"), append(bytes.Repeat([]byte(" "), 0x10000), '\r', '\n')...)
		sent := 0
		for ; sent < 1<<30; sent += len(chunk) {
			if err := conn.SetWriteDeadline(time.Now().Add(harness.Patience)); err != nil {
				break
			}
			if _, err := conn.Write(chunk); err != nil {
				break
			}
		}
		require.Less(t, sent, 64*mebibyte, "the platform hangs up")
	})
	t.Run("the limit is a setting", func(t *testing.T) {
		t.Parallel()
		p := harness.Start(t, harness.Args("--limits-body=300"))
		a := newApp(p.Client(t))
		a.Post(a.services(), minimal("x")).Is(201)
		a.Post(a.services(), own(strings.Repeat("x", 200))).Problem(413)
	})
	require.Len(t, a.Get(a.services()).Array(), 3)
	require.Equal(t, svc.etag, a.Get(a.service(svc.id)).ETag())
}

func TestTargetsOverTheLimit(t *testing.T) {
	t.Parallel()
	p := harness.Start(t)
	unharmed(t, p)
	c := p.Client(t)
	a := newApp(c)
	target := func(length int) string {
		path := services + "?ser_name="
		return path + strings.Repeat("a", length-len(path))
	}
	c.Get(target(8192), harness.Tolerated()).Is(200)
	for _, length := range []int{8193, 10_000, 30_000, 64_000} {
		t.Run(fmt.Sprint(length, " bytes"), func(t *testing.T) {
			answer, ok := p.Exchange(t, "mp1", "GET", []byte("GET "+target(length)+" HTTP/1.1\r\nHost: a\r\n\r\n"))
			require.True(t, ok)
			answer.Problem(414)
		})
	}
	t.Run("in the path", func(t *testing.T) {
		c := p.Client(t)
		c.Get(services + "/" + strings.Repeat("a", 9000)).Problem(414)
		c.Post(a.services()+strings.Repeat("/", 9000), own("x")).Problem(414)
	})
	t.Run("the limit is a setting", func(t *testing.T) {
		p := harness.Start(t, harness.Args("--limits-uri=100"))
		c := p.Client(t)
		c.Get(target(100)).Is(200)
		c.Get(target(101)).Problem(414)
	})
}

func TestHeadersOverTheLimit(t *testing.T) {
	t.Parallel()
	p := harness.Start(t)
	unharmed(t, p)
	c := p.Client(t)
	c.Get(services, harness.Header("X-Junk", strings.Repeat("a", 20000))).Is(200)
	for name, headers := range map[string]string{
		"one long line": "X-Junk: " + strings.Repeat("a", 100_000) + "\r\n",
		"many lines":    strings.Repeat("X-Junk: aaaaaaaaaaaaaaaaaaaaaaaaa\r\n", 4000),
		"a long name":   strings.Repeat("X", 100_000) + ": a\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			answer, ok := p.Exchange(t, "mp1", "GET", []byte("GET "+services+" HTTP/1.1\r\nHost: a\r\n"+headers+"\r\n"))
			if ok { // to hang up without an answer would be as good
				require.Equal(t, 431, answer.Status)
			}
		})
	}
	t.Run("endless", func(t *testing.T) {
		conn := p.Dial(t, "mp1")
		_, err := io.WriteString(conn, "GET "+services+" HTTP/1.1\r\nHost: a\r\n")
		require.NoError(t, err)
		line := []byte("X-Junk: " + strings.Repeat("a", 1000) + "\r\n")
		sent := 0
		for ; sent < 64*mebibyte; sent += len(line) {
			if _, err := conn.Write(line); err != nil {
				break
			}
		}
		require.Less(t, sent, 32*mebibyte, "the platform hangs up")
	})
}

func TestBodiesThatAreNoAcceptableJSON(t *testing.T) {
	t.Parallel()
	p := harness.Start(t)
	unharmed(t, p)
	a := newApp(p.Client(t))
	svc := a.register(monitored("x", 60))
	const some = `"serName":"x","version":"1","state":"ACTIVE","serializer":"JSON","transportId":"rest-http"`
	nested := func(n int) string { return strings.Repeat("[", n) + strings.Repeat("]", n) }
	for name, x := range map[string]struct{ body, about string }{
		"empty":                             {"", "empty"},
		"white space":                       {" \r\n\t ", "empty"},
		"null":                              {"null", "object"},
		"an array":                          {"[{" + some + "}]", "object"},
		"a string":                          {`"x"`, "object"},
		"a number":                          {"1", "object"},
		"true":                              {"true", "object"},
		"text":                              {"hello", ""},
		"XML":                               {"<serviceInfo/>", ""},
		"a form":                            {"serName=x&version=1", ""},
		"an object that does not end":       {"{" + some, ""},
		"a string that does not end":        {`{"serName":"x`, ""},
		"something after the object":        {"{" + some + "} x", "follows"},
		"a second object":                   {"{" + some + "}{" + some + "}", "follows"},
		"a comma at the end":                {"{" + some + ",}", ""},
		"a comment":                         {"{" + some + "/* c */}", ""},
		"single quotes":                     {"{'serName':'x'}", ""},
		"names without quotes":              {"{serName:1}", ""},
		"NaN":                               {"{" + some + `,"x":NaN}`, ""},
		"a number with leading zeros":       {"{" + some + `,"livenessInterval":007}`, ""},
		"a hexadecimal number":              {"{" + some + `,"livenessInterval":0x10}`, ""},
		"a number without digits":           {"{" + some + `,"livenessInterval":-}`, ""},
		"a byte order mark":                 {"\xef\xbb\xbf{" + some + "}", ""},
		"UTF-16":                            {"{\x00}\x00", ""},
		"zero bytes":                        {"\x00\x00\x00", ""},
		"a control character in a string":   {"{" + some + ",\"x\":\"a\nb\"}", ""},
		"invalid UTF-8 in a value":          {"{" + some + ",\"x\":\"\xff\xfe\"}", "UTF-8"},
		"invalid UTF-8 in a name":           {"{" + some + ",\"\xc3\x28\":1}", "UTF-8"},
		"an overlong encoding":              {"{" + some + ",\"x\":\"\xc0\xaf\"}", "UTF-8"},
		"half a surrogate pair":             {"{" + some + `,"x":"\ud800"}`, ""},
		"a member twice":                    {"{" + some + `,"serName":"y"}`, "serName"},
		"a member twice, once null":         {"{" + some + `,"serName":null}`, "serName"},
		"a member twice, once escaped":      {"{" + some + `,"ser\u004eame":"y"}`, "serName"},
		"an unknown member twice":           {"{" + some + `,"x":1,"x":2}`, `"x"`},
		"a nested member twice":             {"{" + some + `,"x":{"y":{"z":1,"z":2}}}`, `"z"`},
		"deep arrays in an unknown member":  {"{" + some + `,"x":` + nested(10000) + "}", "nested"},
		"deep objects in an unknown member": {"{" + some + `,"x":` + strings.Repeat(`{"a":`, 10000) + "1" + strings.Repeat("}", 10000) + "}", "nested"},
		"deep arrays in free content":       {"{" + some + `,"transportInfo":{"implSpecificInfo":` + nested(10000) + "}}", "depth"},
		"deep arrays where text belongs":    {`{"serName":` + nested(10000) + "}", "nested"},
		"deep arrays that do not end":       {`{"x":` + strings.Repeat("[", 500_000), "nested"},
		"deep arrays at the top":            {strings.Repeat("[", 500_000), "object"},
		"a hundred thousand end points":     {"{" + some + `,"transportInfo":{"endpoint":{"uris":[` + strings.Repeat(`"a",`, 99_999) + `"a"]}}}`, "uris"},
		"a hundred thousand grants":         {"{" + some + `,"transportInfo":{"security":{"oAuth2Info":{"grantTypes":[` + strings.Repeat(`"a",`, 99_999) + `"a"]}}}}`, "grantTypes"},
		"sixty thousand security members":   {"{" + some + `,"transportInfo":{"security":{` + manyMembers(60_000) + `}}}`, "members"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := p.Client(t)
			paths := map[string]string{a.services(): "POST", a.service(svc.id): "PUT"}
			if !strings.Contains(x.body, "transportInfo") {
				paths[a.subscriptions()], paths[a.liveness(svc.id)] = "POST", "PATCH"
			}
			for path, method := range paths {
				problem := c.Do(method, path, x.body).Problem(400)
				require.Less(t, len(problem.Detail), 2000, "the answer does not repeat the body")
				if x.about != "" {
					require.Contains(t, problem.Detail, x.about, "%s %s", method, path)
				}
			}
		})
	}
	t.Run("lists of a subscription", func(t *testing.T) {
		t.Parallel()
		c := p.Client(t)
		for _, member := range []string{"serNames", "serInstanceIds", "serCategories", "states"} {
			element := `"ACTIVE"`
			if member == "serCategories" {
				element = `{"href":"/c","id":"c","name":"n","version":"1"}`
			}
			for _, count := range []int{101, 20_000} {
				body := `{"subscriptionType":"SerAvailabilityNotificationSubscription","callbackReference":"http://10.0.0.1/","filteringCriteria":{"` +
					member + `":[` + strings.Repeat(element+",", count-1) + element + "]}}"
				require.Contains(t, c.Post(a.subscriptions(), body).Problem(400).Detail, member)
			}
		}
	})
	t.Run("thousands of faults", func(t *testing.T) {
		t.Parallel()
		body := `{"transportInfo":{"endpoint":{"addresses":[` + strings.Repeat("1,", 900) + `1]}}}`
		answer := p.Client(t).Post(a.services(), body)
		require.NotEmpty(t, answer.Problem(400).InvalidParams)
		require.Less(t, len(answer.Body), 32<<10, "the answer is bounded")
	})
	t.Run("free content that is too large", func(t *testing.T) {
		t.Parallel()
		info := but(own("x"), "transportInfo.implSpecificInfo", strings.Repeat("x", 20_000))
		require.Equal(t, []string{"transportInfo.implSpecificInfo"}, p.Client(t).Post(a.services(), info).Problem(400).Names())
	})
}

func manyMembers(n int) string {
	var b strings.Builder
	for i := range n {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, `"m%d":1`, i)
	}
	return b.String()
}

func TestNumbersThatNoTypeHolds(t *testing.T) {
	t.Parallel()
	p := harness.Start(t)
	unharmed(t, p)
	a := newApp(p.Client(t))
	body := func(interval, port string) string {
		return `{"serName":"x","version":"1","state":"ACTIVE","serializer":"JSON","livenessInterval":` + interval +
			`,"transportInfo":{"id":"i","name":"n","type":"T","protocol":"P","version":"1","security":{},"endpoint":{"addresses":[{"host":"h","port":` + port + `}]}}}`
	}
	for _, number := range []string{
		"1e400", "-1e400", "1e30", "9223372036854775808", "-9223372036854775809", "0.5", "1e-5", "1e-400", "-1", "99999999999999999999999999999999",
		"1" + strings.Repeat("0", 100_000), "0." + strings.Repeat("0", 100_000) + "1",
	} {
		name := number[:min(len(number), 24)]
		t.Run("livenessInterval "+name, func(t *testing.T) {
			t.Parallel()
			answer := p.Client(t).Post(a.services(), body(number, "80"))
			require.Equal(t, []string{"livenessInterval"}, answer.Problem(400).Names())
			require.Less(t, len(answer.Body), 2000)
		})
		t.Run("port "+name, func(t *testing.T) {
			t.Parallel()
			problem := p.Client(t).Post(a.services(), body("60", number)).Problem(400)
			require.Equal(t, []string{"transportInfo.endpoint.addresses[0].port"}, problem.Names())
		})
	}
	t.Run("whole numbers may be written in any way", func(t *testing.T) {
		t.Parallel()
		a := newApp(p.Client(t))
		for _, sixty := range []string{"60", "60.0", "6e1", "6.0E+1", "600e-1"} {
			svc := a.read(a.Post(a.services(), body(sixty, "8.0e1")).Is(201))
			require.EqualValues(t, 60, svc.info["livenessInterval"])
		}
	})
}

func TestPathsThatTryTricks(t *testing.T) {
	t.Parallel()
	p := harness.Start(t)
	unharmed(t, p)
	owner, other := newApp(p.Client(t)), newApp(p.Client(t))
	svc := owner.register(own("x"))
	apps := root + "/applications/"
	for _, path := range []string{
		services + "/", services + "//", "/" + services, "//" + services, "/mec_service_mgmt//v1/services", root + "//services",
		root + "/./services", root + "/x/../services", services + "/../services", services + "/..", services + "/.",
		"/../" + services, "/mep/.." + services, "/mep//" + services, root + "/services%2F", root + "%2Fservices", "/mec_service_mgmt%2Fv1/services",
		services + "/%2e%2e", services + "/%2e%2e%2fservices", services + "/..%2F..%2Fservices", services + "%00", services + "/" + svc.id + "%00",
		services + "/" + svc.id + "/", services + "/" + svc.id + "%2F", services + "/" + svc.id + "?/..", services + "/" + svc.id + ";x",
		services + ";x", services + "/" + other.id + "%2F" + svc.id, services + "/" + owner.id + "%2F" + svc.id, services + "/" + owner.id + "/" + svc.id,
		services + "/%5c" + svc.id, services + `\` + svc.id, services + "/*", services + "/:serviceId", services + "/" + svc.id + "%20",
		owner.services() + "/", owner.service(svc.id) + "/", owner.service(svc.id) + "//", owner.service(svc.id) + "/../" + svc.id, owner.subscriptions() + "/",
		apps + "/services", apps + "//services", apps + owner.id + "%2Fservices", apps + owner.id + "%2F/services/" + svc.id,
		apps + other.id + "/../" + owner.id + "/services", apps + other.id + "%2F..%2F" + owner.id + "/services/" + svc.id,
		apps + other.id + "/services/..%2F..%2F" + owner.id + "%2Fservices%2F" + svc.id, apps + other.id + "/services/" + owner.id + "%2F" + svc.id,
		apps + "%2e%2e/services/" + svc.id, apps + "./" + owner.id + "/services", apps + owner.id + "%00/services", apps + owner.id + "%0a/services",
		apps + owner.id + "/services/" + svc.id + "/liveness/", apps + owner.id + "/services/" + svc.id + "%2Fliveness",
		apps + "services/" + svc.id, apps + owner.id[:35] + "/services", apps + "%25" + owner.id + "/services",
	} {
		t.Run(path, func(t *testing.T) {
			c := p.Client(t)
			if strings.Contains(path, "?") {
				// A question mark ends the path: the rest is a query that this resource does not take.
				c.Get(path).Problem(400)
			} else {
				c.Get(path).Problem(404)
			}
			for _, method := range []string{"DELETE", "PUT", "POST"} {
				answer := c.Do(method, path, nil)
				require.Contains(t, []int{404, 405}, answer.Status, "%s", method)
				require.Empty(t, answer.Header.Get("Location"), "it is not redirected")
			}
		})
	}
	require.Equal(t, svc.etag, owner.Get(owner.service(svc.id)).ETag())
	require.Empty(t, other.Get(other.services()).Array())
}

// Whoever sends the request chooses the host that the links of the answer start with, and must not choose more than that.
func TestTheHostOfARequestCannotBreakTheAnswer(t *testing.T) {
	t.Parallel()
	p := harness.Start(t)
	unharmed(t, p)
	a := newApp(p.Client(t))
	svc := a.register(monitored("x", 60))
	sub := a.subscribe("http://10.0.0.1/", nil)
	for name, host := range map[string]string{
		"a quotation mark": `a"b`, "another object": `a"},"serName":"evil","x":{"y":"`, "invalid UTF-8": "a%ffb", "invalid UTF-8, raw": "a\xffb",
		"angle brackets": "<script>", "an apostrophe": "a'b", "a backslash": `a\b`, "a user": "user:secret@host",
	} {
		for form, request := range map[string]func(path string) string{
			"in the request line": func(path string) string {
				return "GET http://" + host + path + " HTTP/1.1\r\nHost: mep.example\r\nConnection: close\r\n\r\n"
			},
			"in the header": func(path string) string {
				return "GET " + path + " HTTP/1.1\r\nHost: " + host + "\r\nConnection: close\r\n\r\n"
			},
		} {
			t.Run(name+" "+form, func(t *testing.T) {
				for _, path := range []string{services, services + "/" + svc.id, a.services(), a.service(svc.id), a.subscriptions(), a.subscription(sub)} {
					answer, ok := p.Exchange(t, "mp1", "GET", []byte(request(path)))
					if !ok || answer.Status == 400 {
						continue // refused
					}
					answer.Is(200)
					require.True(t, json.Valid(answer.Body), "the answer is no JSON: %s", answer.Body)
					require.True(t, utf8.Valid(answer.Body), "the answer is no UTF-8: %s", answer.Body)
					var found any
					answer.Into(&found)
					require.NotContains(t, fmt.Sprint(found), "serName:evil", "the request added a member")
				}
			})
		}
	}
}

func TestRequestsThatAreNoHTTP(t *testing.T) {
	t.Parallel()
	p := harness.Start(t)
	unharmed(t, p)
	for name, request := range map[string]string{
		"nothing":                     "\r\n\r\n\r\n",
		"text":                        "hello\r\n\r\n",
		"TLS":                         "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + strings.Repeat("\x00", 600) + "\r\n\r\n",
		"binary":                      strings.Repeat("\x00\xff\x80", 10_000) + "\r\n\r\n",
		"HTTP/2 without being asked":  "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00",
		"HTTP/9":                      "GET " + services + " HTTP/9.9\r\nHost: a\r\n\r\n",
		"no Host":                     "GET " + services + " HTTP/1.1\r\n\r\n",
		"two Hosts":                   "GET " + services + " HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
		"a broken escape":             "GET " + services + "/%zz HTTP/1.1\r\nHost: a\r\n\r\n",
		"two lengths":                 "POST " + services + " HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n{}",
		"a negative length":           "POST " + services + " HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n{}",
		"a length that overflows":     "POST " + services + " HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\n{}",
		"an unknown transfer coding":  "POST " + services + " HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, magic\r\n\r\n{}",
		"a line that starts blank":    "GET " + services + " HTTP/1.1\r\nHost: a\r\n X: folded\r\n\r\n",
		"a colon after white space":   "GET " + services + " HTTP/1.1\r\nHost : a\r\n\r\n",
		"a method of other letters":   "GE\x00T " + services + " HTTP/1.1\r\nHost: a\r\n\r\n",
		"a chunk of an awkward size":  "POST " + services + " HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n",
		"CONNECT":                     "CONNECT example.com:443 HTTP/1.1\r\nHost: example.com\r\n\r\n",
		"OPTIONS *":                   "OPTIONS * HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
		"a protocol upgrade":          "GET " + services + " HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n",
		"ten thousand requests ahead": strings.Repeat("GET "+services+"/x HTTP/1.1\r\nHost: a\r\n\r\n", 10_000),
	} {
		for _, listener := range []string{"mp1", "ops"} {
			t.Run(name+" at "+listener, func(t *testing.T) {
				t.Parallel()
				answer, ok := p.Exchange(t, listener, "GET", []byte(request))
				if ok {
					require.NotContains(t, string(answer.Body), "goroutine")
					// 501 and 505 say what HTTP of theirs is not spoken here.
					require.NotContains(t, []int{500, 502, 503, 504}, answer.Status, "%s", answer.Body)
				}
			})
		}
	}
	t.Run("a body that ends early", func(t *testing.T) {
		t.Parallel()
		a := newApp(p.Client(t))
		conn := p.Dial(t, "mp1")
		_, err := fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: a\r\nContent-Length: 500\r\n\r\n{\"serName\":", a.services())
		require.NoError(t, err)
		require.NoError(t, conn.(*net.TCPConn).CloseWrite())
		answer, err := io.ReadAll(conn)
		require.NoError(t, err)
		if len(answer) > 0 {
			require.Contains(t, string(answer), " 400 ")
		}
		require.Empty(t, a.Get(a.services()).Array())
	})
}

func TestHalfOpenRequestsBlockNobody(t *testing.T) {
	t.Parallel()
	p := harness.Start(t)
	unharmed(t, p)
	a := newApp(p.Client(t))
	cb := harness.NewSubscriber(t)
	a.subscribe(cb.URL("/cb"), nil)
	starts := []string{
		"", "G", "GET ", "GET " + services + " HTTP/1.1\r\n", "GET " + services + " HTTP/1.1\r\nHost: a\r\nX-Slow: ",
		"POST " + a.services() + " HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{\"ser",
		"POST " + a.services() + " HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{\"ser\r\n",
		"PUT " + a.liveness("x") + " HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n",
	}
	var conns []net.Conn
	for i := range 400 {
		conn := p.Dial(t, "mp1")
		_, err := io.WriteString(conn, starts[i%len(starts)])
		require.NoError(t, err)
		conns = append(conns, conn)
	}
	// Some of them go on, byte by byte.
	stop := make(chan struct{})
	var trickle sync.WaitGroup
	trickle.Go(func() {
		tick := time.NewTicker(200 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				for _, conn := range conns[:80] {
					_, _ = io.WriteString(conn, "a")
				}
			case <-stop:
				return
			}
		}
	})
	defer trickle.Wait()
	defer close(stop)

	for i := range 10 {
		svc := a.register(own(fmt.Sprint("s", i)))
		a.Get(services).Is(200)
		a.remove(svc.id)
		p.Ops(t).Get("/healthz").Is(200)
	}
	cb.AwaitChange(t, "/cb", "REMOVED s9 ACTIVE")
	// A client gets 10 to 15 s for the header of a request.
	slow := conns[3]
	require.NoError(t, slow.SetReadDeadline(time.Now().Add(2*harness.Patience)))
	_, err := io.Copy(io.Discard, slow)
	require.NotErrorIs(t, err, os.ErrDeadlineExceeded, "the platform hangs up by itself")
	a.Get(services).Is(200)
}

func TestAFloodOfLargeRequestsIsSurvived(t *testing.T) {
	t.Parallel()
	p := harness.Start(t)
	unharmed(t, p)
	a := newApp(p.Unchecked(t))
	uris := `{"serName":"x","transportInfo":{"endpoint":{"uris":[` + strings.Repeat(`"a",`, 200_000) + `"a"]}}}`
	text := `{"serName":"` + strings.Repeat("x", mebibyte-100) + `"}`
	junk := `{"x":[` + strings.Repeat(`{"a":"b"},`, 100_000) + `1]}`
	var flood sync.WaitGroup
	for worker := range 16 {
		flood.Go(func() {
			for i := range 12 {
				body := []string{uris, text, junk}[(worker+i)%3]
				answer, err := a.Try(http.MethodPost, a.services(), body)
				if err != nil || answer.Status != 400 {
					t.Errorf("%v %+v", err, answer)
					return
				}
			}
		})
	}
	flood.Wait()
}
