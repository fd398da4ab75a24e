package listen

import (
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"math"
	"net"
	"net/netip"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// stream returns data in pieces.
type stream struct {
	net.Conn
	data   []byte
	pieces []byte
	reads  int
}

// Read implements net.Conn.
func (s *stream) Read(p []byte) (int, error) {
	if len(s.data) == 0 {
		return 0, io.EOF
	}
	n := len(s.data)
	if len(s.pieces) > 0 {
		n = 1 + int(s.pieces[s.reads%len(s.pieces)])
	}
	s.reads++
	n = copy(p, s.data[:min(n, len(s.data))])
	s.data = s.data[n:]
	return n, nil
}

// SetReadDeadline implements net.Conn.
func (*stream) SetReadDeadline(time.Time) error { return nil }

// FuzzFrames compares the messages read from a stream, in any pieces, with those that are in it.
func FuzzFrames(f *testing.F) {
	f.Add([]byte("\x00\x01a\x00\x02bc"), []byte{0})
	f.Add([]byte("\x00\x01a\x00\x00\x00\x01b"), []byte{2})
	f.Add(append([]byte("\x00\x01a\x10\x00"), make([]byte, 4200)...), []byte{255, 0})
	f.Add(append([]byte("\xff\xff"), make([]byte, 10000)...), []byte{})
	f.Fuzz(func(t *testing.T, data, pieces []byte) {
		in := frames{conn: &stream{data: data, pieces: pieces}, stopped: new(atomic.Bool)}
		rest := data
		for {
			msg, err := in.next(0)
			if len(rest) >= prefix && binary.BigEndian.Uint16(rest) == 0 {
				require.ErrorIs(t, err, errNoMessage)
				return
			}
			if len(rest) < prefix || len(rest) < prefix+int(binary.BigEndian.Uint16(rest)) {
				require.ErrorIs(t, err, io.EOF)
				require.Equal(t, len(rest) == 0, in.empty())
				return
			}
			end := prefix + int(binary.BigEndian.Uint16(rest))
			require.NoError(t, err)
			require.Equal(t, rest[prefix:end], msg)
			rest = rest[end:]
			require.LessOrEqual(t, len(in.buf), max(keptRead, 2*end), "memory grows with what has come")
		}
	})
}

func TestMemoryIsForWhatCameNotForWhatWasAnnounced(t *testing.T) {
	in := frames{conn: &stream{data: append([]byte{255, 255}, make([]byte, 100)...)}, stopped: new(atomic.Bool)}
	_, err := in.next(0)
	require.ErrorIs(t, err, io.EOF)
	require.Len(t, in.buf, firstRead)
}

func TestAPortNobodyHasIsNotAnswered(t *testing.T) {
	s := &Server{handler: nil}
	s.figures = newFigures(s)
	r := newReader(s, nil)
	r.take(1, 0, 0, netip.MustParseAddrPort("192.0.2.1:0"))
	require.EqualValues(t, 1, s.figures.total(UDP).dropped[dropPortZero].Load())
}

func TestForgedReportsOfTheMTUChangeNothing(t *testing.T) {
	s, err := Open(Config{Addr: ":0", Sockets: 1, Registerer: prometheus.NewRegistry(), Log: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	require.NoError(t, control(s.packets[0].conn, func(fd int) error {
		v4, err4 := unix.GetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_MTU_DISCOVER)
		v6, err6 := unix.GetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER)
		require.Equal(t, []int{unix.IP_PMTUDISC_OMIT, unix.IPV6_PMTUDISC_OMIT}, []int{v4, v6})
		return errors.Join(err4, err6)
	}))
	require.NoError(t, s.Close())
}

func TestWhatCountsAsOneClient(t *testing.T) {
	for addr, want := range map[string]string{
		"192.0.2.7": "192.0.2.7/32", "2001:db8:1:2:3:4:5:6": "2001:db8:1:2::/64", "::1": "::/64", "fe80::1:2": "fe80::1:2/128",
	} {
		require.Equal(t, netip.MustParsePrefix(want), sourceOf(netip.MustParseAddr(addr)))
	}
}

func TestAPortBelow1024NeedsAPrivilege(t *testing.T) {
	err := explain(&net.OpError{Op: "listen", Net: "udp", Err: syscall.EACCES}, "dns.listen")
	require.ErrorIs(t, err, syscall.EACCES)
	for _, way := range []string{"cap_net_bind_service", "FileDescriptorName=dns", "another address by dns.listen"} {
		require.ErrorContains(t, err, way)
	}
}

func TestDefaults(t *testing.T) {
	c := Config{Connections: 5, Idle: -1}.withDefaults()
	require.Equal(t, 5, c.Connections)
	require.Equal(t, 10*time.Second, c.Idle)
	require.GreaterOrEqual(t, c.Sockets, 2)
	require.Less(t, c.Pending, math.MaxInt32)
	require.Zero(t, c.LameDuck())
}
