package forward

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"
)

// conn is a connection that carries several questions at a time, whose answers come in any order.
type conn struct {
	pool   *pool
	end    context.CancelFunc
	ready  chan struct{} // closed when it is open
	broken chan struct{} // closed when it is open no more, or never was
	err    error         // why; set before broken is closed
	stream net.Conn      // set before ready is closed

	writing sync.Mutex

	// Under the lock of the pool:
	calls   map[uint16]*call
	since   time.Time // nobody has used it
	heard   int       // messages for somebody
	removed bool      // it gets no more questions
}

// call is a question under way.
type call struct {
	heard int // how many messages there were for anybody on the connection before
	said  chan []byte
}

// maxSaid is how many messages with the id of a question wait to be looked at.
const maxSaid = 4

// errBroken is for a connection that ended before the answer came.
var errBroken = errors.New("the connection has ended")

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
	c.fail(fmt.Errorf("%w: too many messages answer nothing", errBroken))
}

func (c *conn) fail(err error) {
	c.pool.mu.Lock()
	defer c.pool.mu.Unlock()
	c.pool.remove(c)
	c.err = err
	close(c.broken)
}

// deliver gives a message to the question that has its id, if there is one.
func (c *conn) deliver(msg []byte) bool {
	if len(msg) < 2 {
		return false
	}
	c.pool.mu.Lock()
	defer c.pool.mu.Unlock()
	own := c.calls[binary.BigEndian.Uint16(msg)]
	if own == nil {
		return false
	}
	select {
	case own.said <- msg:
		c.heard++
		return true
	default:
		return false
	}
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
		return nil, context.Cause(ctx)
	}
	if err := c.write(ctx, q.framed); err != nil {
		wrong = true
		return nil, err
	}
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
			wrong = c.silentSince(own)
			return nil, context.Cause(ctx)
		}
		if resp, err := x.judge(q, msg); resp != nil || err != nil {
			wrong = err != nil
			return resp, err
		}
	}
}

// write sends a message. One that goes out in part is the end of the connection.
func (c *conn) write(ctx context.Context, framed []byte) error {
	c.writing.Lock()
	defer c.writing.Unlock()
	deadline, _ := ctx.Deadline()
	_ = c.stream.SetWriteDeadline(deadline) // fails only when closed, as Write does then
	if _, err := c.stream.Write(framed); err != nil {
		c.end()
		return fmt.Errorf("%w: %w", errBroken, err)
	}
	return nil
}

// silentSince reports whether nobody on the connection has heard anything since a question was asked.
func (c *conn) silentSince(own *call) bool {
	c.pool.mu.Lock()
	defer c.pool.mu.Unlock()
	return c.heard == own.heard
}
