// Package daemon is what every program of the platform does in the same way: reading its settings, starting and stopping its
// parts in order, signals, the operations listener, and the commands run, validate, version and healthcheck.
package daemon

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/openmep/mep/kit/telemetry"
)

// Version is the release, set when the program is built.
var Version = "dev"

// Config holds the settings every program has.
type Config struct {
	Dev           bool          `name:"dev" default:"false" usage:"development mode: plain HTTP on loopback, no tokens, any UUID is an application instance"`
	DataDir       string        `name:"dataDir" default:"./data" usage:"directory for the embedded etcd, snapshots and keys"`
	EtcdEndpoints []string      `name:"etcd.endpoints" usage:"etcd endpoints, comma-separated (mep: empty runs an embedded etcd)"`
	EtcdTimeout   time.Duration `name:"etcd.timeout" default:"3s" usage:"longest wait for one write to etcd"`
	OpsListen     string        `name:"ops.listen" default:"127.0.0.1:9090" usage:"address of health, readiness, metrics and, with --dev, profiles"`
	LogLevel      string        `name:"log.level" default:"info" reload:"true" usage:"least level that is logged: debug, info, warn, error"`
	LogFormat     string        `name:"log.format" default:"json" dev:"text" usage:"json or text"`
	TracesURL     string        `name:"traces.url" usage:"OpenTelemetry collector (OTLP over HTTP) that gets a span of every request; empty: none"`
	Drain         time.Duration `name:"drain" default:"3s" reload:"true" usage:"how long requests under way may finish when the process stops"`
}

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
	return errors.Join(faults...)
}

// Listen turns the value of a listener's setting into the address to bind. In development mode an address without a host is
// on loopback, and any other host than a loopback address is refused.
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
