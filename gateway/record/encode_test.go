package record

import (
	"encoding/json"
	"net/netip"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
)

// Parts of a token and a key, none of which may appear in a line. They are concatenated so as not to be mistaken for real ones.
const (
	token = "eyJ" + "hbGciOiJFUzI1NiJ9." + "eyJ" + "zdWIiOiJhcHAifQ." + "c2lnbmF0dXJlLXNpZw"
	key   = "mepk" + "_0123456789abcdefSECRETSECRET"
)

var at = time.Date(2026, 11, 23, 4, 5, 6, 7_008_900, time.FixedZone("", 3600))

func sample() *Entry {
	return &Entry{
		Time: at, RequestID: "r-1", TraceID: "0af7651916cd43dd8448eb211c80319c", Consumer: "app-1", Via: "token", Service: "video",
		Instance: "i-1", Route: "service.video", Method: "GET", Host: "mep.example", Path: "/services/video/rest/items", Query: "limit=10",
		Proto: "HTTP/2.0", UserAgent: "curl/8", Upstream: "192.0.2.7:8080", Client: netip.MustParseAddr("2001:db8::1"), Status: 200, Attempts: 1,
		Auth: 52 * time.Microsecond, FirstByte: 1500 * time.Microsecond, Total: 2 * time.Millisecond, BytesIn: 0, BytesOut: 2048,
	}
}

func encoded(t testing.TB, e *Entry, paths, query []string) string {
	t.Helper()
	m, err := compile(paths, query)
	require.NoError(t, err)
	var w line
	w.encode(m, e)
	return string(w.buf)
}

func TestLine(t *testing.T) {
	for name, c := range map[string]struct {
		entry *Entry
		want  string
	}{
		"all members, in order": {
			sample(), `{"time":"2026-11-23T03:05:06.007008Z","requestId":"r-1","client":"2001:db8::1","consumer":"app-1","via":"token",` +
				`"service":"video","instance":"i-1","route":"service.video","method":"GET","host":"mep.example",` +
				`"path":"/services/video/rest/items","query":"limit=10","proto":"HTTP/2.0","status":200,"upstream":"192.0.2.7:8080",` +
				`"attempts":1,"authMillis":0.052,"firstByteMillis":1.500,"totalMillis":2.000,"bytesIn":0,"bytesOut":2048,` +
				`"userAgent":"curl/8","traceId":"0af7651916cd43dd8448eb211c80319c"}`,
		},
		"what is empty is left out": {
			&Entry{Time: at.Add(time.Hour)}, `{"time":"2026-11-23T04:05:06.007008Z","status":0,"totalMillis":0.001,"bytesIn":0,"bytesOut":0}`,
		},
		"a mapped address, a reason, time held back": {
			&Entry{
				Time: at, Client: netip.MustParseAddr("::ffff:192.0.2.1"), Status: 429, Reason: `a "quota"` + "\n", Held: time.Second,
				Total: 12345678 * time.Microsecond,
			},
			`{"time":"2026-11-23T03:05:06.007008Z","client":"192.0.2.1","status":429,"reason":"a \"quota\"\n","heldMillis":1000.000,` +
				`"totalMillis":12345.678,"bytesIn":0,"bytesOut":0}`,
		},
		"strings that are too long": {
			&Entry{Time: at, Host: strings.Repeat("h", 255) + "🙂", Path: "/" + strings.Repeat("p", 2000), Query: strings.Repeat("q", 2000)},
			`{"time":"2026-11-23T03:05:06.007008Z","host":"` + strings.Repeat("h", 255) + `…","path":"/` + strings.Repeat("p", 1023) +
				`…","query":"` + strings.Repeat("q", 1024) + `…","status":0,"totalMillis":0.001,"bytesIn":0,"bytesOut":0}`,
		},
	} {
		t.Run(name, func(t *testing.T) { require.Equal(t, c.want+"\n", encoded(t, c.entry, nil, nil)) })
	}
}

func TestLinesOfManySeconds(t *testing.T) {
	m, err := compile(nil, nil)
	require.NoError(t, err)
	var w line
	for _, d := range []time.Duration{0, time.Millisecond, time.Second, 0, -time.Hour, 1 << 60} {
		w.encode(m, &Entry{Time: at.Add(d)})
		var got struct{ Time time.Time }
		require.NoError(t, json.Unmarshal(w.buf, &got))
		require.Equal(t, at.Add(d).UTC().Truncate(time.Microsecond), got.Time)
	}
}

