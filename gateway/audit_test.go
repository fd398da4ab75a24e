package gateway_test

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/kit/audit"
)

// TestDenialsAreThoseOfTheListener checks that a flood of denials at the gateway does not suppress those of other listeners.
func TestDenialsAreThoseOfTheListener(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	seen := make(chan string, 1)
	g := w.gate(func(s *setup) {
		s.Mp1 = http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { seen <- audit.Listener(r.Context(), "mp1") })
	})
	w.named("hello", mirrorOf(t).URL)
	require.Equal(t, http.StatusOK, g.status("/mep/mec_service_mgmt/v1/services", bearer("garbage")))
	require.Equal(t, "gateway", <-seen, "what Mp1 denies of the calls that come through the gateway is the gateway's")
	for range 400 {
		require.Equal(t, http.StatusUnauthorized, g.status("/services/hello/", field("X-Api-Key", "mepk_none")))
	}
	g.manager = "garbage"
	for range 20 {
		require.Equal(t, http.StatusUnauthorized, g.manage(http.MethodGet, "/status", nil, nil))
	}
	g.stop()
	data, err := os.ReadFile(filepath.Join(g.cfg.Common.DataDir, "audit", "audit.log"))
	require.NoError(t, err)
	denied := make(map[string]int)
	for line := range strings.Lines(string(data)) {
		for _, listener := range []string{"gateway", "gateway-management"} {
			if strings.Contains(line, `"listener":"`+listener+`"`) && strings.Contains(line, `"action":"access.deny"`) {
				denied[listener]++
			}
		}
	}
	require.Less(t, denied["gateway"], 400, "the flood is cut")
	require.Equal(t, 20, denied["gateway-management"])
	require.Contains(t, string(data), `"action":"audit.suppressed","result":"denied","listener":"gateway","count":`)
	require.NotContains(t, string(data), `"listener":"gateway-management","count"`)
}
