package blackbox

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"testing"

	rr "github.com/miekg/dns"
	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/tests/harness"
)

func TestAPlatformDoesNotForwardToItself(t *testing.T) {
	t.Parallel()
	addr := harness.FreeAddr(t)
	out := harness.Run(t, "mep", harness.Development("mep", "--data-dir", "d", "--dns-listen", addr, "--dns-forward", addr))
	require.Equal(t, 1, out.Code, out.Output)
	require.Contains(t, out.Output, "this server itself")

	p := harness.Start(t, harness.Config("dns: {zones: [mec.example]}\n"))
	require.False(t, p.Reload(fmt.Sprintf("dns: {zones: [mec.example], forward: [%q]}\n", p.Addr("dns"))))
	p.DNS(t).Ask("www.example", "A").Is("REFUSED")
}

// Platforms that forward to each other would send a question round and round.
func TestPlatformsThatForwardToEachOtherNoticeIt(t *testing.T) {
	t.Parallel()
	for name, n := range map[string]int{"two": 2, "three": 3} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			addrs := make([]string, n)
			for i := range addrs {
				addrs[i] = harness.FreeAddr(t)
			}
			platforms := make([]*harness.Process, n)
			for i := range platforms {
				platforms[i] = harness.Start(t, owning(), hasty(), harness.Args("--dns-listen", addrs[i], "--dns-forward", addrs[(i+1)%n]))
				platforms[i].DNSManagement(t).Post(rrecord, record("www.mec.example", "A", "192.0.2.1")).Is(200)
			}
			packets := func() (sum float64) {
				for _, p := range platforms {
					v, _ := p.Metric(t, `mep_dns_packets_total{transport="udp"}`)
					sum += v
				}
				return sum
			}
			// Where one of them notices there is no circle any more.
			asked := 0
			harness.EventuallyWithin(t, 2*harness.Patience, "questions end somewhere", func() error {
				for _, p := range platforms {
					asked++
					reply, err := p.DNS(t).Try(harness.Question(fmt.Sprintf("a%d.example", asked), "A"), harness.Patience)
					if err != nil {
						return err
					}
					require.Contains(t, []string{"SERVFAIL", "REFUSED"}, reply.RCode())
				}
				looking := false
				for _, p := range platforms {
					for _, o := range p.DNSManagement(t).Get(dnsRoot + "/upstreams").Is(200).Array() {
						looking = looking || o["up"] == false
					}
				}
				return harness.Not(looking, "nobody has noticed")
			})
			before := packets()
			const questions = 50
			for i := range questions {
				reply := platforms[i%n].DNS(t).Ask(fmt.Sprintf("round%d.example", i), "A")
				require.Contains(t, []string{"SERVFAIL", "REFUSED"}, reply.RCode())
			}
			// A question is put to each of them once or twice at most, besides those by which they look for the circle.
			require.Less(t, packets()-before, float64(questions*(2*n+2)))
			for _, p := range platforms {
				p.DNS(t).Ask("www.mec.example", "A").Holds("NOERROR", "A 192.0.2.1").Local()
			}
		})
	}
}

func TestUpstreamsOverTLS(t *testing.T) {
	t.Parallel()
	known, unknown := newAuthority(t, "known"), newAuthority(t, "unknown")
	start := func(a *authority, change func(*x509.Certificate), suffix string) (*harness.Upstream, *harness.Resolver) {
		t.Helper()
		up := harness.NewUpstream(t)
		addr := up.TLS(&tls.Config{Certificates: []tls.Certificate{a.pair(t, "dot", change).load(t)}, MinVersion: tls.VersionTLS12})
		return up, harness.Start(t, hasty(), harness.Env("SSL_CERT_FILE="+known.file), harness.Args("--dns-forward=tls://"+addr+suffix)).DNS(t)
	}
	called := func(name string) func(*x509.Certificate) {
		return func(c *x509.Certificate) { c.DNSNames, c.IPAddresses = []string{name}, nil }
	}
	for name, x := range map[string]struct {
		by     *authority
		change func(*x509.Certificate)
		suffix string
		good   bool
	}{
		"a certificate for the address":  {known, nil, "", true},
		"a certificate for the name":     {known, called("dot.example"), "#dot.example", true},
		"a certificate for another name": {known, called("dot.example"), "#other.example", false},
		"one that has not the address":   {known, called("dot.example"), "", false},
		"one of another address":         {known, func(c *x509.Certificate) { c.IPAddresses = []net.IP{{192, 0, 2, 1}} }, "", false},
		"a CA that is not known":         {unknown, nil, "", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			up, d := start(x.by, x.change, x.suffix)
			d = d.For(t)
			for i := range 20 {
				if !x.good {
					d.Ask(fmt.Sprintf("www%d.example", i/10), "A").Is("SERVFAIL")
					continue
				}
				d.Ask(fmt.Sprintf("www%d.example", i), "A").Holds("NOERROR", "A 192.0.2.53").Forwarded()
			}
			require.Len(t, up.Asked(), map[bool]int{true: 20}[x.good])
			for _, asked := range up.Asked() {
				require.Equal(t, "tls", asked.Network, "what is asked over TLS is never asked in the open")
			}
		})
	}
	t.Run("connections that are closed", func(t *testing.T) {
		t.Parallel()
		up, d := start(known, nil, "")
		d = d.For(t)
		up.Behave(func(x *harness.Exchange) {
			x.Reply("192.0.2.53")
			x.Close() // as servers do at their own discretion
		})
		for i := range 20 {
			d.Ask(fmt.Sprintf("www%d.example", i), "A").Holds("NOERROR", "A 192.0.2.53")
		}
	})
	t.Run("what is truncated there is no answer", func(t *testing.T) {
		t.Parallel()
		up, d := start(known, nil, "")
		up.Behave(func(x *harness.Exchange) {
			m := x.Answer("@ 300 A 192.0.2.66")
			m.Truncated = true
			x.Send(m)
		})
		reply := d.For(t).Ask("www.example", "A", func(m *rr.Msg) { m.IsEdns0().SetUDPSize(1232) })
		require.Contains(t, []string{"SERVFAIL", "NOERROR"}, reply.RCode())
		require.False(t, reply.Truncated && len(reply.Answer) > 0)
	})
}
