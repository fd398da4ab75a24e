package resolve_test

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/openmep/mep/dnsagent/forward"
	"github.com/openmep/mep/dnsagent/listen"
	"github.com/openmep/mep/dnsagent/protect"
	"github.com/openmep/mep/dnsagent/resolve"
	"github.com/openmep/mep/dnsagent/table"
	"github.com/openmep/mep/dnsagent/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func name(s string) wire.Name {
	n, err := wire.ParseName(s)
	if err != nil {
		panic(err)
	}
	return n
}

func record(text string) table.Record {
	rr, err := dns.NewRR(text)
	if err != nil {
		panic(err)
	}
	buf := make([]byte, 2048)
	end, err := dns.PackRR(rr, buf, 0, nil, false)
	if err != nil {
		panic(err)
	}
	h := rr.Header()
	return table.Record{Name: name(h.Name), Type: h.Rrtype, TTL: h.Ttl, Data: string(buf[end-int(h.Rdlength) : end]), ID: "id"}
}

func networks(list ...string) *protect.Map[struct{}] {
	var entries []protect.Entry[struct{}]
	for _, s := range list {
		entries = append(entries, protect.Entry[struct{}]{Prefix: netip.MustParsePrefix(s)})
	}
	m, err := protect.NewMap(entries)
	if err != nil {
		panic(err)
	}
	return m
}

// upstream is a DNS server that answers from the zone it was given, and counts the queries.
type upstream struct {
	addr  string
	asked atomic.Int64
	mu    sync.Mutex
	zone  map[string][]string // by "name type"
}

func newUpstream(tb testing.TB, zone map[string][]string) *upstream {
	tb.Helper()
	u := &upstream{zone: zone}
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	require.NoError(tb, err)
	u.addr = pc.LocalAddr().String()
	srv := &dns.Server{PacketConn: pc, Handler: u}
	started := make(chan struct{})
	srv.NotifyStartedFunc = func() { close(started) }
	done := make(chan error, 1)
	go func() { done <- srv.ActivateAndServe() }()
	<-started
	tb.Cleanup(func() {
		require.NoError(tb, srv.Shutdown())
		require.NoError(tb, <-done)
	})
	return u
}

func (u *upstream) ServeDNS(w dns.ResponseWriter, q *dns.Msg) {
	u.asked.Add(1)
	m := new(dns.Msg).SetReply(q)
	m.RecursionAvailable = true
	asked := strings.ToLower(q.Question[0].Name)
	if strings.HasPrefix(asked, "refused.") {
		_ = w.WriteMsg(m.SetRcode(q, dns.RcodeRefused))
		return
	}
	u.mu.Lock()
	list, ok := u.zone[asked+" "+dns.TypeToString[q.Question[0].Qtype]]
	u.mu.Unlock()
	for _, text := range list {
		rr, err := dns.NewRR(strings.Replace(text, asked, q.Question[0].Name, 1))
		if err != nil {
			panic(err)
		}
		m.Answer = append(m.Answer, rr)
	}
	if !ok {
		m.Rcode = dns.RcodeNameError
		soa, _ := dns.NewRR("example.org. 60 IN SOA ns.example.org. host.example.org. 1 2 3 4 60")
		m.Ns = []dns.RR{soa}
	}
	if opt := q.IsEdns0(); opt != nil {
		m.SetEdns0(1232, opt.Do())
	}
	_ = w.WriteMsg(m)
}

// fixture is a resolver with a table and an upstream.
type fixture struct {
	tb       testing.TB
	r        *resolve.Resolver
	up       *upstream
	policy   *resolve.Policy
	forward  *forward.Forwarder
	registry *prometheus.Registry
}

