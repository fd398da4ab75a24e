package telemetry_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/kit/telemetry"
)

func TestRequestsBecomeSpansAtTheCollector(t *testing.T) {
	got := make(chan string, 1)
	collector := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		got <- r.URL.Path + " " + string(body)
	}))
	defer collector.Close()
	tr, err := telemetry.NewTracer(t.Context(), collector.URL, "mep", "test")
	require.NoError(t, err)
	h := tr.Wrap("mp1", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) }))
	rec := httptest.NewRecorder()
	h.ServeHTTP(rec, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/x", nil))
	require.Equal(t, http.StatusTeapot, rec.Code)
	require.NoError(t, tr.Close(t.Context()))
	sent := <-got
	require.Contains(t, sent, "/v1/traces")
	require.Contains(t, sent, "GET mp1")
}

func TestWithoutACollectorNothingIsWrapped(t *testing.T) {
	tr, err := telemetry.NewTracer(t.Context(), "", "mep", "test")
	require.NoError(t, err)
	h := http.NewServeMux()
	require.Same(t, h, tr.Wrap("mp1", h))
	require.NoError(t, tr.Close(t.Context()))
}
