package record

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	written  prometheus.Counter
	dropped  prometheus.Counter
	failures prometheus.Counter
}

func newMetrics() *metrics {
	return &metrics{
		written: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "mep_gateway_records_total", Help: "Access records written; those to a file and to standard output count twice.",
		}),
		dropped: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "mep_gateway_records_dropped_total",
			Help: "Access records lost: too many waited, the file could not be written, or the gateway had ended.",
		}),
		failures: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "mep_gateway_records_failures_total",
			Help: "Times the file of access records or standard output could not be opened, written or rotated.",
		}),
	}
}

func (m *metrics) register(reg prometheus.Registerer, pending func() float64) {
	if reg == nil {
		return
	}
	reg.MustRegister(m.written, m.dropped, m.failures, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "mep_gateway_records_pending_bytes", Help: "Bytes of access records that wait to be written.",
	}, pending))
}
