package forward

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"os"
	"sync"
	"time"
)

const (
	// maxIdle is how many connections to an upstream are kept open while nobody uses them, for idleTime. Servers close them at their
	// own discretion (RFC 7766 6.2.3), so that one that was kept may turn out to be closed.
	maxIdle  = 16
	idleTime = 10 * time.Second
	// maxBusy is how many connections to an upstream are used at a time. One carries one query at a time.
	maxBusy = 64
)

// pool keeps connections over TLS to one upstream.
type pool struct {
	addr   string
	config *tls.Config
	busy   chan struct{}

	mu     sync.Mutex
	idle   []idleConn // the one used last is at the end
	closed bool
}

type idleConn struct {
	conn  net.Conn
	since time.Time
}

func newPool(u Upstream) *pool {
	name := u.ServerName
	if name == "" {
		name = u.Addr.Addr().WithZone("").String()
	}
	return &pool{
		addr: u.Addr.String(), busy: make(chan struct{}, maxBusy),
		config: &tls.Config{
			MinVersion: tls.VersionTLS12, ServerName: name, RootCAs: u.CAs,
			ClientSessionCache: tls.NewLRUClientSessionCache(maxIdle),
		},
	}
}

// acquire waits until the caller may use a connection. Everyone who may calls release.
func (p *pool) acquire(ctx context.Context) error {
	select {
	case p.busy <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (p *pool) release() { <-p.busy }

func (p *pool) dial(ctx context.Context) (net.Conn, error) {
	conn, err := dialTCP(ctx, p.addr)
	if err != nil {
		return nil, err
	}
	secure := tls.Client(conn, p.config)
	if err := secure.HandshakeContext(ctx); err != nil {
		_ = conn.Close()
		return nil, err
	}
	return secure, nil
}

// take returns a connection that was kept, nil when there is none.
func (p *pool) take() net.Conn {
	p.mu.Lock()
	defer p.mu.Unlock()
	last := len(p.idle) - 1
	if last < 0 || time.Since(p.idle[last].since) > idleTime {
		return nil
	}
	conn := p.idle[last].conn
	p.idle = p.idle[:last]
	return conn
}

// keep takes back a connection that can be used again.
func (p *pool) keep(conn net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || len(p.idle) >= maxIdle {
		_ = conn.Close()
		return
	}
	p.idle = append(p.idle, idleConn{conn: conn, since: time.Now()})
}

// drop closes the connections that nobody has used since.
func (p *pool) drop(since time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := 0
	for n < len(p.idle) && p.idle[n].since.Before(since) {
		_ = p.idle[n].conn.Close()
		n++
	}
	p.idle = append(p.idle[:0:0], p.idle[n:]...)
}

// close closes all connections once nobody uses them.
func (p *pool) close() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.drop(time.Now().Add(time.Hour))
}

func (x *exchanger) overTLS(ctx context.Context) (*response, error) {
	p := x.upstream.pool
	if err := p.acquire(ctx); err != nil {
		return nil, err
	}
	defer p.release()
	if conn := p.take(); conn != nil {
		resp, err := x.overKept(ctx, conn)
		if err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			return resp, err
		}
		p.drop(time.Now()) // the server was likely started anew
	}
	conn, err := p.dial(ctx)
	if err != nil {
		return nil, err
	}
	return x.overKept(ctx, conn)
}

// overKept keeps the connection afterwards, unless something is wrong with it, or the context has touched its deadline.
func (x *exchanger) overKept(ctx context.Context, conn net.Conn) (*response, error) {
	resp, err := x.over(ctx, conn)
	if err != nil || ctx.Err() != nil {
		_ = conn.Close()
		return resp, err
	}
	x.upstream.pool.keep(conn)
	return resp, nil
}
