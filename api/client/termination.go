package client

import (
	"context"
	"errors"
	"net/http"

	"github.com/openmep/mep/api/mp1"
)

// TerminationSubscription is a subscription to the termination of the app as returned by the platform.
type TerminationSubscription = SubscriptionTo[mp1.AppTerminationNotificationSubscription]

// SubscribeTermination subscribes to notifications that the app is about to be stopped or terminated gracefully (MEC 011
// 7.2.3.3.4). The platform sends them to callback, an http or https URL where a TerminationHandler may receive them.
func (a *App) SubscribeTermination(ctx context.Context, callback string) (*TerminationSubscription, error) {
	r := a.support(http.MethodPost, "subscriptions")
	r.body = mp1.AppTerminationNotificationSubscription{
		SubscriptionType: mp1.SubscriptionTypeAppTermination, CallbackReference: callback, AppInstanceID: a.id,
	}
	return a.terminationSubscription(ctx, r)
}

// TerminationSubscriptions lists the app's termination subscriptions (MEC 011 7.2.3.3.1); IDOf returns the id of each from its
// Href.
func (a *App) TerminationSubscriptions(ctx context.Context) ([]mp1.SubscriptionLink, error) {
	var list mp1.SubscriptionLinkList
	_, err := a.c.do(ctx, a.support(http.MethodGet, "subscriptions"), &list)
	return list.Links.Subscriptions, err
}

// TerminationSubscription reads one of the app's termination subscriptions (MEC 011 7.2.4.3.1).
func (a *App) TerminationSubscription(ctx context.Context, id string) (*TerminationSubscription, error) {
	return a.terminationSubscription(ctx, a.support(http.MethodGet, "subscriptions", id))
}

// UnsubscribeTermination removes one of the app's termination subscriptions (MEC 011 7.2.4.3.5).
func (a *App) UnsubscribeTermination(ctx context.Context, id string) error {
	return a.c.remove(ctx, a.support(http.MethodDelete, "subscriptions", id), nil)
}

func (a *App) terminationSubscription(ctx context.Context, r request) (*TerminationSubscription, error) {
	return subscribed(ctx, a.c, r, func(i *mp1.AppTerminationNotificationSubscription) *mp1.SelfLinks { return i.Links })
}

// locationOf returns the URL of a resource: the Location header, or else the self link.
func locationOf(ans answer, links *mp1.SelfLinks) string {
	if l := ans.header.Get("Location"); l != "" || links == nil {
		return l
	}
	return links.Self.Href
}

var errNoLocation = errors.New("the platform's answer does not say where the subscription is")
