// Package tenure ends calls that are under way when the right to them ends. Calls are judged when they begin; those that last, upgraded
// connections and streams, are judged again by the same rules whenever something they rest on has changed, and every few seconds besides.
//
// Three things end a call: its caller may not make it any more, what the caller proved itself with does not count any more, or what the
// call leads to is not there any more. That a token, an API key or a certificate expires ends nothing that began in time, and neither
// does a new address of what a call leads to. External authorization is not asked again.
package tenure

import (
	"context"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/openmep/mep/api/gateway"
	"github.com/openmep/mep/gateway/book"
	"github.com/openmep/mep/gateway/call"
	"github.com/openmep/mep/gateway/table"
	"github.com/openmep/mep/kit/audit"
	"github.com/openmep/mep/kit/errs"
	"github.com/openmep/mep/kit/identity"
	"github.com/openmep/mep/kit/watched"
)

// Judge decides about calls that are under way by the rules for those that begin.
type Judge interface {
	// Again decides about a call: by its Table, and its Policy and Route as they are now. to are the instances at the address it goes to,
	// of which one that it may go to is enough; none when it goes to none, or has not got that far. withdrawn says why the proof of who
	// calls does not count any more; nil: it does. The error ends the call.
	Again(c *call.Call, method string, to []*table.Instance, withdrawn error) error
}

// Config is what calls are judged by, and who is told.
type Config struct {
	// Table and Judge are asked for what is in force.
	Table func() *table.Table
	Judge func() Judge
	// Guard knows tokens and certificates, Book API keys and grants.
	Guard *identity.Guard
	Book  *book.Book
	// Audit gets a line for each call that is ended, within bounds.
	Audit      *audit.Log
	Log        *slog.Logger
	Registerer prometheus.Registerer
}

// stripes is how many locks the calls are spread over.
const stripes = 64

// Calls are the calls that last.
type Calls struct {
	cfg     Config
	metrics *metrics
	trail   *trail
	seen    atomic.Uint64
	wake    chan struct{}
	retired sync.Map // the keys of signing keys that were taken back before their time
	ending  sync.WaitGroup
	resume  int // the stripe that is judged first
	routes  narrowed
	all     [stripes]stripe
}

type stripe struct {
	mu    sync.Mutex
	stays []*stay
	_     [64]byte // the locks of stripes do not share a cache line
}

// stay is a call that lasts.
type stay struct {
	call    *call.Call // what was written when the call was let through is read, and nothing else of it
	request *http.Request
	app     bool // the caller was an app instance of the platform
	of      *stripe
	at      int // among the stays of the stripe

	mu       sync.Mutex
	left     bool // the handler of the request is about to return
	answered bool // the header of the response is there
	cancel   context.CancelFunc
	body     io.Closer

	rests *rests // of the caller's token, once somebody looked; for the goroutine that judges, as is foreign
	// foreign is what became of the caller's token, when another issuer issued it.
	foreign foreign
}

// New makes the registry. All it watches is kept by others.
func New(cfg Config) *Calls {
	t := &Calls{cfg: cfg, wake: make(chan struct{}, 1), trail: &trail{to: cfg.Audit, wake: make(chan struct{}, 1)}}
	t.metrics = newMetrics(cfg.Registerer, t.count)
	return t
}

// Seen is how many changes there have been. A call notes it before anything is decided about it.
func (t *Calls) Seen() uint64 { return t.seen.Load() }

// Changed says that something that calls rest on has changed, and is in force.
func (t *Calls) Changed() {
	t.seen.Add(1)
	t.ring()
}

func (t *Calls) ring() {
	select {
	case t.wake <- struct{}{}:
	default:
	}
}

// Enter notes that a call may last, unless that is noted already. cancel ends it as long as it has no answer; it may be nil for one that
// has. r does not change from now on.
func (t *Calls) Enter(c *call.Call, r *http.Request, cancel context.CancelFunc) {
	if c.Stay != nil {
		return
	}
	s := newStay(c, r)
	s.cancel, s.of = cancel, &t.all[rand.IntN(stripes)]
	c.Stay = s
	s.of.mu.Lock()
	s.at = len(s.of.stays)
	s.of.stays = append(s.of.stays, s)
	s.of.mu.Unlock()
	if t.seen.Load() != c.Seen {
		t.ring() // it was decided about by what may not be in force any more
	}
}

func newStay(c *call.Call, r *http.Request) *stay {
	return &stay{call: c, request: r, app: c.Caller != nil && c.Table.App(c.Caller.Subject) != nil}
}

