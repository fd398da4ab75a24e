package forward

import (
	"context"
	"fmt"
	"net"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/dnsagent/wire"
)

// gate holds queries until it is opened or the test ends.
type gate struct{ closed context.Context }

func newGate(t *testing.T) (g gate, open func()) {
	g.closed, open = context.WithCancel(t.Context())
	return g, open
}

func (g gate) before(a answers) answers {
	return func(r received) [][]byte {
		<-g.closed.Done()
		return a(r)
	}
}

// resolving asks in the background.
func (s *subject) resolving(ctx context.Context, q *Question) <-chan error {
	result := make(chan error, 1)
	go func() {
		_, err := s.Resolve(ctx, q)
		result <- err
	}()
	return result
}

func TestAnswersAreKeptAsLongAsTheyAreGood(t *testing.T) {
	up := newFake(t, nil, address(t, "192.0.2.1", "60"))
	s := newSubject(t, Config{Zones: rootZone(up.upstream())})
	q := asking(t, "a.example", dns.TypeA)
	_, ok := s.Cached(q, s.clock.now())
	require.False(t, ok)
	for range 2 {
		_, err := s.ask(t, "a.example")
		require.NoError(t, err)
	}
	require.Equal(t, 1, up.asked())
	s.clock.forward(59 * time.Second)
	a, ok := s.Cached(q, s.clock.now())
	require.True(t, ok)
	require.False(t, a.Stale(s.clock.now()))
	require.Equal(t, up.addr.String(), a.Upstream)
	s.clock.forward(time.Second)
	_, ok = s.Cached(q, s.clock.now())
	require.False(t, ok)
	m, err := s.ask(t, "a.example")
	require.NoError(t, err)
	require.GreaterOrEqual(t, m.Answer[0].Header().Ttl, uint32(59))
	require.Equal(t, 2, up.asked())
	require.InDelta(t, 2, s.count(t, "mep_dns_forward_cache_lookups_total", "hit"), 0)
	require.InDelta(t, 2, s.count(t, "mep_dns_forward_cache_lookups_total", "miss"), 0)
	require.InDelta(t, 1, s.count(t, "mep_dns_forward_cache_entries"), 0)
}

func TestThatSomethingDoesNotExistIsKeptAsItsZoneSays(t *testing.T) {
	tests := map[string]struct {
		rcode     int
		authority []string
		kept      time.Duration
	}{
		"name":                 {dns.RcodeNameError, []string{soa}, 120 * time.Second},
		"type":                 {dns.RcodeSuccess, []string{soa}, 120 * time.Second},
		"without a word on it": {dns.RcodeNameError, nil, 0},
		"for no time":          {dns.RcodeNameError, []string{"example. 300 IN SOA ns.example. root.example. 1 2 3 4 0"}, 0},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			up := newFake(t, nil, func(r received) [][]byte {
				m := r.reply(t)
				m.Rcode, m.Ns = tt.rcode, parse(t, tt.authority...)
				return packed(t, m)
			})
			s := newSubject(t, Config{Zones: rootZone(up.upstream())})
			m, err := s.ask(t, "a.example")
			require.NoError(t, err)
			require.Equal(t, tt.rcode, m.Rcode)
			if tt.kept > 0 {
				s.clock.forward(tt.kept - time.Second)
				_, err = s.ask(t, "a.example")
				require.NoError(t, err)
				require.Equal(t, 1, up.asked())
				s.clock.forward(time.Second)
			}
			_, err = s.ask(t, "a.example")
			require.NoError(t, err)
			require.Equal(t, 2, up.asked())
		})
	}
}

func TestEqualQuestionsAreAskedOnce(t *testing.T) {
	g, open := newGate(t)
	up := newFake(t, nil, g.before(address(t, "192.0.2.1", "60")))
	s := newSubject(t, Config{Zones: rootZone(up.upstream())})
	const clients = 1000
	var work sync.WaitGroup
	var answered, started atomic.Int64
	for range clients {
		work.Go(func() {
			started.Add(1)
			if a, err := s.Resolve(t.Context(), asking(t, "a.example", dns.TypeA)); err == nil && a.RCode() == dns.RcodeSuccess {
				answered.Add(1)
			}
		})
	}
	require.Eventually(t, func() bool { return started.Load() == clients && up.asked() > 0 }, waitTime, time.Millisecond)
	require.InDelta(t, 1, s.count(t, "mep_dns_forward_pending"), 0)
	open()
	work.Wait()
	require.Equal(t, int64(clients), answered.Load())
	require.Equal(t, 1, up.asked())
	require.Zero(t, s.count(t, "mep_dns_forward_pending"))
}

