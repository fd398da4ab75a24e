package gateway_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/api/gateway"
	"github.com/openmep/mep/api/problem"
)

// checked is a request type with checks.
type checked interface {
	Check(faults *problem.InvalidParams)
}

// faultsOf decodes body into dst and returns its faults, one sentence for each.
func faultsOf(t *testing.T, dst checked, body string) []string {
	t.Helper()
	require.NoError(t, json.Unmarshal([]byte(body), dst), body)
	var faults problem.InvalidParams
	dst.Check(&faults)
	var list []string
	for _, f := range faults {
		list = append(list, f.Name+" "+f.Reason)
	}
	return list
}

// requireFaults checks that there is exactly one fault for each element of want, in this order, and that it contains the text.
func requireFaults(t *testing.T, want, faults []string) {
	t.Helper()
	require.Len(t, faults, len(want), "%q", faults)
	for i := range want {
		require.Contains(t, faults[i], want[i])
	}
}

// certificate returns a new PEM certificate.
func certificate(t *testing.T) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	require.NoError(t, err)
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

func quoted(t *testing.T, s string) string {
	t.Helper()
	b, err := json.Marshal(s)
	require.NoError(t, err)
	return string(b)
}

func TestRoutesThatAreRight(t *testing.T) {
	for _, body := range []string{
		`{"id":"a","paths":["/team/*/members"],"urls":["http://192.0.2.1:8080"]}`,
		`{"id":"a","paths":["/"],"service":"any name at all: ü/;"}`,
		`{"id":"a.b-c_1","hosts":["www.example.com","*.Example.com.","192.0.2.1","2001:db8::1","[::1]"],"paths":["/**"],
			"urls":["https://a.example/base/?x=1","h2c://[2001:db8::1]:80","HTTP://b"]}`,
		`{"id":"a","hosts":["a"],"paths":["/services/**","/*/b"],"methods":["GET","M-SEARCH"],
			"headers":{"x-version":"*","Upgrade":"websocket"},"service":"s","strip":2,"priority":-3}`,
		`{"id":"a","paths":["/a/*/b/*/**"],"service":"s","rewrite":"/x/{2}/{1}/{rest}"}`,
		`{"id":"a","paths":["/a/**"],"service":"s","rewrite":"/{rest}"}`,
		`{"id":"a","paths":["/a%20b"],"service":"s"}`,
	} {
		faults := faultsOf(t, new(gateway.Route), body)
		require.Empty(t, faults, body)
	}
}

