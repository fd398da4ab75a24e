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
	list := newLinkList(m.base(c), subscription.ListPath(appID(c)), mp1.SubscriptionTypeSerAvailability)
	for item := range m.Book.Of(appID(c)) {
		list.add(item.Value.Path())
	}
	return list.write(c)
}

// linkList is a list of links to subscriptions.
type linkList struct {
	base, of string
	body     mp1.SubscriptionLinkList
}

// newLinkList returns an empty list. Links start with base; path is the path of the list, of the type of its subscriptions.
func newLinkList(base, path, of string) *linkList {
	return &linkList{base: base, of: of, body: mp1.SubscriptionLinkList{Links: mp1.SubscriptionLinks{
		Self: mp1.LinkType{Href: base + path}, Subscriptions: []mp1.SubscriptionLink{},
	}}}
}

func (l *linkList) add(path string) {
	l.body.Links.Subscriptions = append(l.body.Links.Subscriptions, mp1.SubscriptionLink{
		Href: l.base + path, SubscriptionType: l.of, Rel: l.of,
	})
}

func (l *linkList) write(c *gin.Context) error { return httpx.JSON(c, http.StatusOK, l.body) }

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
	return tagged(c, item.Value.ETag, item.Value.Info(m.base(c)))
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
