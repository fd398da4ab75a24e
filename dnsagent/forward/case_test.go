package forward

import (
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/stretchr/testify/require"
)

// lowered answers with an address, and with the name of the question in lower case.
func lowered(t *testing.T) answers {
	return func(r received) [][]byte {
		m := r.reply(t, r.Question[0].Name+" 0 A 192.0.2.1")
		m.Question = []dns.Question{{Name: strings.ToLower(r.Question[0].Name), Qtype: dns.TypeA, Qclass: dns.ClassINET}}
		return packed(t, m)
	}
}

const manyLetters = "with.many.letters.so.that.some.become.capitals.a.example"

func TestAnUpstreamThatLosesCapitalsIsAskedWithoutThem(t *testing.T) {
	up := newFake(t, nil, lowered(t))
	s := newSubject(t, Config{Zones: rootZone(up.upstream()), RandomCase: true})
	ask := func() {
		t.Helper()
		m, err := s.ask(t, manyLetters)
		require.NoError(t, err)
		require.Equal(t, []string{"192.0.2.1"}, addresses(m))
	}
	for range 10 {
		ask()
	}
	require.Equal(t, int64(10), up.overUDP.Load())
	require.Equal(t, int64(caseLosses), up.overTCP.Load(), "it is known then")
	require.True(t, s.Upstreams()[0].CaseLost)
	require.InDelta(t, 1, s.count(t, "mep_dns_forward_upstream_case_lost"), 0)
	queries := up.received()
	require.Equal(t, manyLetters+".", queries[len(queries)-1].Question[0].Name)

	s.clock.forward(caseRest + time.Second)
	for range 5 {
		ask()
	}
	require.Equal(t, int64(caseLosses+1), up.overTCP.Load(), "it is tried once more")

	up.say(address(t, "192.0.2.1", "0"))
	s.clock.forward(caseRest + time.Second)
	for range 5 {
		ask()
	}
	require.Equal(t, int64(caseLosses+1), up.overTCP.Load())
	require.False(t, s.Upstreams()[0].CaseLost)
	require.InDelta(t, 0, s.count(t, "mep_dns_forward_upstream_case_lost"), 0)
	queries = up.received()
	require.NotEqual(t, manyLetters+".", queries[len(queries)-1].Question[0].Name)
}

// An attacker who forges answers over UDP cannot make the forwarder give up capitals.
func TestCapitalsLostOverUDPAloneAreNoProof(t *testing.T) {
	up := newFake(t, nil, nil)
	up.say(func(r received) [][]byte {
		if r.tcp {
			return address(t, "192.0.2.1", "0")(r)
		}
		return lowered(t)(r)
	})
	s := newSubject(t, Config{Zones: rootZone(up.upstream()), RandomCase: true})
	const questions = 3 * caseLosses
	for range questions {
		_, err := s.ask(t, manyLetters)
		require.NoError(t, err)
	}
	require.Equal(t, int64(questions), up.overTCP.Load())
	require.False(t, s.Upstreams()[0].CaseLost)
}

func TestWithoutRandomCapitalsTheirLossIsNoMatter(t *testing.T) {
	up := newFake(t, nil, func(r received) [][]byte {
		m := r.reply(t, r.Question[0].Name+" 0 A 192.0.2.1")
		m.Question = []dns.Question{{Name: strings.ToUpper(r.Question[0].Name), Qtype: dns.TypeA, Qclass: dns.ClassINET}}
		return packed(t, m)
	})
	s := newSubject(t, Config{Zones: rootZone(up.upstream())})
	for range 5 {
		_, err := s.ask(t, manyLetters)
		require.NoError(t, err)
	}
	require.Zero(t, up.overTCP.Load())
	require.False(t, s.Upstreams()[0].CaseLost)
}
