package blackbox

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	rr "github.com/miekg/dns"
	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/tests/harness"
)

func TestTheTopOfAZoneIsAsItIsConfigured(t *testing.T) {
	t.Parallel()
	p := harness.Start(t, harness.Config(`
dns:
  zones: [MEC.example, 2.0.192.in-addr.arpa]
  nameservers: [ns1.mec.example=192.0.2.53, "ns1.mec.example=2001:db8::53", ns2.other.example]
  hostmaster: dns-admin.mec.example
  ttl: 50s
  negativeTtl: 40s
`))
	d := p.DNS(t)
	p.DNSManagement(t).Post(rrecord, record("www.mec.example", "A", "192.0.2.1")).Is(200)
	for _, zone := range []string{"mec.example", "2.0.192.in-addr.arpa"} {
		soa := d.Ask(zone, "SOA").Local().Answer[0].(*rr.SOA)
		require.Equal(t, []string{"ns1.mec.example.", "dns-admin.mec.example."}, []string{soa.Ns, soa.Mbox})
		require.EqualValues(t, 40, soa.Minttl)
		d.Ask(zone, "NS").Is("NOERROR", at(zone, 50, "NS", "ns1.mec.example."), at(zone, 50, "NS", "ns2.other.example.")).Local()
		require.Equal(t, soa.String(), strings.Replace(d.Ask("none."+zone, "A").Is("NXDOMAIN").Ns[0].String(), "none.", "", 1))
		d.Ask(zone, "A").Is("NOERROR").Local()
	}
	d.Ask("ns1.mec.example", "A").Is("NOERROR", at("ns1.mec.example", 50, "A", "192.0.2.53"))
	d.Ask("ns1.mec.example", "AAAA").Is("NOERROR", at("ns1.mec.example", 50, "AAAA", "2001:db8::53"))
	d.Ask("53.2.0.192.in-addr.arpa", "PTR").Holds("NOERROR", "PTR ns1.mec.example.")
	// Serials grow with every change (RFC 1982).
	serial := d.Ask("mec.example", "SOA").Answer[0].(*rr.SOA).Serial
	p.DNSManagement(t).Post(rrecord, record("new.mec.example", "A", "192.0.2.2")).Is(200)
	next := d.Ask("mec.example", "SOA").Answer[0].(*rr.SOA).Serial
	require.Greater(t, next, serial)
	p.Kill()
	p.Restart()
	require.GreaterOrEqual(t, d.Ask("mec.example", "SOA").Answer[0].(*rr.SOA).Serial, next)
}

func TestEqualAnswersTakeTurns(t *testing.T) {
	t.Parallel()
	for name, x := range map[string]struct {
		args   []string
		firsts int
	}{"when that is configured": {[]string{"--dns-rotate"}, 4}, "and otherwise do not": {nil, 1}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := harness.Start(t, owning(), harness.Args(x.args...))
			p.DNSManagement(t).Post(rrecord, record("www.mec.example", "A", "192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4")).Is(200)
			firsts := map[string]int{}
			for range 80 {
				reply := p.DNS(t).Ask("www.mec.example", "A").Holds("NOERROR", "A 192.0.2.1", "A 192.0.2.2", "A 192.0.2.3", "A 192.0.2.4")
				firsts[reply.Answer[0].(*rr.A).A.String()]++
			}
			require.Len(t, firsts, x.firsts)
			for _, n := range firsts {
				require.GreaterOrEqual(t, n, 80/x.firsts/2, "%v", firsts)
			}
		})
	}
}

func TestLargeAnswers(t *testing.T) {
	t.Parallel()
	p := harness.Start(t, owning())
	d := p.DNS(t)
	var records []object
	for _, n := range []int{20, 60, 200, 256} {
		addresses := []any{}
		for i := range n {
			addresses = append(addresses, fmt.Sprintf("10.0.0.%d", i))
		}
		records = append(records, record(fmt.Sprintf("a%d.mec.example", n), "A", addresses...))
	}
	huge := strings.Repeat("x", 60000)
	records = append(records, record("huge.mec.example", "TXT", huge))
	p.DNSManagement(t).Post(rrecord, records).Is(200)
	for _, x := range []struct {
		name      string
		size      uint16 // 0: without EDNS
		truncated bool
	}{
		{"a20", 0, false}, {"a60", 0, true}, {"a60", 512, true}, {"a60", 1232, false}, {"a60", 4096, false}, {"a200", 1232, true}, {"a200", 4096, true}, {"a256", 65535, true}, {"a20", 0, false},
	} {
		option := harness.WithoutEDNS
		if x.size > 0 {
			option = harness.WithSize(x.size)
		}
		reply := d.Ask(x.name+".mec.example", "A", option)
		require.Equal(t, x.truncated, reply.Truncated, "%+v", x)
		require.Equal(t, "NOERROR", reply.RCode())
		var n int
		_, err := fmt.Sscanf(x.name, "a%d", &n)
		require.NoError(t, err)
		require.Len(t, d.TCP().Ask(x.name+".mec.example", "A", option).Answer, n)
	}
	require.True(t, d.Ask("huge.mec.example", "TXT").Truncated)
	require.Equal(t, huge, strings.Join(d.TCP().Ask("huge.mec.example", "TXT").Answer[0].(*rr.TXT).Txt, ""))
	require.False(t, harness.Start(t, owning(), harness.Args("--dns-udp-size=4096")).DNS(t).Ask("mec.example", "SOA", harness.WithSize(4096)).Truncated)
}

