package forward

import (
	"context"
	"net"
	"strings"
	"testing"

	"github.com/miekg/dns"
	"github.com/stretchr/testify/require"
)

func tContext(t require.TestingT) context.Context {
	if t, ok := t.(interface{ Context() context.Context }); ok {
		return t.Context()
	}
	return context.Background()
}

// TestLiesAreIgnored has the upstream, or a spoofer, send something wrong before the right response.
func TestLiesAreIgnored(t *testing.T) {
	tests := map[string]struct {
		lie    func(m *dns.Msg) []byte
		reason string
	}{
		"another id":               {func(m *dns.Msg) []byte { m.Id++; return packed(t, m)[0] }, otherID},
		"not a response":           {func(m *dns.Msg) []byte { m.Response = false; return packed(t, m)[0] }, noResponse},
		"another opcode":           {func(m *dns.Msg) []byte { m.Opcode = dns.OpcodeNotify; return packed(t, m)[0] }, noResponse},
		"another name":             {func(m *dns.Msg) []byte { m.Question[0].Name = "b.example."; return packed(t, m)[0] }, otherName},
		"a longer name":            {func(m *dns.Msg) []byte { m.Question[0].Name = "www.a.example."; return packed(t, m)[0] }, otherName},
		"another type":             {func(m *dns.Msg) []byte { m.Question[0].Qtype = dns.TypeAAAA; return packed(t, m)[0] }, otherName},
		"another class":            {func(m *dns.Msg) []byte { m.Question[0].Qclass = dns.ClassCHAOS; return packed(t, m)[0] }, otherName},
		"two questions":            {func(m *dns.Msg) []byte { m.Question = append(m.Question, m.Question[0]); return packed(t, m)[0] }, otherName},
		"too short for a header":   {func(m *dns.Msg) []byte { return packed(t, m)[0][:11] }, tooShort},
		"too short for a question": {func(m *dns.Msg) []byte { return packed(t, m)[0][:20] }, otherName},
		"nothing at all":           {func(*dns.Msg) []byte { return []byte{} }, tooShort},
		"cut off within a record":  {func(m *dns.Msg) []byte { raw := packed(t, m)[0]; return raw[:len(raw)-3] }, notDecodable},
		"cut off between records":  {func(m *dns.Msg) []byte { raw := packed(t, m)[0]; return raw[:len(raw)-16] }, notDecodable},
		"a name that never ends":   {func(m *dns.Msg) []byte { return append(packed(t, m)[0][:12+15], 0xc0, 12+15) }, notDecodable},
		"more records than are there": {func(m *dns.Msg) []byte {
			raw := packed(t, m)[0]
			raw[9] = 200 // authority
			return raw
		}, notDecodable},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			up := newFake(t, nil, func(r received) [][]byte {
				lie := r.reply(t, r.Question[0].Name+" 60 A 203.0.113.66")
				lie.Question = append([]dns.Question(nil), lie.Question...)
				truth := r.reply(t, r.Question[0].Name+" 60 A 192.0.2.1")
				return append([][]byte{tt.lie(lie)}, packed(t, truth)...)
			})
			s := newSubject(t, Config{Zones: rootZone(up.upstream()), RandomCase: true})
			m, err := s.ask(t, "a.example")
			require.NoError(t, err)
			require.Equal(t, []string{"192.0.2.1"}, addresses(m))
			require.Equal(t, 1, up.asked(), "the right answer came to the first query")
			require.InDelta(t, 1, s.count(t, "mep_dns_forward_ignored_total", tt.reason), 0)
		})
	}
}

