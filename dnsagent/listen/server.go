package listen

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"
)

// defaultGrace is how long messages in flight may take when the server stops, and again after their context is cancelled.
const defaultGrace = 500 * time.Millisecond

// Server serves DNS on its sockets.
type Server struct {
	cfg     Config
	began   time.Time
	grace   time.Duration
	packets []*packets
	streams []*streams
	conns   conns

	handler Handler
	// ctx is for Resolve and TLS handshakes. It outlives the context of Run.
	ctx      context.Context
	cancel   context.CancelFunc
	stopping atomic.Bool
	all      sync.WaitGroup

	pending  pending
	panics   atomic.Uint64
	loggedAt atomic.Int64 // time since began at which a panic was last logged
	figures  *figures
	close    func() error
}

// Addr returns the actual address of UDP and TCP, or the zero AddrPort if there is neither.
func (s *Server) Addr() netip.AddrPort {
	if len(s.packets) > 0 {
		return unmapped(s.packets[0].conn.LocalAddr().(*net.UDPAddr).AddrPort())
	}
	return s.addrOf(TCP)
}

// TLSAddr returns the actual address of DNS over TLS, or the zero AddrPort if there is none.
func (s *Server) TLSAddr() netip.AddrPort { return s.addrOf(TLS) }

func (s *Server) addrOf(t Transport) netip.AddrPort {
	for _, l := range s.streams {
		if l.transport == t {
			return unmapped(l.ln.Addr().(*net.TCPAddr).AddrPort())
		}
	}
	return netip.AddrPort{}
}

// Run answers messages with h until ctx is done and the lame-duck time is over. It then stops reading, waits at most 500 ms
// for messages in flight, cancels the context of the rest, and closes the sockets. It returns an error if the rest does not
// end within another 500 ms. Run must be called only once.
func (s *Server) Run(ctx context.Context, h Handler) error {
	defer func() { _ = s.Close() }()
	s.handler = h
	s.ctx, s.cancel = context.WithCancel(context.WithoutCancel(ctx))
	defer s.cancel()
	for _, p := range s.packets {
		for range p.readers {
			s.all.Go(newReader(s, p).run)
		}
	}
	for _, l := range s.streams {
		s.all.Go(l.accept)
	}
	<-ctx.Done()
	time.Sleep(s.cfg.LameDuck())
	s.stop()
	ended := make(chan struct{})
	go func() {
		s.all.Wait()
		close(ended)
	}()
	if within(ended, s.grace) {
		return nil
	}
	s.cancel()
	_ = s.Close()
	s.conns.closeAll()
	if within(ended, s.grace) {
		return nil
	}
	return errors.New("answers under way do not end")
}

// stop lets no more messages in. It ends reading by deadlines rather than by closing the sockets, so that responses in
// flight are still sent.
func (s *Server) stop() {
	s.stopping.Store(true)
	for _, p := range s.packets {
		_ = p.conn.SetReadDeadline(past)
	}
	for _, l := range s.streams {
		_ = l.ln.Close()
	}
	s.conns.interruptAll()
}

// past is a deadline that has already passed.
var past = time.Unix(1, 0)

func within(done <-chan struct{}, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-done:
		return true
	case <-timer.C:
		return false
	}
}

// Close releases the addresses of a server that is not run. Further calls have no effect.
func (s *Server) Close() error { return s.close() }

// sinceBegin returns the monotonic time since the server was opened.
func (s *Server) sinceBegin() time.Duration { return time.Since(s.began) }

// answer calls the handler's Answer. After a panic there is no response.
func (s *Server) answer(buf, msg []byte, peer *Peer) (resp []byte, wait bool) {
	defer func() {
		if p := recover(); p != nil {
			resp, wait = nil, false
			s.panicked(p, peer)
		}
	}()
	return s.handler.Answer(buf, msg, peer)
}

// panicked counts a panic of the handler, and logs at most one per second: a client may send a message that causes panics
// again and again.
func (s *Server) panicked(p any, peer *Peer) {
	s.panics.Add(1)
	now, last := int64(s.sinceBegin()), s.loggedAt.Load()
	if (last == 0 || now-last >= int64(time.Second)) && s.loggedAt.CompareAndSwap(last, now) {
		s.cfg.Log.Error("answering a message panicked", "panic", p, "peer", peer.AddrPort, "transport", peer.Transport.String(),
			"stack", string(debug.Stack()))
	}
}

func unmapped(a netip.AddrPort) netip.AddrPort { return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()) }

// plain returns the address without a zone, and unmapped.
func plain(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap().WithZone(""), a.Port())
}
