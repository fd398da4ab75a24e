package blackbox

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/kit/etcdtest"
	"github.com/openmep/mep/tests/harness"
)

// file writes a file for one test.
func file(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	return path
}

func TestVersion(t *testing.T) {
	t.Parallel()
	for _, program := range []string{"mep", "mepserver", "mepauth", "dnsagent"} {
		out := harness.Run(t, program, []string{"version"})
		require.Zero(t, out.Code)
		require.Regexp(t, "^"+program+` \S+\n$`, out.Output)
	}
}

func TestValidate(t *testing.T) {
	t.Parallel()
	for name, x := range map[string]struct {
		file string
		args []string
		env  []string
		code int
		says []string
	}{
		"a good file":              {file: "dev: true\nmp1:\n  listen: 127.0.0.1:0\nliveness: {min: 2s, max: 10s}\nlimits.services: 5\n", says: []string{"valid"}},
		"an empty file":            {file: "", says: []string{"valid"}},
		"nothing but comments":     {file: "# nothing\n---\n", says: []string{"valid"}},
		"every kind of transport":  {file: "transports: [{id: a, name: n, type: T, protocol: P, version: '1', endpoint: {fqdn: [a.example]}, security: {}}]\n", says: []string{"valid"}},
		"an unknown key":           {file: "dev: true\n\nmp1:\n  listen: :0\n  lisen: :1\n", code: 1, says: []string{":5:", `"mp1.lisen"`, "mp1.listen"}},
		"an unknown key at root":   {file: "# c\nmp2: 5\n", code: 1, says: []string{":2:", `"mp2"`}},
		"a key twice":              {file: "dev: true\nlimits: {services: 1}\nlimits.services: 2\n", code: 1, says: []string{":3:", "limits.services", "twice"}},
		"a bad number":             {file: "dev: true\nlimits:\n  services: many\n", code: 1, says: []string{":3:", "limits.services", "many"}},
		"a bad duration":           {file: "liveness: {min: 5}\n", code: 1, says: []string{":1:", "liveness.min"}},
		"a bad boolean":            {file: "dev: perhaps\n", code: 1, says: []string{":1:", "dev", "perhaps"}},
		"a key without value":      {file: "limits:\n  services:\n", code: 1, says: []string{":2:", "limits.services"}},
		"a list for a value":       {file: "limits:\n  services: [1]\n", code: 1, says: []string{":2:", "limits.services"}},
		"a value out of range":     {file: "limits: {services: 0}\n", code: 1, says: []string{"limits.services"}},
		"values that do not match": {file: "liveness: {min: 10s, max: 5s}\n", code: 1, says: []string{"liveness.min", "liveness.max"}},
		"several faults":           {file: "limits: {services: 0}\ndrain: 10s\n", code: 1, says: []string{"limits.services", "drain"}},
		"no YAML":                  {file: "dev: [true\n", code: 1, says: []string{"config.yaml"}},
		"a list":                   {file: "- dev\n", code: 1, says: []string{"config.yaml:1"}},
		"a bad transport":          {file: "transports: [{id: a, name: n, type: T, protocol: P, version: '1', endpoint: {uris: [x]}}]\n", code: 1, says: []string{"transports[0].security"}},
		"a transport twice":        {file: "transports:\n- &t {id: a, name: n, type: T, protocol: P, version: '1', endpoint: {uris: [x]}, security: {}}\n- *t\n", code: 1, says: []string{"transports[1].id", "twice"}},
		"a bad public URL":         {file: "publicUrl: /edge\n", code: 1, says: []string{"publicUrl", "/edge"}},
		"a bad log level":          {file: "log: {level: loud}\n", code: 1, says: []string{"loud"}},
		"a bad log format":         {file: "log: {format: xml}\n", code: 1, says: []string{"xml"}},
		"a bad listener":           {args: []string{"--mm5-listen", "127.0.0.1:0", "--mp1-listen", "8088"}, code: 1, says: []string{"mp1.listen", "8088"}},
		"a bad prefix":             {args: []string{"--mp1-prefixes", "mep"}, code: 1, says: []string{"mp1.prefixes", "mep"}},
		"an unknown flag":          {args: []string{"--mp1-lisen", ":1"}, code: 1, says: []string{"--mp1-lisen"}},
		"a bad flag":               {args: []string{"--limits-services", "x"}, code: 1, says: []string{"--limits-services"}},
		"a bad variable":           {env: []string{"MEP_LIMITS_SERVICES=x"}, code: 1, says: []string{"MEP_LIMITS_SERVICES"}},
		"a good DNS server":        {file: "dns: {zones: [mec.example], forward: [192.0.2.53, 'tls://[2001:db8::1]#dot.example'], forwardZones: [{zone: corp.example}], views: [{name: ue, clients: [10.0.0.0/8], names: ['*.app.example']}]}\n", says: []string{"valid"}},
		"a bad DNS zone":           {file: "dns: {zones: [mec..example]}\n", code: 1, says: []string{"dns.zones", "mec..example"}},
		"a bad forwarder":          {file: "dns: {forward: [dns.example]}\n", code: 1, says: []string{"dns.forward", "dns.example"}},
		"a forwarder's zone twice": {file: "dns: {forwardZones: [{zone: a.example}, {zone: A.example}]}\n", code: 1, says: []string{"dns.forwardZones", "twice"}},
		"a view without clients":   {file: "dns: {views: [{name: ue}]}\n", code: 1, says: []string{"dns.views", "clients"}},
		"a view with a bad app":    {file: "dns: {views: [{name: ue, clients: [10.0.0.1], apps: [x]}]}\n", code: 1, says: []string{"dns.views", "UUID"}},
		"clients of two views":     {file: "dns: {views: [{name: a, clients: [10.0.0.0/8]}, {name: b, clients: [10.0.0.0/8]}]}\n", code: 1, says: []string{"dns.views", "10.0.0.0/8"}},
		"an unknown key of a view": {file: "dns:\n  views:\n  - {name: ue, client: [10.0.0.1]}\n", code: 1, says: []string{"config.yaml:3", "client"}},
		"a bad network":            {file: "dns: {allowQuery: [10.0.0.0/33]}\n", code: 1, says: []string{"dns.allowQuery", "10.0.0.0/33"}},
		"a DNS size out of range":  {file: "dns: {udpSize: 100}\n", code: 1, says: []string{"dns.udpSize", "512"}},
		"a bad name server":        {file: "dns: {nameservers: [ns.example=x]}\n", code: 1, says: []string{"dns.nameservers", "ns.example=x"}},
		"no secret for cookies":    {file: "dns: {cookieSecretFile: /nowhere}\n", code: 1, says: []string{"dns.cookieSecretFile", "/nowhere"}},
		"a forwarder of its own":   {file: "dns: {zones: [mec.example], forwardZones: [{zone: a.mec.example}]}\n", code: 1, says: []string{"dns.forwardZones", "a.mec.example"}},
		"services in a zone":       {file: "dns: {zones: [mec.example], serviceZone: mec.example}\n", code: 1, says: []string{"dns.serviceZone"}},
		"a DNS server lame long":   {file: "dns: {lameDuck: 4s}\n", code: 1, says: []string{"dns.lameDuck", "3s"}},
		"DNS over TLS in dev":      {args: []string{"--dev", "--dns-tls-listen", "127.0.0.1:0"}, code: 1, says: []string{"dns.tlsListen"}},
		"a filter there is not":    {file: "gateway: {filters: [{name: nothing, exclude: [x]}]}\n", code: 1, says: []string{"gateway.filters[0]", "nothing", "exclude[0]"}},
		"a proxy that is no URL":   {file: "gateway: {proxy: \"not a url\"}\n", code: 1, says: []string{"gateway", "http://proxy.example:3128"}},
		"records in small files":   {file: "gateway: {records: {maxBytes: 2000}}\n", code: 1, says: []string{"gateway", "2000 bytes"}},
		"less than no old files":   {file: "gateway: {records: {keep: -5}}\n", code: 1, says: []string{"gateway", "-5 old files"}},
		"a mask that is no path":   {file: "gateway: {records: {maskPaths: [nonsense]}}\n", code: 1, says: []string{"gateway", "nonsense"}},
		"no certificate to show":   {file: "gateway: {clientCertificates: [{name: x, cert: /nowhere, key: /nowhere}]}\n", code: 1, says: []string{"gateway.clientCertificates[0]", "/nowhere"}},
		"a certificate not named":  {file: "gateway: {policies: {x: {upstream: {clientCertificate: nix}}}}\n", code: 1, says: []string{"policy x", "upstream.clientCertificate", "nix"}},
		"dev on any address":       {args: []string{"--dev", "--mm5-listen", "127.0.0.1:0", "--mp1-listen", "0.0.0.0:0"}, code: 1, says: []string{"mp1.listen", "0.0.0.0", "loopback"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			args := append([]string{"validate"}, x.args...)
			if x.args == nil && x.env == nil {
				args = append(args, "--config", file(t, "config.yaml", x.file))
			}
			out := harness.Run(t, "mep", args, harness.Env(x.env...))
			require.Equal(t, x.code, out.Code, out.Output)
			for _, s := range x.says {
				require.Contains(t, out.Output, s)
			}
		})
	}
	t.Run("a file that is not there", func(t *testing.T) {
		t.Parallel()
		out := harness.Run(t, "mep", []string{"validate", "--config", "/nowhere/config.yaml"})
		require.Equal(t, 1, out.Code)
		require.Contains(t, out.Output, "/nowhere/config.yaml")
	})
	t.Run("the file may be named by a variable", func(t *testing.T) {
		t.Parallel()
		out := harness.Run(t, "mep", []string{"validate"}, harness.Env("MEP_CONFIG="+file(t, "config.yaml", "mp2: 5\n")))
		require.Equal(t, 1, out.Code)
		require.Contains(t, out.Output, "config.yaml:1")
	})
	t.Run("the daemon needs etcd", func(t *testing.T) {
		t.Parallel()
		require.Equal(t, 1, harness.Run(t, "mepserver", []string{"validate"}).Code)
		require.Zero(t, harness.Run(t, "mepserver", []string{"validate", "--etcd-endpoints", "127.0.0.1:2379"}).Code)
		require.Equal(t, 1, harness.Run(t, "dnsagent", []string{"validate"}).Code)
		require.Zero(t, harness.Run(t, "dnsagent", []string{"validate", "--etcd-endpoints", "127.0.0.1:2379"}).Code)
	})
}

