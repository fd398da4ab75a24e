package notify

import (
	"encoding/json"
	"strconv"
	"time"

	"github.com/google/uuid"

	"github.com/openmep/mep/api/mp1"
	"github.com/openmep/mep/mepserver/registry"
	"github.com/openmep/mep/mepserver/subscription"
)

// event is one change of which one subscriber is notified.
type event struct {
	revision int64
	svc      *registry.Service // after the change, or before a removal
	change   mp1.ChangeType
	queued   time.Time
	listed   bool // revision is the earliest possible one
}

// classify returns what a change means to a subscriber (MEC 011 8.1.4.2). ok is false if it means nothing.
func classify(c registry.Change) (svc *registry.Service, change mp1.ChangeType, ok bool) {
	switch {
	case c.New == nil && c.Old == nil:
		return nil, "", false
	case c.New == nil:
		return c.Old.Value, mp1.ChangeRemoved, true
	case c.Old == nil && c.New.CreateRevision == c.New.ModRevision:
		return c.New.Value, mp1.ChangeAdded, true
	case c.Old == nil:
		// The state before is no longer known.
		return c.New.Value, mp1.ChangeAttributes, true
	}
	switch attributes, stateChanged := c.New.Value.Differs(c.Old.Value); {
	case attributes:
		return c.New.Value, mp1.ChangeAttributes, true
	case stateChanged:
		return c.New.Value, mp1.ChangeState, true
	}
	return nil, "", false
}

// id returns the id of the notification of an event to a subscriber. It is the same whenever the same event is sent again,
// even by another process.
func (e *event) id(subscriptionID string) string {
	space, err := uuid.Parse(subscriptionID)
	if err != nil {
		space = uuid.NameSpaceOID
	}
	return uuid.NewSHA1(space, []byte(e.svc.ID+"@"+strconv.FormatInt(e.revision, 10))).String()
}

// body returns the notification as it is sent.
func (e *event) body(sub *subscription.Subscription, base string) ([]byte, error) {
	ref := mp1.ServiceReference{
		SerName: e.svc.Name, SerInstanceID: e.svc.ID, State: e.svc.State, ChangeType: e.change,
	}
	if e.change != mp1.ChangeRemoved {
		ref.Link = &mp1.LinkType{Href: base + e.svc.Path()}
	}
	return json.Marshal(mp1.ServiceAvailabilityNotification{
		NotificationType:  mp1.NotificationTypeSerAvailability,
		ServiceReferences: []mp1.ServiceReference{ref},
		Links:             mp1.SubscriptionRef{Subscription: mp1.LinkType{Href: base + sub.Path()}},
	})
}
