package mepserver

import (
	"context"
	"errors"

	"github.com/openmep/mep/kit/daemon"
	"github.com/openmep/mep/kit/etcd"
)

// DaemonConfig is the configuration of the program mepserver.
type DaemonConfig struct {
	Common daemon.Config
	Server Config
}

// ErrInsecure says why a program does not start outside of development mode.
var ErrInsecure = errors.New("this release cannot check tokens yet: run it with --dev, which serves plain HTTP on loopback only; " +
	"secure mode comes with the release that has mepauth")

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
		Build: func(_ context.Context, c *DaemonConfig, env *daemon.Env) (*daemon.Program[DaemonConfig], error) {
			if !c.Common.Dev {
				return nil, ErrInsecure
			}
			store, err := etcd.Dial(etcd.Config{Endpoints: c.Common.EtcdEndpoints, Timeout: c.Common.EtcdTimeout})
			if err != nil {
				return nil, err
			}
			s, err := New(&c.Common, &c.Server, store, false, env)
			if err != nil {
				return nil, errors.Join(err, store.Close())
			}
			return &daemon.Program[DaemonConfig]{
				Parts:   append([]daemon.Part{daemon.Closer("etcd connection", store.Close)}, s.Parts()...),
				Prepare: func(c *DaemonConfig) (func(), error) { return s.Prepare(&c.Server), nil },
			}, nil
		},
	}
}
