package doctor

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/goleak"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"github.com/openmep/mep/dnsagent"
	"github.com/openmep/mep/gateway"
	"github.com/openmep/mep/kit/daemon"
	"github.com/openmep/mep/kit/etcdtest"
	"github.com/openmep/mep/kit/ops"
	"github.com/openmep/mep/kit/pki"
	"github.com/openmep/mep/kit/settings"
	"github.com/openmep/mep/mepauth"
	"github.com/openmep/mep/mepauth/keyring"
	"github.com/openmep/mep/mepauth/seal"
	"github.com/openmep/mep/mepserver"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		// The background work of etcd servers that were closed.
		goleak.IgnoreAnyFunction("go.etcd.io/etcd/pkg/v3/logutil.(*MergeLogger).outputLoop"),
		goleak.IgnoreAnyFunction("github.com/golang/glog.(*fileSink).flushDaemon"),
	)
}

const (
	mib = 1 << 20
	day = 24 * time.Hour
)

// fixture is an installation in which everything is in order, until a test breaks one thing.
type fixture struct {
	Installation
	host host
	// etcd is the database of a running platform, and ready the response of its /readyz.
	etcd  *etcdtest.Server
	ready ops.Readiness
}

// planned returns an installation that was never started.
func planned(t *testing.T) *fixture {
	t.Helper()
	var cfg struct {
		Common  daemon.Config
		Server  mepserver.Config
		Auth    mepauth.Config
		DNS     dnsagent.Config
		Gateway gateway.Config
	}
	dir := filepath.Join(t.TempDir(), "data")
	require.NoError(t, settings.Load(&cfg, settings.Sources{Flags: map[string]string{
		"data-dir": dir, "mp1-listen": "127.0.0.1:0", "mm5-listen": "127.0.0.1:0", "auth-listen": "127.0.0.1:0", "ops-listen": "127.0.0.1:0",
		"dns-listen": "127.0.0.1:0", "dns-management-listen": "127.0.0.1:0", "gateway-listen": "127.0.0.1:0", "gateway-management-listen": "127.0.0.1:0",
	}}, nil))
	f := &fixture{
		Installation: Installation{
			Common: &cfg.Common, Server: &cfg.Server, Auth: &cfg.Auth, DNS: &cfg.DNS, Gateway: &cfg.Gateway, Reserve: 128 * mib, Quota: 2048 * mib,
			LockFile: filepath.Join(dir, "lock"),
		},
		host: thisMachine(),
	}
	f.host.clock = func() (bool, error) { return true, nil }
	f.host.room = func(string) (room, error) { return room{free: 10240 * mib}, nil }
	f.host.files = func(int) (uint64, error) { return 40960, nil }
	f.host.built = time.Time{}
	return f
}

// stopped returns an installation that was started once.
func stopped(t *testing.T) *fixture {
	t.Helper()
	f := planned(t)
	for _, dir := range []string{"auth", "audit", "bootstrap", "etcd/member/snap", "etcd/member/wal"} {
		require.NoError(t, os.MkdirAll(f.path(dir), 0o700))
	}
	f.issue(t, time.Now)
	for _, file := range []string{"lock", "etcd/member/snap/db", "audit/audit.log", "bootstrap/mepm.json"} {
		f.write(t, file, "")
	}
	f.write(t, "auth/seal.key", strings.Repeat("k", seal.MinKeyBytes))
	return f
}

// running returns an installation whose platform runs: this process holds the data directory and serves in its place.
func running(t *testing.T) *fixture {
	t.Helper()
	f := stopped(t)
	f.etcd = etcdtest.Start(t)
	f.write(t, "lock", f.etcd.Endpoint()+"\n")
	lock, err := os.Open(f.LockFile)
	require.NoError(t, err)
	t.Cleanup(func() { _ = lock.Close() })
	require.NoError(t, unix.Flock(int(lock.Fd()), unix.LOCK_EX))
	f.fill(t)
	f.serve(t)
	return f
}

// outside returns an installation with an external etcd; it does not run.
func outside(t *testing.T) *fixture {
	t.Helper()
	f := stopped(t)
	require.NoError(t, os.RemoveAll(f.path("etcd")))
	f.etcd = etcdtest.Start(t)
	f.Common.EtcdEndpoints = []string{f.etcd.Endpoint()}
	f.fill(t)
	return f
}

// fill puts into the database what the first start does.
func (f *fixture) fill(t *testing.T) {
	t.Helper()
	store := f.etcd.Store(t)
	key, err := seal.Open(t.Context(), f.path("auth/seal.key"), store)
	require.NoError(t, err)
	_, err = keyring.NewAdmin(store, key).Ensure(t.Context(), f.Auth.KeyPolicy())
	require.NoError(t, err)
}

// serve runs the listeners of operations and of tokens.
func (f *fixture) serve(t *testing.T) {
	t.Helper()
	auth := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Date", f.host.now().UTC().Format(http.TimeFormat))
	}))
	t.Cleanup(auth.Close)
	answers := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(f.ready)
	}))
	t.Cleanup(answers.Close)
	f.Common.OpsListen = strings.TrimPrefix(answers.URL, "http://")
	f.ready = ops.Readiness{Ready: true, Listeners: map[string]string{
		"mp1": "https://127.0.0.1:8088", "auth": auth.URL, "ops": answers.URL,
	}}
}

