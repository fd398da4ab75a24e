package tenure_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/openmep/mep/api/gateway"
	"github.com/openmep/mep/api/state"
	"github.com/openmep/mep/gateway/book"
	"github.com/openmep/mep/gateway/call"
	"github.com/openmep/mep/gateway/table"
	"github.com/openmep/mep/gateway/tenure"
	"github.com/openmep/mep/kit/audit"
	"github.com/openmep/mep/kit/errs"
	"github.com/openmep/mep/kit/identity"
	"github.com/openmep/mep/kit/watched"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// judge refuses the calls of the callers in refused, and those whose proof is withdrawn.
type judge struct {
	mu      sync.Mutex
	refused map[string]bool
	asked   atomic.Int64
}

func (j *judge) Again(c *call.Call, _ string, _ []*table.Instance, withdrawn error) error {
	j.asked.Add(1)
	j.mu.Lock()
	defer j.mu.Unlock()
	if withdrawn == nil && c.Caller != nil && j.refused[c.Caller.Subject] {
		return errs.New(errs.Forbidden, "refused")
	}
	return withdrawn
}

func (j *judge) refuse(who string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.refused[who] = true
}

// scene is a registry that watches nothing: tests tell it what changes.
type scene struct {
	*tenure.Calls
	*judge
	table atomic.Pointer[table.Table]
	audit *audit.Log
	trail string
	reg   *prometheus.Registry
}

func newScene(t *testing.T) *scene {
	t.Helper()
	return sceneWith(t, filepath.Join(t.TempDir(), "audit.log"))
}

// sceneWith is newScene with the audit stream in the given file.
func sceneWith(t *testing.T, file string) *scene {
	t.Helper()
	s := &scene{judge: &judge{refused: make(map[string]bool)}, trail: file, reg: prometheus.NewRegistry()}
	log := slog.New(slog.DiscardHandler)
	m := watched.New(watched.Config{Prefix: state.Root, Logger: log})
	trail, err := audit.Open(audit.Config{File: s.trail})
	require.NoError(t, err)
	s.audit = trail
	t.Cleanup(func() { require.NoError(t, trail.Close()) })
	guard, err := identity.NewGuard(&identity.Config{TokenCache: 1}, identity.NewDirectory(m), false, trail, log, prometheus.NewRegistry())
	require.NoError(t, err)
	s.Calls = tenure.New(tenure.Config{
		Table: s.table.Load, Judge: func() tenure.Judge { return s.judge }, Guard: guard, Book: book.New(m, nil, nil),
		Audit: trail, Log: log, Registerer: s.reg,
	})
	s.publish(&table.Instance{ID: "i", Service: "s", Owner: "owner"})
	return s
}

// publish replaces the table by one with the given instances of the service "s".
func (s *scene) publish(instances ...*table.Instance) {
	e := new(table.Table).Edit()
	for _, i := range instances {
		e.SetInstance(i.ID, i)
	}
	e.SetGroup("s", table.NewGroup("s", instances))
	e.SetPolicies(nil, &table.Policy{})
	s.table.Store(e.Done(1))
	s.Changed()
}

// body is the body of a response.
type body struct{ closed atomic.Bool }

func (b *body) Close() error {
	b.closed.Store(true)
	return nil
}

// begin makes a call of a caller to the service.
func (s *scene) begin(who string) (*call.Call, *http.Request) {
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	c := &call.Call{Context: context.Background(), Seen: s.Seen(), Table: s.table.Load(), Caller: &identity.Caller{Subject: who}}
	c.Writer.Reset(httptest.NewRecorder(), r, time.Second)
	c.Group, c.Info.Service = c.Table.Group("s"), "s"
	return c, r
}

// hold makes a call that lasts.
func (s *scene) hold(who string) (*call.Call, *body) {
	c, r := s.begin(who)
	s.Enter(c, r, nil)
	b := &body{}
	s.Answered(c, b)
	return c, b
}

func (s *scene) run(t *testing.T) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	return func() {
		cancel()
		require.NoError(t, <-done)
	}
}

func TestCallsAreJudgedSoonAfterAChangeAndNotTooOften(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t)
		stop := s.run(t)
		defer stop()
		kept, open := s.hold("kept")
		lost, cut := s.hold("lost")
		synctest.Wait() // the initial change has been handled
		asked := s.asked.Load()
		s.refuse("lost")
		for range 1000 {
			s.Changed()
		}
		time.Sleep(time.Second)
		synctest.Wait()
		require.Equal(t, asked+2, s.asked.Load(), "once for a thousand changes")
		require.True(t, cut.closed.Load())
		require.Equal(t, "ended-access", lost.Ending().Reason)
		require.ErrorIs(t, lost.Ending().Err, errs.Forbidden)
		require.False(t, open.closed.Load())
		require.Nil(t, kept.Ending())
		s.Leave(lost)
		// Even without changes, calls are judged every few seconds.
		s.refuse("kept")
		time.Sleep(4 * time.Second)
		synctest.Wait()
		require.False(t, open.closed.Load())
		time.Sleep(3 * time.Second)
		synctest.Wait()
		require.True(t, open.closed.Load())
		s.Leave(kept)
		require.NoError(t, testutil.GatherAndCompare(s.reg, strings.NewReader(`# HELP mep_gateway_calls_lasting Calls under way that are judged again: upgraded connections, and streams in either direction.
# TYPE mep_gateway_calls_lasting gauge
mep_gateway_calls_lasting 0
`), "mep_gateway_calls_lasting"))
	})
}

