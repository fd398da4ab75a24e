package forward

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

// inquiry is a question in flight to the upstreams of a zone. They are asked one after the other: an upstream that has not answered
// within a quarter of the timeout gives way to the next, and is asked again after the others; one that has responded or failed is not.
// Late answers count until the end.
type inquiry struct {
	forwarder *Forwarder
	settings  *settings
	question  *Question
	closed    chan struct{} // closed when nobody receives from ended any more
	ended     chan *attempt
	work      sync.WaitGroup

	left    []*upstream // not asked yet
	silent  []*upstream // to be asked again
	running []*attempt
	current *attempt // the attempt whose answer is not late yet; may be nil

	servfail *Answer
	cause    error
	detail   error
}

// attempt is the question put to one upstream.
type attempt struct {
	exchanger
	began  time.Time
	answer *Answer
	err    error
}

// ask asks the upstreams of a zone until one has an answer or the time is over. Once one says SERVFAIL, no upstream is asked a second
// time.
func (f *Forwarder) ask(ctx context.Context, s *settings, z *zone, q *Question) (*Answer, *Failure) {
	in := &inquiry{
		forwarder: f, settings: s, question: q, closed: make(chan struct{}), ended: make(chan *attempt),
		left: inOrder(z.upstreams), cause: ErrNetwork,
	}
	if len(in.left) == 0 {
		return nil, newFailure(ErrLoop, nil)
	}
	ctx, cancel := context.WithTimeout(ctx, s.Timeout)
	defer func() {
		cancel()
		close(in.closed)
		in.work.Wait()
	}()
	// Go by the clock, as sockets do: the context's timer may fire a moment later, and until then every attempt fails at once.
	deadline, _ := ctx.Deadline()
	over := func() bool { return ctx.Err() != nil || !time.Now().Before(deadline) }
	late := time.NewTimer(in.turn())
	defer late.Stop()
	for {
		if in.current == nil && !over() && in.next(ctx) {
			late.Reset(in.turn())
		}
		if !in.hopeful() {
			break
		}
		select {
		case a := <-in.ended:
			in.take(a)
			if a.err == nil {
				return a.answer, nil
			}
			if f.life.Err() != nil {
				return nil, newFailure(ErrClosed, nil)
			}
		case <-late.C:
			in.giveWay()
		}
	}
	if in.servfail != nil {
		return in.servfail, nil
	}
	return nil, newFailure(in.cause, in.detail)
}

// turn returns how long an upstream is asked before the next one is asked too.
func (in *inquiry) turn() time.Duration { return in.settings.Timeout / tries }

// next asks the upstream whose turn it is, and reports whether there is one.
func (in *inquiry) next(ctx context.Context) bool {
	queue := &in.left
	if len(in.left) == 0 && in.servfail == nil {
		queue = &in.silent
	}
	if len(*queue) == 0 {
		return false
	}
	u := (*queue)[0]
	*queue = (*queue)[1:]
	for _, a := range slices.Backward(in.running) { // the latest first: its route is the best known
		if a.upstream == u && a.again() {
			in.current = a
			return true
		}
	}
	s := in.settings
	a := &attempt{began: time.Now(), exchanger: exchanger{
		upstream: u, question: in.question, udpSize: s.UDPSize, randomCase: in.forwarder.randomCase(s, u), limit: s.Timeout,
		metrics: in.forwarder.metrics,
	}}
	in.running = append(in.running, a)
	in.current = a
	in.work.Go(func() {
		a.answer, a.err = in.forwarder.answerOf(ctx, s, &a.exchanger)
		select {
		case in.ended <- a:
		case <-in.closed:
		}
	})
	return true
}

// hopeful reports whether there is anything to wait for. If there is a SERVFAIL to return, the late answer of an upstream that is down is
// not worth waiting for.
func (in *inquiry) hopeful() bool {
	if in.servfail == nil || in.current != nil {
		return len(in.running) > 0
	}
	return slices.ContainsFunc(in.running, func(a *attempt) bool { return a.upstream.health() == healthy })
}

// giveWay ends the turn of an upstream that has not answered.
func (in *inquiry) giveWay() {
	a := in.current
	if a == nil {
		return
	}
	in.current = nil
	a.overdue()
	in.silent = append(in.silent, a.upstream)
	err := fmt.Errorf("no answer within %s", in.turn())
	in.noteSilence(a, err)
	in.forwarder.note(a.upstream, in.question.Name, outcomeTimeout, in.turn(), err)
}

// noteSilence records that there is no answer yet.
func (in *inquiry) noteSilence(a *attempt, err error) {
	in.detail = fmt.Errorf("%s: %w", a.upstream, err)
	if !errors.Is(in.cause, ErrUnusable) {
		in.cause = ErrTimeout
	}
}

// take records how an attempt ended.
func (in *inquiry) take(a *attempt) {
	f, u := in.forwarder, a.upstream
	in.running = slices.DeleteFunc(in.running, func(other *attempt) bool { return other == a })
	waited := a == in.current
	if waited {
		in.current = nil
	}
	if f.life.Err() != nil { // this says nothing about the upstream
		return
	}
	silent := a.err != nil && isTimeout(a.err)
	if waited || !silent { // giveWay has noted a late answer already
		f.note(u, in.question.Name, outcomeOf(a.err), time.Since(a.began), a.err)
	}
	if silent {
		in.noteSilence(a, a.err)
		if waited {
			in.silent = append(in.silent, u)
		}
		return
	}
	in.silent = slices.DeleteFunc(in.silent, func(other *upstream) bool { return other == u })
	switch {
	case errors.Is(a.err, errServfail):
		in.servfail = a.answer
	case errors.Is(a.err, errUnusable):
		in.cause = ErrUnusable
	}
	if a.err != nil {
		in.detail = fmt.Errorf("%s: %w", u, a.err)
	}
}
