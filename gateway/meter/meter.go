// Package meter counts calls by route, service and consumer. Strangers can choose names, so only a configured number of services and
// consumers get a series of their own; the others share one.
package meter

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Other is the label value for names without a series of their own.
const Other = "(other)"

// Series counts calls by status class: index 1 is 1xx.
type Series struct{ classes [6]prometheus.Counter }

// Count counts a call.
func (s *Series) Count(status int) { s.classes[min(max(status/100, 0), 5)].Inc() }

// Route is the series of a route, with durations.
type Route struct {
	Series
	duration prometheus.Observer
}

// Observe counts a call and its duration.
func (r *Route) Observe(status int, took time.Duration) {
	r.Count(status)
	r.duration.Observe(took.Seconds())
}

// Meter holds the metrics of calls.
type Meter struct {
	routes, services, consumers *prometheus.CounterVec
	durations                   *prometheus.HistogramVec
	Refused                     *prometheus.CounterVec
	InFlight                    prometheus.Gauge

	mostServices, mostConsumers atomic.Int64
	mu                          sync.RWMutex
	byRoute                     map[string]*Route
	byService                   map[string]*Series
	byConsumer                  map[string]*Series
}

// classes are the values of the label class.
var classes = [6]string{"none", "1xx", "2xx", "3xx", "4xx", "5xx"}

// New registers the metrics. services and consumers limit how many of each get a series of their own.
func New(services, consumers int, reg prometheus.Registerer) *Meter {
	m := &Meter{
		routes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "mep_gateway_requests_total", Help: "Calls that ended, by route (services and instances stand for those of the registry) and class of status; none: the client went away before there was one.",
		}, []string{"route", "class"}),
		services: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "mep_gateway_service_requests_total", Help: "Calls to services, by serName and class of status.",
		}, []string{"service", "class"}),
		consumers: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "mep_gateway_consumer_requests_total", Help: "Calls of consumers, by name and class of status.",
		}, []string{"consumer", "class"}),
		durations: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "mep_gateway_request_duration_seconds", Help: "Time to answer a call to its end, by route.",
			Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60},
		}, []string{"route"}),
		Refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "mep_gateway_refused_total", Help: "Calls the gateway answered by itself, by reason.",
		}, []string{"reason"}),
		InFlight: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "mep_gateway_requests_in_flight", Help: "Calls under way.",
		}),
		byRoute: make(map[string]*Route), byService: make(map[string]*Series), byConsumer: make(map[string]*Series),
	}
	m.Bound(services, consumers)
	reg.MustRegister(m.routes, m.services, m.consumers, m.durations, m.Refused, m.InFlight)
	return m
}

// Bound changes the limits on services and consumers with a series of their own.
func (m *Meter) Bound(services, consumers int) {
	m.mostServices.Store(int64(services))
	m.mostConsumers.Store(int64(consumers))
}

// Route returns the series of a route. The number of routes needs no limit here: managers name them, and may store a limited number.
func (m *Meter) Route(name string) *Route {
	m.mu.Lock()
	defer m.mu.Unlock()
	r := m.byRoute[name]
	if r == nil {
		r = &Route{Series: *newSeries(m.routes, name), duration: m.durations.WithLabelValues(name)}
		m.byRoute[name] = r
	}
	return r
}

// Service returns the series of a service.
func (m *Meter) Service(name string) *Series {
	return m.find(m.byService, m.services, name, m.mostServices.Load())
}

// Consumer returns the series of a consumer.
func (m *Meter) Consumer(name string) *Series {
	return m.find(m.byConsumer, m.consumers, name, m.mostConsumers.Load())
}

func (m *Meter) find(known map[string]*Series, vec *prometheus.CounterVec, name string, most int64) *Series {
	m.mu.RLock()
	s := known[name]
	if s == nil && int64(len(known)) > most { // one more, for Other
		s = known[Other]
	}
	m.mu.RUnlock()
	if s != nil {
		return s
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if known[name] == nil && int64(len(known)) >= most {
		name = Other
	}
	if s = known[name]; s == nil {
		s = newSeries(vec, name)
		known[name] = s
	}
	return s
}

func newSeries(vec *prometheus.CounterVec, name string) *Series {
	s := &Series{}
	for i, class := range classes {
		s.classes[i] = vec.WithLabelValues(name, class)
	}
	return s
}
