package harness

import (
	"crypto/tls"
	endian "encoding/binary"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// Upstream is a DNS server that queries are forwarded to, over UDP and TCP on one port. By default it answers every A query
// with 192.0.2.53.
type Upstream struct {
	tb     testing.TB
	packet net.PacketConn
	stream net.Listener
	secure net.Listener // nil if there is none
	all    sync.WaitGroup
	ended  chan struct{} // closed by Stop

	mu     sync.Mutex
	behave func(*Exchange)
	silent bool
	asked  []Asked
	conns  map[net.Conn]struct{}
	gone   bool
}

// Asked is a query received by an upstream.
type Asked struct {
	// Name is the queried name in lower case, Sent the same name as received; Type is a name; Network is "udp", "tcp" or "tls".
	Name, Sent, Type, Network string
	// ID is the message id, From the source port (UDP only).
	ID   uint16
	From int
	// Message is the complete query.
	Message *dns.Msg
}

// Exchange is a query with its return path.
type Exchange struct {
	Asked
	upstream *Upstream
	packet   net.Addr
	stream   net.Conn
}

// NewUpstream runs an upstream on loopback until the test ends.
func NewUpstream(tb testing.TB) *Upstream {
	tb.Helper()
	return NewUpstreamAt(tb, "127.0.0.1")
}

// NewUpstreamAt is like NewUpstream at another of the machine's addresses.
func NewUpstreamAt(tb testing.TB, address string) *Upstream {
	tb.Helper()
	u := &Upstream{tb: tb, behave: func(x *Exchange) { x.Reply("192.0.2.53") }, conns: make(map[net.Conn]struct{}), ended: make(chan struct{})}
	for range 20 {
		stream, err := net.Listen("tcp", net.JoinHostPort(address, "0"))
		if err != nil {
			tb.Fatalf("harness: %v", err)
		}
		packet, err := net.ListenPacket("udp", stream.Addr().String())
		if err == nil {
			u.stream, u.packet = stream, packet
			break
		}
		_ = stream.Close() // the UDP port is in use
	}
	if u.packet == nil {
		tb.Fatal("harness: no port is free for an upstream")
	}
	u.all.Go(u.packets)
	u.all.Go(func() { u.streams(u.stream, "tcp") })
	tb.Cleanup(u.Stop)
	return u
}

// TLS makes the upstream also listen for DNS over TLS, and returns the address.
func (u *Upstream) TLS(settings *tls.Config) string {
	u.tb.Helper()
	ln, err := tls.Listen("tcp", "127.0.0.1:0", settings)
	if err != nil {
		u.tb.Fatalf("harness: %v", err)
	}
	u.secure = ln
	u.all.Go(func() { u.streams(ln, "tls") })
	return ln.Addr().String()
}

// Addr returns the address of the upstream.
func (u *Upstream) Addr() string { return u.packet.LocalAddr().String() }

// Stop stops the upstream: it is then unreachable.
func (u *Upstream) Stop() {
	u.mu.Lock()
	if !u.gone {
		close(u.ended)
	}
	u.gone = true
	for c := range u.conns {
		_ = c.Close()
	}
	u.mu.Unlock()
	_ = u.packet.Close()
	_ = u.stream.Close()
	if u.secure != nil {
		_ = u.secure.Close()
	}
	u.all.Wait()
}

// Behave sets how queries are answered from now on, each in its own goroutine. Health checks are always answered, unless the
// upstream is silent.
func (u *Upstream) Behave(f func(*Exchange)) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.behave = f
}

// Silence turns silence on or off: a silent upstream answers nothing.
func (u *Upstream) Silence(on bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.silent = on
}

// Asked returns the queries so far, without health checks, restricted to the given names if there are any.
func (u *Upstream) Asked(names ...string) []Asked {
	u.mu.Lock()
	defer u.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(u.asked), func(a Asked) bool { return len(names) > 0 && !slices.Contains(names, a.Name) })
}

func (u *Upstream) packets() {
	buf := make([]byte, dns.MaxMsgSize)
	for {
		n, from, err := u.packet.ReadFrom(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue // for example because a client has closed its socket
		}
		u.take(slices.Clone(buf[:n]), &Exchange{upstream: u, packet: from, Asked: Asked{Network: "udp", From: from.(*net.UDPAddr).Port}})
	}
}