func TestPathsAndQueriesAreMasked(t *testing.T) {
	type members struct{ Path, Query string }
	paths := []string{"/users/*/orders", "/teams/*", "/vault/**", "/a b/*", "/x/*/*"}
	for name, c := range map[string]struct{ in, want members }{
		"a segment":                         {members{Path: "/users/7/orders"}, members{Path: "/users/***/orders"}},
		"and what follows":                  {members{Path: "/users/7/orders/9"}, members{Path: "/users/***/orders/9"}},
		"at the end":                        {members{Path: "/teams/red/members"}, members{Path: "/teams/***/members"}},
		"two segments":                      {members{Path: "/x/1/2"}, members{Path: "/x/***/***"}},
		"all that follows":                  {members{Path: "/vault/a/b//c"}, members{Path: "/vault/***/***//***"}},
		"another path":                      {members{Path: "/users/7/bills"}, members{Path: "/users/7/bills"}},
		"a shorter path":                    {members{Path: "/users/7"}, members{Path: "/users/7"}},
		"empty segments":                    {members{Path: "//users//7/orders/"}, members{Path: "//users//***/orders/"}},
		"percent-encoded literals":          {members{Path: "/%75sers/7/orders"}, members{Path: "/%75sers/***/orders"}},
		"a literal that needs it":           {members{Path: "/a%20b/c"}, members{Path: "/a%20b/***"}},
		"a JWT in the path":                 {members{Path: "/s/" + token + "/x"}, members{Path: "/s/***/x"}},
		"an API key in the path":            {members{Path: "/s/" + key}, members{Path: "/s/***"}},
		"an API key in a part of it":        {members{Path: "/s/k;v=" + key + "/x"}, members{Path: "/s/***/x"}},
		"an encoded key in the path":        {members{Path: "/s/%6Depk_" + key[5:] + "/x"}, members{Path: "/s/***/x"}},
		"a token beyond what is written":    {members{Path: "/" + strings.Repeat("p", 1000) + token}, members{Path: "/***"}},
		"the name of a member":              {members{Query: "a=1&token=x&b=2"}, members{Query: "a=1&token=***&b=2"}},
		"upper case, - and _":               {members{Query: "Access-Token=x;APIKEY=y&clientSecret=z"}, members{Query: "Access-Token=***;APIKEY=***&clientSecret=***"}},
		"a percent-encoded name":            {members{Query: "%74oken=x&pass%77ord=y"}, members{Query: "%74oken=***&pass%77ord=***"}},
		"a name of the settings":            {members{Query: "CITY=Ulm&cities=1"}, members{Query: "CITY=***&cities=1"}},
		"a member without a value":          {members{Query: "token&token=&x"}, members{Query: "token&token=&x"}},
		"a value with =":                    {members{Query: "code=a=b=c&d==e"}, members{Query: "code=***&d==e"}},
		"a JWT under another name":          {members{Query: "q=" + token}, members{Query: "q=***"}},
		"an API key under another name":     {members{Query: "q=x" + key + "&" + key}, members{Query: "q=***&***"}},
		"an encoded JWT":                    {members{Query: "q=" + strings.ReplaceAll(token, ".", "%2e")}, members{Query: "q=***"}},
		"a long query with a secret late":   {members{Query: strings.Repeat("a=1&", 300) + "q=" + token}, members{Query: strings.Repeat("a=1&", 256) + "…"}},
		"percent signs that are no code":    {members{Path: "/%zz/%", Query: "%=%4&%4g=1"}, members{Path: "/%zz/%", Query: "%=%4&%4g=1"}},
		"what only begins like a token":     {members{Path: "/eyJabc.def", Query: "q=eyJ"}, members{Path: "/eyJabc.def", Query: "q=eyJ"}},
		"a name longer than those known":    {members{Query: strings.Repeat("token", 20) + "=1"}, members{Query: strings.Repeat("token", 20) + "=1"}},
		"a query that is nothing but signs": {members{Query: "&&;=&"}, members{Query: "&&;=&"}},
	} {
		t.Run(name, func(t *testing.T) {
			var got members
			require.NoError(t, json.Unmarshal([]byte(encoded(t, &Entry{Path: c.in.Path, Query: c.in.Query}, paths, []string{"c_i-ty"})), &got))
			require.Equal(t, c.want, got)
		})
	}
}

func TestCallsOfAnInstanceAreMaskedLikeThoseOfItsService(t *testing.T) {
	paths := []string{"/services/weather/users/*", "/services/*/vault/**", "/instances/*/plain"}
	for path, want := range map[string]string{
		"/services/weather/users/bob":    "/services/weather/users/***",
		"/instances/7/users/bob":         "/instances/7/users/***",
		"//%69nstances/7/users/bob/x":    "//%69nstances/7/users/***/x",
		"/instances/7/vault/a/b":         "/instances/***/vault/***/***",
		"/instances/7/plain":             "/instances/***/plain",
		"/instances/weather/users":       "/instances/weather/users",
		"/things/weather/users/bob":      "/things/weather/users/bob",
		"/instances/services/users/bob":  "/instances/services/users/***",
		"/services/7/users/bob":          "/services/7/users/bob",
		"/instances/7/other/users/bob":   "/instances/7/other/users/bob",
		"/x/instances/7/users/bob":       "/x/instances/7/users/bob",
		"/instances":                     "/instances",
		"/instances/7":                   "/instances/7",
		"/services/weather/users/%62ob/": "/services/weather/users/***/",
	} {
		require.Contains(t, encoded(t, &Entry{Path: path, Service: "weather"}, paths, nil), `"path":"`+want+`"`)
	}
	require.Contains(t, encoded(t, &Entry{Path: "/instances/7/users/bob", Service: "traffic"}, paths, nil), `"/instances/7/users/bob"`)
	require.Contains(t, encoded(t, &Entry{Path: "/instances/7/users/bob"}, paths, nil), `"/instances/7/users/bob"`, "nobody knows what it is of")
}

