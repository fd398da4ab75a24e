package blackbox

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	rr "github.com/miekg/dns"
	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/tests/harness"
)

// The same tens of thousands of questions about the same zone are put to the platform and to servers of other people.
func TestAnswersDifferFromThoseOfOtherDNSServersOnlyAsTheyAreMeantTo(t *testing.T) {
	t.Parallel()
	p := harness.Start(t, harness.Args("--dns-zones="+diffZone))
	g := newZoneMaker()
	g.put(t, p.DNSManagement(t))
	d := p.DNS(t)
	zoneFile := g.text() + d.Ask(diffZone, "NS").Answer[0].String() + "\n" + d.Ask(diffZone, "SOA").Answer[0].String() + "\n"
	for seed, server := range []struct {
		name  string
		start func(tb testing.TB, zone, zoneFile string) string
	}{{"NSD", harness.StartNSD}, {"Knot", harness.StartKnot}} {
		t.Run(server.name, func(t *testing.T) {
			t.Parallel()
			theirs := harness.ResolverAt(t, server.start(t, diffZone, zoneFile))
			const askers, each = 4, 5000
			var asking sync.WaitGroup
			explained := make([]map[string]int, askers)
			for i := range askers {
				asking.Go(func() {
					q := &questioner{t: t, zone: g, rng: rand.New(rand.NewPCG(uint64(seed), uint64(i))), explained: map[string]int{}}
					explained[i] = q.explained
					q.ask(d, theirs, each)
				})
			}
			asking.Wait()
			all := map[string]int{}
			for _, counts := range explained {
				for name, n := range counts {
					all[name] += n
				}
			}
			t.Logf("differences that are meant: %v", all)
		})
	}
}

// questioner compares answers until one differs.
type questioner struct {
	t         *testing.T
	zone      *zoneMaker
	rng       *rand.Rand
	explained map[string]int // by the name of the rule
}

func (q *questioner) ask(ours, theirs *harness.Resolver, questions int) {
	a, err := ours.Session()
	if err != nil {
		q.t.Error(err)
		return
	}
	defer a.Close()
	b, err := theirs.Session()
	if err != nil {
		q.t.Error(err)
		return
	}
	defer b.Close()
	for range questions {
		query := q.query()
		mine, err := exchanged(ours, a, query)
		if err != nil {
			q.t.Errorf("%s: %v", query.Question[0].String(), err)
			return
		}
		other := plainly(theirs, b, query)
		if other == nil {
			q.t.Errorf("%s: the other server does not answer", query.Question[0].String())
			return
		}
		if difference := compare(mine.Msg, other); difference != "" {
			rule := meant(query, mine.Msg, other)
			if rule == "" {
				q.t.Errorf("%s\nours: %s\ntheirs: %s", difference, mine.Msg, other)
				return
			}
			q.explained[rule]++
		}
	}
}

// exchanged is the whole answer, over TCP where there is no room for it in UDP.
func exchanged(r *harness.Resolver, s *harness.Session, query *rr.Msg) (*harness.Reply, error) {
	reply, err := s.Try(query, harness.Patience)
	if err == nil && reply.Truncated {
		return r.TCP().Try(query, harness.Patience)
	}
	return reply, err
}

// plainly is exchanged for a server whose responses are not checked.
func plainly(r *harness.Resolver, s *harness.Session, query *rr.Msg) *rr.Msg {
	reply := s.Unchecked(query, harness.Patience)
	if reply == nil || !reply.Truncated {
		return reply
	}
	over, err := r.TCP().Session()
	if err != nil {
		return nil
	}
	defer over.Close()
	return over.Unchecked(query, harness.Patience)
}

// compare says in what two answers differ, apart from what is beside the point: capitals, the order of records, what is offered in
// EDNS, and whether recursion is.
func compare(ours, theirs *rr.Msg) string {
	switch {
	case ours.Rcode != theirs.Rcode:
		return "the codes differ"
	case ours.Authoritative != theirs.Authoritative:
		return "the flags AA differ"
	case !slices.Equal(folded(ours.Answer), folded(theirs.Answer)):
		return "the answers differ"
	case !slices.Equal(folded(ours.Ns), folded(theirs.Ns)):
		return "the authority sections differ"
	}
	return ""
}

