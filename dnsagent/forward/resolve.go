package forward

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/miekg/dns"

	"github.com/openmep/mep/dnsagent/wire"
)

const (
	// patience is how long a client waits for an answer when there is a stale one (RFC 8767 5, the client response timer).
	patience = 1800 * time.Millisecond
	// recheckInterval is how long upstreams that had no answer are not asked again when there is a stale one (RFC 8767 5, the failure
	// recheck timer).
	recheckInterval = 30 * time.Second
	// prefetchHits is how often an answer must have been asked for to be renewed early, in the last tenth of its lifetime.
	prefetchHits, prefetchShare = 3, 10
)

// Cached returns the answer to a question if there is one that can be given at once: a fresh one, or a stale one while upstreams are
// known to have none. It does not ask upstreams, wait or allocate, and retains nothing of q. An answer in demand is renewed in the
// background.
func (f *Forwarder) Cached(q *Question, now time.Time) (*Answer, bool) {
	a, ok := f.cache.Get(q)
	if !ok || a.failure != nil {
		return nil, false
	}
	if !a.fresh(now) {
		if int64(a.age(now)) >= a.recheck.Load() || !a.usable(now, f.settings.Load().Stale) {
			return nil, false
		}
		f.metrics.stale.Inc()
		return a, true
	}
	f.metrics.hits.Inc()
	if n := a.hits.Load(); n < prefetchHits {
		a.hits.Store(n + 1) // a lost increment does not matter
	} else if a.ttl-a.age(now) < a.ttl/prefetchShare && a.refreshing.CompareAndSwap(false, true) {
		f.prefetch(q)
	}
	return a, true
}

// Known returns the answer to a question even if it is stale, as long as it may be used at all: for clients that cannot be made to wait
// for a better one. It does not ask upstreams or wait.
func (f *Forwarder) Known(q *Question, now time.Time) (*Answer, bool) {
	a, ok := f.cache.Get(q)
	if !ok || a.failure != nil || !a.fresh(now) && !a.usable(now, f.settings.Load().Stale) {
		return nil, false
	}
	if a.fresh(now) {
		f.metrics.hits.Inc()
	} else {
		f.metrics.stale.Inc()
	}
	return a, true
}

// prefetch renews an answer, provided that this leaves room for clients' questions.
func (f *Forwarder) prefetch(q *Question) {
	s := f.settings.Load()
	if f.flights.len() >= s.Pending/2 {
		return
	}
	if _, err := f.flights.join(q, s, f.fly); err == nil {
		f.metrics.prefetches.Inc()
	}
}

// Resolve answers a question from the cache or by asking upstreams. It returns a stale answer if no upstream has another, or none within
// 1.8 s; the upstreams are still asked then. Equal questions are asked once, and to the end even if nobody waits any more.
//
// The error is a *Failure, or that of the context when it ends first. The caller may reuse the memory of q.Name once Resolve has
// returned.
func (f *Forwarder) Resolve(ctx context.Context, q *Question) (*Answer, error) {
	now, s := f.now(), f.settings.Load()
	if a, ok := f.Cached(q, now); ok {
		return a, nil
	}
	stale, ok := f.cache.Get(q)
	if ok && stale.failure != nil && stale.fresh(now) {
		return nil, stale.failure
	}
	if ok && !stale.usable(now, s.Stale) {
		stale = nil
	}
	a, err := f.wait(ctx, s, q, stale != nil)
	if stale != nil && (err != nil || a.rcode == dns.RcodeServerFailure) {
		f.metrics.stale.Inc()
		return stale, nil
	}
	f.metrics.misses.Inc()
	return a, err
}

// errImpatient is the error for a caller that has another answer and waits no longer.
var errImpatient = errors.New("there is another answer")

// wait waits for the answer of the upstreams.
func (f *Forwarder) wait(ctx context.Context, s *settings, q *Question, impatient bool) (*Answer, error) {
	if !f.Handles(q.Name) {
		return nil, newFailure(ErrNoUpstream, nil)
	}
	fl, err := f.flights.join(q, s, f.fly)
	if err != nil {
		f.metrics.failures.WithLabelValues(reasons[err]).Inc()
		return nil, newFailure(err, nil)
	}
	var enough <-chan time.Time
	if impatient {
		patience := f.patience
		if z := s.zoneOf(q.Name); !z.answers() {
			patience = 0 // no answer is to be expected
		}
		timer := time.NewTimer(patience)
		defer timer.Stop()
		enough = timer.C
	}
	select {
	case <-fl.done:
		if fl.failure != nil {
			return nil, fl.failure
		}
		return fl.answer, nil
	case <-enough:
		return nil, errImpatient
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// fly asks the upstreams and lands the flight.
func (f *Forwarder) fly(fl *flight) {
	// Another flight may have landed since this one was found to be needed.
	if a, ok := f.cache.Get(&fl.question); ok && a.fresh(f.now()) && !a.refreshing.Load() {
		if fl.failure = a.failure; fl.failure == nil {
			fl.answer = a
		}
		f.flights.land(fl, func() {})
		return
	}
	s := f.settings.Load()
	z := s.zoneOf(fl.question.Name)
	if z == nil || len(z.upstreams) == 0 {
		fl.failure = newFailure(ErrNoUpstream, nil)
	} else {
		fl.answer, fl.failure = f.ask(f.life, s, z, &fl.question)
	}
	if fl.failure != nil && !errors.Is(fl.failure, ErrNoUpstream) {
		f.metrics.failures.WithLabelValues(reasons[fl.failure.Cause]).Inc()
		f.log.Debug("a question was not answered", "name", fl.question.Name.String(), "type", dns.TypeToString[fl.question.Type], "error", fl.failure)
	}
	f.flights.land(fl, func() { f.keep(fl, s) })
}

// keep caches the outcome of a flight.
func (f *Forwarder) keep(fl *flight, s *settings) {
	q, now := &fl.question, f.now()
	if fl.failure == nil && fl.answer.rcode != dns.RcodeServerFailure {
		if fl.answer.ttl > 0 {
			f.cache.Put(q, fl.answer, fl.answer.cost())
		} else {
			f.cache.Delete(q) // the previous answer no longer holds
		}
		return
	}
	if fl.failure != nil && fl.failure.passing() {
		return
	}
	if old, ok := f.cache.Get(q); ok && old.usable(now, s.Stale) {
		old.recheck.Store(int64(old.age(now) + recheckInterval))
		return
	}
	a := fl.answer
	if a == nil {
		a = &Answer{born: now, ttl: failureTTL, failure: fl.failure}
	}
	f.cache.Put(q, a, a.cost())
}

// Flush removes the answers for a name, or also those for all names below it, and returns how many there were. Below the root is
// everything. Answers to questions in flight are not kept either.
func (f *Forwarder) Flush(name wire.Name, below bool) int {
	return f.flush(func(n wire.Name) bool {
		if below {
			return n.Within(name)
		}
		return n == name
	})
}

func (f *Forwarder) flush(which func(wire.Name) bool) int {
	f.flights.forget(which)
	return f.cache.DeleteFunc(func(q *Question, _ *Answer) bool { return which(q.Name) })
}

func cloneName(n wire.Name) wire.Name { return wire.Name(strings.Clone(string(n))) }
