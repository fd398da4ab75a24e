package mepserver

import (
	"context"
	"errors"
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/openmep/mep/api/state"
	"github.com/openmep/mep/kit/daemon"
	"github.com/openmep/mep/kit/httpx"
	"github.com/openmep/mep/kit/identity"
	"github.com/openmep/mep/kit/leader"
	"github.com/openmep/mep/kit/netguard"
	"github.com/openmep/mep/kit/node"
	"github.com/openmep/mep/kit/presence"
	"github.com/openmep/mep/mepserver/apps"
	"github.com/openmep/mep/mepserver/callback"
	"github.com/openmep/mep/mepserver/liveness"
	"github.com/openmep/mep/mepserver/mp1"
	"github.com/openmep/mep/mepserver/notify"
	"github.com/openmep/mep/mepserver/registry"
	"github.com/openmep/mep/mepserver/subscription"
)

// Server is the Mp1 and Mm5 server.
type Server struct {
	workers  *daemon.Workers
	common   *daemon.Config
	drain    func() time.Duration
	cfg      *Config
	node     *node.Node
	listener *httpx.Server
	mm5      *httpx.Server
	policies atomic.Pointer[policies]
	own      netguard.Policy
	gateway  string
	support  *support
	notifier *notify.Notifier
}

// Also adds the resources of other parts of the process to the server's listeners. Either field may be nil.
type Also struct {
	// Mp1 gets the router before callers are authenticated, Mm5 after.
	Mp1 func(gin.IRoutes)
	Mm5 func(gin.IRouter)
}

// leaderTTL is how long a dead leader still counts as the leader.
const leaderTTL = 5 * time.Second

// New wires the server and binds its listeners.
func New(cfg *Config, n *node.Node, env *daemon.Env, also Also) (*Server, error) {
	s := &Server{
		workers: daemon.NewWorkers("mepserver"), common: env.Common, drain: env.Drain, cfg: cfg, node: n,
	}
	limits := func() httpx.Limits { return s.policies.Load().limits }
	router, err := env.Router("mp1", limits)
	if err != nil {
		return nil, err
	}
	mm5Router, err := env.Router("mm5", limits)
	if err != nil {
		return nil, err
	}
	if s.listener, err = env.Listen("mp1", cfg.Mp1Listen, router, cfg.limits()); err != nil {
		return nil, err
	}
	if s.mm5, err = env.Listen("mm5", cfg.Mm5.Listen, mm5Router, cfg.limits()); err != nil {
		return nil, errors.Join(err, s.listener.Close())
	}
	// Health.Addresses also covers listeners of this process that open later.
	s.own.Listeners = env.Health.Addresses
	s.own.Own = []netip.AddrPort{s.listener.Addr().AddrPort(), s.mm5.Addr().AddrPort()}
	s.policies.Store(cfg.policies(s.own, s.publicURL(), s.gateway))
	if also.Mp1 != nil {
		also.Mp1(router)
	}
	if err := s.wire(router, mm5Router, env, also); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

func (c *Config) limits() httpx.Limits {
	return httpx.Limits{Body: c.MaxBody, URI: c.MaxURI, Header: c.MaxHeader, Connections: c.MaxConnections}
}

// publicURL returns the base of URLs outside responses, where there is no request to derive it from.
func (s *Server) publicURL() string {
	if s.cfg.PublicURL != "" {
		return strings.TrimSuffix(s.cfg.PublicURL, "/")
	}
	return s.listener.URL()
}

func (s *Server) wire(router, mm5Router *gin.Engine, env *daemon.Env, also Also) error {
	log, m, store := env.Log, s.node.Mirror, s.node.Store
	registryPolicy := func() registry.Policy { return s.policies.Load().registry }
	dir := apps.New(m, s.common.Dev)
	reg := registry.New(m, store, dir, registryPolicy)
	book := subscription.New(m, store, dir, func() subscription.Policy { return s.policies.Load().subscription })
	monitor := liveness.New(reg, registryPolicy, func() time.Duration { return s.cfg.LivenessRemoveAfter }, log, env.Metrics)
	client := callback.NewClient(func() *callback.Policy { return s.policies.Load().subscription.Targets })
	base := func() string { return s.publicURL() + s.cfg.Prefixes[0] }
	notifier := notify.New(m, store, reg, book, client, base, func() notify.Policy { return s.policies.Load().notify }, log, env.Metrics)
	support, err := s.supportApps(dir, reg, book, client, base, env)
	if err != nil {
		return err
	}

	elector := leader.Alone()
	if !s.node.Alone {
		id := node.MemberID()
		members := state.PrefixMembers + "mepserver/"
		present := presence.New(store.Client, members+id, `{"v":1}`, 10*time.Second, log)
		elector = leader.New(store.Client, state.PrefixElections+"mepserver", id, leaderTTL, log)
		s.workers.Add("presence", present.Run)
		s.workers.Add("heartbeat exchange", monitor.Share(m, store, present, id, members))
	}
	work := append(support.leading, monitor.Expire, notifier.Run)
	s.workers.Add("leader", func(ctx context.Context) error {
		select {
		case <-m.Ready():
		case <-ctx.Done():
			return nil
		}
		return elector.Run(ctx, func(ctx context.Context, term leader.Term) error { return leadWith(ctx, term, work...) })
	})
	s.workers.Add("clock", support.clock.Run)
	s.mount(router, &mp1.API{
		Apps: dir, Own: s.node.Guard.Own("mp1", "appInstanceId"), Registry: reg, Book: book, Monitor: monitor, Policy: registryPolicy,
		Lifecycle: support.manager, Termination: support.termination, Registrations: support.registrations, Clock: support.clock,
		OwnURL:            s.listener.URL(),
		PublicURL:         func() string { return strings.TrimSuffix(s.cfg.PublicURL, "/") },
		Gateway:           func() registry.Gateway { return s.policies.Load().gateway },
		EdgeGalleryPrefix: "/mep",
	})
	s.mountMm5(mm5Router, support, notifier, env, also)
	s.notifier, s.support = notifier, support
	mountOps(env.Ops, notifier)
	return nil
}

// leadWith runs the work of a leader concurrently; the first failure cancels the rest.
func leadWith(ctx context.Context, term leader.Term, work ...func(context.Context, leader.Term) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan error, len(work))
	for _, w := range work {
		go func() { done <- w(ctx, term) }()
	}
	var first error
	for range work {
		if err := <-done; err != nil && first == nil {
			first = err
			cancel()
		}
	}
	return first
}