func TestAliasesAreFollowed(t *testing.T) {
	t.Parallel()
	up := harness.NewUpstream(t)
	p := harness.Start(t, owning(), forwarding(up))
	d := p.DNS(t)
	withRules(t, p, rule("d", "app.mec.example", "192.0.2.1"), rule("out", "app.other.example", "192.0.2.2"))
	p.DNSManagement(t).Post(rrecord, []object{
		record("to-app.mec.example", "CNAME", "app.mec.example"), record("to-to.mec.example", "CNAME", "To-App.mec.example"), record("to-out.mec.example", "CNAME", "app.other.example"),
		record("to-none.mec.example", "CNAME", "none.mec.example"), record("away.mec.example", "CNAME", "www.elsewhere.example"),
		record("from.other.example", "CNAME", "www.elsewhere.example"),
	}).Is(200)
	alias := func(from, to string) string { return at(from, 60, "CNAME", to+".") }
	app := at("app.mec.example", defaultTTL, "A", "192.0.2.1")
	d.Ask("to-app.mec.example", "A").Is("NOERROR", alias("to-app.mec.example", "app.mec.example"), app).Local()
	d.Ask("to-to.mec.example", "A").Is("NOERROR", alias("to-to.mec.example", "to-app.mec.example"), alias("to-app.mec.example", "app.mec.example"), app).Local()
	d.Ask("to-to.mec.example", "CNAME").Is("NOERROR", alias("to-to.mec.example", "to-app.mec.example")).Local()
	d.Ask("to-app.mec.example", "AAAA").Is("NOERROR", alias("to-app.mec.example", "app.mec.example")).Local()
	d.Ask("to-out.mec.example", "A").Is("NOERROR", alias("to-out.mec.example", "app.other.example"), at("app.other.example", defaultTTL, "A", "192.0.2.2"))
	d.Ask("to-none.mec.example", "A").Is("NXDOMAIN", alias("to-none.mec.example", "none.mec.example")).Local()
	d.Ask("app.mec.example", "CNAME").Is("NOERROR").Local()
	for _, name := range []string{"away.mec.example", "from.other.example"} {
		for range 2 {
			d.Ask(name, "A").Holds("NOERROR", "CNAME www.elsewhere.example.", "A 192.0.2.53")
			d.TCP().Ask(name, "AAAA").Holds("NOERROR", "CNAME www.elsewhere.example.")
		}
		without := d.Ask(name, "A", func(m *rr.Msg) { m.RecursionDesired = false })
		without.Is("NOERROR", alias(name, "www.elsewhere.example")).Local()
	}
	require.Len(t, up.Asked("www.elsewhere.example."), 2)
	d.Ask("mec.example", "DS").Forwarded() // those are in the zone above (RFC 4035 3.1.4.1)
}

func TestReverseNamesOfAddresses(t *testing.T) {
	t.Parallel()
	p := harness.Start(t, owning())
	d, m := p.DNS(t), p.DNSManagement(t)
	a, _ := withRules(t, p, rule("d", "app.mec.example", "192.0.2.1"), rule("d6", "app.other.example", "2001:db8::1"), rule("out", "far.mec.example", "198.51.100.1"),
		rule("w", "*.wild.mec.example", "192.0.2.7"))
	const six = "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa"
	d.Ask("1.2.0.192.in-addr.arpa", "PTR").Holds("NOERROR", "PTR app.mec.example.").Local()
	d.Ask(six, "PTR").Holds("NOERROR", "PTR app.other.example.").Local()
	d.Ask("7.2.0.192.in-addr.arpa", "PTR").Is("NXDOMAIN").Local()
	d.Ask("1.100.51.198.in-addr.arpa", "PTR").Is("REFUSED")
	d.Ask("1.2.0.192.in-addr.arpa", "A").Is("NOERROR").Local()
	d.Ask("8.b.d.0.1.0.0.2.ip6.arpa", "PTR").Is("NOERROR").Local()
	d.Ask("0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa", "PTR").Is("NOERROR").Local()
	d.Ask("1.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa", "PTR").Is("NXDOMAIN").Local()
	m.Post(rrecord, record("second.mec.example", "A", "192.0.2.1")).Is(200)
	d.Ask("1.2.0.192.in-addr.arpa", "PTR").Holds("NOERROR", "PTR app.mec.example.", "PTR second.mec.example.")
	m.Post(rrecord, record("1.2.0.192.in-addr.arpa", "PTR", "chosen.mec.example")).Is(200)
	d.Ask("1.2.0.192.in-addr.arpa", "PTR").Holds("NOERROR", "PTR chosen.mec.example.")
	m.Delete(recordPath("1.2.0.192.in-addr.arpa", "PTR")).Is(200)
	a.Put(a.dnsRule("d"), object{"state": "INACTIVE"}).Is(200)
	d.AwaitData("1.2.0.192.in-addr.arpa", "PTR", "NOERROR", "PTR second.mec.example.")
}

