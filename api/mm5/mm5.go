// Package mm5 holds the wire types of the Mm5 reference point between the MEC platform manager and the platform.
//
// The standard does not specify Mm5; the types follow the application life cycle management of ETSI GS MEC 010-2 V3.1.1
// wherever it has a counterpart.
package mm5

import (
	"encoding/json"
	"time"

	"github.com/openmep/mep/api/mp1"
)

// ConfigPlatformForAppRequest is the configuration of an app instance (MEC 010-2 6.2.2.18). Rules have a state here, which
// MEC 010-2 leaves out: absent, it is ACTIVE.
type ConfigPlatformForAppRequest struct {
	// AppName is a name for people, at most 128 bytes.
	AppName string `json:"appName,omitempty"`
	// AppDID is the id of the app descriptor.
	AppDID string `json:"appDId,omitempty"`
	// AppServiceRequired and AppServiceOptional are the services the app may discover, besides its own; without either it
	// may discover all.
	AppServiceRequired []mp1.ServiceDependency `json:"appServiceRequired,omitempty"`
	AppServiceOptional []mp1.ServiceDependency `json:"appServiceOptional,omitempty"`
	// AppServiceProduced are the services the app offers.
	AppServiceProduced []mp1.ServiceDescriptor `json:"appServiceProduced,omitempty"`
	// AppFeatureRequired and AppFeatureOptional are features of the platform. A required one that the platform does not have
	// is refused.
	AppFeatureRequired []mp1.FeatureDependency `json:"appFeatureRequired,omitempty"`
	AppFeatureOptional []mp1.FeatureDependency `json:"appFeatureOptional,omitempty"`
	// TransportDependencies are the transports the app needs. Entries that share a label form a group, and the platform must
	// have at least one whole group.
	TransportDependencies []mp1.TransportDependency `json:"transportDependencies,omitempty"`
	// AppTrafficRule and AppDNSRule are the rules of the app.
	AppTrafficRule []mp1.TrafficRule `json:"appTrafficRule,omitempty"`
	AppDNSRule     []mp1.DNSRule     `json:"appDNSRule,omitempty" alias:"appDnsRule"`
	// AppLatency, UserContextTransferCapability and AppNetworkPolicy are kept as they are.
	AppLatency                    json.RawMessage `json:"appLatency,omitempty"`
	UserContextTransferCapability json.RawMessage `json:"userContextTransferCapability,omitempty"`
	AppNetworkPolicy              json.RawMessage `json:"appNetworkPolicy,omitempty"`
}

// AppConfiguration is the configuration of an app instance as it is read back.
type AppConfiguration struct {
	ConfigPlatformForAppRequest
	// AppInstanceID is the app instance.
	AppInstanceID string `json:"appInstanceId"`
	// Generation counts the configurations the instance has had.
	Generation int64 `json:"generation"`
}

// StopType says whether an app instance is told before it is stopped or terminated (MEC 010-2 6.2.2.9, 6.2.2.11).
type StopType string

// The types.
const (
	Forceful StopType = "FORCEFUL"
	Graceful StopType = "GRACEFUL"
)

// TerminateAppRequest asks for the end of an app instance (MEC 010-2 6.2.2.9).
type TerminateAppRequest struct {
	// TerminationType is required.
	TerminationType StopType `json:"terminationType"`
	// GracefulTerminationTimeout is in seconds, at least 1; only for GRACEFUL. Absent or 0, the platform's default applies.
	GracefulTerminationTimeout *int `json:"gracefulTerminationTimeout,omitempty"`
}

// OperationalState is what an app instance can be changed to (MEC 010-2 6.2.2.11).
type OperationalState string

// The states.
const (
	Started OperationalState = "STARTED"
	Stopped OperationalState = "STOPPED"
)

// OperateAppRequest starts or stops an app instance (MEC 010-2 6.2.2.11).
type OperateAppRequest struct {
	// ChangeStateTo is required.
	ChangeStateTo OperationalState `json:"changeStateTo"`
	// StopType is only for STOPPED; absent, it is FORCEFUL.
	StopType StopType `json:"stopType,omitempty"`
	// GracefulStopTimeout is in seconds, at least 1; only for GRACEFUL. Absent or 0, the platform's default applies.
	GracefulStopTimeout *int `json:"gracefulStopTimeout,omitempty"`
}