func (s *Server) mount(router *gin.Engine, api *mp1.API) {
	httpx.MountOpenAPI(router)
	router.Use(s.node.Gate(), s.node.Guard.Require("mp1", identity.ScopeMp1))
	api.Mount(router, s.cfg.Prefixes)
}

// mountOps adds the resources for operators.
func mountOps(r daemon.Router, notifier *notify.Notifier) {
	g := r.Group("/notifications")
	g.GET("/subscriptions", httpx.Handle(func(c *gin.Context) error {
		if err := httpx.NoQuery(c); err != nil {
			return err
		}
		return httpx.JSON(c, http.StatusOK, notifier.Deliveries())
	}))
	g.GET("/dead_letters", httpx.Handle(func(c *gin.Context) error {
		if err := httpx.NoQuery(c); err != nil {
			return err
		}
		return httpx.JSON(c, http.StatusOK, notifier.DeadLetters())
	}))
}

// ThroughGateway sets the URL of the gateway of this process, used unless gateway.publicUrl is set. Call it before
// anything is served.
func (s *Server) ThroughGateway(url string) {
	s.gateway = url
	s.policies.Store(s.cfg.policies(s.own, s.publicURL(), url))
}

// NeededHistory returns the etcd revision after which history must be kept for subscribers not yet notified of it.
func (s *Server) NeededHistory() int64 { return s.notifier.Saved() }

// URL returns the URL at which apps reach Mp1.
func (s *Server) URL() string { return s.publicURL() }

// Handler returns the Mp1 handler, for parts of the process that pass requests on to it.
func (s *Server) Handler() http.Handler { return s.listener.Handler() }

// Addr returns the address Mp1 is bound to.
func (s *Server) Addr() netip.AddrPort { return s.listener.Addr().AddrPort() }

// Mm5URL returns the URL at which the MEPM reaches Mm5.
func (s *Server) Mm5URL() string {
	if s.cfg.Mm5.PublicURL != "" {
		return strings.TrimSuffix(s.cfg.Mm5.PublicURL, "/")
	}
	return s.mm5.URL()
}

// Close releases the listeners of a server that was never served.
func (s *Server) Close() error { return errors.Join(s.listener.Close(), s.mm5.Close()) }

// Part returns the background workers of the server.
func (s *Server) Part() daemon.Part { return s.workers }

// Listeners returns functions that serve requests until their context ends. They must end before Part does, so that
// what has been answered is carried out.
func (s *Server) Listeners() map[string]func(context.Context) error {
	return map[string]func(context.Context) error{
		"mp1": func(ctx context.Context) error { return s.listener.Run(ctx, s.drain) },
		"mm5": func(ctx context.Context) error {
			// Event streams do not end by themselves.
			stop := context.AfterFunc(ctx, s.support.events.Close)
			defer stop()
			return s.mm5.Run(ctx, s.drain)
		},
	}
}

// Prepare computes what depends on the reloadable settings; the returned function puts it to use.
func (s *Server) Prepare(cfg *Config) func() {
	p := cfg.policies(s.own, s.publicURL(), s.gateway)
	clock := cfg.Mm5.Timing.clock()
	return func() {
		s.policies.Store(p)
		s.support.clock.Set(clock)
	}
}
