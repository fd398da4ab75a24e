package pki_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	"github.com/openmep/mep/kit/pki"
)

// shake makes the connection of a gRPC client and returns what the server said.
func shake(t *testing.T, client *pki.Client, addr, authority string) (string, error) {
	t.Helper()
	raw, err := (&net.Dialer{Timeout: 20 * time.Second}).DialContext(t.Context(), "tcp", addr)
	require.NoError(t, err)
	defer raw.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	conn, info, err := client.Credentials().ClientHandshake(ctx, authority, raw)
	if err != nil {
		return "", err
	}
	require.Equal(t, "tls", info.AuthType())
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	buf := make([]byte, 64)
	n, err := conn.Read(buf)
	return string(buf[:n]), err
}

func TestClientOverTheLifeOfItsFiles(t *testing.T) {
	c := newClock()
	oldCA, newCA, clientCA := newIssuer(t, "old CA", c.now()), newIssuer(t, "new CA", c.now()), newIssuer(t, "client CA", c.now())
	server, mine, clients := newGiven(t), newGiven(t), newGiven(t)
	server.put(t, oldCA, nil)
	write(t, clients.ca, clientCA.pem())
	k := open(t, pki.Config{CertFile: server.cert, KeyFile: server.key, ClientCAFiles: []string{clients.ca}, Now: c.now})
	addr := serve(t, k.ServerConfig())

	named := func(name string) func(*x509.Certificate) {
		return func(x *x509.Certificate) { x.Subject = pkix.Name{CommonName: name} }
	}
	mine.put(t, clientCA, named("first"))
	write(t, mine.ca, oldCA.pem())
	reg, log := prometheus.NewRegistry(), new(journal)
	client, err := pki.OpenClient(pki.ClientConfig{
		Name: "etcd", CAFile: mine.ca, CertFile: mine.cert, KeyFile: mine.key, Now: c.now, Log: log.logger(), Registerer: reg,
	})
	require.NoError(t, err)
	require.InDelta(t, oldCA.cert.NotAfter.Unix(), metric(t, reg, "expiry_timestamp_seconds", "etcd-ca"), 0)
	require.Zero(t, metric(t, reg, "bad", "etcd"))

	said, err := shake(t, client, addr, "localhost:2379")
	require.NoError(t, err)
	require.Equal(t, "first", said)
	_, err = shake(t, client, addr, "127.0.0.1:2379")
	require.NoError(t, err)
	for _, wrong := range []string{"elsewhere:2379", "127.0.0.2:2379"} {
		_, err = shake(t, client, addr, wrong)
		require.ErrorContains(t, err, "certificate is valid for", wrong)
	}

	// A configuration made before presents the certificate in force afterwards.
	before := client.Config()
	before.ServerName = "localhost"
	mine.put(t, clientCA, named("second"))
	write(t, mine.ca, oldCA.pem())
	require.NoError(t, client.Reload())
	_, said, err = dial(addr, before)
	require.NoError(t, err)
	require.Equal(t, "second", said)

	// The server moves to another CA.
	server.put(t, newCA, nil)
	require.NoError(t, k.Reload())
	_, err = shake(t, client, addr, "localhost:2379")
	require.ErrorContains(t, err, "unknown authority")
	write(t, mine.ca, newCA.pem())
	require.NoError(t, client.Reload())
	said, err = shake(t, client, addr, "localhost:2379")
	require.NoError(t, err)
	require.Equal(t, "second", said)

	// Both files become invalid; what was loaded stays.
	write(t, mine.ca, nil)
	write(t, mine.key, nil)
	for range 2 {
		require.Error(t, client.Reload())
	}
	require.ErrorContains(t, client.Fault(), mine.ca)
	require.ErrorContains(t, client.Fault(), mine.key)
	require.Len(t, log.lines("level=ERROR"), 2)
	require.InDelta(t, 1, metric(t, reg, "bad", "etcd-ca"), 0)
	said, err = shake(t, client, addr, "localhost:2379")
	require.NoError(t, err)
	require.Equal(t, "second", said)
}

