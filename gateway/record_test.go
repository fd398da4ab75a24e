package gateway_test

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestCallsAreWrittenDownWithoutTheirProofs makes calls of all kinds, and reads the access records file.
func TestCallsAreWrittenDownWithoutTheirProofs(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	file := filepath.Join(t.TempDir(), "access.jsonl")
	g := w.gate(func(s *setup) { s.Gateway.RecordsFile = file })
	up := mirrorOf(t).URL
	_, id := w.named("hello", up)
	me := w.app()
	token, key := w.token(me), g.apiKey(me)
	calls := []struct {
		path   string
		change func(*http.Request)
		status int
	}{
		{"/services/hello/a", bearer(token), 200}, {"/services/hello/b", field("X-Api-Key", key), 200}, {"/services/hello/c?x-api-key=" + key + "&x=1", field("A", ""), 200},
		{"/services/hello/d", bearer(token + "x"), 401}, {"/services/hello/e?x-api-key=" + key + "x", field("A", ""), 401},
		{"/services/hello/f?access_token=" + token, field("A", ""), 401}, {"/services/hello/g?x%2Dapi-key=" + key, field("A", ""), 200}, {"/nowhere", bearer(token), 404},
		{"/instances/" + id + "/h", bearer(token), 200},
	}
	for _, c := range calls {
		require.Equal(t, c.status, g.status(c.path, c.change, field("X-Request-Id", "id-"+c.path[len(c.path)-1:])), c.path)
	}
	g.stop()
	data, err := os.ReadFile(file)
	require.NoError(t, err)
	require.NotContains(t, string(data), token)
	require.NotContains(t, string(data), strings.Split(token, ".")[2])
	require.NotContains(t, string(data), key)
	lines := strings.Split(strings.TrimSpace(string(data)), "\n")
	require.Len(t, lines, len(calls))
	for i, line := range lines {
		var e map[string]any
		require.NoError(t, json.Unmarshal([]byte(line), &e), line)
		require.EqualValues(t, calls[i].status, e["status"], line)
		require.Equal(t, "GET", e["method"])
		if calls[i].status == http.StatusOK {
			require.Equal(t, me, e["consumer"], line)
			require.Equal(t, "hello", e["service"], line)
			require.Equal(t, id, e["instance"], line)
		}
	}
}
