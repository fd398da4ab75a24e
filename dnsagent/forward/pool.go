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
	// maxConns is the maximum number of connections to an upstream that take questions at a time.
	maxConns = 64
	// spread is how many questions share a connection before another one is opened, to an upstream that answers in any order (RFC 7766
	// 6.2.1.1). To other upstreams, each connection carries one question at a time.
	spread = 16
	// maxBusy is the maximum number of questions in flight on all connections.
	maxBusy = maxConns * spread
	// maxIdle is the maximum number of unused connections that are kept open, for idleTime. Servers close them at their own discretion
	// (RFC 7766 6.2.3).
	maxIdle  = 16
	idleTime = 10 * time.Second
	// connTries is on how many connections a question is asked if the upstream closes one after the other.
	connTries = 3
)

// pool holds the TLS connections to one upstream.
type pool struct {
	addr    string
	config  *tls.Config
	life    context.Context // context of all connections
	work    *sync.WaitGroup // their goroutines
	metrics *metrics
	busy    chan struct{}
	// turns has one slot more than there may be connections: when all are in use, one question shares a connection, which shows whether
	// the upstream answers in any order. If it does not, no other question is held up.
	turns chan struct{}

	mu       sync.Mutex
	conns    []*conn       // those that take questions
	anyOrder chan struct{} // closed while the upstream is known to answer in any order
	closed   bool
}

func (f *Forwarder) newPool(u Upstream) *pool {
	name := u.ServerName
	if name == "" {
		name = u.Addr.Addr().WithZone("").String()
	}
	return &pool{
		addr: u.Addr.String(), life: f.life, work: &f.streams, metrics: f.metrics,
		busy: make(chan struct{}, maxBusy), turns: make(chan struct{}, maxConns+1), anyOrder: make(chan struct{}),
		config: &tls.Config{
			MinVersion: tls.VersionTLS12, ServerName: name, RootCAs: u.CAs,
			ClientSessionCache: tls.NewLRUClientSessionCache(maxIdle),
		},
	}
}

// acquire waits until the caller may ask. Every successful call must be followed by release.
func (p *pool) acquire(ctx context.Context) error {
	select {
	case p.busy <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (p *pool) release() { <-p.busy }

// turn waits until there is a connection for one more question; the caller calls done when the question is over. It does not wait while
// questions share connections, unless the question is to be alone.
func (p *pool) turn(ctx context.Context, alone bool) (done func(), err error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	var shared <-chan struct{}
	if !alone {
		shared = p.shared()
	}
	select {
	case <-shared:
		return func() {}, nil
	default:
	}
	select {
	case <-shared:
		return func() {}, nil
	case p.turns <- struct{}{}:
		return func() { <-p.turns }, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// shared returns a channel that is closed once questions share connections.
func (p *pool) shared() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.anyOrder
}

// shares reports whether questions share connections. It is called with the lock held.
func (p *pool) shares() bool {
	select {
	case <-p.anyOrder:
		return true
	default:
		return false
	}
}

// share records whether the upstream answers in any order, in which case sharing does no harm. It is called with the lock held.
func (p *pool) share(anyOrder bool) {
	switch known := p.shares(); {
	case anyOrder && !known:
		close(p.anyOrder)
	case !anyOrder && known:
		p.anyOrder = make(chan struct{})
	}
}

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

// join finds a connection for a question: one that has room, or else a new one, which has limit to open. At the maximum number of
// connections it is the one with the fewest questions. A question that is to be alone gets a connection that no other joins. Every join
// must be followed by leave.
func (p *pool) join(q *query, alone bool, limit time.Duration) (*conn, *call) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closeUnused(time.Now().Add(-idleTime))
	room := 1
	if p.shares() {
		room = spread
	}
	var c *conn
	if !alone {
		c = p.fewest()
	}
	if c == nil || (c.doubted || c.load() >= room) && len(p.conns) < maxConns {
		c = p.open(alone, limit)
	}
	return c, c.add(q)
}

// fewest returns the connection with the fewest questions and, of unused ones, the one used last, so that the others can be closed in
// time. Doubted connections come after all others. It returns nil if there are none. It is called with the lock held.
func (p *pool) fewest() (c *conn) {
	for _, other := range p.conns {
		if c == nil || other.better(c) {
			c = other
		}
	}
	return c
}

// better is called with the lock held.
func (c *conn) better(other *conn) bool {
	if c.doubted != other.doubted {
		return other.doubted
	}
	return c.load() < other.load() || c.load() == other.load() && c.since.After(other.since)
}

// open is called with the lock held.
func (p *pool) open(alone bool, limit time.Duration) *conn {
	c := newConn(p)
	var ctx context.Context
	ctx, c.end = context.WithCancel(p.life)
	if c.removed = alone; !alone {
		p.conns = append(p.conns, c)
	}
	p.work.Go(func() { c.run(ctx, limit) })
	return c
}

// leave ends a question. A connection with which something is wrong gets no more questions.
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
	c.since = time.Now()
	if c.removed || p.closed || p.idle() > maxIdle {
		p.remove(c)
		c.end()
	}
}

// idle returns the number of unused connections. It is called with the lock held.
func (p *pool) idle() (n int) {
	for _, c := range p.conns {
		if len(c.calls) == 0 {
			n++
		}
	}
	return n
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

// drop closes the connections that nobody has used since then.
func (p *pool) drop(since time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closeUnused(since)
}

// closeUnused is called with the lock held.
func (p *pool) closeUnused(since time.Time) {
	for _, c := range append([]*conn(nil), p.conns...) {
		if len(c.calls) == 0 && c.since.Before(since) {
			p.remove(c)
			c.end()
		}
	}
}

// close closes every connection once nobody uses it.
func (p *pool) close() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.drop(time.Now().Add(time.Hour))
}

// overTLS asks again, on another connection, if the upstream closes one before the answer comes: it may do so at any time, and unanswered
// questions are to be asked anew (RFC 7766 6.2.4). The upstream decides how many questions it takes on a connection, so the last try has
// a connection to itself.
func (x *exchanger) overTLS(ctx context.Context) (*response, error) {
	p := x.upstream.pool
	if err := p.acquire(ctx); err != nil {
		return nil, err
	}
	defer p.release()
	for try := 1; ; try++ {
		resp, err := x.overOne(ctx, try == connTries)
		if try == connTries || !errors.Is(err, errBroken) {
			return resp, err
		}
		p.drop(time.Now()) // the server has probably restarted
	}
}

// overOne asks on one connection.
func (x *exchanger) overOne(ctx context.Context, alone bool) (*response, error) {
	p := x.upstream.pool
	done, err := p.turn(ctx, alone)
	if err != nil {
		return nil, err
	}
	defer done()
	q := x.query()
	c, own := p.join(q, alone, x.limit)
	return c.ask(ctx, x, q, own)
}
