// Package mep runs the whole MEC platform in one process: the daemons' packages on an embedded etcd, and the command line.
package mep

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/openmep/mep/api/auth"
	"github.com/openmep/mep/dnsagent"
	"github.com/openmep/mep/gateway"
	"github.com/openmep/mep/gateway/filter"
	"github.com/openmep/mep/kit/daemon"
	"github.com/openmep/mep/kit/etcd"
	"github.com/openmep/mep/kit/node"
	"github.com/openmep/mep/mep/embedded"
	"github.com/openmep/mep/mepauth"
	"github.com/openmep/mep/mepserver"
)

// Config is the configuration of the platform.
type Config struct {
	Common  daemon.Config
	Server  mepserver.Config
	Auth    mepauth.Config
	DNS     dnsagent.Config
	Gateway gateway.Config

	DiskReserve int64 `name:"storage.reserve" default:"134217728" usage:"room in bytes that must stay free on the disk of the data directory; changes are refused below it"`
	DiskQuota   int64 `name:"storage.quota" default:"2147483648" usage:"largest size of the embedded etcd's database in bytes"`
}

// server returns the configuration of the Mp1 server, with the gateway's service domain, which consumers are shown.
func (c *Config) server() *mepserver.Config {
	c.Server.ServiceDomain = c.Gateway.ServiceDomain
	return &c.Server
}

// auth returns the configuration of the token service, with the gateway's service domain, which must not contain its names.
func (c *Config) auth() *mepauth.Config {
	c.Auth.ServiceDomain = c.Gateway.ServiceDomain
	return &c.Auth
}

// Spec describes a program with the configuration of the platform.
type Spec = daemon.Spec[Config]

// Platform returns the program mep. filters are further kinds of filters that the gateway's configuration may name.
func Platform(filters ...filter.Definition) *Spec {
	s := &Spec{
		Name: "mep", Short: "ETSI MEC platform in one process",
		Common: func(c *Config) *daemon.Config { return &c.Common },
		Validate: func(c *Config) error {
			faults := []error{c.server().Validate(&c.Common), c.auth().Validate(&c.Common), c.DNS.Validate(&c.Common), c.Gateway.Validate(&c.Common)}
			if c.Server.Mm5.DNS.Driver == mepserver.DriverAgent && !c.DNS.Enabled() {
				faults = append(faults, fmt.Errorf("dns.driver: agent needs a DNS server: dns.listen must not be off"))
			}
			if c.Server.Advertise && c.Server.GatewayURL == "" && (!c.Gateway.Enabled() || c.Gateway.Unspecific()) && !c.Common.Dev {
				faults = append(faults, errors.New("gateway.advertise needs gateway.publicUrl: gateway.listen does not say how consumers reach the gateway"))
			}
			if c.Gateway.Enabled() {
				faults = append(faults, c.Gateway.CheckFilters(filters))
			}
			if c.DiskReserve < 0 {
				faults = append(faults, fmt.Errorf("storage.reserve must not be negative"))
			}
			if c.DiskQuota < 16<<20 {
				faults = append(faults, fmt.Errorf("storage.quota must be at least 16777216 (16 MiB)"))
			}
			return errors.Join(faults...)
		},
		Advise: func(c *Config) error { return c.Gateway.Advise() },
		Listeners: func(c *Config) []string {
			return append([]string{
				c.Server.Mp1Listen, c.Server.PublicURL, c.Server.Mm5.Listen, c.Server.Mm5.PublicURL, c.Auth.Listen, c.Auth.PublicURL,
				c.Server.GatewayURL,
			}, append(c.DNS.Addresses(), c.Gateway.Addresses()...)...)
		},
		Build: func(ctx context.Context, cfg *Config, env *daemon.Env) (*daemon.Program[Config], error) {
			return build(ctx, cfg, env, filters)
		},
	}
	s.Commands = append(s.Commands, keysCommand(s), credentialsCommand(s), tokenCommand(), doctorCommand(s), dnsCommand(s), gatewayCommand(s), apikeyCommand(s))
	return s
}

func build(ctx context.Context, cfg *Config, env *daemon.Env, filters []filter.Definition) (*daemon.Program[Config], error) {
	db, store, parts, err := connect(ctx, cfg, env)
	if err != nil {
		return nil, err
	}
	program, err := assemble(ctx, cfg, env, db, store, filters)
	if err != nil {
		for _, p := range slices.Backward(parts) {
			err = errors.Join(err, p.Stop(ctx))
		}
		return nil, err
	}
	program.Parts = append(parts, program.Parts...)
	return program, nil
}

