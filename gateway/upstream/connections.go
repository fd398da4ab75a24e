package upstream

import (
	"net"
	"net/netip"
	"sync"
	"sync/atomic"

	"github.com/openmep/mep/kit/netguard"
)

// connections tracks the open connections to targets, with the addresses names were resolved to. Without it, a connection made
// while its address was allowed would stay open for as long as it is busy, and an HTTP/2 connection indefinitely.
type connections struct {
	// judged is the policy that all of them were last checked against.
	judged atomic.Pointer[netguard.Policy]

	mu   sync.Mutex
	open map[*connection]struct{}
}

// connection is a connection that the guard allowed. It embeds a *net.TCPConn because transports look for its methods.
type connection struct {
	*net.TCPConn
	remote netip.AddrPort
	among  *connections
}

// Close implements net.Conn.
func (c *connection) Close() error {
	c.among.mu.Lock()
	delete(c.among.open, c)
	c.among.mu.Unlock()
	return c.TCPConn.Close()
}

// add registers a new connection and checks its address once more, because the policy may have changed since it was dialled.
func (x *connections) add(conn *net.TCPConn, guard func() *netguard.Policy) (*connection, error) {
	c := &connection{TCPConn: conn, among: x}
	if a, ok := conn.RemoteAddr().(*net.TCPAddr); ok {
		c.remote = a.AddrPort()
	}
	x.mu.Lock()
	if x.open == nil {
		x.open = make(map[*connection]struct{})
	}
	x.open[c] = struct{}{}
	x.mu.Unlock()
	if err := refusal(guard(), c.remote); err != nil {
		_ = c.Close()
		return nil, err
	}
	return c, nil
}

// obey checks the open connections against the policy, unless it is the one they were last checked against.
func (x *connections) obey(p *netguard.Policy) {
	if x.judged.Load() != p {
		x.judge(p)
	}
}

// judge closes the connections that the policy refuses, which breaks off the calls in flight on them.
func (x *connections) judge(p *netguard.Policy) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for c := range x.open {
		if refusal(p, c.remote) != nil {
			delete(x.open, c)
			_ = c.TCPConn.Close()
		}
	}
	x.judged.Store(p)
}

// refusal returns a *netguard.RefusedError if a policy, which may be nil, refuses an address.
func refusal(p *netguard.Policy, a netip.AddrPort) error {
	if p == nil {
		return nil
	}
	if err := p.CheckAddr(a); err != nil {
		return &netguard.RefusedError{Addr: a.String(), Reason: err}
	}
	return nil
}
