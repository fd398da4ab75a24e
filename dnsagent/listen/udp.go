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
	// longestQuery is the longest message taken over UDP in octets; queries have less than 600.
	longestQuery = 4096
	// receiveBuffer is what is asked for to hold packets that wait, in octets.
	receiveBuffer = 4 << 20
	// readPause is waited after a read that failed, so that a lasting fault does not take a CPU.
	readPause = 10 * time.Millisecond
)

// packets is a UDP socket.
type packets struct {
	conn *net.UDPConn
	// readers is how many goroutines read it: several where it stands for several sockets.
	readers int
	// info says that packets come with the address they were sent to, which answers have to leave from.
	info bool
}

// reader reads a socket and answers what can be answered at once. Nobody else uses its fields.
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

// take answers a packet, or has it answered.
func (r *reader) take(n, infoLen, flags int, from netip.AddrPort) {
	r.counts.received.Add(1)
	switch {
	case from.Port() == 0: // an answer would go nowhere; only forged packets have it
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

// packet answers a packet that waited.
func (j *job) packet() {
	resp := j.resolve()
	j.packets.send(resp, j.info, j.to, j.server.figures.of[UDP])
	j.free()
}

// send sends an answer. Whatever the fault, it is the client that asks again.
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
