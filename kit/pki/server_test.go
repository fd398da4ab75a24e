package pki_test

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"io"
	"log/slog"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/kit/httpx"
	"github.com/openmep/mep/kit/pki"
)

func TestProtocols(t *testing.T) {
	c := newClock()
	i := newIssuer(t, "a CA", c.now())
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(t, err)
	for _, key := range []struct {
		name   string
		key    crypto.Signer
		suites []uint16
		cbc    uint16
	}{
		{"ECDSA", newKey(t), []uint16{
			tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
			tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
		}, tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA},
		{"RSA", rsaKey, []uint16{
			tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
			tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
		}, tls.TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA},
	} {
		t.Run(key.name, func(t *testing.T) {
			g := newGiven(t)
			certPEM, keyPEM := i.issue(t, key.key, nil)
			write(t, g.cert, certPEM)
			write(t, g.key, keyPEM)
			addr := serve(t, open(t, pki.Config{CertFile: g.cert, KeyFile: g.key, Now: c.now}).ServerConfig())
			client := func(version uint16, suites ...uint16) *tls.Config {
				config := trusting(t, c, i.pem())
				config.MinVersion, config.MaxVersion, config.CipherSuites = version, version, suites
				return config
			}
			for _, suite := range key.suites {
				state, _, err := dial(addr, client(tls.VersionTLS12, suite))
				require.NoError(t, err, tls.CipherSuiteName(suite))
				require.Equal(t, uint16(tls.VersionTLS12), state.Version)
				require.Equal(t, suite, state.CipherSuite)
			}
			state, _, err := dial(addr, client(tls.VersionTLS13))
			require.NoError(t, err)
			require.Equal(t, uint16(tls.VersionTLS13), state.Version)

			const version, suite = "protocol version not supported", "handshake failure"
			for name, refused := range map[string]struct {
				config *tls.Config
				alert  string
			}{
				"TLS 1.0":      {client(tls.VersionTLS10), version},
				"TLS 1.1":      {client(tls.VersionTLS11), version},
				"CBC":          {client(tls.VersionTLS12, key.cbc), suite},
				"RSA exchange": {client(tls.VersionTLS12, tls.TLS_RSA_WITH_AES_128_GCM_SHA256), suite},
			} {
				_, _, err := dial(addr, refused.config)
				require.ErrorContains(t, err, "remote error: tls: "+refused.alert, name)
			}
		})
	}
}

func TestHTTP(t *testing.T) {
	c := newClock()
	for name, withCAs := range map[string]bool{"without client CAs": false, "with client CAs": true} {
		t.Run(name, func(t *testing.T) {
			cfg := own(t.TempDir(), c)
			if withCAs {
				g := newGiven(t)
				g.put(t, newIssuer(t, "clients", c.now()), nil)
				cfg.ClientCAFiles = []string{g.ca}
			}
			k := open(t, cfg)
			answer := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.Proto) })
			srv, err := httpx.Listen("test", "127.0.0.1:0", answer, httpx.Limits{}, k.ServerConfig(), slog.New(slog.DiscardHandler))
			require.NoError(t, err)
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error, 1)
			go func() { done <- srv.Run(ctx, func() time.Duration { return time.Second }) }()
			defer func() {
				cancel()
				require.NoError(t, <-done)
			}()
			for proto, h2 := range map[string]bool{"HTTP/1.1": false, "HTTP/2.0": true} {
				transport := &http.Transport{TLSClientConfig: trusting(t, c, read(t, k.CAFile())), ForceAttemptHTTP2: h2}
				client := &http.Client{Transport: transport, Timeout: 20 * time.Second}
				resp, err := client.Get(srv.URL())
				require.NoError(t, err)
				body, err := io.ReadAll(resp.Body)
				require.NoError(t, err)
				require.NoError(t, resp.Body.Close())
				require.Equal(t, proto, string(body))
				transport.CloseIdleConnections()
			}
		})
	}
}

// showing returns the configuration of a client that presents a certificate of the issuer.
func showing(t *testing.T, config *tls.Config, i *issuer, change func(*x509.Certificate)) *tls.Config {
	t.Helper()
	certPEM, keyPEM := i.issue(t, newKey(t), func(x *x509.Certificate) {
		x.Subject = pkix.Name{CommonName: "a client"}
		if change != nil {
			change(x)
		}
	})
	cert, err := tls.X509KeyPair(certPEM, keyPEM)
	require.NoError(t, err)
	config = config.Clone()
	// Presented whatever CAs the server asks for.
	config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &cert, nil }
	return config
}

