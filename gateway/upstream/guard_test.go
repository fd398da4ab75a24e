package upstream

import (
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/api/gateway"
	"github.com/openmep/mep/kit/netguard"
)

func TestAddressesThatAreNotCalled(t *testing.T) {
	s := named(t, "here")
	own := netip.MustParseAddrPort(strings.TrimPrefix(s.URL, "http://"))
	for name, c := range map[string]struct {
		policy netguard.Policy
		url    string
		known  bool // before the first call
	}{
		"loopback":                         {netguard.Policy{}, s.URL, true},
		"loopback, IPv4 in IPv6":           {netguard.Policy{}, at(s.URL, "[::ffff:127.0.0.1]"), true},
		"localhost":                        {netguard.Policy{}, at(s.URL, "localhost"), true},
		"an own listener":                  {netguard.Policy{AllowLoopback: true, Own: []netip.AddrPort{own}}, s.URL, true},
		"an own listener by a name":        {netguard.Policy{AllowLoopback: true, Own: []netip.AddrPort{own}}, at(s.URL, "localhost"), true},
		"a link-local address":             {netguard.Policy{AllowLoopback: true}, "http://169.254.169.254/", true},
		"a link-local address as a h2c":    {netguard.Policy{AllowLoopback: true}, "h2c://169.254.169.254/", true},
		"a link-local address with TLS":    {netguard.Policy{AllowLoopback: true}, "https://169.254.169.254/", true},
		"an address that is written oddly": {netguard.Policy{}, at(s.URL, "[0:0:0:0:0:ffff:7f00:1]"), true},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, Config{Guard: func() *netguard.Policy { return &c.policy }})
			p := w.profile(gateway.Upstream{Retries: -1}, gateway.Timeouts{})
			eps := w.endpoints(p, c.url)
			require.Equal(t, c.known, eps[0].View().State == StateRefused)
			_, err := w.send(p, eps, request(t, http.MethodGet, "/", nil))
			var failed *Error
			require.ErrorAs(t, err, &failed)
			require.Equal(t, http.StatusBadGateway, failed.Status)
			require.Equal(t, "the service has an address that the gateway does not call", failed.Detail)
			var refused *netguard.RefusedError
			require.ErrorAs(t, err, &refused, "the log is told more")
			v := eps[0].View()
			require.Equal(t, StateRefused, v.State)
			require.NotEmpty(t, v.Reason)
			require.EqualValues(t, 1, v.Failures)
		})
	}
}

// TestANameThatResolvesToARefusedAddress stands for any name: "localhost" is one that resolves everywhere, so what is known of it
// beforehand is taken away.
func TestANameThatResolvesToARefusedAddress(t *testing.T) {
	s := named(t, "here")
	u, err := url.Parse(s.URL)
	require.NoError(t, err)
	var allow atomic.Bool
	w := newWorld(t, Config{Guard: func() *netguard.Policy { return &netguard.Policy{AllowLoopback: allow.Load()} }})
	p := w.profile(gateway.Upstream{Retries: -1, EjectAfter: -1}, gateway.Timeouts{})
	eps := w.endpoints(p, s.URL)
	eps[0].target.host = "localhost:" + u.Port()
	eps[0].target.literal = netip.AddrPort{}
	require.Equal(t, StateUp, eps[0].View().State, "a name alone tells nothing")
	_, err = w.send(p, eps, request(t, http.MethodGet, "/", nil))
	var refused *netguard.RefusedError
	require.ErrorAs(t, err, &refused)
	require.Equal(t, StateRefused, eps[0].View().State)
	require.Contains(t, eps[0].View().Reason, "loopback")

	allow.Store(true)
	require.Equal(t, "here", w.get(p, eps, "/").body, "the policy is asked for every connection")
	require.Equal(t, StateUp, eps[0].View().State)
}

func TestAnotherEndpointIsCalledInPlaceOfARefusedOne(t *testing.T) {
	s := named(t, "here")
	w := newWorld(t, Config{})
	p := w.profile(gateway.Upstream{}, gateway.Timeouts{})
	eps := w.endpoints(p, "http://169.254.1.1/", s.URL)
	for range 20 {
		require.Equal(t, "here", w.get(p, eps, "/").body)
	}
}
