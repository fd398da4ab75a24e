package gateway

import (
	"context"
	"errors"

	"github.com/openmep/mep/gateway/filter"
	"github.com/openmep/mep/kit/daemon"
	"github.com/openmep/mep/kit/node"
)

// DaemonConfig is the configuration of the program gateway.
type DaemonConfig struct {
	Common  daemon.Config
	Gateway Config
}

// Daemon describes the program gateway, which runs the gateway alone, on an etcd cluster that others run. filters are further kinds of
// filters that its configuration may name.
func Daemon(filters ...filter.Definition) *daemon.Spec[DaemonConfig] {
	return &daemon.Spec[DaemonConfig]{
		Name: "gateway", Short: "Gateway of the MEC platform, on an etcd cluster", RunByDefault: true,
		Common: func(c *DaemonConfig) *daemon.Config { return &c.Common },
		Validate: func(c *DaemonConfig) error {
			if !c.Gateway.Enabled() {
				return errors.New("gateway.listen: off is for mep, which does more than this")
			}
			return errors.Join(c.Gateway.Validate(&c.Common), c.Gateway.CheckFilters(filters), node.NeedsCluster(&c.Common))
		},
		Advise:    func(c *DaemonConfig) error { return c.Gateway.Advise() },
		Listeners: func(c *DaemonConfig) []string { return c.Gateway.Addresses() },
		Build: func(_ context.Context, c *DaemonConfig, env *daemon.Env) (*daemon.Program[DaemonConfig], error) {
			n, parts, err := node.OnCluster(env)
			if err != nil {
				return nil, err
			}
			g, err := New(&c.Gateway, n, env, Options{Filters: filters})
			if err != nil {
				return nil, errors.Join(err, n.Store.Close())
			}
			return &daemon.Program[DaemonConfig]{
				Parts:   append(parts, g.Part(), daemon.Listeners(g.Listeners())),
				Prepare: func(c *DaemonConfig) (func(), error) { return g.Prepare(&c.Gateway) },
			}, nil
		},
	}
}