func TestACallThatWasDecidedAboutByWhatIsPastIsJudgedAtOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t)
		stop := s.run(t)
		defer stop()
		time.Sleep(2 * time.Second)
		c, r := s.begin("lost")
		s.refuse("lost")
		s.Changed()
		time.Sleep(time.Second + time.Millisecond) // a round that does not know the call yet
		s.Enter(c, r, nil)
		s.Answered(c, &body{})
		time.Sleep(time.Second)
		synctest.Wait()
		require.NotNil(t, c.Ending())
		s.Leave(c)
	})
}

func TestACallWithoutAnAnswerIsEndedByItsContext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t)
		stop := s.run(t)
		defer stop()
		c, r := s.begin("lost")
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		s.Enter(c, r, cancel)
		s.refuse("lost")
		s.Changed()
		<-ctx.Done()
		b := &body{}
		require.Same(t, c.Ending(), s.Answered(c, b), "an answer that comes by now is not passed on")
		s.Leave(c)
	})
}

func TestCallsThatDoNotLastAreNotNoted(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	c, _ := s.begin("me")
	require.Nil(t, s.Answered(c, &body{}))
	s.Leave(c)
	require.Nil(t, c.Stay)
}

// TestAnAnswerThatCameAfterAChangeIsJudgedThere makes answers arrive together with changes, before a round has judged the calls.
func TestAnAnswerThatCameAfterAChangeIsJudgedThere(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change   func(*scene)
		platform bool
		short    string // why a short answer is not passed on, long: why one that lasts is not
		long     string
	}{
		"nothing that concerns it": {change: func(s *scene) { s.refuse("somebody") }},
		"the caller may not":       {change: func(s *scene) { s.refuse("me") }, short: "ended-access", long: "ended-access"},
		"the service is gone":      {change: func(s *scene) { s.publish() }, long: "ended-instance"},
		"of the platform":          {change: func(s *scene) { s.refuse("me") }, platform: true, long: "ended-instance"}, // no such route
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, lasts := range []bool{false, true} {
				s := newScene(t)
				k, r := s.begin("me")
				if c.platform {
					k.Route = &table.Route{ID: "r", Kind: gateway.KindPlatform}
				}
				c.change(s)
				s.Changed()
				want := c.short
				if lasts {
					want = c.long
				}
				e := s.Arrived(k, r, lasts)
				require.Same(t, k.Ending(), e)
				if want == "" {
					require.Nil(t, e)
					continue
				}
				require.Equal(t, want, e.Reason)
				require.Same(t, e, s.Arrived(k, r, lasts), "it was ended once")
				stop := s.run(t)
				stop()
				require.NoError(t, s.audit.Reopen())
				data, err := os.ReadFile(s.trail)
				require.NoError(t, err)
				require.Equal(t, 1, strings.Count(string(data), `"action":"access.end"`), string(data))
			}
		})
	}
}

// TestADiskThatHangsDelaysNoEnding ends calls while nothing reads what is written to the audit stream.
func TestADiskThatHangsDelaysNoEnding(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "pipe")
	require.NoError(t, syscall.Mkfifo(file, 0o600))
	pipe, err := os.OpenFile(file, os.O_RDWR, 0)
	require.NoError(t, err)
	t.Cleanup(func() { _ = pipe.Close() })
	s := sceneWith(t, file)
	require.NoError(t, pipe.SetWriteDeadline(time.Now().Add(100*time.Millisecond)))
	for err == nil {
		_, err = pipe.Write(make([]byte, 4096))
	}
	require.ErrorIs(t, err, os.ErrDeadlineExceeded, "it is full")
	var others sync.WaitGroup
	others.Go(func() {
		for range 1000 { // more than is buffered before writers have to wait
			s.audit.Busy(audit.Entry{Action: "test.fill", Result: audit.Success})
		}
	})
	s.refuse("lost")
	stop := s.run(t)
	for range 3 {
		c, _ := s.hold("lost")
		s.Changed()
		require.Eventually(t, func() bool { return c.Ending() != nil }, 10*time.Second, time.Millisecond)
		s.Leave(c)
	}
	others.Go(func() {
		for in := bufio.NewReader(pipe); ; {
			if line, err := in.ReadString('\n'); err != nil || strings.Contains(line, "the last") {
				return
			}
		}
	})
	stop()
	s.audit.Write(audit.Entry{Action: "test.end", Result: audit.Success, Detail: "the last"})
	others.Wait()
}