func newFixture(tb testing.TB, change func(p *resolve.Policy)) *fixture {
	tb.Helper()
	f := &fixture{tb: tb, registry: prometheus.NewRegistry()}
	f.up = newUpstream(tb, map[string][]string{
		"www.example.org. A":       {"www.example.org. 300 IN A 198.51.100.7"},
		"www.example.org. TXT":     {"www.example.org. 300 IN TXT " + strings.Repeat(`"`+strings.Repeat("x", 200)+`" `, 12)},
		"alias.example.org. A":     {"alias.example.org. 300 IN CNAME www.example.org.", "www.example.org. 300 IN A 198.51.100.7"},
		"nothing.example.org. MX":  nil,
		"neighbour.example.com. A": {"neighbour.example.com. 60 IN A 198.51.100.8"},
	})
	upstreams, err := forward.ParseUpstreams([]string{f.up.addr})
	require.NoError(tb, err)
	f.forward, err = forward.New(forward.Config{
		Zones: []forward.Zone{{Name: wire.Root, Upstreams: upstreams}, {Name: name("never.example.")}}, Timeout: time.Second, RandomCase: true,
		CacheBytes: 1 << 20, MaxTTL: time.Hour, MaxNegativeTTL: time.Hour,
	}, slog.New(slog.DiscardHandler), f.registry)
	require.NoError(tb, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f.forward.Run(ctx) }()
	tb.Cleanup(func() { cancel(); require.NoError(tb, <-done) })

	views, err := protect.NewMap([]protect.Entry[table.View]{{Prefix: netip.MustParsePrefix("10.1.0.0/16"), Value: 1}})
	require.NoError(tb, err)
	f.policy = &resolve.Policy{
		Query: networks("10.0.0.0/8", "127.0.0.0/8", "192.0.2.0/24", "198.18.0.0/16"), Recursion: networks("10.0.0.0/8", "127.0.0.0/8"), UDPSize: 1232,
		Cookies: protect.NewCookies(protect.Secret{1}),
	}
	if change != nil {
		change(f.policy)
	}
	f.r = resolve.New(f.policy, f.forward, f.registry)
	w := table.NewWriter(table.Config{
		Zones:       []table.ZoneConfig{{Name: name("mec.example."), Nameservers: []wire.Name{name("ns.mec.example.")}}},
		NegativeTTL: 10, NameserverTTL: 30,
	})
	pool := record("pool.mec.example. 60 IN A 192.0.2.77")
	pool.View = 1
	list := []table.Record{
		pool, record("www.mec.example. 60 IN A 192.0.2.1"), record("www.mec.example. 60 IN A 192.0.2.2"),
		record("www.mec.example. 60 IN AAAA 2001:db8::1"), record("*.any.mec.example. 60 IN A 192.0.2.3"),
		record("alias.mec.example. 60 IN CNAME www.mec.example."), record("second.mec.example. 60 IN CNAME alias.mec.example."),
		record("dead.mec.example. 60 IN CNAME nobody.mec.example."), record("empty.mec.example. 60 IN CNAME only6.mec.example."),
		record("only6.mec.example. 60 IN AAAA 2001:db8::6"),
		record("out.mec.example. 60 IN CNAME alias.example.org."), record("lost.mec.example. 60 IN CNAME nobody.example.org."),
		record("refused.mec.example. 60 IN CNAME refused.example.org."),
		record("loop1.mec.example. 60 IN CNAME loop2.mec.example."), record("loop2.mec.example. 60 IN CNAME loop1.mec.example."),
		record("_http._tcp.mec.example. 60 IN SRV 1 2 80 www.mec.example."), record("text.mec.example. 60 IN TXT \"hello\""),
		record("cdn.example.com. 60 IN A 192.0.2.9"),
	}
	for i := range 20 {
		list = append(list, record(fmt.Sprintf("c%d.mec.example. 60 IN CNAME c%d.mec.example.", i, i+1)))
	}
	for i := range 60 {
		list = append(list, record(fmt.Sprintf("many.mec.example. 60 IN A 192.0.2.%d", 100+i)))
	}
	for i := range 120 {
		list = append(list, record(fmt.Sprintf("more.mec.example. 60 IN A 192.0.2.%d", i)))
	}
	w.Put("rules of app", list)
	f.r.SetRecords(&resolve.Records{Table: w.Publish(7), Clients: views, Views: []string{"pool"}})
	return f
}

// ask sends a query as the listeners do.
func (f *fixture) ask(from string, transport listen.Transport, q *dns.Msg) *dns.Msg {
	f.tb.Helper()
	msg, err := q.Pack()
	require.NoError(f.tb, err)
	resp := f.raw(from, transport, msg)
	if resp == nil {
		return nil
	}
	var m dns.Msg
	require.NoError(f.tb, m.Unpack(resp))
	if transport == listen.UDP {
		limit := dns.MinMsgSize
		if opt := q.IsEdns0(); opt != nil {
			limit = int(min(max(opt.UDPSize(), dns.MinMsgSize), 1232))
		}
		require.LessOrEqual(f.tb, len(resp), limit)
	}
	return &m
}