func TestAnAnswerThatMayNotBeKeptIsForAllWhoWait(t *testing.T) {
	g, open := newGate(t)
	up := newFake(t, nil, g.before(address(t, "192.0.2.1", "0")))
	s := newSubject(t, Config{Zones: rootZone(up.upstream())})
	q := asking(t, "a.example", dns.TypeA)
	first, err := s.flights.join(q, &settings{Config: Config{Pending: 1}}, s.fly)
	require.NoError(t, err)
	second, err := s.flights.join(q, &settings{Config: Config{Pending: 1}}, s.fly)
	require.NoError(t, err)
	require.Same(t, first, second)
	open()
	<-first.done
	require.Equal(t, []string{"192.0.2.1"}, addresses(s.read(t, first.answer)))
	_, err = s.ask(t, "a.example")
	require.NoError(t, err)
	require.Equal(t, 2, up.asked(), "who comes later asks anew")
}

func TestOneWhoLeavesTakesNobodyAlong(t *testing.T) {
	g, open := newGate(t)
	up := newFake(t, nil, g.before(address(t, "192.0.2.1", "60")))
	s := newSubject(t, Config{Zones: rootZone(up.upstream())})
	ctx, cancel := context.WithCancel(t.Context())
	left := s.resolving(ctx, asking(t, "a.example", dns.TypeA))
	require.Eventually(t, func() bool { return up.asked() == 1 }, waitTime, time.Millisecond)
	stayed := s.resolving(t.Context(), asking(t, "a.example", dns.TypeA))
	cancel()
	require.ErrorIs(t, <-left, context.Canceled)
	open()
	require.NoError(t, <-stayed)
	require.Equal(t, 1, up.asked())
}

func TestThereIsABoundOfQuestionsUnderWay(t *testing.T) {
	g, open := newGate(t)
	up := newFake(t, nil, g.before(address(t, "192.0.2.1", "60")))
	s := newSubject(t, Config{Zones: rootZone(up.upstream()), Pending: 2})
	one := s.resolving(t.Context(), asking(t, "one.example", dns.TypeA))
	two := s.resolving(t.Context(), asking(t, "two.example", dns.TypeA))
	require.Eventually(t, func() bool { return up.asked() == 2 }, waitTime, time.Millisecond)
	_, err := s.ask(t, "third.example")
	require.ErrorIs(t, err, ErrOverload)
	open()
	require.NoError(t, <-one)
	require.NoError(t, <-two)
	require.Eventually(t, func() bool {
		_, err = s.ask(t, "third.example")
		return err == nil
	}, waitTime, time.Millisecond, "an overload is not remembered")
}

func TestAZoneWhoseUpstreamsAreSilentLeavesRoomForOthers(t *testing.T) {
	g, open := newGate(t)
	slow, quick := newFake(t, nil, g.before(address(t, "192.0.2.1", "60"))), newFake(t, nil, address(t, "192.0.2.2", "60"))
	s := newSubject(t, Config{
		Pending: 4, Zones: append(rootZone(slow.upstream()), Zone{Name: asking(t, "corp.example", dns.TypeA).Name, Upstreams: []Upstream{quick.upstream()}}),
	})
	var waiting []<-chan error
	for _, name := range []string{"one.example", "two.example", "three.example"} {
		waiting = append(waiting, s.resolving(t.Context(), asking(t, name, dns.TypeA)))
	}
	require.Eventually(t, func() bool { return slow.asked() == 3 }, waitTime, time.Millisecond)
	_, err := s.ask(t, "four.example")
	require.ErrorIs(t, err, ErrOverload)
	_, err = s.ask(t, "www.corp.example")
	require.NoError(t, err)
	open()
	for _, w := range waiting {
		require.NoError(t, <-w)
	}
}

