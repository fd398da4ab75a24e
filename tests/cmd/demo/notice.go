package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"github.com/openmep/mep/api/mp1"
)

// notice is the notification that an app is about to be stopped or terminated.
type notice struct {
	mp1.AppTerminationNotification
	id string // unchanged when it is sent again
}

// takeNotice receives notices at the app's server.
func (a *app) takeNotice(w http.ResponseWriter, r *http.Request) {
	n := notice{id: r.Header.Get("X-Notification-Id")}
	if err := json.NewDecoder(r.Body).Decode(&n.AppTerminationNotification); err != nil || n.NotificationType != mp1.NotificationTypeAppTermination {
		http.Error(w, "expected a notice", http.StatusBadRequest)
		return
	}
	a.notices <- n
	w.WriteHeader(http.StatusNoContent)
}

// subscribeToNotices subscribes to notices that the app is about to be stopped or terminated.
func (a *app) subscribeToNotices(ctx context.Context) {
	var made mp1.AppTerminationNotificationSubscription
	a.support.call(ctx, request{method: http.MethodPost, path: "/subscriptions", body: mp1.AppTerminationNotificationSubscription{
		SubscriptionType: mp1.SubscriptionTypeAppTermination, CallbackReference: a.url + "/termination", AppInstanceID: a.creds.AppInstanceID,
	}}, http.StatusCreated, &made)
	expect(made.Links != nil, "the subscription of the %s has no link to itself", a.name)
}

// isTold waits for a notice that the app is being terminated, shows it, and expects it to leave the app the given time.
func (a *app) isTold(ctx context.Context, left time.Duration) notice {
	var n notice
	select {
	case <-ctx.Done():
		must(context.Cause(ctx))
	case <-time.After(patience):
		must(fmt.Errorf("the %s was not told within %s", a.name, patience))
	case n = <-a.notices:
	}
	a.screen.notified(a.name, n.AppTerminationNotification)
	expect(n.OperationAction == mp1.ActionTerminating && n.MaxGracefulTimeout == uint32(left/time.Second) &&
		n.Links.ConfirmTermination != nil && n.id != "", "the %s was told %+v", a.name, n)
	return n
}
