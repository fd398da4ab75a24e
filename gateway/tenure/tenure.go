// Package tenure ends calls in flight when the right to them ends. Every call is judged when it begins. Those that last, upgraded
// connections and streams, are judged again by the same rules whenever something they depend on has changed, and every few seconds in any
// case.
//
// Three things end a call: its caller may no longer make it, the caller's proof of identity no longer counts, or the target of the call is
// gone. A token, an API key or a certificate that expires does not end a call that began in time, and neither does a new address of the
// target. External authorization is not asked again.
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

// Judge decides about calls in flight by the rules for new calls.
type Judge interface {
	// Again decides about a call by its Table, and by its Policy and Route as they are now. to are the instances at the address that the
	// call goes to, and permission for any one of them is enough. to is empty when the call goes to no instance, or has not got that far.
	// withdrawn says why the caller's proof of identity no longer counts; nil means that it does. The error ends the call.
	Again(c *call.Call, method string, to []*table.Instance, withdrawn error) error
}

// Config holds what calls are judged by, and where the outcome is reported.
type Config struct {
	// Table and Judge return what is in force.
	Table func() *table.Table
	Judge func() Judge
	// Guard knows tokens and certificates, Book knows API keys and grants.
	Guard *identity.Guard
	Book  *book.Book
	// Audit receives an entry for each call that is ended, within bounds.
	Audit      *audit.Log
	Log        *slog.Logger
	Registerer prometheus.Registerer
}

// stripes is how many locks the calls are spread over.
const stripes = 64

// Calls is the registry of the calls that last.
type Calls struct {
	cfg     Config
	metrics *metrics
	trail   *trail
	seen    atomic.Uint64
	wake    chan struct{}
	retired sync.Map // record keys of signing keys that were removed before they expired
	ending  sync.WaitGroup
	resume  int // the stripe that the next round judges first
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
	call    *call.Call // only fields that were set when the call was let through may be read
	request *http.Request
	app     bool // the caller was an app instance of the platform
	of      *stripe
	at      int // index in the stays of the stripe

	mu       sync.Mutex
	left     bool // the handler of the request is about to return
	answered bool // the header of the response has arrived
	cancel   context.CancelFunc
	body     io.Closer

	rests *rests // of the caller's token, once examined; only for the judging goroutine, as is foreign
	// foreign is how the caller's token was last judged, if another issuer issued it.
	foreign foreign
}

// New returns an empty registry. Others maintain what it watches.
func New(cfg Config) *Calls {
	t := &Calls{cfg: cfg, wake: make(chan struct{}, 1), trail: &trail{to: cfg.Audit, wake: make(chan struct{}, 1)}}
	t.metrics = newMetrics(cfg.Registerer, t.count)
	return t
}

// Seen returns how many changes there have been. A call records the number before anything is decided about it.
func (t *Calls) Seen() uint64 { return t.seen.Load() }

// Changed says that something that calls depend on has changed, and that the change is in force.
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

// Enter registers a call that may last, unless it is registered already. cancel ends a call that has no answer yet; it may be nil for a
// call that has one. r must not change from now on.
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
		t.ring() // what the call was judged by may no longer be in force
	}
}

func newStay(c *call.Call, r *http.Request) *stay {
	return &stay{call: c, request: r, app: c.Caller != nil && c.Table.App(c.Caller.Subject) != nil}
}

// Arrived judges a call whose answer has arrived but is not passed on yet, because something changed while the call waited. lasts says that
// the answer may take a while. A short answer is not held back because its source is gone by now. A short answer of the platform itself is
// never held back: it may be about what has just ended. Arrived returns why the call is ended; nil when it is not.
func (t *Calls) Arrived(c *call.Call, r *http.Request, lasts bool) *call.Ending {
	if !lasts && c.Route != nil && c.Route.Kind == gateway.KindPlatform {
		return nil
	}
	seen := t.seen.Load()
	v := t.verdict(r.Context())
	if v == nil {
		return nil
	}
	v.spent = looks // do not wait for keys of other issuers here
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

// Answered records that a call has a response. Closing body ends the call; body is nil if that is not how the call ends. Answered returns
// why the call has already been ended; nil when it has not. It does nothing for calls that do not last.
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

// Leave removes a call. Call it before the handler of the request returns.
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

// Farewell ends the calls whose clients can be told that the gateway is stopping, so that they go elsewhere at once: upgraded connections
// and gRPC calls. Call it while Run runs.
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

// copied appends the calls of a stripe to a list, which can be judged while calls come and go.
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

// end ends the call, and reports false if the call was about to end anyway.
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
		s.call.Body.Cut() // the proxy may be waiting for more of it
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
	// spacing is the minimum time between two rounds, interval the maximum.
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

// follow watches for the changes that do not show in the table.
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
