package blackbox

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/tests/harness"
)

func TestViewsOfTheDNSServer(t *testing.T) {
	t.Parallel()
	up := harness.NewUpstream(t)
	secluded := uuid.NewString()
	config := fmt.Sprintf(`
dns:
  zones: [mec.example, 2.0.192.in-addr.arpa]
  forward: [%q]
  views:
  - {name: ue, clients: [127.0.60.0/23], apps: [%s]}
  - {name: gold, clients: [127.0.61.0/24, "127.0.60.7"], names: [gold.mec.example, "*.gold.other.example"]}
`, up.Addr(), secluded)
	p := harness.Start(t, harness.Config(config))
	d, m, c := p.DNS(t), mepmOf(t, p), p.DNSManagement(t)
	nobody, ue, gold, chosen := d.From("127.0.50.1"), d.From("127.0.60.1"), d.From("127.0.61.9"), d.From("127.0.60.7")

	m.done(m.configure(secluded, ruled(rule("d", "app.mec.example", "192.0.2.1"), rule("out", "app.other.example", "192.0.2.2"))))
	m.done(m.operate(secluded, started))
	withRules(t, p, rule("a", "app.mec.example", "192.0.2.3"), rule("b", "x.gold.mec.example", "192.0.2.4"), rule("c", "y.gold.other.example", "192.0.2.5"), rule("d", "*.gold.mec.example", "192.0.2.6"))
	c.Post(rrecord, record("rec.mec.example", "A", "192.0.2.7")).Is(200)
	c.Post(rrecord+"?view=gold", []object{record("rec.mec.example", "A", "192.0.2.8"), record("rec.mec.example", "TXT", "gold"), record("only.mec.example", "A", "192.0.2.9")}).Is(200)
	c.Post(rrecord, but(record("rec.mec.example", "A", "192.0.2.10"), "view", "ue")).Is(200)

	type answers map[*harness.Resolver]string // "" is NXDOMAIN in a zone, and what the upstream says elsewhere
	for question, want := range map[string]answers{
		"app.mec.example":          {nobody: "192.0.2.3", ue: "192.0.2.1 192.0.2.3", gold: "192.0.2.3", chosen: "192.0.2.3"},
		"app.other.example":        {nobody: "192.0.2.53", ue: "192.0.2.2", gold: "192.0.2.53", chosen: "192.0.2.53"},
		"x.gold.mec.example":       {nobody: "", ue: "", gold: "192.0.2.4", chosen: "192.0.2.4"},
		"any.gold.mec.example":     {nobody: "", ue: "", gold: "192.0.2.6", chosen: "192.0.2.6"},
		"y.gold.other.example":     {nobody: "192.0.2.53", ue: "192.0.2.53", gold: "192.0.2.5", chosen: "192.0.2.5"},
		"rec.mec.example":          {nobody: "192.0.2.7", ue: "192.0.2.10 192.0.2.7", gold: "192.0.2.7 192.0.2.8", chosen: "192.0.2.7 192.0.2.8"},
		"only.mec.example":         {nobody: "", ue: "", gold: "192.0.2.9", chosen: "192.0.2.9"},
		"below.only.mec.example":   {nobody: "", ue: "", gold: "", chosen: ""},
		"other-than-these.example": {nobody: "192.0.2.53", ue: "192.0.2.53", gold: "192.0.2.53", chosen: "192.0.2.53"},
	} {
		for r, addresses := range want {
			for _, over := range []*harness.Resolver{r, r.TCP()} {
				reply := over.Ask(question, "A")
				if addresses == "" {
					reply.Is("NXDOMAIN")
					continue
				}
				var data []string
				for a := range strings.FieldsSeq(addresses) {
					data = append(data, "A "+a)
				}
				reply.Holds("NOERROR", data...)
			}
		}
	}
	// A name that others have is one that is not there, to every question, and in reverse.
	nobody.Ask("gold.mec.example", "A").Is("NXDOMAIN")
	gold.Ask("gold.mec.example", "A").Is("NOERROR")
	nobody.Ask("rec.mec.example", "TXT").Is("NOERROR")
	gold.Ask("rec.mec.example", "TXT").Holds("NOERROR", `TXT "gold"`)
	nobody.Ask("9.2.0.192.in-addr.arpa", "PTR").Is("NXDOMAIN")
	gold.Ask("9.2.0.192.in-addr.arpa", "PTR").Holds("NOERROR", "PTR only.mec.example.")
	require.Equal(t, []string{"DNS d APPLIED", "DNS out APPLIED"}, m.rules(secluded))

	// A view that is taken out of the configuration takes what is in it out of sight, and gives it back.
	require.True(t, p.Reload(fmt.Sprintf("dns: {zones: [mec.example], forward: [%q]}\n", up.Addr())))
	gold.AwaitData("rec.mec.example", "A", "NOERROR", "A 192.0.2.7")
	gold.Ask("only.mec.example", "A").Is("NXDOMAIN")
	nobody.AwaitData("app.mec.example", "A", "NOERROR", "A 192.0.2.1", "A 192.0.2.3")
	c.Post(rrecord+"?view=gold", record("new.mec.example", "A", "192.0.2.1")).Problem(400)
	require.Len(t, c.Get(rrecord+"?view=gold").Array(), 3)
	require.True(t, p.Reload(config))
	gold.AwaitData("rec.mec.example", "A", "NOERROR", "A 192.0.2.7", "A 192.0.2.8")
	nobody.AwaitData("app.mec.example", "A", "NOERROR", "A 192.0.2.3")
	p.Kill()
	p.Restart()
	gold.Ask("only.mec.example", "A").Holds("NOERROR", "A 192.0.2.9")
	nobody.Ask("only.mec.example", "A").Is("NXDOMAIN")
}

