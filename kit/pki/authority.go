package pki

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/openmep/mep/kit/durable"
)

// authority is a CA in a directory, and the server certificate that it issues and renews.
//
// The key of the CA is written before its certificate, and the certificate can be made again from the key, so a process
// killed at any instant leaves a CA that can be completed. A damaged CA is never replaced by another: clients trust it.
type authority struct {
	dir, name string
	names     func() ([]string, error)
	env       *env
	// mayCreate says that a CA may be created if there is none. The first success clears it: a directory that is emptied
	// under a running process is a fault.
	mayCreate bool
	last      *pair
}

// stock is what was found in the directory.
type stock struct {
	caKey  crypto.Signer
	caCert *x509.Certificate
	// caDue says why the CA certificate must be issued; empty if it is in order.
	caDue string
	// pair is nil if there is none that can be used.
	pair *pair
	// pairDue says why the server certificate must be issued; empty if it is in order.
	pairDue string
}

func (a *authority) caFile() string   { return filepath.Join(a.dir, "ca.crt") }
func (a *authority) caKey() string    { return filepath.Join(a.dir, "ca.key") }
func (a *authority) certFile() string { return filepath.Join(a.dir, a.name+".crt") }
func (a *authority) keyFile() string  { return filepath.Join(a.dir, a.name+".key") }

// follow returns a follower of the authority's certificate.
func (a *authority) follow() *follower[pair] { return newPairFollower(a.name, a.env, a.fetch) }

// fetch returns the certificate to use, after issuing what is due. If that fails, it returns the error and, if it is still
// good, the certificate on disk.
func (a *authority) fetch(now time.Time) (*pair, error) {
	names, err := a.names()
	if err == nil && len(names) == 0 {
		err = errors.New("there is no name to issue a certificate for")
	}
	if err != nil {
		return nil, err
	}
	// This takes no lock, so that nothing need be writable while nothing is due.
	s, err := a.inspect(names, now)
	if err == nil && (s.caDue != "" || s.pairDue != "") {
		var mended *stock
		if mended, err = a.mend(names, now); err == nil {
			s = mended
		}
	}
	if s == nil || s.pair == nil {
		return nil, err
	}
	a.env.metrics.expiry.WithLabelValues(a.name + "-ca").Set(float64(s.caCert.NotAfter.Unix()))
	if !a.last.same(s.pair.certPEM, s.pair.keyPEM) {
		a.last = s.pair
		a.warnOfExposure()
	}
	a.mayCreate = false
	return a.last, err
}

func (a *authority) warnOfExposure() {
	for _, file := range []string{a.caKey(), a.keyFile()} {
		if err := exposed(file); err != nil {
			a.env.log.Warn("private key is not protected", "name", a.name, "error", err)
		}
	}
}

// inspect reads the directory and determines what is due. After an error nothing must be changed there.
func (a *authority) inspect(names []string, now time.Time) (*stock, error) {
	s := &stock{}
	if err := a.inspectCA(s, now); err != nil {
		return nil, err
	}
	var err error
	if s.pair, s.pairDue, err = a.readPair(now); err != nil {
		return nil, err
	}
	switch {
	case s.pair == nil:
	case s.caCert == nil || s.pair.cert.Leaf.CheckSignatureFrom(s.caCert) != nil:
		s.pair, s.pairDue = nil, "it was not issued by the present CA"
	default:
		s.pairDue = a.due(s.pair.cert.Leaf, names, now)
	}
	return s, nil
}

