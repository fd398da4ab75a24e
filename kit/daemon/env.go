package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"sync/atomic"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/openmep/mep/kit/audit"
	"github.com/openmep/mep/kit/errs"
	"github.com/openmep/mep/kit/httpx"
	"github.com/openmep/mep/kit/identity"
	"github.com/openmep/mep/kit/ops"
	"github.com/openmep/mep/kit/pki"
	"github.com/openmep/mep/kit/telemetry"
)

// Env is the environment that a program gives its parts.
type Env struct {
	// Program is the name of the program.
	Program string
	// Common holds the settings of every program. A reload changes only Identity, before the parts prepare themselves: Common is for
	// New and Prepare, and must not be read while requests are served. The method Drain returns the drain time in force.
	Common *Config
	// Log is the program's logger.
	Log *slog.Logger
	// Audit is the audit stream.
	Audit *audit.Log
	// Metrics is the registry for the parts.
	Metrics telemetry.Registry
	// Tracer records spans of requests; it may be nil.
	Tracer *telemetry.Tracer
	// HTTP counts the requests of all listeners.
	HTTP *httpx.Metrics
	// Certs holds the server certificate; nil in development mode, where nothing is encrypted.
	Certs *pki.Keeper
	// Health takes the parts' listeners and checks.
	Health *ops.Health
	// Ops is the router of the operations listener. It is served once the program is built; until then another router serves health and
	// metrics only.
	Ops Router

	drain    atomic.Int64
	reloads  reloads
	proxies  httpx.Proxies
	guard    *identity.Guard // nil until SetGuard
	opsGuard atomic.Pointer[gin.HandlerFunc]
	opsNow   atomic.Pointer[gin.Engine]
}

// Drain returns how long requests in flight may take to finish when the process stops.
func (e *Env) Drain() time.Duration { return time.Duration(e.drain.Load()) }

// NewEnv returns what the parts share. listeners holds the addresses of all listeners, as configured, and public URLs. The operations
// listener is not bound yet.
func NewEnv(ctx context.Context, common *Config, program string, listeners []string, log *slog.Logger, metrics telemetry.Registry) (*Env, error) {
	env := &Env{Program: program, Common: common, Log: log, Metrics: metrics, Health: ops.NewHealth()}
	env.drain.Store(int64(common.Drain))
	env.HTTP = httpx.NewMetrics(env.Metrics)
	env.reloads.follow(env)
	trusted, err := env.proxies.Prepare(common.Identity.Proxies)
	if err != nil {
		return nil, err
	}
	trusted()
	// Other users may pass through it to the CA certificate; secrets are in directories of their own.
	err = os.MkdirAll(common.DataDir, 0o711) //nolint:gosec // see above
	if err != nil {
		return nil, fmt.Errorf("data directory: %w", err)
	}
	if env.Tracer, err = telemetry.NewTracer(ctx, common.TracesURL, program, Version); err != nil {
		return nil, err
	}
	if !common.Dev {
		env.Certs, err = pki.Open(pki.Config{
			Dir: common.PKIDir(), CertFile: common.TLSCert, KeyFile: common.TLSKey, ClientCAFiles: common.TLSClientCAs,
			Names: func() ([]string, error) { return certNames(listeners, common.TLSNames) },
			Log:   log, Registerer: env.Metrics,
		})
		if err != nil {
			return nil, fmt.Errorf("certificates: %w", err)
		}
		env.Health.Check("certificates", func() (string, string) {
			if err := env.Certs.Fault(); err != nil {
				return "", err.Error()
			}
			return "", ""
		})
	}
	env.Audit, err = audit.Open(audit.Config{
		File: common.AuditPath(), MaxBytes: common.AuditMaxBytes, Keep: common.AuditKeep, Log: log, Registerer: env.Metrics,
	})
	if err != nil {
		return nil, err
	}
	starting, err := env.opsRouter()
	if err == nil {
		env.opsNow.Store(starting)
		env.Ops, err = env.opsRouter()
	}
	if err != nil {
		return nil, errors.Join(err, env.Audit.Close())
	}
	return env, nil
}

