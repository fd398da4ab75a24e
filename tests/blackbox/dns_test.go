package blackbox

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/tests/harness"
)

// owning makes the platform own mec.example and the reverse zones of 192.0.2.0/24 and 2001:db8::/32.
func owning() harness.Option {
	return harness.Args("--dns-zones=mec.example,2.0.192.in-addr.arpa,8.b.d.0.1.0.0.2.ip6.arpa")
}

// forwarding makes it forward what is not its own.
func forwarding(upstreams ...*harness.Upstream) harness.Option {
	var list []string
	for _, u := range upstreams {
		list = append(list, u.Addr())
	}
	return harness.Args("--dns-forward=" + strings.Join(list, ","))
}

// rule is a DNS rule with nothing but what is required.
func rule(id, name, address string) object {
	family := "IP_V4"
	if strings.Contains(address, ":") {
		family = "IP_V6"
	}
	return object{"dnsRuleId": id, "domainName": name, "ipAddressType": family, "ipAddress": address}
}

// ruled is a configuration with DNS rules.
func ruled(rules ...object) object {
	list := []any{}
	for _, r := range rules {
		list = append(list, r)
	}
	return object{"appName": "named", "appDNSRule": list}
}

// withRules is an app instance that runs, whose DNS rules are answered.
func withRules(t *testing.T, p *harness.Process, rules ...object) (app, mepm) {
	t.Helper()
	a, m := newApp(p.Client(t)), mepmOf(t, p)
	m.done(m.configure(a.id, ruled(rules...)))
	m.done(m.operate(a.id, started))
	return a, m
}

// at is a record as replies have it: its name with or without the dot, TTL, type and data.
func at(name string, ttl int, rrtype, data string) string {
	return fmt.Sprintf("%s. %d %s %s", strings.TrimSuffix(name, "."), ttl, rrtype, data)
}

// defaultTTL is that of rules without one.
const defaultTTL = 30

func TestDNSRulesAreAnsweredWhileTheAppRuns(t *testing.T) {
	t.Parallel()
	p := harness.Start(t, owning())
	m, a, d := mepmOf(t, p), newApp(p.Client(t)), p.DNS(t)
	d.Ask("mec.example", "SOA").Local()
	cfg := ruled(but(rule("d1", "www.mec.example", "192.0.2.1"), "ttl", 60), but(rule("d2", "off.mec.example", "192.0.2.2"), "state", "INACTIVE"))
	m.done(m.configure(a.id, cfg))
	d.Ask("www.mec.example", "A").Is("NXDOMAIN").Local()
	a.isReady()
	d.AwaitAnswer("www.mec.example", "A", "NOERROR", at("www.mec.example", 60, "A", "192.0.2.1")).Local()
	d.Ask("off.mec.example", "A").Is("NXDOMAIN").Local()
	d.Ask("1.2.0.192.in-addr.arpa", "PTR").Is("NOERROR", "1.2.0.192.in-addr.arpa. 60 PTR www.mec.example.").Local()
	m.awaitRules(a.id, "DNS d1 APPLIED", "DNS d2 INACTIVE")

	m.done(m.operate(a.id, stopped))
	d.Ask("www.mec.example", "A").Is("NXDOMAIN")
	d.Ask("1.2.0.192.in-addr.arpa", "PTR").Is("NXDOMAIN")
	m.done(m.operate(a.id, started))
	d.Ask("www.mec.example", "A").Is("NOERROR", at("www.mec.example", 60, "A", "192.0.2.1"))
	m.done(m.configure(a.id, ruled(rule("d1", "new.mec.example", "192.0.2.1"))))
	d.Ask("www.mec.example", "A").Is("NXDOMAIN")
	d.Ask("new.mec.example", "A").Is("NOERROR", at("new.mec.example", defaultTTL, "A", "192.0.2.1"))
	m.done(m.unconfigure(a.id))
	d.Ask("new.mec.example", "A").Is("NXDOMAIN")
	m.done(m.configure(a.id, cfg))
	m.done(m.operate(a.id, started))
	d.Ask("www.mec.example", "A").Is("NOERROR", at("www.mec.example", 60, "A", "192.0.2.1"))
	m.done(m.terminate(a.id, forceful))
	d.Ask("www.mec.example", "A").Is("NXDOMAIN")
	require.Empty(t, m.state(a.id))
}

