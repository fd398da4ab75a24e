package gateway_test

import (
	"context"
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/api/auth"
	api "github.com/openmep/mep/api/gateway"
	"github.com/openmep/mep/gateway/call"
)

// BenchmarkTenThousandCallsAreJudged judges calls with tokens of a hundred consumers to a service with rules, and reports how long a round
// takes.
func BenchmarkTenThousandCallsAreJudged(b *testing.B) {
	const calls, consumers = 10_000, 100
	w := newWorld(b)
	owner, _ := w.named("hello", "http://127.0.0.1:1")
	w.policy("hello", api.Policy{Rules: []api.Rule{{Effect: api.Deny, Consumers: []string{"nobody"}}, {Effect: api.Allow, Consumers: []string{owner}}}})
	g := w.gate()
	var tokens []string
	for range consumers {
		tokens = append(tokens, w.token(w.app()))
	}
	t := g.Table()
	for n := range calls {
		r, err := http.NewRequestWithContext(b.Context(), http.MethodGet, "/services/hello/", nil)
		require.NoError(b, err)
		caller, err := g.Verify(context.Background(), tokens[n%consumers])
		require.NoError(b, err)
		c := &call.Call{Context: r.Context(), Seen: g.Lasting().Seen(), Table: t, Group: t.Group("hello"), Path: "/", Caller: caller, Token: auth.Secret(tokens[n%consumers])}
		c.Info.Service = "hello"
		g.Lasting().Enter(c, r, nil)
		defer g.Lasting().Leave(c)
	}
	g.judged()
	spent, rounds := g.reviews()
	for b.Loop() {
		g.judged()
	}
	spentAfter, roundsAfter := g.reviews()
	require.Zero(b, g.metric("mep_gateway_calls_ended_total", "access"))
	b.ReportMetric(1000*(spentAfter-spent)/float64(roundsAfter-rounds), "ms/round")
}

// reviews returns the total time spent on rounds, and their number.
func (g *gate) reviews() (seconds float64, rounds uint64) {
	g.Helper()
	families, err := g.reg.Gather()
	require.NoError(g, err)
	for _, f := range families {
		if f.GetName() == "mep_gateway_calls_review_seconds" {
			h := f.GetMetric()[0].GetHistogram()
			return h.GetSampleSum(), h.GetSampleCount()
		}
	}
	return 0, 0
}
