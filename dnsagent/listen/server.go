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

// defaultGrace is how long answers under way may take when the server ends, and once more after they were told to.
const defaultGrace = 500 * time.Millisecond

// Server is the sockets of a DNS server.
type Server struct {
	cfg     Config
	began   time.Time
	grace   time.Duration
	packets []*packets
	streams []*streams
	conns   conns

	handler Handler
	// ctx is that of Resolve. It outlasts that of Run.
	ctx      context.Context
	cancel   context.CancelFunc
	stopping atomic.Bool
	all      sync.WaitGroup

	pending  pending
	panics   atomic.Uint64
	loggedAt atomic.Int64 // since began, when a panic was logged last
	figures  *figures
	close    func() error
}

// Addr is the address of UDP and TCP, with the real port; the zero AddrPort when there is neither.
func (s *Server) Addr() netip.AddrPort {
	if len(s.packets) > 0 {
		return unmapped(s.packets[0].conn.LocalAddr().(*net.UDPAddr).AddrPort())
	}
	return s.addrOf(TCP)
}

// TLSAddr is the address of DNS over TLS, with the real port; the zero AddrPort when there is none.
func (s *Server) TLSAddr() netip.AddrPort { return s.addrOf(TLS) }

func (s *Server) addrOf(t Transport) netip.AddrPort {
	for _, l := range s.streams {
		if l.transport == t {
			return unmapped(l.ln.Addr().(*net.TCPAddr).AddrPort())
		}
	}
	return netip.AddrPort{}
}

// Run answers with h until ctx ends and the lame-duck time is over. Then it closes the sockets, waiting for answers under way
// for at most 500 ms, and cancels the context of those that are left. It is an error when they do not end then either. Run is
// called once.
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

// stop lets no more messages in. Deadlines rather than closed sockets end the reading: answers under way are still sent.
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

// past is a deadline that is over.
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

// Close releases the addresses of a server that is not run. Further calls do nothing.
func (s *Server) Close() error { return s.close() }

// sinceBegin is a clock that does not jump.
func (s *Server) sinceBegin() time.Duration { return time.Since(s.began) }

// answer asks the handler for what is at hand.
func (s *Server) answer(buf, msg []byte, peer *Peer) (resp []byte, wait bool) {
	defer func() {
		if p := recover(); p != nil {
			resp, wait = nil, false
			s.panicked(p, peer)
		}
	}()
	return s.handler.Answer(buf, msg, peer)
}

// panicked logs a panic of the handler, one in a second: whoever found a message that makes it panic sends it again and again.
func (s *Server) panicked(p any, peer *Peer) {
	s.panics.Add(1)
	now, last := int64(s.sinceBegin()), s.loggedAt.Load()
	if (last == 0 || now-last >= int64(time.Second)) && s.loggedAt.CompareAndSwap(last, now) {
		s.cfg.Log.Error("answering a message panicked", "panic", p, "peer", peer.AddrPort, "transport", peer.Transport.String(),
			"stack", string(debug.Stack()))
	}
}

func unmapped(a netip.AddrPort) netip.AddrPort { return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()) }

// plain is an address without a zone, and not mapped.
func plain(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap().WithZone(""), a.Port())
}
