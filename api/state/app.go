package state

import (
	"time"

	"github.com/openmep/mep/api/mm5"
	"github.com/openmep/mep/api/mp1"
)

// The prefixes of the other records of an app instance. A key is the prefix and the appInstanceId.
const (
	PrefixConfigurations = Root + "configurations/"
	PrefixRegistrations  = Root + "registrations/"
)

// ConfigurationKey returns the key of the configuration of an app instance.
func ConfigurationKey(appInstanceID string) string { return PrefixConfigurations + appInstanceID }

// RegistrationKey returns the key of an app instance's own registration.
func RegistrationKey(appInstanceID string) string { return PrefixRegistrations + appInstanceID }

// App is the record of an app instance.
type App struct {
	Version
	// Name is the name the instance was configured or registered with; may be empty.
	Name string `json:"name,omitempty"`
	// Origin says how the instance became known.
	Origin AppOrigin `json:"origin"`
	// Requires are the names of the services declared with the instance's credentials, Configured those that its configuration
	// declares as required or optional. When both are empty, there is no declaration.
	Requires   []string `json:"requires,omitempty"`
	Configured []string `json:"configured,omitempty"`
	// Created is when the instance became known.
	Created time.Time `json:"created"`
	// Lifecycle is the life-cycle state; empty means LifecycleKnown. See State.
	Lifecycle mm5.Lifecycle `json:"lifecycle,omitempty"`
	// Ready is when the app last reported that it is ready, zero when it has not.
	Ready time.Time `json:"ready,omitzero"`
	// Generation counts the configurations; 0 before the first.
	Generation int64 `json:"generation,omitempty"`
	// Operation is the id of the last operation the MEPM requested.
	Operation string `json:"operation,omitempty"`
	// Ending is present while the instance is being stopped or terminated.
	Ending *Ending `json:"ending,omitempty"`
}

// State returns the life-cycle state.
func (a *App) State() mm5.Lifecycle {
	if a.Lifecycle == "" {
		return mm5.LifecycleKnown
	}
	return a.Lifecycle
}

// Ending is the progress of a stop or termination of an app instance.
type Ending struct {
	// Action is what the app is told.
	Action mp1.OperationAction `json:"action"`
	// Operation is the operation that requested it, empty when the app itself did.
	Operation string `json:"operation,omitempty"`
	// Timeout is the time the app was promised, in seconds; 0 when the app is not notified.
	Timeout uint32 `json:"timeout,omitempty"`
	// Deadline is when the wait for the app ends.
	Deadline time.Time `json:"deadline"`
	// Confirmed is when the app confirmed that it is done, zero when it has not.
	Confirmed time.Time `json:"confirmed,omitzero"`
	// Step is the step in progress.
	Step EndingStep `json:"step"`
	// RulesUntil is when the wait for the removal of the rules ends; set with StepRules.
	RulesUntil time.Time `json:"rulesUntil,omitzero"`
	// Detail describes the outcome of the steps so far.
	Detail string `json:"detail,omitempty"`
}

// EndingStep is a step of a stop or termination.
type EndingStep string

// The steps, in order. The last one removes the record, or sets it to STOPPED.
const (
	StepNotice        EndingStep = "NOTICE"
	StepRules         EndingStep = "RULES"
	StepServices      EndingStep = "SERVICES"
	StepSubscriptions EndingStep = "SUBSCRIPTIONS"
	StepCredentials   EndingStep = "CREDENTIALS"
	StepEnd           EndingStep = "END"
)

// PrefixEnded is where mepserver records that an app instance was terminated. mepauth then removes the instance's credentials that
// were not written since.
const PrefixEnded = Root + "ended/"

// EndedKey returns the key of the Ended record of an app instance.
func EndedKey(appInstanceID string) string { return PrefixEnded + appInstanceID }

// Ended says that an app instance was terminated.
type Ended struct {
	Version
	// At is the time of the termination.
	At time.Time `json:"at"`
}

// AppOrigin says how an app instance became known to the platform.
type AppOrigin string

// The origins besides OriginCredentials.
const (
	// OriginDev marks an instance that was onboarded by its first call, which is possible only in development mode.
	OriginDev AppOrigin = "dev"
	// OriginMm5 marks an instance configured by the MEPM, OriginEdgeGallery one that it configured through EdgeGallery's interface.
	OriginMm5         AppOrigin = "mm5"
	OriginEdgeGallery AppOrigin = "edgegallery"
	// OriginRegistration marks an instance that registered itself.
	OriginRegistration AppOrigin = "registration"
)

