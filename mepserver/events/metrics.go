package events

import (
	"log/slog"
	"sync"

	"github.com/openmep/mep/api/mm5"
	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	clients prometheus.Gauge
	sent    *prometheus.CounterVec
	dropped prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		clients: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "mep_events_clients", Help: "Clients that follow the events.",
		}),
		sent: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "mep_events_sent_total", Help: "Events sent, by type.",
		}, []string{"type"}),
		dropped: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "mep_events_dropped_total", Help: "Clients that were dropped because they took the events too slowly.",
		}),
	}
	for _, t := range append([]mm5.EventType{mm5.EventReset}, filterable...) {
		m.sent.WithLabelValues(string(t))
	}
	reg.MustRegister(m.clients, m.sent, m.dropped)
	return m
}

func (m *metrics) count(b *batch) {
	for t, n := range b.sent {
		m.sent.WithLabelValues(string(t)).Add(float64(n))
	}
}

// skipped logs once for every key that its record cannot be read, however many clients come across it.
type skipped struct {
	log *slog.Logger

	mu   sync.Mutex
	keys map[string]struct{}
}

// maxSkipped bounds the keys remembered. They are forgotten together.
const maxSkipped = 1024

func (s *skipped) say(key string, revision int64, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, said := s.keys[key]; said {
		return
	}
	if s.keys == nil || len(s.keys) >= maxSkipped {
		s.keys = make(map[string]struct{})
	}
	s.keys[key] = struct{}{}
	s.log.Error("change of a record that cannot be read makes no event", "key", key, "revision", revision, "error", err)
}
