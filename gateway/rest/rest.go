// Package rest serves the HTTP management API of the gateway: routes, policies, API keys, access requests, and the state of the gateway.
package rest

import (
	"context"
	"iter"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/openmep/mep/api/gateway"
	"github.com/openmep/mep/gateway/book"
	"github.com/openmep/mep/kit/audit"
	"github.com/openmep/mep/kit/errs"
	"github.com/openmep/mep/kit/etcd"
	"github.com/openmep/mep/kit/httpx"
	"github.com/openmep/mep/kit/identity"
)

// Server is the gateway.
type Server interface {
	// Routes returns the routes whose ids sort after the given id, in the order of their ids, including routes whose definition is refused;
	// "" sorts before all ids.
	Routes(after string) iter.Seq[*gateway.RouteView]
	// Route returns the route with the given id.
	Route(id string) (*gateway.RouteView, bool)
	// Policies returns the policies, including those whose definition is refused.
	Policies() []gateway.PolicyView
	// Policy returns the policy with the given name.
	Policy(name string) (*gateway.PolicyView, bool)
	// Upstreams returns the targets of the routes.
	Upstreams() []gateway.TargetView
	// Explain says what would happen to a call. The request has passed Check.
	Explain(ctx context.Context, req gateway.ExplainRequest) (*gateway.Explanation, error)
	// Status returns the status of the gateway.
	Status() gateway.Status
	// Statistics returns the counts of calls that the query selects.
	Statistics(ctx context.Context, q StatisticsQuery) (*gateway.Statistics, error)
	// Quotas returns the use of the quotas of a route and a consumer; "" stands for all of them.
	Quotas(ctx context.Context, route, consumer string) ([]gateway.QuotaUse, error)
	// Served waits until the routes and policies in use reflect the given etcd revision.
	Served(ctx context.Context, revision int64) error
}

// API holds the dependencies of the handlers.
type API struct {
	// Book reads and changes the stored definitions.
	Book *book.Book
	// Server is the gateway that the definitions apply to.
	Server Server
	// Audit records changes and who made them.
	Audit *audit.Log
}

// The sources of routes and policies, as in gateway.RouteView.Source.
const (
	sourceConfiguration = "configuration"
	sourceManagement    = "management"
)

// Mount adds the resources, including the access requests. Every client that can reach them may manage the gateway.
func (a *API) Mount(r gin.IRouter) {
	g := r.Group(gateway.Base)
	g.GET("/routes", httpx.Handle(a.listRoutes))
	g.GET("/routes/:id", httpx.Handle(a.getRoute))
	g.PUT("/routes/:id", identity.Audited(a.Audit, "gateway.route.put", "id", a.putRoute))
	g.DELETE("/routes/:id", identity.Audited(a.Audit, "gateway.route.delete", "id", a.deleteRoute))
	g.GET("/policies", httpx.Handle(a.listPolicies))
	g.GET("/policies/:name", httpx.Handle(a.getPolicy))
	g.PUT("/policies/:name", identity.Audited(a.Audit, "gateway.policy.put", "name", a.putPolicy))
	g.DELETE("/policies/:name", identity.Audited(a.Audit, "gateway.policy.delete", "name", a.deletePolicy))
	g.POST("/api_keys", identity.Audited(a.Audit, "gateway.api_key.create", "", a.createKey))
	g.GET("/api_keys", httpx.Handle(a.listKeys))
	g.GET("/api_keys/:id", httpx.Handle(a.getKey))
	g.DELETE("/api_keys/:id", identity.Audited(a.Audit, "gateway.api_key.delete", "id", a.deleteKey))
	g.POST("/explain", httpx.Handle(a.explain))
	g.GET("/statistics", httpx.Handle(a.statistics))
	g.GET("/quotas", httpx.Handle(a.quotas))
	g.GET("/upstreams", httpx.Handle(a.upstreams))
	g.GET("/status", httpx.Handle(a.status))
	g.GET("/export", httpx.Handle(a.export))
	a.MountAccess(r, func(c *gin.Context) (string, bool) { return identity.Subject(c), true })
}

// MountAccess adds the access requests. who returns the caller of a request, "" if it is anonymous, and reports whether it is a manager.
func (a *API) MountAccess(r gin.IRouter, who func(*gin.Context) (subject string, manager bool)) {
	x := &access{api: a, who: who}
	g := r.Group(gateway.Base + "/access_requests")
	g.POST("", identity.Audited(a.Audit, "gateway.access.apply", "", x.apply))
	g.GET("", httpx.Handle(x.list))
	g.GET("/:id", httpx.Handle(x.get))
	g.PUT("/:id", identity.Audited(a.Audit, "gateway.access.decide", "id", x.decide))
	g.DELETE("/:id", identity.Audited(a.Audit, "gateway.access.delete", "id", x.delete))
}

// served waits until a stored change takes effect in the gateway, so that a success response means that it is in force.
func (a *API) served(ctx context.Context, revision int64) error {
	ctx, cancel := context.WithTimeout(ctx, etcd.DefaultTimeout)
	defer cancel()
	err := a.Server.Served(ctx, revision)
	if err == nil {
		return nil
	}
	return errs.Wrap(errs.Unavailable, err, "the change is stored, but the gateway does not work by it yet: read it back").After(time.Second)
}
