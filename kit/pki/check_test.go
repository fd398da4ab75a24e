package pki_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"net"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/openmep/mep/kit/pki"
)

func TestCheck(t *testing.T) {
	t.Setenv("GODEBUG", "rsa1024min=0")
	c := newClock()
	root := newIssuer(t, "root", c.now())
	// An intermediate CA, signed by the root.
	below := &issuer{key: newKey(t), now: c.now()}
	belowPEM, _ := root.issue(t, below.key, func(x *x509.Certificate) {
		x.Subject.CommonName, x.IsCA, x.BasicConstraintsValid, x.KeyUsage = "below", true, true, x509.KeyUsageCertSign
		x.ExtKeyUsage = nil
	})
	below.cert = parse(t, belowPEM)
	weak := func(bits int) *rsa.PrivateKey {
		key, err := rsa.GenerateKey(rand.Reader, bits)
		require.NoError(t, err)
		return key
	}
	p224, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	require.NoError(t, err)

	type found struct {
		kind    pki.Kind
		warning bool
		says    string
	}
	for _, tt := range []struct {
		name  string
		put   func(t *testing.T, g given)
		files func(*pki.Files)
		found []found
	}{
		{name: "all is well"},
		{name: "signed by an intermediate CA that is there", put: func(t *testing.T, g given) {
			g.put(t, below, nil)
			write(t, g.cert, append(read(t, g.cert), belowPEM...))
			write(t, g.ca, root.pem())
		}},
		{name: "only a CA", files: func(f *pki.Files) { f.Cert, f.Key = "", "" }},
		{name: "key in the hands of a group", put: func(t *testing.T, g given) { require.NoError(t, os.Chmod(g.key, 0o640)) }},
		{name: "certificate for any purpose", put: func(t *testing.T, g given) {
			g.put(t, root, func(x *x509.Certificate) { x.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageAny} })
		}},
		{name: "files missing", put: func(t *testing.T, g given) {
			for _, file := range []string{g.cert, g.key, g.ca} {
				require.NoError(t, os.Remove(file))
			}
		}, found: []found{
			{pki.Unreadable, false, "ca.crt does not exist"}, {pki.Unreadable, false, "tls.crt does not exist"},
			{pki.Unreadable, false, "tls.key does not exist"},
		}},
		{name: "a directory", put: func(t *testing.T, g given) {
			require.NoError(t, os.Remove(g.cert))
			require.NoError(t, os.Mkdir(g.cert, 0o700))
		}, found: []found{{pki.Unreadable, false, "not a regular file"}}},
		{name: "a huge file", put: func(t *testing.T, g given) { write(t, g.key, make([]byte, 2<<20)) },
			found: []found{{pki.Unreadable, false, "larger than 1048576 bytes"}}},
		{name: "no PEM", put: func(t *testing.T, g given) {
			write(t, g.cert, []byte("hello"))
			write(t, g.key, []byte("hello"))
			write(t, g.ca, []byte("hello"))
		}, found: []found{
			{pki.Malformed, false, "holds no certificate"}, {pki.Malformed, false, "holds no certificate"},
			{pki.Malformed, false, "holds no private key"},
		}},
		{name: "another key", put: func(t *testing.T, g given) { write(t, g.key, keyToPEM(t, newKey(t))) },
			found: []found{{pki.KeyMismatch, false, "is not the key of"}}},
		{name: "expired", put: func(t *testing.T, g given) {
			g.put(t, root, func(x *x509.Certificate) { x.NotAfter = c.now().Add(-time.Minute) })
		}, found: []found{{pki.Expired, false, "expired on"}}},
		{name: "expires soon", put: func(t *testing.T, g given) {
			g.put(t, root, func(x *x509.Certificate) { x.NotAfter = c.now().Add(29 * day) })
		}, found: []found{{pki.ExpiresSoon, true, "expires on"}}},
		{name: "not yet valid", put: func(t *testing.T, g given) {
			g.put(t, root, func(x *x509.Certificate) { x.NotBefore = c.now().Add(time.Minute) })
		}, found: []found{{pki.NotYetValid, false, "correct the clock"}}},
		{name: "names missing", files: func(f *pki.Files) {
			f.Names = []string{"localhost", "mep.example.com", "127.0.0.1", "192.0.2.1", "2001:db8::1"}
		}, found: []found{
			{pki.NameMissing, false, "is not for mep.example.com"}, {pki.NameMissing, false, "is not for 192.0.2.1"},
			{pki.NameMissing, false, "is not for 2001:db8::1"},
		}},
		{name: "a wildcard covers one label", put: func(t *testing.T, g given) {
			g.put(t, root, func(x *x509.Certificate) {
				x.DNSNames, x.IPAddresses = []string{"*.example.com"}, []net.IP{net.ParseIP("2001:db8::1")}
			})
		}, files: func(f *pki.Files) {
			f.Names = []string{"a.example.com", "*.example.com", "a.b.example.com", "2001:DB8:0::1"}
		}, found: []found{{pki.NameMissing, false, "is not for a.b.example.com"}}},
		{name: "for clients only", put: func(t *testing.T, g given) {
			g.put(t, root, func(x *x509.Certificate) { x.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} })
		}, found: []found{{pki.WrongUsage, false, "other purposes than serverAuth"}}},
		{name: "of another CA", put: func(t *testing.T, g given) { write(t, g.ca, newIssuer(t, "another", c.now()).pem()) },
			found: []found{{pki.Untrusted, false, `"CN=root"`}}},
		{name: "intermediate CA not there", put: func(t *testing.T, g given) {
			g.put(t, below, nil)
			write(t, g.ca, root.pem())
		}, found: []found{{pki.Untrusted, false, `put the certificate of its issuer, "CN=below", after it`}}},
		{name: "CA file holds the certificate itself", put: func(t *testing.T, g given) { write(t, g.ca, read(t, g.cert)) },
			found: []found{{pki.WrongUsage, false, "not the certificate of a CA"}}},
		{name: "CA expired", put: func(t *testing.T, g given) {
			old := newIssuer(t, "old", c.now().Add(-3651*day))
			old.now = c.now()
			g.put(t, old, nil)
		}, found: []found{{pki.Expired, false, "ca.crt expired on"}, {pki.Untrusted, false, "replace the CA"}}},
		{name: "key for everybody", put: func(t *testing.T, g given) { require.NoError(t, os.Chmod(g.key, 0o644)) },
			found: []found{{pki.KeyExposed, true, "permissions 0644"}}},
		{name: "short RSA key", put: func(t *testing.T, g given) {
			certPEM, keyPEM := root.issue(t, weak(1024), nil)
			write(t, g.cert, certPEM)
			write(t, g.key, keyPEM)
		}, found: []found{{pki.WeakKey, true, "1024 bits"}}},
		{name: "RSA key too short for TLS", put: func(t *testing.T, g given) {
			certPEM, keyPEM := root.issue(t, weak(768), nil)
			write(t, g.cert, certPEM)
			write(t, g.key, keyPEM)
		}, found: []found{{pki.Unsupported, false, "768 bits"}}},
		{name: "curve that TLS has not", put: func(t *testing.T, g given) {
			certPEM, keyPEM := root.issue(t, p224, nil)
			write(t, g.cert, certPEM)
			write(t, g.key, keyPEM)
		}, found: []found{{pki.Unsupported, false, "P-224"}}},
		{name: "signed with SHA-1", put: func(t *testing.T, g given) {
			g.put(t, root, func(x *x509.Certificate) { x.SignatureAlgorithm = x509.ECDSAWithSHA1 })
		}, found: []found{{pki.WeakSignature, false, "ECDSA-SHA1"}, {pki.Untrusted, false, "does not lead to a CA"}}},
		{name: "several at once, what only warns at the end", put: func(t *testing.T, g given) {
			g.put(t, root, func(x *x509.Certificate) { x.NotAfter = c.now().Add(day) })
			require.NoError(t, os.Chmod(g.key, 0o644))
		}, files: func(f *pki.Files) { f.Names = []string{"a"} }, found: []found{
			{pki.NameMissing, false, "is not for a"}, {pki.KeyExposed, true, "0644"}, {pki.ExpiresSoon, true, "expires on"},
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g := newGiven(t)
			g.put(t, root, nil)
			if tt.put != nil {
				tt.put(t, g)
			}
			files := pki.Files{
				Cert: g.cert, Key: g.key, CA: g.ca, Usage: x509.ExtKeyUsageServerAuth, Within: 30 * day,
			}
			if tt.files != nil {
				tt.files(&files)
			}
			faults := pki.Check(files, c.now())
			require.Len(t, faults, len(tt.found), "%v", faults)
			for i, f := range faults {
				require.Equal(t, tt.found[i].kind, f.Kind, "%v", faults)
				require.Equal(t, tt.found[i].warning, f.Warning)
				require.Contains(t, f.Error(), tt.found[i].says)
				require.NotEmpty(t, f.Remedy)
			}
		})
	}
}

