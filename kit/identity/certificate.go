package identity

import (
	"crypto/tls"
	"crypto/x509"
	"strings"
)

// certificateCaller returns the caller that the connection's client certificate stands for. The handshake has verified the certificate.
// It returns nil if there is no certificate or no rule matches it.
func certificateCaller(rules []CertRule, conn *tls.ConnectionState) *Caller {
	if conn == nil || len(conn.VerifiedChains) == 0 || len(conn.VerifiedChains[0]) == 0 {
		return nil
	}
	cert := conn.VerifiedChains[0][0]
	for i := range rules {
		if subject, ok := rules[i].match(cert); ok {
			return &Caller{
				Subject: CanonicalID(subject), Scopes: rules[i].Scopes, Via: "certificate",
				Issuer: cert.Issuer.String(), Expires: cert.NotAfter,
			}
		}
	}
	return nil
}

// Holder returns the caller that a connection's client certificate stands for under the rules in force, even once it has expired; nil if
// there is none. Use it for what began in time, and Certificate for what begins.
func (g *Guard) Holder(conn *tls.ConnectionState) *Caller {
	return certificateCaller(g.verifier.trust.Load().rules, conn)
}

// match returns the caller a certificate stands for, if the rule matches it.
func (r *CertRule) match(cert *x509.Certificate) (string, bool) {
	var names []string
	pattern := r.URI
	switch {
	case r.URI != "":
		for _, u := range cert.URIs {
			names = append(names, u.String())
		}
	case r.DNS != "":
		pattern, names = r.DNS, cert.DNSNames
	case r.Email != "":
		pattern, names = r.Email, cert.EmailAddresses
	default:
		pattern, names = r.CommonName, []string{cert.Subject.CommonName}
	}
	before, after, open := strings.Cut(pattern, placeholder)
	for _, name := range names {
		if !open {
			if name == pattern {
				return r.Caller, true
			}
			continue
		}
		rest, ok := strings.CutPrefix(name, before)
		if !ok {
			continue
		}
		// A slash would let the holder of one name pass for another.
		if caller, ok := strings.CutSuffix(rest, after); ok && caller != "" && !strings.ContainsAny(caller, "/?#") {
			return caller, true
		}
	}
	return "", false
}
