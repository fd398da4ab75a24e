package mepserver

import (
	"context"
	"errors"

	"github.com/openmep/mep/kit/daemon"
	"github.com/openmep/mep/kit/node"
)

// DaemonConfig is the configuration of the program mepserver.
type DaemonConfig struct {
	Common daemon.Config
	Server Config
}

// Daemon describes the program mepserver: the Mp1 server alone, on an etcd that others run.
func Daemon() *daemon.Spec[DaemonConfig] {
	return &daemon.Spec[DaemonConfig]{
		Name: "mepserver", Short: "Mp1 server of the MEC platform, on an etcd cluster", RunByDefault: true,
		Common: func(c *DaemonConfig) *daemon.Config { return &c.Common },
		Validate: func(c *DaemonConfig) error {
			faults := []error{c.Server.Validate(&c.Common)}
			if len(c.Common.EtcdEndpoints) == 0 {
				faults = append(faults, errors.New(
					"etcd.endpoints is required: say where etcd is with --etcd-endpoints, or run mep, which brings its own"))
			}
			return errors.Join(faults...)
		},
		Listeners: func(c *DaemonConfig) []string { return []string{c.Server.Mp1Listen, c.Server.PublicURL} },
		Build: func(_ context.Context, c *DaemonConfig, env *daemon.Env) (*daemon.Program[DaemonConfig], error) {
			store, parts, err := node.Dial(env)
			if err != nil {
				return nil, err
			}
			n, err := node.New(store, false, env)
			if err != nil {
				return nil, errors.Join(err, store.Close())
			}
			s, err := New(&c.Server, n, env, nil)
			if err != nil {
				return nil, errors.Join(err, store.Close())
			}
			return &daemon.Program[DaemonConfig]{
				Parts:   append(parts, n.Part(), s.Part(), daemon.Listeners(map[string]func(context.Context) error{"mp1": s.Serve})),
				Prepare: func(c *DaemonConfig) (func(), error) { return s.Prepare(&c.Server), nil },
			}, nil
		},
	}
}
