package match_test

import (
	"bufio"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/gateway/match"
	"github.com/openmep/mep/kit/errs"
)

// request parses a request line as the server does.
func request(t *testing.T, line string) *http.Request {
	t.Helper()
	r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(line + " HTTP/1.1\r\nHost: a\r\n\r\n")))
	require.NoError(t, err)
	return r
}

// clean parses a path, which must be clean.
func clean(t testing.TB, raw string) *match.Path {
	t.Helper()
	var p match.Path
	require.NoError(t, p.Parse(raw))
	return &p
}

func names(p *match.Path) []string {
	list := []string{}
	for _, s := range p.Segments() {
		list = append(list, s.Name)
	}
	return list
}

func TestPathsAreCutIntoSegments(t *testing.T) {
	for raw, want := range map[string][]string{
		"/":                         {},
		"/a":                        {"a"},
		"/a/":                       {"a"},
		"/a/b.c/...":                {"a", "b.c", "..."},
		"/a%20b/%c3%bc":             {"a b", "ü"},
		"/a;v=1/b;c;d/e%3bf":        {"a", "b", "e"},
		"/.a/a./..a":                {".a", "a.", "..a"},
		"/a:b@c/~!$&'()*+,=/100%25": {"a:b@c", "~!$&'()*+,=", "100%"},
	} {
		p := clean(t, raw)
		require.Equal(t, want, names(p), raw)
		require.Equal(t, raw, p.Raw())
		joined := ""
		for i, s := range p.Segments() {
			joined += "/" + s.Raw
			text, err := url.PathUnescape(s.Raw)
			require.NoError(t, err)
			require.Equal(t, text, s.Text)
			require.Equal(t, raw, joined+p.After(i+1))
		}
		require.Equal(t, raw, p.After(0))
	}
}

func TestWhatFollowsTheFirstSegments(t *testing.T) {
	p := clean(t, "/a/%62/c/")
	for n, want := range map[int]string{-1: "/a/%62/c/", 0: "/a/%62/c/", 1: "/%62/c/", 2: "/c/", 3: "/", 9: "/"} {
		require.Equal(t, want, p.After(n), n)
	}
	require.Empty(t, clean(t, "/a/b").After(2))
	require.Equal(t, "/", clean(t, "/").After(3))
	require.Empty(t, new(match.Path).After(1))
	require.Empty(t, clean(t, "").Segments())
}

func TestTricksAreRefusedAndNamed(t *testing.T) {
	const (
		dots       = `must not have the segments "." and ".."`
		empty      = "must not have an empty segment"
		slash      = "must not have an encoded slash"
		backslash  = "must not have a backslash"
		control    = "must not have control characters"
		twice      = "encoded twice"
		parameters = "must not have a segment of parameters alone"
		form       = "must be a path"
	)
	for line, want := range map[string]string{
		"GET /a/../b": dots, "GET /..": dots, "GET /.": dots, "GET /a/.": dots, "GET /a/./b": dots, "GET /a/%2e%2e/b": dots,
		"GET /a/%2E./b": dots, "GET /a/.%2e": dots, "GET /a/..;/b": dots, "GET /a/..;x=y/b": dots, "GET /a/%2e%2e;x": dots,
		"GET /a/..%3bx": dots, "GET /a/.;": dots,
		"GET //": empty, "GET //a": empty, "GET /a//b": empty, "GET /a//": empty, "GET ///": empty,
		"GET /a%2fb": slash, "GET /a%2Fb": slash, "GET /%2f": slash, "GET /a/..%2fb": slash,
		`GET /a\b`: backslash, "GET /a%5cb": backslash, "GET /a%5Cb": backslash, `GET /..\a`: backslash,
		"GET /a%00": control, "GET /%0a": control, "GET /a%0d%0ab": control, "GET /%7f": control, "GET /%1F": control,
		"GET /%252e%252e": twice, "GET /a%252fb": twice, "GET /a%255cb": twice, "GET /%2500": twice, "GET /%25252e": twice,
		"GET /..%253bx": twice, "GET /a%25252525252525": twice,
		"GET /;": parameters, "GET /a/;b/c": parameters, "GET /%3bx": parameters,
		"GET http://a/b": form, "GET http://a": form, "GET a:b": form, "CONNECT a:80": form, "OPTIONS http://a/": form, "GET *": form,
	} {
		t.Run(line, func(t *testing.T) {
			r := request(t, line)
			var p match.Path
			err := p.Clean(r.Method, r.URL)
			require.ErrorIs(t, err, errs.Invalid)
			require.ErrorContains(t, err, want)
			require.Empty(t, p.Segments(), "nothing of it is left to go on with")
			require.Empty(t, p.Raw())
		})
	}
}

