package reconcile

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are the metrics of one reconciler.
type metrics struct {
	applied, refused, failed prometheus.Counter
	duration                 prometheus.Observer
	pending, rulesRefused    prometheus.Gauge
	resyncs                  *prometheus.CounterVec
}

const label = "reconciler"

// newMetrics registers the metrics, or reuses those that another reconciler has registered.
func newMetrics(reg prometheus.Registerer, name string) *metrics {
	applies := register(reg, prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "mep_reconcile_applies_total",
		Help: "Sets of rules brought over, by result: applied, refused (some of the rules are not in force), failed (no usable answer).",
	}, []string{label, "result"}))
	m := &metrics{
		applied: applies.WithLabelValues(name, "applied"),
		refused: applies.WithLabelValues(name, "refused"),
		failed:  applies.WithLabelValues(name, "failed"),
		duration: register(reg, prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "mep_reconcile_duration_seconds", Help: "Time it took to bring a set of rules over.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10},
		}, []string{label})).WithLabelValues(name),
		pending: register(reg, prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "mep_reconcile_pending",
			Help: "App instances whose rules have not been brought over and reported on yet; 0 where this process does not lead.",
		}, []string{label})).WithLabelValues(name),
		rulesRefused: register(reg, prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "mep_reconcile_failed_rules",
			Help: "Rules that the other side does not put in force; 0 where this process does not lead.",
		}, []string{label})).WithLabelValues(name),
		resyncs: register(reg, prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "mep_reconcile_resyncs_total",
			Help: "Times the other side was told everything, by reason: start (of a term), interval, state (it lost what it had been told).",
		}, []string{label, "reason"})).MustCurryWith(prometheus.Labels{label: name}),
	}
	for _, reason := range []string{resyncStart, resyncInterval, resyncState} {
		m.resyncs.WithLabelValues(reason)
	}
	return m
}

// rest resets the gauges, because this process does not lead.
func (m *metrics) rest() {
	m.pending.Set(0)
	m.rulesRefused.Set(0)
}

func register[C prometheus.Collector](reg prometheus.Registerer, c C) C {
	if reg == nil {
		return c
	}
	if err := reg.Register(c); err != nil {
		if before, ok := errors.AsType[prometheus.AlreadyRegisteredError](err); ok {
			if same, ok := before.ExistingCollector.(C); ok {
				return same
			}
		}
		panic(err)
	}
	return c
}