func TestFaultsOfRoutes(t *testing.T) {
	with := func(member string) string {
		return `{"id":"a","paths":["/a/*"],"service":"s",` + member + `}`
	}
	long := strings.Repeat("x", 64)
	for name, x := range map[string]struct {
		body string
		want []string
	}{
		"nothing":                {`{}`, []string{"id is required", "paths must have at least one path", "service is required, or urls instead"}},
		"id with a slash":        {with(`"id":"a/b"`), []string{`id must be 1 to 63 letters, digits, "-", "_" and ".", a letter or digit first, not "a/b"`}},
		"id with a dot first":    {with(`"id":".a"`), []string{`id must be 1 to 63`}},
		"long id":                {with(`"id":"` + long + `"`), []string{"id must be 1 to 63"}},
		"id of the platform":     {with(`"id":"platform.mp1"`), []string{`id must not begin with "platform."`}},
		"host with a port":       {with(`"hosts":["a:80"]`), []string{"hosts[0] must be a host name without a port"}},
		"wildcard amid a host":   {with(`"hosts":["a.*.b","*a.b","*"]`), []string{`hosts[0] must be a host name, or "*." and a name`, "hosts[1] must be", "hosts[2] must be"}},
		"host twice":             {with(`"hosts":["a","a"]`), []string{`hosts[1] must differ from hosts[0]: "a"`}},
		"half a bracket":         {with(`"hosts":["[::1","fe80::1%eth0"]`), []string{"hosts[0] must be", "hosts[1] must be"}},
		"too many hosts":         {with(`"hosts":["1","2","3","4","5","6","7","8","9","10","11","12","13","14","15","16","17"]`), []string{"hosts must have at most 16 elements, not 17"}},
		"relative path":          {with(`"paths":["a"]`), []string{`paths[0] must be a path that begins with "/", not "a"`}},
		"slash at the end":       {with(`"paths":["/a/"]`), []string{`paths[0] must not end with "/"`}},
		"star in a segment":      {with(`"paths":["/a*"]`), []string{`paths[0] must be a path whose segments are literal, "*", or at the end "**", not "a*"`}},
		"stars amid a path":      {with(`"paths":["/a/**/b"]`), []string{`paths[0] must have "**" at its end only`}},
		"braces":                 {with(`"paths":["/a/{id}"]`), []string{`paths[0] must be a path whose segments are literal`}},
		"tricks":                 {with(`"paths":["/a//b","/a/..","/a/%2e%2E","/a%2fb","/a/%5c","/a%00","/a/%zz","/a;b","/a/%252e"]`), []string{"paths[0] must not have an empty segment", `paths[1] must not have the segments`, "paths[2] must not have the segments", "paths[3] must not have an encoded slash", "paths[4] must not have a backslash", "paths[5] must not have control characters", "paths[6] must not have a \"%\"", "paths[7] must not have parameters", "paths[8] must not have dot segments, slashes, backslashes or control characters that are encoded twice"}},
		"not as in a URL":        {with(`"paths":["/a b","/ü","/a?b"]`), []string{`paths[0] must be written as in a URL: ' ' is to be percent-encoded`, "paths[1] must be written as in a URL", "paths[2] must be written as in a URL"}},
		"long path":              {with(`"paths":["/` + strings.Repeat(long, 16) + `"]`), []string{"paths[0] must be at most 1024 bytes long"}},
		"deep path":              {with(`"paths":["` + strings.Repeat("/a", 33) + `"]`), []string{"paths[0] must have at most 32 segments"}},
		"paths of the platform":  {with(`"paths":["/mep/x","/oauth2","/.well-known/*","/mec_service_mgmt/v1/**","/mec_app_support/a","/services/a","/instances/**","/gateway/v1","/MEP/x","/%6dep/x"]`), []string{`paths[0] must not begin with "/mep" in a route without hosts`, "paths[1]", "paths[2]", "paths[3]", "paths[4]", "paths[5]", "paths[6]", "paths[7]", "paths[8]", `paths[9] must not begin with "/mep"`}},
		"wildcards of all paths": {with(`"paths":["/*","/**","/*/a"]`), []string{"paths[0] must begin with a literal segment in a route without hosts", "paths[1] must begin with", "paths[2] must begin with"}},
		"methods":                {with(`"methods":["get","CONNECT","A B",""]`), []string{`methods[0] must be a method in capitals, not "get"`, "methods[1] must not be CONNECT", "methods[2] must be a method", "methods[3] must be a method"}},
		"conditions":             {with(`"headers":{"Host":"a","X-AppInstanceId":"a","x-consumer-scopes":"*","a b":"c","X":"","Y":"a\nb","Z":" a"}`), []string{"headers.Host must not be a condition: hosts is for that", "headers.X must have a value", "headers.X-AppInstanceId must not be a condition", "headers.Y must not have control characters", "headers.Z must not begin or end with white space", `headers has a member that must be the name of a header field of at most 128 characters, not "a b"`, "headers.x-consumer-scopes must not be a condition"}},
		"condition twice":        {with(`"headers":{"X-A":"1","x-a":"2"}`), []string{"headers.x-a is the same header field as X-A"}},
		"both targets":           {with(`"urls":["http://a"]`), []string{"service and urls must not both be present"}},
		"control in a name":      {with(`"service":"a\u0000"`), []string{"service must not have control characters"}},
		"URLs":                   {`{"id":"a","paths":["/a"],"urls":["a","ftp://a","http://","http://u:p@a","http://a#f","http://a:0","http://a:","http:a","http://a/../b","http://a/%2fb","http://a b","http://*.b","http://a","http://a"]}`, []string{"urls[0] must be an absolute URL of http, https or h2c", "urls[1] must be an absolute URL", "urls[2] must be a URL with a host", "urls[3] must not have a user name or password", "urls[4] must not have a fragment", "urls[5] must have a port of 1 to 65535", "urls[6] must have a port", "urls[7] must be a URL", "urls[8] must not have the segments", "urls[9] must not have an encoded slash", "urls[10] must be a URL", "urls[11] must be a URL with a host", "urls[13] must differ from urls[12]"}},
		"strip":                  {with(`"strip":33`), []string{"strip must be 0 to 32, not 33"}},
		"strip and rewrite":      {with(`"strip":1,"rewrite":"/b"`), []string{"strip must be absent where rewrite is given"}},
		"star that is not there": {with(`"rewrite":"/b/{2}"`), []string{`rewrite must not have {2}: the path /a/* has 1 "*"`}},
		"rest that is not there": {with(`"rewrite":"/b/{rest}"`), []string{`rewrite must not have {rest}: the path /a/* does not end with "**"`}},
		"rest amid a path":       {`{"id":"a","paths":["/a/**"],"service":"s","rewrite":"/b/{rest}/c"}`, []string{`rewrite must be a path whose segments are literal, "{1}" to "{9}", or at the end "{rest}"`}},
		"part of a segment":      {with(`"rewrite":"/b{1}"`), []string{"rewrite must be a path whose segments are literal"}},
		"rewritten beyond":       {with(`"rewrite":"/b/../{1}"`), []string{"rewrite must not have the segments"}},
		"rewritten with a query": {with(`"rewrite":"/b?a"`), []string{"rewrite must be written as in a URL"}},
		"rewritten to no path":   {with(`"rewrite":"b"`), []string{`rewrite must be a path that begins with "/"`}},
		"priority":               {with(`"priority":1000001`), []string{"priority must be -1000000 to 1000000, not 1000001"}},
		"policy":                 {with(`"policy":{"default":"perhaps"}`), []string{`policy.default must be allow or deny, not "perhaps"`}},
	} {
		t.Run(name, func(t *testing.T) {
			requireFaults(t, x.want, faultsOf(t, new(gateway.Route), x.body))
		})
	}
}