func TestWhoCannotWaitIsToldWhatIsKnown(t *testing.T) {
	up := newFake(t, nil, address(t, "192.0.2.1", "60"))
	s := newSubject(t, Config{Zones: rootZone(up.upstream()), Stale: time.Hour})
	q := asking(t, "a.example", dns.TypeA)
	_, ok := s.Known(q, s.clock.now())
	require.False(t, ok)
	_, err := s.ask(t, "a.example")
	require.NoError(t, err)
	for range 2 {
		_, ok = s.Known(q, s.clock.now())
		require.True(t, ok)
		s.clock.forward(30 * time.Minute)
	}
	s.clock.forward(time.Hour)
	_, ok = s.Known(q, s.clock.now())
	require.False(t, ok, "it is too old")
	require.Equal(t, 1, up.asked())
}

func TestWhileUpstreamsFailAnOldAnswerIsBetterThanNone(t *testing.T) {
	outages := map[string]func(t *testing.T, up *fake){
		"they say SERVFAIL": func(t *testing.T, up *fake) { up.say(code(t, dns.RcodeServerFailure)) },
		"they refuse":       func(t *testing.T, up *fake) { up.say(code(t, dns.RcodeRefused)) },
		"they are gone":     func(_ *testing.T, up *fake) { up.close() },
	}
	for name, outage := range outages {
		t.Run(name, func(t *testing.T) {
			up := newFake(t, nil, address(t, "192.0.2.1", "60"))
			s := newSubject(t, Config{Zones: rootZone(up.upstream()), Stale: time.Hour})
			_, err := s.ask(t, "a.example")
			require.NoError(t, err)
			outage(t, up)
			s.clock.forward(2 * time.Minute)

			m, err := s.ask(t, "a.example")
			require.NoError(t, err)
			require.Equal(t, []string{"192.0.2.1"}, addresses(m))
			require.Equal(t, uint32(30), m.Answer[0].Header().Ttl)
			asked := s.Upstreams()[0].Asked
			a, ok := s.Cached(asking(t, "a.example", dns.TypeA), s.clock.now())
			require.True(t, ok)
			require.True(t, a.Stale(s.clock.now()))
			require.Equal(t, asked, s.Upstreams()[0].Asked, "for some time nobody is asked again")
			s.clock.forward(recheckInterval)
			_, err = s.ask(t, "a.example")
			require.NoError(t, err)
			require.Greater(t, s.Upstreams()[0].Asked, asked)
			require.InDelta(t, 3, s.count(t, "mep_dns_forward_cache_lookups_total", "stale"), 0)

			s.clock.forward(time.Hour)
			m, err = s.ask(t, "a.example")
			require.True(t, err != nil || m.Rcode == dns.RcodeServerFailure, "it is too old now")
		})
	}
}

func TestClientsDoNotWaitLongWhenThereIsAnOldAnswer(t *testing.T) {
	up := newFake(t, nil, address(t, "192.0.2.1", "60"))
	s := newSubject(t, Config{Zones: rootZone(up.upstream()), Stale: time.Hour})
	require.Equal(t, 1800*time.Millisecond, s.patience)
	s.patience = time.Millisecond
	_, err := s.ask(t, "a.example")
	require.NoError(t, err)
	g, open := newGate(t)
	up.say(g.before(address(t, "192.0.2.2", "60")))
	s.clock.forward(time.Minute)
	m, err := s.ask(t, "a.example")
	require.NoError(t, err)
	require.Equal(t, []string{"192.0.2.1"}, addresses(m))
	open()
	require.Eventually(t, func() bool {
		a, ok := s.Cached(asking(t, "a.example", dns.TypeA), s.clock.now())
		return ok && addresses(s.read(t, a))[0] == "192.0.2.2"
	}, waitTime, time.Millisecond, "the upstream has been asked on meanwhile")
}

func TestAfterATTLOfZeroThereIsNoOldAnswer(t *testing.T) {
	up := newFake(t, nil, address(t, "192.0.2.1", "60"))
	s := newSubject(t, Config{Zones: rootZone(up.upstream()), Stale: time.Hour})
	_, err := s.ask(t, "a.example")
	require.NoError(t, err)
	s.clock.forward(time.Minute)
	up.say(address(t, "192.0.2.2", "0"))
	_, err = s.ask(t, "a.example")
	require.NoError(t, err)
	up.close()
	_, err = s.ask(t, "a.example")
	require.ErrorIs(t, err, ErrNetwork)
}

