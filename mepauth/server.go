package mepauth

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/gin-gonic/gin"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/openmep/mep/api/state"
	"github.com/openmep/mep/kit/daemon"
	"github.com/openmep/mep/kit/errs"
	"github.com/openmep/mep/kit/etcd"
	"github.com/openmep/mep/kit/httpx"
	"github.com/openmep/mep/kit/identity"
	"github.com/openmep/mep/kit/limit"
	"github.com/openmep/mep/kit/node"
	"github.com/openmep/mep/kit/watched"
	"github.com/openmep/mep/mepauth/credential"
	"github.com/openmep/mep/mepauth/grant"
	"github.com/openmep/mep/mepauth/keyring"
	"github.com/openmep/mep/mepauth/lockout"
	"github.com/openmep/mep/mepauth/refresh"
	"github.com/openmep/mep/mepauth/replay"
	"github.com/openmep/mep/mepauth/rest"
	"github.com/openmep/mep/mepauth/seal"
)

// Server is the token service.
type Server struct {
	workers  *daemon.Workers
	common   *daemon.Config
	drain    func() time.Duration
	node     *node.Node
	private  *watched.Mirror
	listener *httpx.Server
	policies atomic.Pointer[policies]
	grants   *grant.Service
	tokens   *rest.Tokens
	confs    *rest.Confs
	book     *credential.Book
	issuer   string
	url      string
	audience string
}

// sealTimeout limits the wait for etcd at startup: without etcd, the key file cannot be verified.
const sealTimeout = 30 * time.Second

// New creates the service and binds its listener.
func New(ctx context.Context, cfg *Config, n *node.Node, env *daemon.Env) (*Server, error) {
	key, err := openSeal(ctx, cfg, n.Store, env)
	if err != nil {
		return nil, err
	}
	s := &Server{
		workers: daemon.NewWorkers("mepauth"), node: n, common: env.Common, drain: env.Drain,
		audience: env.Common.Identity.Audience,
	}
	router, err := env.Router("auth", func() httpx.Limits { return s.policies.Load().limits })
	if err != nil {
		return nil, err
	}
	if s.listener, err = env.Listen("auth", cfg.Listen, router, httpx.Limits{Body: maxBody}); err != nil {
		return nil, err
	}
	s.url = publicURL(cfg.PublicURL, cfg.Listen, s.listener)
	if s.issuer = cfg.Issuer; s.issuer == "" {
		s.issuer = s.url
	}
	for _, other := range env.Common.Identity.Issuers {
		if other.Issuer == s.issuer {
			return nil, errors.Join(fmt.Errorf("auth.issuers: %q is the name of the platform's own tokens: give others another name, or the platform with auth.issuer", s.issuer),
				s.listener.Close())
		}
	}
	s.policies.Store(cfg.policies(s.issuer, s.audience))
	s.wire(cfg, key, env)
	s.mount(router, env)
	return s, nil
}