func TestUnknownMembersAreFaults(t *testing.T) {
	raw := json.RawMessage("1")
	var faults problem.InvalidParams
	r := gateway.Route{
		ID: "a", Paths: []string{"/a"}, Service: "s",
		Unknown: gateway.Unknown{"host": raw, "rewrites": raw, "somethingElse": raw, "a\nb": raw, "": raw},
		Policy: gateway.Policy{
			Unknown:      gateway.Unknown{"quotes": raw, "qoutas": raw},
			Rules:        []gateway.Rule{{Effect: gateway.Allow, Unknown: gateway.Unknown{"source": raw}}},
			ExternalAuth: &gateway.ExternalAuth{URL: "http://a", Unknown: gateway.Unknown{"failopen": raw}},
			Quotas:       []gateway.Quota{{Calls: 1, Per: "day", Unknown: gateway.Unknown{"per_": raw}}},
			SpikeArrest:  &gateway.SpikeArrest{Calls: 1, Per: "second", Unknown: gateway.Unknown{"bufer": raw}},
			Timeouts:     gateway.Timeouts{Unknown: gateway.Unknown{"conect": raw}},
			Upstream: gateway.Upstream{
				Unknown:     gateway.Unknown{"CA": raw},
				HealthCheck: &gateway.HealthCheck{Path: "/", Unknown: gateway.Unknown{"healthi": raw}},
			},
			Headers: gateway.Headers{Unknown: gateway.Unknown{"removes": raw}},
		},
	}
	r.Check(&faults)
	require.Equal(t, problem.InvalidParams{
		{Name: `""`, Reason: "is not a member here"},
		{Name: `"a\nb"`, Reason: "is not a member here"},
		{Name: "host", Reason: "is not a member here; did you mean hosts?"},
		{Name: "rewrites", Reason: "is not a member here; did you mean rewrite?"},
		{Name: "somethingElse", Reason: "is not a member here"},
		{Name: "policy.rules[0].source", Reason: "is not a member here; did you mean sources?"},
		{Name: "policy.externalAuth.failopen", Reason: "is not a member here; did you mean failOpen?"},
		{Name: "policy.quotas[0].per_", Reason: "is not a member here; did you mean per?"},
		{Name: "policy.spikeArrest.bufer", Reason: "is not a member here; did you mean buffer?"},
		{Name: "policy.timeouts.conect", Reason: "is not a member here; did you mean connect?"},
		{Name: "policy.upstream.healthCheck.healthi", Reason: "is not a member here; did you mean healthy?"},
		{Name: "policy.upstream.CA", Reason: "is not a member here; did you mean ca?"},
		{Name: "policy.headers.removes", Reason: "is not a member here; did you mean remove?"},
		{Name: "policy.qoutas", Reason: "is not a member here; did you mean quotas?"},
		{Name: "policy.quotes", Reason: "is not a member here; did you mean quotas?"},
	}, faults)
}

func TestFaultsAreNotListedWithoutEnd(t *testing.T) {
	var faults problem.InvalidParams
	p := gateway.Policy{Rules: make([]gateway.Rule, gateway.MaxRules)}
	p.Check(&faults)
	require.Len(t, faults, 50)
}