// TestEtcdClientFollowsItsCAs checks that each new connection of an etcd client uses the CAs then in force.
func TestEtcdClientFollowsItsCAs(t *testing.T) {
	c, server, mine := newClock(), newGiven(t), newGiven(t)
	i := newIssuer(t, "old CA", c.now())
	server.put(t, i, nil)
	write(t, mine.ca, i.pem())
	k := open(t, pki.Config{CertFile: server.cert, KeyFile: server.key, Now: c.now})
	client, err := pki.OpenClient(pki.ClientConfig{CAFile: mine.ca, Now: c.now})
	require.NoError(t, err)
	start := func(addr string) (string, func()) {
		ln, err := net.Listen("tcp", addr)
		require.NoError(t, err)
		srv := grpc.NewServer(grpc.Creds(credentials.NewTLS(k.ServerConfig())))
		done := make(chan error, 1)
		go func() { done <- srv.Serve(ln) }()
		return ln.Addr().String(), func() {
			srv.Stop()
			require.NoError(t, <-done)
		}
	}
	addr, stop := start("127.0.0.1:0")
	store, err := clientv3.New(clientv3.Config{
		Endpoints: []string{"https://" + addr}, TLS: client.Config(), Logger: zap.NewNop(),
		DialOptions: []grpc.DialOption{
			grpc.WithTransportCredentials(client.Credentials()),
			grpc.WithConnectParams(grpc.ConnectParams{
				Backoff: backoff.Config{BaseDelay: time.Millisecond, MaxDelay: 10 * time.Millisecond}, MinConnectTimeout: 5 * time.Second,
			}),
		},
	})
	require.NoError(t, err)
	defer func() { require.NoError(t, store.Close()) }()
	get := func() codes.Code {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		_, err := store.Get(ctx, "key")
		return status.Code(err)
	}
	// The server is not an etcd, but it is reached.
	require.Equal(t, codes.Unimplemented, get())
	stop()

	i = newIssuer(t, "new CA", c.now())
	server.put(t, i, nil)
	require.NoError(t, k.Reload())
	write(t, mine.ca, i.pem())
	require.NoError(t, client.Reload())
	_, stop = start(addr)
	defer stop()
	require.Eventually(t, func() bool { return get() == codes.Unimplemented }, 20*time.Second, time.Millisecond)
}

func TestClientWithoutACertificate(t *testing.T) {
	c := newClock()
	i := newIssuer(t, "a CA", c.now())
	g := newGiven(t)
	g.put(t, i, nil)
	addr := serve(t, open(t, pki.Config{CertFile: g.cert, KeyFile: g.key, ClientCAFiles: []string{g.ca}, Now: c.now}).ServerConfig())
	client, err := pki.OpenClient(pki.ClientConfig{CAFile: g.ca, Now: c.now})
	require.NoError(t, err)
	said, err := shake(t, client, addr, "localhost")
	require.NoError(t, err)
	require.Equal(t, "-", said)

	// Without files the operating system's CAs are trusted, not that of this server.
	client, err = pki.OpenClient(pki.ClientConfig{Now: c.now})
	require.NoError(t, err)
	require.NoError(t, client.Reload())
	require.NoError(t, client.Fault())
	require.Nil(t, client.Config().RootCAs)
	_, err = shake(t, client, addr, "localhost")
	require.Error(t, err)
}

func TestClientRunReloads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGiven(t)
		g.put(t, newIssuer(t, "a CA", time.Now()), nil)
		client, err := pki.OpenClient(pki.ClientConfig{CAFile: g.ca, CertFile: g.cert, KeyFile: g.key})
		require.NoError(t, err)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- client.Run(ctx) }()
		synctest.Wait()
		before := client.Config()
		next := g.put(t, newIssuer(t, "another CA", time.Now()), nil)
		time.Sleep(2 * time.Second)
		synctest.Wait()
		cert, err := before.GetClientCertificate(new(tls.CertificateRequestInfo))
		require.NoError(t, err)
		require.True(t, next.Equal(cert.Leaf))
		require.False(t, before.RootCAs.Equal(client.Config().RootCAs))
		cancel()
		require.NoError(t, <-done)
	})
}

func TestClientFilesThatCannotBeUsed(t *testing.T) {
	c, g := newClock(), newGiven(t)
	i := newIssuer(t, "a CA", c.now())
	g.put(t, i, nil)
	for name, cfg := range map[string]pki.ClientConfig{
		"no CA":      {CAFile: g.ca + ".absent"},
		"no key":     {CertFile: g.cert},
		"key absent": {CertFile: g.cert, KeyFile: g.key + ".absent"},
		"expired":    {CertFile: g.cert, KeyFile: g.key, Now: func() time.Time { return c.now().Add(366 * day) }},
	} {
		_, err := pki.OpenClient(cfg)
		require.Error(t, err, name)
	}
	client, err := pki.OpenClient(pki.ClientConfig{CAFile: g.ca})
	require.NoError(t, err)
	creds := client.Credentials()
	_, _, err = creds.ServerHandshake(nil)
	require.Error(t, err)
	require.Error(t, creds.OverrideServerName("elsewhere")) //nolint:staticcheck // the interface has it
	require.Equal(t, "tls", creds.Clone().Info().SecurityProtocol)
}

func TestKeepersAndClientsShareARegistry(t *testing.T) {
	c, g, reg := newClock(), newGiven(t), prometheus.NewRegistry()
	g.put(t, newIssuer(t, "a CA", c.now()), nil)
	cfg := own(t.TempDir(), c)
	cfg.Registerer = reg
	open(t, cfg)
	_, err := pki.OpenClient(pki.ClientConfig{CAFile: g.ca, CertFile: g.cert, KeyFile: g.key, Now: c.now, Registerer: reg})
	require.NoError(t, err)
	for _, name := range []string{"server", "client", "client-ca"} {
		require.Zero(t, metric(t, reg, "bad", name))
	}
}
