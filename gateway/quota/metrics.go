package quota

import (
	"github.com/prometheus/client_golang/prometheus"
)

// metrics are the metrics of quotas. They do not count admitted calls: the gateway counts all calls.
type metrics struct {
	refused             [kinds]prometheus.Counter
	awayLet, awayRefuse prometheus.Counter
	transactions        map[string]prometheus.Counter
	lost, dropped       prometheus.Counter
	waits               prometheus.Histogram
}

func newMetrics(reg prometheus.Registerer, q *Quotas) *metrics {
	refused := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "mep_gateway_quota_refused_total", Help: "Calls that were refused because a quota was used up, by its window.",
	}, []string{"per"})
	away := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "mep_gateway_quota_away_total",
		Help: "Calls with a quota that could not be counted because etcd was away, by what became of them: allowed or refused.",
	}, []string{"outcome"})
	transactions := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "mep_gateway_quota_transactions_total",
		Help: "Transactions in etcd about quotas, by how they ended: done, contended (another replica came first) or failed.",
	}, []string{"outcome"})
	m := &metrics{
		awayLet: away.WithLabelValues("allowed"), awayRefuse: away.WithLabelValues("refused"),
		transactions: make(map[string]prometheus.Counter),
		lost: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "mep_gateway_quota_lost_calls_total",
			Help: "Calls taken of quotas that nobody can make, because etcd did not answer or the clock was set back.",
		}),
		dropped: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "mep_gateway_quota_dropped_total", Help: "Pairs of route and consumer that were forgotten to make room for others.",
		}),
		waits: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "mep_gateway_quota_wait_seconds", Help: "How long calls waited for etcd to count them, of those that had to.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 4, 7),
		}),
	}
	for k, name := range names {
		m.refused[k] = refused.WithLabelValues(name)
	}
	for _, outcome := range []string{"done", "contended", "failed"} {
		m.transactions[outcome] = transactions.WithLabelValues(outcome)
	}
	reg.MustRegister(refused, away, transactions, m.lost, m.dropped, m.waits,
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "mep_gateway_quota_keys", Help: "Pairs of route and consumer whose quotas are remembered.",
		}, func() float64 { return float64(q.accounts.len()) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "mep_gateway_quota_clock_ahead_seconds",
			Help: "How far the time quotas go by is ahead of the system's clock, because that was set back by more than five minutes.",
		}, func() float64 { return q.clock.ahead().Seconds() }))
	return m
}

// away counts a call that could not be counted against its quotas.
func (m *metrics) away(allowed bool) {
	if allowed {
		m.awayLet.Inc()
	} else {
		m.awayRefuse.Inc()
	}
}
