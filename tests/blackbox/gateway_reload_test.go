package blackbox

import (
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/tests/harness"
)

// keepCalling calls a path of the gateway from some connections until stop is called, which returns how many calls there were. A call that is not
// answered with 200 is a failure.
func keepCalling(t *testing.T, p *harness.Process, connections int, path string) (stop func() int64) {
	t.Helper()
	var ended atomic.Bool
	var calls atomic.Int64
	var busy sync.WaitGroup
	for range connections {
		c := p.Gateway(t)
		busy.Go(func() {
			for i := 0; !ended.Load(); i++ {
				body := any(nil)
				method := "GET"
				if i%3 == 0 {
					method, body = "POST", "body"
				}
				answer, err := c.Try(method, path, body)
				if err != nil || answer.Status != 200 {
					t.Errorf("call %d: %v %+v", i, err, answer)
					return
				}
				calls.Add(1)
			}
		})
	}
	t.Cleanup(func() { ended.Store(true) })
	return func() int64 {
		ended.Store(true)
		busy.Wait()
		return calls.Load()
	}
}

func TestReloadsFailNoCall(t *testing.T) {
	t.Parallel()
	producer := harness.NewProducer(t, "hello", nil)
	config := func(n int) string {
		return fmt.Sprintf(`
gateway:
  maxBody: %d
  routes:
  - {id: r, paths: [/r/**], urls: ["%s/v%d"]}
  policies:
    hello: {concurrent: %d, headers: {set: {X-Version: "%d"}}}
`, 1000+n, producer.URL, n, 100+n, n)
	}
	p := harness.Start(t, harness.Config(config(0)))
	newApp(p.Client(t)).register(served("hello", producer.URL))
	c, m := p.Gateway(t), p.GatewayManagement(t)
	require.Equal(t, []string{"0"}, reached(t, c, "/services/hello/").Names("X-Version"))
	first, second := keepCalling(t, p, 4, "/services/hello/x"), keepCalling(t, p, 4, "/r/x")
	for n := 1; n <= 15; n++ {
		require.True(t, p.Reload(config(n)))
		harness.Eventually(t, "the new configuration is in force", func() error {
			got := c.Get("/r/x").Seen().Path
			return harness.Not(got == fmt.Sprintf("/v%d/r/x", n), "%s", got)
		})
		require.Equal(t, []string{fmt.Sprint(n)}, c.Get("/services/hello/").Seen().Names("X-Version"))
		route(m, "other", object{"paths": []any{fmt.Sprintf("/other%d", n)}, "urls": []any{producer.URL}})
	}
	require.Positive(t, first())
	require.Positive(t, second())
	require.EqualValues(t, 15, m.Get(gatewayRoot + "/status").Is(200).Object()["reloads"])
}

