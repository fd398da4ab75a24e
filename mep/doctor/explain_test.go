package doctor

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// serveTLS accepts TLS connections, or plain ones if config is nil, until the test ends.
func serveTLS(t *testing.T, config *tls.Config) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			if config == nil {
				_, _ = conn.Write([]byte("220 a server that speaks first\r\n"))
			} else if secured := tls.Server(conn, config); secured.HandshakeContext(t.Context()) == nil {
				_, _ = secured.Read(make([]byte, 1))
				_, _ = secured.Write([]byte{0})
			}
			_ = conn.Close()
		}
	}()
	t.Cleanup(func() {
		_ = ln.Close()
		<-done
	})
	return ln.Addr().String()
}

func TestHandshakesThatFailAreExplained(t *testing.T) {
	authority, other := newCA(t), newCA(t)
	certificate := func(change func(*x509.Certificate)) tls.Certificate {
		c, err := tls.LoadX509KeyPair(authority.issue(t, change))
		require.NoError(t, err)
		return c
	}
	good := certificate(nil)
	foreign, err := tls.LoadX509KeyPair(other.issue(t, nil))
	require.NoError(t, err)
	serving := func(c tls.Certificate) *tls.Config {
		return &tls.Config{Certificates: []tls.Certificate{c}, NextProtos: []string{"h2"}}
	}
	asking := func(version uint16) *tls.Config {
		config := serving(good)
		config.ClientAuth, config.ClientCAs, config.MaxVersion = tls.RequireAndVerifyClientCert, authority.pool(), version
		return config
	}
	for name, x := range map[string]struct {
		server          *tls.Config
		roots           *ca
		shown           []tls.Certificate
		problem, remedy string // none: it works
	}{
		"all is well":                       {server: serving(good), roots: authority},
		"a client certificate, TLS 1.3":     {server: asking(tls.VersionTLS13), roots: authority, shown: []tls.Certificate{good}},
		"a client certificate, TLS 1.2":     {server: asking(tls.VersionTLS12), roots: authority, shown: []tls.Certificate{good}},
		"another CA":                        {serving(good), other, nil, "a CA that is not trusted here", "set the.ca"},
		"another name":                      {serving(certificate(func(c *x509.Certificate) { c.IPAddresses = nil })), authority, nil, "is not for 127.0.0.1", "the.address"},
		"expired":                           {serving(certificate(func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Hour) })), authority, nil, "is not valid now", "have it replaced"},
		"no TLS":                            {nil, authority, nil, "does not speak TLS", "the.address"},
		"no client certificate, TLS 1.3":    {asking(tls.VersionTLS13), authority, nil, "wants one", "set the.cert"},
		"no client certificate, TLS 1.2":    {asking(tls.VersionTLS12), authority, nil, "want a client certificate", "set the.cert"},
		"other client certificate, TLS 1.3": {asking(tls.VersionTLS13), authority, []tls.Certificate{foreign}, "does not take our certificate", "set the.cert"},
		"other client certificate, TLS 1.2": {asking(tls.VersionTLS12), authority, []tls.Certificate{foreign}, "does not take our certificate", "set the.cert"},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			config := &tls.Config{RootCAs: x.roots.pool(), GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
				// crypto/tls wants an empty certificate if there is none.
				if len(x.shown) == 0 {
					return &tls.Certificate{}, nil
				}
				return &x.shown[0], nil
			}}
			err := knock(ctx, "https://"+serveTLS(t, x.server), config)
			if x.problem == "" {
				require.NoError(t, err)
				return
			}
			require.Error(t, err)
			problem, remedy := way{address: "the.address", ca: "the.ca", cert: "the.cert"}.explain(err)
			require.Contains(t, problem, x.problem)
			require.Contains(t, remedy, x.remedy)
		})
	}
}

func TestConnectionsThatFailAreExplained(t *testing.T) {
	w := way{address: "the.address", ca: "the.ca"}
	for name, x := range map[string]struct {
		err             error
		problem, remedy string
	}{
		"refused":             {&net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}, "nothing listens there", "the.address"},
		"no socket":           {&fs.PathError{Op: "dial", Err: fs.ErrNotExist}, "a socket that does not exist", "the.address"},
		"not for this user":   {&net.OpError{Op: "dial", Err: os.ErrPermission}, "may not be reached by this user", "as the user"},
		"an unknown name":     {&net.DNSError{Err: "no such host", Name: "x.invalid", IsNotFound: true}, "x.invalid", "name server"},
		"no answer":           {context.DeadlineExceeded, "does not answer within 3s", "firewall"},
		"slow":                {&net.DNSError{IsTimeout: true}, "is not known", "name server"},
		"slow to read":        {os.ErrDeadlineExceeded, "does not answer within 3s", "firewall"},
		"no way":              {syscall.EHOSTUNREACH, "no way to its network", "routes"},
		"something":           {errors.New("else"), "cannot be reached (else)", "the.address"},
		"wants a certificate": {&net.OpError{Op: "remote error", Err: errors.New("tls: certificate required")}, "wants one", "ask for none"},
	} {
		t.Run(name, func(t *testing.T) {
			problem, remedy := w.explain(x.err)
			require.Contains(t, problem, x.problem)
			require.Contains(t, remedy, x.remedy)
		})
	}
}

func TestAServerIsKnownToSpeakTLS(t *testing.T) {
	c, err := tls.LoadX509KeyPair(newCA(t).issue(t, nil))
	require.NoError(t, err)
	require.True(t, speaksTLS(t.Context(), serveTLS(t, &tls.Config{Certificates: []tls.Certificate{c}})))
	require.False(t, speaksTLS(t.Context(), serveTLS(t, nil)))
	require.False(t, speaksTLS(t.Context(), "unix://"+filepath.Join(t.TempDir(), "none")))
}

func TestEndpoints(t *testing.T) {
	for endpoint, want := range map[string][3]string{
		"127.0.0.1:2379":            {"tcp", "127.0.0.1:2379", "127.0.0.1"},
		"etcd.example:2379":         {"tcp", "etcd.example:2379", "etcd.example"},
		"http://[::1]:2379":         {"tcp", "[::1]:2379", "::1"},
		"https://etcd.example:2379": {"tcp", "etcd.example:2379", "etcd.example"},
		"unix:///run/etcd.sock":     {"unix", "/run/etcd.sock", ""},
		"unix:run/etcd.sock":        {"unix", "run/etcd.sock", ""},
		"unixs:///run/etcd.sock":    {"unix", "/run/etcd.sock", ""},
	} {
		network, address, host := hostOf(endpoint)
		require.Equal(t, want, [3]string{network, address, host}, endpoint)
	}
}

func FuzzEndpoints(f *testing.F) {
	for _, s := range []string{"", "a:1", "http://[::1]:2379", "unix:///x", "https://u:p@h:1/x?y"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, endpoint string) {
		network, address, host := hostOf(endpoint)
		require.Contains(t, []string{"tcp", "unix"}, network)
		require.True(t, strings.Contains(endpoint, address) || strings.Contains(endpoint, "%"), "%q of %q", address, endpoint)
		require.True(t, host == "" || strings.Contains(address, host))
	})
}
