package listen_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	cryptorand "crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/dnsagent/listen"
)

type configs struct{ server, client *tls.Config }

// certificate returns the configurations of a server with a self-signed certificate, and of a client that trusts it.
func certificate(t *testing.T, name string) configs {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), cryptorand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(cryptorand.Reader, template, template, &key.PublicKey, key)
	require.NoError(t, err)
	parsed, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	roots := x509.NewCertPool()
	roots.AddCert(parsed)
	return configs{
		server: &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}, NextProtos: []string{"h2"}},
		client: &tls.Config{RootCAs: roots, NextProtos: []string{"dot"}, ServerName: "127.0.0.1"},
	}
}

func dialTLS(t *testing.T, addr netip.AddrPort, config *tls.Config) *client {
	t.Helper()
	conn, err := tls.DialWithDialer(&net.Dialer{Timeout: patience}, "tcp", addr.String(), config)
	require.NoError(t, err)
	return newClient(t, conn, true)
}

func TestTLS(t *testing.T) {
	c := certificate(t, "a")
	peers := make(chan listen.Peer, 10)
	h := newEcho()
	h.seen = func(p listen.Peer) { peers <- p }
	s := start(t, listen.Config{TLSAddr: loopback, TLS: c.server}, h)
	require.Equal(t, netip.AddrPort{}, s.Addr())

	conn := dialTLS(t, s.TLSAddr(), c.client)
	require.Equal(t, "dot", conn.Conn.(*tls.Conn).ConnectionState().NegotiatedProtocol)
	require.Equal(t, "x", conn.ask("x"))
	require.Equal(t, listen.Peer{AddrPort: netip.MustParseAddrPort(conn.LocalAddr().String()), Transport: listen.TLS}, <-peers)
	h.release <- struct{}{}
	require.Equal(t, "wait: a", conn.ask("wait: a"))
	require.InDelta(t, 2, s.metric(t, "mep_dns_packets_total", "transport=tls"), 0)
	require.Equal(t, []string{"h2"}, c.server.NextProtos, "the configuration of others stays as it is")

	silent := c.client.Clone()
	silent.NextProtos = nil
	require.Equal(t, "x", dialTLS(t, s.TLSAddr(), silent).ask("x"), "a client need not name the protocol")
}

func TestCertificatesChange(t *testing.T) {
	a, b := certificate(t, "a"), certificate(t, "b")
	var current atomic.Pointer[tls.Config]
	current.Store(a.server)
	choose := a.server.Clone()
	choose.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) { return current.Load(), nil }
	s := start(t, listen.Config{TLSAddr: loopback, TLS: choose}, newEcho())
	for range 2 {
		conn := dialTLS(t, s.TLSAddr(), a.client)
		require.Equal(t, "dot", conn.Conn.(*tls.Conn).ConnectionState().NegotiatedProtocol)
		require.Equal(t, "x", conn.ask("x"))
	}
	current.Store(b.server)
	require.Equal(t, "x", dialTLS(t, s.TLSAddr(), b.client).ask("x"))
	current.Store(nil)
	require.Equal(t, "x", dialTLS(t, s.TLSAddr(), a.client).ask("x"), "no choice is that of the listener")
}

func TestHandshakesThatDoNotSucceed(t *testing.T) {
	c := certificate(t, "a")
	s := start(t, listen.Config{TLSAddr: loopback, TLS: c.server, ReadTimeout: short}, newEcho())
	silent := dial(t, "tcp", s.TLSAddr())
	plain := dial(t, "tcp", s.TLSAddr())
	plain.send("not TLS at all")
	for plain.Conn != nil { // an alert may come first
		if _, err := plain.Read(make([]byte, 64)); err != nil {
			break
		}
	}
	silent.closed()
	s.becomes(t, 2, "mep_dns_connections_ended_total", "reason=handshake", "transport=tls")
	require.Equal(t, "x", dialTLS(t, s.TLSAddr(), c.client).ask("x"))
}

func TestTLSNeedsACertificate(t *testing.T) {
	_, err := open(t, listen.Config{TLSAddr: loopback})
	require.ErrorContains(t, err, "certificate")
}
