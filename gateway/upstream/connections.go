package upstream

import (
	"net"
	"net/netip"
	"sync"
	"sync/atomic"

	"github.com/openmep/mep/kit/netguard"
)

// connections knows the open connections to targets, those of names with the address they were resolved to. Without it a connection
// that was made while it was allowed would go on for as long as it is busy, and one of HTTP/2 for ever.
type connections struct {
	// judged is the policy by which all of them are allowed.
	judged atomic.Pointer[netguard.Policy]

	mu   sync.Mutex
	open map[*connection]struct{}
}

// connection is one that the guard let through. It has all methods of a *net.TCPConn, for transports look for them.
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

// add takes a new connection in. It is judged once more, because the policy may have changed since it was dialled.
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

// obey sees to it that the open connections are judged by the policy, when they were judged by another one last.
func (x *connections) obey(p *netguard.Policy) {
	if x.judged.Load() != p {
		x.judge(p)
	}
}

// judge closes the connections that the policy refuses, with the calls under way on them.
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

// refusal is why a policy, which may be nil, refuses an address: a *netguard.RefusedError.
func refusal(p *netguard.Policy, a netip.AddrPort) error {
	if p == nil {
		return nil
	}
	if err := p.CheckAddr(a); err != nil {
		return &netguard.RefusedError{Addr: a.String(), Reason: err}
	}
	return nil
}