func folded(section []rr.RR) []string {
	list := make([]string, len(section))
	for i, record := range section {
		list[i] = strings.ToLower(record.String())
	}
	slices.Sort(list)
	return list
}

// meant is the name of the rule that makes the answers differ, "" when there is none.
func meant(query *rr.Msg, ours, theirs *rr.Msg) string {
	asked := query.Question[0]
	onlyNS := !slices.ContainsFunc(theirs.Ns, func(r rr.RR) bool { return r.Header().Rrtype != rr.TypeNS })
	sameAnswer := ours.Rcode == theirs.Rcode && ours.Authoritative == theirs.Authoritative && slices.Equal(folded(ours.Answer), folded(theirs.Answer))
	switch {
	case asked.Qtype == rr.TypeANY && ours.Rcode == rr.RcodeSuccess && theirs.Rcode == rr.RcodeSuccess && len(ours.Answer) == 1 &&
		ours.Answer[0].Header().Rrtype == rr.TypeHINFO:
		return "ANY is answered as RFC 8482 4.2 says"
	case ours.Rcode == rr.RcodeSuccess && aliases(ours.Answer) && len(ours.Answer) == 8 && len(ours.Ns) == 0 && begins(theirs.Answer, ours.Answer):
		return "more than 8 aliases are not followed"
	case theirs.Rcode == rr.RcodeSuccess && aliases(theirs.Answer) && len(theirs.Answer) == 5 && begins(ours.Answer, theirs.Answer):
		return "Knot does not follow more than 5 aliases"
	case sameAnswer && len(ours.Answer) > 0 && len(ours.Ns) == 0 && onlyNS:
		return "name servers nobody asked for are left out"
	}
	return ""
}

// aliases reports whether there is nothing but CNAME records.
func aliases(section []rr.RR) bool {
	return !slices.ContainsFunc(section, func(r rr.RR) bool { return r.Header().Rrtype != rr.TypeCNAME })
}

// begins reports whether the longer answer begins with the other.
func begins(longer, answer []rr.RR) bool {
	return len(longer) >= len(answer) && slices.Equal(folded(longer[:len(answer)]), folded(answer))
}

// query makes up a question.
func (q *questioner) query() *rr.Msg {
	name := q.name()
	if q.rng.IntN(3) == 0 {
		name = q.capitals(name)
	}
	types := []string{"A", "A", "A", "AAAA", "CNAME", "SRV", "TXT", "PTR", "MX", "NS", "SOA", "ANY", "DS", "HTTPS", "CAA", "TYPE4711"}
	m := harness.Question(name, types[q.rng.IntN(len(types))])
	m.RecursionDesired = q.rng.IntN(2) == 0
	switch q.rng.IntN(4) {
	case 0:
		harness.WithoutEDNS(m)
	case 1:
		m.IsEdns0().SetUDPSize(uint16(400 + q.rng.IntN(4000)))
	case 2:
		m.IsEdns0().SetDo()
	}
	return m
}

// name is one of the zone, or one near it.
func (q *questioner) name() string {
	name := q.zone.names[q.rng.IntN(len(q.zone.names))]
	for range q.rng.IntN(4) {
		var next string
		labels := rr.SplitDomainName(name)
		at := q.rng.IntN(len(labels) - 1) // the zone's last label stays
		switch q.rng.IntN(7) {
		case 0: // the name above
			next = strings.Join(labels[1:], ".") + "."
		case 1, 2: // one below
			next = q.zone.label(q.rng) + "." + name
		case 3: // one beside
			labels[0] = q.zone.label(q.rng)
			next = strings.Join(labels, ".") + "."
		case 4: // one with another label in between
			labels[at] += "." + q.zone.label(q.rng)
			next = strings.Join(labels, ".") + "."
		case 5: // the wildcard of its name, or of the name above
			labels[0] = "*"
			next = strings.Join(labels, ".") + "."
		default: // one without one of its labels
			next = strings.Join(slices.Delete(labels, at, at+1), ".") + "."
		}
		if _, ok := rr.IsDomainName(next); ok && len(next) < 255 && strings.HasSuffix(next, diffZone+".") {
			name = next
		}
	}
	return name
}

