// Package ops serves the operations listener: health, readiness, metrics and, in development, profiles.
package ops

import (
	"maps"
	"net/http"
	"net/http/pprof"
	"net/netip"
	"slices"
	"sort"
	"sync"

	"github.com/gin-gonic/gin"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/openmep/mep/kit/httpx"
)

// Note names a part of the platform and says what is wrong with it.
type Note struct {
	Name   string `json:"name"`
	Reason string `json:"reason"`
}

// Readiness is the response of /readyz.
type Readiness struct {
	// Ready says that everything that was started is able to work.
	Ready bool `json:"ready"`
	// Listeners maps the names of the listeners to their URLs.
	Listeners map[string]string `json:"listeners"`
	// NotReady lists what is not ready yet.
	NotReady []Note `json:"notReady,omitempty"`
	// Degraded lists what works with restrictions.
	Degraded []Note `json:"degraded,omitempty"`
}

// Health collects what the parts of a process report about themselves.
type Health struct {
	mu        sync.Mutex
	listeners map[string]string
	bound     []netip.AddrPort
	checks    map[string]Check
	stopping  bool
}

// Check returns why a part is not ready, or works with restrictions; both are empty if all is well.
type Check func() (notReady, degraded string)

// NewHealth returns a Health without checks.
func NewHealth() *Health {
	return &Health{listeners: make(map[string]string), checks: make(map[string]Check)}
}

// Listener records the URL of a listener.
func (h *Health) Listener(name, url string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.listeners[name] = url
}

// Bound records the address a listener is bound to, unchanged: unspecified, if every address of the machine reaches it.
func (h *Health) Bound(addr netip.AddrPort) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.bound = append(h.bound, addr)
}

// Addresses returns the recorded addresses.
func (h *Health) Addresses() []netip.AddrPort {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.bound)
}

// Listeners returns a copy of the recorded listeners.
func (h *Health) Listeners() map[string]string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return maps.Clone(h.listeners)
}

// Check adds a named check.
func (h *Health) Check(name string, check Check) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.checks[name] = check
}

// Stopping makes the process not ready from now on.
func (h *Health) Stopping() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.stopping = true
}

// Readiness runs every check.
func (h *Health) Readiness() Readiness {
	r := Readiness{Listeners: h.Listeners()}
	h.mu.Lock()
	checks := maps.Clone(h.checks)
	if h.stopping {
		r.NotReady = append(r.NotReady, Note{"process", "is stopping"})
	}
	h.mu.Unlock()
	for name, check := range checks {
		notReady, degraded := check()
		if notReady != "" {
			r.NotReady = append(r.NotReady, Note{name, notReady})
		}
		if degraded != "" {
			r.Degraded = append(r.Degraded, Note{name, degraded})
		}
	}
	for _, notes := range [][]Note{r.NotReady, r.Degraded} {
		sort.Slice(notes, func(i, j int) bool { return notes[i].Name < notes[j].Name })
	}
	r.Ready = len(r.NotReady) == 0
	return r
}

// Mount adds the common resources to a router. Profiles are served only if profiles is true.
func Mount(r *gin.Engine, h *Health, reg prometheus.Gatherer, profiles bool) {
	r.GET("/healthz", func(c *gin.Context) { c.String(http.StatusOK, "ok") })
	r.GET("/readyz", httpx.Handle(func(c *gin.Context) error {
		ready := h.Readiness()
		status := http.StatusOK
		if !ready.Ready {
			status = http.StatusServiceUnavailable
		}
		return httpx.JSON(c, status, ready)
	}))
	r.GET("/metrics", gin.WrapH(promhttp.HandlerFor(reg, promhttp.HandlerOpts{MaxRequestsInFlight: 4})))
	if profiles {
		r.GET("/debug/pprof/*name", func(c *gin.Context) {
			switch c.Param("name") {
			case "/cmdline":
				pprof.Cmdline(c.Writer, c.Request)
			case "/profile":
				pprof.Profile(c.Writer, c.Request)
			case "/symbol":
				pprof.Symbol(c.Writer, c.Request)
			case "/trace":
				pprof.Trace(c.Writer, c.Request)
			default:
				pprof.Index(c.Writer, c.Request)
			}
		})
	}
}
