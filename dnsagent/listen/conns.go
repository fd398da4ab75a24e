package listen

import (
	"net/netip"
	"sync"
)

// conns holds the open connections, TCP and TLS together.
type conns struct {
	most, perSource int

	mu   sync.Mutex
	all  map[*conn]struct{}
	from map[netip.Prefix]int
}

// sourceOf returns the prefix that counts as one client: an IPv4 address, or the /64 of an IPv6 address, because a host with one
// address in it can use all of them (RFC 7934). Link-local addresses, which share a prefix, count separately.
func sourceOf(a netip.Addr) netip.Prefix {
	bits := a.BitLen()
	if a.Is6() && !a.IsLinkLocalUnicast() {
		bits = 64
	}
	p, _ := a.Prefix(bits) // fails only for more bits than the address has
	return p
}

// admit adds a connection. At a limit it evicts the longest idle connection, or, if none is idle, refuses the new one and returns
// the reason.
func (t *conns) admit(c *conn) (reason ending, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.from[c.source] >= t.perSource && !t.evict(func(o *conn) bool { return o.source == c.source }) {
		return endSourceLimit, false
	}
	if len(t.all) >= t.most && !t.evict(func(*conn) bool { return true }) {
		return endLimit, false
	}
	t.all[c] = struct{}{}
	t.from[c.source]++
	return endNot, true
}

// evict closes the longest idle connection among those wanted; it returns false if none is idle. A connection with an incomplete
// message is idle: a client that opens many and sends little loses them first.
func (t *conns) evict(wanted func(*conn) bool) bool {
	var victim *conn
	for c := range t.all {
		if c.busy.Load() == 0 && wanted(c) && (victim == nil || c.idleSince.Load() < victim.idleSince.Load()) {
			victim = c
		}
	}
	if victim == nil {
		return false
	}
	t.forget(victim)
	_ = victim.raw.Close() // TLS would first send an alert, and may block
	return true
}

func (t *conns) forget(c *conn) {
	delete(t.all, c)
	if t.from[c.source]--; t.from[c.source] == 0 {
		delete(t.from, c.source)
	}
}

// remove removes a connection; it returns false if it was evicted.
func (t *conns) remove(c *conn) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	_, known := t.all[c]
	if known {
		t.forget(c)
	}
	return known
}

// interruptAll interrupts reading on all connections.
func (t *conns) interruptAll() {
	t.each(func(c *conn) { _ = c.raw.SetReadDeadline(past) })
}

// closeAll closes all connections.
func (t *conns) closeAll() {
	t.each(func(c *conn) { _ = c.raw.Close() })
}

func (t *conns) each(do func(*conn)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for c := range t.all {
		do(c)
	}
}
