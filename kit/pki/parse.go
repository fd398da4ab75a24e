package pki

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"
)

// maxFile is the size in bytes of the largest file that is read. A bundle of all public CAs has a quarter of it.
const maxFile = 1 << 20

// pair is a certificate with its key, and the bytes both were parsed from.
type pair struct {
	certPEM, keyPEM []byte
	cert            *tls.Certificate
}

// same reports whether p was parsed from these bytes.
func (p *pair) same(certPEM, keyPEM []byte) bool {
	return p != nil && bytes.Equal(p.certPEM, certPEM) && bytes.Equal(p.keyPEM, keyPEM)
}

// readFile reads a regular file. The error is a *Fault.
func readFile(file string) ([]byte, error) {
	fault := func(problem, remedy string) error {
		return &Fault{Kind: Unreadable, File: file, Problem: problem, Remedy: remedy}
	}
	// Checked first, because opening a pipe would wait for a writer.
	info, err := os.Stat(file)
	var data []byte
	switch {
	case err == nil && !info.Mode().IsRegular():
		return nil, fault("is not a regular file", "name a PEM file")
	case err == nil && info.Size() > maxFile:
		return nil, fault(fmt.Sprintf("is larger than %d bytes", maxFile), "name a PEM file")
	case err == nil:
		var f *os.File
		if f, err = os.Open(file); err == nil {
			data, err = io.ReadAll(io.LimitReader(f, maxFile))
			err = errors.Join(err, f.Close())
		}
	}
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil, fault("does not exist", "put the file there or correct the path")
	case errors.Is(err, os.ErrPermission):
		return nil, fault(fmt.Sprintf("may not be read by user %d", os.Geteuid()), "give that user the right to read it and to enter its directories")
	case err != nil:
		return nil, fault("cannot be read", err.Error())
	}
	return data, nil
}

// parseCertificates parses all certificates of a PEM file; there is at least one. The error is a *Fault.
func parseCertificates(file string, data []byte) ([]*x509.Certificate, error) {
	fault := func(problem, remedy string) error {
		return &Fault{Kind: Malformed, File: file, Problem: problem, Remedy: remedy}
	}
	var list []*x509.Certificate
	var others []string
	rest := data
	for {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			others = append(others, block.Type)
			continue
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fault(fmt.Sprintf("holds a certificate that cannot be parsed (%v)", err), "replace it by a complete X.509 certificate")
		}
		list = append(list, cert)
	}
	_, derErr := x509.ParseCertificate(data)
	switch {
	case bytes.Contains(rest, []byte("-----BEGIN")):
		return nil, fault("is cut off or damaged", "copy the whole file again")
	case len(list) > 0:
		return list, nil
	case derErr == nil:
		return nil, fault("is a DER file", "convert it to PEM with openssl x509 -inform der")
	case strings.Contains(strings.Join(others, " "), "PRIVATE KEY"):
		return nil, fault("holds a private key instead of a certificate", "see whether the two files were mixed up")
	}
	return nil, fault("holds no certificate in PEM form", "put a block that begins with -----BEGIN CERTIFICATE----- there")
}

// parseKey parses the first private key of a PEM file. The error is a *Fault.
func parseKey(file string, data []byte) (crypto.Signer, error) {
	fault := func(problem, remedy string) error {
		return &Fault{Kind: Malformed, File: file, Problem: problem, Remedy: remedy}
	}
	var others []string
	rest := data
	for {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if !strings.HasSuffix(block.Type, "PRIVATE KEY") {
			others = append(others, block.Type)
			continue
		}
		if block.Type == "ENCRYPTED PRIVATE KEY" || block.Headers["DEK-Info"] != "" {
			return nil, fault("is encrypted", "decrypt it with openssl pkey and protect the file by its permissions")
		}
		key, err := parseKeyBlock(block.Bytes)
		if err != nil {
			return nil, fault("holds a private key that cannot be parsed", "replace it by an ECDSA, RSA or Ed25519 key in PKCS #8, SEC 1 or PKCS #1 form")
		}
		return key, nil
	}
	switch {
	case bytes.Contains(rest, []byte("-----BEGIN")):
		return nil, fault("is cut off or damaged", "copy the whole file again")
	case strings.Contains(strings.Join(others, " "), "CERTIFICATE"):
		return nil, fault("holds a certificate instead of a private key", "see whether the two files were mixed up")
	}
	return nil, fault("holds no private key in PEM form", "put a block that begins with -----BEGIN PRIVATE KEY----- there")
}

