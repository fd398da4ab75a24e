package upstream

import (
	"io"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/api/gateway"
)

// BenchmarkRoundTrip compares RoundTrip with a bare http.Transport with the same settings.
func BenchmarkRoundTrip(b *testing.B) {
	page := strings.Repeat("x", 2048)
	server := serve(b, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, page) })
	read := func(b *testing.B, resp *http.Response, err error) {
		if err != nil {
			b.Error(err)
			return
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
	}
	b.Run("bare", func(b *testing.B) {
		t := &http.Transport{MaxIdleConnsPerHost: 256, DisableCompression: true, ResponseHeaderTimeout: defaultResponse}
		defer t.CloseIdleConnections()
		b.ReportAllocs()
		b.SetParallelism(8)
		before := spent(b)
		b.RunParallel(func(pb *testing.PB) {
			r, err := http.NewRequestWithContext(b.Context(), http.MethodGet, server.URL+"/x", nil)
			if err != nil {
				b.Error(err)
				return
			}
			for pb.Next() {
				resp, err := t.RoundTrip(r) //nolint:bodyclose // read closes it
				read(b, resp, err)
			}
		})
		b.ReportMetric(float64(spent(b)-before)/float64(b.N), "cpu-ns/op")
	})
	for _, c := range []struct {
		name string
		urls []string
		cfg  Config
	}{
		{"one", []string{server.URL}, Config{}},
		{"one, not directly", []string{server.URL}, Config{MaxPerHost: 1000}},
		{"two", []string{server.URL, server.URL + "/"}, Config{}},
	} {
		b.Run(c.name, func(b *testing.B) {
			w := newWorld(b, c.cfg)
			p := w.profile(gateway.Upstream{}, gateway.Timeouts{})
			eps := w.endpoints(p, c.urls...)
			b.ReportAllocs()
			b.SetParallelism(8) // sequential calls would measure how fast threads wake up rather than what calls cost
			before := spent(b)
			b.RunParallel(func(pb *testing.PB) {
				r := request(b, http.MethodGet, "/x", nil)
				var a Attempt
				for pb.Next() {
					resp, err := w.RoundTrip(r, p, eps, &a) //nolint:bodyclose // read closes it
					read(b, resp, err)
				}
			})
			b.ReportMetric(float64(spent(b)-before)/float64(b.N), "cpu-ns/op")
		})
	}
}

// spent returns the CPU time of this process, the resource a busy gateway runs out of.
func spent(b *testing.B) time.Duration {
	var u syscall.Rusage
	require.NoError(b, syscall.Getrusage(syscall.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkOverhead measures everything a call costs except the transport.
func BenchmarkOverhead(b *testing.B) {
	w := newWorld(b, Config{})
	eps := w.endpoints(w.profile(gateway.Upstream{}, gateway.Timeouts{}), "http://192.0.2.1/base", "http://192.0.2.2/base")
	r := request(b, http.MethodGet, "/x?y=z", nil)
	from := &http.Response{StatusCode: http.StatusOK, ContentLength: 2048, Body: io.NopCloser(strings.NewReader(""))}
	var a Attempt
	b.ReportAllocs()
	for b.Loop() {
		a = Attempt{}
		e := choose(eps, &a)
		a.note(e)
		o := newOutgoing(r, e, r.Body)
		e.active.Add(1)
		_ = e.transport(e.lanes.Load(), o.req.Header)
		resp := *from
		e.responded(resp.StatusCode, e.ejectedUntil.Load())
		e.follow(&resp)
		w.metrics.responded(resp.StatusCode)
		_ = resp.Body.Close()
	}
}
