package forward

import (
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/stretchr/testify/require"
)

const sigOf = " IN RRSIG %T 13 2 60 20300101000000 20200101000000 1 %S c2lnbmF0dXJl"

// sig returns a signature of the records of a type, signed by a zone.
func sig(owner, covered, signer string) string {
	return owner + " 60" + strings.NewReplacer("%T", covered, "%S", signer).Replace(sigOf)
}

func clean(q *Question, m *dns.Msg) (*cleaned, error) {
	return sanitise(q, &response{msg: m, sent: q.Name.String()}, DefaultMaxTTL, DefaultMaxNegativeTTL)
}

func message(t require.TestingT, rcode int, answer, authority []string) *dns.Msg {
	m := &dns.Msg{MsgHdr: dns.MsgHdr{Response: true, Rcode: rcode}}
	m.Answer, m.Ns = parse(t, answer...), parse(t, authority...)
	raw, err := m.Pack() // as if the message came over the network
	require.NoError(t, err)
	m = new(dns.Msg)
	require.NoError(t, m.Unpack(raw))
	return m
}

func lines(rrs []dns.RR) []string {
	var all []string
	for _, rr := range rrs {
		all = append(all, strings.Join(strings.Fields(rr.String()), " "))
	}
	return all
}

const soa = "example. 300 IN SOA ns.example. root.example. 1 2 3 4 120"

