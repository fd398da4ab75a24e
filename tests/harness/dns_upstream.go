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

// Upstream is a DNS server that questions are forwarded to, over UDP and TCP at one port. It answers every question with 192.0.2.53
// unless it was told otherwise.
type Upstream struct {
	tb     testing.TB
	packet net.PacketConn
	stream net.Listener
	secure net.Listener // nil when there is none
	all    sync.WaitGroup
	ended  chan struct{} // closed by Stop

	mu     sync.Mutex
	behave func(*Exchange)
	silent bool
	asked  []Asked
	conns  map[net.Conn]struct{}
	gone   bool
}

// Asked is a question an upstream was asked.
type Asked struct {
	// Name is in lower case, as it came; Type is by name; Network is "udp", "tcp" or "tls".
	Name, Sent, Type, Network string
	// ID is that of the message, From its source port.
	ID   uint16
	From int
	// Message is the whole query.
	Message *dns.Msg
}

// Exchange is a question and the way back.
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

// NewUpstreamAt is NewUpstream at another of the machine's addresses.
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
		_ = stream.Close() // the port is somebody else's over UDP
	}
	if u.packet == nil {
		tb.Fatal("harness: no port is free for an upstream")
	}
	u.all.Go(u.packets)
	u.all.Go(func() { u.streams(u.stream, "tcp") })
	tb.Cleanup(u.Stop)
	return u
}

// TLS makes the upstream listen for DNS over TLS as well, and returns the address.
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

// Addr is its address.
func (u *Upstream) Addr() string { return u.packet.LocalAddr().String() }

// Stop ends it: questions come back as unreachable.
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

// Behave says how questions are answered from now on, each in a goroutine of its own. Questions for its health are always answered,
// unless it is silent.
func (u *Upstream) Behave(f func(*Exchange)) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.behave = f
}

// Silence makes it answer nothing at all, or again.
func (u *Upstream) Silence(on bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.silent = on
}

// Asked are the questions so far, without those for its health; with names only those for them.
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
			continue // as of a client whose socket is closed already
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

// Answer makes a response with records, as zone files have them: owner, TTL, type and data. An owner of @ is the name that was
// asked for, as it was sent.
func (x *Exchange) Answer(records ...string) *dns.Msg {
	m := new(dns.Msg).SetReply(x.Message)
	m.RecursionAvailable, m.Compress = true, true
	m.Answer = x.Records(records...)
	return m
}

// Records makes records for a section.
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

// Reply answers A questions with addresses, for 300 s, and others with nothing.
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

// Raw sends what may be no response.
func (x *Exchange) Raw(raw []byte) {
	if x.stream != nil {
		framed := append(endian.BigEndian.AppendUint16(nil, uint16(len(raw))), raw...)
		_, _ = x.stream.Write(framed) // who asked may be gone
		return
	}
	_, _ = x.upstream.packet.WriteTo(raw, x.packet)
}

// RawFrom sends it from another port than that which was asked.
func (x *Exchange) RawFrom(raw []byte) {
	other, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		return
	}
	defer other.Close()
	_, _ = other.WriteTo(raw, x.packet)
}

// Close closes the connection of the question, if it has one.
func (x *Exchange) Close() {
	if x.stream != nil {
		_ = x.stream.Close()
	}
}

// Sleep waits, and no longer than the upstream is there.
func (x *Exchange) Sleep(d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-x.upstream.ended:
	}
}

// Await is Sleep until a channel is closed.
func (x *Exchange) Await(c <-chan struct{}) {
	select {
	case <-c:
	case <-x.upstream.ended:
	}
}
