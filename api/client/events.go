package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"mime"
	"net/http"
	"net/url"
	"time"

	"github.com/openmep/mep/api/internal/retry"
	"github.com/openmep/mep/api/mm5"
)

const (
	// maxSilence is how long a stream may be silent before it counts as lost: the platform sends something every 15 s.
	maxSilence = 45 * time.Second
	// defaultReconnect is the delay before a lost stream is resumed, unless the platform requests another one.
	defaultReconnect = 2 * time.Second
)

// EventQuery selects events. The zero value selects all of them.
type EventQuery struct {
	// Types are the event types to select, among mm5.EventApp, mm5.EventService, mm5.EventRule, mm5.EventRuleStatus and
	// mm5.EventOperation; empty selects all. mm5.EventReset and EventBegun are always delivered.
	Types []mm5.EventType
	// AppInstanceIDs are the application instances to select; empty selects all.
	AppInstanceIDs []string
	// After is the ID of an event seen before: the stream continues with the next one. If it is empty, the stream begins with
	// the changes from now on.
	After string
	// Interrupted, if not nil, is called with the reason whenever the stream was lost or could not be opened, before the next
	// attempt. It is intended for logging.
	Interrupted func(error)
}

func (q *EventQuery) values() url.Values {
	v := url.Values{}
	for _, t := range q.Types {
		v.Add("types", string(t))
	}
	for _, id := range q.AppInstanceIDs {
		v.Add("app_instance_id", id)
	}
	return v
}

// Events follows the changes at the platform and yields each of them once and in order. A lost stream is resumed where it was
// interrupted; if the platform cannot do that, it sends mm5.EventReset.
//
// The iteration ends without an error when ctx ends. It ends with an error when the platform refuses permanently, for example
// because After is not a valid id, or when it sends something that cannot be decoded; that error is yielded with the Event as
// far as it is known.
//
// The platform closes a stream whose reader is too slow: keep the loop body short.
//
// The time-out of the client's http.Client does not apply.
func (m *Manager) Events(ctx context.Context, q EventQuery) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		if !sendableID(q.After) {
			yield(Event{}, fmt.Errorf("%q is no id of an event", q.After))
			return
		}
		s := &stream{m: m, request: m.request(http.MethodGet, "events"), begun: q.After != "", retry: defaultReconnect, yield: yield}
		s.request.accept, s.request.query, s.request.lastEventID = eventStream, q.values(), q.After
		failures := 0
		for ctx.Err() == nil {
			heard, err := s.follow(ctx)
			broken, isBroken := errors.AsType[*brokenError](err)
			switch {
			case errors.Is(err, errStopped), ctx.Err() != nil:
				return
			case isBroken:
				yield(broken.event, broken.cause)
				return
			case final(err):
				yield(Event{}, err)
				return
			}
			if q.Interrupted != nil {
				q.Interrupted(err)
			}
			failures++
			if heard {
				failures = 0
			}
			if !retry.Sleep(ctx, max(pause(err, failures, maxRetryWait), between(s.retry/2, s.retry))) {
				return
			}
		}
	}
}

const eventStream = "text/event-stream"

var (
	errStopped = errors.New("no more events are wanted")
	errSilent  = fmt.Errorf("the platform has sent nothing for %s", maxSilence)
	errEnded   = errors.New("the platform has ended the stream")
)

// brokenError reports an invalid response, for which a retry is pointless.
type brokenError struct {
	event Event
	cause error
}

// Error implements error.
func (e *brokenError) Error() string { return e.cause.Error() }

// stream holds the state of an event stream across connections.
type stream struct {
	m       *Manager
	request request // its lastEventID is the position in the stream
	begun   bool    // EventBegun was delivered or is not needed
	retry   time.Duration
	yield   func(Event, error) bool
}

// follow yields events until the connection is lost. It reports whether anything was received, and the reason for returning:
// errStopped when the caller wants no more events.
func (s *stream) follow(ctx context.Context) (heard bool, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	silence := time.AfterFunc(maxSilence, func() { cancel(errSilent) })
	defer silence.Stop()
	resp, err := s.open(ctx)
	if err != nil {
		return false, causeOf(ctx, err)
	}
	defer resp.Body.Close()
	r := newEventReader(&attentive{r: resp.Body, silence: silence}, s.request.lastEventID)
	for {
		b, err := r.next()
		switch {
		case errors.Is(err, errEventTooLarge):
			return heard, &brokenError{cause: err}
		case errors.Is(err, io.EOF):
			return heard, causeOf(ctx, errEnded)
		case err != nil:
			return heard, causeOf(ctx, err)
		}
		heard = true
		s.request.lastEventID = r.lastID
		if r.retry > 0 {
			s.retry = min(r.retry, maxRetryWait)
		}
		silence.Stop() // time spent in the loop body does not count as silence
		if err := s.deliver(&b); err != nil {
			return heard, err
		}
		silence.Reset(maxSilence)
	}
}

// deliver yields the event in a block.
func (s *stream) deliver(b *block) error {
	if !s.begun {
		s.begun = true
		if !s.yield(Event{ID: s.request.lastEventID, Type: EventBegun}, nil) {
			return errStopped
		}
	}
	if b.data == nil {
		return nil
	}
	e, err := eventOf(s.request.lastEventID, b.event, b.data)
	if err != nil {
		return &brokenError{event: e, cause: err}
	}
	if !s.yield(e, nil) {
		return errStopped
	}
	return nil
}

// causeOf returns the cause of ctx's cancellation if there is one, else err.
func causeOf(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}

// open connects to the platform. It replaces a rejected token once.
func (s *stream) open(ctx context.Context) (*http.Response, error) {
	c := s.m.c
	target, err := c.url(&s.request)
	if err != nil {
		return nil, err
	}
	for renewed := false; ; renewed = true {
		req, token, err := c.prepare(ctx, &s.request, target, nil)
		if err != nil {
			return nil, err
		}
		resp, err := s.m.endless.Do(req)
		if err != nil {
			return nil, err
		}
		mt, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
		if resp.StatusCode == http.StatusOK && mt == eventStream {
			return resp, nil
		}
		err = newError(resp)
		_ = resp.Body.Close()
		if resp.StatusCode >= 200 && resp.StatusCode <= 299 {
			return nil, &brokenError{cause: fmt.Errorf("GET %s: %s without a stream of events: is a MEC platform there?", target, resp.Status)}
		}
		if c.refused == nil || renewed || token == "" || !isUnauthorized(err) {
			return nil, err
		}
		c.refused(token)
	}
}

// attentive is a reader that resets the silence timer when data arrives.
type attentive struct {
	r       io.Reader
	silence *time.Timer
}

// Read implements io.Reader.
func (a *attentive) Read(p []byte) (int, error) {
	n, err := a.r.Read(p)
	if n > 0 {
		a.silence.Reset(maxSilence)
	}
	return n, err
}
