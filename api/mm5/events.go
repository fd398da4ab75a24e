package mm5

import "github.com/openmep/mep/api/mp1"

// EventType is the type of an event in the stream.
type EventType string

// The event types, each with its data type.
const (
	EventApp        EventType = "app"        // AppEvent
	EventService    EventType = "service"    // ServiceEvent
	EventRule       EventType = "rule"       // RuleEvent
	EventRuleStatus EventType = "ruleStatus" // RuleStatusEvent
	EventOperation  EventType = "operation"  // OperationEvent
	// EventReset says that events may be missing and that the lists should be read again. It is sent regardless of filters.
	EventReset EventType = "reset" // ResetEvent
)

// Change is the kind of change of an application instance or a rule.
type Change string

// The changes.
const (
	Created Change = "CREATED" // of an application instance
	Added   Change = "ADDED"   // of a rule
	Changed Change = "CHANGED"
	Removed Change = "REMOVED"
)

// AppEvent reports a change of the life cycle, configuration or name of an application instance, or progress of its ending.
type AppEvent struct {
	AppInstanceID string `json:"appInstanceId"`
	AppName       string `json:"appName,omitempty"`
	// Lifecycle is absent when the instance was removed, PreviousLifecycle when it was created.
	Lifecycle         Lifecycle `json:"lifecycle,omitempty"`
	PreviousLifecycle Lifecycle `json:"previousLifecycle,omitempty"`
	// Generation counts the configurations; 0 means that there is none.
	Generation int64  `json:"generation"`
	Change     Change `json:"change"`
	// Step is the current step of a stop or termination in progress: NOTICE, RULES, SERVICES, SUBSCRIPTIONS, CREDENTIALS or
	// END.
	Step string `json:"step,omitempty"`
}

// ServiceEvent reports a change of a service, as a notification does (MEC 011 8.1.4.2).
type ServiceEvent struct {
	AppInstanceID string `json:"appInstanceId"`
	SerInstanceID string `json:"serInstanceId"`
	SerName       string `json:"serName"`
	// State is the state after the change, or before a removal.
	State      mp1.ServiceState `json:"state"`
	ChangeType mp1.ChangeType   `json:"changeType"`
}

// RuleEvent reports a change of a rule.
type RuleEvent struct {
	AppInstanceID string   `json:"appInstanceId"`
	Kind          RuleKind `json:"kind"`
	RuleID        string   `json:"ruleId"`
	// State is the state that the MEPM or the app set; for a removal, the last one.
	State mp1.RuleState `json:"state"`
	// InForce says whether the rule is to be applied: it is active and its app is running.
	InForce bool   `json:"inForce"`
	Change  Change `json:"change"`
}

// RuleStatusEvent reports the result of applying the rules of an application instance at one reconciler.
type RuleStatusEvent struct {
	AppInstanceID string `json:"appInstanceId"`
	// Reconciler is the name of the reporting reconciler.
	Reconciler string `json:"reconciler"`
	// Generation is the generation of the rules that the reconciler was given.
	Generation int64 `json:"generation"`
	// Applied are the ids of the rules in force; Failed are the other rules, each with the reason. Neither is null.
	Applied []string     `json:"applied"`
	Failed  []FailedRule `json:"failed"`
}

// FailedRule is a rule that is not in force, with the reason.
type FailedRule struct {
	RuleID string `json:"ruleId"`
	Reason string `json:"reason"`
}

// OperationEvent reports that an operation has begun or ended.
type OperationEvent struct {
	OperationID    string         `json:"operationId"`
	AppInstanceID  string         `json:"appInstanceId"`
	LcmOperation   OperationType  `json:"lcmOperation"`
	OperationState OperationState `json:"operationState"`
	// Detail says why the operation failed, or what remains to be done.
	Detail string `json:"detail,omitempty"`
}

// ResetEvent says that events may be missing. The events that follow are for changes after Revision.
type ResetEvent struct {
	// Reason is COMPACTED, FUTURE or REPLACED.
	Reason   string `json:"reason"`
	Revision int64  `json:"revision"`
}
