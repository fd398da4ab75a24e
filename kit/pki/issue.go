package pki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"time"
)

const (
	// caLife is how long a CA certificate is valid; it is renewed when caRenew of that is left.
	caLife  = 10 * 365 * 24 * time.Hour
	caRenew = 2 * 365 * 24 * time.Hour
	// serverLife is how long a server certificate is valid; it is issued again after two thirds of that.
	serverLife = 90 * 24 * time.Hour
	// skew is how far the clock of a client may be behind.
	skew = time.Hour
)

// newKey makes an ECDSA P-256 key and its PEM form.
func newKey() (crypto.Signer, []byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("make a key: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, nil, fmt.Errorf("encode a key: %w", err)
	}
	return key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

func serial() *big.Int {
	b := make([]byte, 16)
	_, _ = rand.Read(b) // never fails
	return new(big.Int).SetBytes(b)
}

// caSubject derives the name and the key identifier of a CA from its key. Thus the certificate can be made again from the
// key alone, and clients that trust a lost certificate trust the new one.
func caSubject(key crypto.Signer) (pkix.Name, []byte, error) {
	spki, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return pkix.Name{}, nil, fmt.Errorf("encode the key of the CA: %w", err)
	}
	sum := sha256.Sum256(spki)
	return pkix.Name{CommonName: "mep CA " + hex.EncodeToString(sum[:4])}, sum[:20], nil
}

// issueCA makes a self-signed CA certificate. It keeps the subject and key identifier of the previous certificate, if
// any: clients find a CA by them.
func issueCA(key crypto.Signer, before *x509.Certificate, now time.Time) (*x509.Certificate, []byte, error) {
	name, id, err := caSubject(key)
	if err != nil {
		return nil, nil, err
	}
	template := &x509.Certificate{
		SerialNumber: serial(), Subject: name, SubjectKeyId: id,
		NotBefore: now.Add(-skew), NotAfter: now.Add(caLife),
		IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	if before != nil {
		template.RawSubject = before.RawSubject
		template.SubjectKeyId = before.SubjectKeyId
	}
	return sign(template, template, key.Public(), key)
}

// issueServer makes a certificate for the names, signed by the CA.
func issueServer(name string, names []string, key crypto.Signer, ca *x509.Certificate, caKey crypto.Signer, now time.Time) ([]byte, error) {
	template := &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{CommonName: "mep " + name},
		NotBefore: now.Add(-skew), NotAfter: now.Add(serverLife), BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature,
		// The process may also present it as a client certificate, to an etcd that trusts this CA.
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	template.DNSNames, template.IPAddresses = alternativeNames(names)
	_, certPEM, err := sign(template, ca, key.Public(), caKey)
	return certPEM, err
}

func sign(template, parent *x509.Certificate, public crypto.PublicKey, signer crypto.Signer) (*x509.Certificate, []byte, error) {
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, signer)
	if err != nil {
		return nil, nil, fmt.Errorf("issue a certificate: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, nil, fmt.Errorf("read the certificate issued: %w", err)
	}
	return cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), nil
}

func alternativeNames(names []string) (dns []string, ips []net.IP) {
	for _, n := range names {
		if ip, ok := address(n); ok {
			ips = append(ips, ip.AsSlice())
		} else {
			dns = append(dns, n)
		}
	}
	return dns, ips
}