func (e *Env) opsRouter() (Router, error) {
	limits := opsLimits()
	r, err := e.Router("ops", func() httpx.Limits { return limits })
	if err != nil {
		return nil, err
	}
	r.Use(e.guardOps)
	ops.Mount(r, e.Health, e.Metrics, e.Common.Dev)
	return r, nil
}

// serveOps serves a request with the router in use.
func (e *Env) serveOps(w http.ResponseWriter, r *http.Request) { e.opsNow.Load().ServeHTTP(w, r) }

// certNames returns the names a certificate is for: those of listen addresses, of public URLs, and further ones.
func certNames(listeners, further []string) ([]string, error) {
	names := slices.Clone(further)
	var addrs []string
	for _, l := range listeners {
		if u, err := url.Parse(l); err == nil && u.Host != "" {
			names = append(names, u.Hostname())
		} else if l != "" {
			addrs = append(addrs, l)
		}
	}
	return pki.Names(addrs, names)
}

func opsLimits() httpx.Limits { return httpx.Limits{Connections: 256}.WithDefaults() }

// Router returns the router of a listener, which trusts the configured proxies, also those of a reload. The error is always nil.
func (e *Env) Router(name string, limits func() httpx.Limits) (Router, error) {
	r := httpx.NewRouter(name, e.Log, e.HTTP, limits)
	httpx.TrustProxies(r, &e.proxies)
	return r, nil
}

// Listen binds a listener, with TLS except in development mode. addr is the value of the setting name.listen.
func (e *Env) Listen(name, addr string, router Router, limits httpx.Limits) (*httpx.Server, error) {
	bind, err := e.Common.Listen(name+".listen", addr)
	if err != nil {
		return nil, err
	}
	return e.listen(name, bind, router, limits, e.Certs != nil)
}

func (e *Env) listen(name, bind string, handler http.Handler, limits httpx.Limits, encrypted bool) (*httpx.Server, error) {
	var srv *httpx.Server
	var err error
	if encrypted {
		srv, err = httpx.Listen(name, bind, e.Tracer.Wrap(name, handler), limits, e.Certs.ServerConfig(), e.Log)
	} else {
		srv, err = httpx.Listen(name, bind, e.Tracer.Wrap(name, handler), limits, nil, e.Log)
	}
	if err != nil {
		return nil, err
	}
	e.Health.Listener(name, srv.URL())
	e.Health.Bound(srv.Addr().AddrPort())
	return srv, nil
}

// SetGuard sets the guard of the callers, also for the operations listener, which serves only health and metrics until then. The guard
// follows reloads from then on. Call SetGuard while the program is built.
func (e *Env) SetGuard(g *identity.Guard) {
	e.guard = g
	require := g.Require("ops", identity.ScopeOps)
	e.opsGuard.Store(&require)
}

// openOnLoopback holds the resources of the operations listener for which callers on this machine need no token.
var openOnLoopback = map[string]bool{"/healthz": true, "/readyz": true, "/metrics": true}

// guardOps is the middleware of the operations listener.
func (e *Env) guardOps(c *gin.Context) {
	if e.Common.Dev || openOnLoopback[c.Request.URL.Path] && identity.Loopback(c) {
		c.Next()
		return
	}
	require := e.opsGuard.Load()
	if require == nil {
		httpx.Fail(c, errs.New(errs.Unavailable, "the platform is starting").After(time.Second))
		return
	}
	(*require)(c)
}

// reopen reads or opens files again that others may have replaced.
func (e *Env) reopen() {
	if err := e.Audit.Reopen(); err != nil {
		e.Log.Error("the audit file cannot be opened again, the present one stays in use", "error", err)
	}
	if e.Certs != nil {
		_ = e.Certs.Reload() // faults are logged
	}
}

// onLoopback reports whether a listen address is reachable only from this machine.
func onLoopback(bind string) bool {
	host, _, err := net.SplitHostPort(bind)
	if err != nil {
		return false
	}
	a, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && a.IsLoopback()
}
