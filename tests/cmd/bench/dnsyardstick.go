package main

import (
	"bufio"
	"net"
	"os"
	"strings"

	"github.com/miekg/dns"
)

// yardstickDNS is a bare miekg/dns server: two sockets sharing an address, a map lookup, and a packed response. It reads its
// records from a hosts file.
func yardstickDNS(addr, file string) error {
	records, err := readHosts(file)
	if err != nil {
		return err
	}
	const sockets = 2
	handler := dns.HandlerFunc(func(w dns.ResponseWriter, r *dns.Msg) { _ = w.WriteMsg(records.answer(r)) })
	ended := make(chan error, sockets)
	for range sockets {
		s := &dns.Server{Addr: addr, Net: "udp", ReusePort: true, Handler: handler}
		go func() { ended <- s.ListenAndServe() }()
	}
	return <-ended
}

// bareRecords maps names in lower case to records.
type bareRecords map[string]dns.RR

func readHosts(file string) (bareRecords, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	records := make(bareRecords)
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		address, name, _ := strings.Cut(lines.Text(), " ")
		records[name] = aRecord(name, net.ParseIP(address).To4())
	}
	return records, lines.Err()
}

func aRecord(name string, address net.IP) dns.RR {
	return &dns.A{Hdr: dns.RR_Header{Name: name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: zoneTTL}, A: address}
}

func (b bareRecords) answer(r *dns.Msg) *dns.Msg {
	m := new(dns.Msg)
	m.SetReply(r)
	m.Authoritative = true
	if rr := b[strings.ToLower(r.Question[0].Name)]; rr != nil {
		m.Answer = []dns.RR{rr}
	} else {
		m.Rcode = dns.RcodeNameError
	}
	return m
}