// Configuration is what the MEPM declared for an app instance, except for its rules, which have their own records.
type Configuration struct {
	Version
	// Generation is the generation of the app instance at the time the configuration was written.
	Generation int64 `json:"generation"`
	// Operation is the id of the operation that wrote it.
	Operation string `json:"operation"`
	// EdgeGallery reports whether the configuration came in EdgeGallery's form: its rules take effect at once.
	EdgeGallery bool `json:"edgeGallery,omitempty"`
	// SupportsMp1 is a member of EdgeGallery's form.
	SupportsMp1 bool `json:"supportsMp1,omitempty"`
	// Request is the configuration without its rules.
	Request mm5.ConfigPlatformForAppRequest `json:"request"`
}

// Registration is what an app instance registered about itself.
type Registration struct {
	Version
	Info mp1.AppInfo `json:"info"`
}

// TerminationSubscription is the record of a subscription to termination notifications.
type TerminationSubscription struct {
	Version
	// CallbackReference is where notifications go.
	CallbackReference string `json:"callbackReference"`
}

// PrefixOperations is where the operations are.
const PrefixOperations = Root + "operations/"

// OperationKey returns the key of an operation.
func OperationKey(id string) string { return PrefixOperations + id }

// Operation is an operation the MEPM requested. The progress of an operation that has not ended is computed from the reconcilers'
// reports.
type Operation struct {
	Version
	AppInstanceID string            `json:"app"`
	Type          mm5.OperationType `json:"type"`
	// EdgeGallery reports whether the operation was requested through EdgeGallery's interface.
	EdgeGallery bool `json:"edgeGallery,omitempty"`
	// Generations holds, by kind, the generation of the rules that must have been reported; kinds with nothing to report are absent.
	Generations map[mm5.RuleKind]int64 `json:"generations,omitempty"`
	// Deadline is when the operation fails if nobody has reported on it; zero for operations that end by themselves.
	Deadline time.Time `json:"deadline,omitzero"`
	// Request identifies the request, so that a repetition of it is recognised.
	Request string    `json:"request,omitempty"`
	Started time.Time `json:"started"`
	// State is COMPLETED or FAILED once the operation has ended; empty before.
	State mm5.OperationState `json:"state,omitempty"`
	Ended time.Time          `json:"ended,omitzero"`
	// Detail and Outcomes describe the result once the operation has ended.
	Detail   string                   `json:"detail,omitempty"`
	Outcomes map[mm5.RuleKind]Outcome `json:"outcomes,omitempty"`
}

// Outcome is the result for the rules of one kind, by rule id.
type Outcome struct {
	Applied  []string `json:"applied,omitempty"`
	Inactive []string `json:"inactive,omitempty"`
	// Pending are the rules nobody reported on in time.
	Pending []string `json:"pending,omitempty"`
	// Failed maps the ids of rules that failed to the reason.
	Failed map[string]string `json:"failed,omitempty"`
}

// The prefixes of rules. All rules of one kind of an app instance form one record, so that they change together.
const (
	PrefixTrafficRules = Root + "rules/traffic/"
	PrefixDNSRules     = Root + "rules/dns/"
)

// TrafficRulesKey returns the key of the traffic rules of an app instance.
func TrafficRulesKey(appInstanceID string) string { return PrefixTrafficRules + appInstanceID }

// DNSRulesKey returns the key of the DNS rules of an app instance.
func DNSRulesKey(appInstanceID string) string { return PrefixDNSRules + appInstanceID }

// Rules are the rules of one kind of an app instance.
type Rules[R any] struct {
	Version
	// Generation changes whenever the set of rules to be in force changes. Reconcilers report it.
	Generation int64 `json:"generation"`
	// Running reports whether the app is running: rules are in force only while it is.
	Running bool      `json:"running,omitempty"`
	Rules   []Rule[R] `json:"rules"`
}

// Rule is a rule as declared and as changed by the app.
type Rule[R any] struct {
	Declared R `json:"declared"`
	// Changed is nil unless the app has changed the rule.
	Changed *R `json:"changed,omitempty"`
}

// Present returns the current version of the rule.
func (r *Rule[R]) Present() *R {
	if r.Changed != nil {
		return r.Changed
	}
	return &r.Declared
}

type (
	// TrafficRules are the traffic rules of an app instance.
	TrafficRules = Rules[mp1.TrafficRule]
	// DNSRules are the DNS rules of an app instance.
	DNSRules = Rules[mp1.DNSRule]
)

// PrefixStatus is where reconcilers report: PREFIX{reconciler}/{appInstanceId}.
const PrefixStatus = Root + "status/"

// StatusKey returns the key of a reconciler's report on an app instance.
func StatusKey(reconciler, appInstanceID string) string {
	return PrefixStatus + reconciler + "/" + appInstanceID
}

// Status is what a reconciler last achieved for an app instance.
type Status struct {
	Version
	// Generation is the generation of the rules the reconciler was given.
	Generation int64 `json:"generation"`
	// Applied lists the ids of the rules in force; Failed maps the ids of others to the reason.
	Applied []string          `json:"applied,omitempty"`
	Failed  map[string]string `json:"failed,omitempty"`
	// Reported is the time of the report.
	Reported time.Time `json:"reported"`
}
