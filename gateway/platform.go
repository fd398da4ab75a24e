package gateway

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"

	"github.com/gin-gonic/gin"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/openmep/mep/api/gateway"
	"github.com/openmep/mep/gateway/call"
	"github.com/openmep/mep/gateway/follow"
	"github.com/openmep/mep/gateway/rest"
	"github.com/openmep/mep/gateway/upstream"
	"github.com/openmep/mep/kit/httpx"
	"github.com/openmep/mep/kit/identity"
	"github.com/openmep/mep/kit/netguard"
)

// accessRouter returns the handler of the gateway's own resources for apps.
func (g *Gateway) accessRouter() (http.Handler, error) {
	limits := managementLimits()
	router, err := g.env.Router("gateway", func() httpx.Limits { return limits })
	if err != nil {
		return nil, err
	}
	router.Use(g.node.Gate(), func(c *gin.Context) {
		if caller := call.Of(c.Request).Caller; caller != nil {
			c.Set(httpx.CallerKey, caller)
		}
	})
	(&rest.API{Book: g.book, Server: &server{g}, Audit: g.env.Audit}).MountAccess(router, func(c *gin.Context) (string, bool) {
		subject := identity.Subject(c)
		return subject, subject == "" && g.common.Dev
	})
	return router, nil
}

// platform returns the routes to the platform itself.
func (g *Gateway) platform(cfg *Config) []follow.Platform {
	list := []follow.Platform{{
		ID: gateway.RouteAccess, Paths: []string{gateway.Base + "/access_requests", gateway.Base + "/access_requests/*"}, Local: g.access, Guarded: true,
	}}
	auth := follow.Platform{
		ID: gateway.RouteAuth, Local: g.options.Auth, URLs: cfg.AuthURLs,
		Paths: []string{"/mep/token", "/mep/appMng/**", "/oauth2/**", "/.well-known/**"},
	}
	mp1 := follow.Platform{ID: gateway.RouteMp1, Local: g.options.Mp1, URLs: cfg.Mp1URLs}
	prefixes := g.options.Prefixes
	if prefixes == nil {
		prefixes = []string{"", "/mep"}
	}
	for _, p := range prefixes {
		mp1.Paths = append(mp1.Paths, p+"/mec_service_mgmt/**", p+"/mec_app_support/**")
	}
	for _, p := range []follow.Platform{auth, mp1} {
		if p.Local == nil {
			if len(p.URLs) == 0 {
				continue
			}
			p.Upstream = g.inner
		}
		list = append(list, p)
	}
	return list
}

// reachPlatform makes the upstreams for calls to the other daemons.
func (g *Gateway) reachPlatform(cfg *Config) error {
	uc, err := g.reaching(cfg)
	if err != nil {
		return err
	}
	// In the common registry, its metrics would count as those of services.
	g.inner, err = upstream.New(uc, g.env.Log, prometheus.NewRegistry())
	return err
}

// reaching returns how the other daemons are called. Only the configuration says where they are, so no address is refused.
func (g *Gateway) reaching(cfg *Config) (upstream.Config, error) {
	uc := upstream.Config{Guard: func() *netguard.Policy { return nil }, MaxIdlePerHost: cfg.UpstreamIdle}
	if len(cfg.Mp1URLs) == 0 && len(cfg.AuthURLs) == 0 {
		return uc, nil
	}
	file := cfg.PlatformCA
	if file == "" {
		file = filepath.Join(g.common.PKIDir(), "ca.crt")
	}
	pem, err := os.ReadFile(file)
	switch {
	case err == nil:
		if uc.RootCAs, err = x509.SystemCertPool(); err != nil {
			uc.RootCAs = x509.NewCertPool()
		}
		if !uc.RootCAs.AppendCertsFromPEM(pem) {
			return uc, fmt.Errorf("gateway.platformCa: %s holds no certificate", file)
		}
	case cfg.PlatformCA != "" || !errors.Is(err, os.ErrNotExist):
		return uc, fmt.Errorf("gateway.platformCa: %w", err)
	}
	return uc, nil
}
