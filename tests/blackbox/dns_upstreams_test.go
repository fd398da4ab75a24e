package blackbox

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	rr "github.com/miekg/dns"
	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/tests/harness"
)

// hasty gives an upstream half a second.
func hasty() harness.Option { return harness.Args("--dns-forward-timeout=2s") }

func TestForwardedAnswersAreKeptAsLongAsTheyAreGood(t *testing.T) {
	t.Parallel()
	up := harness.NewUpstream(t)
	up.Behave(func(x *harness.Exchange) {
		switch {
		case x.Type != "A":
			m := x.Answer()
			m.Ns = x.Records("kept.example. 50 SOA a. b. 1 2 3 4 40")
			x.Send(m)
		case strings.HasPrefix(x.Name, "none."):
			m := x.Answer()
			m.Rcode, m.Ns = rr.RcodeNameError, x.Records("kept.example. 50 SOA a. b. 1 2 3 4 60")
			x.Send(m)
		case strings.HasPrefix(x.Name, "zero."):
			x.Send(x.Answer("@ 0 A 192.0.2.53"))
		default:
			x.Send(x.Answer("@ 300 CNAME alias.kept.example.", "alias.kept.example. 100000000 A 192.0.2.53"))
		}
	})
	p := harness.Start(t, forwarding(up))
	d := p.DNS(t)
	for i := range 3 {
		reply := d.Ask("WWW.kept.example", "A").Holds("NOERROR", "CNAME alias.kept.example.", "A 192.0.2.53").Forwarded()
		require.Equal(t, "WWW.kept.example.", reply.Answer[0].Header().Name)
		for _, record := range reply.Answer {
			require.LessOrEqual(t, record.Header().Ttl, uint32(86400))
		}
		require.Len(t, d.TCP().Ask("none.kept.example", "A").Holds("NXDOMAIN").Forwarded().Ns, 1)
		nothing := d.Ask("www.kept.example", "AAAA", harness.WithoutEDNS).Holds("NOERROR").Forwarded()
		require.LessOrEqual(t, nothing.Ns[0].Header().Ttl, uint32(40), "RFC 2308 5")
		d.Ask("zero.kept.example", "A").Holds("NOERROR", "A 192.0.2.53")
		require.Len(t, up.Asked("zero.kept.example."), i+1, "what is good for no time is asked for each time")
	}
	require.Len(t, up.Asked("www.kept.example."), 2, "one for each type")
	require.Len(t, up.Asked("none.kept.example."), 1)

	// What there is of DNSSEC is another answer.
	d.Ask("www.kept.example", "A", func(m *rr.Msg) { m.IsEdns0().SetDo() })
	require.Len(t, up.Asked("www.kept.example."), 3)

	m := p.DNSManagement(t)
	require.EqualValues(t, 1, m.Post(dnsRoot+"/cache/flush?name=none.kept.example", nil).Is(200).Object()["entries"])
	d.Ask("none.kept.example", "A").Holds("NXDOMAIN")
	require.Len(t, up.Asked("none.kept.example."), 2)
	require.EqualValues(t, 4, m.Post(dnsRoot+"/cache/flush?below=KEPT.example.", nil).Is(200).Object()["entries"])
	d.Ask("www.kept.example", "A")
	require.Len(t, up.Asked("www.kept.example."), 4)
	require.EqualValues(t, 1, m.Post(dnsRoot+"/cache/flush", nil).Is(200).Object()["entries"])
}

