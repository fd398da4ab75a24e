package rest

import (
	"net/http"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/gin-gonic/gin"

	"github.com/openmep/mep/api/gateway"
	"github.com/openmep/mep/gateway/book"
	"github.com/openmep/mep/kit/errs"
	"github.com/openmep/mep/kit/httpx"
	"github.com/openmep/mep/kit/query"
)

func (a *API) listRoutes(c *gin.Context) error {
	p, err := query.ReadFilled(c, "kind", "service", "source", "limit", "after")
	if err != nil {
		return err
	}
	kind := p.OneOf("kind", "", gateway.KindPlatform, gateway.KindService, gateway.KindInstance, gateway.KindStatic)
	source := p.OneOf("source", "", "registry", sourceConfiguration, sourceManagement, "platform")
	service, at := p.Get("service"), p.Page()
	if err := p.Err(); err != nil {
		return err
	}
	rest := matches(a.Server.Routes(at.After), func(r *gateway.RouteView) bool {
		return (kind == "" || r.Kind == kind) && (source == "" || r.Source == source) && (service == "" || r.Service == service)
	})
	return httpx.JSON(c, http.StatusOK, some(c, p, at, "/routes", rest, func(r *gateway.RouteView) string { return r.ID }))
}

func (a *API) getRoute(c *gin.Context) error {
	if err := httpx.NoQuery(c); err != nil {
		return err
	}
	id := c.Param("id")
	def, err := a.Book.Routes.Get(id)
	if err == nil {
		httpx.SetETag(c, def.ETag())
		return httpx.JSON(c, http.StatusOK, a.route(def))
	}
	view, ok := a.Server.Route(id)
	if !ok {
		return errs.New(errs.NotFound, "there is no route %s", query.Quote(id))
	}
	return httpx.JSON(c, http.StatusOK, view)
}

// route returns the gateway's view of a route definition. A definition that the gateway has never used is shown as it is stored.
func (a *API) route(def *book.Definition[gateway.Route]) *gateway.RouteView {
	if view, ok := a.Server.Route(def.ID); ok {
		return view
	}
	r := def.Value
	return &gateway.RouteView{
		ID: def.ID, Kind: gateway.KindStatic, Source: sourceManagement, Hosts: r.Hosts, Paths: r.Paths, Methods: r.Methods, Headers: r.Headers,
		Service: r.Service, Policy: def.ID, Definition: &r, Refused: "the gateway has no such route in use",
	}
}

func (a *API) putRoute(c *gin.Context) (string, error) {
	if err := httpx.NoQuery(c); err != nil {
		return "", err
	}
	id := c.Param("id")
	route := gateway.Route{}
	if err := httpx.BodyFunc(c, &route, func(faults *faults) {
		if route.ID != "" && route.ID != id {
			faults.Add("id", "must be that of the path, "+query.Quote(id)+", or absent")
		}
		route.ID = id
		route.Check(faults)
	}); err != nil {
		return "", err
	}
	if view, ok := a.Server.Route(id); ok && view.Source == sourceConfiguration {
		return "", errs.New(errs.Conflict, "the route %s is one of the gateway's configuration, which wins: change it there, or choose another id", id)
	}
	ctx := c.Request.Context()
	def, created, err := a.Book.Routes.Put(ctx, id, route, func(d *book.Definition[gateway.Route]) error { return ifMatch(c, etagOf(d)) })
	if err != nil {
		return "", err
	}
	if err := a.served(ctx, def.Revision); err != nil {
		return "", err
	}
	view := a.route(def)
	return outcome(view.Refused), put(c, def.ETag(), created, view)
}

// outcome returns the audit detail for a definition that was stored.
func outcome(refused string) string {
	if refused == "" {
		return ""
	}
	return "stored, and not used: " + refused
}

func etagOf[V any](d *book.Definition[V]) string {
	if d == nil {
		return ""
	}
	return d.ETag()
}

