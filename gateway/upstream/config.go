package upstream

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"

	"golang.org/x/net/http/httpproxy"

	"github.com/openmep/mep/kit/netguard"
)

// Config holds the settings that apply to all profiles.
type Config struct {
	// Guard returns the policy that says which addresses may be called; nil Guards and policies refuse nothing. It is called for every
	// connection and call. Another pointer means that the policy changed: open connections are then checked again, and refused ones closed.
	Guard func() *netguard.Policy
	// MaxIdlePerHost is how many idle connections are kept per endpoint; 0 or less means 256.
	MaxIdlePerHost int
	// MaxPerHost bounds the connections per endpoint; further requests wait. 0 or less: no limit.
	MaxPerHost int
	// Proxy is the http or https URL of an HTTP proxy, optionally with user name and password; "": none.
	Proxy string
	// NoProxy lists what is called without Proxy: host names with the names below them (".example.com": only the latter), addresses, CIDR
	// prefixes, or "*" for everything. Host names and addresses may have a port, and then apply to it only. Loopback addresses and
	// "localhost" are always called without Proxy.
	NoProxy []string
	// ProxyFromEnvironment takes the proxy from HTTP_PROXY, HTTPS_PROXY and NO_PROXY if Proxy is "".
	ProxyFromEnvironment bool
	// ClientCertificates are the certificates that profiles name.
	ClientCertificates map[string]tls.Certificate
	// RootCAs verify certificates for profiles without CAs of their own; nil: those of the system.
	RootCAs *x509.CertPool
}

// defaultIdlePerHost is the default of MaxIdlePerHost.
const defaultIdlePerHost = 256

// settings is a Config that was checked.
type settings struct {
	guard              func() *netguard.Policy
	maxIdle, maxActive int
	proxyFor           func(*url.URL) (*url.URL, error) // nil: no proxy
	certificates       map[string]*tls.Certificate
	rootCAs            *x509.CertPool
}

// Check returns what is wrong with the configuration, or nil.
func (c Config) Check() error {
	_, err := newSettings(c)
	return err
}

func newSettings(cfg Config) (*settings, error) {
	s := &settings{
		guard: cfg.Guard, maxIdle: cfg.MaxIdlePerHost, maxActive: max(cfg.MaxPerHost, 0), rootCAs: cfg.RootCAs,
		certificates: make(map[string]*tls.Certificate, len(cfg.ClientCertificates)),
	}
	if s.maxIdle <= 0 {
		s.maxIdle = defaultIdlePerHost
	}
	for _, name := range slices.Sorted(maps.Keys(cfg.ClientCertificates)) {
		cert := cfg.ClientCertificates[name]
		if len(cert.Certificate) == 0 || cert.PrivateKey == nil {
			return nil, fmt.Errorf("the client certificate %q has no certificate or no key", name)
		}
		s.certificates[name] = &cert
	}
	switch {
	case cfg.Proxy != "":
		if _, err := parseProxy(cfg.Proxy); err != nil {
			return nil, err
		}
		env := httpproxy.Config{HTTPProxy: cfg.Proxy, HTTPSProxy: cfg.Proxy, NoProxy: strings.Join(cfg.NoProxy, ",")}
		s.proxyFor = env.ProxyFunc()
	case cfg.ProxyFromEnvironment:
		env := httpproxy.FromEnvironment()
		for _, p := range []string{env.HTTPProxy, env.HTTPSProxy} {
			if p == "" {
				continue
			}
			if _, err := parseProxy(withScheme(p)); err != nil {
				return nil, fmt.Errorf("the environment: %w", err)
			}
		}
		s.proxyFor = env.ProxyFunc()
	}
	return s, nil
}

// withScheme adds the scheme that the environment may omit.
func withScheme(proxy string) string {
	if strings.Contains(proxy, "://") {
		return proxy
	}
	return "http://" + proxy
}

// parseProxy parses the URL of a proxy. The error does not repeat the URL, which may hold a password.
func parseProxy(raw string) (*url.URL, error) {
	u, err := url.Parse(raw)
	switch {
	case err != nil:
		return nil, errors.New("the proxy is not a URL")
	case u.Scheme == "":
		return nil, errors.New("the proxy must be an http or https URL such as http://proxy.example:3128")
	case u.Scheme != "http" && u.Scheme != "https":
		return nil, fmt.Errorf("the proxy must be an http or https URL, not one of %s", u.Scheme)
	case u.Hostname() == "":
		return nil, errors.New("the URL of the proxy must name a host")
	case u.Path != "" && u.Path != "/", u.RawQuery != "", u.Fragment != "":
		return nil, errors.New("the URL of the proxy must not have a path, query or fragment")
	}
	if _, err := netguard.PortOf(u); err != nil {
		return nil, fmt.Errorf("the URL of the proxy %w", err)
	}
	return u, nil
}

// policy returns the current policy of the guard, or nil if nothing is refused.
func (s *settings) policy() *netguard.Policy {
	if s.guard == nil {
		return nil
	}
	return s.guard()
}

// sameCertificate reports whether two certificates, which may be nil, are equal.
func sameCertificate(a, b *tls.Certificate) bool {
	if a == nil || b == nil {
		return a == b
	}
	return slices.EqualFunc(a.Certificate, b.Certificate, slices.Equal[[]byte])
}

// samePool reports whether two sets of CAs, which may be nil, are equal.
func samePool(a, b *x509.CertPool) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.Equal(b)
}
