// Package front receives the calls: the listener with its bounds, and the way of a call from the first byte to the policy of its route and
// into the records.
package front

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/openmep/mep/kit/audit"
	"github.com/openmep/mep/kit/httpx"
	"github.com/openmep/mep/kit/limit"
)

// Bounds are the limits of one connection. They can be replaced while a server runs.
type Bounds struct {
	// HeaderTimeout is how long the header of a request may take, Idle how long a connection may wait for the next request.
	HeaderTimeout, Idle time.Duration
	// Header is the maximum size of a request header in bytes.
	Header int
	// Streams is how many requests of one HTTP/2 connection may be in flight.
	Streams int
}

// ServerConfig holds the settings of a server that do not change while it runs.
type ServerConfig struct {
	// Addr is the address to bind.
	Addr string
	// TLS is nil for plain HTTP.
	TLS *tls.Config
	// Bounds are the initial bounds.
	Bounds Bounds
	// Connections returns how many connections there may be; further ones are closed at once.
	Connections func() int
	// PerAddress returns how many of them one client may have: an IPv4 address, or an IPv6 /64. 0 means any number. Exempt reports whether
	// an address, such as that of a proxy, may have more; this machine always may.
	PerAddress func() int
	Exempt     func(netip.Addr) bool
	// Farewell is called while the server stops: a second before the time for calls in flight is over, or halfway through that time if that
	// is later. It may be nil.
	Farewell func()

	Log        *slog.Logger
	Registerer prometheus.Registerer
}

// Server serves HTTP/1.1 and HTTP/2, the latter also without TLS (with prior knowledge).
type Server struct {
	cfg     ServerConfig
	ln      *listener
	handler http.Handler
	// base is the context of all calls; end cancels those that outlive the drain, including upgraded connections.
	base context.Context
	end  context.CancelFunc

	mu     sync.Mutex
	now    *turn
	former []*turn // those that still have connections
	ending bool
}

// pingAfter is how long the other end of an HTTP/2 connection may be silent before it is pinged.
const pingAfter = 30 * time.Second

// headerSlack is how many bytes beyond the bound are read of a header, so that one that is too large is answered like any other error.
const headerSlack = 256 << 10

// Listen binds the address. Nothing is served before Run.
func Listen(cfg ServerConfig, h http.Handler) (*Server, error) {
	ln, err := net.Listen("tcp", cfg.Addr)
	if err != nil {
		return nil, fmt.Errorf("gateway.listen: %w (see what listens there with: ss -lntup)", err)
	}
	s := &Server{cfg: cfg, handler: h}
	s.ln = newListener(ln.(*net.TCPListener), &s.cfg)
	s.base, s.end = context.WithCancel(audit.At(context.Background(), "gateway"))
	s.now = s.newTurn(cfg.Bounds)
	return s, nil
}

// Open returns the number of open connections.
func (s *Server) Open() int { return int(s.ln.open.Load()) }

// Addr returns the bound address, with the actual port.
func (s *Server) Addr() *net.TCPAddr { return s.ln.Addr().(*net.TCPAddr) }

// URL returns the base URL of the listener. An unspecified address is shown as the loopback address.
func (s *Server) URL() string { return httpx.ListenerURL(s.Addr(), s.cfg.TLS != nil) }

// Run serves until ctx ends, then lets the calls in flight finish. How long they may take is what drain returns at that time.
func (s *Server) Run(ctx context.Context, drain func() time.Duration) error {
	defer s.end()
	failed := make(chan error, 1)
	go func() { failed <- s.serve() }()
	select {
	case err := <-failed:
		return fmt.Errorf("listener gateway: %w", err)
	case <-ctx.Done():
	}
	d := drain()
	dctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), d)
	defer cancel()
	if s.cfg.Farewell != nil {
		defer time.AfterFunc(max(d-farewell, d/2), s.cfg.Farewell).Stop()
	}
	turns := s.last()
	var ends sync.WaitGroup
	for _, t := range turns {
		ends.Go(func() { _ = t.http.Shutdown(dctx) }) // what Shutdown does not wait for is closed below
	}
	ends.Wait()
	s.upgraded(dctx)
	s.end() // also upgraded connections, which Shutdown does not know of
	if dctx.Err() != nil {
		for _, t := range turns {
			_ = t.http.Close()
		}
	}
	_ = s.ln.Close() // in case the last turn did not begin
	if err := <-failed; !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("listener gateway: %w", err)
	}
	return nil
}

// farewell is how long before the end of the drain Farewell is called.
const farewell = time.Second

// upgraded waits for connections that net/http no longer tracks.
func (s *Server) upgraded(ctx context.Context) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for s.ln.open.Load() > 0 {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// Close releases the address of a server that was never run.
func (s *Server) Close() error {
	s.end()
	return s.ln.Close()
}

// listener closes connections beyond the limits.
type listener struct {
	*net.TCPListener
	cfg  *ServerConfig
	open atomic.Int64

	mu sync.Mutex
	of map[string]int // by client

	dropped prometheus.Counter
}

func newListener(ln *net.TCPListener, cfg *ServerConfig) *listener {
	l := &listener{TCPListener: ln, cfg: cfg, of: make(map[string]int), dropped: prometheus.NewCounter(prometheus.CounterOpts{
		Name: "mep_gateway_connections_dropped_total", Help: "Connections that were closed at once because there were too many.",
	})}
	cfg.Registerer.MustRegister(l.dropped, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "mep_gateway_connections", Help: "Connections of clients.",
	}, func() float64 { return float64(l.open.Load()) }))
	return l
}

// accept waits for a connection on behalf of a turn.
func (l *listener) accept(t *turn) (net.Conn, error) {
	t.open.Add(1) // counted while waiting, because a connection may be about to arrive
	for {
		c, err := l.AcceptTCP()
		if err != nil {
			t.open.Add(-1)
			return nil, err
		}
		client, ok := l.enter(c.RemoteAddr())
		if !ok {
			l.dropped.Inc()
			_ = c.SetLinger(0) // resets the connection, which leaves nothing behind here
			_ = c.Close()
			continue
		}
		return &conn{Conn: c, t: t, client: client}, nil
	}
}

// enter counts a new connection, unless there are too many.
func (l *listener) enter(from net.Addr) (client string, ok bool) {
	if l.open.Add(1) > int64(l.cfg.Connections()) {
		l.open.Add(-1)
		return "", false
	}
	most := l.cfg.PerAddress()
	ap, err := netip.ParseAddrPort(from.String())
	if most <= 0 || err != nil || ap.Addr().IsLoopback() || l.cfg.Exempt(ap.Addr().Unmap().WithZone("")) {
		return "", true
	}
	client = limit.Source(ap.Addr())
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.of[client] >= most {
		l.open.Add(-1)
		return "", false
	}
	l.of[client]++
	return client, true
}

// leave must be called once for every counted connection.
func (l *listener) leave(client string) {
	l.open.Add(-1)
	if client == "" {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.of[client]--; l.of[client] == 0 {
		delete(l.of, client)
	}
}

type conn struct {
	net.Conn
	t      *turn
	client string
	gone   atomic.Bool
}

// Close implements net.Conn.
func (c *conn) Close() error {
	if !c.gone.Swap(true) {
		c.t.open.Add(-1)
		c.t.ln.leave(c.client)
	}
	return c.Conn.Close()
}