// TestWhatCallsLeadToIsLookedFor changes the table under calls.
func TestWhatCallsLeadToIsLookedFor(t *testing.T) {
	t.Parallel()
	one := &table.Instance{ID: "i", Service: "s", Owner: "owner"}
	for name, c := range map[string]struct {
		named bool // the call is to the instance, not the service
		after []*table.Instance
		ends  bool
	}{
		"the same":                          {false, []*table.Instance{{ID: "i", Service: "s", Owner: "owner"}}, false},
		"the same instance":                 {true, []*table.Instance{{ID: "i", Service: "s", Owner: "owner"}}, false},
		"another of the service":            {false, []*table.Instance{{ID: "j", Service: "s"}}, false}, // it went to none yet
		"another, not the instance":         {true, []*table.Instance{{ID: "j", Service: "s"}}, true},
		"the instance with another serName": {true, []*table.Instance{{ID: "i", Service: "t"}}, true},
		"nothing":                           {false, nil, true},
		"no instance":                       {true, nil, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := newScene(t)
				stop := s.run(t)
				defer stop()
				k, r := s.begin("me")
				if c.named {
					k.Group, k.Instance = nil, one
				}
				s.Enter(k, r, nil)
				s.publish(c.after...)
				time.Sleep(2 * time.Second)
				synctest.Wait()
				require.Equal(t, c.ends, k.Ending() != nil)
				if c.ends {
					require.Equal(t, "ended-instance", k.Ending().Reason)
				}
				s.Leave(k)
			})
		})
	}
}

// TestProofsAreLookedAtAgain has callers whose proofs are no longer known.
func TestProofsAreLookedAtAgain(t *testing.T) {
	t.Parallel()
	past, future := time.Unix(1, 0), time.Now().Add(1e6*time.Hour)
	for name, c := range map[string]struct {
		change func(*call.Call)
		ends   bool
	}{
		"nobody":               {func(c *call.Call) { c.Caller = nil }, false},
		"an API key":           {func(c *call.Call) { c.Key = &identity.Caller{ClientID: "gone"} }, true},
		"one that has expired": {func(c *call.Call) { c.Key = &identity.Caller{ClientID: "gone", Expires: past} }, false},
		"a token":              {func(c *call.Call) { c.Token, c.Caller.Expires = "a.b.c", future }, true},
		"one that expired":     {func(c *call.Call) { c.Token, c.Caller.Expires = "a.b.c", past }, true}, // nobody trusts its issuer
		"a certificate":        {func(c *call.Call) { c.Caller.Via, c.Caller.Expires = "certificate", future }, true},
		"an expired one":       {func(c *call.Call) { c.Caller.Via, c.Caller.Expires = "certificate", past }, true}, // no rule names it
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newScene(t)
			stop := s.run(t)
			defer stop()
			k, r := s.begin("me")
			c.change(k)
			r.TLS = &tls.ConnectionState{}
			s.Enter(k, r, nil)
			s.Answered(k, &body{})
			asked := s.asked.Load()
			require.Eventually(t, func() bool {
				s.Changed()
				return s.asked.Load() > asked+1 || k.Ending() != nil
			}, 10*time.Second, time.Millisecond)
			require.Equal(t, c.ends, k.Ending() != nil)
			if c.ends {
				require.Equal(t, "ended-credential", k.Ending().Reason)
				require.ErrorIs(t, k.Ending().Err, errs.Unauthenticated)
			}
			s.Leave(k)
		})
	}
}

// TestManyEndsHaveFewLines ends more calls at once than the audit stream has lines for.
func TestManyEndsHaveFewLines(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	var all []*call.Call
	for range 500 {
		c, _ := s.hold("lost")
		all = append(all, c)
	}
	s.refuse("lost")
	stop := s.run(t)
	for _, c := range all {
		require.Eventually(t, func() bool { return c.Ending() != nil }, 10*time.Second, time.Millisecond)
	}
	stop()
	for _, c := range all {
		s.Leave(c)
	}
	require.NoError(t, s.audit.Reopen()) // flushes the stream
	data, err := os.ReadFile(s.trail)
	require.NoError(t, err)
	require.Equal(t, 26, strings.Count(string(data), `"action":"access.end"`))
	require.Contains(t, string(data), "and 475 more calls")
}

// TestCallsComeAndGoWhileTheyAreJudged is for the race detector and for leaks.
func TestCallsComeAndGoWhileTheyAreJudged(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	stop := s.run(t)
	s.refuse("lost")
	var busy sync.WaitGroup
	for n := range 8 {
		busy.Go(func() {
			for i := range 2000 {
				c, b := s.hold([]string{"kept", "lost"}[i%2])
				if i%100 == n {
					s.Changed()
					time.Sleep(time.Millisecond)
				}
				s.Leave(c)
				if c.Ending() == nil && b.closed.Load() {
					t.Error("closed, and nobody knows why")
				}
			}
		})
	}
	busy.Wait()
	stop()
	n, err := testutil.GatherAndCount(s.reg, "mep_gateway_calls_lasting")
	require.NoError(t, err)
	require.Equal(t, 1, n)
}

var _ io.Closer = (*body)(nil)
