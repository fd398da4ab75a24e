package blackbox

import (
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/kit/etcdtest"
	"github.com/openmep/mep/tests/harness"
)

// The defects of EdgeGallery's MEP that have to do with DNS, as clients of the DNS server see them. What the manager sees of them is
// in TestDefectsOfEdgeGalleryThatThisPlatformDoesNotHave, with D-27, which is about traffic rules.
func TestDefectsOfEdgeGallerysDNSThatThisPlatformDoesNotHave(t *testing.T) {
	t.Parallel()
	up := harness.NewUpstream(t)
	p := harness.Start(t, owning(), forwarding(up))
	d := p.DNS(t)
	configured := func(t *testing.T, cfg object) (app, mepm) {
		t.Helper()
		a, m := newApp(p.Client(t)), mepmOf(t, p)
		succeeded(t, apprulemgr(m, "POST", a.id, cfg))
		return a, m
	}
	t.Run("D-24: the name of a DNS rule changes, and a rule that is INACTIVE", func(t *testing.T) {
		t.Parallel()
		d := d.For(t)
		cfg := but(appDConfig("d24"), "appDNSRule[0].domainName", "d24.mec.example", "appDNSRule[0].ipAddress", "192.0.2.24")
		a, m := configured(t, cfg)
		d.Ask("d24.mec.example", "A").Is("NOERROR", at("d24.mec.example", defaultTTL, "A", "192.0.2.24"))
		succeeded(t, apprulemgr(m, "PUT", a.id, but(cfg, "appDNSRule[0].domainName", "d24b.mec.example")))
		d.Ask("d24.mec.example", "A").Is("NXDOMAIN")
		d.Ask("d24b.mec.example", "A").Is("NOERROR", at("d24b.mec.example", defaultTTL, "A", "192.0.2.24"))
		succeeded(t, apprulemgr(m, "PUT", a.id, but(cfg, "appDNSRule[0].state", "INACTIVE")))
		succeeded(t, apprulemgr(m, "PUT", a.id, but(cfg, "appDNSRule[0].state", "INACTIVE", "appDNSRule[0].ipAddress", "192.0.2.25")))
		d.Ask("d24.mec.example", "A").Is("NXDOMAIN")
		a.Put(a.dnsRule("d1"), object{"state": "ACTIVE"}).Is(200)
		d.AwaitAnswer("d24.mec.example", "A", "NOERROR", at("d24.mec.example", defaultTTL, "A", "192.0.2.25"))
	})
	t.Run("D-25: a TTL of 0 of theirs is none, and each family has its type", func(t *testing.T) {
		t.Parallel()
		d := d.For(t)
		two := []any{
			but(rule("a", "d25.mec.example", "192.0.2.25"), "ttl", 0, "ipAddressType", "IPv4"),
			but(rule("aaaa", "d25.mec.example", "2001:db8::25"), "ttl", 0, "ipAddressType", "IPv6"),
		}
		_, m := configured(t, but(appDConfig("d25"), "appDNSRule", two))
		d.Ask("d25.mec.example", "A").Is("NOERROR", at("d25.mec.example", defaultTTL, "A", "192.0.2.25"))
		d.Ask("d25.mec.example", "AAAA").Is("NOERROR", at("d25.mec.example", defaultTTL, "AAAA", "2001:db8::25"))
		for _, wrong := range []object{
			but(rule("a", "d25b.mec.example", "2001:db8::25"), "ipAddressType", "IP_V4"), but(rule("a", "d25b.mec.example", "192.0.2.25"), "ipAddressType", "IP_V6"),
		} {
			m.Post(appd(newApp(p.Client(t)).id), but(appDConfig("d25b"), "appDNSRule", []any{wrong}), asTheirs).Problem(400)
		}
		d.Ask("d25b.mec.example", "A").Is("NXDOMAIN")
	})
	t.Run("D-26: one name has addresses of both families, several of each, and of several apps", func(t *testing.T) {
		t.Parallel()
		d := d.For(t)
		rules := func(n int) []any {
			return []any{
				rule("a", "d26.mec.example", fmt.Sprintf("192.0.2.%d", n)), rule("aaaa", "d26.mec.example", fmt.Sprintf("2001:db8::%d", n)),
				rule("a2", "d26.mec.example", fmt.Sprintf("192.0.2.%d", n+1)),
			}
		}
		configured(t, but(appDConfig("d26"), "appDNSRule", rules(60)))
		configured(t, but(appDConfig("d26"), "appDNSRule", rules(70)))
		d.Ask("d26.mec.example", "A").Holds("NOERROR", "A 192.0.2.60", "A 192.0.2.61", "A 192.0.2.70", "A 192.0.2.71")
		d.Ask("d26.mec.example", "AAAA").Holds("NOERROR", "AAAA 2001:db8::60", "AAAA 2001:db8::70")
	})
	t.Run("D-28: a DNS server that lost everything has it again", func(t *testing.T) {
		t.Parallel()
		etcd := etcdtest.Start(t)
		server := harness.StartMepserver(t, etcd.Endpoint(), harness.Args("--dns-driver=agent"))
		agent := harness.StartDNSAgent(t, etcd.Endpoint(), owning())
		withRules(t, server, rule("d1", "d28.mec.example", "192.0.2.28"))
		agent.DNSManagement(t).Post(rrecord, record("d28b.mec.example", "A", "192.0.2.29")).Is(200)
		agent.Kill()
		require.NoError(t, os.RemoveAll(agent.DataDir))
		agent.Restart()
		agent.DNS(t).Ask("d28.mec.example", "A").Is("NOERROR", at("d28.mec.example", defaultTTL, "A", "192.0.2.28"))
		agent.DNS(t).Ask("d28b.mec.example", "A").Is("NOERROR", at("d28b.mec.example", 60, "A", "192.0.2.29"))
	})
	t.Run("D-32: what a name has nothing of is no failure", func(t *testing.T) {
		t.Parallel()
		d := d.For(t)
		configured(t, but(appDConfig("d32"), "appDNSRule", []any{rule("in", "d32.mec.example", "192.0.2.32"), rule("out", "d32.other.example", "192.0.2.33")}))
		for _, name := range []string{"d32.mec.example", "d32.other.example"} {
			d.Ask(name, "AAAA").Is("NOERROR").Local() // resolvers of dual-stack clients give up where this is SERVFAIL
		}
		d.Ask("d32b.mec.example", "A").Is("NXDOMAIN").Local()
	})
	t.Run("D-32: nor is what upstreams say that there is not", func(t *testing.T) {
		t.Parallel()
		theirs := harness.NewUpstream(t)
		theirs.Behave(func(x *harness.Exchange) {
			m := x.Answer()
			m.Ns = x.Records("other.example. 60 SOA a. b. 1 2 3 4 60")
			if x.Name == "none.other.example." {
				m.Rcode = 3
			}
			x.Send(m)
		})
		d := harness.Start(t, forwarding(theirs)).DNS(t)
		begin := time.Now()
		require.Len(t, d.Ask("none.other.example", "A").Is("NXDOMAIN").Forwarded().Ns, 1)
		require.Len(t, d.Ask("half.other.example", "AAAA").Is("NOERROR").Forwarded().Ns, 1)
		require.Less(t, time.Since(begin), harness.Patience)
		require.Len(t, theirs.Asked(), 2, "one question each")
	})
	t.Run("D-32: over TCP it is the same", func(t *testing.T) {
		t.Parallel()
		d := d.For(t)
		configured(t, but(appDConfig("d32c"), "appDNSRule", []any{rule("in", "d32c.mec.example", "192.0.2.34")}))
		d.TCP().Ask("d32c.mec.example", "A").Is("NOERROR", at("d32c.mec.example", defaultTTL, "A", "192.0.2.34")).Local()
		d.TCP().Ask("d32c.elsewhere.example", "A").Holds("NOERROR", "A 192.0.2.53").Forwarded()
	})
	t.Run("D-32: of several zones the closest counts", func(t *testing.T) {
		t.Parallel()
		far, near := harness.NewUpstream(t), harness.NewUpstream(t)
		near.Behave(func(x *harness.Exchange) { x.Reply("192.0.2.99") })
		p := harness.Start(t, harness.Config(fmt.Sprintf(`
dns:
  zones: [mec.example, inner.mec.example]
  forward: [%q]
  forwardZones:
  - {zone: corp.example, forward: [%[2]q]}
  - {zone: hidden.corp.example}
`, far.Addr(), near.Addr())))
		withRules(t, p, rule("d1", "www.inner.mec.example", "192.0.2.35"))
		d := p.DNS(t)
		for range 20 {
			require.Equal(t, "inner.mec.example.", d.Ask("none.inner.mec.example", "A").Is("NXDOMAIN").Ns[0].Header().Name)
			require.Equal(t, "mec.example.", d.Ask("none.mec.example", "A").Is("NXDOMAIN").Ns[0].Header().Name)
			d.Ask("www.inner.mec.example", "A").Holds("NOERROR", "A 192.0.2.35")
			d.Ask("www.corp.example", "A").Holds("NOERROR", "A 192.0.2.99")
			d.Ask("www.example", "A").Holds("NOERROR", "A 192.0.2.53")
			d.Ask("www.hidden.corp.example", "A").Is("REFUSED")
		}
	})
	t.Run("D-32: an upstream may have an IPv6 address, and there may be several", func(t *testing.T) {
		t.Parallel()
		dead, six := harness.NewUpstream(t), harness.NewUpstreamAt(t, "::1")
		dead.Stop()
		p := harness.Start(t, forwarding(dead, six))
		p.DNS(t).Ask("www.example", "A").Holds("NOERROR", "A 192.0.2.53").Forwarded()
		require.NotEmpty(t, six.Asked())
	})
}
