package gateway_test

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestAServiceIsReachedByItsNameAndItsID(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	g := w.gate()
	_, id := w.named("hello", mirrorOf(t).URL+"/base/")
	caller := bearer(w.token(w.app()))
	for path, target := range map[string]string{
		"/services/hello":                   "/base/",
		"/services/hello/":                  "/base/",
		"/services/hello/a/b?x=1&y":         "/base/a/b?x=1&y",
		"/services/hello/a%20b/":            "/base/a%20b/",
		"/services/hello/%C3%BC?q=%2F..%2F": "/base/%C3%BC?q=%2F..%2F",
		"/instances/" + id + "/z":           "/base/z",
		"/instances/" + id:                  "/base/",
	} {
		a := g.get(path, caller)
		require.Equal(t, http.StatusOK, a.StatusCode, path)
		require.Equal(t, target, a.seen(t).Target, path)
	}
	for _, path := range []string{"/services/other", "/services", "/services/", "/instances/x", "/", "/hello", "/services/Hello"} {
		require.Equal(t, http.StatusNotFound, g.status(path, caller), path)
	}
}
