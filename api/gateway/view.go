package gateway

import "time"

// The kinds of routes.
const (
	KindPlatform = "platform"
	KindService  = "service"
	KindInstance = "instance"
	KindStatic   = "static"
)

// RouteView describes a route of the gateway.
type RouteView struct {
	// ID is the id of a static route; other routes are named after their target: "service:NAME", "instance:ID", "platform.mp1".
	ID   string `json:"id"`
	Kind string `json:"kind"`
	// Source is the origin of the route: registry, configuration, management or platform.
	Source string `json:"source"`
	// Hosts, Paths, Methods and Headers are the conditions that requests must meet.
	Hosts   []string          `json:"hosts,omitempty"`
	Paths   []string          `json:"paths"`
	Methods []string          `json:"methods,omitempty"`
	Headers map[string]string `json:"headers,omitempty"`
	// HostNames are the names of a service or instance in the domain of services. They match all paths, which are forwarded unchanged.
	HostNames []string `json:"hostNames,omitempty"`
	Service   string   `json:"service,omitempty"`
	// Policy is the name of the policy in force: the name of the service, "*", or the id of the route itself.
	Policy string `json:"policy,omitempty"`
	// Targets are the targets of the route.
	Targets []TargetView `json:"targets,omitempty"`
	// Revision is the etcd revision of the definition in use; 0 for a definition from the configuration.
	Revision int64 `json:"revision,omitempty"`
	// Refused says why the latest definition is not in use. The view then shows the previous definition, if there was one.
	Refused string `json:"refused,omitempty"`
	// Definition is the definition of a static route.
	Definition *Route `json:"definition,omitempty"`
}

// TargetView describes a target of calls.
type TargetView struct {
	URL string `json:"url"`
	// Instance is the serInstanceId, Owner the app instance that offers the service.
	Instance string `json:"instance,omitempty"`
	Owner    string `json:"owner,omitempty"`
	// State is up, ejected, unhealthy or refused (the gateway does not call the address).
	State  string `json:"state"`
	Reason string `json:"reason,omitempty"`
	// Active is the number of calls in flight; Calls and Failures are totals.
	Active   int64 `json:"active"`
	Calls    int64 `json:"calls"`
	Failures int64 `json:"failures"`
}

// PolicyView describes a policy and its origin.
type PolicyView struct {
	// Name is a serName, "*", or the id of a platform route.
	Name   string `json:"name"`
	Source string `json:"source"`
	// Policy is the policy as defined, Effective the policy in force, with the members that the definition leaves open filled in.
	Policy    Policy  `json:"policy"`
	Effective *Policy `json:"effective,omitempty"`
	// Refused says why the latest definition is not in use.
	Refused string `json:"refused,omitempty"`
}

// ExplainRequest describes a hypothetical call.
type ExplainRequest struct {
	Method string `json:"method"`
	URL    string `json:"url"`
	// Consumer is the caller; "" means an anonymous caller. The caller sends a token, or an API key if it has one and is not an app
	// instance. Scopes are the scopes of the caller; default: those of the key, or mp1.
	Consumer string   `json:"consumer,omitempty"`
	Scopes   []string `json:"scopes,omitempty"`
	// Source is the client's address. Default: 127.0.0.1.
	Source  string            `json:"source,omitempty"`
	Headers map[string]string `json:"headers,omitempty"`

	Unknown Unknown `json:"-" bind:"rest"`
}

// Explanation says what would happen to a call.
type Explanation struct {
	// Route is nil when no route matches.
	Route *RouteView `json:"route,omitempty"`
	// Status is the status that the gateway itself would answer, 0 if it would let the call through. Reason is "allowed" or an explanation.
	Status int    `json:"status,omitempty"`
	Reason string `json:"reason"`
	// Filters are the filters that the call passes through, in order.
	Filters []string `json:"filters,omitempty"`
	// Steps are the checks that were made, in order, with their results.
	Steps []ExplainStep `json:"steps"`
	// Path is the path that is forwarded.
	Path string `json:"path,omitempty"`
	// Targets are the targets that the call may be sent to.
	Targets []TargetView `json:"targets,omitempty"`
}

// ExplainStep is one check and its result.
type ExplainStep struct {
	Name   string `json:"name"`
	Result string `json:"result"`
}

// Status is the status of the gateway.
type Status struct {
	// Revision is the etcd revision that the routes were built from.
	Revision int64 `json:"revision"`
	// Routes and Services are the numbers in use.
	Routes   int `json:"routes"`
	Services int `json:"services"`
	Policies int `json:"policies"`
	// Refused lists the routes and policies whose latest definition is not in use.
	Refused []RefusedDefinition `json:"refused,omitempty"`
	// Loaded is when the configuration was last read, Reloads the number of reloads since the start.
	Loaded  time.Time `json:"loaded"`
	Reloads int       `json:"reloads"`
	// NotReloaded says when and why the last reload of the configuration failed; absent when it succeeded.
	NotReloaded *FailedReload `json:"notReloaded,omitempty"`
	// Stale reports whether etcd is unavailable.
	Stale bool `json:"stale"`
	// Filters are the names of the configured filters, in order.
	Filters []string `json:"filters,omitempty"`
}

// FailedReload is a reload of the configuration that failed.
type FailedReload struct {
	Time   time.Time `json:"time"`
	Reason string    `json:"reason"`
}

// RefusedDefinition is a definition that is not in use.
type RefusedDefinition struct {
	Kind   string `json:"kind"`
	ID     string `json:"id"`
	Source string `json:"source"`
	Reason string `json:"reason"`
}

// QuotaUse says how much of a quota a consumer has used.
type QuotaUse struct {
	Route    string `json:"route"`
	Consumer string `json:"consumer"`
	Per      string `json:"per"`
	Limit    int64  `json:"limit"`
	// Taken is how much the replicas have taken from the quota, whether used or not.
	Taken int64 `json:"taken"`
	// Window is the start of the window, Resets its end.
	Window time.Time `json:"window"`
	Resets time.Time `json:"resets"`
}

// The resolutions of statistics.
const (
	StatMinute = "minute"
	StatHour   = "hour"
	StatDay    = "day"
)

// Statistics are numbers of calls over time.
type Statistics struct {
	Resolution string    `json:"resolution"`
	From       time.Time `json:"from"`
	To         time.Time `json:"to"`
	Series     []Series  `json:"series"`
}

// Series counts the calls of one consumer to one service.
type Series struct {
	Service  string `json:"service"`
	Consumer string `json:"consumer"`
	// Points are the buckets that have calls, in chronological order.
	Points []Point `json:"points"`
}

// Point is one bucket.
type Point struct {
	// Time is the start of the bucket, in UTC.
	Time time.Time `json:"time"`
	// Calls is the number of calls that ended, Refused those that the gateway itself answered with 4xx, Failed those with 5xx.
	Calls   int64 `json:"calls"`
	Refused int64 `json:"refused,omitempty"`
	Failed  int64 `json:"failed,omitempty"`
	// Millis is the sum of the durations in milliseconds, Bytes the sum of the sizes of the responses.
	Millis int64 `json:"millis,omitempty"`
	Bytes  int64 `json:"bytes,omitempty"`
}
