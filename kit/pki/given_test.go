package pki_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/kit/pki"
)

// spoil lists ways to put a pair on disk that cannot be used.
var spoil = []struct {
	name string
	kind pki.Kind
	// inKey says that the fault is in the key file.
	inKey bool
	says  string
	put   func(t *testing.T, g given, i *issuer)
}{
	{"certificate missing", pki.Unreadable, false, "does not exist", func(t *testing.T, g given, _ *issuer) {
		require.NoError(t, os.Remove(g.cert))
	}},
	{"key missing", pki.Unreadable, true, "does not exist", func(t *testing.T, g given, _ *issuer) {
		require.NoError(t, os.Remove(g.key))
	}},
	{"not PEM", pki.Malformed, false, "holds no certificate", func(t *testing.T, g given, _ *issuer) {
		write(t, g.cert, []byte("hello"))
	}},
	{"DER", pki.Malformed, false, "openssl x509 -inform der", func(t *testing.T, g given, i *issuer) {
		write(t, g.cert, g.put(t, i, nil).Raw)
	}},
	{"cut off", pki.Malformed, false, "cut off", func(t *testing.T, g given, _ *issuer) {
		write(t, g.cert, read(t, g.cert)[:300])
	}},
	{"no certificate inside", pki.Malformed, false, "cannot be parsed", func(t *testing.T, g given, _ *issuer) {
		write(t, g.cert, toPEM("CERTIFICATE", []byte("hello")))
	}},
	{"files mixed up", pki.Malformed, false, "a private key instead of a certificate", func(t *testing.T, g given, _ *issuer) {
		cert := read(t, g.cert)
		write(t, g.cert, read(t, g.key))
		write(t, g.key, cert)
	}},
	{"certificate in the key file", pki.Malformed, true, "a certificate instead of a private key", func(t *testing.T, g given, _ *issuer) {
		write(t, g.key, read(t, g.cert))
	}},
	{"key cut off", pki.Malformed, true, "cut off", func(t *testing.T, g given, _ *issuer) {
		write(t, g.key, read(t, g.key)[:100])
	}},
	{"no key inside", pki.Malformed, true, "cannot be parsed", func(t *testing.T, g given, _ *issuer) {
		write(t, g.key, toPEM("PRIVATE KEY", []byte("hello")))
	}},
	{"key file empty", pki.Malformed, true, "holds no private key", func(t *testing.T, g given, _ *issuer) {
		write(t, g.key, nil)
	}},
	{"encrypted key", pki.Malformed, true, "is encrypted", func(t *testing.T, g given, _ *issuer) {
		write(t, g.key, toPEM("ENCRYPTED PRIVATE KEY", []byte("hello")))
	}},
	{"another key", pki.KeyMismatch, true, "is not the key of the certificate in", func(t *testing.T, g given, _ *issuer) {
		write(t, g.key, keyToPEM(t, newKey(t)))
	}},
	{"wrong order", pki.KeyMismatch, false, "does not begin with the certificate of", func(t *testing.T, g given, i *issuer) {
		write(t, g.cert, append(i.pem(), read(t, g.cert)...))
	}},
	{"expired", pki.Expired, false, "expired on", func(t *testing.T, g given, i *issuer) {
		g.put(t, i, func(x *x509.Certificate) { x.NotAfter = i.now.Add(-time.Second) })
	}},
	{"not yet valid", pki.NotYetValid, false, "is not valid before", func(t *testing.T, g given, i *issuer) {
		g.put(t, i, func(x *x509.Certificate) { x.NotBefore = i.now.Add(day) })
	}},
}

func TestBadPairAtTheStart(t *testing.T) {
	for _, tt := range spoil {
		t.Run(tt.name, func(t *testing.T) {
			c, g := newClock(), newGiven(t)
			i := newIssuer(t, "a CA", c.now())
			g.put(t, i, nil)
			tt.put(t, g, i)
			_, err := pki.Open(pki.Config{CertFile: g.cert, KeyFile: g.key, Now: c.now})
			file := g.cert
			if tt.inKey {
				file = g.key
			}
			require.Contains(t, requireFault(t, err, tt.kind, file), tt.says)
		})
	}
}

