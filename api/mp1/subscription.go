package mp1

// The types of subscriptions and notifications of the service management API.
const (
	SubscriptionTypeSerAvailability = "SerAvailabilityNotificationSubscription"
	NotificationTypeSerAvailability = "SerAvailabilityNotification"
)

// SerAvailabilityNotificationSubscription subscribes to notifications about services (MEC 011 8.1.3.2).
type SerAvailabilityNotificationSubscription struct {
	// SubscriptionType is "SerAvailabilityNotificationSubscription".
	SubscriptionType string `json:"subscriptionType"`
	// CallbackReference is the http or https URI notifications are sent to.
	CallbackReference string `json:"callbackReference"`
	// Links is present in responses only.
	Links *SelfLinks `json:"_links,omitempty"`
	// FilteringCriteria selects services; absent selects all.
	FilteringCriteria *FilteringCriteria `json:"filteringCriteria,omitempty"`
}

// SelfLinks holds the link of a resource to itself.
type SelfLinks struct {
	Self LinkType `json:"self"`
}

// FilteringCriteria narrows a subscription. Members are combined by AND, the elements of one member by OR. At most one of
// SerInstanceIDs, SerNames and SerCategories may be present.
type FilteringCriteria struct {
	SerInstanceIDs []string      `json:"serInstanceIds,omitempty"`
	SerNames       []string      `json:"serNames,omitempty"`
	SerCategories  []CategoryRef `json:"serCategories,omitempty"`
	// States applies to the state after the change.
	States []ServiceState `json:"states,omitempty"`
	// IsLocal restricts the subscription to services that are, or are not, local to the platform.
	IsLocal *bool `json:"isLocal,omitempty"`
}

// SubscriptionLinkList lists the subscriptions of an app (MEC 011 6.2.2).
type SubscriptionLinkList struct {
	Links SubscriptionLinks `json:"_links"`
}

// SubscriptionLinks holds the links of a SubscriptionLinkList.
type SubscriptionLinks struct {
	Self LinkType `json:"self"`
	// Subscriptions is never null.
	Subscriptions []SubscriptionLink `json:"subscriptions"`
}

// SubscriptionLink is one element of a SubscriptionLinkList.
type SubscriptionLink struct {
	Href             string `json:"href"`
	SubscriptionType string `json:"subscriptionType"`
	// Rel repeats SubscriptionType under its V2.1.1 name.
	Rel string `json:"rel"`
}

// ChangeType is the kind of change of a service (MEC 011 8.1.4.2).
type ChangeType string

// The changes a notification reports.
const (
	ChangeAdded      ChangeType = "ADDED"
	ChangeRemoved    ChangeType = "REMOVED"
	ChangeState      ChangeType = "STATE_CHANGED"
	ChangeAttributes ChangeType = "ATTRIBUTES_CHANGED"
)

// ServiceAvailabilityNotification notifies a subscriber of changes (MEC 011 8.1.4.2).
type ServiceAvailabilityNotification struct {
	// NotificationType is "SerAvailabilityNotification".
	NotificationType  string             `json:"notificationType"`
	ServiceReferences []ServiceReference `json:"serviceReferences"`
	Links             SubscriptionRef    `json:"_links"`
}

// ServiceReference identifies a changed service.
type ServiceReference struct {
	// Link is present unless the service was removed.
	Link          *LinkType `json:"link,omitempty"`
	SerName       string    `json:"serName"`
	SerInstanceID string    `json:"serInstanceId"`
	// State is the state after the change.
	State      ServiceState `json:"state"`
	ChangeType ChangeType   `json:"changeType"`
}

// SubscriptionRef links a notification to its subscription.
type SubscriptionRef struct {
	Subscription LinkType `json:"subscription"`
}
