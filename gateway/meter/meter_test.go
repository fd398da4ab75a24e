package meter_test

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/gateway/meter"
)

// series returns the values of a metric by first label and class.
func series(t *testing.T, reg *prometheus.Registry, name string) map[string]float64 {
	t.Helper()
	families, err := reg.Gather()
	require.NoError(t, err)
	m := make(map[string]float64)
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, s := range f.GetMetric() {
			key := ""
			for _, l := range s.GetLabel() {
				if l.GetName() == "class" {
					key = l.GetValue() + " " + key
				} else {
					key += l.GetValue()
				}
			}
			if v := s.GetCounter().GetValue(); v != 0 {
				m[key] = v
			}
		}
	}
	return m
}

func TestNamesAreBounded(t *testing.T) {
	t.Parallel()
	reg := prometheus.NewRegistry()
	m := meter.New(3, 2, reg)
	var all sync.WaitGroup
	for i := range 50 {
		all.Go(func() {
			m.Service(fmt.Sprint("s", i)).Count(200)
			m.Consumer(fmt.Sprint("c", i)).Count(404)
		})
	}
	all.Wait()
	for name, most := range map[string]int{"mep_gateway_service_requests_total": 3, "mep_gateway_consumer_requests_total": 2} {
		got, sum := series(t, reg, name), 0.0
		require.LessOrEqual(t, len(got), most+1, "those, and the one of the others")
		require.Greater(t, len(got), 1)
		for _, v := range got {
			sum += v
		}
		require.InDelta(t, 50, sum, 0, "no call is left out")
	}
	require.Same(t, m.Service("new"), m.Service("newer"), "the others share one")
	m.Bound(100, 100)
	require.NotSame(t, m.Service("another"), m.Service("yet another"))
}

func TestClassesOfStatus(t *testing.T) {
	t.Parallel()
	reg := prometheus.NewRegistry()
	m := meter.New(1, 1, reg)
	r := m.Route("r")
	require.Same(t, r, m.Route("r"))
	for _, status := range []int{0, 101, 200, 299, 302, 404, 499, 500, 599, 700, -5} {
		r.Observe(status, time.Millisecond)
	}
	require.Equal(t, map[string]float64{"none r": 2, "1xx r": 1, "2xx r": 2, "3xx r": 1, "4xx r": 2, "5xx r": 3}, series(t, reg, "mep_gateway_requests_total"))
}