func TestHealthcheck(t *testing.T) {
	t.Parallel()
	p := harness.Start(t)
	out := harness.Run(t, "mep", []string{"healthcheck", "--ops-listen", p.Addr("ops")})
	require.Zero(t, out.Code, out.Output)
	require.Contains(t, out.Output, "ready")
	_, port, _ := strings.Cut(p.Addr("ops"), ":")
	require.Zero(t, harness.Run(t, "mep", []string{"healthcheck"}, harness.Env("MEP_OPS_LISTEN=:"+port, "MEP_DEV=true")).Code)
	require.Zero(t, harness.Run(t, "mepserver", []string{"healthcheck", "--config", file(t, "c.yaml", "ops.listen: "+p.Addr("ops")+"\n")}).Code)

	addr := p.Addr("ops")
	p.Stop()
	out = harness.Run(t, "mep", []string{"healthcheck", "--ops-listen", addr})
	require.Equal(t, 1, out.Code)
	require.Contains(t, out.Output, addr)

	t.Run("of a process that is not ready", func(t *testing.T) {
		p := harness.StartMepserver(t, "unix:///nowhere/etcd.sock", harness.Unready())
		out := harness.Run(t, "mepserver", []string{"healthcheck", "--ops-listen", p.Addr("ops")})
		require.Equal(t, 1, out.Code)
		require.Contains(t, out.Output, "not ready")
		require.Contains(t, out.Output, "etcd", "it says what is missing")
		p.Client(t).Get(services).Problem(503)
		status, ready, err := p.Ready()
		require.NoError(t, err)
		require.Equal(t, 503, status)
		require.NotEmpty(t, ready.NotReady)
		require.Equal(t, p.URL("mp1"), ready.Listeners["mp1"])
		p.Ops(t).Get("/healthz").Is(200)
	})
	t.Run("of something else", func(t *testing.T) {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		srv := &http.Server{Handler: http.NotFoundHandler(), ReadHeaderTimeout: time.Second}
		go func() { _ = srv.Serve(ln) }()
		t.Cleanup(func() { _ = srv.Close() })
		require.Equal(t, 1, harness.Run(t, "mep", []string{"healthcheck", "--ops-listen", ln.Addr().String()}).Code)
	})
}

