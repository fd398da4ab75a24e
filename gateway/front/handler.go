package front

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/openmep/mep/api/gateway"
	"github.com/openmep/mep/gateway/call"
	"github.com/openmep/mep/gateway/match"
	"github.com/openmep/mep/gateway/meter"
	"github.com/openmep/mep/gateway/proxy"
	"github.com/openmep/mep/gateway/record"
	"github.com/openmep/mep/gateway/rule"
	"github.com/openmep/mep/gateway/stats"
	"github.com/openmep/mep/gateway/table"
	"github.com/openmep/mep/gateway/tenure"
	"github.com/openmep/mep/kit/errs"
	"github.com/openmep/mep/kit/httpx"
	"github.com/openmep/mep/kit/telemetry"
)

// The reasons that this package gives for answering a call itself, or for breaking it off.
const (
	ReasonConnections = "connections"
	ReasonBounds      = "bounds"
	ReasonPath        = "path"
	ReasonNoRoute     = "no-route"
	ReasonMethod      = "method"
	ReasonPanic       = "panic"
	ReasonStarting    = "starting"
	ReasonBrokeOff    = "broke-off"
)

// Settings holds the settings that may change while calls are in flight. They are replaced as a whole.
type Settings struct {
	// URI and Header are the maximum sizes of the request target and the header, in bytes.
	URI, Header int
	// Connections is how many connections there may be before calls get 429.
	Connections int
	// BodyIdle is how long a client may be silent in the middle of a body, or accept nothing of the answer.
	BodyIdle time.Duration
	// Proxies are the networks of proxies that are trusted to state the client's address.
	Proxies []netip.Prefix
	// RequestIDs lets clients choose the ids of their requests.
	RequestIDs bool
	// Underscores keeps header fields with "_" in their names.
	Underscores bool
	// Statistics says that calls are counted for the statistics.
	Statistics bool
}

// Handler handles calls. Its fields are set before it serves.
type Handler struct {
	Settings atomic.Pointer[Settings]
	Table    atomic.Pointer[table.Table]
	Open     func() int
	Meter    *meter.Meter
	Records  *record.Log
	Stats    *stats.Stats
	Lasting  *tenure.Calls
	Log      *slog.Logger
	Tracer   *telemetry.Tracer

	ServiceSeries, InstanceSeries, NoSeries *meter.Route
}

// ServeHTTP implements http.Handler.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s := h.Settings.Load()
	c := &call.Call{Context: r.Context(), Start: time.Now(), Seen: h.Lasting.Seen()}
	h.begin(c, w, r, s)
	defer h.finish(c, r)
	if err := h.bounds(c, r, s); err != nil {
		return
	}
	if c.Table.Default() == nil {
		h.Fail(c, &c.Writer, ReasonStarting, errs.New(errs.Unavailable, "the gateway is starting").After(time.Second))
		return
	}
	path := paths.Get().(*match.Path)
	defer func() { path.Reset(); paths.Put(path) }()
	if err := path.Clean(r.Method, origin(r)); err != nil {
		h.Fail(c, &c.Writer, ReasonPath, err)
		return
	}
	if reason, err := h.Route(c, r, path); err != nil {
		h.Fail(c, &c.Writer, reason, err)
		return
	}
	c.Policy.Handler.ServeHTTP(&c.Writer, r.WithContext(c))
}

// origin returns the target of a request as a path (RFC 9112 3.2.2): clients that are configured to use a proxy send the whole URL, whose
// host net/http has taken as that of the request.
func origin(r *http.Request) *url.URL {
	if r.URL.Scheme != "" && r.URL.Host != "" && r.URL.User == nil {
		r.URL = &url.URL{Path: cmp.Or(r.URL.Path, "/"), RawPath: r.URL.RawPath, RawQuery: r.URL.RawQuery}
	}
	return r.URL
}

var paths = sync.Pool{New: func() any { return new(match.Path) }}

