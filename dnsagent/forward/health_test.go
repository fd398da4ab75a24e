package forward

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/dnsagent/wire"
)

// run runs the forwarder until the test ends.
func (s *subject) run(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		require.NoError(t, <-ended)
	})
}

func isProbe(r received) bool {
	return strings.Contains(strings.ToLower(r.Question[0].Name), "mep-loop")
}

func (s *subject) state(n int) string { return s.Upstreams()[n].State }

func TestOneThatIsDownIsAskedLastUntilItAnswersProbes(t *testing.T) {
	first, second := newFake(t, nil, silence), newFake(t, nil, address(t, "192.0.2.2", "0"))
	s := newSubject(t, Config{Zones: rootZone(first.upstream(), second.upstream()), Timeout: shortTimeout})
	for range failuresToDown {
		require.Equal(t, StateUp, s.state(0))
		_, err := s.ask(t, "a.example")
		require.NoError(t, err)
	}
	require.Equal(t, StateDown, s.state(0))
	require.NotEmpty(t, s.Upstreams()[0].Reason)
	require.Zero(t, s.count(t, "mep_dns_forward_upstream_up", first.addr.String()))
	asked := first.asked()
	_, err := s.ask(t, "a.example")
	require.NoError(t, err)
	require.Equal(t, asked, first.asked())

	first.say(address(t, "192.0.2.1", "0"))
	s.run(t)
	require.Eventually(t, func() bool { return s.state(0) == StateUp }, waitTime, time.Millisecond)
	m, err := s.ask(t, "a.example")
	require.NoError(t, err)
	require.Equal(t, []string{"192.0.2.1"}, addresses(m))
	require.InDelta(t, 1, s.count(t, "mep_dns_forward_upstream_up", first.addr.String()), 0)
}

func TestOneThatIsAloneIsAskedEvenWhenItIsDown(t *testing.T) {
	up := newFake(t, nil, silence)
	s := newSubject(t, Config{Zones: rootZone(up.upstream()), Timeout: shortTimeout})
	_, err := s.ask(t, "a.example")
	require.ErrorIs(t, err, ErrTimeout)
	require.Equal(t, StateDown, s.state(0))
	up.say(address(t, "192.0.2.1", "60"))
	_, err = s.ask(t, "b.example")
	require.NoError(t, err)
	require.Equal(t, StateUp, s.state(0))
}

// TestOneThatAnswersProbesOnlyIsNotBelievedForLong looks at the times between probes.
func TestOneThatAnswersProbesOnlyIsNotBelievedForLong(t *testing.T) {
	s := newSubject(t, Config{Zones: rootZone(Upstream{Addr: portOfNobody})})
	u := s.settings.Load().upstreams()[0]
	var rests []time.Duration
	for range 8 {
		rests = append(rests, u.nextRest())
	}
	require.Equal(t, []time.Duration{0, 500e6, 1e9, 2e9, 4e9, 8e9, 16e9, 30e9}, rests)
	s.note(u, outcomeNetwork, 0, context.DeadlineExceeded)
	require.Equal(t, probeMost, u.nextRest())
	s.note(u, outcomeServfail, time.Millisecond, nil)
	require.Zero(t, u.nextRest())
}

// TestAnUpstreamThatAsksUsIsFound has an upstream that asks whoever listens here, which recognises the probe.
func TestAnUpstreamThatAsksUsIsFound(t *testing.T) {
	zoneName, err := wire.ParseName("corp.example")
	require.NoError(t, err)
	for _, zone := range []wire.Name{wire.Root, zoneName} {
		t.Run(zone.String(), func(t *testing.T) {
			var loops atomic.Bool
			loops.Store(true)
			up := newFake(t, nil, silence)
			s := newSubject(t, Config{Zones: []Zone{{Name: zone, Upstreams: []Upstream{up.upstream()}}}, RandomCase: true})
			up.say(func(r received) [][]byte {
				name, err := wire.ParseName(r.Question[0].Name)
				if err == nil && loops.Load() && isProbe(r) && !s.LoopProbe(name) {
					t.Errorf("%s is not known as a probe", name)
				}
				return code(t, dns.RcodeRefused)(r)
			})
			log := &lockedBuffer{}
			s.log = slog.New(slog.NewTextHandler(log, nil))
			s.run(t)
			require.Eventually(t, func() bool { return s.state(0) == StateLooping }, waitTime, time.Millisecond)
			asked := up.asked()
			require.Eventually(t, func() bool { return up.asked() >= asked+2 }, waitTime, time.Millisecond, "probes go on")
			require.Equal(t, StateLooping, s.state(0))
			_, err := s.ask(t, "a.corp.example")
			require.ErrorIs(t, err, ErrLoop)
			require.Equal(t, 1, strings.Count(log.String(), "level=ERROR"), log.String())

			loops.Store(false)
			require.Eventually(t, func() bool { return s.state(0) == StateUp }, waitTime, time.Millisecond)
			for _, r := range up.received() {
				require.True(t, dns.IsSubDomain(zone.String(), r.Question[0].Name), "an upstream of a zone may know nothing else")
			}
		})
	}
}

