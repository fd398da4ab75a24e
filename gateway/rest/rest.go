// Package rest speaks HTTP for the management of the gateway: routes, policies, API keys, access requests, and what the gateway knows and
// does.
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
	// Routes walks over the routes it has, with those whose definition it refuses, in the order of their ids, from after an id on; "" is
	// before all of them.
	Routes(after string) iter.Seq[*gateway.RouteView]
	// Route finds one of them by its id.
	Route(id string) (*gateway.RouteView, bool)
	// Policies lists the policies it has, with those whose definition it refuses.
	Policies() []gateway.PolicyView
	// Policy finds one of them by its name.
	Policy(name string) (*gateway.PolicyView, bool)
	// Upstreams lists what its routes lead to.
	Upstreams() []gateway.TargetView
	// Explain says what would become of a call. The request has passed Check.
	Explain(ctx context.Context, req gateway.ExplainRequest) (*gateway.Explanation, error)
	// Status is what it says about itself.
	Status() gateway.Status
	// Statistics are the counts of calls that the query selects.
	Statistics(ctx context.Context, q StatisticsQuery) (*gateway.Statistics, error)
	// Quotas says what has been taken of the quotas of a route and of a consumer; "" stands for all of them.
	Quotas(ctx context.Context, route, consumer string) ([]gateway.QuotaUse, error)
	// Served waits until its routes and policies are made of what was stored at the revision of etcd.
	Served(ctx context.Context, revision int64) error
}

// API holds what the handlers need.
type API struct {
	// Book changes and finds what is stored.
	Book *book.Book
	// Server is the gateway that works by it.
	Server Server
	// Audit takes who changed what.
	Audit *audit.Log
}

// The sources of routes and policies, as gateway.RouteView.Source has them.
const (
	sourceConfiguration = "configuration"
	sourceManagement    = "management"
)

// Mount adds the resources, with the access requests. Whoever gets to them may manage the gateway.
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

// MountAccess adds the access requests. who says who makes a request, "" for somebody who proved nothing, and whether it is a manager.
func (a *API) MountAccess(r gin.IRouter, who func(*gin.Context) (subject string, manager bool)) {
	x := &access{api: a, who: who}
	g := r.Group(gateway.Base + "/access_requests")
	g.POST("", identity.Audited(a.Audit, "gateway.access.apply", "", x.apply))
	g.GET("", httpx.Handle(x.list))
	g.GET("/:id", httpx.Handle(x.get))
	g.PUT("/:id", identity.Audited(a.Audit, "gateway.access.decide", "id", x.decide))
	g.DELETE("/:id", identity.Audited(a.Audit, "gateway.access.delete", "id", x.delete))
}

// served waits until the gateway works by a change that is stored: what is answered with success is in force.
func (a *API) served(ctx context.Context, revision int64) error {
	ctx, cancel := context.WithTimeout(ctx, etcd.DefaultTimeout)
	defer cancel()
	err := a.Server.Served(ctx, revision)
	if err == nil {
		return nil
	}
	return errs.Wrap(errs.Unavailable, err, "the change is stored, but the gateway does not work by it yet: read it back").After(time.Second)
}
