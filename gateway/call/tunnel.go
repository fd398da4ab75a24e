package call

import (
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// tunnel is the connection of a client after an upgrade to WebSocket. It counts the bytes, and knows where frames of the service end, so
// that the gateway can say in a frame of its own why it ends the connection.
type tunnel struct {
	net.Conn
	read, written atomic.Int64

	begun atomic.Bool // the answer to the handshake is written
	ended atomic.Bool // nothing is passed on any more
	once  sync.Once
	gone  chan struct{} // closed when the client is gone, or the connection closed

	writing sync.Mutex // also guards frames
	frames  frames
}

// Read implements net.Conn. Once the gateway has ended the connection, it reads what the client still says, and passes on none of it.
func (t *tunnel) Read(p []byte) (int, error) {
	t.begun.Store(true)
	for {
		n, err := t.Conn.Read(p)
		if !t.ended.Load() {
			t.read.Add(int64(n))
			return n, err
		}
		if err != nil {
			t.leave()
			return 0, err
		}
	}
}

// Write implements net.Conn. Once the gateway has ended the connection, what the service still says goes nowhere.
func (t *tunnel) Write(p []byte) (int, error) {
	t.begun.Store(true)
	t.writing.Lock()
	defer t.writing.Unlock()
	if t.ended.Load() {
		return len(p), nil
	}
	n, err := t.Conn.Write(p)
	t.frames.pass(p[:n])
	t.written.Add(int64(n))
	return n, err
}

// Close implements net.Conn.
func (t *tunnel) Close() error {
	t.leave()
	return t.Conn.Close()
}

func (t *tunnel) leave() { t.once.Do(func() { close(t.gone) }) }

const (
	// closeWrite is how long the close frame may take to be sent, closeWait how long the client may take to answer it.
	closeWrite = 100 * time.Millisecond
	closeWait  = time.Second
)

// end closes the connection, once ended is set. A client that is not in the middle of a frame of the service's is told why first (RFC 6455 7.4.1), and has
// closeWait to answer.
func (t *tunnel) end(frame []byte) {
	if t.sayWhy(frame) {
		_ = t.SetReadDeadline(time.Now().Add(closeWait))
		select {
		case <-t.gone:
		case <-time.After(closeWait):
		}
	}
	_ = t.Close()
}

// sayWhy sends a close frame where one can stand, and reports whether it did.
func (t *tunnel) sayWhy(frame []byte) bool {
	if !t.begun.Load() || !t.writing.TryLock() { // a client that takes nothing takes no close frame either
		return false
	}
	defer t.writing.Unlock()
	if !t.frames.between() {
		return false
	}
	_ = t.SetWriteDeadline(time.Now().Add(closeWrite))
	n, err := t.Conn.Write(frame)
	t.written.Add(int64(n))
	return err == nil
}
