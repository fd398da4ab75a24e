package state

import (
	"time"

	"github.com/openmep/mep/api/mm5"
	"github.com/openmep/mep/api/mp1"
)

// The prefixes of what is known of an app instance besides its record. A key is the prefix and the appInstanceId.
const (
	PrefixConfigurations = Root + "configurations/"
	PrefixRegistrations  = Root + "registrations/"
)

// ConfigurationKey is the key of the configuration of an app instance.
func ConfigurationKey(appInstanceID string) string { return PrefixConfigurations + appInstanceID }

// RegistrationKey is the key of what an app instance registered about itself.
func RegistrationKey(appInstanceID string) string { return PrefixRegistrations + appInstanceID }

// App is the record of an app instance.
type App struct {
	Version
	// Name is the name the instance was configured or registered with; may be empty.
	Name string `json:"name,omitempty"`
	// Origin says how the instance became known.
	Origin AppOrigin `json:"origin"`
	// Requires are the names of the services that were declared with its credentials, Configured those its configuration
	// declares as required or optional. Both empty: no declaration.
	Requires   []string `json:"requires,omitempty"`
	Configured []string `json:"configured,omitempty"`
	// Created is when the instance became known.
	Created time.Time `json:"created"`
	// Lifecycle is where the instance is in its life; empty means LifecycleKnown.
	Lifecycle mm5.Lifecycle `json:"lifecycle,omitempty"`
	// Ready is when the app last said that it is ready, zero when it has not.
	Ready time.Time `json:"ready,omitzero"`
	// Generation counts the configurations; 0 before the first.
	Generation int64 `json:"generation,omitempty"`
	// Operation is the id of the last operation the MEPM asked for.
	Operation string `json:"operation,omitempty"`
	// Ending is present while the instance is being stopped or terminated.
	Ending *Ending `json:"ending,omitempty"`
}

// State is the life-cycle state.
func (a *App) State() mm5.Lifecycle {
	if a.Lifecycle == "" {
		return mm5.LifecycleKnown
	}
	return a.Lifecycle
}

// Ending is how far the stop or termination of an app instance has come.
type Ending struct {
	// Action is what the app is told.
	Action mp1.OperationAction `json:"action"`
	// Operation is the operation that asked for it, empty when the app itself did.
	Operation string `json:"operation,omitempty"`
	// Timeout is what the app was promised in seconds, 0 when it is not told.
	Timeout uint32 `json:"timeout,omitempty"`
	// Deadline is when the wait for the app is over.
	Deadline time.Time `json:"deadline"`
	// Confirmed is when the app said that it is done, zero when it has not.
	Confirmed time.Time `json:"confirmed,omitzero"`
	// Step is what is being done.
	Step EndingStep `json:"step"`
	// RulesUntil is when the wait for the rules to be taken back is over; set with StepRules.
	RulesUntil time.Time `json:"rulesUntil,omitzero"`
	// Detail is what there is to say about the steps so far.
	Detail string `json:"detail,omitempty"`
}

// EndingStep is a step of a stop or termination.
type EndingStep string

// The steps, in their order. The last one removes the record, or makes it STOPPED.
const (
	StepNotice        EndingStep = "NOTICE"
	StepRules         EndingStep = "RULES"
	StepServices      EndingStep = "SERVICES"
	StepSubscriptions EndingStep = "SUBSCRIPTIONS"
	StepCredentials   EndingStep = "CREDENTIALS"
	StepEnd           EndingStep = "END"
)

// PrefixEnded is where mepserver says that an app instance was terminated, for mepauth to remove its credentials: those that were not
// written since.
const PrefixEnded = Root + "ended/"

// EndedKey is the key of that for an app instance.
func EndedKey(appInstanceID string) string { return PrefixEnded + appInstanceID }

// Ended says that an app instance was terminated.
type Ended struct {
	Version
	// At is when.
	At time.Time `json:"at"`
}

// AppOrigin says how an app instance became known to the platform.
type AppOrigin string

// The origins besides OriginCredentials.
const (
	// OriginDev marks an instance that was onboarded by its first call, which only development mode allows.
	OriginDev AppOrigin = "dev"
	// OriginMm5 marks an instance the MEPM configured, OriginEdgeGallery one that it configured the way EdgeGallery does.
	OriginMm5         AppOrigin = "mm5"
	OriginEdgeGallery AppOrigin = "edgegallery"
	// OriginRegistration marks an instance that registered itself.
	OriginRegistration AppOrigin = "registration"
)

