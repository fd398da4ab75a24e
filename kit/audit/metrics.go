package audit

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	entries  *prometheus.CounterVec
	failures prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) metrics {
	m := metrics{
		entries: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "mep_audit_entries_total", Help: "Audited acts, by action and result, including denials left out of a flood.",
		}, []string{"action", "result"}),
		failures: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "mep_audit_failures_total", Help: "Times the audit file could not be opened, written or rotated.",
		}),
	}
	if reg != nil {
		reg.MustRegister(m.entries, m.failures)
	}
	return m
}
