package listen

import (
	"encoding/binary"
	"net/netip"
	"sync"
)

const (
	// prefix is the octets of a message's length in a stream (RFC 1035 4.2.2).
	prefix = 2
	// room is for the responses nearly all messages have; longer ones are allocated.
	room = 4096
	// maxMessage is the longest message in octets.
	maxMessage = 1<<16 - 1
	// keptMessage is how long the memory of a message may be to be used again.
	keptMessage = 4096
)

// buffer is memory for a response, with room for its length before it.
type buffer [prefix + room]byte

var buffers = sync.Pool{New: func() any { return new(buffer) }}

// response is where the handler puts it.
func (b *buffer) response() []byte { return b[prefix:prefix] }

// frame puts the length before a response, which stays where it is when the handler had enough room for it.
func (b *buffer) frame(resp []byte) []byte {
	f := b[:]
	if &resp[0] != &b[prefix] {
		f = make([]byte, prefix+len(resp))
		copy(f[prefix:], resp)
	}
	binary.BigEndian.PutUint16(f, uint16(len(resp))) //nolint:gosec // at most maxMessage
	return f[:prefix+len(resp)]
}

// pending counts the messages that wait, so that neither all clients together nor one of them has too many.
type pending struct {
	most, perSource int

	mu   sync.Mutex
	all  int
	from map[netip.Prefix]int
}

// add counts a message, unless there are too many.
func (p *pending) add(source netip.Prefix) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.all >= p.most || p.from[source] >= p.perSource {
		return false
	}
	p.all++
	if p.from == nil {
		p.from = make(map[netip.Prefix]int)
	}
	p.from[source]++
	return true
}

func (p *pending) done(source netip.Prefix) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.all--
	if p.from[source]--; p.from[source] == 0 {
		delete(p.from, source)
	}
}

func (p *pending) len() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.all
}

// job is a message that waits for its answer.
type job struct {
	server *Server
	msg    []byte
	out    buffer
	peer   Peer

	// Where the answer goes: either from a UDP socket, with what says from which address, or into a connection.
	packets *packets
	to      netip.AddrPort
	info    []byte
	infoBuf [infoSize]byte
	conn    *conn
}

var jobs = sync.Pool{New: func() any { return new(job) }}

// newJob copies a message. It is false when too many wait already.
func (s *Server) newJob(msg []byte, peer *Peer) (*job, bool) {
	if !s.pending.add(sourceOf(peer.AddrPort.Addr())) {
		s.figures.of[peer.Transport].overloaded.Add(1)
		return nil, false
	}
	j := jobs.Get().(*job)
	j.server, j.peer = s, *peer
	j.msg = append(j.msg[:0], msg...)
	return j, true
}

// resolve waits for the answer. The message no longer counts as pending then: that an answer cannot be sent must not keep others
// from theirs.
func (j *job) resolve() (resp []byte) {
	defer j.server.pending.done(sourceOf(j.peer.AddrPort.Addr()))
	defer func() {
		if p := recover(); p != nil {
			resp = nil
			j.server.panicked(p, &j.peer)
		}
	}()
	return j.server.handler.Resolve(j.server.ctx, j.out.response(), j.msg, &j.peer)
}

// overloaded asks for the answer to a message that cannot wait.
func (s *Server) overloaded(buf, msg []byte, peer *Peer) (resp []byte) {
	defer func() {
		if p := recover(); p != nil {
			resp = nil
			s.panicked(p, peer)
		}
	}()
	return s.handler.Overloaded(buf, msg, peer)
}

// free lets others use the job's memory.
func (j *job) free() {
	j.server, j.packets, j.conn, j.info = nil, nil, nil, nil
	if cap(j.msg) > keptMessage {
		j.msg = nil
	}
	jobs.Put(j)
}
