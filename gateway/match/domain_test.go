package match_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/api/gateway"
	"github.com/openmep/mep/gateway/match"
)

func TestWhatHostsBelowADomainStandFor(t *testing.T) {
	const id = "375602e6-dbac-40f3-8939-63c3819308df"
	nothing := match.Place{}
	for host, want := range map[string]match.Place{
		"hello.mec.example":                       {Label: "hello"},
		"hello.mec.example:8443":                  {Label: "hello"},
		"hello.mec.example.":                      {Label: "hello"},
		"hello.mec.example.:8443":                 {Label: "hello"},
		"hello.mec.example:":                      {Label: "hello"},
		"Hello.MEC.Example":                       {Label: "Hello"},
		"7.mec.example":                           {Label: "7"},
		"xn--bcher-kva.mec.example":               {Label: "xn--bcher-kva"},
		strings.Repeat("a", 63) + ".mec.example":  {Label: strings.Repeat("a", 63)},
		"instances.mec.example":                   {Label: "instances"}, // a service may have this name
		"mec.mec.example":                         {Label: "mec"},
		id + ".instances.mec.example":             {Label: id, Instance: true},
		id + ".Instances.mec.example.:1":          {Label: id, Instance: true},
		"instances.instances.mec.example":         {Label: "instances", Instance: true},
		id + ".mec.example":                       {Label: id},
		strings.Repeat("a", 64) + ".mec.example":  nothing,
		strings.Repeat("a.", 200) + "mec.example": nothing,
		".mec.example":                            nothing,
		"..mec.example":                           nothing,
		"a.b.mec.example":                         nothing,
		"a..mec.example":                          nothing,
		".instances.mec.example":                  nothing,
		"a.b.instances.mec.example":               nothing,
		"xinstances.a.mec.example":                nothing,
		"a_b.mec.example":                         nothing,
		"-a.mec.example":                          nothing,
		"bücher.mec.example":                      nothing,
		"user@hello.mec.example":                  nothing,
		"*.mec.example":                           nothing,
		"a%2eb.mec.example":                       nothing,
		"hello.mec.example:80x":                   nothing,
		"hello.mec.example:80:90":                 nothing,
		"hello.mec.example:-1":                    nothing,
	} {
		place, below := match.Domain("mec.example").Below(host)
		require.Equal(t, want, place, "%q", host)
		require.True(t, below, "%q", host)
	}
	for _, host := range []string{
		"", ".", ":", ":8443", "mec.example", "mec.example:8443", "MEC.example.", "xmec.example", "hello.mec.example.net", "hello.mec.example..",
		"hello.mec.exampl", "hello.mec,example", "10.0.0.7", "10.0.0.7:8443", "[::1]", "[::1]:8443", "::1", "[fe80::1%25eth0]:1", "[hello.mec.example]:1",
		"localhost", "hello.mec.e\u017fample", "hello.mec-example", "hello%2emec.example", "user:pass@hello.mec.example", "hello/mec.example/", strings.Repeat("x", 9000),
	} {
		place, below := match.Domain("mec.example").Below(host)
		require.False(t, below, "%q", host)
		require.Zero(t, place)
	}
	for _, host := range []string{"", "hello", "hello.", ".", "hello.mec.example", ".:80"} {
		_, below := match.Domain("").Below(host)
		require.False(t, below, "without a domain nothing is below it: %q", host)
	}
}

func TestLookingAtAHostTakesNoMemory(t *testing.T) {
	for _, host := range []string{"hello.mec.example:8443", "HELLO.MEC.EXAMPLE.", "10.0.0.7:8443", "[::1]:8443", "edge1.example.net", "x.instances.mec.example"} {
		require.Zero(t, testing.AllocsPerRun(100, func() { match.Domain("mec.example").Below(host) }), host)
	}
}