func (f *fixture) raw(from string, transport listen.Transport, msg []byte) []byte {
	f.tb.Helper()
	peer := &listen.Peer{AddrPort: netip.AddrPortFrom(netip.MustParseAddr(from), 4444), Transport: transport}
	resp, wait := f.r.Answer(make([]byte, 0, 2048), msg, peer)
	if wait {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		resp = f.r.Resolve(ctx, nil, msg, peer)
	}
	return resp
}

func query(n string, rrtype uint16) *dns.Msg {
	m := new(dns.Msg).SetQuestion(n, rrtype)
	m.Id = 4711
	return m
}

const soa = "mec.example.\t10\tIN\tSOA\tns.mec.example. hostmaster.mec.example. 7 3600 600 86400 10"

func TestQueries(t *testing.T) {
	f := newFixture(t, nil)
	for what, c := range map[string]struct {
		q         *dns.Msg
		from      string
		transport listen.Transport
		rcode     int
		aa, tc    bool
		answer    []string
		authority []string
		ra        bool
		info      int // extended error, 0: none
	}{
		"addresses": {
			q: query("www.mec.example.", dns.TypeA), aa: true, ra: true,
			answer: []string{"www.mec.example.\t60\tIN\tA\t192.0.2.1", "www.mec.example.\t60\tIN\tA\t192.0.2.2"},
		},
		"the case of the question": {
			q: query("wWw.MEC.example.", dns.TypeAAAA), aa: true, ra: true, answer: []string{"wWw.MEC.example.\t60\tIN\tAAAA\t2001:db8::1"},
		},
		"no record of the type":          {q: query("www.mec.example.", dns.TypeMX), aa: true, ra: true, authority: []string{soa}},
		"no such name":                   {q: query("nobody.MEC.example.", dns.TypeA), aa: true, ra: true, rcode: dns.RcodeNameError, authority: []string{strings.Replace(soa, "mec", "MEC", 1)}},
		"a wildcard":                     {q: query("x.y.any.mec.example.", dns.TypeA), aa: true, ra: true, answer: []string{"x.y.any.mec.example.\t60\tIN\tA\t192.0.2.3"}},
		"a wildcard without the type":    {q: query("x.any.mec.example.", dns.TypeAAAA), aa: true, ra: true, authority: []string{soa}},
		"the start of authority":         {q: query("mec.example.", dns.TypeSOA), aa: true, ra: true, answer: []string{soa}},
		"name servers":                   {q: query("mec.example.", dns.TypeNS), aa: true, ra: true, answer: []string{"mec.example.\t30\tIN\tNS\tns.mec.example."}},
		"a service":                      {q: query("_http._tcp.mec.example.", dns.TypeSRV), aa: true, ra: true, answer: []string{"_http._tcp.mec.example.\t60\tIN\tSRV\t1 2 80 www.mec.example."}},
		"a text":                         {q: query("text.mec.example.", dns.TypeTXT), aa: true, ra: true, answer: []string{"text.mec.example.\t60\tIN\tTXT\t\"hello\""}},
		"an override":                    {q: query("cdn.example.com.", dns.TypeA), aa: true, ra: true, answer: []string{"cdn.example.com.\t60\tIN\tA\t192.0.2.9"}},
		"an override without the type":   {q: query("cdn.example.com.", dns.TypeAAAA), aa: true, ra: true, authority: []string{"cdn.example.com.\t10\tIN\tSOA\tns.mec.example. hostmaster.mec.example. 7 3600 600 86400 10"}},
		"the neighbour of an override":   {q: query("neighbour.example.com.", dns.TypeA), ra: true, answer: []string{"neighbour.example.com.\t60\tIN\tA\t198.51.100.8"}},
		"an alias asked for":             {q: query("alias.mec.example.", dns.TypeCNAME), aa: true, ra: true, answer: []string{"alias.mec.example.\t60\tIN\tCNAME\twww.mec.example."}},
		"an alias of a name that is not": {q: query("dead.mec.example.", dns.TypeA), aa: true, ra: true, rcode: dns.RcodeNameError, answer: []string{"dead.mec.example.\t60\tIN\tCNAME\tnobody.mec.example."}, authority: []string{soa}},
		"an alias of a name without it":  {q: query("empty.mec.example.", dns.TypeA), aa: true, ra: true, answer: []string{"empty.mec.example.\t60\tIN\tCNAME\tonly6.mec.example."}, authority: []string{soa}},
		"aliases of aliases": {q: query("second.mec.example.", dns.TypeA), aa: true, ra: true, answer: []string{
			"second.mec.example.\t60\tIN\tCNAME\talias.mec.example.", "alias.mec.example.\t60\tIN\tCNAME\twww.mec.example.",
			"www.mec.example.\t60\tIN\tA\t192.0.2.1", "www.mec.example.\t60\tIN\tA\t192.0.2.2",
		}},
		"an alias that leads out": {q: query("out.mec.example.", dns.TypeA), aa: true, ra: true, answer: []string{
			"out.mec.example.\t60\tIN\tCNAME\talias.example.org.", "alias.example.org.\t300\tIN\tCNAME\twww.example.org.", "www.example.org.\t300\tIN\tA\t198.51.100.7",
		}},
		"an alias that leads out to nothing": {
			q: query("lost.mec.example.", dns.TypeA), aa: true, ra: true, rcode: dns.RcodeNameError,
			answer:    []string{"lost.mec.example.\t60\tIN\tCNAME\tnobody.example.org."},
			authority: []string{"example.org.\t60\tIN\tSOA\tns.example.org. host.example.org. 1 2 3 4 60"},
		},
		"an alias that leads out, for a stranger": {q: query("out.mec.example.", dns.TypeA), from: "192.0.2.5", aa: true, answer: []string{"out.mec.example.\t60\tIN\tCNAME\talias.example.org."}},
		"forwarded":                    {q: query("www.example.ORG.", dns.TypeA), ra: true, answer: []string{"www.example.ORG.\t300\tIN\tA\t198.51.100.7"}},
		"forwarded, no such name":      {q: query("nobody.example.org.", dns.TypeA), ra: true, rcode: dns.RcodeNameError, authority: []string{"example.org.\t60\tIN\tSOA\tns.example.org. host.example.org. 1 2 3 4 60"}},
		"forwarded, too large":         {q: query("www.example.org.", dns.TypeTXT), ra: true, tc: true},
		"a zone without forwarders":    {q: query("x.never.example.", dns.TypeA), ra: true, rcode: dns.RcodeRefused, info: int(dns.ExtendedErrorCodeNotAuthoritative)},
		"recursion for a stranger":     {q: query("www.example.org.", dns.TypeA), from: "192.0.2.5", rcode: dns.RcodeRefused, info: int(dns.ExtendedErrorCodeNotAuthoritative)},
		"our own for a stranger":       {q: query("www.mec.example.", dns.TypeAAAA), from: "192.0.2.5", aa: true, answer: []string{"www.mec.example.\t60\tIN\tAAAA\t2001:db8::1"}},
		"anything for an unwanted one": {q: query("www.mec.example.", dns.TypeA), from: "203.0.113.5", rcode: dns.RcodeRefused, info: int(dns.ExtendedErrorCodeProhibited)},
		"without recursion desired":    {q: func() *dns.Msg { m := query("www.example.org.", dns.TypeA); m.RecursionDesired = false; return m }(), ra: true, rcode: dns.RcodeRefused, info: int(dns.ExtendedErrorCodeNotAuthoritative)},
		"a view":                       {q: query("pool.mec.example.", dns.TypeA), from: "10.1.2.3", aa: true, ra: true, answer: []string{"pool.mec.example.\t60\tIN\tA\t192.0.2.77"}},
		"another view":                 {q: query("pool.mec.example.", dns.TypeA), aa: true, ra: true, rcode: dns.RcodeNameError, authority: []string{soa}},
		"all types":                    {q: query("www.mec.example.", dns.TypeANY), aa: true, ra: true, answer: []string{"www.mec.example.\t3600\tIN\tHINFO\t\"RFC8482\" \"\""}},
		"all types of an alias":        {q: query("alias.mec.example.", dns.TypeANY), aa: true, ra: true, answer: []string{"alias.mec.example.\t3600\tIN\tHINFO\t\"RFC8482\" \"\""}},
		"all types of no such name":    {q: query("nobody.mec.example.", dns.TypeANY), aa: true, ra: true, rcode: dns.RcodeNameError, authority: []string{soa}},
		"all types, elsewhere":         {q: query("www.example.org.", dns.TypeANY), ra: true, answer: []string{"www.example.org.\t3600\tIN\tHINFO\t\"RFC8482\" \"\""}},
		"too large for UDP":            {q: query("many.mec.example.", dns.TypeA), aa: true, ra: true, tc: true},
		"too large for EDNS":           {q: query("more.mec.example.", dns.TypeA).SetEdns0(4096, false), aa: true, ra: true, tc: true},
		"a transfer":                   {q: query("mec.example.", dns.TypeAXFR), transport: listen.TCP, ra: true, rcode: dns.RcodeRefused, info: int(dns.ExtendedErrorCodeNotSupported)},
		"another class": {q: func() *dns.Msg {
			m := query("version.bind.", dns.TypeTXT)
			m.Question[0].Qclass = dns.ClassCHAOS
			return m
		}(), ra: true, rcode: dns.RcodeRefused, info: int(dns.ExtendedErrorCodeNotSupported)},
		"any class": {q: func() *dns.Msg {
			m := query("www.mec.example.", dns.TypeA)
			m.Question[0].Qclass = dns.ClassANY
			return m
		}(), ra: true, rcode: dns.RcodeRefused, info: int(dns.ExtendedErrorCodeNotSupported)},
		"an unknown type": {q: query("www.mec.example.", 65280), aa: true, ra: true, authority: []string{soa}},
		"another version of EDNS": {q: func() *dns.Msg {
			m := query("www.mec.example.", dns.TypeA).SetEdns0(1232, false)
			m.IsEdns0().SetVersion(1)
			return m
		}(), ra: true, rcode: dns.RcodeBadVers},
		"a cookie that is none": {q: func() *dns.Msg {
			m := query("www.mec.example.", dns.TypeA).SetEdns0(1232, false)
			m.IsEdns0().Option = []dns.EDNS0{&dns.EDNS0_COOKIE{Code: dns.EDNS0COOKIE, Cookie: "01"}}
			return m
		}(), ra: true, rcode: dns.RcodeFormatError},
	} {
		t.Run(what, func(t *testing.T) {
			if c.from == "" {
				c.from = "10.0.0.1"
			}
			edns := c.q.IsEdns0() != nil
			if !edns && c.info != 0 {
				c.q.SetEdns0(1232, false)
			}
			m := f.ask(c.from, c.transport, c.q)
			require.Equal(t, dns.RcodeToString[c.rcode], dns.RcodeToString[m.Rcode])
			require.True(t, m.Response)
			require.Equal(t, c.q.Id, m.Id)
			require.Equal(t, c.q.Question, m.Question)
			require.Equal(t, c.aa, m.Authoritative, "AA")
			require.Equal(t, c.tc, m.Truncated, "TC")
			require.Equal(t, c.ra, m.RecursionAvailable, "RA")
			require.Equal(t, c.q.RecursionDesired, m.RecursionDesired, "RD")
			require.Equal(t, c.answer, texts(m.Answer))
			require.Equal(t, c.authority, texts(m.Ns))
			opt := m.IsEdns0()
			require.Equal(t, c.q.IsEdns0() != nil, opt != nil)
			if c.info != 0 {
				require.Equal(t, c.info, int(opt.Option[0].(*dns.EDNS0_EDE).InfoCode))
			}
		})
	}
}

