package listen_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/dnsagent/listen"
)

func TestUDPAndTCPHaveTheSamePort(t *testing.T) {
	for range 20 {
		s := start(t, listen.Config{Addr: loopback, Sockets: 3}, newEcho())
		require.Equal(t, "x", dial(t, "udp", s.Addr()).ask("x"))
		require.Equal(t, "x", dial(t, "tcp", s.Addr()).ask("x"))
	}
}

func TestAnAddressThatIsTaken(t *testing.T) {
	first := start(t, listen.Config{Addr: loopback}, newEcho())
	t.Run("by another server of ours", func(t *testing.T) {
		_, err := open(t, listen.Config{Addr: first.Addr().String()})
		require.ErrorIs(t, err, syscall.EADDRINUSE, "although UDP sockets may share an address")
		require.ErrorContains(t, err, "dns.listen")
		require.ErrorContains(t, err, "systemd-resolved")
	})
	t.Run("for UDP", func(t *testing.T) {
		s, err := open(t, listen.Config{Addr: loopback, Sockets: 1}) // finds a port that is free for TCP
		require.NoError(t, err)
		addr := s.Addr().String()
		require.NoError(t, s.Close())
		conn, err := net.ListenPacket("udp", addr)
		require.NoError(t, err)
		defer func() { require.NoError(t, conn.Close()) }()
		_, err = open(t, listen.Config{Addr: addr})
		require.ErrorIs(t, err, syscall.EADDRINUSE)
		require.ErrorContains(t, err, "listen udp")
		ln, err := net.Listen("tcp", addr)
		require.NoError(t, err, "nothing is left bound")
		require.NoError(t, ln.Close())
	})
	t.Run("for TLS", func(t *testing.T) {
		_, err := open(t, listen.Config{Addr: loopback, TLSAddr: first.Addr().String(), TLS: certificate(t, "a").server})
		require.ErrorContains(t, err, "dns.tlsListen")
	})
}

func TestAddressesThatAreNone(t *testing.T) {
	for name, c := range map[string]struct {
		cfg  listen.Config
		want string
	}{
		"none at all":           {listen.Config{}, "no address"},
		"no port":               {listen.Config{Addr: "127.0.0.1"}, "missing port"},
		"no address of ours":    {listen.Config{Addr: "192.0.2.99:0"}, "none of this machine's"},
		"no TLS address either": {listen.Config{TLSAddr: "x"}, "dns.tlsListen"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := open(t, c.cfg)
			require.ErrorContains(t, err, c.want)
		})
	}
	t.Run("twice in one registry", func(t *testing.T) {
		cfg := listen.Config{Addr: loopback, Registerer: prometheus.NewRegistry(), Log: slog.New(slog.DiscardHandler)}
		s, err := listen.Open(cfg)
		require.NoError(t, err)
		_, err = listen.Open(cfg)
		require.Error(t, err)
		require.NoError(t, s.Close())
	})
}

// asChild is an environment variable that tells the test binary to be the server that systemd started.
const asChild = "MEP_TEST_CHILD"

// child runs that server. It prints the address it listens on, and serves until its standard input ends.
func child() int {
	// systemd sets this between fork and exec, which a Go program cannot do.
	_ = os.Setenv("LISTEN_PID", strconv.Itoa(os.Getpid()))
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	s, err := listen.Open(listen.Config{Addr: os.Getenv(asChild), Registerer: prometheus.NewRegistry(), Log: log, Sockets: 3})
	if err != nil {
		fmt.Println("error:", err)
		return 1
	}
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		cancel()
	}()
	fmt.Println(s.Addr())
	if err := s.Run(ctx, newEcho()); err != nil {
		fmt.Println("error:", err)
		return 1
	}
	return 0
}

