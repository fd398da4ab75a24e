// Package gateway defines the types of the gateway's management API: routes, policies, API keys, access requests, statistics, and views of
// the gateway's state.
package gateway

import (
	"encoding/json"
	"time"
)

// Base is the base path of the management API.
const Base = "/gateway/v1"

// AnyService is the name of the policy that applies where there is no other. All others build on it, except for platform routes.
const AnyService = "*"

// The names of the platform's own routes, which may have policies, too.
const (
	RouteAuth = "platform.auth"
	RouteMp1  = "platform.mp1"
	// RouteAccess leads to the access requests (POST /gateway/v1/access_requests).
	RouteAccess = "platform.access"
)

// Duration is a duration in the syntax of Go: "1.5s", "250ms", "1h". "" stands for the default.
type Duration string

// Or returns the duration, or d if t is "" or not a duration.
func (t Duration) Or(d time.Duration) time.Duration {
	if v, err := time.ParseDuration(string(t)); err == nil {
		return v
	}
	return d
}

// Unknown collects the members that a type does not have: a policy with a misspelt member is refused rather than ignored.
type Unknown = map[string]json.RawMessage

// Route is a static route: the requests it matches, and its target. Exactly one of Service and URLs is given.
type Route struct {
	// ID is 1 to 63 letters, digits, "-", "_" and ".", and begins with a letter or digit. It is taken from the path of the request.
	ID string `json:"id,omitempty"`
	// Hosts are the host names that the route matches, without ports; "*" in "*.example.com" stands for one or more labels. None: all.
	Hosts []string `json:"hosts,omitempty"`
	// Paths are the path patterns that the route matches, 1 to 16: literal segments, "*" for exactly one segment, and "**", at the end
	// only, for any number of segments, including none.
	Paths []string `json:"paths"`
	// Methods are the methods that the route matches. None: all.
	Methods []string `json:"methods,omitempty"`
	// Headers are the header fields that a request must have, by name; the value "*" stands for any value.
	Headers map[string]string `json:"headers,omitempty"`
	// Service is the serName of the target service; the route follows its instances.
	Service string `json:"service,omitempty"`
	// URLs are the target URLs, 1 to 64: http, https, or h2c for HTTP/2 without TLS. Calls are balanced between them.
	URLs []string `json:"urls,omitempty"`
	// Strip is the number of leading path segments that are not forwarded.
	Strip int `json:"strip,omitempty"`
	// Rewrite is the path to forward. The segments "{1}" to "{9}" stand for what each "*" matched, in order; "{rest}", at the end, stands
	// for what "**" matched. Rewrite replaces Strip.
	Rewrite string `json:"rewrite,omitempty"`
	// KeepHost forwards the Host of the request. Otherwise Host is that of the URL.
	KeepHost bool `json:"keepHost,omitempty"`
	// Priority decides between routes that match equally well: the higher priority wins, then the id that sorts first.
	Priority int `json:"priority,omitempty"`
	// Policy says who may call, how often, and how.
	Policy Policy `json:"policy,omitzero"`

	Unknown Unknown `json:"-" bind:"rest"`
}

// Method is an authentication method.
type Method string

// The authentication methods.
const (
	ByToken       Method = "token"
	ByAPIKey      Method = "apiKey"
	ByCertificate Method = "certificate"
	// Anonymous admits callers without credentials. Callers with credentials are still identified.
	Anonymous Method = "anonymous"
)

// Effect is the decision about a call.
type Effect string

// The effects.
const (
	Allow Effect = "allow"
	Deny  Effect = "deny"
)

// The ways to share a service.
const (
	// SharingOpen admits every consumer that is entitled to the service.
	SharingOpen = "open"
	// SharingConditional admits consumers whose access request was granted.
	SharingConditional = "conditional"
)

// What happens to calls with a quota while etcd is unavailable and this replica has used up its part of the quota.
const (
	// AwayRefuse answers 503: the quota is never exceeded.
	AwayRefuse = "refuse"
	// AwayAllow lets the calls through uncounted.
	AwayAllow = "allow"
)

