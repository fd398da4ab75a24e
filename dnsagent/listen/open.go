package listen

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Open binds the addresses, or takes over the sockets systemd has bound (systemd.socket(5)): those with FileDescriptorName=dns,
// UDP and TCP, stand in for Addr, those named dns-tls for TLSAddr. If it cannot bind, the error says what to do.
func Open(cfg Config) (*Server, error) {
	s := &Server{cfg: cfg.withDefaults(), began: time.Now(), grace: defaultGrace}
	s.pending.most, s.pending.perSource = s.cfg.Pending, s.cfg.PendingPerAddr
	s.conns = conns{
		most: s.cfg.Connections, perSource: s.cfg.ConnectionsPerAddr,
		all: make(map[*conn]struct{}), from: make(map[netip.Prefix]int),
	}
	s.figures = newFigures(s)
	s.close = sync.OnceValue(s.release)
	if err := s.open(); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

func (s *Server) open() error {
	named, err := s.inherit(SocketDNS, TCP)
	if err != nil {
		return err
	}
	if !named && s.cfg.Addr != "" {
		if err := s.bind(s.cfg.Addr); err != nil {
			return explain(err, "dns.listen")
		}
	}
	secure, err := s.inherit(SocketTLS, TLS)
	if err != nil {
		return err
	}
	if !secure && s.cfg.TLSAddr != "" {
		ln, err := net.Listen("tcp"+family(s.cfg.TLSAddr), s.cfg.TLSAddr)
		if err != nil {
			return explain(err, "dns.tlsListen")
		}
		s.addStreams(ln.(*net.TCPListener), TLS)
	}
	if len(s.packets)+len(s.streams) == 0 {
		return errors.New("there is no address to listen at")
	}
	if s.TLSAddr().IsValid() && s.cfg.TLS == nil {
		return errors.New("DNS over TLS needs a certificate, which there is none of in development mode")
	}
	for _, p := range s.packets {
		if err := p.tune(); err != nil {
			return fmt.Errorf("the UDP socket at %s: %w", p.conn.LocalAddr(), err)
		}
	}
	return s.cfg.Registerer.Register(s.figures)
}

// release closes the sockets and unregisters the metrics. It leaves connections alone.
func (s *Server) release() error {
	var errs []error
	for _, p := range s.packets {
		errs = append(errs, p.conn.Close())
	}
	for _, l := range s.streams {
		if err := l.ln.Close(); !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
	}
	s.cfg.Registerer.Unregister(s.figures)
	return errors.Join(errs...)
}

func (s *Server) addStreams(ln *net.TCPListener, t Transport) {
	l := &streams{server: s, ln: ln, transport: t}
	if t == TLS && s.cfg.TLS != nil {
		l.tls = dot(s.cfg.TLS)
	}
	s.streams = append(s.streams, l)
}

// bind binds TCP and UDP to the same port. A port chosen by the system is free for TCP; if it is taken for UDP, bind tries again.
func (s *Server) bind(addr string) error {
	const attempts = 64
	for left := attempts; ; left-- {
		err := s.bindOnce(addr)
		_, port, _ := net.SplitHostPort(addr)
		if err == nil || port != "0" || left == 0 || !errors.Is(err, syscall.EADDRINUSE) {
			return err
		}
	}
}

func (s *Server) bindOnce(addr string) error {
	// TCP goes first: UDP sockets that share an address would share it with another process of the same user, too.
	ln, err := net.Listen("tcp"+family(addr), addr)
	if err != nil {
		return err
	}
	sockets, err := s.bindUDP(addr, ln.Addr().(*net.TCPAddr).Port)
	if err != nil {
		for _, p := range sockets {
			_ = p.conn.Close()
		}
		return errors.Join(err, ln.Close())
	}
	s.packets = append(s.packets, sockets...)
	s.addStreams(ln.(*net.TCPListener), TCP)
	return nil
}

// bindUDP binds the UDP sockets. On error it returns those bound so far.
func (s *Server) bindUDP(addr string, port int) ([]*packets, error) {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	var lc net.ListenConfig
	if s.cfg.Sockets > 1 {
		lc.Control = reusePort
	}
	var sockets []*packets
	for range s.cfg.Sockets {
		conn, err := lc.ListenPacket(context.Background(), "udp"+family(addr), net.JoinHostPort(host, strconv.Itoa(port)))
		if err != nil {
			return sockets, err
		}
		sockets = append(sockets, &packets{conn: conn.(*net.UDPConn), readers: 1})
	}
	return sockets, nil
}

// family returns "4" for IPv4, else "". Without it, the net package listens on all addresses of both families for 0.0.0.0.
func family(addr string) string {
	host, _, err := net.SplitHostPort(addr)
	if a, e := netip.ParseAddr(host); err == nil && e == nil && a.Is4() {
		return "4"
	}
	return ""
}

func reusePort(_, _ string, c syscall.RawConn) error {
	return controlRaw(c, func(fd int) error { return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1) })
}

// control calls do with the file descriptor of a socket.
func control(conn syscall.Conn, do func(fd int) error) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	return controlRaw(raw, do)
}

func controlRaw(c syscall.RawConn, do func(fd int) error) error {
	var failed error
	err := c.Control(func(fd uintptr) { failed = do(int(fd)) })
	return errors.Join(err, failed)
}

// explain adds advice to the error of an address that cannot be bound.
func explain(err error, setting string) error {
	var advice string
	switch {
	case errors.Is(err, syscall.EACCES):
		advice = "a port below 1024 needs the capability cap_net_bind_service (setcap cap_net_bind_service=+ep PROGRAM, or " +
			"AmbientCapabilities=CAP_NET_BIND_SERVICE in the systemd unit) or a systemd socket unit with FileDescriptorName=dns " +
			"(dns-tls for DNS over TLS); or choose another address by " + setting
	case errors.Is(err, syscall.EADDRINUSE):
		advice = "another DNS server, such as systemd-resolved or dnsmasq, may have the port: `ss -lntup` shows who has it; stop " +
			"it, or choose another address by " + setting
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		advice = "the address is none of this machine's: choose another by " + setting
	default:
		return fmt.Errorf("%s: %w", setting, err)
	}
	return fmt.Errorf("%s: %w: %s", setting, err, advice)
}
