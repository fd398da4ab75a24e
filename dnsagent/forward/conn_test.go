package forward

import (
	"context"
	"errors"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"
	"github.com/stretchr/testify/require"
)

func (p *pool) sharing() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.shares()
}

// learn does what happens when one answer has overtaken another.
func (p *pool) learn() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.share(true)
}

// exchanger returns one that asks the only upstream.
func (s *subject) exchanger(t require.TestingT, name string) *exchanger {
	return &exchanger{
		upstream: s.settings.Load().upstreams()[0], question: asking(t, name, dns.TypeA), udpSize: 1232, limit: waitTime, metrics: s.metrics,
	}
}

// askOn asks on a connection, regardless of what else is asked on it.
func (c *conn) askOn(ctx context.Context, x *exchanger) error {
	q := x.query()
	c.pool.mu.Lock()
	own := c.add(q)
	c.pool.mu.Unlock()
	_, err := c.ask(ctx, x, q, own)
	return err
}

// desk keeps queries until the test answers them.
type desk struct {
	mu   sync.Mutex
	kept []received
}

func (d *desk) keep(r received) [][]byte {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.kept = append(d.kept, r)
	return [][]byte{}
}

// clear answers all kept queries, the last one first.
func (d *desk) clear(a answers) (all [][]byte) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, r := range slices.Backward(d.kept) {
		all = append(all, a(r)...)
	}
	d.kept = nil
	return all
}

// An upstream may close a connection at any time, even while questions wait on it (RFC 7766 6.2.4).
func TestWhatAConnectionDidNotAnswerIsAskedAgain(t *testing.T) {
	const rounds, atOnce = 10, 8
	tests := map[string]struct {
		most   int64
		shared bool
	}{
		"one question each":            {most: 1},
		"one question each, shared":    {most: 1, shared: true},
		"three questions each":         {most: 3},
		"three questions each, shared": {most: 3, shared: true},
		"many questions each":          {most: 20},
		"many questions each, shared":  {most: 20, shared: true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s, up := secureSubject(t)
			up.most.Store(tt.most)
			if p, answer := s.pool(), address(t, "192.0.2.1", "0"); tt.shared {
				p.learn()
				up.say(func(r received) [][]byte {
					p.learn() // regardless of what was closed
					return answer(r)
				})
			}
			for round := range rounds {
				var work sync.WaitGroup
				for i := range atOnce {
					work.Go(func() {
						if _, err := s.ask(t, strconv.Itoa(atOnce*round+i)+".example"); err != nil {
							t.Error(err)
						}
					})
				}
				work.Wait()
			}
			status := s.Upstreams()[0]
			require.Equal(t, "up", status.State)
			require.Zero(t, status.Unanswered)
		})
	}
}

func TestAnUpstreamThatClosesEveryConnectionFails(t *testing.T) {
	s, up := secureSubject(t)
	up.say(silence)
	_, err := s.ask(t, "a.example")
	require.ErrorIs(t, err, ErrNetwork)
	require.Equal(t, connTries, up.asked())
	require.EqualValues(t, 1, s.Upstreams()[0].Unanswered)
}

