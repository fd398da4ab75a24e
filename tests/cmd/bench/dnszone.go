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

// zone is one with an A record for each DNS rule of a number of app instances.
type zone struct {
	origin       string
	apps, perApp int
}

// benchZone is the zone that measures begin with: 10,000 records.
var benchZone = zone{"bench.example.", 100, 100}

// zoneTTL is the time to live of all records in seconds.
const zoneTTL = 3600

func (z *zone) names() int { return z.apps * z.perApp }

func (z *zone) name(i int) string {
	return fmt.Sprintf("host-%d.app-%d.%s", i%z.perApp, i/z.perApp, z.origin)
}

// firstOctet is that of the addresses as long as nobody changes them. The three others are the number of the name.
const firstOctet = 10

// address is that of a name.
func (z *zone) address(i int) netip.Addr {
	var a [4]byte
	binary.BigEndian.PutUint32(a[:], firstOctet<<24|uint32(i))
	return netip.AddrFrom4(a)
}

// app is the id of an app instance.
func (z *zone) app(n int) string { return fmt.Sprintf("%08d-0000-4000-8000-000000000000", n) }

// rules are the record of an app instance's rules as the platform stores it. The address of one of them, or of none, has another
// first octet.
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

// unchanged says that no rule is another one.
const unchanged = -1

// write makes a file of a line, or several, for each name, in a random order that is always the same.
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

// hostsFile is what /etc/hosts would have.
func (z *zone) hostsFile(o *options) (string, error) {
	return z.write(o, "", func(w io.Writer, i int) { fmt.Fprintf(w, "%s %s\n", z.address(i), z.name(i)) })
}

// masterFile is the zone as RFC 1035 5 writes it.
func (z *zone) masterFile(o *options) (string, error) {
	head := fmt.Sprintf("$TTL %d\n%s SOA ns.%[2]s hostmaster.%[2]s 1 3600 600 86400 10\n%[2]s NS ns.%[2]s\nns.%[2]s A 192.0.2.1\n", zoneTTL, z.origin)
	return z.write(o, head, func(w io.Writer, i int) { fmt.Fprintf(w, "%s A %s\n", z.name(i), z.address(i)) })
}

// queryFile is the questions as dnsperf reads them.
func (z *zone) queryFile(o *options) (string, error) {
	return z.write(o, "", func(w io.Writer, i int) { fmt.Fprintf(w, "%s A\n", z.name(i)) })
}

// question is one that is ready to be sent, but for its id.
type question struct {
	packet []byte
	host   uint32 // the three last octets of the address
}

// questions are one for each name, in a random order that is always the same.
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

// verdict is what an answer is worth.
type verdict int

const (
	right verdict = iota
	wrong
	// changed is right, too, but for the first octet of the address.
	changed
)

// judge looks at the answer to a question, whose only record is an A record, the last thing in it.
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
