package tenure

import "github.com/prometheus/client_golang/prometheus"

// The reasons for ending calls, as values of the metric's label.
const (
	access     = "access"
	credential = "credential"
	instance   = "instance"
	stopping   = "stopping"
)

type metrics struct {
	ended map[string]prometheus.Counter
	took  prometheus.Histogram
}

func newMetrics(reg prometheus.Registerer, count func() float64) *metrics {
	ended := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "mep_gateway_calls_ended_total",
		Help: "Calls that were ended while they were under way, by reason: access (the caller may not make them any more), credential (what it proved itself with was taken back), instance (what they lead to is gone), stopping (the gateway stopped).",
	}, []string{"reason"})
	m := &metrics{ended: make(map[string]prometheus.Counter), took: prometheus.NewHistogram(prometheus.HistogramOpts{
		Name: "mep_gateway_calls_review_seconds", Help: "Time to judge all lasting calls once more.",
		Buckets: []float64{.0001, .001, .005, .01, .025, .05, .1, .5, 1},
	})}
	for _, reason := range []string{access, credential, instance, stopping} {
		m.ended[reason] = ended.WithLabelValues(reason)
	}
	reg.MustRegister(ended, m.took, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "mep_gateway_calls_lasting", Help: "Calls under way that are judged again: upgraded connections, and streams in either direction.",
	}, count))
	return m
}
