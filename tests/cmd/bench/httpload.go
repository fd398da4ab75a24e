package main

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// httpServer is an HTTP/1.1 server process.
type httpServer struct {
	figures
	latencies
	name, addr string
	// requests are sent in turn; size is the length of every response body.
	requests [][]byte
	size     int
	stop     func()
}

// get returns an HTTP/1.1 GET request. header consists of complete lines with CRLF.
func get(addr, path, header string) []byte {
	return fmt.Appendf(nil, "GET %s HTTP/1.1\r\nHost: %s\r\n%s\r\n", path, addr, header)
}

// line is a connection with at most one request in flight.
type line struct {
	fd   int
	busy bool
	due  time.Time // when the request was to be sent
	in   [16 << 10]byte
	n    int // number of response bytes so far
}

// dialLine connects to an IPv4 address.
func dialLine(addr string) (*line, error) {
	to, err := net.ResolveTCPAddr("tcp4", addr)
	if err != nil {
		return nil, err
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	err = errors.Join(
		unix.Connect(fd, &unix.SockaddrInet4{Port: to.Port, Addr: to.AddrPort().Addr().As4()}),
		unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1),
		unix.SetNonblock(fd, true),
	)
	if err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	return &line{fd: fd}, nil
}

func (l *line) send(request []byte, due time.Time) error {
	l.busy, l.due, l.n = true, due, 0
	n, err := unix.Write(l.fd, request)
	if err == nil && n < len(request) {
		err = errors.New("the socket took a part of the request only")
	}
	return err
}

// hear reads the available data. done reports that the response is complete.
func (l *line) hear() (status, length int, done bool, err error) {
	n, err := unix.Read(l.fd, l.in[l.n:])
	switch {
	case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EINTR):
		return 0, 0, false, nil
	case err != nil:
		return 0, 0, false, err
	case n == 0:
		return 0, 0, false, fmt.Errorf("the connection was closed after %q", l.in[:min(l.n, 200)])
	}
	l.n += n
	status, length, done, err = parseAnswer(l.in[:l.n])
	if err == nil && !done && l.n == len(l.in) {
		err = errors.New("the answer is too long")
	}
	l.busy = !done
	return status, length, done, err
}

var (
	headerEnd     = []byte("\r\n\r\n")
	contentLength = []byte("content-length:")
)

// parseAnswer parses a possibly incomplete response whose header has the length of its body.
func parseAnswer(in []byte) (status, length int, done bool, err error) {
	end := bytes.Index(in, headerEnd)
	if end < 0 {
		return 0, 0, false, nil
	}
	if end < len("HTTP/1.1 200") {
		return 0, 0, false, fmt.Errorf("the answer begins with %q", in[:end])
	}
	if status, err = strconv.Atoi(string(in[9:12])); err != nil {
		return 0, 0, false, err
	}
	length = -1
	for rest := in[:end]; length < 0; {
		var field []byte
		var more bool
		field, rest, more = bytes.Cut(rest, headerEnd[:2])
		if len(field) > len(contentLength) && bytes.EqualFold(field[:len(contentLength)], contentLength) {
			if length, err = strconv.Atoi(string(bytes.TrimSpace(field[len(contentLength):]))); err != nil {
				return 0, 0, false, err
			}
		}
		if !more {
			break
		}
	}
	if length < 0 {
		return 0, 0, false, fmt.Errorf("an answer without Content-Length: %q", in[:end])
	}
	body := len(in) - end - len(headerEnd)
	if body > length {
		return 0, 0, false, fmt.Errorf("the answer has %d bytes more than it says", body-length)
	}
	return status, length, body == length, nil
}

// exchange is a set of connections to a server, served by one thread with as few system calls as possible, which on two cores
// leaves most of the processor to the servers.
type exchange struct {
	server *httpServer
	epoll  int
	lines  []*line
	events [clients]unix.EpollEvent
	place  int // index into the requests
	took   []time.Duration
	count  int
}

// newExchange connects to a server.
func newExchange(s *httpServer) (*exchange, error) {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, err
	}
	x := &exchange{server: s, epoll: epoll}
	for i := range clients {
		l, err := dialLine(s.addr)
		if err == nil {
			x.lines = append(x.lines, l)
			err = unix.EpollCtl(epoll, unix.EPOLL_CTL_ADD, l.fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(i)})
		}
		if err != nil {
			x.close()
			return nil, fmt.Errorf("%s: %w", s.name, err)
		}
	}
	return x, nil
}

func (x *exchange) close() {
	for _, l := range x.lines {
		_ = unix.Close(l.fd)
	}
	_ = unix.Close(x.epoll)
}

// ask sends the next request, which was due at the given time.
func (x *exchange) ask(l *line, due time.Time) error {
	request := x.server.requests[x.place%len(x.server.requests)]
	x.place++
	return l.send(request, due)
}

