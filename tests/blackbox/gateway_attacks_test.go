package blackbox

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/tests/harness"
)

// S-1: Kong let callers in by a token in the query while the plugin behind it read the header, so that one could be somebody else.
func TestNobodyPassesForSomebodyElse(t *testing.T) {
	t.Parallel()
	producer := harness.NewProducer(t, "hello", nil)
	p := harness.Start(t, harness.Secure(), toLoopback())
	a, _ := appOf(t, p)
	a.register(served("hello", producer.URL))
	_, keys := appOf(t, p)
	victim, victimKeys := appOf(t, p)
	token, theirs := keys.Fetch(p.Auth(t)).AccessToken, victimKeys.Fetch(p.Auth(t)).AccessToken
	_, key := apiKey(p.GatewayManagement(t), "keyed", nil)
	forged := strings.Join([]string{strings.Split(theirs, ".")[0], strings.Split(theirs, ".")[1], strings.Split(token, ".")[2]}, ".")
	for name, x := range map[string]struct {
		header string // lines
		query  string
		wanted string // the caller, or the status
	}{
		"a header of one's own":         {"Authorization: Bearer " + token + "\r\nX-AppInstanceID: " + victim.id, "", keys.AppInstanceID},
		"in lower case":                 {"authorization: Bearer " + token + "\r\nx-appinstanceid: " + victim.id, "", keys.AppInstanceID},
		"with an underscore":            {"Authorization: Bearer " + token + "\r\nX_AppInstanceID: " + victim.id + "\r\nX_APPINSTANCEID: " + victim.id, "", keys.AppInstanceID},
		"several times":                 {"X-AppInstanceID: " + victim.id + "\r\nAuthorization: Bearer " + token + "\r\nX-APPINSTANCEID: " + victim.id, "", keys.AppInstanceID},
		"taken away as hop by hop":      {"Authorization: Bearer " + token + "\r\nConnection: X-AppInstanceID, X-Consumer-Scopes, close", "", keys.AppInstanceID},
		"of Kong":                       {"Authorization: Bearer " + token + "\r\nX-Consumer-Username: " + victim.id + "\r\nX-Credential-Identifier: " + victim.id + "\r\nX-Consumer-Custom-ID: x", "", keys.AppInstanceID},
		"another's token in the query":  {"Authorization: Bearer " + token, "jwt=" + theirs + "&access_token=" + theirs, keys.AppInstanceID},
		"one's token in the query":      {"Authorization: Bearer " + forged, "jwt=" + token, "401"},
		"two tokens":                    {"Authorization: Bearer " + token + "\r\nAuthorization: Bearer " + theirs, "", "400"},
		"two in a line":                 {"Authorization: Bearer " + token + ", Bearer " + theirs, "", "401"},
		"a cookie":                      {"Cookie: jwt=" + theirs + "; access_token=" + theirs, "", "401"},
		"for proxies":                   {"Proxy-Authorization: Bearer " + theirs, "", "401"},
		"a token and another's key":     {"Authorization: Bearer " + token + "\r\nX-Api-Key: " + key, "", "401"},
		"a key, and a scheme of others": {"Authorization: Basic YTpi\r\nX-Api-Key: " + key, "", "keyed"},
		"two keys":                      {"X-Api-Key: " + key, "x-api-key=" + key, "400"},
		"a key that is hop by hop":      {"X-Api-Key: " + key + "\r\nConnection: x-api-key", "", "401"},
		"a token that is hop by hop":    {"Authorization: Bearer " + token + "\r\nConnection: Authorization", "", "401"},
		"no algorithm":                  {"Authorization: Bearer eyJhbGciOiJub25lIn0." + strings.Split(theirs, ".")[1] + ".", "", "401"},
	} {
		t.Run(name, func(t *testing.T) {
			producer.Forget()
			answer, ok := p.Exchange(t, "gateway", "GET", []byte("GET /services/hello/?"+x.query+" HTTP/1.1\r\nHost: edge\r\n"+x.header+"\r\n\r\n"))
			require.True(t, ok)
			if len(x.wanted) == 3 {
				require.Equal(t, x.wanted, fmt.Sprint(answer.Status), "%s", answer.Body)
				require.Empty(t, producer.Seen())
				return
			}
			seen := answer.Seen()
			require.Equal(t, []string{x.wanted}, seen.Names("X-AppInstanceID"))
			require.Len(t, seen.Names("X-Consumer-Scopes"), 1)
			for _, name := range []string{"X-Consumer-Username", "X-Consumer-Custom-ID", "X-Credential-Identifier", "Authorization", "Proxy-Authorization", "X-Api-Key", "Connection"} {
				require.Empty(t, seen.Names(name), name)
			}
			require.NotContains(t, fmt.Sprint(seen.Header), victim.id)
		})
	}
	policy(p.GatewayManagement(t), "hello", object{"authentication": []any{"anonymous"}})
	seen := p.Gateway(t).Get("/services/hello/", harness.Header("X-AppInstanceID", victim.id), keyed("mepk_x")).Seen()
	require.Empty(t, seen.Names("X-AppInstanceID"), "nobody is nobody")
	policy(p.GatewayManagement(t), "hello", object{"authentication": []any{"token"}})
	seen = p.Gateway(t).With(token).Get("/services/hello/?x-api-key="+key, keyed(key)).Seen()
	require.NotContains(t, fmt.Sprint(seen.Header)+seen.Query, key, "the service could call as its owner elsewhere")
}