// Whoever sees the end of an operation may ask at once.
func TestAnOperationIsCompletedWhenItsDNSRulesAreAnswered(t *testing.T) {
	t.Parallel()
	p := harness.Start(t, owning())
	m, d := mepm{p.UncheckedMm5(t)}, p.DNS(t)
	a := newApp(p.Client(t))
	m.done(m.configure(a.id, ruled()))
	m.done(m.operate(a.id, started))
	for i := range 200 {
		name, address := fmt.Sprintf("n%d.mec.example", i%7), fmt.Sprintf("192.0.2.%d", i+1)
		m.done(m.configure(a.id, ruled(rule("d1", name, address))))
		d.Ask(name, "A").Is("NOERROR", at(name, defaultTTL, "A", address))
		if last := fmt.Sprintf("n%d.mec.example", (i+6)%7); i%3 == 0 {
			d.TCP().Ask(last, "A").Is("NXDOMAIN")
		}
		if i%10 == 0 {
			m.done(m.operate(a.id, stopped))
			d.Ask(name, "A").Is("NXDOMAIN")
			m.done(m.operate(a.id, started))
			d.Ask(name, "A").Is("NOERROR", at(name, defaultTTL, "A", address))
		}
	}
}

func TestAnAppSwitchesItsDNSRules(t *testing.T) {
	t.Parallel()
	up := harness.NewUpstream(t)
	p := harness.Start(t, owning(), forwarding(up))
	a, _ := withRules(t, p, rule("in", "www.mec.example", "192.0.2.1"), rule("out", "www.other.example", "192.0.2.2"))
	d := p.DNS(t)
	for i := range 5 {
		a.Put(a.dnsRule("in"), object{"state": "INACTIVE"}).Is(200)
		a.Put(a.dnsRule("out"), object{"state": "INACTIVE"}).Is(200)
		d.AwaitAnswer("www.mec.example", "A", "NXDOMAIN").Local()
		d.AwaitData("www.other.example", "A", "NOERROR", "A 192.0.2.53").Forwarded()

		address := fmt.Sprintf("192.0.2.%d", 10+i)
		a.Put(a.dnsRule("in"), object{"state": "ACTIVE", "ipAddress": address, "ttl": i}).Is(200)
		a.Put(a.dnsRule("out"), object{"state": "ACTIVE", "ipAddressType": "IP_V6", "ipAddress": fmt.Sprintf("2001:db8::%d", i+1)}).Is(200)
		d.AwaitAnswer("www.mec.example", "A", "NOERROR", at("www.mec.example", i, "A", address)).Local()
		d.AwaitAnswer("www.other.example", "AAAA", "NOERROR", at("www.other.example", defaultTTL, "AAAA", fmt.Sprintf("2001:db8::%d", i+1))).Local()
		d.Ask("www.other.example", "A").Is("NOERROR").Local()
		a.Put(a.dnsRule("out"), object{"state": "ACTIVE", "ipAddressType": "IP_V4", "ipAddress": "192.0.2.2"}).Is(200)
		d.AwaitAnswer("www.other.example", "A", "NOERROR", at("www.other.example", defaultTTL, "A", "192.0.2.2")).Local()
	}
}