func TestWhatIsKeptOfAResponse(t *testing.T) {
	tests := map[string]struct {
		name, qtype       string
		do                bool
		rcode             int
		answer, authority []string
		wantAnswer        []string
		wantAuthority     []string
		ttl               time.Duration
	}{
		"records of the name and type": {
			name:       "a.example",
			answer:     []string{"a.example. 60 IN A 192.0.2.1", "a.example. 50 IN A 192.0.2.2", "a.example. 70 IN A 192.0.2.1"},
			wantAnswer: []string{"a.example. 50 IN A 192.0.2.1", "a.example. 50 IN A 192.0.2.2"},
			ttl:        50 * time.Second,
		},
		"nothing of other names, types and classes": {
			name: "a.example",
			answer: []string{
				"bank.example. 60 IN A 203.0.113.66", "a.example. 60 IN A 192.0.2.1", "a.example. 60 IN AAAA 2001:db8::66",
				"a.example. 60 CH A 203.0.113.66", "www.a.example. 60 IN A 203.0.113.66", "example. 60 IN NS evil.example.",
			},
			wantAnswer: []string{"a.example. 60 IN A 192.0.2.1"},
			ttl:        60 * time.Second,
		},
		"nothing of the authority when there is an answer": {
			name:       "a.example",
			answer:     []string{"a.example. 60 IN A 192.0.2.1"},
			authority:  []string{"example. 60 IN NS evil.example.", "com. 60 IN NS evil.example.", soa, ". 60 IN NS evil.example."},
			wantAnswer: []string{"a.example. 60 IN A 192.0.2.1"},
			ttl:        60 * time.Second,
		},
		"aliases in the order they lead on": {
			name: "a.example",
			answer: []string{
				"c.test. 60 IN A 192.0.2.1", "bank.test. 60 IN A 203.0.113.66", "b.test. 30 IN CNAME c.test.", "a.example. 60 IN CNAME b.test.",
				"x.test. 60 IN CNAME bank.test.",
			},
			wantAnswer: []string{"a.example. 60 IN CNAME b.test.", "b.test. 30 IN CNAME c.test.", "c.test. 60 IN A 192.0.2.1"},
			ttl:        30 * time.Second,
		},
		"one alias of a name": {
			name: "a.example",
			answer: []string{
				"a.example. 60 IN CNAME b.test.", "a.example. 60 IN CNAME bank.test.", "bank.test. 60 IN A 203.0.113.66",
				"b.test. 60 IN A 192.0.2.1",
			},
			wantAnswer: []string{"a.example. 60 IN CNAME b.test.", "b.test. 60 IN A 192.0.2.1"},
			ttl:        60 * time.Second,
		},
		"the alias itself when that is asked for": {
			name: "a.example", qtype: "CNAME",
			answer:     []string{"a.example. 60 IN CNAME b.test.", "b.test. 60 IN CNAME c.test."},
			wantAnswer: []string{"a.example. 60 IN CNAME b.test."},
			ttl:        60 * time.Second,
		},
		"aliases in a circle": {
			name:       "a.example",
			answer:     []string{"a.example. 60 IN CNAME b.test.", "b.test. 60 IN CNAME a.example."},
			wantAnswer: []string{"a.example. 60 IN CNAME b.test.", "b.test. 60 IN CNAME a.example."},
			ttl:        60 * time.Second,
		},
		"the tree the alias comes from": {
			name: "www.a.example",
			answer: []string{
				"test. 60 IN DNAME evil.test.", "a.example. 60 IN DNAME b.test.", "www.a.example. 60 IN CNAME www.b.test.",
				"www.b.test. 60 IN A 192.0.2.1",
			},
			wantAnswer: []string{
				"a.example. 60 IN DNAME b.test.", "www.a.example. 60 IN CNAME www.b.test.", "www.b.test. 60 IN A 192.0.2.1",
			},
			ttl: 60 * time.Second,
		},
		"no tree the alias does not come from": {
			name: "www.a.example",
			answer: []string{
				"example. 60 IN DNAME evil.test.", "www.a.example. 60 IN CNAME www.b.test.", "www.b.test. 60 IN A 192.0.2.1",
			},
			wantAnswer: []string{"www.a.example. 60 IN CNAME www.b.test.", "www.b.test. 60 IN A 192.0.2.1"},
			ttl:        60 * time.Second,
		},
		"anything of the name": {
			name: "a.example", qtype: "ANY",
			answer:     []string{"a.example. 60 IN A 192.0.2.1", "a.example. 60 IN TXT t", "b.example. 60 IN A 203.0.113.66"},
			wantAnswer: []string{"a.example. 60 IN A 192.0.2.1", `a.example. 60 IN TXT "t"`},
			ttl:        60 * time.Second,
		},
		"capitals of others": {
			name:       "a.example",
			answer:     []string{"A.Example. 60 IN CNAME Printer.Test.", "printer.test. 60 IN A 192.0.2.1"},
			wantAnswer: []string{"a.example. 60 IN CNAME Printer.Test.", "printer.test. 60 IN A 192.0.2.1"},
			ttl:        60 * time.Second,
		},
		"that there is no such record": {
			name:          "a.example",
			authority:     []string{"example. 60 IN NS ns.example.", soa},
			wantAuthority: []string{"example. 120 IN SOA ns.example. root.example. 1 2 3 4 120"},
			ttl:           120 * time.Second,
		},
		"that there is no such name": {
			name: "a.example", rcode: dns.RcodeNameError,
			authority:     []string{"example. 30 IN SOA ns.example. root.example. 1 2 3 4 120"},
			wantAuthority: []string{"example. 30 IN SOA ns.example. root.example. 1 2 3 4 120"},
			ttl:           30 * time.Second,
		},
		"that the alias leads nowhere": {
			name: "a.example", rcode: dns.RcodeNameError,
			answer:        []string{"a.example. 60 IN CNAME b.test."},
			authority:     []string{"test. 300 IN SOA ns.test. root.test. 1 2 3 4 120"},
			wantAnswer:    []string{"a.example. 60 IN CNAME b.test."},
			wantAuthority: []string{"test. 120 IN SOA ns.test. root.test. 1 2 3 4 120"},
			ttl:           60 * time.Second,
		},
		"no SOA of zones the name is not in": {
			name: "a.example", rcode: dns.RcodeNameError,
			authority: []string{"test. 300 IN SOA ns.test. root.test. 1 2 3 4 120", "www.a.example. 300 IN SOA ns.test. root.test. 1 2 3 4 120"},
		},
		"no more than an hour of that something does not exist": {
			name: "a.example", rcode: dns.RcodeNameError,
			authority:     []string{"example. 90000 IN SOA ns.example. root.example. 1 2 3 4 90000"},
			wantAuthority: []string{"example. 3600 IN SOA ns.example. root.example. 1 2 3 4 90000"},
			ttl:           time.Hour,
		},
		"no more than a day of anything": {
			name:       "a.example",
			answer:     []string{"a.example. 2000000 IN A 192.0.2.1"},
			wantAnswer: []string{"a.example. 86400 IN A 192.0.2.1"},
			ttl:        24 * time.Hour,
		},
		"a TTL with the first bit set as a large one": { // RFC 8767 4
			name:       "a.example",
			answer:     []string{"a.example. 2147483648 IN A 192.0.2.1", "a.example. 4294967295 IN A 192.0.2.2"},
			wantAnswer: []string{"a.example. 86400 IN A 192.0.2.1", "a.example. 86400 IN A 192.0.2.2"},
			ttl:        24 * time.Hour,
		},
		"that there is no such record, for a long time": {
			name:          "a.example",
			authority:     []string{"example. 2147483648 IN SOA ns.example. root.example. 1 2 3 4 4294967295"},
			wantAuthority: []string{"example. 3600 IN SOA ns.example. root.example. 1 2 3 4 4294967295"},
			ttl:           time.Hour,
		},
		"an alias whose target the upstream does not know": {
			name:       "a.example",
			answer:     []string{"a.example. 60 IN CNAME b.test."},
			authority:  []string{"test. 60 IN NS ns.test."},
			wantAnswer: []string{"a.example. 60 IN CNAME b.test."},
			ttl:        60 * time.Second,
		},
		"signatures of what is kept, when they are asked for": {
			name: "a.example", do: true,
			answer: []string{
				"a.example. 60 IN CNAME b.example.", sig("a.example.", "CNAME", "example."), sig("a.example.", "TXT", "example."),
				"b.example. 60 IN A 192.0.2.1", sig("b.example.", "A", "example."), sig("c.example.", "A", "example."),
			},
			wantAnswer: []string{
				"a.example. 60 IN CNAME b.example.", sig("a.example.", "CNAME", "example."),
				"b.example. 60 IN A 192.0.2.1", sig("b.example.", "A", "example."),
			},
			ttl: 60 * time.Second,
		},
		"no signatures when they are not asked for": {
			name:       "a.example",
			answer:     []string{"a.example. 60 IN A 192.0.2.1", sig("a.example.", "A", "example.")},
			authority:  []string{"b.example. 60 IN NSEC z.example. A", sig("b.example.", "NSEC", "example.")},
			wantAnswer: []string{"a.example. 60 IN A 192.0.2.1"},
			ttl:        60 * time.Second,
		},
		"proofs that something does not exist": {
			name: "m.example", do: true, rcode: dns.RcodeNameError,
			authority: []string{
				soa, sig("example.", "SOA", "example."), "b.example. 300 IN NSEC z.example. A", sig("b.example.", "NSEC", "example."),
				"b.test. 300 IN NSEC z.test. A", sig("b.test.", "NSEC", "test."), "b.test. 300 IN NSEC z.test. A",
				sig("b.test.", "NSEC", "example."), "q.example. 300 IN NSEC z.example. A", "example. 300 IN NS evil.test.",
				"example. 300 IN A 203.0.113.66",
			},
			wantAuthority: []string{
				"example. 120 IN SOA ns.example. root.example. 1 2 3 4 120", sig("example.", "SOA", "example."),
				"b.example. 120 IN NSEC z.example. A", sig("b.example.", "NSEC", "example."),
			},
			ttl: 60 * time.Second,
		},
		"the proof that a wildcard was meant": {
			name: "m.example", do: true,
			answer:        []string{"m.example. 60 IN A 192.0.2.1", sig("m.example.", "A", "example.")},
			authority:     []string{"b.example. 60 IN NSEC z.example. A", sig("b.example.", "NSEC", "example."), "example. 60 IN NS ns.example."},
			wantAnswer:    []string{"m.example. 60 IN A 192.0.2.1", sig("m.example.", "A", "example.")},
			wantAuthority: []string{"b.example. 60 IN NSEC z.example. A", sig("b.example.", "NSEC", "example.")},
			ttl:           60 * time.Second,
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			q := asking(t, tt.name, dns.TypeA)
			if tt.qtype != "" {
				q.Type = dns.StringToType[tt.qtype]
			}
			q.DO = tt.do
			m := message(t, tt.rcode, tt.answer, tt.authority)
			m.Extra = parse(t, "evil.example. 60 IN A 203.0.113.66")
			got, err := clean(q, m)
			require.NoError(t, err)
			require.Equal(t, tt.wantAnswer, lines(got.msg.Answer))
			require.Equal(t, tt.wantAuthority, lines(got.msg.Ns))
			require.Empty(t, got.msg.Extra)
			require.Equal(t, tt.rcode, got.msg.Rcode)
			require.Equal(t, tt.ttl, got.ttl)
		})
	}
}

