// Package listen is the sockets of a DNS server: UDP, TCP (RFC 7766) and TLS (RFC 7858). Of DNS it knows the two octets before
// each message of a stream and nothing else.
package listen

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net/netip"
	"runtime"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Transport is how a message came.
type Transport uint8

// The transports.
const (
	UDP Transport = iota
	TCP
	TLS
	transports = iota
)

// String is the transport's name in metrics.
func (t Transport) String() string { return [transports]string{"udp", "tcp", "tls"}[t] }

// Peer is who sent a message.
type Peer struct {
	// AddrPort is the address the message came from; IPv4 is never mapped into IPv6, and there is no zone: prefixes contain
	// no address with one.
	AddrPort  netip.AddrPort
	Transport Transport
}

// Handler answers messages. Its methods are called from many goroutines; msg, buf and peer are theirs until they return. A panic
// is logged and counted, and its message is not answered.
type Handler interface {
	// Answer appends the response to msg to buf, which is empty but has room for most responses, and returns it; an empty one
	// is not sent. wait says that the answer is not at hand: then what it returns is dropped, and Resolve is asked. Answer does
	// not block: the messages of a socket are answered one after the other.
	Answer(buf, msg []byte, peer *Peer) (resp []byte, wait bool)
	// Resolve does what Answer does, and may take its time. It returns soon after ctx ended.
	Resolve(ctx context.Context, buf, msg []byte, peer *Peer) []byte
	// Overloaded is Resolve when too many messages wait already. It does not block.
	Overloaded(buf, msg []byte, peer *Peer) []byte
}

// Config is the settings of a server.
type Config struct {
	// Addr is the host:port of UDP and TCP. With port 0 both have the same free one. An empty host is all addresses of
	// both families, 0.0.0.0 all of IPv4. Empty means neither UDP nor TCP.
	Addr string
	// TLSAddr is the host:port of DNS over TLS; empty means none.
	TLSAddr string
	// TLS is the configuration of DNS over TLS. Its NextProtos, and those of what its GetConfigForClient returns, become "dot".
	TLS *tls.Config
	// Sockets is how many UDP sockets share the address; default one for each CPU, 2 at least and 16 at most.
	Sockets int
	// Connections is how many connections, TCP and TLS together, there are at a time; over it the one longest idle is closed,
	// or else the new one. Default 2048.
	Connections int
	// ConnectionsPerAddr is the same for each IPv4 address and IPv6 /64. Default 64.
	ConnectionsPerAddr int
	// Idle is how long a connection may be without a message; default 10 s.
	Idle time.Duration
	// ReadTimeout is how long a client may take to send the whole of a message once it began, to take an answer, and for the
	// TLS handshake; default 3 s.
	ReadTimeout time.Duration
	// Pending is how many messages of all transports are in Resolve at a time; default 4096.
	Pending int
	// PendingPerAddr is the same for each IPv4 address and IPv6 /64; default a quarter of Pending,
	// but no less than 16.
	PendingPerAddr int
	// PerConnection is how many messages of one connection are in Resolve or have their answers sent at a time; no more are read
	// while there are as many. Default 64.
	PerConnection int
	// LameDuck is how long Run goes on answering after its context ended; nil means not at all.
	LameDuck func() time.Duration
	// Log takes what the operator should know.
	Log *slog.Logger
	// Registerer takes the metrics.
	Registerer prometheus.Registerer
}

func (c Config) withDefaults() Config {
	orElse(&c.Sockets, min(max(runtime.GOMAXPROCS(0), 2), 16))
	orElse(&c.Connections, 2048)
	orElse(&c.ConnectionsPerAddr, 64)
	orElse(&c.Idle, 10*time.Second)
	orElse(&c.ReadTimeout, 3*time.Second)
	orElse(&c.Pending, 4096)
	orElse(&c.PendingPerAddr, min(c.Pending, max(16, c.Pending/4)))
	orElse(&c.PerConnection, 64)
	if c.LameDuck == nil {
		c.LameDuck = func() time.Duration { return 0 }
	}
	return c
}

func orElse[N int | time.Duration](setting *N, value N) {
	if *setting <= 0 {
		*setting = value
	}
}
