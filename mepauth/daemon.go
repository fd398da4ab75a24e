package mepauth

import (
	"context"
	"errors"

	"github.com/openmep/mep/api/auth"
	"github.com/openmep/mep/kit/daemon"
	"github.com/openmep/mep/kit/node"
)

// DaemonConfig is the configuration of the program mepauth.
type DaemonConfig struct {
	Common daemon.Config
	Auth   Config
}

// Daemon describes the program mepauth: the token service alone, on an external etcd.
func Daemon() *daemon.Spec[DaemonConfig] {
	return &daemon.Spec[DaemonConfig]{
		Name: "mepauth", Short: "Token service of the MEC platform, on an etcd cluster", RunByDefault: true,
		Common: func(c *DaemonConfig) *daemon.Config { return &c.Common },
		Validate: func(c *DaemonConfig) error {
			return errors.Join(c.Auth.Validate(&c.Common), node.NeedsCluster(&c.Common))
		},
		Listeners: func(c *DaemonConfig) []string { return []string{c.Auth.Listen, c.Auth.PublicURL} },
		Build: func(ctx context.Context, c *DaemonConfig, env *daemon.Env) (*daemon.Program[DaemonConfig], error) {
			n, parts, err := node.OnCluster(env)
			if err != nil {
				return nil, err
			}
			s, err := New(ctx, &c.Auth, n, env)
			if err == nil {
				if err = s.Bootstrap(ctx, map[string]string{auth.AuthListener: s.URL()}, env); err != nil {
					err = errors.Join(err, s.Close())
				}
			}
			if err != nil {
				return nil, errors.Join(err, n.Store.Close())
			}
			return &daemon.Program[DaemonConfig]{
				Parts:   append(parts, s.Part(), daemon.Listeners(map[string]func(context.Context) error{"auth": s.Serve})),
				Prepare: func(c *DaemonConfig) (func(), error) { return s.Prepare(&c.Auth), nil },
			}, nil
		},
	}
}
