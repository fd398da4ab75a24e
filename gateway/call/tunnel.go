package call

import (
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// tunnel is the connection of a client after an upgrade to WebSocket. It counts the bytes, and tracks where frames of the service end, so
// that the gateway can insert a close frame that says why it ends the connection.
type tunnel struct {
	net.Conn
	read, written atomic.Int64

	begun atomic.Bool // the answer to the handshake has been written
	ended atomic.Bool // nothing is passed on any more
	once  sync.Once
	gone  chan struct{} // closed when the client is gone or the connection closed

	writing sync.Mutex // also guards frames
	frames  frames
}

// Read implements net.Conn. Once the gateway has ended the connection, Read discards what the client still sends.
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

// Write implements net.Conn. Once the gateway has ended the connection, Write discards what the service still sends.
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
	// closeWrite is how long sending the close frame may take, closeWait how long the client may take to answer it.
	closeWrite = 100 * time.Millisecond
	closeWait  = time.Second
)

// end closes the connection; ended must be set. Unless a frame of the service is incomplete, the client is first told why (RFC 6455 7.4.1),
// and has closeWait to answer.
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

// sayWhy sends a close frame if one can be inserted, and reports whether it did.
func (t *tunnel) sayWhy(frame []byte) bool {
	if !t.begun.Load() || !t.writing.TryLock() { // a client that does not read cannot be sent a close frame either
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
