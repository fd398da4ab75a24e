package blackbox

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	etcdtls "go.etcd.io/etcd/client/pkg/v3/transport"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"

	"github.com/openmep/mep/tests/harness"
)

func TestTheListenersSpeakModernTLSOnly(t *testing.T) {
	t.Parallel()
	p := harness.Start(t, harness.Secure())
	settings, err := p.TLS()
	require.NoError(t, err)
	dial := func(listener string, change func(*tls.Config)) (tls.ConnectionState, error) {
		c := settings.Clone()
		change(c)
		conn, err := tls.Dial("tcp", p.Addr(listener), c)
		if err != nil {
			return tls.ConnectionState{}, err
		}
		defer conn.Close()
		return conn.ConnectionState(), nil
	}
	for _, listener := range []string{"mp1", "auth"} {
		t.Run(listener, func(t *testing.T) {
			for _, version := range []uint16{tls.VersionTLS10, tls.VersionTLS11} {
				_, err := dial(listener, func(c *tls.Config) { c.MinVersion, c.MaxVersion = version, version })
				require.Error(t, err, tls.VersionName(version))
			}
			for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
				state, err := dial(listener, func(c *tls.Config) { c.MinVersion, c.MaxVersion = version, version })
				require.NoError(t, err)
				require.Equal(t, version, state.Version)
			}
			for _, suite := range append(tls.InsecureCipherSuites(), tls.CipherSuites()...) {
				if suite.SupportedVersions[0] == tls.VersionTLS13 {
					continue
				}
				state, err := dial(listener, func(c *tls.Config) { c.MaxVersion, c.CipherSuites = tls.VersionTLS12, []uint16{suite.ID} })
				if err == nil {
					require.Contains(t, tls.CipherSuiteName(state.CipherSuite), "ECDHE")
					require.NotContains(t, tls.CipherSuiteName(state.CipherSuite), "CBC")
				}
			}
			state, err := dial(listener, func(c *tls.Config) { c.NextProtos = []string{"h2", "http/1.1"} })
			require.NoError(t, err)
			require.Equal(t, "h2", state.NegotiatedProtocol)
			_, err = dial(listener, func(c *tls.Config) { c.ServerName = "somebody.example" })
			require.Error(t, err)
			_, err = dial(listener, func(c *tls.Config) { c.RootCAs = x509.NewCertPool() })
			require.Error(t, err)
		})
	}
}

// shown is the serial number of the certificate a listener shows.
func shown(t *testing.T, p *harness.Process, listener string) string {
	t.Helper()
	settings, err := p.TLS()
	require.NoError(t, err)
	settings.InsecureSkipVerify = true // it is looked at here
	conn, err := tls.Dial("tcp", p.Addr(listener), settings)
	require.NoError(t, err)
	defer conn.Close()
	return conn.ConnectionState().PeerCertificates[0].SerialNumber.String()
}

func TestACertificateThatIsReplacedIsTakenAndABadOneIsNot(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t, "operator")
	given := ca.pair(t, "server", nil)
	p := harness.Start(t, harness.Secure(), harness.Trust(ca.file), harness.Args("--tls-cert", given.cert, "--tls-key", given.key))
	a, _ := appOf(t, p)
	first := shown(t, p, "mp1")
	bad := func() float64 {
		v, ok := p.Metric(t, `mep_tls_certificate_bad{name="server"}`)
		require.True(t, ok)
		return v
	}
	require.Zero(t, bad())

	ca.issue(t, given, "server", nil)
	p.Hangup()
	harness.Eventually(t, "the new certificate is shown", func() error { return harness.Not(shown(t, p, "mp1") != first, "the old one is") })
	second := shown(t, p, "auth")
	require.Equal(t, shown(t, p, "mp1"), second)
	a.Get(a.services()).Is(200)

	for name, spoil := range map[string]func(){
		"garbage": func() { require.NoError(t, os.WriteFile(given.cert, []byte("garbage"), 0o600)) },
		"expired": func() {
			ca.issue(t, given, "server", func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) })
		},
		"the key of another": func() {
			ca.issue(t, given, "server", nil)
			other := ca.pair(t, "other", nil)
			require.NoError(t, os.WriteFile(given.key, written(t, other.key), 0o600))
		},
		"gone": func() { require.NoError(t, os.Remove(given.cert)) },
	} {
		t.Run(name, func(t *testing.T) {
			before := strings.Count(p.Log(), "level=ERROR msg=\"certificate on disk is not in order")
			spoil()
			p.Hangup()
			harness.Eventually(t, "the metric says so", func() error { return harness.Not(bad() == 1, "it does not") })
			require.Equal(t, second, shown(t, p, "mp1"))
			a.Get(a.services()).Is(200)
			require.Greater(t, strings.Count(p.Log(), "level=ERROR msg=\"certificate on disk is not in order"), before)
			require.Contains(t, p.Log(), given.cert)
			status, r, err := p.Ready()
			require.NoError(t, err)
			require.Equal(t, 200, status)
			require.True(t, r.IsDegraded("certificates"), "%+v", r)
		})
	}
	ca.issue(t, given, "server", nil)
	p.Hangup()
	harness.Eventually(t, "all is well again", func() error { return harness.Not(bad() == 0 && shown(t, p, "mp1") != second, "it is not") })
}

