// Package errs gives errors a kind, and maps kinds to HTTP statuses.
//
// Domain code returns errors made here; the one place that renders them determines their kind with [KindOf]. An
// error without a kind is internal: its text is for the log, not for the client.
package errs

import (
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/openmep/mep/api/problem"
)

// Kind classifies an error. A Kind is itself an error, so that errors.Is(err, errs.NotFound) works.
type Kind int

// The kinds, with the HTTP status of each.
const (
	// Internal is a fault of the platform: 500, text withheld.
	Internal Kind = iota
	// Invalid is a request that is malformed or breaks a rule: 400.
	Invalid
	// Unauthenticated is a caller that did not authenticate: 401.
	Unauthenticated
	// Forbidden is a caller that may not do this, or not in this state: 403.
	Forbidden
	// NotFound is a resource that does not exist: 404.
	NotFound
	// MethodNotAllowed is a method that the resource does not support: 405.
	MethodNotAllowed
	// Conflict is a request that the state of the resource does not allow: 409.
	Conflict
	// PreconditionFailed is an If-Match that does not hold: 412.
	PreconditionFailed
	// TooLarge is a body over the limit: 413.
	TooLarge
	// URITooLong is a request target over the limit: 414.
	URITooLong
	// HeaderTooLarge is a request header over the limit: 431.
	HeaderTooLarge
	// UnsupportedMediaType is a body of a media type that the resource does not accept: 415.
	UnsupportedMediaType
	// TooManyRequests is a caller over its rate or quota: 429.
	TooManyRequests
	// Unavailable is a temporary fault, such as an unreachable store: 503.
	Unavailable
	// InsufficientStorage is a store that has no room: 507.
	InsufficientStorage
	// BadGateway is an upstream server that cannot be reached or does not respond as it should: 502.
	BadGateway
	// RequestTimeout is a client that takes too long to send its request: 408.
	RequestTimeout
	// GatewayTimeout is an upstream server that does not respond in time: 504.
	GatewayTimeout
)

var kinds = map[Kind]struct {
	status int
	title  string
}{
	Internal:             {http.StatusInternalServerError, "Internal error"},
	Invalid:              {http.StatusBadRequest, "Bad request"},
	Unauthenticated:      {http.StatusUnauthorized, "Not authenticated"},
	Forbidden:            {http.StatusForbidden, "Forbidden"},
	NotFound:             {http.StatusNotFound, "Not found"},
	MethodNotAllowed:     {http.StatusMethodNotAllowed, "Method not allowed"},
	Conflict:             {http.StatusConflict, "Conflict"},
	PreconditionFailed:   {http.StatusPreconditionFailed, "Precondition failed"},
	TooLarge:             {http.StatusRequestEntityTooLarge, "Content too large"},
	URITooLong:           {http.StatusRequestURITooLong, "URI too long"},
	HeaderTooLarge:       {http.StatusRequestHeaderFieldsTooLarge, "Request header fields too large"},
	UnsupportedMediaType: {http.StatusUnsupportedMediaType, "Unsupported media type"},
	TooManyRequests:      {http.StatusTooManyRequests, "Too many requests"},
	Unavailable:          {http.StatusServiceUnavailable, "Service unavailable"},
	InsufficientStorage:  {http.StatusInsufficientStorage, "Insufficient storage"},
	BadGateway:           {http.StatusBadGateway, "Bad gateway"},
	RequestTimeout:       {http.StatusRequestTimeout, "Request timeout"},
	GatewayTimeout:       {http.StatusGatewayTimeout, "Gateway timeout"},
}

// Status returns the HTTP status of the kind.
func (k Kind) Status() int { return kinds[k].status }

// Title returns a short text that is the same for every error of the kind.
func (k Kind) Title() string { return kinds[k].title }

// Error implements error.
func (k Kind) Error() string { return k.Title() }

// Error is an error with a kind.
type Error struct {
	// Kind determines how the error is rendered.
	Kind Kind
	// Detail is the sentence the client sees.
	Detail string
	// Params lists the offending parts of the request.
	Params problem.InvalidParams
	// RetryAfter is sent as Retry-After, rounded up to seconds, if it is positive.
	RetryAfter time.Duration
	// Cause is for the log only.
	Cause error
}

// Error returns the detail and the cause.
func (e *Error) Error() string {
	if e.Cause != nil {
		return e.Detail + ": " + e.Cause.Error()
	}
	return e.Detail
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Cause }

// Is reports whether target is e's Kind.
func (e *Error) Is(target error) bool {
	k, ok := target.(Kind)
	return ok && k == e.Kind
}

// New returns an error of the kind with a detail for the client.
func New(k Kind, format string, args ...any) *Error {
	return &Error{Kind: k, Detail: fmt.Sprintf(format, args...)}
}

// Wrap returns an error of the kind with a detail for the client and a cause for the log.
func Wrap(k Kind, cause error, format string, args ...any) *Error {
	e := New(k, format, args...)
	e.Cause = cause
	return e
}

// Params returns an Invalid error that lists all faults, or nil if there are none.
func Params(faults problem.InvalidParams) error {
	if len(faults) == 0 {
		return nil
	}
	return &Error{Kind: Invalid, Detail: faults.Error(), Params: faults}
}

// After sets RetryAfter and returns e.
func (e *Error) After(d time.Duration) *Error {
	e.RetryAfter = d
	return e
}

// KindOf returns the kind of the first error in the chain that has one, or Internal.
func KindOf(err error) Kind {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Kind
	}
	if k, ok := errors.AsType[Kind](err); ok {
		return k
	}
	return Internal
}