func TestDNSRulesOfSeveralAppsCombine(t *testing.T) {
	t.Parallel()
	p := harness.Start(t, owning())
	d := p.DNS(t)
	const name = "www.mec.example"
	a, m := withRules(t, p, but(rule("a", name, "192.0.2.1"), "ttl", 60), rule("aaaa", name, "2001:db8::1"), but(rule("a2", name, "192.0.2.2"), "ttl", 90))
	d.Ask(name, "A").Is("NOERROR", at(name, 60, "A", "192.0.2.1"), at(name, 60, "A", "192.0.2.2"))
	d.Ask(name, "AAAA").Is("NOERROR", at(name, defaultTTL, "AAAA", "2001:db8::1"))
	d.Ask(name, "MX").Is("NOERROR").Local()
	b, _ := withRules(t, p, but(rule("a", name, "192.0.2.3"), "ttl", 5), but(rule("same", "WWW.Mec.Example", "192.0.2.1"), "ttl", 7), rule("aaaa", name, "2001:DB8:0::2"))
	d.Ask(name, "A").Is("NOERROR", at(name, 5, "A", "192.0.2.1"), at(name, 5, "A", "192.0.2.2"), at(name, 5, "A", "192.0.2.3"))
	d.Ask(name, "AAAA").Is("NOERROR", at(name, defaultTTL, "AAAA", "2001:db8::1"), at(name, defaultTTL, "AAAA", "2001:db8::2"))
	// The same address of two apps is one, and stays as long as one of them has it.
	a.Put(a.dnsRule("a"), object{"state": "INACTIVE"}).Is(200)
	d.AwaitAnswer(name, "AAAA", "NOERROR", at(name, defaultTTL, "AAAA", "2001:db8::1"), at(name, defaultTTL, "AAAA", "2001:db8::2"))
	d.Ask(name, "A").Is("NOERROR", at(name, 5, "A", "192.0.2.1"), at(name, 5, "A", "192.0.2.2"), at(name, 5, "A", "192.0.2.3"))
	m.done(m.terminate(b.id, forceful))
	d.Ask(name, "A").Is("NOERROR", at(name, 90, "A", "192.0.2.2"))
	d.Ask(name, "AAAA").Is("NOERROR", at(name, defaultTTL, "AAAA", "2001:db8::1"))
	m.done(m.terminate(a.id, forceful))
	d.Ask(name, "A").Is("NXDOMAIN")
}

func TestTimesToLiveOfDNSRules(t *testing.T) {
	t.Parallel()
	p := harness.Start(t, owning(), harness.Args("--dns-ttl=77s"))
	d := p.DNS(t)
	a, _ := withRules(t, p, rule("none", "none.mec.example", "192.0.2.1"), but(rule("zero", "zero.mec.example", "192.0.2.2"), "ttl", 0),
		but(rule("max", "max.mec.example", "192.0.2.3"), "ttl", 2147483647), but(rule("one", "one.mec.example", "192.0.2.4"), "ttl", 1))
	for name, ttl := range map[string]int{"none": 77, "zero": 0, "max": 2147483647, "one": 1} {
		reply := d.Ask(name+".mec.example", "A")
		require.EqualValues(t, ttl, reply.Answer[0].Header().Ttl, name)
	}
	a.Put(a.dnsRule("none"), object{"state": "ACTIVE", "ttl": 0}).Is(200)
	d.AwaitAnswer("none.mec.example", "A", "NOERROR", at("none.mec.example", 0, "A", "192.0.2.1"))
}