// issue makes the certificates as a platform does at the given time.
func (f *fixture) issue(t *testing.T, now func() time.Time) {
	t.Helper()
	_, err := pki.Open(pki.Config{
		Dir: f.path("pki"), Now: now,
		Names: func() ([]string, error) { return pki.Names([]string{"127.0.0.1:0"}, f.Common.TLSNames) },
	})
	require.NoError(t, err)
}

// services gives services host names below a domain, which the certificate covers.
func (f *fixture) services(t *testing.T, domain string) {
	t.Helper()
	f.Gateway.ServiceDomain, f.Common.TLSNames = domain, []string{"*." + domain, "*.instances." + domain}
	f.remove(t, "pki")
	f.issue(t, time.Now)
}

// path returns a path in the data directory.
func (f *fixture) path(name string) string { return filepath.Join(f.Common.DataDir, name) }

func (f *fixture) write(t *testing.T, name, text string) string {
	t.Helper()
	path := name
	if !filepath.IsAbs(name) {
		path = f.path(name)
	}
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	return path
}

func (f *fixture) remove(t *testing.T, names ...string) {
	t.Helper()
	for _, name := range names {
		require.NoError(t, os.RemoveAll(f.path(name)))
	}
}

func (f *fixture) chmod(t *testing.T, name string, mode os.FileMode) {
	t.Helper()
	require.NoError(t, os.Chmod(f.path(name), mode))
}

// later sets the clocks of this machine and of the platform to a later time.
func (f *fixture) later(d time.Duration) {
	f.host.now = func() time.Time { return time.Now().Add(d) }
}

// refuse denies this user the use of a file.
func (f *fixture) refuse(path string) {
	before := f.host.access
	f.host.access = func(p string, mode uint32) error {
		if p == path {
			return unix.EACCES
		}
		return before(p, mode)
	}
}

// unbindable makes every listener fail.
func (f *fixture) unbindable(err error) {
	f.host.listen = func(context.Context, string) (net.Listener, error) {
		return nil, &net.OpError{Op: "listen", Net: "tcp", Err: err}
	}
}

// keep gives the operator a certificate of another CA, for localhost and 127.0.0.1.
func (f *fixture) keep(t *testing.T, change func(*x509.Certificate)) *ca {
	t.Helper()
	authority := newCA(t)
	f.Common.TLSCert, f.Common.TLSKey = authority.issue(t, change)
	return authority
}

// ca is a certificate authority.
type ca struct {
	dir, file string
	cert      *x509.Certificate
	key       crypto.Signer
}

func newCA(t *testing.T) *ca {
	t.Helper()
	a := &ca{dir: t.TempDir()}
	var err error
	a.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "a CA"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-365 * day), NotAfter: time.Now().Add(3650 * day), KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, a.key.Public(), a.key)
	require.NoError(t, err)
	a.cert, err = x509.ParseCertificate(der)
	require.NoError(t, err)
	a.file = writePEM(t, a.dir, "ca.crt", "CERTIFICATE", der)
	return a
}

// issue makes a certificate for localhost and 127.0.0.1 that is valid for a year, unless change says otherwise.
func (a *ca) issue(t *testing.T, change func(*x509.Certificate)) (certFile, keyFile string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "a certificate"},
		NotBefore: time.Now().Add(-180 * day), NotAfter: time.Now().Add(185 * day), KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		DNSNames:    []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	if change != nil {
		change(template)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	require.NoError(t, err)
	private, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(t, err)
	dir := t.TempDir()
	return writePEM(t, dir, "tls.crt", "CERTIFICATE", der), writePEM(t, dir, "tls.key", "PRIVATE KEY", private)
}

func (a *ca) pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	return pool
}

func writePEM(t *testing.T, dir, name, kind string, der []byte) string {
	t.Helper()
	path := filepath.Join(dir, name)
	require.NoError(t, os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600))
	return path
}

// connect gives the installation an empty etcd with TLS, and returns its CA.
func (f *fixture) connect(t *testing.T, clientCertificates bool) *ca {
	t.Helper()
	authority := newCA(t)
	f.Common.EtcdEndpoints, f.Common.EtcdCA = []string{secured(t, authority, clientCertificates)}, authority.file
	return authority
}

// secured runs an etcd with TLS and returns its endpoint. With clientCertificates it accepts only those of the CA.
func secured(t *testing.T, authority *ca, clientCertificates bool) string {
	t.Helper()
	client, peer := url.URL{Scheme: "https", Host: free(t)}, url.URL{Scheme: "http", Host: free(t)}
	cfg := embed.NewConfig()
	cfg.Dir = t.TempDir()
	cfg.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zap.NewNop())
	cfg.TickMs, cfg.ElectionMs, cfg.UnsafeNoFsync = 10, 100, true
	cfg.ListenClientUrls, cfg.AdvertiseClientUrls = []url.URL{client}, []url.URL{client}
	cfg.ListenPeerUrls, cfg.AdvertisePeerUrls = []url.URL{peer}, []url.URL{peer}
	cfg.InitialCluster = cfg.Name + "=" + peer.String()
	cfg.ClientTLSInfo.CertFile, cfg.ClientTLSInfo.KeyFile = authority.issue(t, nil)
	if clientCertificates {
		cfg.ClientTLSInfo.TrustedCAFile, cfg.ClientTLSInfo.ClientCertAuth = authority.file, true
	}
	server, err := embed.StartEtcd(cfg)
	require.NoError(t, err)
	t.Cleanup(server.Close)
	<-server.Server.ReadyNotify()
	return client.String()
}
