package upstream

import (
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestPathsAndQueriesAreJoined(t *testing.T) {
	for _, c := range []struct{ target, request, want string }{
		{"http://h", "/", "/"},
		{"http://h/", "/", "/"},
		{"http://h", "/a/b", "/a/b"},
		{"http://h/", "/a/b", "/a/b"},
		{"http://h/base", "/a", "/base/a"},
		{"http://h/base/", "/a/", "/base/a/"},
		{"http://h/base", "", "/base"},
		{"http://h/base/", "", "/base/"},
		{"http://h", "", "/"},
		{"http://h/base", "/a%2Fb", "/base/a%2Fb"},
		{"http://h/ba%2fse", "/a", "/ba%2fse/a"},
		{"http://h/ba%2Fse", "/a%2fb", "/ba%2Fse/a%2fb"},
		{"http://h/b%20c", "/a;x=1", "/b%20c/a;x=1"},
		{"http://h/base", "//a//b", "/base//a//b"},
		{"http://h", "//a", "//a"},
		{"http://h/base", "/a?x=1&y", "/base/a?x=1&y"},
		{"http://h/base?k=v", "/a", "/base/a?k=v"},
		{"http://h/base?k=v", "/a?x=1", "/base/a?k=v&x=1"},
		{"http://h?k=v", "?x=%20;1", "/?k=v&x=%20;1"},
		{"http://h", "/a?", "/a?"},
		{"http://h", "/ä%C3%A4", "/%C3%A4%C3%A4"},
	} {
		target, err := parseTarget(c.target)
		require.NoError(t, err)
		of, err := url.Parse("http://x" + c.request)
		require.NoError(t, err)
		of.Scheme, of.Host = "", ""
		var u url.URL
		target.place(&u, of)
		require.Equal(t, c.want, u.RequestURI(), "%s and %s", c.target, c.request)
		require.Equal(t, "http://h", u.Scheme+"://"+u.Host)
	}
}

func TestURLsOfEndpoints(t *testing.T) {
	for raw, want := range map[string]string{
		"http://Cam.Example:80/A?b": "http://cam.example:80/A?b", "ws://h/x": "http://h/x", "WSS://h": "https://h", "grpcs://h": "https://h",
		"grpc://h": "h2c://h", "h2c://h/x/": "h2c://h/x/", "https://[::1]:8443": "https://[::1]:8443",
	} {
		target, err := parseTarget(raw)
		require.NoError(t, err)
		require.Equal(t, want, target.String())
	}
	for raw, says := range map[string]string{
		"": "scheme", "/x": "scheme", "ftp://h": "scheme", "http:///x": "host", "http://:80": "host", "http://h:0": "port", "http://h:99999": "port",
		"http://u:secret@h": "user name", "http://h#x": "fragment", "http://h:x": "not a URL", "mqtt://h": "scheme", "http:h": "host",
	} {
		_, err := parseTarget(raw)
		require.ErrorContains(t, err, says, raw)
		require.NotContains(t, err.Error(), "secret")
	}
}

// FuzzPlace looks for requests that escape the path or host of the endpoint.
func FuzzPlace(f *testing.F) {
	for _, s := range []string{"/a", "//a", "/a%2fb?c", "/..;/x", "", "/%", "/\x00"} {
		f.Add("/base", s)
	}
	f.Fuzz(func(t *testing.T, base, path string) {
		target, err := parseTarget("http://h" + base)
		if err != nil || target.host != "h" {
			return
		}
		of, err := url.ParseRequestURI(path)
		if err != nil || of.Host != "" || of.Scheme != "" || !strings.HasPrefix(of.Path, "/") {
			return
		}
		var u url.URL
		target.place(&u, of)
		require.Equal(t, "h", u.Host)
		require.Equal(t, strings.TrimSuffix(target.bareEscaped, "/")+of.EscapedPath(), u.EscapedPath())
		again, err := url.ParseRequestURI("http://h" + u.RequestURI())
		require.NoError(t, err)
		require.Equal(t, u.Path, again.Path)
	})
}

func TestWhatIsDialled(t *testing.T) {
	for raw, want := range map[string]string{
		"http://cam.example":          "cam.example:80",
		"https://CAM.example/x":       "cam.example:443",
		"h2c://cam.example:8080":      "cam.example:8080",
		"http://[2001:DB8::1]":        "[2001:db8::1]:80",
		"http://[fe80::1%25eth0]:81/": "[fe80::1%eth0]:81",
		"http://bücher.example":       "xn--bcher-kva.example:80",
	} {
		target, err := parseTarget(raw)
		require.NoError(t, err, raw)
		require.Equal(t, want, target.address, raw)
	}
}