func texts(list []dns.RR) []string {
	var all []string
	for _, rr := range list {
		all = append(all, rr.String())
	}
	return all
}

func TestWhatIsTooLargeForUDPComesOverTCP(t *testing.T) {
	f := newFixture(t, nil)
	require.Len(t, f.ask("10.0.0.1", listen.TCP, query("more.mec.example.", dns.TypeA)).Answer, 120)
	require.Len(t, f.ask("10.0.0.1", listen.UDP, query("many.mec.example.", dns.TypeA).SetEdns0(1232, false)).Answer, 60)
	require.Len(t, f.ask("10.0.0.1", listen.TCP, query("www.example.org.", dns.TypeTXT)).Answer, 1)
}

func TestAnEndlessChainIsCut(t *testing.T) {
	f := newFixture(t, nil)
	m := f.ask("10.0.0.1", listen.UDP, query("loop1.mec.example.", dns.TypeA))
	require.Equal(t, dns.RcodeSuccess, m.Rcode)
	require.Len(t, m.Answer, 2, "each alias is said once")
	m = f.ask("10.0.0.1", listen.UDP, query("c0.mec.example.", dns.TypeA).SetEdns0(1232, false))
	require.Len(t, m.Answer, 8)
}

func TestMalformedMessages(t *testing.T) {
	f := newFixture(t, nil)
	pack := func(change func(m *dns.Msg)) []byte {
		m := query("www.mec.example.", dns.TypeA).SetEdns0(1232, true)
		change(m)
		b, err := m.Pack()
		require.NoError(t, err)
		return b
	}
	for what, c := range map[string]struct {
		msg   []byte
		rcode int // -1: no response
	}{
		"nothing":       {nil, -1},
		"half a header": {make([]byte, 11), -1},
		"a response":    {pack(func(m *dns.Msg) { m.Response = true }), -1},
		"no question":   {pack(func(m *dns.Msg) { m.Question = nil }), dns.RcodeFormatError},
		"two questions": {pack(func(m *dns.Msg) { m.Question = append(m.Question, m.Question[0]) }), dns.RcodeFormatError},
		"an update":     {pack(func(m *dns.Msg) { m.Opcode = dns.OpcodeUpdate }), dns.RcodeNotImplemented},
		"a notify":      {pack(func(m *dns.Msg) { m.Opcode = dns.OpcodeNotify }), dns.RcodeNotImplemented},
		"opcode 15":     {pack(func(m *dns.Msg) { m.Opcode = 15 }), dns.RcodeNotImplemented},
		"cut off":       {pack(func(*dns.Msg) {})[:20], dns.RcodeFormatError},
		"only a cookie": {pack(func(m *dns.Msg) {
			m.Question = nil
			m.IsEdns0().Option = []dns.EDNS0{&dns.EDNS0_COOKIE{Code: dns.EDNS0COOKIE, Cookie: "0102030405060708"}}
		}), dns.RcodeSuccess},
	} {
		t.Run(what, func(t *testing.T) {
			resp := f.raw("10.0.0.1", listen.UDP, c.msg)
			if c.rcode < 0 {
				require.Empty(t, resp)
				return
			}
			var m dns.Msg
			require.NoError(t, m.Unpack(resp))
			require.Equal(t, dns.RcodeToString[c.rcode], dns.RcodeToString[m.Rcode])
			require.Empty(t, m.Answer)
		})
	}
}

