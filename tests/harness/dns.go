package harness

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// Resolver asks a DNS server as any client does. Every response is checked for what must hold of all. It is safe for concurrent
// use.
type Resolver struct {
	tb      testing.TB
	server  func() string // host:port
	network string        // "udp", "tcp" or "tcp-tls"
	from    string
	tls     *tls.Config
}

// DNS returns a client of the DNS server, over UDP and with EDNS.
func (p *Process) DNS(tb testing.TB) *Resolver {
	tb.Helper()
	return &Resolver{tb: tb, server: func() string { return p.Addr("dns") }, network: "udp"}
}

// ResolverAt is DNS for a server that is no Process, at host:port.
func ResolverAt(tb testing.TB, addr string) *Resolver {
	tb.Helper()
	return &Resolver{tb: tb, server: func() string { return addr }, network: "udp"}
}

// For is the same client for another test.
func (r *Resolver) For(tb testing.TB) *Resolver {
	with := *r
	with.tb = tb
	return &with
}

// TCP is the same client over TCP.
func (r *Resolver) TCP() *Resolver {
	with := *r
	with.network = "tcp"
	return &with
}

// TLS is the same client over TLS, at the host:port of a listener for that.
func (r *Resolver) TLS(addr string, settings *tls.Config) *Resolver {
	with := *r
	with.network, with.server, with.tls = "tcp-tls", func() string { return addr }, settings
	return &with
}

// From is the same client at one of the machine's own addresses, such as 127.0.0.7.
func (r *Resolver) From(address string) *Resolver {
	with := *r
	with.from = address
	return &with
}

// Addr is the host:port that is asked.
func (r *Resolver) Addr() string { return r.server() }

// Dial opens a socket to the server, for what no client would send.
func (r *Resolver) Dial() (net.Conn, error) {
	d := &net.Dialer{Timeout: Patience}
	if r.from != "" && r.network == "udp" {
		d.LocalAddr = &net.UDPAddr{IP: net.ParseIP(r.from)}
	} else if r.from != "" {
		d.LocalAddr = &net.TCPAddr{IP: net.ParseIP(r.from)}
	}
	if r.network == "tcp-tls" {
		return tls.DialWithDialer(d, "tcp", r.server(), r.tls)
	}
	return d.Dial(r.network, r.server())
}

// Question makes a query with EDNS and a name as it is written. Options change it. A type that does not exist makes a query that Try
// does not send.
func Question(name, rrtype string, options ...func(*dns.Msg)) *dns.Msg {
	t, ok := dns.StringToType[rrtype]
	if !ok {
		if _, err := fmt.Sscanf(rrtype, "TYPE%d", &t); err != nil {
			t = dns.TypeNone
		}
	}
	m := new(dns.Msg).SetQuestion(dns.Fqdn(name), t).SetEdns0(1232, false)
	for _, o := range options {
		o(m)
	}
	return m
}

// WithoutEDNS takes EDNS out of a query.
func WithoutEDNS(m *dns.Msg) { m.Extra = nil }

// WithSize offers another size than 1232 in a query.
func WithSize(octets uint16) func(*dns.Msg) {
	return func(m *dns.Msg) { m.IsEdns0().SetUDPSize(octets) }
}

// Ask asks for the records of a name and a type; the test ends when there is no answer.
func (r *Resolver) Ask(name, rrtype string, options ...func(*dns.Msg)) *Reply {
	r.tb.Helper()
	return r.Send(Question(name, rrtype, options...))
}

// Send is Ask for any query.
func (r *Resolver) Send(query *dns.Msg) *Reply {
	r.tb.Helper()
	reply, err := r.Try(query, Patience)
	if err != nil {
		r.tb.Fatalf("%s %s: %v", r.network, describe(query), err)
	}
	return reply
}

// Try is Send for queries that may remain without an answer, and waits as long for one. A response that is not as responses must be is
// an error, too.
func (r *Resolver) Try(query *dns.Msg, patience time.Duration) (*Reply, error) {
	if len(query.Question) == 1 && query.Question[0].Qtype == dns.TypeNone {
		return nil, errors.New("harness: the question is of a type that does not exist")
	}
	conn, err := r.Dial()
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	return r.exchange(&dns.Conn{Conn: conn, UDPSize: dns.MaxMsgSize}, query, patience)
}

// exchange sends a query on a socket that nobody else uses.
func (r *Resolver) exchange(conn *dns.Conn, query *dns.Msg, patience time.Duration) (*Reply, error) {
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return nil, err
	}
	if err := conn.WriteMsg(query); err != nil {
		return nil, err
	}
	raw, err := conn.ReadMsgHeader(nil)
	if err != nil {
		return nil, err
	}
	return read(r.tb, query, raw, r.network)
}

// read takes a response apart.
func read(tb testing.TB, query *dns.Msg, raw []byte, network string) (*Reply, error) {
	reply := &Reply{Msg: new(dns.Msg), Raw: raw, tb: tb}
	if err := reply.Unpack(raw); err != nil {
		return nil, fmt.Errorf("the response cannot be read: %w: %x", err, raw)
	}
	if err := reply.check(query, network); err != nil {
		return nil, fmt.Errorf("%w in %s", err, reply.Msg)
	}
	return reply, nil
}

func describe(query *dns.Msg) string {
	if len(query.Question) == 0 {
		return "without a question"
	}
	q := query.Question[0]
	return q.Name + " " + dns.Type(q.Qtype).String()
}

// Session is a socket that asks one question after the other.
type Session struct {
	resolver *Resolver
	conn     *dns.Conn
}

