package forward

import (
	"crypto/tls"
	"encoding/binary"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/openmep/mep/dnsagent/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// waitTime is how long tests wait for what must happen.
const waitTime = 20 * time.Second

// fake is an upstream with its own sockets. The test decides what it sends in response to a query: any number of messages, or none.
type fake struct {
	addr     netip.AddrPort
	udp      *net.UDPConn
	streams  net.Listener
	overUDP  atomic.Int64
	overTCP  atomic.Int64
	accepted atomic.Int64
	work     sync.WaitGroup
	answers  atomic.Pointer[answers]
	most     atomic.Int64 // queries answered on a connection before it is closed; 0: all

	mu      sync.Mutex
	queries []received
	conns   map[net.Conn]bool
	closed  bool
}

type answers func(r received) [][]byte

type received struct {
	*dns.Msg
	raw  []byte
	from net.Addr
	tcp  bool
}

// newFake starts an upstream. With a TLS configuration, its TCP port accepts nothing but TLS.
func newFake(t *testing.T, secure *tls.Config, say answers) *fake {
	t.Helper()
	f := &fake{conns: make(map[net.Conn]bool)}
	f.say(say)
	for range 50 { // the TCP port of the same number may be in use
		var err error
		f.udp, err = net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		require.NoError(t, err)
		f.addr = f.udp.LocalAddr().(*net.UDPAddr).AddrPort()
		if f.streams, err = net.Listen("tcp", f.addr.String()); err == nil {
			break
		}
		require.NoError(t, f.udp.Close())
		f.streams = nil
	}
	require.NotNil(t, f.streams)
	if secure != nil {
		f.streams = tls.NewListener(f.streams, secure)
	}
	f.work.Go(f.serveUDP)
	f.work.Go(f.serveStreams)
	t.Cleanup(f.close)
	return f
}

func (f *fake) close() {
	_ = f.udp.Close()
	_ = f.streams.Close()
	f.mu.Lock()
	f.closed = true
	f.mu.Unlock()
	f.hangUp()
	f.work.Wait()
}

// hangUp closes all open connections.
func (f *fake) hangUp() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for conn := range f.conns {
		_ = conn.Close()
	}
}

func (f *fake) say(a answers) { f.answers.Store(&a) }

func (f *fake) upstream() Upstream { return Upstream{Addr: f.addr} }

func (f *fake) asked() int { return int(f.overUDP.Load() + f.overTCP.Load()) }

func (f *fake) received() []received {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]received(nil), f.queries...)
}

func (f *fake) take(raw []byte, from net.Addr, tcp bool) [][]byte {
	r := received{Msg: new(dns.Msg), raw: append([]byte(nil), raw...), from: from, tcp: tcp}
	if r.Unpack(r.raw) != nil || len(r.Question) != 1 {
		return nil
	}
	f.mu.Lock()
	f.queries = append(f.queries, r)
	f.mu.Unlock()
	if tcp {
		f.overTCP.Add(1)
	} else {
		f.overUDP.Add(1)
	}
	return (*f.answers.Load())(r)
}

func (f *fake) serveUDP() {
	var work sync.WaitGroup
	defer work.Wait()
	buf := make([]byte, 65535)
	for {
		n, from, err := f.udp.ReadFromUDP(buf)
		if err != nil {
			return
		}
		raw := append([]byte(nil), buf[:n]...)
		work.Go(func() {
			for _, msg := range f.take(raw, from, false) {
				_, _ = f.udp.WriteToUDP(msg, from)
			}
		})
	}
}

func (f *fake) serveStreams() {
	var work sync.WaitGroup
	defer work.Wait()
	for {
		conn, err := f.streams.Accept()
		if err != nil {
			return
		}
		f.accepted.Add(1)
		f.mu.Lock()
		f.conns[conn] = true
		if f.closed {
			_ = conn.Close()
		}
		f.mu.Unlock()
		work.Go(func() {
			defer func() {
				_ = conn.Close()
				f.mu.Lock()
				delete(f.conns, conn)
				f.mu.Unlock()
			}()
			for n := int64(1); ; n++ {
				raw, err := readFramed(conn)
				if err != nil {
					return
				}
				said := f.take(raw, conn.RemoteAddr(), true)
				if said == nil { // hang up without a response
					return
				}
				for _, msg := range said {
					framed := binary.BigEndian.AppendUint16(nil, uint16(len(msg)))
					if _, err := conn.Write(append(framed, msg...)); err != nil {
						return
					}
				}
				if n == f.most.Load() {
					return
				}
			}
		})
	}
}

