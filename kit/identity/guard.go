package identity

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net/netip"
	"strings"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/openmep/mep/kit/audit"
	"github.com/openmep/mep/kit/errs"
	"github.com/openmep/mep/kit/httpx"
	"github.com/openmep/mep/kit/limit"
)

// Guard decides which callers listeners let in.
type Guard struct {
	verifier *Verifier
	// open lets in callers that do not authenticate.
	open      bool
	strangers *limit.Limiter
	audit     *audit.Log
	checks    *prometheus.CounterVec
}

// How many tokens not seen before are verified for each client address: verifying one takes as long as answering several requests.
const (
	strangersPerSecond = 500
	strangersBurst     = 2000
)

// NewGuard returns a guard. With open, as in development mode, requests without a token are let in; a token that is sent is still checked.
func NewGuard(cfg *Config, dir *Directory, open bool, trail *audit.Log, log *slog.Logger, reg prometheus.Registerer) (*Guard, error) {
	v, err := NewVerifier(cfg, dir, log)
	if err != nil {
		return nil, err
	}
	g := &Guard{
		verifier: v, open: open, audit: trail,
		strangers: limit.New(limit.Config{Rate: strangersPerSecond, Burst: strangersBurst}),
		checks: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "mep_auth_checks_total",
			Help: "Requests whose caller was looked at, by listener and result: token, certificate, open (nobody had to say), missing, refused, scope, foreign (another application instance), limited, unavailable.",
		}, []string{"listener", "result"}),
	}
	reg.MustRegister(g.checks, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "mep_auth_tokens_remembered", Help: "Verified tokens that are remembered.",
	}, func() float64 { return float64(v.cache.size.Load()) }))
	return g, nil
}

// Run keeps the keys of the trusted issuers fresh until ctx ends.
func (g *Guard) Run(ctx context.Context) error { return g.verifier.Run(ctx) }

// Prepare does all that can fail with new settings, certificate rules included, and returns a function that applies them from the next
// request on every connection: see Verifier.Prepare.
func (g *Guard) Prepare(cfg *Config) (apply func(), err error) { return g.verifier.Prepare(cfg) }

// Verifier returns the verifier for tokens outside of requests.
func (g *Guard) Verifier() *Verifier { return g.verifier }

// Require returns the middleware of a listener that lets in callers with the scope.
func (g *Guard) Require(listener, scope string) gin.HandlerFunc {
	results := make(map[string]prometheus.Counter)
	for _, r := range []string{"token", "certificate", "open", "missing", "refused", "scope", "limited", "unavailable"} {
		results[r] = g.checks.WithLabelValues(listener, r)
	}
	return func(c *gin.Context) {
		caller, err := g.identify(c)
		switch {
		case err != nil:
			results[g.refused(c, listener, scope, err)].Inc()
			return
		case caller == nil:
			results["open"].Inc()
		case !caller.Has(scope):
			results["scope"].Inc()
			g.deny(c, listener, caller, "the scope "+scope+" is missing")
			challenge(c, scope, refuse(codeScope, "this needs the scope "+scope+", and the caller has "+heldScopes(caller)))
			return
		default:
			results[caller.Via].Inc()
			c.Set(httpx.CallerKey, caller)
		}
		c.Next()
	}
}

func heldScopes(c *Caller) string {
	if len(c.Scopes) == 0 {
		return "none"
	}
	return strings.Join(c.Scopes, " ")
}

// identify returns the caller; nil, nil if none is known and that is allowed.
func (g *Guard) identify(c *gin.Context) (*Caller, error) {
	headers := c.Request.Header["Authorization"]
	if len(headers) == 0 {
		caller, err := g.Certificate(c.Request.TLS)
		if caller != nil || err != nil || g.open {
			return caller, err
		}
		return nil, refuse("", "there is no token: send one as Authorization: Bearer TOKEN")
	}
	token, err := Bearer(headers)
	if err != nil {
		return nil, err
	}
	return g.Token(c.Request.Context(), token, httpx.ClientAddr(c))
}