// handOver starts the server with sockets. It returns its first line of output, and a function that stops it and returns its
// log.
func handOver(t *testing.T, names string, files ...*os.File) (says string, stop func() string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.ExtraFiles = files
	cmd.Env = append(os.Environ(), asChild+"="+loopback, "LISTEN_FDS="+strconv.Itoa(len(files)), "LISTEN_FDNAMES="+names)
	var log strings.Builder
	cmd.Stderr = &log
	in, err := cmd.StdinPipe()
	require.NoError(t, err)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	says, err = bufio.NewReader(out).ReadString('\n')
	require.NoError(t, err)
	return strings.TrimSpace(says), func() string {
		require.NoError(t, in.Close())
		err := cmd.Wait()
		if !strings.HasPrefix(says, "error:") {
			require.NoError(t, err)
		}
		return log.String()
	}
}

type withFile interface{ File() (*os.File, error) }

// handed returns the file of a socket, as systemd would pass it.
func handed(t *testing.T, socket io.Closer) *os.File {
	t.Helper()
	f, err := socket.(withFile).File()
	require.NoError(t, err)
	t.Cleanup(func() {
		require.NoError(t, f.Close())
		require.NoError(t, socket.Close())
	})
	return f
}

func packetSocket(t *testing.T, addr string) (*net.UDPConn, *os.File) {
	t.Helper()
	conn, err := net.ListenPacket("udp", addr)
	require.NoError(t, err)
	return conn.(*net.UDPConn), handed(t, conn)
}

func streamSocket(t *testing.T, network, addr string) (net.Listener, *os.File) {
	t.Helper()
	ln, err := net.Listen(network, addr)
	require.NoError(t, err)
	return ln, handed(t, ln)
}

func TestSocketsOfSystemd(t *testing.T) {
	on := func(a net.Addr) netip.AddrPort {
		return netip.AddrPortFrom(netip.MustParseAddr("127.0.0.2"), netip.MustParseAddrPort(a.String()).Port())
	}
	t.Run("stand in for the address", func(t *testing.T) {
		udp, udpFile := packetSocket(t, "[::]:0")
		tcp, tcpFile := streamSocket(t, "tcp", "[::]:0")
		other, otherFile := streamSocket(t, "tcp", loopback)
		says, stop := handOver(t, "other:dns:dns", otherFile, udpFile, tcpFile)
		require.Equal(t, udp.LocalAddr().String(), says)
		for range 20 {
			require.Equal(t, "x", dial(t, "udp", on(udp.LocalAddr())).ask("x"), "from the address that was asked")
			require.Equal(t, "x", dial(t, "tcp", on(tcp.Addr())).ask("x"))
		}
		conn, err := net.Dial("tcp", other.Addr().String())
		require.NoError(t, err, "sockets of other names are left alone")
		require.NoError(t, conn.Close())
		require.Empty(t, stop())
	})
	t.Run("of other names change nothing", func(t *testing.T) {
		tcp, file := streamSocket(t, "tcp", loopback)
		says, stop := handOver(t, "http", file)
		require.NotEqual(t, tcp.Addr().String(), says)
		require.Equal(t, "x", dial(t, "udp", netip.MustParseAddrPort(says)).ask("x"))
		require.Empty(t, stop())
	})
	t.Run("for UDP only are complained of", func(t *testing.T) {
		udp, file := packetSocket(t, loopback)
		says, stop := handOver(t, "dns", file)
		require.Equal(t, udp.LocalAddr().String(), says)
		require.Equal(t, "x", dial(t, "udp", netip.MustParseAddrPort(says)).ask("x"))
		require.Contains(t, stop(), "both UDP and TCP")
	})
	t.Run("for TLS need a certificate", func(t *testing.T) {
		_, file := streamSocket(t, "tcp", loopback)
		says, stop := handOver(t, "dns-tls", file)
		require.Contains(t, says, "certificate")
		stop()
	})
	t.Run("for TLS are no UDP sockets", func(t *testing.T) {
		_, file := packetSocket(t, loopback)
		says, stop := handOver(t, "dns-tls", file)
		require.Contains(t, says, "error: the systemd socket dns-tls at 127.0.0.1:")
		stop()
	})
	t.Run("have to be of the network", func(t *testing.T) {
		_, file := streamSocket(t, "unix", t.TempDir()+"/s")
		says, stop := handOver(t, "dns", file)
		require.Contains(t, says, "error: the systemd socket dns at")
		stop()
	})
}
