package match_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/api/gateway"
	"github.com/openmep/mep/gateway/match"
	"github.com/openmep/mep/kit/errs"
)

// apply returns the path that a route with one pattern forwards.
func apply(t *testing.T, route gateway.Route, raw string) string {
	t.Helper()
	w, err := match.NewRewriter(&route)
	require.NoError(t, err)
	p, err := match.NewPattern(route.Paths[0])
	require.NoError(t, err)
	path := clean(t, raw)
	require.True(t, p.Match(path.Segments()), "%s does not match %s", raw, p)
	return w.Apply(path, p)
}

func TestWhatIsPassedOn(t *testing.T) {
	for name, x := range map[string]struct {
		route gateway.Route
		path  string
		want  string
	}{
		"everything":              {gateway.Route{Paths: []string{"/**"}}, "/a%20b/c;x=1/", "/a%20b/c;x=1/"},
		"root":                    {gateway.Route{Paths: []string{"/"}}, "/", "/"},
		"stripped":                {gateway.Route{Paths: []string{"/a/**"}, Strip: 1}, "/a/b%2Cc/", "/b%2Cc/"},
		"stripped to nothing":     {gateway.Route{Paths: []string{"/a/**"}, Strip: 1}, "/a", ""},
		"stripped to a slash":     {gateway.Route{Paths: []string{"/a/**"}, Strip: 1}, "/a/", "/"},
		"stripped by more":        {gateway.Route{Paths: []string{"/a/**"}, Strip: 9}, "/a/b", ""},
		"rewritten":               {gateway.Route{Paths: []string{"/team/*/members/*"}, Rewrite: "/v2/{2}/of/{1}"}, "/team/a%20b/members/c;d", "/v2/c;d/of/a%20b"},
		"one thing for all":       {gateway.Route{Paths: []string{"/a/*"}, Rewrite: "/b"}, "/a/c/", "/b"},
		"rest":                    {gateway.Route{Paths: []string{"/a/**"}, Rewrite: "/b/{rest}"}, "/a/c/%20/", "/b/c/%20/"},
		"no rest":                 {gateway.Route{Paths: []string{"/a/**"}, Rewrite: "/b/{rest}"}, "/a", "/b"},
		"rest of a slash":         {gateway.Route{Paths: []string{"/a/**"}, Rewrite: "/b/{rest}"}, "/a/", "/b/"},
		"rest alone":              {gateway.Route{Paths: []string{"/a/**"}, Rewrite: "/{rest}"}, "/a/b", "/b"},
		"no rest alone":           {gateway.Route{Paths: []string{"/a/**"}, Rewrite: "/{rest}"}, "/a", ""},
		"rest of the root":        {gateway.Route{Paths: []string{"/**"}, Rewrite: "/b/{rest}"}, "/", "/b/"},
		"everything below":        {gateway.Route{Paths: []string{"/**"}, Rewrite: "/b/{rest}"}, "/c/d", "/b/c/d"},
		"segment and rest":        {gateway.Route{Paths: []string{"/*/x/**"}, Rewrite: "/{1}/{rest}"}, "/a/x/b", "/a/b"},
		"slash in the definition": {gateway.Route{Paths: []string{"/a"}, Rewrite: "/b/"}, "/a", "/b/"},
	} {
		t.Run(name, func(t *testing.T) {
			require.Equal(t, x.want, apply(t, x.route, x.path))
		})
	}
}

func TestRewritersOfWrongRoutes(t *testing.T) {
	for want, r := range map[string]gateway.Route{
		"rewrite must not have {2}":              {Paths: []string{"/*/*", "/*"}, Rewrite: "/{2}"},
		"paths[0] must be a path":                {Paths: []string{"a"}, Rewrite: "/b"},
		"rewrite must be a path that begins":     {Paths: []string{"/a"}, Rewrite: "b"},
		`rewrite must not have {rest}: the path`: {Paths: []string{"/a/**", "/b"}, Rewrite: "/{rest}"},
	} {
		_, err := match.NewRewriter(&r)
		require.ErrorIs(t, err, errs.Invalid)
		require.ErrorContains(t, err, want)
	}
}

func TestCaptures(t *testing.T) {
	p, err := match.NewPattern("/*/x/*/**")
	require.NoError(t, err)
	path := clean(t, "/a%20b/x/c;d/e/f")
	require.True(t, p.Match(path.Segments()))
	require.Equal(t, "a%20b", p.Star(path, 1))
	require.Equal(t, "c;d", p.Star(path, 2))
	require.Equal(t, "/e/f", p.RestOf(path))
	require.Empty(t, p.Star(path, 0))
	require.Empty(t, p.Star(path, 3))
	require.Empty(t, p.Star(clean(t, "/a"), 2), "of a path that does not match")
	fixed, err := match.NewPattern("/a")
	require.NoError(t, err)
	require.Empty(t, fixed.RestOf(clean(t, "/a/b")))
}

// FuzzRewrite checks that a forwarded path is clean again and contains only what the route and the request path provide.
func FuzzRewrite(f *testing.F) {
	f.Add("/a/*/**", "/b/{1}/{rest}", "/a/x/y/", 0)
	f.Add("/*/**", "/{rest}", "/%2561/b;c", 1)
	f.Add("/*/*", "/{2}/%20/{1}/", "/a/%25", 0)
	f.Fuzz(func(t *testing.T, pattern, rewrite, raw string, strip int) {
		route := &gateway.Route{Paths: []string{pattern}, Rewrite: rewrite, Strip: strip}
		p, err := match.NewPattern(pattern)
		if err != nil {
			require.ErrorIs(t, err, errs.Invalid)
			return
		}
		w, err := match.NewRewriter(route)
		var path match.Path
		if err != nil || path.Parse(raw) != nil || !p.Match(path.Segments()) {
			return
		}
		passed := w.Apply(&path, p)
		var again match.Path
		require.NoError(t, again.Parse(passed), "%q", passed)
		if rewrite == "" {
			require.True(t, strings.HasSuffix(raw, passed))
		}
	})
}
