package telemetry

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
)

// Registry registers and gathers metrics.
type Registry interface {
	prometheus.Registerer
	prometheus.Gatherer
}

// NewRegistry returns a metrics registry with the metrics of the Go runtime, the process and the release.
func NewRegistry(version string) Registry {
	reg := prometheus.NewRegistry()
	Common(reg, version)
	return reg
}

// Common registers the metrics of the Go runtime, the process and the release.
func Common(reg prometheus.Registerer, version string) {
	reg.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	info := prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "mep_build_info", Help: "Always 1; the label says which release this is.",
	}, []string{"version"})
	info.WithLabelValues(version).Set(1)
	reg.MustRegister(info)
}
