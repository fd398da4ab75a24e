// Package embedded runs an etcd server inside the platform's process, for a node that has no etcd of its own.
package embedded

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3client"
	"go.etcd.io/etcd/server/v3/storage/wal"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/openmep/mep/kit/durable"
	"github.com/openmep/mep/kit/etcd"
)

// Config configures the server.
type Config struct {
	// Dir is the data directory.
	Dir string
	// Timeout bounds one write.
	Timeout time.Duration
	// Quota is the largest size of the database in bytes.
	Quota int64
	// OnFatal is called with an error after which etcd cannot go on, such as a write that the disk refused. The process exits
	// when it returns.
	OnFatal func(error)
}

// Server is a running etcd server that only this process talks to.
type Server struct {
	etcd    *embed.Etcd
	store   *etcd.Store
	writer  *clientv3.Client
	sockets string
	quota   int64
	once    sync.Once
}

// readyTimeout bounds the start, which replays the log written since the last snapshot.
const readyTimeout = time.Minute

// Start runs the server and returns when it serves. The server listens only on Unix sockets, in a directory that only this user
// can enter; a backup is taken through Dir/sockets/client.
func Start(ctx context.Context, cfg Config) (*Server, error) {
	dir := filepath.Join(cfg.Dir, "etcd")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("data directory: %w", err)
	}
	sockets, err := socketDir(cfg.Dir)
	if err != nil {
		return nil, fmt.Errorf("directory for sockets: %w", err)
	}
	s := &Server{sockets: sockets, quota: cfg.Quota}
	if err = s.create(ctx, dir, cfg); err == nil {
		s.etcd, err = s.run(ctx, dir, cfg)
	}
	if err != nil {
		return nil, errors.Join(explain(dir, err), os.RemoveAll(sockets))
	}
	if err := s.connect(cfg.Timeout); err != nil {
		return nil, errors.Join(explain(dir, err), s.Close())
	}
	return s, nil
}

// create creates the database if there is none yet. It does so in another directory and moves the database into place when it is
// complete: etcd cannot start on an incomplete one, which looks like a database that has lost its contents.
func (s *Server) create(ctx context.Context, dir string, cfg Config) error {
	if _, err := os.Stat(filepath.Join(dir, "member")); err == nil || !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	unborn := dir + ".new"
	if err := os.RemoveAll(unborn); err != nil {
		return err
	}
	if err := os.Mkdir(unborn, 0o700); err != nil {
		return err
	}
	e, err := s.run(ctx, unborn, cfg)
	if err != nil {
		return err
	}
	e.Close()
	if err := os.Rename(filepath.Join(unborn, "member"), filepath.Join(dir, "member")); err != nil {
		return err
	}
	return errors.Join(durable.SyncDir(dir), os.RemoveAll(unborn))
}

// run starts the server on a directory and returns when it serves.
func (s *Server) run(ctx context.Context, dir string, cfg Config) (*embed.Etcd, error) {
	e, err := embed.StartEtcd(s.config(dir, cfg))
	if err != nil {
		return nil, err
	}
	select {
	case <-e.Server.ReadyNotify():
		return e, nil
	case err = <-e.Err():
	case <-ctx.Done():
		err = ctx.Err()
	case <-time.After(readyTimeout):
		err = fmt.Errorf("not ready within %s", readyTimeout)
	}
	return nil, errors.Join(err, giveUp(e))
}

// giveUp stops a server that is not ready, for which etcd may take for ever.
func giveUp(e *embed.Etcd) error {
	done := make(chan struct{})
	go func() {
		e.Close()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-time.After(2 * time.Second):
		return errors.New("it does not stop either")
	}
}

// maxSocketPath is the length of a socket's path that every system accepts.
const maxSocketPath = 100

// socketDir creates the directory for the server's sockets: "sockets" in the data directory, or a temporary one if that path is
// too long. It removes what a killed process left there.
func socketDir(dataDir string) (string, error) {
	dir, err := filepath.Abs(filepath.Join(dataDir, "sockets"))
	if err != nil {
		return "", err
	}
	if len(dir)+len("/client") > maxSocketPath {
		return os.MkdirTemp("", "mep-")
	}
	if err := os.RemoveAll(dir); err != nil {
		return "", err
	}
	return dir, os.MkdirAll(dir, 0o700)
}

