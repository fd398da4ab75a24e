// Package proxy passes calls on to their targets, and the responses back.
package proxy

import (
	"context"
	"errors"
	"io"
	"log"
	"log/slog"
	"net/http"
	"net/http/httputil"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/openmep/mep/api/gateway"
	"github.com/openmep/mep/gateway/call"
	"github.com/openmep/mep/gateway/match"
	"github.com/openmep/mep/gateway/tenure"
	"github.com/openmep/mep/gateway/upstream"
	"github.com/openmep/mep/kit/errs"
	"github.com/openmep/mep/kit/telemetry"
)

// The reasons why calls fail here.
const (
	ReasonUpstream   = "upstream"
	ReasonNoEndpoint = "no-endpoint"
	ReasonTimeout    = "upstream-timeout"
	ReasonClientGone = "client-gone"
	ReasonTooLarge   = "too-large"
	ReasonLoop       = "loop"
	ReasonClient     = "client"
)

// StatusClientGone is the status in records of calls whose client went away before there was a response.
const StatusClientGone = 499

// Pseudonym is the name of the gateway in Via (RFC 9110 7.6.3).
const Pseudonym = "mep"

// Proxy is the last handler of a call. It takes calls whose Endpoints are chosen.
type Proxy struct {
	reverse httputil.ReverseProxy
	tracer  *telemetry.Tracer
	fail    func(c *call.Call, w http.ResponseWriter, reason string, err error)
	gone    func(c *call.Call, err error)
	lasting *tenure.Calls
}

// New returns a Proxy. fail answers a call that could not be passed on, with a reason. gone records that the client went away. Calls that
// last are registered in lasting.
func New(tracer *telemetry.Tracer, lines *slog.Logger, lasting *tenure.Calls,
	fail func(c *call.Call, w http.ResponseWriter, reason string, err error), gone func(c *call.Call, err error),
) *Proxy {
	p := &Proxy{tracer: tracer, lasting: lasting, fail: fail, gone: gone}
	p.reverse = httputil.ReverseProxy{
		Rewrite: p.rewrite, Transport: transport{}, BufferPool: &buffers{}, ModifyResponse: p.modifyResponse, ErrorHandler: p.failed,
		ErrorLog: log.New(debugLog{lines}, "", 0),
	}
	return p
}

// ServeHTTP implements http.Handler.
func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c := call.Of(r)
	if looping(r.Header["Via"]) {
		p.fail(c, w, ReasonLoop, errs.New(errs.BadGateway, "the call came through this kind of gateway %d times already: its routes lead in a circle", maxHops))
		return
	}
	if t := c.Policy.Spec.Timeouts.Total.Or(0); t > 0 {
		ctx, cancel := context.WithTimeoutCause(r.Context(), t, errTotal)
		defer cancel()
		r = r.WithContext(ctx)
	}
	c.Request = r
	if mayLast(r) {
		next, done := p.enter(c, r)
		defer done()
		r = next
	}
	defer p.lasting.Leave(c)
	p.reverse.ServeHTTP(w, r)
}

var errTotal = errs.New(errs.GatewayTimeout, "the call took longer than its route allows")

// maxHops is how often a call may pass through gateways of this kind.
const maxHops = 8

func looping(via []string) bool {
	hops := 0
	for _, v := range via {
		hops += strings.Count(v, " "+Pseudonym)
	}
	return hops >= maxHops
}

// rewrite builds the request that is passed on.
func (p *Proxy) rewrite(pr *httputil.ProxyRequest) {
	c := call.Of(pr.In)
	out := pr.Out
	match.SetPath(out.URL, c.Path)
	// Pass the query on unchanged: net/http would drop what it cannot parse.
	out.URL.RawQuery = pr.In.URL.RawQuery
	out.Host = ""
	if r := c.Route; r != nil && (r.Kind == gateway.KindPlatform || r.Definition != nil && r.Definition.KeepHost) {
		out.Host = pr.In.Host // the platform's signatures cover the host, and its links begin with it
	}
	setHeaders(c, pr.In, out.Header)
	if len(out.Trailer) > 0 {
		c.Body.Trailer = out.Trailer // the values arrive at the end of the body
	}
	p.tracer.Inject(out.Context(), out.Header)
}

// transport makes the calls.
type transport struct{}

// RoundTrip implements http.RoundTripper.
func (transport) RoundTrip(r *http.Request) (*http.Response, error) {
	c := call.Of(r)
	return c.Policy.Upstream.RoundTrip(r, c.Policy.Profile, c.Endpoints, &c.Attempt)
}

