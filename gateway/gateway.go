// Package gateway is the way consumers reach the services of the platform: one address in front of the edge node. The gateway authenticates
// callers, decides whether they may call, counts calls, passes them on and records them.
package gateway

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/openmep/mep/api/state"
	"github.com/openmep/mep/gateway/authn"
	"github.com/openmep/mep/gateway/book"
	"github.com/openmep/mep/gateway/extauth"
	"github.com/openmep/mep/gateway/filter"
	"github.com/openmep/mep/gateway/follow"
	"github.com/openmep/mep/gateway/front"
	"github.com/openmep/mep/gateway/inflight"
	"github.com/openmep/mep/gateway/meter"
	"github.com/openmep/mep/gateway/pipeline"
	"github.com/openmep/mep/gateway/proxy"
	"github.com/openmep/mep/gateway/quota"
	"github.com/openmep/mep/gateway/record"
	"github.com/openmep/mep/gateway/rest"
	"github.com/openmep/mep/gateway/rule"
	"github.com/openmep/mep/gateway/spike"
	"github.com/openmep/mep/gateway/stats"
	"github.com/openmep/mep/gateway/table"
	"github.com/openmep/mep/gateway/tenure"
	"github.com/openmep/mep/gateway/upstream"
	"github.com/openmep/mep/kit/daemon"
	"github.com/openmep/mep/kit/httpx"
	"github.com/openmep/mep/kit/identity"
	"github.com/openmep/mep/kit/netguard"
	"github.com/openmep/mep/kit/node"
	"github.com/openmep/mep/kit/presence"
)

// Options holds what a program gives the gateway besides its settings.
type Options struct {
	// Filters are the kinds of filters that gateway.filters may name.
	Filters []filter.Definition
	// Mp1 and Auth serve the platform within this process; nil: calls go to gateway.mp1Urls and gateway.authUrls.
	Mp1, Auth http.Handler
	// Prefixes are the paths that Mp1 is mounted under.
	Prefixes []string
}

// Gateway is the gateway.
type Gateway struct {
	workers    *daemon.Workers
	common     *daemon.Config
	env        *daemon.Env
	node       *node.Node
	options    Options
	cfg        atomic.Pointer[Config]
	server     *front.Server
	handler    *front.Handler
	management *httpx.Server

	book      *book.Book
	feed      *follow.Feed
	meter     *meter.Meter
	upstreams *upstream.Manager
	inner     *upstream.Manager // for routes of the platform in other processes
	access    http.Handler      // serves the gateway's own resources for apps
	records   *record.Log
	stats     *stats.Stats
	quotas    *quota.Quotas
	spike     *spike.Arrest
	inflight  *inflight.Counts
	lasting   *tenure.Calls
	external  http.RoundTripper
	answers   *extauth.Metrics
	proxy     *proxy.Proxy
	replicas  func() int

	compiler atomic.Pointer[pipeline.Compiler]
	loaded   atomic.Pointer[load]
	guard    atomic.Pointer[netguard.Policy]
}

// load records when the configuration was last read, and how many reloads there have been.
type load struct {
	at      time.Time
	reloads int
}

// managementLimits returns the limits of requests to the management.
func managementLimits() httpx.Limits { return httpx.Limits{Connections: 256}.WithDefaults() }

// New wires the gateway and binds its listeners.
func New(cfg *Config, n *node.Node, env *daemon.Env, o Options) (*Gateway, error) {
	g := &Gateway{workers: daemon.NewWorkers("gateway"), common: env.Common, env: env, node: n, options: o}
	g.cfg.Store(cfg)
	limits := managementLimits()
	router, err := env.Router("gateway-management", func() httpx.Limits { return limits })
	if err != nil {
		return nil, err
	}
	addr, err := env.Common.Listen("gateway.listen", cfg.Listen)
	if err != nil {
		return nil, err
	}
	g.handler = &front.Handler{Log: env.Log, Tracer: env.Tracer}
	sc := front.ServerConfig{
		Addr: addr, Bounds: cfg.bounds(),
		Connections: func() int { return g.cfg.Load().ConnectionsHard },
		PerAddress:  func() int { return g.cfg.Load().ConnectionsPerAddress },
		Exempt:      func(a netip.Addr) bool { return rule.Within(a, g.handler.Settings.Load().Proxies) },
		Farewell:    func() { g.lasting.Farewell() },
		Log:         env.Log, Registerer: env.Metrics,
	}
	if env.Certs != nil {
		sc.TLS = env.Certs.ServerConfig()
	}
	if g.server, err = front.Listen(sc, env.Tracer.Wrap("gateway", g.handler)); err != nil {
		return nil, err
	}
	g.handler.Open = g.server.Open
	env.Health.Listener("gateway", g.server.URL())
	env.Health.Bound(g.server.Addr().AddrPort())
	if g.management, err = env.Listen("gateway-management", cfg.ManagementListen, router, limits); err != nil {
		return nil, errors.Join(fmt.Errorf("gateway.managementListen: %w", err), g.server.Close())
	}
	if err := g.wire(cfg, router); err != nil {
		return nil, errors.Join(err, g.Close())
	}
	return g, nil
}

