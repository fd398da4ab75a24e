package gateway

import "time"

// The kinds of routes.
const (
	KindPlatform = "platform"
	KindService  = "service"
	KindInstance = "instance"
	KindStatic   = "static"
)

// RouteView is a route as the gateway has it.
type RouteView struct {
	// ID is that of a static route; others are named after what they lead to: "service:NAME", "instance:ID", "platform.mp1".
	ID   string `json:"id"`
	Kind string `json:"kind"`
	// Source is where it comes from: registry, configuration, management, platform.
	Source string `json:"source"`
	// Hosts, Paths, Methods and Headers are what it takes.
	Hosts   []string          `json:"hosts,omitempty"`
	Paths   []string          `json:"paths"`
	Methods []string          `json:"methods,omitempty"`
	Headers map[string]string `json:"headers,omitempty"`
	// HostNames lead to it with every path, which is passed on whole: those of a service or an instance in the domain of services.
	HostNames []string `json:"hostNames,omitempty"`
	Service   string   `json:"service,omitempty"`
	// Policy is the name of the policy that holds: that of the service, "*", or the route's own id.
	Policy string `json:"policy,omitempty"`
	// Targets are what it leads to.
	Targets []TargetView `json:"targets,omitempty"`
	// Revision is the etcd revision of the definition in use, 0 for one of the configuration.
	Revision int64 `json:"revision,omitempty"`
	// Refused says why the latest definition is not in use; what is shown is the one before it, if there was one.
	Refused string `json:"refused,omitempty"`
	// Definition is that of a static route.
	Definition *Route `json:"definition,omitempty"`
}

// TargetView is where calls go.
type TargetView struct {
	URL string `json:"url"`
	// Instance is the serInstanceId, Owner the app instance that offers it.
	Instance string `json:"instance,omitempty"`
	Owner    string `json:"owner,omitempty"`
	// State is up, ejected, unhealthy or refused (an address that is not called).
	State  string `json:"state"`
	Reason string `json:"reason,omitempty"`
	// Active is how many calls are under way, Calls and Failures how many there were.
	Active   int64 `json:"active"`
	Calls    int64 `json:"calls"`
	Failures int64 `json:"failures"`
}

// PolicyView is a policy and where it comes from.
type PolicyView struct {
	// Name is a serName, "*", or the id of a platform route.
	Name   string `json:"name"`
	Source string `json:"source"`
	// Policy is what was defined, Effective what holds: with what the definition leaves open filled in.
	Policy    Policy  `json:"policy"`
	Effective *Policy `json:"effective,omitempty"`
	// Refused says why the latest definition is not in use.
	Refused string `json:"refused,omitempty"`
}

// ExplainRequest describes a call that might be made.
type ExplainRequest struct {
	Method string `json:"method"`
	URL    string `json:"url"`
	// Consumer is who would call, "" for nobody: with a token, or with an API key of theirs if they have one and are no app instance. Scopes
	// are what they would hold; default: those of the key, or mp1.
	Consumer string   `json:"consumer,omitempty"`
	Scopes   []string `json:"scopes,omitempty"`
	// Source is the client's address. Default: 127.0.0.1.
	Source  string            `json:"source,omitempty"`
	Headers map[string]string `json:"headers,omitempty"`

	Unknown Unknown `json:"-" bind:"rest"`
}

// Explanation says what would become of a call.
type Explanation struct {
	// Route is nil when there is none.
	Route *RouteView `json:"route,omitempty"`
	// Outcome is "allowed" or the status the call would get, and why.
	Status int    `json:"status,omitempty"`
	Reason string `json:"reason"`
	// Filters are what the call runs through, in their order.
	Filters []string `json:"filters,omitempty"`
	// Steps are what was looked at, in its order, and what came of it.
	Steps []ExplainStep `json:"steps"`
	// Path is what is passed on.
	Path string `json:"path,omitempty"`
	// Targets are those the call may go to.
	Targets []TargetView `json:"targets,omitempty"`
}

// ExplainStep is one thing that was looked at.
type ExplainStep struct {
	Name   string `json:"name"`
	Result string `json:"result"`
}

// Status is what the gateway says about itself.
type Status struct {
	// Revision is the etcd revision its routes are made of.
	Revision int64 `json:"revision"`
	// Routes and Services count what is in use.
	Routes   int `json:"routes"`
	Services int `json:"services"`
	Policies int `json:"policies"`
	// Refused lists routes and policies whose latest definition is not in use.
	Refused []RefusedDefinition `json:"refused,omitempty"`
	// Loaded is when the configuration was read last, Reloads how often since the start.
	Loaded  time.Time `json:"loaded"`
	Reloads int       `json:"reloads"`
	// NotReloaded says when and why the configuration was read last and did not come into force; absent when it did.
	NotReloaded *FailedReload `json:"notReloaded,omitempty"`
	// Stale says that etcd is away.
	Stale bool `json:"stale"`
	// Filters are the filters of the configuration, in their order.
	Filters []string `json:"filters,omitempty"`
}

// FailedReload is a configuration that did not come into force.
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

// QuotaUse is how much of a quota a consumer has used.
type QuotaUse struct {
	Route    string `json:"route"`
	Consumer string `json:"consumer"`
	Per      string `json:"per"`
	Limit    int64  `json:"limit"`
	// Taken is what the replicas have taken of it, whether used or not.
	Taken int64 `json:"taken"`
	// Window is when the window began, Resets when it ends.
	Window time.Time `json:"window"`
	Resets time.Time `json:"resets"`
}

// The resolutions of statistics.
const (
	StatMinute = "minute"
	StatHour   = "hour"
	StatDay    = "day"
)

// Statistics are counts of calls over time.
type Statistics struct {
	Resolution string    `json:"resolution"`
	From       time.Time `json:"from"`
	To         time.Time `json:"to"`
	Series     []Series  `json:"series"`
}

// Series is the calls of one consumer to one service.
type Series struct {
	Service  string `json:"service"`
	Consumer string `json:"consumer"`
	// Points are the buckets with calls, in the order of time.
	Points []Point `json:"points"`
}

// Point is one bucket.
type Point struct {
	// Time is when it begins, UTC.
	Time time.Time `json:"time"`
	// Calls is how many calls ended, Refused how many of them the gateway itself answered with 4xx, Failed how many got a 5xx.
	Calls   int64 `json:"calls"`
	Refused int64 `json:"refused,omitempty"`
	Failed  int64 `json:"failed,omitempty"`
	// Millis is the sum of their durations in milliseconds, Bytes of what was answered.
	Millis int64 `json:"millis,omitempty"`
	Bytes  int64 `json:"bytes,omitempty"`
}