func TestQuestionsToUpstreamsCannotBeForeseen(t *testing.T) {
	t.Parallel()
	up := harness.NewUpstream(t)
	p := harness.Start(t, forwarding(up))
	d := p.DNS(t)
	const questions = 60
	for i := range questions {
		m := harness.Question(fmt.Sprintf("name-with-many-letters-%d.forwarded.example", i), "A")
		m.IsEdns0().Option = []rr.EDNS0{
			&rr.EDNS0_COOKIE{Code: rr.EDNS0COOKIE, Cookie: "0102030405060708"}, &rr.EDNS0_NSID{Code: rr.EDNS0NSID},
			&rr.EDNS0_SUBNET{Code: rr.EDNS0SUBNET, Family: 1, SourceNetmask: 24, Address: []byte{192, 0, 2, 0}},
		}
		d.Send(m).Holds("NOERROR", "A 192.0.2.53")
	}
	ports, ids, cases := map[int]bool{}, map[uint16]bool{}, map[string]bool{}
	for _, asked := range up.Asked() {
		ports[asked.From], ids[asked.ID], cases[asked.Sent[:22]] = true, true, true
		require.Empty(t, asked.Message.IsEdns0().Option, "what a client says about itself is nobody else's business")
		require.True(t, asked.Message.RecursionDesired)
	}
	require.Greater(t, len(ports), questions/2)
	require.Greater(t, len(ids), questions*9/10)
	require.Greater(t, len(cases), questions*9/10, "0x20")
}

func TestQuestionsWaitForUpstreamsAsFarAsThereIsRoom(t *testing.T) {
	t.Parallel()
	up := harness.NewUpstream(t)
	release := make(chan struct{})
	up.Behave(func(x *harness.Exchange) {
		if strings.HasPrefix(x.Name, "slow") {
			x.Await(release)
		}
		x.Reply("192.0.2.53")
	})
	const room = 60
	p := harness.Start(t, owning(), forwarding(up), harness.Args("--dns-forward-timeout=30s", fmt.Sprint("--dns-forward-pending=", room)))
	withRules(t, p, rule("d1", "www.mec.example", "192.0.2.1"))
	d := p.DNS(t)
	var asking sync.WaitGroup
	ask := func(from int, name string, rcodes chan<- string) {
		asking.Go(func() {
			reply, err := d.From(fmt.Sprintf("127.0.50.%d", from)).Try(harness.Question(name, "A"), 3*harness.Patience)
			if err != nil {
				t.Error(err)
				return
			}
			rcodes <- reply.RCode()
		})
	}
	waiting := func(n float64) {
		t.Helper()
		harness.Eventually(t, fmt.Sprintf("%v questions wait", n), func() error {
			waiting, _ := p.Metric(t, "mep_dns_pending")
			return harness.Not(waiting == n, "%v do", waiting)
		})
	}
	equal := make(chan string, 50)
	for i := range cap(equal) {
		ask(1+i%10, "slow.example", equal)
	}
	waiting(50)
	// Equal questions are one to the upstreams. Of others there is room for so many, and who comes then hears it at once.
	others := make(chan string, 80)
	for i := range cap(others) {
		ask(20+i, fmt.Sprintf("slow%d.example", i), others)
	}
	const refused = 80 - (room - 1)
	harness.Eventually(t, "some are turned away", func() error { return harness.Not(len(others) == refused, "%d are", len(others)) })
	waiting(50 + room - 1)
	// Who asks for what the platform knows does not notice.
	d.Ask("www.mec.example", "A").Holds("NOERROR", "A 192.0.2.1")
	close(release)
	asking.Wait()
	require.Len(t, up.Asked("slow.example."), 1)
	for rcodes, want := range map[chan string]map[string]int{equal: {"NOERROR": 50}, others: {"NOERROR": room - 1, "SERVFAIL": refused}} {
		close(rcodes)
		count := map[string]int{}
		for rcode := range rcodes {
			count[rcode]++
		}
		require.Equal(t, want, count)
	}
}