type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

func TestOthersCannotMakeUpProbes(t *testing.T) {
	up := newFake(t, nil, code(t, dns.RcodeNameError))
	s := newSubject(t, Config{Zones: rootZone(up.upstream())})
	s.run(t)
	require.Eventually(t, func() bool { return up.asked() == 1 }, waitTime, time.Millisecond)
	probe, err := wire.ParseName(up.received()[0].Question[0].Name)
	require.NoError(t, err)
	for name, other := range map[string]wire.Name{
		"another process":    wire.Name(strings.Replace(string(probe), s.process, strings.Repeat("0", len(s.process)), 1)),
		"without a nonce":    probe.Parent(),
		"without a number":   probe.Parent().Parent(),
		"something else":     "\x01a\x07example\x00",
		"the root":           wire.Root,
		"something below it": "\x01a" + probe,
	} {
		require.False(t, s.LoopProbe(other), name)
	}
	other, _ := probe.Parent().Child("01234567")
	require.True(t, s.LoopProbe(other), "one that was sent long ago")
	require.Equal(t, StateUp, s.state(0))
	up.say(silence) // the next probe follows at once
	require.True(t, s.LoopProbe(probe))
	require.Equal(t, StateLooping, s.state(0))
}

func TestNewSettings(t *testing.T) {
	one, two := newFake(t, nil, address(t, "192.0.2.1", "60")), newFake(t, nil, address(t, "192.0.2.2", "60"))
	corp, err := wire.ParseName("corp.example")
	require.NoError(t, err)
	cfg := Config{Zones: rootZone(Upstream{Addr: portOfNobody}, one.upstream()), CacheBytes: 1 << 20, Timeout: waitTime}
	s := newSubject(t, cfg)
	s.run(t)
	for _, name := range []string{"a.example", "a.corp.example", "b.example"} {
		_, err := s.ask(t, name)
		require.NoError(t, err)
	}
	require.Eventually(t, func() bool { return s.state(0) == StateDown }, waitTime, time.Millisecond)
	kept := func(name string) bool {
		_, ok := s.Cached(asking(t, name, dns.TypeA), s.clock.now())
		return ok
	}

	t.Run("that are wrong change nothing", func(t *testing.T) {
		wrong := cfg
		wrong.Zones = append(rootZone(two.upstream()), Zone{Name: corp, Upstreams: []Upstream{{}}})
		_, err := s.Prepare(wrong)
		require.Error(t, err)
		require.Len(t, s.Upstreams(), 2)
		require.Equal(t, one.addr.String(), s.Upstreams()[1].Upstream)
	})
	t.Run("come into force when they are applied", func(t *testing.T) {
		next := cfg
		next.Zones = append(rootZone(two.upstream(), Upstream{Addr: portOfNobody}), Zone{Name: corp, Upstreams: []Upstream{two.upstream()}})
		apply, err := s.Prepare(next)
		require.NoError(t, err)
		require.Equal(t, one.addr.String(), s.Upstreams()[1].Upstream)
		apply()
		list := s.Upstreams()
		require.Equal(t, two.addr.String(), list[0].Upstream)
		require.Equal(t, []string{portOfNobody.String(), StateDown}, []string{list[1].Upstream, list[1].State}, "its health is still known")
		require.Equal(t, "corp.example.", list[2].Zone)
		require.Zero(t, s.count(t, "mep_dns_forward_requests_total", one.addr.String()))
		require.True(t, kept("a.example"), "one stays, and the public tree is the same for all")
		require.False(t, kept("a.corp.example"), "somebody else is asked for that now")
		m, err := s.ask(t, "a.corp.example")
		require.NoError(t, err)
		require.Equal(t, []string{"192.0.2.2"}, addresses(m))
	})
	t.Run("that are the same forget nothing", func(t *testing.T) {
		next := cfg
		next.Zones = append(rootZone(two.upstream(), Upstream{Addr: portOfNobody}), Zone{Name: corp, Upstreams: []Upstream{two.upstream()}})
		apply, err := s.Prepare(next)
		require.NoError(t, err)
		apply()
		require.True(t, kept("a.corp.example"))
	})
	t.Run("that replace all who were asked for everything", func(t *testing.T) {
		next := cfg
		next.Zones = append(rootZone(one.upstream()), Zone{Name: corp, Upstreams: []Upstream{two.upstream()}})
		apply, err := s.Prepare(next)
		require.NoError(t, err)
		apply()
		require.False(t, kept("a.example"))
		_, err = s.ask(t, "a.example")
		require.NoError(t, err)
	})
	t.Run("with less room", func(t *testing.T) {
		next := cfg
		next.CacheBytes = 0
		apply, err := s.Prepare(next)
		require.NoError(t, err)
		apply()
		require.False(t, kept("a.example"))
	})
}