func TestPathsAreWhatTheySeem(t *testing.T) {
	t.Parallel()
	p, producer := offering(t, nil)
	m := p.GatewayManagement(t)
	newApp(p.Client(t)).register(served("private", producer.URL+"/private"))
	policy(m, "private", object{"default": "deny"})
	policy(m, "hello", object{"rules": []any{object{"effect": "deny", "paths": []any{"/admin/**"}}}})
	answered(t, p.Gateway(t), 403, "/services/private/x")
	for target, want := range map[string]string{
		"/services/hello/a//b":                  "400",
		"/services/hello//admin/x":              "400",
		"/services//hello/a":                    "400",
		"//services/hello/a":                    "400",
		"/services/hello/../private/x":          "400",
		"/services/hello/%2e%2e/private/x":      "400",
		"/services/hello/.%2E/private/x":        "400",
		"/services/hello/..%2fprivate/x":        "400",
		"/services/hello/./admin/x":             "400",
		"/services/hello/a%2fb":                 "400",
		"/services/hello/..;/private":           "400",
		"/services/hello/admin;a=b/x":           "403",
		"/services/hello/a\\b":                  "400",
		"/services/hello/a%5cb":                 "400",
		"/services/hello/a%00b":                 "400",
		"/services/hello/a%0d%0aX-Evil:%201":    "400",
		"/services/hello/%252e%252e/x":          "400",
		"/services/hello/%c0%ae%c0%ae/x":        "400",
		"/services/hello/%zz":                   "400",
		"/services/hello/admin/x":               "403",
		"/services/hello/%61dm%69n/x":           "403",
		"/services/hello/ok%20a?x=../../&y=%2f": "/ok%20a?x=../../&y=%2f",
		"/services/h%65llo/ok":                  "/ok?",
		"/services/hello/ADMIN/x":               "/ADMIN/x?",
		"/services/hello":                       "/?",
		"/services/hello/":                      "/?",
		"/services":                             "404",
		"http://other.example/services/hello/x": "/x?",
	} {
		t.Run(target, func(t *testing.T) {
			answer, ok := p.Exchange(t, "gateway", "GET", []byte("GET "+target+" HTTP/1.1\r\nHost: edge\r\nConnection: close\r\n\r\n"))
			require.True(t, ok)
			got := fmt.Sprint(answer.Status)
			if answer.Status == 200 {
				seen := answer.Seen()
				got = seen.Path + "?" + seen.Query
			}
			require.Equal(t, want, got, "%s", answer.Body)
		})
	}
	for _, s := range producer.Seen() {
		require.NotContains(t, s.Path, "private")
		require.NotContains(t, s.Path, "admin")
		require.Empty(t, s.Names("X-Evil"))
	}
}