// FuzzBelow compares Below with a slow and simple implementation: the host in lower case, split at its dots.
func FuzzBelow(f *testing.F) {
	for _, host := range []string{
		"hello.mec.example", "HELLO.mec.example.:8443", "a.instances.mec.example", ".mec.example", "a.b.mec.example", "user@a.mec.example", "[::1]:80",
		"a.mec.example:x", "mec.example", "\u212a.mec.example", "a.mec.e\u0445ample", "::", "a:b:c",
	} {
		f.Add(host)
	}
	f.Fuzz(func(t *testing.T, host string) {
		place, below := match.Domain("mec.example").Below(host)
		name, port, _ := strings.Cut(host, ":")
		labels := strings.Split(strings.TrimSuffix(name, "."), ".")
		n := len(labels)
		ascii := func(s, want string) bool {
			return len(s) == len(want) && strings.ToLower(s) == want && !strings.ContainsFunc(s, func(r rune) bool { return r > 0x7f })
		}
		want := n >= 3 && ascii(labels[n-1], "example") && ascii(labels[n-2], "mec")
		require.Equal(t, want, below)
		var expected match.Place
		digits := strings.Trim(port, "0123456789") == ""
		switch {
		case !want || !digits:
		case n == 3 && gateway.IsLabel(labels[0]):
			expected = match.Place{Label: labels[0]}
		case n == 4 && ascii(labels[1], "instances") && gateway.IsLabel(labels[0]):
			expected = match.Place{Label: labels[0], Instance: true}
		}
		require.Equal(t, expected, place)
	})
}

func TestRoutesThatNameTheHost(t *testing.T) {
	r := router(t,
		gateway.Route{ID: "any", Paths: []string{"/**"}},
		gateway.Route{ID: "hello", Hosts: []string{"hello.mec.example"}, Paths: []string{"/a"}, Methods: []string{"GET", "HEAD"}},
		gateway.Route{ID: "post", Paths: []string{"/a"}, Methods: []string{"POST"}},
		gateway.Route{ID: "delete", Hosts: []string{"hello.mec.example"}, Paths: []string{"/c"}, Methods: []string{"DELETE"}},
		gateway.Route{ID: "wildput", Hosts: []string{"*.mec.example"}, Paths: []string{"/c"}, Methods: []string{"PUT"}},
		gateway.Route{ID: "wild", Hosts: []string{"*.mec.example"}, Paths: []string{"/b"}},
		gateway.Route{ID: "address", Hosts: []string{"192.0.2.1"}, Paths: []string{"/**"}},
	)
	for _, x := range []struct{ host, method, path, want, allow string }{
		{"hello.mec.example", "GET", "/a", "hello", ""},
		{"HELLO.mec.example.:80", "GET", "/a", "hello", ""},
		{"hello.mec.example", "POST", "/a", "", "GET HEAD"},
		{"hello.mec.example", "GET", "/x", "", ""},
		{"hello.mec.example", "GET", "/b", "wild", ""},
		{"hello.mec.example", "PUT", "/c", "wildput", ""},
		{"hello.mec.example", "POST", "/c", "", "DELETE PUT"},
		{"other.mec.example", "DELETE", "/c", "", "PUT"},
		{"other.mec.example", "GET", "/b", "wild", ""},
		{"other.mec.example", "GET", "/a", "", ""},
		{"192.0.2.1:80", "GET", "/x", "address", ""},
		{"elsewhere", "GET", "/a", "", ""},
		{"hello.mec.example", "OPTIONS", "*", "", ""},
	} {
		var path match.Path
		require.NoError(t, path.Clean(x.method, request(t, x.method+" "+x.path).URL))
		id, pattern, outcome := r.FindHost(x.host, x.method, &path, http.Header{})
		require.Equal(t, x.want, id, "%v", x)
		switch {
		case x.want != "":
			require.Equal(t, match.Found, outcome, "%v", x)
		case x.allow != "":
			require.Equal(t, match.WrongMethod, outcome, "%v", x)
			require.Equal(t, strings.Fields(x.allow), r.AllowedHost(x.host, &path, http.Header{}), "%v", x)
		default:
			require.Equal(t, match.None, outcome, "%v", x)
		}
		require.Equal(t, x.want != "", pattern != nil, "%v", x)
	}
	var path match.Path
	require.NoError(t, path.Parse("/a"))
	_, _, outcome := router(t, gateway.Route{ID: "any", Paths: []string{"/**"}, Methods: []string{"POST"}}).FindHost("a", "GET", &path, nil)
	require.Equal(t, match.None, outcome)
}

func BenchmarkBelow(b *testing.B) {
	for name, host := range map[string]string{"of a service": "hello.mec.example:8443", "of the gateway": "edge1.example.net:8443", "an address": "10.0.0.7:8443"} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				match.Domain("mec.example").Below(host)
			}
		})
	}
}
