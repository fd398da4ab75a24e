package upstream

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/api/gateway"
)

func TestEqualSettingsShareAProfile(t *testing.T) {
	w := idle(t, nil)
	p := w.profile(gateway.Upstream{}, gateway.Timeouts{})
	for name, same := range map[string]struct {
		u gateway.Upstream
		t gateway.Timeouts
	}{
		"the defaults":           {gateway.Upstream{Retries: 2, EjectAfter: 5, EjectFor: "10s"}, gateway.Timeouts{Connect: "5s", Response: "60s", Idle: "5m"}},
		"written in another way": {gateway.Upstream{EjectFor: "10000ms", SlowStart: "0s"}, gateway.Timeouts{Response: "1m"}},
		"another total":          {gateway.Upstream{}, gateway.Timeouts{Total: "3s"}},
	} {
		require.Same(t, p, w.profile(same.u, same.t), name)
	}
	ca := caOf(serveTLS(t, nil, nil))
	for name, other := range map[string]struct {
		u gateway.Upstream
		t gateway.Timeouts
	}{
		"CA":           {u: gateway.Upstream{CA: ca}},
		"server name":  {u: gateway.Upstream{ServerName: "x"}},
		"proxy":        {u: gateway.Upstream{Proxy: "none"}},
		"retries":      {u: gateway.Upstream{Retries: -1}},
		"health check": {u: gateway.Upstream{HealthCheck: &gateway.HealthCheck{Path: "/"}}},
		"idle":         {t: gateway.Timeouts{Idle: "0s"}},
	} {
		require.NotSame(t, p, w.profile(other.u, other.t), name)
	}
	none := w.profile(gateway.Upstream{Retries: -3, EjectAfter: -1}, gateway.Timeouts{Connect: "0s", Response: "0s"})
	require.Zero(t, none.retries)
	require.Zero(t, none.ejectAfter)
	require.Zero(t, none.connect)
	require.Zero(t, none.response)
	require.Equal(t, 5*time.Minute, none.idle)
	require.Equal(t, maxRetries, w.profile(gateway.Upstream{Retries: 1000}, gateway.Timeouts{}).retries)
}

func TestSettingsOfAProfileThatAreWrong(t *testing.T) {
	w := idle(t, nil)
	ca := caOf(serveTLS(t, nil, nil))
	for name, c := range map[string]struct {
		u    gateway.Upstream
		t    gateway.Timeouts
		says string
	}{
		"no PEM":                   {u: gateway.Upstream{CA: "x"}, says: "upstream.ca: holds no certificate"},
		"a PEM that is cut off":    {u: gateway.Upstream{CA: ca + ca[:100]}, says: "upstream.ca: the PEM is cut off"},
		"a key for a CA":           {u: gateway.Upstream{CA: "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"}, says: "PRIVATE KEY"},
		"a damaged CA":             {u: gateway.Upstream{CA: "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"}, says: "certificate 1"},
		"an unknown certificate":   {u: gateway.Upstream{ClientCertificate: "x"}, says: `there is no "x"`},
		"a proxy of other scheme":  {u: gateway.Upstream{Proxy: "ftp://x"}, says: "upstream.proxy"},
		"no duration":              {t: gateway.Timeouts{Connect: "soon"}, says: "timeouts.connect"},
		"a negative duration":      {t: gateway.Timeouts{Idle: "-1s"}, says: "timeouts.idle"},
		"no ejection time":         {u: gateway.Upstream{EjectFor: "0s"}, says: "upstream.ejectFor"},
		"a hasty health check":     {u: gateway.Upstream{HealthCheck: &gateway.HealthCheck{Path: "/", Interval: "1ms"}}, says: "interval"},
		"a health check nowhere":   {u: gateway.Upstream{HealthCheck: &gateway.HealthCheck{}}, says: "path"},
		"a health check elsewhere": {u: gateway.Upstream{HealthCheck: &gateway.HealthCheck{Path: "//example.com/"}}, says: "path"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := w.Profile(c.u, c.t)
			require.ErrorContains(t, err, c.says)
		})
	}
}
