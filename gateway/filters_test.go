package gateway_test

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	api "github.com/openmep/mep/api/gateway"
	"github.com/openmep/mep/gateway"
	"github.com/openmep/mep/gateway/filter"
)

// stamp is a filter that adds a word to a header field of the request and of the response, and answers the request itself when asked to.
func stamp(made *atomic.Int64) filter.Definition {
	type config struct {
		Word string `json:"word"`
	}
	return filter.Define("stamp", func(cfg config, env filter.Env) (filter.Filter, error) {
		if cfg.Word == "" {
			return nil, errors.New("word is required")
		}
		made.Add(1)
		seen := prometheus.NewCounter(prometheus.CounterOpts{Name: "mep_gateway_filter_stamp_total", Help: "Stamps."})
		if err := env.Metrics.Register(seen); err != nil {
			return nil, err
		}
		return func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				seen.Inc()
				if r.Header.Get("X-Answer") == cfg.Word {
					w.WriteHeader(http.StatusTeapot)
					_, _ = io.WriteString(w, cfg.Word+" "+filter.CallOf(r.Context()).Consumer)
					return
				}
				if r.Header.Get("X-Panic") == cfg.Word {
					panic("a fault of a filter")
				}
				r.Header.Set("X-Stamps", strings.TrimSpace(r.Header.Get("X-Stamps")+" "+cfg.Word))
				w.Header().Add("X-Back", cfg.Word)
				next.ServeHTTP(w, r)
			})
		}, nil
	})
}

func TestFiltersRunInTheirOrder(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var made atomic.Int64
	sequence := []gateway.FilterConfig{
		{Name: "stamp", Config: json.RawMessage(`{"word":"one"}`)},
		{Name: "stamp", Config: json.RawMessage(`{"word":"two"}`), Exclude: []string{"/services/*/private/**", "/r"}},
		{Name: "stamp", Config: json.RawMessage(`{"word":"three"}`)},
	}
	g := w.gate(func(s *setup) {
		s.Filters = []filter.Definition{stamp(&made)}
		s.Gateway.Filters = sequence
	})
	require.EqualValues(t, 3, made.Load())
	up := mirrorOf(t).URL
	w.named("hello", up)
	w.named("without", up)
	w.policy("without", api.Policy{ExcludeFilters: []string{"stamp"}})
	w.route("r", api.Route{Paths: []string{"/r"}, Service: "hello"})
	me := w.app()
	token := bearer(w.token(me))
	for path, want := range map[string]string{
		"/services/hello/a": "one two three", "/services/hello/private/x": "one three", "/services/hello/private": "one three", "/services/hello/%70rivate/x": "one three",
		"/services/hello/a/private": "one two three", "/r": "one three", "/services/without/": "",
	} {
		a := g.get(path, token)
		require.Equal(t, want, a.seen(t).Header.Get("X-Stamps"), path)
		require.Equal(t, want, strings.Join(a.Header["X-Back"], " "), path)
		runs := slices.DeleteFunc(g.explain(api.ExplainRequest{Method: http.MethodGet, URL: path, Consumer: me}).Filters, func(f string) bool { return f != "stamp" })
		require.Len(t, runs, len(strings.Fields(want)), path)
	}
	a := g.get("/services/hello/", token, field("X-Answer", "two"))
	require.Equal(t, http.StatusTeapot, a.StatusCode)
	require.Equal(t, "two "+me, a.body)
	require.Equal(t, http.StatusUnauthorized, g.status("/services/hello/", field("X-Answer", "one")), "filters see what was let in")
	require.Equal(t, http.StatusInternalServerError, g.status("/services/hello/", token, field("X-Panic", "two")))
	require.Equal(t, http.StatusOK, g.status("/services/hello/", token), "and it goes on")
	var v api.Status
	g.manage(http.MethodGet, "/status", nil, &v)
	require.Equal(t, []string{"stamp", "stamp", "stamp"}, v.Filters)

	require.NoError(t, g.reload(func(c *gateway.Config) { c.Filters = []gateway.FilterConfig{sequence[2], sequence[0]} }))
	require.Equal(t, "three one", g.get("/services/hello/a", token).seen(t).Header.Get("X-Stamps"))
	for _, bad := range []gateway.FilterConfig{{Name: "other"}, {Name: "stamp"}, {Name: "stamp", Config: json.RawMessage(`{"word":1}`)}} {
		require.Error(t, g.reload(func(c *gateway.Config) { c.Filters = []gateway.FilterConfig{bad} }))
	}
	require.Equal(t, "three one", g.get("/services/hello/a", token).seen(t).Header.Get("X-Stamps"), "what is wrong changes nothing")
	bad := gateway.FilterConfig{Name: "stamp", Config: sequence[0].Config, Exclude: []string{"no path"}}
	require.Error(t, g.reload(func(c *gateway.Config) { c.Filters = []gateway.FilterConfig{bad} }), "a pattern that is none")
}