func TestRequestsCannotBeSmuggled(t *testing.T) {
	t.Parallel()
	p, producer := offering(t, nil)
	reached(t, p.Gateway(t), "/services/hello/")
	policy(p.GatewayManagement(t), "hello", object{"rules": []any{object{"effect": "deny", "paths": []any{"/admin/**"}}}})
	producer.Forget()
	const smuggled = "GET /admin/x HTTP/1.1\r\nHost: edge\r\n\r\n"
	chunked := fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", len(smuggled), smuggled)
	for name, request := range map[string]string{
		"a length and chunks":    "POST /services/hello/a HTTP/1.1\r\nHost: edge\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + smuggled,
		"two lengths":            "POST /services/hello/a HTTP/1.1\r\nHost: edge\r\nContent-Length: 0\r\nContent-Length: 40\r\n\r\n" + smuggled,
		"a strange encoding":     "POST /services/hello/a HTTP/1.1\r\nHost: edge\r\nTransfer-Encoding: xchunked\r\nContent-Length: 3\r\n\r\nabc",
		"an encoding in a list":  "POST /services/hello/a HTTP/1.1\r\nHost: edge\r\nTransfer-Encoding: identity, chunked\r\n\r\n" + chunked,
		"a blank before a colon": "POST /services/hello/a HTTP/1.1\r\nHost: edge\r\nTransfer-Encoding : chunked\r\nContent-Length: 3\r\n\r\nabc",
		"a folded line":          "POST /services/hello/a HTTP/1.1\r\nHost: edge\r\nTransfer-Encoding:\r\n chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n" + smuggled,
		"a signed length":        "POST /services/hello/a HTTP/1.1\r\nHost: edge\r\nContent-Length: +3\r\n\r\nabc",
		"two hosts":              "GET /services/hello/a HTTP/1.1\r\nHost: edge\r\nHost: other\r\n\r\n",
		"no host":                "GET /services/hello/a HTTP/1.1\r\n\r\n",
		"within a body":          "POST /services/hello/a HTTP/1.1\r\nHost: edge\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked,
		"h2c in an upgrade":      "GET /services/hello/a HTTP/1.1\r\nHost: edge\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			answer, ok := p.Exchange(t, "gateway", "POST", []byte(request))
			if ok {
				require.NotEqual(t, 101, answer.Status)
			}
			for _, s := range producer.Seen() {
				require.NotContains(t, s.Path, "admin")
			}
		})
	}
	p.Gateway(t).Get("/services/hello/").Seen()
	for _, method := range []string{"CONNECT", "TRACE"} {
		answer, ok := p.Exchange(t, "gateway", method, []byte(method+" /services/hello/ HTTP/1.1\r\nHost: edge\r\n\r\n"))
		require.True(t, ok)
		require.GreaterOrEqual(t, answer.Status, 400, method)
	}
}

