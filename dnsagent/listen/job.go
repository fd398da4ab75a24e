package listen

import (
	"encoding/binary"
	"net/netip"
	"sync"
)

const (
	// prefix is the size of the length before a message in a stream in octets (RFC 1035 4.2.2).
	prefix = 2
	// room is the size in octets that nearly all responses fit in; longer ones are allocated.
	room = 4096
	// maxMessage is the maximum length of a message in octets.
	maxMessage = 1<<16 - 1
	// keptMessage is the size of the largest message buffer that is reused, in octets.
	keptMessage = 4096
)

// buffer is memory for a response, preceded by room for its length.
type buffer [prefix + room]byte

var buffers = sync.Pool{New: func() any { return new(buffer) }}

// response returns the empty slice that the handler appends the response to.
func (b *buffer) response() []byte { return b[prefix:prefix] }

// frame returns a response preceded by its length, without copying it if the handler put it into b.
func (b *buffer) frame(resp []byte) []byte {
	f := b[:]
	if &resp[0] != &b[prefix] {
		f = make([]byte, prefix+len(resp))
		copy(f[prefix:], resp)
	}
	binary.BigEndian.PutUint16(f, uint16(len(resp))) //nolint:gosec // at most maxMessage
	return f[:prefix+len(resp)]
}

// pending counts the messages that wait, and limits them in total and for each client.
type pending struct {
	most, perSource int

	mu   sync.Mutex
	all  int
	from map[netip.Prefix]int
}

// add counts a message; it returns false if there are too many.
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

	// Where the response goes: out of a UDP socket, with info for the source address, or into a connection.
	packets *packets
	to      netip.AddrPort
	info    []byte
	infoBuf [infoSize]byte
	conn    *conn
}

var jobs = sync.Pool{New: func() any { return new(job) }}

// newJob returns a job with a copy of the message, or false if too many messages wait already.
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

// resolve waits for the answer. The message then no longer counts as pending: an unsent response must not hold up
// others.
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

// overloaded asks the handler for the response to a message that cannot wait.
func (s *Server) overloaded(buf, msg []byte, peer *Peer) (resp []byte) {
	defer func() {
		if p := recover(); p != nil {
			resp = nil
			s.panicked(p, peer)
		}
	}()
	return s.handler.Overloaded(buf, msg, peer)
}

// free returns the job to the pool.
func (j *job) free() {
	j.server, j.packets, j.conn, j.info = nil, nil, nil, nil
	if cap(j.msg) > keptMessage {
		j.msg = nil
	}
	jobs.Put(j)
}