// Lifecycle is where an app instance is in its life.
type Lifecycle string

// The states of an app instance.
const (
	// LifecycleKnown is an instance that has credentials or registered itself, and no configuration.
	LifecycleKnown Lifecycle = "NOT_CONFIGURED"
	// LifecycleConfigured has a configuration and has not run since it got it.
	LifecycleConfigured Lifecycle = "CONFIGURED"
	// LifecycleStarted runs: it said that it is ready, or the MEPM said so.
	LifecycleStarted Lifecycle = "STARTED"
	// LifecycleStopping is being stopped.
	LifecycleStopping Lifecycle = "STOPPING"
	// LifecycleStopped was stopped and keeps its configuration.
	LifecycleStopped Lifecycle = "STOPPED"
	// LifecycleTerminating is being terminated; then it is gone.
	LifecycleTerminating Lifecycle = "TERMINATING"
)

// OperationType is what an operation does.
type OperationType string

// The operations.
const (
	OperationConfigure   OperationType = "CONFIGURE"
	OperationUnconfigure OperationType = "UNCONFIGURE"
	OperationStart       OperationType = "START"
	OperationStop        OperationType = "STOP"
	OperationTerminate   OperationType = "TERMINATE"
)

// OperationState is how far an operation is (MEC 010-2 6.2.2.14).
type OperationState string

// The states of operations. COMPLETED and FAILED are final.
const (
	OperationStarting   OperationState = "STARTING"
	OperationProcessing OperationState = "PROCESSING"
	OperationCompleted  OperationState = "COMPLETED"
	OperationFailed     OperationState = "FAILED"
)

// Done reports whether the state is final.
func (s OperationState) Done() bool { return s == OperationCompleted || s == OperationFailed }

// AppLcmOpOcc is an occurrence of an operation (MEC 010-2 6.2.2.14).
type AppLcmOpOcc struct {
	ID             string         `json:"id"`
	AppInstanceID  string         `json:"appInstanceId"`
	LcmOperation   OperationType  `json:"lcmOperation"`
	OperationState OperationState `json:"operationState"`
	// Percentage is 0 to 100.
	Percentage int `json:"percentage"`
	// Step is what is being done at present, for people.
	Step string `json:"step,omitempty"`
	// Detail says why the operation failed, or what was left to be done after it was completed.
	Detail string `json:"detail,omitempty"`
	// RuleResults says how each rule fared that the operation concerned.
	RuleResults []RuleResult `json:"ruleResults,omitempty"`
	StartTime   time.Time    `json:"startTime"`
	// StateEnteredTime is when OperationState became what it is.
	StateEnteredTime time.Time `json:"stateEnteredTime"`
	// EndTime is when the operation became COMPLETED or FAILED.
	EndTime *time.Time `json:"endTime,omitempty"`
	Links   OpOccLinks `json:"_links"`
}

// OpOccLinks holds the links of an AppLcmOpOcc.
type OpOccLinks struct {
	Self        mp1.LinkType `json:"self"`
	AppInstance mp1.LinkType `json:"appInstance"`
}

// RuleKind tells traffic rules from DNS rules.
type RuleKind string

// The kinds of rules.
const (
	TrafficRules RuleKind = "TRAFFIC"
	DNSRules     RuleKind = "DNS"
)

// RuleProgress is how far a rule has come on its way to those that apply it.
type RuleProgress string

// The progress of a rule.
const (
	// RulePending has not been reported yet.
	RulePending RuleProgress = "PENDING"
	// RuleApplied is in force.
	RuleApplied RuleProgress = "APPLIED"
	// RuleNotApplied is not in force because it is not meant to be.
	RuleNotApplied RuleProgress = "INACTIVE"
	// RuleFailed was refused; it is tried again.
	RuleFailed RuleProgress = "FAILED"
)

// RuleResult says how a rule fared.
type RuleResult struct {
	Kind   RuleKind     `json:"kind"`
	RuleID string       `json:"ruleId"`
	Result RuleProgress `json:"result"`
	// Reason is present when Result is FAILED.
	Reason string `json:"reason,omitempty"`
	// Reconciler is who reported.
	Reconciler string `json:"reconciler,omitempty"`
}

