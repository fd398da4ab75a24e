// Package mm5 defines the wire types of the Mm5 reference point between the MEC platform manager and the platform.
//
// The standard does not specify Mm5; the types follow the application life cycle management of ETSI GS MEC 010-2 V3.1.1
// wherever it has a counterpart.
package mm5

import (
	"encoding/json"
	"time"

	"github.com/openmep/mep/api/mp1"
)

// ConfigPlatformForAppRequest is the configuration of an app instance (MEC 010-2 6.2.2.18). Unlike in MEC 010-2, rules have a
// state, which defaults to ACTIVE.
type ConfigPlatformForAppRequest struct {
	// AppName is a human-readable name of at most 128 bytes.
	AppName string `json:"appName,omitempty"`
	// AppDID is the id of the app descriptor.
	AppDID string `json:"appDId,omitempty"`
	// AppServiceRequired and AppServiceOptional are the services that the app may discover, besides its own. If both are empty,
	// it may discover all services.
	AppServiceRequired []mp1.ServiceDependency `json:"appServiceRequired,omitempty"`
	AppServiceOptional []mp1.ServiceDependency `json:"appServiceOptional,omitempty"`
	// AppServiceProduced are the services that the app offers.
	AppServiceProduced []mp1.ServiceDescriptor `json:"appServiceProduced,omitempty"`
	// AppFeatureRequired and AppFeatureOptional are features of the platform. The request is refused if the platform lacks a
	// required one.
	AppFeatureRequired []mp1.FeatureDependency `json:"appFeatureRequired,omitempty"`
	AppFeatureOptional []mp1.FeatureDependency `json:"appFeatureOptional,omitempty"`
	// TransportDependencies are the transports that the app needs. Entries that share a label form a group; the platform must
	// have at least one complete group.
	TransportDependencies []mp1.TransportDependency `json:"transportDependencies,omitempty"`
	// AppTrafficRule and AppDNSRule are the rules of the app.
	AppTrafficRule []mp1.TrafficRule `json:"appTrafficRule,omitempty"`
	AppDNSRule     []mp1.DNSRule     `json:"appDNSRule,omitempty" alias:"appDnsRule"`
	// AppLatency, UserContextTransferCapability and AppNetworkPolicy are kept unchanged.
	AppLatency                    json.RawMessage `json:"appLatency,omitempty"`
	UserContextTransferCapability json.RawMessage `json:"userContextTransferCapability,omitempty"`
	AppNetworkPolicy              json.RawMessage `json:"appNetworkPolicy,omitempty"`
}

// AppConfiguration is the configuration of an app instance as read from the platform.
type AppConfiguration struct {
	ConfigPlatformForAppRequest
	// AppInstanceID is the app instance.
	AppInstanceID string `json:"appInstanceId"`
	// Generation counts the configurations the instance has had.
	Generation int64 `json:"generation"`
}

// StopType says whether an app instance is notified before it is stopped or terminated (MEC 010-2 6.2.2.9, 6.2.2.11).
type StopType string

// The types.
const (
	Forceful StopType = "FORCEFUL"
	Graceful StopType = "GRACEFUL"
)

// TerminateAppRequest terminates an app instance (MEC 010-2 6.2.2.9).
type TerminateAppRequest struct {
	// TerminationType is required.
	TerminationType StopType `json:"terminationType"`
	// GracefulTerminationTimeout is in seconds, at least 1; only for GRACEFUL. If it is absent or 0, the platform's default
	// applies.
	GracefulTerminationTimeout *int `json:"gracefulTerminationTimeout,omitempty"`
}

// OperationalState is a state that an app instance can be changed to (MEC 010-2 6.2.2.11).
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
	// StopType is only for STOPPED; it defaults to FORCEFUL.
	StopType StopType `json:"stopType,omitempty"`
	// GracefulStopTimeout is in seconds, at least 1; only for GRACEFUL. If it is absent or 0, the platform's default applies.
	GracefulStopTimeout *int `json:"gracefulStopTimeout,omitempty"`
}

// Lifecycle is the life-cycle state of an app instance.
type Lifecycle string

// The states of an app instance.
const (
	// LifecycleKnown: the instance has credentials or has registered itself, but has no configuration.
	LifecycleKnown Lifecycle = "NOT_CONFIGURED"
	// LifecycleConfigured: the instance has a configuration and has not run since it received it.
	LifecycleConfigured Lifecycle = "CONFIGURED"
	// LifecycleStarted: the instance is running, as confirmed by the app or the MEPM.
	LifecycleStarted Lifecycle = "STARTED"
	// LifecycleStopping: the instance is being stopped.
	LifecycleStopping Lifecycle = "STOPPING"
	// LifecycleStopped: the instance was stopped and keeps its configuration.
	LifecycleStopped Lifecycle = "STOPPED"
	// LifecycleTerminating: the instance is being terminated and will be removed.
	LifecycleTerminating Lifecycle = "TERMINATING"
)

// OperationType is the kind of an operation.
type OperationType string

// The operations.
const (
	OperationConfigure   OperationType = "CONFIGURE"
	OperationUnconfigure OperationType = "UNCONFIGURE"
	OperationStart       OperationType = "START"
	OperationStop        OperationType = "STOP"
	OperationTerminate   OperationType = "TERMINATE"
)

