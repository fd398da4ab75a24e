package pki

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	expiry  *prometheus.GaugeVec
	bad     *prometheus.GaugeVec
	reloads *prometheus.CounterVec
}

// newMetrics registers the metrics, or reuses those that were registered before.
func newMetrics(reg prometheus.Registerer) *metrics {
	return &metrics{
		expiry: register(reg, prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "mep_tls_certificate_expiry_timestamp_seconds",
			Help: "When the certificate in force expires, as a Unix time; of a set of CAs, when the first of them does.",
		}, []string{"name"})),
		bad: register(reg, prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "mep_tls_certificate_bad",
			Help: "1 while the certificate on disk cannot be used or renewed, else 0. Alarm on it: the log says what is wrong.",
		}, []string{"name"})),
		reloads: register(reg, prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "mep_tls_certificate_reloads_total",
			Help: "Certificates that were put in the place of the one in force, by result: ok, failed (the one in force stayed).",
		}, []string{"name", "result"})),
	}
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