func TestBadPairKeepsTheOldInForce(t *testing.T) {
	for _, tt := range spoil {
		t.Run(tt.name, func(t *testing.T) {
			c, g, reg, log := newClock(), newGiven(t), prometheus.NewRegistry(), new(journal)
			i := newIssuer(t, "a CA", c.now())
			old := g.put(t, i, nil)
			k := open(t, pki.Config{CertFile: g.cert, KeyFile: g.key, Now: c.now, Registerer: reg, Log: log.logger()})
			require.Empty(t, k.CAFile())
			addr, config := serve(t, k.ServerConfig()), trusting(t, c, i.pem())
			tt.put(t, g, i)
			for range 3 {
				require.Error(t, k.Reload())
			}
			require.Contains(t, k.Fault().Error(), tt.says)
			require.True(t, old.Equal(leafSeen(t, addr, config)))
			require.InDelta(t, 1, metric(t, reg, "bad", "server"), 0)
			require.InDelta(t, 1, metric(t, reg, "reloads_total", "server,failed"), 0)
			require.InDelta(t, old.NotAfter.Unix(), metric(t, reg, "expiry_timestamp_seconds", "server"), 0)
			require.Len(t, log.lines(), 1)
			require.Len(t, log.lines("level=ERROR", tt.says, g.dir), 1)

			next := g.put(t, i, func(x *x509.Certificate) { x.NotAfter = i.now.Add(100 * day) })
			require.NoError(t, k.Reload())
			require.NoError(t, k.Fault())
			require.True(t, next.Equal(leafSeen(t, addr, config)))
			require.Zero(t, metric(t, reg, "bad", "server"))
			require.InDelta(t, 1, metric(t, reg, "reloads_total", "server,ok"), 0)
			require.InDelta(t, next.NotAfter.Unix(), metric(t, reg, "expiry_timestamp_seconds", "server"), 0)
			require.Len(t, log.lines("level=INFO", "in order again"), 1)
		})
	}
}

func TestEveryDistinctFaultIsLogged(t *testing.T) {
	c, g, log := newClock(), newGiven(t), new(journal)
	i := newIssuer(t, "a CA", c.now())
	g.put(t, i, nil)
	k := open(t, pki.Config{CertFile: g.cert, KeyFile: g.key, Now: c.now, Log: log.logger()})
	good := read(t, g.cert)
	for range 2 {
		write(t, g.cert, nil)
		require.Error(t, k.Reload())
		require.Error(t, k.Reload())
		require.NoError(t, os.Remove(g.cert))
		require.Error(t, k.Reload())
		require.Error(t, k.Reload())
		write(t, g.cert, good)
		require.NoError(t, k.Reload())
	}
	require.Len(t, log.lines("holds no certificate"), 2)
	require.Len(t, log.lines("does not exist"), 2)
	require.Len(t, log.lines("in order again"), 2)
	require.Len(t, log.lines(), 6)
}

func TestPairIsTakenUpWhenItBecomesValid(t *testing.T) {
	c, g := newClock(), newGiven(t)
	i := newIssuer(t, "a CA", c.now())
	g.put(t, i, nil)
	k := open(t, pki.Config{CertFile: g.cert, KeyFile: g.key, Now: c.now})
	addr := serve(t, k.ServerConfig())
	next := g.put(t, i, func(x *x509.Certificate) { x.NotBefore = i.now.Add(day) })
	_ = requireFault(t, k.Reload(), pki.NotYetValid, g.cert)
	c.advance(day + time.Second)
	require.NoError(t, k.Reload())
	require.True(t, next.Equal(leafSeen(t, addr, trusting(t, c, i.pem()))))
}