func (u *Upstream) streams(ln net.Listener, network string) {
	for {
		conn, err := ln.Accept()
		if err != nil {
			return
		}
		u.mu.Lock()
		u.conns[conn] = struct{}{}
		gone := u.gone
		u.mu.Unlock()
		if gone {
			_ = conn.Close()
			return
		}
		u.all.Go(func() {
			defer u.forget(conn)
			for {
				var size uint16
				if err := endian.Read(conn, endian.BigEndian, &size); err != nil {
					return
				}
				raw := make([]byte, size)
				if _, err := io.ReadFull(conn, raw); err != nil {
					return
				}
				u.take(raw, &Exchange{upstream: u, stream: conn, Asked: Asked{Network: network}})
			}
		})
	}
}

func (u *Upstream) forget(conn net.Conn) {
	_ = conn.Close()
	u.mu.Lock()
	defer u.mu.Unlock()
	delete(u.conns, conn)
}

func (u *Upstream) take(raw []byte, x *Exchange) {
	m := new(dns.Msg)
	if err := m.Unpack(raw); err != nil || len(m.Question) != 1 || m.Response {
		u.tb.Errorf("an upstream was sent %x: %v", raw, err)
		return
	}
	q := m.Question[0]
	x.Message, x.ID, x.Sent, x.Name, x.Type = m, m.Id, q.Name, strings.ToLower(q.Name), dns.TypeToString[q.Qtype]
	health := strings.Contains(x.Name, ".mep-loop.")
	u.mu.Lock()
	behave, silent := u.behave, u.silent
	if !health {
		u.asked = append(u.asked, x.Asked)
	}
	u.mu.Unlock()
	switch {
	case silent:
	case health:
		x.Send(new(dns.Msg).SetRcode(m, dns.RcodeNameError))
	default:
		u.all.Go(func() { behave(x) })
	}
}

// Answer returns a response with records in zone file format: owner name, TTL, type and data. The owner name @ stands for the
// queried name as received.
func (x *Exchange) Answer(records ...string) *dns.Msg {
	m := new(dns.Msg).SetReply(x.Message)
	m.RecursionAvailable, m.Compress = true, true
	m.Answer = x.Records(records...)
	return m
}

// Records parses records in the format of Answer.
func (x *Exchange) Records(records ...string) []dns.RR {
	var list []dns.RR
	for _, text := range records {
		if rest, ok := strings.CutPrefix(text, "@ "); ok {
			text = x.Sent + " " + rest
		}
		record, err := dns.NewRR(text)
		if err != nil {
			x.upstream.tb.Errorf("harness: %v", err)
			continue
		}
		list = append(list, record)
	}
	return list
}

// Reply answers A queries with addresses, with a TTL of 300 s, and other queries with no records.
func (x *Exchange) Reply(addresses ...string) {
	m := x.Answer()
	if x.Type == "A" {
		for _, a := range addresses {
			m.Answer = append(m.Answer, x.Records("@ 300 A "+a)...)
		}
	} else {
		m.Ns = x.Records(". 60 SOA a. b. 1 2 3 4 60")
	}
	x.Send(m)
}

// Send sends a response. It may be called several times.
func (x *Exchange) Send(m *dns.Msg) {
	raw, err := m.Pack()
	if err != nil {
		x.upstream.tb.Errorf("harness: %v", err)
		return
	}
	x.Raw(raw)
}

// Raw sends data that need not be a valid response.
func (x *Exchange) Raw(raw []byte) {
	if x.stream != nil {
		framed := append(endian.BigEndian.AppendUint16(nil, uint16(len(raw))), raw...)
		_, _ = x.stream.Write(framed) // the client may be gone
		return
	}
	_, _ = x.upstream.packet.WriteTo(raw, x.packet)
}

// RawFrom is like Raw over UDP, from a different port than the queried one.
func (x *Exchange) RawFrom(raw []byte) {
	other, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		return
	}
	defer other.Close()
	_, _ = other.WriteTo(raw, x.packet)
}

// Close closes the connection of the query, if there is one.
func (x *Exchange) Close() {
	if x.stream != nil {
		_ = x.stream.Close()
	}
}

// Sleep waits for d, or until the upstream is stopped.
func (x *Exchange) Sleep(d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-x.upstream.ended:
	}
}

// Await waits until c is closed or the upstream is stopped.
func (x *Exchange) Await(c <-chan struct{}) {
	select {
	case <-c:
	case <-x.upstream.ended:
	}
}
