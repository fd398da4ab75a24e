package upstream

import (
	"io"
	"net"
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
		known  bool // refused before the first call
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

// TestANameThatResolvesToARefusedAddress uses "localhost", which resolves everywhere, in place of any name. To this end, it clears
// what is known about it beforehand.
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

// TestAStricterGuardEndsConnections calls targets by name and by address over all kinds of connections.
func TestAStricterGuardEndsConnections(t *testing.T) {
	echo := func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		_, _ = io.WriteString(w, r.RemoteAddr)
	}
	plain, h2c, secured := serve(t, echo), serveH2C(t, false, echo), serveTLS(t, echo, nil)
	for name, c := range map[string]struct {
		url, method string
	}{
		"HTTP/1.1":              {plain.URL, http.MethodGet},
		"HTTP/1.1 with a body":  {plain.URL, http.MethodPut},
		"HTTP/2 without TLS":    {strings.Replace(h2c.URL, "http", "h2c", 1), http.MethodGet},
		"HTTP/2 with TLS":       {secured.URL, http.MethodGet},
		"HTTP/2 with a body":    {secured.URL, http.MethodPut},
		"HTTP/1.1, the address": {at(plain.URL, "127.0.0.1"), http.MethodGet},
	} {
		for _, byName := range []bool{true, false} {
			t.Run(name, func(t *testing.T) {
				var policy atomic.Pointer[netguard.Policy]
				policy.Store(open())
				config := Config{Guard: policy.Load, RootCAs: poolOf(secured.Certificate())}
				w := newWorld(t, config)
				p := w.profile(gateway.Upstream{Retries: -1, EjectAfter: -1, ServerName: "example.com"}, gateway.Timeouts{})
				eps := w.endpoints(p, c.url)
				if byName {
					u, err := url.Parse(at(c.url, "localhost"))
					require.NoError(t, err)
					eps[0].target.host, eps[0].target.address, eps[0].target.literal = u.Host, u.Host, netip.AddrPort{}
				}
				call := func() (*answer, error) {
					var body io.Reader
					if c.method == http.MethodPut {
						body = strings.NewReader("body")
					}
					r := request(t, c.method, "/", body)
					r.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader("body")), nil }
					return w.send(p, eps, r)
				}
				first, err := call()
				require.NoError(t, err)

				policy.Store(&netguard.Policy{AllowLoopback: true, Deny: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}})
				w.reload(config)
				a, err := call()
				require.NoError(t, err)
				require.Equal(t, first.body, a.body, "what is still allowed keeps its connections")

				policy.Store(&netguard.Policy{})
				w.reload(config)
				_, err = call()
				var refused *Error
				require.ErrorAs(t, err, &refused)
				require.Equal(t, http.StatusBadGateway, refused.Status)
				_, err = call()
				var why *netguard.RefusedError
				require.ErrorAs(t, err, &why)
				require.Equal(t, StateRefused, eps[0].View().State)

				policy.Store(open())
				a, err = call() // the policy may change without a reload
				require.NoError(t, err)
				policy.Store(&netguard.Policy{})
				_, err = call()
				require.Error(t, err, "over %s", a.body)
			})
		}
	}
}

// TestWhatIsRefusedNowBreaksOff is about calls in flight.
func TestWhatIsRefusedNowBreaksOff(t *testing.T) {
	k := says(t, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf", true)
	var policy atomic.Pointer[netguard.Policy]
	policy.Store(open())
	config := Config{Guard: policy.Load}
	w := newWorld(t, config)
	p, eps, _ := directTo(w, gateway.Upstream{}, gateway.Timeouts{}, k.url)
	resp, err := w.RoundTrip(request(t, http.MethodGet, "/", nil), p, eps, new(Attempt))
	require.NoError(t, err)
	policy.Store(&netguard.Policy{})
	w.reload(config)
	_, err = io.ReadAll(resp.Body)
	require.ErrorIs(t, err, net.ErrClosed)
	require.NoError(t, resp.Body.Close())
	require.Zero(t, eps[0].View().Active)
	w.connections.mu.Lock()
	require.Empty(t, w.connections.open)
	w.connections.mu.Unlock()
}

// TestAListenerThatIsOpenedLater is refused, although the policy is the same.
func TestAListenerThatIsOpenedLater(t *testing.T) {
	s := named(t, "here")
	var own atomic.Pointer[[]netip.AddrPort]
	own.Store(new([]netip.AddrPort))
	policy := &netguard.Policy{AllowLoopback: true, Listeners: func() []netip.AddrPort { return *own.Load() }}
	w := newWorld(t, Config{Guard: func() *netguard.Policy { return policy }})
	p := w.profile(gateway.Upstream{Retries: -1}, gateway.Timeouts{})
	eps := w.endpoints(p, s.URL)
	require.Equal(t, "here", w.get(p, eps, "/").body)
	own.Store(&[]netip.AddrPort{netip.MustParseAddrPort(strings.TrimPrefix(s.URL, "http://"))})
	w.connections.judge(policy) // as after each sweep
	_, err := w.send(p, eps, request(t, http.MethodGet, "/", nil))
	var refused *netguard.RefusedError
	require.ErrorAs(t, err, &refused)
}

// TestAPolicyThatChangesWhileAConnectionIsMade changes it between the dialler's check and the registration.
func TestAPolicyThatChangesWhileAConnectionIsMade(t *testing.T) {
	s := named(t, "here")
	conn, err := net.Dial("tcp", strings.TrimPrefix(s.URL, "http://"))
	require.NoError(t, err)
	var x connections
	_, err = x.add(conn.(*net.TCPConn), func() *netguard.Policy { return &netguard.Policy{} })
	var refused *netguard.RefusedError
	require.ErrorAs(t, err, &refused)
	require.Empty(t, x.open)
	_, err = conn.Read(make([]byte, 1))
	require.ErrorIs(t, err, net.ErrClosed)
}