// ConfigurationDiff is the answer to a dry run: what the configuration would change.
type ConfigurationDiff struct {
	AppInstanceID string `json:"appInstanceId"`
	// Changed is false when the configuration is what is there already.
	Changed bool `json:"changed"`
	// Creates is true when the instance has no configuration yet.
	Creates      bool     `json:"creates"`
	TrafficRules RuleDiff `json:"trafficRules"`
	DNSRules     RuleDiff `json:"dnsRules"`
	// Members names the other members that change.
	Members []string `json:"members"`
}

// RuleDiff lists the ids of rules by what would happen to them. No list is null.
type RuleDiff struct {
	Added     []string `json:"added"`
	Changed   []string `json:"changed"`
	Removed   []string `json:"removed"`
	Unchanged []string `json:"unchanged"`
	// Reset names rules among those changed whose change by the app would be lost.
	Reset []string `json:"reset"`
}

// AppInstance is an app instance as the MEPM sees it.
type AppInstance struct {
	AppInstanceID string    `json:"appInstanceId"`
	AppName       string    `json:"appName,omitempty"`
	Lifecycle     Lifecycle `json:"lifecycle"`
	// Generation counts the configurations, 0 without one.
	Generation int64     `json:"generation"`
	Created    time.Time `json:"created"`
	// Ready is when the app last said that it is ready.
	Ready *time.Time `json:"ready,omitempty"`
	// Operation is the id of the last operation that is still kept.
	Operation string `json:"operation,omitempty"`
	// Services are those the instance offers, with who consumes them.
	Services []AppService `json:"services"`
	// Rules says how the rules fare.
	Rules []RuleResult `json:"rules"`
	// Deliveries says how the delivery of notifications to the instance stands.
	Deliveries []Delivery       `json:"deliveries"`
	Links      AppInstanceLinks `json:"_links"`
}

// AppInstanceLinks holds the links of an AppInstance.
type AppInstanceLinks struct {
	Self          mp1.LinkType  `json:"self"`
	Configuration *mp1.LinkType `json:"configuration,omitempty"`
	Operation     *mp1.LinkType `json:"operation,omitempty"`
}

// AppService is a service of an app instance.
type AppService struct {
	SerInstanceID string           `json:"serInstanceId"`
	SerName       string           `json:"serName"`
	Version       string           `json:"version"`
	State         mp1.ServiceState `json:"state"`
	// Consumers are the app instances that subscribed to it or declared that they need it: all of them where one app instance is
	// read, the first 20 in lists.
	Consumers []string `json:"consumers"`
	// ConsumerCount is how many there are.
	ConsumerCount int `json:"consumerCount"`
}

// Delivery is how the delivery of notifications to one subscription stands.
type Delivery struct {
	SubscriptionID    string    `json:"subscriptionId"`
	SubscriptionType  string    `json:"subscriptionType"`
	CallbackReference string    `json:"callbackReference"`
	Pending           int       `json:"pending"`
	FailingSince      time.Time `json:"failingSince,omitzero"`
	LastError         string    `json:"lastError,omitempty"`
}

// Capabilities is what the platform can do.
type Capabilities struct {
	// Version is that of the platform.
	Version string `json:"version"`
	// Features are the names an app may require, with their versions.
	Features []mp1.FeatureDependency `json:"features"`
	// Transports are those of Mp1.
	Transports []mp1.TransportInfo `json:"transports"`
	// Reconcilers are who applies rules.
	Reconcilers []Reconciler `json:"reconcilers"`
	Limits      Limits       `json:"limits"`
	// Services are the services offered on the platform.
	Services []AppService `json:"services"`
}

// Reconciler applies rules of one kind.
type Reconciler struct {
	Kind RuleKind `json:"kind"`
	Name string   `json:"name"`
	// Driver is how it does so: none, webhook or another.
	Driver string `json:"driver"`
	// Pending is the number of app instances whose rules it has not reported on yet.
	Pending int `json:"pending"`
	// FailingSince and LastError are present while it cannot be reached.
	FailingSince time.Time `json:"failingSince,omitzero"`
	LastError    string    `json:"lastError,omitempty"`
}

// Limits are the bounds of configurations.
type Limits struct {
	TrafficRules   int `json:"trafficRules"`
	DNSRules       int `json:"dnsRules"`
	TrafficFilters int `json:"trafficFilters"`
	RuleIDLength   int `json:"ruleIdLength"`
}
