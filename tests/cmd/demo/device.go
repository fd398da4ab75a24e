package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"
)

// device is the device of a user of the apps. It sends queries to the platform's DNS server.
type device struct {
	screen *screen
	server string
	client *dns.Client
}

func newDevice(s *screen, server string) *device {
	return &device{screen: s, server: server, client: &dns.Client{Timeout: time.Second}}
}

// reply is a DNS response: its code, whether it is authoritative, and its records, each as type and data.
type reply struct {
	rcode         int
	authoritative bool
	records       []string
}

// known is an authoritative answer of the platform, passedOn a forwarded answer.
func known(records ...string) reply    { return reply{dns.RcodeSuccess, true, records} }
func passedOn(records ...string) reply { return reply{dns.RcodeSuccess, false, records} }

// noSuchName and noSuchRecord are negative answers for names in the platform's zones.
var (
	noSuchName   = reply{rcode: dns.RcodeNameError, authoritative: true}
	noSuchRecord = known()
)

// learns repeats a query until the answer is as wanted, for a limited time, and shows the answer.
func (d *device) learns(ctx context.Context, rrtype uint16, name string, want reply) {
	const askAgain = 2 * time.Millisecond
	q := new(dns.Msg)
	q.SetQuestion(name, rrtype)
	q.SetEdns0(dns.DefaultMsgSize, false)
	for end := time.Now().Add(patience); ; pause(ctx, askAgain) {
		q.Id = dns.Id()
		answer, _, err := d.client.ExchangeContext(ctx, q, d.server)
		must(err)
		got := replyOf(answer)
		if got.is(want) {
			d.screen.answered("device -> "+dns.TypeToString[rrtype]+" "+name, answer)
			return
		}
		expect(time.Now().Before(end), "%s %s is answered %+v, want %+v", dns.TypeToString[rrtype], name, got, want)
	}
}

// replyOf extracts a reply from a response.
func replyOf(answer *dns.Msg) reply {
	r := reply{rcode: answer.Rcode, authoritative: answer.Authoritative}
	for _, rr := range answer.Answer {
		h := rr.Header()
		r.records = append(r.records, dns.TypeToString[h.Rrtype]+" "+strings.TrimPrefix(rr.String(), h.String()))
	}
	return r
}

func (r reply) is(o reply) bool {
	return r.rcode == o.rcode && r.authoritative == o.authoritative && slices.Equal(r.records, o.records)
}

// answered shows a query and its response.
func (s *screen) answered(question string, answer *dns.Msg) {
	s.mu.Lock()
	defer s.mu.Unlock()
	colour, says := green, dns.RcodeToString[answer.Rcode]
	if answer.Rcode != dns.RcodeSuccess {
		colour = red
	}
	if answer.Authoritative {
		says += ", authoritative"
	}
	if len(answer.Answer) == 0 {
		says += ", no records"
	}
	fmt.Fprintf(s.out, "\n   %s\n   %s\n", s.paint(blue, s.short(question)), s.paint(colour, says))
	for _, rr := range answer.Answer {
		fmt.Fprintf(s.out, "%s%s\n", indent, s.short(strings.ReplaceAll(rr.String(), "\t", " ")))
	}
	for _, rr := range answer.Ns {
		fmt.Fprintf(s.out, "%s; %s\n", indent, s.short(strings.ReplaceAll(rr.String(), "\t", " ")))
	}
}