// ifMatch returns an error if the preconditions of the request (RFC 9110 13.1) do not hold; etag is "" if there is no definition yet.
func ifMatch(c *gin.Context, etag string) error {
	if c.Request.Header.Get("If-None-Match") == "*" && etag != "" {
		return errs.New(errs.PreconditionFailed, "If-None-Match does not hold: there is one already, with the entity-tag %s", etag)
	}
	if etag == "" && len(c.Request.Header.Values("If-Match")) > 0 {
		return errs.New(errs.PreconditionFailed, "If-Match does not hold: there is none")
	}
	return httpx.IfMatch(c, etag)
}

func put(c *gin.Context, etag string, created bool, view any) error {
	httpx.SetETag(c, etag)
	if created {
		c.Header("Location", c.Request.URL.EscapedPath())
		return httpx.JSON(c, http.StatusCreated, view)
	}
	return httpx.JSON(c, http.StatusOK, view)
}

func (a *API) deleteRoute(c *gin.Context) (string, error) {
	if err := httpx.NoQuery(c); err != nil {
		return "", err
	}
	return "", drop(a, c, a.Book.Routes, c.Param("id"))
}

// drop deletes a definition, and responds when the gateway no longer uses it.
func drop[V any](a *API, c *gin.Context, all *book.Definitions[V], id string) error {
	ctx := c.Request.Context()
	revision, err := all.Delete(ctx, id, func(d *book.Definition[V]) error { return ifMatch(c, d.ETag()) })
	if err != nil {
		return err
	}
	if err := a.served(ctx, revision); err != nil {
		return err
	}
	httpx.NoContent(c)
	return nil
}

func (a *API) listPolicies(c *gin.Context) error {
	return whole(c, "/policies", a.Server.Policies, func(v gateway.PolicyView) string { return v.Name })
}

func (a *API) getPolicy(c *gin.Context) error {
	if err := httpx.NoQuery(c); err != nil {
		return err
	}
	name := c.Param("name")
	def, err := a.Book.Policies.Get(name)
	if err == nil {
		httpx.SetETag(c, def.ETag())
		return httpx.JSON(c, http.StatusOK, a.policy(def))
	}
	view, ok := a.Server.Policy(name)
	if !ok {
		return errs.New(errs.NotFound, "there is no policy %s", query.Quote(name))
	}
	return httpx.JSON(c, http.StatusOK, view)
}

// policy returns the gateway's view of a policy definition. A definition that the gateway has never used is shown as it is stored.
func (a *API) policy(def *book.Definition[gateway.Policy]) *gateway.PolicyView {
	if view, ok := a.Server.Policy(def.ID); ok {
		return view
	}
	return &gateway.PolicyView{Name: def.ID, Source: sourceManagement, Policy: def.Value, Refused: "the gateway has no such policy in use"}
}

// maxName is the maximum length of the name of a policy in characters, as for a serName.
const maxName = 255

func (a *API) putPolicy(c *gin.Context) (string, error) {
	if err := httpx.NoQuery(c); err != nil {
		return "", err
	}
	name := c.Param("name")
	policy := gateway.Policy{}
	if err := httpx.BodyFunc(c, &policy, func(faults *faults) {
		if utf8.RuneCountInString(name) > maxName || !utf8.ValidString(name) || strings.ContainsFunc(name, unicode.IsControl) {
			faults.Add("name", "must be a serName, \"*\" or the id of a platform route, not "+query.Quote(name))
		}
		policy.CheckFor(name, faults)
	}); err != nil {
		return "", err
	}
	if view, ok := a.Server.Policy(name); ok && view.Source == sourceConfiguration {
		return "", errs.New(errs.Conflict, "the policy %s is one of the gateway's configuration, which wins: change it there", query.Quote(name))
	}
	ctx := c.Request.Context()
	def, created, err := a.Book.Policies.Put(ctx, name, policy, func(d *book.Definition[gateway.Policy]) error { return ifMatch(c, etagOf(d)) })
	if err != nil {
		return "", err
	}
	if err := a.served(ctx, def.Revision); err != nil {
		return "", err
	}
	view := a.policy(def)
	return outcome(view.Refused), put(c, def.ETag(), created, view)
}

func (a *API) deletePolicy(c *gin.Context) (string, error) {
	if err := httpx.NoQuery(c); err != nil {
		return "", err
	}
	return "", drop(a, c, a.Book.Policies, c.Param("name"))
}