func TestOneClientDoesNotTakeAllTheRoomThereIs(t *testing.T) {
	t.Parallel()
	up := harness.NewUpstream(t)
	up.Behave(func(x *harness.Exchange) {
		if strings.HasPrefix(x.Name, "www") {
			x.Reply("192.0.2.53")
		}
	})
	p := harness.Start(t, forwarding(up), harness.Args("--dns-forward-timeout=30s", "--dns-forward-pending=60"))
	d := p.DNS(t)
	greedy, err := d.From("127.0.51.1").Dial()
	require.NoError(t, err)
	defer greedy.Close()
	for i := range 500 {
		_, err := greedy.Write(packed(harness.Question(fmt.Sprintf("slow%d.example", i), "A")))
		require.NoError(t, err)
	}
	harness.Eventually(t, "it has got what it can", func() error {
		away, _ := p.Metric(t, `mep_dns_overloaded_total{transport="udp"}`)
		return harness.Not(away > 400, "%v were turned away", away)
	})
	for i := range 20 {
		d.From("127.0.52.1").Ask(fmt.Sprintf("www%d.example", i), "A").Holds("NOERROR", "A 192.0.2.53")
	}
}

func TestSeveralUpstreamsStandInForEachOther(t *testing.T) {
	t.Parallel()
	for name, fail := range map[string]func(x *harness.Exchange){
		"that is silent":        func(*harness.Exchange) {},
		"that says SERVFAIL":    func(x *harness.Exchange) { x.Send(new(rr.Msg).SetRcode(x.Message, rr.RcodeServerFailure)) },
		"that says REFUSED":     func(x *harness.Exchange) { x.Send(new(rr.Msg).SetRcode(x.Message, rr.RcodeRefused)) },
		"that says NOTIMP":      func(x *harness.Exchange) { x.Send(new(rr.Msg).SetRcode(x.Message, rr.RcodeNotImplemented)) },
		"that says XYZ":         func(x *harness.Exchange) { x.Send(new(rr.Msg).SetRcode(x.Message, 11)) },
		"that refers to others": func(x *harness.Exchange) { m := x.Answer(); m.Ns = x.Records("example. 60 NS a.example."); x.Send(m) },
		"that sends garbage":    func(x *harness.Exchange) { x.Raw([]byte(strings.Repeat("garbage", 20))) },
		"that is cut off": func(x *harness.Exchange) {
			m := x.Answer("@ 60 A 192.0.2.66")
			m.Truncated = true
			x.Close()
			x.Send(m)
		},
		"that sends half": func(x *harness.Exchange) {
			raw, _ := x.Answer("@ 60 A 192.0.2.66").Pack()
			x.Raw(raw[:len(raw)-3])
		},
	} {
		t.Run("one "+name, func(t *testing.T) {
			t.Parallel()
			bad, good := harness.NewUpstream(t), harness.NewUpstream(t)
			bad.Behave(fail)
			d := harness.Start(t, forwarding(bad, good), hasty()).DNS(t)
			for i := range 5 {
				d.Ask(fmt.Sprintf("www%d.example", i), "A").Holds("NOERROR", "A 192.0.2.53").Forwarded()
			}
			require.NotEmpty(t, bad.Asked())
		})
	}
}

