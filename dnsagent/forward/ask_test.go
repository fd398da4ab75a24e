package forward

import (
	"net/netip"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"github.com/miekg/dns"
	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/dnsagent/wire"
)

// portOfNobody is an address at which nobody listens.
var portOfNobody = netip.MustParseAddrPort("127.0.0.1:1")

// borrowed returns a name that shares memory with b, as the names of queries do.
func borrowed(b []byte) wire.Name { return wire.Name(unsafe.String(&b[0], len(b))) }

// shortTimeout is for tests in which an upstream does not answer.
const shortTimeout = 2 * time.Second

func TestTheNextUpstreamIsAsked(t *testing.T) {
	tests := map[string]struct {
		say     answers
		outcome string
		timeout time.Duration
	}{
		"after one that does not answer":   {silence, outcomeTimeout, shortTimeout},
		"after one that refuses":           {code(t, dns.RcodeRefused), outcomeUnusable, 0},
		"after one that does not know how": {code(t, dns.RcodeNotImplemented), outcomeUnusable, 0},
		"after one that says SERVFAIL":     {code(t, dns.RcodeServerFailure), outcomeServfail, 0},
		"after one that hangs up over TCP": {func(r received) [][]byte {
			if r.tcp {
				return nil
			}
			m := r.reply(t)
			m.Truncated = true
			return packed(t, m)
		}, outcomeNetwork, 0},
		"after one that hangs up in the middle": {func(r received) [][]byte {
			m := r.reply(t)
			m.Truncated = true
			if r.tcp {
				return [][]byte{packed(t, m)[0][:5], nil}
			}
			return packed(t, m)
		}, outcomeTimeout, shortTimeout},
		"after one that cuts off over TCP, too": {func(r received) [][]byte {
			m := r.reply(t)
			m.Truncated = true
			return packed(t, m)
		}, outcomeUnusable, 0},
		"after one that tells of other names": {func(r received) [][]byte {
			return packed(t, r.reply(t, "b.example. 60 A 192.0.2.66"))
		}, outcomeUnusable, 0},
		"after one that refers to others": {func(r received) [][]byte {
			m := r.reply(t)
			m.Ns = parse(t, "example. 60 IN NS ns.example.")
			return packed(t, m)
		}, outcomeUnusable, 0},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			bad, good := newFake(t, nil, tt.say), newFake(t, nil, address(t, "192.0.2.1", "60"))
			s := newSubject(t, Config{Zones: rootZone(bad.upstream(), good.upstream()), Timeout: tt.timeout})
			m, err := s.ask(t, "a.example")
			require.NoError(t, err)
			require.Equal(t, []string{"192.0.2.1"}, addresses(m))
			require.InDelta(t, 1, s.count(t, "mep_dns_forward_requests_total", bad.addr.String(), tt.outcome), 0)
			require.InDelta(t, 1, s.count(t, "mep_dns_forward_requests_total", good.addr.String(), outcomeAnswer), 0)
		})
	}
	t.Run("after one that is not there", func(t *testing.T) {
		good := newFake(t, nil, address(t, "192.0.2.1", "60"))
		s := newSubject(t, Config{Zones: rootZone(Upstream{Addr: portOfNobody}, good.upstream())})
		_, err := s.ask(t, "a.example")
		require.NoError(t, err)
		require.InDelta(t, 1, s.count(t, "mep_dns_forward_requests_total", portOfNobody.String(), outcomeNetwork), 0)
	})
}

func TestWhenNobodyHasAnAnswer(t *testing.T) {
	refuses, silent := newFake(t, nil, code(t, dns.RcodeRefused)), newFake(t, nil, silence)
	tests := map[string]struct {
		upstreams []Upstream
		timeout   time.Duration
		cause     error
		code      uint16
	}{
		"they refuse":         {[]Upstream{refuses.upstream()}, 0, ErrUnusable, dns.ExtendedErrorCodeNoReachableAuthority},
		"they do not answer":  {[]Upstream{silent.upstream()}, shortTimeout, ErrTimeout, dns.ExtendedErrorCodeNoReachableAuthority},
		"they are not there":  {[]Upstream{{Addr: portOfNobody}}, 0, ErrNetwork, dns.ExtendedErrorCodeNetworkError},
		"some of all of that": {[]Upstream{{Addr: portOfNobody}, silent.upstream(), refuses.upstream()}, shortTimeout, ErrUnusable, dns.ExtendedErrorCodeNoReachableAuthority},
		"there are none":      {nil, 0, ErrNoUpstream, dns.ExtendedErrorCodeNotAuthoritative},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := newSubject(t, Config{Zones: rootZone(tt.upstreams...), Timeout: tt.timeout})
			_, err := s.ask(t, "a.example")
			require.ErrorIs(t, err, tt.cause)
			var failure *Failure
			require.ErrorAs(t, err, &failure)
			require.Equal(t, tt.code, failure.Code)
			require.Equal(t, tt.cause.Error(), failure.Text, "it names no upstream")
		})
	}
}

