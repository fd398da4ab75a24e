package pki

import (
	"crypto/tls"
	"sync/atomic"
)

// suites12 are the cipher suites of TLS 1.2 with forward secrecy and authenticated encryption, for both kinds of keys. Those of TLS 1.3
// cannot be configured.
var suites12 = []uint16{
	tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
	tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
	tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
	tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
	tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
	tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
}

// ServerConfig returns the configuration of a listener: TLS 1.2 or later, HTTP/2 and HTTP/1.1, and always the certificate in force. If
// there are client CAs, clients may present a certificate; one that does not chain to them fails the handshake.
//
// Each call returns a configuration with session ticket keys of its own, so that a session of one listener is not resumed at another.
func (k *Keeper) ServerConfig() *tls.Config {
	config := &tls.Config{
		MinVersion:   tls.VersionTLS12,
		CipherSuites: suites12,
		NextProtos:   []string{"h2", "http/1.1"},
		Time:         k.env.now,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			return k.pair.current.Load().cert, nil
		},
	}
	if k.clientCAs != nil {
		base := config.Clone()
		config.GetConfigForClient = k.forClient(base)
	}
	return config
}

// forClient gives each handshake the client CAs in force when it begins.
//
// crypto/tls then treats resumed sessions as follows (Go 1.26, Config.ticketKeys and checkForResumption, for TLS 1.2 and 1.3 alike). It
// seals tickets with the keys of the listener's configuration, not with those of the one returned here, as long as none were set on the
// latter. So sessions outlast a change of the CAs. A ticket carries the chains that were verified when the session began, and the client's
// certificate is not verified again. But the session is resumed only if one of these chains has not expired and ends in a CA of the
// configuration returned here; otherwise a full handshake follows, which verifies the client's certificate anew. Hence a session does not
// outlast the removal of its CA. An open connection does.
//
// A pool is never nil: crypto/tls would use the CAs of the operating system instead.
func (k *Keeper) forClient(base *tls.Config) func(*tls.ClientHelloInfo) (*tls.Config, error) {
	type made struct {
		from   *pool
		config *tls.Config
	}
	var last atomic.Pointer[made]
	return func(*tls.ClientHelloInfo) (*tls.Config, error) {
		cas := k.clientCAs.current.Load()
		if m := last.Load(); m != nil && m.from == cas {
			return m.config, nil
		}
		m := &made{from: cas, config: base.Clone()}
		m.config.ClientAuth = tls.VerifyClientCertIfGiven
		m.config.ClientCAs = cas.cas
		last.Store(m)
		return m.config, nil
	}
}
