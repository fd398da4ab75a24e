// Package daemon implements what all programs of the platform have in common: reading settings, starting and stopping parts
// in order, signals, the operations listener, and the commands run, validate, version and healthcheck.
package daemon

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"time"

	"github.com/openmep/mep/kit/audit"
	"github.com/openmep/mep/kit/identity"
	"github.com/openmep/mep/kit/telemetry"
)

// Version is the release, set at build time.
var Version = "dev"

// Config holds the settings every program has.
type Config struct {
	Dev           bool          `name:"dev" default:"false" usage:"development mode: plain HTTP on loopback, no tokens, any UUID is an application instance"`
	DataDir       string        `name:"dataDir" default:"./data" usage:"directory for the embedded etcd, snapshots and keys"`
	EtcdEndpoints []string      `name:"etcd.endpoints" usage:"etcd endpoints, comma-separated (mep: empty runs an embedded etcd)"`
	EtcdTimeout   time.Duration `name:"etcd.timeout" default:"3s" usage:"longest wait for one write to etcd"`
	EtcdCA        string        `name:"etcd.ca" usage:"PEM file of the CAs that issue etcd's certificates; with it, or with https endpoints, the connection is TLS"`
	EtcdCert      string        `name:"etcd.cert" usage:"PEM file of the client certificate shown to etcd"`
	EtcdKey       string        `name:"etcd.key" usage:"PEM file of the key of etcd.cert"`
	OpsListen     string        `name:"ops.listen" default:"127.0.0.1:9090" usage:"address of health, readiness, metrics and, with --dev, profiles"`
	LogLevel      string        `name:"log.level" default:"info" reload:"true" usage:"least level that is logged: debug, info, warn, error"`
	LogFormat     string        `name:"log.format" default:"json" dev:"text" usage:"json or text"`
	TracesURL     string        `name:"traces.url" usage:"OpenTelemetry collector (OTLP over HTTP) that gets a span of every request; empty: none"`
	Drain         time.Duration `name:"drain" default:"3s" reload:"true" usage:"how long requests under way may finish when the process stops"`

	TLSCert      string   `name:"tls.cert" usage:"PEM file of the server certificate and what leads to its CA; default: one of the platform's own CA in the data directory"`
	TLSKey       string   `name:"tls.key" usage:"PEM file of the key of tls.cert"`
	TLSNames     []string `name:"tls.names" usage:"further host names and IP addresses the platform's own certificates are for"`
	TLSClientCAs []string `name:"tls.clientCAs" usage:"PEM files of the CAs whose client certificates are taken (see auth.clientCertificates)"`

	AuditFile     string `name:"audit.file" usage:"file of the audit stream; default: audit/audit.log in the data directory"`
	AuditMaxBytes int64  `name:"audit.maxBytes" default:"16777216" usage:"size in bytes at which a new audit file begins; less than 0 leaves that to others"`
	AuditKeep     int    `name:"audit.keep" default:"10" usage:"old audit files that are kept"`

	Identity identity.Config
}

// AuditPath returns the path of the audit file.
func (c *Config) AuditPath() string {
	return cmp.Or(c.AuditFile, filepath.Join(c.DataDir, "audit", "audit.log"))
}

// PKIDir returns the directory of the platform's own CA and certificates.
func (c *Config) PKIDir() string { return filepath.Join(c.DataDir, "pki") }

// Validate checks the common settings.
func (c *Config) Validate() error {
	var faults []error
	if c.DataDir == "" {
		faults = append(faults, errors.New("dataDir must not be empty"))
	}
	if c.Drain > 4*time.Second {
		faults = append(faults, fmt.Errorf("drain must be at most 4s, not %s: a stop is to end within 5 s", c.Drain))
	}
	if c.EtcdTimeout <= 0 || c.EtcdTimeout > time.Minute {
		faults = append(faults, fmt.Errorf("etcd.timeout must be more than 0 and at most 1m, not %s", c.EtcdTimeout))
	}
	if err := telemetry.CheckLog(c.LogFormat, c.LogLevel); err != nil {
		faults = append(faults, err)
	}
	if _, err := c.Listen("ops.listen", c.OpsListen); err != nil {
		faults = append(faults, err)
	}
	for _, pair := range []struct{ name, cert, key string }{{"tls", c.TLSCert, c.TLSKey}, {"etcd", c.EtcdCert, c.EtcdKey}} {
		if (pair.cert == "") != (pair.key == "") {
			faults = append(faults, fmt.Errorf("%s.cert and %s.key belong together: give both or neither", pair.name, pair.name))
		}
	}
	if c.AuditMaxBytes >= 0 && c.AuditMaxBytes < audit.MinMaxBytes {
		faults = append(faults, fmt.Errorf("audit.maxBytes must be at least %d, or less than 0", audit.MinMaxBytes))
	}
	if c.AuditKeep < 1 {
		faults = append(faults, fmt.Errorf("audit.keep must be at least 1, not %d", c.AuditKeep))
	}
	if len(c.Identity.Certificates) > 0 && len(c.TLSClientCAs) == 0 {
		faults = append(faults, errors.New("auth.clientCertificates needs tls.clientCAs: without, no certificate of a client is taken"))
	}
	faults = append(faults, c.Identity.Validate())
	return errors.Join(faults...)
}

// Listen returns the address to bind for the value of a listener's setting. In development mode an address without a host is
// on loopback, and any host other than a loopback address is refused.
func (c *Config) Listen(setting, addr string) (string, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return "", fmt.Errorf("%s: %q is not host:port or :port", setting, addr)
	}
	if _, err := net.LookupPort("tcp", port); err != nil {
		return "", fmt.Errorf("%s: %q is not a port", setting, port)
	}
	if !c.Dev {
		return addr, nil
	}
	if host == "" {
		return net.JoinHostPort("127.0.0.1", port), nil
	}
	if a, err := netip.ParseAddr(host); host == "localhost" || err == nil && a.IsLoopback() {
		return addr, nil
	}
	return "", fmt.Errorf("%s: %q is not a loopback address, and --dev serves without tokens: leave the host out or run without --dev", setting, host)
}