func cutOff(m *dns.Msg) *dns.Msg {
	m.Truncated = true
	return m
}

func TestResponsesThatAreNoAnswer(t *testing.T) {
	tests := map[string]*dns.Msg{
		"a referral":                   message(t, dns.RcodeSuccess, nil, []string{"example. 60 IN NS ns.example."}),
		"records that do not exist":    message(t, dns.RcodeNameError, []string{"a.example. 60 IN A 192.0.2.1"}, nil),
		"records, but they are no use": message(t, dns.RcodeYXDomain, []string{"a.example. 60 IN A 192.0.2.1"}, nil),
		"records of other names":       message(t, dns.RcodeSuccess, []string{"b.example. 60 IN A 192.0.2.1"}, nil),
		"records of other types":       message(t, dns.RcodeSuccess, []string{"a.example. 60 IN AAAA 2001:db8::1"}, nil),
		"nothing, as it is truncated":  cutOff(message(t, dns.RcodeSuccess, nil, nil)),
		"an alias, the rest truncated": cutOff(message(t, dns.RcodeSuccess, []string{"a.example. 60 IN CNAME b.example."}, nil)),
	}
	for name, m := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := clean(asking(t, "a.example", dns.TypeA), m)
			require.ErrorIs(t, err, errUnusable)
		})
	}
}

