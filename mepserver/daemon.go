package mepserver

import (
	"context"
	"errors"
	"fmt"

	"github.com/openmep/mep/api/gateway"
	"github.com/openmep/mep/kit/daemon"
	"github.com/openmep/mep/kit/node"
)

// DaemonConfig is the configuration of the program mepserver.
type DaemonConfig struct {
	Common daemon.Config
	Server Config

	ServiceDomain string `name:"gateway.serviceDomain" reload:"true" usage:"domain below which the gateway has host names for services, such as mec.example, for gateway.advertise (default: none)"`
}

// Daemon describes the program mepserver: the Mp1 and Mm5 server alone, on an external etcd cluster.
func Daemon() *daemon.Spec[DaemonConfig] {
	return &daemon.Spec[DaemonConfig]{
		Name: "mepserver", Short: "Mp1 and Mm5 server of the MEC platform, on an etcd cluster", RunByDefault: true,
		Common: func(c *DaemonConfig) *daemon.Config { return &c.Common },
		Validate: func(c *DaemonConfig) error {
			return errors.Join(c.checkDomain(), c.server().Validate(&c.Common), node.NeedsCluster(&c.Common))
		},
		Listeners: func(c *DaemonConfig) []string {
			return []string{c.Server.Mp1Listen, c.Server.PublicURL, c.Server.Mm5.Listen, c.Server.Mm5.PublicURL}
		},
		Build: func(_ context.Context, c *DaemonConfig, env *daemon.Env) (*daemon.Program[DaemonConfig], error) {
			n, parts, err := node.OnCluster(env)
			if err != nil {
				return nil, err
			}
			s, err := New(c.server(), n, env, Also{})
			if err != nil {
				return nil, errors.Join(err, n.Store.Close())
			}
			return &daemon.Program[DaemonConfig]{
				Parts:   append(parts, s.Part(), daemon.Listeners(s.Listeners())),
				Prepare: func(c *DaemonConfig) (func(), error) { return s.Prepare(c.server()), nil },
			}, nil
		},
	}
}

// server returns the server's configuration, including the service domain, which is also a setting of the gateway.
func (c *DaemonConfig) server() *Config {
	c.Server.ServiceDomain = c.ServiceDomain
	return &c.Server
}

func (c *DaemonConfig) checkDomain() error {
	if c.ServiceDomain == "" {
		return nil
	}
	if _, err := gateway.CanonicalDomain(c.ServiceDomain); err != nil {
		return fmt.Errorf("gateway.serviceDomain %w", err)
	}
	return nil
}
