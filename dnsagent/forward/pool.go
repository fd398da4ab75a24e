package forward

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"sync"
	"time"
)

const (
	// maxConns is how many connections to an upstream take questions at a time.
	maxConns = 8
	// spread is how many questions are under way on a connection before another one is opened: a server that answers them in turn holds
	// up no more than these.
	spread = 8
	// maxCalls is how many questions are under way on a connection at most (RFC 7766 6.2.1.1), and maxBusy on all together.
	maxCalls = 128
	maxBusy  = maxConns * maxCalls
	// idleTime is how long a connection is kept open while nobody uses it. Servers close them at their own discretion (RFC 7766 6.2.3).
	idleTime = 10 * time.Second
)

// pool keeps connections over TLS to one upstream.
type pool struct {
	addr    string
	config  *tls.Config
	life    context.Context // of all connections
	work    *sync.WaitGroup // their goroutines
	metrics *metrics
	busy    chan struct{}

	mu     sync.Mutex
	conns  []*conn // those that take questions
	closed bool
}

func (f *Forwarder) newPool(u Upstream) *pool {
	name := u.ServerName
	if name == "" {
		name = u.Addr.Addr().WithZone("").String()
	}
	return &pool{
		addr: u.Addr.String(), life: f.life, work: &f.streams, metrics: f.metrics, busy: make(chan struct{}, maxBusy),
		config: &tls.Config{
			MinVersion: tls.VersionTLS12, ServerName: name, RootCAs: u.CAs,
			ClientSessionCache: tls.NewLRUClientSessionCache(2 * maxConns),
		},
	}
}

// acquire waits until the caller may ask. Everyone who may calls release.
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
	plain, err := dialTCP(ctx, p.addr)
	if err != nil {
		return nil, err
	}
	secure := tls.Client(plain, p.config)
	if err := secure.HandshakeContext(ctx); err != nil {
		_ = plain.Close()
		return nil, err
	}
	return secure, nil
}

// join finds a connection for a question: the one with the fewest, or a new one, which has so much time to come about. kept says that it
// was open before, so that the server may have closed it meanwhile. Everyone who joins leaves.
func (p *pool) join(q *query, renewed bool, limit time.Duration) (c *conn, own *call, kept bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, other := range p.conns {
		if c == nil || len(other.calls) < len(c.calls) {
			c = other
		}
	}
	if c == nil || (renewed || len(c.calls) >= spread) && len(p.conns) < maxConns {
		c = p.open(limit)
	}
	for c.calls[q.id()] != nil {
		q.renewID()
	}
	own = &call{heard: c.heard, said: make(chan []byte, maxSaid)}
	c.calls[q.id()] = own
	select {
	case <-c.ready:
		kept = true
	default:
	}
	return c, own, kept
}

// open is called with the lock held.
func (p *pool) open(limit time.Duration) *conn {
	c := &conn{pool: p, ready: make(chan struct{}), broken: make(chan struct{}), calls: make(map[uint16]*call)}
	var ctx context.Context
	ctx, c.end = context.WithCancel(p.life)
	p.conns = append(p.conns, c)
	p.work.Go(func() { c.run(ctx, limit) })
	return c
}

// leave ends a question. A connection with which something is wrong gets no more of them.
func (p *pool) leave(c *conn, q *query, wrong bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(c.calls, q.id())
	if wrong {
		p.remove(c)
	}
	if len(c.calls) > 0 {
		return
	}
	if c.since = time.Now(); c.removed || p.closed {
		p.remove(c)
		c.end()
	}
}

// remove is called with the lock held.
func (p *pool) remove(c *conn) {
	c.removed = true
	for i, other := range p.conns {
		if other == c {
			p.conns = append(p.conns[:i:i], p.conns[i+1:]...)
			return
		}
	}
}

// drop closes the connections that nobody has used since.
func (p *pool) drop(since time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range append([]*conn(nil), p.conns...) {
		if len(c.calls) == 0 && c.since.Before(since) {
			p.remove(c)
			c.end()
		}
	}
}

// close closes all connections once nobody uses them.
func (p *pool) close() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.drop(time.Now().Add(time.Hour))
}

// overTLS asks once more on a new connection when the server has closed the one that was kept.
func (x *exchanger) overTLS(ctx context.Context) (*response, error) {
	p := x.upstream.pool
	if err := p.acquire(ctx); err != nil {
		return nil, err
	}
	defer p.release()
	q := x.query()
	c, own, kept := p.join(q, false, x.limit)
	resp, err := c.ask(ctx, x, q, own)
	if kept && errors.Is(err, errBroken) && ctx.Err() == nil {
		c, own, _ = p.join(q, true, x.limit)
		resp, err = c.ask(ctx, x, q, own)
	}
	return resp, err
}