// wire makes the parts. When it fails, Close releases what it has made.
func (g *Gateway) wire(cfg *Config, router *gin.Engine) error {
	env, n := g.env, g.node
	guard, err := g.guardOf(cfg)
	if err != nil {
		return err
	}
	g.guard.Store(guard)
	uc, err := cfg.upstreams(g.guard.Load)
	if err != nil {
		return err
	}
	if g.upstreams, err = upstream.New(uc, env.Log, env.Metrics); err != nil {
		return err
	}
	if g.records, err = record.Open(cfg.records(env.Common), env.Log, env.Metrics); err != nil {
		return fmt.Errorf("gateway.records: %w", err)
	}
	g.meter = meter.New(cfg.SeriesServices, cfg.SeriesConsumers, env.Metrics)
	g.book = book.New(n.Mirror, n.Store, offers{g})
	g.present()
	g.quotas = quota.New(quota.Config{Store: n.Store, Replicas: g.replicas, Log: env.Log, Registerer: env.Metrics})
	g.spike, g.inflight = spike.New(0, env.Metrics), inflight.New(env.Metrics)
	g.external, g.answers = g.questions(), extauth.NewMetrics(env.Metrics)
	g.lasting = g.tenure()
	g.proxy = proxy.New(env.Tracer, env.Log.With("listener", "gateway"), g.lasting, g.handler.Fail, g.handler.Gone)
	g.handler.Meter, g.handler.Records, g.handler.Stats, g.handler.Lasting = g.meter, g.records, g.stats, g.lasting
	g.handler.ServiceSeries, g.handler.InstanceSeries = g.meter.Route(front.ServicesRoute), g.meter.Route(front.InstancesRoute)
	g.handler.NoSeries = g.meter.Route("none")
	g.handler.Table.Store(&table.Table{})

	if g.access, err = g.accessRouter(); err != nil {
		return err
	}
	if err := g.reachPlatform(cfg); err != nil {
		return err
	}
	fc, settings, register, err := g.prepare(cfg)
	if err != nil {
		return err
	}
	register()
	g.compiler.Store(fc.Compiler)
	g.handler.Settings.Store(settings)
	g.loaded.Store(&load{at: time.Now()})
	g.feed = follow.New(n.Mirror, g.book, g.meter, fc, g.publish, env.Log, env.Metrics)
	g.work()
	g.mountManagement(router)
	return nil
}

func (g *Gateway) publish(t *table.Table) {
	g.handler.Table.Store(t)
	g.lasting.Changed()
}

// work adds the workers behind the listeners.
func (g *Gateway) work() {
	g.workers.Add("routes", g.feed.Run)
	g.workers.Add("upstreams", g.upstreams.Run)
	g.workers.Add("platform upstreams", g.inner.Run)
	g.workers.Add("quotas", g.quotas.Run)
	g.workers.Add("calls under way", g.lasting.Run)
	g.workers.Add("statistics", func(ctx context.Context) error {
		select {
		case <-g.node.Mirror.Ready():
		case <-ctx.Done():
			return nil
		}
		return g.stats.Run(ctx)
	})
	g.workers.Add("remains of apps", func(ctx context.Context) error {
		select {
		case <-g.node.Mirror.Ready():
		case <-ctx.Done():
			return nil
		}
		return g.book.Sweep(ctx, g.env.Audit, g.env.Log)
	})
	g.workers.Add("access records", func(ctx context.Context) error {
		<-ctx.Done()
		return g.records.Close()
	})
	g.env.Health.Check("gateway", g.check)
}

