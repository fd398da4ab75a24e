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
)

func (a *API) listRoutes(c *gin.Context) error {
	p, err := query(c, "kind", "service", "source", "limit", "after")
	if err != nil {
		return err
	}
	kind := p.oneOf("kind", "", gateway.KindPlatform, gateway.KindService, gateway.KindInstance, gateway.KindStatic)
	source := p.oneOf("source", "", "registry", sourceConfiguration, sourceManagement, "platform")
	service, at := p.get("service"), p.page()
	if err := p.err(); err != nil {
		return err
	}
	rest := matches(a.Server.Routes(at.after), func(r *gateway.RouteView) bool {
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
		return errs.New(errs.NotFound, "there is no route %s", quote(id))
	}
	return httpx.JSON(c, http.StatusOK, view)
}

// route is what the gateway makes of the definition of a route. One that it has never used is shown as it is defined.
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
			faults.Add("id", "must be that of the path, "+quote(id)+", or absent")
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

// outcome is what the audit stream says of a definition that was stored.
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

// put answers a PUT.
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

// drop removes a definition, and answers when the gateway has forgotten it.
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
	p, err := query(c, "limit", "after")
	if err != nil {
		return err
	}
	at := p.page()
	if err := p.err(); err != nil {
		return err
	}
	place := func(v gateway.PolicyView) string { return v.Name }
	return httpx.JSON(c, http.StatusOK, some(c, p, at, "/policies", sorted(a.Server.Policies(), at.after, place), place))
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
		return errs.New(errs.NotFound, "there is no policy %s", quote(name))
	}
	return httpx.JSON(c, http.StatusOK, view)
}

// policy is what the gateway makes of the definition of a policy. One that it has never used is shown as it is defined.
func (a *API) policy(def *book.Definition[gateway.Policy]) *gateway.PolicyView {
	if view, ok := a.Server.Policy(def.ID); ok {
		return view
	}
	return &gateway.PolicyView{Name: def.ID, Source: sourceManagement, Policy: def.Value, Refused: "the gateway has no such policy in use"}
}

// maxName is how long the name of a policy is at most, in characters: what a serName may have.
const maxName = 255

func (a *API) putPolicy(c *gin.Context) (string, error) {
	if err := httpx.NoQuery(c); err != nil {
		return "", err
	}
	name := c.Param("name")
	policy := gateway.Policy{}
	if err := httpx.BodyFunc(c, &policy, func(faults *faults) {
		if utf8.RuneCountInString(name) > maxName || !utf8.ValidString(name) || strings.ContainsFunc(name, unicode.IsControl) {
			faults.Add("name", "must be a serName, \"*\" or the id of a platform route, not "+quote(name))
		}
		policy.Check(faults)
	}); err != nil {
		return "", err
	}
	if view, ok := a.Server.Policy(name); ok && view.Source == sourceConfiguration {
		return "", errs.New(errs.Conflict, "the policy %s is one of the gateway's configuration, which wins: change it there", quote(name))
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
