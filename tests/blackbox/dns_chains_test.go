package blackbox

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/tests/harness"
)

// A content network leads its names to others: a rule for one of these counts, however the question came there.
func TestARuleCountsWhereForwardersLeadToItsName(t *testing.T) {
	t.Parallel()
	up := harness.NewUpstream(t)
	up.Behave(func(x *harness.Exchange) {
		x.Send(x.Answer("@ 300 CNAME edge.network.example.", "edge.network.example. 300 A 192.0.2.53"))
	})
	p := harness.Start(t, forwarding(up))
	d := p.DNS(t)
	theirs := []string{"CNAME edge.network.example.", "A 192.0.2.53"}
	ours := []string{"CNAME edge.network.example.", "A 192.0.2.1"}
	d.Ask("www.shop.example", "A").Holds("NOERROR", theirs...).Forwarded()

	a, _ := withRules(t, p, rule("d1", "edge.network.example", "192.0.2.1"))
	d.Ask("www.shop.example", "A").Holds("NOERROR", ours...)
	d.Ask("new.shop.example", "A").Holds("NOERROR", ours...)
	d.TCP().Ask("www.shop.example", "A", harness.WithoutEDNS).Holds("NOERROR", ours...)
	a.Put(a.dnsRule("d1"), object{"state": "INACTIVE"}).Is(200)
	kept := d.Await("www.shop.example", "A", func(reply *harness.Reply) error { return reply.Lacks("NOERROR", theirs...) })
	for _, r := range kept.Answer {
		require.Positive(t, r.Header().Ttl)
		require.LessOrEqual(t, r.Header().Ttl, uint32(300), "what remains of theirs")
	}
	d.Ask("new.shop.example", "A").Holds("NOERROR", theirs...)
	require.Len(t, up.Asked("www.shop.example."), 1, "what was kept is good")

	p.DNSManagement(t).Post(rrecord, record("start.example", "CNAME", "www.shop.example")).Is(200)
	a.Put(a.dnsRule("d1"), object{"state": "ACTIVE"}).Is(200)
	d.AwaitAnswer("edge.network.example", "A", "NOERROR", at("edge.network.example", defaultTTL, "A", "192.0.2.1"))
	d.Ask("start.example", "A").Holds("NOERROR", append([]string{"CNAME www.shop.example."}, ours...)...)
}

// A name with a CNAME has nothing else: whichever comes later is refused where somebody can be told, and the rule counts where not.
func TestAnAliasAndARuleForOneName(t *testing.T) {
	t.Parallel()
	p := harness.Start(t, owning())
	c, d := p.DNSManagement(t), p.DNS(t)
	c.Post(rrecord, record("alias.mec.example", "CNAME", "target.mec.example")).Is(200)
	served := c.Get(recordPath("alias.mec.example", "CNAME")).Is(200)
	a, m := withRules(t, p, rule("d1", "www.mec.example", "192.0.2.1"))

	problem := c.Post(rrecord, record("www.mec.example", "CNAME", "target.mec.example")).Problem(409)
	require.Equal(t, "www.mec.example. CNAME would not be answered: a name with a CNAME has nothing else, and there is the A of rules of "+a.id+
		"; nothing was changed", problem.Detail)
	problem = c.Post(rrecord, record("mec.example", "CNAME", "target.mec.example")).Problem(409)
	require.Contains(t, problem.Detail, "there is the NS of the zone")
	c.Post(rrecord, record("www.mec.example", "TXT", "beside a rule")).Is(200)

	b, _ := withRules(t, p, rule("d2", "alias.mec.example", "192.0.2.2"))
	d.Ask("alias.mec.example", "A").Is("NOERROR", at("alias.mec.example", defaultTTL, "A", "192.0.2.2"))
	require.Equal(t, []string{"DNS d2 APPLIED"}, m.rules(b.id))
	why := "a name with a CNAME has nothing else, and there is the A of rules of " + b.id
	unserved := c.Get(recordPath("alias.mec.example", "CNAME"), harness.Header("If-None-Match", served.ETag())).Is(200)
	require.Equal(t, why, unserved.Object()["notServed"])
	require.Equal(t, why, c.Get(rrecord + "?type=CNAME").Is(200).Array()[0]["notServed"])
	require.Contains(t, c.Get(dnsRoot + "/trace?name=alias.mec.example").Is(200).Object()["steps"],
		"the CNAME of record alias.mec.example./CNAME is not answered: "+why)

	m.done(m.terminate(b.id, forceful))
	d.Ask("alias.mec.example", "CNAME").Holds("NOERROR", "CNAME target.mec.example.")
	require.NotContains(t, c.Get(recordPath("alias.mec.example", "CNAME")).Is(200).Object(), "notServed")
}

// What does not fit into an answer is refused where somebody can be told.
func TestRecordsThatDoNotFitIntoAnAnswerAreRefused(t *testing.T) {
	t.Parallel()
	p := harness.Start(t, owning(), harness.Config("dns:\n  views:\n  - {name: pool, clients: [192.0.2.0/24]}\n"))
	c := p.DNSManagement(t)
	text := func(n int) string { return strings.Repeat("x", n) }
	c.Post(rrecord, record("large.mec.example", "TXT", text(40_000))).Is(200)
	problem := c.Post(rrecord+"?view=pool", record("large.mec.example", "TXT", text(30_000))).Problem(409)
	require.Contains(t, problem.Detail, "the records of the type TXT of this name take more than 64000 octets of an answer")
	c.Post(rrecord+"?view=pool", record("large.mec.example", "TXT", text(20_000))).Is(200)
	c.Put(recordPath("large.mec.example", "TXT"), record("large.mec.example", "TXT", text(50_000))).Problem(409)
	require.Len(t, p.DNS(t).TCP().Ask("large.mec.example", "TXT").Answer, 1)
}