func TestAStartThatIsRefusedSaysWhy(t *testing.T) {
	t.Parallel()
	busy, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = busy.Close() })
	notADirectory := file(t, "file", "")
	taken := busy.Addr().String()
	dev := func(program string, more ...string) []string {
		return append(harness.Development(program, more...), "--data-dir", "d")
	}
	for name, x := range map[string]struct {
		program string
		args    []string
		says    []string
	}{
		"the daemon without etcd":       {"mepserver", dev("mepserver"), []string{"--etcd-endpoints"}},
		"the daemon without a command":  {"mepserver", dev("mepserver")[1:], []string{"--etcd-endpoints"}},
		"--dev with any address":        {"mep", dev("mep", "--mp1-listen", "0.0.0.0:0"), []string{"mp1.listen", "loopback"}},
		"--dev with any IPv6 address":   {"mep", dev("mep", "--mp1-listen", "[::]:0"), []string{"mp1.listen", "loopback"}},
		"--dev with a public address":   {"mep", dev("mep", "--mp1-listen", "192.0.2.1:0"), []string{"mp1.listen", "loopback"}},
		"--dev with a name":             {"mep", dev("mep", "--mp1-listen", "edge.example:0"), []string{"mp1.listen", "loopback"}},
		"--dev with operations outside": {"mep", dev("mep", "--ops-listen", "0.0.0.0:0"), []string{"ops.listen", "loopback"}},
		"a port that is taken":          {"mep", dev("mep", "--mp1-listen", taken), []string{"mp1", "in use"}},
		"operations' port taken":        {"mep", dev("mep", "--ops-listen", taken), []string{"ops", "in use"}},
		"the DNS port taken":            {"mep", dev("mep", "--dns-listen", taken), []string{"dns.listen", "in use", "ss -lntup"}},
		"the DNS management's taken":    {"mep", dev("mep", "--dns-management-listen", taken), []string{"dns-management", "in use"}},
		"a DNS agent without etcd":      {"dnsagent", dev("dnsagent"), []string{"--etcd-endpoints"}},
		"--dev with DNS outside":        {"mep", dev("mep", "--dns-listen", "0.0.0.0:0"), []string{"dns.listen", "loopback"}},
		"a data directory that is none": {"mep", append(harness.Development("mep"), "--data-dir", notADirectory), []string{notADirectory}},
		"arguments":                     {"mep", dev("mep", "now"), []string{"now"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			out := harness.Run(t, x.program, x.args)
			require.Equal(t, 1, out.Code, out.Output)
			for _, s := range x.says {
				require.Contains(t, out.Output, s)
			}
			require.NotContains(t, out.Output, "goroutine")
		})
	}
}