func TestFailuresAreRememberedForAMoment(t *testing.T) {
	tests := map[string]answers{"SERVFAIL": code(t, dns.RcodeServerFailure), "REFUSED": code(t, dns.RcodeRefused)}
	for name, say := range tests {
		t.Run(name, func(t *testing.T) {
			up := newFake(t, nil, say)
			s := newSubject(t, Config{Zones: rootZone(up.upstream())})
			frozen := time.Now()
			s.now = func() time.Time { return frozen }
			for range 3 {
				_, _ = s.ask(t, "a.example")
			}
			require.Equal(t, 1, up.asked())
			frozen = frozen.Add(time.Second)
			_, _ = s.ask(t, "a.example")
			require.Equal(t, 2, up.asked())
		})
	}
}

func TestAnswersInDemandAreRenewedInTime(t *testing.T) {
	up := newFake(t, nil, address(t, "192.0.2.1", "100"))
	s := newSubject(t, Config{Zones: rootZone(up.upstream())})
	for _, name := range []string{"popular.example", "rare.example"} {
		_, err := s.ask(t, name)
		require.NoError(t, err)
	}
	popular := asking(t, "popular.example", dns.TypeA)
	for range prefetchHits + 1 {
		_, ok := s.Cached(popular, s.clock.now())
		require.True(t, ok)
	}
	s.clock.forward(91 * time.Second)
	up.say(address(t, "192.0.2.2", "100"))
	for range 10 {
		_, ok := s.Cached(popular, s.clock.now())
		require.True(t, ok)
	}
	_, ok := s.Cached(asking(t, "rare.example", dns.TypeA), s.clock.now())
	require.True(t, ok)
	require.Eventually(t, func() bool {
		a, ok := s.Cached(popular, s.clock.now())
		return ok && addresses(s.read(t, a))[0] == "192.0.2.2"
	}, waitTime, time.Millisecond)
	require.Equal(t, 3, up.asked(), "each once, and the popular one once more")
	require.InDelta(t, 1, s.count(t, "mep_dns_forward_prefetches_total"), 0)
}

func TestFlushing(t *testing.T) {
	up := newFake(t, nil, address(t, "192.0.2.1", "60"))
	s := newSubject(t, Config{Zones: rootZone(up.upstream())})
	all := []string{"example", "a.example", "b.a.example", "xa.example", "a.test"}
	kept := func() (names []string) {
		for _, name := range all {
			if _, ok := s.Cached(asking(t, name, dns.TypeA), s.clock.now()); ok {
				names = append(names, name)
			}
		}
		return names
	}
	tests := map[string]struct {
		name  string
		below bool
		kept  []string
	}{
		"a name":               {"a.example", false, []string{"example", "b.a.example", "xa.example", "a.test"}},
		"a name and all below": {"a.example", true, []string{"example", "xa.example", "a.test"}},
		"everything":           {".", true, nil},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			for _, name := range all {
				_, err := s.ask(t, name)
				require.NoError(t, err)
			}
			n, err := wire.ParseName(tt.name)
			require.NoError(t, err)
			require.Equal(t, len(all)-len(tt.kept), s.Flush(n, tt.below))
			require.Equal(t, tt.kept, kept())
		})
	}
}

func TestWhatIsUnderWayWhileItIsFlushedIsNotKept(t *testing.T) {
	g, open := newGate(t)
	up := newFake(t, nil, g.before(address(t, "192.0.2.1", "60")))
	s := newSubject(t, Config{Zones: rootZone(up.upstream())})
	first := s.resolving(t.Context(), asking(t, "a.example", dns.TypeA))
	require.Eventually(t, func() bool { return up.asked() == 1 }, waitTime, time.Millisecond)
	s.Flush(wire.Root, true)
	up.say(address(t, "192.0.2.2", "60"))
	m, err := s.ask(t, "a.example")
	require.NoError(t, err)
	require.Equal(t, []string{"192.0.2.2"}, addresses(m), "nobody joins what was asked before")
	open()
	require.NoError(t, <-first)
	m, err = s.ask(t, "a.example")
	require.NoError(t, err)
	require.Equal(t, []string{"192.0.2.2"}, addresses(m))
}

func TestAfterTheEndNothingIsAsked(t *testing.T) {
	g, _ := newGate(t)
	up := newFake(t, nil, g.before(address(t, "192.0.2.1", "60")))
	s := newSubject(t, Config{Zones: rootZone(up.upstream())})
	result := s.resolving(t.Context(), asking(t, "a.example", dns.TypeA))
	require.Eventually(t, func() bool { return up.asked() == 1 }, waitTime, time.Millisecond)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.NoError(t, s.Run(ctx))
	require.ErrorIs(t, <-result, ErrClosed)
	_, err := s.ask(t, "b.example")
	require.ErrorIs(t, err, ErrClosed)
}

