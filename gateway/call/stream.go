package call

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"sync/atomic"
	"time"
)

// Writer records the status and the size of the response, and bounds how long the client may take to receive it.
//
// In HTTP/1.1, each write moves the deadline on, so a response may pause for longer than that without harm. In HTTP/2, a deadline that
// expires ends the stream even if nobody is writing, so it is only in force while a write waits.
type Writer struct {
	http.ResponseWriter
	// Status is the status of the final response; 0 before there is one. Bytes is the length of its body so far.
	Status int
	Bytes  int64

	upgraded atomic.Pointer[tunnel]
	cut      atomic.Bool
	idle     time.Duration
	deadline time.Time
	streams  bool        // HTTP/2
	watch    *time.Timer // ends a write that takes too long
}

// Reset prepares w for the response to r. A client that accepts nothing for the duration idle is given up.
func (w *Writer) Reset(rw http.ResponseWriter, r *http.Request, idle time.Duration) {
	*w = Writer{ResponseWriter: rw, idle: idle, streams: r.ProtoMajor > 1}
}

// Unwrap supports http.ResponseController.
func (w *Writer) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// WriteHeader implements http.ResponseWriter.
func (w *Writer) WriteHeader(status int) {
	if w.Status == 0 && (status >= 200 || status == http.StatusSwitchingProtocols) {
		w.Status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (w *Writer) Write(p []byte) (int, error) {
	if w.Status == 0 {
		w.Status = http.StatusOK
	}
	if w.idle > 0 {
		w.begin()
	}
	n, err := w.ResponseWriter.Write(p)
	if w.watch != nil {
		w.watch.Stop()
	}
	w.Bytes += int64(n)
	return n, err
}

// longAgo is a deadline in the past.
var longAgo = time.Unix(1, 0)

// begin bounds the duration of a write.
func (w *Writer) begin() {
	switch {
	case !w.streams:
		now := time.Now()
		if w.deadline.Sub(now) > w.idle*3/4 {
			return
		}
		w.deadline = now.Add(w.idle)
		_ = http.NewResponseController(w.ResponseWriter).SetWriteDeadline(w.deadline) // not every writer has deadlines
		if w.cut.Load() {
			w.expire(longAgo)
		}
	case w.watch == nil:
		rw := w.ResponseWriter
		w.watch = time.AfterFunc(w.idle, func() { _ = http.NewResponseController(rw).SetWriteDeadline(longAgo) })
	default:
		w.watch.Reset(w.idle)
	}
}

// End bounds what net/http still writes after the last Write. The next request of the connection has deadlines of its own.
func (w *Writer) End() {
	if t := w.upgraded.Load(); t != nil {
		w.Bytes = t.written.Load()
		return
	}
	switch {
	case w.idle <= 0 || w.streams && w.cut.Load():
	case w.streams:
		_ = http.NewResponseController(w.ResponseWriter).SetWriteDeadline(time.Now().Add(w.idle))
	default:
		w.begin()
	}
}

// Hijack implements http.Hijacker. The bytes of an upgraded connection are counted, too.
func (w *Writer) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := http.NewResponseController(w.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	t := &tunnel{Conn: conn, gone: make(chan struct{})}
	w.upgraded.Store(t)
	if w.Status == 0 {
		w.Status = http.StatusSwitchingProtocols // which httputil.ReverseProxy writes to the connection itself
	}
	if w.cut.Load() {
		_ = t.Close() // writes to it fail
	}
	return t, rw, nil
}

// Received returns how many bytes were read from the request body, or from an upgraded connection.
func (c *Call) Received() int64 {
	if t := c.Writer.upgraded.Load(); t != nil {
		return t.read.Load()
	}
	return c.Body.bytes.Load()
}

// Body counts the bytes read from a request body, and bounds how long the client may be silent. The proxy may still be reading it when the
// call has been answered.
type Body struct {
	body    io.ReadCloser
	w       http.ResponseWriter
	bytes   atomic.Int64
	closed  atomic.Bool
	ended   atomic.Bool
	late    atomic.Bool
	cut     atomic.Bool
	trailer http.Header // of the request
	// Trailer is where the announced trailer fields are copied to when the body has ended; nil: nowhere.
	Trailer http.Header

	idle     time.Duration
	deadline time.Time
	streams  bool
	watch    *time.Timer
}

// Reset prepares b for the body of r. idle is how long the client may be silent; 0 means for ever.
func (b *Body) Reset(r *http.Request, w http.ResponseWriter, idle time.Duration) {
	b.body, b.w, b.idle, b.streams, b.trailer = r.Body, w, idle, r.ProtoMajor > 1, r.Trailer
}

// Read implements io.Reader.
func (b *Body) Read(p []byte) (int, error) {
	if b.closed.Load() {
		return 0, http.ErrBodyReadAfterClose
	}
	if b.idle > 0 {
		b.begin()
	}
	n, err := b.body.Read(p)
	if b.watch != nil {
		b.watch.Stop()
	}
	b.bytes.Add(int64(n))
	switch {
	case err == nil:
	case errors.Is(err, io.EOF):
		if !b.ended.Swap(true) {
			b.end()
		}
	case errors.Is(err, os.ErrDeadlineExceeded):
		b.late.Store(true)
	}
	return n, err
}

// end is called when the whole body has been read.
func (b *Body) end() {
	for name := range b.Trailer {
		b.Trailer[name] = b.trailer[name]
	}
	if !b.deadline.IsZero() && !b.closed.Load() {
		// net/http keeps reading, to notice when the client goes away.
		_ = http.NewResponseController(b.w).SetReadDeadline(time.Time{})
	}
}

// begin bounds the duration of a read.
func (b *Body) begin() {
	switch {
	case !b.streams:
		if now := time.Now(); b.deadline.Sub(now) < b.idle*3/4 {
			b.deadline = now.Add(b.idle)
			_ = http.NewResponseController(b.w).SetReadDeadline(b.deadline) // not every writer has deadlines
			if b.cut.Load() {
				b.expire()
			}
		}
	case b.watch == nil:
		w := b.w
		b.watch = time.AfterFunc(b.idle, func() { _ = http.NewResponseController(w).SetReadDeadline(longAgo) })
	default:
		b.watch.Reset(b.idle)
	}
}

// Cut ends the body early. Any goroutine may call it until the handler of the request returns.
func (b *Body) Cut() {
	b.cut.Store(true)
	if b.w != nil {
		b.expire()
	}
}

func (b *Body) expire() { _ = http.NewResponseController(b.w).SetReadDeadline(longAgo) }

// Unread reports whether part of the body was not read. HTTP/1.1 has to deal with the rest before the next request.
func (b *Body) Unread() bool { return b.body != nil && !b.streams && !b.ended.Load() }

// Late reports whether the body did not arrive in time.
func (b *Body) Late() bool { return b.late.Load() }

// remainder is how long net/http may read the rest of a body after the answer before it gives up the connection.
const remainder = 2 * time.Second

// Close implements io.Closer. net/http reads some of the rest so that the connection can be reused; Close bounds how long that takes.
func (b *Body) Close() error {
	if b.body == nil || b.closed.Swap(true) {
		return nil
	}
	if !b.ended.Load() && !b.streams {
		_ = http.NewResponseController(b.w).SetReadDeadline(time.Now().Add(remainder))
	}
	return b.body.Close()
}
