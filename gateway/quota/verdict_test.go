package quota

import (
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/api/gateway"
)

func TestHeader(t *testing.T) {
	r := newCluster(t, 1).replicas(t, 1, noon)[0]
	hourly := gateway.Quota{Calls: 100, Per: "hour"}
	for name, c := range map[string]struct {
		quotas []gateway.Quota
		calls  int
		pass   time.Duration
		want   http.Header
	}{
		"no quota": {nil, 1, 0, http.Header{}},
		"one": {[]gateway.Quota{hourly}, 1, 0, http.Header{
			"Ratelimit-Policy": {`"hour";q=100;w=3600`}, "Ratelimit": {`"hour";r=99;t=1800`},
		}},
		"several": {[]gateway.Quota{{Calls: 5000, Per: "month"}, hourly, {Calls: 10, Per: "minute"}}, 2, 1500 * time.Millisecond, http.Header{
			"Ratelimit-Policy": {`"minute";q=10;w=60, "hour";q=100;w=3600, "month";q=5000;w=2678400`},
			"Ratelimit":        {`"minute";r=8;t=59, "hour";r=98;t=1799, "month";r=4998;t=1423799`},
		}},
		"refused": {[]gateway.Quota{{Calls: 1, Per: "minute"}, {Calls: 2, Per: "day"}}, 2, 0, http.Header{
			"Ratelimit-Policy": {`"minute";q=1;w=60, "day";q=2;w=86400`}, "Ratelimit": {`"minute";r=0;t=60, "day";r=1;t=41400`},
			"X-Ratelimit-Limit": {"1"}, "X-Ratelimit-Remaining": {"0"}, "X-Ratelimit-Reset": {"60"}, "Retry-After": {"60"},
		}},
		"never allowed": {[]gateway.Quota{{Calls: 0, Per: "day"}}, 1, 0, http.Header{
			"Ratelimit-Policy": {`"day";q=0;w=86400`}, "Ratelimit": {`"day";r=0;t=41400`},
			"X-Ratelimit-Limit": {"0"}, "X-Ratelimit-Remaining": {"0"}, "X-Ratelimit-Reset": {"41400"}, "Retry-After": {"41400"},
		}},
	} {
		t.Run(name, func(t *testing.T) {
			r.clock.pass(c.pass)
			defer r.clock.set(-c.pass)
			var v Verdict
			for range c.calls {
				v = r.Take(t.Context(), name, "app", c.quotas, "")
			}
			h := http.Header{}
			v.SetHeader(h)
			require.Equal(t, c.want, h)
		})
	}
}

func TestHeaderReplacesWhatAnUpstreamSays(t *testing.T) {
	v := Verdict{Away: true}
	v.add(standing{per: "hour", limit: 1e12, remaining: 1e12, reset: time.Hour, span: time.Hour})
	h := http.Header{"X-Ratelimit-Limit": {"7", "8"}, "Server": {"x"}}
	v.SetHeader(h)
	require.Equal(t, []string{"1000000000000"}, h.Values("X-RateLimit-Limit"))
	require.Equal(t, "1", h.Get("Retry-After"), "etcd may be back any moment")
	require.Equal(t, "x", h.Get("Server"))
	h.Add("RateLimit", "more")
	require.Equal(t, `"hour";q=1000000000000;w=3600`, h.Get("RateLimit-Policy"), "values do not share room to grow")
}
