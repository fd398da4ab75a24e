package httpx

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"
	"strconv"
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

// NewRouter makes a gin engine with the middleware every listener has, in its order: request id, request log and metrics,
// recovery, bounds on URI and body. Unknown paths and methods are problem documents too. Limits are read from limits on every
// request, so that they can change.
func NewRouter(listener string, log *slog.Logger, m *Metrics, limits func() Limits) *gin.Engine {
	releaseMode()
	e := gin.New()
	e.HandleMethodNotAllowed = true
	e.RedirectTrailingSlash = false
	e.RedirectFixedPath = false
	e.UseRawPath = true
	e.UnescapePathValues = true
	e.ContextWithFallback = true
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

const requestIDKey = "mep.request"

// requestIDs are a random prefix for each process and a counter: unique without asking for randomness every time.
var requestIDs = struct {
	prefix string
	next   atomic.Uint64
}{prefix: randomHex(6)}

func randomHex(n int) string {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails
	return hex.EncodeToString(b)
}

func newRequestID() string {
	var b [32]byte
	out := append(b[:0], requestIDs.prefix...)
	out = append(out, '-')
	return string(strconv.AppendUint(out, requestIDs.next.Add(1), 36))
}

// RequestID returns the id of the request: the client's X-Request-Id when it is acceptable, else one made here.
func RequestID(c *gin.Context) string { return c.GetString(requestIDKey) }

func acceptableID(id string) bool {
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

type series struct {
	duration prometheus.Observer
	mu       sync.RWMutex
	byStatus map[int]prometheus.Counter
}

// observe gives each request its id, counts it, and writes its one line to the log.
func observe(listener string, log *slog.Logger, m *Metrics) gin.HandlerFunc {
	log = log.With("listener", listener)
	inFlight := m.inFlight.WithLabelValues(listener)
	type key struct{ route, method string }
	var known sync.Map // key → *series
	find := func(k key) *series {
		if s, ok := known.Load(k); ok {
			return s.(*series)
		}
		s, _ := known.LoadOrStore(k, &series{
			duration: m.duration.WithLabelValues(listener, k.route, k.method), byStatus: make(map[int]prometheus.Counter),
		})
		return s.(*series)
	}
	return func(c *gin.Context) {
		start := time.Now()
		id := c.Request.Header.Get(RequestIDHeader)
		if !acceptableID(id) {
			id = newRequestID()
		}
		c.Set(requestIDKey, id)
		c.Writer.Header()[RequestIDHeader] = []string{id}
		inFlight.Inc()
		c.Next()
		inFlight.Dec()

		took := time.Since(start)
		k := key{c.FullPath(), c.Request.Method}
		if k.route == "" {
			k.route = "none"
		}
		if !standardMethod(k.method) {
			k.method = "other"
		}
		s := find(k)
		status := c.Writer.Status()
		s.duration.Observe(took.Seconds())
		s.count(status, func() prometheus.Counter {
			return m.requests.WithLabelValues(listener, k.route, k.method, strconv.Itoa(status))
		})
		writeLine(c, log, id, k.route, status, took)
	}
}

func (s *series) count(status int, fresh func() prometheus.Counter) {
	s.mu.RLock()
	c, ok := s.byStatus[status]
	s.mu.RUnlock()
	if !ok {
		s.mu.Lock()
		if c, ok = s.byStatus[status]; !ok {
			c = fresh()
			s.byStatus[status] = c
		}
		s.mu.Unlock()
	}
	c.Inc()
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

func writeLine(c *gin.Context, log *slog.Logger, id, route string, status int, took time.Duration) {
	level := slog.LevelInfo
	if status >= 500 {
		level = slog.LevelError
	}
	if !log.Enabled(context.Background(), level) {
		return
	}
	attrs := make([]slog.Attr, 0, 10)
	attrs = append(attrs,
		slog.String("request_id", id),
		slog.String("method", c.Request.Method),
		slog.String("path", c.Request.URL.Path),
		slog.String("route", route),
		slog.Int("status", status),
		slog.Int("bytes", max(0, c.Writer.Size())),
		slog.Int64("micros", took.Microseconds()),
		slog.String("remote", c.Request.RemoteAddr),
	)
	if err, ok := c.Get(errorKey); ok {
		attrs = append(attrs, slog.String("error", err.(error).Error()))
	}
	log.LogAttrs(context.Background(), level, "request", attrs...)
}

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

func bounds(limits func() Limits) gin.HandlerFunc {
	return func(c *gin.Context) {
		l := limits()
		if len(c.Request.RequestURI) > l.URI {
			Fail(c, errs.New(errs.URITooLong, "the request target is longer than %d bytes", l.URI))
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