// present announces this replica to the others, and counts the replicas.
func (g *Gateway) present() {
	id := node.MemberID()
	g.stats = stats.New(g.node.Store, g.node.Mirror, id, g.env.Log, g.env.Metrics)
	g.replicas = func() int { return 1 }
	if g.node.Alone {
		return
	}
	members := newMembers(g.node.Mirror)
	g.replicas = members.count
	p := presence.New(g.node.Store.Client, state.PrefixMembers+memberKind+id, `{"v":1}`, 10*time.Second, g.env.Log)
	g.workers.Add("presence", p.Run)
}

// questions returns the transport of external authorisation. Managers choose its targets, which are often on this machine but may not be
// the platform itself.
func (g *Gateway) questions() http.RoundTripper {
	policy := func() *netguard.Policy {
		p := *g.guard.Load()
		p.AllowLoopback = true
		return &p
	}
	return &http.Transport{
		DialContext: netguard.Dialer(policy, 5*time.Second).DialContext, MaxIdleConnsPerHost: 64, IdleConnTimeout: time.Minute,
		TLSHandshakeTimeout: 5 * time.Second, MaxResponseHeaderBytes: 32 << 10, ForceAttemptHTTP2: true, DisableCompression: true,
	}
}

// guardOf returns the policy for the addresses that services and routes may lead to.
func (g *Gateway) guardOf(cfg *Config) (*netguard.Policy, error) {
	d, err := cfg.denied()
	if err != nil {
		return nil, err
	}
	p := &netguard.Policy{
		AllowLoopback: cfg.AllowLoopback, AllowPrivate: cfg.AllowPrivate, Deny: d.nets, Own: d.ports,
		Listeners:       g.listeners,
		LoopbackSetting: "gateway.allowLoopback", PrivateSetting: "gateway.allowPrivate",
	}
	for _, s := range slices.Concat(cfg.Mp1URLs, cfg.AuthURLs) {
		p.Own = append(p.Own, addressesOf(s)...)
	}
	for _, e := range g.common.EtcdEndpoints {
		if !strings.Contains(e, "://") {
			e = "http://" + e
		}
		p.Own = append(p.Own, addressesOf(e)...)
	}
	return p, nil
}

// lookup is how long looking up the names of other parts of the platform may take.
const lookup = time.Second

// addressesOf returns the addresses of a part of the platform that is reached at a URL. A name stands for the addresses that are found now.
func addressesOf(raw string) []netip.AddrPort {
	u, err := url.Parse(raw)
	if err != nil || u.Hostname() == "" {
		return nil
	}
	port, err := netguard.PortOf(u)
	if err != nil {
		return nil
	}
	if a, err := netip.ParseAddr(u.Hostname()); err == nil {
		return []netip.AddrPort{netip.AddrPortFrom(a, port)}
	}
	ctx, cancel := context.WithTimeout(context.Background(), lookup)
	defer cancel()
	found, _ := net.DefaultResolver.LookupNetIP(ctx, "ip", u.Hostname()) // what cannot be found cannot be called either
	var list []netip.AddrPort
	for _, a := range found {
		list = append(list, netip.AddrPortFrom(a.Unmap(), port))
	}
	return list
}

// listeners returns the addresses of the listeners of this process.
func (g *Gateway) listeners() []netip.AddrPort { return g.env.Health.Addresses() }

// prepare does the part of applying settings that can fail.
func (g *Gateway) prepare(cfg *Config) (*follow.Config, *front.Settings, func(), error) {
	local, err := cfg.judged()
	if err != nil {
		return nil, nil, nil, err
	}
	filters, register, err := g.filters(cfg)
	if err != nil {
		return nil, nil, nil, err
	}
	proxies, err := networksOf(g.common.Identity.Proxies)
	if err != nil {
		return nil, nil, nil, err
	}
	c := &pipeline.Compiler{
		Stages: &pipeline.Stages{
			Authenticator: g.authenticator(cfg), External: g.external, ExternalMetrics: g.answers, Log: g.env.Log,
			Judge: g.judge(local), Spike: g.spike, InFlight: g.inflight, Quotas: g.quotas, Proxy: g.proxy, Audit: g.env.Audit,
			Fail: g.handler.Fail, Gone: g.handler.Gone, Refused: g.handler.Refused,
		},
		Defaults: pipeline.Defaults{MaxBody: cfg.MaxBody, Headers: cfg.plan()}, Filters: filters, Upstream: g.upstreams,
	}
	if err := c.Init(); err != nil {
		return nil, nil, nil, err
	}
	domain, err := cfg.domain()
	if err != nil {
		return nil, nil, nil, err
	}
	return &follow.Config{Compiler: c, Routes: cfg.Routes, Policies: cfg.Policies, Platform: g.platform(cfg), Domain: domain}, &front.Settings{
		URI: cfg.MaxURI, Header: cfg.MaxHeader, Connections: cfg.Connections, BodyIdle: cfg.BodyIdle, Proxies: proxies,
		RequestIDs: cfg.TrustRequestID, Underscores: cfg.Underscores, Statistics: cfg.Statistics,
	}, register, nil
}

