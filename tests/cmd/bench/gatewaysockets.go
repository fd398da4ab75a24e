package main

import (
	"bytes"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/openmep/mep/tests/process"
)

// sockets is the number of WebSockets held open.
const sockets = 1000

// benchGatewayWebSockets measures the memory use of idle WebSockets in the gateway and in a bare proxy.
func benchGatewayWebSockets(o *options) error {
	g, err := startGate(o, "yardstick-sockets")
	if err != nil {
		return err
	}
	defer g.close()
	if _, err := post(servicesURL(g.Process, uuid.NewString()), g.offer("bench")); err != nil {
		return err
	}
	bare, err := startBareProxy(g.service, g.authorization())
	if err != nil {
		return err
	}
	defer bare.stop()
	for _, s := range []*httpServer{g.server("the gateway", "bench"), bare} {
		each, err := s.socketBytes(g.authorization())
		if err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
		report("%s: %.1f KB of resident memory for each of %d idle WebSockets", s.name, each/1024, sockets)
	}
	return nil
}

// socketBytes opens WebSockets and returns the memory use of each. It first opens some others, to exclude one-off allocations.
func (s *httpServer) socketBytes(header string) (float64, error) {
	const early = 20
	open, err := s.openSockets(early, header)
	defer func() { closeAll(open) }()
	if err != nil {
		return 0, err
	}
	time.Sleep(settle)
	before, err := process.ResidentBytes(s.pid)
	if err != nil {
		return 0, err
	}
	more, err := s.openSockets(sockets, header)
	open = append(open, more...)
	if err != nil {
		return 0, err
	}
	time.Sleep(settle)
	after, err := process.ResidentBytes(s.pid)
	return float64(after-before) / sockets, err
}

func closeAll(conns []net.Conn) {
	for _, c := range conns {
		_ = c.Close()
	}
}

// openSockets opens WebSockets. If it fails, it also returns those already open.
func (s *httpServer) openSockets(count int, header string) (open []net.Conn, err error) {
	path := strings.Fields(string(s.requests[0]))[1]
	request := fmt.Appendf(nil, "GET %s HTTP/1.1\r\nHost: %s\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"+
		"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n%s\r\n", path, s.addr, header)
	for range count {
		conn, err := net.Dial("tcp", s.addr)
		if err != nil {
			return open, err
		}
		open = append(open, conn)
		if err := handshake(conn, request); err != nil {
			return open, err
		}
	}
	return open, nil
}

// handshake performs the opening handshake of a WebSocket on a connection.
func handshake(conn net.Conn, request []byte) error {
	if err := conn.SetDeadline(time.Now().Add(lateAnswer)); err != nil {
		return err
	}
	if _, err := conn.Write(request); err != nil {
		return err
	}
	var answer []byte
	for !bytes.Contains(answer, headerEnd) {
		var buf [4096]byte
		n, err := conn.Read(buf[:])
		if err != nil {
			return err
		}
		answer = append(answer, buf[:n]...)
	}
	// For the nonce in RFC 6455 1.3.
	if !bytes.HasPrefix(answer, []byte("HTTP/1.1 101 ")) || !bytes.Contains(answer, []byte("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")) {
		return fmt.Errorf("no WebSocket: %q", answer)
	}
	return nil
}
