package gateway_test

import (
	"net/url"
	"path"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/api/gateway"
)

func TestPatternsAreParsed(t *testing.T) {
	for s, want := range map[string]gateway.Pattern{
		"/":                 {},
		"/**":               {Rest: true},
		"/*":                {Literals: []string{""}},
		"/team/*/members":   {Literals: []string{"team", "", "members"}},
		"/a%20b/%c3%bc/**":  {Literals: []string{"a b", "ü"}, Rest: true},
		"/a/...":            {Literals: []string{"a", "..."}},
		"/-._~!$&'()+,=:@a": {Literals: []string{"-._~!$&'()+,=:@a"}},
		"/100%25":           {Literals: []string{"100%"}},
	} {
		p, err := gateway.ParsePattern(s)
		require.NoError(t, err, s)
		require.Equal(t, want, p, s)
		again, err := gateway.ParsePattern(p.String())
		require.NoError(t, err, s)
		require.Equal(t, want, again, s)
	}
}

func TestRewritesAreParsed(t *testing.T) {
	all, err := gateway.ParsePattern("/*/*/**")
	require.NoError(t, err)
	for s, want := range map[string]gateway.Rewrite{
		"/":               {Parts: []gateway.RewritePart{{Text: "/"}}},
		"/{rest}":         {Rest: true},
		"/a/b/":           {Parts: []gateway.RewritePart{{Text: "/a/b/"}}},
		"/{2}":            {Parts: []gateway.RewritePart{{Star: 2}}},
		"/{2}/":           {Parts: []gateway.RewritePart{{Star: 2}, {Text: "/"}}},
		"/a/{1}/{2}/b":    {Parts: []gateway.RewritePart{{Text: "/a"}, {Star: 1}, {Star: 2}, {Text: "/b"}}},
		"/{1}/%20/{rest}": {Parts: []gateway.RewritePart{{Star: 1}, {Text: "/%20"}}, Rest: true},
	} {
		r, err := gateway.ParseRewrite(s, all)
		require.NoError(t, err, s)
		require.Equal(t, want, r, s)
	}
	for _, s := range []string{"", "a", "//", "/a//b", "//{rest}", "/a//{rest}", "/{0}", "/{10}", "/{3}", "/{a}", "/{", "/}", "/{1}x", "/{rest}/", "/..", "/{1}/../{2}", "/a?b", "/a#b", "/%2f"} {
		_, err := gateway.ParseRewrite(s, all)
		require.Error(t, err, s)
	}
}

func TestHostsHaveOneForm(t *testing.T) {
	for s, want := range map[string]string{
		"WWW.Example.com.": "www.example.com", "*.A.b": "*.a.b", "a": "a", "192.0.2.1": "192.0.2.1", "[2001:DB8:0::1]": "2001:db8::1",
		"::ffff:192.0.2.1": "192.0.2.1", "a_b": "a_b",
	} {
		host, ok := gateway.CanonicalHost(s)
		require.True(t, ok, s)
		require.Equal(t, want, host)
	}
	for _, s := range []string{"", ".", "*", "*.", "a..b", "a:80", "[a]", "::1]", "-a", "a-", "ü", "a b", "a/b", strings.Repeat("a.", 127) + "a"} {
		_, ok := gateway.CanonicalHost(s)
		require.False(t, ok, s)
	}
}

// lenient decodes a segment like a careless server: repeatedly, and wherever it can.
func lenient(segment string) string {
	encoded := regexp.MustCompile("%[0-9A-Fa-f]{2}")
	for encoded.MatchString(segment) {
		segment = encoded.ReplaceAllStringFunc(segment, func(s string) string {
			n, _ := strconv.ParseUint(s[1:], 16, 8)
			return string([]byte{byte(n)})
		})
	}
	return segment
}

// FuzzSegment checks that an accepted segment stays one segment, whatever a server makes of it.
func FuzzSegment(f *testing.F) {
	for _, s := range []string{"a", ".", "..", "%2e", "%2E%2e", "..;a=b", "..%3ba", "%252e%252e", "%25%32%65", "a%2fb", `a\b`, "%5c", "%00", "%zz", "%", ";a", "%25252e", "%25zz%252f", "%2500", "%25%32%66"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if s == "" || strings.Contains(s, "/") {
			return
		}
		text, name, err := gateway.ParseSegment(s)
		if err != nil {
			return
		}
		decoded, err := url.PathUnescape(s)
		require.NoError(t, err)
		require.Equal(t, decoded, text)
		require.True(t, strings.HasPrefix(text, name))
		seen := lenient(s)
		bare, _, _ := strings.Cut(seen, ";")
		for _, seen := range []string{text, name, seen, bare} {
			require.NotContains(t, seen, "/")
			require.NotContains(t, seen, `\`)
			require.NotContains(t, seen, "\x00")
			require.NotEmpty(t, seen)
			require.NotEqual(t, "/", path.Clean("/"+seen))
			require.Equal(t, "/x/"+seen, path.Clean("/x/"+seen))
		}
	})
}

// FuzzPattern checks that accepted patterns and rewrites survive a round trip through their text.
func FuzzPattern(f *testing.F) {
	for _, s := range []string{"/", "/a/*/b", "/**", "/*/**", "/a%20b", "/{1}/x/{rest}", "/{2}/"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if p, err := gateway.ParsePattern(s); err == nil {
			again, err := gateway.ParsePattern(p.String())
			require.NoError(t, err)
			require.Equal(t, p, again)
			require.LessOrEqual(t, len(p.Literals), gateway.MaxSegments)
		}
		all, err := gateway.ParsePattern("/*/*/*/*/*/*/*/*/*/**")
		require.NoError(t, err)
		if r, err := gateway.ParseRewrite(s, all); err == nil {
			var b strings.Builder
			for _, part := range r.Parts {
				b.WriteString(part.Text)
				if part.Star > 0 {
					b.WriteString("/{" + string(rune('0'+part.Star)) + "}")
				}
			}
			if r.Rest {
				b.WriteString("/{rest}")
			}
			require.Equal(t, s, b.String())
		}
	})
}
