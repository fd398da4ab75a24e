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
	maxConns = 64
	// spread is how many questions share a connection before another one is opened, to an upstream that answers in any order (RFC 7766
	// 6.2.1.1). To others there is one question at a time on each.
	spread = 16
	// maxBusy is how many questions are under way on all connections.
	maxBusy = maxConns * spread
	// maxIdle is how many connections are kept open while nobody uses them, for idleTime. Servers close them at their own discretion
	// (RFC 7766 6.2.3).
	maxIdle  = 16
	idleTime = 10 * time.Second
	// connTries is on how many connections a question is asked when the upstream closes one after the other.
	connTries = 3
)

// pool keeps connections over TLS to one upstream.
type pool struct {
	addr    string
	config  *tls.Config
	life    context.Context // of all connections
	work    *sync.WaitGroup // their goroutines
	metrics *metrics
	busy    chan struct{}
	// turns has room for one more than there are connections: when all are in use, one question shares one, which shows whether the
	// upstream answers in any order. If it does not, nobody else is held up.
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

// turn waits until there is a connection for one more question, and returns what says that it is over. There always is where questions
// share them, but not for one that is to be alone.
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

// share takes note of whether the upstream answers in any order, so that sharing does no harm. It is called with the lock held.
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

// join finds a connection for a question: one that has room, or else a new one, which has so much time to come about. When there are as
// many as there may be it is the one with the fewest questions. One that is to be alone gets a connection that nobody else joins. Everyone
// who joins leaves.
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

// fewest is the connection with the fewest questions, and of those that have none the one used last: others may be closed in time. One that
// is doubted comes after all that are not. It is nil when there is none, and called with the lock held.
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
	c.since = time.Now()
	if c.removed || p.closed || p.idle() > maxIdle {
		p.remove(c)
		c.end()
	}
}

// idle is how many connections nobody uses. It is called with the lock held.
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

// drop closes the connections that nobody has used since.
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

// close closes all connections once nobody uses them.
func (p *pool) close() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.drop(time.Now().Add(time.Hour))
}

// overTLS asks again, on another connection, when the upstream closes one before the answer comes: it may do so at any time, and what it
// has not answered is to be asked anew (RFC 7766 6.2.4). How many questions it takes on a connection is its own affair, so the last try
// is on one that nobody else uses.
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
		p.drop(time.Now()) // the server was likely started anew
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
