// Package mep is the whole MEC platform in one process: the daemons' packages on an embedded etcd, and the command line.
package mep

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/openmep/mep/kit/daemon"
	"github.com/openmep/mep/kit/etcd"
	"github.com/openmep/mep/mep/embedded"
	"github.com/openmep/mep/mepserver"
)

// Config is the configuration of the platform.
type Config struct {
	Common daemon.Config
	Server mepserver.Config

	DiskReserve int64 `name:"storage.reserve" default:"134217728" usage:"room in bytes that must stay free on the disk of the data directory; changes are refused below it"`
	DiskQuota   int64 `name:"storage.quota" default:"2147483648" usage:"largest size of the embedded etcd's database in bytes"`
}

// Platform describes the program mep.
func Platform() *daemon.Spec[Config] {
	return &daemon.Spec[Config]{
		Name: "mep", Short: "ETSI MEC platform in one process",
		Common: func(c *Config) *daemon.Config { return &c.Common },
		Validate: func(c *Config) error {
			faults := []error{c.Server.Validate(&c.Common)}
			if c.DiskReserve < 0 {
				faults = append(faults, fmt.Errorf("storage.reserve must not be negative"))
			}
			if c.DiskQuota < 16<<20 {
				faults = append(faults, fmt.Errorf("storage.quota must be at least 16777216 (16 MiB)"))
			}
			return errors.Join(faults...)
		},
		Build: build,
	}
}

func build(ctx context.Context, cfg *Config, env *daemon.Env) (*daemon.Program[Config], error) {
	if !cfg.Common.Dev {
		return nil, mepserver.ErrInsecure
	}
	db, store, parts, err := connect(ctx, cfg, env)
	if err != nil {
		return nil, err
	}
	server, err := mepserver.New(&cfg.Common, &cfg.Server, store, db != nil, env)
	if err != nil {
		for _, p := range parts {
			err = errors.Join(err, p.Stop(ctx))
		}
		return nil, err
	}
	if db != nil {
		room := daemon.NewWorkers("room in the database")
		room.Add("keep", func(ctx context.Context) error {
			return db.KeepRoom(ctx, cfg.DiskQuota, server.NeededHistory, env.Log)
		})
		parts = append(parts, room)
	}
	return &daemon.Program[Config]{
		Parts:   append(parts, server.Parts()...),
		Prepare: func(c *Config) (func(), error) { return server.Prepare(&c.Server), nil },
	}, nil
}

// connect dials the configured etcd, or starts an embedded one and returns that, too.
func connect(ctx context.Context, cfg *Config, env *daemon.Env) (*embedded.Server, *etcd.Store, []daemon.Part, error) {
	if len(cfg.Common.EtcdEndpoints) > 0 {
		store, err := etcd.Dial(etcd.Config{Endpoints: cfg.Common.EtcdEndpoints, Timeout: cfg.Common.EtcdTimeout})
		if err != nil {
			return nil, nil, nil, err
		}
		return nil, store, []daemon.Part{daemon.Closer("etcd connection", store.Close)}, nil
	}
	unlock, err := lock(cfg.Common.DataDir)
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
		return nil, nil, nil, errors.Join(err, unlock())
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
		daemon.Closer("data directory", unlock), daemon.Closer("embedded etcd", server.Close), watcher,
	}, nil
}

// lock makes sure that one process at a time uses a data directory.
func lock(dir string) (unlock func() error, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("data directory: %w", err)
	}
	path := filepath.Join(dir, "lock")
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("data directory: %w", err)
	}
	if err := flock(f); err != nil {
		return nil, errors.Join(fmt.Errorf("data directory %s is in use by another process (or %w)", dir, err), f.Close())
	}
	return f.Close, nil
}
