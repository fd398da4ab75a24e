// Package gateway holds the data types of the gateway's management: routes, policies, API keys, access requests, statistics, and what
// the gateway says about itself.
package gateway

import (
	"encoding/json"
	"time"
)

// Base is the path of the management.
const Base = "/gateway/v1"

// AnyService is the name of the policy that all others are built on, and that holds where there is none.
const AnyService = "*"

// The names of the platform's own routes, which policies can be given for, too.
const (
	RouteAuth = "platform.auth"
	RouteMp1  = "platform.mp1"
	// RouteAccess leads to the access requests (POST /gateway/v1/access_requests).
	RouteAccess = "platform.access"
)

// Duration is a span of time as Go writes it: "1.5s", "250ms", "1h". "" is the default.
type Duration string

// Or returns the duration, and d when it is "" or none.
func (t Duration) Or(d time.Duration) time.Duration {
	if v, err := time.ParseDuration(string(t)); err == nil {
		return v
	}
	return d
}

// Unknown collects the members a type does not have: a policy that was misspelt is refused rather than not applied.
type Unknown = map[string]json.RawMessage

// Route is a static route: which requests it takes, and where it leads to. Exactly one of Service and URLs is given.
type Route struct {
	// ID is 1 to 63 letters, digits, "-", "_" and ".", and begins with a letter or digit. Assigned by the path of the request.
	ID string `json:"id,omitempty"`
	// Hosts are the host names it takes, without ports: exact ones or "*.example.com", which stands for one or more labels. None: all.
	Hosts []string `json:"hosts,omitempty"`
	// Paths are the paths it takes, 1 to 16: literal segments, "*" for exactly one segment, and at the end "**" for any number of
	// them, none included.
	Paths []string `json:"paths"`
	// Methods are the methods it takes. None: all.
	Methods []string `json:"methods,omitempty"`
	// Headers are header fields a request must have, by name; the value "*" stands for any.
	Headers map[string]string `json:"headers,omitempty"`
	// Service is the serName of the service it leads to, whichever instances of it there are.
	Service string `json:"service,omitempty"`
	// URLs are what it leads to, 1 to 64 of them: http, https, or h2c for HTTP/2 without TLS. Load is balanced between them.
	URLs []string `json:"urls,omitempty"`
	// Strip is how many leading segments of the path are not passed on.
	Strip int `json:"strip,omitempty"`
	// Rewrite is the path that is passed on: the segments "{1}" to "{9}" stand for what the "*" matched, in their order, "{rest}", at the
	// end, for what "**" did. It replaces Strip.
	Rewrite string `json:"rewrite,omitempty"`
	// KeepHost passes the Host of the request on. Otherwise it is that of the URL.
	KeepHost bool `json:"keepHost,omitempty"`
	// Priority decides between routes that match alike; the higher one wins, then the one whose id comes first.
	Priority int `json:"priority,omitempty"`
	// Policy says who may call, how often, and how.
	Policy Policy `json:"policy,omitzero"`

	Unknown Unknown `json:"-" bind:"rest"`
}

// Method is a way to prove who one is.
type Method string

// The ways.
const (
	ByToken       Method = "token"
	ByAPIKey      Method = "apiKey"
	ByCertificate Method = "certificate"
	// Anonymous lets callers in who prove nothing. Who proves something is known nevertheless.
	Anonymous Method = "anonymous"
)

// Effect is what is decided about a call.
type Effect string

// The effects.
const (
	Allow Effect = "allow"
	Deny  Effect = "deny"
)

// The ways services are shared.
const (
	// SharingOpen lets every consumer in who is entitled to the service.
	SharingOpen = "open"
	// SharingConditional lets consumers in whose access request was granted.
	SharingConditional = "conditional"
)

// What happens to calls with a quota while etcd is away and what this replica holds of the quota is used up.
const (
	// AwayRefuse answers 503: no more calls are let through than the quota says.
	AwayRefuse = "refuse"
	// AwayAllow lets them through uncounted.
	AwayAllow = "allow"
)