func (g *Gateway) authenticator(cfg *Config) *authn.Authenticator {
	return &authn.Authenticator{
		Guard: g.node.Guard, Open: g.common.Dev, Header: canonical(cfg.KeyHeader), Query: keyName(cfg.KeyQuery),
		Key: func(key string) (*identity.Caller, []string, error) {
			k, err := g.book.Keys.Authenticate(key)
			if err != nil {
				return nil, nil, err
			}
			return k.Caller, k.Info.Services, nil
		},
	}
}

// mountManagement adds the resources of the management listener.
func (g *Gateway) mountManagement(router *gin.Engine) {
	httpx.MountOpenAPI(router)
	router.Use(g.node.Gate(), g.node.Guard.Require("gateway-management", identity.ScopeMm5))
	(&rest.API{Book: g.book, Server: &server{g}, Audit: g.env.Audit}).Mount(router)
}

// check returns why no calls are routed yet, or why the gateway is degraded.
func (g *Gateway) check() (notReady, degraded string) {
	t := g.handler.Table.Load()
	if t.Default() == nil {
		return "has not read its routes yet", ""
	}
	if n := len(t.Refused()); n > 0 {
		return "", fmt.Sprintf("the latest definitions of %d routes and policies cannot be used: see /gateway/v1/status", n)
	}
	return "", ""
}

// Part returns what works behind the listeners.
func (g *Gateway) Part() daemon.Part { return g.workers }

// Listeners returns the functions that serve until the context ends.
func (g *Gateway) Listeners() map[string]func(context.Context) error {
	return map[string]func(context.Context) error{
		"gateway":            func(ctx context.Context) error { return g.server.Run(ctx, g.env.Drain) },
		"gateway-management": func(ctx context.Context) error { return g.management.Run(ctx, g.env.Drain) },
	}
}

// Close releases the listeners of a gateway that never served.
func (g *Gateway) Close() error {
	err := errors.Join(g.server.Close(), g.management.Close())
	if g.records != nil {
		err = errors.Join(err, g.records.Close())
	}
	return err
}

// URL returns where consumers reach the gateway.
func (g *Gateway) URL() string { return g.server.URL() }

// ManagementURL returns where managers reach the gateway.
func (g *Gateway) ManagementURL() string { return g.management.URL() }

// Prepare makes what depends on the settings that may change; the returned function puts it to use.
func (g *Gateway) Prepare(cfg *Config) (func(), error) {
	guard, err := g.guardOf(cfg)
	if err != nil {
		return nil, err
	}
	uc, err := cfg.upstreams(g.guard.Load)
	if err != nil {
		return nil, err
	}
	upstreams, err := g.upstreams.Prepare(uc)
	if err != nil {
		return nil, err
	}
	if err := g.records.Reopen(); err != nil {
		g.env.Log.Error("the file of the access records cannot be opened again, the present one stays in use", "error", err)
	}
	records, err := g.records.Prepare(cfg.records(g.common))
	if err != nil {
		return nil, fmt.Errorf("gateway.records: %w", err)
	}
	reaching, err := g.reaching(cfg)
	if err != nil {
		return nil, err
	}
	inner, err := g.inner.Prepare(reaching)
	if err != nil {
		return nil, err
	}
	fc, settings, register, err := g.prepare(cfg)
	if err != nil {
		return nil, err
	}
	return func() {
		g.cfg.Store(cfg)
		g.guard.Store(guard)
		upstreams()
		inner()
		records()
		register()
		g.meter.Bound(cfg.SeriesServices, cfg.SeriesConsumers)
		g.server.SetBounds(cfg.bounds())
		g.compiler.Store(fc.Compiler)
		g.handler.Settings.Store(settings)
		g.feed.Set(fc)
		was := g.loaded.Load()
		g.loaded.Store(&load{at: time.Now(), reloads: was.reloads + 1})
	}, nil
}