func (q *questioner) capitals(name string) string {
	return strings.Map(func(c rune) rune {
		if 'a' <= c && c <= 'z' && q.rng.IntN(2) == 0 {
			return c - 'a' + 'A'
		}
		return c
	}, name)
}

const diffZone = "diff.example"

// zoneMaker makes up a zone: the same one every time.
type zoneMaker struct {
	rng     *rand.Rand
	names   []string
	records map[string]object // by name and type
	order   []string
}

func newZoneMaker() *zoneMaker {
	g := &zoneMaker{rng: rand.New(rand.NewPCG(47, 11)), records: map[string]object{}, names: []string{diffZone + ".", "ns." + diffZone + "."}}
	g.add("ns."+diffZone+".", "A", "192.0.2.53")
	g.add("long-1."+strings.Repeat(strings.Repeat("a", 59)+".", 3)+strings.Repeat("b", 36)+"."+diffZone+".", "A", "192.0.2.1")
	g.add("*."+strings.Repeat("c.", 118)+diffZone+".", "A", "192.0.2.2") // 254 octets with the asterisk
	for i := range 7 {                                                   // as long as the platform follows them
		g.add(fmt.Sprintf("k%d.%s.", i, diffZone), "CNAME", fmt.Sprintf("k%d.%s.", i+1, diffZone))
	}
	g.add("k7."+diffZone+".", "A", "192.0.2.3")
	for i := range 3 { // in circles, of which each alias is said once
		g.add(fmt.Sprintf("o%d.%s.", i, diffZone), "CNAME", fmt.Sprintf("o%d.%s.", (i+1)%3, diffZone))
	}
	g.add("to-o."+diffZone+".", "CNAME", "o1."+diffZone+".")
	g.add("*.self."+diffZone+".", "CNAME", "x.self."+diffZone+".")
	g.add("*.deep."+diffZone+".", "CNAME", "x.y.deep."+diffZone+".")
	g.add("*.y.deep."+diffZone+".", "CNAME", "x.www.deep."+diffZone+".")
	for range 800 {
		g.add(g.name(), g.rrtype())
	}
	return g
}

// label is one of few, so that names have much in common.
func (g *zoneMaker) label(rng *rand.Rand) string {
	return []string{"a", "b", "c", "d", "www", "_tcp", "x-y", "0", strings.Repeat("z", 63)}[rng.IntN(9)]
}

// name is that of a record: that of another one, above or below one, a wildcard at any depth.
func (g *zoneMaker) name() string {
	base := diffZone + "."
	if g.rng.IntN(2) == 0 {
		base = g.names[g.rng.IntN(len(g.names))]
	}
	base = strings.TrimPrefix(base, "*.") // the asterisk can only be the first label
	for range g.rng.IntN(4) {
		base = g.label(g.rng) + "." + base
	}
	if g.rng.IntN(5) == 0 {
		base = "*." + base
	}
	if len(base) > 254 || base == diffZone+"." && g.rng.IntN(4) > 0 {
		return g.name()
	}
	return base
}

func (g *zoneMaker) rrtype() string {
	return []string{"A", "A", "A", "AAAA", "CNAME", "CNAME", "SRV", "TXT", "PTR"}[g.rng.IntN(9)]
}

