package quota

import (
	"log/slog"
	"net/http"
	"strconv"
	"sync/atomic"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/openmep/mep/api/gateway"
	"github.com/openmep/mep/kit/etcdtest"
)

func BenchmarkTake(b *testing.B) {
	hourly := gateway.Quota{Calls: 1e12, Per: gateway.PerHour}
	for name, quotas := range map[string][]gateway.Quota{
		"one quota":    {hourly},
		"three quotas": {{Calls: 1e12, Per: gateway.PerMinute}, hourly, {Calls: 1e12, Per: gateway.PerMonth}},
	} {
		b.Run(name, func(b *testing.B) {
			q := New(Config{Store: etcdtest.Start(b).Store(b), Log: slog.New(slog.DiscardHandler), Registerer: prometheus.NewRegistry()})
			defer q.close()
			b.ReportAllocs()
			for b.Loop() {
				v := q.Take(b.Context(), "service:position", "app", quotas, "")
				if !v.Allowed {
					b.Fatal("refused")
				}
			}
		})
	}
}

func BenchmarkTakeOfManyConsumers(b *testing.B) {
	const consumers = 1000
	q := New(Config{Store: etcdtest.Start(b).Store(b), Log: slog.New(slog.DiscardHandler), Registerer: prometheus.NewRegistry()})
	defer q.close()
	names := make([]string, consumers)
	quotas := []gateway.Quota{{Calls: 1e12, Per: gateway.PerHour}}
	for i := range names {
		names[i] = strconv.Itoa(i)
		q.Take(b.Context(), "service:position", names[i], quotas, "")
	}
	var n atomic.Uint64
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for i := n.Add(337); pb.Next(); i++ {
			q.Take(b.Context(), "service:position", names[i%consumers], quotas, "")
		}
	})
}

func BenchmarkSetHeader(b *testing.B) {
	v := Verdict{Allowed: true}
	v.add(standing{per: "hour", limit: 100, remaining: 50, reset: 30e9, span: 3600e9})
	b.ReportAllocs()
	h := make(http.Header)
	for b.Loop() {
		clear(h)
		v.SetHeader(h)
	}
}
