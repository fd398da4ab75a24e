package watched

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	items       *prometheus.GaugeVec
	changes     *prometheus.CounterVec
	undecodable *prometheus.CounterVec
	relists     *prometheus.CounterVec
	batch       prometheus.Histogram
	barrier     prometheus.Histogram
}

func newMetrics(m *Mirror, reg prometheus.Registerer) *metrics {
	x := &metrics{
		items: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "mep_watched_items", Help: "Records held in memory, by collection.",
		}, []string{"collection"}),
		changes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "mep_watched_changes_total", Help: "Changes applied, by collection.",
		}, []string{"collection"}),
		undecodable: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "mep_watched_undecodable_total", Help: "Records left out because they could not be read, by collection.",
		}, []string{"collection"}),
		relists: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "mep_watched_relists_total", Help: "Complete lists that replaced a watch, by reason.",
		}, []string{"reason"}),
		batch: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "mep_watched_batch_changes", Help: "Changes published in one snapshot.",
			Buckets: prometheus.ExponentialBuckets(1, 4, 8),
		}),
		barrier: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "mep_watched_barrier_seconds", Help: "Time writers waited until their write was visible to readers.",
			Buckets: prometheus.ExponentialBuckets(0.0001, 3, 10),
		}),
	}
	if reg == nil {
		return x
	}
	reg.MustRegister(x.items, x.changes, x.undecodable, x.relists, x.batch, x.barrier,
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "mep_watched_revision", Help: "The etcd revision all collections have reached.",
		}, func() float64 { return float64(m.Revision()) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "mep_etcd_connected", Help: "1 while etcd gives signs of life, else 0.",
		}, func() float64 {
			if m.Status().Connected {
				return 1
			}
			return 0
		}),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "mep_watched_lag_seconds", Help: "Time since etcd last gave a sign of life.",
		}, func() float64 {
			s := m.Status()
			if s.LastContact.IsZero() {
				return -1
			}
			return time.Since(s.LastContact).Seconds()
		}),
	)
	return x
}
