package gateway_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	api "github.com/openmep/mep/api/gateway"
)

// TestPathsThatMeanSomethingElse sends paths that a gateway and a server behind it might read differently.
func TestPathsThatMeanSomethingElse(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	g := w.gate()
	w.named("hello", mirrorOf(t).URL+"/public")
	w.named("secret", mirrorOf(t).URL)
	w.policy("hello", anybody)
	w.route("admin", api.Route{
		Paths: []string{"/team/admin/**"}, Service: "hello", Policy: api.Policy{Authentication: []api.Method{api.ByToken}},
	})
	w.route("team", api.Route{Paths: []string{"/team/**"}, Service: "hello", Policy: anybody})
	for _, target := range []string{
		"//services/hello/", "/services//hello/", "/services/hello//x", "/services/./hello", "/services/hello/../secret", "/services/hello/..",
		"/services/hello/%2e%2e/secret", "/services/hello/.%2E/x", "/services/hello/..%2fsecret", "/services/hello/a%2fb", "/services/hello/a%2Fb",
		"/services/hello/%5c..%5csecret", `/services/hello/..\secret`, `/services/hello/a\b`, "/services/hello/%00", "/services/hello/a%00.txt",
		"/services/hello/..;/secret", "/services/hello/..;a=b/secret", "/services/hello/;/x", "/services/hello/%252e%252e/x", "/services/hello/%252fx",
		"/services/hello/a%0d%0aX-Injected:%201", "/services/hello/%7f", "/services/hello/%zz", "/services/hello/%", "/services/hello/%2",
		"/team/./admin/x", "/team/x/../admin/x", "/team//admin/x", "/team/%2e/admin/x", "http://a/services/../hello/", "http://u@a/services/hello/", "ftp:/services/hello/", "services/hello/", "*",
		"/services/hello/%25%32%65%25%32%65/x",
	} {
		l := g.dial()
		l.send("GET " + target + " HTTP/1.1\nHost: a\nConnection: close\n\n")
		a := l.answer()
		require.Contains(t, []int{400, 404}, a.StatusCode, "%s: %s", target, a.body)
		if a.StatusCode == http.StatusNotFound {
			require.Equal(t, "*", target, "refused, and not looked for")
		}
	}
	// What passes arrives as it was judged.
	for target, at := range map[string]string{
		"/services/hello/...":                "/public/...",
		"/services/hello/a;b=c/d":            "/public/a;b=c/d",
		"/services/hello/%41":                "/public/%41",
		"/services/hello/a?x=/../..%2f%00//": "/public/a?x=/../..%2f%00//",
		"/services/hello/~a!$&'()*+,=:@":     "/public/~a!$&'()*+,=:@",
		"/services/hello/%c0%ae%c0%ae/x":     "/public/%c0%ae%c0%ae/x",
		"/services/hello/%ff":                "/public/%ff",
	} {
		l := g.dial()
		l.send("GET " + target + " HTTP/1.1\nHost: a\n\n")
		a := l.answer()
		if a.StatusCode != http.StatusOK {
			require.Equal(t, http.StatusBadRequest, a.StatusCode, "%s: %s", target, a.body)
			continue
		}
		require.Equal(t, at, a.seen(t).Target)
	}
	// Who is denied one spelling is denied the others.
	for _, target := range []string{"/team/admin", "/team/admin/", "/team/admin/x", "/team/%61dmin/x", "/team/admin;v=1/x", "/team/%61%64min/x", "/services/hello;v=1/x"} {
		l := g.dial()
		l.send("GET " + target + " HTTP/1.1\nHost: a\n\n")
		require.Equal(t, http.StatusUnauthorized, l.answer().StatusCode, target)
	}
	require.Equal(t, http.StatusOK, g.status("/team/other"))
}

// TestNamesThatAreNoText repeatedly asks for services by names that are not UTF-8.
func TestNamesThatAreNoText(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	g := w.gate()
	token := bearer(w.token(w.app()))
	for _, path := range []string{"/services/%ff", "/services/%c0%ae", "/services/%ed%a0%80/x", "/instances/%fe"} {
		a, err := g.try(http.MethodGet, path, nil, token)
		require.NoError(t, err, path)
		require.Contains(t, []int{400, 404}, a.StatusCode, path)
	}
	// Names that strangers make up do not displace services in the metrics.
	g2 := w.gate(func(s *setup) { s.Gateway.SeriesServices = 3 })
	for _, name := range []string{"a", "b", "c", "d", "e"} {
		require.Equal(t, http.StatusNotFound, g2.status("/services/made-up-"+name, token))
	}
	families, err := g2.reg.Gather()
	require.NoError(t, err)
	for _, f := range families {
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				require.NotContains(t, l.GetValue(), "made-up", f.GetName())
			}
		}
	}
}

func TestHostTricks(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	g := w.gate()
	up := mirrorOf(t)
	w.route("inside", api.Route{Hosts: []string{"inside.example"}, Paths: []string{"/**"}, URLs: []string{up.URL + "/inside"}, Policy: anybody})
	w.route("wild", api.Route{Hosts: []string{"*.wild.example"}, Paths: []string{"/**"}, URLs: []string{up.URL + "/wild"}, KeepHost: true, Policy: anybody})
	w.route("six", api.Route{Hosts: []string{"2001:db8::1"}, Paths: []string{"/**"}, URLs: []string{up.URL + "/six"}, Policy: anybody})
	for host, want := range map[string]string{
		"inside.example": "/inside/x", "INSIDE.Example:8443": "/inside/x", "inside.example.": "/inside/x", "a.wild.example": "/wild/x",
		"a.b.wild.example:1": "/wild/x", "[2001:db8:0::1]:80": "/six/x",
		"wild.example": "404", "xinside.example": "404", "inside.example.evil": "404", "evil": "404", "": "404",
		"a b": "400", "a/b": "400|404", "a@inside.example": "400|404", "inside.example:x": "400|404|/inside/x", "a\x00": "400", `in"side`: "400|404",
	} {
		l := g.dial()
		l.send("GET /x HTTP/1.1\nHost: " + host + "\n\n")
		a := l.answer()
		var got string
		if a.StatusCode == http.StatusOK {
			got = a.seen(t).Target
			if strings.HasPrefix(got, "/wild") {
				require.Equal(t, host, a.seen(t).Host)
			} else {
				require.Equal(t, strings.TrimPrefix(up.URL, "http://"), a.seen(t).Host)
			}
		} else {
			got = http.StatusText(a.StatusCode)
			got = map[string]string{"Not Found": "404", "Bad Request": "400"}[got]
		}
		require.Contains(t, strings.Split(want, "|"), got, "%q: %s", host, a.body)
	}
	for _, request := range []string{
		"GET /x HTTP/1.1\n\n", "GET /x HTTP/1.1\nHost: evil\nHost: inside.example\n\n", "GET /x HTTP/1.1\nHost: inside.example\nHost: evil\n\n",
		"GET http://evil/x HTTP/1.1\nHost: inside.example\n\n", "GET /x HTTP/1.1\nHost: inside.example, evil\n\n", "GET /x HTTP/1.1\nHost : inside.example\n\n",
	} {
		l := g.dial()
		l.send(request)
		a := l.answer()
		require.Contains(t, []int{400, 404}, a.StatusCode, request)
	}
}