// begin records what is known of a call before anything is decided.
func (h *Handler) begin(c *call.Call, w http.ResponseWriter, r *http.Request, s *Settings) {
	h.Meter.InFlight.Inc()
	c.Writer.Reset(w, r, s.BodyIdle)
	c.GRPC = r.ProtoMajor > 1 && isGRPC(r.Header.Get("Content-Type"))
	if r.Body != nil && r.Body != http.NoBody {
		idle := s.BodyIdle
		if c.GRPC {
			idle = 0 // a stream of messages may be silent; pings show whether its connection is alive
		}
		c.Body.Reset(r, w, idle)
		r.Body = &c.Body
		if r.ProtoMajor == 1 {
			_ = http.NewResponseController(w).EnableFullDuplex() // an answer may begin before the request has ended
		}
	}
	id := r.Header.Get(httpx.RequestIDHeader)
	if !s.RequestIDs || !httpx.AcceptableID(id) {
		id = httpx.NewRequestID()
	}
	c.Info.RequestID = id
	r.Header[httpx.RequestIDHeader] = []string{id} // handlers in this process use it, too
	w.Header()[httpx.RequestIDHeader] = []string{id}
	c.Peer = addrOf(r.RemoteAddr)
	c.Info.Client = c.Peer
	if len(s.Proxies) > 0 && rule.Within(c.Peer, s.Proxies) {
		c.Proxied = true
		c.Info.Client = clientBehind(r.Header["X-Forwarded-For"], c.Peer, s.Proxies)
	}
	proxy.Clean(r.Header, c.Proxied, s.Underscores)
	proxy.CleanTrailer(r.Trailer)
	c.Table = h.Table.Load()
}

func addrOf(remote string) netip.Addr {
	ap, err := netip.ParseAddrPort(remote)
	if err != nil {
		return netip.IPv6Unspecified()
	}
	return ap.Addr().WithZone("").Unmap()
}

// clientBehind returns the last address of the chain that is not a trusted proxy.
func clientBehind(fields []string, peer netip.Addr, proxies []netip.Prefix) netip.Addr {
	client := peer
	chain := strings.Split(strings.Join(fields, ","), ",")
	for _, hop := range slices.Backward(chain) {
		hop = strings.TrimSpace(hop)
		a, err := netip.ParseAddr(hop)
		if ap, perr := netip.ParseAddrPort(hop); err != nil && perr == nil {
			a, err = ap.Addr(), nil // some proxies add the port
		}
		if err != nil {
			break
		}
		client = a.WithZone("").Unmap()
		if !rule.Within(client, proxies) {
			break
		}
	}
	return client
}

// bounds refuses requests that are too large or have a method that is not passed on, and all calls while there are too many connections.
func (h *Handler) bounds(c *call.Call, r *http.Request, s *Settings) error {
	var err error
	reason := ReasonBounds
	switch {
	case h.Open() > s.Connections:
		reason = ReasonConnections
		c.Writer.Header()["Connection"] = []string{"close"}
		err = errs.New(errs.TooManyRequests, "there are too many connections: try again later").After(time.Second)
	case len(r.RequestURI) > s.URI:
		err = errs.New(errs.URITooLong, "the request target is longer than %d bytes", s.URI)
	case headerSize(r.Header) > s.Header:
		err = errs.New(errs.HeaderTooLarge, "the header fields have more than %d bytes", s.Header)
	default:
		reason, err = ReasonMethod, Method(r.Method)
	}
	if err != nil {
		h.Fail(c, &c.Writer, reason, err)
	}
	return err
}

// Method refuses the methods that are not passed on: CONNECT would open a tunnel, and TRACE would show what the gateway adds.
func Method(method string) error {
	if method == http.MethodConnect || method == http.MethodTrace {
		return errs.New(errs.MethodNotAllowed, "%s is not supported by this gateway", method)
	}
	return nil
}

func headerSize(h http.Header) int {
	size := 0
	for name, values := range h {
		for _, v := range values {
			size += len(name) + len(v) + len(": \r\n")
		}
	}
	return size
}

// Fail answers a call with an error, for the given reason.
func (h *Handler) Fail(c *call.Call, w http.ResponseWriter, reason string, err error) {
	c.Reason, c.Fault = reason, err
	h.Refused(reason)
	h.Log.Debug("call refused", "request_id", c.Info.RequestID, "reason", reason, "error", httpx.Shown(err.Error()))
	switch {
	case c.Writer.Status != 0: // too late: the response has begun
	case c.GRPC:
		grpcProblem(c, w, err)
	default:
		httpx.Problem(w, c.Info.RequestID, err)
	}
}