func TestABadRouteOfTheConfigurationIsRefusedAlone(t *testing.T) {
	t.Parallel()
	producer := harness.NewProducer(t, "hello", nil)
	config := func(a, b string) string {
		return fmt.Sprintf("gateway:\n  routes:\n  - {id: a, paths: [/a/**], urls: [\"%s/%s\"]%s}\n  - {id: b, paths: [/b], urls: [\"%s/%s\"]}\n",
			producer.URL, strings.SplitN(a, ",", 2)[0], strings.TrimPrefix(a, strings.SplitN(a, ",", 2)[0]), producer.URL, b)
	}
	p := harness.Start(t, harness.Config(config("1", "1")))
	c, m := p.Gateway(t), p.GatewayManagement(t)
	require.Equal(t, "/1/a/x", reached(t, c, "/a/x").Path)
	require.True(t, p.Reload(config("2, rewrite: \"/{7}\"", "2")), "the rest applies")
	harness.Eventually(t, "the good one is in force", func() error { got := c.Get("/b").Seen().Path; return harness.Not(got == "/2/b", "%s", got) })
	require.Equal(t, "/1/a/x", c.Get("/a/x").Seen().Path, "the bad one stays as it was")
	view := m.Get(gatewayRoot + "/routes/a").Is(200).Object()
	require.Equal(t, "configuration", view["source"])
	require.Contains(t, view["refused"], "rewrite")
	_, r, err := p.Ready()
	require.NoError(t, err)
	require.True(t, r.IsDegraded("gateway"), "%+v", r)
	m.Put(gatewayRoot+"/routes/a", object{"paths": []any{"/a"}, "urls": []any{producer.URL}}).Problem(409) // the configuration wins
	m.Delete(gatewayRoot + "/routes/a").Problem(404)

	require.Nil(t, m.Get(gatewayRoot + "/status").Is(200).Object()["notReloaded"], "it was taken over, all but one route")
	require.True(t, p.Reload(config("3", "3")))
	harness.Eventually(t, "all is well again", func() error { got := c.Get("/a/x").Seen().Path; return harness.Not(got == "/3/a/x", "%s", got) })
	for name, text := range map[string]string{
		"a misspelling":    "gateway: {routez: []}\n",
		"no id":            "gateway: {routes: [{paths: [/x], urls: [http://192.0.2.1]}]}\n",
		"two of an id":     "gateway: {routes: [{id: a, paths: [/x], urls: [http://192.0.2.1]}, {id: a, paths: [/y], urls: [http://192.0.2.1]}]}\n",
		"an unknown one":   "gateway: {filters: [{name: nothing}]}\n",
		"a bad network":    "gateway: {denyTargets: [nowhere]}\n",
		"no certificate":   "gateway: {clientCertificates: [{name: x, cert: /nonexistent, key: /nonexistent}]}\n",
		"an unset value":   "gateway: {proxy: \"http://${NOT_SET_ANYWHERE}:3128\"}\n",
		"a bad mask":       "gateway: {records: {maskPaths: [x]}}\n",
		"a soft over hard": "gateway: {connections: 10, connectionsHard: 9}\n",
	} {
		t.Run(name, func(t *testing.T) {
			require.False(t, p.Reload(text))
			require.Equal(t, "/3/a/x", p.Gateway(t).Get("/a/x").Seen().Path)
			why, _ := p.GatewayManagement(t).Get(gatewayRoot + "/status").Is(200).Object()["notReloaded"].(object)
			require.NotEmpty(t, why["reason"])
			code, r, err := p.Ready()
			require.NoError(t, err)
			require.Equal(t, 200, code, "the configuration before it is in force")
			require.True(t, r.IsDegraded("configuration"), "%+v", r)
			good, _ := p.Metric(t, "mep_config_last_reload_successful")
			require.Zero(t, good)
		})
	}
	require.True(t, p.Reload(config("3", "3")))
	require.Nil(t, p.GatewayManagement(t).Get(gatewayRoot + "/status").Is(200).Object()["notReloaded"])
	good, _ := p.Metric(t, "mep_config_last_reload_successful")
	require.InDelta(t, 1, good, 0)
}

func TestTheConfigurationFileHasValuesOfTheEnvironment(t *testing.T) {
	t.Parallel()
	producer := harness.NewProducer(t, "hello", nil)
	config := "gateway:\n  maxBody: ${MOST}\n  routes:\n  - {id: r, paths: [\"/${PREFIX}/**\"], urls: [\"${TARGET}\"], policy: {headers: {set: {X-Edge: \"${NAME:-nobody}\"}}}}\n"
	p := harness.Start(t, harness.Config(config), harness.Env("MOST=10", "PREFIX=here", "TARGET="+producer.URL+"/base"))
	seen := reached(t, p.Gateway(t), "/here/x")
	require.Equal(t, "/base/here/x", seen.Path)
	require.Equal(t, []string{"nobody"}, seen.Names("X-Edge"))
	p.Gateway(t).Post("/here/x", "01234567890").Problem(413)
	out := harness.Run(t, "mep", []string{"run", "--dev", "--data-dir", t.TempDir(), "--config", file(t, "config.yaml", config)}, harness.Env("MOST=10", "PREFIX=here"))
	require.Equal(t, 1, out.Code)
	require.Contains(t, out.Output, "TARGET")
}

