package listen

import (
	"net/netip"
	"sync"
)

// conns is the connections there are, TCP and TLS together.
type conns struct {
	most, perSource int

	mu   sync.Mutex
	all  map[*conn]struct{}
	from map[netip.Prefix]int
}

// sourceOf is what counts as one client: an IPv4 address, or the /64 of an IPv6 address, because whoever has one address there has
// all of them (RFC 7934). Link-local addresses, which have the prefix in common, count each.
func sourceOf(a netip.Addr) netip.Prefix {
	bits := a.BitLen()
	if a.Is6() && !a.IsLinkLocalUnicast() {
		bits = 64
	}
	p, _ := a.Prefix(bits) // refuses only more bits than there are
	return p
}

// admit takes a connection in. Where there are too many the one longest idle makes room; when there is none idle the new one is
// refused for the reason returned.
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

// evict closes the connection longest idle among those wanted; false when none is idle. A connection with a part of a message is
// idle: whoever opens many and sends little is the first to go.
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
	_ = victim.raw.Close() // TLS would first say so to the client, and wait
	return true
}

func (t *conns) forget(c *conn) {
	delete(t.all, c)
	if t.from[c.source]--; t.from[c.source] == 0 {
		delete(t.from, c.source)
	}
}

// remove forgets a connection; false when it was evicted.
func (t *conns) remove(c *conn) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	_, known := t.all[c]
	if known {
		t.forget(c)
	}
	return known
}

// interruptAll ends the reading of all connections.
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
