package main

import (
	"net"
	"net/netip"
	"time"

	"github.com/miekg/dns"
)

// resolver sends one query after another.
type resolver struct{ conn *dns.Conn }

// reply is the response to a query of a resolver.
type reply struct {
	rcode   int
	address netip.Addr // that of the only A record, if any
	ttl     uint32
}

func newResolver(addr string) (*resolver, error) {
	conn, err := net.Dial("udp", addr)
	return &resolver{&dns.Conn{Conn: conn}}, err
}

func (r *resolver) close() { _ = r.conn.Close() }

// lookup queries the address of a name.
func (r *resolver) lookup(name string, timeout time.Duration) (got reply, err error) {
	m := new(dns.Msg)
	m.SetQuestion(name, dns.TypeA)
	if err := r.conn.SetDeadline(time.Now().Add(timeout)); err != nil {
		return got, err
	}
	if err := r.conn.WriteMsg(m); err != nil {
		return got, err
	}
	for {
		answer, err := r.conn.ReadMsg()
		if err != nil {
			return got, err
		}
		if answer.Id != m.Id { // belongs to an abandoned query
			continue
		}
		got.rcode = answer.Rcode
		if len(answer.Answer) == 1 {
			if a, ok := answer.Answer[0].(*dns.A); ok {
				got.address, _ = netip.AddrFromSlice(a.A)
				got.ttl = a.Hdr.Ttl
			}
		}
		return got, nil
	}
}
