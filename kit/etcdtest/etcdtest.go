// Package etcdtest starts real etcd servers inside tests.
package etcdtest

import (
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"

	"github.com/openmep/mep/kit/etcd"
)

// Server is an etcd server in this process. It can be stopped and started again on the same data and address.
type Server struct {
	dir    string
	socket string
	etcd   *embed.Etcd
}

// Start runs an etcd server until the test ends.
func Start(tb testing.TB) *Server {
	tb.Helper()
	s := &Server{dir: tb.TempDir()}
	short, err := os.MkdirTemp("", "etcd") //nolint:usetesting // a socket's path must be short
	require.NoError(tb, err)
	tb.Cleanup(func() { _ = os.RemoveAll(short) })
	s.socket = filepath.Join(short, "c.sock")
	s.StartAgain(tb)
	tb.Cleanup(s.Stop)
	return s
}

// StartAgain starts the server after Stop.
func (s *Server) StartAgain(tb testing.TB) {
	tb.Helper()
	cfg := embed.NewConfig()
	cfg.Dir = s.dir
	cfg.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zap.NewNop())
	cfg.TickMs, cfg.ElectionMs = 10, 100
	cfg.UnsafeNoFsync = true
	client := url.URL{Scheme: "unix", Path: s.socket}
	peer := url.URL{Scheme: "unix", Path: s.socket + ".peer"}
	cfg.ListenClientUrls, cfg.AdvertiseClientUrls = []url.URL{client}, []url.URL{client}
	cfg.ListenPeerUrls, cfg.AdvertisePeerUrls = []url.URL{peer}, []url.URL{peer}
	cfg.InitialCluster = fmt.Sprintf("%s=%s", cfg.Name, peer.String())
	e, err := embed.StartEtcd(cfg)
	require.NoError(tb, err)
	select {
	case <-e.Server.ReadyNotify():
	case <-time.After(20 * time.Second):
		e.Close()
		tb.Fatal("etcd was not ready in time")
	}
	s.etcd = e
}

// Stop stops the server; calls to it then fail.
func (s *Server) Stop() {
	if s.etcd != nil {
		s.etcd.Close()
		s.etcd = nil
	}
}

// Endpoint returns the address for clients.
func (s *Server) Endpoint() string { return "unix://" + s.socket }

// Store connects to the server until the test ends.
func (s *Server) Store(tb testing.TB) *etcd.Store {
	tb.Helper()
	st, err := etcd.Dial(etcd.Config{Endpoints: []string{s.Endpoint()}, Timeout: 3 * time.Second})
	require.NoError(tb, err)
	tb.Cleanup(func() { _ = st.Close() })
	return st
}

// Client returns a plain client to the server until the test ends.
func (s *Server) Client(tb testing.TB) *clientv3.Client {
	tb.Helper()
	return s.Store(tb).Client
}