func TestServicesAreFoundByTheirNames(t *testing.T) {
	t.Parallel()
	p := harness.Start(t, harness.Args("--dns-zones=mec.example,2.0.192.in-addr.arpa", "--dns-service-zone=svc.mec.example", "--dns-ttl=7s"))
	d := p.DNS(t)
	a, b := newApp(p.Client(t)), newApp(p.Client(t))
	with := func(name string, endpoint object) object { return but(own(name), "transportInfo.endpoint", endpoint) }
	addresses := func(hosts ...any) object {
		list := []any{}
		for i := 0; i < len(hosts); i += 2 {
			list = append(list, object{"host": hosts[i], "port": hosts[i+1]})
		}
		return object{"addresses": list}
	}
	a1 := func(name, address string) string { return at(name+".svc.mec.example", 7, "A", address) }
	d.Ask("cam.svc.mec.example", "A").Is("NXDOMAIN").Local()

	cam := a.register(with("cam", addresses("192.0.2.1", 8080, "2001:db8::1", 8080)))
	d.AwaitAnswer("cam.svc.mec.example", "A", "NOERROR", a1("cam", "192.0.2.1"))
	d.Ask("Cam.SVC.mec.example", "AAAA").Holds("NOERROR", "AAAA 2001:db8::1").Local()
	d.Ask("cam.svc.mec.example", "SRV").Holds("NOERROR", "SRV 0 0 8080 "+cam.id+".cam.svc.mec.example.")
	d.Ask(cam.id+".cam.svc.mec.example", "A").Holds("NOERROR", "A 192.0.2.1")
	d.Ask(cam.id+".cam.svc.mec.example", "AAAA").Holds("NOERROR", "AAAA 2001:db8::1")

	// Instances of one name are all of its answers, while they are ACTIVE.
	other := b.register(with("cam", object{"uris": []any{"https://192.0.2.2:8443/api", "http://cam.example/x"}}))
	d.AwaitAnswer("cam.svc.mec.example", "A", "NOERROR", a1("cam", "192.0.2.1"), a1("cam", "192.0.2.2"))
	require.Len(t, d.Ask("cam.svc.mec.example", "SRV").Holds("NOERROR", "SRV 0 0 8080 "+cam.id+".cam.svc.mec.example.",
		"SRV 0 0 8443 "+other.id+".cam.svc.mec.example.", "SRV 0 0 80 cam.example.").Answer, 3)
	b.replace(other.id, but(with("cam", addresses("192.0.2.2", 8443)), "state", "INACTIVE"))
	d.AwaitAnswer("cam.svc.mec.example", "A", "NOERROR", a1("cam", "192.0.2.1"))
	b.replace(other.id, with("cam", addresses("192.0.2.3", 8443)))
	d.AwaitAnswer("cam.svc.mec.example", "A", "NOERROR", a1("cam", "192.0.2.1"), a1("cam", "192.0.2.3"))
	a.remove(cam.id)
	d.AwaitAnswer("cam.svc.mec.example", "A", "NOERROR", a1("cam", "192.0.2.3"))
	d.Ask(cam.id+".cam.svc.mec.example", "A").Is("NXDOMAIN")
	b.remove(other.id)
	d.AwaitAnswer("cam.svc.mec.example", "A", "NXDOMAIN")

	// A service that is silent is none that can be reached.
	a.register(but(monitored("beat", 2), "transportInfo.endpoint", addresses("192.0.2.4", 80)))
	d.AwaitAnswer("beat.svc.mec.example", "A", "NOERROR", a1("beat", "192.0.2.4"))
	d.AwaitAnswer("beat.svc.mec.example", "A", "NXDOMAIN")

	// Names that are no domain names, and endpoints that are no addresses, are nobody's harm.
	for _, info := range []object{
		with("with blank", addresses("192.0.2.5", 80)), with("ünïcode", addresses("192.0.2.5", 80)), with("*", addresses("192.0.2.5", 80)), with("a..b", addresses("192.0.2.5", 80)),
		with("odd", object{"uris": []any{"urn:x", "http://[fe80::1%25eth0]/", "http:///x", "http://a b/"}}), with("queue", object{"alternative": object{"x": 1}}),
	} {
		if answer := a.Post(a.services(), info); answer.Status != 201 {
			answer.Problem(400)
		}
	}
	dotted := a.register(with("v1.api_x", addresses("192.0.2.6", 80)))
	d.AwaitData("v1.api_x.svc.mec.example", "A", "NOERROR", "A 192.0.2.6")
	for _, name := range []string{"queue.svc.mec.example", "any.svc.mec.example", "b.svc.mec.example"} {
		d.Ask(name, "A").Is("NXDOMAIN")
	}
	// Names that were given give way to nobody's services.
	withRules(t, p, rule("d", "taken.svc.mec.example", "192.0.2.10"))
	p.DNSManagement(t).Post(rrecord, record("also.svc.mec.example", "A", "192.0.2.11")).Is(200)
	for _, name := range []string{"taken", "also"} {
		a.register(with(name, addresses("192.0.2.12", 80)))
	}
	a.register(with("last", addresses("192.0.2.13", 80)))
	d.AwaitData("last.svc.mec.example", "A", "NOERROR", "A 192.0.2.13")
	d.Ask("taken.svc.mec.example", "A").Holds("NOERROR", "A 192.0.2.10")
	d.Ask("also.svc.mec.example", "A").Holds("NOERROR", "A 192.0.2.11")
	p.Kill()
	p.Restart()
	d.Ask("v1.api_x.svc.mec.example", "SRV").Holds("NOERROR", "SRV 0 0 80 "+dotted.id+".v1.api_x.svc.mec.example.")
}