// TestOthersAreNotHeard first answers from a socket that is not the upstream's, with full knowledge of the query.
func TestOthersAreNotHeard(t *testing.T) {
	forger, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	require.NoError(t, err)
	defer forger.Close()
	up := newFake(t, nil, func(r received) [][]byte {
		_, err := forger.WriteTo(packed(t, r.reply(t, r.Question[0].Name+" 60 A 203.0.113.66"))[0], r.from)
		require.NoError(t, err)
		return packed(t, r.reply(t, r.Question[0].Name+" 60 A 192.0.2.1"))
	})
	s := newSubject(t, Config{Zones: rootZone(up.upstream())})
	m, err := s.ask(t, "a.example")
	require.NoError(t, err)
	require.Equal(t, []string{"192.0.2.1"}, addresses(m))
}

// TestDoubtsAreAskedAboutOverTCP covers messages over UDP that are nearly right, or truncated on purpose.
func TestDoubtsAreAskedAboutOverTCP(t *testing.T) {
	tests := map[string]struct {
		overUDP func(m *dns.Msg) [][]byte
		reason  overTCP
	}{
		"capitals are not kept": {func(m *dns.Msg) [][]byte {
			m.Question[0].Name = strings.ToLower(m.Question[0].Name)
			return packed(t, m)
		}, wasDoubtful},
		"there is no question": {func(m *dns.Msg) [][]byte {
			m.Question, m.Answer, m.Rcode = nil, nil, dns.RcodeNameError
			return packed(t, m)
		}, wasDoubtful},
		"truncated": {func(m *dns.Msg) [][]byte {
			m.Truncated, m.Answer = true, nil
			return packed(t, m)
		}, wasTruncated},
		"truncated within a record": {func(m *dns.Msg) [][]byte {
			m.Truncated = true
			raw := packed(t, m)[0]
			return [][]byte{raw[:len(raw)-2]}
		}, wasTruncated},
		"somebody guesses ids": {func(m *dns.Msg) (all [][]byte) {
			for range maxIgnored {
				m.Id++
				all = append(all, packed(t, m)...)
			}
			return all
		}, wasDoubtful},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			up := newFake(t, nil, func(r received) [][]byte {
				if !r.tcp {
					m := r.reply(t, r.Question[0].Name+" 60 A 203.0.113.66")
					m.Question = append([]dns.Question(nil), m.Question...)
					return tt.overUDP(m)
				}
				m := r.reply(t, r.Question[0].Name+" 60 A 192.0.2.1")
				m.Question = append([]dns.Question(nil), m.Question...)
				m.Question[0].Name = strings.ToLower(m.Question[0].Name) // over TCP this does not matter
				return packed(t, m)
			})
			s := newSubject(t, Config{Zones: rootZone(up.upstream()), RandomCase: true})
			m, err := s.ask(t, "with.many.letters.so.that.some.become.capitals.a.example")
			require.NoError(t, err)
			require.Equal(t, []string{"192.0.2.1"}, addresses(m))
			require.Equal(t, int64(1), up.overUDP.Load())
			require.Equal(t, int64(1), up.overTCP.Load())
			require.InDelta(t, 1, s.count(t, "mep_dns_forward_tcp_total", string(tt.reason)), 0)
		})
	}
}

func TestOverTCPTooOnlyTheRightAnswerCounts(t *testing.T) {
	up := newFake(t, nil, func(r received) [][]byte {
		m := r.reply(t, r.Question[0].Name+" 60 A 192.0.2.1")
		if !r.tcp {
			m.Truncated = true
			return packed(t, m)
		}
		lies := []*dns.Msg{r.reply(t), r.reply(t), r.reply(t)}
		lies[0].Id++
		lies[1].Question = []dns.Question{{Name: "b.example.", Qtype: dns.TypeA, Qclass: dns.ClassINET}}
		lies[2].Question = nil
		return packed(t, append(lies, m)...)
	})
	s := newSubject(t, Config{Zones: rootZone(up.upstream())})
	m, err := s.ask(t, "a.example")
	require.NoError(t, err)
	require.Equal(t, []string{"192.0.2.1"}, addresses(m))
}

