package mp1

import "encoding/json"

// The types of the termination notifications of the application support API.
const (
	SubscriptionTypeAppTermination = "AppTerminationNotificationSubscription"
	NotificationTypeAppTermination = "AppTerminationNotification"
)

// AppTerminationNotificationSubscription subscribes to notifications that the app instance is about to be stopped or terminated
// (MEC 011 7.1.3.2).
type AppTerminationNotificationSubscription struct {
	// SubscriptionType is "AppTerminationNotificationSubscription".
	SubscriptionType string `json:"subscriptionType"`
	// CallbackReference is the http or https URI notifications are sent to.
	CallbackReference string `json:"callbackReference"`
	// Links is present in responses only.
	Links *SelfLinks `json:"_links,omitempty"`
	// AppInstanceID is the app instance that the notifications are about: the one in the path.
	AppInstanceID string `json:"appInstanceId"`
}

// OperationAction is the imminent operation on an app instance (MEC 011 7.1.4.2).
type OperationAction string

// The actions. The standard also spells STOPPING as STOPPPING, which is accepted as STOPPING.
const (
	ActionStopping    OperationAction = "STOPPING"
	ActionTerminating OperationAction = "TERMINATING"
)

// AppTerminationNotification notifies an app that it is about to be stopped or terminated (MEC 011 7.1.4.2).
type AppTerminationNotification struct {
	// NotificationType is "AppTerminationNotification".
	NotificationType string          `json:"notificationType"`
	OperationAction  OperationAction `json:"operationAction"`
	// MaxGracefulTimeout is the time that the app may take, in seconds; never 0.
	MaxGracefulTimeout uint32           `json:"maxGracefulTimeout"`
	Links              TerminationLinks `json:"_links"`
}

// TerminationLinks holds the links of an AppTerminationNotification.
type TerminationLinks struct {
	Subscription LinkType `json:"subscription"`
	// ConfirmTermination is the resource at which the app confirms that it is done.
	ConfirmTermination *LinkType `json:"confirmTermination,omitempty"`
}

// AppTerminationConfirmation confirms that an app is ready to be stopped or terminated (MEC 011 7.1.4.3).
type AppTerminationConfirmation struct {
	// OperationAction is that of the notification.
	OperationAction OperationAction `json:"operationAction"`
}

// AppReadyConfirmation confirms that an app is running (MEC 011 7.1.4.4).
type AppReadyConfirmation struct {
	// Indication is "READY".
	Indication string `json:"indication"`
}

// IndicationReady is the only defined indication.
const IndicationReady = "READY"

// TimeSourceStatus says whether the platform's clock is traceable to a UTC source (MEC 011 7.1.2.5).
type TimeSourceStatus string

// The states of the time source.
const (
	TimeTraceable    TimeSourceStatus = "TRACEABLE"
	TimeNontraceable TimeSourceStatus = "NONTRACEABLE"
)

// CurrentTime is the platform's time since the Unix epoch, UTC (MEC 011 7.1.2.5).
type CurrentTime struct {
	Seconds uint32 `json:"seconds"`
	// NanoSeconds is 0 to 999,999,999.
	NanoSeconds      uint32           `json:"nanoSeconds"`
	TimeSourceStatus TimeSourceStatus `json:"timeSourceStatus"`
}

// TimingCaps lists the time services that apps can use directly (MEC 011 7.1.2.4).
type TimingCaps struct {
	TimeStamp  *TimeStamp  `json:"timeStamp,omitempty"`
	NTPServers []NTPServer `json:"ntpServers,omitempty"`
	PTPMasters []PTPMaster `json:"ptpMasters,omitempty"`
}

// NTPServer is an NTP server (MEC 011 7.1.2.4).
type NTPServer struct {
	// NTPServerAddrType is IP_ADDRESS or DNS_NAME.
	NTPServerAddrType string `json:"ntpServerAddrType"`
	NTPServerAddr     string `json:"ntpServerAddr"`
	// MinPollingInterval and MaxPollingInterval are powers of two in seconds, 3 to 17.
	MinPollingInterval uint32 `json:"minPollingInterval"`
	MaxPollingInterval uint32 `json:"maxPollingInterval"`
	LocalPriority      uint32 `json:"localPriority"`
	// AuthenticationOption is NONE, SYMMETRIC_KEY or AUTO_KEY.
	AuthenticationOption string `json:"authenticationOption"`
	// AuthenticationKeyNum is present if and only if AuthenticationOption is SYMMETRIC_KEY.
	AuthenticationKeyNum *uint32 `json:"authenticationKeyNum,omitempty"`
}

