package upstream

import (
	"context"
	"errors"
	"io"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// maxDirectHeader is the largest request header in bytes that is sent before anything is read. It has to fit into the kernel's socket
// buffers, because a target that does not read may be writing at the same time.
const maxDirectHeader = 16 << 10

// direct makes calls over HTTP/1.1 without TLS in the caller's goroutine, whereas an http.Transport hands every call to the two goroutines
// of a connection and back. It takes the most common requests, those without a body, and behaves as an http.Transport would. The rest is
// left to the latter.
type direct struct {
	dial     func(ctx context.Context, addr string) (*connection, error)
	response time.Duration // until the response header has been read; 0: no limit
	maxIdle  int           // per address

	mu      sync.Mutex
	retired bool               // connections are no longer kept
	idle    map[string][]*wire // by address, the most recently used last
	count   int                // of all idle connections
}

func newDirect(dial func(ctx context.Context, addr string) (*connection, error), response time.Duration, maxIdle int) *direct {
	return &direct{dial: dial, response: response, maxIdle: maxIdle, idle: make(map[string][]*wire)}
}

// takes reports whether direct can make a request. A request with a field that must not be sent is left to net/http, which refuses it.
func takes(r *http.Request) bool {
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodOptions:
	default:
		return false
	}
	if r.Body != nil && r.Body != http.NoBody || r.ContentLength > 0 || r.Close || len(r.Trailer) > 0 || len(r.TransferEncoding) > 0 {
		return false
	}
	if h := r.Header; len(h["Expect"]) > 0 || isUpgrade(h) {
		return false
	}
	size := len(r.URL.Path) + len(r.URL.RawPath) + len(r.URL.RawQuery) + len(r.Host)
	for name, values := range r.Header {
		if !isField(name, values) {
			return false
		}
		for _, v := range values {
			size += len(name) + len(v) + len(": \r\n")
		}
	}
	return size <= maxDirectHeader
}

// take returns an idle connection, or nil if there is none.
func (d *direct) take(addr string) *wire {
	for {
		d.mu.Lock()
		list := d.idle[addr]
		n := len(list)
		if n == 0 {
			d.mu.Unlock()
			return nil
		}
		w := list[n-1]
		list[n-1] = nil
		d.idle[addr] = list[:n-1]
		d.count--
		d.mu.Unlock()
		if time.Since(w.used) < idleFor && w.quiet() {
			return w
		}
		_ = w.Close()
	}
}

// keep keeps a connection for other calls, unless there are enough.
func (d *direct) keep(w *wire) {
	w.used, w.old = time.Now(), true
	d.mu.Lock()
	list := d.idle[w.addr]
	full := d.retired || len(list) >= d.maxIdle || d.count >= maxIdleTotal
	if !full {
		d.idle[w.addr] = append(list, w)
		d.count++
	}
	d.mu.Unlock()
	if full {
		_ = w.Close()
	}
}

// sweep closes the connections that were not used for idleFor.
func (d *direct) sweep(now time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for addr, list := range d.idle {
		old := 0
		for old < len(list) && now.Sub(list[old].used) >= idleFor {
			_ = list[old].Close()
			old++
		}
		d.count -= old
		if old == len(list) {
			delete(d.idle, addr)
		} else if old > 0 {
			d.idle[addr] = slices.Delete(list, 0, old)
		}
	}
}

// retire closes the idle connections, and the others when they are released.
func (d *direct) retire() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.retired, d.count = true, 0
	for _, list := range d.idle {
		for _, w := range list {
			_ = w.Close()
		}
	}
	clear(d.idle)
}

// roundTrip is http.Transport.RoundTrip for requests that takes accepts.
func (d *direct) roundTrip(r *http.Request, addr string) (*http.Response, error) {
	ctx := r.Context()
	for {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		w := d.take(addr)
		if w == nil {
			conn, err := d.dial(ctx, addr)
			if err != nil {
				return nil, err
			}
			if w, err = newWire(conn, addr); err != nil {
				_ = conn.Close()
				return nil, err
			}
		}
		resp, again, err := d.exchange(ctx, w, r)
		if err == nil || !again {
			return resp, err
		}
	}
}

// exchange makes a call over a connection, which it keeps, closes or hands to the response body.
func (d *direct) exchange(ctx context.Context, w *wire, r *http.Request) (resp *http.Response, again bool, err error) {
	if d.response > 0 {
		again, err = w.old, w.SetDeadline(time.Now().Add(d.response))
	}
	stop := context.AfterFunc(ctx, w.abandon)
	if err == nil {
		resp, again, err = w.exchange(r)
	}
	// A body that is buffered already needs no more time; the next call sets a new deadline.
	if err == nil && d.response > 0 && (resp.ContentLength < 0 || resp.ContentLength > int64(w.in.Buffered())) && resp.Body != http.NoBody {
		err = w.SetDeadline(time.Time{})
	}
	if err != nil {
		stop()
		_ = w.Close()
		if ctx.Err() != nil {
			return nil, false, context.Cause(ctx)
		}
		return nil, again, err
	}
	keep := !resp.Close && resp.StatusCode >= 200
	if resp.Body == http.NoBody {
		d.done(w, stop, keep)
		return resp, false, nil
	}
	resp.Body = &directBody{from: resp.Body, of: r, wire: w, direct: d, stop: stop, keep: keep}
	return resp, false, nil
}

// done ends the use of a connection. It is only kept if the context is not done and no data follows the response.
func (d *direct) done(w *wire, stop func() bool, keep bool) {
	if stop() && keep && w.in.Buffered() == 0 {
		d.keep(w)
		return
	}
	_ = w.Close()
}

// directBody is a response body. It owns the connection until it ends.
type directBody struct {
	from   io.Reader
	of     *http.Request
	wire   *wire
	direct *direct
	stop   func() bool
	keep   bool
	ended  atomic.Bool
	closed atomic.Bool
}

// Read implements io.Reader.
func (b *directBody) Read(p []byte) (int, error) {
	if b.closed.Load() {
		return 0, http.ErrBodyReadAfterClose
	}
	n, err := b.from.Read(p)
	if err != nil {
		whole := errors.Is(err, io.EOF)
		b.end(whole)
		if ctx := b.of.Context(); !whole && ctx.Err() != nil {
			err = context.Cause(ctx)
		}
	}
	return n, err
}

// Close implements io.Closer.
func (b *directBody) Close() error {
	b.closed.Store(true)
	b.end(false)
	return nil
}

// end releases the connection. whole says that the body was read to its end.
func (b *directBody) end(whole bool) {
	if b.ended.Swap(true) {
		return
	}
	if whole {
		b.direct.done(b.wire, b.stop, b.keep)
		return
	}
	b.stop()
	_ = b.wire.Close()
}
