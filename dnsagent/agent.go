package dnsagent

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/gin-gonic/gin"
	"golang.org/x/sys/unix"

	api "github.com/openmep/mep/api/dns"
	"github.com/openmep/mep/api/state"
	"github.com/openmep/mep/dnsagent/follow"
	"github.com/openmep/mep/dnsagent/forward"
	"github.com/openmep/mep/dnsagent/listen"
	"github.com/openmep/mep/dnsagent/protect"
	"github.com/openmep/mep/dnsagent/records"
	"github.com/openmep/mep/dnsagent/report"
	"github.com/openmep/mep/dnsagent/resolve"
	"github.com/openmep/mep/dnsagent/rest"
	"github.com/openmep/mep/dnsagent/table"
	"github.com/openmep/mep/dnsagent/wire"
	"github.com/openmep/mep/kit/daemon"
	"github.com/openmep/mep/kit/httpx"
	"github.com/openmep/mep/kit/identity"
	"github.com/openmep/mep/kit/leader"
	"github.com/openmep/mep/kit/node"
)

// Agent is the DNS server.
type Agent struct {
	workers    *daemon.Workers
	common     *daemon.Config
	drain      func() time.Duration
	cfg        atomic.Pointer[Config]
	listener   *listen.Server
	management *httpx.Server
	feed       *follow.Feed
	forwarder  *forward.Forwarder
	resolver   *resolve.Resolver
	cookies    *protect.Cookies
}

// leaderTTL is the time within which a dead leader is replaced.
const leaderTTL = 5 * time.Second

// managementLimits returns the limits on requests to the management API.
func managementLimits() httpx.Limits { return httpx.Limits{Connections: 256}.WithDefaults() }

// New wires the server and binds its listeners.
func New(cfg *Config, n *node.Node, env *daemon.Env) (*Agent, error) {
	a := &Agent{workers: daemon.NewWorkers("dnsagent"), common: env.Common, drain: env.Drain}
	a.cfg.Store(cfg)
	limits := managementLimits()
	router, err := env.Router("dns-management", func() httpx.Limits { return limits })
	if err != nil {
		return nil, err
	}
	if a.management, err = env.Listen("dns-management", cfg.ManagementListen, router, limits); err != nil {
		return nil, err
	}
	if err := a.listen(cfg, env); err != nil {
		return nil, errors.Join(err, a.management.Close())
	}
	if err := a.wire(cfg, n, env, router); err != nil {
		return nil, errors.Join(err, a.Close())
	}
	return a, nil
}

func (a *Agent) listen(cfg *Config, env *daemon.Env) error {
	addr, err := env.Common.Listen("dns.listen", cfg.Listen)
	if err != nil {
		return err
	}
	pending := 2 * a.forwards(env)
	lc := listen.Config{
		Addr: addr, TLSAddr: cfg.TLSListen, Sockets: cfg.Sockets, Connections: cfg.Connections, Idle: cfg.Idle,
		// More than may be in flight upstream: further queries are answered from stale cache entries, and equal ones wait together.
		Pending: pending, PendingPerAddr: max(16, pending/8), PerConnection: 16, LameDuck: a.lameDuck, Log: env.Log, Registerer: env.Metrics,
	}
	if cfg.TLSListen != "" {
		lc.TLS = env.Certs.ServerConfig()
	}
	if a.listener, err = listen.Open(lc); err != nil {
		return err
	}
	env.Health.Listener("dns", "dns://"+a.listener.Addr().String())
	env.Health.Bound(a.listener.Addr())
	if cfg.TLSListen != "" {
		env.Health.Listener("dns-tls", "tls://"+a.listener.TLSAddr().String())
		env.Health.Bound(a.listener.TLSAddr())
	}
	return nil
}

// forwards returns how many queries may wait for forwarders. A query holds one socket for each forwarder it waits for, seldom more than
// two, and other parts of the process need sockets too.
func (a *Agent) forwards(env *daemon.Env) int {
	want := a.cfg.Load().ForwardPending
	var files unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &files); err != nil || files.Cur/4 >= uint64(want) { //nolint:gosec // validated
		return want
	}
	most := max(1, int(files.Cur/4)) //nolint:gosec // less than want
	if env != nil {
		env.Log.Warn("fewer questions may wait for forwarders than dns.forwardPending says: raise the limit of open files (LimitNOFILE, ulimit -n)",
			"pending", most, "files", files.Cur)
	}
	return most
}

