package mep

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/api/gateway"
)

// run executes a command with arguments.
func run(t *testing.T, command func(*Spec) *cobra.Command, args ...string) (stdout, stderr string, err error) {
	t.Helper()
	cmd := command(Platform())
	cmd.SilenceUsage, cmd.SilenceErrors = true, true
	var out, errs bytes.Buffer
	cmd.SetOut(&out)
	cmd.SetErr(&errs)
	cmd.SetArgs(args)
	err = cmd.ExecuteContext(context.Background())
	return out.String(), errs.String(), err
}

func TestRoutesOfTheGatewayAreListed(t *testing.T) {
	m, addr := manageable(t, map[string]string{"GET /gateway/v1/routes": `[
		{"id":"service:telemetry","kind":"service","source":"registry","paths":["/services/telemetry/**"],"hostNames":["telemetry.mec.example"],"service":"telemetry","policy":"*",
		 "targets":[{"url":"http://192.0.2.7:80","state":"up"},{"url":"http://192.0.2.8:80","state":"ejected","reason":"5 failures"}]},
		{"id":"a","kind":"static","source":"management","hosts":["h.example"],"methods":["GET","PUT"],"paths":["/a","/b"],"refused":"no filter"}]`})
	out, _, err := run(t, gatewayCommand, "routes", "--dev", "--url", "http://"+addr)
	require.NoError(t, err)
	require.Equal(t, strings.TrimLeft(`
ID                 SOURCE      TAKES                                                LEADS TO             STATE                POLICY
service:telemetry  registry    /services/telemetry/** or telemetry.mec.example /**  http://192.0.2.7:80  up                   *
                                                                                    http://192.0.2.8:80  ejected: 5 failures  
a                  management  GET,PUT h.example /a,/b                              -                    no target            - (latest definition refused: no filter)
`, "\n"), out)
	out, _, err = run(t, gatewayCommand, "routes", "--dev", "--url", "http://"+addr, "--kind", "service", "--service", "telemetry", "--source", "registry", "--json")
	require.NoError(t, err)
	var list []gateway.RouteView
	require.NoError(t, json.Unmarshal([]byte(out), &list))
	require.Len(t, list, 2)
	require.Equal(t, []string{
		"GET /gateway/v1/routes?limit=1000", "GET /gateway/v1/routes?kind=service&limit=1000&service=telemetry&source=registry",
	}, m.asked)
}

func TestACallIsExplained(t *testing.T) {
	_, addr := manageable(t, map[string]string{"POST /gateway/v1/explain": `{"route":{"id":"service:x","source":"registry","policy":"*"},"status":403,
		"reason":"the rule 1 denies it","path":"/a","filters":["authn","authz"],"targets":[{"url":"http://192.0.2.7:80","state":"up"}],
		"steps":[{"name":"route","result":"service:x"},{"name":"rules","result":"deny"}]}`})
	out, _, err := run(t, gatewayCommand, "explain", "get", "/services/x/a", "--consumer", "c", "--header", "X-A: b", "--dev", "--url", "http://"+addr)
	require.NoError(t, err)
	require.Equal(t, strings.TrimLeft(`
outcome    403: the rule 1 denies it
route      service:x (registry)
policy     *
passed on  /a
filters    authn, authz
targets    http://192.0.2.7:80 up

STEP   RESULT
route  service:x
rules  deny
`, "\n"), out)
	out, _, err = run(t, gatewayCommand, "explain", "GET", "/x", "--dev", "--url", "http://"+addr, "--json")
	require.NoError(t, err)
	require.Contains(t, out, `"status": 403`)
}

func TestTheGatewayTellsItsStatusAndCounts(t *testing.T) {
	m, addr := manageable(t, map[string]string{
		"GET /gateway/v1/status": `{"revision":7,"routes":3,"services":1,"policies":2,"loaded":"2026-11-23T05:00:00Z","reloads":4,"notReloaded":{"time":"2026-11-23T06:00:00Z","reason":"a\nb"},"stale":true,"filters":["f"],
			"refused":[{"kind":"route","id":"a","reason":"no filter"}]}`,
		"GET /gateway/v1/statistics": `{"resolution":"hour","series":[{"service":"s","consumer":"","points":[
			{"time":"2026-11-23T05:00:00Z","calls":4,"refused":1,"failed":2,"millis":10,"bytes":2048}]}]}`,
		"GET /gateway/v1/export": "_format_version: \"3.0\"\n",
	})
	out, _, err := run(t, gatewayCommand, "status", "--dev", "--url", "http://"+addr)
	require.NoError(t, err)
	require.Equal(t, strings.TrimLeft(`
routes         3, services: 1
policies       2
revision       7
configuration  read 2026-11-23T05:00:00Z, reloads since the start: 4
not reloaded   2026-11-23T06:00:00Z: a; b
filters        f
etcd           is away: this is what was known last
refused        route a: no filter
`, "\n"), out)
	out, _, err = run(t, gatewayCommand, "stats", "--service", "s", "--resolution", "hour", "--since", "2h", "--dev", "--url", "http://"+addr)
	require.NoError(t, err)
	require.Contains(t, out, "s        -         4      1        2       2.5      2048")
	require.Contains(t, m.asked[1], "/gateway/v1/statistics?from=")
	out, _, err = run(t, gatewayCommand, "export", "--format", "kong", "--dev", "--url", "http://"+addr)
	require.NoError(t, err)
	require.Equal(t, "_format_version: \"3.0\"\n", out)
	require.Equal(t, "GET /gateway/v1/export?format=kong", m.asked[2])
	for _, command := range []string{"status", "stats"} {
		out, _, err = run(t, gatewayCommand, command, "--json", "--dev", "--url", "http://"+addr)
		require.NoError(t, err)
		require.True(t, json.Valid([]byte(out)), command)
	}
}

