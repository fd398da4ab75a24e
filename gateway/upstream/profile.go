package upstream

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/openmep/mep/api/gateway"
)

// The defaults of gateway.Upstream and gateway.Timeouts.
const (
	defaultConnect    = 5 * time.Second
	defaultResponse   = 60 * time.Second
	defaultIdle       = 5 * time.Minute
	defaultRetries    = 2
	defaultEjectAfter = 5
	defaultEjectFor   = 10 * time.Second
	defaultInterval   = 5 * time.Second
	defaultProbe      = time.Second
	defaultHealthy    = 1
	defaultUnhealthy  = 2
	minInterval       = 100 * time.Millisecond
)

// maxRetries bounds the retries of a request, whatever its policy says.
const maxRetries = 8

// noProxy is the value of gateway.Upstream.Proxy that means no proxy.
const noProxy = "none"

// Profile says how endpoints are reached. It is made by Manager.Profile, and its settings do not change.
type Profile struct {
	spec
	ca    *x509.CertPool // nil: those of the settings
	proxy *url.URL       // the profile's own proxy

	// Guarded by Manager.mu.
	wiring    *wiring
	endpoints int
	unused    time.Time // since when it has had no endpoints
}

// spec holds the settings of a Profile, with defaults filled in. Equal specs share a Profile.
type spec struct {
	caPEM, certificate, serverName, proxyURL string
	connect, response, idle                  time.Duration
	retries                                  int
	ejectAfter                               int32 // 0: never
	ejectFor, slowStart                      time.Duration
	health                                   healthSpec
}

// healthSpec holds the settings of health checks. There are none if path is "".
type healthSpec struct {
	path               string
	interval, timeout  time.Duration
	healthy, unhealthy int
}

func newSpec(u gateway.Upstream, t gateway.Timeouts) (spec, error) {
	var faults []error
	span := func(name string, v gateway.Duration, otherwise, least time.Duration) time.Duration {
		if v == "" {
			return otherwise
		}
		d, err := time.ParseDuration(string(v))
		if err != nil || d < least {
			faults = append(faults, fmt.Errorf("%s: %q is not a duration of at least %s", name, v, least))
		}
		return d
	}
	s := spec{
		caPEM: u.CA, certificate: u.ClientCertificate, serverName: u.ServerName, proxyURL: u.Proxy,
		connect:    span("timeouts.connect", t.Connect, defaultConnect, 0),
		response:   span("timeouts.response", t.Response, defaultResponse, 0),
		idle:       span("timeouts.idle", t.Idle, defaultIdle, 0),
		retries:    min(orDefault(u.Retries, defaultRetries), maxRetries),
		ejectFor:   span("upstream.ejectFor", u.EjectFor, defaultEjectFor, time.Millisecond),
		slowStart:  span("upstream.slowStart", u.SlowStart, 0, 0),
		ejectAfter: int32(min(orDefault(u.EjectAfter, defaultEjectAfter), 1<<30)), //nolint:gosec // bounded on both sides
	}
	if h := u.HealthCheck; h != nil {
		s.health = healthSpec{
			path:      h.Path,
			interval:  span("upstream.healthCheck.interval", h.Interval, defaultInterval, minInterval),
			timeout:   span("upstream.healthCheck.timeout", h.Timeout, defaultProbe, time.Millisecond),
			healthy:   max(orDefault(h.Healthy, defaultHealthy), 1),
			unhealthy: max(orDefault(h.Unhealthy, defaultUnhealthy), 1),
		}
		if p, err := url.Parse(h.Path); err != nil || !strings.HasPrefix(h.Path, "/") || p.Host != "" || p.Fragment != "" {
			faults = append(faults, fmt.Errorf("upstream.healthCheck.path: %q is not a path that begins with a slash", h.Path))
		}
	}
	return s, errors.Join(faults...)
}

// orDefault returns otherwise if v is 0, 0 if v is negative, and v otherwise.
func orDefault(v, otherwise int) int {
	if v == 0 {
		return otherwise
	}
	return max(v, 0)
}

func newProfile(s spec) (*Profile, error) {
	p := &Profile{spec: s}
	var err error
	if s.caPEM != "" {
		if p.ca, err = parseCAs(s.caPEM); err != nil {
			return nil, err
		}
	}
	if s.proxyURL != "" && s.proxyURL != noProxy {
		if p.proxy, err = parseProxy(s.proxyURL); err != nil {
			return nil, fmt.Errorf("upstream.proxy: %w", err)
		}
	}
	return p, nil
}

// parseCAs parses PEM certificates, of which there must be at least one.
func parseCAs(text string) (*x509.CertPool, error) {
	pool := x509.NewCertPool()
	count := 0
	for rest := []byte(text); ; count++ {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			if strings.TrimSpace(string(rest)) != "" && strings.Contains(string(rest), "-----BEGIN") {
				return nil, errors.New("upstream.ca: the PEM is cut off or damaged")
			}
			break
		}
		if block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("upstream.ca: holds a block of the type %q instead of a certificate", block.Type)
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("upstream.ca: certificate %d cannot be parsed: %w", count+1, err)
		}
		pool.AddCert(cert)
	}
	if count == 0 {
		return nil, errors.New("upstream.ca: holds no certificate in PEM form")
	}
	return pool, nil
}

// certificateOf returns the client certificate that a profile names, or nil if it names none.
func (s *settings) certificateOf(p *Profile) (*tls.Certificate, error) {
	if p.certificate == "" {
		return nil, nil
	}
	cert, ok := s.certificates[p.certificate]
	if !ok {
		return nil, fmt.Errorf("upstream.clientCertificate: there is no %q in gateway.clientCertificates", p.certificate)
	}
	return cert, nil
}