func TestTheGatewayDrains(t *testing.T) {
	t.Parallel()
	begun, release := make(chan struct{}, 8), make(chan struct{})
	p, _ := offering(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/slow" {
			return
		}
		begun <- struct{}{}
		select {
		case <-release:
		case <-r.Context().Done():
		}
		_, _ = w.Write([]byte("finished"))
	}, harness.Args("--drain=4s"))
	c := p.Gateway(t)
	done := make(chan string, 1)
	go func() {
		answer, err := c.Try("GET", "/services/hello/slow", nil)
		if err != nil {
			done <- err.Error()
			return
		}
		done <- string(answer.Body)
	}()
	<-begun
	wait := p.Terminate()
	harness.Eventually(t, "nothing new is taken", func() error {
		conn, err := net.Dial("tcp", p.Addr("gateway"))
		if err == nil {
			_ = conn.Close()
		}
		return harness.Not(err != nil, "a connection was")
	})
	close(release)
	require.Equal(t, "finished", <-done)
	require.Less(t, wait(), harness.StopWithin)
	require.Len(t, p.AccessRecords(t, 1, func(r object) bool { return strings.HasSuffix(fmt.Sprint(r["path"]), "/slow") }), 1, "it is written down as well")
}

func TestThereNeedBeNoGateway(t *testing.T) {
	t.Parallel()
	p := harness.Start(t, harness.Unready(), harness.Env("MEP_GATEWAY_LISTEN=off"))
	require.NotEmpty(t, p.URL("gateway"), "a flag wins over the environment")
	out := harness.Run(t, "gateway", []string{"--gateway-listen=off", "--dev", "--etcd-endpoints", "127.0.0.1:1", "--data-dir", t.TempDir()})
	require.Equal(t, 1, out.Code)
	require.Contains(t, out.Output, "gateway.listen")
	out = harness.Run(t, "mep", []string{"gateway", "routes", "--dev", "--gateway-listen=off"})
	require.Equal(t, 1, out.Code)
	require.Contains(t, out.Output, "there is no gateway")
	alone := harness.StartWithout(t, "gateway")
	require.Empty(t, alone.URL("gateway"))
	require.Empty(t, alone.URL("gateway-management"))
	newApp(alone.Client(t)).register(served("hello", "http://192.0.2.1/"))
	require.NoDirExists(t, filepath.Join(alone.DataDir, "access"))
	_, ok := alone.Metric(t, "mep_gateway_requests_in_flight")
	require.False(t, ok)
}

func TestPortsOfTheGatewayThatAreTaken(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = taken.Close() })
	for _, flag := range []string{"--gateway-listen", "--gateway-management-listen"} {
		t.Run(flag, func(t *testing.T) {
			t.Parallel()
			args := append(harness.Development("mep"), flag, taken.Addr().String(), "--data-dir", filepath.Join(t.TempDir(), "data"))
			begin := time.Now()
			out := harness.Run(t, "mep", args)
			require.Equal(t, 1, out.Code)
			require.Contains(t, out.Output, taken.Addr().String())
			require.Contains(t, out.Output, "gateway")
			require.Less(t, time.Since(begin), harness.Patience)
			found := examine(t, append(slices.Clone(anyPort), flag, taken.Addr().String(), "--data-dir", filepath.Join(t.TempDir(), "data"))...)
			ports := []string{}
			for _, d := range found {
				if d.Check == "ports" && d.Level == "fail" {
					ports = append(ports, d.Subject+" "+d.Finding)
				}
			}
			require.Len(t, ports, 1, "%+v", found)
			require.Contains(t, ports[0], taken.Addr().String())
		})
	}
	for name, args := range map[string][]string{
		"one port for two":        {"--gateway-listen=127.0.0.1:18123", "--gateway-management-listen=127.0.0.1:18123"},
		"no address":              {"--gateway-listen=nowhere"},
		"a bad size":              {"--gateway-max-header=0"},
		"an unknown header field": {"--gateway-headers=x-nothing"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			out := harness.Run(t, "mep", append(append(harness.Development("mep"), args...), "--data-dir", filepath.Join(t.TempDir(), "data")))
			require.Equal(t, 1, out.Code)
			require.Contains(t, out.Output, "gateway")
		})
	}
}