// Configuration is what the MEPM declared for an app instance, apart from its rules, which have records of their own.
type Configuration struct {
	Version
	// Generation is that of the app instance when the configuration was written.
	Generation int64 `json:"generation"`
	// Operation is the id of the operation that wrote it.
	Operation string `json:"operation"`
	// EdgeGallery says that it came in EdgeGallery's form: the rules are in force at once.
	EdgeGallery bool `json:"edgeGallery,omitempty"`
	// SupportsMp1 is a member of that form.
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

// OperationKey is the key of an operation.
func OperationKey(id string) string { return PrefixOperations + id }

// Operation is an operation the MEPM asked for. How far one is that has not ended is computed from what was reported.
type Operation struct {
	Version
	AppInstanceID string            `json:"app"`
	Type          mm5.OperationType `json:"type"`
	// EdgeGallery says that the operation was asked for in EdgeGallery's way.
	EdgeGallery bool `json:"edgeGallery,omitempty"`
	// Generations are those of the rules that must have been reported, by kind; a kind that has nothing to report is absent.
	Generations map[mm5.RuleKind]int64 `json:"generations,omitempty"`
	// Deadline is when an operation fails that nobody reported on; zero for those that end by themselves.
	Deadline time.Time `json:"deadline,omitzero"`
	// Request identifies what was asked for, so that the same request is recognised.
	Request string    `json:"request,omitempty"`
	Started time.Time `json:"started"`
	// State is COMPLETED or FAILED once the operation has ended; empty before.
	State mm5.OperationState `json:"state,omitempty"`
	Ended time.Time          `json:"ended,omitzero"`
	// Detail and Outcomes are what there was to say at the end.
	Detail   string                   `json:"detail,omitempty"`
	Outcomes map[mm5.RuleKind]Outcome `json:"outcomes,omitempty"`
}

// Outcome is how the rules of one kind fared, by their ids.
type Outcome struct {
	Applied  []string `json:"applied,omitempty"`
	Inactive []string `json:"inactive,omitempty"`
	// Pending are those nobody reported on in time.
	Pending []string `json:"pending,omitempty"`
	// Failed says why they are not in force.
	Failed map[string]string `json:"failed,omitempty"`
}

// The prefixes of rules. All rules of one kind of an app instance are one record, so that they change together.
const (
	PrefixTrafficRules = Root + "rules/traffic/"
	PrefixDNSRules     = Root + "rules/dns/"
)

// TrafficRulesKey is the key of the traffic rules of an app instance.
func TrafficRulesKey(appInstanceID string) string { return PrefixTrafficRules + appInstanceID }

// DNSRulesKey is the key of the DNS rules of an app instance.
func DNSRulesKey(appInstanceID string) string { return PrefixDNSRules + appInstanceID }

// Rules are the rules of one kind of an app instance.
type Rules[R any] struct {
	Version
	// Generation changes whenever those change that are to be in force. Reconcilers report it.
	Generation int64 `json:"generation"`
	// Running says that the app runs: rules are in force only while it does.
	Running bool      `json:"running,omitempty"`
	Rules   []Rule[R] `json:"rules"`
}

// Rule is a rule as it was declared, and as the app changed it.
type Rule[R any] struct {
	Declared R `json:"declared"`
	// Changed is nil as long as the app has not changed the rule.
	Changed *R `json:"changed,omitempty"`
}

// Present is the rule as it is.
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

// StatusKey is the key of what a reconciler reports of an app instance.
func StatusKey(reconciler, appInstanceID string) string {
	return PrefixStatus + reconciler + "/" + appInstanceID
}

// Status is what a reconciler last achieved for an app instance.
type Status struct {
	Version
	// Generation is that of the rules it was given.
	Generation int64 `json:"generation"`
	// Applied are the ids of the rules in force; Failed says why others are not.
	Applied []string          `json:"applied,omitempty"`
	Failed  map[string]string `json:"failed,omitempty"`
	// Reported is when that was.
	Reported time.Time `json:"reported"`
}
