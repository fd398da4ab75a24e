package forward

import (
	"bytes"
	"context"
	"log/slog"
	"strconv"
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
	for i := range failuresToDown {
		require.Equal(t, StateUp, s.state(0))
		_, err := s.ask(t, strconv.Itoa(i)+".example")
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
	for _, name := range []string{"a.example", "b.example"} {
		_, err := s.ask(t, name)
		require.ErrorIs(t, err, ErrTimeout)
	}
	require.Equal(t, StateDown, s.state(0))
	up.say(address(t, "192.0.2.1", "60"))
	_, err := s.ask(t, "c.example")
	require.NoError(t, err)
	require.Equal(t, StateUp, s.state(0))
}

// TestASingleNameThatIsNotAnsweredIsNoSign asks an upstream for a single name, which it never answers.
func TestASingleNameThatIsNotAnsweredIsNoSign(t *testing.T) {
	tests := map[string]struct {
		probes answers
		down   bool
	}{
		"as long as probes are answered":     {probes: code(t, dns.RcodeNameError)},
		"but when no probe is answered, too": {probes: silence, down: true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var probes atomic.Int64
			up := newFake(t, nil, func(r received) [][]byte {
				if !isProbe(r) {
					return nil
				}
				probes.Add(1)
				return tt.probes(r)
			})
			s := newSubject(t, Config{Zones: rootZone(up.upstream()), Timeout: shortTimeout})
			log := &lockedBuffer{}
			s.log = slog.New(slog.NewTextHandler(log, nil))
			s.run(t)
			require.Eventually(t, func() bool { return probes.Load() == 1 }, waitTime, time.Millisecond, "the one of the start")
			for range 2 {
				_, err := s.ask(t, "slow.example")
				require.ErrorIs(t, err, ErrTimeout)
				s.clock.forward(2 * failureTTL)
			}
			if tt.down {
				require.Eventually(t, func() bool { return s.state(0) == StateDown }, waitTime, time.Millisecond)
				return
			}
			require.Eventually(t, func() bool { return probes.Load() >= 2 }, waitTime, time.Millisecond, "it is asked whether it is down")
			u := s.settings.Load().upstreams()[0]
			require.Eventually(t, func() bool { return !u.inDoubt() }, waitTime, time.Millisecond)
			require.NotContains(t, log.String(), "does not answer")
			require.Equal(t, StateUp, s.state(0))
		})
	}
}

func TestTheLastErrorIsShownUntilThereIsAnAnswer(t *testing.T) {
	tests := map[string]struct {
		say  answers
		want string
	}{
		"of one that is silent":      {silence, "no answer within 500ms"},
		"of one that refuses":        {code(t, dns.RcodeRefused), "REFUSED"},
		"of one that says SERVFAIL":  {code(t, dns.RcodeServerFailure), "SERVFAIL"},
		"of one that has no answers": {func(r received) [][]byte { return packed(t, r.reply(t, "b.example. 60 A 192.0.2.1")) }, "no answer"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			bad, good := newFake(t, nil, tt.say), newFake(t, nil, address(t, "192.0.2.2", "0"))
			s := newSubject(t, Config{Zones: rootZone(bad.upstream(), good.upstream()), Timeout: shortTimeout})
			require.Empty(t, s.Upstreams()[0].Reason)
			_, err := s.ask(t, "a.example")
			require.NoError(t, err)
			require.Equal(t, StateUp, s.state(0))
			require.Contains(t, s.Upstreams()[0].Reason, tt.want)
			require.Empty(t, s.Upstreams()[1].Reason)
			bad.say(address(t, "192.0.2.1", "0"))
			_, err = s.ask(t, "a.example")
			require.NoError(t, err)
			require.Empty(t, s.Upstreams()[0].Reason)
		})
	}
}

// TestOneThatAnswersProbesOnlyIsNotBelievedForLong checks the times between probes.
func TestOneThatAnswersProbesOnlyIsNotBelievedForLong(t *testing.T) {
	s := newSubject(t, Config{Zones: rootZone(Upstream{Addr: portOfNobody})})
	u := s.settings.Load().upstreams()[0]
	var rests []time.Duration
	for range 8 {
		rests = append(rests, u.nextRest())
	}
	require.Equal(t, []time.Duration{0, 500e6, 1e9, 2e9, 4e9, 8e9, 16e9, 30e9}, rests)
	s.note(u, wire.Root, outcomeNetwork, 0, context.DeadlineExceeded)
	require.Equal(t, probeMost, u.nextRest())
	s.note(u, wire.Root, outcomeServfail, time.Millisecond, errServfail)
	require.Zero(t, u.nextRest())
}

// TestAnUpstreamThatAsksUsIsFound has an upstream that asks this server, which recognises the probe.
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

func TestWithoutHealthyUpstreamsAnOldAnswerIsGivenAtOnce(t *testing.T) {
	up := newFake(t, nil, address(t, "192.0.2.1", "60"))
	s := newSubject(t, Config{Zones: rootZone(up.upstream()), Stale: time.Hour, Timeout: shortTimeout})
	_, err := s.ask(t, "a.example")
	require.NoError(t, err)
	up.say(silence)
	for _, name := range []string{"b.example", "c.example"} {
		_, err = s.ask(t, name)
		require.Error(t, err)
	}
	require.Equal(t, StateDown, s.state(0))
	s.patience = time.Hour
	s.clock.forward(time.Minute)
	m, err := s.ask(t, "a.example")
	require.NoError(t, err)
	require.Equal(t, []string{"192.0.2.1"}, addresses(m))
}

func TestSlowNamesAskedForAtOnceAreNoSignOfAnUpstreamThatIsDown(t *testing.T) {
	up := newFake(t, nil, silence)
	s := newSubject(t, Config{Zones: rootZone(up.upstream())})
	u := s.settings.Load().zones[wire.Root].upstreams[0]
	a, b := asking(t, "a.example", dns.TypeA).Name, asking(t, "b.example", dns.TypeA).Name
	for range 10 {
		s.note(u, a, outcomeTimeout, time.Second, ErrTimeout)
		s.note(u, b, outcomeTimeout, time.Second, ErrTimeout)
	}
	require.Equal(t, StateUp, s.state(0))
	s.clock.forward(s.settings.Load().Timeout)
	s.note(u, a, outcomeTimeout, time.Second, ErrTimeout)
	require.Equal(t, StateDown, s.state(0))
}
