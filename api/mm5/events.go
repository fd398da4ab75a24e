package mm5

import "github.com/openmep/mep/api/mp1"

// EventType is what an event of the stream is about.
type EventType string

// The types of events, and the data of each.
const (
	EventApp        EventType = "app"        // AppEvent
	EventService    EventType = "service"    // ServiceEvent
	EventRule       EventType = "rule"       // RuleEvent
	EventRuleStatus EventType = "ruleStatus" // RuleStatusEvent
	EventOperation  EventType = "operation"  // OperationEvent
	// EventReset says that events may be missing: the lists are to be read again. It is sent whatever a client filters.
	EventReset EventType = "reset" // ResetEvent
)

// Change says what happened to an application instance or a rule.
type Change string

// The changes.
const (
	Created Change = "CREATED" // of an application instance
	Added   Change = "ADDED"   // of a rule
	Changed Change = "CHANGED"
	Removed Change = "REMOVED"
)

// AppEvent tells of a change of the life cycle, configuration, name or ending of an application instance.
type AppEvent struct {
	AppInstanceID string `json:"appInstanceId"`
	AppName       string `json:"appName,omitempty"`
	// Lifecycle is absent when the instance was removed, PreviousLifecycle when it was created.
	Lifecycle         Lifecycle `json:"lifecycle,omitempty"`
	PreviousLifecycle Lifecycle `json:"previousLifecycle,omitempty"`
	// Generation counts the configurations, 0 without one.
	Generation int64  `json:"generation"`
	Change     Change `json:"change"`
	// Step is how far its stop or termination is while there is one: NOTICE, RULES, SERVICES, SUBSCRIPTIONS, CREDENTIALS or
	// END.
	Step string `json:"step,omitempty"`
}

// ServiceEvent tells of a change of a service, as a notification does (MEC 011 8.1.4.2).
type ServiceEvent struct {
	AppInstanceID string `json:"appInstanceId"`
	SerInstanceID string `json:"serInstanceId"`
	SerName       string `json:"serName"`
	// State is the state after the change, or before a removal.
	State      mp1.ServiceState `json:"state"`
	ChangeType mp1.ChangeType   `json:"changeType"`
}

// RuleEvent tells of a change of a rule.
type RuleEvent struct {
	AppInstanceID string   `json:"appInstanceId"`
	Kind          RuleKind `json:"kind"`
	RuleID        string   `json:"ruleId"`
	// State is what the MEPM or the app set, before a removal the last one.
	State mp1.RuleState `json:"state"`
	// InForce says that the rule is to be applied: it is active and its app runs.
	InForce bool   `json:"inForce"`
	Change  Change `json:"change"`
}

// RuleStatusEvent tells what came of the rules of an application instance at somebody who applies them.
type RuleStatusEvent struct {
	AppInstanceID string `json:"appInstanceId"`
	// Reconciler is who reports.
	Reconciler string `json:"reconciler"`
	// Generation is that of the rules it was given.
	Generation int64 `json:"generation"`
	// Applied are the ids of the rules in force, Failed those of others with the reason. Neither is null.
	Applied []string     `json:"applied"`
	Failed  []FailedRule `json:"failed"`
}

// FailedRule is a rule that is not in force, and why.
type FailedRule struct {
	RuleID string `json:"ruleId"`
	Reason string `json:"reason"`
}

// OperationEvent tells that an operation has begun or ended.
type OperationEvent struct {
	OperationID    string         `json:"operationId"`
	AppInstanceID  string         `json:"appInstanceId"`
	LcmOperation   OperationType  `json:"lcmOperation"`
	OperationState OperationState `json:"operationState"`
	// Detail says why it failed, or what was left to be done.
	Detail string `json:"detail,omitempty"`
}

// ResetEvent tells that events may be missing. Those that follow are of the changes after Revision.
type ResetEvent struct {
	// Reason is COMPACTED, FUTURE or REPLACED.
	Reason   string `json:"reason"`
	Revision int64  `json:"revision"`
}
