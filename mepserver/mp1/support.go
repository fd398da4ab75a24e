package mp1

import (
	"net/http"

	"github.com/gin-gonic/gin"

	"github.com/openmep/mep/api/mp1"
	"github.com/openmep/mep/kit/httpx"
	"github.com/openmep/mep/kit/identity"
	"github.com/openmep/mep/mepserver/registration"
	"github.com/openmep/mep/mepserver/termination"
)

// supportRoots are the roots of the application support API: v2 in V3.1.1, v1 in earlier editions.
var supportRoots = []string{termination.APIRoot, "/mec_app_support/v1"}

// support is the application support API below one root.
type support struct {
	*mount
	root string
}

func (s *support) mountOn(g *gin.RouterGroup) {
	get(g, "/timing/current_time", s.currentTime)
	get(g, "/timing/timing_caps", s.timingCaps)

	g.POST("/registrations", httpx.Handle(s.register))
	own := g.Group("/registrations/:appInstanceId", s.Own)
	get(own, "", s.registration)
	own.PUT("", httpx.Handle(s.reregister))
	own.DELETE("", httpx.Handle(s.deregister))

	app := g.Group("/applications/:appInstanceId", s.Own, httpx.Handle(s.appExists))
	app.POST("/confirm_ready", httpx.Handle(s.confirmReady))
	app.POST("/confirm_termination", httpx.Handle(s.confirmTermination))
	get(app, "/subscriptions", s.subscriptions)
	app.POST("/subscriptions", httpx.Handle(s.subscribe))
	get(app, "/subscriptions/:subscriptionId", s.subscription)
	app.DELETE("/subscriptions/:subscriptionId", httpx.Handle(s.unsubscribe))
	get(app, "/traffic_rules", s.trafficRules)
	get(app, "/traffic_rules/:ruleId", s.trafficRule)
	app.PUT("/traffic_rules/:ruleId", httpx.Handle(s.changeTrafficRule))
	get(app, "/dns_rules", s.dnsRules)
	get(app, "/dns_rules/:ruleId", s.dnsRule)
	app.PUT("/dns_rules/:ruleId", httpx.Handle(s.changeDNSRule))
}

// base returns the base of the hrefs in a response.
func (s *support) base(c *gin.Context) string { return s.mount.base(c) + s.root }

func (s *support) currentTime(c *gin.Context) error {
	if err := httpx.NoQuery(c); err != nil {
		return err
	}
	c.Header("Cache-Control", "no-store")
	return httpx.JSON(c, http.StatusOK, s.Clock.Now())
}

func (s *support) timingCaps(c *gin.Context) error {
	if err := httpx.NoQuery(c); err != nil {
		return err
	}
	c.Header("Cache-Control", "no-store")
	return httpx.JSON(c, http.StatusOK, s.Clock.Caps())
}

func (s *support) confirmReady(c *gin.Context) error {
	if err := httpx.NoQuery(c); err != nil {
		return err
	}
	var body mp1.AppReadyConfirmation
	if err := httpx.Body(c, &body); err != nil {
		return err
	}
	if err := s.Lifecycle.Ready(c.Request.Context(), appID(c)); err != nil {
		return err
	}
	httpx.NoContent(c)
	return nil
}

func (s *support) confirmTermination(c *gin.Context) error {
	if err := httpx.NoQuery(c); err != nil {
		return err
	}
	var body mp1.AppTerminationConfirmation
	if err := httpx.Body(c, &body); err != nil {
		return err
	}
	if err := s.Lifecycle.Confirm(c.Request.Context(), appID(c), body.OperationAction); err != nil {
		return err
	}
	httpx.NoContent(c)
	return nil
}

func (s *support) subscriptions(c *gin.Context) error {
	if err := httpx.NoQuery(c); err != nil {
		return err
	}
	list := newLinkList(s.base(c), termination.ListPath(appID(c)), mp1.SubscriptionTypeAppTermination)
	for item := range s.Termination.Of(appID(c)) {
		list.add(item.Value.Path())
	}
	return list.write(c)
}