// add adds a record, unless there is one, or a CNAME would not be alone, or at the top of the zone.
func (g *zoneMaker) add(name, rrtype string, values ...string) {
	for _, t := range []string{"A", "AAAA", "SRV", "TXT", "PTR", "CNAME"} {
		if (t == rrtype || t == "CNAME" || rrtype == "CNAME") && g.records[name+" "+t] != nil {
			return
		}
	}
	if rrtype == "CNAME" && name == diffZone+"." {
		return
	}
	if len(values) == 0 {
		values = g.values(name, rrtype)
	}
	list := make([]any, len(values))
	for i, v := range values {
		list[i] = v
	}
	g.records[name+" "+rrtype] = but(record(name, rrtype, list...), "ttl", 1+g.rng.IntN(100000))
	g.order = append(g.order, name+" "+rrtype)
	g.names = append(g.names, name)
}

func (g *zoneMaker) values(name, rrtype string) []string {
	n := 1 + g.rng.IntN(3)
	if g.rng.IntN(40) == 0 {
		n = 100 // too many for UDP
	}
	var values []string
	for i := range n {
		switch rrtype {
		case "A":
			values = append(values, fmt.Sprintf("10.%d.%d.%d", g.rng.IntN(256), i, g.rng.IntN(256)))
		case "AAAA":
			values = append(values, fmt.Sprintf("2001:db8::%x:%x", i+1, g.rng.IntN(65536)))
		case "CNAME":
			return []string{g.target(name)}
		case "SRV":
			values = append(values, fmt.Sprintf("%d %d %d %s", i, g.rng.IntN(65536), g.rng.IntN(65536), g.target(name)))
		case "TXT":
			values = append(values, fmt.Sprint(i)+strings.Repeat(`t"\ü ;`, g.rng.IntN(60)))
		case "PTR":
			values = append(values, fmt.Sprintf("p%d.%s", i, diffZone+"."))
		}
	}
	return values
}

// target is where an alias leads: mostly into the zone, to what there is or is not, now and then in a circle or elsewhere.
func (g *zoneMaker) target(from string) string {
	for {
		to := strings.TrimPrefix(g.names[g.rng.IntN(len(g.names))], "*.")
		switch g.rng.IntN(8) {
		case 0:
			to = "elsewhere.example."
		case 1, 2:
			to = g.label(g.rng) + "." + to
		}
		if to != from && len(to) <= 254 && len(to) < len(from)+60 {
			return to
		}
	}
}

// put gives the zone to the platform, many records at a time.
func (g *zoneMaker) put(t *testing.T, c *harness.Client) {
	t.Helper()
	for some := range slices.Chunk(g.order, 100) {
		var batch []object
		for _, key := range some {
			batch = append(batch, g.records[key])
		}
		c.Post(rrecord, batch).Is(200)
	}
	listed := 0
	for _, name := range c.Get(dnsRoot + "/zones").Is(200).Array() {
		require.Equal(t, diffZone+".", name["name"])
		listed = int(name["names"].(float64))
	}
	require.Positive(t, listed)
}

// text is the zone as a file, apart from its SOA and its name servers.
func (g *zoneMaker) text() string {
	var file strings.Builder
	for _, key := range g.order {
		o := g.records[key]
		name, rrtype := o["name"].(string), o["type"].(string)
		for _, v := range o["rData"].([]any) {
			fmt.Fprintf(&file, "%s %v IN %s %s\n", name, o["ttl"], rrtype, inZoneFile(rrtype, v.(string)))
		}
	}
	return file.String()
}

// inZoneFile writes a value as a zone file has it (RFC 1035 5.1).
func inZoneFile(rrtype, value string) string {
	if rrtype != "TXT" {
		return value
	}
	var parts []string
	for octets := []byte(value); len(octets) > 0 || parts == nil; {
		n := min(len(octets), 255)
		var part strings.Builder
		for _, c := range octets[:n] {
			if c < ' ' || c > '~' || c == '"' || c == '\\' {
				fmt.Fprintf(&part, `\%03d`, c)
			} else {
				part.WriteByte(c)
			}
		}
		parts, octets = append(parts, `"`+part.String()+`"`), octets[n:]
	}
	return strings.Join(parts, " ")
}
