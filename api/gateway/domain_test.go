package gateway_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/api/gateway"
)

func TestLabelsOfHostNames(t *testing.T) {
	t.Parallel()
	for s, want := range map[string]bool{
		"hello": true, "Hello": true, "a": true, "7": true, "a-b": true, "a--b": true, "xn--bcher-kva": true,
		"375602e6-dbac-40f3-8939-63c3819308df": true, strings.Repeat("a", 63): true,
		"": false, strings.Repeat("a", 64): false, "-a": false, "a-": false, "-": false, "a_b": false, "a.b": false, "a b": false,
		"bücher": false, "a/b": false, "a@b": false, "a%41": false, "*": false, "a\x00": false, "\u212aelvin": false,
	} {
		require.Equal(t, want, gateway.IsLabel(s), "%q", s)
	}
}

func TestDomainsOfServices(t *testing.T) {
	t.Parallel()
	for s, want := range map[string]string{
		"mec.example": "mec.example", "MEC.Example.": "mec.example", "localhost": "localhost", "svc.edge-1.example.net": "svc.edge-1.example.net",
		"1.example": "1.example", "xn--bcher-kva.example": "xn--bcher-kva.example",
	} {
		domain, err := gateway.CanonicalDomain(s)
		require.NoError(t, err, s)
		require.Equal(t, want, domain)
	}
	for _, s := range []string{
		"", ".", "a..b", ".mec.example", "mec.example..", "*.mec.example", "mec.example:8443", "https://mec.example", "mec.example/x",
		"user@mec.example", "10.0.0.1", "example.7", "::1", "[::1]", "me c.example", "-a.example", "mec_.example", "bücher.example",
		strings.Repeat("a", 64) + ".example", strings.Repeat("a.", 95) + "example",
	} {
		_, err := gateway.CanonicalDomain(s)
		require.ErrorContains(t, err, "must be ", "%q", s)
	}
	longest := strings.Repeat("a.", 91) + "example" // 189 bytes
	domain, err := gateway.CanonicalDomain(longest)
	require.NoError(t, err)
	require.LessOrEqual(t, len(strings.Repeat("a", 63)+"."+domain), 253)
}

func TestNamesOfThePlatformBelowTheDomain(t *testing.T) {
	t.Parallel()
	for name, x := range map[string]struct {
		domain, url string
		below       bool
	}{
		"no domain":              {"", "https://auth.mec.example", false},
		"beside it":              {"mec.example", "https://auth.example", false},
		"the domain itself":      {"mec.example", "https://mec.example:8443/x", false},
		"a name that ends alike": {"mec.example", "https://authmec.example", false},
		"an address":             {"mec.example", "https://[2001:db8::7]:8443", false},
		"no URL":                 {"mec.example", "", false},
		"what is none":           {"mec.example", "https://auth.mec.example:x", false},
		"what is no domain":      {"10.0.0.7", "https://1.10.0.0.7", false},
		"below it":               {"mec.example", "https://Auth.MEC.example.:10443/x", true},
		"far below it":           {"MEC.example.", "http://a.b.mec.example", true},
	} {
		t.Run(name, func(t *testing.T) {
			_, below := gateway.HostBelow(x.url, x.domain)
			require.Equal(t, x.below, below)
			err := gateway.CheckOutside("auth.publicUrl", x.url, x.domain)
			if !x.below {
				require.NoError(t, err)
				return
			}
			require.ErrorContains(t, err, "auth.publicUrl: its host ")
		})
	}
}
