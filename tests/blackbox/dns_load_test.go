package blackbox

import (
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	rr "github.com/miekg/dns"
	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/tests/harness"
)

// load asks questions until it is told to stop. A question without an answer, or with a wrong one, fails the test.
type load struct {
	t       *testing.T
	asking  sync.WaitGroup
	stop    chan struct{}
	answers atomic.Int64
}

func newLoad(t *testing.T) *load {
	t.Helper()
	l := &load{t: t, stop: make(chan struct{})}
	t.Cleanup(l.end)
	return l
}

// end stops it.
func (l *load) end() {
	select {
	case <-l.stop:
	default:
		close(l.stop)
	}
	l.asking.Wait()
}

// ask lets an asker with a socket of its own ask its questions in turn. Each comes with what says what is wrong with an answer; it is
// called twice, before the question is asked with nil.
func (l *load) ask(d *harness.Resolver, questions map[string]func(*harness.Reply) error) {
	l.asking.Go(func() {
		s, err := d.Session()
		if err != nil {
			l.t.Error(err)
			return
		}
		defer s.Close()
		for {
			for question, check := range questions {
				select {
				case <-l.stop:
					return
				default:
				}
				name, rrtype, _ := strings.Cut(question, " ")
				_ = check(nil)
				reply, err := s.Try(harness.Question(name, rrtype), harness.Patience)
				if err == nil {
					err = check(reply)
				}
				if err != nil {
					l.t.Errorf("%s: %v", question, err)
					return
				}
				l.answers.Add(1)
			}
		}
	})
}

// constant is for a question whose answer is always the same.
func constant(rcode string, data ...string) func(*harness.Reply) error {
	return func(r *harness.Reply) error {
		if r == nil {
			return nil
		}
		return r.Lacks(rcode, data...)
	}
}

// either is for a question with several right answers.
func either(checks ...func(*harness.Reply) error) func(*harness.Reply) error {
	return func(r *harness.Reply) error {
		var last error
		for _, check := range checks {
			if last = check(r); last == nil {
				return nil
			}
		}
		return last
	}
}

// series is a value that is changed again and again, from 0 on.
type series struct{ asked, inForce atomic.Int64 }

// next changes the value. When change returns it must be in force.
func (s *series) next(change func(n int64)) {
	n := s.asked.Add(1)
	change(n)
	s.inForce.Store(n)
}

// sides are two addresses that stand for a value.
func sides(n int64) [2]string {
	return [2]string{fmt.Sprintf("10.1.%d.%d", n>>8, n&255), fmt.Sprintf("10.2.%d.%d", n>>8, n&255)}
}

// valid is for a question that is answered with both sides of the value. One asker sees no value after a later one, none that was not
// in force at some time between question and answer, and never sides of different values.
func (s *series) valid() func(*harness.Reply) error {
	var last, least int64
	return func(r *harness.Reply) error {
		if r == nil {
			least = max(last, s.inForce.Load())
			return nil
		}
		most := s.asked.Load()
		if len(r.Answer) != 2 {
			return fmt.Errorf("not both sides: %s", r.Msg)
		}
		var values [2]int64
		for i, record := range r.Answer {
			b := netip.MustParseAddr(record.(*rr.A).A.String()).As4()
			values[i] = int64(b[2])<<8 | int64(b[3])
		}
		if values[0] != values[1] || values[0] < least || values[0] > most {
			return fmt.Errorf("the values are %v, not one from %d to %d", values, least, most)
		}
		last = values[0]
		return nil
	}
}

func TestNoQuestionIsDroppedOrAnsweredWronglyWhileRulesChange(t *testing.T) {
	t.Parallel()
	up := harness.NewUpstream(t)
	p := harness.Start(t, owning(), forwarding(up), harness.Args("--limits-dns-rules=600"))
	m, c := mepm{p.UncheckedMm5(t)}, p.UncheckedDNSManagement(t)
	d := p.DNS(t)

	// One app changes all of its rules at a time, one by one over Mp1, one set of records is replaced by the management.
	const many = 250
	var configured, switched, replaced series
	configuration := func(n int64) object {
		var rules []object
		for i := range many {
			for side, address := range sides(n) {
				rules = append(rules, rule(fmt.Sprintf("r%d-%d", i, side), fmt.Sprintf("n%d.many.mec.example", i), address))
			}
		}
		return ruled(rules...)
	}
	a := newApp(p.Unchecked(t))
	m.done(m.configure(a.id, configuration(0)))
	m.done(m.operate(a.id, started))
	b, _ := withRules(t, p, rule("d", "app.mec.example", "192.0.2.1"), rule("still", "still.mec.example", "192.0.2.2"), rule("wild", "*.wild.mec.example", "192.0.2.3"),
		rule("out", "www.other.example", "192.0.2.4"))
	b = b.with(p.Unchecked(t))
	recordOf := func(n int64) object { s := sides(n); return record("managed.mec.example", "A", s[0], s[1]) }
	c.Post(rrecord, recordOf(0)).Is(200)

	l := newLoad(t)
	for i := range 4 {
		r := d
		if i == 3 {
			r = d.TCP()
		}
		l.ask(r, map[string]func(*harness.Reply) error{
			"still.mec.example A":                           constant("NOERROR", "A 192.0.2.2"),
			"still.mec.example AAAA":                        constant("NOERROR"),
			"none.mec.example A":                            constant("NXDOMAIN"),
			"any.wild.mec.example A":                        constant("NOERROR", "A 192.0.2.3"),
			"many.mec.example A":                            constant("NOERROR"),
			"www.other.example A":                           constant("NOERROR", "A 192.0.2.4"),
			"below.www.other.example A":                     constant("NOERROR", "A 192.0.2.53"),
			fmt.Sprintf("n%d.many.mec.example A", i*many/4): configured.valid(),
			"managed.mec.example A":                         replaced.valid(),
			"app.mec.example A":                             either(constant("NXDOMAIN"), constant("NOERROR", "A 192.0.2.1"), constant("NOERROR", "A 192.0.2.9")),
		})
	}
	const wanted = 12000 // rules
	var rules atomic.Int64
	begin := time.Now()
	going := func() bool { return rules.Load() < wanted && time.Since(begin) < 2*harness.Patience && !t.Failed() }
	var changing sync.WaitGroup
	changing.Go(func() {
		for going() {
			configured.next(func(n int64) { m.done(m.configure(a.id, configuration(n))) })
			rules.Add(2 * many)
		}
	})
	changing.Go(func() {
		for going() {
			replaced.next(func(n int64) { c.Put(recordPath("managed.mec.example", "A"), recordOf(n)).Is(200) })
			rules.Add(1)
		}
	})
	changing.Go(func() {
		updates := []object{{"state": "INACTIVE"}, {"state": "ACTIVE", "ipAddress": "192.0.2.9"}, {"state": "ACTIVE", "ipAddress": "192.0.2.1"}}
		for going() {
			b.Put(b.dnsRule("d"), updates[switched.asked.Add(1)%3]).Is(200)
			rules.Add(1)
		}
	})
	changing.Wait()
	took := time.Since(begin)
	l.end()
	t.Logf("%d rules changed in %s (%.0f/s) under %d answers; one app %d times, a record %d times, a rule %d times", rules.Load(), took,
		float64(rules.Load())/took.Seconds(), l.answers.Load(), configured.asked.Load(), replaced.asked.Load(), switched.asked.Load())
	require.GreaterOrEqual(t, rules.Load(), int64(wanted))
	require.Greater(t, l.answers.Load(), int64(1000))
}

