// Package listen implements the sockets of a DNS server: UDP, TCP (RFC 7766) and TLS (RFC 7858). All it knows of DNS is the
// two-octet length before each message of a stream.
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

// Transport is the transport by which a message arrived.
type Transport uint8

// The transports.
const (
	UDP Transport = iota
	TCP
	TLS
	transports = iota
)

// String returns the name of the transport in metrics.
func (t Transport) String() string { return [transports]string{"udp", "tcp", "tls"}[t] }

// Peer is the sender of a message.
type Peer struct {
	// AddrPort is the source address. It is never IPv4-mapped, and has no zone: prefixes contain no address with one.
	AddrPort  netip.AddrPort
	Transport Transport
}

// Handler answers messages. Its methods are called concurrently, and must not use msg, buf or peer after they return. A panic is
// logged and counted, and its message is not answered.
type Handler interface {
	// Answer appends the response to msg to buf, which is empty but has room for most responses, and returns it; an empty one is
	// not sent. wait reports that the answer is not at hand: the response is then discarded, and Resolve is called. Answer must
	// not block: the messages of a socket are answered one after the other.
	Answer(buf, msg []byte, peer *Peer) (resp []byte, wait bool)
	// Resolve does what Answer does, but may block. It returns soon after ctx is done.
	Resolve(ctx context.Context, buf, msg []byte, peer *Peer) []byte
	// Overloaded is called instead of Resolve when too many messages wait already. It must not block.
	Overloaded(buf, msg []byte, peer *Peer) []byte
}

// Config holds the settings of a server.
type Config struct {
	// Addr is the host:port of UDP and TCP. With port 0 both use the same free one. An empty host means all addresses of both
	// families, 0.0.0.0 all of IPv4. An empty Addr means neither UDP nor TCP.
	Addr string
	// TLSAddr is the host:port of DNS over TLS; empty means none.
	TLSAddr string
	// TLS is the configuration of DNS over TLS. The server sets NextProtos to "dot" in copies of it and of what its
	// GetConfigForClient returns.
	TLS *tls.Config
	// Sockets is the number of UDP sockets that share the address; default one per CPU, at least 2 and at most 16.
	Sockets int
	// Connections is the maximum number of connections, TCP and TLS together. Beyond it the longest idle one is closed, or, if
	// none is idle, the new one. Default 2048.
	Connections int
	// ConnectionsPerAddr is the same limit for each IPv4 address and IPv6 /64. Default 64.
	ConnectionsPerAddr int
	// Idle is how long a connection may go without a message; default 10 s.
	Idle time.Duration
	// ReadTimeout is how long a client may take to send a message once it has begun, to accept a response, and for the TLS
	// handshake; default 3 s.
	ReadTimeout time.Duration
	// Pending is the maximum number of messages in Resolve, of all transports; default 4096.
	Pending int
	// PendingPerAddr is the same limit for each IPv4 address and IPv6 /64; default Pending/4, at least 16, at most Pending.
	PendingPerAddr int
	// PerConnection is the maximum number of messages of one connection that are in Resolve or whose response from it is being
	// sent. At the limit, reading stops at the next message that needs Resolve. Default 64.
	PerConnection int
	// LameDuck returns how long Run goes on answering after its context is done; nil means not at all.
	LameDuck func() time.Duration
	// Log receives what the operator should know.
	Log *slog.Logger
	// Registerer registers the metrics.
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
