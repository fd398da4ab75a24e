package doctor

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/kit/identity"
)

func TestClocks(t *testing.T) {
	each(t, checkClocks, map[string]broken{
		"nobody keeps it right": {
			by:    func(_ *testing.T, f *fixture) { f.host.clock = func() (bool, error) { return false, nil } },
			level: Warn, finding: "is not synchronised", remedy: "NTP",
		},
		"before its own certificates": {
			by:      func(_ *testing.T, f *fixture) { f.later(-3 * time.Hour) },
			finding: "was issued then", remedy: "set the clock",
		},
		"before the program": {
			by:      func(_ *testing.T, f *fixture) { f.host.built = time.Now().Add(time.Hour) },
			finding: "this program was built", remedy: "set the clock",
		},
		"another than the platform's": {
			of: running, by: func(t *testing.T, f *fixture) {
				f.ready.Listeners["auth"] = serverAt(t, time.Now().Add(time.Hour), "")
				f.Auth.Listen = portOfServer(f.ready.Listeners["auth"])
			},
			level: Warn, finding: "ahead of this machine's", remedy: "NTP",
		},
		"another than that of a trusted issuer": {
			by: func(t *testing.T, f *fixture) {
				f.Common.Identity.Issuers = []identity.TrustedIssuer{{
					Issuer: "other", JWKSURL: serverAt(t, time.Now().Add(-time.Hour), keys),
				}}
			},
			level: Warn, finding: "behind this machine's", remedy: "NTP",
		},
	})
	t.Run("a kernel that does not say", func(t *testing.T) {
		f := stopped(t)
		f.host.clock = func() (bool, error) { return false, syscall.EPERM }
		require.Empty(t, alarming(examine(t.Context(), f.Installation, f.host)))
	})
}

// keys is a JWK set with one key.
const keys = `{"keys":[{"kty":"EC","crv":"P-256","kid":"a","x":"AQ","y":"Ag"}]}`

// serverAt returns the URL of a server with another clock.
func serverAt(t *testing.T, now time.Time, body string) string {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Date", now.UTC().Format(http.TimeFormat))
		_, _ = w.Write([]byte(body))
	}))
	t.Cleanup(server.Close)
	return server.URL
}

func portOfServer(url string) string { return fmt.Sprintf("127.0.0.1:%d", portOfURL(url)) }
