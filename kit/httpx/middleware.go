package httpx

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/openmep/mep/kit/errs"
)

// Metrics counts the requests of all listeners of a process.
type Metrics struct {
	requests *prometheus.CounterVec
	duration *prometheus.HistogramVec
	inFlight *prometheus.GaugeVec
	panics   prometheus.Counter
}

// NewMetrics registers the HTTP metrics.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	m := &Metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "mep_http_requests_total", Help: "Requests answered, by listener, route, method and status.",
		}, []string{"listener", "route", "method", "status"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "mep_http_request_duration_seconds", Help: "Time to answer a request, by listener, route and method.",
			Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5},
		}, []string{"listener", "route", "method"}),
		inFlight: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "mep_http_requests_in_flight", Help: "Requests being answered, by listener.",
		}, []string{"listener"}),
		panics: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "mep_http_panics_total", Help: "Handlers that panicked; each is a bug.",
		}),
	}
	reg.MustRegister(m.requests, m.duration, m.inFlight, m.panics)
	return m
}

// releaseMode keeps gin from printing its routes; the mode is global to the process.
var releaseMode = sync.OnceFunc(func() { gin.SetMode(gin.ReleaseMode) })

// NewRouter returns a gin engine with the middleware every listener has, in this order: request id, request log and metrics, recovery,
// bounds on URI, header and body. Unknown paths and methods are problem documents too. limits is called for every request, so that
// limits can change.
func NewRouter(listener string, log *slog.Logger, m *Metrics, limits func() Limits) *gin.Engine {
	releaseMode()
	e := gin.New()
	e.HandleMethodNotAllowed = true
	e.RedirectTrailingSlash = false
	e.RedirectFixedPath = false
	e.UseRawPath = true
	e.UnescapePathValues = true
	e.ContextWithFallback = true
	_ = e.SetTrustedProxies(nil) // cannot fail without proxies; see TrustProxies
	e.Use(observe(listener, log, m), recovery(log, m), bounds(limits))
	e.NoRoute(Handle(func(c *gin.Context) error {
		return errs.New(errs.NotFound, "there is no resource at %s", c.Request.URL.Path)
	}))
	e.NoMethod(Handle(func(c *gin.Context) error {
		return errs.New(errs.MethodNotAllowed, "%s is not supported here: use %s", c.Request.Method, c.Writer.Header().Get("Allow"))
	}))
	return e
}

// RequestIDHeader carries the id of a request in both directions.
const RequestIDHeader = "X-Request-Id"

// requestIDs combines a random prefix for each process with a counter: unique without reading randomness every time.
var requestIDs = struct {
	prefix string
	next   atomic.Uint64
}{prefix: randomHex(6)}

func randomHex(n int) string {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails
	return hex.EncodeToString(b)
}

// NewRequestID returns an id that no other request of this process has, and probably none of another.
func NewRequestID() string {
	var b [32]byte
	out := append(b[:0], requestIDs.prefix...)
	out = append(out, '-')
	return string(strconv.AppendUint(out, requestIDs.next.Add(1), 36))
}

// RequestID returns the id of the request: the client's X-Request-Id if it is acceptable, else one made here.
func RequestID(c *gin.Context) string {
	if v := c.Writer.Header()[RequestIDHeader]; len(v) == 1 {
		return v[0]
	}
	return ""
}

