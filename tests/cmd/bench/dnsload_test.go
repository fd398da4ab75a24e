package main

import (
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/stretchr/testify/require"
)

// answering starts a server that passes every nth response through odd, and returns its address.
func answering(t *testing.T, z *zone, nth int64, odd func(*dns.Msg) *dns.Msg) string {
	t.Helper()
	records := make(bareRecords)
	for i := range z.names() {
		records[z.name(i)] = aRecord(z.name(i), z.address(i).AsSlice())
	}
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	require.NoError(t, err)
	var count atomic.Int64
	s := &dns.Server{PacketConn: conn, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, r *dns.Msg) {
		m := records.answer(r)
		if count.Add(1)%nth == 0 {
			m = odd(m)
		}
		if m != nil {
			_ = w.WriteMsg(m)
		}
	})}
	ended := make(chan error, 1)
	go func() { ended <- s.ActivateAndServe() }()
	t.Cleanup(func() {
		require.NoError(t, s.Shutdown())
		require.NoError(t, <-ended)
	})
	return conn.LocalAddr().String()
}

func TestWhatBecameOfQuestionsIsCounted(t *testing.T) {
	z := &zone{"test.example.", 2, 50}
	questions, err := z.questions()
	require.NoError(t, err)
	address := func(a ...byte) func(*dns.Msg) *dns.Msg {
		return func(m *dns.Msg) *dns.Msg {
			m.Answer = []dns.RR{aRecord(m.Question[0].Name, a)}
			return m
		}
	}
	for _, tc := range []struct {
		name string
		odd  func(*dns.Msg) *dns.Msg
		want tally // of 100 queries, every tenth of which got a modified response
	}{
		{"as it should be", func(m *dns.Msg) *dns.Msg { return m }, tally{answered: 100}},
		{"no answer", func(*dns.Msg) *dns.Msg { return nil }, tally{answered: 90, lost: 10}},
		{"another address", address(10, 255, 0, 0), tally{answered: 100, wrong: 10}},
		{"an error", func(m *dns.Msg) *dns.Msg { m.Rcode = dns.RcodeServerFailure; return m }, tally{answered: 100, wrong: 10}},
		{"no record", func(m *dns.Msg) *dns.Msg { m.Answer = nil; return m }, tally{answered: 100, wrong: 10}},
		{"the answer to another question", func(m *dns.Msg) *dns.Msg { m.Id += 1 << 15; return m }, tally{answered: 90, lost: 10, wrong: 10}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c, err := newCrew(answering(t, z, 10, tc.odd), questions, 0)
			require.NoError(t, err)
			defer c.close()
			require.NoError(t, c.flood(len(questions), time.Minute))
			require.Equal(t, tc.want, c.tally)
		})
	}
}

func TestAnAddressThatChangedIsRight(t *testing.T) {
	z := &zone{"test.example.", 1, 1}
	questions, err := z.questions()
	require.NoError(t, err)
	addr := answering(t, z, 1, func(m *dns.Msg) *dns.Msg {
		m.Answer = []dns.RR{aRecord(m.Question[0].Name, []byte{77, 0, 0, 0})}
		return m
	})
	c, err := newCrew(addr, questions, 0)
	require.NoError(t, err)
	defer c.close()
	require.NoError(t, c.flood(5, time.Minute))
	require.Equal(t, tally{answered: 5, changed: 5}, c.tally)
}

func TestQuestionsArePaced(t *testing.T) {
	z := &zone{"test.example.", 1, 10}
	questions, err := z.questions()
	require.NoError(t, err)
	got, err := pace(answering(t, z, 5, func(*dns.Msg) *dns.Msg { return nil }), questions, 1000, 100*time.Millisecond)
	require.NoError(t, err)
	require.Equal(t, 100, got.answered+got.lost)
	require.Equal(t, 20, got.lost)
	require.Len(t, got.took, 80)
}

func TestTheFiguresOfDnsperfAreRead(t *testing.T) {
	const good = `
  Queries sent:         295327
  Queries completed:    294919 (99.86%)
  Queries lost:         408 (0.14%)

  Response codes:       NOERROR 294919 (100.00%)
  Average packet size:  request 45, response 89
  Run time (s):         2.000843
  Queries per second:   147397.372008
`
	got, rate, err := parsePerf([]byte(good))
	require.NoError(t, err)
	require.Equal(t, tally{answered: 294919, lost: 408}, got)
	require.InDelta(t, 147397.37, rate, .01)

	const bad = "Queries completed: 2 (100%)\nQueries lost: 0 (0%)\nResponse codes: NOERROR 1 (50.00%), REFUSED 1 (50.00%)\nQueries per second: 1\n"
	_, _, err = parsePerf([]byte(bad))
	require.ErrorContains(t, err, "REFUSED 1")
}
