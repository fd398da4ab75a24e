package maintenance_test

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/examples/gatewayfilter/maintenance"
	"github.com/openmep/mep/gateway/filter"
)

func made(t *testing.T, config string) (filter.Filter, *prometheus.Registry, error) {
	t.Helper()
	reg := prometheus.NewRegistry()
	f, err := maintenance.Definition().Make(json.RawMessage(config), filter.Env{Log: slog.New(slog.DiscardHandler), Metrics: reg})
	return f, reg, err
}

func TestServicesThatAreWorkedOnAreAnswered(t *testing.T) {
	f, reg, err := made(t, `{"services": ["hello"], "retryAfter": "90s"}`)
	require.NoError(t, err)
	h := f(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) }))
	for service, status := range map[string]int{"hello": http.StatusServiceUnavailable, "other": http.StatusTeapot, "": http.StatusTeapot} {
		ctx := context.WithValue(t.Context(), filter.Key, &filter.Call{Service: service})
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, httptest.NewRequestWithContext(ctx, http.MethodGet, "/services/x/", http.NoBody))
		require.Equal(t, status, rec.Code, service)
		if status == http.StatusServiceUnavailable {
			require.Equal(t, "90", rec.Header().Get("Retry-After"))
		}
	}
	n, err := testutil.GatherAndCount(reg, "mep_gateway_filter_maintenance_answered_total")
	require.NoError(t, err)
	require.Equal(t, 1, n)
}

func TestAConfigurationThatIsWrongIsRefused(t *testing.T) {
	for config, about := range map[string]string{
		``: "services", `{}`: "services", `{"services": "hello"}`: "services", `{"services": ["a"], "retryAfter": "soon"}`: "retryAfter",
		`{"services": ["a"], "sevices": []}`: "sevices", `[]`: "object",
	} {
		_, _, err := made(t, config)
		require.ErrorContains(t, err, about, config)
	}
}