func TestACertificateIsFoundToBeReplacedWithoutASignal(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t, "operator")
	given := ca.pair(t, "server", nil)
	p := harness.Start(t, harness.Secure(), harness.Trust(ca.file), harness.Args("--tls-cert", given.cert, "--tls-key", given.key))
	first := shown(t, p, "mp1")
	ca.issue(t, given, "server", nil)
	harness.EventuallyWithin(t, 2*harness.Patience, "the new certificate is shown", func() error { return harness.Not(shown(t, p, "mp1") != first, "the old one is") })
}

func TestACertificateThatCannotBeUsedIsAClearRefusalToStart(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t, "operator")
	good, other := ca.pair(t, "server", nil), ca.pair(t, "other", nil)
	for name, x := range map[string]struct{ cert, key, says string }{
		"missing":       {"/nonexistent.crt", good.key, "/nonexistent.crt"},
		"another's key": {good.cert, other.key, other.key},
		"swapped":       {good.key, good.cert, "private key"},
		"without a key": {good.cert, "", "tls.key"},
		"expired":       {ca.pair(t, "old", func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }).cert, good.key, "crt"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			out := harness.Run(t, "mep", []string{"run", "--data-dir", t.TempDir(), "--mm5-listen", "127.0.0.1:0", "--mp1-listen", "127.0.0.1:0", "--auth-listen", "127.0.0.1:0",
				"--ops-listen", "127.0.0.1:0", "--tls-cert", x.cert, "--tls-key", x.key})
			require.Equal(t, 1, out.Code, out.Output)
			require.Contains(t, out.Output, x.says)
		})
	}
}