// listen receives responses for up to within, or only those already there, and calls heard for each.
func (x *exchange) listen(within time.Duration, heard func(*line) error) (n int, err error) {
	ready, err := x.poll()
	if err == nil && ready == 0 && within > 0 {
		timeout := unix.NsecToTimespec(int64(within))
		fds := []unix.PollFd{{Fd: int32(x.epoll), Events: unix.POLLIN}} // ppoll has nanosecond resolution
		if _, err := unix.Ppoll(fds, &timeout, nil); err != nil && !errors.Is(err, unix.EINTR) {
			return 0, err
		}
		ready, err = x.poll()
	}
	if err != nil {
		return 0, err
	}
	for _, e := range x.events[:ready] {
		l := x.lines[e.Fd]
		status, length, done, err := l.hear()
		if err == nil && done && (status != 200 || length != x.server.size) {
			err = fmt.Errorf("status %d with %d bytes, want 200 with %d: %q", status, length, x.server.size, l.in[:min(l.n, 600)])
		}
		if err != nil {
			return n, fmt.Errorf("%s: %w", x.server.name, err)
		}
		if !done {
			continue
		}
		n++
		x.count++
		if err := heard(l); err != nil {
			return n, err
		}
	}
	return n, nil
}

// poll returns the number of readable connections.
func (x *exchange) poll() (int, error) {
	for {
		n, err := unix.EpollWait(x.epoll, x.events[:], 0)
		if !errors.Is(err, unix.EINTR) {
			return n, err
		}
	}
}

// lateAnswer is how long to wait for a response.
const lateAnswer = 10 * time.Second

// finish waits for outstanding responses.
func (x *exchange) finish(heard func(*line) error) error {
	end := time.Now().Add(lateAnswer)
	for _, l := range x.lines {
		for l.busy {
			if _, err := x.listen(time.Second, heard); err != nil {
				return err
			}
			if time.Now().After(end) {
				return fmt.Errorf("%s: no answer within %s", x.server.name, lateAnswer)
			}
		}
	}
	return nil
}

// flood sends requests on all connections for d, as fast as responses arrive. It returns the number of responses, in total and
// per second.
func (s *httpServer) flood(d time.Duration) (count int, rate float64, err error) {
	x, err := newExchange(s)
	if err != nil {
		return 0, 0, err
	}
	defer x.close()
	start := time.Now()
	for _, l := range x.lines {
		if err := x.ask(l, start); err != nil {
			return 0, 0, err
		}
	}
	again := func(l *line) error { return x.ask(l, start) }
	for time.Since(start) < d {
		before := time.Now()
		n, err := x.listen(lateAnswer, again)
		if err == nil && n == 0 && time.Since(before) >= lateAnswer {
			err = fmt.Errorf("%s: no answer within %s", s.name, lateAnswer)
		}
		if err != nil {
			return 0, 0, err
		}
	}
	count, rate = x.count, float64(x.count)/time.Since(start).Seconds()
	return count, rate, x.finish(func(*line) error { return nil })
}

// pace sends a fixed number of requests per second for d, regardless of responses, and records the response times. Requests
// that were due while all connections were busy are timed from when they were due.
func (s *httpServer) pace(perSecond float64, d time.Duration) error {
	x, err := newExchange(s)
	if err != nil {
		return err
	}
	defer x.close()
	idle := append([]*line(nil), x.lines...)
	var late []time.Time // requests waiting for a connection
	heard := func(l *line) error {
		x.took = append(x.took, time.Since(l.due))
		if len(late) > 0 {
			due := late[0]
			late = late[1:]
			return x.ask(l, due)
		}
		idle = append(idle, l)
		return nil
	}
	start := time.Now()
	due := func(n int) time.Time { return start.Add(time.Duration(float64(n) / perSecond * float64(time.Second))) }
	for asked := 0; due(asked).Sub(start) < d; {
		for now := time.Now(); !due(asked).After(now); asked++ {
			if len(idle) == 0 {
				late = append(late, now)
				continue
			}
			l := idle[len(idle)-1]
			idle = idle[:len(idle)-1]
			if err := x.ask(l, time.Now()); err != nil {
				return err
			}
		}
		if _, err := x.listen(time.Until(due(asked)), heard); err != nil {
			return err
		}
	}
	if err := x.finish(heard); err != nil {
		return err
	}
	s.add(x.took, float64(x.count)/d.Seconds())
	return nil
}

// alternateHTTP floods the servers in turn.
func alternateHTTP(o *options, servers ...*httpServer) error {
	for range o.rounds {
		for _, s := range servers {
			if err := s.takeOf(func() (int, float64, error) { return s.flood(o.round) }); err != nil {
				return err
			}
		}
	}
	return nil
}
