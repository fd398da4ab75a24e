package forward

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	requests   *prometheus.CounterVec
	duration   *prometheus.HistogramVec
	ignored    *prometheus.CounterVec
	tcp        *prometheus.CounterVec
	failures   *prometheus.CounterVec
	up         *prometheus.GaugeVec
	caseLost   *prometheus.GaugeVec
	prefetches prometheus.Counter

	hits, misses, stale prometheus.Counter
}

func newMetrics(f *Forwarder, reg prometheus.Registerer) *metrics {
	lookups := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "mep_dns_forward_cache_lookups_total", Help: "Questions looked up in the cache, by what was found: hit, miss, stale.",
	}, []string{"result"})
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "mep_dns_forward_requests_total",
			Help: "Questions sent to upstreams, by zone, upstream and outcome: answer, servfail, unusable, timeout, network.",
		}, []string{"zone", "upstream", "outcome"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "mep_dns_forward_seconds", Help: "Time upstreams took to respond, by zone and upstream.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2, 13),
		}, []string{"zone", "upstream"}),
		ignored: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "mep_dns_forward_ignored_total", Help: "Messages from upstreams that did not answer what was asked, by reason.",
		}, []string{"reason"}),
		tcp: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "mep_dns_forward_tcp_total", Help: "Questions asked again over TCP, by what the response over UDP was: truncated, doubtful.",
		}, []string{"reason"}),
		failures: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "mep_dns_forward_failures_total", Help: "Questions no upstream answered, by reason, without those a failure is remembered of.",
		}, []string{"reason"}),
		up: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "mep_dns_forward_upstream_up", Help: "1 for upstreams that answer, 0 for those that are down or ask this server in turn, by zone.",
		}, []string{"zone", "upstream"}),
		caseLost: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "mep_dns_forward_upstream_case_lost", Help: "1 for upstreams that do not keep the capitals of names and are asked without, by zone.",
		}, []string{"zone", "upstream"}),
		prefetches: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "mep_dns_forward_prefetches_total", Help: "Answers in demand that were asked for anew before their time was over.",
		}),
		hits: lookups.WithLabelValues("hit"), misses: lookups.WithLabelValues("miss"), stale: lookups.WithLabelValues("stale"),
	}
	if reg == nil {
		return m
	}
	reg.MustRegister(lookups, m.requests, m.duration, m.ignored, m.tcp, m.failures, m.up, m.caseLost, m.prefetches,
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "mep_dns_forward_pending", Help: "Questions under way to upstreams.",
		}, func() float64 { return float64(f.flights.len()) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "mep_dns_forward_cache_entries", Help: "Answers in the cache.",
		}, func() float64 { entries, _ := f.cache.Size(); return float64(entries) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "mep_dns_forward_cache_bytes", Help: "Memory the cache takes, as it counts it.",
		}, func() float64 { _, bytes := f.cache.Size(); return float64(bytes) }),
		prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: "mep_dns_forward_cache_evictions_total", Help: "Answers given up to make room for others.",
		}, func() float64 { return float64(f.cache.Evictions()) }),
	)
	return m
}

// setUp publishes the state of an upstream. It is called with the upstream's lock held.
func (m *metrics) setUp(u *upstream) {
	up := 0.0
	if u.state == healthy {
		up = 1
	}
	m.up.WithLabelValues(u.zone, u.label).Set(up)
}

// setCase publishes whether an upstream loses capitals. It is called with the upstream's lock held.
func (m *metrics) setCase(u *upstream) {
	lost := 0.0
	if u.casing.losses >= caseLosses {
		lost = 1
	}
	m.caseLost.WithLabelValues(u.zone, u.label).Set(lost)
}

// forget removes what is counted of an upstream.
func (m *metrics) forget(u *upstream) {
	m.requests.DeletePartialMatch(prometheus.Labels{"zone": u.zone, "upstream": u.label})
	m.duration.DeleteLabelValues(u.zone, u.label)
	m.up.DeleteLabelValues(u.zone, u.label)
	m.caseLost.DeleteLabelValues(u.zone, u.label)
}

// reasons maps the causes of failures to their label values.
var reasons = map[error]string{
	ErrOverload: "overload", ErrLoop: "loop", ErrClosed: "closed", ErrTimeout: "timeout", ErrUnusable: "unusable", ErrNetwork: "network",
}