func TestWhenAllSaySERVFAILThatIsTheAnswer(t *testing.T) {
	say := func(r received) [][]byte {
		m := r.reply(t)
		m.Rcode = dns.RcodeServerFailure
		opt := &dns.OPT{Hdr: dns.RR_Header{Name: ".", Rrtype: dns.TypeOPT}}
		opt.Option = append(opt.Option, &dns.EDNS0_EDE{InfoCode: dns.ExtendedErrorCodeDNSBogus, ExtraText: "bad signature"})
		m.Extra = append(m.Extra, opt)
		return packed(t, m)
	}
	one, two := newFake(t, nil, say), newFake(t, nil, say)
	s := newSubject(t, Config{Zones: rootZone(one.upstream(), two.upstream())})
	a, err := s.Resolve(t.Context(), asking(t, "a.example", dns.TypeA))
	require.NoError(t, err)
	require.Equal(t, dns.RcodeServerFailure, a.RCode())
	require.Equal(t, dns.RcodeServerFailure, s.read(t, a).Rcode)
	require.Equal(t, &Info{Code: dns.ExtendedErrorCodeDNSBogus, Text: "bad signature"}, a.Info)
	require.Equal(t, []int{1, 1}, []int{one.asked(), two.asked()})
}

func TestOneThatAnswersLateIsAskedAgain(t *testing.T) {
	up := newFake(t, nil, silence)
	up.say(func(r received) [][]byte {
		if up.asked() == 1 {
			return nil
		}
		return address(t, "192.0.2.1", "60")(r)
	})
	s := newSubject(t, Config{Zones: rootZone(up.upstream()), Timeout: shortTimeout})
	_, err := s.ask(t, "a.example")
	require.NoError(t, err)
}

func TestZonesHaveUpstreamsOfTheirOwn(t *testing.T) {
	public, corp, lab := newFake(t, nil, address(t, "192.0.2.1", "60")), newFake(t, nil, address(t, "192.0.2.2", "60")),
		newFake(t, nil, address(t, "192.0.2.3", "60"))
	zone := func(name string, upstreams ...Upstream) Zone {
		n, err := wire.ParseName(name)
		require.NoError(t, err)
		return Zone{Name: n, Upstreams: upstreams}
	}
	s := newSubject(t, Config{Zones: []Zone{
		zone(".", public.upstream()), zone("corp.example", corp.upstream()), zone("lab.corp.example", lab.upstream()),
		zone("here.example"),
	}})
	tests := map[string]string{
		"a.test": "192.0.2.1", "example": "192.0.2.1", "xcorp.example": "192.0.2.1", "corp.example": "192.0.2.2", "a.b.corp.example": "192.0.2.2",
		"lab.corp.example": "192.0.2.3", "a.lab.corp.example": "192.0.2.3", "here.example": "", "a.here.example": "",
	}
	for name, want := range tests {
		t.Run(name, func(t *testing.T) {
			q := asking(t, name, dns.TypeA)
			require.Equal(t, want != "", s.Handles(q.Name))
			a, err := s.Resolve(t.Context(), q)
			if want == "" {
				require.ErrorIs(t, err, ErrNoUpstream)
				return
			}
			require.NoError(t, err)
			require.Equal(t, []string{want}, addresses(s.read(t, a)))
		})
	}
}

// The forwarder may end at the moment an answer arrives.
func TestAnAnswerThatComesAtTheEndIsGiven(t *testing.T) {
	up := newFake(t, nil, nil)
	s := newSubject(t, Config{Zones: rootZone(up.upstream())})
	answer := address(t, "192.0.2.1", "60")
	var came atomic.Bool
	up.say(func(r received) [][]byte {
		came.Store(true)
		return answer(r)
	})
	s.now = func() time.Time { // an answer is dated when it has been read
		if came.Load() {
			s.end()
		}
		return time.Now()
	}
	m, err := s.ask(t, "a.example")
	require.NoError(t, err)
	require.Equal(t, []string{"192.0.2.1"}, addresses(m))
}