func (p *Proxy) modifyResponse(resp *http.Response) error {
	c := call.Of(resp.Request)
	if err := p.answered(c, resp); err != nil {
		return err
	}
	c.FirstByte = c.Since()
	plan := &c.Policy.Headers
	for _, name := range plan.RemoveResponse {
		delete(resp.Header, name)
	}
	for _, f := range plan.SetResponse {
		resp.Header[f.Name] = []string{f.Value}
	}
	if len(resp.Trailer) > 0 {
		delete(resp.Header, "Content-Length") // HTTP/1.1 allows trailers only without Content-Length
	}
	if plan.Via {
		addVia(resp.Header, resp.ProtoMajor, resp.ProtoMinor)
	}
	// The gateway's own fields are already in the response header, unless an informational response took them along.
	if h := c.Writer.Header(); len(h[requestIDHeader]) == 0 {
		h[requestIDHeader] = []string{c.Info.RequestID}
		if c.Quota != nil {
			c.Quota.SetHeader(h)
		}
	}
	delete(resp.Header, requestIDHeader)
	if _, known := resp.Header["Content-Type"]; !known {
		c.Writer.Header()["Content-Type"] = nil // prevents net/http from guessing
	}
	return nil
}

// failed answers a call that got no response.
func (p *Proxy) failed(w http.ResponseWriter, r *http.Request, err error) {
	c := call.Of(r)
	cause := context.Cause(r.Context())
	fault, isClients := errors.AsType[*upstream.ClientError](err)
	switch tooLarge, isTooLarge := errors.AsType[*http.MaxBytesError](err); {
	case c.Ending() != nil:
		if c.Body.Unread() || c.Stay != nil && c.Request.ProtoMajor == 1 { // cutting the body spoils the connection, even if it was read
			w.Header()["Connection"] = []string{"close"}
		}
		p.fail(c, w, c.Ending().Reason, c.Ending().Err)
	case isTooLarge:
		p.fail(c, w, ReasonTooLarge, errs.New(errs.TooLarge, "the body is larger than %d bytes", tooLarge.Limit))
	case c.Body.Late():
		w.Header()["Connection"] = []string{"close"}
		p.fail(c, w, ReasonClient, errs.New(errs.RequestTimeout, "the body of the request did not come in time"))
	case isClients:
		w.Header()["Connection"] = []string{"close"}
		p.fail(c, w, ReasonClient, errs.Wrap(errs.Invalid, fault.Cause, "the request cannot be passed on: its body or one of its header fields is malformed"))
	case errors.Is(cause, errTotal):
		p.fail(c, w, ReasonTimeout, errTotal)
	case cause != nil:
		p.gone(c, err)
		panic(http.ErrAbortHandler) // otherwise a client that is still there would get an empty response
	case c.GRPC && overdue(c, r):
		// The target knows the deadline of the call, too, and ends the call a moment before the client does.
		p.fail(c, w, ReasonTimeout, errs.Wrap(errs.GatewayTimeout, err, "the deadline of the call has passed"))
	default:
		reason, err := said(err)
		p.fail(c, w, reason, err)
	}
}

// deadlineSlack is how much earlier than here the deadline of a call may pass elsewhere.
const deadlineSlack = 5 * time.Millisecond

// overdue reports whether the deadline of a gRPC call has passed.
func overdue(c *call.Call, r *http.Request) bool {
	timeout, ok := grpcTimeout(r.Header.Get("Grpc-Timeout"))
	return ok && c.Since() >= timeout-deadlineSlack
}

var grpcUnits = map[byte]time.Duration{
	'H': time.Hour, 'M': time.Minute, 'S': time.Second, 'm': time.Millisecond, 'u': time.Microsecond, 'n': time.Nanosecond,
}

// grpcTimeout parses the grpc-timeout field: up to eight digits and a unit.
func grpcTimeout(text string) (time.Duration, bool) {
	if len(text) < 2 || len(text) > 9 {
		return 0, false
	}
	unit, known := grpcUnits[text[len(text)-1]]
	n, err := strconv.ParseUint(text[:len(text)-1], 10, 32)
	return time.Duration(n) * unit, known && err == nil
}

// said returns what a client is told about a call that got no response.
func said(err error) (reason string, told error) {
	if e, ok := errors.AsType[*upstream.Error](err); ok {
		if e.Status == http.StatusGatewayTimeout {
			return ReasonTimeout, errs.Wrap(errs.GatewayTimeout, e.Cause, "%s", e.Detail)
		}
		return ReasonUpstream, errs.Wrap(errs.BadGateway, e.Cause, "%s", e.Detail)
	}
	switch errs.KindOf(err) {
	case errs.Unavailable:
		return ReasonNoEndpoint, err
	case errs.TooLarge:
		return ReasonTooLarge, err
	}
	return ReasonUpstream, errs.Wrap(errs.BadGateway, err, "the call could not be passed on")
}

// buffers is a pool of the buffers for copying bodies.
type buffers struct{ pool sync.Pool }

const bufferSize = 32 << 10

// Get implements httputil.BufferPool.
func (b *buffers) Get() []byte {
	if p, ok := b.pool.Get().(*[bufferSize]byte); ok {
		return p[:]
	}
	return new([bufferSize]byte)[:]
}

// Put implements httputil.BufferPool.
func (b *buffers) Put(p []byte) { b.pool.Put((*[bufferSize]byte)(p)) }

// debugLog logs at debug level what net/http reports about broken-off calls: the access record has them.
type debugLog struct{ log *slog.Logger }

// Write implements io.Writer.
func (d debugLog) Write(p []byte) (int, error) {
	d.log.Debug("call broke off", "error", strings.TrimSpace(string(p)))
	return len(p), nil
}

var _ io.Writer = debugLog{}
