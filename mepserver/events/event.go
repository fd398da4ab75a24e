package events

import "github.com/openmep/mep/api/mm5"

// filterable are the event types a client can ask for.
var filterable = []mm5.EventType{mm5.EventApp, mm5.EventService, mm5.EventRule, mm5.EventRuleStatus, mm5.EventOperation}

// ResetReason says why events may be missing. It is also the error of a watch that cannot be resumed.
type ResetReason string

// The reasons.
const (
	// ResetCompacted means that etcd no longer keeps the history since the last event.
	ResetCompacted ResetReason = "COMPACTED"
	// ResetFuture means that the last event is ahead of the store: the store was restored from a backup, or the event is from
	// another store.
	ResetFuture ResetReason = "FUTURE"
	// ResetReplaced means that another store has taken the place of the one that was followed.
	ResetReplaced ResetReason = "REPLACED"
)

// Error implements error.
func (r ResetReason) Error() string { return "events may be missing: " + string(r) }

// event is one event before it has an id.
type event struct {
	name mm5.EventType
	app  string // appInstanceId the event is about; empty for all
	data any
}