// AcceptableID reports whether an id given by a client may be used: 1 to 64 letters, digits and characters of "-_.".
func AcceptableID(id string) bool {
	if id == "" || len(id) > 64 {
		return false
	}
	for _, r := range []byte(id) {
		if (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && r != '-' && r != '_' && r != '.' {
			return false
		}
	}
	return true
}

// seriesKey holds the labels of a request's metrics.
type seriesKey struct {
	route, method string
	status        int
}

type series struct {
	duration prometheus.Observer
	requests prometheus.Counter
}

// seriesCache avoids looking up metrics by their labels for every request.
type seriesCache struct {
	listener string
	metrics  *Metrics
	mu       sync.RWMutex
	known    map[seriesKey]series
}

func (c *seriesCache) find(k seriesKey) series {
	c.mu.RLock()
	s, ok := c.known[k]
	c.mu.RUnlock()
	if ok {
		return s
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	s = series{
		duration: c.metrics.duration.WithLabelValues(c.listener, k.route, k.method),
		requests: c.metrics.requests.WithLabelValues(c.listener, k.route, k.method, strconv.Itoa(k.status)),
	}
	c.known[k] = s
	return s
}

// observe gives each request its id, counts it, and writes its one line to the log.
func observe(listener string, log *slog.Logger, m *Metrics) gin.HandlerFunc {
	lines := log.With("listener", listener).Handler()
	inFlight := m.inFlight.WithLabelValues(listener)
	cache := &seriesCache{listener: listener, metrics: m, known: make(map[seriesKey]series)}
	return func(c *gin.Context) {
		start := time.Now()
		id := c.Request.Header.Get(RequestIDHeader)
		if !AcceptableID(id) {
			id = NewRequestID()
		}
		c.Writer.Header()[RequestIDHeader] = []string{id}
		inFlight.Inc()
		c.Next()
		inFlight.Dec()

		end := time.Now()
		took := end.Sub(start)
		k := seriesKey{c.FullPath(), c.Request.Method, c.Writer.Status()}
		if k.route == "" {
			k.route = "none"
		}
		if !standardMethod(k.method) {
			k.method = "other"
		}
		s := cache.find(k)
		s.duration.Observe(took.Seconds())
		s.requests.Inc()
		writeLine(c, lines, id, end, took)
	}
}

// standardMethod keeps invented methods out of the metrics' labels.
func standardMethod(m string) bool {
	switch m {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete,
		http.MethodOptions, http.MethodConnect, http.MethodTrace:
		return true
	}
	return false
}

// writeLine passes the line straight to the handler: a Logger would look up its caller first, which takes as long as formatting the line.
func writeLine(c *gin.Context, lines slog.Handler, id string, end time.Time, took time.Duration) {
	level := slog.LevelInfo
	switch status := c.Writer.Status(); {
	case status == http.StatusInternalServerError:
		level = slog.LevelError
	case status > http.StatusInternalServerError:
		level = slog.LevelWarn
	}
	if !lines.Enabled(c.Request.Context(), level) {
		return
	}
	// Added all at once: a record allocates for what it is given, and again for what comes later.
	attrs := append(make([]slog.Attr, 0, 9),
		slog.String("request_id", id),
		slog.String("method", c.Request.Method),
		slog.String("path", Shown(c.Request.URL.Path)),
		slog.Int("status", c.Writer.Status()),
		slog.Int("bytes", max(0, c.Writer.Size())),
		slog.Int64("micros", took.Microseconds()),
		slog.String("remote", c.Request.RemoteAddr),
	)
	if caller, ok := c.Get(CallerKey); ok {
		attrs = append(attrs, slog.String("caller", caller.(fmt.Stringer).String()))
	}
	if err, ok := c.Get(errorKey); ok {
		attrs = append(attrs, slog.String("error", err.(error).Error()))
	}
	line := slog.NewRecord(end, level, "request", 0)
	line.AddAttrs(attrs...)
	_ = lines.Handle(c.Request.Context(), line) // a log that cannot be written must not stop the platform
}

// Shown returns a path, or a text with one, as it may appear in the log: without what looks like a token or an API key in the wrong place.
func Shown(path string) string {
	if !strings.Contains(path, "mepk_") && !strings.Contains(path, "eyJ") {
		return path
	}
	segments := strings.Split(path, "/")
	for i, s := range segments {
		if strings.HasPrefix(s, "mepk_") || strings.HasPrefix(s, "eyJ") {
			segments[i] = "***"
		}
	}
	return strings.Join(segments, "/")
}

// CallerKey is the context key of a request's caller, for the request log and the handlers. The value is a fmt.Stringer.
const CallerKey = "mep.caller"

// recovery turns a panic into an internal error.
func recovery(log *slog.Logger, m *Metrics) gin.HandlerFunc {
	return func(c *gin.Context) {
		defer func() {
			p := recover()
			if p == nil {
				return
			}
			if p == http.ErrAbortHandler { //nolint:errorlint // net/http compares it like this too
				panic(p)
			}
			m.panics.Inc()
			log.Error("handler panicked", "request_id", RequestID(c), "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
			Fail(c, fmt.Errorf("panic: %v", p))
		}()
		c.Next()
	}
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

func bounds(limits func() Limits) gin.HandlerFunc {
	return func(c *gin.Context) {
		l := limits()
		if len(c.Request.RequestURI) > l.URI {
			Fail(c, errs.New(errs.URITooLong, "the request target is longer than %d bytes", l.URI))
			return
		}
		if size := headerSize(c.Request.Header); size > l.Header {
			Fail(c, errs.New(errs.HeaderTooLarge, "the header fields have %d bytes, more than %d", size, l.Header))
			return
		}
		if c.Request.ContentLength > l.Body {
			c.Header("Connection", "close")
			Fail(c, errs.New(errs.TooLarge, "the body is larger than %d bytes", l.Body))
			return
		}
		if c.Request.Body != http.NoBody {
			c.Request.Body = http.MaxBytesReader(c.Writer, c.Request.Body, l.Body)
		}
		c.Next()
	}
}
