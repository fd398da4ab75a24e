package timing

import (
	"context"
	"encoding/binary"
	"net"
	"testing"
	"time"

	"github.com/beevik/ntp"
	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/api/mp1"
)

// fakeServer answers NTP queries on a loopback socket until the test ends.
func fakeServer(t *testing.T, answer func(question []byte) []byte) string {
	t.Helper()
	conn, err := (&net.ListenConfig{}).ListenPacket(t.Context(), "udp", "127.0.0.1:0")
	require.NoError(t, err)
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 1024)
		for {
			n, from, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			if a := answer(buf[:n]); a != nil {
				_, _ = conn.WriteTo(a, from)
			}
		}
	}()
	t.Cleanup(func() {
		_ = conn.Close()
		<-done
	})
	return conn.LocalAddr().String()
}

// packet returns the response of a server of the given stratum whose clock differs by offset (RFC 5905 figure 8).
func packet(question []byte, leap, stratum byte, offset time.Duration) []byte {
	p := make([]byte, 48)
	p[0] = leap<<6 | 4<<3 | 4
	p[1] = stratum
	p[2], p[3] = 6, 0xec
	copy(p[12:], "GPS\x00")
	now := time.Now().Add(offset)
	stamp(p[16:], now.Add(-time.Minute))
	copy(p[24:32], question[40:48])
	stamp(p[32:], now)
	stamp(p[40:], now)
	return p
}

func stamp(b []byte, t time.Time) {
	binary.BigEndian.PutUint32(b, uint32(t.Unix()+2208988800))
	binary.BigEndian.PutUint32(b[4:], uint32((uint64(t.Nanosecond())<<32)/1e9))
}

func TestServersAnswerDecides(t *testing.T) {
	for name, c := range map[string]struct {
		answer func(q []byte) []byte
		fault  string // of the attempt
		reason string // why the clock is not traceable
	}{
		"good":           {answer: func(q []byte) []byte { return packet(q, 0, 2, 300*time.Millisecond) }},
		"stratum 15":     {answer: func(q []byte) []byte { return packet(q, 0, 15, 0) }},
		"far ahead":      {answer: func(q []byte) []byte { return packet(q, 0, 1, 24*time.Hour) }, reason: "the clock is off by 2"},
		"far behind":     {answer: func(q []byte) []byte { return packet(q, 0, 1, -time.Hour) }, reason: "the clock is off by -"},
		"stratum 16":     {answer: func(q []byte) []byte { return packet(q, 0, 16, 0) }, fault: "invalid stratum"},
		"stratum 255":    {answer: func(q []byte) []byte { return packet(q, 0, 255, 0) }, fault: "invalid stratum"},
		"not in sync":    {answer: func(q []byte) []byte { return packet(q, 3, 2, 0) }, fault: "invalid leap second"},
		"silent":         {answer: func([]byte) []byte { return nil }, fault: "does not answer within"},
		"garbage":        {answer: func([]byte) []byte { return []byte("what?") }, fault: "ask "},
		"empty":          {answer: func([]byte) []byte { return []byte{} }, fault: "ask "},
		"someone else's": {answer: func([]byte) []byte { return packet(make([]byte, 48), 0, 2, 0) }, fault: "didn't match"},
		"kiss of death": {answer: func(q []byte) []byte {
			p := packet(q, 3, 0, 0)
			copy(p[12:], "RATE")
			return p
		}, fault: `wants no questions ("RATE")`},
	} {
		t.Run(name, func(t *testing.T) {
			server := fakeServer(t, c.answer)
			clock := newClock(Config{NTPServer: server}, nil)
			if name == "silent" {
				clock.patience = 50 * time.Millisecond
			}
			err := clock.look(t.Context(), &clock.view.Load().cfg)
			s := clock.Status()
			require.Equal(t, server, s.Source)
			if c.fault != "" {
				require.ErrorContains(t, err, c.fault)
				require.Contains(t, s.LastError, c.fault)
				require.Contains(t, s.Reason, "there has been no answer yet")
				require.True(t, s.LastAnswer.IsZero())
				require.Equal(t, mp1.TimeNontraceable, clock.Now().TimeSourceStatus)
				return
			}
			require.NoError(t, err)
			require.Empty(t, s.LastError)
			require.False(t, s.LastAnswer.IsZero())
			require.Equal(t, c.reason == "", s.Traceable, s.Reason)
			require.Contains(t, s.Reason, c.reason)
			require.Equal(t, c.reason == "", clock.Now().TimeSourceStatus == mp1.TimeTraceable)
		})
	}
}

func TestOffsetAndStratumAreThoseOfTheServer(t *testing.T) {
	clock := newClock(Config{NTPServer: fakeServer(t, func(q []byte) []byte { return packet(q, 0, 3, -time.Hour) })}, nil)
	require.NoError(t, clock.look(t.Context(), &clock.view.Load().cfg))
	s := clock.Status()
	require.Equal(t, 3, s.Stratum)
	require.InDelta(t, -time.Hour, s.Offset, float64(10*time.Second))
}

func TestLastGoodAnswerCountsWhileTheServerFails(t *testing.T) {
	good := make(chan bool, 2)
	clock := newClock(Config{NTPServer: fakeServer(t, func(q []byte) []byte {
		if <-good {
			return packet(q, 0, 2, 0)
		}
		return packet(q, 0, 16, 0)
	})}, nil)
	good <- true
	require.NoError(t, clock.look(t.Context(), &clock.view.Load().cfg))
	good <- false
	require.Error(t, clock.look(t.Context(), &clock.view.Load().cfg))
	s := clock.Status()
	require.True(t, s.Traceable)
	require.NotEmpty(t, s.LastError)
	require.Equal(t, 2, s.Stratum)
}

func TestAnswerOfAServerThatIsNoLongerAskedIsForgotten(t *testing.T) {
	clock := newClock(Config{}, nil)
	asked := Config{NTPServer: fakeServer(t, func(q []byte) []byte {
		clock.Set(Config{NTPServer: "other.example"})
		return packet(q, 0, 2, 0)
	})}
	clock.Set(asked)
	require.NoError(t, clock.look(t.Context(), &asked))
	require.Equal(t, "other.example", clock.Status().Source)
	require.False(t, clock.Status().Traceable)
}

func TestServerThatAsksForPeaceIsAskedLessAndLess(t *testing.T) {
	cfg := Config{NTPServer: "ntp.example"}.withDefaults()
	require.Equal(t, 2*defaultInterval, pause(&cfg, ntp.ErrKissOfDeath, 1))
	require.Equal(t, 4*defaultInterval, pause(&cfg, ntp.ErrKissOfDeath, 2))
	require.Equal(t, 64*defaultInterval, pause(&cfg, ntp.ErrKissOfDeath, 1000))
}

func TestRunFollowsAServerAndEndsWhileItIsSilent(t *testing.T) {
	asked := make(chan struct{}, 100)
	clock := newClock(Config{NTPServer: fakeServer(t, func(q []byte) []byte {
		asked <- struct{}{}
		if len(asked) > 1 {
			return nil
		}
		return packet(q, 0, 2, 0)
	}), Interval: 10 * time.Millisecond}, nil)
	clock.patience = time.Hour
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- clock.Run(ctx) }()
	require.Eventually(t, func() bool { return len(asked) == 2 }, 20*time.Second, time.Millisecond)
	require.False(t, clock.Status().LastAnswer.IsZero())
	cancel()
	select {
	case err := <-done:
		require.NoError(t, err)
	case <-time.After(20 * time.Second):
		t.Fatal("Run waits for a server although its context has ended")
	}
}
