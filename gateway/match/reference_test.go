package match_test

import (
	"cmp"
	"fmt"
	"net/http"
	"net/textproto"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/openmep/mep/api/gateway"
	"github.com/openmep/mep/gateway/match"
)

// way is one host and one path of a route.
type way struct {
	route *gateway.Route
	host  string // "" means any
	path  []string
}

// plainRequest is a request whose host and path have no unusual spelling.
type plainRequest struct {
	host, method string
	path         []string
	header       http.Header
}

func (w way) takesHost(host string) bool {
	name, wildcard := strings.CutPrefix(w.host, "*")
	return w.host == "" || w.host == host || wildcard && strings.HasSuffix(host, name) && len(host) > len(name)
}

func (w way) takesPath(path []string) bool {
	for i, s := range w.path {
		switch {
		case s == "**":
			return true
		case i >= len(path) || s != "*" && s != path[i]:
			return false
		}
	}
	return len(w.path) == len(path)
}

func (w way) takesHeader(header http.Header) bool {
	for name, value := range w.route.Headers {
		values := header[textproto.CanonicalMIMEHeaderKey(name)]
		if len(values) == 0 || value != "*" && !slices.Contains(values, value) {
			return false
		}
	}
	return true
}

func (w way) takesMethod(method string) bool {
	return len(w.route.Methods) == 0 || slices.Contains(w.route.Methods, method)
}

// rank returns the rank of a segment of a pattern: the lower, the more specific. A missing segment ranks before "**". Its rank against
// other segments does not matter: the pattern that has them does not match the path.
func rank(path []string, i int) int {
	switch {
	case i >= len(path):
		return 0
	case path[i] == "**":
		return 3
	case path[i] == "*":
		return 2
	}
	return 1
}

// before puts the more specific way first.
func before(a, b way) int {
	host := func(w way) int {
		switch {
		case w.host == "":
			return 1 << 20
		case strings.HasPrefix(w.host, "*"):
			return 1<<10 - len(w.host)
		}
		return 0
	}
	if c := cmp.Compare(host(a), host(b)); c != 0 {
		return c
	}
	for i := range max(len(a.path), len(b.path)) {
		if c := cmp.Compare(rank(a.path, i), rank(b.path, i)); c != 0 {
			return c
		}
	}
	named := func(w way) int { return min(1, len(w.route.Methods)) }
	return cmp.Or(-cmp.Compare(named(a), named(b)), -cmp.Compare(len(a.route.Headers), len(b.route.Headers)),
		-cmp.Compare(a.route.Priority, b.route.Priority), cmp.Compare(a.route.ID, b.route.ID))
}

// reference finds a route by looking at every way of every route.
func reference(routes []gateway.Route, r plainRequest) (id string, wrongMethod bool) {
	var ways []way
	for i := range routes {
		hosts := routes[i].Hosts
		if len(hosts) == 0 {
			hosts = []string{""}
		}
		for _, host := range hosts {
			for _, path := range routes[i].Paths {
				w := way{route: &routes[i], host: host}
				if path != "/" {
					w.path = strings.Split(path[1:], "/")
				}
				if w.takesHost(r.host) && w.takesPath(r.path) && w.takesHeader(r.header) {
					ways = append(ways, w)
				}
			}
		}
	}
	slices.SortFunc(ways, before)
	for _, w := range ways {
		if w.takesMethod(r.method) {
			return w.route.ID, false
		}
	}
	return "", len(ways) > 0
}

func TestTheRouterFindsWhatTheReferenceFinds(t *testing.T) {
	segment := rapid.SampledFrom([]string{"a", "b", "c"})
	label := rapid.SampledFrom([]string{"x", "y"})
	hostName := rapid.Custom(func(t *rapid.T) string { return strings.Join(rapid.SliceOfN(label, 1, 3).Draw(t, "labels"), ".") })
	method := rapid.SampledFrom([]string{"GET", "PUT"})
	conditions := rapid.MapOfN(rapid.SampledFrom([]string{"H1", "h2"}), rapid.SampledFrom([]string{"*", "1", "2"}), 0, 2)
	pattern := rapid.Custom(func(t *rapid.T) string {
		s := ""
		for range rapid.IntRange(0, 3).Draw(t, "length") {
			s += "/" + rapid.OneOf(segment, rapid.Just("*")).Draw(t, "segment")
		}
		if rapid.Bool().Draw(t, "rest") {
			return s + "/**"
		}
		return cmp.Or(s, "/")
	})
	route := rapid.Custom(func(t *rapid.T) gateway.Route {
		r := gateway.Route{
			Paths:    rapid.SliceOfNDistinct(pattern, 1, 3, rapid.ID).Draw(t, "paths"),
			Methods:  rapid.SliceOfNDistinct(method, 0, 2, rapid.ID).Draw(t, "methods"),
			Headers:  conditions.Draw(t, "headers"),
			Priority: rapid.IntRange(-1, 1).Draw(t, "priority"),
		}
		for range rapid.IntRange(0, 2).Draw(t, "hosts") {
			r.Hosts = append(r.Hosts, rapid.SampledFrom([]string{"", "*."}).Draw(t, "wildcard")+hostName.Draw(t, "host"))
		}
		return r
	})
	rapid.Check(t, func(rt *rapid.T) {
		routes := rapid.SliceOfN(route, 0, 12).Draw(rt, "routes")
		for i := range routes {
			routes[i].ID = fmt.Sprintf("r%02d", i)
		}
		entries := make([]*match.Entry[string], len(routes))
		for i := range routes {
			e, err := match.NewEntry(&routes[i], routes[i].ID)
			require.NoError(rt, err)
			entries[i] = e
		}
		found := match.NewRouter(rapid.Permutation(entries).Draw(rt, "order"))
		for range 8 {
			r := plainRequest{
				host: hostName.Draw(rt, "host"), method: method.Draw(rt, "method"), header: make(http.Header),
				path: rapid.SliceOfN(segment, 0, 5).Draw(rt, "path"),
			}
			for name, value := range conditions.Draw(rt, "fields") {
				r.header.Set(name, value)
			}
			id, wrongMethod := reference(routes, r)
			spelt := rapid.SampledFrom([]string{r.host, strings.ToUpper(r.host), r.host + ".", r.host + ":80", r.host + ".:80"}).Draw(rt, "spelt")
			raw := "/" + strings.Join(r.path, "/")
			if len(r.path) > 0 && rapid.Bool().Draw(rt, "slash") {
				raw += "/"
			}
			path := new(match.Path)
			require.NoError(rt, path.Parse(raw))
			value, p, outcome := found.Find(spelt, r.method, path, r.header)
			require.Equal(rt, id, value, "%+v", r)
			require.Equal(rt, id != "", outcome == match.Found)
			require.Equal(rt, wrongMethod, outcome == match.WrongMethod)
			require.Equal(rt, outcome == match.Found, p != nil && p.Match(path.Segments()))
			if wrongMethod {
				require.NotContains(rt, found.Allowed(spelt, path, r.header), r.method)
				require.NotEmpty(rt, found.Allowed(spelt, path, r.header))
			}
		}
	})
}