func TestTwoProcessesDoNotShareADataDirectory(t *testing.T) {
	t.Parallel()
	p := harness.Start(t)
	a := newApp(p.Client(t))
	svc := a.register(own("x"))
	out := harness.Run(t, "mep", append(harness.Development("mep"), "--data-dir", p.DataDir))
	require.Equal(t, 1, out.Code)
	require.Contains(t, out.Output, p.DataDir)
	require.Contains(t, out.Output, "in use")
	require.Equal(t, svc.etag, a.Get(a.service(svc.id)).ETag(), "the first goes on")
	p.Kill()
	p.Restart()
	require.Equal(t, svc.etag, a.Get(a.service(svc.id)).ETag(), "a lock does not outlive its process")
}

func TestStopEndsInTimeWhateverIsGoingOn(t *testing.T) {
	t.Parallel()
	t.Run("nothing", func(t *testing.T) {
		t.Parallel()
		p := harness.Start(t)
		p.Stop()
	})
	t.Run("SIGINT does the same", func(t *testing.T) {
		t.Parallel()
		p := harness.Start(t, harness.MayFail())
		p.Signal(syscall.SIGINT)
		require.Zero(t, p.Ended())
	})
	t.Run("requests and subscribers that hang", func(t *testing.T) {
		t.Parallel()
		p := harness.Start(t)
		cb := harness.NewSubscriber(t)
		cb.Behave(cb.Hang())
		a := newApp(p.Client(t))
		for i := range 10 {
			a.subscribe(cb.URL(fmt.Sprint("/", i)), nil)
		}
		svc := a.register(own("x"))
		harness.Eventually(t, "the subscribers are called", func() error { return harness.Not(len(cb.All()) == 10, "%d are", len(cb.All())) })
		for range 20 {
			_, err := fmt.Fprintf(p.Dial(t, "mp1"), "POST %s HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n{", a.services())
			require.NoError(t, err)
			_, err = io.WriteString(p.Dial(t, "mp1"), "GET "+services)
			require.NoError(t, err)
		}
		// These idle.
		conn := p.Dial(t, "mp1")
		_, err := fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: a\r\n\r\n", services)
		require.NoError(t, err)
		answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
		require.NoError(t, err)
		require.NoError(t, answer.Body.Close())
		p.Stop()
		cb.Behave(harness.Status(204))
		p.Restart()
		require.Equal(t, svc.etag, a.Get(a.service(svc.id)).ETag())
		harness.Eventually(t, "the notifications are delivered after all", func() error {
			for i := range 10 {
				if got := cb.Changes(fmt.Sprint("/", i)); len(got) != 1 {
					return fmt.Errorf("%d: %v", i, got)
				}
			}
			return harness.Not(len(deliveries(t, p)) == 10 && deliveries(t, p)[9].Pending == 0, "pending")
		})
	})
	t.Run("an operator's request that takes long", func(t *testing.T) {
		t.Parallel()
		p := harness.Start(t)
		conn := p.Dial(t, "ops")
		_, err := io.WriteString(conn, "GET /debug/pprof/profile?seconds=30 HTTP/1.1\r\nHost: a\r\n\r\n")
		require.NoError(t, err)
		_, err = fmt.Fprintf(p.Dial(t, "mp1"), "POST %s HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n{", newApp(p.Client(t)).services())
		require.NoError(t, err)
		harness.Eventually(t, "both are under way", func() error {
			metrics := string(p.Ops(t).Get("/metrics").Is(200).Body)
			return harness.Not(strings.Contains(metrics, `mep_http_requests_in_flight{listener="mp1"} 1`) &&
				strings.Contains(metrics, `mep_http_requests_in_flight{listener="ops"} 2`), "%s", metrics)
		})
		p.Stop()
	})
	t.Run("half-open requests at every listener", func(t *testing.T) {
		t.Parallel()
		p := harness.Start(t)
		for _, listener := range []string{"mp1", "ops"} {
			_, err := io.WriteString(p.Dial(t, listener), "GET /healthz HTTP/1.1\r\n")
			require.NoError(t, err)
		}
		p.Stop()
	})
	t.Run("while it starts", func(t *testing.T) {
		t.Parallel()
		p := harness.StartMepserver(t, "unix:///nowhere/etcd.sock", harness.Unready())
		p.Stop()
	})
}

