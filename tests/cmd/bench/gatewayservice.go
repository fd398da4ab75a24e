package main

import (
	"bytes"
	"crypto/sha1" // required by RFC 6455; protects nothing there
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"time"

	"golang.org/x/sys/unix"
)

// answerSize is the length of every response body of the service behind a gateway.
const answerSize = 2 << 10

// yardstickService is the service behind a gateway: it answers every GET with the same bytes, on one thread and with as few
// system calls as possible.
func yardstickService() error {
	listening, addr, err := listenRaw()
	if err != nil {
		return err
	}
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return err
	}
	watch := func(fd int) error {
		return unix.EpollCtl(epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)})
	}
	if err := watch(listening); err != nil {
		return err
	}
	fmt.Println(addr)
	answer := fmt.Appendf(nil, "HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: %d\r\n\r\n%s", answerSize,
		bytes.Repeat([]byte("x"), answerSize))
	var events [256]unix.EpollEvent
	asked := make(map[int][]byte) // incomplete requests
	for {
		n, err := unix.EpollWait(epoll, events[:], -1)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return err
		}
		for _, e := range events[:max(0, n)] {
			fd := int(e.Fd)
			if fd != listening {
				if err := answerAll(fd, asked, answer); err != nil {
					delete(asked, fd)
					_ = unix.Close(fd)
				}
				continue
			}
			if fd, _, err = unix.Accept4(listening, unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK); err == nil {
				err = errors.Join(unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1), watch(fd))
			}
			if err != nil {
				return err
			}
		}
	}
}

// listenRaw listens on a free port of loopback.
func listenRaw() (fd int, addr string, err error) {
	if fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err != nil {
		return 0, "", err
	}
	err = errors.Join(unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}), unix.Listen(fd, 1024))
	if err != nil {
		return 0, "", err
	}
	own, err := unix.Getsockname(fd)
	if err != nil {
		return 0, "", err
	}
	return fd, fmt.Sprintf("127.0.0.1:%d", own.(*unix.SockaddrInet4).Port), nil
}

var errEnded = errors.New("the connection ended")

// answerAll answers the requests received on a connection.
func answerAll(fd int, asked map[int][]byte, answer []byte) error {
	var buf [16 << 10]byte
	n, err := unix.Read(fd, buf[:])
	if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR) {
		return nil
	}
	if err != nil || n == 0 {
		return errEnded
	}
	got := buf[:n]
	if rest := asked[fd]; len(rest) > 0 {
		got = append(rest, got...)
	}
	for {
		_, rest, whole := bytes.Cut(got, headerEnd)
		if !whole {
			break
		}
		got = rest
		if written, err := unix.Write(fd, answer); err != nil || written < len(answer) {
			return errEnded
		}
	}
	asked[fd] = append(asked[fd][:0], got...)
	return nil
}

// yardstickSockets is a service that accepts WebSockets (RFC 6455) and leaves them idle.
func yardstickSockets() error {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println(ln.Addr())
	return http.Serve(ln, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer conn.Close()
		sum := sha1.Sum([]byte(r.Header.Get("Sec-Websocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
		_, err = fmt.Fprintf(conn, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\n",
			base64.StdEncoding.EncodeToString(sum[:]))
		for err == nil { // until the peer closes it
			_, err = conn.Read(make([]byte, 16))
		}
	}))
}

// yardstickProxy is a bare httputil.ReverseProxy to an address, with the gateway's transport settings.
func yardstickProxy(to string) error {
	target := &url.URL{Scheme: "http", Host: to}
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(target) },
		Transport: &http.Transport{
			MaxIdleConns: 16384, MaxIdleConnsPerHost: 256, IdleConnTimeout: 90 * time.Second, ResponseHeaderTimeout: time.Minute,
			ExpectContinueTimeout: time.Second, MaxResponseHeaderBytes: 256 << 10, DisableCompression: true,
		},
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println(ln.Addr())
	return http.Serve(ln, proxy)
}
