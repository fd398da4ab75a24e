package main

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/uuid"
	"github.com/miekg/dns"

	"github.com/openmep/mep/api/mp1"
	"github.com/openmep/mep/api/state"
)

// zone is a zone with an A record for each DNS rule of a number of app instances.
type zone struct {
	origin       string
	apps, perApp int
}

// benchZone is the zone that measurements begin with: 10,000 records.
var benchZone = zone{"bench.example.", 100, 100}

// zoneTTL is the time to live of all records in seconds.
const zoneTTL = 3600

func (z *zone) names() int { return z.apps * z.perApp }

func (z *zone) name(i int) string {
	return fmt.Sprintf("host-%d.app-%d.%s", i%z.perApp, i/z.perApp, z.origin)
}

// firstOctet is the first octet of unchanged addresses. The other three are the number of the name.
const firstOctet = 10

// address returns the address of a name.
func (z *zone) address(i int) netip.Addr {
	var a [4]byte
	binary.BigEndian.PutUint32(a[:], firstOctet<<24|uint32(i))
	return netip.AddrFrom4(a)
}

// app returns the id of an app instance.
func (z *zone) app(n int) string { return fmt.Sprintf("%08d-0000-4000-8000-000000000000", n) }

// rules returns the DNS rules of an app instance as stored by the platform. The address of rule number changed, if any, begins
// with octet.
func (z *zone) rules(app, changed int, octet byte) (string, error) {
	r := state.DNSRules{Version: state.Current(), Generation: 1, Running: true}
	ttl := int64(zoneTTL)
	for n := range z.perApp {
		i := app*z.perApp + n
		address := z.address(i).As4()
		if n == changed {
			address[0] = octet
		}
		r.Rules = append(r.Rules, state.Rule[mp1.DNSRule]{Declared: mp1.DNSRule{
			DNSRuleID: fmt.Sprintf("rule-%d", n), DomainName: strings.TrimSuffix(z.name(i), "."), IPAddressType: mp1.IPv4,
			IPAddress: netip.AddrFrom4(address).String(), TTL: &ttl, State: mp1.RuleActive,
		}})
	}
	return state.Encode(r)
}

// unchanged means that no rule is changed.
const unchanged = -1

// write creates a file with one or more lines for each name, in a pseudo-random order that is always the same.
func (z *zone) write(o *options, head string, line func(w io.Writer, i int)) (file string, err error) {
	file = filepath.Join(o.dir, uuid.NewString())
	f, err := os.Create(file)
	if err != nil {
		return "", err
	}
	defer f.Close()
	w := bufio.NewWriter(f)
	fmt.Fprint(w, head)
	for _, i := range z.shuffled() {
		line(w, i)
	}
	return file, w.Flush()
}

func (z *zone) shuffled() []int { return rand.New(rand.NewPCG(1, 2)).Perm(z.names()) }

// hostsFile writes the zone in the format of /etc/hosts.
func (z *zone) hostsFile(o *options) (string, error) {
	return z.write(o, "", func(w io.Writer, i int) { fmt.Fprintf(w, "%s %s\n", z.address(i), z.name(i)) })
}

// masterFile writes the zone as a master file of RFC 1035 5.
func (z *zone) masterFile(o *options) (string, error) {
	head := fmt.Sprintf("$TTL %d\n%s SOA ns.%[2]s hostmaster.%[2]s 1 3600 600 86400 10\n%[2]s NS ns.%[2]s\nns.%[2]s A 192.0.2.1\n", zoneTTL, z.origin)
	return z.write(o, head, func(w io.Writer, i int) { fmt.Fprintf(w, "%s A %s\n", z.name(i), z.address(i)) })
}

// queryFile writes the queries in the format of dnsperf.
func (z *zone) queryFile(o *options) (string, error) {
	return z.write(o, "", func(w io.Writer, i int) { fmt.Fprintf(w, "%s A\n", z.name(i)) })
}

// question is a query that is ready to be sent, except for its id.
type question struct {
	packet []byte
	host   uint32 // the last three octets of the address
}

// questions returns a query for each name, in a pseudo-random order that is always the same.
func (z *zone) questions() ([]question, error) {
	list := make([]question, 0, z.names())
	for _, i := range z.shuffled() {
		m := new(dns.Msg)
		m.SetQuestion(z.name(i), dns.TypeA)
		packet, err := m.Pack()
		if err != nil {
			return nil, err
		}
		list = append(list, question{packet, uint32(i)})
	}
	return list, nil
}

// verdict is the assessment of a response.
type verdict int

const (
	right verdict = iota
	wrong
	// changed is correct except for the first octet of the address.
	changed
)

// judge assesses the response to a query. Its only record must be an A record at its end.
func (q *question) judge(answer []byte) verdict {
	const header, response, noError = 12, 0x80, 0
	if len(answer) < header+4 || answer[2]&response == 0 || answer[3]&0xf != noError || binary.BigEndian.Uint16(answer[6:]) != 1 {
		return wrong
	}
	address := binary.BigEndian.Uint32(answer[len(answer)-4:])
	switch {
	case address&0xffffff != q.host:
		return wrong
	case address>>24 != firstOctet:
		return changed
	}
	return right
}