func explain(dir string, err error) error {
	return fmt.Errorf("embedded etcd in %s: %w", dir, err)
}

func (s *Server) config(dir string, cfg Config) *embed.Config {
	// Segments are allocated in full; the default of 64 MB suits larger machines.
	wal.SegmentSizeBytes = 16 << 20
	c := embed.NewConfig()
	c.Name = "mep"
	c.Dir = dir
	c.ZapLoggerBuilder = embed.NewZapLoggerBuilder(logger(cfg.OnFatal))
	client := url.URL{Scheme: "unix", Path: filepath.Join(s.sockets, "client")}
	peer := url.URL{Scheme: "unix", Path: filepath.Join(s.sockets, "peer")}
	c.ListenClientUrls, c.AdvertiseClientUrls = []url.URL{client}, []url.URL{client}
	c.ListenPeerUrls, c.AdvertisePeerUrls = []url.URL{peer}, []url.URL{peer}
	c.InitialCluster = c.Name + "=" + peer.String()
	// A single member elects itself at once; nothing is gained by waiting.
	c.TickMs, c.ElectionMs = 20, 200
	c.SnapshotCount, c.SnapshotCatchUpEntries = 5000, 500
	c.AutoCompactionMode, c.AutoCompactionRetention = "periodic", "30m"
	c.QuotaBackendBytes = cfg.Quota
	c.MaxTxnOps = 128
	return c
}

// connect makes the store, which writes straight into the server and reads its event stream. Everything else goes over gRPC,
// because watches of in-process clients can hang for minutes after cancellations (etcd #18879, #20716).
func (s *Server) connect(timeout time.Duration) error {
	client, err := clientv3.New(clientv3.Config{
		Endpoints:          []string{s.Socket()},
		DialTimeout:        5 * time.Second,
		MaxCallRecvMsgSize: 64 << 20,
		Logger:             zap.NewNop(),
	})
	if err != nil {
		return err
	}
	s.writer = v3client.New(s.etcd.Server)
	s.store = etcd.NewStore(client, s.writer.KV, newSource(s.writer.KV, s.etcd.Server), timeout)
	return nil
}

// logger returns a logger that is silent but for fatal entries.
func logger(onFatal func(error)) *zap.Logger {
	core := zapcore.NewNopCore()
	return zap.New(fatalCore{core}, zap.WithFatalHook(fatalHook{onFatal}))
}

// fatalCore passes fatal entries on to the hook, which a disabled core would not.
type fatalCore struct{ zapcore.Core }

// Enabled implements zapcore.Core.
func (fatalCore) Enabled(l zapcore.Level) bool { return l >= zapcore.FatalLevel }

// Check implements zapcore.Core.
func (c fatalCore) Check(e zapcore.Entry, ce *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if c.Enabled(e.Level) {
		return ce.AddCore(e, c)
	}
	return ce
}

// With implements zapcore.Core.
func (c fatalCore) With([]zapcore.Field) zapcore.Core { return c }

type fatalHook struct{ tell func(error) }

// OnWrite implements zapcore.CheckWriteHook.
func (h fatalHook) OnWrite(e *zapcore.CheckedEntry, fields []zapcore.Field) {
	err := errors.New(e.Message)
	for _, f := range fields {
		if cause, ok := f.Interface.(error); ok {
			err = fmt.Errorf("%s: %w", e.Message, cause)
		}
	}
	if errors.Is(err, syscall.ENOSPC) {
		err = fmt.Errorf("the disk is full, make room and start again: %w", syscall.ENOSPC)
	}
	h.tell(err)
	// etcd's state is undefined now: no part of it may run on.
	os.Exit(1)
}

// Socket returns the address at which other programs of the same user reach the server.
func (s *Server) Socket() string { return "unix://" + filepath.Join(s.sockets, "client") }

// Store returns the connection to the server.
func (s *Server) Store() *etcd.Store { return s.store }

// Err returns a channel that reports a server that stopped by itself.
func (s *Server) Err() <-chan error { return s.etcd.Err() }

// Close stops the server.
func (s *Server) Close() error {
	var err error
	s.once.Do(func() {
		if s.store != nil {
			err = s.store.Close()
		}
		if s.writer != nil {
			_ = s.writer.Close() // it has no connection, and returns an error
		}
		s.etcd.Close()
		err = errors.Join(err, os.RemoveAll(s.sockets))
	})
	return err
}