func (a *authority) inspectCA(s *stock, now time.Time) error {
	// The order matters: another process may be writing both, and writes the key first.
	certPEM, err := readOptional(a.caFile())
	if err != nil {
		return err
	}
	keyPEM, err := readOptional(a.caKey())
	switch {
	case err != nil:
		return err
	case keyPEM == nil && certPEM == nil && a.mayCreate:
		s.caDue = "there is none"
		return nil
	case keyPEM == nil && certPEM == nil:
		return &Fault{
			Kind: Unreadable, File: a.caFile(), Problem: "and ca.key have vanished",
			Remedy: "restore both from a backup, or restart to make a new CA that every client must be given",
		}
	case keyPEM == nil:
		return &Fault{
			Kind: Unreadable, File: a.caKey(), Problem: "is missing, while ca.crt, which clients trust, is there",
			Remedy: "restore it from a backup, or remove ca.crt to make a new CA that every client must be given",
		}
	}
	if s.caKey, err = parseKey(a.caKey(), keyPEM); err != nil {
		return a.restore(err)
	}
	if certPEM == nil {
		s.caDue = "it is missing"
		return a.mayReissue(s.caKey)
	}
	certs, err := parseCertificates(a.caFile(), certPEM)
	if err != nil {
		return a.restore(err)
	}
	if err := matches(a.caFile(), certs[:1], a.caKey(), s.caKey); err != nil {
		return a.restore(err)
	}
	s.caCert = certs[0]
	if err := s.caCert.CheckSignatureFrom(s.caCert); err != nil || !bytes.Equal(s.caCert.RawIssuer, s.caCert.RawSubject) {
		return &Fault{
			Kind: WrongUsage, File: a.caFile(), Problem: "is not the certificate of a self-signed CA",
			Remedy: "restore it from a backup; to serve a certificate of another CA, name it in the settings",
		}
	}
	switch {
	case valid(a.caFile(), s.caCert, now) != nil:
		s.caDue = "it is not valid now"
	case s.caCert.NotAfter.Sub(now) < caRenew:
		s.caDue = "it expires on " + moment(s.caCert.NotAfter)
	}
	return nil
}

// restore returns a fault of the CA with a remedy that suits a CA.
func (a *authority) restore(err error) error {
	f, ok := errors.AsType[*Fault](err)
	if !ok {
		return err
	}
	return &Fault{
		Kind: f.Kind, File: f.File, Problem: f.Problem,
		Remedy: "restore ca.crt and ca.key from a backup, or remove both to make a new CA that every client must be given",
	}
}

// mayReissue returns a *Fault if the certificate made from the key alone would not have the name of the missing one. A CA
// made by somebody else has another name.
func (a *authority) mayReissue(key crypto.Signer) error {
	certPEM, err := readOptional(a.certFile())
	if err != nil || certPEM == nil {
		return err
	}
	certs, err := parseCertificates(a.certFile(), certPEM)
	if err != nil {
		return nil //nolint:nilerr // a certificate that cannot be read says nothing about its CA
	}
	name, _, err := caSubject(key)
	if err != nil || certs[0].Issuer.String() == name.String() {
		return err
	}
	return &Fault{
		Kind: Unreadable, File: a.caFile(), Problem: fmt.Sprintf("is missing, and it was not %q", name),
		Remedy: "restore it from a backup, or remove ca.key to make a new CA that every client must be given",
	}
}

// readPair returns the server certificate, or why there is none that can be used. An error means that a file may be in order,
// but cannot be read by this user.
func (a *authority) readPair(now time.Time) (p *pair, due string, err error) {
	certPEM, err := readOptional(a.certFile())
	if err != nil {
		return nil, "", err
	}
	keyPEM, err := readOptional(a.keyFile())
	switch {
	case err != nil:
		return nil, "", err
	case certPEM == nil && keyPEM == nil:
		return nil, "there is none", nil
	case certPEM == nil:
		return nil, a.certFile() + " is missing", nil
	case keyPEM == nil:
		return nil, a.keyFile() + " is missing", nil
	}
	if p, err = parsePair(a.certFile(), certPEM, a.keyFile(), keyPEM, now); err != nil {
		return nil, err.Error(), nil
	}
	return p, "", nil
}