func TestPairInForceExpires(t *testing.T) {
	c, g, reg := newClock(), newGiven(t), prometheus.NewRegistry()
	i := newIssuer(t, "a CA", c.now())
	g.put(t, i, nil)
	k := open(t, pki.Config{CertFile: g.cert, KeyFile: g.key, Now: c.now, Registerer: reg})
	c.advance(366 * day)
	_ = requireFault(t, k.Reload(), pki.Expired, g.cert)
	require.InDelta(t, 1, metric(t, reg, "bad", "server"), 0)
}

func TestExposedKeyIsWarnedOf(t *testing.T) {
	c, g, log := newClock(), newGiven(t), new(journal)
	i := newIssuer(t, "a CA", c.now())
	g.put(t, i, nil)
	cfg := pki.Config{CertFile: g.cert, KeyFile: g.key, Now: c.now, Log: log.logger()}
	for mode, warnings := range map[os.FileMode]int{0o600: 0, 0o640: 0, 0o400: 0, 0o644: 1, 0o660: 1} {
		before := len(log.lines("level=WARN", "make it 0600"))
		require.NoError(t, os.Chmod(g.key, mode))
		k := open(t, cfg)
		require.NoError(t, k.Reload())
		require.Len(t, log.lines("level=WARN", "make it 0600"), before+warnings, mode)
	}
}

func TestConfigThatSaysTooLittle(t *testing.T) {
	c := newClock()
	for name, cfg := range map[string]pki.Config{
		"nothing":          {},
		"name of the CA":   {Name: "ca", Dir: t.TempDir(), Names: func() ([]string, error) { return []string{"a"}, nil }},
		"name with a path": {Name: "../a", Dir: t.TempDir(), Names: func() ([]string, error) { return []string{"a"}, nil }},
		"only a key":       {KeyFile: "tls.key"},
		"only a cert":      {CertFile: "tls.crt", Dir: t.TempDir()},
		"no names":         {Dir: t.TempDir(), Now: c.now},
		"client CA absent": {Dir: t.TempDir(), Names: func() ([]string, error) { return []string{"a"}, nil }, ClientCAFiles: []string{"absent"}},
	} {
		_, err := pki.Open(cfg)
		require.Error(t, err, name)
	}
}

// TestSymlinkSwap does as Kubernetes does: new files go to another directory, and then a link points to it.
func TestSymlinkSwap(t *testing.T) {
	c, dir := newClock(), t.TempDir()
	i := newIssuer(t, "a CA", c.now())
	volume := func(name string) (leaf *x509.Certificate) {
		g := given{cert: filepath.Join(dir, name, "tls.crt"), key: filepath.Join(dir, name, "tls.key"), ca: filepath.Join(dir, name, "ca.crt")}
		require.NoError(t, os.Mkdir(filepath.Join(dir, name), 0o700))
		leaf = g.put(t, i, nil)
		require.NoError(t, os.Symlink(name, filepath.Join(dir, "..tmp")))
		require.NoError(t, os.Rename(filepath.Join(dir, "..tmp"), filepath.Join(dir, "..data")))
		return leaf
	}
	volume("first")
	for _, file := range []string{"tls.crt", "tls.key"} {
		require.NoError(t, os.Symlink(filepath.Join("..data", file), filepath.Join(dir, file)))
	}
	k := open(t, pki.Config{CertFile: filepath.Join(dir, "tls.crt"), KeyFile: filepath.Join(dir, "tls.key"), Now: c.now})
	addr := serve(t, k.ServerConfig())
	second := volume("second")
	require.NoError(t, k.Reload())
	require.True(t, second.Equal(leafSeen(t, addr, trusting(t, c, i.pem()))))
}