func TestPairThatTLSCannotUseIsRefused(t *testing.T) {
	c, g := newClock(), newGiven(t)
	key, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	require.NoError(t, err)
	certPEM, keyPEM := newIssuer(t, "a CA", c.now()).issue(t, key, nil)
	write(t, g.cert, certPEM)
	write(t, g.key, keyPEM)
	_, err = pki.Open(pki.Config{CertFile: g.cert, KeyFile: g.key, Now: c.now})
	_ = requireFault(t, err, pki.Unsupported, g.cert)
}

// TestFormsOfKeys reads forms of keys that this package does not write.
func TestFormsOfKeys(t *testing.T) {
	c := newClock()
	i := newIssuer(t, "a CA", c.now())
	ec, rsaKey := newKey(t), func() *rsa.PrivateKey {
		key, err := rsa.GenerateKey(rand.Reader, 2048)
		require.NoError(t, err)
		return key
	}()
	sec1, err := x509.MarshalECPrivateKey(ec)
	require.NoError(t, err)
	ecPEM, _ := i.issue(t, ec, nil)
	rsaPEM, rsaKeyPEM := i.issue(t, rsaKey, nil)
	for _, tt := range []struct {
		name      string
		cert, key []byte
	}{
		{"SEC 1, after its parameters", ecPEM, append(toPEM("EC PARAMETERS", []byte{6, 8, 42, 134, 72, 206, 61, 3, 1, 7}), toPEM("EC PRIVATE KEY", sec1)...)},
		{"PKCS #1", rsaPEM, toPEM("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(rsaKey))},
		{"PKCS #8", rsaPEM, rsaKeyPEM},
		{"with text around it", append([]byte("subject: a test\n"), rsaPEM...), append([]byte("Bag Attributes\n"), rsaKeyPEM...)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g := newGiven(t)
			write(t, g.cert, tt.cert)
			write(t, g.key, tt.key)
			k := open(t, pki.Config{CertFile: g.cert, KeyFile: g.key, Now: c.now})
			leafSeen(t, serve(t, k.ServerConfig()), trusting(t, c, i.pem()))
		})
	}
	t.Run("both in one file", func(t *testing.T) {
		g := newGiven(t)
		write(t, g.cert, append(rsaKeyPEM, rsaPEM...))
		k := open(t, pki.Config{CertFile: g.cert, KeyFile: g.cert, Now: c.now})
		leafSeen(t, serve(t, k.ServerConfig()), trusting(t, c, i.pem()))
	})
}