func TestWhoMayAskTheDNSServer(t *testing.T) {
	t.Parallel()
	up := harness.NewUpstream(t)
	p := harness.Start(t, owning(), forwarding(up), harness.Args("--dns-allow-query=127.0.0.0/24,127.0.1.0/24", "--dns-allow-recursion=127.0.0.1"))
	p.DNSManagement(t).Post(rrecord, []object{record("www.mec.example", "A", "192.0.2.1"), record("away.mec.example", "CNAME", "www.elsewhere.example")}).Is(200)
	d := p.DNS(t)
	for _, r := range []*harness.Resolver{d, d.TCP()} {
		r.Ask("www.mec.example", "A").Holds("NOERROR", "A 192.0.2.1")
		r.Ask("www.elsewhere.example", "A").Holds("NOERROR", "A 192.0.2.53").Forwarded()
		for _, from := range []string{"127.0.0.2", "127.0.1.1"} {
			near := r.From(from)
			near.Ask("www.mec.example", "A").Holds("NOERROR", "A 192.0.2.1")
			require.False(t, near.Ask("www.elsewhere.example", "A").Is("REFUSED").RecursionAvailable, "not even what is in the cache")
			near.Ask("away.mec.example", "A").Holds("NOERROR", "CNAME www.elsewhere.example.")
		}
		far := r.From("127.0.2.1")
		require.EqualValues(t, rr.ExtendedErrorCodeProhibited, far.Ask("www.mec.example", "A").Is("REFUSED").Extended())
		far.Ask("www.elsewhere.example", "A").Is("REFUSED")
		far.Ask("mec.example", "SOA").Is("REFUSED")
	}
	require.Len(t, up.Asked(), 1)

	closed := harness.Start(t, owning(), forwarding(up), harness.Args("--dns-allow-recursion="))
	closed.DNS(t).Ask("www.elsewhere.example", "A").Is("REFUSED")
	closed.DNS(t).Ask("mec.example", "SOA").Local()
}

// However much is asked and open, the end comes in time.
func TestThePlatformEndsInTimeWhateverItsDNSServerIsAsked(t *testing.T) {
	t.Parallel()
	up := harness.NewUpstream(t)
	up.Behave(func(*harness.Exchange) {})
	listen := harness.FreeAddr(t)
	p := harness.Start(t, harness.Secure(), owning(), forwarding(up), harness.Args("--dns-tls-listen", listen, "--dns-forward-timeout=30s", "--dns-lame-duck=1s"))
	d := p.DNS(t)
	udp, err := d.Dial()
	require.NoError(t, err)
	defer udp.Close()
	var conns []net.Conn
	for i := range 60 {
		_, err := udp.Write(packed(harness.Question(fmt.Sprintf("u%d.example", i), "A")))
		require.NoError(t, err)
		conn, err := d.TCP().From(fmt.Sprintf("127.0.40.%d", i+1)).Dial()
		require.NoError(t, err)
		conns = append(conns, conn)
		query := packed(harness.Question(fmt.Sprintf("t%d.example", i), "A"))
		_, err = conn.Write(append([]byte{0, byte(len(query))}, query[:len(query)-i%2]...)) // whole, or all but an octet
		require.NoError(t, err)
	}
	half, err := net.Dial("tcp", listen)
	require.NoError(t, err)
	settings, err := p.TLS()
	require.NoError(t, err)
	whole, err := tls.Dial("tcp", listen, settings)
	require.NoError(t, err)
	conns = append(conns, half, whole)
	defer func() {
		for _, c := range conns {
			_ = c.Close()
		}
	}()
	harness.Eventually(t, "they wait", func() error { return harness.Not(len(up.Asked()) >= 60, "%d do", len(up.Asked())) })
	require.Less(t, p.Stop(), harness.StopWithin)
	for _, c := range conns {
		require.NoError(t, c.SetReadDeadline(time.Now().Add(harness.Patience)))
		_, err := io.Copy(io.Discard, c)
		if err != nil {
			require.NotContains(t, err.Error(), "timeout")
		}
	}
}