func TestARequestUnderWayIsFinishedBeforeTheProcessEnds(t *testing.T) {
	t.Parallel()
	p := harness.Start(t)
	a := newApp(p.Client(t))
	body, err := json.Marshal(own("x"))
	require.NoError(t, err)
	conn := p.Dial(t, "mp1")
	_, err = fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%s", a.services(), len(body), body[:10])
	require.NoError(t, err)
	harness.Eventually(t, "the request is under way", func() error {
		metrics := string(p.Ops(t).Get("/metrics").Is(200).Body)
		return harness.Not(strings.Contains(metrics, `mep_http_requests_in_flight{listener="mp1"} 1`), "it is not")
	})
	wait := p.Terminate()
	harness.Eventually(t, "new connections are refused", func() error {
		other, err := net.Dial("tcp", p.Addr("mp1"))
		if err != nil {
			return nil
		}
		_ = other.Close()
		return fmt.Errorf("they are not")
	})
	_, err = conn.Write(body[10:])
	require.NoError(t, err)
	answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
	require.NoError(t, err)
	require.Equal(t, 201, answer.StatusCode)
	var info object
	require.NoError(t, json.NewDecoder(answer.Body).Decode(&info))
	require.NoError(t, answer.Body.Close())
	wait()
	p.Restart()
	a.Get(a.service(info["serInstanceId"].(string))).Is(200)
}

