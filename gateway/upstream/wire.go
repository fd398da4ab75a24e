package upstream

import (
	"bufio"
	"errors"
	"io"
	"math"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"syscall"
	"time"
)

// wireBuffer is the size in bytes of a connection's buffers, the same as in an http.Transport. It bounds trailers, too.
const wireBuffer = 4 << 10

var (
	errLongHeader = errors.New("the header of the response is too long")
	errSwitched   = errors.New("the response is 101, and nobody asked for another protocol")
)

// wire is an HTTP/1.1 connection. It carries one call at a time.
type wire struct {
	*connection
	addr string // the key in direct.idle
	raw  syscall.RawConn
	in   *bufio.Reader
	out  *bufio.Writer

	room   int64     // how many bytes of a header may still be read
	sent   int64     // bytes of the current request
	broken bool      // a write failed
	why    error     // the error of the read that failed
	used   time.Time // when it was last used
	old    bool      // it carried a call before

	// Made once, not once per call.
	abandon func()
	peek    func(fd uintptr)
	alive   bool // the result of peek
}

func newWire(conn *connection, addr string) (*wire, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	w := &wire{connection: conn, addr: addr, raw: raw}
	w.in, w.out = bufio.NewReaderSize(w, wireBuffer), bufio.NewWriterSize(w, wireBuffer)
	w.abandon = func() { _ = conn.Close() }
	w.peek = func(fd uintptr) {
		var b [1]byte
		_, _, err := syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		w.alive = errors.Is(err, syscall.EAGAIN)
	}
	return w, nil
}

// Read limits how much of a header is read.
func (w *wire) Read(p []byte) (int, error) {
	if w.room <= 0 {
		w.why = errLongHeader
		return 0, w.why
	}
	if int64(len(p)) > w.room {
		p = p[:w.room]
	}
	n, err := w.connection.Read(p)
	w.room -= int64(n)
	if err != nil && !errors.Is(err, io.EOF) {
		w.why = err
	}
	return n, err
}

// Write counts the bytes written.
func (w *wire) Write(p []byte) (int, error) {
	n, err := w.connection.Write(p)
	w.sent += int64(n)
	w.broken = w.broken || err != nil
	return n, err
}

// quiet reports whether the connection is open and has no unsolicited data to read, which would be taken for the next response.
func (w *wire) quiet() bool {
	w.alive = false
	return w.raw.Control(w.peek) == nil && w.alive
}

// exchange sends a request and reads the header of the response. again reports that a reused connection turned out to be closed and
// that the request may be sent over another one: either none of it was sent, or it may be sent twice and nothing came back.
func (w *wire) exchange(r *http.Request) (resp *http.Response, again bool, err error) {
	w.room, w.sent = maxHeader, 0
	if err = r.Write(w.out); err == nil {
		err = w.out.Flush()
	}
	if err != nil {
		return nil, w.old && w.broken && w.sent == 0 && !isTimeout(err), err
	}
	if w.old {
		if _, err := w.in.Peek(1); err != nil {
			return nil, isReplayable(r) && !isTimeout(err), err
		}
	}
	resp, err = w.response(r)
	if err != nil {
		return nil, false, err
	}
	w.room = math.MaxInt64
	return resp, false, nil
}

// response reads response headers up to that of the final response.
func (w *wire) response(r *http.Request) (*http.Response, error) {
	for {
		resp, err := http.ReadResponse(w.in, r)
		if err != nil {
			if w.why != nil {
				err = w.why // a truncated line is parsed like a complete one, so a parse error may hide the read error
			}
			return nil, err
		}
		if resp.StatusCode == http.StatusSwitchingProtocols {
			return nil, errSwitched
		}
		if resp.StatusCode < 100 || resp.StatusCode > 199 {
			return resp, nil
		}
		if t := httptrace.ContextClientTrace(r.Context()); t != nil && t.Got1xxResponse != nil {
			if err := t.Got1xxResponse(resp.StatusCode, textproto.MIMEHeader(resp.Header)); err != nil {
				return nil, err
			}
			w.room = maxHeader // the response was passed on, which bounds how many there can be
		}
	}
}

// isReplayable reports whether a request without a body may be sent again when it is unknown whether it arrived, by the rules of
// http.Transport. They are narrower than those of isIdempotent, which applies to attempts that are counted.
func isReplayable(r *http.Request) bool {
	switch r.Method {
	case "", http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace:
		return true
	}
	return len(r.Header["Idempotency-Key"]) > 0 || len(r.Header["X-Idempotency-Key"]) > 0
}