// OperationState is the state of an operation (MEC 010-2 6.2.2.14).
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
	// Step describes the current step, for humans.
	Step string `json:"step,omitempty"`
	// Detail says why the operation failed, or what remains to be done after it was completed.
	Detail string `json:"detail,omitempty"`
	// RuleResults holds the result for each rule that the operation concerns.
	RuleResults []RuleResult `json:"ruleResults,omitempty"`
	StartTime   time.Time    `json:"startTime"`
	// StateEnteredTime is when the operation entered OperationState.
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

// RuleKind distinguishes traffic rules from DNS rules.
type RuleKind string

// The kinds of rules.
const (
	TrafficRules RuleKind = "TRAFFIC"
	DNSRules     RuleKind = "DNS"
)

// RuleProgress is the progress of a rule at the reconcilers that apply it.
type RuleProgress string

// The progress of a rule.
const (
	// RulePending: no result has been reported yet.
	RulePending RuleProgress = "PENDING"
	// RuleApplied: the rule is in force.
	RuleApplied RuleProgress = "APPLIED"
	// RuleNotApplied: the rule is not in force because it is not meant to be.
	RuleNotApplied RuleProgress = "INACTIVE"
	// RuleFailed: the rule was refused; it is retried.
	RuleFailed RuleProgress = "FAILED"
)

// RuleResult is the result of applying a rule.
type RuleResult struct {
	Kind   RuleKind     `json:"kind"`
	RuleID string       `json:"ruleId"`
	Result RuleProgress `json:"result"`
	// Reason is present when Result is FAILED.
	Reason string `json:"reason,omitempty"`
	// Reconciler is the name of the reconciler that reported.
	Reconciler string `json:"reconciler,omitempty"`
}

// ConfigurationDiff is the response to a dry run: what the configuration would change.
type ConfigurationDiff struct {
	AppInstanceID string `json:"appInstanceId"`
	// Changed is false when the configuration equals the current one.
	Changed bool `json:"changed"`
	// Creates is true when the instance has no configuration yet.
	Creates      bool     `json:"creates"`
	TrafficRules RuleDiff `json:"trafficRules"`
	DNSRules     RuleDiff `json:"dnsRules"`
	// Members names the other members that would change.
	Members []string `json:"members"`
}

// RuleDiff lists rule ids by what would happen to the rules. No list is null.
type RuleDiff struct {
	Added     []string `json:"added"`
	Changed   []string `json:"changed"`
	Removed   []string `json:"removed"`
	Unchanged []string `json:"unchanged"`
	// Reset lists those of the changed rules that would lose a change by the app.
	Reset []string `json:"reset"`
}

// AppInstance is an app instance as seen by the MEPM.
type AppInstance struct {
	AppInstanceID string    `json:"appInstanceId"`
	AppName       string    `json:"appName,omitempty"`
	Lifecycle     Lifecycle `json:"lifecycle"`
	// Generation counts the configurations; 0 means that there is none.
	Generation int64     `json:"generation"`
	Created    time.Time `json:"created"`
	// Ready is when the app last confirmed that it was ready.
	Ready *time.Time `json:"ready,omitempty"`
	// Operation is the id of the latest operation that the platform still keeps.
	Operation string `json:"operation,omitempty"`
	// Services are the services that the instance offers, with their consumers.
	Services []AppService `json:"services"`
	// Rules holds the results of the instance's rules.
	Rules []RuleResult `json:"rules"`
	// Deliveries holds the delivery state of notifications to the instance.
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
	// Consumers are the app instances that subscribed to the service or declared that they need it: all of them when a single
	// app instance is read, the first 20 in lists.
	Consumers []string `json:"consumers"`
	// ConsumerCount is the total number of consumers.
	ConsumerCount int `json:"consumerCount"`
}

// Delivery is the delivery state of notifications to one subscription.
type Delivery struct {
	SubscriptionID    string    `json:"subscriptionId"`
	SubscriptionType  string    `json:"subscriptionType"`
	CallbackReference string    `json:"callbackReference"`
	Pending           int       `json:"pending"`
	FailingSince      time.Time `json:"failingSince,omitzero"`
	LastError         string    `json:"lastError,omitempty"`
}

// Capabilities describes the capabilities of the platform.
type Capabilities struct {
	// Version is the version of the platform.
	Version string `json:"version"`
	// Features are the features that an app may require, with their versions.
	Features []mp1.FeatureDependency `json:"features"`
	// Transports are the transports of Mp1.
	Transports []mp1.TransportInfo `json:"transports"`
	// Reconcilers are the components that apply rules.
	Reconcilers []Reconciler `json:"reconcilers"`
	Limits      Limits       `json:"limits"`
	// Services are the services offered on the platform.
	Services []AppService `json:"services"`
}

// Reconciler applies rules of one kind.
type Reconciler struct {
	Kind RuleKind `json:"kind"`
	Name string   `json:"name"`
	// Driver is how the reconciler applies rules: none, webhook or another driver.
	Driver string `json:"driver"`
	// Pending is the number of app instances whose rules the reconciler has not reported on yet.
	Pending int `json:"pending"`
	// FailingSince and LastError are present while the reconciler cannot be reached.
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
