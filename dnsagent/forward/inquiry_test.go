package forward

import (
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/dnsagent/wire"
)

// slowly answers after more than a quarter of DefaultTimeout, which is how long an upstream has before the next one is asked.
func slowly(a answers) answers {
	return func(r received) [][]byte {
		time.Sleep(1200 * time.Millisecond)
		return a(r)
	}
}

func TestALateAnswerCounts(t *testing.T) {
	slow := slowly(address(t, "192.0.2.1", "0"))
	truncated := func(r received) [][]byte {
		m := r.reply(t)
		m.Truncated = true
		return packed(t, m)
	}
	overTCP := func(r received) [][]byte {
		if r.tcp {
			return slow(r)
		}
		return truncated(r)
	}
	tests := map[string]struct{ first, second answers }{
		"of the only upstream":                              {first: slow},
		"of the only upstream, over TCP":                    {first: overTCP},
		"of the first when the second is silent":            {first: slow, second: silence},
		"of the first when the second refuses":              {first: slow, second: code(t, dns.RcodeRefused)},
		"of the first when the second says SERVFAIL":        {first: slow, second: code(t, dns.RcodeServerFailure)},
		"of the second when the first is silent":            {first: silence, second: slow},
		"of the second when the first is too slow over TCP": {first: truncated, second: slow},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			upstreams := []Upstream{newFake(t, nil, tt.first).upstream()}
			if tt.second != nil {
				upstreams = append(upstreams, newFake(t, nil, tt.second).upstream())
			}
			s := newSubject(t, Config{Zones: rootZone(upstreams...), Timeout: DefaultTimeout})
			for range 2 {
				m, err := s.ask(t, "a.example")
				require.NoError(t, err)
				require.Equal(t, []string{"192.0.2.1"}, addresses(m))
			}
			require.Equal(t, StateUp, s.state(0))
			if tt.second == nil {
				require.Empty(t, s.Upstreams()[0].Reason)
			}
		})
	}
}

// A distant upstream is asked over a connection that lasts.
func TestALateAnswerOverTLSCountsAndTheConnectionIsKept(t *testing.T) {
	t.Parallel()
	s, up := secureSubject(t)
	apply, err := s.Prepare(Config{Zones: rootZone(s.settings.Load().upstreams()[0].Upstream), Timeout: DefaultTimeout})
	require.NoError(t, err)
	apply()
	_, err = s.ask(t, "a.example")
	require.NoError(t, err)
	up.say(slowly(address(t, "192.0.2.1", "0")))
	_, err = s.ask(t, "a.example")
	require.NoError(t, err)
	require.Equal(t, StateUp, s.state(0))
	require.NotZero(t, s.pool().idleCount())
}

// Each question to an upstream leaves from one port with one ID, however often it is sent, so that an attacker has no more to guess.
func TestAQuestionThatIsSentAgainIsTheSame(t *testing.T) {
	up := newFake(t, nil, silence)
	s := newSubject(t, Config{Zones: rootZone(up.upstream()), Timeout: shortTimeout, RandomCase: true})
	_, err := s.ask(t, "with.letters.that.become.capitals.example")
	require.ErrorIs(t, err, ErrTimeout)
	queries := up.received()
	require.Len(t, queries, tries)
	for _, r := range queries[1:] {
		require.Equal(t, queries[0].raw, r.raw)
		require.Equal(t, queries[0].from.String(), r.from.String())
	}
	require.EqualValues(t, tries, s.Upstreams()[0].Unanswered)
}

func TestServfailIsNotKeptFromClientsForAnUpstreamThatIsDown(t *testing.T) {
	silent, broken := newFake(t, nil, silence), newFake(t, nil, code(t, dns.RcodeServerFailure))
	s := newSubject(t, Config{Zones: rootZone(silent.upstream(), broken.upstream()), Timeout: shortTimeout})
	u := s.settings.Load().upstreams()[0]
	for range failuresToDown {
		s.note(u, wire.Root, outcomeNetwork, 0, ErrNetwork)
	}
	require.Equal(t, StateDown, s.state(0))
	a, err := s.Resolve(t.Context(), asking(t, "a.example", dns.TypeA))
	require.NoError(t, err)
	require.Equal(t, dns.RcodeServerFailure, a.RCode())
	require.Equal(t, 1, silent.asked(), "it is asked, but not again")
	require.EqualValues(t, failuresToDown+1, s.Upstreams()[0].Unanswered)
}

// A connection that delivers nothing gets no more questions while there is another, until it delivers something.
func TestAConnectionThatIsSilentIsNotJoined(t *testing.T) {
	s, up := secureSubject(t)
	g, open := newGate(t)
	up.say(g.before(address(t, "192.0.2.1", "0")))
	p := s.pool()
	p.learn()
	x := s.exchanger(t, "a.example")
	q := x.query()
	c, own := p.join(q, false, waitTime)
	result := make(chan error, 1)
	go func() {
		_, err := c.ask(t.Context(), x, q, own)
		result <- err
	}()
	require.Eventually(t, func() bool { return up.asked() == 1 }, waitTime, time.Millisecond)
	x.overdue()
	require.False(t, x.again(), "another connection is needed")
	other := x.query()
	c2, _ := p.join(other, false, waitTime)
	require.NotSame(t, c, c2)
	p.leave(c2, other, false)
	open()
	require.NoError(t, <-result)
	p.mu.Lock()
	defer p.mu.Unlock()
	require.False(t, c.doubted)
	require.False(t, c.removed)
}