func TestACleanStopLeavesNothingBehind(t *testing.T) {
	t.Parallel()
	tmp, err := os.MkdirTemp("", "mept") //nolint:usetesting // the path of a socket must be short
	require.NoError(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(tmp) })
	p := harness.Start(t, harness.Env("TMPDIR="+tmp))
	p.Stop()
	left, err := os.ReadDir(tmp)
	require.NoError(t, err)
	require.Empty(t, left)
	p.Restart()
	p.Kill()
	p.Restart()
	p.Stop()
	left, err = os.ReadDir(tmp)
	require.NoError(t, err)
	require.LessOrEqual(t, len(left), 1, "what a killed process left does not add up")
}

func TestSIGHUPChangesAllOrNothing(t *testing.T) {
	t.Parallel()
	p := harness.Start(t, harness.Config("limits: {services: 1}\n"))
	a := newApp(p.Client(t))
	a.register(own("one"))
	limit := func(want int) {
		t.Helper()
		b := newApp(p.Client(t))
		for i := range want {
			b.register(own(fmt.Sprint(i)))
		}
		problem := b.Post(b.services(), own("one more")).Problem(403)
		require.Contains(t, problem.Detail, fmt.Sprint(want))
	}
	limit(1)
	require.True(t, p.Reload("limits: {services: 2}\n"))
	limit(2)
	for name, bad := range map[string]string{
		"an unknown key":       "limits: {services: 3, servces: 4}\n",
		"a bad value":          "limits: {services: 3}\nliveness: {min: soon}\n",
		"a value out of range": "limits: {services: 3, subscriptions: 0}\n",
		"no YAML":              "limits: {services: 3\n",
		"a bad log level":      "limits: {services: 3}\nlog: {level: loud}\n",
		"bounds out of order":  "limits: {services: 3}\nliveness: {min: 1h, max: 1s}\n",
		"a bad transport":      "limits: {services: 3}\ntransports: [{id: x}]\n",
	} {
		require.False(t, p.Reload(bad), name)
		limit(2)
	}
	require.NoError(t, os.Remove(p.ConfigFile))
	before := strings.Count(p.Log(), "configuration not reloaded")
	p.Signal(syscall.SIGHUP)
	harness.Eventually(t, "the missing file is noticed", func() error {
		return harness.Not(strings.Count(p.Log(), "configuration not reloaded") > before, "it is not")
	})
	limit(2)

	addr := p.Addr("mp1")
	require.True(t, p.Reload("limits: {services: 4, connections: 5}\nstorage: {reserve: 5}\n"))
	limit(4)
	require.Regexp(t, `need a restart.*limits.connections`, p.Log(), "what cannot change at once is named")
	require.Equal(t, addr, p.Addr("mp1"))

	require.True(t, p.Reload("callbacks: {allowLoopback: false}\n"))
	a.Post(a.subscriptions(), subscription("http://127.0.0.1:9/")).Problem(400)
	require.True(t, p.Reload(""))
	a.Post(a.subscriptions(), subscription("http://127.0.0.1:9/")).Is(201)
	require.True(t, p.Reload("limits: {body: 100, uri: 60}\n"))
	a.Post(a.services(), own("x")).Problem(414)
	p.Client(t).Get(services + "?ser_name=" + strings.Repeat("x", 60)).Problem(414)
	require.True(t, p.Reload("limits: {body: 100}\n"))
	a.Post(a.services(), own("x")).Problem(413)
}

