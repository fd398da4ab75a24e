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

// Resolver queries a DNS server as any client does. It checks every response for properties that must hold for all. It is safe
// for concurrent use.
type Resolver struct {
	tb      testing.TB
	server  func() string // host:port
	network string        // "udp", "tcp" or "tcp-tls"
	from    string
	tls     *tls.Config
}

// DNS returns a client of the DNS server that uses UDP and EDNS.
func (p *Process) DNS(tb testing.TB) *Resolver {
	tb.Helper()
	return &Resolver{tb: tb, server: func() string { return p.Addr("dns") }, network: "udp"}
}

// ResolverAt is like DNS for a server at host:port that is not a Process.
func ResolverAt(tb testing.TB, addr string) *Resolver {
	tb.Helper()
	return &Resolver{tb: tb, server: func() string { return addr }, network: "udp"}
}

// For returns a copy of the client for another test.
func (r *Resolver) For(tb testing.TB) *Resolver {
	with := *r
	with.tb = tb
	return &with
}

// TCP returns a copy of the client that uses TCP.
func (r *Resolver) TCP() *Resolver {
	with := *r
	with.network = "tcp"
	return &with
}

// TLS returns a copy of the client that uses TLS, at the host:port of a TLS listener.
func (r *Resolver) TLS(addr string, settings *tls.Config) *Resolver {
	with := *r
	with.network, with.server, with.tls = "tcp-tls", func() string { return addr }, settings
	return &with
}

// From returns a copy of the client that sends from one of the machine's own addresses, such as 127.0.0.7.
func (r *Resolver) From(address string) *Resolver {
	with := *r
	with.from = address
	return &with
}

// Addr returns the host:port of the server.
func (r *Resolver) Addr() string { return r.server() }

// Dial opens a socket to the server, for sending data that no client would send.
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

// Question returns a query with EDNS that keeps the name's case; options modify it. For an unknown type, it returns a query
// that Try refuses to send.
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

// WithoutEDNS removes EDNS from a query.
func WithoutEDNS(m *dns.Msg) { m.Extra = nil }

// WithSize sets the UDP payload size of a query, instead of 1232.
func WithSize(octets uint16) func(*dns.Msg) {
	return func(m *dns.Msg) { m.IsEdns0().SetUDPSize(octets) }
}

// Ask queries the records of a name and a type; the test ends when there is no response.
func (r *Resolver) Ask(name, rrtype string, options ...func(*dns.Msg)) *Reply {
	r.tb.Helper()
	return r.Send(Question(name, rrtype, options...))
}

// Send is like Ask for any query.
func (r *Resolver) Send(query *dns.Msg) *Reply {
	r.tb.Helper()
	reply, err := r.Try(query, Patience)
	if err != nil {
		r.tb.Fatalf("%s %s: %v", r.network, describe(query), err)
	}
	return reply
}

// Try is like Send but returns an error when there is no response within patience, or when the response violates the general
// checks.
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

// exchange sends a query on a socket that nothing else uses.
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

// read unpacks and checks a response.
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

// Session is a socket that sends one query after another.
type Session struct {
	resolver *Resolver
	conn     *dns.Conn
}

// Session opens a socket. It must be used by one goroutine at a time, and closed by the caller.
func (r *Resolver) Session() (*Session, error) {
	conn, err := r.Dial()
	if err != nil {
		return nil, err
	}
	return &Session{r, &dns.Conn{Conn: conn, UDPSize: dns.MaxMsgSize}}, nil
}

// Try is like Resolver.Try.
func (s *Session) Try(query *dns.Msg, patience time.Duration) (*Reply, error) {
	return s.resolver.exchange(s.conn, query, patience)
}

// Unchecked is like Try for third-party servers, whose responses need not pass the checks; it returns nil when there is no
// response.
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
	// Raw is the message as received.
	Raw []byte

	tb testing.TB
}

// RCode returns the name of the response code.
func (r *Reply) RCode() string { return dns.RcodeToString[r.Rcode] }

// Records returns the records of the answer section as "name TTL type data", sorted.
func (r *Reply) Records() []string { return texts(r.Answer) }

// Authority returns the records of the authority section in the format of Records.
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

// Is ends the test unless the response has the code and exactly these records as its answer, and returns the response.
func (r *Reply) Is(rcode string, records ...string) *Reply {
	r.tb.Helper()
	if err := r.Differs(rcode, records...); err != nil {
		r.tb.Fatal(err)
	}
	return r
}

// Differs returns an error that describes how the response differs from the wanted one, or nil.
func (r *Reply) Differs(rcode string, records ...string) error {
	slices.Sort(records)
	if r.RCode() != rcode || !slices.Equal(r.Records(), records) {
		return fmt.Errorf("wanted %s %q, not %s", rcode, records, r.Msg)
	}
	return nil
}

// Data returns the types and data of the records of the answer section, sorted, without owner names and TTLs. Cached TTLs
// decrease.
func (r *Reply) Data() []string {
	list := []string{}
	for _, record := range r.Answer {
		f := strings.Fields(record.String())
		list = append(list, strings.Join(f[3:], " "))
	}
	slices.Sort(list)
	return list
}

// Holds is like Is for the format of Data.
func (r *Reply) Holds(rcode string, data ...string) *Reply {
	r.tb.Helper()
	if err := r.Lacks(rcode, data...); err != nil {
		r.tb.Fatal(err)
	}
	return r
}

// Lacks is like Differs for the format of Data.
func (r *Reply) Lacks(rcode string, data ...string) error {
	slices.Sort(data)
	if r.RCode() != rcode || !slices.Equal(r.Data(), data) {
		return fmt.Errorf("wanted %s %q, not %s", rcode, data, r.Msg)
	}
	return nil
}

// Local ends the test unless the answer is authoritative.
func (r *Reply) Local() *Reply {
	r.tb.Helper()
	if !r.Authoritative {
		r.tb.Fatalf("the answer is not authoritative: %s", r.Msg)
	}
	return r
}

// Forwarded ends the test unless the answer was forwarded: it is not authoritative, and recursion is available.
func (r *Reply) Forwarded() *Reply {
	r.tb.Helper()
	if r.Authoritative || !r.RecursionAvailable {
		r.tb.Fatalf("the answer is not forwarded: %s", r.Msg)
	}
	return r
}

// Extended returns the code of the extended error in a response, or -1.
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

// Cookie returns the cookie in a response as hexadecimal digits, or "".
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

// Await repeats a query until wanted returns nil for the response.
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

// AwaitAnswer repeats a query until the response has the code and exactly these records.
func (r *Resolver) AwaitAnswer(name, rrtype, rcode string, records ...string) *Reply {
	r.tb.Helper()
	return r.Await(name, rrtype, func(reply *Reply) error { return reply.Differs(rcode, records...) })
}

// AwaitData is like AwaitAnswer for the format of Data.
func (r *Resolver) AwaitData(name, rrtype, rcode string, data ...string) *Reply {
	r.tb.Helper()
	return r.Await(name, rrtype, func(reply *Reply) error { return reply.Lacks(rcode, data...) })
}
