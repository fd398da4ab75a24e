package upstream

import (
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// shortBody is the length in bytes up to which a body is not watched for silence: most of it has already arrived.
const shortBody = 64 << 10

// follow makes the call end when the body of its response does.
func (e *Endpoint) follow(resp *http.Response) {
	if resp.StatusCode == http.StatusSwitchingProtocols {
		if conn, ok := resp.Body.(io.ReadWriteCloser); ok {
			u := &upgraded{ReadWriteCloser: conn, end: end{endpoint: e}}
			u.watch(e.profile.idle, conn, true)
			resp.Body = u
			return
		}
	}
	if resp.Body == nil || resp.Body == http.NoBody {
		e.active.Add(-1)
		return
	}
	if idle := e.profile.idle; idle > 0 && (resp.ContentLength < 0 || resp.ContentLength > shortBody) {
		b := &watchedBody{responseBody: responseBody{from: resp.Body, end: end{endpoint: e}}}
		b.watch(idle, resp.Body, false)
		resp.Body = b
		return
	}
	resp.Body = &responseBody{from: resp.Body, end: end{endpoint: e}}
}

// end marks the end of a call, once.
type end struct {
	endpoint *Endpoint
	done     atomic.Bool
}

func (n *end) finish() {
	if n.done.CompareAndSwap(false, true) {
		n.endpoint.active.Add(-1)
	}
}

// responseBody is a response body whose end is the end of its call.
type responseBody struct {
	from io.ReadCloser
	end
}

// Read implements io.Reader.
func (b *responseBody) Read(p []byte) (int, error) {
	n, err := b.from.Read(p)
	if err != nil {
		b.finish()
	}
	return n, err
}

// Close implements io.Closer.
func (b *responseBody) Close() error {
	b.finish()
	return b.from.Close()
}

// silence closes what is silent for too long.
type silence struct {
	limit time.Duration // 0: no limit
	start time.Time
	// busy is when data last arrived or the current read began, as the time since start. 0: no read is in progress.
	busy atomic.Int64
	cut  atomic.Bool

	mu      sync.Mutex
	timer   *time.Timer
	stopped bool
}

// watch starts to watch for silence, after which it closes c. If always is set, silence also counts while no read is in progress.
func (s *silence) watch(limit time.Duration, c io.Closer, always bool) {
	if limit <= 0 {
		return
	}
	s.limit, s.start = limit, time.Now()
	if always {
		s.heard()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.timer = time.AfterFunc(limit, func() {
		if s.over() {
			s.cut.Store(true)
			_ = c.Close()
		}
	})
}

// over reports whether the limit is reached. If not, it sets the timer to when it could be.
func (s *silence) over() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped {
		return false
	}
	left := s.limit
	if busy := s.busy.Load(); busy != 0 {
		left -= time.Since(s.start) - time.Duration(busy)
	}
	if left <= 0 {
		s.stopped = true
		return true
	}
	s.timer.Reset(left)
	return false
}

func (s *silence) heard() { s.busy.Store(int64(time.Since(s.start)) + 1) }

func (s *silence) stop() {
	if s.limit <= 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stopped = true
	s.timer.Stop()
}

// verdict replaces the error of a closed connection or body.
func (s *silence) verdict(err error) error {
	if err != nil && s.cut.Load() {
		return &Error{Status: http.StatusGatewayTimeout, Detail: "the service was silent for too long", Cause: err}
	}
	return err
}

// watchedBody is a responseBody that must not be silent for too long while it is read. A slow reader is not the service's fault.
type watchedBody struct {
	responseBody
	silence
}

// Read implements io.Reader.
func (b *watchedBody) Read(p []byte) (int, error) {
	b.heard()
	n, err := b.responseBody.Read(p)
	b.busy.Store(0)
	if err != nil {
		b.stop()
	}
	return n, b.verdict(err)
}

// Close implements io.Closer.
func (b *watchedBody) Close() error {
	b.stop()
	return b.responseBody.Close()
}

// upgraded is the connection after a 101 response.
type upgraded struct {
	io.ReadWriteCloser
	end
	silence
}

// Read implements io.Reader.
func (u *upgraded) Read(p []byte) (int, error) {
	n, err := u.ReadWriteCloser.Read(p)
	if n > 0 && u.limit > 0 {
		u.heard()
	}
	return n, u.verdict(err)
}

// Write implements io.Writer.
func (u *upgraded) Write(p []byte) (int, error) {
	n, err := u.ReadWriteCloser.Write(p)
	if n > 0 && u.limit > 0 {
		u.heard()
	}
	return n, u.verdict(err)
}

// CloseWrite closes the sending direction.
func (u *upgraded) CloseWrite() error {
	if c, ok := u.ReadWriteCloser.(interface{ CloseWrite() error }); ok {
		return c.CloseWrite()
	}
	return http.ErrNotSupported
}

// Close implements io.Closer.
func (u *upgraded) Close() error {
	u.stop()
	u.finish()
	return u.ReadWriteCloser.Close()
}