func TestSettingsComeFromFileThenEnvironmentThenFlags(t *testing.T) {
	t.Parallel()
	for name, x := range map[string]struct {
		options []harness.Option
		limit   int
	}{
		"the file":                     {[]harness.Option{harness.Config("limits:\n  services: 1\n")}, 1},
		"the file, with dots":          {[]harness.Option{harness.Config("limits.services: 1\n")}, 1},
		"the environment":              {[]harness.Option{harness.Env("MEP_LIMITS_SERVICES=2")}, 2},
		"the environment over file":    {[]harness.Option{harness.Config("limits: {services: 1}\n"), harness.Env("MEP_LIMITS_SERVICES=2")}, 2},
		"a flag over both":             {[]harness.Option{harness.Config("limits: {services: 1}\n"), harness.Env("MEP_LIMITS_SERVICES=2"), harness.Args("--limits-services=3")}, 3},
		"a flag over the file":         {[]harness.Option{harness.Config("limits: {services: 1}\n"), harness.Args("--limits-services", "3")}, 3},
		"a flag over the default":      {[]harness.Option{harness.Args("--limits-services=3")}, 3},
		"a flag set to the default":    {[]harness.Option{harness.Env("MEP_LIMITS_SERVICES=2"), harness.Args("--limits-services=1000")}, 1000},
		"a file named by the variable": {[]harness.Option{harness.Env("MEP_CONFIG=" + file(t, "c.yaml", "limits: {services: 1}\n"))}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := harness.Start(t, x.options...)
			a := newApp(p.Unchecked(t))
			for i := range min(x.limit, 4) {
				a.register(own(fmt.Sprint(i)))
			}
			answer := p.Client(t).Post(a.services(), own("one more"))
			if x.limit > 4 {
				answer.Is(201)
				return
			}
			answer.Problem(403)
		})
	}
	t.Run("a default of development mode gives way to all of them", func(t *testing.T) {
		t.Parallel()
		for name, x := range map[string]struct {
			options []harness.Option
			status  int
		}{
			"nothing":                   {nil, 201},
			"the file":                  {[]harness.Option{harness.Config("callbacks: {allowLoopback: false}\n")}, 400},
			"the environment over file": {[]harness.Option{harness.Config("callbacks: {allowLoopback: false}\n"), harness.Env("MEP_CALLBACKS_ALLOW_LOOPBACK=true")}, 201},
			"a flag over environment":   {[]harness.Option{harness.Env("MEP_CALLBACKS_ALLOW_LOOPBACK=true"), harness.Args("--callbacks-allow-loopback=false")}, 400},
		} {
			p := harness.Start(t, x.options...)
			a := newApp(p.Client(t))
			require.Equal(t, x.status, a.Post(a.subscriptions(), subscription("http://127.0.0.1:9/")).Status, name)
		}
	})
	t.Run("--dev may be set in any way", func(t *testing.T) {
		t.Parallel()
		args := []string{"validate", "--mm5-listen", "127.0.0.1:0", "--mp1-listen", "0.0.0.0:0"}
		require.Zero(t, harness.Run(t, "mep", args).Code)
		require.Equal(t, 1, harness.Run(t, "mep", args, harness.Env("MEP_DEV=true")).Code)
		require.Equal(t, 1, harness.Run(t, "mep", append(args, "--config", file(t, "c.yaml", "dev: true\n"))).Code)
		require.Zero(t, harness.Run(t, "mep", append(args, "--dev=false"), harness.Env("MEP_DEV=true")).Code)
	})
	t.Run("the prefixes", func(t *testing.T) {
		t.Parallel()
		p := harness.Start(t, harness.Args("--mp1-prefixes", "/edge,/mep"))
		c := p.Client(t)
		c.Get(services).Problem(404)
		c.Get("/edge" + services).Is(200)
		c.Get("/mep" + services).Is(200)
		p = harness.Start(t, harness.Args("--mp1-prefixes", ""))
		c = p.Client(t)
		c.Get(services).Is(200)
		c.Get("/mep" + services).Problem(404)
	})
}