func TestAPIKeysAreMadeAndDeleted(t *testing.T) {
	const id = "0123456789abcdef"
	m, addr := manageable(t, map[string]string{
		"POST /gateway/v1/api_keys":         `{"id":"` + id + `","consumer":"c","created":"2026-11-23T05:00:00Z","expires":"2026-11-24T05:00:00Z","key":"mepk_secret"}`,
		"GET /gateway/v1/api_keys":          `[{"id":"` + id + `","consumer":"c","scopes":["mp1"],"created":"2026-11-23T05:00:00Z"}]`,
		"DELETE /gateway/v1/api_keys/" + id: `{}`,
	})
	dir := t.TempDir()
	file := filepath.Join(dir, "mepm.json")
	require.NoError(t, os.WriteFile(file, []byte(`{"accessKeyId":"`+strings.Repeat("a", 20)+`","secretKey":"`+strings.Repeat("s", 64)+
		`","scopes":["mm5"],"urls":{"auth":"http://`+addr+`","gateway-management":"http://`+addr+`"}}`), 0o600))

	out, said, err := run(t, apikeyCommand, "create", "--consumer", "c", "--lifetime", "24h", "--credentials", file)
	require.NoError(t, err)
	require.Equal(t, "mepk_secret\n", out, "for scripts")
	require.Contains(t, said, "API key "+id+" of c, good until ")
	require.Equal(t, "Bearer let-me-in", m.token)
	out, _, err = run(t, apikeyCommand, "list", "--consumer", "c", "--credentials", file)
	require.NoError(t, err)
	require.Contains(t, out, id+"  c         mp1     all")
	require.Contains(t, out, "never")
	out, _, err = run(t, apikeyCommand, "delete", id, "--credentials", file)
	require.NoError(t, err)
	require.Equal(t, "deleted: "+id+"\n", out)
	require.Equal(t, []string{"POST /gateway/v1/api_keys", "GET /gateway/v1/api_keys?consumer=c&limit=1000", "DELETE /gateway/v1/api_keys/" + id}, m.asked)
}

func TestCommandsOfTheGatewayThatAreRefused(t *testing.T) {
	_, addr := manageable(t, nil)
	at := []string{"--dev", "--url", "http://" + addr}
	for name, x := range map[string]struct {
		command func(*Spec) *cobra.Command
		args    []string
		want    string
	}{
		"no format":     {gatewayCommand, []string{"export"}, "say for which gateway: --format kong or --format envoy"},
		"no header":     {gatewayCommand, []string{"explain", "GET", "/", "--header", "x"}, `--header must be NAME: VALUE, not "x"`},
		"no URL":        {gatewayCommand, []string{"explain", "GET"}, "accepts 2 arg(s)"},
		"no consumer":   {apikeyCommand, []string{"create"}, "say whom the key is for: --consumer"},
		"no id":         {apikeyCommand, []string{"delete", "mepk_0123456789abcdef_secret"}, "give one id of an API key"},
		"refused":       {gatewayCommand, []string{"status"}, "400 Bad request"},
		"list refused":  {gatewayCommand, []string{"routes"}, "400 Bad request"},
		"stats refused": {gatewayCommand, []string{"stats"}, "400 Bad request"},
		"keys refused":  {apikeyCommand, []string{"list"}, "400 Bad request"},
		"key refused":   {apikeyCommand, []string{"create", "--consumer", "c"}, "400 Bad request"},
		"kept":          {apikeyCommand, []string{"delete", "0123456789abcdef"}, "400 Bad request"},
		"not exported":  {gatewayCommand, []string{"export", "--format", "envoy"}, "400 Bad request"},
		"not explained": {gatewayCommand, []string{"explain", "GET", "/"}, "400 Bad request"},
		"nobody there":  {gatewayCommand, []string{"status", "--url", "http://127.0.0.1:1"}, "the management of the gateway does not answer (is the platform running, and gateway.managementListen or --url right?)"},
	} {
		// The case's own arguments come last, and win.
		_, _, err := run(t, x.command, slices.Concat(x.args[:1], at, x.args[1:])...)
		require.ErrorContains(t, err, x.want, name)
	}
}