// openSeal opens the key file. It waits for etcd for up to sealTimeout.
func openSeal(ctx context.Context, cfg *Config, store *etcd.Store, env *daemon.Env) (*seal.Key, error) {
	deadline := time.Now().Add(sealTimeout)
	for {
		key, err := seal.Open(ctx, cfg.SealFile(env.Common), store)
		if err == nil || !errors.Is(err, errs.Unavailable) || time.Now().After(deadline) {
			return key, err
		}
		env.Log.Warn("waiting for etcd, which is needed to check the key file", "error", err)
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (s *Server) wire(cfg *Config, key *seal.Key, env *daemon.Env) {
	store, log := s.node.Store, env.Log
	s.private = watched.New(watched.Config{Source: store.Source, Prefix: state.AuthRoot, Logger: log})
	admin := keyring.NewAdmin(store, key)
	ended := credential.WatchEnded(s.node.Mirror)
	s.book = credential.NewBook(store, key)
	s.grants = (&grant.Service{
		Dir:     s.node.Directory,
		Vault:   credential.NewVault(s.private, s.node.Directory, key),
		Lockout: lockout.New(s.private, store, func() lockout.Policy { return s.policies.Load().lockout }, log, env.Metrics),
		Replay:  replay.New(s.private, store, log, env.Metrics),
		Refresh: refresh.New(store, func() time.Duration { return s.policies.Load().refresh }),
		Ring: keyring.New(s.private, s.node.Directory, admin, key, func() keyring.Policy { return s.policies.Load().keys },
			log, env.Metrics),
		Store: store, Verifier: s.node.Guard.Verifier(), Policy: func() grant.Policy { return s.policies.Load().grant },
		PerSource: limit.New(limit.Config{Rate: float64(cfg.SourceRate), Burst: cfg.SourceBurst}),
		PerKey:    limit.New(limit.Config{Rate: float64(cfg.KeyRate), Burst: cfg.KeyBurst}),
		Failures:  limit.New(limit.Config{Rate: float64(cfg.FailureRate), Burst: 5 * cfg.FailureRate, Keys: 1}),
		Audit:     env.Audit,
	}).Init(env.Metrics)
	s.tokens = &rest.Tokens{Grants: s.grants}

	s.workers.Add("mirror", s.private.Run)
	s.workers.Add("issuer", s.whenRead(s.announce))
	s.workers.Add("signing keys", s.whenRead(s.grants.Ring.Run))
	s.workers.Add("signatures", s.whenRead(s.grants.Replay.Run))
	s.workers.Add("remains of credentials", s.whenRead(func(ctx context.Context) error { return s.book.Sweep(ctx, s.node.Directory, ended, env.Audit, log) }))
	env.Health.Check("tokens", func() (string, string) {
		if !s.ready() {
			return "cannot be issued yet: keys and credentials have not been read", ""
		}
		if _, err := s.grants.Ring.Signer(); err != nil {
			return "cannot be issued yet: there is no signing key", ""
		}
		return "", ""
	})
}

// ready reports whether everything that decisions on token requests depend on has been read.
func (s *Server) ready() bool {
	for _, m := range []*watched.Mirror{s.private, s.node.Mirror} {
		select {
		case <-m.Ready():
		default:
			return false
		}
	}
	_, known := s.node.Directory.Issuers().Snapshot().Get(state.IssuerKey(s.issuer))
	return known
}

// whenRead runs work once both mirrors have been read.
func (s *Server) whenRead(work func(context.Context) error) func(context.Context) error {
	return func(ctx context.Context) error {
		for _, m := range []*watched.Mirror{s.private, s.node.Mirror} {
			select {
			case <-m.Ready():
			case <-ctx.Done():
				return nil
			}
		}
		return work(ctx)
	}
}

// gate responds with 503 until tokens can be issued and verified.
func (s *Server) gate() gin.HandlerFunc {
	return func(c *gin.Context) {
		if !s.ready() {
			httpx.Fail(c, errs.New(errs.Unavailable, "the token service is starting").After(time.Second))
			return
		}
		c.Next()
	}
}

func (s *Server) mount(router *gin.Engine, env *daemon.Env) {
	wellKnown := &rest.WellKnown{URL: s.url, Issuer: s.issuer, Directory: s.node.Directory}
	wellKnown.Mount(router)
	httpx.MountOpenAPI(router)
	router.Use(s.gate())
	s.tokens.Mount(router)
	s.confs = &rest.Confs{
		Book: s.book, Audit: env.Audit, Overlap: func() time.Duration { return s.policies.Load().overlap },
		Mirrors: []*watched.Mirror{s.node.Mirror, s.private}, Store: s.node.Store,
	}
	s.confs.Mount(router.Group("", s.node.Guard.Require("auth", identity.ScopeMm5)))
}

// MountConfs adds the provisioning of credentials to another listener, which must admit only callers with the scope mm5. A
// MEPM then needs only one address.
func (s *Server) MountConfs(r gin.IRouter) { s.confs.Mount(r.Group("", s.gate())) }

// MountSigned adds the exchange of signed requests for tokens to another listener, because EdgeGallery's agents use the same
// address for tokens and for Mp1.
func (s *Server) MountSigned(r gin.IRoutes) {
	r.POST(rest.SignedPath, s.gate(), s.tokens.Signed())
}

// URL returns the URL at which clients reach the service.
func (s *Server) URL() string { return s.url }

// Handler returns the handler of the listener, for other parts of the process that receive requests for the service.
func (s *Server) Handler() http.Handler { return s.listener.Handler() }

// Close closes the listener of a service that was never served.
func (s *Server) Close() error { return s.listener.Close() }

// Part returns the background workers.
func (s *Server) Part() daemon.Part { return s.workers }

// Serve serves requests until ctx ends. It must end before Part does.
func (s *Server) Serve(ctx context.Context) error { return s.listener.Run(ctx, s.drain) }

// Prepare prepares a reload of the settings that may change; the returned function puts them into effect.
func (s *Server) Prepare(cfg *Config) func() {
	p := cfg.policies(s.issuer, s.audience)
	return func() {
		s.policies.Store(p)
		s.grants.PerSource.Set(float64(cfg.SourceRate), cfg.SourceBurst)
		s.grants.PerKey.Set(float64(cfg.KeyRate), cfg.KeyBurst)
		s.grants.Failures.Set(float64(cfg.FailureRate), 5*cfg.FailureRate)
	}
}

// issuerGrace is how long a former issuer name is still accepted: the longest token lifetime.
const issuerGrace = 24 * time.Hour

// announce records the issuer's name for those who verify tokens, and removes names that tokens no longer carry.
func (s *Server) announce(ctx context.Context) error {
	changed := make(chan struct{}, 1)
	_, stop := s.node.Directory.Issuers().Observe(func(watched.Change[state.Issuer]) {
		select {
		case changed <- struct{}{}:
		default:
		}
	})
	defer stop()
	for {
		wait := time.Hour
		if err := s.tryAnnounce(ctx); err != nil {
			wait = time.Second
		}
		select {
		case <-changed:
			// Replicas with different names must not overwrite one another in a tight loop.
			select {
			case <-time.After(time.Second):
			case <-ctx.Done():
				return nil
			}
		case <-time.After(wait):
		case <-ctx.Done():
			return nil
		}
	}
}

func (s *Server) tryAnnounce(ctx context.Context) error {
	now := time.Now().UTC()
	known := false
	for item := range s.node.Directory.Issuers().Snapshot().All() {
		rec := item.Value
		same := []clientv3.Cmp{clientv3.Compare(clientv3.ModRevision(item.Key), "=", item.ModRevision)}
		var op clientv3.Op
		switch {
		case rec.Issuer == s.issuer && rec.Replaced.IsZero():
			known = true
			continue
		case rec.Issuer == s.issuer:
			continue // written again below
		case rec.Replaced.IsZero():
			rec.Replaced = now
			value, err := state.Encode(rec)
			if err != nil {
				return err
			}
			op = clientv3.OpPut(item.Key, value)
		case now.Sub(rec.Replaced) > issuerGrace:
			op = clientv3.OpDelete(item.Key)
		default:
			continue
		}
		if _, err := s.node.Store.Urgent().Txn(ctx, same, []clientv3.Op{op}, nil); err != nil {
			return err
		}
	}
	if known {
		return nil
	}
	value, err := state.Encode(state.Issuer{Version: state.Current(), Issuer: s.issuer})
	if err != nil {
		return err
	}
	_, err = s.node.Store.Urgent().Do(ctx, clientv3.OpPut(state.IssuerKey(s.issuer), value))
	return err
}