func TestUpstreamsAreNotAskedWithoutEnd(t *testing.T) {
	t.Parallel()
	dead, silent := harness.NewUpstream(t), harness.NewUpstream(t)
	dead.Stop()
	silent.Silence(true)
	d := harness.Start(t, forwarding(dead, silent), hasty()).DNS(t)
	var asking sync.WaitGroup
	const questions = 4
	for i := range questions {
		asking.Go(func() {
			reply, err := d.Try(harness.Question(fmt.Sprintf("www%d.example", i), "A"), harness.Patience)
			if err == nil {
				err = reply.Differs("SERVFAIL")
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	asking.Wait()
	require.NotEmpty(t, silent.Asked())
	require.LessOrEqual(t, len(silent.Asked()), questions*5, "it has a quarter of the time for each try")
}

func TestAnUpstreamThatIsAwayIsNoticedAndComesBack(t *testing.T) {
	t.Parallel()
	first, second := harness.NewUpstream(t), harness.NewUpstream(t)
	first.Behave(func(x *harness.Exchange) { x.Reply("192.0.2.1") })
	second.Behave(func(x *harness.Exchange) { x.Reply("192.0.2.2") })
	p := harness.Start(t, forwarding(first, second), hasty())
	d, m := p.DNS(t), p.DNSManagement(t)
	up := func(u *harness.Upstream) bool {
		for _, o := range m.Get(dnsRoot + "/upstreams").Is(200).Array() {
			if o["address"] == u.Addr() {
				require.Equal(t, o["up"] == false, o["failingSince"] != nil, "%v", o)
				return o["up"] == true
			}
		}
		t.Fatal("the upstream is not listed")
		return false
	}
	n := 0
	ask := func() string {
		n++
		return strings.Join(d.Ask(fmt.Sprintf("n%d.example", n), "A").Data(), ",")
	}
	require.Equal(t, "A 192.0.2.1", ask())
	require.True(t, up(first))
	first.Silence(true)
	harness.Eventually(t, "it is known to be down", func() error {
		require.Equal(t, "A 192.0.2.2", ask())
		return harness.Not(!up(first), "it is up")
	})
	before := len(first.Asked())
	for range 5 {
		require.Equal(t, "A 192.0.2.2", ask())
	}
	require.Len(t, first.Asked(), before, "it is not waited for any more")
	second.Silence(true)
	d.Ask("nobody.example", "A").Is("SERVFAIL")
	harness.Eventually(t, "there is nobody to ask, which is said", func() error {
		d.Ask(fmt.Sprintf("nobody%d.example", n), "A").Is("SERVFAIL")
		n++
		status, r, err := p.Ready()
		require.NoError(t, err)
		require.Equal(t, 200, status)
		return harness.Not(r.IsDegraded("dns"), "%+v", r)
	})
	first.Silence(false)
	harness.EventuallyWithin(t, 2*harness.Patience, "it is asked again", func() error {
		reply, err := d.Try(harness.Question(fmt.Sprintf("again%d.example", n), "A"), harness.Patience)
		n++
		if err != nil {
			return err
		}
		return reply.Lacks("NOERROR", "A 192.0.2.1")
	})
	require.True(t, up(first))
	status, r, err := p.Ready()
	require.NoError(t, err)
	require.Equal(t, 200, status)
	require.False(t, r.IsDegraded("dns"))
}

// RFC 8767: what was good is better than nothing.
func TestWhenAllUpstreamsAreGoneTheLastAnswerIsGivenOn(t *testing.T) {
	t.Parallel()
	up := harness.NewUpstream(t)
	up.Behave(func(x *harness.Exchange) { x.Send(x.Answer("@ 1 A 192.0.2.53")) })
	p := harness.Start(t, forwarding(up), hasty())
	d := p.DNS(t)
	d.Ask("www.example", "A").Holds("NOERROR", "A 192.0.2.53")
	up.Stop()
	reply := d.Await("www.example", "A", func(reply *harness.Reply) error {
		if err := reply.Lacks("NOERROR", "A 192.0.2.53"); err != nil {
			t.Fatal(err)
		}
		return harness.Not(reply.Extended() == int(rr.ExtendedErrorCodeStaleAnswer), "it is still good")
	})
	require.EqualValues(t, 30, reply.Answer[0].Header().Ttl, "RFC 8767 4")
	begin := time.Now()
	for range 20 {
		d.Ask("www.example", "A").Holds("NOERROR", "A 192.0.2.53")
	}
	require.Less(t, time.Since(begin), harness.Patience, "nobody is asked each time")
	none := d.Ask("other.example", "A").Is("SERVFAIL")
	require.Contains(t, []int{22, 23}, none.Extended(), "no reachable authority, or network error")

	fresh := harness.Start(t, forwarding(up), hasty(), harness.Args("--dns-cache-stale=0s"))
	fresh.DNS(t).Ask("www.example", "A").Is("SERVFAIL")
}