// PTPMaster is a PTP master (MEC 011 7.1.2.4).
type PTPMaster struct {
	PTPMasterIPAddress     string `json:"ptpMasterIpAddress"`
	PTPMasterLocalPriority uint32 `json:"ptpMasterLocalPriority"`
	// DelayReqMaxRate is in packets per second.
	DelayReqMaxRate uint32 `json:"delayReqMaxRate"`
}

// AppInfo describes an app instance that registers itself (MEC 011 7.1.2.6).
type AppInfo struct {
	AppName     string       `json:"appName"`
	AppProvider string       `json:"appProvider,omitempty"`
	AppCategory *CategoryRef `json:"appCategory,omitempty"`
	// AppDID and AppInstanceID are present when IsInsByMEC is true.
	AppDID        string `json:"appDId,omitempty"`
	AppInstanceID string `json:"appInstanceId,omitempty"`
	// Endpoint is required unless IsInsByMEC is true.
	Endpoint *EndPointInfo `json:"endpoint,omitempty"`
	// The services and features that the app needs; only used when no app descriptor is available.
	AppServiceRequired []ServiceDependency `json:"appServiceRequired,omitempty"`
	AppServiceOptional []ServiceDependency `json:"appServiceOptional,omitempty"`
	AppFeatureRequired []FeatureDependency `json:"appFeatureRequired,omitempty"`
	AppFeatureOptional []FeatureDependency `json:"appFeatureOptional,omitempty"`
	// IsInsByMEC says that MEC management instantiated the app; default false.
	IsInsByMEC bool `json:"isInsByMec,omitempty"`
	// AppProfile is carried unchanged (MEC 011 Annex C).
	AppProfile json.RawMessage `json:"appProfile,omitempty"`
}

// ServiceDependency names a service that an app uses (MEC 010-2 6.2.1.9).
type ServiceDependency struct {
	SerName     string       `json:"serName"`
	SerCategory *CategoryRef `json:"serCategory,omitempty"`
	Version     string       `json:"version"`
	// SerTransportDependencies are the transports that the app can use; absent means REST with JSON.
	SerTransportDependencies []TransportDependency `json:"serTransportDependencies,omitempty"`
	// RequestedPermissions is carried unchanged.
	RequestedPermissions json.RawMessage `json:"requestedPermissions,omitempty"`
}

// ServiceDescriptor names a service that an app produces (MEC 010-2 6.2.1.8).
type ServiceDescriptor struct {
	SerName     string       `json:"serName"`
	SerCategory *CategoryRef `json:"serCategory,omitempty"`
	Version     string       `json:"version"`
	// TransportsSupported are the transports that the service offers; absent means REST with JSON.
	TransportsSupported []TransportSupported `json:"transportsSupported,omitempty"`
}

// TransportSupported is a transport with the serializers offered over it (MEC 010-2 6.2.1.8).
type TransportSupported struct {
	Transport   *TransportDescriptor `json:"transport"`
	Serializers []SerializerType     `json:"serializers"`
}

// TransportDependency is a transport that an app can use (MEC 010-2 6.2.1.11). Entries that share a label are needed together.
type TransportDependency struct {
	Transport   *TransportDescriptor `json:"transport"`
	Serializers []SerializerType     `json:"serializers"`
	Labels      []string             `json:"labels"`
}

// TransportDescriptor describes a transport (MEC 010-2 6.2.1.13).
type TransportDescriptor struct {
	Type             TransportType   `json:"type"`
	Protocol         string          `json:"protocol"`
	Version          string          `json:"version"`
	Security         *SecurityInfo   `json:"security,omitempty"`
	ImplSpecificInfo json.RawMessage `json:"implSpecificInfo,omitempty"`
}

// FeatureDependency names a feature of the platform that an app uses (MEC 010-2 6.2.1.10).
type FeatureDependency struct {
	FeatureName string `json:"featureName"`
	Version     string `json:"version"`
}