// Arrived judges a call whose answer has come and is not passed on yet, since something changed while it waited. lasts says that the
// answer may take a while; that what gave a short one is gone by now is no reason to hold it back, and neither are those of the platform
// itself, which may be about what has just ended. It returns why the call is ended, nil when it is not.
func (t *Calls) Arrived(c *call.Call, r *http.Request, lasts bool) *call.Ending {
	if !lasts && c.Route != nil && c.Route.Kind == gateway.KindPlatform {
		return nil
	}
	seen := t.seen.Load()
	v := t.verdict(r.Context())
	if v == nil {
		return nil
	}
	v.spent = looks // keys of other issuers are not waited for here
	reason, err := v.judge(newStay(c, r))
	if err == nil || reason == instance && !lasts {
		c.Seen = seen
		return nil
	}
	e := ending(reason, err)
	if !c.End(e) {
		return c.Ending()
	}
	t.metrics.ended[reason].Inc()
	t.trail.add(c, r.Method, err)
	t.trail.ring()
	return e
}

func ending(reason string, why error) *call.Ending {
	return &call.Ending{Reason: "ended-" + reason, Err: why}
}

// Answered notes that there is a response to a call, whose body ends it when it is closed; nil when it does not. It returns why the call
// was ended before that, nil when it was not. For calls that do not last it does nothing.
func (t *Calls) Answered(c *call.Call, body io.Closer) *call.Ending {
	s, ok := c.Stay.(*stay)
	if !ok {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answered, s.body = true, body
	return c.Ending()
}

// Leave forgets a call before the handler of its request returns.
func (t *Calls) Leave(c *call.Call) {
	s, ok := c.Stay.(*stay)
	if !ok {
		return
	}
	s.mu.Lock()
	s.left = true
	s.mu.Unlock()
	s.of.mu.Lock()
	defer s.of.mu.Unlock()
	last := len(s.of.stays) - 1
	moved := s.of.stays[last]
	s.of.stays[s.at], moved.at = moved, s.at
	s.of.stays[last] = nil
	s.of.stays = s.of.stays[:last]
}

// Farewell ends the calls whose clients can be told that the gateway stops, so that they go elsewhere at once: upgraded ones, and gRPC.
// Call it while Run runs.
func (t *Calls) Farewell() {
	why := ending(stopping, errs.New(errs.Unavailable, "the gateway is stopping").After(time.Second))
	var list []*stay
	for i := range t.all {
		list = t.all[i].copied(list[:0])
		for _, s := range list {
			if s.call.Tellable() && s.end(why, &t.ending) {
				t.metrics.ended[stopping].Inc()
			}
		}
	}
}

// copied appends the calls of a stripe to a list: they are judged while others come and go.
func (s *stripe) copied(list []*stay) []*stay {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append(list, s.stays...)
}

func (t *Calls) count() float64 {
	sum := 0
	for i := range t.all {
		t.all[i].mu.Lock()
		sum += len(t.all[i].stays)
		t.all[i].mu.Unlock()
	}
	return float64(sum)
}

// end ends the call, and reports whether it was not about to end by itself.
func (s *stay) end(why *call.Ending, ending *sync.WaitGroup) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.left || !s.call.End(why) {
		return false
	}
	rest := func() {}
	if s.answered {
		if last := s.call.Cut(); last != nil {
			rest = last
		}
	} else {
		s.call.Body.Cut() // whoever passes it on may wait for more of it
	}
	cancel, body := s.cancel, s.body
	ending.Go(func() { // closing a body may take a while
		rest()
		if cancel != nil {
			cancel()
		}
		if body != nil {
			_ = body.Close()
		}
	})
	return true
}

const (
	// spacing is the least time between two rounds, interval the longest.
	spacing  = time.Second
	interval = 5 * time.Second
)

// Run judges the calls until ctx ends.
func (t *Calls) Run(ctx context.Context) error {
	defer t.ending.Wait()
	defer t.trail.start()()
	stop := t.follow()
	defer func() {
		for _, s := range stop {
			s()
		}
	}()
	for {
		again := time.NewTimer(interval)
		select {
		case <-t.wake:
		case <-again.C:
		case <-ctx.Done():
		}
		again.Stop()
		if ctx.Err() != nil {
			return nil
		}
		t.round(ctx)
		rest := time.NewTimer(spacing)
		select {
		case <-rest.C:
		case <-ctx.Done():
			rest.Stop()
		}
	}
}

// follow hears of the changes that do not show in the table.
func (t *Calls) follow() (stop []func()) {
	dir := t.cfg.Guard.Verifier().Directory()
	_, stopKeys := dir.Keys().Observe(func(c watched.Change[*identity.Key]) {
		t.noteKey(c)
		t.Changed()
	})
	return []func(){
		stopKeys, observe(t, dir.Revoked()), observe(t, dir.Credentials()), observe(t, dir.Issuers()),
		observe(t, t.cfg.Book.Keys.Collection()), observe(t, t.cfg.Book.Access.Collection()),
	}
}

func observe[V any](t *Calls, c *watched.Collection[V]) (stop func()) {
	_, stop = c.Observe(func(watched.Change[V]) { t.Changed() })
	return stop
}
