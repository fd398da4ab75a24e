package main

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
)

// wire is a minimal HTTP/1.1 client: on two cores, a full client would use more processor time than the servers it measures.
type wire struct {
	addr string
	conn net.Conn
	in   *bufio.Reader
	out  []byte
}

// wires has one connection for each worker and address.
type wires struct {
	byWorker [clients]map[string]*wire
	dial     func(addr string) (net.Conn, error)
}

func newWires() *wires {
	return newWiresOver(func(addr string) (net.Conn, error) { return net.Dial("tcp", addr) })
}

// newTLSWires returns connections that trust the CAs in the file. They resume sessions.
func newTLSWires(caFile string) (*wires, error) {
	pem, err := os.ReadFile(caFile)
	if err != nil {
		return nil, err
	}
	cfg := &tls.Config{RootCAs: x509.NewCertPool(), ClientSessionCache: tls.NewLRUClientSessionCache(clients)}
	cfg.RootCAs.AppendCertsFromPEM(pem)
	return newWiresOver(func(addr string) (net.Conn, error) { return tls.Dial("tcp", addr, cfg) }), nil
}

func newWiresOver(dial func(string) (net.Conn, error)) *wires {
	w := &wires{dial: dial}
	for i := range w.byWorker {
		w.byWorker[i] = make(map[string]*wire)
	}
	return w
}

func (w *wires) close() {
	for _, m := range w.byWorker {
		for _, c := range m {
			_ = c.conn.Close()
		}
	}
}

func (w *wires) of(worker int, addr string) (*wire, error) {
	if c := w.byWorker[worker][addr]; c != nil {
		return c, nil
	}
	conn, err := w.dial(addr)
	if err != nil {
		return nil, err
	}
	c := &wire{addr: addr, conn: conn, in: bufio.NewReaderSize(conn, 64<<10)}
	w.byWorker[worker][addr] = c
	return c, nil
}

// ask sends a JSON request on behalf of a worker and expects a status.
func (w *wires) ask(worker int, addr, method, path string, body []byte, want int) error {
	c, err := w.of(worker, addr)
	if err != nil {
		return err
	}
	status, _, err := c.do(method, path, jsonHeader, body)
	if err == nil && status != want {
		err = fmt.Errorf("%s %s: status %d, want %d", method, path, status, want)
	}
	return err
}

// do sends a request and reads the complete response. It returns the status and the length of the body. header consists of
// complete lines with CRLF.
func (c *wire) do(method, path, header string, body []byte) (status, length int, err error) {
	c.out = fmt.Appendf(c.out[:0], "%s %s HTTP/1.1\r\nHost: %s\r\n%s", method, path, c.addr, header)
	if body != nil {
		c.out = fmt.Appendf(c.out, "Content-Length: %d\r\n", len(body))
	}
	c.out = append(append(c.out, "\r\n"...), body...)
	if _, err := c.conn.Write(c.out); err != nil {
		return 0, 0, err
	}
	line, err := c.in.ReadSlice('\n')
	if err != nil {
		return 0, 0, err
	}
	if len(line) < 12 {
		return 0, 0, fmt.Errorf("status line %q", line)
	}
	if status, err = strconv.Atoi(string(line[9:12])); err != nil {
		return 0, 0, err
	}
	length = -1
	for {
		line, err := c.in.ReadSlice('\n')
		if err != nil {
			return 0, 0, err
		}
		line = bytes.TrimRight(line, "\r\n")
		if len(line) == 0 {
			break
		}
		if name, v, _ := bytes.Cut(line, []byte(":")); bytes.EqualFold(name, []byte("Content-Length")) {
			if length, err = strconv.Atoi(string(bytes.TrimSpace(v))); err != nil {
				return 0, 0, err
			}
		}
	}
	switch {
	case status == 204:
		return status, 0, nil
	case length < 0:
		return 0, 0, errors.New("an answer without Content-Length")
	}
	_, err = io.CopyN(io.Discard, c.in, int64(length))
	return status, length, err
}
