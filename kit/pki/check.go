package pki

import (
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"fmt"
	"time"
)

// Files says what Check examines.
type Files struct {
	// Cert and Key are PEM files: a certificate, followed by those that signed it, and its key. Both may be empty, to look
	// at a CA alone.
	Cert, Key string
	// CA is a PEM file of the CAs trusted by those who see the certificate; if empty, trust is not checked.
	CA string
	// Names are the host names and IP addresses the certificate should cover.
	Names []string
	// Usage is the extended key usage the certificate should have; the zero value allows any.
	Usage x509.ExtKeyUsage
	// Within is how long before its expiry a certificate is reported.
	Within time.Duration
}

// Check returns everything that is wrong with the files at the time now, faults before warnings. It changes nothing.
func Check(files Files, now time.Time) []Fault {
	x := &examination{files: files, now: now}
	var cas []*x509.Certificate
	if files.CA != "" {
		cas = x.authorities()
	}
	if files.Cert != "" {
		x.certificate(cas)
	}
	return append(x.faults, x.warnings...)
}

type examination struct {
	files            Files
	now              time.Time
	faults, warnings []Fault
}

// add records an error of the functions that parse and compare, which is a *Fault or nil.
func (x *examination) add(err error) {
	f, ok := errors.AsType[*Fault](err)
	switch {
	case !ok:
	case f.Warning:
		x.warnings = append(x.warnings, *f)
	default:
		x.faults = append(x.faults, *f)
	}
}

func (x *examination) read(file string) []*x509.Certificate {
	data, err := readFile(file)
	if err != nil {
		x.add(err)
		return nil
	}
	certs, err := parseCertificates(file, data)
	x.add(err)
	return certs
}

func (x *examination) authorities() []*x509.Certificate {
	cas := x.read(x.files.CA)
	for _, c := range cas {
		if !c.IsCA {
			x.add(&Fault{
				Kind: WrongUsage, File: x.files.CA, Problem: fmt.Sprintf("holds %q, which is not the certificate of a CA", c.Subject),
				Remedy: "put the certificate of the CA that signed it there",
			})
		}
		x.age(x.files.CA, c)
		x.strength(x.files.CA, c)
	}
	return cas
}

func (x *examination) certificate(cas []*x509.Certificate) {
	chain := x.read(x.files.Cert)
	x.key(chain)
	if len(chain) == 0 {
		return
	}
	leaf := chain[0]
	x.age(x.files.Cert, leaf)
	for _, c := range chain {
		x.strength(x.files.Cert, c)
	}
	x.usage(leaf)
	for _, name := range x.files.Names {
		if !covers(leaf, name) {
			x.add(&Fault{
				Kind: NameMissing, File: x.files.Cert, Problem: "is not for " + name,
				Remedy: "have it issued with this as a subject alternative name",
			})
		}
	}
	if len(cas) > 0 {
		x.add(x.trust(chain, cas))
	}
}

func (x *examination) key(chain []*x509.Certificate) {
	data, err := readFile(x.files.Key)
	if err != nil {
		x.add(err)
		return
	}
	x.add(exposed(x.files.Key))
	key, err := parseKey(x.files.Key, data)
	if err != nil {
		x.add(err)
		return
	}
	if len(chain) > 0 {
		x.add(matches(x.files.Cert, chain, x.files.Key, key))
	}
}

func (x *examination) age(file string, c *x509.Certificate) {
	err := valid(file, c, x.now)
	if err == nil && c.NotAfter.Sub(x.now) < x.files.Within {
		err = &Fault{
			Kind: ExpiresSoon, File: file, Problem: "expires on " + moment(c.NotAfter),
			Remedy: "replace it before", Warning: true,
		}
	}
	x.add(err)
}

func (x *examination) strength(file string, c *x509.Certificate) {
	if err := supported(file, c); err != nil {
		x.add(err)
	} else if key, ok := c.PublicKey.(*rsa.PublicKey); ok && key.N.BitLen() < 2048 {
		x.add(&Fault{
			Kind: WeakKey, File: file, Problem: fmt.Sprintf("has an RSA key of %d bits", key.N.BitLen()),
			Remedy: "replace it by one of 2048 bits or more, or by an ECDSA key", Warning: true,
		})
	}
	switch c.SignatureAlgorithm {
	case x509.SHA1WithRSA, x509.ECDSAWithSHA1, x509.DSAWithSHA1, x509.MD5WithRSA, x509.MD2WithRSA:
		// The signature of a root is not verified: the root is trusted as it is.
		if c.Subject.String() != c.Issuer.String() {
			x.add(&Fault{
				Kind: WeakSignature, File: file, Problem: fmt.Sprintf("has a certificate signed with %s, which clients refuse", c.SignatureAlgorithm),
				Remedy: "have it signed again, with SHA-256",
			})
		}
	}
}

func (x *examination) usage(leaf *x509.Certificate) {
	if x.files.Usage == x509.ExtKeyUsageAny || len(leaf.ExtKeyUsage)+len(leaf.UnknownExtKeyUsage) == 0 {
		return
	}
	for _, u := range leaf.ExtKeyUsage {
		if u == x.files.Usage || u == x509.ExtKeyUsageAny {
			return
		}
	}
	what := map[x509.ExtKeyUsage]string{x509.ExtKeyUsageServerAuth: "serverAuth", x509.ExtKeyUsageClientAuth: "clientAuth"}[x.files.Usage]
	x.add(&Fault{
		Kind: WrongUsage, File: x.files.Cert, Problem: "is issued for other purposes than " + what,
		Remedy: "have it issued with this extended key usage",
	})
}

// trust returns a *Fault if the certificate does not chain to one of the CAs. Its expiry is another fault.
func (x *examination) trust(chain, cas []*x509.Certificate) error {
	leaf := chain[0]
	at := x.now
	if at.Before(leaf.NotBefore) || at.After(leaf.NotAfter) {
		at = leaf.NotAfter
	}
	opts := x509.VerifyOptions{
		Roots: x509.NewCertPool(), Intermediates: x509.NewCertPool(), CurrentTime: at,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	}
	for _, c := range cas {
		opts.Roots.AddCert(c)
	}
	for _, c := range chain[1:] {
		opts.Intermediates.AddCert(c)
	}
	_, err := leaf.Verify(opts)
	if err == nil {
		return nil
	}
	fault := &Fault{Kind: Untrusted, File: x.files.Cert, Problem: fmt.Sprintf("does not lead to a CA in %s (%v)", x.files.CA, err)}
	if _, unknown := errors.AsType[x509.UnknownAuthorityError](err); unknown {
		fault.Remedy = fmt.Sprintf("put the certificate of its issuer, %q, after it if that is an intermediate CA, else into %s", chain[len(chain)-1].Issuer, x.files.CA)
	} else {
		fault.Remedy = "replace the CA, or have the certificate issued by one that may"
	}
	return fault
}

// covers reports whether a certificate covers a host name or an IP address. A wildcard is covered only by the same wildcard.
func covers(leaf *x509.Certificate, name string) bool {
	if ip, ok := address(name); ok {
		return leaf.VerifyHostname(ip.String()) == nil
	}
	return leaf.VerifyHostname(name) == nil
}