func TestNothingIsKnownBeforeTheFirstTable(t *testing.T) {
	f := newFixture(t, nil)
	f.r = resolve.New(f.policy, f.forward, nil)
	m := f.ask("10.0.0.1", listen.UDP, query("www.mec.example.", dns.TypeA).SetEdns0(1232, false))
	require.Equal(t, dns.RcodeServerFailure, m.Rcode)
	require.Equal(t, dns.ExtendedErrorCodeNotReady, m.IsEdns0().Option[0].(*dns.EDNS0_EDE).InfoCode)
}

func TestOverloadIsSaid(t *testing.T) {
	f := newFixture(t, nil)
	msg, err := query("www.example.org.", dns.TypeA).Pack()
	require.NoError(t, err)
	var m dns.Msg
	require.NoError(t, m.Unpack(f.r.Overloaded(nil, msg, &listen.Peer{AddrPort: netip.MustParseAddrPort("10.0.0.1:5")})))
	require.Equal(t, dns.RcodeServerFailure, m.Rcode)
}

func TestForwardersAreAskedOnce(t *testing.T) {
	f := newFixture(t, nil)
	f.ask("10.0.0.1", listen.UDP, query("www.example.org.", dns.TypeA))
	asked := f.up.asked.Load()
	for range 10 {
		m := f.ask("10.0.0.2", listen.UDP, query("WWW.example.org.", dns.TypeA))
		require.Equal(t, "WWW.example.org.", m.Answer[0].Header().Name)
	}
	require.Equal(t, asked, f.up.asked.Load())
	f.ask("10.0.0.1", listen.UDP, query("www.example.org.", dns.TypeA).SetEdns0(1232, true))
	require.Greater(t, f.up.asked.Load(), asked, "with DNSSEC records it is another question")
}