func TestRunReloads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, reg, log := newGiven(t), prometheus.NewRegistry(), new(journal)
		i := newIssuer(t, "a CA", time.Now())
		g.put(t, i, nil)
		k := open(t, pki.Config{
			CertFile: g.cert, KeyFile: g.key, ClientCAFiles: []string{g.ca}, Log: log.logger(), Registerer: reg, Poll: 2 * time.Second,
		})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- k.Run(ctx) }()
		pass := func(polls int) {
			time.Sleep(time.Duration(polls) * 2 * time.Second)
			synctest.Wait()
		}
		synctest.Wait()

		next := g.put(t, i, nil)
		write(t, g.ca, newIssuer(t, "another CA", time.Now()).pem())
		pass(1)
		config := k.ServerConfig()
		cert, err := config.GetCertificate(nil)
		require.NoError(t, err)
		require.True(t, next.Equal(cert.Leaf))
		require.InDelta(t, 1, metric(t, reg, "reloads_total", "server-client-ca,ok"), 0)

		// A pair is seen while it is being replaced.
		whole := read(t, g.key)
		write(t, g.key, nil)
		pass(1)
		require.Empty(t, log.lines("level=ERROR"))
		require.Zero(t, metric(t, reg, "bad", "server"))
		write(t, g.key, whole)
		pass(5)
		require.Empty(t, log.lines("level=ERROR"))

		// It stays as it is.
		write(t, g.key, nil)
		pass(5)
		require.Len(t, log.lines("level=ERROR"), 1)
		require.InDelta(t, 1, metric(t, reg, "bad", "server"), 0)
		cancel()
		require.NoError(t, <-done)
	})
}

func TestRunRenews(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		k := open(t, pki.Config{Dir: dir, Names: func() ([]string, error) { return []string{"localhost"}, nil }})
		first := contents(t, dir)
		// This ends ten minutes before two thirds of 90 days and one hour, counted from an hour ago, are over.
		time.Sleep(60*day - 30*time.Minute)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- k.Run(ctx) }()
		time.Sleep(9 * time.Minute)
		require.Equal(t, first, contents(t, dir))
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		require.NotEqual(t, first["server.crt"], contents(t, dir)["server.crt"])
		require.Equal(t, first["ca.crt"], contents(t, dir)["ca.crt"])
		cancel()
		require.NoError(t, <-done)
	})
}

func TestNoHandshakeIsDisturbedByReloads(t *testing.T) {
	c, g := newClock(), newGiven(t)
	i := newIssuer(t, "a CA", c.now())
	g.put(t, i, nil)
	k := open(t, pki.Config{CertFile: g.cert, KeyFile: g.key, ClientCAFiles: []string{g.ca}, Now: c.now})
	addr := serve(t, k.ServerConfig())
	config := showing(t, trusting(t, c, i.pem()), i, nil)

	var stop atomic.Bool
	var handshakes atomic.Int64
	var wg sync.WaitGroup
	faults := make([]error, 8)
	for n := range 8 {
		mine := config.Clone()
		if n%2 == 0 {
			mine.ClientSessionCache = tls.NewLRUClientSessionCache(1)
		}
		if n%4 < 2 {
			mine.MaxVersion = tls.VersionTLS12
		}
		wg.Go(func() {
			for !stop.Load() {
				_, said, err := dial(addr, mine)
				if err == nil && said != "a client" {
					err = fmt.Errorf("the server said %q", said)
				}
				if err != nil {
					faults[n] = err
					return
				}
				handshakes.Add(1)
			}
		})
	}
	for n := range 20 {
		before := handshakes.Load()
		next := g.put(t, i, nil)
		// The set of CAs changes too.
		write(t, g.ca, append(i.pem(), newIssuer(t, fmt.Sprint(n), c.now()).pem()...))
		require.NoError(t, k.Reload())
		write(t, g.key, nil)
		require.Error(t, k.Reload())
		require.True(t, next.Equal(leafSeen(t, addr, config)))
		// Until some clients were served, or it is clear that none will be.
		for deadline := time.Now().Add(20 * time.Second); handshakes.Load() < before+4 && time.Now().Before(deadline); {
			time.Sleep(time.Millisecond)
		}
		require.GreaterOrEqual(t, handshakes.Load(), before+4)
	}
	stop.Store(true)
	wg.Wait()
	for _, err := range faults {
		require.NoError(t, err)
	}
}