// Policy says who may call the target of a route, how often, and how. Absent members are inherited: a route to a service inherits from the
// policy of the service, other policies from the policy "*", and that policy and those of the platform's routes from the settings of the
// gateway. A list that is present but empty inherits nothing. Flags and numbers set by "*" can be replaced, but not reset.
type Policy struct {
	// Authentication lists the accepted authentication methods; any one suffices. Default: token, apiKey, certificate.
	Authentication []Method `json:"authentication,omitzero"`
	// Scopes are the scopes that callers must hold, all of them, unless they are anonymous. Default: mp1.
	Scopes []string `json:"scopes,omitzero"`
	// KeepAuthorization forwards the Authorization header field. The target can then act as the caller.
	KeepAuthorization bool `json:"keepAuthorization,omitempty"`
	// Claims maps names of header fields to names of token claims, which are forwarded in these fields.
	Claims map[string]string `json:"claims,omitzero"`
	// Rules decide about calls: the first rule that matches wins. Default decides if none does; "" is allow.
	Rules   []Rule `json:"rules,omitzero"`
	Default Effect `json:"default,omitempty"`
	// Sharing is open or conditional. Default: open, or what the app says in its registration: transportInfo.implSpecificInfo {"gateway":
	// {"sharing": "conditional"}}.
	Sharing string `json:"sharing,omitempty"`
	// ExternalAuth has an external server decide about every call.
	ExternalAuth *ExternalAuth `json:"externalAuth,omitempty"`
	// Quotas limit the number of calls of each consumer. At most 4.
	Quotas []Quota `json:"quotas,omitzero"`
	// SpikeArrest smooths the calls of each consumer.
	SpikeArrest *SpikeArrest `json:"spikeArrest,omitempty"`
	// Concurrent is the maximum number of calls of one consumer in flight in one replica; 0: no limit.
	Concurrent int `json:"concurrent,omitempty"`
	// WhenStoreAway is refuse or allow. Default: refuse.
	WhenStoreAway string `json:"whenStoreAway,omitempty"`
	// MaxBody is the maximum size of a request body in bytes; -1: no limit; 0: the gateway's setting.
	MaxBody int64 `json:"maxBody,omitempty"`
	// Timeouts bound the waits for the target.
	Timeouts Timeouts `json:"timeouts,omitzero"`
	// Upstream says how targets are reached.
	Upstream Upstream `json:"upstream,omitzero"`
	// Headers says which header fields are set and removed.
	Headers Headers `json:"headers,omitzero"`
	// Owners are the app instances whose instances of the service may be called. None: any app may offer the service under its name.
	Owners []string `json:"owners,omitzero"`
	// ExcludeFilters are the names of configured filters that calls do not pass through.
	ExcludeFilters []string `json:"excludeFilters,omitzero"`

	Unknown Unknown `json:"-" bind:"rest"`
}

// Rule decides about the calls that meet all of its conditions.
type Rule struct {
	Effect Effect `json:"effect"`
	// Consumers are the names of callers, usually appInstanceIds. None: all.
	Consumers []string `json:"consumers,omitempty"`
	// Scopes are scopes of which the caller must hold one. None: any.
	Scopes []string `json:"scopes,omitempty"`
	// Sources are client networks, as CIDR or single addresses. None: all.
	Sources []string `json:"sources,omitempty"`
	// Methods are the methods of the request. None: all.
	Methods []string `json:"methods,omitempty"`
	// Paths are patterns as in Route.Paths, matched against the path that is forwarded. None: all.
	Paths []string `json:"paths,omitempty"`

	Unknown Unknown `json:"-" bind:"rest"`
}

// ExternalAuth is an authorisation server that decides about calls: 2xx lets pass, 401, 402 and 403 refuse with their bodies.
type ExternalAuth struct {
	// URL receives a POST of ExternalAuthRequest as JSON.
	URL string `json:"url"`
	// Headers are the names of the request header fields that are sent. Authorization and Cookie are sent only if named.
	Headers []string `json:"headers,omitempty"`
	// Body is the maximum number of bytes of the request body that are sent; 0: none. Requests with a larger body get 413.
	Body int `json:"body,omitempty"`
	// Return are the names of the header fields of a 2xx response that are forwarded with the request.
	Return []string `json:"return,omitempty"`
	// Timeout bounds the external request. Default: 1s.
	Timeout Duration `json:"timeout,omitempty"`
	// FailOpen lets calls pass if there is no usable response. Otherwise they get 503.
	FailOpen bool `json:"failOpen,omitempty"`
	// Cache is how long a decision is cached for equal requests. Default: no caching. Requests with a body are never cached.
	Cache Duration `json:"cache,omitempty"`

	Unknown Unknown `json:"-" bind:"rest"`
}