func TestAClientCertificateSaysWhoCalls(t *testing.T) {
	t.Parallel()
	ca, stranger := newAuthority(t, "apps"), newAuthority(t, "strangers")
	config := fmt.Sprintf(`
tls:
  clientCAs: [%s]
auth:
  clientCertificates:
  - uri: spiffe://mep.example/app/{caller}
    scopes: [mp1]
  - uri: spiffe://mep.example/mepm
    caller: mepm
    scopes: [mm5, ops]
  - commonName: "app-{caller}"
    scopes: [mp1]
`, ca.file)
	p := harness.Start(t, harness.Secure(), harness.Config(config))
	keys := harness.Provision(p.Manager(t), nil)
	id := keys.AppInstanceID
	call := func(listener, path string, cert *tls.Certificate, options ...harness.RequestOption) (int, error) {
		settings, err := p.TLS()
		require.NoError(t, err)
		if cert != nil {
			settings.Certificates = []tls.Certificate{*cert}
		}
		c := &http.Client{Transport: &http.Transport{TLSClientConfig: settings, DisableKeepAlives: true}, Timeout: harness.Patience}
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, p.URL(listener)+path, nil)
		require.NoError(t, err)
		for _, o := range options {
			o(r)
		}
		resp, err := c.Do(r)
		if err != nil {
			return 0, err
		}
		return resp.StatusCode, resp.Body.Close()
	}
	mine := root + "/applications/" + id + "/services"
	for name, x := range map[string]struct {
		ca   *authority
		uri  string
		cn   string
		path string
		want int
	}{
		"its own":                     {ca, "spiffe://mep.example/app/" + id, "", mine, 200},
		"its own in upper case":       {ca, "spiffe://mep.example/app/" + strings.ToUpper(id), "", mine, 200},
		"another's":                   {ca, "spiffe://mep.example/app/" + uuid.NewString(), "", mine, 403},
		"by common name":              {ca, "", "app-" + id, mine, 200},
		"a common name with more":     {ca, "", "xapp-" + id, mine, 401},
		"a longer URI":                {ca, "spiffe://mep.example/app/" + id + "/x", "", mine, 401},
		"a URI with a query":          {ca, "spiffe://mep.example/app/x?/" + id, "", mine, 401},
		"no caller":                   {ca, "spiffe://mep.example/app/", "", mine, 401},
		"another trust domain":        {ca, "spiffe://evil.example/app/" + id, "", mine, 401},
		"another trust domain before": {ca, "spiffe://evil.example/spiffe://mep.example/app/" + id, "", mine, 401},
		"a certificate without rule":  {ca, "", "nobody", mine, 401},
		"the manager at Mp1":          {ca, "spiffe://mep.example/mepm", "", mine, 403},
	} {
		t.Run(name, func(t *testing.T) {
			cert := x.ca.pair(t, "client", func(c *x509.Certificate) {
				c.DNSNames, c.IPAddresses, c.Subject.CommonName = nil, nil, x.cn
				if x.uri != "" {
					u, err := url.Parse(x.uri)
					require.NoError(t, err)
					c.URIs = []*url.URL{u}
				}
			}).load(t)
			status, err := call("mp1", x.path, &cert)
			require.NoError(t, err)
			require.Equal(t, x.want, status)
		})
	}
	manager := ca.pair(t, "mepm", named(t, "spiffe://mep.example/mepm")).load(t)
	status, err := call("auth", harness.ConfsPath(id), &manager)
	require.NoError(t, err)
	require.Equal(t, 200, status)
	app := ca.pair(t, "app", named(t, "spiffe://mep.example/app/"+id)).load(t)
	status, err = call("auth", harness.ConfsPath(id), &app)
	require.NoError(t, err)
	require.Equal(t, 403, status)
	t.Run("a token that is sent counts, and not the certificate", func(t *testing.T) {
		status, err := call("mp1", mine, &app, harness.Header("Authorization", "Bearer garbage"))
		require.NoError(t, err)
		require.Equal(t, 401, status)
		other := harness.Provision(p.Manager(t), nil).Fetch(p.Auth(t)).AccessToken
		status, err = call("mp1", mine, &app, harness.Header("Authorization", "Bearer "+other))
		require.NoError(t, err)
		require.Equal(t, 403, status)
	})
	t.Run("certificates that prove nothing", func(t *testing.T) {
		for what, cert := range map[string]tls.Certificate{
			"of a strange CA": stranger.pair(t, "x", named(t, "spiffe://mep.example/app/"+id)).load(t),
			"expired": ca.pair(t, "x", func(c *x509.Certificate) {
				named(t, "spiffe://mep.example/app/"+id)(c)
				c.NotAfter = time.Now().Add(-time.Minute)
			}).load(t),
			"for servers only": ca.pair(t, "x", func(c *x509.Certificate) {
				named(t, "spiffe://mep.example/app/"+id)(c)
				c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
			}).load(t),
		} {
			status, err := call("mp1", mine, &cert)
			require.True(t, err != nil || status == 401, "%s: %d", what, status)
		}
	})
	status, err = call("mp1", mine, nil)
	require.NoError(t, err)
	require.Equal(t, 401, status, "nobody needs a certificate, but then a token")
	p.Manager(t).Delete(harness.ConfsPath(id)).Is(200)
}

