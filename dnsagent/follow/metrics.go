package follow

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/openmep/mep/dnsagent/table"
)

type metrics struct {
	names, records, revision prometheus.Gauge
	unanswered               prometheus.Gauge
	duration                 prometheus.Histogram
	unreadable               prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		names:    prometheus.NewGauge(prometheus.GaugeOpts{Name: "mep_dns_table_names", Help: "Names the DNS server has records of its own for."}),
		records:  prometheus.NewGauge(prometheus.GaugeOpts{Name: "mep_dns_table_records", Help: "Records of the DNS server's own, without those it derives from others."}),
		revision: prometheus.NewGauge(prometheus.GaugeOpts{Name: "mep_dns_table_revision", Help: "Revision of etcd up to which changes are being answered."}),
		unanswered: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "mep_dns_table_unanswered", Help: "Records that are in no answer because of others of their name.",
		}),
		duration: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "mep_dns_table_update_seconds", Help: "Time from hearing of changes to answering by them.",
			Buckets: prometheus.ExponentialBuckets(0.00005, 4, 10),
		}),
		unreadable: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "mep_dns_unreadable_total", Help: "Records in etcd that the DNS server could not read and left out.",
		}),
	}
	if reg != nil {
		reg.MustRegister(m.names, m.records, m.revision, m.unanswered, m.duration, m.unreadable)
	}
	return m
}

func (m *metrics) published(t *table.Table, unanswered int, took time.Duration) {
	m.names.Set(float64(t.Names))
	m.records.Set(float64(t.Records))
	m.revision.Set(float64(t.Revision))
	m.unanswered.Set(float64(unanswered))
	m.duration.Observe(took.Seconds())
}