// reply returns a response to a query, with records in zone file format.
func (r received) reply(t require.TestingT, records ...string) *dns.Msg {
	m := new(dns.Msg)
	m.SetReply(r.Msg)
	m.RecursionAvailable = true
	m.Answer = parse(t, records...)
	return m
}

func parse(t require.TestingT, records ...string) []dns.RR {
	var rrs []dns.RR
	for _, s := range records {
		rr, err := dns.NewRR(s)
		require.NoError(t, err, s)
		rrs = append(rrs, rr)
	}
	return rrs
}

func packed(t require.TestingT, msgs ...*dns.Msg) [][]byte {
	var all [][]byte
	for _, m := range msgs {
		m.Compress = true
		raw, err := m.Pack()
		require.NoError(t, err)
		all = append(all, raw)
	}
	return all
}

// address answers with an address for the name in the question.
func address(t require.TestingT, ip string, ttl string) answers {
	return func(r received) [][]byte {
		return packed(t, r.reply(t, r.Question[0].Name+" "+ttl+" A "+ip))
	}
}

// code answers with a response code.
func code(t require.TestingT, rcode int) answers {
	return func(r received) [][]byte {
		m := r.reply(t)
		m.Rcode = rcode
		return packed(t, m)
	}
}

func silence(received) [][]byte { return nil }

// clock is a clock that can be put forward.
type clock struct{ ahead atomic.Int64 }

func (c *clock) now() time.Time          { return time.Now().Add(time.Duration(c.ahead.Load())) }
func (c *clock) forward(d time.Duration) { c.ahead.Add(int64(d)) }

// subject is a forwarder under test.
type subject struct {
	*Forwarder
	clock *clock
	reg   *prometheus.Registry
}

func rootZone(upstreams ...Upstream) []Zone { return []Zone{{Name: wire.Root, Upstreams: upstreams}} }

// newSubject returns a forwarder with a long timeout, unless the test says otherwise. It is not run.
func newSubject(t testing.TB, cfg Config) *subject {
	t.Helper()
	if cfg.Timeout == 0 {
		cfg.Timeout = 4 * waitTime
	}
	if cfg.CacheBytes == 0 {
		cfg.CacheBytes = 1 << 20
	}
	s := &subject{clock: &clock{}, reg: prometheus.NewRegistry()}
	var err error
	s.Forwarder, err = New(cfg, nil, s.reg)
	require.NoError(t, err)
	s.now = s.clock.now
	t.Cleanup(s.close)
	return s
}

func (s *subject) ask(t require.TestingT, name string) (*dns.Msg, error) {
	a, err := s.Resolve(tContext(t), asking(t, name, dns.TypeA))
	if err != nil {
		return nil, err
	}
	return s.read(t, a), nil
}

// read unpacks an answer as it would be sent now.
func (s *subject) read(t require.TestingT, a *Answer) *dns.Msg {
	m := new(dns.Msg)
	require.NoError(t, m.Unpack(a.Append(nil, s.clock.now())))
	return m
}

func asking(t require.TestingT, name string, qtype uint16) *Question {
	n, err := wire.ParseName(name)
	require.NoError(t, err)
	return &Question{Name: n, Type: qtype, Class: dns.ClassINET}
}

// count returns the value of a counter or gauge, or 0 if it does not exist.
func (s *subject) count(t require.TestingT, name string, labels ...string) float64 {
	families, err := s.reg.Gather()
	require.NoError(t, err)
	for _, family := range families {
		if family.GetName() != name {
			continue
		}
	metrics:
		for _, m := range family.GetMetric() {
			for _, wanted := range labels {
				found := false
				for _, l := range m.GetLabel() {
					found = found || l.GetValue() == wanted
				}
				if !found {
					continue metrics
				}
			}
			return m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	return 0
}

func addresses(m *dns.Msg) (list []string) {
	for _, rr := range m.Answer {
		if a, ok := rr.(*dns.A); ok {
			list = append(list, a.A.String())
		}
	}
	return list
}

func TestMetricsAreInOrder(t *testing.T) {
	s := newSubject(t, Config{Zones: rootZone(newFake(t, nil, address(t, "192.0.2.1", "60")).upstream())})
	_, err := s.ask(t, "a.example")
	require.NoError(t, err)
	problems, err := testutil.GatherAndLint(s.reg)
	require.NoError(t, err)
	require.Empty(t, problems)
}
