package upstream

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/api/gateway"
)

// BenchmarkRoundTrip compares a call with one of a bare transport with the same settings.
func BenchmarkRoundTrip(b *testing.B) {
	page := strings.Repeat("x", 2048)
	server := serve(b, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, page) })
	read := func(b *testing.B, resp *http.Response, err error) {
		if err != nil {
			b.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
	}
	b.Run("bare", func(b *testing.B) {
		t := &http.Transport{MaxIdleConnsPerHost: 256, DisableCompression: true, ResponseHeaderTimeout: defaultResponse}
		defer t.CloseIdleConnections()
		r, err := http.NewRequestWithContext(b.Context(), http.MethodGet, server.URL+"/x", nil)
		require.NoError(b, err)
		b.ReportAllocs()
		for b.Loop() {
			resp, err := t.RoundTrip(r) //nolint:bodyclose // read closes it
			read(b, resp, err)
		}
	})
	for name, urls := range map[string][]string{"one": {server.URL}, "two": {server.URL, server.URL + "/"}} {
		b.Run(name, func(b *testing.B) {
			w := newWorld(b, Config{})
			p := w.profile(gateway.Upstream{}, gateway.Timeouts{})
			eps := w.endpoints(p, urls...)
			r := request(b, http.MethodGet, "/x", nil)
			var a Attempt
			b.ReportAllocs()
			for b.Loop() {
				resp, err := w.RoundTrip(r, p, eps, &a) //nolint:bodyclose // read closes it
				read(b, resp, err)
			}
		})
	}
}

// BenchmarkOverhead is all that a call costs besides the transport.
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
