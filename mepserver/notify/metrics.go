package notify

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/openmep/mep/mepserver/callback"
)

type metrics struct {
	pending               prometheus.Gauge
	attempts              *prometheus.CounterVec
	duration, delay       prometheus.Histogram
	dead, overflows       prometheus.Counter
	ok, status, transport prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		pending: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "mep_notifications_pending", Help: "Notifications that wait for their subscribers.",
		}),
		attempts: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "mep_notifications_attempts_total", Help: "Calls to subscribers, by result: delivered, status (not 2xx), failed (no answer).",
		}, []string{"result"}),
		duration: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "mep_notifications_call_seconds", Help: "Duration of calls to subscribers.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5},
		}),
		delay: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "mep_notifications_delay_seconds", Help: "Time from a change until its subscriber had acknowledged it.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .5, 1, 5, 30, 120, 600, 3600},
		}),
		dead: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "mep_notifications_dead_letters_total", Help: "Notifications given up.",
		}),
		overflows: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "mep_notifications_overflows_total", Help: "Times a queue was full and changes were merged instead.",
		}),
	}
	m.ok, m.status, m.transport = m.attempts.WithLabelValues("delivered"), m.attempts.WithLabelValues("status"), m.attempts.WithLabelValues("failed")
	reg.MustRegister(m.pending, m.attempts, m.duration, m.delay, m.dead, m.overflows)
	return m
}

func (m *metrics) attempt(err error) {
	var status *callback.StatusError
	switch {
	case err == nil:
		m.ok.Inc()
	case errors.As(err, &status):
		m.status.Inc()
	default:
		m.transport.Inc()
	}
}