// Refused counts an answer by the gateway itself.
func (h *Handler) Refused(reason string) { h.Meter.Refused.WithLabelValues(reason).Inc() }

// Gone records that the client went away before there was an answer.
func (h *Handler) Gone(c *call.Call, err error) {
	c.Reason, c.Fault = proxy.ReasonClientGone, err
	c.Writer.Status = proxy.StatusClientGone
	h.Refused(proxy.ReasonClientGone)
}

// finish records the outcome of a call.
func (h *Handler) finish(c *call.Call, r *http.Request) {
	p := recover()
	if p != nil && p != http.ErrAbortHandler { //nolint:errorlint // net/http compares it like this too
		h.Log.Error("handler panicked", "request_id", c.Info.RequestID, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
		if c.Writer.Status != 0 {
			p = http.ErrAbortHandler // a response that has begun must not look complete
		} else {
			p = nil
		}
		h.Fail(c, &c.Writer, ReasonPanic, errors.New("panic"))
	} else if e := c.Ending(); e != nil && c.Reason == "" {
		c.Reason, c.Fault = e.Reason, e.Err
	} else if p != nil && c.Reason == "" {
		c.Reason = ReasonBrokeOff
		h.Refused(ReasonBrokeOff)
	}
	if c.Writer.Status != 0 && (p != nil || c.Body.Unread()) {
		// Send what there is: an answer does not wait for the rest of a body that is not needed, and the client gets the beginning of an
		// answer that breaks off.
		_ = http.NewResponseController(c.Writer.ResponseWriter).Flush()
	}
	_ = c.Body.Close()
	c.Writer.End()
	took := c.Since()
	h.Meter.InFlight.Dec()
	h.count(c, r, took)
	h.record(c, r, took)
	if p != nil {
		panic(p) // net/http breaks off the connection
	}
}

func (h *Handler) count(c *call.Call, r *http.Request, took time.Duration) {
	series := h.NoSeries
	switch {
	case c.Route != nil:
		series = c.Route.Series
	case c.Group != nil:
		series = h.ServiceSeries
	case c.Instance != nil:
		series = h.InstanceSeries
	}
	status := c.Writer.Status
	series.Observe(status, took)
	if c.Info.Service != "" {
		h.Meter.Service(c.Info.Service).Count(status)
	}
	if c.Info.Consumer != "" {
		h.Meter.Consumer(c.Info.Consumer).Count(status)
	}
	if c.Policy != nil && h.Settings.Load().Statistics {
		service := c.Info.Service
		if service == "" && c.Route != nil && c.Route.ID == gateway.RouteMp1 {
			service = mp1Call(r)
		}
		if service != "" {
			h.Stats.Count(service, c.Info.Consumer, stats.Outcome{
				Status: status, Took: took, Bytes: c.Writer.Bytes,
				// A call that was answered and broke off later was not refused.
				Refused: c.Reason != "" && c.FirstByte == 0 && status < http.StatusInternalServerError,
			})
		}
	}
}

func (h *Handler) record(c *call.Call, r *http.Request, took time.Duration) {
	if h.Records == nil {
		return
	}
	e := record.Entry{
		Time: c.Start, RequestID: c.Info.RequestID, Consumer: c.Info.Consumer, Via: c.Info.Via, Service: c.Info.Service,
		Route: c.Info.Route, Method: r.Method, Host: r.Host, Path: r.URL.EscapedPath(), Query: r.URL.RawQuery, Proto: r.Proto,
		Reason: c.Reason, UserAgent: r.UserAgent(), TraceID: h.Tracer.TraceID(c.Context), Client: c.Info.Client,
		Status: c.Writer.Status, Attempts: c.Attempt.Attempts, Auth: max(0, c.Admitted-c.Held), Held: c.Held, FirstByte: c.FirstByte, Total: took,
		BytesIn: c.Received(), BytesOut: c.Writer.Bytes,
	}
	if c.Instance != nil {
		e.Instance = c.Instance.ID
	}
	if ep := c.Attempt.Endpoint; ep != nil {
		e.Upstream = ep.Host()
		if e.Instance == "" && c.Group != nil {
			e.Instance = c.Group.InstanceOf(ep)
		}
	}
	h.Records.Write(&e)
}
