// Package mp1 is the HTTP interface at the Mp1 reference point: the MEC service management and application support APIs
// of ETSI GS MEC 011 V3.1.1.
//
// Handlers decode requests, call the domain and render responses. They know nothing of etcd.
package mp1

import (
	"net/http"

	"github.com/gin-gonic/gin"

	"github.com/openmep/mep/kit/httpx"
	"github.com/openmep/mep/kit/identity"
	"github.com/openmep/mep/mepserver/apps"
	"github.com/openmep/mep/mepserver/lifecycle"
	"github.com/openmep/mep/mepserver/liveness"
	"github.com/openmep/mep/mepserver/registration"
	"github.com/openmep/mep/mepserver/registry"
	"github.com/openmep/mep/mepserver/subscription"
	"github.com/openmep/mep/mepserver/termination"
	"github.com/openmep/mep/mepserver/timing"
)

// API holds what the handlers need.
type API struct {
	// Own admits only the app instance named in the path to the resources below it.
	Own gin.HandlerFunc
	// Apps, Registry, Book and Monitor are the domain of service management.
	Apps     *apps.Directory
	Registry *registry.Registry
	Book     *subscription.Book
	Monitor  *liveness.Monitor
	// Lifecycle, Termination, Registrations and Clock are the domain of application support.
	Lifecycle     *lifecycle.Manager
	Termination   *termination.Book
	Registrations *registration.Book
	Clock         *timing.Clock
	// Policy returns the current policy for registrations.
	Policy func() registry.Policy
	// PublicURL returns the base of hrefs; if it returns "", they start with the scheme and host of the request.
	PublicURL func() string
	// Gateway returns the gateway shown to consumers in place of service endpoints; the zero value shows the endpoints.
	Gateway func() registry.Gateway
	// OwnURL is the base of hrefs if PublicURL returns "" and the request names no usable host.
	OwnURL string
	// EdgeGalleryPrefix is the mount prefix under which a serInstanceId in a registration is ignored, as EdgeGallery does.
	EdgeGalleryPrefix string

	lists listCache
}

// Mount adds the API to a router below each of the prefixes ("" for none).
func (a *API) Mount(r *gin.Engine, prefixes []string) {
	for _, prefix := range prefixes {
		m := &mount{API: a, prefix: prefix}
		g := r.Group(prefix + registry.APIRoot)
		get(g, "/services", m.discover)
		get(g, "/services/:serviceId", m.service)
		get(g, "/transports", m.transports)

		app := g.Group("/applications/:appInstanceId", a.Own, httpx.Handle(m.appExists))
		get(app, "/services", m.ownServices)
		app.POST("/services", httpx.Handle(m.register))
		get(app, "/services/:serviceId", m.ownService)
		app.PUT("/services/:serviceId", httpx.Handle(m.replace))
		app.DELETE("/services/:serviceId", httpx.Handle(m.remove))
		get(app, "/services/:serviceId/liveness", m.livenessInfo)
		app.PATCH("/services/:serviceId/liveness", httpx.Handle(m.heartbeat))
		app.PUT("/services/:serviceId/liveness", httpx.Handle(m.heartbeat))
		get(app, "/subscriptions", m.subscriptions)
		app.POST("/subscriptions", httpx.Handle(m.subscribe))
		get(app, "/subscriptions/:subscriptionId", m.subscription)
		app.DELETE("/subscriptions/:subscriptionId", httpx.Handle(m.unsubscribe))

		for _, root := range supportRoots {
			s := &support{mount: m, root: root}
			s.mountOn(r.Group(prefix + root))
		}
	}
}

// get registers a handler for GET and HEAD; net/http omits the body for HEAD.
func get(g *gin.RouterGroup, path string, h httpx.Handler) {
	g.GET(path, httpx.Handle(h))
	g.HEAD(path, httpx.Handle(h))
}

// mount is the API below one prefix.
type mount struct {
	*API
	prefix string
}

// base returns the base of the hrefs in a response.
func (m *mount) base(c *gin.Context) string {
	return httpx.BaseURL(c, m.PublicURL(), m.OwnURL) + m.prefix
}

// appExists rejects every request below the path of an app instance that does not exist.
func (m *mount) appExists(c *gin.Context) error {
	return m.Apps.Exists(appID(c))
}

func appID(c *gin.Context) string     { return identity.CanonicalID(c.Param("appInstanceId")) }
func serviceID(c *gin.Context) string { return c.Param("serviceId") }

// reader returns the caller as a reader of services, the zero value if the request is not authenticated.
func (m *mount) reader(c *gin.Context) apps.Reader {
	if caller := identity.Of(c); caller != nil {
		return m.Apps.Reader(caller.Subject)
	}
	return apps.Reader{}
}

// ifMatch returns a precondition that checks the request's If-Match, if any, against the entity-tag of the service.
func ifMatch(c *gin.Context) registry.Precondition {
	return func(item *registry.Item) error { return httpx.IfMatch(c, item.Value.ETag()) }
}

func (m *mount) transports(c *gin.Context) error {
	if err := httpx.NoQuery(c); err != nil {
		return err
	}
	return httpx.JSON(c, http.StatusOK, m.Policy().Transports)
}
