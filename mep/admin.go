package mep

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/openmep/mep/kit/audit"
	"github.com/openmep/mep/kit/etcd"
	"github.com/openmep/mep/kit/node"
	"github.com/openmep/mep/mep/embedded"
	"github.com/openmep/mep/mepauth/credential"
	"github.com/openmep/mep/mepauth/keyring"
	"github.com/openmep/mep/mepauth/seal"
)

// admin gives a command access to the platform's state, whether the platform runs or not.
type admin struct {
	cfg   *Config
	store *etcd.Store
	book  *credential.Book
	keys  *keyring.Admin
	audit *audit.Log
	close func() error
}

// commandTimeout bounds a command.
const commandTimeout = 30 * time.Second

// administer makes cmd a command that shows or changes the platform's state with run, and gives it the flags of all
// settings, which say where that state is.
//
// Only with mayCreate does a command create a database where there is none: for others, that is a sign of the wrong directory.
func administer(s *Spec, cmd *cobra.Command, mayCreate bool, run func(ctx context.Context, cmd *cobra.Command, a *admin, args []string) error) *cobra.Command {
	s.AddFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) (err error) {
		cfg, err := s.Load(s.Sources(cmd))
		if err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(cmd.Context(), commandTimeout)
		defer cancel()
		a, err := openAdmin(ctx, cfg, mayCreate)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, a.close()) }()
		return run(ctx, cmd, a, args)
	}
	return cmd
}

func openAdmin(ctx context.Context, cfg *Config, mayCreate bool) (*admin, error) {
	a := &admin{cfg: cfg}
	var err error
	if a.store, a.close, err = openStore(ctx, cfg, mayCreate); err != nil {
		return nil, err
	}
	open := seal.OpenKnown
	if mayCreate && len(cfg.Common.EtcdEndpoints) == 0 {
		open = seal.Open
	}
	key, err := open(ctx, cfg.Auth.SealFile(&cfg.Common), a.store)
	if err != nil {
		return nil, errors.Join(err, a.close())
	}
	a.book, a.keys = credential.NewBook(a.store, key), keyring.NewAdmin(a.store, key)
	// Rotation is left to the platform, which knows how many files to keep.
	if a.audit, err = audit.Open(audit.Config{File: cfg.Common.AuditPath(), MaxBytes: -1}); err != nil {
		return nil, errors.Join(err, a.close())
	}
	closeStore := a.close
	a.close = func() error { return errors.Join(a.audit.Close(), closeStore()) }
	return a, nil
}

// openStore connects to the platform's etcd: the configured one, that of a running platform on the same data directory, or,
// if none runs, one that it starts there.
func openStore(ctx context.Context, cfg *Config, mayCreate bool) (*etcd.Store, func() error, error) {
	if len(cfg.Common.EtcdEndpoints) > 0 {
		store, err := node.DialOnce(&cfg.Common)
		if err != nil {
			return nil, nil, err
		}
		return store, store.Close, nil
	}
	if err := usable(cfg.Common.DataDir, mayCreate); err != nil {
		return nil, nil, err
	}
	held, err := lock(cfg.Common.DataDir)
	if errors.Is(err, errInUse) {
		address, nerr := noted(cfg.Common.DataDir)
		if nerr != nil || address == "" {
			return nil, nil, errors.Join(fmt.Errorf("%w, and does not say how it is reached: try again when it is ready", err), nerr)
		}
		store, err := etcd.Dial(etcd.Config{Endpoints: []string{address}, Timeout: cfg.Common.EtcdTimeout})
		if err != nil {
			return nil, nil, err
		}
		return store, store.Close, nil
	}
	if err != nil {
		return nil, nil, err
	}
	server, err := embedded.Start(ctx, embedded.Config{
		Dir: cfg.Common.DataDir, Timeout: cfg.Common.EtcdTimeout, Quota: cfg.DiskQuota,
		OnFatal: func(err error) { fmt.Fprintf(os.Stderr, "mep: the embedded etcd cannot go on: %v\n", err) },
	})
	if err != nil {
		return nil, nil, errors.Join(err, held.Close())
	}
	return server.Store(), func() error { return errors.Join(server.Close(), held.Close()) }, nil
}

// usable returns an error if a command must not open the database in a directory.
func usable(dir string, mayCreate bool) error {
	info, err := os.Stat(filepath.Join(dir, "etcd", "member"))
	if errors.Is(err, fs.ErrNotExist) {
		if mayCreate {
			return nil
		}
		return fmt.Errorf("there is no database in %s: say where the platform's data is with --data-dir, or start the platform once", dir)
	}
	if err != nil {
		return err
	}
	// The platform could no longer open what another user, such as root, writes there.
	if st, ok := info.Sys().(*syscall.Stat_t); ok && int(st.Uid) != os.Geteuid() {
		return fmt.Errorf("the database in %s belongs to user %d: run this as that user", dir, st.Uid)
	}
	return nil
}

// record writes an audit entry for an act on the command line.
func (a *admin) record(action, client, target, detail string, err error) {
	e := audit.Entry{
		Action: action, Result: audit.Success, Caller: "uid:" + strconv.Itoa(os.Getuid()), Client: client, Via: "command line",
		Target: target, Detail: detail,
	}
	if err != nil {
		e.Result, e.Detail = audit.Failed, err.Error()
	}
	a.audit.Write(e)
}