func TestCookiesExemptFromTheLimit(t *testing.T) {
	rates, err := protect.NewRates(protect.RatesConfig{PerSecond: 5, Slip: 2})
	require.NoError(t, err)
	f := newFixture(t, func(p *resolve.Policy) { p.Rates, p.Unlimited = rates, networks("127.0.0.0/8") })
	count := func(from string, transport listen.Transport, q *dns.Msg) (full, truncated int) {
		for range 100 {
			switch m := f.ask(from, transport, q); {
			case m == nil:
			case m.Truncated:
				truncated++
				require.Empty(t, m.Answer)
			default:
				full++
			}
		}
		return full, truncated
	}
	q := query("www.mec.example.", dns.TypeA)
	full, truncated := count("192.0.2.5", listen.UDP, q)
	require.InDelta(t, 5, full, 2)
	require.InDelta(t, 47, truncated, 4)
	for from, transport := range map[string]listen.Transport{"192.0.2.6": listen.TCP, "127.0.0.1": listen.UDP} {
		full, _ = count(from, transport, q)
		require.Equal(t, 100, full, from)
	}
	// Names that do not exist count together.
	full = 0
	for i := range 100 {
		if m := f.ask("192.0.2.128", listen.UDP, query(fmt.Sprintf("n%d.mec.example.", i), dns.TypeA)); m != nil && !m.Truncated {
			full++
		}
	}
	require.Less(t, full, 20)

	full = 0
	for i := range 100 {
		if m := f.ask("198.18.0.1", listen.UDP, query(fmt.Sprintf("n%d.any.mec.example.", i), dns.TypeA)); m != nil && !m.Truncated {
			full++
		}
	}
	require.Less(t, full, 20, "so do those of a wildcard")

	q = query("www.mec.example.", dns.TypeA).SetEdns0(1232, false)
	cookie := &dns.EDNS0_COOKIE{Code: dns.EDNS0COOKIE, Cookie: "0102030405060708"}
	q.IsEdns0().Option = []dns.EDNS0{cookie}
	cookie.Cookie = f.ask("192.0.2.200", listen.TCP, q).IsEdns0().Option[0].(*dns.EDNS0_COOKIE).Cookie
	require.Len(t, cookie.Cookie, 48)
	full, _ = count("192.0.2.200", listen.UDP, q)
	require.Equal(t, 100, full)
	full, _ = count("192.0.2.201", listen.UDP, q)
	require.Less(t, full, 100, "the cookie is another client's")
}