func TestNoQuestionIsDroppedOrAnsweredWronglyWhileTheConfigurationChanges(t *testing.T) {
	t.Parallel()
	one, two := harness.NewUpstream(t), harness.NewUpstream(t)
	two.Behave(func(x *harness.Exchange) { x.Reply("192.0.2.54") })
	configs := [2]string{
		fmt.Sprintf("dns: {zones: [mec.example, toggled.example], forward: [%q], rotate: true}\n", one.Addr()),
		fmt.Sprintf(`
dns:
  zones: [mec.example]
  forward: [%q]
  views: [{name: ue, clients: [127.0.60.0/24]}]
  allowQuery: [127.0.0.0/18]
  ttl: 5s
`, two.Addr()),
	}
	p := harness.Start(t, harness.Config(configs[1]))
	p.DNSManagement(t).Post(rrecord, []any{
		record("www.mec.example", "A", "192.0.2.1", "192.0.2.2"), but(record("www.mec.example", "A", "192.0.2.3"), "view", "ue"),
		record("www.elsewhere.example", "A", "192.0.2.4"),
	}).Is(200)
	withRules(t, p, rule("d", "app.mec.example", "192.0.2.5"))
	d := p.DNS(t)
	l := newLoad(t)
	everybody := constant("NOERROR", "A 192.0.2.1", "A 192.0.2.2")
	forwarded := either(constant("NOERROR", "A 192.0.2.53"), constant("NOERROR", "A 192.0.2.54"))
	for _, r := range []*harness.Resolver{d, d, d.TCP()} {
		l.ask(r, map[string]func(*harness.Reply) error{
			"www.mec.example A":       everybody,
			"app.mec.example A":       constant("NOERROR", "A 192.0.2.5"),
			"none.mec.example A":      constant("NXDOMAIN"),
			"www.elsewhere.example A": constant("NOERROR", "A 192.0.2.4"),
			"www.other.example A":     forwarded,
			"www.toggled.example A":   either(constant("NXDOMAIN"), forwarded),
		})
	}
	l.ask(d.From("127.0.60.1"), map[string]func(*harness.Reply) error{
		"www.mec.example A": either(everybody, constant("NOERROR", "A 192.0.2.1", "A 192.0.2.2", "A 192.0.2.3")),
	})
	l.ask(d.From("127.0.70.1"), map[string]func(*harness.Reply) error{
		"www.mec.example A": either(everybody, constant("REFUSED")),
	})
	for i := range 30 {
		require.True(t, p.Reload(configs[i%2]))
		if i%5 == 0 {
			require.False(t, p.Reload("dns: {zones: [mec..example]}\n"), "what is wrong changes nothing")
		}
	}
	l.end()
	t.Logf("%d answers", l.answers.Load())
	require.Greater(t, l.answers.Load(), int64(1000))

	// What is said last is so.
	require.True(t, p.Reload(configs[0]))
	require.False(t, p.Reload("dns: {zones: [other.example], forward: [nobody]}\n"))
	d.AwaitAnswer("www.toggled.example", "A", "NXDOMAIN")
	d.AwaitData("www.fresh.example", "A", "NOERROR", "A 192.0.2.53")
	d.From("127.0.70.1").AwaitData("www.mec.example", "A", "NOERROR", "A 192.0.2.1", "A 192.0.2.2")
	require.True(t, p.Reload(configs[1]))
	d.AwaitData("www.toggled.example", "A", "NOERROR", "A 192.0.2.54")
	d.From("127.0.70.1").AwaitAnswer("www.mec.example", "A", "REFUSED")
	d.From("127.0.60.1").AwaitData("www.mec.example", "A", "NOERROR", "A 192.0.2.1", "A 192.0.2.2", "A 192.0.2.3")
	d.AwaitAnswer("app.mec.example", "A", "NOERROR", at("app.mec.example", 5, "A", "192.0.2.5"))
}