// ExternalAuthRequest is the request to an external authorisation server.
type ExternalAuthRequest struct {
	RequestID string              `json:"requestId"`
	Method    string              `json:"method"`
	Host      string              `json:"host"`
	Path      string              `json:"path"`
	Query     string              `json:"query,omitempty"`
	Headers   map[string][]string `json:"headers,omitempty"`
	// Body is the request body in base64, if the policy sends it.
	Body     []byte   `json:"body,omitempty"`
	Client   string   `json:"client"`
	Consumer string   `json:"consumer,omitempty"`
	Scopes   []string `json:"scopes,omitempty"`
	Route    string   `json:"route"`
	Service  string   `json:"service,omitempty"`
}

// The windows of quotas. They are calendar minutes, hours, days and months in UTC.
const (
	PerMinute = "minute"
	PerHour   = "hour"
	PerDay    = "day"
	PerMonth  = "month"
)

// Quota limits the calls of a consumer in a window, counted over all replicas of the gateway.
type Quota struct {
	// Calls is the maximum number of calls, 1 to 1e12.
	Calls int64 `json:"calls"`
	// Per is minute, hour, day or month.
	Per string `json:"per"`

	Unknown Unknown `json:"-" bind:"rest"`
}

// SpikeArrest lets the calls of a consumer through at an even pace, in each replica.
type SpikeArrest struct {
	// Calls is the number of calls per second or minute.
	Calls int    `json:"calls"`
	Per   string `json:"per"`
	// Buffer is how many calls that come too early may wait for their turn; further calls get 429.
	Buffer int `json:"buffer,omitempty"`

	Unknown Unknown `json:"-" bind:"rest"`
}

// PerSecond is the other unit of SpikeArrest.Per, besides PerMinute.
const PerSecond = "second"

// Timeouts bound waits. "0s" means no bound.
type Timeouts struct {
	// Connect bounds the time to establish a connection. Default: 5s.
	Connect Duration `json:"connect,omitempty"`
	// Response bounds the time from the end of the request to the header of the response. Default: 60s.
	Response Duration `json:"response,omitempty"`
	// Idle is how long a body or an upgraded connection may be silent. Default: 5m.
	Idle Duration `json:"idle,omitempty"`
	// Total bounds the whole call. Default: none.
	Total Duration `json:"total,omitempty"`

	Unknown Unknown `json:"-" bind:"rest"`
}

// Upstream says how targets are reached.
type Upstream struct {
	// CA is one or more PEM certificates that verify the target's certificate, in place of those of the system.
	CA string `json:"ca,omitempty"`
	// ClientCertificate is the name of a configured client certificate (gateway.clientCertificates) to present.
	ClientCertificate string `json:"clientCertificate,omitempty"`
	// ServerName is the name that the target's certificate must be valid for, and the SNI. Default: the host of the URL.
	ServerName string `json:"serverName,omitempty"`
	// Proxy is the URL of an HTTP proxy. Default: the proxy of the gateway's configuration and environment. "none": no proxy.
	Proxy string `json:"proxy,omitempty"`
	// Retries is how often a request that could not be delivered is retried with another target, if it may be repeated. Default: 2; -1:
	// never.
	Retries int `json:"retries,omitempty"`
	// HealthCheck probes the targets. Default: health is known from calls only.
	HealthCheck *HealthCheck `json:"healthCheck,omitempty"`
	// EjectAfter is the number of consecutive failures after which a target is ejected for EjectFor. Default: 5 and 10s; -1: never.
	EjectAfter int      `json:"ejectAfter,omitempty"`
	EjectFor   Duration `json:"ejectFor,omitempty"`
	// SlowStart is the time over which a new target ramps up to its full share. Default: 0s.
	SlowStart Duration `json:"slowStart,omitempty"`

	Unknown Unknown `json:"-" bind:"rest"`
}

// HealthCheck is a GET request that a target must answer with 2xx or 3xx.
type HealthCheck struct {
	// Path is the path of the request, below the URL of the target.
	Path string `json:"path"`
	// Interval is the time between two checks. Default: 5s, at least 100ms.
	Interval Duration `json:"interval,omitempty"`
	// Timeout bounds one check. Default: 1s.
	Timeout Duration `json:"timeout,omitempty"`
	// Healthy and Unhealthy are the numbers of consecutive results that change the state. Default: 1 and 2.
	Healthy   int `json:"healthy,omitempty"`
	Unhealthy int `json:"unhealthy,omitempty"`

	Unknown Unknown `json:"-" bind:"rest"`
}