func TestServicesLeadToNoPlaceTheyMustNot(t *testing.T) {
	t.Parallel()
	producer := harness.NewProducer(t, "hello", nil)
	p := harness.Start(t, harness.Secure())
	m := p.GatewayManagement(t)
	a, keys := appOf(t, p)
	c := p.Gateway(t).With(keys.Fetch(p.Auth(t)).AccessToken)
	_, port, _ := strings.Cut(p.Addr("mp1"), ":")
	for name, uri := range map[string]string{
		"Mp1":                "https://" + p.Addr("mp1") + "/",
		"Mm5":                "https://" + p.Addr("mm5") + "/",
		"the token service":  "https://" + p.Addr("auth") + "/",
		"operations":         "http://" + p.Addr("ops") + "/metrics",
		"the gateway itself": "https://" + p.Addr("gateway") + "/",
		"its management":     "https://" + p.Addr("gateway-management") + "/",
		"the DNS management": "https://" + p.Addr("dns-management") + "/",
		"IPv4 in IPv6":       "http://[::ffff:127.0.0.1]:" + port + "/",
		"a link-local one":   "http://169.254.169.254/latest/meta-data/",
		"of IPv6":            "http://[fe80::1]/",
		"no address":         "http://0.0.0.0:" + port + "/",
		"all hosts":          "http://224.0.0.1/",
		"a metadata service": "http://[fd00:ec2::254]/",
	} {
		t.Run(name, func(t *testing.T) {
			refused := a.with(p.Client(t).With(keys.Fetch(p.Auth(t)).AccessToken)).Post(a.services(), served("evil", uri))
			if refused.Status == 401 || refused.Status == 403 {
				t.Fatalf("%s", refused.Body)
			}
			require.NotEmpty(t, refused.Problem(400).InvalidParams)
			answer := p.GatewayManagement(t).Put(gatewayRoot+"/routes/evil", object{"paths": []any{"/evil/**"}, "urls": []any{uri}})
			if answer.Status < 300 {
				require.GreaterOrEqual(t, c.Get("/evil/").Status, 500)
			}
		})
	}
	// What cannot be seen from an address is found out when it is called.
	for _, host := range []string{"localhost", "127.1", "0x7f000001", "2130706433", "017700000001"} {
		u, err := url.Parse(producer.URL)
		require.NoError(t, err)
		target := "http://" + host + ":" + u.Port()
		if answer := a.Post(a.services(), served("sly", target)); answer.Status == 201 {
			answered(t, c, 502, "/services/sly/")
			a.remove(answer.Object()["serInstanceId"].(string))
		}
	}
	svc := a.register(served("loop", producer.URL))
	require.GreaterOrEqual(t, c.Get("/services/loop/").Status, 500, "loopback is not called unless the operator says so")
	require.Empty(t, producer.Seen())
	view := fmt.Sprint(m.Get(gatewayRoot + "/routes/instance:" + svc.id).Is(200).Object())
	require.Contains(t, view, "loopback")
	p.Restart(toLoopback())
	c = p.Gateway(t).With(keys.Fetch(p.Auth(t)).AccessToken)
	reached(t, c, "/services/loop/")
	route(p.GatewayManagement(t), "self", object{"paths": []any{"/self/**"}, "urls": []any{"https://localhost:" + strings.Split(p.Addr("gateway-management"), ":")[1]}})
	c.Get("/self/gateway/v1/routes").Problem(502) // whoever allows loopback does not allow the platform itself
}

func TestTwoPlatformsInFrontOfEachOtherDoNotGoInCircles(t *testing.T) {
	t.Parallel()
	one, two := harness.Start(t), harness.Start(t)
	route(one.GatewayManagement(t), "round", object{"paths": []any{"/round/**"}, "urls": []any{two.URL("gateway")}})
	route(two.GatewayManagement(t), "round", object{"paths": []any{"/round/**"}, "urls": []any{one.URL("gateway")}})
	begin := time.Now()
	one.Gateway(t).Get("/round/x").Problem(502)
	require.Less(t, time.Since(begin), harness.Patience)
	records := append(one.AccessRecords(t, 1, all), two.AccessRecords(t, 1, all)...)
	require.Less(t, len(records), 20)

	producer := harness.NewProducer(t, "hello", nil)
	newApp(two.Client(t)).register(served("hello", producer.URL))
	reached(t, two.Gateway(t), "/services/hello/")
	route(one.GatewayManagement(t), "far", object{"paths": []any{"/far/**"}, "urls": []any{two.URL("gateway")}, "rewrite": "/services/hello/{rest}"})
	seen := one.Gateway(t).Get("/far/x", harness.Header("X-Request-Id", "both")).Seen()
	require.Equal(t, []string{"1.1 mep, 1.1 mep"}, seen.Names("Via"))
	require.Equal(t, []string{"both"}, seen.Names("X-Request-Id"), "one call is found in the records of both")
	_, key := apiKey(one.GatewayManagement(t), "c", nil)
	require.Empty(t, one.Gateway(t).Get("/far/x", keyed(key)).Seen().Names("X-AppInstanceID"), "who calls is for the next one to find out")
}