// Certificate returns the caller that the connection's client certificate stands for; nil, nil if there is none. The error is a
// *Refusal.
func (g *Guard) Certificate(conn *tls.ConnectionState) (*Caller, error) {
	caller := certificateCaller(g.verifier.trust.Load().rules, conn)
	// A connection may outlive the certificate it was opened with.
	if caller != nil && g.verifier.now().After(caller.Expires) {
		return nil, refuse(codeToken, "the client certificate has expired: connect with a new one")
	}
	return caller, nil
}

// Token returns the caller that a token stands for; from is the client's address. The error is a *Refusal, or of the kind
// errs.TooManyRequests, or errs.Unavailable when tokens cannot be judged at present.
func (g *Guard) Token(ctx context.Context, token string, from netip.Addr) (*Caller, error) {
	if !g.verifier.dir.ready() {
		return nil, errs.New(errs.Unavailable, "the platform is starting").After(time.Second)
	}
	caller, err := g.verifier.Recall(token)
	if caller == nil && err == nil {
		if ok, after := g.strangers.Allow(limit.Source(from)); !ok {
			return nil, errs.New(errs.TooManyRequests, "too many new tokens come from this address").After(after)
		}
		caller, err = g.verifier.Verify(ctx, token)
	}
	if err != nil {
		return nil, err
	}
	if caller.ClientAddress != "" && caller.ClientAddress != from.String() {
		return nil, refuse(codeToken, "the token is bound to another client address")
	}
	return caller, nil
}

// Bearer returns the token in the Authorization header fields of a request (RFC 6750 2.1). The error is a *Refusal.
func Bearer(fields []string) (string, error) {
	if len(fields) > 1 {
		return "", refuse(codeRequest, "there are several Authorization header fields")
	}
	return bearer(fields[0])
}

// bearer returns the token in the header field (RFC 6750 2.1).
func bearer(value string) (string, error) {
	scheme, token, _ := strings.Cut(value, " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return "", refuse("", "there is no token: the Authorization header field must be: Bearer TOKEN")
	}
	return strings.Trim(token, " "), nil // verification shows whether it is well-formed
}

// refused responds to a request whose caller is refused, and returns the result to count in the metric.
func (g *Guard) refused(c *gin.Context, listener, scope string, err error) string {
	r, ok := errors.AsType[*Refusal](err)
	if !ok {
		httpx.Fail(c, err)
		if errors.Is(err, errs.TooManyRequests) {
			return "limited"
		}
		return "unavailable"
	}
	if r.Code != "" {
		g.deny(c, listener, nil, r.Description)
	}
	challenge(c, scope, r)
	if r.Code == "" {
		return "missing"
	}
	return "refused"
}

func (g *Guard) deny(c *gin.Context, listener string, caller *Caller, why string) {
	e := audit.Entry{
		Action: "access.deny", Result: "denied", Source: httpx.ClientAddr(c).String(), Target: c.Request.Method + " " + c.Request.URL.Path,
		RequestID: httpx.RequestID(c), Detail: why, Listener: audit.Listener(c.Request.Context(), listener),
	}
	if caller != nil {
		e.Caller, e.Client, e.Via = caller.Subject, caller.ClientID, caller.Via
	}
	g.audit.Busy(e)
}

// Own returns the middleware of a resource tree that belongs to the application instance named by the path parameter. Other callers
// get the same response whether the instance exists or not.
func (g *Guard) Own(listener, param string) gin.HandlerFunc {
	foreign := g.checks.WithLabelValues(listener, "foreign")
	return func(c *gin.Context) {
		caller := Of(c)
		if caller == nil || CanonicalID(c.Param(param)) == caller.Subject {
			c.Next()
			return
		}
		foreign.Inc()
		g.deny(c, listener, caller, "the resource belongs to another application instance")
		httpx.Fail(c, errs.New(errs.Forbidden,
			"the resources of an application instance are its own: the token is for %q, the path names another", caller.Subject))
	}
}

// Loopback reports whether the request comes from this machine, over the loopback interface.
func Loopback(c *gin.Context) bool {
	from, err := netip.ParseAddrPort(c.Request.RemoteAddr)
	return err == nil && from.Addr().Unmap().IsLoopback()
}