func TestPathsWithTooManySegmentsAreRefused(t *testing.T) {
	var p match.Path
	require.NoError(t, p.Parse(strings.Repeat("/a", match.MaxSegments)+"/"))
	require.ErrorContains(t, p.Parse(strings.Repeat("/a", match.MaxSegments+1)), "must have at most 256 segments")
}

func TestBrokenEncodingsAreRefused(t *testing.T) {
	for _, raw := range []string{"/%", "/a%2", "/%zz/b", "/%2g", "a", "*"} {
		require.ErrorIs(t, new(match.Path).Parse(raw), errs.Invalid, raw)
	}
	// The server refuses these earlier; for a URL made in another way, the decoded path counts.
	u := &url.URL{Path: "/a", RawPath: "/%zz"}
	var p match.Path
	require.NoError(t, p.Clean(http.MethodGet, u))
	require.Equal(t, "/a", p.Raw())
}

func TestTargetsAreReadAsTheServerReadsThem(t *testing.T) {
	for line, want := range map[string]string{
		"GET /a%2Cb?x=/../": "/a%2Cb", "GET /é": "/%C3%A9", "GET /a[b]": "/a[b]", "GET /%61": "/%61", "GET /a?": "/a",
		`GET /a"b`: "/a%22b", "GET /?//": "/", "OPTIONS *": "*",
	} {
		r := request(t, line)
		var p match.Path
		require.NoError(t, p.Clean(r.Method, r.URL), line)
		require.Equal(t, want, p.Raw(), line)
		require.Equal(t, line == "OPTIONS *", p.Asterisk())
	}
}

func TestPathsAreUsedAgain(t *testing.T) {
	var p match.Path
	u := &url.URL{Path: "/services/weather/v1/forecast"}
	require.NoError(t, p.Clean(http.MethodOptions, &url.URL{Path: "*"}))
	require.NoError(t, p.Clean(http.MethodGet, u))
	require.False(t, p.Asterisk())
	require.Equal(t, []string{"services", "weather", "v1", "forecast"}, names(&p))
	require.Zero(t, testing.AllocsPerRun(100, func() { _ = p.Clean(http.MethodGet, u) }))
	p.Reset()
	require.Empty(t, p.Raw())
}

func TestSetPathSendsWhatItIsGiven(t *testing.T) {
	for _, raw := range []string{"", "/", "/a%20b/%2C;x/", "/a[b]!", "/a,b", "/100%25"} {
		var u url.URL
		match.SetPath(&u, raw)
		require.Equal(t, raw, u.EscapedPath())
		text, err := url.PathUnescape(raw)
		require.NoError(t, err)
		require.Equal(t, text, u.Path)
	}
}

// FuzzPath checks that an accepted path is split without loss, and refers to nothing above or beside what it seems to refer to.
func FuzzPath(f *testing.F) {
	for _, s := range []string{"/", "/a/b", "/a//b", "/a/../b", "/%2e%2e/", "/a;b/c", "/a%2fb", `/a\b`, "/%00", "/%", "/a/", "//a", "/é"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		var p match.Path
		if err := p.Parse(raw); err != nil {
			require.ErrorIs(t, err, errs.Invalid)
			return
		}
		joined, again := "", new(match.Path)
		for i, s := range p.Segments() {
			joined += "/" + s.Raw
			require.NotEmpty(t, s.Name)
			require.NotContains(t, []string{".", ".."}, s.Name)
			require.False(t, strings.ContainsAny(s.Text, "/\\\x00\r\n"))
			require.Equal(t, raw, joined+p.After(i+1))
			require.NoError(t, again.Parse(p.After(i)))
			require.Equal(t, names(&p)[i:], names(again))
		}
		require.Contains(t, []string{raw, strings.TrimSuffix(raw, "/")}, joined)
		// The server parses it in the same way.
		if u, err := url.ParseRequestURI(raw); err == nil && u.EscapedPath() == raw && u.Host == "" {
			require.NoError(t, again.Clean(http.MethodGet, u))
			require.Equal(t, names(&p), names(again))
		}
	})
}
