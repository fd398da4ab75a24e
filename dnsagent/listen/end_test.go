package listen_test

import (
	"log/slog"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/dnsagent/listen"
)

func TestALameDuckAnswers(t *testing.T) {
	entered, leave := make(chan struct{}), make(chan struct{})
	s := start(t, listen.Config{Addr: loopback, LameDuck: func() time.Duration {
		close(entered)
		<-leave
		return time.Millisecond
	}}, newEcho())
	c := dial(t, "tcp", s.Addr())
	s.stop()
	<-entered
	require.Equal(t, "x", c.ask("x"))
	require.Equal(t, "x", dial(t, "udp", s.Addr()).ask("x"))
	require.Equal(t, "x", dial(t, "tcp", s.Addr()).ask("x"), "new connections, too")
	close(leave)
	c.closed()
}

// ends waits until the server no longer listens.
func (s *server) ends(t *testing.T) {
	t.Helper()
	require.Eventually(t, func() bool {
		conn, err := net.DialTimeout("tcp", s.Addr().String(), patience)
		if err == nil {
			_ = conn.Close()
		}
		return err != nil
	}, patience, time.Millisecond)
}

func TestAnswersUnderWayAreSentAtTheEnd(t *testing.T) {
	both(t, func(t *testing.T, network string) {
		h := newEcho()
		s, err := open(t, listen.Config{Addr: loopback})
		require.NoError(t, err)
		s.SetGrace(2 * patience) // the cleanup of the test fails if this is used up
		s.run(t, h)
		c := dial(t, network, s.Addr())
		c.send("wait: a")
		<-h.entered
		s.stop()
		s.ends(t)
		h.release <- struct{}{}
		require.Equal(t, "wait: a", c.receive())
		if network == "tcp" {
			c.closed()
		}
	})
}

func TestAnswersThatTakeTooLongAreGivenUp(t *testing.T) {
	both(t, func(t *testing.T, network string) {
		h := newEcho()
		s, err := open(t, listen.Config{Addr: loopback})
		require.NoError(t, err)
		s.SetGrace(short)
		s.run(t, h)
		c := dial(t, network, s.Addr())
		c.send("wait: for ever")
		<-h.entered
		s.stop()
		if network == "tcp" {
			c.closed()
		}
		// Run returns without an error, which start checks.
	})
}

func TestAHandlerThatDoesNotEndIsAnError(t *testing.T) {
	h := newEcho()
	s, err := open(t, listen.Config{Addr: loopback})
	require.NoError(t, err)
	s.SetGrace(time.Millisecond)
	s.run(t, h)
	c := dial(t, "udp", s.Addr())
	c.send("stuck")
	<-h.entered
	s.stop()
	require.ErrorContains(t, <-s.ended, "do not end")
	h.release <- struct{}{}
	s.ended <- nil // for the cleanup that waits for all servers
}

func TestConnectionsOfAllKindsEndWithTheServer(t *testing.T) {
	h := newEcho()
	config := certificate(t, "a")
	s := start(t, listen.Config{
		Addr: loopback, TLSAddr: loopback, TLS: config.server, PerConnection: 1,
		Idle: time.Hour, ReadTimeout: time.Hour,
	}, h)
	idle, half, full := dial(t, "tcp", s.Addr()), dial(t, "tcp", s.Addr()), dial(t, "tcp", s.Addr())
	require.Equal(t, "x", idle.ask("x"))
	require.Equal(t, "x", half.ask("x"))
	_, err := half.Write([]byte{1})
	require.NoError(t, err)
	full.send("wait: a")
	full.send("wait: b")
	<-h.entered
	silent, secure := dial(t, "tcp", s.TLSAddr()), dialTLS(t, s.TLSAddr(), config.client)
	require.Equal(t, "x", secure.ask("x"))
	s.becomes(t, 5, "mep_dns_connections")
	s.stop()
	for _, c := range []*client{idle, half, full, silent, secure} {
		c.closed()
	}
}

func TestAServerThatIsNotRunGivesItsAddressBack(t *testing.T) {
	s, err := open(t, listen.Config{Addr: loopback})
	require.NoError(t, err)
	addr := s.Addr().String()
	require.NoError(t, s.Close())
	require.NoError(t, s.Close())
	again, err := listen.Open(listen.Config{Addr: addr, Sockets: 1, Registerer: s.metrics, Log: slog.New(slog.DiscardHandler)})
	require.NoError(t, err, "nor are its metrics in the way")
	require.Equal(t, addr, again.Addr().String())
	require.NoError(t, again.Close())
}