func TestALargeAnswerComesWhole(t *testing.T) {
	const records = 3000
	up := newFake(t, nil, func(r received) [][]byte {
		m := r.reply(t)
		if !r.tcp {
			m.Truncated = true
			return packed(t, m)
		}
		for i := range records {
			m.Answer = append(m.Answer, &dns.A{
				Hdr: dns.RR_Header{Name: r.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 60},
				A:   net.IPv4(10, 0, byte(i>>8), byte(i)),
			})
		}
		return packed(t, m)
	})
	s := newSubject(t, Config{Zones: rootZone(up.upstream()), CacheBytes: 64 << 20})
	for range 2 {
		m, err := s.ask(t, "a.example")
		require.NoError(t, err)
		require.Len(t, m.Answer, records)
	}
	require.Equal(t, int64(1), up.overTCP.Load())
}

func TestServersWithoutEDNSAreAskedWithoutIt(t *testing.T) {
	for _, rcode := range []int{dns.RcodeFormatError, dns.RcodeNotImplemented} {
		for _, question := range []bool{true, false} {
			up := newFake(t, nil, func(r received) [][]byte {
				if r.IsEdns0() == nil {
					return packed(t, r.reply(t, r.Question[0].Name+" 60 A 192.0.2.1"))
				}
				m := r.reply(t)
				m.Rcode = rcode
				if !question {
					m.Question = nil
				}
				return packed(t, m)
			})
			s := newSubject(t, Config{Zones: rootZone(up.upstream())})
			m, err := s.ask(t, "a.example")
			require.NoError(t, err)
			require.Equal(t, []string{"192.0.2.1"}, addresses(m))
		}
	}
}

func TestWhatIsSent(t *testing.T) {
	up := newFake(t, nil, code(t, dns.RcodeSuccess))
	s := newSubject(t, Config{Zones: rootZone(up.upstream()), RandomCase: true, UDPSize: 1400})
	for _, do := range []bool{false, true} {
		for _, cd := range []bool{false, true} {
			q := asking(t, "a.long.name.so.that.some.letters.become.capitals.example", dns.TypeMX)
			q.DO, q.CD = do, cd
			_, err := s.Resolve(t.Context(), q)
			require.NoError(t, err)
			queries := up.received()
			got := queries[len(queries)-1]
			require.Equal(t, cd, got.CheckingDisabled)
			require.True(t, got.RecursionDesired)
			require.True(t, got.AuthenticatedData)
			require.Equal(t, dns.OpcodeQuery, got.Opcode)
			require.Equal(t, dns.TypeMX, got.Question[0].Qtype)
			require.True(t, strings.EqualFold("a.long.name.so.that.some.letters.become.capitals.example.", got.Question[0].Name))
			opt := got.IsEdns0()
			require.NotNil(t, opt)
			require.Equal(t, do, opt.Do())
			require.Equal(t, uint16(1400), opt.UDPSize())
			require.Empty(t, opt.Option, "neither cookies nor a subnet of clients")
			require.Len(t, got.Extra, 1)
		}
	}
}

// TestQueriesCannotBeGuessed checks the IDs, ports and capitals of many queries. That half of so many random values are equal does not
// happen.
func TestQueriesCannotBeGuessed(t *testing.T) {
	up := newFake(t, nil, code(t, dns.RcodeSuccess)) // without SOA, so that it is not kept
	s := newSubject(t, Config{Zones: rootZone(up.upstream()), RandomCase: true})
	const queries = 200
	for range queries {
		_, err := s.ask(t, "a.long.name.with.many.letters.example")
		require.NoError(t, err)
	}
	ids, ports, names := map[uint16]bool{}, map[string]bool{}, map[string]bool{}
	for _, r := range up.received() {
		ids[r.Id], ports[r.from.String()], names[r.Question[0].Name] = true, true, true
	}
	require.Greater(t, len(ids), queries/2)
	require.Greater(t, len(ports), queries/2)
	require.Greater(t, len(names), queries/2)
}