func TestRecordsWithoutDataAreNotKept(t *testing.T) {
	m := message(t, dns.RcodeSuccess, []string{"a.example. 60 IN A 192.0.2.1"}, nil)
	raw, err := m.Pack()
	require.NoError(t, err)
	raw = raw[:len(raw)-4]
	raw[len(raw)-1] = 0 // RDLENGTH
	m, err = decode(raw)
	require.NoError(t, err)
	_, err = clean(asking(t, "a.example", dns.TypeA), m)
	require.ErrorIs(t, err, errUnusable)
}

func TestAliasesAreFollowedSoFar(t *testing.T) {
	var chain []string
	for i := range 40 {
		chain = append(chain, "a"+strings.Repeat("a", i)+".example. 60 IN CNAME a"+strings.Repeat("a", i+1)+".example.")
	}
	got, err := clean(asking(t, "a.example", dns.TypeA), message(t, dns.RcodeSuccess, chain, nil))
	require.NoError(t, err)
	require.Len(t, got.msg.Answer, maxChain+1)
}

// TestTheCapitalsOfTheQueryAreNobodysBusiness uses a response whose names point into its question, as all responses do.
func TestTheCapitalsOfTheQueryAreNobodysBusiness(t *testing.T) {
	q := asking(t, "www.a.example", dns.TypeA)
	m := message(t, dns.RcodeSuccess, []string{"wWw.A.eXample. 60 IN CNAME Server.A.eXample.", "Server.A.eXample. 60 IN A 192.0.2.1"}, nil)
	got, err := sanitise(q, &response{msg: m, sent: "wWw.A.eXample."}, DefaultMaxTTL, DefaultMaxNegativeTTL)
	require.NoError(t, err)
	require.Equal(t, []string{"www.a.example. 60 IN CNAME Server.a.example.", "Server.a.example. 60 IN A 192.0.2.1"}, lines(got.msg.Answer))
}