// secureEtcd is an etcd server that asks for client certificates of the authority.
func secureEtcd(t *testing.T, ca *authority) string {
	t.Helper()
	server := ca.pair(t, "etcd", nil)
	cfg := embed.NewConfig()
	cfg.Dir = t.TempDir()
	cfg.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zap.NewNop())
	cfg.TickMs, cfg.ElectionMs, cfg.UnsafeNoFsync = 10, 100, true
	client, peer := url.URL{Scheme: "https", Host: "127.0.0.1:0"}, url.URL{Scheme: "unix", Path: filepath.Join(short(t), "peer")}
	cfg.ListenClientUrls, cfg.AdvertiseClientUrls = []url.URL{client}, []url.URL{client}
	cfg.ListenPeerUrls, cfg.AdvertisePeerUrls = []url.URL{peer}, []url.URL{peer}
	cfg.InitialCluster = cfg.Name + "=" + peer.String()
	cfg.ClientTLSInfo = etcdtls.TLSInfo{CertFile: server.cert, KeyFile: server.key, TrustedCAFile: ca.file, ClientCertAuth: true}
	e, err := embed.StartEtcd(cfg)
	require.NoError(t, err)
	t.Cleanup(e.Close)
	select {
	case <-e.Server.ReadyNotify():
	case <-time.After(harness.Patience):
		t.Fatal("etcd is not ready")
	}
	return "https://" + e.Clients[0].Addr().String()
}

// short is a directory whose path is short enough for a socket.
func short(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "etcd") //nolint:usetesting // the path of a socket must be short
	require.NoError(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func TestEtcdIsReachedWithTLSAndAClientCertificate(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t, "etcd")
	endpoint := secureEtcd(t, ca)
	client := ca.pair(t, "mep", nil)
	tlsArgs := harness.Args("--etcd-ca", ca.file, "--etcd-cert", client.cert, "--etcd-key", client.key)
	auth := harness.StartMepauth(t, endpoint, harness.Secure(), tlsArgs)
	server := harness.StartMepserver(t, endpoint, harness.Secure(), tlsArgs)
	keys := harness.Provision(auth.Manager(t), nil)
	a := app{Client: server.Client(t).With(keys.Fetch(auth.Auth(t)).AccessToken), id: keys.AppInstanceID}
	harness.Eventually(t, "mepserver knows the app", func() error {
		answer := a.Get(a.services())
		return harness.Not(answer.Status == 200, "answered %d", answer.Status)
	})
	svc := a.register(own("x"))
	a.Get(a.service(svc.id)).Is(200)
	out := harness.Run(t, "mep", []string{"credentials", "list", "--data-dir", auth.DataDir, "--etcd-endpoints", endpoint, "--etcd-ca", ca.file,
		"--etcd-cert", client.cert, "--etcd-key", client.key})
	require.Zero(t, out.Code, out.Output)
	require.Contains(t, out.Output, keys.AccessKeyID)

	// Nobody gets in without.
	settings, err := (etcdtls.TLSInfo{TrustedCAFile: ca.file}).ClientConfig()
	require.NoError(t, err)
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{endpoint}, TLS: settings, DialTimeout: time.Second, Logger: zap.NewNop()})
	require.NoError(t, err)
	defer c.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	_, err = c.Get(ctx, "x")
	require.Error(t, err)
}

func TestAnEtcdThatIsNotTrustedIsAClearError(t *testing.T) {
	t.Parallel()
	ca, other := newAuthority(t, "etcd"), newAuthority(t, "other")
	endpoint := secureEtcd(t, ca)
	good, strange := ca.pair(t, "mep", nil), other.pair(t, "mep", nil)
	for name, x := range map[string]struct {
		args []string
		says string
	}{
		"another CA":                {[]string{"--etcd-ca", other.file, "--etcd-cert", good.cert, "--etcd-key", good.key}, "certificate"},
		"a certificate of another":  {[]string{"--etcd-ca", ca.file, "--etcd-cert", strange.cert, "--etcd-key", strange.key}, "certificate"},
		"a CA that is missing":      {[]string{"--etcd-ca", "/nonexistent.crt"}, "/nonexistent.crt"},
		"a key without certificate": {[]string{"--etcd-ca", ca.file, "--etcd-key", good.key}, "etcd.cert"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			out := harness.Run(t, "mep", append([]string{"credentials", "list", "--data-dir", t.TempDir(), "--etcd-endpoints", endpoint, "--etcd-timeout", "2s"}, x.args...))
			require.Equal(t, 1, out.Code, out.Output)
			require.Contains(t, out.Output, x.says)
		})
	}
}