func TestDefaultNamesAreMasked(t *testing.T) {
	for _, name := range DefaultMaskQuery {
		for _, spelt := range []string{name, strings.ToUpper(name)} {
			require.Contains(t, encoded(t, &Entry{Query: spelt + "=hush"}, nil, nil), `"query":"`+spelt+`=***"`)
		}
	}
}

func TestNoSecretIsInAnyMember(t *testing.T) {
	for name, secret := range map[string]string{"token": token, "key": key} {
		for _, where := range []string{secret, "Bearer " + secret, "x" + secret + "\x00"} {
			t.Run(name+" in "+strings.ReplaceAll(where, secret, "…"), func(t *testing.T) {
				got := encoded(t, &Entry{
					RequestID: where, TraceID: where, Consumer: where, Via: where, Service: where, Instance: where, Route: where, Method: where,
					Host: where, Path: where, Query: where, Proto: where, UserAgent: where, Upstream: where, Reason: where,
				}, nil, nil)
				require.NotContains(t, got, secret[3:12])
				require.NotContains(t, got, secret[len(secret)-8:])
				require.Equal(t, 15, strings.Count(got, `"***"`))
			})
		}
	}
	got := encoded(t, &Entry{UserAgent: strings.Repeat("u", 200) + token}, nil, nil)
	require.Contains(t, got, `"userAgent":"***"`, "it is cut within the token")
}

func TestMasksThatAreRefused(t *testing.T) {
	for name, c := range map[string]struct {
		paths, query []string
		want         string
	}{
		"no slash":           {[]string{"users/*"}, nil, "begins with a slash"},
		"nothing to mask":    {[]string{"/users"}, nil, "has a segment"},
		"part of a segment":  {[]string{"/u*"}, nil, "is a segment"},
		"** in the middle":   {[]string{"/**/x"}, nil, "the last one"},
		"too many segments":  {[]string{strings.Repeat("/*", 65)}, nil, "at most 64"},
		"an empty name":      {nil, []string{"-"}, "1 to 64"},
		"a name too long":    {nil, []string{strings.Repeat("x", 65)}, "1 to 64"},
		"the second is that": {[]string{"/ok/*", "no"}, nil, `"no"`},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := compile(c.paths, c.query)
			require.ErrorContains(t, err, c.want)
		})
	}
}

// FuzzLine checks that every line is a single line of JSON, bounded, safe for a terminal, and free of secrets.
func FuzzLine(f *testing.F) {
	f.Add("/a/b", "token=x&b=%zz", "curl", "because", int64(5))
	f.Add("/users/\"\\\x00/orders", "\xff\xe2\x82;=&", "\u202e\x1b[2J", token, int64(-5))
	f.Add("/"+strings.Repeat("\x01", 3000), strings.Repeat("=&", 3000), strings.Repeat("🙂", 100), "%6depk_", int64(1<<62))
	m, err := compile([]string{"/users/*/orders", "/v/**"}, []string{"pin"})
	require.NoError(f, err)
	f.Fuzz(func(t *testing.T, path, query, agent, reason string, n int64) {
		var w line
		hidden := "h1dd3n" + token + key
		w.encode(m, &Entry{
			Time: at, Path: path + "/" + token + "/" + key, Query: query + "&x=" + token + "&y=" + key, UserAgent: agent, Reason: reason + hidden,
			Host: agent, RequestID: query, Status: int(n), Attempts: int(n), Total: time.Duration(n), Auth: time.Duration(n), BytesIn: n, BytesOut: n,
		})
		require.Less(t, len(w.buf), MinMaxBytes)
		require.True(t, utf8.Valid(w.buf))
		body, ended := strings.CutSuffix(string(w.buf), "}\n")
		require.True(t, ended)
		require.Negative(t, strings.IndexFunc(body, func(r rune) bool { return !unicode.IsPrint(r) }), "%q", body)
		var got map[string]any
		require.NoError(t, json.Unmarshal(w.buf, &got))
		require.NotContains(t, body, "c2lnbmF0dXJl")
		require.NotContains(t, body, "SECRETSECRET")
		require.NotContains(t, body, "h1dd3n")
	})
}