func all(object) bool { return true }

func TestAServiceThatIsSilentLeavesTheTable(t *testing.T) {
	t.Parallel()
	producer := harness.NewProducer(t, "hello", nil)
	p := harness.Start(t, harness.Args("--liveness-min=1s"))
	c := p.Gateway(t)
	a := newApp(p.Mp1AtGateway(t))
	svc := a.register(but(served("hello", producer.URL), "livenessInterval", 1))
	reached(t, c, "/services/hello/")
	answered(t, c, 404, "/services/hello/")
	answered(t, c, 404, "/instances/"+svc.id+"/")
	require.Equal(t, "SUSPENDED", a.state(svc.id))
	a.beat(svc.id).Is(204)
	reached(t, c, "/services/hello/")
	other := newApp(p.Client(t))
	for range 10 { // what is answered at Mp1 is true at the gateway within moments
		s := other.register(served("fast", producer.URL))
		reached(t, c, "/instances/"+s.id+"/")
		other.replace(s.id, but(served("fast", producer.URL), "state", "INACTIVE"))
		answered(t, c, 404, "/instances/"+s.id+"/")
		other.replace(s.id, served("slow", producer.URL))
		reached(t, c, "/services/slow/")
		answered(t, c, 404, "/services/fast/")
		other.remove(s.id)
		answered(t, c, 404, "/services/slow/")
	}
}

func TestLoadIsBalancedAndFailuresAreGoneAround(t *testing.T) {
	t.Parallel()
	one, two := harness.NewProducer(t, "one", nil), harness.NewProducer(t, "two", nil)
	dead := harness.NewProducer(t, "dead", nil)
	dead.Close()
	p := harness.Start(t)
	m, c := p.GatewayManagement(t), p.Gateway(t)
	newApp(p.Client(t)).register(served("hello", one.URL, dead.URL))
	newApp(p.Client(t)).register(served("hello", two.URL))
	got := make(map[string]int)
	harness.Eventually(t, "both are used", func() error {
		got[reached(t, c, "/services/hello/").Producer]++
		return harness.Not(got["one"] > 0 && got["two"] > 0, "%v", got)
	})
	for range 60 {
		c.Get("/services/hello/").Seen() // what could not be delivered goes elsewhere
	}
	states := fmt.Sprint(m.Get(gatewayRoot + "/upstreams").Is(200).Array())
	require.Contains(t, states, "ejected")
	healthy := harness.NewProducer(t, "healthy", func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/health" {
			w.WriteHeader(503)
			return
		}
		_, _ = w.Write([]byte("here"))
	})
	route(m, "checked", object{
		"paths": []any{"/checked"}, "urls": []any{healthy.URL, one.URL},
		"policy": object{"upstream": object{"healthCheck": object{"path": "/health", "interval": "100ms"}}},
	})
	harness.Eventually(t, "the one that is not well is left out", func() error {
		text := fmt.Sprint(m.Get(gatewayRoot + "/routes/checked").Is(200).Object()["targets"])
		return harness.Not(strings.Contains(text, "unhealthy"), "%s", text)
	})
	for range 20 {
		require.Equal(t, "one", c.Get("/checked").Seen().Producer)
	}
}