func TestRecordsTakeTurns(t *testing.T) {
	f := newFixture(t, func(p *resolve.Policy) { p.Rotate = true })
	first := make(map[string]int)
	for range 100 {
		first[f.ask("10.0.0.1", listen.UDP, query("www.mec.example.", dns.TypeA)).Answer[0].String()]++
	}
	require.Len(t, first, 2)
}

// FuzzAnswer sends arbitrary messages: what comes back is a response to the message, or nothing.
func FuzzAnswer(f *testing.F) {
	fix := newFixture(f, nil)
	for _, q := range []*dns.Msg{query("www.mec.example.", dns.TypeA), query("second.mec.example.", dns.TypeA).SetEdns0(700, true), query("x.example.com.", dns.TypeANY)} {
		b, err := q.Pack()
		require.NoError(f, err)
		f.Add(b, true)
	}
	f.Fuzz(func(t *testing.T, msg []byte, udp bool) {
		peer := &listen.Peer{AddrPort: netip.MustParseAddrPort("192.0.2.1:53"), Transport: listen.TCP}
		if udp {
			peer.Transport = listen.UDP
		}
		resp, wait := fix.r.Answer(nil, msg, peer)
		require.False(t, wait, "a stranger's questions are not forwarded")
		if len(resp) == 0 {
			return
		}
		var m dns.Msg
		require.NoError(t, m.Unpack(resp))
		require.True(t, m.Response)
		if udp {
			require.LessOrEqual(t, len(resp), 1232)
		}
	})
}

func BenchmarkAnswer(b *testing.B) {
	f := newFixture(b, nil)
	peer := &listen.Peer{AddrPort: netip.MustParseAddrPort("10.0.0.1:53"), Transport: listen.UDP}
	f.raw("10.0.0.1", listen.UDP, must(query("www.example.org.", dns.TypeA).Pack()))
	for what, n := range map[string]string{"table": "www.mec.example.", "nxdomain": "nobody.mec.example.", "cache": "www.example.org."} {
		msg := must(query(n, dns.TypeA).SetEdns0(1232, false).Pack())
		buf := make([]byte, 0, 2048)
		b.Run(what, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if resp, wait := f.r.Answer(buf, msg, peer); wait || len(resp) == 0 {
					b.Fatal("no answer")
				}
			}
		})
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}