// Session opens a socket. It is used by one goroutine at a time, which closes it.
func (r *Resolver) Session() (*Session, error) {
	conn, err := r.Dial()
	if err != nil {
		return nil, err
	}
	return &Session{r, &dns.Conn{Conn: conn, UDPSize: dns.MaxMsgSize}}, nil
}

// Try is that of the Resolver.
func (s *Session) Try(query *dns.Msg, patience time.Duration) (*Reply, error) {
	return s.resolver.exchange(s.conn, query, patience)
}

// Unchecked is Try for servers of others, whose responses need not be as those of this one; nil when there is none.
func (s *Session) Unchecked(query *dns.Msg, patience time.Duration) *dns.Msg {
	if s.conn.SetDeadline(time.Now().Add(patience)) != nil || s.conn.WriteMsg(query) != nil {
		return nil
	}
	m, err := s.conn.ReadMsg()
	if err != nil || m.Id != query.Id {
		return nil
	}
	return m
}

// Close closes the socket.
func (s *Session) Close() { _ = s.conn.Close() }

// Reply is a response.
type Reply struct {
	*dns.Msg
	// Raw is the message as it came.
	Raw []byte

	tb testing.TB
}

// RCode is the response code by its name.
func (r *Reply) RCode() string { return dns.RcodeToString[r.Rcode] }

// Records are those of the answer as "name TTL type data", sorted.
func (r *Reply) Records() []string { return texts(r.Answer) }

// Authority are the records of the authority section, as Records has them.
func (r *Reply) Authority() []string { return texts(r.Ns) }

func texts(section []dns.RR) []string {
	list := []string{}
	for _, record := range section {
		f := strings.Fields(record.String())
		list = append(list, strings.Join(append(f[:2:2], f[3:]...), " "))
	}
	slices.Sort(list)
	return list
}

// Is ends the test unless the response has the code and exactly these records as its answer, and returns it.
func (r *Reply) Is(rcode string, records ...string) *Reply {
	r.tb.Helper()
	if err := r.Differs(rcode, records...); err != nil {
		r.tb.Fatal(err)
	}
	return r
}

// Differs says in what a response is not as wanted; nil when it is.
func (r *Reply) Differs(rcode string, records ...string) error {
	slices.Sort(records)
	if r.RCode() != rcode || !slices.Equal(r.Records(), records) {
		return fmt.Errorf("wanted %s %q, not %s", rcode, records, r.Msg)
	}
	return nil
}

// Data are the types and data of the records of the answer, sorted, without owners and without TTLs, of which caches keep the rest.
func (r *Reply) Data() []string {
	list := []string{}
	for _, record := range r.Answer {
		f := strings.Fields(record.String())
		list = append(list, strings.Join(f[3:], " "))
	}
	slices.Sort(list)
	return list
}

// Holds is Is with what Data has.
func (r *Reply) Holds(rcode string, data ...string) *Reply {
	r.tb.Helper()
	if err := r.Lacks(rcode, data...); err != nil {
		r.tb.Fatal(err)
	}
	return r
}

// Lacks is Differs with what Data has.
func (r *Reply) Lacks(rcode string, data ...string) error {
	slices.Sort(data)
	if r.RCode() != rcode || !slices.Equal(r.Data(), data) {
		return fmt.Errorf("wanted %s %q, not %s", rcode, data, r.Msg)
	}
	return nil
}

// Local ends the test unless the server answered of its own knowledge, Forwarded when it did.
func (r *Reply) Local() *Reply {
	r.tb.Helper()
	if !r.Authoritative {
		r.tb.Fatalf("the answer is not authoritative: %s", r.Msg)
	}
	return r
}

// Forwarded is the opposite of Local.
func (r *Reply) Forwarded() *Reply {
	r.tb.Helper()
	if r.Authoritative || !r.RecursionAvailable {
		r.tb.Fatalf("the answer is not forwarded: %s", r.Msg)
	}
	return r
}

// Extended is the code of the extended error in a response, -1 without one.
func (r *Reply) Extended() int {
	if opt := r.IsEdns0(); opt != nil {
		for _, o := range opt.Option {
			if e, ok := o.(*dns.EDNS0_EDE); ok {
				return int(e.InfoCode)
			}
		}
	}
	return -1
}

// Cookie is the cookie in a response as hexadecimal digits, "" without one.
func (r *Reply) Cookie() string {
	if opt := r.IsEdns0(); opt != nil {
		for _, o := range opt.Option {
			if c, ok := o.(*dns.EDNS0_COOKIE); ok {
				return c.Cookie
			}
		}
	}
	return ""
}

// Await asks until the response is as wanted.
func (r *Resolver) Await(name, rrtype string, wanted func(*Reply) error) *Reply {
	r.tb.Helper()
	var reply *Reply
	EventuallyWithin(r.tb, 2*Patience, name+" "+rrtype+" is answered as wanted", func() error {
		var err error
		if reply, err = r.Try(Question(name, rrtype), Patience); err != nil {
			return err
		}
		return wanted(reply)
	})
	return reply
}

// AwaitAnswer asks until the response has the code and exactly these records.
func (r *Resolver) AwaitAnswer(name, rrtype, rcode string, records ...string) *Reply {
	r.tb.Helper()
	return r.Await(name, rrtype, func(reply *Reply) error { return reply.Differs(rcode, records...) })
}

// AwaitData is AwaitAnswer with what Data has.
func (r *Resolver) AwaitData(name, rrtype, rcode string, data ...string) *Reply {
	r.tb.Helper()
	return r.Await(name, rrtype, func(reply *Reply) error { return reply.Lacks(rcode, data...) })
}
