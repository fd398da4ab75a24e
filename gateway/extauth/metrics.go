package extauth

import "github.com/prometheus/client_golang/prometheus"

const (
	resultAllowed    = "allowed"
	resultRefused    = "refused"
	resultRemembered = "remembered"
	resultTimeout    = "timeout"
	resultFailed     = "failed"
	resultCancelled  = "cancelled"
)

// Metrics counts the decisions of all policies.
type Metrics struct {
	byResult map[string]prometheus.Counter
}

// NewMetrics returns the metrics, registered with reg.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	total := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "mep_gateway_external_auth_total",
		Help: "Questions to external authorisations by result: allowed, refused, remembered (from an equal question), timeout, failed (no usable answer), cancelled.",
	}, []string{"result"})
	reg.MustRegister(total)
	m := &Metrics{byResult: make(map[string]prometheus.Counter)}
	for _, result := range []string{resultAllowed, resultRefused, resultRemembered, resultTimeout, resultFailed, resultCancelled} {
		m.byResult[result] = total.WithLabelValues(result)
	}
	return m
}

func (m *Metrics) count(result string) { m.byResult[result].Inc() }
