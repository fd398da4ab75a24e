package dnsagent

import (
	"context"
	"errors"

	"github.com/openmep/mep/kit/daemon"
	"github.com/openmep/mep/kit/node"
)

// DaemonConfig is the configuration of the dnsagent program.
type DaemonConfig struct {
	Common daemon.Config
	DNS    Config
}

// Addresses returns the configured addresses and the public URL of the listeners.
func (c *Config) Addresses() []string {
	if !c.Enabled() {
		return nil
	}
	list := []string{c.Listen, c.ManagementListen, c.PublicURL}
	if c.TLSListen != "" {
		list = append(list, c.TLSListen)
	}
	return list
}

// Daemon describes the dnsagent program: the DNS server alone, on an external etcd cluster.
func Daemon() *daemon.Spec[DaemonConfig] {
	return &daemon.Spec[DaemonConfig]{
		Name: "dnsagent", Short: "DNS server of the MEC platform, on an etcd cluster", RunByDefault: true,
		Common: func(c *DaemonConfig) *daemon.Config { return &c.Common },
		Validate: func(c *DaemonConfig) error {
			if !c.DNS.Enabled() {
				return errors.New("dns.listen: off is for mep, which does more than DNS")
			}
			return errors.Join(c.DNS.Validate(&c.Common), node.NeedsCluster(&c.Common))
		},
		Listeners: func(c *DaemonConfig) []string { return c.DNS.Addresses() },
		Build: func(_ context.Context, c *DaemonConfig, env *daemon.Env) (*daemon.Program[DaemonConfig], error) {
			n, parts, err := node.OnCluster(env)
			if err != nil {
				return nil, err
			}
			n.Mirror.PreferDisk() // a slightly stale answer is better than SERVFAIL
			a, err := New(&c.DNS, n, env)
			if err != nil {
				return nil, errors.Join(err, n.Store.Close())
			}
			return &daemon.Program[DaemonConfig]{
				Parts:   append(parts, a.Part(), daemon.Listeners(a.Listeners())),
				Prepare: func(c *DaemonConfig) (func(), error) { return a.Prepare(&c.DNS) },
			}, nil
		},
	}
}
