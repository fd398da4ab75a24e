package mp1

import (
	"net/http"

	"github.com/gin-gonic/gin"

	"github.com/openmep/mep/api/mp1"
	"github.com/openmep/mep/kit/httpx"
	"github.com/openmep/mep/mepserver/subscription"
)

func (m *mount) subscriptions(c *gin.Context) error {
	if err := httpx.NoQuery(c); err != nil {
		return err
	}
	base := m.base(c)
	list := mp1.SubscriptionLinkList{Links: mp1.SubscriptionLinks{
		Self:          mp1.LinkType{Href: base + subscription.ListPath(appID(c))},
		Subscriptions: []mp1.SubscriptionLink{},
	}}
	for item := range m.Book.Of(appID(c)) {
		list.Links.Subscriptions = append(list.Links.Subscriptions, mp1.SubscriptionLink{
			Href:             base + item.Value.Path(),
			SubscriptionType: mp1.SubscriptionTypeSerAvailability,
			Rel:              mp1.SubscriptionTypeSerAvailability,
		})
	}
	return httpx.JSON(c, http.StatusOK, list)
}

func (m *mount) subscribe(c *gin.Context) error {
	if err := httpx.NoQuery(c); err != nil {
		return err
	}
	var sub mp1.SerAvailabilityNotificationSubscription
	if err := httpx.Body(c, &sub); err != nil {
		return err
	}
	item, err := m.Book.Create(c.Request.Context(), appID(c), sub)
	if err != nil {
		return err
	}
	base := m.base(c)
	c.Header("Location", base+item.Value.Path())
	httpx.SetETag(c, item.Value.ETag)
	return httpx.JSON(c, http.StatusCreated, item.Value.Info(base))
}

func (m *mount) subscription(c *gin.Context) error {
	if err := httpx.NoQuery(c); err != nil {
		return err
	}
	item, err := m.Book.Get(appID(c), c.Param("subscriptionId"))
	if err != nil {
		return err
	}
	if httpx.NotModified(c, item.Value.ETag) {
		return nil
	}
	httpx.SetETag(c, item.Value.ETag)
	return httpx.JSON(c, http.StatusOK, item.Value.Info(m.base(c)))
}

func (m *mount) unsubscribe(c *gin.Context) error {
	if err := httpx.NoQuery(c); err != nil {
		return err
	}
	pre := func(item *subscription.Item) error { return httpx.IfMatch(c, item.Value.ETag) }
	if err := m.Book.Delete(c.Request.Context(), appID(c), c.Param("subscriptionId"), pre); err != nil {
		return err
	}
	httpx.NoContent(c)
	return nil
}