// Headers says which header fields are set and removed.
type Headers struct {
	// Forwarded (RFC 7239), XForwarded (X-Forwarded-For, -Host and -Proto), Via (RFC 9110 7.6.3) and RequestID (X-Request-Id) say whether
	// these fields are sent. Default: the gateway's setting gateway.headers.
	Forwarded  *bool `json:"forwarded,omitempty"`
	XForwarded *bool `json:"xForwarded,omitempty"`
	Via        *bool `json:"via,omitempty"`
	RequestID  *bool `json:"requestId,omitempty"`
	// Set and Remove change the fields of requests, SetResponse and RemoveResponse those of responses.
	Set            map[string]string `json:"set,omitzero"`
	Remove         []string          `json:"remove,omitzero"`
	SetResponse    map[string]string `json:"setResponse,omitzero"`
	RemoveResponse []string          `json:"removeResponse,omitzero"`

	Unknown Unknown `json:"-" bind:"rest"`
}

// APIKey is an API key of a consumer. The key itself is shown once, when it is created.
type APIKey struct {
	// ID is assigned by the gateway.
	ID string `json:"id"`
	// Consumer is the holder of the key: an appInstanceId, or a name of 1 to 63 letters, digits and characters of "-_.~:@".
	Consumer string `json:"consumer"`
	// Description is a free text of at most 255 characters.
	Description string `json:"description,omitempty"`
	// Scopes are the scopes of the holder. Default: mp1.
	Scopes []string `json:"scopes,omitempty"`
	// Services are the serNames of the services that the key is valid for. None: all services that the consumer may use.
	Services []string `json:"services,omitempty"`
	// Expires is when the key expires; absent: never.
	Expires time.Time `json:"expires,omitzero"`
	// Created is when the key was created.
	Created time.Time `json:"created,omitzero"`
	// Key is the key itself. It is present only in the response that creates it.
	Key string `json:"key,omitempty"`
}

// APIKeyRequest asks for a key.
type APIKeyRequest struct {
	Consumer    string   `json:"consumer"`
	Description string   `json:"description,omitempty"`
	Scopes      []string `json:"scopes,omitempty"`
	Services    []string `json:"services,omitempty"`
	// Lifetime is how long the key is valid; "": forever.
	Lifetime Duration `json:"lifetime,omitempty"`

	Unknown Unknown `json:"-" bind:"rest"`
}

// AccessState is the state of an access request.
type AccessState string

// The states of an access request.
const (
	AccessPending AccessState = "PENDING"
	AccessGranted AccessState = "GRANTED"
	AccessRefused AccessState = "REFUSED"
)

// AccessRequest is a consumer's request to use a conditionally shared service.
type AccessRequest struct {
	// ID is assigned by the gateway.
	ID string `json:"id"`
	// Consumer is the consumer that asks for access.
	Consumer string `json:"consumer"`
	// SerName is the service, Owner the app instance that offers it.
	SerName string `json:"serName"`
	Owner   string `json:"owner"`
	// Purpose is a text from the consumer, Reason a text from whoever decided; at most 1000 characters each.
	Purpose string      `json:"purpose,omitempty"`
	State   AccessState `json:"state"`
	Reason  string      `json:"reason,omitempty"`
	// DecidedBy is the owner or a manager.
	DecidedBy string    `json:"decidedBy,omitempty"`
	Created   time.Time `json:"created"`
	Decided   time.Time `json:"decided,omitzero"`
}

// AccessApplication asks for access. Exactly one of SerName and SerInstanceID is given.
type AccessApplication struct {
	SerName       string `json:"serName,omitempty"`
	SerInstanceID string `json:"serInstanceId,omitempty"`
	Purpose       string `json:"purpose,omitempty"`
	// Consumer is for managers, who apply for others. Default: the caller.
	Consumer string `json:"consumer,omitempty"`

	Unknown Unknown `json:"-" bind:"rest"`
}

// AccessDecision grants or refuses an access request.
type AccessDecision struct {
	// State is GRANTED or REFUSED.
	State  AccessState `json:"state"`
	Reason string      `json:"reason,omitempty"`

	Unknown Unknown `json:"-" bind:"rest"`
}
