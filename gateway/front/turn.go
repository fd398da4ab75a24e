package front

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"sync/atomic"
	"time"
)

// turn is the net/http server for one set of bounds. net/http does not allow bounds to change while a server runs, so each new set gets a
// server of its own on the same listener: connections keep the bounds they began with, and none of them is lost.
type turn struct {
	bounds Bounds
	http   *http.Server
	ln     *listener
	over   atomic.Bool
	open   atomic.Int64 // connections, and calls of Accept that wait for one
}

// errOver ends a turn.
var errOver = errors.New("other bounds are in force")

func (s *Server) newTurn(b Bounds) *turn {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(true)
	protocols.SetUnencryptedHTTP2(s.cfg.TLS == nil)
	return &turn{bounds: b, ln: s.ln, http: &http.Server{
		Handler: s.handler, TLSConfig: s.cfg.TLS, Protocols: protocols,
		ReadHeaderTimeout: b.HeaderTimeout, IdleTimeout: b.Idle, MaxHeaderBytes: b.Header + headerSlack,
		HTTP2:                        &http.HTTP2Config{MaxConcurrentStreams: b.Streams, MaxReadFrameSize: 1 << 16, SendPingTimeout: pingAfter, PingTimeout: pingAfter / 2, WriteByteTimeout: pingAfter},
		DisableGeneralOptionsHandler: true,
		ErrorLog:                     slog.NewLogLogger(s.cfg.Log.With("listener", "gateway").Handler(), slog.LevelDebug),
		BaseContext:                  func(net.Listener) context.Context { return s.base },
	}}
}

// SetBounds sets the bounds of connections opened from now on.
func (s *Server) SetBounds(b Bounds) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ending || s.now.bounds == b {
		return
	}
	was := s.now
	s.now = s.newTurn(b)
	s.former = append(slices.DeleteFunc(s.former, func(t *turn) bool { return t.open.Load() == 0 }), was)
	was.over.Store(true)
	s.ln.wake()
}

// serve serves one turn after another. The error is never nil.
func (s *Server) serve() error {
	for {
		s.mu.Lock()
		t := s.now
		s.ln.sleep()
		s.mu.Unlock()
		var err error
		if s.cfg.TLS != nil {
			err = t.http.ServeTLS(t, "", "")
		} else {
			err = t.http.Serve(t)
		}
		if !errors.Is(err, errOver) {
			return err
		}
	}
}

// last prevents further turns, and returns all turns that may have open connections.
func (s *Server) last() []*turn {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ending = true
	return append(slices.Clone(s.former), s.now)
}

// Accept implements net.Listener.
func (t *turn) Accept() (net.Conn, error) {
	if t.over.Load() {
		return nil, errOver
	}
	c, err := t.ln.accept(t)
	if err != nil && t.over.Load() {
		return nil, errOver
	}
	return c, err
}

// Addr implements net.Listener.
func (t *turn) Addr() net.Addr { return t.ln.Addr() }

// Close implements net.Listener. Only the last turn closes the listener.
func (t *turn) Close() error {
	if t.over.Load() {
		return nil
	}
	return t.ln.Close()
}

// wake makes a waiting Accept return; sleep lets the next one wait again.
func (l *listener) wake()  { l.setDeadline(time.Unix(1, 0)) }
func (l *listener) sleep() { l.setDeadline(time.Time{}) }

func (l *listener) setDeadline(t time.Time) {
	_ = l.SetDeadline(t) // fails only on a closed listener, and closing wakes every Accept
}