// Policy says who may call what a route leads to, how often, and how. What is absent is as the policy "*" says, for a route to a
// service as that of the service does, and else as the gateway's settings say; a list that is there and empty takes nothing over. Flags and numbers that "*" sets can be replaced
// by others, but not taken back.
type Policy struct {
	// Authentication are the ways callers may prove who they are: any of them. Default: token, apiKey, certificate.
	Authentication []Method `json:"authentication,omitzero"`
	// Scopes is what callers must hold, all of them, unless they are anonymous. Default: mp1.
	Scopes []string `json:"scopes,omitzero"`
	// KeepAuthorization passes the Authorization header field on. What it leads to can then act as the caller.
	KeepAuthorization bool `json:"keepAuthorization,omitempty"`
	// Claims passes claims of the token on: the name of a header field to the name of a claim.
	Claims map[string]string `json:"claims,omitzero"`
	// Rules decide about calls: the first that matches. Default decides about the rest; "" is allow.
	Rules   []Rule `json:"rules,omitzero"`
	Default Effect `json:"default,omitempty"`
	// Sharing is open or conditional. Default: open, or what the app says in its registration: transportInfo.implSpecificInfo
	// {"gateway": {"sharing": "conditional"}}.
	Sharing string `json:"sharing,omitempty"`
	// ExternalAuth asks somebody else about every call.
	ExternalAuth *ExternalAuth `json:"externalAuth,omitempty"`
	// Quotas are how many calls each consumer may make, at most 4.
	Quotas []Quota `json:"quotas,omitzero"`
	// SpikeArrest smoothes the calls of each consumer.
	SpikeArrest *SpikeArrest `json:"spikeArrest,omitempty"`
	// Concurrent is how many calls of one consumer may be under way at a time in one replica; 0: any number.
	Concurrent int `json:"concurrent,omitempty"`
	// WhenStoreAway is refuse or allow. Default: refuse.
	WhenStoreAway string `json:"whenStoreAway,omitempty"`
	// MaxBody is the largest request body in bytes, -1 for any; 0: the gateway's setting.
	MaxBody int64 `json:"maxBody,omitempty"`
	// Timeouts bound the wait for what the route leads to.
	Timeouts Timeouts `json:"timeouts,omitzero"`
	// Upstream says how it is reached.
	Upstream Upstream `json:"upstream,omitzero"`
	// Headers says what becomes of header fields.
	Headers Headers `json:"headers,omitzero"`
	// Owners are the app instances whose instances of the service calls go to. None: any app may offer the service by its name.
	Owners []string `json:"owners,omitzero"`
	// ExcludeFilters names filters of the gateway's configuration that calls do not run through.
	ExcludeFilters []string `json:"excludeFilters,omitzero"`

	Unknown Unknown `json:"-" bind:"rest"`
}

// Rule decides about the calls that meet all of its conditions.
type Rule struct {
	Effect Effect `json:"effect"`
	// Consumers are the names of callers, appInstanceIds in general. None: all.
	Consumers []string `json:"consumers,omitempty"`
	// Scopes are scopes the caller must hold one of. None: any.
	Scopes []string `json:"scopes,omitempty"`
	// Sources are networks the client must be in one of, as CIDR or addresses. None: all.
	Sources []string `json:"sources,omitempty"`
	// Methods are the methods of the request. None: all.
	Methods []string `json:"methods,omitempty"`
	// Paths are patterns as in Route.Paths for the path as it is passed on. None: all.
	Paths []string `json:"paths,omitempty"`

	Unknown Unknown `json:"-" bind:"rest"`
}

// ExternalAuth is a call-out that decides about calls: 2xx lets pass, 401, 402 and 403 refuse with their bodies.
type ExternalAuth struct {
	// URL is asked with a POST of ExternalAuthRequest as JSON.
	URL string `json:"url"`
	// Headers are the names of the header fields of the request that are passed. Authorization and Cookie only when named.
	Headers []string `json:"headers,omitempty"`
	// Body is how many bytes of the request's body are passed at most; 0: none. Requests with a larger body get 413.
	Body int `json:"body,omitempty"`
	// Return are the names of header fields of a 2xx answer that are passed on with the request.
	Return []string `json:"return,omitempty"`
	// Timeout bounds the question. Default: 1s.
	Timeout Duration `json:"timeout,omitempty"`
	// FailOpen lets calls pass when there is no usable answer. Otherwise they get 503.
	FailOpen bool `json:"failOpen,omitempty"`
	// Cache is how long a decision holds for equal questions. Default: not at all. Questions with a body are never remembered.
	Cache Duration `json:"cache,omitempty"`

	Unknown Unknown `json:"-" bind:"rest"`
}

