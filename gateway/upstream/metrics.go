package upstream

import (
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	ok, badStatus, cancelled prometheus.Counter
	clientFaults             prometheus.Counter
	byFailure                [failReset + 1]prometheus.Counter
	ejections, retries       prometheus.Counter
	refusals                 prometheus.Counter
}

func newMetrics(m *Manager, reg prometheus.Registerer) *metrics {
	attempts := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "mep_gateway_upstream_attempts_total", Help: "Attempts to call an endpoint, by result.",
	}, []string{"result"})
	x := &metrics{
		ok: attempts.WithLabelValues("ok"), badStatus: attempts.WithLabelValues("bad_status"),
		cancelled: attempts.WithLabelValues("cancelled"), clientFaults: attempts.WithLabelValues("client_fault"),
		ejections: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "mep_gateway_upstream_ejections_total", Help: "Endpoints that were left out after failures.",
		}),
		retries: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "mep_gateway_upstream_retries_total", Help: "Requests that were sent again because they could not be delivered.",
		}),
		refusals: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "mep_gateway_upstream_refusals_total", Help: "Attempts that ended because the address may not be called.",
		}),
	}
	for f, name := range map[failure]string{
		failConnect: "connect_failed", failConnectTimeout: "connect_timeout", failRefused: "refused", failTimeout: "timeout",
		failReset: "reset",
	} {
		x.byFailure[f] = attempts.WithLabelValues(name)
	}
	if reg != nil {
		reg.MustRegister(attempts, x.ejections, x.retries, x.refusals, &gauges{m})
	}
	return x
}

func (x *metrics) responded(status int) {
	switch status {
	case http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		x.badStatus.Inc()
	default:
		x.ok.Inc()
	}
}

func (x *metrics) failed(f failure) {
	x.byFailure[f].Inc()
	if f == failRefused {
		x.refusals.Inc()
	}
}

var endpointsDesc = prometheus.NewDesc("mep_gateway_upstream_endpoints", "Endpoints that calls may go to, by state.",
	[]string{"state"}, nil)

// gauges counts endpoints when it is collected.
type gauges struct{ m *Manager }

// Describe implements prometheus.Collector.
func (g *gauges) Describe(ch chan<- *prometheus.Desc) { ch <- endpointsDesc }

// Collect implements prometheus.Collector.
func (g *gauges) Collect(ch chan<- prometheus.Metric) {
	count := map[string]int{StateUp: 0, StateEjected: 0, StateUnhealthy: 0, StateRefused: 0}
	for _, e := range g.m.inUse() {
		state, _ := e.state()
		count[state]++
	}
	for state, n := range count {
		ch <- prometheus.MustNewConstMetric(endpointsDesc, prometheus.GaugeValue, float64(n), state)
	}
}

// inUse returns the endpoints that were not released.
func (m *Manager) inUse() []*Endpoint {
	m.mu.Lock()
	defer m.mu.Unlock()
	list := make([]*Endpoint, 0, len(m.endpoints))
	for _, e := range m.endpoints {
		if e.references > 0 {
			list = append(list, e)
		}
	}
	return list
}
