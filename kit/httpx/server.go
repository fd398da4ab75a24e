// Package httpx is the HTTP edge shared by all daemons: servers with bounds on everything, the middleware in its order, and
// the one place where errors become responses.
package httpx

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"time"

	"golang.org/x/net/netutil"
)

// Limits bounds what a client can make a server hold.
type Limits struct {
	// Body is the largest request body in bytes; default 1 MiB.
	Body int64
	// URI is the longest request target in bytes; default 8 KiB.
	URI int
	// Header is the largest request header in bytes, request line included; default 32 KiB.
	Header int
	// Connections is how many connections are served at a time; more wait to be accepted. Default 10,000.
	Connections int
}

// WithDefaults returns l with defaults for what is not positive.
func (l Limits) WithDefaults() Limits {
	if l.Body <= 0 {
		l.Body = 1 << 20
	}
	if l.URI <= 0 {
		l.URI = 8 << 10
	}
	if l.Header <= 0 {
		l.Header = 32 << 10
	}
	if l.Connections <= 0 {
		l.Connections = 10000
	}
	return l
}

// Server is one listener.
type Server struct {
	name string
	ln   net.Listener
	http *http.Server
	tls  bool
}

// Listen binds addr and prepares to serve handler on it; nothing is served before Run. A nil tlsConfig means plain HTTP.
func Listen(name, addr string, handler http.Handler, limits Limits, tlsConfig *tls.Config, log *slog.Logger) (*Server, error) {
	limits = limits.WithDefaults()
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("listener %s: %w", name, err)
	}
	s := &Server{name: name, ln: ln, tls: tlsConfig != nil}
	s.http = &http.Server{
		Handler:   plusIsPlus(handler),
		TLSConfig: tlsConfig,
		// Equal, so that net/http sets one deadline for both.
		ReadHeaderTimeout: 15 * time.Second,
		ReadTimeout:       15 * time.Second,
		WriteTimeout:      60 * time.Second,
		IdleTimeout:       2 * time.Minute,
		// A header over the limit but within this size is read, so that it can be answered like every other error.
		MaxHeaderBytes: limits.Header + 256<<10,
		ErrorLog:       slog.NewLogLogger(log.With("listener", name).Handler(), slog.LevelDebug),
	}
	s.ln = netutil.LimitListener(ln, limits.Connections)
	return s, nil
}

// plusIsPlus preserves a "+" in a path: gin unescapes path parameters as if they were in a query, where it is a space.
func plusIsPlus(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.RawPath, "+") {
			r.URL.RawPath = strings.ReplaceAll(r.URL.RawPath, "+", "%2B")
		}
		next.ServeHTTP(w, r)
	})
}

// Name returns the name of the listener.
func (s *Server) Name() string { return s.name }

// Addr returns the address bound, with the real port.
func (s *Server) Addr() *net.TCPAddr { return s.ln.Addr().(*net.TCPAddr) }

// URL returns the base URL of the listener, as ListenerURL does.
func (s *Server) URL() string { return ListenerURL(s.Addr(), s.tls) }

// Run serves until ctx ends, then lets requests in flight finish for at most the time that drain returns then.
func (s *Server) Run(ctx context.Context, drain func() time.Duration) error {
	failed := make(chan error, 1)
	go func() {
		if s.tls {
			failed <- s.http.ServeTLS(s.ln, "", "")
			return
		}
		failed <- s.http.Serve(s.ln)
	}()
	select {
	case err := <-failed:
		return fmt.Errorf("listener %s: %w", s.name, err)
	case <-ctx.Done():
	}
	dctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), drain())
	defer cancel()
	if err := s.http.Shutdown(dctx); err != nil {
		_ = s.http.Close()
	}
	if err := <-failed; !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("listener %s: %w", s.name, err)
	}
	return nil
}

// Close releases the address of a server that was never run.
func (s *Server) Close() error { return s.ln.Close() }

// Handler returns what the server serves.
func (s *Server) Handler() http.Handler { return s.http.Handler }
