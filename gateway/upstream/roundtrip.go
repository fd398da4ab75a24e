package upstream

import (
	"context"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/openmep/mep/kit/errs"
)

// Attempt describes a call of RoundTrip. The caller owns it; RoundTrip resets it first.
type Attempt struct {
	// Endpoint is the endpoint called last, or nil if there was none.
	Endpoint *Endpoint
	// Attempts is how often RoundTrip sent the request or tried to.
	Attempts int
	// FirstByte is the time from the call of RoundTrip to the response header, or 0 without a response.
	FirstByte time.Duration

	earlier [maxRetries]*Endpoint
	present atomic.Pointer[Endpoint]
}

// Present returns the endpoint being called, or the one called last; nil if there was none. It is safe for concurrent use.
func (a *Attempt) Present() *Endpoint { return a.present.Load() }

func (a *Attempt) reset() {
	a.Endpoint, a.Attempts, a.FirstByte = nil, 0, 0
	clear(a.earlier[:])
	a.present.Store(nil)
}

// tried reports whether the endpoint was called already.
func (a *Attempt) tried(e *Endpoint) bool {
	return a.Attempts > 0 && slices.Contains(a.earlier[:min(a.Attempts, len(a.earlier))], e)
}

func (a *Attempt) note(e *Endpoint) {
	if a.Attempts < len(a.earlier) {
		a.earlier[a.Attempts] = e
	}
	a.Attempts++
	a.Endpoint = e
	a.present.Store(e)
}

// The bounds of the pause before an endpoint that just failed is called again.
const (
	firstPause = 20 * time.Millisecond
	lastPause  = 200 * time.Millisecond
)

// RoundTrip sends a request to one of the endpoints, which belong to p or an equal profile. It tries others if the request could
// not be delivered and may be repeated. r.URL holds the path, empty or beginning with a slash, and the query to pass on; those of
// the endpoint are put in front. An empty r.Host means the authority of the endpoint. RoundTrip does not change r. The caller
// closes r.Body, too.
//
// A request may be repeated whatever its method if no connection could be made. Once sent, it is only repeated if its method is
// idempotent (RFC 9110 9.2.2), the failure was not a timeout, and its body can be sent again.
//
// Errors: *errs.Error of the kind errs.Unavailable if eps is empty, *ClientError if the request is to blame, *Error if there was no
// response for another reason, and the error of the context once it is done.
func (m *Manager) RoundTrip(r *http.Request, p *Profile, eps []*Endpoint, a *Attempt) (*http.Response, error) {
	a.reset()
	body := r.Body
	if len(eps) == 0 {
		closeBody(body)
		return nil, errs.New(errs.Unavailable, "nothing that offers the service is known at present")
	}
	if strings.ContainsFunc(r.URL.RawQuery, isBlank) { // HTTP/2 could carry such a query, and net/http would send it
		m.metrics.clientFaults.Inc()
		closeBody(body)
		return nil, &ClientError{errBlank}
	}
	began := time.Now()
	for {
		e := choose(eps, a)
		if a.tried(e) && !pause(r.Context(), a.Attempts) {
			closeBody(body)
			return nil, r.Context().Err()
		}
		a.note(e)
		o := newOutgoing(r, e, body)
		resp, err := e.send(o)
		if err == nil {
			a.FirstByte = time.Since(began)
			m.metrics.responded(resp.StatusCode)
			return resp, nil
		}
		if ended := r.Context().Err(); ended != nil {
			m.metrics.cancelled.Inc()
			closeBody(body)
			return nil, ended
		}
		if fault := o.clientFault(err); fault != nil {
			m.metrics.clientFaults.Inc()
			closeBody(body)
			return nil, &ClientError{fault}
		}
		f := failureOf(err)
		m.metrics.failed(f)
		e.noteFailure(f, err)
		again := a.Attempts <= p.retries && (!f.connected() || f == failReset && isIdempotent(r.Method))
		if f == failRefused && len(eps) == 1 {
			again = false // another attempt would be refused, too
		}
		if again {
			body, again = o.rewind(r)
		}
		if !again {
			closeBody(body)
			return nil, f.asError(err)
		}
		m.metrics.retries.Inc()
	}
}

func closeBody(b io.Closer) {
	if b != nil {
		_ = b.Close()
	}
}

// isIdempotent reports whether a method is idempotent (RFC 9110 9.2.2). "" means GET.
func isIdempotent(method string) bool {
	switch method {
	case "", http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace, http.MethodPut, http.MethodDelete:
		return true
	}
	return false
}

// pause waits before an endpoint is called again. It returns false if the context is done first.
func pause(ctx context.Context, attempts int) bool {
	t := time.NewTimer(min(firstPause<<(attempts-1), lastPause))
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// outgoing is one attempt to send a request.
type outgoing struct {
	req  http.Request
	url  url.URL
	body requestBody
}

func newOutgoing(r *http.Request, e *Endpoint, body io.ReadCloser) *outgoing {
	o := &outgoing{req: *r}
	e.target.place(&o.url, r.URL)
	o.req.URL = &o.url
	if r.Host == "" {
		o.req.Host = e.target.host
	}
	o.req.Body = body
	if body != nil && body != http.NoBody {
		o.body.from = body
		o.req.Body = &o.body
	}
	return o
}

// rewind returns the body for another attempt, and whether another attempt is possible.
func (o *outgoing) rewind(r *http.Request) (io.ReadCloser, bool) {
	if o.body.from == nil {
		return o.req.Body, true
	}
	if o.body.revoke() {
		return o.body.from, true
	}
	if r.GetBody == nil {
		return o.body.from, false
	}
	body, err := r.GetBody()
	if err != nil {
		return o.body.from, false
	}
	return body, true
}

func (e *Endpoint) send(o *outgoing) (*http.Response, error) {
	e.calls.Add(1)
	ejected := e.ejectedUntil.Load()
	e.active.Add(1)
	resp, err := e.deliver(&o.req)
	if err != nil {
		e.active.Add(-1)
		return nil, err
	}
	o.body.settle()
	e.responded(resp.StatusCode, ejected)
	e.follow(resp)
	return resp, nil
}

// deliver hands a request to the right transport. A proxy makes connections on its own, and one connection to it may serve several
// targets, so a target behind a proxy is checked here if its address is known.
func (e *Endpoint) deliver(req *http.Request) (*http.Response, error) {
	l, policy := e.lanes.Load(), e.manager.policy()
	e.manager.connections.obey(policy)
	if l.proxied && e.target.literal.IsValid() {
		if err := refusal(policy, e.target.literal); err != nil {
			return nil, err
		}
	}
	if l.direct != nil && e.target.scheme == "http" && !e.target.h2c && takes(req) {
		return l.direct.roundTrip(req, e.target.address)
	}
	return e.transport(l, req.Header).RoundTrip(req)
}

// noteFailure records a failure, and logs what the client is not told.
func (e *Endpoint) noteFailure(f failure, err error) {
	why := err.Error()
	if f == failRefused {
		if before := e.refused.Swap(&why); before == nil || *before != why { // log new reasons only
			e.manager.log.Warn("endpoint has an address that is not called", "url", e.key.url, "error", err)
		}
	} else if e.refused.Load() != nil {
		e.refused.Store(nil)
	}
	e.failed(why)
}

// statusText describes a status that counts as a failure.
func statusText(status int) string { return "it answered " + strconv.Itoa(status) }
