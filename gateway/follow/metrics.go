package follow

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/openmep/mep/gateway/table"
)

type metrics struct {
	builds     prometheus.Histogram
	services   prometheus.Gauge
	routes     prometheus.Gauge
	refused    prometheus.Gauge
	revision   prometheus.Gauge
	unreadable prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		builds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "mep_gateway_table_seconds", Help: "Time to make a route table after a change.",
			Buckets: []float64{.0001, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1},
		}),
		services: prometheus.NewGauge(prometheus.GaugeOpts{Name: "mep_gateway_services", Help: "Services by name that calls are routed to."}),
		routes:   prometheus.NewGauge(prometheus.GaugeOpts{Name: "mep_gateway_routes", Help: "Static routes and those of the platform in use."}),
		refused: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "mep_gateway_definitions_refused", Help: "Routes and policies whose latest definition is not in use.",
		}),
		revision: prometheus.NewGauge(prometheus.GaugeOpts{Name: "mep_gateway_table_revision", Help: "Revision of etcd the route table shows."}),
		unreadable: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "mep_gateway_records_unreadable_total", Help: "Services that could not be read and are not routed.",
		}),
	}
	reg.MustRegister(m.builds, m.services, m.routes, m.refused, m.revision, m.unreadable)
	return m
}

func (m *metrics) published(t *table.Table, took time.Duration) {
	m.builds.Observe(took.Seconds())
	m.services.Set(float64(t.Services()))
	m.routes.Set(float64(len(t.Routes())))
	m.refused.Set(float64(len(t.Refused())))
	m.revision.Set(float64(t.Revision))
}