func (s *support) subscribe(c *gin.Context) error {
	if err := httpx.NoQuery(c); err != nil {
		return err
	}
	var sub mp1.AppTerminationNotificationSubscription
	if err := httpx.Body(c, &sub); err != nil {
		return err
	}
	sub.AppInstanceID = identity.CanonicalID(sub.AppInstanceID)
	item, err := s.Termination.Create(c.Request.Context(), appID(c), sub)
	if err != nil {
		return err
	}
	base := s.base(c)
	c.Header("Location", base+item.Value.Path())
	httpx.SetETag(c, item.Value.ETag)
	return httpx.JSON(c, http.StatusCreated, item.Value.Info(base))
}

func (s *support) subscription(c *gin.Context) error {
	if err := httpx.NoQuery(c); err != nil {
		return err
	}
	item, err := s.Termination.Get(appID(c), c.Param("subscriptionId"))
	if err != nil {
		return err
	}
	return tagged(c, item.Value.ETag, item.Value.Info(s.base(c)))
}

// tagged answers the GET of a resource that has an entity-tag.
func tagged(c *gin.Context, etag string, v any) error {
	if httpx.NotModified(c, etag) {
		return nil
	}
	httpx.SetETag(c, etag)
	return httpx.JSON(c, http.StatusOK, v)
}

func (s *support) unsubscribe(c *gin.Context) error {
	if err := httpx.NoQuery(c); err != nil {
		return err
	}
	pre := func(item *termination.Item) error { return httpx.IfMatch(c, item.Value.ETag) }
	if err := s.Termination.Delete(c.Request.Context(), appID(c), c.Param("subscriptionId"), pre); err != nil {
		return err
	}
	httpx.NoContent(c)
	return nil
}

func (s *support) register(c *gin.Context) error {
	if err := httpx.NoQuery(c); err != nil {
		return err
	}
	var info mp1.AppInfo
	if err := httpx.Body(c, &info); err != nil {
		return err
	}
	caller := ""
	if by := identity.Of(c); by != nil {
		caller = by.Subject
	}
	info.AppInstanceID = identity.CanonicalID(info.AppInstanceID)
	item, err := s.Registrations.Register(c.Request.Context(), caller, info)
	if err != nil {
		return err
	}
	c.Header("Location", s.base(c)+item.Value.Path())
	httpx.SetETag(c, item.Value.ETag)
	return httpx.JSON(c, http.StatusCreated, item.Value.Info)
}

func (s *support) registration(c *gin.Context) error {
	if err := httpx.NoQuery(c); err != nil {
		return err
	}
	item, err := s.Registrations.Get(appID(c))
	if err != nil {
		return err
	}
	return tagged(c, item.Value.ETag, item.Value.Info)
}

func unchanged(c *gin.Context) func(*registration.Item) error {
	return func(item *registration.Item) error { return httpx.IfMatch(c, item.Value.ETag) }
}

func (s *support) reregister(c *gin.Context) error {
	if err := httpx.NoQuery(c); err != nil {
		return err
	}
	// Whether there is a registration is checked before the body is.
	if _, err := s.Registrations.Get(appID(c)); err != nil {
		return err
	}
	var info mp1.AppInfo
	if err := httpx.Body(c, &info); err != nil {
		return err
	}
	info.AppInstanceID = identity.CanonicalID(info.AppInstanceID)
	item, err := s.Registrations.Replace(c.Request.Context(), appID(c), info, unchanged(c))
	if err != nil {
		return err
	}
	httpx.SetETag(c, item.Value.ETag)
	httpx.NoContent(c)
	return nil
}

func (s *support) deregister(c *gin.Context) error {
	if err := httpx.NoQuery(c); err != nil {
		return err
	}
	if err := s.Registrations.Remove(c.Request.Context(), appID(c), unchanged(c)); err != nil {
		return err
	}
	httpx.NoContent(c)
	return nil
}
