package listen

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// longestQuery is the longest message accepted over UDP in octets; queries have fewer than 600.
	longestQuery = 4096
	// receiveBuffer is the requested size of the receive buffer of a socket in octets.
	receiveBuffer = 4 << 20
	// readPause is the pause after a failed read, so that a lasting fault does not take up a CPU.
	readPause = 10 * time.Millisecond
)

// packets is a UDP socket.
type packets struct {
	conn *net.UDPConn
	// readers is the number of goroutines that read the socket: several if it stands in for several sockets.
	readers int
	// info reports whether packets come with the address they were sent to, which responses have to be sent from.
	info bool
}

// reader reads a socket and sends the answers that are at hand. Only one goroutine uses its fields.
type reader struct {
	server  *Server
	packets *packets
	counts  *counts
	peer    Peer
	in      [longestQuery]byte
	info    [infoSize]byte
	out     buffer
}

func newReader(s *Server, p *packets) *reader {
	return &reader{server: s, packets: p, counts: s.figures.forReader(), peer: Peer{Transport: UDP}}
}

func (r *reader) run() {
	for {
		n, infoLen, flags, from, err := r.packets.conn.ReadMsgUDPAddrPort(r.in[:], r.info[:])
		switch {
		case err == nil:
			r.take(n, infoLen, flags, from)
		case r.server.stopping.Load() || errors.Is(err, net.ErrClosed):
			return
		case !errors.Is(err, os.ErrDeadlineExceeded):
			r.counts.drop(dropRead)
			time.Sleep(readPause)
		}
	}
}

// take answers a packet, or starts a goroutine that does.
func (r *reader) take(n, infoLen, flags int, from netip.AddrPort) {
	r.counts.received.Add(1)
	switch {
	case from.Port() == 0: // a response would go nowhere; only forged packets have this port
		r.counts.drop(dropPortZero)
		return
	case flags&unix.MSG_TRUNC != 0:
		r.counts.drop(dropTooLong)
		return
	}
	var info []byte
	if r.packets.info {
		info = source(r.info[:infoLen])
	}
	r.peer.AddrPort = plain(from)
	msg := r.in[:n]
	resp, wait := r.server.answer(r.out.response(), msg, &r.peer)
	if wait {
		j, ok := r.server.newJob(msg, &r.peer)
		if ok {
			j.packets, j.to, j.info = r.packets, from, append(j.infoBuf[:0], info...)
			r.server.all.Go(j.packet)
			return
		}
		resp = r.server.overloaded(r.out.response(), msg, &r.peer)
	}
	r.packets.send(resp, info, from, r.counts)
}

// packet answers a packet that has to wait for its answer.
func (j *job) packet() {
	resp := j.resolve()
	j.packets.send(resp, j.info, j.to, j.server.figures.of[UDP])
	j.free()
}

// send sends a response. After an error it is up to the client to ask again.
func (p *packets) send(resp, info []byte, to netip.AddrPort, c *counts) {
	if len(resp) == 0 {
		c.drop(dropSilent)
		return
	}
	if _, _, err := p.conn.WriteMsgUDPAddrPort(resp, info, to); err != nil {
		c.drop(dropWrite)
		return
	}
	c.sent.Add(1)
}
