package forward

import (
	"encoding/binary"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/dnsagent/wire"
)

var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func TestTTLsBecomeLess(t *testing.T) {
	m := message(t, dns.RcodeSuccess, []string{"a.example. 60 IN CNAME b.example.", "b.example. 100 IN A 192.0.2.1"}, nil)
	m.AuthenticatedData = true
	c, err := clean(asking(t, "a.example", dns.TypeA), m)
	require.NoError(t, err)
	a, err := newAnswer(c.msg, epoch, c.ttl)
	require.NoError(t, err)
	tests := map[string]struct {
		age   time.Duration
		ttls  []uint32
		stale bool
	}{
		"asked before it came":  {-time.Second, []uint32{60, 100}, false},
		"new":                   {0, []uint32{60, 100}, false},
		"not yet a second old":  {999 * time.Millisecond, []uint32{60, 100}, false},
		"half of its time over": {30 * time.Second, []uint32{30, 70}, false},
		"its last moment":       {59999 * time.Millisecond, []uint32{1, 41}, false},
		"its time is over":      {60 * time.Second, []uint32{30, 30}, true},
		"long ago":              {1000 * time.Hour, []uint32{30, 30}, true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			now := epoch.Add(tt.age)
			buf := a.Append([]byte("before"), now)
			require.Equal(t, "before", string(buf[:6]))
			require.Len(t, buf, 6+a.Len())
			m := new(dns.Msg)
			require.NoError(t, m.Unpack(buf[6:]))
			for i, rr := range m.Answer {
				require.Equal(t, tt.ttls[i], rr.Header().Ttl)
			}
			require.Len(t, m.Answer, len(tt.ttls))
			require.Equal(t, tt.stale, a.Stale(now))
			require.Equal(t, !tt.stale, m.AuthenticatedData, "what is past its time is not vouched for")
			require.True(t, m.Response)
			require.False(t, m.Authoritative)
			require.Zero(t, m.Id)
			require.Equal(t, []dns.Question{{Name: "a.example.", Qtype: dns.TypeA, Qclass: dns.ClassINET}}, m.Question)
			answers, authority := a.Counts()
			require.Equal(t, []int{2, 0}, []int{answers, authority})
		})
	}
}

func TestAnAnswerThatIsNotKeptIsNotStale(t *testing.T) {
	c, err := clean(asking(t, "a.example", dns.TypeA), message(t, dns.RcodeSuccess, []string{"a.example. 0 IN A 192.0.2.1"}, nil))
	require.NoError(t, err)
	a, err := newAnswer(c.msg, epoch, c.ttl)
	require.NoError(t, err)
	now := epoch.Add(3 * time.Second)
	require.False(t, a.Stale(now))
	m := new(dns.Msg)
	require.NoError(t, m.Unpack(a.Append(nil, now)))
	require.Zero(t, m.Answer[0].Header().Ttl)
}

// TestRecordsHaveTheCaseOfTheClient overwrites the question of the answer with the client's, as the caller does.
func TestRecordsHaveTheCaseOfTheClient(t *testing.T) {
	c, err := clean(asking(t, "a.example", dns.TypeA), message(t, dns.RcodeSuccess, []string{"A.EXAMPLE. 60 IN A 192.0.2.1"}, nil))
	require.NoError(t, err)
	a, err := newAnswer(c.msg, epoch, c.ttl)
	require.NoError(t, err)
	buf := a.Append(nil, epoch)
	copy(buf[wire.HeaderSize:], "\x01a\x07eXamplE\x00")
	m := new(dns.Msg)
	require.NoError(t, m.Unpack(buf))
	require.Equal(t, "a.eXamplE.", m.Answer[0].Header().Name)
}