func TestOtherRequests(t *testing.T) {
	long := strings.Repeat("x", 1001)
	for name, x := range map[string]struct {
		dst  checked
		body string
		want []string
	}{
		"key":                     {new(gateway.APIKeyRequest), `{"consumer":"5abe4782-2c70-4e47-9a4e-0ee3a1a0fd1f","description":"ü","scopes":["mp1"],"services":["a b"],"lifetime":"720h"}`, nil},
		"key of nobody":           {new(gateway.APIKeyRequest), `{}`, []string{"consumer is required"}},
		"key of somebody odd":     {new(gateway.APIKeyRequest), `{"consumer":"a b"}`, []string{`consumer must be 1 to 63 letters, digits and characters of "-_.~:@", not "a b"`}},
		"key and its faults":      {new(gateway.APIKeyRequest), `{"consumer":"a","description":"` + long + `","scopes":["a b","a\"","","a","a"],"services":["","a\u0000"],"lifetime":"0s"}`, []string{"description must be at most 255 characters long", "scopes[0] must be a scope", "scopes[1] must be a scope", "scopes[2] must be a scope of 1 to 128", "scopes[4] must differ from scopes[3]", "services[0] is required", "services[1] must not have control", `lifetime must be 1s to 1752000h, not "0s"`}},
		"application":             {new(gateway.AccessApplication), `{"serName":"a","purpose":"two\nlines"}`, nil},
		"application for nothing": {new(gateway.AccessApplication), `{}`, []string{"serName is required, or serInstanceId instead"}},
		"application for both":    {new(gateway.AccessApplication), `{"serName":"a","serInstanceId":"b","purpose":"` + long + `","consumer":"\u0001"}`, []string{"serName and serInstanceId must not both be present", "purpose must be at most 1000 characters long", "consumer must not have control characters"}},
		"decision":                {new(gateway.AccessDecision), `{"state":"GRANTED"}`, nil},
		"no decision":             {new(gateway.AccessDecision), `{"reason":"` + long + `"}`, []string{"state is required: GRANTED or REFUSED", "reason must be at most 1000"}},
		"undecided":               {new(gateway.AccessDecision), `{"state":"PENDING"}`, []string{`state must be GRANTED or REFUSED, not "PENDING"`}},
		"question":                {new(gateway.ExplainRequest), `{"method":"GET","url":"/a//b/%2e?x","scopes":["mp1"],"source":"::1","headers":{"A":"b"}}`, nil},
		"question with a host":    {new(gateway.ExplainRequest), `{"method":"GET","url":"https://a:1/b"}`, nil},
		"question about nothing":  {new(gateway.ExplainRequest), `{}`, []string{"method is required", "url is required"}},
		"question and its faults": {new(gateway.ExplainRequest), `{"method":"G T","url":"a/b","source":"a","headers":{"A":"\n","b c":""}}`, []string{"method must be a method", `url must be an http or https URL, or a path that begins with "/"`, "source must be an IP address", "headers.A must not have control", "headers has a member that must be"}},
		"broken URL":              {new(gateway.ExplainRequest), `{"method":"GET","url":"/%zz"}`, []string{"url must be a URL, or a path"}},
	} {
		t.Run(name, func(t *testing.T) { requireFaults(t, x.want, faultsOf(t, x.dst, x.body)) })
	}
}

func TestChecksDoNotChangeWhatTheyCheck(t *testing.T) {
	body := `{"id":"a","hosts":["A.example."],"paths":["/%61/*"],"service":"s","rewrite":"/{1}","policy":{"rules":[{"effect":"deny"}]}}`
	var r gateway.Route
	require.Empty(t, faultsOf(t, &r, body))
	after, err := json.Marshal(&r)
	require.NoError(t, err)
	var was, is bytes.Buffer
	require.NoError(t, json.Compact(&was, []byte(body)))
	require.NoError(t, json.Compact(&is, after))
	require.JSONEq(t, was.String(), is.String())
}

func TestThePlatformDecidesWhoMayCallIt(t *testing.T) {
	for name, c := range map[string]struct {
		policy gateway.Policy
		want   string
	}{
		"authentication": {gateway.Policy{Authentication: []gateway.Method{gateway.ByAPIKey}}, "authentication has no effect on "},
		"sharing":        {gateway.Policy{Sharing: gateway.SharingOpen}, "sharing has no effect on "},
		"owners":         {gateway.Policy{Owners: []string{"0b8ce5b4-4f5c-4a3a-9d0e-5a2f2c2f3f10"}}, "owners has no effect on "},
		"limits":         {gateway.Policy{Concurrent: 4}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			for _, of := range []string{gateway.RouteMp1, gateway.RouteAuth, gateway.RouteAccess, "weather", gateway.AnyService} {
				var faults problem.InvalidParams
				c.policy.CheckFor(of, &faults)
				proven := of == gateway.RouteAccess && name == "authentication" // checked by the gateway itself
				if c.want == "" || proven || !strings.HasPrefix(of, "platform.") {
					require.Empty(t, faults, of)
				} else {
					require.ErrorContains(t, faults.Err(), c.want+of)
				}
			}
		})
	}
}
