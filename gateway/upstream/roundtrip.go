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

// Attempt is what RoundTrip says about a call. The caller owns it; RoundTrip begins by emptying it.
type Attempt struct {
	// Endpoint is the one that was called last, nil when there was none.
	Endpoint *Endpoint
	// Attempts is how often the request was sent, or was tried to be.
	Attempts int
	// FirstByte is the time from the call of RoundTrip to the header of the response, 0 without a response.
	FirstByte time.Duration

	earlier [maxRetries]*Endpoint
	present atomic.Pointer[Endpoint]
}

// Present is the endpoint that is being called, or was called last; nil when there was none. Any goroutine may ask.
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

// The pauses before an endpoint is called again that just failed.
const (
	firstPause = 20 * time.Millisecond
	lastPause  = 200 * time.Millisecond
)

// RoundTrip sends a request to one of the endpoints, which belong to p or an equal profile, and to others when it could not be
// delivered and may be repeated. r.URL holds the path, beginning with a slash or empty, and the query to pass on; those of the
// endpoint are put in front. An empty r.Host means the authority of the endpoint. r is not changed; what its body is, the
// caller closes too.
//
// What could not be connected to may be repeated whatever its method is; what was sent, only if the method is idempotent
// (RFC 9110 9.2.2), no time ran out, and the body is there to be sent again.
//
// Errors: *errs.Error of the kind errs.Unavailable when eps is empty, *ClientError when the request is to blame, *Error when there
// was no response for another reason, and the error of the context once it has ended.
func (m *Manager) RoundTrip(r *http.Request, p *Profile, eps []*Endpoint, a *Attempt) (*http.Response, error) {
	a.reset()
	body := r.Body
	if len(eps) == 0 {
		closeBody(body)
		return nil, errs.New(errs.Unavailable, "nothing that offers the service is known at present")
	}
	if strings.ContainsFunc(r.URL.RawQuery, isBlank) { // HTTP/2 could carry it, and net/http would
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
			again = false // nothing will be different
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

// isIdempotent reports whether a method is one of RFC 9110 9.2.2. "" is GET.
func isIdempotent(method string) bool {
	switch method {
	case "", http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace, http.MethodPut, http.MethodDelete:
		return true
	}
	return false
}

// pause waits before an endpoint is called again, and reports whether the context still holds.
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

// rewind returns the body for another attempt, and whether there can be one.
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

// send makes one attempt.
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

// deliver hands a request to the transport it is for. A proxy connects to what it is told, and one connection to it may serve
// several targets: then the target is checked here, as far as it is an address.
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

// noteFailure counts a failure, and tells the log what the client is not told.
func (e *Endpoint) noteFailure(f failure, err error) {
	why := err.Error()
	if f == failRefused {
		if before := e.refused.Swap(&why); before == nil || *before != why { // not for every call
			e.manager.log.Warn("endpoint has an address that is not called", "url", e.key.url, "error", err)
		}
	} else if e.refused.Load() != nil {
		e.refused.Store(nil)
	}
	e.failed(why)
}

// statusText is how a status that counts as a failure is told.
func statusText(status int) string { return "it answered " + strconv.Itoa(status) }