// lameDuck returns how long queries are still answered after the process was told to stop.
func (a *Agent) lameDuck() time.Duration { return min(a.cfg.Load().LameDuck, a.drain()) }

func (a *Agent) wire(cfg *Config, n *node.Node, env *daemon.Env, router *gin.Engine) error {
	if cfg.Cookies {
		secret, previous := protect.RandomSecret(), []protect.Secret(nil)
		if cfg.CookieSecret != "" {
			var err error
			if secret, previous, err = protect.LoadSecret(cfg.CookieSecret); err != nil {
				return err
			}
		}
		a.cookies = protect.NewCookies(secret, previous...)
	}
	fc, err := a.forwarding(cfg)
	if err != nil {
		return err
	}
	if a.forwarder, err = forward.New(fc, env.Log, env.Metrics); err != nil {
		return err
	}
	policy, err := a.policy(cfg)
	if err != nil {
		return err
	}
	rc, err := cfg.records()
	if err != nil {
		return err
	}
	a.resolver = resolve.New(policy, a.forwarder, env.Metrics)
	a.feed = follow.New(n.Mirror, rc, a.publish, env.Log, env.Metrics)
	reporter := report.New(a.feed, n.Mirror, n.Store, env.Log, env.Metrics)
	elector := leader.Alone()
	if !n.Alone {
		elector = leader.New(n.Store.Client, state.PrefixElections+"dnsagent", node.MemberID(), leaderTTL, env.Log)
	}
	a.workers.Add("records", a.feed.Run)
	a.workers.Add("forwarders", a.forwarder.Run)
	a.workers.Add("reports", func(ctx context.Context) error {
		select {
		case <-n.Mirror.Ready():
		case <-ctx.Done():
			return nil
		}
		return elector.Run(ctx, reporter.Run)
	})
	env.Health.Check("dns", a.check)

	book := records.New(n.Mirror, n.Store, a.recordPolicy)
	book.Beside(a.feed)
	httpx.MountOpenAPI(router)
	router.GET("/health", func(c *gin.Context) { c.String(http.StatusOK, "OK") }) // as in EdgeGallery
	router.Use(n.Gate(), n.Guard.Require("dns-management", identity.ScopeMm5))
	(&rest.API{Book: book, Server: a, Audit: env.Audit}).Mount(router)
	return nil
}

func (a *Agent) recordPolicy() records.Policy {
	cfg := a.cfg.Load()
	p := records.Policy{MaxRecords: cfg.MaxRecords}
	for _, v := range cfg.Views {
		p.Views = append(p.Views, v.Name)
	}
	return p
}

// forwarding returns the forwarder's configuration, which refuses this server itself as an upstream.
func (a *Agent) forwarding(cfg *Config) (forward.Config, error) {
	fc, err := cfg.forwarding()
	fc.Pending = a.forwards(nil)
	fc.OwnAddr = func(ap netip.AddrPort) bool {
		return reached(a.listener.Addr(), ap) || reached(a.listener.TLSAddr(), ap)
	}
	return fc, err
}

