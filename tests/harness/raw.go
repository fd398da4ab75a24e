package harness

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Dial opens a connection to a listener, for sending requests that no client would send. It is closed when the test ends.
func (p *Process) Dial(tb testing.TB, listener string) net.Conn {
	tb.Helper()
	conn, err := p.dial(listener)
	if err != nil {
		tb.Fatalf("harness: %v", err)
	}
	tb.Cleanup(func() { _ = conn.Close() })
	return conn
}

func (p *Process) dial(listener string) (net.Conn, error) {
	dialer := &net.Dialer{Timeout: Patience}
	if !strings.HasPrefix(p.URL(listener), "https:") {
		return dialer.Dial("tcp", p.Addr(listener))
	}
	settings, err := p.TLS()
	if err != nil {
		return nil, err
	}
	return tls.DialWithDialer(dialer, "tcp", p.Addr(listener), settings)
}

// Exchange sends bytes over a new connection and reads one response; ok is false when the connection was closed without one.
func (p *Process) Exchange(tb testing.TB, listener, method string, request []byte) (a *Answer, ok bool) {
	tb.Helper()
	conn, err := p.dial(listener)
	if errors.Is(err, syscall.ECONNRESET) {
		return nil, false // the connection may be closed before the dialler sees it open
	}
	if err != nil {
		tb.Fatalf("harness: %v", err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(Patience)); err != nil {
		tb.Fatalf("harness: %v", err)
	}
	// The server may respond and close before it has read everything.
	_, _ = io.Copy(conn, bytes.NewReader(request))
	resp, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: method})
	if err != nil {
		return nil, false
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(resp.Body) // a partial body is used as it is
	return &Answer{Status: resp.StatusCode, Header: resp.Header, Body: body, tb: tb}, true
}
