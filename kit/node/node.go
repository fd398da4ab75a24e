// Package node holds what the parts of one process share: the connection to etcd, the watched copy of the platform's state, and
// the guard that lets callers in.
package node

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/google/uuid"

	"github.com/openmep/mep/api/state"
	"github.com/openmep/mep/kit/daemon"
	"github.com/openmep/mep/kit/errs"
	"github.com/openmep/mep/kit/etcd"
	"github.com/openmep/mep/kit/httpx"
	"github.com/openmep/mep/kit/identity"
	"github.com/openmep/mep/kit/pki"
	"github.com/openmep/mep/kit/watched"
)

// Node is shared by the parts of a process.
type Node struct {
	// Store writes to etcd.
	Store *etcd.Store
	// Mirror is the copy of the keys below state.Root that the parts have asked for.
	Mirror *watched.Mirror
	// Directory is what tokens are checked against.
	Directory *identity.Directory
	// Guard decides which callers are let in.
	Guard *identity.Guard
	// Alone says that no other process shares the store, so that no elections are needed.
	Alone bool
}

// New returns a Node on a store. The parts must add their collections to its mirror before its own Part starts.
func New(store *etcd.Store, alone bool, env *daemon.Env) (*Node, error) {
	cfg := watched.Config{Source: store.Source, Prefix: state.Root, Logger: env.Log, Registerer: env.Metrics}
	if !alone {
		cfg.SnapshotFile = filepath.Join(env.Common.DataDir, "snapshots", env.Program+".jsonl")
	}
	n := &Node{Store: store, Mirror: watched.New(cfg), Alone: alone}
	n.Directory = identity.NewDirectory(n.Mirror)
	var err error
	n.Guard, err = identity.NewGuard(&env.Common.Identity, n.Directory, env.Common.Dev, env.Audit, env.Log, env.Metrics)
	if err != nil {
		return nil, err
	}
	env.SetGuard(n.Guard)
	env.Health.Check("state", n.check)
	return n, nil
}

// MemberID returns a name for this process that is unique among its kind.
func MemberID() string {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	return host + "-" + uuid.NewString()[:8]
}

// check reports how current the state is.
func (n *Node) check() (notReady, degraded string) {
	select {
	case <-n.Mirror.Ready():
	default:
		return "has not been read from etcd yet", ""
	}
	st := n.Mirror.Status()
	switch {
	case st.Restored:
		return "", "is from the snapshot on disk: etcd has not been reached since the start, changes are refused"
	case !st.Connected:
		return "", "may be stale: etcd does not answer, changes are refused"
	}
	return "", ""
}

// Part returns the part that keeps the state and the keys of trusted issuers up to date. It must start before the parts that use
// them.
func (n *Node) Part() daemon.Part {
	w := daemon.NewWorkers("state")
	w.Add("mirror", n.Mirror.Run)
	w.Add("trusted issuers", n.Guard.Run)
	return w
}

// Gate returns middleware that responds with 503 until the state has been read.
func (n *Node) Gate() gin.HandlerFunc {
	return func(c *gin.Context) {
		select {
		case <-n.Mirror.Ready():
			c.Next()
		default:
			httpx.Fail(c, errs.New(errs.Unavailable, "the platform is starting").After(time.Second))
		}
	}
}

// OnCluster returns a Node on the configured etcd, for daemons that do not embed their own. The returned parts must start before
// those that use the node.
func OnCluster(env *daemon.Env) (*Node, []daemon.Part, error) {
	store, parts, err := Dial(env)
	if err != nil {
		return nil, nil, err
	}
	n, err := New(store, false, env)
	if err != nil {
		return nil, nil, errors.Join(err, store.Close())
	}
	return n, append(parts, n.Part()), nil
}

// NeedsCluster returns an error if no etcd is configured.
func NeedsCluster(common *daemon.Config) error {
	if len(common.EtcdEndpoints) > 0 {
		return nil
	}
	return errors.New("etcd.endpoints is required: say where etcd is with --etcd-endpoints, or run mep, which brings its own")
}

// Dial connects to the configured etcd, over TLS if that is configured. The returned parts keep the certificates of the
// connection up to date and close the connection.
func Dial(env *daemon.Env) (*etcd.Store, []daemon.Part, error) {
	store, client, err := dial(env.Common, env)
	if err != nil {
		return nil, nil, err
	}
	parts := []daemon.Part{daemon.Closer("etcd connection", store.Close)}
	if client != nil {
		certs := daemon.NewWorkers("etcd certificates")
		certs.Add("reload", client.Run)
		parts = append(parts, certs)
	}
	return store, parts, nil
}

// DialOnce connects to the configured etcd for a single command.
func DialOnce(common *daemon.Config) (*etcd.Store, error) {
	store, _, err := dial(common, nil)
	return store, err
}

func dial(common *daemon.Config, env *daemon.Env) (*etcd.Store, *pki.Client, error) {
	cfg := etcd.Config{Endpoints: common.EtcdEndpoints, Timeout: common.EtcdTimeout}
	if !encrypted(common) {
		store, err := etcd.Dial(cfg)
		return store, nil, err
	}
	pc := pki.ClientConfig{Name: "etcd", CAFile: common.EtcdCA, CertFile: common.EtcdCert, KeyFile: common.EtcdKey}
	if env != nil {
		pc.Log, pc.Registerer = env.Log, env.Metrics
	} else {
		pc.Log = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	}
	client, err := pki.OpenClient(pc)
	if err != nil {
		return nil, nil, fmt.Errorf("TLS to etcd: %w", err)
	}
	cfg.TLS, cfg.Credentials = client.Config(), client.Credentials()
	store, err := etcd.Dial(cfg)
	return store, client, err
}

// encrypted reports whether the connection to etcd uses TLS.
func encrypted(common *daemon.Config) bool {
	for _, e := range common.EtcdEndpoints {
		if strings.HasPrefix(e, "https://") || strings.HasPrefix(e, "unixs://") {
			return true
		}
	}
	return common.EtcdCA != "" || common.EtcdCert != ""
}
