package lifecycle

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/openmep/mep/api/mm5"
	"github.com/openmep/mep/kit/watched"
	"github.com/openmep/mep/mepserver/operation"
)

type metrics struct {
	ended    *prometheus.CounterVec
	duration *prometheus.HistogramVec
}

func newMetrics(m *Manager, reg prometheus.Registerer) *metrics {
	x := &metrics{
		ended: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "mep_operations_total", Help: "Operations asked for over Mm5 that ended while this process led, by type and result.",
		}, []string{"type", "result"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "mep_operation_duration_seconds", Help: "Time from the request to the end of an operation.",
			Buckets: []float64{.01, .05, .1, .5, 1, 5, 10, 30, 60, 300, 3600},
		}, []string{"type"}),
	}
	if reg != nil {
		reg.MustRegister(x.ended, x.duration, &census{
			manager:   m,
			instances: prometheus.NewDesc("mep_app_instances", "Application instances by life-cycle state.", []string{"lifecycle"}, nil),
			rules:     prometheus.NewDesc("mep_rules", "Rules of application instances by kind.", []string{"kind"}, nil),
		})
	}
	return x
}

// count records the end of an operation.
func (x *metrics) count(c watched.Change[*operation.Operation]) {
	if c.New == nil || !c.New.Value.Record.State.Done() || c.Old != nil && c.Old.Value.Record.State.Done() {
		return
	}
	rec := &c.New.Value.Record
	x.ended.WithLabelValues(string(rec.Type), string(rec.State)).Inc()
	x.duration.WithLabelValues(string(rec.Type)).Observe(rec.Ended.Sub(rec.Started).Seconds())
}

// census counts app instances and rules when metrics are collected.
type census struct {
	manager          *Manager
	instances, rules *prometheus.Desc
}

// Describe implements prometheus.Collector.
func (c *census) Describe(ch chan<- *prometheus.Desc) { ch <- c.instances; ch <- c.rules }

// Collect implements prometheus.Collector.
func (c *census) Collect(ch chan<- prometheus.Metric) {
	counts := map[mm5.Lifecycle]int{
		mm5.LifecycleKnown: 0, mm5.LifecycleConfigured: 0, mm5.LifecycleStarted: 0,
		mm5.LifecycleStopping: 0, mm5.LifecycleStopped: 0, mm5.LifecycleTerminating: 0,
	}
	for item := range c.manager.Apps.Collection().Snapshot().All() {
		counts[item.Value.Record.State()]++
	}
	for state, n := range counts {
		ch <- prometheus.MustNewConstMetric(c.instances, prometheus.GaugeValue, float64(n), string(state))
	}
	traffic, dns := 0, 0
	for item := range c.manager.Traffic.Collection().Snapshot().All() {
		traffic += len(item.Value.Record.Rules)
	}
	for item := range c.manager.DNS.Collection().Snapshot().All() {
		dns += len(item.Value.Record.Rules)
	}
	ch <- prometheus.MustNewConstMetric(c.rules, prometheus.GaugeValue, float64(traffic), string(mm5.TrafficRules))
	ch <- prometheus.MustNewConstMetric(c.rules, prometheus.GaugeValue, float64(dns), string(mm5.DNSRules))
}
