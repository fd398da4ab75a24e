package pki_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/openmep/mep/kit/pki"
)

const day = 24 * time.Hour

func TestMain(m *testing.M) {
	if dir := os.Getenv(victimDir); dir != "" {
		victim(dir)
		return
	}
	goleak.VerifyTestMain(m)
}

// clock is a time that tests set.
type clock struct {
	mu sync.Mutex
	at time.Time
}

func newClock() *clock { return &clock{at: time.Now().Truncate(time.Second)} }

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}

// journal is a log that can be read while it is written.
type journal struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.buf.Write(p)
}

func (j *journal) logger() *slog.Logger { return slog.New(slog.NewTextHandler(j, nil)) }

// lines returns the lines that contain all of the texts.
func (j *journal) lines(texts ...string) []string {
	j.mu.Lock()
	defer j.mu.Unlock()
	var found []string
next:
	for line := range strings.Lines(j.buf.String()) {
		for _, text := range texts {
			if !strings.Contains(line, text) {
				continue next
			}
		}
		found = append(found, line)
	}
	return found
}

// issuer is a CA that tests issue certificates with.
type issuer struct {
	cert *x509.Certificate
	key  crypto.Signer
	now  time.Time
}

func newIssuer(t *testing.T, name string, now time.Time) *issuer {
	t.Helper()
	i := &issuer{now: now, key: newKey(t)}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(3650 * day), KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, i.key.Public(), i.key)
	require.NoError(t, err)
	i.cert, err = x509.ParseCertificate(der)
	require.NoError(t, err)
	return i
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	return key
}

// issue makes a certificate for localhost and 127.0.0.1, valid for a year unless change says otherwise.
func (i *issuer) issue(t *testing.T, key crypto.Signer, change func(*x509.Certificate)) (certPEM, keyPEM []byte) {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "a test"},
		NotBefore: i.now.Add(-time.Hour), NotAfter: i.now.Add(365 * day), KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		DNSNames:    []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	if change != nil {
		change(template)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, i.cert, key.Public(), i.key)
	require.NoError(t, err)
	return toPEM("CERTIFICATE", der), keyToPEM(t, key)
}

func (i *issuer) pem() []byte { return toPEM("CERTIFICATE", i.cert.Raw) }

func keyToPEM(t *testing.T, key crypto.Signer) []byte {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(t, err)
	return toPEM("PRIVATE KEY", der)
}

func toPEM(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

// given is a directory with a certificate, its key and its CA.
type given struct {
	dir           string
	cert, key, ca string
}

func newGiven(t *testing.T) given {
	t.Helper()
	dir := t.TempDir()
	return given{dir, filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key"), filepath.Join(dir, "ca.crt")}
}

// put writes a new pair of the issuer and returns its leaf.
func (g given) put(t *testing.T, i *issuer, change func(*x509.Certificate)) *x509.Certificate {
	t.Helper()
	certPEM, keyPEM := i.issue(t, newKey(t), change)
	write(t, g.cert, certPEM)
	write(t, g.key, keyPEM)
	write(t, g.ca, i.pem())
	return parse(t, certPEM)
}

func write(t *testing.T, file string, data []byte) {
	t.Helper()
	require.NoError(t, os.WriteFile(file, data, 0o600))
}

func read(t *testing.T, file string) []byte {
	t.Helper()
	data, err := os.ReadFile(file)
	require.NoError(t, err)
	return data
}

func parse(t *testing.T, certPEM []byte) *x509.Certificate {
	t.Helper()
	block, _ := pem.Decode(certPEM)
	require.NotNil(t, block)
	cert, err := x509.ParseCertificate(block.Bytes)
	require.NoError(t, err)
	return cert
}

// trusting returns the configuration of a client that trusts the CAs in the PEM data.
func trusting(t *testing.T, c *clock, cas ...[]byte) *tls.Config {
	t.Helper()
	pool := x509.NewCertPool()
	for _, ca := range cas {
		require.True(t, pool.AppendCertsFromPEM(ca))
	}
	return &tls.Config{RootCAs: pool, ServerName: "localhost", Time: c.now, MinVersion: tls.VersionTLS12}
}

// serve answers every connection with what it knows of the client: the name in its certificate, or a dash.
func serve(t *testing.T, config *tls.Config) (addr string) {
	t.Helper()
	ln, err := tls.Listen("tcp", "127.0.0.1:0", config)
	require.NoError(t, err)
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer conn.Close()
				_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
				secure := conn.(*tls.Conn)
				if secure.Handshake() != nil {
					return
				}
				name := "-"
				if certs := secure.ConnectionState().PeerCertificates; len(certs) > 0 {
					name = certs[0].Subject.CommonName
				}
				_, _ = io.WriteString(conn, name)
			})
		}
	})
	t.Cleanup(func() {
		require.NoError(t, ln.Close())
		wg.Wait()
	})
	return ln.Addr().String()
}

// dial makes a connection and returns its state and what the server said. Reading also receives the session ticket.
func dial(addr string, config *tls.Config) (tls.ConnectionState, string, error) {
	conn, err := tls.DialWithDialer(&net.Dialer{Timeout: 20 * time.Second}, "tcp", addr, config)
	if err != nil {
		return tls.ConnectionState{}, "", err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	said, err := io.ReadAll(conn)
	if err == nil && len(said) == 0 {
		err = errors.New("the server ended the connection")
	}
	return conn.ConnectionState(), string(said), err
}

func leafSeen(t *testing.T, addr string, config *tls.Config) *x509.Certificate {
	t.Helper()
	state, _, err := dial(addr, config)
	require.NoError(t, err)
	return state.PeerCertificates[0]
}

// metric returns the value of the series with these label values, joined by commas.
func metric(t *testing.T, reg prometheus.Gatherer, name, labels string) float64 {
	t.Helper()
	families, err := reg.Gather()
	require.NoError(t, err)
	for _, f := range families {
		for _, m := range f.GetMetric() {
			var values []string
			for _, l := range m.GetLabel() {
				values = append(values, l.GetValue())
			}
			if f.GetName() == "mep_tls_certificate_"+name && strings.Join(values, ",") == labels {
				return m.GetGauge().GetValue() + m.GetCounter().GetValue()
			}
		}
	}
	require.Fail(t, "no such metric", "%s{%s}", name, labels)
	return 0
}

// requireFault checks that err is a fault of the kind in the file that says what to do, and returns its text.
func requireFault(t *testing.T, err error, kind pki.Kind, file string) string {
	t.Helper()
	var f *pki.Fault
	require.ErrorAs(t, err, &f)
	require.Equal(t, kind, f.Kind, "%v", err)
	require.Equal(t, file, f.File, "%v", err)
	require.NotEmpty(t, f.Problem)
	require.NotEmpty(t, f.Remedy)
	require.Equal(t, fmt.Sprintf("%s %s: %s", f.File, f.Problem, f.Remedy), f.Error())
	return f.Error()
}