func TestLimitsPerApp(t *testing.T) {
	t.Parallel()
	p := harness.Start(t, harness.Args("--limits-services=3", "--limits-subscriptions=2"))
	t.Run("services", func(t *testing.T) {
		t.Parallel()
		a := newApp(p.Client(t))
		var ids []string
		for i := range 3 {
			ids = append(ids, a.register(own(fmt.Sprint(i))).id)
		}
		problem := a.Post(a.services(), own("x")).Problem(403)
		require.Contains(t, problem.Detail, "3")
		a.replace(ids[0], own("y"))
		newApp(a.Client).register(own("of another app"))
		a.remove(ids[1])
		a.register(own("x"))
		a.Post(a.services(), own("x")).Problem(403)
	})
	t.Run("subscriptions", func(t *testing.T) {
		t.Parallel()
		a := newApp(p.Client(t))
		first := a.subscribe("http://10.0.0.1/", nil)
		a.subscribe("http://10.0.0.1/", nil)
		a.Post(a.subscriptions(), subscription("http://10.0.0.1/")).Problem(403)
		a.Delete(a.subscription(first)).Is(204)
		a.subscribe("http://10.0.0.1/", nil)
	})
	t.Run("many at once", func(t *testing.T) {
		t.Parallel()
		a := newApp(p.Client(t))
		outcome := make(chan int, 12)
		for range cap(outcome) {
			go func() {
				answer, err := a.Try("POST", a.services(), own("x"))
				if err != nil {
					t.Error(err)
					outcome <- 0
					return
				}
				outcome <- answer.Status
			}()
		}
		count := map[int]int{}
		for range cap(outcome) {
			count[<-outcome]++
		}
		require.Equal(t, map[int]int{201: 3, 403: cap(outcome) - 3}, count)
		require.Len(t, a.Get(a.services()).Array(), 3)
	})
}

func TestTheDaemonRunsWithoutACommand(t *testing.T) {
	t.Parallel()
	etcd := etcdtest.Start(t)
	p := harness.StartMepserver(t, etcd.Endpoint(), harness.NoCommand())
	a := newApp(p.Client(t))
	a.remove(a.register(own("x")).id)
}

// Whoever reads the log may die and come back; the platform does not wait for it, nor end with it.
func TestTheEndOfTheLogIsNotTheEndOfTheProcess(t *testing.T) {
	t.Parallel()
	p := harness.Start(t, harness.Config("limits: {services: 1}\n"))
	p.CloseLog()
	a := newApp(p.Client(t))
	for services := 1; services <= 4; services++ {
		// Settings that need a restart are a warning, which is written at once.
		p.Configure(fmt.Sprintf("limits: {services: %d, connections: 5}\n", services))
		p.Signal(syscall.SIGHUP)
		harness.Eventually(t, fmt.Sprintf("service %d can be registered", services), func() error {
			answer := a.Post(a.services(), own("x"))
			return harness.Not(answer.Status == 201, "answered %d", answer.Status)
		})
	}
}

func TestOperationsListener(t *testing.T) {
	t.Parallel()
	p := harness.Start(t)
	c := p.Ops(t)
	c.Get("/healthz").Is(200)
	c.Get("/readyz").Is(200)
	require.Contains(t, string(c.Get("/metrics").Is(200).Body), "\nmep_http_requests_total{")
	c.Get("/debug/pprof/cmdline").Is(200)
	require.Empty(t, c.Get("/notifications/subscriptions").Is(200).Array())
	require.Empty(t, c.Get("/notifications/dead_letters").Is(200).Array())
	for _, path := range []string{"/healthz", "/readyz", "/metrics", "/notifications/subscriptions", "/notifications/dead_letters"} {
		answer := c.Post(path, object{})
		answer.Problem(405)
		require.NotEmpty(t, answer.Header.Get("Allow"))
	}
	c.Get("/notifications/subscriptions?limit=1").Problem(400)
	c.Get("/notifications/dead_letters?limit=1").Problem(400)
	c.Get("/nothing").Problem(404)
	c.Get(services).Problem(404)
	p.Client(t).Get("/readyz").Problem(404)
	p.Client(t).Get("/metrics").Problem(404)
}