// policy returns the resolver's configuration.
func (a *Agent) policy(cfg *Config) (*resolve.Policy, error) {
	p := &resolve.Policy{Rotate: cfg.Rotate, UDPSize: uint16(cfg.UDPSize), Cookies: a.cookies} //nolint:gosec // validated
	may, err := cfg.clients()
	if err != nil {
		return nil, err
	}
	p.Query, p.Recursion, p.Unlimited = may.query, may.recursion, may.unlimited
	if cfg.RateLimit > 0 {
		if p.Rates, err = protect.NewRates(protect.RatesConfig{PerSecond: float64(cfg.RateLimit), Slip: cfg.RateSlip}); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// publish makes the resolver answer from t and the views t was made for.
func (a *Agent) publish(t *table.Table, cfg *follow.Config) {
	records := &resolve.Records{Table: t, Clients: cfg.Clients}
	for i := range cfg.Views {
		records.Views = append(records.Views, cfg.Views[i].Name)
	}
	a.resolver.SetRecords(records)
}

// check reports whether the server can answer queries.
func (a *Agent) check() (notReady, degraded string) {
	if a.resolver.Table() == nil {
		return "has not read its records yet", ""
	}
	upstreams := a.forwarder.Upstreams()
	for i := range upstreams {
		if upstreams[i].State == forward.StateUp {
			return "", ""
		}
	}
	if len(upstreams) > 0 {
		return "", "no forwarder answers: what is not the platform's own is answered from the cache, or not at all"
	}
	return "", ""
}

// Part returns the workers behind the listeners.
func (a *Agent) Part() daemon.Part { return a.workers }

// Listeners returns the functions that serve each listener until the context ends.
func (a *Agent) Listeners() map[string]func(context.Context) error {
	return map[string]func(context.Context) error{
		"dns":            func(ctx context.Context) error { return a.listener.Run(ctx, a.resolver) },
		"dns-management": func(ctx context.Context) error { return a.management.Run(ctx, a.drain) },
	}
}

// Close releases the listeners of an Agent that never served.
func (a *Agent) Close() error { return errors.Join(a.listener.Close(), a.management.Close()) }

// Addr returns the address of the DNS server.
func (a *Agent) Addr() netip.AddrPort { return a.listener.Addr() }

// ManagementURL returns the URL of the management API.
func (a *Agent) ManagementURL() string {
	return cmp.Or(strings.TrimSuffix(a.cfg.Load().PublicURL, "/"), a.management.URL())
}

// Prepare checks cfg and builds everything that depends on reloadable settings; the returned function puts it into effect.
func (a *Agent) Prepare(cfg *Config) (func(), error) {
	fc, err := a.forwarding(cfg)
	if err != nil {
		return nil, err
	}
	policy, err := a.policy(cfg)
	if err != nil {
		return nil, err
	}
	rc, err := cfg.records()
	if err != nil {
		return nil, err
	}
	forwarders, err := a.forwarder.Prepare(fc)
	if err != nil {
		return nil, err
	}
	return func() {
		a.cfg.Store(cfg)
		forwarders()
		a.feed.Set(rc)
		a.resolver.SetPolicy(policy)
	}, nil
}

// Zones implements rest.Server.
func (a *Agent) Zones() []api.Zone {
	t := a.resolver.Table()
	if t == nil {
		return nil
	}
	var list []api.Zone
	for z := range t.Zones() {
		list = append(list, api.Zone{Name: z.Name.String(), Serial: z.Serial, Names: z.Names, Records: z.Records})
	}
	slices.SortFunc(list, func(a, b api.Zone) int { return cmp.Compare(a.Name, b.Name) })
	return list
}

// Upstreams implements rest.Server.
func (a *Agent) Upstreams() []api.Upstream {
	var list []api.Upstream
	for _, u := range a.forwarder.Upstreams() {
		v := api.Upstream{
			Address: u.Upstream, Zone: u.Zone, Up: u.State == forward.StateUp, LastError: u.Reason, Queries: u.Asked, Failures: u.Unanswered,
			CaseLost: u.CaseLost,
		}
		if !v.Up {
			v.FailingSince = u.Since
		}
		list = append(list, v)
	}
	return list
}

// Flush implements rest.Server.
func (a *Agent) Flush(name string, below bool) (int, error) {
	if name == "" {
		return a.forwarder.Flush(wire.Root, true), nil
	}
	n, err := wire.ParseName(name)
	if err != nil {
		return 0, err
	}
	return a.forwarder.Flush(n, below), nil
}

// Trace implements rest.Server.
func (a *Agent) Trace(ctx context.Context, req api.TraceRequest) (*api.Trace, error) {
	return a.resolver.Trace(ctx, req)
}

// Unanswered implements rest.Server.
func (a *Agent) Unanswered(rec *api.Record) string { return a.feed.Unanswered(rec) }

// Served implements rest.Server.
func (a *Agent) Served(ctx context.Context, revision int64) error {
	return a.feed.CatchUp(ctx, revision)
}