// due says why a good certificate must be replaced; "" if not.
func (a *authority) due(leaf *x509.Certificate, names []string, now time.Time) string {
	life := leaf.NotAfter.Sub(leaf.NotBefore)
	if now.After(leaf.NotBefore.Add(life / 3 * 2)) {
		return "two thirds of its life are over"
	}
	dns, ips := alternativeNames(names)
	for _, n := range dns {
		if !slices.Contains(leaf.DNSNames, n) {
			return "it is not for " + n
		}
	}
	for _, ip := range ips {
		if !slices.ContainsFunc(leaf.IPAddresses, ip.Equal) {
			return "it is not for " + ip.String()
		}
	}
	return ""
}

// mend issues what is due under the directory's lock, and returns what is there afterwards.
func (a *authority) mend(names []string, now time.Time) (s *stock, err error) {
	if err := a.makeDir(); err != nil {
		return nil, err
	}
	unlock, err := lockDir(a.dir)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	// Another process may have issued it meanwhile.
	if s, err = a.inspect(names, now); err != nil {
		return nil, err
	}
	if s.caDue != "" {
		err = a.mendCA(s, now)
	}
	if err == nil && s.pairDue != "" {
		err = a.mendPair(s, names, now)
	}
	if err != nil {
		return nil, err
	}
	return s, nil
}

func (a *authority) makeDir() error {
	if _, err := os.Stat(a.dir); err == nil {
		return nil
	}
	//nolint:gosec // clients on this machine read ca.crt; keys are protected one by one
	err := errors.Join(os.MkdirAll(a.dir, 0o755), os.Chmod(a.dir, 0o755))
	if err == nil {
		err = durable.SyncDir(filepath.Dir(a.dir))
	}
	if err != nil {
		return fmt.Errorf("make the directory of the certificates: %w", err)
	}
	return nil
}

func (a *authority) mendCA(s *stock, now time.Time) error {
	what := "certificate of the authority issued"
	if s.caKey == nil {
		if _, err := os.Stat(a.certFile()); err == nil {
			a.env.log.Warn("the certificate authority of before is gone: clients must be given the new one", "file", a.caFile())
		}
		key, keyPEM, err := newKey()
		if err != nil {
			return err
		}
		if err := durable.Replace(a.caKey(), keyPEM, 0o600); err != nil {
			return fmt.Errorf("write the key of the CA: %w", err)
		}
		s.caKey, what = key, "certificate authority created"
	}
	cert, certPEM, err := issueCA(s.caKey, s.caCert, now)
	if err != nil {
		return err
	}
	if err := durable.Replace(a.caFile(), certPEM, 0o644); err != nil {
		return fmt.Errorf("write the certificate of the CA: %w", err)
	}
	a.env.log.Info(what, "file", a.caFile(), "subject", cert.Subject.String(), "not_after", cert.NotAfter, "reason", s.caDue)
	s.caCert, s.caDue = cert, ""
	return nil
}

func (a *authority) mendPair(s *stock, names []string, now time.Time) error {
	key, keyPEM, err := newKey()
	if err != nil {
		return err
	}
	certPEM, err := issueServer(a.name, names, key, s.caCert, s.caKey, now)
	if err != nil {
		return err
	}
	// A process killed between the two writes leaves a pair that does not match, which the next process replaces.
	if err := durable.Replace(a.keyFile(), keyPEM, 0o600); err != nil {
		return fmt.Errorf("write the key of the server: %w", err)
	}
	if err := durable.Replace(a.certFile(), certPEM, 0o644); err != nil {
		return fmt.Errorf("write the certificate of the server: %w", err)
	}
	fresh, err := parsePair(a.certFile(), certPEM, a.keyFile(), keyPEM, now)
	if err != nil {
		return err
	}
	a.env.log.Info("certificate issued", "name", a.name, "file", a.certFile(), "names", names,
		"not_after", fresh.cert.Leaf.NotAfter, "reason", s.pairDue)
	s.pair, s.pairDue = fresh, ""
	return nil
}
