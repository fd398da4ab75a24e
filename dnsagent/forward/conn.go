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
	// maxSaid is the maximum number of messages with the ID of a question that wait to be examined.
	maxSaid = 4
	// maxLate is how many answers a connection may owe to questions that have timed out. One that owes more gets no more questions.
	maxLate = 128
)

var (
	// errBroken is the error for a connection that ended before the answer came.
	errBroken = errors.New("the connection has ended")
	// errStrays is the error for a connection closed because too many messages on it answered no question.
	errStrays = errors.New("too many messages answer nothing")
)

// conn is a connection that can carry several questions at a time. Answers may come in any order.
type conn struct {
	pool   *pool
	end    context.CancelFunc
	ready  chan struct{} // closed when the connection is open
	broken chan struct{} // closed when the connection has ended or could not be opened
	err    error         // why it ended; set before broken is closed
	stream net.Conn      // set before ready is closed
	out    chan outgoing

	// The lock of the pool guards the following fields.
	calls   map[uint16]*call
	late    map[uint16]*call // calls that timed out before their answer came
	sent    int              // number of questions sent
	latest  int              // highest number of an answered call
	heard   int              // number of messages passed to a call
	since   time.Time        // when it was last used
	doubted bool             // an answer is late and nothing has come since its question: others prefer other connections
	removed bool             // it takes no more questions
}

// call is a question in flight.
type call struct {
	number   int // position in the order of sending; 0 before it is sent
	answered bool
	heard    int // value of conn.heard when the call was added
	said     chan []byte
}

// outgoing is a question to be sent next.
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

// load returns the number of outstanding answers, including those that nobody wants any more: an upstream that answers in order delays
// the others by these. It is called with the lock held.
func (c *conn) load() int { return len(c.calls) + len(c.late) }

// add adds a question and gives it an ID that no other has. It is called with the lock held.
func (c *conn) add(q *query) *call {
	for c.calls[q.id()] != nil || c.late[q.id()] != nil {
		q.renewID()
	}
	own := &call{heard: c.heard, said: make(chan []byte, maxSaid)}
	c.calls[q.id()] = own
	return own
}

// run opens the connection and reads from it until it ends.
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

// send writes questions until the connection ends. The time limit of a write is not that of its question: a partial write ends the
// connection for everyone who uses it.
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
			_ = c.stream.SetWriteDeadline(time.Now().Add(limit)) // fails only when closed, and then Write fails too
			if _, err := c.stream.Write(next.framed); err != nil {
				c.fail(fmt.Errorf("%w: %w", errBroken, err))
				c.end()
				return
			}
		}
	}
}

// fail tells the waiting calls that nothing more comes, and why. If there were several, questions no longer share connections.
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

// deliver passes a message to the call that has its ID, and reports whether the call took it. Late answers count as taken.
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

// compare checks whether the answer to an earlier question came after the answer to a later one: an upstream that lets one overtake
// another works on several at a time. One that leaves a question unanswered may not. It is called with the lock held.
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

// ask sends a question, waits for its answer and leaves the connection.
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
	if ctx.Err() != nil { // both were ready
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
			case msg = <-own.said: // it came before the end
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

// doubt notes that the answer to a question is late. If no call on the connection has received anything since the question was asked, the
// other end may be gone: other questions then avoid the connection, but a late answer still counts.
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

// giveUp notes that an answer may still come, though nobody wants it any more. It reports whether the connection must not be used again:
// no call on it has received anything since the question was asked, or it owes too many answers. If several calls met with silence, one
// holds up the others.
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