func TestTheSweepTakesWhatIsOfNoUse(t *testing.T) {
	up := newFake(t, nil, address(t, "192.0.2.1", "60"))
	s := newSubject(t, Config{Zones: rootZone(up.upstream()), Stale: time.Hour})
	_, err := s.ask(t, "a.example")
	require.NoError(t, err)
	entries := func() float64 { return s.count(t, "mep_dns_forward_cache_entries") }
	s.clock.forward(time.Hour)
	s.sweep()
	require.InDelta(t, 1, entries(), 0)
	s.clock.forward(2 * time.Minute)
	s.sweep()
	require.Zero(t, entries())
}

// TestAnswersTakeWhatTheyAreCountedAs compares the counted memory with the growth of the heap.
func TestAnswersTakeWhatTheyAreCountedAs(t *testing.T) {
	heap := func() int64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.GC()
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	s := newSubject(t, Config{Zones: rootZone(Upstream{Addr: portOfNobody}), CacheBytes: 1 << 30})
	before := heap()
	for i := range 10_000 {
		q := asking(t, strconv.Itoa(i)+".example", dns.TypeA)
		fl := &flight{question: *q, failure: newFailure(ErrNetwork, fmt.Errorf("%s: %w", portOfNobody, &net.OpError{Op: "read"}))}
		if i%2 == 0 {
			m := message(t, dns.RcodeSuccess, []string{q.Name.String() + " 60 A 192.0.2.1", q.Name.String() + " 60 A 192.0.2.2"}, nil)
			c, err := clean(q, m)
			require.NoError(t, err)
			fl.answer, err = newAnswer(c.msg, s.now(), c.ttl)
			require.NoError(t, err)
			fl.answer.Info, fl.failure = &Info{Text: strings.Clone("an explanation")}, nil
		}
		s.keep(fl, s.settings.Load())
	}
	grown := heap() - before
	entries, counted := s.cache.Size()
	require.Equal(t, 10_000, entries)
	require.LessOrEqual(t, grown, counted)
	require.Greater(t, grown, counted/4)
}

func BenchmarkCached(b *testing.B) {
	up := Upstream{Addr: portOfNobody}
	s := newSubject(b, Config{Zones: rootZone(up), CacheBytes: 64 << 20})
	var questions []*Question
	now := time.Now()
	for i := range 10_000 {
		q := asking(b, "host"+strconv.Itoa(i)+".example", dns.TypeA)
		c, err := clean(q, message(b, dns.RcodeSuccess, []string{q.Name.String() + " 3600 IN A 192.0.2.1"}, nil))
		require.NoError(b, err)
		a, err := newAnswer(c.msg, now.Add(-10*time.Second), c.ttl)
		require.NoError(b, err)
		s.cache.Put(q, a, a.cost())
		questions = append(questions, q)
	}
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		buf := make([]byte, 0, 512)
		for i := 0; pb.Next(); i++ {
			q := questions[i%len(questions)]
			if !s.Handles(q.Name) {
				b.Fail()
			}
			a, ok := s.Cached(q, now)
			if !ok {
				b.Fail()
				continue
			}
			buf = a.Append(buf[:0], now)
		}
	})
}

func TestTheFastPathDoesNotAllocate(t *testing.T) {
	up := newFake(t, nil, address(t, "192.0.2.1", "3600"))
	s := newSubject(t, Config{Zones: rootZone(up.upstream())})
	_, err := s.ask(t, "a.example")
	require.NoError(t, err)
	key := []byte(asking(t, "a.example", dns.TypeA).Name)
	buf := make([]byte, 0, 512)
	now := s.clock.now().Add(10 * time.Second)
	require.Zero(t, testing.AllocsPerRun(100, func() {
		q := Question{Name: borrowed(key), Type: dns.TypeA, Class: dns.ClassINET}
		a, ok := s.Cached(&q, now)
		if !ok || !s.Handles(q.Name) || s.LoopProbe(q.Name) {
			t.Fatal("the answer is gone")
		}
		buf = a.Append(buf[:0], now)
	}))
}
