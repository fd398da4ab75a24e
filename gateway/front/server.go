// Package front is where calls arrive: the listener with its bounds, and the way of a call from the first byte to the policy of its
// route and into the records.
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

// Bounds are what one connection may take. Others may be set while a server runs.
type Bounds struct {
	// HeaderTimeout is how long the header of a request may take, Idle how long a connection may wait for the next one.
	HeaderTimeout, Idle time.Duration
	// Header is the largest header in bytes.
	Header int
	// Streams is how many requests of one HTTP/2 connection are answered at a time.
	Streams int
}

// ServerConfig is the settings of a server that do not change while it runs.
type ServerConfig struct {
	// Addr is the address to bind.
	Addr string
	// TLS is nil for plain HTTP.
	TLS *tls.Config
	// Bounds are those at first.
	Bounds Bounds
	// Connections is how many connections there may be; those beyond are closed at once.
	Connections func() int
	// PerAddress is how many of them one client may have: an IPv4 address, or a /64 of IPv6. 0: any number. Exempt are clients that may have
	// more: proxies, and this machine.
	PerAddress func() int
	Exempt     func(netip.Addr) bool
	// Farewell is called when the server stops, a second before the time for calls under way is over, or in its middle if that is less; nil:
	// nothing is.
	Farewell func()

	Log        *slog.Logger
	Registerer prometheus.Registerer
}

// Server serves HTTP/1.1 and HTTP/2, the latter without TLS, too (with prior knowledge).
type Server struct {
	cfg     ServerConfig
	ln      *listener
	handler http.Handler
	// base is the context of all calls; end ends those that outlive the drain, upgraded connections among them.
	base context.Context
	end  context.CancelFunc

	mu     sync.Mutex
	now    *turn
	former []*turn // that have connections
	ending bool
}

// pingAfter is after which silence the other end of an HTTP/2 connection is asked whether it is still there.
const pingAfter = 30 * time.Second

// headerSlack is how much more than the bound is read of a header, so that it can be answered like every other error.
const headerSlack = 256 << 10

// Listen binds the address; nothing is served before Run.
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

// Open is how many connections there are.
func (s *Server) Open() int { return int(s.ln.open.Load()) }

// Addr is the address bound, with the real port.
func (s *Server) Addr() *net.TCPAddr { return s.ln.Addr().(*net.TCPAddr) }

// URL is the base URL of the listener. An unspecified address is shown as the loopback address.
func (s *Server) URL() string { return httpx.ListenerURL(s.Addr(), s.cfg.TLS != nil) }

// Run serves until the context ends, then lets the calls under way finish for at most what drain says then.
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
		ends.Go(func() { _ = t.http.Shutdown(dctx) }) // what it does not wait for any more is closed below
	}
	ends.Wait()
	s.upgraded(dctx)
	s.end() // also upgraded connections, which Shutdown does not know of
	if dctx.Err() != nil {
		for _, t := range turns {
			_ = t.http.Close()
		}
	}
	_ = s.ln.Close() // of a turn that did not begin any more
	if err := <-failed; !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("listener gateway: %w", err)
	}
	return nil
}

// farewell is how long before they are closed clients are told, as far as they can be.
const farewell = time.Second

// upgraded waits for connections that net/http does not know of any more.
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

// listener closes connections beyond a number.
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

// accept waits for a connection of a turn.
func (l *listener) accept(t *turn) (net.Conn, error) {
	t.open.Add(1) // also while nobody has come: it may be about to
	for {
		c, err := l.AcceptTCP()
		if err != nil {
			t.open.Add(-1)
			return nil, err
		}
		client, ok := l.enter(c.RemoteAddr())
		if !ok {
			l.dropped.Inc()
			_ = c.SetLinger(0) // leaves nothing behind here
			_ = c.Close()
			continue
		}
		return &conn{Conn: c, t: t, client: client}, nil
	}
}

// enter counts a connection, unless there are too many.
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

// leave is called once for every connection that was counted.
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