// FuzzResponse lets an upstream say anything: every answer made of it can be read, is about what was asked, and has TTLs that stay within
// bounds and decrease.
func FuzzResponse(f *testing.F) {
	for _, answer := range [][]string{
		{"a.example. 60 IN A 192.0.2.1", "x.test. 60 IN A 192.0.2.1"},
		{"a.example. 60 IN CNAME b.test.", "b.test. 2147483649 IN A 192.0.2.1", sig("b.test.", "A", "test.")},
		{"example. 60 IN DNAME test.", "a.example. 60 IN CNAME a.test.", "a.test. 0 IN TXT a b c"},
		{`a.example. 60 IN SVCB 1 . alpn="h2"`, `a.example. 60 IN TYPE65534 \# 2 abcd`, "a.example. 60 IN NAPTR 1 2 \"a\" \"b\" \"c\" ."},
	} {
		m := message(f, dns.RcodeSuccess, answer, []string{soa, "b.example. 1 IN NSEC c.example. A", sig("b.example.", "NSEC", "example.")})
		m.Question = []dns.Question{{Name: "a.example.", Qtype: dns.TypeA, Qclass: dns.ClassINET}}
		m.Compress = true
		raw, err := m.Pack()
		require.NoError(f, err)
		f.Add(raw, dns.TypeA, true, uint32(30))
		f.Add(raw, dns.TypeANY, false, uint32(100_000))
	}
	cut, err := message(f, dns.RcodeSuccess, nil, []string{"example. 60 IN SOA . . 1 2 3 4 5"}).Pack()
	require.NoError(f, err)
	cut = cut[:len(cut)-21] // after the first name of the SOA
	cut[len(cut)-2] = 1
	f.Add(cut, dns.TypeA, true, uint32(1))
	const name = "a.example"
	f.Fuzz(func(t *testing.T, raw []byte, qtype uint16, do bool, age uint32) {
		msg, err := decode(raw)
		if err != nil {
			return
		}
		q := asking(t, name, qtype)
		q.DO = do
		c, err := clean(q, msg)
		if err != nil {
			return
		}
		answer, err := newAnswer(c.msg, epoch, c.ttl)
		if err != nil {
			return
		}
		first, later := new(dns.Msg), new(dns.Msg)
		buf := answer.Append(make([]byte, 0, 65535), epoch)
		require.Len(t, buf, answer.Len())
		require.NoError(t, first.Unpack(buf))
		now := epoch.Add(time.Duration(age) * time.Second)
		buf = answer.Append(nil, now)
		require.Len(t, buf, answer.Len())
		require.NoError(t, later.Unpack(buf))
		require.Equal(t, []dns.Question{{Name: name + ".", Qtype: qtype, Qclass: dns.ClassINET}}, later.Question)
		answers, authority := answer.Counts()
		require.Len(t, later.Answer, answers)
		require.Len(t, later.Ns, authority)
		require.Zero(t, binary.BigEndian.Uint16(buf[10:]))
		names := map[string]bool{name + ".": true}
		for i, rr := range later.Answer {
			h := rr.Header()
			require.Equal(t, uint16(dns.ClassINET), h.Class)
			_, tree := rr.(*dns.DNAME)
			covered, signature := rr.(*dns.RRSIG)
			if !tree && (!signature || covered.TypeCovered != dns.TypeDNAME) {
				require.True(t, names[dns.CanonicalName(h.Name)], "%s is none of the names asked for: %v", h.Name, names)
			}
			if alias, ok := rr.(*dns.CNAME); ok {
				names[dns.CanonicalName(alias.Target)] = true
			}
			before := first.Answer[i].Header().Ttl
			require.LessOrEqual(t, time.Duration(before)*time.Second, DefaultMaxTTL)
			if answer.Stale(now) {
				require.Equal(t, uint32(staleTTL), h.Ttl)
			} else {
				require.Equal(t, before-min(before, age), h.Ttl)
			}
		}
		for _, rr := range later.Ns {
			switch rr.(type) {
			case *dns.SOA:
			case *dns.NSEC, *dns.NSEC3, *dns.DS, *dns.RRSIG:
				require.True(t, do)
			default:
				t.Fatalf("a record of the type %T is in the authority section", rr)
			}
		}
	})
}

// FuzzMatch feeds arbitrary messages: only one that begins like the response counts.
func FuzzMatch(f *testing.F) {
	f.Add([]byte{0, 0, 0x80}, true)
	f.Add(newQuery(asking(f, "a.example", dns.TypeA), 0, false, false).message(), false)
	f.Fuzz(func(t *testing.T, raw []byte, mix bool) {
		q := newQuery(asking(t, "a.example", dns.TypeA), 1232, mix, false)
		if len(raw) >= 2 {
			copy(raw, q.message()[:2])
		}
		if q.match(raw) == matches {
			require.Equal(t, q.question(), raw[wire.HeaderSize:wire.HeaderSize+len(q.question())])
			require.Equal(t, byte(0x80), raw[2]&0x80)
		}
		if len(raw) >= 2 {
			raw[0]++
			require.NotEqual(t, matches, q.match(raw))
		}
	})
}

func TestRecordsThatEndEarlyAreNotPassedOn(t *testing.T) {
	m := message(t, dns.RcodeSuccess, nil, []string{"example. 60 IN SOA . . 1 2 3 4 5"})
	raw, err := m.Pack()
	require.NoError(t, err)
	raw = raw[:len(raw)-21] // after the first name of the SOA
	raw[len(raw)-2] = 1     // RDLENGTH of the SOA
	cut, err := decode(raw)
	require.NoError(t, err, "the library reads it")
	c, err := clean(asking(t, "a.example", dns.TypeA), cut)
	require.NoError(t, err)
	_, err = newAnswer(c.msg, epoch, c.ttl)
	require.Error(t, err)
}