// The last try uses a connection that no other question joins, and that ends with it.
func TestTheLastTryIsOnAConnectionOfItsOwn(t *testing.T) {
	s, up := secureSubject(t)
	p, answer := s.pool(), address(t, "192.0.2.1", "0")
	up.say(func(r received) [][]byte {
		p.learn()
		if up.asked() < connTries {
			return nil
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		if len(p.conns) > 0 {
			t.Error("others could join it")
		}
		return answer(r)
	})
	_, err := s.ask(t, "a.example")
	require.NoError(t, err)
	require.Equal(t, int64(connTries), up.accepted.Load())
	require.Zero(t, p.idleCount())
	require.Zero(t, s.Upstreams()[0].Unanswered)
}

// When shared connections are closed, their many questions do not all hit the upstream at once.
func TestConnectionsOfQuestionsThatAreAloneAreBounded(t *testing.T) {
	s, _ := secureSubject(t)
	p := s.pool()
	p.learn()
	for range maxConns + 1 {
		_, err := p.turn(t.Context(), true)
		require.NoError(t, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	_, err := p.turn(ctx, true)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	_, err = p.turn(t.Context(), false)
	require.NoError(t, err, "who shares needs none")
}

// Slow names hold up no other question, though this upstream answers the questions of each connection in turn.
func TestSlowNamesHoldUpNobody(t *testing.T) {
	s, up := secureSubject(t)
	g, open := newGate(t)
	prompt := address(t, "192.0.2.1", "0")
	slow := g.before(prompt)
	up.say(func(r received) [][]byte {
		if strings.HasPrefix(strings.ToLower(r.Question[0].Name), "slow") {
			return slow(r)
		}
		return prompt(r)
	})
	const many = maxConns / 2
	var waiting []<-chan error
	for i := range many {
		waiting = append(waiting, s.resolving(t.Context(), asking(t, "slow"+strconv.Itoa(i)+".example", dns.TypeA)))
	}
	require.Eventually(t, func() bool { return up.asked() == many }, waitTime, time.Millisecond)
	for range many {
		_, err := s.ask(t, "a.example")
		require.NoError(t, err)
	}
	require.Equal(t, int64(many+1), up.accepted.Load())
	require.Zero(t, s.Upstreams()[0].Unanswered)
	open()
	for _, result := range waiting {
		require.NoError(t, <-result)
	}
}

// When all connections are in use, one question shares a connection. If its answer comes first, others share too.
func TestConnectionsAreSharedWithWhoAnswersInAnyOrder(t *testing.T) {
	s, up := secureSubject(t)
	answer := address(t, "192.0.2.1", "0")
	var first sync.Map
	up.say(func(r received) [][]byte {
		if earlier, shared := first.LoadOrStore(r.from.String(), r); shared {
			return append(answer(r), answer(earlier.(received))...)
		}
		return [][]byte{}
	})
	p := s.pool()
	for i := range maxConns {
		s.resolving(t.Context(), asking(t, strconv.Itoa(i)+".example", dns.TypeA))
	}
	require.Eventually(t, func() bool { return up.asked() == maxConns }, waitTime, time.Millisecond)
	require.False(t, p.sharing())
	_, err := s.ask(t, "one-more.example")
	require.NoError(t, err)
	require.Eventually(t, p.sharing, waitTime, time.Millisecond)

	up.say(answer)
	for range 2 * maxConns {
		_, err := s.ask(t, "a.example")
		require.NoError(t, err)
	}
	require.Equal(t, int64(maxConns), up.accepted.Load())
	require.True(t, p.sharing())
}

func TestQuestionsShareAConnectionAndAnswersComeInAnyOrder(t *testing.T) {
	s, up := secureSubject(t)
	_, err := s.ask(t, "first.example") // the connection is open
	require.NoError(t, err)
	s.pool().learn()
	var kept desk
	answer := func(r received) [][]byte {
		label, _, _ := strings.Cut(r.Question[0].Name, ".")
		return packed(t, r.reply(t, r.Question[0].Name+" 0 A 192.0.2."+label))
	}
	up.say(func(r received) [][]byte {
		if kept.keep(r); up.asked() <= spread {
			return [][]byte{}
		}
		return kept.clear(answer)
	})
	var work sync.WaitGroup
	for i := range spread {
		work.Go(func() {
			m, err := s.ask(t, strconv.Itoa(i)+".example")
			if err != nil || !slices.Equal(addresses(m), []string{"192.0.2." + strconv.Itoa(i)}) {
				t.Errorf("%d: %v, %v", i, m, err)
			}
		})
	}
	work.Wait()
	require.Equal(t, int64(1), up.accepted.Load())
}

func TestConnectionsAreNotSharedAnyMore(t *testing.T) {
	tests := map[string]func(up *fake, giveUp context.CancelFunc){
		"when one is closed while several wait": func(up *fake, _ context.CancelFunc) { up.hangUp() },
		"when several hear nothing":             func(_ *fake, giveUp context.CancelFunc) { giveUp() },
	}
	for name, happens := range tests {
		t.Run(name, func(t *testing.T) {
			s, up := secureSubject(t)
			up.say(new(desk).keep)
			p := s.pool()
			p.learn()
			x := s.exchanger(t, "a.example")
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			q := x.query()
			c, own := p.join(q, false, waitTime)
			var work sync.WaitGroup
			work.Go(func() { _, _ = c.ask(ctx, x, q, own) })
			work.Go(func() { _ = c.askOn(ctx, x) })
			require.Eventually(t, func() bool { return up.asked() == 2 }, waitTime, time.Millisecond)
			require.True(t, p.sharing())
			happens(up, cancel)
			work.Wait()
			require.False(t, p.sharing())
		})
	}
}

// A question that has timed out is not sent, and does not affect others on its connection.
func TestAQuestionThatIsTooLateBreaksNothing(t *testing.T) {
	s, up := secureSubject(t)
	g, open := newGate(t)
	up.say(g.before(address(t, "192.0.2.1", "0")))
	x := s.exchanger(t, "a.example")
	q := x.query()
	c, own := s.pool().join(q, false, waitTime)
	innocent := make(chan error, 1)
	go func() {
		_, err := c.ask(t.Context(), x, q, own)
		innocent <- err
	}()
	require.Eventually(t, func() bool { return up.asked() == 1 }, waitTime, time.Millisecond)
	late, cancel := context.WithDeadline(t.Context(), time.Now().Add(-time.Second))
	defer cancel()
	for range 40 {
		require.ErrorIs(t, c.askOn(late, x), context.DeadlineExceeded)
	}
	open()
	require.NoError(t, <-innocent)
	require.Equal(t, 1, up.asked())
}

// Answers to questions that have timed out are no reason for suspicion, however many come.
func TestLateAnswersBreakNothing(t *testing.T) {
	s, up := secureSubject(t)
	answer := address(t, "192.0.2.1", "0")
	var kept desk
	up.say(kept.keep)
	x := s.exchanger(t, "a.example")
	q := x.query()
	c, own := s.pool().join(q, false, waitTime)
	innocent := make(chan error, 1)
	go func() {
		_, err := c.ask(t.Context(), x, q, own)
		innocent <- err
	}()
	ctx, cancel := context.WithCancel(t.Context())
	var work sync.WaitGroup
	const many = 2 * maxIgnored
	for range many {
		work.Go(func() {
			if err := c.askOn(ctx, x); !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
		})
	}
	require.Eventually(t, func() bool { return up.asked() == 1+many }, waitTime, time.Millisecond)
	cancel()
	work.Wait()
	up.say(func(r received) [][]byte { return append(kept.clear(answer), answer(r)...) })
	require.NoError(t, c.askOn(t.Context(), x))
	require.NoError(t, <-innocent)
	require.Zero(t, s.count(t, "mep_dns_forward_ignored_total", otherID))
	s.pool().mu.Lock()
	defer s.pool().mu.Unlock()
	require.Empty(t, c.late)
}

// A connection that owes an answer is not used while it may hold up others, and not at all when it owes too many.
func TestAConnectionOwesOnlySoMuch(t *testing.T) {
	s, _ := secureSubject(t)
	p := s.pool()
	c := newConn(p)
	p.conns = append(p.conns, c)
	q := s.exchanger(t, "a.example").query()
	own := c.add(q)
	require.True(t, c.giveUp(q, own), "nobody has heard anything")
	require.Equal(t, 2, c.load())
	delete(c.calls, q.id())
	require.Equal(t, 1, c.load())
	c.heard++
	for range maxLate - 1 {
		own := c.add(q) // with another id
		delete(c.calls, q.id())
		require.False(t, own.answered)
		own.heard--
		require.False(t, c.giveUp(q, own))
	}
	own = c.add(q)
	own.heard--
	require.True(t, c.giveUp(q, own))
}

// The time limit of a write is the connection's, not the question's: the question waits for the write only as long as it has time.
func TestAWriteHasATimeOfItsOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const limit = time.Minute
		p := &pool{anyOrder: make(chan struct{})}
		c := newConn(p)
		ours, theirs := net.Pipe()
		defer theirs.Close()
		ctx, end := context.WithCancel(t.Context())
		c.end, c.stream = func() { end(); _ = ours.Close() }, ours
		close(c.ready)
		go c.send(ctx, limit)
		x := &exchanger{upstream: &upstream{}, question: asking(t, "a.example", dns.TypeA)}
		ask := func(within time.Duration) <-chan error {
			result := make(chan error, 1)
			go func() {
				ctx, cancel := context.WithTimeout(t.Context(), within)
				defer cancel()
				result <- c.askOn(ctx, x)
			}()
			synctest.Wait()
			return result
		}
		first, second := ask(2*limit), ask(time.Second) // which has to wait for the first one's write
		third := ask(time.Hour)
		require.ErrorIs(t, <-second, context.DeadlineExceeded)
		select {
		case <-c.broken:
			require.Fail(t, "there is time left")
		default:
		}
		_, err := io.ReadFull(theirs, make([]byte, len(x.query().framed)))
		require.NoError(t, err)
		require.ErrorIs(t, <-third, errBroken, "nobody reads it")
		require.ErrorIs(t, <-first, errBroken)
	})
}
