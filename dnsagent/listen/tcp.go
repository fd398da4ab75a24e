package listen

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// streams is a TCP or TLS listener.
type streams struct {
	server    *Server
	ln        *net.TCPListener
	transport Transport
	tls       *tls.Config // nil for TCP
}

// accept accepts connections until the listener is closed.
func (l *streams) accept() {
	const least, most = 5 * time.Millisecond, time.Second
	pause := least
	for {
		raw, err := l.ln.AcceptTCP()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // most likely too many open files, which passes
			l.server.figures.of[l.transport].acceptErrors.Add(1)
			time.Sleep(pause)
			pause = min(2*pause, most)
			continue
		}
		pause = least
		c := l.newConn(raw)
		c.counts.opened.Add(1)
		if reason, ok := l.server.conns.admit(c); !ok {
			c.counts.end(reason)
			_ = raw.Close()
			continue
		}
		l.server.all.Go(c.serve)
	}
}

// conn is a TCP or TLS connection.
type conn struct {
	server *Server
	raw    *net.TCPConn
	stream net.Conn // raw, or TLS over it
	source netip.Prefix
	peer   Peer
	counts *counts
	in     frames

	write sync.Mutex    // held while a response is sent
	slots chan struct{} // one element for each message that waits for its answer
	jobs  sync.WaitGroup

	busy      atomic.Int32 // number of messages whose answer is not known yet
	idleSince atomic.Int64 // time since began; an incomplete message does not reset it
}

func (l *streams) newConn(raw *net.TCPConn) *conn {
	peer := Peer{AddrPort: plain(raw.RemoteAddr().(*net.TCPAddr).AddrPort()), Transport: l.transport}
	c := &conn{
		server: l.server, raw: raw, stream: raw, peer: peer, source: sourceOf(peer.AddrPort.Addr()),
		counts: l.server.figures.of[l.transport],
	}
	c.idleSince.Store(int64(l.server.sinceBegin()))
	if l.tls != nil {
		c.stream = tls.Server(raw, l.tls)
	}
	c.in = frames{conn: c.stream, whole: l.server.cfg.ReadTimeout, stopped: &l.server.stopping}
	return c
}

// serve answers the messages of a connection until it ends.
func (c *conn) serve() {
	reason := c.handshake()
	if reason == endNot {
		reason = c.read()
	}
	// A client that has closed its half of the connection still waits for the responses.
	c.jobs.Wait()
	_ = c.stream.Close()
	if !c.server.conns.remove(c) {
		reason = endEvicted
	}
	c.counts.end(reason)
}

// handshake performs the TLS handshake, if any. It returns endNot if the connection goes on.
func (c *conn) handshake() ending {
	secure, ok := c.stream.(*tls.Conn)
	if !ok {
		return endNot
	}
	if c.server.stopping.Load() { // interruptAll may have missed this connection
		return endShutdown
	}
	ctx, cancel := context.WithTimeout(c.server.ctx, c.server.cfg.ReadTimeout)
	defer cancel()
	if err := secure.HandshakeContext(ctx); err != nil {
		return endHandshake
	}
	return endNot
}

// read reads messages and has them answered. It returns the reason why it stopped.
func (c *conn) read() ending {
	idle := c.server.cfg.Idle
	for {
		msg, err := c.in.next(idle)
		if err == nil {
			if !c.take(msg) {
				return endShutdown
			}
			idle = c.server.cfg.Idle
			continue
		}
		if !errors.Is(err, os.ErrDeadlineExceeded) || !c.in.empty() {
			return endingOf(err)
		}
		// The idle time begins with the last response.
		idle = c.server.cfg.Idle
		if c.busy.Load() == 0 {
			idle -= c.server.sinceBegin() - time.Duration(c.idleSince.Load())
		}
		if idle <= 0 {
			return endIdle
		}
	}
}

func endingOf(err error) ending {
	switch {
	case errors.Is(err, errStopped):
		return endShutdown
	case errors.Is(err, errNoMessage):
		return endMalformed
	case errors.Is(err, os.ErrDeadlineExceeded):
		return endTimeout
	case errors.Is(err, syscall.ECONNRESET):
		return endReset
	default:
		return endClient
	}
}

// take answers a message, or starts a goroutine that does. It returns false if the server stops.
func (c *conn) take(msg []byte) bool {
	c.counts.received.Add(1)
	c.busy.Add(1)
	out := buffers.Get().(*buffer)
	defer buffers.Put(out)
	resp, wait := c.server.answer(out.response(), msg, &c.peer)
	if wait {
		if !c.reserve() {
			return false
		}
		if j, ok := c.server.newJob(msg, &c.peer); ok {
			j.conn = c
			c.server.all.Go(j.message)
			return true
		}
		c.release()
		resp = c.server.overloaded(out.response(), msg, &c.peer)
	}
	c.send(out, resp)
	return true
}

// message answers a message that has to wait for its answer.
func (j *job) message() {
	resp := j.resolve()
	j.conn.send(&j.out, resp)
	j.conn.release()
	j.free()
}

// reserve waits until the connection may have one more waiting message. It returns false if the server stops first.
func (c *conn) reserve() bool {
	if c.slots == nil { // few connections need it
		c.slots = make(chan struct{}, c.server.cfg.PerConnection)
	}
	select {
	case c.slots <- struct{}{}:
		c.jobs.Add(1)
		return true
	case <-c.server.ctx.Done():
		return false
	}
}

func (c *conn) release() {
	<-c.slots
	c.jobs.Done()
}

// send sends a response. A connection that does not accept it in time is closed.
func (c *conn) send(b *buffer, resp []byte) {
	// Set before sending: a connection whose client does not read its responses may be evicted.
	c.idleSince.Store(int64(c.server.sinceBegin()))
	c.busy.Add(-1)
	switch {
	case len(resp) == 0:
		c.counts.drop(dropSilent)
	case len(resp) > maxMessage:
		c.counts.drop(dropTooLong)
	default:
		if err := c.put(b.frame(resp)); err != nil {
			c.counts.drop(dropWrite)
			_ = c.raw.Close()
		} else {
			c.counts.sent.Add(1)
		}
	}
}

func (c *conn) put(frame []byte) error {
	c.write.Lock()
	defer c.write.Unlock()
	if err := c.stream.SetWriteDeadline(time.Now().Add(c.server.cfg.ReadTimeout)); err != nil {
		return err
	}
	_, err := c.stream.Write(frame)
	return err
}
