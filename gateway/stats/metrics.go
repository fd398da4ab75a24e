package stats

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	writes *prometheus.CounterVec
	lost   prometheus.Counter
	swept  *prometheus.CounterVec
	stored *prometheus.GaugeVec
}

func newMetrics() *metrics {
	return &metrics{
		writes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "mep_gateway_statistics_writes_total", Help: "Records of call statistics written to etcd, by result: success or failed.",
		}, []string{"result"}),
		lost: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "mep_gateway_statistics_lost_total", Help: "Calls left out of the statistics because etcd was away for too long.",
		}),
		swept: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "mep_gateway_statistics_swept_total",
			Help: "Records of call statistics that were put together to hours, or removed for their age or for want of room, by what was done: " +
				"folded or removed.",
		}, []string{"action"}),
		stored: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "mep_gateway_statistics_stored_bytes",
			Help: "What call statistics take in etcd, of all replicas, by kind: records, or minutes that are older than those in records.",
		}, []string{"kind"}),
	}
}

func (m *metrics) register(reg prometheus.Registerer, pairs, unwritten func() float64) {
	if reg == nil {
		return
	}
	reg.MustRegister(m.writes, m.lost, m.swept, m.stored,
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "mep_gateway_statistics_pairs", Help: "Pairs of service and consumer counted apart in this hour.",
		}, pairs),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "mep_gateway_statistics_unwritten_records", Help: "Records of call statistics that are yet to be written to etcd.",
		}, unwritten),
	)
}
