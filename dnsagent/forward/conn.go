package forward

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"time"
)

const (
	// maxSaid is how many messages with the id of a question wait to be looked at.
	maxSaid = 4
	// maxLate is how many answers a connection may owe to questions whose time is over. One that owes more gets no more questions.
	maxLate = 128
)

var (
	// errBroken is for a connection that ended before the answer came.
	errBroken = errors.New("the connection has ended")
	// errStrays is for a connection that was ended because of what came on it.
	errStrays = errors.New("too many messages answer nothing")
)

// conn is a connection that can carry several questions at a time, whose answers come in any order.
type conn struct {
	pool   *pool
	end    context.CancelFunc
	ready  chan struct{} // closed when it is open
	broken chan struct{} // closed when it is open no more, or never was
	err    error         // why; set before broken is closed
	stream net.Conn      // set before ready is closed
	out    chan outgoing

	// Under the lock of the pool:
	calls   map[uint16]*call
	late    map[uint16]*call // those whose time was over before the answer came
	sent    int              // questions
	latest  int              // the number of the last question sent that is answered
	heard   int              // messages for somebody
	since   time.Time        // nobody has used it
	doubted bool             // an answer is late and nothing has come since it was asked for: others are better off elsewhere
	removed bool             // it gets no more questions
}

// call is a question under way.
type call struct {
	number   int // in the order they are sent in; 0 before that
	answered bool
	heard    int // how many messages there were for anybody on the connection before
	said     chan []byte
}

// outgoing is a question that is sent next.
type outgoing struct {
	*call
	framed []byte
}

func newConn(p *pool) *conn {
	return &conn{
		pool: p, ready: make(chan struct{}), broken: make(chan struct{}), out: make(chan outgoing),
		calls: make(map[uint16]*call), late: make(map[uint16]*call),
	}
}

// load is how many answers are waited for, even if nobody wants them any more: where questions are answered in turn, these hold up others.
// It is called with the lock held.
func (c *conn) load() int { return len(c.calls) + len(c.late) }

// add takes a question in, which gets an id that no other has. It is called with the lock held.
func (c *conn) add(q *query) *call {
	for c.calls[q.id()] != nil || c.late[q.id()] != nil {
		q.renewID()
	}
	own := &call{heard: c.heard, said: make(chan []byte, maxSaid)}
	c.calls[q.id()] = own
	return own
}

// run opens the connection, and reads from it until it ends.
func (c *conn) run(ctx context.Context, limit time.Duration) {
	defer c.end()
	opening, cancel := context.WithTimeout(ctx, limit)
	stream, err := c.pool.dial(opening)
	cancel()
	if err != nil {
		c.fail(err)
		return
	}
	defer context.AfterFunc(ctx, func() { _ = stream.Close() })()
	defer stream.Close()
	c.stream = stream
	c.pool.work.Go(func() { c.send(ctx, limit) })
	close(c.ready)
	for strays := 0; strays < maxIgnored; {
		msg, err := readFramed(stream)
		if err != nil {
			c.fail(fmt.Errorf("%w: %w", errBroken, err))
			return
		}
		if c.deliver(msg) {
			strays = 0
			continue
		}
		strays++
		c.pool.metrics.ignored.WithLabelValues(otherID).Inc()
	}
	c.fail(errStrays)
}

// send writes questions until the connection ends. The time a write has is not that of its question: one that goes out in part is the end
// of the connection for all who use it.
func (c *conn) send(ctx context.Context, limit time.Duration) {
	for {
		select {
		case <-ctx.Done():
			return
		case next := <-c.out:
			c.pool.mu.Lock()
			c.sent++
			next.number = c.sent
			c.pool.mu.Unlock()
			_ = c.stream.SetWriteDeadline(time.Now().Add(limit)) // fails only when closed, as Write does then
			if _, err := c.stream.Write(next.framed); err != nil {
				c.fail(fmt.Errorf("%w: %w", errBroken, err))
				c.end()
				return
			}
		}
	}
}

// fail tells those who wait that nothing more comes, and why. Where several did, questions do not share connections any more.
func (c *conn) fail(err error) {
	c.pool.mu.Lock()
	defer c.pool.mu.Unlock()
	if c.err != nil {
		return
	}
	c.pool.remove(c)
	if len(c.calls) > 1 {
		c.pool.share(false)
	}
	c.err = err
	close(c.broken)
}

// deliver gives a message to the question that has its id, and reports whether there is or was one.
func (c *conn) deliver(msg []byte) bool {
	if len(msg) < 2 {
		return false
	}
	id := binary.BigEndian.Uint16(msg)
	c.pool.mu.Lock()
	defer c.pool.mu.Unlock()
	if own := c.late[id]; own != nil {
		c.doubted = false
		delete(c.late, id)
		c.compare(own)
		return true
	}
	own := c.calls[id]
	if own == nil {
		return false
	}
	c.compare(own)
	select {
	case own.said <- msg:
		c.heard++
		c.doubted = false
		return true
	default:
		return false
	}
}

// compare looks at whether the answer to an earlier question comes after that to a later one: an upstream that lets one overtake the
// other works on several at a time. One that leaves a question out may not. It is called with the lock held.
func (c *conn) compare(own *call) {
	if own.answered {
		return
	}
	own.answered = true
	if own.number < c.latest {
		c.pool.share(true)
	}
	c.latest = max(c.latest, own.number)
}

// ask sends a question, waits for its answer, and leaves the connection.
func (c *conn) ask(ctx context.Context, x *exchanger, q *query, own *call) (resp *response, err error) {
	wrong := false
	defer func() { c.pool.leave(c, q, wrong) }()
	select {
	case <-c.ready:
	case <-c.broken:
		return nil, c.err
	case <-ctx.Done():
		wrong = true
		return nil, context.Cause(ctx)
	}
	if ctx.Err() != nil { // it was ready as well
		return nil, context.Cause(ctx)
	}
	select {
	case c.out <- outgoing{call: own, framed: q.framed}:
	case <-c.broken:
		return nil, c.err
	case <-ctx.Done():
		wrong = true
		return nil, context.Cause(ctx)
	}
	defer x.sent(&route{overdue: func() { c.doubt(own) }})()
	for {
		var msg []byte
		select {
		case msg = <-own.said:
		case <-c.broken:
			select {
			case msg = <-own.said: // which came before the end
			default:
				return nil, c.err
			}
		case <-ctx.Done():
			wrong = c.giveUp(q, own)
			return nil, context.Cause(ctx)
		}
		if resp, err := x.judge(q, msg); resp != nil || err != nil {
			wrong = err != nil
			return resp, err
		}
	}
}

// doubt takes note that the answer to a question is late. When nobody on the connection has heard anything since it was asked, the other end
// may be gone: others do not join then, but an answer that comes all the same counts.
func (c *conn) doubt(own *call) {
	c.pool.mu.Lock()
	defer c.pool.mu.Unlock()
	if c.heard != own.heard {
		return
	}
	c.doubted = true
	if len(c.calls) > 1 {
		c.pool.share(false)
	}
}

// giveUp takes note that the answer to a question may still come, when nobody wants it any more. It reports whether the connection is not
// to be used again: when nobody on it has heard anything since the question was asked, or it owes too much. Silence for several means
// that one holds up the others.
func (c *conn) giveUp(q *query, own *call) (wrong bool) {
	c.pool.mu.Lock()
	defer c.pool.mu.Unlock()
	if !own.answered {
		c.late[q.id()] = own
	}
	silent := c.heard == own.heard
	if silent && len(c.calls) > 1 {
		c.pool.share(false)
	}
	return silent || len(c.late) > maxLate
}
