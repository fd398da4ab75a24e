package events

import (
	"github.com/openmep/mep/api/mm5"
	"github.com/openmep/mep/api/mp1"
	"github.com/openmep/mep/api/state"
)

// Type is the name of an event.
type Type string

// The types of events, and the data of each.
const (
	TypeApp        Type = "app"        // App
	TypeService    Type = "service"    // Service
	TypeRule       Type = "rule"       // Rule
	TypeRuleStatus Type = "ruleStatus" // RuleStatus
	TypeOperation  Type = "operation"  // Operation
	// TypeReset is sent whatever a client filters.
	TypeReset Type = "reset" // Reset
)

// filterable are the types a client can ask for.
var filterable = []Type{TypeApp, TypeService, TypeRule, TypeRuleStatus, TypeOperation}

// Change says what happened to a record.
type Change string

// The changes.
const (
	Created Change = "CREATED" // of an app instance
	Added   Change = "ADDED"   // of a rule
	Changed Change = "CHANGED"
	Removed Change = "REMOVED"
)

// App tells of a change of an app instance's life cycle, configuration, name or ending.
type App struct {
	AppInstanceID string `json:"appInstanceId"`
	AppName       string `json:"appName,omitempty"`
	// Lifecycle is absent when the instance was removed, PreviousLifecycle when it was created.
	Lifecycle         mm5.Lifecycle `json:"lifecycle,omitempty"`
	PreviousLifecycle mm5.Lifecycle `json:"previousLifecycle,omitempty"`
	// Generation counts the configurations, 0 without one.
	Generation int64  `json:"generation"`
	Change     Change `json:"change"`
	// Step is how far the instance's stop or termination is, present while there is one.
	Step state.EndingStep `json:"step,omitempty"`
}

// Service tells of a change of a service, as a notification does (MEC 011 8.1.4.2).
type Service struct {
	AppInstanceID string `json:"appInstanceId"`
	SerInstanceID string `json:"serInstanceId"`
	SerName       string `json:"serName"`
	// State is the state after the change, or before a removal.
	State      mp1.ServiceState `json:"state"`
	ChangeType mp1.ChangeType   `json:"changeType"`
}

// Rule tells of a change of a rule.
type Rule struct {
	AppInstanceID string       `json:"appInstanceId"`
	Kind          mm5.RuleKind `json:"kind"`
	RuleID        string       `json:"ruleId"`
	// State is what the MEPM or the app set, before a removal the last one.
	State mp1.RuleState `json:"state"`
	// InForce says that the rule is to be applied: it is active and its app runs.
	InForce bool   `json:"inForce"`
	Change  Change `json:"change"`
}

// RuleStatus tells what a reconciler achieved.
type RuleStatus struct {
	AppInstanceID string `json:"appInstanceId"`
	Reconciler    string `json:"reconciler"`
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

// Operation tells that an operation has begun or ended.
type Operation struct {
	OperationID    string             `json:"operationId"`
	AppInstanceID  string             `json:"appInstanceId"`
	LcmOperation   mm5.OperationType  `json:"lcmOperation"`
	OperationState mm5.OperationState `json:"operationState"`
	Detail         string             `json:"detail,omitempty"`
}

// Reset tells that events may be missing: the client is to read the lists again. The events that follow are those after the
// revision.
type Reset struct {
	Reason   ResetReason `json:"reason"`
	Revision int64       `json:"revision"`
}

// ResetReason says why events may be missing. It is also the error of a watch that cannot be gone on with.
type ResetReason string

// The reasons.
const (
	// ResetCompacted says that etcd does not keep the history since the last event any more.
	ResetCompacted ResetReason = "COMPACTED"
	// ResetFuture says that the last event is ahead of the store, which was restored from a backup, or that it is another one's.
	ResetFuture ResetReason = "FUTURE"
	// ResetReplaced says that another store has taken the place of the one that was followed.
	ResetReplaced ResetReason = "REPLACED"
)

// Error implements error.
func (r ResetReason) Error() string { return "events may be missing: " + string(r) }

// event is one event before it has an id.
type event struct {
	name Type
	app  string // the appInstanceId it is about, empty for all
	data any
}
