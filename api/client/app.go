package client

import (
	"context"
	"net/http"
	"time"

	"github.com/openmep/mep/api/mp1"
)

// App is an application instance on the platform, with its services, subscriptions, life cycle and rules.
type App struct {
	c  *Client
	id string
}

// App returns the application instance with this appInstanceId. It sends no request; if the platform does not know the
// instance, the first request fails with an error for which IsNotFound holds.
func (c *Client) App(appInstanceID string) *App { return &App{c: c, id: appInstanceID} }

// request returns a request for a resource of the app.
func (a *App) request(method string, segments ...string) request {
	return request{
		method: method, path: append([]string{"applications", a.id}, segments...),
		repeatable: method != http.MethodPost,
	}
}

// Register registers a service (MEC 011 8.2.6.3.4). info must have exactly one of TransportInfo and TransportID, and no
// SerInstanceID, which the platform assigns. The returned service may differ from info, for example in its LivenessInterval.
func (a *App) Register(ctx context.Context, info mp1.ServiceInfo) (*Service, error) {
	r := a.request(http.MethodPost, "services")
	r.body = info
	return a.c.service(ctx, r)
}

// Services lists the app's own services that match q, in any state (MEC 011 8.2.6.3.1).
func (a *App) Services(ctx context.Context, q Query) ([]mp1.ServiceInfo, error) {
	r := a.request(http.MethodGet, "services")
	r.query = q.values()
	var list []mp1.ServiceInfo
	_, err := a.c.do(ctx, r, &list)
	return list, err
}

// Service reads one of the app's own services (MEC 011 8.2.7.3.1).
func (a *App) Service(ctx context.Context, id string) (*Service, error) {
	return a.c.service(ctx, a.request(http.MethodGet, "services", id))
}

// Precondition makes a change conditional on the current state of the resource.
type Precondition func(*request)

// IfMatch makes a change conditional on the resource's entity-tag being etag. Otherwise the change fails with an error for
// which IsPreconditionFailed holds: the resource has changed in the meantime and should be read again.
func IfMatch(etag string) Precondition {
	return func(r *request) {
		r.ifMatch = etag
		// An attempt that was answered 503 may have succeeded; the retry would then fail with 412.
		if r.method == http.MethodPut {
			r.repeatable = false
		}
	}
}

// Replace replaces one of the app's services with info as a whole (MEC 011 8.2.7.3.2). info may be a modified copy of a service
// that was read: Links and IsLocal are ignored.
func (a *App) Replace(ctx context.Context, id string, info mp1.ServiceInfo, pre ...Precondition) (*Service, error) {
	r := a.request(http.MethodPut, "services", id)
	r.body = info
	r.apply(pre)
	return a.c.service(ctx, r)
}

// Remove removes one of the app's services (MEC 011 8.2.7.3.5).
func (a *App) Remove(ctx context.Context, id string, pre ...Precondition) error {
	return a.remove(ctx, pre, "services", id)
}

func (a *App) remove(ctx context.Context, pre []Precondition, segments ...string) error {
	return a.c.remove(ctx, a.request(http.MethodDelete, segments...), pre)
}

// remove sends a DELETE.
func (c *Client) remove(ctx context.Context, r request, pre []Precondition) error {
	r.apply(pre)
	ans, err := c.do(ctx, r, nil)
	if ans.attempts > 1 && IsNotFound(err) {
		return nil // an earlier attempt removed it
	}
	return err
}

// Heartbeat reports that a service is alive (MEC 011 8.2.10.3.3). imposed is a new interval that the platform requires from now
// on, or 0 if the interval is unchanged. IsConflict holds for the error when the service is INACTIVE, IsNotFound when there is
// no such service or the platform expects no heartbeats for it.
func (a *App) Heartbeat(ctx context.Context, id string) (imposed time.Duration, err error) {
	r := a.request(http.MethodPatch, "services", id, "liveness")
	r.body, r.contentType = mp1.ServiceLivenessUpdate{State: mp1.StateActive}, "application/merge-patch+json"
	var info mp1.ServiceLivenessInfo
	if _, err := a.c.do(ctx, r, &info); err != nil {
		return 0, err
	}
	return seconds(info.Interval), nil
}

// Liveness reads the time of a service's last heartbeat and the interval that the platform expects (MEC 011 8.2.10.3.1).
// IsNotFound holds for the error when there is no such service or the platform expects no heartbeats for it.
func (a *App) Liveness(ctx context.Context, id string) (mp1.ServiceLivenessInfo, error) {
	var info mp1.ServiceLivenessInfo
	_, err := a.c.do(ctx, a.request(http.MethodGet, "services", id, "liveness"), &info)
	return info, err
}

// Subscription is a subscription to notifications about services.
type Subscription = SubscriptionTo[mp1.SerAvailabilityNotificationSubscription]

// SubscriptionTo is a subscription as returned by the platform.
type SubscriptionTo[I any] struct {
	// ID identifies the subscription.
	ID string
	// Info is the content of the subscription.
	Info I
	// ETag is the entity-tag of the subscription.
	ETag string
	// Location is the URL of the subscription.
	Location string
}

// Subscribe subscribes to notifications about services (MEC 011 8.2.8.3.4). The platform sends them to sub.CallbackReference,
// where a NotificationHandler may receive them. SubscriptionType need not be set.
func (a *App) Subscribe(ctx context.Context, sub mp1.SerAvailabilityNotificationSubscription) (*Subscription, error) {
	if sub.SubscriptionType == "" {
		sub.SubscriptionType = mp1.SubscriptionTypeSerAvailability
	}
	r := a.request(http.MethodPost, "subscriptions")
	r.body = sub
	return a.subscription(ctx, r)
}

// Subscriptions lists the app's subscriptions (MEC 011 8.2.8.3.1); IDOf returns the id of each from its Href.
func (a *App) Subscriptions(ctx context.Context) ([]mp1.SubscriptionLink, error) {
	var list mp1.SubscriptionLinkList
	_, err := a.c.do(ctx, a.request(http.MethodGet, "subscriptions"), &list)
	return list.Links.Subscriptions, err
}

// Subscription reads one of the app's subscriptions (MEC 011 8.2.9.3.1).
func (a *App) Subscription(ctx context.Context, id string) (*Subscription, error) {
	return a.subscription(ctx, a.request(http.MethodGet, "subscriptions", id))
}

// Unsubscribe removes one of the app's subscriptions (MEC 011 8.2.9.3.5).
func (a *App) Unsubscribe(ctx context.Context, id string) error {
	return a.remove(ctx, nil, "subscriptions", id)
}

func (a *App) subscription(ctx context.Context, r request) (*Subscription, error) {
	return subscribed(ctx, a.c, r, func(i *mp1.SerAvailabilityNotificationSubscription) *mp1.SelfLinks { return i.Links })
}

// subscribed sends a request whose response is a subscription; links returns the links of that subscription.
func subscribed[I any](ctx context.Context, c *Client, r request, links func(*I) *mp1.SelfLinks) (*SubscriptionTo[I], error) {
	s := &SubscriptionTo[I]{}
	ans, err := c.do(ctx, r, &s.Info)
	if err != nil {
		return nil, err
	}
	s.ETag, s.Location = ans.header.Get("ETag"), locationOf(ans, links(&s.Info))
	if s.ID = IDOf(s.Location); s.ID == "" {
		return nil, errNoLocation
	}
	return s, nil
}

func (r *request) apply(pre []Precondition) {
	for _, p := range pre {
		p(r)
	}
}

func seconds(n int) time.Duration { return time.Duration(n) * time.Second }