func parseKeyBlock(der []byte) (crypto.Signer, error) {
	if key, err := x509.ParsePKCS8PrivateKey(der); err == nil {
		signer, ok := key.(crypto.Signer)
		if !ok {
			return nil, errors.New("not a key for signatures")
		}
		return signer, nil
	}
	if key, err := x509.ParseECPrivateKey(der); err == nil {
		return key, nil
	}
	return x509.ParsePKCS1PrivateKey(der)
}

// parsePair parses a certificate and its key, which must be usable now. The error is a *Fault.
func parsePair(certFile string, certPEM []byte, keyFile string, keyPEM []byte, now time.Time) (*pair, error) {
	chain, err := parseCertificates(certFile, certPEM)
	if err != nil {
		return nil, err
	}
	key, err := parseKey(keyFile, keyPEM)
	if err != nil {
		return nil, err
	}
	if err := matches(certFile, chain, keyFile, key); err != nil {
		return nil, err
	}
	if err := supported(certFile, chain[0]); err != nil {
		return nil, err
	}
	if err := valid(certFile, chain[0], now); err != nil {
		return nil, err
	}
	cert := &tls.Certificate{PrivateKey: key, Leaf: chain[0]}
	for _, c := range chain {
		cert.Certificate = append(cert.Certificate, c.Raw)
	}
	return &pair{certPEM: certPEM, keyPEM: keyPEM, cert: cert}, nil
}

// matches returns a *Fault if key does not belong to the first certificate.
func matches(certFile string, chain []*x509.Certificate, keyFile string, key crypto.Signer) error {
	if owns(key, chain[0]) {
		return nil
	}
	for _, c := range chain[1:] {
		if owns(key, c) {
			return &Fault{
				Kind: KeyMismatch, File: certFile, Problem: "does not begin with the certificate of " + keyFile,
				Remedy: "put that certificate first and those that signed it after it",
			}
		}
	}
	return &Fault{
		Kind: KeyMismatch, File: keyFile, Problem: "is not the key of the certificate in " + certFile,
		Remedy: "replace both files by a certificate and its own key",
	}
}

func owns(key crypto.Signer, cert *x509.Certificate) bool {
	public, ok := key.Public().(interface{ Equal(crypto.PublicKey) bool })
	return ok && public.Equal(cert.PublicKey)
}

// supported returns a *Fault if crypto/tls cannot complete a handshake with the certificate's key.
func supported(file string, cert *x509.Certificate) error {
	const remedy = "replace the certificate and its key, by ECDSA P-256 ones for instance"
	switch key := cert.PublicKey.(type) {
	case *rsa.PublicKey:
		if key.N.BitLen() < 1024 {
			return &Fault{Kind: Unsupported, File: file, Problem: fmt.Sprintf("has an RSA key of %d bits, which TLS libraries refuse", key.N.BitLen()), Remedy: remedy}
		}
	case *ecdsa.PublicKey:
		if key.Curve == elliptic.P224() {
			return &Fault{Kind: Unsupported, File: file, Problem: "has a key on the curve P-224, which TLS does not offer", Remedy: remedy}
		}
	}
	return nil
}

// valid returns a *Fault if a certificate has expired or is not valid yet.
func valid(file string, cert *x509.Certificate, now time.Time) error {
	switch {
	case now.After(cert.NotAfter):
		return &Fault{
			Kind: Expired, File: file, Problem: "expired on " + moment(cert.NotAfter),
			Remedy: "replace it by a certificate that is valid, or correct the clock of this machine",
		}
	case now.Before(cert.NotBefore):
		return &Fault{
			Kind: NotYetValid, File: file, Problem: "is not valid before " + moment(cert.NotBefore),
			Remedy: "correct the clock of this machine, or wait until then",
		}
	}
	return nil
}

func moment(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 UTC") }

// exposed returns a *Fault if a key file can be read by everybody or replaced by others than its owner. Read access for a
// group is common, and is how Kubernetes gives secrets to a process that does not run as root.
func exposed(file string) error {
	info, err := os.Stat(file)
	if err != nil || info.Mode().Perm()&0o027 == 0 {
		return nil
	}
	return &Fault{
		Kind: KeyExposed, File: file, Problem: fmt.Sprintf("has the permissions %04o, so that other users have access to a private key", info.Mode().Perm()),
		Remedy: "make it 0600", Warning: true,
	}
}
