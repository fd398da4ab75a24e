package main

import (
	"net"
	"strings"
	"sync"

	"github.com/miekg/dns"
)

// upstream is an external DNS server for names outside this site.
type upstream struct {
	address string

	mu    sync.Mutex
	asked map[dns.Question]int // names in lower case
}

// The names and addresses that the upstream knows.
const (
	cdnName     = "cdn.example.net."
	cdnAddress  = "203.0.113.80"
	newsName    = "news.example.net."
	newsAddress = "203.0.113.81"
)

// newUpstream starts an upstream over UDP and TCP.
func newUpstream() *upstream {
	u := &upstream{asked: make(map[dns.Question]int)}
	tcp, err := net.Listen("tcp", "127.0.0.1:0") // first, because many TCP ports may be in use
	must(err)
	u.address = tcp.Addr().String()
	udp, err := net.ListenPacket("udp", u.address)
	must(err)
	for _, s := range []*dns.Server{{PacketConn: udp, Handler: u}, {Listener: tcp, Handler: u}} {
		go func() { _ = s.ActivateAndServe() }() // until the program exits
	}
	return u
}

// ServeDNS answers a query.
func (u *upstream) ServeDNS(w dns.ResponseWriter, r *dns.Msg) {
	m := new(dns.Msg)
	m.SetReply(r)
	m.RecursionAvailable = true
	q := r.Question[0]
	name := strings.ToLower(q.Name)
	address := map[string]string{cdnName: cdnAddress, newsName: newsAddress}[name]
	switch {
	case address == "":
		m.Rcode = dns.RcodeNameError
	case q.Qtype == dns.TypeA:
		m.Answer = []dns.RR{&dns.A{
			Hdr: dns.RR_Header{Name: q.Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 300}, A: net.ParseIP(address),
		}}
	}
	u.mu.Lock()
	u.asked[dns.Question{Name: name, Qtype: q.Qtype, Qclass: q.Qclass}]++
	u.mu.Unlock()
	_ = w.WriteMsg(m)
}

// count returns the number of queries for the address of a name.
func (u *upstream) count(name string) int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.asked[dns.Question{Name: name, Qtype: dns.TypeA, Qclass: dns.ClassINET}]
}