// ExternalAuthRequest is what an external authorisation is asked.
type ExternalAuthRequest struct {
	RequestID string              `json:"requestId"`
	Method    string              `json:"method"`
	Host      string              `json:"host"`
	Path      string              `json:"path"`
	Query     string              `json:"query,omitempty"`
	Headers   map[string][]string `json:"headers,omitempty"`
	// Body is the body in base64, as far as it is passed.
	Body     []byte   `json:"body,omitempty"`
	Client   string   `json:"client"`
	Consumer string   `json:"consumer,omitempty"`
	Scopes   []string `json:"scopes,omitempty"`
	Route    string   `json:"route"`
	Service  string   `json:"service,omitempty"`
}

// The windows of quotas. They begin with the minute, hour, day and month of UTC.
const (
	PerMinute = "minute"
	PerHour   = "hour"
	PerDay    = "day"
	PerMonth  = "month"
)

// Quota is how many calls a consumer may make in a window, counted over all replicas of the gateway.
type Quota struct {
	// Calls is how many, 1 to 1e12.
	Calls int64 `json:"calls"`
	// Per is minute, hour, day or month.
	Per string `json:"per"`

	Unknown Unknown `json:"-" bind:"rest"`
}

// SpikeArrest lets calls of a consumer through at an even pace, in each replica.
type SpikeArrest struct {
	// Calls per second or minute.
	Calls int    `json:"calls"`
	Per   string `json:"per"`
	// Buffer is how many calls that come too early wait for their turn; more get 429.
	Buffer int `json:"buffer,omitempty"`

	Unknown Unknown `json:"-" bind:"rest"`
}

// PerSecond is the other unit of a SpikeArrest besides PerMinute.
const PerSecond = "second"

// Timeouts bound waits. "0s" is no bound.
type Timeouts struct {
	// Connect is how long a connection may take. Default: 5s.
	Connect Duration `json:"connect,omitempty"`
	// Response is how long the header of the response may take once the request was sent. Default: 60s.
	Response Duration `json:"response,omitempty"`
	// Idle is how long a body or an upgraded connection may be silent. Default: 5m.
	Idle Duration `json:"idle,omitempty"`
	// Total bounds the whole call. Default: none.
	Total Duration `json:"total,omitempty"`

	Unknown Unknown `json:"-" bind:"rest"`
}

// Upstream says how a target is reached.
type Upstream struct {
	// CA are certificates in PEM that verify the target's, in place of the system's.
	CA string `json:"ca,omitempty"`
	// ClientCertificate names a client certificate of the gateway's configuration (gateway.clientCertificates) to show.
	ClientCertificate string `json:"clientCertificate,omitempty"`
	// ServerName is what the target's certificate must be for, and the SNI. Default: the host of the URL.
	ServerName string `json:"serverName,omitempty"`
	// Proxy is the URL of an HTTP proxy to go through. Default: what the gateway's configuration and environment say. "none": no proxy.
	Proxy string `json:"proxy,omitempty"`
	// Retries is how often a request is tried again elsewhere when it could not be delivered, if it may be repeated. Default: 2; -1:
	// never.
	Retries int `json:"retries,omitempty"`
	// HealthCheck asks targets whether they are well. Default: only calls tell.
	HealthCheck *HealthCheck `json:"healthCheck,omitempty"`
	// EjectAfter is after how many failures in a row a target is left out for EjectFor. Default: 5 and 10s; -1: never.
	EjectAfter int      `json:"ejectAfter,omitempty"`
	EjectFor   Duration `json:"ejectFor,omitempty"`
	// SlowStart is how long a new target takes to get its full share. Default: 0s.
	SlowStart Duration `json:"slowStart,omitempty"`

	Unknown Unknown `json:"-" bind:"rest"`
}

// HealthCheck is a GET that a target must answer with 2xx or 3xx.
type HealthCheck struct {
	// Path is that of the request, below the URL of the target.
	Path string `json:"path"`
	// Interval is the time between two. Default: 5s, at least 100ms.
	Interval Duration `json:"interval,omitempty"`
	// Timeout bounds one. Default: 1s.
	Timeout Duration `json:"timeout,omitempty"`
	// Healthy and Unhealthy are how many in a row change the mind. Default: 1 and 2.
	Healthy   int `json:"healthy,omitempty"`
	Unhealthy int `json:"unhealthy,omitempty"`

	Unknown Unknown `json:"-" bind:"rest"`
}