// assemble builds the parts that work on the store.
func assemble(ctx context.Context, cfg *Config, env *daemon.Env, db *embedded.Server, store *etcd.Store,
	filters []filter.Definition,
) (*daemon.Program[Config], error) {
	n, err := node.New(store, db != nil, env)
	if err != nil {
		return nil, err
	}
	tokens, err := mepauth.New(ctx, &cfg.Auth, n, env)
	if err != nil {
		return nil, err
	}
	var names *dnsagent.Agent
	serverConfig := *cfg.server()
	urls := map[string]string{auth.AuthListener: tokens.URL()}
	if cfg.DNS.Enabled() {
		if names, err = dnsagent.New(&cfg.DNS, n, env); err != nil {
			return nil, errors.Join(err, tokens.Close())
		}
		urls["dns"] = names.ManagementURL()
		// The platform's own DNS server applies DNS rules, unless another driver is configured.
		serverConfig.Mm5.DNS.Driver = cmp.Or(cfg.Server.Mm5.DNS.Driver, mepserver.DriverAgent)
	}
	server, err := mepserver.New(&serverConfig, n, env, mepserver.Also{Mp1: tokens.MountSigned, Mm5: tokens.MountConfs})
	if err != nil {
		return nil, errors.Join(err, closeAgent(names), tokens.Close())
	}
	urls["mp1"], urls["mm5"] = server.URL(), server.Mm5URL()
	closeAll := func() error { return errors.Join(server.Close(), closeAgent(names), tokens.Close()) }
	var way *gateway.Gateway
	if cfg.Gateway.Enabled() {
		way, err = gateway.New(&cfg.Gateway, n, env, gateway.Options{
			Filters: filters, Mp1: server.Handler(), Auth: tokens.Handler(), Prefixes: cfg.Server.Prefixes,
		})
		if err != nil {
			return nil, errors.Join(err, closeAll())
		}
		server.ThroughGateway(way.URL())
		urls["gateway"] = cmp.Or(strings.TrimSuffix(cfg.Server.GatewayURL, "/"), way.URL())
		urls[gatewayManagement.listener] = way.ManagementURL()
	}
	if err := tokens.Bootstrap(ctx, urls, env); err != nil {
		if way != nil {
			err = errors.Join(err, way.Close())
		}
		return nil, errors.Join(err, closeAll())
	}
	parts := []daemon.Part{n.Part()}
	if db != nil {
		room := daemon.NewWorkers("room in the database")
		room.Add("keep", func(ctx context.Context) error {
			return db.KeepRoom(ctx, cfg.DiskQuota, server.NeededHistory, env.Log)
		})
		parts = append(parts, room)
	}
	listeners := server.Listeners()
	listeners["auth"] = tokens.Serve
	if names != nil {
		maps.Copy(listeners, names.Listeners())
		parts = append(parts, names.Part())
	}
	if way != nil {
		maps.Copy(listeners, way.Listeners())
		parts = append(parts, way.Part())
	}
	return &daemon.Program[Config]{
		Parts: append(parts, tokens.Part(), server.Part(), daemon.Listeners(listeners)),
		Prepare: func(c *Config) (func(), error) {
			dns := func() {}
			if names != nil {
				var err error
				if dns, err = names.Prepare(&c.DNS); err != nil {
					return nil, err
				}
			}
			calls := func() {}
			if way != nil {
				var err error
				if calls, err = way.Prepare(&c.Gateway); err != nil {
					return nil, err
				}
			}
			auth, mp1 := tokens.Prepare(&c.Auth), server.Prepare(c.server())
			return func() { auth(); mp1(); dns(); calls() }, nil
		},
	}, nil
}

func closeAgent(a *dnsagent.Agent) error {
	if a == nil {
		return nil
	}
	return a.Close()
}

// connect dials the configured etcd, or starts an embedded one and returns that server too.
func connect(ctx context.Context, cfg *Config, env *daemon.Env) (*embedded.Server, *etcd.Store, []daemon.Part, error) {
	if len(cfg.Common.EtcdEndpoints) > 0 {
		store, parts, err := node.Dial(env)
		return nil, store, parts, err
	}
	held, err := lock(cfg.Common.DataDir)
	if err != nil {
		return nil, nil, nil, err
	}
	guard := embedded.NewDiskGuard(cfg.Common.DataDir, cfg.DiskReserve, env.Log, env.Metrics)
	if why := guard.Full(); why != "" {
		env.Log.Warn("the platform "+why, "dir", cfg.Common.DataDir)
	}
	server, err := embedded.Start(ctx, embedded.Config{
		Dir: cfg.Common.DataDir, Timeout: cfg.Common.EtcdTimeout, Quota: cfg.DiskQuota,
		OnFatal: func(err error) {
			env.Log.Error("the embedded etcd cannot go on, the process ends; what was answered is kept", "error", err)
			fmt.Fprintf(os.Stderr, "mep: the embedded etcd cannot go on: %v\n", err)
		},
	})
	if err != nil {
		return nil, nil, nil, errors.Join(err, held.Close())
	}
	if err := held.note(server.Socket()); err != nil {
		return nil, nil, nil, errors.Join(err, server.Close(), held.Close())
	}
	server.Store().SetGuard(guard.Check)
	env.Health.Check("storage", func() (string, string) { return "", cmp.Or(guard.Full(), server.Full()) })
	watcher := daemon.NewWorkers("storage")
	watcher.Add("disk guard", guard.Run)
	watcher.Add("embedded etcd", func(ctx context.Context) error {
		select {
		case err := <-server.Err():
			return err
		case <-ctx.Done():
			return nil
		}
	})
	return server, server.Store(), []daemon.Part{
		daemon.Closer("data directory", held.Close), daemon.Closer("embedded etcd", server.Close), watcher,
	}, nil
}