func TestWildcardDNSRules(t *testing.T) {
	t.Parallel()
	up := harness.NewUpstream(t)
	p := harness.Start(t, owning(), forwarding(up))
	d := p.DNS(t)
	withRules(t, p,
		rule("in", "*.app.mec.example", "192.0.2.1"), rule("explicit", "www.app.mec.example", "192.0.2.2"), rule("deep", "x.y.app.mec.example", "192.0.2.3"),
		rule("out", "*.app.example", "192.0.2.4"), rule("between", "stop.app.example", "192.0.2.5"), rule("inner", "*.inner.app.example", "2001:db8::1"))
	is := func(name, rrtype, rcode string, data ...string) *harness.Reply {
		t.Helper()
		var want []string
		for _, x := range data {
			want = append(want, at(name, defaultTTL, rrtype, x))
		}
		return d.Ask(name, rrtype).Is(rcode, want...)
	}
	// In a zone, as RFC 4592 says.
	is("any.app.mec.example", "A", "NOERROR", "192.0.2.1").Local()
	is("far.below.app.mec.example", "A", "NOERROR", "192.0.2.1").Local()
	is("ANY.App.mec.example", "A", "NOERROR", "192.0.2.1").Local()
	is("any.app.mec.example", "AAAA", "NOERROR").Local()
	is("*.app.mec.example", "A", "NOERROR", "192.0.2.1").Local()
	is("www.app.mec.example", "A", "NOERROR", "192.0.2.2").Local()
	is("below.www.app.mec.example", "A", "NXDOMAIN").Local()
	is("y.app.mec.example", "A", "NOERROR").Local()
	is("z.y.app.mec.example", "A", "NXDOMAIN").Local()
	is("app.mec.example", "A", "NOERROR").Local()
	// Outside, at any depth, as far as no explicit name lies between.
	is("any.app.example", "A", "NOERROR", "192.0.2.4").Local()
	is("far.below.app.example", "A", "NOERROR", "192.0.2.4").Local()
	is("any.app.example", "AAAA", "NOERROR").Local()
	is("stop.app.example", "A", "NOERROR", "192.0.2.5").Local()
	is("a.inner.app.example", "AAAA", "NOERROR", "2001:db8::1").Local()
	is("a.inner.app.example", "A", "NOERROR").Local()
	for _, name := range []string{"app.example", "a.stop.app.example", "a.b.stop.app.example", "example", "app.example.org", "xapp.example"} {
		d.Ask(name, "A").Holds("NOERROR", "A 192.0.2.53").Forwarded()
	}
}

func TestDNSRulesOutsideZonesOverrideTheirNamesOnly(t *testing.T) {
	t.Parallel()
	up := harness.NewUpstream(t)
	up.Behave(func(x *harness.Exchange) {
		switch x.Type {
		case "A":
			x.Send(x.Answer("@ 300 A 198.51.100.1"))
		case "MX":
			x.Send(x.Answer("@ 300 MX 10 mail.other.example."))
		default:
			m := x.Answer()
			m.Ns = x.Records("other.example. 60 SOA a. b. 1 2 3 4 60")
			x.Send(m)
		}
	})
	p := harness.Start(t, owning(), forwarding(up))
	d := p.DNS(t)
	const name = "www.other.example"
	const theirs = "A 198.51.100.1"
	d.Ask(name, "A").Holds("NOERROR", theirs).Forwarded()
	d.Ask(name, "MX").Holds("NOERROR", "MX 10 mail.other.example.").Forwarded()
	a, m := withRules(t, p, rule("d1", name, "192.0.2.9"))
	d.Ask(name, "A").Is("NOERROR", at(name, defaultTTL, "A", "192.0.2.9")).Local()
	for _, rrtype := range []string{"AAAA", "MX", "TXT", "SOA", "NS", "HTTPS", "TYPE4711"} {
		nothing := d.Ask(name, rrtype).Is("NOERROR").Local()
		require.Equal(t, name+".", nothing.Ns[0].Header().Name, "the SOA is made up for the name alone")
	}
	for _, other := range []string{"other.example", "sibling.other.example", "below.www.other.example", "ww.other.example", "wwww.other.example", "example"} {
		d.Ask(other, "A").Holds("NOERROR", theirs).Forwarded()
	}
	a.Put(a.dnsRule("d1"), object{"state": "INACTIVE"}).Is(200)
	d.AwaitData(name, "A", "NOERROR", theirs).Forwarded()
	m.done(m.terminate(a.id, forceful))
	d.Ask(name, "A").Holds("NOERROR", theirs).Forwarded()
	d.Ask(name, "MX").Holds("NOERROR", "MX 10 mail.other.example.").Forwarded()
}