// Headers says what becomes of header fields.
type Headers struct {
	// Forwarded (RFC 7239), XForwarded (X-Forwarded-For, -Host and -Proto), Via (RFC 9110 7.6.3) and RequestID (X-Request-Id) say
	// whether the fields are sent. Default: as the gateway's setting gateway.headers says.
	Forwarded  *bool `json:"forwarded,omitempty"`
	XForwarded *bool `json:"xForwarded,omitempty"`
	Via        *bool `json:"via,omitempty"`
	RequestID  *bool `json:"requestId,omitempty"`
	// Set and Remove change fields of the request, SetResponse and RemoveResponse those of the response.
	Set            map[string]string `json:"set,omitzero"`
	Remove         []string          `json:"remove,omitzero"`
	SetResponse    map[string]string `json:"setResponse,omitzero"`
	RemoveResponse []string          `json:"removeResponse,omitzero"`

	Unknown Unknown `json:"-" bind:"rest"`
}

// APIKey is a key of a consumer. The key itself is shown once, when it is made.
type APIKey struct {
	// ID is assigned by the gateway.
	ID string `json:"id"`
	// Consumer is whom the key is for: an appInstanceId, or a name of 1 to 63 letters, digits and characters of "-_.~:@".
	Consumer string `json:"consumer"`
	// Description is for people, at most 255 characters.
	Description string `json:"description,omitempty"`
	// Scopes are what its holder may do. Default: mp1.
	Scopes []string `json:"scopes,omitempty"`
	// Services are the serNames the key is good for. None: whatever the consumer may use.
	Services []string `json:"services,omitempty"`
	// Expires is when it ends; absent: never.
	Expires time.Time `json:"expires,omitzero"`
	// Created is when it was made.
	Created time.Time `json:"created,omitzero"`
	// Key is present in the answer that made it, and never again.
	Key string `json:"key,omitempty"`
}

// APIKeyRequest asks for a key.
type APIKeyRequest struct {
	Consumer    string   `json:"consumer"`
	Description string   `json:"description,omitempty"`
	Scopes      []string `json:"scopes,omitempty"`
	Services    []string `json:"services,omitempty"`
	// Lifetime is how long the key is good; "": for ever.
	Lifetime Duration `json:"lifetime,omitempty"`

	Unknown Unknown `json:"-" bind:"rest"`
}

// AccessState is where an access request stands.
type AccessState string

// The states.
const (
	AccessPending AccessState = "PENDING"
	AccessGranted AccessState = "GRANTED"
	AccessRefused AccessState = "REFUSED"
)

// AccessRequest is a consumer's wish to use a conditionally shared service.
type AccessRequest struct {
	// ID is assigned by the gateway.
	ID string `json:"id"`
	// Consumer is who asks.
	Consumer string `json:"consumer"`
	// SerName is the service, Owner the app instance that offers it.
	SerName string `json:"serName"`
	Owner   string `json:"owner"`
	// Purpose is what the consumer says, Reason what was said about the decision; at most 1000 characters.
	Purpose string      `json:"purpose,omitempty"`
	State   AccessState `json:"state"`
	Reason  string      `json:"reason,omitempty"`
	// DecidedBy is the owner or a manager.
	DecidedBy string    `json:"decidedBy,omitempty"`
	Created   time.Time `json:"created"`
	Decided   time.Time `json:"decided,omitzero"`
}

// AccessApplication asks for access. One of SerName and SerInstanceID is given.
type AccessApplication struct {
	SerName       string `json:"serName,omitempty"`
	SerInstanceID string `json:"serInstanceId,omitempty"`
	Purpose       string `json:"purpose,omitempty"`
	// Consumer is for managers, who apply for somebody else. Default: the caller.
	Consumer string `json:"consumer,omitempty"`

	Unknown Unknown `json:"-" bind:"rest"`
}

// AccessDecision grants or refuses.
type AccessDecision struct {
	// State is GRANTED or REFUSED.
	State  AccessState `json:"state"`
	Reason string      `json:"reason,omitempty"`

	Unknown Unknown `json:"-" bind:"rest"`
}