func TestClientCertificates(t *testing.T) {
	c := newClock()
	known, second, stranger := newIssuer(t, "known", c.now()), newIssuer(t, "second", c.now()), newIssuer(t, "stranger", c.now())
	g, h := newGiven(t), newGiven(t)
	g.put(t, known, nil)
	h.put(t, second, nil)
	cfg := own(t.TempDir(), c)
	plain := open(t, cfg)
	cfg.ClientCAFiles = []string{g.ca, h.ca}
	asking := serve(t, open(t, cfg).ServerConfig())
	silent := serve(t, plain.ServerConfig())
	base := trusting(t, c, read(t, plain.CAFile()))

	for _, tt := range []struct {
		name   string
		addr   string
		config *tls.Config
		said   string
		fails  string
	}{
		{name: "none, as is allowed", addr: asking, config: base, said: "-"},
		{name: "of a known CA", addr: asking, config: showing(t, base, known, nil), said: "a client"},
		{name: "of the CA in the second file", addr: asking, config: showing(t, base, second, nil), said: "a client"},
		{name: "of an unknown CA", addr: asking, config: showing(t, base, stranger, nil), fails: "unknown certificate authority"},
		{name: "expired", addr: asking, fails: "certificate", config: showing(t, base, known, func(x *x509.Certificate) {
			x.NotAfter = c.now().Add(-time.Minute)
		})},
		{name: "for servers only", addr: asking, fails: "certificate", config: showing(t, base, known, func(x *x509.Certificate) {
			x.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
		})},
		{name: "of a known CA, where none is asked for", addr: silent, config: showing(t, base, known, nil), said: "-"},
	} {
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			t.Run(tt.name+"/"+tls.VersionName(version), func(t *testing.T) {
				config := tt.config.Clone()
				config.MinVersion, config.MaxVersion = version, version
				_, said, err := dial(tt.addr, config)
				if tt.fails != "" {
					require.ErrorContains(t, err, tt.fails)
					return
				}
				require.NoError(t, err)
				require.Equal(t, tt.said, said)
			})
		}
	}
}

func TestClientCertificateExpiresByTheClockOfTheKeeper(t *testing.T) {
	c, g := newClock(), newGiven(t)
	known := newIssuer(t, "known", c.now())
	g.put(t, known, nil)
	cfg := own(t.TempDir(), c)
	cfg.ClientCAFiles = []string{g.ca}
	k := open(t, cfg)
	addr := serve(t, k.ServerConfig())
	config := showing(t, trusting(t, c, read(t, k.CAFile())), known, func(x *x509.Certificate) { x.NotAfter = c.now().Add(day) })
	config.ClientSessionCache = tls.NewLRUClientSessionCache(1)
	_, _, err := dial(addr, config)
	require.NoError(t, err)
	c.advance(2 * day)
	_, _, err = dial(addr, config)
	require.ErrorContains(t, err, "remote error: tls:", "neither anew nor in a session of before")
}

func TestSessionDoesNotOutlastTheRemovalOfItsCA(t *testing.T) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		t.Run(tls.VersionName(version), func(t *testing.T) {
			c := newClock()
			goes, stays := newIssuer(t, "goes", c.now()), newIssuer(t, "stays", c.now())
			g := newGiven(t)
			write(t, g.ca, append(goes.pem(), stays.pem()...))
			cfg := own(t.TempDir(), c)
			cfg.ClientCAFiles = []string{g.ca}
			k := open(t, cfg)
			addr := serve(t, k.ServerConfig())
			base := trusting(t, c, read(t, k.CAFile()))
			base.MinVersion, base.MaxVersion = version, version

			clients := map[string]*tls.Config{"goes": showing(t, base, goes, nil), "stays": showing(t, base, stays, nil), "none": base.Clone()}
			for name, config := range clients {
				config.ClientSessionCache = tls.NewLRUClientSessionCache(1)
				for _, resumed := range []bool{false, true} {
					state, _, err := dial(addr, config)
					require.NoError(t, err, name)
					require.Equal(t, resumed, state.DidResume, name)
				}
			}

			write(t, g.ca, stays.pem())
			require.NoError(t, k.Reload())
			for _, name := range []string{"stays", "none"} {
				state, _, err := dial(addr, clients[name])
				require.NoError(t, err, name)
				require.True(t, state.DidResume, "%s: the others' sessions go on", name)
			}
			_, _, err := dial(addr, clients["goes"])
			require.ErrorContains(t, err, "unknown certificate authority")
		})
	}
}

func TestSessionsAreResumed(t *testing.T) {
	c := newClock()
	k := open(t, own(t.TempDir(), c))
	config := trusting(t, c, read(t, k.CAFile()))
	config.ClientSessionCache = tls.NewLRUClientSessionCache(1)
	addr, other := serve(t, k.ServerConfig()), serve(t, k.ServerConfig())
	for _, step := range []struct {
		addr    string
		resumed bool
	}{{addr, false}, {addr, true}, {other, false}} {
		state, _, err := dial(step.addr, config)
		require.NoError(t, err)
		require.Equal(t, step.resumed, state.DidResume)
	}
}

func TestBrokenClientCAsKeepTheOldInForce(t *testing.T) {
	c, log := newClock(), new(journal)
	known := newIssuer(t, "known", c.now())
	g := newGiven(t)
	write(t, g.ca, known.pem())
	cfg := own(t.TempDir(), c)
	cfg.ClientCAFiles, cfg.Log = []string{g.ca}, log.logger()
	k := open(t, cfg)
	addr := serve(t, k.ServerConfig())
	config := showing(t, trusting(t, c, read(t, k.CAFile())), known, nil)
	// An empty set would let in every client that the operating system trusts, or none.
	write(t, g.ca, nil)
	for range 2 {
		_ = requireFault(t, k.Reload(), pki.Malformed, g.ca)
		_ = requireFault(t, k.Fault(), pki.Malformed, g.ca)
	}
	require.Len(t, log.lines("level=ERROR", "name=server-client-ca"), 1)
	_, said, err := dial(addr, config)
	require.NoError(t, err)
	require.Equal(t, "a client", said)

	_, err = pki.Open(cfg)
	_ = requireFault(t, err, pki.Malformed, g.ca)
}
